//! The update that carries the next stretch of the way.

use super::{LIMIT_OF_NUMBERS, MAX_WAYPOINTS, PLAN, WaypointSettings};
use crate::archive::{ArchiveError, TensorData, TensorValue, write_parameters};

/// Format number of the message.
const FORMAT: f64 = 1.0;
/// Numbers in a row of the message.
const ROW: usize = 14;
/// Accelerations may pass their limit by this much: a way planned exactly at it is not refused for its rounding.
const ROUNDING: f64 = 1e-6;

/// Where the arm shall be, and how fast, at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waypoint {
    pub positions_rad: [f64; 7],
    pub velocities_rad_s: [f64; 7],
}

/// Waypoints at equal distances in time.
///
/// As a message: a float64 tensor of `1 + waypoints` rows of 14; the first row is format, session, sequence, first step,
/// spacing and zeros, each further one the positions and velocities of a waypoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Number of the upload that it is for.
    pub session: u32,
    /// Above that of every plan before, from 1.
    pub sequence: i64,
    /// The controller's step of the first waypoint. It may lie in the past.
    pub first_step: i64,
    /// Steps from one waypoint to the next.
    pub spacing_steps: u32,
    /// At most [`MAX_WAYPOINTS`].
    pub waypoints: Vec<Waypoint>,
}

/// Why a plan should not be sent.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("{count} waypoints: 1 to {MAX_WAYPOINTS} make a plan")]
    Count { count: usize },
    #[error("sequence {sequence}, first step {first_step}, spacing {spacing_steps}: out of range")]
    Numbers { sequence: i64, first_step: i64, spacing_steps: u32 },
    #[error("waypoint {waypoint}, joint {}: not finite", joint + 1)]
    NotFinite { waypoint: usize, joint: usize },
    #[error("waypoint {waypoint}, joint {}: {position_rad:.4} rad is outside {lower_rad:.4} to {upper_rad:.4}", joint + 1)]
    OutOfRange { waypoint: usize, joint: usize, position_rad: f64, lower_rad: f64, upper_rad: f64 },
    #[error("after waypoint {waypoint}, joint {}: {velocity_rad_s:.3} rad/s is above {limit_rad_s:.3}", joint + 1)]
    Velocity { waypoint: usize, joint: usize, velocity_rad_s: f64, limit_rad_s: f64 },
    #[error("after waypoint {waypoint}, joint {}: {acceleration_rad_s2:.2} rad/s² is above {limit_rad_s2:.2}", joint + 1)]
    Acceleration { waypoint: usize, joint: usize, acceleration_rad_s2: f64, limit_rad_s2: f64 },
}

impl Plan {
    /// Looks at everything that the controller would limit or refuse by itself, before it is sent: numbers, range, and
    /// velocity and acceleration all along the cubics between the waypoints.
    ///
    /// Not looked at is whether the arm can join it, which depends on when it arrives.
    ///
    /// # Errors
    /// [`PlanError`], the first one found.
    pub fn check(&self, settings: &WaypointSettings) -> Result<(), PlanError> {
        let count = self.waypoints.len();
        if count == 0 || count > MAX_WAYPOINTS {
            return Err(PlanError::Count { count });
        }
        let Self { sequence, first_step, spacing_steps, .. } = *self;
        let last = first_step.checked_add(count as i64 * i64::from(spacing_steps));
        let below = |x: i64| (x as f64) < LIMIT_OF_NUMBERS.0;
        if sequence < 1 || first_step < 0 || spacing_steps < 1 || !below(sequence) || !last.is_some_and(below) {
            return Err(PlanError::Numbers { sequence, first_step, spacing_steps });
        }
        for (waypoint, w) in self.waypoints.iter().enumerate() {
            for joint in 0..7 {
                let (position_rad, velocity_rad_s) = (w.positions_rad[joint], w.velocities_rad_s[joint]);
                if !(position_rad.is_finite() && velocity_rad_s.is_finite()) {
                    return Err(PlanError::NotFinite { waypoint, joint });
                }
                let (lower_rad, upper_rad) = (settings.lower_rad[joint], settings.upper_rad[joint]);
                if position_rad < lower_rad || position_rad > upper_rad {
                    return Err(PlanError::OutOfRange { waypoint, joint, position_rad, lower_rad, upper_rad });
                }
                let limit_rad_s = settings.velocity_rad_s[joint];
                if velocity_rad_s.abs() > limit_rad_s {
                    return Err(PlanError::Velocity { waypoint, joint, velocity_rad_s, limit_rad_s });
                }
            }
        }
        let per = f64::from(spacing_steps) * settings.period_s();
        for (waypoint, pair) in self.waypoints.windows(2).enumerate() {
            for joint in 0..7 {
                let (v0, v1) = (pair[0].velocities_rad_s[joint], pair[1].velocities_rad_s[joint]);
                let mean = (pair[1].positions_rad[joint] - pair[0].positions_rad[joint]) / per;
                let (a0, a1) = ((6.0 * mean - 4.0 * v0 - 2.0 * v1) / per, (2.0 * v0 + 4.0 * v1 - 6.0 * mean) / per);
                // The acceleration is a straight line: largest at an end. Where it passes zero the velocity turns.
                let acceleration_rad_s2 = if a0.abs() > a1.abs() { a0 } else { a1 };
                let limit_rad_s2 = settings.acceleration_rad_s2[joint];
                if acceleration_rad_s2.abs() > limit_rad_s2 * (1.0 + ROUNDING) {
                    return Err(PlanError::Acceleration { waypoint, joint, acceleration_rad_s2, limit_rad_s2 });
                }
                if a0 * a1 < 0.0 {
                    let velocity_rad_s = v0 + 0.5 * a0 * a0 / (a0 - a1) * per;
                    let limit_rad_s = settings.velocity_rad_s[joint];
                    if velocity_rad_s.abs() > limit_rad_s * (1.0 + ROUNDING) {
                        return Err(PlanError::Velocity { waypoint, joint, velocity_rad_s, limit_rad_s });
                    }
                }
            }
        }
        Ok(())
    }

    /// The message. Nothing is checked.
    pub fn to_tensor(&self) -> TensorValue {
        let mut rows = vec![0.0; ROW * (1 + self.waypoints.len())];
        let header = [
            FORMAT,
            f64::from(self.session),
            self.sequence as f64,
            self.first_step as f64,
            f64::from(self.spacing_steps),
        ];
        rows[..header.len()].copy_from_slice(&header);
        for (row, waypoint) in rows.chunks_exact_mut(ROW).skip(1).zip(&self.waypoints) {
            row[..7].copy_from_slice(&waypoint.positions_rad);
            row[7..].copy_from_slice(&waypoint.velocities_rad_s);
        }
        TensorValue::new(vec![1 + self.waypoints.len(), ROW], TensorData::F64(rows))
            .expect("the rows have been counted one line above")
    }

    /// The archive for UpdateController. Nothing is checked.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`](crate::archive::FormatError::TooLarge) for more waypoints than any archive holds.
    pub fn to_archive(&self) -> Result<Vec<u8>, ArchiveError> {
        write_parameters(&[(PLAN, &self.to_tensor())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waypoints::tests::{plan_along, settings, sine};

    #[test]
    fn a_sound_plan_passes_and_its_message_is_small() {
        let plan = plan_along(sine, 1, 100, 20, 8);
        plan.check(&settings()).unwrap();
        let archive = plan.to_archive().unwrap();
        assert!(archive.len() < 2048, "{} bytes: two chunks", archive.len());
    }

    #[test]
    fn what_the_arm_must_not_do_is_named() {
        let settings = settings();
        let sound = || plan_along(sine, 1, 100, 20, 8);
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = sound();
            change(&mut plan);
            plan.check(&settings).unwrap_err()
        };
        assert_eq!(refused(&|p| p.waypoints.clear()), PlanError::Count { count: 0 });
        assert!(matches!(refused(&|p| p.sequence = 0), PlanError::Numbers { .. }));
        assert!(matches!(refused(&|p| p.first_step = i64::MAX), PlanError::Numbers { .. }));
        assert_eq!(
            refused(&|p| p.waypoints[3].velocities_rad_s[6] = f64::NAN),
            PlanError::NotFinite { waypoint: 3, joint: 6 }
        );
        assert!(matches!(
            refused(&|p| p.waypoints[2].positions_rad[5] = 0.0),
            PlanError::OutOfRange { waypoint: 2, joint: 5, .. }
        ));
        assert!(matches!(refused(&|p| p.waypoints[2].velocities_rad_s[0] = 3.0), PlanError::Velocity { .. }));
        assert!(matches!(refused(&|p| p.waypoints[2].positions_rad[0] += 0.05), PlanError::Acceleration { .. }));
    }

    #[test]
    fn the_velocity_between_two_waypoints_counts() {
        let settings = WaypointSettings { velocity_rad_s: [0.5; 7], acceleration_rad_s2: [100.0; 7], ..settings() };
        let mut plan = plan_along(|_| (crate::waypoints::tests::Q, [0.0; 7]), 1, 0, 100, 2);
        // Rest to rest: the peak is 1.5 times the mean.
        plan.waypoints[1].positions_rad[0] += 0.035;
        assert!(matches!(plan.check(&settings), Err(PlanError::Velocity { joint: 0, velocity_rad_s, .. })
            if (velocity_rad_s - 0.525).abs() < 1e-9));
        plan.waypoints[1].positions_rad[0] -= 0.002;
        plan.check(&settings).unwrap();
    }
}
