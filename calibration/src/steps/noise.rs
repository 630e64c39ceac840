//! Noise at rest of parts, from pictures of calibrated cameras taken together.

use tenon_core::config::rig::{NoiseRecord, RigCalibration};
use tenon_vision::rig::Part;
use tenon_vision::{PartSettings, PartSolver, PlacedCamera, Pose, VisionError};

use super::StepError;
use super::pictures::Pictures;
use super::place::{camera_of, intrinsics_for};
use crate::measure::noise::at_rest;

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

/// Noise of every part of `parts`. Pictures belong together by their order. `rate_hz`: of the cameras.
pub fn noise(
    known: &RigCalibration,
    cameras: &[Pictures],
    parts: &[Part],
    rate_hz: f64,
    date: &str,
) -> Result<Vec<NoiseRecord>, StepError> {
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
        let mut poses: Vec<Pose> = Vec::with_capacity(instants);
        for k in 0..instants {
            let views = cameras.iter().map(|pictures| &pictures.pictures[k].detections[..]);
            // Two minima: the one that the poses before it say; without any before, an unambiguous one.
            match solver.solve(&part.name, &part.tags, &placed, views, poses.last()) {
                Ok(solved) => {
                    let nearest = |pose: &Pose| poses.last().map_or(0.0, |last| pose.rotation.angle_to(&last.rotation));
                    let other = solved.other.filter(|_| solved.ambiguous).map(|other| other.T_april_part);
                    match other {
                        _ if !solved.ambiguous => poses.push(solved.T_april_part),
                        Some(other) if !poses.is_empty() => {
                            let best = nearest(&solved.T_april_part) <= nearest(&other);
                            poses.push(if best { solved.T_april_part } else { other });
                        }
                        _ => {}
                    }
                }
                Err(VisionError::NoTagOfBody { .. } | VisionError::NoBodyPose { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        records.push(at_rest(&part.name, &poses, instants as f64 / rate_hz, date)?);
    }
    Ok(records)
}
