//! Our own exports: encoder + step, the single graph and the unrolled chain agree, on both engines.

mod common;
#[path = "common/policy.rs"]
mod policy;

use common::{engines, relative_error};
use policy::{provenance, spec};
use tenon_core::diffusion::{Clips, Denoiser, NoiseSchedule, SampleScratch, StepNoise, denoise};
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, NetworkSpec, PatchEmbedding, UnetSpec, VisionSpec,
};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::pictures::{PicturesSeen, Quality};
use tenon_core::spec::{PolicySpec, Sampler};
use tenon_policy::bench::{InferOptions, infer, networks};
use tenon_policy::engine::{Input, Session};
use tenon_policy::graph::{Dims, NetworkGraph, random_parameters};
use tenon_policy::{Bundle, BundleContent, BundleWriter, Engine, OnnxDenoiser, PolicyError};

const TOLERANCE: f32 = 2e-5;

fn draw(seed: u64, len: usize) -> Vec<f32> {
    let mut data = vec![0.0; len];
    SeededNoise::new(seed, 0).fill_standard_normal(&mut data);
    data
}

#[test]
fn split_single_and_chain_graphs_agree_on_both_engines() {
    let steps = NoiseSchedule::cosine(100).ddim_steps(5, StepNoise::Evaluation);
    let times: Vec<usize> = steps.iter().map(|s| s.t).collect();
    let clips = Clips { denoised: 1.0, noise: 3.0, final_action: Some(1.0) };
    for (name, network, dims) in networks() {
        let parameters = random_parameters(&network, &dims, 3);
        let graph = NetworkGraph::new(&network, dims, &parameters).unwrap();
        let (x, state) = (draw(1, dims.chunk_len()), draw(2, dims.state_len()));
        let image: Vec<f32> = draw(3, graph.image_len()).iter().map(|v| 127.5 + 50.0 * v).collect();
        let mut condition = vec![Input::F32(&state)];
        condition.extend((!image.is_empty()).then_some(Input::F32(&image)));
        let mut reference: Option<(Vec<f32>, Vec<f32>)> = None;
        for engine in engines() {
            let mut split = OnnxDenoiser::of_network(engine, name, &graph, &times).unwrap();
            split.set_image(&image).unwrap();
            split.condition(&state).unwrap();
            let mut single = Session::load(engine, name, &graph.single_step(), 1).unwrap();
            let mut all_steps = Vec::new();
            for step in &steps {
                let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                split.predict_noise(step, &x, &mut a).unwrap();
                let t = [step.t as i64];
                let inputs = [&[Input::F32(&x), Input::I64(&t)][..], &condition].concat();
                single.run(&inputs, &mut [&mut b]).unwrap();
                let error = relative_error(&a, &b);
                assert!(error <= TOLERANCE, "{engine} {name} t = {}: {error}", step.t);
                all_steps.extend(a);
            }
            let mut action = x.clone();
            let mut scratch = SampleScratch::new(x.len());
            denoise(&mut split, &steps, clips, &mut SeededNoise::new(0, 0), &mut scratch, &mut action).unwrap();
            let mut unrolled = vec![0.0; x.len()];
            let inputs = [&[Input::F32(&x)][..], &condition].concat();
            let mut chain = Session::load(engine, name, &graph.chain(&steps, clips).unwrap(), 1).unwrap();
            chain.run(&inputs, &mut [&mut unrolled]).unwrap();
            let error = relative_error(&action, &unrolled);
            println!("{engine} {name}: chain {error:.1e}");
            assert!(error <= TOLERANCE, "{engine} {name}: chain {error}");
            match &reference {
                None => reference = Some((all_steps, action)),
                Some((steps, chain)) => {
                    let errors = [relative_error(&all_steps, steps), relative_error(&action, chain)];
                    println!("{name}: engines differ by {errors:?}");
                    assert!(errors.iter().all(|&e| e <= TOLERANCE), "{name}: {errors:?}");
                }
            }
        }
    }
}

#[test]
fn every_kind_of_network_survives_its_bundle() {
    let unet = UnetSpec {
        time_dim: 8,
        dim: 8,
        dim_mults: vec![1, 2],
        kernel_size: 5,
        groups: 4,
        group_norm_eps: 1e-5,
        activation: Activation::Mish,
        condition_encoder: ConditionEncoder::Small,
        condition_scales: false,
        cond_mlp_dims: vec![16, 12],
    };
    let vision = VisionSpec {
        cameras: 2,
        image_px: 24,
        embed_dim: 16,
        heads: 2,
        depth: 1,
        patch_embedding: PatchEmbedding::One,
        patch_norm: false,
        compression: Compression::Spatial { dim: 8 },
    };
    let flat = VisionSpec {
        cameras: 1,
        patch_embedding: PatchEmbedding::Two,
        patch_norm: true,
        compression: Compression::Flat { dim: 12 },
        ..vision.clone()
    };
    let plain = NetworkSpec::DiffusionMlp {
        time_dim: 8,
        mlp_dims: vec![24, 20],
        cond_mlp_dims: vec![12, 6],
        activation: Activation::Elu,
        residual: false,
        layer_norm: true,
    };
    let vit_mlp = NetworkSpec::VitMlp {
        time_dim: 8,
        mlp_dims: vec![24; 3],
        activation: Activation::Gelu,
        residual: true,
        vision: flat,
    };
    let mut spec = spec(Sampler::Ddim { steps: 5 }, 100, 0);
    let dims = Dims::of(&spec);
    let (state, x) = ([0.3, -0.2, 0.25, -0.1], [0.5, -1.0, 0.1, 0.2, -0.3, 0.9, 1.5, -0.7]);
    for network in [plain, NetworkSpec::Unet(unet.clone()), vit_mlp, NetworkSpec::VitUnet { vision, unet }] {
        let temporary = tempfile::tempdir().unwrap();
        let (parameters, provenance) = (random_parameters(&network, &dims, 1), provenance());
        let (base, finetuned) = (Some(&parameters), None);
        let names = (0..network.vision().map_or(0, |vision| vision.cameras)).map(|i| format!("camera{i}"));
        spec.pictures = network.vision().map(|_| PicturesSeen { quality: Quality::Fast, cameras: names.collect() });
        let content = BundleContent { spec: &spec, network: &network, base, finetuned, provenance: &provenance };
        let writer = BundleWriter::create(temporary.path().join("p"), false, &content).unwrap();
        let bundle = Bundle::open(writer.commit().unwrap()).unwrap();
        assert_eq!((&bundle.manifest().network, bundle.spec()), (&network, &spec));
        let text = bundle.describe();
        let seen = spec.pictures.as_ref().map_or("pictures     none", |_| "camera0");
        assert!(text.contains(seen) && text.matches("[-1, 1]").count() == 6, "{text}");
        if let Some(pictures) = &spec.pictures {
            let quality = pictures.quality;
            let other = PicturesSeen { quality, cameras: [&pictures.cameras[..], &["more".into()]].concat() };
            let other = PolicySpec { pictures: Some(other), ..spec.clone() };
            let content = BundleContent { spec: &other, ..content };
            let refused = BundleWriter::create(temporary.path().join("more"), false, &content).unwrap_err().to_string();
            assert!(refused.contains("more") && refused.contains("pictures.cameras"), "{refused}");
        }
        let graph = NetworkGraph::new(&network, dims, &parameters).unwrap();
        let image: Vec<f32> = (0..graph.image_len()).map(|i| (i * 37 % 256) as f32).collect();
        for engine in engines() {
            let mut denoiser = bundle.denoiser(engine).unwrap();
            denoiser.set_image(&image).unwrap();
            denoiser.condition(&state).unwrap();
            let step = bundle.steps(StepNoise::Evaluation)[1];
            let (mut found, mut expected) = ([0.0; 8], [0.0; 8]);
            denoiser.predict_noise(&step, &x, &mut found).unwrap();
            let t = [step.t as i64];
            let mut inputs = vec![Input::F32(&x), Input::I64(&t), Input::F32(&state)];
            inputs.extend((!image.is_empty()).then_some(Input::F32(&image)));
            let mut single = Session::load(engine, "single", &graph.single_step(), 1).unwrap();
            single.run(&inputs, &mut [&mut expected]).unwrap();
            assert!(relative_error(&found, &expected) <= 2e-5, "{engine} {network:?}");
        }
    }
}

#[test]
fn parameters_that_do_not_fit_are_named() {
    let (_, network, dims) = networks().into_iter().next().unwrap();
    let sound = random_parameters(&network, &dims, 1);
    let error = |parameters| NetworkGraph::new(&network, dims, &parameters).unwrap_err().to_string();
    let mut missing = sound.clone();
    missing.remove("time_embedding.3.bias");
    assert!(error(missing).contains("`time_embedding.3.bias` is missing"));
    let mut wrong = sound.clone();
    wrong.get_mut("mlp_mean.layers.0.weight").unwrap().shape = vec![512, 62];
    assert!(error(wrong).contains("expected shape [512, 63], found [512, 62]"));
    let mut extra = sound.clone();
    extra.insert("mlp_mean.layers.9.bias".into(), sound["mlp_mean.layers.0.bias"].clone());
    assert!(error(extra).contains("`mlp_mean.layers.9.bias` does not belong"));
}

#[test]
fn a_quick_benchmark_prints_a_line_for_every_network_and_engine() {
    let mut printed = 0;
    let lines = infer(&InferOptions { models: None, quick: true }, |_| printed += 1).unwrap();
    assert_eq!((lines.len(), printed), (8 * engines().len(), lines.len()));
    for line in &lines {
        assert!(line.p50 > 0.0 && line.p50 <= line.p99 && line.p99 <= line.max, "{line}");
        println!("{line}");
    }
    let json = serde_json::to_value(&lines[0]).unwrap();
    let keys = ["bench", "unit", "n", "p50", "p99", "max", "peer", "peer_p50", "ratio"];
    assert!(keys.iter().all(|k| json.get(k).is_some()) && json.as_object().unwrap().len() == keys.len());
    assert_eq!(lines[0].bench, "infer/lift_mlp/step/tract");
}

#[test]
fn an_unknown_engine_is_an_error_with_the_names_there_are() {
    let error = "onnx".parse::<Engine>().unwrap_err().to_string();
    assert!(error.contains("`onnx`") && error.contains("tract") && error.contains("onnxruntime"));
    assert_eq!("onnxruntime".parse::<Engine>().unwrap(), Engine::OnnxRuntime);
}

/// Runs in a process of its own, because the library of a process is chosen once.
#[test]
fn a_missing_library_is_an_error_and_never_a_fallback() {
    const CHILD: &str = "TENON_TEST_MISSING_LIBRARY";
    if std::env::var_os(CHILD).is_some() {
        let error = Engine::OnnxRuntime.available().unwrap_err().to_string();
        assert!(error.contains("TENON_ONNXRUNTIME") && error.contains("/no/such/library.so"), "{error}");
        let (name, network, dims) = networks().into_iter().next().unwrap();
        let parameters = random_parameters(&network, &dims, 1);
        let model = NetworkGraph::new(&network, dims, &parameters).unwrap().single_step();
        let loaded = Session::load(Engine::OnnxRuntime, name, &model, 1);
        assert!(matches!(loaded, Err(PolicyError::EngineUnavailable { engine: "onnxruntime", .. })), "{loaded:?}");
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_missing_library_is_an_error_and_never_a_fallback"])
        .env(CHILD, "1")
        .env("TENON_ONNXRUNTIME", "/no/such/library.so")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}
