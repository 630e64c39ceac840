//! Intrinsics as an entry of the rig's file, judged against their limits.

use tenon_core::config::rig::{IntrinsicsRecord, IntrinsicsSource};

use super::{Finding, Grade};
use crate::intrinsics::Intrinsics;

/// Largest distance of corners from the solution, px.
pub const PASS_RMS_PX: f64 = 0.5;
/// Largest standard deviation of the focal length, as a part of it: half a millimetre at a metre.
pub const PASS_FOCAL: f64 = 0.0005;

/// Standard deviation of the focal length, as a part of it.
pub fn focal_sigma(found: &Intrinsics) -> f64 {
    found.std()[0].max(found.std()[1]) / found.parameters[0]
}

pub fn findings(found: &Intrinsics) -> Vec<Finding> {
    let focal = focal_sigma(found);
    vec![
        Finding::of(found.rms_px, PASS_RMS_PX, PASS_RMS_PX, |grade| {
            let advice = if grade == Grade::Pass { "" } else { ": is the board flat, and its description right?" };
            format!("corners lie {:.2} px from the solution (limit {PASS_RMS_PX}){advice}", found.rms_px)
        }),
        Finding::of(focal, PASS_FOCAL, PASS_FOCAL, |grade| {
            let advice = if grade == Grade::Pass { "" } else { ": take more tilted views" };
            format!("focal length known to {:.3} % (limit {:.2} %){advice}", 100.0 * focal, 100.0 * PASS_FOCAL)
        }),
    ]
}

pub fn record(found: &Intrinsics, date: &str) -> IntrinsicsRecord {
    IntrinsicsRecord {
        source: IntrinsicsSource::Calibrated,
        focal_px: [found.parameters[0], found.parameters[1]],
        principal_px: [found.parameters[2], found.parameters[3]],
        distortion: std::array::from_fn(|i| found.parameters[4 + i]),
        sigma: Some(found.std()),
        rms_px: Some(found.rms_px),
        views: Some(found.views.len()),
        date: date.to_owned(),
    }
}
