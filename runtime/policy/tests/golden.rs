//! Exported graphs against the golden forward passes: single graph and encoder + step, on both engines.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{engines, relative_error};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tenon_core::network::{Activation, NetworkSpec};
use tenon_policy::engine::{Input, Session};
use tenon_policy::graph::{Dims, NetworkGraph, Parameters, Tensor, features_len};

const TOLERANCE: f32 = 1e-5;

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
        match self.config["activation"].as_str().or(self.config["activation_type"].as_str()) {
            Some("ReLU") => Activation::ReLU,
            _ => Activation::Mish,
        }
    }
}

/// Rows of the inputs, `rows[i]` = x, t, state, image; the condition repeats.
struct Forward<'a> {
    network: &'a NetworkSpec,
    parameters: &'a Parameters,
    dims: Dims,
    x: Tensor,
    t: Tensor,
    state: Tensor,
    image: Option<Tensor>,
    expected: Tensor,
}

fn check(name: &str, case: &Forward) {
    let graph = NetworkGraph::new(case.network, case.dims, case.parameters).unwrap();
    let (chunk_len, state_len) = (case.dims.chunk_len(), case.dims.state_len());
    let rows = case.x.data.len() / chunk_len;
    let conditions = case.state.data.len() / state_len;
    let times: Vec<usize> = case.t.data.iter().map(|&t| t as usize).collect();
    for engine in engines() {
        let mut single = Session::load(engine, name, &graph.single_step(), 1).unwrap();
        let mut encoder = Session::load(engine, name, &graph.encoder(&times).unwrap(), 1).unwrap();
        let mut step = Session::load(engine, name, &graph.step(), 1).unwrap();
        let width = features_len(case.network);
        let (mut whole, mut split) = (vec![0.0; rows * chunk_len], vec![0.0; rows * chunk_len]);
        for row in 0..rows {
            let condition = row % conditions;
            let x = &case.x.data[row * chunk_len..][..chunk_len];
            let state = &case.state.data[condition * state_len..][..state_len];
            let image = case.image.as_ref().map(|image| {
                let len = image.data.len() / conditions;
                Input::F32(&image.data[condition * len..][..len])
            });
            let t = [times[row] as i64];
            let mut inputs = vec![Input::F32(x), Input::I64(&t), Input::F32(state)];
            inputs.extend(image);
            single.run(&inputs, &mut [&mut whole[row * chunk_len..][..chunk_len]]).unwrap();
            let mut features = vec![0.0; rows * width];
            let mut inputs = vec![Input::F32(state)];
            inputs.extend(image);
            encoder.run(&inputs, &mut [&mut features]).unwrap();
            let inputs = [Input::F32(x), Input::F32(&features[row * width..][..width])];
            step.run(&inputs, &mut [&mut split[row * chunk_len..][..chunk_len]]).unwrap();
        }
        let errors = [&whole, &split].map(|found| relative_error(found, &case.expected.data));
        println!("{engine} {name}: one graph {:.1e}, split {:.1e}", errors[0], errors[1]);
        assert!(errors.iter().all(|&e| e <= TOLERANCE), "{engine} {name}: {errors:?}");
    }
}

/// A DPPO case: `forward.actor` at (pmv.x, pmv.t), row i under condition i mod batch.
fn check_dppo(name: &str, case: &Case, network: &NetworkSpec) {
    let dims = Dims {
        observation_horizon: case.number("cond_steps"),
        observation_dim: case.number("obs_dim"),
        prediction_horizon: case.number("horizon_steps"),
        action_dim: case.number("action_dim"),
        denoising_steps: case.number("denoising_steps"),
    };
    let image = matches!(network, NetworkSpec::VitMlp { .. }).then(|| case.array("cond.rgb"));
    for actor in ["actor", "actor_ft"] {
        check(
            &format!("{name} {actor}"),
            &Forward {
                network,
                parameters: &case.parameters(&format!("{actor}.")),
                dims,
                x: case.array("pmv.x"),
                t: case.array("pmv.t"),
                state: case.array("cond.state"),
                image: image.clone(),
                expected: case.array(&format!("forward.{actor}")),
            },
        );
    }
}

#[test]
fn golden_mlp_forward_passes_are_reproduced() {
    for name in ["dppo_mlp_ddpm", "dppo_mlp_ddim", "dppo_mlp_condmlp"] {
        let Some(case) = Case::read(name) else { continue };
        let network = NetworkSpec::DiffusionMlp {
            time_dim: case.number("time_dim"),
            mlp_dims: case.numbers("mlp_dims"),
            cond_mlp_dims: case.numbers("cond_mlp_dims"),
            activation: case.activation(),
        };
        check_dppo(name, &case, &network);
    }
}

#[test]
fn golden_unet_forward_passes_are_reproduced() {
    let Some(case) = Case::read("dppo_unet_ddim") else { return };
    let network = NetworkSpec::Unet {
        time_dim: case.number("diffusion_step_embed_dim"),
        dim: case.number("dim"),
        dim_mults: case.numbers("dim_mults"),
        kernel_size: case.number("kernel_size"),
        groups: case.number("n_groups"),
        group_norm_eps: case.config["groupnorm_eps"].as_f64().unwrap() as f32,
    };
    check_dppo("dppo_unet_ddim", &case, &network);
}

#[test]
fn golden_vit_forward_passes_are_reproduced() {
    let Some(case) = Case::read("dppo_vit_ddim") else { return };
    let network = NetworkSpec::VitMlp {
        time_dim: case.number("time_dim"),
        mlp_dims: case.numbers("mlp_dims"),
        activation: case.activation(),
        cameras: 1,
        image_px: case.number("image"),
        embed_dim: case.number("embed_dim"),
        heads: case.number("num_heads"),
        depth: case.number("depth"),
        spatial_emb: case.number("spatial_emb"),
    };
    check_dppo("dppo_vit_ddim", &case, &network);
}

#[test]
fn golden_two_camera_forward_passes_are_reproduced() {
    let Some(mut case) = Case::read("networks") else { return };
    let name = "vision_mlp_two_cameras";
    case.config = case.config[name].take();
    let parameters = case.parameters(&format!("{name}.w."));
    let (x, state) = (case.array(&format!("{name}.in.x")), case.array(&format!("{name}.in.state")));
    let patch = &parameters["backbone.vit.patch_embed.embed.0.weight"].shape;
    let network = NetworkSpec::VitMlp {
        time_dim: case.number("time_dim"),
        mlp_dims: case.numbers("mlp_dims"),
        activation: case.activation(),
        cameras: case.number("num_img"),
        image_px: case.number("image"),
        embed_dim: patch[0],
        heads: case.config["num_heads"].as_u64().unwrap_or(2) as usize,
        depth: parameters.keys().filter(|k| k.ends_with("layer_norm1.weight")).count(),
        spatial_emb: case.number("spatial_emb"),
    };
    let dims = Dims {
        observation_horizon: state.shape[1],
        observation_dim: state.shape[2],
        prediction_horizon: x.shape[1],
        action_dim: x.shape[2],
        denoising_steps: 100,
    };
    let array = |part: &str| case.array(&format!("{name}.{part}"));
    check(
        name,
        &Forward {
            network: &network,
            parameters: &parameters,
            dims,
            x,
            t: array("in.t"),
            state,
            image: Some(array("in.rgb")),
            expected: array("out"),
        },
    );
}
