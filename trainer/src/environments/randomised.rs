//! Noise on what a batch of environments shows, and on what it executes (spec robot_control.md §9.1).

use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::normalizer::Normalizer;
use tenon_core::randomisation::Randomisation;
use tenon_sim::batch::ChunkOutcome;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::seeds::Stream;

/// Of the checkpoint: the draws of each running episode's bias, and what the policy sees next with its noise.
const BIASES: &str = "randomisation.biases";
const STATES: &str = "randomisation.states";
/// Counter of the checkpoint: 1 where what the policy sees next has noise.
const SHOWN: &str = "randomisation.shown";

fn stream_name(environment: usize) -> String {
    format!("randomisation.{environment}")
}

/// The noise of a batch: a stream and a running episode's bias for each environment, whatever the others do.
#[derive(Debug)]
pub(super) struct Randomised {
    pub noise: Randomisation,
    /// Whether it is on at present: evaluations may go without.
    pub shown: bool,
    streams: Vec<SeededNoise>,
    /// `[environments, bias_len]`
    biases: Vec<f32>,
    /// One observation.
    row: Vec<f64>,
}

/// What a step showed, in physical units, and what the policy is to see, normalised: rows of one width.
pub(super) struct Views<'a> {
    pub observations: &'a [f64],
    pub final_observations: &'a [f64],
    pub states: &'a mut [f32],
    pub final_states: &'a mut [f32],
}

impl Randomised {
    pub fn new(noise: Randomisation, environments: usize, seed: u64) -> Self {
        let streams = (0..environments).map(|i| Stream::Randomisation(i as u32).of(seed)).collect();
        let biases = vec![0.0; environments * noise.observation.bias_len()];
        Self { noise, shown: true, streams, biases, row: Vec::new() }
    }

    /// Episodes number `first`, `first + 1`, … of an evaluation begin: what is drawn in one follows from its number.
    pub fn begin_episodes(&mut self, first: usize, seed: u64) {
        for (i, stream) in self.streams.iter_mut().enumerate() {
            *stream = Stream::EvaluationRandomisation((first + i) as u32).of(seed);
        }
    }

    /// All environments show the first observation of an episode, or of what is left of one.
    pub fn begin_all(&mut self, normalizer: &Normalizer, observations: &[f64], states: &mut [f32]) {
        let dim = states.len() / self.streams.len();
        for (i, state) in states.chunks_exact_mut(dim).enumerate() {
            self.draw_bias(i);
            self.show(normalizer, i, &observations[i * dim..][..dim], state);
        }
    }

    /// What the policy sees after a step. Environments that wait for a reset go on showing what they showed.
    pub fn step(&mut self, normalizer: &Normalizer, outcomes: &[ChunkOutcome], auto_reset: bool, views: Views) {
        let dim = views.states.len() / self.streams.len();
        for (i, outcome) in outcomes.iter().enumerate() {
            let place = i * dim..(i + 1) * dim;
            if outcome.ended() && auto_reset {
                let (last, state) = (&views.final_observations[place.clone()], &mut views.final_states[place.clone()]);
                self.show(normalizer, i, last, state);
                self.draw_bias(i);
            } else if outcome.steps == 0 {
                continue;
            }
            self.show(normalizer, i, &views.observations[place.clone()], &mut views.states[place.clone()]);
            if outcome.ended() && !auto_reset {
                views.final_states[place.clone()].copy_from_slice(&views.states[place]);
            }
        }
    }

    /// Adds noise to what an environment is to execute, normalised.
    pub fn disturb_actions(&mut self, environment: usize, actions: &mut [f32]) {
        let std = self.noise.action_std;
        if std > 0.0 {
            for action in actions {
                let mut z = [0.0];
                self.streams[environment].fill_standard_normal(&mut z);
                *action += std * z[0];
            }
        }
    }

    fn draw_bias(&mut self, environment: usize) {
        let len = self.noise.observation.bias_len();
        let bias = &mut self.biases[environment * len..][..len];
        self.noise.observation.draw_bias(&mut self.streams[environment], bias);
    }

    /// One observation with the episode's bias and a jitter of its own.
    fn show(&mut self, normalizer: &Normalizer, environment: usize, observation: &[f64], state: &mut [f32]) {
        let len = self.noise.observation.bias_len();
        self.row.clear();
        self.row.extend_from_slice(observation);
        let bias = &self.biases[environment * len..][..len];
        self.noise.observation.disturb(bias, &mut self.streams[environment], &mut self.row);
        state.iter_mut().zip(&self.row).for_each(|(to, &from)| *to = from as f32);
        normalizer.normalize_observation(state);
    }

    /// Adds streams, biases and what is seen next to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint, states: &[f32]) {
        for (i, stream) in self.streams.iter().enumerate() {
            checkpoint.header.streams.insert(stream_name(i), stream.state());
        }
        let exact = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        checkpoint.put_f64(BIASES, &exact(&self.biases));
        checkpoint.put_f64(STATES, &exact(states));
        checkpoint.header.counters.insert(SHOWN.into(), u64::from(self.shown));
    }

    /// Restores what [`Self::store`] stored.
    pub fn restore(&mut self, checkpoint: &Checkpoint, states: &mut [f32]) -> Result<(), TrainError> {
        for (i, stream) in self.streams.iter_mut().enumerate() {
            *stream = SeededNoise::restore(checkpoint.stream(&stream_name(i))?);
        }
        for (name, values) in [(BIASES, &mut self.biases[..]), (STATES, states)] {
            let stored = checkpoint.f64(name)?;
            if stored.len() != values.len() {
                let detail = format!("{} values, not {}: the run had other noise", stored.len(), values.len());
                return Err(TrainError::Parameter { name: name.into(), detail });
            }
            values.iter_mut().zip(stored).for_each(|(to, &from)| *to = from as f32);
        }
        self.shown = checkpoint.counter(SHOWN)? != 0;
        Ok(())
    }
}
