//! Values of a graph under construction: what a row of them is, where they lie in their tensor, and when they are known.

use crate::onnx::{GraphBuilder, Value};

/// When a value is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// When the policy is exported: it depends on parameters and on the executed steps alone.
    Export,
    /// Once a chunk: it depends on the state or the pictures.
    Chunk,
    /// Once a step: it depends on the noisy chunk.
    Step,
}

/// In which order a tensor holds its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `[rows, positions, channels]`, what matrix products and LayerNorm want.
    ChannelsLast,
    /// `[rows, channels, positions]`, what convolutions want.
    ChannelsFirst,
}

/// Rows of `[positions, channels]`. The tensor stays as the last node left it; whoever needs it otherwise asks for a
/// [`Rows::form`], so nothing is turned around in vain.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub tensor: Value,
    /// Shape of the tensor: its values in `order`, some axes split or joined.
    pub dims: Vec<usize>,
    pub order: Order,
    pub rows: usize,
    pub positions: usize,
    pub channels: usize,
    pub stage: Stage,
}

impl Rows {
    /// A tensor whose values are in the order `[rows, positions, channels]`.
    pub fn new(tensor: Value, dims: &[usize], [rows, positions, channels]: [usize; 3], stage: Stage) -> Self {
        Self { tensor, dims: dims.to_vec(), order: Order::ChannelsLast, rows, positions, channels, stage }
    }

    /// The three axes in an order.
    pub fn axes(&self, order: Order) -> [usize; 3] {
        match order {
            Order::ChannelsLast => [self.rows, self.positions, self.channels],
            Order::ChannelsFirst => [self.rows, self.channels, self.positions],
        }
    }

    /// `[rows · positions, channels]`.
    pub fn matrix(&self) -> [usize; 2] {
        [self.rows * self.positions, self.channels]
    }

    /// The shape of fewest axes in which the channels are axis 1.
    pub fn plane(&self, order: Order) -> Vec<usize> {
        match order {
            Order::ChannelsLast => self.matrix().to_vec(),
            Order::ChannelsFirst => self.axes(order).to_vec(),
        }
    }

    /// The values in the given order and shape.
    pub fn form(&self, g: &mut GraphBuilder, order: Order, dims: &[usize]) -> Value {
        let reshape = |g: &mut GraphBuilder, tensor: &Value, from: &[usize], to: &[usize]| match from == to {
            true => tensor.clone(),
            false => g.reshape(tensor, to),
        };
        // With one position or one channel both orders are the same.
        if self.order == order || self.positions == 1 || self.channels == 1 {
            return reshape(g, &self.tensor, &self.dims, dims);
        }
        let tensor = reshape(g, &self.tensor, &self.dims, &self.axes(self.order));
        let tensor = g.transpose(&tensor, &[0, 2, 1]);
        reshape(g, &tensor, &self.axes(order), dims)
    }
}
