//! A task's file: what is trained, and how in each stage that the file describes.
//!
//! Values are the authors' last ones. Where the paper's differ they stand under `[paper]`, in the same tables:
//! [`TaskConfig::parse`] lays them over the others when asked for.

use serde::{Deserialize, Serialize};

use super::parse::{Check, ConfigError, Problems, parse};
use super::policy::{PolicyConfig, PolicyModel};
use super::training::{BatchUnit, CompatConfig, EvaluateConfig, FinetuneConfig, PretrainConfig, RandomisationConfig};
use crate::normalizer::Normalizer;
use crate::spec::{PolicySpec, SPEC_VERSION};
use crate::task::{TaskFamily, TaskName};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    pub task: TaskName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demos: Option<DemosConfig>,
    pub policy: PolicyConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneConfig>,
    pub evaluate: EvaluateConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployConfig>,
    /// Of pre-training and of rollouts; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub randomisation: Option<RandomisationConfig>,
    #[serde(default)]
    pub compat: CompatConfig,
    /// Values of the paper where they are others; gone once a file has been parsed.
    #[serde(default, skip_serializing)]
    paper: Option<toml::Table>,
}

/// Demonstrations that the product makes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemosConfig {
    pub seed: u64,
    /// Avoid: scripted episodes of each mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mode: Option<usize>,
    /// Gym: control steps rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Gym: policies that are trained, with seeds one after the other, and share the control steps [default: 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<usize>,
}

/// Episodes on the (simulated) robot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployConfig {
    pub seed: u64,
    pub episodes: usize,
}

/// Which values of a file are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Values {
    /// The authors' last ones, or ours.
    #[default]
    Latest,
    /// The paper's, where the file has them.
    Paper,
}

impl TaskConfig {
    /// Parses and checks a file. `file` is only used in messages.
    pub fn parse(file: &str, text: &str, values: Values) -> Result<Self, ConfigError> {
        let mut config: Self = parse(file, text)?;
        let overlay = config.paper.take();
        if let (Values::Paper, Some(overlay)) = (values, overlay) {
            let fail = |message: String| ConfigError { file: file.to_string(), line: 1, message };
            let mut table: toml::Table = toml::from_str(text).map_err(|e| fail(e.message().to_string()))?;
            table.remove("paper");
            lay_over(&mut table, overlay);
            let text = toml::to_string(&table).map_err(|e| fail(e.to_string()))?;
            let name = format!("{file} with its values of [paper]");
            config = parse(&name, &text)?;
        }
        Ok(config)
    }

    /// The policy of this task with the limits of its data. `finetuned_steps`: K', 0 before fine-tuning.
    pub fn policy_spec(&self, normalizer: Normalizer, finetuned_steps: usize) -> PolicySpec {
        PolicySpec {
            spec_version: SPEC_VERSION,
            task: self.task.as_str().to_string(),
            observation: self.task.observation(),
            action: self.task.action(),
            observation_horizon: 1,
            prediction_horizon: self.policy.prediction_horizon,
            action_horizon: self.policy.action_horizon,
            period_s: self.task.period_s(),
            observation_delay_steps: self.task.observation_delay_steps(),
            denoising: self.policy.denoising(finetuned_steps),
            normalizer,
            pictures: None,
        }
    }

    /// `[pretrain]`, or what to do about a file that has none.
    pub fn pretrain(&self) -> Result<&PretrainConfig, MissingStage> {
        self.pretrain.as_ref().ok_or(MissingStage { table: "pretrain", stage: "pre-training" })
    }

    /// `[finetune]`, or what to do about a file that has none.
    pub fn finetune(&self) -> Result<&FinetuneConfig, MissingStage> {
        self.finetune.as_ref().ok_or(MissingStage { table: "finetune", stage: "fine-tuning" })
    }
}

/// A file that does not describe a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has no [{table}]: give a file that describes {stage}")]
pub struct MissingStage {
    table: &'static str,
    stage: &'static str,
}

/// Puts the values of `overlay` into `table`, table by table.
fn lay_over(table: &mut toml::Table, overlay: toml::Table) {
    for (key, value) in overlay {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(overlay)) => lay_over(inner, overlay),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

impl Check for TaskConfig {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut p = Problems(Vec::new());
        if let Some(demos) = &self.demos {
            let (key, count) = match self.task.family() {
                TaskFamily::Gym => ("demos.frames", demos.frames),
                _ => ("demos.per_mode", demos.per_mode),
            };
            p.at_least_one(key, count.unwrap_or(0));
        }
        self.policy.problems(&mut p, [self.task.observation_dim(), self.task.action_dim()]);
        if let Some(pretrain) = &self.pretrain {
            pretrain.problems(&mut p);
        }
        if let Some(finetune) = &self.finetune {
            finetune.problems(&mut p);
            if finetune.batch_unit != BatchUnit::Row && self.policy.diffusion().is_none() {
                p.add("finetune.batch_unit", "means nothing to a Gaussian policy: leave it out");
            }
            match (&self.policy.model, &finetune.diffusion) {
                (PolicyModel::Diffusion(model), Some(_)) if model.finetuned_steps == 0 => {
                    p.add("policy.model.finetuned_steps", "must be at least 1 for fine-tuning");
                }
                (PolicyModel::Diffusion(_), None) => {
                    p.add("finetune.diffusion", "is missing: a diffusion policy is fine-tuned by DPPO");
                }
                (PolicyModel::Gaussian(_), Some(_)) => {
                    p.add("finetune.diffusion", "means nothing to a Gaussian policy: leave it out");
                }
                (PolicyModel::Diffusion(_), Some(_)) | (PolicyModel::Gaussian(_), None) => {}
            }
        }
        p.at_least_one("evaluate.episodes", self.evaluate.episodes);
        if let Some(deploy) = &self.deploy {
            p.at_least_one("deploy.episodes", deploy.episodes);
        }
        if let Some(Err(e)) = self.randomisation.as_ref().map(|r| r.check(self.task)) {
            p.add(e.key(), e.to_string());
        }
        p.0
    }
}
