//! Log-probabilities of the stored denoising transitions (spec dppo.md §1.8).

use tenon_core::diffusion::{DenoisingStep, StepNoise};
use tenon_core::spec::Denoising;

/// Bounds of an element's log-probability before the mean is taken.
const ELEMENT_MIN: f32 = -5.0;
const ELEMENT_MAX: f32 = 2.0;

/// log N(x_{j+1}; μ(x_j, ε̂), σ_j) for the K' fine-tuned steps j.
///
/// μ comes from the same coefficients as sampling; σ is floored for likelihoods and does not depend on the network, so
/// the gradient flows through ε̂ → x̂_0 (zero where x̂_0 is clamped) → μ.
#[derive(Debug, Clone)]
pub struct Likelihood {
    steps: Vec<DenoisingStep>,
    denoised_clip: f32,
}

impl Likelihood {
    /// `min_std` = σ^prob_min; `eta` = η of DDIM while training.
    pub fn new(denoising: &Denoising, min_std: f64, eta: f64) -> Self {
        let steps = denoising.steps(StepNoise::Exploration { min_std, eta });
        Self { steps: steps.into_iter().filter(|s| s.finetuned).collect(), denoised_clip: denoising.denoised_clip }
    }

    /// K'.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The network's time t of each step j: the list for `NoiseNetwork::prepare`.
    pub fn times(&self) -> Vec<usize> {
        self.steps.iter().map(|s| s.t).collect()
    }

    /// Element-wise log-probabilities of the transition `x → next` at step `j`, not clamped. All of one length.
    pub fn elements(&self, j: usize, x: &[f32], next: &[f32], noise: &[f32], out: &mut [f32]) {
        let step = &self.steps[j];
        let (constant, inverse_std) = (constant(step), 1.0 / step.std);
        for (((out, &x), &next), &noise) in out.iter_mut().zip(x).zip(next).zip(noise) {
            let (mean, _) = self.mean(step, x, noise);
            let z = (next - mean) * inverse_std;
            *out = -0.5 * z * z - constant;
        }
    }

    /// A row's scalar from its elements: clamped to [−5, 2], then their mean.
    pub fn mean_clamped(elements: impl ExactSizeIterator<Item = f32>) -> f32 {
        let n = elements.len() as f32;
        elements.map(clamp).sum::<f32>() * (1.0 / n)
    }

    /// The same from the transition, over the whole length given: pass the first Ta · Da values of each.
    pub fn mean_of_elements(&self, j: usize, x: &[f32], next: &[f32], noise: &[f32]) -> f32 {
        let step = &self.steps[j];
        let (constant, inverse_std) = (constant(step), 1.0 / step.std);
        Self::mean_clamped(x.iter().zip(next).zip(noise).map(|((&x, &next), &noise)| {
            let z = (next - self.mean(step, x, noise).0) * inverse_std;
            -0.5 * z * z - constant
        }))
    }

    /// The mean over the first `horizon_len` clamped elements, and its gradient with respect to `noise`.
    ///
    /// `gradient`: as long as `noise`; zero behind `horizon_len`.
    pub fn mean_and_gradient(
        &self,
        j: usize,
        x: &[f32],
        next: &[f32],
        noise: &[f32],
        horizon_len: usize,
        gradient: &mut [f32],
    ) -> f32 {
        let step = &self.steps[j];
        let constant = constant(step);
        let (share, inverse_std) = (1.0 / horizon_len as f32, 1.0 / step.std);
        gradient[horizon_len..].fill(0.0);
        let mut sum = 0.0;
        for i in 0..horizon_len {
            let (mean, slope) = self.mean(step, x[i], noise[i]);
            let z = (next[i] - mean) * inverse_std;
            let element = -0.5 * z * z - constant;
            sum += clamp(element);
            // ∂log p/∂μ = z/σ inside the clamp.
            let inside = (ELEMENT_MIN..=ELEMENT_MAX).contains(&element);
            gradient[i] = if inside { share * z * inverse_std * slope } else { 0.0 };
        }
        if sum.is_nan() {
            // A NaN fails the test above and would hide in a zero gradient.
            gradient.fill(f32::NAN);
        }
        sum * share
    }

    /// μ of one element and ∂μ/∂ε̂.
    fn mean(&self, step: &DenoisingStep, x: f32, noise: f32) -> (f32, f32) {
        let clip = self.denoised_clip;
        let x0 = step.x0_from_x * x - step.x0_from_noise * noise;
        let slope = if x0.abs() > clip { 0.0 } else { -step.mean_from_x0 * step.x0_from_noise };
        (step.mean_from_x0 * x0.clamp(-clip, clip) + step.mean_from_x * x, slope)
    }
}

/// ln σ + ½ ln 2π.
fn constant(step: &DenoisingStep) -> f32 {
    step.std.ln() + 0.5 * std::f32::consts::TAU.ln()
}

fn clamp(element: f32) -> f32 {
    element.clamp(ELEMENT_MIN, ELEMENT_MAX)
}
