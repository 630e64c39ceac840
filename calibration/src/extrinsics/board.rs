//! Tags that are not where the layout says: swapped for one another, or turned.
//!
//! Each tag's own corners, put where another tag or another turn of it should be, must then fit as well as the honest ones.

use tenon_vision::pose::corners_in_tag;
use tenon_vision::refine::{Correspondence, refine_pose, reprojection_rms_px};
use tenon_vision::{Camera, Pose, TagDetection, TagOnBody, body_pose};

/// What is wrong with a board's tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Misplaced {
    /// The two prints lie at each other's place.
    Swapped { first: u32, second: u32 },
    /// The print was glued on turned, clockwise as seen from above, by this many quarters.
    Turned { id: u32, quarters: u8 },
    /// It fits nowhere: moved, bent, or another print.
    Elsewhere { id: u32 },
}

impl std::fmt::Display for Misplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Swapped { first, second } => write!(f, "tags {first} and {second} lie at each other's place"),
            Self::Turned { id, quarters } => write!(f, "tag {id} is turned by {} degrees", 90 * u32::from(*quarters)),
            Self::Elsewhere { id } => write!(f, "tag {id} is not where the layout says"),
        }
    }
}

/// A board fits well below this, px; wrong layouts are off by the distance of two tags.
const GOOD_PX: f64 = 1.5;
/// How many times better a changed layout must fit.
const MUCH_BETTER: f64 = 4.0;

/// Looks for the one change of the layout that makes a view fit. Empty where it fits as it is, or has too few tags to say
/// who is wrong (fewer than three).
pub fn misplaced(camera: &Camera, tags: &[TagOnBody], view: &[TagDetection]) -> Vec<Misplaced> {
    let seen: Vec<(&TagOnBody, &TagDetection)> =
        tags.iter().filter_map(|tag| view.iter().find(|d| d.id == tag.id).map(|d| (tag, d))).collect();
    if seen.len() < 3 {
        return Vec::new();
    }
    let as_it_is = fit(camera, tags, view);
    if as_it_is < GOOD_PX {
        return Vec::new();
    }
    let explains = |rms_px: f64| rms_px < GOOD_PX && rms_px * MUCH_BETTER < as_it_is;
    let mut changes: Vec<(f64, Misplaced)> = Vec::new();
    for (i, (a, _)) in seen.iter().enumerate() {
        for (b, _) in &seen[i + 1..] {
            let mut changed = tags.to_vec();
            for tag in &mut changed {
                if tag.id == a.id {
                    tag.T_body_tag = b.T_body_tag;
                } else if tag.id == b.id {
                    tag.T_body_tag = a.T_body_tag;
                }
            }
            let swapped = Misplaced::Swapped { first: a.id.min(b.id), second: a.id.max(b.id) };
            changes.push((fit(camera, &changed, view), swapped));
        }
        for quarters in 1..4_u8 {
            let mut turned = view.to_vec();
            for detection in turned.iter_mut().filter(|d| d.id == a.id) {
                // The library's corners run counter-clockwise on the screen.
                detection.corners_px.rotate_left(usize::from(quarters));
            }
            changes.push((fit(camera, tags, &turned), Misplaced::Turned { id: a.id, quarters }));
        }
    }
    let best = |changes: &[(f64, Misplaced)]| {
        changes.iter().filter(|change| explains(change.0)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|change| change.1)
    };
    if let Some(what) = best(&changes) {
        return vec![what];
    }
    let without = seen.iter().map(|(a, _)| {
        let others: Vec<TagDetection> = view.iter().filter(|d| d.id != a.id).copied().collect();
        (fit(camera, tags, &others), Misplaced::Elsewhere { id: a.id })
    });
    best(&without.collect::<Vec<_>>()).into_iter().collect()
}

/// Distance of the corners from the best pose, px; infinite where nothing fits.
fn fit(camera: &Camera, tags: &[TagOnBody], view: &[TagDetection]) -> f64 {
    body_pose("the board", camera, tags, view).map_or(f64::INFINITY, |pose| pose.best.rms_px)
}

/// The best pose of a body in one view over both minima of each tag, and how well it fits: a start.
pub(super) fn start_pose(camera: &Camera, tags: &[TagOnBody], view: &[TagDetection]) -> Option<(Pose, f64)> {
    // Ids that are seen twice are nobody's.
    let single: Vec<TagDetection> =
        view.iter().filter(|d| view.iter().filter(|other| other.id == d.id).count() == 1).copied().collect();
    let pose = body_pose("the body", camera, tags, &single).ok()?;
    Some((pose.best.T_camera_body, pose.best.rms_px))
}

/// Refines a pose over all tags of one view from a given start.
pub(super) fn refined(camera: &Camera, tags: &[TagOnBody], view: &[TagDetection], start: &Pose) -> Option<(Pose, f64)> {
    let mut corners = Vec::with_capacity(4 * view.len());
    for detection in view {
        let Some(tag) = tags.iter().find(|tag| tag.id == detection.id) else { continue };
        for (point, pixel) in corners_in_tag(tag.size_m).iter().zip(detection.corners_px) {
            corners.push(Correspondence { point_m: tag.T_body_tag * point, pixel });
        }
    }
    reprojection_rms_px(camera, start, &corners)?;
    let refined = refine_pose(camera, start, &corners)?;
    Some((refined.T_camera_body, refined.rms_px))
}
