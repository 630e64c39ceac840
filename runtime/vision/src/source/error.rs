//! What can go wrong between a camera or a file and a frame.

use std::path::PathBuf;
use std::time::Duration;

use super::controls::Control;

/// Errors of the frame sources. Messages say what, where and, where a user can act, what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing came in time. The source goes on; whether that is a fault, [`Watch`](super::Watch) says.
    #[error("{source_name}: no frame within {} ms", waited.as_millis())]
    TimedOut { source_name: String, waited: Duration },

    /// A file, a folder or a recording has been played to its end.
    #[error("{source_name}: the end after {frames} frames")]
    Ended { source_name: String, frames: u64 },

    /// The source is gone and must be opened anew.
    #[error("{source_name}: disconnected ({reason}): check the cable and its power; it is opened again by itself")]
    Disconnected { source_name: String, reason: String },

    #[error("{place}: {message}")]
    Damaged { place: String, message: String },

    #[error("cannot {action} {}: {reason}", path.display())]
    File { path: PathBuf, action: &'static str, reason: String },

    #[error("cannot open camera {wanted}: {reason}")]
    NoCamera { wanted: String, reason: String },

    #[error("{device}: {request} failed: {reason}")]
    Driver { device: String, request: &'static str, reason: String },

    #[error("{device} does not offer {wanted}; it offers {offered}")]
    Format { device: String, wanted: String, offered: String },

    #[error("{device}: {control} was set to {wanted} and reads {found}: choose a value that the camera keeps")]
    ControlNotKept { device: String, control: Control, wanted: i64, found: i64 },

    #[error("{device}: {control} cannot be {wanted}: {reason}")]
    Control { device: String, control: Control, wanted: i64, reason: String },

    #[error("setting {name} = {value}: {requirement}")]
    Setting { name: &'static str, value: String, requirement: &'static str },

    #[error(
        "camera {name}: its frames are {:.0} ms old when they arrive by the rig's latency record, {:.0} ms by the camera's own stamps: \
         the record is of another camera or rate; measure it again, `tenon-calibrate latency`", 1e3 * measured_s, 1e3 * said_s
    )]
    Delay { name: String, measured_s: f64, said_s: f64 },

    #[error("cannot start the thread of a camera: {reason}")]
    Thread { reason: String },

    #[error("cannot decode {}: {reason}", path.display())]
    Decoder { path: PathBuf, reason: String },
}

impl SourceError {
    pub(super) fn file(path: &std::path::Path, action: &'static str, reason: impl ToString) -> Self {
        Self::File { path: path.to_owned(), action, reason: reason.to_string() }
    }

    pub(super) fn damaged(place: impl ToString, message: impl Into<String>) -> Self {
        Self::Damaged { place: place.to_string(), message: message.into() }
    }

    /// The source cannot go on and has to be opened anew.
    pub fn needs_reopening(&self) -> bool {
        !matches!(self, Self::TimedOut { .. } | Self::Ended { .. } | Self::Damaged { .. })
    }
}
