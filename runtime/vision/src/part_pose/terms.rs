//! What one sighting adds to the normal equations of a part's pose.

use super::{PlacedCamera, Sighting};
use crate::Pose;
use nalgebra::{Matrix2x3, Matrix2x6, Matrix6, Point3, Vector2, Vector3, Vector6};
use tenon_core::geometry::skew;

/// Residual values of one sighting.
pub(super) const VALUES: f64 = 8.0;
/// Huber's threshold on √s: 99 % of sightings without error lie below (χ² with 8 degrees of freedom).
const HUBER: f64 = 4.48;

/// One sighting's share of the normal equations, before its weight.
pub(super) struct Terms {
    /// JᵀJ and Jᵀr.
    pub(super) normal: Matrix6<f64>,
    pub(super) gradient: Vector6<f64>,
    /// ρ'(s) / σ², px⁻².
    pub(super) weight: f64,
    /// Σ r², px².
    pub(super) squared_px: f64,
    /// Of each corner: residual, derivative of the pixel by a displacement in april axes, and the corner from the part's
    /// origin.
    corners: [(Vector2<f64>, Matrix2x3<f64>, Vector3<f64>); 4],
}

impl Terms {
    /// Σ Jᵀ ∂r/∂c over the corners, c the camera's displacement `[v; ω]` in april axes: a camera that moves by v sees what a
    /// part that moves by −v shows it, and the same about its own place instead of the part's.
    pub(super) fn by_place(&self, placed: &PlacedCamera, pose: &Pose) -> Matrix6<f64> {
        let from_camera = pose.translation.vector - placed.T_april_camera.translation.vector;
        let mut sum = Matrix6::zeros();
        for (_, by_displacement, arm) in &self.corners {
            let by_step = by_motion(by_displacement, arm);
            sum -= by_step.transpose() * by_motion(by_displacement, &(from_camera + arm));
        }
        sum
    }

    /// CᵀC and Cᵀr with C = ∂r/∂c.
    pub(super) fn at_camera(&self, placed: &PlacedCamera, pose: &Pose) -> (Matrix6<f64>, Vector6<f64>) {
        let from_camera = pose.translation.vector - placed.T_april_camera.translation.vector;
        let (mut normal, mut gradient) = (Matrix6::zeros(), Vector6::zeros());
        for (residual, by_displacement, arm) in &self.corners {
            let by_place = -by_motion(by_displacement, &(from_camera + arm));
            normal += by_place.transpose() * by_place;
            gradient += by_place.transpose() * residual;
        }
        (normal, gradient)
    }
}

/// Derivative of a pixel by `[v; ω]` of what carries its point, which is `arm` from the origin of the motion.
fn by_motion(by_displacement: &Matrix2x3<f64>, arm: &Vector3<f64>) -> Matrix2x6<f64> {
    let mut by_motion = Matrix2x6::zeros();
    by_motion.fixed_columns_mut::<3>(0).copy_from(by_displacement);
    by_motion.fixed_columns_mut::<3>(3).copy_from(&(by_displacement * -skew(arm)));
    by_motion
}

/// Mean variance of a pixel coordinate of a tag's corners by a camera's place with covariance L Lᵀ, px².
pub(super) fn place_variance_px(
    placed: &PlacedCamera,
    L: &Matrix6<f64>,
    T_camera_tag: &Pose,
    corners_m: &[Point3<f64>; 4],
) -> Option<f64> {
    let R_camera_april = placed.T_april_camera.rotation.inverse().to_rotation_matrix();
    let mut sum = 0.0;
    for corner in corners_m {
        let point = T_camera_tag * corner;
        let (_, by_point) = placed.camera.project_with_jacobian(&point)?;
        let arm = placed.T_april_camera.rotation * point.coords;
        sum += (by_motion(&(by_point * R_camera_april.matrix()), &arm) * L).norm_squared();
    }
    Some(sum / VALUES)
}

impl Sighting {
    pub(super) fn terms(&self, placed: &PlacedCamera, pose: &Pose) -> Option<Terms> {
        let T_camera_april = placed.T_april_camera.inverse();
        let R_camera_april = T_camera_april.rotation.to_rotation_matrix();
        let mut corners = [(Vector2::zeros(), Matrix2x3::zeros(), Vector3::zeros()); 4];
        let (mut normal, mut gradient, mut squared) = (Matrix6::zeros(), Vector6::zeros(), 0.0);
        for (corner, kept) in self.corners.iter().zip(&mut corners) {
            let arm: Vector3<f64> = pose.rotation * corner.point_m.coords;
            let point = T_camera_april * (pose.translation * Point3::from(arm));
            let (pixel, by_point) = placed.camera.project_with_jacobian(&point)?;
            let by_displacement: Matrix2x3<f64> = by_point * R_camera_april.matrix();
            let by_step = by_motion(&by_displacement, &arm);
            let residual = Vector2::new(pixel[0] - corner.pixel[0], pixel[1] - corner.pixel[1]);
            normal += by_step.transpose() * by_step;
            gradient += by_step.transpose() * residual;
            squared += residual.norm_squared();
            *kept = (residual, by_displacement, arm);
        }
        let variance = self.sigma_px.powi(2);
        let weight = huber(squared / variance).1 / variance;
        Some(Terms { normal, gradient, weight, squared_px: squared, corners })
    }

    /// Squared distance of the corners from where `pose` puts them, in units of their variance.
    pub(super) fn squared(&self, placed: &PlacedCamera, pose: &Pose) -> Option<f64> {
        let T_camera_part = placed.T_april_camera.inverse() * pose;
        let mut sum = 0.0;
        for corner in &self.corners {
            let [u, v] = placed.camera.project(&(T_camera_part * corner.point_m))?;
            sum += (u - corner.pixel[0]).powi(2) + (v - corner.pixel[1]).powi(2);
        }
        let squared = sum / self.sigma_px.powi(2);
        squared.is_finite().then_some(squared)
    }
}

/// Huber's loss of √s in units of s, and its derivative by s.
pub(super) fn huber(s: f64) -> (f64, f64) {
    if s <= HUBER * HUBER {
        return (s, 1.0);
    }
    let root = s.sqrt();
    (HUBER * (2.0 * root - HUBER), HUBER / root)
}
