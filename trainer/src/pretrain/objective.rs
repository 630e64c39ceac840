//! What a batch of demonstrations teaches a policy.

use rand::Rng;
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::{NoiseSource, SeededNoise};

use super::{DenoisingLoss, PretrainConfig};
use crate::augment::random_shift;
use crate::checkpoint::RunInfo;
use crate::dataset::{Dataset, Sample};
use crate::error::TrainError;
use crate::network::{GaussianNetwork, NoiseNetwork, Observations, ParameterTable};
use crate::ppo::CloningLoss;
use crate::workers::Workers;

/// A policy's network and the loss that trains it.
#[derive(Debug)]
pub(super) enum Objective {
    /// Predicting the noise, or the clean chunk.
    Denoising { network: NoiseNetwork, loss: DenoisingLoss, steps: u32 },
    /// Making the demonstrations likely (spec dppo.md §4).
    Likelihood { network: GaussianNetwork, loss: CloningLoss },
}

/// A batch of samples.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: usize,
    states: Vec<f32>,
    chunks: Vec<f32>,
    noise: Vec<f32>,
    t: Vec<u32>,
    /// Of a data set with pictures.
    pictures: Option<Vec<u8>>,
}

impl Batch {
    /// Fills the batch with samples.
    pub fn gather(
        &mut self,
        dataset: &Dataset,
        samples: &[Sample],
        indices: &[u32],
        state_len: usize,
        prediction_horizon: usize,
    ) {
        self.rows = indices.len();
        self.states.resize(self.rows * state_len, 0.0);
        self.chunks.clear();
        self.pictures = dataset.pictures.as_ref().map(|pictures| {
            let mut bytes = self.pictures.take().unwrap_or_default();
            bytes.clear();
            indices.iter().for_each(|&i| bytes.extend(pictures.frame(samples[i as usize].frame as usize)));
            bytes
        });
        for (&i, state) in indices.iter().zip(self.states.chunks_exact_mut(state_len)) {
            let sample = samples[i as usize];
            dataset.history(sample, state);
            self.chunks.extend_from_slice(dataset.chunk(sample, prediction_horizon));
        }
    }

    /// What is seen, `[rows, state_len]`, normalised.
    pub fn states_mut(&mut self) -> &mut [f32] {
        &mut self.states
    }

    /// Shifts each frame's pictures by an amount of its own.
    pub fn shift_pictures(&mut self, dataset: &Dataset, stream: &mut SeededNoise) {
        if let (Some(bytes), Some(pictures)) = (&mut self.pictures, &dataset.pictures) {
            random_shift(bytes, pictures.channels, pictures.px, stream.rng());
        }
    }

    /// t uniform in 0..K, ε ~ N(0, I).
    fn draw_noise(&mut self, stream: &mut SeededNoise, steps: u32) {
        self.noise.resize(self.chunks.len(), 0.0);
        self.t.clear();
        self.t.extend((0..self.rows).map(|_| stream.rng().random_range(0..steps)));
        stream.fill_standard_normal(&mut self.noise);
    }

    fn observations(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.pictures.as_deref() }
    }
}

impl Objective {
    pub fn new(config: &PretrainConfig, run: &RunInfo, workers: &Workers) -> Result<Self, TrainError> {
        let wrong = |e: &dyn std::fmt::Display| TrainError::Config { key: "policy", detail: e.to_string() };
        let policy = &run.policy;
        policy.check().map_err(|e| wrong(&e))?;
        config.check()?;
        let (state_len, horizon, action_dim) = (policy.state_len(), policy.prediction_horizon, policy.action_dim());
        let rows = config.batch_size;
        match &run.network {
            PolicyNetwork::Diffusion(spec) => {
                let network = NoiseNetwork::new(spec, state_len, horizon, action_dim)?.on(workers.device());
                let steps = policy.diffusion().map_err(|e| wrong(&e))?.denoising_steps;
                let loss = DenoisingLoss::new(&network, workers, rows, steps, config.prediction);
                Ok(Self::Denoising { network, loss, steps: steps as u32 })
            }
            PolicyNetwork::Gaussian(spec) => {
                let network = GaussianNetwork::new(spec, state_len, horizon, action_dim)?.on(workers.device());
                let loss = CloningLoss::new(&network, workers, rows, config.ent_coef);
                Ok(Self::Likelihood { network, loss })
            }
        }
    }

    pub fn table(&self) -> &ParameterTable {
        match self {
            Self::Denoising { network, .. } => network.table(),
            Self::Likelihood { network, .. } => network.table(),
        }
    }

    pub fn image_len(&self) -> usize {
        match self {
            Self::Denoising { network, .. } => network.image_len(),
            Self::Likelihood { network, .. } => network.image_len(),
        }
    }

    pub fn initialise(&self, noise: &mut SeededNoise) -> Vec<f32> {
        match self {
            Self::Denoising { network, .. } => network.table().initialise(noise),
            Self::Likelihood { network, .. } => network.initialise(noise),
        }
    }

    /// Loss and gradient of a batch; `stream` gives time steps and noise where there are any.
    pub fn gradient(
        &mut self,
        workers: &Workers,
        parameters: &[f32],
        batch: &mut Batch,
        stream: &mut SeededNoise,
    ) -> (f64, &[f32]) {
        match self {
            Self::Denoising { network, loss, steps } => {
                batch.draw_noise(stream, *steps);
                let b = &*batch;
                loss.gradient(workers, network, parameters, b.observations(), &b.chunks, &b.t, &b.noise)
            }
            Self::Likelihood { network, loss } => {
                let (terms, gradient) =
                    loss.gradient(workers, network, parameters, batch.observations(), &batch.chunks);
                (terms.loss, gradient)
            }
        }
    }
}
