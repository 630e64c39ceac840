//! How fast a task steps beside its physics alone.

use std::time::Instant;

use rand::Rng;
use tenon_core::noise::SeededNoise;

use super::{PHYSICS_STEPS, RobomimicEnv, RobomimicOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals};
use crate::batch::Environment;
use crate::error::SimError;
use crate::mujoco::Simulation;

/// Control steps a second of one environment on one thread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RobomimicSpeed {
    pub task: RobomimicTask,
    /// With controller, observation and reward.
    pub task_steps_s: f64,
    /// 25 physics steps from the same states with the same inputs.
    pub physics_steps_s: f64,
}

/// Steps an environment with random actions, and a second world beside it by physics alone: from the same state, with the
/// same inputs in every physics step, which a second run of the control step (not timed) takes down.
///
/// # Errors
/// As [`RobomimicScene::new`].
pub fn measure_speed(task: RobomimicTask, control_steps: usize) -> Result<RobomimicSpeed, SimError> {
    let scene = RobomimicScene::new(task, SceneSizes::reference(task), Visuals::Without)?;
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions { episode_steps: Some(usize::MAX) });
    let mut beside = Simulation::new(scene.model());
    let mut state = vec![0.0; beside.state_len()];
    let mut observation = vec![0.0; task.observation_dim()];
    let mut action = vec![0.0; task.action_dim()];
    let mut noise = SeededNoise::new(0, 0);
    env.reset(0, &mut observation);
    let mut inputs = vec![0.0; PHYSICS_STEPS * scene.model().control_dim()];
    let (mut task_s, mut physics_s) = (0.0, 0.0);
    for step in 0..control_steps {
        // A few steps in one direction, as a chunk of a policy has it.
        if step % 8 == 0 {
            action.fill_with(|| noise.rng().random_range(-0.5..=0.5));
        }
        env.simulation.save_state(&mut state);
        let controls = env.controls.clone();
        for (physics_step, inputs) in inputs.chunks_exact_mut(scene.model().control_dim()).enumerate() {
            env.physics_step(&action, physics_step == 0);
            inputs.copy_from_slice(env.simulation.ctrl());
        }
        env.simulation.restore_state(&state)?;
        env.controls = controls;
        let begun = Instant::now();
        env.step(&action, &mut observation);
        task_s += begun.elapsed().as_secs_f64();
        beside.restore_state(&state)?;
        let begun = Instant::now();
        for inputs in inputs.chunks_exact(scene.model().control_dim()) {
            beside.ctrl_mut().copy_from_slice(inputs);
            beside.step();
        }
        physics_s += begun.elapsed().as_secs_f64();
    }
    let rate = |seconds: f64| control_steps as f64 / seconds;
    Ok(RobomimicSpeed { task, task_steps_s: rate(task_s), physics_steps_s: rate(physics_s) })
}
