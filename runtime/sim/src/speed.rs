//! What control steps cost, beside the physics in them.
//!
//! Everyone steps the same rows: an episode's first control steps, from the same seeds with the same actions. The environments do;
//! [`Physics`] repeats only the physics steps of the same trajectories, with the inputs that the environments gave ([`Trace`]); so may
//! other programs, see [`Trace::write`]. Resets are not timed.

use std::path::Path;
use std::time::Instant;

use rand::Rng;
use tenon_core::noise::SeededNoise;

use crate::batch::{BatchEnv, BatchOptions, BatchPictures, Crew, Environment, episode_seed};
use crate::error::SimError;
use crate::mujoco::{Model, Simulation};
use crate::render::RenderOptions;

/// What is stepped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rows {
    /// Environments that step together.
    pub count: usize,
    /// Control steps of each; few enough that no episode ends.
    pub steps: usize,
    /// Control steps that are executed at a time.
    pub chunk_steps: usize,
    /// Actions are U(±this).
    pub action_bound: f64,
    pub seed: u64,
}

impl Rows {
    fn seeds(&self) -> Vec<u64> {
        (0..self.count).map(|row| episode_seed(self.seed, row as u64, 0)).collect()
    }

    /// `[count, steps, action_dim]`: the same for everyone.
    fn actions(&self, action_dim: usize) -> Vec<f64> {
        let mut noise = SeededNoise::new(self.seed, 1);
        (0..self.count * self.steps * action_dim)
            .map(|_| noise.rng().random_range(-1.0..=1.0) * self.action_bound)
            .collect()
    }
}

/// What some control steps took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Control steps.
    pub steps: usize,
    pub wall_s: f64,
    /// Processor time of all threads.
    pub processor_s: f64,
}

impl Cost {
    /// Control steps for each second of processor time: what one core does.
    pub fn per_core(&self) -> f64 {
        self.steps as f64 / self.processor_s
    }

    /// Control steps for each second that passed.
    pub fn per_second(&self) -> f64 {
        self.steps as f64 / self.wall_s
    }

    fn add<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, processor_s) = (Instant::now(), processor_time_s());
        let result = work();
        self.wall_s += wall.elapsed().as_secs_f64();
        self.processor_s += processor_time_s() - processor_s;
        result
    }
}

/// Environments that step the rows again and again.
#[derive(Debug)]
pub struct Stepping<E> {
    rows: Rows,
    batch: BatchEnv<E>,
    seeds: Vec<u64>,
    /// `[chunks, count, chunk_steps, action_dim]`
    chunks: Vec<Vec<f64>>,
    seen: Option<Seen>,
}

/// What is drawn after each chunk.
#[derive(Debug)]
struct Seen {
    drawing: BatchPictures,
    /// Of running and of ended episodes, `[count, views · 3, height, width]`.
    now: Vec<u8>,
    last: Vec<u8>,
}

impl<E: Environment> Stepping<E> {
    /// `environments`: as many as rows.
    ///
    /// # Errors
    /// As [`BatchEnv::new`]; [`SimError::BatchOptions`] where there are no whole chunks in a row.
    pub fn new(environments: Vec<E>, rows: Rows, threads: usize) -> Result<Self, SimError> {
        let bad = |message: String| SimError::BatchOptions { message };
        if environments.len() != rows.count {
            return Err(bad(format!("{} environments for {} rows", environments.len(), rows.count)));
        }
        if rows.steps == 0 || rows.chunk_steps == 0 || !rows.steps.is_multiple_of(rows.chunk_steps) {
            return Err(bad(format!("{} control steps are no whole chunks of {}", rows.steps, rows.chunk_steps)));
        }
        let options = BatchOptions { threads, chunk_steps: rows.chunk_steps, auto_reset: false, seed: rows.seed };
        let batch = BatchEnv::new(environments, options)?;
        let row_len = rows.steps * batch.action_dim();
        let chunk_len = rows.chunk_steps * batch.action_dim();
        let actions = rows.actions(batch.action_dim());
        let chunks = (0..rows.steps / rows.chunk_steps)
            .map(|chunk| {
                let rows = actions.chunks_exact(row_len);
                rows.flat_map(|row| &row[chunk * chunk_len..][..chunk_len]).copied().collect()
            })
            .collect();
        Ok(Self { seeds: rows.seeds(), rows, batch, chunks, seen: None })
    }

    /// With pictures of every environment after each chunk, which count as part of the work.
    ///
    /// # Errors
    /// As [`BatchPictures::new`].
    pub fn seen_by(self, look: RenderOptions) -> Result<Self, SimError> {
        let drawing = BatchPictures::new(look, self.batch.options().threads)?;
        let len = self.rows.count * drawing.len_of_one();
        Ok(Self { seen: Some(Seen { drawing, now: vec![0; len], last: vec![0; len] }), ..self })
    }

    /// Platform and renderer of OpenGL, once something was drawn.
    pub fn backend(&self) -> Option<String> {
        self.seen.as_ref().and_then(|seen| seen.drawing.backend())
    }

    /// Steps all rows once.
    ///
    /// # Errors
    /// [`SimError::BatchOptions`] where an episode ends within its row.
    pub fn run(&mut self) -> Result<Cost, SimError> {
        self.batch.reset_to(&self.seeds);
        let mut cost = Cost::default();
        for chunk in &self.chunks {
            cost.add(|| match &mut self.seen {
                None => self.batch.step_chunk(chunk),
                Some(seen) => self.batch.step_chunk_seen(chunk, &seen.drawing, &mut seen.now, &mut seen.last),
            })?;
            cost.steps += self.batch.outcomes().iter().map(|outcome| outcome.steps).sum::<usize>();
        }
        match cost.steps == self.rows.count * self.rows.steps {
            true => Ok(cost),
            false => Err(ended()),
        }
    }
}

impl<E: Environment> Stepping<E> {
    /// The environments, where their rows ended.
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &E> {
        self.batch.environments()
    }
}

fn ended() -> SimError {
    SimError::BatchOptions { message: "an episode ended within its row: take fewer control steps".to_owned() }
}

/// The physics of all rows: where each begins, and what the actuators are given before each physics step.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    rows: Rows,
    action_dim: usize,
    state_len: usize,
    control_dim: usize,
    /// `[rows, state_len]`, see [`Simulation::save_state`].
    states: Vec<f64>,
    /// `[rows, physics steps, control_dim]`
    controls: Vec<f64>,
}

impl Trace {
    /// Steps the rows in one environment, one after the other.
    ///
    /// # Errors
    /// [`SimError::BatchOptions`] where an episode ends within its row, or the environment has no world to show or gives no inputs.
    pub fn record<E: Environment>(environment: &mut E, rows: Rows) -> Result<Self, SimError> {
        let none = || SimError::BatchOptions { message: "this environment does not show its physics".to_owned() };
        let action_dim = environment.action_dim();
        let actions = rows.actions(action_dim);
        let mut observation = vec![0.0; environment.observation_dim()];
        let (mut states, mut controls) = (Vec::new(), Vec::new());
        let (mut state_len, mut control_dim) = (0, 0);
        for (seed, row) in rows.seeds().into_iter().zip(actions.chunks_exact(rows.steps * action_dim)) {
            environment.reset(seed, &mut observation);
            let world = environment.world().ok_or_else(none)?;
            (state_len, control_dim) = (world.state_len(), world.ctrl().len());
            let at = states.len();
            states.resize(at + state_len, 0.0);
            world.save_state(&mut states[at..]);
            for action in row.chunks_exact(action_dim) {
                if environment.step_recording(action, &mut observation, &mut controls).ended() {
                    return Err(ended());
                }
            }
        }
        if controls.is_empty() || controls.len() % (rows.count * control_dim) != 0 {
            return Err(none());
        }
        Ok(Self { rows, action_dim, state_len, control_dim, states, controls })
    }

    /// Physics steps of a row.
    pub fn physics_steps(&self) -> usize {
        self.controls.len() / (self.rows.count * self.control_dim)
    }

    /// Physics steps of a control step.
    pub fn frame_skip(&self) -> usize {
        self.physics_steps() / self.rows.steps
    }

    /// Writes `states.f64`, `controls.f64` and `actions.f64`, little-endian, into a folder, with their shapes in `trace.json` and the model
    /// in `model.mjb`.
    ///
    /// # Errors
    /// As [`std::fs::write`].
    pub fn write(&self, model: &Model, folder: &Path) -> std::io::Result<()> {
        let bytes = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let rows = self.rows.count;
        std::fs::write(folder.join("model.mjb"), model.to_mjb())?;
        std::fs::write(folder.join("states.f64"), bytes(&self.states))?;
        std::fs::write(folder.join("controls.f64"), bytes(&self.controls))?;
        std::fs::write(folder.join("actions.f64"), bytes(&self.rows.actions(self.action_dim)))?;
        let shapes = serde_json::json!({
            "states": [rows, self.state_len],
            "controls": [rows, self.physics_steps(), self.control_dim],
            "actions": [rows, self.rows.steps, self.action_dim],
        });
        std::fs::write(folder.join("trace.json"), shapes.to_string())
    }
}

/// The physics alone, on a fixed number of threads.
#[derive(Debug)]
pub struct Physics {
    trace: Trace,
    worlds: Vec<Simulation>,
    crew: Crew,
}

impl Physics {
    /// `worlds`: one for each thread, all of the trace's model.
    ///
    /// # Errors
    /// [`SimError::Threads`].
    pub fn new(trace: Trace, worlds: Vec<Simulation>) -> Result<Self, SimError> {
        let crew = Crew::new(worlds.len())?;
        Ok(Self { trace, worlds, crew })
    }

    /// Steps all rows once.
    ///
    /// # Errors
    /// [`SimError::SavedState`] where a world is of another model.
    pub fn run(&mut self) -> Result<Cost, SimError> {
        let Self { trace, worlds, crew } = self;
        let threads = worlds.len();
        let mut cost = Cost { steps: trace.rows.count * trace.rows.steps, ..Cost::default() };
        let share = |(first, world): (usize, &mut Simulation)| -> Result<(), SimError> {
            for row in (first..trace.rows.count).step_by(threads) {
                world.restore_state(&trace.states[row * trace.state_len..][..trace.state_len])?;
                let len = trace.controls.len() / trace.rows.count;
                for controls in trace.controls[row * len..][..len].chunks_exact(trace.control_dim) {
                    world.ctrl_mut().copy_from_slice(controls);
                    world.step();
                }
            }
            Ok(())
        };
        cost.add(|| crew.try_for_each(worlds.iter_mut().enumerate(), |_, world| share(world)))?;
        Ok(cost)
    }

    /// Where the rows end: positions of the world that stepped the last of them.
    pub fn last_positions(&self) -> &[f64] {
        self.worlds[(self.trace.rows.count - 1) % self.worlds.len()].qpos()
    }
}

/// Processor time of this process, seconds.
fn processor_time_s() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
}
