//! Demonstrations of D3IL Avoid: scripted in the simulation or converted from the recorded human ones.
//!
//! An [`Episode`] holds rows as they were recorded (specification of the simulation tasks, §4): commanded and measured
//! x, y, and the action `commanded[t+1] − commanded[t]`. The simulation shows both positions as they are before the
//! action; in the human recordings the commanded one is that of the step that is about to run (replaying them shows
//! it), so it is one step ahead.
//!
//! # What the policy sees
//! At run time a chunk is planned from an observation one control step old (`observation_delay_steps` of the policy):
//! for the action that leads from set point D(t) to D(t+1) the policy sees D(t−1) and the position measured with it.
//! Cloned from rows as recorded it would lag behind its own plan, cut corners and prefer one way round an obstacle;
//! the training set therefore pairs each action with what is seen at run time ([`Alignment::RunTime`]).
//!
//! [`write`] makes the folder that pre-training reads: every episode in physical units, and the selection M1, M2 or M3
//! of it, normalised.

mod files;
mod gym;
mod human;
mod path;
mod robomimic;
mod scripted;

use tenon_core::avoid::{ACTION_DIM, DemonstrationSet, Mode, ModeBits, OBSERVATION_DIM, reward};
use tenon_core::config::TaskName;

use crate::error::TrainError;

pub use files::{Origin, Summary, write};
pub use gym::{GymSummary, Recording, RollOutOptions, roll_out, write_recording};
pub use human::read_human;
pub use path::{MAX_INCREMENT_M, ScriptedPath};
pub use robomimic::{
    RobomimicOptions, RobomimicReport, RobomimicSummary, demonstrate, recorded_quality, write_demonstrations,
};
pub use scripted::{ScriptOptions, ScriptReport, script};

/// One demonstration in physical units (metres, robot base frame).
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Commanded x, y, measured x, y before each step.
    pub observations: Vec<[f32; OBSERVATION_DIM]>,
    /// Increment of the commanded x, y in each step.
    pub actions: Vec<[f32; ACTION_DIM]>,
    /// Commanded x, y: one row more than there are actions.
    pub commanded_xy_m: Vec<[f64; 2]>,
    /// The way through the rows, where all three are decided.
    pub mode: Option<Mode>,
    pub source: Source,
}

impl Episode {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.actions.len()
    }

    /// The observation that training pairs with each action.
    pub fn training_observations(&self, alignment: Alignment) -> Vec<[f32; OBSERVATION_DIM]> {
        (0..self.steps())
            .map(|t| {
                let (now, before) = (self.observations[t], self.observations[t.saturating_sub(1)]);
                match (alignment, self.source) {
                    (Alignment::Recorded, _) => now,
                    (Alignment::RunTime, Source::Scripted) => before,
                    // The commanded position is one step ahead of the measured one.
                    (Alignment::RunTime, Source::Human) => [before[0], before[1], now[2], now[3]],
                }
            })
            .collect()
    }

    /// Reward of the state before each step, as the environment pays it to an arm that touches nothing.
    pub fn rewards(&self) -> Vec<f32> {
        let mut bits = ModeBits::default();
        self.observations
            .iter()
            .map(|&[_, _, x_m, y_m]| {
                let tcp_xy_m = [f64::from(x_m), f64::from(y_m)];
                let paid = reward(false, bits, tcp_xy_m) as f32;
                // The environment judges the way after the physics, so bits count from the next reward on.
                bits.update(tcp_xy_m[0], tcp_xy_m[1]);
                paid
            })
            .collect()
    }
}

/// Where demonstrations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Scripted,
    Human,
}

/// Which observation training pairs with an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// The one that the policy sees at run time, one control step old.
    #[default]
    RunTime,
    /// The one of the recorded row.
    Recorded,
}

/// Which demonstrations a task trains on.
pub fn selection_of(task: TaskName) -> Result<DemonstrationSet, TrainError> {
    match task {
        TaskName::AvoidM1 => Ok(DemonstrationSet::M1),
        TaskName::AvoidM2 => Ok(DemonstrationSet::M2),
        TaskName::AvoidM3 => Ok(DemonstrationSet::M3),
        other => {
            let detail = format!("{other} is not Avoid: its demonstrations are made by another command");
            Err(TrainError::Config { key: "task", detail })
        }
    }
}

/// The episodes of a set, judged on their commanded paths.
pub fn select(episodes: &[Episode], set: DemonstrationSet) -> Vec<&Episode> {
    episodes.iter().filter(|e| set.contains_path(e.commanded_xy_m.iter().copied())).collect()
}
