//! Backward passes: gradients of parameters and inputs from those of the outputs.

use std::mem::{replace, swap, take};
use std::ops::Range;

use tenon_core::network::Activation;

use super::backend::{Backend, Looked, Shape, Target, Weight};
use super::forward::{attention_shape, conv_shape, lookup, patch_shape, shape_of};
use super::norm::NormShape;
use super::workspace::{Block, Buffers};
use super::{Node, NodeId, Op, Plan, Space, WeightPart};

/// What a pass over some spaces works with.
pub(super) struct Backward<'a, B: Backend> {
    pub plan: &'a Plan,
    pub backend: B,
    /// In the layout of the kernels.
    pub parameters: B::Slice<'a>,
    pub own: &'a mut Buffers<B::Buffer>,
    /// Gradients of constants and times, where they are not those of `own`.
    pub shared: Option<&'a mut Vec<B::Buffer>>,
    /// Gradient of the parameters, which is added to.
    pub d_parameters: B::SliceMut<'a>,
    pub block: &'a Block,
    pub times: usize,
    /// Whether a node's gradient has been written since the pass began.
    pub written: Vec<bool>,
}

impl<B: Backend> Backward<'_, B> {
    /// Goes back from the outputs of a block.
    pub fn rows_and_states(mut self) {
        self.run(|space| space == Space::Row);
        self.run(|space| space == Space::State);
    }

    /// Goes through the nodes of the `wanted` spaces.
    pub fn run(&mut self, wanted: impl Fn(Space) -> bool) {
        for i in (0..self.plan.nodes.len()).rev() {
            let node = &self.plan.nodes[i];
            if wanted(node.space) && node.differentiable && self.written[i] {
                self.node(i);
            }
        }
    }

    fn count(&self, space: Space) -> usize {
        self.block.count(space, self.times)
    }

    /// Values of an input for the elements at hand.
    fn all(&self, id: NodeId) -> Range<usize> {
        let node = self.plan.node(id);
        0..self.count(node.space) * node.len()
    }

    fn node(&mut self, i: usize) {
        let plan = self.plan;
        let node = &plan.nodes[i];
        let n = self.count(node.space);
        if n == 0 {
            return;
        }
        let mut d = take(&mut self.own.gradient[i]);
        self.through(i, node, n, &mut d);
        match node.op {
            // Nobody else has written there: the gradient moves on as it is.
            Op::Activate { x, .. } if plan.node(x).fused_into.is_some() => {
                swap(&mut self.own.gradient[x.0], &mut d);
                self.written[x.0] = true;
            }
            _ => {}
        }
        self.own.gradient[i] = d;
    }

    /// Runs `write(backend, values, gradient of x)` where that gradient is wanted. `values` are those of all nodes.
    fn into(&mut self, x: NodeId, write: impl FnOnce(&mut B, &Buffers<B::Buffer>, Target<B::SliceMut<'_>>)) {
        let range = self.all(x);
        if self.plan.node(x).differentiable {
            let mut buffer = take(&mut self.own.gradient[x.0]);
            let adds = replace(&mut self.written[x.0], true);
            write(&mut self.backend, self.own, (B::slice_mut(&mut buffer, range), adds));
            self.own.gradient[x.0] = buffer;
        }
    }

    /// Sums the gradient of a looked-up value.
    fn scatter(&mut self, x: NodeId, space: Space, shape: Shape, d: B::Slice<'_>) {
        let source = self.plan.node(x);
        if !source.differentiable {
            return;
        }
        let range = self.all(x);
        let elements = self.count(source.space);
        let values = match &mut self.shared {
            Some(shared) if source.space <= Space::Time => B::slice_mut(&mut shared[x.0], range),
            _ => {
                let buffer = &mut self.own.gradient[x.0];
                if !replace(&mut self.written[x.0], true) {
                    self.backend.zero(B::slice_mut(buffer, range.clone()));
                }
                B::slice_mut(buffer, range)
            }
        };
        let lookup = lookup(source.space, space);
        self.backend.scatter(Looked { values, positions: source.positions, elements, lookup }, d, shape);
    }

    fn through(&mut self, i: usize, node: &Node, n: usize, buffer: &mut B::Buffer) {
        let (plan, parameters) = (self.plan, self.parameters);
        let (positions, channels) = (node.positions, node.channels);
        let shape = Shape { positions, n, channels };
        let len = n * node.len();
        if let Op::Activate { x, activation } = node.op {
            return self.activation(i, x, activation, shape, buffer);
        }
        let d = B::slice(buffer, 0..len);
        let parameter = |range: &Range<usize>| B::part(parameters, range.clone());
        match &node.op {
            Op::Input(_) => {}
            Op::Activate { .. } => unreachable!("handled above"),
            Op::Parameter { values } => {
                let to = B::part_mut(&mut self.d_parameters, values.clone());
                self.backend.copy((to, true), d);
            }
            Op::Affine { parts, bias, bases } => self.affine(node, shape, d, parts, bias.as_ref(), bases),
            Op::Add { x, y } => {
                self.into(*x, |backend, _, dx| backend.copy(dx, d));
                let y_range = self.all(*y);
                self.into(*y, |backend, _, (mut dy, adds)| {
                    if !adds {
                        backend.zero(B::part_mut(&mut dy, y_range.clone()));
                    }
                    backend.sum_repeated(dy, y_range.len(), d);
                });
            }
            Op::ScaleShift { x, factor, .. } => {
                self.into(*x, |backend, _, dx| backend.scale_shift(dx, d, *factor, 0.0));
            }
            Op::Clamp { x, low, high } => {
                let range = self.all(*x);
                self.into(*x, |backend, values, dx| {
                    backend.clamp_backward(dx, d, B::slice(&values.value[x.0], range), [*low, *high]);
                });
            }
            Op::Concat { parts } => {
                let mut start = 0;
                for &x in parts {
                    let width = plan.node(x).channels;
                    self.into(x, |backend, _, dx| {
                        backend.copy_channels(dx, (width, 0), d, (channels, start), width);
                    });
                    start += width;
                }
            }
            Op::Channels { x, start } => {
                let (width, range) = (plan.node(*x).channels, self.all(*x));
                self.into(*x, |backend, _, (mut dx, adds)| {
                    if !adds {
                        backend.zero(B::part_mut(&mut dx, range));
                    }
                    backend.copy_channels((dx, true), (width, *start), d, (channels, 0), channels);
                });
            }
            Op::Transpose { x } => self.into(*x, |backend, _, dx| backend.transpose(dx, d, shape)),
            Op::Reshape { x } => {
                let width = plan.node(*x).channels;
                self.into(*x, |backend, _, dx| backend.reshape(dx, width, d, channels, n));
            }
            Op::Gather { x } => self.scatter(*x, node.space, shape, d),
            Op::LayerNorm { x, weight, bias, .. } => {
                let (saved, w) = (take(&mut self.own.saved[i]), parameter(weight));
                self.learn(*x, weight, bias, |backend, _, dx, both| {
                    backend.layer_norm_backward(dx, d, w, shape, B::slice(&saved, 0..n * node.saved), both);
                });
                self.own.saved[i] = saved;
            }
            Op::GroupNorm { x, weight, bias, groups, epsilon } => {
                let (saved, w) = (take(&mut self.own.saved[i]), parameter(weight));
                let norm = NormShape { n, channels, groups: *groups, epsilon: *epsilon };
                self.learn(*x, weight, bias, |backend, _, dx, both| {
                    let saved = B::slice(&saved, 0..n * node.saved);
                    backend.group_norm_backward(dx, d, w, positions, norm, saved, both);
                });
                self.own.saved[i] = saved;
            }
            Op::Conv1d { x, weight, bias, .. } | Op::ConvTranspose1d { x, weight, bias, .. } => {
                let transposed = matches!(node.op, Op::ConvTranspose1d { .. });
                let (shape, range, w) = (conv_shape(plan, node, *x, n), self.all(*x), parameter(weight));
                self.learn(*x, weight, bias, |backend, values, dx, both| {
                    let x = B::slice(&values.value[x.0], range);
                    backend.conv1d_backward(shape, transposed, d, x, w, both, dx);
                });
            }
            Op::Conv2d { x, weight, bias, .. } => {
                let (shape, range, w) = (patch_shape(plan, node, *x, n), self.all(*x), parameter(weight));
                self.learn(*x, weight, bias, |backend, values, dx, both| {
                    backend.conv2d_backward(shape, d, B::slice(&values.value[x.0], range), w, both, dx);
                });
            }
            Op::Modulate { x, film } => {
                let (x_range, film_range) = (self.all(*x), self.all(*film));
                self.into(*film, |backend, values, target| {
                    backend.modulate_film(target, d, B::slice(&values.value[x.0], x_range), shape);
                });
                self.into(*x, |backend, values, dx| {
                    backend.modulate_input(dx, d, B::slice(&values.value[film.0], film_range), shape);
                });
            }
            Op::Attention { queries, keys, values, heads } => {
                let shape = attention_shape(plan, node, *keys, *heads, n);
                self.attention(shape, [*queries, *keys, *values], d, i, n * node.saved);
            }
            Op::WeightedSum { x, weight } => {
                let (x_shape, range) = (shape_of(plan, *x, n), self.all(*x));
                let sums = B::part_mut(&mut self.d_parameters, weight.clone());
                self.backend.weighted_sum_weight(sums, B::slice(&self.own.value[x.0], range), d, x_shape);
                let w = parameter(weight);
                self.into(*x, |backend, _, dx| backend.weighted_sum_input(dx, d, w, x_shape));
            }
        }
    }

    /// Through a layer with a weight and, behind it, a bias: runs `write(backend, values, gradient of x where it is wanted,
    /// gradients of both)`.
    fn learn(
        &mut self,
        x: NodeId,
        weight: &Range<usize>,
        bias: &Range<usize>,
        write: impl FnOnce(&mut B, &Buffers<B::Buffer>, Option<Target<B::SliceMut<'_>>>, (B::SliceMut<'_>, B::SliceMut<'_>)),
    ) {
        let range = self.all(x);
        let both = B::two_mut(&mut self.d_parameters, weight.clone(), bias.clone());
        if !self.plan.node(x).differentiable {
            return write(&mut self.backend, self.own, None, both);
        }
        let mut buffer = take(&mut self.own.gradient[x.0]);
        let adds = replace(&mut self.written[x.0], true);
        write(&mut self.backend, self.own, Some((B::slice_mut(&mut buffer, range), adds)), both);
        self.own.gradient[x.0] = buffer;
    }

    fn affine(
        &mut self,
        node: &Node,
        shape: Shape,
        d: B::Slice<'_>,
        parts: &[(NodeId, WeightPart)],
        bias: Option<&Range<usize>>,
        bases: &[NodeId],
    ) {
        let (plan, parameters, channels) = (self.plan, self.parameters, node.channels);
        let rows = shape.n * shape.positions;
        // A fused activation has summed the bias' columns already.
        if let Some(bias) = bias.filter(|_| node.fused_into.is_none()) {
            let sums = B::part_mut(&mut self.d_parameters, bias.clone());
            self.backend.column_sum(sums, channels, d);
        }
        for &base in bases {
            self.scatter(base, node.space, shape, d);
        }
        for (x, part) in parts {
            let (inputs, range) = (plan.node(*x).channels, self.all(*x));
            let values = B::part_mut(&mut self.d_parameters, part.range(channels, inputs));
            let gradient = Weight { values, outputs: channels, inputs, stride: part.stride };
            self.backend.multiply_gradient(gradient, d, B::slice(&self.own.value[x.0], range), rows);
            let weight = part.of::<B>(parameters, channels, inputs);
            self.into(*x, |backend, _, dx| backend.multiply_back(dx, d, rows, weight));
        }
    }

    fn activation(&mut self, i: usize, x: NodeId, activation: Activation, shape: Shape, buffer: &mut B::Buffer) {
        let plan = self.plan;
        let source = plan.node(x);
        let len = shape.positions * shape.n * shape.channels;
        // Where the bias was added in the activation's pass, its gradient is summed in this one.
        let sums = match (&source.op, source.fused_into) {
            (Op::Affine { bias: Some(bias), .. }, Some(_)) => Some(B::part_mut(&mut self.d_parameters, bias.clone())),
            _ => None,
        };
        let derivative = if source.fused_into.is_some() { &self.own.value[x.0] } else { &self.own.saved[i] };
        let (a, derivative) = (B::slice(&self.own.value[i], 0..len), B::slice(derivative, 0..len));
        let d = B::slice_mut(buffer, 0..len);
        self.backend.activation_backward(activation, d, a, derivative, shape.channels, sums);
        if source.fused_into.is_none() {
            let d = B::slice(buffer, 0..len);
            self.into(x, |backend, _, dx| backend.copy(dx, d));
        }
    }

    fn attention(
        &mut self,
        shape: super::attention::AttentionShape,
        inputs: [NodeId; 3],
        d: B::Slice<'_>,
        i: usize,
        saved_len: usize,
    ) {
        let saved = take(&mut self.own.saved[i]);
        let ranges = inputs.map(|x| self.all(x));
        let mut opened = inputs.map(|x| {
            debug_assert!(self.plan.node(x).differentiable, "a projection with parameters");
            (take(&mut self.own.gradient[x.0]), replace(&mut self.written[x.0], true))
        });
        {
            let read = |k: usize| B::slice(&self.own.value[inputs[k].0], ranges[k].clone());
            let [dq, dk, dv] = &mut opened;
            let targets = [
                (B::slice_mut(&mut dq.0, ranges[0].clone()), dq.1),
                (B::slice_mut(&mut dk.0, ranges[1].clone()), dk.1),
                (B::slice_mut(&mut dv.0, ranges[2].clone()), dv.1),
            ];
            let weights = B::slice(&saved, 0..saved_len);
            self.backend.attention_backward(shape, d, [read(0), read(1), read(2)], weights, targets);
        }
        for (x, (buffer, _)) in inputs.into_iter().zip(opened) {
            self.own.gradient[x.0] = buffer;
        }
        self.own.saved[i] = saved;
    }
}
