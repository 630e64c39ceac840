//! The command line `tenon-train`.

mod bench;
mod bench_env;
mod bench_peer;
mod bench_render;
mod bundle;
mod compare;
mod data;
mod demos;
mod evaluate;
mod export;
mod finetune;
mod import;
mod list;
mod plot;
mod pretrain;
mod resume;
mod watch;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tenon_core::config::{TaskConfig, Values};
use tenon_core::pictures::PicturesSeen;
use tenon_core::task::TaskName;
use tenon_sim::render::{Quality, RenderOptions};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::device::{Choice, DeviceFailure};
use tenon_train::environments::{PICTURES_KEY, look_of, look_of_policy};
use tenon_train::interrupt::{INTERRUPTED_EXIT_CODE, Interrupt};
use tenon_train::randomisation;
use tenon_train::run_dir::{KeepCheckpoints, holds_checkpoint, last_checkpoint};
use tenon_train::workers::Compute;

/// Exit code of a step that ran but missed what it should show.
const GOAL_MISSED_EXIT_CODE: u8 = 3;

/// Trains diffusion and Gaussian policies: demonstrations, pre-training, fine-tuning, evaluation, export.
#[derive(Debug, Parser)]
#[command(
    name = "tenon-train",
    version,
    after_help = "A whole run:\n  \
        tenon-train demos avoid --config configs/tasks/avoid_m1.toml --out runs/demos\n  \
        tenon-train pretrain --config configs/tasks/avoid_m1.toml --data runs/demos --out runs/pretrain\n  \
        tenon-train finetune --config configs/tasks/avoid_m1.toml --from runs/pretrain --out runs/finetune\n  \
        tenon-train export --checkpoint runs/finetune/checkpoint.safetensors --out bundles/avoid_m1\n\n\
        Watch it: runs/finetune/report.html, or tensorboard --logdir runs.\n\
        Exit codes: 0 done, 1 error, 2 wrong arguments, 3 the step ran but missed its goal, 130 interrupted.\n\
        Ctrl-C ends every command within 2 s; files are whole, and pretrain and finetune continue where they stood."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make or convert demonstrations.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
            tenon-train demos avoid --config configs/tasks/avoid_m1.toml --out runs/demos\n  \
            tenon-train demos gym --config configs/tasks/hopper_medium.toml --out runs/hopper/demos\n  \
            tenon-train demos robomimic --config configs/tasks/lift.toml --out runs/lift/demos"
    )]
    Demos(demos::DemosCommand),
    /// Read, check, mend, convert and look at demonstrations of other formats: HDF5, LeRobot, Zarr, pickles.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
            tenon-train data info can/low_dim.hdf5\n  \
            tenon-train data convert can/low_dim.hdf5 runs/can/demos"
    )]
    Data(data::DataCommand),
    /// Clone the demonstrations' behaviour.
    Pretrain(pretrain::PretrainArgs),
    /// Fine-tune a pre-trained policy in simulation with DPPO (Gaussian policies: PPO), or train one from scratch.
    Finetune(finetune::FinetuneArgs),
    /// Go on with a run that was stopped or killed.
    Resume(resume::ResumeArgs),
    /// Judge a policy by episodes in simulation.
    Evaluate(evaluate::EvaluateArgs),
    /// Write a policy bundle for the robot, with a parity check.
    Export(export::ExportArgs),
    /// Show what a policy bundle holds: policy, network, pictures, limits of the normaliser, origin.
    Bundle(bundle::BundleArgs),
    /// Turn a PyTorch checkpoint of the authors into one of ours, or list what is in it.
    Import(import::ImportArgs),
    /// Judge the last checkpoint of a run by episodes in simulation.
    Eval(evaluate::EvalArgs),
    /// List the runs below a folder: how far they are and what they came to.
    List(list::ListArgs),
    /// Compare runs: curves side by side, final values, settings that differ.
    Compare(compare::CompareArgs),
    /// Show the curves of a run.
    Plot(plot::PlotArgs),
    /// Film episodes of a policy: a video for each, and a page with all of them.
    Watch(watch::WatchArgs),
    /// Measure update and sampling speed on random data, beside a peer if one is given.
    Bench(bench::BenchArgs),
    /// Measure pictures of simulated worlds, beside mujoco.Renderer if a Python with it is given.
    BenchRender(bench_render::BenchRenderArgs),
}

/// What most commands have.
#[derive(Debug, Args)]
struct Common {
    /// Task configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Take the paper's values where the file gives them under [paper], instead of the authors' last ones.
    #[arg(long)]
    paper: bool,
    #[command(flatten)]
    output: Output,
}

impl Common {
    /// Reads and checks the task's configuration.
    fn read(&self) -> anyhow::Result<TaskConfig> {
        read_config(&self.config, if self.paper { Values::Paper } else { Values::Latest })
    }
}

/// How a command runs and speaks.
#[derive(Debug, Args)]
struct Output {
    /// Threads; the results do not depend on them [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    speech: Speech,
}

impl Output {
    fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    fn print(&self, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
        self.speech.print(value, text)
    }
}

/// On what networks are computed.
#[derive(Debug, Clone, Copy, Args)]
struct DeviceArg {
    /// Where networks are computed: cpu, cuda or cuda:N (a program built with `--features cuda`), or emulated (the
    /// card's kernels on the processor, slowly, for checking).
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Cpu)]
    device: Choice,
}

impl DeviceArg {
    /// Opens it.
    fn compute(self, output: &Output) -> anyhow::Result<Compute> {
        let device = self.device.open()?;
        if let Some(device) = &device {
            eprintln!("networks are computed on {}", device.name());
        }
        Ok(Compute { threads: output.threads(), device })
    }
}

/// How a command gives its result.
#[derive(Debug, Args)]
struct Speech {
    /// Print the result as one line of JSON on standard output.
    #[arg(long)]
    json: bool,
}

impl Speech {
    /// Prints the result: JSON where asked for, else lines for people.
    fn print(&self, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let line = if self.json { serde_json::to_string(value)? } else { text.to_string() };
        writeln!(std::io::stdout(), "{line}").context("writing the result to standard output")
    }
}

/// Which checkpoints of a run stay on the disk.
#[derive(Debug, Args)]
struct Checkpointing {
    /// Keep so many of the newest checkpoints.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    keep_last: u16,
    /// Keep those of every M-th step for good; 0 keeps none [default: a tenth of the run].
    #[arg(long, value_name = "M")]
    keep_every: Option<u64>,
}

impl Checkpointing {
    /// For a run of `total` steps.
    fn keep(&self, total: usize) -> KeepCheckpoints {
        let every = self.keep_every.unwrap_or((total as u64).div_ceil(10));
        KeepCheckpoints { last: usize::from(self.keep_last), every }
    }
}

/// How a command ended, where it was no error.
enum Ending {
    Done,
    GoalMissed,
    Interrupted,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(e) => {
            eprintln!("tenon-train: Ctrl-C cannot be caught: {e}");
            return ExitCode::FAILURE;
        }
    };
    // A card that fails ends the computation wherever it stands; what is on the disk is whole.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<DeviceFailure>() {
            quiet(panic);
        }
    }));
    let ending = match std::panic::catch_unwind(AssertUnwindSafe(|| run(cli.command, &interrupt))) {
        Ok(ending) => ending,
        Err(panic) => match panic.downcast::<DeviceFailure>() {
            Ok(failure) => Err(anyhow::anyhow!(
                "the device failed: {}; a run goes on from its last checkpoint with `tenon-train resume RUN`, with --device \
                 cpu if need be",
                failure.0
            )),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    };
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::GoalMissed) => ExitCode::from(GOAL_MISSED_EXIT_CODE),
        Ok(Ending::Interrupted) => {
            eprintln!("tenon-train: interrupted; the files are whole");
            ExitCode::from(INTERRUPTED_EXIT_CODE as u8)
        }
        Err(e) => {
            eprintln!("tenon-train: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    match command {
        Command::Demos(command) => demos::run(command, interrupt),
        Command::Data(command) => data::run(command, interrupt),
        Command::Pretrain(args) => pretrain::run(args, interrupt),
        Command::Finetune(args) => finetune::run(args, interrupt),
        Command::Resume(args) => resume::run(args, interrupt),
        Command::Evaluate(args) => evaluate::run(args, interrupt),
        Command::Export(args) => export::run(args, interrupt),
        Command::Bundle(args) => bundle::run(args),
        Command::Import(args) => import::run(args),
        Command::Eval(args) => evaluate::run_eval(args, interrupt),
        Command::List(args) => list::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Watch(args) => watch::run(args, interrupt),
        Command::Bench(args) => bench::run(args, interrupt),
        Command::BenchRender(args) => bench_render::run(&args, interrupt),
    }
}

/// Reads and checks a task's configuration.
fn read_config(path: &Path, values: Values) -> anyhow::Result<TaskConfig> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("reading {}: give a task configuration, e.g. configs/tasks/avoid_m1.toml", path.display())
    })?;
    Ok(TaskConfig::parse(&path.display().to_string(), &text, values)?)
}

/// What to do about a newest checkpoint that cannot be read.
const EARLIER_CHECKPOINT: &str = "point the link `last` to an earlier file in checkpoints/ to go on from there";

/// The newest checkpoint of a folder that may hold none yet.
fn newest(folder: &Path, fresh: bool) -> anyhow::Result<Option<Checkpoint>> {
    if fresh || !holds_checkpoint(folder) {
        return Ok(None);
    }
    let advice = format!("{EARLIER_CHECKPOINT}, use --fresh to begin anew, or choose another --out");
    let path = last_checkpoint(folder).context(advice.clone())?;
    Ok(Some(Checkpoint::read(&path).context(advice)?))
}

/// Key of the provenance: SHA-256 of the rig's file that the noise of parts was read from.
const NOISE_SHA256: &str = "noise_sha256";

/// Reads the table of noise that a configuration names, and says what it came to.
fn read_noise(config: &mut TaskConfig) -> anyhow::Result<()> {
    randomisation::read_table(config)?;
    if let Some(noise) = randomisation::describe(config) {
        eprintln!("{noise}");
    }
    Ok(())
}

fn noise_sha256(config: &TaskConfig) -> Option<String> {
    config.randomisation.as_ref()?.origin.as_ref()?.sha256.clone()
}

/// What a run records of the quality of pictures; an error where somebody gives one for a policy that sees none.
fn pictures(config: &TaskConfig, quality: Option<Quality>) -> anyhow::Result<Option<(String, String)>> {
    let Some(quality) = quality else { return Ok(None) };
    ensure!(
        look_of(config.task, quality).is_some(),
        "--pictures {quality}: the policies of {} see no pictures",
        config.task
    );
    Ok(Some((PICTURES_KEY.to_string(), quality.to_string())))
}

/// What a policy is shown of a simulation; none where it sees no pictures. `asked`: of the command line; `seen`: what the
/// policy is known to have seen in training; `whose`: its bundle or checkpoint. Says which pictures they are.
fn look(
    task: TaskName,
    asked: Option<Quality>,
    seen: Option<&PicturesSeen>,
    whose: &Path,
) -> anyhow::Result<Option<RenderOptions>> {
    let quality = asked.or(seen.map(|seen| seen.quality)).unwrap_or_default();
    let look = look_of_policy(task, seen, quality);
    ensure!(look.is_some() || asked.is_none(), "--pictures {quality}: the policies of {task} see no pictures");
    if look.is_some() {
        let whose = whose.display();
        match (asked, seen) {
            (Some(_), Some(seen)) if seen.quality != quality => eprintln!(
                "warning: {whose} saw {} pictures in training and is shown {quality} ones, because of --pictures {quality}",
                seen.quality
            ),
            (_, Some(_)) => eprintln!("pictures: {quality}, as {whose} saw them in training"),
            (Some(_), None) => eprintln!("pictures: {quality}; {whose} does not record which it saw in training"),
            (None, None) => eprintln!(
                "pictures: {quality}; {whose} does not record which it saw in training (--pictures fast for the others)"
            ),
        }
    }
    Ok(look)
}

/// The configuration as it is used, overrides included.
fn config_text(config: &TaskConfig) -> anyhow::Result<String> {
    toml::to_string(config).context("writing the configuration as TOML")
}

/// The configuration that a checkpoint was made with.
fn config_of(checkpoint: &Checkpoint) -> anyhow::Result<TaskConfig> {
    let text = &checkpoint.header.run.config;
    toml::from_str(text).context("the checkpoint's own configuration cannot be read; use the release that wrote it")
}
