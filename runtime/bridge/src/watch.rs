//! What the server's answers mean: is the robot alive, is the controller still ours.

use std::time::Duration;

use tenon_core::message::BridgeFault;
use tenon_core::time::{MonotonicTime, RobotTime};

/// A robot whose stamp stands still for longer is taken for gone; the server drops its controller after 1 s.
pub const FROZEN_AFTER: Duration = Duration::from_millis(500);

/// Tells moving stamps from repeated ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct StampWatch {
    last: Option<(RobotTime, MonotonicTime)>,
    moved: bool,
}

impl StampWatch {
    /// A state stamped `stamp` was answered at `now`. Returns whether it is a new one.
    pub fn observe(&mut self, stamp: RobotTime, now: MonotonicTime) -> bool {
        match &mut self.last {
            // The first one may be years old: only a second, different one shows a live robot.
            None => {
                self.last = Some((stamp, now));
                true
            }
            Some((last, _)) if *last == stamp => false,
            Some(last) => {
                *last = (stamp, now);
                self.moved = true;
                true
            }
        }
    }

    /// Whether stamps move. Judged at an answer only: where we were late to ask, nothing is known.
    pub fn is_alive(&self, answered: MonotonicTime) -> bool {
        self.moved && self.last.is_some_and(|(_, seen)| answered.since(seen) < FROZEN_AFTER)
    }

    /// The server went away: what comes next has to show itself anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What an episode (log indices of the present or last controller, −1 = unset) says about the controller that we set
/// at `ours`; `None` where all is well.
pub fn judge_episode(ours: i32, start: i32, end: i32) -> Option<BridgeFault> {
    match (start, end) {
        (s, -1) if s == ours => None,
        (s, _) if s == ours => Some(BridgeFault::ControllerDropped),
        // No controller was ever set, or indices count from anew: this is another run of the server, or its robot
        // client registered again.
        (s, _) if s < ours => Some(BridgeFault::ServerRestarted),
        _ => Some(BridgeFault::ControllerReplaced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn only_a_moving_stamp_shows_a_live_robot() {
        let mut watch = StampWatch::default();
        let stamp = RobotTime::from_nanos;
        assert!(watch.observe(stamp(1), ms(0)));
        assert!(!watch.is_alive(ms(0)));
        assert!(!watch.observe(stamp(1), ms(5)));
        assert!(watch.observe(stamp(2), ms(10)));
        assert!(watch.is_alive(ms(10)) && watch.is_alive(ms(509)) && !watch.is_alive(ms(510)));
        assert!(watch.observe(stamp(1), ms(600)), "a clock that was set back still moves");
        assert!(watch.is_alive(ms(600)));
        watch.forget();
        assert!(!watch.is_alive(ms(600)));
    }

    #[test]
    fn every_episode_that_is_not_ours_is_a_fault_with_its_cause() {
        assert_eq!(judge_episode(100, 100, -1), None);
        assert_eq!(judge_episode(100, 100, 250), Some(BridgeFault::ControllerDropped));
        assert_eq!(judge_episode(100, 300, -1), Some(BridgeFault::ControllerReplaced));
        assert_eq!(judge_episode(100, 300, 400), Some(BridgeFault::ControllerReplaced));
        assert_eq!(judge_episode(100, -1, -1), Some(BridgeFault::ServerRestarted));
        assert_eq!(judge_episode(100, 20, -1), Some(BridgeFault::ServerRestarted));
        assert_eq!(judge_episode(100, -1, 30), Some(BridgeFault::ServerRestarted));
    }
}
