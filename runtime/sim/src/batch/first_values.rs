//! Less of an observation: the robot's own values, for policies that see the rest through cameras.

use super::{Environment, StepOutcome};
use crate::error::SimError;
use crate::mujoco::Simulation;
use crate::render::Sight;

/// An environment that shows only the first values of its observation. Robomimic's observations begin with the robot's
/// own 9 (Transport 18) values, which is the state of its tasks with pictures (specification of the simulation tasks,
/// sections 3.5 and 3.8); start, reward and everything else stay.
#[derive(Debug)]
pub struct FirstValues<E> {
    inner: E,
    shown: usize,
    whole: Vec<f64>,
}

impl<E: Environment> FirstValues<E> {
    /// Shows `shown` values of the environment's observation.
    ///
    /// # Errors
    /// [`SimError::BatchOptions`] where it does not have as many, or none are to be shown.
    pub fn new(inner: E, shown: usize) -> Result<Self, SimError> {
        let dim = inner.observation_dim();
        if !(1..=dim).contains(&shown) {
            let message = format!("{shown} values of an observation of {dim}");
            return Err(SimError::BatchOptions { message });
        }
        Ok(Self { inner, shown, whole: vec![0.0; dim] })
    }

    /// The environment itself.
    pub fn inner(&self) -> &E {
        &self.inner
    }

    fn show(&self, observation: &mut [f64]) {
        observation.copy_from_slice(&self.whole[..self.shown]);
    }
}

impl<E: Environment> Environment for FirstValues<E> {
    fn observation_dim(&self) -> usize {
        self.shown
    }

    fn action_dim(&self) -> usize {
        self.inner.action_dim()
    }

    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        self.inner.reset(seed, &mut self.whole);
        self.show(observation);
    }

    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        let outcome = self.inner.step(action, &mut self.whole);
        self.show(observation);
        outcome
    }

    fn world(&self) -> Option<&Simulation> {
        self.inner.world()
    }

    fn step_recording(&mut self, action: &[f64], observation: &mut [f64], controls: &mut Vec<f64>) -> StepOutcome {
        let outcome = self.inner.step_recording(action, &mut self.whole, controls);
        self.show(observation);
        outcome
    }

    fn world_to_draw(&mut self) -> Option<&mut Simulation> {
        self.inner.world_to_draw()
    }

    fn sight(&self) -> Sight {
        self.inner.sight()
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        self.inner.save_state(bytes);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        self.inner.restore_state(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avoid::{AvoidEnv, AvoidScene};

    #[test]
    fn the_first_values_are_those_of_the_whole_and_everything_else_stays() {
        let scene = AvoidScene::new().unwrap();
        let (mut whole, mut less) = (AvoidEnv::new(&scene), FirstValues::new(AvoidEnv::new(&scene), 2).unwrap());
        let (mut all, mut first) = ([0.0; 4], [0.0; 2]);
        whole.reset(3, &mut all);
        less.reset(3, &mut first);
        for _ in 0..5 {
            assert_eq!(first, all[..2]);
            assert_eq!(less.step(&[0.002, 0.008], &mut first), whole.step(&[0.002, 0.008], &mut all));
        }
        assert_eq!((less.observation_dim(), less.action_dim()), (2, whole.action_dim()));
        assert_eq!(less.sight(), whole.sight());
        assert!(less.world_to_draw().is_some());
        let mut saved = Vec::new();
        less.save_state(&mut saved);
        whole.restore_state(&saved).unwrap();
    }

    #[test]
    fn more_values_than_there_are_are_refused() {
        let scene = AvoidScene::new().unwrap();
        for shown in [0, 5] {
            assert!(FirstValues::new(AvoidEnv::new(&scene), shown).is_err());
        }
    }
}
