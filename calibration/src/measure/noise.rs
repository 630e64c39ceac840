//! Noise at rest: how much the pose of a part that does not move jumps about, as domain randomisation wants it (spec
//! perception.md §7.3, step 6).

use nalgebra::{Matrix6, UnitQuaternion, Vector3, Vector6};
use tenon_core::config::rig::NoiseRecord;
use tenon_core::fusion::average_poses;
use tenon_vision::Pose;

/// Fewer poses say nothing about a distribution.
pub const MIN_SAMPLES: usize = 30;
/// A part whose mean moves farther than this between the halves of the record was not at rest, m and rad.
const REST_M: f64 = 2e-3;
const REST_RAD: f64 = 0.02;

/// Why there is no record.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoiseError {
    #[error("{part}: {samples} poses are too few, {MIN_SAMPLES} are needed: is the part in view?")]
    TooFew { part: String, samples: usize },
    #[error(
        "{part} moved by {moved_mm:.1} mm and {moved_deg:.1} degrees while it was measured: leave it alone and measure again"
    )]
    Moved { part: String, moved_mm: f64, moved_deg: f64 },
}

/// Noise of one part from poses in the order of time. Quaternions take the sign of the mean's, so that a seam is no jump.
pub fn at_rest(part: &str, poses: &[Pose], duration_s: f64, date: &str) -> Result<NoiseRecord, NoiseError> {
    if poses.len() < MIN_SAMPLES {
        return Err(NoiseError::TooFew { part: part.to_owned(), samples: poses.len() });
    }
    let (first, second) = poses.split_at(poses.len() / 2);
    // Rotations half a turn apart have no mean, and values that are not finite none either.
    let no_mean = || NoiseError::Moved { part: part.to_owned(), moved_mm: f64::NAN, moved_deg: 180.0 };
    let (a, b) = mean(first).zip(mean(second)).ok_or_else(no_mean)?;
    let (moved_m, moved_rad) = ((a.0 - b.0).norm(), a.1.angle_to(&b.1));
    if !(moved_m <= REST_M && moved_rad <= REST_RAD) {
        let (moved_mm, moved_deg) = (1e3 * moved_m, moved_rad.to_degrees());
        return Err(NoiseError::Moved { part: part.to_owned(), moved_mm, moved_deg });
    }
    let (position, rotation) = mean(poses).ok_or_else(no_mean)?;
    let vector = |pose: &Pose| -> [f64; 7] {
        let q = pose.rotation.coords * pose.rotation.coords.dot(&rotation.coords).signum();
        let p = pose.translation.vector;
        [p.x, p.y, p.z, q.x, q.y, q.z, q.w]
    };
    let vectors: Vec<[f64; 7]> = poses.iter().map(vector).collect();
    let n = poses.len() as f64;
    let mean: [f64; 7] = std::array::from_fn(|i| vectors.iter().map(|v| v[i]).sum::<f64>() / n);
    let spread =
        |values: &dyn Fn(usize) -> f64| ((0..poses.len()).map(|k| values(k).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let turns: Vec<Vector3<f64>> = poses.iter().map(|p| (p.rotation * rotation.inverse()).scaled_axis()).collect();
    Ok(NoiseRecord {
        part: part.to_owned(),
        samples: poses.len(),
        duration_s,
        mean,
        min: std::array::from_fn(|i| vectors.iter().map(|v| v[i]).fold(f64::INFINITY, f64::min)),
        max: std::array::from_fn(|i| vectors.iter().map(|v| v[i]).fold(f64::NEG_INFINITY, f64::max)),
        std: std::array::from_fn(|i| spread(&|k| vectors[k][i] - mean[i])),
        position_std_m: std::array::from_fn(|i| spread(&|k| poses[k].translation.vector[i] - position[i])),
        rotation_std_rad: std::array::from_fn(|i| spread(&|k| turns[k][i])),
        date: date.to_owned(),
    })
}

/// How much larger the scatter of poses at rest is than the covariance that was reported with each: the mean of the normalised
/// squared distances from their mean pose, over the six of one pose. 1 where the covariances tell the scatter exactly; below 1 where
/// they hold more than scatters, as those of [`tenon_vision::PartPose`] do: a tag glued on askew and a camera's misplacement are
/// the same in every picture. Above 1 a filter that believes them trusts single pictures too much.
///
/// Covariances of displacement and rotation `[v; ω]` in outer axes. `None` for fewer than [`MIN_SAMPLES`] poses, or where a covariance
/// cannot be inverted.
pub fn covariance_ratio(poses: &[(Pose, Matrix6<f64>)]) -> Option<f64> {
    if poses.len() < MIN_SAMPLES {
        return None;
    }
    let plain: Vec<Pose> = poses.iter().map(|(pose, _)| *pose).collect();
    let (position, rotation) = mean(&plain)?;
    let mut sum = 0.0;
    for (pose, covariance) in poses {
        let (v, w) = (pose.translation.vector - position, (pose.rotation * rotation.inverse()).scaled_axis());
        let off = Vector6::new(v.x, v.y, v.z, w.x, w.y, w.z);
        sum += off.dot(&covariance.cholesky()?.solve(&off));
    }
    // The mean comes of the same poses: it lies nearer to them than the truth.
    let ratio = sum / (6.0 * (poses.len() - 1) as f64);
    ratio.is_finite().then_some(ratio)
}

/// Mean position and rotation.
fn mean(poses: &[Pose]) -> Option<(Vector3<f64>, UnitQuaternion<f64>)> {
    average_poses(poses).map(|mean| (mean.translation.vector, mean.rotation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Quaternion, Translation3};
    use std::f64::consts::FRAC_1_SQRT_2;
    use tenon_core::noise::{NoiseSource, SeededNoise};

    /// About the seam w = 0, where noise flips all four signs.
    fn poses(n: usize, sigma_m: f64, sigma_rad: f64, drift_m: f64) -> Vec<Pose> {
        let mut source = SeededNoise::new(3, 0);
        let middle = UnitQuaternion::from_quaternion(Quaternion::new(0.0, 0.0, -FRAC_1_SQRT_2, FRAC_1_SQRT_2));
        let pose = |k: usize| {
            let mut d = [0.0_f32; 6];
            source.fill_standard_normal(&mut d);
            let d = d.map(f64::from);
            let place = Vector3::new(0.0, 0.24, -0.0156) + Vector3::new(d[0], d[1], d[2]) * sigma_m;
            let drift = Vector3::x() * (drift_m * k as f64 / n as f64);
            let turn = UnitQuaternion::from_scaled_axis(Vector3::new(d[3], d[4], d[5]) * sigma_rad);
            let rotation = turn * middle;
            // As a detector gives it: w not negative.
            let rotation =
                if rotation.w < 0.0 { UnitQuaternion::new_unchecked(-rotation.into_inner()) } else { rotation };
            Pose::from_parts(Translation3::from(place + drift), rotation)
        };
        (0..n).map(pose).collect()
    }

    #[test]
    fn the_spread_is_that_of_the_poses_and_the_seam_is_no_jump() {
        let record = at_rest("square_table_top", &poses(2000, 5e-4, 4e-3, 0.0), 66.0, "today").unwrap();
        assert!(record.position_std_m.iter().all(|s| (s - 5e-4).abs() < 5e-5), "{record:?}");
        assert!(record.rotation_std_rad.iter().all(|s| (s - 4e-3).abs() < 4e-4), "{record:?}");
        // Half the angle.
        assert!(record.std[3..].iter().all(|s| *s < 3e-3), "{record:?}");
        assert!((0..7).all(|i| record.min[i] <= record.mean[i] && record.mean[i] <= record.max[i]));
        assert_eq!(record.samples, 2000);
    }

    #[test]
    fn few_poses_and_moving_parts_are_refused() {
        let said = at_rest("leg", &poses(10, 1e-4, 1e-3, 0.0), 0.3, "today").unwrap_err().to_string();
        assert!(said.contains("10 poses are too few"), "{said}");
        let said = at_rest("leg", &poses(300, 1e-4, 1e-3, 0.02), 10.0, "today").unwrap_err().to_string();
        assert!(said.contains("leg moved by 10.0 mm"), "{said}");
    }

    #[test]
    fn the_ratio_says_how_far_reported_covariances_are_from_the_scatter() {
        let scattered = poses(4000, 5e-4, 4e-3, 0.0);
        let ratio = |sigma_m: f64, sigma_rad: f64| {
            let (m, rad) = (sigma_m * sigma_m, sigma_rad * sigma_rad);
            let reported = Matrix6::from_diagonal(&Vector6::new(m, m, m, rad, rad, rad));
            covariance_ratio(&scattered.iter().map(|pose| (*pose, reported)).collect::<Vec<_>>())
        };
        assert!((ratio(5e-4, 4e-3).unwrap() - 1.0).abs() < 0.05);
        // Half as large as reported: a quarter of the variance, and so on.
        assert!((ratio(1e-3, 8e-3).unwrap() - 0.25).abs() < 0.0125);
        assert!((ratio(2.5e-4, 2e-3).unwrap() - 4.0).abs() < 0.2);
        assert_eq!(ratio(0.0, 1.0), None);
        assert_eq!(covariance_ratio(&[(Pose::identity(), Matrix6::identity()); 10]), None);
    }
}
