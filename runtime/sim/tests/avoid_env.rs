//! What the Avoid environment promises to a trainer.

use tenon_core::avoid::{
    ACTION_DIM, CHUNK_STEPS, COMMANDED_HEIGHT_M, EPISODE_STEPS, Mode, OBSERVATION_DIM, PENALTY, START_TCP_M,
    TCP_FROM_HAND_M, chunk_succeeds,
};
use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{BatchEnv, BatchOptions, Environment, EnvironmentFault, episode_seed};
use tenon_sim::panda::{TCP_SITE, forward_kinematics, tool_jacobian};

fn scene() -> AvoidScene {
    AvoidScene::new().unwrap()
}

/// Actions that wander forwards, different for each environment and step; some paths hit obstacles.
fn action(environment: usize, step: usize) -> [f64; ACTION_DIM] {
    let phase = environment as f64 * 1.7 + step as f64 * 0.21;
    [0.008 * phase.sin(), 0.006 + 0.003 * (0.5 * phase).cos()]
}

/// Steps `environment` towards points one after the other, at most `speed_m` a control step.
fn drive(env: &mut AvoidEnv, points_m: &[[f64; 2]], speed_m: f64) {
    for point in points_m {
        for _ in 0..EPISODE_STEPS {
            let [x, y] = env.commanded_xy_m();
            let (dx, dy) = (point[0] - x, point[1] - y);
            let distance = dx.hypot(dy);
            let scale = (speed_m / distance.max(1e-12)).min(1.0);
            env.step_setpoint([x + scale * dx, y + scale * dy, COMMANDED_HEIGHT_M]).unwrap();
            if distance <= speed_m {
                break;
            }
        }
    }
}

#[test]
fn reset_stands_at_the_start_with_commanded_equal_to_measured() {
    let mut env = AvoidEnv::new(&scene());
    let mut observation = [0.0; OBSERVATION_DIM];
    env.step_setpoint([0.5, -0.2, 0.12]).unwrap();
    env.reset(7, &mut observation);
    assert_eq!(observation[..2], observation[2..]);
    for (measured, expected) in env.tcp_position_m().into_iter().zip(START_TCP_M) {
        assert!((measured - expected).abs() < 1e-4);
    }
    assert!(!env.rod_touched());
    assert_eq!((env.mode_bits().bits(), env.steps()), (0, 0));
}

#[test]
fn closed_form_kinematics_equal_mujoco_and_finite_differences() {
    let scene = scene();
    let mut simulation = tenon_sim::mujoco::Simulation::new(scene.model());
    let site = scene.model().site(TCP_SITE).unwrap();
    let q = [0.3, -0.5, 0.7, -1.9, 0.4, 2.1, -0.6];
    simulation.qpos_mut().copy_from_slice(&q);
    simulation.forward();
    let pose = forward_kinematics(&q, TCP_FROM_HAND_M);
    let site = simulation.site_pose(site);
    for axis in 0..3 {
        assert!((pose.position_m[axis] - site.position_m[axis]).abs() < 1e-14);
        for column in 0..3 {
            let difference = pose.rotation[(axis, column)] - site.rotation[3 * axis + column];
            assert!(difference.abs() < 1e-14);
        }
    }
    let J = tool_jacobian(&pose);
    let step = 1e-6;
    for joint in 0..7 {
        let (mut plus, mut minus) = (q, q);
        plus[joint] += step;
        minus[joint] -= step;
        let (plus, minus) = (forward_kinematics(&plus, TCP_FROM_HAND_M), forward_kinematics(&minus, TCP_FROM_HAND_M));
        let linear = (plus.position_m - minus.position_m) / (2.0 * step);
        let turn = (plus.rotation - minus.rotation) / (2.0 * step) * pose.rotation.transpose();
        let angular = [turn[(2, 1)], turn[(0, 2)], turn[(1, 0)]];
        for axis in 0..3 {
            assert!((J[(axis, joint)] - linear[axis]).abs() < 1e-8);
            assert!((J[(3 + axis, joint)] - angular[axis]).abs() < 1e-8);
        }
    }
}

#[test]
fn observation_and_reward_are_those_before_the_action() {
    let mut env = AvoidEnv::new(&scene());
    let mut first = [0.0; OBSERVATION_DIM];
    env.reset(0, &mut first);
    let mut returned = [0.0; OBSERVATION_DIM];
    env.step(&[0.005, 0.01], &mut returned);
    assert_eq!(returned, first, "the first step repeats the reset's observation");
    for step in 0..20 {
        let before = env.observation();
        let reward_before = env.state_reward();
        let outcome = env.step(&action(0, step), &mut returned);
        assert_eq!(returned, before);
        assert_eq!(outcome.reward, reward_before);
        assert_ne!(env.observation(), before);
        let expected = [before[0] + action(0, step)[0], before[1] + action(0, step)[1]];
        assert_eq!(env.commanded_xy_m(), expected);
    }
}

#[test]
fn chunk_sums_rewards_and_returns_the_last_observation() {
    let scene = scene();
    let (mut whole, mut single) = (AvoidEnv::new(&scene), AvoidEnv::new(&scene));
    let (mut a, mut b) = ([0.0; OBSERVATION_DIM], [0.0; OBSERVATION_DIM]);
    drive(&mut whole, &[[0.525, -0.2]], 0.01);
    drive(&mut single, &[[0.525, -0.2]], 0.01);
    let actions: Vec<f64> = (0..CHUNK_STEPS).flat_map(|step| action(1, step)).collect();
    let chunk = whole.step_chunk(&actions, &mut a);
    let mut sum = 0.0;
    for action in actions.chunks_exact(ACTION_DIM) {
        sum += single.step(action, &mut b).reward;
    }
    assert_eq!((chunk.steps, chunk.reward), (CHUNK_STEPS, sum));
    assert_eq!(a, b);
}

#[test]
fn episode_is_truncated_after_a_hundred_steps_and_never_terminated() {
    let mut env = AvoidEnv::new(&scene());
    let mut observation = [0.0; OBSERVATION_DIM];
    env.reset(0, &mut observation);
    for step in 1..=EPISODE_STEPS {
        let outcome = env.step(&[0.0, 0.0], &mut observation);
        assert!(!outcome.terminated);
        assert_eq!(outcome.truncated, step == EPISODE_STEPS);
    }
}

#[test]
fn touching_an_obstacle_costs_for_the_rest_of_the_episode() {
    let mut env = AvoidEnv::new(&scene());
    let mut observation = [0.0; OBSERVATION_DIM];
    drive(&mut env, &[[0.5, -0.15]], 0.01);
    assert!(!env.rod_touched());
    drive(&mut env, &[[0.5, -0.08]], 0.01);
    assert!(env.rod_touched());
    drive(&mut env, &[[0.5, -0.25]], 0.01);
    for _ in 0..10 {
        assert_eq!(env.step(&[0.0, 0.0], &mut observation).reward, PENALTY);
    }
    env.reset(0, &mut observation);
    assert_eq!(env.step(&[0.0, 0.0], &mut observation).reward, 0.0);
}

#[test]
fn resting_on_the_table_is_no_collision() {
    let mut env = AvoidEnv::new(&scene());
    for _ in 0..60 {
        env.step_setpoint([0.5, -0.25, 0.09]).unwrap();
    }
    let height_m = env.tcp_position_m()[2];
    assert!((0.0985..0.1035).contains(&height_m), "the table holds the rod: {height_m}");
    assert!(!env.rod_touched());
}

#[test]
fn driven_path_sets_its_mode_bits_and_succeeds() {
    let mut env = AvoidEnv::new(&scene());
    let mut observation = [0.0; OBSERVATION_DIM];
    let path = [[0.6, -0.15], [0.6, -0.05], [0.32, 0.05], [0.28, 0.12], [0.28, 0.3], [0.28, 0.43]];
    drive(&mut env, &path, 0.011);
    assert!(!env.rod_touched());
    let mode = Mode { gap_l1: 1, gap_l2: 0, gap_l3: 0 };
    assert_eq!(env.mode_bits(), mode.bits());
    drive(&mut env, &[[0.28, 0.43]; 5], 0.011);
    let chunk = env.step_chunk(&[0.0; CHUNK_STEPS * ACTION_DIM], &mut observation);
    assert!(chunk_succeeds(chunk.reward, chunk.steps), "{chunk:?} at {:?}", env.tcp_position_m());
}

#[test]
fn non_finite_action_ends_the_episode_with_its_cause() {
    let mut env = AvoidEnv::new(&scene());
    let mut observation = [0.0; OBSERVATION_DIM];
    env.reset(0, &mut observation);
    for bad in [f64::NAN, f64::INFINITY] {
        let outcome = env.step(&[0.0, bad], &mut observation);
        assert!(outcome.terminated && !outcome.truncated);
        assert_eq!(outcome.fault, Some(EnvironmentFault::NonFiniteAction));
        assert!(observation.iter().all(|value| value.is_finite()));
    }
    assert_eq!(env.steps(), 0, "nothing was executed");
    env.step(&[1e300, 0.0], &mut observation);
    let huge = env.step(&[1e300, 0.0], &mut observation);
    assert!(observation.iter().all(|value| value.is_finite()) && !huge.reward.is_nan());
}

#[test]
fn two_runs_are_bit_identical() {
    let scene = scene();
    let run = || -> Vec<u64> {
        let mut env = AvoidEnv::new(&scene);
        let mut observation = [0.0; OBSERVATION_DIM];
        let mut bits = Vec::new();
        for step in 0..EPISODE_STEPS {
            env.step(&action(3, step), &mut observation);
            bits.extend(env.tcp_position_m().map(f64::to_bits));
        }
        bits
    };
    assert_eq!(run(), run());
}

#[test]
fn restored_environment_continues_bit_identically() {
    let scene = scene();
    let mut env = AvoidEnv::new(&scene);
    let mut observation = [0.0; OBSERVATION_DIM];
    // In contact with an obstacle, so that the solver's warm start matters.
    drive(&mut env, &[[0.5, -0.1]], 0.01);
    assert!(env.rod_touched());
    let mut saved = Vec::new();
    env.save_state(&mut saved);
    let mut copy = AvoidEnv::new(&scene);
    copy.restore_state(&saved).unwrap();
    let mut copied = [0.0; OBSERVATION_DIM];
    for step in 0..40 {
        let expected = env.step(&action(2, step), &mut observation);
        assert_eq!(copy.step(&action(2, step), &mut copied), expected);
        assert_eq!(copied.map(f64::to_bits), observation.map(f64::to_bits));
        assert_eq!(copy.tcp_position_m().map(f64::to_bits), env.tcp_position_m().map(f64::to_bits));
    }
    assert_eq!((copy.mode_bits(), copy.steps()), (env.mode_bits(), env.steps()));
}

#[test]
fn damaged_states_are_refused() {
    let scene = scene();
    let mut env = AvoidEnv::new(&scene);
    let mut saved = Vec::new();
    env.save_state(&mut saved);
    for len in [0, 7, saved.len() - 1] {
        let refused = env.restore_state(&saved[..len]);
        assert!(matches!(refused, Err(SimError::SavedState { .. })));
    }
    let mut longer = saved.clone();
    longer.push(0);
    assert!(env.restore_state(&longer).is_err());
    let mut other = saved.clone();
    other[0] = 99;
    assert!(env.restore_state(&other).is_err());
    env.restore_state(&saved).unwrap();
}

fn batch(threads: usize, auto_reset: bool) -> BatchEnv<AvoidEnv> {
    let scene = scene();
    let environments = (0..7).map(|_| AvoidEnv::new(&scene)).collect();
    let options = BatchOptions { threads, chunk_steps: CHUNK_STEPS, auto_reset, seed: 11 };
    let mut batch = BatchEnv::new(environments, options).unwrap();
    batch.reset();
    batch
}

fn batch_actions(count: usize, chunk: usize) -> Vec<f64> {
    (0..count).flat_map(|env| (0..CHUNK_STEPS).flat_map(move |step| action(env, chunk * CHUNK_STEPS + step))).collect()
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let (mut one, mut two) = (batch(1, false), batch(2, false));
    for chunk in 0..15 {
        let actions = batch_actions(one.len(), chunk);
        one.step_chunk(&actions).unwrap();
        two.step_chunk(&actions).unwrap();
        assert_eq!(one.observations(), two.observations());
        assert_eq!(one.outcomes(), two.outcomes());
    }
}

#[test]
fn restored_batch_continues_bit_identically_with_another_thread_count() {
    let mut first = batch(1, true);
    for chunk in 0..20 {
        first.step_chunk(&batch_actions(first.len(), chunk)).unwrap();
    }
    let mut saved = Vec::new();
    first.save_state(&mut saved);
    let mut second = batch(2, true);
    second.restore_state(&saved).unwrap();
    assert_eq!(first.observations(), second.observations());
    for chunk in 20..30 {
        let actions = batch_actions(first.len(), chunk);
        first.step_chunk(&actions).unwrap();
        second.step_chunk(&actions).unwrap();
        assert_eq!(first.observations(), second.observations());
        assert_eq!(first.final_observations(), second.final_observations());
        assert_eq!(first.outcomes(), second.outcomes());
    }
    assert!(second.restore_state(&saved[..saved.len() / 2]).is_err());
}

#[test]
fn ended_environments_wait_without_auto_reset() {
    let mut batch = batch(1, false);
    let zeros = vec![0.0; batch.len() * CHUNK_STEPS * ACTION_DIM];
    for chunk in 1..=EPISODE_STEPS / CHUNK_STEPS {
        batch.step_chunk(&zeros).unwrap();
        let last = chunk == EPISODE_STEPS / CHUNK_STEPS;
        assert!(batch.outcomes().iter().all(|o| o.truncated == last && o.steps == CHUNK_STEPS));
    }
    assert_eq!(batch.observations(), batch.final_observations());
    batch.step_chunk(&zeros).unwrap();
    assert!(batch.outcomes().iter().all(|o| o.truncated && o.steps == 0 && o.reward == 0.0));
    batch.reset();
    batch.step_chunk(&zeros).unwrap();
    assert!(batch.outcomes().iter().all(|o| !o.ended() && o.steps == CHUNK_STEPS));
}

#[test]
fn auto_reset_keeps_the_final_observation_apart() {
    let mut batch = batch(2, true);
    let start = batch.observations().to_vec();
    for chunk in 0..EPISODE_STEPS / CHUNK_STEPS {
        batch.step_chunk(&batch_actions(batch.len(), chunk)).unwrap();
    }
    assert!(batch.outcomes().iter().all(|o| o.truncated));
    assert_eq!(batch.observations(), start);
    assert_ne!(batch.final_observations(), start);
}

#[test]
fn a_nan_in_one_environment_is_counted_and_leaves_the_others_alone() {
    let (mut sound, mut hit) = (batch(2, false), batch(2, false));
    let actions = batch_actions(sound.len(), 0);
    let mut with_nan = actions.clone();
    // The second step of environment 3.
    with_nan[3 * CHUNK_STEPS * ACTION_DIM + ACTION_DIM] = f64::NAN;
    sound.step_chunk(&actions).unwrap();
    hit.step_chunk(&with_nan).unwrap();
    for index in 0..sound.len() {
        let own = index * OBSERVATION_DIM..(index + 1) * OBSERVATION_DIM;
        if index == 3 {
            let outcome = hit.outcomes()[index];
            assert_eq!(outcome.fault, Some(EnvironmentFault::NonFiniteAction));
            assert_eq!((outcome.terminated, outcome.steps), (true, 2));
        } else {
            assert_eq!(sound.observations()[own.clone()], hit.observations()[own]);
        }
    }
    assert!(hit.observations().iter().all(|value| value.is_finite()));
    assert_eq!(hit.fault_counts().non_finite_action, 1);
    assert_eq!(hit.fault_counts().total(), 1);
    assert_eq!(sound.fault_counts().total(), 0);
}

#[test]
fn episode_seeds_differ_between_runs_environments_and_episodes() {
    let mut seen = std::collections::HashSet::new();
    for run in 0..5 {
        for environment in 0..20 {
            for episode in 0..20 {
                assert!(seen.insert(episode_seed(run, environment, episode)));
            }
        }
    }
}

#[test]
fn wrong_shapes_and_options_are_errors() {
    let mut batch = batch(1, false);
    assert!(matches!(batch.step_chunk(&[0.0; 3]), Err(SimError::ActionShape { .. })));
    let options = BatchOptions { threads: 0, chunk_steps: 4, auto_reset: false, seed: 0 };
    let none: Vec<AvoidEnv> = Vec::new();
    assert!(BatchEnv::new(none, options).is_err());
    assert!(BatchEnv::new(vec![AvoidEnv::new(&scene())], options).is_err());
}
