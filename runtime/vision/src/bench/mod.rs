//! Measurements of this crate on rendered pictures: how fast ([`speed`]) and how exact, tag by tag ([`accuracy`]) and as the
//! fused pose of a part ([`fused_accuracy`]); and pictures for a comparison with another detector ([`peer_pictures`]).
//!
//! The peer is the C library used plainly: one call on the whole picture with the same settings, in the same run and on the
//! same pictures. Everything is measured on the calling machine as it is: on one that does other work too look at the
//! medians, the processor times and the ratios made of them.

mod accuracy;
mod fused;
mod peer;
mod speed;
mod table;
mod three_cameras;

pub use accuracy::{AccuracyCell, AccuracySettings, accuracy};
pub use fused::{FusedAccuracy, FusedSettings, fused_accuracy, fused_tables};
pub use peer::{PeerPicture, PeerPictures, PeerTag, PeerTruth, peer_pictures};
pub use speed::{BenchSettings, Timing, VisionBench, speed};
pub use three_cameras::ThreeCameras;

use crate::{Camera, VisionError};
use std::time::Duration;

/// The camera of all measurements: D435-class colour at 30 Hz.
const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const FOCAL_PX: f64 = 915.0;
const PERIOD: Duration = Duration::from_nanos(33_333_333);
const EXPOSURE_S: f64 = 0.004;

fn lens() -> Result<Camera, VisionError> {
    Camera::pinhole(FOCAL_PX, FOCAL_PX, WIDTH as f64 / 2.0, HEIGHT as f64 / 2.0)
}
