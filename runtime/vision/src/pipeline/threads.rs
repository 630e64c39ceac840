//! The pipeline with a thread for each eye and one for the solver. What is solved waits in a queue for the board's owner.

use super::PipelineSettings;
use super::eye::{Eye, View};
use super::solve::{MAX_PARTS, PoseSolver, SolvedPart};
use crate::source::{CameraReader, CameraStatus, Clock, Doorbell, FrameStamps};
use crate::{PlacedCamera, Rig, VisionError};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tenon_core::fusion::PartBoard;
use tenon_core::time::MonotonicTime;
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
        let placed = cameras.iter().map(|camera| camera.placed).collect();
        let solver = PoseSolver::new(rig, board, placed, settings);
        let bell = Doorbell::default();
        let (solved_in, solved) = bounded(SOLVED_QUEUE);
        let (error_in, errors) = bounded(ERROR_QUEUE);
        let mut threads = Self { solved, errors, counts: Vec::new(), stop: Vec::new(), eyes: Vec::new(), solver: None };
        let mut views = Vec::with_capacity(cameras.len());
        for camera in cameras {
            let eye = Eye::with_search_thread(&settings.tracker, &settings.slices, camera.size, settings.priority)?;
            let (view_in, view) = triple_buffer(&Seen::default());
            let (count_in, counts) = triple_buffer(&EyeCounts::default());
            let mut worker = EyeWorker {
                eye,
                reader: camera.reader,
                clock: Arc::clone(clock),
                views: view_in,
                counts: count_in,
                count: EyeCounts::default(),
                bell: bell.clone(),
                errors: error_in.clone(),
                stopped: threads.stopper(),
            };
            threads.eyes.push(thread("tenon-eye", move || worker.run())?);
            threads.counts.push(counts);
            views.push(view);
        }
        let stopped = threads.stopper();
        let mut worker = SolverWorker { solver, views, bell, solved: solved_in, stopped };
        threads.solver = Some(thread("tenon-poses", move || worker.run())?);
        Ok(threads)
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
        let seen = self.views.input_buffer_mut();
        let mut result = self.eye.see(grey, exposed_at, &mut seen.view);
        if result.is_ok() {
            (seen.sequence, seen.stamps) = (frame.sequence, frame.stamps);
            seen.tracking = processor_time().saturating_sub(before);
            self.views.publish();
            self.bell.ring();
            self.count.frames += 1;
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
