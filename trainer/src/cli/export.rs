//! `tenon-train export`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use tenon_core::diffusion::StepNoise;
use tenon_policy::{Bundle, Engine, PolicyError};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::evaluate::{Evaluation, EvaluationOptions, evaluate};
use tenon_train::export::{BundleChunks, ExportError, export};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;

use super::{Ending, Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train export --checkpoint runs/finetune/checkpoint.safetensors --out bundles/avoid_m1\n\n\
    The bundle holds the ONNX network(s), the policy's definition with its normaliser, SHA-256 of each file and where\n\
    it comes from. It is put in place only if the ONNX engine agrees with the trainer: a single step within 2e-5 of\n\
    the largest value, 99 % of 1000 whole chains within 1e-5.")]
pub struct ExportArgs {
    /// Checkpoint of pre-training or fine-tuning.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Folder of the bundle.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a bundle that is already there.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: ExportArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let checkpoint = Checkpoint::read(&args.checkpoint)?;
    let mut progress = Progress::new("export", 1);
    progress.show(0, "writing the graphs and comparing 1000 chains with the ONNX engine");
    let report =
        export(&checkpoint, &args.out, args.replace, now_rfc3339(), args.output.threads()).map_err(|e| match e {
            ExportError::Policy(PolicyError::Exists { .. }) => {
                anyhow::Error::from(e).context("give --replace or another --out")
            }
            e => anyhow::Error::from(e).context(format!("exporting {}", args.checkpoint.display())),
        })?;
    progress.show(1, "done");
    drop(progress);
    if interrupt.is_requested() {
        return Ok(Ending::Interrupted);
    }
    let p = &report.parity;
    let mut text = format!(
        "parity: single step {:.1e} of the largest value, {} of {} chains within 1e-5, largest {:.1e}",
        p.step_max_error, p.within_1e5, p.chains, p.chain_max_error
    );
    for outlier in &p.outliers {
        text += &format!("\n  outlier: chain {} differs by {:.1e}", outlier.chain, outlier.error);
    }
    for (file, sha256) in &report.files {
        text += &format!("\n  {sha256}  {file}");
    }
    text += &format!("\nbundle written to {}", report.bundle.display());
    args.output.print(&report, &text)?;
    Ok(Ending::Done)
}

/// Judges a bundle with the default engine.
pub fn evaluate_bundle(
    folder: &Path,
    noise: StepNoise,
    options: EvaluationOptions,
    stop: &dyn Fn() -> bool,
    on_episodes: &mut dyn FnMut(usize, usize),
) -> anyhow::Result<Option<Evaluation>> {
    let bundle = Bundle::open(folder)?;
    let mut source = BundleChunks::new(&bundle, Engine::Tract, noise)?;
    Ok(evaluate(&mut source, bundle.spec(), options, stop, on_episodes)?)
}

/// The present time, UTC. (Civil date from days: Howard Hinnant's algorithm, public domain.)
fn now_rfc3339() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
