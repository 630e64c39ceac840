//! Demonstrations of the Robomimic tasks by scripted experts (`tenon_sim::robomimic::expert`).
//!
//! They stand in for the public data of several human operators, which cannot be had from a package: as many episodes, with
//! speeds, unsteadiness, pauses, failed grips and ways of doing it that differ from episode to episode. An episode depends
//! on seed and number only, never on the threads.

use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use tenon_core::task::{TaskFamily, TaskName};
use tenon_sim::SimError;
use tenon_sim::batch::{Environment, episode_seed};
use tenon_sim::robomimic::expert::Expert;
use tenon_sim::robomimic::{
    RobomimicEnv, RobomimicOptions as EnvOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals,
};

use super::gym::Recording;
use crate::error::TrainError;
use crate::run_dir::write_json;
use crate::seeds::Stream;

/// Attempts at one episode before the task counts as impossible.
const MOST_ATTEMPTS: u64 = 40;
/// Control steps for which the task stays done before an episode ends: more than a chunk of any policy.
const DONE_STEPS: usize = 10;

/// What to demonstrate.
#[derive(Debug, Clone, Copy)]
pub struct RobomimicOptions {
    pub task: TaskName,
    pub episodes: usize,
    pub seed: u64,
    pub threads: usize,
    /// Whether episodes count in which the task was not done; else they are attempted anew.
    pub keep_failures: bool,
}

/// What demonstrating gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RobomimicReport {
    pub recording: Recording,
    /// Attempts in all, and those in which the task was done.
    pub attempts: usize,
    pub successes: usize,
    /// Whether `stop` asked to end early; the episodes are then incomplete.
    pub stopped: bool,
}

/// `summary.json` of such data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RobomimicSummary {
    pub task: String,
    pub episodes: usize,
    pub frames: usize,
    /// Episodes in which the task is not done.
    pub failures_kept: usize,
    pub attempts: usize,
    /// Share of the attempts in which the task was done.
    pub expert_success: f64,
    /// Shortest, mean and longest episode, steps.
    pub steps_per_episode: [f64; 3],
    pub seed: u64,
    pub seconds: f64,
    /// Of `train.npz`.
    pub sha256: String,
}

fn simulation(error: SimError) -> TrainError {
    TrainError::Config { key: "simulation", detail: error.to_string() }
}

/// The simulation's name of a task.
///
/// # Errors
/// [`TrainError::Config`] for a task without an expert.
fn robomimic_task(task: TaskName) -> Result<RobomimicTask, TrainError> {
    let known = (task.family() == TaskFamily::Robomimic).then(|| task.as_str().parse().ok()).flatten();
    known.ok_or_else(|| TrainError::Config {
        key: "task",
        detail: format!("{task} has no scripted expert: lift, can, square and transport have one"),
    })
}

/// Lets the task's expert demonstrate. `stop` is asked often; `on_episode(steps, attempts)` is told of each that is done.
///
/// # Errors
/// [`TrainError::Config`] for another task, or where the scenes are missing.
pub fn demonstrate(
    options: RobomimicOptions,
    stop: &(dyn Fn() -> bool + Sync),
    on_episode: &(dyn Fn(usize, usize) + Sync),
) -> Result<RobomimicReport, TrainError> {
    let task = robomimic_task(options.task)?;
    let scene = RobomimicScene::new(task, SceneSizes::reference(task), Visuals::Without).map_err(simulation)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.max(1))
        .thread_name(|i| format!("demos-{i}"))
        .build()
        .map_err(|e| TrainError::Workers { threads: options.threads, detail: e.to_string() })?;
    let made: Vec<Result<Option<Made>, TrainError>> = pool.install(|| {
        (0..options.episodes)
            .into_par_iter()
            .with_max_len(1)
            .map(|episode| {
                let made = one_episode(&scene, options, episode as u64, stop)?;
                if let Some(made) = &made {
                    on_episode(made.episode.frames(), made.attempts);
                }
                Ok(made)
            })
            .collect()
    });
    let mut report = RobomimicReport::default();
    for made in made {
        match made? {
            Some(made) => {
                report.recording.extend(&made.episode);
                report.attempts += made.attempts;
                report.successes += usize::from(made.succeeded);
            }
            None => report.stopped = true,
        }
    }
    Ok(report)
}

struct Made {
    episode: Recording,
    attempts: usize,
    succeeded: bool,
}

/// Demonstrates until the task is done, or once; `None` where `stop` said so.
fn one_episode(
    scene: &RobomimicScene,
    options: RobomimicOptions,
    episode: u64,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Made>, TrainError> {
    let task = scene.task();
    // The operators' things differ in size from episode to episode where the reference draws them.
    let sizes = SceneSizes::drawn(task, episode_seed(options.seed, episode, u64::MAX));
    let mut env = if sizes == scene.sizes() {
        RobomimicEnv::new(scene, EnvOptions::default())
    } else {
        let scene = RobomimicScene::new(task, sizes, Visuals::Without).map_err(simulation)?;
        RobomimicEnv::new(&scene, EnvOptions::default())
    };
    for attempt in 0..MOST_ATTEMPTS {
        let seed = episode_seed(options.seed, episode, attempt);
        let Some((recorded, succeeded)) = attempt_once(&mut env, seed, stop) else { return Ok(None) };
        if succeeded || options.keep_failures {
            return Ok(Some(Made { episode: recorded, attempts: attempt as usize + 1, succeeded }));
        }
    }
    let detail = format!("the expert of {task} failed {MOST_ATTEMPTS} times in a row: scene and expert do not fit");
    Err(TrainError::Config { key: "demos", detail })
}

/// One attempt: what was seen and done, and whether the task was done at its end.
fn attempt_once(env: &mut RobomimicEnv, seed: u64, stop: &(dyn Fn() -> bool + Sync)) -> Option<(Recording, bool)> {
    let task = env.task();
    let mut observation = vec![0.0; task.observation_dim()];
    let mut action = vec![0.0; task.action_dim()];
    env.reset(seed, &mut observation);
    let mut expert = Expert::new(task, seed, Stream::Demonstrations.number(), &observation);
    let mut recorded = Recording::default();
    let mut done_steps = 0;
    loop {
        if stop() {
            return None;
        }
        expert.act(&observation, &mut action);
        recorded.observations.extend(observation.iter().map(|&value| value as f32));
        // The executed action is made from the stored one, so a replay of the file makes the same motion.
        for value in &mut action {
            let stored = *value as f32;
            recorded.actions.push(stored);
            *value = f64::from(stored);
        }
        let outcome = env.step(&action, &mut observation);
        recorded.rewards.push(outcome.reward as f32);
        recorded.terminals.push(false);
        done_steps = if outcome.reward > 0.0 { done_steps + 1 } else { 0 };
        if done_steps >= DONE_STEPS || outcome.ended() {
            break;
        }
    }
    recorded.lengths = vec![recorded.rewards.len()];
    recorded.returns = vec![recorded.rewards.iter().map(|&reward| f64::from(reward)).sum()];
    Some((recorded, done_steps >= DONE_STEPS))
}

/// Writes `train.npz` (normalised by its own limits), `normalization.npz` and `summary.json` into `folder`.
///
/// # Errors
/// [`TrainError`] where the folder cannot be written.
pub fn write_demonstrations(
    folder: &Path,
    options: RobomimicOptions,
    report: RobomimicReport,
    seconds: f64,
) -> Result<RobomimicSummary, TrainError> {
    let lengths = report.recording.lengths.clone();
    let (episodes, frames) = (lengths.len(), report.recording.frames());
    let extreme = |pick: fn(usize, usize) -> usize| lengths.iter().copied().reduce(pick).unwrap_or(0) as f64;
    let summary = RobomimicSummary {
        task: options.task.to_string(),
        episodes,
        frames,
        failures_kept: episodes - report.successes,
        attempts: report.attempts,
        expert_success: report.successes as f64 / report.attempts.max(1) as f64,
        steps_per_episode: [extreme(usize::min), frames as f64 / episodes.max(1) as f64, extreme(usize::max)],
        seed: options.seed,
        seconds,
        sha256: report.recording.write_normalized(folder, options.task)?,
    };
    write_json(&folder.join("summary.json"), &summary)?;
    Ok(summary)
}
