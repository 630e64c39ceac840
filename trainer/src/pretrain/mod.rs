//! Pre-training: behaviour cloning of every policy (spec dppo.md §7.4).
//!
//! A diffusion policy learns to denoise, a Gaussian one to make the demonstrations likely; the loop around them is one.

mod cloning_noise;
mod denoising;
mod objective;

use std::ops::ControlFlow;

use rand::Rng;
use serde::{Deserialize, Serialize};
use tenon_core::noise::SeededNoise;
use tenon_core::randomisation::Randomisation;

pub use denoising::DenoisingLoss;
pub use tenon_core::spec::Prediction;

use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::dataset::{Dataset, Pictures, Sample};
use crate::error::TrainError;
use crate::network::ParameterTable;
use crate::optimizer::{AdamW, LrSchedule, gradient_norm, update_ema};
use crate::seeds::Stream;
use crate::workers::{Compute, Workers};
use cloning_noise::CloningNoise;
use objective::{Batch, Objective};

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
    /// Gaussian policies: weight of minus the entropy; 0 in all settings of the paper.
    #[serde(default)]
    pub ent_coef: f64,
    /// Shifts pictures at random (spec dppo.md §3.4).
    #[serde(default)]
    pub augment: bool,
    /// Noise on what is seen.
    #[serde(skip)]
    pub randomisation: Option<Randomisation>,
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
        if !(self.ent_coef.is_finite() && self.ent_coef >= 0.0) {
            let detail = format!("{} must not be negative", self.ent_coef);
            return Err(TrainError::Config { key: "ent_coef", detail });
        }
        self.lr.check("lr")
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
    objective: Objective,
    parameters: Vec<f32>,
    ema: Vec<f32>,
    optimizer: AdamW,
    shuffle: SeededNoise,
    /// Time steps and noise; a Gaussian policy draws none.
    diffusion: SeededNoise,
    pictures: SeededNoise,
    randomisation: Option<CloningNoise>,
    epochs_done: u64,
    batches_done: u64,
    workers: Workers,
    batch: Batch,
}

impl Pretrainer {
    /// A fresh run from `seed`. The seed also goes into the checkpoint's provenance.
    pub fn new(
        config: PretrainConfig,
        mut run: RunInfo,
        seed: u64,
        compute: impl Into<Compute>,
    ) -> Result<Self, TrainError> {
        run.provenance.insert("seed".into(), seed.to_string());
        let workers = Workers::new(compute)?;
        let objective = Objective::new(&config, &run, &workers)?;
        let parameters = objective.initialise(&mut Stream::ActorWeights.of(seed));
        let streams = [Stream::Shuffle, Stream::Diffusion, Stream::Pictures].map(|stream| stream.of(seed));
        let mut this = Self::assemble(config, run, objective, parameters, streams, workers)?;
        this.randomise(Stream::CloningNoise.of(seed));
        Ok(this)
    }

    /// `stream`: of the noise on what is seen, where there is one.
    fn randomise(&mut self, stream: SeededNoise) {
        self.randomisation = self.config.randomisation.clone().map(|noise| CloningNoise::new(noise, stream));
    }

    fn assemble(
        config: PretrainConfig,
        run: RunInfo,
        objective: Objective,
        parameters: Vec<f32>,
        [shuffle, diffusion, pictures]: [SeededNoise; 3],
        workers: Workers,
    ) -> Result<Self, TrainError> {
        config.check()?;
        Ok(Self {
            optimizer: AdamW::new(parameters.len(), config.weight_decay),
            ema: parameters.clone(),
            config,
            run,
            objective,
            parameters,
            shuffle,
            diffusion,
            pictures,
            randomisation: None,
            epochs_done: 0,
            batches_done: 0,
            workers,
            batch: Batch::default(),
        })
    }

    /// Continues the run of a checkpoint; with the same data it ends with the same bits as if never stopped.
    pub fn resume(
        config: PretrainConfig,
        checkpoint: &Checkpoint,
        compute: impl Into<Compute>,
    ) -> Result<Self, TrainError> {
        if checkpoint.header.stage != Stage::Pretrain {
            let detail = "the checkpoint is of fine-tuning, not of pre-training".into();
            return Err(TrainError::Config { key: "resume", detail });
        }
        let run = checkpoint.header.run.clone();
        let workers = Workers::new(compute)?;
        let objective = Objective::new(&config, &run, &workers)?;
        let parameters = checkpoint.parameters("network.", objective.table())?;
        let ema = checkpoint.parameters("ema.", objective.table())?;
        let stream = |name| checkpoint.stream(name).map(SeededNoise::restore);
        let streams = [stream("shuffle")?, stream("diffusion")?, stream("pictures")?];
        let mut this = Self::assemble(config, run, objective, parameters, streams, workers)?;
        this.ema = ema;
        checkpoint.restore_optimizer("network", this.objective.table(), &mut this.optimizer)?;
        this.epochs_done = checkpoint.counter("epoch")?;
        this.batches_done = checkpoint.counter("batch")?;
        if this.config.randomisation.is_some() {
            this.randomise(stream("randomisation")?);
        }
        Ok(this)
    }

    /// Everything that continues this run, between two epochs.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut c = Checkpoint::new(Stage::Pretrain, self.run.clone());
        let table = self.objective.table();
        c.put_parameters("network.", table, &self.parameters);
        c.put_parameters("ema.", table, &self.ema);
        c.put_optimizer("network", table, &self.optimizer);
        c.header.counters.insert("epoch".into(), self.epochs_done);
        c.header.counters.insert("batch".into(), self.batches_done);
        c.header.streams.insert("shuffle".into(), self.shuffle.state());
        c.header.streams.insert("diffusion".into(), self.diffusion.state());
        c.header.streams.insert("pictures".into(), self.pictures.state());
        if let Some(noise) = &self.randomisation {
            c.header.streams.insert("randomisation".into(), noise.stream.state());
        }
        c
    }

    /// What the run is about.
    pub fn run_info(&self) -> &RunInfo {
        &self.run
    }

    /// The weights as trained: what fine-tuning of a Gaussian policy begins with (spec dppo.md §4).
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The moving average: what fine-tuning begins with, and export takes.
    pub fn ema(&self) -> &[f32] {
        &self.ema
    }

    /// Names and places of the parameters.
    pub fn table(&self) -> &ParameterTable {
        self.objective.table()
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
        let samples = self.samples(dataset)?;
        let epoch = self.epochs_done + 1;
        let learning_rate = self.config.lr.rate(self.epochs_done);
        let order = permutation(samples.len(), &mut self.shuffle);
        let (mut sum, mut norm_sum, mut batches) = (0.0, 0.0, 0);
        for indices in order.chunks(self.config.batch_size) {
            let policy = &self.run.policy;
            self.batch.gather(dataset, &samples, indices, policy.state_len(), policy.prediction_horizon);
            if let Some(noise) = &mut self.randomisation {
                noise.disturb(&policy.normalizer, self.batch.states_mut(), policy.state_len());
            }
            if self.config.augment {
                self.batch.shift_pictures(dataset, &mut self.pictures);
            }
            let (loss, gradient) =
                self.objective.gradient(&self.workers, &self.parameters, &mut self.batch, &mut self.diffusion);
            let norm = gradient_norm(gradient);
            if !loss.is_finite() || !norm.is_finite() {
                let place = gradient.iter().position(|g| !g.is_finite());
                let tensor = place.map_or("the loss".into(), |i| self.objective.table().name_at(i).to_string());
                let place = format!("epoch {epoch}, batch {batches}, {tensor}");
                return Err(TrainError::Numerical { what: "the loss of pre-training or its gradient", place });
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

    /// The samples of a data set that fits the policy.
    fn samples(&self, dataset: &Dataset) -> Result<Vec<Sample>, TrainError> {
        let policy = &self.run.policy;
        for (key, found, wanted) in [
            ("states", dataset.state_dim, policy.observation_dim()),
            ("actions", dataset.action_dim, policy.action_dim()),
        ] {
            if found != wanted {
                let detail = format!("the data set has {found} values a row, the policy {wanted}");
                return Err(TrainError::Config { key, detail });
            }
        }
        let image_len = self.objective.image_len();
        let found = dataset.pictures.as_ref().map_or(0, Pictures::frame_len);
        if image_len > 0 && found != image_len {
            let detail = format!("the policy sees {image_len} bytes of pictures, a frame of the data set has {found}");
            return Err(TrainError::Config { key: "images", detail });
        }
        let horizon = policy.prediction_horizon;
        let samples = dataset.samples(horizon, self.config.max_episodes.unwrap_or(usize::MAX));
        if samples.is_empty() {
            let detail = format!("no episode is as long as the {horizon} steps of a chunk");
            return Err(TrainError::Config { key: "traj_lengths", detail });
        }
        Ok(samples)
    }
}

/// A random order of 0..n (Fisher–Yates).
pub fn permutation(n: usize, noise: &mut SeededNoise) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, noise.rng().random_range(0..=i as u32) as usize);
    }
    order
}
