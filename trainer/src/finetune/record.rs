//! What a fine-tuning run writes: one record an iteration, and `evaluation.json`.

use serde::{Deserialize, Serialize};

use super::EpisodeStats;
use crate::actor_critic::UpdateStats;
use crate::evaluate::Evaluation;

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IterationRecord {
    /// The first is 1.
    pub iteration: u64,
    /// Control steps of all environments in iterations that trained.
    pub environment_steps: u64,
    /// Of an iteration that trained.
    #[serde(flatten)]
    pub training: Option<TrainingRecord>,
    /// Of an iteration that evaluated.
    #[serde(flatten)]
    pub evaluation: Option<EvaluationRecord>,
    /// Episodes of the whole run that a fault of the simulation ended.
    pub faults: u64,
    /// Iterations of the whole run that were undone because something was not finite.
    pub undone: u64,
    pub seconds_sampling: f64,
    /// Pictures included.
    pub seconds_environment: f64,
    /// Drawing, of all threads together; absent where nothing is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_pictures: Option<f64>,
    /// Control steps of all environments by the time of the whole iteration.
    pub environment_steps_per_second: f64,
}

/// Episodes under training noise, and the update.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingRecord {
    /// That finished in this iteration.
    pub episodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// Mean summed reward of an episode, unscaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_return: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_best_reward: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_episode_steps: Option<f64>,
    pub approx_kl: f64,
    pub clip_fraction: f64,
    /// By fine-tuned denoising step, the noisiest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clip_fraction_per_step: Vec<f64>,
    pub explained_variance: f64,
    /// Of the sampling noise: 1 is DDPM, 0 deterministic DDIM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Mean deviation of a Gaussian policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_std: Option<f64>,
    pub policy_loss: f64,
    pub value_loss: f64,
    pub bc_loss: f64,
    pub actor_learning_rate: f64,
    pub critic_learning_rate: f64,
    pub gradient_norm_actor: f64,
    pub gradient_norm_critic: f64,
    pub minibatches: usize,
    /// Whether the approximate KL ended the update.
    pub stopped_early: bool,
    pub seconds_update: f64,
}

/// Episodes under evaluation noise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationRecord {
    pub evaluation_episodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_success_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_return: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_best_reward: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_episode_steps: Option<f64>,
}

impl TrainingRecord {
    pub(super) fn new(e: EpisodeStats, s: UpdateStats, seconds_update: f64) -> Self {
        Self {
            episodes: e.episodes,
            success_rate: e.success_rate,
            mean_return: e.mean_return,
            mean_best_reward: e.mean_best_reward,
            mean_episode_steps: e.mean_steps,
            approx_kl: s.approx_kl,
            clip_fraction: s.clip_fraction,
            clip_fraction_per_step: s.clip_fraction_of_step,
            explained_variance: s.explained_variance,
            eta: s.eta,
            policy_std: s.std,
            policy_loss: s.policy_loss,
            value_loss: s.value_loss,
            bc_loss: s.bc_loss,
            actor_learning_rate: s.actor_lr,
            critic_learning_rate: s.critic_lr,
            gradient_norm_actor: s.actor_gradient_norm,
            gradient_norm_critic: s.critic_gradient_norm,
            minibatches: s.minibatches,
            stopped_early: s.stopped_early,
            seconds_update,
        }
    }
}

impl EvaluationRecord {
    pub(super) fn new(e: EpisodeStats) -> Self {
        Self {
            evaluation_episodes: e.episodes,
            evaluation_success_rate: e.success_rate,
            evaluation_return: e.mean_return,
            evaluation_best_reward: e.mean_best_reward,
            evaluation_episode_steps: e.mean_steps,
        }
    }
}

/// One policy under both noises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoisePair {
    pub evaluation_noise: Evaluation,
    pub training_noise: Evaluation,
}

/// What a run should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Success rate under both noises.
    SuccessRate(f64),
    /// Mean return under training noise.
    Return(f64),
}

impl Goal {
    /// Whether a policy has it.
    pub fn is_reached(self, pair: &NoisePair) -> bool {
        let NoisePair { evaluation_noise: e, training_noise: t } = pair;
        match self {
            Self::SuccessRate(goal) => e.success_rate.min(t.success_rate) >= goal,
            Self::Return(goal) => t.mean_return >= goal,
        }
    }

    /// Whether an iteration's episodes let it seem within reach.
    pub fn seems_reached(self, record: &IterationRecord) -> bool {
        let Some(training) = &record.training else { return false };
        let (value, goal) = match self {
            Self::SuccessRate(goal) => (training.success_rate, goal),
            Self::Return(goal) => (training.mean_return, goal),
        };
        value.is_some_and(|value| value >= goal)
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SuccessRate(goal) => write!(f, "a success rate of {:.0} %", 100.0 * goal),
            Self::Return(goal) => write!(f, "a mean return of {goal:.0}"),
        }
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
    /// What the run should reach, where it should reach something.
    pub goal: Option<Goal>,
    pub reached: bool,
    pub iterations: u64,
    pub seconds: f64,
}
