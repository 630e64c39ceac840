//! What the Gym environments promise to a trainer.

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_sim::SimError;
use tenon_sim::batch::{BatchEnv, BatchOptions, Environment, EnvironmentFault, StepOutcome, episode_seed};
use tenon_sim::gym::{CHUNK_STEPS, GymEnv, GymOptions, GymScene, GymTask, GymVersion};
use tenon_sim::mujoco::Simulation;
use tenon_sim::speed::{Physics, Rows, Stepping, Trace};

fn env(task: GymTask, options: GymOptions) -> GymEnv {
    GymEnv::new(&GymScene::new(task).unwrap(), options)
}

/// Actions for a batch: `[environments, CHUNK_STEPS, action_dim]`, the same for the same `chunk`.
fn actions(task: GymTask, environments: usize, chunk: usize) -> Vec<f64> {
    let mut noise = SeededNoise::new(5, chunk as u64);
    (0..environments * CHUNK_STEPS * task.action_dim()).map(|_| noise.rng().random_range(-1.0..=1.0)).collect()
}

fn batch(task: GymTask, threads: usize, options: GymOptions) -> BatchEnv<GymEnv> {
    let scene = GymScene::new(task).unwrap();
    let environments = (0..5).map(|_| GymEnv::new(&scene, options)).collect();
    let options = BatchOptions { threads, chunk_steps: CHUNK_STEPS, auto_reset: true, seed: 3 };
    let mut batch = BatchEnv::new(environments, options).unwrap();
    batch.reset();
    batch
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Steps a fresh episode with full torque until it ends; all outcomes.
fn fall(env: &mut GymEnv, seed: u64) -> Vec<StepOutcome> {
    let mut observation = vec![0.0; env.observation_dim()];
    env.reset(seed, &mut observation);
    let action = vec![1.0; env.action_dim()];
    let mut outcomes = Vec::new();
    while outcomes.last().is_none_or(|outcome: &StepOutcome| !outcome.ended()) {
        outcomes.push(env.step(&action, &mut observation));
    }
    outcomes
}

#[test]
fn start_noise_follows_the_seed_and_keeps_its_bounds() {
    for task in GymTask::ALL {
        let mut env = env(task, GymOptions::default());
        let initial = env.qpos().to_vec();
        let mut observation = vec![0.0; env.observation_dim()];
        let (position_bound, velocity_std) = match task {
            GymTask::HALF_CHEETAH => (0.1, 0.1),
            // Uniform on ±0.005.
            _ => (0.005, 0.005 / 3f64.sqrt()),
        };
        let (mut seen, mut largest, mut squares, mut count) = (std::collections::HashSet::new(), 0f64, 0.0, 0);
        for seed in 0..300 {
            env.reset(seed, &mut observation);
            let (first, velocities) = (observation.clone(), env.qvel().to_vec());
            assert!(seen.insert(bits(&first)), "{task}: two seeds, one start");
            largest = env.qpos().iter().zip(&initial).map(|(q, q0)| (q - q0).abs()).fold(largest, f64::max);
            squares += velocities.iter().map(|v| v * v).sum::<f64>();
            count += velocities.len();
            env.step(&vec![0.5; task.action_dim()], &mut observation);
            env.reset(seed, &mut observation);
            assert_eq!(bits(&observation), bits(&first), "{task}: one seed, two starts");
        }
        assert!(largest <= position_bound && largest > 0.95 * position_bound, "{task}: {largest}");
        let std = (squares / count as f64).sqrt();
        assert!((std / velocity_std - 1.0).abs() < 0.05, "{task}: {std}");
    }
}

#[test]
fn falling_terminates_and_a_cheetah_never_falls() {
    for task in [GymTask::HOPPER, GymTask::WALKER2D] {
        let mut env = env(task, GymOptions::default());
        let outcomes = fall(&mut env, 1);
        assert!(outcomes.len() < 1000 && !env.is_healthy());
        assert_eq!(env.steps(), outcomes.len());
        let last = outcomes.last().unwrap();
        assert!(last.terminated && !last.truncated && last.fault.is_none());
    }
    let outcomes = fall(&mut env(GymTask::HALF_CHEETAH, GymOptions::default()), 1);
    assert_eq!(outcomes.len(), 1000);
    let last = outcomes.last().unwrap();
    assert!(last.truncated && !last.terminated);
}

#[test]
fn a_fall_on_the_last_step_is_a_termination() {
    let steps = fall(&mut env(GymTask::HOPPER, GymOptions::default()), 1).len();
    for (episode_steps, terminated) in [(steps, true), (steps - 1, false)] {
        let mut env = env(GymTask::HOPPER, GymOptions { episode_steps, ..GymOptions::default() });
        let outcomes = fall(&mut env, 1);
        let last = outcomes.last().unwrap();
        assert_eq!(outcomes.len(), episode_steps);
        assert_eq!((last.terminated, last.truncated), (terminated, !terminated));
    }
}

#[test]
fn version_5_pays_no_bonus_for_the_fall() {
    let newer = GymTask { version: GymVersion::V5, ..GymTask::HOPPER };
    let old = fall(&mut env(GymTask::HOPPER, GymOptions::default()), 1);
    let new = fall(&mut env(newer, GymOptions::default()), 1);
    assert_eq!(old[..old.len() - 1], new[..new.len() - 1]);
    let (old, new) = (old.last().unwrap().reward, new.last().unwrap().reward);
    assert!((old - new - 1.0).abs() < 1e-12, "{old} {new}");
}

#[test]
fn clipping_changes_the_cost_and_not_the_motion() {
    let task = GymTask::HALF_CHEETAH;
    let mut clipped = env(task, GymOptions::default());
    let mut free = env(task, GymOptions { clip_actions: false, ..GymOptions::default() });
    let (mut a, mut b) = (vec![0.0; task.observation_dim()], vec![0.0; task.observation_dim()]);
    clipped.reset(0, &mut a);
    free.reset(0, &mut b);
    let action = [2.0, -3.0, 0.5, 1.0, -1.0, 0.0];
    let (x, y) = (clipped.step(&action, &mut a), free.step(&action, &mut b));
    assert_eq!(bits(&a), bits(&b));
    // 0.1 · ((2² − 1²) + (3² − 1²))
    assert!((x.reward - y.reward - 1.1).abs() < 1e-12);
}

#[test]
fn bad_actions_and_unstable_worlds_end_the_episode_with_their_cause() {
    for task in GymTask::ALL {
        let mut env = env(task, GymOptions { clip_actions: false, ..GymOptions::default() });
        let mut observation = vec![0.0; task.observation_dim()];
        env.reset(0, &mut observation);
        let start = observation.clone();
        for bad in [f64::NAN, f64::INFINITY, 1e200] {
            let mut action = vec![0.0; task.action_dim()];
            action[1] = bad;
            let outcome = env.step(&action, &mut observation);
            assert_eq!(outcome, StepOutcome::faulted(EnvironmentFault::NonFiniteAction), "{task}, {bad}");
            assert_eq!(bits(&observation), bits(&start));
        }
        assert_eq!(env.steps(), 0, "nothing was executed");

        let (qpos, mut qvel) = (env.qpos().to_vec(), env.qvel().to_vec());
        qvel[3] = 9e9;
        env.start_at(&qpos, &qvel);
        let outcome = env.step(&vec![0.0; task.action_dim()], &mut observation);
        assert_eq!(outcome.fault, Some(EnvironmentFault::UnstableState), "{task}");
        assert!(outcome.terminated && observation.iter().all(|value| value.is_finite()));
        env.reset(0, &mut observation);
        assert_eq!(bits(&observation), bits(&start), "{task}: a reset mends it");
        assert_eq!(env.step(&vec![0.0; task.action_dim()], &mut observation).fault, None);
    }
}

#[test]
fn a_chunk_cut_short_by_a_fall_sums_what_was_executed_and_keeps_the_final_observation() {
    let task = GymTask::HOPPER;
    let mut batch = batch(task, 2, GymOptions::default());
    // The same episode by single steps, without any reset.
    let mut single = env(task, GymOptions::default());
    let mut observation = vec![0.0; task.observation_dim()];
    single.reset(episode_seed(3, 0, 0), &mut observation);
    let mut cut = 0;
    'episode: for chunk in 0.. {
        let actions = actions(task, batch.len(), chunk);
        batch.step_chunk(&actions).unwrap();
        let mut sum = 0.0;
        for (step, action) in actions.chunks_exact(task.action_dim()).take(CHUNK_STEPS).enumerate() {
            let outcome = single.step(action, &mut observation);
            sum += outcome.reward;
            if outcome.ended() {
                cut = step + 1;
                let ended = batch.outcomes()[0];
                assert_eq!((ended.reward, ended.steps), (sum, cut));
                assert!(ended.terminated && !ended.truncated);
                break 'episode;
            }
        }
        let outcome = batch.outcomes()[0];
        assert_eq!((outcome.reward, outcome.steps, outcome.ended()), (sum, CHUNK_STEPS, false));
        assert_eq!(bits(&batch.observations()[..observation.len()]), bits(&observation));
    }
    assert!((1..CHUNK_STEPS).contains(&cut), "this seed falls inside a chunk: {cut}");
    assert_eq!(bits(&batch.final_observations()[..observation.len()]), bits(&observation));
    // What the policy sees next is the start of the second episode.
    single.reset(episode_seed(3, 0, 1), &mut observation);
    assert_eq!(bits(&batch.observations()[..observation.len()]), bits(&observation));
    let next = batch.environments().next().unwrap();
    assert!(next.steps() == 0 && next.is_healthy());
}

#[test]
fn a_chunk_cut_short_by_the_time_limit_is_truncated_and_keeps_the_final_observation() {
    let task = GymTask::HALF_CHEETAH;
    let options = GymOptions { episode_steps: 10, ..GymOptions::default() };
    let mut batch = batch(task, 1, options);
    let mut single = env(task, options);
    let mut observation = vec![0.0; task.observation_dim()];
    single.reset(episode_seed(3, 0, 0), &mut observation);
    for (chunk, steps) in [4, 4, 2].into_iter().enumerate() {
        let actions = actions(task, batch.len(), chunk);
        batch.step_chunk(&actions).unwrap();
        let own = &actions[..CHUNK_STEPS * task.action_dim()];
        let expected = single.step_chunk(own, &mut observation);
        assert_eq!(batch.outcomes()[0], expected);
        for outcome in batch.outcomes() {
            assert_eq!((outcome.steps, outcome.truncated, outcome.terminated), (steps, steps == 2, false));
        }
    }
    assert_eq!(bits(&batch.final_observations()[..observation.len()]), bits(&observation));
    assert_ne!(batch.final_observations(), batch.observations());
    assert!(batch.environments().all(|env| env.steps() == 0));
}

#[test]
fn one_and_two_threads_give_the_same_bits_over_many_episodes() {
    for task in GymTask::ALL {
        let options = GymOptions { episode_steps: 50, ..GymOptions::default() };
        let (mut one, mut two) = (batch(task, 1, options), batch(task, 2, options));
        let mut ended = 0;
        for chunk in 0..60 {
            let actions = actions(task, one.len(), chunk);
            one.step_chunk(&actions).unwrap();
            two.step_chunk(&actions).unwrap();
            assert_eq!(bits(one.observations()), bits(two.observations()));
            assert_eq!(bits(one.final_observations()), bits(two.final_observations()));
            assert_eq!(one.outcomes(), two.outcomes());
            ended += one.outcomes().iter().filter(|outcome| outcome.ended()).count();
        }
        assert!(ended > 10, "{task}: {ended} episodes");
    }
}

#[test]
fn a_batch_restored_in_mid_episode_continues_bit_for_bit() {
    for task in GymTask::ALL {
        let options = GymOptions { episode_steps: 90, ..GymOptions::default() };
        let mut first = batch(task, 1, options);
        for chunk in 0..7 {
            first.step_chunk(&actions(task, first.len(), chunk)).unwrap();
        }
        assert!(first.environments().any(|env| env.steps() > 0), "{task}: in the middle of episodes");
        let mut saved = Vec::new();
        first.save_state(&mut saved);
        // Another process would make new environments; here they have already gone elsewhere.
        let mut second = batch(task, 2, options);
        second.step_chunk(&actions(task, second.len(), 99)).unwrap();
        second.restore_state(&saved).unwrap();
        assert_eq!(bits(first.observations()), bits(second.observations()));
        for chunk in 7..60 {
            let actions = actions(task, first.len(), chunk);
            first.step_chunk(&actions).unwrap();
            second.step_chunk(&actions).unwrap();
            assert_eq!(bits(first.observations()), bits(second.observations()), "{task}, chunk {chunk}");
            assert_eq!(bits(first.final_observations()), bits(second.final_observations()));
            assert_eq!(first.outcomes(), second.outcomes());
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        first.save_state(&mut a);
        second.save_state(&mut b);
        assert_eq!(a, b, "{task}");
    }
}

#[test]
fn a_nan_is_counted_and_leaves_the_other_environments_alone() {
    let task = GymTask::WALKER2D;
    let (mut sound, mut hit) = (batch(task, 2, GymOptions::default()), batch(task, 2, GymOptions::default()));
    let actions = actions(task, sound.len(), 0);
    let mut with_nan = actions.clone();
    // The third step of environment 1.
    with_nan[(CHUNK_STEPS + 2) * task.action_dim()] = f64::NAN;
    sound.step_chunk(&actions).unwrap();
    hit.step_chunk(&with_nan).unwrap();
    let dim = task.observation_dim();
    for index in 0..sound.len() {
        let own = index * dim..(index + 1) * dim;
        if index == 1 {
            let outcome = hit.outcomes()[index];
            assert_eq!(outcome.fault, Some(EnvironmentFault::NonFiniteAction));
            assert_eq!((outcome.terminated, outcome.steps), (true, 3));
        } else {
            assert_eq!(bits(&sound.observations()[own.clone()]), bits(&hit.observations()[own]));
        }
    }
    assert_eq!(hit.fault_counts().non_finite_action, 1);
    assert!(hit.observations().iter().chain(hit.final_observations()).all(|value| value.is_finite()));
    hit.step_chunk(&actions).unwrap();
    assert_eq!((hit.outcomes()[1].fault, hit.fault_counts().total()), (None, 1));
}

#[test]
fn states_of_other_tasks_and_damaged_ones_are_refused() {
    let mut saved = Vec::new();
    let mut walker = env(GymTask::WALKER2D, GymOptions::default());
    walker.save_state(&mut saved);
    for len in [0, 7, 20, saved.len() - 1] {
        assert!(matches!(walker.restore_state(&saved[..len]), Err(SimError::SavedState { .. })));
    }
    let mut longer = saved.clone();
    longer.push(0);
    assert!(walker.restore_state(&longer).is_err());
    // As many values, another body.
    let mut cheetah = env(GymTask::HALF_CHEETAH, GymOptions::default());
    let message = cheetah.restore_state(&saved).unwrap_err().to_string();
    assert!(message.contains("walker2d") && message.contains("halfcheetah"), "{message}");
    let mut shorter = env(GymTask::WALKER2D, GymOptions { episode_steps: 5, ..GymOptions::default() });
    assert!(shorter.restore_state(&saved).is_err());
    walker.restore_state(&saved).unwrap();
}

#[test]
fn a_model_of_another_body_is_refused() {
    let text = std::fs::read_to_string(tenon_sim::gym::model_path(GymTask::HOPPER).unwrap()).unwrap();
    let message = GymScene::from_mjcf(GymTask::WALKER2D, &text).unwrap_err().to_string();
    assert!(message.contains("walker2d"), "{message}");
    assert!(GymScene::from_mjcf(GymTask::HOPPER, &text[..text.len() / 2]).is_err());
}

/// The physics alone goes the same way as the environments, on any number of threads; that is what makes their times comparable.
#[test]
fn a_recorded_trace_repeats_what_the_environments_did() {
    let rows = Rows { count: 3, steps: 8, chunk_steps: CHUNK_STEPS, action_bound: 0.5, seed: 7 };
    for task in GymTask::ALL {
        let scene = GymScene::new(task).unwrap();
        let make = || GymEnv::new(&scene, GymOptions::default());
        let mut recorded = make();
        let trace = Trace::record(&mut recorded, rows).unwrap();
        assert_eq!(trace.physics_steps(), 8 * trace.frame_skip());
        // The environment stands where its last row ended.
        let end = recorded.world().unwrap();
        for threads in [1, 2] {
            let worlds = (0..threads).map(|_| Simulation::new(end.model())).collect();
            let mut physics = Physics::new(trace.clone(), worlds).unwrap();
            assert_eq!(physics.run().unwrap().steps, 24);
            assert_eq!(physics.last_positions(), end.qpos(), "{task}");
            let mut stepping = Stepping::new((0..3).map(|_| make()).collect(), rows, threads).unwrap();
            let cost = stepping.run().unwrap();
            assert_eq!(cost.steps, 24);
            assert!(cost.processor_s > 0.0 && cost.wall_s > 0.0);
            assert_eq!(stepping.environments().last().unwrap().world().unwrap().qpos(), end.qpos(), "{task}");
        }
    }
    // A row in which the body falls, or that is no whole number of chunks, measures something else and is refused.
    let refused = |steps| {
        let scene = GymScene::new(GymTask::HOPPER).unwrap();
        let environments = (0..3).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
        Stepping::new(environments, Rows { steps, ..rows }, 1).and_then(|mut stepping| stepping.run()).unwrap_err()
    };
    assert!(refused(400).to_string().contains("ended"), "{}", refused(400));
    assert!(refused(7).to_string().contains("whole chunks"), "{}", refused(7));
}
