//! Settings of PPO for Gaussian policies (spec dppo.md §6.4).

use serde::{Deserialize, Serialize};

use super::MixtureDensity;
use crate::actor_critic::{ActorCriticSettings, not_negative, positive};
use crate::error::TrainError;
use crate::rollout::AdvantageSettings;

/// Behaviour of the reference that looks unintended (spec dppo.md §10) and concerns the loss; off by default. The whole list
/// stands in [`crate::dppo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoCompat {
    /// A mixture's log-density and entropy over the whole chunk, not divided by its length, are clamped.
    pub joint_mixture_density: bool,
}

/// The actor's loss of one minibatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoLossConfig {
    /// ε.
    pub clip_ploss_coef: f64,
    /// Whether advantages are normalised within the minibatch.
    pub norm_adv: bool,
    /// Weight of minus the entropy; 0 in all settings of the paper.
    #[serde(default)]
    pub ent_coef: f64,
    /// Weight of the behaviour-cloning loss on the frozen policy's samples; absent = not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_loss_coeff: Option<f64>,
    #[serde(default)]
    pub compat: PpoCompat,
}

impl Default for PpoLossConfig {
    /// Robomimic from states (spec dppo.md §6.4).
    fn default() -> Self {
        Self { clip_ploss_coef: 0.01, norm_adv: true, ent_coef: 0.0, bc_loss_coeff: None, compat: PpoCompat::default() }
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
    /// What DPPO's settings have too; its rows are samples.
    pub actor_critic: ActorCriticSettings,
}

impl Default for PpoConfig {
    /// Lift and Can of Robomimic from states (spec dppo.md §6.4, the last version).
    fn default() -> Self {
        Self {
            loss: PpoLossConfig::default(),
            actor_critic: ActorCriticSettings {
                advantages: AdvantageSettings { gamma: 0.999, ..AdvantageSettings::default() },
                update_epochs: 10,
                batch_size: 7500,
                n_critic_warmup_itr: 2,
                ..ActorCriticSettings::default()
            },
        }
    }
}

impl PpoConfig {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        let l = &self.loss;
        positive(&[("loss.clip_ploss_coef", l.clip_ploss_coef)])?;
        not_negative(&[("loss.ent_coef", l.ent_coef), ("loss.bc_loss_coeff", l.bc_loss_coeff.unwrap_or(0.0))])?;
        self.actor_critic.check()
    }
}
