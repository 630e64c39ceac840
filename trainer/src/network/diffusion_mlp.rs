//! Diffusion MLP: residual MLP on [noisy chunk, time embedding, state or encoded state] (spec dppo.md §3.2).
//!
//! The first layer is split by its inputs. The share of the time step takes as many values as there are distinct
//! steps, so it is a table made once for each set of parameters ([`Prepared`]); its gradient is summed for each entry
//! and goes through the embedding once. While a chain is sampled, the share of the state is computed once too.

use tenon_core::network::{Activation, NetworkSpec};

use super::plain_mlp::{PlainMlp, PlainWorkspace};
use super::residual_mlp::{ResidualMlp, ResidualWorkspace, scatter_add};
use super::time_embedding::{EmbeddedTimes, TimeEmbedding};
use super::{Linear, Mode, ParameterTable};
use crate::elementwise::{add, column_sum};
use crate::error::TrainError;
use crate::linalg::{Into, Matrix, multiply};

/// Sizes and offsets of the network.
#[derive(Debug, Clone)]
pub struct DiffusionMlp {
    table: ParameterTable,
    time: TimeEmbedding,
    encoder: Option<PlainMlp>,
    first: Linear,
    trunk: ResidualMlp,
    chunk_len: usize,
    state_len: usize,
    /// Width of the state's share of the first layer's input: the state, or its encoding.
    condition_len: usize,
}

/// What depends on the parameters and the distinct time steps only.
#[derive(Debug, Clone)]
pub struct Prepared {
    embedded: EmbeddedTimes,
    /// First-layer bias plus the share of each time step, `[times, width]`.
    time_share: Vec<f32>,
    /// First-layer weights without the time columns, `[width, chunk_len + condition_len]`.
    weight: Vec<f32>,
}

/// Gradient of a loss with respect to the parameters, gathered over blocks of rows.
#[derive(Debug, Clone)]
pub struct MlpGradient {
    /// In the layout of the parameters; complete after [`DiffusionMlp::finish_gradient`].
    pub parameters: Vec<f32>,
    time_share: Vec<f32>,
    weight: Vec<f32>,
}

/// Buffers for a block of rows.
#[derive(Debug, Clone)]
pub struct MlpWorkspace {
    /// `[rows, chunk_len + condition_len]`.
    input: Vec<f32>,
    /// `[rows, state_len]`, only where an encoder reads it.
    states: Vec<f32>,
    slots: Vec<u32>,
    encoder: Option<PlainWorkspace>,
    encoding_gradient: Vec<f32>,
    /// The state's share of the first layer, `[rows, width]`, while a chain is sampled.
    state_share: Vec<f32>,
    trunk: ResidualWorkspace,
}

impl DiffusionMlp {
    /// `state_len` = To · Do, `prediction_horizon` = Tp, `action_dim` = Da.
    pub fn new(
        spec: &NetworkSpec,
        state_len: usize,
        prediction_horizon: usize,
        action_dim: usize,
    ) -> Result<Self, TrainError> {
        let NetworkSpec::DiffusionMlp { time_dim, mlp_dims, cond_mlp_dims, activation } = spec else {
            return Err(TrainError::Network("only `kind = \"diffusion_mlp\"` can be trained by this release".into()));
        };
        if mlp_dims.is_empty() || state_len == 0 || prediction_horizon * action_dim == 0 {
            return Err(TrainError::Network("mlp_dims, state and chunk must not be empty".into()));
        }
        let table = ParameterTable::new(spec.parameters(state_len, prediction_horizon, action_dim));
        let time = TimeEmbedding::new(&table, *time_dim)?;
        let names: Vec<String> =
            (0..cond_mlp_dims.len()).map(|i| format!("cond_mlp.moduleList.{i}.linear_1")).collect();
        let encoder = match names.is_empty() {
            true => None,
            false => Some(PlainMlp::new(&table, &names, *activation)?),
        };
        let (first, trunk) = ResidualMlp::new(&table, "mlp_mean", mlp_dims, *activation)?;
        let condition_len = encoder.as_ref().map_or(state_len, PlainMlp::outputs);
        let chunk_len = prediction_horizon * action_dim;
        Ok(Self { table, time, encoder, first, trunk, chunk_len, state_len, condition_len })
    }

    /// Names and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// Tp · Da.
    pub fn chunk_len(&self) -> usize {
        self.chunk_len
    }

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Non-linearity of trunk and encoder.
    pub fn activation(&self) -> Activation {
        self.trunk.activation
    }

    fn input_len(&self) -> usize {
        self.chunk_len + self.condition_len
    }

    /// Computes what every row shares. `times`: the distinct steps; a row names its step by the index in this list.
    pub fn prepare(&self, parameters: &[f32], times: &[usize]) -> Prepared {
        let (width, dim) = (self.trunk.width, self.time.dim);
        let embedded = self.time.embed(parameters, times);
        let mut time_share = Vec::with_capacity(times.len() * width);
        for _ in times {
            time_share.extend_from_slice(&parameters[self.first.bias.clone()]);
        }
        multiply(
            &mut time_share,
            Into::Add,
            Matrix::new(embedded.values(), times.len(), dim),
            self.time_weight(parameters).t(),
        );
        let mut weight = Vec::with_capacity(width * self.input_len());
        for row in parameters[self.first.weight.clone()].chunks_exact(self.first.inputs) {
            weight.extend_from_slice(&row[..self.chunk_len]);
            weight.extend_from_slice(&row[self.chunk_len + dim..]);
        }
        Prepared { embedded, time_share, weight }
    }

    /// The time columns of the first layer's weight, `[width, time_dim]`.
    fn time_weight<'a>(&self, parameters: &'a [f32]) -> Matrix<'a> {
        let weight = &parameters[self.first.weight.clone()];
        Matrix::strided(&weight[self.chunk_len..], self.trunk.width, self.time.dim, self.first.inputs)
    }

    /// Buffers for up to `rows` rows.
    pub fn workspace(&self, rows: usize, mode: Mode) -> MlpWorkspace {
        let encoder = self.encoder.as_ref();
        let (inference, encodes) = (mode == Mode::Inference, encoder.is_some());
        MlpWorkspace {
            input: vec![0.0; rows * self.input_len()],
            states: vec![0.0; if encodes { rows * self.state_len } else { 0 }],
            slots: vec![0; rows],
            encoder: encoder.map(|e| e.workspace(rows, mode)),
            encoding_gradient: vec![0.0; if encodes && !inference { rows * self.condition_len } else { 0 }],
            state_share: vec![0.0; if inference { rows * self.trunk.width } else { 0 }],
            trunk: self.trunk.workspace(rows, mode),
        }
    }

    /// A gradient of zeros for `times` distinct steps.
    pub fn gradient(&self, times: usize) -> MlpGradient {
        MlpGradient {
            parameters: vec![0.0; self.table.len()],
            time_share: vec![0.0; times * self.trunk.width],
            weight: vec![0.0; self.trunk.width * self.input_len()],
        }
    }

    /// Puts row `i` of a block in place: the index of its time step, its noisy chunk and its state.
    pub fn set_row(&self, ws: &mut MlpWorkspace, i: usize, slot: u32, chunk: &[f32], state: &[f32]) {
        let input = &mut ws.input[i * self.input_len()..(i + 1) * self.input_len()];
        let (to_chunk, to_condition) = input.split_at_mut(self.chunk_len);
        to_chunk.copy_from_slice(chunk);
        match self.encoder {
            Some(_) => ws.states[i * self.state_len..(i + 1) * self.state_len].copy_from_slice(state),
            None => to_condition.copy_from_slice(state),
        }
        ws.slots[i] = slot;
    }

    /// The network's output for the first `rows` rows, `[rows, chunk_len]`.
    pub fn forward<'a>(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &'a mut MlpWorkspace,
        rows: usize,
    ) -> &'a [f32] {
        let width = self.trunk.width;
        if let (Some(encoder), Some(encoder_ws)) = (&self.encoder, &mut ws.encoder) {
            encoder.forward(parameters, encoder_ws, &ws.states, rows);
            let encodings = encoder_ws.output().chunks_exact(self.condition_len);
            for (input, encoding) in ws.input.chunks_exact_mut(self.input_len()).take(rows).zip(encodings) {
                input[self.chunk_len..].copy_from_slice(encoding);
            }
        }
        for (row, &slot) in ws.trunk.stream.chunks_exact_mut(width).zip(&ws.slots[..rows]) {
            row.copy_from_slice(&prepared.time_share[slot as usize * width..][..width]);
        }
        multiply(
            &mut ws.trunk.stream,
            Into::Add,
            Matrix::new(&ws.input, rows, self.input_len()),
            Matrix::new(&prepared.weight, width, self.input_len()).t(),
        );
        self.trunk.forward(parameters, &mut ws.trunk, rows);
        &ws.trunk.output[..rows * self.chunk_len]
    }

    /// Where ∂loss/∂output of a row belongs before [`DiffusionMlp::backward`], beside the output itself;
    /// both `[rows, chunk_len]`.
    pub fn output_and_gradient<'a>(&self, ws: &'a mut MlpWorkspace) -> (&'a [f32], &'a mut [f32]) {
        (&ws.trunk.output, &mut ws.trunk.output_gradient)
    }

    /// Adds the gradients of these rows to `gradient`; follows a forward pass of the same rows.
    pub fn backward(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &mut MlpWorkspace,
        rows: usize,
        gradient: &mut MlpGradient,
    ) {
        let width = self.trunk.width;
        self.trunk.backward(parameters, &mut ws.trunk, rows, &mut gradient.parameters);
        let dx = &ws.trunk.stream_gradient[..rows * width];
        scatter_add(&mut gradient.time_share, width, &ws.slots[..rows], dx);
        let dx = Matrix::new(dx, rows, width);
        multiply(&mut gradient.weight, Into::Add, dx.t(), Matrix::new(&ws.input, rows, self.input_len()));
        if let (Some(encoder), Some(encoder_ws)) = (&self.encoder, &mut ws.encoder) {
            let condition_weight =
                Matrix::strided(&prepared.weight[self.chunk_len..], width, self.condition_len, self.input_len());
            let n = rows * self.condition_len;
            multiply(&mut ws.encoding_gradient, Into::Overwrite, dx, condition_weight);
            encoder_ws.output_gradient()[..n].copy_from_slice(&ws.encoding_gradient[..n]);
            encoder.backward(parameters, encoder_ws, &ws.states, rows, &mut gradient.parameters);
        }
    }

    /// Completes a gradient after its last block: first-layer weights and the time embedding.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut Prepared, gradient: &mut MlpGradient) {
        let (width, dim) = (self.trunk.width, self.time.dim);
        let times = gradient.time_share.len() / width;
        let shares = Matrix::new(&gradient.time_share, times, width);
        // time_share = b₀ + W_time · emb(t)
        column_sum(&gradient.time_share, &mut gradient.parameters[self.first.bias.clone()]);
        let mut time_weight = vec![0.0; width * dim];
        let embedding = Matrix::new(prepared.embedded.values(), times, dim);
        multiply(&mut time_weight, Into::Overwrite, shares.t(), embedding);
        let mut d_embedding = vec![0.0; times * dim];
        multiply(&mut d_embedding, Into::Overwrite, shares, self.time_weight(parameters));
        let first = gradient.parameters[self.first.weight.clone()].chunks_exact_mut(self.first.inputs);
        let (dense, c) = (gradient.weight.chunks_exact(self.input_len()), self.chunk_len);
        for ((row, dense), time) in first.zip(dense).zip(time_weight.chunks_exact(dim)) {
            row[..c].copy_from_slice(&dense[..c]);
            row[c..c + dim].copy_from_slice(time);
            row[c + dim..].copy_from_slice(&dense[c..]);
        }
        self.time.backward(parameters, &mut prepared.embedded, &d_embedding, &mut gradient.parameters);
    }

    /// Computes the state's share of the first layer, once a chain. `states`: `[rows, state_len]`.
    pub fn condition(&self, parameters: &[f32], prepared: &Prepared, ws: &mut MlpWorkspace, states: &[f32]) {
        let (rows, width) = (states.len() / self.state_len, self.trunk.width);
        let condition = match (&self.encoder, &mut ws.encoder) {
            (Some(encoder), Some(encoder_ws)) => {
                encoder.forward(parameters, encoder_ws, states, rows);
                encoder_ws.output()
            }
            _ => states,
        };
        let weight = Matrix::strided(&prepared.weight[self.chunk_len..], width, self.condition_len, self.input_len());
        let condition = Matrix::new(condition, rows, self.condition_len);
        multiply(&mut ws.state_share, Into::Overwrite, condition, weight.t());
    }

    /// The network's output for `chunks: [rows, chunk_len]`, all at one step, after [`DiffusionMlp::condition`].
    pub fn forward_conditioned<'a>(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &'a mut MlpWorkspace,
        slot: usize,
        chunks: &[f32],
    ) -> &'a [f32] {
        let (rows, width) = (chunks.len() / self.chunk_len, self.trunk.width);
        let share = &prepared.time_share[slot * width..][..width];
        ws.trunk.stream[..rows * width].copy_from_slice(&ws.state_share[..rows * width]);
        for row in ws.trunk.stream[..rows * width].chunks_exact_mut(width) {
            add(row, share);
        }
        let weight = Matrix::strided(&prepared.weight, width, self.chunk_len, self.input_len());
        multiply(&mut ws.trunk.stream, Into::Add, Matrix::new(chunks, rows, self.chunk_len), weight.t());
        self.trunk.forward(parameters, &mut ws.trunk, rows);
        &ws.trunk.output[..rows * self.chunk_len]
    }
}

impl MlpGradient {
    /// Back to zero.
    pub fn clear(&mut self) {
        self.parameters.fill(0.0);
        self.time_share.fill(0.0);
        self.weight.fill(0.0);
    }

    /// Adds another shard's gradient, unfinished as this one.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.parameters, &other.parameters);
        add(&mut self.time_share, &other.time_share);
        add(&mut self.weight, &other.weight);
    }
}
