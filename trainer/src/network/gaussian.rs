//! Gaussian policies and mixtures: means, deviations and mixture logits from the state (spec dppo.md §4).
//!
//! Terms: M components (1 for a single Gaussian), each a diagonal Gaussian over the whole chunk of Tp · Da values.

use tenon_core::network::{GaussianSpec, StdSpec};
use tenon_core::noise::SeededNoise;

use super::plan::{Plan, PlanBuilder, PlanGradient, Prepared, Workspace};
use super::{CriticRow, Mode, ParameterTable};
use crate::device::Device;
use crate::error::TrainError;

/// Name of the learned log-variance that is the same for every state.
const LOG_VARIANCE: &str = "logvar";

/// A network of [`GaussianSpec`], ready to run and to be differentiated.
#[derive(Debug, Clone)]
pub struct GaussianNetwork {
    plan: Plan,
    deviation: Deviation,
    /// 0 for a single Gaussian.
    modes: usize,
    chunk_len: usize,
    action_dim: usize,
    state_len: usize,
    image_len: usize,
    image_px: usize,
}

/// Where the deviations come from. The plan's outputs: means, log-variances where there are any, logits of a mixture.
#[derive(Debug, Clone, Copy)]
enum Deviation {
    /// σ of every element.
    Constant { std: f32 },
    /// Log-variances `[M · Da]`, clamped to the bounds.
    Shared { start: f32, bounds: [f32; 2] },
    /// Log-variances `[M · Tp · Da]`, already bounded.
    PerState,
}

const MEAN: usize = 0;
const DEVIATION: usize = 1;

/// What a policy says about one state.
#[derive(Debug, Clone, Copy)]
pub struct GaussianRow<'a> {
    /// `[M, Tp · Da]`.
    pub mean: &'a [f32],
    /// ln σ, `[M, Tp · Da]`.
    pub log_std: &'a [f32],
    /// σ, `[M, Tp · Da]`.
    pub std: &'a [f32],
    /// `[M]`; empty for a single Gaussian.
    pub logits: &'a [f32],
}

impl GaussianRow<'_> {
    /// Tp · Da.
    pub fn chunk_len(&self) -> usize {
        self.mean.len() / self.logits.len().max(1)
    }
}

/// ∂loss by the values of a [`GaussianRow`], of the same shapes.
#[derive(Debug)]
pub struct GaussianRowGradient<'a> {
    pub mean: &'a mut [f32],
    pub log_std: &'a mut [f32],
    pub logits: &'a mut [f32],
}

impl GaussianRowGradient<'_> {
    /// Multiplies everything. By 0 it is 0, whatever it was.
    pub fn scale(&mut self, factor: f32) {
        for values in [&mut *self.mean, &mut *self.log_std, &mut *self.logits] {
            match factor == 0.0 {
                true => values.fill(0.0),
                false => values.iter_mut().for_each(|g| *g *= factor),
            }
        }
    }
}

/// What all rows share under one set of parameters.
#[derive(Debug, Clone)]
pub struct GaussianPrepared {
    plan: Prepared,
    /// Deviations that do not depend on the state, `[M, Tp · Da]`; empty otherwise.
    log_std: Vec<f32>,
    std: Vec<f32>,
    /// Of shared log-variances: whether the clamp lets a gradient through.
    inside: Vec<bool>,
}

/// Buffers for a block of rows.
#[derive(Debug, Clone)]
pub struct GaussianWorkspace {
    plan: Workspace,
    /// Deviations that depend on the state, `[rows, M, Tp · Da]`; empty otherwise.
    log_std: Vec<f32>,
    std: Vec<f32>,
    d_mean: Vec<f32>,
    /// Of all rows where deviations depend on the state, of one otherwise.
    d_log_std: Vec<f32>,
    d_logits: Vec<f32>,
}

impl GaussianNetwork {
    /// `state_len` = To · Do, `prediction_horizon` = Tp, `action_dim` = Da.
    pub fn new(
        spec: &GaussianSpec,
        state_len: usize,
        prediction_horizon: usize,
        action_dim: usize,
    ) -> Result<Self, TrainError> {
        spec.check(state_len, prediction_horizon, action_dim).map_err(TrainError::Network)?;
        let mut builder = PlanBuilder::default();
        let state = builder.state(state_len);
        let images = spec.vision().map(|v| [v.image_px * v.image_px, 3 * v.cameras]);
        let pictures = images.map(|[positions, channels]| builder.images(positions, channels));
        let outputs = spec.build(&mut builder, &state, pictures.as_ref(), [prediction_horizon, action_dim]);
        let nodes: Vec<_> = [Some(outputs.mean), outputs.log_variance, outputs.logits].into_iter().flatten().collect();
        let log_variance = |std: f64| (2.0 * std.ln()) as f32;
        let deviation = match spec.std {
            StdSpec::Fixed { std } => Deviation::Constant { std: std as f32 },
            StdSpec::Learned { std, min, max } => {
                Deviation::Shared { start: log_variance(std), bounds: [log_variance(min), log_variance(max)] }
            }
            StdSpec::PerState { .. } => Deviation::PerState,
        };
        Ok(Self {
            plan: builder.finish(&nodes),
            deviation,
            modes: spec.modes,
            chunk_len: prediction_horizon * action_dim,
            action_dim,
            state_len,
            image_len: images.map_or(0, |[positions, channels]| positions * channels),
            image_px: spec.vision().map_or(0, |v| v.image_px),
        })
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

    /// Components of a mixture; 0 for a single Gaussian.
    pub fn modes(&self) -> usize {
        self.modes
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

    /// Rows that are walked at a time.
    pub fn block_rows(&self) -> usize {
        self.plan.block_rows()
    }

    /// M · Tp · Da.
    fn row_len(&self) -> usize {
        self.modes.max(1) * self.chunk_len
    }

    /// Fresh parameters; a learned log-variance begins at ln σ² of the specification.
    pub fn initialise(&self, noise: &mut SeededNoise) -> Vec<f32> {
        let mut parameters = self.table().initialise(noise);
        if let (Deviation::Shared { start, .. }, Ok((range, _))) = (self.deviation, self.table().find(LOG_VARIANCE)) {
            parameters[range].fill(start);
        }
        parameters
    }

    /// Parameters from the named tensors of a pre-trained policy.
    ///
    /// A log-variance that pre-training held fixed begins at ln σ² of this specification, whose bounds hold in any case
    /// (the reference takes its bounds from the file: spec dppo.md §4).
    pub fn collect<'a>(
        &self,
        mut tensor: impl FnMut(&str) -> Option<(&'a [usize], &'a [f32])>,
    ) -> Result<Vec<f32>, TrainError> {
        let Deviation::Shared { start, .. } = self.deviation else { return self.table().collect(tensor) };
        let shape = [self.modes.max(1) * self.action_dim];
        let fresh = vec![start; shape[0]];
        let fresh = |name: &str| (name == LOG_VARIANCE).then_some((&shape[..], &fresh[..]));
        self.table().collect(|name| tensor(name).or_else(|| fresh(name)))
    }

    /// Computes what every row shares.
    pub fn prepare(&self, parameters: &[f32]) -> GaussianPrepared {
        let plan = self.plan.prepare(parameters, &[]);
        let n = self.row_len();
        let (log_std, std, inside) = match self.deviation {
            Deviation::Constant { std } => (vec![std.ln(); n], vec![std; n], vec![]),
            Deviation::PerState => (vec![], vec![], vec![]),
            Deviation::Shared { bounds: [lo, hi], .. } => {
                let stored = self.plan.shared_output(&plan, DEVIATION).expect("a learned value is a constant");
                let log_std: Vec<f32> = (0..n).map(|k| 0.5 * stored[self.shared_index(k)].clamp(lo, hi)).collect();
                let std = log_std.iter().map(|v| v.exp()).collect();
                (log_std, std, stored.iter().map(|v| (lo..=hi).contains(v)).collect())
            }
        };
        GaussianPrepared { plan, log_std, std, inside }
    }

    /// Element of `[M, Tp, Da]` → element of `[M, Da]`.
    fn shared_index(&self, k: usize) -> usize {
        k / self.chunk_len * self.action_dim + k % self.action_dim
    }

    /// Buffers for up to `rows` rows.
    pub fn workspace(&self, rows: usize, mode: Mode) -> GaussianWorkspace {
        let per_state = matches!(self.deviation, Deviation::PerState);
        let own = if per_state { rows * self.row_len() } else { 0 };
        let training = if mode == Mode::Training { 1 } else { 0 };
        GaussianWorkspace {
            plan: self.plan.workspace(rows, mode),
            log_std: vec![0.0; own],
            std: vec![0.0; own],
            d_mean: vec![0.0; training * rows * self.row_len()],
            d_log_std: vec![0.0; training * if per_state { own } else { self.row_len() }],
            d_logits: vec![0.0; training * rows * self.modes],
        }
    }

    /// A gradient of zeros.
    pub fn gradient(&self) -> PlanGradient {
        self.plan.gradient(0)
    }

    /// Runs a block of `rows` rows; `load(i)` is the i-th.
    pub fn forward<'r>(
        &self,
        parameters: &[f32],
        prepared: &GaussianPrepared,
        ws: &mut GaussianWorkspace,
        rows: usize,
        load: impl Fn(usize) -> CriticRow<'r>,
    ) {
        self.plan.set_states(&mut ws.plan, rows, |i, state| state.copy_from_slice(load(i).state));
        if self.image_len > 0 {
            for i in 0..rows {
                if let Some(images) = load(i).images {
                    self.plan.set_images(&mut ws.plan, i, |k| f32::from(images[k]));
                }
            }
        }
        self.plan.forward_states(parameters, &prepared.plan, &mut ws.plan);
        if matches!(self.deviation, Deviation::PerState) {
            let log_variances = self.plan.output(&ws.plan, DEVIATION);
            for ((v, log_std), std) in log_variances.iter().zip(&mut ws.log_std).zip(&mut ws.std) {
                *log_std = 0.5 * v;
                *std = log_std.exp();
            }
        }
    }

    /// What the policy says about row `i` of the block.
    pub fn row<'a>(&self, prepared: &'a GaussianPrepared, ws: &'a GaussianWorkspace, i: usize) -> GaussianRow<'a> {
        let n = self.row_len();
        let (log_std, std) = match self.deviation {
            Deviation::PerState => (&ws.log_std[i * n..(i + 1) * n], &ws.std[i * n..(i + 1) * n]),
            _ => (&prepared.log_std[..], &prepared.std[..]),
        };
        let logits = match self.modes {
            0 => &[],
            modes => &self.plan.output(&ws.plan, self.plan.outputs() - 1)[i * modes..(i + 1) * modes],
        };
        GaussianRow { mean: &self.plan.output(&ws.plan, MEAN)[i * n..(i + 1) * n], log_std, std, logits }
    }

    /// Adds the gradients of the block to `gradient`; follows a forward pass of the same rows.
    ///
    /// `differentiate(i, row, gradient)` puts ∂loss of row i of the block into all of `gradient`.
    pub fn backward(
        &self,
        parameters: &[f32],
        prepared: &GaussianPrepared,
        ws: &mut GaussianWorkspace,
        gradient: &mut PlanGradient,
        mut differentiate: impl FnMut(usize, GaussianRow, GaussianRowGradient),
    ) {
        let (rows, n, modes) = (ws.plan.states(), self.row_len(), self.modes);
        let per_state = matches!(self.deviation, Deviation::PerState);
        // Moved out, so that rows can be read while their gradients are written.
        let (mut d_mean, mut d_log_std, mut d_logits) =
            (std::mem::take(&mut ws.d_mean), std::mem::take(&mut ws.d_log_std), std::mem::take(&mut ws.d_logits));
        let mut shared = vec![0.0; prepared.inside.len()];
        for i in 0..rows {
            let at = if per_state { i * n } else { 0 };
            let log_std = &mut d_log_std[at..at + n];
            let row_gradient = GaussianRowGradient {
                mean: &mut d_mean[i * n..(i + 1) * n],
                log_std: &mut *log_std,
                logits: &mut d_logits[i * modes..(i + 1) * modes],
            };
            differentiate(i, self.row(prepared, ws, i), row_gradient);
            if !shared.is_empty() {
                log_std.iter().enumerate().for_each(|(k, d)| shared[self.shared_index(k)] += d);
            }
        }
        self.plan.output_and_gradient(&mut ws.plan, MEAN).1.copy_from_slice(&d_mean[..rows * n]);
        if modes > 0 {
            let logits = self.plan.outputs() - 1;
            self.plan.output_and_gradient(&mut ws.plan, logits).1.copy_from_slice(&d_logits[..rows * modes]);
        }
        // ln σ = ½ log-variance.
        if per_state {
            let d = self.plan.output_and_gradient(&mut ws.plan, DEVIATION).1;
            d.iter_mut().zip(&d_log_std).for_each(|(to, d)| *to = 0.5 * d);
        }
        if !shared.is_empty() {
            shared.iter_mut().zip(&prepared.inside).for_each(|(d, &inside)| *d *= if inside { 0.5 } else { 0.0 });
            self.plan.add_shared_output_gradient(gradient, DEVIATION, &shared);
        }
        (ws.d_mean, ws.d_log_std, ws.d_logits) = (d_mean, d_log_std, d_logits);
        self.plan.backward(parameters, &prepared.plan, &mut ws.plan, gradient);
    }

    /// Completes a gradient after its last block.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut GaussianPrepared, gradient: &mut PlanGradient) {
        self.plan.finish_gradient(parameters, &mut prepared.plan, gradient);
    }
}
