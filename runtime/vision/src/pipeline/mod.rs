//! From the frames of several cameras to poses of parts on a board.
//!
//! ```text
//! camera 0 ──► Eye (tracker, slices) ── View ──┐
//! camera 1 ──► Eye ──────────────────── View ──┼──► PoseSolver ── PartMeasurement ──► PartBoard
//! camera 2 ──► Eye ──────────────────── View ──┘    every frame, with the newest views of all cameras
//!               ▲                                       │                                 │
//!               └──────────── ExpectedParts (slots) ────┴─────────────────────────────────┘
//! ```
//!
//! [`VisionPipeline`] is all of it on the caller's thread: a function of frames and times. [`VisionThreads`] runs each eye on
//! a thread of its own and the solver on another; the board stays with its owner, who takes in what was solved whenever it
//! likes.
//!
//! A *view* is what one camera saw in one frame. A frame is solved at once, together with the newest views of the other
//! cameras: waiting for them would cost up to a period. Each view is thus used once for every camera that sees the part, and
//! the covariance is multiplied by their number, so that the measurements of a period together weigh what the views do.
//! Views of other instants are first carried to that of the newest by each tag's own motion in the picture.
//!
//! Where the covariances of the cameras' places are given, a measurement tells what of its error stays from frame to frame,
//! and the board's covariances contain it.

mod expect;
mod eye;
mod realtime;
mod solve;
#[cfg(test)]
mod tests;
mod threads;

pub use expect::{ExpectedPart, ExpectedParts};
pub use eye::{Eye, View};
pub use realtime::{Realtime, RealtimeRefused};
pub use solve::{MAX_PARTS, PoseSolver, SolvedPart};
pub use threads::{EyeCounts, PipelineCamera, SolvedFrame, VisionThreads};

use crate::track::{SearchPriority, SliceSettings, TrackerSettings};
use crate::{GreyView, PartSettings, PlacedCamera, Pose, Rig, VisionError};
use expect::Lookout;
use nalgebra::Matrix6;
use std::time::Duration;
use tenon_core::fusion::{Outcome, PartBoard, PartMeasurement};
use tenon_core::time::{MonotonicTime, Stamped};

/// How frames become poses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipelineSettings {
    pub tracker: TrackerSettings,
    pub slices: SliceSettings,
    /// Of the threads that search slices ([`VisionThreads`]).
    pub priority: SearchPriority,
    pub parts: PartSettings,
    /// Views of other cameras are used up to this age, counted from the newest exposure.
    pub max_view_age: Duration,
    /// Tags that move faster than this in the picture are carried to the newest exposure, px/s; below it, what looks like
    /// motion is noise of the corners.
    pub rest_speed_px_s: f64,
    /// Follow the tags of all ids in the pictures, not only those of the parts: those of the base board are large, and half of
    /// the work.
    pub follow_all_tags: bool,
    /// Look for tags that a camera does not see where the poses of their parts say that they are.
    pub look_for_expected: bool,
    /// SCHED_FIFO priority of the threads that track and solve ([`VisionThreads`]), to be chosen below the control thread's;
    /// 0: do not ask. Slices keep `priority`. Where it is refused [`VisionThreads::realtime`] says so.
    pub realtime_priority: i32,
}

impl PipelineSettings {
    /// For eyes that search their slices on threads of their own, and cameras of 30 Hz: a view is used until one and a half
    /// periods after it.
    pub fn threaded() -> Self {
        Self { slices: SliceSettings::background(), ..Self::default() }
    }
}

impl Default for PipelineSettings {
    /// The detector of perception.md section 4 with its recommended least decision margin; slices for the caller's thread.
    fn default() -> Self {
        let detector = crate::DetectorSettings { min_decision_margin: 30.0, ..Default::default() };
        Self {
            tracker: TrackerSettings { detector, ..Default::default() },
            slices: SliceSettings::default(),
            priority: SearchPriority::default(),
            parts: PartSettings::default(),
            max_view_age: Duration::from_millis(50),
            rest_speed_px_s: 20.0,
            follow_all_tags: false,
            look_for_expected: true,
            realtime_priority: 0,
        }
    }
}

/// What a frame meant to one part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartUpdate {
    /// Index in the order of the observation.
    pub part: usize,
    pub measurement: PartMeasurement,
    pub outcome: Outcome,
}

/// Several cameras' tracking, the solver and the board on one thread. After its buffers have grown it allocates nothing.
#[derive(Debug)]
pub struct VisionPipeline {
    eyes: Vec<Eye>,
    solver: PoseSolver,
    board: PartBoard,
    /// The newest of each camera.
    views: Vec<View>,
    /// Camera of the newest.
    newest: usize,
    tool: Option<Stamped<Pose>>,
    look_for_expected: bool,
    updates: Vec<PartUpdate>,
}

impl VisionPipeline {
    /// Follows those parts of `board` that are not frozen and carry tags in `rig`. `cameras` with the size of their frames,
    /// px; their order numbers them.
    ///
    /// # Errors
    /// As [`crate::track::Tracker::new`] and [`crate::track::SliceSearch::new`].
    pub fn new(
        rig: &Rig,
        board: PartBoard,
        cameras: &[(PlacedCamera, (usize, usize))],
        settings: &PipelineSettings,
    ) -> Result<Self, VisionError> {
        let eyes = cameras.iter().map(|(placed, size)| {
            let lookout = Lookout::new(rig, &board, *placed, *size);
            Ok(Eye::new(&settings.tracker, &settings.slices, *size)?.for_parts(lookout, settings))
        });
        let eyes = eyes.collect::<Result<Vec<_>, _>>()?;
        let placed = cameras.iter().map(|(placed, _)| *placed).collect();
        let solver = PoseSolver::new(rig, &board, placed, settings);
        let views = cameras.iter().map(|_| View::with_room_for(settings.tracker.max_tracks)).collect();
        let updates = Vec::with_capacity(MAX_PARTS);
        let look_for_expected = settings.look_for_expected;
        Ok(Self { eyes, solver, board, views, newest: 0, tool: None, look_for_expected, updates })
    }

    /// With the covariances of the cameras' places; see [`crate::PartSolver::with_place_covariances`].
    pub fn with_place_covariances(mut self, covariances: &[Option<Matrix6<f64>>]) -> Result<Self, VisionError> {
        self.solver = self.solver.with_place_covariances(covariances)?;
        Ok(self)
    }

    /// Pose of the tool point in the robot's base: tags of a part in the gripper are looked for where it carries them.
    pub fn set_tool_pose(&mut self, T_robot_tcp: Option<Stamped<Pose>>) {
        self.tool = T_robot_tcp;
    }

    /// Tracks the tags of a frame of `camera`, solves the parts it shows with the newest views of the others, and brings the
    /// board up to date.
    ///
    /// `exposed_at`: middle of the exposure, which the measurements are stamped with. `now`: the time at which this happens.
    ///
    /// # Panics
    /// When there is no camera of this index.
    pub fn frame(
        &mut self,
        camera: usize,
        frame: GreyView<'_>,
        exposed_at: MonotonicTime,
        now: MonotonicTime,
    ) -> Result<&[PartUpdate], VisionError> {
        self.updates.clear();
        let view = &mut self.views[camera];
        if self.look_for_expected {
            let fused = ExpectedParts::of_board(&self.board, exposed_at, self.tool.as_ref());
            self.eyes[camera].expect(view, [&fused, self.solver.expected()], exposed_at);
        }
        self.newest = camera;
        self.eyes[camera].see(frame, exposed_at, view)?;
        for solved in self.solver.take(camera, view) {
            let SolvedPart { part, measurement } = *solved;
            let outcome = self.board.update(part, &measurement, now);
            self.updates.push(PartUpdate { part, measurement, outcome });
        }
        Ok(&self.updates)
    }

    /// Searches the next slice of a frame of `camera` for tags that are not followed yet, as long as there is time for it.
    pub fn search_slice(
        &mut self,
        camera: usize,
        frame: GreyView<'_>,
        exposed_at: MonotonicTime,
    ) -> Result<(), VisionError> {
        self.eyes[camera].search_slice(frame, exposed_at)
    }

    /// Searches a whole frame of `camera`, as at the start of a run: the next frame is tracked from what is there.
    pub fn search_whole(
        &mut self,
        camera: usize,
        frame: GreyView<'_>,
        exposed_at: MonotonicTime,
    ) -> Result<(), VisionError> {
        self.eyes[camera].search_whole(frame, exposed_at)
    }

    pub fn board(&self) -> &PartBoard {
        &self.board
    }

    /// For gripper events and for writing the observation.
    pub fn board_mut(&mut self) -> &mut PartBoard {
        &mut self.board
    }

    pub fn eye(&self, camera: usize) -> &Eye {
        &self.eyes[camera]
    }

    /// The view that the last frame gave.
    pub fn last_view(&self) -> &View {
        &self.views[self.newest]
    }
}
