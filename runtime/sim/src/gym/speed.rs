//! How fast the Gym tasks step.

use std::time::Instant;

use rand::Rng;
use tenon_core::noise::SeededNoise;

use crate::batch::{BatchEnv, BatchOptions};
use crate::error::SimError;
use crate::gym::{CHUNK_STEPS, GymEnv, GymOptions, GymScene, GymTask};

/// What is measured: batches of environments that step together, with random actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeedOptions {
    /// The paper has 40.
    pub environments: usize,
    pub threads: usize,
    /// Chunks of four control steps that are timed one by one.
    pub chunks: usize,
}

impl Default for SpeedOptions {
    fn default() -> Self {
        Self { environments: 40, threads: 1, chunks: 100 }
    }
}

/// Control steps a second over the timed chunks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Median.
    pub p50: f64,
    /// The slow tail: 99 % of the chunks ran at least this fast.
    pub p99: f64,
    pub max: f64,
}

/// Result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedReport {
    pub task: GymTask,
    pub options: SpeedOptions,
    /// Control steps for each second of processor time, all threads together: what one core does.
    pub per_core: Rates,
    /// Control steps for each second that passed; other work on the machine slows it.
    pub per_second: Rates,
}

/// Steps a batch with actions U(±1), ended episodes followed by new ones, and times each chunk.
///
/// # Errors
/// As [`GymScene::new`] and [`BatchEnv::new`].
pub fn measure_speed(task: GymTask, options: SpeedOptions) -> Result<SpeedReport, SimError> {
    if options.chunks == 0 {
        return Err(SimError::BatchOptions { message: "nothing to measure: chunks is 0".to_owned() });
    }
    let scene = GymScene::new(task)?;
    let environments = (0..options.environments).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
    let batch_options = BatchOptions { threads: options.threads, chunk_steps: CHUNK_STEPS, auto_reset: true, seed: 0 };
    let mut batch = BatchEnv::new(environments, batch_options)?;
    batch.reset();
    let mut noise = SeededNoise::new(0, 0);
    let mut actions = vec![0.0; options.environments * CHUNK_STEPS * task.action_dim()];
    let (mut per_core, mut per_second) = (Vec::new(), Vec::new());
    // The first tenth warms up.
    let warm_up = options.chunks / 10;
    for chunk in 0..warm_up + options.chunks {
        actions.fill_with(|| noise.rng().random_range(-1.0..=1.0));
        let (wall, processor_s) = (Instant::now(), processor_time_s());
        batch.step_chunk(&actions)?;
        let (wall_s, processor_s) = (wall.elapsed().as_secs_f64(), processor_time_s() - processor_s);
        if chunk >= warm_up {
            let steps: usize = batch.outcomes().iter().map(|outcome| outcome.steps).sum();
            per_core.push(steps as f64 / processor_s);
            per_second.push(steps as f64 / wall_s);
        }
    }
    Ok(SpeedReport { task, options, per_core: rates(per_core), per_second: rates(per_second) })
}

fn rates(mut samples: Vec<f64>) -> Rates {
    samples.sort_by(f64::total_cmp);
    Rates { p50: samples[samples.len() / 2], p99: samples[samples.len() / 100], max: samples[samples.len() - 1] }
}

/// Processor time of this process, seconds.
fn processor_time_s() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
}
