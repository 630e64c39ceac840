//! The policy that is trained and the copy that stays.

use tenon_core::noise::SeededNoise;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::GaussianNetwork;

/// A Gaussian policy and the weights that it began with.
#[derive(Debug, Clone)]
pub struct GaussianPolicy {
    pub network: GaussianNetwork,
    /// Weights before the first update: samples for behaviour cloning come from them.
    pub frozen: Vec<f32>,
    pub finetuned: Vec<f32>,
    /// Draws of a single Gaussian are limited to this many deviations around the mean (`randn_clip_value`, 3 in all
    /// settings of the paper). Mixtures know no such limit.
    pub noise_clip: f32,
}

impl GaussianPolicy {
    /// A pre-trained policy before its first update.
    pub fn from_parameters(network: GaussianNetwork, parameters: Vec<f32>, noise_clip: f32) -> Self {
        Self { network, finetuned: parameters.clone(), frozen: parameters, noise_clip }
    }

    /// The policy that `checkpoint` holds under `prefix`.
    ///
    /// A log-variance that it lacks, because pre-training held the deviation fixed, begins at the network's own.
    pub fn from_checkpoint(
        network: GaussianNetwork,
        checkpoint: &Checkpoint,
        prefix: &str,
        noise_clip: f32,
    ) -> Result<Self, TrainError> {
        let parameters = network.collect(|name| checkpoint.tensor(&format!("{prefix}{name}")))?;
        Ok(Self::from_parameters(network, parameters, noise_clip))
    }

    /// A policy that has seen nothing, for training from scratch.
    pub fn fresh(network: GaussianNetwork, noise: &mut SeededNoise, noise_clip: f32) -> Self {
        let parameters = network.initialise(noise);
        Self::from_parameters(network, parameters, noise_clip)
    }
}
