//! Tasks in batches, as the policy sees them: normalised states out, normalised chunks in.

mod avoid;
mod pictures;
mod randomised;
mod task;

use std::time::Duration;

use tenon_core::normalizer::Normalizer;
use tenon_core::randomisation::Randomisation;
use tenon_core::spec::PolicySpec;
use tenon_core::task::TaskName;
use tenon_sim::SimError;
use tenon_sim::batch::{BatchEnv, BatchOptions, ChunkOutcome, FaultCounts, StepOutcome, episode_seed};
use tenon_sim::render::RenderOptions;

pub use avoid::TracedAvoid;
use pictures::Pictures;
pub use pictures::{PICTURES_KEY, cameras, look_of, look_of_policy, pictures_seen, quality_of};
use randomised::{Randomised, Views};
pub use task::{TaskEnv, auto_resets, environments};

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::network::Observations;

/// How a batch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    pub environments: usize,
    pub threads: usize,
    /// Of everything random in the environments.
    pub seed: u64,
    /// Whether an ended episode is followed by the next one at once; see [`auto_resets`].
    pub auto_reset: bool,
}

/// Environments of one task that step together.
#[derive(Debug)]
pub struct TaskBatch {
    batch: BatchEnv<TaskEnv>,
    normalizer: Normalizer,
    /// Ta · Da and Tp · Da.
    executed_len: usize,
    chunk_len: usize,
    /// `[environments, state_len]`, normalised.
    states: Vec<f32>,
    final_states: Vec<f32>,
    /// `[environments, Ta, Da]`, physical units.
    actions: Vec<f64>,
    /// Noise on states and actions.
    randomised: Option<Randomised>,
    /// What cameras see, for policies that see pictures.
    pictures: Option<Pictures>,
}

impl TaskBatch {
    /// Environments for a policy with `spec`. [`reset`](Self::reset) comes next.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a policy of other sizes than the task's, or a task that is not simulated.
    pub fn new(task: TaskName, spec: &PolicySpec, settings: BatchSettings) -> Result<Self, TrainError> {
        let dims = [task.observation_dim(), task.action_dim()];
        if spec.observation_dim() != dims[0] || spec.action_dim() != dims[1] || spec.observation_horizon != 1 {
            let detail = format!(
                "the policy sees {} steps of {} values and gives {}, {task} has one of {} and {}",
                spec.observation_horizon,
                spec.observation_dim(),
                spec.action_dim(),
                dims[0],
                dims[1]
            );
            return Err(TrainError::Config { key: "policy", detail });
        }
        let all = task::environments(task, settings.environments)?;
        let options = BatchOptions {
            threads: settings.threads.clamp(1, settings.environments.max(1)),
            chunk_steps: spec.action_horizon,
            auto_reset: settings.auto_reset,
            seed: settings.seed,
        };
        let batch = BatchEnv::new(all, options).map_err(simulation)?;
        let (n, executed_len) = (batch.len(), spec.action_horizon * spec.action_dim());
        Ok(Self {
            normalizer: spec.normalizer.clone(),
            executed_len,
            chunk_len: spec.chunk_len(),
            states: vec![0.0; n * dims[0]],
            final_states: vec![0.0; n * dims[0]],
            actions: vec![0.0; n * executed_len],
            randomised: None,
            pictures: None,
            batch,
        })
    }

    /// The same with noise on what the environments show and execute. [`reset`](Self::reset) comes next.
    pub fn randomised(mut self, noise: Randomisation) -> Self {
        self.randomised = Some(Randomised::new(noise, self.len(), self.batch.options().seed));
        self
    }

    /// The same with pictures of every environment beside its state. [`reset`](Self::reset) comes next.
    ///
    /// # Errors
    /// [`TrainError::Config`] where this machine, or the task, cannot be drawn.
    pub fn seen_by(mut self, look: RenderOptions) -> Result<Self, TrainError> {
        let mut pictures = Pictures::new(look, self.len(), self.batch.options().threads)?;
        pictures.draw(&mut self.batch);
        pictures.check()?;
        self.pictures = Some(pictures);
        Ok(self)
    }

    /// The noise, where there is one.
    pub fn randomisation(&self) -> Option<&Randomisation> {
        self.randomised.as_ref().map(|r| &r.noise)
    }

    /// Turns the noise off and on. Episodes under way go on with a bias drawn now.
    pub fn show_noise(&mut self, shown: bool) {
        if let Some(randomised) = &mut self.randomised
            && randomised.shown != shown
        {
            randomised.shown = shown;
            self.refresh();
            self.begin_noise();
        }
    }

    /// Starts the next episode in every environment.
    pub fn reset(&mut self) {
        self.batch.reset();
        self.look();
        self.refresh();
        self.begin_noise();
    }

    /// Starts episodes number `first`, `first + 1`, … in the environments. What happens in one follows from the
    /// batch's seed and the episode's number, however many environments there are (but for the sizes of things that
    /// Robomimic draws when it builds an environment's scene).
    pub fn begin_episodes(&mut self, first: usize) {
        let seed = self.batch.options().seed;
        let seeds: Vec<u64> = (0..self.len()).map(|i| episode_seed(seed, (first + i) as u64, 0)).collect();
        self.batch.reset_to(&seeds);
        self.look();
        self.refresh();
        if let Some(randomised) = &mut self.randomised {
            randomised.begin_episodes(first, seed);
        }
        self.begin_noise();
    }

    /// Draws the biases of episodes that begin, and puts the noise onto what is seen first.
    fn begin_noise(&mut self) {
        if let Some(randomised) = self.randomised.as_mut().filter(|r| r.shown) {
            randomised.begin_all(&self.normalizer, self.batch.observations(), &mut self.states);
        }
    }

    /// Executes the first Ta steps of one chunk in every environment. `chunks`: `[environments, chunk_len]`, normalised.
    pub fn step(&mut self, chunks: &[f32]) -> Result<(), TrainError> {
        self.take_chunks(chunks);
        match &mut self.pictures {
            None => self.batch.step_chunk(&self.actions).map_err(simulation)?,
            Some(pictures) => {
                pictures.check()?;
                pictures.step(&mut self.batch, &self.actions)?;
            }
        }
        self.show_step();
        Ok(())
    }

    /// The same in the calling thread; `watch` is shown (index, environment, outcome) after each control step.
    pub fn step_watched(
        &mut self,
        chunks: &[f32],
        watch: &mut dyn FnMut(usize, &mut TaskEnv, StepOutcome),
    ) -> Result<(), TrainError> {
        self.take_chunks(chunks);
        self.batch.step_chunk_watched(&self.actions, watch).map_err(simulation)?;
        self.look();
        self.show_step();
        self.pictures.as_mut().map_or(Ok(()), Pictures::check)
    }

    /// What is to be executed, in physical units, from normalised chunks.
    fn take_chunks(&mut self, chunks: &[f32]) {
        let executed = chunks.chunks_exact(self.chunk_len).zip(self.actions.chunks_exact_mut(self.executed_len));
        let mut physical = vec![0.0; self.executed_len];
        for (i, (chunk, actions)) in executed.enumerate() {
            physical.copy_from_slice(&chunk[..self.executed_len]);
            if let Some(randomised) = self.randomised.as_mut().filter(|r| r.shown) {
                randomised.disturb_actions(i, &mut physical);
            }
            self.normalizer.denormalize_action(&mut physical);
            actions.iter_mut().zip(&physical).for_each(|(to, &from)| *to = f64::from(from));
        }
    }

    /// What the policy sees after a step.
    fn show_step(&mut self) {
        match self.randomised.as_mut().filter(|r| r.shown) {
            None => self.refresh(),
            Some(randomised) => {
                let views = Views {
                    observations: self.batch.observations(),
                    final_observations: self.batch.final_observations(),
                    states: &mut self.states,
                    final_states: &mut self.final_states,
                };
                let auto_reset = self.batch.options().auto_reset;
                randomised.step(&self.normalizer, self.batch.outcomes(), auto_reset, views);
            }
        }
    }

    /// Draws all environments, where somebody sees them; what goes wrong is told by the next step.
    fn look(&mut self) {
        if let Some(pictures) = &mut self.pictures {
            pictures.draw(&mut self.batch);
        }
    }

    fn refresh(&mut self) {
        let pairs =
            [(&mut self.states, self.batch.observations()), (&mut self.final_states, self.batch.final_observations())];
        for (to, from) in pairs {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as f32);
            self.normalizer.normalize_observation(to);
        }
    }

    /// What the policy sees next, `[environments, state_len]`, normalised.
    pub fn states(&self) -> &[f32] {
        &self.states
    }

    /// The same with what cameras see, for policies that see pictures.
    pub fn seen(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.pictures.as_ref().map(Pictures::now) }
    }

    /// Time spent drawing so far, of all threads together; none where nothing is drawn.
    pub fn time_drawing(&self) -> Option<Duration> {
        self.pictures.as_ref().map(Pictures::time_drawing)
    }

    /// What cameras saw last of an environment's last episode, beside [`Self::final_state`].
    pub fn final_pictures(&self, environment: usize) -> Option<&[u8]> {
        self.pictures.as_ref().map(|pictures| pictures.last(environment))
    }

    /// What the environments show next, `[environments, observation_dim]`, physical units, without noise.
    pub fn observations(&self) -> &[f64] {
        self.batch.observations()
    }

    /// What the environment's last episode ended in, normalised; new where the present outcome ended one.
    pub fn final_state(&self, environment: usize) -> &[f32] {
        let len = self.final_states.len() / self.batch.len();
        &self.final_states[environment * len..][..len]
    }

    /// What the last chunk brought.
    pub fn outcomes(&self) -> &[ChunkOutcome] {
        self.batch.outcomes()
    }

    /// Episodes that faults have ended so far.
    pub fn fault_counts(&self) -> FaultCounts {
        self.batch.fault_counts()
    }

    /// The environments, in order.
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &TaskEnv> {
        self.batch.environments()
    }

    /// One of the environments, for drawing it.
    ///
    /// # Panics
    /// Where there is none of this index.
    pub fn environment_mut(&mut self, index: usize) -> &mut TaskEnv {
        self.batch.environment_mut(index)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// All that the environments need to go on exactly as they would have; the noise has [`TaskBatch::store_noise`].
    pub fn save_state(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.batch.save_state(&mut bytes);
        bytes
    }

    /// Takes over what [`TaskBatch::save_state`] gave.
    pub fn restore_state(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.batch.restore_state(bytes).map_err(simulation)?;
        self.look();
        self.refresh();
        self.pictures.as_mut().map_or(Ok(()), Pictures::check)
    }

    /// Adds the random streams of the noise, the biases of the episodes under way and what is seen next to a checkpoint.
    pub fn store_noise(&self, checkpoint: &mut Checkpoint) {
        if let Some(randomised) = &self.randomised {
            randomised.store(checkpoint, &self.states);
        }
    }

    /// Restores what [`TaskBatch::store_noise`] stored, after [`TaskBatch::restore_state`].
    pub fn restore_noise(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        match &mut self.randomised {
            Some(randomised) => randomised.restore(checkpoint, &mut self.states),
            None => Ok(()),
        }
    }
}

fn simulation(e: SimError) -> TrainError {
    TrainError::Config { key: "simulation", detail: e.to_string() }
}
