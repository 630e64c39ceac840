//! `tenon-train data view`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use tenon_data::{Array, Defect, Episode, verify};
use tenon_train::interrupt::Interrupt;
use tenon_train::run_dir::write_text;
use tenon_train::watch::episode::{Setting, components, render};
use tenon_train::watch::exact_text_chart;

use super::{Source, read_for_looking};
use crate::cli::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train data view can/low_dim.hdf5 --episode demo_3 --field obs/object\n  \
    tenon-train data view can/low_dim.hdf5 --out demo_0.html\n\n\
    With --out a page with a chart of every field is written, which needs no other file. Without, one field is drawn on \
    the terminal, a chart for each component. Nothing is smoothed or cut off. With --json the values are printed.")]
pub struct ViewArgs {
    #[command(flatten)]
    source: Source,
    /// Episode, as `data verify` names it [default: the first].
    #[arg(long, value_name = "NAME")]
    episode: Option<String>,
    /// Field that is drawn on the terminal.
    #[arg(long, value_name = "NAME", default_value = "actions")]
    field: String,
    /// Page to write, .html.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    speech: Speech,
}

#[derive(Debug, Serialize)]
struct Viewed {
    episode: String,
    field: String,
    /// Page that was written.
    out: Option<String>,
    frames: usize,
    /// Values of each component; `null` where one is not finite.
    components: Vec<Vec<f64>>,
}

pub fn run(args: ViewArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (format, found) = read_for_looking(&args.source, false, interrupt)?;
    let path = &args.source.path;
    let episodes = &found.demonstrations.episodes;
    let place = match &args.episode {
        None => 0,
        Some(name) => episodes.iter().position(|e| e.name == *name).with_context(|| {
            let some: Vec<&str> = episodes.iter().map(|e| e.name.as_str()).take(6).collect();
            format!("{} has no whole episode {name}; it has {}, …", path.display(), some.join(", "))
        })?,
    };
    let episode = episodes.get(place).with_context(|| format!("{} has no whole episode", path.display()))?;
    let array = field(episode, &args.field)?;
    let text = match &args.out {
        Some(out) => {
            ensure!(
                out.extension().is_some_and(|e| e == "html"),
                "--out {}: give a name that ends in .html",
                out.display()
            );
            let mut defects: Vec<Defect> = verify(path, &found, format.bounds());
            defects.retain(|d| d.episode.as_deref() == Some(episode.name.as_str()));
            let source = path.display().to_string();
            let setting = Setting {
                source: &source,
                format: format.name(),
                environment: found.demonstrations.environment.as_deref(),
                rate_hz: found.demonstrations.rate_hz,
                place: [place, episodes.len()],
                defects: &defects,
            };
            write_text(out, &render(episode, setting))?;
            format!("written to {}", out.display())
        }
        None => charts(&args.field, array),
    };
    let viewed = Viewed {
        episode: episode.name.clone(),
        field: args.field.clone(),
        out: args.out.map(|out| out.display().to_string()),
        frames: episode.frames(),
        components: components(array),
    };
    args.speech.print(&viewed, &text)?;
    Ok(Ending::Done)
}

fn field<'a>(episode: &'a Episode, name: &str) -> anyhow::Result<&'a Array> {
    let array = episode.fields.get(name).or_else(|| episode.fields.get(&format!("obs/{name}")));
    array.with_context(|| {
        let names: Vec<&str> = episode.fields.keys().map(String::as_str).collect();
        format!("episode {} has no field `{name}`; it has {}", episode.name, names.join(", "))
    })
}

fn charts(name: &str, array: &Array) -> String {
    let frames: Vec<f64> = (0..array.frames()).map(|t| t as f64).collect();
    let values = components(array);
    let title = |i: usize| if values.len() > 1 { format!("{name}[{i}]") } else { name.to_string() };
    let charts = values.iter().enumerate().map(|(i, ys)| exact_text_chart("frame", &frames, ys, &title(i)));
    charts.collect::<Vec<_>>().join("\n\n")
}
