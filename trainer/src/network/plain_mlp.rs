//! MLP: Linear → activation for each hidden layer, a last Linear without (spec dppo.md §3.1).

use tenon_core::network::Activation;

use super::{Linear, Mode, ParameterTable};
use crate::elementwise::{activation_backward, bias_activate, bias_activate_in_place, column_sum};
use crate::error::TrainError;
use crate::linalg::{Into, Matrix, multiply};

/// Sizes and offsets.
#[derive(Debug, Clone)]
pub(crate) struct PlainMlp {
    layers: Vec<Linear>,
    activation: Activation,
}

/// Buffers for a block of rows.
#[derive(Debug, Clone)]
pub(crate) struct PlainWorkspace {
    /// Pre-activation of each layer, afterwards its derivative; of the last layer, the output. `[rows, outputs]`.
    h: Vec<Vec<f32>>,
    /// Activation of each hidden layer; empty for inference.
    a: Vec<Vec<f32>>,
    /// Gradient with respect to the output of each layer; empty for inference.
    d: Vec<Vec<f32>>,
}

impl PlainMlp {
    /// `names`: the layers in order, as they are called in checkpoints.
    pub fn new(table: &ParameterTable, names: &[String], activation: Activation) -> Result<Self, TrainError> {
        let layers = names.iter().map(|n| Linear::find(table, n)).collect::<Result<_, _>>()?;
        Ok(Self { layers, activation })
    }

    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |l| l.outputs)
    }

    pub fn workspace(&self, rows: usize, mode: Mode) -> PlainWorkspace {
        let buffers = || self.layers.iter().map(|l| vec![0.0; rows * l.outputs]).collect();
        match mode {
            Mode::Inference => PlainWorkspace { h: buffers(), a: vec![], d: vec![] },
            Mode::Training => PlainWorkspace { h: buffers(), a: buffers(), d: buffers() },
        }
    }

    /// `input`: `[rows, inputs]`. The output is [`PlainWorkspace::output`].
    pub fn forward(&self, parameters: &[f32], ws: &mut PlainWorkspace, input: &[f32], rows: usize) {
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            let n = rows * layer.outputs;
            let (done, rest) = ws.h.split_at_mut(i);
            let h = &mut rest[0][..n];
            let source = match i {
                0 => input,
                _ if ws.a.is_empty() => &done[i - 1],
                _ => &ws.a[i - 1],
            };
            multiply(h, Into::Overwrite, Matrix::new(source, rows, layer.inputs), layer.weight(parameters).t());
            let bias = &parameters[layer.bias.clone()];
            if i == last {
                for row in h.chunks_exact_mut(layer.outputs) {
                    crate::elementwise::add(row, bias);
                }
            } else if ws.a.is_empty() {
                bias_activate_in_place(self.activation, h, bias);
            } else {
                bias_activate(self.activation, h, bias, &mut ws.a[i][..n]);
            }
        }
    }

    /// Adds the gradients of all layers to `gradient`; the output's gradient is in [`PlainWorkspace::output_gradient`].
    pub fn backward(
        &self,
        parameters: &[f32],
        ws: &mut PlainWorkspace,
        input: &[f32],
        rows: usize,
        gradient: &mut [f32],
    ) {
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let n = rows * layer.outputs;
            let (below, here) = ws.d.split_at_mut(i);
            let d = &mut here[0][..n];
            let bias_gradient = &mut gradient[layer.bias.clone()];
            if i == last {
                column_sum(d, bias_gradient);
            } else {
                activation_backward(self.activation, d, &ws.a[i][..n], &ws.h[i][..n], bias_gradient);
            }
            let source = if i == 0 { input } else { &ws.a[i - 1] };
            multiply(
                &mut gradient[layer.weight.clone()],
                Into::Add,
                Matrix::new(d, rows, layer.outputs).t(),
                Matrix::new(source, rows, layer.inputs),
            );
            if let Some(d_below) = below.last_mut() {
                multiply(d_below, Into::Overwrite, Matrix::new(d, rows, layer.outputs), layer.weight(parameters));
            }
        }
    }
}

impl PlainWorkspace {
    pub fn output(&self) -> &[f32] {
        self.h.last().map_or(&[], Vec::as_slice)
    }

    pub fn output_gradient(&mut self) -> &mut [f32] {
        self.d.last_mut().map_or(&mut [], Vec::as_mut_slice)
    }
}
