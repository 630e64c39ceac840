//! A listener beside the controller: it hears what the bridge says and has nothing to say itself.
//!
//! Targets and requests do not reach it: the bridge never passes on what one client says to another. They show in what the bridge
//! reports: the lease, its epoch, and the target that the server acknowledged last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tenon_core::message::{BridgeStatus, RobotState};
use tenon_core::time::Stamped;

use crate::codec::{self, MessageKind};
use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::mailbox::Tally;
use crate::security::{Endpoint, Role};
use crate::zenoh_bridge::{CloseOnDrop, subscribe};
use crate::zenoh_link::open_client;
use crate::{Clock, LinkCounters};

/// Messages that the listener may lag behind: four seconds of a bridge at its usual rates. What comes on top is counted as dropped.
const MESSAGE_QUEUE: usize = 1024;

/// What the bridge said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heard {
    State(RobotState),
    Status(BridgeStatus),
}

/// Hears every message of a bridge. Nothing is published over its session: no publisher is made.
pub struct LinkObserver {
    messages: Arc<ArrayQueue<Stamped<Heard>>>,
    tally: Arc<Tally>,
    _session: CloseOnDrop,
}

impl std::fmt::Debug for LinkObserver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LinkObserver").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl LinkObserver {
    /// Connects to the bridge at `endpoint`, trying for `connect_timeout`.
    ///
    /// # Errors
    /// [`LinkError::Connect`] where no bridge answers, [`LinkError::Security`], [`LinkError::Zenoh`].
    pub fn connect(
        endpoint: &Endpoint,
        keys: &RobotKeys,
        clock: Clock,
        connect_timeout: Duration,
    ) -> Result<Self, LinkError> {
        let session = open_client(endpoint, Role::Observer, keys, connect_timeout)?;
        let messages = Arc::new(ArrayQueue::new(MESSAGE_QUEUE));
        let tally = Arc::<Tally>::default();
        for kind in [MessageKind::State, MessageKind::Status] {
            let (messages, tally, clock) = (Arc::clone(&messages), Arc::clone(&tally), Arc::clone(&clock));
            subscribe(&session, &keys.key(kind), kind, move |kind, bytes| {
                let time = clock();
                let heard = match kind {
                    MessageKind::State => tally.accept(codec::decode_state(bytes)).map(Heard::State),
                    MessageKind::Status => tally.accept(codec::decode_status(bytes)).map(Heard::Status),
                    // Not subscribed to.
                    MessageKind::Target | MessageKind::Request => None,
                };
                if let Some(value) = heard
                    && messages.push(Stamped { time, value }).is_err()
                {
                    tally.dropped.fetch_add(1, Ordering::Relaxed);
                }
            })?;
        }
        Ok(Self { messages, tally, _session: CloseOnDrop(session) })
    }

    /// The oldest message not taken yet, and when it arrived.
    pub fn next_message(&mut self) -> Option<Stamped<Heard>> {
        self.messages.pop()
    }

    /// What was received and refused so far. `sent` stays 0.
    pub fn counters(&self) -> LinkCounters {
        self.tally.read()
    }
}
