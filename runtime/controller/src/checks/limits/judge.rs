//! Judges commanded motions. It knows the limits, and nothing of how the stage keeps them.

use tenon_core::arm::{Arm, Joints};
use tenon_core::safety::{Collision, JointMotion, SafetyLimits, collision};

use super::report::Report;

/// Sums of floating point numbers may be off by this part of a limit.
const ROUNDING: f64 = 1e-6;
/// The same for distances, m.
const ROUNDING_M: f64 = 1e-6;
/// A place that is near to nothing: what is nearer than allowed is nearer than here.
pub const FREE_RAD: Joints = [0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8];

/// What an arm that began at `start` may be commanded.
pub struct Judge {
    arm: Arm,
    limits: SafetyLimits,
    start: Joints,
    /// How far outside the box the tool point was at the start, m.
    outside_at_start_m: f64,
}

impl Judge {
    pub fn new(arm: Arm, limits: SafetyLimits, start: Joints) -> Self {
        Self { arm, limits, start, outside_at_start_m: outside_m(&limits, &arm, &start) }
    }

    /// What is commanded `now`, `dt_s` after `before`.
    pub fn motion(&self, report: &mut Report, before: &[JointMotion; 7], now: &[JointMotion; 7], dt_s: f64) {
        let passed_s = if dt_s.is_finite() { dt_s.max(0.0) } else { 0.0 };
        for i in 0..7 {
            let (b, n) = (&before[i], &now[i]);
            if !n.is_finite() {
                report.violate(|| format!("joint {}: {n:?} is not finite", i + 1));
                continue;
            }
            let bounds = self.limits.bounds(i);
            let (low, high) = (bounds.lower_rad.min(self.start[i]), bounds.upper_rad.max(self.start[i]));
            let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
            let part = |name: &str, largest: &mut f64, part: f64, rounding: f64| {
                *largest = largest.max(part);
                (part > 1.0 + rounding).then(|| format!("joint {}: {name} at {:.9} of its limit", i + 1, part))
            };
            let found = [
                part("position", &mut report.position, (n.position_rad - middle).abs() / half, 1e-9),
                part("velocity", &mut report.velocity, n.velocity_rad_s.abs() / bounds.velocity_rad_s, ROUNDING),
                part(
                    "acceleration",
                    &mut report.acceleration,
                    n.acceleration_rad_s2.abs() / bounds.acceleration_rad_s2,
                    ROUNDING,
                ),
                (passed_s > 1e-9)
                    .then(|| {
                        let jerk = (n.acceleration_rad_s2 - b.acceleration_rad_s2).abs() / passed_s;
                        part("jerk", &mut report.jerk, jerk / bounds.jerk_rad_s3, 1e-4)
                    })
                    .flatten(),
                // The positions themselves must not move faster than their velocities say.
                (passed_s > 1e-9)
                    .then(|| {
                        let mean = (n.position_rad - b.position_rad).abs() / passed_s;
                        part("mean velocity", &mut 0.0, mean / bounds.velocity_rad_s, ROUNDING)
                    })
                    .flatten(),
                // And exactly as they say: what lies between is at most the jerk's.
                (passed_s > 1e-9)
                    .then(|| {
                        let said = 0.5 * (b.velocity_rad_s + n.velocity_rad_s) * passed_s;
                        let apart = (n.position_rad - b.position_rad - said).abs();
                        let room = bounds.jerk_rad_s3 * passed_s.powi(3) / 4.0 + 1e-9;
                        (apart > room)
                            .then(|| format!("joint {}: moved {apart:.2e} rad otherwise than its velocity says", i + 1))
                    })
                    .flatten(),
                (passed_s == 0.0 && n != b).then(|| format!("joint {} moved in no time", i + 1)),
            ];
            for what in found.into_iter().flatten() {
                report.violate(|| what);
            }
        }
        let q = now.map(|m| m.position_rad);
        let outside = outside_m(&self.limits, &self.arm, &q) - self.outside_at_start_m;
        report.outside_m = report.outside_m.max(outside);
        if outside > ROUNDING_M {
            report.violate(|| format!("the tool point is {:.4} mm outside the box", outside * 1e3));
        }
        // Where the arm began too near, it may stay or come away, not go nearer.
        if let Some(found) = collision(&self.arm, &q, &self.start, &self.limits.collision) {
            let (Collision::Table { distance_m, limit_m, .. } | Collision::Bodies { distance_m, limit_m, .. }) = found;
            report.too_near_m = report.too_near_m.max(limit_m - distance_m);
            if limit_m - distance_m > ROUNDING_M {
                report.violate(|| found.to_string());
            }
        }
    }
}

/// How far the tool point is outside the box, m.
pub fn outside_m(limits: &SafetyLimits, arm: &Arm, q: &Joints) -> f64 {
    let p = arm.tcp(q).translation.vector;
    let (low, high) = (limits.workspace.min_m, limits.workspace.max_m);
    (0..3).map(|axis| (low[axis] - p[axis]).max(p[axis] - high[axis])).fold(0.0, f64::max)
}

/// A place in the box that touches nothing; where `anywhere`, perhaps outside of it. `draw`: a number between the two given.
pub fn place(arm: &Arm, limits: &SafetyLimits, anywhere: bool, mut draw: impl FnMut(f64, f64) -> f64) -> Joints {
    for _ in 0..2000 {
        let q: Joints = std::array::from_fn(|i| draw(limits.joints.lower_rad[i], limits.joints.upper_rad[i]));
        if collision(arm, &q, &FREE_RAD, &limits.collision).is_none() && (anywhere || outside_m(limits, arm, &q) == 0.0)
        {
            return q;
        }
    }
    FREE_RAD
}
