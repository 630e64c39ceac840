//! D3IL Avoid in MuJoCo: the Panda with the rod among six cylinders, its controller, the delayed observation.
//!
//! Numbers, mode bits, reward and success are `tenon_core::avoid`; this module adds the physics.
//!
//! # The delay
//! Within a control step the set point is set, then observation and reward are read, then 35 physics steps run, and
//! only then the commanded part of the observation is updated. So what a step returns describes the state *before*
//! that step's action: the first step after a reset repeats the reset's observation, and a policy that executes
//! chunks of four sees the state one control step old. Data and training share this; see the specification of the
//! simulation tasks, section 4, "Lag".

mod clipped_solve;
mod controller;
mod scene;

pub use controller::{CartesianController, JointSetPoint, joint_torque};
use scene::drawn_scene_mjcf;
pub use scene::{TABLE_GEOM, obstacle_geom_name, scene_mjcf};

use std::sync::{Arc, OnceLock};

use nalgebra::Vector3;
use tenon_core::avoid::{
    ACTION_DIM, COMMANDED_HEIGHT_M, EPISODE_STEPS, ModeBits, OBSERVATION_DIM, OBSTACLES, Obstacle,
    PHYSICS_STEPS_PER_CONTROL_STEP, START_JOINTS_RAD, TCP_FROM_HAND_M, reward,
};

use crate::batch::{Environment, EnvironmentFault, StepOutcome};
use crate::error::SimError;
use crate::mujoco::{GeomId, JointAddress, Model, Simulation};
use crate::panda::{JOINT_NAMES, JOINTS, MOTOR_NAMES, ROD_GEOM, forward_kinematics};
use crate::render::Sight;
use crate::saved_state::{StateReader, StateWriter};

/// First value of a saved environment.
const STATE_VERSION: u64 = 1;

/// The compiled scene with the places of its parts; clones share the model.
#[derive(Debug, Clone)]
pub struct AvoidScene {
    model: Model,
    joints: [JointAddress; JOINTS],
    motors: [usize; JOINTS],
    rod: GeomId,
    obstacles: [GeomId; OBSTACLES.len()],
    drawn: Arc<Drawn>,
}

/// The scene as it is drawn, compiled when somebody wants to see it: the physics has no geoms for the arm's links.
#[derive(Debug)]
struct Drawn {
    cylinders: [Obstacle; OBSTACLES.len()],
    model: OnceLock<Option<Model>>,
}

impl Drawn {
    fn model(&self) -> Option<&Model> {
        self.model.get_or_init(|| Model::from_mjcf(&drawn_scene_mjcf(&self.cylinders)).ok()).as_ref()
    }
}

impl AvoidScene {
    /// Compiles the task's scene.
    ///
    /// # Errors
    /// [`SimError`] where the MuJoCo library is another version.
    pub fn new() -> Result<Self, SimError> {
        Self::with_obstacles(&OBSTACLES)
    }

    /// Compiles the scene with other cylinders than the task's. Mode bits and reward stay those of the task.
    ///
    /// # Errors
    /// [`SimError`] where MuJoCo refuses the cylinders or the library is another version.
    pub fn with_obstacles(obstacles: &[Obstacle; OBSTACLES.len()]) -> Result<Self, SimError> {
        let model = Model::from_mjcf(&scene_mjcf(obstacles))?;
        let mut joints = [JointAddress { qpos: 0, dof: 0 }; JOINTS];
        let mut motors = [0; JOINTS];
        for joint in 0..JOINTS {
            joints[joint] = model.joint(JOINT_NAMES[joint])?;
            motors[joint] = model.actuator(MOTOR_NAMES[joint])?;
        }
        let rod = model.geom(ROD_GEOM)?;
        let drawn = Arc::new(Drawn { cylinders: *obstacles, model: OnceLock::new() });
        let mut obstacles = [rod; OBSTACLES.len()];
        for (index, obstacle) in obstacles.iter_mut().enumerate() {
            *obstacle = model.geom(&obstacle_geom_name(index))?;
        }
        Ok(Self { model, joints, motors, rod, obstacles, drawn })
    }

    /// The compiled model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// One Avoid environment.
#[derive(Debug)]
pub struct AvoidEnv {
    scene: AvoidScene,
    simulation: Simulation,
    controller: CartesianController,
    /// What the observation shows as commanded: the set point whose physics has run.
    commanded_xy_m: [f64; 2],
    /// Tool point of the present joint positions.
    tcp_position_m: [f64; 3],
    mode_bits: ModeBits,
    /// Latched: the rod has touched an obstacle.
    rod_touched: bool,
    steps: usize,
    /// Scratch for restoring, so that it allocates nothing.
    state: Vec<f64>,
    /// The world that is drawn, once somebody wanted to see it.
    drawn: Option<Box<Simulation>>,
}

impl AvoidEnv {
    /// An environment in its start state.
    pub fn new(scene: &AvoidScene) -> Self {
        let simulation = Simulation::new(&scene.model);
        let state = vec![0.0; simulation.state_len()];
        let mut environment = Self {
            scene: scene.clone(),
            simulation,
            controller: CartesianController::new(START_JOINTS_RAD),
            commanded_xy_m: [0.0; 2],
            tcp_position_m: [0.0; 3],
            mode_bits: ModeBits::default(),
            rod_touched: false,
            steps: 0,
            state,
            drawn: None,
        };
        environment.restart();
        environment
    }

    /// Back to the start: joints at rest where the reset motion leaves them, commanded = measured. Deterministic.
    pub fn restart(&mut self) {
        self.simulation.reset();
        for (joint, address) in self.scene.joints.iter().enumerate() {
            self.simulation.qpos_mut()[address.qpos] = START_JOINTS_RAD[joint];
        }
        self.controller = CartesianController::new(START_JOINTS_RAD);
        self.tcp_position_m = self.measure_tcp_m();
        self.commanded_xy_m = [self.tcp_position_m[0], self.tcp_position_m[1]];
        self.mode_bits = ModeBits::default();
        self.rod_touched = false;
        self.steps = 0;
    }

    /// The tool point now, metres: not delayed.
    pub fn tcp_position_m(&self) -> [f64; 3] {
        self.tcp_position_m
    }

    /// The set point of the last control step, x and y, metres.
    pub fn commanded_xy_m(&self) -> [f64; 2] {
        self.commanded_xy_m
    }

    /// Whether the rod has touched an obstacle in this episode.
    pub fn rod_touched(&self) -> bool {
        self.rod_touched
    }

    /// The way taken so far.
    pub fn mode_bits(&self) -> ModeBits {
        self.mode_bits
    }

    /// Control steps executed in this episode.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Joint positions now, radians.
    pub fn joint_positions_rad(&self) -> [f64; JOINTS] {
        let qpos = self.simulation.qpos();
        self.scene.joints.map(|address| qpos[address.qpos])
    }

    /// Observation of the present state: commanded x, y, measured x, y.
    pub fn observation(&self) -> [f64; OBSERVATION_DIM] {
        let [x, y, _] = self.tcp_position_m;
        [self.commanded_xy_m[0], self.commanded_xy_m[1], x, y]
    }

    /// Reward of the present state.
    pub fn state_reward(&self) -> f64 {
        let [x, y, _] = self.tcp_position_m;
        reward(self.rod_touched, self.mode_bits, [x, y])
    }

    /// Executes one control step towards an absolute set point (base frame, metres): physics, mode bits, contact.
    ///
    /// Scripted demonstrations and the replay of recorded ones use this; [`Environment::step`] adds observation,
    /// reward and time limit around it.
    ///
    /// # Errors
    /// The fault where the set point is no number (nothing is executed then) or the world became unstable.
    pub fn step_setpoint(&mut self, set_point_m: [f64; 3]) -> Result<(), EnvironmentFault> {
        if !set_point_m.iter().all(|value| value.is_finite()) {
            return Err(EnvironmentFault::NonFiniteAction);
        }
        let target = Vector3::from(set_point_m);
        for _ in 0..PHYSICS_STEPS_PER_CONTROL_STEP {
            self.physics_step(target);
        }
        if !self.simulation.is_stable() {
            return Err(EnvironmentFault::UnstableState);
        }
        self.steps += 1;
        self.commanded_xy_m = [set_point_m[0], set_point_m[1]];
        self.tcp_position_m = self.measure_tcp_m();
        self.mode_bits.update(self.tcp_position_m[0], self.tcp_position_m[1]);
        Ok(())
    }

    fn physics_step(&mut self, target_m: Vector3<f64>) {
        self.simulation.step1();
        if self.simulation.contact_count() > 0 && !self.rod_touched {
            self.rod_touched = self.simulation.in_contact(&[self.scene.rod], &self.scene.obstacles);
        }
        let set_point = self.controller.update(target_m);
        let positions = self.joint_positions_rad();
        let (qvel, bias) = (self.simulation.qvel(), self.simulation.bias_force());
        let velocities = self.scene.joints.map(|address| qvel[address.dof]);
        let bias = self.scene.joints.map(|address| bias[address.dof]);
        let torque = joint_torque(&set_point, &positions, &velocities, &bias);
        for (joint, &motor) in self.scene.motors.iter().enumerate() {
            self.simulation.ctrl_mut()[motor] = torque[joint];
        }
        self.simulation.step2();
    }

    fn measure_tcp_m(&self) -> [f64; 3] {
        forward_kinematics(&self.joint_positions_rad(), TCP_FROM_HAND_M).position_m.into()
    }
}

impl Environment for AvoidEnv {
    fn observation_dim(&self) -> usize {
        OBSERVATION_DIM
    }

    fn action_dim(&self) -> usize {
        ACTION_DIM
    }

    /// The start is the same for every seed: the task has no randomness.
    fn reset(&mut self, _seed: u64, observation: &mut [f64]) {
        self.restart();
        observation.copy_from_slice(&self.observation());
    }

    /// `action`: increment of the commanded x, y, metres. Observation and reward are those of before the action.
    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        observation.copy_from_slice(&self.observation());
        let reward = self.state_reward();
        let set_point_m = [self.commanded_xy_m[0] + action[0], self.commanded_xy_m[1] + action[1], COMMANDED_HEIGHT_M];
        match self.step_setpoint(set_point_m) {
            Ok(()) => StepOutcome { reward, terminated: false, truncated: self.steps >= EPISODE_STEPS, fault: None },
            Err(fault) => StepOutcome::faulted(fault),
        }
    }

    /// A world of its own with the present joint positions, so the physics is not touched.
    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        if self.drawn.is_none() {
            self.drawn = self.scene.drawn.model().map(|model| Box::new(Simulation::new(model)));
        }
        let drawn = self.drawn.as_deref_mut()?;
        drawn.qpos_mut().copy_from_slice(self.simulation.qpos());
        drawn.place();
        Some(drawn)
    }

    fn sight(&self) -> Sight {
        Sight { camera: Some(scene::CAMERA), ..Sight::default() }
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        let mut state = vec![0.0; self.simulation.state_len()];
        self.simulation.save_state(&mut state);
        let mut writer = StateWriter::new(bytes);
        writer.u64(STATE_VERSION);
        writer.f64s(&state);
        writer.f64s(&self.controller.joint_positions_rad());
        writer.f64s(&self.commanded_xy_m);
        writer.f64s(&self.tcp_position_m);
        writer.u64(u64::from(self.mode_bits.bits()));
        writer.u8(u8::from(self.rod_touched));
        writer.u64(self.steps as u64);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let mut reader = StateReader::new("an Avoid environment", bytes);
        let version = reader.u64()?;
        if version != STATE_VERSION {
            return Err(reader.error(format!("version {version} instead of {STATE_VERSION}")));
        }
        reader.f64s(&mut self.state)?;
        let mut joints = [0.0; JOINTS];
        reader.f64s(&mut joints)?;
        let mut commanded_xy_m = [0.0; 2];
        reader.f64s(&mut commanded_xy_m)?;
        let mut tcp_position_m = [0.0; 3];
        reader.f64s(&mut tcp_position_m)?;
        let bits = reader.u64()?;
        let mode_bits = u16::try_from(bits)
            .ok()
            .and_then(ModeBits::from_bits)
            .ok_or_else(|| reader.error(format!("mode bits {bits:#x}")))?;
        let rod_touched = reader.u8()? != 0;
        let steps = reader.u64()? as usize;
        reader.finish()?;
        self.simulation.restore_state(&self.state)?;
        self.controller = CartesianController::new(joints);
        self.commanded_xy_m = commanded_xy_m;
        self.tcp_position_m = tcp_position_m;
        self.mode_bits = mode_bits;
        self.rod_touched = rod_touched;
        self.steps = steps;
        Ok(())
    }
}
