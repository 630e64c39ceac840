//! Curves as inline SVG, coloured by the page's style or, alone in a file, by their own.

use std::fmt::Write;

use super::axis::Frame;
use super::metric::Metric;
use super::page::escape;

/// Colours of a page and of a picture, light and dark.
pub const COLORS: &str = "\
:root{color-scheme:light dark;--fg:#1d2329;--bg:#fff;--line:#d5dbe1;--good:#0b7a4b;--bad:#c23b22;--dim:#667;\
--c0:#2f6fdb;--c1:#c96a12;--c2:#0b7a4b;--c3:#c23b22;--c4:#7b4fc9;--c5:#0f8298;--c6:#b03a82;--c7:#7a6a00}\
@media(prefers-color-scheme:dark){:root{--fg:#e4e8ec;--bg:#14181c;--line:#39424b;--good:#4fc48a;--bad:#ff7a5c;\
--dim:#9aa5b1;--c0:#6fa2ff;--c1:#f2a254;--c2:#4fc48a;--c3:#ff7a5c;--c4:#b394f5;--c5:#4cc3d9;--c6:#f07fc0;--c7:#d2c04a}}";

/// Style of the charts themselves.
pub const CHART_STYLE: &str = "\
.chart text{font:11px system-ui,sans-serif;fill:var(--dim)}.chart .title{font-size:13px;font-weight:600;fill:var(--fg)}\
.chart .grid{stroke:var(--line);stroke-width:.7}.chart path{fill:none;stroke-width:1.8;stroke-linejoin:round}\
.chart .raw{stroke-width:1;opacity:.35}.chart circle{stroke:none}";

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TITLE_HEIGHT: f64 = 26.0;
const LEGEND_ROW: f64 = 15.0;
const BOTTOM: f64 = 36.0;
/// Mean width of a letter of the legend, generously.
const LETTER: f64 = 6.3;
/// Colours that a page knows by name.
const PALETTE: usize = 8;
/// A curve is drawn by at most so many places; each shows its least and its greatest value.
const PLACES: usize = 300;
/// Curves of fewer points are drawn as they are, with dots.
const FEW: usize = 60;

/// Colour of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Color {
    /// The n-th of a set whose members have no order.
    Nth(usize),
    /// Place in an order, 0 to 1.
    Scale(f64),
}

impl Color {
    /// As CSS.
    pub fn css(self) -> String {
        match self {
            Self::Nth(i) => format!("var(--c{})", i % PALETTE),
            Self::Scale(place) => format!("hsl({:.0} 70% 50%)", 225.0 - 205.0 * place.clamp(0.0, 1.0)),
        }
    }
}

/// One curve: `ys[i]` at step `xs[i]`; NaN is a gap.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    pub name: &'a str,
    pub color: Color,
    pub xs: &'a [f64],
    pub ys: &'a [f64],
}

/// A chart of some curves.
#[derive(Debug)]
pub struct Chart<'a> {
    pub title: String,
    /// What the steps are called.
    pub counter: &'a str,
    pub metric: &'a Metric,
    pub frame: &'a Frame,
    pub curves: Vec<Curve<'a>>,
    /// Draws what was measured behind the smoothed curves.
    pub raw: bool,
    /// Whether long curves are smoothed; where not, only what was measured is drawn.
    pub smooth: bool,
}

impl Chart<'_> {
    /// The `<svg>` element, for a page with [`COLORS`] and [`CHART_STYLE`].
    pub fn inline(&self) -> String {
        self.svg("")
    }

    /// A whole file.
    pub fn file(&self) -> String {
        let style = format!("<style>{COLORS}{CHART_STYLE}svg{{background:var(--bg)}}</style>");
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", self.svg(&style))
    }

    fn svg(&self, style: &str) -> String {
        let legend = if self.curves.len() > 1 { self.legend() } else { Vec::new() };
        let rows = legend.last().map_or(0, |(_, row, _)| row + 1);
        let top = TITLE_HEIGHT + LEGEND_ROW * rows as f64 + 4.0;
        let height = HEIGHT + LEGEND_ROW * rows as f64;
        let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
        let px = |x: f64| LEFT + self.frame.along(x) * (right - LEFT);
        let py = |y: f64| bottom - self.frame.height(y) * (bottom - top);
        let title = escape(&self.title);
        // Writing to a String cannot fail, here and below.
        let mut s = format!(
            r#"<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">{style}<text class="title" x="8" y="17">{title}</text>"#
        );
        if let Some(note) = self.note() {
            let _ = write!(s, r#"<text x="{right}" y="17" text-anchor="end">{}</text>"#, escape(&note));
        }
        for (i, row, x) in legend {
            let (curve, y) = (&self.curves[i], TITLE_HEIGHT + LEGEND_ROW * row as f64);
            let (color, name) = (curve.color.css(), escape(curve.name));
            let _ = write!(
                s,
                r#"<rect x="{x:.0}" y="{:.0}" width="9" height="9" style="fill:{color}"/><text x="{:.0}" y="{:.0}">{name}</text>"#,
                y,
                x + 13.0,
                y + 9.0
            );
        }
        for (value, text) in self.frame.x_ticks() {
            let x = px(value);
            let _ = write!(
                s,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{top:.1}" y2="{bottom:.1}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                bottom + 15.0
            );
        }
        for (value, text) in self.frame.y_ticks(self.metric.unit) {
            let y = py(value);
            let _ = write!(
                s,
                r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                LEFT - 5.0,
                y + 4.0
            );
        }
        let counter = escape(self.counter);
        let _ = write!(s, r#"<text x="{right}" y="{:.1}" text-anchor="end">{counter}</text>"#, bottom + 29.0);
        for curve in &self.curves {
            self.draw(&mut s, curve, &px, &py);
        }
        s.push_str("</svg>");
        s
    }

    fn draw(&self, s: &mut String, curve: &Curve, px: &dyn Fn(f64) -> f64, py: &dyn Fn(f64) -> f64) {
        let color = curve.color.css();
        let mut line = |points: &[[f64; 2]], class: &str| {
            let mut path = String::new();
            let mut pen_down = false;
            for &[x, y] in points {
                if !y.is_finite() {
                    pen_down = false;
                    continue;
                }
                let _ = write!(path, "{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, px(x), py(y));
                pen_down = true;
            }
            if !path.is_empty() {
                let _ = write!(s, r#"<path class="{class}" style="stroke:{color}" d="{path}"/>"#);
            }
        };
        let few = curve.ys.len() < FEW;
        if few || self.raw || !self.smooth {
            line(&thinned(curve.xs, curve.ys), if few || !self.smooth { "smooth" } else { "raw" });
        }
        if few {
            for (&x, &y) in curve.xs.iter().zip(curve.ys).filter(|(_, y)| y.is_finite()) {
                let _ = write!(s, r#"<circle cx="{:.1}" cy="{:.1}" r="2" style="fill:{color}"/>"#, px(x), py(y));
            }
        } else if self.smooth {
            line(&thinned(curve.xs, &smoothed(curve.ys, self.frame.log)), "smooth");
        }
    }

    /// The newest value of a single curve, and what is cut off.
    fn note(&self) -> Option<String> {
        let newest = match &self.curves[..] {
            [curve] => curve.ys.iter().rev().find(|v| !v.is_nan()).map(|v| self.metric.text(*v)),
            _ => None,
        };
        let cut = (self.frame.outside > 0 && self.raw).then(|| match self.frame.outside {
            1 => "1 point cut off".to_string(),
            n => format!("{n} points cut off"),
        });
        let parts: Vec<String> = cut.into_iter().chain(newest).collect();
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    /// Curve, row and x of each entry of the legend.
    fn legend(&self) -> Vec<(usize, usize, f64)> {
        let (mut row, mut x) = (0, LEFT);
        let mut entries = Vec::with_capacity(self.curves.len());
        for (i, curve) in self.curves.iter().enumerate() {
            let width = 24.0 + LETTER * curve.name.chars().count() as f64;
            if x > LEFT && x + width > WIDTH - RIGHT {
                (row, x) = (row + 1, LEFT);
            }
            entries.push((i, row, x));
            x += width;
        }
        entries
    }
}

/// Smoothed with weights that fall off exponentially to both sides over a sixtieth of the curve, so that it neither lags
/// nor forgets its ends; short curves stay as they are. NaN stays NaN.
///
/// `log`: smooths the logarithms, as the axis shows them.
pub fn smoothed(values: &[f64], log: bool) -> Vec<f64> {
    if values.len() < FEW {
        return values.to_vec();
    }
    let keep = (-1.0 / (values.len() as f64 / 60.0).max(1.0)).exp();
    let shown = |i: usize| if log { values[i].log10() } else { values[i] };
    // Σ keep^distance · value and Σ keep^distance of what is there, one side after the other.
    let mut sums = vec![[0.0; 2]; values.len()];
    let mut pass = |order: &mut dyn Iterator<Item = usize>, with_itself: bool| {
        let mut side = [0.0; 2];
        for i in order {
            side = side.map(|s| keep * s);
            let v = shown(i);
            let itself = if v.is_finite() { [v, 1.0] } else { [0.0; 2] };
            let counted = if with_itself { [side[0] + itself[0], side[1] + itself[1]] } else { side };
            side = [side[0] + itself[0], side[1] + itself[1]];
            sums[i] = [sums[i][0] + counted[0], sums[i][1] + counted[1]];
        }
    };
    pass(&mut (0..values.len()), true);
    pass(&mut (0..values.len()).rev(), false);
    let mean = |i: usize| match sums[i] {
        _ if !shown(i).is_finite() => f64::NAN,
        [sum, weight] if log => 10f64.powf(sum / weight),
        [sum, weight] => sum / weight,
    };
    (0..values.len()).map(mean).collect()
}

/// At most two points a place: where a place holds many, its least and greatest value in their order.
fn thinned(xs: &[f64], ys: &[f64]) -> Vec<[f64; 2]> {
    let n = xs.len().min(ys.len());
    if n <= 2 * PLACES {
        return xs.iter().zip(ys).map(|(&x, &y)| [x, y]).collect();
    }
    let mut points = Vec::with_capacity(2 * PLACES + 2);
    for place in 0..PLACES {
        let range = place * n / PLACES..(place + 1) * n / PLACES;
        let there = || range.clone().filter(|&i| !ys[i].is_nan());
        let least = there().min_by(|&a, &b| ys[a].total_cmp(&ys[b]));
        let most = there().max_by(|&a, &b| ys[a].total_cmp(&ys[b]));
        match (least, most) {
            (Some(a), Some(b)) if a == b => points.push([xs[a], ys[a]]),
            (Some(a), Some(b)) => points.extend([a.min(b), a.max(b)].map(|i| [xs[i], ys[i]])),
            _ => points.push([xs[range.start], f64::NAN]),
        }
    }
    // The newest value is where people look.
    points.push([xs[n - 1], ys[n - 1]]);
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(ys: &[f64], curves: usize) -> String {
        let xs: Vec<f64> = (0..ys.len()).map(|i| i as f64).collect();
        let metric = Metric::of("loss");
        let frame = Frame::fit([(&xs[..], ys)].into_iter(), &metric);
        let curve = |i| Curve { name: "a <run>", color: Color::Nth(i), xs: &xs, ys };
        let curves = (0..curves).map(curve).collect();
        Chart {
            title: "Loss".into(),
            counter: "epoch",
            metric: &metric,
            frame: &frame,
            curves,
            raw: true,
            smooth: true,
        }
        .file()
    }

    #[test]
    fn every_number_of_a_picture_is_finite_whatever_the_values() {
        for ys in [&[][..], &[1.0], &[f64::NAN, 2.0, f64::NAN, 3.0], &[f64::INFINITY, 1.0], &[5.0; 50]] {
            let svg = chart(ys, 1);
            assert!(!svg.contains("NaN") && !svg.contains("inf\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
        }
    }

    #[test]
    fn long_curves_are_thinned_and_keep_their_extremes() {
        let mut ys = vec![1.0; 100_000];
        ys[54_321] = 9.0;
        let xs: Vec<f64> = (0..ys.len()).map(|i| i as f64).collect();
        let points = thinned(&xs, &ys);
        assert!(points.len() < 1000 && points.contains(&[54_321.0, 9.0]) && points.last() == Some(&[99_999.0, 1.0]));
    }

    #[test]
    fn a_gap_breaks_the_line_and_names_are_escaped() {
        let svg = chart(&[1.0, 2.0, f64::NAN, 3.0, 4.0], 2);
        assert_eq!(svg.matches("<path").count(), 2);
        assert_eq!(svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap().matches('M').count(), 2);
        assert!(svg.contains("a &lt;run&gt;"), "{svg}");
    }

    #[test]
    fn smoothing_keeps_a_constant_and_follows_a_step() {
        assert!(smoothed(&[2.0; 100], false).iter().all(|v| (v - 2.0).abs() < 1e-12));
        assert!(smoothed(&[1e-3; 100], true).iter().all(|v| (v - 1e-3).abs() < 1e-12));
        let step: Vec<f64> = (0..300).map(|i| f64::from(u8::from(i >= 150))).collect();
        let smooth = smoothed(&step, false);
        assert!(smooth[120] < 0.01 && smooth[149] < 0.5 && smooth[150] > 0.5 && smooth[180] > 0.99);
        let line: Vec<f64> = (0..300).map(f64::from).collect();
        assert!((smoothed(&line, false)[150] - 150.0).abs() < 1e-9, "it lags");
        let gap = smoothed(&[&[f64::NAN][..], &[3.0; 70]].concat(), false);
        assert!(gap[0].is_nan() && (gap[1] - 3.0).abs() < 1e-12);
    }
}
