//! Where the arm's poses come from: typed in, from a file, or from the robot itself over the link.
//!
//! ```text
//! a person ──► TypedPoses ┐
//! CSV file ──► FilePoses  ├── ArmPoseSource ──► wizard::bench, wizard::worker
//! bridge ── state ──► RobotStates ──► StillJudge ──► LinkPoses ┘
//!                         └──► swing: the hand's way while it moves, for the latency of cameras
//! ```
//!
//! Everywhere a pose of the arm is `T_base_hand`: one frame fixed to the hand, in the robot's base. Which one does not matter as long
//! as it is the same in all pictures of a step, because how the tag sits in the hand is solved for. Over the link it is the tool
//! point of `robot.toml` (`[tool]`), by forward kinematics of the measured joints.
//!
//! The link is only read. [`RobotStates`] has nothing to send with, so no calibration can command the arm.

mod error;
mod link;
mod poses;
mod states;
mod still;
mod swing;

pub use error::ArmError;
pub use link::{LinkPoses, LinkSettings};
pub use poses::{ArmPoseSource, Asked, FilePoses, Need, TypedPoses};
pub use states::{RobotStates, connect};
pub use still::{Refusal, StillJudge, StillSettings, Stillness};
pub use swing::{HandTrack, SwingRecorder};
