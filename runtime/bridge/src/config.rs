//! What the bridge needs of `robot.toml`.

use std::time::Duration;

use tenon_core::arm::{Joints, POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD};
use tenon_core::config::RobotConfig;
use tenon_link::DEFAULT_ROBOT;

/// What to connect, and the gains of the controller that is uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct BridgeOptions {
    /// Name of the robot in the link's keys.
    pub robot_name: String,
    /// zenoh endpoint to listen at.
    pub endpoint: String,
    /// Polymetis controller server, `host:port`.
    pub server: String,
    pub state_period: Duration,
    /// Silence of the commander after which the arm is handed back.
    pub heartbeat_timeout: Duration,
    pub joint_stiffness_nm_rad: Joints,
    pub joint_damping_nms_rad: Joints,
    pub cartesian_stiffness: [f64; 6],
    pub cartesian_damping: [f64; 6],
    /// Targets beyond these are refused: where the robot client aborts, or where the robot ends if that is narrower.
    pub joint_lower_rad: Joints,
    pub joint_upper_rad: Joints,
    /// Speed of targets that the safety stage allows.
    pub max_joint_velocity_rad_s: f64,
}

impl BridgeOptions {
    /// Of a checked configuration.
    pub fn new(robot: &RobotConfig) -> Self {
        let model = robot.model.limits();
        let (lower, upper) = (POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD);
        Self {
            robot_name: DEFAULT_ROBOT.to_owned(),
            endpoint: robot.link.endpoint.clone(),
            server: robot.bridge.server.clone(),
            state_period: Duration::from_secs_f64(1.0 / robot.bridge.state_rate_hz),
            heartbeat_timeout: Duration::from_secs_f64(robot.link.heartbeat_timeout_s),
            joint_stiffness_nm_rad: robot.bridge.joint_stiffness_nm_rad,
            joint_damping_nms_rad: robot.bridge.joint_damping_nms_rad,
            cartesian_stiffness: robot.bridge.cartesian_stiffness,
            cartesian_damping: robot.bridge.cartesian_damping,
            joint_lower_rad: std::array::from_fn(|i| lower[i].max(model.lower_rad[i])),
            joint_upper_rad: std::array::from_fn(|i| upper[i].min(model.upper_rad[i])),
            max_joint_velocity_rad_s: robot.safety.max_joint_velocity_rad_s,
        }
    }
}
