//! Settings of PPO for Gaussian policies (spec dppo.md §6.4).

use serde::{Deserialize, Serialize};

use super::MixtureDensity;
use crate::actor_critic::{ActorCriticSettings, ValueLoss, not_negative, positive};
use crate::error::TrainError;
use crate::optimizer::LrSchedule;
use crate::rollout::{AdvantageSettings, TimeOut};

/// Behaviour of the reference that looks unintended (spec dppo.md §10); all off by default. What has no switch of its own is
/// listed in [`crate::dppo`]: bounds of the deviation, which a pre-trained file overwrites in the reference, are those of
/// the network's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoCompat {
    /// A mixture's log-density and entropy over the whole chunk, not divided by its length, are clamped.
    pub joint_mixture_density: bool,
}

/// The loss of one minibatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoLossConfig {
    /// ε.
    pub clip_ploss_coef: f64,
    /// Whether advantages are normalised within the minibatch.
    pub norm_adv: bool,
    /// Clips the value's change, as PPO may; absent in all settings of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_vloss_coef: Option<f64>,
    /// Weight of minus the entropy; 0 in all settings of the paper.
    #[serde(default)]
    pub ent_coef: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Weight of the behaviour-cloning loss on the frozen policy's samples; absent = not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_loss_coeff: Option<f64>,
    #[serde(default)]
    pub compat: PpoCompat,
}

impl Default for PpoLossConfig {
    /// Robomimic from states (spec dppo.md §6.4).
    fn default() -> Self {
        Self {
            clip_ploss_coef: 0.01,
            norm_adv: true,
            clip_vloss_coef: None,
            ent_coef: 0.0,
            vf_coef: 0.5,
            bc_loss_coeff: None,
            compat: PpoCompat::default(),
        }
    }
}

impl PpoLossConfig {
    /// How a mixture's density enters.
    pub fn mixture_density(&self) -> MixtureDensity {
        match self.compat.joint_mixture_density {
            true => MixtureDensity::Joint,
            false => MixtureDensity::PerDimension,
        }
    }
}

/// PPO fine-tuning, or training from scratch: what one update needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoConfig {
    pub loss: PpoLossConfig,
    /// γ per chunk.
    pub gamma: f64,
    pub gae_lambda: f64,
    #[serde(default)]
    pub time_out: TimeOut,
    pub reward_scale_running: bool,
    pub reward_scale_const: f64,
    pub update_epochs: usize,
    /// Samples of a minibatch.
    pub batch_size: usize,
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

impl Default for PpoConfig {
    /// Lift and Can of Robomimic from states (spec dppo.md §6.4, the last version).
    fn default() -> Self {
        Self {
            loss: PpoLossConfig::default(),
            gamma: 0.999,
            gae_lambda: 0.95,
            time_out: TimeOut::Bootstrap,
            reward_scale_running: true,
            reward_scale_const: 1.0,
            update_epochs: 10,
            batch_size: 7500,
            grad_accumulate: 1,
            augment: false,
            target_kl: 1.0,
            n_critic_warmup_itr: 2,
            max_grad_norm: None,
            actor_lr: LrSchedule::constant(1e-4),
            actor_weight_decay: 0.0,
            critic_lr: LrSchedule::constant(1e-3),
            critic_weight_decay: 0.0,
        }
    }
}

fn one() -> usize {
    1
}

impl PpoConfig {
    /// The part that makes advantages of rewards.
    pub fn advantages(&self) -> AdvantageSettings {
        AdvantageSettings {
            gamma: self.gamma,
            gae_lambda: self.gae_lambda,
            time_out: self.time_out,
            reward_scale_running: self.reward_scale_running,
            reward_scale_const: self.reward_scale_const,
        }
    }

    /// What DPPO's settings have too.
    pub fn actor_critic(&self) -> ActorCriticSettings {
        ActorCriticSettings {
            advantages: self.advantages(),
            value_loss: ValueLoss { vf_coef: self.loss.vf_coef, clip_vloss_coef: self.loss.clip_vloss_coef },
            bc_loss_coeff: self.loss.bc_loss_coeff,
            update_epochs: self.update_epochs,
            batch_size: self.batch_size,
            grad_accumulate: self.grad_accumulate,
            augment: self.augment,
            target_kl: self.target_kl,
            n_critic_warmup_itr: self.n_critic_warmup_itr,
            max_grad_norm: self.max_grad_norm,
            actor_lr: self.actor_lr,
            actor_weight_decay: self.actor_weight_decay,
            critic_lr: self.critic_lr,
            critic_weight_decay: self.critic_weight_decay,
        }
    }

    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        positive(&[("loss.clip_ploss_coef", self.loss.clip_ploss_coef)])?;
        not_negative(&[("loss.ent_coef", self.loss.ent_coef)])?;
        self.actor_critic().check()
    }
}
