//! Recorded trajectories of robosuite, replayed: `sim/robosuite_mj337.safetensors` of the golden folder.
//!
//! The allowed error is max(1e-6, 100·max(`err_simple`, `sens`)): `err_simple` is what another implementation of the same
//! simplified stepping differs by, `sens` how far a disturbance of 1e-10 has grown.

mod robomimic_data;

use robomimic_data::{Arrays, align_half_turns, difference, golden_file, reference_scene, scenes_are_there};
use tenon_sim::batch::Environment;
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicTask, Visuals};

const FILE: &str = "robosuite_mj337.safetensors";
/// Where nothing was stepped yet. Quaternions and relative poses of the reference pass through single precision.
const AT_REST: f64 = 1e-6;

fn replay(task: RobomimicTask, arrays: &Arrays) {
    let scene = reference_scene(task, Visuals::Without);
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
    let (nq, nv, dim) = (scene.model().position_dim(), scene.model().velocity_dim(), task.observation_dim());
    env.start_at(&arrays.reals("qpos0"), &arrays.reals("qvel0"));
    let mut observation = env.observation().to_vec();
    let obs0 = arrays.reals("obs0");
    align_half_turns(task, &mut observation, &obs0);
    assert!(difference(&observation, &obs0) <= AT_REST, "{task}: {observation:?}\n{obs0:?}");

    let (actions, goals) = (arrays.reals("actions"), arrays.reals("goal"));
    let (qpos, qvel, obs) = (arrays.reals("qpos"), arrays.reals("qvel"), arrays.reals("obs"));
    let (reward, success, ctrl) = (arrays.reals("reward"), arrays.reals("success"), arrays.reals("ctrl_last"));
    let (simple, sens) = (arrays.reals("err_simple"), arrays.reals("sens"));
    let (steps, nu) = (simple.len(), scene.model().control_dim());
    assert!(steps > 0 && actions.len() == steps * task.action_dim());
    let mut worst = [0f64; 5];
    for step in 0..steps {
        let outcome = env.step(&actions[step * task.action_dim()..][..task.action_dim()], &mut observation);
        assert_eq!(outcome.fault, None);
        let row = |values: &[f64], width: usize| values[step * width..][..width].to_vec();
        let recorded = row(&obs, dim);
        align_half_turns(task, &mut observation, &recorded);
        let goal: Vec<f64> = (0..task.arms())
            .flat_map(|arm| {
                let (position, rotation) = env.goal(arm);
                position.into_iter().chain(rotation).collect::<Vec<_>>()
            })
            .collect();
        let errors = [
            difference(env.qpos(), &row(&qpos, nq)),
            difference(&observation, &recorded),
            difference(&goal, &row(&goals, 12 * task.arms())),
            difference(env.qvel(), &row(&qvel, nv)),
            difference(env.simulation().ctrl(), &row(&ctrl, nu)),
        ];
        let allowed = f64::max(1e-6, 100.0 * simple[step].max(sens[step]));
        let context = format!("{task}, step {step}: {errors:?}, allowed {allowed:e}");
        assert!(errors[0] <= allowed, "{context}");
        assert!(errors[1] <= allowed, "{context}");
        assert!(errors[2] <= allowed, "{context}");
        // Velocities and torques follow the positions with a larger factor; they were recorded to find mistakes early.
        assert!(errors[3] <= 1e3 * allowed && errors[4] <= 1e4 * allowed, "{context}");
        let same = outcome.reward == reward[step] && f64::from(u8::from(env.succeeded())) == success[step];
        assert!(same, "{context}");
        worst = std::array::from_fn(|index| worst[index].max(errors[index]));
    }
    println!("{task}, {steps} steps: largest error of positions, observations, goals, velocities, inputs {worst:?}");
}

#[test]
fn golden_trajectories_of_robosuite_are_reproduced() {
    let Some(bytes) = golden_file(FILE).filter(|_| scenes_are_there()) else {
        return;
    };
    for task in RobomimicTask::ALL {
        replay(task, &Arrays::new(&bytes, task));
    }
}

#[test]
fn success_and_observation_of_the_probe_states_are_those_of_robosuite() {
    let Some(bytes) = golden_file(FILE).filter(|_| scenes_are_there()) else {
        return;
    };
    for task in RobomimicTask::ALL {
        let arrays = Arrays::new(&bytes, task);
        let scene = reference_scene(task, Visuals::Without);
        let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
        let (nq, dim) = (scene.model().position_dim(), task.observation_dim());
        let (states, success, obs) =
            (arrays.reals("probe_qpos"), arrays.reals("probe_success"), arrays.reals("probe_obs"));
        let at_rest = vec![0.0; scene.model().velocity_dim()];
        let mut worst = 0f64;
        for (index, qpos) in states.chunks_exact(nq).enumerate() {
            env.start_at(qpos, &at_rest);
            let recorded = &obs[index * dim..][..dim];
            let mut observation = env.observation().to_vec();
            align_half_turns(task, &mut observation, recorded);
            let error = difference(&observation, recorded);
            assert!(error <= AT_REST, "{task}, state {index}: {observation:?}\n{recorded:?}");
            assert_eq!(f64::from(u8::from(env.succeeded())), success[index], "{task}, state {index}");
            worst = worst.max(error);
        }
        let succeeded: f64 = success.iter().sum();
        println!("{task}: {} states, {succeeded} of them done, largest error of observations {worst:e}", success.len());
        assert!(!success.is_empty());
    }
}
