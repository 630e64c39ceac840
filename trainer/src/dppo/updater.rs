//! One DPPO update of actor and critic from a rollout (spec dppo.md §2.5, in that order).

use tenon_core::diffusion::StepNoise;

use super::{
    ActorTerms, ChainMode, ChainSampler, FinetuneConfig, Likelihood, LossBuffers, Policy, Samples, TeacherChains,
};
use crate::actor_critic::{ActorCritic, ActorSizes, ActorWeights};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations};
use crate::optimizer::finite_norm;
use crate::rollout::Rollout;
use crate::workers::Workers;

/// What an update did. Losses, ratio, clip fractions and norms are means over its minibatches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateStats {
    pub policy_loss: f64,
    pub value_loss: f64,
    pub bc_loss: f64,
    /// Of the last minibatch: what the early stop looks at.
    pub approx_kl: f64,
    pub clip_fraction: f64,
    /// For each denoising step j, 0 the noisiest.
    pub clip_fraction_of_step: Vec<f64>,
    pub ratio_mean: f64,
    pub explained_variance: f64,
    pub actor_gradient_norm: f64,
    pub critic_gradient_norm: f64,
    pub actor_lr: f64,
    pub critic_lr: f64,
    pub minibatches: usize,
    /// Whether approx_kl exceeded the target and the rest of the epochs was left out.
    pub stopped_early: bool,
    /// Standard deviation that rewards were divided by; 1 without running scaling.
    pub reward_scale: f64,
}

/// Actor, critic, optimisers and statistics of a fine-tuning run.
#[derive(Debug)]
pub struct Updater {
    pub config: FinetuneConfig,
    pub policy: Policy,
    /// Everything that PPO has too.
    pub actor_critic: ActorCritic,
    /// Ta · Da: the executed part of a chunk.
    horizon_len: usize,
    likelihood: Likelihood,
    buffers: LossBuffers,
    teacher: Option<ChainSampler>,
}

impl Updater {
    /// A fresh run: `policy` from pre-training, a new critic from `seed`.
    ///
    /// `action_horizon_len` = Ta · Da; `envs` = E.
    pub fn new(
        config: FinetuneConfig,
        policy: Policy,
        critic: Critic,
        action_horizon_len: usize,
        envs: usize,
        seed: u64,
        workers: &Workers,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let (network, steps) = (&policy.network, policy.finetuned_steps());
        if steps == 0 {
            let detail = "fine-tuning needs at least one fine-tuned denoising step".into();
            return Err(TrainError::Config { key: "finetuned_steps", detail });
        }
        if action_horizon_len == 0 || action_horizon_len > network.chunk_len() {
            let detail = format!("{action_horizon_len} executed values of {}", network.chunk_len());
            return Err(TrainError::Config { key: "action_horizon", detail });
        }
        let sizes = ActorSizes {
            parameters: network.table().len(),
            state_len: network.state_len(),
            image_len: network.image_len(),
        };
        let actor_critic =
            ActorCritic::new(&config.actor_critic(), sizes, critic, envs, seed, "teacher_chains", workers)?;
        Ok(Self {
            actor_critic,
            horizon_len: action_horizon_len,
            likelihood: Likelihood::new(&policy.denoising, config.loss.min_logprob_denoising_std, config.eta),
            buffers: LossBuffers::new(network, workers, config.batch_size, steps),
            teacher: config.loss.bc_loss_coeff.map(|_| ChainSampler::new(&policy, workers, config.batch_size)),
            config,
            policy,
        })
    }

    /// The mode in which rollouts of training are sampled.
    pub fn exploration(&self) -> ChainMode {
        let noise = StepNoise::Exploration { min_std: self.config.min_sampling_denoising_std, eta: self.config.eta };
        ChainMode { noise, base_policy: false }
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        self.actor_critic.iteration()
    }

    /// 6. Steps the schedules: once an iteration, evaluations included; the actor's only after critic warm-up.
    pub fn end_iteration(&mut self) {
        self.actor_critic.end_iteration(&self.config.actor_critic());
    }

    /// 5. One update from a rollout of training.
    ///
    /// On any error the updater stands as before, to the last bit: another rollout may follow. What is not finite is named
    /// with its tensor and, where it can be told, the chunk step and environment.
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        self.actor_critic.remember(&self.policy.finetuned);
        let result = self.attempt(workers, rollout);
        let Self { actor_critic, policy, .. } = self;
        actor_critic.settle(result, policy.network.table(), &mut policy.finetuned)
    }

    fn attempt(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        rollout.check_finite()?;
        // Without its pictures a network would go on with those of the block before.
        rollout.check_images(self.policy.network.image_len())?;
        let settings = self.config.actor_critic();
        let (network, steps) = (&self.policy.network, self.policy.finetuned_steps());
        let rows = rollout.samples() * steps;
        let mut samples = Samples {
            observations: rollout.observations(),
            chains: &rollout.chains,
            advantages: &[],
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            steps,
            state_len: network.state_len(),
            image_len: network.image_len(),
            chunk_len: network.chunk_len(),
        };

        // a. Log-probabilities under the weights that sampled; values, too, and
        // b., c. running reward scaling, generalised advantages over chunk steps; h. explained variance.
        let mut old_log_probs = vec![0.0; rows];
        let (parameters, h) = (&self.policy.finetuned, self.horizon_len);
        self.buffers.mean_log_probs(workers, network, parameters, &self.likelihood, &samples, h, &mut old_log_probs);
        let estimates = self.actor_critic.estimates(workers, &settings, rollout, samples.observations)?;
        samples.advantages = &estimates.advantages;
        samples.returns = &estimates.returns;
        samples.old_values = &estimates.old_values;
        samples.old_log_probs = &old_log_probs;

        // d. Epochs of minibatches over (sample × denoising step); the remainder is dropped.
        let mut stats = UpdateStats { clip_fraction_of_step: vec![0.0; steps], ..Default::default() };
        'epochs: for _ in 0..self.config.update_epochs {
            let epoch = self.actor_critic.epoch(&settings, rows);
            for minibatch in epoch.minibatches() {
                self.step(workers, &samples, minibatch, &mut stats)?;
                // g. Early stop on the latest minibatch.
                if stats.approx_kl > self.config.target_kl {
                    stats.stopped_early = true;
                    break 'epochs;
                }
            }
        }
        stats.average();
        stats.actor_lr = self.actor_critic.actor_lr(&settings);
        stats.critic_lr = self.actor_critic.critic_lr(&settings);
        stats.reward_scale = estimates.reward_scale;
        stats.explained_variance = estimates.explained_variance;
        Ok(stats)
    }

    /// e., f. Loss, gradients and optimiser steps of one minibatch. `rows`: sorted.
    pub(crate) fn step(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        rows: &[u32],
        stats: &mut UpdateStats,
    ) -> Result<(), TrainError> {
        let settings = self.config.actor_critic();
        // Both gradients are taken before either network moves.
        let distinct = [samples.distinct(rows)];
        let (losses, critic_norm) =
            self.actor_critic.critic_gradient(workers, &settings, &samples.value_targets(), &distinct)?;
        // While the critic warms up the actor stays what it was when it sampled: ρ = 1, nothing to compute.
        if self.actor_critic.actor_moves(&settings) {
            let chains = self.teacher_chains(workers, samples, rows);
            let teacher = chains.as_deref().map(|chains| TeacherChains { rows, chains });
            let (terms, gradient) = self.buffers.actor(
                workers,
                &self.policy,
                &self.likelihood,
                &self.config.loss,
                samples,
                rows,
                self.horizon_len,
                teacher,
            );
            let norm = match finite_norm("the actor's gradient", gradient, self.policy.network.table()) {
                Ok(norm) if terms.are_finite() => norm,
                result => return Err(self.locate(workers, samples, rows, result.err())),
            };
            self.actor_critic.step_actor(&settings, &mut self.policy.finetuned, gradient);
            stats.add_actor(&terms, norm);
        }
        self.actor_critic.step_critic(&settings);
        stats.value_loss += losses.iter().sum::<f64>();
        stats.critic_gradient_norm += critic_norm;
        stats.minibatches += 1;
        Ok(())
    }

    /// What is not finite, with the first sample of the minibatch that shows it.
    fn locate(&mut self, workers: &Workers, samples: &Samples, rows: &[u32], error: Option<TrainError>) -> TrainError {
        let error = error.unwrap_or(TrainError::Numerical { what: "the policy loss", place: "a minibatch".into() });
        let (likelihood, h) = (&self.likelihood, self.horizon_len);
        let first =
            self.buffers.first_not_finite(workers, &self.policy, likelihood, &self.config.loss, samples, rows, h);
        self.actor_critic.locate(error, first.map(|row| samples.of_row(row).0))
    }

    /// Chains of the frozen policy from the minibatch's states, where the loss asks for them.
    fn teacher_chains(&mut self, workers: &Workers, samples: &Samples, rows: &[u32]) -> Option<Vec<f32>> {
        let mode = ChainMode { base_policy: true, ..self.exploration() };
        let teacher = self.teacher.as_mut()?;
        let states: Vec<f32> = rows.iter().flat_map(|&r| samples.state(samples.of_row(r).0).iter().copied()).collect();
        let mut noise = self.actor_critic.teacher_streams(rows.len());
        let mut chains = vec![0.0; rows.len() * (samples.steps + 1) * samples.chunk_len];
        let images: Option<Vec<u8>> =
            rows.iter().map(|&r| samples.images(samples.of_row(r).0)).collect::<Option<Vec<_>>>().map(|i| i.concat());
        let observations = Observations { states: &states, images: images.as_deref() };
        teacher.sample(workers, &self.policy, mode, observations, &mut noise, &mut chains);
        Some(chains)
    }

    /// V of `observations`, one value a row; a plain slice of states will do.
    pub fn values<'o>(&mut self, workers: &Workers, observations: impl Into<Observations<'o>>) -> Vec<f64> {
        self.actor_critic.values(workers, observations)
    }

    /// Adds everything that continues this run to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        let Policy { network, frozen, finetuned, .. } = &self.policy;
        self.actor_critic.store(checkpoint, ActorWeights { table: network.table(), frozen, finetuned });
    }

    /// Restores what [`Updater::store`] stored into an updater of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let Policy { network, frozen, finetuned, .. } = &mut self.policy;
        self.actor_critic.restore(checkpoint, ActorWeights { table: network.table(), frozen, finetuned })
    }
}

impl UpdateStats {
    fn add_actor(&mut self, terms: &ActorTerms, gradient_norm: f64) {
        self.policy_loss += terms.policy_loss;
        self.bc_loss += terms.bc_loss;
        self.approx_kl = terms.approx_kl;
        self.clip_fraction += terms.clip_fraction;
        for (sum, f) in self.clip_fraction_of_step.iter_mut().zip(&terms.clip_fraction_of_step) {
            // A small minibatch may hold no row of a step.
            *sum += if f.is_finite() { *f } else { 0.0 };
        }
        self.ratio_mean += terms.ratio_mean;
        self.actor_gradient_norm += gradient_norm;
    }

    /// Sums → means.
    fn average(&mut self) {
        let n = self.minibatches.max(1) as f64;
        for sum in [
            &mut self.policy_loss,
            &mut self.value_loss,
            &mut self.bc_loss,
            &mut self.clip_fraction,
            &mut self.ratio_mean,
            &mut self.actor_gradient_norm,
            &mut self.critic_gradient_norm,
        ] {
            *sum /= n;
        }
        self.clip_fraction_of_step.iter_mut().for_each(|f| *f /= n);
    }
}
