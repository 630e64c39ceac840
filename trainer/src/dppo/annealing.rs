//! What may change from iteration to iteration; in no setting of the paper (spec dppo.md §1.7).

use serde::{Deserialize, Serialize};
use tenon_core::config::ScheduleShape as StdScheduleShape;

use crate::actor_critic::positive;
use crate::error::TrainError;

/// How a standard deviation goes from where it begins to where it ends. Steps with every iteration, evaluations included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StdSchedule {
    /// Reached after `iterations`, and kept.
    pub end: f64,
    pub iterations: u64,
    #[serde(default)]
    pub shape: StdScheduleShape,
}

impl StdSchedule {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        positive(&[("min_sampling_std_schedule.end", self.end)])
    }

    /// The value after `iteration` iterations, beginning at `start`.
    pub fn value(&self, start: f64, iteration: u64) -> f64 {
        if iteration >= self.iterations {
            return self.end;
        }
        let way = iteration as f64 / self.iterations as f64;
        let way = match self.shape {
            StdScheduleShape::Linear => way,
            StdScheduleShape::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * way).cos()),
        };
        start + (self.end - start) * way
    }
}

/// K' after the iteration numbered `done`, the first being 1 (`ft_denoising_steps_d`, `_t`); it never falls below 1,
/// where the reference would be left with nothing to train.
pub(super) fn finetuned_steps(now: usize, decrement: usize, every: u64, done: u64) -> usize {
    let due = decrement > 0 && every > 0 && done.is_multiple_of(every);
    if due { now.saturating_sub(decrement).max(1) } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_go_from_start_to_end_and_stay() {
        let linear = StdSchedule { end: 0.02, iterations: 8, shape: StdScheduleShape::Linear };
        let cosine = StdSchedule { shape: StdScheduleShape::Cosine, ..linear };
        for (iteration, straight, curved) in [(0, 0.1, 0.1), (2, 0.08, 0.088_284), (4, 0.06, 0.06), (8, 0.02, 0.02)] {
            assert!((linear.value(0.1, iteration) - straight).abs() < 1e-6, "{iteration}");
            assert!((cosine.value(0.1, iteration) - curved).abs() < 1e-6, "{iteration}");
        }
        assert_eq!(linear.value(0.1, 1000), 0.02);
        assert_eq!(StdSchedule { iterations: 0, ..linear }.value(0.1, 0), 0.02);
    }

    #[test]
    fn finetuned_steps_fall_when_they_are_due_and_stop_at_one() {
        let mut steps = 5;
        let seen: Vec<usize> = (1..=8)
            .map(|done| {
                steps = finetuned_steps(steps, 2, 2, done);
                steps
            })
            .collect();
        assert_eq!(seen, [5, 3, 3, 1, 1, 1, 1, 1]);
        assert_eq!(finetuned_steps(5, 0, 2, 2), 5);
        assert_eq!(finetuned_steps(5, 2, 0, 2), 5);
    }
}
