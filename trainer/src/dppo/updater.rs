//! One DPPO update of actor and critic from a rollout (spec dppo.md §2.5, in that order).

use tenon_core::diffusion::StepNoise;
use tenon_core::noise::SeededNoise;

use super::{ChainMode, ChainSampler, FinetuneConfig, Likelihood, LossBuffers, Policy, Samples, TeacherChains};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations};
use crate::optimizer::{AdamW, finite_norm};
use crate::pretrain::permutation;
use crate::rollout::{RewardScaler, Rollout, RolloutValues, estimate};
use crate::seeds::Stream;
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
    pub critic: Critic,
    pub critic_parameters: Vec<f32>,
    pub reward_scaler: RewardScaler,
    /// Ta · Da: the executed part of a chunk.
    horizon_len: usize,
    actor_optimizer: AdamW,
    critic_optimizer: AdamW,
    /// Iterations begun so far, evaluations included.
    iteration: u64,
    actor_schedule_steps: u64,
    minibatch_order: SeededNoise,
    seed: u64,
    teacher_chains_drawn: u64,
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
        let steps = policy.finetuned_steps();
        if steps == 0 {
            let detail = "fine-tuning needs at least one fine-tuned denoising step".into();
            return Err(TrainError::Config { key: "finetuned_steps", detail });
        }
        if action_horizon_len == 0 || action_horizon_len > policy.network.chunk_len() {
            let detail = format!("{action_horizon_len} executed values of {}", policy.network.chunk_len());
            return Err(TrainError::Config { key: "action_horizon", detail });
        }
        let likelihood = Likelihood::new(&policy.denoising, config.loss.min_logprob_denoising_std, config.eta);
        let buffers = LossBuffers::new(&policy.network, &critic, workers, config.batch_size, steps);
        let teacher = config.loss.bc_loss_coeff.map(|_| ChainSampler::new(&policy, workers, config.batch_size));
        Ok(Self {
            critic_parameters: critic.table().initialise(&mut Stream::CriticWeights.of(seed)),
            reward_scaler: RewardScaler::new(envs),
            horizon_len: action_horizon_len,
            actor_optimizer: AdamW::new(policy.network.table().len(), config.actor_weight_decay),
            critic_optimizer: AdamW::new(critic.table().len(), config.critic_weight_decay),
            iteration: 0,
            actor_schedule_steps: 0,
            minibatch_order: Stream::Minibatches.of(seed),
            seed,
            teacher_chains_drawn: 0,
            likelihood,
            buffers,
            teacher,
            config,
            policy,
            critic,
        })
    }

    /// The mode in which rollouts of training are sampled.
    pub fn exploration(&self) -> ChainMode {
        let noise = StepNoise::Exploration { min_std: self.config.min_sampling_denoising_std, eta: self.config.eta };
        ChainMode { noise, base_policy: false }
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// 6. Steps the schedules: once an iteration, evaluations included; the actor's only after critic warm-up.
    pub fn end_iteration(&mut self) {
        if self.iteration >= self.config.n_critic_warmup_itr {
            self.actor_schedule_steps += 1;
        }
        self.iteration += 1;
    }

    /// 5. One update from a rollout of training.
    ///
    /// A rollout that is not finite is refused before anything changes. On any other error (a loss or gradient that is
    /// not finite) actor and critic stand as after the last good minibatch.
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        rollout.check_finite()?;
        // Without its pictures a network would go on with those of the block before.
        rollout.check_images(self.policy.network.image_len().max(self.critic.image_len()))?;
        let (n, steps) = (rollout.samples(), self.policy.finetuned_steps());
        let state_len = self.policy.network.state_len();

        // a. Values and log-probabilities under the weights that sampled.
        let values = self.values(workers, rollout.observations());
        let last_values = self.values(workers, rollout.last_observations());
        let mut final_states = Vec::new();
        let final_values = self.values(workers, rollout.final_observations(&mut final_states));
        let mut samples = Samples {
            observations: rollout.observations(),
            chains: &rollout.chains,
            advantages: &[],
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            steps,
            state_len,
            image_len: self.policy.network.image_len(),
            chunk_len: self.policy.network.chunk_len(),
        };
        let mut old_log_probs = vec![0.0; n * steps];
        self.buffers.mean_log_probs(
            workers,
            &self.policy.network,
            &self.policy.finetuned,
            &self.likelihood,
            &samples,
            self.horizon_len,
            &mut old_log_probs,
        );

        // b., c. Running reward scaling, generalised advantages over chunk steps; h. explained variance.
        let values = RolloutValues { values: &values, last: &last_values, finals: &final_values };
        let estimates = estimate(&self.config.advantages(), &mut self.reward_scaler, rollout, values)?;
        samples.advantages = &estimates.advantages;
        samples.returns = &estimates.returns;
        samples.old_values = &estimates.old_values;
        samples.old_log_probs = &old_log_probs;

        // d. Epochs of minibatches over (sample × denoising step); the remainder is dropped.
        let mut stats = UpdateStats { clip_fraction_of_step: vec![0.0; steps], ..Default::default() };
        let rows = n * steps;
        let minibatches = (rows / self.config.batch_size).max(1);
        let size = self.config.batch_size.min(rows);
        'epochs: for _ in 0..self.config.update_epochs {
            let mut order = permutation(rows, &mut self.minibatch_order);
            for minibatch in order.chunks_exact_mut(size).take(minibatches) {
                // The order within a minibatch is free; sorted, rows of one sample lie together.
                minibatch.sort_unstable();
                self.step(workers, &samples, minibatch, &mut stats)?;
                // g. Early stop on the latest minibatch.
                if stats.approx_kl > self.config.target_kl {
                    stats.stopped_early = true;
                    break 'epochs;
                }
            }
        }
        stats.average();
        stats.actor_lr = self.actor_learning_rate();
        stats.critic_lr = self.config.critic_lr.rate(self.iteration);
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
        let actor_moves = self.iteration >= self.config.n_critic_warmup_itr;
        let (critic_terms, critic_gradient) =
            self.buffers.critic(workers, &self.critic, &self.critic_parameters, &self.config.loss, samples, rows);
        let critic_norm = finite_norm("the critic's gradient", critic_gradient, self.critic.table())?;
        let critic_lr = self.config.critic_lr.rate(self.iteration);
        // While the critic warms up the actor stays what it was when it sampled: ρ = 1, nothing to compute.
        if !actor_moves {
            self.critic_optimizer.step(&mut self.critic_parameters, critic_gradient, critic_lr, None);
            stats.add_critic(critic_terms.value_loss, critic_norm);
            return Ok(());
        }
        // The critic's gradient is taken before either network moves; its buffer is not the actor's.
        let critic_gradient = critic_gradient.to_vec();
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
        let norm = finite_norm("the actor's gradient", gradient, self.policy.network.table())?;
        if !(terms.policy_loss.is_finite() && terms.approx_kl.is_finite()) {
            let place = format!("minibatch {}", stats.minibatches);
            return Err(TrainError::Numerical { what: "the policy loss", place });
        }
        let actor_lr = self.config.actor_lr.rate(self.actor_schedule_steps);
        let clip = self.config.max_grad_norm;
        self.actor_optimizer.step(&mut self.policy.finetuned, gradient, actor_lr, clip);
        self.critic_optimizer.step(&mut self.critic_parameters, &critic_gradient, critic_lr, None);
        stats.policy_loss += terms.policy_loss;
        stats.bc_loss += terms.bc_loss;
        stats.approx_kl = terms.approx_kl;
        stats.clip_fraction += terms.clip_fraction;
        for (sum, f) in stats.clip_fraction_of_step.iter_mut().zip(&terms.clip_fraction_of_step) {
            // A small minibatch may hold no row of a step.
            *sum += if f.is_finite() { *f } else { 0.0 };
        }
        stats.ratio_mean += terms.ratio_mean;
        stats.actor_gradient_norm += norm;
        stats.add_critic(critic_terms.value_loss, critic_norm);
        Ok(())
    }

    /// Chains of the frozen policy from the minibatch's states, where the loss asks for them.
    fn teacher_chains(&mut self, workers: &Workers, samples: &Samples, rows: &[u32]) -> Option<Vec<f32>> {
        let mode = ChainMode { base_policy: true, ..self.exploration() };
        let teacher = self.teacher.as_mut()?;
        let states: Vec<f32> = rows.iter().flat_map(|&r| samples.state(samples.of_row(r).0).iter().copied()).collect();
        let mut noise: Vec<SeededNoise> = (0..rows.len() as u64)
            .map(|i| {
                // Streams are numbered through the whole run, 2³² of them a seed.
                let number = self.teacher_chains_drawn + i;
                Stream::Teacher(number as u32).of(self.seed ^ ((number >> 32) << 32))
            })
            .collect();
        self.teacher_chains_drawn += rows.len() as u64;
        let mut chains = vec![0.0; rows.len() * (samples.steps + 1) * samples.chunk_len];
        let images: Option<Vec<u8>> =
            rows.iter().map(|&r| samples.images(samples.of_row(r).0)).collect::<Option<Vec<_>>>().map(|i| i.concat());
        let observations = Observations { states: &states, images: images.as_deref() };
        teacher.sample(workers, &self.policy, mode, observations, &mut noise, &mut chains);
        Some(chains)
    }

    fn actor_learning_rate(&self) -> f64 {
        self.config.actor_lr.rate(self.actor_schedule_steps)
    }

    /// V of `observations`, one value a row; a plain slice of states will do.
    pub fn values<'o>(&mut self, workers: &Workers, observations: impl Into<Observations<'o>>) -> Vec<f64> {
        let observations = observations.into();
        let mut values = vec![0.0; observations.states.len() / self.critic.state_len()];
        if !values.is_empty() {
            self.buffers.values(workers, &self.critic, &self.critic_parameters, observations, &mut values);
        }
        values.into_iter().map(f64::from).collect()
    }

    /// Adds everything that continues this run to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        let (actor, critic) = (self.policy.network.table(), self.critic.table());
        checkpoint.put_parameters("actor.", actor, &self.policy.frozen);
        checkpoint.put_parameters("actor_ft.", actor, &self.policy.finetuned);
        checkpoint.put_parameters("critic.", critic, &self.critic_parameters);
        checkpoint.put_optimizer("actor_ft", actor, &self.actor_optimizer);
        checkpoint.put_optimizer("critic", critic, &self.critic_optimizer);
        self.reward_scaler.store(checkpoint);
        for (name, value) in [
            ("iteration", self.iteration),
            ("actor_schedule", self.actor_schedule_steps),
            ("teacher_chains", self.teacher_chains_drawn),
            ("seed", self.seed),
        ] {
            checkpoint.header.counters.insert(name.into(), value);
        }
        checkpoint.header.streams.insert("minibatches".into(), self.minibatch_order.state());
    }

    /// Restores what [`Updater::store`] stored into an updater of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let (actor, critic) = (self.policy.network.table(), self.critic.table());
        self.policy.frozen = checkpoint.parameters("actor.", actor)?;
        self.policy.finetuned = checkpoint.parameters("actor_ft.", actor)?;
        self.critic_parameters = checkpoint.parameters("critic.", critic)?;
        checkpoint.restore_optimizer("actor_ft", actor, &mut self.actor_optimizer)?;
        checkpoint.restore_optimizer("critic", critic, &mut self.critic_optimizer)?;
        self.reward_scaler.restore(checkpoint)?;
        self.iteration = checkpoint.counter("iteration")?;
        self.actor_schedule_steps = checkpoint.counter("actor_schedule")?;
        self.teacher_chains_drawn = checkpoint.counter("teacher_chains")?;
        self.seed = checkpoint.counter("seed")?;
        self.minibatch_order = SeededNoise::restore(checkpoint.stream("minibatches")?);
        Ok(())
    }
}

impl UpdateStats {
    fn add_critic(&mut self, value_loss: f64, norm: f64) {
        self.value_loss += value_loss;
        self.critic_gradient_norm += norm;
        self.minibatches += 1;
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
