//! Judging a policy: episodes of Avoid, success by the predicate of `tenon_core::avoid`.
//!
//! An episode's noise depends on the evaluation's seed and the episode's number only, so the result is the same for
//! any number of environments and threads.

use serde::{Deserialize, Serialize};
use tenon_core::avoid::{EPISODE_STEPS, chunk_succeeds};
use tenon_core::diffusion::StepNoise;
use tenon_core::noise::SeededNoise;
use tenon_core::spec::PolicySpec;

use crate::dppo::{ChainMode, ChainSampler, Policy};
use crate::environments::AvoidBatch;
use crate::error::TrainError;
use crate::seeds::Stream;
use crate::workers::Workers;

/// Episodes whose path is kept.
const KEPT_PATHS: usize = 20;

/// Result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub episodes: usize,
    /// Episodes with a whole chunk of the full reward.
    pub successes: usize,
    pub success_rate: f64,
    /// Wilson's interval of the success rate at 95 %.
    pub wilson_95: [f64; 2],
    /// Mean over the episodes of the summed reward.
    pub mean_reward: f64,
    /// Episodes in which the rod touched an obstacle.
    pub contacts: usize,
    /// Measured tool point after each control step of the first episodes, metres.
    pub paths_xy_m: Vec<Vec<[f64; 2]>>,
    pub path_success: Vec<bool>,
}

/// What to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationOptions {
    pub episodes: usize,
    pub seed: u64,
    /// Environments that step together.
    pub environments: usize,
    pub threads: usize,
}

/// Whatever samples action chunks.
pub trait ChunkSource {
    /// Samples one chunk a row.
    ///
    /// `states`: `[rows, state_len]`, normalised. `noise`: one stream a row. `chunks`: receives `[rows, chunk_len]`.
    fn sample(&mut self, states: &[f32], noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError>;
}

/// A policy in training as a source of chunks.
pub struct PolicyChunks<'a> {
    policy: &'a Policy,
    workers: &'a Workers,
    mode: ChainMode,
    sampler: ChainSampler,
    chains: Vec<f32>,
}

impl<'a> PolicyChunks<'a> {
    /// For up to `rows` environments; `noise`: of evaluation or of training.
    pub fn new(policy: &'a Policy, workers: &'a Workers, noise: StepNoise, rows: usize) -> Self {
        let sampler = ChainSampler::new(policy, workers, rows);
        Self { policy, workers, mode: ChainMode { noise, base_policy: false }, sampler, chains: Vec::new() }
    }
}

impl ChunkSource for PolicyChunks<'_> {
    fn sample(&mut self, states: &[f32], noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError> {
        let len = self.policy.network.chunk_len();
        let chain_len = (self.policy.finetuned_steps() + 1) * len;
        self.chains.resize(noise.len() * chain_len, 0.0);
        self.sampler.sample(self.workers, self.policy, self.mode, states, noise, &mut self.chains);
        for (chunk, chain) in chunks.chunks_exact_mut(len).zip(self.chains.chunks_exact(chain_len)) {
            chunk.copy_from_slice(&chain[chain_len - len..]);
        }
        Ok(())
    }
}

/// Runs the episodes. `None` where `stop` asked to end; `on_episodes` is told how many are finished and succeeded.
pub fn evaluate(
    source: &mut dyn ChunkSource,
    spec: &PolicySpec,
    options: EvaluationOptions,
    stop: &dyn Fn() -> bool,
    on_episodes: &mut dyn FnMut(usize, usize),
) -> Result<Option<Evaluation>, TrainError> {
    let environments = options.environments.clamp(1, options.episodes.max(1));
    let mut batch = AvoidBatch::new(spec, environments, options.threads)?;
    let mut chunks = vec![0.0; environments * spec.chunk_len()];
    let mut result = Evaluation {
        episodes: options.episodes,
        successes: 0,
        success_rate: 0.0,
        wilson_95: [0.0, 1.0],
        mean_reward: 0.0,
        contacts: 0,
        paths_xy_m: Vec::new(),
        path_success: Vec::new(),
    };
    let mut done = 0;
    on_episodes(0, 0);
    while done < options.episodes {
        // In the last round some environments run along unjudged.
        let judged = environments.min(options.episodes - done);
        let mut noise: Vec<SeededNoise> =
            (done..done + environments).map(|episode| Stream::Evaluation(episode as u32).of(options.seed)).collect();
        let mut success = vec![false; environments];
        batch.reset();
        for _ in 0..EPISODE_STEPS.div_ceil(spec.action_horizon.max(1)) {
            if stop() {
                return Ok(None);
            }
            source.sample(batch.states(), &mut noise, &mut chunks)?;
            batch.step(&chunks)?;
            for (i, outcome) in batch.outcomes().iter().enumerate().take(judged) {
                success[i] |= chunk_succeeds(outcome.reward, outcome.steps);
                result.mean_reward += outcome.reward;
            }
        }
        done += judged;
        for (environment, &success) in batch.environments().zip(&success).take(judged) {
            result.successes += usize::from(success);
            result.contacts += usize::from(environment.rod_touched());
            if result.paths_xy_m.len() < KEPT_PATHS {
                result.paths_xy_m.push(environment.path_xy_m().to_vec());
                result.path_success.push(success);
            }
        }
        on_episodes(done, result.successes);
    }
    let episodes = result.episodes.max(1) as f64;
    result.mean_reward /= episodes;
    result.success_rate = result.successes as f64 / episodes;
    result.wilson_95 = wilson_95(result.successes, result.episodes);
    Ok(Some(result))
}

/// Wilson's score interval at 95 %: where the success rate lies, given what was seen.
pub fn wilson_95(successes: usize, episodes: usize) -> [f64; 2] {
    if episodes == 0 {
        return [0.0, 1.0];
    }
    const Z: f64 = 1.959_963_985;
    let (n, p) = (episodes as f64, successes as f64 / episodes as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 190 of 200: 0.9104 to 0.9726 (any table of Wilson intervals).
    #[test]
    fn wilson_interval_of_a_known_case() {
        let [low, high] = wilson_95(190, 200);
        assert!((low - 0.9104).abs() < 2e-4 && (high - 0.9726).abs() < 2e-4, "{low} {high}");
        assert_eq!(wilson_95(0, 0), [0.0, 1.0]);
        assert_eq!(wilson_95(0, 50)[0], 0.0);
    }
}
