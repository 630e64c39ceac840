//! `tenon-train data info`.

use clap::Args;
use tenon_data::summary::{FieldSummary, Summary};
use tenon_train::interrupt::Interrupt;
use tenon_train::watch::{columns, number};

use super::{Source, counted, listed, read_for_looking};
use crate::cli::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train data info can/low_dim.hdf5\n  \
    tenon-train data info pusht_lerobot --json\n\n\
    Formats, told by what is in the file: npz (the authors' train.npz), robomimic (HDF5, robosuite's too), d4rl (HDF5), \
    lerobot (LeRobotDataset v3), zarr (diffusion_policy, UMI, FurnitureBench; a folder or .zarr.zip), furniture and avoid \
    (pickles, of which nothing is executed). With --json ranges are given for every component.")]
pub struct InfoArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    speech: Speech,
}

pub fn run(args: InfoArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (format, found) = read_for_looking(&args.source, false, interrupt)?;
    let summary = Summary::of(&found.demonstrations, format);
    let mut text = text(&summary, &args.source.path.display().to_string());
    if !found.defects.is_empty() {
        let defects: Vec<_> = found.defects.iter().collect();
        text += &format!(
            "\n\n{} (`tenon-train data verify` looks for all):\n{}",
            counted(defects.len(), "defect"),
            listed(&defects, 5)
        );
    }
    args.speech.print(&summary, &text)?;
    Ok(Ending::Done)
}

fn text(summary: &Summary, path: &str) -> String {
    let [least, mean, most] = summary.frames_per_episode;
    let mut rows = vec![
        vec!["format".to_string(), summary.format.to_string()],
        vec!["environment".into(), summary.environment.clone().unwrap_or_else(|| "not said".into())],
        vec!["rate".into(), summary.rate_hz.map_or_else(|| "not said".into(), |r| format!("{} Hz", number(r)))],
        vec!["episodes".into(), summary.episodes.to_string()],
        vec!["frames".into(), format!("{} ({least} to {most} an episode, mean {mean:.1})", summary.frames)],
    ];
    if let Some([succeeded, known]) = summary.succeeded {
        rows.push(vec!["success".into(), format!("{succeeded} of {known}")]);
    }
    if let Some(total) = summary.mean_return {
        rows.push(vec!["mean return".into(), number(total)]);
    }
    if summary.normalised {
        rows.push(vec!["values".into(), "normalised, with their limits".into()]);
    }
    let mut text = format!("{path}\n{}\n\n", columns(&rows));
    let head = ["field", "frame", "type", "range", "episodes"].map(String::from).to_vec();
    text += &columns(&std::iter::once(head).chain(summary.fields.iter().map(row)).collect::<Vec<_>>());
    for left_out in &summary.left_out {
        text += &format!("\nnot read: `{}`, {}", left_out.field, left_out.reason);
    }
    text
}

fn row(field: &FieldSummary) -> Vec<String> {
    let shape: Vec<String> = field.shape.iter().map(usize::to_string).collect();
    vec![
        field.field.clone(),
        if shape.is_empty() { "1".into() } else { shape.join(" × ") },
        field.kind.into(),
        field.range().map_or_else(String::new, |[a, b]| format!("{} … {}", number(a), number(b))),
        field.episodes.to_string(),
    ]
}
