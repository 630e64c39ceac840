//! Shared by the tests: where the reference data lies, which engines run, comparison relative to the largest value.

use std::path::PathBuf;

use ndarray_npz::NpzReader;
use tenon_policy::Engine;

/// The folder of reference models, or a line that says why the test skips.
pub fn models() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/onnx");
    if !folder.is_dir() {
        println!("skipped: no reference models at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The engines to test: ONNX Runtime only where its library is, with a line that says so.
pub fn engines() -> Vec<Engine> {
    Engine::ALL
        .into_iter()
        .filter(|engine| match engine.available() {
            Ok(()) => true,
            Err(e) => {
                println!("skipped for {engine}: {e}");
                assert_eq!(*engine, Engine::OnnxRuntime, "tract needs nothing");
                false
            }
        })
        .collect()
}

/// An array of an .npz: its shape and values as f32 (t: whole numbers).
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Reads an array; integers become f32.
pub fn array(npz: &mut NpzReader<std::fs::File>, name: &str) -> Array {
    if let Ok(a) = npz.by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(name) {
        return Array { shape: a.shape().to_vec(), data: a.iter().copied().collect() };
    }
    let a = npz.by_name::<ndarray::OwnedRepr<i64>, ndarray::IxDyn>(name).unwrap();
    Array { shape: a.shape().to_vec(), data: a.iter().map(|&v| v as f32).collect() }
}

/// Largest difference over the largest magnitude of `expected`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error.is_finite());
    error / largest
}
