//! Poses of the arm for pictures, whoever knows them.

use std::collections::BTreeMap;

use tenon_vision::Pose;

use super::ArmError;
use crate::measure::latency::Sample;

/// What a source needs of the person who guides the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Seven numbers for each pose.
    Numbers,
    /// That the arm is held still.
    Stillness,
    /// Nothing: the poses were recorded with the pictures.
    Nothing,
}

/// Whose pose is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked<'a> {
    pub picture: &'a str,
    /// What a person typed.
    pub typed: Option<Pose>,
}

/// Knows where the arm stands: `T_base_hand`, always of the same frame of the hand.
pub trait ArmPoseSource {
    fn need(&self) -> Need;

    /// The arm's pose for pictures that are taken next. `None`: none belongs to this picture. May wait for the arm to come to rest.
    fn pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, ArmError>;

    /// After the pictures: does the arm still stand where [`Self::pose`] said?
    fn confirm(&mut self, pose: &Pose) -> Result<(), ArmError> {
        let _ = pose;
        Ok(())
    }

    /// Begins to record the hand's way. `false`: this source knows poses at rest only.
    fn begin_swing(&mut self) -> Result<bool, ArmError> {
        Ok(false)
    }

    /// Ends it: the hand's place along its swing, on the workstation's monotonic clock; empty where none was begun.
    fn end_swing(&mut self) -> Result<Vec<Sample>, ArmError> {
        Ok(Vec::new())
    }
}

/// A person reads the pose off the robot and types it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TypedPoses;

impl ArmPoseSource for TypedPoses {
    fn need(&self) -> Need {
        Need::Numbers
    }

    fn pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, ArmError> {
        let not_typed = || ArmError::NotTyped { picture: asked.picture.to_owned() };
        asked.typed.map(Some).ok_or_else(not_typed)
    }
}

/// Poses by the picture's name, from a file ([`crate::steps::arm_poses`]). Pictures without a line show the arm parked.
#[derive(Debug, Clone, Default)]
pub struct FilePoses(pub BTreeMap<String, Pose>);

impl ArmPoseSource for FilePoses {
    fn need(&self) -> Need {
        Need::Nothing
    }

    fn pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, ArmError> {
        Ok(self.0.get(asked.picture).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_poses_are_those_that_were_typed() {
        let pose = Pose::translation(0.4, 0.0, 0.2);
        let asked = Asked { picture: "pose 0003", typed: Some(pose) };
        assert_eq!(TypedPoses.pose(&asked), Ok(Some(pose)));
        let said = TypedPoses.pose(&Asked { typed: None, ..asked }).unwrap_err().to_string();
        assert!(said.contains("pose 0003") && said.contains("type its pose"), "{said}");
    }

    #[test]
    fn a_file_knows_its_own_pictures_only() {
        let pose = Pose::translation(0.4, 0.0, 0.2);
        let mut file = FilePoses([("a.png".to_owned(), pose)].into());
        assert_eq!(file.pose(&Asked { picture: "a.png", typed: None }), Ok(Some(pose)));
        assert_eq!(file.pose(&Asked { picture: "b.png", typed: None }), Ok(None));
        assert_eq!(file.confirm(&pose), Ok(()));
    }
}
