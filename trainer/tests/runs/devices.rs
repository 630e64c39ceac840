//! Runs whose networks are computed on a device: here its kernels on the processor, which do what a card would.

use tenon_core::network::{Activation, ConditionEncoder, CriticSpec, NetworkSpec, UnetSpec};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::device::{Choice, Device};
use tenon_train::finetune::{FinetuneRun, Source};
use tenon_train::network::{Critic, CriticBatch, CriticRow, NoiseBatch, NoiseNetwork, NoiseRow};
use tenon_train::workers::{Compute, Workers};

use crate::small_hopper::{DIFFUSION, config_text};
use crate::{GAUSSIAN, config, iterate};

fn emulated(threads: usize) -> Compute {
    Compute { threads, device: Choice::Emulated.open().unwrap() }
}

fn normal(len: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; len];
    SeededNoise::new(11, stream).fill_standard_normal(&mut values);
    values
}

/// Largest difference in units of the largest value.
fn deviation(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    off.fold(0.0, |most: f32, d| if d.is_nan() { f32::NAN } else { most.max(d) }) / largest
}

/// Output and gradient of a batch in which five rows share a state.
fn noise_batch(spec: &NetworkSpec, rows: usize, device: Option<&Device>) -> (Vec<f32>, Vec<f32>) {
    let (state_len, horizon, action_dim) = (5, 4, 2);
    let network = NoiseNetwork::new(spec, state_len, horizon, action_dim).unwrap();
    let parameters = network.table().initialise(&mut SeededNoise::new(1, 0));
    let workers = Workers::new(Compute { threads: 2, device: device.cloned() }).unwrap();
    let network = network.on(workers.device());
    assert_eq!(network.is_on_device(), device.is_some());
    let len = network.chunk_len();
    let (states, chunks, wanted) = (normal(rows * state_len, 1), normal(rows * len, 2), normal(rows * len, 3));
    let load = |i: usize| NoiseRow {
        slot: (i * 7 % 3) as u32,
        chunk: &chunks[i * len..][..len],
        state: &states[i / 5 * state_len..][..state_len],
        images: None,
    };
    let times = [0, 3, 9];
    let mut prepared = network.prepare(&parameters, &times);
    let mut batch = NoiseBatch::new(&network, &workers, rows, times.len());
    let mut out = vec![0.0; rows * len];
    let copy = |_: usize, y: &[f32], out: &mut [f32]| out.copy_from_slice(y);
    batch.evaluate(&workers, &network, &parameters, &prepared, load, &mut out, len, copy);
    batch.begin();
    // Twice, as minibatches whose gradients are summed.
    for _ in 0..2 {
        let sums =
            batch.accumulate(&workers, &network, &parameters, &prepared, rows, load, |i, y, dy, sum: &mut f64| {
                for ((dy, y), w) in dy.iter_mut().zip(y).zip(&wanted[i * len..]) {
                    *dy = (y - w) / rows as f32;
                    *sum += f64::from((y - w) * (y - w));
                }
            });
        assert!(sums.iter().sum::<f64>() > 0.0);
    }
    (out, batch.finish(&network, &parameters, &mut prepared).to_vec())
}

/// Batches of several blocks of the device's, and small ones.
#[test]
fn a_batch_on_a_device_has_the_outputs_and_the_gradient_of_the_processor() {
    let unet = NetworkSpec::Unet(UnetSpec {
        time_dim: 8,
        dim: 8,
        dim_mults: vec![1, 2],
        kernel_size: 5,
        groups: 4,
        group_norm_eps: 1e-5,
        activation: Activation::Mish,
        condition_encoder: ConditionEncoder::Large,
        condition_scales: true,
        cond_mlp_dims: vec![],
    });
    let mlp = |activation| NetworkSpec::diffusion_mlp(8, &[16; 3], &[], activation);
    let device = Choice::Emulated.open().unwrap();
    for (name, spec, rows) in
        [("ReLU", mlp(Activation::ReLU), 70_001), ("Mish", mlp(Activation::Mish), 33), ("U-Net", unet, 17_003)]
    {
        let (here, there) = (noise_batch(&spec, rows, None), noise_batch(&spec, rows, device.as_ref()));
        let (outputs, gradient) = (deviation(&there.0, &here.0), deviation(&there.1, &here.1));
        assert!(outputs <= 1e-5 && gradient <= 1e-4, "{name}: outputs {outputs:e}, gradient {gradient:e}");
        let again = noise_batch(&spec, rows, device.as_ref());
        assert!(again == there, "{name}: a second time the bits are others");
    }
}

#[test]
fn a_critic_on_a_device_has_the_values_and_the_gradient_of_the_processor() {
    let critic = Critic::new(&CriticSpec::state(&[32; 3], Activation::Mish), 7).unwrap();
    let parameters = critic.table().initialise(&mut SeededNoise::new(1, 0));
    let (rows, states) = (40_000, normal(40_000 * 7, 1));
    let load = |i: usize| CriticRow { state: &states[i * 7..][..7], images: None };
    let run = |compute: Compute| {
        let workers = Workers::new(compute).unwrap();
        let critic = critic.clone().on(workers.device());
        let mut batch = CriticBatch::new(&critic, &workers, rows);
        let mut values = vec![0.0; rows];
        batch.evaluate(&workers, &critic, &parameters, load, &mut values);
        let (_, gradient) = batch.gradient(&workers, &critic, &parameters, rows, load, |_, v, _: &mut ()| v - 1.0);
        (values, gradient.to_vec())
    };
    let (here, there) = (run(2.into()), run(emulated(2)));
    assert!(deviation(&there.0, &here.0) <= 1e-5 && deviation(&there.1, &here.1) <= 1e-4);
}

/// What a network says about numbers that are none is none, on a device too: the update is then undone.
#[test]
fn not_a_number_comes_back_from_a_device() {
    for (activation, spoilt) in [(Activation::ReLU, f32::NAN), (Activation::Mish, f32::NAN), (Activation::Mish, 1e38)] {
        let spec = NetworkSpec::diffusion_mlp(8, &[16; 3], &[], activation);
        let network = NoiseNetwork::new(&spec, 5, 4, 2).unwrap().on(Choice::Emulated.open().unwrap().as_ref());
        let mut parameters = network.table().initialise(&mut SeededNoise::new(1, 0));
        parameters.fill(spoilt);
        let prepared = network.prepare(&parameters, &[3]);
        let mut ws = network.workspace(1, tenon_train::network::Mode::Inference);
        let row = NoiseRow { slot: 0, chunk: &[0.5; 8], state: &[0.5; 5], images: None };
        let out = network.forward(&parameters, &prepared, &mut ws, &[row]);
        assert!(out.iter().all(|v| !v.is_finite()), "{activation:?}, {spoilt}: {out:?}");
    }
}

/// A run on a device ends with the same bits whatever it is stopped after and however many threads walk the environments;
/// against the processor's it is the same run but for the last places.
#[test]
fn a_run_on_a_device_resumes_exactly_and_follows_the_processor() {
    for model in [DIFFUSION, GAUSSIAN] {
        let text = config_text(model);
        let begin =
            |compute: Compute| FinetuneRun::new(&config(&text), text.clone(), Source::Scratch, [], compute).unwrap();
        let finish = |mut run: FinetuneRun, iterations: usize| -> Vec<Checkpoint> {
            let mut next = || {
                iterate(&mut run);
                run.checkpoint()
            };
            (0..iterations).map(|_| next()).collect()
        };
        let whole = finish(begin(emulated(1)), 5);
        assert!(finish(begin(emulated(2)), 5) == whole, "two threads give other bits");
        for done in 1..5 {
            let resumed = FinetuneRun::resume(&config(&text), &whole[done - 1], emulated(1)).unwrap();
            assert!(finish(resumed, 5 - done) == whole[done..], "resumed after {done} the end is another");
        }
        let here = finish(begin(1.into()), 5);
        let weights = |c: &Checkpoint| c.tensor("actor_ft.mlp_mean.layers.0.weight").unwrap().1.to_vec();
        let off = deviation(&weights(&whole[4]), &weights(&here[4]));
        assert!(off > 0.0, "a device computes in another order");
        assert!(off < 1e-2, "{off:e}");
        // The processor goes on with a run of the device's.
        finish(FinetuneRun::resume(&config(&text), &whole[2], 1).unwrap(), 2);
    }
}
