//! DPPO on a bandit: settings, and who learns.

use tenon_core::spec::Denoising;
use tenon_train::actor_critic::ActorCriticSettings;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dppo::{ChainSampler, FinetuneConfig, LossConfig, Policy, Rollout, UpdateStats, Updater};
use tenon_train::optimizer::LrSchedule;
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

use crate::fixtures::*;
use crate::pretraining::noise_network;

pub fn finetune_config() -> FinetuneConfig {
    FinetuneConfig {
        loss: LossConfig { clip_ploss_coef: 0.05, ..LossConfig::default() },
        actor_critic: ActorCriticSettings {
            update_epochs: 4,
            batch_size: 500,
            n_critic_warmup_itr: 1,
            actor_lr: LrSchedule::constant(1e-3),
            ..ActorCriticSettings::default()
        },
        ..FinetuneConfig::default()
    }
}

/// A policy that has seen nothing.
pub fn fresh_policy(denoising: Denoising) -> Policy {
    let network = noise_network(32);
    let parameters = network.table().initialise(&mut Stream::ActorWeights.of(5));
    Policy::from_pretrained(network, parameters, denoising)
}

/// The bandit and who learns on it.
pub struct Bandit {
    pub updater: Updater,
    sampler: ChainSampler,
    pub workers: Workers,
    world: World,
}

impl Bandit {
    pub fn new(config: FinetuneConfig, threads: usize) -> Self {
        Self::with(fresh_policy(denoising()), config, threads)
    }

    pub fn with(policy: Policy, config: FinetuneConfig, threads: usize) -> Self {
        let workers = Workers::new(threads).unwrap();
        let critic = critic(policy.network.image_len());
        Self {
            sampler: ChainSampler::new(&policy, &workers, World::ENVS),
            updater: Updater::new(config, policy, critic, HORIZON, World::ENVS, World::SEED, &workers).unwrap(),
            workers,
            world: World::new(),
        }
    }

    pub fn collect(&mut self) -> Rollout {
        let Self { updater, sampler, workers, world } = self;
        let (policy, mode) = (&updater.policy, updater.exploration());
        let chain_len = (policy.finetuned_steps() + 1) * HORIZON;
        world.rollout(policy.network.image_len(), chain_len, |seen, noise, chains| {
            sampler.sample(workers, policy, mode, seen, noise, chains);
        })
    }

    pub fn iterate(&mut self) -> (f64, UpdateStats) {
        let rollout = self.collect();
        let stats = self.updater.update(&self.workers, &rollout).unwrap();
        self.updater.end_iteration();
        (mean_reward(&rollout), stats)
    }

    pub fn checkpoint(&self) -> Checkpoint {
        stored(|c| self.updater.store(c))
    }
}
