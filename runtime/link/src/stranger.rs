//! Somebody at a bridge who does not keep to the messages: for tests of what the bridge does then.

use std::time::Duration;

use zenoh::pubsub::Publisher;

use crate::codec::MessageKind;
use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::zenoh_bridge::{CloseOnDrop, publisher, put};
use crate::zenoh_link::open_client;
use crate::{Endpoint, Role};

/// Puts any bytes on a bridge's keys, with a controller's rights, as a peer of another version or a broken one would.
pub struct Stranger {
    target: Publisher<'static>,
    request: Publisher<'static>,
    _session: CloseOnDrop,
}

impl std::fmt::Debug for Stranger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stranger").finish_non_exhaustive()
    }
}

impl Stranger {
    /// Connects to the bridge at `endpoint`, trying for `connect_timeout`.
    ///
    /// # Errors
    /// As [`crate::ZenohLink::connect`].
    pub fn connect(endpoint: &Endpoint, keys: &RobotKeys, connect_timeout: Duration) -> Result<Self, LinkError> {
        let session = open_client(endpoint, Role::Controller, keys, connect_timeout)?;
        let target = publisher(&session, keys.key(MessageKind::Target))?;
        let request = publisher(&session, keys.key(MessageKind::Request))?;
        Ok(Self { target, request, _session: CloseOnDrop(session) })
    }

    /// `bytes` where targets are expected.
    ///
    /// # Errors
    /// [`LinkError::Zenoh`] where the transport refused them.
    pub fn put_target(&self, bytes: &[u8]) -> Result<(), LinkError> {
        put(&self.target, bytes)
    }

    /// `bytes` where requests are expected.
    ///
    /// # Errors
    /// [`LinkError::Zenoh`] where the transport refused them.
    pub fn put_request(&self, bytes: &[u8]) -> Result<(), LinkError> {
        put(&self.request, bytes)
    }
}
