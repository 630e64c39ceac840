//! The controller's side over zenoh.
//!
//! zenoh's `put` takes locks and may wait a millisecond when the peer is slow, so a thread of its own calls it. The
//! control loop writes into a latest-value slot (targets) or a bounded queue (requests) and wakes that thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
use tenon_core::message::{BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::Stamped;
use triple_buffer::{Input, Output, triple_buffer};
use zenoh::Wait;
use zenoh::pubsub::Publisher;

use crate::codec::{self, MessageKind};
use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::mailbox::{ControllerInbox, REQUEST_QUEUE, Tally, controller_mailbox};
use crate::security::{Endpoint, Role};
use crate::zenoh_bridge::{CloseOnDrop, publisher, put, subscribe};
use crate::{Clock, LinkCounters, RobotLink, zenoh_config};

/// The link of a controller to its bridge. Reconnects by itself; whether the bridge is there shows in the age of
/// what it last sent.
pub struct ZenohLink {
    inbox: ControllerInbox,
    /// What sends; absent on a link that only listens.
    sending: Option<Sending>,
    _session: CloseOnDrop,
}

/// The controller's side of the sending thread.
struct Sending {
    target: Input<Option<JointTarget>>,
    requests: Producer<Request>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for ZenohLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ZenohLink").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// A session that connects to the bridge in `role`, trying for `connect_timeout`.
pub(crate) fn open_client(
    endpoint: &Endpoint,
    role: Role,
    keys: &RobotKeys,
    connect_timeout: Duration,
) -> Result<zenoh::Session, LinkError> {
    // zenoh takes 0 for "try once".
    let config = zenoh_config::client(endpoint, role, keys, connect_timeout.max(Duration::from_millis(1)))?;
    zenoh::open(config).wait().map_err(|error| {
        let waited_s = connect_timeout.as_secs_f64();
        match endpoint.why_not(role) {
            Some(reason) => LinkError::ConnectProtected { endpoint: endpoint.to_string(), waited_s, reason },
            None => {
                LinkError::Connect { endpoint: endpoint.to_string(), waited_s, reason: zenoh_config::reason(&error) }
            }
        }
    })
}

impl ZenohLink {
    /// Connects to the bridge at `endpoint` as its controller, trying for `connect_timeout`. Blocks; call it before the
    /// control loop.
    ///
    /// # Errors
    /// [`LinkError::Connect`] and [`LinkError::ConnectProtected`] where no bridge answers, [`LinkError::Security`],
    /// [`LinkError::Zenoh`].
    pub fn connect(
        endpoint: &Endpoint,
        keys: &RobotKeys,
        clock: Clock,
        connect_timeout: Duration,
    ) -> Result<Self, LinkError> {
        let mut link = Self::open(endpoint, Role::Controller, keys, clock, connect_timeout)?;
        let session = &link._session.0;
        let (target, newest) = triple_buffer(&None);
        let (requests, waiting) = RingBuffer::new(REQUEST_QUEUE);
        let closing = Arc::new(AtomicBool::new(false));
        let mut outbox = Outbox {
            newest,
            requests: waiting,
            target_publisher: publisher(session, keys.key(MessageKind::Target))?,
            request_publisher: publisher(session, keys.key(MessageKind::Request))?,
            closing: Arc::clone(&closing),
            tally: Arc::clone(&link.inbox.tally),
        };
        let thread = std::thread::Builder::new()
            .name("tenon-link-send".to_owned())
            .spawn(move || outbox.run())
            .map_err(|e| LinkError::Zenoh { what: "a sending thread".to_owned(), reason: e.to_string() })?;
        link.sending = Some(Sending { target, requests, closing, thread: Some(thread) });
        Ok(link)
    }

    /// Connects as an observer: the newest state and status arrive, sending is [`LinkError::ReadOnly`].
    ///
    /// # Errors
    /// As [`ZenohLink::connect`].
    pub fn listen(
        endpoint: &Endpoint,
        keys: &RobotKeys,
        clock: Clock,
        connect_timeout: Duration,
    ) -> Result<Self, LinkError> {
        Self::open(endpoint, Role::Observer, keys, clock, connect_timeout)
    }

    fn open(
        endpoint: &Endpoint,
        role: Role,
        keys: &RobotKeys,
        clock: Clock,
        connect_timeout: Duration,
    ) -> Result<Self, LinkError> {
        let session = open_client(endpoint, role, keys, connect_timeout)?;
        let (mailbox, inbox) = controller_mailbox(clock);
        let mailbox = Arc::new(mailbox);
        for kind in [MessageKind::State, MessageKind::Status] {
            subscribe(&session, &keys.key(kind), kind, {
                let mailbox = Arc::clone(&mailbox);
                move |kind, bytes| mailbox.receive(kind, bytes)
            })?;
        }
        Ok(Self { inbox, sending: None, _session: CloseOnDrop(session) })
    }

    fn sending(&mut self) -> Result<&mut Sending, LinkError> {
        self.sending.as_mut().ok_or(LinkError::ReadOnly)
    }
}

impl Sending {
    fn wake(&self) -> Result<(), LinkError> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => {
                thread.thread().unpark();
                Ok(())
            }
            _ => Err(LinkError::Closed),
        }
    }
}

/// Runs before the session is closed, so that what was handed over last still leaves.
impl Drop for Sending {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the sending thread has been printed by its hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl RobotLink for ZenohLink {
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError> {
        check_finite(target)?;
        let sending = self.sending()?;
        sending.target.write(Some(*target));
        sending.wake()
    }

    fn send_request(&mut self, request: Request) -> Result<(), LinkError> {
        let sending = self.sending()?;
        let queued = sending.requests.push(request);
        sending.wake()?;
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
    requests: Consumer<Request>,
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
        while let Ok(request) = self.requests.pop() {
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
