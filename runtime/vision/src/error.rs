//! What can go wrong between a picture and a pose.

use std::path::PathBuf;

/// Errors of this crate. Messages say what, where and, where a user can act, what to do.
#[derive(Debug, thiserror::Error)]
pub enum VisionError {
    #[error(
        "image of {width}x{height} px cannot be searched for tags: sides must be {min} to {max} px and the area at most \
         {max_area_mpx} megapixels"
    )]
    ImageSize { width: usize, height: usize, min: usize, max: usize, max_area_mpx: usize },

    #[error("pixel buffer of {len} bytes does not hold {height} rows of {stride} bytes with {width} px each")]
    PixelBuffer { width: usize, height: usize, stride: usize, len: usize },

    #[error("cannot read {}: {reason}", path.display())]
    ReadImage { path: PathBuf, reason: String },

    #[error("AprilTag detector setting {name} = {value}: {requirement}")]
    DetectorSetting { name: &'static str, value: f64, requirement: &'static str },

    #[error("the AprilTag library could not create a detector (out of memory?)")]
    DetectorCreate,

    #[error("tag id {id} is not in family {family} (ids 0 to {last})")]
    UnknownTagId { id: u32, family: &'static str, last: u32 },

    #[error("camera model: {name} = {value}: {requirement}")]
    Camera { name: &'static str, value: f64, requirement: &'static str },

    #[error("no pose from tag {id}: {reason}")]
    Degenerate { id: u32, reason: &'static str },

    #[error(
        "tag id {id} of {body} was seen {count} times in one picture: {body} is refused because one of them is somebody \
         else's; cover or remove the other print"
    )]
    DuplicateTag { body: String, id: u32, count: usize },

    #[error("no tag of {body} was seen (ids {wanted})")]
    NoTagOfBody { body: String, wanted: String },

    #[error("no pose of {body} fits its {tags} tags: {reason}")]
    NoBodyPose { body: String, tags: usize, reason: &'static str },

    #[error("{origin}: {message}")]
    Layout { origin: String, message: String },
}
