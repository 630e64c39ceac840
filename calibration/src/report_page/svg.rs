//! The report's figures.

use std::fmt::Write;

use serde_json::Value;

use super::html::escape;

const GOOD: &str = "#2f9e54";
const BAD: &str = "#d1372b";

/// One bar a view, with its name and number as a tooltip; bars above `limit` are red.
pub fn bars(title: &str, values: &[(&str, f64)], limit: Option<f64>) -> String {
    let top = values.iter().map(|(_, v)| *v).chain(limit).filter(|v| v.is_finite()).fold(0.0, f64::max);
    if values.is_empty() || top <= 0.0 {
        return String::new();
    }
    let step = (880.0 / values.len() as f64).min(24.0);
    let mut out = frame(title, 960.0, 190.0);
    let y = |value: f64| 160.0 - 130.0 * value / top;
    for (i, (name, value)) in values.iter().enumerate() {
        let known = value.is_finite();
        let at = y(if known { *value } else { top });
        let colour = if known && limit.is_none_or(|limit| *value <= limit) { GOOD } else { BAD };
        let _ = write!(
            out,
            r#"<rect x="{:.1}" y="{at:.1}" width="{:.1}" height="{:.1}" fill="{colour}"><title>{}: {value:.3}</title></rect>"#,
            60.0 + step * i as f64,
            0.8 * step,
            160.0 - at,
            escape(name)
        );
    }
    if let Some(limit) = limit {
        line(&mut out, [60.0, y(limit)], [940.0, y(limit)], BAD);
        text(&mut out, [4.0, y(limit) + 4.0], &format!("{limit}"));
    }
    line(&mut out, [60.0, 160.0], [940.0, 160.0], "currentColor");
    text(&mut out, [4.0, y(top) + 4.0], &format!("{top:.2}"));
    text(&mut out, [4.0, 164.0], "0");
    out + "</svg>"
}

/// A grid of counts, darker where there are more. `rows`: array of arrays.
pub fn cells(title: &str, rows: &Value) -> String {
    let grid: Vec<Vec<f64>> = rows.as_array().map_or_else(Vec::new, |rows| {
        let row = |row: &Value| row.as_array().map_or_else(Vec::new, |r| r.iter().filter_map(Value::as_f64).collect());
        rows.iter().map(row).collect()
    });
    let most = grid.iter().flatten().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let mut out = frame(title, 330.0, 30.0 + 45.0 * grid.len() as f64);
    for (r, row) in grid.iter().enumerate() {
        for (c, count) in row.iter().enumerate() {
            let (x, y) = (10.0 + 60.0 * c as f64, 24.0 + 45.0 * r as f64);
            let _ = write!(
                out,
                r#"<rect x="{x}" y="{y}" width="58" height="43" fill="{GOOD}" fill-opacity="{:.2}"/>"#,
                0.08 + 0.8 * count / most
            );
            text(&mut out, [x + 20.0, y + 26.0], &format!("{count:.0}"));
        }
    }
    out + "</svg>"
}

/// A held-out view.
pub struct Point<'a> {
    pub name: &'a str,
    /// In the plane of the base board.
    pub place_m: [f64; 2],
    pub error_m: f64,
}

/// The workspace from above: a disc for each view, its radius growing with the error, red beyond the limit.
pub fn workspace(points: &[Point], limit_m: f64) -> String {
    let finite: Vec<&Point> = points.iter().filter(|p| p.place_m.iter().all(|v| v.is_finite())).collect();
    let Some(first) = finite.first() else { return String::new() };
    let (mut low, mut high) = (first.place_m, first.place_m);
    for point in &finite {
        for i in 0..2 {
            low[i] = low[i].min(point.place_m[i]);
            high[i] = high[i].max(point.place_m[i]);
        }
    }
    let span = (high[0] - low[0]).max(high[1] - low[1]).max(0.05);
    let scale = 400.0 / span;
    let at = |place: [f64; 2]| [60.0 + scale * (place[0] - low[0]), 40.0 + scale * (place[1] - low[1])];
    let title = "held-out views from above, axes of the base board (m); the disc of a view at the limit is the one in the corner";
    let mut out = frame(title, 640.0, 480.0);
    let radius = |error_m: f64| 14.0 * (error_m / limit_m).clamp(0.05, 3.0);
    for point in &finite {
        let [x, y] = at(point.place_m);
        let within = point.error_m <= limit_m;
        let _ = write!(
            out,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{:.1}" fill="{}" fill-opacity="0.5"><title>{}: {:.2} mm</title></circle>"#,
            radius(if point.error_m.is_finite() { point.error_m } else { f64::INFINITY }),
            if within { GOOD } else { BAD },
            escape(point.name),
            1e3 * point.error_m
        );
    }
    let _ = write!(out, r#"<circle cx="600" cy="50" r="14" fill="none" stroke="currentColor"/>"#);
    text(&mut out, [572.0, 84.0], &format!("{:.1} mm", 1e3 * limit_m));
    line(&mut out, [60.0, 460.0], [460.0, 460.0], "currentColor");
    text(&mut out, [60.0, 475.0], &format!("x {:.2}", low[0]));
    text(&mut out, [420.0, 475.0], &format!("{:.2}", low[0] + span));
    line(&mut out, [50.0, 40.0], [50.0, 440.0], "currentColor");
    text(&mut out, [4.0, 44.0], &format!("y {:.2}", low[1]));
    text(&mut out, [4.0, 440.0], &format!("{:.2}", low[1] + span));
    out + "</svg>"
}

fn frame(title: &str, width: f64, height: f64) -> String {
    let title = escape(title);
    format!(
        r#"<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}"><text x="4" y="14">{title}</text>"#
    )
}

fn text(out: &mut String, [x, y]: [f64; 2], text: &str) {
    let _ = write!(out, r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text));
}

fn line(out: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], colour: &str) {
    let _ = write!(out, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}"/>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_limit_is_red() {
        let svg = bars("t", &[("a", 0.2), ("b<", 0.9)], Some(0.5));
        assert_eq!((svg.matches(GOOD).count(), svg.contains("b&lt;: 0.900")), (1, true));
        let points = [
            Point { name: "a", place_m: [0.0, 0.0], error_m: 1e-3 },
            Point { name: "b", place_m: [0.2, 0.1], error_m: 5e-3 },
            Point { name: "c", place_m: [0.1, 0.1], error_m: f64::NAN },
        ];
        let svg = workspace(&points, 3e-3);
        assert_eq!((svg.matches(GOOD).count(), svg.matches(BAD).count()), (1, 2));
        assert!(!svg.contains("cx=\"NaN\"") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn nothing_gives_no_figure() {
        assert_eq!(bars("t", &[], None), "");
        assert_eq!(cells("t", &Value::Null), "");
        assert_eq!(workspace(&[], 1.0), "");
    }
}
