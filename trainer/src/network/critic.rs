//! Value networks V(s) (spec dppo.md §3.5).

use tenon_core::network::CriticSpec;

use super::plan::{Plan, PlanBuilder, PlanGradient, Prepared, Workspace};
use super::{Mode, ParameterTable};
use crate::device::Device;
use crate::error::TrainError;

/// V(s), ready to run and to be differentiated.
#[derive(Debug, Clone)]
pub struct Critic {
    plan: Plan,
    state_len: usize,
    image_len: usize,
}

/// What a critic sees of one state.
#[derive(Debug, Clone, Copy)]
pub struct CriticRow<'a> {
    /// Normalised state, `[state_len]`.
    pub state: &'a [f32],
    /// Pictures `[3 · cameras, px, px]`, of critics that see them.
    pub images: Option<&'a [u8]>,
}

impl Critic {
    /// `state_len` = To · Do.
    pub fn new(spec: &CriticSpec, state_len: usize) -> Result<Self, TrainError> {
        spec.check().map_err(TrainError::Network)?;
        let mut builder = PlanBuilder::default();
        let state = builder.state(state_len);
        let images = spec.vision.as_ref().map(|v| [v.image_px * v.image_px, 3 * v.cameras]);
        let pictures = images.map(|[positions, channels]| builder.images(positions, channels));
        let value = spec.build(&mut builder, &state, pictures.as_ref());
        let image_len = images.map_or(0, |[positions, channels]| positions * channels);
        Ok(Self { plan: builder.finish(&[value]), state_len, image_len })
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

    /// To · Do.
    pub fn state_len(&self) -> usize {
        self.state_len
    }

    /// Values of a state's pictures; 0 for critics that see none.
    pub fn image_len(&self) -> usize {
        self.image_len
    }

    /// Computes what every state shares.
    pub fn prepare(&self, parameters: &[f32]) -> Prepared {
        self.plan.prepare(parameters, &[])
    }

    /// Buffers for up to `rows` states.
    pub fn workspace(&self, rows: usize, mode: Mode) -> Workspace {
        self.plan.workspace(rows, mode)
    }

    /// A gradient of zeros.
    pub fn gradient(&self) -> PlanGradient {
        self.plan.gradient(0)
    }

    /// States that are walked at a time.
    pub fn block_rows(&self) -> usize {
        self.plan.block_rows()
    }

    /// V of `rows` states.
    pub fn forward<'a, 'r>(
        &self,
        parameters: &[f32],
        prepared: &Prepared,
        ws: &'a mut Workspace,
        rows: usize,
        load: impl Fn(usize) -> CriticRow<'r>,
    ) -> &'a [f32] {
        self.plan.set_states(ws, rows, |i, state| state.copy_from_slice(load(i).state));
        if self.image_len > 0 {
            for i in 0..rows {
                if let Some(images) = load(i).images {
                    self.plan.set_images(ws, i, |k| f32::from(images[k]));
                }
            }
        }
        self.plan.forward_states(parameters, prepared, ws);
        self.plan.output(ws, 0)
    }

    /// Values of the block and where ∂loss/∂V belongs before [`Critic::backward`].
    pub fn output_and_gradient<'a>(&self, ws: &'a mut Workspace) -> (&'a [f32], &'a mut [f32]) {
        self.plan.output_and_gradient(ws, 0)
    }

    /// Adds the gradients of the block to `gradient`; follows a forward pass of the same states.
    pub fn backward(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, gradient: &mut PlanGradient) {
        self.plan.backward(parameters, prepared, ws, gradient);
    }

    /// Completes a gradient after its last block.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut Prepared, gradient: &mut PlanGradient) {
        self.plan.finish_gradient(parameters, prepared, gradient);
    }
}
