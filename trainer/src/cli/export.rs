//! `tenon-train export`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tenon_core::diffusion::StepNoise;
use tenon_policy::{Bundle, Engine, PolicyError};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::export::{BundleChunks, ExportError, export};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::wall_clock::{rfc3339, unix_seconds};

use super::{Ending, Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train export --checkpoint runs/finetune/checkpoint.safetensors --out bundles/avoid_m1\n\n\
    The bundle holds the ONNX network(s), the policy's definition with its normaliser and, where the run recorded it,\n\
    the quality of the pictures that it saw, SHA-256 of each file and where it comes from (`tenon-train bundle DIR`).\n\
    It is put in place only if the ONNX engine agrees with the trainer: a single step within 2e-5 of the largest value,\n\
    99 % of 1000 whole chains within 1e-5.")]
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
    /// Fewer denoising steps (DDIM) that the runtime may take where a chunk would be late, e.g. 5,10. `tenon-train evaluate --bundle
    /// … --denoising-steps 5` says what they cost.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    step_counts: Vec<usize>,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: ExportArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let checkpoint = Checkpoint::read(&args.checkpoint)?;
    let mut progress = Progress::new("export", 1);
    progress.show(0, "writing the graphs and comparing 1000 chains with the ONNX engine");
    let report =
        export(&checkpoint, &args.out, args.replace, &args.step_counts, rfc3339(unix_seconds()), args.output.threads())
            .map_err(|e| match e {
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

/// A bundle in the default engine. `denoising_steps`: where it is not to be the usual number.
pub(super) fn bundle_chunks(
    bundle: &Bundle,
    noise: StepNoise,
    denoising_steps: Option<usize>,
) -> anyhow::Result<BundleChunks> {
    let steps = match denoising_steps {
        None => bundle.steps(noise),
        Some(count) => bundle.denoising().steps_in(count).with_context(|| {
            let counts = bundle.denoising().counts();
            format!(
                "--denoising-steps {count}: {} allows {counts:?} (`tenon-train export --step-counts`)",
                bundle.folder().display()
            )
        })?,
    };
    Ok(BundleChunks::new(bundle, Engine::Tract, steps)?)
}
