//! N environments over a fixed number of threads, with all buffers allocated once.

use std::sync::{Mutex, PoisonError};

use super::crew::Crew;
use super::{BatchPictures, ChunkOutcome, Environment, FaultCounts, StepOutcome, episode_seed};
use crate::error::SimError;
use crate::saved_state::{StateReader, StateWriter};

/// First value of a saved batch.
const STATE_VERSION: u64 = 1;
const WHAT: &str = "a batch of environments";

/// How a batch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Number of threads; 1 means the calling one.
    pub threads: usize,
    /// Control steps of an action chunk.
    pub chunk_steps: usize,
    /// Whether an ended episode is followed by the next one within the same call. Without it, an ended environment
    /// waits: its steps do nothing until [`BatchEnv::reset`].
    pub auto_reset: bool,
    /// Seed of everything random; see [`episode_seed`].
    pub seed: u64,
}

/// One environment and what the batch keeps for it.
#[derive(Debug)]
struct Slot<E> {
    environment: E,
    /// Number of episodes begun.
    episodes: u64,
    /// How the present episode ended, while it waits for a reset.
    waiting: Option<ChunkOutcome>,
    faults: FaultCounts,
}

/// A batch of environments that step together.
///
/// ```text
/// batch.reset();
/// loop { plan from batch.observations(); batch.step_chunk(&actions)?; learn from batch.outcomes() … }
/// ```
#[derive(Debug)]
pub struct BatchEnv<E> {
    slots: Vec<Slot<E>>,
    crew: Crew,
    options: BatchOptions,
    observation_dim: usize,
    action_dim: usize,
    /// `[environments, observation_dim]`
    observations: Vec<f64>,
    /// `[environments, observation_dim]`
    final_observations: Vec<f64>,
    /// `[environments]`
    outcomes: Vec<ChunkOutcome>,
}

impl<E: Environment> BatchEnv<E> {
    /// Takes over environments of one task and starts the threads. [`reset`](Self::reset) comes next.
    ///
    /// # Errors
    /// [`SimError::BatchOptions`] for an empty or mixed batch or zero threads or steps, [`SimError::Threads`].
    pub fn new(environments: Vec<E>, options: BatchOptions) -> Result<Self, SimError> {
        let bad = |message: &str| SimError::BatchOptions { message: message.to_owned() };
        let first = environments.first().ok_or_else(|| bad("no environment at all"))?;
        let (observation_dim, action_dim) = (first.observation_dim(), first.action_dim());
        if environments.iter().any(|e| e.observation_dim() != observation_dim || e.action_dim() != action_dim) {
            return Err(bad("environments of different dimensions"));
        }
        if options.threads == 0 || options.chunk_steps == 0 {
            return Err(bad("threads and chunk_steps must be at least 1"));
        }
        let crew = Crew::new(options.threads)?;
        let count = environments.len();
        let slots = environments
            .into_iter()
            .map(|environment| Slot { environment, episodes: 0, waiting: None, faults: FaultCounts::default() })
            .collect();
        Ok(Self {
            slots,
            crew,
            options,
            observation_dim,
            action_dim,
            observations: vec![0.0; count * observation_dim],
            final_observations: vec![0.0; count * observation_dim],
            outcomes: vec![ChunkOutcome::default(); count],
        })
    }

    /// Number of environments.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Never: a batch has at least one environment.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of values of an observation.
    pub fn observation_dim(&self) -> usize {
        self.observation_dim
    }

    /// Number of values of one step's action.
    pub fn action_dim(&self) -> usize {
        self.action_dim
    }

    /// How the batch runs.
    pub fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// Starts the next episode in every environment.
    pub fn reset(&mut self) {
        let seed = self.options.seed;
        self.for_each(|_, index, slot, observation, _, outcome| {
            begin_episode(slot, seed, index, observation);
            *outcome = ChunkOutcome::default();
        });
    }

    /// Starts an episode with its own seed in every environment. `seeds`: `[environments]`.
    ///
    /// # Panics
    /// Where there are not as many seeds as environments.
    pub fn reset_to(&mut self, seeds: &[u64]) {
        assert_eq!(seeds.len(), self.slots.len(), "one seed an environment");
        self.for_each(|_, index, slot, observation, _, outcome| {
            slot.episodes += 1;
            slot.waiting = None;
            slot.environment.reset(seeds[index], observation);
            *outcome = ChunkOutcome::default();
        });
    }

    /// Executes one action chunk in every environment.
    ///
    /// `actions`: `[environments, chunk_steps, action_dim]`, row-major, physical units. Afterwards
    /// [`observations`](Self::observations), [`outcomes`](Self::outcomes) and
    /// [`final_observations`](Self::final_observations) hold the result. A bad action or an unstable world is no
    /// error here: see [`ChunkOutcome::fault`].
    ///
    /// # Errors
    /// [`SimError::ActionShape`], with nothing executed.
    pub fn step_chunk(&mut self, actions: &[f64]) -> Result<(), SimError> {
        let chunk_len = self.chunk_len(actions)?;
        let BatchOptions { seed, auto_reset, .. } = self.options;
        self.for_each(|_, index, slot, observation, final_observation, outcome| {
            if slot.waits(outcome) {
                return;
            }
            let own = &actions[index * chunk_len..(index + 1) * chunk_len];
            *outcome = slot.environment.step_chunk(own, observation);
            finish_chunk(slot, seed, auto_reset, index, observation, final_observation, outcome);
        });
        Ok(())
    }

    /// The same in the calling thread, one environment after the other; `watch` is shown (index, environment, outcome)
    /// after each control step, before the next episode begins.
    ///
    /// # Errors
    /// [`SimError::ActionShape`], with nothing executed.
    pub fn step_chunk_watched(
        &mut self,
        actions: &[f64],
        watch: &mut dyn FnMut(usize, &mut E, StepOutcome),
    ) -> Result<(), SimError> {
        let chunk_len = self.chunk_len(actions)?;
        let (BatchOptions { seed, auto_reset, .. }, dim) = (self.options, self.observation_dim);
        let rows = self.observations.chunks_exact_mut(dim).zip(self.final_observations.chunks_exact_mut(dim));
        let own = actions.chunks_exact(chunk_len).enumerate();
        for (((slot, outcome), (observation, last)), (index, own)) in
            self.slots.iter_mut().zip(&mut self.outcomes).zip(rows).zip(own)
        {
            if slot.waits(outcome) {
                continue;
            }
            *outcome = ChunkOutcome::default();
            for action in own.chunks_exact(self.action_dim) {
                let step = slot.environment.step(action, observation);
                outcome.add(step);
                watch(index, &mut slot.environment, step);
                if outcome.ended() {
                    break;
                }
            }
            finish_chunk(slot, seed, auto_reset, index, observation, last, outcome);
        }
        Ok(())
    }

    /// As [`step_chunk`](Self::step_chunk), and every environment is drawn by the thread that stepped it.
    ///
    /// `pictures`, `final_pictures`: `[environments, views · 3, height, width]`. The first receives what is seen next,
    /// beside [`observations`](Self::observations); the other, of episodes that ended, what was seen last, beside
    /// [`final_observations`](Self::final_observations). Environments that wait for a reset keep both.
    ///
    /// # Errors
    /// As `step_chunk` and [`render`](Self::render); after an error of the drawing the chunk has been executed.
    pub fn step_chunk_seen(
        &mut self,
        actions: &[f64],
        drawing: &BatchPictures,
        pictures: &mut [u8],
        final_pictures: &mut [u8],
    ) -> Result<(), SimError> {
        let (chunk_len, len) = (self.chunk_len(actions)?, drawing.len_of_one());
        for found in [pictures.len(), final_pictures.len()] {
            let expected = self.slots.len() * len;
            if found != expected {
                return Err(SimError::PictureBuffer { expected, found });
            }
        }
        let BatchOptions { seed, auto_reset, .. } = self.options;
        let failure = Mutex::new(None);
        let rows: Vec<Mutex<(&mut [u8], &mut [u8])>> =
            pictures.chunks_exact_mut(len).zip(final_pictures.chunks_exact_mut(len)).map(Mutex::new).collect();
        self.for_each(|worker, index, slot, observation, final_observation, outcome| {
            if slot.waits(outcome) {
                return;
            }
            let own = &actions[index * chunk_len..(index + 1) * chunk_len];
            *outcome = slot.environment.step_chunk(own, observation);
            // Nobody else takes this row.
            let mut row = rows[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (now, last) = &mut *row;
            let ended = outcome.ended();
            let mut drawn = if ended { drawing.draw(worker, &mut slot.environment, last) } else { Ok(()) };
            finish_chunk(slot, seed, auto_reset, index, observation, final_observation, outcome);
            if ended && !auto_reset {
                now.copy_from_slice(last);
            } else if drawn.is_ok() {
                drawn = drawing.draw(worker, &mut slot.environment, now);
            }
            if let Err(error) = drawn {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Values of one environment's chunk, if `actions` has one for each.
    fn chunk_len(&self, actions: &[f64]) -> Result<usize, SimError> {
        let chunk_len = self.options.chunk_steps * self.action_dim;
        let expected = self.slots.len() * chunk_len;
        if actions.len() != expected {
            return Err(SimError::ActionShape {
                environments: self.slots.len(),
                chunk_steps: self.options.chunk_steps,
                action_dim: self.action_dim,
                expected,
                found: actions.len(),
            });
        }
        Ok(chunk_len)
    }

    /// Draws every environment as it is now, in the batch's threads, with one context a thread.
    ///
    /// `pictures`: receives `[environments, views · 3, height, width]`, row 0 at the top.
    ///
    /// # Errors
    /// [`SimError::PictureBuffer`], [`SimError::NothingToDraw`] for a task that cannot be drawn, and whatever making a
    /// [`crate::render::Renderer`] can fail with.
    pub fn render(&mut self, drawing: &BatchPictures, pictures: &mut [u8]) -> Result<(), SimError> {
        let expected = self.slots.len() * drawing.len_of_one();
        if pictures.len() != expected {
            return Err(SimError::PictureBuffer { expected, found: pictures.len() });
        }
        let len = drawing.len_of_one();
        let rows = self.slots.iter_mut().zip(pictures.chunks_exact_mut(len));
        self.crew.try_for_each(rows, |worker, (slot, own)| drawing.draw(worker, &mut slot.environment, own))
    }

    /// What the policy sees next, `[environments, observation_dim]`: with auto-reset, where an episode ended, the
    /// first observation of the following one.
    pub fn observations(&self) -> &[f64] {
        &self.observations
    }

    /// The last observation of the latest episode that ended, `[environments, observation_dim]`; it is new where the
    /// present outcome [`ended`](ChunkOutcome::ended).
    pub fn final_observations(&self) -> &[f64] {
        &self.final_observations
    }

    /// What the last chunk brought, `[environments]`.
    pub fn outcomes(&self) -> &[ChunkOutcome] {
        &self.outcomes
    }

    /// How many episodes faults have ended so far, by cause.
    pub fn fault_counts(&self) -> FaultCounts {
        let mut sum = FaultCounts::default();
        for slot in &self.slots {
            sum.non_finite_action += slot.faults.non_finite_action;
            sum.unstable_state += slot.faults.unstable_state;
        }
        sum
    }

    /// The environments, in order, for whatever a task tells beyond its observation.
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &E> {
        self.slots.iter().map(|slot| &slot.environment)
    }

    /// One of the environments, for drawing it.
    ///
    /// # Panics
    /// Where there is none of this index.
    pub fn environment_mut(&mut self, index: usize) -> &mut E {
        &mut self.slots[index].environment
    }

    /// Appends the state of all environments, their episode numbers and the present observations.
    pub fn save_state(&self, bytes: &mut Vec<u8>) {
        let mut writer = StateWriter::new(bytes);
        writer.u64(STATE_VERSION);
        writer.u64(self.slots.len() as u64);
        writer.u64(self.observation_dim as u64);
        writer.f64s(&self.observations);
        writer.f64s(&self.final_observations);
        let mut own = Vec::new();
        for slot in &self.slots {
            writer.u64(slot.episodes);
            writer.u64(slot.faults.non_finite_action);
            writer.u64(slot.faults.unstable_state);
            // An episode that waits has ended in exactly one way, or in a fault that terminated it.
            writer
                .u8(slot.waiting.map_or(0, |ending| 1 + u8::from(ending.terminated) + 2 * u8::from(ending.truncated)));
            own.clear();
            slot.environment.save_state(&mut own);
            writer.bytes(&own);
        }
    }

    /// Takes over what [`save_state`](Self::save_state) wrote for a batch of the same task and size; the thread count
    /// may differ. The outcomes become empty.
    ///
    /// # Errors
    /// [`SimError::SavedState`]; the batch must then be reset or dropped, some environments may have changed.
    pub fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let mut reader = StateReader::new(WHAT, bytes);
        let version = reader.u64()?;
        if version != STATE_VERSION {
            return Err(reader.error(format!("version {version} instead of {STATE_VERSION}")));
        }
        let (count, dim) = (reader.u64()?, reader.u64()?);
        if count != self.slots.len() as u64 || dim != self.observation_dim as u64 {
            return Err(reader.error(format!(
                "{count} environments with observations of {dim} values, here {} with {}",
                self.slots.len(),
                self.observation_dim
            )));
        }
        reader.f64s(&mut self.observations)?;
        reader.f64s(&mut self.final_observations)?;
        for slot in &mut self.slots {
            slot.episodes = reader.u64()?;
            slot.faults.non_finite_action = reader.u64()?;
            slot.faults.unstable_state = reader.u64()?;
            slot.waiting = match reader.u8()? {
                0 => None,
                ending @ 1..=4 => Some(ChunkOutcome {
                    terminated: (ending - 1) & 1 == 1,
                    truncated: (ending - 1) & 2 == 2,
                    ..ChunkOutcome::default()
                }),
                other => return Err(reader.error(format!("an unknown kind of ending ({other})"))),
            };
            slot.environment.restore_state(reader.bytes()?)?;
        }
        self.outcomes.fill(ChunkOutcome::default());
        reader.finish()
    }

    /// Calls `work` with (thread, index, slot, its observation, its final observation, its outcome) for every environment.
    fn for_each<F>(&mut self, work: F)
    where
        F: Fn(usize, usize, &mut Slot<E>, &mut [f64], &mut [f64], &mut ChunkOutcome) + Sync,
    {
        let dim = self.observation_dim;
        let rows = self
            .slots
            .iter_mut()
            .zip(self.observations.chunks_exact_mut(dim))
            .zip(self.final_observations.chunks_exact_mut(dim))
            .zip(&mut self.outcomes)
            .enumerate();
        self.crew.for_each(rows, |worker, (index, (((slot, observation), last), outcome))| {
            work(worker, index, slot, observation, last, outcome);
        });
    }
}

impl<E> Slot<E> {
    /// Whether it waits for a reset; the outcome says then how it ended, with no step made.
    fn waits(&self, outcome: &mut ChunkOutcome) -> bool {
        if let Some(ending) = self.waiting {
            *outcome = ChunkOutcome { reward: 0.0, steps: 0, ..ending };
        }
        self.waiting.is_some()
    }
}

/// Counts a fault, and ends the episode where the chunk did.
fn finish_chunk<E: Environment>(
    slot: &mut Slot<E>,
    run_seed: u64,
    auto_reset: bool,
    index: usize,
    observation: &mut [f64],
    final_observation: &mut [f64],
    outcome: &ChunkOutcome,
) {
    if let Some(fault) = outcome.fault {
        slot.faults.add(fault);
    }
    if outcome.ended() {
        final_observation.copy_from_slice(observation);
        if auto_reset {
            begin_episode(slot, run_seed, index, observation);
        } else {
            slot.waiting = Some(*outcome);
        }
    }
}

fn begin_episode<E: Environment>(slot: &mut Slot<E>, run_seed: u64, index: usize, observation: &mut [f64]) {
    let seed = episode_seed(run_seed, index as u64, slot.episodes);
    slot.episodes += 1;
    slot.waiting = None;
    slot.environment.reset(seed, observation);
}
