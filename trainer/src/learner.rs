//! What learns in fine-tuning, whatever the policy: DPPO for diffusion policies, PPO for Gaussian ones.

use crate::checkpoint::Checkpoint;
use crate::dppo;
use crate::error::TrainError;
use crate::network::ParameterTable;
use crate::ppo::PpoUpdater;
use crate::rollout::Rollout;
use crate::sampling::{ChunkMode, PolicyRef};
use crate::workers::Workers;

/// Actor, critic, optimisers and statistics of a run.
#[derive(Debug)]
pub enum Learner {
    Dppo(Box<dppo::Updater>),
    Ppo(Box<PpoUpdater>),
}

/// What an update did, as it is recorded. Losses, clip fractions and norms are means over its minibatches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LearnerStats {
    pub policy_loss: f64,
    pub value_loss: f64,
    pub bc_loss: f64,
    pub approx_kl: f64,
    pub clip_fraction: f64,
    /// By fine-tuned denoising step, the noisiest first; empty for a Gaussian policy.
    pub clip_fraction_of_step: Vec<f64>,
    pub explained_variance: f64,
    /// Of DDIM; none for a Gaussian policy.
    pub eta: Option<f64>,
    /// Mean deviation of a Gaussian policy.
    pub std: Option<f64>,
    pub actor_lr: f64,
    pub critic_lr: f64,
    pub actor_gradient_norm: f64,
    pub critic_gradient_norm: f64,
    pub minibatches: usize,
    pub stopped_early: bool,
}

impl Learner {
    /// The policy as it is now.
    pub fn policy(&self) -> PolicyRef<'_> {
        match self {
            Self::Dppo(updater) => PolicyRef::Diffusion(&updater.policy),
            Self::Ppo(updater) => PolicyRef::Gaussian(&updater.policy),
        }
    }

    /// The noise with which rollouts of training are sampled.
    pub fn training_mode(&self) -> ChunkMode {
        match self {
            Self::Dppo(updater) => ChunkMode::Diffusion(updater.exploration()),
            Self::Ppo(updater) => ChunkMode::Gaussian(updater.exploration()),
        }
    }

    /// The noise of deployment (spec dppo.md §1.3, §4).
    pub fn evaluation_mode(&self) -> ChunkMode {
        ChunkMode::evaluation(self.policy())
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        match self {
            Self::Dppo(updater) => updater.iteration(),
            Self::Ppo(updater) => updater.iteration(),
        }
    }

    /// Steps the schedules: once an iteration, evaluations included.
    pub fn end_iteration(&mut self) {
        match self {
            Self::Dppo(updater) => updater.end_iteration(),
            Self::Ppo(updater) => updater.end_iteration(),
        }
    }

    /// One update. On an error everything stands as before it.
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<LearnerStats, TrainError> {
        match self {
            Self::Dppo(updater) => {
                let s = updater.update(workers, rollout)?;
                Ok(LearnerStats {
                    policy_loss: s.policy_loss,
                    value_loss: s.value_loss,
                    bc_loss: s.bc_loss,
                    approx_kl: s.approx_kl,
                    clip_fraction: s.clip_fraction,
                    clip_fraction_of_step: s.clip_fraction_of_step,
                    explained_variance: s.explained_variance,
                    eta: Some(s.eta),
                    std: None,
                    actor_lr: s.actor_lr,
                    critic_lr: s.critic_lr,
                    actor_gradient_norm: s.actor_gradient_norm,
                    critic_gradient_norm: s.critic_gradient_norm,
                    minibatches: s.minibatches,
                    stopped_early: s.stopped_early,
                })
            }
            Self::Ppo(updater) => {
                let s = updater.update(workers, rollout)?;
                Ok(LearnerStats {
                    policy_loss: s.policy_loss,
                    value_loss: s.value_loss,
                    bc_loss: s.bc_loss,
                    approx_kl: s.approx_kl,
                    clip_fraction: s.clip_fraction,
                    clip_fraction_of_step: Vec::new(),
                    explained_variance: s.explained_variance,
                    eta: None,
                    std: Some(s.std),
                    actor_lr: s.actor_lr,
                    critic_lr: s.critic_lr,
                    actor_gradient_norm: s.actor_gradient_norm,
                    critic_gradient_norm: s.critic_gradient_norm,
                    minibatches: s.minibatches,
                    stopped_early: s.stopped_early,
                })
            }
        }
    }

    /// Names and places of the actor's parameters.
    pub fn actor_table(&self) -> &ParameterTable {
        match self {
            Self::Dppo(updater) => updater.policy.network.table(),
            Self::Ppo(updater) => updater.policy.network.table(),
        }
    }

    /// Adds everything that continues this learner to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        match self {
            Self::Dppo(updater) => updater.store(checkpoint),
            Self::Ppo(updater) => updater.store(checkpoint),
        }
    }

    /// Restores what [`Learner::store`] stored into a learner of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        match self {
            Self::Dppo(updater) => updater.restore(checkpoint),
            Self::Ppo(updater) => updater.restore(checkpoint),
        }
    }
}
