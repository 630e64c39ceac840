//! `configs/tasks/<task>.toml`: one file a task; `[policy]`, `[pretrain]`, `[finetune]` laid out like the paper's tables.

use serde::{Deserialize, Serialize};

use super::parse::{Check, Problems};
use crate::avoid::{COMMANDED_HEIGHT_M, COMMANDED_QUAT_WXYZ, CONTROL_PERIOD_MS};
use crate::network::NetworkSpec;
use crate::normalizer::Normalizer;
use crate::spec::{ActionField, Denoising, ObservationField, PolicySpec, SPEC_VERSION, Sampler};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    pub task: TaskName,
    pub demos: DemosConfig,
    pub policy: PolicyConfig,
    pub pretrain: PretrainConfig,
    pub finetune: FinetuneConfig,
    pub evaluate: EvaluateConfig,
    pub deploy: DeployConfig,
}

impl TaskConfig {
    /// The policy of this task with the limits of its data. `finetuned_steps`: K', 0 before fine-tuning.
    pub fn policy_spec(&self, normalizer: Normalizer, finetuned_steps: usize) -> PolicySpec {
        PolicySpec {
            spec_version: SPEC_VERSION,
            task: self.task.as_str().to_string(),
            observation: vec![ObservationField::CommandedPosition2, ObservationField::TcpPosition2],
            action: vec![ActionField::PlanarIncrement { z_m: COMMANDED_HEIGHT_M, quat_wxyz: COMMANDED_QUAT_WXYZ }],
            observation_horizon: 1,
            prediction_horizon: self.policy.prediction_horizon,
            action_horizon: self.policy.action_horizon,
            period_s: CONTROL_PERIOD_MS as f64 / 1000.0,
            // The environment hands out the state before the last action of a chunk (spec sim_tasks.md §4, "Lag").
            observation_delay_steps: 1,
            denoising: self.policy.denoising(finetuned_steps),
            normalizer,
        }
    }
}

/// D3IL Avoid with the demonstrations of two modes (spec sim_tasks.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    AvoidM1,
    AvoidM2,
    AvoidM3,
}

impl TaskName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AvoidM1 => "avoid_m1",
            Self::AvoidM2 => "avoid_m2",
            Self::AvoidM3 => "avoid_m3",
        }
    }
}

/// Scripted demonstrations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemosConfig {
    pub seed: u64,
    pub per_mode: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    pub network: NetworkSpec,
    /// Hidden widths of the residual state critic.
    pub critic_mlp_dims: Vec<usize>,
    pub denoising_steps: usize,
    pub finetuned_steps: usize,
    pub sampler: Sampler,
    pub denoised_clip: f32,
    pub noise_clip: f32,
    pub prediction_horizon: usize,
    pub action_horizon: usize,
}

impl PolicyConfig {
    pub fn denoising(&self, finetuned_steps: usize) -> Denoising {
        Denoising {
            denoising_steps: self.denoising_steps,
            finetuned_steps,
            sampler: self.sampler,
            denoised_clip: self.denoised_clip,
            noise_clip: self.noise_clip,
            final_action_clip: None,
        }
    }
}

/// Behaviour cloning (spec dppo.md §7.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    pub seed: u64,
    pub epochs: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub min_learning_rate: f64,
    pub warmup_epochs: usize,
    pub weight_decay: f64,
    pub ema_decay: f64,
    pub ema_start_epoch: usize,
    pub ema_every_batches: usize,
}

/// DPPO (spec dppo.md §2, §6.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    pub seed: u64,
    pub iterations: usize,
    /// E.
    pub environments: usize,
    /// N, chunk steps of each environment in an iteration.
    pub chunk_steps: usize,
    pub update_epochs: usize,
    pub batch_size: usize,
    pub critic_warmup_iterations: usize,
    pub actor_learning_rate: f64,
    pub actor_min_learning_rate: f64,
    pub actor_warmup_iterations: usize,
    pub critic_learning_rate: f64,
    pub vf_coef: f64,
    pub target_kl: f64,
    /// Floor of the sampling noise, σ^exp_min.
    pub min_sampling_std: f64,
    /// Floor of the likelihood's noise, σ^prob_min.
    pub min_logprob_std: f64,
    pub advantage: AdvantageConfig,
    pub clip: ClipConfig,
    /// The run ends once training and evaluation success reach this; absent = all iterations.
    pub stop_at_success: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvantageConfig {
    /// γ per chunk.
    pub gamma: f64,
    pub gae_lambda: f64,
    pub gamma_denoising: f64,
    pub reward_scale_running: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// ε of the cleanest step.
    pub epsilon: f64,
    /// ε of the noisiest fine-tuned step.
    pub epsilon_base: f64,
    pub epsilon_rate: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    pub seed: u64,
    pub episodes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployConfig {
    pub seed: u64,
    pub episodes: usize,
}

impl Check for TaskConfig {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut p = Problems(Vec::new());
        p.at_least_one("demos.per_mode", self.demos.per_mode);
        let policy = &self.policy;
        p.at_least_one("policy.denoising_steps", policy.denoising_steps);
        p.at_least_one("policy.prediction_horizon", policy.prediction_horizon);
        p.at_least_one("policy.action_horizon", policy.action_horizon);
        p.positive("policy.denoised_clip", f64::from(policy.denoised_clip));
        p.positive("policy.noise_clip", f64::from(policy.noise_clip));
        let executed = policy.denoising(0).executed_steps();
        if executed == 0 || executed > policy.denoising_steps {
            p.0.push(("policy.sampler", format!("{executed} steps must be 1 to {}", policy.denoising_steps)));
        }
        if policy.finetuned_steps == 0 || policy.finetuned_steps > executed {
            p.0.push(("policy.finetuned_steps", format!("{} must be 1 to {executed}", policy.finetuned_steps)));
        }
        if policy.action_horizon > policy.prediction_horizon {
            p.0.push(("policy.action_horizon", "must not exceed prediction_horizon".to_string()));
        }
        if policy.critic_mlp_dims.len().is_multiple_of(2) {
            p.0.push(("policy.critic_mlp_dims", "a residual network has an odd number of widths".to_string()));
        }
        let pre = &self.pretrain;
        p.at_least_one("pretrain.epochs", pre.epochs);
        p.at_least_one("pretrain.batch_size", pre.batch_size);
        p.positive("pretrain.learning_rate", pre.learning_rate);
        p.within("pretrain.ema_decay", pre.ema_decay, 0.0, 1.0);
        p.at_least_one("pretrain.ema_every_batches", pre.ema_every_batches);
        if pre.warmup_epochs >= pre.epochs {
            p.0.push(("pretrain.warmup_epochs", "must be below pretrain.epochs".to_string()));
        }
        let fine = &self.finetune;
        p.at_least_one("finetune.environments", fine.environments);
        p.at_least_one("finetune.chunk_steps", fine.chunk_steps);
        p.at_least_one("finetune.update_epochs", fine.update_epochs);
        p.at_least_one("finetune.batch_size", fine.batch_size);
        p.positive("finetune.actor_learning_rate", fine.actor_learning_rate);
        p.positive("finetune.critic_learning_rate", fine.critic_learning_rate);
        p.positive("finetune.min_sampling_std", fine.min_sampling_std);
        p.positive("finetune.min_logprob_std", fine.min_logprob_std);
        p.positive("finetune.target_kl", fine.target_kl);
        p.within("finetune.advantage.gamma", fine.advantage.gamma, 0.0, 1.0);
        p.within("finetune.advantage.gae_lambda", fine.advantage.gae_lambda, 0.0, 1.0);
        p.within("finetune.advantage.gamma_denoising", fine.advantage.gamma_denoising, 0.0, 1.0);
        p.positive("finetune.clip.epsilon", fine.clip.epsilon);
        p.positive("finetune.clip.epsilon_base", fine.clip.epsilon_base);
        if let Some(goal) = fine.stop_at_success {
            p.within("finetune.stop_at_success", goal, 0.0, 1.0);
        }
        p.at_least_one("evaluate.episodes", self.evaluate.episodes);
        p.at_least_one("deploy.episodes", self.deploy.episodes);
        p.0
    }
}
