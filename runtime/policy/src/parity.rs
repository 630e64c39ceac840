//! Parity between the trainer's own network and the exported one, checked before a bundle is put in place.
//!
//! A single step must agree within 2e-5 of the largest value; of 1000 whole chains from the same noise 99 % must agree
//! within 1e-5 in every normalised action. The rest is counted and shown: the first steps of a chain magnify rounding
//! (1/√ᾱ is about 400 at the noisiest step of K = 20) and a clamped x̂_0 can fall on either side.

use std::fmt;

use tenon_core::diffusion::{Clips, Denoiser, DenoisingStep, SampleScratch, StepNoise, denoise};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::spec::{Denoising, PolicySpec};

use crate::error::PolicyError;

/// Largest difference of a single step, relative to the step's largest value.
pub const STEP_TOLERANCE: f32 = 2e-5;
/// Largest difference of a chain's normalised actions.
pub const CHAIN_TOLERANCE: f32 = 1e-5;
/// Part of the chains that must stay within [`CHAIN_TOLERANCE`].
pub const CHAIN_FRACTION: f64 = 0.99;
/// Chains that are compared.
pub const CHAINS: usize = 1000;
/// Outliers that a report lists.
const LISTED: usize = 10;

/// Everything that chains are computed from, so that two networks compute the same ones.
#[derive(Debug, Clone)]
pub struct ParityInputs {
    /// Normalised states, `[chains, To · Do]`.
    pub states: Vec<f32>,
    /// Initial noise x_K, `[chains, Tp · Da]`.
    pub initial_noise: Vec<f32>,
    /// Standard normal draws before their clamp, `[chains, steps, Tp · Da]`. The i-th step *that draws* takes entry i of
    /// its chain (at deployment the last DDPM step and every DDIM step draw none).
    pub step_noise: Vec<f32>,
    /// The steps, with the standard deviations of deployment.
    pub steps: Vec<DenoisingStep>,
    pub clips: Clips,
    chains: usize,
    state_len: usize,
    chunk_len: usize,
}

/// One chain that left the tolerance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// Its index among the chains.
    pub chain: usize,
    /// Largest difference of its normalised actions.
    pub error: f32,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityReport {
    /// Steps compared one by one.
    pub steps: usize,
    /// Largest difference of a single step, relative to the step's largest value.
    pub step_error: f32,
    pub chains: usize,
    /// Chains within [`CHAIN_TOLERANCE`].
    pub within: usize,
    /// Largest difference of any chain.
    pub chain_error: f32,
    /// Number of chains outside the tolerance.
    pub outliers: usize,
    /// The worst of them, worst first.
    pub worst: Vec<Outlier>,
}

impl ParityInputs {
    /// Draws noise for `chains` chains from `seed`; the states are standard normal, clamped to the normaliser's range.
    pub fn draw(spec: &PolicySpec, denoising: &Denoising, chains: usize, seed: u64) -> Self {
        let mut states = vec![0.0; chains * spec.state_len()];
        SeededNoise::new(seed, 1).fill_standard_normal(&mut states);
        for x in &mut states {
            *x = (0.5 * *x).clamp(-1.0, 1.0);
        }
        Self::with_states(spec, denoising, states, seed)
    }

    /// Draws noise for chains that start from the given normalised states, `[chains, To · Do]`.
    ///
    /// Panics if `states` is not a whole number of states.
    pub fn with_states(spec: &PolicySpec, denoising: &Denoising, states: Vec<f32>, seed: u64) -> Self {
        let (state_len, chunk_len) = (spec.state_len(), spec.chunk_len());
        assert_eq!(states.len() % state_len, 0, "states of {state_len} values");
        let chains = states.len() / state_len;
        let steps = denoising.steps(StepNoise::Evaluation);
        let mut source = SeededNoise::new(seed, 0);
        let mut initial_noise = vec![0.0; chains * chunk_len];
        source.fill_standard_normal(&mut initial_noise);
        let mut step_noise = vec![0.0; chains * steps.len() * chunk_len];
        source.fill_standard_normal(&mut step_noise);
        let clips = denoising.clips();
        Self { states, initial_noise, step_noise, steps, clips, chains, state_len, chunk_len }
    }

    /// Number of chains.
    pub fn chains(&self) -> usize {
        self.chains
    }

    fn state(&self, chain: usize) -> &[f32] {
        &self.states[chain * self.state_len..][..self.state_len]
    }

    fn noise(&self, chain: usize) -> &[f32] {
        &self.initial_noise[chain * self.chunk_len..][..self.chunk_len]
    }

    /// Normalised chunks `[chains, Tp · Da]` of these chains by core's sampling loop.
    pub fn run<D: Denoiser + ?Sized>(&self, denoiser: &mut D) -> Result<Vec<f32>, D::Error> {
        let mut chunks = self.initial_noise.clone();
        let mut scratch = SampleScratch::new(self.chunk_len);
        for (chain, chunk) in chunks.chunks_exact_mut(self.chunk_len).enumerate() {
            denoiser.condition(self.state(chain))?;
            let draws = self.steps.len() * self.chunk_len;
            let mut source = Replay { draws: &self.step_noise[chain * draws..][..draws] };
            denoise(denoiser, &self.steps, self.clips, &mut source, &mut scratch, chunk)?;
        }
        Ok(chunks)
    }
}

/// Gives stored draws in order. A step without noise draws nothing, so draws are consumed one noisy step after another.
struct Replay<'a> {
    draws: &'a [f32],
}

impl NoiseSource for Replay<'_> {
    fn fill_standard_normal(&mut self, out: &mut [f32]) {
        let (now, rest) = self.draws.split_at(out.len());
        out.copy_from_slice(now);
        self.draws = rest;
    }
}

/// Compares the trainer's denoiser with the exported one: every step of the first chains one by one, and all chains.
///
/// `reference_chunks` are the trainer's own chains from `inputs` (`[chains, Tp · Da]`, normalised), by whatever batched
/// path it has; `None` lets core's loop run `reference`.
pub fn compare<R, E>(
    inputs: &ParityInputs,
    reference: &mut R,
    reference_chunks: Option<&[f32]>,
    exported: &mut E,
) -> Result<ParityReport, PolicyError>
where
    R: Denoiser + ?Sized,
    R::Error: fmt::Display,
    E: Denoiser<Error = PolicyError> + ?Sized,
{
    let failed = |e: R::Error| PolicyError::Parity { detail: format!("the trainer's network failed: {e}") };
    let (mut ours, mut theirs) = (vec![0.0; inputs.chunk_len], vec![0.0; inputs.chunk_len]);
    let mut step_error = 0f32;
    let mut steps = 0;
    for chain in 0..inputs.chains.min(20) {
        reference.condition(inputs.state(chain)).map_err(failed)?;
        exported.condition(inputs.state(chain))?;
        for step in &inputs.steps {
            reference.predict_noise(step, inputs.noise(chain), &mut theirs).map_err(failed)?;
            exported.predict_noise(step, inputs.noise(chain), &mut ours)?;
            let largest = theirs.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
            step_error = worse(step_error, difference(&ours, &theirs) / largest);
            steps += 1;
        }
    }
    let exported_chunks = inputs.run(exported)?;
    let computed;
    let reference_chunks = match reference_chunks {
        Some(chunks) => chunks,
        None => {
            computed = inputs.run(reference).map_err(failed)?;
            &computed
        }
    };
    if reference_chunks.len() != exported_chunks.len() {
        let detail = format!("{} reference values, {} exported", reference_chunks.len(), exported_chunks.len());
        return Err(PolicyError::Call { detail });
    }
    let errors = exported_chunks
        .chunks_exact(inputs.chunk_len)
        .zip(reference_chunks.chunks_exact(inputs.chunk_len))
        .map(|(a, b)| difference(a, b));
    Ok(report(steps, step_error, errors.collect()))
}

fn report(steps: usize, step_error: f32, errors: Vec<f32>) -> ParityReport {
    let mut outliers: Vec<Outlier> = errors
        .iter()
        .enumerate()
        .filter(|(_, error)| **error > CHAIN_TOLERANCE || error.is_nan())
        .map(|(chain, &error)| Outlier { chain, error })
        .collect();
    outliers.sort_by(|a, b| b.error.total_cmp(&a.error));
    ParityReport {
        steps,
        step_error,
        chains: errors.len(),
        within: errors.len() - outliers.len(),
        chain_error: errors.iter().copied().fold(0.0, worse),
        outliers: outliers.len(),
        worst: outliers.into_iter().take(LISTED).collect(),
    }
}

/// The larger of two errors; NaN is the largest.
fn worse(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, worse)
}

impl ParityReport {
    /// Part of the chains within the tolerance.
    pub fn fraction(&self) -> f64 {
        self.within as f64 / self.chains.max(1) as f64
    }

    /// An error that says what disagrees, where something does.
    pub fn check(&self) -> Result<(), PolicyError> {
        let steps_agree = self.step_error <= STEP_TOLERANCE;
        if steps_agree && self.chains > 0 && self.fraction() >= CHAIN_FRACTION {
            return Ok(());
        }
        Err(PolicyError::Parity { detail: self.to_string() })
    }
}

impl fmt::Display for ParityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "single step {:.1e} of the largest value (limit {STEP_TOLERANCE:.0e}, {} steps), {} of {} chains within \
             {CHAIN_TOLERANCE:.0e} ({:.1} %, limit {:.0} %), {} outliers, largest {:.1e}",
            self.step_error,
            self.steps,
            self.within,
            self.chains,
            100.0 * self.fraction(),
            100.0 * CHAIN_FRACTION,
            self.outliers,
            self.chain_error
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_an_outlier_and_fails() {
        let report = report(1, 0.0, vec![0.0, f32::NAN, 1e-6]);
        assert_eq!((report.within, report.outliers, report.worst[0].chain), (2, 1, 1));
        assert!(report.check().is_err());
        assert!(super::report(1, f32::NAN, vec![0.0]).check().is_err());
    }

    #[test]
    fn one_outlier_in_a_hundred_passes_and_two_do_not() {
        let mut errors = vec![1e-6; 100];
        errors[7] = 1e-3;
        assert!(report(1, 1e-6, errors.clone()).check().is_ok());
        errors[8] = 1e-3;
        assert!(report(1, 1e-6, errors).check().is_err());
    }
}
