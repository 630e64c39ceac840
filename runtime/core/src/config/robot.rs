//! `configs/robot.toml`: the robot, its limits, the link and the server behind the bridge.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cameras::CamerasConfig;
use super::gripper::GripperConfig;
use super::parse::{Check, Problems};
use crate::arm::{Arm, Joints, POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD, RobotModel, tool_along_flange_z};
use crate::fusion::FusionConfig;
use crate::ik::Damping;
use crate::safety::{CollisionLimits, SafetyLimits, WorkspaceBox};
use crate::timeline::{Anchor, HandOver};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotConfig {
    pub model: RobotModel,
    pub tool: ToolConfig,
    pub control: ControlConfig,
    pub safety: SafetyConfig,
    pub link: LinkConfig,
    pub bridge: BridgeConfig,
    /// Absent on an arm without a gripper; its width is NaN then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gripper: Option<GripperConfig>,
    pub calibration: CalibrationConfig,
    /// Absent on a robot without cameras; policies that observe parts are refused then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cameras: Option<CamerasConfig>,
    /// How measurements of parts become what the policy observes.
    #[serde(default)]
    pub fusion: FusionConfig,
}

/// The tool point in the flange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolConfig {
    /// Along the flange's z axis.
    pub offset_m: f64,
    /// About it.
    pub yaw_rad: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Joint targets sent within one period of the policy; the pose is interpolated between them.
    pub targets_per_action: usize,
    /// How a new chunk takes over from the one that is being executed.
    pub hand_over: HandOver,
    /// What happens to the schedule after something blocked.
    #[serde(default)]
    pub anchor: Anchor,
    /// How quickly the arm's null space is drawn to the posture that a run began with, 1/s.
    #[serde(default)]
    pub posture_rate_hz: f64,
    /// Lag of each joint's impedance law behind a moving target (Kd/Kp); the target leads by it. 0 = the paper's law.
    pub lag_compensation_s: Joints,
    /// A robot state older than this holds the arm.
    pub max_state_age_s: f64,
    /// That many late ticks in a row are a fault.
    pub max_late_ticks: usize,
    /// SCHED_FIFO priority where permitted; 0 asks for none.
    pub realtime_priority: i32,
    /// The control thread's own processor, counted from 0: it stays on it, Tenon's other threads stay off it. Absent: the scheduler's
    /// choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    pub ik: DampingConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "damping", rename_all = "snake_case")]
pub enum DampingConfig {
    /// Pseudo-inverse, as in the paper.
    None,
    NearSingular {
        sigma_start: f64,
        lambda_max: f64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafetyConfig {
    pub joint_reserve_rad: f64,
    pub max_joint_velocity_rad_s: f64,
    /// Parts of the robot's own limits of acceleration and jerk that commands use.
    pub acceleration_fraction: f64,
    pub jerk_fraction: f64,
    pub abort_tcp_step_m: f64,
    /// An action that asks for more than these, against the one before, is shortened.
    pub max_tcp_step_m: f64,
    pub max_tcp_turn_deg: f64,
    pub workspace_min_m: [f64; 3],
    pub workspace_max_m: [f64; 3],
    /// Height of the table's top in the robot's base; forearm, wrist and hand stay above it.
    pub table_z_m: f64,
    /// Least distance of the arm's bodies from each other and from the table.
    pub clearance_m: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// zenoh end point at which the bridge listens and the controller connects: `tcp/127.0.0.1:7447` on one computer,
    /// `tls/192.168.1.10:7447` between two.
    pub endpoint: String,
    /// Silence of the owner after which the bridge releases the arm.
    pub heartbeat_timeout_s: f64,
    /// Certificates of both sides, for `tls/` end points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<LinkTlsConfig>,
    /// Allows plain TCP beyond this computer. Whoever reaches the port then commands the arm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anybody_on_the_network_may_move_the_arm: bool,
}

/// What `tenon secure` made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTlsConfig {
    /// Absolute path of the folder that holds a folder for each role of this computer: `bridge`, `controller`, `observer`.
    pub folder: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Address of the Polymetis controller server, `host:port`.
    pub server: String,
    /// How often the newest robot state is fetched.
    pub state_rate_hz: f64,
    /// Which law is uploaded.
    pub controller: BridgeController,
    /// How long after the instant that a target is for it is played at the earliest: what its lateness on the way may be.
    pub lead_s: f64,
    /// Joint gains of the uploaded controller.
    pub joint_stiffness_nm_rad: Joints,
    pub joint_damping_nms_rad: Joints,
    /// Cartesian gains (x, y, z, then rotations) added to the joint ones; all zero uploads the plain joint law.
    pub cartesian_stiffness: [f64; 6],
    pub cartesian_damping: [f64; 6],
}

/// The law that runs in the server's 1 kHz loop (spec polymetis.md §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeController {
    /// Tenon's: plays timed waypoints with velocities, and brakes to rest by itself.
    Waypoints,
    /// Polymetis' own joint impedance: the newest target, without its velocity; late by Kd/Kp, and it holds what it was told last.
    Stock,
}

/// What a calibration must reach before it is taken into use, and how far a camera may move afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationConfig {
    /// Largest root mean square distance of touched points from where the registration puts them.
    pub touch_off_rms_m: f64,
    pub proof: ProofConfig,
    pub drift: DriftConfig,
}

/// Limits of the proof on held-out views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofConfig {
    /// 95 % of the views must be off by no more than this.
    pub position_m: f64,
    pub rotation_deg: f64,
    /// Views that are needed to say so.
    pub min_views: usize,
    /// Distance between the two farthest views: a proof at one place says nothing about the others.
    pub min_extent_m: f64,
}

/// Motion of a camera since it was calibrated, beyond what noise explains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftConfig {
    /// From here on it is said.
    pub warn_m: f64,
    pub warn_deg: f64,
    /// From here on no trial is started.
    pub stop_m: f64,
    pub stop_deg: f64,
}

impl RobotConfig {
    pub fn arm(&self) -> Arm {
        Arm::new(tool_along_flange_z(self.tool.offset_m, self.tool.yaw_rad))
    }

    pub fn damping(&self) -> Damping {
        match self.control.ik {
            DampingConfig::None => Damping::None,
            DampingConfig::NearSingular { sigma_start, lambda_max } => {
                Damping::NearSingular { sigma_start, lambda_max }
            }
        }
    }

    /// From the instant that a target is for until it is played, s.
    pub fn lead_s(&self) -> f64 {
        match self.bridge.controller {
            BridgeController::Waypoints => self.bridge.lead_s,
            BridgeController::Stock => 0.0,
        }
    }

    /// The robot's limits narrowed to those at which the Polymetis client would abort.
    pub fn safety_limits(&self) -> SafetyLimits {
        let mut joints = self.model.limits();
        for i in 0..7 {
            joints.lower_rad[i] = joints.lower_rad[i].max(POLYMETIS_LOWER_RAD[i]);
            joints.upper_rad[i] = joints.upper_rad[i].min(POLYMETIS_UPPER_RAD[i]);
        }
        SafetyLimits {
            joints,
            joint_reserve_rad: self.safety.joint_reserve_rad,
            max_joint_velocity_rad_s: self.safety.max_joint_velocity_rad_s,
            acceleration_fraction: self.safety.acceleration_fraction,
            jerk_fraction: self.safety.jerk_fraction,
            abort_tcp_step_m: self.safety.abort_tcp_step_m,
            workspace: WorkspaceBox { min_m: self.safety.workspace_min_m, max_m: self.safety.workspace_max_m },
            collision: CollisionLimits { clearance_m: self.safety.clearance_m, table_z_m: self.safety.table_z_m },
        }
    }
}

impl Check for RobotConfig {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut p = Problems(Vec::new());
        p.within("tool.offset_m", self.tool.offset_m, 0.0, 1.0);
        p.within("tool.yaw_rad", self.tool.yaw_rad, -3.2, 3.2);
        p.at_least_one("control.targets_per_action", self.control.targets_per_action);
        for lag in self.control.lag_compensation_s {
            p.within("control.lag_compensation_s", lag, 0.0, 0.5);
        }
        p.positive("control.max_state_age_s", self.control.max_state_age_s);
        p.at_least_one("control.max_late_ticks", self.control.max_late_ticks);
        p.within("control.realtime_priority", f64::from(self.control.realtime_priority), 0.0, 99.0);
        if let Some(cpu) = self.control.cpu {
            // What a CPU set of the kernel's usual size has room for.
            p.within("control.cpu", cpu as f64, 0.0, 1023.0);
        }
        p.within("safety.joint_reserve_rad", self.safety.joint_reserve_rad, 0.0, 0.5);
        p.within("safety.max_joint_velocity_rad_s", self.safety.max_joint_velocity_rad_s, 1e-3, 2.175);
        p.within("safety.acceleration_fraction", self.safety.acceleration_fraction, 0.05, 1.0);
        p.within("safety.jerk_fraction", self.safety.jerk_fraction, 0.01, 1.0);
        p.positive("safety.abort_tcp_step_m", self.safety.abort_tcp_step_m);
        p.positive("safety.max_tcp_step_m", self.safety.max_tcp_step_m);
        p.within("safety.max_tcp_turn_deg", self.safety.max_tcp_turn_deg, 0.1, 180.0);
        p.within("control.posture_rate_hz", self.control.posture_rate_hz, 0.0, 2.0);
        match self.control.hand_over {
            HandOver::Sequential => {}
            HandOver::Blend { executed, periods } => {
                p.at_least_one("control.hand_over.executed", executed);
                p.at_least_one("control.hand_over.periods", periods);
            }
            HandOver::Ensemble { executed, decay } => {
                p.at_least_one("control.hand_over.executed", executed);
                p.within("control.hand_over.decay", decay, 0.0, 10.0);
            }
            HandOver::Inpaint { executed } => p.at_least_one("control.hand_over.executed", executed),
        }
        p.within("safety.table_z_m", self.safety.table_z_m, -1.0, 1.0);
        p.within("safety.clearance_m", self.safety.clearance_m, 0.0, 0.2);
        for axis in 0..3 {
            let (low, high) = (self.safety.workspace_min_m[axis], self.safety.workspace_max_m[axis]);
            // A NaN is below nothing.
            if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
                p.0.push(("safety.workspace_min_m", format!("axis {axis} is not below workspace_max_m")));
            }
        }
        p.positive("link.heartbeat_timeout_s", self.link.heartbeat_timeout_s);
        if self.link.tls.as_ref().is_some_and(|tls| !tls.folder.is_absolute()) {
            p.add(
                "link.tls.folder",
                "must be an absolute path, e.g. \"/var/lib/tenon/secure\" (`tenon secure` prints it)",
            );
        }
        p.within("bridge.state_rate_hz", self.bridge.state_rate_hz, 1.0, 1000.0);
        // Longer than this is no control any more.
        p.within("bridge.lead_s", self.bridge.lead_s, 0.0, 0.1);
        for i in 0..7 {
            p.within("bridge.joint_stiffness_nm_rad", self.bridge.joint_stiffness_nm_rad[i], 0.0, 1000.0);
            p.within("bridge.joint_damping_nms_rad", self.bridge.joint_damping_nms_rad[i], 0.0, 200.0);
        }
        self.gripper.iter().for_each(|gripper| gripper.check(&mut p));
        self.calibration.check(&mut p);
        self.cameras.iter().for_each(|cameras| cameras.check(&mut p));
        if self
            .cameras
            .as_ref()
            .is_some_and(|c| c.realtime_priority > 0 && c.realtime_priority >= self.control.realtime_priority)
        {
            p.add(
                "cameras.realtime_priority",
                "must be below control.realtime_priority: a tick does not wait for a picture",
            );
        }
        p.0.extend(self.fusion.problems());
        p.0
    }
}

impl CalibrationConfig {
    fn check(&self, p: &mut Problems) {
        let Self { touch_off_rms_m, proof, drift } = self;
        // Wider limits than these prove nothing: a leg's hole is 5 mm wide.
        p.within("calibration.touch_off_rms_m", *touch_off_rms_m, 1e-5, 0.02);
        p.within("calibration.proof.position_m", proof.position_m, 1e-5, 0.05);
        p.within("calibration.proof.rotation_deg", proof.rotation_deg, 1e-3, 20.0);
        p.at_least_one("calibration.proof.min_views", proof.min_views);
        p.within("calibration.proof.min_extent_m", proof.min_extent_m, 0.0, 2.0);
        p.within("calibration.drift.warn_m", drift.warn_m, 1e-5, 0.1);
        p.within("calibration.drift.warn_deg", drift.warn_deg, 1e-3, 45.0);
        // A NaN is caught here too.
        p.within("calibration.drift.stop_m", drift.stop_m, drift.warn_m, 0.1);
        p.within("calibration.drift.stop_deg", drift.stop_deg, drift.warn_deg, 45.0);
    }
}
