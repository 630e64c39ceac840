//! Avoid, with what judging it needs beyond the observation.

use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{Environment, StepOutcome};
use tenon_sim::mujoco::Simulation;
use tenon_sim::render::Sight;

/// An Avoid environment that remembers the path of the tool point.
#[derive(Debug)]
pub struct TracedAvoid {
    inner: AvoidEnv,
    path_xy_m: Vec<[f64; 2]>,
}

impl TracedAvoid {
    pub(super) fn new(scene: &AvoidScene) -> Self {
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
        self.path_xy_m.clear();
        self.inner.restore_state(bytes)?;
        self.trace();
        Ok(())
    }
}
