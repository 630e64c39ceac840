//! `tenon test ik`: the differential inverse kinematics against another way of solving the same problem.
//!
//! The reference is the minimum-norm solution by a singular value decomposition of the Jacobian; ours factorises
//! J Jᵀ. A third of the arms stand near a singularity or an end of a range: there the outcome has to say so by name, and the
//! step may not be a jump.

use std::time::Instant;

use nalgebra::{SMatrix, SVector, Translation3, UnitQuaternion, Vector3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tenon_core::arm::Joints;
use tenon_core::config::RobotConfig;
use tenon_core::geometry::{Pose, pose_error};
use tenon_core::ik::{Damping, IkOutcome, SINGULAR_BELOW, differential_ik};

/// A step may differ from the reference by this part of what rounding makes of the condition, rad.
const TOLERANCE: f64 = 1e-9;
/// Largest change of a pose that one step is asked for.
const STEP_M: f64 = 0.02;
const STEP_RAD: f64 = 0.1;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub poses: u64,
    pub reached: u64,
    pub limited: u64,
    pub singular: u64,
    /// Largest distance from the reference of a step that was reached, rad, times the smallest singular value.
    pub worst: f64,
    /// Largest step of a joint with damping, rad.
    pub largest_damped_rad: f64,
    pub violations: Vec<String>,
    pub violated: u64,
    pub seconds: f64,
}

impl Report {
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} poses in {:.1} s: {} reached, {} limited, {} singular\n\
             worst difference from the reference {:.2e} (allowed {TOLERANCE:.0e}); largest step with damping {:.2} rad\n",
            self.poses, self.seconds, self.reached, self.limited, self.singular, self.worst, self.largest_damped_rad
        );
        for violation in &self.violations {
            text.push_str(&format!("VIOLATED: {violation}\n"));
        }
        text
    }

    fn violate(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < 10 {
            self.violations.push(what());
        }
    }
}

/// Tries `poses` random arms and targets.
pub fn run(config: &RobotConfig, poses: u64, seed: u64) -> Report {
    let begin = Instant::now();
    let (arm, limits) = (config.arm(), config.safety_limits().joints);
    let damping = Damping::NearSingular { sigma_start: 0.05, lambda_max: 0.05 };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut report = Report::default();
    for k in 0..poses {
        report.poses += 1;
        let mut q: Joints = std::array::from_fn(|i| random.random_range(limits.lower_rad[i]..limits.upper_rad[i]));
        match k % 9 {
            // The elbow stretched, the wrist straight, a joint at its end.
            0 => q[3] = limits.upper_rad[3] - random.random_range(0.0..1e-3),
            1 => (q[1], q[5]) = (random.random_range(-1e-6..1e-6), limits.lower_rad[5]),
            2 => {
                let i = random.random_range(0..7);
                q[i] = if random.random_bool(0.5) { limits.lower_rad[i] } else { limits.upper_rad[i] };
            }
            _ => {}
        }
        let shift = Vector3::from_fn(|_, _| random.random_range(-STEP_M..STEP_M));
        let turn = Vector3::from_fn(|_, _| random.random_range(-STEP_RAD..STEP_RAD));
        let tcp = arm.tcp(&q);
        let target = Pose::from_parts(
            Translation3::from(tcp.translation.vector + shift),
            UnitQuaternion::from_scaled_axis(turn) * tcp.rotation,
        );
        let within = |joints: &Joints| {
            (0..7).all(|i| {
                joints[i] >= limits.lower_rad[i].min(q[i]) - 1e-9 && joints[i] <= limits.upper_rad[i].max(q[i]) + 1e-9
            })
        };
        let (flange, Jf) = arm.flange_jacobian(&q);
        let task = pose_error(&flange, &arm.flange_of_tcp(&target));
        // The reference: U Σ⁻¹ Vᵀ of the 7×7 problem with a row of zeros, so that V is whole.
        let mut square = SMatrix::<f64, 7, 7>::zeros();
        square.fixed_view_mut::<6, 7>(0, 0).copy_from(&Jf);
        let svd = square.svd(true, true);
        let smallest = sixth(svd.singular_values.into());
        let plain = differential_ik(&arm, &q, &target, Damping::None, &limits, 0.0);
        match plain {
            IkOutcome::Reached { joint_positions_rad } => {
                report.reached += 1;
                let mut right = SVector::<f64, 7>::zeros();
                right.fixed_rows_mut::<6>(0).copy_from(&task);
                let Ok(dq) = svd.solve(&right, 1e-9) else { continue };
                let off = (0..7).map(|i| (joint_positions_rad[i] - q[i] - dq[i]).abs()).fold(0.0, f64::max);
                // J Jᵀ squares the condition: what rounding leaves grows with 1/σ².
                let off = off * (smallest * smallest).min(1.0);
                report.worst = report.worst.max(off);
                if off > TOLERANCE {
                    report.violate(|| format!("pose {k}: off by {off:e} at σ = {smallest:e}, joints {q:?}"));
                }
                if !within(&joint_positions_rad) {
                    report.violate(|| format!("pose {k}: reached beyond the range: {joint_positions_rad:?}"));
                }
            }
            IkOutcome::Limited { joint_positions_rad, joint } => {
                report.limited += 1;
                if !within(&joint_positions_rad) {
                    report.violate(|| {
                        format!("pose {k}: joint {joint} limited, but beyond its range: {joint_positions_rad:?}")
                    });
                }
            }
            IkOutcome::Singular { joint_positions_rad, smallest_singular_value } => {
                report.singular += 1;
                if joint_positions_rad != q || smallest_singular_value >= SINGULAR_BELOW {
                    report.violate(|| {
                        format!("pose {k}: singular at σ = {smallest_singular_value}, moved to {joint_positions_rad:?}")
                    });
                }
            }
        }
        // With damping nothing is refused, and nothing jumps: |dq| ≤ |e| / 2λ where λ is at its largest.
        let damped = differential_ik(&arm, &q, &target, damping, &limits, 0.0).joint_positions_rad();
        let step = (0..7).map(|i| (damped[i] - q[i]).abs()).fold(0.0, f64::max);
        report.largest_damped_rad = report.largest_damped_rad.max(step);
        if !(step <= task.norm() / 0.02 && within(&damped)) {
            report.violate(|| {
                format!("pose {k}: a step of {step} rad for {} with damping, from {q:?} to {damped:?}", task.norm())
            });
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

/// Sixth largest of seven.
fn sixth(mut values: [f64; 7]) -> f64 {
    values.sort_by(|a, b| b.total_cmp(a));
    values[5]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_the_references_or_says_why_not() {
        let config = tenon_core::config::parse("robot.toml", include_str!("../../../../configs/robot.toml")).unwrap();
        let report = run(&config, 20_000, 1);
        assert_eq!(report.violated, 0, "{}", report.text());
        assert!(report.reached > 10_000 && report.limited > 500 && report.singular > 0, "{}", report.text());
    }
}
