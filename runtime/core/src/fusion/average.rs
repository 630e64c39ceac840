//! Mean of several poses (spec perception.md §5.1): arithmetic mean of the positions, Markley's mean of the rotations.

use nalgebra::{Matrix4, Quaternion, SymmetricEigen, Translation3, UnitQuaternion, Vector3};

use super::measurement::is_finite;
use crate::geometry::Pose;

/// Two leading eigenvalues closer than this (of a matrix of trace 1) leave the mean rotation open: about 0.0001° short of
/// two rotations half a turn apart.
const LEAST_GAP: f64 = 1e-6;

/// Unweighted mean. `None` for no poses, values that are not finite, or rotations that have no mean (half a turn apart).
pub fn average_poses(poses: &[Pose]) -> Option<Pose> {
    mean(poses.iter().map(|T| (T, 1.0)))
}

/// Mean with weights ≥ 0 of which at least one is positive; they need not add up to one.
///
/// `None` as for [`average_poses`], or if the weights are not such or not as many as the poses.
pub fn weighted_average_poses(poses: &[Pose], weights: &[f64]) -> Option<Pose> {
    if poses.len() != weights.len() || !weights.iter().all(|w| w.is_finite() && *w >= 0.0) {
        return None;
    }
    mean(poses.iter().zip(weights.iter().copied()))
}

/// Rotation: eigenvector of the largest eigenvalue of A = Σ wᵢ q qᵀ / Σ wᵢ, which does not see a quaternion's sign.
pub(super) fn mean<'a>(poses: impl Iterator<Item = (&'a Pose, f64)>) -> Option<Pose> {
    let mut A = Matrix4::zeros();
    let mut position = Vector3::zeros();
    let mut total = 0.0;
    for (T, weight) in poses {
        if !is_finite(T) {
            return None;
        }
        let q = T.rotation.coords;
        A += q * q.transpose() * weight;
        position += T.translation.vector * weight;
        total += weight;
    }
    if !(total.is_finite() && total > 0.0) {
        return None;
    }
    let eigen = SymmetricEigen::new(A / total);
    let largest = eigen.eigenvalues.imax();
    let second = (0..4).filter(|&i| i != largest).map(|i| eigen.eigenvalues[i]).fold(f64::NEG_INFINITY, f64::max);
    if eigen.eigenvalues[largest] - second < LEAST_GAP {
        return None;
    }
    let q = Quaternion::from_vector(eigen.eigenvectors.column(largest).into_owned());
    Some(Pose::from_parts(Translation3::from(position / total), UnitQuaternion::from_quaternion(q)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(axis: Vector3<f64>, degrees: f64, x_m: f64) -> Pose {
        Pose::from_parts(
            Translation3::new(x_m, 0.0, 0.0),
            UnitQuaternion::from_scaled_axis(axis.normalize() * degrees.to_radians()),
        )
    }

    #[test]
    fn the_mean_of_ten_and_fifty_degrees_is_thirty_whatever_the_signs_of_the_quaternions() {
        let axis = Vector3::new(1.0, -2.0, 0.5);
        let mut b = turned(axis, 50.0, 0.3);
        b.rotation = UnitQuaternion::new_unchecked(-b.rotation.into_inner());
        let mean = average_poses(&[turned(axis, 10.0, 0.1), b]).unwrap();
        assert!(mean.rotation.angle_to(&turned(axis, 30.0, 0.0).rotation) < 1e-9);
        assert!((mean.translation.x - 0.2).abs() < 1e-12);
    }

    #[test]
    fn one_flipped_tag_of_two_drags_the_mean_by_half() {
        let mean = average_poses(&[turned(Vector3::x(), 0.0, 0.0), turned(Vector3::x(), 60.0, 0.0)]).unwrap();
        assert!((mean.rotation.angle().to_degrees() - 30.0).abs() < 1e-6);
    }

    #[test]
    fn weights_count_like_repetition() {
        let (a, b) = (turned(Vector3::y(), 5.0, 1.0), turned(Vector3::new(1.0, 1.0, 0.0), 40.0, 2.0));
        let weighted = weighted_average_poses(&[a, b], &[0.5, 1.5]).unwrap();
        let repeated = average_poses(&[a, b, b, b]).unwrap();
        assert!(weighted.rotation.angle_to(&repeated.rotation) < 1e-9);
        assert!((weighted.translation.vector - repeated.translation.vector).norm() < 1e-12);
    }

    #[test]
    fn poses_without_a_mean_have_none() {
        let a = turned(Vector3::x(), 0.0, 0.0);
        assert!(average_poses(&[]).is_none());
        assert!(average_poses(&[a, turned(Vector3::x(), 180.0, 0.0)]).is_none());
        assert!(average_poses(&[a, turned(Vector3::x(), 10.0, f64::NAN)]).is_none());
        assert!(weighted_average_poses(&[a], &[0.0]).is_none());
        assert!(weighted_average_poses(&[a, a], &[1.0, -0.1]).is_none());
        assert!(weighted_average_poses(&[a, a], &[1.0]).is_none());
    }
}
