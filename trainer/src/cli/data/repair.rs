//! `tenon-train data repair`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use tenon_data::edit::{Change, Remedy, repair};
use tenon_data::{Defect, Format, LeftOut, Notes, verify};
use tenon_train::interrupt::Interrupt;

use super::{ActionLimit, Selection, Source, bounds, counted, ensure_free, output_format, write};
use crate::cli::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train data repair can/low_dim.hdf5 can/mended.hdf5\n  \
    tenon-train data repair demo.hdf5 mended.hdf5 --clip-actions 1 --cut\n\n\
    Writes a new file without the episodes that `data verify` names, or with --cut keeps what stands before the first \
    bad frame. Says what it dropped and why. The original is never touched. The format stays where it is one that is \
    written (npz, robomimic, lerobot).")]
pub struct RepairArgs {
    #[command(flatten)]
    source: Source,
    /// File or folder to write; nothing may be there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Format to write [default: the one that is read, or by the name of OUT].
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,
    /// Keep an episode up to its first bad frame instead of dropping it.
    #[arg(long)]
    cut: bool,
    /// With --cut: fewer frames than this are not worth keeping.
    #[arg(long, value_name = "N", default_value_t = 16)]
    min_frames: usize,
    /// Largest magnitude of an action, or none [default: the format's].
    #[arg(long, value_name = "BOUND")]
    action_limit: Option<ActionLimit>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    speech: Speech,
}

#[derive(Debug, Serialize)]
struct Repaired {
    format: Format,
    out: String,
    episodes: usize,
    frames: usize,
    clipped_values: usize,
    changes: Vec<Change>,
    /// Defects of the file as a whole, which writing it anew mended.
    of_the_file: Vec<Defect>,
    /// Fields that are not in the copy.
    left_out: Vec<LeftOut>,
    notes: Vec<String>,
}

pub fn run(args: RepairArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (path, out) = (&args.source.path, &args.out);
    let from = args.source.format()?;
    let kept = Some(from).filter(|f| Format::WRITTEN.contains(f));
    let to = output_format(args.to.or(kept), out)?;
    ensure_free(path, out)?;
    let mut found = args.source.read(from, true, interrupt)?;
    // First what can be mended in place, so that only the rest is dropped.
    let clipped_values = args.selection.apply(&mut found.demonstrations)?;
    let defects = verify(path, &found, bounds(from, args.action_limit));
    let remedy = if args.cut { Remedy::Cut { least_frames: args.min_frames } } else { Remedy::Drop };
    let (mended, changes) = repair(found, &defects, remedy);
    ensure!(!mended.episodes.is_empty(), "{}: no episode is left; `tenon-train data verify` says why", path.display());
    let mut notes = Notes::default();
    if changes.is_empty() && clipped_values == 0 {
        notes.say("no episode was bad; the copy holds all of them");
    }
    let output = args.selection.output(&mended, from, to)?;
    let (episodes, frames) = (mended.episodes.len(), mended.frames());
    let left_out = mended.left_out.clone();
    write(out, mended, &output, interrupt, &mut notes)?;
    let of_the_file = defects.into_iter().filter(|d| d.episode.is_none()).collect();
    let repaired = Repaired {
        format: to,
        out: out.display().to_string(),
        episodes,
        frames,
        clipped_values,
        changes,
        of_the_file,
        left_out,
        notes: notes.iter().map(String::from).collect(),
    };
    args.speech.print(&repaired, &text(&repaired))?;
    Ok(Ending::Done)
}

fn text(r: &Repaired) -> String {
    let mut text = format!(
        "{}, {} are whole and written to {} ({})",
        counted(r.episodes, "episode"),
        counted(r.frames, "frame"),
        r.out,
        r.format
    );
    for change in &r.changes {
        let frames = change.frames.map_or_else(|| "unreadable".into(), |n| counted(n, "frame"));
        text += &match change.kept {
            0 => format!("\ndropped episode {} ({frames}):", change.episode),
            kept => format!("\ncut episode {} ({frames}) to {}:", change.episode, counted(kept, "frame")),
        };
        change.reasons.iter().for_each(|reason| text += &format!("\n  {reason}"));
    }
    if r.clipped_values > 0 {
        text += &format!("\n{} of actions were beyond the bound and are cut off", counted(r.clipped_values, "value"));
    }
    r.left_out.iter().for_each(|l| text += &format!("\nleft out: `{}`, {}", l.field, l.reason));
    r.of_the_file.iter().for_each(|d| text += &format!("\nof the file: {d}"));
    r.notes.iter().for_each(|note| text += &format!("\nnote: {note}"));
    text
}
