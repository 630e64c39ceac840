//! `[gripper]` of `robot.toml`: the gripper server and what its commands are (spec robot_control.md §7).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::Problems;
use crate::gripper::{EMPTY_WIDTH_M, MonitorSettings, ToggleSettings};

/// Widest opening of the hands that Polymetis drives: 0.08 m (Franka), 0.085 m (Robotiq 2F).
const WIDEST_M: f64 = 0.085;

/// Absent on an arm without a gripper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GripperConfig {
    /// Address of the Polymetis gripper server, `host:port`.
    pub server: String,
    /// Opening of an open hand.
    pub open_width_m: f64,
    pub open_speed_m_s: f64,
    /// A hand is closed by a grasp with this speed and force until it meets something.
    pub close_speed_m_s: f64,
    pub close_force_n: f64,
    /// A command that takes longer counts as failed, though its late end is noted. Nothing can interrupt the hand.
    pub timeout_s: f64,
    /// Widest opening in the demonstrations: what is reported to policies is clamped to it, so that an open hand looks as it
    /// did in training.
    pub observed_max_m: f64,
    /// |a| of a policy's gripper value a must be larger to turn the hand over.
    pub toggle_threshold: f64,
    /// More executed actions than these must lie between two commands.
    pub toggle_min_actions: u32,
}

impl GripperConfig {
    /// For [`GripperToggle`](crate::gripper::GripperToggle).
    pub fn toggle(&self) -> ToggleSettings {
        ToggleSettings { threshold: self.toggle_threshold, min_actions: self.toggle_min_actions }
    }

    /// For [`GripperMonitor`](crate::gripper::GripperMonitor).
    pub fn monitor(&self) -> MonitorSettings {
        MonitorSettings {
            open_width_m: self.open_width_m,
            observed_max_m: self.observed_max_m,
            timeout: Duration::from_secs_f64(self.timeout_s),
        }
    }

    pub(super) fn check(&self, p: &mut Problems) {
        let is_address = |server: &str| {
            server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !is_address(&self.server) {
            p.add("gripper.server", format!("\"{}\" must be host:port", self.server));
        }
        p.within("gripper.open_width_m", self.open_width_m, 10.0 * EMPTY_WIDTH_M, WIDEST_M);
        p.within("gripper.open_speed_m_s", self.open_speed_m_s, 0.005, 0.2);
        p.within("gripper.close_speed_m_s", self.close_speed_m_s, 0.005, 0.2);
        // The hand's own limit, for a short time.
        p.within("gripper.close_force_n", self.close_force_n, 1.0, 140.0);
        p.within("gripper.timeout_s", self.timeout_s, 0.1, 60.0);
        let motion_s = self.open_width_m / self.open_speed_m_s.min(self.close_speed_m_s);
        // False for a NaN, which has been named above.
        if self.timeout_s <= motion_s {
            let what =
                format!("{} must be longer than the slower motion takes by itself, {motion_s:.2} s", self.timeout_s);
            p.add("gripper.timeout_s", what);
        }
        p.within("gripper.observed_max_m", self.observed_max_m, EMPTY_WIDTH_M, WIDEST_M);
        p.within("gripper.toggle_threshold", self.toggle_threshold, 0.0, 0.99);
        p.within("gripper.toggle_min_actions", f64::from(self.toggle_min_actions), 0.0, 1000.0);
    }
}
