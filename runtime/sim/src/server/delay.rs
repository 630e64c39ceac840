//! How long UpdateController takes on a server that loads archives with PyTorch.

use std::time::Duration;

use tenon_core::noise::{NoiseSource, SeededNoise};

/// Standard normal quantile of 0.99.
const Z_99: f64 = 2.326_347_9;
/// Stream of the seed's noise; the arm's start has another.
const STREAM: u64 = 1;

/// Mean and 99th percentile of a log-normal distribution: most calls take about as long, a few much longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateDelay {
    pub mean: Duration,
    pub p99: Duration,
}

impl UpdateDelay {
    /// The middle of what was measured on the real server (spec `polymetis.md` §4.8: mean 4.5 to 6.7 ms, p99 8 to 22 ms).
    pub const MEASURED: Self = Self { mean: Duration::from_micros(5600), p99: Duration::from_millis(15) };

    /// Mean and standard deviation of the delay's logarithm (s); `None` where no log-normal distribution has these two.
    fn logarithm(self) -> Option<(f64, f64)> {
        let (mean, p99) = (self.mean.as_secs_f64(), self.p99.as_secs_f64());
        // ln(p99 / mean) = z σ − σ²/2, of which the smaller solution is the narrow one.
        let squared = Z_99 * Z_99 - 2.0 * (p99 / mean).ln();
        if !(mean > 0.0 && p99 > mean && squared >= 0.0) {
            return None;
        }
        let sigma = Z_99 - squared.sqrt();
        Some((mean.ln() - 0.5 * sigma * sigma, sigma))
    }
}

impl std::str::FromStr for UpdateDelay {
    type Err = String;

    /// `MEAN,P99` in milliseconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: give the mean and the 99th percentile in ms, for example 5.6,15");
        let (mean, p99) = text.split_once(',').ok_or_else(wrong)?;
        let ms = |text: &str| text.trim().parse::<f64>().ok().filter(|ms| (0.0..=10_000.0).contains(ms));
        let of = |ms: f64| Duration::from_secs_f64(ms * 1e-3);
        let delay = Self { mean: of(ms(mean).ok_or_else(wrong)?), p99: of(ms(p99).ok_or_else(wrong)?) };
        match delay.logarithm() {
            Some(_) => Ok(delay),
            None => Err(format!("{text:?}: the 99th percentile must be above the mean and below 14 times it")),
        }
    }
}

/// Draws delays.
#[derive(Debug)]
pub struct DelaySource {
    logarithm: (f64, f64),
    noise: SeededNoise,
}

impl DelaySource {
    /// `None` where there is no such distribution.
    pub fn new(delay: UpdateDelay, seed: u64) -> Option<Self> {
        Some(Self { logarithm: delay.logarithm()?, noise: SeededNoise::new(seed, STREAM) })
    }

    pub fn draw(&mut self) -> Duration {
        let mut normal = [0.0];
        self.noise.fill_standard_normal(&mut normal);
        let (mean, sigma) = self.logarithm;
        Duration::from_secs_f64((mean + sigma * f64::from(normal[0])).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_the_mean_and_the_percentile_that_were_asked_for() {
        let mut source = DelaySource::new(UpdateDelay::MEASURED, 1).unwrap();
        let mut ms: Vec<f64> = (0..20_000).map(|_| source.draw().as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let mean = ms.iter().sum::<f64>() / ms.len() as f64;
        assert!((mean - 5.6).abs() < 0.1 && (ms[19_800] - 15.0).abs() < 0.7, "{mean} {}", ms[19_800]);
    }

    #[test]
    fn what_no_distribution_has_is_refused() {
        assert_eq!("5.6,15".parse(), Ok(UpdateDelay::MEASURED));
        for text in ["5", "5,x", "5,4", "1,100", "-1,2", ""] {
            assert!(text.parse::<UpdateDelay>().is_err(), "{text}");
        }
    }
}
