//! What a plan's passes ask of whoever computes: the processor ([`Host`]) or a device ([`OnDevice`]).
//!
//! The passes (`forward.rs`, `backward.rs`) walk the nodes once for both. They decide what is computed of what and whether
//! a gradient is added to; a backend does it. Values of n elements are `[positions, n, channels]` everywhere. Where a
//! function `adds`, it adds to what is there; else it takes its place.

mod device;
mod host;
mod orders;

use std::fmt::Debug;
use std::ops::Range;

use tenon_core::network::Activation;

pub(super) use device::OnDevice;
pub(super) use host::Host;
pub(super) use orders::{DeviceBlock, Scratch};

use super::attention::AttentionShape;
use super::convolution::{ConvShape, PatchShape};
use super::norm::NormShape;

/// Which element of a looked-up value stands behind element r.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// All have the first.
    One,
    /// Element r itself.
    Same,
    /// That of the row's step.
    Time,
    /// That of the row's state.
    State,
}

/// A value that is looked up: `[positions, elements, channels]`; with one position it stands on every one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked<S> {
    pub values: S,
    pub positions: usize,
    pub elements: usize,
    pub lookup: Lookup,
}

/// Sizes of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub positions: usize,
    pub n: usize,
    pub channels: usize,
}

/// Some columns of a stored `[outputs, stride]` weight, from the first value on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight<S> {
    pub values: S,
    pub outputs: usize,
    pub inputs: usize,
    pub stride: usize,
}

/// A place that may be written, and whether it is added to.
pub(super) type Target<M> = (M, bool);

/// Kernels over buffers of one kind of memory.
pub(super) trait Backend {
    type Buffer: Debug + Default + Clone;
    type Slice<'a>: Copy;
    type SliceMut<'a>;

    fn slice(buffer: &Self::Buffer, range: Range<usize>) -> Self::Slice<'_>;
    fn slice_mut(buffer: &mut Self::Buffer, range: Range<usize>) -> Self::SliceMut<'_>;
    fn part<'a>(slice: Self::Slice<'a>, range: Range<usize>) -> Self::Slice<'a>;
    fn part_mut<'a>(slice: &'a mut Self::SliceMut<'_>, range: Range<usize>) -> Self::SliceMut<'a>;
    /// Two parts, the second behind the first.
    fn two_mut<'a>(
        slice: &'a mut Self::SliceMut<'_>,
        first: Range<usize>,
        second: Range<usize>,
    ) -> (Self::SliceMut<'a>, Self::SliceMut<'a>);

    fn zero(&mut self, out: Self::SliceMut<'_>);
    /// `out (+)= factor · x + offset`.
    fn scale_shift(&mut self, out: Target<Self::SliceMut<'_>>, x: Self::Slice<'_>, factor: f32, offset: f32);
    /// `out (+)= x`.
    fn copy(&mut self, out: Target<Self::SliceMut<'_>>, x: Self::Slice<'_>);
    /// `out = x + y`, y of `y_len` values as often as it takes.
    fn add_repeated(&mut self, out: Self::SliceMut<'_>, x: Self::Slice<'_>, y: Self::Slice<'_>, y_len: usize);
    /// The reverse for y: `out += Σ d`, the repetitions of `out`, of `len` values.
    fn sum_repeated(&mut self, out: Self::SliceMut<'_>, len: usize, d: Self::Slice<'_>);
    fn clamp(&mut self, out: Self::SliceMut<'_>, x: Self::Slice<'_>, bounds: [f32; 2]);
    fn clamp_backward(
        &mut self,
        dx: Target<Self::SliceMut<'_>>,
        d: Self::Slice<'_>,
        x: Self::Slice<'_>,
        bounds: [f32; 2],
    );

    /// `out[p][r] (+)= looked[p][index(r)]`.
    fn gather(&mut self, out: Target<Self::SliceMut<'_>>, shape: Shape, looked: Looked<Self::Slice<'_>>);
    /// The reverse: `sums[p][index(r)] += d[p][r]`.
    fn scatter(&mut self, sums: Looked<Self::SliceMut<'_>>, d: Self::Slice<'_>, shape: Shape);
    /// `width` channels from place `from.1` of each row of `from.0` channels to place `to.1` of each of `to.0`.
    fn copy_channels(
        &mut self,
        out: Target<Self::SliceMut<'_>>,
        to: (usize, usize),
        x: Self::Slice<'_>,
        from: (usize, usize),
        width: usize,
    );
    /// `[positions, channels]` (of `x`) to `[channels, positions]` of each element.
    fn transpose(&mut self, out: Target<Self::SliceMut<'_>>, x: Self::Slice<'_>, shape: Shape);
    /// The row-major values of each element in rows of other lengths.
    fn reshape(
        &mut self,
        out: Target<Self::SliceMut<'_>>,
        out_channels: usize,
        x: Self::Slice<'_>,
        x_channels: usize,
        n: usize,
    );

    /// Every row of `out` `(+)= row`, of `channels` values.
    fn fill_rows(&mut self, out: Target<Self::SliceMut<'_>>, row: Self::Slice<'_>, channels: usize);
    /// `sums += ` the columns of `d: [rows, channels]`.
    fn column_sum(&mut self, sums: Self::SliceMut<'_>, channels: usize, d: Self::Slice<'_>);
    /// `out (+)= x · weightᵀ` of `rows` rows.
    fn multiply_rows(
        &mut self,
        out: Target<Self::SliceMut<'_>>,
        x: Self::Slice<'_>,
        rows: usize,
        weight: Weight<Self::Slice<'_>>,
    );
    /// `weight += dᵀ · x` of `rows` rows.
    fn multiply_gradient(
        &mut self,
        weight: Weight<Self::SliceMut<'_>>,
        d: Self::Slice<'_>,
        x: Self::Slice<'_>,
        rows: usize,
    );
    /// `dx (+)= d · weight` of `rows` rows.
    fn multiply_back(
        &mut self,
        dx: Target<Self::SliceMut<'_>>,
        d: Self::Slice<'_>,
        rows: usize,
        weight: Weight<Self::Slice<'_>>,
    );

    /// `a = f(h + bias)`; leaves f' in `h` (ReLU: anything). `bias`: of `channels` values.
    fn bias_activate(
        &mut self,
        f: Activation,
        h: Self::SliceMut<'_>,
        bias: Option<Self::Slice<'_>>,
        channels: usize,
        a: Self::SliceMut<'_>,
    );
    /// `a = f(a + bias)`.
    fn bias_activate_in_place(
        &mut self,
        f: Activation,
        a: Self::SliceMut<'_>,
        bias: Option<Self::Slice<'_>>,
        channels: usize,
    );
    /// `a = f(x)`, `derivative = f'(x)` (ReLU: left alone).
    fn activate(&mut self, f: Activation, x: Self::Slice<'_>, a: Self::SliceMut<'_>, derivative: Self::SliceMut<'_>);
    /// `d` becomes the gradient before the activation, whose columns are added to `sums` where there are any.
    fn activation_backward(
        &mut self,
        f: Activation,
        d: Self::SliceMut<'_>,
        a: Self::Slice<'_>,
        derivative: Self::Slice<'_>,
        channels: usize,
        sums: Option<Self::SliceMut<'_>>,
    );

    /// `saved`: normalised values and, behind them, the inverse deviation of each row.
    fn layer_norm(
        &mut self,
        out: Self::SliceMut<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        bias: Self::Slice<'_>,
        shape: Shape,
        epsilon: f32,
        saved: Self::SliceMut<'_>,
    );
    /// Adds to `parameters`, the gradients of weight and bias.
    fn layer_norm_backward(
        &mut self,
        dx: Option<Target<Self::SliceMut<'_>>>,
        d: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        shape: Shape,
        saved: Self::Slice<'_>,
        parameters: (Self::SliceMut<'_>, Self::SliceMut<'_>),
    );
    /// `saved`: normalised values and, behind them, the inverse deviations `[n, groups]`.
    fn group_norm(
        &mut self,
        out: Self::SliceMut<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        bias: Self::Slice<'_>,
        positions: usize,
        shape: NormShape,
        saved: Self::SliceMut<'_>,
    );
    /// Adds to `parameters`, the gradients of weight and bias.
    fn group_norm_backward(
        &mut self,
        dx: Option<Target<Self::SliceMut<'_>>>,
        d: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        positions: usize,
        shape: NormShape,
        saved: Self::Slice<'_>,
        parameters: (Self::SliceMut<'_>, Self::SliceMut<'_>),
    );

    fn conv1d(
        &mut self,
        shape: ConvShape,
        transposed: bool,
        y: Self::SliceMut<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        bias: Self::Slice<'_>,
    );
    /// Adds to `parameters`, the gradients of weight and bias.
    fn conv1d_backward(
        &mut self,
        shape: ConvShape,
        transposed: bool,
        d: Self::Slice<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        parameters: (Self::SliceMut<'_>, Self::SliceMut<'_>),
        dx: Option<Target<Self::SliceMut<'_>>>,
    );
    fn conv2d(
        &mut self,
        shape: PatchShape,
        y: Self::SliceMut<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        bias: Self::Slice<'_>,
    );
    /// Adds to `parameters`, the gradients of weight and bias.
    fn conv2d_backward(
        &mut self,
        shape: PatchShape,
        d: Self::Slice<'_>,
        x: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        parameters: (Self::SliceMut<'_>, Self::SliceMut<'_>),
        dx: Option<Target<Self::SliceMut<'_>>>,
    );

    /// `x · scale + shift` with `film [n, 2 channels]`, scales first.
    fn modulate(&mut self, out: Self::SliceMut<'_>, x: Self::Slice<'_>, film: Self::Slice<'_>, shape: Shape);
    fn modulate_film(&mut self, film: Target<Self::SliceMut<'_>>, d: Self::Slice<'_>, x: Self::Slice<'_>, shape: Shape);
    fn modulate_input(
        &mut self,
        dx: Target<Self::SliceMut<'_>>,
        d: Self::Slice<'_>,
        film: Self::Slice<'_>,
        shape: Shape,
    );

    /// softmax(Q Kᵀ/√d) V; `weights [n, heads, positions, memory]` keeps the softmax.
    fn attention(
        &mut self,
        shape: AttentionShape,
        out: Self::SliceMut<'_>,
        inputs: [Self::Slice<'_>; 3],
        weights: Self::SliceMut<'_>,
    );
    fn attention_backward(
        &mut self,
        shape: AttentionShape,
        d: Self::Slice<'_>,
        inputs: [Self::Slice<'_>; 3],
        weights: Self::Slice<'_>,
        gradients: [Target<Self::SliceMut<'_>>; 3],
    );

    /// Σ_p weight_p ∘ x_p; `weight [positions, channels]`, `out [n, channels]`; `shape` is that of x.
    fn weighted_sum(&mut self, out: Self::SliceMut<'_>, x: Self::Slice<'_>, weight: Self::Slice<'_>, shape: Shape);
    /// `weight += Σ_r x ∘ d`.
    fn weighted_sum_weight(&mut self, weight: Self::SliceMut<'_>, x: Self::Slice<'_>, d: Self::Slice<'_>, shape: Shape);
    fn weighted_sum_input(
        &mut self,
        dx: Target<Self::SliceMut<'_>>,
        d: Self::Slice<'_>,
        weight: Self::Slice<'_>,
        shape: Shape,
    );
}
