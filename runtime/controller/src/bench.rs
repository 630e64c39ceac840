//! `tenon bench`: the command lines of the benches; what is measured lives where it belongs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

#[derive(Debug, Clone, clap::Args)]
pub struct InferArgs {
    /// Measure the .onnx step networks in this folder instead of our own exports.
    #[arg(long)]
    pub models: Option<PathBuf>,
    /// Fewer repetitions.
    #[arg(long)]
    pub quick: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon bench infer`.
pub fn infer(args: &InferArgs) -> Result<ExitCode> {
    let options = tenon_policy::bench::InferOptions { models: args.models.clone(), quick: args.quick };
    // Each line is printed when it is known: the whole run takes minutes.
    tenon_policy::bench::infer(&options, |line| match (args.json, serde_json::to_string(line)) {
        (true, Ok(json)) => println!("{json}"),
        _ => println!("{line}"),
    })
    .context("measuring inference")?;
    Ok(ExitCode::SUCCESS)
}
