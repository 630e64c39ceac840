//! Outputs of PyTorch's networks, and ours for the same inputs.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tenon_core::network::PolicyNetwork;
use tenon_core::noise::SeededNoise;
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::network::{
    Critic, CriticRow, GaussianNetwork, Mode, NoiseNetwork, NoiseRow, Observations, ParameterTable,
};

/// A network that says something about a state.
pub enum Network {
    Noise(NoiseNetwork),
    Gaussian(GaussianNetwork),
    Critic(Critic),
}

impl Network {
    /// The policy's.
    pub fn policy(run: &RunInfo) -> Self {
        let policy = &run.policy;
        let (state_len, horizon, action_dim) = (policy.state_len(), policy.prediction_horizon, policy.action_dim());
        match &run.network {
            PolicyNetwork::Diffusion(spec) => {
                Self::Noise(NoiseNetwork::new(spec, state_len, horizon, action_dim).unwrap())
            }
            PolicyNetwork::Gaussian(spec) => {
                Self::Gaussian(GaussianNetwork::new(spec, state_len, horizon, action_dim).unwrap())
            }
        }
    }

    /// The critic, where there is one.
    pub fn critic(run: &RunInfo) -> Option<Self> {
        run.critic.as_ref().map(|spec| Self::Critic(Critic::new(spec, run.policy.state_len()).unwrap()))
    }

    /// Fresh weights.
    pub fn initialise(&self, noise: &mut SeededNoise) -> Vec<f32> {
        match self {
            Self::Gaussian(network) => network.initialise(noise),
            Self::Noise(_) | Self::Critic(_) => self.table().initialise(noise),
        }
    }

    pub fn table(&self) -> &ParameterTable {
        match self {
            Self::Noise(network) => network.table(),
            Self::Gaussian(network) => network.table(),
            Self::Critic(network) => network.table(),
        }
    }
}

/// The networks of a checkpoint, each with its weights and the key of its outputs. `pretrained`: the keys of a
/// pre-trained one's last weights and of their average.
pub fn networks<'a>(checkpoint: &Checkpoint, pretrained: [&'a str; 2]) -> Vec<(&'a str, Network, Vec<f32>)> {
    let run = &checkpoint.header.run;
    let prefixes = match checkpoint.header.stage {
        Stage::Pretrain => [("network.", pretrained[0]), ("ema.", pretrained[1])],
        Stage::Finetune => [("actor.", "actor"), ("actor_ft.", "actor_ft")],
    };
    let policies = prefixes.map(|(prefix, key)| (prefix, key, Network::policy(run)));
    let critic = Network::critic(run).map(|network| ("critic.", "critic", network));
    let weights = |(prefix, key, network): (&str, &'a str, Network)| {
        let weights = checkpoint.parameters(prefix, network.table()).unwrap();
        (key, network, weights)
    };
    policies.into_iter().chain(critic).map(weights).collect()
}

/// Inputs and outputs of PyTorch's networks.
pub struct Known(Vec<u8>);

impl Known {
    pub fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap();
        match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            other => panic!("{name} has type {other:?}"),
        }
    }

    fn pictures(&self) -> Option<Vec<u8>> {
        let tensors = self.tensors();
        let view = tensors.tensor("rgb").ok()?;
        assert_eq!(view.dtype(), Dtype::U8);
        Some(view.data().to_vec())
    }

    /// What a network says to the stored inputs, by name: `key`, or of a Gaussian policy `key.mean` and so on.
    pub fn outputs(&self, key: &str, network: &Network, parameters: &[f32]) -> Vec<(String, Vec<f32>)> {
        let (states, pictures) = (self.values("state"), self.pictures());
        let observations = Observations { states: &states, images: pictures.as_deref() };
        match network {
            Network::Noise(network) => vec![(key.to_string(), self.noise(network, parameters, observations))],
            Network::Gaussian(network) => gaussian(key, network, parameters, observations),
            Network::Critic(critic) => {
                let (len, image_len) = (critic.state_len(), critic.image_len());
                let rows = states.len() / len;
                let load =
                    |i| CriticRow { state: observations.state(i, len), images: observations.image(i, image_len) };
                let mut workspace = critic.workspace(rows, Mode::Inference);
                let values = critic.forward(parameters, &critic.prepare(parameters), &mut workspace, rows, load);
                vec![(key.to_string(), values.to_vec())]
            }
        }
    }

    fn noise(&self, network: &NoiseNetwork, parameters: &[f32], observations: Observations) -> Vec<f32> {
        let times: Vec<usize> = self.values("t").into_iter().map(|t| t as usize).collect();
        let chunks = self.values("chunk");
        let prepared = network.prepare(parameters, &times);
        let mut workspace = network.workspace(times.len(), Mode::Inference);
        let row = |(i, chunk)| NoiseRow {
            slot: i as u32,
            chunk,
            state: observations.state(i, network.state_len()),
            images: observations.image(i, network.image_len()),
        };
        let rows: Vec<NoiseRow> = chunks.chunks_exact(network.chunk_len()).enumerate().map(row).collect();
        network.forward(parameters, &prepared, &mut workspace, &rows).to_vec()
    }

    /// How far ours are from the known ones, measured by the largest of these.
    pub fn deviation(&self, name: &str, ours: &[f32]) -> f32 {
        let theirs = self.values(name);
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let largest = theirs.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0, "{name}");
        // `max` passes over a NaN.
        assert!(ours.iter().all(|v| v.is_finite()), "{name}");
        ours.iter().zip(&theirs).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
    }

    /// Within 1e-5 of the largest value.
    pub fn compare(&self, name: &str, ours: &[f32]) {
        let deviation = self.deviation(name, ours);
        assert!(deviation <= 1e-5, "{name}: off by {deviation:e} of the largest value");
        println!("  {name}: off by {deviation:.1e} of the largest value");
    }

    /// Compares every network of a checkpoint. `pretrained`: as in [`networks`].
    pub fn compare_checkpoint(&self, checkpoint: &Checkpoint, pretrained: [&str; 2]) {
        for (key, network, parameters) in networks(checkpoint, pretrained) {
            // A mixture has no frozen network, and ours stands in with the other.
            let mixture = matches!(&network, Network::Gaussian(g) if g.modes() > 0);
            if mixture && key == "actor" {
                assert!(!self.has("actor.mean"));
                continue;
            }
            for (name, values) in self.outputs(key, &network, &parameters) {
                self.compare(&name, &values);
            }
        }
    }
}

fn gaussian(
    key: &str,
    network: &GaussianNetwork,
    parameters: &[f32],
    observations: Observations,
) -> Vec<(String, Vec<f32>)> {
    let (len, image_len) = (network.state_len(), network.image_len());
    let rows = observations.states.len() / len;
    let prepared = network.prepare(parameters);
    let mut workspace = network.workspace(rows, Mode::Inference);
    let load = |i| CriticRow { state: observations.state(i, len), images: observations.image(i, image_len) };
    network.forward(parameters, &prepared, &mut workspace, rows, load);
    let (mut mean, mut std, mut logits) = (vec![], vec![], vec![]);
    for i in 0..rows {
        let row = network.row(&prepared, &workspace, i);
        mean.extend_from_slice(row.mean);
        std.extend_from_slice(row.std);
        logits.extend_from_slice(row.logits);
    }
    let mut outputs = vec![(format!("{key}.mean"), mean), (format!("{key}.std"), std)];
    if network.modes() > 0 {
        outputs.push((format!("{key}.logits"), logits));
    }
    outputs
}
