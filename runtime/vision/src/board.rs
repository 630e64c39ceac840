//! Pose of a body from several tags at known places on it: the base board (camera calibration) or a furniture part.
//!
//! All corners are solved together on pixels. Each tag alone offers two starts (its two minima); every start is refined
//! over all corners and the smallest error wins, so a flipped tag cannot pull the result over.

use crate::pose::{Hypothesis, ambiguity, corners_in_tag, orientation_between, tag_pose};
use crate::refine::{Correspondence, refine_pose, reprojection_rms_px};
use crate::{Camera, Pose, TagDetection, VisionError};

/// A tag on a body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagOnBody {
    pub id: u32,
    /// Edge of the black border, m.
    pub size_m: f64,
    pub T_body_tag: Pose,
}

/// How well one tag agrees with the body's pose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagResidual {
    pub id: u32,
    /// Root mean square distance over the tag's four corners, px.
    pub rms_px: f64,
}

/// Pose of a body in the camera frame.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyPose {
    pub best: Hypothesis,
    /// The best fit with another orientation, where there is one.
    pub other: Option<Hypothesis>,
    /// `other.rms_px / best.rms_px`; infinite without another minimum.
    pub ratio: f64,
    /// Another orientation fits less than twice as badly.
    pub ambiguous: bool,
    /// One entry for each tag used, in the order of the detections.
    pub tags: Vec<TagResidual>,
}

impl BodyPose {
    /// The camera's pose in the body frame (`T_april_camera` for the base board).
    pub fn T_body_camera(&self) -> Pose {
        self.best.T_camera_body.inverse()
    }
}

/// Solves the pose of the body `name` that carries `tags` from all of its tags among `detections`.
///
/// # Errors
/// [`VisionError::DuplicateTag`] when one of its ids was seen more than once: nobody can know which print is the body's.
/// [`VisionError::NoTagOfBody`] when none was seen, [`VisionError::NoBodyPose`] when nothing fits.
pub fn body_pose(
    name: &str,
    camera: &Camera,
    tags: &[TagOnBody],
    detections: &[TagDetection],
) -> Result<BodyPose, VisionError> {
    let mut seen: Vec<(&TagOnBody, &TagDetection)> = Vec::with_capacity(tags.len());
    for detection in detections {
        let Some(tag) = tags.iter().find(|tag| tag.id == detection.id) else {
            continue;
        };
        if seen.iter().any(|(earlier, _)| earlier.id == tag.id) {
            return Err(VisionError::DuplicateTag {
                body: name.to_owned(),
                id: tag.id,
                count: detections.iter().filter(|d| d.id == tag.id).count(),
            });
        }
        seen.push((tag, detection));
    }
    if seen.is_empty() {
        let wanted: Vec<String> = tags.iter().map(|tag| tag.id.to_string()).collect();
        return Err(VisionError::NoTagOfBody { body: name.to_owned(), wanted: wanted.join(", ") });
    }

    let mut corners = Vec::with_capacity(4 * seen.len());
    for (tag, detection) in &seen {
        for (point, pixel) in corners_in_tag(tag.size_m).iter().zip(detection.corners_px) {
            corners.push(Correspondence { point_m: tag.T_body_tag * point, pixel });
        }
    }

    let mut fits: Vec<Hypothesis> = Vec::with_capacity(2 * seen.len());
    let mut last_failure = None;
    for (tag, detection) in &seen {
        let alone = match tag_pose(camera, detection, tag.size_m) {
            Ok(alone) => alone,
            // The other tags may do; if none does, this is the reason to give.
            Err(error) => {
                last_failure = Some(error);
                continue;
            }
        };
        for start in [alone.best, alone.other] {
            let T_camera_body = start.T_camera_body * tag.T_body_tag.inverse();
            if let Some(refined) = refine_pose(camera, &T_camera_body, &corners) {
                fits.push(Hypothesis {
                    T_camera_body: refined.T_camera_body,
                    rms_px: refined.rms_px,
                    is_minimum: true,
                    normal_matrix: refined.normal_matrix,
                });
            }
        }
    }
    fits.sort_by(|a, b| a.rms_px.total_cmp(&b.rms_px));
    let Some(&best) = fits.first() else {
        return Err(last_failure.unwrap_or(VisionError::NoBodyPose {
            body: name.to_owned(),
            tags: seen.len(),
            reason: "no start lies in front of the camera for all of them",
        }));
    };
    let other = fits.iter().find(|fit| orientation_between(&best, fit) >= crate::pose::SAME_MINIMUM_RAD).copied();
    let (ratio, ambiguous) = other.map_or((f64::INFINITY, false), |other| ambiguity(&best, &other));
    let residuals = seen
        .iter()
        .zip(corners.chunks_exact(4))
        .map(|((tag, _), corners)| TagResidual {
            id: tag.id,
            rms_px: reprojection_rms_px(camera, &best.T_camera_body, corners).unwrap_or(f64::INFINITY),
        })
        .collect();
    Ok(BodyPose { best, other, ratio, ambiguous, tags: residuals })
}
