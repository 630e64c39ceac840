//! What the wizard sees a rig through: cameras, and an arm where there is one.

use tenon_vision::{GreyImage, Pose};

use super::turn::Arm;
use crate::arm::Asked;
use crate::measure::latency::Sample;
use crate::rig::Step;
use crate::steps::StepError;
use crate::steps::latency::Delayed;

/// A camera of the rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchCamera {
    pub name: String,
    pub serial: String,
}

/// What is before the cameras.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subject {
    /// The printed calibration board, held in a person's hand.
    Board,
    /// The base board, nothing moves.
    Rest,
    /// The tag in the gripper at a pose of the arm, or the parts at another place, for the placing or the proof.
    Pose(Step),
    /// The tag in the gripper swinging.
    Swing,
    /// Parts that nobody touches.
    Parts,
}

impl Subject {
    /// The step that wants it.
    pub fn step(self) -> Step {
        match self {
            Self::Board => Step::Intrinsics,
            Self::Rest => Step::Place,
            Self::Pose(step) => step,
            Self::Swing => Step::Latency,
            Self::Parts => Step::Noise,
        }
    }
}

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Shot {
    /// The same for all cameras where pictures belong together.
    pub name: String,
    pub grey: GreyImage,
    /// When the frame was in hand, s.
    pub arrived_s: f64,
    /// Where the arm stood, if the picture came with it.
    pub T_base_hand: Option<Pose>,
}

/// Two records of one motion.
#[derive(Debug, Clone, PartialEq)]
pub struct Motion {
    pub what: Delayed,
    pub cause: Vec<Sample>,
    pub response: Vec<Sample>,
}

/// How many pictures a step takes of each camera; sources made of files end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub board_views: usize,
    pub rest: usize,
    /// For the placing: at least, and at most while something is not known well enough.
    pub arm_poses: usize,
    pub most_arm_poses: usize,
    pub proof_poses: usize,
    pub swing: usize,
    pub parts: usize,
}

/// A rig before the wizard.
pub trait Bench {
    fn cameras(&self) -> &[BenchCamera];

    fn arm(&self) -> Arm;

    fn counts(&self) -> Counts;

    /// Pictures come one after the other whatever is shown: the worker waits for a still board and for another view than before.
    fn is_live(&self) -> bool;

    /// Frames a second while nothing moves.
    fn rate_hz(&self) -> f64;

    /// The next picture of a camera. `index`: its number within the subject. `None`: there are no more.
    fn shoot(&mut self, camera: usize, subject: Subject, index: usize) -> Result<Option<Shot>, StepError>;

    /// Where a guided arm stands for the pictures that are taken next: waits until it is still, or takes what was typed. `None`: the
    /// pictures come with their poses, or there is no arm.
    fn arm_pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, StepError> {
        let _ = asked;
        Ok(None)
    }

    /// After the pictures: a guided arm still stands there.
    fn confirm_arm(&mut self, T_base_hand: &Pose) -> Result<(), StepError> {
        let _ = T_base_hand;
        Ok(())
    }

    /// The pose of the hand that helps most next, if one is known: an arm that moves by itself goes there. A person is told in words.
    fn guide(&mut self, T_base_hand: Option<&Pose>) {
        let _ = T_base_hand;
    }

    /// The hand is about to swing. `true`: its way is recorded, [`Self::swing`] gives it after the pictures.
    fn begin_swing(&mut self) -> Result<bool, StepError>;

    /// Place of the hand along its swing, on the clock of [`Shot::arrived_s`].
    fn swing(&mut self) -> Result<Vec<Sample>, StepError>;

    /// Motions of arm, gripper and link, as far as they are recorded.
    fn motions(&mut self) -> Result<Vec<Motion>, StepError>;
}
