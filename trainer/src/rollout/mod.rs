//! What one iteration collected, and what follows from it whatever the policy: scaled rewards and advantages.

mod advantage;
mod estimate;
mod reward_scaling;

pub use advantage::{Gae, TimeOut, explained_variance, generalized_advantages, normalize};
pub use estimate::{AdvantageSettings, Estimates, RolloutValues, estimate};
pub use reward_scaling::RewardScaler;

use crate::error::TrainError;

/// N chunk steps of E environments. Arrays are `[steps, envs, …]`, environment fastest; a sample is `step · envs + env`.
#[derive(Debug, Clone)]
pub struct Rollout {
    pub steps: usize,
    pub envs: usize,
    /// Normalised state before each chunk, `[steps, envs, state_len]`.
    pub states: Vec<f32>,
    /// Stored chains, `[steps, envs, K'+1, chunk_len]`; the last entry is the chunk that was executed.
    pub chains: Vec<f32>,
    /// Summed reward of each chunk.
    pub rewards: Vec<f64>,
    /// The episode reached a terminal state in this chunk.
    pub terminated: Vec<bool>,
    /// The episode ran out of time in this chunk.
    pub truncated: Vec<bool>,
    /// Whether the step is the first of an episode, `[steps + 1, envs]`.
    pub first: Vec<bool>,
    /// Normalised state after the last step, `[envs, state_len]`.
    pub last_states: Vec<f32>,
    /// Samples whose episode ran out of time, with the normalised state it ended in, before any reset.
    pub final_states: Vec<(usize, Vec<f32>)>,
}

impl Rollout {
    /// Room for `steps` × `envs` samples of `state_len` and chains of `chain_len` = (K'+1) · Tp · Da values.
    pub fn new(steps: usize, envs: usize, state_len: usize, chain_len: usize) -> Self {
        let n = steps * envs;
        Self {
            steps,
            envs,
            states: vec![0.0; n * state_len],
            chains: vec![0.0; n * chain_len],
            rewards: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            first: vec![false; n + envs],
            last_states: vec![0.0; envs * state_len],
            final_states: Vec::new(),
        }
    }

    /// N · E.
    pub fn samples(&self) -> usize {
        self.steps * self.envs
    }

    /// Says which state, chain or reward is not finite, and in which environment.
    pub fn check_finite(&self) -> Result<(), TrainError> {
        let n = self.samples();
        let place = |sample: usize| format!("chunk step {}, environment {}", sample / self.envs, sample % self.envs);
        let fail = |what, place| Err(TrainError::Numerical { what, place });
        if let Some(i) = self.rewards.iter().position(|r| !r.is_finite()) {
            return fail("the reward", place(i));
        }
        for (what, values) in [("the observation", &self.states), ("the sampled chain", &self.chains)] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return fail(what, place(i * n / values.len()));
            }
        }
        if let Some(i) = self.last_states.iter().position(|v| !v.is_finite()) {
            return fail("the observation after the last step", place(i * self.envs / self.last_states.len()));
        }
        if let Some((sample, _)) = self.final_states.iter().find(|(_, s)| s.iter().any(|v| !v.is_finite())) {
            return fail("the final observation", place(*sample));
        }
        Ok(())
    }
}
