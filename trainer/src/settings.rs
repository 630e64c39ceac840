//! From a task's configuration to what the numeric library and the policy need.

use tenon_core::config::TaskConfig;
use tenon_core::network::{Activation, CriticSpec};

use crate::dppo::{FinetuneConfig, LossConfig, TimeOut};
use crate::optimizer::LrSchedule;
use crate::pretrain::{Prediction, PretrainConfig};

/// V(s) of the task (spec dppo.md §3.5).
pub fn critic_spec(config: &TaskConfig) -> CriticSpec {
    CriticSpec::state(&config.policy.critic_mlp_dims, Activation::Mish)
}

/// Settings of behaviour cloning.
pub fn pretrain_config(config: &TaskConfig) -> PretrainConfig {
    let c = &config.pretrain;
    PretrainConfig {
        epochs: c.epochs as u64,
        batch_size: c.batch_size,
        lr: LrSchedule {
            max_lr: c.learning_rate,
            min_lr: c.min_learning_rate,
            warmup_steps: c.warmup_epochs as u64,
            first_cycle_steps: c.epochs as u64,
        },
        weight_decay: c.weight_decay,
        ema_decay: c.ema_decay,
        update_ema_freq: c.ema_every_batches as u64,
        epoch_start_ema: c.ema_start_epoch as u64,
        max_episodes: None,
        prediction: Prediction::Noise,
    }
}

/// Settings of DPPO.
pub fn finetune_config(config: &TaskConfig) -> FinetuneConfig {
    let c = &config.finetune;
    FinetuneConfig {
        loss: LossConfig {
            gamma_denoising: c.advantage.gamma_denoising,
            clip_ploss_coef: c.clip.epsilon,
            clip_ploss_coef_base: c.clip.epsilon_base,
            clip_ploss_coef_rate: c.clip.epsilon_rate,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            clip_vloss_coef: None,
            vf_coef: c.vf_coef,
            bc_loss_coeff: None,
            min_logprob_denoising_std: c.min_logprob_std,
        },
        min_sampling_denoising_std: c.min_sampling_std,
        eta: 1.0,
        gamma: c.advantage.gamma,
        gae_lambda: c.advantage.gae_lambda,
        // Avoid counts what happens within its 100 steps. A bootstrap beyond them comes from states that no data ever
        // follow, and one run's critic ran away on it (docs/results.md).
        time_out: TimeOut::Terminal,
        reward_scale_running: c.advantage.reward_scale_running,
        reward_scale_const: 1.0,
        update_epochs: c.update_epochs,
        batch_size: c.batch_size,
        target_kl: c.target_kl,
        n_critic_warmup_itr: c.critic_warmup_iterations as u64,
        max_grad_norm: None,
        actor_lr: LrSchedule {
            max_lr: c.actor_learning_rate,
            min_lr: c.actor_min_learning_rate,
            warmup_steps: c.actor_warmup_iterations as u64,
            // A cycle must be longer than its warm-up, however few iterations are asked for.
            first_cycle_steps: c.iterations.max(c.actor_warmup_iterations + 1) as u64,
        },
        actor_weight_decay: 0.0,
        critic_lr: LrSchedule::constant(c.critic_learning_rate),
        critic_weight_decay: 0.0,
    }
}
