//! Recorded trajectories of Gymnasium's environments, replayed: `sim/gym_mj337.safetensors` of the golden folder.
//!
//! The allowed error is max(1e-9, 100·`sens`), where `sens` says how far a disturbance of 1e-10 has grown at each step.
//! With the pinned library and models we saw no difference at all.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tenon_sim::batch::Environment;
use tenon_sim::gym::{GymEnv, GymOptions, GymScene, GymTask, GymVersion, model_path};

fn golden_file() -> Option<Vec<u8>> {
    let folder = std::env::var_os("TENON_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    let path = folder.join("sim/gym_mj337.safetensors");
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(std::fs::read(path).unwrap())
}

/// One recorded episode, `<env>.<version>.…`.
struct Recording<'a> {
    tensors: &'a SafeTensors<'a>,
    prefix: String,
}

impl Recording<'_> {
    fn reals(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.tensor(&format!("{}.{name}", self.prefix)).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F64);
        tensor.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn flags(&self, name: &str) -> Vec<bool> {
        let tensor = self.tensors.tensor(&format!("{}.{name}", self.prefix)).unwrap();
        assert_eq!(tensor.dtype(), Dtype::U8);
        tensor.data().iter().map(|&flag| flag != 0).collect()
    }
}

/// Largest difference; NaN counts as infinite.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let of = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(of).fold(0.0, f64::max)
}

/// Replays a recording under the formulas of `task` and compares with its rewards and ends of these names.
fn replay(recording: &Recording, task: GymTask, mjcf: &str, reward_name: &str, terminated_name: &str) {
    let scene = GymScene::from_mjcf(task, mjcf).unwrap();
    let options = GymOptions { clip_actions: false, ..GymOptions::default() };
    let mut env = GymEnv::new(&scene, options);
    let (nq, nobs) = (scene.model().position_dim(), task.observation_dim());

    let mut observation = vec![0.0; nobs];
    env.start_at(&recording.reals("qpos0"), &recording.reals("qvel0"));
    env.observe(&mut observation);
    assert_eq!(observation, recording.reals("obs0"));

    let (actions, sens) = (recording.reals("actions"), recording.reals("sens"));
    let (qpos, qvel, obs) = (recording.reals("qpos"), recording.reals("qvel"), recording.reals("obs"));
    let (reward, terminated) = (recording.reals(reward_name), recording.flags(terminated_name));
    let steps = actions.len() / task.action_dim();
    assert!(steps > 0 && [sens.len(), reward.len(), terminated.len()] == [steps; 3]);
    let mut worst = [0f64; 4];
    for step in 0..steps {
        let outcome = env.step(&actions[step * task.action_dim()..][..task.action_dim()], &mut observation);
        assert_eq!(outcome.fault, None);
        let allowed = f64::max(1e-9, 100.0 * sens[step]);
        let errors = [
            difference(env.qpos(), &qpos[step * nq..][..nq]),
            difference(env.qvel(), &qvel[step * nq..][..nq]),
            difference(&observation, &obs[step * nobs..][..nobs]),
            (outcome.reward - reward[step]).abs(),
        ];
        let context = format!("{} as {task}, step {step}: {errors:?}, allowed {allowed:e}", recording.prefix);
        assert!(errors.iter().all(|error| *error <= allowed), "{context}");
        // Where the state is only roughly the recorded one it may lie on the other side of a bound.
        assert!(outcome.terminated == terminated[step] || allowed > 1e-6, "{context}");
        worst = std::array::from_fn(|index| worst[index].max(errors[index]));
    }
    println!(
        "{} as {task}, {steps} steps: largest error of positions, velocities, observations, rewards {worst:?}",
        recording.prefix
    );
}

#[test]
fn golden_trajectories_of_gymnasium_are_reproduced() {
    let Some(bytes) = golden_file() else {
        return;
    };
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut prefixes: Vec<_> = tensors.names().into_iter().filter_map(|name| name.strip_suffix(".actions")).collect();
    prefixes.sort_unstable();
    assert!(prefixes.len() >= 3);
    for prefix in prefixes {
        let recording = Recording { tensors: &tensors, prefix: prefix.to_owned() };
        let task: GymTask = prefix.replace('.', "-").parse().unwrap();
        let mjcf = std::fs::read_to_string(model_path(task).unwrap()).unwrap();
        replay(&recording, task, &mjcf, "reward", "terminated");
        // The paper's formulas on the same trajectory, so with the recording's own model.
        replay(&recording, GymTask { version: GymVersion::V2, ..task }, &mjcf, "reward_v2", "terminated_v2");
    }
}
