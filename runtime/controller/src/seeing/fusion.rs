//! The thread that owns the board: takes in what was solved, follows the tool point, and shows the parts to the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam::queue::ArrayQueue;
use rtrb::{Consumer, Producer, RingBuffer};
use tenon_core::fusion::{GripperEvent, NotReady, PartBoard, PartsBlock, PartsView};
use tenon_core::geometry::Pose;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_vision::pipeline::{EyeCounts, VisionThreads};
use tenon_vision::source::Clock;
use triple_buffer::{Input, Output, triple_buffer};

/// How often the board is looked at where no frame comes.
const LOOK: Duration = Duration::from_millis(4);
/// Most cameras of a [`SeeingStatus`].
pub const MAX_CAMERAS: usize = 8;

/// The tool point's pose for parts in the gripper.
pub type ToolPose = Option<Stamped<Pose>>;

/// How seeing does, for people.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeeingStatus {
    pub parts: Option<Result<PartsBlock, NotReady>>,
    pub cameras: [EyeCounts; MAX_CAMERAS],
    /// All recordings have ended, or all cameras have.
    pub ended: bool,
}

/// The owner's end; dropping it ends all threads of seeing.
pub struct Seeing {
    status: Output<SeeingStatus>,
    errors: Arc<ArrayQueue<String>>,
    names: Vec<String>,
    stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    thread: Option<JoinHandle<()>>,
}

/// The control thread's end.
pub struct SeeingEnds {
    pub parts: Output<Option<PartsView>>,
    pub tool: Input<ToolPose>,
    /// What the gripper did, for parts between the fingers.
    pub gripper: Producer<(MonotonicTime, GripperEvent)>,
}

/// Starts the thread.
pub fn start(
    board: PartBoard,
    threads: VisionThreads,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
) -> Result<(Seeing, SeeingEnds)> {
    let (view_in, parts) = triple_buffer(&None);
    let (tool, tool_out) = triple_buffer(&None);
    let (status_in, status) = triple_buffer(&SeeingStatus::default());
    let (gripper, gripper_out) = RingBuffer::new(16);
    let errors = Arc::new(ArrayQueue::new(16));
    let stop = Arc::new(AtomicBool::new(false));
    let mut worker = Worker {
        board,
        threads,
        cameras: names.len().min(MAX_CAMERAS),
        clock: clock.clone(),
        view: view_in,
        tool: tool_out,
        gripper: gripper_out,
        status: status_in,
        errors: errors.clone(),
        stop: stop.clone(),
    };
    let thread = std::thread::Builder::new()
        .name("tenon-fusion".into())
        .spawn(move || worker.run())
        .context("starting the thread that fuses poses")?;
    let seeing = Seeing { status, errors, names, stop, clock, thread: Some(thread) };
    Ok((seeing, SeeingEnds { parts, tool, gripper }))
}

struct Worker {
    board: PartBoard,
    threads: VisionThreads,
    cameras: usize,
    clock: Arc<dyn Clock>,
    view: Input<Option<PartsView>>,
    tool: Output<ToolPose>,
    gripper: Consumer<(MonotonicTime, GripperEvent)>,
    status: Input<SeeingStatus>,
    errors: Arc<ArrayQueue<String>>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&mut self) {
        let mut status = SeeingStatus::default();
        while !self.stop.load(Ordering::Acquire) {
            let frame = self.threads.wait(LOOK);
            let now = self.clock.now();
            let tool = *self.tool.read();
            while let Ok((at, event)) = self.gripper.pop() {
                self.board.on_gripper_event(event, at, tool.as_ref().map(|tool| &tool.value));
            }
            if let Some(frame) = frame {
                frame.update(&mut self.board, now);
                self.threads.update(&mut self.board, now);
                // A camera that has lost a part looks where the others and the gripper have it.
                self.threads.expect(&self.board, now, tool.as_ref());
            }
            let view = self.board.view(now, tool.as_ref());
            status.parts = Some(view.block);
            self.view.write(Some(view));
            for camera in 0..self.cameras {
                status.cameras[camera] = self.threads.counts(camera);
            }
            status.ended = self.threads.have_ended();
            self.status.write(status);
            while let Some(error) = self.threads.next_error() {
                // The oldest explain the most; a full queue has enough.
                let _ = self.errors.push(error.to_string());
            }
        }
    }
}

impl Seeing {
    pub fn status(&mut self) -> SeeingStatus {
        *self.status.read()
    }

    /// One line for each fault of a camera that stands now.
    pub fn faults(&mut self) -> Vec<String> {
        let (now, status) = (self.clock.now(), self.status());
        let of = |(name, counts): (&String, &EyeCounts)| {
            let mut lines = counts.status.faults.lines(name, now);
            if counts.status.ended {
                lines.push(format!("camera {name}: its recording has ended: start this program again to play it anew"));
            }
            lines
        };
        self.names.iter().zip(&status.cameras).flat_map(of).collect()
    }

    /// [`Self::faults`], and each error of the threads since the last call.
    pub fn troubles(&mut self) -> Vec<String> {
        let mut lines = self.faults();
        lines.extend(std::iter::from_fn(|| self.errors.pop()));
        lines
    }

    /// Waits until every part has a pose. `go_on`: called between looks; its error ends the waiting.
    ///
    /// # Errors
    /// The part that has none, since when, why, and what the cameras say.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut go_on: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<PartsBlock> {
        let until = Instant::now() + limit;
        loop {
            let missing = match self.status().parts {
                Some(Ok(block)) => return Ok(block),
                Some(Err(missing)) => Some(missing),
                None => None,
            };
            go_on(self)?;
            if Instant::now() > until {
                let part = missing.map_or_else(
                    || "no part was looked at".to_owned(),
                    |part| format!("{part}, for {:.1} s", self.clock.now().since(part.since).as_secs_f64()),
                );
                let troubles = self.troubles();
                let cameras = if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) };
                bail!("{part}{cameras}: put it where a camera sees its tags");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Seeing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}
