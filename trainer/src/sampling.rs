//! Sampling chunks for many environments at once, whatever the policy.

use tenon_core::config::TaskConfig;
use tenon_core::diffusion::StepNoise;
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::SeededNoise;

use crate::checkpoint::{Checkpoint, Stage};
use crate::device::Device;
use crate::dppo::{self, ChainMode, ChainSampler, EtaModule, EtaSettings};
use crate::error::TrainError;
use crate::network::{GaussianNetwork, NoiseNetwork, Observations};
use crate::ppo::{GaussianPolicy, GaussianSampler, SamplingMode, SamplingNoise};
use crate::seeds::Stream;
use crate::workers::Workers;

/// A policy, of either kind.
#[derive(Debug, Clone, Copy)]
pub enum PolicyRef<'a> {
    Diffusion(&'a dppo::Policy),
    Gaussian(&'a GaussianPolicy),
}

impl PolicyRef<'_> {
    /// To · Do.
    pub fn state_len(self) -> usize {
        match self {
            Self::Diffusion(policy) => policy.network.state_len(),
            Self::Gaussian(policy) => policy.network.state_len(),
        }
    }

    /// Tp · Da.
    pub fn chunk_len(self) -> usize {
        match self {
            Self::Diffusion(policy) => policy.network.chunk_len(),
            Self::Gaussian(policy) => policy.network.chunk_len(),
        }
    }

    /// Values of the pictures that it sees at a time; 0 for a policy that sees none.
    pub fn image_len(self) -> usize {
        match self {
            Self::Diffusion(policy) => policy.network.image_len(),
            Self::Gaussian(policy) => policy.network.image_len(),
        }
    }

    /// Values that training keeps of a sampled chunk; the last `chunk_len` of them are the chunk itself. Of a diffusion
    /// policy the K'+1 states of its chain, of a Gaussian the chunk alone.
    pub fn chain_len(self) -> usize {
        match self {
            Self::Diffusion(policy) => (policy.finetuned_steps() + 1) * self.chunk_len(),
            Self::Gaussian(_) => self.chunk_len(),
        }
    }
}

/// A trained policy, of either kind.
#[derive(Debug, Clone)]
pub enum TrainedPolicy {
    Diffusion(dppo::Policy),
    Gaussian(GaussianPolicy),
}

/// Which weights of a pre-trained checkpoint are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PretrainedWeights {
    /// Those that fine-tuning begins with: the moving average.
    Finetuning,
    /// The last ones. The reference's evaluation takes them, and its Gaussian policies begin with them (spec dppo.md §4,
    /// §7.4).
    Raw,
}

impl PretrainedWeights {
    /// Those that fine-tuning begins with, unless the configuration wants the reference's behaviour.
    pub fn of_finetuning(config: &TaskConfig) -> Self {
        match config.policy.diffusion() {
            None if config.compat.raw_weights_of_gaussians => Self::Raw,
            _ => Self::Finetuning,
        }
    }

    /// Those that are judged: the same, unless the configuration wants the reference's behaviour.
    pub fn of_evaluation(config: &TaskConfig) -> Self {
        if config.compat.raw_weights_in_evaluation { Self::Raw } else { Self::of_finetuning(config) }
    }

    /// What their names in a checkpoint begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Finetuning => "ema.",
            Self::Raw => "network.",
        }
    }
}

impl TrainedPolicy {
    /// The policy of a checkpoint of either stage; of a fine-tuned one the fine-tuned weights, whatever `weights` says.
    /// `noise_clip`: of a Gaussian policy's draws.
    pub fn of(checkpoint: &Checkpoint, weights: PretrainedWeights, noise_clip: f32) -> Result<Self, TrainError> {
        let run = &checkpoint.header.run;
        let policy = &run.policy;
        let (state_len, horizon, action_dim) = (policy.state_len(), policy.prediction_horizon, policy.action_dim());
        let finetuned = checkpoint.header.stage == Stage::Finetune;
        match &run.network {
            PolicyNetwork::Diffusion(spec) => {
                let network = NoiseNetwork::new(spec, state_len, horizon, action_dim)?;
                let denoising = policy.diffusion().map_err(|e| TrainError::Network(e.to_string()))?.clone();
                let parameters = |prefix| checkpoint.parameters(prefix, network.table());
                let [frozen, finetuned] = if finetuned { ["actor.", "actor_ft."] } else { [weights.prefix(); 2] };
                let (frozen, finetuned) = (parameters(frozen)?, parameters(finetuned)?);
                Ok(Self::Diffusion(dppo::Policy { network, frozen, finetuned, denoising, eta: None }))
            }
            PolicyNetwork::Gaussian(spec) => {
                let network = GaussianNetwork::new(spec, state_len, horizon, action_dim)?;
                let prefix = if finetuned { "actor_ft." } else { weights.prefix() };
                Ok(Self::Gaussian(GaussianPolicy::from_checkpoint(network, checkpoint, prefix, noise_clip)?))
            }
        }
    }

    /// Takes the learned η of a fine-tuned policy; with a constant one, or a Gaussian policy, there is nothing to take.
    ///
    /// `settings`: those that the policy was fine-tuned with.
    pub fn take_eta(&mut self, checkpoint: &Checkpoint, settings: &EtaSettings) -> Result<(), TrainError> {
        if let Self::Diffusion(policy) = self
            && settings.constant().is_none()
            && checkpoint.header.stage == Stage::Finetune
        {
            let (state_len, action_dim) = (policy.network.state_len(), policy.network.action_dim());
            // Every weight comes from the checkpoint.
            let mut module = EtaModule::new(&settings.module, state_len, action_dim, &mut Stream::EtaWeights.of(0));
            module.restore(checkpoint)?;
            policy.eta = Some(module);
        }
        Ok(())
    }

    /// The same policy, computed on a device; on the processor for none.
    pub fn on(mut self, device: Option<&Device>) -> Self {
        match &mut self {
            Self::Diffusion(policy) => policy.network = policy.network.clone().on(device),
            Self::Gaussian(policy) => policy.network = policy.network.clone().on(device),
        }
        self
    }

    /// The same, borrowed.
    pub fn as_ref(&self) -> PolicyRef<'_> {
        match self {
            Self::Diffusion(policy) => PolicyRef::Diffusion(policy),
            Self::Gaussian(policy) => PolicyRef::Gaussian(policy),
        }
    }
}

/// How chunks are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChunkMode {
    Diffusion(ChainMode),
    Gaussian(SamplingMode),
}

impl ChunkMode {
    /// The noise of deployment (spec dppo.md §1.3, §4).
    pub fn evaluation(policy: PolicyRef) -> Self {
        match policy {
            PolicyRef::Diffusion(_) => Self::Diffusion(ChainMode { noise: StepNoise::Evaluation, base_policy: false }),
            PolicyRef::Gaussian(_) => {
                Self::Gaussian(SamplingMode { noise: SamplingNoise::Evaluation, base_policy: false })
            }
        }
    }
}

/// Buffers for sampling; one architecture, any parameters.
#[derive(Debug)]
pub enum ChunkSampler {
    Diffusion(ChainSampler),
    Gaussian(GaussianSampler),
}

impl ChunkSampler {
    /// For up to `rows` environments at a time.
    pub fn new(policy: PolicyRef, workers: &Workers, rows: usize) -> Self {
        match policy {
            PolicyRef::Diffusion(policy) => Self::Diffusion(ChainSampler::new(policy, workers, rows)),
            PolicyRef::Gaussian(policy) => Self::Gaussian(GaussianSampler::new(policy, workers, rows)),
        }
    }

    /// Samples one chunk a row. `noise`: one stream a row. `chains`: receives `[rows, chain_len]`.
    ///
    /// Panics where policy, mode and sampler are not of one kind, or lengths do not fit together.
    pub fn sample<'o>(
        &mut self,
        workers: &Workers,
        policy: PolicyRef,
        mode: ChunkMode,
        observations: impl Into<Observations<'o>>,
        noise: &mut [SeededNoise],
        chains: &mut [f32],
    ) {
        match (self, policy, mode) {
            (Self::Diffusion(sampler), PolicyRef::Diffusion(policy), ChunkMode::Diffusion(mode)) => {
                sampler.sample(workers, policy, mode, observations, noise, chains);
            }
            (Self::Gaussian(sampler), PolicyRef::Gaussian(policy), ChunkMode::Gaussian(mode)) => {
                sampler.sample(workers, policy, mode, observations, noise, chains);
            }
            _ => panic!("a sampler, a policy and a mode of different kinds"),
        }
    }
}
