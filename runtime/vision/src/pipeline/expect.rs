//! What is known of the parts goes back to the cameras: a tag that one camera has lost, behind a hand or in a jump, is looked
//! for at once where the other cameras (or the gripper that holds the part) say that it must be.
//!
//! A tag that the last frame showed is not touched: its own motion in the picture predicts it better than a pose does. Of the
//! others those are looked for that face the camera, lie in the picture and are large enough to be read. One that stays
//! unseen, because something the cameras do not know of hides it, is looked for in every second frame only.

use super::eye::View;
use super::solve::MAX_PARTS;
use crate::part_pose::position_covariance;
use crate::pose::corners_in_tag;
use crate::track::Tracker;
use crate::{PlacedCamera, Pose, Rig, TagOnBody};
use nalgebra::{Matrix6, Vector3};
use std::time::Duration;
use tenon_core::fusion::PartBoard;
use tenon_core::time::{MonotonicTime, Stamped};

/// Where a part should be, from whatever source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedPart {
    /// In the frame of the base board, as the cameras see it (before corrections of its height).
    pub T_april_part: Pose,
    /// Of the displacement of the part's origin and its rotation `[v; ω]` in april axes (m², m·rad, rad²).
    pub covariance: Matrix6<f64>,
    /// The instant that the pose is for.
    pub at: MonotonicTime,
}

/// What is expected of all parts, by their index on the board.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExpectedParts {
    parts: [Option<ExpectedPart>; MAX_PARTS],
}

impl ExpectedParts {
    /// Where `board` predicts its parts to be at `now`; of a part in the gripper where the tool point carries it.
    ///
    /// `T_robot_tcp`: pose of the tool point in the robot's base, needed for parts that are held.
    pub fn of_board(board: &PartBoard, now: MonotonicTime, T_robot_tcp: Option<&Stamped<Pose>>) -> Self {
        let mut expected = Self::default();
        for (index, slot) in expected.parts.iter_mut().enumerate() {
            let Ok(Some(estimate)) = board.estimate(index, now, T_robot_tcp) else { continue };
            let mut T_april_part = estimate.T_april_part;
            T_april_part.translation.z -= board.height_m(index);
            // The benchmark's filters know no uncertainty.
            let covariance = estimate.covariance.unwrap_or_else(Matrix6::zeros);
            *slot = Some(ExpectedPart { T_april_part, covariance, at: now });
        }
        expected
    }

    pub fn part(&self, index: usize) -> Option<&ExpectedPart> {
        self.parts.get(index)?.as_ref()
    }

    pub(super) fn set(&mut self, index: usize, part: ExpectedPart) {
        if let Some(slot) = self.parts.get_mut(index) {
            *slot = Some(part);
        }
    }
}

/// Expectations from further away in time than this are none.
const MAX_AGE: Duration = Duration::from_millis(100);
/// Windows for expected tags in one frame at most.
const MAX_LOOKS: usize = 8;
/// Frames in which an unseen tag is looked for in each; then in every second.
const EAGER_FRAMES: u32 = 6;
/// Cosine between a tag's normal and the line of sight below which it is not expected to be read.
const MIN_FACING: f64 = 0.3;
/// Tags with a shorter edge are not expected to be read, px.
const MIN_EDGE_PX: f64 = 9.0;
/// How far a tag may be from where a pose without error puts it, px: corners, lens and the tag's place on its part.
const MARGIN_PX: f64 = 6.0;
/// Motion since the expectation's instant, px/s: as fast as what the tracker allows for hints.
const SPEED_PX_S: f64 = 550.0;
/// Farther than this nothing is looked for, px: that is the slices' work.
const MAX_REACH_PX: f64 = 60.0;

#[derive(Debug, Clone)]
struct Watched {
    tag: TagOnBody,
    /// Frames since it was last seen.
    unseen: u32,
}

/// One camera's list of the tags of the followed parts.
#[derive(Debug, Clone)]
pub(super) struct Lookout {
    placed: PlacedCamera,
    /// Width and height of the frames, px.
    size: (usize, usize),
    /// Index on the board, and the part's tags.
    parts: Vec<(usize, Vec<Watched>)>,
    /// The part that comes first in the next frame, so that a crowded frame starves nobody.
    first: usize,
}

impl Lookout {
    /// For those parts of `board` that are not frozen and carry tags in `rig`.
    pub fn new(rig: &Rig, board: &PartBoard, placed: PlacedCamera, size: (usize, usize)) -> Self {
        let watched = |tag: &TagOnBody| Watched { tag: *tag, unseen: 0 };
        let parts = super::solve::followed_parts(rig, board);
        let parts = parts.map(|(index, part)| (index, part.tags.iter().map(watched).collect())).collect();
        Self { placed, size, parts, first: 0 }
    }

    /// Of all tags on the list.
    pub fn ids(&self) -> Vec<u32> {
        self.parts.iter().flat_map(|(_, tags)| tags.iter().map(|watched| watched.tag.id)).collect()
    }

    /// Tells `tracker` what to look for in the frame exposed at `exposed_at`. `last`: what the frame before it showed.
    pub fn look(
        &mut self,
        tracker: &mut Tracker,
        last: &View,
        expected: [&ExpectedParts; 2],
        exposed_at: MonotonicTime,
    ) {
        let T_camera_april = self.placed.T_april_camera.inverse();
        let count = self.parts.len();
        let (mut looks, first) = (0, self.first);
        self.first = (first + 1) % count.max(1);
        for i in 0..count {
            let (index, tags) = &mut self.parts[(first + i) % count];
            let near = |part: &&ExpectedPart| part.at.seconds_since(exposed_at).abs() <= MAX_AGE.as_secs_f64();
            let expected = expected.map(|expected| expected.part(*index).filter(near));
            for watched in tags {
                if last.tags.iter().any(|seen| seen.id == watched.tag.id) {
                    watched.unseen = 0;
                    continue;
                }
                watched.unseen = watched.unseen.saturating_add(1);
                if watched.unseen > EAGER_FRAMES && watched.unseen % 2 == 1 {
                    continue;
                }
                let mut before: Option<([f64; 2], f64)> = None;
                for part in expected.into_iter().flatten() {
                    let look = place_in(&self.placed, self.size, &T_camera_april, part, &watched.tag, exposed_at);
                    let Some((corners_px, reach_px)) = look else { continue };
                    let centre: [f64; 2] =
                        std::array::from_fn(|axis| corners_px.iter().map(|c| c[axis]).sum::<f64>() / 4.0);
                    // The second source says the same.
                    let same = |(other, reach): &([f64; 2], f64)| {
                        (other[0] - centre[0]).hypot(other[1] - centre[1]) < 0.5 * reach.max(reach_px)
                    };
                    if before.as_ref().is_some_and(same) || looks == MAX_LOOKS {
                        continue;
                    }
                    looks += 1;
                    tracker.look_for(&corners_px, reach_px);
                    before = Some((centre, reach_px));
                }
            }
        }
    }
}

/// Where in the picture a tag should be, and how far from there it may be, px; none where it cannot be read.
fn place_in(
    placed: &PlacedCamera,
    size: (usize, usize),
    T_camera_april: &Pose,
    part: &ExpectedPart,
    tag: &TagOnBody,
    exposed_at: MonotonicTime,
) -> Option<([[f64; 2]; 4], f64)> {
    let T_camera_tag = T_camera_april * part.T_april_part * tag.T_body_tag;
    let place = T_camera_tag.translation.vector;
    let distance_m = place.norm();
    let facing = (T_camera_tag.rotation * Vector3::z()).dot(&place) / distance_m;
    if facing.is_nan() || facing < MIN_FACING {
        return None;
    }
    let corners = corners_in_tag(tag.size_m).map(|corner| placed.camera.project(&(T_camera_tag * corner)));
    let [Some(a), Some(b), Some(c), Some(d)] = corners else { return None };
    let corners = [a, b, c, d];
    let (width, height) = (size.0 as f64, size.1 as f64);
    let inside = |[x, y]: &[f64; 2]| (0.0..width).contains(x) && (0.0..height).contains(y);
    let edge = |i: usize| (corners[i][0] - corners[(i + 1) % 4][0]).hypot(corners[i][1] - corners[(i + 1) % 4][1]);
    if !corners.iter().all(inside) || (0..4).any(|i| edge(i) < MIN_EDGE_PX) {
        return None;
    }
    let arm = part.T_april_part.rotation * tag.T_body_tag.translation.vector;
    let [fx, fy] = placed.camera.focal_px();
    let focal = 0.5 * (fx + fy);
    let part_m = position_covariance(&part.covariance, &arm).trace().max(0.0).sqrt();
    // Seen from the tag's distance, and turned about the camera.
    let sigma_px = focal * (part_m.hypot(placed.position_sigma_m) / distance_m).hypot(placed.rotation_sigma_rad);
    let age_s = part.at.seconds_since(exposed_at).abs();
    let reach_px = MARGIN_PX + 3.0 * sigma_px + SPEED_PX_S * age_s;
    // A NaN must not make a window.
    reach_px.is_finite().then(|| (corners, reach_px.min(MAX_REACH_PX)))
}
