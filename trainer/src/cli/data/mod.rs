//! `tenon-train data`: demonstrations in other people's formats.

mod convert;
mod info;
mod repair;
mod verify;
mod view;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use tenon_core::normalizer::ZeroRange;
use tenon_data::npz::Choice;
use tenon_data::{
    Bounds, DataError, Defect, Demonstrations, Format, Found, Kind, Notes, Output, Steps, default_states, detect,
};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::run_dir::writing;

use super::Ending;

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Write demonstrations in another format.
    Convert(convert::ConvertArgs),
    /// Say what is in demonstrations: episodes, lengths, fields, ranges, success.
    Info(info::InfoArgs),
    /// Look for what is wrong; exit code 1 where something is.
    Verify(verify::VerifyArgs),
    /// Write demonstrations anew without the bad episodes.
    Repair(repair::RepairArgs),
    /// Draw the fields of one episode.
    View(view::ViewArgs),
}

pub fn run(command: DataCommand, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let result = match command {
        DataCommand::Convert(args) => convert::run(args, interrupt),
        DataCommand::Info(args) => info::run(args, interrupt),
        DataCommand::Verify(args) => verify::run(args, interrupt),
        DataCommand::Repair(args) => repair::run(args, interrupt),
        DataCommand::View(args) => view::run(args, interrupt),
    };
    match result {
        Err(e) if matches!(e.downcast_ref(), Some(DataError::Interrupted)) => Ok(Ending::Interrupted),
        other => other,
    }
}

/// Where demonstrations are.
#[derive(Debug, Args)]
struct Source {
    /// File or folder of demonstrations; a folder of pickles is one data set.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Format: npz, robomimic, d4rl, lerobot, zarr, furniture or avoid [default: by what is in the file].
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
}

impl Source {
    fn format(&self) -> Result<Format, DataError> {
        self.from.map_or_else(|| detect(&self.path), Ok)
    }

    /// Reads what is there, telling how far it is.
    fn read(&self, format: Format, pictures: bool, interrupt: &Interrupt) -> Result<Found, DataError> {
        with_progress("reading episode", pictures, interrupt, |steps| tenon_data::read(&self.path, format, steps))
    }
}

/// Calls `work` with somebody to tell how far it is.
fn with_progress<T>(
    what: &str,
    pictures: bool,
    interrupt: &Interrupt,
    work: impl FnOnce(&mut Steps) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let mut progress: Option<Progress> = None;
    let mut begun: Option<std::time::Instant> = None;
    let mut tell = |done: usize, total: usize| {
        // What takes no time needs no line.
        let begun = begun.get_or_insert_with(std::time::Instant::now);
        if begun.elapsed().as_secs_f64() > 1.0 {
            progress.get_or_insert_with(|| Progress::new(what, total)).show(done, "");
        }
        !interrupt.is_requested()
    };
    work(&mut Steps::new(pictures, &mut tell))
}

/// How fields become the arrays of the written format.
#[derive(Debug, Args)]
struct Selection {
    /// Observations that make the state, in this order, e.g. robot0_eef_pos,object [default: the format's usual ones].
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    obs: Vec<String>,
    /// Pictures to take along, for npz in this order, e.g. agentview_image.
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    images: Vec<String>,
    /// Set actions beyond ±BOUND to it; robomimic's environments do so with 1.
    #[arg(long, value_name = "BOUND")]
    clip_actions: Option<f64>,
    /// Frames a second, where the file does not say.
    #[arg(long, value_name = "HZ")]
    rate: Option<f64>,
    /// What is done in the episodes, in words (LeRobot's task).
    #[arg(long, value_name = "TEXT")]
    task: Option<String>,
    /// How npz normalises a value that never changes: add-epsilon (1e-6 to every range) or widen (limits ± 1, furniture)
    /// [default: the one of the format that is read].
    #[arg(long, value_name = "HOW", value_parser = zero_range)]
    constants: Option<ZeroRange>,
    /// Leave out episodes whose rewards sum to nothing (Gym); npz limits are still those of all.
    #[arg(long)]
    skip_unrewarded: bool,
}

fn zero_range(text: &str) -> Result<ZeroRange, String> {
    match text {
        "add-epsilon" => Ok(ZeroRange::AddEpsilon),
        "widen" => Ok(ZeroRange::Widen),
        _ => Err("add-epsilon or widen".into()),
    }
}

impl Selection {
    /// Applies what concerns the demonstrations; how many values were clipped.
    fn apply(&self, demonstrations: &mut Demonstrations) -> anyhow::Result<usize> {
        if let Some(rate) = self.rate {
            ensure!(rate > 0.0 && rate.is_finite(), "--rate {rate}: give frames a second, e.g. 20");
            demonstrations.rate_hz = Some(rate);
        }
        let Some(bound) = self.clip_actions else { return Ok(0) };
        ensure!(bound > 0.0 && bound.is_finite(), "--clip-actions {bound}: give a bound, e.g. 1");
        ensure!(
            demonstrations.normalizer.is_none(),
            "--clip-actions: these actions are stored normalised; clip them where they are converted from"
        );
        Ok(demonstrations.clip_actions(bound))
    }

    fn output(&self, demonstrations: &Demonstrations, from: Format, to: Format) -> anyhow::Result<Output> {
        let states = match demonstrations.episodes.first() {
            _ if !self.obs.is_empty() => self.obs.clone(),
            Some(first) => default_states(first),
            None => Vec::new(),
        };
        if to == Format::Npz && states.is_empty() {
            let fields = demonstrations.episodes.first().map(|e| e.fields.keys().cloned().collect::<Vec<_>>());
            bail!(
                "there are no observations to train on, only {}; name what the policy is to see with --obs, e.g. --obs states",
                fields.unwrap_or_default().join(", ")
            );
        }
        let mut pictures = self.images.clone();
        if pictures.is_empty() && from == Format::Npz {
            // What has been read of them belongs to the data.
            let fields = demonstrations.episodes.first().into_iter().flat_map(|e| &e.fields);
            pictures.extend(fields.filter(|(_, array)| array.is_picture()).map(|(name, _)| name.clone()));
        }
        let choice = Choice {
            states,
            pictures,
            zero_range: self.constants.unwrap_or(from.zero_range()),
            skip_unrewarded: self.skip_unrewarded,
        };
        Ok(Output { format: to, choice, task: self.task.clone() })
    }
}

/// The format to write: what was said, or what the name ends in.
fn output_format(to: Option<Format>, out: &Path) -> anyhow::Result<Format> {
    let format = match (to, out.extension().and_then(|e| e.to_str())) {
        (Some(format), _) => format,
        (None, Some("hdf5" | "h5")) => Format::Robomimic,
        (None, Some("npz")) => Format::Npz,
        (None, None) => Format::Npz,
        (None, Some(other)) => bail!(".{other} says no format: name it with --to npz, --to robomimic or --to lerobot"),
    };
    ensure!(
        Format::WRITTEN.contains(&format),
        "{format} is read, not written; written are {}",
        Format::WRITTEN.map(Format::name).join(", ")
    );
    Ok(format)
}

/// Refuses to write over what is there, the input above all.
fn ensure_free(input: &Path, out: &Path) -> anyhow::Result<()> {
    let there = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => out.exists(),
    };
    ensure!(!there, "{} is there already; choose another place, or remove it first", out.display());
    if let (Ok(input), Some(parent)) = (input.canonicalize(), out.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let inside = parent.canonicalize().is_ok_and(|p| input.is_dir() && p.starts_with(&input));
        ensure!(!inside, "{} lies inside {}: the original is never touched", out.display(), input.display());
    }
    Ok(())
}

/// Writes, telling how far it is; the result is whole or not there.
fn write(
    out: &Path,
    demonstrations: Demonstrations,
    output: &Output,
    interrupt: &Interrupt,
    notes: &mut Notes,
) -> Result<(), DataError> {
    // Ctrl-C waits for the next step, so that nothing half-written is left.
    let _writing = writing();
    with_progress("writing episode", true, interrupt, |steps| {
        tenon_data::write(out, demonstrations, output, steps, notes)
    })
}

/// A bound from the command line, `none` for no bound.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ActionLimit {
    None,
    Bound(f64),
}

impl std::str::FromStr for ActionLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let bound = text.parse().ok().filter(|b: &f64| *b > 0.0 && b.is_finite());
        bound.map(Self::Bound).ok_or_else(|| "a positive number, or none".into())
    }
}

fn bounds(format: Format, limit: Option<ActionLimit>) -> Bounds {
    let usual = format.bounds();
    match limit {
        None => usual,
        Some(ActionLimit::None) => Bounds { action: None, ..usual },
        Some(ActionLimit::Bound(bound)) => Bounds { action: Some(bound), ..usual },
    }
}

/// Whether demonstrations with such a defect must not be trained on unseen.
fn is_fatal(defect: &Defect) -> bool {
    !matches!(defect.kind, Kind::Count | Kind::Missing | Kind::OutOfRange | Kind::Duplicate)
        || (defect.kind == Kind::Missing && defect.field.is_some())
}

/// Up to `most` defects, a line each.
fn listed(defects: &[&Defect], most: usize) -> String {
    let mut lines: Vec<String> = defects.iter().take(most).map(|d| format!("  {d}")).collect();
    if defects.len() > most {
        lines.push(format!("  and {} more", defects.len() - most));
    }
    lines.join("\n")
}

/// `1 episode`, `2 episodes`.
fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Reads for a command that looks only.
fn read_for_looking(source: &Source, pictures: bool, interrupt: &Interrupt) -> anyhow::Result<(Format, Found)> {
    let format = source.format()?;
    let found = source.read(format, pictures, interrupt)?;
    Ok((format, found))
}
