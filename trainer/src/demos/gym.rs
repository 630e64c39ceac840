//! Demonstrations of the Gym tasks: a trained policy rolled out with its own noise (spec dppo.md §7.3).
//!
//! They stand in for D4RL's "medium" data, which cannot be made from a package: the product trains a policy until its
//! episodes return as much as those data do on average, and records it.

use std::path::Path;

use serde::Serialize;
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::Limits;
use tenon_core::spec::PolicySpec;
use tenon_core::task::{TaskFamily, TaskName};
use tenon_sim::gym::GymTask;
use tenon_sim::render::{CHANNELS, POLICY_PICTURE_SIDE};

use crate::dataset::{Dataset, Pictures, write_normalization};
use crate::environments::{BatchSettings, TaskBatch};
use crate::error::TrainError;
use crate::evaluate::ChunkSource;
use crate::run_dir::{create_folder, sha256_of, write_json};
use crate::seeds::Stream;

/// How to roll out.
#[derive(Debug, Clone, Copy)]
pub struct RollOutOptions {
    pub task: TaskName,
    /// At least so many control steps; the last episode is whole.
    pub frames: usize,
    pub seed: u64,
    /// Environments that step together.
    pub environments: usize,
    pub threads: usize,
}

/// Episodes in physical units, one behind the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// Before each step, `[frames, observation_dim]`.
    pub observations: Vec<f32>,
    /// As executed, `[frames, action_dim]`.
    pub actions: Vec<f32>,
    pub rewards: Vec<f32>,
    /// Whether the body fell in the step.
    pub terminals: Vec<bool>,
    /// Before each step, `[frames, 3 · cameras, side, side]`; empty for tasks whose policies see no pictures.
    pub pictures: Vec<u8>,
    pub lengths: Vec<usize>,
    /// Summed reward of each episode.
    pub returns: Vec<f64>,
    /// Episodes left out because they earned nothing (spec dppo.md §7.3).
    pub left_out: usize,
}

/// `summary.json` of such data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GymSummary {
    pub task: String,
    pub frames: usize,
    pub episodes: usize,
    pub left_out: usize,
    /// Of the episodes' returns.
    pub mean_return: f64,
    pub return_std: f64,
    pub return_range: [f64; 2],
    /// Average return of D4RL's medium data.
    pub d4rl_medium_return: f64,
    /// 100 · (mean − random)/(expert − random), with D4RL's reference returns.
    pub d4rl_normalized_score: f64,
    pub mean_steps: f64,
    /// Share of the episodes that a fall ended.
    pub fallen: f64,
    pub seed: u64,
    /// Policies that were rolled out.
    pub policies: usize,
    pub seconds: f64,
    /// Of `train.npz`.
    pub sha256: String,
}

/// D4RL's returns of a random and an expert policy (spec sim_tasks.md §2), and the average of its medium data.
fn d4rl(task: TaskName) -> Result<[f64; 3], TrainError> {
    match task {
        TaskName::Hopper => Ok([-20.27, 3234.3, GymTask::HOPPER.medium_return()]),
        TaskName::Walker2d => Ok([1.63, 4592.3, GymTask::WALKER2D.medium_return()]),
        TaskName::HalfCheetah => Ok([-280.18, 12_135.0, GymTask::HALF_CHEETAH.medium_return()]),
        other => {
            let detail = format!("{other} is no Gym task: hopper, walker2d and half_cheetah are");
            Err(TrainError::Config { key: "task", detail })
        }
    }
}

/// Rolls a policy out. `None` where `stop` asked to end; `on_frames(frames, episodes, mean return)`.
///
/// `source` samples with the noise that is wanted. Environments begin and end their episodes in rounds, so that short
/// episodes are not more likely to be recorded than long ones.
pub fn roll_out(
    source: &mut dyn ChunkSource,
    spec: &PolicySpec,
    options: RollOutOptions,
    stop: &dyn Fn() -> bool,
    on_frames: &mut dyn FnMut(usize, usize, f64),
) -> Result<Option<Recording>, TrainError> {
    if options.task.family() != TaskFamily::Gym || spec.action_horizon != 1 {
        let detail = "a policy is recorded step by step: a Gym task and action_horizon = 1 are needed".into();
        return Err(TrainError::Config { key: "policy.action_horizon", detail });
    }
    let environments = options.environments.max(1);
    let settings = BatchSettings { environments, threads: options.threads, seed: options.seed, auto_reset: false };
    let mut batch = TaskBatch::new(options.task, spec, settings)?;
    let (observation_dim, action_dim) = (spec.observation_dim(), spec.action_dim());
    let mut chunks = vec![0.0; environments * spec.chunk_len()];
    let mut recording = Recording::default();
    let mut begun = 0;
    while recording.frames() < options.frames {
        let mut noise: Vec<SeededNoise> =
            (begun..begun + environments).map(|episode| Stream::Policy(episode as u32).of(options.seed)).collect();
        let mut round = vec![Recording::default(); environments];
        batch.begin_episodes(begun);
        begun += environments;
        let mut running = vec![true; environments];
        while running.iter().any(|&running| running) {
            if stop() {
                return Ok(None);
            }
            let before = batch.observations().to_vec();
            source.sample(batch.seen(), &mut noise, &mut chunks)?;
            batch.step(&chunks)?;
            for (i, outcome) in batch.outcomes().iter().enumerate().filter(|(_, o)| o.steps > 0) {
                let episode = &mut round[i];
                let observation = &before[i * observation_dim..][..observation_dim];
                episode.observations.extend(observation.iter().map(|&v| v as f32));
                let mut action = chunks[i * spec.chunk_len()..][..action_dim].to_vec();
                spec.normalizer.denormalize_action(&mut action);
                // What the body got: the environments clip as D4RL's wrapper does.
                episode.actions.extend(action.iter().map(|a| a.clamp(-1.0, 1.0)));
                episode.rewards.push(outcome.reward as f32);
                episode.terminals.push(outcome.terminated);
                running[i] = !outcome.ended();
            }
        }
        for episode in &round {
            if recording.frames() >= options.frames {
                break;
            }
            recording.append(episode);
        }
        let mean = recording.returns.iter().sum::<f64>() / recording.returns.len().max(1) as f64;
        on_frames(recording.frames().min(options.frames), recording.lengths.len(), mean);
        if recording.lengths.is_empty() && recording.left_out > 10 * environments {
            let detail = format!("none of {} episodes earned anything: the policy is too weak", recording.left_out);
            return Err(TrainError::Config { key: "demos", detail });
        }
    }
    Ok(Some(recording))
}

impl Recording {
    /// Number of frames of all episodes.
    pub fn frames(&self) -> usize {
        self.rewards.len()
    }

    /// Adds the episodes of another recording.
    pub fn extend(&mut self, other: &Self) {
        self.observations.extend_from_slice(&other.observations);
        self.actions.extend_from_slice(&other.actions);
        self.rewards.extend_from_slice(&other.rewards);
        self.terminals.extend_from_slice(&other.terminals);
        self.pictures.extend_from_slice(&other.pictures);
        self.lengths.extend_from_slice(&other.lengths);
        self.returns.extend_from_slice(&other.returns);
        self.left_out += other.left_out;
    }

    /// Writes `train.npz`, normalised by its own limits, and those as `normalization.npz`; the first one's SHA-256.
    pub(super) fn write_normalized(self, folder: &Path, task: TaskName) -> Result<String, TrainError> {
        create_folder(folder)?;
        let (observation_dim, action_dim) = (task.observation_dim(), task.action_dim());
        let Self { mut observations, mut actions, rewards, terminals, pictures, lengths, .. } = self;
        let limits = [Limits::of_rows(&observations, observation_dim), Limits::of_rows(&actions, action_dim)];
        let [observation, action] = limits;
        let normalizer = task.normalizer(observation, action);
        normalizer.normalize_observation(&mut observations);
        normalizer.normalize_action(&mut actions);
        let train = Dataset {
            states: observations,
            actions,
            rewards,
            terminals,
            lengths,
            state_dim: observation_dim,
            action_dim,
            pictures: (!pictures.is_empty()).then(|| Pictures {
                channels: CHANNELS * task.cameras(),
                px: POLICY_PICTURE_SIDE as usize,
                bytes: pictures,
            }),
        };
        let path = folder.join("train.npz");
        train.write(&path)?;
        write_normalization(&folder.join("normalization.npz"), &normalizer.observation, &normalizer.action)?;
        sha256_of(&path)
    }

    /// Adds one episode.
    fn append(&mut self, episode: &Self) {
        let sum = episode.rewards.iter().map(|&r| f64::from(r)).sum::<f64>();
        if sum <= 0.0 {
            self.left_out += 1;
            return;
        }
        self.extend(&Self { lengths: vec![episode.frames()], returns: vec![sum], ..episode.clone() });
    }
}

/// Writes `train.npz` (normalised by its own limits), `normalization.npz` and `summary.json` into `folder`.
pub fn write_recording(
    folder: &Path,
    options: RollOutOptions,
    policies: usize,
    recording: Recording,
    seconds: f64,
) -> Result<GymSummary, TrainError> {
    let [random, expert, medium] = d4rl(options.task)?;
    let (frames, episodes) = (recording.rewards.len(), recording.lengths.len());
    let (returns, left_out) = (recording.returns.clone(), recording.left_out);
    let mean = returns.iter().sum::<f64>() / episodes.max(1) as f64;
    let range = |pick: fn(f64, f64) -> f64| returns.iter().copied().reduce(pick).unwrap_or(0.0);
    let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / episodes.max(1) as f64;
    let fallen = recording.terminals.iter().filter(|&&t| t).count() as f64 / episodes.max(1) as f64;
    let sha256 = recording.write_normalized(folder, options.task)?;
    let summary = GymSummary {
        task: options.task.to_string(),
        frames,
        episodes,
        left_out,
        mean_return: mean,
        return_std: variance.sqrt(),
        return_range: [range(f64::min), range(f64::max)],
        d4rl_medium_return: medium,
        d4rl_normalized_score: 100.0 * (mean - random) / (expert - random),
        mean_steps: frames as f64 / episodes.max(1) as f64,
        fallen,
        seed: options.seed,
        policies,
        seconds,
        sha256,
    };
    write_json(&folder.join("summary.json"), &summary)?;
    Ok(summary)
}
