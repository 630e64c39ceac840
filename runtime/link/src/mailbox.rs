//! Where received bytes become checked values: latest-value slots, a bounded queue, counters.
//!
//! The receiving thread (zenoh's, or the peer's in memory) writes; the reader never waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::queue::ArrayQueue;
use tenon_core::message::{BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::Stamped;
use triple_buffer::{Input, Output, triple_buffer};

use crate::Clock;
use crate::codec::{self, DecodeError, MessageKind};

/// Requests that the bridge has not looked at yet; what comes on top is lost and repeated by its sender.
pub(crate) const REQUEST_QUEUE: usize = 32;

/// What one end of the link did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Messages handed to the transport.
    pub sent: u64,
    /// Messages that the transport did not take, or requests that found the queue full.
    pub dropped: u64,
    /// Messages received and accepted.
    pub received: u64,
    /// Messages received and refused.
    pub refused: u64,
    /// Targets of a session that does not command.
    pub foreign: u64,
    /// Why the last one was refused.
    pub last_refusal: Option<DecodeError>,
}

/// The counters, written by several threads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
    foreign: AtomicU64,
    last_refusal: Mutex<Option<DecodeError>>,
}

impl Tally {
    pub fn read(&self) -> LinkCounters {
        LinkCounters {
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            foreign: self.foreign.load(Ordering::Relaxed),
            // Written only on a refusal, so this lock is free whenever the peer behaves; never waited for.
            last_refusal: self.last_refusal.try_lock().ok().and_then(|last| *last),
        }
    }

    pub fn accept<T>(&self, decoded: Result<T, DecodeError>) -> Option<T> {
        match decoded {
            Ok(value) => {
                self.received.fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    }
}

/// A slot's writing half; the mutex serialises the transport's callbacks among themselves, readers never take it.
struct SlotWriter<T: Send>(Mutex<Input<Option<Stamped<T>>>>);

impl<T: Copy + Send> SlotWriter<T> {
    fn write(&self, value: Stamped<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(Some(value));
    }
}

/// A slot's reading half.
#[derive(Debug)]
pub(crate) struct SlotReader<T: Send>(Output<Option<Stamped<T>>>);

impl<T: Copy + Send> SlotReader<T> {
    pub fn latest(&mut self) -> Option<Stamped<T>> {
        *self.0.read()
    }
}

fn slot<T: Copy + Send>() -> (SlotWriter<T>, SlotReader<T>) {
    let (input, output) = triple_buffer(&None);
    (SlotWriter(Mutex::new(input)), SlotReader(output))
}

/// Takes in what arrives at the controller.
pub(crate) struct ControllerMailbox {
    state: SlotWriter<RobotState>,
    status: SlotWriter<BridgeStatus>,
    clock: Clock,
    tally: Arc<Tally>,
}

/// What has arrived at the controller.
#[derive(Debug)]
pub(crate) struct ControllerInbox {
    pub state: SlotReader<RobotState>,
    pub status: SlotReader<BridgeStatus>,
    pub tally: Arc<Tally>,
}

pub(crate) fn controller_mailbox(clock: Clock) -> (ControllerMailbox, ControllerInbox) {
    let (state_in, state) = slot();
    let (status_in, status) = slot();
    let tally = Arc::<Tally>::default();
    let mailbox = ControllerMailbox { state: state_in, status: status_in, clock, tally: Arc::clone(&tally) };
    (mailbox, ControllerInbox { state, status, tally })
}

impl ControllerMailbox {
    pub fn receive(&self, kind: MessageKind, bytes: &[u8]) {
        let time = (self.clock)();
        match kind {
            MessageKind::State => {
                if let Some(value) = self.tally.accept(codec::decode_state(bytes)) {
                    self.state.write(Stamped { time, value });
                }
            }
            MessageKind::Status => {
                if let Some(value) = self.tally.accept(codec::decode_status(bytes)) {
                    self.status.write(Stamped { time, value });
                }
            }
            // Not subscribed to.
            MessageKind::Target | MessageKind::Request => {}
        }
    }
}

/// Takes in what arrives at the bridge.
pub(crate) struct BridgeMailbox {
    target: SlotWriter<JointTarget>,
    commander: Arc<AtomicU64>,
    requests: Arc<ArrayQueue<Stamped<Request>>>,
    clock: Clock,
    wake: Box<dyn Fn() + Send + Sync>,
    tally: Arc<Tally>,
}

/// What has arrived at the bridge.
#[derive(Debug)]
pub struct BridgeInbox {
    target: SlotReader<JointTarget>,
    commander: Arc<AtomicU64>,
    requests: Arc<ArrayQueue<Stamped<Request>>>,
    tally: Arc<Tally>,
}

pub(crate) fn bridge_mailbox(clock: Clock, wake: Box<dyn Fn() + Send + Sync>) -> (BridgeMailbox, BridgeInbox) {
    let (target_in, target) = slot();
    let requests = Arc::new(ArrayQueue::new(REQUEST_QUEUE));
    let tally = Arc::<Tally>::default();
    let commander = Arc::<AtomicU64>::default();
    let inbox = BridgeInbox {
        target,
        commander: Arc::clone(&commander),
        requests: Arc::clone(&requests),
        tally: Arc::clone(&tally),
    };
    (BridgeMailbox { target: target_in, commander, requests, clock, wake, tally }, inbox)
}

impl BridgeMailbox {
    pub fn receive(&self, kind: MessageKind, bytes: &[u8]) {
        let time = (self.clock)();
        match kind {
            MessageKind::Target => {
                let Some(value) = self.tally.accept(codec::decode_target(bytes)) else { return };
                // Judged here, because in the slot a stranger's target would displace the commander's.
                if value.session != self.commander.load(Ordering::Relaxed) {
                    self.tally.foreign.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                self.target.write(Stamped { time, value });
            }
            MessageKind::Request => {
                let Some(value) = self.tally.accept(codec::decode_request(bytes)) else { return };
                if self.requests.push(Stamped { time, value }).is_err() {
                    self.tally.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Not subscribed to.
            MessageKind::State | MessageKind::Status => return,
        }
        (self.wake)();
    }
}

impl BridgeInbox {
    /// From now on only targets of `session` are taken; 0, as at the start, takes none.
    pub fn follow(&mut self, session: u64) {
        self.commander.store(session, Ordering::Relaxed);
    }

    /// The newest target of the sessions followed and when it arrived; the same one again until a newer one comes.
    pub fn latest_target(&mut self) -> Option<Stamped<JointTarget>> {
        self.target.latest()
    }

    /// The oldest request not taken yet.
    pub fn next_request(&mut self) -> Option<Stamped<Request>> {
        self.requests.pop()
    }

    /// What was received and refused so far.
    pub fn counters(&self) -> LinkCounters {
        self.tally.read()
    }
}
