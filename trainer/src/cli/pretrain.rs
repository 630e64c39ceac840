//! `tenon-train pretrain`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tenon_core::config::TaskConfig;
use tenon_core::normalizer::Normalizer;
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::dataset::{Dataset, read_normalization};
use tenon_train::interrupt::Interrupt;
use tenon_train::pretrain::Pretrainer;
use tenon_train::progress::Progress;
use tenon_train::run_dir::{
    CHECKPOINT_FILE, Metrics, commit, create_folder, sha256_of, write_checkpoint, write_json, write_text,
};
use tenon_train::settings::pretrain_config;

use super::{Common, Ending, config_of, config_text, read_config};

/// Time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train pretrain --config configs/tasks/avoid_m1.toml --data runs/demos --out runs/pretrain\n\n\
    Writes config.toml, metrics.jsonl, checkpoint.safetensors and summary.json. An unfinished run of the same\n\
    settings and data in the folder is continued; --fresh begins anew.")]
pub struct PretrainArgs {
    #[command(flatten)]
    common: Common,
    /// Folder of demonstrations (train.npz, normalization.npz).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Epochs [default: pretrain.epochs of the configuration].
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Seed [default: pretrain.seed of the configuration].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Begin anew whatever the folder holds.
    #[arg(long)]
    fresh: bool,
}

/// `summary.json` of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    epochs: u64,
    final_loss: f64,
    seconds: f64,
    parameters: usize,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Serialize)]
struct EpochRecord {
    epoch: u64,
    loss: f64,
    learning_rate: f64,
    seconds: f64,
}

pub fn run(args: PretrainArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut config = read_config(&args.common.config)?;
    config.pretrain.epochs = args.epochs.unwrap_or(config.pretrain.epochs);
    config.pretrain.seed = args.seed.unwrap_or(config.pretrain.seed);
    ensure!(
        config.pretrain.epochs > config.pretrain.warmup_epochs,
        "{} epochs must be more than the {} of the warm-up (pretrain.warmup_epochs)",
        config.pretrain.epochs,
        config.pretrain.warmup_epochs
    );
    let threads = args.common.output.threads();
    let train = args.data.join("train.npz");
    let dataset =
        Dataset::open(&train).context("run `tenon-train demos avoid` first, or name its folder with --data")?;
    let (observation, action) = read_normalization(&args.data.join("normalization.npz"))?;
    let data_sha256 = sha256_of(&train)?;
    create_folder(&args.out)?;

    let settings = pretrain_config(&config);
    let mut trainer = match previous(&args.out, args.fresh, &config, &data_sha256)? {
        Some(checkpoint) => Pretrainer::resume(settings.clone(), &checkpoint, threads)?,
        None => {
            let provenance = BTreeMap::from([
                ("commit".to_string(), commit()),
                ("data".to_string(), train.display().to_string()),
                ("data_sha256".to_string(), data_sha256),
            ]);
            let run = RunInfo {
                network: config.policy.network.clone(),
                policy: config.policy_spec(Normalizer::new(observation, action), 0),
                critic: None,
                config: config_text(&config)?,
                provenance,
            };
            write_text(&args.out.join("config.toml"), &config_text(&config)?)?;
            Pretrainer::new(settings.clone(), run, config.pretrain.seed, threads)?
        }
    };

    let mut metrics = Metrics::open(&args.out, "epoch", trainer.epochs_done())?;
    let mut progress = Progress::new("epoch", config.pretrain.epochs);
    if trainer.epochs_done() > 0 {
        progress.note(&format!("continuing after epoch {} of {}", trainer.epochs_done(), settings.epochs));
    }
    let (begun, mut epoch_begun, mut saved) = (Instant::now(), Instant::now(), Instant::now());
    let mut final_loss = None;
    trainer.run(&dataset, &mut |trainer, epoch| {
        let seconds = std::mem::replace(&mut epoch_begun, Instant::now()).elapsed().as_secs_f64();
        let record = EpochRecord { epoch: epoch.epoch, loss: epoch.loss, learning_rate: epoch.learning_rate, seconds };
        metrics.append(&record)?;
        progress
            .show(epoch.epoch as usize, &format!("loss {:.4}, learning rate {:.1e}", epoch.loss, epoch.learning_rate));
        final_loss = Some(epoch.loss);
        let ends = epoch.epoch == epoch.epochs || interrupt.is_requested();
        if ends || saved.elapsed() >= CHECKPOINT_INTERVAL {
            write_checkpoint(&args.out, &trainer.checkpoint())?;
            saved = Instant::now();
        }
        Ok(if interrupt.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    drop(progress);
    if trainer.epochs_done() < settings.epochs {
        return Ok(Ending::Interrupted);
    }
    let path = args.out.join("summary.json");
    let summary = match final_loss {
        Some(final_loss) => {
            let parameters = trainer.network().table().len();
            let seconds = seconds_of(&args.out)?.max(begun.elapsed().as_secs_f64());
            let summary = Summary { epochs: trainer.epochs_done(), final_loss, seconds, parameters };
            write_json(&path, &summary)?;
            summary
        }
        // Nothing was left to do.
        None => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}; use --fresh to begin anew", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{}; use --fresh to begin anew", path.display()))?
        }
    };
    let text = format!(
        "{} epochs of {} parameters in {:.1} s, loss {:.4}; written to {}",
        summary.epochs,
        summary.parameters,
        summary.seconds,
        summary.final_loss,
        args.out.display()
    );
    args.common.output.print(&summary, &text)?;
    Ok(Ending::Done)
}

/// The checkpoint to continue from: that of the same settings and data.
fn previous(folder: &Path, fresh: bool, config: &TaskConfig, data_sha256: &str) -> anyhow::Result<Option<Checkpoint>> {
    let path = folder.join(CHECKPOINT_FILE);
    if fresh || !path.exists() {
        return Ok(None);
    }
    let checkpoint = Checkpoint::read(&path).context("use --fresh to begin anew, or another --out")?;
    let before = config_of(&checkpoint)?;
    let what = if checkpoint.header.stage != Stage::Pretrain {
        "a fine-tuning run"
    } else if before.task != config.task || before.policy != config.policy || before.pretrain != config.pretrain {
        "a run of other settings"
    } else if checkpoint.header.run.provenance.get("data_sha256").map(String::as_str) != Some(data_sha256) {
        "a run on other data"
    } else {
        return Ok(Some(checkpoint));
    };
    bail!("{} holds {what}: choose another --out, or --fresh to begin anew", folder.display())
}

/// Training time of all parts of the run together.
fn seconds_of(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join(tenon_train::run_dir::METRICS_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(lines.filter_map(|v| v.get("seconds")?.as_f64()).sum())
}
