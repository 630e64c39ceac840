//! The Gym tasks in numbers, and their names.
//!
//! Source: specification of the simulation tasks, section 2. Positions are root x, root z (metres), root pitch, then
//! joints (radians); x is left out of the observation.

use crate::error::SimError;

/// Control steps after which an episode is truncated.
pub const EPISODE_STEPS: usize = 1000;
/// Control steps of the paper's action chunks.
pub const CHUNK_STEPS: usize = 4;

/// Which body runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GymRobot {
    Hopper,
    Walker2d,
    HalfCheetah,
}

/// Which of Gym's definitions holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GymVersion {
    /// The paper's v2. v4 has the same formulas, so both names mean this.
    #[default]
    V2,
    /// The alive bonus is not paid on the step that terminates; Walker2d's right foot has the friction of the left.
    V5,
}

/// One of the tasks. Its name parses: `hopper`, `Walker2d-v2`, `halfcheetah-v5`; without a version it is v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GymTask {
    pub robot: GymRobot,
    pub version: GymVersion,
}

/// What the three tasks differ in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// Physics steps of one control step.
    pub frame_skip: usize,
    /// Number of positions, and of velocities.
    pub position_dim: usize,
    pub action_dim: usize,
    /// Bound of the velocities in the observation, where they have one.
    pub velocity_clip: Option<f64>,
    pub alive_bonus: f64,
    /// Cost for each unit of Σ a².
    pub control_cost: f64,
    pub healthy: Healthy,
    pub start_noise: StartNoise,
}

/// The states that let an episode go on; all bounds are exclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Healthy {
    Always,
    Within {
        height_m: [f64; 2],
        pitch_rad: [f64; 2],
        /// Bound of every other position and of every velocity.
        state: f64,
    },
}

/// What is added to the model's initial state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StartNoise {
    /// U(±this) on positions and velocities.
    Uniform(f64),
    /// U(±position) on positions, velocity · N(0, 1) on velocities.
    UniformAndNormal { position: f64, velocity: f64 },
}

const HOPPER: Rules = Rules {
    frame_skip: 4,
    position_dim: 6,
    action_dim: 3,
    velocity_clip: Some(10.0),
    alive_bonus: 1.0,
    control_cost: 1e-3,
    healthy: Healthy::Within { height_m: [0.7, f64::INFINITY], pitch_rad: [-0.2, 0.2], state: 100.0 },
    start_noise: StartNoise::Uniform(5e-3),
};
const WALKER2D: Rules = Rules {
    frame_skip: 4,
    position_dim: 9,
    action_dim: 6,
    velocity_clip: Some(10.0),
    alive_bonus: 1.0,
    control_cost: 1e-3,
    healthy: Healthy::Within { height_m: [0.8, 2.0], pitch_rad: [-1.0, 1.0], state: f64::INFINITY },
    start_noise: StartNoise::Uniform(5e-3),
};
const HALF_CHEETAH: Rules = Rules {
    frame_skip: 5,
    position_dim: 9,
    action_dim: 6,
    velocity_clip: None,
    alive_bonus: 0.0,
    control_cost: 0.1,
    healthy: Healthy::Always,
    start_noise: StartNoise::UniformAndNormal { position: 0.1, velocity: 0.1 },
};

impl GymTask {
    pub const HOPPER: Self = Self { robot: GymRobot::Hopper, version: GymVersion::V2 };
    pub const WALKER2D: Self = Self { robot: GymRobot::Walker2d, version: GymVersion::V2 };
    pub const HALF_CHEETAH: Self = Self { robot: GymRobot::HalfCheetah, version: GymVersion::V2 };
    /// The three tasks of the paper.
    pub const ALL: [Self; 3] = [Self::HOPPER, Self::WALKER2D, Self::HALF_CHEETAH];

    pub(crate) fn rules(self) -> &'static Rules {
        match self.robot {
            GymRobot::Hopper => &HOPPER,
            GymRobot::Walker2d => &WALKER2D,
            GymRobot::HalfCheetah => &HALF_CHEETAH,
        }
    }

    /// Number of values of an observation: all positions but x, then all velocities.
    pub fn observation_dim(self) -> usize {
        2 * self.rules().position_dim - 1
    }

    /// Number of values of an action, one for each actuator, in ±1.
    pub fn action_dim(self) -> usize {
        self.rules().action_dim
    }

    /// Name of the model's file in the folder of the Gym models.
    pub fn model_file(self) -> &'static str {
        match (self.robot, self.version) {
            (GymRobot::Hopper, _) => "hopper.xml",
            (GymRobot::Walker2d, GymVersion::V2) => "walker2d.xml",
            (GymRobot::Walker2d, GymVersion::V5) => "walker2d_v5.xml",
            (GymRobot::HalfCheetah, _) => "half_cheetah.xml",
        }
    }

    /// Average return of an episode in D4RL's "medium" data (public figures, specification section 2).
    pub fn medium_return(self) -> f64 {
        match self.robot {
            GymRobot::Hopper => 1420.0,
            GymRobot::Walker2d => 2850.0,
            GymRobot::HalfCheetah => 4770.0,
        }
    }

    /// D4RL's normalised score of a return: 0 for its random policy, 100 for its expert.
    pub fn normalized_score(self, episode_return: f64) -> f64 {
        let [random, expert] = match self.robot {
            GymRobot::Hopper => [-20.27, 3234.3],
            GymRobot::Walker2d => [1.63, 4592.3],
            GymRobot::HalfCheetah => [-280.18, 12135.0],
        };
        100.0 * (episode_return - random) / (expert - random)
    }
}

impl std::fmt::Display for GymTask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.robot {
            GymRobot::Hopper => "hopper",
            GymRobot::Walker2d => "walker2d",
            GymRobot::HalfCheetah => "halfcheetah",
        })?;
        match self.version {
            GymVersion::V2 => Ok(()),
            GymVersion::V5 => formatter.write_str("-v5"),
        }
    }
}

impl std::str::FromStr for GymTask {
    type Err = SimError;

    fn from_str(name: &str) -> Result<Self, SimError> {
        let unknown = || SimError::UnknownGymTask { name: name.to_owned() };
        let lower = name.to_ascii_lowercase();
        let (robot, version) = lower.split_once("-v").unwrap_or((&lower, "2"));
        let robot = match robot {
            "hopper" => GymRobot::Hopper,
            "walker2d" => GymRobot::Walker2d,
            "halfcheetah" | "half_cheetah" => GymRobot::HalfCheetah,
            _ => return Err(unknown()),
        };
        let version = match version {
            "2" | "4" => GymVersion::V2,
            "5" => GymVersion::V5,
            _ => return Err(unknown()),
        };
        Ok(Self { robot, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_with_and_without_version_and_print_back() {
        for task in GymTask::ALL {
            let newer = GymTask { version: GymVersion::V5, ..task };
            for task in [task, newer] {
                assert_eq!(task.to_string().parse::<GymTask>().unwrap(), task);
            }
            assert_eq!(format!("{task}-v4").parse::<GymTask>().unwrap(), task);
        }
        assert_eq!("HalfCheetah-v2".parse::<GymTask>().unwrap(), GymTask::HALF_CHEETAH);
        for bad in ["", "ant", "hopper-v3", "hopper-v", "hopper-medium-v2"] {
            let message = bad.parse::<GymTask>().unwrap_err().to_string();
            assert!(message.contains("halfcheetah"), "{message}");
        }
    }

    #[test]
    fn scores_of_the_reference_policies_are_0_and_100() {
        assert_eq!(GymTask::HOPPER.normalized_score(-20.27), 0.0);
        assert_eq!(GymTask::HALF_CHEETAH.normalized_score(12135.0), 100.0);
    }
}
