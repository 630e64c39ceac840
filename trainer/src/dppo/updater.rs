//! One DPPO update of actor and critic from a rollout (spec dppo.md §2.5, in that order).

use tenon_core::diffusion::StepNoise;

use super::annealing::finetuned_steps;
use super::eta_learner::EtaLearner;
use super::stats::Sums;
use super::{
    ChainMode, ChainSampler, EtaLikelihood, EtaModule, FinetuneConfig, Likelihood, LossBuffers, Minibatch, Policy,
    Samples, UpdateStats,
};
use crate::actor_critic::{ActorCritic, ActorSizes, ActorWeights, traced};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations};
use crate::optimizer::finite_norm;
use crate::rollout::Rollout;
use crate::seeds::Stream;
use crate::workers::Workers;

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
    /// In place of the likelihood where η is no constant; the policy has its module then.
    eta: Option<EtaLearner>,
    buffers: LossBuffers,
    teacher: Option<ChainSampler>,
}

impl Updater {
    /// A fresh run: `policy` from pre-training, a new critic (and η, where it is no constant) from `seed`.
    ///
    /// `action_horizon_len` = Ta · Da; `envs` = E.
    pub fn new(
        config: FinetuneConfig,
        mut policy: Policy,
        critic: Critic,
        action_horizon_len: usize,
        envs: usize,
        seed: u64,
        workers: &Workers,
    ) -> Result<Self, TrainError> {
        config.check()?;
        policy.network = policy.network.on(workers.device());
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
            image_px: network.image_px(),
        };
        let (settings, batch_size) = (&config.actor_critic, config.actor_critic.batch_size);
        let actor_critic = ActorCritic::new(settings, sizes, critic, envs, seed, "teacher_chains", workers)?;
        let min_std = config.loss.min_logprob_denoising_std;
        policy.eta = match config.eta.constant() {
            Some(_) => None,
            None => {
                let noise = &mut Stream::EtaWeights.of(seed);
                Some(EtaModule::new(&config.eta.module, network.state_len(), network.action_dim(), noise))
            }
        };
        let eta = match &policy.eta {
            None => None,
            Some(module) => {
                let Some(likelihood) = EtaLikelihood::new(&policy.denoising, min_std, module) else {
                    let detail = "DDPM has no η: give a constant one, or sample by DDIM".into();
                    return Err(TrainError::Config { key: "eta", detail });
                };
                Some(EtaLearner::new(likelihood, module, config.eta.learning.as_ref()))
            }
        };
        Ok(Self {
            actor_critic,
            horizon_len: action_horizon_len,
            likelihood: Likelihood::new(&policy.denoising, min_std, config.eta.module.base),
            eta,
            buffers: LossBuffers::new(&policy.network, workers, batch_size, steps),
            teacher: config.loss.bc_loss_coeff.map(|_| ChainSampler::new(&policy, workers, batch_size)),
            config,
            policy,
        })
    }

    /// The mode in which rollouts of training are sampled.
    pub fn exploration(&self) -> ChainMode {
        let (start, eta) = (self.config.min_sampling_denoising_std, self.config.eta.module.base);
        let schedule = &self.config.min_sampling_std_schedule;
        let min_std = schedule.map_or(start, |schedule| schedule.value(start, self.iteration()));
        ChainMode { noise: StepNoise::Exploration { min_std, eta }, base_policy: false }
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        self.actor_critic.iteration()
    }

    /// 6. Steps the schedules: once an iteration, evaluations included; the actor's only after critic warm-up.
    ///
    /// K' may fall: the next rollout's chains are shorter then, and the optimiser goes on with the copy.
    pub fn end_iteration(&mut self) {
        self.actor_critic.end_iteration(&self.config.actor_critic);
        let FinetuneConfig { ft_denoising_steps_d: decrement, ft_denoising_steps_t: every, .. } = self.config;
        let now = self.policy.finetuned_steps();
        let steps = finetuned_steps(now, decrement, every, self.iteration());
        if steps < now {
            self.policy.frozen.clone_from(&self.policy.finetuned);
            self.set_finetuned_steps(steps);
        }
    }

    fn set_finetuned_steps(&mut self, steps: usize) {
        let (policy, min_std) = (&mut self.policy, self.config.loss.min_logprob_denoising_std);
        policy.denoising.finetuned_steps = steps;
        self.likelihood = Likelihood::new(&policy.denoising, min_std, self.config.eta.module.base);
        if let (Some(eta), Some(module)) = (&mut self.eta, &policy.eta)
            && let Some(likelihood) = EtaLikelihood::new(&policy.denoising, min_std, module)
        {
            eta.likelihood = likelihood;
        }
    }

    /// 5. One update from a rollout of training.
    ///
    /// On any error the updater stands as before, to the last bit: another rollout may follow. What is not finite is named
    /// with its tensor and, where it can be told, the chunk step and environment.
    pub fn update(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        self.actor_critic.remember(&self.policy.finetuned);
        if let (Some(eta), Some(module)) = (&mut self.eta, &self.policy.eta) {
            eta.remember(module);
        }
        let mut result = self.attempt(workers, rollout);
        let Self { actor_critic, policy, eta, .. } = self;
        if let (Some(eta), Some(module)) = (&*eta, &policy.eta) {
            result = traced(result, eta.check_finite(module));
        }
        let result = actor_critic.settle(result, policy.network.table(), &mut policy.finetuned);
        if let (Err(_), Some(eta), Some(module)) = (&result, eta, &mut policy.eta) {
            eta.undo(module);
        }
        result
    }

    fn attempt(&mut self, workers: &Workers, rollout: &Rollout) -> Result<UpdateStats, TrainError> {
        let chain_len = (self.policy.finetuned_steps() + 1) * self.policy.network.chunk_len();
        let pictures = self.actor_critic.check_and_shift(rollout, chain_len)?;
        let result = self.learn_from(workers, rollout, rollout.observations_with(pictures.as_deref()));
        self.actor_critic.return_pictures(pictures);
        result
    }

    /// The same with what the update sees of the observations before each chunk.
    fn learn_from(
        &mut self,
        workers: &Workers,
        rollout: &Rollout,
        observations: Observations,
    ) -> Result<UpdateStats, TrainError> {
        let settings = self.config.actor_critic;
        let (network, steps) = (&self.policy.network, self.policy.finetuned_steps());

        // a.–c., h. Values under the weights that sampled, running reward scaling, generalised advantages over chunk steps,
        // explained variance; a. log-probabilities under the same weights.
        let estimates = self.actor_critic.estimates(workers, &settings, rollout, observations)?;
        let mut samples = Samples {
            observations,
            chains: &rollout.chains,
            advantages: &estimates.advantages,
            returns: &estimates.returns,
            old_values: &estimates.old_values,
            old_log_probs: &[],
            steps,
            state_len: network.state_len(),
            image_len: network.image_len(),
            chunk_len: network.chunk_len(),
        };
        let old_log_probs = self.log_probs(workers, &samples);
        samples.old_log_probs = &old_log_probs;

        // d. Epochs of minibatches over (sample × denoising step); the remainder is dropped.
        let (mut sums, mut stopped_early) = (Sums::new(steps), false);
        'epochs: for _ in 0..settings.update_epochs {
            let epoch = self.actor_critic.epoch(&settings, rollout.samples(), steps);
            for (last, group) in epoch.groups(settings.grad_accumulate) {
                self.step(workers, &samples, &group, last, &mut sums)?;
                // g. Early stop on the latest minibatch in which the actor moved.
                if sums.approx_kl() > settings.target_kl {
                    stopped_early = true;
                    break 'epochs;
                }
            }
        }
        let mut means = sums.means();
        match (&self.eta, &self.config.eta.learning) {
            (Some(_), Some(learning)) => means.eta_lr = self.actor_critic.rate_beside_actor(&learning.lr),
            (Some(_), None) => {}
            (None, _) => means.eta = Some(self.config.eta.module.base),
        }
        Ok(self.actor_critic.stats(&settings, means, &estimates, stopped_early))
    }

    /// Log-probabilities of all rows under the present weights.
    fn log_probs(&mut self, workers: &Workers, samples: &Samples) -> Vec<f32> {
        let (network, parameters) = (&self.policy.network, &self.policy.finetuned);
        let count = samples.observations.states.len() / samples.state_len;
        let (buffers, h, mut out) = (&mut self.buffers, self.horizon_len, vec![0.0; count * samples.steps]);
        match (&mut self.eta, &self.policy.eta) {
            (Some(eta), Some(module)) => {
                eta.likelihood.set_samples(module, samples, 0..count as u32);
                buffers.mean_log_probs(workers, network, parameters, &eta.likelihood, samples, h, &mut out);
            }
            _ => buffers.mean_log_probs(workers, network, parameters, &self.likelihood, samples, h, &mut out),
        }
        out
    }

    /// e., f. Losses, summed gradients and one step of each optimiser from some minibatches of sorted rows. `last`: the
    /// index in the epoch of the last of them.
    pub(crate) fn step(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        group: &[&[u32]],
        last: usize,
        sums: &mut Sums,
    ) -> Result<(), TrainError> {
        let settings = self.config.actor_critic;
        // All gradients are taken before anything moves.
        let distinct: Vec<_> = group.iter().map(|rows| samples.distinct(rows)).collect();
        let (losses, critic_norm) =
            self.actor_critic.critic_gradient(workers, &settings, &samples.value_targets(), &distinct)?;
        // While the critic warms up the actor stays what it was when it sampled: ρ = 1, nothing to compute.
        if self.actor_critic.actor_moves(&settings) {
            let teachers: Vec<_> = group.iter().map(|rows| self.teacher_chains(workers, samples, rows)).collect();
            let minibatches: Vec<Minibatch> = group
                .iter()
                .zip(&teachers)
                .map(|(rows, teacher)| Minibatch { rows, teacher: teacher.as_deref() })
                .collect();
            let (policy, loss, h) = (&self.policy, &self.config.loss, self.horizon_len);
            let gradient = match (&mut self.eta, &policy.eta) {
                (Some(eta), Some(module)) => {
                    let mut seen: Vec<u32> = distinct.iter().flatten().map(|(sample, _)| *sample).collect();
                    seen.sort_unstable();
                    seen.dedup();
                    eta.likelihood.set_samples(module, samples, seen.into_iter());
                    self.buffers.actor(workers, policy, &eta.likelihood, loss, samples, &minibatches, h)
                }
                _ => self.buffers.actor(workers, policy, &self.likelihood, loss, samples, &minibatches, h),
            };
            let norm = match finite_norm("the actor's gradient", gradient.parameters, policy.network.table()) {
                Ok(norm) if gradient.terms.iter().all(|terms| terms.are_finite()) => norm,
                result => return Err(self.locate(workers, samples, group, result.err())),
            };
            let learning = self.config.eta.learning.as_ref();
            let eta_gradient = match (&self.eta, &policy.eta) {
                (Some(eta), Some(module)) => {
                    Some(eta.gradient(module, learning, loss.ent_coef, samples, &distinct, gradient.etas)?)
                }
                _ => None,
            };
            self.actor_critic.step_actor(&settings, &mut self.policy.finetuned, gradient.parameters);
            sums.add_actor(&gradient.terms, norm);
            if let (Some(eta), Some(module), Some(gradient)) = (&mut self.eta, &mut self.policy.eta, eta_gradient) {
                sums.add_eta(&gradient.means, gradient.norm);
                if let Some(learning) = learning {
                    let rate = self.actor_critic.rate_beside_actor(&learning.lr);
                    eta.step(module, learning, &gradient, rate, last);
                }
            }
        }
        self.actor_critic.step_critic(&settings);
        sums.add_critic(&losses, critic_norm);
        Ok(())
    }

    /// What is not finite, with the first sample of the minibatches that shows it.
    fn locate(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        group: &[&[u32]],
        error: Option<TrainError>,
    ) -> TrainError {
        let error = error.unwrap_or(TrainError::Numerical { what: "the policy loss", place: "a minibatch".into() });
        let (policy, loss, h, buffers) = (&self.policy, &self.config.loss, self.horizon_len, &mut self.buffers);
        let first = group.iter().find_map(|rows| match &self.eta {
            Some(eta) => buffers.first_not_finite(workers, policy, &eta.likelihood, loss, samples, rows, h),
            None => buffers.first_not_finite(workers, policy, &self.likelihood, loss, samples, rows, h),
        });
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

    /// Adds everything that continues this run to a checkpoint, whose policy gets the present K'.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        if let Some(denoising) = &mut checkpoint.header.run.policy.denoising {
            denoising.finetuned_steps = self.policy.finetuned_steps();
        }
        let Policy { network, frozen, finetuned, .. } = &self.policy;
        self.actor_critic.store(checkpoint, ActorWeights { table: network.table(), frozen, finetuned });
        if let (Some(eta), Some(module)) = (&self.eta, &self.policy.eta) {
            eta.store(module, checkpoint);
        }
    }

    /// Restores what [`Updater::store`] stored into an updater of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let Policy { network, frozen, finetuned, eta: module, .. } = &mut self.policy;
        self.actor_critic.restore(checkpoint, ActorWeights { table: network.table(), frozen, finetuned })?;
        if let (Some(eta), Some(module)) = (&mut self.eta, module) {
            eta.restore(module, checkpoint)?;
        }
        let steps = checkpoint.header.run.policy.denoising.as_ref().map_or(0, |denoising| denoising.finetuned_steps);
        if !(1..=self.policy.denoising.executed_steps()).contains(&steps) {
            let detail = format!("{steps} fine-tuned steps of {}", self.policy.denoising.executed_steps());
            return Err(TrainError::Parameter { name: "finetuned_steps".into(), detail });
        }
        self.set_finetuned_steps(steps);
        Ok(())
    }
}
