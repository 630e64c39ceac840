//! From a definition to a plan.

use std::ops::Range;

use tenon_core::network::layers::{AffineNames, Layers, Window};
use tenon_core::network::{Activation, Parameter};

use super::{Node, NodeId, Op, Packing, Plan, Source, Space, WeightPart};
use crate::network::ParameterTable;

/// Rows of a block for networks whose values have one position: the activations of a block stay in the cache, and
/// packing a weight matrix once a block costs little beside the product.
const BLOCK_ROWS: usize = 512;
/// Positions · rows of a block for the others, and the least rows.
const BLOCK_POSITIONS: usize = 1024;
const LEAST_ROWS: usize = 8;

/// Inputs of one product sum with their shares of the weight.
type Parts = Vec<(NodeId, WeightPart)>;

/// The most of a block on the processor, from the positions that values of a space have.
pub(super) fn block_size(positions: usize) -> usize {
    match positions {
        0 | 1 => BLOCK_ROWS,
        _ => (BLOCK_POSITIONS / positions).clamp(LEAST_ROWS, BLOCK_ROWS),
    }
}

/// Collects nodes while a definition runs.
#[derive(Debug, Default)]
pub struct PlanBuilder {
    nodes: Vec<Node>,
    parameters: Vec<(Parameter, Range<usize>)>,
    len: usize,
    packings: Vec<Packing>,
    /// Whether gradients with respect to the inputs are wanted too.
    input_gradients: bool,
}

impl PlanBuilder {
    /// A builder whose plan also gives the gradient with respect to chunk, state and images.
    pub fn with_input_gradients() -> Self {
        Self { input_gradients: true, ..Self::default() }
    }

    /// Noisy chunk `[Tp, Da]`.
    pub fn chunk(&mut self, horizon: usize, action_dim: usize) -> NodeId {
        self.input(Source::Chunk, Space::Row, horizon, action_dim)
    }

    /// Sinusoid of the step.
    pub fn sinusoid(&mut self, dim: usize) -> NodeId {
        self.input(Source::Sinusoid, Space::Time, 1, dim)
    }

    /// Normalised observations `[1, To · Do]`.
    pub fn state(&mut self, len: usize) -> NodeId {
        self.input(Source::State, Space::State, 1, len)
    }

    /// Pictures `[px · px, 3 · cameras]`.
    pub fn images(&mut self, positions: usize, channels: usize) -> NodeId {
        self.input(Source::Images, Space::State, positions, channels)
    }

    fn input(&mut self, source: Source, space: Space, positions: usize, channels: usize) -> NodeId {
        let differentiable = self.input_gradients && source != Source::Sinusoid;
        self.push(Node {
            op: Op::Input(source),
            space,
            positions,
            channels,
            saved: 0,
            differentiable,
            fused_into: None,
            consumers: 0,
        })
    }

    fn push(&mut self, node: Node) -> NodeId {
        for x in node.op.inputs() {
            self.nodes[x.0].consumers += 1;
        }
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// A node whose inputs are in its own space.
    fn node(&mut self, op: Op, positions: usize, channels: usize, saved: usize, learns: bool) -> NodeId {
        let inputs = op.inputs();
        let space = inputs.iter().fold(Space::Constant, |s, x| s.join(self.nodes[x.0].space));
        let differentiable = learns || inputs.iter().any(|x| self.nodes[x.0].differentiable);
        self.push(Node { op, space, positions, channels, saved, differentiable, fused_into: None, consumers: 0 })
    }

    /// `x` for each element of `space`.
    fn gathered(&mut self, x: NodeId, space: Space) -> NodeId {
        let node = &self.nodes[x.0];
        if node.space == space {
            return x;
        }
        let (positions, channels, differentiable) = (node.positions, node.channels, node.differentiable);
        let op = Op::Gather { x };
        self.push(Node { op, space, positions, channels, saved: 0, differentiable, fused_into: None, consumers: 0 })
    }

    /// All in one space.
    fn together<const N: usize>(&mut self, values: [NodeId; N]) -> [NodeId; N] {
        let space = values.iter().fold(Space::Constant, |s, x| s.join(self.nodes[x.0].space));
        values.map(|x| self.gathered(x, space))
    }

    fn named(&mut self, name: &str, shape: &[usize]) -> Range<usize> {
        if let Some(((_, known), range)) = self.parameters.iter().find(|((n, _), _)| n == name) {
            assert_eq!(known, shape, "two shapes of {name}");
            return range.clone();
        }
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.parameters.push(((name.to_string(), shape.to_vec()), range.clone()));
        range
    }

    fn packed(&mut self, packing: Packing) {
        // A layer used twice (one encoder for two cameras) is packed once.
        if !self.packings.contains(&packing) {
            self.packings.push(packing);
        }
    }

    /// The plan of the outputs: each as one position of all its values, in the row-major order of the definition.
    pub fn finish(mut self, outputs: &[NodeId]) -> Plan {
        let outputs: Vec<NodeId> = outputs
            .iter()
            .map(|&y| {
                let flat = match self.nodes[y.0].op {
                    // A vector that was only given another shape.
                    Op::Reshape { x } if self.nodes[x.0].positions == 1 => x,
                    _ => Layers::flatten(&mut self, &y),
                };
                self.nodes[flat.0].consumers += 1;
                flat
            })
            .collect();
        self.fuse_activations();
        let block = super::BlockSize::of(&self.nodes, block_size);
        Plan {
            widest: self.nodes.iter().map(|n| n.channels).max().unwrap_or(1),
            table: ParameterTable::new(self.parameters.into_iter().map(|(p, _)| p).collect()),
            nodes: self.nodes,
            packings: self.packings,
            outputs,
            block,
            device: None,
        }
    }

    /// An activation takes its input's place where nobody else wants that value: the input becomes the derivative, and
    /// the bias of an affine map is added in the same pass.
    fn fuse_activations(&mut self) {
        for i in 0..self.nodes.len() {
            let Op::Activate { x, .. } = self.nodes[i].op else { continue };
            let source = &self.nodes[x.0];
            let keeps = matches!(source.op, Op::Activate { .. } | Op::Input(_) | Op::Parameter { .. });
            if source.consumers == 1 && !keeps {
                self.nodes[x.0].fused_into = Some(NodeId(i));
                self.nodes[i].saved = 0;
            }
        }
    }
}

impl Layers for PlanBuilder {
    type Value = NodeId;

    fn shape(&self, x: &NodeId) -> [usize; 2] {
        [self.nodes[x.0].positions, self.nodes[x.0].channels]
    }

    fn affine(&mut self, names: &AffineNames, inputs: &[&NodeId]) -> NodeId {
        let stride: usize = inputs.iter().map(|x| self.nodes[x.0].channels).sum();
        let weight = self.named(&names.weight, &[names.stored, stride]);
        let bias = self.named(&names.bias, &[names.stored]);
        let bias = bias.start + names.part.start..bias.start + names.part.end;
        let outputs = names.part.len();
        let space = inputs.iter().fold(Space::Constant, |s, x| s.join(self.nodes[x.0].space));
        let positions = inputs.iter().map(|x| self.nodes[x.0].positions).max().unwrap_or(1);
        // Inputs of one space and number of positions make one product sum.
        let mut groups: Vec<((Space, usize), Parts)> = Vec::new();
        let mut column = 0;
        for &&x in inputs {
            let node = &self.nodes[x.0];
            let key = (node.space, node.positions);
            let part = WeightPart { start: weight.start + names.part.start * stride + column, stride };
            column += node.channels;
            match groups.iter_mut().find(|(k, _)| *k == key) {
                Some((_, parts)) => parts.push((x, part)),
                None => groups.push((key, vec![(x, part)])),
            }
        }
        groups.sort_by_key(|(key, _)| *key);
        let mut bias = Some(bias);
        let (mut own, mut bases) = (Vec::new(), Vec::new());
        for (key, parts) in groups {
            if key == (space, positions) {
                own = parts;
                continue;
            }
            // The bias goes where it is added least often.
            let op = Op::Affine { parts, bias: bias.take(), bases: vec![] };
            bases.push(self.node(op, key.1, outputs, 0, true));
        }
        let op = Op::Affine { parts: own, bias, bases };
        let differentiable = true;
        self.push(Node {
            op,
            space,
            positions,
            channels: outputs,
            saved: 0,
            differentiable,
            fused_into: None,
            consumers: 0,
        })
    }

    fn parameter(&mut self, name: &str, shape: &[usize], positions: usize, channels: usize) -> NodeId {
        let values = self.named(name, shape);
        self.node(Op::Parameter { values }, positions, channels, 0, true)
    }

    fn activate(&mut self, activation: Activation, x: &NodeId) -> NodeId {
        let [positions, channels] = self.shape(x);
        self.node(Op::Activate { x: *x, activation }, positions, channels, positions * channels, false)
    }

    fn add(&mut self, x: &NodeId, y: &NodeId) -> NodeId {
        let [x, y] = self.together([*x, *y]);
        let [positions, channels] = self.shape(&x);
        self.node(Op::Add { x, y }, positions, channels, 0, false)
    }

    fn scale_shift(&mut self, x: &NodeId, factor: f32, offset: f32) -> NodeId {
        let [positions, channels] = self.shape(x);
        self.node(Op::ScaleShift { x: *x, factor, offset }, positions, channels, 0, false)
    }

    fn clamp(&mut self, x: &NodeId, low: f32, high: f32) -> NodeId {
        let [positions, channels] = self.shape(x);
        self.node(Op::Clamp { x: *x, low, high }, positions, channels, 0, false)
    }

    fn concat(&mut self, values: &[&NodeId]) -> NodeId {
        let space = values.iter().fold(Space::Constant, |s, x| s.join(self.nodes[x.0].space));
        let parts: Vec<NodeId> = values.iter().map(|&&x| self.gathered(x, space)).collect();
        let positions = self.nodes[parts[0].0].positions;
        let channels = parts.iter().map(|x| self.nodes[x.0].channels).sum();
        self.node(Op::Concat { parts }, positions, channels, 0, false)
    }

    fn channels(&mut self, x: &NodeId, range: Range<usize>) -> NodeId {
        let [positions, _] = self.shape(x);
        self.node(Op::Channels { x: *x, start: range.start }, positions, range.len(), 0, false)
    }

    fn transpose(&mut self, x: &NodeId) -> NodeId {
        let [positions, channels] = self.shape(x);
        self.node(Op::Transpose { x: *x }, channels, positions, 0, false)
    }

    fn reshape(&mut self, x: &NodeId, positions: usize, channels: usize) -> NodeId {
        assert_eq!(self.nodes[x.0].len(), positions * channels, "reshape to [{positions}, {channels}]");
        if let Op::Input(source @ Source::Chunk) = self.nodes[x.0].op {
            // The input itself comes in either shape.
            return self.input(source, Space::Row, positions, channels);
        }
        self.node(Op::Reshape { x: *x }, positions, channels, 0, false)
    }

    fn layer_norm(&mut self, name: &str, x: &NodeId, epsilon: f32) -> NodeId {
        let [positions, channels] = self.shape(x);
        let weight = self.named(&format!("{name}.weight"), &[channels]);
        let bias = self.named(&format!("{name}.bias"), &[channels]);
        // Normalised values and the inverse deviations.
        let saved = positions * (channels + 1);
        self.node(Op::LayerNorm { x: *x, weight, bias, epsilon }, positions, channels, saved, true)
    }

    fn group_norm(&mut self, name: &str, x: &NodeId, groups: usize, epsilon: f32) -> NodeId {
        let [positions, channels] = self.shape(x);
        let weight = self.named(&format!("{name}.weight"), &[channels]);
        let bias = self.named(&format!("{name}.bias"), &[channels]);
        let saved = positions * channels + groups;
        self.node(Op::GroupNorm { x: *x, weight, bias, groups, epsilon }, positions, channels, saved, true)
    }

    fn conv1d(&mut self, name: &str, x: &NodeId, outputs: usize, window: Window) -> NodeId {
        let [positions, inputs] = self.shape(x);
        let kernel = window.kernel;
        let weight = self.named(&format!("{name}.weight"), &[outputs, inputs, kernel]);
        let bias = self.named(&format!("{name}.bias"), &[outputs]);
        self.packed(Packing::Taps { values: weight.clone(), outputs, inputs, kernel });
        let positions = (positions + 2 * window.padding - kernel) / window.stride + 1;
        self.node(Op::Conv1d { x: *x, weight, bias, window }, positions, outputs, 0, true)
    }

    fn conv_transpose1d(&mut self, name: &str, x: &NodeId, outputs: usize, window: Window) -> NodeId {
        let [positions, inputs] = self.shape(x);
        let kernel = window.kernel;
        let weight = self.named(&format!("{name}.weight"), &[inputs, outputs, kernel]);
        let bias = self.named(&format!("{name}.bias"), &[outputs]);
        self.packed(Packing::TransposedTaps { values: weight.clone(), outputs, inputs, kernel });
        let positions = (positions - 1) * window.stride + kernel - 2 * window.padding;
        self.node(Op::ConvTranspose1d { x: *x, weight, bias, window }, positions, outputs, 0, true)
    }

    fn conv2d(
        &mut self,
        name: &str,
        x: &NodeId,
        picture: [usize; 2],
        outputs: usize,
        kernel: usize,
        stride: usize,
    ) -> NodeId {
        let [_, inputs] = self.shape(x);
        let weight = self.named(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        let bias = self.named(&format!("{name}.bias"), &[outputs]);
        self.packed(Packing::Patches { values: weight.clone(), outputs, inputs, window: kernel * kernel });
        let positions = picture.map(|n| (n - kernel) / stride + 1).iter().product();
        self.node(Op::Conv2d { x: *x, weight, bias, picture, kernel, stride }, positions, outputs, 0, true)
    }

    fn modulate(&mut self, x: &NodeId, film: &NodeId) -> NodeId {
        let [x, film] = self.together([*x, *film]);
        let [positions, channels] = self.shape(&x);
        self.node(Op::Modulate { x, film }, positions, channels, 0, false)
    }

    fn attention(&mut self, queries: &NodeId, keys: &NodeId, values: &NodeId, heads: usize) -> NodeId {
        let [queries, keys, values] = self.together([*queries, *keys, *values]);
        let [positions, channels] = self.shape(&queries);
        let [memory, _] = self.shape(&keys);
        let saved = heads * positions * memory;
        self.node(Op::Attention { queries, keys, values, heads }, positions, channels, saved, false)
    }

    fn weighted_sum(&mut self, name: &str, x: &NodeId) -> NodeId {
        let [positions, channels] = self.shape(x);
        let weight = self.named(name, &[1, positions, channels]);
        self.node(Op::WeightedSum { x: *x, weight }, 1, channels, 0, true)
    }
}
