//! Behaviour cloning: it imitates, repeats bit for bit, resumes, refuses what is broken.

use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::network::{GaussianSpec, PolicyNetwork};
use tenon_core::noise::SeededNoise;
use tenon_train::TrainError;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dataset::Dataset;
use tenon_train::optimizer::LrSchedule;
use tenon_train::ppo::GaussianPolicy;
use tenon_train::pretrain::{EpochReport, Prediction, PretrainConfig, Pretrainer};

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
        pictures: None,
    }
}

fn target(state: &[f32]) -> f32 {
    0.5 * state[0] - 0.3 * state[1] + 0.2
}

pub fn cloning_config(epochs: u64) -> PretrainConfig {
    PretrainConfig {
        epochs,
        batch_size: 200,
        lr: LrSchedule { max_lr: 3e-3, min_lr: 1e-3, warmup_steps: 2, first_cycle_steps: 100 },
        weight_decay: 1e-6,
        ema_decay: 0.9,
        update_ema_freq: 2,
        epoch_start_ema: 3,
        max_episodes: None,
        prediction: Prediction::Noise,
        ent_coef: 0.0,
        augment: false,
        randomisation: None,
    }
}

pub fn cloner(epochs: u64, spec: &GaussianSpec, threads: usize) -> Pretrainer {
    let run = run_info(PolicyNetwork::Gaussian(spec.clone()));
    Pretrainer::new(cloning_config(epochs), run, 5, threads).unwrap()
}

fn cloned(cloner: &Pretrainer, spec: &GaussianSpec) -> GaussianPolicy {
    GaussianPolicy::from_parameters(built(spec), cloner.parameters().to_vec(), 3.0)
}

pub fn go_on(_: &Pretrainer, _: &EpochReport) -> Result<ControlFlow<()>, TrainError> {
    Ok(ControlFlow::Continue(()))
}

#[test]
fn a_cloned_gaussian_imitates_the_demonstrations() {
    let data = dataset(false);
    for (name, spec) in [
        ("MLP", spec(mlp(32), FIXED, 0)),
        ("MLP, learned deviation", spec(mlp(32), LEARNED, 0)),
        ("transformer", spec(transformer(), FIXED, 0)),
        ("mixture", spec(mlp(32), FIXED, 3)),
    ] {
        let mut cloner = cloner(40, &spec, 1);
        let mut losses = Vec::new();
        cloner
            .run(&data, &mut |_, report| {
                losses.push(report.loss);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert!(losses[39] < losses[0] - 0.5, "{name}: {losses:?}");
        let policy = cloned(&cloner, &spec);
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
        let spec = spec(mlp(32), FIXED, modes);
        let mut cloner = cloner(60, &spec, 1);
        cloner.run(&data, &mut go_on).unwrap();
        let policy = cloned(&cloner, &spec);
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
    for (name, spec) in [
        ("learned", spec(mlp(16), LEARNED, 0)),
        ("per state", spec(mlp(16), PER_STATE, 0)),
        ("transformer mixture", spec(transformer(), LEARNED, 3)),
    ] {
        let mut whole = cloner(5, &spec, 1);
        whole.run(&data, &mut go_on).unwrap();
        let mut first = cloner(5, &spec, 2);
        first
            .run(&data, &mut |c, report| {
                if report.epoch == 2 {
                    c.checkpoint().write(&path)?;
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        let mut second = Pretrainer::resume(cloning_config(5), &Checkpoint::read(&path).unwrap(), 2).unwrap();
        assert_eq!(second.epochs_done(), 2);
        second.run(&data, &mut go_on).unwrap();
        assert!(second.checkpoint() == whole.checkpoint(), "{name}");
    }
}

#[test]
fn cloning_refuses_data_of_another_width_and_stops_at_what_is_not_finite() {
    let mut cloner = cloner(1, &spec(mlp(16), LEARNED, 0), 1);
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
