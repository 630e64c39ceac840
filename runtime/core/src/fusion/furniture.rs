//! The parts of each furniture task in the policy's order (spec robot_control.md §3.2), and the training layout.

use nalgebra::{Matrix3, Rotation3, Translation3, UnitQuaternion};

use super::symmetry::Symmetry;
use crate::arm::Joints;
use crate::geometry::Pose;
use crate::task::TaskName;

pub use crate::spec::PART_NUMBERS;

/// Joints at the start of an episode on the arm: the authors' policy evaluation (spec robot_control.md §5.4).
pub const RESET_JOINTS_RAD: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];

/// Most parts of a task, the fixture's bar included.
pub(super) const MAX_PARTS: usize = 6;

/// Name of the fixture's front bar, which carries no tags.
pub(super) const FRONT_BAR: &str = "fixture_front_bar";

/// Centre of the front bar in the april frame of the training layout (spec perception.md §8.1).
pub(super) const FRONT_BAR_POSITION_M: [f64; 3] = [0.0, 0.38, -0.015];

/// Its quaternion as published: w is zero, so the sign is a matter of the training data.
pub(super) const FRONT_BAR_QUAT_XYZW: [f64; 4] = [-1.0, 0.0, 0.0, 0.0];

/// A furniture whose parts a policy sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Furniture {
    OneLeg,
    Lamp,
    RoundTable,
}

impl Furniture {
    /// The furniture of a task; none for tasks without.
    pub fn of_task(task: TaskName) -> Option<Self> {
        match task {
            TaskName::OneLegLow | TaskName::OneLegMed => Some(Self::OneLeg),
            TaskName::LampLow | TaskName::LampMed => Some(Self::Lamp),
            TaskName::RoundTableLow | TaskName::RoundTableMed => Some(Self::RoundTable),
            _ => None,
        }
    }

    /// Names of the parts in the order of the observation, as in `configs/vision/tags.toml`; the bar is last.
    pub fn part_names(self) -> &'static [&'static str] {
        match self {
            Self::OneLeg => &[
                "square_table_top",
                "square_table_leg1",
                "square_table_leg2",
                "square_table_leg3",
                "square_table_leg4",
                FRONT_BAR,
            ],
            Self::Lamp => &["lamp_base", "lamp_bulb", "lamp_hood", FRONT_BAR],
            Self::RoundTable => &["round_table_top", "round_table_leg", "round_table_base", FRONT_BAR],
        }
    }

    /// The name of a part as this program has it; `None` for a part of no furniture.
    pub fn known_part(name: &str) -> Option<&'static str> {
        let all = [Self::OneLeg, Self::Lamp, Self::RoundTable];
        all.into_iter().flat_map(Self::part_names).copied().find(|known| *known == name)
    }

    /// Index of a part in [`Self::part_names`].
    pub fn index_of(self, part: &str) -> Option<usize> {
        self.part_names().iter().position(|name| *name == part)
    }

    /// Symmetry of the part with this index about its y axis: legs, bulb and square top have four equal poses.
    pub fn symmetry(self, index: usize) -> Symmetry {
        match (self, index) {
            (Self::OneLeg, 0..=4) | (Self::Lamp | Self::RoundTable, 1) => Symmetry::FourFold,
            _ => Symmetry::None,
        }
    }
}

/// Pose of the april frame in the robot's base as in the training data: robot flush with the table top
/// (spec perception.md §1).
pub fn T_robot_april_training() -> Pose {
    let R = Matrix3::new(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0);
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(R));
    Pose::from_parts(Translation3::new(0.3015, 0.0, 0.0), rotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ObservationField;

    #[test]
    fn the_block_is_as_long_as_the_observation_of_each_task_has_it() {
        for (task, parts) in [(TaskName::OneLegLow, 6), (TaskName::LampMed, 4), (TaskName::RoundTableLow, 4)] {
            let furniture = Furniture::of_task(task).unwrap();
            assert_eq!(furniture.part_names().len(), parts);
            assert!(parts <= MAX_PARTS);
            let last = *task.observation().last().unwrap();
            assert_eq!(last, ObservationField::PartPoses(u16::try_from(parts).unwrap()));
        }
        assert_eq!(Furniture::of_task(TaskName::AvoidM1), None);
        // Spec robot_control.md §3.2: leg 4 of one_leg starts at 44 of 58, 16 of them the robot's.
        assert_eq!(Furniture::OneLeg.index_of("square_table_leg4").map(|i| 16 + i * PART_NUMBERS), Some(44));
    }

    #[test]
    fn the_training_board_is_its_own_inverse_rotation_and_lies_ahead_of_the_robot() {
        let T = T_robot_april_training();
        assert!((T.rotation * T.rotation).angle() < 1e-9);
        // april x = robot +y, april z = robot −z.
        assert!((T.rotation * nalgebra::Vector3::x() - nalgebra::Vector3::y()).norm() < 1e-12);
        assert!((T.rotation * nalgebra::Vector3::z() + nalgebra::Vector3::z()).norm() < 1e-12);
        assert_eq!(T.translation.x, 0.3015);
    }
}
