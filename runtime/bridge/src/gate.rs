//! The last look at a target before it becomes part of a plan for a server that checks nothing.
//!
//! The controller's safety stage has limited it already. What is refused here was not made by that stage, or got lost
//! in between, so the bridge does not repair it: the stream ends and the arm comes to rest by the plan that it has.

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::message::JointTarget;
use tenon_core::safety::{JointBounds, JointMotion, Stop};
use tenon_core::time::MonotonicTime;
use thiserror::Error;

/// Speeds and accelerations may pass the safety stage's by this factor: rounding, and no more.
const MARGIN: f64 = 1.01;
/// Steps are judged against this multiple of the speed.
const STEP_MARGIN: f64 = 1.5;
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
    #[error("joint {} would stop at {position_rad:.4} rad only, outside {lower_rad:.4} to {upper_rad:.4}", joint + 1)]
    NoStop { joint: usize, position_rad: f64, lower_rad: f64, upper_rad: f64 },
    #[error("joint {} would move at {velocity_rad_s:.3} rad/s, more than {limit_rad_s:.3}", joint + 1)]
    Velocity { joint: usize, velocity_rad_s: f64, limit_rad_s: f64 },
    #[error("joint {} would accelerate by {acceleration_rad_s2:.2} rad/s², more than {limit_rad_s2:.2}", joint + 1)]
    Acceleration { joint: usize, acceleration_rad_s2: f64, limit_rad_s2: f64 },
    #[error("joint {} would step by {step_rad:.4} rad, more than {limit_rad:.4}", joint + 1)]
    Step { joint: usize, step_rad: f64, limit_rad: f64 },
}

/// Judges targets against the last one sent.
#[derive(Debug, Clone)]
pub struct TargetGate {
    bounds: [JointBounds; 7],
    admitted_rad: Joints,
    admitted_at: MonotonicTime,
    admitted_due: MonotonicTime,
    sequence: u64,
}

impl TargetGate {
    /// Opens at the joints that the uploaded controller holds (measured) at `now`. `bounds`: range that targets and their stops
    /// must keep, speed and acceleration of the safety stage.
    pub fn new(bounds: [JointBounds; 7], held_rad: Joints, now: MonotonicTime) -> Self {
        Self {
            bounds,
            admitted_rad: held_rad,
            admitted_at: now,
            admitted_due: MonotonicTime::from_nanos(i64::MAX),
            sequence: 0,
        }
    }

    /// `None` for a target that is not newer than the last one; otherwise whether it may be followed.
    pub fn admit(&mut self, target: &JointTarget, arrived: MonotonicTime) -> Option<Result<(), GateRefusal>> {
        if target.sequence <= self.sequence || arrived < self.admitted_at {
            return None;
        }
        let verdict = self.judge(target, arrived);
        self.sequence = target.sequence;
        if verdict.is_ok() {
            self.admitted_rad = target.joint_positions_rad;
            self.admitted_at = arrived;
            self.admitted_due = target.due;
        }
        Some(verdict)
    }

    fn judge(&self, target: &JointTarget, arrived: MonotonicTime) -> Result<(), GateRefusal> {
        target.check_finite().map_err(|joint| GateRefusal::NotFinite { joint })?;
        // Targets that were held up on their way arrive together: how far apart they were made counts then.
        let between = arrived.since(self.admitted_at).max(target.due.since(self.admitted_due));
        let time_s = (between + JITTER).as_secs_f64();
        for (joint, bounds) in self.bounds.iter().enumerate() {
            let (position_rad, before) = (target.joint_positions_rad[joint], self.admitted_rad[joint]);
            // An arm that stands outside may stay there or come back.
            let lower_rad = bounds.lower_rad.min(before);
            let upper_rad = bounds.upper_rad.max(before);
            if position_rad < lower_rad || position_rad > upper_rad {
                return Err(GateRefusal::OutOfRange { joint, position_rad, lower_rad, upper_rad });
            }
            let velocity_rad_s = target.joint_velocities_rad_s[joint];
            let limit_rad_s = bounds.velocity_rad_s * MARGIN;
            if velocity_rad_s.abs() > limit_rad_s {
                return Err(GateRefusal::Velocity { joint, velocity_rad_s, limit_rad_s });
            }
            let acceleration_rad_s2 = target.joint_accelerations_rad_s2[joint];
            let limit_rad_s2 = bounds.acceleration_rad_s2 * MARGIN;
            if acceleration_rad_s2.abs() > limit_rad_s2 {
                return Err(GateRefusal::Acceleration { joint, acceleration_rad_s2, limit_rad_s2 });
            }
            let stop = Stop::of(&JointMotion { position_rad, velocity_rad_s, acceleration_rad_s2 }, bounds);
            let (low, high) = stop.extent_rad();
            if low < lower_rad || high > upper_rad {
                let position_rad = if low < lower_rad { low } else { high };
                return Err(GateRefusal::NoStop { joint, position_rad, lower_rad, upper_rad });
            }
            let limit_rad = (STEP_MARGIN * bounds.velocity_rad_s * time_s).min(MAX_STEP_RAD);
            let step_rad = (position_rad - before).abs();
            if step_rad > limit_rad {
                return Err(GateRefusal::Step { joint, step_rad, limit_rad });
            }
        }
        Ok(())
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
        let bounds = std::array::from_fn(|i| JointBounds {
            lower_rad: POLYMETIS_LOWER_RAD[i],
            upper_rad: POLYMETIS_UPPER_RAD[i],
            velocity_rad_s: 1.5,
            acceleration_rad_s2: 10.0,
            jerk_rad_s3: 3000.0,
        });
        TargetGate::new(bounds, Q, ms(0))
    }

    fn target(sequence: u64, change: f64) -> JointTarget {
        let mut joint_positions_rad = Q;
        joint_positions_rad[0] += change;
        JointTarget::still(1, sequence, ms(0), joint_positions_rad)
    }

    #[test]
    fn small_steps_pass_and_older_targets_are_ignored() {
        let mut gate = gate();
        assert_eq!(gate.admit(&target(2, 0.01), ms(7)), Some(Ok(())));
        assert!(gate.admit(&target(2, 0.02), ms(14)).is_none());
        assert!(gate.admit(&target(1, 0.02), ms(14)).is_none());
        assert!(gate.admit(&target(3, 0.02), ms(6)).is_none(), "it arrived before the last one was sent");
        assert_eq!(gate.admit(&target(3, 0.02), ms(14)), Some(Ok(())));
    }

    #[test]
    fn whatever_the_safety_stage_would_not_say_is_refused_and_leaves_the_last_target_in_force() {
        let mut gate = gate();
        let refused = |gate: &mut TargetGate, t: JointTarget| gate.admit(&t, ms(1000)).unwrap().unwrap_err();
        assert_eq!(refused(&mut gate, target(1, f64::NAN)), GateRefusal::NotFinite { joint: 0 });
        let mut wrong = target(2, 0.0);
        wrong.joint_velocities_rad_s[4] = f64::INFINITY;
        assert_eq!(refused(&mut gate, wrong), GateRefusal::NotFinite { joint: 4 });
        assert!(matches!(refused(&mut gate, target(3, 0.26)), GateRefusal::Step { joint: 0, .. }));
        let mut low = target(4, 0.0);
        low.joint_positions_rad[5] = 0.07;
        assert!(matches!(refused(&mut gate, low), GateRefusal::OutOfRange { joint: 5, .. }));
        let mut fast = target(5, 0.0);
        fast.joint_velocities_rad_s[2] = -1.6;
        assert!(matches!(refused(&mut gate, fast), GateRefusal::Velocity { joint: 2, .. }));
        let mut hard = target(6, 0.0);
        hard.joint_accelerations_rad_s2[6] = 11.0;
        assert!(matches!(refused(&mut gate, hard), GateRefusal::Acceleration { joint: 6, .. }));
        assert_eq!(gate.admitted_rad, Q);
    }

    #[test]
    fn a_motion_that_can_only_stop_beyond_the_range_is_refused() {
        let mut bounds = gate().bounds;
        bounds[1].upper_rad = Q[1] + 0.05;
        let mut gate = TargetGate::new(bounds, Q, ms(0));
        let mut toward = target(1, 0.0);
        // 1 rad/s takes v²/2A = 0.05 rad to stop, and a little more for the jerk.
        toward.joint_velocities_rad_s[1] = 1.0;
        assert!(matches!(gate.admit(&toward, ms(7)), Some(Err(GateRefusal::NoStop { joint: 1, .. }))));
        toward.joint_velocities_rad_s[1] = 0.9;
        toward.sequence = 2;
        assert_eq!(gate.admit(&toward, ms(14)), Some(Ok(())));
    }

    #[test]
    fn a_step_may_be_as_large_as_the_time_since_the_last_allows() {
        let mut gate = gate();
        assert!(matches!(gate.admit(&target(1, 0.2), ms(7)), Some(Err(GateRefusal::Step { .. }))));
        assert_eq!(gate.admit(&target(2, 0.2), ms(40)), Some(Ok(())));
        // Held up on the way, but made 100 ms apart.
        let later = JointTarget { due: ms(100), ..target(3, 0.4) };
        assert_eq!(gate.admit(&later, ms(41)), Some(Ok(())));
        assert!(matches!(gate.admit(&JointTarget { sequence: 4, ..target(4, 0.6) }, ms(41)), Some(Err(_))));
    }
}
