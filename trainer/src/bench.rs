//! Micro-benchmarks of the numeric part, on random data. The program's `bench` command prints them.

use std::time::{Duration, Instant};

use tenon_core::diffusion::StepNoise;
use tenon_core::network::{Activation, CriticSpec, NetworkSpec};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::spec::{Denoising, Sampler};

use crate::dppo::{
    ChainMode, ChainSampler, FinetuneConfig, LossConfig, Policy, Samples, TimeOut, UpdateStats, Updater,
};
use crate::error::TrainError;
use crate::network::{Critic, NoiseNetwork};
use crate::optimizer::LrSchedule;
use crate::pretrain::permutation;
use crate::workers::Workers;

/// What one repetition took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Time on the clock.
    pub wall: Duration,
    /// Processor time of all threads: what stays comparable on a busy machine.
    pub cpu: Duration,
}

/// Repeats `work` `repetitions` times after one to warm up.
fn measure(repetitions: usize, mut work: impl FnMut() -> Result<(), TrainError>) -> Result<Vec<Timing>, TrainError> {
    work()?;
    (0..repetitions)
        .map(|_| {
            let (wall, cpu) = (Instant::now(), cpu_time());
            work()?;
            Ok(Timing { wall: wall.elapsed(), cpu: cpu_time().saturating_sub(cpu) })
        })
        .collect()
}

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; the clock exists on every Linux.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    if status == 0 { Duration::new(t.tv_sec as u64, t.tv_nsec as u32) } else { Duration::ZERO }
}

/// A policy of the paper with fresh weights.
fn policy(state_len: usize, action_dim: usize, activation: Activation, kept: usize) -> Result<Policy, TrainError> {
    let spec = NetworkSpec::diffusion_mlp(16, &[512; 3], &[], activation);
    let network = NoiseNetwork::new(&spec, state_len, 4, action_dim)?;
    let parameters = network.table().initialise(&mut SeededNoise::new(1, 0));
    let denoising = Denoising {
        denoising_steps: 20,
        finetuned_steps: kept,
        sampler: Sampler::Ddpm,
        denoised_clip: 1.0,
        noise_clip: 3.0,
        final_action_clip: None,
    };
    Ok(Policy::from_pretrained(network, parameters, denoising))
}

fn normal(n: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    SeededNoise::new(7, stream).fill_standard_normal(&mut values);
    values
}

/// DPPO update with the sizes of Hopper: state 11, chunk 4 × 3, actor 512 × 3 ReLU, critic 256 × 3 Mish, K' = 10.
///
/// A repetition is one minibatch of `rows` rows out of four times as many: actor and critic forward and backward, and
/// both optimiser steps.
pub fn update_hopper(threads: usize, rows: usize, repetitions: usize) -> Result<Vec<Timing>, TrainError> {
    let (state_len, steps) = (11, 10);
    let workers = Workers::new(threads)?;
    let policy = policy(state_len, 3, Activation::ReLU, steps)?;
    let chunk_len = policy.network.chunk_len();
    let n = (4 * rows).div_ceil(steps);
    let constant = LrSchedule::constant;
    let config = FinetuneConfig {
        loss: LossConfig {
            gamma_denoising: 0.99,
            clip_ploss_coef: 0.01,
            clip_ploss_coef_base: 0.01,
            clip_ploss_coef_rate: 3.0,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            clip_vloss_coef: None,
            vf_coef: 0.5,
            bc_loss_coeff: None,
            min_logprob_denoising_std: 0.1,
        },
        min_sampling_denoising_std: 0.1,
        eta: 1.0,
        gamma: 0.99,
        gae_lambda: 0.95,
        time_out: TimeOut::Bootstrap,
        reward_scale_running: true,
        reward_scale_const: 1.0,
        update_epochs: 1,
        batch_size: rows,
        target_kl: 1.0,
        n_critic_warmup_itr: 0,
        max_grad_norm: None,
        actor_lr: constant(1e-4),
        actor_weight_decay: 0.0,
        critic_lr: constant(1e-3),
        critic_weight_decay: 0.0,
    };
    let critic = Critic::new(&CriticSpec::state(&[256; 3], Activation::Mish), state_len)?;
    let mut updater = Updater::new(config, policy, critic, chunk_len, 40, 1, &workers)?;
    let states = normal(n * state_len, 0);
    let chains: Vec<f32> = normal(n * (steps + 1) * chunk_len, 1).iter().map(|x| 0.3 * x).collect();
    let (advantages, returns) = (normal(n, 2), normal(n, 3));
    let old_log_probs = vec![-0.5; n * steps];
    let samples = Samples {
        states: &states,
        chains: &chains,
        advantages: &advantages,
        returns: &returns,
        old_values: &returns,
        old_log_probs: &old_log_probs,
        steps,
        state_len,
        chunk_len,
    };
    let mut minibatch = permutation(n * steps, &mut SeededNoise::new(3, 0))[..rows].to_vec();
    minibatch.sort_unstable();
    let mut stats = UpdateStats { clip_fraction_of_step: vec![0.0; steps], ..Default::default() };
    measure(repetitions, || updater.step(&workers, &samples, &minibatch, &mut stats))
}

/// Sampling with the sizes of Lift: state 19, chunk 4 × 7, actor 512 × 3 Mish, DDPM with K = 20, K' = 10.
///
/// A repetition is one call: a chunk for each of `envs` environments.
pub fn sample_lift(threads: usize, envs: usize, repetitions: usize) -> Result<Vec<Timing>, TrainError> {
    let workers = Workers::new(threads)?;
    let policy = policy(19, 7, Activation::Mish, 10)?;
    let mut sampler = ChainSampler::new(&policy, &workers, envs);
    let states = normal(envs * 19, 0);
    let mut chains = vec![0.0; envs * 11 * policy.network.chunk_len()];
    let mut noise: Vec<SeededNoise> = (0..envs as u64).map(|e| SeededNoise::new(5, e)).collect();
    let mode = ChainMode { noise: StepNoise::Exploration { min_std: 0.1, eta: 1.0 }, base_policy: false };
    measure(repetitions, || {
        sampler.sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
        Ok(())
    })
}
