//! Rigid registration: the pose that brings points of one frame onto the same points in another (Kabsch 1976, with the
//! determinant's sign after Umeyama 1991), with its uncertainty from the residuals.

use nalgebra::{Matrix3, Matrix6, Point3, Rotation3, SMatrix, Translation3, UnitQuaternion, Vector3};
use serde::Serialize;
use tenon_core::geometry::skew;
use tenon_vision::Pose;

/// Three points determine the pose, the fourth tells whether it is right.
pub const MIN_POINTS: usize = 4;
/// Points whose second largest spread is below this lie on a line, m.
const MIN_SPREAD_M: f64 = 5e-3;

/// One point in both frames, m.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// In frame a, e.g. the robot's base.
    pub in_a: Point3<f64>,
    /// In frame b, e.g. the base board.
    pub in_b: Point3<f64>,
}

/// Where b stands in a.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registration {
    #[serde(skip)]
    pub T_a_b: Pose,
    /// Of the displacement of b's origin and a rotation about it, in axes of a (m², m·rad, rad²).
    #[serde(skip)]
    pub covariance: Matrix6<f64>,
    /// Root mean square distance of the points, and of each, m.
    pub rms_m: f64,
    pub distances_m: Vec<f64>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RegistrationError {
    #[error("{points} points are too few: touch at least {MIN_POINTS}, far apart")]
    TooFew { points: usize },
    #[error("the points lie on a line: touch points on both sides of it")]
    OnALine,
    #[error("a coordinate is not a finite number")]
    NotFinite,
}

/// Registers points. All of them count alike.
pub fn register(pairs: &[Pair]) -> Result<Registration, RegistrationError> {
    if pairs.len() < MIN_POINTS {
        return Err(RegistrationError::TooFew { points: pairs.len() });
    }
    if !pairs.iter().flat_map(|pair| pair.in_a.iter().chain(pair.in_b.iter())).all(|v| v.is_finite()) {
        return Err(RegistrationError::NotFinite);
    }
    let n = pairs.len() as f64;
    let mean = |of: &dyn Fn(&Pair) -> Vector3<f64>| pairs.iter().map(of).sum::<Vector3<f64>>() / n;
    let (mean_a, mean_b) = (mean(&|p| p.in_a.coords), mean(&|p| p.in_b.coords));
    let (mut across, mut spread): (Matrix3<f64>, Matrix3<f64>) = (Matrix3::zeros(), Matrix3::zeros());
    for pair in pairs {
        let (a, b) = (pair.in_a.coords - mean_a, pair.in_b.coords - mean_b);
        across += a * b.transpose();
        spread += b * b.transpose() / n;
    }
    let mut widths: Vec<f64> = spread.symmetric_eigenvalues().iter().map(|v| v.max(0.0).sqrt()).collect();
    widths.sort_by(f64::total_cmp);
    if widths[1] < MIN_SPREAD_M {
        return Err(RegistrationError::OnALine);
    }
    let svd = across.svd(true, true);
    let (Some(u), Some(v_t)) = (svd.u, svd.v_t) else { return Err(RegistrationError::NotFinite) };
    // Of a rotation and a mirror image the rotation, also where points in one plane leave the choice open.
    let smallest = svd.singular_values.imin();
    let mut sign = Matrix3::identity();
    sign[(smallest, smallest)] = (u * v_t).determinant().signum();
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(u * sign * v_t));
    let T_a_b = Pose::from_parts(Translation3::from(mean_a - rotation * mean_b), rotation);
    let distances_m: Vec<f64> = pairs.iter().map(|pair| (T_a_b * pair.in_b - pair.in_a).norm()).collect();
    let squared: f64 = distances_m.iter().map(|d| d * d).sum();
    // Six of the 3n numbers are used up.
    let variance = squared / (3.0 * n - 6.0);
    let mut information: Matrix6<f64> = Matrix6::zeros();
    for pair in pairs {
        let mut J: SMatrix<f64, 3, 6> = SMatrix::zeros();
        J.fixed_view_mut::<3, 3>(0, 0).copy_from(&Matrix3::identity());
        J.fixed_view_mut::<3, 3>(0, 3).copy_from(&-skew(&(rotation * pair.in_b.coords)));
        information += J.transpose() * J;
    }
    let inverse = information.try_inverse().ok_or(RegistrationError::OnALine)?;
    // Rounding leaves the inverse a little unsymmetric.
    let covariance = (inverse + inverse.transpose()) * (0.5 * variance);
    Ok(Registration { T_a_b, covariance, rms_m: (squared / n).sqrt(), distances_m })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal};

    fn truth() -> Pose {
        let flat = UnitQuaternion::from_euler_angles(std::f64::consts::PI, 0.02, std::f64::consts::FRAC_PI_2);
        Pose::from_parts(Translation3::new(0.30, 0.01, -0.012), flat)
    }

    fn touched(sigma_m: f64, seed: u64) -> Vec<Pair> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let noise = Normal::new(0.0, sigma_m).unwrap();
        let places = [[-0.06, -0.06], [0.06, -0.06], [-0.06, 0.06], [0.06, 0.06], [0.0, 0.0], [0.06, 0.0]];
        let pair = |[x, y]: [f64; 2]| {
            let in_b = Point3::new(x, y, 0.0);
            Pair { in_b, in_a: truth() * in_b + Vector3::from_fn(|_, _| noise.sample(&mut rng)) }
        };
        places.into_iter().map(pair).collect()
    }

    #[test]
    fn exact_points_in_a_plane_give_the_pose_and_no_mirror_image() {
        let found = register(&touched(0.0, 0)).unwrap();
        assert!((found.T_a_b.translation.vector - truth().translation.vector).norm() < 1e-12);
        assert!(found.T_a_b.rotation.angle_to(&truth().rotation) < 1e-9 && found.rms_m < 1e-12);
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut inside = [0; 6];
        for seed in 0..1000 {
            let found = register(&touched(5e-4, seed)).unwrap();
            let v = found.T_a_b.translation.vector - truth().translation.vector;
            let w = (found.T_a_b.rotation * truth().rotation.inverse()).scaled_axis();
            for (i, error) in v.iter().chain(w.iter()).enumerate() {
                // Student's t with 12 degrees of freedom.
                inside[i] += usize::from(error.abs() < 2.179 * found.covariance[(i, i)].sqrt());
            }
        }
        assert!(inside.iter().all(|n| (925..=975).contains(n)), "{inside:?}");
    }

    #[test]
    fn what_determines_no_pose_is_refused() {
        let points = touched(0.0, 0);
        assert_eq!(register(&points[..3]), Err(RegistrationError::TooFew { points: 3 }));
        let line: Vec<Pair> = (0..5)
            .map(|k| Point3::new(0.03 * f64::from(k), 0.0, 0.0))
            .map(|in_b| Pair { in_b, in_a: truth() * in_b })
            .collect();
        assert_eq!(register(&line), Err(RegistrationError::OnALine));
        let mut broken = points;
        broken[2].in_a.y = f64::NAN;
        assert_eq!(register(&broken), Err(RegistrationError::NotFinite));
    }
}
