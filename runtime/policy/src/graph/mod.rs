//! ONNX graphs of the policies' networks, from a description, sizes and named parameters. What a network computes is
//! defined once, in `core::network`; here it is built over [`layers::OnnxLayers`].
//!
//! At run time a denoising network is two graphs, so that nothing is computed twice in a chunk:
//!
//! * `encoder`: `state [1, To, Do]` (and `rgb [1, To, 3·cameras, px, px]`, 0..255) → `features [S, F]`, once a chunk.
//!   Row i holds everything that step i needs and that does not depend on the noisy chunk: the state's and the time's
//!   share of the first layer, the FiLM parameters of a U-Net, the image features. The S executed steps are known when
//!   a policy is exported, so they form a batch whose weights are read from memory once instead of S times. What
//!   depends on the time alone is computed by the engines when they load (2 ms more for Lift's MLP on tract, 7 ms of
//!   130 ms for the One-leg U-Net) and costs nothing in a run.
//! * `step`: `x [1, Tp, Da]`, `features [1, F]` → `noise [1, Tp, Da]`, once a step.
//!
//! For interoperability and as a peer of benchmarks there are two more: `single_step` (`x`, `t`, `state` → `out`, the
//! layout in which other frameworks export such networks) and `chain` (`x`, `state` → `action`, the whole unrolled
//! denoising chain). A Gaussian policy is one graph, [`gaussian_mean`].

mod layers;
mod parameters;
mod rows;
#[cfg(test)]
mod tests;

use tenon_core::diffusion::{Clips, DenoisingStep};
use tenon_core::network::layers::Layers;
use tenon_core::network::{GaussianSpec, NetworkSpec, NoiseInputs, VisionSpec, sinusoid};
use tenon_core::spec::{MAX_DENOISING_STEPS, PolicySpec};

use layers::OnnxLayers;
use rows::{Order, Rows, Stage};

#[cfg(test)]
use parameters::draw_parameters;
pub use parameters::{Parameters, Tensor, check_parameters, random_parameters};

use crate::error::PolicyError;
use crate::onnx::Attribute;

/// Sizes of a policy that its networks depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// To.
    pub observation_horizon: usize,
    /// Do.
    pub observation_dim: usize,
    /// Tp.
    pub prediction_horizon: usize,
    /// Da.
    pub action_dim: usize,
    /// K; 0 for a policy that does not denoise.
    pub denoising_steps: usize,
}

impl Dims {
    /// The sizes that a policy states.
    pub fn of(spec: &PolicySpec) -> Self {
        Self {
            observation_horizon: spec.observation_horizon,
            observation_dim: spec.observation_dim(),
            prediction_horizon: spec.prediction_horizon,
            action_dim: spec.action_dim(),
            denoising_steps: spec.denoising.as_ref().map_or(0, |d| d.denoising_steps),
        }
    }

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.observation_horizon * self.observation_dim
    }

    /// Tp · Da.
    pub fn chunk_len(&self) -> usize {
        self.prediction_horizon * self.action_dim
    }

    /// `[1, To, Do]`.
    pub fn state_shape(&self) -> [usize; 3] {
        [1, self.observation_horizon, self.observation_dim]
    }

    /// `[1, Tp, Da]`.
    pub fn chunk_shape(&self) -> [usize; 3] {
        [1, self.prediction_horizon, self.action_dim]
    }
}

/// Shape of the image input `[1, To, 3 · cameras, px, px]`; none for networks that see only the state.
pub fn image_shape(vision: Option<&VisionSpec>, dims: &Dims) -> Option<[usize; 5]> {
    let vision = vision?;
    Some([1, dims.observation_horizon, 3 * vision.cameras, vision.image_px, vision.image_px])
}

/// A network whose sizes and parameters have been checked: what graphs are made of.
#[derive(Debug, Clone, Copy)]
pub struct NetworkGraph<'a> {
    network: &'a NetworkSpec,
    dims: Dims,
    parameters: &'a Parameters,
}

/// The two graphs of a network. See the module's description.
#[derive(Debug, Clone)]
pub struct SplitGraphs {
    /// Run once a chunk.
    pub encoder: Vec<u8>,
    /// Run once a step.
    pub step: Vec<u8>,
}

impl<'a> NetworkGraph<'a> {
    /// Checks that the network's sizes make sense and that every parameter is there with its shape, finite.
    pub fn new(network: &'a NetworkSpec, dims: Dims, parameters: &'a Parameters) -> Result<Self, PolicyError> {
        check_network(network, &dims)?;
        let listed = network.parameters(dims.state_len(), dims.prediction_horizon, dims.action_dim);
        check_parameters(&listed, parameters)?;
        Ok(Self { network, dims, parameters })
    }

    /// The sizes given.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// Values of the image input; 0 for networks that see only the state.
    pub fn image_len(&self) -> usize {
        image_shape(self.network.vision(), &self.dims).map_or(0, |shape| shape.iter().product())
    }

    /// Encoder and step graph; row i of the encoder's features belongs to `steps[i]`. See the module's description.
    pub fn split(&self, steps: &[usize]) -> Result<SplitGraphs, PolicyError> {
        self.check_steps(steps)?;
        let mut l = OnnxLayers::split(self.parameters, steps.len());
        let chunk = self.chunk(&mut l);
        let (state, images) = condition(&mut l, self.network.vision(), &self.dims, Stage::Chunk);
        let sinusoid = self.sinusoids(&mut l, steps, Stage::Export);
        let noise = self.network.build(&mut l, &NoiseInputs { chunk, sinusoid, state, images });
        l.output("noise", &noise, &self.dims.chunk_shape());
        let (encoder, step) = l.finish_split();
        Ok(SplitGraphs { encoder, step })
    }

    /// One evaluation of the whole network: `x [1, Tp, Da]`, `t [1]` int64, `state [1, To, Do]` (, `rgb`) → `out`.
    pub fn single_step(&self) -> Vec<u8> {
        let mut l = OnnxLayers::one("single_step", self.parameters);
        let chunk = self.chunk(&mut l);
        let t = l.graph(Stage::Step).index_input("t", &[1]);
        let (state, images) = condition(&mut l, self.network.vision(), &self.dims, Stage::Step);
        let all: Vec<usize> = (0..self.dims.denoising_steps).collect();
        let table = self.sinusoids(&mut l, &all, Stage::Step);
        let row = l.graph(Stage::Step).node("Gather", &[&table.tensor, &t], &[("axis", Attribute::Int(0))]);
        let width = self.network.time_dim();
        let sinusoid = Rows::new(row, &[1, width], [1, 1, width], Stage::Step);
        let noise = self.network.build(&mut l, &NoiseInputs { chunk, sinusoid, state, images });
        l.output("out", &noise, &self.dims.chunk_shape());
        l.finish()
    }

    /// The unrolled chain without noise between its steps (DDIM with η = 0): `x`, `state` (, `rgb`) → `action`.
    ///
    /// It is what a general exporter makes of the sampling loop, and the peer that our own chain is measured against:
    /// every step evaluates the whole network, except that what depends on state and pictures alone is computed once.
    pub fn chain(&self, steps: &[DenoisingStep], clips: Clips) -> Result<Vec<u8>, PolicyError> {
        self.check_steps(&steps.iter().map(|s| s.t).collect::<Vec<_>>())?;
        if let Some(step) = steps.iter().find(|s| s.std > 0.0) {
            return Err(PolicyError::Graph {
                detail: format!("step t = {} draws noise; only chains without noise can be one graph", step.t),
            });
        }
        let mut l = OnnxLayers::one("chain", self.parameters);
        let mut x = self.chunk(&mut l);
        let (state, images) = condition(&mut l, self.network.vision(), &self.dims, Stage::Step);
        for step in steps {
            let sinusoid = self.sinusoids(&mut l, &[step.t], Stage::Step);
            let inputs = NoiseInputs { chunk: x.clone(), sinusoid, state: state.clone(), images: images.clone() };
            let noise = self.network.build(&mut l, &inputs);
            // As `DenoisingStep::mean`.
            let (a, b) = (l.scale_shift(&x, step.x0_from_x, 0.0), l.scale_shift(&noise, -step.x0_from_noise, 0.0));
            let x0 = l.add(&a, &b);
            let x0 = l.clamp(&x0, -clips.denoised, clips.denoised);
            let (a, b) = (l.scale_shift(&x0, step.mean_from_x0, 0.0), l.scale_shift(&x, step.mean_from_x, 0.0));
            x = l.add(&a, &b);
        }
        if let Some(clip) = clips.final_action {
            x = l.clamp(&x, -clip, clip);
        }
        l.output("action", &x, &self.dims.chunk_shape());
        Ok(l.finish())
    }

    fn check_steps(&self, steps: &[usize]) -> Result<(), PolicyError> {
        let limit = self.dims.denoising_steps;
        match steps.iter().find(|&&t| t >= limit) {
            _ if steps.is_empty() => Err(PolicyError::Graph { detail: "a chain needs at least one step".into() }),
            Some(t) => Err(PolicyError::Graph { detail: format!("step t = {t} is not below K = {limit}") }),
            None => Ok(()),
        }
    }

    /// The input `x`.
    fn chunk(&self, l: &mut OnnxLayers) -> Rows {
        l.input("x", &self.dims.chunk_shape(), Stage::Step, [self.dims.prediction_horizon, self.dims.action_dim])
    }

    /// The sinusoids of some steps, one a row.
    fn sinusoids(&self, l: &mut OnnxLayers, steps: &[usize], stage: Stage) -> Rows {
        let width = self.network.time_dim();
        let values: Vec<f32> = steps.iter().flat_map(|&t| sinusoid(t, width)).collect();
        let name = format!("sinusoid/{}", steps[0]);
        let tensor = l.graph(stage).constant(&name, &[steps.len(), width], &values);
        Rows::new(tensor, &[steps.len(), width], [steps.len(), 1, width], stage)
    }
}

/// Mean chunks of a Gaussian policy, of each mode of a mixture: `state [1, To, Do]` (, `rgb`) → `mean [M, Tp, Da]`.
pub fn gaussian_mean(spec: &GaussianSpec, dims: &Dims, parameters: &Parameters) -> Result<Vec<u8>, PolicyError> {
    check_dims(dims, spec.vision())?;
    let (state_len, horizon, action_dim) = (dims.state_len(), dims.prediction_horizon, dims.action_dim);
    spec.check(state_len, horizon, action_dim).map_err(|detail| PolicyError::Network { detail })?;
    check_parameters(&spec.parameters(state_len, horizon, action_dim), parameters)?;
    let mut l = OnnxLayers::one("gaussian", parameters);
    let (state, images) = condition(&mut l, spec.vision(), dims, Stage::Step);
    let mean = spec.build(&mut l, &state, images.as_ref(), [horizon, action_dim]).mean;
    l.output("mean", &mean, &[spec.modes.max(1), horizon, action_dim]);
    Ok(l.finish())
}

/// The inputs `state` and, of networks that see pictures, `rgb`.
fn condition(l: &mut OnnxLayers, vision: Option<&VisionSpec>, dims: &Dims, stage: Stage) -> (Rows, Option<Rows>) {
    let state = l.input("state", &dims.state_shape(), stage, [1, dims.state_len()]);
    let images = image_shape(vision, dims).map(|shape| {
        let [_, _, channels, height, width] = shape;
        let rgb = l.input("rgb", &shape, stage, [height * width, channels]);
        Rows { order: Order::ChannelsFirst, ..rgb }
    });
    (state, images)
}

/// Refuses sizes that the architecture cannot have, before anything is indexed by them.
pub fn check_network(network: &NetworkSpec, dims: &Dims) -> Result<(), PolicyError> {
    check_dims(dims, network.vision())?;
    network
        .check(dims.state_len(), dims.prediction_horizon, dims.action_dim)
        .map_err(|detail| PolicyError::Network { detail })
}

fn check_dims(dims: &Dims, vision: Option<&VisionSpec>) -> Result<(), PolicyError> {
    let detail = match (dims.observation_horizon, dims.denoising_steps) {
        (_, steps) if steps == 0 || steps > MAX_DENOISING_STEPS => {
            format!("denoising_steps = {steps}: must be 1 to {MAX_DENOISING_STEPS}")
        }
        (seen, _) if seen != 1 && vision.is_some() => format!("observation_horizon = {seen}: image policies see one"),
        _ => return Ok(()),
    };
    Err(PolicyError::Network { detail })
}
