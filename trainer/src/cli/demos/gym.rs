//! `tenon-train demos gym`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_core::config::TaskConfig;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::demos::{GymSummary, Recording, RollOutOptions, roll_out, write_recording};
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
    OUT/policy, continued where it was stopped), then rolls it out with its own noise. Several policies make data with\n\
    more than one way to go on.\n\
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
    /// Policies that are trained, with seeds one after the other, and share the control steps [default: demos.policies of
    /// the configuration, or 1].
    #[arg(long, value_name = "N")]
    policies: Option<usize>,
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
    let policies = args.policies.or(demos.policies).unwrap_or(1);
    ensure!((1..=frames).contains(&policies), "--policies {policies}: give at least 1, and not more than frames");
    let first_seed = args.seed.unwrap_or(config.finetune()?.seed);
    let mut training = FinetuneArgs {
        common: args.common,
        from: None,
        scratch: true,
        out: PathBuf::new(),
        iterations: None,
        seed: None,
        pictures: None,
        fresh: args.fresh,
        device: args.device,
        checkpointing: Checkpointing { keep_last: 3, keep_every: Some(0) },
    };
    let (mut recording, mut missed, mut seconds) = (Recording::default(), false, 0.0);
    let mut options = RollOutOptions {
        task: config.task,
        frames,
        seed: demos.seed,
        environments: ENVIRONMENTS,
        threads: training.common.output.threads(),
    };
    for k in 0..policies {
        training.out = match policies {
            1 => args.out.join(POLICY_FOLDER),
            _ => args.out.join(format!("{POLICY_FOLDER}_{}", k + 1)),
        };
        training.seed = Some(first_seed + k as u64);
        match finetune::run_quietly(&training, config.clone(), interrupt)? {
            Ending::Done => {}
            Ending::GoalMissed if args.any_return => missed = true,
            other => return Ok(other),
        }
        let begun = Instant::now();
        // What is left is shared among the policies that are left, for an episode is never cut.
        options.frames = (frames.saturating_sub(recording.frames())).div_ceil(policies - k);
        options.seed = demos.seed + k as u64;
        let Some(part) = record(&training, &config, options, interrupt)? else { return Ok(Ending::Interrupted) };
        recording.extend(&part);
        seconds += begun.elapsed().as_secs_f64();
    }
    options.seed = demos.seed;
    let summary = write_recording(&args.out, options, policies, recording, seconds)?;
    training.common.output.print(&summary, &describe(&summary, &args.out))?;
    Ok(if missed { Ending::GoalMissed } else { Ending::Done })
}

/// Rolls out the policy that `training` has made. None: interrupted.
fn record(
    training: &FinetuneArgs,
    config: &TaskConfig,
    options: RollOutOptions,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Recording>> {
    let checkpoint = Checkpoint::read(&last_checkpoint(&training.out)?)?;
    let policy = TrainedPolicy::of(&checkpoint, PretrainedWeights::Finetuning, config.policy.noise_clip)?;
    let TrainedPolicy::Gaussian(_) = &policy else {
        bail!("demonstrations are rolled out from a Gaussian policy; [policy.model] describes a diffusion policy")
    };
    let workers = Workers::new(training.device.compute(&training.common.output)?)?;
    let policy = policy.on(workers.device());
    let mode = ChunkMode::Gaussian(SamplingMode { noise: SamplingNoise::Exploration, base_policy: false });
    let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, ENVIRONMENTS);
    let mut progress = Progress::new("frames", options.frames);
    let mut show =
        |frames, episodes, mean| progress.show(frames, &format!("{episodes} episodes, mean return {mean:.0}"));
    let stop = || interrupt.is_requested();
    Ok(roll_out(&mut source, &checkpoint.header.run.policy, options, &stop, &mut show)?)
}

fn describe(s: &GymSummary, out: &std::path::Path) -> String {
    format!(
        "{}: {} frames of {} episodes by {} ({} left out that earned nothing), {:.0} steps an episode, {:.0} % fell\n\
         return {:.0} ± {:.0} ({:.0} to {:.0}); D4RL's medium data {:.0}, normalised score {:.1}\n\
         {:.1} s; written to {}",
        s.task,
        s.frames,
        s.episodes,
        if s.policies == 1 { "one policy".to_string() } else { format!("{} policies", s.policies) },
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
