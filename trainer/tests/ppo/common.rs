//! Small policies of every kind, batches for them, and samples.

use rand::Rng;
use tenon_core::network::{Activation, GaussianSpec, MlpSpec, StdSpec, TransformerSpec, TrunkSpec, VisionSpec};
use tenon_core::noise::SeededNoise;
use tenon_train::network::{CriticRow, GaussianNetwork, Mode, Observations};
use tenon_train::ppo::{GaussianPolicy, GaussianSampler, SamplingMode, SamplingNoise};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

pub use crate::fixtures::*;

pub const FIXED: StdSpec = StdSpec::Fixed { std: 0.1 };
pub const LEARNED: StdSpec = StdSpec::Learned { std: 0.1, min: 0.01, max: 0.2 };
pub const PER_STATE: StdSpec = StdSpec::PerState { min: 0.05, max: 0.5 };
pub const EXPLORE: SamplingMode = SamplingMode { noise: SamplingNoise::Exploration, base_policy: false };
pub const EVALUATE: SamplingMode = SamplingMode { noise: SamplingNoise::Evaluation, base_policy: false };

pub fn mlp(width: usize) -> TrunkSpec {
    TrunkSpec::Mlp(MlpSpec { dims: vec![width; 3], activation: Activation::Mish, residual: true, layer_norm: false })
}

pub fn transformer() -> TrunkSpec {
    TrunkSpec::Transformer(TransformerSpec { embed_dim: 16, heads: 2, layers: 2 })
}

pub fn vit_mlp(vision: VisionSpec) -> TrunkSpec {
    let head = MlpSpec { dims: vec![16; 3], activation: Activation::Mish, residual: true, layer_norm: false };
    TrunkSpec::VitMlp { vision, head }
}

pub fn spec(trunk: TrunkSpec, std: StdSpec, modes: usize) -> GaussianSpec {
    GaussianSpec { trunk, std, modes, tanh_mean: true }
}

pub fn built(spec: &GaussianSpec) -> GaussianNetwork {
    GaussianNetwork::new(spec, STATE, HORIZON, 1).unwrap()
}

pub fn network(trunk: TrunkSpec, std: StdSpec, modes: usize) -> GaussianNetwork {
    built(&spec(trunk, std, modes))
}

/// Every kind of policy that there is.
pub fn every_network() -> Vec<(&'static str, GaussianNetwork)> {
    let plain =
        TrunkSpec::Mlp(MlpSpec { dims: vec![16; 2], activation: Activation::ReLU, residual: false, layer_norm: false });
    vec![
        ("MLP, fixed", network(mlp(16), FIXED, 0)),
        ("MLP, learned", network(mlp(16), LEARNED, 0)),
        ("MLP, per state", network(mlp(16), PER_STATE, 0)),
        ("plain MLP, per state", network(plain, PER_STATE, 0)),
        ("transformer, fixed", network(transformer(), FIXED, 0)),
        ("transformer, learned", network(transformer(), LEARNED, 0)),
        ("transformer, per state", network(transformer(), PER_STATE, 0)),
        ("ViT-MLP, learned", network(vit_mlp(vision(2, 32)), LEARNED, 0)),
        ("ViT-MLP, per state", network(vit_mlp(vision(2, 32)), PER_STATE, 0)),
        ("mixture of MLPs, fixed", network(mlp(16), FIXED, 3)),
        ("mixture of MLPs, learned", network(mlp(16), LEARNED, 3)),
        ("mixture of MLPs, per state", network(mlp(16), PER_STATE, 3)),
        ("mixture, transformer, learned", network(transformer(), LEARNED, 3)),
        ("mixture, transformer, per state", network(transformer(), PER_STATE, 3)),
    ]
}

pub struct Batch {
    pub states: Vec<f32>,
    pub images: Option<Vec<u8>>,
}

impl Batch {
    pub fn new(network: &GaussianNetwork, rows: usize, seed: u64) -> Self {
        let mut noise = SeededNoise::new(seed, 0);
        let states = (0..rows * STATE).map(|_| noise.rng().random_range(-1.0..1.0)).collect();
        let images = (0..rows * network.image_len()).map(|_| noise.rng().random_range(0..=255)).collect();
        Self { states, images: (network.image_len() > 0).then_some(images) }
    }

    pub fn observations(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.images.as_deref() }
    }
}

pub fn sample(policy: &GaussianPolicy, mode: SamplingMode, batch: &Batch, threads: usize) -> Vec<f32> {
    let (workers, rows) = (Workers::new(threads).unwrap(), batch.states.len() / STATE);
    let mut chunks = vec![0.0; rows * policy.network.chunk_len()];
    GaussianSampler::new(policy, &workers, rows).sample(
        &workers,
        policy,
        mode,
        batch.observations(),
        &mut streams(rows, 3),
        &mut chunks,
    );
    chunks
}

pub fn fresh(network: GaussianNetwork) -> GaussianPolicy {
    GaussianPolicy::fresh(network, &mut Stream::ActorWeights.of(4), 3.0)
}

/// Deviations of row `i` of a batch.
pub fn deviations(policy: &GaussianPolicy, batch: &Batch, i: usize) -> Vec<f32> {
    let network = &policy.network;
    let prepared = network.prepare(&policy.finetuned);
    let mut ws = network.workspace(1, Mode::Inference);
    let o = batch.observations();
    network.forward(&policy.finetuned, &prepared, &mut ws, 1, |_| CriticRow {
        state: o.state(i, STATE),
        images: o.image(i, network.image_len()),
    });
    network.row(&prepared, &ws, 0).std.to_vec()
}
