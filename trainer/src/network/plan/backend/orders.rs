//! Orders to a device that several kernels of a backend share: reductions, products, patches.

use super::device::OnDevice;
use super::{Lookup, Target, Weight};
use crate::device::{Device, Kernel, Launch, Memory, Operand, Product, View};
use crate::network::plan::attention::AttentionShape;
use crate::network::plan::convolution::{ConvShape, PatchShape};

/// Which rows a block holds, as the device wants to know it.
#[derive(Debug, Clone, Default)]
pub(in crate::network::plan) struct DeviceBlock {
    /// For each row, the index of its state.
    pub state_of_row: Memory,
    /// For each row, the index of its step.
    pub slots: Memory,
    /// For each state, its first row; one more at the end. Rows of a state are neighbours.
    pub first_row: Memory,
}

/// Memory that is made larger where a kernel wants more.
#[derive(Debug, Clone, Default)]
pub(in crate::network::plan) struct Scratch {
    pub(super) values: Memory,
    ones: Memory,
}

impl Scratch {
    pub(super) fn values(&mut self, device: &Device, len: usize) -> View<'_> {
        if self.values.len() < len {
            self.values = device.zeros(len);
        }
        self.values.view(0..len)
    }

    /// Sees to it that there are so many ones.
    fn ones(&mut self, device: &Device, len: usize) {
        if self.ones.len() < len {
            self.ones = device.zeros(len);
            device.launch(Kernel::Fill, order([self.ones.all()], [], [1.0, 0.0], len));
        }
    }
}

/// An order to a kernel.
pub(super) fn order<const V: usize, const S: usize>(
    values: [View; V],
    sizes: [usize; S],
    factors: [f32; 2],
    elements: usize,
) -> Launch {
    let mut launch = Launch { factors, elements: elements as u64, ..Launch::default() };
    for (to, view) in launch.values.iter_mut().zip(values) {
        *to = view.address();
    }
    for (to, size) in launch.sizes.iter_mut().zip(sizes) {
        *to = size as u64;
    }
    launch
}

/// Of kernels that take no numbers.
pub(super) const NONE: [f32; 2] = [0.0; 2];

impl OnDevice<'_> {
    pub(super) fn run<const V: usize, const S: usize>(
        &self,
        kernel: Kernel,
        values: [View; V],
        sizes: [usize; S],
        n: usize,
    ) {
        self.device.launch(kernel, order(values, sizes, NONE, n));
    }

    pub(super) fn run_with<const V: usize, const S: usize>(
        &self,
        kernel: Kernel,
        values: [View; V],
        sizes: [usize; S],
        factors: [f32; 2],
        n: usize,
    ) {
        self.device.launch(kernel, order(values, sizes, factors, n));
    }

    /// The list of a lookup, and its kind in `kernels.cu`.
    pub(super) fn list(&self, lookup: Lookup) -> (View<'_>, usize) {
        match lookup {
            Lookup::One => (self.block.slots.all(), 0),
            Lookup::Same => (self.block.slots.all(), 1),
            Lookup::Time => (self.block.slots.all(), 2),
            Lookup::State => (self.block.state_of_row.all(), 2),
        }
    }

    /// `out (+)= left · right`.
    pub(super) fn product(
        &self,
        (out, adds): Target<View>,
        out_stride: usize,
        [m, n, k]: [usize; 3],
        left: Operand,
        right: Operand,
    ) {
        self.device.multiply(Product { m, n, k, left, right, out, out_stride, factor: 1.0, adds });
    }

    /// `sums += ` the columns of `d`, of `channels` values a row: a product with ones.
    pub(super) fn columns(&mut self, sums: View, channels: usize, d: View) {
        self.scratch.ones(self.device, d.len() / channels);
        self.columns_by_ones(sums, channels, d);
    }

    /// The same once there are enough ones; `d` may lie in the scratch memory.
    fn columns_by_ones(&self, sums: View, channels: usize, d: View) {
        let rows = d.len() / channels;
        let ones = Operand::new(self.scratch.ones.view(0..rows), rows);
        self.product((sums, true), channels, [1, channels, rows], ones, Operand::new(d, channels));
    }

    /// Gradients of a norm's weight and bias: columns of `d ∘ z` and of `d`.
    pub(super) fn norm_parameters(&mut self, (weight, bias): (View, View), channels: usize, d: View, z: View) {
        self.columns(bias, channels, d);
        let product = self.scratch.values(self.device, d.len());
        self.device.launch(Kernel::Multiply, order([product, d, z], [], NONE, d.len()));
        self.columns_by_ones(weight, channels, self.scratch.values.view(0..d.len()));
    }
}

impl OnDevice<'_> {
    /// Puts the patches of a picture into the scratch memory; how many values they are.
    pub(super) fn patches(&mut self, shape: PatchShape, x: View, rows: usize) -> usize {
        let PatchShape { n, inputs, picture, kernel, stride, .. } = shape;
        let len = rows * kernel * kernel * inputs;
        let patches = self.scratch.values(self.device, len);
        let sizes = [n, inputs, shape.output()[1], picture[1], kernel, stride];
        self.device.launch(Kernel::Patches, order([patches, x], sizes, NONE, len));
        len
    }
}

pub(super) fn patch_weight(shape: PatchShape, values: View<'_>) -> Weight<View<'_>> {
    let patch = shape.patch();
    Weight { values, outputs: shape.outputs, inputs: patch, stride: patch }
}

pub(super) fn attention_sizes(shape: AttentionShape) -> [usize; 5] {
    [shape.n, shape.positions, shape.memory, shape.channels, shape.heads]
}

pub(super) fn with_adds([n, positions, memory, channels, heads]: [usize; 5], adds: bool) -> [usize; 6] {
    [n, positions, memory, channels, heads, adds.into()]
}

impl ConvShape {
    /// One tap of a packed weight or of its gradient.
    pub(super) fn tap_of<'a>(&self, weight: View<'a>, tap: usize) -> Weight<View<'a>> {
        let len = self.outputs * self.inputs;
        Weight {
            values: weight.part(tap * len..(tap + 1) * len),
            outputs: self.outputs,
            inputs: self.inputs,
            stride: self.inputs,
        }
    }
}
