//! Which processors a crew's threads may run on.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel's number of the calling thread.
pub(super) fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Keeps threads off the processor that the caller is on.
#[derive(Debug)]
pub(super) struct KeptFree {
    /// Of the others; they add themselves when they start.
    threads: Arc<Mutex<Vec<libc::pid_t>>>,
    /// How many there will be.
    expected: usize,
    /// Where the caller may run; `None` where there is no processor for everyone, and nothing is done.
    allowed: Option<Processors>,
    /// Processor that is kept free now; −1 before the first time.
    processor: AtomicI32,
}

#[derive(Debug, Clone, Copy)]
struct Processors(libc::cpu_set_t);

impl Processors {
    /// Those of the calling thread.
    fn of_caller() -> Option<Self> {
        // SAFETY: a set of zeros is an empty one; the kernel fills it, and is told its size.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        (failed == 0).then_some(Self(set))
    }

    fn count(&self) -> usize {
        // SAFETY: reads the set.
        unsafe { libc::CPU_COUNT(&self.0) as usize }
    }

    fn has(&self, processor: usize) -> bool {
        // SAFETY: reads the set; numbers beyond it are answered with false.
        unsafe { libc::CPU_ISSET(processor, &self.0) }
    }

    fn without(mut self, processor: usize) -> Self {
        // SAFETY: the number was found in the set.
        unsafe { libc::CPU_CLR(processor, &mut self.0) };
        self
    }
}

impl KeptFree {
    /// For a crew of so many `threads`, the caller among them.
    pub fn new(threads: usize, others: Arc<Mutex<Vec<libc::pid_t>>>) -> Self {
        let allowed = Processors::of_caller().filter(|allowed| threads > 1 && allowed.count() >= threads);
        Self { threads: others, expected: threads.saturating_sub(1), allowed, processor: AtomicI32::new(-1) }
    }

    /// Sends the others elsewhere if the caller has moved. What the kernel refuses costs speed only.
    pub fn follow_caller(&self) {
        let Some(allowed) = &self.allowed else { return };
        // SAFETY: takes nothing; −1 where it fails.
        let here = unsafe { libc::sched_getcpu() };
        let Ok(processor) = usize::try_from(here) else { return };
        if self.processor.load(Ordering::Relaxed) == here || !allowed.has(processor) {
            return;
        }
        let elsewhere = allowed.without(processor);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for &thread in &*threads {
            // SAFETY: the set is whole and its size is told; a thread that has ended is an error and nothing more.
            unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &elsewhere.0) };
        }
        // Those that have not begun yet are told the next time.
        if threads.len() >= self.expected {
            self.processor.store(here, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Crew;
    use super::*;

    #[test]
    fn the_others_are_kept_off_one_processor_where_there_are_enough() {
        let Some(all) = Processors::of_caller().filter(|all| all.count() >= 2) else {
            println!("skipped: one processor");
            return;
        };
        let crew = Crew::new(2).unwrap();
        // The other thread has begun, and is told.
        crew.for_each(0..1, |_, _| std::thread::sleep(std::time::Duration::from_millis(50)));
        // Until the other thread has had an item, which it takes while the caller waits for it.
        let (met, began) = (Mutex::new(None), std::time::Instant::now());
        crew.for_each(0..2, |number, _| {
            if number > 0 {
                *met.lock().unwrap() = Processors::of_caller();
            }
            while met.lock().unwrap().is_none() && began.elapsed().as_secs() < 20 {
                std::thread::yield_now();
            }
        });
        let own = met.into_inner().unwrap().expect("the other thread took an item");
        assert_eq!(own.count(), all.count() - 1);
        // The caller may still run everywhere.
        assert_eq!(Processors::of_caller().unwrap().count(), all.count());
    }

    #[test]
    fn more_threads_than_processors_run_where_they_like() {
        let all = Processors::of_caller().unwrap();
        let kept = KeptFree::new(all.count() + 1, Arc::default());
        kept.follow_caller();
        assert!(kept.allowed.is_none() && kept.processor.load(Ordering::Relaxed) == -1);
    }
}
