//! What a minibatch makes of its advantages (spec dppo.md §2.5e).

use super::LossConfig;
use crate::rollout::normalize;

/// Steps 3–5 of the loss: normalise within the minibatch, clip to its quantiles, discount by denoising step.
///
/// `advantages`: one a row, in place; `step_of(i)`: the row's denoising step j; `steps` = K'.
pub fn shape_advantages(config: &LossConfig, advantages: &mut [f32], steps: usize, step_of: impl Fn(usize) -> usize) {
    if config.norm_adv {
        normalize(advantages);
    }
    let (lower, upper) = (config.clip_advantage_lower_quantile, config.clip_advantage_upper_quantile);
    // The full range clips nothing.
    if lower > 0.0 || upper < 1.0 {
        let mut sorted = advantages.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let (lo, hi) = (quantile(&sorted, lower), quantile(&sorted, upper));
        for a in advantages.iter_mut() {
            *a = a.max(lo).min(hi);
        }
    }
    let discounts: Vec<f32> = (0..steps).map(|j| config.gamma_denoising.powi((steps - 1 - j) as i32) as f32).collect();
    for (i, a) in advantages.iter_mut().enumerate() {
        *a *= discounts[step_of(i)];
    }
}

/// Quantile `q` of sorted values, linear between neighbours. Panics on an empty slice.
pub fn quantile(sorted: &[f32], q: f64) -> f32 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let (lo, hi) = (f64::from(sorted[below]), f64::from(sorted[above]));
    (lo + (hi - lo) * (position - below as f64)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_linearly() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }
}
