//! What the benchmark does instead of [`crate::part_pose`], by name, for comparison (spec perception.md §5): each tag's better
//! minimum, the unweighted mean over a camera's tags, then the unweighted mean over cameras.

use crate::part_pose::PlacedCamera;
use crate::pose::tag_pose;
use crate::{Pose, TagDetection, TagOnBody};
use tenon_core::fusion::{CameraPose, average_poses};

/// The part as one camera sees it (§5, steps 1 to 3). Of an id that is seen twice the last one counts, as in the benchmark.
/// `poses` is scratch. `None` where no tag of the part gives a pose.
pub fn camera_pose(
    camera: usize,
    placed: &PlacedCamera,
    tags: &[TagOnBody],
    view: &[TagDetection],
    poses: &mut Vec<Pose>,
) -> Option<CameraPose> {
    poses.clear();
    for tag in tags {
        let Some(detection) = view.iter().rev().find(|detection| detection.id == tag.id) else { continue };
        if let Ok(alone) = tag_pose(&placed.camera, detection, tag.size_m) {
            poses.push(alone.best.T_camera_body * tag.T_body_tag.inverse());
        }
    }
    let T_camera_part = average_poses(poses)?;
    Some(CameraPose { camera, T_april_part: placed.T_april_camera * T_camera_part, tags: poses.len() as u8 })
}

/// The mean over cameras (§5, step 5), without the filter that the benchmark has before it
/// ([`tenon_core::fusion::MajorityFilter`]).
pub fn averaged_pose<'a>(
    cameras: &[PlacedCamera],
    tags: &[TagOnBody],
    views: impl IntoIterator<Item = &'a [TagDetection]>,
) -> Option<Pose> {
    let mut scratch = Vec::new();
    let seen = cameras.iter().enumerate().zip(views);
    let poses = seen.filter_map(|((i, placed), view)| camera_pose(i, placed, tags, view, &mut scratch));
    average_poses(&poses.map(|pose| pose.T_april_part).collect::<Vec<_>>())
}
