//! The locomotion tasks of Gym: Hopper, Walker2d, HalfCheetah.
//!
//! Observation, reward, healthy states and start noise are those of the specification of the simulation tasks,
//! section 2; [`GymTask`] has the numbers. v2 is the paper's version and the default.
//!
//! A control step writes the action to the actuators, runs the physics steps of the task and reads positions and
//! velocities; nothing else of the world enters an observation, so no further pass is needed. *Terminated* means that
//! the body fell, *truncated* that the 1000 steps are over; a fall on the last step is a termination.

mod models;
mod task;

pub use models::{FOLDER_VARIABLE, model_path};
pub use task::{CHUNK_STEPS, EPISODE_STEPS, GymRobot, GymTask, GymVersion};

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use tenon_core::noise::SeededNoise;

use crate::batch::{Environment, EnvironmentFault, StepOutcome};
use crate::error::SimError;
use crate::mujoco::{Model, Simulation};
use crate::render::Sight;
use crate::saved_state::{StateReader, StateWriter};
use task::{Healthy, Rules, StartNoise};

/// The camera of Gym's models, which moves with the body.
const CAMERA: &str = "track";

/// First value of a saved environment.
const STATE_VERSION: u64 = 1;

/// A task's compiled model; clones share it.
#[derive(Debug, Clone)]
pub struct GymScene {
    task: GymTask,
    model: Model,
}

impl GymScene {
    /// Finds and compiles the task's model; see [`model_path`].
    ///
    /// # Errors
    /// [`SimError::GymModelMissing`], [`SimError::GymModel`] where the file cannot be read, does not compile or is
    /// that of another body, [`SimError::WrongMujocoVersion`].
    pub fn new(task: GymTask) -> Result<Self, SimError> {
        let path = model_path(task)?;
        let bad = |message: String| SimError::GymModel { path: path.clone(), message, variable: FOLDER_VARIABLE };
        let mjcf = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
        Self::from_mjcf(task, &mjcf).map_err(|error| match error {
            // MuJoCo's message has several lines.
            SimError::ModelCompile { message } => bad(message.split_whitespace().collect::<Vec<_>>().join(" ")),
            other => other,
        })
    }

    /// Compiles a model given as text.
    ///
    /// # Errors
    /// [`SimError::ModelCompile`] where MuJoCo refuses it or it has another number of joints or actuators,
    /// [`SimError::WrongMujocoVersion`].
    pub fn from_mjcf(task: GymTask, mjcf: &str) -> Result<Self, SimError> {
        // A tenth faster with these bodies, and not one bit of the recorded trajectories changes.
        let model = Model::from_mjcf_without_islands(mjcf)?;
        let rules = task.rules();
        let expected = [rules.position_dim, rules.position_dim, rules.action_dim];
        let found = [model.position_dim(), model.velocity_dim(), model.control_dim()];
        if found != expected {
            return Err(SimError::ModelCompile {
                message: format!("{found:?} positions, velocities and actuators, {task} has {expected:?}"),
            });
        }
        Ok(Self { task, model })
    }

    /// Which task it is.
    pub fn task(&self) -> GymTask {
        self.task
    }

    /// The compiled model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// What may differ from the task as the paper used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GymOptions {
    /// Whether actions are clipped to ±1 before anything else, as the paper's (D4RL's) wrapper does. The physics clips
    /// them anyway; what changes is the control cost. Gymnasium's environments don't.
    pub clip_actions: bool,
    /// Control steps after which an episode is truncated.
    pub episode_steps: usize,
}

impl Default for GymOptions {
    fn default() -> Self {
        Self { clip_actions: true, episode_steps: EPISODE_STEPS }
    }
}

/// One environment of a Gym task.
#[derive(Debug)]
pub struct GymEnv {
    task: GymTask,
    rules: &'static Rules,
    options: GymOptions,
    simulation: Simulation,
    /// The models of Gym have one; one given as text may not.
    camera: Option<&'static str>,
    /// Length of a control step, seconds.
    step_s: f64,
    steps: usize,
    /// Scratch: one action, and a saved world, so that stepping and restoring allocate nothing.
    action: Vec<f64>,
    state: Vec<f64>,
}

impl GymEnv {
    /// An environment in the model's initial state, without noise.
    pub fn new(scene: &GymScene, options: GymOptions) -> Self {
        let rules = scene.task.rules();
        let mut simulation = Simulation::new(&scene.model);
        simulation.forward();
        Self {
            task: scene.task,
            rules,
            options,
            state: vec![0.0; simulation.state_len()],
            action: vec![0.0; rules.action_dim],
            simulation,
            camera: scene.model.camera(CAMERA).ok().map(|_| CAMERA),
            step_s: scene.model.timestep_s() * rules.frame_skip as f64,
            steps: 0,
        }
    }

    /// Which task it is.
    pub fn task(&self) -> GymTask {
        self.task
    }

    /// Starts an episode in a given state: positions and velocities, each `[position_dim]`.
    ///
    /// # Panics
    /// Where a length is another one than the task's.
    pub fn start_at(&mut self, qpos: &[f64], qvel: &[f64]) {
        self.simulation.reset();
        self.simulation.qpos_mut().copy_from_slice(qpos);
        self.simulation.qvel_mut().copy_from_slice(qvel);
        self.begin();
    }

    /// The pass that Gym makes after setting a state: it leaves the warm start that the first step uses.
    fn begin(&mut self) {
        self.simulation.forward();
        self.steps = 0;
    }

    /// Positions now: root x, z (metres), pitch and joints (radians).
    pub fn qpos(&self) -> &[f64] {
        self.simulation.qpos()
    }

    /// Velocities now, in the order of the positions.
    pub fn qvel(&self) -> &[f64] {
        self.simulation.qvel()
    }

    /// Control steps executed in this episode.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether the present state lets the episode go on.
    pub fn is_healthy(&self) -> bool {
        let Healthy::Within { height_m, pitch_rad, state } = self.rules.healthy else {
            return true;
        };
        let within = |value: f64, [low, high]: [f64; 2]| low < value && value < high;
        let (qpos, qvel) = (self.qpos(), self.qvel());
        within(qpos[1], height_m)
            && within(qpos[2], pitch_rad)
            && qpos[2..].iter().chain(qvel).all(|&value| within(value, [-state, state]))
    }

    /// Writes the observation of the present state: positions without x, then velocities.
    pub fn observe(&self, observation: &mut [f64]) {
        let (positions, velocities) = observation.split_at_mut(self.rules.position_dim - 1);
        positions.copy_from_slice(&self.qpos()[1..]);
        let bound = self.rules.velocity_clip.unwrap_or(f64::INFINITY);
        for (to, velocity) in velocities.iter_mut().zip(self.qvel()) {
            *to = velocity.clamp(-bound, bound);
        }
    }

    /// Takes over an action; its control cost, or `None` where it holds NaN, an infinity or values beyond all costs.
    fn take_action(&mut self, action: &[f64]) -> Option<f64> {
        let bound = if self.options.clip_actions { 1.0 } else { f64::MAX };
        let mut squares = 0.0;
        for (to, &value) in self.action.iter_mut().zip(action) {
            if !value.is_finite() {
                return None;
            }
            *to = value.clamp(-bound, bound);
            squares += *to * *to;
        }
        let cost = self.rules.control_cost * squares;
        cost.is_finite().then_some(cost)
    }
}

impl Environment for GymEnv {
    fn observation_dim(&self) -> usize {
        self.task.observation_dim()
    }

    fn action_dim(&self) -> usize {
        self.rules.action_dim
    }

    /// The model's initial state with the task's noise on it; nothing later in the episode is random.
    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        let mut noise = SeededNoise::new(seed, 0);
        let rng = noise.rng();
        self.simulation.reset();
        let (position, velocity) = match self.rules.start_noise {
            StartNoise::Uniform(bound) => (bound, None),
            StartNoise::UniformAndNormal { position, velocity } => (position, Some(velocity)),
        };
        for value in self.simulation.qpos_mut() {
            *value += rng.random_range(-position..=position);
        }
        for value in self.simulation.qvel_mut() {
            *value += match velocity {
                None => rng.random_range(-position..=position),
                Some(scale) => {
                    let normal: f64 = StandardNormal.sample(rng);
                    scale * normal
                }
            };
        }
        self.begin();
        self.observe(observation);
    }

    /// `action`: one value for each actuator, in ±1.
    ///
    /// r = (x' − x)/dt + bonus − c·Σa².
    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        // What remains after a fault.
        self.observe(observation);
        let Some(control_cost) = self.take_action(action) else {
            return StepOutcome::faulted(EnvironmentFault::NonFiniteAction);
        };
        let x_before = self.simulation.qpos()[0];
        self.simulation.ctrl_mut().copy_from_slice(&self.action);
        for _ in 0..self.rules.frame_skip {
            self.simulation.step();
        }
        if !self.simulation.is_stable() {
            return StepOutcome::faulted(EnvironmentFault::UnstableState);
        }
        self.steps += 1;
        self.observe(observation);
        let healthy = self.is_healthy();
        let bonus = match self.task.version {
            GymVersion::V5 if !healthy => 0.0,
            _ => self.rules.alive_bonus,
        };
        StepOutcome {
            reward: (self.simulation.qpos()[0] - x_before) / self.step_s + bonus - control_cost,
            terminated: !healthy,
            truncated: healthy && self.steps >= self.options.episode_steps,
            fault: None,
        }
    }

    fn world(&self) -> Option<&Simulation> {
        Some(&self.simulation)
    }

    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        let outcome = self.step(action, observation);
        (0..self.rules.frame_skip).for_each(|_| controls.extend_from_slice(self.simulation.ctrl()));
        outcome
    }

    /// The bodies stand where the positions say; nothing that an observation or a step depends on is derived from that.
    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        self.simulation.place();
        Some(&mut self.simulation)
    }

    /// From the side, beside the body.
    fn sight(&self) -> Sight {
        Sight { camera: self.camera, ..Sight::default() }
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        let mut state = vec![0.0; self.simulation.state_len()];
        self.simulation.save_state(&mut state);
        let mut writer = StateWriter::new(bytes);
        writer.u64(STATE_VERSION);
        writer.bytes(self.task.to_string().as_bytes());
        writer.u8(u8::from(self.options.clip_actions));
        writer.u64(self.options.episode_steps as u64);
        writer.u64(self.steps as u64);
        writer.f64s(&state);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let mut reader = StateReader::new("a Gym environment", bytes);
        let version = reader.u64()?;
        if version != STATE_VERSION {
            return Err(reader.error(format!("version {version} instead of {STATE_VERSION}")));
        }
        let task = reader.bytes()?;
        if task != self.task.to_string().as_bytes() {
            return Err(reader.error(format!("the task is {}, here {}", String::from_utf8_lossy(task), self.task)));
        }
        let (clips, episode_steps) = (reader.u8()? != 0, reader.u64()?);
        if clips != self.options.clip_actions || episode_steps != self.options.episode_steps as u64 {
            return Err(reader.error(format!(
                "clipped actions: {clips}, here {}; episodes of {episode_steps} steps, here {}",
                self.options.clip_actions, self.options.episode_steps
            )));
        }
        let steps = reader.u64()?;
        reader.f64s(&mut self.state)?;
        reader.finish()?;
        self.simulation.restore_state(&self.state)?;
        self.steps = steps as usize;
        Ok(())
    }
}
