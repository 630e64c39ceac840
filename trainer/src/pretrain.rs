//! Pre-training: behaviour cloning of the denoiser (spec dppo.md §7.4).

use std::ops::ControlFlow;

use rand::Rng;
use serde::{Deserialize, Serialize};
use tenon_core::diffusion::NoiseSchedule;
use tenon_core::noise::{NoiseSource, SeededNoise};

use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::dataset::{Dataset, Sample};
use crate::error::TrainError;
use crate::network::{NoiseBatch, NoiseNetwork, NoiseRow};
use crate::optimizer::{AdamW, LrSchedule, gradient_norm, update_ema};
use crate::seeds::Stream;
use crate::workers::Workers;

/// What the network learns to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise ε: all experiments of the paper.
    #[default]
    Noise,
    /// The clean chunk x_0.
    Sample,
}

/// Settings of pre-training (spec dppo.md §6.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    pub epochs: u64,
    pub batch_size: usize,
    /// One scheduler step an epoch.
    pub lr: LrSchedule,
    pub weight_decay: f64,
    pub ema_decay: f64,
    /// Batches from one update of the average to the next.
    pub update_ema_freq: u64,
    /// Before this epoch (the first is 1) the average is a copy of the weights.
    pub epoch_start_ema: u64,
    /// Uses the first episodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_episodes: Option<usize>,
    #[serde(default)]
    pub prediction: Prediction,
}

impl PretrainConfig {
    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        for (key, value) in
            [("epochs", self.epochs), ("batch_size", self.batch_size as u64), ("update_ema_freq", self.update_ema_freq)]
        {
            if value == 0 {
                return Err(TrainError::Config { key, detail: "must be at least 1".into() });
            }
        }
        for (key, value) in [("ema_decay", self.ema_decay), ("weight_decay", self.weight_decay)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(TrainError::Config { key, detail: format!("{value} must lie between 0 and 1") });
            }
        }
        self.lr.check("lr")
    }
}

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
    /// `states`: `[rows, state_len]`; `chunks` (x_0) and `noise` (ε): `[rows, chunk_len]`; `t`: the step of each.
    pub fn gradient(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        states: &[f32],
        chunks: &[f32],
        t: &[u32],
        noise: &[f32],
    ) -> (f64, &[f32]) {
        let (len, state_len, rows) = (network.chunk_len(), network.state_len(), t.len());
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
                state: &states[i * state_len..(i + 1) * state_len],
                images: None,
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

/// What an epoch did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochReport {
    /// The first is 1.
    pub epoch: u64,
    pub epochs: u64,
    /// Mean over the epoch's batches.
    pub loss: f64,
    /// Mean norm of the batches' gradients.
    pub gradient_norm: f64,
    pub learning_rate: f64,
    pub samples: usize,
}

/// What is done after each epoch: write a checkpoint, show progress, break off.
pub type OnEpoch<'a> = dyn FnMut(&Pretrainer, &EpochReport) -> Result<ControlFlow<()>, TrainError> + 'a;

/// A run of pre-training. Everything that continues it is in its [`Checkpoint`].
#[derive(Debug)]
pub struct Pretrainer {
    config: PretrainConfig,
    run: RunInfo,
    network: NoiseNetwork,
    parameters: Vec<f32>,
    ema: Vec<f32>,
    optimizer: AdamW,
    loss: DenoisingLoss,
    shuffle: SeededNoise,
    diffusion: SeededNoise,
    epochs_done: u64,
    batches_done: u64,
    workers: Workers,
    buffers: BatchBuffers,
}

#[derive(Debug, Default)]
struct BatchBuffers {
    order: Vec<u32>,
    states: Vec<f32>,
    chunks: Vec<f32>,
    noise: Vec<f32>,
    t: Vec<u32>,
}

impl Pretrainer {
    /// A fresh run from `seed` on `threads` threads. The seed also goes into the checkpoint's provenance.
    pub fn new(config: PretrainConfig, mut run: RunInfo, seed: u64, threads: usize) -> Result<Self, TrainError> {
        run.provenance.insert("seed".into(), seed.to_string());
        let network = network_of(&run)?;
        let parameters = network.table().initialise(&mut Stream::ActorWeights.of(seed));
        let (shuffle, diffusion) = (Stream::Shuffle.of(seed), Stream::Diffusion.of(seed));
        Self::assemble(config, run, network, parameters, shuffle, diffusion, threads)
    }

    fn assemble(
        config: PretrainConfig,
        run: RunInfo,
        network: NoiseNetwork,
        parameters: Vec<f32>,
        shuffle: SeededNoise,
        diffusion: SeededNoise,
        threads: usize,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let workers = Workers::new(threads)?;
        let steps = run.policy.denoising.denoising_steps;
        let loss = DenoisingLoss::new(&network, &workers, config.batch_size, steps, config.prediction);
        Ok(Self {
            optimizer: AdamW::new(parameters.len(), config.weight_decay),
            ema: parameters.clone(),
            config,
            run,
            network,
            parameters,
            loss,
            shuffle,
            diffusion,
            epochs_done: 0,
            batches_done: 0,
            workers,
            buffers: BatchBuffers::default(),
        })
    }

    /// Continues the run of a checkpoint; with the same data it ends with the same bits as if never stopped.
    pub fn resume(config: PretrainConfig, checkpoint: &Checkpoint, threads: usize) -> Result<Self, TrainError> {
        if checkpoint.header.stage != Stage::Pretrain {
            let detail = "the checkpoint is of fine-tuning, not of pre-training".into();
            return Err(TrainError::Config { key: "resume", detail });
        }
        let run = checkpoint.header.run.clone();
        let network = network_of(&run)?;
        let parameters = checkpoint.parameters("network.", network.table())?;
        let ema = checkpoint.parameters("ema.", network.table())?;
        let shuffle = SeededNoise::restore(checkpoint.stream("shuffle")?);
        let diffusion = SeededNoise::restore(checkpoint.stream("diffusion")?);
        let mut this = Self::assemble(config, run, network, parameters, shuffle, diffusion, threads)?;
        this.ema = ema;
        checkpoint.restore_optimizer("network", this.network.table(), &mut this.optimizer)?;
        this.epochs_done = checkpoint.counter("epoch")?;
        this.batches_done = checkpoint.counter("batch")?;
        Ok(this)
    }

    /// Everything that continues this run, between two epochs.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut c = Checkpoint::new(Stage::Pretrain, self.run.clone());
        let table = self.network.table();
        c.put_parameters("network.", table, &self.parameters);
        c.put_parameters("ema.", table, &self.ema);
        c.put_optimizer("network", table, &self.optimizer);
        c.header.counters.insert("epoch".into(), self.epochs_done);
        c.header.counters.insert("batch".into(), self.batches_done);
        c.header.streams.insert("shuffle".into(), self.shuffle.state());
        c.header.streams.insert("diffusion".into(), self.diffusion.state());
        c
    }

    /// What the run is about.
    pub fn run_info(&self) -> &RunInfo {
        &self.run
    }

    /// The weights as trained.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The moving average: what fine-tuning and export use.
    pub fn ema(&self) -> &[f32] {
        &self.ema
    }

    /// The architecture.
    pub fn network(&self) -> &NoiseNetwork {
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
        let policy = &self.run.policy;
        let (horizon, state_len) = (policy.prediction_horizon, self.network.state_len());
        for (key, found, wanted) in [
            ("states", dataset.state_dim, policy.observation_dim()),
            ("actions", dataset.action_dim, policy.action_dim()),
        ] {
            if found != wanted {
                let detail = format!("the data set has {found} values a row, the policy {wanted}");
                return Err(TrainError::Config { key, detail });
            }
        }
        let samples = dataset.samples(horizon, self.config.max_episodes.unwrap_or(usize::MAX));
        if samples.is_empty() {
            let detail = format!("no episode is as long as the {horizon} steps of a chunk");
            return Err(TrainError::Config { key: "traj_lengths", detail });
        }
        let epoch = self.epochs_done + 1;
        let learning_rate = self.config.lr.rate(self.epochs_done);
        self.buffers.order = permutation(samples.len(), &mut self.shuffle);
        let order = std::mem::take(&mut self.buffers.order);
        let (mut sum, mut norm_sum, mut batches) = (0.0, 0.0, 0);
        for indices in order.chunks(self.config.batch_size) {
            self.gather(dataset, &samples, indices, horizon, state_len);
            let b = &self.buffers;
            let (loss, gradient) = self.loss.gradient(
                &self.workers,
                &self.network,
                &self.parameters,
                &b.states,
                &b.chunks,
                &b.t,
                &b.noise,
            );
            let norm = gradient_norm(gradient);
            if !loss.is_finite() || !norm.is_finite() {
                let place = gradient.iter().position(|g| !g.is_finite());
                let tensor = place.map_or("the loss", |i| self.network.table().name_at(i));
                let place = format!("epoch {epoch}, batch {batches}, {tensor}");
                return Err(TrainError::Numerical { what: "the denoising loss or its gradient", place });
            }
            self.optimizer.step(&mut self.parameters, gradient, learning_rate, None);
            if self.batches_done.is_multiple_of(self.config.update_ema_freq) {
                if epoch < self.config.epoch_start_ema {
                    self.ema.copy_from_slice(&self.parameters);
                } else {
                    update_ema(&mut self.ema, &self.parameters, self.config.ema_decay);
                }
            }
            self.batches_done += 1;
            sum += loss;
            norm_sum += norm;
            batches += 1;
        }
        self.buffers.order = order;
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

    /// Fills the buffers with a batch: states, chunks, t uniform in 0..K, ε ~ N(0, I).
    fn gather(&mut self, dataset: &Dataset, samples: &[Sample], indices: &[u32], horizon: usize, state_len: usize) {
        let (b, len) = (&mut self.buffers, self.network.chunk_len());
        b.states.resize(indices.len() * state_len, 0.0);
        b.noise.resize(indices.len() * len, 0.0);
        b.chunks.clear();
        b.t.clear();
        for (&i, state) in indices.iter().zip(b.states.chunks_exact_mut(state_len)) {
            let sample = samples[i as usize];
            dataset.history(sample, state);
            b.chunks.extend_from_slice(dataset.chunk(sample, horizon));
        }
        let steps = self.run.policy.denoising.denoising_steps as u32;
        b.t.extend((0..indices.len()).map(|_| self.diffusion.rng().random_range(0..steps)));
        self.diffusion.fill_standard_normal(&mut b.noise);
    }
}

fn network_of(run: &RunInfo) -> Result<NoiseNetwork, TrainError> {
    let policy = &run.policy;
    policy.check().map_err(|e| TrainError::Config { key: "policy", detail: e.to_string() })?;
    NoiseNetwork::new(&run.network, policy.state_len(), policy.prediction_horizon, policy.action_dim())
}

/// A random order of 0..n (Fisher–Yates).
pub fn permutation(n: usize, noise: &mut SeededNoise) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, noise.rng().random_range(0..=i as u32) as usize);
    }
    order
}
