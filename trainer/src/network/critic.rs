//! State critic V(s): a residual MLP with one output (spec dppo.md §3.5).

use tenon_core::network::{Activation, critic_parameters};

use super::residual_mlp::{ResidualMlp, ResidualWorkspace};
use super::{Linear, Mode, ParameterTable};
use crate::elementwise::column_sum;
use crate::error::TrainError;
use crate::linalg::{Into, Matrix, multiply};

/// Sizes and offsets of V(s).
#[derive(Debug, Clone)]
pub struct StateCritic {
    table: ParameterTable,
    first: Linear,
    trunk: ResidualMlp,
}

/// Buffers for a block of states.
#[derive(Debug, Clone)]
pub struct CriticWorkspace {
    /// The states, `[rows, state_len]`: filled by the caller.
    pub states: Vec<f32>,
    trunk: ResidualWorkspace,
}

impl StateCritic {
    /// `state_len` = To · Do; `mlp_dims`: equal hidden widths, odd in number.
    pub fn new(state_len: usize, mlp_dims: &[usize], activation: Activation) -> Result<Self, TrainError> {
        if mlp_dims.is_empty() {
            return Err(TrainError::Network("critic: no hidden width given".into()));
        }
        let table = ParameterTable::new(critic_parameters(state_len, mlp_dims));
        let (first, trunk) = ResidualMlp::new(&table, "Q1", mlp_dims, activation)?;
        Ok(Self { table, first, trunk })
    }

    /// Names and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.first.inputs
    }

    /// Buffers for up to `rows` states.
    pub fn workspace(&self, rows: usize, mode: Mode) -> CriticWorkspace {
        CriticWorkspace { states: vec![0.0; rows * self.state_len()], trunk: self.trunk.workspace(rows, mode) }
    }

    /// V of the first `rows` states of the workspace.
    pub fn forward<'a>(&self, parameters: &[f32], ws: &'a mut CriticWorkspace, rows: usize) -> &'a [f32] {
        self.trunk.fill_stream(&mut ws.trunk, rows, &parameters[self.first.bias.clone()]);
        multiply(
            &mut ws.trunk.stream,
            Into::Add,
            Matrix::new(&ws.states, rows, self.state_len()),
            self.first.weight(parameters).t(),
        );
        self.trunk.forward(parameters, &mut ws.trunk, rows);
        &ws.trunk.output[..rows]
    }

    /// Adds to `gradient` what `value_gradient` (∂loss/∂V, one a row) gives; follows a forward pass of the same rows.
    pub fn backward(&self, parameters: &[f32], ws: &mut CriticWorkspace, value_gradient: &[f32], gradient: &mut [f32]) {
        let rows = value_gradient.len();
        ws.trunk.output_gradient[..rows].copy_from_slice(value_gradient);
        self.trunk.backward(parameters, &mut ws.trunk, rows, gradient);
        let dx = &ws.trunk.stream_gradient[..rows * self.trunk.width];
        multiply(
            &mut gradient[self.first.weight.clone()],
            Into::Add,
            Matrix::new(dx, rows, self.trunk.width).t(),
            Matrix::new(&ws.states, rows, self.state_len()),
        );
        column_sum(dx, &mut gradient[self.first.bias.clone()]);
    }
}
