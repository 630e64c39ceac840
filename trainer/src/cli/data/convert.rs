//! `tenon-train data convert`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use tenon_data::{Bounds, Format, Kind, LeftOut, Notes, verify};
use tenon_train::interrupt::Interrupt;

use super::{Selection, Source, counted, ensure_free, is_fatal, listed, output_format, write};
use crate::cli::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train data convert can/low_dim.hdf5 runs/can/demos\n  \
    tenon-train data convert demo.hdf5 runs/lift/demos --obs states --clip-actions 1\n  \
    tenon-train data convert runs/demos pusht --to lerobot --rate 10 --task \"push the T\"\n\n\
    Read: npz, robomimic, d4rl, lerobot, zarr, furniture, avoid. Written: npz (what `pretrain --data` reads: train.npz \
    with normalised values, normalization.npz with their limits, summary.json), robomimic (.hdf5), lerobot (a folder, \
    without pictures).\n\
    Values are normalised by n = 2 (x − min)/(max − min + 1e-6) − 1 with the limits of these data; furniture adds \
    nothing and gives a constant value the limits min − 1, max + 1.\n\
    What is damaged is not converted: `data repair` leaves it out.")]
pub struct ConvertArgs {
    #[command(flatten)]
    source: Source,
    /// File or folder to write; nothing may be there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Format to write: npz, robomimic or lerobot [default: by the name: .hdf5 robomimic, .npz or a folder npz].
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    speech: Speech,
}

#[derive(Debug, Serialize)]
struct Converted {
    from: Format,
    to: Format,
    out: String,
    episodes: usize,
    frames: usize,
    /// Observations that make the state.
    states: Vec<String>,
    clipped_values: usize,
    left_out: Vec<LeftOut>,
    notes: Vec<String>,
}

pub fn run(args: ConvertArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (path, out) = (&args.source.path, &args.out);
    let to = output_format(args.to, out)?;
    ensure_free(path, out)?;
    let from = args.source.format()?;
    let pictures = to == Format::Robomimic || !args.selection.images.is_empty();
    let mut found = args.source.read(from, pictures, interrupt)?;
    let defects = verify(path, &found, Bounds::default());
    let fatal: Vec<_> = defects.iter().filter(|d| is_fatal(d)).collect();
    if !fatal.is_empty() {
        bail!(
            "{} is not converted, {}:\n{}\n`tenon-train data repair` writes it without the bad episodes",
            path.display(),
            counted(fatal.len(), "defect"),
            listed(&fatal, 5)
        );
    }
    let mut notes = Notes::default();
    defects.iter().for_each(|d| notes.say(&d.to_string()));
    let clipped_values = args.selection.apply(&mut found.demonstrations)?;
    let beyond = verify(path, &found, from.bounds());
    let beyond = beyond.iter().filter(|d| d.kind == Kind::OutOfRange).count();
    if beyond > 0 && from != Format::Npz {
        notes.say(&format!(
            "{} with actions beyond ±1, which environments of {from} cut off; --clip-actions 1 does so here",
            counted(beyond, "episode")
        ));
    }
    let output = args.selection.output(&found.demonstrations, from, to)?;
    let (episodes, frames) = (found.demonstrations.episodes.len(), found.demonstrations.frames());
    let left_out = found.demonstrations.left_out.clone();
    write(out, found.demonstrations, &output, interrupt, &mut notes)?;
    let converted = Converted {
        from,
        to,
        out: out.display().to_string(),
        episodes,
        frames,
        states: output.choice.states.clone(),
        clipped_values,
        left_out,
        notes: notes.iter().map(String::from).collect(),
    };
    args.speech.print(&converted, &text(&converted))?;
    Ok(Ending::Done)
}

fn text(c: &Converted) -> String {
    let mut text = format!(
        "{}, {}: {} to {}, written to {}",
        counted(c.episodes, "episode"),
        counted(c.frames, "frame"),
        c.from,
        c.to,
        c.out
    );
    if c.to == Format::Npz {
        text += &format!("\nthe state is {}", c.states.join(", "));
    }
    if c.clipped_values > 0 {
        text += &format!("\n{} of actions were beyond the bound and are cut off", counted(c.clipped_values, "value"));
    }
    for left_out in &c.left_out {
        text += &format!("\nleft out: `{}`, {}", left_out.field, left_out.reason);
    }
    c.notes.iter().for_each(|note| text += &format!("\nnote: {note}"));
    text
}
