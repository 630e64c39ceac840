//! An executable form of a network: nodes in order, each with a forward and a backward kernel.
//!
//! [`Plan`] is built by running a definition of `tenon_core::network` over [`PlanBuilder`]. A node knows on what it
//! depends, its *space*, and is computed once for each element of it:
//!
//! | space | one for each | when |
//! |---|---|---|
//! | constant | set of parameters | [`Plan::prepare`] |
//! | time | distinct denoising step | [`Plan::prepare`] |
//! | state | distinct observation of a block | [`Plan::forward_states`] |
//! | row | (observation, step, noisy chunk) | [`Plan::forward_rows`] |
//!
//! So the state's and the step's share of a first layer, condition encoders and image encoders are not computed once a
//! row. Where spaces meet, values are gathered, and gradients are summed back.
//!
//! Values of n elements are stored `[positions, n, channels]`: a convolution over positions is then one product of
//! contiguous rows for each tap, a linear layer one product for all positions, and nothing is copied in between.

mod attention;
mod backend;
mod backward;
mod builder;
mod convolution;
mod execute;
mod forward;
mod norm;
mod rearrange;
mod workspace;

use std::ops::Range;

use tenon_core::network::Activation;
use tenon_core::network::layers::Window;

pub use builder::PlanBuilder;
pub use workspace::{InputGradient, PlanGradient, Prepared, Workspace};

use super::ParameterTable;
use crate::device::Device;

/// Positions · rows of a block on a device: enough to keep a card busy, and little beside its memory.
const DEVICE_BLOCK_POSITIONS: usize = 32_768;

/// What a value depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    Constant,
    Time,
    State,
    Row,
}

impl Space {
    /// The space of a value made of values of both.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Time, Self::State) | (Self::State, Self::Time) => Self::Row,
            _ => self.max(other),
        }
    }
}

/// A value of a network under construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// What comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Noisy chunk `[Tp, Da]`, or the same in one position.
    Chunk,
    Sinusoid,
    State,
    /// `[px · px, 3 · cameras]`.
    Images,
}

/// Some rows and columns of a stored `[outputs, inputs]` weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightPart {
    /// First wanted element in the flat parameters.
    start: usize,
    /// Columns of the stored weight.
    stride: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Input(Source),
    /// A learned value.
    Parameter {
        values: Range<usize>,
    },
    /// Σ W_i x_i + b + Σ bases; bases come from other spaces or stand on every position.
    Affine {
        parts: Vec<(NodeId, WeightPart)>,
        bias: Option<Range<usize>>,
        bases: Vec<NodeId>,
    },
    Activate {
        x: NodeId,
        activation: Activation,
    },
    /// x + y, y on every position where it has one.
    Add {
        x: NodeId,
        y: NodeId,
    },
    ScaleShift {
        x: NodeId,
        factor: f32,
        offset: f32,
    },
    Clamp {
        x: NodeId,
        low: f32,
        high: f32,
    },
    Concat {
        parts: Vec<NodeId>,
    },
    Channels {
        x: NodeId,
        start: usize,
    },
    Transpose {
        x: NodeId,
    },
    Reshape {
        x: NodeId,
    },
    /// A value of a smaller space for each element of this one.
    Gather {
        x: NodeId,
    },
    LayerNorm {
        x: NodeId,
        weight: Range<usize>,
        bias: Range<usize>,
        epsilon: f32,
    },
    GroupNorm {
        x: NodeId,
        weight: Range<usize>,
        bias: Range<usize>,
        groups: usize,
        epsilon: f32,
    },
    /// Weights packed as `[kernel, outputs, inputs]`.
    Conv1d {
        x: NodeId,
        weight: Range<usize>,
        bias: Range<usize>,
        window: Window,
    },
    ConvTranspose1d {
        x: NodeId,
        weight: Range<usize>,
        bias: Range<usize>,
        window: Window,
    },
    /// Weights packed as `[outputs, kernel, kernel, inputs]`.
    Conv2d {
        x: NodeId,
        weight: Range<usize>,
        bias: Range<usize>,
        picture: [usize; 2],
        kernel: usize,
        stride: usize,
    },
    Modulate {
        x: NodeId,
        film: NodeId,
    },
    Attention {
        queries: NodeId,
        keys: NodeId,
        values: NodeId,
        heads: usize,
    },
    WeightedSum {
        x: NodeId,
        weight: Range<usize>,
    },
}

impl Op {
    /// The values it is computed from.
    fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Input(_) | Self::Parameter { .. } => vec![],
            Self::Affine { parts, bases, .. } => parts.iter().map(|(x, _)| *x).chain(bases.iter().copied()).collect(),
            Self::Concat { parts } => parts.clone(),
            Self::Add { x, y } => vec![*x, *y],
            Self::Modulate { x, film } => vec![*x, *film],
            Self::Attention { queries, keys, values, .. } => vec![*queries, *keys, *values],
            Self::Activate { x, .. }
            | Self::ScaleShift { x, .. }
            | Self::Clamp { x, .. }
            | Self::Channels { x, .. }
            | Self::Transpose { x }
            | Self::Reshape { x }
            | Self::Gather { x }
            | Self::LayerNorm { x, .. }
            | Self::GroupNorm { x, .. }
            | Self::Conv1d { x, .. }
            | Self::ConvTranspose1d { x, .. }
            | Self::Conv2d { x, .. }
            | Self::WeightedSum { x, .. } => vec![*x],
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    op: Op,
    space: Space,
    positions: usize,
    channels: usize,
    /// Values that the backward pass wants besides inputs and output, for each element.
    saved: usize,
    /// Whether a gradient has to go through it: parameters stand upstream, or the input's own gradient is wanted.
    differentiable: bool,
    /// An activation that turns this value into its derivative in place, and adds the bias of an affine map.
    fused_into: Option<NodeId>,
    consumers: usize,
}

impl Node {
    /// Values of one element.
    fn len(&self) -> usize {
        self.positions * self.channels
    }
}

/// A permutation of a stored parameter that makes its products contiguous.
#[derive(Debug, Clone, PartialEq)]
enum Packing {
    /// `[outputs, inputs, kernel]` → `[kernel, outputs, inputs]`.
    Taps { values: Range<usize>, outputs: usize, inputs: usize, kernel: usize },
    /// `[inputs, outputs, kernel]` → `[kernel, outputs, inputs]`.
    TransposedTaps { values: Range<usize>, outputs: usize, inputs: usize, kernel: usize },
    /// `[outputs, inputs, window]` → `[outputs, window, inputs]`, window = kernel².
    Patches { values: Range<usize>, outputs: usize, inputs: usize, window: usize },
}

impl Packing {
    /// For each packed place, the stored one.
    fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        match *self {
            Self::Taps { ref values, outputs, inputs, kernel } => {
                for j in 0..kernel {
                    for o in 0..outputs {
                        for i in 0..inputs {
                            let stored = (o * inputs + i) * kernel + j;
                            visit(values.start + (j * outputs + o) * inputs + i, values.start + stored);
                        }
                    }
                }
            }
            Self::TransposedTaps { ref values, outputs, inputs, kernel } => {
                for j in 0..kernel {
                    for o in 0..outputs {
                        for i in 0..inputs {
                            let stored = (i * outputs + o) * kernel + j;
                            visit(values.start + (j * outputs + o) * inputs + i, values.start + stored);
                        }
                    }
                }
            }
            Self::Patches { ref values, outputs, inputs, window } => {
                for o in 0..outputs {
                    for w in 0..window {
                        for i in 0..inputs {
                            let stored = (o * inputs + i) * window + w;
                            visit(values.start + (o * window + w) * inputs + i, values.start + stored);
                        }
                    }
                }
            }
        }
    }
}

/// The most that is walked at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    pub rows: usize,
    /// Distinct observations.
    pub states: usize,
}

impl BlockSize {
    /// `size`: from the most positions that values of a space have.
    fn of(nodes: &[Node], size: impl Fn(usize) -> usize) -> Self {
        let positions = |space| nodes.iter().filter(|n| n.space == space).map(|n| n.positions).max().unwrap_or(0);
        Self { rows: size(positions(Space::Row)), states: size(positions(Space::State)) }
    }
}

/// A network ready to run; sizes and offsets only.
#[derive(Debug, Clone)]
pub struct Plan {
    table: ParameterTable,
    nodes: Vec<Node>,
    packings: Vec<Packing>,
    outputs: Vec<NodeId>,
    block: BlockSize,
    /// Width of the widest value: zeros in place of a bias.
    widest: usize,
    /// Where it is computed; none for the processor.
    device: Option<Device>,
}

impl Plan {
    /// The same plan, computed there; on the processor for none.
    pub fn on(mut self, device: Option<&Device>) -> Self {
        self.block = BlockSize::of(&self.nodes, |positions| match device {
            Some(_) => (DEVICE_BLOCK_POSITIONS / positions.max(1)).max(1),
            None => builder::block_size(positions),
        });
        self.device = device.cloned();
        self
    }

    /// Whether it is computed elsewhere than on the processor.
    pub fn is_on_device(&self) -> bool {
        self.device.is_some()
    }

    /// Names and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// Whether layers work on several positions (U-Nets, transformers), and not on plain vectors only.
    pub fn has_positions(&self) -> bool {
        let computes = |op: &Op| !matches!(op, Op::Input(_) | Op::Reshape { .. });
        self.nodes.iter().any(|node| node.positions > 1 && computes(&node.op))
    }

    /// The most rows and distinct observations that are walked at a time.
    pub fn block_size(&self) -> BlockSize {
        self.block
    }

    /// Rows that are walked at a time where each has an observation of its own.
    pub fn block_rows(&self) -> usize {
        self.block.rows.min(self.block.states)
    }

    /// Values of output `i` for one element.
    pub fn output_len(&self, i: usize) -> usize {
        self.nodes[self.outputs[i].0].len()
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Parameters in the layout of the kernels; none where it is the stored one.
    fn pack(&self, parameters: &[f32]) -> Option<Vec<f32>> {
        if self.packings.is_empty() {
            return None;
        }
        let mut packed = parameters.to_vec();
        for packing in &self.packings {
            packing.for_each(|to, from| packed[to] = parameters[from]);
        }
        Some(packed)
    }

    /// A gradient in the layout of the kernels → in the stored one.
    fn unpack(&self, gradient: &mut [f32]) {
        if self.packings.is_empty() {
            return;
        }
        let packed = gradient.to_vec();
        for packing in &self.packings {
            packing.for_each(|from, to| gradient[to] = packed[from]);
        }
    }
}
