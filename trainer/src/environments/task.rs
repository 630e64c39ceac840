//! From a task's name to its simulation.

use tenon_core::task::{TaskFamily, TaskName};
use tenon_sim::SimError;
use tenon_sim::avoid::AvoidScene;
use tenon_sim::batch::{ChunkOutcome, Environment, FirstValues, StepOutcome};
use tenon_sim::gym::{GymEnv, GymOptions, GymScene, GymTask};
use tenon_sim::mujoco::Simulation;
use tenon_sim::render::Sight;
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicScene, RobomimicTask};

use super::{TracedAvoid, simulation};
use crate::error::TrainError;

/// An environment of any task.
#[derive(Debug)]
pub enum TaskEnv {
    Avoid(Box<TracedAvoid>),
    Gym(GymEnv),
    Robomimic(Box<RobomimicEnv>),
    /// Of the observation only the robot's own values; the rest is seen through cameras.
    RobomimicSeen(Box<FirstValues<RobomimicEnv>>),
}

/// Seed of what is drawn when scenes are built. Fixed, and by the environment's number: a run that is resumed, or judged
/// with as many environments, finds the scenes that it had.
const SCENE_SEED: u64 = 42;

/// Whether an environment that ends an episode begins the next one by itself while training (spec dppo.md §8.1).
pub fn auto_resets(task: TaskName) -> bool {
    match task.family() {
        // All start anew together, at the beginning of an iteration.
        TaskFamily::Avoid => false,
        TaskFamily::Gym | TaskFamily::Robomimic | TaskFamily::Furniture => true,
    }
}

/// So many environments of a task.
///
/// # Errors
/// [`TrainError::Config`] for a task that is not simulated or whose models are missing.
pub fn environments(task: TaskName, count: usize) -> Result<Vec<TaskEnv>, TrainError> {
    let gym = |gym_task: GymTask| -> Result<Vec<TaskEnv>, TrainError> {
        let scene = GymScene::new(gym_task).map_err(simulation)?;
        Ok((0..count).map(|_| TaskEnv::Gym(GymEnv::new(&scene, GymOptions::default()))).collect())
    };
    let robomimic = |robomimic_task: RobomimicTask| -> Result<Vec<TaskEnv>, TrainError> {
        let scenes = RobomimicScene::for_environments(robomimic_task, count, SCENE_SEED).map_err(simulation)?;
        let environment = |scene| {
            let whole = RobomimicEnv::new(scene, RobomimicOptions::default());
            Ok(match task.cameras() {
                0 => TaskEnv::Robomimic(Box::new(whole)),
                _ => TaskEnv::RobomimicSeen(Box::new(
                    FirstValues::new(whole, task.observation_dim()).map_err(simulation)?,
                )),
            })
        };
        scenes.iter().map(environment).collect()
    };
    match task {
        TaskName::AvoidM1 | TaskName::AvoidM2 | TaskName::AvoidM3 => {
            let scene = AvoidScene::new().map_err(simulation)?;
            Ok((0..count).map(|_| TaskEnv::Avoid(Box::new(TracedAvoid::new(&scene)))).collect())
        }
        TaskName::Hopper => gym(GymTask::HOPPER),
        TaskName::Walker2d => gym(GymTask::WALKER2D),
        TaskName::HalfCheetah => gym(GymTask::HALF_CHEETAH),
        TaskName::Lift | TaskName::LiftPixels => robomimic(RobomimicTask::Lift),
        TaskName::Can | TaskName::CanPixels => robomimic(RobomimicTask::Can),
        TaskName::Square | TaskName::SquarePixels => robomimic(RobomimicTask::Square),
        TaskName::Transport | TaskName::TransportPixels => robomimic(RobomimicTask::Transport),
        other => {
            let detail = format!(
                "this release does not simulate {other}: its policies can be pre-trained, imported and exported, but \
                 not fine-tuned or judged"
            );
            Err(TrainError::Config { key: "task", detail })
        }
    }
}

impl TaskEnv {
    fn inner(&self) -> &dyn Environment {
        match self {
            Self::Avoid(env) => &**env,
            Self::Gym(env) => env,
            Self::Robomimic(env) => &**env,
            Self::RobomimicSeen(env) => &**env,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Environment {
        match self {
            Self::Avoid(env) => &mut **env,
            Self::Gym(env) => env,
            Self::Robomimic(env) => &mut **env,
            Self::RobomimicSeen(env) => &mut **env,
        }
    }
}

impl Environment for TaskEnv {
    fn observation_dim(&self) -> usize {
        self.inner().observation_dim()
    }

    fn action_dim(&self) -> usize {
        self.inner().action_dim()
    }

    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        self.inner_mut().reset(seed, observation);
    }

    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        self.inner_mut().step(action, observation)
    }

    fn step_chunk(&mut self, actions: &[f64], observation: &mut [f64]) -> ChunkOutcome {
        self.inner_mut().step_chunk(actions, observation)
    }

    fn world(&self) -> Option<&Simulation> {
        self.inner().world()
    }

    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        self.inner_mut().step_recording(action, observation, controls)
    }

    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        self.inner_mut().world_to_draw()
    }

    fn sight(&self) -> Sight {
        self.inner().sight()
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        self.inner().save_state(bytes);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        self.inner_mut().restore_state(bytes)
    }
}
