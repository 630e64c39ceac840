//! Delays by motion correlation: two records of one motion, and by how much the second comes later.
//!
//! The first record is what caused the motion (joint targets, the arm's own state), the second what saw it (arm state, tag
//! poses). Each is a signal over its own time stamps on one clock. The delay of a stretch is where the correlation of their
//! rates of change is largest; stretches one after the other give the distribution.

use serde::Serialize;
use tenon_core::config::rig::Delay;

use super::statistics::{mean_and_std, quantile};

/// A value and when it was, s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub time_s: f64,
    pub value: f64,
}

/// How delays are searched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencySettings {
    /// Delays are looked for from 0 to this, s.
    pub max_delay_s: f64,
    /// Length of one stretch, s.
    pub stretch_s: f64,
    /// Correlation below which a stretch says nothing (too little motion, or another motion).
    pub min_correlation: f64,
}

impl Default for LatencySettings {
    fn default() -> Self {
        Self { max_delay_s: 0.5, stretch_s: 2.0, min_correlation: 0.9 }
    }
}

/// Why there is no delay.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LatencyError {
    #[error("{what}: {samples} samples over {seconds:.1} s are too few: record at least {wanted:.1} s")]
    TooShort { what: &'static str, samples: usize, seconds: f64, wanted: f64 },
    #[error("{what}: sample {index} at {time_s} s: times must increase and values be finite")]
    Disordered { what: &'static str, index: usize, time_s: f64 },
    #[error(
        "the two records do not show the same motion (largest correlation {best:.2}, wanted {wanted:.2}): move with changing \
         speed, and see that the tag stays in view"
    )]
    NotTheSameMotion { best: f64, wanted: f64 },
}

/// Grid on which signals are compared, s.
const GRID_S: f64 = 1e-3;

/// The delay of `response` behind `cause` as a distribution over stretches.
pub fn delay(cause: &[Sample], response: &[Sample], settings: &LatencySettings) -> Result<Delay, LatencyError> {
    let wanted = settings.stretch_s + settings.max_delay_s;
    for (what, samples) in [("the cause", cause), ("the response", response)] {
        let seconds = samples.last().map_or(0.0, |s| s.time_s) - samples.first().map_or(0.0, |s| s.time_s);
        if samples.len() < 8 || seconds < wanted {
            return Err(LatencyError::TooShort { what, samples: samples.len(), seconds, wanted });
        }
        for (index, pair) in samples.windows(2).enumerate() {
            let ordered = pair[1].time_s > pair[0].time_s && pair.iter().all(|s| s.value.is_finite());
            if !ordered {
                return Err(LatencyError::Disordered { what, index: index + 1, time_s: pair[1].time_s });
            }
        }
    }
    let begin = cause[0].time_s.max(response[0].time_s);
    let end = cause[cause.len() - 1].time_s.min(response[response.len() - 1].time_s) - settings.max_delay_s;
    let mut found = Vec::new();
    let mut best = f64::NEG_INFINITY;
    let mut from = begin;
    while from + settings.stretch_s <= end {
        if let Some((delay_s, correlation)) = stretch_delay(cause, response, from, settings) {
            best = best.max(correlation);
            if correlation >= settings.min_correlation {
                found.push(delay_s);
            }
        }
        // Half a stretch each: they overlap, which costs nothing and smooths where they are cut.
        from += 0.5 * settings.stretch_s;
    }
    let not_the_same = LatencyError::NotTheSameMotion { best, wanted: settings.min_correlation };
    let (mean_s, std_s) = mean_and_std(&found).ok_or_else(|| not_the_same.clone())?;
    let at = |p: f64| quantile(&found, p).map(|q| q.value).ok_or_else(|| not_the_same.clone());
    let max_s = found.iter().copied().fold(0.0, f64::max);
    Ok(Delay { samples: found.len(), mean_s, std_s, p50_s: at(0.5)?, p95_s: at(0.95)?, max_s })
}

/// Delay and correlation of one stretch of the cause.
fn stretch_delay(cause: &[Sample], response: &[Sample], from: f64, settings: &LatencySettings) -> Option<(f64, f64)> {
    let points = (settings.stretch_s / GRID_S) as usize;
    let shifts = (settings.max_delay_s / GRID_S) as usize;
    // Differences over a few grid steps: a rate, whatever the two offsets are.
    let a = rates(cause, from, points)?;
    let b = rates(response, from, points + shifts)?;
    let mut correlations = Vec::with_capacity(shifts + 1);
    for shift in 0..=shifts {
        correlations.push(correlation(&a, &b[shift..shift + points]));
    }
    let best = correlations.iter().enumerate().max_by(|x, y| x.1.total_cmp(y.1)).map(|(i, _)| i)?;
    // A parabola through the three highest points finds the top between them.
    let offset = match (best.checked_sub(1).map(|i| correlations[i]), correlations.get(best + 1)) {
        (Some(left), Some(&right)) => {
            let bend = left - 2.0 * correlations[best] + right;
            if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 }
        }
        _ => 0.0,
    };
    Some(((best as f64 + offset) * GRID_S, correlations[best]))
}

/// Width over which a rate is taken, grid steps: the slower of the usual signals comes every 33 ms.
const RATE_STEPS: usize = 34;

fn rates(samples: &[Sample], from: f64, points: usize) -> Option<Vec<f64>> {
    let half = 0.5 * RATE_STEPS as f64 * GRID_S;
    let (before, after) = (resampled(samples, from - half, points), resampled(samples, from + half, points));
    let rates: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    rates.iter().all(|v| v.is_finite()).then_some(rates)
}

/// Values on the grid, between samples on the straight line, beyond the ends as there.
fn resampled(samples: &[Sample], from: f64, points: usize) -> Vec<f64> {
    let mut cursor = 0;
    let mut at = |time_s: f64| {
        while cursor + 2 < samples.len() && samples[cursor + 1].time_s < time_s {
            cursor += 1;
        }
        let (a, b) = (samples[cursor], samples[cursor + 1]);
        let part = ((time_s - a.time_s) / (b.time_s - a.time_s)).clamp(0.0, 1.0);
        a.value + (b.value - a.value) * part
    };
    (0..points).map(|i| at(from + i as f64 * GRID_S)).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    // No motion at all correlates with nothing.
    if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::noise::{NoiseSource, SeededNoise};

    /// A swing of changing speed, m.
    fn swing(t: f64) -> f64 {
        0.1 * (1.7 * t).sin() + 0.04 * (4.1 * t + 0.7).sin() + 0.02 * (7.9 * t + 0.2).sin()
    }

    fn record(rate_hz: f64, seconds: f64, delay: impl Fn(f64) -> f64, noise_m: f64, seed: u64) -> Vec<Sample> {
        let mut source = SeededNoise::new(seed, 0);
        let sample = |i: usize| {
            let time_s = 100.0 + i as f64 / rate_hz;
            let mut d = [0.0_f32];
            source.fill_standard_normal(&mut d);
            Sample { time_s, value: swing(time_s - delay(time_s)) + f64::from(d[0]) * noise_m }
        };
        (0..(rate_hz * seconds) as usize).map(sample).collect()
    }

    #[test]
    fn known_delays_are_found_to_a_millisecond() {
        let settings = LatencySettings::default();
        for (true_s, noise_m) in [(0.0, 0.0), (0.0123, 0.0), (0.055, 2e-4), (0.2, 2e-4)] {
            let cause = record(200.0, 20.0, |_| 0.0, 0.0, 1);
            let response = record(30.0, 20.0, |_| true_s, noise_m, 2);
            let found = delay(&cause, &response, &settings).unwrap();
            assert!((found.p50_s - true_s).abs() < 1.5e-3, "{true_s}: {found:?}");
            assert!(found.samples >= 15 && found.p50_s <= found.p95_s && found.p95_s <= found.max_s);
        }
    }

    #[test]
    fn a_delay_that_changes_shows_in_the_spread() {
        let cause = record(200.0, 40.0, |_| 0.0, 0.0, 1);
        let steady = delay(&cause, &record(30.0, 40.0, |_| 0.06, 1e-4, 3), &LatencySettings::default()).unwrap();
        let jumping = record(30.0, 40.0, |t| if ((t / 5.0) as usize).is_multiple_of(2) { 0.05 } else { 0.08 }, 1e-4, 3);
        let jumping = delay(&cause, &jumping, &LatencySettings::default()).unwrap();
        assert!(steady.std_s < 2e-3 && jumping.std_s > 8e-3, "{steady:?} {jumping:?}");
    }

    #[test]
    fn other_motions_standstill_and_short_records_are_refused() {
        let settings = LatencySettings::default();
        let cause = record(200.0, 20.0, |_| 0.0, 0.0, 1);
        let mut still = record(30.0, 20.0, |_| 0.0, 0.0, 1);
        still.iter_mut().for_each(|s| s.value = 0.3);
        assert!(matches!(delay(&cause, &still, &settings), Err(LatencyError::NotTheSameMotion { .. })));
        let mut other = record(30.0, 20.0, |_| 0.0, 0.0, 1);
        other.iter_mut().for_each(|s| s.value = (0.4 * s.time_s * s.time_s).sin());
        let said = delay(&cause, &other, &settings).unwrap_err().to_string();
        assert!(said.contains("same motion"), "{said}");
        let said = delay(&cause, &still[..20], &settings).unwrap_err().to_string();
        assert!(said.contains("the response: 20 samples over 0.6 s"), "{said}");
        let mut reversed = record(30.0, 20.0, |_| 0.0, 0.0, 1);
        reversed.swap(50, 51);
        assert!(delay(&cause, &reversed, &settings).unwrap_err().to_string().contains("times must increase"));
        let mut broken = record(30.0, 20.0, |_| 0.0, 0.0, 1);
        broken[7].value = f64::NAN;
        assert!(matches!(delay(&cause, &broken, &settings), Err(LatencyError::Disordered { .. })));
    }
}
