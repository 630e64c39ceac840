//! What an update did.

/// What an update did. Losses, ratio, clip fractions, η, entropy and deviation are means over its minibatches, those of the
/// actor over the ones in which it moved; norms are means over its optimiser steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateStats {
    pub policy_loss: f64,
    pub value_loss: f64,
    pub bc_loss: f64,
    /// Of the last minibatch: what the early stop looks at.
    pub approx_kl: f64,
    pub clip_fraction: f64,
    /// For each denoising step j, 0 the noisiest; empty for a Gaussian policy.
    pub clip_fraction_of_step: Vec<f64>,
    pub ratio_mean: f64,
    pub explained_variance: f64,
    /// Of DDIM while training: the constant, or the mean over states and actions. None for a Gaussian policy.
    pub eta: Option<f64>,
    /// Of a Gaussian policy.
    pub entropy: Option<f64>,
    /// Mean deviation of a Gaussian policy.
    pub std: Option<f64>,
    pub actor_gradient_norm: f64,
    pub critic_gradient_norm: f64,
    /// 0 where η is not learned.
    pub eta_gradient_norm: f64,
    pub actor_lr: f64,
    pub critic_lr: f64,
    /// 0 where η is not learned.
    pub eta_lr: f64,
    pub minibatches: usize,
    /// Whether approx_kl exceeded the target and the rest of the epochs was left out.
    pub stopped_early: bool,
    /// Standard deviation that rewards were divided by; 1 without running scaling.
    pub reward_scale: f64,
}
