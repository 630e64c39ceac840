//! One PPO update of actor and critic from a rollout (spec dppo.md §2.5 with constant ε, in that order; §4).

use tenon_core::noise::SeededNoise;

use super::{
    ActorTerms, GaussianPolicy, GaussianSampler, Likelihood, Minibatch, PpoConfig, PpoLoss, Samples, SamplingMode,
    SamplingNoise,
};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations};
use crate::optimizer::{AdamW, finite_norm};
use crate::pretrain::permutation;
use crate::rollout::{RewardScaler, Rollout, RolloutValues, estimate};
use crate::seeds::Stream;
use crate::workers::Workers;

/// What an update did. Losses, ratio, clip fraction, entropy, deviation and norms are means over its minibatches or,
/// the norms, over its optimiser steps; those of the actor over the ones in which it moved.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PpoStats {
    pub policy_loss: f64,
    pub value_loss: f64,
    pub bc_loss: f64,
    /// Of the last minibatch: what the early stop looks at.
    pub approx_kl: f64,
    pub clip_fraction: f64,
    pub ratio_mean: f64,
    pub entropy: f64,
    pub std: f64,
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

/// Actor, critic, optimisers and statistics of a run.
#[derive(Debug)]
pub struct PpoUpdater {
    pub config: PpoConfig,
    pub policy: GaussianPolicy,
    pub critic: Critic,
    pub critic_parameters: Vec<f32>,
    pub reward_scaler: RewardScaler,
    actor_optimizer: AdamW,
    critic_optimizer: AdamW,
    /// Iterations begun so far, evaluations included.
    iteration: u64,
    actor_schedule_steps: u64,
    minibatch_order: SeededNoise,
    seed: u64,
    teacher_chunks_drawn: u64,
    loss: PpoLoss,
    teacher: Option<GaussianSampler>,
}

impl PpoUpdater {
    /// A fresh run: `policy` pre-trained or new, a new critic from `seed`; `envs` = E.
    pub fn new(
        config: PpoConfig,
        policy: GaussianPolicy,
        critic: Critic,
        envs: usize,
        seed: u64,
        workers: &Workers,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let network = &policy.network;
        if network.state_len() != critic.state_len() {
            let detail = format!("the critic sees {} values, the policy {}", critic.state_len(), network.state_len());
            return Err(TrainError::Config { key: "critic", detail });
        }
        if ![0, network.image_len()].contains(&critic.image_len()) {
            let detail = "the critic sees pictures that the policy does not".into();
            return Err(TrainError::Config { key: "critic", detail });
        }
        if !(policy.noise_clip.is_finite() && policy.noise_clip > 0.0) {
            let detail = format!("{} must be positive", policy.noise_clip);
            return Err(TrainError::Config { key: "noise_clip", detail });
        }
        let teacher = config.loss.bc_loss_coeff.map(|_| GaussianSampler::new(&policy, workers, config.batch_size));
        Ok(Self {
            critic_parameters: critic.table().initialise(&mut Stream::CriticWeights.of(seed)),
            reward_scaler: RewardScaler::new(envs),
            actor_optimizer: AdamW::new(network.table().len(), config.actor_weight_decay),
            critic_optimizer: AdamW::new(critic.table().len(), config.critic_weight_decay),
            iteration: 0,
            actor_schedule_steps: 0,
            minibatch_order: Stream::Minibatches.of(seed),
            seed,
            teacher_chunks_drawn: 0,
            loss: PpoLoss::new(network, &critic, workers, config.batch_size),
            teacher,
            config,
            policy,
            critic,
        })
    }

    /// The mode in which rollouts of training are sampled.
    pub fn exploration(&self) -> SamplingMode {
        SamplingMode { noise: SamplingNoise::Exploration, base_policy: false }
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

    /// 5. One update from a rollout of training, whose "chains" are the sampled chunks alone.
    ///
    /// A rollout that is not finite is refused before anything changes. On any other error (a loss or gradient that is
    /// not finite) actor and critic stand as after the last good optimiser step.
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<PpoStats, TrainError> {
        rollout.check_finite()?;
        rollout.check_images(self.policy.network.image_len())?;
        let n = rollout.samples();
        let network = &self.policy.network;
        let mut samples = Samples {
            observations: rollout.observations(),
            chunks: &rollout.chains,
            advantages: &[],
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            state_len: network.state_len(),
            image_len: network.image_len(),
            chunk_len: network.chunk_len(),
        };

        // a. Values and log-probabilities under the weights that sampled.
        let values = self.values(workers, rollout.observations());
        let last = self.values(workers, rollout.last_observations());
        let finals = self.values(workers, rollout.final_observations(&mut Vec::new()));
        let mut old_log_probs = vec![0.0; n];
        let likelihood = Likelihood { mixture: self.config.loss.mixture_density() };
        let (network, parameters) = (&self.policy.network, &self.policy.finetuned);
        self.loss.log_probs(workers, network, parameters, likelihood, &samples, &mut old_log_probs);
        old_log_probs.iter_mut().for_each(|p| *p = Likelihood::clamp(f64::from(*p)).0);

        // b., c. Running reward scaling, generalised advantages over chunk steps; h. explained variance.
        let values = RolloutValues { values: &values, last: &last, finals: &finals };
        let estimates = estimate(&self.config.advantages(), &mut self.reward_scaler, rollout, values)?;
        samples.advantages = &estimates.advantages;
        samples.returns = &estimates.returns;
        samples.old_values = &estimates.old_values;
        samples.old_log_probs = &old_log_probs;

        // d. Epochs of minibatches over samples; the remainder is dropped.
        let mut sums = Sums::default();
        let mut stats = PpoStats::default();
        let minibatches = (n / self.config.batch_size).max(1);
        let size = self.config.batch_size.min(n);
        'epochs: for _ in 0..self.config.update_epochs {
            let mut order = permutation(n, &mut self.minibatch_order);
            let mut order: Vec<&mut [u32]> = order.chunks_exact_mut(size).take(minibatches).collect();
            // The order within a minibatch is free; sorted, rows are read as they lie.
            order.iter_mut().for_each(|minibatch| minibatch.sort_unstable());
            let order: Vec<&[u32]> = order.into_iter().map(|minibatch| &*minibatch).collect();
            for group in order.chunks(self.config.grad_accumulate) {
                self.step(workers, &samples, group, &mut sums)?;
                // g. Early stop on the latest minibatch.
                if sums.approx_kl > self.config.target_kl {
                    stats.stopped_early = true;
                    break 'epochs;
                }
            }
        }
        sums.means_into(&mut stats);
        stats.actor_lr = self.config.actor_lr.rate(self.actor_schedule_steps);
        stats.critic_lr = self.config.critic_lr.rate(self.iteration);
        stats.reward_scale = estimates.reward_scale;
        stats.explained_variance = estimates.explained_variance;
        Ok(stats)
    }

    /// e., f. Losses, summed gradients and one optimiser step of some minibatches.
    fn step(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        group: &[&[u32]],
        sums: &mut Sums,
    ) -> Result<(), TrainError> {
        let actor_moves = self.iteration >= self.config.n_critic_warmup_itr;
        // While the critic warms up the actor stays what it was when it sampled: ρ = 1, nothing to compute.
        let teachers: Vec<Option<Vec<f32>>> = match actor_moves {
            true => group.iter().map(|rows| self.teacher_chunks(workers, samples, rows)).collect(),
            false => vec![None; group.len()],
        };
        let minibatches: Vec<Minibatch> = group
            .iter()
            .zip(&teachers)
            .map(|(samples, teacher)| Minibatch { samples, teacher: teacher.as_deref() })
            .collect();
        let config = &self.config;
        let (losses, gradient) =
            self.loss.critic(workers, &self.critic, &self.critic_parameters, &config.loss, samples, &minibatches);
        let critic_norm = finite_norm("the critic's gradient", gradient, self.critic.table())?;
        // Both gradients are taken before either network moves, and each in a buffer of its own.
        let critic_gradient = gradient.to_vec();
        let critic_lr = config.critic_lr.rate(self.iteration);
        if actor_moves {
            let (terms, gradient) = self.loss.actor(workers, &self.policy, &config.loss, samples, &minibatches);
            let norm = finite_norm("the actor's gradient", gradient, self.policy.network.table())?;
            if terms.iter().any(|t| !(t.policy_loss.is_finite() && t.approx_kl.is_finite())) {
                let place = format!("minibatch {}", sums.minibatches);
                return Err(TrainError::Numerical { what: "the policy loss", place });
            }
            let actor_lr = config.actor_lr.rate(self.actor_schedule_steps);
            self.actor_optimizer.step(&mut self.policy.finetuned, gradient, actor_lr, config.max_grad_norm);
            sums.actor_steps += 1;
            sums.actor_norm += norm;
            sums.approx_kl = terms.last().map_or(0.0, |t| t.approx_kl);
            terms.iter().for_each(|t| sums.terms.add(t));
            sums.actor_minibatches += terms.len();
        }
        self.critic_optimizer.step(&mut self.critic_parameters, &critic_gradient, critic_lr, None);
        sums.steps += 1;
        sums.minibatches += losses.len();
        sums.value_loss += losses.iter().sum::<f64>();
        sums.critic_norm += critic_norm;
        Ok(())
    }

    /// Chunks of the frozen policy from the minibatch's observations, where the loss asks for them.
    fn teacher_chunks(&mut self, workers: &Workers, samples: &Samples, rows: &[u32]) -> Option<Vec<f32>> {
        let teacher = self.teacher.as_mut()?;
        let states: Vec<f32> = rows.iter().flat_map(|&r| samples.row(r as usize).state.iter().copied()).collect();
        let images: Option<Vec<&[u8]>> = rows.iter().map(|&r| samples.row(r as usize).images).collect();
        let images = images.map(|images| images.concat());
        let mut noise: Vec<SeededNoise> = (0..rows.len() as u64)
            .map(|i| {
                // Streams are numbered through the whole run, 2³² of them a seed.
                let number = self.teacher_chunks_drawn + i;
                Stream::Teacher(number as u32).of(self.seed ^ ((number >> 32) << 32))
            })
            .collect();
        self.teacher_chunks_drawn += rows.len() as u64;
        let mut chunks = vec![0.0; rows.len() * samples.chunk_len];
        let mode = SamplingMode { noise: SamplingNoise::Exploration, base_policy: true };
        let observations = Observations { states: &states, images: images.as_deref() };
        teacher.sample(workers, &self.policy, mode, observations, &mut noise, &mut chunks);
        Some(chunks)
    }

    /// V of `observations`, one value a row; a plain slice of states will do.
    pub fn values<'o>(&mut self, workers: &Workers, observations: impl Into<Observations<'o>>) -> Vec<f64> {
        let observations = observations.into();
        let mut values = vec![0.0; observations.states.len() / self.critic.state_len()];
        if !values.is_empty() {
            self.loss.values(workers, &self.critic, &self.critic_parameters, observations, &mut values);
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
            ("teacher_chunks", self.teacher_chunks_drawn),
            ("seed", self.seed),
        ] {
            checkpoint.header.counters.insert(name.into(), value);
        }
        checkpoint.header.streams.insert("minibatches".into(), self.minibatch_order.state());
    }

    /// Restores what [`PpoUpdater::store`] stored into an updater of the same configuration.
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
        self.teacher_chunks_drawn = checkpoint.counter("teacher_chunks")?;
        self.seed = checkpoint.counter("seed")?;
        self.minibatch_order = SeededNoise::restore(checkpoint.stream("minibatches")?);
        Ok(())
    }
}

/// Running sums of an update.
#[derive(Debug, Default)]
struct Sums {
    terms: ActorTerms,
    approx_kl: f64,
    value_loss: f64,
    actor_norm: f64,
    critic_norm: f64,
    minibatches: usize,
    actor_minibatches: usize,
    steps: usize,
    actor_steps: usize,
}

impl Sums {
    fn means_into(mut self, stats: &mut PpoStats) {
        self.terms.divide(self.actor_minibatches.max(1) as f64);
        let ActorTerms { policy_loss, approx_kl: _, clip_fraction, ratio_mean, entropy, std, bc_loss } = self.terms;
        *stats = PpoStats {
            policy_loss,
            value_loss: self.value_loss / self.minibatches.max(1) as f64,
            bc_loss,
            approx_kl: self.approx_kl,
            clip_fraction,
            ratio_mean,
            entropy,
            std,
            actor_gradient_norm: self.actor_norm / self.actor_steps.max(1) as f64,
            critic_gradient_norm: self.critic_norm / self.steps.max(1) as f64,
            minibatches: self.minibatches,
            ..*stats
        };
    }
}
