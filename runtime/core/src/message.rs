//! What goes over the link between controller and bridge. Bytes are `tenon-link`'s business.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::arm::Joints;
use crate::time::{MonotonicTime, RobotTime};

/// Version of every message; a peer with another one is refused by name.
pub const MESSAGE_VERSION: u8 = 2;

/// Measured state of the robot, from bridge to controller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RobotState {
    /// Counts states of one bridge process, from 1.
    pub sequence: u64,
    /// The robot client's stamp.
    pub robot_time: RobotTime,
    pub joint_positions_rad: Joints,
    pub joint_velocities_rad_s: Joints,
    pub joint_torques_external_nm: Joints,
    /// Opening between the fingers, m; NaN where there is no gripper.
    pub gripper_width_m: f64,
    pub gripper: GripperPhase,
    /// The server's `error_code`: 0, or 1 if the robot reports any error.
    pub error_code: i32,
}

impl RobotState {
    /// The first state of an arm at rest without a hand.
    pub fn at_rest(joint_positions_rad: Joints) -> Self {
        Self {
            sequence: 1,
            robot_time: RobotTime::default(),
            joint_positions_rad,
            joint_velocities_rad_s: [0.0; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: GripperPhase::Absent,
            error_code: 0,
        }
    }
}

/// What the gripper does, as the bridge sees it (spec robot_control.md §7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GripperPhase {
    /// There is none, or its server or hand does not answer.
    #[default]
    Absent,
    Open,
    Opening,
    Closing,
    /// Closed on something.
    Holding,
    /// Closed on nothing.
    Empty,
    /// The last command was not carried out in time, or the fingers stand half open and nobody said why; it needs a new
    /// command.
    TimedOut,
}

impl GripperPhase {
    /// Whether a command is being carried out.
    pub fn is_moving(self) -> bool {
        matches!(self, Self::Opening | Self::Closing)
    }
}

/// What the gripper is asked to do. How wide, fast and strong is the bridge's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GripperCommand {
    Open,
    Close,
}

/// The motion of the joints at an instant, from controller to bridge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointTarget {
    /// The lease under which it is sent; the bridge drops targets of any other.
    pub session: u64,
    /// Counts targets of one session, from 1; never runs back.
    pub sequence: u64,
    /// The instant, on the commander's own clock: the bridge tells by the fastest target how far that is from its own.
    pub due: MonotonicTime,
    pub joint_positions_rad: Joints,
    pub joint_velocities_rad_s: Joints,
    /// With these the bridge knows the stop that is in hand: what the arm does if no newer target comes.
    pub joint_accelerations_rad_s2: Joints,
}

impl JointTarget {
    /// A target at rest.
    pub fn still(session: u64, sequence: u64, due: MonotonicTime, joint_positions_rad: Joints) -> Self {
        let none = [0.0; 7];
        Self {
            session,
            sequence,
            due,
            joint_positions_rad,
            joint_velocities_rad_s: none,
            joint_accelerations_rad_s2: none,
        }
    }

    /// Whether every number of it is one; otherwise the first joint that is not.
    ///
    /// # Errors
    /// The joint.
    pub fn check_finite(&self) -> Result<(), usize> {
        let all = [&self.joint_positions_rad, &self.joint_velocities_rad_s, &self.joint_accelerations_rad_s2];
        (0..7).find(|&i| all.iter().any(|values| !values[i].is_finite())).map_or(Ok(()), Err)
    }
}

/// What the controller asks of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Take the lease `session`, upload the controller with the measured joints as target and accept targets.
    Arm { session: u64 },
    /// Give the lease back; the bridge lets the server's default controller hold the arm.
    Release { session: u64 },
    /// The owner of the lease is alive. A bridge that misses it for a while releases by itself.
    Heartbeat { session: u64 },
    /// Move the gripper. A command repeated while it is carried out changes nothing.
    Gripper { session: u64, command: GripperCommand },
}

/// Where the bridge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeState {
    /// The Polymetis server does not answer.
    NoServer,
    /// The server answers but no robot client runs behind it.
    NoRobot,
    /// Ready to be armed; the default controller holds the arm.
    Idle,
    /// Our controller runs and follows the targets of `session`.
    Running,
    /// Our controller was dropped or an update failed; needs a new `Arm`.
    Fault,
}

/// Why the bridge is in `Fault`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeFault {
    #[error("none")]
    None,
    #[error("the Polymetis server went away")]
    ServerGone,
    #[error("the Polymetis server was restarted")]
    ServerRestarted,
    #[error("the robot client behind the server stopped")]
    RobotGone,
    #[error("the controller was dropped by the server (reflex or limit)")]
    ControllerDropped,
    #[error("another client replaced our controller")]
    ControllerReplaced,
    #[error("the server refused the controller")]
    ControllerRefused,
    #[error("the server refused an update")]
    UpdateRefused,
    #[error("no heartbeat from the controller")]
    HeartbeatLost,
}

/// State of the bridge, sent periodically.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BridgeStatus {
    pub sequence: u64,
    pub state: BridgeState,
    pub fault: BridgeFault,
    /// The lease in force; 0 for none.
    pub session: u64,
    /// Counts leases that this bridge process granted; a new one begins with every arming.
    pub epoch: u32,
    /// Sequence of the newest target that the server acknowledged; 0 for none.
    pub acknowledged: u64,
    /// Duration of the newest `UpdateController`, µs.
    pub update_us: u32,
    /// Control rate that the robot client registered with, Hz; 0 while unknown.
    pub robot_hz: u32,
}

impl BridgeStatus {
    /// The first status of a bridge that is ready to be armed, before a robot client of 1 kHz.
    pub fn idle() -> Self {
        Self {
            sequence: 1,
            state: BridgeState::Idle,
            fault: BridgeFault::None,
            session: 0,
            epoch: 1,
            acknowledged: 0,
            update_us: 0,
            robot_hz: 1000,
        }
    }
}
