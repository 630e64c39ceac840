//! Judging a policy by episodes of its task: returns, and success where the task has one.
//!
//! An episode's start and noise depend on the evaluation's seed and the episode's number only, so the result is the same
//! for any number of environments and threads.

use serde::{Deserialize, Serialize};
use tenon_core::noise::SeededNoise;
use tenon_core::randomisation::Randomisation;
use tenon_core::spec::PolicySpec;
use tenon_core::task::{Success, TaskName};
use tenon_sim::batch::ChunkOutcome;
use tenon_sim::render::RenderOptions;

use crate::environments::{BatchSettings, TaskBatch, TaskEnv};
use crate::error::TrainError;
use crate::network::Observations;
use crate::sampling::{ChunkMode, ChunkSampler, PolicyRef};
use crate::seeds::Stream;
use crate::workers::Workers;

/// Episodes whose path is kept.
const KEPT_PATHS: usize = 20;

/// Result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub episodes: usize,
    /// Episodes that succeeded; 0 where the task has no success.
    pub successes: usize,
    pub success_rate: f64,
    /// Wilson's interval of the success rate at 95 %.
    pub wilson_95: [f64; 2],
    /// Mean over the episodes of the summed reward.
    pub mean_return: f64,
    /// Standard deviation, smallest and largest.
    pub return_std: f64,
    pub return_range: [f64; 2],
    /// Mean number of control steps.
    pub mean_steps: f64,
    /// Avoid: episodes in which the rod touched an obstacle.
    pub contacts: usize,
    /// Avoid: measured tool point after each control step of the first episodes, metres.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths_xy_m: Vec<Vec<[f64; 2]>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_success: Vec<bool>,
}

/// What to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationOptions<'a> {
    pub task: TaskName,
    pub episodes: usize,
    pub seed: u64,
    /// Environments that step together.
    pub environments: usize,
    pub threads: usize,
    /// Noise on what is seen and executed; none is the usual.
    pub randomisation: Option<&'a Randomisation>,
    /// What a policy that sees pictures sees; see [`crate::environments::look_of`].
    pub pictures: Option<&'a RenderOptions>,
}

/// Whatever samples action chunks.
pub trait ChunkSource {
    /// Samples one chunk a row.
    ///
    /// `seen`: one row each. `noise`: one stream a row. `chunks`: receives `[rows, chunk_len]`.
    fn sample(&mut self, seen: Observations, noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError>;
}

/// A policy in training as a source of chunks.
pub struct PolicyChunks<'a> {
    policy: PolicyRef<'a>,
    workers: &'a Workers,
    mode: ChunkMode,
    sampler: ChunkSampler,
    chains: Vec<f32>,
}

impl<'a> PolicyChunks<'a> {
    /// For up to `rows` environments; `mode`: of evaluation or of training.
    pub fn new(policy: PolicyRef<'a>, workers: &'a Workers, mode: ChunkMode, rows: usize) -> Self {
        Self { policy, workers, mode, sampler: ChunkSampler::new(policy, workers, rows), chains: Vec::new() }
    }
}

impl ChunkSource for PolicyChunks<'_> {
    fn sample(&mut self, seen: Observations, noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError> {
        check_pictures(seen, self.policy.image_len(), noise.len())?;
        let (len, chain_len) = (self.policy.chunk_len(), self.policy.chain_len());
        self.chains.resize(noise.len() * chain_len, 0.0);
        self.sampler.sample(self.workers, self.policy, self.mode, seen, noise, &mut self.chains);
        for (chunk, chain) in chunks.chunks_exact_mut(len).zip(self.chains.chunks_exact(chain_len)) {
            chunk.copy_from_slice(&chain[chain_len - len..]);
        }
        Ok(())
    }
}

/// Says where a policy that sees `image_len` bytes of pictures a row (0: none) does not get them.
pub(crate) fn check_pictures(seen: Observations, image_len: usize, rows: usize) -> Result<(), TrainError> {
    let found = seen.images.map_or(0, <[u8]>::len);
    if found == rows * image_len {
        return Ok(());
    }
    let detail = format!(
        "the policy sees {image_len} bytes of pictures in each of {rows} environments, they show {found} in all: \
         cameras and sides of the pictures must be those of its network"
    );
    Err(TrainError::Config { key: "pictures", detail })
}

/// An episode while it is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Episode {
    pub sum: f64,
    pub steps: usize,
    /// Best mean reward a step of a whole chunk.
    pub best: f64,
}

impl Episode {
    /// One that begins.
    pub fn new() -> Self {
        Self { sum: 0.0, steps: 0, best: f64::NEG_INFINITY }
    }

    /// Takes over what a chunk of `action_horizon` steps brought.
    pub fn add(&mut self, outcome: &ChunkOutcome, action_horizon: usize) {
        self.sum += outcome.reward;
        self.steps += outcome.steps;
        if outcome.steps > 0 {
            // A chunk that was cut short cannot be one of success.
            self.best = self.best.max(outcome.reward / action_horizon as f64);
        }
    }
}

/// Runs the episodes. `None` where `stop` asked to end; `on_episodes` is told how many are finished and what they came to.
pub fn evaluate(
    source: &mut dyn ChunkSource,
    spec: &PolicySpec,
    options: EvaluationOptions<'_>,
    stop: &dyn Fn() -> bool,
    on_episodes: &mut dyn FnMut(usize, &Evaluation),
) -> Result<Option<Evaluation>, TrainError> {
    let environments = options.environments.clamp(1, options.episodes.max(1));
    let settings = BatchSettings { environments, threads: options.threads, seed: options.seed, auto_reset: false };
    let mut batch = TaskBatch::new(options.task, spec, settings)?;
    if let Some(noise) = options.randomisation {
        batch = batch.randomised(noise.clone());
    }
    if let Some(look) = options.pictures {
        batch = batch.seen_by(look.clone())?;
    }
    let mut chunks = vec![0.0; environments * spec.chunk_len()];
    let (mut returns, mut steps) = (Vec::with_capacity(options.episodes), 0);
    let mut result = Evaluation::of_returns(&returns);
    on_episodes(0, &result);
    while returns.len() < options.episodes {
        // In the last round some environments run along unjudged.
        let (done, judged) = (returns.len(), environments.min(options.episodes - returns.len()));
        let mut noise: Vec<SeededNoise> =
            (done..done + environments).map(|episode| Stream::Evaluation(episode as u32).of(options.seed)).collect();
        let mut episodes = vec![Episode::new(); environments];
        batch.begin_episodes(done);
        for _ in 0..options.task.episode_steps().div_ceil(spec.action_horizon.max(1)) {
            if stop() {
                return Ok(None);
            }
            source.sample(batch.seen(), &mut noise, &mut chunks)?;
            batch.step(&chunks)?;
            let mut over = true;
            for (episode, outcome) in episodes.iter_mut().zip(batch.outcomes()) {
                episode.add(outcome, spec.action_horizon);
                over &= outcome.ended();
            }
            if over {
                break;
            }
        }
        for (environment, episode) in batch.environments().zip(&episodes).take(judged) {
            let success = options.task.success().holds(episode.sum, episode.best);
            result.successes += usize::from(success == Some(true));
            if let TaskEnv::Avoid(avoid) = environment {
                result.contacts += usize::from(avoid.rod_touched());
                if result.paths_xy_m.len() < KEPT_PATHS {
                    result.paths_xy_m.push(avoid.path_xy_m().to_vec());
                    result.path_success.push(success == Some(true));
                }
            }
            returns.push(episode.sum);
            steps += episode.steps;
        }
        let so_far = Evaluation::of_returns(&returns);
        result = Evaluation {
            successes: result.successes,
            contacts: result.contacts,
            paths_xy_m: std::mem::take(&mut result.paths_xy_m),
            path_success: std::mem::take(&mut result.path_success),
            success_rate: result.successes as f64 / returns.len() as f64,
            wilson_95: wilson_95(result.successes, returns.len()),
            mean_steps: steps as f64 / returns.len() as f64,
            ..so_far
        };
        on_episodes(returns.len(), &result);
    }
    Ok(Some(result))
}

impl Evaluation {
    /// The part that returns tell.
    fn of_returns(returns: &[f64]) -> Self {
        let n = returns.len().max(1) as f64;
        let mean = returns.iter().sum::<f64>() / n;
        let range = |pick: fn(f64, f64) -> f64| returns.iter().copied().reduce(pick).unwrap_or(0.0);
        Self {
            episodes: returns.len(),
            successes: 0,
            success_rate: 0.0,
            wilson_95: [0.0, 1.0],
            mean_return: mean,
            return_std: (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt(),
            return_range: [range(f64::min), range(f64::max)],
            mean_steps: 0.0,
            contacts: 0,
            paths_xy_m: Vec::new(),
            path_success: Vec::new(),
        }
    }

    /// In words: success where the task has one, and returns.
    pub fn describe(&self, task: TaskName) -> String {
        let [low, high] = self.wilson_95.map(|rate| 100.0 * rate);
        let returns = format!(
            "mean return {:.1} ± {:.1} ({:.0} to {:.0}), {:.0} steps",
            self.mean_return, self.return_std, self.return_range[0], self.return_range[1], self.mean_steps
        );
        match task.success() {
            Success::None => format!("{returns}, {} episodes", self.episodes),
            Success::ChunkReward(_) | Success::EpisodeReturn(_) => format!(
                "success {:.1} % ({} of {} episodes; 95 % interval {low:.1} to {high:.1} %), {returns}",
                100.0 * self.success_rate,
                self.successes,
                self.episodes
            ),
        }
    }
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
