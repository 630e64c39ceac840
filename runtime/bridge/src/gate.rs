//! The last look at a target before it leaves for a server that checks nothing.
//!
//! The controller's safety stage has limited it already. What is refused here was not made by that stage, or got lost
//! in between, so the bridge does not repair it: the stream ends and the arm holds.

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::message::JointTarget;
use tenon_core::time::MonotonicTime;
use thiserror::Error;

/// Steps are judged against this multiple of the safety stage's speed.
const VELOCITY_MARGIN: f64 = 1.5;
/// Targets may bunch up on their way by this much.
const JITTER: Duration = Duration::from_millis(50);
/// However long nothing came: a larger step would be a blow (K·Δq: 0.25 rad · 150 N·m/rad ≈ 38 N·m on joint 1).
const MAX_STEP_RAD: f64 = 0.25;

/// Why a target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum GateRefusal {
    #[error("joint {} is not finite", joint + 1)]
    NotFinite { joint: usize },
    #[error("joint {} at {position_rad:.4} rad is outside {lower_rad:.4} to {upper_rad:.4}", joint + 1)]
    OutOfRange { joint: usize, position_rad: f64, lower_rad: f64, upper_rad: f64 },
    #[error("joint {} would step by {step_rad:.4} rad, more than {limit_rad:.4}", joint + 1)]
    Step { joint: usize, step_rad: f64, limit_rad: f64 },
}

/// Judges targets against the last one sent.
#[derive(Debug, Clone)]
pub struct TargetGate {
    lower_rad: Joints,
    upper_rad: Joints,
    max_velocity_rad_s: f64,
    sent_rad: Joints,
    sent_at: MonotonicTime,
    sequence: u64,
}

impl TargetGate {
    /// Opens at the joints that the uploaded controller holds (measured) at `now`.
    pub fn new(
        lower_rad: Joints,
        upper_rad: Joints,
        max_velocity_rad_s: f64,
        held_rad: Joints,
        now: MonotonicTime,
    ) -> Self {
        Self { lower_rad, upper_rad, max_velocity_rad_s, sent_rad: held_rad, sent_at: now, sequence: 0 }
    }

    /// `None` for a target that is not newer than the last one; otherwise what to send, or why not.
    ///
    /// # Errors
    /// [`GateRefusal`]
    pub fn admit(&mut self, target: &JointTarget, arrived: MonotonicTime) -> Option<Result<[f32; 7], GateRefusal>> {
        if target.sequence <= self.sequence || arrived < self.sent_at {
            return None;
        }
        let verdict = self.judge(&target.joint_positions_rad, arrived);
        self.sequence = target.sequence;
        if verdict.is_ok() {
            self.sent_rad = target.joint_positions_rad;
            self.sent_at = arrived;
        }
        Some(verdict)
    }

    fn judge(&self, wanted_rad: &Joints, arrived: MonotonicTime) -> Result<[f32; 7], GateRefusal> {
        let time_s = (arrived.since(self.sent_at) + JITTER).as_secs_f64();
        let limit_rad = (VELOCITY_MARGIN * self.max_velocity_rad_s * time_s).min(MAX_STEP_RAD);
        for joint in 0..7 {
            let (position_rad, before) = (wanted_rad[joint], self.sent_rad[joint]);
            if !position_rad.is_finite() {
                return Err(GateRefusal::NotFinite { joint });
            }
            // An arm that stands outside may stay there or come back.
            let lower_rad = self.lower_rad[joint].min(before);
            let upper_rad = self.upper_rad[joint].max(before);
            if position_rad < lower_rad || position_rad > upper_rad {
                return Err(GateRefusal::OutOfRange { joint, position_rad, lower_rad, upper_rad });
            }
            let step_rad = (position_rad - before).abs();
            if step_rad > limit_rad {
                return Err(GateRefusal::Step { joint, step_rad, limit_rad });
            }
        }
        Ok(wanted_rad.map(|q| q as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::arm::{POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD};

    const Q: Joints = [0.0, 0.3, 0.0, -2.0, 0.0, 2.5, 0.0];

    fn ms(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    fn gate() -> TargetGate {
        TargetGate::new(POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD, 1.5, Q, ms(0))
    }

    fn target(sequence: u64, change: f64) -> JointTarget {
        let mut joint_positions_rad = Q;
        joint_positions_rad[0] += change;
        JointTarget::still(1, sequence, ms(0), joint_positions_rad)
    }

    #[test]
    fn small_steps_pass_and_older_targets_are_ignored() {
        let mut gate = gate();
        assert_eq!(gate.admit(&target(2, 0.01), ms(7)).unwrap().unwrap()[0], 0.01);
        assert!(gate.admit(&target(2, 0.02), ms(14)).is_none());
        assert!(gate.admit(&target(1, 0.02), ms(14)).is_none());
        assert!(gate.admit(&target(3, 0.02), ms(6)).is_none(), "it arrived before the last one was sent");
        assert!(gate.admit(&target(3, 0.02), ms(14)).unwrap().is_ok());
    }

    #[test]
    fn nan_range_and_steps_are_refused_and_leave_the_last_target_in_force() {
        let mut gate = gate();
        let refused = |gate: &mut TargetGate, t: JointTarget| gate.admit(&t, ms(1000)).unwrap().unwrap_err();
        assert_eq!(refused(&mut gate, target(1, f64::NAN)), GateRefusal::NotFinite { joint: 0 });
        assert!(matches!(refused(&mut gate, target(2, 0.26)), GateRefusal::Step { joint: 0, .. }));
        let mut low = target(3, 0.0);
        low.joint_positions_rad[5] = 0.07;
        assert!(matches!(refused(&mut gate, low), GateRefusal::OutOfRange { joint: 5, .. }));
        assert_eq!(gate.sent_rad, Q);
    }

    #[test]
    fn a_step_may_be_as_large_as_the_time_since_the_last_allows() {
        let mut gate = gate();
        assert!(matches!(gate.admit(&target(1, 0.2), ms(7)), Some(Err(GateRefusal::Step { .. }))));
        assert!(gate.admit(&target(2, 0.2), ms(40)).unwrap().is_ok());
    }
}
