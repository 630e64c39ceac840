//! Measurements of this crate on rendered pictures: how fast ([`speed`]) and how exact ([`accuracy`]).
//!
//! The peer is the C library used plainly: one call on the whole picture with the same settings, in the same run and on the
//! same pictures. Everything is measured on the calling machine as it is; compare ratios and medians, and look at the
//! largest value only on a machine that does nothing else.

mod accuracy;
mod speed;

pub use accuracy::{AccuracyCell, AccuracySettings, accuracy};
pub use speed::{BenchSettings, ThreeCameras, Timing, VisionBench, speed};
