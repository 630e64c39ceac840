//! The tasks of the paper: what a policy sees and does in each, how long an episode is and when it has succeeded
//! (spec dppo.md §6.1, §8; sim_tasks.md).

use serde::{Deserialize, Serialize};

use crate::avoid;
use crate::normalizer::{Limits, Normalizer, ZeroRange};
use crate::spec::{ActionField, ObservationField};

/// A task. Its name is what stands in configurations, checkpoints and bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// D3IL Avoid with the demonstrations of two modes (spec sim_tasks.md §4).
    AvoidM1,
    AvoidM2,
    AvoidM3,
    /// Gym locomotion (spec sim_tasks.md §2).
    Hopper,
    Walker2d,
    HalfCheetah,
    /// Robomimic (spec sim_tasks.md §3).
    Lift,
    Can,
    Square,
    Transport,
    /// The same seen by cameras: the state holds the robot only.
    LiftPixels,
    CanPixels,
    SquarePixels,
    TransportPixels,
    /// FurnitureBench with little or more randomness at the start (spec sim_tasks.md §6).
    OneLegLow,
    OneLegMed,
    LampLow,
    LampMed,
    RoundTableLow,
    RoundTableMed,
}

/// Tasks that share a simulation and a layout of observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskFamily {
    Avoid,
    Gym,
    Robomimic,
    Furniture,
}

/// When an episode counts as a success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Success {
    /// The task has none: returns are what counts.
    None,
    /// Some chunk's mean reward a step reaches this: the state of success held for a whole chunk.
    ChunkReward(f64),
    /// The rewards of the whole episode add up to this.
    EpisodeReturn(f64),
}

impl Success {
    /// Whether an episode has succeeded; none where the task has no success. `best_chunk_reward`: the largest mean
    /// reward a step that a chunk of it earned, a chunk that was cut short counting as if it had gone on for nothing.
    pub fn holds(self, episode_return: f64, best_chunk_reward: f64) -> Option<bool> {
        // Sums of rewards are whole but for rounding.
        const ROUNDING: f64 = 1e-9;
        match self {
            Self::None => None,
            Self::ChunkReward(threshold) => Some(best_chunk_reward >= threshold - ROUNDING),
            Self::EpisodeReturn(threshold) => Some(episode_return >= threshold - ROUNDING),
        }
    }
}

/// Values of one arm's proprioception in Robomimic: position 3, quaternion 4, fingers 2.
const ROBOMIMIC_ARM: u16 = 9;

impl TaskName {
    /// Every task.
    pub const ALL: [Self; 20] = [
        Self::AvoidM1,
        Self::AvoidM2,
        Self::AvoidM3,
        Self::Hopper,
        Self::Walker2d,
        Self::HalfCheetah,
        Self::Lift,
        Self::Can,
        Self::Square,
        Self::Transport,
        Self::LiftPixels,
        Self::CanPixels,
        Self::SquarePixels,
        Self::TransportPixels,
        Self::OneLegLow,
        Self::OneLegMed,
        Self::LampLow,
        Self::LampMed,
        Self::RoundTableLow,
        Self::RoundTableMed,
    ];

    /// The name as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AvoidM1 => "avoid_m1",
            Self::AvoidM2 => "avoid_m2",
            Self::AvoidM3 => "avoid_m3",
            Self::Hopper => "hopper",
            Self::Walker2d => "walker2d",
            Self::HalfCheetah => "half_cheetah",
            Self::Lift => "lift",
            Self::Can => "can",
            Self::Square => "square",
            Self::Transport => "transport",
            Self::LiftPixels => "lift_pixels",
            Self::CanPixels => "can_pixels",
            Self::SquarePixels => "square_pixels",
            Self::TransportPixels => "transport_pixels",
            Self::OneLegLow => "one_leg_low",
            Self::OneLegMed => "one_leg_med",
            Self::LampLow => "lamp_low",
            Self::LampMed => "lamp_med",
            Self::RoundTableLow => "round_table_low",
            Self::RoundTableMed => "round_table_med",
        }
    }

    /// The task that is written like this.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == name)
    }

    /// Which simulation it needs.
    pub fn family(self) -> TaskFamily {
        match self {
            Self::AvoidM1 | Self::AvoidM2 | Self::AvoidM3 => TaskFamily::Avoid,
            Self::Hopper | Self::Walker2d | Self::HalfCheetah => TaskFamily::Gym,
            Self::Lift | Self::Can | Self::Square | Self::Transport => TaskFamily::Robomimic,
            Self::LiftPixels | Self::CanPixels | Self::SquarePixels | Self::TransportPixels => TaskFamily::Robomimic,
            Self::OneLegLow | Self::OneLegMed | Self::LampLow | Self::LampMed => TaskFamily::Furniture,
            Self::RoundTableLow | Self::RoundTableMed => TaskFamily::Furniture,
        }
    }

    /// Cameras that the policy sees through; 0 for tasks given by their state.
    pub fn cameras(self) -> usize {
        match self {
            Self::LiftPixels | Self::CanPixels | Self::SquarePixels => 1,
            Self::TransportPixels => 2,
            _ => 0,
        }
    }

    /// The blocks of an observation, in order.
    pub fn observation(self) -> Vec<ObservationField> {
        use ObservationField::*;
        let furniture = |parts: u16| {
            vec![TcpPosition, TcpRotation6d, TcpLinearVelocity, TcpAngularVelocity, GripperWidth, PartPoses(parts)]
        };
        match self {
            Self::AvoidM1 | Self::AvoidM2 | Self::AvoidM3 => vec![CommandedPosition2, TcpPosition2],
            Self::Hopper => vec![Task(11)],
            Self::Walker2d | Self::HalfCheetah => vec![Task(17)],
            Self::Lift => vec![Task(ROBOMIMIC_ARM + 10)],
            Self::Can | Self::Square => vec![Task(ROBOMIMIC_ARM + 14)],
            Self::Transport => vec![Task(2 * ROBOMIMIC_ARM + 41)],
            Self::LiftPixels | Self::CanPixels | Self::SquarePixels => vec![Task(ROBOMIMIC_ARM)],
            Self::TransportPixels => vec![Task(2 * ROBOMIMIC_ARM)],
            // Five parts of the table, or three, and the obstacle.
            Self::OneLegLow | Self::OneLegMed => furniture(6),
            Self::LampLow | Self::LampMed | Self::RoundTableLow | Self::RoundTableMed => furniture(4),
        }
    }

    /// The blocks of an action, in order.
    pub fn action(self) -> Vec<ActionField> {
        match (self.family(), self) {
            (TaskFamily::Avoid, _) => vec![ActionField::PlanarIncrement {
                z_m: avoid::COMMANDED_HEIGHT_M,
                quat_wxyz: avoid::COMMANDED_QUAT_WXYZ,
            }],
            (_, Self::Hopper) => vec![ActionField::Task(3)],
            (TaskFamily::Gym, _) => vec![ActionField::Task(6)],
            (_, Self::Transport | Self::TransportPixels) => vec![ActionField::Task(14)],
            (TaskFamily::Robomimic, _) => vec![ActionField::Task(7)],
            (TaskFamily::Furniture, _) => {
                vec![ActionField::TcpPosition, ActionField::TcpRotation6d, ActionField::Gripper]
            }
        }
    }

    /// Values of an observation, Do.
    pub fn observation_dim(self) -> usize {
        self.observation().iter().map(|f| f.dim()).sum()
    }

    /// Values of an action, Da.
    pub fn action_dim(self) -> usize {
        self.action().iter().map(|f| f.dim()).sum()
    }

    /// Time between two actions, seconds.
    pub fn period_s(self) -> f64 {
        match (self.family(), self) {
            (TaskFamily::Avoid, _) => avoid::CONTROL_PERIOD_MS as f64 / 1000.0,
            (_, Self::HalfCheetah) => 0.05,
            (TaskFamily::Gym, _) => 0.008,
            (TaskFamily::Robomimic, _) => 0.05,
            (TaskFamily::Furniture, _) => 0.1,
        }
    }

    /// How many periods old an observation is when the policy gets it.
    pub fn observation_delay_steps(self) -> usize {
        match self.family() {
            // The environment hands out the state before the last action of a chunk (spec sim_tasks.md §4, "Lag").
            TaskFamily::Avoid => 1,
            TaskFamily::Gym | TaskFamily::Robomimic | TaskFamily::Furniture => 0,
        }
    }

    /// Most control steps of an episode.
    pub fn episode_steps(self) -> usize {
        match self {
            Self::AvoidM1 | Self::AvoidM2 | Self::AvoidM3 => avoid::EPISODE_STEPS,
            Self::Hopper | Self::Walker2d | Self::HalfCheetah => 1000,
            Self::Lift | Self::Can | Self::LiftPixels | Self::CanPixels => 300,
            Self::Square | Self::SquarePixels => 400,
            Self::Transport | Self::TransportPixels => 800,
            Self::OneLegLow | Self::OneLegMed => 700,
            Self::LampLow | Self::LampMed | Self::RoundTableLow | Self::RoundTableMed => 1000,
        }
    }

    /// When an episode has succeeded.
    pub fn success(self) -> Success {
        match (self.family(), self) {
            (TaskFamily::Avoid, _) => Success::ChunkReward(avoid::SUCCESS_THRESHOLD),
            (TaskFamily::Gym, _) => Success::None,
            (TaskFamily::Robomimic, _) => Success::ChunkReward(1.0),
            // One for each pair of parts that is put together.
            (_, Self::OneLegLow | Self::OneLegMed) => Success::EpisodeReturn(1.0),
            (TaskFamily::Furniture, _) => Success::EpisodeReturn(2.0),
        }
    }

    /// The normaliser of this task's policies, with the limits of their data (spec dppo.md §7.1).
    pub fn normalizer(self, observation: Limits, action: Limits) -> Normalizer {
        let usual = Normalizer::new(observation, action);
        match self.family() {
            TaskFamily::Furniture => Normalizer { zero_range: ZeroRange::Widen, observation_clip: Some(5.0), ..usual },
            TaskFamily::Avoid | TaskFamily::Gym | TaskFamily::Robomimic => usual,
        }
    }
}

impl std::fmt::Display for TaskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of spec dppo.md §6.1.
    #[test]
    fn dims_are_those_of_the_table() {
        for (task, dims) in [
            (TaskName::AvoidM2, [4, 2]),
            (TaskName::Hopper, [11, 3]),
            (TaskName::Walker2d, [17, 6]),
            (TaskName::HalfCheetah, [17, 6]),
            (TaskName::Lift, [19, 7]),
            (TaskName::Can, [23, 7]),
            (TaskName::Square, [23, 7]),
            (TaskName::Transport, [59, 14]),
            (TaskName::SquarePixels, [9, 7]),
            (TaskName::TransportPixels, [18, 14]),
            (TaskName::OneLegLow, [58, 10]),
            (TaskName::LampMed, [44, 10]),
            (TaskName::RoundTableLow, [44, 10]),
        ] {
            assert_eq!([task.observation_dim(), task.action_dim()], dims, "{task}");
        }
    }

    #[test]
    fn names_are_those_that_serde_writes() {
        for task in TaskName::ALL {
            let written = toml::to_string(&std::collections::BTreeMap::from([("task", task)])).unwrap();
            assert_eq!(written.trim(), format!("task = \"{task}\""));
            assert_eq!(TaskName::from_name(task.as_str()), Some(task));
        }
    }
}
