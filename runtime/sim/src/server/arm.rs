//! The MuJoCo Panda behind the simulated server.
//!
//! A real Panda compensates gravity itself, so the torque of a controller comes on top of g(q). A second world of the
//! same model, always at rest, tells g(q); what remains of the first one's bias force is the Coriolis term.

use tenon_core::arm::{Joints, RobotModel};
use tenon_core::avoid::{OBSTACLES, START_JOINTS_RAD};
use tenon_core::noise::{NoiseSource, SeededNoise};

use super::log::StateRecord;
use super::plane::Reading;
use crate::avoid::{obstacle_geom_name, scene_mjcf};
use crate::error::SimError;
use crate::mujoco::{GeomId, JointAddress, Model, Simulation, SiteId};
use crate::panda::{JOINT_NAMES, JOINTS, MOTOR_NAMES, ROD_GEOM, TCP_SITE, arm_mjcf};

/// Length of a physics step, seconds: one control step.
pub const STEP_S: f64 = 0.001;
/// The hardware client clamps a controller's torque to these, N·m (spec `polymetis.md` §8).
const CONTROLLER_TORQUE_NM: [f32; JOINTS] = [86.0, 86.0, 86.0, 86.0, 11.5, 11.5, 11.5];
/// Rest pose of the hardware configuration (spec `polymetis.md` §5.1): where the arm stands without a scene.
pub const REST_POSE_RAD: Joints = [
    -0.13935425877571106,
    -0.020481698215007782,
    -0.05201413854956627,
    -2.0691256523132324,
    0.05058913677930832,
    2.0028650760650635,
    -0.9167874455451965,
];
/// Tool point of the Franka Hand along its z, metres.
const HAND_TCP_M: f64 = 0.1034;

/// What stands around the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerScene {
    /// D3IL Avoid: the rod in the hand, six cylinders, the task's start joints.
    Avoid,
    /// Nothing; the arm starts at its rest pose.
    None,
}

/// The arm and its world.
pub struct SimulatedArm {
    world: Simulation,
    /// The same model at the same joints without motion: its bias force is gravity alone.
    at_rest: Simulation,
    joints: [JointAddress; JOINTS],
    motors: [usize; JOINTS],
    tcp: SiteId,
    rod: Vec<GeomId>,
    obstacles: Vec<GeomId>,
    start_rad: Joints,
    gravity_nm: Joints,
    /// Torque of the controller at the last step, as it came and as it was applied.
    computed_nm: [f32; JOINTS],
    applied_nm: [f32; JOINTS],
    /// Sticks once a controller's torque was not finite.
    error_code: i32,
}

impl std::fmt::Debug for SimulatedArm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SimulatedArm").field("time_s", &self.world.time_s()).finish_non_exhaustive()
    }
}

impl SimulatedArm {
    /// The arm at rest at the scene's start joints, each moved by a normal draw of `seed` with standard deviation
    /// `spread_rad`, cut at one deviation.
    ///
    /// # Errors
    /// [`SimError`] where MuJoCo cannot compile the scene.
    pub fn new(scene: ServerScene, spread_rad: f64, seed: u64) -> Result<Self, SimError> {
        let (mjcf, start_rad) = match scene {
            ServerScene::Avoid => (scene_mjcf(&OBSTACLES), START_JOINTS_RAD),
            ServerScene::None => (empty_scene_mjcf(), REST_POSE_RAD),
        };
        let model = Model::from_mjcf(&mjcf)?;
        let mut joints = [JointAddress { qpos: 0, dof: 0 }; JOINTS];
        let mut motors = [0; JOINTS];
        for joint in 0..JOINTS {
            joints[joint] = model.joint(JOINT_NAMES[joint])?;
            motors[joint] = model.actuator(MOTOR_NAMES[joint])?;
        }
        let (mut rod, mut obstacles) = (Vec::new(), Vec::new());
        if scene == ServerScene::Avoid {
            rod.push(model.geom(ROD_GEOM)?);
            for index in 0..OBSTACLES.len() {
                obstacles.push(model.geom(&obstacle_geom_name(index))?);
            }
        }
        let mut draws = [0.0_f32; JOINTS];
        SeededNoise::new(seed, 0).fill_standard_normal(&mut draws);
        let limits = RobotModel::Fer.limits();
        let start_rad = std::array::from_fn(|i| {
            let moved = start_rad[i] + spread_rad * f64::from(draws[i].clamp(-1.0, 1.0));
            moved.clamp(limits.lower_rad[i], limits.upper_rad[i])
        });
        let mut arm = Self {
            world: Simulation::new(&model),
            at_rest: Simulation::new(&model),
            joints,
            motors,
            tcp: model.site(TCP_SITE)?,
            rod,
            obstacles,
            start_rad,
            gravity_nm: [0.0; JOINTS],
            computed_nm: [0.0; JOINTS],
            applied_nm: [0.0; JOINTS],
            error_code: 0,
        };
        arm.restart();
        Ok(arm)
    }

    fn restart(&mut self) {
        self.world.reset();
        for (address, q) in self.joints.iter().zip(self.start_rad) {
            self.world.qpos_mut()[address.qpos] = q;
        }
    }

    /// First half of a step: the state that the controller is to answer.
    ///
    /// `stamp` is the wall clock, `latency_ms` the time that the controller took last.
    pub fn observe(&mut self, stamp: (i64, i32), latency_ms: f32) -> Reading {
        self.world.step1();
        let bias = self.world.bias_force();
        let positions = self.world.qpos();
        let at_rest = self.at_rest.qpos_mut();
        for address in &self.joints {
            at_rest[address.qpos] = positions[address.qpos];
        }
        self.at_rest.step1();
        let gravity = self.at_rest.bias_force();
        self.gravity_nm = std::array::from_fn(|i| gravity[self.joints[i].dof]);
        let of_dofs = |values: &[f64]| std::array::from_fn(|i| values[self.joints[i].dof] as f32);
        let record = StateRecord {
            seconds: stamp.0,
            nanos: stamp.1,
            joint_positions: std::array::from_fn(|i| positions[self.joints[i].qpos] as f32),
            joint_velocities: of_dofs(self.world.qvel()),
            joint_torques_computed: [0.0; JOINTS],
            prev_joint_torques_computed: self.computed_nm,
            prev_joint_torques_computed_safened: self.applied_nm,
            motor_torques_measured: of_dofs(self.world.actuator_force()),
            motor_torques_external: of_dofs(self.world.constraint_force()),
            motor_torques_desired: self.applied_nm,
            prev_controller_latency_ms: latency_ms,
            prev_command_successful: true,
            error_code: self.error_code,
        };
        let coriolis_nm = std::array::from_fn(|i| bias[self.joints[i].dof] - self.gravity_nm[i]);
        Reading { record, coriolis_nm, gravity_nm: self.gravity_nm }
    }

    /// Second half: applies the controller's torque on top of gravity and moves on by a step.
    ///
    /// A torque that is not finite is not applied (libfranka refuses it too); the error code says so.
    pub fn apply(&mut self, torque_nm: &[f32; JOINTS]) {
        self.computed_nm = *torque_nm;
        if torque_nm.iter().any(|torque| !torque.is_finite()) {
            self.error_code = 1;
            self.applied_nm = [0.0; JOINTS];
        } else {
            self.error_code = 0;
            self.applied_nm = std::array::from_fn(|i| {
                let limit = CONTROLLER_TORQUE_NM[i];
                torque_nm[i].clamp(-limit, limit)
            });
        }
        let total: Joints = std::array::from_fn(|i| f64::from(self.applied_nm[i]) + self.gravity_nm[i]);
        for (motor, torque) in self.motors.iter().zip(total) {
            // The motor's own limits, gravity included, are the model's.
            self.world.ctrl_mut()[*motor] = torque;
        }
        self.world.step2();
        if !self.world.is_stable() {
            tracing::error!("the simulated arm became unstable; it starts again where it started");
            self.restart();
            self.error_code = 1;
        }
    }

    /// Tool point at the last observation, base frame, metres.
    pub fn tcp_m(&self) -> [f64; 3] {
        self.world.site_pose(self.tcp).position_m
    }

    /// Positions (rad) and velocities (rad/s) of the joints at the last observation.
    pub fn joints(&self) -> (Joints, Joints) {
        let (positions, velocities) = (self.world.qpos(), self.world.qvel());
        let of = |i: usize| &self.joints[i];
        (std::array::from_fn(|i| positions[of(i).qpos]), std::array::from_fn(|i| velocities[of(i).dof]))
    }

    /// Whether the rod touched an obstacle at the last observation.
    pub fn rod_touches_obstacle(&self) -> bool {
        self.world.in_contact(&self.rod, &self.obstacles)
    }
}

fn empty_scene_mjcf() -> String {
    let arm = arm_mjcf(HAND_TCP_M, None);
    format!(
        r#"<mujoco model="panda">
<compiler angle="radian" autolimits="true"/>
<option timestep="{STEP_S}"/>
<worldbody>
{}</worldbody>
<actuator>
{}</actuator>
</mujoco>
"#,
        arm.bodies, arm.actuators,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::law::Law;
    use tenon_polymetis::archive::default_controller;

    #[test]
    fn without_torque_the_arm_floats_and_the_default_controller_holds_it() {
        for scene in [ServerScene::Avoid, ServerScene::None] {
            let mut arm = SimulatedArm::new(scene, 0.0, 0).unwrap();
            let start = arm.observe((0, 0), 0.0).record.joint_positions;
            let (kq, kqd) = ([40.0, 30.0, 50.0, 25.0, 35.0, 25.0, 10.0], [4.0, 6.0, 5.0, 5.0, 3.0, 2.0, 1.0]);
            let mut hold = Law::load(&default_controller(&kq, &kqd).unwrap()).unwrap();
            arm.apply(&[0.0; 7]);
            for _ in 0..500 {
                let reading = arm.observe((0, 0), 0.0);
                assert!(reading.coriolis_nm.iter().all(|c| c.abs() < 1e-3), "{reading:?}");
                arm.apply(&hold.forward(&reading).unwrap());
            }
            let end = arm.observe((0, 0), 0.0).record.joint_positions;
            for (a, b) in start.iter().zip(end) {
                assert!((a - b).abs() < 1e-3, "{start:?} {end:?}");
            }
        }
    }

    #[test]
    fn a_torque_that_is_not_finite_is_not_applied() {
        let mut arm = SimulatedArm::new(ServerScene::None, 0.0, 0).unwrap();
        for _ in 0..100 {
            arm.observe((0, 0), 0.0);
            arm.apply(&[f32::NAN; 7]);
        }
        let record = arm.observe((0, 0), 0.0).record;
        assert_eq!(record.error_code, 1);
        assert!(record.joint_velocities.iter().all(|v| v.abs() < 1e-3), "{record:?}");
    }

    #[test]
    fn the_start_follows_the_seed() {
        let start = |seed| SimulatedArm::new(ServerScene::Avoid, 0.05, seed).unwrap().start_rad;
        assert_eq!(start(7), start(7));
        assert_ne!(start(7), start(8));
        for (moved, nominal) in start(7).iter().zip(START_JOINTS_RAD) {
            assert!((moved - nominal).abs() < 0.05 + 1e-9);
        }
    }
}
