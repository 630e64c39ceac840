//! The drift check before a run: the base board now against the stored place of each camera.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tenon_calibrate::measure::drift::{DriftLimits, DriftVerdict};
use tenon_calibrate::steps::check;
use tenon_calibrate::steps::pictures::{Picture, Pictures};
use tenon_calibrate::steps::{Finding, Grade};
use tenon_core::config::rig::RigCalibration;
use tenon_vision::{Detector, DetectorSettings, Rig};

use super::OpenCamera;

/// Frames that are searched for the board.
const FRAMES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(3);

/// One finding for each camera.
///
/// # Errors
/// A camera that does not see the board: whether it has moved cannot be said, so nothing is run.
pub fn check(
    calibration: &RigCalibration,
    cameras: &mut [OpenCamera],
    layout: &Rig,
    limits: &DriftLimits,
) -> Result<Vec<Finding>> {
    let settings = DetectorSettings { family: layout.family, max_hamming: layout.max_hamming, ..Default::default() };
    let mut detector = Detector::new(settings)?;
    let mut findings = Vec::with_capacity(cameras.len());
    for camera in cameras {
        let mut pictures = Vec::with_capacity(FRAMES);
        let until = Instant::now() + PATIENCE;
        while pictures.len() < FRAMES && Instant::now() < until {
            let Some(frame) = camera.reader.wait(Duration::from_millis(50)) else { continue };
            let detections = detector.detect(frame.grey.view())?;
            pictures.push(Picture { name: format!("frame {}", frame.sequence), detections });
        }
        let pictures = Pictures {
            serial: camera.serial.clone(),
            name: camera.name.clone(),
            folder: PathBuf::new(),
            size_px: [camera.size.0, camera.size.1],
            pictures,
        };
        let found = check::drift(calibration, &[pictures], &layout.base_tags, limits).with_context(|| {
            format!(
                "camera {}: whether it has moved since its calibration cannot be said; let it see the base board (tags {})",
                camera.name,
                layout.base_tags.iter().map(|tag| tag.id.to_string()).collect::<Vec<_>>().join(", ")
            )
        })?;
        findings.extend(found.into_iter().map(|camera| {
            let grade = match camera.drift.verdict {
                DriftVerdict::InPlace => Grade::Pass,
                DriftVerdict::Warn => Grade::Warn,
                DriftVerdict::Stop => Grade::Fail,
            };
            Finding { grade, text: camera.text }
        }));
    }
    Ok(findings)
}
