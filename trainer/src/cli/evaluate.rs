//! `tenon-train evaluate`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tenon_core::config::TaskConfig;
use tenon_core::diffusion::StepNoise;
use tenon_core::randomisation::Randomisation;
use tenon_policy::Bundle;
use tenon_sim::render::Quality;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::device::Choice;
use tenon_train::dppo::ChainMode;
use tenon_train::environments::pictures_seen;
use tenon_train::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use tenon_train::interrupt::Interrupt;
use tenon_train::ppo::{SamplingMode, SamplingNoise};
use tenon_train::progress::Progress;
use tenon_train::randomisation::{of_evaluation, read_table};
use tenon_train::run_dir::last_checkpoint;
use tenon_train::sampling::{ChunkMode, PolicyRef, PretrainedWeights, TrainedPolicy};
use tenon_train::settings::dppo_config;
use tenon_train::workers::Workers;

use super::export::bundle_chunks;
use super::{Common, DeviceArg, Ending, Output, config_of, look};

/// Environments that step together where the configuration has no fine-tuning.
const ENVIRONMENTS: usize = 50;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train evaluate --checkpoint runs/finetune/checkpoint.safetensors --config configs/tasks/avoid_m1.toml\n  \
    tenon-train evaluate --bundle bundles/avoid_m1 --config configs/tasks/avoid_m1.toml --episodes 50 --json\n\n\
    A policy that sees pictures is shown those of the quality that it saw in training, as checkpoint or bundle records it\n\
    (`tenon-train bundle DIR` shows it).")]
pub struct EvaluateArgs {
    #[command(flatten)]
    common: Common,
    /// Checkpoint of pre-training or fine-tuning.
    #[arg(long, value_name = "FILE", required_unless_present = "bundle", conflicts_with = "bundle")]
    checkpoint: Option<PathBuf>,
    /// Policy bundle, run by the default ONNX engine.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Sample a bundle's chunks in so many steps, of those that it allows, instead of the usual number.
    #[arg(long, value_name = "N", requires = "bundle", conflicts_with = "checkpoint")]
    denoising_steps: Option<usize>,
    #[command(flatten)]
    judging: Judging,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train eval runs/finetune --episodes 50 --json\n\n\
    Settings are those that the run was made with. `tenon-train evaluate` judges any checkpoint or bundle.")]
pub struct EvalArgs {
    /// Folder of a run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    output: Output,
}

/// How to judge.
#[derive(Debug, Args)]
struct Judging {
    /// Episodes [default: evaluate.episodes of the configuration].
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,
    /// Seed [default: evaluate.seed of the configuration].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Noise of deployment, or that of fine-tuning's rollouts.
    #[arg(long, value_enum, default_value = "evaluation")]
    noise: NoiseKind,
    /// Quality of the pictures, exact or fast, for a policy that sees them [default: what it saw in training, where
    /// checkpoint or bundle records it, else exact].
    #[arg(long, value_name = "QUALITY")]
    pictures: Option<Quality>,
    #[command(flatten)]
    device: DeviceArg,
}

/// Whose policy is judged.
enum Judged<'a> {
    Checkpoint(&'a Path, &'a Checkpoint),
    /// With the number of steps, where it is not the usual one.
    Bundle(&'a Bundle, Option<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NoiseKind {
    Evaluation,
    Training,
}

pub fn run(args: EvaluateArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = args.common.read()?;
    if let Some(path) = &args.checkpoint {
        let checkpoint = Checkpoint::read(path)?;
        return judge(Judged::Checkpoint(path, &checkpoint), &config, &args.judging, &args.common.output, interrupt);
    }
    let bundle = Bundle::open(args.bundle.context("give --checkpoint or --bundle")?)?;
    let judged = Judged::Bundle(&bundle, args.denoising_steps);
    judge(judged, &config, &args.judging, &args.common.output, interrupt)
}

/// `tenon-train eval RUN`.
pub fn run_eval(args: EvalArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let checkpoint = Checkpoint::read(&last_checkpoint(&args.run)?)?;
    let config = config_of(&checkpoint)?;
    judge(Judged::Checkpoint(&args.run, &checkpoint), &config, &args.judging, &args.output, interrupt)
}

fn judge(
    judged: Judged,
    config: &TaskConfig,
    judging: &Judging,
    output: &Output,
    interrupt: &Interrupt,
) -> anyhow::Result<Ending> {
    let threads = output.threads();
    let noise = evaluation_noise(config)?;
    let (whose, seen) = match judged {
        Judged::Checkpoint(path, checkpoint) => (path, pictures_seen(&checkpoint.header.run)?),
        Judged::Bundle(bundle, _) => (bundle.folder(), bundle.spec().pictures.clone()),
    };
    let look = look(config.task, judging.pictures, seen.as_ref(), whose)?;
    let options = EvaluationOptions {
        task: config.task,
        episodes: judging.episodes.unwrap_or(config.evaluate.episodes),
        seed: judging.seed.unwrap_or(config.evaluate.seed),
        environments: config.finetune.as_ref().map_or(ENVIRONMENTS, |c| c.environments),
        threads,
        randomisation: noise.as_ref(),
        pictures: look.as_ref(),
    };
    ensure!(options.episodes >= 1, "--episodes 0: give at least 1");
    let stop = || interrupt.is_requested();
    let mut progress = Progress::new("episode", options.episodes);
    let mut show = |done, so_far: &Evaluation| progress.show(done, &so_far.describe(config.task));
    let result = match judged {
        Judged::Checkpoint(_, checkpoint) => {
            let weights = PretrainedWeights::of_evaluation(config);
            let workers = Workers::new(judging.device.compute(output)?)?;
            let policy = TrainedPolicy::of(checkpoint, weights, config.policy.noise_clip)?;
            let mut policy = policy.on(workers.device());
            if let (NoiseKind::Training, PolicyRef::Diffusion(_)) = (judging.noise, policy.as_ref()) {
                policy.take_eta(checkpoint, &dppo_config(config)?.eta)?;
            }
            let mode = match (judging.noise, policy.as_ref()) {
                (NoiseKind::Evaluation, policy) => ChunkMode::evaluation(policy),
                (NoiseKind::Training, PolicyRef::Diffusion(_)) => {
                    ChunkMode::Diffusion(ChainMode { noise: training_noise(config)?, base_policy: false })
                }
                (NoiseKind::Training, PolicyRef::Gaussian(_)) => {
                    ChunkMode::Gaussian(SamplingMode { noise: SamplingNoise::Exploration, base_policy: false })
                }
            };
            let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, options.environments);
            evaluate(&mut source, &checkpoint.header.run.policy, options, &stop, &mut show)?
        }
        Judged::Bundle(bundle, steps) => {
            ensure!(judging.device.device == Choice::Cpu, "a bundle runs on its ONNX engine: leave --device out");
            let noise = match judging.noise {
                NoiseKind::Evaluation => StepNoise::Evaluation,
                NoiseKind::Training => training_noise(config)?,
            };
            let mut source = bundle_chunks(bundle, noise, steps)?;
            evaluate(&mut source, bundle.spec(), options, &stop, &mut show)?
        }
    };
    drop(progress);
    let Some(result) = result else { return Ok(Ending::Interrupted) };
    output.print(&result, &result.describe(config.task))?;
    Ok(Ending::Done)
}

/// Randomisation, where the configuration wants evaluations to have it.
pub(super) fn evaluation_noise(config: &TaskConfig) -> anyhow::Result<Option<Randomisation>> {
    if !config.randomisation.as_ref().is_some_and(|r| r.evaluation) {
        return Ok(None);
    }
    let mut config = config.clone();
    read_table(&mut config)?;
    Ok(of_evaluation(&config)?)
}

/// The noise of fine-tuning's rollouts.
fn training_noise(config: &TaskConfig) -> anyhow::Result<StepNoise> {
    let finetune = dppo_config(config)?;
    Ok(StepNoise::Exploration { min_std: finetune.min_sampling_denoising_std, eta: finetune.eta.module.base })
}
