//! `tenon-train resume`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use tenon_train::checkpoint::{Checkpoint, Stage};
use tenon_train::interrupt::Interrupt;
use tenon_train::run_dir::{CONFIG_FILE, last_checkpoint};

use super::finetune::{self, FinetuneArgs};
use super::pretrain::{self, PretrainArgs};
use super::{Checkpointing, Common, DeviceArg, EARLIER_CHECKPOINT, Ending, Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train resume runs/finetune\n\n\
    Goes on after the run's last checkpoint as if it had never stopped: weights, optimisers, schedules, moving average,\n\
    reward scaling and random streams are those of an uninterrupted run, bit for bit. A finished run stays as it is.\n\
    The same as giving the command again that began the run.")]
pub struct ResumeArgs {
    /// Folder of a run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where the demonstrations (pre-training) or the pre-training run (fine-tuning) are now, if they have moved.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    checkpointing: Checkpointing,
}

pub fn run(args: ResumeArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let path = last_checkpoint(&args.run).context("a run is resumed from a checkpoint; begin this one again")?;
    let checkpoint = Checkpoint::read(&path).context(EARLIER_CHECKPOINT)?;
    let (stage, provenance) = (checkpoint.header.stage, &checkpoint.header.run.provenance);
    let source = match (&args.source, stage) {
        (Some(source), _) => Some(source.clone()),
        (None, Stage::Pretrain) => Some(recorded(&args.run, provenance, "data")?),
        // A run from scratch began with nothing.
        (None, Stage::Finetune) if !provenance.contains_key("pretrained") => None,
        (None, Stage::Finetune) => Some(recorded(&args.run, provenance, "pretrained")?),
    };
    let common = Common { config: args.run.join(CONFIG_FILE), paper: false, output: args.output };
    let (out, device, checkpointing) = (args.run, args.device, args.checkpointing);
    match stage {
        Stage::Pretrain => {
            let data = source.context("give --source DIR, the folder of the demonstrations")?;
            let args = PretrainArgs {
                common,
                data,
                out,
                epochs: None,
                seed: None,
                pictures: None,
                fresh: false,
                device,
                checkpointing,
            };
            pretrain::run(args, interrupt)
        }
        Stage::Finetune => {
            let (scratch, from) = (source.is_none(), source);
            let args = FinetuneArgs {
                common,
                from,
                scratch,
                out,
                iterations: None,
                seed: None,
                pictures: None,
                fresh: false,
                device,
                checkpointing,
            };
            finetune::run(args, interrupt)
        }
    }
}

/// The folder that a run was trained from, as it was recorded.
fn recorded(run: &Path, provenance: &BTreeMap<String, String>, key: &str) -> anyhow::Result<PathBuf> {
    let file = provenance
        .get(key)
        .with_context(|| format!("{} does not say what it was trained from: give --source DIR", run.display()))?;
    let folder = Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default();
    ensure!(
        folder.is_dir(),
        "{} was trained from {}, which is not here: start from the same folder as then, or give --source DIR",
        run.display(),
        folder.display()
    );
    Ok(folder)
}
