//! Demonstrations in memory: episodes with named fields.
//!
//! # Names of fields
//! | name | what |
//! |---|---|
//! | `obs/KEY`, `next_obs/KEY` | an observation before the action, and behind it |
//! | `actions` | what was commanded in the frame |
//! | `rewards`, `dones`, `terminated`, `truncated` | one value a frame |
//! | `states` | the simulator's state |
//! | `time_s` | seconds since the episode began |
//!
//! Others keep the name that their file gives them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tenon_core::normalizer::Normalizer;

use crate::array::{Array, Data};
use crate::verify::Defect;

/// Prefix of the observations.
pub const OBSERVATIONS: &str = "obs/";
/// What was commanded.
pub const ACTIONS: &str = "actions";
/// Reward of the frame.
pub const REWARDS: &str = "rewards";
/// Whether the episode was over behind the frame, for whatever reason.
pub const DONES: &str = "dones";
/// Whether the frame led into a terminal state.
pub const TERMINATED: &str = "terminated";
/// Whether the episode was cut off behind the frame.
pub const TRUNCATED: &str = "truncated";
/// The simulator's state.
pub const STATES: &str = "states";
/// Seconds since the episode began.
pub const TIME: &str = "time_s";

/// One episode. Every field has as many frames as `actions`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Episode {
    /// How its file calls it.
    pub name: String,
    /// File it is from, where there is one for each.
    pub file: Option<PathBuf>,
    /// Fields by name.
    pub fields: BTreeMap<String, Array>,
    /// Whether the task was done, where the file tells.
    pub success: Option<bool>,
    /// What else the file says of it.
    pub attributes: BTreeMap<String, Value>,
}

impl Episode {
    /// Frames: those of the actions, or of whatever there is.
    pub fn frames(&self) -> usize {
        self.fields.get(ACTIONS).or_else(|| self.fields.values().next()).map_or(0, Array::frames)
    }

    /// Names of the observations, without the prefix.
    pub fn observation_keys(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().filter_map(|name| name.strip_prefix(OBSERVATIONS))
    }

    /// Only the frames of a range. Panics where it does not lie inside.
    pub fn cut(&self, frames: std::ops::Range<usize>) -> Self {
        let fields = self.fields.iter().map(|(name, array)| (name.clone(), array.slice(frames.clone()))).collect();
        Self { fields, ..self.clone() }
    }

    /// Sum of the rewards, where there are some.
    pub fn total_reward(&self) -> Option<f64> {
        self.fields.get(REWARDS).map(|r| r.values().sum())
    }

    /// Success of a sparse reward: one was paid. Only where every reward is 0 or 1.
    pub fn success_by_reward(&self) -> Option<bool> {
        let rewards = self.fields.get(REWARDS)?;
        rewards.values().all(|r| r == 0.0 || r == 1.0).then(|| rewards.values().any(|r| r == 1.0))
    }
}

/// A field that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Name of the field.
    pub field: String,
    /// Why.
    pub reason: String,
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Demonstrations {
    /// Name of the environment or task.
    pub environment: Option<String>,
    /// Frames a second.
    pub rate_hz: Option<f64>,
    /// What else the file says: `env_args` of robomimic, `info` of LeRobot.
    pub attributes: BTreeMap<String, Value>,
    /// In the order of the file, numbers sorted as numbers.
    pub episodes: Vec<Episode>,
    /// Where values are stored normalised: what by. Only the trainer's own format does so.
    pub normalizer: Option<Normalizer>,
    /// Fields that were not read.
    pub left_out: Vec<LeftOut>,
}

impl Demonstrations {
    /// Frames of all episodes.
    pub fn frames(&self) -> usize {
        self.episodes.iter().map(Episode::frames).sum()
    }

    /// In physical units: what is stored normalised is turned back.
    pub fn into_physical(mut self) -> Self {
        let Some(normalizer) = self.normalizer.take() else { return self };
        for episode in &mut self.episodes {
            for (name, array) in &mut episode.fields {
                let observation = name.starts_with(OBSERVATIONS) && !array.is_picture();
                if !observation && name != ACTIONS {
                    continue;
                }
                let (shape, mut values) = (array.shape().to_vec(), array.to_f32());
                let limits = if observation { &normalizer.observation } else { &normalizer.action };
                if array.width() != limits.min.len() {
                    continue;
                }
                if observation {
                    normalizer.denormalize_observation(&mut values);
                } else {
                    normalizer.denormalize_action(&mut values);
                }
                if let Ok(physical) = Array::new(shape, Data::F32(values)) {
                    *array = physical;
                }
            }
        }
        self
    }

    /// Sets actions beyond ±`bound` to it; how many values were.
    pub fn clip_actions(&mut self, bound: f64) -> usize {
        self.episodes.iter_mut().filter_map(|e| e.fields.get_mut(ACTIONS)).map(|a| a.clip(bound)).sum()
    }
}

/// What a reader found: everything that is whole, and what is wrong with the rest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// Whole episodes.
    pub demonstrations: Demonstrations,
    /// What could not be read, or contradicts itself.
    pub defects: Vec<Defect>,
}
