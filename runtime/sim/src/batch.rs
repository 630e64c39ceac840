//! Environments, one at a time and in batches: the interface between tasks and trainer.
//!
//! A task implements [`Environment`]: one control step, reset, save and restore. [`BatchEnv`] runs N of them over a
//! fixed number of threads, action chunk by action chunk (specification of the simulation tasks, section 5). What an
//! environment does depends on its own seed and actions only, so a batch gives the same numbers for any thread count.
//!
//! Terms: *terminated* means the task ended the episode (no value beyond it), *truncated* that a time limit did (the
//! value of the final observation counts), *fault* that the simulation cannot go on.

mod crew;
mod first_values;
mod pictures;
mod pool;
mod processors;

pub(crate) use crew::Crew;
pub use first_values::FirstValues;
pub use pictures::BatchPictures;
pub use pool::{BatchEnv, BatchOptions};

use crate::error::SimError;
use crate::mujoco::Simulation;
use crate::render::Sight;

/// Why an environment's episode ended that should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvironmentFault {
    /// An action held NaN, an infinity or a value beyond all costs; it was not executed.
    NonFiniteAction,
    /// A position or velocity of the simulated world is no number or beyond all bounds.
    UnstableState,
}

impl std::fmt::Display for EnvironmentFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::NonFiniteAction => "an action held NaN or an infinity",
            Self::UnstableState => "the simulated world became unstable",
        })
    }
}

/// How often each cause ended an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    pub non_finite_action: u64,
    pub unstable_state: u64,
}

impl FaultCounts {
    /// Counts one fault.
    pub fn add(&mut self, fault: EnvironmentFault) {
        match fault {
            EnvironmentFault::NonFiniteAction => self.non_finite_action += 1,
            EnvironmentFault::UnstableState => self.unstable_state += 1,
        }
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        self.non_finite_action + self.unstable_state
    }
}

/// What one control step brought.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepOutcome {
    pub reward: f64,
    /// The task ended the episode; a fault does too.
    pub terminated: bool,
    /// The time limit ended the episode.
    pub truncated: bool,
    pub fault: Option<EnvironmentFault>,
}

impl StepOutcome {
    /// The outcome of a step that could not be made.
    pub fn faulted(fault: EnvironmentFault) -> Self {
        Self { reward: 0.0, terminated: true, truncated: false, fault: Some(fault) }
    }

    /// Whether the episode is over, for whatever reason.
    pub fn ended(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// What an action chunk brought.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ChunkOutcome {
    /// Sum over the executed steps.
    pub reward: f64,
    /// Steps executed: fewer than asked for where the episode ended, 0 for an environment that waits for a reset.
    pub steps: usize,
    pub terminated: bool,
    pub truncated: bool,
    pub fault: Option<EnvironmentFault>,
}

impl ChunkOutcome {
    /// Takes over what a further step brought.
    pub fn add(&mut self, step: StepOutcome) {
        self.reward += step.reward;
        self.steps += 1;
        self.terminated = step.terminated;
        self.truncated = step.truncated;
        self.fault = step.fault;
    }

    /// Whether the episode is over, for whatever reason.
    pub fn ended(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// A task's environment. Observations and actions are in physical units.
pub trait Environment: Send {
    /// Number of values of an observation.
    fn observation_dim(&self) -> usize;

    /// Number of values of one step's action.
    fn action_dim(&self) -> usize;

    /// Starts an episode; everything random in it, start and steps alike, follows from `seed`.
    ///
    /// Writes the first observation, `[observation_dim]`.
    fn reset(&mut self, seed: u64, observation: &mut [f64]);

    /// Executes one control step; never panics on a bad action but answers with a fault.
    ///
    /// `action`: `[action_dim]`. Writes the observation, `[observation_dim]`; after a fault it is the last sound one.
    /// The environment need not cope with a further step after the episode has ended.
    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome;

    /// Executes an action chunk and stops early when a step ends the episode.
    ///
    /// `actions`: `[chunk_steps, action_dim]`, row-major. Writes the observation of the last step executed.
    fn step_chunk(&mut self, actions: &[f64], observation: &mut [f64]) -> ChunkOutcome {
        let mut chunk = ChunkOutcome::default();
        for action in actions.chunks_exact(self.action_dim()) {
            chunk.add(self.step(action, observation));
            if chunk.ended() {
                break;
            }
        }
        chunk
    }

    /// The world that is simulated, where there is one: for pictures and measurements.
    fn world(&self) -> Option<&Simulation> {
        None
    }

    /// As [`step`](Self::step), and appends what the actuators were given before each physics step, `[physics steps, controls]`, from
    /// which the physics can be repeated without the environment. Nothing where an environment does not say.
    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        let _ = controls;
        self.step(action, observation)
    }

    /// The world as it is to be drawn now; `None` for a task that cannot be drawn. Asking, and drawing, changes nothing
    /// that a step, an observation or a saved state depends on.
    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        None
    }

    /// How the task is best watched by a person.
    fn sight(&self) -> Sight {
        Sight::default()
    }

    /// Appends all that the environment needs to go on exactly as it would have.
    fn save_state(&self, bytes: &mut Vec<u8>);

    /// Takes over what [`save_state`](Self::save_state) wrote.
    ///
    /// # Errors
    /// [`SimError::SavedState`] where the bytes are not those of such an environment.
    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError>;
}

/// A batch may hold boxed environments, where the task is chosen at run time.
impl<E: Environment + ?Sized> Environment for Box<E> {
    fn observation_dim(&self) -> usize {
        (**self).observation_dim()
    }

    fn action_dim(&self) -> usize {
        (**self).action_dim()
    }

    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        (**self).reset(seed, observation);
    }

    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        (**self).step(action, observation)
    }

    fn step_chunk(&mut self, actions: &[f64], observation: &mut [f64]) -> ChunkOutcome {
        (**self).step_chunk(actions, observation)
    }

    fn world(&self) -> Option<&Simulation> {
        (**self).world()
    }

    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        (**self).step_recording(action, observation, controls)
    }

    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        (**self).world_to_draw()
    }

    fn sight(&self) -> Sight {
        (**self).sight()
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        (**self).save_state(bytes);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        (**self).restore_state(bytes)
    }
}

/// The seed of an environment's episode: a hash of the run's seed, the environment's index and the episode's number.
///
/// SplitMix64 (Steele, Lea, Flood 2014) over the three, so that neighbours share nothing.
pub fn episode_seed(run_seed: u64, environment: u64, episode: u64) -> u64 {
    let mix = |state: u64| {
        let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    mix(mix(mix(run_seed) ^ environment) ^ episode)
}
