//! Behaviour cloning: it imitates, repeats bit for bit, resumes, refuses what is broken.

use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_train::TrainError;
use tenon_train::checkpoint::{Checkpoint, Stage};
use tenon_train::dataset::Dataset;
use tenon_train::network::GaussianNetwork;
use tenon_train::optimizer::LrSchedule;
use tenon_train::ppo::{Cloner, CloningConfig, GaussianPolicy};

use crate::common::*;

/// States in [−1, 1]², constant in an episode; actions ±(0.5 · s₀ − 0.3 · s₁ + 0.2), the sign of an episode by chance
/// where there are `two_modes`.
fn dataset(two_modes: bool) -> Dataset {
    let mut noise = SeededNoise::new(11, 0);
    let (episodes, length) = (450, 3);
    let (mut states, mut actions) = (Vec::new(), Vec::new());
    for _ in 0..episodes {
        let state: [f32; STATE] = std::array::from_fn(|_| noise.rng().random_range(-1.0..1.0));
        let sign = if two_modes && noise.rng().random_bool(0.5) { -1.0 } else { 1.0 };
        for _ in 0..length {
            states.extend(state);
            actions.push(sign * target(&state));
        }
    }
    let frames = episodes * length;
    Dataset {
        states,
        actions,
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![length; episodes],
        state_dim: STATE,
        action_dim: 1,
    }
}

fn target(state: &[f32]) -> f32 {
    0.5 * state[0] - 0.3 * state[1] + 0.2
}

fn cloning_config(epochs: u64) -> CloningConfig {
    CloningConfig {
        epochs,
        batch_size: 200,
        lr: LrSchedule { max_lr: 3e-3, min_lr: 1e-3, warmup_steps: 2, first_cycle_steps: 100 },
        weight_decay: 1e-6,
        ent_coef: 0.0,
        max_episodes: None,
    }
}

pub fn cloner(epochs: u64, network: GaussianNetwork, threads: usize) -> Cloner {
    Cloner::new(cloning_config(epochs), network, STATE, 5, threads).unwrap()
}

fn go_on(_: &Cloner, _: &tenon_train::pretrain::EpochReport) -> Result<ControlFlow<()>, TrainError> {
    Ok(ControlFlow::Continue(()))
}

#[test]
fn a_cloned_gaussian_imitates_the_demonstrations() {
    let data = dataset(false);
    for (name, network) in [
        ("MLP", network(mlp(32), FIXED, 0)),
        ("MLP, learned deviation", network(mlp(32), LEARNED, 0)),
        ("transformer", network(transformer(), FIXED, 0)),
        ("mixture", network(mlp(32), FIXED, 3)),
    ] {
        let mut cloner = cloner(40, network, 1);
        let mut losses = Vec::new();
        cloner
            .run(&data, &mut |_, report| {
                losses.push(report.loss);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert!(losses[39] < losses[0] - 0.5, "{name}: {losses:?}");
        let policy = GaussianPolicy::from_parameters(cloner.network().clone(), cloner.parameters().to_vec(), 3.0);
        let batch = Batch::new(&policy.network, 100, 2);
        let chunks = sample(&policy, EVALUATE, &batch, 1);
        let error: f32 = chunks
            .chunks_exact(HORIZON)
            .zip(batch.states.chunks_exact(STATE))
            .map(|(chunk, state)| (chunk[0] - target(state)).abs())
            .sum::<f32>()
            / 100.0;
        assert!(error < 0.08, "{name}: mean error of the action is {error}");
    }
}

#[test]
fn a_cloned_mixture_keeps_both_modes_where_a_gaussian_averages() {
    let data = dataset(true);
    let spread = |modes: usize| {
        let mut cloner = cloner(60, network(mlp(32), FIXED, modes), 1);
        cloner.run(&data, &mut go_on).unwrap();
        let policy = GaussianPolicy::from_parameters(cloner.network().clone(), cloner.parameters().to_vec(), 3.0);
        // The target at this state is 0.9: far from its opposite.
        let batch = Batch { states: [0.8f32, -1.0].repeat(200), images: None };
        let chunks = sample(&policy, EVALUATE, &batch, 1);
        let near = |sign: f32| chunks.iter().filter(|x| (*x - sign * target(&[0.8, -1.0])).abs() < 0.25).count();
        (near(1.0), near(-1.0))
    };
    let (plus, minus) = spread(2);
    assert!(plus > 80 && minus > 80, "the mixture drew {plus} and {minus} of 400");
    let (plus, minus) = spread(0);
    assert!(plus + minus < 40, "a Gaussian drew {plus} and {minus} of 400");
}

#[test]
fn cloning_gives_the_same_bits_on_two_threads_and_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let data = dataset(true);
    let stored = |cloner: &Cloner| {
        let mut checkpoint = Checkpoint::new(Stage::Pretrain, run_info(8, &[]));
        cloner.store(&mut checkpoint);
        checkpoint
    };
    for (name, network) in [
        ("learned", network(mlp(16), LEARNED, 0)),
        ("per state", network(mlp(16), PER_STATE, 0)),
        ("transformer mixture", network(transformer(), LEARNED, 3)),
    ] {
        let mut whole = cloner(5, network.clone(), 1);
        whole.run(&data, &mut go_on).unwrap();
        let mut first = cloner(5, network.clone(), 2);
        first
            .run(&data, &mut |c, report| {
                if report.epoch == 2 {
                    stored(c).write(&path)?;
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        let mut second = cloner(5, network, 2);
        second.restore(&Checkpoint::read(&path).unwrap()).unwrap();
        assert_eq!(second.epochs_done(), 2);
        second.run(&data, &mut go_on).unwrap();
        assert!(stored(&second) == stored(&whole), "{name}");
    }
}

#[test]
fn cloning_refuses_data_of_another_width_and_stops_at_what_is_not_finite() {
    let mut cloner = cloner(1, network(mlp(16), LEARNED, 0), 1);
    let mut data = dataset(false);
    data.state_dim = 1;
    assert!(cloner.run_epoch(&data).unwrap_err().to_string().contains("the policy 2"));
    let before = cloner.parameters().to_vec();
    let mut data = dataset(false);
    data.actions.fill(f32::NAN);
    assert!(matches!(cloner.run_epoch(&data), Err(TrainError::Numerical { .. })));
    assert_eq!(cloner.parameters(), before);
    let mut data = dataset(false);
    data.lengths = vec![1; data.frames()];
    assert!(cloner.run_epoch(&data).unwrap_err().to_string().contains("no episode is as long"));
}
