//! What the settings of DPPO and PPO have in common, and the ranges that values must lie in.

use super::ValueLoss;
use crate::error::TrainError;
use crate::optimizer::LrSchedule;
use crate::rollout::AdvantageSettings;

/// The common part of a `FinetuneConfig` and a `PpoConfig`, each of which lays it out with its own keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActorCriticSettings {
    pub advantages: AdvantageSettings,
    pub value_loss: ValueLoss,
    pub bc_loss_coeff: Option<f64>,
    pub update_epochs: usize,
    pub batch_size: usize,
    pub grad_accumulate: usize,
    pub augment: bool,
    pub target_kl: f64,
    pub n_critic_warmup_itr: u64,
    pub max_grad_norm: Option<f64>,
    pub actor_lr: LrSchedule,
    pub actor_weight_decay: f64,
    pub critic_lr: LrSchedule,
    pub critic_weight_decay: f64,
}

impl ActorCriticSettings {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        positive(&[
            ("loss.clip_vloss_coef", self.value_loss.clip_vloss_coef.unwrap_or(1.0)),
            ("reward_scale_const", self.advantages.reward_scale_const),
            ("target_kl", self.target_kl),
            ("max_grad_norm", self.max_grad_norm.unwrap_or(1.0)),
        ])?;
        fractions(&[("gamma", self.advantages.gamma), ("gae_lambda", self.advantages.gae_lambda)])?;
        at_least_one(&[
            ("update_epochs", self.update_epochs),
            ("batch_size", self.batch_size),
            ("grad_accumulate", self.grad_accumulate),
        ])?;
        not_negative(&[
            ("actor_weight_decay", self.actor_weight_decay),
            ("critic_weight_decay", self.critic_weight_decay),
            ("loss.vf_coef", self.value_loss.vf_coef),
            ("loss.bc_loss_coeff", self.bc_loss_coeff.unwrap_or(0.0)),
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
