//! `tenon-train list`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tenon_train::wall_clock::{duration, unix_seconds};
use tenon_train::watch::{Metric, Run, columns, find};

use super::{Ending, Speech};

/// Headline metrics of a line.
const SHOWN: usize = 3;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train list runs --json\n\n\
    A run is running while a program holds its folder, finished, or interrupted: then it goes on when the command that \
    began it is given again. Runs that cannot be read are named, and the exit code is 1.")]
pub struct ListArgs {
    /// Folder below which the runs are.
    #[arg(value_name = "DIR", default_value = "runs")]
    folder: PathBuf,
    #[command(flatten)]
    speech: Speech,
}

/// One run.
#[derive(Debug, Serialize)]
struct Line {
    run: String,
    kind: String,
    task: String,
    seed: u64,
    state: &'static str,
    counter: String,
    done: u64,
    total: u64,
    seconds_since_update: f64,
    /// Newest value of every metric that is one number.
    last: serde_json::Map<String, serde_json::Value>,
    /// The most telling of them, for people.
    #[serde(skip)]
    headline: String,
}

pub fn run(args: ListArgs) -> anyhow::Result<Ending> {
    let now = unix_seconds();
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for folder in find(&args.folder)? {
        match Run::read(&folder) {
            Ok(run) => lines.push(line(&run, now)),
            Err(e) => errors.push(e.to_string()),
        }
    }
    let text = if lines.is_empty() {
        format!("no runs below {}", args.folder.display())
    } else {
        let head = ["run", "kind", "task", "seed", "state", "done", "age", "last"].map(String::from).to_vec();
        columns(&[head].into_iter().chain(lines.iter().map(row)).collect::<Vec<_>>())
    };
    args.speech.print(&lines, &text)?;
    anyhow::ensure!(errors.is_empty(), "runs that cannot be read:\n  {}", errors.join("\n  "));
    Ok(Ending::Done)
}

fn line(run: &Run, now: f64) -> Line {
    let scalars = run.history.series.iter().filter(|s| !s.name.contains('/'));
    Line {
        run: run.folder.display().to_string(),
        kind: run.card.kind.clone(),
        task: run.card.task.clone(),
        seed: run.card.seed,
        state: run.state.as_str(),
        counter: run.card.counter.clone(),
        done: run.history.done(),
        total: run.card.total,
        seconds_since_update: (now - run.last_update()).max(0.0),
        last: scalars.filter_map(|s| Some((s.name.clone(), s.last()?.into()))).collect(),
        headline: headline(run),
    }
}

fn headline(run: &Run) -> String {
    let mut shown: Vec<_> = run
        .history
        .series
        .iter()
        .map(|series| (series, Metric::of(&series.name)))
        .filter(|(_, metric)| metric.headline)
        .filter_map(|(series, metric)| Some((metric.group, format!("{} {}", series.name, metric.text(series.last()?)))))
        .collect();
    // By group, and as recorded within it.
    shown.sort_by_key(|(group, _)| *group);
    shown.into_iter().take(SHOWN).map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

fn row(line: &Line) -> Vec<String> {
    vec![
        line.run.clone(),
        line.kind.clone(),
        line.task.clone(),
        line.seed.to_string(),
        line.state.into(),
        format!("{} {} of {} ({:.0} %)", line.counter, line.done, line.total, percent(line.done, line.total)),
        duration(line.seconds_since_update),
        line.headline.clone(),
    ]
}

fn percent(done: u64, total: u64) -> f64 {
    100.0 * done as f64 / total.max(1) as f64
}
