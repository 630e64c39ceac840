//! The search in slices on a thread of low priority.
//!
//! The camera's thread calls [`BackgroundSearch::exchange`] once a frame: it takes back what the last slice found and, when
//! one is due and the searching thread is free, copies the next slice of this frame and hands it over. It never waits; one
//! slice is on its way at most.

use super::Tracker;
use super::slices::{Cutout, SlicePlan, SliceSearcher, SliceSettings};
use crate::{DetectorSettings, GreyView, TagDetection, VisionError};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use tenon_core::time::MonotonicTime;

/// How much the searching thread gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchPriority {
    /// Runs only when a processor has nothing else to do (Linux `SCHED_IDLE`). Next to other work that never rests, a new
    /// tag may wait for long.
    Idle,
    /// A share that falls with the number, −20 to 19.
    Nice(i32),
}

impl Default for SearchPriority {
    /// A third of the share of ordinary work: new tags are still found in time on a busy machine, and a frame that comes
    /// takes the processor away from the search.
    fn default() -> Self {
        Self::Nice(5)
    }
}

/// What became of a call of [`BackgroundSearch::exchange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A slice of this frame was handed over.
    Started,
    /// None was due yet.
    NotDue,
    /// The thread is still searching an earlier slice.
    Busy,
    /// The thread has ended; the tracker goes on with what it knows. Start a new search.
    Ended,
}

#[derive(Debug, Default)]
struct Slice {
    cutout: Cutout,
    found: Vec<TagDetection>,
    exposed_at: MonotonicTime,
}

/// A searching thread and the plan of its slices. Dropping it ends the thread after its current slice.
#[derive(Debug)]
pub struct BackgroundSearch {
    plan: SlicePlan,
    to_thread: Option<SyncSender<Box<Slice>>>,
    from_thread: Receiver<Box<Slice>>,
    spare: Option<Box<Slice>>,
    thread: Option<JoinHandle<()>>,
    searched: u64,
    every_frames: u32,
    /// Since a slice was last handed over.
    frames: u32,
}

impl BackgroundSearch {
    /// For frames of `width` × `height` px. `name` is the thread's (15 bytes are shown).
    ///
    /// # Errors
    /// As [`super::SliceSearch::new`]; [`VisionError::DetectorCreate`] when the system gives no thread.
    pub fn start(
        name: &str,
        settings: &SliceSettings,
        detector: &DetectorSettings,
        size: (usize, usize),
        priority: SearchPriority,
    ) -> Result<Self, VisionError> {
        let plan = SlicePlan::new(settings, detector, size.0, size.1)?;
        let mut searcher = SliceSearcher::new(detector)?;
        let (to_thread, inbox) = sync_channel::<Box<Slice>>(1);
        let (outbox, from_thread) = sync_channel::<Box<Slice>>(1);
        let search = move || {
            give_way(priority);
            while let Ok(mut slice) = inbox.recv() {
                let Slice { cutout, found, .. } = slice.as_mut();
                // A slice that cannot be searched has nothing in it; the next one may.
                if searcher.search(cutout, found).is_err() {
                    found.clear();
                }
                if outbox.send(slice).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(search);
        let thread = thread.map_err(|_| VisionError::DetectorCreate)?;
        // Room for the largest slice, so that no frame waits for memory.
        let mut first = Box::<Slice>::default();
        first.cutout.reserve(size.0 * size.1);
        first.found.reserve(64);
        Ok(Self {
            plan,
            to_thread: Some(to_thread),
            from_thread,
            spare: Some(first),
            thread: Some(thread),
            searched: 0,
            every_frames: settings.every_frames,
            frames: settings.every_frames,
        })
    }

    /// Takes back finds for `tracker` and hands over the next slice of `frame`, exposed at `exposed_at`. Never blocks.
    pub fn exchange(
        &mut self,
        frame: GreyView<'_>,
        exposed_at: MonotonicTime,
        tracker: &mut Tracker,
    ) -> Result<Exchange, VisionError> {
        match self.from_thread.try_recv() {
            Ok(slice) => {
                self.searched += 1;
                tracker.offer(&slice.found, slice.exposed_at);
                self.spare = Some(slice);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(Exchange::Ended),
        }
        if let Some(pixel) = tracker.take_lost_place() {
            self.plan.hurry_to(pixel);
        }
        self.frames = self.frames.saturating_add(1);
        if self.frames < self.every_frames && !self.plan.is_urgent() {
            return Ok(if self.spare.is_some() { Exchange::NotDue } else { Exchange::Busy });
        }
        let Some(mut slice) = self.spare.take() else {
            return Ok(Exchange::Busy);
        };
        if let Err(error) = self.plan.cut_next(&frame, &mut slice.cutout) {
            self.spare = Some(slice);
            return Err(error);
        }
        slice.exposed_at = exposed_at;
        self.frames = 0;
        match self.to_thread.as_ref().map(|sender| sender.try_send(slice)) {
            Some(Ok(())) => Ok(Exchange::Started),
            _ => Ok(Exchange::Ended),
        }
    }

    /// Slices searched so far.
    pub fn searched_slices(&self) -> u64 {
        self.searched
    }

    /// Slices of a round.
    pub fn slices(&self) -> usize {
        self.plan.slices()
    }
}

impl Drop for BackgroundSearch {
    fn drop(&mut self) {
        // Without a sender the thread's queue ends; a panic in it has been reported by its own hook.
        self.to_thread = None;
        while self.from_thread.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lowers the calling thread's priority; where the system refuses, it stays as it is.
fn give_way(priority: SearchPriority) {
    match priority {
        SearchPriority::Idle => {
            // SAFETY: all-zero is a valid sched_param; SCHED_IDLE takes priority 0.
            let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
            // SAFETY: 0 is the calling thread, the pointer is valid for the call.
            let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) } != 0;
            if refused {
                give_way(SearchPriority::Nice(19));
            }
        }
        SearchPriority::Nice(nice) => {
            // Niceness means nothing under a real-time policy that the thread may have inherited.
            let parameters = libc::sched_param { sched_priority: 0 };
            // SAFETY: 0 is the calling thread, the pointer is valid for the call.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &parameters) };
            // SAFETY: no pointers; on Linux 0 is the calling thread.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
        }
    }
}
