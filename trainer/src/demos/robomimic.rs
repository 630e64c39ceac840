//! Demonstrations of the Robomimic tasks by scripted experts (`tenon_sim::robomimic::expert`).
//!
//! They stand in for the public data of several human operators, which cannot be had from a package: as many episodes, with
//! speeds, unsteadiness, pauses, failed grips and ways of doing it that differ from episode to episode. An episode depends
//! on seed and number only, never on the threads.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tenon_core::task::TaskName;
use tenon_sim::SimError;
use tenon_sim::batch::{BatchPictures, Environment, episode_seed};
use tenon_sim::render::Quality;
use tenon_sim::robomimic::expert::Expert;
use tenon_sim::robomimic::{
    RobomimicEnv, RobomimicOptions as EnvOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals,
};

use super::gym::Recording;
use crate::environments::look_of;
use crate::error::TrainError;
use crate::film::{Camera, FilmOptions, FilmReport, FilmedEpisode, Reel};
use crate::run_dir::{create_folder, write_json};
use crate::seeds::Stream;

/// Attempts at one episode before the task counts as impossible.
const MOST_ATTEMPTS: u64 = 40;
/// Control steps for which the task stays done before an episode ends: more than a chunk of any policy.
const DONE_STEPS: usize = 10;

/// What was made, beside the data.
const SUMMARY_FILE: &str = "summary.json";

/// What to demonstrate.
#[derive(Debug, Clone, Copy)]
pub struct RobomimicOptions {
    pub task: TaskName,
    pub episodes: usize,
    pub seed: u64,
    pub threads: usize,
    /// Whether episodes count in which the task was not done; else they are attempted anew.
    pub keep_failures: bool,
    /// Quality of the pictures that are recorded where the task's policies see some.
    pub pictures: Quality,
}

/// What demonstrating gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RobomimicReport {
    pub recording: Recording,
    /// Of the first episodes, where films were asked for.
    pub film: Option<FilmReport>,
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
    /// Quality of the recorded pictures; none where the task's policies see none.
    pub pictures: Option<Quality>,
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
    match task {
        TaskName::Lift | TaskName::LiftPixels => Ok(RobomimicTask::Lift),
        TaskName::Can | TaskName::CanPixels => Ok(RobomimicTask::Can),
        TaskName::Square | TaskName::SquarePixels => Ok(RobomimicTask::Square),
        TaskName::Transport | TaskName::TransportPixels => Ok(RobomimicTask::Transport),
        other => Err(TrainError::Config {
            key: "task",
            detail: format!("{other} has no scripted expert: lift, can, square and transport have one"),
        }),
    }
}

/// Lets the task's expert demonstrate. `film`: how the first of the episodes are filmed, and how many. `stop` is asked often;
/// `on_episode(steps, attempts)` is told of each that is done.
///
/// # Errors
/// [`TrainError::Config`] for another task, where the scenes are missing, or where nothing can be drawn.
pub fn demonstrate(
    options: RobomimicOptions,
    film: Option<FilmOptions<'_>>,
    stop: &(dyn Fn() -> bool + Sync),
    on_episode: &(dyn Fn(usize, usize) + Sync),
) -> Result<RobomimicReport, TrainError> {
    let task = robomimic_task(options.task)?;
    let threads = options.threads.max(1);
    let pictures = look_of(options.task, options.pictures).map(|look| BatchPictures::new(look, threads));
    if let Some(film) = &film {
        create_folder(film.folder)?;
    }
    let stage = Stage {
        scene: RobomimicScene::new(task, SceneSizes::reference(task), Visuals::Without).map_err(simulation)?,
        options,
        pictures: pictures.transpose().map_err(simulation)?,
        film,
        stop,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("demos-{i}"))
        .build()
        .map_err(|e| TrainError::Workers { threads: options.threads, detail: e.to_string() })?;
    let made: Vec<Result<Option<Made>, TrainError>> = pool.install(|| {
        (0..options.episodes)
            .into_par_iter()
            .with_max_len(1)
            .map(|episode| {
                let made = stage.one_episode(episode)?;
                if let Some(made) = &made {
                    on_episode(made.episode.frames(), made.attempts);
                }
                Ok(made)
            })
            .collect()
    });
    let mut report = RobomimicReport::default();
    let (mut backend, mut filmed) = (None, Vec::new());
    for made in made {
        match made? {
            Some(made) => {
                report.recording.extend(&made.episode);
                report.attempts += made.attempts;
                report.successes += usize::from(made.succeeded);
                if let Some((renderer, film)) = made.film {
                    backend = Some(renderer);
                    filmed.push(film);
                }
            }
            None => report.stopped = true,
        }
    }
    if let (Some(film), Some(backend), false) = (&film, backend, report.stopped) {
        let films = FilmReport::new(film, &backend, filmed);
        films.write_index(film.who)?;
        report.film = Some(films);
    }
    Ok(report)
}

struct Made {
    episode: Recording,
    attempts: usize,
    succeeded: bool,
    /// Platform and renderer of OpenGL, and the film.
    film: Option<(String, FilmedEpisode)>,
}

/// Where episodes are demonstrated, and what is kept of them.
struct Stage<'a> {
    scene: RobomimicScene,
    options: RobomimicOptions,
    pictures: Option<BatchPictures>,
    film: Option<FilmOptions<'a>>,
    stop: &'a (dyn Fn() -> bool + Sync),
}

impl Stage<'_> {
    /// Demonstrates until the task is done, or once; `None` where `stop` said so.
    fn one_episode(&self, episode: usize) -> Result<Option<Made>, TrainError> {
        let (task, options) = (self.scene.task(), &self.options);
        // The operators' things differ in size from episode to episode where the reference draws them.
        let sizes = SceneSizes::drawn(task, episode_seed(options.seed, episode as u64, u64::MAX));
        let mut env = if sizes == self.scene.sizes() {
            RobomimicEnv::new(&self.scene, EnvOptions::default())
        } else {
            let scene = RobomimicScene::new(task, sizes, Visuals::Without).map_err(simulation)?;
            RobomimicEnv::new(&scene, EnvOptions::default())
        };
        let mut films = match &self.film {
            Some(film) if episode < film.episodes => Some((film, Camera::new(&mut env, film)?)),
            _ => None,
        };
        for attempt in 0..MOST_ATTEMPTS {
            let seed = episode_seed(options.seed, episode as u64, attempt);
            let mut filming = match &mut films {
                Some((film, camera)) => Some((camera, Reel::new(film, episode)?)),
                None => None,
            };
            let mut shoot = |env: &mut RobomimicEnv| match &mut filming {
                Some((camera, reel)) => reel.add(camera.shoot(env)?),
                None => Ok(()),
            };
            let Some((recorded, succeeded)) = self.attempt_once(&mut env, seed, &mut shoot)? else { return Ok(None) };
            if !(succeeded || options.keep_failures) {
                continue;
            }
            let film = match filming {
                Some((camera, reel)) => {
                    let (png, mp4, frames) = reel.finish()?;
                    let (episode_return, control_steps) = (recorded.returns[0], recorded.frames());
                    let success = Some(succeeded);
                    let film = FilmedEpisode { episode, episode_return, control_steps, success, frames, png, mp4 };
                    Some((camera.backend().to_owned(), film))
                }
                None => None,
            };
            return Ok(Some(Made { episode: recorded, attempts: attempt as usize + 1, succeeded, film }));
        }
        let detail = format!("the expert of {task} failed {MOST_ATTEMPTS} times in a row: scene and expert do not fit");
        Err(TrainError::Config { key: "demos", detail })
    }

    /// One attempt: what was seen and done, and whether the task was done at its end. `shoot` is called at the start and after
    /// each control step.
    fn attempt_once(
        &self,
        env: &mut RobomimicEnv,
        seed: u64,
        shoot: &mut dyn FnMut(&mut RobomimicEnv) -> Result<(), TrainError>,
    ) -> Result<Option<(Recording, bool)>, TrainError> {
        let task = env.task();
        // The expert knows all of the state; policies that see through cameras are shown the first values only.
        let shown = self.options.task.observation_dim();
        let mut observation = vec![0.0; task.observation_dim()];
        let mut action = vec![0.0; task.action_dim()];
        env.reset(seed, &mut observation);
        shoot(env)?;
        let mut expert = Expert::new(task, seed, Stream::Demonstrations.number(), &observation);
        let mut recorded = Recording::default();
        let mut done_steps = 0;
        loop {
            if (self.stop)() {
                return Ok(None);
            }
            expert.act(&observation, &mut action);
            recorded.observations.extend(observation[..shown].iter().map(|&value| value as f32));
            if let Some(pictures) = &self.pictures {
                let at = recorded.pictures.len();
                recorded.pictures.resize(at + pictures.len_of_one(), 0);
                let worker = rayon::current_thread_index().unwrap_or(0);
                pictures.draw(worker, env, &mut recorded.pictures[at..]).map_err(simulation)?;
            }
            // The executed action is made from the stored one, so a replay of the file makes the same motion.
            for value in &mut action {
                let stored = *value as f32;
                recorded.actions.push(stored);
                *value = f64::from(stored);
            }
            let outcome = env.step(&action, &mut observation);
            shoot(env)?;
            recorded.rewards.push(outcome.reward as f32);
            recorded.terminals.push(false);
            done_steps = if outcome.reward > 0.0 { done_steps + 1 } else { 0 };
            if done_steps >= DONE_STEPS || outcome.ended() {
                break;
            }
        }
        recorded.lengths = vec![recorded.rewards.len()];
        recorded.returns = vec![recorded.rewards.iter().map(|&reward| f64::from(reward)).sum()];
        Ok(Some((recorded, done_steps >= DONE_STEPS)))
    }
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
        pictures: (options.task.cameras() > 0).then_some(options.pictures),
        seconds,
        sha256: report.recording.write_normalized(folder, options.task)?,
    };
    write_json(&folder.join(SUMMARY_FILE), &summary)?;
    Ok(summary)
}

/// The quality of the pictures in a folder of demonstrations, as its `summary.json` says; `None` where it says nothing.
///
/// # Errors
/// [`TrainError`] for a summary that cannot be read, or a quality that this release does not know.
pub fn recorded_quality(folder: &Path) -> Result<Option<Quality>, TrainError> {
    #[derive(Deserialize)]
    struct Pictures {
        #[serde(default)]
        pictures: Option<String>,
    }
    let path = folder.join(SUMMARY_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // Data of other programs have none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::file(path, error)),
    };
    let Pictures { pictures } = serde_json::from_str(&text).map_err(|e| TrainError::file(&path, e))?;
    pictures.map(|name| name.parse().map_err(|detail: String| TrainError::file(&path, detail))).transpose()
}
