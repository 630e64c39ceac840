//! Names, shapes and ranges of the parameters of one network in its flat slice.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::Rng;
use tenon_core::network::Parameter;
use tenon_core::noise::{NoiseSource, SeededNoise};

use crate::error::TrainError;

/// Where each named parameter lies in the flat slice, in the order of `tenon_core::network`.
#[derive(Debug, Clone)]
pub struct ParameterTable {
    entries: Vec<(Parameter, Range<usize>)>,
    len: usize,
}

impl ParameterTable {
    /// Lays the parameters out one behind the other.
    pub fn new(parameters: Vec<Parameter>) -> Self {
        let mut len = 0;
        let entries = parameters
            .into_iter()
            .map(|p| {
                let start = len;
                len += p.1.iter().product::<usize>();
                (p, start..len)
            })
            .collect();
        Self { entries, len }
    }

    /// Number of values of the whole network.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Name, shape and range of every parameter, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], Range<usize>)> {
        self.entries.iter().map(|((name, shape), range)| (name.as_str(), shape.as_slice(), range.clone()))
    }

    /// Range and shape of the parameter called `name`.
    pub fn find(&self, name: &str) -> Result<(Range<usize>, &[usize]), TrainError> {
        self.iter()
            .find(|(n, _, _)| *n == name)
            .map(|(_, shape, range)| (range, shape))
            .ok_or_else(|| TrainError::Network(format!("the architecture has no parameter `{name}`")))
    }

    /// Name of the parameter that the flat index `i` belongs to.
    pub fn name_at(&self, i: usize) -> &str {
        self.iter().find(|(_, _, range)| range.contains(&i)).map_or("?", |(name, _, _)| name)
    }

    /// Fresh parameters (spec dppo.md §3, §3.4, §4): U(−1/√fan_in, 1/√fan_in) for weights and biases of linear and
    /// convolution layers, 1 and 0 for those of norms; N(0, 0.02²) and biases of 0 inside a transformer or behind the
    /// patches of an image encoder, N(0, 1) for the weights of a spatial embedding.
    pub fn initialise(&self, noise: &mut SeededNoise) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        let mut bound = None;
        for (name, shape, range) in self.iter() {
            let values = &mut values[range];
            // "in_proj_bias" of an attention, too.
            let bias = name.ends_with("bias");
            if let Some(std) = normal_std(name, shape).filter(|_| !bias) {
                noise.fill_standard_normal(values);
                values.iter_mut().for_each(|v| *v *= std);
                bound = None;
                continue;
            }
            if !bias {
                bound = (shape.len() >= 2).then(|| (shape[1..].iter().product::<usize>() as f32).sqrt().recip());
            }
            match bound {
                Some(b) => values.fill_with(|| noise.rng().random_range(-b..b)),
                None => values.fill(if bias { 0.0 } else { 1.0 }),
            }
        }
        values
    }

    /// Gathers the flat slice from named tensors; every name must be there with as many values as its shape has.
    pub fn collect<'a>(
        &self,
        mut tensor: impl FnMut(&str) -> Option<(&'a [usize], &'a [f32])>,
    ) -> Result<Vec<f32>, TrainError> {
        let mut values = Vec::with_capacity(self.len);
        for (name, shape, _) in self.iter() {
            let (found, data) = tensor(name).ok_or_else(|| TrainError::Parameter {
                name: name.into(),
                detail: "missing; was this file made for another architecture?".into(),
            })?;
            if found != shape {
                return Err(TrainError::Parameter {
                    name: name.into(),
                    detail: format!("has shape {found:?}, the architecture wants {shape:?}"),
                });
            }
            values.extend_from_slice(data);
        }
        Ok(values)
    }

    /// The named parts of a flat slice (parameters, a gradient, an average).
    pub fn split<'a>(&'a self, flat: &'a [f32]) -> BTreeMap<&'a str, (&'a [usize], &'a [f32])> {
        self.iter().map(|(name, shape, range)| (name, (shape, &flat[range]))).collect()
    }
}

/// Deviation of weights that begin normally distributed.
fn normal_std(name: &str, shape: &[usize]) -> Option<f32> {
    let tokens = name.starts_with("transformer.")
        || name.starts_with("backbone.vit.") && !name.starts_with("backbone.vit.patch_embed.");
    if name.starts_with("compress") && shape.len() == 3 {
        return Some(1.0);
    }
    // The reference cuts these of the image encoder at ±2, a hundred deviations.
    (tokens && shape.len() >= 2).then_some(0.02)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_parameters_stay_within_the_bound_of_their_layer() {
        let table =
            ParameterTable::new(tenon_core::network::CriticSpec::state(&[64; 3], Default::default()).parameters(16));
        let values = table.initialise(&mut SeededNoise::new(1, 0));
        for (name, _, range) in table.iter() {
            let bound = if name.contains("layers.0") { 0.25 } else { 0.125 };
            assert!(values[range.clone()].iter().all(|v| v.abs() <= bound), "{name}");
            assert!(values[range].iter().any(|v| v.abs() > 0.5 * bound), "{name}");
        }
    }

    #[test]
    fn a_missing_or_misshapen_tensor_is_named() {
        let table =
            ParameterTable::new(tenon_core::network::CriticSpec::state(&[4; 3], Default::default()).parameters(2));
        let error = table.collect(|_| None).unwrap_err().to_string();
        assert!(error.contains("Q1.layers.0.weight"), "{error}");
        let error = table.collect(|_| Some((&[1], &[0.0]))).unwrap_err().to_string();
        assert!(error.contains("[4, 2]"), "{error}");
    }
}
