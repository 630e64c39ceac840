//! Threads over a fixed number of shards.
//!
//! A *shard* is a contiguous range of rows. How many there are depends on the number of rows only, every shard writes
//! its own output, and the caller adds the outputs in order: which thread did which shard leaves no trace.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::Device;
use crate::error::TrainError;

/// What there is to compute with.
#[derive(Debug, Clone)]
pub struct Compute {
    /// For everything that the processor does.
    pub threads: usize,
    /// For the networks, in the place of the processor.
    pub device: Option<Device>,
}

impl From<usize> for Compute {
    fn from(threads: usize) -> Self {
        Self { threads, device: None }
    }
}

/// A pool of threads, one of them when `threads` is 1: the caller. Knows the device, if the networks have one.
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
    threads: usize,
    device: Option<Device>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workers({})", self.threads)
    }
}

impl Workers {
    /// Starts the threads (at least one). A number of threads is a [`Compute`] without a device.
    pub fn new(compute: impl Into<Compute>) -> Result<Self, TrainError> {
        let Compute { threads, device } = compute.into();
        let threads = threads.max(1);
        let pool = if threads == 1 {
            None
        } else {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("train-{i}"))
                .build()
                .map_err(|e| TrainError::Workers { threads, detail: e.to_string() })?;
            Some(pool)
        };
        Ok(Self { pool, threads, device })
    }

    /// Where networks are computed; none for the processor.
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// Number of threads, and so of the workspaces that [`Workers::run`] wants.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(shard, workspace, output)` once for every element of `outputs`, shard being its index.
    ///
    /// `workspaces` holds at least one buffer set a thread; what a shard computes must not depend on which one it got.
    pub fn run<W: Send, O: Send>(
        &self,
        workspaces: &mut [W],
        outputs: &mut [O],
        work: impl Fn(usize, &mut W, &mut O) + Sync,
    ) {
        let Some(pool) = self.pool.as_ref().filter(|_| outputs.len() > 1) else {
            for (shard, output) in outputs.iter_mut().enumerate() {
                work(shard, &mut workspaces[0], output);
            }
            return;
        };
        let next = AtomicUsize::new(0);
        // Each lock is taken once, by the thread that drew the shard's number.
        let outputs: Vec<Mutex<&mut O>> = outputs.iter_mut().map(Mutex::new).collect();
        let (next, outputs, work) = (&next, &outputs, &work);
        pool.scope(|scope| {
            for workspace in workspaces.iter_mut().take(self.threads) {
                scope.spawn(move |_| {
                    loop {
                        let shard = next.fetch_add(1, Ordering::Relaxed);
                        let Some(output) = outputs.get(shard) else { return };
                        let mut output = output.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        work(shard, workspace, &mut output);
                    }
                });
            }
        });
    }
}

/// How many shards `rows` rows are cut into: at most `most`, and none below `smallest` rows unless it is the only one.
pub fn shard_count(rows: usize, smallest: usize, most: usize) -> usize {
    (rows / smallest.max(1)).clamp(1, most)
}

/// Rows below which a batch of environments is not cut: each cut reads all weights once more.
const SMALLEST_INFERENCE_SHARD: usize = 24;
/// Rows above which it is, so that buffers stay small.
const LARGEST_INFERENCE_SHARD: usize = 2048;
const MOST_SHARDS_WITH_POSITIONS: usize = 8;

/// How many shards the rows of an inference are cut into: one for each thread, more where
/// they are many. Rows know nothing of one another and a
/// row's product does not depend on its neighbours (a test of [`crate::linalg`]), so unlike in training the number of
/// threads may decide; and every shard less reads the weights once less.
///
/// Networks with positions (U-Nets, transformers) are the exception: the last bits of their values do depend on how many
/// rows there are, so they are cut by the number of rows alone.
pub fn inference_shards(workers: &Workers, rows: usize, positions: bool) -> usize {
    if positions {
        return shard_count(rows, SMALLEST_INFERENCE_SHARD, MOST_SHARDS_WITH_POSITIONS);
    }
    shard_count(rows, SMALLEST_INFERENCE_SHARD, workers.threads()).max(rows.div_ceil(LARGEST_INFERENCE_SHARD))
}

/// Rows of shard `shard` of `shards`.
pub fn shard_range(rows: usize, shards: usize, shard: usize) -> Range<usize> {
    rows * shard / shards..rows * (shard + 1) / shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_exactly_one_shard() {
        for rows in [1, 7, 64, 1000] {
            let shards = shard_count(rows, 64, 8);
            let ranges: Vec<_> = (0..shards).map(|s| shard_range(rows, shards, s)).collect();
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[shards - 1].end, rows);
            assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
        }
    }

    #[test]
    fn every_shard_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3] {
            let workers = Workers::new(threads).unwrap();
            let mut outputs = vec![0; 17];
            workers.run(&mut vec![(); threads], &mut outputs, |shard, _, out| *out += shard + 1);
            assert_eq!(outputs, (1..=17).collect::<Vec<_>>());
        }
    }
}
