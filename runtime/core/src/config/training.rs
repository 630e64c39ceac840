//! `[pretrain]`, `[finetune]`, `[evaluate]`, `[randomisation]`, `[compat]`: laid out like the tables of spec dppo.md §6.

use serde::{Deserialize, Serialize};

use super::parse::Problems;
use crate::network::{CriticSpec, EtaSpec};
use crate::randomisation::DEFAULT_BIAS_SHARE;

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
    /// Epochs of a cycle of the learning rate; absent = all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_epochs: Option<usize>,
    pub weight_decay: f64,
    pub ema_decay: f64,
    pub ema_start_epoch: usize,
    pub ema_every_batches: usize,
    /// Uses the first episodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_episodes: Option<usize>,
    /// Shifts pictures at random (spec dppo.md §3.4); for networks that see.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub augment: bool,
}

/// DPPO, or PPO for a Gaussian policy (spec dppo.md §2, §6.3, §6.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    pub seed: u64,
    pub iterations: usize,
    /// E.
    pub environments: usize,
    /// N, chunk steps of each environment in an iteration.
    pub chunk_steps: usize,
    /// Whether every iteration begins with new episodes; otherwise episodes run on from one to the next.
    pub reset_every_iteration: bool,
    /// Of so many iterations the first evaluates instead of training (`val_freq`); 0: all train.
    pub evaluate_every: usize,
    pub update_epochs: usize,
    /// Size of a minibatch, in units of `batch_unit`; of a Gaussian policy in samples.
    pub batch_size: usize,
    /// What `batch_size` counts with a diffusion policy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub batch_unit: BatchUnit,
    /// Minibatches whose gradients are summed for one step of the optimisers.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub grad_accumulate: usize,
    /// Shifts stored pictures at random (spec dppo.md §3.4); for networks that see.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub augment: bool,
    pub critic: CriticSpec,
    pub critic_warmup_iterations: usize,
    pub actor_learning_rate: f64,
    pub actor_min_learning_rate: f64,
    pub actor_warmup_iterations: usize,
    /// Iterations of a cycle of the actor's learning rate; absent = all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_cycle_iterations: Option<usize>,
    pub critic_learning_rate: f64,
    pub vf_coef: f64,
    pub target_kl: f64,
    /// Clips the actor's gradient; absent in all settings of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// Weight of the behaviour-cloning loss on the frozen policy's samples; absent = not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_loss_coeff: Option<f64>,
    /// Weight of minus the entropy (of a diffusion policy: of minus η); 0 in all settings of the paper.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ent_coef: f64,
    pub advantage: AdvantageConfig,
    /// ε of the clipped ratio; with a diffusion policy of the cleanest step.
    pub clip_epsilon: f64,
    /// Of diffusion policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diffusion: Option<DiffusionFinetuneConfig>,
    /// The run ends once training and evaluation success reach this; absent = all iterations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at_success: Option<f64>,
    /// The run ends once the mean return of an iteration's episodes reaches this; absent = all iterations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at_return: Option<f64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_numerical_error: OnNumericalError,
}

/// What the batch size of a diffusion policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchUnit {
    /// Rows, sample × denoising step (the authors' files since v0.6).
    #[default]
    Row,
    /// Samples with all their fine-tuned steps, K' rows each: how the paper gives its batch sizes. Rows are drawn one by
    /// one all the same.
    Chain,
    /// The same, drawn whole: all rows of a sample fall into one minibatch. What depends on the observation alone, above
    /// all pictures, is then computed once for K' rows (ours: the same gradient in expectation, other minibatches).
    WholeChain,
}

/// What DPPO needs beyond PPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionFinetuneConfig {
    /// Floor of the sampling noise, σ^exp_min.
    pub min_sampling_std: f64,
    /// Floor of the likelihood's noise, σ^prob_min.
    pub min_logprob_std: f64,
    /// γ_denoise.
    pub gamma_denoising: f64,
    /// ε of the noisiest fine-tuned step.
    pub clip_epsilon_base: f64,
    pub clip_epsilon_rate: f64,
    /// η of DDIM; absent = 1, fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<EtaConfig>,
    /// Where the floor of the sampling noise goes while training; in no setting of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sampling_std_schedule: Option<StdScheduleConfig>,
    /// K' shrinks while training (`ft_denoising_steps_d`, `_t`); in no setting of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annealing: Option<AnnealingConfig>,
}

/// A learned η (spec dppo.md §1.6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtaConfig {
    pub module: EtaSpec,
    pub learning_rate: f64,
    #[serde(default)]
    pub weight_decay: f64,
    /// Minibatches from one step of its optimiser to the next.
    pub update_interval: usize,
}

/// From the configured value to another one, then constant (spec dppo.md §1.7).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StdScheduleConfig {
    pub end: f64,
    pub iterations: usize,
    #[serde(default)]
    pub shape: ScheduleShape,
}

/// The way from begin to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleShape {
    #[default]
    Linear,
    /// Half a cosine: slow at both ends.
    Cosine,
}

/// Fewer fine-tuned steps as training goes on (spec dppo.md §1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnealingConfig {
    /// Iterations from one decrement to the next.
    pub every_iterations: usize,
    pub decrement: usize,
}

/// What a loss, gradient, observation or reward that is not finite does to a run. The iteration is undone either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNumericalError {
    /// The run stops with the cause; its last checkpoint stands.
    #[default]
    Stop,
    /// The run goes on with another iteration; several in a row stop it.
    Continue,
}

/// From rewards to advantages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvantageConfig {
    /// γ per chunk.
    pub gamma: f64,
    pub gae_lambda: f64,
    pub reward_scale_running: bool,
    #[serde(default)]
    pub time_out: TimeOut,
}

/// How an episode that ran out of time enters the advantages (spec dppo.md §10.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeOut {
    /// Bootstraps from the value of the episode's own last observation and cuts the trace: correct, the default.
    #[default]
    Bootstrap,
    /// Treats it as a terminal state (the reference's Gym and furniture).
    Terminal,
    /// Bootstraps from the next episode's first observation and lets the trace run on (the reference's Robomimic).
    Leaky,
}

/// Judging a policy (spec dppo.md §8.6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    pub seed: u64,
    pub episodes: usize,
}

/// `[randomisation]`: noise on what the policy sees and does while it is trained (spec robot_control.md §9.1); see
/// [`crate::randomisation`]. Absent: none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomisationConfig {
    /// Noise of the parts' poses: `"default"`, or the calibration.toml of a rig whose noise at rest was measured. The trainer
    /// reads it once and puts its entries in its place, so that a run keeps the numbers that it was begun with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<String>,
    /// Share of the variance that is drawn once an episode (bias); the rest is drawn anew for every observation (jitter).
    #[serde(default = "bias_share", skip_serializing_if = "is_bias_share")]
    pub bias_share: f64,
    /// σ on the normalised actions that rollouts execute; the paper has 0.03.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub action_std: f64,
    /// σ on the normalised observations of pre-training.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cloning_std: f64,
    /// Evaluations have the noise of rollouts too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluation: bool,
    /// Where the entries of `part` come from; written by the trainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<NoiseOrigin>,
    /// The parts' noise itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub part: Vec<PartNoise>,
    /// Noise of other fields of the observation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub field: Vec<FieldNoise>,
}

/// Which table a run's noise of parts was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseOrigin {
    /// As `noise` had it.
    pub noise: String,
    /// Of a rig's file: its SHA-256, the rig's name and when the file was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rig: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// Standard deviation of a part's pose, in april axes: of its position (each axis) and of a rotation vector about its origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartNoise {
    pub part: String,
    pub position_std_m: [f64; 3],
    pub rotation_std_rad: [f64; 3],
}

/// Standard deviation of a field of the observation, in its own unit (m, rad, m/s, rad/s).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldNoise {
    /// As in a policy's definition, e.g. `tcp_position`.
    pub name: String,
    /// One for all values of the field, or one for each; of `tcp_rotation6d` about the axes of the robot's base.
    pub std: Vec<f64>,
}

/// Behaviour of the reference that looks unintended, for comparison (spec dppo.md §10); all off by default.
///
/// Others are settings of their own: `advantage.time_out = "leaky"` or `"terminal"`, learning rates in any order,
/// `vf_coef = 0`. The trainer's documentation (`tenon_train::dppo`) has the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompatConfig {
    /// The first iteration after an evaluation goes on with the evaluation's episodes (§2.2).
    pub no_reset_after_evaluation: bool,
    /// `evaluate` takes the last weights of a pre-trained checkpoint, not their moving average (§7.4).
    pub raw_weights_in_evaluation: bool,
    /// Fine-tuning of a Gaussian policy or a mixture begins with the last weights, not their moving average (§4).
    pub raw_weights_of_gaussians: bool,
    /// A mixture's log-density over the whole chunk is clamped, not its mean (§4).
    pub joint_mixture_density: bool,
    /// Fine-tuning takes the bounds of a learned deviation from the pre-trained policy: its own where it learned one,
    /// otherwise the reference's 0.01 and 1 (§4).
    pub std_bounds_of_pretraining: bool,
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

fn bias_share() -> f64 {
    DEFAULT_BIAS_SHARE
}

fn is_bias_share(share: &f64) -> bool {
    *share == DEFAULT_BIAS_SHARE
}

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}

impl PretrainConfig {
    pub(super) fn problems(&self, p: &mut Problems) {
        p.at_least_one("pretrain.epochs", self.epochs);
        p.at_least_one("pretrain.batch_size", self.batch_size);
        p.positive("pretrain.learning_rate", self.learning_rate);
        p.within("pretrain.ema_decay", self.ema_decay, 0.0, 1.0);
        p.at_least_one("pretrain.ema_every_batches", self.ema_every_batches);
        if self.warmup_epochs >= self.epochs {
            p.add("pretrain.warmup_epochs", "must be below pretrain.epochs");
        }
        if self.cycle_epochs.is_some_and(|cycle| cycle <= self.warmup_epochs) {
            p.add("pretrain.cycle_epochs", "must be above pretrain.warmup_epochs");
        }
    }
}

impl FinetuneConfig {
    /// Size of a minibatch in what an update draws: rows of a diffusion policy, samples of a Gaussian one.
    /// `finetuned_steps`: K', 0 of a policy that does not denoise.
    pub fn batch_rows(&self, finetuned_steps: usize) -> usize {
        match self.batch_unit {
            BatchUnit::Row => self.batch_size,
            BatchUnit::Chain | BatchUnit::WholeChain => self.batch_size * finetuned_steps.max(1),
        }
    }

    pub(super) fn problems(&self, p: &mut Problems) {
        for (key, value) in [
            ("finetune.iterations", self.iterations),
            ("finetune.environments", self.environments),
            ("finetune.chunk_steps", self.chunk_steps),
            ("finetune.update_epochs", self.update_epochs),
            ("finetune.batch_size", self.batch_size),
            ("finetune.grad_accumulate", self.grad_accumulate),
        ] {
            p.at_least_one(key, value);
        }
        if self.evaluate_every == 1 {
            p.add("finetune.evaluate_every", "1 leaves no iteration to train: give 0 (none evaluates) or at least 2");
        }
        p.positive("finetune.actor_learning_rate", self.actor_learning_rate);
        p.positive("finetune.critic_learning_rate", self.critic_learning_rate);
        p.positive("finetune.target_kl", self.target_kl);
        p.positive("finetune.clip_epsilon", self.clip_epsilon);
        p.within("finetune.advantage.gamma", self.advantage.gamma, 0.0, 1.0);
        p.within("finetune.advantage.gae_lambda", self.advantage.gae_lambda, 0.0, 1.0);
        if let Some(goal) = self.stop_at_success {
            p.within("finetune.stop_at_success", goal, 0.0, 1.0);
        }
        if let Err(detail) = self.critic.check() {
            p.add("finetune.critic", detail);
        }
        if let Some(d) = &self.diffusion {
            p.positive("finetune.diffusion.min_sampling_std", d.min_sampling_std);
            p.positive("finetune.diffusion.min_logprob_std", d.min_logprob_std);
            p.within("finetune.diffusion.gamma_denoising", d.gamma_denoising, 0.0, 1.0);
            p.positive("finetune.diffusion.clip_epsilon_base", d.clip_epsilon_base);
            p.positive("finetune.diffusion.clip_epsilon_rate", d.clip_epsilon_rate);
            if let Some(schedule) = &d.min_sampling_std_schedule {
                p.positive("finetune.diffusion.min_sampling_std_schedule", schedule.end);
            }
            if let Some(eta) = &d.eta {
                p.positive("finetune.diffusion.eta.learning_rate", eta.learning_rate);
                p.at_least_one("finetune.diffusion.eta.update_interval", eta.update_interval);
            }
            if let Some(a) = &d.annealing {
                p.at_least_one("finetune.diffusion.annealing.every_iterations", a.every_iterations);
                p.at_least_one("finetune.diffusion.annealing.decrement", a.decrement);
            }
        }
    }
}
