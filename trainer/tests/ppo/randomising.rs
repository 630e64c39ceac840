//! Behaviour cloning under noise on the poses of parts.

use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::config::{PartNoise, RandomisationConfig};
use tenon_core::fusion::quat_xyzw;
use tenon_core::geometry::pose_from_wxyz;
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_core::randomisation::{Randomisation, parts_of};
use tenon_core::spec::{ObservationField, PART_NUMBERS};
use tenon_core::task::TaskName;
use tenon_train::checkpoint::{Checkpoint, RunInfo};
use tenon_train::dataset::Dataset;
use tenon_train::network::{CriticRow, GaussianNetwork, Mode};
use tenon_train::pretrain::{PretrainConfig, Pretrainer};

use crate::cloning::{cloning_config, go_on};
use crate::common::{FIXED, HORIZON, diffusion, mlp, run_info, spec};

/// Opening of the fingers, then the lamp's base, bulb, hood and bar.
const FIELDS: [ObservationField; 2] = [ObservationField::GripperWidth, ObservationField::PartPoses(4)];
const WIDTH: usize = 1 + 4 * PART_NUMBERS;
/// Where x of the base and of the bulb stand.
const BASE_X: usize = 1;
const BULB_X: usize = 1 + PART_NUMBERS;
/// Base and bulb lie within this, and the action is their x in units of it.
const REACH_M: f32 = 0.05;

/// Base and bulb have the same x, so demonstrations do not tell which of them the action follows.
fn dataset() -> (Dataset, Normalizer) {
    let mut noise = SeededNoise::new(12, 0);
    let (episodes, length) = (300, 3);
    let (mut states, mut actions) = (Vec::new(), Vec::new());
    for _ in 0..episodes {
        let x = noise.rng().random_range(-REACH_M..REACH_M);
        let mut state = vec![noise.rng().random_range(0.0..0.08f32)];
        for part in 0..4 {
            let mut q = [0.0; 4];
            noise.fill_standard_normal(&mut q);
            let pose = pose_from_wxyz([0.0; 3], q.map(f64::from));
            let place = if part < 2 { x } else { noise.rng().random_range(-0.2..0.2) };
            state.extend([place, noise.rng().random_range(0.1..0.3), -0.02]);
            state.extend(quat_xyzw(&pose.rotation).map(|v| v as f32));
        }
        for _ in 0..length {
            states.extend_from_slice(&state);
            actions.push(0.8 * x / REACH_M);
        }
    }
    let normalizer = Normalizer {
        observation: Limits::of_rows(&states, WIDTH),
        action: Limits::symmetric(1.0, 1),
        zero_range: ZeroRange::Widen,
        observation_clip: Some(5.0),
    };
    normalizer.normalize_observation(&mut states);
    let frames = episodes * length;
    let data = Dataset {
        states,
        actions,
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![length; episodes],
        state_dim: WIDTH,
        action_dim: 1,
        pictures: None,
    };
    (data, normalizer)
}

/// A policy that sees the lamp; `observations`: To.
fn lamp(network: PolicyNetwork, normalizer: &Normalizer, observations: usize) -> RunInfo {
    let mut run = run_info(network);
    run.policy.observation = FIELDS.to_vec();
    run.policy.normalizer = normalizer.clone();
    run.policy.observation_horizon = observations;
    run
}

fn noise(part: Option<&str>, cloning_std: f64) -> Option<Randomisation> {
    let entry =
        |part: &str| PartNoise { part: part.into(), position_std_m: [0.05, 0.0, 0.0], rotation_std_rad: [0.02; 3] };
    let config = RandomisationConfig {
        noise: None,
        bias_share: 0.5,
        action_std: 0.0,
        cloning_std,
        evaluation: false,
        origin: None,
        part: part.map(entry).into_iter().collect(),
        field: Vec::new(),
    };
    Some(Randomisation::new(&config, &FIELDS, parts_of(TaskName::LampLow)).unwrap())
}

fn config(epochs: u64, randomisation: Option<Randomisation>) -> PretrainConfig {
    PretrainConfig { randomisation, ..cloning_config(epochs) }
}

/// How far the first action follows the base and how far the bulb: 1 for all the way.
fn followed(randomisation: Option<Randomisation>) -> [f64; 2] {
    let (data, normalizer) = dataset();
    let spec = spec(mlp(32), FIXED, 0);
    let run = lamp(PolicyNetwork::Gaussian(spec.clone()), &normalizer, 1);
    let mut cloner = Pretrainer::new(config(150, randomisation), run, 5, 1).unwrap();
    cloner.run(&data, &mut go_on).unwrap();
    let network = GaussianNetwork::new(&spec, WIDTH, HORIZON, 1).unwrap();
    let prepared = network.prepare(cloner.parameters());
    let mut workspace = network.workspace(1, Mode::Inference);
    let mut action = |state: &[f32]| {
        network.forward(cloner.parameters(), &prepared, &mut workspace, 1, |_| CriticRow { state, images: None });
        f64::from(network.row(&prepared, &workspace, 0).mean[0])
    };
    let mut sums = [0.0; 2];
    let frames: Vec<usize> = (0..data.frames()).step_by(3).filter(|f| data.state(*f)[BASE_X].abs() < 0.5).collect();
    for &frame in &frames {
        for (sum, place) in sums.iter_mut().zip([BASE_X, BULB_X]) {
            let moved = |by: f32| {
                let mut state = data.state(frame).to_vec();
                state[place] += by;
                state
            };
            // Normalised states run over ±1 where actions run over ±0.8.
            *sum += (action(&moved(0.3)) - action(&moved(-0.3))) / (0.6 * 0.8);
        }
    }
    sums.map(|sum| sum / frames.len() as f64)
}

#[test]
fn a_policy_trusts_the_part_that_has_no_noise() {
    let [base, bulb] = followed(None);
    assert!(base > 0.25 && bulb > 0.25, "without noise both are as good: {base:.2} and {bulb:.2}");
    let [base, bulb] = followed(noise(Some("lamp_base"), 0.0));
    assert!(base < 0.2 && bulb > 0.6 && bulb > 4.0 * base, "the base is noisy: {base:.2} and {bulb:.2}");
    let [base, bulb] = followed(noise(Some("lamp_bulb"), 0.0));
    assert!(bulb < 0.2 && base > 0.6 && base > 4.0 * bulb, "the bulb is noisy: {base:.2} and {bulb:.2}");
}

#[test]
fn cloning_without_noise_is_as_before_and_with_it_resumes_to_the_same_bits_on_two_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let (data, normalizer) = dataset();
    for (observations, network) in
        [(1, PolicyNetwork::Gaussian(spec(mlp(16), FIXED, 0))), (2, diffusion(16, &[])), (1, diffusion(16, &[16, 8]))]
    {
        let begin = |noise: Option<Randomisation>, threads: usize| {
            let run = lamp(network.clone(), &normalizer, observations);
            Pretrainer::new(config(5, noise), run, 5, threads).unwrap()
        };
        let whole = |noise: Option<Randomisation>| {
            let mut cloner = begin(noise, 1);
            cloner.run(&data, &mut go_on).unwrap();
            cloner.checkpoint()
        };
        let plain = whole(None);
        assert!(!plain.header.streams.contains_key("randomisation"));
        // Noise of zero draws, but changes nothing that is learned.
        let mut zero = whole(noise(None, 0.0));
        zero.header.streams.remove("randomisation");
        assert!(zero == plain);
        for (name, noise) in [("poses", noise(Some("lamp_bulb"), 0.0)), ("cloning", noise(None, 0.1))] {
            let noisy = whole(noise.clone());
            assert_eq!(noisy.header.streams["shuffle"], plain.header.streams["shuffle"], "other streams stay");
            assert_eq!(noisy.header.streams["diffusion"], plain.header.streams["diffusion"]);
            assert!(noisy != plain, "{name}");
            let mut first = begin(noise.clone(), 2);
            first
                .run(&data, &mut |cloner, report| {
                    if report.epoch == 2 {
                        cloner.checkpoint().write(&path)?;
                        return Ok(ControlFlow::Break(()));
                    }
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
            let stored = Checkpoint::read(&path).unwrap();
            let mut second = Pretrainer::resume(config(5, noise), &stored, 2).unwrap();
            second.run(&data, &mut go_on).unwrap();
            assert!(second.checkpoint() == noisy, "{name}");
        }
        let error = Pretrainer::resume(config(5, noise(None, 0.1)), &plain, 1).unwrap_err().to_string();
        assert!(error.contains("randomisation"), "{error}");
    }
}
