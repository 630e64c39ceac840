//! Frames: cameras, files, video, recorded runs and simulated cameras behind one trait, and the watch over them.
//!
//! ```text
//! V4l2Camera, StillFiles, Video, RecordedRun, SimulatedCamera
//!      │ next_frame (blocking, with a time-out)
//!      ▼
//! CameraThread ── newest frame (slot) ──► CameraReader   wakes on the Doorbell
//!      └── FrameFacts ──► Watch ── CameraFaults (slot) ──► CameraReader::status
//! ```
//!
//! Terms: the *device time* is a camera's own clock; [`ClockMap`] brings it to the monotonic clock. A frame's time is the
//! middle of its exposure, never its arrival. The *sequence* counts what the device took, so gaps are dropped frames.

mod clock;
mod controls;
pub mod convert;
mod delayed;
mod error;
mod fault;
mod frame;
mod recording;
mod sidecar;
mod simulated;
mod still_files;
mod thread;
mod v4l2;
mod video;
mod watch;
mod y4m;

use std::time::Duration;

use crate::Camera;

pub use clock::{Clock, ClockMap, ClockMapSettings, ManualClock, MappedTime, Pace, SystemClock};
pub use controls::{Control, ControlValues};
pub use convert::PixelFormat;
pub use delayed::Delayed;
pub use error::SourceError;
pub use fault::{CameraFault, CameraFaults, FaultKind};
pub use frame::{Colour, ColourFormat, DeviceTime, Frame, FrameStamps, Serial, SourceDescription};
pub use recording::{Condition, Playback, RecordedRun, Recorder, RecordingPixels};
pub use simulated::{Injection, Scene, SimulatedCamera, SimulatedDevice, SimulatedSettings};
pub use still_files::StillFiles;
pub use thread::{Backoff, CameraReader, CameraStatus, CameraThreadSettings, Doorbell, Opener, spawn};
pub use v4l2::{CameraChoice, V4l2Camera, V4l2Settings};
pub use video::Video;
pub use watch::{Expected, FrameFacts, Watch, WatchConfig, WatchCounters};

/// Something that gives frames. Opened by its constructor, closed by dropping it.
pub trait FrameSource: Send {
    fn description(&self) -> &SourceDescription;

    /// Waits for the next frame, at most `timeout`, and fills `into`, whose memory is reused. After an error the content
    /// of `into` is unspecified, and [`SourceError::needs_reopening`] says whether to go on.
    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError>;

    /// The values that the source has set its controls to, and read back, when it was opened.
    fn locked(&self) -> ControlValues {
        ControlValues::default()
    }

    /// What the locked controls stand at now. May take milliseconds.
    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        Ok(ControlValues::default())
    }
}

/// What a source made of files cannot know by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSettings {
    pub name: String,
    /// Of the camera that took the pictures; a calibration is stored by it.
    pub serial: Option<Serial>,
    /// Pictures without stamps need it; elsewhere it replaces the file's.
    pub rate_hz: Option<f64>,
    pub intrinsics: Option<Camera>,
    pub pace: Pace,
    pub keep_colour: bool,
}

impl<S: FrameSource + ?Sized> FrameSource for Box<S> {
    fn description(&self) -> &SourceDescription {
        (**self).description()
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        (**self).next_frame(into, timeout)
    }

    fn locked(&self) -> ControlValues {
        (**self).locked()
    }

    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        (**self).controls()
    }
}
