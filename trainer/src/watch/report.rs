//! `report.html` of one run.

use std::fmt::Write;

use super::axis::Frame;
use super::chart::{Chart, Color, Curve};
use super::history::{History, Series};
use super::metric::{Group, Metric, Unit, number};
use super::page::{escape, page, pairs};
use super::runs::{Run, State};
use crate::wall_clock::{duration, rfc3339};

/// Name of the page in a run's folder.
pub const REPORT_FILE: &str = "report.html";
/// How often a browser loads the page of a running run anew.
const REFRESH_SECONDS: u64 = 10;
/// Without a record for so long (or so many steps), the page of a running run says that something may be wrong.
const SILENCE_SECONDS: f64 = 300.0;
const SILENCE_STEPS: f64 = 20.0;
/// Prefix of the metrics that are the time of a phase.
const PHASE: &str = "seconds_";

/// The page of a run as it stands at `now` (seconds since 1970 UTC).
pub fn render(run: &Run, now: f64) -> String {
    let mut h = String::new();
    header(&mut h, run, now);
    cards(&mut h, run);
    if !run.card.results.is_empty() {
        h.push_str("<h2>Results</h2>");
        h += &pairs(run.card.results.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    }
    let steps: Vec<f64> = run.history.steps.iter().map(|&s| s as f64).collect();
    for group in Group::ALL {
        charts(&mut h, run, &steps, group);
        if group == Group::Time {
            phases(&mut h, &run.history);
        }
    }
    origin(&mut h, run);
    let refresh = (run.state == State::Running).then_some(REFRESH_SECONDS);
    page(&format!("{} · Tenon", run.title()), refresh, &h)
}

fn header(h: &mut String, run: &Run, now: f64) {
    let last = run.last_update();
    // Writing to a String cannot fail, here and below.
    let _ = write!(h, "<h1>{}</h1><p class=\"dim\">", escape(&run.title()));
    match run.state {
        State::Running => {
            let limit = run.history.seconds_per_step().unwrap_or(0.0) * SILENCE_STEPS;
            let _ = write!(
                h,
                r#"<span class="ok">running</span>, last update {} <span id="age" data-at="{last:.0}" data-limit="{:.0}"></span>"#,
                rfc3339(last),
                limit.max(SILENCE_SECONDS)
            );
            h.push_str(AGE_SCRIPT);
        }
        State::Finished => {
            let _ = write!(h, r#"<span class="ok">finished</span> {}"#, rfc3339(last));
        }
        State::Interrupted => {
            let _ = write!(
                h,
                r#"<span class="miss">interrupted</span>, last update {}; goes on when its command is given again"#,
                rfc3339(last)
            );
        }
    }
    let _ = write!(h, "; begun {}", rfc3339(run.card.begun_unix_seconds));
    if let Some(at) = run.card.continued_unix_seconds {
        let _ = write!(h, ", last continued {}", rfc3339(at));
    }
    let _ = write!(h, "; page written {}</p>", rfc3339(now));
}

/// A killed program cannot take its "running" back; the page shows how old its last sign of life is.
const AGE_SCRIPT: &str = "<script>(function(){var e=document.getElementById('age');function f(){\
var s=Math.round(Date.now()/1000-e.dataset.at);e.textContent='('+(s<120?s+' s':Math.round(s/60)+' min')+' ago'+\
(s>+e.dataset.limit?': has it been killed? tenon-train list knows':'')+')';if(s>+e.dataset.limit)e.className='miss'}\
f();setInterval(f,1000)})()</script>";

fn cards(h: &mut String, run: &Run) {
    let (history, card) = (&run.history, &run.card);
    let done = history.done();
    let mut cards = vec![(
        format!("{}s", card.counter),
        format!("{done} of {}", card.total),
        format!("{:.0} %", 100.0 * done as f64 / card.total.max(1) as f64),
    )];
    if let Some(seconds) = history.seconds_per_step() {
        let more = match run.state {
            State::Running => format!("about {} left", duration(card.total.saturating_sub(done) as f64 * seconds)),
            _ => format!("about {} in all", duration(done as f64 * seconds)),
        };
        cards.push((format!("per {}", card.counter), duration(seconds), more));
    }
    for series in &history.series {
        let metric = Metric::of(&series.name);
        if let (true, Some(last)) = (metric.headline || series.name.ends_with("_per_second"), series.last()) {
            cards.push((metric.title.clone(), metric.text(last), best(history, series, &metric)));
        }
    }
    h.push_str("<div class=\"cards\">");
    for (name, value, more) in cards {
        let (name, value, more) = (escape(&name), escape(&value), escape(&more));
        let _ = write!(h, r#"<div class="card"><span>{name}</span><b>{value}</b><span>{more}</span></div>"#);
    }
    h.push_str("</div>");
}

fn best(history: &History, series: &Series, metric: &Metric) -> String {
    let Some(higher) = metric.higher_is_better else { return String::new() };
    let there = series.values.iter().zip(&history.steps).filter(|(v, _)| !v.is_nan());
    let best = there.max_by(|(a, _), (b, _)| if higher { a.total_cmp(b) } else { b.total_cmp(a) });
    best.map_or_else(String::new, |(v, step)| format!("best {} ({} {step})", metric.text(*v), history.counter))
}

fn charts(h: &mut String, run: &Run, steps: &[f64], group: Group) {
    let history = &run.history;
    let (phases, others): (Vec<&str>, Vec<&str>) = history
        .families()
        .into_iter()
        .filter(|family| Metric::of(family).group == group)
        .partition(|family| family.starts_with(PHASE));
    if phases.is_empty() && others.is_empty() {
        return;
    }
    let _ = write!(h, "<h2>{}</h2><div class=\"row\">", group.title());
    for family in others {
        h.push_str(&family_chart(history, steps, family, None, None));
    }
    if !phases.is_empty() {
        let metric =
            Metric { title: "Phases".into(), group, unit: Unit::Seconds, headline: false, higher_is_better: None };
        let curves: Vec<Curve> = phases
            .iter()
            .enumerate()
            .filter_map(|(i, name)| {
                let series = history.series(name)?;
                Some(Curve { name: phase(name), color: Color::Nth(i), xs: steps, ys: &series.values })
            })
            .collect();
        let frame = Frame::fit(curves.iter().map(|c| (c.xs, c.ys)), &metric);
        let title = metric.title.clone();
        h.push_str(
            &Chart {
                title,
                counter: &history.counter,
                metric: &metric,
                frame: &frame,
                curves,
                raw: true,
                smooth: true,
            }
            .inline(),
        );
    }
    h.push_str("</div>");
}

/// The chart of one metric, or of all components of a vector. `frame`: to share one; `run`: name and number of the run,
/// where the page shows several.
pub fn family_chart(
    history: &History,
    steps: &[f64],
    family: &str,
    frame: Option<&Frame>,
    run: Option<(&str, usize)>,
) -> String {
    with_family_chart(history, steps, family, frame, run, |chart| chart.inline())
}

/// As [`family_chart`], as a file of its own.
pub fn family_file(history: &History, family: &str) -> String {
    let steps: Vec<f64> = history.steps.iter().map(|&s| s as f64).collect();
    with_family_chart(history, &steps, family, None, None, |chart| chart.file())
}

fn with_family_chart(
    history: &History,
    steps: &[f64],
    family: &str,
    frame: Option<&Frame>,
    run: Option<(&str, usize)>,
    draw: impl FnOnce(&Chart) -> String,
) -> String {
    let (metric, series) = (Metric::of(family), history.family(family));
    let count = series.len();
    let curves: Vec<Curve> = series
        .iter()
        .enumerate()
        .map(|(i, s)| Curve {
            name: s.name.split_once('/').map_or(s.name.as_str(), |(_, component)| component),
            color: if count > 1 {
                Color::Scale(i as f64 / (count - 1) as f64)
            } else {
                Color::Nth(run.map_or(0, |(_, i)| i))
            },
            xs: steps,
            ys: &s.values,
        })
        .collect();
    let own;
    let frame = match frame {
        Some(frame) => frame,
        None => {
            own = Frame::fit(curves.iter().map(|c| (c.xs, c.ys)), &metric);
            &own
        }
    };
    let title = run.map_or(metric.title.as_str(), |(name, _)| name).to_string();
    // Behind many smoothed curves the measured ones are a fog.
    let raw = count <= 3;
    draw(&Chart { title, counter: &history.counter, metric: &metric, frame, curves, raw, smooth: true })
}

/// Where the time goes: a bar and a table.
fn phases(h: &mut String, history: &History) {
    let phases: Vec<(&Series, f64)> = history
        .series
        .iter()
        .filter(|s| s.name.starts_with(PHASE))
        .map(|s| (s, s.values.iter().filter(|v| !v.is_nan()).sum()))
        .collect();
    let whole: f64 = phases.iter().map(|(_, sum)| sum).sum();
    if phases.is_empty() || whole <= 0.0 {
        return;
    }
    h.push_str("<h3>Time of each phase</h3><div class=\"bar\">");
    for (i, (_, sum)) in phases.iter().enumerate() {
        let _ = write!(h, r#"<i style="width:{:.2}%;background:{}"></i>"#, 100.0 * sum / whole, Color::Nth(i).css());
    }
    let counter = escape(&history.counter);
    let _ = write!(
        h,
        "</div><table><tr><th>phase</th><th class=\"n\">in all</th><th class=\"n\">share</th><th class=\"n\">per {counter}, mean</th><th class=\"n\">last</th></tr>"
    );
    for (i, (series, sum)) in phases.iter().enumerate() {
        let count = series.values.iter().filter(|v| !v.is_nan()).count().max(1);
        let _ = write!(
            h,
            r#"<tr><td><span class="key" style="background:{}"></span>{}</td><td class="n">{}</td><td class="n">{:.1} %</td><td class="n">{} s</td><td class="n">{} s</td></tr>"#,
            Color::Nth(i).css(),
            escape(phase(&series.name)),
            duration(*sum),
            100.0 * sum / whole,
            number(sum / count as f64),
            number(series.last().unwrap_or(f64::NAN))
        );
    }
    h.push_str("</table>");
}

fn phase(name: &str) -> &str {
    name.strip_prefix(PHASE).unwrap_or(name)
}

fn origin(h: &mut String, run: &Run) {
    h.push_str("<h2>Provenance</h2>");
    // Whole files among them (the settings of an earlier stage) fold up.
    let (files, lines): (Vec<_>, Vec<_>) = run.card.provenance.iter().partition(|(_, text)| text.contains('\n'));
    h.push_str(&pairs(lines.iter().map(|(key, text)| (key.as_str(), text.as_str()))));
    let own = (!run.config.is_empty()).then_some(("Settings (config.toml)", run.config.as_str()));
    for (title, text) in own.into_iter().chain(files.iter().map(|(key, text)| (key.as_str(), text.as_str()))) {
        let _ = write!(h, "<details><summary>{}</summary><pre>{}</pre></details>", escape(title), escape(text));
    }
}
