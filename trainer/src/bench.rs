//! Benchmarks of the trainer on random data. The program's `bench` command prints them, beside a peer's if there is one.

use tenon_core::diffusion::StepNoise;
use tenon_core::network::{Activation, ConditionEncoder, CriticSpec, NetworkSpec, UnetSpec};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::{Denoising, PolicySpec, Prediction, SPEC_VERSION, Sampler};
use tenon_core::task::TaskName;
use tenon_sim::gym::CHUNK_STEPS;

use crate::actor_critic::ActorCriticSettings;
use crate::device::Choice;
use crate::dppo::{ChainMode, ChainSampler, FinetuneConfig, Policy, Samples, Sums, Updater};
use crate::environments::{BatchSettings, TaskBatch};
use crate::error::TrainError;
use crate::finetune::{CollectTimes, Collector};
use crate::network::{Critic, NoiseNetwork, ParameterTable};
use crate::pretrain::permutation;
use crate::sampling::{ChunkMode, PolicyRef};
pub use crate::stopwatch::Timing;
use crate::stopwatch::timed;
use crate::workers::{Compute, Workers};

/// What the parts of one repetition took, in their order.
pub type Parts = Vec<(&'static str, Timing)>;

/// How large and how parallel the work is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    pub threads: usize,
    /// Where networks are computed.
    pub device: Choice,
    /// Rows of a minibatch of the update.
    pub rows: usize,
    /// Environments that sample together.
    pub environments: usize,
    /// Whether benches that take minutes compute a share of their work and multiply its times.
    pub quick: bool,
}

impl Sizes {
    fn workers(&self) -> Result<Workers, TrainError> {
        Workers::new(Compute { threads: self.threads, device: self.device.open()? })
    }
}

/// One benchmark: a line of [`BENCHES`].
#[derive(Clone, Copy)]
pub struct Bench {
    pub name: &'static str,
    /// In what times are printed …
    pub unit: &'static str,
    /// … and how many of that unit a second of one repetition is.
    pub units_in_second: fn(&Sizes) -> f64,
    /// Repetitions where nobody says how many.
    pub repetitions: usize,
    /// Whether the first repetition is thrown away (not where it takes minutes and fills its caches by itself).
    pub warm_up: bool,
    pub build: fn(&Sizes) -> Result<Case, TrainError>,
}

/// A benchmark with its data, ready to be repeated.
pub struct Case {
    /// Multiplications and additions that the plain mathematics of one repetition needs: twice the weights for each row
    /// and forward pass, three times that with the backward pass. What an implementation saves or does twice is not
    /// counted, so rates of two implementations compare like their times.
    pub flops: f64,
    /// Does the work once.
    pub work: Box<dyn FnMut() -> Result<Parts, TrainError>>,
}

/// Every benchmark; the program prints them as `trainer/<name>`.
pub const BENCHES: [Bench; 4] = [
    Bench {
        name: "update_hopper",
        unit: "us/sample",
        units_in_second: |sizes| 1e6 / sizes.rows as f64,
        repetitions: 7,
        warm_up: true,
        build: update_hopper,
    },
    Bench {
        name: "sample_lift",
        unit: "ms/call",
        units_in_second: |_| 1e3,
        repetitions: 50,
        warm_up: true,
        build: sample_lift,
    },
    Bench {
        name: "sample_one_leg",
        unit: "ms/call",
        units_in_second: |_| 1e3,
        repetitions: 15,
        warm_up: true,
        build: sample_one_leg,
    },
    Bench {
        name: "iteration_hopper",
        unit: "s/iteration",
        units_in_second: |_| 1.0,
        repetitions: 3,
        warm_up: false,
        build: iteration_hopper,
    },
];

/// Times `work` as the only part of a repetition.
fn whole(name: &'static str, work: impl FnOnce() -> Result<(), TrainError>) -> Result<Parts, TrainError> {
    let (result, timing) = timed(work);
    result.map(|()| vec![(name, timing)])
}

/// Multiplications and additions of one row through an MLP; biases and norms count as nothing.
fn forward_flops(table: &ParameterTable) -> f64 {
    table.iter().filter(|(_, shape, _)| shape.len() >= 2).map(|(_, _, range)| 2.0 * range.len() as f64).sum()
}

/// A policy of the paper with fresh weights, and the operations of one row through its network.
fn policy(
    spec: &NetworkSpec,
    [state_len, horizon, action_dim]: [usize; 3],
    denoising_steps: usize,
    sampler: Sampler,
    kept: usize,
) -> Result<(Policy, f64), TrainError> {
    let network = NoiseNetwork::new(spec, state_len, horizon, action_dim)?;
    let parameters = network.table().initialise(&mut SeededNoise::new(1, 0));
    let denoising = Denoising {
        denoising_steps,
        finetuned_steps: kept,
        sampler,
        denoised_clip: 1.0,
        noise_clip: 3.0,
        final_action_clip: None,
        prediction: Prediction::Noise,
        step_counts: Vec::new(),
    };
    let flops = 2.0 * spec.listing(state_len, horizon, action_dim).multiply_adds() as f64;
    Ok((Policy::from_pretrained(network, parameters, denoising), flops))
}

/// The MLP of Gym and Robomimic.
fn mlp(activation: Activation) -> NetworkSpec {
    NetworkSpec::diffusion_mlp(16, &[512; 3], &[], activation)
}

fn normal(n: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    SeededNoise::new(7, stream).fill_standard_normal(&mut values);
    values
}

/// The paper's settings of Gym.
fn hopper_settings(batch_size: usize, update_epochs: usize) -> FinetuneConfig {
    let actor_critic = ActorCriticSettings { update_epochs, batch_size, ..Default::default() };
    FinetuneConfig { actor_critic, ..Default::default() }
}

/// DPPO update with the sizes of Hopper: state 11, chunk 4 × 3, actor 512 × 3 ReLU, critic 256 × 3 Mish, K' = 10.
///
/// A repetition is one minibatch of `rows` rows out of four times as many: actor and critic forward and backward, and
/// both optimiser steps.
fn update_hopper(sizes: &Sizes) -> Result<Case, TrainError> {
    let (state_len, steps, rows) = (11, 10, sizes.rows);
    let workers = sizes.workers()?;
    let (policy, actor_flops) = policy(&mlp(Activation::ReLU), [state_len, 4, 3], 20, Sampler::Ddpm, steps)?;
    let chunk_len = policy.network.chunk_len();
    let n = (4 * rows).div_ceil(steps);
    let config = hopper_settings(rows, 1);
    let critic = Critic::new(&CriticSpec::state(&[256; 3], Activation::Mish), state_len)?;
    let flops = 3.0 * rows as f64 * (actor_flops + forward_flops(critic.table()));
    let mut updater = Updater::new(config, policy, critic, chunk_len, 40, 1, &workers)?;
    let states = normal(n * state_len, 0);
    let chains: Vec<f32> = normal(n * (steps + 1) * chunk_len, 1).iter().map(|x| 0.3 * x).collect();
    let (advantages, returns) = (normal(n, 2), normal(n, 3));
    let old_log_probs = vec![-0.5; n * steps];
    let mut minibatch = permutation(n * steps, &mut SeededNoise::new(3, 0))[..rows].to_vec();
    minibatch.sort_unstable();
    let mut sums = Sums::new(steps);
    let work = move || {
        let samples = Samples {
            observations: (&states).into(),
            chains: &chains,
            advantages: &advantages,
            returns: &returns,
            old_values: &returns,
            old_log_probs: &old_log_probs,
            steps,
            state_len,
            image_len: 0,
            chunk_len,
        };
        whole("update", || updater.step(&workers, &samples, &[&minibatch], 0, &mut sums))
    };
    Ok(Case { flops, work: Box::new(work) })
}

/// Sampling with the sizes of Lift: state 19, chunk 4 × 7, actor 512 × 3 Mish, DDPM with K = 20, K' = 10.
fn sample_lift(sizes: &Sizes) -> Result<Case, TrainError> {
    let policy = policy(&mlp(Activation::Mish), [19, 4, 7], 20, Sampler::Ddpm, 10)?;
    sampling(sizes, policy)
}

/// Sampling with the sizes of One-leg: state 58, chunk 16 × 10, U-Net 64 · (1, 2, 4), DDIM with S = 5 of K = 100, K' = 5.
fn sample_one_leg(sizes: &Sizes) -> Result<Case, TrainError> {
    let unet = NetworkSpec::Unet(UnetSpec {
        time_dim: 16,
        dim: 64,
        dim_mults: vec![1, 2, 4],
        kernel_size: 5,
        groups: 8,
        group_norm_eps: 1e-5,
        activation: Activation::Mish,
        condition_encoder: ConditionEncoder::Large,
        condition_scales: true,
        cond_mlp_dims: vec![],
    });
    let policy = policy(&unet, [58, 16, 10], 100, Sampler::Ddim { steps: 5 }, 5)?;
    sampling(sizes, policy)
}

/// A repetition is one call: a chunk for each of `sizes.environments`.
fn sampling(sizes: &Sizes, (mut policy, flops): (Policy, f64)) -> Result<Case, TrainError> {
    let envs = sizes.environments;
    let workers = sizes.workers()?;
    policy.network = policy.network.on(workers.device());
    let mut sampler = ChainSampler::new(&policy, &workers, envs);
    let states = normal(envs * policy.network.state_len(), 0);
    let mut chains = vec![0.0; envs * (policy.finetuned_steps() + 1) * policy.network.chunk_len()];
    let mut noise: Vec<SeededNoise> = (0..envs as u64).map(|e| SeededNoise::new(5, e)).collect();
    let exploration = StepNoise::Exploration { min_std: 0.1, eta: 1.0 };
    let mode = ChainMode { noise: exploration, base_policy: false };
    let flops = (envs * policy.denoising.steps(exploration).len()) as f64 * flops;
    let work = move || {
        whole("sampling", || {
            sampler.sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
            Ok(())
        })
    };
    Ok(Case { flops, work: Box::new(work) })
}

/// One iteration of Hopper: 40 environments, 500 chunks of 4 steps each, then 5 epochs of 4 minibatches of 50 000 rows.
/// Fresh weights, so the body falls early.
fn iteration_hopper(sizes: &Sizes) -> Result<Case, TrainError> {
    let (envs, steps, kept) = (40, if sizes.quick { 25 } else { 500 }, 10);
    let task = TaskName::Hopper;
    let dims = [task.observation_dim(), CHUNK_STEPS, task.action_dim()];
    let workers = sizes.workers()?;
    let (policy, actor_flops) = policy(&mlp(Activation::ReLU), dims, 20, Sampler::Ddpm, kept)?;
    let critic = Critic::new(&CriticSpec::state(&[256; 3], Activation::Mish), dims[0])?;
    let critic_flops = forward_flops(critic.table());
    let normalizer = Normalizer::new(Limits::symmetric(5.0, dims[0]), Limits::symmetric(1.0, dims[2]));
    let spec = PolicySpec {
        spec_version: SPEC_VERSION,
        task: task.to_string(),
        observation: task.observation(),
        action: task.action(),
        observation_horizon: 1,
        prediction_horizon: CHUNK_STEPS,
        action_horizon: CHUNK_STEPS,
        period_s: task.period_s(),
        observation_delay_steps: 0,
        denoising: Some(policy.denoising.clone()),
        normalizer,
        pictures: None,
    };
    let settings = BatchSettings { environments: envs, threads: sizes.threads, seed: 1, auto_reset: true };
    let mut batch = TaskBatch::new(task, &spec, settings)?;
    let samples = (envs * steps) as f64;
    let (rows, epochs) = (samples * kept as f64, 5.0);
    let update = hopper_settings((rows / 4.0) as usize, epochs as usize);
    let flops = samples * 20.0 * actor_flops
        + rows * actor_flops
        + samples * critic_flops
        + 3.0 * epochs * rows * (actor_flops + critic_flops);
    let mut updater = Updater::new(update, policy, critic, CHUNK_STEPS * dims[2], envs, 1, &workers)?;
    let streams = (0..envs as u64).map(|e| SeededNoise::new(5, e)).collect();
    let mut collector = Collector::new(PolicyRef::Diffusion(&updater.policy), &workers, steps, streams);
    let share = 500 / steps as u32;
    batch.reset();
    let work = move || {
        let (policy, mode) = (PolicyRef::Diffusion(&updater.policy), ChunkMode::Diffusion(updater.exploration()));
        let times = collector.collect(&workers, policy, mode, &mut batch, &|| false, &mut |_, _| {})?;
        let (stats, update) = timed(|| updater.update(&workers, collector.rollout()));
        stats?;
        let CollectTimes { sampling, environment, .. } = times.unwrap_or_default();
        let scaled = |t: Timing| Timing { wall: t.wall * share, cpu: t.cpu * share };
        Ok([("sampling", sampling), ("environment", environment), ("update", update)]
            .map(|(name, t)| (name, scaled(t)))
            .to_vec())
    };
    Ok(Case { flops: flops * f64::from(share), work: Box::new(work) })
}
