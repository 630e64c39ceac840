//! PPO's clipped objectives of one row (Schulman et al. 2017, eq. 7; spec dppo.md §2.5e).

/// The policy's term of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyTerm {
    /// max(−A ρ, −A clamp(ρ, 1 ± ε)).
    pub loss: f32,
    /// ∂loss/∂ new log-probability.
    pub slope: f32,
    /// ρ = exp(new − old).
    pub ratio: f32,
    /// (ρ − 1) − ln ρ, whose mean approximates the KL divergence.
    pub kl: f32,
    /// |ρ − 1| > ε.
    pub clipped: bool,
}

impl PolicyTerm {
    /// Of advantage A, with ε = `epsilon`. A NaN makes loss and slope NaN.
    pub fn new(new_log_prob: f32, old_log_prob: f32, advantage: f32, epsilon: f32) -> Self {
        let log_ratio = new_log_prob - old_log_prob;
        let ratio = log_ratio.exp();
        let plain = -advantage * ratio;
        let limited = -advantage * ratio.clamp(1.0 - epsilon, 1.0 + epsilon);
        let (loss, slope) = if plain.is_nan() {
            (plain, plain)
        } else if plain >= limited {
            // ∂ρ/∂new = ρ; within the range both branches are equal.
            (plain, plain)
        } else {
            (limited, 0.0)
        };
        Self { loss, slope, ratio, kl: (ratio - 1.0) - log_ratio, clipped: (ratio - 1.0).abs() > epsilon }
    }

    /// Whether loss, slope and ratio are numbers that one can go on with: optimisers square what comes of them.
    pub fn is_finite(&self) -> bool {
        [self.loss, self.slope, self.kl].iter().all(|x| (x * x).is_finite())
    }
}

/// The value's term of one row, ½ (V − R)², and its derivative by V; with `clip`, the larger of it and the same for a V
/// that moved no further than `clip` from `old`.
pub fn value_term(value: f64, target: f64, old: f64, clip: Option<f64>) -> (f64, f64) {
    let (error, plain) = (value - target, 0.5 * (value - target).powi(2));
    let Some(c) = clip else { return (plain, error) };
    let limited = old + (value - old).clamp(-c, c) - target;
    if 0.5 * limited * limited <= plain || plain.is_nan() {
        (plain, error)
    } else {
        (0.5 * limited * limited, if (value - old).abs() <= c { limited } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_range_only_a_step_back_has_a_slope() {
        // ρ = e^0.5 > 1.1: with A > 0 the clipped branch is the larger loss and flat, with A < 0 the plain one.
        let gain = PolicyTerm::new(0.5, 0.0, 1.0, 0.1);
        assert_eq!((gain.loss, gain.slope, gain.clipped), (-1.1, 0.0, true));
        let harm = PolicyTerm::new(0.5, 0.0, -1.0, 0.1);
        assert_eq!((harm.loss, harm.slope), (0.5f32.exp(), 0.5f32.exp()));
        let same = PolicyTerm::new(0.3, 0.3, 2.0, 0.1);
        assert_eq!((same.loss, same.slope, same.kl, same.clipped), (-2.0, -2.0, 0.0, false));
    }

    #[test]
    fn not_a_number_reaches_loss_and_slope() {
        for (new, advantage) in [(f32::NAN, 1.0), (0.0, f32::NAN)] {
            let term = PolicyTerm::new(new, 0.0, advantage, 0.1);
            assert!(term.loss.is_nan() && term.slope.is_nan());
        }
        assert!(value_term(f64::NAN, 0.0, 0.0, Some(0.2)).0.is_nan());
    }

    #[test]
    fn a_value_is_pulled_back_only_by_the_larger_loss() {
        assert_eq!(value_term(2.0, 1.0, 0.0, None), (0.5, 1.0));
        // Moved from 0 to 2, target 3: limited to 0.5 the error is larger and flat.
        assert_eq!(value_term(2.0, 3.0, 0.0, Some(0.5)), (3.125, 0.0));
        // Target on the other side: the plain error is larger.
        assert_eq!(value_term(2.0, -1.0, 0.0, Some(0.5)), (4.5, 3.0));
    }
}
