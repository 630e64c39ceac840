//! Client of the gripper server (spec `polymetis.md` §7).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use tonic::transport::Channel;

use super::connection::{ControllerSet, lazy_channel};
use super::{ClientError, Deadlines, answer, request, require_finite};
use crate::proto::gripper_server_client::GripperServerClient;
use crate::proto::{Empty, GripperCommand, GripperMetadata, GripperState};

/// The hardware client takes a negative epsilon as 0.2 m: whatever is between the fingers counts as
/// grasped. The protocol's default of 0 would fail every grasp of an object.
const ANY_OBJECT: f32 = -1.0;

/// Client of the gripper server's user side.
///
/// An OK to a command means *stored*, not done: the hardware client fetches it later, and cannot be
/// interrupted. Close on objects with [`grasp`](Self::grasp), never with [`goto`](Self::goto).
#[derive(Debug, Clone)]
pub struct GripperClient {
    inner: GripperServerClient<Channel>,
    deadlines: Deadlines,
    last_nanos: i32,
}

impl GripperClient {
    /// A client of the server at `host:port`. Connects at the first call, and again after a loss.
    /// A command has the deadline of an update: the server only stores it.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Address`]
    pub fn new(address: &str, deadlines: Deadlines) -> Result<Self, ClientError> {
        let channel = lazy_channel(address, ControllerSet::default())?;
        Ok(Self { inner: GripperServerClient::new(channel), deadlines, last_nanos: 0 })
    }

    /// What the hardware client says about itself.
    ///
    /// # Errors
    /// [`ClientError::Server`], with `NoRobotClient` before a hardware client has registered.
    pub async fn metadata(&mut self) -> Result<GripperMetadata, ClientError> {
        let deadline = self.deadlines.metadata;
        let call = self.inner.get_robot_client_metadata(request(Empty {}, deadline));
        answer("GetRobotClientMetadata", deadline, call).await
    }

    /// The state reported last. Without a timestamp: no hardware client has registered yet. With one
    /// that does not move: it is gone.
    ///
    /// # Errors
    /// [`ClientError::Server`]
    pub async fn state(&mut self) -> Result<GripperState, ClientError> {
        let deadline = self.deadlines.get;
        let call = self.inner.get_state(request(Empty {}, deadline));
        answer("GetState", deadline, call).await
    }

    /// Moves the fingers to an opening of `width_m` at `speed_m_s`.
    ///
    /// # Errors
    /// [`ClientError::NotFinite`], [`ClientError::Server`]
    pub async fn goto(&mut self, width_m: f32, speed_m_s: f32) -> Result<(), ClientError> {
        self.command(width_m, speed_m_s, 0.0, false).await
    }

    /// Closes towards `width_m` at `speed_m_s` and holds whatever is met with `force_n`.
    ///
    /// # Errors
    /// [`ClientError::NotFinite`], [`ClientError::Server`]
    pub async fn grasp(&mut self, width_m: f32, speed_m_s: f32, force_n: f32) -> Result<(), ClientError> {
        self.command(width_m, speed_m_s, force_n, true).await
    }

    async fn command(&mut self, width: f32, speed: f32, force: f32, grasp: bool) -> Result<(), ClientError> {
        require_finite("gripper width, speed, force", &[width, speed, force])?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = fresh_timestamp(since_epoch, self.last_nanos);
        self.last_nanos = timestamp.nanos;
        let command = GripperCommand {
            timestamp: Some(timestamp),
            width,
            speed,
            force,
            grasp,
            epsilon_inner: ANY_OBJECT,
            epsilon_outer: ANY_OBJECT,
        };
        let deadline = self.deadlines.update;
        let call = self.inner.goto(request(command, deadline));
        answer("Goto", deadline, call).await.map(|Empty {}| ())
    }
}

/// A timestamp that the hardware client takes for a new command: it compares nanoseconds only, and
/// ignores zero.
fn fresh_timestamp(since_epoch: Duration, last_nanos: i32) -> Timestamp {
    let mut nanos = since_epoch.subsec_nanos() as i32; // below 10⁹
    while nanos == 0 || nanos == last_nanos {
        nanos = (nanos + 1) % 1_000_000_000;
    }
    Timestamp { seconds: since_epoch.as_secs() as i64, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_new_and_not_zero() {
        let at = |nanos| Duration::new(5, nanos);
        assert_eq!(fresh_timestamp(at(7), 6), Timestamp { seconds: 5, nanos: 7 });
        assert_eq!(fresh_timestamp(at(7), 7).nanos, 8);
        assert_eq!(fresh_timestamp(at(0), 1).nanos, 2);
        assert_eq!(fresh_timestamp(at(999_999_999), 999_999_999).nanos, 1);
    }
}
