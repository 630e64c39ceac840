//! The last stage before any command, whoever made it (spec robot_control.md §4 \[ADV\]).
//!
//! It compares with the last *commanded* joints, never with the measured ones, and either passes, limits and counts, or
//! refuses. A refused command leaves the last commanded joints in force: the arm holds. A NaN never gets through.

use thiserror::Error;

use crate::arm::{Arm, JointLimits, Joints};

/// Axis-aligned box for the tool point in the robot base frame, m.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkspaceBox {
    pub min_m: [f64; 3],
    pub max_m: [f64; 3],
}

/// What a command may do.
#[derive(Debug, Clone, Copy)]
pub struct SafetyLimits {
    pub joints: JointLimits,
    /// Kept free at both ends of every joint's range.
    pub joint_reserve_rad: f64,
    /// Fastest commanded joint speed.
    pub max_joint_velocity_rad_s: f64,
    /// A command that moves the tool point further than this from the last one is refused, not shortened.
    pub abort_tcp_step_m: f64,
    pub workspace: WorkspaceBox,
}

/// Why a command was refused. `Copy`: the tick speaks in these, another thread turns them into text.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum Refusal {
    #[error("joint {} is not finite", joint + 1)]
    NotFinite { joint: usize },
    #[error("the tool point would jump {distance_m:.3} m, more than {limit_m:.3} m")]
    Jump { distance_m: f64, limit_m: f64 },
    #[error("the tool point would leave the workspace at {axis} = {value_m:.3} m (limits {min_m:.3} to {max_m:.3})")]
    Workspace { axis: char, value_m: f64, min_m: f64, max_m: f64 },
}

/// The verdict on one command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Passed(Joints),
    /// Slowed to the velocity limit or stopped at a joint's range.
    Limited(Joints),
    /// The last commanded joints stay in force.
    Refused(Refusal),
}

/// Counts of what the stage did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SafetyCounts {
    pub passed: u64,
    pub limited_velocity: u64,
    pub limited_range: u64,
    pub refused: u64,
}

/// Holds the last commanded joints.
#[derive(Debug, Clone, Copy)]
pub struct SafetyStage {
    limits: SafetyLimits,
    arm: Arm,
    commanded_rad: Joints,
    pub counts: SafetyCounts,
}

impl SafetyStage {
    /// Starts from the joints in force now (measured at arming).
    pub fn new(arm: Arm, limits: SafetyLimits, commanded_rad: Joints) -> Self {
        Self { limits, arm, commanded_rad, counts: SafetyCounts::default() }
    }

    /// The joints commanded last.
    pub fn commanded_rad(&self) -> &Joints {
        &self.commanded_rad
    }

    /// Judges a wanted command that is `dt_s` after the last one. Never returns a value that is not finite.
    pub fn check(&mut self, wanted_rad: &Joints, dt_s: f64) -> Verdict {
        match self.judge(wanted_rad, dt_s) {
            Ok((joints, slowed, clipped)) => {
                self.commanded_rad = joints;
                self.counts.limited_velocity += u64::from(slowed);
                self.counts.limited_range += u64::from(clipped);
                if slowed || clipped {
                    Verdict::Limited(joints)
                } else {
                    self.counts.passed += 1;
                    Verdict::Passed(joints)
                }
            }
            Err(refusal) => {
                self.counts.refused += 1;
                Verdict::Refused(refusal)
            }
        }
    }

    fn judge(&self, wanted_rad: &Joints, dt_s: f64) -> Result<(Joints, bool, bool), Refusal> {
        if let Some(joint) = wanted_rad.iter().position(|q| !q.is_finite()) {
            return Err(Refusal::NotFinite { joint });
        }
        let before = self.arm.tcp(&self.commanded_rad).translation.vector;
        let distance_m = (self.arm.tcp(wanted_rad).translation.vector - before).norm();
        if distance_m > self.limits.abort_tcp_step_m {
            return Err(Refusal::Jump { distance_m, limit_m: self.limits.abort_tcp_step_m });
        }
        let (mut joints, mut clipped) = (*wanted_rad, false);
        for i in 0..7 {
            let lo = self.limits.joints.lower_rad[i] + self.limits.joint_reserve_rad;
            let hi = self.limits.joints.upper_rad[i] - self.limits.joint_reserve_rad;
            // An arm that starts outside the reserve may stay there or come back, not go further.
            let (lo, hi) = (lo.min(self.commanded_rad[i]), hi.max(self.commanded_rad[i]));
            let inside = joints[i].clamp(lo, hi);
            clipped |= inside != joints[i];
            joints[i] = inside;
        }
        // All joints are slowed by one factor, so that the direction of the motion is kept.
        let step = self.limits.max_joint_velocity_rad_s * dt_s.max(0.0);
        let largest = (0..7).map(|i| (joints[i] - self.commanded_rad[i]).abs()).fold(0.0, f64::max);
        let slowed = largest > step;
        if slowed {
            let factor = step / largest;
            for i in 0..7 {
                joints[i] = self.commanded_rad[i] + (joints[i] - self.commanded_rad[i]) * factor;
            }
        }
        let p = self.arm.tcp(&joints).translation.vector;
        for axis in 0..3 {
            let (min_m, max_m) = (self.limits.workspace.min_m[axis], self.limits.workspace.max_m[axis]);
            // Moving back toward the box from outside is allowed.
            let outward = (p[axis] < min_m && p[axis] < before[axis]) || (p[axis] > max_m && p[axis] > before[axis]);
            if outward {
                return Err(Refusal::Workspace { axis: ['x', 'y', 'z'][axis], value_m: p[axis], min_m, max_m });
            }
        }
        Ok((joints, slowed, clipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::{RobotModel, T_flange_hand_tcp};

    const RESET: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];

    fn stage() -> SafetyStage {
        let limits = SafetyLimits {
            joints: RobotModel::Fer.limits(),
            joint_reserve_rad: 0.05,
            max_joint_velocity_rad_s: 1.5,
            abort_tcp_step_m: 0.11,
            workspace: WorkspaceBox { min_m: [0.3, -0.4, 0.02], max_m: [0.8, 0.4, 0.5] },
        };
        SafetyStage::new(Arm::new(T_flange_hand_tcp()), limits, RESET)
    }

    #[test]
    fn a_nan_is_refused_and_the_last_command_stays() {
        let mut s = stage();
        let mut wanted = RESET;
        wanted[3] = f64::NAN;
        assert!(matches!(s.check(&wanted, 0.01), Verdict::Refused(Refusal::NotFinite { joint: 3 })));
        assert_eq!(s.commanded_rad(), &RESET);
    }

    #[test]
    fn a_fast_command_is_slowed_against_the_last_commanded_value() {
        let mut s = stage();
        let mut wanted = RESET;
        wanted[0] += 0.05;
        let Verdict::Limited(first) = s.check(&wanted, 0.01) else { panic!("0.05 rad in 10 ms is 5 rad/s") };
        assert!((first[0] - RESET[0] - 0.015).abs() < 1e-12);
        let Verdict::Limited(second) = s.check(&wanted, 0.01) else { panic!("still 0.035 rad to go") };
        assert!((second[0] - first[0] - 0.015).abs() < 1e-12);
    }

    #[test]
    fn a_jump_and_a_command_out_of_the_box_are_refused() {
        let mut s = stage();
        let mut wanted = RESET;
        wanted[0] += 0.5;
        assert!(matches!(s.check(&wanted, 0.01), Verdict::Refused(Refusal::Jump { .. })));
        for _ in 0..2000 {
            let mut wanted = *s.commanded_rad();
            wanted[0] += 0.01;
            if let Verdict::Refused(refusal) = s.check(&wanted, 0.01) {
                assert!(matches!(refusal, Refusal::Workspace { axis: 'y', .. }), "{refusal}");
                return;
            }
        }
        panic!("turning the base never left the box");
    }
}
