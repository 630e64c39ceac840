//! Forward passes: each node's value from those before it.

use std::mem::take;

use super::attention::{AttentionShape, attention};
use super::convolution::{ConvShape, PatchShape, conv1d, conv2d};
use super::norm::{NormShape, group_norm, layer_norm};
use super::rearrange::{Index, Source, copy_channels, gather, modulate, reshape, transpose, weighted_sum};
use super::workspace::{Block, Buffers, Prepared, Workspace};
use super::{Node, NodeId, Op, Plan, Space};
use crate::elementwise::{activate, add, bias_activate, bias_activate_in_place};
use crate::linalg::{Into, Matrix, multiply_rows};

/// What a pass over some spaces works with.
struct Pass<'a> {
    plan: &'a Plan,
    parameters: &'a [f32],
    /// Values of constants and times, where they are not those of `own`.
    shared: Option<&'a Buffers>,
    own: &'a mut Buffers,
    block: &'a Block,
    times: usize,
    training: bool,
    scratch: &'a mut Vec<f32>,
    zeros: &'a [f32],
}

impl Plan {
    /// Constants and times.
    pub(super) fn run_shared(&self, parameters: &[f32], prepared: &mut Prepared) {
        let Prepared { buffers, times, packed } = prepared;
        let pass = Pass {
            plan: self,
            parameters: packed.as_deref().unwrap_or(parameters),
            shared: None,
            own: buffers,
            block: &Block::default(),
            times: *times,
            training: true,
            scratch: &mut Vec::new(),
            zeros: &vec![0.0; self.widest],
        };
        pass.run(|space| space <= Space::Time);
    }

    /// Everything that depends on the states alone, after [`Plan::set_states`].
    pub fn forward_states(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace) {
        self.run(parameters, prepared, ws, |space| space == Space::State);
    }

    /// Everything else, after [`Plan::set_rows`].
    pub fn forward_rows(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace) {
        self.run(parameters, prepared, ws, |space| space == Space::Row);
    }

    fn run(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, wanted: impl Fn(Space) -> bool) {
        let pass = Pass {
            plan: self,
            parameters: prepared.parameters(parameters),
            shared: Some(&prepared.buffers),
            own: &mut ws.buffers,
            block: &ws.block,
            times: prepared.times,
            training: ws.training,
            scratch: &mut ws.scratch,
            zeros: &ws.zeros,
        };
        pass.run(wanted);
    }
}

impl Pass<'_> {
    fn run(mut self, wanted: impl Fn(Space) -> bool) {
        for i in 0..self.plan.nodes.len() {
            if wanted(self.plan.nodes[i].space) {
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

    /// The value of an input for the elements at hand.
    fn value(&self, id: NodeId) -> &[f32] {
        let node = self.plan.node(id);
        let buffers = match self.shared {
            Some(shared) if node.space <= Space::Time => shared,
            _ => &*self.own,
        };
        &buffers.value[id.0][..self.count(node.space) * node.len()]
    }

    /// A value of another space (or with one position), to be looked up.
    fn source(&self, id: NodeId, space: Space) -> Source<'_> {
        let node = self.plan.node(id);
        Source {
            values: self.value(id),
            positions: node.positions,
            elements: self.count(node.space),
            index: index(node.space, space, self.block),
        }
    }

    fn node(&mut self, i: usize) {
        let plan = self.plan;
        let node = &plan.nodes[i];
        let n = self.count(node.space);
        let len = n * node.len();
        if matches!(node.op, Op::Input(_)) || len == 0 {
            return;
        }
        if let Op::Activate { x, activation } = node.op {
            return self.activation(i, x, activation, n);
        }
        let mut buffer = take(&mut self.own.value[i]);
        let mut saved = take(&mut self.own.saved[i]);
        self.value_of(node, n, &mut buffer[..len], &mut saved);
        self.own.value[i] = buffer;
        self.own.saved[i] = saved;
    }

    fn value_of(&mut self, node: &Node, n: usize, out: &mut [f32], saved: &mut [f32]) {
        let (plan, parameters) = (self.plan, self.parameters);
        let (positions, channels) = (node.positions, node.channels);
        let len = out.len();
        match &node.op {
            Op::Input(_) | Op::Activate { .. } => unreachable!("handled by the caller"),
            Op::Parameter { values } => out.copy_from_slice(&parameters[values.clone()]),
            Op::Affine { parts, bias, bases } => {
                let mut begun = false;
                for &base in bases {
                    gather(out, positions, n, channels, self.source(base, node.space), begun);
                    begun = true;
                }
                let own_bias = bias.clone().filter(|_| node.fused_into.is_none());
                if let Some(bias) = own_bias {
                    let bias = &parameters[bias];
                    for row in out.chunks_exact_mut(channels) {
                        if begun { add(row, bias) } else { row.copy_from_slice(bias) }
                    }
                    begun = true;
                }
                for (x, part) in parts {
                    let inputs = plan.node(*x).channels;
                    let weight = Matrix::strided(&parameters[part.start..], channels, inputs, part.stride);
                    let x = Matrix::new(self.value(*x), n * positions, inputs);
                    multiply_rows(out, if begun { Into::Add } else { Into::Overwrite }, x, weight.t());
                    begun = true;
                }
            }
            Op::Add { x, y } => {
                out.copy_from_slice(self.value(*x));
                let y_positions = plan.node(*y).positions;
                let y = self.value(*y);
                for (p, out) in out.chunks_exact_mut(n * channels).enumerate() {
                    let start = if y_positions == 1 { 0 } else { p * n * channels };
                    add(out, &y[start..start + n * channels]);
                }
            }
            Op::ScaleShift { x, factor, offset } => {
                out.iter_mut().zip(self.value(*x)).for_each(|(y, x)| *y = factor * x + offset);
            }
            Op::Clamp { x, low, high } => {
                out.iter_mut().zip(self.value(*x)).for_each(|(y, x)| *y = x.clamp(*low, *high));
            }
            Op::Concat { parts } => {
                let mut start = 0;
                for &x in parts {
                    let width = plan.node(x).channels;
                    copy_channels(out, (channels, start), self.value(x), (width, 0), width, false);
                    start += width;
                }
            }
            Op::Channels { x, start } => {
                let from = (plan.node(*x).channels, *start);
                copy_channels(out, (channels, 0), self.value(*x), from, channels, false);
            }
            Op::Transpose { x } => transpose(out, self.value(*x), channels, positions, n, false),
            Op::Reshape { x } => reshape(out, channels, self.value(*x), plan.node(*x).channels, n, false),
            Op::Gather { x } => gather(out, positions, n, channels, self.source(*x, node.space), false),
            Op::LayerNorm { x, weight, bias, epsilon } => {
                let (weight, bias) = (&parameters[weight.clone()], &parameters[bias.clone()]);
                let (normalised, inverse) = saved.split_at_mut(len);
                layer_norm(out, self.value(*x), weight, bias, *epsilon, normalised, inverse);
            }
            Op::GroupNorm { x, weight, bias, groups, epsilon } => {
                let (weight, bias) = (&parameters[weight.clone()], &parameters[bias.clone()]);
                let (normalised, inverse) = saved.split_at_mut(len);
                let shape = NormShape { n, channels, groups: *groups, epsilon: *epsilon };
                let mut scratch = take(self.scratch);
                group_norm(out, self.value(*x), weight, bias, shape, normalised, inverse, &mut scratch);
                *self.scratch = scratch;
            }
            Op::Conv1d { x, weight, bias, .. } | Op::ConvTranspose1d { x, weight, bias, .. } => {
                let transposed = matches!(node.op, Op::ConvTranspose1d { .. });
                let shape = conv_shape(plan, node, *x, n);
                let (weight, bias) = (&parameters[weight.clone()], &parameters[bias.clone()]);
                conv1d(shape, transposed, out, self.value(*x), weight, bias);
            }
            Op::Conv2d { x, weight, bias, .. } => {
                let shape = patch_shape(plan, node, *x, n);
                let (weight, bias) = (&parameters[weight.clone()], &parameters[bias.clone()]);
                let mut scratch = take(self.scratch);
                conv2d(shape, out, self.value(*x), weight, bias, &mut scratch);
                *self.scratch = scratch;
            }
            Op::Modulate { x, film } => modulate(out, self.value(*x), self.value(*film), n, channels),
            Op::Attention { queries, keys, values, heads } => {
                let shape = attention_shape(plan, node, *keys, *heads, n);
                attention(shape, out, self.value(*queries), self.value(*keys), self.value(*values), saved);
            }
            Op::WeightedSum { x, weight } => {
                weighted_sum(out, self.value(*x), &parameters[weight.clone()], n, channels);
            }
        }
    }

    /// An activation: of a value that nobody else wants, in one pass with the bias, leaving the derivative behind.
    fn activation(&mut self, i: usize, x: NodeId, activation: tenon_core::network::Activation, n: usize) {
        let node = &self.plan.nodes[i];
        let source = self.plan.node(x);
        let len = n * node.len();
        let mut a = take(&mut self.own.value[i]);
        if source.fused_into.is_some() {
            let bias = match &source.op {
                Op::Affine { bias: Some(bias), .. } => &self.parameters[bias.clone()],
                _ => &self.zeros[..node.channels],
            };
            let h = &mut self.own.value[x.0];
            if self.training {
                bias_activate(activation, &mut h[..len], bias, &mut a[..len]);
            } else {
                std::mem::swap(h, &mut a);
                bias_activate_in_place(activation, &mut a[..len], bias);
            }
        } else {
            let mut derivative = take(&mut self.own.saved[i]);
            activate(activation, self.value(x), &mut a[..len], &mut derivative[..len]);
            self.own.saved[i] = derivative;
        }
        self.own.value[i] = a;
    }
}

/// How elements of `space` find theirs in `from`.
pub(super) fn index(from: Space, space: Space, block: &Block) -> Index<'_> {
    match (from, space) {
        (from, space) if from == space => Index::Same,
        (Space::Constant, _) => Index::One,
        (Space::Time, _) => Index::List(&block.slots),
        (Space::State, _) => Index::List(&block.state_of_row),
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
