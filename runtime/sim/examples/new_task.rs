//! A whole task in one file, for who writes another one (docs/adding-a-task.md): a slide is to be pushed to a mark.
//!
//! `cargo run --release -p tenon-sim --example new_task`

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_sim::SimError;
use tenon_sim::batch::{BatchEnv, BatchOptions, Environment, EnvironmentFault, StepOutcome};
use tenon_sim::mujoco::{Model, Simulation};
use tenon_sim::saved_state::{StateReader, StateWriter};

/// The world. Models of more than a screen are files, found as `gym::model_path` finds its own.
const MJCF: &str = r#"<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body name="slide"><joint name="x" type="slide" axis="1 0 0" damping="2"/><geom type="box" size=".05 .05 .05" mass="1"/></body>
  </worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-1 1" gear="10"/></actuator>
</mujoco>"#;

/// Physics steps of a control step: 20 Hz.
const FRAME_SKIP: usize = 25;
const EPISODE_STEPS: usize = 100;
/// The mark, m, and how near is there.
const MARK_M: f64 = 0.5;
const NEAR_M: f64 = 0.05;

struct Push {
    simulation: Simulation,
    steps: usize,
}

impl Push {
    fn new(model: &Model) -> Self {
        Self { simulation: Simulation::new(model), steps: 0 }
    }

    /// Position m, velocity m/s.
    fn observe(&self, observation: &mut [f64]) {
        observation.copy_from_slice(&[self.simulation.qpos()[0], self.simulation.qvel()[0]]);
    }
}

impl Environment for Push {
    fn observation_dim(&self) -> usize {
        2
    }

    fn action_dim(&self) -> usize {
        1
    }

    /// Somewhere within 0.2 m of the origin, at rest. All that is random follows from `seed`.
    fn reset(&mut self, seed: u64, observation: &mut [f64]) {
        self.simulation.reset();
        self.simulation.qpos_mut()[0] = SeededNoise::new(seed, 0).rng().random_range(-0.2..=0.2);
        self.simulation.forward();
        self.steps = 0;
        self.observe(observation);
    }

    /// Reward 1 on each step that ends at the mark; never terminated, truncated after [`EPISODE_STEPS`].
    fn step(&mut self, action: &[f64], observation: &mut [f64]) -> StepOutcome {
        // What remains after a fault.
        self.observe(observation);
        if !action[0].is_finite() {
            return StepOutcome::faulted(EnvironmentFault::NonFiniteAction);
        }
        self.simulation.ctrl_mut()[0] = action[0].clamp(-1.0, 1.0);
        for _ in 0..FRAME_SKIP {
            self.simulation.step();
        }
        if !self.simulation.is_stable() {
            return StepOutcome::faulted(EnvironmentFault::UnstableState);
        }
        self.steps += 1;
        self.observe(observation);
        let there = (observation[0] - MARK_M).abs() < NEAR_M;
        StepOutcome {
            reward: f64::from(u8::from(there)),
            terminated: false,
            truncated: self.steps >= EPISODE_STEPS,
            fault: None,
        }
    }

    /// For pictures and for `tenon-train bench env`.
    fn world(&self) -> Option<&Simulation> {
        Some(&self.simulation)
    }

    fn save_state(&self, bytes: &mut Vec<u8>) {
        let mut state = vec![0.0; self.simulation.state_len()];
        self.simulation.save_state(&mut state);
        let mut writer = StateWriter::new(bytes);
        writer.u64(self.steps as u64);
        writer.f64s(&state);
    }

    fn restore_state(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let mut reader = StateReader::new("a push", bytes);
        let steps = reader.u64()?;
        let mut state = vec![0.0; self.simulation.state_len()];
        reader.f64s(&mut state)?;
        reader.finish()?;
        self.simulation.restore_state(&state)?;
        self.steps = steps as usize;
        Ok(())
    }
}

fn main() -> Result<(), SimError> {
    let model = Model::from_mjcf(MJCF)?;
    let environments = (0..8).map(|_| Push::new(&model)).collect();
    let options = BatchOptions { threads: 2, chunk_steps: 4, auto_reset: true, seed: 1 };
    let mut batch = BatchEnv::new(environments, options)?;
    batch.reset();
    let mut reward = 0.0;
    for _ in 0..EPISODE_STEPS / 4 {
        // A spring to the mark, the same push for the four steps of a chunk.
        let push = |seen: &[f64]| (2.0 * (MARK_M - seen[0]) - 0.8 * seen[1]).clamp(-1.0, 1.0);
        let actions: Vec<f64> = batch.observations().chunks_exact(2).flat_map(|seen| [push(seen); 4]).collect();
        batch.step_chunk(&actions)?;
        reward += batch.outcomes().iter().map(|outcome| outcome.reward).sum::<f64>();
    }
    println!(
        "{:.1} of {EPISODE_STEPS} steps at the mark, mean of {} episodes",
        reward / batch.len() as f64,
        batch.len()
    );
    Ok(())
}
