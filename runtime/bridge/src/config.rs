//! What the bridge needs of `robot.toml`.

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::config::{BridgeController, GripperConfig, RobotConfig};
use tenon_core::safety::JointBounds;
use tenon_link::{DEFAULT_ROBOT, Endpoint, LinkError};
use tenon_polymetis::waypoints::{Gains, WaypointSettings};

/// Speed and acceleration that the law in the server may use beyond those of targets: a curve through waypoints passes them a
/// little where the way turns, and an arm that was left behind has to catch up.
const VELOCITY_ROOM: f64 = 1.05;
const ACCELERATION_ROOM: f64 = 1.5;
/// The law brakes by itself when no plan came for as long as any plan lasts, and this much more.
const PATIENCE_S: f64 = 0.05;
/// A waypoint further ahead than this is not joined, s.
const LONGEST_JOIN_S: f64 = 0.5;
const SHORTEST_BRAKE_S: f64 = 0.02;

/// What to connect, and the gains of the controller that is uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct BridgeOptions {
    /// Name of the robot in the link's keys.
    pub robot_name: String,
    /// Where to listen, and what protects the way there.
    pub endpoint: Endpoint,
    /// Polymetis controller server, `host:port`.
    pub server: String,
    /// The gripper behind a server of its own, where there is one.
    pub gripper: Option<GripperConfig>,
    pub state_period: Duration,
    /// Silence of the commander after which the arm is handed back.
    pub heartbeat_timeout: Duration,
    pub controller: BridgeController,
    /// How long after the instant that it is for a target is played.
    pub lead_s: f64,
    pub joint_stiffness_nm_rad: Joints,
    pub joint_damping_nms_rad: Joints,
    pub cartesian_stiffness: [f64; 6],
    pub cartesian_damping: [f64; 6],
    /// What the safety stage keeps targets to; but the range is where the robot client aborts, or where the robot ends if that is
    /// narrower.
    pub bounds: [JointBounds; 7],
    /// Longest stop that the safety stage may need.
    pub longest_stop_s: f64,
}

impl BridgeOptions {
    /// Of a checked configuration.
    ///
    /// # Errors
    /// As [`Endpoint::of_config`]: what is no end point, and a link that nothing protects.
    pub fn new(robot: &RobotConfig) -> Result<Self, LinkError> {
        let limits = robot.safety_limits();
        Ok(Self {
            robot_name: DEFAULT_ROBOT.to_owned(),
            endpoint: Endpoint::of_config(&robot.link)?,
            server: robot.bridge.server.clone(),
            gripper: robot.gripper.clone(),
            state_period: Duration::from_secs_f64(1.0 / robot.bridge.state_rate_hz),
            heartbeat_timeout: Duration::from_secs_f64(robot.link.heartbeat_timeout_s),
            controller: robot.bridge.controller,
            lead_s: robot.bridge.lead_s,
            joint_stiffness_nm_rad: robot.bridge.joint_stiffness_nm_rad,
            joint_damping_nms_rad: robot.bridge.joint_damping_nms_rad,
            cartesian_stiffness: robot.bridge.cartesian_stiffness,
            cartesian_damping: robot.bridge.cartesian_damping,
            bounds: std::array::from_fn(|i| JointBounds {
                lower_rad: limits.joints.lower_rad[i],
                upper_rad: limits.joints.upper_rad[i],
                ..limits.bounds(i)
            }),
            longest_stop_s: limits.longest_stop_s(),
        })
    }

    /// Gains of the law that is uploaded.
    pub fn gains(&self) -> Gains {
        Gains {
            kq: self.joint_stiffness_nm_rad.map(|k| k as f32),
            kqd: self.joint_damping_nms_rad.map(|k| k as f32),
            kx: self.cartesian_stiffness.map(|k| k as f32),
            kxd: self.cartesian_damping.map(|k| k as f32),
        }
    }

    /// Limits of Tenon's law at a robot that is called `rate_hz` times a second, for upload number `session`.
    pub fn waypoint_settings(&self, rate_hz: u32, session: u32) -> WaypointSettings {
        let steps = |s: f64| (s * f64::from(rate_hz)).ceil().max(1.0) as u32;
        let of = |value: fn(&JointBounds) -> f64| std::array::from_fn(|i| value(&self.bounds[i]));
        WaypointSettings {
            lower_rad: of(|b| b.lower_rad),
            upper_rad: of(|b| b.upper_rad),
            velocity_rad_s: of(|b| b.velocity_rad_s * VELOCITY_ROOM),
            acceleration_rad_s2: of(|b| b.acceleration_rad_s2 * ACCELERATION_ROOM),
            braking_rad_s2: of(|b| b.acceleration_rad_s2),
            rate_hz,
            patience_steps: steps(self.lead_s + self.longest_stop_s + PATIENCE_S),
            longest_join_steps: steps(LONGEST_JOIN_S),
            shortest_brake_steps: steps(SHORTEST_BRAKE_S),
            session,
        }
    }
}
