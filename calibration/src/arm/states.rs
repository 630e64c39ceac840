//! The link, read only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenon_core::message::{BridgeState, RobotState};
use tenon_core::time::Stamped;
use tenon_link::{DEFAULT_ROBOT, Endpoint, RobotKeys, RobotLink, ZenohLink};
use tenon_vision::source::Clock;

use super::ArmError;

/// The robot's states as they arrive; clones share one link. What could send is locked away in here: this type hands out what was
/// received and nothing else.
#[derive(Clone)]
pub struct RobotStates {
    link: Arc<Mutex<dyn RobotLink>>,
    endpoint: String,
}

impl RobotStates {
    /// Reads a link that is open. `endpoint` names it in messages.
    pub fn of(link: impl RobotLink + 'static, endpoint: &str) -> Self {
        Self { link: Arc::new(Mutex::new(link)), endpoint: endpoint.to_owned() }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The newest state, and when it arrived.
    pub fn latest(&self) -> Option<Stamped<RobotState>> {
        self.link().latest_state()
    }

    /// What the bridge says of itself, as the end of a sentence that a state is missing or old.
    pub(super) fn bridge_says(&self) -> String {
        let mut link = self.link();
        let counters = link.counters();
        if let (1.., Some(why)) = (counters.refused, counters.last_refusal) {
            return format!("; {} messages were refused, the last because of {why}", counters.refused);
        }
        let advice = match link.latest_status().map(|status| status.value.state) {
            None => "the bridge has sent nothing either: is it another program that listens there?",
            Some(BridgeState::NoServer) => {
                "the bridge says that the Polymetis server does not answer: start it, or correct [bridge] server in robot.toml"
            }
            Some(BridgeState::NoRobot) => {
                "the bridge says that no robot client runs behind the Polymetis server: start it on the robot's computer"
            }
            Some(BridgeState::Idle | BridgeState::Running | BridgeState::Fault) => {
                "the bridge runs: is the network between it and the robot slow or interrupted?"
            }
        };
        format!("; {advice}")
    }

    /// A reader that broke off leaves a link that can be read on.
    fn link(&self) -> MutexGuard<'_, dyn RobotLink + 'static> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the link to the bridge at `endpoint` as an observer, which cannot send, and waits at most `patience` for it.
///
/// # Errors
/// [`ArmError::Link`] where no bridge listens.
pub fn connect(endpoint: &Endpoint, clock: &Arc<dyn Clock>, patience: Duration) -> Result<RobotStates, ArmError> {
    let keys = RobotKeys::new(DEFAULT_ROBOT)?;
    let clock = Arc::clone(clock);
    let link = ZenohLink::listen(endpoint, &keys, Arc::new(move || clock.now()), patience)?;
    Ok(RobotStates::of(link, endpoint.address()))
}
