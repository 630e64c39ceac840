//! `tenon-train demos avoid`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tenon_core::avoid::MODE_COUNT;
use tenon_train::demos::{Alignment, Origin, ScriptOptions, Source, read_human, script, write};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;

use crate::cli::{Common, Ending};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train demos avoid --config configs/tasks/avoid_m1.toml --out runs/demos\n  \
    tenon-train demos avoid --config configs/tasks/avoid_m2.toml --from demos.npz --out runs/human_m2 --json\n\n\
    Writes all.npz (every episode, physical units), train.npz (the task's selection, normalised),\n\
    normalization.npz and summary.json.")]
pub struct AvoidArgs {
    #[command(flatten)]
    common: Common,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Convert these recorded demonstrations (lengths, des_xyz, c_xyz) instead of scripting new ones.
    #[arg(long, value_name = "NPZ")]
    from: Option<PathBuf>,
    /// Scripted episodes of each of the 24 modes [default: demos.per_mode of the configuration].
    #[arg(long, value_name = "N", conflicts_with = "from")]
    per_mode: Option<usize>,
    /// Which observation train.npz pairs with an action: the one that the policy sees at run time (one control step
    /// old), or the one of the recorded row.
    #[arg(long, value_enum, default_value = "run-time")]
    alignment: AlignmentKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AlignmentKind {
    RunTime,
    Recorded,
}

pub fn run(args: AvoidArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = args.common.read()?;
    let demos = config.demos.as_ref().context("the configuration has no [demos]")?;
    let alignment = match args.alignment {
        AlignmentKind::RunTime => Alignment::RunTime,
        AlignmentKind::Recorded => Alignment::Recorded,
    };
    let begun = Instant::now();
    let (episodes, mut origin) = match &args.from {
        Some(path) => {
            let origin = Origin {
                source: Source::Human,
                alignment,
                seed: None,
                rejected_collisions: 0,
                rejected_others: 0,
                seconds: 0.0,
            };
            (read_human(path).context("the recorded demonstrations cannot be used")?, origin)
        }
        None => {
            let per_mode = args.per_mode.unwrap_or(demos.per_mode.unwrap_or(0));
            anyhow::ensure!(per_mode >= 1, "--per-mode 0: give at least 1 episode a mode");
            let options = ScriptOptions { seed: demos.seed, per_mode, threads: args.common.output.threads() };
            let progress = Mutex::new((Progress::new("demonstrations", MODE_COUNT * per_mode), 0, 0));
            let report = script(options, &|| interrupt.is_requested(), &|steps| {
                let mut progress = progress.lock().unwrap_or_else(|e| e.into_inner());
                let (progress, episodes, sum) = &mut *progress;
                *episodes += 1;
                *sum += steps;
                progress.show(*episodes, &format!("mean length {:.0} steps", *sum as f64 / *episodes as f64));
            })?;
            if report.stopped {
                return Ok(Ending::Interrupted);
            }
            let origin = Origin {
                source: Source::Scripted,
                alignment,
                seed: Some(demos.seed),
                rejected_collisions: report.rejected_collisions,
                rejected_others: report.rejected_others,
                seconds: 0.0,
            };
            (report.episodes, origin)
        }
    };
    origin.seconds = begun.elapsed().as_secs_f64();
    let summary = write(&args.out, config.task, &episodes, origin)?;
    let [shortest, mean, longest] = summary.steps_per_episode;
    let text = format!(
        "{} episodes of {} modes, {} steps ({shortest:.0} to {longest:.0} an episode, mean {mean:.1}); \
         {} drawn paths touched an obstacle and {} missed their mode, drawn anew\n\
         {}: {} episodes, {} steps selected; {:.1} s; written to {}",
        summary.episodes,
        summary.modes.len(),
        summary.steps,
        summary.rejected_collisions,
        summary.rejected_others,
        summary.task,
        summary.selected_episodes,
        summary.selected_steps,
        summary.seconds,
        args.out.display()
    );
    args.common.output.print(&summary, &text)?;
    Ok(Ending::Done)
}
