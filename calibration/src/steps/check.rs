//! Drift check: the board's pose now against the stored one, for each camera.

use serde::Serialize;
use tenon_core::config::rig::RigCalibration;
use tenon_vision::TagOnBody;

use super::StepError;
use super::pictures::Pictures;
use super::place::{camera_of, intrinsics_for};
use crate::extrinsics::{Problem, SolveSettings, View, calibrate};
use crate::measure::drift::{Drift, DriftLimits, DriftVerdict, compare};

/// One camera's drift.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraDrift {
    pub name: String,
    pub serial: String,
    pub drift: Drift,
    /// In words.
    pub text: String,
}

/// Compares pictures of the board taken now with a rig's calibration.
///
/// # Errors
/// [`StepError::NoPlace`] for a camera that was never placed; what [`calibrate`] says where the board is not seen.
pub fn drift(
    known: &RigCalibration,
    cameras: &[Pictures],
    board: &[TagOnBody],
    limits: &DriftLimits,
) -> Result<Vec<CameraDrift>, StepError> {
    let mut found = Vec::with_capacity(cameras.len());
    for pictures in cameras {
        let record = known.camera(&pictures.serial);
        let stored = record.and_then(|camera| camera.place.as_ref());
        let stored = stored.ok_or_else(|| StepError::NoPlace { serial: pictures.serial.clone() })?;
        let (_, intrinsics) = intrinsics_for(known, pictures, None, "")?;
        let views = pictures.pictures.iter().map(|picture| View {
            name: picture.name.clone(),
            camera: 0,
            T_base_hand: None,
            detections: picture.detections.clone(),
        });
        let problem = Problem {
            cameras: vec![(pictures.name.clone(), camera_of(&intrinsics)?)],
            board: board.to_vec(),
            hand: Vec::new(),
            views: views.collect(),
        };
        let solution = calibrate(&problem, &SolveSettings::default())?;
        let (now, covariance) = solution.in_board(0);
        let drift = compare((&stored.T_april_camera(), &stored.covariance()), (&now, &covariance), limits);
        let moved = format!(
            "{} ({}): {:.1} ± {:.1} mm and {:.2} degrees from where it was calibrated",
            pictures.name,
            pictures.serial,
            1e3 * drift.moved_m,
            1e3 * 2.0 * drift.sigma_m,
            drift.turned_rad.to_degrees()
        );
        let text = match drift.verdict {
            DriftVerdict::InPlace => moved,
            DriftVerdict::Warn => format!("{moved}: it was touched, calibrate it again soon"),
            DriftVerdict::Stop => format!("{moved}: do not run a policy, calibrate it again (`tenon-calibrate place`)"),
        };
        found.push(CameraDrift { name: pictures.name.clone(), serial: pictures.serial.clone(), drift, text });
    }
    Ok(found)
}
