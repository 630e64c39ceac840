//! Demonstrations of D3IL Avoid: scripted in the simulation or converted from the recorded human ones.
//!
//! Both give [`Episode`]s in one convention (specification of the simulation tasks, §4): the observation of step t is
//! the commanded and the measured x, y *before* the step, the action is `commanded[t+1] − commanded[t]`. The simulated
//! environment hands its observations out in just that way, so what it returns beside an action is what is stored.
//!
//! [`write`] makes the folder that pre-training reads: every episode in physical units, and the selection M1, M2 or M3
//! of it, normalised.

mod files;
mod human;
mod path;
mod scripted;

use tenon_core::avoid::{ACTION_DIM, DemonstrationSet, Mode, ModeBits, OBSERVATION_DIM, reward};
use tenon_core::config::TaskName;

pub use files::{Origin, Summary, avoid_normalizer, write};
pub use human::read_human;
pub use path::{MAX_INCREMENT_M, ScriptedPath};
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
}

impl Episode {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.actions.len()
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

/// Which demonstrations a task trains on.
pub fn selection_of(task: TaskName) -> DemonstrationSet {
    match task {
        TaskName::AvoidM1 => DemonstrationSet::M1,
        TaskName::AvoidM2 => DemonstrationSet::M2,
        TaskName::AvoidM3 => DemonstrationSet::M3,
    }
}

/// The episodes of a set, judged on their commanded paths.
pub fn select(episodes: &[Episode], set: DemonstrationSet) -> Vec<&Episode> {
    episodes.iter().filter(|e| set.contains_path(e.commanded_xy_m.iter().copied())).collect()
}
