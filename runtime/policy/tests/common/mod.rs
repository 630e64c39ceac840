//! Shared by the tests: which engines run, comparison relative to the largest value.

use tenon_policy::Engine;

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

/// Largest difference over the largest magnitude of `expected`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error.is_finite());
    error / largest
}
