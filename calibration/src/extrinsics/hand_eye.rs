//! Closed forms of eye-to-hand calibration: `T_base_hand(k) · T_hand_tag = T_base_camera · T_camera_tag(k)` for every pose k.
//!
//! Between two poses the unknown tag drops out: A X = X B with A = T_base_hand(j) T_base_hand(i)⁻¹ (base axes),
//! B = T_camera_tag(j) T_camera_tag(i)⁻¹ (camera axes) and X = `T_base_camera`. All of them minimise algebraic errors, so they
//! are starts for [`super::bundle`] and a check on one another, not results.
//!
//! The tag's size is a further unknown of the translations: with a print that is `s` times as large as believed, every
//! `T_camera_tag` is too near by `s`, and the arm's own motion, which is metric, tells.

use nalgebra::{DMatrix, DVector, Matrix3, Quaternion, Rotation3, Translation3, UnitQuaternion, Vector3};
use tenon_core::fusion::average_poses;
use tenon_core::geometry::skew;
use tenon_vision::Pose;

/// The published methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Tsai and Lenz 1989: rotation axes as modified Rodrigues vectors.
    TsaiLenz,
    /// Park and Martin 1994: least squares on the logarithms of the rotations.
    ParkMartin,
    /// Daniilidis 1999: rotation and translation together as a dual quaternion; blind to the tag's size.
    Daniilidis,
}

impl Method {
    pub const ALL: [Self; 3] = [Self::TsaiLenz, Self::ParkMartin, Self::Daniilidis];

    pub fn name(self) -> &'static str {
        match self {
            Self::TsaiLenz => "Tsai–Lenz",
            Self::ParkMartin => "Park–Martin",
            Self::Daniilidis => "Daniilidis",
        }
    }
}

/// What one pose of the arm showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Station {
    pub T_base_hand: Pose,
    /// At the size that the tag is believed to have.
    pub T_camera_tag: Pose,
}

/// A closed form's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HandEye {
    pub T_base_camera: Pose,
    pub T_hand_tag: Pose,
    /// True size of the tag over the believed one; 1 where the method does not solve for it.
    pub tag_scale: f64,
}

/// Rotations between two poses below this say little about an axis, rad.
const LEAST_TURN_RAD: f64 = 0.08;
/// Smallest over largest singular value of a solvable system.
const LEAST_SPREAD: f64 = 1e-3;

/// Motion between two stations, in base and in camera axes.
#[derive(Debug, Clone, Copy)]
struct Motion {
    A: Pose,
    B: Pose,
}

/// Solves by one method. `None` with fewer than three stations, or when the arm turned about less than two axes.
pub fn solve(method: Method, stations: &[Station]) -> Option<HandEye> {
    if stations.len() < 3 {
        return None;
    }
    let motions: Vec<Motion> = (0..stations.len())
        .flat_map(|i| (i + 1..stations.len()).map(move |j| (i, j)))
        .map(|(i, j)| Motion {
            A: stations[j].T_base_hand * stations[i].T_base_hand.inverse(),
            B: stations[j].T_camera_tag * stations[i].T_camera_tag.inverse(),
        })
        .collect();
    let turning: Vec<Motion> = motions.iter().copied().filter(|m| m.A.rotation.angle() > LEAST_TURN_RAD).collect();
    if turning.len() < 2 {
        return None;
    }
    let (rotation, translation, tag_scale) = match method {
        Method::TsaiLenz => with_translation(tsai_lenz(&turning)?, &motions)?,
        Method::ParkMartin => with_translation(park_martin(&turning)?, &motions)?,
        Method::Daniilidis => {
            let X = daniilidis(&turning)?;
            (X.rotation, X.translation.vector, 1.0)
        }
    };
    let T_base_camera = Pose::from_parts(Translation3::from(translation), rotation);
    let T_hand_tag = mean_hand_tag(&T_base_camera, tag_scale, stations)?;
    let finite = T_base_camera.translation.vector.iter().all(|v| v.is_finite()) && tag_scale.is_finite();
    (finite && tag_scale > 0.0).then_some(HandEye { T_base_camera, T_hand_tag, tag_scale })
}

/// P = 2 sin(θ/2) · axis.
fn modified_rodrigues(rotation: &UnitQuaternion<f64>) -> Vector3<f64> {
    let q = rotation.quaternion();
    2.0 * q.imag() * q.w.signum()
}

fn tsai_lenz(motions: &[Motion]) -> Option<UnitQuaternion<f64>> {
    let mut rows = DMatrix::zeros(3 * motions.len(), 3);
    let mut right = DVector::zeros(3 * motions.len());
    for (i, m) in motions.iter().enumerate() {
        let (a, b) = (modified_rodrigues(&m.A.rotation), modified_rodrigues(&m.B.rotation));
        rows.fixed_view_mut::<3, 3>(3 * i, 0).copy_from(&skew(&(a + b)));
        right.fixed_rows_mut::<3>(3 * i).copy_from(&(a - b));
    }
    // Solves for X in A X = X B: (a + b) × p' = a − b turns B's axes onto A's, with the sign turned round.
    let p = least_squares(rows, right)?;
    let p = -Vector3::new(p[0], p[1], p[2]);
    let P = 2.0 * p / (1.0 + p.norm_squared()).sqrt();
    let n2 = P.norm_squared();
    let R = Matrix3::identity() * (1.0 - n2 / 2.0) + 0.5 * (P * P.transpose() + skew(&P) * (4.0 - n2).max(0.0).sqrt());
    Some(nearest_rotation(&R))
}

fn park_martin(motions: &[Motion]) -> Option<UnitQuaternion<f64>> {
    let mut M = Matrix3::zeros();
    for m in motions {
        M += m.A.rotation.scaled_axis() * m.B.rotation.scaled_axis().transpose();
    }
    let svd = M.svd(true, true);
    // With turns about one axis only, two singular values vanish.
    let s = svd.singular_values;
    if s[1] / s[0] < LEAST_SPREAD {
        return None;
    }
    Some(orthogonal(&svd.u?, &svd.v_t?))
}

/// Translation and tag scale for a known rotation: (R_A − I) t − s' R t_B + t_A = 0 with s' the scale.
fn with_translation(R: UnitQuaternion<f64>, motions: &[Motion]) -> Option<(UnitQuaternion<f64>, Vector3<f64>, f64)> {
    let mut rows = DMatrix::zeros(3 * motions.len(), 4);
    let mut right = DVector::zeros(3 * motions.len());
    for (i, m) in motions.iter().enumerate() {
        let RA = m.A.rotation.to_rotation_matrix();
        rows.fixed_view_mut::<3, 3>(3 * i, 0).copy_from(&(RA.matrix() - Matrix3::identity()));
        rows.fixed_view_mut::<3, 1>(3 * i, 3).copy_from(&-(R * m.B.translation.vector));
        right.fixed_rows_mut::<3>(3 * i).copy_from(&-m.A.translation.vector);
    }
    let x = least_squares(rows, right)?;
    Some((R, Vector3::new(x[0], x[1], x[2]), x[3]))
}

/// Null space of the stacked screw equations (Daniilidis 1999, eq. 31 to 35).
fn daniilidis(motions: &[Motion]) -> Option<Pose> {
    let mut T = DMatrix::zeros(6 * motions.len(), 8);
    for (i, m) in motions.iter().enumerate() {
        let ((a, a_dual), (b, b_dual)) = (dual_quaternion(&m.A), dual_quaternion(&m.B));
        let mut set = |row: usize, column: usize, v: Vector3<f64>, w: Vector3<f64>| {
            T.fixed_view_mut::<3, 1>(6 * i + row, column).copy_from(&v);
            T.fixed_view_mut::<3, 3>(6 * i + row, column + 1).copy_from(&skew(&w));
        };
        set(0, 0, a - b, a + b);
        set(3, 0, a_dual - b_dual, a_dual + b_dual);
        set(3, 4, a - b, a + b);
    }
    let svd = T.svd(false, true);
    let v_t = svd.v_t?;
    let n = v_t.nrows();
    let s = &svd.singular_values;
    if n < 8 || s[5] / s[0] < 1e-4 * LEAST_SPREAD {
        return None;
    }
    // λ1 v7 + λ2 v8 with |q| = 1 and q · q' = 0: a quadratic in λ1/λ2.
    let half = |row: usize, from: usize| nalgebra::Vector4::from_iterator((0..4).map(|c| v_t[(row, from + c)]));
    let (u1, w1, u2, w2) = (half(n - 2, 0), half(n - 2, 4), half(n - 1, 0), half(n - 1, 4));
    let (a, b, c) = (u1.dot(&w1), u1.dot(&w2) + u2.dot(&w1), u2.dot(&w2));
    let candidates: Vec<(f64, f64)> = if a.abs() < 1e-12 {
        vec![(-c / b, 1.0), (1.0, 0.0)]
    } else {
        let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
        vec![((-b + root) / (2.0 * a), 1.0), ((-b - root) / (2.0 * a), 1.0)]
    };
    let norm = |(l1, l2): &(f64, f64)| (u1 * *l1 + u2 * *l2).norm_squared() / (l1 * l1 + l2 * l2);
    let (l1, l2) = candidates.into_iter().filter(|(l, _)| l.is_finite()).max_by(|x, y| norm(x).total_cmp(&norm(y)))?;
    let scale = 1.0 / (u1 * l1 + u2 * l2).norm();
    let (q, q_dual) = ((u1 * l1 + u2 * l2) * scale, (w1 * l1 + w2 * l2) * scale);
    let quaternion = |v: &nalgebra::Vector4<f64>| Quaternion::new(v[0], v[1], v[2], v[3]);
    let rotation = UnitQuaternion::from_quaternion(quaternion(&q));
    let t = quaternion(&q_dual) * rotation.quaternion().conjugate() * 2.0;
    Some(Pose::from_parts(Translation3::from(t.imag()), rotation))
}

/// Vector parts of the real and the dual half, the scalar of the real one not negative.
fn dual_quaternion(pose: &Pose) -> (Vector3<f64>, Vector3<f64>) {
    let q = *pose.rotation.quaternion();
    let q = if q.w < 0.0 { -q } else { q };
    let t = Quaternion::from_imag(pose.translation.vector);
    (q.imag(), (t * q * 0.5).imag())
}

/// The tag in the hand, as the mean over the stations.
fn mean_hand_tag(T_base_camera: &Pose, tag_scale: f64, stations: &[Station]) -> Option<Pose> {
    let in_hand = |station: &Station| {
        let mut T_camera_tag = station.T_camera_tag;
        T_camera_tag.translation.vector *= tag_scale;
        station.T_base_hand.inverse() * T_base_camera * T_camera_tag
    };
    average_poses(&stations.iter().map(in_hand).collect::<Vec<_>>())
}

fn least_squares(rows: DMatrix<f64>, right: DVector<f64>) -> Option<DVector<f64>> {
    let svd = rows.svd(true, true);
    let (largest, smallest) = (svd.singular_values.max(), svd.singular_values.min());
    (smallest / largest > LEAST_SPREAD).then(|| svd.solve(&right, 0.0).ok()).flatten()
}

fn nearest_rotation(R: &Matrix3<f64>) -> UnitQuaternion<f64> {
    let svd = R.svd(true, true);
    match (svd.u, svd.v_t) {
        (Some(u), Some(v_t)) => orthogonal(&u, &v_t),
        _ => UnitQuaternion::identity(),
    }
}

/// U diag(1, 1, det) Vᵀ: the rotation nearest to U S Vᵀ.
fn orthogonal(u: &Matrix3<f64>, v_t: &Matrix3<f64>) -> UnitQuaternion<f64> {
    let sign = (u * v_t).determinant().signum();
    let R = u * Matrix3::from_diagonal(&Vector3::new(1.0, 1.0, sign)) * v_t;
    UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(R))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::geometry::exp_se3;
    use tenon_core::noise::{NoiseSource, SeededNoise};

    fn pose(t: [f64; 3], r: [f64; 3]) -> Pose {
        Pose::from_parts(Translation3::from(Vector3::from(t)), UnitQuaternion::from_scaled_axis(Vector3::from(r)))
    }

    fn truth() -> HandEye {
        HandEye {
            T_base_camera: pose([0.9, -0.1, 0.5], [-1.2, 1.3, -1.1]),
            T_hand_tag: pose([0.01, -0.02, 0.06], [0.3, 0.2, 2.6]),
            tag_scale: 1.0,
        }
    }

    /// Stations at random arm poses. `scale`: the tag is that much larger than believed; `noise`: of the camera's tag poses.
    fn stations(n: usize, scale: f64, noise: f64, seed: u64) -> Vec<Station> {
        let mut source = SeededNoise::new(seed, 0);
        let mut draw = |sigma: f64| {
            let mut v = [0.0_f32; 6];
            source.fill_standard_normal(&mut v);
            v.map(|v| f64::from(v) * sigma)
        };
        let truth = truth();
        let station = |_| {
            let d = draw(1.0);
            let turn = [3.0 + 0.1 * d[3], 0.35 * d[4], 0.35 * d[5]];
            let T_base_hand = pose([0.45 + 0.1 * d[0], 0.1 * d[1], 0.2 + 0.06 * d[2]], turn);
            let mut T_camera_tag = truth.T_base_camera.inverse() * T_base_hand * truth.T_hand_tag;
            T_camera_tag.translation.vector /= scale;
            let error = draw(noise);
            T_camera_tag *= exp_se3(&nalgebra::Vector6::from(error));
            Station { T_base_hand, T_camera_tag }
        };
        (0..n).map(station).collect()
    }

    fn difference(a: &Pose, b: &Pose) -> (f64, f64) {
        ((a.translation.vector - b.translation.vector).norm(), a.rotation.angle_to(&b.rotation))
    }

    #[test]
    fn every_method_is_exact_without_noise() {
        for method in Method::ALL {
            for seed in 0..20 {
                let found = solve(method, &stations(5, 1.0, 0.0, seed)).unwrap();
                let (m, rad) = difference(&found.T_base_camera, &truth().T_base_camera);
                assert!(m < 1e-6 && rad < 1e-6, "{} seed {seed}: {m} m {rad} rad", method.name());
                let (m, rad) = difference(&found.T_hand_tag, &truth().T_hand_tag);
                assert!(m < 1e-6 && rad < 1e-6, "{}: {m} m {rad} rad", method.name());
                assert!((found.tag_scale - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_print_of_another_size_is_found_by_those_that_look_for_it() {
        for method in [Method::TsaiLenz, Method::ParkMartin] {
            let found = solve(method, &stations(8, 1.05, 0.0, 1)).unwrap();
            assert!((found.tag_scale - 1.05).abs() < 1e-6, "{}: {}", method.name(), found.tag_scale);
            assert!(difference(&found.T_base_camera, &truth().T_base_camera).0 < 1e-6);
        }
        let found = solve(Method::Daniilidis, &stations(8, 1.05, 0.0, 1)).unwrap();
        assert!(found.tag_scale == 1.0 && difference(&found.T_base_camera, &truth().T_base_camera).0 > 0.01);
    }

    #[test]
    fn noise_moves_all_of_them_alike() {
        for method in Method::ALL {
            let mut worst = (0.0_f64, 0.0_f64);
            for seed in 0..30 {
                let found = solve(method, &stations(15, 1.0, 2e-3, seed)).unwrap();
                let (m, rad) = difference(&found.T_base_camera, &truth().T_base_camera);
                worst = (worst.0.max(m), worst.1.max(rad));
            }
            assert!(worst.0 < 0.02 && worst.1 < 0.02, "{}: {worst:?}", method.name());
        }
    }

    #[test]
    fn an_arm_that_turns_about_one_axis_gives_nothing() {
        let turn_about_z = |k: usize| {
            let T_base_hand = pose([0.4 + 0.02 * k as f64, 0.0, 0.2], [0.0, 0.0, 0.3 * k as f64]);
            Station { T_base_hand, T_camera_tag: truth().T_base_camera.inverse() * T_base_hand * truth().T_hand_tag }
        };
        let stations: Vec<Station> = (0..6).map(turn_about_z).collect();
        for method in Method::ALL {
            assert_eq!(solve(method, &stations), None, "{}", method.name());
        }
        assert_eq!(solve(Method::ParkMartin, &stations[..2]), None);
    }
}
