//! What goes over the link between controller and bridge. Bytes are `tenon-link`'s business.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::arm::Joints;
use crate::time::RobotTime;

/// Version of every message; a peer with another one is refused by name.
pub const MESSAGE_VERSION: u8 = 1;

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
    /// The server's `error_code`: 0, or 1 if the robot reports any error.
    pub error_code: i32,
}

/// Joint target, from controller to bridge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointTarget {
    /// The lease under which it is sent; the bridge drops targets of any other.
    pub session: u64,
    /// Counts targets of one session, from 1; never runs back.
    pub sequence: u64,
    pub joint_positions_rad: Joints,
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
    /// Sequence of the newest target that the server acknowledged; 0 for none.
    pub acknowledged: u64,
    /// Duration of the newest `UpdateController`, µs.
    pub update_us: u32,
    /// Control rate that the robot client registered with, Hz; 0 while unknown.
    pub robot_hz: u32,
}
