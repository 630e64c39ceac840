use std::path::PathBuf;

use tenon_core::config::ConfigError;
use tenon_vision::VisionError;
use tenon_vision::source::SourceError;

use crate::arm::ArmError;
use crate::extrinsics::ExtrinsicsError;
use crate::measure::latency::LatencyError;
use crate::measure::noise::NoiseError;
use crate::measure::registration::RegistrationError;
use crate::rig::StoreError;

/// Why a step gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Vision(#[from] VisionError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Extrinsics(#[from] ExtrinsicsError),
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Latency(#[from] LatencyError),
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Arm(#[from] ArmError),

    #[error("cannot read {}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },

    #[error("{}:{line}: {reason}", path.display())]
    ArmPoses { path: PathBuf, line: usize, reason: String },

    #[error("{}:{line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },

    #[error(
        "camera {serial} has no intrinsics in this rig: run `tenon-calibrate intrinsics` for it, import factory values, or give \
         --assume-focal-px (distances are then wrong by as many percent as it is)"
    )]
    NoIntrinsics { serial: String },

    #[error(
        "camera {serial}: pictures are {width}x{height}, its intrinsics belong to {known_width}x{known_height}: set the camera to that \
         resolution or calibrate this one"
    )]
    Resolution { serial: String, width: usize, height: usize, known_width: u32, known_height: u32 },

    #[error("{}: there is no picture (PNG or JPEG) in it", path.display())]
    NoPictures { path: PathBuf },

    #[error("camera {serial} has no place in this rig yet: run `tenon-calibrate place` first")]
    NoPlace { serial: String },

    #[error("there is no part {part}; known are {known}")]
    NoSuchPart { part: String, known: String },

    #[error("pictures belong together by their order: {} has {pictures}, {} has {others}", folder.display(), other.display())]
    Unequal { folder: PathBuf, pictures: usize, other: PathBuf, others: usize },

    #[error(
        "there is nothing to hold the calibration against: {reason}; take pictures of a tag in the gripper with the arm's poses, or of \
         parts that two cameras see at once"
    )]
    NothingToProve { reason: String },

    #[error(
        "the base board has no place in the robot's base yet: place the cameras with the arm's poses, or touch it off"
    )]
    NoBoard,

    #[error("{what}: the tag was seen in {seen} of {frames} frames, that is too few: keep it in view while it moves")]
    LostTag { what: String, seen: usize, frames: usize },

    #[error("there is no published camera pose for {furniture}; known are {known}")]
    NoReference { furniture: String, known: String },

    #[error("{what}: {reason}")]
    Picture { what: String, reason: String },
}
