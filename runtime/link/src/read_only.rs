//! A link for a controller that is not to move anything: it hears the robot and has no way to send.

use std::time::Duration;

use tenon_core::message::{
    BridgeFault, BridgeState, BridgeStatus, GripperCommand, GripperPhase, JointTarget, Request, RobotState,
};
use tenon_core::time::Stamped;

use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::zenoh_link::{ZenohLink, check_finite};
use crate::{Clock, Endpoint, LinkCounters, RobotLink};

/// Read-only mode. What the controller hands over goes nowhere: no publisher exists on this session. So that the controller runs as
/// it would with the arm, the lease that it asks for is granted here; whoever really commands the arm notices nothing. Everything
/// else about the bridge, a missing server or robot included, is what the bridge says.
#[derive(Debug)]
pub struct ReadOnlyLink {
    listening: ZenohLink,
    lease: Lease,
}

/// The lease that nobody but this link knows of, and what its holder believes to have commanded.
#[derive(Debug, Default)]
struct Lease {
    session: u64,
    epoch: u32,
    gripper: Option<GripperCommand>,
}

impl Lease {
    fn request(&mut self, request: Request) {
        match request {
            Request::Arm { session } if session != self.session => {
                self.session = session;
                self.epoch = self.epoch.wrapping_add(1);
            }
            Request::Release { session } if session == self.session => {
                *self = Self { epoch: self.epoch, ..Self::default() }
            }
            Request::Gripper { session, command } if session == self.session => self.gripper = Some(command),
            Request::Arm { .. } | Request::Release { .. } | Request::Heartbeat { .. } | Request::Gripper { .. } => {}
        }
    }

    /// The robot's state as the controller is to see it: a hand has done at once what it was told. Its width is the real one.
    fn followed(&self, said: RobotState) -> RobotState {
        let gripper = match self.gripper {
            _ if said.gripper == GripperPhase::Absent => GripperPhase::Absent,
            Some(GripperCommand::Open) => GripperPhase::Open,
            Some(GripperCommand::Close) => GripperPhase::Holding,
            None => said.gripper,
        };
        RobotState { gripper, ..said }
    }

    /// The bridge's status as the controller is to see it.
    fn seen(&self, said: BridgeStatus) -> BridgeStatus {
        let mut seen = BridgeStatus { session: self.session, epoch: self.epoch, acknowledged: 0, update_us: 0, ..said };
        if matches!(said.state, BridgeState::Idle | BridgeState::Running | BridgeState::Fault) {
            // Another commander's lease or fault is not this controller's.
            seen.state = if self.session == 0 { BridgeState::Idle } else { BridgeState::Running };
            seen.fault = BridgeFault::None;
        }
        seen
    }
}

impl ReadOnlyLink {
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
        Ok(Self { listening: ZenohLink::listen(endpoint, keys, clock, connect_timeout)?, lease: Lease::default() })
    }
}

impl RobotLink for ReadOnlyLink {
    fn send_target(&mut self, target: &JointTarget) -> Result<(), LinkError> {
        check_finite(target)
    }

    fn send_request(&mut self, request: Request) -> Result<(), LinkError> {
        self.lease.request(request);
        Ok(())
    }

    fn latest_state(&mut self) -> Option<Stamped<RobotState>> {
        self.listening.latest_state().map(|said| Stamped { time: said.time, value: self.lease.followed(said.value) })
    }

    fn latest_status(&mut self) -> Option<Stamped<BridgeStatus>> {
        self.listening.latest_status().map(|said| Stamped { time: said.time, value: self.lease.seen(said.value) })
    }

    fn counters(&self) -> LinkCounters {
        self.listening.counters()
    }
}

#[cfg(test)]
mod tests {
    use tenon_core::time::RobotTime;

    use super::*;

    fn said(state: BridgeState, session: u64) -> BridgeStatus {
        let fault = if state == BridgeState::Fault { BridgeFault::ControllerDropped } else { BridgeFault::None };
        BridgeStatus { sequence: 3, state, fault, session, epoch: 9, acknowledged: 12, update_us: 400, robot_hz: 1000 }
    }

    #[test]
    fn the_lease_is_granted_here_and_anothers_is_not_seen() {
        let mut lease = Lease::default();
        assert_eq!(lease.seen(said(BridgeState::Running, 77)).state, BridgeState::Idle);
        lease.request(Request::Arm { session: 5 });
        lease.request(Request::Arm { session: 5 });
        for state in [BridgeState::Idle, BridgeState::Running, BridgeState::Fault] {
            let seen = lease.seen(said(state, 77));
            assert_eq!((seen.state, seen.fault, seen.session), (BridgeState::Running, BridgeFault::None, 5));
            assert_eq!((seen.epoch, seen.acknowledged), (1, 0), "nothing of ours was acknowledged");
        }
        lease.request(Request::Release { session: 4 });
        assert_eq!(lease.seen(said(BridgeState::Idle, 0)).state, BridgeState::Running);
        lease.request(Request::Release { session: 5 });
        assert_eq!(lease.seen(said(BridgeState::Idle, 0)).state, BridgeState::Idle);
    }

    #[test]
    fn a_hand_has_done_what_it_was_told_and_a_missing_one_stays_missing() {
        let mut lease = Lease::default();
        let state = |gripper| RobotState {
            sequence: 1,
            robot_time: RobotTime::default(),
            joint_positions_rad: [0.1; 7],
            joint_velocities_rad_s: [0.0; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: 0.03,
            gripper,
            error_code: 0,
        };
        lease.request(Request::Arm { session: 5 });
        assert_eq!(lease.followed(state(GripperPhase::Empty)).gripper, GripperPhase::Empty);
        lease.request(Request::Gripper { session: 5, command: GripperCommand::Open });
        assert_eq!(lease.followed(state(GripperPhase::Empty)).gripper, GripperPhase::Open);
        lease.request(Request::Gripper { session: 5, command: GripperCommand::Close });
        let seen = lease.followed(state(GripperPhase::Open));
        assert_eq!((seen.gripper, seen.gripper_width_m), (GripperPhase::Holding, 0.03));
        assert_eq!(lease.followed(state(GripperPhase::Absent)).gripper, GripperPhase::Absent);
        lease.request(Request::Release { session: 5 });
        assert_eq!(lease.followed(state(GripperPhase::Open)).gripper, GripperPhase::Open);
    }

    #[test]
    fn a_robot_that_is_not_there_stays_so() {
        let mut lease = Lease::default();
        lease.request(Request::Arm { session: 5 });
        for state in [BridgeState::NoServer, BridgeState::NoRobot] {
            assert_eq!(lease.seen(said(state, 0)).state, state);
        }
    }
}
