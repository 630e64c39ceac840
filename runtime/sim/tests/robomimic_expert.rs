//! The scripted experts do their tasks. Shares over many episodes are measured by `tenon-train demos robomimic`; here a few
//! episodes each, which a broken expert fails.

mod robomimic_data;

use robomimic_data::{reference_scene, scenes_are_there};
use tenon_sim::batch::{Environment, episode_seed};
use tenon_sim::robomimic::expert::Expert;
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicTask, Visuals};

/// Number of episodes, of so many, in which the task stays done for ten steps.
fn successes(task: RobomimicTask, episodes: u64) -> usize {
    let scene = reference_scene(task, Visuals::Without);
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
    let mut observation = vec![0.0; task.observation_dim()];
    let mut action = vec![0.0; task.action_dim()];
    let done = |episode| {
        let seed = episode_seed(21, episode, 0);
        env.reset(seed, &mut observation);
        let mut expert = Expert::new(task, seed, 1, &observation);
        let mut done_steps = 0;
        loop {
            expert.act(&observation, &mut action);
            assert!(action.iter().all(|value| value.abs() <= 1.0));
            let outcome = env.step(&action, &mut observation);
            assert_eq!(outcome.fault, None);
            done_steps = if outcome.reward > 0.0 { done_steps + 1 } else { 0 };
            if done_steps >= 10 || outcome.ended() {
                return done_steps >= 10;
            }
        }
    };
    (0..episodes).map(done).filter(|done| *done).count()
}

#[test]
fn the_expert_of_lift_lifts() {
    if scenes_are_there() {
        let successes = successes(RobomimicTask::Lift, 8);
        assert!(successes >= 7, "{successes} of 8");
    }
}

#[test]
fn the_expert_of_can_places_the_can() {
    if scenes_are_there() {
        let successes = successes(RobomimicTask::Can, 6);
        assert!(successes >= 5, "{successes} of 6");
    }
}

#[test]
fn the_expert_of_square_puts_the_nut_on_its_peg() {
    if scenes_are_there() {
        let successes = successes(RobomimicTask::Square, 6);
        assert!(successes >= 4, "{successes} of 6");
    }
}

#[test]
fn the_expert_of_transport_hands_the_hammer_over() {
    if scenes_are_there() {
        let successes = successes(RobomimicTask::Transport, 3);
        assert!(successes >= 2, "{successes} of 3");
    }
}
