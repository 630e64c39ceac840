//! What a server's error means (spec `polymetis.md` §4.3–4.7).
//!
//! `CANCELLED` is the server's code for nearly every application error, so the text decides.

use std::error::Error;

use tonic::{Code, Status};

use crate::waypoints::Refusal;

/// Longest text kept of an error that is not recognised; backtraces of several kB occur.
pub const MAX_TEXT_CHARS: usize = 200;

/// An error of the controller server or the gripper server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Nothing to update or terminate: no controller was set, it ended, was terminated, or was dropped
    /// when the robot client paused for a second (after a reflex, for example).
    #[error("no controller is running; read the joint positions again, set a controller that holds them, then resume")]
    NoControllerRunning,
    /// No robot client (or no gripper hardware client) is connected, or it stopped calling.
    #[error("the robot client is not calling the server; start it or wait for its recovery")]
    NoRobotClient,
    /// An update was refused: not an archive, an unknown parameter, or a wrong shape.
    #[error("the server refused the parameters: {0}")]
    InvalidParameters(String),
    /// A controller was refused, or its law failed while running.
    #[error("the server refused the controller: {0}")]
    InvalidController(String),
    /// No state has been recorded since the server started.
    #[error("the server has recorded no robot state yet; wait for the robot client")]
    EmptyBuffer,
    /// The server is gone or not reachable.
    #[error("the server is not reachable: {0}")]
    Unavailable(String),
    /// Our own deadline passed. An update may still be applied later; a Set or Terminate that hangs
    /// keeps the server's mutex until a robot client returns.
    #[error("the server did not answer before the deadline")]
    DeadlineExceeded,
    /// Anything else, with its code and the start of its text.
    #[error("unexpected answer: {0}")]
    Other(String),
}

impl ServerError {
    /// Recognises an error by its code and text.
    pub fn classify(status: &Status) -> Self {
        let text = status.message();
        match status.code() {
            Code::Unavailable => Self::Unavailable(shorten(text)),
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            // The gRPC library of this crate reports an expired deadline as CANCELLED.
            Code::Cancelled if text == "Timeout expired" => Self::DeadlineExceeded,
            Code::FailedPrecondition if text.contains("empty buffer") => Self::EmptyBuffer,
            // A gripper server without a hardware client has no metadata to send.
            Code::Internal if text.contains("Failed to serialize response") => Self::NoRobotClient,
            Code::Cancelled if text.contains("no controller running") => Self::NoControllerRunning,
            Code::Cancelled if text.contains("Robot context not valid") => Self::NoRobotClient,
            // "… controller params." comes before the prefix it shares with "… controller: …".
            Code::Cancelled
                if text.contains("Failed to load new controller params")
                    || text.contains("Failed to update controller") =>
            {
                // Tenon's own controller says why, at the end of a traceback.
                Self::InvalidParameters(Refusal::in_text(text).map_or_else(|| shorten(text), |why| why.to_string()))
            }
            Code::Cancelled
                if text.contains("Failed to load new controller") || text.contains("Failed to run controller") =>
            {
                Self::InvalidController(shorten(text))
            }
            // An answer has no source: this status was made here, from a connection that broke within the call. Such
            // errors come with many codes and texts.
            _ if status.source().is_some() => Self::Unavailable(shorten(text)),
            code => Self::Other(format!("{code:?}: {}", shorten(text))),
        }
    }
}

impl From<Status> for ServerError {
    fn from(status: Status) -> Self {
        Self::classify(&status)
    }
}

/// The first line-breaking-free characters of a text.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_answer_is_recognised() {
        let classify = |code, text: &str| ServerError::classify(&Status::new(code, text));
        assert_eq!(
            classify(Code::Cancelled, "Tried to perform a controller update with no controller running."),
            ServerError::NoControllerRunning
        );
        assert_eq!(
            classify(Code::Cancelled, "Tried to terminate controller with no controller running."),
            ServerError::NoControllerRunning
        );
        assert_eq!(
            classify(Code::Cancelled, "Robot context not valid when calling GetRobotClientMetadata!"),
            ServerError::NoRobotClient
        );
        assert_eq!(classify(Code::Internal, "Failed to serialize response!"), ServerError::NoRobotClient);
        assert_eq!(
            classify(Code::FailedPrecondition, "Cannot retrieve robot state from empty buffer!"),
            ServerError::EmptyBuffer
        );
        assert!(matches!(
            classify(Code::Cancelled, "Failed to load new controller params."),
            ServerError::InvalidParameters(_)
        ));
        assert!(matches!(
            classify(Code::Cancelled, "Failed to update controller: The following operation …"),
            ServerError::InvalidParameters(_)
        ));
        let traceback = "Failed to update controller: The following operation failed in the TorchScript interpreter.\n\
                         Traceback of TorchScript (most recent call last):\n  File \"code/__torch__.py\", line 182, in update\n\
                         ops.prim.RaiseException(\"plan: wrong shape or format\")\n~~~ <--- HERE\n\
                         RuntimeError: plan: not finite\n";
        assert_eq!(classify(Code::Cancelled, traceback), ServerError::InvalidParameters("plan: not finite".to_owned()));
        assert!(matches!(
            classify(Code::Cancelled, "Failed to load new controller: PytorchStreamReader …"),
            ServerError::InvalidController(_)
        ));
        assert!(matches!(
            classify(Code::Cancelled, "Failed to run controller forward function: …"),
            ServerError::InvalidController(_)
        ));
        assert!(matches!(classify(Code::Unavailable, "connection refused"), ServerError::Unavailable(_)));
        assert_eq!(classify(Code::DeadlineExceeded, ""), ServerError::DeadlineExceeded);
        assert_eq!(classify(Code::Cancelled, "Timeout expired"), ServerError::DeadlineExceeded);
        assert!(matches!(classify(Code::Unknown, "Unexpected error in RPC handling"), ServerError::Other(_)));
        let mut broken = Status::new(Code::Unknown, "h2 protocol error: error reading a body from connection");
        broken.set_source(std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert!(matches!(ServerError::classify(&broken), ServerError::Unavailable(_)));
    }

    #[test]
    fn long_text_is_cut_between_characters_and_kept_on_one_line() {
        let text = "Failed to update controller: ä\n".repeat(500);
        let ServerError::InvalidParameters(short) = ServerError::classify(&Status::cancelled(text)) else {
            panic!("not recognised");
        };
        assert_eq!(short.chars().count(), MAX_TEXT_CHARS + 1);
        assert!(!short.contains('\n'));
    }
}
