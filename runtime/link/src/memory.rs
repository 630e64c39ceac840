//! The link in memory: same codec, same slots, no network, for tests.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tenon_core::message::{BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::Stamped;

use crate::codec::{self, MessageKind};
use crate::error::LinkError;
use crate::mailbox::{BridgeInbox, BridgeMailbox, ControllerInbox, bridge_mailbox, controller_mailbox};
use crate::zenoh_bridge::{BridgeSender, Outlet};
use crate::zenoh_link::check_finite;
use crate::{Clock, LinkCounters, RobotLink};

/// Decides about every message whether it arrives.
type Fate = Arc<Mutex<dyn FnMut(MessageKind) -> bool + Send>>;

/// The controller's end of a link in memory.
pub struct MemoryLink {
    inbox: ControllerInbox,
    bridge: BridgeMailbox,
    arrives: Fate,
}

/// A connected pair of ends. `arrives` is asked about every message and may drop it; `|_| true` is a perfect link.
/// Messages arrive at once, in the sender's thread.
pub fn memory_link(
    clock: Clock,
    wake: impl Fn() + Send + Sync + 'static,
    arrives: impl FnMut(MessageKind) -> bool + Send + 'static,
) -> (MemoryLink, BridgeSender, BridgeInbox) {
    let (controller, controller_inbox) = controller_mailbox(Arc::clone(&clock));
    let (bridge, bridge_inbox) = bridge_mailbox(clock, Box::new(wake));
    let arrives: Fate = Arc::new(Mutex::new(arrives));
    let outlet_fate = Arc::clone(&arrives);
    let outlet: Outlet = Arc::new(move |kind, bytes: &[u8]| {
        if decide(&outlet_fate, kind) {
            controller.receive(kind, bytes);
        }
        Ok(())
    });
    let link = MemoryLink { inbox: controller_inbox, bridge, arrives };
    (link, BridgeSender::new(outlet), bridge_inbox)
}

fn decide(fate: &Fate, kind: MessageKind) -> bool {
    (*fate.lock().unwrap_or_else(PoisonError::into_inner))(kind)
}

impl MemoryLink {
    /// Puts bytes on the link as a peer of another make would.
    pub fn send_raw(&mut self, kind: MessageKind, bytes: &[u8]) {
        self.inbox.tally.sent.fetch_add(1, Ordering::Relaxed);
        if decide(&self.arrives, kind) {
            self.bridge.receive(kind, bytes);
        }
    }
}

impl RobotLink for MemoryLink {
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError> {
        check_finite(target)?;
        self.send_raw(MessageKind::Target, &codec::encode_target(target));
        Ok(())
    }

    fn send_request(&mut self, request: Request) -> Result<(), LinkError> {
        self.send_raw(MessageKind::Request, &codec::encode_request(&request));
        Ok(())
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
