//! An arm that is exactly where it was commanded, and a bridge that grants what it is asked: for benchmarks, checks and tests that run a
//! [`Controller`](crate::machine::Controller) with a clock of their own.

use std::collections::VecDeque;

use tenon_core::arm::Joints;
use tenon_core::message::{BridgeState, BridgeStatus, GripperPhase, Request, RobotState};
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};

use crate::machine::Outcome;

/// See the module. Whoever wants another arm or bridge than a perfect one changes the fields between two ticks.
#[derive(Debug, Clone)]
pub struct PerfectArm {
    pub joint_positions_rad: Joints,
    pub joint_velocities_rad_s: Joints,
    pub gripper: GripperPhase,
    pub bridge: BridgeStatus,
    /// Commands that the arm has not come to yet.
    coming: VecDeque<[JointMotion; 7]>,
    behind: usize,
    states: u64,
}

impl PerfectArm {
    /// At rest, without a hand, behind a bridge that nobody has armed.
    pub fn at(joint_positions_rad: Joints) -> Self {
        Self {
            joint_positions_rad,
            joint_velocities_rad_s: [0.0; 7],
            gripper: GripperPhase::Absent,
            bridge: BridgeStatus::idle(),
            coming: VecDeque::new(),
            behind: 0,
            states: 0,
        }
    }

    /// The same arm, where it was commanded to be `ticks` ticks before.
    pub fn behind(mut self, ticks: usize) -> Self {
        self.behind = ticks;
        self
    }

    /// What the robot says of itself at `now`.
    pub fn state(&mut self, now: MonotonicTime) -> Stamped<RobotState> {
        self.states += 1;
        let value = RobotState {
            sequence: self.states,
            robot_time: RobotTime::from_nanos(now.as_nanos()),
            joint_velocities_rad_s: self.joint_velocities_rad_s,
            gripper: self.gripper,
            ..RobotState::at_rest(self.joint_positions_rad)
        };
        Stamped { time: now, value }
    }

    /// What the bridge says at `now`.
    pub fn status(&self, now: MonotonicTime) -> Stamped<BridgeStatus> {
        Stamped { time: now, value: self.bridge }
    }

    /// Does what a tick has led to.
    pub fn follow(&mut self, outcome: &Outcome) {
        if let Some(Request::Arm { session }) = outcome.request {
            (self.bridge.state, self.bridge.session) = (BridgeState::Running, session);
        }
        self.coming.extend(outcome.target);
        while self.coming.len() > self.behind {
            let Some(motion) = self.coming.pop_front() else { return };
            self.joint_positions_rad = motion.map(|joint| joint.position_rad);
            self.joint_velocities_rad_s = motion.map(|joint| joint.velocity_rad_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commanded(position_rad: f64) -> Outcome {
        let motion = JointMotion { position_rad, velocity_rad_s: 2.0 * position_rad, acceleration_rad_s2: 0.0 };
        Outcome { target: Some([motion; 7]), ..Outcome::default() }
    }

    #[test]
    fn it_is_where_it_was_commanded_that_many_ticks_before() {
        for behind in [0, 1, 3] {
            let mut arm = PerfectArm::at([0.0; 7]).behind(behind);
            for tick in 1..10 {
                arm.follow(&commanded(tick as f64));
                let wanted = tick.max(behind) - behind;
                let state = arm.state(MonotonicTime::from_nanos(tick as i64)).value;
                assert_eq!(state.joint_positions_rad, [wanted as f64; 7]);
                assert_eq!(state.joint_velocities_rad_s, [2.0 * wanted as f64; 7]);
                assert_eq!((state.sequence, state.robot_time.as_nanos()), (tick as u64, tick as i64));
            }
            arm.follow(&Outcome::default());
            assert_eq!(arm.joint_positions_rad, [(9 - behind) as f64; 7], "without a command it stays");
        }
    }

    #[test]
    fn the_bridge_grants_the_lease_that_it_is_asked_for() {
        let mut arm = PerfectArm::at([0.0; 7]);
        assert_eq!((arm.bridge.state, arm.bridge.session), (BridgeState::Idle, 0));
        arm.follow(&Outcome { request: Some(Request::Arm { session: 9 }), ..Outcome::default() });
        let status = arm.status(MonotonicTime::from_nanos(5));
        assert_eq!((status.time.as_nanos(), status.value.state, status.value.session), (5, BridgeState::Running, 9));
    }
}
