//! Tests of the filters as a whole; those of single functions are beside them. Seeds are fixed.

mod board;
mod filter;
mod held;
mod minima;
mod no_allocation;
mod statistics;
mod systematic;

use nalgebra::{Cholesky, Matrix6, Translation3, UnitQuaternion, Vector3, Vector6};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::*;
use crate::geometry::{Pose, pose_error};
use crate::time::MonotonicTime;

/// 30 Hz.
const FRAME_NS: i64 = 33_333_333;

fn frame(n: i64) -> MonotonicTime {
    MonotonicTime::from_nanos(n * FRAME_NS)
}

fn millis(ms: i64) -> MonotonicTime {
    MonotonicTime::from_nanos(ms * 1_000_000)
}

/// A pose by position and rotation vector in degrees.
fn pose(position_m: [f64; 3], rotation_deg: [f64; 3]) -> Pose {
    let rotation = UnitQuaternion::from_scaled_axis(Vector3::from(rotation_deg).map(f64::to_radians));
    Pose::from_parts(Translation3::from(Vector3::from(position_m)), rotation)
}

fn part() -> Pose {
    pose([0.12, 0.2, -0.015], [20.0, -60.0, 35.0])
}

/// Independent noise: standard deviations an axis.
fn covariance(position_m: f64, rotation_deg: f64) -> Matrix6<f64> {
    let (p, r) = (position_m.powi(2), rotation_deg.to_radians().powi(2));
    Matrix6::from_diagonal(&Vector6::new(p, p, p, r, r, r))
}

/// A covariance with correlations and a long axis, as one camera gives: standard deviations of about the given size.
fn skewed_covariance(rng: &mut ChaCha8Rng, position_m: f64, rotation_deg: f64) -> Matrix6<f64> {
    let scale =
        Matrix6::from_diagonal(&Vector6::from_fn(|i, _| if i < 3 { position_m } else { rotation_deg.to_radians() }));
    let mixed = Matrix6::from_fn(|_, _| normal(rng) * 0.4) + Matrix6::identity();
    scale * (mixed * mixed.transpose() * 0.5 + Matrix6::identity() * 0.1) * scale
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

fn moved(T: &Pose, twist: &Vector6<f64>) -> Pose {
    let p = T.translation.vector + twist.fixed_rows::<3>(0);
    let rotation = UnitQuaternion::from_scaled_axis(twist.fixed_rows::<3>(3).into_owned()) * T.rotation;
    Pose::from_parts(Translation3::from(p), rotation)
}

fn noisy(rng: &mut ChaCha8Rng, T: &Pose, R: &Matrix6<f64>) -> Pose {
    let L = Cholesky::new(*R).expect("test covariances are positive definite").l();
    moved(T, &(L * Vector6::from_fn(|_, _| normal(rng))))
}

fn measurement(T: Pose, R: Matrix6<f64>, exposed_at: MonotonicTime) -> PartMeasurement {
    PartMeasurement {
        T_april_part: T,
        covariance: R,
        systematic: None,
        other: None,
        other_systematic: None,
        ambiguous: false,
        tags: 2,
        cameras: 3,
        exposed_at,
    }
}

fn filter() -> PartFilter {
    PartFilter::new(PartFilterConfig::default(), AgeLimits::default(), GripConfig::default(), frame(0))
}

fn constant_velocity() -> PartFilterConfig {
    PartFilterConfig { motion: MotionConfig::ConstantVelocity(ConstantVelocityConfig::default()), ..Default::default() }
}

/// mm and degrees between an estimate and the truth.
fn errors(estimate: &PartEstimate, truth: &Pose) -> (f64, f64) {
    let e = pose_error(&estimate.T_april_part, truth);
    (e.fixed_rows::<3>(0).norm() * 1e3, e.fixed_rows::<3>(3).norm().to_degrees())
}

/// Systematic errors by `sources` of unknowns, each with the given standard deviations.
fn random_systematic(rng: &mut ChaCha8Rng, sources: usize, position_m: f64, rotation_deg: f64) -> SystematicError {
    let mut systematic = SystematicError::default();
    for source in 0..sources {
        let L = Cholesky::new(skewed_covariance(rng, position_m, rotation_deg)).expect("positive definite").l();
        systematic.set(source, &L);
    }
    systematic
}

/// A random pose on the table.
fn random_pose(rng: &mut ChaCha8Rng) -> Pose {
    let q =
        UnitQuaternion::from_quaternion(nalgebra::Quaternion::new(normal(rng), normal(rng), normal(rng), normal(rng)));
    Pose::from_parts(
        Translation3::new(rng.random_range(-0.2..0.2), rng.random_range(0.0..0.35), rng.random_range(-0.2..0.0)),
        q,
    )
}
