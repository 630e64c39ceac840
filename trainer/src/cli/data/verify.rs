//! `tenon-train data verify`.

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use tenon_data::{Defect, Format, verify};
use tenon_train::interrupt::Interrupt;

use super::{ActionLimit, Source, bounds, counted, listed, read_for_looking};
use crate::cli::{Ending, Speech};

/// Defects that are listed for people.
const LISTED: usize = 50;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train data verify can/low_dim.hdf5\n  \
    tenon-train data verify demo.hdf5 --action-limit none --json\n\n\
    Looks for: truncated and damaged files, episodes that are empty, missing, out of order or there twice, fields of \
    another width or length, NaN and infinite values, actions out of range (robomimic, D4RL: ±1; npz: all values ±1), \
    time that runs back. Each is named with file, episode, frame and field. Exit code 1 where there is one.")]
pub struct VerifyArgs {
    #[command(flatten)]
    source: Source,
    /// Largest magnitude of an action, or none [default: the format's].
    #[arg(long, value_name = "BOUND")]
    action_limit: Option<ActionLimit>,
    #[command(flatten)]
    speech: Speech,
}

#[derive(Debug, Serialize)]
struct Verified<'a> {
    path: String,
    format: Format,
    episodes: usize,
    frames: usize,
    defects: &'a [Defect],
}

pub fn run(args: VerifyArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (format, found) = read_for_looking(&args.source, false, interrupt)?;
    let path = &args.source.path;
    let defects = verify(path, &found, bounds(format, args.action_limit));
    let (episodes, frames) = (found.demonstrations.episodes.len(), found.demonstrations.frames());
    let what = format!("{} of {format}, {}", counted(episodes, "episode"), counted(frames, "frame"));
    let text = if defects.is_empty() {
        format!("{}: {what}; nothing is wrong", path.display())
    } else {
        listed(&defects.iter().collect::<Vec<_>>(), LISTED)
    };
    args.speech
        .print(&Verified { path: path.display().to_string(), format, episodes, frames, defects: &defects }, &text)?;
    ensure!(
        defects.is_empty(),
        "{}: {} in {what}; `tenon-train data repair` leaves bad episodes out",
        path.display(),
        counted(defects.len(), "defect")
    );
    Ok(Ending::Done)
}
