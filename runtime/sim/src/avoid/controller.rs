//! The controller of D3IL Avoid: Cartesian set point → inverse kinematics on a state of its own → joint PD torque.
//!
//! Runs at every physics step. Source: specification of the simulation tasks, section 4, "Controller".

use nalgebra::{Quaternion, SVector, UnitQuaternion, Vector3, Vector6};
use tenon_core::avoid::{COMMANDED_QUAT_WXYZ, PHYSICS_STEP_S, REST_JOINTS_RAD, TCP_FROM_HAND_M};

use crate::avoid::clipped_solve::solve_clipped;
use crate::panda::{JOINTS, forward_kinematics, tool_jacobian};

type JointVector = SVector<f64, JOINTS>;

/// Passes of the inverse kinematics in each physics step.
const INNER_ITERATIONS: usize = 3;
/// Bound of each component of the position error, metres.
const POSITION_ERROR_CLIP_M: f64 = 0.01;
/// Bound of each component of the quaternion error vector.
const ROTATION_ERROR_CLIP: f64 = 0.1;
/// Task velocity for each metre of position error, 1/s; z is held stiffer.
const POSITION_GAINS: [f64; 3] = [200.0, 200.0, 800.0];
/// Task velocity for each unit of quaternion error, rad/s.
const ROTATION_GAIN: f64 = 30.0;
/// Added to the diagonal of J Jᵀ.
const REGULARISATION: f64 = 1e-12;
/// Singular values of J Jᵀ are clipped to this range before it is inverted.
const SINGULAR_VALUE_RANGE: [f64; 2] = [0.01, 100.0];
/// Bound of each joint's distance to the rest posture, radians.
const REST_ERROR_CLIP_RAD: f64 = 0.2;
/// Null-space velocity for each radian of that distance, 1/s.
const REST_GAIN: f64 = 40.0;
/// Bound of the norm of the joint velocity, rad/s.
const MAX_JOINT_SPEED: f64 = 3.0;
/// Range of the inverse kinematics' own joint state, radians.
const IK_LIMITS_RAD: [[f64; 2]; JOINTS] = [
    [-2.8973, 2.8973],
    [-1.7628, 1.7628],
    [-2.8973, 2.0],
    [-3.0718, -0.0698],
    [-2.8973, 2.8973],
    [-0.0175, 3.7525],
    [-2.8973, 2.8973],
];
/// Proportional gains of the joint controller, Nm/rad.
const P_GAINS: [f64; JOINTS] = [120.0, 120.0, 120.0, 120.0, 50.0, 30.0, 10.0];
/// Derivative gains of the joint controller, Nm s/rad.
const D_GAINS: [f64; JOINTS] = [10.0, 10.0, 10.0, 10.0, 6.0, 5.0, 3.0];

/// Desired joint motion of one physics step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointSetPoint {
    pub positions_rad: [f64; JOINTS],
    pub velocities_rad_s: [f64; JOINTS],
}

/// Inverse kinematics that starts at the measured joints and then runs open loop on its own last value.
#[derive(Debug, Clone, PartialEq)]
pub struct CartesianController {
    q: [f64; JOINTS],
}

impl CartesianController {
    /// Starts at measured joint positions, radians.
    pub fn new(joint_positions_rad: [f64; JOINTS]) -> Self {
        Self { q: joint_positions_rad }
    }

    /// Its own joint state, radians: all there is to save.
    pub fn joint_positions_rad(&self) -> [f64; JOINTS] {
        self.q
    }

    /// One physics step towards a tool point `target_m` (base frame, metres) with the task's fixed orientation.
    ///
    /// Three times: v = (K_p e_p; 30 e_q), n = 40 clip(q_rest − q), q̇ = Jᵀ A⁻¹ (v − J n) + n with A = J Jᵀ (singular
    /// values clipped), |q̇| ≤ 3, q ← clip(q + dt q̇). The desired velocity is the whole change divided by dt.
    pub fn update(&mut self, target_m: Vector3<f64>) -> JointSetPoint {
        let before = self.q;
        for _ in 0..INNER_ITERATIONS {
            self.iterate(target_m);
        }
        let mut velocities_rad_s = [0.0; JOINTS];
        for joint in 0..JOINTS {
            velocities_rad_s[joint] = (self.q[joint] - before[joint]) / PHYSICS_STEP_S;
        }
        JointSetPoint { positions_rad: self.q, velocities_rad_s }
    }

    fn iterate(&mut self, target_m: Vector3<f64>) {
        let pose = forward_kinematics(&self.q, TCP_FROM_HAND_M);
        let position_error =
            (target_m - pose.position_m).map(|e| e.clamp(-POSITION_ERROR_CLIP_M, POSITION_ERROR_CLIP_M));
        let rotation_error = quaternion_error(pose.quaternion().quaternion())
            .map(|e| e.clamp(-ROTATION_ERROR_CLIP, ROTATION_ERROR_CLIP));
        let mut task_velocity = Vector6::zeros();
        for axis in 0..3 {
            task_velocity[axis] = POSITION_GAINS[axis] * position_error[axis];
            task_velocity[3 + axis] = ROTATION_GAIN * rotation_error[axis];
        }

        let null_velocity = JointVector::from_fn(|joint, _| {
            let distance = REST_JOINTS_RAD[joint] - self.q[joint];
            REST_GAIN * distance.clamp(-REST_ERROR_CLIP_RAD, REST_ERROR_CLIP_RAD)
        });
        let J = tool_jacobian(&pose);
        let mut A = J * J.transpose();
        for index in 0..6 {
            A[(index, index)] += REGULARISATION;
        }
        let [low, high] = SINGULAR_VALUE_RANGE;
        let weights = solve_clipped(&A, &(task_velocity - J * null_velocity), low, high);
        let mut velocity = J.tr_mul(&weights) + null_velocity;
        let speed = velocity.norm();
        if speed > MAX_JOINT_SPEED {
            velocity *= MAX_JOINT_SPEED / speed;
        }
        for joint in 0..JOINTS {
            let [low, high] = IK_LIMITS_RAD[joint];
            self.q[joint] = (self.q[joint] + PHYSICS_STEP_S * velocity[joint]).clamp(low, high);
        }
    }
}

/// Joint torque (Nm): P∘(q_d − q) + D∘(q̇_d − q̇) + bias; the motors' limits are the model's.
///
/// `bias_force_nm`: gravity and velocity terms of the present state.
pub fn joint_torque(
    set_point: &JointSetPoint,
    positions_rad: &[f64],
    velocities_rad_s: &[f64],
    bias_force_nm: &[f64],
) -> [f64; JOINTS] {
    std::array::from_fn(|joint| {
        P_GAINS[joint] * (set_point.positions_rad[joint] - positions_rad[joint])
            + D_GAINS[joint] * (set_point.velocities_rad_s[joint] - velocities_rad_s[joint])
            + bias_force_nm[joint]
    })
}

/// w_c u_d − w_d u_c − u_d × u_c with the sign of the desired quaternion nearest to `current`, in base axes.
///
/// For a small turn θ from current to desired it is θ/2.
fn quaternion_error(current: &Quaternion<f64>) -> Vector3<f64> {
    let [w, x, y, z] = COMMANDED_QUAT_WXYZ;
    let mut desired = *UnitQuaternion::new_unchecked(Quaternion::new(w, x, y, z)).quaternion();
    if desired.coords.dot(&current.coords) < 0.0 {
        desired = -desired;
    }
    let (u_d, u_c) = (desired.imag(), current.imag());
    u_d * current.scalar() - u_c * desired.scalar() - u_d.cross(&u_c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::UnitQuaternion;
    use tenon_core::avoid::{START_COMMAND_M, START_JOINTS_RAD};

    #[test]
    fn quaternion_error_is_half_the_turn_to_the_desired_orientation() {
        let [w, x, y, z] = COMMANDED_QUAT_WXYZ;
        let desired = UnitQuaternion::from_quaternion(Quaternion::new(w, x, y, z));
        let turn = Vector3::new(0.002, -0.003, 0.001);
        let current = UnitQuaternion::from_scaled_axis(-turn) * desired;
        for sign in [1.0, -1.0] {
            let error = quaternion_error(&(current.quaternion() * sign));
            assert!((error - turn * 0.5).norm() < 1e-8, "{error}");
        }
    }

    #[test]
    fn a_resting_target_is_reached_and_kept() {
        let mut controller = CartesianController::new(START_JOINTS_RAD);
        let target = Vector3::from(START_COMMAND_M);
        let mut last = controller.update(target);
        for _ in 0..3000 {
            last = controller.update(target);
        }
        let pose = forward_kinematics(&last.positions_rad, TCP_FROM_HAND_M);
        assert!((pose.position_m - target).norm() < 1e-3);
        assert!(quaternion_error(pose.quaternion().quaternion()).norm() < 0.02);
    }

    #[test]
    fn joint_state_never_leaves_its_limits() {
        let mut controller = CartesianController::new(START_JOINTS_RAD);
        for step in 0..4000 {
            let far = if step < 2000 { 3.0 } else { -3.0 };
            let set_point = controller.update(Vector3::new(far, -far, 0.1));
            for (q, [low, high]) in set_point.positions_rad.iter().zip(IK_LIMITS_RAD) {
                assert!((low..=high).contains(q));
            }
        }
    }
}
