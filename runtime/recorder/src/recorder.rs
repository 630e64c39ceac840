//! The recorder: queues that a control thread may push into, and the thread that writes what comes out of them.
//!
//! Pushing takes no lock, allocates nothing and calls nothing of the operating system; a full queue drops the record and counts it.
//! The writing thread hands a chunk to the operating system four times a second, so a process that is killed loses what is younger
//! than that; a thread of its own asks the disk to keep it, because a busy disk makes that wait.
//!
//! The newest records stay in memory too. When a fault comes, what led to it goes into a file of its own at once, and once more with
//! what followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tenon_core::arm::Arm;

use crate::error::RecorderError;
use crate::record::{ChunkRecord, OrderRecord, PartsRecord, TickRecord, Words};
use crate::topics::Level;
use crate::writing::Writing;

/// Ticks that the writing thread may lag behind: 28 s at 143 Hz.
const TICK_QUEUE: usize = 4096;
const CHUNK_QUEUE: usize = 256;
const PARTS_QUEUE: usize = 4096;
const ORDER_QUEUE: usize = 64;

/// What happened in a tick: the controller's own types, turned into words by the writing thread.
pub trait Happening: Copy + Send + 'static {
    fn words(&self) -> Words;

    /// What a person should read about the tick.
    fn said(&self) -> Option<(Level, String)>;

    /// The fault that begins in this tick, in letters that a file's name may have.
    fn fault(&self) -> Option<String>;
}

/// When what is written, and how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A killed process loses at most this, and the time to write it.
    pub flush: Duration,
    /// What is kept apart before a fault, and after it.
    pub before_fault: Duration,
    pub after_fault: Duration,
    /// A larger file is ended and the next one begun. Foxglove takes one without an end into memory, and at most 1 GB.
    pub segment_bytes: u64,
    /// A larger record is not written any further.
    pub run_bytes: u64,
    /// A disk with less room is not written to any further.
    pub free_bytes: u64,
    /// Files of faults that one run may have.
    pub fault_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flush: Duration::from_millis(250),
            before_fault: Duration::from_secs(30),
            after_fault: Duration::from_secs(2),
            segment_bytes: 512 << 20,
            run_bytes: 16 << 30,
            free_bytes: 1 << 30,
            fault_files: 20,
        }
    }
}

/// What is recorded, and where.
pub struct Settings {
    /// Folder of the run; made if it is missing, and refused if it has a record.
    pub folder: PathBuf,
    /// Whatever explains the run.
    pub metadata: BTreeMap<String, String>,
    /// For the tool's pose.
    pub arm: Arm,
    /// Wall time less monotonic time.
    pub wall_offset_ns: i64,
    pub limits: Limits,
    /// Told, in the writing thread, when something is wrong with the record; the run goes on.
    pub trouble: Box<dyn Fn(&str) + Send>,
}

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recorded {
    pub ticks: u64,
    /// Records that found a queue full.
    pub dropped: u64,
    pub bytes: u64,
    pub fault_files: Vec<PathBuf>,
    /// Why the record ends before the run.
    pub trouble: Option<String>,
}

pub(crate) struct Queues<H> {
    pub ticks: ArrayQueue<(TickRecord, H)>,
    pub chunks: ArrayQueue<ChunkRecord>,
    pub orders: ArrayQueue<OrderRecord>,
    pub parts: ArrayQueue<PartsRecord>,
    pub dropped: AtomicU64,
    pub stop: AtomicBool,
}

/// The end that threads record through; clones share the queues.
pub struct Tap<H>(Arc<Queues<H>>);

impl<H> Clone for Tap<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> Tap<H> {
    /// Records a tick. What it refers to comes first.
    pub fn tick(&self, record: &TickRecord, happening: H) {
        self.offer(&self.0.ticks, (*record, happening));
    }

    /// Records a chunk; before the controller can see it.
    pub fn chunk(&self, record: &ChunkRecord) {
        self.offer(&self.0.chunks, *record);
    }

    pub fn order(&self, record: &OrderRecord) {
        self.offer(&self.0.orders, *record);
    }

    pub fn parts(&self, record: &PartsRecord) {
        self.offer(&self.0.parts, *record);
    }

    /// Each queue has one thread that pushes. Its last place stays free: it may still be the one that the writing thread is taking
    /// from, and while that is preempted in the middle of it, a push there would spin until it goes on, for ever on its own processor.
    fn offer<T>(&self, queue: &ArrayQueue<T>, record: T) {
        if queue.len() + 1 >= queue.capacity() || queue.push(record).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A recording under way. Dropping it ends it too.
pub struct Recorder<H> {
    queues: Arc<Queues<H>>,
    thread: Option<JoinHandle<Recorded>>,
}

impl<H: Happening> Recorder<H> {
    /// Begins a record. Its first bytes are on the disk when this returns.
    ///
    /// # Errors
    /// [`RecorderError::Taken`] where there is a record already, [`RecorderError::Io`].
    pub fn start(settings: Settings) -> Result<(Self, Tap<H>), RecorderError> {
        let folder = settings.folder.clone();
        let io = |source| RecorderError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(io)?;
        for entry in fs::read_dir(&folder).map_err(io)? {
            if entry.map_err(io)?.path().extension().is_some_and(|e| e == "mcap") {
                return Err(RecorderError::Taken { path: folder });
            }
        }
        let queues = Arc::new(Queues {
            ticks: ArrayQueue::new(TICK_QUEUE),
            chunks: ArrayQueue::new(CHUNK_QUEUE),
            orders: ArrayQueue::new(ORDER_QUEUE),
            parts: ArrayQueue::new(PARTS_QUEUE),
            dropped: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut writer = Writing::begin(settings, Arc::clone(&queues))?;
        let thread =
            std::thread::Builder::new().name("tenon-recorder".to_owned()).spawn(move || writer.run()).map_err(io)?;
        Ok((Self { queues: Arc::clone(&queues), thread: Some(thread) }, Tap(queues)))
    }
}

impl<H> Recorder<H> {
    /// Writes what is waiting and ends the record.
    pub fn finish(mut self) -> Recorded {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Recorded> {
        self.queues.stop.store(true, Ordering::Release);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        // A panic of the thread has been reported by the panic hook; there is nothing to add.
        thread.join().ok()
    }
}

impl<H> Drop for Recorder<H> {
    fn drop(&mut self) {
        self.end();
    }
}
