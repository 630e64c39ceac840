//! The bridge's side over zenoh.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tenon_core::message::{BridgeStatus, RobotState};
use zenoh::Wait;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority};

use crate::codec::{self, MessageKind};
use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::mailbox::{BridgeInbox, Tally, bridge_mailbox};
use crate::security::Endpoint;
use crate::{Clock, LinkCounters, zenoh_config};

/// Puts bytes of one kind of message on their way.
pub(crate) type Outlet = Arc<dyn Fn(MessageKind, &[u8]) -> Result<(), LinkError> + Send + Sync>;

/// Publishes state and status; clones share the link, which closes with the last of them.
#[derive(Clone)]
pub struct BridgeSender {
    outlet: Outlet,
    tally: Arc<Tally>,
}

impl std::fmt::Debug for BridgeSender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BridgeSender").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl BridgeSender {
    pub(crate) fn new(outlet: Outlet) -> Self {
        Self { outlet, tally: Arc::default() }
    }

    /// Publishes a robot state. Without a controller connected it goes nowhere, which is no error.
    ///
    /// # Errors
    /// [`LinkError::Zenoh`] where the transport refused it.
    pub fn publish_state(&self, state: &RobotState) -> Result<(), LinkError> {
        self.publish(MessageKind::State, &codec::encode_state(state))
    }

    /// Publishes the bridge's status.
    ///
    /// # Errors
    /// [`LinkError::Zenoh`] where the transport refused it.
    pub fn publish_status(&self, status: &BridgeStatus) -> Result<(), LinkError> {
        self.publish(MessageKind::Status, &codec::encode_status(status))
    }

    /// What was sent so far; what was received is the inbox's to say.
    pub fn counters(&self) -> LinkCounters {
        self.tally.read()
    }

    fn publish(&self, kind: MessageKind, bytes: &[u8]) -> Result<(), LinkError> {
        let result = (self.outlet)(kind, bytes);
        let counter = if result.is_ok() { &self.tally.sent } else { &self.tally.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// Listens for controllers at `endpoint`. `wake` is called in zenoh's thread after each
/// accepted target or request, and must not block.
///
/// # Errors
/// [`LinkError::PortInUse`], [`LinkError::Security`], [`LinkError::Listen`], [`LinkError::Zenoh`].
pub fn open_bridge_link(
    endpoint: &Endpoint,
    keys: &RobotKeys,
    clock: Clock,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(BridgeSender, BridgeInbox), LinkError> {
    let config = zenoh_config::listener(endpoint, keys)?;
    let session = zenoh::open(config).wait().map_err(|e| listen_error(endpoint, &e))?;
    let (mailbox, inbox) = bridge_mailbox(clock, Box::new(wake));
    let mailbox = Arc::new(mailbox);
    for kind in [MessageKind::Target, MessageKind::Request] {
        subscribe(&session, &keys.key(kind), kind, {
            let mailbox = Arc::clone(&mailbox);
            move |kind, bytes| mailbox.receive(kind, bytes)
        })?;
    }
    let state = publisher(&session, keys.key(MessageKind::State))?;
    let status = publisher(&session, keys.key(MessageKind::Status))?;
    let guard = CloseOnDrop(session);
    let outlet: Outlet = Arc::new(move |kind, bytes: &[u8]| {
        let _keeps_session_open = &guard;
        put(if kind == MessageKind::State { &state } else { &status }, bytes)
    });
    Ok((BridgeSender::new(outlet), inbox))
}

fn listen_error(endpoint: &Endpoint, error: &zenoh::Error) -> LinkError {
    let text = format!("{error:?} {error}").to_lowercase();
    let endpoint = endpoint.address().to_owned();
    if text.contains("in use") || text.contains("os error 98") {
        LinkError::PortInUse { endpoint }
    } else {
        LinkError::Listen { endpoint, reason: zenoh_config::reason(error) }
    }
}

/// Frees the port at once, not when the last of zenoh's own tasks ends.
pub(crate) struct CloseOnDrop(pub zenoh::Session);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // A session that is closed already is what we want.
        let _ = self.0.close().wait();
    }
}

/// A publisher that never waits long: congested messages are dropped, small ones leave at once.
pub(crate) fn publisher(session: &zenoh::Session, key: String) -> Result<Publisher<'static>, LinkError> {
    session
        .declare_publisher(key.clone())
        .congestion_control(CongestionControl::Drop)
        .priority(Priority::RealTime)
        .express(true)
        .wait()
        .map_err(|e| LinkError::Zenoh { what: format!("to publish {key}"), reason: zenoh_config::reason(&e) })
}

pub(crate) fn put(publisher: &Publisher<'static>, bytes: &[u8]) -> Result<(), LinkError> {
    publisher.put(bytes).wait().map_err(|e| LinkError::Zenoh {
        what: format!("a message on {}", publisher.key_expr()),
        reason: zenoh_config::reason(&e),
    })
}

/// Hands every message of `key` to `receive`, for as long as the session lives.
pub(crate) fn subscribe(
    session: &zenoh::Session,
    key: &str,
    kind: MessageKind,
    receive: impl Fn(MessageKind, &[u8]) + Send + Sync + 'static,
) -> Result<(), LinkError> {
    session
        .declare_subscriber(key)
        .callback(move |sample| receive(kind, &sample.payload().to_bytes()))
        .background()
        .wait()
        .map_err(|e| LinkError::Zenoh { what: format!("to subscribe to {key}"), reason: zenoh_config::reason(&e) })
}
