//! From a task's configuration to what the numeric library wants.

use tenon_core::config::{BatchUnit, FinetuneConfig as Config, TaskConfig};
use tenon_core::spec::Prediction;

use crate::actor_critic::{ActorCriticSettings, ValueLoss};
use crate::dppo::{EtaLearning, EtaSettings, FinetuneConfig, LossConfig, StdSchedule};
use crate::error::TrainError;
use crate::optimizer::LrSchedule;
use crate::ppo::{PpoCompat, PpoConfig, PpoLossConfig};
use crate::pretrain::PretrainConfig;
use crate::randomisation::of_cloning;
use crate::rollout::AdvantageSettings;

/// Settings of behaviour cloning.
pub fn pretrain_config(config: &TaskConfig) -> Result<PretrainConfig, TrainError> {
    let c = config.pretrain()?;
    Ok(PretrainConfig {
        epochs: c.epochs as u64,
        batch_size: c.batch_size,
        lr: LrSchedule {
            max_lr: c.learning_rate,
            min_lr: c.min_learning_rate,
            warmup_steps: c.warmup_epochs as u64,
            first_cycle_steps: c.cycle_epochs.unwrap_or(c.epochs) as u64,
        },
        weight_decay: c.weight_decay,
        ema_decay: c.ema_decay,
        update_ema_freq: c.ema_every_batches as u64,
        epoch_start_ema: c.ema_start_epoch as u64,
        max_episodes: c.max_episodes,
        prediction: config.policy.diffusion().map_or(Prediction::Noise, |m| m.prediction),
        ent_coef: 0.0,
        augment: c.augment,
        randomisation: of_cloning(config)?,
    })
}

/// Settings of DPPO.
pub fn dppo_config(config: &TaskConfig) -> Result<FinetuneConfig, TrainError> {
    let c = config.finetune()?;
    let Some(d) = &c.diffusion else {
        let detail = "the configuration has none: a diffusion policy is fine-tuned by DPPO".into();
        return Err(TrainError::Config { key: "finetune.diffusion", detail });
    };
    Ok(FinetuneConfig {
        loss: LossConfig {
            gamma_denoising: d.gamma_denoising,
            clip_ploss_coef: c.clip_epsilon,
            clip_ploss_coef_base: d.clip_epsilon_base,
            clip_ploss_coef_rate: d.clip_epsilon_rate,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            ent_coef: c.ent_coef,
            bc_loss_coeff: c.bc_loss_coeff,
            min_logprob_denoising_std: d.min_logprob_std,
        },
        min_sampling_denoising_std: d.min_sampling_std,
        min_sampling_std_schedule: d.min_sampling_std_schedule.map(|s| StdSchedule {
            end: s.end,
            iterations: s.iterations as u64,
            shape: s.shape,
        }),
        ft_denoising_steps_d: d.annealing.map_or(0, |a| a.decrement),
        ft_denoising_steps_t: d.annealing.map_or(0, |a| a.every_iterations as u64),
        eta: d.eta.as_ref().map_or_else(EtaSettings::default, |eta| EtaSettings {
            module: eta.module.clone(),
            learning: Some(EtaLearning {
                lr: LrSchedule::constant(eta.learning_rate),
                weight_decay: eta.weight_decay,
                update_interval: eta.update_interval,
            }),
        }),
        actor_critic: actor_critic(config, c),
    })
}

/// Settings of PPO.
pub fn ppo_config(config: &TaskConfig) -> Result<PpoConfig, TrainError> {
    let c = config.finetune()?;
    Ok(PpoConfig {
        loss: PpoLossConfig {
            clip_ploss_coef: c.clip_epsilon,
            norm_adv: true,
            ent_coef: c.ent_coef,
            bc_loss_coeff: c.bc_loss_coeff,
            compat: PpoCompat { joint_mixture_density: config.compat.joint_mixture_density },
        },
        actor_critic: actor_critic(config, c),
    })
}

/// What both have.
fn actor_critic(config: &TaskConfig, c: &Config) -> ActorCriticSettings {
    ActorCriticSettings {
        advantages: AdvantageSettings {
            gamma: c.advantage.gamma,
            gae_lambda: c.advantage.gae_lambda,
            time_out: c.advantage.time_out,
            reward_scale_running: c.advantage.reward_scale_running,
            reward_scale_const: 1.0,
        },
        value_loss: ValueLoss { vf_coef: c.vf_coef, clip_vloss_coef: None },
        update_epochs: c.update_epochs,
        batch_size: c.batch_rows(config.policy.finetuned_steps()),
        whole_samples: c.batch_unit == BatchUnit::WholeChain,
        grad_accumulate: c.grad_accumulate,
        augment: c.augment,
        target_kl: c.target_kl,
        n_critic_warmup_itr: c.critic_warmup_iterations as u64,
        max_grad_norm: c.max_grad_norm,
        actor_lr: actor_schedule(c),
        actor_weight_decay: 0.0,
        critic_lr: LrSchedule::constant(c.critic_learning_rate),
        critic_weight_decay: 0.0,
    }
}

fn actor_schedule(c: &Config) -> LrSchedule {
    LrSchedule {
        max_lr: c.actor_learning_rate,
        min_lr: c.actor_min_learning_rate,
        warmup_steps: c.actor_warmup_iterations as u64,
        // A cycle must be longer than its warm-up, however few iterations are asked for.
        first_cycle_steps: c.actor_cycle_iterations.unwrap_or(c.iterations).max(c.actor_warmup_iterations + 1) as u64,
    }
}
