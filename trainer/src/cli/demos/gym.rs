//! `tenon-train demos gym`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::demos::{GymSummary, RollOutOptions, roll_out, write_recording};
use tenon_train::evaluate::PolicyChunks;
use tenon_train::interrupt::Interrupt;
use tenon_train::ppo::{SamplingMode, SamplingNoise};
use tenon_train::progress::Progress;
use tenon_train::run_dir::last_checkpoint;
use tenon_train::sampling::{ChunkMode, PretrainedWeights, TrainedPolicy};
use tenon_train::workers::Workers;

use crate::cli::finetune::{self, FinetuneArgs};
use crate::cli::{Checkpointing, Common, DeviceArg, Ending};

/// Folder of the policy's run within that of the demonstrations.
const POLICY_FOLDER: &str = "policy";
/// Environments that are rolled out together.
const ENVIRONMENTS: usize = 50;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train demos gym --config configs/tasks/hopper_medium.toml --out runs/hopper/demos\n  \
    tenon-train demos gym --config configs/tasks/hopper_medium.toml --out runs/hopper/demos --frames 1000000\n\n\
    Trains the configuration's Gaussian policy from scratch until finetune.stop_at_return (a run of its own in\n\
    OUT/policy, continued where it was stopped), then rolls it out with its own noise.\n\
    Writes train.npz (normalised), normalization.npz and summary.json with the returns.\n\
    Exit code 3: the policy did not reach that return; --any-return records it all the same.")]
pub struct GymArgs {
    #[command(flatten)]
    common: Common,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Control steps to record [default: demos.frames of the configuration].
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Seed of training [default: finetune.seed of the configuration].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Record the policy whatever it returns.
    #[arg(long)]
    any_return: bool,
    /// Train anew whatever the folder holds.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    device: DeviceArg,
}

pub fn run(args: GymArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = args.common.read()?;
    let demos = config.demos.clone().context("the configuration has no [demos]")?;
    let frames = args.frames.or(demos.frames).context("give --frames, or demos.frames in the configuration")?;
    ensure!(frames >= 1, "--frames 0: give at least 1");
    let threads = args.common.output.threads();
    let policy_folder = args.out.join(POLICY_FOLDER);
    let training = FinetuneArgs {
        common: args.common,
        from: None,
        scratch: true,
        out: policy_folder.clone(),
        iterations: None,
        seed: args.seed,
        fresh: args.fresh,
        device: args.device,
        checkpointing: Checkpointing { keep_last: 3, keep_every: Some(0) },
    };
    let ending = finetune::run_quietly(&training, config.clone(), interrupt)?;
    match ending {
        Ending::Done => {}
        Ending::GoalMissed if args.any_return => {}
        other => return Ok(other),
    }
    let begun = Instant::now();
    let checkpoint = Checkpoint::read(&last_checkpoint(&policy_folder)?)?;
    let policy = TrainedPolicy::of(&checkpoint, PretrainedWeights::Finetuning, config.policy.noise_clip)?;
    let TrainedPolicy::Gaussian(_) = &policy else {
        bail!("demonstrations are rolled out from a Gaussian policy; [policy.model] describes a diffusion policy")
    };
    let workers = Workers::new(training.device.compute(&training.common.output)?)?;
    let policy = policy.on(workers.device());
    let mode = ChunkMode::Gaussian(SamplingMode { noise: SamplingNoise::Exploration, base_policy: false });
    let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, ENVIRONMENTS);
    let options = RollOutOptions { task: config.task, frames, seed: demos.seed, environments: ENVIRONMENTS, threads };
    let mut progress = Progress::new("frames", frames);
    let recording = roll_out(
        &mut source,
        &checkpoint.header.run.policy,
        options,
        &|| interrupt.is_requested(),
        &mut |frames, episodes, mean| progress.show(frames, &format!("{episodes} episodes, mean return {mean:.0}")),
    )?;
    drop(progress);
    let Some(recording) = recording else { return Ok(Ending::Interrupted) };
    let summary = write_recording(&args.out, options, recording, begun.elapsed().as_secs_f64())?;
    training.common.output.print(&summary, &describe(&summary, &args.out))?;
    Ok(ending)
}

fn describe(s: &GymSummary, out: &std::path::Path) -> String {
    format!(
        "{}: {} frames of {} episodes ({} left out that earned nothing), {:.0} steps an episode, {:.0} % fell\n\
         return {:.0} ± {:.0} ({:.0} to {:.0}); D4RL's medium data {:.0}, normalised score {:.1}\n\
         {:.1} s; written to {}",
        s.task,
        s.frames,
        s.episodes,
        s.left_out,
        s.mean_steps,
        100.0 * s.fallen,
        s.mean_return,
        s.return_std,
        s.return_range[0],
        s.return_range[1],
        s.d4rl_medium_return,
        s.d4rl_normalized_score,
        s.seconds,
        out.display()
    )
}
