//! One of a scene's Pandas: where its joints, motors and frames stand in the model (section 3.1).

use nalgebra::{Matrix3, SVector, Vector3};

use super::gripper::Gripper;
use super::osc::{ArmState, JOINTS};
use crate::error::SimError;
use crate::mujoco::{BodyId, HingeChain, JointAddress, Model, Simulation, SiteId};

/// Joint angles at rest, radians; the start is this with noise (section 3.3).
pub(crate) const REST_RAD: [f64; JOINTS] = {
    use std::f64::consts::PI;
    [0.0, PI / 16.0, 0.0, -PI / 2.0 - PI / 3.0, 0.0, PI - 0.2, PI / 4.0]
};
/// Fingers at the start, metres.
pub(crate) const START_FINGERS_M: [f64; 2] = [0.020833, -0.020833];

/// The addresses of one arm with its gripper.
#[derive(Debug, Clone)]
pub(crate) struct Arm {
    pub chain: HingeChain<JOINTS>,
    motors: [usize; JOINTS],
    /// Nm.
    torque_limits: [[f64; 2]; JOINTS],
    fingers: [JointAddress; 2],
    finger_servos: [usize; 2],
    /// Middle and half width of what a finger's servo takes, metres.
    finger_ranges_m: [[f64; 2]; 2],
    pub grip_site: SiteId,
    pub hand: BodyId,
}

impl Arm {
    /// Finds arm number `index`.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn find(model: &Model, index: usize) -> Result<Self, SimError> {
        let joints: [String; JOINTS] = std::array::from_fn(|joint| format!("robot{index}_joint{}", joint + 1));
        let mut motors = [0; JOINTS];
        for (joint, motor) in motors.iter_mut().enumerate() {
            *motor = model.actuator(&format!("robot{index}_torq_j{}", joint + 1))?;
        }
        let mut fingers = [JointAddress { qpos: 0, dof: 0 }; 2];
        let mut finger_servos = [0; 2];
        for finger in 0..2 {
            fingers[finger] = model.joint(&format!("gripper{index}_finger_joint{}", finger + 1))?;
            finger_servos[finger] = model.actuator(&format!("gripper{index}_gripper_finger_joint{}", finger + 1))?;
        }
        Ok(Self {
            chain: model.hinge_chain(&joints)?,
            motors,
            torque_limits: motors.map(|motor| model.control_range(motor)),
            fingers,
            finger_servos,
            finger_ranges_m: finger_servos.map(|servo| {
                let [low, high] = model.control_range(servo);
                [0.5 * (high + low), 0.5 * (high - low)]
            }),
            grip_site: model.site(&format!("gripper{index}_grip_site"))?,
            hand: model.body(&format!("robot{index}_right_hand"))?,
        })
    }

    /// What the controller needs to know, as of the last first half of a step or forward pass.
    pub fn state(&self, simulation: &Simulation) -> ArmState {
        let pose = simulation.site_pose(self.grip_site);
        ArmState {
            positions_rad: self.chain.positions(simulation),
            velocities_rad_s: self.chain.velocities(simulation),
            bias_nm: self.chain.bias_torques(simulation),
            inertia: self.chain.inertia(simulation),
            jacobian: self.chain.jacobian(simulation, &pose.position_m),
            grip_position_m: Vector3::from(pose.position_m),
            grip_rotation: Matrix3::from_row_slice(&pose.rotation),
        }
    }

    /// Puts arm and fingers somewhere.
    pub fn place(&self, simulation: &mut Simulation, joints_rad: &SVector<f64, JOINTS>) {
        self.chain.set_positions(simulation, joints_rad);
        for (finger, position_m) in self.fingers.iter().zip(START_FINGERS_M) {
            simulation.qpos_mut()[finger.qpos] = position_m;
        }
    }

    /// Writes torques, within the motors' limits, and the fingers' targets to the actuators.
    pub fn command(&self, simulation: &mut Simulation, torques_nm: &SVector<f64, JOINTS>, gripper: &Gripper) {
        let control = simulation.ctrl_mut();
        for joint in 0..JOINTS {
            let [low, high] = self.torque_limits[joint];
            control[self.motors[joint]] = torques_nm[joint].clamp(low, high);
        }
        for (finger, share) in gripper.shares().into_iter().enumerate() {
            let [middle, half] = self.finger_ranges_m[finger];
            control[self.finger_servos[finger]] = middle + half * share;
        }
    }

    /// Positions of the fingers, metres.
    pub fn fingers_m(&self, simulation: &Simulation) -> [f64; 2] {
        self.fingers.map(|finger| simulation.qpos()[finger.qpos])
    }
}
