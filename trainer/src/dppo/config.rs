//! Settings of DPPO, laid out like the tables of the paper (spec dppo.md §6.3).

use serde::{Deserialize, Serialize};

use super::{EtaSettings, StdSchedule};
use crate::actor_critic::{ActorCriticSettings, fractions, not_negative, positive};
use crate::error::TrainError;

/// The actor's loss of one minibatch (spec dppo.md §2.5e).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// γ_denoise: weight γ^(K'−1−j) of denoising step j.
    pub gamma_denoising: f64,
    /// ε of the cleanest step.
    pub clip_ploss_coef: f64,
    /// ε of the noisiest step.
    pub clip_ploss_coef_base: f64,
    /// c: how ε grows from one to the other.
    pub clip_ploss_coef_rate: f64,
    /// Whether advantages are normalised within the minibatch.
    pub norm_adv: bool,
    pub clip_advantage_lower_quantile: f64,
    pub clip_advantage_upper_quantile: f64,
    /// Weight of minus the mean η, where it is learned; 0 in all settings of the paper.
    #[serde(default)]
    pub ent_coef: f64,
    /// Weight of the behaviour-cloning loss on the frozen policy's samples; absent = not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_loss_coeff: Option<f64>,
    /// σ^prob_min: floor of the standard deviation in log-probabilities.
    pub min_logprob_denoising_std: f64,
}

/// DPPO fine-tuning: what one update needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    pub loss: LossConfig,
    /// σ^exp_min: floor of the standard deviation in rollouts; where it has a schedule, at the beginning.
    pub min_sampling_denoising_std: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sampling_std_schedule: Option<StdSchedule>,
    /// K' falls by this many steps, down to 1, …
    #[serde(default)]
    pub ft_denoising_steps_d: usize,
    /// … every so many iterations, evaluations included; either 0: it stays. The frozen network then becomes what the
    /// fine-tuned one is at that time.
    #[serde(default)]
    pub ft_denoising_steps_t: u64,
    /// η of DDIM in rollouts and log-probabilities; DDPM takes no notice.
    #[serde(default)]
    pub eta: EtaSettings,
    /// What PPO's settings have too; its rows are sample × denoising step.
    pub actor_critic: ActorCriticSettings,
}

impl Default for LossConfig {
    /// Gym with the MLP (spec dppo.md §6.3).
    fn default() -> Self {
        Self {
            gamma_denoising: 0.99,
            clip_ploss_coef: 0.01,
            clip_ploss_coef_base: 0.01,
            clip_ploss_coef_rate: 3.0,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            ent_coef: 0.0,
            bc_loss_coeff: None,
            min_logprob_denoising_std: 0.1,
        }
    }
}

impl Default for FinetuneConfig {
    /// Gym with the MLP (spec dppo.md §6.3, the last version).
    fn default() -> Self {
        Self {
            loss: LossConfig::default(),
            min_sampling_denoising_std: 0.1,
            min_sampling_std_schedule: None,
            ft_denoising_steps_d: 0,
            ft_denoising_steps_t: 0,
            eta: EtaSettings::default(),
            actor_critic: ActorCriticSettings::default(),
        }
    }
}

impl FinetuneConfig {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        let l = &self.loss;
        positive(&[
            ("loss.clip_ploss_coef", l.clip_ploss_coef),
            ("loss.clip_ploss_coef_base", l.clip_ploss_coef_base),
            ("loss.clip_ploss_coef_rate", l.clip_ploss_coef_rate),
            ("loss.min_logprob_denoising_std", l.min_logprob_denoising_std),
            ("min_sampling_denoising_std", self.min_sampling_denoising_std),
        ])?;
        fractions(&[
            ("loss.gamma_denoising", l.gamma_denoising),
            ("loss.clip_advantage_lower_quantile", l.clip_advantage_lower_quantile),
            ("loss.clip_advantage_upper_quantile", l.clip_advantage_upper_quantile),
        ])?;
        not_negative(&[("loss.ent_coef", l.ent_coef), ("loss.bc_loss_coeff", l.bc_loss_coeff.unwrap_or(0.0))])?;
        self.eta.check()?;
        let grad_accumulate = self.actor_critic.grad_accumulate;
        if let Some(learning) = self.eta.learning
            && common_divisor(learning.update_interval, grad_accumulate) > 1
        {
            let detail = format!(
                "{} and grad_accumulate = {grad_accumulate} have a common divisor: no optimiser step would fall on a \
                 minibatch for η",
                learning.update_interval
            );
            return Err(TrainError::Config { key: "eta.learning.update_interval", detail });
        }
        self.min_sampling_std_schedule.map_or(Ok(()), |schedule| schedule.check())?;
        self.actor_critic.check()
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
