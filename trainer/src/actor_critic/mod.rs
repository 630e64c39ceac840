//! What DPPO and PPO share: critic, optimisers, reward scaling, schedules and random streams of a fine-tuning run.
//!
//! The actor's weights belong to the policy and are handed in; everything else that an update moves is here.

mod epoch;
mod moving;
mod settings;
mod stats;
mod value_loss;

pub use epoch::Epoch;
pub(crate) use moving::traced;
use moving::{Before, Moving};
pub use settings::ActorCriticSettings;
pub(crate) use settings::{at_least_one, fractions, not_negative, positive};
pub use stats::UpdateStats;
pub use value_loss::{CriticLoss, ValueLoss, ValueTargets, WeightedSamples};

use tenon_core::noise::SeededNoise;

use crate::augment::random_shift;
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::{Critic, Observations, ParameterTable};
use crate::optimizer::{AdamW, LrSchedule, finite_norm};
use crate::rollout::{Estimates, RewardScaler, Rollout, RolloutValues, estimate};
use crate::seeds::Stream;
use crate::workers::Workers;

/// Random streams, as checkpoints call them.
const MINIBATCHES: &str = "minibatches";
const AUGMENTATION: &str = "augmentation";

/// Sizes of the policy that learns.
#[derive(Debug, Clone, Copy)]
pub struct ActorSizes {
    pub parameters: usize,
    pub state_len: usize,
    /// 0 for networks that see no pictures.
    pub image_len: usize,
    /// Width and height of a picture.
    pub image_px: usize,
}

/// A policy's weights as checkpoints hold them.
#[derive(Debug)]
pub struct ActorWeights<'a, W> {
    pub table: &'a ParameterTable,
    /// As before the first update.
    pub frozen: W,
    pub finetuned: W,
}

/// Critic, optimisers, statistics and streams of a fine-tuning run.
#[derive(Debug)]
pub struct ActorCritic {
    critic: Critic,
    critic_loss: CriticLoss,
    moving: Moving,
    before: Option<Before>,
    /// Iterations begun so far, evaluations included.
    iteration: u64,
    actor_schedule_steps: u64,
    seed: u64,
    /// 0 for networks that see no pictures.
    image_len: usize,
    /// Channels and width of pictures that are shifted at random; none where they stay as they are.
    shifted: Option<[usize; 2]>,
    /// The last rollout's pictures, shifted.
    pictures: Vec<u8>,
    /// What checkpoints call the number of teacher samples drawn.
    teacher_counter: &'static str,
}

impl ActorCritic {
    /// A fresh run: a new critic from `seed`; `envs` = E. `teacher_counter`: the checkpoint's name for how many samples
    /// of the frozen policy were drawn.
    pub fn new(
        settings: &ActorCriticSettings,
        actor: ActorSizes,
        critic: Critic,
        envs: usize,
        seed: u64,
        teacher_counter: &'static str,
        workers: &Workers,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let critic = critic.on(workers.device());
        if actor.state_len != critic.state_len() {
            let detail = format!("the critic sees {} values, the policy {}", critic.state_len(), actor.state_len);
            return Err(TrainError::Config { key: "critic", detail });
        }
        if ![0, actor.image_len].contains(&critic.image_len()) {
            let detail = "the critic sees pictures that the policy does not".into();
            return Err(TrainError::Config { key: "critic", detail });
        }
        if settings.augment && actor.image_len == 0 {
            let detail = "the policy sees no pictures that could be shifted".into();
            return Err(TrainError::Config { key: "augment", detail });
        }
        let channels = actor.image_len / (actor.image_px * actor.image_px).max(1);
        let moving = Moving {
            critic_parameters: critic.table().initialise(&mut Stream::CriticWeights.of(seed)),
            actor_optimizer: AdamW::new(actor.parameters, settings.actor_weight_decay),
            critic_optimizer: AdamW::new(critic.table().len(), settings.critic_weight_decay),
            reward_scaler: RewardScaler::new(envs),
            minibatch_order: Stream::Minibatches.of(seed),
            augmentation: Stream::Augmentation.of(seed),
            teachers_drawn: 0,
        };
        Ok(Self {
            critic_loss: CriticLoss::new(&critic, workers, settings.batch_size),
            critic,
            moving,
            before: None,
            iteration: 0,
            actor_schedule_steps: 0,
            seed,
            image_len: actor.image_len,
            shifted: settings.augment.then_some([channels, actor.image_px]),
            pictures: Vec::new(),
            teacher_counter,
        })
    }

    /// Iterations begun so far, evaluations included.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// Whether critic warm-up is over.
    pub fn actor_moves(&self, settings: &ActorCriticSettings) -> bool {
        self.iteration >= settings.n_critic_warmup_itr
    }

    /// 6. Steps the schedules: once an iteration, evaluations included; the actor's only after critic warm-up.
    pub fn end_iteration(&mut self, settings: &ActorCriticSettings) {
        self.actor_schedule_steps += u64::from(self.actor_moves(settings));
        self.iteration += 1;
    }

    /// The actor's learning rate now.
    pub fn actor_lr(&self, settings: &ActorCriticSettings) -> f64 {
        self.rate_beside_actor(&settings.actor_lr)
    }

    /// The rate of a schedule that steps with the actor's.
    pub fn rate_beside_actor(&self, schedule: &LrSchedule) -> f64 {
        schedule.rate(self.actor_schedule_steps)
    }

    /// The critic's learning rate now.
    pub fn critic_lr(&self, settings: &ActorCriticSettings) -> f64 {
        settings.critic_lr.rate(self.iteration)
    }

    /// V of `observations`, one value a row; a plain slice of states will do.
    pub fn values<'o>(&mut self, workers: &Workers, observations: impl Into<Observations<'o>>) -> Vec<f64> {
        let observations = observations.into();
        let mut values = vec![0.0; observations.states.len() / self.critic.state_len()];
        if !values.is_empty() {
            self.critic_loss.values(workers, &self.critic, &self.moving.critic_parameters, observations, &mut values);
        }
        values.into_iter().map(f64::from).collect()
    }

    /// An update begins: refuses a rollout that nothing can be learned from, `chain_len` being what the policy keeps of a
    /// chunk, and shifts its pictures.
    ///
    /// Returns the pictures before the chunks, each shifted by an amount of its own: once for the whole update, so that
    /// values, log-probabilities and all epochs see the same. None where they stay as they are. The buffer is the caller's
    /// until [`ActorCritic::return_pictures`].
    pub fn check_and_shift(&mut self, rollout: &Rollout, chain_len: usize) -> Result<Option<Vec<u8>>, TrainError> {
        rollout.check_finite()?;
        // Without its pictures a network would go on with those of the block before.
        rollout.check_images(self.image_len)?;
        rollout.check_chains(chain_len)?;
        Ok(self.shifted_pictures(rollout))
    }

    fn shifted_pictures(&mut self, rollout: &Rollout) -> Option<Vec<u8>> {
        let ([channels, px], images) = (self.shifted?, rollout.images.as_ref()?);
        let mut pictures = std::mem::take(&mut self.pictures);
        pictures.clone_from(&images.before);
        random_shift(&mut pictures, channels, px, self.moving.augmentation.rng());
        Some(pictures)
    }

    /// Takes the buffer of [`ActorCritic::check_and_shift`] back, for the next update.
    pub fn return_pictures(&mut self, pictures: Option<Vec<u8>>) {
        self.pictures = pictures.unwrap_or_default();
    }

    /// 5a.–c., h. Values under the weights that sampled, running reward scaling, generalised advantages over chunk
    /// steps, explained variance. `observations`: before each chunk.
    pub fn estimates(
        &mut self,
        workers: &Workers,
        settings: &ActorCriticSettings,
        rollout: &Rollout,
        observations: Observations,
    ) -> Result<Estimates, TrainError> {
        let values = self.values(workers, observations);
        let last = self.values(workers, rollout.last_observations());
        let finals = self.values(workers, rollout.final_observations(&mut Vec::new()));
        let values = RolloutValues { values: &values, last: &last, finals: &finals };
        estimate(&settings.advantages, &mut self.moving.reward_scaler, rollout, values)
    }

    /// 5d. The next epoch over `samples` samples of `steps` rows each.
    pub fn epoch(&mut self, settings: &ActorCriticSettings, samples: usize, steps: usize) -> Epoch {
        Epoch::draw(settings, samples, steps, &mut self.moving.minibatch_order)
    }

    /// 5e. The critic's loss on each minibatch, and the norm of the gradient of vf_coef times their sum, which stays here
    /// for [`ActorCritic::step_critic`].
    pub fn critic_gradient(
        &mut self,
        workers: &Workers,
        settings: &ActorCriticSettings,
        targets: &ValueTargets,
        minibatches: &[WeightedSamples],
    ) -> Result<(Vec<f64>, f64), TrainError> {
        let (critic, parameters, loss) = (&self.critic, &self.moving.critic_parameters, settings.value_loss);
        let (losses, gradient) = self.critic_loss.gradient(workers, critic, parameters, loss, targets, minibatches);
        match finite_norm("the critic's gradient", gradient, critic.table()) {
            Ok(norm) => Ok((losses, norm)),
            Err(error) => {
                let samples = minibatches.iter().flatten().map(|(sample, _)| *sample);
                let first = self.critic_loss.first_not_finite(workers, critic, parameters, loss, targets, samples);
                Err(self.locate(error, first))
            }
        }
    }

    /// 5f. Moves the critic along the gradient that [`ActorCritic::critic_gradient`] left.
    pub fn step_critic(&mut self, settings: &ActorCriticSettings) {
        let rate = self.critic_lr(settings);
        self.moving.critic_optimizer.step(
            &mut self.moving.critic_parameters,
            self.critic_loss.last_gradient(),
            rate,
            None,
        );
    }

    /// 5f. Moves the actor.
    pub fn step_actor(&mut self, settings: &ActorCriticSettings, finetuned: &mut [f32], gradient: &[f32]) {
        let rate = self.actor_lr(settings);
        self.moving.actor_optimizer.step(finetuned, gradient, rate, settings.max_grad_norm);
    }

    /// What an update did: `means` over its minibatches, beside what it began with.
    pub fn stats(
        &self,
        settings: &ActorCriticSettings,
        means: UpdateStats,
        estimates: &Estimates,
        stopped_early: bool,
    ) -> UpdateStats {
        UpdateStats {
            stopped_early,
            actor_lr: self.actor_lr(settings),
            critic_lr: self.critic_lr(settings),
            reward_scale: estimates.reward_scale,
            explained_variance: estimates.explained_variance,
            ..means
        }
    }

    /// Streams of the next `count` samples of the frozen policy; they are numbered through the whole run, 2³² of them a
    /// seed.
    pub fn teacher_streams(&mut self, count: usize) -> Vec<SeededNoise> {
        let first = self.moving.teachers_drawn;
        self.moving.teachers_drawn += count as u64;
        (first..self.moving.teachers_drawn)
            .map(|number| Stream::Teacher(number as u32).of(self.seed ^ ((number >> 32) << 32)))
            .collect()
    }

    /// Adds everything that continues this run to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint, actor: ActorWeights<&[f32]>) {
        let critic = self.critic.table();
        checkpoint.put_parameters("actor.", actor.table, actor.frozen);
        checkpoint.put_parameters("actor_ft.", actor.table, actor.finetuned);
        checkpoint.put_parameters("critic.", critic, &self.moving.critic_parameters);
        checkpoint.put_optimizer("actor_ft", actor.table, &self.moving.actor_optimizer);
        checkpoint.put_optimizer("critic", critic, &self.moving.critic_optimizer);
        self.moving.reward_scaler.store(checkpoint);
        for (name, value) in [
            ("iteration", self.iteration),
            ("actor_schedule", self.actor_schedule_steps),
            (self.teacher_counter, self.moving.teachers_drawn),
            ("seed", self.seed),
        ] {
            checkpoint.header.counters.insert(name.into(), value);
        }
        checkpoint.header.streams.insert(MINIBATCHES.into(), self.moving.minibatch_order.state());
        if self.shifted.is_some() {
            checkpoint.header.streams.insert(AUGMENTATION.into(), self.moving.augmentation.state());
        }
    }

    /// Restores what [`ActorCritic::store`] stored into a learner of the same configuration.
    pub fn restore(&mut self, checkpoint: &Checkpoint, actor: ActorWeights<&mut Vec<f32>>) -> Result<(), TrainError> {
        let critic = self.critic.table();
        *actor.frozen = checkpoint.parameters("actor.", actor.table)?;
        *actor.finetuned = checkpoint.parameters("actor_ft.", actor.table)?;
        self.moving.critic_parameters = checkpoint.parameters("critic.", critic)?;
        checkpoint.restore_optimizer("actor_ft", actor.table, &mut self.moving.actor_optimizer)?;
        checkpoint.restore_optimizer("critic", critic, &mut self.moving.critic_optimizer)?;
        self.moving.reward_scaler.restore(checkpoint)?;
        self.iteration = checkpoint.counter("iteration")?;
        self.actor_schedule_steps = checkpoint.counter("actor_schedule")?;
        self.moving.teachers_drawn = checkpoint.counter(self.teacher_counter)?;
        self.seed = checkpoint.counter("seed")?;
        self.moving.minibatch_order = SeededNoise::restore(checkpoint.stream(MINIBATCHES)?);
        if self.shifted.is_some() {
            self.moving.augmentation = SeededNoise::restore(checkpoint.stream(AUGMENTATION)?);
        }
        Ok(())
    }
}
