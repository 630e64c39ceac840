//! The writing thread: what comes out of the queues goes into the run's file, and into a file of its own where a fault came.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{fs, io};

use crossbeam::channel::{Sender, bounded};
use tenon_core::calendar::rfc3339;
use tenon_core::time::MonotonicTime;

use crate::error::RecorderError;
use crate::record::{ChunkRecord, OrderRecord, PartsRecord, TickRecord, Words};
use crate::recorder::{Happening, Limits, Queues, Recorded, Settings};
use crate::segment::Segment;
use crate::topics::{Level, Topics};

/// How often the queues are emptied.
const DRAIN_PERIOD: Duration = Duration::from_millis(50);
/// How often it is looked how much room the disk has.
const SPACE_PERIOD: Duration = Duration::from_secs(1);
/// Chunks and looks at the parts that are kept beyond the ticks that use them.
const SIDE_MARGIN: Duration = Duration::from_secs(2);

/// A tick as it is kept for a fault.
struct Kept {
    record: TickRecord,
    words: Words,
    said: Option<(Level, String)>,
}

/// What ticks refer to.
enum Side {
    Chunk(Box<ChunkRecord>),
    Order(Box<OrderRecord>, MonotonicTime),
    Parts(Box<PartsRecord>),
}

impl Side {
    fn time(&self) -> MonotonicTime {
        match self {
            Self::Chunk(chunk) => chunk.started,
            Self::Order(_, at) => *at,
            Self::Parts(parts) => parts.0.at,
        }
    }

    fn write(&self, topics: &mut Topics, segment: &mut Segment) -> Result<(), RecorderError> {
        match self {
            Self::Chunk(chunk) => topics.chunk(segment, chunk),
            Self::Order(order, at) => topics.order(segment, order, *at),
            Self::Parts(parts) => topics.parts(segment, parts),
        }
    }
}

/// A fault whose aftermath is still to come.
struct Fault {
    at: MonotonicTime,
    text: String,
    path: PathBuf,
}

/// The file that is being written.
struct Open {
    segment: Segment,
    topics: Topics,
}

/// What the writing thread owns.
pub(crate) struct Writing<H> {
    settings: Settings,
    queues: Arc<Queues<H>>,
    open: Option<Open>,
    /// Files whose data are to be made safe from a loss of power.
    sync: Option<Sender<fs::File>>,
    segments: usize,
    finished_bytes: u64,
    newest: MonotonicTime,
    ticks: VecDeque<Kept>,
    sides: VecDeque<Side>,
    faults: Vec<Fault>,
    dropped_before: u64,
    flushed: Instant,
    space_seen: Instant,
    recorded: Recorded,
}

impl<H: Happening> Writing<H> {
    /// Begins the first file.
    pub fn begin(settings: Settings, queues: Arc<Queues<H>>) -> Result<Self, RecorderError> {
        let now = Instant::now();
        let mut writing = Self {
            settings,
            queues,
            open: None,
            sync: syncing(),
            segments: 0,
            finished_bytes: 0,
            newest: MonotonicTime::default(),
            ticks: VecDeque::new(),
            sides: VecDeque::new(),
            faults: Vec::new(),
            dropped_before: 0,
            flushed: now,
            space_seen: now,
            recorded: Recorded::default(),
        };
        writing.check_space();
        if let Some(why) = &writing.recorded.trouble {
            let source = io::Error::new(io::ErrorKind::StorageFull, why.clone());
            return Err(RecorderError::Io { path: writing.settings.folder, source });
        }
        writing.open = Some(writing.next_segment()?);
        Ok(writing)
    }

    /// Writes until it is told to stop.
    pub fn run(&mut self) -> Recorded {
        yield_to_control();
        loop {
            // Read before the last look, so that what was pushed before stopping is still written.
            let stopping = self.queues.stop.load(Ordering::Acquire);
            self.drain();
            self.follow_faults(stopping);
            if stopping {
                break;
            }
            if self.flushed.elapsed() >= self.settings.limits.flush {
                self.flush();
            }
            std::thread::park_timeout(DRAIN_PERIOD);
        }
        let end = BTreeMap::from([
            ("ticks".to_owned(), self.recorded.ticks.to_string()),
            ("dropped".to_owned(), self.recorded.dropped.to_string()),
        ]);
        if let Some(open) = self.open.take() {
            self.finished_bytes += open.segment.bytes();
            // Nothing waits for this thread any more.
            match open.segment.finish(&end) {
                Ok(Some(file)) => drop(file.sync_all()),
                Ok(None) => {}
                Err(error) => self.judge(Err(error)),
            }
        }
        self.recorded.bytes = self.finished_bytes;
        std::mem::take(&mut self.recorded)
    }

    /// Writes everything that waits.
    fn drain(&mut self) {
        // Ticks are taken first and written last: whatever they refer to was pushed before them. No more than there are now, or a
        // thread that pushes as fast as this one takes would keep it here.
        let ticks: Vec<(TickRecord, H)> =
            std::iter::from_fn(|| self.queues.ticks.pop()).take(self.queues.ticks.len()).collect();
        if let Some((last, _)) = ticks.last() {
            self.newest = last.now;
        }
        let given = |order: &OrderRecord| {
            let tick = ticks.iter().find(|(tick, _)| tick.tick == order.tick);
            tick.map_or(self.newest, |(tick, _)| tick.now)
        };
        let mut sides: Vec<Side> = Vec::new();
        sides.extend(
            std::iter::from_fn(|| self.queues.orders.pop()).map(|order| Side::Order(Box::new(order), given(&order))),
        );
        sides.extend(std::iter::from_fn(|| self.queues.chunks.pop()).map(|chunk| Side::Chunk(Box::new(chunk))));
        sides.extend(std::iter::from_fn(|| self.queues.parts.pop()).map(|parts| Side::Parts(Box::new(parts))));
        for side in sides {
            self.write(|open| side.write(&mut open.topics, &mut open.segment));
            self.sides.push_back(side);
        }
        for (record, happening) in ticks {
            let kept = Kept { record, words: happening.words(), said: happening.said() };
            self.write(|open| write_tick(open, &kept));
            self.recorded.ticks += 1;
            self.ticks.push_back(kept);
            if let Some(fault) = happening.fault() {
                self.keep_apart(&fault, record.now);
            }
        }
        self.forget();
        self.count_dropped();
    }

    fn count_dropped(&mut self) {
        let dropped = self.queues.dropped.load(Ordering::Relaxed);
        let new = dropped - self.dropped_before;
        if new == 0 {
            return;
        }
        self.dropped_before = dropped;
        self.recorded.dropped = dropped;
        let at = self.newest;
        let text = format!("{new} records were dropped: the writing thread did not keep up");
        self.write(|open| open.topics.event(&mut open.segment, at, Level::Warning, &text));
        (self.settings.trouble)(&text);
    }

    /// Drops from memory what no fault would want any more.
    fn forget(&mut self) {
        let Limits { before_fault, after_fault, .. } = self.settings.limits;
        let (faults, newest) = (&self.faults, self.newest);
        let unwanted = |at: MonotonicTime, margin: Duration| {
            newest.since(at) > before_fault + after_fault + margin
                && faults.iter().all(|fault| fault.at.since(at) > before_fault + margin)
        };
        while self.ticks.front().is_some_and(|tick| unwanted(tick.record.now, Duration::ZERO)) {
            self.ticks.pop_front();
        }
        while self.sides.front().is_some_and(|side| unwanted(side.time(), SIDE_MARGIN)) {
            self.sides.pop_front();
        }
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        self.write(|open| open.segment.flush());
        // Not while the disk is still busy with the last time.
        if self.sync.as_ref().is_some_and(Sender::is_empty) {
            self.make_safe(self.open.as_ref().and_then(|open| open.segment.file()));
        }
        if self.space_seen.elapsed() >= SPACE_PERIOD {
            self.space_seen = Instant::now();
            self.check_space();
        }
        let Some(open) = &self.open else { return };
        let bytes = open.segment.bytes();
        if bytes > self.settings.limits.segment_bytes {
            self.rotate();
        }
    }

    /// Stops the record where the disk or the run's allowance ends.
    fn check_space(&mut self) {
        let limits = &self.settings.limits;
        let written = self.finished_bytes + self.open.as_ref().map_or(0, |open| open.segment.bytes());
        if written > limits.run_bytes {
            let text = format!("the record has {} MB, as much as it may; it ends here", written >> 20);
            return self.stop(&text);
        }
        if let Some(free) = free_bytes(&self.settings.folder)
            && free < limits.free_bytes
        {
            let folder = self.settings.folder.display();
            let wanted = limits.free_bytes >> 20;
            let text =
                format!("disk full: {folder} has {} MB left, the record wants {wanted}; it ends here", free >> 20);
            self.stop(&text);
        }
    }

    fn rotate(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.finished_bytes += open.segment.bytes();
        match open.segment.finish(&BTreeMap::new()) {
            Ok(file) => self.make_safe(file),
            Err(error) => self.judge(Err(error)),
        }
        if self.recorded.trouble.is_none() {
            match self.next_segment() {
                Ok(open) => self.open = Some(open),
                Err(error) => self.judge(Err(error)),
            }
        }
    }

    fn next_segment(&mut self) -> Result<Open, RecorderError> {
        let path = self.settings.folder.join(segment_name(self.segments));
        self.segments += 1;
        let mut segment = Segment::create(&path, &self.settings.metadata)?;
        let topics = Topics::announce(&mut segment, self.settings.arm, self.settings.wall_offset_ns)?;
        segment.flush()?;
        Ok(Open { segment, topics })
    }

    /// Hands a file to the thread that waits for the disk.
    fn make_safe(&self, file: Option<fs::File>) {
        if let (Some(sync), Some(file)) = (&self.sync, file) {
            // Full where the disk is busy for minutes; what a killed process leaves is the same without it.
            let _ = sync.try_send(file);
        }
    }

    fn write(&mut self, what: impl FnOnce(&mut Open) -> Result<(), RecorderError>) {
        if let Some(open) = &mut self.open {
            let written = what(open);
            self.judge(written);
        }
    }

    fn judge(&mut self, written: Result<(), RecorderError>) {
        if let Err(error) = written {
            let full =
                matches!(&error, RecorderError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
            let text = format!("{}{error}; the record ends here", if full { "disk full: " } else { "" });
            self.stop(&text);
        }
    }

    /// The record ends before the run, by name. What led to a fault is still kept in memory.
    fn stop(&mut self, text: &str) {
        if self.recorded.trouble.is_some() {
            return;
        }
        self.recorded.trouble = Some(text.to_owned());
        (self.settings.trouble)(text);
        if let Some(mut open) = self.open.take() {
            self.finished_bytes += open.segment.bytes();
            let said = open.topics.event(&mut open.segment, self.newest, Level::Error, text);
            let end = BTreeMap::from([("stopped".to_owned(), text.to_owned())]);
            match said {
                // Not on a disk that takes nothing: then the file ends as if the process had been killed.
                Ok(()) => drop(open.segment.finish(&end)),
                Err(_) => open.segment.abandon(),
            }
        }
    }

    /// Writes what led to a fault, at once.
    fn keep_apart(&mut self, fault: &str, at: MonotonicTime) {
        if self.recorded.fault_files.len() >= self.settings.limits.fault_files {
            return;
        }
        let path = self.settings.folder.join(self.fault_name(fault, at));
        let fault = Fault { at, text: fault.to_owned(), path };
        self.write_fault(&fault);
        if fault.path.exists() {
            self.recorded.fault_files.push(fault.path.clone());
        }
        self.faults.push(fault);
    }

    /// `fault-20261128T165053.123Z-stale_state.mcap`, free in the folder.
    fn fault_name(&self, fault: &str, at: MonotonicTime) -> String {
        let wall_ns = at.as_nanos() + self.settings.wall_offset_ns;
        let date = rfc3339((wall_ns / 1_000_000_000) as f64).replace(['-', ':', 'Z'], "");
        format!("fault-{date}.{:03}Z-{fault}.mcap", wall_ns / 1_000_000 % 1000)
    }

    /// Writes faults again whose aftermath is there.
    fn follow_faults(&mut self, stopping: bool) {
        let after = self.settings.limits.after_fault;
        let newest = self.newest;
        let (due, waiting): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(|f| stopping || newest.since(f.at) >= after);
        self.faults = waiting;
        for fault in due {
            self.write_fault(&fault);
        }
    }

    fn write_fault(&mut self, fault: &Fault) {
        if let Err(error) = self.try_write_fault(fault) {
            (self.settings.trouble)(&format!("what led to the fault {} is not kept apart: {error}", fault.text));
        }
    }

    /// Beside its place first, so that a whole file is never replaced by half of one.
    fn try_write_fault(&self, fault: &Fault) -> Result<(), RecorderError> {
        let beside = fault.path.with_extension("tmp");
        // One that a full disk left behind.
        let _ = fs::remove_file(&beside);
        let written = self.write_excerpt(&beside, fault);
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        let file = written?;
        fs::rename(&beside, &fault.path).map_err(|source| RecorderError::Io { path: fault.path.clone(), source })?;
        self.make_safe(file);
        Ok(())
    }

    fn write_excerpt(&self, path: &Path, fault: &Fault) -> Result<Option<fs::File>, RecorderError> {
        let Settings { folder, metadata, arm, wall_offset_ns, limits, .. } = &self.settings;
        let mut metadata = metadata.clone();
        let run = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        metadata.insert("excerpt_of".to_owned(), run);
        metadata.insert("fault".to_owned(), fault.text.clone());
        metadata.insert("fault_ns".to_owned(), fault.at.as_nanos().to_string());
        let mut segment = Segment::create(path, &metadata)?;
        let topics = Topics::announce(&mut segment, *arm, *wall_offset_ns)?;
        let begins = |tick: &&Kept| fault.at.since(tick.record.now) <= limits.before_fault;
        let mut sides = self.sides.iter().peekable();
        let mut open = Open { segment, topics };
        let mut ticks = 0;
        for tick in self.ticks.iter().filter(begins) {
            ticks += 1;
            // In the order of the run, but never behind the tick that uses them.
            while let Some(side) = sides.next_if(|side| side.time() <= tick.record.now) {
                side.write(&mut open.topics, &mut open.segment)?;
            }
            write_tick(&mut open, tick)?;
        }
        for side in sides {
            side.write(&mut open.topics, &mut open.segment)?;
        }
        open.segment.finish(&BTreeMap::from([("ticks".to_owned(), ticks.to_string())]))
    }
}

fn write_tick(open: &mut Open, tick: &Kept) -> Result<(), RecorderError> {
    open.topics.tick(&mut open.segment, &tick.record, &tick.words)?;
    match &tick.said {
        Some((level, text)) => open.topics.event(&mut open.segment, tick.record.now, *level, text),
        None => Ok(()),
    }
}

/// Name of a run's file.
fn segment_name(index: usize) -> String {
    format!("run-{index:03}.mcap")
}

/// A thread inherits the preference of the program that it records; a record can wait.
fn yield_to_control() {
    // SAFETY: no pointers are involved; 0 is the calling thread, and less preference is always granted.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
    }
}

/// A thread that waits for the disk until files are safe from a loss of power. It ends with the sender.
fn syncing() -> Option<Sender<fs::File>> {
    let (hand_over, files) = bounded::<fs::File>(32);
    let thread = std::thread::Builder::new().name("tenon-record-sync".to_owned());
    // Without it a killed process still loses nothing more.
    let spawned = thread.spawn(move || {
        while let Ok(file) = files.recv() {
            let _ = file.sync_data();
        }
    });
    spawned.ok().map(|_| hand_over)
}

/// Room on the file system of `path` for this user.
fn free_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends in a zero and `found` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: statvfs returned 0, so it has filled the answer.
    let found = unsafe { found.assume_init() };
    Some(found.f_bavail * found.f_frsize)
}
