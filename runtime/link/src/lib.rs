//! The link between controller and bridge: keys, bytes and transport. Only this crate knows zenoh.
//!
//! Four messages, one key each (`tenon/<robot>/…`), one fixed-size little-endian layout each ([`codec`]):
//!
//! | key | from → to | message | kept as |
//! |---|---|---|---|
//! | `state` | bridge → controller | [`RobotState`] | latest value |
//! | `status` | bridge → controller | [`BridgeStatus`] | latest value |
//! | `target` | controller → bridge | [`JointTarget`] | latest value |
//! | `request` | controller → bridge | [`Request`] | bounded queue |
//!
//! The controller talks through trait [`RobotLink`]: [`ZenohLink`] on a robot, [`MemoryLink`] in tests. The bridge
//! holds a [`BridgeSender`] and a [`BridgeInbox`], from [`open_bridge_link`] or [`memory_link`]. Anybody may listen to a bridge
//! with a [`LinkObserver`], which cannot send; a [`ReadOnlyLink`] makes of that a controller's side that moves nothing.
//! [`Stranger`] is for tests: it puts any bytes on the keys.
//!
//! [`Endpoint`] says where the bridge is and what protects the way there ([`security`]).
//!
//! Messages may be lost, never reordered within a key: a sender repeats a request until the status shows its effect,
//! and a receiver judges everything by its age.

pub mod codec;
mod error;
mod keys;
mod mailbox;
mod memory;
mod observer;
mod read_only;
pub mod security;
mod stranger;
mod zenoh_bridge;
mod zenoh_config;
mod zenoh_link;

use std::sync::Arc;

use tenon_core::message::{BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::{MonotonicTime, Stamped};

pub use codec::{DecodeError, MessageKind};
pub use error::LinkError;
pub use keys::{DEFAULT_ROBOT, RobotKeys};
pub use mailbox::{BridgeInbox, LinkCounters};
pub use memory::{MemoryLink, memory_link};
pub use observer::{Heard, LinkObserver};
pub use read_only::ReadOnlyLink;
pub use security::{Endpoint, Identity, Role, SecurityError};
pub use stranger::Stranger;
pub use zenoh_bridge::{BridgeSender, open_bridge_link};
pub use zenoh_link::ZenohLink;

/// Reads the monotonic clock with which arriving messages are stamped.
pub type Clock = Arc<dyn Fn() -> MonotonicTime + Send + Sync>;

/// The controller's side of the link.
///
/// No method waits for the network or for another thread, so the control loop may call all of them.
pub trait RobotLink: Send {
    /// Hands over a joint target; a newer one replaces one that has not left yet.
    ///
    /// # Errors
    /// [`LinkError::NotFinite`]: it is not sent. [`LinkError::Closed`] after the link broke for good.
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError>;

    /// Hands over a request. It may still get lost on its way: repeat it until the bridge's status shows it.
    ///
    /// # Errors
    /// [`LinkError::QueueFull`] where earlier requests have not left yet, [`LinkError::Closed`].
    fn send_request(&mut self, request: Request) -> Result<(), LinkError>;

    /// The newest robot state and when it arrived.
    fn latest_state(&mut self) -> Option<Stamped<RobotState>>;

    /// The newest status of the bridge and when it arrived.
    fn latest_status(&mut self) -> Option<Stamped<BridgeStatus>>;

    /// What was sent, received and refused so far.
    fn counters(&self) -> LinkCounters;
}

impl<L: RobotLink + ?Sized> RobotLink for Box<L> {
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError> {
        (**self).send_target(target)
    }

    fn send_request(&mut self, request: Request) -> Result<(), LinkError> {
        (**self).send_request(request)
    }

    fn latest_state(&mut self) -> Option<Stamped<RobotState>> {
        (**self).latest_state()
    }

    fn latest_status(&mut self) -> Option<Stamped<BridgeStatus>> {
        (**self).latest_status()
    }

    fn counters(&self) -> LinkCounters {
        (**self).counters()
    }
}
