//! Rollouts: chunks sampled for all environments, executed, and everything that an update needs kept.

use std::time::Duration;

use tenon_core::noise::SeededNoise;
use tenon_sim::batch::ChunkOutcome;

use crate::checkpoint::Checkpoint;
use crate::environments::TaskBatch;
use crate::error::TrainError;
use crate::evaluate::check_pictures;
use crate::rollout::Rollout;
use crate::sampling::{ChunkMode, ChunkSampler, PolicyRef};
use crate::stopwatch::{Timing, timed};
use crate::workers::Workers;

/// Buffers and random streams of rollouts.
#[derive(Debug)]
pub struct Collector {
    sampler: ChunkSampler,
    rollout: Rollout,
    /// Noise of each environment's chunks.
    streams: Vec<SeededNoise>,
    chunks: Vec<f32>,
}

/// Of the checkpoint: whether the next chunk of each environment is the first of an episode.
const FIRST: &str = "episodes_begin";

fn stream_name(environment: usize) -> String {
    format!("policy.{environment}")
}

/// What a rollout took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CollectTimes {
    pub sampling: Timing,
    /// Pictures included.
    pub environment: Timing,
    /// Of the environment's the time that pictures took, of all threads together; none where there are none.
    pub pictures: Option<Duration>,
}

impl Collector {
    /// For rollouts of `steps` chunks in as many environments as there are `streams`.
    pub fn new(policy: PolicyRef, workers: &Workers, steps: usize, streams: Vec<SeededNoise>) -> Self {
        let (count, chunk_len) = (streams.len(), policy.chunk_len());
        let mut rollout = Rollout::new(steps, count, policy.state_len(), policy.chain_len());
        // The first rollout begins with episodes; whoever resets the environments later says so.
        rollout.first.fill(true);
        Self {
            sampler: ChunkSampler::new(policy, workers, count),
            rollout,
            streams,
            chunks: vec![0.0; count * chunk_len],
        }
    }

    /// The last rollout.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// All environments have been reset: the next rollout begins with episodes.
    pub fn episodes_begin(&mut self) {
        let n = self.rollout.samples();
        self.rollout.first[n..].fill(true);
    }

    /// Adds the random streams, and where episodes begin, to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        for (i, stream) in self.streams.iter().enumerate() {
            checkpoint.header.streams.insert(stream_name(i), stream.state());
        }
        let first = &self.rollout.first[self.rollout.samples()..];
        checkpoint.put_bytes(FIRST, first.iter().map(|&first| u8::from(first)).collect());
    }

    /// Restores what [`Collector::store`] stored.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        for (i, stream) in self.streams.iter_mut().enumerate() {
            *stream = SeededNoise::restore(checkpoint.stream(&stream_name(i))?);
        }
        let (bytes, n) = (checkpoint.bytes(FIRST)?, self.rollout.samples());
        let first = &mut self.rollout.first[n..];
        if bytes.len() != first.len() {
            let detail = format!("{} values for {} environments", bytes.len(), first.len());
            return Err(TrainError::Parameter { name: FIRST.into(), detail });
        }
        first.iter_mut().zip(bytes).for_each(|(first, &byte)| *first = byte != 0);
        Ok(())
    }

    /// One rollout from where the environments stand (spec dppo.md §2.3). `None` where `stop` asked to end.
    ///
    /// `on_outcome(environment, outcome)` is told of every chunk, in the order of steps and environments.
    pub fn collect(
        &mut self,
        workers: &Workers,
        policy: PolicyRef,
        mode: ChunkMode,
        batch: &mut TaskBatch,
        stop: &dyn Fn() -> bool,
        on_outcome: &mut dyn FnMut(usize, &ChunkOutcome),
    ) -> Result<Option<CollectTimes>, TrainError> {
        let rollout = &mut self.rollout;
        let (steps, count) = (rollout.steps, rollout.envs);
        let (state_len, chunk_len, chain_len) = (policy.state_len(), policy.chunk_len(), policy.chain_len());
        let (mut times, drawn_before) = (CollectTimes::default(), batch.time_drawing());
        let n = rollout.samples();
        // K' may have fallen since the last rollout.
        rollout.chains.resize(n * chain_len, 0.0);
        rollout.first.copy_within(n.., 0);
        rollout.final_states.clear();
        let image_len = policy.image_len();
        check_pictures(batch.seen(), image_len, count)?;
        rollout.images = (image_len > 0).then(|| {
            let mut images = rollout.images.take().unwrap_or_default();
            images.before.resize(n * image_len, 0);
            images.finals.clear();
            images
        });
        for step in 0..steps {
            if stop() {
                return Ok(None);
            }
            let samples = step * count..(step + 1) * count;
            let states = &mut rollout.states[samples.start * state_len..samples.end * state_len];
            states.copy_from_slice(batch.states());
            let chains = &mut rollout.chains[samples.start * chain_len..samples.end * chain_len];
            if let (Some(images), Some(seen)) = (&mut rollout.images, batch.seen().images) {
                images.before[samples.start * image_len..samples.end * image_len].copy_from_slice(seen);
            }
            let (seen, streams) = (batch.seen(), &mut self.streams);
            let ((), took) = timed(|| self.sampler.sample(workers, policy, mode, seen, streams, chains));
            times.sampling += took;
            for (chunk, chain) in self.chunks.chunks_exact_mut(chunk_len).zip(chains.chunks_exact(chain_len)) {
                chunk.copy_from_slice(&chain[chain_len - chunk_len..]);
            }
            let (stepped, took) = timed(|| batch.step(&self.chunks));
            stepped?;
            times.environment += took;
            for (i, outcome) in batch.outcomes().iter().enumerate() {
                let sample = samples.start + i;
                rollout.rewards[sample] = outcome.reward;
                rollout.terminated[sample] = outcome.terminated;
                rollout.truncated[sample] = outcome.truncated;
                rollout.first[sample + count] = outcome.ended();
                if outcome.truncated && outcome.steps > 0 {
                    rollout.final_states.push((sample, batch.final_state(i).to_vec()));
                    if let (Some(images), Some(last)) = (&mut rollout.images, batch.final_pictures(i)) {
                        images.finals.extend_from_slice(last);
                    }
                }
                on_outcome(i, outcome);
            }
        }
        rollout.last_states.copy_from_slice(batch.states());
        if let (Some(images), Some(seen)) = (&mut rollout.images, batch.seen().images) {
            images.last.clear();
            images.last.extend_from_slice(seen);
        }
        times.pictures = batch.time_drawing().zip(drawn_before).map(|(now, before)| now - before);
        Ok(Some(times))
    }
}
