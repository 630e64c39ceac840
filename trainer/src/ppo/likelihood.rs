//! Log-probability and entropy of a chunk under a Gaussian or a mixture (spec dppo.md §4).

use serde::{Deserialize, Serialize};

use crate::network::{GaussianRow, GaussianRowGradient};

/// Bounds of a log-probability in PPO's ratio, after the mean over the chunk.
const LOG_PROB_MIN: f64 = -5.0;
const LOG_PROB_MAX: f64 = 2.0;

/// How a mixture's log-density of a chunk becomes the number that PPO works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixtureDensity {
    /// Divided by Tp · Da, as the log-probability of a single Gaussian is: the bounds [−5, 2] then mean the same.
    #[default]
    PerDimension,
    /// Of the whole chunk, as the reference has it. At σ = 0.1 and 28 values it is about +20: both probabilities are
    /// clamped to 2 and the policy hardly learns (spec dppo.md §4, §10.3).
    Joint,
}

/// Log-probabilities of chunks, with their gradients.
///
/// A single Gaussian takes the mean over the chunk's Tp · Da values in any case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Likelihood {
    pub mixture: MixtureDensity,
}

/// Weights of a mixture's components, before and after seeing the chunk.
struct Shares {
    /// softmax of the logits.
    prior: Vec<f64>,
    posterior: Vec<f64>,
}

impl Likelihood {
    /// log p(chunk), not clamped.
    pub fn log_prob(&self, row: GaussianRow, chunk: &[f32]) -> f64 {
        self.evaluate(row, chunk).0
    }

    /// log p(chunk), not clamped, and its gradient, which overwrites `gradient`.
    pub fn log_prob_and_gradient(&self, row: GaussianRow, chunk: &[f32], gradient: &mut GaussianRowGradient) -> f64 {
        let (log_prob, shares) = self.evaluate(row, chunk);
        let (scale, n) = (self.scale(row), chunk.len());
        for (m, posterior) in shares.posterior.iter().enumerate() {
            let share = (scale * posterior) as f32;
            for (k, &x) in chunk.iter().enumerate() {
                let i = m * n + k;
                let z = (x - row.mean[i]) / row.std[i];
                // ∂ log N/∂μ = z/σ, ∂ log N/∂ ln σ = z² − 1.
                gradient.mean[i] = share * z / row.std[i];
                gradient.log_std[i] = share * (z * z - 1.0);
            }
        }
        // ∂ log p/∂ logit_m = posterior − prior.
        for ((d, posterior), prior) in gradient.logits.iter_mut().zip(&shares.posterior).zip(&shares.prior) {
            *d = (scale * (posterior - prior)) as f32;
        }
        log_prob
    }

    /// Entropy: of a single Gaussian, the mean over the chunk's values; of a mixture, its components' entropies by
    /// weight, as the reference approximates it, divided like the density.
    pub fn entropy(&self, row: GaussianRow) -> f64 {
        let sum: f64 = softmax(row.logits).iter().zip(component_entropies(row)).map(|(w, h)| w * h).sum();
        self.scale(row) * sum
    }

    /// Adds `factor` · ∂entropy to `gradient`.
    pub fn add_entropy_gradient(&self, row: GaussianRow, factor: f64, gradient: &mut GaussianRowGradient) {
        let (prior, of_component) = (softmax(row.logits), component_entropies(row));
        let sum: f64 = prior.iter().zip(&of_component).map(|(w, h)| w * h).sum();
        let factor = factor * self.scale(row);
        for (d, w) in gradient.log_std.chunks_exact_mut(row.chunk_len()).zip(&prior) {
            d.iter_mut().for_each(|d| *d += (factor * w) as f32);
        }
        // ∂ Σ w H/∂ logit_m = w_m (H_m − Σ w H).
        for ((d, w), h) in gradient.logits.iter_mut().zip(&prior).zip(&of_component) {
            *d += (factor * w * (h - sum)) as f32;
        }
    }

    /// Mean deviation over the chunk's values; of a mixture, its components' by weight.
    pub fn mean_std(row: GaussianRow) -> f64 {
        let components = row.std.chunks_exact(row.chunk_len());
        let means = components.map(|s| s.iter().map(|&s| f64::from(s)).sum::<f64>() / s.len() as f64);
        softmax(row.logits).iter().zip(means).map(|(w, mean)| w * mean).sum()
    }

    /// The log-probability that ratios are formed of, and whether a gradient goes through it.
    pub fn clamp(log_prob: f64) -> (f32, bool) {
        let outside = !(LOG_PROB_MIN..=LOG_PROB_MAX).contains(&log_prob) && !log_prob.is_nan();
        (log_prob.clamp(LOG_PROB_MIN, LOG_PROB_MAX) as f32, !outside)
    }

    /// What a joint log-density is multiplied by.
    fn scale(&self, row: GaussianRow) -> f64 {
        match (row.logits.is_empty(), self.mixture) {
            (true, _) | (false, MixtureDensity::PerDimension) => 1.0 / row.chunk_len() as f64,
            (false, MixtureDensity::Joint) => 1.0,
        }
    }

    fn evaluate(&self, row: GaussianRow, chunk: &[f32]) -> (f64, Shares) {
        let prior = softmax(row.logits);
        // log w_m + Σ log N(x; μ_m, σ_m)
        let mut terms: Vec<f64> = prior.iter().enumerate().map(|(m, w)| w.ln() + component(row, m, chunk)).collect();
        let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        terms.iter_mut().for_each(|t| *t = (*t - most).exp());
        let sum: f64 = terms.iter().sum();
        terms.iter_mut().for_each(|t| *t /= sum);
        (self.scale(row) * (most + sum.ln()), Shares { prior, posterior: terms })
    }
}

/// Σ log N(x; μ_m, σ_m) of component m.
fn component(row: GaussianRow, m: usize, chunk: &[f32]) -> f64 {
    let part = m * chunk.len()..(m + 1) * chunk.len();
    let values = row.mean[part.clone()].iter().zip(&row.log_std[part.clone()]).zip(&row.std[part]);
    let sum: f64 = values
        .zip(chunk)
        .map(|(((mean, log_std), std), x)| {
            let z = f64::from((x - mean) / std);
            -0.5 * z * z - f64::from(*log_std)
        })
        .sum();
    sum - 0.5 * std::f64::consts::TAU.ln() * chunk.len() as f64
}

/// Σ (ln σ + ½ ln 2πe) of each component.
fn component_entropies(row: GaussianRow) -> Vec<f64> {
    let constant = 0.5 * (std::f64::consts::TAU.ln() + 1.0);
    row.log_std.chunks_exact(row.chunk_len()).map(|s| s.iter().map(|&v| constant + f64::from(v)).sum()).collect()
}

/// One weight of 1 for a single Gaussian.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    if logits.is_empty() {
        return vec![1.0];
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f64> = logits.iter().map(|l| f64::from(l - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: [f32; 6] = [0.1, -0.4, 0.3, 0.8, -0.2, 0.0];
    const LOG_STD: [f32; 6] = [-1.0, -0.5, -2.0, -1.5, -0.3, -1.1];
    const LOGITS: [f32; 2] = [0.4, -0.7];
    const CHUNK: [f32; 3] = [0.2, -0.1, 0.25];

    /// Σ_m w_m Π_k N(x_k; μ_mk, σ_mk), by the formula itself.
    fn density(mean: &[f32], log_std: &[f32], weights: &[f64]) -> f64 {
        let normal = |x: f32, mean: f32, log_std: f32| {
            let (std, d) = (f64::from(log_std).exp(), f64::from(x - mean));
            (-0.5 * (d / std).powi(2)).exp() / (std * std::f64::consts::TAU.sqrt())
        };
        let of = |m: usize| (0..3).map(|k| normal(CHUNK[k], mean[3 * m + k], log_std[3 * m + k])).product::<f64>();
        weights.iter().enumerate().map(|(m, w)| w * of(m)).sum()
    }

    #[test]
    fn log_probabilities_are_those_of_the_formula() {
        let std = LOG_STD.map(f32::exp);
        let single = GaussianRow { mean: &MEAN[..3], log_std: &LOG_STD[..3], std: &std[..3], logits: &[] };
        let mixture = GaussianRow { mean: &MEAN, log_std: &LOG_STD, std: &std, logits: &LOGITS };
        let w = f64::from(LOGITS[0] - LOGITS[1]).exp();
        let joint = density(&MEAN, &LOG_STD, &[w / (1.0 + w), 1.0 / (1.0 + w)]).ln();
        let of = |mixture_density, row| Likelihood { mixture: mixture_density }.log_prob(row, &CHUNK);
        assert!((of(MixtureDensity::Joint, mixture) - joint).abs() < 1e-5);
        assert!((of(MixtureDensity::PerDimension, mixture) - joint / 3.0).abs() < 1e-5);
        for mixture in [MixtureDensity::Joint, MixtureDensity::PerDimension] {
            let expected = density(&MEAN[..3], &LOG_STD[..3], &[1.0]).ln() / 3.0;
            assert!((of(mixture, single) - expected).abs() < 1e-5, "a single Gaussian takes the mean");
        }
    }

    /// Of log p + 0.3 · entropy, against differences.
    #[test]
    fn gradients_are_the_slopes_of_log_probability_and_entropy() {
        for (mixture, logits) in [
            (MixtureDensity::Joint, &LOGITS[..]),
            (MixtureDensity::PerDimension, &LOGITS),
            (MixtureDensity::Joint, &[]),
        ] {
            let likelihood = Likelihood { mixture };
            let n = 3 * logits.len().max(1);
            let value = |mean: &[f32], log_std: &[f32], logits: &[f32]| {
                let std: Vec<f32> = log_std.iter().map(|s| s.exp()).collect();
                let row = GaussianRow { mean, log_std, std: &std, logits };
                likelihood.log_prob(row, &CHUNK) + 0.3 * likelihood.entropy(row)
            };
            let std = LOG_STD.map(f32::exp);
            let row = GaussianRow { mean: &MEAN[..n], log_std: &LOG_STD[..n], std: &std[..n], logits };
            let (mut d_mean, mut d_log_std, mut d_logits) = (vec![9.0; n], vec![9.0; n], vec![9.0; logits.len()]);
            let mut gradient =
                GaussianRowGradient { mean: &mut d_mean, log_std: &mut d_log_std, logits: &mut d_logits };
            let log_prob = likelihood.log_prob_and_gradient(row, &CHUNK, &mut gradient);
            assert_eq!(log_prob, likelihood.log_prob(row, &CHUNK));
            likelihood.add_entropy_gradient(row, 0.3, &mut gradient);
            let mut all = [MEAN[..n].to_vec(), LOG_STD[..n].to_vec(), logits.to_vec()];
            for (which, d) in [d_mean, d_log_std, d_logits].into_iter().enumerate() {
                for (i, d) in d.into_iter().enumerate() {
                    let mut moved = |by: f32| {
                        let before = all[which][i];
                        all[which][i] += by;
                        let value = value(&all[0], &all[1], &all[2]);
                        all[which][i] = before;
                        value
                    };
                    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    assert!(
                        (f64::from(d) - slope).abs() < 2e-2 * slope.abs().max(0.1),
                        "{which}[{i}]: {d}, not {slope}"
                    );
                }
            }
        }
    }

    #[test]
    fn entropy_of_a_single_gaussian_is_that_of_the_textbook() {
        let (mean, std) = ([0.0; 4], [0.1f32, 0.2, 0.3, 0.4]);
        let log_std = std.map(f32::ln);
        let row = GaussianRow { mean: &mean, log_std: &log_std, std: &std, logits: &[] };
        let textbook: f64 =
            std.iter().map(|&s| 0.5 * (std::f64::consts::TAU * std::f64::consts::E * f64::from(s).powi(2)).ln()).sum();
        assert!((Likelihood::default().entropy(row) - textbook / 4.0).abs() < 1e-6);
        // One component is the same distribution; the reference sums it over the chunk.
        let one = GaussianRow { logits: &[0.3], ..row };
        assert!((Likelihood { mixture: MixtureDensity::Joint }.entropy(one) - textbook).abs() < 1e-6);
        assert!((Likelihood::default().entropy(one) - textbook / 4.0).abs() < 1e-6);
    }

    #[test]
    fn the_clamp_lets_gradients_through_inside_and_never_hides_a_nan() {
        assert_eq!(Likelihood::clamp(2.5), (2.0, false));
        assert_eq!(Likelihood::clamp(-6.0), (-5.0, false));
        assert_eq!(Likelihood::clamp(1.5), (1.5, true));
        let (value, inside) = Likelihood::clamp(f64::NAN);
        assert!(value.is_nan() && inside);
    }
}
