//! `tenon-train export`.
use super::*;
#[derive(Debug, clap::Args)]
pub struct ExportArgs {}
pub fn run(_args: ExportArgs, _interrupt: &Interrupt) -> anyhow::Result<Ending> { Ok(Ending::Done) }
pub fn evaluate_bundle(_: &Path, _: tenon_core::diffusion::StepNoise, _: tenon_train::evaluate::EvaluationOptions, _: &dyn Fn()->bool, _: &mut dyn FnMut(usize,usize)) -> anyhow::Result<Option<tenon_train::evaluate::Evaluation>> { anyhow::bail!("later") }
