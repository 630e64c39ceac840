//! Named parameter tensors of a network, their check, and random ones for benchmarks and tests.

use std::collections::BTreeMap;

use tenon_core::network::{NetworkSpec, Parameter};
use tenon_core::noise::{NoiseSource, SeededNoise};

use super::Dims;
use crate::error::PolicyError;

/// An f32 tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Parameters by the names of the authors' checkpoints, as [`NetworkSpec::parameters`] lists them.
pub type Parameters = BTreeMap<String, Tensor>;

/// Checks that `parameters` are exactly those that a network lists: names, shapes, finite values.
pub fn check_parameters(listed: &[Parameter], parameters: &Parameters) -> Result<(), PolicyError> {
    for (name, shape) in listed {
        let Some(tensor) = parameters.get(name) else {
            return Err(PolicyError::Parameter { name: name.clone(), detail: "is missing".into() });
        };
        let values: usize = shape.iter().product();
        if tensor.shape != *shape || tensor.data.len() != values {
            let detail =
                format!("expected shape {shape:?}, found {:?} with {} values", tensor.shape, tensor.data.len());
            return Err(PolicyError::Parameter { name: name.clone(), detail });
        }
        if let Some(i) = tensor.data.iter().position(|x| !x.is_finite()) {
            let detail = format!("value {i} is {}", tensor.data[i]);
            return Err(PolicyError::Parameter { name: name.clone(), detail });
        }
    }
    match parameters.keys().find(|name| listed.iter().all(|(e, _)| e != *name)) {
        Some(name) => {
            Err(PolicyError::Parameter { name: name.clone(), detail: "does not belong to this network".into() })
        }
        None => Ok(()),
    }
}

/// Parameters drawn from `seed` with variances that keep activations near 1: for benchmarks and tests.
pub fn random_parameters(network: &NetworkSpec, dims: &Dims, seed: u64) -> Parameters {
    draw_parameters(network.parameters(dims.state_len(), dims.prediction_horizon, dims.action_dim), seed)
}

/// [`random_parameters`] of listed names and shapes.
pub(super) fn draw_parameters(listed: Vec<Parameter>, seed: u64) -> Parameters {
    let mut source = SeededNoise::new(seed, 0);
    let draw = |(name, shape): Parameter| {
        let mut data = vec![0.0; shape.iter().product()];
        source.fill_standard_normal(&mut data);
        let fan_in: usize = shape[1..].iter().product();
        // Norm weights and biases are vectors; a gain of 1 is what they start from.
        let (mean, scale) = match shape.len() {
            1 if name.ends_with("weight") => (1.0, 0.1),
            1 => (0.0, 0.1),
            _ => (0.0, 1.0 / (fan_in as f32).sqrt()),
        };
        for x in &mut data {
            *x = mean + scale * *x;
        }
        (name, Tensor { shape, data })
    };
    listed.into_iter().map(draw).collect()
}
