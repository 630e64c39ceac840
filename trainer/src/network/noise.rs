//! Denoising networks of any architecture: predicted noise of a chunk from the noisy chunk, its step and the state.

use tenon_core::network::{NetworkSpec, NoiseInputs};

use super::plan::{BlockSize, Plan, PlanBuilder, PlanGradient, Prepared, Workspace};
use super::{Mode, ParameterTable};
use crate::device::Device;
use crate::error::TrainError;
use crate::workers::{Workers, inference_shards};

/// A network of [`NetworkSpec`], ready to run and to be differentiated.
#[derive(Debug, Clone)]
pub struct NoiseNetwork {
    plan: Plan,
    chunk_len: usize,
    action_dim: usize,
    state_len: usize,
    image_len: usize,
    image_px: usize,
}

/// What some rows see of the world.
#[derive(Debug, Clone, Copy)]
pub struct Observations<'a> {
    /// Normalised, `[rows, state_len]`.
    pub states: &'a [f32],
    /// `[rows, 3 · cameras, px, px]`, of networks that see pictures.
    pub images: Option<&'a [u8]>,
}

impl<'a> From<&'a [f32]> for Observations<'a> {
    fn from(states: &'a [f32]) -> Self {
        Self { states, images: None }
    }
}

impl<'a> From<&'a Vec<f32>> for Observations<'a> {
    fn from(states: &'a Vec<f32>) -> Self {
        Self { states, images: None }
    }
}

impl<'a> Observations<'a> {
    /// The state of row `i` of rows of `len` values.
    pub fn state(&self, i: usize, len: usize) -> &'a [f32] {
        &self.states[i * len..(i + 1) * len]
    }

    /// The pictures of row `i` of rows of `len` values.
    pub fn image(&self, i: usize, len: usize) -> Option<&'a [u8]> {
        self.images.map(|images| &images[i * len..(i + 1) * len])
    }

    /// The first `rows` rows, and the others.
    pub fn split_at(self, rows: usize, state_len: usize, image_len: usize) -> (Self, Self) {
        let (s, s_rest) = self.states.split_at(rows * state_len);
        let images = self.images.map(|images| images.split_at(rows * image_len));
        let (i, i_rest) = images.unzip();
        (Self { states: s, images: i }, Self { states: s_rest, images: i_rest })
    }
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct NoiseRow<'a> {
    /// Index of the row's step in the list given to [`NoiseNetwork::prepare`].
    pub slot: u32,
    /// Noisy chunk, `[chunk_len]`.
    pub chunk: &'a [f32],
    /// Normalised state, `[state_len]`. Neighbouring rows that share the slice share what is computed of it.
    pub state: &'a [f32],
    /// Pictures `[3 · cameras, px, px]`, of networks that see them.
    pub images: Option<&'a [u8]>,
}

impl NoiseRow<'_> {
    /// Whether both see the same, as one slice.
    pub fn shares_state(&self, other: &NoiseRow) -> bool {
        std::ptr::eq(self.state, other.state)
    }
}

impl NoiseNetwork {
    /// `state_len` = To · Do, `prediction_horizon` = Tp, `action_dim` = Da.
    pub fn new(
        spec: &NetworkSpec,
        state_len: usize,
        prediction_horizon: usize,
        action_dim: usize,
    ) -> Result<Self, TrainError> {
        Self::build(PlanBuilder::default(), spec, state_len, prediction_horizon, action_dim)
    }

    /// The same with gradients of the inputs too.
    pub fn with_input_gradients(
        spec: &NetworkSpec,
        state_len: usize,
        prediction_horizon: usize,
        action_dim: usize,
    ) -> Result<Self, TrainError> {
        Self::build(PlanBuilder::with_input_gradients(), spec, state_len, prediction_horizon, action_dim)
    }

    fn build(
        mut builder: PlanBuilder,
        spec: &NetworkSpec,
        state_len: usize,
        prediction_horizon: usize,
        action_dim: usize,
    ) -> Result<Self, TrainError> {
        spec.check(state_len, prediction_horizon, action_dim).map_err(TrainError::Network)?;
        let images = spec.vision().map(|v| [v.image_px * v.image_px, 3 * v.cameras]);
        let inputs = NoiseInputs {
            chunk: builder.chunk(prediction_horizon, action_dim),
            sinusoid: builder.sinusoid(spec.time_dim()),
            state: builder.state(state_len),
            images: images.map(|[positions, channels]| builder.images(positions, channels)),
        };
        let noise = spec.build(&mut builder, &inputs);
        Ok(Self {
            plan: builder.finish(&[noise]),
            chunk_len: prediction_horizon * action_dim,
            action_dim,
            state_len,
            image_len: images.map_or(0, |[positions, channels]| positions * channels),
            image_px: spec.vision().map_or(0, |v| v.image_px),
        })
    }

    /// The network's plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The same network, computed on a device; on the processor for none.
    pub fn on(self, device: Option<&Device>) -> Self {
        Self { plan: self.plan.on(device), ..self }
    }

    /// Whether it is computed elsewhere than on the processor.
    pub fn is_on_device(&self) -> bool {
        self.plan.is_on_device()
    }

    /// Names and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        self.plan.table()
    }

    /// Whether layers work on several positions (U-Nets, transformers), and not on plain vectors only.
    pub fn has_positions(&self) -> bool {
        self.plan.has_positions()
    }

    /// How many shards the rows of a sampling call are cut into.
    pub fn inference_shards(&self, workers: &Workers, rows: usize) -> usize {
        if self.is_on_device() { 1 } else { inference_shards(workers, rows, self.has_positions()) }
    }

    /// Tp · Da.
    pub fn chunk_len(&self) -> usize {
        self.chunk_len
    }

    /// Da.
    pub fn action_dim(&self) -> usize {
        self.action_dim
    }

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Values of a state's pictures; 0 for networks that see none.
    pub fn image_len(&self) -> usize {
        self.image_len
    }

    /// Width and height of a picture; 0 for networks that see none.
    pub fn image_px(&self) -> usize {
        self.image_px
    }

    /// Computes what every row shares. `times`: the distinct steps; a row names its step by the index in this list.
    pub fn prepare(&self, parameters: &[f32], times: &[usize]) -> Prepared {
        self.plan.prepare(parameters, times)
    }

    /// The most rows and distinct observations that are walked at a time.
    pub fn block_size(&self) -> BlockSize {
        self.plan.block_size()
    }

    /// Buffers for a block of up to so many rows and states.
    pub fn workspace_for(&self, block: BlockSize, mode: Mode) -> Workspace {
        self.plan.workspace_for(block, mode)
    }

    /// Buffers for up to `rows` rows.
    pub fn workspace(&self, rows: usize, mode: Mode) -> Workspace {
        self.plan.workspace(rows, mode)
    }

    /// A gradient of zeros for `times` distinct steps.
    pub fn gradient(&self, times: usize) -> PlanGradient {
        self.plan.gradient(times)
    }

    /// The network's output for a block of rows, `[rows, chunk_len]`.
    pub fn forward<'a>(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &'a mut Workspace,
        rows: &[NoiseRow],
    ) -> &'a [f32] {
        let mut states: Vec<&NoiseRow> = Vec::with_capacity(rows.len());
        let mut state_of_row = Vec::with_capacity(rows.len());
        for row in rows {
            if !states.last().is_some_and(|last| last.shares_state(row)) {
                states.push(row);
            }
            state_of_row.push(states.len() as u32 - 1);
        }
        self.plan.set_states(ws, states.len(), |i, state| state.copy_from_slice(states[i].state));
        for (i, row) in states.iter().enumerate() {
            if let Some(images) = row.images {
                self.plan.set_images(ws, i, |k| f32::from(images[k]));
            }
        }
        let block = rows.iter().zip(&state_of_row).map(|(row, &state)| (state, row.slot, row.chunk));
        self.plan.set_rows(ws, block);
        self.plan.forward_states(parameters, prepared, ws);
        self.plan.forward_rows(parameters, prepared, ws);
        self.plan.output(ws, 0)
    }

    /// Where ∂loss/∂output of a row belongs before [`NoiseNetwork::backward`], beside the output itself;
    /// both `[rows, chunk_len]`.
    pub fn output_and_gradient<'a>(&self, ws: &'a mut Workspace) -> (&'a [f32], &'a mut [f32]) {
        self.plan.output_and_gradient(ws, 0)
    }

    /// Adds the gradients of the block to `gradient`; follows a forward pass of the same rows.
    pub fn backward(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, gradient: &mut PlanGradient) {
        self.plan.backward(parameters, prepared, ws, gradient);
    }

    /// Completes a gradient after its last block.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut Prepared, gradient: &mut PlanGradient) {
        self.plan.finish_gradient(parameters, prepared, gradient);
    }

    /// Computes what depends on the observations alone, once a chain.
    pub fn condition(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, observations: Observations) {
        let rows = observations.states.len() / self.state_len;
        self.plan.set_states(ws, rows, |i, to| to.copy_from_slice(observations.state(i, self.state_len)));
        for i in 0..rows {
            if let Some(image) = observations.image(i, self.image_len) {
                self.plan.set_images(ws, i, |k| f32::from(image[k]));
            }
        }
        self.plan.forward_states(parameters, prepared, ws);
    }

    /// The network's output for `chunks: [rows, chunk_len]`, all at one step, after [`NoiseNetwork::condition`].
    pub fn forward_conditioned<'a>(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &'a mut Workspace,
        slot: usize,
        chunks: &[f32],
    ) -> &'a [f32] {
        let rows = chunks.chunks_exact(self.chunk_len).enumerate();
        self.plan.set_rows(ws, rows.map(|(i, chunk)| (i as u32, slot as u32, chunk)));
        self.plan.forward_rows(parameters, prepared, ws);
        self.plan.output(ws, 0)
    }
}
