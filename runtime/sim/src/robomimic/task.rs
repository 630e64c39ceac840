//! The Robomimic tasks in numbers, and their names (specification of the simulation tasks, section 3.1).

use crate::error::SimError;

/// Physics steps of one control step: 0.002 s each, 20 Hz.
pub const PHYSICS_STEPS: usize = 25;
/// Values of one arm's action: translation 3, rotation 3, gripper 1.
pub const ARM_ACTION_DIM: usize = 7;
/// Values of one arm's observation: grip site 3, hand orientation xyzw 4, fingers 2.
pub const ARM_OBSERVATION_DIM: usize = 9;

/// One of the tasks. Its name parses: `lift`, `can`, `square`, `transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RobomimicTask {
    /// Lift a cube from the table.
    Lift,
    /// Put a can from one bin into its compartment of another.
    Can,
    /// Put a square nut onto its peg.
    Square,
    /// Two arms: hand a hammer from a closed bin over to another table, and clear that table's bin.
    Transport,
}

impl RobomimicTask {
    /// Every task.
    pub const ALL: [Self; 4] = [Self::Lift, Self::Can, Self::Square, Self::Transport];

    /// Number of arms.
    pub fn arms(self) -> usize {
        if self == Self::Transport { 2 } else { 1 }
    }

    /// Number of values of the object's part of an observation.
    pub(crate) fn object_dim(self) -> usize {
        match self {
            Self::Lift => 10,
            Self::Can | Self::Square => 14,
            Self::Transport => 41,
        }
    }

    /// Number of values of an observation: the arms, then the objects.
    pub fn observation_dim(self) -> usize {
        self.arms() * ARM_OBSERVATION_DIM + self.object_dim()
    }

    /// Number of values of an action, arm by arm, in ±1.
    pub fn action_dim(self) -> usize {
        self.arms() * ARM_ACTION_DIM
    }

    /// Control steps after which an episode is truncated; nothing else ends one.
    pub fn episode_steps(self) -> usize {
        match self {
            Self::Lift | Self::Can => 300,
            Self::Square => 400,
            Self::Transport => 800,
        }
    }

    /// Control steps of the paper's action chunks.
    pub fn chunk_steps(self) -> usize {
        if self == Self::Transport { 8 } else { 4 }
    }

    /// Name of the scene's file in the folder of the scenes.
    pub fn scene_file(self) -> &'static str {
        match self {
            Self::Lift => "lift.xml",
            Self::Can => "can.xml",
            Self::Square => "square.xml",
            Self::Transport => "transport.xml",
        }
    }
}

impl std::fmt::Display for RobomimicTask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Lift => "lift",
            Self::Can => "can",
            Self::Square => "square",
            Self::Transport => "transport",
        })
    }
}

impl std::str::FromStr for RobomimicTask {
    type Err = SimError;

    fn from_str(name: &str) -> Result<Self, SimError> {
        let unknown = || SimError::UnknownRobomimicTask { name: name.to_owned() };
        Self::ALL.into_iter().find(|task| task.to_string() == name.to_ascii_lowercase()).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print_back() {
        for task in RobomimicTask::ALL {
            assert_eq!(task.to_string().parse::<RobomimicTask>().unwrap(), task);
        }
        for bad in ["", "stack", "lift_pixels"] {
            assert!(bad.parse::<RobomimicTask>().unwrap_err().to_string().contains("transport"));
        }
    }

    #[test]
    fn dims_and_lengths_are_those_of_the_trainer() {
        use tenon_core::task::TaskName;
        for task in RobomimicTask::ALL {
            let name = TaskName::from_name(&task.to_string()).unwrap();
            assert_eq!(task.observation_dim(), name.observation_dim(), "{task}");
            assert_eq!(task.action_dim(), name.action_dim(), "{task}");
            assert_eq!(task.episode_steps(), name.episode_steps(), "{task}");
        }
    }
}
