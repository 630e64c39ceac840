//! Which part of the plane a chart shows, and where its ticks are.

use super::metric::{Metric, Unit, number};

/// The window of a chart; charts that are to be compared share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub x: [f64; 2],
    /// Values, or their decadic logarithms.
    pub y: [f64; 2],
    pub log: bool,
    /// Points that lie outside, drawn at the edge.
    pub outside: usize,
}

/// From this ratio of the largest to the smallest (positive) value on, the axis is logarithmic.
const LOG_RATIO: f64 = 100.0;
/// Values further from the bulk than this many widths of the bulk are cut off: they would hide everything else.
const FAR: f64 = 4.0;
/// The bulk: all but a fiftieth at either side.
const BULK: f64 = 0.02;
/// Fewer points than this are all shown.
const FEW: usize = 25;

impl Frame {
    /// The window that shows the curves, each as its steps and values; NaN values are gaps.
    pub fn fit<'a>(curves: impl Iterator<Item = (&'a [f64], &'a [f64])>, metric: &Metric) -> Self {
        let (mut x, mut values) = ([f64::INFINITY, f64::NEG_INFINITY], Vec::new());
        for (xs, ys) in curves {
            for &v in xs {
                x = [x[0].min(v), x[1].max(v)];
            }
            values.extend(ys.iter().copied().filter(|v| v.is_finite()));
        }
        if x[0] > x[1] {
            x = [0.0, 1.0];
        }
        if x[0] == x[1] {
            x = [x[0] - 1.0, x[1] + 1.0];
        }
        values.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            return Self { x, y: [0.0, 1.0], log: false, outside: 0 };
        };
        let log = least > 0.0 && most / least >= LOG_RATIO && metric.unit != Unit::Share;
        if log {
            return Self { x, y: padded(least.log10(), most.log10()), log, outside: 0 };
        }
        let [low, high] = bulk(&values);
        let outside = values.iter().filter(|v| !(low..=high).contains(*v)).count();
        let y = match metric.unit {
            // A rate of success is read against all there could be.
            Unit::Share if metric.headline && metric.higher_is_better.is_some() && low >= 0.0 && high <= 1.0 => {
                [0.0, 1.0]
            }
            _ => padded(low, high),
        };
        Self { x, y, log, outside }
    }

    /// The window that shows every finite value: nothing is cut off, and the axis is never logarithmic.
    pub fn whole<'a>(curves: impl Iterator<Item = (&'a [f64], &'a [f64])>) -> Self {
        let (mut x, mut y) = ([f64::INFINITY, f64::NEG_INFINITY], [f64::INFINITY, f64::NEG_INFINITY]);
        for (xs, ys) in curves {
            xs.iter().for_each(|&v| x = [x[0].min(v), x[1].max(v)]);
            ys.iter().filter(|v| v.is_finite()).for_each(|&v| y = [y[0].min(v), y[1].max(v)]);
        }
        let x = if x[0] < x[1] { x } else { [x[0].min(0.0), x[0].max(0.0) + 1.0] };
        let x = if x.iter().all(|v| v.is_finite()) { x } else { [0.0, 1.0] };
        let y = if y[0] <= y[1] { padded(y[0], y[1]) } else { [0.0, 1.0] };
        Self { x, y, log: false, outside: 0 }
    }

    /// Where a value lies in the window, 0 to 1 upwards; what is outside lies at the edge.
    pub fn height(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        ((value - self.y[0]) / (self.y[1] - self.y[0])).clamp(0.0, 1.0)
    }

    /// Where a step lies, 0 to 1.
    pub fn along(&self, step: f64) -> f64 {
        ((step - self.x[0]) / (self.x[1] - self.x[0])).clamp(0.0, 1.0)
    }

    /// Ticks of the steps: value and text.
    pub fn x_ticks(&self) -> Vec<(f64, String)> {
        let step = nice_step(self.x[1] - self.x[0], 6).max(1.0);
        multiples(self.x, step).map(|v| (v, whole(v))).collect()
    }

    /// Ticks of the values: value and text.
    pub fn y_ticks(&self, unit: Unit) -> Vec<(f64, String)> {
        let scale = if unit == Unit::Share { 100.0 } else { 1.0 };
        let text = |v: f64| if unit == Unit::Share { format!("{} %", number(v * scale)) } else { number(v) };
        if self.log {
            let decades = self.y[1] - self.y[0];
            let every = (decades / 6.0).ceil().max(1.0);
            let factors: &[f64] = if decades < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let powers = multiples([self.y[0].floor() - every, self.y[1]], every);
            let all = powers.flat_map(|power| factors.iter().map(move |f| f * 10f64.powf(power)));
            return all.filter(|v| (self.y[0]..=self.y[1]).contains(&v.log10())).map(|v| (v, text(v))).collect();
        }
        let step = nice_step((self.y[1] - self.y[0]) * scale, 5) / scale;
        // Zero must read 0, not 1e-17.
        multiples(self.y, step).map(|v| (v, text(if v.abs() < step * 1e-6 { 0.0 } else { v }))).collect()
    }
}

/// The range of sorted values that is worth showing.
fn bulk(sorted: &[f64]) -> [f64; 2] {
    let n = sorted.len();
    let (least, most) = (sorted[0], sorted[n - 1]);
    if n < FEW {
        return [least, most];
    }
    let cut = ((n as f64 * BULK).ceil() as usize).max(1);
    let (low, high) = (sorted[cut], sorted[n - 1 - cut]);
    let width = high - low;
    [
        if width > 0.0 && low - least > FAR * width { low - 0.5 * width } else { least },
        if width > 0.0 && most - high > FAR * width { high + 0.5 * width } else { most },
    ]
}

fn padded(low: f64, high: f64) -> [f64; 2] {
    if high > low {
        let pad = 0.04 * (high - low);
        return [low - pad, high + pad];
    }
    let pad = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
    [low - pad, high + pad]
}

/// 1, 2 or 5 times a power of ten: at most `most` steps in `range`.
fn nice_step(range: f64, most: usize) -> f64 {
    let raw = range / most as f64;
    if !(raw.is_finite() && raw > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|f| f * power)
        .into_iter()
        .find(|step| *step >= raw * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn multiples([low, high]: [f64; 2], step: f64) -> impl Iterator<Item = f64> {
    let first = (low / step - 1e-9).ceil();
    // A window holds a handful of ticks; the bound only guards against a step that rounding made nought.
    (0..100).map(move |i| (first + f64::from(i)) * step).take_while(move |v| *v <= high + step * 1e-9)
}

/// Steps: 1500, 20k, 3M.
fn whole(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", number(value / 1e6)),
        v if v >= 1e4 => format!("{}k", number(value / 1e3)),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(values: &[f64], name: &str) -> Frame {
        let steps: Vec<f64> = (1..=values.len()).map(|i| i as f64).collect();
        Frame::fit([(&steps[..], values)].into_iter(), &Metric::of(name))
    }

    fn texts(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_window() {
        let frame = fit(&[0.0, 0.2, 0.9], "success_rate");
        assert_eq!(texts(frame.y_ticks(Unit::Share)), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        let frame = fit(&[-3.0, 8.0], "mean_return");
        assert_eq!(texts(frame.y_ticks(Unit::Plain)), ["0", "5"]);
        let steps: Vec<f64> = (1..=400).map(f64::from).collect();
        assert_eq!(texts(fit(&steps, "x").x_ticks()), ["100", "200", "300", "400"]);
    }

    #[test]
    fn values_over_decades_get_a_logarithmic_axis() {
        let frame = fit(&[1.0, 0.1, 1e-5], "loss");
        assert!(frame.log && frame.height(1.0) > 0.9 && frame.height(1e-5) < 0.1);
        assert_eq!(texts(frame.y_ticks(Unit::Plain)), ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1"]);
        assert!(!fit(&[1.0, 0.0], "loss").log, "nought has no logarithm");
    }

    #[test]
    fn a_single_far_value_does_not_hide_the_others() {
        let mut values: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
        values[0] = -500.0;
        let frame = fit(&values, "explained_variance");
        assert!(frame.y[0] > -2.0 && frame.outside == 1 && frame.height(-500.0) == 0.0, "{frame:?}");
    }

    #[test]
    fn no_values_one_value_and_equal_values_have_a_window() {
        for values in [&[][..], &[f64::NAN], &[3.0], &[0.0, 0.0, 0.0]] {
            let frame = fit(values, "loss");
            assert!(frame.x[1] > frame.x[0] && frame.y[1] > frame.y[0], "{frame:?}");
            assert!(!frame.y_ticks(Unit::Plain).is_empty() && frame.x_ticks().len() < 10);
        }
    }
}
