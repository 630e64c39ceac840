//! Threads that share the work on a batch with the thread that asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;

use super::processors::{KeptFree, thread_id};
use crate::error::SimError;

/// A fixed number of threads, the calling one among them.
///
/// The caller works too instead of falling asleep, and the others are kept off its processor: on virtual machines the kernel holds a
/// processor that sleeps for one that is taken away, wakes threads where the caller runs, and moves them milliseconds later, when a chunk
/// of a small task is long over.
#[derive(Debug)]
pub(crate) struct Crew {
    /// The others; none where the caller is alone.
    pool: Option<ThreadPool>,
    kept_free: KeptFree,
}

impl Crew {
    /// # Errors
    /// [`SimError::Threads`].
    pub fn new(threads: usize) -> Result<Self, SimError> {
        let ids = Arc::new(Mutex::new(Vec::new()));
        let start = |others: usize| {
            let ids = Arc::clone(&ids);
            rayon::ThreadPoolBuilder::new()
                .num_threads(others)
                .thread_name(|index| format!("sim-{}", index + 1))
                .start_handler(move |_| ids.lock().unwrap_or_else(PoisonError::into_inner).push(thread_id()))
                .build()
                .map_err(|error| SimError::Threads { threads, message: error.to_string() })
        };
        let pool = threads.checked_sub(1).filter(|&others| others > 0).map(start).transpose()?;
        Ok(Self { pool, kept_free: KeptFree::new(threads, ids) })
    }

    /// Calls `work` with (number of the thread, item) for every item; a thread takes the next item when it is done with one, so none is
    /// left with the slow ones. The caller is number 0.
    pub fn for_each<I>(&self, items: I, work: impl Fn(usize, I::Item) + Sync)
    where
        I: Iterator + Send,
    {
        let Some(pool) = &self.pool else {
            items.for_each(|item| work(0, item));
            return;
        };
        self.kept_free.follow_caller();
        let items = Mutex::new(items);
        let share = |number: usize| {
            loop {
                let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                match next {
                    Some(item) => work(number, item),
                    None => break,
                }
            }
        };
        let share = &share;
        pool.in_place_scope(|scope| {
            for number in 1..=pool.current_num_threads() {
                scope.spawn(move |_| share(number));
            }
            share(0);
        });
    }

    /// As [`for_each`](Self::for_each); the first error that was met, after everything else was done.
    pub fn try_for_each<I>(
        &self,
        items: I,
        work: impl Fn(usize, I::Item) -> Result<(), SimError> + Sync,
    ) -> Result<(), SimError>
    where
        I: Iterator + Send,
    {
        let failure = Mutex::new(None);
        self.for_each(items, |number, item| {
            if let Err(error) = work(number, item) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_by_a_thread_of_the_crew() {
        for threads in [1, 2, 5] {
            let crew = Crew::new(threads).unwrap();
            let mut done = vec![(0, usize::MAX); 40];
            crew.for_each(done.iter_mut(), |number, item| *item = (item.0 + 1, number));
            assert!(done.iter().all(|&(times, number)| times == 1 && number < threads), "{done:?}");
        }
    }

    #[test]
    fn one_error_is_told_and_the_others_are_done() {
        let crew = Crew::new(3).unwrap();
        let mut done = [false; 9];
        let result = crew.try_for_each(done.iter_mut().enumerate(), |_, (index, done)| {
            *done = true;
            if index == 4 { Err(SimError::NothingToDraw) } else { Ok(()) }
        });
        assert!(matches!(result, Err(SimError::NothingToDraw)));
        assert!(done.iter().all(|&done| done));
    }
}
