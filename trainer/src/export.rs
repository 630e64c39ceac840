//! From a checkpoint to a policy bundle, and a bundle as a policy that can be judged.
//!
//! A bundle is put in place only after the exported graphs, run by the ONNX engine, agreed with the trainer's own
//! network: every step by itself, and whole chains from the same noise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tenon_core::diffusion::{Denoiser, DenoisingStep, SampleScratch, StepNoise, sample};
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::spec::PolicySpec;
use tenon_policy::bundle::{Provenance, sha256};
use tenon_policy::graph::{Parameters, Tensor};
use tenon_policy::parity::{CHAINS, Outlier, ParityInputs, ParityReport, compare};
use tenon_policy::{Bundle, BundleContent, BundleWriter, Engine, OnnxDenoiser, PolicyError};

use crate::checkpoint::Checkpoint;
use crate::dppo::{ChainMode, ChainSampler, Policy};
use crate::environments::pictures_seen;
use crate::error::TrainError;
use crate::evaluate::{ChunkSource, check_pictures};
use crate::network::{Mode, Observations, ParameterTable, Prepared, Workspace};
use crate::sampling::{PretrainedWeights, TrainedPolicy};
use crate::workers::Workers;

/// Seed of the states and the noise of the parity check.
const PARITY_SEED: u64 = 20;

/// Chains that are compared for each number of steps beside the usual one.
const CHAINS_OF_FEWER_STEPS: usize = 100;

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportReport {
    pub bundle: PathBuf,
    /// Of `policy.json`, which holds the hash of every other file.
    pub policy_sha256: String,
    /// SHA-256 by file name.
    pub files: BTreeMap<String, String>,
    pub parity: Parity,
}

/// How well the exported policy agrees with the trainer's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parity {
    /// Largest difference of a single step, relative to the step's largest value.
    pub step_max_error: f32,
    pub chains: usize,
    /// Chains within 1e-5 in every normalised action.
    pub within_1e5: usize,
    /// Largest difference of any chain.
    pub chain_max_error: f32,
    /// The worst of the others, worst first.
    pub outliers: Vec<ParityOutlier>,
}

/// A chain that left the tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ParityOutlier {
    pub chain: usize,
    pub error: f32,
}

impl From<&ParityReport> for Parity {
    fn from(report: &ParityReport) -> Self {
        Self {
            step_max_error: report.step_error,
            chains: report.chains,
            within_1e5: report.within,
            chain_max_error: report.chain_error,
            outliers: report.worst.iter().map(|&Outlier { chain, error }| ParityOutlier { chain, error }).collect(),
        }
    }
}

/// What goes wrong in an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Exports a checkpoint into the folder `destination`. `step_counts`: fewer denoising steps that the bundle allows where time is short
/// ([`tenon_core::spec::Denoising`]). `created`: the time of export, RFC 3339.
///
/// # Errors
/// [`PolicyError::Parity`] where the exported policy disagrees, in any number of steps; nothing is written then.
pub fn export(
    checkpoint: &Checkpoint,
    destination: &Path,
    replace: bool,
    step_counts: &[usize],
    created: String,
    threads: usize,
) -> Result<ExportReport, ExportError> {
    let run = &checkpoint.header.run;
    let mut spec = run.policy.clone();
    if let Some(denoising) = &mut spec.denoising {
        denoising.step_counts = step_counts.to_vec();
    }
    spec.pictures = pictures_seen(run)?;
    let spec = &spec;
    // The clip of a Gaussian policy's draws does not matter: there is no bundle for one.
    let trained = TrainedPolicy::of(checkpoint, PretrainedWeights::Finetuning, 1.0)?;
    let (TrainedPolicy::Diffusion(policy), PolicyNetwork::Diffusion(network)) = (trained, &run.network) else {
        let detail = "a Gaussian policy has no bundle: the robot runs diffusion policies".into();
        return Err(TrainError::Config { key: "checkpoint", detail }.into());
    };
    let (base, finetuned) =
        (parameters(policy.network.table(), &policy.frozen), parameters(policy.network.table(), &policy.finetuned));
    let provenance = provenance(checkpoint, created);
    let uses = |finetuned| policy.denoising.steps(StepNoise::Evaluation).iter().any(|s| s.finetuned == finetuned);
    let content = BundleContent {
        spec,
        network,
        base: uses(false).then_some(&base),
        finetuned: uses(true).then_some(&finetuned),
        provenance: &provenance,
    };
    let writer = BundleWriter::create(destination, replace, &content)?;
    let written = writer.open()?;
    let report = check_parity(&policy, spec, &written, threads)?;
    report.check()?;
    let mut files = BTreeMap::new();
    for network in &written.manifest().networks {
        for entry in [&network.encoder, &network.step] {
            files.insert(entry.file.clone(), entry.sha256.clone());
        }
    }
    let bundle = {
        let _writing = crate::run_dir::writing();
        writer.commit()?
    };
    let manifest = bundle.join(tenon_policy::bundle::MANIFEST);
    let text = std::fs::read(&manifest).map_err(|e| TrainError::file(&manifest, e))?;
    let policy_sha256 = sha256(&text);
    files.insert(tenon_policy::bundle::MANIFEST.to_string(), policy_sha256.clone());
    Ok(ExportReport { bundle, policy_sha256, files, parity: Parity::from(&report) })
}

/// Compares the trainer's own sampler (batched, as in rollouts) and single steps with the written bundle.
fn check_parity(
    policy: &Policy,
    spec: &PolicySpec,
    bundle: &Bundle,
    threads: usize,
) -> Result<ParityReport, ExportError> {
    let inputs = ParityInputs::draw(spec, &policy.denoising, CHAINS, PARITY_SEED);
    let workers = Workers::new(threads)?;
    let mut noise: Vec<Replay> =
        (0..inputs.chains()).map(|chain| Replay::new(&inputs, chain, spec.chunk_len())).collect();
    let chain_len = (policy.finetuned_steps() + 1) * spec.chunk_len();
    let mut chains = vec![0.0; inputs.chains() * chain_len];
    let mode = ChainMode { noise: StepNoise::Evaluation, base_policy: false };
    let mut sampler = ChainSampler::new(policy, &workers, inputs.chains());
    sampler.sample(&workers, policy, mode, &inputs.states, &mut noise, &mut chains);
    let chunks: Vec<f32> = chains
        .chunks_exact(chain_len)
        .flat_map(|chain| chain[chain_len - spec.chunk_len()..].iter().copied())
        .collect();
    let mut reference = TrainerDenoiser::new(policy);
    let mut exported = bundle.denoiser(Engine::Tract)?;
    for &count in &bundle.denoising().step_counts {
        let mut fewer = ParityInputs::draw(spec, &policy.denoising, CHAINS_OF_FEWER_STEPS, PARITY_SEED);
        fewer.steps = bundle.denoising().steps_in(count).unwrap_or_default();
        compare(&fewer, &mut reference, None, &mut exported)?.check()?;
    }
    Ok(compare(&inputs, &mut reference, Some(&chunks), &mut exported)?)
}

/// Gives a chain its stored noise: x_K first, then the draws of each step.
struct Replay<'a> {
    parts: [&'a [f32]; 2],
}

impl<'a> Replay<'a> {
    fn new(inputs: &'a ParityInputs, chain: usize, chunk_len: usize) -> Self {
        let draws = inputs.steps.len() * chunk_len;
        Self {
            parts: [
                &inputs.initial_noise[chain * chunk_len..][..chunk_len],
                &inputs.step_noise[chain * draws..][..draws],
            ],
        }
    }
}

impl NoiseSource for Replay<'_> {
    fn fill_standard_normal(&mut self, out: &mut [f32]) {
        let part = if self.parts[0].is_empty() { &mut self.parts[1] } else { &mut self.parts[0] };
        let (now, rest) = part.split_at(out.len());
        out.copy_from_slice(now);
        *part = rest;
    }
}

/// The trainer's network behind core's trait, one chunk at a time.
struct TrainerDenoiser<'a> {
    policy: &'a Policy,
    /// t of each executed step; its index is the network's slot.
    times: Vec<usize>,
    /// Frozen, fine-tuned.
    prepared: [Prepared; 2],
    workspaces: [Workspace; 2],
}

impl<'a> TrainerDenoiser<'a> {
    fn new(policy: &'a Policy) -> Self {
        let times: Vec<usize> = policy.denoising.steps(StepNoise::Evaluation).iter().map(|s| s.t).collect();
        let network = &policy.network;
        Self {
            prepared: [network.prepare(&policy.frozen, &times), network.prepare(&policy.finetuned, &times)],
            workspaces: [network.workspace(1, Mode::Inference), network.workspace(1, Mode::Inference)],
            times,
            policy,
        }
    }

    fn parameters(&self) -> [&'a [f32]; 2] {
        [&self.policy.frozen, &self.policy.finetuned]
    }
}

impl Denoiser for TrainerDenoiser<'_> {
    type Error = TrainError;

    fn condition(&mut self, state: &[f32]) -> Result<(), TrainError> {
        let parameters = self.parameters();
        for (i, workspace) in self.workspaces.iter_mut().enumerate() {
            self.policy.network.condition(parameters[i], &self.prepared[i], workspace, state.into());
        }
        Ok(())
    }

    fn predict_noise(&mut self, step: &DenoisingStep, x: &[f32], noise: &mut [f32]) -> Result<(), TrainError> {
        let Some(slot) = self.times.iter().position(|&t| t == step.t) else {
            let detail = format!("the policy makes no step at t = {}", step.t);
            return Err(TrainError::Config { key: "denoising", detail });
        };
        let i = usize::from(step.finetuned);
        let parameters = self.parameters()[i];
        let network = &self.policy.network;
        let predicted = network.forward_conditioned(parameters, &self.prepared[i], &mut self.workspaces[i], slot, x);
        noise.copy_from_slice(predicted);
        Ok(())
    }
}

/// Named tensors as the exporter takes them.
fn parameters(table: &ParameterTable, flat: &[f32]) -> Parameters {
    let tensor = |shape: &[usize], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
    table.split(flat).into_iter().map(|(name, (shape, data))| (name.to_string(), tensor(shape, data))).collect()
}

fn provenance(checkpoint: &Checkpoint, created: String) -> Provenance {
    let run = &checkpoint.header.run;
    let known = |keys: &[&str]| keys.iter().find_map(|&key| run.provenance.get(key)).cloned();
    Provenance::new(
        known(&["seed"]).and_then(|seed| seed.parse().ok()).unwrap_or(0),
        run.config.clone(),
        // A fine-tuning run keeps what its pre-training knew behind a prefix.
        known(&["data_sha256", "pretrain.data_sha256"]).unwrap_or_default(),
        known(&["commit"]).unwrap_or_else(|| "unknown".to_string()),
        env!("CARGO_PKG_VERSION").to_string(),
        created,
    )
}

/// A bundle, run by an engine, as a source of chunks.
pub struct BundleChunks {
    denoiser: OnnxDenoiser,
    steps: Vec<DenoisingStep>,
    clips: tenon_core::diffusion::Clips,
    scratch: SampleScratch,
    state_len: usize,
    chunk_len: usize,
    /// One row's pictures as the graph takes them.
    pictures: Vec<f32>,
}

impl BundleChunks {
    /// `steps`: the usual ones ([`Bundle::steps`]) or fewer ([`tenon_core::spec::Denoising::steps_in`]).
    pub fn new(bundle: &Bundle, engine: Engine, steps: Vec<DenoisingStep>) -> Result<Self, PolicyError> {
        let spec = bundle.spec();
        Ok(Self {
            denoiser: bundle.denoiser(engine)?,
            steps,
            clips: bundle.clips(),
            scratch: SampleScratch::new(spec.chunk_len()),
            state_len: spec.state_len(),
            chunk_len: spec.chunk_len(),
            pictures: Vec::new(),
        })
    }
}

impl ChunkSource for BundleChunks {
    fn sample(&mut self, seen: Observations, noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError> {
        let failed = |e: PolicyError| TrainError::Config { key: "bundle", detail: e.to_string() };
        let image_len = self.denoiser.image_len();
        check_pictures(seen, image_len, noise.len())?;
        for (row, (chunk, noise)) in chunks.chunks_exact_mut(self.chunk_len).zip(noise).enumerate() {
            if let Some(pictures) = seen.image(row, image_len).filter(|_| image_len > 0) {
                self.pictures.clear();
                self.pictures.extend(pictures.iter().map(|&value| f32::from(value)));
                self.denoiser.set_image(&self.pictures).map_err(failed)?;
            }
            self.denoiser.condition(seen.state(row, self.state_len)).map_err(failed)?;
            sample(&mut self.denoiser, &self.steps, self.clips, noise, &mut self.scratch, chunk).map_err(failed)?;
        }
        Ok(())
    }
}
