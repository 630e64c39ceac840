//! "Cosine annealing with warm-up restarts" (spec dppo.md §2, LR schedule).

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Learning rate over cycles of `first_cycle_steps` steps: linear warm-up from `min_lr` to `max_lr`, then a half cosine
/// back. The very first step is taken at `min_lr` even without warm-up, as in the reference (spec §10.9).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrSchedule {
    pub max_lr: f64,
    pub min_lr: f64,
    pub warmup_steps: u64,
    pub first_cycle_steps: u64,
}

impl LrSchedule {
    /// A rate that never changes.
    pub fn constant(lr: f64) -> Self {
        Self { max_lr: lr, min_lr: lr, warmup_steps: 0, first_cycle_steps: 1 }
    }

    /// Refuses rates and lengths that no schedule can have.
    pub fn check(&self, key: &'static str) -> Result<(), TrainError> {
        let ok = |lr: f64| lr.is_finite() && lr >= 0.0;
        if !ok(self.max_lr) || !ok(self.min_lr) {
            return Err(TrainError::Config { key, detail: "learning rates must be finite and not negative".into() });
        }
        if self.warmup_steps >= self.first_cycle_steps {
            return Err(TrainError::Config {
                key,
                detail: format!(
                    "warm-up of {} steps must be shorter than the cycle of {}",
                    self.warmup_steps, self.first_cycle_steps
                ),
            });
        }
        Ok(())
    }

    /// The rate after `n` scheduler steps.
    pub fn rate(&self, n: u64) -> f64 {
        if n == 0 {
            return self.min_lr;
        }
        let k = (n % self.first_cycle_steps) as f64;
        let (warmup, cycle) = (self.warmup_steps as f64, self.first_cycle_steps as f64);
        let range = self.max_lr - self.min_lr;
        if k < warmup {
            self.min_lr + range * k / warmup
        } else {
            let phase = (k - warmup) / (cycle - warmup);
            self.min_lr + range * (1.0 + (std::f64::consts::PI * phase).cos()) / 2.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values of the spec: furniture actor (1e-5, 1e-6, warm-up 10, cycle 10 000).
    #[test]
    fn schedule_meets_the_check_values() {
        let s = LrSchedule { max_lr: 1e-5, min_lr: 1e-6, warmup_steps: 10, first_cycle_steps: 10_000 };
        for (n, lr) in [(0, 1e-6), (5, 5.5e-6), (10, 1e-5), (500, 9.95e-6), (999, 9.78e-6)] {
            assert!((s.rate(n) / lr - 1.0).abs() < 1e-3, "step {n}: {}", s.rate(n));
        }
    }

    #[test]
    fn warm_up_as_long_as_the_cycle_is_refused() {
        let s = LrSchedule { max_lr: 1.0, min_lr: 0.0, warmup_steps: 5, first_cycle_steps: 5 };
        assert!(s.check("lr").is_err());
    }
}
