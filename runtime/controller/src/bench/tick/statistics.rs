//! Quantiles of many durations, and how sure one may be of them.

use std::collections::BTreeMap;

/// Durations, ns, and how often each was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    counts: BTreeMap<u64, u64>,
    n: u64,
}

/// A quantile with the interval that holds the true one 95 times of 100. An end is absent where there are too few samples for it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Quantile {
    pub us: f64,
    pub low_us: Option<f64>,
    pub high_us: Option<f64>,
}

impl Durations {
    pub fn of(samples_ns: impl IntoIterator<Item = u64>) -> Self {
        let mut durations = Self::default();
        samples_ns.into_iter().for_each(|ns| durations.add(ns, 1));
        durations
    }

    pub fn add(&mut self, ns: u64, count: u64) {
        if count > 0 {
            *self.counts.entry(ns).or_default() += count;
            self.n += count;
        }
    }

    pub fn join(&mut self, other: &Self) {
        other.counts.iter().for_each(|(ns, count)| self.add(*ns, *count));
    }

    pub fn len(&self) -> u64 {
        self.n
    }

    /// In whole microseconds, rounded down: as cyclictest counts.
    pub fn whole_us(&self) -> Self {
        let mut whole = Self::default();
        self.counts.iter().for_each(|(ns, count)| whole.add(ns / 1000 * 1000, *count));
        whole
    }

    /// The value of a rank from 1 on; 0 where there is none.
    fn at_rank(&self, rank: u64) -> u64 {
        let mut before = 0;
        for (ns, count) in &self.counts {
            before += count;
            if before >= rank {
                return *ns;
            }
        }
        self.counts.last_key_value().map_or(0, |(ns, _)| *ns)
    }

    pub fn quantile(&self, q: f64) -> Quantile {
        let us = |rank: u64| self.at_rank(rank) as f64 * 1e-3;
        let (low, high) = interval_ranks(self.n, q);
        let rank = ((q * self.n as f64).ceil() as u64).max(1);
        Quantile { us: us(rank), low_us: low.map(us), high_us: high.map(us) }
    }

    pub fn us(&self, q: f64) -> f64 {
        self.quantile(q).us
    }

    pub fn max_us(&self) -> f64 {
        self.counts.last_key_value().map_or(0.0, |(ns, _)| *ns as f64 * 1e-3)
    }

    /// How many of a million are at least as long as `ns`.
    pub fn per_million_from(&self, ns: u64) -> f64 {
        let count: u64 = self.counts.range(ns..).map(|(_, count)| count).sum();
        if self.n == 0 { 0.0 } else { count as f64 * 1e6 / self.n as f64 }
    }
}

/// Ranks (from 1 on) of the samples between which the `q`-quantile lies with 95 %, whatever the distribution is.
///
/// The number M of `n` samples beyond the true quantile is binomial (n, 1 − q). The sample of rank n − m lies below the quantile only if
/// M ≤ m, and the one of rank n + 1 − m lies above it only if M ≥ m; each is let happen in 2.5 of 100 cases.
fn interval_ranks(n: u64, q: f64) -> (Option<u64>, Option<u64>) {
    const EACH: f64 = 0.025;
    let p = 1.0 - q;
    // As logarithms: the first ones are far below what a float can be.
    let mut ln_pmf = n as f64 * (-p).ln_1p();
    let odds = (p / q).ln();
    let mut cdf = 0.0;
    let mut high = None;
    for m in 0..=n {
        cdf += ln_pmf.exp();
        if cdf <= EACH {
            high = Some(n - m);
        }
        if cdf >= 1.0 - EACH {
            // M ≥ m + 1 is rarer than 2.5 %.
            return ((m < n).then(|| n - m), high.filter(|rank| *rank > 0));
        }
        ln_pmf += ((n - m) as f64 / (m + 1) as f64).ln() + odds;
    }
    (None, high)
}

/// The middle one; the mean of the middle two. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_of_ten_is_that_of_the_tables() {
        // (1 + 10) / 1024 = 1.07 % at each end; one rank further inside it would be (1 + 10 + 45) / 1024 = 5.47 %.
        assert_eq!(interval_ranks(10, 0.5), (Some(2), Some(9)));
        // Five are too few: 1 / 32 = 3.1 %. Six have 1 / 64.
        assert_eq!(interval_ranks(5, 0.5), (None, None));
        assert_eq!(interval_ranks(6, 0.5), (Some(1), Some(6)));
    }

    #[test]
    fn a_high_quantile_needs_many_samples_for_its_upper_end() {
        // 0.9999ⁿ ≤ 0.025 from n = ln 0.025 / ln 0.9999 = 36 886.95 on.
        assert_eq!(interval_ranks(36_886, 0.9999).1, None);
        assert_eq!(interval_ranks(36_887, 0.9999).1, Some(36_887));
        // Of a million, 100 are expected beyond; Poisson(100): P(≤ 80) = 2.26 %, P(≤ 81) = 2.83 %; P(≥ 121) = 2.27 %, P(≥ 120) = 2.82 %.
        assert_eq!(interval_ranks(1_000_000, 0.9999), (Some(999_880), Some(999_920)));
    }

    #[test]
    fn quantiles_are_samples() {
        let durations = Durations::of((1..=1000).map(|i| i * 1000 + 7));
        let ns = |us: f64| (us * 1e3).round() as u64;
        let found = (ns(durations.us(0.5)), ns(durations.us(0.999)), ns(durations.max_us()));
        assert_eq!(found, (500_007, 999_007, 1_000_007));
        assert_eq!(durations.whole_us().us(0.5), 500.0);
        assert_eq!(durations.per_million_from(991_000), 10_000.0);
        let wide = durations.quantile(0.999);
        assert!(wide.high_us.is_none() && wide.low_us.is_some_and(|low| low < wide.us), "{wide:?}");
        let mut twice = durations.clone();
        twice.join(&durations);
        assert_eq!((twice.len(), ns(twice.us(0.5))), (2000, 500_007));
        assert_eq!(Durations::default().us(0.5), 0.0);
    }

    #[test]
    fn the_median_of_segments() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.0, 2.5, 0.0));
    }
}
