//! The loss of denoising (spec dppo.md §7.4).

use tenon_core::diffusion::NoiseSchedule;
use tenon_core::spec::Prediction;

use crate::network::{NoiseBatch, NoiseNetwork, NoiseRow, Observations};
use crate::workers::Workers;

/// Loss and gradient of denoising: x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, mean squared error over all elements.
#[derive(Debug)]
pub struct DenoisingLoss {
    batch: NoiseBatch,
    /// √ᾱ_t, √(1−ᾱ_t).
    forward: Vec<(f32, f32)>,
    times: Vec<usize>,
    noisy: Vec<f32>,
    prediction: Prediction,
}

impl DenoisingLoss {
    /// For batches of up to `rows` samples and K = `denoising_steps`.
    pub fn new(
        network: &NoiseNetwork,
        workers: &Workers,
        rows: usize,
        denoising_steps: usize,
        prediction: Prediction,
    ) -> Self {
        let schedule = NoiseSchedule::cosine(denoising_steps);
        Self {
            batch: NoiseBatch::new(network, workers, rows, denoising_steps),
            forward: (0..denoising_steps).map(|t| schedule.forward_coefficients(t)).collect(),
            times: (0..denoising_steps).collect(),
            noisy: vec![0.0; rows * network.chunk_len()],
            prediction,
        }
    }

    /// The noised chunks of the last batch, `[rows, chunk_len]`.
    pub fn noisy(&self) -> &[f32] {
        &self.noisy
    }

    /// Loss and gradient of `t.len()` samples.
    ///
    /// `observations`: of the rows; a plain slice of states will do. `chunks` (x_0) and `noise` (ε): `[rows, chunk_len]`; `t`: the step of each.
    pub fn gradient<'o>(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        observations: impl Into<Observations<'o>>,
        chunks: &[f32],
        t: &[u32],
        noise: &[f32],
    ) -> (f64, &[f32]) {
        let observations = observations.into();
        let (len, state_len, image_len) = (network.chunk_len(), network.state_len(), network.image_len());
        let rows = t.len();
        for (i, &t) in t.iter().enumerate() {
            let (signal, sigma) = self.forward[t as usize];
            for k in i * len..(i + 1) * len {
                self.noisy[k] = signal * chunks[k] + sigma * noise[k];
            }
        }
        let target = match self.prediction {
            Prediction::Noise => noise,
            Prediction::Sample => chunks,
        };
        let mut prepared = network.prepare(parameters, &self.times);
        let scale = 2.0 / (rows * len) as f32;
        self.batch.begin();
        let noisy = &self.noisy;
        let sums = self.batch.accumulate(
            workers,
            network,
            parameters,
            &prepared,
            rows,
            |i| NoiseRow {
                slot: t[i],
                chunk: &noisy[i * len..(i + 1) * len],
                state: observations.state(i, state_len),
                images: observations.image(i, image_len),
            },
            |i, output, gradient, sum: &mut f64| {
                let target = &target[i * len..(i + 1) * len];
                for ((y, target), g) in output.iter().zip(target).zip(gradient) {
                    let error = y - target;
                    *g = scale * error;
                    *sum += f64::from(error * error);
                }
            },
        );
        let loss = sums.iter().sum::<f64>() / (rows * len) as f64;
        (loss, self.batch.finish(network, parameters, &mut prepared))
    }
}
