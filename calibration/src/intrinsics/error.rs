//! Why a calibration gives no numbers.

use crate::boards::BoardError;
use std::path::PathBuf;
use tenon_vision::VisionError;

/// Errors of this module; each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum IntrinsicsError {
    #[error(transparent)]
    Vision(#[from] VisionError),

    #[error(transparent)]
    Board(#[from] BoardError),

    #[error(
        "{views} views of the board are too few: at least {needed} are needed, from different directions; add more"
    )]
    TooFewViews { views: usize, needed: usize },

    #[error(
        "view {name} shows a picture of {width}x{height} px, the others {expected_width}x{expected_height}: intrinsics hold \
         for one resolution; leave out what differs"
    )]
    MixedSizes { name: String, width: usize, height: usize, expected_width: usize, expected_height: usize },

    #[error("view {name} cannot be used: {reason}")]
    View { name: String, reason: &'static str },

    #[error(
        "the focal length cannot be told from these views (standard deviation {std_percent:.1} % of it): the board is tilted \
         by at most {max_tilt_deg:.0} degrees against the picture; add views tilted by 30 to 45 degrees to different sides"
    )]
    FocalNotObservable { std_percent: f64, max_tilt_deg: f64 },

    #[error(
        "{parameter} cannot be told from these views; add views near the picture's edges, or keep that coefficient at zero"
    )]
    NotObservable { parameter: &'static str },

    #[error(
        "{dropped} of {views} views do not fit the others ({names}): either the board's description is wrong, or the board \
         is bent, or the pictures come from different cameras"
    )]
    TooManyBadViews { dropped: usize, views: usize, names: String },

    #[error(
        "{mirrored} of {views} views show the board as in a mirror ({names}): switch off mirroring in the camera or in the \
         program that took the pictures"
    )]
    Mirrored { mirrored: usize, views: usize, names: String },

    #[error(
        "no camera explains these views together; check the board's description, and add views tilted by 30 to 45 degrees"
    )]
    NoSolution,

    #[error("{option} = {value}: {requirement}")]
    Option { option: &'static str, value: f64, requirement: &'static str },

    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },

    #[error("{origin}:{line}: {key}: {message}")]
    Syntax { origin: String, line: usize, key: String, message: String },
}
