//! ONNX graphs of the denoising networks (spec dppo.md §3), from a [`NetworkSpec`] and named parameters.
//!
//! At run time a network is two graphs, so that nothing is computed twice in a chunk:
//!
//! * `encoder`: `state [1, To, Do]` (and `rgb [1, To, 3·cameras, px, px]`, 0..255) → `features [S, F]`, once a chunk.
//!   Row i holds everything of step i that does not depend on the noisy chunk: the state's and the time's share of the
//!   first layer, the FiLM parameters of a U-Net, the image features. The S executed steps are known when a policy is
//!   exported, so they form a batch whose weights are read from memory once instead of S times, and whatever depends
//!   on the time alone is a constant.
//! * `step`: `x [1, Tp, Da]`, `features [1, F]` → `noise [1, Tp, Da]`, once a step.
//!
//! For interoperability and as a peer of benchmarks there are two more: `single_step` (`x`, `t`, `state` → `out`, the
//! layout in which other frameworks export such networks) and `chain` (`x`, `state` → `action`, the whole unrolled
//! denoising chain).

mod blocks;
mod mlp;
mod parameters;
mod unet;
mod vit;

use tenon_core::diffusion::{Clips, DenoisingStep};
use tenon_core::network::NetworkSpec;
use tenon_core::spec::{MAX_DENOISING_STEPS, PolicySpec};

pub use parameters::{Parameters, Tensor, check_parameters, random_parameters};

use crate::error::PolicyError;
use crate::onnx::{GraphBuilder, Value};

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
    /// K.
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
            denoising_steps: spec.denoising.denoising_steps,
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

/// F: length of a row of the encoder's features.
pub fn features_len(network: &NetworkSpec) -> usize {
    match network {
        NetworkSpec::DiffusionMlp { mlp_dims, .. } | NetworkSpec::VitMlp { mlp_dims, .. } => mlp_dims[0],
        NetworkSpec::Unet(u) | NetworkSpec::VitUnet { unet: u, .. } => unet::film_len(u.dim, &u.dim_mults),
    }
}

/// Shape of the image input `[1, To, 3 · cameras, px, px]`; none for networks that see only the state.
pub fn image_shape(network: &NetworkSpec, dims: &Dims) -> Option<[usize; 5]> {
    match network {
        NetworkSpec::VitMlp { vision, .. } => {
            Some([1, dims.observation_horizon, 3 * vision.cameras, vision.image_px, vision.image_px])
        }
        _ => None,
    }
}

/// A network whose sizes and parameters have been checked: what graphs are made of.
#[derive(Debug, Clone, Copy)]
pub struct NetworkGraph<'a> {
    network: &'a NetworkSpec,
    dims: Dims,
    parameters: &'a Parameters,
}

/// What the first layers of a network need to know about the time.
#[derive(Clone, Copy)]
enum Time<'a> {
    /// The steps of a chain, one feature row each: everything about the time is constant.
    Steps(&'a [usize]),
    /// Time features `[1, time_dim]` computed in the graph.
    Features(&'a Value),
}

impl<'a> NetworkGraph<'a> {
    /// Checks that the network's sizes make sense and that every parameter is there with its shape, finite.
    pub fn new(network: &'a NetworkSpec, dims: Dims, parameters: &'a Parameters) -> Result<Self, PolicyError> {
        check_network(network, &dims)?;
        check_parameters(network, &dims, parameters)?;
        Ok(Self { network, dims, parameters })
    }

    /// The sizes given.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// The graph run once a chunk; row i of its features belongs to `steps[i]`. See the module's description.
    pub fn encoder(&self, steps: &[usize]) -> Result<Vec<u8>, PolicyError> {
        self.check_steps(steps)?;
        let mut g = GraphBuilder::new("encoder");
        let (state, image) = self.condition_inputs(&mut g);
        let features = self.features(&mut g, &state, image.as_ref(), Time::Steps(steps));
        g.output("features", &features, &[steps.len(), features_len(self.network)]);
        Ok(g.finish())
    }

    /// The graph run once a step. See the module's description.
    pub fn step(&self) -> Vec<u8> {
        let mut g = GraphBuilder::new("step");
        let x = g.input("x", &self.dims.chunk_shape());
        let features = g.input("features", &[1, features_len(self.network)]);
        let noise = self.noise(&mut g, &x, &features);
        g.output("noise", &noise, &self.dims.chunk_shape());
        g.finish()
    }

    /// One evaluation of the whole network: `x [1, Tp, Da]`, `t [1]` int64, `state [1, To, Do]` (, `rgb`) → `out`.
    pub fn single_step(&self) -> Vec<u8> {
        let mut g = GraphBuilder::new("single_step");
        let x = g.input("x", &self.dims.chunk_shape());
        let t = g.index_input("t", &[1]);
        let (state, image) = self.condition_inputs(&mut g);
        let time = blocks::time_features(&mut g, self, &t);
        let features = self.features(&mut g, &state, image.as_ref(), Time::Features(&time));
        let noise = self.noise(&mut g, &x, &features);
        g.output("out", &noise, &self.dims.chunk_shape());
        g.finish()
    }

    /// The unrolled chain without noise between its steps (DDIM with η = 0): `x`, `state` (, `rgb`) → `action`.
    ///
    /// It is what a general exporter makes of the sampling loop, and the peer that our own chain is measured against:
    /// every step evaluates the whole network, except that images are encoded once.
    pub fn chain(&self, steps: &[DenoisingStep], clips: Clips) -> Result<Vec<u8>, PolicyError> {
        let times: Vec<usize> = steps.iter().map(|s| s.t).collect();
        self.check_steps(&times)?;
        if let Some(step) = steps.iter().find(|s| s.std > 0.0) {
            return Err(PolicyError::Graph {
                detail: format!("step t = {} draws noise; only chains without noise can be one graph", step.t),
            });
        }
        let mut g = GraphBuilder::new("chain");
        let mut x = g.input("x", &self.dims.chunk_shape());
        let (state, image) = self.condition_inputs(&mut g);
        let image_features = image.map(|image| vit::image_features(&mut g, self, &state, &image));
        for step in steps {
            let t = g.indices(&[step.t as i64]);
            let time = blocks::time_features(&mut g, self, &t);
            let features = self.features_from(&mut g, &state, image_features.as_ref(), Time::Features(&time));
            let noise = self.noise(&mut g, &x, &features);
            x = blocks::denoise(&mut g, &x, &noise, step, clips.denoised);
        }
        if let Some(clip) = clips.final_action {
            x = blocks::clamp(&mut g, &x, clip);
        }
        g.output("action", &x, &self.dims.chunk_shape());
        Ok(g.finish())
    }

    fn check_steps(&self, steps: &[usize]) -> Result<(), PolicyError> {
        let limit = self.dims.denoising_steps;
        match steps.iter().find(|&&t| t >= limit) {
            _ if steps.is_empty() => Err(PolicyError::Graph { detail: "a chain needs at least one step".into() }),
            Some(t) => Err(PolicyError::Graph { detail: format!("step t = {t} is not below K = {limit}") }),
            None => Ok(()),
        }
    }

    fn condition_inputs(&self, g: &mut GraphBuilder) -> (Value, Option<Value>) {
        let state = g.input("state", &self.dims.state_shape());
        let image = image_shape(self.network, &self.dims).map(|shape| g.input("rgb", &shape));
        let state = g.reshape(&state, &[1, self.dims.state_len()]);
        (state, image)
    }

    /// Features of one or several steps from the flat state `[1, To·Do]` and the image.
    fn features(&self, g: &mut GraphBuilder, state: &Value, image: Option<&Value>, time: Time) -> Value {
        let image_features = image.map(|image| vit::image_features(g, self, state, image));
        self.features_from(g, state, image_features.as_ref(), time)
    }

    fn features_from(&self, g: &mut GraphBuilder, state: &Value, image_features: Option<&Value>, time: Time) -> Value {
        match self.network {
            NetworkSpec::DiffusionMlp { .. } | NetworkSpec::VitMlp { .. } => {
                mlp::features(g, self, state, image_features, time)
            }
            NetworkSpec::Unet(_) | NetworkSpec::VitUnet { .. } => unet::features(g, self, state, time),
        }
    }

    /// Predicted noise `[1, Tp, Da]` from the noisy chunk and one row of features `[1, F]`.
    fn noise(&self, g: &mut GraphBuilder, x: &Value, features: &Value) -> Value {
        match self.network {
            NetworkSpec::DiffusionMlp { .. } | NetworkSpec::VitMlp { .. } => mlp::noise(g, self, x, features),
            NetworkSpec::Unet(_) | NetworkSpec::VitUnet { .. } => unet::noise(g, self, x, features),
        }
    }
}

/// Refuses sizes that the architecture cannot have, before anything is indexed by them.
pub fn check_network(network: &NetworkSpec, dims: &Dims) -> Result<(), PolicyError> {
    let fail = |detail: String| Err(PolicyError::Network { detail });
    let positive = [
        ("observation_horizon", dims.observation_horizon),
        ("observation_dim", dims.observation_dim),
        ("prediction_horizon", dims.prediction_horizon),
        ("action_dim", dims.action_dim),
        ("denoising_steps", dims.denoising_steps),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, n)| *n == 0) {
        return fail(format!("{name} must be at least 1"));
    }
    if dims.denoising_steps > MAX_DENOISING_STEPS {
        return fail(format!("denoising_steps = {}: at most {MAX_DENOISING_STEPS}", dims.denoising_steps));
    }
    network
        .check(dims.state_len(), dims.prediction_horizon, dims.action_dim)
        .map_err(|detail| PolicyError::Network { detail })
}
