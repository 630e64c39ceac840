//! The Robomimic tasks with observations of the state: Lift, Can, Square, Transport.
//!
//! Robots, controller, observations, starts and successes are those of the specification of the simulation tasks,
//! section 3, which restates robosuite 1.4.1; the scenes come out of its wheel (`make assets-robomimic`).
//!
//! # A control step
//! 25 times: the first half of a physics step derives poses, inertia and contacts; the goal is set (the first time); the
//! torques are computed; the second half moves on. So what is observed afterwards, and what success is judged by, is 2 ms
//! old but for joint and finger positions, as in the reference (section 3.4). An episode ends by its length alone; a
//! step is rewarded with 1 while the task is done.

mod arm;
mod assets;
mod can;
pub mod expert;
mod gripper;
mod lift;
mod linear;
mod observation;
mod osc;
mod reset;
mod scene;
mod square;
mod task;
mod transport;

pub use assets::{FOLDER_VARIABLE, scene_path};
pub use scene::{RobomimicScene, SceneSizes, Visuals};
pub use task::{ARM_ACTION_DIM, ARM_OBSERVATION_DIM, PHYSICS_STEPS, RobomimicTask};

use nalgebra::SVector;
use rand_distr::{Distribution, StandardNormal};
use tenon_core::noise::SeededNoise;

use crate::batch::{Environment, EnvironmentFault, StepOutcome};
use crate::error::SimError;
use crate::mujoco::Simulation;
use crate::render::Sight;
use crate::saved_state::{StateReader, StateWriter};
use arm::REST_RAD;
use gripper::Gripper;
use osc::OscPose;

/// First value of a saved environment.
const STATE_VERSION: u64 = 2;
/// Standard deviation of each joint's angle at the start, radians.
const START_NOISE_RAD: f64 = 0.02;

/// What may differ from the task as the paper used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RobomimicOptions {
    /// Control steps after which an episode is truncated; `None`: the task's.
    pub episode_steps: Option<usize>,
}

/// An arm's controller and gripper.
#[derive(Debug, Clone)]
struct Control {
    osc: OscPose,
    gripper: Gripper,
}

/// One environment of a Robomimic task.
#[derive(Debug)]
pub struct RobomimicEnv {
    scene: RobomimicScene,
    episode_steps: usize,
    simulation: Simulation,
    controls: Vec<Control>,
    steps: usize,
    /// What was observed last.
    observation: Vec<f64>,
    succeeded: bool,
    /// The positions that the derived quantities belong to: those before the last physics step.
    derived_qpos: Vec<f64>,
    /// The world that is drawn, once somebody wanted to see it.
    drawn: Option<Box<Simulation>>,
    /// Scratch: a saved world.
    state: Vec<f64>,
}

impl RobomimicEnv {
    /// An environment with arms at rest, and everything else where the scene's file has it; a reset comes next.
    pub fn new(scene: &RobomimicScene, options: RobomimicOptions) -> Self {
        let mut simulation = Simulation::new(scene.model());
        simulation.forward();
        let control =
            |arm: &arm::Arm| Control { osc: OscPose::new(&arm.state(&simulation)), gripper: Gripper::default() };
        let mut env = Self {
            controls: scene.arms.iter().map(control).collect(),
            episode_steps: options.episode_steps.unwrap_or(scene.task().episode_steps()),
            steps: 0,
            observation: vec![0.0; scene.task().observation_dim()],
            succeeded: false,
            derived_qpos: simulation.qpos().to_vec(),
            drawn: None,
            state: vec![0.0; simulation.state_len()],
            simulation,
            scene: scene.clone(),
        };
        env.begin();
        env
    }

    /// Which task it is.
    pub fn task(&self) -> RobomimicTask {
        self.scene.task()
    }

    /// Its scene.
    pub fn scene(&self) -> &RobomimicScene {
        &self.scene
    }

    /// Its world; for pictures and measurements.
    pub fn simulation(&self) -> &Simulation {
        &self.simulation
    }

    /// Starts an episode in a given state: positions and velocities of the whole scene.
    ///
    /// # Panics
    /// Where a length is another one than the scene's.
    pub fn start_at(&mut self, qpos: &[f64], qvel: &[f64]) {
        self.simulation.reset();
        self.simulation.qpos_mut().copy_from_slice(qpos);
        self.simulation.qvel_mut().copy_from_slice(qvel);
        self.begin();
    }

    /// One pass that derives everything from the positions; controllers hold what they find.
    fn begin(&mut self) {
        self.simulation.forward();
        self.derived_qpos.copy_from_slice(self.simulation.qpos());
        for (arm, control) in self.scene.arms.iter().zip(&mut self.controls) {
            *control = Control { osc: OscPose::new(&arm.state(&self.simulation)), gripper: Gripper::default() };
        }
        self.steps = 0;
        self.look();
    }

    /// Takes down observation and success.
    fn look(&mut self) {
        self.scene.observe(&self.simulation, &mut self.observation);
        self.succeeded = self.scene.succeeded(&self.simulation);
    }

    /// Positions now: arms with their fingers, then free bodies (position, quaternion wxyz).
    pub fn qpos(&self) -> &[f64] {
        self.simulation.qpos()
    }

    /// Velocities now.
    pub fn qvel(&self) -> &[f64] {
        self.simulation.qvel()
    }

    /// What was observed last, `[observation_dim]`.
    pub fn observation(&self) -> &[f64] {
        &self.observation
    }

    /// Whether the task was done when last looked.
    pub fn succeeded(&self) -> bool {
        self.succeeded
    }

    /// Control steps executed in this episode.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Position (metres) and row-major rotation of an arm's present goal, world frame.
    ///
    /// # Panics
    /// Where there is no such arm.
    pub fn goal(&self, arm: usize) -> ([f64; 3], [f64; 9]) {
        self.controls[arm].osc.goal()
    }

    /// One control step; false where the controller met something that is no number. `controls`: told what each physics step was given.
    fn control_step(&mut self, action: &[f64], mut controls: impl FnMut(&[f64])) -> bool {
        for step in 0..PHYSICS_STEPS {
            self.derived_qpos.copy_from_slice(self.simulation.qpos());
            if !self.physics_step(action, step == 0) {
                return false;
            }
            controls(self.simulation.ctrl());
        }
        self.simulation.is_stable()
    }

    /// A control step. `controls`: as for [`control_step`](Self::control_step).
    fn step_telling(&mut self, action: &[f64], observation: &mut [f64], controls: impl FnMut(&[f64])) -> StepOutcome {
        // What remains after a fault.
        observation.copy_from_slice(&self.observation);
        if !action.iter().all(|value| value.is_finite()) {
            return StepOutcome::faulted(EnvironmentFault::NonFiniteAction);
        }
        if !self.control_step(action, controls) {
            return StepOutcome::faulted(EnvironmentFault::UnstableState);
        }
        self.steps += 1;
        self.look();
        observation.copy_from_slice(&self.observation);
        StepOutcome {
            reward: f64::from(u8::from(self.succeeded)),
            terminated: false,
            truncated: self.steps >= self.episode_steps,
            fault: None,
        }
    }

    /// One physics step; false where the controller met something that is no number.
    fn physics_step(&mut self, action: &[f64], first: bool) -> bool {
        self.simulation.step1();
        let arms = self.scene.arms.iter().zip(&mut self.controls).zip(action.chunks_exact(ARM_ACTION_DIM));
        for ((arm, control), action) in arms {
            let state = arm.state(&self.simulation);
            if first {
                control.osc.set_goal(action, &state);
            }
            let Some(torques) = control.osc.torques(&state).filter(|t| t.iter().all(|value| value.is_finite())) else {
                return false;
            };
            control.gripper.step(action[ARM_ACTION_DIM - 1]);
            arm.command(&mut self.simulation, &torques, &control.gripper);
        }
        self.simulation.step2();
        true
    }
}

impl Environment for RobomimicEnv {
    fn observation_dim(&self) -> usize {
        self.task().observation_dim()
    }

    fn action_dim(&self) -> usize {
        self.task().action_dim()
    }

    /// Arms at rest with noise, things where the task draws them; nothing later in the episode is random.
    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        let mut noise = SeededNoise::new(seed, 0);
        self.simulation.reset();
        for arm in &self.scene.arms {
            let joints = SVector::from_fn(|joint, _| {
                let normal: f64 = StandardNormal.sample(noise.rng());
                REST_RAD[joint] + START_NOISE_RAD * normal
            });
            arm.place(&mut self.simulation, &joints);
        }
        self.scene.place_objects(&mut self.simulation, noise.rng());
        self.begin();
        observation.copy_from_slice(&self.observation);
    }

    /// `action`: for each arm translation 3, rotation 3 (axis times angle, world axes), gripper 1 (positive closes), in
    /// ±1; beyond that it is clipped.
    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        self.step_telling(action, observation, |_| {})
    }

    fn world(&self) -> Option<&Simulation> {
        Some(&self.simulation)
    }

    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        self.step_telling(action, observation, |given| controls.extend_from_slice(given))
    }

    /// A world of its own with all that is seen, as it was 2 ms ago: the reference's pictures are as old as its observations.
    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        if self.drawn.is_none() {
            self.drawn = self.scene.drawn_world().map(Box::new);
        }
        let drawn = self.drawn.as_deref_mut()?;
        drawn.qpos_mut().copy_from_slice(&self.derived_qpos);
        drawn.place();
        Some(drawn)
    }

    fn sight(&self) -> Sight {
        Sight { camera: Some("agentview"), geom_groups: Sight::VISUALS_ONLY }
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        let mut state = vec![0.0; self.simulation.state_len()];
        self.simulation.save_state(&mut state);
        let mut writer = StateWriter::new(bytes);
        writer.u64(STATE_VERSION);
        writer.bytes(self.task().to_string().as_bytes());
        writer.f64s(&self.scene.sizes().values());
        writer.u64(self.episode_steps as u64);
        writer.u64(self.steps as u64);
        writer.u8(u8::from(self.succeeded));
        writer.f64s(&self.observation);
        for control in &self.controls {
            control.osc.save(&mut writer);
            writer.f64s(&control.gripper.shares());
        }
        writer.f64s(&state);
        writer.f64s(&self.derived_qpos);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let mut reader = StateReader::new("a Robomimic environment", bytes);
        let version = reader.u64()?;
        if version != STATE_VERSION {
            return Err(reader.error(format!("version {version} instead of {STATE_VERSION}")));
        }
        let task = reader.bytes()?;
        if task != self.task().to_string().as_bytes() {
            return Err(reader.error(format!("the task is {}, here {}", String::from_utf8_lossy(task), self.task())));
        }
        let (mut sizes, here) = ([0.0; 3], self.scene.sizes().values());
        reader.f64s(&mut sizes)?;
        if sizes != here {
            return Err(reader.error(format!("the scene was built with sizes {sizes:?} m, here with {here:?} m")));
        }
        let episode_steps = reader.u64()?;
        if episode_steps != self.episode_steps as u64 {
            return Err(reader.error(format!("episodes of {episode_steps} steps, here {}", self.episode_steps)));
        }
        let (steps, succeeded) = (reader.u64()?, reader.u8()? != 0);
        let mut observation = vec![0.0; self.observation.len()];
        reader.f64s(&mut observation)?;
        let mut controls = Vec::with_capacity(self.controls.len());
        for _ in &self.controls {
            let osc = OscPose::restore(&mut reader)?;
            let mut shares = [0.0; 2];
            reader.f64s(&mut shares)?;
            controls.push(Control { osc, gripper: Gripper::new(shares) });
        }
        reader.f64s(&mut self.state)?;
        reader.f64s(&mut self.derived_qpos)?;
        reader.finish()?;
        self.simulation.restore_state(&self.state)?;
        (self.steps, self.succeeded) = (steps as usize, succeeded);
        (self.observation, self.controls) = (observation, controls);
        Ok(())
    }
}
