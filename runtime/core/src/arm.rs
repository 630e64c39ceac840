//! The Franka arm: kinematic chain, forward kinematics, Jacobian, limits (spec robot_control.md §6, data/robot.toml).

use nalgebra::{Matrix3, Rotation3, SMatrix, Translation3, UnitQuaternion, Vector3};
use serde::{Deserialize, Serialize};

use crate::geometry::Pose;

/// Seven joint values in rad, rad/s or N·m.
pub type Joints = [f64; 7];

/// 6×7 Jacobian, linear rows first, base axes.
pub type Jacobian = SMatrix<f64, 6, 7>;

/// How a joint's frame is turned about its parent's x axis.
#[derive(Clone, Copy)]
enum Roll {
    No,
    /// By +90°.
    Left,
    /// By −90°.
    Right,
}

/// Position of each joint frame in its parent (m) and its rotation about the parent's x axis. Joint axes are z.
const CHAIN: [([f64; 3], Roll); 7] = [
    ([0.0, 0.0, 0.333], Roll::No),
    ([0.0, 0.0, 0.0], Roll::Right),
    ([0.0, -0.316, 0.0], Roll::Left),
    ([0.0825, 0.0, 0.0], Roll::Left),
    ([-0.0825, 0.384, 0.0], Roll::Right),
    ([0.0, 0.0, 0.0], Roll::Left),
    ([0.088, 0.0, 0.0], Roll::Left),
];

/// Flange beyond link 7, m.
const FLANGE_OFFSET_M: f64 = 0.107;

/// Frames of [`Arm::frames`].
pub const FRAMES: usize = 9;

/// Pose of the tool point of the Franka Hand in the flange: turned by −45°, 0.1034 m further out.
pub fn T_flange_hand_tcp() -> Pose {
    tool_along_flange_z(0.1034, -std::f64::consts::FRAC_PI_4)
}

/// A tool point on the flange's z axis, turned about it.
pub fn tool_along_flange_z(offset_m: f64, yaw_rad: f64) -> Pose {
    Pose::from_parts(
        Translation3::new(0.0, 0.0, offset_m),
        UnitQuaternion::from_axis_angle(&Vector3::z_axis(), yaw_rad),
    )
}

/// A link's frame in the base, as a rotation matrix and an origin: what a chain of joints is multiplied with most quickly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    pub R: Matrix3<f64>,
    pub origin_m: Vector3<f64>,
}

impl Frame {
    fn base() -> Self {
        Self { R: Matrix3::identity(), origin_m: Vector3::zeros() }
    }

    /// A point of this frame in the base.
    pub fn point(&self, p: &Vector3<f64>) -> Vector3<f64> {
        self.R * p + self.origin_m
    }

    pub fn pose(&self) -> Pose {
        let R = Rotation3::from_matrix_unchecked(self.R);
        Pose::from_parts(Translation3::from(self.origin_m), UnitQuaternion::from_rotation_matrix(&R))
    }

    /// The frame of joint `i` at angle `q`, if this is its parent's: R Rx(roll) Rz(q).
    fn child(&self, i: usize, q: f64) -> Self {
        let ([x, y, z], roll) = CHAIN[i];
        let (c0, c1, c2) = (self.R.column(0), self.R.column(1), self.R.column(2));
        // A quarter turn about x swaps the other two axes.
        let (m1, m2) = match roll {
            Roll::No => (c1.into_owned(), c2.into_owned()),
            Roll::Left => (c2.into_owned(), -c1),
            Roll::Right => (-c2, c1.into_owned()),
        };
        let (sin, cos) = q.sin_cos();
        Self {
            R: Matrix3::from_columns(&[c0 * cos + m1 * sin, m1 * cos - c0 * sin, m2]),
            origin_m: self.origin_m + c0 * x + c1 * y + c2 * z,
        }
    }

    /// Further along z.
    fn along_z(&self, by_m: f64) -> Self {
        Self { R: self.R, origin_m: self.origin_m + self.R.column(2) * by_m }
    }
}

/// An arm with a tool: the pose of the tool point in the flange.
#[derive(Debug, Clone, Copy)]
pub struct Arm {
    T_flange_tcp: Pose,
    T_tcp_flange: Pose,
}

impl Arm {
    pub fn new(T_flange_tcp: Pose) -> Self {
        Self { T_flange_tcp, T_tcp_flange: T_flange_tcp.inverse() }
    }

    /// Pose of the flange (`panda_link8`) in the base.
    pub fn flange(&self, q: &Joints) -> Pose {
        self.flange_frame(q).pose()
    }

    fn flange_frame(&self, q: &Joints) -> Frame {
        (0..7).fold(Frame::base(), |frame, i| frame.child(i, q[i])).along_z(FLANGE_OFFSET_M)
    }

    /// Frames of the base, of the seven links, and of the flange, in the base.
    pub fn frames(&self, q: &Joints) -> [Frame; FRAMES] {
        let mut frames = [Frame::base(); FRAMES];
        for i in 0..7 {
            frames[i + 1] = frames[i].child(i, q[i]);
        }
        frames[FRAMES - 1] = frames[7].along_z(FLANGE_OFFSET_M);
        frames
    }

    /// Position of the tool point in the base, m; without the work for its orientation.
    pub fn tcp_position(&self, q: &Joints) -> Vector3<f64> {
        self.tool_point(&self.flange_frame(q))
    }

    /// The tool point of a flange.
    pub fn tool_point(&self, flange: &Frame) -> Vector3<f64> {
        flange.point(&self.T_flange_tcp.translation.vector)
    }

    /// Pose of the tool point in the base.
    pub fn tcp(&self, q: &Joints) -> Pose {
        self.flange(q) * self.T_flange_tcp
    }

    /// The flange pose that puts the tool point at `T_base_tcp`.
    pub fn flange_of_tcp(&self, T_base_tcp: &Pose) -> Pose {
        T_base_tcp * self.T_tcp_flange
    }

    /// Pose and Jacobian of the flange.
    pub fn flange_jacobian(&self, q: &Joints) -> (Pose, Jacobian) {
        self.jacobian_at(q, &Pose::identity())
    }

    /// Pose and Jacobian of the tool point. Its linear rows include ω × lever, which the flange's miss.
    pub fn tcp_jacobian(&self, q: &Joints) -> (Pose, Jacobian) {
        self.jacobian_at(q, &self.T_flange_tcp)
    }

    fn jacobian_at(&self, q: &Joints, T_flange_point: &Pose) -> (Pose, Jacobian) {
        let frames = self.frames(q);
        let end = frames[FRAMES - 1].pose() * T_flange_point;
        let mut J = Jacobian::zeros();
        for (i, frame) in frames[1..=7].iter().enumerate() {
            let axis = frame.R.column(2);
            let linear = axis.cross(&(end.translation.vector - frame.origin_m));
            J.fixed_view_mut::<3, 1>(0, i).copy_from(&linear);
            J.fixed_view_mut::<3, 1>(3, i).copy_from(&axis);
        }
        (end, J)
    }
}

/// Limits of a robot model; profiles of different models are never mixed (spec data/limits.toml).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointLimits {
    pub lower_rad: Joints,
    pub upper_rad: Joints,
    pub velocity_rad_s: Joints,
    pub acceleration_rad_s2: Joints,
    pub jerk_rad_s3: Joints,
    pub torque_nm: Joints,
    /// Where the velocity limit falls toward the ends of the range.
    pub slower_at_ends: Option<SlowerAtEnds>,
}

/// v ≤ √(2 d x) − o at distance x from an end of the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowerAtEnds {
    pub offset_rad_s: Joints,
    pub deceleration_rad_s2: Joints,
}

/// Which robot the limits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotModel {
    /// Franka Emika Robot, "Panda".
    Fer,
    /// Franka Research 3.
    Fr3,
}

impl RobotModel {
    pub fn limits(self) -> JointLimits {
        match self {
            Self::Fer => JointLimits {
                lower_rad: [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
                upper_rad: [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
                velocity_rad_s: [2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61],
                acceleration_rad_s2: [15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0],
                jerk_rad_s3: [7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0],
                torque_nm: [87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0],
                slower_at_ends: None,
            },
            Self::Fr3 => JointLimits {
                lower_rad: [-2.9007, -1.8361, -2.9007, -3.0770, -2.8763, 0.4398, -3.0508],
                upper_rad: [2.9007, 1.8361, 2.9007, -0.1169, 2.8763, 4.6216, 3.0508],
                velocity_rad_s: [2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26],
                acceleration_rad_s2: [10.0; 7],
                jerk_rad_s3: [5000.0; 7],
                torque_nm: [87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0],
                slower_at_ends: Some(SlowerAtEnds {
                    offset_rad_s: [0.6599, 0.2517, 0.2, 0.3533, 0.5757, 0.4878, 0.4628],
                    deceleration_rad_s2: [6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0],
                }),
            },
        }
    }
}

/// Limits beyond which the Polymetis robot client aborts its control loop (spec polymetis.md §8).
pub const POLYMETIS_LOWER_RAD: Joints = [-2.80, -1.66, -2.80, -2.97, -2.80, 0.08, -2.80];
/// See [`POLYMETIS_LOWER_RAD`].
pub const POLYMETIS_UPPER_RAD: Joints = [2.80, 1.66, 2.80, -0.17, 2.80, 3.65, 2.80];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::pose_error;

    const RESET: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];

    #[test]
    fn jacobian_agrees_with_central_differences() {
        let arm = Arm::new(T_flange_hand_tcp());
        let h = 1e-6;
        let (_, J) = arm.tcp_jacobian(&RESET);
        for i in 0..7 {
            let (mut lo, mut hi) = (RESET, RESET);
            lo[i] -= h;
            hi[i] += h;
            let column = pose_error(&arm.tcp(&lo), &arm.tcp(&hi)) / (2.0 * h);
            assert!((column - J.column(i)).norm() < 1e-8, "joint {}", i + 1);
        }
    }

    #[test]
    fn the_tool_point_of_a_flange_is_its_inverse() {
        let arm = Arm::new(T_flange_hand_tcp());
        let back = arm.flange_of_tcp(&arm.tcp(&RESET));
        assert!(pose_error(&back, &arm.flange(&RESET)).norm() < 1e-12);
    }
}
