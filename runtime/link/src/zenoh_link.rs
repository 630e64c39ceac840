//! The controller's side over zenoh.
//!
//! zenoh's `put` takes locks and may wait a millisecond when the peer is slow, so a thread of its own calls it. The
//! control loop writes into a latest-value slot (targets) or a bounded queue (requests) and wakes that thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tenon_core::message::{BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::Stamped;
use triple_buffer::{Input, Output, triple_buffer};
use zenoh::Wait;
use zenoh::pubsub::Publisher;

use crate::codec::{self, MessageKind};
use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::mailbox::{ControllerInbox, REQUEST_QUEUE, Tally, controller_mailbox};
use crate::zenoh_bridge::{CloseOnDrop, publisher, put, subscribe};
use crate::{Clock, LinkCounters, RobotLink, zenoh_config};

/// The link of a controller to its bridge. Reconnects by itself; whether the bridge is there shows in the age of
/// what it last sent.
pub struct ZenohLink {
    inbox: ControllerInbox,
    target: Input<Option<JointTarget>>,
    requests: Arc<ArrayQueue<Request>>,
    closing: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    _session: CloseOnDrop,
}

impl std::fmt::Debug for ZenohLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ZenohLink").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl ZenohLink {
    /// Connects to the bridge at `endpoint`, trying for `connect_timeout`. Blocks; call it before the control loop.
    ///
    /// # Errors
    /// [`LinkError::Connect`] where no bridge answers, [`LinkError::Endpoint`], [`LinkError::Zenoh`].
    pub fn connect(
        endpoint: &str,
        keys: &RobotKeys,
        clock: Clock,
        connect_timeout: Duration,
    ) -> Result<Self, LinkError> {
        // zenoh takes 0 for "try once".
        let config = zenoh_config::client(endpoint, connect_timeout.max(Duration::from_millis(1)))?;
        let session = zenoh::open(config).wait().map_err(|e| LinkError::Connect {
            endpoint: endpoint.to_owned(),
            waited_s: connect_timeout.as_secs_f64(),
            reason: zenoh_config::reason(&e),
        })?;
        let (mailbox, inbox) = controller_mailbox(clock);
        let mailbox = Arc::new(mailbox);
        for kind in [MessageKind::State, MessageKind::Status] {
            subscribe(&session, &keys.key(kind), kind, {
                let mailbox = Arc::clone(&mailbox);
                move |kind, bytes| mailbox.receive(kind, bytes)
            })?;
        }
        let (target, newest) = triple_buffer(&None);
        let requests = Arc::new(ArrayQueue::new(REQUEST_QUEUE));
        let closing = Arc::new(AtomicBool::new(false));
        let mut outbox = Outbox {
            newest,
            requests: Arc::clone(&requests),
            target_publisher: publisher(&session, keys.key(MessageKind::Target))?,
            request_publisher: publisher(&session, keys.key(MessageKind::Request))?,
            closing: Arc::clone(&closing),
            tally: Arc::clone(&inbox.tally),
        };
        let sender = std::thread::Builder::new()
            .name("tenon-link-send".to_owned())
            .spawn(move || outbox.run())
            .map_err(|e| LinkError::Zenoh { what: "a sending thread".to_owned(), reason: e.to_string() })?;
        Ok(Self { inbox, target, requests, closing, sender: Some(sender), _session: CloseOnDrop(session) })
    }

    fn wake_sender(&self) -> Result<(), LinkError> {
        match &self.sender {
            Some(sender) if !sender.is_finished() => {
                sender.thread().unpark();
                Ok(())
            }
            _ => Err(LinkError::Closed),
        }
    }
}

impl Drop for ZenohLink {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(sender) = self.sender.take() {
            sender.thread().unpark();
            // A panic of the sending thread has been printed by its hook; there is nothing to add.
            let _ = sender.join();
        }
    }
}

impl RobotLink for ZenohLink {
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError> {
        check_finite(target)?;
        self.target.write(Some(*target));
        self.wake_sender()
    }

    fn send_request(&mut self, request: Request) -> Result<(), LinkError> {
        let queued = self.requests.push(request);
        self.wake_sender()?;
        queued.map_err(|_| LinkError::QueueFull { waiting: REQUEST_QUEUE })
    }

    fn latest_state(&mut self) -> Option<Stamped<RobotState>> {
        self.inbox.state.latest()
    }

    fn latest_status(&mut self) -> Option<Stamped<BridgeStatus>> {
        self.inbox.status.latest()
    }

    fn counters(&self) -> LinkCounters {
        self.inbox.tally.read()
    }
}

/// # Errors
/// [`LinkError::NotFinite`]
pub(crate) fn check_finite(target: &JointTarget) -> Result<(), LinkError> {
    target.check_finite().map_err(|joint| LinkError::NotFinite { joint })
}

/// What the sending thread owns.
struct Outbox {
    newest: Output<Option<JointTarget>>,
    requests: Arc<ArrayQueue<Request>>,
    target_publisher: Publisher<'static>,
    request_publisher: Publisher<'static>,
    closing: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl Outbox {
    fn run(&mut self) {
        loop {
            // Read before the last look, so that what was handed over before closing (a release) still leaves.
            let closing = self.closing.load(Ordering::Acquire);
            self.send_waiting();
            if closing {
                return;
            }
            // An unpark that came since the last look makes this return at once.
            std::thread::park();
        }
    }

    fn send_waiting(&mut self) {
        while let Some(request) = self.requests.pop() {
            self.count(put(&self.request_publisher, &codec::encode_request(&request)));
        }
        if self.newest.update()
            && let Some(target) = *self.newest.output_buffer()
        {
            self.count(put(&self.target_publisher, &codec::encode_target(&target)));
        }
    }

    fn count(&self, result: Result<(), LinkError>) {
        let counter = if result.is_ok() { &self.tally.sent } else { &self.tally.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
