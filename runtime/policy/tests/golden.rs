//! Exported graphs against the golden numbers: single graph and encoder + step, single steps and whole chains, on both
//! engines.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{engines, relative_error};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tenon_core::diffusion::{Clips, Denoiser, NoiseSchedule, SampleScratch, StepNoise, denoise};
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, GaussianSpec, MlpSpec, NetworkSpec, PatchEmbedding, StdSpec,
    TransformerSpec, TrunkSpec, UnetSpec, VisionSpec,
};
use tenon_core::noise::NoiseSource;
use tenon_policy::OnnxDenoiser;
use tenon_policy::engine::{Input, Session};
use tenon_policy::graph::{Dims, NetworkGraph, Parameters, Tensor, gaussian_mean};

const TOLERANCE: f32 = 1e-5;
const CHAIN_TOLERANCE: f32 = 1e-4;

struct Case {
    config: Value,
    bytes: Vec<u8>,
}

impl Case {
    /// A case of the golden set, or a line that says why the test skips it.
    fn read(name: &str) -> Option<Self> {
        let folder = std::env::var_os("TENON_GOLDEN")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
        let (Ok(text), Ok(bytes)) =
            (fs::read(folder.join(format!("{name}.json"))), fs::read(folder.join(format!("{name}.safetensors"))))
        else {
            println!("skipped: no golden case {name} in {}", folder.display());
            return None;
        };
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        Some(Self { config: json["config"].take(), bytes })
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn array(&self, name: &str) -> Tensor {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap();
        let data = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => {
                view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            Dtype::U8 => view.data().iter().map(|&b| f32::from(b)).collect(),
            other => panic!("{name}: {other:?}"),
        };
        Tensor { shape: view.shape().to_vec(), data }
    }

    fn parameters(&self, prefix: &str) -> Parameters {
        let tensors = self.tensors();
        let names = tensors.names().into_iter().filter_map(|n| n.strip_prefix(prefix).map(str::to_string));
        names.map(|name| (name.clone(), self.array(&format!("{prefix}{name}")))).collect()
    }

    fn number(&self, key: &str) -> usize {
        usize::try_from(self.config[key].as_u64().unwrap_or_else(|| panic!("{key}"))).unwrap()
    }

    fn numbers(&self, key: &str) -> Vec<usize> {
        let list = self.config[key].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|n| n.as_u64().unwrap() as usize).collect()
    }

    fn activation(&self) -> Activation {
        match self.config["activation"].as_str() {
            Some("ReLU") => Activation::ReLU,
            _ => Activation::Mish,
        }
    }
}

/// Row i of x, t and expected has row i of state and image, which repeat.
struct Forward {
    network: NetworkSpec,
    parameters: Parameters,
    denoising_steps: usize,
    x: Tensor,
    t: Tensor,
    state: Tensor,
    image: Option<Tensor>,
    expected: Tensor,
}

/// Rows `i` modulo their number.
fn row(tensor: &Tensor, i: usize) -> &[f32] {
    let len = tensor.data.len() / tensor.shape[0];
    &tensor.data[i % tensor.shape[0] * len..][..len]
}

impl Forward {
    fn dims(&self) -> Dims {
        Dims {
            observation_horizon: self.state.shape[1],
            observation_dim: self.state.shape[2],
            prediction_horizon: self.x.shape[1],
            action_dim: self.x.shape[2],
            denoising_steps: self.denoising_steps,
        }
    }

    fn graph(&self) -> NetworkGraph<'_> {
        NetworkGraph::new(&self.network, self.dims(), &self.parameters).unwrap()
    }

    fn check(&self, name: &str) {
        let graph = self.graph();
        let rows = self.x.shape[0];
        let times: Vec<usize> = self.t.data.iter().map(|&t| t as usize).collect();
        let steps = NoiseSchedule::cosine(self.denoising_steps).ddpm_steps(StepNoise::Evaluation);
        for engine in engines() {
            let mut single = Session::load(engine, name, &graph.single_step(), 1).unwrap();
            let mut split = OnnxDenoiser::of_network(engine, name, &graph, &times).unwrap();
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            for i in 0..rows {
                let (x, state, t) = (row(&self.x, i), row(&self.state, i), times[i]);
                let mut noise = vec![0.0; x.len()];
                let index = [t as i64];
                let mut inputs = vec![Input::F32(x), Input::I64(&index), Input::F32(state)];
                inputs.extend(self.image.as_ref().map(|image| Input::F32(row(image, i))));
                single.run(&inputs, &mut [&mut noise]).unwrap();
                whole.extend_from_slice(&noise);
                if let Some(image) = &self.image {
                    split.set_image(row(image, i)).unwrap();
                }
                split.condition(state).unwrap();
                let step = steps.iter().find(|s| s.t == t).unwrap();
                split.predict_noise(step, x, &mut noise).unwrap();
                parts.extend_from_slice(&noise);
            }
            let errors = [&whole, &parts].map(|found| relative_error(found, &self.expected.data));
            println!("{engine} {name}: one graph {:.1e}, split {:.1e}", errors[0], errors[1]);
            assert!(errors.iter().all(|&e| e <= TOLERANCE), "{engine} {name}: {errors:?}");
        }
    }
}

/// A DPPO case: `forward.actor` at (pmv.x, pmv.t), row i under condition i mod batch.
fn check_dppo(name: &str, case: &Case, network: &NetworkSpec) {
    for actor in ["actor", "actor_ft"] {
        let forward = Forward {
            network: network.clone(),
            parameters: case.parameters(&format!("{actor}.")),
            denoising_steps: case.number("denoising_steps"),
            x: case.array("pmv.x"),
            t: case.array("pmv.t"),
            state: case.array("cond.state"),
            image: network.vision().map(|_| case.array("cond.rgb")),
            expected: case.array(&format!("forward.{actor}")),
        };
        forward.check(&format!("{name} {actor}"));
    }
}

fn mlp(time_dim: usize, dims: &[usize], activation: Activation, residual: bool, layer_norm: bool) -> NetworkSpec {
    let (mlp_dims, cond_mlp_dims) = (dims.to_vec(), vec![]);
    NetworkSpec::DiffusionMlp { time_dim, mlp_dims, cond_mlp_dims, activation, residual, layer_norm }
}

/// A U-Net with the authors' usual settings.
fn unet(time_dim: usize, dim: usize, dim_mults: &[usize], groups: usize) -> UnetSpec {
    UnetSpec {
        time_dim,
        dim,
        dim_mults: dim_mults.to_vec(),
        kernel_size: 5,
        groups,
        group_norm_eps: 1e-5,
        activation: Activation::Mish,
        condition_encoder: ConditionEncoder::Large,
        condition_scales: true,
        cond_mlp_dims: vec![],
    }
}

fn vision(cameras: usize, image_px: usize, embed_dim: usize, heads: usize, compression: Compression) -> VisionSpec {
    let (depth, patch_embedding, patch_norm) = (1, PatchEmbedding::Two, false);
    VisionSpec { cameras, image_px, embed_dim, heads, depth, patch_embedding, patch_norm, compression }
}

fn vit_mlp(time_dim: usize, mlp_dims: &[usize], vision: VisionSpec) -> NetworkSpec {
    let (activation, residual) = (Activation::Mish, true);
    NetworkSpec::VitMlp { time_dim, mlp_dims: mlp_dims.to_vec(), activation, residual, vision }
}

#[test]
fn golden_mlp_forward_passes_are_reproduced() {
    for name in ["dppo_mlp_ddpm", "dppo_mlp_ddim", "dppo_mlp_condmlp"] {
        let Some(case) = Case::read(name) else { continue };
        let (dims, cond) = (case.numbers("mlp_dims"), case.numbers("cond_mlp_dims"));
        let network = NetworkSpec::diffusion_mlp(case.number("time_dim"), &dims, &cond, case.activation());
        check_dppo(name, &case, &network);
    }
}

#[test]
fn golden_unet_forward_passes_are_reproduced() {
    let Some(case) = Case::read("dppo_unet_ddim") else { return };
    let (time_dim, dim) = (case.number("diffusion_step_embed_dim"), case.number("dim"));
    let network = NetworkSpec::Unet(UnetSpec {
        kernel_size: case.number("kernel_size"),
        group_norm_eps: case.config["groupnorm_eps"].as_f64().unwrap() as f32,
        ..unet(time_dim, dim, &case.numbers("dim_mults"), case.number("n_groups"))
    });
    check_dppo("dppo_unet_ddim", &case, &network);
}

#[test]
fn golden_vit_forward_passes_are_reproduced() {
    let Some(case) = Case::read("dppo_vit_ddim") else { return };
    let spatial = Compression::Spatial { dim: case.number("spatial_emb") };
    let vision = vision(1, case.number("image"), case.number("embed_dim"), case.number("num_heads"), spatial);
    check_dppo("dppo_vit_ddim", &case, &vit_mlp(case.number("time_dim"), &case.numbers("mlp_dims"), vision));
}

#[test]
fn golden_forward_passes_of_every_other_denoising_network_are_reproduced() {
    let Some(case) = Case::read("networks") else { return };
    let small = UnetSpec { condition_encoder: ConditionEncoder::Small, ..unet(8, 8, &[1, 2], 4) };
    let cond_mlp = UnetSpec { cond_mlp_dims: vec![16, 16, 16, 12], condition_scales: false, ..small.clone() };
    let no_norm = UnetSpec { groups: 0, activation: Activation::ReLU, condition_scales: false, ..small.clone() };
    let vision = |cameras, compression| vision(cameras, 24, 16, 2, compression);
    let (spatial, flat) = (Compression::Spatial { dim: 8 }, Compression::Flat { dim: 12 });
    let networks = [
        ("mlp_residual_layernorm", mlp(16, &[32; 3], Activation::Mish, true, true)),
        ("mlp_plain_Tanh", mlp(8, &[24, 20], Activation::Tanh, false, false)),
        ("mlp_plain_GELU", mlp(8, &[24, 20], Activation::Gelu, false, true)),
        ("mlp_plain_ELU", mlp(8, &[24, 20], Activation::Elu, false, false)),
        ("unet_smallenc", NetworkSpec::Unet(small.clone())),
        ("unet_condmlp", NetworkSpec::Unet(cond_mlp)),
        ("unet_nogroupnorm", NetworkSpec::Unet(no_norm)),
        ("vision_mlp_two_cameras", vit_mlp(8, &[24; 3], vision(2, spatial))),
        ("vision_mlp_flat", vit_mlp(8, &[24; 3], vision(1, flat))),
        ("vision_unet", NetworkSpec::VitUnet { vision: vision(1, spatial), unet: small }),
    ];
    for (name, network) in networks {
        let array = |part: &str| case.array(&format!("{name}.{part}"));
        let forward = Forward {
            image: network.vision().map(|_| array("in.rgb")),
            network,
            parameters: case.parameters(&format!("{name}.w.")),
            denoising_steps: 100,
            x: array("in.x"),
            t: array("in.t"),
            state: array("in.state"),
            expected: array("out"),
        };
        forward.check(name);
    }
}

#[test]
fn golden_means_of_gaussian_networks_are_reproduced() {
    let Some(case) = Case::read("networks") else { return };
    let dims =
        Dims { observation_horizon: 1, observation_dim: 11, prediction_horizon: 4, action_dim: 3, denoising_steps: 1 };
    let mlp = |dims: [usize; 3], residual| {
        TrunkSpec::Mlp(MlpSpec { dims: dims.to_vec(), activation: Activation::Mish, residual, layer_norm: false })
    };
    let transformer = |layers| TrunkSpec::Transformer(TransformerSpec { embed_dim: 16, heads: 2, layers });
    let per_state = StdSpec::PerState { min: 0.01, max: 1.0 };
    let learned = StdSpec::Learned { std: 0.1, min: 0.01, max: 1.0 };
    for (name, trunk, std, modes) in [
        ("gaussian_mlp_learnedstd", mlp([24; 3], false), per_state, 0),
        ("gaussian_mlp_fixedstd", mlp([24; 3], true), learned, 0),
        ("gmm_mlp", mlp([16; 3], true), per_state, 5),
        ("gaussian_transformer", transformer(2), per_state, 0),
        ("gmm_transformer", transformer(1), learned, 3),
    ] {
        let spec = GaussianSpec { trunk, std, modes, tanh_mean: true };
        let mut parameters = case.parameters(&format!("{name}.w."));
        // Bounds of the deviation are part of the description.
        parameters.retain(|name, _| name != "logvar_min" && name != "logvar_max");
        let model = gaussian_mean(&spec, &dims, &parameters).unwrap();
        let (state, expected) = (case.array(&format!("{name}.in.state")), case.array(&format!("{name}.out0")));
        for engine in engines() {
            let mut session = Session::load(engine, name, &model, 1).unwrap();
            let mut found = vec![0.0; expected.data.len()];
            for (i, mean) in found.chunks_exact_mut(spec.modes.max(1) * dims.chunk_len()).enumerate() {
                session.run(&[Input::F32(row(&state, i))], &mut [mean]).unwrap();
            }
            let error = relative_error(&found, &expected.data);
            println!("{engine} {name}: {error:.1e}");
            assert!(error <= TOLERANCE, "{engine} {name}: {error}");
        }
    }
}

/// The value of a full-size network's parameter by the formula of the golden set.
fn formula(name: &str, shape: &[usize]) -> Tensor {
    let hash = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let data = (0..shape.iter().product::<usize>() as u32).map(|i| {
        let mut k = i.wrapping_add(hash);
        k = (k ^ (k >> 16)).wrapping_mul(0x85eb_ca6b);
        k = (k ^ (k >> 13)).wrapping_mul(0xc2b2_ae35);
        k ^= k >> 16;
        let u = 2.0 * f64::from(k) / 4_294_967_296.0 - 1.0;
        let value = match shape.len() {
            1 if name.ends_with("weight") => 1.0 + 0.1 * u,
            1 => 0.05 * u,
            _ => u / fan_in.sqrt(),
        };
        value as f32
    });
    Tensor { shape: shape.to_vec(), data: data.collect() }
}

/// Draws of the golden set, in order.
struct Replay<'a>(Vec<&'a [f32]>);

impl NoiseSource for Replay<'_> {
    fn fill_standard_normal(&mut self, out: &mut [f32]) {
        out.copy_from_slice(self.0.remove(0));
    }
}

#[test]
fn golden_full_size_networks_and_their_chains_are_reproduced() {
    let Some(case) = Case::read("fullsize") else { return };
    let ddpm = NoiseSchedule::cosine(20).ddpm_steps(StepNoise::Evaluation);
    let ddim = NoiseSchedule::cosine(100).ddim_steps(5, StepNoise::Evaluation);
    let one_leg = UnetSpec { group_norm_eps: 1e-4, ..unet(16, 64, &[1, 2, 4], 8) };
    let spatial = vision(1, 96, 128, 4, Compression::Spatial { dim: 128 });
    for (name, network, steps) in [
        ("hopper_mlp", NetworkSpec::diffusion_mlp(16, &[512; 3], &[], Activation::ReLU), &ddpm),
        ("furniture_unet", NetworkSpec::Unet(one_leg), &ddim),
        ("vit_mlp", vit_mlp(32, &[768; 3], spatial), &ddim),
    ] {
        let array = |part: &str| case.array(&format!("{name}.{part}"));
        let (x, state) = (array("x"), array("state"));
        let listed = network.parameters(state.shape[1] * state.shape[2], x.shape[1], x.shape[2]);
        assert_eq!(listed.len(), case.config[name]["parameters"].as_object().unwrap().len(), "{name}");
        let forward = Forward {
            parameters: listed.iter().map(|(name, shape)| (name.clone(), formula(name, shape))).collect(),
            image: network.vision().map(|_| array("rgb")),
            network,
            denoising_steps: if steps.len() == 20 { 20 } else { 100 },
            t: array("t"),
            expected: array("out"),
            x,
            state,
        };
        forward.check(name);
        let (chains, draws) = (array("chain_det"), array("step_noise"));
        let graph = forward.graph();
        let times: Vec<usize> = steps.iter().map(|s| s.t).collect();
        let clips = Clips { denoised: 1.0, noise: 3.0, final_action: None };
        for engine in engines() {
            let mut denoiser = OnnxDenoiser::of_network(engine, name, &graph, &times).unwrap();
            for i in 0..forward.x.shape[0] {
                if let Some(image) = &forward.image {
                    denoiser.set_image(row(image, i)).unwrap();
                }
                denoiser.condition(row(&forward.state, i)).unwrap();
                let mut chunk = row(&forward.x, i).to_vec();
                let len = chunk.len();
                let draw = |step: usize| &draws.data[(step * draws.shape[1] + i) * len..][..len];
                let mut source = Replay((0..steps.len()).map(draw).collect());
                let mut scratch = SampleScratch::new(len);
                denoise(&mut denoiser, steps, clips, &mut source, &mut scratch, &mut chunk).unwrap();
                let chain = row(&chains, i);
                let error = relative_error(&chunk, &chain[chain.len() - len..]);
                println!("{engine} {name}: chain {error:.1e}");
                assert!(error <= CHAIN_TOLERANCE, "{engine} {name}: chain {error}");
            }
        }
    }
}
