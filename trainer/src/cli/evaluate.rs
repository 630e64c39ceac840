//! `tenon-train evaluate`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tenon_core::diffusion::StepNoise;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use tenon_train::export::policy_of;
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::settings::finetune_config;
use tenon_train::workers::Workers;

use super::{Common, Ending, read_config};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train evaluate --checkpoint runs/finetune/checkpoint.safetensors --config configs/tasks/avoid_m1.toml\n  \
    tenon-train evaluate --bundle bundles/avoid_m1 --config configs/tasks/avoid_m1.toml --episodes 50 --json")]
pub struct EvaluateArgs {
    #[command(flatten)]
    common: Common,
    /// Checkpoint of pre-training or fine-tuning.
    #[arg(long, value_name = "FILE", required_unless_present = "bundle", conflicts_with = "bundle")]
    checkpoint: Option<PathBuf>,
    /// Policy bundle, run by the default ONNX engine.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Episodes [default: evaluate.episodes of the configuration].
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,
    /// Seed [default: evaluate.seed of the configuration].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Noise of deployment, or that of fine-tuning's rollouts.
    #[arg(long, value_enum, default_value = "evaluation")]
    noise: NoiseKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NoiseKind {
    Evaluation,
    Training,
}

pub fn run(args: EvaluateArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = read_config(&args.common.config)?;
    let threads = args.common.output.threads();
    let options = EvaluationOptions {
        episodes: args.episodes.unwrap_or(config.evaluate.episodes),
        seed: args.seed.unwrap_or(config.evaluate.seed),
        environments: config.finetune.environments,
        threads,
    };
    ensure!(options.episodes >= 1, "--episodes 0: give at least 1");
    let finetune = finetune_config(&config);
    let noise = match args.noise {
        NoiseKind::Evaluation => StepNoise::Evaluation,
        NoiseKind::Training => {
            StepNoise::Exploration { min_std: finetune.min_sampling_denoising_std, eta: finetune.eta }
        }
    };
    let stop = || interrupt.is_requested();
    let mut progress = Progress::new("episode", options.episodes);
    let mut show = |done, successes| progress.show(done, &format!("{successes} succeeded"));
    let result = if let Some(path) = &args.checkpoint {
        let checkpoint = Checkpoint::read(path)?;
        let (policy, workers) = (policy_of(&checkpoint)?, Workers::new(threads)?);
        let mut source = PolicyChunks::new(&policy, &workers, noise, options.environments);
        evaluate(&mut source, &checkpoint.header.run.policy, options, &stop, &mut show)?
    } else {
        let path = args.bundle.as_ref().context("give --checkpoint or --bundle")?;
        super::export::evaluate_bundle(path, noise, options, &stop, &mut show)?
    };
    drop(progress);
    let Some(result) = result else { return Ok(Ending::Interrupted) };
    args.common.output.print(&result, &describe(&result))?;
    Ok(Ending::Done)
}

fn describe(e: &Evaluation) -> String {
    let [low, high] = e.wilson_95;
    format!(
        "success {:.1} % ({} of {} episodes; 95 % interval {:.1} to {:.1} %), {} with contact, mean reward {:.1}",
        100.0 * e.success_rate,
        e.successes,
        e.episodes,
        100.0 * low,
        100.0 * high,
        e.contacts,
        e.mean_reward
    )
}
