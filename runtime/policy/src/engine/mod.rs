//! The engines that run ONNX models: tract (pure Rust, the default) and ONNX Runtime (a shared library).
//!
//! An engine is chosen by name at run time. A requested engine that cannot run is an error that says what to do; no
//! other engine ever takes its place.

#[cfg(feature = "ort")]
mod onnxruntime;
#[cfg(feature = "tract")]
mod tract;

use std::fmt;
use std::str::FromStr;

use crate::error::PolicyError;
use crate::onnx::{self, ElementType, TensorInfo};

#[cfg(feature = "ort")]
pub use onnxruntime::library_path;

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engine {
    /// tract: no shared library.
    #[default]
    Tract,
    /// ONNX Runtime, loaded from a shared library.
    OnnxRuntime,
}

impl Engine {
    /// Every engine there is.
    pub const ALL: [Self; 2] = [Self::Tract, Self::OnnxRuntime];

    /// The name that selects it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tract => "tract",
            Self::OnnxRuntime => "onnxruntime",
        }
    }

    /// Whether it can run here; the error says why not and what to do.
    pub fn available(self) -> Result<(), PolicyError> {
        match self {
            #[cfg(feature = "tract")]
            Self::Tract => Ok(()),
            #[cfg(feature = "ort")]
            Self::OnnxRuntime => onnxruntime::environment().map(|_| ()),
            #[allow(unreachable_patterns)]
            _ => Err(PolicyError::EngineUnavailable {
                engine: self.name(),
                detail: "this program was built without it: build with the Cargo feature of that name".into(),
            }),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = PolicyError;

    fn from_str(name: &str) -> Result<Self, PolicyError> {
        match name {
            "tract" => Ok(Self::Tract),
            "onnxruntime" | "ort" => Ok(Self::OnnxRuntime),
            _ => Err(PolicyError::UnknownEngine { name: name.into() }),
        }
    }
}

/// The data of one input of a run.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    F32(&'a [f32]),
    I64(&'a [i64]),
}

impl Input<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::I64(x) => x.len(),
        }
    }

    fn element_type(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::I64(_) => ElementType::I64,
        }
    }
}

/// An input or output of a session, its shape settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub element_type: ElementType,
    pub shape: Vec<usize>,
}

impl Port {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A model loaded into an engine, with fixed shapes, run by one thread.
pub struct Session {
    inner: Inner,
    engine: Engine,
    file: String,
    inputs: Vec<Port>,
    outputs: Vec<TensorInfo>,
}

enum Inner {
    #[cfg(feature = "tract")]
    Tract(tract::TractSession),
    #[cfg(feature = "ort")]
    OnnxRuntime(onnxruntime::OrtSession),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("engine", &self.engine).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Session {
    /// Loads a model from the bytes of its file.
    ///
    /// `file` names it in errors. `batch` takes the place of a first dimension that the model leaves open; other open
    /// dimensions are refused.
    pub fn load(engine: Engine, file: &str, model: &[u8], batch: usize) -> Result<Self, PolicyError> {
        engine.available()?;
        let load = |detail| PolicyError::Load { file: file.into(), engine: engine.name(), detail };
        let interface = onnx::interface(model).map_err(load)?;
        let inputs = interface.inputs.iter().map(|info| settle(file, info, batch)).collect::<Result<Vec<_>, _>>()?;
        let inner = match engine {
            #[cfg(feature = "tract")]
            Engine::Tract => Inner::Tract(tract::TractSession::load(model, &inputs).map_err(load)?),
            #[cfg(feature = "ort")]
            Engine::OnnxRuntime => Inner::OnnxRuntime(onnxruntime::OrtSession::load(model, &inputs).map_err(load)?),
            #[allow(unreachable_patterns)]
            _ => unreachable!("available() refused engines that are not built in"),
        };
        Ok(Self { inner, engine, file: file.into(), inputs, outputs: interface.outputs })
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What [`Session::run`] takes, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What [`Session::run`] gives, in order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Runs the model. Inputs and outputs come in the order of [`Session::inputs`] and [`Session::outputs`], row-major.
    pub fn run(&mut self, inputs: &[Input], outputs: &mut [&mut [f32]]) -> Result<(), PolicyError> {
        for (port, input) in self.inputs.iter().zip(inputs) {
            if port.len() != input.len() || port.element_type != input.element_type() {
                return Err(PolicyError::Tensor {
                    file: self.file.clone(),
                    tensor: port.name.clone(),
                    expected: format!("{} values of {}", port.len(), port.element_type),
                    found: format!("{} of {}", input.len(), input.element_type()),
                });
            }
        }
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            return Err(PolicyError::Call {
                detail: format!(
                    "{}: {} inputs and {} outputs given, the model has {} and {}",
                    self.file,
                    inputs.len(),
                    outputs.len(),
                    self.inputs.len(),
                    self.outputs.len()
                ),
            });
        }
        let mut sink = Sink { file: &self.file, infos: &self.outputs, outputs };
        let result = match &mut self.inner {
            #[cfg(feature = "tract")]
            Inner::Tract(session) => session.run(inputs, &mut sink),
            #[cfg(feature = "ort")]
            Inner::OnnxRuntime(session) => session.run(inputs, &self.inputs, &mut sink),
        };
        result.map_err(|e| match e {
            RunError::Tensor(e) => e,
            RunError::Engine(detail) => {
                PolicyError::Run { file: self.file.clone(), engine: self.engine.name(), detail }
            }
        })
    }
}

/// Gives an open first dimension its size.
fn settle(file: &str, info: &TensorInfo, batch: usize) -> Result<Port, PolicyError> {
    let mut shape = Vec::with_capacity(info.shape.len());
    for (axis, dim) in info.shape.iter().enumerate() {
        match dim {
            Some(d) => shape.push(*d),
            None if axis == 0 => shape.push(batch),
            None => {
                return Err(PolicyError::Tensor {
                    file: file.into(),
                    tensor: info.name.clone(),
                    expected: "fixed dimensions, only the first may be open".into(),
                    found: info.to_string(),
                });
            }
        }
    }
    if let ElementType::Other(_) = info.element_type {
        return Err(PolicyError::Tensor {
            file: file.into(),
            tensor: info.name.clone(),
            expected: "f32 or i64".into(),
            found: info.to_string(),
        });
    }
    Ok(Port { name: info.name.clone(), element_type: info.element_type, shape })
}

enum RunError {
    Tensor(PolicyError),
    Engine(String),
}

/// Where an engine puts its outputs.
struct Sink<'a, 'b> {
    file: &'a str,
    infos: &'a [TensorInfo],
    outputs: &'a mut [&'b mut [f32]],
}

impl Sink<'_, '_> {
    fn put(&mut self, i: usize, data: &[f32]) -> Result<(), RunError> {
        let target = &mut *self.outputs[i];
        if target.len() != data.len() {
            return Err(RunError::Tensor(PolicyError::Tensor {
                file: self.file.into(),
                tensor: self.infos[i].name.clone(),
                expected: format!("{} values", target.len()),
                found: data.len().to_string(),
            }));
        }
        target.copy_from_slice(data);
        Ok(())
    }
}
