//! Tool-point pose and Jacobian in closed form, because a controller evaluates them three times a physics step.

use nalgebra::{Matrix3, Rotation3, SMatrix, UnitQuaternion, Vector3};

use super::{FLANGE_OFFSET_M, JOINT_FRAMES, JOINTS, QuarterTurn};

/// Columns: joints; rows: linear velocity, then angular velocity, in base axes.
pub type Jacobian = SMatrix<f64, 6, JOINTS>;

/// Pose of the tool point in the base, with the joint axes that lead to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolPose {
    /// Tool point, metres.
    pub position_m: Vector3<f64>,
    /// Orientation of the hand (and of the tool point).
    pub rotation: Matrix3<f64>,
    /// A point on each joint's axis, metres.
    joint_origins_m: [Vector3<f64>; JOINTS],
    /// Direction of each joint's axis.
    joint_axes: [Vector3<f64>; JOINTS],
}

impl ToolPose {
    /// Orientation as a unit quaternion, sign as it comes.
    pub fn quaternion(&self) -> UnitQuaternion<f64> {
        UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(self.rotation))
    }
}

/// Pose of the point that lies `tcp_from_hand_m` along the hand's z axis, in the base frame.
///
/// `q`: joint positions, radians. A chain of offsets and quarter turns about x, then the joint's own angle about z;
/// the hand is turned by −45° about the flange's z.
pub fn forward_kinematics(q: &[f64; JOINTS], tcp_from_hand_m: f64) -> ToolPose {
    let mut position = Vector3::zeros();
    let (mut x, mut y, mut z) = (Vector3::x(), Vector3::y(), Vector3::z());
    let mut joint_origins_m = [Vector3::zeros(); JOINTS];
    let mut joint_axes = [Vector3::zeros(); JOINTS];
    for (joint, frame) in JOINT_FRAMES.iter().enumerate() {
        let [dx, dy, dz] = frame.offset_m;
        position += x * dx + y * dy + z * dz;
        (y, z) = match frame.turn {
            QuarterTurn::None => (y, z),
            QuarterTurn::Plus => (z, -y),
            QuarterTurn::Minus => (-z, y),
        };
        let (sin, cos) = q[joint].sin_cos();
        (x, y) = (x * cos + y * sin, y * cos - x * sin);
        joint_origins_m[joint] = position;
        joint_axes[joint] = z;
    }
    let half = std::f64::consts::FRAC_1_SQRT_2;
    ToolPose {
        position_m: position + z * (FLANGE_OFFSET_M + tcp_from_hand_m),
        rotation: Matrix3::from_columns(&[(x - y) * half, (x + y) * half, z]),
        joint_origins_m,
        joint_axes,
    }
}

/// Jacobian of the tool point: column j is `[z_j × (p − p_j); z_j]`.
pub fn tool_jacobian(pose: &ToolPose) -> Jacobian {
    let mut J = Jacobian::zeros();
    for joint in 0..JOINTS {
        let axis = pose.joint_axes[joint];
        let linear = axis.cross(&(pose.position_m - pose.joint_origins_m[joint]));
        J.fixed_view_mut::<3, 1>(0, joint).copy_from(&linear);
        J.fixed_view_mut::<3, 1>(3, joint).copy_from(&axis);
    }
    J
}
