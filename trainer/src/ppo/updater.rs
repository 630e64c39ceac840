//! One PPO update of actor and critic from a rollout (spec dppo.md §2.5 with constant ε, in that order; §4).

use super::{
    ActorTerms, GaussianPolicy, GaussianSampler, Likelihood, Minibatch, PpoConfig, PpoLoss, Samples, SamplingMode,
    SamplingNoise,
};
use crate::actor_critic::{ActorCritic, ActorSizes, ActorWeights, UpdateStats};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations};
use crate::optimizer::finite_norm;
use crate::rollout::Rollout;
use crate::workers::Workers;

/// Actor, critic, optimisers and statistics of a run.
#[derive(Debug)]
pub struct PpoUpdater {
    pub config: PpoConfig,
    pub policy: GaussianPolicy,
    /// Everything that DPPO has too.
    pub actor_critic: ActorCritic,
    loss: PpoLoss,
    teacher: Option<GaussianSampler>,
}

impl PpoUpdater {
    /// A fresh run: `policy` pre-trained or new, a new critic from `seed`; `envs` = E.
    pub fn new(
        config: PpoConfig,
        mut policy: GaussianPolicy,
        critic: Critic,
        envs: usize,
        seed: u64,
        workers: &Workers,
    ) -> Result<Self, TrainError> {
        config.check()?;
        policy.network = policy.network.on(workers.device());
        let network = &policy.network;
        if !(policy.noise_clip.is_finite() && policy.noise_clip > 0.0) {
            let detail = format!("{} must be positive", policy.noise_clip);
            return Err(TrainError::Config { key: "noise_clip", detail });
        }
        let sizes = ActorSizes {
            parameters: network.table().len(),
            state_len: network.state_len(),
            image_len: network.image_len(),
            image_px: network.image_px(),
        };
        let (settings, batch_size) = (&config.actor_critic, config.actor_critic.batch_size);
        Ok(Self {
            actor_critic: ActorCritic::new(settings, sizes, critic, envs, seed, "teacher_chunks", workers)?,
            loss: PpoLoss::new(network, workers, batch_size),
            teacher: config.loss.bc_loss_coeff.map(|_| GaussianSampler::new(&policy, workers, batch_size)),
            config,
            policy,
        })
    }

    /// The mode in which rollouts of training are sampled.
    pub fn exploration(&self) -> SamplingMode {
        SamplingMode { noise: SamplingNoise::Exploration, base_policy: false }
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        self.actor_critic.iteration()
    }

    /// 6. Steps the schedules: once an iteration, evaluations included; the actor's only after critic warm-up.
    pub fn end_iteration(&mut self) {
        self.actor_critic.end_iteration(&self.config.actor_critic);
    }

    /// 5. One update from a rollout of training, whose "chains" are the sampled chunks alone.
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
        let pictures = self.actor_critic.check_and_shift(rollout, self.policy.network.chunk_len())?;
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
        let (network, parameters, n) = (&self.policy.network, &self.policy.finetuned, rollout.samples());

        // a.–c., h. Values under the weights that sampled, running reward scaling, generalised advantages over chunk steps,
        // explained variance; a. log-probabilities under the same weights.
        let estimates = self.actor_critic.estimates(workers, &settings, rollout, observations)?;
        let mut samples = Samples {
            observations,
            chunks: &rollout.chains,
            advantages: &estimates.advantages,
            returns: &estimates.returns,
            old_values: &estimates.old_values,
            old_log_probs: &[],
            state_len: network.state_len(),
            image_len: network.image_len(),
            chunk_len: network.chunk_len(),
        };
        let mut old_log_probs = vec![0.0; n];
        let likelihood = Likelihood { mixture: self.config.loss.mixture_density() };
        self.loss.log_probs(workers, network, parameters, likelihood, &samples, &mut old_log_probs);
        old_log_probs.iter_mut().for_each(|p| *p = Likelihood::clamp(f64::from(*p)).0);
        samples.old_log_probs = &old_log_probs;

        // d. Epochs of minibatches over samples; the remainder is dropped.
        let (mut sums, mut stopped_early) = (Sums::default(), false);
        'epochs: for _ in 0..settings.update_epochs {
            let epoch = self.actor_critic.epoch(&settings, n, 1);
            for (_, group) in epoch.groups(settings.grad_accumulate) {
                self.step(workers, &samples, &group, &mut sums)?;
                // g. Early stop on the latest minibatch in which the actor moved.
                if sums.approx_kl > settings.target_kl {
                    stopped_early = true;
                    break 'epochs;
                }
            }
        }
        Ok(self.actor_critic.stats(&settings, sums.means(), &estimates, stopped_early))
    }

    /// e., f. Losses, summed gradients and one optimiser step of some minibatches.
    fn step(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        group: &[&[u32]],
        sums: &mut Sums,
    ) -> Result<(), TrainError> {
        let settings = self.config.actor_critic;
        // Both gradients are taken before either network moves.
        let weighted: Vec<_> = group.iter().map(|rows| rows.iter().map(|&r| (r, 1.0)).collect()).collect();
        let (losses, critic_norm) =
            self.actor_critic.critic_gradient(workers, &settings, &samples.value_targets(), &weighted)?;
        // While the critic warms up the actor stays what it was when it sampled: ρ = 1, nothing to compute.
        if self.actor_critic.actor_moves(&settings) {
            let teachers: Vec<_> = group.iter().map(|rows| self.teacher_chunks(workers, samples, rows)).collect();
            let minibatches: Vec<Minibatch> = group
                .iter()
                .zip(&teachers)
                .map(|(samples, teacher)| Minibatch { samples, teacher: teacher.as_deref() })
                .collect();
            let (terms, gradient) = self.loss.actor(workers, &self.policy, &self.config.loss, samples, &minibatches);
            let norm = match finite_norm("the actor's gradient", gradient, self.policy.network.table()) {
                Ok(norm) if terms.iter().all(ActorTerms::are_finite) => norm,
                result => return Err(self.locate(workers, samples, &minibatches, result.err())),
            };
            self.actor_critic.step_actor(&settings, &mut self.policy.finetuned, gradient);
            sums.actor_steps += 1;
            sums.actor_norm += norm;
            sums.approx_kl = terms.last().map_or(0.0, |t| t.approx_kl);
            terms.iter().for_each(|t| sums.terms.add(t));
            sums.actor_minibatches += terms.len();
        }
        self.actor_critic.step_critic(&settings);
        sums.steps += 1;
        sums.minibatches += losses.len();
        sums.value_loss += losses.iter().sum::<f64>();
        sums.critic_norm += critic_norm;
        Ok(())
    }

    /// What is not finite, with the first sample of the minibatches that shows it.
    fn locate(
        &mut self,
        workers: &Workers,
        samples: &Samples,
        minibatches: &[Minibatch],
        error: Option<TrainError>,
    ) -> TrainError {
        let error = error.unwrap_or(TrainError::Numerical { what: "the policy loss", place: "a minibatch".into() });
        let first = self.loss.first_not_finite(workers, &self.policy, &self.config.loss, samples, minibatches);
        self.actor_critic.locate(error, first)
    }

    /// Chunks of the frozen policy from the minibatch's observations, where the loss asks for them.
    fn teacher_chunks(&mut self, workers: &Workers, samples: &Samples, rows: &[u32]) -> Option<Vec<f32>> {
        let teacher = self.teacher.as_mut()?;
        let states: Vec<f32> = rows.iter().flat_map(|&r| samples.row(r as usize).state.iter().copied()).collect();
        let images: Option<Vec<&[u8]>> = rows.iter().map(|&r| samples.row(r as usize).images).collect();
        let images = images.map(|images| images.concat());
        let mut noise = self.actor_critic.teacher_streams(rows.len());
        let mut chunks = vec![0.0; rows.len() * samples.chunk_len];
        let mode = SamplingMode { noise: SamplingNoise::Exploration, base_policy: true };
        let observations = Observations { states: &states, images: images.as_deref() };
        teacher.sample(workers, &self.policy, mode, observations, &mut noise, &mut chunks);
        Some(chunks)
    }

    /// V of `observations`, one value a row; a plain slice of states will do.
    pub fn values<'o>(&mut self, workers: &Workers, observations: impl Into<Observations<'o>>) -> Vec<f64> {
        self.actor_critic.values(workers, observations)
    }

    /// Adds everything that continues this run to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        let GaussianPolicy { network, frozen, finetuned, .. } = &self.policy;
        self.actor_critic.store(checkpoint, ActorWeights { table: network.table(), frozen, finetuned });
    }

    /// Restores what [`PpoUpdater::store`] stored into an updater of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let GaussianPolicy { network, frozen, finetuned, .. } = &mut self.policy;
        self.actor_critic.restore(checkpoint, ActorWeights { table: network.table(), frozen, finetuned })
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
    fn means(mut self) -> UpdateStats {
        self.terms.divide(self.actor_minibatches.max(1) as f64);
        let ActorTerms { policy_loss, approx_kl: _, clip_fraction, ratio_mean, entropy, std, bc_loss } = self.terms;
        UpdateStats {
            policy_loss,
            value_loss: self.value_loss / self.minibatches.max(1) as f64,
            bc_loss,
            approx_kl: self.approx_kl,
            clip_fraction,
            ratio_mean,
            entropy: Some(entropy),
            std: Some(std),
            actor_gradient_norm: self.actor_norm / self.actor_steps.max(1) as f64,
            critic_gradient_norm: self.critic_norm / self.steps.max(1) as f64,
            minibatches: self.minibatches,
            ..UpdateStats::default()
        }
    }
}
