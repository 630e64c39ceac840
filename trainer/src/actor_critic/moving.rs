//! What an update moves, and how it is set back.

use tenon_core::noise::SeededNoise;

use super::ActorCritic;
use crate::error::TrainError;
use crate::network::{Critic, ParameterTable};
use crate::optimizer::{AdamW, check_finite_values};
use crate::rollout::{self, RewardScaler};

/// All that an update moves but for the weights that belong to the policy.
#[derive(Debug)]
pub(super) struct Moving {
    pub critic_parameters: Vec<f32>,
    pub actor_optimizer: AdamW,
    pub critic_optimizer: AdamW,
    pub reward_scaler: RewardScaler,
    pub minibatch_order: SeededNoise,
    /// Shifts of pictures.
    pub augmentation: SeededNoise,
    pub teachers_drawn: u64,
}

/// How everything stood when the update began. Allocated by the first update, reused by the others.
#[derive(Debug)]
pub(super) struct Before {
    finetuned: Vec<f32>,
    moving: Moving,
}

impl Moving {
    fn copy_from(&mut self, other: &Self) {
        // Taken apart, so that whatever is added is not forgotten here.
        let Self {
            critic_parameters,
            actor_optimizer,
            critic_optimizer,
            reward_scaler,
            minibatch_order,
            augmentation,
            teachers_drawn,
        } = other;
        self.critic_parameters.clone_from(critic_parameters);
        self.actor_optimizer.copy_from(actor_optimizer);
        self.critic_optimizer.copy_from(critic_optimizer);
        self.reward_scaler.copy_from(reward_scaler);
        self.minibatch_order = minibatch_order.clone();
        self.augmentation = augmentation.clone();
        self.teachers_drawn = *teachers_drawn;
    }

    fn copy(&self) -> Self {
        Self {
            critic_parameters: self.critic_parameters.clone(),
            actor_optimizer: self.actor_optimizer.clone(),
            critic_optimizer: self.critic_optimizer.clone(),
            reward_scaler: self.reward_scaler.clone(),
            minibatch_order: self.minibatch_order.clone(),
            augmentation: self.augmentation.clone(),
            teachers_drawn: self.teachers_drawn,
        }
    }
}

impl ActorCritic {
    /// An update begins: keeps a copy of everything that it moves. `finetuned`: the actor's weights.
    pub fn remember(&mut self, finetuned: &[f32]) {
        match &mut self.before {
            Some(before) => {
                before.finetuned.copy_from_slice(finetuned);
                before.moving.copy_from(&self.moving);
            }
            None => self.before = Some(Before { finetuned: finetuned.to_vec(), moving: self.moving.copy() }),
        }
    }

    /// The update ended: where it failed, or left anything that is not finite, all that it moved is set back to the last
    /// [`ActorCritic::remember`] and the cause is named.
    pub fn settle<T>(
        &mut self,
        result: Result<T, TrainError>,
        table: &ParameterTable,
        finetuned: &mut [f32],
    ) -> Result<T, TrainError> {
        let result = traced(result, self.check_finite(table, finetuned));
        if let (Err(_), Some(before)) = (&result, &self.before) {
            finetuned.copy_from_slice(&before.finetuned);
            self.moving.copy_from(&before.moving);
        }
        result
    }

    /// Says which weight, or which moment of an optimiser, is not finite.
    fn check_finite(&self, table: &ParameterTable, finetuned: &[f32]) -> Result<(), TrainError> {
        let Moving { critic_parameters, actor_optimizer, critic_optimizer, .. } = &self.moving;
        let critic = self.critic.table();
        check_finite_values("the actor's weight", finetuned, table)?;
        check_finite_values("the critic's weight", critic_parameters, critic)?;
        actor_optimizer.check_finite("the moment of the actor's gradient", table)?;
        critic_optimizer.check_finite("the moment of the critic's gradient", critic)
    }

    /// A numerical error with the sample that it first shows in.
    pub fn locate(&self, error: TrainError, sample: Option<usize>) -> TrainError {
        match (error, sample) {
            (TrainError::Numerical { what, place }, Some(sample)) => {
                let first = rollout::place(sample, self.moving.reward_scaler.discounted.len());
                TrainError::Numerical { what, place: format!("{place}, first at {first}") }
            }
            (error, _) => error,
        }
    }

    /// V(s).
    pub fn critic(&self) -> &Critic {
        &self.critic
    }

    /// Its weights.
    pub fn critic_parameters(&self) -> &[f32] {
        &self.moving.critic_parameters
    }
}

/// A result traced back to its cause: weights that are not finite spoil all that is computed with them, so `weights`, what
/// a check of them said, comes before other numerical errors.
pub(crate) fn traced<T>(result: Result<T, TrainError>, weights: Result<(), TrainError>) -> Result<T, TrainError> {
    match (result, weights) {
        (Ok(_) | Err(TrainError::Numerical { .. }), Err(cause)) => Err(cause),
        (result, _) => result,
    }
}
