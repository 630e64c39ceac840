//! Small pictures as inline SVG.

use std::fmt::Write;

/// A picture under construction, in data coordinates with y upward.
pub struct Plot {
    body: String,
    x: [f64; 2],
    y: [f64; 2],
    width: f64,
    height: f64,
}

const MARGIN: f64 = 36.0;

impl Plot {
    pub fn new(x: [f64; 2], y: [f64; 2], width: f64, height: f64) -> Self {
        Self { body: String::new(), x, y, width, height }
    }

    fn px(&self, x: f64) -> f64 {
        MARGIN + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.width - 1.5 * MARGIN)
    }

    fn py(&self, y: f64) -> f64 {
        self.height - MARGIN - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.height - 1.5 * MARGIN)
    }

    /// A polyline of a CSS class.
    pub fn line(&mut self, points: impl Iterator<Item = [f64; 2]>, class: &str) {
        let mut path = String::new();
        for [x, y] in points {
            // Writing to a String cannot fail, here and below.
            let _ = write!(path, "{:.1},{:.1} ", self.px(x), self.py(y));
        }
        let _ = write!(self.body, r#"<polyline class="{class}" points="{}"/>"#, path.trim_end());
    }

    /// A disc in data units.
    pub fn disc(&mut self, center: [f64; 2], radius: f64, class: &str) {
        let r = (self.px(center[0] + radius) - self.px(center[0])).abs();
        let (x, y) = (self.px(center[0]), self.py(center[1]));
        let _ = write!(self.body, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{r:.1}"/>"#);
    }

    /// Ticks along both axes.
    pub fn axes(&mut self, x_ticks: &[f64], y_ticks: &[f64], label: impl Fn(f64) -> String) {
        for &x in x_ticks {
            let p = self.px(x);
            let _ = write!(
                self.body,
                r#"<line class="grid" x1="{p:.1}" x2="{p:.1}" y1="{:.1}" y2="{:.1}"/><text class="tick" text-anchor="middle" x="{p:.1}" y="{:.1}">{}</text>"#,
                self.py(self.y[0]),
                self.py(self.y[1]),
                self.py(self.y[0]) + 14.0,
                label(x)
            );
        }
        for &y in y_ticks {
            let p = self.py(y);
            let _ = write!(
                self.body,
                r#"<line class="grid" x1="{:.1}" x2="{:.1}" y1="{p:.1}" y2="{p:.1}"/><text class="tick" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
                self.px(self.x[0]),
                self.px(self.x[1]),
                self.px(self.x[0]) - 4.0,
                p + 4.0,
                label(y)
            );
        }
    }

    pub fn finish(self, title: &str) -> String {
        format!(
            r#"<figure><svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{title}">{}</svg><figcaption>{title}</figcaption></figure>"#,
            self.body,
            w = self.width,
            h = self.height
        )
    }
}
