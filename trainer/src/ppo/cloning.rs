//! The loss of behaviour cloning of Gaussian policies and mixtures: maximum likelihood (spec dppo.md §4, §7.4).

use super::{Likelihood, MixtureDensity};
use crate::network::{CriticRow, GaussianBatch, GaussianNetwork, Observations};
use crate::workers::Workers;

/// Terms of a batch's loss.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CloningTerms {
    /// −mean log p − ent_coef · entropy. log p of a single Gaussian is the mean over the chunk's values, of a mixture
    /// the joint log-density of the chunk.
    pub loss: f64,
    pub entropy: f64,
}

/// Loss and gradient of behaviour cloning.
#[derive(Debug)]
pub struct CloningLoss {
    batch: GaussianBatch,
    ent_coef: f64,
}

impl CloningLoss {
    /// For batches of up to `rows` samples.
    pub fn new(network: &GaussianNetwork, workers: &Workers, rows: usize, ent_coef: f64) -> Self {
        Self { batch: GaussianBatch::new(network, workers, rows), ent_coef }
    }

    /// Loss and gradient of the samples. `chunks`: what was demonstrated, `[rows, chunk_len]`.
    pub fn gradient<'o>(
        &mut self,
        workers: &Workers,
        network: &GaussianNetwork,
        parameters: &[f32],
        observations: impl Into<Observations<'o>>,
        chunks: &[f32],
    ) -> (CloningTerms, &[f32]) {
        let observations = observations.into();
        let (state_len, image_len, len) = (network.state_len(), network.image_len(), network.chunk_len());
        let rows = chunks.len() / len;
        let (n, ent_coef) = (rows as f64, self.ent_coef);
        let likelihood = Likelihood { mixture: MixtureDensity::Joint };
        let mut prepared = network.prepare(parameters);
        self.batch.begin();
        let sums = self.batch.accumulate(
            workers,
            network,
            parameters,
            &prepared,
            rows,
            |i| CriticRow { state: observations.state(i, state_len), images: observations.image(i, image_len) },
            |i, row, mut gradient, sums: &mut [f64; 2]| {
                sums[0] += likelihood.log_prob_and_gradient(row, &chunks[i * len..(i + 1) * len], &mut gradient);
                sums[1] += likelihood.entropy(row);
                gradient.scale((-1.0 / n) as f32);
                if ent_coef > 0.0 {
                    likelihood.add_entropy_gradient(row, -ent_coef / n, &mut gradient);
                }
            },
        );
        let mean = |k: usize| sums.iter().map(|s| s[k]).sum::<f64>() / n;
        let terms = CloningTerms { loss: -mean(0) - ent_coef * mean(1), entropy: mean(1) };
        (terms, self.batch.finish(network, parameters, &mut prepared))
    }
}
