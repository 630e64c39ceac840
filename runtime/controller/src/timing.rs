//! Where the time of a chunk goes: one histogram a stage, allocated once.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// p50, p99 and max of a stage, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub n: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Durations from 100 ns to 100 s with three digits.
#[derive(Debug, Clone)]
pub struct Stage(Histogram<u64>);

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(100, 100_000_000_000, 3).expect("the bounds are valid constants"))
    }

    /// Adds a duration; does not allocate, because the bounds are fixed and outliers saturate.
    pub fn record(&mut self, d: Duration) {
        self.0.saturating_record(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).max(100));
    }

    pub fn summary(&self) -> Summary {
        let at = |q: f64| self.0.value_at_quantile(q) as f64 * 1e-3;
        if self.0.is_empty() {
            return Summary::default();
        }
        Summary { n: self.0.len(), p50_us: at(0.5), p99_us: at(0.99), max_us: self.0.max() as f64 * 1e-3 }
    }
}

/// The stages of the control loop.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    /// Age of the robot state when the tick uses it.
    pub state_age: Stage,
    /// From the wake-up to the observation handed to the policy.
    pub observe: Stage,
    /// Sampling a chunk, measured on the policy's thread.
    pub infer: Stage,
    /// The tick's work, of which inverse kinematics and safety are nearly all.
    pub tick: Stage,
    /// Handing the target to the link.
    pub publish: Stage,
    /// The bridge's `UpdateController`, as it reports it.
    pub bridge_update: Stage,
    /// Delay of the wake-up behind its deadline.
    pub wake_up: Stage,
    pub ticks: u64,
    pub late: u64,
}

/// [`Timing`] in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingSummary {
    pub arm_state_age: Summary,
    pub observe: Summary,
    pub infer: Summary,
    pub ik: Summary,
    pub publish: Summary,
    pub bridge_update: Summary,
    pub wake_up: Summary,
    pub ticks: u64,
    pub late_ticks: u64,
    pub late_per_million: f64,
}

impl Timing {
    pub fn summary(&self) -> TimingSummary {
        TimingSummary {
            arm_state_age: self.state_age.summary(),
            observe: self.observe.summary(),
            infer: self.infer.summary(),
            ik: self.tick.summary(),
            publish: self.publish.summary(),
            bridge_update: self.bridge_update.summary(),
            wake_up: self.wake_up.summary(),
            ticks: self.ticks,
            late_ticks: self.late,
            late_per_million: if self.ticks == 0 { 0.0 } else { self.late as f64 * 1e6 / self.ticks as f64 },
        }
    }
}
