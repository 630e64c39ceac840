//! Buffers of a plan, and a block of rows put in place.

use tenon_core::network::sinusoid;

use super::{NodeId, Op, Plan, Source, Space};
use crate::elementwise::add;
use crate::network::Mode;

/// A node's buffers, all `[positions, elements, channels]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers {
    pub value: Vec<Vec<f32>>,
    pub gradient: Vec<Vec<f32>>,
    pub saved: Vec<Vec<f32>>,
}

impl Buffers {
    /// For up to `elements(space)` elements of each space that is `wanted`.
    fn new(plan: &Plan, mode: Mode, elements: impl Fn(Space) -> usize, wanted: impl Fn(Space) -> bool) -> Self {
        let sized = |of: fn(&super::Node) -> usize, also: bool| -> Vec<Vec<f32>> {
            plan.nodes
                .iter()
                .map(|n| {
                    let len = if also && wanted(n.space) { elements(n.space) * of(n) } else { 0 };
                    vec![0.0; len]
                })
                .collect()
        };
        let training = mode == Mode::Training;
        Self {
            value: sized(super::Node::len, true),
            gradient: sized(|n| if n.differentiable { n.len() } else { 0 }, training),
            saved: sized(|n| n.saved, true),
        }
    }
}

/// What depends on the parameters and the distinct time steps only.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) buffers: Buffers,
    pub(super) times: usize,
    /// Parameters in the layout of the kernels.
    pub(super) packed: Option<Vec<f32>>,
}

impl Prepared {
    pub(super) fn parameters<'a>(&'a self, stored: &'a [f32]) -> &'a [f32] {
        self.packed.as_deref().unwrap_or(stored)
    }
}

/// Gradient of a loss with respect to the parameters, gathered over blocks.
#[derive(Debug, Clone)]
pub struct PlanGradient {
    /// In the stored layout after [`Plan::finish_gradient`].
    pub parameters: Vec<f32>,
    /// Of constant and time values, `[positions, elements, channels]`.
    pub(super) shared: Vec<Vec<f32>>,
}

impl PlanGradient {
    /// Back to zero.
    pub fn clear(&mut self) {
        self.parameters.fill(0.0);
        self.shared.iter_mut().for_each(|g| g.fill(0.0));
    }

    /// Adds another shard's gradient, unfinished as this one.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.parameters, &other.parameters);
        for (sum, other) in self.shared.iter_mut().zip(&other.shared) {
            add(sum, other);
        }
    }
}

/// Which rows a block holds: their states and steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// Distinct states in the block.
    pub(super) states: usize,
    /// For each row, the index of its state in the block.
    pub(super) state_of_row: Vec<u32>,
    /// For each row, the index of its step in the list given to [`Plan::prepare`].
    pub(super) slots: Vec<u32>,
}

/// Buffers for a block.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub(super) buffers: Buffers,
    pub(super) block: Block,
    /// Scratch of the kernels.
    pub(super) scratch: Vec<f32>,
    pub(super) zeros: Vec<f32>,
    pub(super) training: bool,
}

impl Workspace {
    /// Rows in the block.
    pub fn rows(&self) -> usize {
        self.block.slots.len()
    }

    /// States in the block.
    pub fn states(&self) -> usize {
        self.block.states
    }

    /// Forgets the rows; the states stay.
    pub fn clear_rows(&mut self) {
        self.block.state_of_row.clear();
        self.block.slots.clear();
    }

    /// Elements of a space.
    pub(super) fn count(&self, space: Space, times: usize) -> usize {
        match space {
            Space::Constant => 1,
            Space::Time => times,
            Space::State => self.block.states,
            Space::Row => self.block.slots.len(),
        }
    }
}

impl Plan {
    /// Buffers for a block of up to `rows` rows and as many states.
    pub fn workspace(&self, rows: usize, mode: Mode) -> Workspace {
        Workspace {
            buffers: Buffers::new(self, mode, |_| rows, |s| s >= Space::State),
            block: Block::default(),
            scratch: Vec::new(),
            zeros: vec![0.0; self.widest],
            training: mode == Mode::Training,
        }
    }

    /// A gradient of zeros for `times` distinct steps.
    pub fn gradient(&self, times: usize) -> PlanGradient {
        let elements = |space| match space {
            Space::Constant => 1,
            _ => times,
        };
        let buffers = Buffers::new(self, Mode::Training, elements, |s| s <= Space::Time);
        PlanGradient { parameters: vec![0.0; self.table.len()], shared: buffers.gradient }
    }

    /// Computes what all rows share. `times`: the distinct steps; empty for networks without a step.
    pub fn prepare(&self, parameters: &[f32], times: &[usize]) -> Prepared {
        let elements = |space| match space {
            Space::Constant => 1,
            _ => times.len(),
        };
        let buffers = Buffers::new(self, Mode::Training, elements, |s| s <= Space::Time);
        let mut prepared = Prepared { buffers, times: times.len(), packed: self.pack(parameters) };
        for (i, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::Sinusoid) {
                let values = times.iter().flat_map(|&t| sinusoid(t, node.channels));
                prepared.buffers.value[i].iter_mut().zip(values).for_each(|(to, from)| *to = from);
            }
        }
        self.run_shared(parameters, &mut prepared);
        prepared
    }

    /// Begins a block with these states. `load(i, state)` fills the i-th state `[To · Do]`.
    pub fn set_states(&self, ws: &mut Workspace, states: usize, mut load: impl FnMut(usize, &mut [f32])) {
        ws.block.states = states;
        ws.clear_rows();
        for (i, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::State) {
                let (len, values) = (node.len(), &mut ws.buffers.value[i]);
                values.chunks_exact_mut(len).take(states).enumerate().for_each(|(k, state)| load(k, state));
            }
        }
    }

    /// Puts the pictures of state `i` in place, `[channels, px, px]` as cameras deliver them, 0..255.
    pub fn set_images(&self, ws: &mut Workspace, i: usize, images: impl Fn(usize) -> f32) {
        let n = ws.block.states;
        for (k, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::Images) {
                let (pixels, channels) = (node.positions, node.channels);
                for p in 0..pixels {
                    let to = &mut ws.buffers.value[k][(p * n + i) * channels..][..channels];
                    to.iter_mut().enumerate().for_each(|(c, to)| *to = images(c * pixels + p));
                }
            }
        }
    }

    /// Adds rows: `rows` yields state, step and chunk of each; the state by its index in the block, the step by its
    /// index in the list given to [`Plan::prepare`], the chunk `[Tp · Da]`.
    pub fn set_rows<'a>(&self, ws: &mut Workspace, rows: impl ExactSizeIterator<Item = (u32, u32, &'a [f32])> + Clone) {
        ws.clear_rows();
        let n = rows.len();
        for (state, slot, _) in rows.clone() {
            ws.block.state_of_row.push(state);
            ws.block.slots.push(slot);
        }
        for (i, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::Chunk) && node.consumers > 0 {
                let values = &mut ws.buffers.value[i];
                for (r, (_, _, chunk)) in rows.clone().enumerate() {
                    for (p, part) in chunk.chunks_exact(node.channels).enumerate() {
                        values[(p * n + r) * node.channels..][..node.channels].copy_from_slice(part);
                    }
                }
            }
        }
    }

    /// Output `i` of the block's elements, `[elements, len]`.
    pub fn output<'a>(&self, ws: &'a Workspace, i: usize) -> &'a [f32] {
        let id = self.outputs[i];
        let node = self.node(id);
        &ws.buffers.value[id.0][..ws.count(node.space, 0) * node.len()]
    }

    /// Output `i` where it is the same for every state, `[len]`; none where it is not.
    pub fn shared_output<'a>(&self, prepared: &'a Prepared, i: usize) -> Option<&'a [f32]> {
        let id = self.outputs[i];
        (self.node(id).space == Space::Constant).then(|| prepared.buffers.value[id.0].as_slice())
    }

    /// Where ∂loss/∂output of the block's elements belongs before a backward pass, beside the output itself.
    pub fn output_and_gradient<'a>(&self, ws: &'a mut Workspace, i: usize) -> (&'a [f32], &'a mut [f32]) {
        let id = self.outputs[i];
        let node = self.node(id);
        let n = ws.count(node.space, 0) * node.len();
        (&ws.buffers.value[id.0][..n], &mut ws.buffers.gradient[id.0][..n])
    }

    /// The same for an output that is the same for every state: adds to its gradient.
    pub fn add_shared_output_gradient(&self, gradient: &mut PlanGradient, i: usize, d: &[f32]) {
        add(&mut gradient.shared[self.outputs[i].0], d);
    }

    /// ∂loss/∂input of the block after a backward pass, `[positions, elements, channels]`; for plans built with input
    /// gradients. The first input of this kind that the network uses.
    pub fn input_gradient<'a>(&self, ws: &'a Workspace, which: InputGradient) -> Option<&'a [f32]> {
        let i = self.find_input(which)?;
        let node = &self.nodes[i];
        Some(&ws.buffers.gradient[i][..ws.count(node.space, 0) * node.len()])
    }

    /// Positions in which the network takes this input; 0 where it does not.
    pub fn input_positions(&self, which: InputGradient) -> usize {
        self.find_input(which).map_or(0, |i| self.nodes[i].positions)
    }

    fn find_input(&self, which: InputGradient) -> Option<usize> {
        let source = match which {
            InputGradient::Chunk => Source::Chunk,
            InputGradient::State => Source::State,
            InputGradient::Images => Source::Images,
        };
        self.nodes.iter().position(|n| n.op == Op::Input(source) && n.consumers > 0)
    }

    pub(super) fn is_output(&self, id: NodeId) -> bool {
        self.outputs.contains(&id)
    }
}

/// An input whose gradient can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputGradient {
    Chunk,
    State,
    Images,
}
