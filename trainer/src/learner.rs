//! What learns in fine-tuning, whatever the policy: DPPO for diffusion policies, PPO for Gaussian ones.

use crate::actor_critic::UpdateStats;
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
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        match self {
            Self::Dppo(updater) => updater.update(workers, rollout),
            Self::Ppo(updater) => updater.update(workers, rollout),
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
