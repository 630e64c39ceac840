//! Which step the server's loop is at, from the answers to calls.

/// Relative error that two clocks of the same rate may have; a loop that misses calls of its robot is noticed otherwise.
const DRIFT: f64 = 200e-6;

/// Estimates the present step of a controller.
///
/// An answer that names a log index says: that step was the next one at some instant between question and answer. Each
/// bounds the time of step 0; the bounds are intersected, widened with time by what clocks drift. An answer that
/// contradicts them (the loop stood still, or lost calls) starts anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepClock {
    period_s: f64,
    start: i64,
    /// Earliest and latest time of step 0, s.
    bounds: Option<(f64, f64)>,
    seen_s: f64,
}

impl StepClock {
    /// For a controller whose first step has log index `start`, at `rate_hz`.
    pub fn new(start: i64, rate_hz: u32) -> Self {
        Self { period_s: 1.0 / f64::from(rate_hz.max(1)), start, bounds: None, seen_s: 0.0 }
    }

    /// Length of a step, s.
    pub fn period_s(&self) -> f64 {
        self.period_s
    }

    /// Takes note of an answer: asked and answered (s, any monotonic clock), and the log index it named. Returns whether
    /// the bounds began anew.
    pub fn observe(&mut self, asked_s: f64, answered_s: f64, log_index: i64) -> bool {
        let since = (log_index - self.start) as f64 * self.period_s;
        // The step that was next begins within a period.
        let (earliest, latest) = (asked_s - since, answered_s + self.period_s - since);
        let widening = DRIFT * (answered_s - self.seen_s).max(0.0);
        self.seen_s = answered_s;
        let merged = self.bounds.map(|(low, high)| ((low - widening).max(earliest), (high + widening).min(latest)));
        match merged {
            Some((low, high)) if low <= high => {
                self.bounds = Some((low, high));
                false
            }
            _ => {
                self.bounds = Some((earliest, latest));
                true
            }
        }
    }

    /// The step at a time, and how far off that may be, in steps; `None` before the first answer.
    pub fn step_at(&self, time_s: f64) -> Option<(f64, f64)> {
        let (low, high) = self.bounds?;
        let middle = 0.5 * (low + high);
        Some(((time_s - middle) / self.period_s, 0.5 * (high - low) / self.period_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_narrow_the_step_down_and_a_pause_is_noticed() {
        let mut clock = StepClock::new(5000, 1000);
        assert_eq!(clock.step_at(0.0), None);
        // Step 0 begins at 100.0 s; the loop's clock is 100 ppm slow. Delays differ from call to call.
        let index = |t: f64| 5000 + ((t - 100.0) * 1000.0 * (1.0 - 100e-6)).ceil() as i64;
        for k in 0..2000_u32 {
            let asked = 100.5 + 0.02 * f64::from(k);
            let (there, back) = (f64::from(k * 7 % 11) * 1e-3, f64::from(k * 5 % 13) * 1e-3);
            assert!(!clock.observe(asked, asked + there + back, index(asked + there)) || k == 0);
            let (step, error) = clock.step_at(asked).unwrap();
            let truth = (asked - 100.0) * 1000.0 * (1.0 - 100e-6);
            assert!((step - truth).abs() <= error + 1e-6, "{step} {truth} {error}");
            assert!(k < 150 || error < 3.0, "{error}");
        }
        // The robot paused for a second.
        assert!(clock.observe(150.0, 150.001, index(149.0)));
        let (step, error) = clock.step_at(150.0).unwrap();
        assert!((step - 49_000.0 * (1.0 - 100e-6)).abs() < 2.0 && error < 1.5);
    }
}
