//! Proof on views that took no part in the calibration: how far off it is, over the workspace, against limits.

use serde::Serialize;
use tenon_core::config::rig::ProofRecord;
use tenon_vision::Pose;

use super::statistics::{Quantile, quantile};

/// A pose as it was measured through the calibration, and as something else knows it: the arm, or another camera.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// File or frame.
    pub name: String,
    pub measured: Pose,
    pub expected: Pose,
}

/// One view's error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutError {
    pub name: String,
    /// Where in the workspace, m.
    pub place_m: [f64; 3],
    pub position_m: f64,
    pub rotation_rad: f64,
}

/// What a calibration must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// At most this far off in 95 % of the workspace, m and rad.
    pub position_m: f64,
    pub rotation_rad: f64,
    /// Views that are needed to say so.
    pub min_views: usize,
    /// Distance between the two farthest views, m: a proof at one place says nothing about the others.
    pub min_extent_m: f64,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    pub passed: bool,
    /// Why not, as sentences; empty when passed.
    pub reasons: Vec<String>,
    pub position_median_m: Quantile,
    pub position_p95_m: Quantile,
    pub rotation_median_rad: Quantile,
    pub rotation_p95_rad: Quantile,
    pub extent_m: f64,
    /// Worst first.
    pub views: Vec<HeldOutError>,
    pub limits: Limits,
}

/// Judges held-out views. `None` where there is none.
pub fn judge(held_out: &[HeldOut], limits: &Limits) -> Option<Proof> {
    let mut views: Vec<HeldOutError> = held_out
        .iter()
        .map(|view| HeldOutError {
            name: view.name.clone(),
            place_m: view.expected.translation.vector.into(),
            position_m: (view.measured.translation.vector - view.expected.translation.vector).norm(),
            rotation_rad: view.measured.rotation.angle_to(&view.expected.rotation),
        })
        .collect();
    let positions: Vec<f64> = views.iter().map(|view| view.position_m).collect();
    let rotations: Vec<f64> = views.iter().map(|view| view.rotation_rad).collect();
    let (position_p95_m, rotation_p95_rad) = (quantile(&positions, 0.95)?, quantile(&rotations, 0.95)?);
    let extent_m = extent(&views);
    let mut reasons = Vec::new();
    if views.len() < limits.min_views {
        reasons.push(format!("{} held-out views are too few: {} are needed", views.len(), limits.min_views));
    }
    if extent_m < limits.min_extent_m {
        reasons.push(format!(
            "the views lie within {:.0} mm of one another: spread them over {:.0} mm of the workspace",
            1e3 * extent_m,
            1e3 * limits.min_extent_m
        ));
    }
    // A NaN must not pass.
    if !(position_p95_m.value <= limits.position_m) {
        reasons.push(format!(
            "95 % of the views are off by up to {:.1} mm, the limit is {:.1} mm",
            1e3 * position_p95_m.value,
            1e3 * limits.position_m
        ));
    }
    if !(rotation_p95_rad.value <= limits.rotation_rad) {
        reasons.push(format!(
            "95 % of the views are turned by up to {:.2} degrees, the limit is {:.2}",
            rotation_p95_rad.value.to_degrees(),
            limits.rotation_rad.to_degrees()
        ));
    }
    views.sort_by(|a, b| b.position_m.total_cmp(&a.position_m));
    Some(Proof {
        passed: reasons.is_empty(),
        reasons,
        position_median_m: quantile(&positions, 0.5)?,
        position_p95_m,
        rotation_median_rad: quantile(&rotations, 0.5)?,
        rotation_p95_rad,
        extent_m,
        views,
        limits: *limits,
    })
}

fn extent(views: &[HeldOutError]) -> f64 {
    let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
    let mut farthest = 0.0_f64;
    for (i, a) in views.iter().enumerate() {
        for b in &views[i + 1..] {
            farthest = farthest.max(distance(&a.place_m, &b.place_m));
        }
    }
    farthest
}

impl Proof {
    /// As the rig's file keeps it.
    pub fn record(&self, date: &str) -> ProofRecord {
        ProofRecord {
            passed: self.passed,
            views: self.views.len(),
            position_median_m: self.position_median_m.value,
            position_median_interval_m: self.position_median_m.interval,
            position_p95_m: self.position_p95_m.value,
            rotation_median_rad: self.rotation_median_rad.value,
            rotation_median_interval_rad: self.rotation_median_rad.interval,
            rotation_p95_rad: self.rotation_p95_rad.value,
            limit_position_m: self.limits.position_m,
            limit_rotation_rad: self.limits.rotation_rad,
            date: date.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    const LIMITS: Limits = Limits { position_m: 3e-3, rotation_rad: 0.02, min_views: 12, min_extent_m: 0.2 };

    fn views(n: usize, spread_m: f64, error_m: f64, error_rad: f64) -> Vec<HeldOut> {
        let view = |k: usize| {
            let x = spread_m * k as f64 / (n - 1) as f64;
            let expected = Pose::from_parts(Translation3::new(x, 0.1, -0.02), UnitQuaternion::identity());
            let grown = k as f64 / n as f64;
            let turn = UnitQuaternion::from_scaled_axis(Vector3::z() * error_rad * grown);
            let measured = Pose::from_parts(Translation3::new(x, 0.1 + error_m * grown, -0.02), turn);
            HeldOut { name: format!("view {k}"), measured, expected }
        };
        (0..n).map(view).collect()
    }

    #[test]
    fn good_views_pass_with_their_numbers() {
        let proof = judge(&views(20, 0.4, 2e-3, 0.01), &LIMITS).unwrap();
        assert!(proof.passed && proof.reasons.is_empty(), "{proof:?}");
        assert!((proof.position_median_m.value - 0.95e-3).abs() < 1e-6 && (proof.extent_m - 0.4).abs() < 1e-9);
        assert!(proof.position_median_m.interval[0] < proof.position_median_m.value);
        assert_eq!(proof.views[0].name, "view 19");
        assert!(proof.record("today").passed);
    }

    #[test]
    fn every_shortcoming_is_a_reason() {
        let said = |views: &[HeldOut]| judge(views, &LIMITS).unwrap().reasons.join("; ");
        assert!(said(&views(20, 0.4, 5e-3, 0.01)).contains("mm, the limit is 3.0 mm"));
        assert!(said(&views(20, 0.4, 1e-3, 0.1)).contains("degrees"));
        assert!(said(&views(5, 0.4, 1e-3, 0.01)).contains("12 are needed"));
        assert!(said(&views(20, 0.05, 1e-3, 0.01)).contains("spread them over 200 mm"));
        let mut broken = views(20, 0.4, 1e-3, 0.01);
        broken[3].measured.translation.vector.x = f64::NAN;
        assert!(!judge(&broken, &LIMITS).unwrap().passed);
        assert_eq!(judge(&[], &LIMITS), None);
    }
}
