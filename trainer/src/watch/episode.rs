//! A page that shows one episode of demonstrations: a chart of each field, nothing smoothed, nothing cut off.

use std::fmt::Write;

use tenon_data::{Array, Defect, Episode};

use super::axis::Frame;
use super::chart::{Chart, Color, Curve};
use super::metric::{Metric, number};
use super::page::{escape, page, pairs};

/// More components than this are drawn without names.
const NAMED: usize = 16;
/// A field of more components is not drawn.
const MAX_COMPONENTS: usize = 128;

/// What the page says beside the episode.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// File or folder.
    pub source: &'a str,
    /// Format.
    pub format: &'a str,
    /// Environment or task.
    pub environment: Option<&'a str>,
    /// Frames a second.
    pub rate_hz: Option<f64>,
    /// Which of how many episodes it is.
    pub place: [usize; 2],
    /// What is wrong with it.
    pub defects: &'a [Defect],
}

/// The values of each component of a field, over the frames.
pub fn components(array: &Array) -> Vec<Vec<f64>> {
    let width = array.width();
    (0..width).map(|c| (0..array.frames()).map(|t| array.value(t * width + c)).collect()).collect()
}

/// The page.
pub fn render(episode: &Episode, setting: Setting) -> String {
    let title = format!("Episode {} · {}", episode.name, setting.source);
    // Writing to a String cannot fail, here and below.
    let mut h = format!("<h1>{}</h1>", escape(&title));
    let frames = episode.frames();
    let seconds = setting.rate_hz.filter(|r| *r > 0.0).map(|r| format!("{} s", number(frames as f64 / r)));
    let mut cards = vec![
        (
            "episode".to_string(),
            format!("{} of {}", setting.place[0] + 1, setting.place[1]),
            setting.format.to_string(),
        ),
        ("frames".into(), frames.to_string(), seconds.unwrap_or_default()),
    ];
    if let Some(rate) = setting.rate_hz {
        cards.push(("rate".into(), format!("{} Hz", number(rate)), String::new()));
    }
    if let Some(total) = episode.total_reward() {
        cards.push(("sum of rewards".into(), number(total), String::new()));
    }
    if let Some(success) = episode.success {
        cards.push(("success".into(), if success { "yes" } else { "no" }.into(), String::new()));
    }
    h.push_str("<div class=\"cards\">");
    for (name, value, more) in cards {
        let (name, value, more) = (escape(&name), escape(&value), escape(&more));
        let _ = write!(h, r#"<div class="card"><span>{name}</span><b>{value}</b><span>{more}</span></div>"#);
    }
    h.push_str("</div>");
    if let Some(environment) = setting.environment {
        h += &pairs([("environment", environment)]);
    }
    if !setting.defects.is_empty() {
        h.push_str("<h2>Defects</h2><ul>");
        for defect in setting.defects {
            let _ = write!(h, r#"<li class="miss">{}</li>"#, escape(&defect.to_string()));
        }
        h.push_str("</ul>");
    }
    h.push_str("<h2>Fields</h2><div class=\"row\">");
    let mut not_drawn = Vec::new();
    for (name, array) in &episode.fields {
        if array.is_picture() || array.width() == 0 || array.width() > MAX_COMPONENTS {
            not_drawn.push((name.as_str(), format!("{:?} of {}", &array.shape()[1..], array.data().type_name())));
            continue;
        }
        h += &chart(name, array);
    }
    h.push_str("</div>");
    if !not_drawn.is_empty() {
        h.push_str("<h2>Not drawn</h2>");
        h += &pairs(not_drawn.iter().map(|(name, text)| (*name, text.as_str())));
    }
    page(&title, None, &h)
}

fn chart(name: &str, array: &Array) -> String {
    let frames: Vec<f64> = (0..array.frames()).map(|t| t as f64).collect();
    let values = components(array);
    let count = values.len();
    let names: Vec<String> = (0..count).map(|i| if count <= NAMED { i.to_string() } else { String::new() }).collect();
    let curves: Vec<Curve> = values
        .iter()
        .zip(&names)
        .enumerate()
        .map(|(i, (ys, name))| Curve {
            name,
            color: if count > 8 { Color::Scale(i as f64 / (count - 1) as f64) } else { Color::Nth(i) },
            xs: &frames,
            ys,
        })
        .collect();
    let frame = Frame::whole(curves.iter().map(|c| (c.xs, c.ys)));
    let title = if count > 1 { format!("{name} ({count})") } else { name.to_string() };
    let metric = Metric::of("value");
    Chart { title, counter: "frame", metric: &metric, frame: &frame, curves, raw: true, smooth: false }.inline()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_data::Data;

    #[test]
    fn every_field_has_a_chart_of_its_own_values() {
        let mut values = vec![0.25; 200];
        values[101] = 77.0;
        let fields = [
            ("actions".to_string(), Array::rows_of(2, Data::F64(values)).unwrap()),
            ("obs/cam".to_string(), Array::new(vec![100, 2, 2, 3], Data::U8(vec![0; 1200])).unwrap()),
        ];
        let episode = Episode { name: "demo_<3>".into(), fields: fields.into(), ..Episode::default() };
        let setting = Setting {
            source: "a.hdf5",
            format: "robomimic",
            environment: Some("Lift"),
            rate_hz: Some(20.0),
            place: [3, 9],
            defects: &[],
        };
        let html = render(&episode, setting);
        assert_eq!(html.matches("<svg").count(), 1);
        assert!(html.contains("demo_&lt;3&gt;") && html.contains("4 of 9") && html.contains("5 s"), "{html}");
        // The single spike is on the axis, and the picture is listed.
        assert!(html.contains(">80<") || html.contains(">75<") || html.contains(">60<"), "{html}");
        assert!(html.contains("obs/cam") && html.contains("[2, 2, 3] of uint8"), "{html}");
    }

    #[test]
    fn numbers_that_are_not_finite_break_the_line_only() {
        let array = Array::column(Data::F32(vec![1.0, f32::NAN, 2.0, f32::INFINITY, 3.0]));
        let svg = chart("x", &array);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
