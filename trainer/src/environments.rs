//! Tasks in batches, as the policy sees them: normalised states out, normalised chunks in.

use tenon_core::normalizer::Normalizer;
use tenon_core::spec::PolicySpec;
use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{BatchEnv, BatchOptions, ChunkOutcome, Environment, FaultCounts, StepOutcome};
use tenon_sim::gym::{CHUNK_STEPS, GymEnv, GymOptions, GymScene, GymTask};

use crate::error::TrainError;

/// An Avoid environment that remembers the path of the tool point.
#[derive(Debug)]
pub struct TracedAvoid {
    inner: AvoidEnv,
    path_xy_m: Vec<[f64; 2]>,
}

impl TracedAvoid {
    fn new(scene: &AvoidScene) -> Self {
        Self { inner: AvoidEnv::new(scene), path_xy_m: Vec::new() }
    }

    /// Measured tool point at the start and after each control step of the present episode, metres.
    pub fn path_xy_m(&self) -> &[[f64; 2]] {
        &self.path_xy_m
    }

    /// Whether the rod has touched an obstacle in the present episode.
    pub fn rod_touched(&self) -> bool {
        self.inner.rod_touched()
    }

    fn trace(&mut self) {
        let [x_m, y_m, _] = self.inner.tcp_position_m();
        self.path_xy_m.push([x_m, y_m]);
    }
}

impl Environment for TracedAvoid {
    fn observation_dim(&self) -> usize {
        self.inner.observation_dim()
    }

    fn action_dim(&self) -> usize {
        self.inner.action_dim()
    }

    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        self.inner.reset(seed, observation);
        self.path_xy_m.clear();
        self.trace();
    }

    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        let outcome = self.inner.step(action, observation);
        self.trace();
        outcome
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        self.inner.save_state(bytes);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        self.path_xy_m.clear();
        self.inner.restore_state(bytes)?;
        self.trace();
        Ok(())
    }
}

/// Environments that step together.
#[derive(Debug)]
pub struct TaskBatch<E> {
    batch: BatchEnv<E>,
    normalizer: Normalizer,
    /// Ta · Da and Tp · Da.
    executed_len: usize,
    chunk_len: usize,
    /// `[environments, state_len]`, normalised.
    states: Vec<f32>,
    final_states: Vec<f32>,
    /// `[environments, Ta, Da]`, physical units.
    actions: Vec<f64>,
}

/// Avoid: all environments start anew together, at the beginning of an iteration (spec sim_tasks.md §5).
pub type AvoidBatch = TaskBatch<TracedAvoid>;

/// Hopper, Walker2d or HalfCheetah: an environment whose episode ends starts the next by itself.
pub type GymBatch = TaskBatch<GymEnv>;

impl AvoidBatch {
    /// `environments` of them on `threads` threads, for a policy with `spec`. [`reset`](Self::reset) comes next.
    pub fn new(spec: &PolicySpec, environments: usize, threads: usize) -> Result<Self, TrainError> {
        let scene = AvoidScene::new().map_err(simulation)?;
        let options = BatchOptions {
            threads: threads.clamp(1, environments.max(1)),
            chunk_steps: spec.action_horizon,
            auto_reset: false,
            seed: 0,
        };
        let all = (0..environments).map(|_| TracedAvoid::new(&scene)).collect();
        let batch = Self::of(all, options, spec.normalizer.clone(), spec.chunk_len())?;
        let dims = (batch.batch.observation_dim(), batch.batch.action_dim());
        if dims != (spec.state_len(), spec.action_dim()) {
            let detail = format!(
                "the policy has {} state and {} action values, Avoid has {} and {}",
                spec.state_len(),
                spec.action_dim(),
                dims.0,
                dims.1
            );
            return Err(TrainError::Config { key: "policy", detail });
        }
        Ok(batch)
    }
}

impl GymBatch {
    /// `environments` of them on `threads` threads, the chunks all executed; `seed`: of the episodes' starts.
    pub fn new(
        task: GymTask,
        normalizer: Normalizer,
        environments: usize,
        threads: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let scene = GymScene::new(task).map_err(simulation)?;
        let all: Vec<GymEnv> = (0..environments).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
        let threads = threads.clamp(1, environments.max(1));
        let options = BatchOptions { threads, chunk_steps: CHUNK_STEPS, auto_reset: true, seed };
        Self::of(all, options, normalizer, CHUNK_STEPS * task.action_dim())
    }
}

impl<E: Environment> TaskBatch<E> {
    fn of(all: Vec<E>, options: BatchOptions, normalizer: Normalizer, chunk_len: usize) -> Result<Self, TrainError> {
        let batch = BatchEnv::new(all, options).map_err(simulation)?;
        let (n, state_len) = (batch.len(), batch.observation_dim());
        let executed_len = batch.options().chunk_steps * batch.action_dim();
        Ok(Self {
            normalizer,
            executed_len,
            chunk_len,
            states: vec![0.0; n * state_len],
            final_states: vec![0.0; n * state_len],
            actions: vec![0.0; n * executed_len],
            batch,
        })
    }

    /// Starts an episode in every environment.
    pub fn reset(&mut self) {
        self.batch.reset();
        self.refresh();
    }

    /// Executes the first Ta steps of one chunk in every environment. `chunks`: `[environments, chunk_len]`, normalised.
    pub fn step(&mut self, chunks: &[f32]) -> Result<(), TrainError> {
        let executed = chunks.chunks_exact(self.chunk_len).zip(self.actions.chunks_exact_mut(self.executed_len));
        let mut physical = vec![0.0; self.executed_len];
        for (chunk, actions) in executed {
            physical.copy_from_slice(&chunk[..self.executed_len]);
            self.normalizer.denormalize_action(&mut physical);
            actions.iter_mut().zip(&physical).for_each(|(to, &from)| *to = f64::from(from));
        }
        self.batch.step_chunk(&self.actions).map_err(simulation)?;
        self.refresh();
        Ok(())
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
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &E> {
        self.batch.environments()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

fn simulation(e: SimError) -> TrainError {
    TrainError::Config { key: "simulation", detail: e.to_string() }
}
