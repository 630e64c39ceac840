//! Forward passes: each node's value from those before it.

use std::mem::{swap, take};

use tenon_core::network::Activation;

use super::attention::AttentionShape;
use super::backend::{Backend, Looked, Lookup, Shape, Weight};
use super::convolution::{ConvShape, PatchShape};
use super::norm::NormShape;
use super::workspace::{Block, Buffers};
use super::{Node, NodeId, Op, Plan, Space};

/// What a pass over some spaces works with.
pub(super) struct Forward<'a, B: Backend> {
    pub plan: &'a Plan,
    pub backend: B,
    /// In the layout of the kernels.
    pub parameters: B::Slice<'a>,
    /// Values of constants and times, where they are not those of `own`.
    pub shared: Option<&'a Buffers<B::Buffer>>,
    pub own: &'a mut Buffers<B::Buffer>,
    pub block: &'a Block,
    pub times: usize,
    pub training: bool,
}

impl<B: Backend> Forward<'_, B> {
    /// Computes the nodes of the `wanted` spaces.
    pub fn run(mut self, wanted: impl Fn(Space) -> bool) {
        for i in 0..self.plan.nodes.len() {
            if wanted(self.plan.nodes[i].space) {
                self.node(i);
            }
        }
    }

    fn count(&self, space: Space) -> usize {
        self.block.count(space, self.times)
    }

    fn node(&mut self, i: usize) {
        let plan = self.plan;
        let node = &plan.nodes[i];
        let n = self.count(node.space);
        if matches!(node.op, Op::Input(_)) || n * node.len() == 0 {
            return;
        }
        // Taken out, so that others can be read while these are written.
        let mut value = take(&mut self.own.value[i]);
        let mut saved = take(&mut self.own.saved[i]);
        match node.op {
            Op::Activate { x, activation } => self.activation(node, x, activation, n, &mut value, &mut saved),
            _ => self.value_of(node, n, &mut value, &mut saved),
        }
        self.own.value[i] = value;
        self.own.saved[i] = saved;
    }

    fn value_of(&mut self, node: &Node, n: usize, value: &mut B::Buffer, saved: &mut B::Buffer) {
        let Self { plan, backend, parameters, shared, own, block, times, .. } = self;
        let (plan, parameters, shared, block, times) = (*plan, *parameters, *shared, *block, *times);
        let (positions, channels) = (node.positions, node.channels);
        let shape = Shape { positions, n, channels };
        let (len, width) = (n * node.len(), n * channels);
        let all = |id: NodeId| block.count(plan.node(id).space, times) * plan.node(id).len();
        // The value of an input for the elements at hand.
        let read = |id: NodeId| {
            let buffers = match shared {
                Some(shared) if plan.node(id).space <= Space::Time => shared,
                _ => &**own,
            };
            B::slice(&buffers.value[id.0], 0..all(id))
        };
        let looked = |id: NodeId| {
            let from = plan.node(id);
            let elements = block.count(from.space, times);
            Looked { values: read(id), positions: from.positions, elements, lookup: lookup(from.space, node.space) }
        };
        let parameter = |range: &std::ops::Range<usize>| B::part(parameters, range.clone());
        macro_rules! out {
            () => {
                B::slice_mut(value, 0..len)
            };
        }
        macro_rules! saved {
            ($len:expr) => {
                B::slice_mut(saved, 0..$len)
            };
        }
        match &node.op {
            Op::Input(_) | Op::Activate { .. } => unreachable!("handled by the caller"),
            Op::Parameter { values } => backend.copy((out!(), false), parameter(values)),
            Op::Affine { parts, bias, bases } => {
                let mut begun = false;
                for &base in bases {
                    backend.gather((out!(), begun), shape, looked(base));
                    begun = true;
                }
                if let Some(bias) = bias.as_ref().filter(|_| node.fused_into.is_none()) {
                    backend.fill_rows((out!(), begun), parameter(bias), channels);
                    begun = true;
                }
                for (x, part) in parts {
                    let inputs = plan.node(*x).channels;
                    let weight = part.of::<B>(parameters, channels, inputs);
                    backend.multiply_rows((out!(), begun), read(*x), n * positions, weight);
                    begun = true;
                }
            }
            Op::Add { x, y } => {
                let repeated = if plan.node(*y).positions == 1 { width } else { len };
                backend.add_repeated(out!(), read(*x), read(*y), repeated);
            }
            Op::ScaleShift { x, factor, offset } => {
                backend.scale_shift((out!(), false), read(*x), *factor, *offset);
            }
            Op::Clamp { x, low, high } => backend.clamp(out!(), read(*x), [*low, *high]),
            Op::Concat { parts } => {
                let mut start = 0;
                for &x in parts {
                    let width = plan.node(x).channels;
                    backend.copy_channels((out!(), false), (channels, start), read(x), (width, 0), width);
                    start += width;
                }
            }
            Op::Channels { x, start } => {
                let from = (plan.node(*x).channels, *start);
                backend.copy_channels((out!(), false), (channels, 0), read(*x), from, channels);
            }
            Op::Transpose { x } => {
                backend.transpose((out!(), false), read(*x), shape_of(plan, *x, n));
            }
            Op::Reshape { x } => {
                backend.reshape((out!(), false), channels, read(*x), plan.node(*x).channels, n);
            }
            Op::Gather { x } => backend.gather((out!(), false), shape, looked(*x)),
            Op::LayerNorm { x, weight, bias, epsilon } => {
                let (weight, bias) = (parameter(weight), parameter(bias));
                backend.layer_norm(out!(), read(*x), weight, bias, shape, *epsilon, saved!(n * node.saved));
            }
            Op::GroupNorm { x, weight, bias, groups, epsilon } => {
                let (weight, bias) = (parameter(weight), parameter(bias));
                let norm = NormShape { n, channels, groups: *groups, epsilon: *epsilon };
                backend.group_norm(out!(), read(*x), weight, bias, positions, norm, saved!(n * node.saved));
            }
            Op::Conv1d { x, weight, bias, .. } | Op::ConvTranspose1d { x, weight, bias, .. } => {
                let transposed = matches!(node.op, Op::ConvTranspose1d { .. });
                let shape = conv_shape(plan, node, *x, n);
                backend.conv1d(shape, transposed, out!(), read(*x), parameter(weight), parameter(bias));
            }
            Op::Conv2d { x, weight, bias, .. } => {
                let shape = patch_shape(plan, node, *x, n);
                backend.conv2d(shape, out!(), read(*x), parameter(weight), parameter(bias));
            }
            Op::Modulate { x, film } => backend.modulate(out!(), read(*x), read(*film), shape),
            Op::Attention { queries, keys, values, heads } => {
                let shape = attention_shape(plan, node, *keys, *heads, n);
                let inputs = [read(*queries), read(*keys), read(*values)];
                backend.attention(shape, out!(), inputs, saved!(n * node.saved));
            }
            Op::WeightedSum { x, weight } => {
                backend.weighted_sum(out!(), read(*x), parameter(weight), shape_of(plan, *x, n));
            }
        }
    }

    /// An activation: of a value that nobody else wants, in one pass with the bias, leaving the derivative behind.
    fn activation(
        &mut self,
        node: &Node,
        x: NodeId,
        activation: Activation,
        n: usize,
        value: &mut B::Buffer,
        saved: &mut B::Buffer,
    ) {
        let source = self.plan.node(x);
        let (len, channels) = (n * node.len(), node.channels);
        if source.fused_into.is_none() {
            let buffers = match self.shared {
                Some(shared) if source.space <= Space::Time => shared,
                _ => &*self.own,
            };
            let x = B::slice(&buffers.value[x.0], 0..len);
            let derivative = B::slice_mut(saved, 0..len);
            return self.backend.activate(activation, x, B::slice_mut(value, 0..len), derivative);
        }
        let bias = match &source.op {
            Op::Affine { bias: Some(bias), .. } => Some(B::part(self.parameters, bias.clone())),
            _ => None,
        };
        let h = &mut self.own.value[x.0];
        if self.training {
            let h = B::slice_mut(h, 0..len);
            self.backend.bias_activate(activation, h, bias, channels, B::slice_mut(value, 0..len));
        } else {
            swap(h, value);
            self.backend.bias_activate_in_place(activation, B::slice_mut(value, 0..len), bias, channels);
        }
    }
}

impl super::WeightPart {
    /// The part of a weight with so many outputs and inputs.
    pub(super) fn of<'a, B: Backend>(
        &self,
        parameters: B::Slice<'a>,
        outputs: usize,
        inputs: usize,
    ) -> Weight<B::Slice<'a>> {
        let values = B::part(parameters, self.range(outputs, inputs));
        Weight { values, outputs, inputs, stride: self.stride }
    }

    /// From its first value to its last.
    pub(super) fn range(&self, outputs: usize, inputs: usize) -> std::ops::Range<usize> {
        self.start..self.start + (outputs - 1) * self.stride + inputs
    }
}

pub(super) fn shape_of(plan: &Plan, x: NodeId, n: usize) -> Shape {
    Shape { positions: plan.node(x).positions, n, channels: plan.node(x).channels }
}

/// How elements of `space` find theirs in `from`.
pub(super) fn lookup(from: Space, space: Space) -> Lookup {
    match (from, space) {
        (from, space) if from == space => Lookup::Same,
        (Space::Constant, _) => Lookup::One,
        (Space::Time, _) => Lookup::Time,
        (Space::State, _) => Lookup::State,
        (Space::Row, _) => unreachable!("nothing smaller is made of rows"),
    }
}

pub(super) fn conv_shape(plan: &Plan, node: &Node, x: NodeId, n: usize) -> ConvShape {
    let (Op::Conv1d { window, .. } | Op::ConvTranspose1d { window, .. }) = node.op else {
        unreachable!("a convolution")
    };
    ConvShape {
        n,
        inputs: plan.node(x).channels,
        outputs: node.channels,
        positions: plan.node(x).positions,
        output_positions: node.positions,
        window,
    }
}

pub(super) fn patch_shape(plan: &Plan, node: &Node, x: NodeId, n: usize) -> PatchShape {
    let Op::Conv2d { picture, kernel, stride, .. } = node.op else { unreachable!("a convolution") };
    PatchShape { n, inputs: plan.node(x).channels, outputs: node.channels, picture, kernel, stride }
}

pub(super) fn attention_shape(plan: &Plan, node: &Node, keys: NodeId, heads: usize, n: usize) -> AttentionShape {
    let memory = plan.node(keys).positions;
    AttentionShape { n, positions: node.positions, memory, channels: node.channels, heads }
}
