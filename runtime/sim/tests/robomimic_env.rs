//! The Robomimic environments as a trainer uses them.

mod robomimic_data;

use rand::Rng;
use robomimic_data::{reference_scene, scenes_are_there};
use tenon_core::noise::SeededNoise;
use tenon_sim::batch::{BatchEnv, BatchOptions, Environment, EnvironmentFault};
use tenon_sim::mujoco::Simulation;
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals};
use tenon_sim::speed::{Physics, Rows, Trace};

fn environment(task: RobomimicTask) -> RobomimicEnv {
    RobomimicEnv::new(&reference_scene(task, Visuals::Without), RobomimicOptions::default())
}

fn random_actions(len: usize, seed: u64) -> Vec<f64> {
    let mut noise = SeededNoise::new(seed, 0);
    (0..len).map(|_| noise.rng().random_range(-1.0..=1.0)).collect()
}

#[test]
fn a_seed_gives_its_episode_again_and_another_seed_another() {
    if !scenes_are_there() {
        return;
    }
    for task in RobomimicTask::ALL {
        let mut env = environment(task);
        let actions = random_actions(5 * task.action_dim(), 1);
        let mut run = |seed| {
            let mut observation = vec![0.0; task.observation_dim()];
            env.reset(seed, &mut observation);
            let first = observation.clone();
            env.step_chunk(&actions, &mut observation);
            (first, observation)
        };
        let before = run(3);
        assert_ne!(run(4), before, "{task}");
        assert_eq!(run(3), before, "{task}");
    }
}

#[test]
fn a_batch_runs_alike_on_one_thread_and_on_two() {
    if !scenes_are_there() {
        return;
    }
    for task in [RobomimicTask::Lift, RobomimicTask::Transport] {
        let run = |threads| {
            let scenes = RobomimicScene::for_environments(task, 3, 5).unwrap();
            // So short that episodes end and begin within the run.
            let options = RobomimicOptions { episode_steps: Some(6) };
            let environments = scenes.iter().map(|scene| RobomimicEnv::new(scene, options)).collect();
            let chunk_steps = 4;
            let options = BatchOptions { threads, chunk_steps, auto_reset: true, seed: 9 };
            let mut batch = BatchEnv::new(environments, options).unwrap();
            batch.reset();
            let mut seen = Vec::new();
            for chunk in 0..4 {
                batch.step_chunk(&random_actions(3 * chunk_steps * task.action_dim(), chunk)).unwrap();
                seen.extend_from_slice(batch.observations());
                seen.extend(batch.outcomes().iter().map(|outcome| outcome.reward));
            }
            seen
        };
        assert_eq!(run(1), run(2), "{task}");
    }
}

#[test]
fn scenes_of_a_batch_have_sizes_of_their_own_that_follow_from_the_seed() {
    if !scenes_are_there() {
        return;
    }
    let sizes = |count, seed| -> Vec<SceneSizes> {
        let scenes = RobomimicScene::for_environments(RobomimicTask::Lift, count, seed).unwrap();
        scenes.iter().map(RobomimicScene::sizes).collect()
    };
    let three = sizes(3, 5);
    assert!(three[0] != three[1] && three[1] != three[2]);
    assert_eq!(sizes(2, 5), three[..2]);
    assert_ne!(sizes(1, 6), three[..1]);
}

#[test]
fn a_saved_environment_goes_on_to_the_bit() {
    if !scenes_are_there() {
        return;
    }
    for task in RobomimicTask::ALL {
        let (mut env, mut other) = (environment(task), environment(task));
        let dim = task.observation_dim();
        let (mut a, mut b) = (vec![0.0; dim], vec![0.0; dim]);
        env.reset(1, &mut a);
        env.step_chunk(&random_actions(30 * task.action_dim(), 2), &mut a);
        let mut bytes = Vec::new();
        env.save_state(&mut bytes);
        // The other one has been elsewhere.
        other.reset(8, &mut b);
        other.step_chunk(&random_actions(7 * task.action_dim(), 3), &mut b);
        other.restore_state(&bytes).unwrap();
        assert_eq!(env.observation(), other.observation());
        let mut actions = random_actions(30 * task.action_dim(), 4);
        // Without rotation the goal of before the save goes on to hold.
        actions[3..6].fill(0.0);
        for action in actions.chunks_exact(task.action_dim()) {
            let outcomes = [env.step(action, &mut a), other.step(action, &mut b)];
            assert_eq!(outcomes[0], outcomes[1], "{task}");
            assert_eq!(a, b, "{task}");
            assert_eq!(env.qpos(), other.qpos(), "{task}");
        }
        assert_eq!(env.steps(), 60);
    }
}

#[test]
fn a_state_of_another_task_size_or_length_is_refused() {
    if !scenes_are_there() {
        return;
    }
    let mut lift = environment(RobomimicTask::Lift);
    let mut refused = |bytes: &[u8], word: &str| {
        let message = lift.restore_state(bytes).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    let saved = |env: &RobomimicEnv| {
        let mut bytes = Vec::new();
        env.save_state(&mut bytes);
        bytes
    };
    refused(&saved(&environment(RobomimicTask::Square)), "the task is square, here lift");
    let sizes = SceneSizes::drawn(RobomimicTask::Lift, 1);
    let other = RobomimicScene::new(RobomimicTask::Lift, sizes, Visuals::Without).unwrap();
    refused(&saved(&RobomimicEnv::new(&other, RobomimicOptions::default())), "built with sizes");
    let short = RobomimicOptions { episode_steps: Some(7) };
    let scene = reference_scene(RobomimicTask::Lift, Visuals::Without);
    refused(&saved(&RobomimicEnv::new(&scene, short)), "episodes of 7 steps");
    let whole = saved(&environment(RobomimicTask::Lift));
    refused(&whole[..whole.len() - 1], "");
    assert!(environment(RobomimicTask::Lift).restore_state(&whole).is_ok());
}

#[test]
fn episodes_end_by_their_length_alone() {
    if !scenes_are_there() {
        return;
    }
    let scene = reference_scene(RobomimicTask::Lift, Visuals::Without);
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
    let mut observation = vec![0.0; 19];
    env.reset(0, &mut observation);
    for step in 1..=300 {
        let outcome = env.step(&[0.0; 7], &mut observation);
        assert!(!outcome.terminated && outcome.truncated == (step == 300), "{step}");
    }
}

#[test]
fn an_action_that_is_no_number_is_a_fault_and_moves_nothing() {
    if !scenes_are_there() {
        return;
    }
    for task in [RobomimicTask::Lift, RobomimicTask::Transport] {
        let mut env = environment(task);
        let mut observation = vec![0.0; task.observation_dim()];
        env.reset(0, &mut observation);
        let (seen, qpos) = (observation.clone(), env.qpos().to_vec());
        for bad in [f64::NAN, f64::INFINITY] {
            let mut action = vec![0.0; task.action_dim()];
            *action.last_mut().unwrap() = bad;
            let outcome = env.step(&action, &mut observation);
            assert_eq!(outcome.fault, Some(EnvironmentFault::NonFiniteAction));
            assert!(outcome.terminated && env.qpos() == qpos && observation == seen);
        }
    }
}

#[test]
fn a_world_that_is_no_number_is_a_fault_and_the_next_episode_is_sound() {
    if !scenes_are_there() {
        return;
    }
    for (task, position) in [(RobomimicTask::Lift, 2), (RobomimicTask::Lift, 10), (RobomimicTask::Can, 33)] {
        let mut env = environment(task);
        let mut observation = vec![0.0; task.observation_dim()];
        env.reset(0, &mut observation);
        let sound = observation.clone();
        let mut qpos = env.qpos().to_vec();
        qpos[position] = f64::NAN;
        env.start_at(&qpos, &vec![0.0; env.qvel().len()]);
        let outcome = env.step(&vec![0.0; task.action_dim()], &mut observation);
        assert_eq!(outcome.fault, Some(EnvironmentFault::UnstableState), "{task}");
        env.reset(0, &mut observation);
        assert_eq!(observation, sound);
        assert_eq!(env.step(&vec![0.0; task.action_dim()], &mut observation).fault, None);
    }
}

/// The arm goes where it is told: a twentieth of a metre in each step with a full action, less what it lags behind.
#[test]
fn the_grip_site_follows_its_goal_and_holds_without_one() {
    if !scenes_are_there() {
        return;
    }
    let mut env = environment(RobomimicTask::Lift);
    let mut observation = vec![0.0; 19];
    env.reset(0, &mut observation);
    let start = [observation[0], observation[1], observation[2]];
    for _ in 0..20 {
        env.step(&[0.0, 0.0, 0.5, 0.0, 0.0, 0.0, -1.0], &mut observation);
    }
    let risen = observation[2] - start[2];
    assert!((0.1..0.5).contains(&risen), "{risen}");
    assert!(observation[7] > 0.035 && observation[8] < -0.035, "the fingers open: {:?}", &observation[7..9]);
    for _ in 0..20 {
        env.step(&[0.0; 7], &mut observation);
    }
    let held = observation[2];
    for _ in 0..20 {
        env.step(&[0.0; 7], &mut observation);
    }
    assert!((observation[2] - held).abs() < 2e-3);
}

/// The physics of the environments, repeated with the torques that their controllers gave, goes the same way: what a control step costs
/// beyond it is the controller's, the observation's and the reward's.
#[test]
fn a_recorded_trace_repeats_what_the_environments_did() {
    if !scenes_are_there() {
        return;
    }
    let rows = Rows { count: 2, steps: 4, chunk_steps: 4, action_bound: 0.5, seed: 7 };
    for task in RobomimicTask::ALL {
        let mut recorded = environment(task);
        let trace = Trace::record(&mut recorded, rows).unwrap();
        assert_eq!(trace.frame_skip(), 25);
        let end = recorded.world().unwrap();
        let mut physics = Physics::new(trace, vec![Simulation::new(end.model())]).unwrap();
        physics.run().unwrap();
        assert_eq!(physics.last_positions(), end.qpos(), "{task}");
    }
}

/// What is drawn stands where the observation says, which is 2 ms before where the joints are; a restored environment draws the same.
#[test]
fn what_is_drawn_is_what_was_observed() {
    if !scenes_are_there() {
        return;
    }
    let mut env = environment(RobomimicTask::Lift);
    let mut observation = vec![0.0; env.observation_dim()];
    env.reset(3, &mut observation);
    for action in random_actions(8 * 7, 2).chunks_exact(7) {
        env.step(action, &mut observation);
    }
    let grip = |env: &mut RobomimicEnv| {
        let drawn = env.world_to_draw().unwrap();
        let site = drawn.model().site("gripper0_grip_site").unwrap();
        drawn.site_pose(site).position_m
    };
    let drawn = grip(&mut env);
    assert!(drawn.iter().zip(&observation).all(|(drawn, seen)| (drawn - seen).abs() < 1e-12), "{drawn:?}");
    let mut bytes = Vec::new();
    env.save_state(&mut bytes);
    let mut other = environment(RobomimicTask::Lift);
    other.restore_state(&bytes).unwrap();
    assert_eq!(grip(&mut other), drawn);
}
