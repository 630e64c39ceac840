//! Thin asynchronous clients of the two servers: a deadline on every call, and the checks that the
//! servers lack (spec `polymetis.md` §4, §10).

mod connection;
mod controller;
mod gripper;

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::archive::ArchiveError;
use crate::status::ServerError;

pub use controller::ControllerClient;
pub use gripper::GripperClient;

/// How long each call may take (spec §4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// SetController: the server polls for the first control step.
    pub set: Duration,
    /// UpdateController
    pub update: Duration,
    /// GetRobotState, GetEpisodeInterval
    pub get: Duration,
    /// TerminateController: the server waits for the default controller to take over.
    pub terminate: Duration,
    /// GetRobotClientMetadata: the cheapest probe for a live robot.
    pub metadata: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            set: Duration::from_secs(2),
            update: Duration::from_millis(500),
            get: Duration::from_millis(500),
            terminate: Duration::from_secs(1),
            metadata: Duration::from_millis(500),
        }
    }
}

/// Why a call of a client failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server's address cannot be used.
    #[error("address {address:?}: {reason}; give host:port, for example 127.0.0.1:50051")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server answered with an error or not in time.
    #[error("{rpc}: {error}")]
    Server {
        /// Name of the call.
        rpc: &'static str,
        /// What the answer means.
        error: ServerError,
    },
    /// SetController answered OK with start = −1: the controller never ran. The robot client
    /// registered anew or paused meanwhile.
    #[error(
        "SetController: the server accepted the controller but never ran it; wait for fresh robot states and set it again"
    )]
    NeverRan,
    /// An update without a controller that this client set over this very connection. A server that
    /// was never given a controller dies of an update, so it is not sent.
    #[error(
        "UpdateController: this client has set no controller since it connected; set one that holds the measured joint positions first"
    )]
    NoControllerSet,
    /// Not seven joint targets.
    #[error("{got} joint targets, the arm has 7 joints")]
    JointCount {
        /// How many there were.
        got: usize,
    },
    /// A value to be sent is NaN or infinite. The server would turn it into torques.
    #[error("{name}[{index}] = {value}: must be finite")]
    NotFinite {
        /// Which values.
        name: String,
        /// Index among them.
        index: usize,
        /// The value, as text.
        value: String,
    },
    /// A parameter archive could not be built.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl ClientError {
    /// The server's error, where it is one.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Waits for an answer, but not longer than its deadline. The deadline travels with the request too;
/// this timer also bounds the time it takes to connect.
async fn answer<T>(
    rpc: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    let error = match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => ServerError::classify(&status),
        Err(_) => ServerError::DeadlineExceeded,
    };
    Err(ClientError::Server { rpc, error })
}

/// A request that carries its deadline.
fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Refuses a NaN or infinite value.
fn require_finite(name: &str, values: &[f32]) -> Result<(), ClientError> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ClientError::NotFinite { name: name.to_owned(), index, value: values[index].to_string() }),
    }
}
