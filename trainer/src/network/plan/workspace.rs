//! Buffers of a plan, and a block of rows put in place.

use tenon_core::network::sinusoid;

use super::backend::{DeviceBlock, Scratch};
use super::{BlockSize, Node, NodeId, Op, Plan, Source, Space};
use crate::device::{Device, Memory};
use crate::elementwise::add;
use crate::network::Mode;

/// A buffer for each node, all `[positions, elements, channels]`; empty where none is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers<T> {
    pub value: Vec<T>,
    pub gradient: Vec<T>,
    pub saved: Vec<T>,
}

impl<T> Buffers<T> {
    /// For up to `elements(space)` elements of each node that is `wanted`.
    fn new(
        plan: &Plan,
        mode: Mode,
        elements: impl Fn(Space) -> usize,
        wanted: impl Fn(NodeId) -> bool,
        zeros: impl Fn(usize) -> T,
    ) -> Self {
        let sized = |of: fn(&Node) -> usize, also: bool| -> Vec<T> {
            let nodes = plan.nodes.iter().enumerate();
            nodes.map(|(i, n)| zeros(if also && wanted(NodeId(i)) { elements(n.space) * of(n) } else { 0 })).collect()
        };
        let training = mode == Mode::Training;
        Self {
            value: sized(Node::len, true),
            gradient: sized(|n| if n.differentiable { n.len() } else { 0 }, training),
            saved: sized(|n| n.saved, true),
        }
    }
}

/// What depends on the parameters and the distinct time steps only.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) buffers: Buffers<Vec<f32>>,
    pub(super) times: usize,
    /// Parameters in the layout of the kernels.
    pub(super) packed: Option<Vec<f32>>,
    /// The same on the plan's device: parameters in the layout of the kernels, and what is made of them.
    pub(super) device: Option<(Memory, Buffers<Memory>)>,
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
    /// The same on the plan's device; then those above are zeros until the gradient is finished.
    pub(super) device: Option<DeviceGradient>,
}

/// A gradient that is gathered on a device.
#[derive(Debug, Clone)]
pub(super) struct DeviceGradient {
    pub device: Device,
    pub parameters: Memory,
    pub shared: Vec<Memory>,
}

impl DeviceGradient {
    fn all(&self) -> impl Iterator<Item = &Memory> {
        std::iter::once(&self.parameters).chain(&self.shared)
    }
}

impl PlanGradient {
    /// Back to zero.
    pub fn clear(&mut self) {
        self.parameters.fill(0.0);
        self.shared.iter_mut().for_each(|g| g.fill(0.0));
        if let Some(on_device) = &self.device {
            on_device.all().for_each(|memory| on_device.device.clear(memory.all()));
        }
    }

    /// Adds another shard's gradient, unfinished as this one.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.parameters, &other.parameters);
        for (sum, other) in self.shared.iter_mut().zip(&other.shared) {
            add(sum, other);
        }
        if let (Some(ours), Some(theirs)) = (&self.device, &other.device) {
            ours.all().zip(theirs.all()).for_each(|(sum, other)| ours.device.add(sum.all(), other.all()));
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

impl Block {
    /// Elements of a space.
    pub(super) fn count(&self, space: Space, times: usize) -> usize {
        match space {
            Space::Constant => 1,
            Space::Time => times,
            Space::State => self.states,
            Space::Row => self.slots.len(),
        }
    }

    /// For each state, its first row, and the end of the last one's.
    pub(super) fn first_rows(&self) -> Vec<u32> {
        debug_assert!(self.state_of_row.is_sorted(), "rows of a state are neighbours");
        let mut first = vec![0; self.states + 1];
        self.state_of_row.iter().for_each(|&state| first[state as usize + 1] += 1);
        for i in 0..self.states {
            first[i + 1] += first[i];
        }
        first
    }
}

/// Buffers for a block.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Of a plan on a device, those of its inputs and outputs only.
    pub(super) buffers: Buffers<Vec<f32>>,
    pub(super) block: Block,
    pub(super) device: Option<DeviceWorkspace>,
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
}

/// The buffers of a block on a device.
#[derive(Debug, Clone)]
pub(super) struct DeviceWorkspace {
    pub buffers: Buffers<Memory>,
    pub block: DeviceBlock,
    pub scratch: Scratch,
}

impl Plan {
    /// Buffers for a block of up to `rows` rows and as many states.
    pub fn workspace(&self, rows: usize, mode: Mode) -> Workspace {
        self.workspace_for(BlockSize { rows, states: rows }, mode)
    }

    /// Buffers for a block of up to so many rows and states.
    pub fn workspace_for(&self, block: BlockSize, mode: Mode) -> Workspace {
        let BlockSize { rows, states } = block;
        let elements = |space| if space == Space::Row { rows } else { states };
        let own = |id: NodeId| self.node(id).space >= Space::State;
        let device = self.device.as_ref().map(|device| DeviceWorkspace {
            buffers: Buffers::new(self, mode, elements, own, |len| device.zeros(len)),
            block: DeviceBlock {
                state_of_row: device.zeros(rows),
                slots: device.zeros(rows),
                first_row: device.zeros(states + 1),
            },
            scratch: Scratch::default(),
        });
        let here = |id| own(id) && (self.device.is_none() || self.is_exchanged(id));
        Workspace {
            buffers: Buffers::new(self, mode, elements, here, |len| vec![0.0; len]),
            block: Block::default(),
            device,
            scratch: Vec::new(),
            zeros: vec![0.0; self.widest],
            training: mode == Mode::Training,
        }
    }

    /// Values that are put in from outside, or taken out.
    fn is_exchanged(&self, id: NodeId) -> bool {
        matches!(self.node(id).op, Op::Input(_)) || self.is_output(id)
    }

    /// Buffers of what does not depend on states and rows.
    fn shared_buffers<T>(&self, times: usize, zeros: impl Fn(usize) -> T) -> Buffers<T> {
        let elements = |space| if space == Space::Constant { 1 } else { times };
        Buffers::new(self, Mode::Training, elements, |id| self.node(id).space <= Space::Time, zeros)
    }

    /// A gradient of zeros for `times` distinct steps.
    pub fn gradient(&self, times: usize) -> PlanGradient {
        let device = self.device.as_ref().map(|device| DeviceGradient {
            device: device.clone(),
            parameters: device.zeros(self.table.len()),
            shared: self.shared_buffers(times, |len| device.zeros(len)).gradient,
        });
        let shared = self.shared_buffers(times, |len| vec![0.0; len]).gradient;
        PlanGradient { parameters: vec![0.0; self.table.len()], shared, device }
    }

    /// Computes what all rows share. `times`: the distinct steps; empty for networks without a step.
    pub fn prepare(&self, parameters: &[f32], times: &[usize]) -> Prepared {
        let buffers = self.shared_buffers(times.len(), |len| vec![0.0; len]);
        let mut prepared = Prepared { buffers, times: times.len(), packed: self.pack(parameters), device: None };
        for (i, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::Sinusoid) {
                let values = times.iter().flat_map(|&t| sinusoid(t, node.channels));
                prepared.buffers.value[i].iter_mut().zip(values).for_each(|(to, from)| *to = from);
            }
        }
        prepared.device = self.device.as_ref().map(|device| {
            let there = device.upload(prepared.parameters(parameters));
            (there, self.shared_buffers(times.len(), |len| device.zeros(len)))
        });
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
        &ws.buffers.value[id.0][..ws.block.count(node.space, 0) * node.len()]
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
        let n = ws.block.count(node.space, 0) * node.len();
        (&ws.buffers.value[id.0][..n], &mut ws.buffers.gradient[id.0][..n])
    }

    /// The same for an output that is the same for every state: adds to its gradient.
    pub fn add_shared_output_gradient(&self, gradient: &mut PlanGradient, i: usize, d: &[f32]) {
        let id = self.outputs[i];
        match &gradient.device {
            Some(there) => there.device.add(there.shared[id.0].view(0..d.len()), there.device.upload(d).all()),
            None => add(&mut gradient.shared[id.0], d),
        }
    }

    /// ∂loss/∂input of the block after a backward pass, `[positions, elements, channels]`; for plans built with input
    /// gradients. The first input of this kind that the network uses.
    pub fn input_gradient<'a>(&self, ws: &'a Workspace, which: InputGradient) -> Option<&'a [f32]> {
        let i = self.find_input(which)?;
        let node = &self.nodes[i];
        Some(&ws.buffers.gradient[i][..ws.block.count(node.space, 0) * node.len()])
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
