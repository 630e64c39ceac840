//! Medians and quantiles with intervals that assume nothing about the distribution.

/// A quantile of a sample.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Quantile {
    pub value: f64,
    /// 95 % interval from order statistics; infinite on a side where the sample is too small to bound it.
    pub interval: [f64; 2],
}

/// The `p`-quantile of finite values, by the binomial distribution of how many lie below it. `None` for an empty sample.
pub fn quantile(values: &[f64], p: f64) -> Option<Quantile> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let last = n.checked_sub(1)?;
    let place = p * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let value = sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64);
    // Largest l with P(fewer than l below) ≤ 2.5 %, smallest u with P(at least u below) ≤ 2.5 %: [x_l, x_u] covers.
    let below = cumulative_binomial(n, p);
    let lower = below.iter().rposition(|&c| c <= 0.025).map_or(f64::NEG_INFINITY, |i| sorted[i]);
    let upper = below
        .iter()
        .position(|&c| c >= 0.975)
        .filter(|&i| i < n)
        .map_or(f64::INFINITY, |i| sorted.get(i).copied().unwrap_or(f64::INFINITY));
    Some(Quantile { value, interval: [lower, upper] })
}

/// P(X ≤ k) for k = 0..=n, X binomial.
fn cumulative_binomial(n: usize, p: f64) -> Vec<f64> {
    // In logarithms: n may be thousands.
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    let mut out = Vec::with_capacity(n + 1);
    for k in 0..=n {
        if k > 0 {
            log_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        sum += (log_choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp();
        out.push(sum.min(1.0));
    }
    out
}

/// Mean and standard deviation (with n − 1); the latter is 0 for one value.
pub fn mean_and_std(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squared: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((mean, if values.len() > 1 { (squared / (n - 1.0)).sqrt() } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn intervals_hold_the_true_quantile_as_often_as_they_say() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (n, p) in [(20, 0.5), (60, 0.5), (200, 0.95)] {
            let rounds = 4000;
            let mut inside = 0;
            for _ in 0..rounds {
                let values: Vec<f64> = (0..n).map(|_| rng.random::<f64>()).collect();
                let q = quantile(&values, p).unwrap();
                inside += usize::from(q.interval[0] <= p && p <= q.interval[1]);
            }
            let part = inside as f64 / rounds as f64;
            assert!((0.94..0.985).contains(&part), "n {n} p {p}: {part}");
        }
    }

    #[test]
    fn a_sample_too_small_to_bound_a_quantile_says_so() {
        let q = quantile(&[1.0, 2.0, 3.0], 0.95).unwrap();
        assert!((q.value - 2.9).abs() < 1e-12 && q.interval[1].is_infinite());
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[4.0], 0.5).unwrap().value, 4.0);
        assert_eq!(mean_and_std(&[1.0, 3.0]), Some((2.0, 2.0_f64.sqrt())));
        assert_eq!(mean_and_std(&[]), None);
    }
}
