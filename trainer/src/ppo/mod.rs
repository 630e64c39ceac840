//! PPO of Gaussian and Gaussian-mixture policies (spec dppo.md §4, and §2.5 where it is the same for both).
//!
//! Terms: a *sample* is one chunk executed in one environment (N·E of them in an iteration, environment fastest). In a
//! [`crate::rollout::Rollout`] the "chain" of such a policy is the chunk alone. Log-probabilities are of the whole chunk,
//! Tp · Da values, whatever part of it is executed: these policies are trained with Tp = Ta.

mod cloning;
mod config;
mod likelihood;
mod loss;
mod policy;
mod sampler;
mod updater;

pub use cloning::{CloningLoss, CloningTerms};
pub use config::{PpoCompat, PpoConfig, PpoLossConfig};
pub use likelihood::{Likelihood, MixtureDensity};
pub use loss::{ActorTerms, Minibatch, PpoLoss, Samples};
pub use policy::GaussianPolicy;
pub use sampler::{GaussianSampler, SamplingMode, SamplingNoise};
pub use updater::PpoUpdater;
