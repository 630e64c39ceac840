//! Policies that nobody here wrote: both engines run every reference network and agree with its outputs.

mod common;

use std::fs::{self, File};
use std::path::PathBuf;

use common::{engines, relative_error};
use ndarray_npz::NpzReader;
use ndarray_npz::ndarray::{IxDyn, OwnedRepr};
use tenon_core::diffusion::{Clips, Denoiser, NoiseSchedule, SampleScratch, StepNoise, denoise};
use tenon_core::noise::SeededNoise;
use tenon_policy::engine::{Input, Session};
use tenon_policy::onnx::ElementType;
use tenon_policy::{Engine, OnnxDenoiser};

const TOLERANCE: f32 = 2e-5;

/// The folder of reference models, or a line that says why the test skips.
fn models() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/onnx");
    if !folder.is_dir() {
        println!("skipped: no reference models at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// An array of an .npz: its shape and values as f32 (t: whole numbers).
struct Array {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Reads an array; integers become f32.
fn array(npz: &mut NpzReader<std::fs::File>, name: &str) -> Array {
    let name = format!("{name}.npy");
    if let Ok(a) = npz.by_name::<OwnedRepr<f32>, IxDyn>(&name) {
        return Array { shape: a.shape().to_vec(), data: a.iter().copied().collect() };
    }
    let a = npz.by_name::<OwnedRepr<i64>, IxDyn>(&name).unwrap();
    Array { shape: a.shape().to_vec(), data: a.iter().map(|&v| v as f32).collect() }
}

#[test]
fn both_engines_agree_with_every_reference_output() {
    let Some(folder) = models() else { return };
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for engine in engines() {
        for file in &files {
            let model = fs::read(file).unwrap();
            let mut npz = NpzReader::new(File::open(file.with_extension("npz")).unwrap()).unwrap();
            let interface = tenon_policy::onnx::interface(&model).unwrap();
            let inputs: Vec<_> = interface.inputs.iter().map(|i| array(&mut npz, &i.name)).collect();
            let batch = inputs[0].shape[0];
            let name = file.file_name().unwrap().to_str().unwrap();
            let mut session = Session::load(engine, name, &model, batch).unwrap();
            for (port, array) in session.inputs().iter().zip(&inputs) {
                assert_eq!(port.shape, array.shape, "{name}: {}", port.name);
            }
            let indices: Vec<Vec<i64>> = inputs.iter().map(|a| a.data.iter().map(|&v| v as i64).collect()).collect();
            let given: Vec<Input> = session
                .inputs()
                .iter()
                .enumerate()
                .map(|(i, port)| match port.element_type {
                    ElementType::I64 => Input::I64(&indices[i]),
                    _ => Input::F32(&inputs[i].data),
                })
                .collect();
            let expected = array(&mut npz, "out");
            let mut found = vec![0.0; expected.data.len()];
            session.run(&given, &mut [&mut found]).unwrap();
            let error = relative_error(&found, &expected.data);
            println!("{engine} {name}: {error:.1e}");
            assert!(error <= TOLERANCE, "{engine} {name}: {error}");
        }
    }
}

#[test]
fn the_ddim_loop_around_the_step_network_is_the_one_graph_export() {
    let Some(folder) = models() else { return };
    let mut npz = NpzReader::new(File::open(folder.join("lift_mlp_ddim5_b1.npz")).unwrap()).unwrap();
    let (x, state) = (array(&mut npz, "x"), array(&mut npz, "state"));
    let expected = array(&mut npz, "out");
    let model = fs::read(folder.join("lift_mlp_step_dyn.onnx")).unwrap();
    let steps = NoiseSchedule::cosine(100).ddim_steps(5, StepNoise::Evaluation);
    let clips = Clips { denoised: 1.0, noise: 3.0, final_action: None };
    for engine in engines() {
        let mut denoiser = OnnxDenoiser::single_step(engine, "lift_mlp_step_dyn", &model).unwrap();
        let mut chunk = x.data.clone();
        let mut scratch = SampleScratch::new(chunk.len());
        denoiser.condition(&state.data).unwrap();
        denoise(&mut denoiser, &steps, clips, &mut SeededNoise::new(0, 0), &mut scratch, &mut chunk).unwrap();
        let error = relative_error(&chunk, &expected.data);
        println!("{engine}: {error:.1e}");
        assert!(error <= TOLERANCE, "{engine}: {error}");
    }
}

#[test]
fn a_model_with_other_inputs_is_refused_with_its_names() {
    let Some(folder) = models() else { return };
    let model = fs::read(folder.join("lift_mlp_ddim5_b1.onnx")).unwrap();
    let error = OnnxDenoiser::single_step(Engine::Tract, "chain.onnx", &model).unwrap_err().to_string();
    assert!(error.contains("chain.onnx") && error.contains("`t`") && error.contains("state"), "{error}");
}
