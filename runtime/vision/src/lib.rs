//! Seeing: grey images, AprilTag detection, camera model, and poses of tags and of bodies that carry tags.
//!
//! The path of a picture through this crate:
//!
//! ```text
//! still::StillImage ── grey ──► detector::Detector ── TagDetection (corners, px) ──► pose::tag_pose   one tag, both minima
//!                                                                              ├──► board::body_pose  all tags of a body
//!                                                                              └──► part_pose::PartSolver  … in all cameras
//! ```
//!
//! Terms: a *body* is a rigid thing with tags at known places (the base board, a furniture part); [`rig`] says which tag
//! sits where. `T_a_b` is the pose of frame b in frame a. Pixels are the AprilTag library's: (0, 0) is the outer corner of
//! the top left pixel, so pixel centres lie at +0.5 (OpenCV and librealsense count from the centre of that pixel: add 0.5
//! to their principal point).
//!
//! [`pipeline`] takes frames of several cameras to poses on a board. Only [`source`] opens devices and reads a clock; threads are
//! its own, [`track::BackgroundSearch`]'s and [`pipeline::VisionThreads`]'.

pub mod averaging;
pub mod bench;
pub mod board;
pub mod camera;
pub mod detector;
mod error;
pub mod image;
pub mod part_pose;
pub mod pipeline;
pub mod pose;
pub mod refine;
pub mod render;
pub mod rig;
pub mod source;
pub mod still;
pub mod track;

pub use board::{BodyPose, TagOnBody, TagResidual, body_pose};
pub use camera::{Camera, Distortion};
pub use detector::{Detector, DetectorSettings, Family, TagDetection};
pub use error::VisionError;
pub use image::{GreyImage, GreyView};
pub use part_pose::{PartPose, PartSettings, PartSolver, PlacedCamera, Unsolved};
pub use pose::{Hypothesis, TagPose, tag_pose};
pub use rig::{FrameVariant, Frames, Rig};
pub use still::StillImage;
pub use tenon_core::geometry::Pose;
