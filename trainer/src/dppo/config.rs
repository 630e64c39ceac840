//! Settings of DPPO, laid out like the tables of the paper (spec dppo.md §6.3).

use serde::{Deserialize, Serialize};

use super::{EtaSettings, StdSchedule};
use crate::actor_critic::{ActorCriticSettings, ValueLoss, fractions, not_negative, positive};
use crate::error::TrainError;
use crate::optimizer::LrSchedule;
use crate::rollout::{AdvantageSettings, TimeOut};

/// The loss of one minibatch (spec dppo.md §2.5e).
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
    /// Clips the value's change, as PPO may; absent in all settings of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_vloss_coef: Option<f64>,
    /// Weight of the value loss.
    pub vf_coef: f64,
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
    /// γ per chunk.
    pub gamma: f64,
    pub gae_lambda: f64,
    #[serde(default)]
    pub time_out: TimeOut,
    pub reward_scale_running: bool,
    pub reward_scale_const: f64,
    pub update_epochs: usize,
    /// Rows (sample × denoising step) of a minibatch.
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

fn one() -> usize {
    1
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
            clip_vloss_coef: None,
            vf_coef: 0.5,
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
            gamma: 0.99,
            gae_lambda: 0.95,
            time_out: TimeOut::Bootstrap,
            reward_scale_running: true,
            reward_scale_const: 1.0,
            update_epochs: 5,
            batch_size: 50_000,
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

impl FinetuneConfig {
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

    /// What PPO's settings have too.
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
        not_negative(&[("loss.ent_coef", l.ent_coef)])?;
        self.eta.check()?;
        if let Some(learning) = self.eta.learning
            && common_divisor(learning.update_interval, self.grad_accumulate) > 1
        {
            let detail = format!(
                "{} and grad_accumulate = {} have a common divisor: no optimiser step would fall on a minibatch for η",
                learning.update_interval, self.grad_accumulate
            );
            return Err(TrainError::Config { key: "eta.learning.update_interval", detail });
        }
        self.min_sampling_std_schedule.map_or(Ok(()), |schedule| schedule.check())?;
        self.actor_critic().check()
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
