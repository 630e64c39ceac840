//! What one iteration collected, and what follows from it whatever the policy: scaled rewards and advantages.

mod advantage;
mod estimate;
mod reward_scaling;

pub use advantage::{Gae, TimeOut, explained_variance, generalized_advantages, normalize};
pub use estimate::{AdvantageSettings, Estimates, RolloutValues, estimate};
pub use reward_scaling::RewardScaler;

use crate::error::TrainError;
use crate::network::Observations;

/// N chunk steps of E environments. Arrays are `[steps, envs, …]`, environment fastest; a sample is `step · envs + env`.
#[derive(Debug, Clone)]
pub struct Rollout {
    pub steps: usize,
    pub envs: usize,
    /// Normalised state before each chunk, `[steps, envs, state_len]`.
    pub states: Vec<f32>,
    /// Stored chains, `[steps, envs, K'+1, chunk_len]`; the last entry is the chunk that was sampled. Noise that randomisation adds
    /// to what is executed is the environment's, not the policy's.
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
    /// Of networks that see pictures.
    pub images: Option<RolloutImages>,
}

/// What cameras saw, `image_len` bytes a picture set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutImages {
    /// Before each chunk, `[steps, envs, image_len]`.
    pub before: Vec<u8>,
    /// After the last step, `[envs, image_len]`.
    pub last: Vec<u8>,
    /// Beside [`Rollout::final_states`], in their order.
    pub finals: Vec<u8>,
}

/// Where a sample of `envs` environments was collected, in words.
pub fn place(sample: usize, envs: usize) -> String {
    format!("chunk step {}, environment {}", sample / envs, sample % envs)
}

impl RolloutImages {
    /// Says what does not have as many bytes as the rollout asks for.
    fn check(&self, rollout: &Rollout, image_len: usize) -> Result<(), TrainError> {
        for (what, bytes, rows) in [
            ("before the chunks", &self.before, rollout.samples()),
            ("after the last step", &self.last, rollout.envs),
            ("of final states", &self.finals, rollout.final_states.len()),
        ] {
            if bytes.len() != rows * image_len {
                let detail = format!("{} bytes {what}, not {rows} · {image_len}", bytes.len());
                return Err(TrainError::Config { key: "images", detail });
            }
        }
        Ok(())
    }
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
            images: None,
        }
    }

    /// N · E.
    pub fn samples(&self) -> usize {
        self.steps * self.envs
    }

    /// What was seen before each chunk, one row a sample.
    pub fn observations(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.images.as_ref().map(|i| i.before.as_slice()) }
    }

    /// The same with `pictures` in place of those that were taken, where there are any.
    pub fn observations_with<'a>(&'a self, pictures: Option<&'a [u8]>) -> Observations<'a> {
        let taken = self.observations();
        Observations { images: pictures.or(taken.images), ..taken }
    }

    /// What was seen after the last step, one row an environment.
    pub fn last_observations(&self) -> Observations<'_> {
        Observations { states: &self.last_states, images: self.images.as_ref().map(|i| i.last.as_slice()) }
    }

    /// What was seen where episodes ran out of time, one row for each of [`Rollout::final_states`]; `states` keeps them.
    pub fn final_observations<'a>(&'a self, states: &'a mut Vec<f32>) -> Observations<'a> {
        states.clear();
        self.final_states.iter().for_each(|(_, state)| states.extend_from_slice(state));
        Observations { states, images: self.images.as_ref().map(|i| i.finals.as_slice()) }
    }

    /// Refuses chains that are not of `chain_len` values a sample: those of another policy, or of another K'.
    pub fn check_chains(&self, chain_len: usize) -> Result<(), TrainError> {
        if self.chains.len() == self.samples() * chain_len {
            return Ok(());
        }
        let detail = format!("{} values, not {} · {chain_len}", self.chains.len(), self.samples());
        Err(TrainError::Config { key: "chains", detail })
    }

    /// Says where a network that sees `image_len` bytes of pictures (0: none) does not find them.
    pub fn check_images(&self, image_len: usize) -> Result<(), TrainError> {
        match &self.images {
            Some(images) => images.check(self, image_len),
            None if image_len == 0 => Ok(()),
            None => {
                let detail = "the policy sees pictures, the rollout has none".into();
                Err(TrainError::Config { key: "images", detail })
            }
        }
    }

    /// Where a sample was collected.
    pub fn place(&self, sample: usize) -> String {
        place(sample, self.envs)
    }

    /// Says which state, chain or reward is not finite, and in which environment.
    pub fn check_finite(&self) -> Result<(), TrainError> {
        let n = self.samples();
        let place = |sample| self.place(sample);
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
