//! [`OnnxDenoiser`]: core's `Denoiser` on ONNX graphs, either those of a bundle or one exported by another framework.

use tenon_core::diffusion::{Denoiser, DenoisingStep};

use crate::engine::{Engine, Input, Session};
use crate::error::PolicyError;
use crate::graph::{Dims, NetworkGraph};
use crate::onnx::ElementType;

/// A network of a bundle, loaded: encoder and step graph, and the features of the current chunk.
#[derive(Debug)]
pub(crate) struct SplitNetwork {
    encoder: Session,
    step: Session,
    /// t of each row of the features.
    steps: Vec<usize>,
    /// `[steps, F]`, row-major.
    features: Vec<f32>,
}

impl SplitNetwork {
    /// `steps`: t of each row of the encoder's features.
    pub fn new(encoder: Session, step: Session, steps: Vec<usize>) -> Self {
        let width = step.inputs()[1].len();
        Self { features: vec![0.0; steps.len() * width], encoder, step, steps }
    }

    fn predict(&mut self, t: usize, x: &[f32], noise: &mut [f32]) -> Result<(), PolicyError> {
        let row = self.steps.iter().position(|&s| s == t).ok_or_else(|| PolicyError::Call {
            detail: format!("step t = {t} was not exported, this network makes {:?}", self.steps),
        })?;
        let width = self.features.len() / self.steps.len();
        let features = &self.features[row * width..(row + 1) * width];
        self.step.run(&[Input::F32(x), Input::F32(features)], &mut [noise])
    }
}

#[derive(Debug)]
enum Networks {
    /// Encoder and step graphs; `base` makes the first steps, `finetuned` the last K'.
    Split { base: Option<Box<SplitNetwork>>, finetuned: Option<Box<SplitNetwork>> },
    /// One graph with inputs x, t, state.
    Single { session: Box<Session>, order: [usize; 3], state: Vec<f32> },
}

/// A policy's network(s) on an ONNX engine.
#[derive(Debug)]
pub struct OnnxDenoiser {
    networks: Networks,
    engine: Engine,
    state_len: usize,
    chunk_len: usize,
    image: Vec<f32>,
    conditioned: bool,
}

impl OnnxDenoiser {
    /// The networks of a bundle, whose graphs have been checked.
    pub(crate) fn split(
        engine: Engine,
        dims: &Dims,
        image_len: usize,
        base: Option<SplitNetwork>,
        finetuned: Option<SplitNetwork>,
    ) -> Self {
        Self {
            networks: Networks::Split { base: base.map(Box::new), finetuned: finetuned.map(Box::new) },
            engine,
            state_len: dims.state_len(),
            chunk_len: dims.chunk_len(),
            image: vec![0.0; image_len],
            conditioned: false,
        }
    }

    /// A network by itself, without a bundle: it makes the given steps, none of them as the fine-tuned one.
    pub fn of_network(engine: Engine, name: &str, graph: &NetworkGraph, steps: &[usize]) -> Result<Self, PolicyError> {
        let graphs = graph.split(steps)?;
        let encoder = Session::load(engine, name, &graphs.encoder, 1)?;
        let step = Session::load(engine, name, &graphs.step, 1)?;
        let network = SplitNetwork::new(encoder, step, steps.to_vec());
        Ok(Self::split(engine, graph.dims(), graph.image_len(), Some(network), None))
    }

    /// A step network exported by another framework: inputs `x [1, Tp, Da]`, `t [1]` (int64) and `state [1, To, Do]`
    /// in any order, one output like x. An open first dimension is 1.
    pub fn single_step(engine: Engine, file: &str, model: &[u8]) -> Result<Self, PolicyError> {
        let session = Session::load(engine, file, model, 1)?;
        let find = |name: &str, element_type: ElementType, rank: usize| {
            let expected = format!("an input of {element_type} with {rank} dimensions, the first 1");
            let wrong = |found: String| PolicyError::Tensor {
                file: file.into(),
                tensor: name.into(),
                expected: expected.clone(),
                found,
            };
            let names: Vec<&str> = session.inputs().iter().map(|p| p.name.as_str()).collect();
            let i = names.iter().position(|n| *n == name).ok_or_else(|| wrong(format!("only the inputs {names:?}")))?;
            let port = &session.inputs()[i];
            if port.element_type != element_type || port.shape.len() != rank || port.shape[0] != 1 {
                return Err(wrong(format!("{} {:?}", port.element_type, port.shape)));
            }
            Ok(i)
        };
        let order =
            [find("x", ElementType::F32, 3)?, find("t", ElementType::I64, 1)?, find("state", ElementType::F32, 3)?];
        if session.inputs().len() != 3 || session.outputs().len() != 1 {
            return Err(PolicyError::Tensor {
                file: file.into(),
                tensor: "inputs and outputs".into(),
                expected: "x, t, state → one output".into(),
                found: format!("{} inputs and {} outputs", session.inputs().len(), session.outputs().len()),
            });
        }
        let (chunk_len, state_len) = (session.inputs()[order[0]].len(), session.inputs()[order[2]].len());
        let networks = Networks::Single { session: Box::new(session), order, state: vec![0.0; state_len] };
        Ok(Self { networks, engine, state_len, chunk_len, image: Vec::new(), conditioned: false })
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Tp · Da.
    pub fn chunk_len(&self) -> usize {
        self.chunk_len
    }

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Values of the image input; 0 where the policy sees only the state.
    pub fn image_len(&self) -> usize {
        self.image.len()
    }

    /// Sets the image that the next [`Denoiser::condition`] encodes.
    ///
    /// `rgb`: `[1, 3 · cameras, px, px]`, row-major, 0..255.
    pub fn set_image(&mut self, rgb: &[f32]) -> Result<(), PolicyError> {
        check_values("image", rgb, self.image.len())?;
        self.image.copy_from_slice(rgb);
        self.conditioned = false;
        Ok(())
    }
}

impl Denoiser for OnnxDenoiser {
    type Error = PolicyError;

    fn condition(&mut self, state: &[f32]) -> Result<(), PolicyError> {
        self.conditioned = false;
        check_values("state", state, self.state_len)?;
        match &mut self.networks {
            Networks::Split { base, finetuned } => {
                for network in [base, finetuned].into_iter().flatten() {
                    let inputs = [Input::F32(state), Input::F32(&self.image)];
                    let used = network.encoder.inputs().len();
                    network.encoder.run(&inputs[..used], &mut [&mut network.features])?;
                }
            }
            Networks::Single { state: held, .. } => held.copy_from_slice(state),
        }
        self.conditioned = true;
        Ok(())
    }

    fn predict_noise(&mut self, step: &DenoisingStep, x: &[f32], noise: &mut [f32]) -> Result<(), PolicyError> {
        if !self.conditioned {
            return Err(PolicyError::Call { detail: "predict_noise before a successful condition".into() });
        }
        match &mut self.networks {
            Networks::Split { base, finetuned } => {
                let (network, name) = if step.finetuned { (finetuned, "fine-tuned") } else { (base, "base") };
                let network = network.as_mut().ok_or_else(|| PolicyError::Call {
                    detail: format!("step t = {} asks for the {name} network, which this policy lacks", step.t),
                })?;
                network.predict(step.t, x, noise)
            }
            Networks::Single { session, order, state } => {
                let t = [step.t as i64];
                let mut inputs = [Input::F32(x); 3];
                inputs[order[1]] = Input::I64(&t);
                inputs[order[2]] = Input::F32(state);
                session.run(&inputs, &mut [noise])
            }
        }
    }
}

// The policy thread owns what another thread opened.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<OnnxDenoiser>();
};

fn check_values(name: &str, values: &[f32], len: usize) -> Result<(), PolicyError> {
    if values.len() != len {
        let detail = format!("{name}: expected {len} values, found {}", values.len());
        return Err(PolicyError::Call { detail });
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(PolicyError::Call { detail: format!("{name}: value {i} is {}", values[i]) }),
        None => Ok(()),
    }
}
