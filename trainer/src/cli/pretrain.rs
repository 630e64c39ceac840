//! `tenon-train pretrain`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use tenon_core::config::TaskConfig;
use tenon_sim::render::Quality;
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::dataset::{Dataset, read_normalization};
use tenon_train::demos::recorded_quality;
use tenon_train::interrupt::Interrupt;
use tenon_train::pretrain::Pretrainer;
use tenon_train::progress::Progress;
use tenon_train::run_dir::{CONFIG_FILE, RunDir, commit, sha256_of, write_json, write_text};
use tenon_train::settings::pretrain_config;
use tenon_train::watch::{Card, History, Watcher, number};

use super::{
    Checkpointing, Common, DeviceArg, Ending, NOISE_SHA256, config_of, config_text, newest, noise_sha256, pictures,
    read_noise,
};

/// Time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// What counts the steps of this stage.
const COUNTER: &str = "epoch";

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train pretrain --config configs/tasks/avoid_m1.toml --data runs/demos --out runs/pretrain\n\n\
    Writes config.toml, metrics.jsonl, TensorBoard events, report.html, numbered checkpoints (`last` and \
    checkpoint.safetensors lead to the newest) and summary.json. An unfinished run of the same settings and data in \
    the folder is continued; --fresh begins anew.\n\
    [randomisation] of the configuration puts noise onto what is seen; the table of a rig's file is read when the run \
    begins and kept in its config.toml.")]
pub struct PretrainArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Folder of demonstrations (train.npz, normalization.npz).
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Epochs [default: pretrain.epochs of the configuration].
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<usize>,
    /// Seed [default: pretrain.seed of the configuration].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Quality of the pictures in the data, exact or fast, of a policy that sees pictures: recorded, so that simulations
    /// show it the same [default: what the data's summary.json says, else exact].
    #[arg(long, value_name = "QUALITY")]
    pub(super) pictures: Option<Quality>,
    /// Begin anew whatever the folder holds.
    #[arg(long)]
    pub(super) fresh: bool,
    #[command(flatten)]
    pub(super) device: DeviceArg,
    #[command(flatten)]
    pub(super) checkpointing: Checkpointing,
}

/// `summary.json` of a run.
#[derive(Debug, Serialize)]
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
    gradient_norm: f64,
    learning_rate: f64,
    seconds: f64,
    samples_per_second: f64,
}

pub fn run(args: PretrainArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut config = args.common.read()?;
    config.pretrain()?;
    if let Some(pretrain) = &mut config.pretrain {
        pretrain.epochs = args.epochs.unwrap_or(pretrain.epochs);
        pretrain.seed = args.seed.unwrap_or(pretrain.seed);
    }
    read_noise(&mut config)?;
    pictures(&config, args.pictures)?;
    let (config, pretrain) = (&config, config.pretrain()?);
    ensure!(
        pretrain.epochs > pretrain.warmup_epochs,
        "{} epochs must be more than the {} of the warm-up (pretrain.warmup_epochs)",
        pretrain.epochs,
        pretrain.warmup_epochs
    );
    let compute = args.device.compute(&args.common.output)?;
    let train = args.data.join("train.npz");
    let dataset =
        Dataset::open(&train).context("run `tenon-train demos avoid` first, or name its folder with --data")?;
    let (observation, action) = read_normalization(&args.data.join("normalization.npz"))?;
    let data_sha256 = sha256_of(&train)?;
    let seen = match (config.task.cameras(), args.pictures, recorded_quality(&args.data)?) {
        (0, ..) => None,
        (_, Some(named), Some(recorded)) if named != recorded => {
            bail!("--pictures {named}: the pictures of {} are {recorded}", args.data.display())
        }
        (_, named, recorded) => Some(named.or(recorded).unwrap_or_default()),
    };
    let folder = RunDir::hold(&args.out, args.checkpointing.keep(pretrain.epochs))?;

    let settings = pretrain_config(config)?;
    let mut trainer = match previous(&args.out, args.fresh, config, &data_sha256)? {
        Some(checkpoint) => Pretrainer::resume(settings.clone(), &checkpoint, compute)?,
        None => {
            folder.begin_anew()?;
            let mut provenance = BTreeMap::from([
                ("commit".to_string(), commit()),
                ("data".to_string(), train.display().to_string()),
                ("data_sha256".to_string(), data_sha256),
            ]);
            provenance.extend(pictures(config, seen)?);
            provenance.extend(noise_sha256(config).map(|sha256| (NOISE_SHA256.to_string(), sha256)));
            let run = RunInfo {
                network: config.policy.model.network(),
                policy: config.policy_spec(config.task.normalizer(observation, action), 0),
                critic: None,
                config: config_text(config)?,
                provenance,
            };
            write_text(&args.out.join(CONFIG_FILE), &config_text(config)?)?;
            let trainer = Pretrainer::new(settings.clone(), run, pretrain.seed, compute)?;
            // From here on a killed run can go on.
            folder.save(0, &trainer.checkpoint())?;
            trainer
        }
    };

    let provenance = &trainer.run_info().provenance;
    let steps = (COUNTER, settings.epochs);
    let card = Card::new("pretrain", config.task.as_str(), pretrain.seed, steps, provenance);
    let mut watcher = Watcher::open(&folder, card, trainer.epochs_done())?;
    let mut progress = Progress::continuing(COUNTER, pretrain.epochs, trainer.epochs_done() as usize);
    if trainer.epochs_done() > 0 {
        progress.note(&format!("continuing after epoch {} of {}", trainer.epochs_done(), settings.epochs));
    }
    let (mut epoch_begun, mut saved) = (Instant::now(), Instant::now());
    trainer.run(&dataset, &mut |trainer, epoch| {
        let seconds = std::mem::replace(&mut epoch_begun, Instant::now()).elapsed().as_secs_f64();
        watcher.record(&EpochRecord {
            epoch: epoch.epoch,
            loss: epoch.loss,
            gradient_norm: epoch.gradient_norm,
            learning_rate: epoch.learning_rate,
            seconds,
            samples_per_second: epoch.samples as f64 / seconds.max(f64::MIN_POSITIVE),
        })?;
        progress
            .show(epoch.epoch as usize, &format!("loss {:.4}, learning rate {:.1e}", epoch.loss, epoch.learning_rate));
        let ends = epoch.epoch == epoch.epochs || interrupt.is_requested();
        if ends || folder.is_kept(epoch.epoch) || saved.elapsed() >= CHECKPOINT_INTERVAL {
            folder.save(epoch.epoch, &trainer.checkpoint())?;
            saved = Instant::now();
        }
        Ok(if interrupt.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    drop(progress);
    if trainer.epochs_done() < settings.epochs {
        return Ok(Ending::Interrupted);
    }
    let summary = summary_of(watcher.history(), trainer.table().len());
    write_json(&args.out.join("summary.json"), &summary)?;
    watcher.result("final loss", &number(summary.final_loss))?;
    watcher.result("parameters", &summary.parameters.to_string())?;
    watcher.finish()?;
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
    let Some(checkpoint) = newest(folder, fresh)? else { return Ok(None) };
    let before = config_of(&checkpoint)?;
    let what = if checkpoint.header.stage != Stage::Pretrain {
        "a fine-tuning run"
    } else if before.task != config.task
        || before.policy != config.policy
        || before.pretrain != config.pretrain
        || before.randomisation != config.randomisation
    {
        "a run of other settings"
    } else if checkpoint.header.run.provenance.get("data_sha256").map(String::as_str) != Some(data_sha256) {
        "a run on other data"
    } else {
        return Ok(Some(checkpoint));
    };
    bail!("{} holds {what}: choose another --out, or --fresh to begin anew", folder.display())
}

/// Of a run that is done, whichever sessions it took.
fn summary_of(history: &History, parameters: usize) -> Summary {
    let values = |name| history.series(name).map_or(&[][..], |s| &s.values);
    Summary {
        epochs: history.done(),
        final_loss: values("loss").last().copied().unwrap_or(f64::NAN),
        seconds: values("seconds").iter().filter(|s| !s.is_nan()).sum(),
        parameters,
    }
}
