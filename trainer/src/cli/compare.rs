//! `tenon-train compare`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tenon_train::run_dir::write_text;
use tenon_train::watch::compare::{picture, render};
use tenon_train::watch::{Comparison, Run};

use super::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train compare runs/seed42 runs/seed43 --out comparison.html\n  \
    tenon-train compare runs/seed42 runs/seed43 --metric evaluation_return --out returns.svg\n\n\
    Prints each metric's last value and, in brackets, its mean over the last tenth of the run, and the settings that \
    differ. The page shows all curves side by side on the same axes.")]
pub struct CompareArgs {
    /// Folders of runs, two or more.
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    runs: Vec<PathBuf>,
    /// The metric of a picture, as it is called in metrics.jsonl.
    #[arg(long, value_name = "NAME", requires = "out")]
    metric: Option<String>,
    /// File to write: .html (all metrics) or .svg (one, with --metric).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    speech: Speech,
}

pub fn run(args: CompareArgs) -> anyhow::Result<Ending> {
    let runs: Vec<Run> = args.runs.iter().map(|folder| Run::read(folder)).collect::<Result<_, _>>()?;
    let comparison = Comparison::of(&runs);
    let mut text = comparison.text();
    if let Some(path) = &args.out {
        write_text(path, &file(&runs, path, args.metric.as_deref())?)?;
        text += &format!("\nwritten to {}", path.display());
    }
    args.speech.print(&comparison, &text)?;
    Ok(Ending::Done)
}

fn file(runs: &[Run], path: &Path, metric: Option<&str>) -> anyhow::Result<String> {
    match (path.extension().and_then(|e| e.to_str()), metric) {
        (Some("html"), None) => Ok(render(runs)),
        (Some("svg"), Some(name)) => picture(runs, name)
            .with_context(|| format!("not every one of these runs has the metric `{name}`, or it is a list in some")),
        (Some("svg"), None) => bail!("--out {}: a picture holds one metric; name it with --metric", path.display()),
        (Some("html"), Some(_)) => bail!("--out {}: a page holds all metrics; leave --metric out", path.display()),
        _ => bail!("--out {}: give a name that ends in .svg or .html", path.display()),
    }
}
