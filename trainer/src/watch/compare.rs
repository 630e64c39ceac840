//! Several runs side by side: final values, settings that differ, curves on the same axes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::axis::Frame;
use super::chart::{Chart, Color, Curve};
use super::history::Series;
use super::metric::{Group, Metric};
use super::page::{escape, page};
use super::report::family_chart;
use super::runs::Run;

/// What several runs came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub runs: Vec<RunLine>,
    pub metrics: Vec<MetricLine>,
    pub differences: Vec<Difference>,
}

/// One of the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunLine {
    pub run: String,
    pub kind: String,
    pub task: String,
    pub seed: u64,
    pub state: &'static str,
    pub counter: String,
    pub done: u64,
    pub total: u64,
}

/// One metric of all runs; `None` where a run has none of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricLine {
    pub name: String,
    pub values: Vec<Option<Final>>,
}

/// Where a curve ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Final {
    pub last: f64,
    /// Mean over the last tenth of the steps.
    pub last_tenth: f64,
}

/// A setting that is not the same in all runs; `None` where a run does not have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub key: String,
    pub values: Vec<Option<String>>,
}

impl Comparison {
    /// Of runs in the order given.
    pub fn of(runs: &[Run]) -> Self {
        let lines = runs.iter().map(|run| RunLine {
            run: run.folder.display().to_string(),
            kind: run.card.kind.clone(),
            task: run.card.task.clone(),
            seed: run.card.seed,
            state: run.state.as_str(),
            counter: run.history.counter.clone(),
            done: run.history.done(),
            total: run.card.total,
        });
        let metrics = names(runs).into_iter().filter(|name| !name.contains('/')).map(|name| MetricLine {
            values: runs.iter().map(|run| run.history.series(name).and_then(final_of)).collect(),
            name: name.to_string(),
        });
        Self { runs: lines.collect(), metrics: metrics.collect(), differences: differences(runs) }
    }

    /// A table for a terminal: last value, and in brackets the mean of the last tenth.
    pub fn text(&self) -> String {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(self.runs.iter().map(|run| run.run.clone()));
        rows.push(vec!["".into()]);
        rows[1].extend(self.runs.iter().map(|r| format!("{} {} of {}, {}", r.counter, r.done, r.total, r.state)));
        for line in &self.metrics {
            let metric = Metric::of(&line.name);
            let value = |f: &Option<Final>| {
                f.map_or_else(|| "–".into(), |f| format!("{} ({})", metric.text(f.last), metric.text(f.last_tenth)))
            };
            rows.push([line.name.clone()].into_iter().chain(line.values.iter().map(value)).collect());
        }
        if !self.differences.is_empty() {
            rows.push(vec!["settings that differ".into()]);
        }
        for difference in &self.differences {
            let values = difference.values.iter().map(|v| v.clone().unwrap_or_else(|| "–".into()));
            rows.push([difference.key.clone()].into_iter().chain(values).collect());
        }
        columns(&rows)
    }
}

/// Rows as aligned columns.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The page.
pub fn render(runs: &[Run]) -> String {
    let comparison = Comparison::of(runs);
    let mut h = String::from("<h1>Runs side by side</h1>");
    legend(&mut h, &comparison);
    finals(&mut h, &comparison);
    settings(&mut h, &comparison);
    let steps = steps_of(runs);
    let mut families: Vec<&str> = Vec::new();
    for run in runs {
        families.extend(run.history.families().into_iter().filter(|f| !families.contains(f)).collect::<Vec<_>>());
    }
    for group in Group::ALL {
        let of_group: Vec<&str> = families.iter().copied().filter(|f| Metric::of(f).group == group).collect();
        if !of_group.is_empty() {
            // Writing to a String cannot fail, here and below.
            let _ = write!(h, "<h2>{}</h2>", group.title());
        }
        for family in of_group {
            curves(&mut h, runs, &steps, family);
        }
    }
    page("Runs side by side · Tenon", None, &h)
}

fn legend(h: &mut String, comparison: &Comparison) {
    h.push_str("<table><tr><th>run</th><th></th><th>state</th><th class=\"n\">done</th></tr>");
    for (i, run) in comparison.runs.iter().enumerate() {
        let _ = write!(
            h,
            r#"<tr><td><span class="key" style="background:{}"></span>{}</td><td>{} of {}, seed {}</td><td>{}</td><td class="n">{} {} of {}</td></tr>"#,
            Color::Nth(i).css(),
            escape(&run.run),
            escape(&run.kind),
            escape(&run.task),
            run.seed,
            run.state,
            escape(&run.counter),
            run.done,
            run.total
        );
    }
    h.push_str("</table>");
}

fn finals(h: &mut String, comparison: &Comparison) {
    h.push_str("<h2>Final values</h2><p class=\"dim\">Last value, and the mean over the last tenth of the steps.</p><div class=\"scroll\"><table><tr><th>metric</th>");
    for (i, run) in comparison.runs.iter().enumerate() {
        let color = Color::Nth(i).css();
        let _ = write!(
            h,
            r#"<th class="n" colspan="2"><span class="key" style="background:{color}"></span>{}</th>"#,
            escape(&run.run)
        );
    }
    h.push_str("</tr>");
    for line in &comparison.metrics {
        let metric = Metric::of(&line.name);
        let _ = write!(h, r#"<tr><td title="{}">{}</td>"#, escape(&line.name), escape(&metric.title));
        for value in &line.values {
            let [last, mean] =
                value.map_or(["–".into(), "".into()], |f| [f.last, f.last_tenth].map(|v| metric.text(v)));
            let _ = write!(h, r#"<td class="n">{last}</td><td class="n dim">{mean}</td>"#);
        }
        h.push_str("</tr>");
    }
    h.push_str("</table></div>");
}

fn settings(h: &mut String, comparison: &Comparison) {
    h.push_str("<h2>Settings that differ</h2>");
    if comparison.differences.is_empty() {
        h.push_str("<p>None.</p>");
        return;
    }
    h.push_str("<div class=\"scroll\"><table><tr><th>setting</th>");
    for run in &comparison.runs {
        let _ = write!(h, "<th>{}</th>", escape(&run.run));
    }
    h.push_str("</tr>");
    for difference in &comparison.differences {
        let _ = write!(h, "<tr><td>{}</td>", escape(&difference.key));
        for value in &difference.values {
            let _ = write!(h, "<td>{}</td>", escape(value.as_deref().unwrap_or("–")));
        }
        h.push_str("</tr>");
    }
    h.push_str("</table></div>");
}

fn steps_of(runs: &[Run]) -> Vec<Vec<f64>> {
    runs.iter().map(|run| run.history.steps.iter().map(|&step| step as f64).collect()).collect()
}

/// Axes of a metric that hold all runs.
fn common_frame(runs: &[Run], steps: &[Vec<f64>], family: &str, metric: &Metric) -> Frame {
    let each = runs.iter().zip(steps).flat_map(|(run, steps)| {
        run.history.family(family).into_iter().map(move |series| (&steps[..], &series.values[..]))
    });
    Frame::fit(each, metric)
}

/// One metric of all runs in one picture, as a file of its own. None where not all have it, or it is a list.
pub fn picture(runs: &[Run], name: &str) -> Option<String> {
    let (steps, metric) = (steps_of(runs), Metric::of(name));
    let frame = common_frame(runs, &steps, name, &metric);
    let names = distinct_titles(runs);
    let all: Option<Vec<&Series>> = runs.iter().map(|run| run.history.series(name)).collect();
    let curves = all?.into_iter().enumerate();
    let curves = curves
        .map(|(i, series)| Curve { name: &names[i], color: Color::Nth(i), xs: &steps[i], ys: &series.values })
        .collect();
    let counter = &runs.first()?.history.counter;
    Some(
        Chart { title: metric.title.clone(), counter, metric: &metric, frame: &frame, curves, raw: true, smooth: true }
            .file(),
    )
}

/// One metric: all runs in one chart, then each run in its own, all with the same axes.
fn curves(h: &mut String, runs: &[Run], steps: &[Vec<f64>], family: &str) {
    let metric = Metric::of(family);
    let with_family: Vec<usize> = (0..runs.len()).filter(|&i| !runs[i].history.family(family).is_empty()).collect();
    let frame = common_frame(runs, steps, family, &metric);
    let names: Vec<String> = runs.iter().map(|run| run.folder.display().to_string()).collect();
    let _ = write!(h, "<h3>{}</h3><div class=\"row\">", escape(&metric.title));
    let scalars: Option<Vec<&Series>> = with_family.iter().map(|&i| runs[i].history.series(family)).collect();
    if let Some(scalars) = scalars.filter(|s| s.len() > 1) {
        let curves = with_family
            .iter()
            .zip(&scalars)
            .map(|(&i, series)| Curve { name: &names[i], color: Color::Nth(i), xs: &steps[i], ys: &series.values })
            .collect();
        let counter = &runs[with_family[0]].history.counter;
        let title = "all, smoothed".to_string();
        h.push_str(
            &Chart { title, counter, metric: &metric, frame: &frame, curves, raw: false, smooth: true }.inline(),
        );
    }
    for &i in &with_family {
        h.push_str(&family_chart(&runs[i].history, &steps[i], family, Some(&frame), Some((&names[i], i))));
    }
    h.push_str("</div>");
}

/// What runs are called in one picture: two of the same task and seed by the names of their folders.
fn distinct_titles(runs: &[Run]) -> Vec<String> {
    let titles: Vec<String> = runs.iter().map(Run::title).collect();
    let name = |(run, title): (&Run, &String)| match titles.iter().filter(|other| *other == title).count() {
        0 | 1 => title.clone(),
        _ => run.folder.file_name().map_or_else(|| title.clone(), |name| name.to_string_lossy().into_owned()),
    };
    runs.iter().zip(&titles).map(name).collect()
}

/// All names of series, in the order in which they first occur.
fn names(runs: &[Run]) -> Vec<&str> {
    let (mut seen, mut names) = (BTreeSet::new(), Vec::new());
    for series in runs.iter().flat_map(|run| &run.history.series) {
        if seen.insert(series.name.as_str()) {
            names.push(series.name.as_str());
        }
    }
    names
}

fn final_of(series: &Series) -> Option<Final> {
    Some(Final { last: series.last()?, last_tenth: series.last_tenth()? })
}

fn differences(runs: &[Run]) -> Vec<Difference> {
    let all: Vec<BTreeMap<String, String>> = runs.iter().map(|run| settings_of(&run.config)).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let line = |key: &String| Difference {
        key: key.clone(),
        values: all.iter().map(|settings| settings.get(key).cloned()).collect(),
    };
    keys.into_iter().map(line).filter(|d| d.values.iter().any(|v| *v != d.values[0])).collect()
}

/// `finetune.clip.epsilon` → `0.1`. Text that is no TOML has no settings.
fn settings_of(config: &str) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&key, value, into);
                }
            }
            value => {
                into.insert(prefix.to_string(), value.to_string());
            }
        }
    }
    let mut settings = BTreeMap::new();
    if let Ok(table) = config.parse::<toml::Table>() {
        walk("", &toml::Value::Table(table), &mut settings);
    }
    settings
}
