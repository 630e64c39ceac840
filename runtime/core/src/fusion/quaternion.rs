//! The seven numbers' quaternion and its sign (spec perception.md §5.2, robot_control.md §3.3).

use nalgebra::{Matrix3, Rotation3, UnitQuaternion, Vector4};

use super::config::SignRule;

/// Quaternion (x, y, z, w) with w ≥ 0. Where w is zero the first of x, y, z that is not zero is positive, so that a
/// rotation has one quaternion only.
pub fn quat_xyzw(rotation: &UnitQuaternion<f64>) -> [f64; 4] {
    let q = rotation.coords;
    let leading = [q.w, q.x, q.y, q.z].into_iter().find(|v| *v != 0.0).unwrap_or(1.0);
    let q = if leading < 0.0 { -q } else { q };
    // Adding zero turns −0 into 0.
    [q.x + 0.0, q.y + 0.0, q.z + 0.0, q.w + 0.0]
}

/// [`quat_xyzw`] of a rotation matrix; `None` if it is not one (to 1e-3 an entry of RᵀR, what published matrices of three
/// decimals keep).
pub fn quat_xyzw_of_matrix(R: &Matrix3<f64>) -> Option<[f64; 4]> {
    let orthonormal = (R.transpose() * R - Matrix3::identity()).amax() < 1e-3;
    if !(orthonormal && R.determinant() > 0.0) {
        return None;
    }
    let rotation = Rotation3::from_matrix_eps(R, 1e-12, 100, Rotation3::from_matrix_unchecked(*R));
    Some(quat_xyzw(&UnitQuaternion::from_rotation_matrix(&rotation)))
}

/// Chooses the sign of a sequence of quaternions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuaternionSign {
    rule: SignRule,
    last: Option<Vector4<f64>>,
}

impl QuaternionSign {
    pub fn new(rule: SignRule) -> Self {
        Self { rule, last: None }
    }

    /// The next quaternion (x, y, z, w), and the state after it.
    pub fn next(mut self, rotation: &UnitQuaternion<f64>) -> ([f64; 4], Self) {
        let mut q = Vector4::from(quat_xyzw(rotation));
        if let (SignRule::Hysteresis { min_abs_w }, Some(last)) = (self.rule, self.last) {
            // Near the seam the quaternion nearer to the last one, unless that one's w is clearly negative.
            let near = if q.dot(&last) < 0.0 { -q } else { q };
            if near.w >= -min_abs_w {
                q = near;
            }
        }
        self.last = Some(q);
        (q.into(), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::Vector3;

    #[test]
    fn w_is_never_negative_and_both_quaternions_of_a_rotation_give_the_same_numbers() {
        for degrees in [0.0, 30.0, 179.999, 180.0, 180.001, 270.0, 359.0] {
            for axis in [Vector3::x(), -Vector3::x(), Vector3::new(0.0, -1.0, 1.0), Vector3::new(0.3, 0.2, -0.9)] {
                let q = UnitQuaternion::from_axis_angle(&nalgebra::Unit::new_normalize(axis), f64::to_radians(degrees));
                let minus = UnitQuaternion::new_unchecked(-q.into_inner());
                assert!(quat_xyzw(&q)[3] >= 0.0 && quat_xyzw(&q)[3].is_sign_positive());
                assert_eq!(quat_xyzw(&q), quat_xyzw(&minus), "{degrees} about {axis:?}");
                let of_matrix = quat_xyzw_of_matrix(q.to_rotation_matrix().matrix()).unwrap();
                assert!(of_matrix[3] >= 0.0);
                let dot: f64 = of_matrix.iter().zip(quat_xyzw(&q)).map(|(a, b)| a * b).sum();
                assert!((dot.abs() - 1.0).abs() < 1e-9, "{degrees} about {axis:?}: {of_matrix:?}");
            }
        }
    }

    #[test]
    fn a_matrix_that_is_no_rotation_is_refused() {
        assert!(quat_xyzw_of_matrix(&Matrix3::from_diagonal_element(1.1)).is_none());
        assert!(quat_xyzw_of_matrix(&Matrix3::from_diagonal(&Vector3::new(1.0, 1.0, -1.0))).is_none());
        assert!(quat_xyzw_of_matrix(&Matrix3::from_element(f64::NAN)).is_none());
    }

    #[test]
    fn hysteresis_keeps_the_sign_within_the_seam_and_follows_the_rule_outside() {
        // Half a turn about x, ± a little: w = cos(θ/2).
        let at = |w: f64| UnitQuaternion::from_axis_angle(&Vector3::x_axis(), 2.0 * w.acos());
        let sequence = [0.5, 0.01, -0.01, -0.019, -0.021, -0.5, -0.01, 0.01, 0.3];
        let mut plain = QuaternionSign::new(SignRule::WNonNegative);
        let mut steady = QuaternionSign::new(SignRule::Hysteresis { min_abs_w: 0.02 });
        let (mut signs_plain, mut signs_steady) = (Vec::new(), Vec::new());
        for w in sequence {
            let (q, next) = plain.next(&at(w));
            plain = next;
            assert!(q[3] >= 0.0);
            signs_plain.push(q[0] > 0.0);
            let (q, next) = steady.next(&at(w));
            steady = next;
            assert!(q[3] >= -0.02);
            signs_steady.push(q[0] > 0.0);
        }
        assert_eq!(signs_plain, [true, true, false, false, false, false, false, true, true]);
        assert_eq!(signs_steady, [true, true, true, true, false, false, false, false, true]);
    }
}
