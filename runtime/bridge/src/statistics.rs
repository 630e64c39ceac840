//! Counts and latencies.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tenon_core::time::MonotonicTime;
use tenon_polymetis::waypoints::Plan;

/// Longest latency that is told apart, µs.
const LONGEST_US: u64 = 10_000_000;

#[derive(Debug)]
struct Inner {
    update: Histogram<u64>,
    command: Histogram<u64>,
    counts: Counts,
    watcher: Option<Sender<Answered>>,
}

/// An update that the server acknowledged, for who measures the bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Of the target that it was made of.
    pub sequence: u64,
    /// Duration of UpdateController, and when the answer was there.
    pub update: Duration,
    pub at: MonotonicTime,
    /// What was sent, where it was a plan for Tenon's law.
    pub plan: Option<Plan>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Updates that the server acknowledged.
    pub updates: u64,
    pub updates_failed: u64,
    /// Targets that the gate refused.
    pub targets_refused: u64,
    /// Targets that came later than the lead allows: the arm was on its way to rest already.
    pub targets_late: u64,
    /// Plans that the arm could not join: it brakes, and joins a later one.
    pub plans_apart: u64,
    /// Targets of a session that does not command.
    pub targets_ignored: u64,
    /// Messages over the link that could not be read: another version, damaged, not finite.
    pub messages_refused: u64,
    pub states_published: u64,
    /// States with values that are not finite, or of another number of joints.
    pub states_refused: u64,
    pub armed: u64,
    pub arm_refused: u64,
    pub released: u64,
    pub faults: u64,
    /// Commands that went to the hand; repeated ones do not.
    pub gripper_commands: u64,
    /// Commands of a session that does not command the arm, or where no hand reports.
    pub gripper_ignored: u64,
    /// Commands that the hand did not carry out in time.
    pub gripper_time_outs: u64,
}

/// The counters, shared by the tasks.
#[derive(Debug, Clone)]
pub struct Statistics(Arc<Mutex<Inner>>);

impl Default for Statistics {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("1 < 2·1 <= bound, 3 digits");
        let inner = Inner { update: histogram(), command: histogram(), counts: Counts::default(), watcher: None };
        Self(Arc::new(Mutex::new(inner)))
    }
}

impl Statistics {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something.
    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.inner().counts);
    }

    /// An acknowledged update: duration of the call, and from the target's arrival to the answer.
    pub fn updated(&self, update: Duration, command: Duration) {
        let mut inner = self.inner();
        inner.counts.updates += 1;
        inner.update.saturating_record(micros(update));
        inner.command.saturating_record(micros(command));
    }

    /// From now on every acknowledged update is told; a receiver that is dropped ends that.
    pub fn watch(&self) -> Receiver<Answered> {
        let (sender, receiver) = channel();
        self.inner().watcher = Some(sender);
        receiver
    }

    /// Tells an acknowledged update to who watches.
    pub fn tell(&self, answered: impl FnOnce() -> Answered) {
        let mut inner = self.inner();
        if inner.watcher.as_ref().is_some_and(|watcher| watcher.send(answered()).is_err()) {
            inner.watcher = None;
        }
    }

    /// All of it now.
    pub fn summary(&self) -> Summary {
        let inner = self.inner();
        Summary {
            update_us: Percentiles::of(&inner.update),
            command_us: Percentiles::of(&inner.command),
            counts: inner.counts,
        }
    }
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Of one latency, µs; 0 without samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p99: at(0.99), max: histogram.max() }
    }
}

/// The statistics as they are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Duration of UpdateController.
    pub update_us: Percentiles,
    /// From a target's arrival at the bridge to the server's answer.
    pub command_us: Percentiles,
    #[serde(flatten)]
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_in_microseconds() {
        let statistics = Statistics::default();
        assert_eq!(statistics.summary(), Summary::default());
        for ms in 1..=100 {
            statistics.updated(Duration::from_millis(ms), Duration::from_millis(2 * ms));
        }
        let summary = statistics.summary();
        assert!(summary.update_us.p50.abs_diff(50_000) < 100, "{summary:?}");
        assert!(summary.command_us.max.abs_diff(200_000) < 200, "{summary:?}");
        assert_eq!(summary.counts.updates, 100);
        statistics.updated(Duration::from_secs(3600), Duration::ZERO);
    }
}
