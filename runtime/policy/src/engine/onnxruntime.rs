//! ONNX Runtime through `ort`, loaded from a shared library at run time, one thread a session.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::{Input, Port, RunError, Sink};
use crate::error::PolicyError;

/// The library that setup and installation put in place.
const LIBRARY: &str = "libonnxruntime.so.1.32.0";
/// Names the library explicitly; nothing else is tried then.
const VARIABLE: &str = "TENON_ONNXRUNTIME";

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// The library that would be loaded: `$TENON_ONNXRUNTIME`, else beside the installed program (`../lib`), else the
/// `.deps/lib` of the source tree that the program was built from.
pub fn library_path() -> Result<PathBuf, PolicyError> {
    let unavailable = |detail| PolicyError::EngineUnavailable { engine: "onnxruntime", detail };
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(unavailable(format!("{VARIABLE} names {}, which is no file", path.display()))),
        };
    }
    let installed =
        std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("lib").join(LIBRARY)));
    let development = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/lib").join(LIBRARY);
    let candidates: Vec<PathBuf> = installed.into_iter().chain([development]).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let places: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        unavailable(format!(
            "no library at {}: run `make setup`, or name the library with {VARIABLE}, or use engine `tract`",
            places.join(" or ")
        ))
    })
}

/// The one environment of the process, made on first use.
pub(super) fn environment() -> Result<&'static Environment, PolicyError> {
    if ENVIRONMENT.get().is_none() {
        // A missing library is not remembered: it may be installed, or named, later.
        let path = library_path()?;
        ENVIRONMENT.get_or_init(|| {
            let builder = ort::init_from(&path).map_err(|e| e.to_string())?;
            builder.with_name("tenon").with_telemetry(false).build().map_err(|e| e.to_string())
        });
    }
    match ENVIRONMENT.get() {
        Some(Ok(environment)) => Ok(environment),
        Some(Err(detail)) => Err(PolicyError::EngineUnavailable {
            engine: "onnxruntime",
            detail: format!("{detail}: version 1.31 or newer is needed; run `make setup` or set {VARIABLE}"),
        }),
        None => unreachable!("it was initialised above"),
    }
}

pub(super) struct OrtSession {
    session: Session,
    shapes: Vec<Vec<i64>>,
}

impl OrtSession {
    pub(super) fn load(model: &[u8], inputs: &[Port]) -> Result<Self, String> {
        let environment = environment().map_err(|e| e.to_string())?;
        let session = Session::builder(environment)
            .and_then(|b| Ok(b.with_intra_threads(1)?))
            .and_then(|b| Ok(b.with_inter_threads(1)?))
            .and_then(|b| Ok(b.with_optimization_level(GraphOptimizationLevel::Level3)?))
            .and_then(|b| Ok(b.with_deterministic_compute(true)?))
            .and_then(|b| Ok(b.with_intra_op_spinning(false)?))
            .and_then(|mut b| b.commit_from_memory(model))
            .map_err(|e| e.to_string())?;
        // Inputs are given in the model's order, so the order must be the one that the file states.
        let names: Vec<&str> = session.inputs().iter().map(|i| i.name()).collect();
        if names.iter().ne(&inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>()) {
            return Err(format!("the engine sees the inputs {names:?}"));
        }
        let shapes = inputs.iter().map(|p| p.shape.iter().map(|&d| d as i64).collect()).collect();
        Ok(Self { session, shapes })
    }

    pub(super) fn run(&mut self, inputs: &[Input], _: &[Port], sink: &mut Sink) -> Result<(), RunError> {
        let engine = |e: ort::Error| RunError::Engine(e.to_string());
        let mut values: Vec<SessionInputValue> = Vec::with_capacity(inputs.len());
        for (input, shape) in inputs.iter().zip(&self.shapes) {
            values.push(match input {
                Input::F32(x) => TensorRef::from_array_view((shape.as_slice(), *x)).map_err(engine)?.into(),
                Input::I64(x) => TensorRef::from_array_view((shape.as_slice(), *x)).map_err(engine)?.into(),
            });
        }
        let outputs = self.session.run(values.as_slice()).map_err(engine)?;
        for (i, (_, output)) in outputs.iter().enumerate() {
            let (_, data) = output.try_extract_tensor::<f32>().map_err(engine)?;
            sink.put(i, data)?;
        }
        Ok(())
    }
}
