//! Has a camera moved since it was calibrated? The board's pose now against the stored one.

use nalgebra::Matrix6;
use serde::Serialize;
use tenon_vision::Pose;

/// From which motion on something is said, and nothing is started (spec perception.md §7.3, step 7).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DriftLimits {
    pub warn_m: f64,
    pub warn_rad: f64,
    pub stop_m: f64,
    pub stop_rad: f64,
}

impl Default for DriftLimits {
    fn default() -> Self {
        Self { warn_m: 2e-3, warn_rad: 0.3_f64.to_radians(), stop_m: 5e-3, stop_rad: 1.0_f64.to_radians() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftVerdict {
    InPlace,
    Warn,
    Stop,
}

/// How far a camera moved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drift {
    pub verdict: DriftVerdict,
    /// Displacement of the camera in the board's axes, m, and its length.
    pub displacement_m: [f64; 3],
    pub moved_m: f64,
    pub turned_rad: f64,
    /// Standard deviation of the displacement along its own direction, both calibrations together, m.
    pub sigma_m: f64,
}

/// Compares `T_april_camera` now with the stored one. Covariances as in [`crate::extrinsics`].
///
/// A motion counts only as far as it exceeds what noise explains (two standard deviations), so that a single noisy picture of
/// a far board raises no alarm.
pub fn compare(stored: (&Pose, &Matrix6<f64>), now: (&Pose, &Matrix6<f64>), limits: &DriftLimits) -> Drift {
    let displacement = now.0.translation.vector - stored.0.translation.vector;
    let turn = (now.0.rotation * stored.0.rotation.inverse()).scaled_axis();
    let covariance = stored.1 + now.1;
    let along = |block: nalgebra::Matrix3<f64>, v: &nalgebra::Vector3<f64>| {
        v.try_normalize(1e-12).map_or(0.0, |n| n.dot(&(block * n)).max(0.0).sqrt())
    };
    let sigma_m = along(covariance.fixed_view::<3, 3>(0, 0).into_owned(), &displacement);
    let sigma_rad = along(covariance.fixed_view::<3, 3>(3, 3).into_owned(), &turn);
    let sure_m = (displacement.norm() - 2.0 * sigma_m).max(0.0);
    let sure_rad = (turn.norm() - 2.0 * sigma_rad).max(0.0);
    // A NaN is no proof that nothing moved; `max` above would hide it.
    let known =
        displacement.norm().is_finite() && turn.norm().is_finite() && sigma_m.is_finite() && sigma_rad.is_finite();
    let beyond = |m: f64, rad: f64| !known || sure_m > m || sure_rad > rad;
    let verdict = if beyond(limits.stop_m, limits.stop_rad) {
        DriftVerdict::Stop
    } else if beyond(limits.warn_m, limits.warn_rad) {
        DriftVerdict::Warn
    } else {
        DriftVerdict::InPlace
    };
    let (displacement_m, moved_m) = (displacement.into(), displacement.norm());
    Drift { verdict, displacement_m, moved_m, turned_rad: turn.norm(), sigma_m }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    fn moved(m: f64, deg: f64) -> Pose {
        let rotation = UnitQuaternion::from_euler_angles(1.27, 0.0, 0.0);
        let turn = UnitQuaternion::from_scaled_axis(Vector3::y() * deg.to_radians());
        Pose::from_parts(Translation3::new(0.03 + m, 0.79, -0.28), turn * rotation)
    }

    #[test]
    fn motion_is_told_from_noise() {
        let verdict = |m: f64, deg: f64, sigma: f64| {
            let covariance = Matrix6::identity() * (sigma * sigma);
            let stored = (&moved(0.0, 0.0), &covariance);
            compare(stored, (&moved(m, deg), &covariance), &DriftLimits::default())
        };
        let small = 1e-4;
        assert_eq!(verdict(1e-3, 0.1, small).verdict, DriftVerdict::InPlace);
        assert_eq!(verdict(3e-3, 0.1, small).verdict, DriftVerdict::Warn);
        assert_eq!(verdict(0.0, 0.5, small).verdict, DriftVerdict::Warn);
        assert_eq!(verdict(6e-3, 0.0, small).verdict, DriftVerdict::Stop);
        assert_eq!(verdict(0.0, 2.0, small).verdict, DriftVerdict::Stop);
        assert!((verdict(6e-3, 0.0, small).moved_m - 6e-3).abs() < 1e-12);
        // With 3 mm of noise in each, 6 mm say nothing.
        assert_eq!(verdict(6e-3, 0.0, 3e-3).verdict, DriftVerdict::InPlace);
        assert_eq!(verdict(f64::NAN, 0.0, small).verdict, DriftVerdict::Stop);
    }
}
