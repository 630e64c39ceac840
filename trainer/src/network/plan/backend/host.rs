//! The processor: slices and the kernels beside this folder.

use std::ops::Range;

use tenon_core::network::Activation;

use super::{Backend, Looked, Lookup, Shape, Target, Weight};
use crate::elementwise::{activate, activation_backward, add, bias_activate, bias_activate_in_place, column_sum};
use crate::linalg::{Into, Matrix, MatrixMut, multiply, multiply_rows, multiply_to};
use crate::network::plan::attention::{self, AttentionShape};
use crate::network::plan::convolution::{self, ConvShape, PatchShape};
use crate::network::plan::norm::{self, NormShape};
use crate::network::plan::rearrange::{self, Index, Source};
use crate::network::plan::workspace::Block;

/// Kernels on slices, for the elements of a block.
#[derive(Debug)]
pub(in crate::network::plan) struct Host<'a> {
    pub block: &'a Block,
    pub scratch: &'a mut Vec<f32>,
    /// In place of a bias; as many as the widest value has channels.
    pub zeros: &'a [f32],
}

impl Host<'_> {
    fn index(&self, lookup: Lookup) -> Index<'_> {
        match lookup {
            Lookup::One => Index::One,
            Lookup::Same => Index::Same,
            Lookup::Time => Index::List(&self.block.slots),
            Lookup::State => Index::List(&self.block.state_of_row),
        }
    }
}

fn into(adds: bool) -> Into {
    if adds { Into::Add } else { Into::Overwrite }
}

/// The matrix of a stored weight.
fn matrix(weight: Weight<&[f32]>) -> Matrix<'_> {
    Matrix::strided(weight.values, weight.outputs, weight.inputs, weight.stride)
}

impl Backend for Host<'_> {
    type Buffer = Vec<f32>;
    type Slice<'a> = &'a [f32];
    type SliceMut<'a> = &'a mut [f32];

    fn slice(buffer: &Vec<f32>, range: Range<usize>) -> &[f32] {
        &buffer[range]
    }

    fn slice_mut(buffer: &mut Vec<f32>, range: Range<usize>) -> &mut [f32] {
        &mut buffer[range]
    }

    fn part<'a>(slice: Self::Slice<'a>, range: Range<usize>) -> Self::Slice<'a> {
        &slice[range]
    }

    fn part_mut<'a>(slice: &'a mut &mut [f32], range: Range<usize>) -> &'a mut [f32] {
        &mut slice[range]
    }

    fn two_mut<'a>(
        slice: &'a mut &mut [f32],
        first: Range<usize>,
        second: Range<usize>,
    ) -> (&'a mut [f32], &'a mut [f32]) {
        let (low, high) = slice.split_at_mut(second.start);
        (&mut low[first], &mut high[..second.len()])
    }

    fn zero(&mut self, out: &mut [f32]) {
        out.fill(0.0);
    }

    fn scale_shift(&mut self, (out, adds): Target<&mut [f32]>, x: &[f32], factor: f32, offset: f32) {
        for (y, x) in out.iter_mut().zip(x) {
            let value = factor * x + offset;
            *y = if adds { *y + value } else { value };
        }
    }

    fn copy(&mut self, (out, adds): Target<&mut [f32]>, x: &[f32]) {
        if adds { add(out, x) } else { out.copy_from_slice(x) }
    }

    fn add_repeated(&mut self, out: &mut [f32], x: &[f32], y: &[f32], y_len: usize) {
        out.copy_from_slice(x);
        out.chunks_exact_mut(y_len).for_each(|out| add(out, y));
    }

    fn sum_repeated(&mut self, out: &mut [f32], len: usize, d: &[f32]) {
        d.chunks_exact(len).for_each(|d| add(out, d));
    }

    fn clamp(&mut self, out: &mut [f32], x: &[f32], [low, high]: [f32; 2]) {
        out.iter_mut().zip(x).for_each(|(y, x)| *y = x.clamp(low, high));
    }

    fn clamp_backward(&mut self, (dx, adds): Target<&mut [f32]>, d: &[f32], x: &[f32], [low, high]: [f32; 2]) {
        for ((dx, d), x) in dx.iter_mut().zip(d).zip(x) {
            let g = if *x < low || *x > high { 0.0 } else { *d };
            *dx = if adds { *dx + g } else { g };
        }
    }

    fn gather(&mut self, (out, adds): Target<&mut [f32]>, shape: Shape, looked: Looked<&[f32]>) {
        let Looked { values, positions, elements, lookup } = looked;
        let source = Source { values, positions, elements, index: self.index(lookup) };
        rearrange::gather(out, shape.positions, shape.n, shape.channels, source, adds);
    }

    fn scatter(&mut self, sums: Looked<&mut [f32]>, d: &[f32], shape: Shape) {
        let (index, size) = (self.index(sums.lookup), (sums.positions, sums.elements));
        rearrange::scatter(sums.values, size, index, d, shape.positions, shape.n, shape.channels);
    }

    fn copy_channels(
        &mut self,
        (out, adds): Target<&mut [f32]>,
        to: (usize, usize),
        x: &[f32],
        from: (usize, usize),
        width: usize,
    ) {
        rearrange::copy_channels(out, to, x, from, width, adds);
    }

    fn transpose(&mut self, (out, adds): Target<&mut [f32]>, x: &[f32], shape: Shape) {
        rearrange::transpose(out, x, shape.positions, shape.channels, shape.n, adds);
    }

    fn reshape(
        &mut self,
        (out, adds): Target<&mut [f32]>,
        out_channels: usize,
        x: &[f32],
        x_channels: usize,
        n: usize,
    ) {
        rearrange::reshape(out, out_channels, x, x_channels, n, adds);
    }

    fn fill_rows(&mut self, (out, adds): Target<&mut [f32]>, row: &[f32], channels: usize) {
        for out in out.chunks_exact_mut(channels) {
            if adds { add(out, row) } else { out.copy_from_slice(row) }
        }
    }

    fn column_sum(&mut self, sums: &mut [f32], _: usize, d: &[f32]) {
        column_sum(d, sums);
    }

    fn multiply_rows(&mut self, (out, adds): Target<&mut [f32]>, x: &[f32], rows: usize, weight: Weight<&[f32]>) {
        multiply_rows(out, into(adds), Matrix::new(x, rows, weight.inputs), matrix(weight).t());
    }

    fn multiply_gradient(&mut self, weight: Weight<&mut [f32]>, d: &[f32], x: &[f32], rows: usize) {
        let Weight { values, outputs, inputs, stride } = weight;
        let d = Matrix::new(d, rows, outputs);
        multiply_to(
            MatrixMut::strided(values, outputs, inputs, stride),
            Into::Add,
            d.t(),
            Matrix::new(x, rows, inputs),
            1.0,
        );
    }

    fn multiply_back(&mut self, (dx, adds): Target<&mut [f32]>, d: &[f32], rows: usize, weight: Weight<&[f32]>) {
        multiply(dx, into(adds), Matrix::new(d, rows, weight.outputs), matrix(weight));
    }

    fn bias_activate(&mut self, f: Activation, h: &mut [f32], bias: Option<&[f32]>, channels: usize, a: &mut [f32]) {
        bias_activate(f, h, bias.unwrap_or(&self.zeros[..channels]), a);
    }

    fn bias_activate_in_place(&mut self, f: Activation, a: &mut [f32], bias: Option<&[f32]>, channels: usize) {
        bias_activate_in_place(f, a, bias.unwrap_or(&self.zeros[..channels]));
    }

    fn activate(&mut self, f: Activation, x: &[f32], a: &mut [f32], derivative: &mut [f32]) {
        activate(f, x, a, derivative);
    }

    fn activation_backward(
        &mut self,
        f: Activation,
        d: &mut [f32],
        a: &[f32],
        derivative: &[f32],
        channels: usize,
        sums: Option<&mut [f32]>,
    ) {
        match sums {
            Some(sums) => activation_backward(f, d, a, derivative, sums),
            None => activation_backward(f, d, a, derivative, &mut vec![0.0; channels]),
        }
    }

    fn layer_norm(
        &mut self,
        out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        _: Shape,
        epsilon: f32,
        saved: &mut [f32],
    ) {
        let (normalised, inverse) = saved.split_at_mut(out.len());
        norm::layer_norm(out, x, weight, bias, epsilon, normalised, inverse);
    }

    fn layer_norm_backward(
        &mut self,
        dx: Option<Target<&mut [f32]>>,
        d: &[f32],
        weight: &[f32],
        _: Shape,
        saved: &[f32],
        parameters: (&mut [f32], &mut [f32]),
    ) {
        let (normalised, inverse) = saved.split_at(d.len());
        with_norm(dx, d.len(), weight.len(), parameters, |(dx, adds), d_weight, d_bias| {
            norm::layer_norm_backward(dx, adds, d, weight, normalised, inverse, d_weight, d_bias);
        });
    }

    fn group_norm(
        &mut self,
        out: &mut [f32],
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        _: usize,
        shape: NormShape,
        saved: &mut [f32],
    ) {
        let (normalised, inverse) = saved.split_at_mut(out.len());
        norm::group_norm(out, x, weight, bias, shape, normalised, inverse, self.scratch);
    }

    fn group_norm_backward(
        &mut self,
        dx: Option<Target<&mut [f32]>>,
        d: &[f32],
        weight: &[f32],
        _: usize,
        shape: NormShape,
        saved: &[f32],
        parameters: (&mut [f32], &mut [f32]),
    ) {
        let (normalised, inverse) = saved.split_at(d.len());
        let scratch = &mut *self.scratch;
        with_norm(dx, d.len(), weight.len(), parameters, |(dx, adds), d_weight, d_bias| {
            norm::group_norm_backward(dx, adds, d, weight, shape, normalised, inverse, d_weight, d_bias, scratch);
        });
    }

    fn conv1d(&mut self, shape: ConvShape, transposed: bool, y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32]) {
        convolution::conv1d(shape, transposed, y, x, weight, bias);
    }

    fn conv1d_backward(
        &mut self,
        shape: ConvShape,
        transposed: bool,
        d: &[f32],
        x: &[f32],
        weight: &[f32],
        (d_weight, d_bias): (&mut [f32], &mut [f32]),
        dx: Option<Target<&mut [f32]>>,
    ) {
        convolution::conv1d_backward(shape, transposed, d, x, weight, d_weight, d_bias, dx);
    }

    fn conv2d(&mut self, shape: PatchShape, y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32]) {
        convolution::conv2d(shape, y, x, weight, bias, self.scratch);
    }

    fn conv2d_backward(
        &mut self,
        shape: PatchShape,
        d: &[f32],
        x: &[f32],
        weight: &[f32],
        (d_weight, d_bias): (&mut [f32], &mut [f32]),
        dx: Option<Target<&mut [f32]>>,
    ) {
        convolution::conv2d_backward(shape, d, x, weight, d_weight, d_bias, dx, self.scratch);
    }

    fn modulate(&mut self, out: &mut [f32], x: &[f32], film: &[f32], shape: Shape) {
        rearrange::modulate(out, x, film, shape.n, shape.channels);
    }

    fn modulate_film(&mut self, (film, adds): Target<&mut [f32]>, d: &[f32], x: &[f32], shape: Shape) {
        if !adds {
            film.fill(0.0);
        }
        rearrange::modulate_film(film, d, x, shape.n, shape.channels);
    }

    fn modulate_input(&mut self, (dx, adds): Target<&mut [f32]>, d: &[f32], film: &[f32], shape: Shape) {
        rearrange::modulate_input(dx, d, film, shape.n, shape.channels, adds);
    }

    fn attention(&mut self, shape: AttentionShape, out: &mut [f32], [q, k, v]: [&[f32]; 3], weights: &mut [f32]) {
        attention::attention(shape, out, q, k, v, weights);
    }

    fn attention_backward(
        &mut self,
        shape: AttentionShape,
        d: &[f32],
        inputs: [&[f32]; 3],
        weights: &[f32],
        gradients: [Target<&mut [f32]>; 3],
    ) {
        attention::attention_backward(shape, d, inputs, weights, gradients, self.scratch);
    }

    fn weighted_sum(&mut self, out: &mut [f32], x: &[f32], weight: &[f32], shape: Shape) {
        rearrange::weighted_sum(out, x, weight, shape.n, shape.channels);
    }

    fn weighted_sum_weight(&mut self, weight: &mut [f32], x: &[f32], d: &[f32], shape: Shape) {
        rearrange::weighted_sum_weight(weight, x, d, shape.n, shape.channels);
    }

    fn weighted_sum_input(&mut self, (dx, adds): Target<&mut [f32]>, d: &[f32], weight: &[f32], shape: Shape) {
        rearrange::weighted_sum_input(dx, d, weight, shape.n, shape.channels, adds);
    }
}

/// A normalisation always has parameters to learn, whether or not its input's gradient is wanted.
fn with_norm(
    dx: Option<Target<&mut [f32]>>,
    len: usize,
    channels: usize,
    (weight, bias): (&mut [f32], &mut [f32]),
    run: impl FnOnce(Target<&mut [f32]>, &mut [f32], &mut [f32]),
) {
    // A block's own sums, which are then added to those of the blocks before.
    let (mut d_weight, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
    match dx {
        Some(dx) => run(dx, &mut d_weight, &mut d_bias),
        None => run((&mut vec![0.0; len], false), &mut d_weight, &mut d_bias),
    }
    add(weight, &d_weight);
    add(bias, &d_bias);
}
