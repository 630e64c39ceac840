//! The newest views of all cameras become poses of parts.

use super::PipelineSettings;
use super::expect::{ExpectedPart, ExpectedParts};
use super::eye::View;
use crate::rig::Part;
use crate::{PartPose, PartSolver, PlacedCamera, Pose, Rig, TagDetection, TagOnBody, VisionError};
use nalgebra::Matrix6;
use std::time::Duration;
use tenon_core::fusion::{PartBoard, PartMeasurement};
use tenon_core::time::MonotonicTime;

/// Most parts of a board that carry tags.
pub const MAX_PARTS: usize = 8;
/// A pose older than this is no start for the next.
const MAX_START_AGE: Duration = Duration::from_millis(500);
/// Measurements of one part are at least this far apart: cameras that expose at one instant would otherwise look like one
/// measurement that came twice.
const LEAST_STEP: Duration = Duration::from_micros(1);

/// A part that a frame gave a pose of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolvedPart {
    /// Index in the order of the observation.
    pub part: usize,
    pub measurement: PartMeasurement,
}

#[derive(Debug)]
struct Followed {
    /// Index on the board.
    index: usize,
    tags: Vec<TagOnBody>,
    last: Option<(MonotonicTime, Pose)>,
}

/// Those parts of `board` that are not frozen and carry tags in `rig`, with their index on the board.
pub(super) fn followed_parts<'a>(rig: &'a Rig, board: &'a PartBoard) -> impl Iterator<Item = (usize, &'a Part)> {
    let names = board.furniture().part_names().iter().enumerate();
    let tracked = names.filter(|(index, _)| board.counts(*index).is_some());
    let parts = tracked.filter_map(|(index, name)| Some((index, rig.parts.iter().find(|part| part.name == *name)?)));
    parts.take(MAX_PARTS)
}

/// Solves the parts of a board from the views of all cameras. Pure: no clock, and no allocation once its buffers have grown.
#[derive(Debug)]
pub struct PoseSolver {
    cameras: Vec<PlacedCamera>,
    parts: Vec<Followed>,
    solver: PartSolver,
    /// The newest of each camera.
    views: Vec<Option<View>>,
    /// Tags of each view, where they are at the newest exposure; none of a view that is too old.
    carried: Vec<Vec<TagDetection>>,
    spare: Vec<View>,
    max_view_age: Duration,
    rest_speed_px_s: f64,
    solved: Vec<SolvedPart>,
    expected: ExpectedParts,
}

impl PoseSolver {
    /// Follows those parts of `board` that are not frozen and carry tags in `rig`.
    pub fn new(rig: &Rig, board: &PartBoard, cameras: Vec<PlacedCamera>, settings: &PipelineSettings) -> Self {
        let followed = |(index, part): (usize, &Part)| Followed { index, tags: part.tags.clone(), last: None };
        let parts = followed_parts(rig, board).map(followed);
        let room = settings.tracker.max_tracks;
        Self {
            parts: parts.collect(),
            solver: PartSolver::new(settings.parts),
            views: cameras.iter().map(|_| None).collect(),
            carried: cameras.iter().map(|_| Vec::with_capacity(2 * room)).collect(),
            spare: cameras.iter().map(|_| View::with_room_for(room)).collect(),
            max_view_age: settings.max_view_age,
            rest_speed_px_s: settings.rest_speed_px_s,
            solved: Vec::with_capacity(MAX_PARTS),
            expected: ExpectedParts::default(),
            cameras,
        }
    }

    /// With the covariances of the cameras' places; see [`PartSolver::with_place_covariances`].
    pub fn with_place_covariances(mut self, covariances: &[Option<Matrix6<f64>>]) -> Result<Self, VisionError> {
        self.solver = self.solver.with_place_covariances(covariances)?;
        Ok(self)
    }

    /// The newest pose of every part that left no doubt about its orientation.
    pub fn expected(&self) -> &ExpectedParts {
        &self.expected
    }

    pub fn cameras(&self) -> &[PlacedCamera] {
        &self.cameras
    }

    /// Takes in a view of `camera` and solves every part with a tag in it, with the newest views of the other cameras.
    ///
    /// Measurements are stamped with the newest exposure among the views used. A part whose tags fit no pose is left out.
    ///
    /// # Panics
    /// When there is no camera of this index.
    pub fn take(&mut self, camera: usize, view: &View) -> &[SolvedPart] {
        self.solved.clear();
        let mut own = self.views[camera].take().or_else(|| self.spare.pop()).unwrap_or_default();
        own.copy_from(view);
        self.views[camera] = Some(own);
        let newest = self.views.iter().flatten().map(|view| view.exposed_at).max().unwrap_or(view.exposed_at);
        self.carry(newest);
        for part in &mut self.parts {
            let shows = |tags: &[TagDetection]| tags.iter().any(|tag| part.tags.iter().any(|own| own.id == tag.id));
            if !shows(&self.carried[camera]) {
                continue;
            }
            let fresh = |(at, _): &(MonotonicTime, Pose)| newest.since(*at) <= MAX_START_AGE;
            let previous = part.last.filter(fresh).map(|(_, pose)| pose);
            let views = self.carried.iter().map(Vec::as_slice);
            let Ok(pose) = self.solver.try_solve(&part.tags, &self.cameras, views, previous.as_ref()) else {
                continue;
            };
            let after_last = part.last.map_or(newest, |(at, _)| at + LEAST_STEP);
            let exposed_at = newest.max(after_last);
            part.last = Some((exposed_at, pose.T_april_part));
            if !pose.ambiguous {
                let (T_april_part, covariance) = (pose.T_april_part, pose.whole_covariance());
                self.expected.set(part.index, ExpectedPart { T_april_part, covariance, at: newest });
            }
            self.solved.push(SolvedPart { part: part.index, measurement: measurement(&pose, exposed_at) });
        }
        &self.solved
    }

    /// Where the tags of all views are at `newest`, as far as their own motion tells.
    fn carry(&mut self, newest: MonotonicTime) {
        for (view, carried) in self.views.iter().zip(&mut self.carried) {
            carried.clear();
            let Some(view) = view else { continue };
            let age = newest.since(view.exposed_at);
            if age > self.max_view_age {
                continue;
            }
            carried.extend_from_slice(&view.tags);
            for (tag, velocity) in carried.iter_mut().zip(&view.velocities_px_s) {
                if velocity[0].hypot(velocity[1]) <= self.rest_speed_px_s {
                    continue;
                }
                for pixel in tag.corners_px.iter_mut().chain([&mut tag.centre_px]) {
                    for axis in 0..2 {
                        pixel[axis] += velocity[axis] * age.as_secs_f64();
                    }
                }
            }
        }
    }
}

/// Each view is used once for every camera that sees the part: the covariance of what is new counts that. What stays is the
/// same however often a view is used.
fn measurement(pose: &PartPose, exposed_at: MonotonicTime) -> PartMeasurement {
    let uses = pose.cameras as f64;
    let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    PartMeasurement {
        T_april_part: pose.T_april_part,
        covariance: pose.covariance * uses,
        systematic: pose.systematic,
        other: pose.other.map(|other| (other.T_april_part, other.covariance * uses)),
        other_systematic: pose.other.and_then(|other| other.systematic),
        ambiguous: pose.ambiguous,
        tags: count(pose.tags),
        cameras: count(pose.cameras),
        exposed_at,
    }
}
