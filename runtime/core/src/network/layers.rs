//! What networks are made of: one vocabulary of layers, several ways to build with it.
//!
//! A network is defined once, as a function over [`Layers`]. The trainer builds an executable plan with gradients of
//! it, the exporter an ONNX graph, and [`super::Listing`] the list of its parameters.
//!
//! A definition speaks of one row. Every value is `[positions, channels]`, row-major; a vector has one position. Rows,
//! and what is computed once for several of them, are the builder's business: it knows which inputs a value depends
//! on, so whatever depends on the state or on the time alone can be computed once for each.

use std::ops::Range;

use super::Activation;

/// An affine map's parameters: names as in the authors' checkpoints, and which of their rows it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffineNames {
    /// `[outputs, inputs]` in the checkpoint.
    pub weight: String,
    /// `[outputs]` in the checkpoint.
    pub bias: String,
    /// Outputs of the stored layer.
    pub stored: usize,
    /// Those that are wanted: a fused projection holds several.
    pub part: Range<usize>,
}

impl AffineNames {
    /// A whole linear layer `name`.
    pub fn whole(name: &str, outputs: usize) -> Self {
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), stored: outputs, part: 0..outputs }
    }
}

/// Sizes of a one-dimensional convolution over positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first and behind the last position.
    pub padding: usize,
}

/// A builder of networks. `[p, c]` = positions, channels of one row's value.
///
/// Sizes that do not fit are a defect of the definition, which [`super::NetworkSpec::check`] rules out for every
/// description that comes from outside; builders may panic on them.
pub trait Layers {
    type Value: Clone;

    /// `[positions, channels]`.
    fn shape(&self, x: &Self::Value) -> [usize; 2];

    /// y_i = W · concat(x₀_i, x₁_i, …) + b for each position i, W's columns in that order. An input with one position
    /// stands on every position of the others.
    fn affine(&mut self, names: &AffineNames, inputs: &[&Self::Value]) -> Self::Value;

    /// A learned value that is the same for every row; `shape`: as stored.
    fn parameter(&mut self, name: &str, shape: &[usize], positions: usize, channels: usize) -> Self::Value;

    fn activate(&mut self, activation: Activation, x: &Self::Value) -> Self::Value;

    /// x + y; where y has one position it is added on every position of x.
    fn add(&mut self, x: &Self::Value, y: &Self::Value) -> Self::Value;

    /// factor · x + offset.
    fn scale_shift(&mut self, x: &Self::Value, factor: f32, offset: f32) -> Self::Value;

    /// min(max(x, low), high); no gradient outside.
    fn clamp(&mut self, x: &Self::Value, low: f32, high: f32) -> Self::Value;

    /// The values' channels side by side.
    fn concat(&mut self, values: &[&Self::Value]) -> Self::Value;

    /// Some channels of every position.
    fn channels(&mut self, x: &Self::Value, range: Range<usize>) -> Self::Value;

    /// `[p, c]` → `[c, p]`.
    fn transpose(&mut self, x: &Self::Value) -> Self::Value;

    /// The same row-major values as `[positions, channels]`.
    fn reshape(&mut self, x: &Self::Value, positions: usize, channels: usize) -> Self::Value;

    /// LayerNorm over channels; parameters `{name}.weight`, `{name}.bias`, both `[c]`.
    fn layer_norm(&mut self, name: &str, x: &Self::Value, epsilon: f32) -> Self::Value;

    /// GroupNorm: each group of `c / groups` neighbouring channels is normalised over its channels and all positions;
    /// parameters `{name}.weight`, `{name}.bias`, both `[c]`.
    fn group_norm(&mut self, name: &str, x: &Self::Value, groups: usize, epsilon: f32) -> Self::Value;

    /// Conv1d over positions; parameters `{name}.weight [outputs, c, kernel]`, `{name}.bias [outputs]`.
    fn conv1d(&mut self, name: &str, x: &Self::Value, outputs: usize, window: Window) -> Self::Value;

    /// ConvTranspose1d over positions; parameters `{name}.weight [c, outputs, kernel]`, `{name}.bias [outputs]`.
    fn conv_transpose1d(&mut self, name: &str, x: &Self::Value, outputs: usize, window: Window) -> Self::Value;

    /// Conv2d without padding over positions that are a `[height, width]` picture, row-major; parameters
    /// `{name}.weight [outputs, c, kernel, kernel]`, `{name}.bias [outputs]`.
    fn conv2d(
        &mut self,
        name: &str,
        x: &Self::Value,
        picture: [usize; 2],
        outputs: usize,
        kernel: usize,
        stride: usize,
    ) -> Self::Value;

    /// FiLM: x · scale + bias with `film = [1, 2c]`, scales first.
    fn modulate(&mut self, x: &Self::Value, film: &Self::Value) -> Self::Value;

    /// Multi-head scaled dot-product attention: queries `[p, c]`, keys and values `[m, c]` → `[p, c]`.
    fn attention(
        &mut self,
        queries: &Self::Value,
        keys: &Self::Value,
        values: &Self::Value,
        heads: usize,
    ) -> Self::Value;

    /// Σ_i w_i ∘ x_i over positions i → `[1, c]`; parameter `{name} [1, p, c]`.
    fn weighted_sum(&mut self, name: &str, x: &Self::Value) -> Self::Value;

    /// A linear layer `name`.
    fn linear(&mut self, name: &str, inputs: &[&Self::Value], outputs: usize) -> Self::Value {
        self.affine(&AffineNames::whole(name, outputs), inputs)
    }

    /// [`Layers::linear`] and an activation.
    fn dense(&mut self, name: &str, inputs: &[&Self::Value], outputs: usize, activation: Activation) -> Self::Value {
        let h = self.linear(name, inputs, outputs);
        self.activate(activation, &h)
    }

    /// One position that holds all values of x, row-major.
    fn flatten(&mut self, x: &Self::Value) -> Self::Value {
        let [positions, channels] = self.shape(x);
        if positions == 1 { x.clone() } else { self.reshape(x, 1, positions * channels) }
    }
}
