//! Behaviour cloning of Gaussian policies and mixtures: maximum likelihood (spec dppo.md §4, §7.4).

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tenon_core::noise::SeededNoise;

use super::{Likelihood, MixtureDensity};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Dataset, Sample};
use crate::error::TrainError;
use crate::network::{CriticRow, GaussianBatch, GaussianNetwork, Observations};
use crate::optimizer::{AdamW, LrSchedule, finite_norm};
use crate::pretrain::{EpochReport, permutation};
use crate::seeds::Stream;
use crate::workers::Workers;

/// Settings of behaviour cloning (spec dppo.md §6.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloningConfig {
    pub epochs: u64,
    pub batch_size: usize,
    /// One scheduler step an epoch.
    pub lr: LrSchedule,
    pub weight_decay: f64,
    /// Weight of minus the entropy; 0 in all settings of the paper.
    #[serde(default)]
    pub ent_coef: f64,
    /// Uses the first episodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_episodes: Option<usize>,
}

impl CloningConfig {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        for (key, value) in [("epochs", self.epochs), ("batch_size", self.batch_size as u64)] {
            if value == 0 {
                return Err(TrainError::Config { key, detail: "must be at least 1".into() });
            }
        }
        for (key, value) in [("ent_coef", self.ent_coef), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(TrainError::Config { key, detail: format!("{value} must not be negative") });
            }
        }
        self.lr.check("lr")
    }
}

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

/// What is done after each epoch: write a checkpoint, show progress, break off.
pub type OnEpoch<'a> = dyn FnMut(&Cloner, &EpochReport) -> Result<ControlFlow<()>, TrainError> + 'a;

/// A run of behaviour cloning. Fine-tuning takes its raw weights, so there is no moving average (spec dppo.md §4).
#[derive(Debug)]
pub struct Cloner {
    config: CloningConfig,
    network: GaussianNetwork,
    observation_dim: usize,
    parameters: Vec<f32>,
    optimizer: AdamW,
    loss: CloningLoss,
    shuffle: SeededNoise,
    epochs_done: u64,
    workers: Workers,
    states: Vec<f32>,
    chunks: Vec<f32>,
}

impl Cloner {
    /// A fresh run from `seed` on `threads` threads. `observation_dim` = Do.
    pub fn new(
        config: CloningConfig,
        network: GaussianNetwork,
        observation_dim: usize,
        seed: u64,
        threads: usize,
    ) -> Result<Self, TrainError> {
        config.check()?;
        if observation_dim == 0 || !network.state_len().is_multiple_of(observation_dim) {
            let detail = format!("{observation_dim} does not divide the network's {} inputs", network.state_len());
            return Err(TrainError::Config { key: "observation", detail });
        }
        if network.image_len() > 0 {
            let detail = "the network sees pictures, which a data set of states does not have".into();
            return Err(TrainError::Config { key: "network", detail });
        }
        let workers = Workers::new(threads)?;
        let parameters = network.initialise(&mut Stream::ActorWeights.of(seed));
        Ok(Self {
            optimizer: AdamW::new(parameters.len(), config.weight_decay),
            loss: CloningLoss::new(&network, &workers, config.batch_size, config.ent_coef),
            shuffle: Stream::Shuffle.of(seed),
            epochs_done: 0,
            states: Vec::new(),
            chunks: Vec::new(),
            config,
            network,
            observation_dim,
            parameters,
            workers,
        })
    }

    /// Adds everything that continues this run, between two epochs, to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        let table = self.network.table();
        checkpoint.put_parameters("network.", table, &self.parameters);
        checkpoint.put_optimizer("network", table, &self.optimizer);
        checkpoint.header.counters.insert("epoch".into(), self.epochs_done);
        checkpoint.header.streams.insert("shuffle".into(), self.shuffle.state());
    }

    /// Restores what [`Cloner::store`] stored into a run of the same configuration; with the same data it ends with the
    /// same bits as if never stopped.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let table = self.network.table();
        self.parameters = checkpoint.parameters("network.", table)?;
        checkpoint.restore_optimizer("network", table, &mut self.optimizer)?;
        self.epochs_done = checkpoint.counter("epoch")?;
        self.shuffle = SeededNoise::restore(checkpoint.stream("shuffle")?);
        Ok(())
    }

    /// The weights as trained.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The architecture.
    pub fn network(&self) -> &GaussianNetwork {
        &self.network
    }

    /// Epochs done so far.
    pub fn epochs_done(&self) -> u64 {
        self.epochs_done
    }

    /// Trains until the configured epoch. After each epoch `on_epoch` may write a checkpoint, show progress, or stop.
    pub fn run(&mut self, dataset: &Dataset, on_epoch: &mut OnEpoch) -> Result<(), TrainError> {
        while self.epochs_done < self.config.epochs {
            let report = self.run_epoch(dataset)?;
            if on_epoch(self, &report)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One epoch. On an error the run stands as it did after the last good batch.
    pub fn run_epoch(&mut self, dataset: &Dataset) -> Result<EpochReport, TrainError> {
        for (key, found, wanted) in [
            ("states", dataset.state_dim, self.observation_dim),
            ("actions", dataset.action_dim, self.network.action_dim()),
        ] {
            if found != wanted {
                let detail = format!("the data set has {found} values a row, the policy {wanted}");
                return Err(TrainError::Config { key, detail });
            }
        }
        let horizon = self.network.chunk_len() / self.network.action_dim();
        let samples = dataset.samples(horizon, self.config.max_episodes.unwrap_or(usize::MAX));
        if samples.is_empty() {
            let detail = format!("no episode is as long as the {horizon} steps of a chunk");
            return Err(TrainError::Config { key: "traj_lengths", detail });
        }
        let epoch = self.epochs_done + 1;
        let learning_rate = self.config.lr.rate(self.epochs_done);
        let order = permutation(samples.len(), &mut self.shuffle);
        let (mut sum, mut norm_sum, mut batches) = (0.0, 0.0, 0);
        for indices in order.chunks(self.config.batch_size) {
            self.gather(dataset, &samples, indices, horizon);
            let (terms, gradient) =
                self.loss.gradient(&self.workers, &self.network, &self.parameters, &self.states, &self.chunks);
            let norm = finite_norm("the gradient of behaviour cloning", gradient, self.network.table())?;
            if !terms.loss.is_finite() {
                let place = format!("epoch {epoch}, batch {batches}");
                return Err(TrainError::Numerical { what: "the loss of behaviour cloning", place });
            }
            self.optimizer.step(&mut self.parameters, gradient, learning_rate, None);
            sum += terms.loss;
            norm_sum += norm;
            batches += 1;
        }
        self.epochs_done = epoch;
        Ok(EpochReport {
            epoch,
            epochs: self.config.epochs,
            loss: sum / f64::from(batches),
            gradient_norm: norm_sum / f64::from(batches),
            learning_rate,
            samples: samples.len(),
        })
    }

    fn gather(&mut self, dataset: &Dataset, samples: &[Sample], indices: &[u32], horizon: usize) {
        let state_len = self.network.state_len();
        self.states.resize(indices.len() * state_len, 0.0);
        self.chunks.clear();
        for (&i, state) in indices.iter().zip(self.states.chunks_exact_mut(state_len)) {
            let sample = samples[i as usize];
            dataset.history(sample, state);
            self.chunks.extend_from_slice(dataset.chunk(sample, horizon));
        }
    }
}
