//! Diffusion Policy Policy Optimization: PPO over the denoising steps (spec dppo.md §1, §2).
//!
//! Terms: a *sample* is one chunk executed in one environment (N·E of them in an iteration, environment fastest); a
//! *row* is one fine-tuned denoising step of one sample, numbered `sample · K' + j`, j = 0 the noisiest. Chains are
//! stored once, in f32, as the K'+1 states x_{K'} … x_0 of a sample.
//!
//! What looks unintended in the reference (spec dppo.md §10, and its marks in §2 to §7) is mended here, for PPO too. The
//! reference's behaviour is to be had by a key of the configuration:
//!
//! | quirk | here | key |
//! |---|---|---|
//! | after an evaluation its episodes go on (§2.2) | they begin anew | `compat.no_reset_after_evaluation` |
//! | a time-out leaks into the next episode, or ends the value (§2.5c, §8.1) | it bootstraps from the episode's last observation | `finetune.advantage.time_out = "leaky"`, `"terminal"` |
//! | a mixture's joint density is clamped (§4) | its mean over the chunk's values | `compat.joint_mixture_density` |
//! | bounds of a deviation come with the pre-trained file (§4) | they are the configuration's | `compat.std_bounds_of_pretraining` |
//! | Gaussian policies begin with the last weights of pre-training (§4) | with the moving average, as all do | `compat.raw_weights_of_gaussians` |
//! | evaluation judges the last weights of pre-training (§7.4) | the moving average | `compat.raw_weights_in_evaluation` |
//! | learning rates between min and a smaller max (§2) | constant in `configs/paper` | `finetune.actor_min_learning_rate` above `actor_learning_rate` |
//! | the value loss weighs nothing where its weight is left out (§2.5e) | the weight must be given | `finetune.vf_coef = 0` |
//!
//! There is no key for ε of K' = 1: 0/0 makes the first loss a NaN, which is nothing to compare with; ε is
//! `clip_epsilon` then. Nor for what falls out of annealing K', where the reference's optimiser goes on with the copy that
//! has just been frozen; nor for its counting only the episodes that begin and end within one iteration, which nothing
//! learns from.
//!
//! What else §10 lists is meant, and as there: schedules begin at their least rate and step with evaluations; the floor of
//! the sampling noise holds for every step of a rollout; rewards are scaled with γ = 0.99; an evaluation draws x_K, and with
//! DDPM the noise between, but none at the end; gradients of accumulated minibatches are summed; behaviour cloning
//! takes all values of a chunk.

mod advantage;
mod annealing;
mod chain;
mod config;
mod eta;
mod eta_learner;
mod likelihood;
mod loss;
mod stats;
mod updater;

pub use advantage::{quantile, shape_advantages};
pub use annealing::StdSchedule;
pub use chain::{ChainMode, ChainSampler};
pub use config::{FinetuneConfig, LossConfig};
pub(crate) use eta::LARGEST_LOGIT;
pub use eta::{EtaLearning, EtaModule, EtaSettings, EtaStep, EtaSteps, SampleEtas};
pub use likelihood::{EtaLikelihood, Likelihood, TransitionLikelihood};
pub use loss::{ActorGradient, ActorTerms, LossBuffers, Minibatch, Samples};
pub(crate) use stats::Sums;
pub use tenon_core::config::ScheduleShape as StdScheduleShape;
pub use updater::Updater;

pub use crate::actor_critic::UpdateStats;
pub use crate::rollout::{Gae, RewardScaler, Rollout, TimeOut, explained_variance, generalized_advantages};

use tenon_core::spec::Denoising;

use crate::network::NoiseNetwork;

/// The frozen pre-trained network and its fine-tuned copy (spec dppo.md §1.7).
#[derive(Debug, Clone)]
pub struct Policy {
    pub network: NoiseNetwork,
    /// Parameters for the steps before the last K'.
    pub frozen: Vec<f32>,
    /// Parameters for the last K' steps.
    pub finetuned: Vec<f32>,
    pub denoising: Denoising,
    /// η of exploration, where it is no constant.
    pub eta: Option<EtaModule>,
}

impl Policy {
    /// A pre-trained policy before its first update: the fine-tuned network is a copy.
    pub fn from_pretrained(network: NoiseNetwork, parameters: Vec<f32>, denoising: Denoising) -> Self {
        Self { network, finetuned: parameters.clone(), frozen: parameters, denoising, eta: None }
    }

    /// K'.
    pub fn finetuned_steps(&self) -> usize {
        self.denoising.finetuned_steps
    }
}
