//! Diffusion policies whose network predicts the clean chunk, x_0, instead of the noise.

use std::ops::ControlFlow;

use tenon_core::diffusion::StepNoise;
use tenon_core::noise::SeededNoise;
use tenon_core::spec::{Denoising, Prediction, Sampler};
use tenon_train::checkpoint::RunInfo;
use tenon_train::dppo::{ChainMode, ChainSampler, Policy};
use tenon_train::pretrain::{PretrainConfig, Pretrainer};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

use crate::bandit::{Bandit, finetune_config};
use crate::fixtures::*;
use crate::pretraining::{dataset, noise_network, pretrain_config};

fn clean(sampler: Sampler) -> Denoising {
    Denoising { prediction: Prediction::Sample, sampler, ..denoising() }
}

fn clean_run(sampler: Sampler) -> RunInfo {
    let mut run = run_info(diffusion(64, &[]));
    run.policy.denoising = Some(clean(sampler));
    run
}

fn clean_config(epochs: u64) -> PretrainConfig {
    PretrainConfig { prediction: Prediction::Sample, ..pretrain_config(epochs) }
}

#[test]
fn a_policy_that_predicts_clean_chunks_reproduces_the_data_with_ddpm() {
    let (data, mut losses) = (dataset(), Vec::new());
    let mut trainer = Pretrainer::new(clean_config(60), clean_run(Sampler::Ddpm), 5, 1).unwrap();
    trainer
        .run(&data, &mut |_, report| {
            losses.push(report.loss);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");

    // Mean distance of the sampled actions from those of the data.
    let error = |denoising: Denoising| {
        let policy = Policy::from_pretrained(noise_network(64), trainer.ema().to_vec(), denoising);
        let (workers, rows, chain_len) = (Workers::new(1).unwrap(), 100, 6 * HORIZON);
        let mut noise: Vec<SeededNoise> = (0..rows as u32).map(|i| Stream::Evaluation(i).of(1)).collect();
        let states: Vec<f32> = (0..rows).flat_map(|i| data.state(8 * i).to_vec()).collect();
        let mut chains = vec![0.0; rows * chain_len];
        let mode = ChainMode { noise: StepNoise::Evaluation, base_policy: false };
        ChainSampler::new(&policy, &workers, rows).sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
        let distance = |(chain, state): (&[f32], &[f32])| {
            let target = 0.5 * state[0] - 0.3 * state[1];
            chain[5 * HORIZON..].iter().map(|x| (x - target).abs()).sum::<f32>()
        };
        let pairs = chains.chunks_exact(chain_len).zip(states.chunks_exact(STATE));
        pairs.map(distance).sum::<f32>() / (rows * HORIZON) as f32
    };
    let right = error(clean(Sampler::Ddpm));
    assert!(right < 0.06, "mean error of the action is {right}");
    // The same weights taken for a prediction of the noise give something else.
    let wrong = error(denoising());
    assert!(wrong > 4.0 * right, "{wrong} and {right}");
}

#[test]
fn fine_tuning_of_clean_chunks_raises_the_reward() {
    let network = noise_network(32);
    let parameters = network.table().initialise(&mut Stream::ActorWeights.of(5));
    let policy = Policy::from_pretrained(network, parameters, clean(Sampler::Ddpm));
    let mut bandit = Bandit::with(policy, finetune_config(), 1);
    let rewards: Vec<f64> = (0..40).map(|_| bandit.iterate().0).collect();
    let (before, after) = (rewards[0], rewards[35..].iter().sum::<f64>() / 5.0);
    assert!(after > 0.4 * before, "mean squared error went from {before} to {after}: {rewards:?}");
}

#[test]
fn ddim_of_clean_chunks_is_refused() {
    let run = clean_run(Sampler::Ddim { steps: 5 });
    for error in [
        run.policy.check().unwrap_err().to_string(),
        Pretrainer::new(clean_config(1), run, 5, 1).unwrap_err().to_string(),
    ] {
        assert!(error.contains("DDIM needs a network that predicts the noise"), "{error}");
    }
}
