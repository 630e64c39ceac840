//! AdamW, gradient-norm clipping, moving average and learning-rate schedule, on flat slices.

mod schedule;

pub use schedule::LrSchedule;

use crate::elementwise::{AdamStep, adamw, moving_average, square_sum};
use crate::error::TrainError;
use crate::network::ParameterTable;

/// AdamW with β = (0.9, 0.999), ε = 1e-8 and decoupled weight decay (Loshchilov & Hutter 2019), as in PyTorch.
#[derive(Debug, Clone)]
pub struct AdamW {
    pub weight_decay: f64,
    /// First moments, in the layout of the parameters.
    pub first_moment: Vec<f32>,
    /// Second moments.
    pub second_moment: Vec<f32>,
    /// Steps done.
    pub steps: u64,
}

impl AdamW {
    /// For `len` parameters.
    pub fn new(len: usize, weight_decay: f64) -> Self {
        Self { weight_decay, first_moment: vec![0.0; len], second_moment: vec![0.0; len], steps: 0 }
    }

    /// Takes over another optimiser's state, of as many parameters, without allocating.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { weight_decay, first_moment, second_moment, steps } = other;
        self.weight_decay = *weight_decay;
        self.first_moment.clone_from(first_moment);
        self.second_moment.clone_from(second_moment);
        self.steps = *steps;
    }

    /// Says which parameter's moment is not finite. A second moment that is infinite would stop its parameter for ever.
    pub fn check_finite(&self, what: &'static str, table: &ParameterTable) -> Result<(), TrainError> {
        check_finite_values(what, &self.first_moment, table)?;
        check_finite_values(what, &self.second_moment, table)
    }

    /// One step at `learning_rate`. Returns the gradient's L2 norm before clipping to `max_norm`.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f64, max_norm: Option<f64>) -> f64 {
        const BETA1: f64 = 0.9;
        const BETA2: f64 = 0.999;
        let norm = gradient_norm(gradient);
        self.steps += 1;
        let t = self.steps.min(i32::MAX as u64) as i32;
        let step = AdamStep {
            beta1: BETA1 as f32,
            beta2: BETA2 as f32,
            epsilon: 1e-8,
            keep: (1.0 - learning_rate * self.weight_decay) as f32,
            step_size: (learning_rate / (1.0 - BETA1.powi(t))) as f32,
            second_scale: (1.0 / (1.0 - BETA2.powi(t)).sqrt()) as f32,
            // torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), at most 1.
            gradient_scale: max_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0)) as f32,
        };
        adamw(parameters, gradient, &mut self.first_moment, &mut self.second_moment, step);
        norm
    }
}

/// L2 norm of a gradient; not finite where any of its values is not.
pub fn gradient_norm(gradient: &[f32]) -> f64 {
    square_sum(gradient).sqrt()
}

/// The gradient's norm, or which parameter's gradient is not finite, or so large that its square, which the optimiser
/// keeps, is not.
pub fn finite_norm(what: &'static str, gradient: &[f32], table: &ParameterTable) -> Result<f64, TrainError> {
    let norm = gradient_norm(gradient);
    if ((norm * norm) as f32).is_finite() {
        return Ok(norm);
    }
    let place = match gradient.iter().position(|g| !(g * g).is_finite()) {
        Some(i) => format!("parameter `{}`", table.name_at(i)),
        None => "its norm".into(),
    };
    Err(TrainError::Numerical { what, place })
}

/// Says which parameter's value in `values`, laid out like `table`, is not finite.
pub fn check_finite_values(what: &'static str, values: &[f32], table: &ParameterTable) -> Result<(), TrainError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(TrainError::Numerical { what, place: format!("parameter `{}`", table.name_at(i)) }),
        None => Ok(()),
    }
}

/// Exponential moving average of weights: `average ← decay · average + (1 − decay) · weights`.
pub fn update_ema(average: &mut [f32], weights: &[f32], decay: f64) {
    moving_average(average, weights, decay as f32);
}
