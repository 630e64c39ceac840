//! The parameters of a network, found by building it.

use std::ops::Range;

use super::layers::{AffineNames, Layers, Window};
use super::{Activation, Parameter};

/// Builds nothing but the list of parameters, in the order in which the definition first names them, and counts the
/// multiply-adds of one row.
#[derive(Debug, Default)]
pub struct Listing {
    parameters: Vec<Parameter>,
    multiply_adds: u64,
}

impl Listing {
    /// Name and shape of every parameter named so far.
    pub fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
    }

    /// Multiplications (each with an addition) of one row's matrix products and convolutions.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// A value that comes from outside.
    pub fn input(positions: usize, channels: usize) -> [usize; 2] {
        [positions, channels]
    }

    fn name(&mut self, name: String, shape: Vec<usize>) {
        match self.parameters.iter().find(|(known, _)| *known == name) {
            Some((name, known)) => assert_eq!(*known, shape, "two shapes of {name}"),
            None => self.parameters.push((name, shape)),
        }
    }

    fn weight_and_bias(&mut self, name: &str, shape: Vec<usize>, outputs: usize) {
        self.name(format!("{name}.weight"), shape);
        self.name(format!("{name}.bias"), vec![outputs]);
    }
}

impl Layers for Listing {
    type Value = [usize; 2];

    fn shape(&self, x: &[usize; 2]) -> [usize; 2] {
        *x
    }

    fn affine(&mut self, names: &AffineNames, inputs: &[&[usize; 2]]) -> [usize; 2] {
        let positions = inputs.iter().map(|x| x[0]).max().unwrap_or(1);
        assert!(inputs.iter().all(|x| x[0] == positions || x[0] == 1), "positions of {} differ", names.weight);
        let columns: usize = inputs.iter().map(|x| x[1]).sum();
        self.name(names.weight.clone(), vec![names.stored, columns]);
        self.name(names.bias.clone(), vec![names.stored]);
        self.multiply_adds += inputs.iter().map(|x| (x[0] * x[1] * names.part.len()) as u64).sum::<u64>();
        [positions, names.part.len()]
    }

    fn parameter(&mut self, name: &str, shape: &[usize], positions: usize, channels: usize) -> [usize; 2] {
        self.name(name.to_string(), shape.to_vec());
        [positions, channels]
    }

    fn activate(&mut self, _: Activation, x: &[usize; 2]) -> [usize; 2] {
        *x
    }

    fn add(&mut self, x: &[usize; 2], y: &[usize; 2]) -> [usize; 2] {
        assert!(x[1] == y[1] && (x[0] == y[0] || y[0] == 1), "sum of {x:?} and {y:?}");
        *x
    }

    fn scale_shift(&mut self, x: &[usize; 2], _: f32, _: f32) -> [usize; 2] {
        *x
    }

    fn clamp(&mut self, x: &[usize; 2], _: f32, _: f32) -> [usize; 2] {
        *x
    }

    fn concat(&mut self, values: &[&[usize; 2]]) -> [usize; 2] {
        assert!(values.iter().all(|x| x[0] == values[0][0]), "positions differ");
        [values[0][0], values.iter().map(|x| x[1]).sum()]
    }

    fn channels(&mut self, x: &[usize; 2], range: Range<usize>) -> [usize; 2] {
        assert!(range.end <= x[1], "channels {range:?} of {x:?}");
        [x[0], range.len()]
    }

    fn transpose(&mut self, x: &[usize; 2]) -> [usize; 2] {
        [x[1], x[0]]
    }

    fn reshape(&mut self, x: &[usize; 2], positions: usize, channels: usize) -> [usize; 2] {
        assert_eq!(x[0] * x[1], positions * channels, "{x:?} as [{positions}, {channels}]");
        [positions, channels]
    }

    fn layer_norm(&mut self, name: &str, x: &[usize; 2], _: f32) -> [usize; 2] {
        self.weight_and_bias(name, vec![x[1]], x[1]);
        *x
    }

    fn group_norm(&mut self, name: &str, x: &[usize; 2], groups: usize, _: f32) -> [usize; 2] {
        assert!(x[1].is_multiple_of(groups), "{} channels in {groups} groups", x[1]);
        self.weight_and_bias(name, vec![x[1]], x[1]);
        *x
    }

    fn conv1d(&mut self, name: &str, x: &[usize; 2], outputs: usize, window: Window) -> [usize; 2] {
        self.weight_and_bias(name, vec![outputs, x[1], window.kernel], outputs);
        let positions = (x[0] + 2 * window.padding - window.kernel) / window.stride + 1;
        self.multiply_adds += (positions * outputs * x[1] * window.kernel) as u64;
        [positions, outputs]
    }

    fn conv_transpose1d(&mut self, name: &str, x: &[usize; 2], outputs: usize, window: Window) -> [usize; 2] {
        self.weight_and_bias(name, vec![x[1], outputs, window.kernel], outputs);
        self.multiply_adds += (x[0] * outputs * x[1] * window.kernel) as u64;
        [(x[0] - 1) * window.stride + window.kernel - 2 * window.padding, outputs]
    }

    fn conv2d(
        &mut self,
        name: &str,
        x: &[usize; 2],
        [height, width]: [usize; 2],
        outputs: usize,
        kernel: usize,
        stride: usize,
    ) -> [usize; 2] {
        assert_eq!(height * width, x[0], "a picture of {height} × {width}");
        self.weight_and_bias(name, vec![outputs, x[1], kernel, kernel], outputs);
        let side = |n: usize| (n - kernel) / stride + 1;
        let positions = side(height) * side(width);
        self.multiply_adds += (positions * outputs * x[1] * kernel * kernel) as u64;
        [positions, outputs]
    }

    fn modulate(&mut self, x: &[usize; 2], film: &[usize; 2]) -> [usize; 2] {
        assert_eq!(*film, [1, 2 * x[1]], "FiLM of {x:?}");
        *x
    }

    fn attention(&mut self, q: &[usize; 2], k: &[usize; 2], v: &[usize; 2], heads: usize) -> [usize; 2] {
        assert!(k == v && q[1] == k[1] && q[1].is_multiple_of(heads), "attention of {q:?} to {k:?}");
        self.multiply_adds += (2 * q[0] * k[0] * q[1]) as u64;
        *q
    }

    fn weighted_sum(&mut self, name: &str, x: &[usize; 2]) -> [usize; 2] {
        self.name(name.to_string(), vec![1, x[0], x[1]]);
        [1, x[1]]
    }
}
