//! Levenberg–Marquardt refinement of one pose on pixels, on SE(3).
//!
//! Minimises Σ |π(T p_i) − u_i|² over T = `T_camera_body`, with steps T ← exp(ξ) T in the camera frame
//! (ξ = `[v; ω]`; d(exp(ξ) p)/dξ = [I | −p^] at ξ = 0). Six unknowns, no allocation.

use crate::{Camera, Pose};
use nalgebra::{Matrix2x6, Matrix6, Point3, Vector2, Vector6};
use tenon_core::geometry::exp_se3;

/// A known point of the body and where it was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correspondence {
    /// In the body frame, m.
    pub point_m: Point3<f64>,
    /// As detected (distorted), px.
    pub pixel: [f64; 2],
}

/// A pose at a minimum of the reprojection error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refined {
    pub T_camera_body: Pose,
    /// Root mean square of the distances between seen and projected points, px.
    pub rms_px: f64,
    /// JᵀJ at the minimum, by the twist `[v; ω]` in the camera frame, px²/m² and px²/rad². Divided by the variance of a
    /// pixel coordinate it is the information matrix; see [`covariance`].
    pub normal_matrix: Matrix6<f64>,
    pub iterations: usize,
}

/// Enough for starts far off; from a good start three to five are used.
const MAX_ITERATIONS: usize = 60;

/// Root mean square distance between seen and projected points, px; `None` when a point lies behind the camera.
pub fn reprojection_rms_px(camera: &Camera, T_camera_body: &Pose, seen: &[Correspondence]) -> Option<f64> {
    let squared = squared_error(camera, T_camera_body, seen)?;
    Some((squared / seen.len() as f64).sqrt())
}

/// Refines `start`. `None` when a point is behind the camera at the start, with fewer than three points, or when the
/// problem is singular or not finite.
pub fn refine_pose(camera: &Camera, start: &Pose, seen: &[Correspondence]) -> Option<Refined> {
    if seen.len() < 3 {
        return None;
    }
    let minimum = minimise(
        start,
        |pose| squared_error(camera, pose, seen),
        |pose| normal_equations(camera, pose, seen),
        |pose, step| exp_se3(step) * pose,
    )?;
    Some(Refined {
        T_camera_body: minimum.pose,
        rms_px: (minimum.cost / seen.len() as f64).sqrt(),
        normal_matrix: minimum.normal_matrix,
        iterations: minimum.iterations,
    })
}

/// Where [`minimise`] ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minimum {
    pub pose: Pose,
    pub cost: f64,
    pub normal_matrix: Matrix6<f64>,
    pub iterations: usize,
}

/// Levenberg–Marquardt over one pose, without allocation. `normal_equations`: JᵀJ and Jᵀr by the step that `retract`
/// takes. `None` where the start has no cost, the problem is singular or a value is not finite.
pub(crate) fn minimise(
    start: &Pose,
    cost: impl Fn(&Pose) -> Option<f64>,
    normal_equations: impl Fn(&Pose) -> Option<(Matrix6<f64>, Vector6<f64>)>,
    retract: impl Fn(&Pose, &Vector6<f64>) -> Pose,
) -> Option<Minimum> {
    let mut pose = *start;
    let mut error = cost(&pose)?;
    let mut damping = 1e-4;
    let mut iterations = 0;
    let (mut normal, mut gradient) = normal_equations(&pose)?;
    'outer: while iterations < MAX_ITERATIONS {
        iterations += 1;
        loop {
            let mut damped = normal;
            for i in 0..6 {
                // Marquardt's scaling: metres and radians need different damping.
                damped[(i, i)] += damping * normal[(i, i)].max(1e-9);
            }
            let step: Vector6<f64> = -damped.cholesky()?.solve(&gradient);
            let candidate = retract(&pose, &step);
            match cost(&candidate) {
                Some(lower) if lower <= error => {
                    let gain = error - lower;
                    pose = candidate;
                    error = lower;
                    damping = (damping * 0.1).max(1e-12);
                    (normal, gradient) = normal_equations(&pose)?;
                    // Steps below a nanometre and a nanoradian, or gains below rounding, change nothing anyone can see.
                    if step.norm() < 1e-9 || gain <= 1e-14 * error {
                        break 'outer;
                    }
                    break;
                }
                _ => {
                    damping *= 10.0;
                    if damping > 1e10 {
                        break 'outer;
                    }
                }
            }
        }
    }
    // exp() products drift off the unit sphere by rounding only; a projected quaternion is exact again.
    pose.rotation.renormalize();
    let finite = error.is_finite() && pose.translation.vector.iter().all(|v| v.is_finite());
    finite.then_some(Minimum { pose, cost: error, normal_matrix: normal, iterations })
}

/// Covariance of the twist `[v; ω]` (m², m·rad, rad²; camera frame, T ← exp(ξ) T) when each pixel coordinate has standard
/// deviation `sigma_px`; `None` when the pose is not observable.
pub fn covariance(normal_matrix: &Matrix6<f64>, sigma_px: f64) -> Option<Matrix6<f64>> {
    Some(normal_matrix.cholesky()?.inverse() * (sigma_px * sigma_px))
}

fn squared_error(camera: &Camera, pose: &Pose, seen: &[Correspondence]) -> Option<f64> {
    let mut sum = 0.0;
    for c in seen {
        let [u, v] = camera.project(&(pose * c.point_m))?;
        sum += (u - c.pixel[0]).powi(2) + (v - c.pixel[1]).powi(2);
    }
    // A NaN pixel must not look like a good fit to a comparison.
    sum.is_finite().then_some(sum)
}

/// JᵀJ and Jᵀr of the residuals r = π(T p) − u.
fn normal_equations(camera: &Camera, pose: &Pose, seen: &[Correspondence]) -> Option<(Matrix6<f64>, Vector6<f64>)> {
    let mut normal = Matrix6::zeros();
    let mut gradient = Vector6::zeros();
    for c in seen {
        let point = pose * c.point_m;
        let (pixel, by_point) = camera.project_with_jacobian(&point)?;
        let mut by_twist = Matrix2x6::zeros();
        by_twist.fixed_columns_mut::<3>(0).copy_from(&by_point);
        by_twist.fixed_columns_mut::<3>(3).copy_from(&(-by_point * point.coords.cross_matrix()));
        let residual = Vector2::new(pixel[0] - c.pixel[0], pixel[1] - c.pixel[1]);
        normal += by_twist.transpose() * by_twist;
        gradient += by_twist.transpose() * residual;
    }
    Some((normal, gradient))
}
