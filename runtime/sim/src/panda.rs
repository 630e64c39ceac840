//! The Franka Emika Panda as the simulations use it: MJCF text and kinematics of its tool point.
//!
//! Constants: specification of the simulation tasks, section 4, "Arm for the dynamics".

mod kinematics;
mod mjcf;

pub use kinematics::{Jacobian, ToolPose, forward_kinematics, tool_jacobian};
pub(crate) use mjcf::numbers;
pub use mjcf::{ArmMjcf, FINGER_OPENING_M, Rod, arm_mjcf, drawn_arm_mjcf};

/// Number of arm joints.
pub const JOINTS: usize = 7;

/// Names of the arm's joints in the model.
pub const JOINT_NAMES: [&str; JOINTS] =
    ["panda_joint1", "panda_joint2", "panda_joint3", "panda_joint4", "panda_joint5", "panda_joint6", "panda_joint7"];

/// Names of the arm's motors in the model; the control value is the torque, Nm.
pub const MOTOR_NAMES: [&str; JOINTS] =
    ["panda_motor1", "panda_motor2", "panda_motor3", "panda_motor4", "panda_motor5", "panda_motor6", "panda_motor7"];

/// Name of the hand's body in the model.
pub const HAND_BODY: &str = "panda_hand";
/// Name of the flange's body (link 8) in the model.
pub const FLANGE_BODY: &str = "panda_link8";
/// Name of the site at the tool point.
pub const TCP_SITE: &str = "tcp";
/// Name of the rod's geom.
pub const ROD_GEOM: &str = "rod";

/// Joint ranges of the physics, radians. The controllers stay within narrower ones of their own.
#[allow(clippy::approx_constant, reason = "the model rounds its limit; it is not meant to be pi")]
pub const JOINT_RANGES_RAD: [[f64; 2]; JOINTS] = [
    [-2.9671, 2.9671],
    [-1.8326, 1.8326],
    [-2.9671, 2.9671],
    [-3.1416, 0.0873],
    [-2.9671, 2.9671],
    [-0.0873, 3.8223],
    [-2.9671, 2.9671],
];

/// Limits of the motors' torque, Nm.
pub const TORQUE_LIMITS_NM: [f64; JOINTS] = [87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0];

/// How far a joint frame is turned about its parent's x axis before its own angle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuarterTurn {
    None,
    Plus,
    Minus,
}

/// Joint frame in its parent: offset (metres), then the turn about x; the joint turns about the new z.
struct JointFrame {
    offset_m: [f64; 3],
    turn: QuarterTurn,
}

const JOINT_FRAMES: [JointFrame; JOINTS] = {
    use QuarterTurn::{Minus, None, Plus};
    const fn frame(offset_m: [f64; 3], turn: QuarterTurn) -> JointFrame {
        JointFrame { offset_m, turn }
    }
    [
        frame([0.0, 0.0, 0.333], None),
        frame([0.0, 0.0, 0.0], Minus),
        frame([0.0, -0.316, 0.0], Plus),
        frame([0.0825, 0.0, 0.0], Plus),
        frame([-0.0825, 0.384, 0.0], Minus),
        frame([0.0, 0.0, 0.0], Plus),
        frame([0.088, 0.0, 0.0], Plus),
    ]
};

/// Flange (link 8) along z of joint 7, metres.
const FLANGE_OFFSET_M: f64 = 0.107;
