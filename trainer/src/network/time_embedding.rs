//! Sinusoidal embedding of the integer step t, then Linear(d → 2d) → Mish → Linear(2d → d) (spec dppo.md §3.1).

use tenon_core::network::{Activation, sinusoid};

use super::plain_mlp::{PlainMlp, PlainWorkspace};
use super::{Mode, ParameterTable};
use crate::error::TrainError;

/// Sizes and offsets.
#[derive(Debug, Clone)]
pub(crate) struct TimeEmbedding {
    pub dim: usize,
    mlp: PlainMlp,
}

/// Embeddings of some distinct steps with everything their backward pass needs.
#[derive(Debug, Clone)]
pub(crate) struct EmbeddedTimes {
    sinusoids: Vec<f32>,
    count: usize,
    ws: PlainWorkspace,
}

impl TimeEmbedding {
    pub fn new(table: &ParameterTable, dim: usize) -> Result<Self, TrainError> {
        if dim < 4 || dim % 2 == 1 {
            return Err(TrainError::Network(format!("time_dim {dim}: give an even number of at least 4")));
        }
        let names = ["time_embedding.1".to_string(), "time_embedding.3".to_string()];
        // Mish whatever the activation of the trunk.
        Ok(Self { dim, mlp: PlainMlp::new(table, &names, Activation::Mish)? })
    }

    pub fn embed(&self, parameters: &[f32], times: &[usize]) -> EmbeddedTimes {
        let sinusoids: Vec<f32> = times.iter().flat_map(|&t| sinusoid(t, self.dim)).collect();
        let mut ws = self.mlp.workspace(times.len(), Mode::Training);
        self.mlp.forward(parameters, &mut ws, &sinusoids, times.len());
        EmbeddedTimes { sinusoids, count: times.len(), ws }
    }

    /// `d`: gradient with respect to [`EmbeddedTimes::values`].
    pub fn backward(&self, parameters: &[f32], times: &mut EmbeddedTimes, d: &[f32], gradient: &mut [f32]) {
        times.ws.output_gradient().copy_from_slice(d);
        self.mlp.backward(parameters, &mut times.ws, &times.sinusoids, times.count, gradient);
    }
}

impl EmbeddedTimes {
    /// `[times, dim]`.
    pub fn values(&self) -> &[f32] {
        self.ws.output()
    }
}
