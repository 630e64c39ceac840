//! Backward passes: gradients of parameters and inputs from those of the outputs.

use std::mem::take;

use super::attention::attention_backward;
use super::convolution::{conv1d_backward, conv2d_backward};
use super::forward::{attention_shape, conv_shape, index, patch_shape};
use super::norm::{NormShape, group_norm_backward, layer_norm_backward};
use super::rearrange::{copy_channels, reshape, scatter, transpose};
use super::workspace::{Block, Buffers, PlanGradient, Prepared, Workspace};
use super::{Node, NodeId, Op, Plan, Space};
use crate::elementwise::{activation_backward, add, column_sum};
use crate::linalg::{Into, Matrix, MatrixMut, multiply, multiply_to};

struct Pass<'a> {
    plan: &'a Plan,
    parameters: &'a [f32],
    own: &'a mut Buffers,
    /// Gradients of constants and times, where they are not those of `own`.
    shared: Option<&'a mut Vec<Vec<f32>>>,
    d_parameters: &'a mut [f32],
    block: &'a Block,
    times: usize,
    scratch: &'a mut Vec<f32>,
    /// Whether a node's gradient has been written since the pass began.
    written: Vec<bool>,
}

impl Plan {
    /// Adds the gradients of the block to `gradient`; follows forward passes of the same block, with the outputs'
    /// gradients in place ([`Plan::output_and_gradient`]).
    pub fn backward(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, gradient: &mut PlanGradient) {
        debug_assert!(ws.training, "a workspace for inference keeps nothing for a backward pass");
        let mut pass = Pass {
            plan: self,
            parameters: prepared.parameters(parameters),
            own: &mut ws.buffers,
            shared: Some(&mut gradient.shared),
            d_parameters: &mut gradient.parameters,
            block: &ws.block,
            times: prepared.times,
            scratch: &mut ws.scratch,
            written: (0..self.nodes.len()).map(|i| self.is_output(NodeId(i))).collect(),
        };
        pass.run(|space| space == Space::Row);
        pass.run(|space| space == Space::State);
    }

    /// Completes a gradient after its last block: what the constants' and times' own parameters get.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut Prepared, gradient: &mut PlanGradient) {
        prepared.buffers.gradient = take(&mut gradient.shared);
        let packed = take(&mut prepared.packed);
        let mut pass = Pass {
            plan: self,
            parameters: packed.as_deref().unwrap_or(parameters),
            own: &mut prepared.buffers,
            shared: None,
            d_parameters: &mut gradient.parameters,
            block: &Block::default(),
            times: prepared.times,
            scratch: &mut Vec::new(),
            // Blocks may have added to any of them.
            written: vec![true; self.nodes.len()],
        };
        pass.run(|space| space <= Space::Time);
        prepared.packed = packed;
        gradient.shared = take(&mut prepared.buffers.gradient);
        self.unpack(&mut gradient.parameters);
    }
}

impl Pass<'_> {
    fn run(&mut self, wanted: impl Fn(Space) -> bool) {
        for i in (0..self.plan.nodes.len()).rev() {
            let node = &self.plan.nodes[i];
            if wanted(node.space) && node.differentiable && self.written[i] {
                self.node(i);
            }
        }
    }

    fn count(&self, space: Space) -> usize {
        match space {
            Space::Constant => 1,
            Space::Time => self.times,
            Space::State => self.block.states,
            Space::Row => self.block.slots.len(),
        }
    }

    fn value(&self, id: NodeId) -> &[f32] {
        let node = self.plan.node(id);
        &self.own.value[id.0][..self.count(node.space) * node.len()]
    }

    fn node(&mut self, i: usize) {
        let plan = self.plan;
        let node = &plan.nodes[i];
        let n = self.count(node.space);
        if n == 0 {
            return;
        }
        let mut d = take(&mut self.own.gradient[i]);
        self.through(i, node, n, &mut d[..n * node.len()]);
        match node.op {
            // Nobody else has written there: the gradient moves on as it is.
            Op::Activate { x, .. } if plan.node(x).fused_into.is_some() => {
                self.own.gradient[i] = std::mem::replace(&mut self.own.gradient[x.0], d);
                self.written[x.0] = true;
            }
            _ => self.own.gradient[i] = d,
        }
    }

    /// Takes the gradient buffer of an input out, and says whether to add to it; none where nothing is wanted.
    fn open(&mut self, x: NodeId) -> Option<(Vec<f32>, bool)> {
        if !self.plan.node(x).differentiable {
            return None;
        }
        Some((take(&mut self.own.gradient[x.0]), std::mem::replace(&mut self.written[x.0], true)))
    }

    fn close(&mut self, x: NodeId, buffer: Vec<f32>) {
        self.own.gradient[x.0] = buffer;
    }

    /// Runs `write(gradient of x, adds)` where that gradient is wanted.
    fn into(&mut self, x: NodeId, write: impl FnOnce(&mut Self, &mut [f32], bool)) {
        let len = self.count(self.plan.node(x).space) * self.plan.node(x).len();
        if let Some((mut buffer, adds)) = self.open(x) {
            write(self, &mut buffer[..len], adds);
            self.close(x, buffer);
        }
    }

    /// Sums the gradient of a looked-up value.
    fn scatter(&mut self, x: NodeId, node: &Node, n: usize, d: &[f32]) {
        let source = self.plan.node(x);
        if !source.differentiable {
            return;
        }
        let elements = self.count(source.space);
        let index = index(source.space, node.space, self.block);
        let len = elements * source.len();
        let sums = match &mut self.shared {
            Some(shared) if source.space <= Space::Time => &mut shared[x.0][..len],
            _ => {
                let sums = &mut self.own.gradient[x.0][..len];
                if !std::mem::replace(&mut self.written[x.0], true) {
                    sums.fill(0.0);
                }
                sums
            }
        };
        scatter(sums, (source.positions, elements), index, d, node.positions, n, node.channels);
    }

    fn through(&mut self, i: usize, node: &Node, n: usize, d: &mut [f32]) {
        let (plan, parameters) = (self.plan, self.parameters);
        let (positions, channels) = (node.positions, node.channels);
        match &node.op {
            Op::Input(_) => {}
            Op::Parameter { values } => add(&mut self.d_parameters[values.clone()], d),
            Op::Affine { parts, bias, bases } => self.affine(node, n, d, parts, bias.clone(), bases),
            Op::Activate { x, activation } => self.activation(i, *x, *activation, n, d),
            Op::Add { x, y } => {
                self.into(*x, |_, dx, adds| if adds { add(dx, d) } else { dx.copy_from_slice(d) });
                self.into(*y, |_, dy, adds| {
                    if !adds {
                        dy.fill(0.0);
                    }
                    let len = dy.len();
                    d.chunks_exact(len).for_each(|d| add(dy, d));
                });
            }
            Op::ScaleShift { x, factor, .. } => self.into(*x, |_, dx, adds| {
                for (dx, d) in dx.iter_mut().zip(d.iter()) {
                    *dx = if adds { *dx + factor * d } else { factor * d };
                }
            }),
            Op::Clamp { x, low, high } => self.into(*x, |pass, dx, adds| {
                for ((dx, d), x) in dx.iter_mut().zip(d.iter()).zip(pass.value(*x)) {
                    let g = if x < low || x > high { 0.0 } else { *d };
                    *dx = if adds { *dx + g } else { g };
                }
            }),
            Op::Concat { parts } => {
                let mut start = 0;
                for &x in parts {
                    let width = plan.node(x).channels;
                    self.into(x, |_, dx, adds| {
                        copy_channels(dx, (width, 0), d, (channels, start), width, adds);
                    });
                    start += width;
                }
            }
            Op::Channels { x, start } => {
                let width = plan.node(*x).channels;
                self.into(*x, |_, dx, adds| {
                    if !adds {
                        dx.fill(0.0);
                    }
                    copy_channels(dx, (width, *start), d, (channels, 0), channels, true);
                });
            }
            Op::Transpose { x } => self.into(*x, |_, dx, adds| transpose(dx, d, positions, channels, n, adds)),
            Op::Reshape { x } => {
                let width = plan.node(*x).channels;
                self.into(*x, |_, dx, adds| reshape(dx, width, d, channels, n, adds));
            }
            Op::Gather { x } => self.scatter(*x, node, n, d),
            Op::LayerNorm { x, weight, bias, .. } => {
                let saved = take(&mut self.own.saved[i]);
                let (normalised, inverse) = saved.split_at(d.len());
                let mut d_weight = vec![0.0; channels];
                let mut d_bias = vec![0.0; channels];
                let w = &parameters[weight.clone()];
                let whole = |dx: &mut [f32], adds: bool, dw: &mut [f32], db: &mut [f32]| {
                    layer_norm_backward(dx, adds, d, w, normalised, inverse, dw, db);
                };
                self.norm(*x, whole, &mut d_weight, &mut d_bias);
                add(&mut self.d_parameters[weight.clone()], &d_weight);
                add(&mut self.d_parameters[bias.clone()], &d_bias);
                self.own.saved[i] = saved;
            }
            Op::GroupNorm { x, weight, bias, groups, epsilon } => {
                let saved = take(&mut self.own.saved[i]);
                let (normalised, inverse) = saved.split_at(d.len());
                let mut d_weight = vec![0.0; channels];
                let mut d_bias = vec![0.0; channels];
                let w = &parameters[weight.clone()];
                let shape = NormShape { n, channels, groups: *groups, epsilon: *epsilon };
                let mut scratch = take(self.scratch);
                let whole = |dx: &mut [f32], adds: bool, dw: &mut [f32], db: &mut [f32]| {
                    group_norm_backward(dx, adds, d, w, shape, normalised, inverse, dw, db, &mut scratch);
                };
                self.norm(*x, whole, &mut d_weight, &mut d_bias);
                add(&mut self.d_parameters[weight.clone()], &d_weight);
                add(&mut self.d_parameters[bias.clone()], &d_bias);
                *self.scratch = scratch;
                self.own.saved[i] = saved;
            }
            Op::Conv1d { x, weight, bias, .. } | Op::ConvTranspose1d { x, weight, bias, .. } => {
                let transposed = matches!(node.op, Op::ConvTranspose1d { .. });
                let shape = conv_shape(plan, node, *x, n);
                let len = n * plan.node(*x).len();
                let mut dx = self.open(*x);
                let w = &parameters[weight.clone()];
                let (d_weight, d_bias) = both(self.d_parameters, weight, bias);
                let target = dx.as_mut().map(|(buffer, adds)| (&mut buffer[..len], *adds));
                let values = &self.own.value[x.0][..len];
                conv1d_backward(shape, transposed, d, values, w, d_weight, d_bias, target);
                if let Some((buffer, _)) = dx {
                    self.close(*x, buffer);
                }
            }
            Op::Conv2d { x, weight, bias, .. } => {
                let shape = patch_shape(plan, node, *x, n);
                let len = n * plan.node(*x).len();
                let mut dx = self.open(*x);
                let w = &parameters[weight.clone()];
                let (d_weight, d_bias) = both(self.d_parameters, weight, bias);
                let target = dx.as_mut().map(|(buffer, adds)| (&mut buffer[..len], *adds));
                let values = &self.own.value[x.0][..len];
                conv2d_backward(shape, d, values, w, d_weight, d_bias, target, self.scratch);
                if let Some((buffer, _)) = dx {
                    self.close(*x, buffer);
                }
            }
            Op::Modulate { x, film } => self.modulate(*x, *film, n, channels, d),
            Op::Attention { queries, keys, values, heads } => {
                let inputs = [*queries, *keys, *values];
                let shape = attention_shape(plan, node, *keys, *heads, n);
                let saved = take(&mut self.own.saved[i]);
                let mut opened = inputs.map(|x| self.open(x).expect("a projection with parameters"));
                let lens = inputs.map(|x| n * plan.node(x).len());
                let mut scratch = take(self.scratch);
                let [q, k, v] = inputs.map(|x| self.value(x));
                {
                    let [dq, dk, dv] = &mut opened;
                    let targets =
                        [(&mut dq.0[..lens[0]], dq.1), (&mut dk.0[..lens[1]], dk.1), (&mut dv.0[..lens[2]], dv.1)];
                    attention_backward(shape, d, [q, k, v], &saved, targets, &mut scratch);
                }
                *self.scratch = scratch;
                for (x, (buffer, _)) in inputs.into_iter().zip(opened) {
                    self.close(x, buffer);
                }
                self.own.saved[i] = saved;
            }
            Op::WeightedSum { x, weight } => {
                let w = &parameters[weight.clone()];
                let width = n * channels;
                let sums = &mut self.d_parameters[weight.clone()];
                let values = &self.own.value[x.0][..n * plan.node(*x).len()];
                for (x, sum) in values.chunks_exact(width).zip(sums.chunks_exact_mut(channels)) {
                    for (x, d) in x.chunks_exact(channels).zip(d.chunks_exact(channels)) {
                        sum.iter_mut().zip(x).zip(d).for_each(|((s, x), d)| *s += x * d);
                    }
                }
                self.into(*x, |_, dx, adds| {
                    for (dx, w) in dx.chunks_exact_mut(width).zip(w.chunks_exact(channels)) {
                        for (dx, d) in dx.chunks_exact_mut(channels).zip(d.chunks_exact(channels)) {
                            for ((dx, d), w) in dx.iter_mut().zip(d).zip(w) {
                                *dx = if adds { *dx + d * w } else { d * w };
                            }
                        }
                    }
                });
            }
        }
    }

    /// A normalisation always has parameters to learn, whether or not its input has.
    fn norm(
        &mut self,
        x: NodeId,
        mut whole: impl FnMut(&mut [f32], bool, &mut [f32], &mut [f32]),
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        let len = self.count(self.plan.node(x).space) * self.plan.node(x).len();
        match self.open(x) {
            Some((mut buffer, adds)) => {
                whole(&mut buffer[..len], adds, d_weight, d_bias);
                self.close(x, buffer);
            }
            None => whole(&mut vec![0.0; len], false, d_weight, d_bias),
        }
    }

    fn affine(
        &mut self,
        node: &Node,
        n: usize,
        d: &[f32],
        parts: &[(NodeId, super::WeightPart)],
        bias: Option<std::ops::Range<usize>>,
        bases: &[NodeId],
    ) {
        let (plan, parameters) = (self.plan, self.parameters);
        let rows = n * node.positions;
        // A fused activation has summed the bias' columns already.
        if let Some(bias) = bias.filter(|_| node.fused_into.is_none()) {
            column_sum(d, &mut self.d_parameters[bias]);
        }
        for &base in bases {
            self.scatter(base, node, n, d);
        }
        let dm = Matrix::new(d, rows, node.channels);
        for (x, part) in parts {
            let inputs = plan.node(*x).channels;
            let values = Matrix::new(&self.own.value[x.0], rows, inputs);
            let d_weight = MatrixMut::strided(&mut self.d_parameters[part.start..], node.channels, inputs, part.stride);
            multiply_to(d_weight, Into::Add, dm.t(), values, 1.0);
            let weight = Matrix::strided(&parameters[part.start..], node.channels, inputs, part.stride);
            self.into(*x, |_, dx, adds| {
                multiply(dx, if adds { Into::Add } else { Into::Overwrite }, dm, weight);
            });
        }
    }

    fn activation(
        &mut self,
        i: usize,
        x: NodeId,
        activation: tenon_core::network::Activation,
        n: usize,
        d: &mut [f32],
    ) {
        let (plan, node) = (self.plan, &self.plan.nodes[i]);
        let source = plan.node(x);
        let len = n * node.len();
        // Where the bias was added in the activation's pass, its gradient is summed in this one.
        let fused_bias = match (&source.op, source.fused_into) {
            (Op::Affine { bias: Some(bias), .. }, Some(_)) => Some(bias.clone()),
            _ => None,
        };
        let mut unused = Vec::new();
        let sums = match fused_bias {
            Some(bias) => &mut self.d_parameters[bias],
            None => {
                unused.resize(node.channels, 0.0);
                &mut unused[..]
            }
        };
        let derivative = if source.fused_into.is_some() { &self.own.value[x.0] } else { &self.own.saved[i] };
        activation_backward(activation, d, &self.own.value[i][..len], &derivative[..len], sums);
        if source.fused_into.is_none() {
            self.into(x, |_, dx, adds| if adds { add(dx, d) } else { dx.copy_from_slice(d) });
        }
    }

    fn modulate(&mut self, x: NodeId, film: NodeId, n: usize, channels: usize, d: &[f32]) {
        let width = n * channels;
        self.into(film, |pass, df, adds| {
            if !adds {
                df.fill(0.0);
            }
            for (d, x) in d.chunks_exact(width).zip(pass.value(x).chunks_exact(width)) {
                let rows =
                    df.chunks_exact_mut(2 * channels).zip(d.chunks_exact(channels)).zip(x.chunks_exact(channels));
                for ((df, d), x) in rows {
                    let (scale, bias) = df.split_at_mut(channels);
                    for (((s, b), d), x) in scale.iter_mut().zip(bias).zip(d).zip(x) {
                        *s += d * x;
                        *b += d;
                    }
                }
            }
        });
        self.into(x, |pass, dx, adds| {
            let film = pass.value(film);
            for (dx, d) in dx.chunks_exact_mut(width).zip(d.chunks_exact(width)) {
                let rows =
                    dx.chunks_exact_mut(channels).zip(d.chunks_exact(channels)).zip(film.chunks_exact(2 * channels));
                for ((dx, d), film) in rows {
                    for ((dx, d), s) in dx.iter_mut().zip(d).zip(film) {
                        *dx = if adds { *dx + d * s } else { d * s };
                    }
                }
            }
        });
    }
}

/// The gradients of a weight and of its bias, which lies behind it.
fn both<'a>(
    gradient: &'a mut [f32],
    weight: &std::ops::Range<usize>,
    bias: &std::ops::Range<usize>,
) -> (&'a mut [f32], &'a mut [f32]) {
    let (low, high) = gradient.split_at_mut(bias.start);
    (&mut low[weight.clone()], &mut high[..bias.len()])
}
