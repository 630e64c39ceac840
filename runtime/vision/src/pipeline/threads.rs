//! The pipeline with a thread for each eye and one for the solver. What is solved waits in a queue for the board's owner.

use super::PipelineSettings;
use super::expect::{ExpectedParts, Lookout};
use super::eye::{Eye, View};
use super::realtime::{self, Realtime, RealtimeRefused};
use super::solve::{MAX_PARTS, PoseSolver, SolvedPart};
use crate::source::{CameraReader, CameraStatus, Clock, Doorbell, FrameStamps};
use crate::{PlacedCamera, Pose, Rig, VisionError};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nalgebra::Matrix6;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tenon_core::fusion::PartBoard;
use tenon_core::time::{MonotonicTime, Stamped};
use triple_buffer::{Input, Output, triple_buffer};

/// A camera of the pipeline.
pub struct PipelineCamera {
    pub placed: PlacedCamera,
    /// Width and height of its frames, px.
    pub size: (usize, usize),
    pub reader: CameraReader,
}

/// What one frame gave. Frames without a tag of any part give one too, with no parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolvedFrame {
    pub camera: usize,
    /// Of the frame, as the camera counts: a gap is a frame that was dropped somewhere.
    pub sequence: u64,
    pub stamps: FrameStamps,
    /// Tags seen in it.
    pub tags: usize,
    /// Processor time of tracking and of solving.
    pub tracking: Duration,
    pub solving: Duration,
    parts: [Option<SolvedPart>; MAX_PARTS],
}

impl SolvedFrame {
    pub fn parts(&self) -> impl Iterator<Item = &SolvedPart> {
        self.parts.iter().flatten()
    }

    /// Takes the measurements in.
    pub fn update(&self, board: &mut PartBoard, now: MonotonicTime) {
        for SolvedPart { part, measurement } in self.parts() {
            board.update(*part, measurement, now);
        }
    }
}

/// How an eye does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EyeCounts {
    /// Frames tracked.
    pub frames: u64,
    /// Frames left out because a fault of the camera made their poses wrong or old.
    pub distrusted: u64,
    /// Frames that could not be tracked or sliced; see [`VisionThreads::next_error`].
    pub failed: u64,
    /// Slices searched in the background.
    pub slices: u64,
    /// Places at which tags were looked for that the frame before did not show.
    pub looked_for: u64,
    pub status: CameraStatus,
}

/// A view on its way to the solver.
#[derive(Debug, Clone, Default)]
struct Seen {
    view: View,
    sequence: u64,
    stamps: FrameStamps,
    tracking: Duration,
}

/// The running threads. Dropping it ends them.
pub struct VisionThreads {
    solved: Receiver<SolvedFrame>,
    errors: Receiver<VisionError>,
    counts: Vec<Output<EyeCounts>>,
    /// What the board expects, for each eye.
    expected: Vec<Input<ExpectedParts>>,
    realtime: Realtime,
    /// Closing them ends the threads.
    stop: Vec<Sender<()>>,
    eyes: Vec<JoinHandle<()>>,
    solver: Option<JoinHandle<()>>,
}

/// Solved frames that nobody has taken yet; what comes on top is lost. Two thirds of a second of three cameras.
const SOLVED_QUEUE: usize = 64;
/// Errors that nobody has read yet; what comes on top is lost.
const ERROR_QUEUE: usize = 16;
/// The longest that a thread waits before it looks whether to end.
const PATIENCE: Duration = Duration::from_millis(50);

impl VisionThreads {
    /// Starts the threads. `board` says which parts to follow; it stays with its owner, for whom the measurements wait.
    ///
    /// # Errors
    /// As [`super::VisionPipeline::new`]; [`VisionError::DetectorCreate`] when the system gives no thread.
    pub fn start(
        rig: &Rig,
        board: &PartBoard,
        cameras: Vec<PipelineCamera>,
        clock: &Arc<dyn Clock>,
        settings: &PipelineSettings,
    ) -> Result<Self, VisionError> {
        Self::start_with_covariances(rig, board, cameras, &[], clock, settings)
    }

    /// [`Self::start`] with the covariances of the cameras' places, in their order; see
    /// [`crate::PartSolver::with_place_covariances`].
    ///
    /// # Errors
    /// As [`Self::start`] and for covariances that are none.
    pub fn start_with_covariances(
        rig: &Rig,
        board: &PartBoard,
        cameras: Vec<PipelineCamera>,
        place_covariances: &[Option<Matrix6<f64>>],
        clock: &Arc<dyn Clock>,
        settings: &PipelineSettings,
    ) -> Result<Self, VisionError> {
        let placed = cameras.iter().map(|camera| camera.placed).collect();
        let solver = PoseSolver::new(rig, board, placed, settings).with_place_covariances(place_covariances)?;
        let priority = settings.realtime_priority;
        let (got_in, got) = bounded::<Result<(), RealtimeRefused>>(cameras.len() + 1);
        let bell = Doorbell::default();
        let (solved_in, solved) = bounded(SOLVED_QUEUE);
        let (error_in, errors) = bounded(ERROR_QUEUE);
        let mut threads = Self {
            solved,
            errors,
            counts: Vec::new(),
            expected: Vec::new(),
            realtime: Realtime::NotAsked,
            stop: Vec::new(),
            eyes: Vec::new(),
            solver: None,
        };
        let (mut views, mut solved_expected) = (Vec::with_capacity(cameras.len()), Vec::with_capacity(cameras.len()));
        for camera in cameras {
            let lookout = Lookout::new(rig, board, camera.placed, camera.size);
            let eye = Eye::with_search_thread(&settings.tracker, &settings.slices, camera.size, settings.priority)?;
            let (view_in, view) = triple_buffer(&Seen::default());
            let (count_in, counts) = triple_buffer(&EyeCounts::default());
            let (from_board, of_board) = triple_buffer(&ExpectedParts::default());
            let (from_solver, of_solver) = triple_buffer(&ExpectedParts::default());
            let mut worker = EyeWorker {
                eye: eye.for_parts(lookout, settings),
                last: View::with_room_for(settings.tracker.max_tracks),
                of_board,
                of_solver,
                reader: camera.reader,
                clock: Arc::clone(clock),
                views: view_in,
                counts: count_in,
                count: EyeCounts::default(),
                bell: bell.clone(),
                errors: error_in.clone(),
                stopped: threads.stopper(),
            };
            let got = got_in.clone();
            let work = move || {
                // Its room is as large as there are threads, and the owner reads it before it goes on.
                let _ = got.send(realtime::request(priority));
                worker.run();
            };
            threads.eyes.push(thread("tenon-eye", work)?);
            threads.counts.push(counts);
            threads.expected.push(from_board);
            solved_expected.push(from_solver);
            views.push(view);
        }
        let stopped = threads.stopper();
        let mut worker = SolverWorker { solver, views, expected: solved_expected, bell, solved: solved_in, stopped };
        let work = move || {
            let _ = got_in.send(realtime::request(priority));
            worker.run();
        };
        threads.solver = Some(thread("tenon-poses", work)?);
        threads.realtime = Realtime::of(priority, got.iter().take(threads.eyes.len() + 1));
        Ok(threads)
    }

    /// Whether the threads that track and solve have the real-time priority that was asked for.
    pub fn realtime(&self) -> Realtime {
        self.realtime
    }

    /// Tells the eyes where the parts on `board` are at `now`: tags that a camera does not see are looked for there. Parts in
    /// the gripper are where the tool point carries them. To be called whenever the board has changed; never waits.
    ///
    /// `T_robot_tcp`: pose of the tool point in the robot's base.
    pub fn expect(&mut self, board: &PartBoard, now: MonotonicTime, T_robot_tcp: Option<&Stamped<Pose>>) {
        let expected = ExpectedParts::of_board(board, now, T_robot_tcp);
        for slot in &mut self.expected {
            slot.write(expected);
        }
    }

    fn stopper(&mut self) -> Receiver<()> {
        let (stop, stopped) = bounded(0);
        self.stop.push(stop);
        stopped
    }

    /// The oldest solved frame that has not been taken, if there is one. Never waits.
    pub fn next_frame(&mut self) -> Option<SolvedFrame> {
        self.solved.try_recv().ok()
    }

    /// The same, waiting for one at most `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<SolvedFrame> {
        self.solved.recv_timeout(timeout).ok()
    }

    /// Takes everything that waits into `board`, and says how many frames that were. Never waits.
    pub fn update(&mut self, board: &mut PartBoard, now: MonotonicTime) -> usize {
        let mut frames = 0;
        while let Some(frame) = self.next_frame() {
            frame.update(board, now);
            frames += 1;
        }
        frames
    }

    /// How the eye of a camera did when it last saw a frame.
    ///
    /// # Panics
    /// When there is no camera of this index.
    pub fn counts(&mut self, camera: usize) -> EyeCounts {
        *self.counts[camera].read()
    }

    /// The oldest error not taken yet.
    pub fn next_error(&mut self) -> Option<VisionError> {
        self.errors.try_recv().ok()
    }

    /// All cameras have played to their end, or all eyes have ended otherwise.
    pub fn have_ended(&self) -> bool {
        self.eyes.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for VisionThreads {
    fn drop(&mut self) {
        self.stop.clear();
        for thread in self.eyes.drain(..).chain(self.solver.take()) {
            // A panic of a thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, VisionError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map_err(|_| VisionError::DetectorCreate)
}

fn is_stopped(stopped: &Receiver<()>) -> bool {
    stopped.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Disconnected)
}

/// Processor time that the calling thread has used.
fn processor_time() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

struct EyeWorker {
    eye: Eye,
    /// What the last frame showed.
    last: View,
    of_board: Output<ExpectedParts>,
    of_solver: Output<ExpectedParts>,
    reader: CameraReader,
    clock: Arc<dyn Clock>,
    views: Input<Seen>,
    counts: Input<EyeCounts>,
    count: EyeCounts,
    bell: Doorbell,
    errors: Sender<VisionError>,
    stopped: Receiver<()>,
}

impl EyeWorker {
    fn run(&mut self) {
        while !is_stopped(&self.stopped) {
            let fresh = self.reader.wait(PATIENCE).is_some();
            self.count.status = self.reader.status(self.clock.now());
            if fresh {
                self.frame();
            }
            self.counts.write(self.count);
            if !fresh && self.count.status.ended {
                return;
            }
        }
    }

    /// One frame: what it shows goes to the solver first, then its slice to the search.
    fn frame(&mut self) {
        if self.count.status.faults.spoiling().is_some() {
            self.count.distrusted += 1;
            return;
        }
        let Some(frame) = self.reader.current() else { return };
        let (grey, exposed_at) = (frame.grey.view(), frame.stamps.exposed_at);
        let before = processor_time();
        self.eye.expect(&self.last, [self.of_board.read(), self.of_solver.read()], exposed_at);
        let seen = self.views.input_buffer_mut();
        let mut result = self.eye.see(grey, exposed_at, &mut seen.view);
        if result.is_ok() {
            (seen.sequence, seen.stamps) = (frame.sequence, frame.stamps);
            seen.tracking = processor_time().saturating_sub(before);
            self.last.copy_from(&seen.view);
            self.views.publish();
            self.bell.ring();
            self.count.frames += 1;
            self.count.looked_for += self.eye.tracker().last_frame().looked_for as u64;
            result = self.eye.search_slice(grey, exposed_at);
            self.count.slices = self.eye.searched_slices();
        }
        if let Err(error) = result {
            self.count.failed += 1;
            // A full queue has enough to explain the state.
            let _ = self.errors.try_send(error);
        }
    }
}

struct SolverWorker {
    solver: PoseSolver,
    views: Vec<Output<Seen>>,
    /// For each eye.
    expected: Vec<Input<ExpectedParts>>,
    bell: Doorbell,
    solved: Sender<SolvedFrame>,
    stopped: Receiver<()>,
}

impl SolverWorker {
    fn run(&mut self) {
        while !is_stopped(&self.stopped) {
            self.bell.wait(PATIENCE);
            for camera in 0..self.views.len() {
                if self.views[camera].update() {
                    let solved = self.solve(camera);
                    for slot in &mut self.expected {
                        slot.write(*self.solver.expected());
                    }
                    // A full queue: its owner does not look at the poses, and their ages will say so.
                    let _ = self.solved.try_send(solved);
                }
            }
        }
    }

    fn solve(&mut self, camera: usize) -> SolvedFrame {
        let before = processor_time();
        let seen = self.views[camera].output_buffer();
        let mut parts = [None; MAX_PARTS];
        for (slot, part) in parts.iter_mut().zip(self.solver.take(camera, &seen.view)) {
            *slot = Some(*part);
        }
        SolvedFrame {
            camera,
            sequence: seen.sequence,
            stamps: seen.stamps,
            tags: seen.view.tags.len(),
            tracking: seen.tracking,
            solving: processor_time().saturating_sub(before),
            parts,
        }
    }
}
