//! Outputs of PyTorch's networks, and ours for the same inputs.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::network::{Critic, CriticRow, Mode, NoiseNetwork, NoiseRow};

use crate::policy_of;

/// Inputs and outputs of PyTorch's networks.
pub struct Known(Vec<u8>);

impl Known {
    pub fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap();
        match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            other => panic!("{name} has type {other:?}"),
        }
    }

    /// The network's noise for the stored inputs.
    pub fn noise(&self, network: &NoiseNetwork, parameters: &[f32]) -> Vec<f32> {
        let times: Vec<usize> = self.values("t").into_iter().map(|t| t as usize).collect();
        let (chunks, states) = (self.values("chunk"), self.values("state"));
        let prepared = network.prepare(parameters, &times);
        let mut workspace = network.workspace(times.len(), Mode::Inference);
        let rows = chunks.chunks_exact(network.chunk_len()).zip(states.chunks_exact(network.state_len())).enumerate();
        let rows: Vec<NoiseRow> =
            rows.map(|(i, (chunk, state))| NoiseRow { slot: i as u32, chunk, state, images: None }).collect();
        network.forward(parameters, &prepared, &mut workspace, &rows).to_vec()
    }

    /// The critic's values of the stored states.
    pub fn values_of_states(&self, critic: &Critic, parameters: &[f32]) -> Vec<f32> {
        let states = self.values("state");
        let rows = states.len() / critic.state_len();
        let mut workspace = critic.workspace(rows, Mode::Inference);
        let len = critic.state_len();
        let load = |i: usize| CriticRow { state: &states[i * len..(i + 1) * len], images: None };
        critic.forward(parameters, &critic.prepare(parameters), &mut workspace, rows, load).to_vec()
    }

    /// Within 1e-5 of the largest value.
    pub fn compare(&self, name: &str, ours: &[f32]) {
        let theirs = self.values(name);
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let largest = theirs.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let worst = ours.iter().zip(&theirs).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-5 * largest, "{name}: off by {worst:e}, the largest value is {largest}");
        println!("{name}: off by {:.1e} of the largest value", worst / largest);
    }

    /// Both networks of a fine-tuned policy, or the one of a pre-trained one, and the critic.
    pub fn compare_checkpoint(&self, checkpoint: &Checkpoint, frozen: &str, finetuned: &str) {
        let policy = policy_of(checkpoint);
        self.compare(frozen, &self.noise(&policy.network, &policy.frozen));
        self.compare(finetuned, &self.noise(&policy.network, &policy.finetuned));
        if let Some(spec) = &checkpoint.header.run.critic {
            let critic = Critic::new(spec, policy.network.state_len()).unwrap();
            let parameters = checkpoint.parameters("critic.", critic.table()).unwrap();
            let values = self.values_of_states(&critic, &parameters);
            self.compare("critic", &values);
        }
    }
}
