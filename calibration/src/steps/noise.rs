//! Noise at rest of parts, from pictures of calibrated cameras taken together.

use nalgebra::Matrix6;
use serde::Serialize;
use tenon_core::config::rig::{NoiseRecord, RigCalibration};
use tenon_vision::rig::Part;
use tenon_vision::{PartSettings, PartSolver, PlacedCamera, Pose, VisionError};

use super::StepError;
use super::pictures::Pictures;
use super::place::{camera_of, intrinsics_for};
use crate::measure::noise::{at_rest, covariance_ratio};

/// The calibrated cameras of some pictures.
pub fn placed_cameras(known: &RigCalibration, cameras: &[Pictures]) -> Result<Vec<PlacedCamera>, StepError> {
    let placed = |pictures: &Pictures| {
        let record = known.camera(&pictures.serial).and_then(|camera| camera.place.as_ref());
        let place = record.ok_or_else(|| StepError::NoPlace { serial: pictures.serial.clone() })?;
        let (_, intrinsics) = intrinsics_for(known, pictures, None, "")?;
        let sigma = |from: usize| ((from..from + 3).map(|i| place.covariance[i][i]).sum::<f64>() / 3.0).max(0.0).sqrt();
        Ok(PlacedCamera {
            camera: camera_of(&intrinsics)?,
            T_april_camera: place.T_april_camera(),
            position_sigma_m: sigma(0),
            rotation_sigma_rad: sigma(3),
        })
    };
    cameras.iter().map(placed).collect()
}

/// Noise at rest of one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub record: NoiseRecord,
    /// How much larger the scatter is than the covariances that came with the poses ([`covariance_ratio`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covariance_ratio: Option<f64>,
}

impl Measured {
    /// The ratio in words, for a line of its own.
    pub fn ratio_line(&self) -> Option<String> {
        self.covariance_ratio.map(|ratio| {
            let advice = if ratio > 1.0 { ": the poses jump more than they say" } else { "" };
            format!("the scatter is {ratio:.2} times the reported covariance{advice}")
        })
    }
}

/// As it goes out with `--json`, and into the version's folder as `noise.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoiseReport<'a> {
    pub schema: &'static str,
    pub parts: &'a [Measured],
}

pub fn report(measured: &[Measured]) -> NoiseReport<'_> {
    NoiseReport { schema: "tenon.noise/1", parts: measured }
}

/// Noise of every part of `parts`. Pictures belong together by their order. `rate_hz`: of the cameras.
pub fn noise(
    known: &RigCalibration,
    cameras: &[Pictures],
    parts: &[Part],
    rate_hz: f64,
    date: &str,
) -> Result<Vec<Measured>, StepError> {
    let placed = placed_cameras(known, cameras)?;
    let instants = cameras.first().map_or(0, |pictures| pictures.pictures.len());
    if let Some(other) = cameras.iter().find(|pictures| pictures.pictures.len() != instants) {
        return Err(StepError::Unequal {
            folder: cameras[0].folder.clone(),
            pictures: instants,
            other: other.folder.clone(),
            others: other.pictures.len(),
        });
    }
    let mut solver = PartSolver::new(PartSettings::default());
    let mut records = Vec::with_capacity(parts.len());
    for part in parts {
        let mut poses: Vec<(Pose, Matrix6<f64>)> = Vec::with_capacity(instants);
        for k in 0..instants {
            let views = cameras.iter().map(|pictures| &pictures.pictures[k].detections[..]);
            let last = poses.last().map(|(pose, _)| *pose);
            match solver.solve(&part.name, &part.tags, &placed, views, last.as_ref()) {
                Ok(solved) => {
                    // Two minima: the one that the poses before it say; without any before, an unambiguous one.
                    let best = (solved.T_april_part, solved.covariance);
                    let other = solved.other.filter(|_| solved.ambiguous).map(|o| (o.T_april_part, o.covariance));
                    match (last, other) {
                        _ if !solved.ambiguous => poses.push(best),
                        (Some(last), Some(other)) => {
                            let turned = |pose: &Pose| pose.rotation.angle_to(&last.rotation);
                            poses.push(if turned(&best.0) <= turned(&other.0) { best } else { other });
                        }
                        _ => {}
                    }
                }
                Err(VisionError::NoTagOfBody { .. } | VisionError::NoBodyPose { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let plain: Vec<Pose> = poses.iter().map(|(pose, _)| *pose).collect();
        let record = at_rest(&part.name, &plain, instants as f64 / rate_hz, date)?;
        records.push(Measured { record, covariance_ratio: covariance_ratio(&poses) });
    }
    Ok(records)
}
