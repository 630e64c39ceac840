//! Residual MLP behind its first layer (spec dppo.md §3.1).
//!
//! ```text
//! x ← first layer              (the owner's: its inputs differ between actor and critic)
//! x ← x + W₂ f(W₁ f(x) + b₁) + b₂      for each block
//! y = W x + b
//! ```

use tenon_core::network::Activation;

use super::{Linear, Mode, ParameterTable};
use crate::elementwise::{activation_backward, add, bias_activate, bias_activate_in_place, column_sum, fork, join};
use crate::error::TrainError;
use crate::linalg::{Into, Matrix, multiply};

/// Sizes and offsets of blocks and output layer.
#[derive(Debug, Clone)]
pub(crate) struct ResidualMlp {
    blocks: Vec<(Linear, Linear)>,
    output: Linear,
    pub activation: Activation,
    pub width: usize,
}

/// Buffers for a block of rows.
#[derive(Debug, Clone)]
pub(crate) struct ResidualWorkspace {
    /// The residual stream `[rows, width]`: the owner puts the first layer's output here.
    pub stream: Vec<f32>,
    /// What each block's backward pass needs; for inference one pair shared by all blocks.
    blocks: Vec<BlockBuffers>,
    /// y, `[rows, outputs]`.
    pub output: Vec<f32>,
    /// Gradient of the loss with respect to y, `[rows, outputs]`: put there by the owner.
    pub output_gradient: Vec<f32>,
    /// Gradient with respect to the stream; after the backward pass, to the first layer's output. `[rows, width]`.
    pub stream_gradient: Vec<f32>,
    branch_gradient: Vec<f32>,
    training: bool,
}

#[derive(Debug, Clone)]
struct BlockBuffers {
    /// f(x) and f'(x).
    a1: Vec<f32>,
    d1: Vec<f32>,
    /// f(W₁ a1 + b₁), and the pre-activation that becomes its derivative.
    a2: Vec<f32>,
    h2: Vec<f32>,
}

impl ResidualMlp {
    /// `prefix.layers.1.l1` … as in `tenon_core::network::residual_mlp`; returns the first layer beside the rest.
    pub fn new(
        table: &ParameterTable,
        prefix: &str,
        mlp_dims: &[usize],
        activation: Activation,
    ) -> Result<(Linear, Self), TrainError> {
        let width = mlp_dims.first().copied().unwrap_or(0);
        if width == 0 || mlp_dims.len().is_multiple_of(2) || mlp_dims.iter().any(|&d| d != width) {
            return Err(TrainError::Network(format!(
                "residual MLP {mlp_dims:?}: give an odd number of equal hidden widths"
            )));
        }
        let blocks = (mlp_dims.len() - 1) / 2;
        let first = Linear::find(table, &format!("{prefix}.layers.0"))?;
        let layers = (1..=blocks)
            .map(|b| {
                Ok((
                    Linear::find(table, &format!("{prefix}.layers.{b}.l1"))?,
                    Linear::find(table, &format!("{prefix}.layers.{b}.l2"))?,
                ))
            })
            .collect::<Result<_, TrainError>>()?;
        let output = Linear::find(table, &format!("{prefix}.layers.{}", blocks + 1))?;
        Ok((first, Self { blocks: layers, output, activation, width }))
    }

    pub fn outputs(&self) -> usize {
        self.output.outputs
    }

    pub fn workspace(&self, rows: usize, mode: Mode) -> ResidualWorkspace {
        let training = mode == Mode::Training;
        let wide = || vec![0.0; rows * self.width];
        let wide_if = |wanted: bool| if wanted { wide() } else { vec![] };
        let derivative = training && self.activation == Activation::Mish;
        let blocks = if training { self.blocks.len() } else { self.blocks.len().min(1) };
        ResidualWorkspace {
            stream: wide(),
            blocks: (0..blocks)
                .map(|_| BlockBuffers { a1: wide(), d1: wide_if(derivative), a2: wide_if(training), h2: wide() })
                .collect(),
            output: vec![0.0; rows * self.outputs()],
            output_gradient: vec![0.0; if training { rows * self.outputs() } else { 0 }],
            stream_gradient: wide_if(training),
            branch_gradient: wide_if(training),
            training,
        }
    }

    /// From `ws.stream` to `ws.output`.
    pub fn forward(&self, parameters: &[f32], ws: &mut ResidualWorkspace, rows: usize) {
        let n = rows * self.width;
        let x = &mut ws.stream[..n];
        for (i, (l1, l2)) in self.blocks.iter().enumerate() {
            let b = &mut ws.blocks[if ws.training { i } else { 0 }];
            let a1 = &mut b.a1[..n];
            let d1_len = b.d1.len().min(n);
            fork(self.activation, x, &parameters[l2.bias.clone()], a1, &mut b.d1[..d1_len]);
            let h2 = &mut b.h2[..n];
            multiply(h2, Into::Overwrite, Matrix::new(a1, rows, self.width), l1.weight(parameters).t());
            let bias = &parameters[l1.bias.clone()];
            let a2 = if ws.training {
                bias_activate(self.activation, h2, bias, &mut b.a2[..n]);
                &b.a2[..n]
            } else {
                bias_activate_in_place(self.activation, h2, bias);
                &*h2
            };
            multiply(x, Into::Add, Matrix::new(a2, rows, self.width), l2.weight(parameters).t());
        }
        let y = &mut ws.output[..rows * self.outputs()];
        for row in y.chunks_exact_mut(self.outputs()) {
            row.copy_from_slice(&parameters[self.output.bias.clone()]);
        }
        multiply(y, Into::Add, Matrix::new(x, rows, self.width), self.output.weight(parameters).t());
    }

    /// From `ws.output_gradient` to `ws.stream_gradient`; adds the gradients of blocks and output layer to `gradient`.
    pub fn backward(&self, parameters: &[f32], ws: &mut ResidualWorkspace, rows: usize, gradient: &mut [f32]) {
        debug_assert!(ws.training);
        let n = rows * self.width;
        let dy = Matrix::new(&ws.output_gradient, rows, self.outputs());
        multiply(
            &mut gradient[self.output.weight.clone()],
            Into::Add,
            dy.t(),
            Matrix::new(&ws.stream, rows, self.width),
        );
        column_sum(&ws.output_gradient[..rows * self.outputs()], &mut gradient[self.output.bias.clone()]);
        let dx = &mut ws.stream_gradient[..n];
        multiply(dx, Into::Overwrite, dy, self.output.weight(parameters));
        let branch = &mut ws.branch_gradient[..n];
        for ((l1, l2), b) in self.blocks.iter().zip(&mut ws.blocks).rev() {
            let through_l2 = Matrix::new(dx, rows, self.width);
            multiply(&mut gradient[l2.weight.clone()], Into::Add, through_l2.t(), Matrix::new(&b.a2, rows, self.width));
            column_sum(dx, &mut gradient[l2.bias.clone()]);
            multiply(branch, Into::Overwrite, through_l2, l2.weight(parameters));
            activation_backward(self.activation, branch, &b.a2[..n], &b.h2[..n], &mut gradient[l1.bias.clone()]);
            let through_l1 = Matrix::new(branch, rows, self.width);
            multiply(&mut gradient[l1.weight.clone()], Into::Add, through_l1.t(), Matrix::new(&b.a1, rows, self.width));
            // a2 has served: its buffer takes the gradient at f(x).
            multiply(&mut b.a2[..n], Into::Overwrite, through_l1, l1.weight(parameters));
            let d1_len = b.d1.len().min(n);
            join(self.activation, dx, &b.a2[..n], &b.a1[..n], &b.d1[..d1_len]);
        }
    }

    /// Puts `bias` into every row of the stream, for a first layer that is added on top.
    pub fn fill_stream(&self, ws: &mut ResidualWorkspace, rows: usize, bias: &[f32]) {
        for row in ws.stream[..rows * self.width].chunks_exact_mut(self.width) {
            row.copy_from_slice(bias);
        }
    }
}

/// `sums[slots[i]] += rows[i]`: the gradient of a table whose rows were looked up.
pub(crate) fn scatter_add(sums: &mut [f32], width: usize, slots: &[u32], rows: &[f32]) {
    for (&slot, row) in slots.iter().zip(rows.chunks_exact(width)) {
        let start = slot as usize * width;
        add(&mut sums[start..start + width], row);
    }
}
