//! What can go wrong, what must come of it, and within which time.

use serde::Serialize;
use tenon_core::arm::RobotModel;
use tenon_core::config::RobotConfig;
use tenon_core::spec::PolicySpec;

use super::cameras::SeenTimes;
use crate::checks::limits::LONGEST_STOP_S;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ServiceKilled,
    BridgeKilled,
    ServerKilled,
    ServiceStopped,
    BridgeStopped,
    ServerStopped,
    ServiceRestarted,
    BridgeRestarted,
    ServerRestarted,
    RobotSilentShortly,
    RobotSilent,
    LinkCut,
    LinkHalfOpenUp,
    LinkHalfOpenDown,
    LinkLate,
    WireCut,
    WireHalfOpenUp,
    WireHalfOpenDown,
    WireLate,
    ClockForward,
    ClockBack,
    StateFrozen,
    SecondCommander,
    Garbage,
    DiskFull,
    LinkProxyKilled,
    LinkSlow5,
    LinkSlow50,
    LinkJitter,
    WireSlow5,
    WireSlow50,
    DiskReserve,
    NetworkDown,
    NetworkLate,
    CameraGone,
    CameraFrozen,
    CamerasGone,
    CamerasFrozen,
    CamerasHang,
    CamerasHangShortly,
    CamerasEnded,
    CamerasClock,
}

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The arm comes to rest and the cause is named.
    Stop,
    /// The arm goes on as if nothing were.
    GoOn,
    /// Either of them.
    Either,
    /// The arm comes to rest, armed, and goes on by itself.
    Hold,
}

/// From when a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The fault itself.
    Fault,
    /// The instant at which the controller named it: before, it may go on.
    Named,
    /// The end of the fault.
    Healed,
    /// As [`From::Named`], and the commanded motion is judged.
    Command,
}

/// Where a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// What `tenon status` says: the fault, and how the bridge is.
    Status,
    BridgeLog,
    ServiceLog,
}

const STALE: &str = "no robot state for";
const SILENT: &str = "the bridge is silent";
const HEARTBEAT: &str = "no heartbeat from the controller";
const SERVER_GONE: &str = "the Polymetis server went away";
const SERVER_RESTARTED: &str = "the Polymetis server was restarted";
const ROBOT_GONE: &str = "the robot client behind the server stopped";
const DROPPED: &str = "the controller was dropped by the server";
pub const LATE: &str = "ticks late in a row";
const LET_GO: &str = "the bridge let the arm go";
const UPDATE: &str = "the server refused an update";
const PARTS: &str = "the policy cannot observe";

/// Until the simulated robot client sees that it is to be silent no more, s.
const SILENCE_LOOK_S: f64 = 0.05;

/// Times that bounds are made of, s.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Between two commands.
    pub period_s: f64,
    /// From a command until it is played.
    pub lead_s: f64,
    pub heartbeat_s: f64,
    pub state_age_s: f64,
    /// From full speed to rest.
    pub stop_s: f64,
    pub seen: SeenTimes,
}

impl Times {
    /// `period_s`: between two commands; `seeing`: the policy that observes parts.
    pub fn of(config: &RobotConfig, period_s: f64, seeing: &PolicySpec) -> Self {
        let stop_s = match config.model {
            RobotModel::Fer => LONGEST_STOP_S,
            RobotModel::Fr3 => config.safety_limits().longest_stop_s(),
        };
        Self {
            period_s,
            lead_s: config.lead_s(),
            heartbeat_s: config.link.heartbeat_timeout_s,
            state_age_s: config.control.max_state_age_s,
            stop_s,
            seen: SeenTimes::of(config, seeing),
        }
    }

    /// The arm has the way to rest already: what was commanded is played a lead later, and behind it the stop in hand.
    fn played_out_s(&self) -> f64 {
        2.0 * self.period_s + self.lead_s + self.stop_s
    }

    /// Commands still arrive; who makes them notices by the age of the robot's state.
    fn stale_s(&self) -> f64 {
        self.state_age_s + self.played_out_s()
    }
}

impl Kind {
    pub const ALL: [Self; 42] = [
        Self::ServiceKilled,
        Self::BridgeKilled,
        Self::ServerKilled,
        Self::ServiceStopped,
        Self::BridgeStopped,
        Self::ServerStopped,
        Self::ServiceRestarted,
        Self::BridgeRestarted,
        Self::ServerRestarted,
        Self::RobotSilentShortly,
        Self::RobotSilent,
        Self::LinkCut,
        Self::LinkHalfOpenUp,
        Self::LinkHalfOpenDown,
        Self::LinkLate,
        Self::WireCut,
        Self::ClockForward,
        Self::ClockBack,
        Self::StateFrozen,
        Self::SecondCommander,
        Self::Garbage,
        Self::DiskFull,
        Self::WireHalfOpenUp,
        Self::WireHalfOpenDown,
        Self::WireLate,
        Self::LinkProxyKilled,
        Self::LinkSlow5,
        Self::LinkSlow50,
        Self::LinkJitter,
        Self::WireSlow5,
        Self::WireSlow50,
        Self::DiskReserve,
        Self::NetworkDown,
        Self::NetworkLate,
        Self::CameraGone,
        Self::CameraFrozen,
        Self::CamerasGone,
        Self::CamerasFrozen,
        Self::CamerasHang,
        Self::CamerasHangShortly,
        Self::CamerasEnded,
        Self::CamerasClock,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceKilled => "service-killed",
            Self::BridgeKilled => "bridge-killed",
            Self::ServerKilled => "server-killed",
            Self::ServiceStopped => "service-stopped",
            Self::BridgeStopped => "bridge-stopped",
            Self::ServerStopped => "server-stopped",
            Self::ServiceRestarted => "service-restarted",
            Self::BridgeRestarted => "bridge-restarted",
            Self::ServerRestarted => "server-restarted",
            Self::RobotSilentShortly => "robot-silent-shortly",
            Self::RobotSilent => "robot-silent",
            Self::LinkCut => "link-cut",
            Self::LinkHalfOpenUp => "link-half-open-up",
            Self::LinkHalfOpenDown => "link-half-open-down",
            Self::LinkLate => "link-late",
            Self::WireCut => "wire-cut",
            Self::WireHalfOpenUp => "wire-half-open-up",
            Self::WireHalfOpenDown => "wire-half-open-down",
            Self::WireLate => "wire-late",
            Self::ClockForward => "clock-forward",
            Self::ClockBack => "clock-back",
            Self::StateFrozen => "state-frozen",
            Self::SecondCommander => "second-commander",
            Self::Garbage => "garbage",
            Self::DiskFull => "disk-full",
            Self::LinkProxyKilled => "link-proxy-killed",
            Self::LinkSlow5 => "link-slow-5",
            Self::LinkSlow50 => "link-slow-50",
            Self::LinkJitter => "link-jitter",
            Self::WireSlow5 => "wire-slow-5",
            Self::WireSlow50 => "wire-slow-50",
            Self::DiskReserve => "disk-reserve",
            Self::NetworkDown => "network-down",
            Self::NetworkLate => "network-late",
            Self::CameraGone => "camera-gone",
            Self::CameraFrozen => "camera-frozen",
            Self::CamerasGone => "cameras-gone",
            Self::CamerasFrozen => "cameras-frozen",
            Self::CamerasHang => "cameras-hang",
            Self::CamerasHangShortly => "cameras-hang-shortly",
            Self::CamerasEnded => "cameras-ended",
            Self::CamerasClock => "cameras-clock",
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Self::ServiceKilled => "tenon serve gets SIGKILL",
            Self::BridgeKilled => "tenon-bridge gets SIGKILL",
            Self::ServerKilled => "tenon-sim-server gets SIGKILL, and the simulated arm ends with it",
            Self::ServiceStopped => "tenon serve gets SIGSTOP, 1 to 3 s later SIGCONT",
            Self::BridgeStopped => "tenon-bridge gets SIGSTOP, 1 to 3 s later SIGCONT",
            Self::ServerStopped => {
                "tenon-sim-server gets SIGSTOP, 1 to 3 s later SIGCONT; the simulated arm stands meanwhile"
            }
            Self::ServiceRestarted => "tenon serve gets SIGTERM, another one is started",
            Self::BridgeRestarted => "tenon-bridge gets SIGTERM, another one is started",
            Self::ServerRestarted => "tenon-sim-server gets SIGTERM, another one is started",
            Self::RobotSilentShortly => "the robot client does not call the server for 0.3 s",
            Self::RobotSilent => "the robot client does not call the server for 1.5 s",
            Self::LinkCut => "connections between service and bridge break, for 1.2 s",
            Self::LinkHalfOpenUp => "nothing of the service reaches the bridge any more, for 1.2 s",
            Self::LinkHalfOpenDown => "nothing of the bridge reaches the service any more, for 1.2 s",
            Self::LinkLate => "everything between service and bridge comes 400 ms later, for 1.5 s",
            Self::WireCut => "connections between bridge and server break, for 1.2 s",
            Self::WireHalfOpenUp => "nothing of the bridge reaches the server any more, for 1.2 s",
            Self::WireHalfOpenDown => "nothing of the server reaches the bridge any more, for 1.2 s",
            Self::WireLate => "everything between bridge and server comes 400 ms later, for 1.5 s",
            Self::ClockForward => {
                "the controller's clock steps forward by 0.5 to 60 s (in this process, with a clock of its own)"
            }
            Self::ClockBack => {
                "the controller's clock steps back by 0.5 to 60 s (in this process, with a clock of its own)"
            }
            Self::StateFrozen => {
                "the robot's state stands still, its stamp with it (in this process, with a clock of its own)"
            }
            Self::SecondCommander => "another session asks for the arm and sends targets, 50 a second for 1 s",
            Self::Garbage => "messages of a wrong version, wrong lengths, numbers that are none, at the bridge for 1 s",
            Self::DiskFull => "the disk of record and report is filled to its last byte",
            Self::LinkProxyKilled => {
                "what carries the link between service and bridge ends, another one comes after 1.2 s (the deployment has no zenoh \
                 router: end points are explicit; the proxy plays that part)"
            }
            Self::LinkSlow5 => "everything between service and bridge comes 5 ms later, for 1.5 s",
            Self::LinkSlow50 => "everything between service and bridge comes 50 ms later, for 1.5 s",
            Self::LinkJitter => "everything between service and bridge comes up to 40 ms later, for 1.5 s",
            Self::WireSlow5 => "everything between bridge and server comes 5 ms later, for 1.5 s",
            Self::WireSlow50 => "everything between bridge and server comes 50 ms later, for 1.5 s",
            Self::DiskReserve => "the disk of the record gets less room than the recorder leaves free",
            Self::NetworkDown => "the network between service and bridge (a pair of a namespace) goes down for 1.2 s",
            Self::NetworkLate => "the network between service and bridge delays by 400 ms (netem) for 1.5 s",
            Self::CameraGone => "one of two cameras is unplugged for 3 s",
            Self::CameraFrozen => "one of two cameras shows the same picture again and again for 3 s",
            Self::CamerasGone => "all cameras are unplugged, until the run has ended by itself",
            Self::CamerasFrozen => {
                "all cameras show the same picture again and again, until the run has ended by itself"
            }
            Self::CamerasHang => "no picture of any camera comes any more, until the run has ended by itself",
            Self::CamerasHangShortly => "no picture of any camera comes for 0.8 to 1.1 s",
            Self::CamerasEnded => "the pictures of all cameras end for good; another service is started",
            Self::CamerasClock => "the clocks of all cameras jump by 0.5 to 60 s, forward or back",
        }
    }

    pub fn expected(self) -> Expected {
        match self {
            Self::LinkSlow5 | Self::SecondCommander | Self::Garbage | Self::DiskFull | Self::DiskReserve => {
                Expected::GoOn
            }
            // Tenon's law rides out what is shorter than its plans; what is longer brakes.
            Self::LinkSlow50 | Self::LinkJitter | Self::WireSlow5 | Self::WireSlow50 | Self::RobotSilentShortly => {
                Expected::Either
            }
            // The other camera may see all that is needed.
            Self::CameraGone | Self::CameraFrozen => Expected::Either,
            Self::CamerasHangShortly => Expected::Hold,
            // The frames until a clock runs evenly are distrusted: the arm may have to wait for the next ones.
            Self::CamerasClock => Expected::GoOn,
            _ => Expected::Stop,
        }
    }

    /// Runs in this process, with a clock of its own.
    pub fn in_process(self) -> bool {
        matches!(self, Self::ClockForward | Self::ClockBack | Self::StateFrozen)
    }

    /// Cameras fail: a policy that observes parts runs before cameras.
    pub fn is_of_cameras(self) -> bool {
        super::cameras::said_of(self).is_some()
    }

    /// Where cameras fail for so long that the run has to end: until it has, s.
    pub fn ends_within_s(self, times: &Times) -> Option<f64> {
        let still_s = self.bound(times).filter(|_| self.is_of_cameras() && self.expected() != Expected::Hold)?.0;
        // The arm waits from the moment in which it begins to stop.
        Some(still_s - times.stop_s + times.seen.missing_s)
    }

    /// From when the bound counts.
    pub fn counts_from(self) -> From {
        match self {
            // The simulated arm stands with its server or its robot client, and goes on where it stood.
            Self::ServerStopped | Self::RobotSilent | Self::RobotSilentShortly => From::Healed,
            // The arm is gone with its server: what is judged is what it was told.
            Self::ServerKilled | Self::ServerRestarted => From::Command,
            _ if self.expected() == Expected::Either && !self.is_of_cameras() => From::Named,
            _ => From::Fault,
        }
    }

    /// Time until the arm is at rest, s, and what it is made of.
    pub fn bound(self, times: &Times) -> Option<(f64, &'static str)> {
        match self.expected() {
            Expected::GoOn => None,
            _ => Some(match self {
                // Targets still reach the arm; the controller notices by the age of the state.
                Self::LinkHalfOpenDown => (times.stale_s(), "state age + lead + 2 periods + stop"),
                Self::ServerKilled | Self::ServerRestarted => (2.0 * times.period_s + times.stop_s, "2 periods + stop"),
                // Nobody is late, nothing is played: the command itself comes to rest.
                Self::ClockForward | Self::ClockBack => (2.0 * times.period_s + times.stop_s, "2 periods + stop"),
                // The simulated client looks for the file that silences it 20 times a second.
                Self::RobotSilentShortly => (SILENCE_LOOK_S + times.played_out_s(), "look + lead + 2 periods + stop"),
                Self::StateFrozen => {
                    (times.state_age_s + 2.0 * times.period_s + times.stop_s, "state age + 2 periods + stop")
                }
                Self::CameraFrozen | Self::CamerasFrozen => (
                    times.seen.frozen_s + times.seen.blind_s() + times.played_out_s(),
                    "frozen pictures + 2 pictures + pose age + chunk + lead + 2 periods + stop",
                ),
                _ if self.is_of_cameras() => (
                    times.seen.blind_s() + times.played_out_s(),
                    "2 pictures + pose age + chunk + lead + 2 periods + stop",
                ),
                _ => (times.played_out_s(), "lead + 2 periods + stop"),
            }),
        }
    }

    /// Words of which one must be said, and where. Each entry must be fulfilled.
    pub fn names(self) -> &'static [(Where, &'static [&'static str])] {
        use Where::{BridgeLog, ServiceLog, Status};
        match self {
            Self::ServiceKilled => &[(BridgeLog, &[HEARTBEAT])],
            Self::ServiceStopped => &[(BridgeLog, &[HEARTBEAT]), (Status, &[LATE, HEARTBEAT])],
            Self::ServiceRestarted => &[(BridgeLog, &["releases the arm"])],
            // The state's age is noticed before the silence of the status; both are said.
            Self::BridgeKilled | Self::BridgeStopped => &[(Status, &[STALE, SILENT]), (Status, &["silent for"])],
            Self::BridgeRestarted => {
                &[(BridgeLog, &["stopping: the default controller takes the arm"]), (Status, &[LET_GO])]
            }
            Self::ServerKilled | Self::ServerRestarted => &[(Status, &[SERVER_GONE, SERVER_RESTARTED])],
            Self::ServerStopped => &[(Status, &[STALE, SERVER_GONE, ROBOT_GONE, DROPPED])],
            Self::RobotSilentShortly | Self::RobotSilent => &[(Status, &[STALE, ROBOT_GONE, DROPPED])],
            Self::LinkCut | Self::LinkProxyKilled | Self::NetworkDown => {
                &[(Status, &[STALE, SILENT, HEARTBEAT]), (BridgeLog, &[HEARTBEAT])]
            }
            Self::LinkHalfOpenUp => &[(Status, &[HEARTBEAT])],
            Self::LinkHalfOpenDown => &[(Status, &[STALE, SILENT])],
            Self::LinkLate | Self::NetworkLate => &[(Status, &[STALE, SILENT, HEARTBEAT])],
            Self::WireCut => &[(Status, &[SERVER_GONE])],
            Self::WireHalfOpenUp | Self::WireHalfOpenDown | Self::WireLate => &[(Status, &[STALE, SERVER_GONE])],
            Self::LinkSlow50 | Self::LinkJitter => &[(Status, &[STALE, SILENT, HEARTBEAT, UPDATE])],
            Self::WireSlow5 | Self::WireSlow50 => &[(Status, &[STALE, SERVER_GONE, UPDATE])],
            Self::SecondCommander => &[(BridgeLog, &["asked for the arm, which session"])],
            Self::Garbage => &[(BridgeLog, &["message refused"])],
            Self::DiskFull | Self::DiskReserve => &[(ServiceLog, &["warning: flight recorder:"])],
            Self::ClockForward => &[(Status, &[LATE, STALE, SILENT])],
            Self::ClockBack => &[(Status, &["the clock ran back"])],
            Self::StateFrozen => &[(Status, &[STALE])],
            Self::CameraGone | Self::CameraFrozen => &[(Status, &[PARTS])],
            Self::CamerasGone | Self::CamerasFrozen | Self::CamerasHang | Self::CamerasEnded => &[(Status, &[PARTS])],
            // What is said of cameras is judged beside this.
            Self::LinkSlow5 | Self::CamerasHangShortly | Self::CamerasClock => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_once_and_say_what_they_expect() {
        let seen = SeenTimes { frame_s: 0.067, pose_age_s: 0.5, chunk_s: 0.175, frozen_s: 0.4, missing_s: 2.0 };
        let times = Times { period_s: 0.007, lead_s: 0.02, heartbeat_s: 0.3, state_age_s: 0.25, stop_s: 0.35, seen };
        for (i, kind) in Kind::ALL.iter().enumerate() {
            assert!(!Kind::ALL[..i].contains(kind), "{kind:?}");
            assert!(Kind::ALL[..i].iter().all(|other| other.name() != kind.name()), "{kind:?}");
            assert_eq!(kind.bound(&times).is_none(), kind.expected() == Expected::GoOn, "{kind:?}");
            assert!(*kind == Kind::LinkSlow5 || kind.is_of_cameras() || !kind.names().is_empty(), "{kind:?}");
        }
    }
}
