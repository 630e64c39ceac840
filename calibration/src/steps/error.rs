use std::path::PathBuf;

use tenon_vision::VisionError;

use crate::extrinsics::ExtrinsicsError;
use crate::measure::noise::NoiseError;
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

    #[error("cannot read {}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },

    #[error("{}:{line}: {reason}", path.display())]
    ArmPoses { path: PathBuf, line: usize, reason: String },

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
}
