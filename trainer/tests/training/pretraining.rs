//! Behaviour cloning of the denoiser: it imitates, repeats bit for bit, resumes, refuses what is broken.

use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::diffusion::StepNoise;
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::SeededNoise;
use tenon_train::TrainError;
use tenon_train::checkpoint::{CHECKPOINT_VERSION, Checkpoint};
use tenon_train::dataset::Dataset;
use tenon_train::dppo::{ChainMode, ChainSampler, Policy};
use tenon_train::network::NoiseNetwork;
use tenon_train::optimizer::LrSchedule;
use tenon_train::pretrain::{Prediction, PretrainConfig, Pretrainer};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

use crate::fixtures::*;

/// States in [−1, 1]², actions 0.5 · s₀ − 0.3 · s₁.
pub fn dataset() -> Dataset {
    let mut noise = SeededNoise::new(11, 0);
    let (episodes, length) = (40, 20);
    let frames = episodes * length;
    let states: Vec<f32> = (0..2 * frames).map(|_| noise.rng().random_range(-1.0..1.0)).collect();
    // The second action of a chunk answers to the state of its own frame, so let states be constant in an episode.
    let states: Vec<f32> = (0..frames).flat_map(|f| states[f / length * 2..][..2].to_vec()).collect();
    Dataset {
        actions: states.chunks_exact(2).map(|s| 0.5 * s[0] - 0.3 * s[1]).collect(),
        states,
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![length; episodes],
        state_dim: 2,
        action_dim: 1,
        pictures: None,
    }
}

pub fn pretrain_config(epochs: u64) -> PretrainConfig {
    PretrainConfig {
        epochs,
        batch_size: 200,
        lr: LrSchedule { max_lr: 3e-3, min_lr: 1e-3, warmup_steps: 2, first_cycle_steps: 60 },
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

fn pretrain(epochs: u64, threads: usize) -> Pretrainer {
    let mut p = Pretrainer::new(pretrain_config(epochs), run_info(diffusion(64, &[16, 8])), 5, threads).unwrap();
    p.run(&dataset(), &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap();
    p
}

/// The network of [`diffusion`] without an encoder of the state.
pub fn noise_network(width: usize) -> NoiseNetwork {
    let PolicyNetwork::Diffusion(spec) = diffusion(width, &[]) else { unreachable!() };
    NoiseNetwork::new(&spec, STATE, HORIZON, 1).unwrap()
}

#[test]
fn pretrained_policy_imitates_the_demonstrations() {
    let (data, mut losses) = (dataset(), Vec::new());
    let mut p = Pretrainer::new(pretrain_config(60), run_info(diffusion(64, &[])), 5, 1).unwrap();
    p.run(&data, &mut |_, report| {
        losses.push(report.loss);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");

    let policy = Policy::from_pretrained(noise_network(64), p.ema().to_vec(), denoising());
    let workers = Workers::new(1).unwrap();
    let n = 100;
    let mut sampler = ChainSampler::new(&policy, &workers, n);
    let mut noise: Vec<_> = (0..n as u32).map(|i| Stream::Evaluation(i).of(1)).collect();
    let states: Vec<f32> = (0..n).flat_map(|i| data.state(8 * i).to_vec()).collect();
    let mut chains = vec![0.0; n * 6 * HORIZON];
    let mode = ChainMode { noise: StepNoise::Evaluation, base_policy: false };
    sampler.sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
    let error: f32 = chains
        .chunks_exact(6 * HORIZON)
        .zip(states.chunks_exact(2))
        .map(|(chain, s)| (chain[5 * HORIZON] - (0.5 * s[0] - 0.3 * s[1])).abs())
        .sum::<f32>()
        / n as f32;
    assert!(error < 0.1, "mean error of the action is {error}");
}

#[test]
fn pretraining_gives_the_same_bits_on_one_and_two_threads() {
    let (one, two) = (pretrain(4, 1), pretrain(4, 2));
    assert_eq!(one.parameters(), two.parameters());
    assert_eq!(one.ema(), two.ema());
}

#[test]
fn resumed_pretraining_equals_an_uninterrupted_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let whole = pretrain(7, 1).checkpoint();
    for stop in [1, 4] {
        let mut first = Pretrainer::new(pretrain_config(7), run_info(diffusion(64, &[16, 8])), 5, 1).unwrap();
        first
            .run(&dataset(), &mut |p, report| {
                if report.epoch == stop {
                    p.checkpoint().write(&path)?;
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        let mut second = Pretrainer::resume(pretrain_config(7), &Checkpoint::read(&path).unwrap(), 2).unwrap();
        second.run(&dataset(), &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap();
        assert!(second.checkpoint() == whole, "stopped after epoch {stop}");
    }
}

#[test]
fn a_data_set_of_another_width_is_refused() {
    let mut p = Pretrainer::new(pretrain_config(1), run_info(diffusion(64, &[])), 5, 1).unwrap();
    let mut data = dataset();
    data.state_dim = 1;
    assert!(p.run_epoch(&data).unwrap_err().to_string().contains("the policy 2"));
    let mut data = dataset();
    data.lengths = vec![1; data.frames()];
    assert!(p.run_epoch(&data).unwrap_err().to_string().contains("no episode is as long"));
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_weights_change() {
    let mut p = Pretrainer::new(pretrain_config(1), run_info(diffusion(64, &[])), 5, 1).unwrap();
    let before = p.parameters().to_vec();
    let mut data = dataset();
    data.actions.fill(f32::NAN);
    assert!(matches!(p.run_epoch(&data), Err(TrainError::Numerical { .. })));
    assert_eq!(p.parameters(), before);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let checkpoint = pretrain(1, 1).checkpoint();
    checkpoint.write(&path).unwrap();
    assert!(Checkpoint::read(&path).unwrap() == checkpoint);
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let error = Checkpoint::read(&path).unwrap_err().to_string();
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }
    let version = format!("\\\"version\\\":{CHECKPOINT_VERSION}");
    let at = bytes.windows(version.len()).position(|w| w == version.as_bytes()).expect("the header has a version");
    let mut newer = bytes.clone();
    newer[at + version.len() - 1] = b'9';
    std::fs::write(&path, &newer).unwrap();
    let error = Checkpoint::read(&path).unwrap_err().to_string();
    assert!(error.contains("version 9"), "{error}");
    let error = checkpoint.write(&folder.path().join("missing/x.safetensors")).unwrap_err().to_string();
    assert!(error.contains("missing/x.safetensors"), "{error}");
}
