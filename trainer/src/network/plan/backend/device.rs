//! A device: views of its memory, its kernels and its products.

use std::ops::Range;

use tenon_core::network::Activation;

use super::orders::{DeviceBlock, NONE, Scratch, attention_sizes, order, patch_weight, with_adds};
use super::{Backend, Looked, Lookup, Shape, Target, Weight};
use crate::device::{Device, Kernel, Memory, Operand, View};
use crate::network::plan::attention::AttentionShape;
use crate::network::plan::convolution::{ConvShape, PatchShape};
use crate::network::plan::norm::NormShape;

/// Kernels on a device's memory, for the elements of a block.
#[derive(Debug)]
pub(in crate::network::plan) struct OnDevice<'a> {
    pub device: &'a Device,
    pub block: &'a DeviceBlock,
    pub scratch: &'a mut Scratch,
}

/// Kinds of activation in `kernels.cu`.
fn kind(f: Activation) -> usize {
    match f {
        Activation::Mish => 0,
        Activation::ReLU => 1,
        Activation::Tanh => 2,
        Activation::Gelu => 3,
        Activation::Elu => 4,
    }
}

impl Backend for OnDevice<'_> {
    type Buffer = Memory;
    type Slice<'a> = View<'a>;
    type SliceMut<'a> = View<'a>;

    fn slice(buffer: &Memory, range: Range<usize>) -> View<'_> {
        buffer.view(range)
    }

    fn slice_mut(buffer: &mut Memory, range: Range<usize>) -> View<'_> {
        buffer.view(range)
    }

    fn part<'a>(slice: Self::Slice<'a>, range: Range<usize>) -> Self::Slice<'a> {
        slice.part(range)
    }

    fn part_mut<'a>(slice: &'a mut View<'_>, range: Range<usize>) -> View<'a> {
        slice.part(range)
    }

    fn two_mut<'a>(slice: &'a mut View<'_>, first: Range<usize>, second: Range<usize>) -> (View<'a>, View<'a>) {
        (slice.part(first), slice.part(second))
    }

    fn zero(&mut self, out: View) {
        self.run(Kernel::Fill, [out], [], out.len());
    }

    fn scale_shift(&mut self, (out, adds): Target<View>, x: View, factor: f32, offset: f32) {
        self.run_with(Kernel::ScaleShift, [out, x], [adds.into()], [factor, offset], out.len());
    }

    fn copy(&mut self, out: Target<View>, x: View) {
        self.scale_shift(out, x, 1.0, 0.0);
    }

    fn add_repeated(&mut self, out: View, x: View, y: View, y_len: usize) {
        self.run(Kernel::AddRepeated, [out, x, y], [y_len], out.len());
    }

    fn sum_repeated(&mut self, out: View, len: usize, d: View) {
        self.run(Kernel::SumRepeated, [out, d], [d.len() / len], len);
    }

    fn clamp(&mut self, out: View, x: View, bounds: [f32; 2]) {
        self.run_with(Kernel::Clamp, [out, x], [], bounds, out.len());
    }

    fn clamp_backward(&mut self, (dx, adds): Target<View>, d: View, x: View, bounds: [f32; 2]) {
        self.run_with(Kernel::ClampBackward, [dx, d, x], [adds.into()], bounds, dx.len());
    }

    fn gather(&mut self, (out, adds): Target<View>, shape: Shape, looked: Looked<View>) {
        let (list, lookup) = self.list(looked.lookup);
        let sizes = [shape.n, shape.channels, looked.positions, looked.elements, lookup, adds.into()];
        self.run(Kernel::Gather, [out, looked.values, list], sizes, out.len());
    }

    fn scatter(&mut self, sums: Looked<View>, d: View, shape: Shape) {
        let Looked { values, positions, elements, lookup } = sums;
        let Shape { n, channels, .. } = shape;
        let width = elements * channels;
        match lookup {
            Lookup::State => {
                let sizes = [n, channels, elements, shape.positions, positions];
                self.run(Kernel::ScatterStates, [values, d, self.block.first_row.all()], sizes, values.len());
            }
            // Few elements of many rows each: a product with who belongs to whom.
            Lookup::Time => {
                let belongs = self.scratch.values(self.device, n * elements);
                let list = self.block.slots.all();
                self.device.launch(Kernel::OneHot, order([belongs, list], [elements], NONE, n * elements));
                let belongs = Operand::new(self.scratch.values.view(0..n * elements), elements).t();
                for p in 0..shape.positions {
                    let to = if positions == 1 { 0 } else { p * width };
                    let d = d.part(p * n * channels..(p + 1) * n * channels);
                    let to = values.part(to..to + width);
                    self.product((to, true), channels, [elements, channels, n], belongs, Operand::new(d, channels));
                }
            }
            Lookup::One => {
                for p in 0..shape.positions {
                    let to = if positions == 1 { 0 } else { p * channels };
                    let d = d.part(p * n * channels..(p + 1) * n * channels);
                    self.columns(values.part(to..to + channels), channels, d);
                }
            }
            Lookup::Same => {
                for p in 0..shape.positions {
                    let to = if positions == 1 { 0 } else { p * width };
                    self.copy((values.part(to..to + width), true), d.part(p * width..(p + 1) * width));
                }
            }
        }
    }

    fn copy_channels(
        &mut self,
        (out, adds): Target<View>,
        to: (usize, usize),
        x: View,
        from: (usize, usize),
        width: usize,
    ) {
        let sizes = [to.0, to.1, from.0, from.1, width, adds.into()];
        self.run(Kernel::CopyChannels, [out, x], sizes, out.len() / to.0 * width);
    }

    fn transpose(&mut self, (out, adds): Target<View>, x: View, shape: Shape) {
        let sizes = [shape.positions, shape.channels, shape.n, adds.into()];
        self.run(Kernel::Transpose, [out, x], sizes, x.len());
    }

    fn reshape(&mut self, (out, adds): Target<View>, out_channels: usize, x: View, x_channels: usize, n: usize) {
        self.run(Kernel::Reshape, [out, x], [out_channels, x_channels, n, adds.into()], x.len());
    }

    fn fill_rows(&mut self, (out, adds): Target<View>, row: View, channels: usize) {
        self.run(Kernel::FillRows, [out, row], [channels, adds.into()], out.len());
    }

    fn column_sum(&mut self, sums: View, channels: usize, d: View) {
        self.columns(sums, channels, d);
    }

    fn multiply_rows(&mut self, out: Target<View>, x: View, rows: usize, weight: Weight<View>) {
        let Weight { values, outputs, inputs, stride } = weight;
        let (x, weight) = (Operand::new(x, inputs), Operand::new(values, stride).t());
        self.product(out, outputs, [rows, outputs, inputs], x, weight);
    }

    fn multiply_gradient(&mut self, weight: Weight<View>, d: View, x: View, rows: usize) {
        let Weight { values, outputs, inputs, stride } = weight;
        let (d, x) = (Operand::new(d, outputs).t(), Operand::new(x, inputs));
        self.product((values, true), stride, [outputs, inputs, rows], d, x);
    }

    fn multiply_back(&mut self, dx: Target<View>, d: View, rows: usize, weight: Weight<View>) {
        let Weight { values, outputs, inputs, stride } = weight;
        let (d, weight) = (Operand::new(d, outputs), Operand::new(values, stride));
        self.product(dx, inputs, [rows, inputs, outputs], d, weight);
    }

    fn bias_activate(&mut self, f: Activation, h: View, bias: Option<View>, channels: usize, a: View) {
        let mut launch = order([a, h], [channels, kind(f)], NONE, a.len());
        launch.values[2] = bias.map_or(0, View::address);
        launch.values[3] = h.address();
        self.device.launch(Kernel::Activate, launch);
    }

    fn bias_activate_in_place(&mut self, f: Activation, a: View, bias: Option<View>, channels: usize) {
        let mut launch = order([a, a], [channels, kind(f)], NONE, a.len());
        launch.values[2] = bias.map_or(0, View::address);
        self.device.launch(Kernel::Activate, launch);
    }

    fn activate(&mut self, f: Activation, x: View, a: View, derivative: View) {
        let mut launch = order([a, x], [1, kind(f)], NONE, a.len());
        launch.values[3] = derivative.address();
        self.device.launch(Kernel::Activate, launch);
    }

    fn activation_backward(
        &mut self,
        f: Activation,
        d: View,
        a: View,
        derivative: View,
        channels: usize,
        sums: Option<View>,
    ) {
        self.run(Kernel::Gate, [d, a, derivative], [kind(f)], d.len());
        if let Some(sums) = sums {
            self.columns(sums, channels, d);
        }
    }

    fn layer_norm(&mut self, out: View, x: View, weight: View, bias: View, shape: Shape, epsilon: f32, saved: View) {
        let len = out.len();
        let (normalised, inverse) = (saved.part(0..len), saved.part(len..saved.len()));
        let values = [out, x, weight, bias, normalised, inverse];
        self.run_with(Kernel::LayerNorm, values, [shape.channels], [epsilon, 0.0], shape.positions * shape.n);
    }

    fn layer_norm_backward(
        &mut self,
        dx: Option<Target<View>>,
        d: View,
        weight: View,
        shape: Shape,
        saved: View,
        parameters: (View, View),
    ) {
        let len = d.len();
        let (normalised, inverse) = (saved.part(0..len), saved.part(len..saved.len()));
        if let Some((dx, adds)) = dx {
            let sizes = [shape.channels, adds.into()];
            let rows = shape.positions * shape.n;
            self.run(Kernel::LayerNormBackward, [dx, d, weight, normalised, inverse], sizes, rows);
        }
        self.norm_parameters(parameters, shape.channels, d, normalised);
    }

    fn group_norm(
        &mut self,
        out: View,
        x: View,
        weight: View,
        bias: View,
        positions: usize,
        shape: NormShape,
        saved: View,
    ) {
        let len = out.len();
        let (normalised, inverse) = (saved.part(0..len), saved.part(len..saved.len()));
        let NormShape { n, channels, groups, epsilon } = shape;
        let values = [out, x, weight, bias, normalised, inverse];
        self.run_with(Kernel::GroupNorm, values, [n, channels, groups, positions], [epsilon, 0.0], n * groups);
    }

    fn group_norm_backward(
        &mut self,
        dx: Option<Target<View>>,
        d: View,
        weight: View,
        positions: usize,
        shape: NormShape,
        saved: View,
        parameters: (View, View),
    ) {
        let len = d.len();
        let (normalised, inverse) = (saved.part(0..len), saved.part(len..saved.len()));
        let NormShape { n, channels, groups, .. } = shape;
        if let Some((dx, adds)) = dx {
            let sizes = [n, channels, groups, positions, adds.into()];
            self.run(Kernel::GroupNormBackward, [dx, d, weight, normalised, inverse], sizes, n * groups);
        }
        self.norm_parameters(parameters, channels, d, normalised);
    }

    fn conv1d(&mut self, shape: ConvShape, transposed: bool, y: View, x: View, weight: View, bias: View) {
        let ConvShape { n, inputs, outputs, .. } = shape;
        self.fill_rows((y, false), bias, outputs);
        for run in shape.connections(transposed) {
            let y = y.part(run.output * n * outputs..(run.output + run.count) * n * outputs);
            let x = x.part(run.input * n * inputs..(run.input + run.count) * n * inputs);
            self.multiply_rows((y, true), x, run.count * n, shape.tap_of(weight, run.tap));
        }
    }

    fn conv1d_backward(
        &mut self,
        shape: ConvShape,
        transposed: bool,
        d: View,
        x: View,
        weight: View,
        (d_weight, d_bias): (View, View),
        dx: Option<Target<View>>,
    ) {
        let ConvShape { n, inputs, outputs, .. } = shape;
        self.columns(d_bias, outputs, d);
        if let Some((dx, false)) = dx {
            self.zero(dx);
        }
        for run in shape.connections(transposed) {
            let d = d.part(run.output * n * outputs..(run.output + run.count) * n * outputs);
            let seen = run.input * n * inputs..(run.input + run.count) * n * inputs;
            let rows = run.count * n;
            self.multiply_gradient(shape.tap_of(d_weight, run.tap), d, x.part(seen.clone()), rows);
            if let Some((dx, _)) = dx {
                self.multiply_back((dx.part(seen), true), d, rows, shape.tap_of(weight, run.tap));
            }
        }
    }

    fn conv2d(&mut self, shape: PatchShape, y: View, x: View, weight: View, bias: View) {
        self.fill_rows((y, false), bias, shape.outputs);
        let (rows, weight) = (y.len() / shape.outputs, patch_weight(shape, weight));
        let len = self.patches(shape, x, rows);
        let patches = Operand::new(self.scratch.values.view(0..len), weight.inputs);
        let sizes = [rows, shape.outputs, weight.inputs];
        self.product((y, true), shape.outputs, sizes, patches, Operand::new(weight.values, weight.stride).t());
    }

    fn conv2d_backward(
        &mut self,
        shape: PatchShape,
        d: View,
        x: View,
        weight: View,
        (d_weight, d_bias): (View, View),
        dx: Option<Target<View>>,
    ) {
        self.columns(d_bias, shape.outputs, d);
        let (rows, weight) = (d.len() / shape.outputs, patch_weight(shape, weight));
        let len = self.patches(shape, x, rows);
        let patches = Operand::new(self.scratch.values.view(0..len), weight.inputs);
        let sizes = [shape.outputs, weight.inputs, rows];
        self.product((d_weight, true), weight.inputs, sizes, Operand::new(d, shape.outputs).t(), patches);
        let Some((dx, adds)) = dx else { return };
        let patches = self.scratch.values.view(0..len);
        let sizes = [rows, weight.inputs, shape.outputs];
        let operands = (Operand::new(d, shape.outputs), Operand::new(weight.values, weight.stride));
        self.product((patches, false), weight.inputs, sizes, operands.0, operands.1);
        let [down, across] = shape.output();
        let PatchShape { n, inputs, picture, kernel, stride, .. } = shape;
        let sizes = [n, inputs, across, picture[1], kernel, stride, down, adds.into()];
        self.run(Kernel::PatchesBackward, [dx, patches], sizes, dx.len());
    }

    fn modulate(&mut self, out: View, x: View, film: View, shape: Shape) {
        self.run(Kernel::Modulate, [out, x, film], [shape.n, shape.channels], out.len());
    }

    fn modulate_film(&mut self, (film, adds): Target<View>, d: View, x: View, shape: Shape) {
        let Shape { positions, n, channels } = shape;
        self.run(Kernel::ModulateFilm, [film, d, x], [n, channels, positions, adds.into()], n * channels);
    }

    fn modulate_input(&mut self, (dx, adds): Target<View>, d: View, film: View, shape: Shape) {
        self.run(Kernel::ModulateInput, [dx, d, film], [shape.n, shape.channels, adds.into()], dx.len());
    }

    fn attention(&mut self, shape: AttentionShape, out: View, [q, k, v]: [View; 3], weights: View) {
        let sizes = attention_sizes(shape);
        let len = shape.n * shape.heads * shape.positions * shape.memory;
        self.run_with(Kernel::AttentionScores, [weights, q, k], sizes, [shape.scale(), 0.0], len);
        self.run(Kernel::Softmax, [weights], [shape.memory], len / shape.memory);
        self.run_with(Kernel::AttentionMix, [out, weights, v], with_adds(sizes, false), [1.0, 0.0], out.len());
    }

    fn attention_backward(
        &mut self,
        shape: AttentionShape,
        d: View,
        [q, k, v]: [View; 3],
        weights: View,
        [dq, dk, dv]: [Target<View>; 3],
    ) {
        let sizes = attention_sizes(shape);
        let len = shape.n * shape.heads * shape.positions * shape.memory;
        let (one, scale) = ([1.0, 0.0], [shape.scale(), 0.0]);
        let back = Kernel::AttentionMixBack;
        self.run_with(back, [dv.0, weights, d], with_adds(sizes, dv.1), one, dv.0.len());
        let ds = self.scratch.values(self.device, len);
        self.device.launch(Kernel::AttentionScores, order([ds, d, v], sizes, one, len));
        self.device.launch(Kernel::SoftmaxBackward, order([ds, weights], [shape.memory], NONE, len / shape.memory));
        self.device.launch(Kernel::AttentionMix, order([dq.0, ds, k], with_adds(sizes, dq.1), scale, dq.0.len()));
        self.device.launch(back, order([dk.0, ds, q], with_adds(sizes, dk.1), scale, dk.0.len()));
    }

    fn weighted_sum(&mut self, out: View, x: View, weight: View, shape: Shape) {
        self.run(Kernel::WeightedSum, [out, x, weight], [shape.positions, shape.channels], out.len());
    }

    fn weighted_sum_weight(&mut self, weight: View, x: View, d: View, shape: Shape) {
        let len = shape.positions * shape.channels;
        self.run(Kernel::WeightedSumWeight, [weight, x, d], [shape.n, shape.channels], len);
    }

    fn weighted_sum_input(&mut self, (dx, adds): Target<View>, d: View, weight: View, shape: Shape) {
        let sizes = [shape.n, shape.channels, adds.into()];
        self.run(Kernel::WeightedSumInput, [dx, d, weight], sizes, dx.len());
    }
}
