//! `tenon-train plot`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use tenon_train::run_dir::write_text;
use tenon_train::wall_clock::unix_seconds;
use tenon_train::watch::report::{REPORT_FILE, family_file, render};
use tenon_train::watch::{Metric, Run, text_chart};

use super::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train plot runs/finetune --metric success_rate\n  \
    tenon-train plot runs/finetune --metric clip_fraction_per_step --out clipped.svg\n  \
    tenon-train plot runs/finetune --out report.html\n\n\
    A metric without --out is drawn on the terminal. Without a metric the page of all curves is written: report.html \
    in the run's folder, or --out. With --json the values are printed too.")]
pub struct PlotArgs {
    /// Folder of a run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Metric, as it is called in metrics.jsonl; a list is drawn whole.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// File to write: .svg (one metric) or .html.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    speech: Speech,
}

#[derive(Debug, Serialize)]
struct Plotted {
    run: String,
    /// File that was written.
    out: Option<String>,
    counter: String,
    steps: Vec<u64>,
    series: Vec<Values>,
}

#[derive(Debug, Serialize)]
struct Values {
    name: String,
    /// `null` where a step has none.
    values: Vec<f64>,
}

pub fn run(args: PlotArgs) -> anyhow::Result<Ending> {
    let mut run = Run::read(&args.run)?;
    if let Some(name) = &args.metric {
        let name = name.trim_end_matches('/');
        let families = run.history.families().join(", ");
        run.history.series.retain(|s| s.name == name || s.family() == name);
        ensure!(!run.history.series.is_empty(), "{} has no metric `{name}`; it has {families}", args.run.display());
    }
    let out = match (&args.out, &args.metric) {
        (None, None) => Some(args.run.join(REPORT_FILE)),
        (out, _) => out.clone(),
    };
    let text = match &out {
        Some(path) => {
            write_text(path, &picture(&run, path, args.metric.is_some())?)?;
            format!("written to {}", path.display())
        }
        None => terminal(&run),
    };
    let series = run.history.series.iter().map(|s| Values { name: s.name.clone(), values: s.values.clone() });
    let plotted = Plotted {
        run: args.run.display().to_string(),
        out: out.map(|path| path.display().to_string()),
        counter: run.history.counter.clone(),
        steps: run.history.steps.clone(),
        series: series.collect(),
    };
    args.speech.print(&plotted, &text)?;
    Ok(Ending::Done)
}

fn picture(run: &Run, path: &Path, one: bool) -> anyhow::Result<String> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("svg") if one => {
            let families = run.history.families();
            let family = families.first().context("the run has recorded nothing yet")?;
            Ok(family_file(&run.history, family))
        }
        Some("svg") => bail!("--out {}: a picture holds one metric; name it with --metric", path.display()),
        Some("html") => Ok(render(run, unix_seconds())),
        _ => bail!("--out {}: give a name that ends in .svg or .html", path.display()),
    }
}

fn terminal(run: &Run) -> String {
    let steps: Vec<f64> = run.history.steps.iter().map(|&step| step as f64).collect();
    let charts = run.history.series.iter().map(|series| {
        let mut metric = Metric::of(series.family());
        if series.name.contains('/') {
            metric.title = format!("{} ({})", metric.title, series.name);
        }
        text_chart(&run.history.counter, &steps, &series.values, &metric)
    });
    charts.collect::<Vec<_>>().join("\n\n")
}
