//! The paper's networks at full size, with weights made by a formula: one step and whole chains.

use serde_json::Value;
use tenon_core::diffusion::StepNoise;
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, NetworkSpec, PatchEmbedding, UnetSpec, VisionSpec, sinusoid,
};
use tenon_core::spec::{Denoising, Prediction, Sampler};
use tenon_train::augment::shift;
use tenon_train::dppo::{ChainMode, ChainSampler, Policy};
use tenon_train::network::{Mode, NoiseNetwork, NoiseRow, Observations, ParameterTable};
use tenon_train::workers::Workers;

use crate::dppo::Recorded;
use crate::load::{Case, case, devices, workers};

const FORWARD: f64 = 1e-5;
const CHAIN: f64 = 1e-4;

/// The weights' formula of the golden set's README.
fn weights(table: &ParameterTable) -> Vec<f32> {
    let mut values = Vec::with_capacity(table.len());
    for (name, shape, range) in table.iter() {
        let hash = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let fan_in: usize = shape[1..].iter().product();
        for i in 0..range.len() as u32 {
            let mut k = i.wrapping_add(hash);
            k ^= k >> 16;
            k = k.wrapping_mul(0x85eb_ca6b);
            k ^= k >> 13;
            k = k.wrapping_mul(0xc2b2_ae35);
            k ^= k >> 16;
            let u = 2.0 * f64::from(k) / 4_294_967_296.0 - 1.0;
            values.push(match shape.len() {
                1 if name.ends_with("weight") => 1.0 + 0.1 * u,
                1 => 0.05 * u,
                _ => u / (fan_in as f64).sqrt(),
            } as f32);
        }
    }
    values
}

/// The architecture, read off the list of parameters; what the list cannot tell is the paper's (spec dppo.md §3.8).
fn network(name: &str, parameters: &Value) -> NetworkSpec {
    let shape = |key: &str| -> Option<Vec<usize>> {
        Some(parameters.get(key)?.as_array()?.iter().map(|v| v.as_u64().expect("a size") as usize).collect())
    };
    let activation = if name.starts_with("hopper") { Activation::ReLU } else { Activation::Mish };
    if let Some(dim) = shape("down_modules.0.0.blocks.0.block.0.bias") {
        let levels = (0..).map_while(|i| shape(&format!("down_modules.{i}.0.blocks.0.block.0.bias")));
        return NetworkSpec::Unet(UnetSpec {
            time_dim: shape("time_mlp.3.bias").expect("a time embedding")[0],
            dim: dim[0],
            dim_mults: levels.map(|w| w[0] / dim[0]).collect(),
            kernel_size: 5,
            groups: 8,
            // Of One-leg; the list does not say.
            group_norm_eps: 1e-4,
            activation,
            condition_encoder: ConditionEncoder::Large,
            condition_scales: true,
            cond_mlp_dims: vec![],
        });
    }
    let width = shape("mlp_mean.layers.0.bias").expect("an MLP")[0];
    let blocks = (1..).take_while(|i| shape(&format!("mlp_mean.layers.{i}.l1.bias")).is_some()).count();
    let mlp_dims = vec![width; 1 + 2 * blocks];
    let time_dim = shape("time_embedding.3.bias").expect("a time embedding")[0];
    if let Some(position) = shape("backbone.vit.pos_embed") {
        let depth = (0..).take_while(|i| shape(&format!("backbone.vit.net.{i}.linear1.bias")).is_some()).count();
        let vision = VisionSpec {
            cameras: 1,
            image_px: 96,
            embed_dim: position[2],
            heads: 4,
            depth,
            patch_embedding: PatchEmbedding::Two,
            patch_norm: false,
            compression: Compression::Spatial { dim: shape("compress.input_proj.0.bias").expect("an embedding")[0] },
        };
        return NetworkSpec::VitMlp { time_dim, mlp_dims, activation, residual: true, vision };
    }
    let encoder = (0..).map_while(|i| shape(&format!("cond_mlp.moduleList.{i}.linear_1.bias")));
    let cond: Vec<usize> = encoder.map(|w| w[0]).collect();
    NetworkSpec::diffusion_mlp(time_dim, &mlp_dims, &cond, activation)
}

fn check(c: &Case, name: &str, config: &Value, workers: &Workers) {
    let size = |key: &str| config[key].as_u64().expect("a size") as usize;
    let spec = network(name, &config["parameters"]);
    let (state_len, horizon, action_dim) = (size("obs"), size("horizon"), size("action"));
    let network = NoiseNetwork::new(&spec, state_len, horizon, action_dim).unwrap().on(workers.device());
    assert_eq!(network.table().len(), size("params"), "{name}");
    let parameters = weights(network.table());
    let array = |key: &str| format!("{name}.{key}");

    let (x, states, t) = (c.f32(&array("x")), c.f32(&array("state")), c.indices(&array("t")));
    let images = c.has(&array("rgb")).then(|| c.bytes(&array("rgb")));
    let observations = Observations { states: &states, images: images.as_deref() };
    let (rows, len) = (t.len(), network.chunk_len());
    let prepared = network.prepare(&parameters, &t);
    let mut ws = network.workspace(rows, Mode::Inference);
    let block: Vec<NoiseRow> = (0..rows)
        .map(|i| NoiseRow {
            slot: i as u32,
            chunk: &x[i * len..(i + 1) * len],
            state: observations.state(i, state_len),
            images: observations.image(i, network.image_len()),
        })
        .collect();
    let out = network.forward(&parameters, &prepared, &mut ws, &block).to_vec();
    c.compare_to(&array("out"), &out, FORWARD);

    // Every step counts as fine-tuned, so that the whole chain is kept.
    let executed = c.shape(&array("chain_det"))[1] - 1;
    let ddim = executed == 5;
    let denoising = Denoising {
        denoising_steps: if ddim { 100 } else { executed },
        finetuned_steps: executed,
        sampler: if ddim { Sampler::Ddim { steps: executed } } else { Sampler::Ddpm },
        denoised_clip: 1.0,
        noise_clip: 3.0,
        final_action_clip: None,
        prediction: Prediction::Noise,
        step_counts: Vec::new(),
    };
    let policy = Policy::from_pretrained(network, parameters, denoising);
    let mut sampler = ChainSampler::new(&policy, workers, rows);
    for (key, noise) in
        [("chain_det", StepNoise::Evaluation), ("chain_stoch", StepNoise::Exploration { min_std: 0.1, eta: 1.0 })]
    {
        let mut streams = Recorded::rows(&x, &c.f32(&array("step_noise")), len);
        let mut chains = vec![0.0; rows * (executed + 1) * len];
        let mode = ChainMode { noise, base_policy: false };
        sampler.sample(workers, &policy, mode, observations, &mut streams, &mut chains);
        c.compare_to(&array(key), &chains, CHAIN);
    }
}

#[test]
fn golden_full_size_networks() {
    let Some(c) = case("fullsize") else { return };
    for (name, config) in c.config.as_object().expect("networks") {
        devices().iter().for_each(|device| check(&c, name, config, &workers(device)));
    }
}

#[test]
fn golden_random_shift() {
    let Some(c) = case("networks") else { return };
    let (pictures, shifts) = (c.f32("random_shift.in"), c.indices("random_shift.shift"));
    let shape = c.shape("random_shift.in");
    let len: usize = shape[1..].iter().product();
    let mut out = vec![0.0; pictures.len()];
    for (i, by) in shifts.chunks_exact(2).enumerate() {
        let window = [shape[2], shape[3]];
        shift(&pictures[i * len..][..len], window, 4, (by[0], by[1]), &mut out[i * len..][..len]);
    }
    c.compare_to("random_shift.out", &out, FORWARD);
}

#[test]
fn golden_sinusoid() {
    let Some(c) = case("networks") else { return };
    let t = c.indices("sinusoidal.t");
    for name in c.names().iter().filter(|n| n.starts_with("sinusoidal.dim") && !n.ends_with(".f64")) {
        let dim = c.shape(name)[1];
        let ours: Vec<f32> = t.iter().flat_map(|&t| sinusoid(t, dim)).collect();
        // The authors' angles are formed in f32 too, where a large step loses digits.
        c.compare(name, &ours, &c.f64(name), FORWARD);
    }
}
