//! `[policy]`: what is trained, whatever the stage.

use serde::{Deserialize, Serialize};

use super::parse::Problems;
use crate::network::{GaussianSpec, NetworkSpec, PolicyNetwork};
use crate::normalizer::Limits;
use crate::spec::{Denoising, Prediction, Sampler};

/// Horizons and the kind of policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Tp.
    pub prediction_horizon: usize,
    /// Ta.
    pub action_horizon: usize,
    /// Clamp of the standard normal draws of sampling (`randn_clip_value`).
    pub noise_clip: f32,
    /// Limits of observations and actions where no data set gives them (training from scratch). They stay what they
    /// are: a policy whose normaliser moves forgets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
    pub model: PolicyModel,
}

/// What −1 and 1 mean to a policy, in physical units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyLimits {
    pub observation: Limits,
    pub action: Limits,
}

/// The kind of policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum PolicyModel {
    /// Trained by denoising, fine-tuned by DPPO.
    Diffusion(DiffusionModel),
    /// A Gaussian or a mixture of them, trained by maximum likelihood, fine-tuned by PPO (spec dppo.md §4).
    Gaussian(GaussianSpec),
}

/// A diffusion policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionModel {
    pub network: NetworkSpec,
    /// K.
    pub denoising_steps: usize,
    /// K'; means nothing to pre-training.
    #[serde(default)]
    pub finetuned_steps: usize,
    pub sampler: Sampler,
    /// Clamp of the predicted x_0.
    pub denoised_clip: f32,
    #[serde(default, skip_serializing_if = "Prediction::is_noise")]
    pub prediction: Prediction,
}

impl PolicyConfig {
    /// How chunks are denoised, with `finetuned_steps` = K'; none for a policy that is no diffusion.
    pub fn denoising(&self, finetuned_steps: usize) -> Option<Denoising> {
        let model = self.diffusion()?;
        Some(Denoising {
            denoising_steps: model.denoising_steps,
            finetuned_steps,
            sampler: model.sampler,
            denoised_clip: model.denoised_clip,
            noise_clip: self.noise_clip,
            final_action_clip: None,
            prediction: model.prediction,
            step_counts: Vec::new(),
        })
    }

    /// The diffusion model, where it is one.
    pub fn diffusion(&self) -> Option<&DiffusionModel> {
        match &self.model {
            PolicyModel::Diffusion(model) => Some(model),
            PolicyModel::Gaussian(_) => None,
        }
    }

    /// K' as configured; 0 where there is no denoising.
    pub fn finetuned_steps(&self) -> usize {
        self.diffusion().map_or(0, |m| m.finetuned_steps)
    }

    pub(super) fn problems(&self, p: &mut Problems, [observation_dim, action_dim]: [usize; 2]) {
        p.at_least_one("policy.prediction_horizon", self.prediction_horizon);
        p.at_least_one("policy.action_horizon", self.action_horizon);
        p.positive("policy.noise_clip", f64::from(self.noise_clip));
        if self.action_horizon > self.prediction_horizon {
            p.add("policy.action_horizon", "must not exceed prediction_horizon");
        }
        if let Some(limits) = &self.limits {
            for (key, limits, dim) in [
                ("policy.limits.observation", &limits.observation, observation_dim),
                ("policy.limits.action", &limits.action, action_dim),
            ] {
                if limits.min.len() != dim || limits.max.len() != dim {
                    p.add(key, format!("{} and {} values, the task has {dim}", limits.min.len(), limits.max.len()));
                } else if let Err(detail) = limits.check() {
                    p.add(key, detail);
                }
            }
        }
        if let PolicyModel::Diffusion(model) = &self.model {
            model.problems(p);
        }
        let network = self.model.network();
        if let Err(detail) = network.check(observation_dim, self.prediction_horizon.max(1), action_dim) {
            p.add("policy.model", detail);
        }
    }
}

impl PolicyModel {
    /// The network alone, as checkpoints describe it.
    pub fn network(&self) -> PolicyNetwork {
        match self {
            Self::Diffusion(model) => PolicyNetwork::Diffusion(model.network.clone()),
            Self::Gaussian(spec) => PolicyNetwork::Gaussian(spec.clone()),
        }
    }
}

impl DiffusionModel {
    fn problems(&self, p: &mut Problems) {
        p.at_least_one("policy.model.denoising_steps", self.denoising_steps);
        p.positive("policy.model.denoised_clip", f64::from(self.denoised_clip));
        let executed = match self.sampler {
            Sampler::Ddpm => self.denoising_steps,
            Sampler::Ddim { steps } => steps,
        };
        if executed == 0 || executed > self.denoising_steps {
            p.add("policy.model.sampler", format!("{executed} steps must be 1 to {}", self.denoising_steps));
        }
        if self.finetuned_steps > executed {
            p.add("policy.model.finetuned_steps", format!("{} must be 1 to {executed}", self.finetuned_steps));
        }
        if self.prediction == Prediction::Sample && matches!(self.sampler, Sampler::Ddim { .. }) {
            p.add("policy.model.prediction", "DDIM needs predicted noise");
        }
    }
}
