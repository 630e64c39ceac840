//! What a fine-tuning run writes: one record an iteration, and `evaluation.json`.

use serde::{Deserialize, Serialize};

use crate::evaluate::Evaluation;

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IterationRecord {
    /// The first is 1.
    pub iteration: u64,
    /// Control steps of all environments so far.
    pub environment_steps: u64,
    /// Of this iteration's episodes, under training noise.
    pub success_rate: f64,
    /// Mean summed reward of an episode, unscaled.
    pub mean_reward: f64,
    pub approx_kl: f64,
    pub clip_fraction: f64,
    /// By fine-tuned denoising step, the noisiest first.
    pub clip_fraction_per_step: Vec<f64>,
    pub explained_variance: f64,
    /// Of the sampling noise: 1 is DDPM, 0 deterministic DDIM.
    pub eta: f64,
    pub policy_loss: f64,
    pub value_loss: f64,
    pub actor_learning_rate: f64,
    pub critic_learning_rate: f64,
    pub gradient_norm_actor: f64,
    pub gradient_norm_critic: f64,
    pub minibatches: usize,
    /// Whether the approximate KL ended the update.
    pub stopped_early: bool,
    /// Episodes of the whole run that a fault of the simulation ended.
    pub faults: u64,
    pub seconds_sampling: f64,
    pub seconds_environment: f64,
    pub seconds_update: f64,
    /// Control steps of all environments by the time of the whole iteration.
    pub environment_steps_per_second: f64,
}

/// One policy under both noises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoisePair {
    pub evaluation_noise: Evaluation,
    pub training_noise: Evaluation,
}

impl NoisePair {
    /// Whether both success rates reach `goal`.
    pub fn reaches(&self, goal: f64) -> bool {
        self.lower_rate() >= goal
    }

    /// The smaller of the two success rates.
    pub fn lower_rate(&self) -> f64 {
        self.evaluation_noise.success_rate.min(self.training_noise.success_rate)
    }
}

/// `evaluation.json` while the run goes on: only `before` is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluations {
    pub before: NoisePair,
}

/// `evaluation.json` of a finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub before: NoisePair,
    pub after: NoisePair,
    /// Success rate that both noises should reach.
    pub goal: f64,
    pub reached: bool,
    pub iterations: u64,
    pub seconds: f64,
}
