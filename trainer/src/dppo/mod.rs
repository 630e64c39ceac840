//! Diffusion Policy Policy Optimization: PPO over the denoising steps (spec dppo.md §1, §2).
//!
//! Terms: a *sample* is one chunk executed in one environment (N·E of them in an iteration, environment fastest); a
//! *row* is one fine-tuned denoising step of one sample, numbered `sample · K' + j`, j = 0 the noisiest. Chains are
//! stored once, in f32, as the K'+1 states x_{K'} … x_0 of a sample.
//!
//! What looks unintended in the reference (spec dppo.md §10) is mended here. Of an update's part of it, the reference's
//! behaviour is to be had by
//!
//! | quirk | key |
//! |---|---|
//! | a time-out leaks into the next episode, or ends the value | `time_out = "leaky"`, `"terminal"` |
//! | a mixture's joint density is clamped | `joint_mixture_density` of [`crate::ppo::PpoCompat`] |
//! | learning rates between min and a smaller max | values of [`crate::optimizer::LrSchedule`], in any order |
//! | deviation bounds overwritten by the pre-trained file | the bounds of the network's description |
//! | weight of the value loss 0 where left out | `loss.vf_coef = 0` |
//!
//! There is no key for ε of K' = 1: 0/0 makes the first loss a NaN, which is nothing to compare with; ε is
//! `clip_ploss_coef` then. Nor for what falls out of annealing K', where the reference's optimiser goes on with the copy that
//! has just been frozen. Schedules begin at their least rate and step with evaluations, as there.

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
pub use eta::{EtaLearning, EtaModule, EtaSettings, EtaStep, EtaSteps, SampleEtas};
pub use likelihood::{EtaLikelihood, Likelihood, TransitionLikelihood};
pub use loss::{ActorGradient, ActorTerms, LossBuffers, Minibatch, Samples};
pub(crate) use stats::Sums;
pub use stats::UpdateStats;
pub use tenon_core::config::ScheduleShape as StdScheduleShape;
pub use updater::Updater;

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
