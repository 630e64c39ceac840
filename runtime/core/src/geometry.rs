//! Poses on SE(3): exponential and logarithm, the 6-D rotation of the policies, interpolation.
//!
//! A pose is nalgebra's `Isometry3<f64>`; composition and inverse are its own. Twists are `[v; ω]`, linear first.

use nalgebra::{Isometry3, Matrix3, Quaternion, Rotation3, Translation3, UnitQuaternion, Vector3, Vector6};

/// A rigid transform. `T_a_b` maps b-coordinates to a-coordinates.
pub type Pose = Isometry3<f64>;

/// Pose from a position in metres and a quaternion (w, x, y, z), which is normalised.
pub fn pose_from_wxyz(position_m: [f64; 3], quat_wxyz: [f64; 4]) -> Pose {
    let [w, x, y, z] = quat_wxyz;
    Pose::from_parts(
        Translation3::from(Vector3::from(position_m)),
        UnitQuaternion::from_quaternion(Quaternion::new(w, x, y, z)),
    )
}

/// Matrix of the cross product with `w`.
pub fn skew(w: &Vector3<f64>) -> Matrix3<f64> {
    Matrix3::new(0.0, -w.z, w.y, w.z, 0.0, -w.x, -w.y, w.x, 0.0)
}

/// Exponential of a twist `[v; ω]` (m, rad).
pub fn exp_se3(twist: &Vector6<f64>) -> Pose {
    let (v, w) = (twist.fixed_rows::<3>(0).into_owned(), twist.fixed_rows::<3>(3).into_owned());
    let (b, c) = sin_cos_coefficients(w.norm_squared());
    let W = skew(&w);
    let V = Matrix3::identity() + W * b + W * W * c;
    Pose::from_parts(Translation3::from(V * v), UnitQuaternion::from_scaled_axis(w))
}

/// Logarithm of a pose, the inverse of [`exp_se3`] for rotations below π.
pub fn log_se3(T: &Pose) -> Vector6<f64> {
    let w = T.rotation.scaled_axis();
    let theta2 = w.norm_squared();
    let W = skew(&w);
    // V⁻¹ = I − W/2 + d W², d = (1 − θ/2 · cot(θ/2)) / θ²
    let d = if theta2 < 1e-8 {
        1.0 / 12.0 + theta2 / 720.0
    } else {
        let half = 0.5 * theta2.sqrt();
        (1.0 - half / half.tan()) / theta2
    };
    let v = (Matrix3::identity() - W * 0.5 + W * W * d) * T.translation.vector;
    Vector6::new(v.x, v.y, v.z, w.x, w.y, w.z)
}

/// (1 − cos θ)/θ² and (θ − sin θ)/θ³.
fn sin_cos_coefficients(theta2: f64) -> (f64, f64) {
    if theta2 < 1e-8 {
        (0.5 - theta2 / 24.0, 1.0 / 6.0 - theta2 / 120.0)
    } else {
        let theta = theta2.sqrt();
        ((1.0 - theta.cos()) / theta2, (theta - theta.sin()) / (theta2 * theta))
    }
}

/// First two *rows* of the rotation matrix, row-major (spec robot_control.md §3.1).
pub fn rotation_to_6d(rotation: &UnitQuaternion<f64>) -> [f64; 6] {
    let R = rotation.to_rotation_matrix();
    let m = R.matrix();
    [m[(0, 0)], m[(0, 1)], m[(0, 2)], m[(1, 0)], m[(1, 1)], m[(1, 2)]]
}

/// Gram–Schmidt inverse of [`rotation_to_6d`] for any two vectors that are not parallel; `None` if they are, or if a
/// value is not finite.
pub fn rotation_from_6d(rows: &[f64; 6]) -> Option<UnitQuaternion<f64>> {
    let a1 = Vector3::new(rows[0], rows[1], rows[2]);
    let a2 = Vector3::new(rows[3], rows[4], rows[5]);
    let b1 = a1.try_normalize(1e-9)?;
    let b2 = (a2 - b1 * b1.dot(&a2)).try_normalize(1e-9)?;
    let b3 = b1.cross(&b2);
    if !(b1.iter().chain(b2.iter()).all(|v| v.is_finite())) {
        return None;
    }
    let R = Matrix3::from_rows(&[b1.transpose(), b2.transpose(), b3.transpose()]);
    Some(UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(R)))
}

/// Error from `current` to `target` in base axes: `[p* − p; rotvec(R* Rᵀ)]` (spec robot_control.md §5.1).
pub fn pose_error(current: &Pose, target: &Pose) -> Vector6<f64> {
    let p = target.translation.vector - current.translation.vector;
    let w = (target.rotation * current.rotation.inverse()).scaled_axis();
    Vector6::new(p.x, p.y, p.z, w.x, w.y, w.z)
}

/// Straight line in position, slerp in rotation; `s` from 0 (`a`) to 1 (`b`).
pub fn interpolate(a: &Pose, b: &Pose, s: f64) -> Pose {
    let p = a.translation.vector.lerp(&b.translation.vector, s);
    // Half a turn has no unique shortest way; stay at the start then, the next call has moved on.
    let r = a.rotation.try_slerp(&b.rotation, s, 1e-9).unwrap_or(a.rotation);
    Pose::from_parts(Translation3::from(p), r)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &Vector6<f64>, b: &Vector6<f64>) -> bool {
        (a - b).norm() < 1e-9
    }

    #[test]
    fn log_inverts_exp() {
        for scale in [0.0, 1e-9, 1e-5, 1e-3, 0.5, 1.0, 1.7] {
            let twist = Vector6::new(0.3, -0.2, 0.9, 0.7, -1.1, 0.4) * scale;
            assert!(close(&log_se3(&exp_se3(&twist)), &twist), "scale {scale}");
        }
    }

    #[test]
    fn six_d_rotation_inverts_and_refuses_parallel_rows() {
        let q = UnitQuaternion::from_euler_angles(0.3, -1.2, 2.5);
        let back = rotation_from_6d(&rotation_to_6d(&q)).expect("rows of a rotation are not parallel");
        assert!(q.angle_to(&back) < 1e-12);
        assert!(rotation_from_6d(&[1.0, 0.0, 0.0, 2.0, 0.0, 0.0]).is_none());
        assert!(rotation_from_6d(&[f64::NAN, 0.0, 0.0, 0.0, 1.0, 0.0]).is_none());
    }

    #[test]
    fn pose_error_moves_current_onto_target() {
        let a = exp_se3(&Vector6::new(0.1, 0.2, 0.3, 0.4, 0.5, 0.6));
        let b = exp_se3(&Vector6::new(0.3, -0.2, 0.1, -0.4, 0.2, 0.1));
        let e = pose_error(&a, &b);
        let p = a.translation.vector + e.fixed_rows::<3>(0);
        let r = UnitQuaternion::from_scaled_axis(e.fixed_rows::<3>(3).into_owned()) * a.rotation;
        assert!((p - b.translation.vector).norm() < 1e-12 && r.angle_to(&b.rotation) < 1e-9);
    }
}
