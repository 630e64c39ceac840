//! One thread a camera: it takes every frame, judges it, and keeps the newest for a reader who never waits for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use tenon_core::time::MonotonicTime;
use triple_buffer::{Input, Output, triple_buffer};

use super::FrameSource;
use super::clock::Clock;
use super::error::SourceError;
use super::fault::{CameraFault, CameraFaults, FaultKind};
use super::frame::{Frame, FrameStamps, Serial};
use super::watch::{Expected, FrameFacts, Watch, WatchConfig, WatchCounters};

/// Wakes a reader. Several cameras may share one, so that their reader sleeps until any has a frame.
#[derive(Debug, Clone)]
pub struct Doorbell {
    ring: Sender<()>,
    rung: Receiver<()>,
}

impl Default for Doorbell {
    fn default() -> Self {
        let (ring, rung) = bounded(1);
        Self { ring, rung }
    }
}

impl Doorbell {
    /// Never waits: a bell that has been rung and not yet heard needs no second ring.
    pub fn ring(&self) {
        let _ = self.ring.try_send(());
    }

    /// Waits for a ring since the last call; false after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.rung.recv_timeout(timeout).is_ok()
    }
}

/// How long to wait before a lost source is tried again: doubled with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraThreadSettings {
    /// How long the thread waits for one frame before it looks after itself; the longest that stopping it takes.
    pub frame_timeout: Duration,
    pub backoff: Backoff,
    /// How often the locked controls are read.
    pub control_period: Duration,
    pub watch: WatchConfig,
    pub expected: Expected,
}

impl CameraThreadSettings {
    /// For a camera of this rate: limits of [`WatchConfig::of_rate`], tried again after 0.2 s to 5 s, controls once a second.
    pub fn of_rate(nominal_rate_hz: f64, expected: Expected) -> Self {
        Self {
            frame_timeout: Duration::from_millis(100),
            backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) },
            control_period: Duration::from_secs(1),
            watch: WatchConfig::of_rate(nominal_rate_hz),
            expected,
        }
    }
}

/// Opens a source, at the start and after it was lost. Closures are openers.
pub trait Opener: Send {
    fn open(&mut self) -> Result<Box<dyn FrameSource>, SourceError>;
}

impl<F: FnMut() -> Result<Box<dyn FrameSource>, SourceError> + Send> Opener for F {
    fn open(&mut self) -> Result<Box<dyn FrameSource>, SourceError> {
        self()
    }
}

/// How a camera is, as far as its thread knew when it last had something to say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CameraStatus {
    pub faults: CameraFaults,
    pub counters: WatchCounters,
    /// Stamps of the newest frame.
    pub newest: Option<FrameStamps>,
    pub serial: Option<Serial>,
    /// Frames that could not be decoded.
    pub damaged: u64,
    /// A file has been played to its end.
    pub ended: bool,
}

/// The reader's end of a camera's thread, which ends when this is dropped.
pub struct CameraReader {
    frames: Output<Frame>,
    statuses: Output<CameraStatus>,
    has_frame: bool,
    max_age: Duration,
    started: MonotonicTime,
    doorbell: Doorbell,
    errors: Receiver<SourceError>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Errors that nobody has read yet; what comes on top is lost.
const ERROR_QUEUE: usize = 16;
/// Damaged frames in a row after which the source is opened anew.
const DAMAGED_IN_A_ROW: u32 = 30;

/// Starts the thread of a camera. It rings `doorbell` for every frame and every change of the faults.
pub fn spawn(
    opener: impl Opener + 'static,
    settings: CameraThreadSettings,
    clock: Arc<dyn Clock>,
    doorbell: &Doorbell,
) -> Result<CameraReader, SourceError> {
    let watch = Watch::new(settings.watch, settings.expected)?;
    let (width, height) = settings.expected.size_px.map_or((1, 1), |[width, height]| (width, height));
    let (frame_in, frames) = triple_buffer(&Frame::of_size(width, height));
    let (status_in, statuses) = triple_buffer(&CameraStatus::default());
    let (error_in, errors) = bounded(ERROR_QUEUE);
    let (stop, stopped) = bounded(0);
    let started = clock.now();
    let mut worker = Worker {
        opener,
        settings,
        clock,
        watch,
        status: CameraStatus::default(),
        frames: frame_in,
        statuses: status_in,
        doorbell: doorbell.clone(),
        errors: error_in,
        stopped,
    };
    let thread = std::thread::Builder::new()
        .name("tenon-camera".into())
        .spawn(move || worker.run())
        .map_err(|error| SourceError::Thread { reason: error.to_string() })?;
    Ok(CameraReader {
        frames,
        statuses,
        has_frame: false,
        max_age: Duration::from_secs_f64(settings.watch.max_frame_age_s),
        started,
        doorbell: doorbell.clone(),
        errors,
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl CameraReader {
    /// The newest frame, if it is newer than the one of the last call. Never waits.
    pub fn newest(&mut self) -> Option<&Frame> {
        self.update().then(|| self.frames.output_buffer())
    }

    /// The frame of the last call again, without looking for a newer one.
    pub fn current(&self) -> Option<&Frame> {
        self.has_frame.then(|| self.frames.output_buffer())
    }

    /// Waits for a newer frame, at most `timeout`. Hears the doorbell, so with a shared one look at the other cameras too.
    pub fn wait(&mut self, timeout: Duration) -> Option<&Frame> {
        let until = Instant::now() + timeout;
        let mut fresh = self.update();
        while !fresh {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.doorbell.wait(left);
            fresh = self.update();
        }
        fresh.then(|| self.frames.output_buffer())
    }

    /// [`Self::newest`], refused while a fault makes its pose wrong or old.
    #[allow(clippy::result_large_err, reason = "a few hundred bytes a frame, and a box would be an allocation")]
    pub fn trusted(&mut self, now: MonotonicTime) -> Result<Option<&Frame>, CameraFault> {
        let fresh = self.update();
        match self.status(now).faults.spoiling() {
            Some(fault) => Err(*fault),
            None => Ok(fresh.then(|| self.frames.output_buffer())),
        }
    }

    /// How the camera is at `now`. Its age is judged here too, so a thread that hangs in a driver cannot hide it.
    pub fn status(&mut self, now: MonotonicTime) -> CameraStatus {
        let mut status = *self.statuses.read();
        if status.ended {
            return status;
        }
        let (reference, begun) =
            status.newest.map_or((self.started, self.started), |stamps| (stamps.exposed_at, stamps.arrived));
        let (age, limit) = (now.since(reference), self.max_age);
        if age > limit {
            status.faults.raise(FaultKind::Stale { age, limit }, begun);
        }
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            // It may have said so and ended between the two looks.
            status.ended = self.statuses.read().ended;
            if !status.ended {
                status.faults.raise(FaultKind::Stopped, begun);
            }
        }
        status
    }

    /// The oldest error not taken yet: why a source could not be opened, was lost, or gave a damaged frame.
    pub fn next_error(&mut self) -> Option<SourceError> {
        self.errors.try_recv().ok()
    }

    fn update(&mut self) -> bool {
        let fresh = self.frames.update();
        self.has_frame |= fresh;
        fresh
    }
}

impl Drop for CameraReader {
    fn drop(&mut self) {
        // Closing the channel ends the thread's loop.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

struct Worker<O> {
    opener: O,
    settings: CameraThreadSettings,
    clock: Arc<dyn Clock>,
    watch: Watch,
    status: CameraStatus,
    frames: Input<Frame>,
    statuses: Input<CameraStatus>,
    doorbell: Doorbell,
    errors: Sender<SourceError>,
    stopped: Receiver<()>,
}

impl<O: Opener> Worker<O> {
    fn run(&mut self) {
        let mut pause = self.settings.backoff.first;
        while !self.is_stopped() {
            match self.opener.open() {
                Ok(mut source) => {
                    let before = self.watch.counters().frames;
                    self.watch.opened(source.description(), source.locked(), self.clock.now());
                    self.status.serial = source.description().serial;
                    self.stream(&mut *source);
                    if self.status.ended {
                        return;
                    }
                    // A source that opens and gives nothing is no better than one that does not open.
                    if self.watch.counters().frames > before {
                        pause = self.settings.backoff.first;
                    }
                }
                Err(error) => {
                    self.tell(error);
                    self.watch.open_failed(self.clock.now());
                    self.publish_status();
                }
            }
            if self.stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            pause = (pause * 2).min(self.settings.backoff.longest);
        }
    }

    /// Takes frames until the source is lost, ends, or the reader is gone.
    fn stream(&mut self, source: &mut dyn FrameSource) {
        let mut controls_read = self.clock.now();
        let mut damaged_in_a_row = 0;
        let watches_controls = source.locked().iter().next().is_some();
        while !self.is_stopped() {
            let result = source.next_frame(self.frames.input_buffer_mut(), self.settings.frame_timeout);
            let now = self.clock.now();
            match result {
                Ok(()) => {
                    damaged_in_a_row = 0;
                    let facts = FrameFacts::of(self.frames.input_buffer());
                    self.watch.frame(&facts, now);
                    if watches_controls && now.since(controls_read) >= self.settings.control_period {
                        controls_read = now;
                        match source.controls() {
                            Ok(found) => self.watch.controls(&found, now),
                            Err(error) => self.tell(error),
                        }
                    }
                    // The status first: who sees a frame sees what is wrong with it.
                    self.fill_status();
                    self.statuses.write(self.status);
                    self.frames.publish();
                    self.doorbell.ring();
                }
                Err(SourceError::TimedOut { .. }) => {
                    self.watch.time(now);
                    self.publish_status();
                }
                Err(SourceError::Ended { .. }) => {
                    self.status.ended = true;
                    self.publish_status();
                    return;
                }
                Err(error) => {
                    let lost = error.needs_reopening();
                    self.tell(error);
                    if !lost {
                        self.status.damaged += 1;
                        damaged_in_a_row += 1;
                    }
                    if lost || damaged_in_a_row >= DAMAGED_IN_A_ROW {
                        self.watch.disconnected(now);
                        self.publish_status();
                        return;
                    }
                    self.watch.time(now);
                    self.publish_status();
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn tell(&self, error: SourceError) {
        // A full queue has enough to explain the state.
        let _ = self.errors.try_send(error);
    }

    fn fill_status(&mut self) {
        self.status.faults = *self.watch.faults();
        self.status.counters = *self.watch.counters();
        self.status.newest = self.watch.newest().or(self.status.newest);
    }

    fn publish_status(&mut self) {
        self.fill_status();
        self.statuses.write(self.status);
        self.doorbell.ring();
    }
}

#[cfg(test)]
mod tests;
