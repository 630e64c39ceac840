//! What the settings of DPPO and PPO have in common, and the ranges that values must lie in.

use serde::{Deserialize, Serialize};

use super::ValueLoss;
use crate::error::TrainError;
use crate::optimizer::LrSchedule;
use crate::rollout::AdvantageSettings;

/// What one update needs, whatever the policy: a part of the settings of DPPO and of PPO.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorCriticSettings {
    pub advantages: AdvantageSettings,
    pub value_loss: ValueLoss,
    pub update_epochs: usize,
    /// Rows of a minibatch: of DPPO sample × denoising step, of PPO samples.
    pub batch_size: usize,
    /// Draws samples and not rows: all rows of a sample lie in one minibatch, whose size is rounded down to whole samples.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_samples: bool,
    /// Minibatches whose gradients are summed for one step of the optimisers (networks that see pictures).
    #[serde(default = "one")]
    pub grad_accumulate: usize,
    /// Shifts stored pictures at random, once an update (spec dppo.md §3.4).
    #[serde(default)]
    pub augment: bool,
    /// Leaves all epochs once a minibatch's approximate KL exceeds this.
    pub target_kl: f64,
    /// Iterations, evaluations included, before the actor moves.
    pub n_critic_warmup_itr: u64,
    /// Clips the actor's gradient; absent in all settings of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    pub actor_lr: LrSchedule,
    pub actor_weight_decay: f64,
    pub critic_lr: LrSchedule,
    pub critic_weight_decay: f64,
}

fn one() -> usize {
    1
}

impl Default for ActorCriticSettings {
    /// Gym with the MLP (spec dppo.md §6.3, the last version).
    fn default() -> Self {
        Self {
            advantages: AdvantageSettings::default(),
            value_loss: ValueLoss::default(),
            update_epochs: 5,
            batch_size: 50_000,
            whole_samples: false,
            grad_accumulate: 1,
            augment: false,
            target_kl: 1.0,
            n_critic_warmup_itr: 0,
            max_grad_norm: None,
            actor_lr: LrSchedule::constant(1e-4),
            actor_weight_decay: 0.0,
            critic_lr: LrSchedule::constant(1e-3),
            critic_weight_decay: 0.0,
        }
    }
}

impl ActorCriticSettings {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        positive(&[
            ("value_loss.clip_vloss_coef", self.value_loss.clip_vloss_coef.unwrap_or(1.0)),
            ("advantages.reward_scale_const", self.advantages.reward_scale_const),
            ("target_kl", self.target_kl),
            ("max_grad_norm", self.max_grad_norm.unwrap_or(1.0)),
        ])?;
        fractions(&[
            ("advantages.gamma", self.advantages.gamma),
            ("advantages.gae_lambda", self.advantages.gae_lambda),
        ])?;
        at_least_one(&[
            ("update_epochs", self.update_epochs),
            ("batch_size", self.batch_size),
            ("grad_accumulate", self.grad_accumulate),
        ])?;
        not_negative(&[
            ("actor_weight_decay", self.actor_weight_decay),
            ("critic_weight_decay", self.critic_weight_decay),
            ("value_loss.vf_coef", self.value_loss.vf_coef),
        ])?;
        self.actor_lr.check("actor_lr")?;
        self.critic_lr.check("critic_lr")
    }
}

type Keyed<T> = (&'static str, T);

fn all<T: Copy + std::fmt::Display>(
    values: &[Keyed<T>],
    fits: impl Fn(T) -> bool,
    must: &str,
) -> Result<(), TrainError> {
    match values.iter().find(|(_, value)| !fits(*value)) {
        Some((key, value)) => Err(TrainError::Config { key, detail: format!("{value} must {must}") }),
        None => Ok(()),
    }
}

/// Refuses what is not above 0.
pub(crate) fn positive(values: &[Keyed<f64>]) -> Result<(), TrainError> {
    all(values, |v| v.is_finite() && v > 0.0, "be positive")
}

/// Refuses what is below 0.
pub(crate) fn not_negative(values: &[Keyed<f64>]) -> Result<(), TrainError> {
    all(values, |v| v.is_finite() && v >= 0.0, "not be negative")
}

/// Refuses what is not between 0 and 1.
pub(crate) fn fractions(values: &[Keyed<f64>]) -> Result<(), TrainError> {
    all(values, |v| (0.0..=1.0).contains(&v), "lie between 0 and 1")
}

/// Refuses counts of 0.
pub(crate) fn at_least_one(values: &[Keyed<usize>]) -> Result<(), TrainError> {
    all(values, |v| v > 0, "be at least 1")
}
