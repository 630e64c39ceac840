//! Log-probabilities of the stored denoising transitions (spec dppo.md §1.8).

use tenon_core::diffusion::{DenoisingStep, StepNoise};
use tenon_core::spec::Denoising;

use super::Samples;
use super::eta::{EtaModule, EtaSteps, SampleEtas};

/// Bounds of an element's log-probability before the mean is taken.
const ELEMENT_MIN: f32 = -5.0;
const ELEMENT_MAX: f32 = 2.0;

/// What the loss asks of log-probabilities: log N(x_{j+1}; μ(x_j, ε̂), σ_j) for the K' fine-tuned steps j.
///
/// Transitions are `x → next`, all slices of one length; pass the first Ta · Da values of each for the executed part.
pub trait TransitionLikelihood: Sync {
    /// The network's time t of each step j: the list for `NoiseNetwork::prepare`.
    fn times(&self) -> Vec<usize>;

    /// η of each sample, where samples differ in it.
    fn etas(&self) -> Option<&SampleEtas> {
        None
    }

    /// A row's scalar: elements clamped to [−5, 2], then their mean.
    fn mean_of_elements(&self, sample: usize, j: usize, x: &[f32], next: &[f32], noise: &[f32]) -> f32;

    /// The mean over the first `horizon_len` clamped elements, and its gradient with respect to `noise` (as long as
    /// that; zero behind `horizon_len`) and to the sample's η (`d_eta`; empty where it has none of its own).
    fn mean_and_gradient(
        &self,
        sample: usize,
        j: usize,
        x: &[f32],
        next: &[f32],
        noise: &[f32],
        horizon_len: usize,
        gradient: &mut [f32],
        d_eta: &mut [f32],
    ) -> f32;
}

/// With the same σ_j for all samples.
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
        Self {
            steps: finetuned_steps(denoising, StepNoise::Exploration { min_std, eta }),
            denoised_clip: denoising.denoised_clip,
        }
    }

    /// K'.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Element-wise log-probabilities of the transition `x → next` at step `j`, not clamped. All of one length.
    pub fn elements(&self, j: usize, x: &[f32], next: &[f32], noise: &[f32], out: &mut [f32]) {
        let step = &self.steps[j];
        let (constant, inverse_std) = (constant(step.std), 1.0 / step.std);
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

    /// μ of one element and ∂μ/∂ε̂.
    fn mean(&self, step: &DenoisingStep, x: f32, noise: f32) -> (f32, f32) {
        let clip = self.denoised_clip;
        let x0 = step.x0_from_x * x - step.x0_from_noise * noise;
        let slope = if x0.abs() > clip { 0.0 } else { -step.mean_from_x0 * step.x0_from_noise };
        (step.mean_from_x0 * x0.clamp(-clip, clip) + step.mean_from_x * x, slope)
    }
}

impl TransitionLikelihood for Likelihood {
    fn times(&self) -> Vec<usize> {
        self.steps.iter().map(|s| s.t).collect()
    }

    fn mean_of_elements(&self, _: usize, j: usize, x: &[f32], next: &[f32], noise: &[f32]) -> f32 {
        let step = &self.steps[j];
        let (constant, inverse_std) = (constant(step.std), 1.0 / step.std);
        Self::mean_clamped(x.iter().zip(next).zip(noise).map(|((&x, &next), &noise)| {
            let z = (next - self.mean(step, x, noise).0) * inverse_std;
            -0.5 * z * z - constant
        }))
    }

    fn mean_and_gradient(
        &self,
        _: usize,
        j: usize,
        x: &[f32],
        next: &[f32],
        noise: &[f32],
        horizon_len: usize,
        gradient: &mut [f32],
        _: &mut [f32],
    ) -> f32 {
        let step = &self.steps[j];
        let constant = constant(step.std);
        let (share, inverse_std) = (1.0 / horizon_len as f32, 1.0 / step.std);
        gradient[horizon_len..].fill(0.0);
        let mut sum = 0.0;
        for i in 0..horizon_len {
            let (mean, slope) = self.mean(step, x[i], noise[i]);
            let z = (next[i] - mean) * inverse_std;
            let element = -0.5 * z * z - constant;
            sum += clamp(element);
            // ∂log p/∂μ = z/σ inside the clamp.
            gradient[i] = if inside(element) { share * z * inverse_std * slope } else { 0.0 };
        }
        if sum.is_nan() {
            // A NaN fails the test above and would hide in a zero gradient.
            gradient.fill(f32::NAN);
        }
        sum * share
    }
}

/// With an η, and so a μ and a σ_j, of each sample's own.
#[derive(Debug, Clone)]
pub struct EtaLikelihood {
    /// Position among the executed steps of each fine-tuned one, its time and how x̂_0 comes about.
    steps: Vec<(usize, DenoisingStep)>,
    eta_steps: EtaSteps,
    denoised_clip: f32,
    etas: SampleEtas,
}

/// One element of a row at its η.
struct EtaElement {
    /// Not clamped.
    value: f32,
    d_noise: f32,
    d_eta: f32,
}

impl EtaLikelihood {
    /// Of a policy that samples by DDIM; none of DDPM. `min_std` = σ^prob_min.
    pub fn new(denoising: &Denoising, min_std: f64, module: &EtaModule) -> Option<Self> {
        let eta_steps = EtaSteps::new(denoising, min_std)?;
        let steps = finetuned_steps(denoising, StepNoise::Bare { eta: 1.0 });
        let first = eta_steps.count() - steps.len();
        Some(Self {
            steps: steps.into_iter().enumerate().map(|(j, step)| (first + j, step)).collect(),
            eta_steps,
            denoised_clip: denoising.denoised_clip,
            etas: SampleEtas::new(module),
        })
    }

    /// Takes η of these samples (distinct) from the module; transitions of others must not be asked for.
    pub fn set_samples(&mut self, module: &EtaModule, samples: &Samples, distinct: impl Iterator<Item = u32>) {
        self.etas.set_samples(module, samples, distinct);
    }

    /// η of the samples that were set.
    pub fn sample_etas(&self) -> &SampleEtas {
        &self.etas
    }

    /// Calls `visit(i, η's index, element)` for each element of the transition.
    fn each(
        &self,
        sample: usize,
        j: usize,
        x: &[f32],
        next: &[f32],
        noise: &[f32],
        mut visit: impl FnMut(usize, usize, EtaElement),
    ) {
        let (position, step) = &self.steps[j];
        let clip = self.denoised_clip;
        for (k, &eta) in self.etas.of(sample).iter().enumerate() {
            let s = self.eta_steps.at(*position, eta);
            let (constant, inverse_std) = (constant(s.std), 1.0 / s.std);
            // An action's values stand Da apart, [Tp, Da].
            for i in (k..x.len()).step_by(self.etas.len()) {
                let x0 = step.x0_from_x * x[i] - step.x0_from_noise * noise[i];
                let slope = if x0.abs() > clip { 0.0 } else { -s.mean_from_x0 * step.x0_from_noise };
                let x0 = x0.clamp(-clip, clip);
                let z = (next[i] - (s.mean_from_x0 * x0 + s.mean_from_x * x[i])) * inverse_std;
                let d_mean = z * inverse_std;
                let element = EtaElement {
                    value: -0.5 * z * z - constant,
                    d_noise: d_mean * slope,
                    // ∂log p/∂σ = (z² − 1)/σ.
                    d_eta: d_mean * (s.d_mean_from_x0 * x0 + s.d_mean_from_x * x[i])
                        + (z * z - 1.0) * inverse_std * s.d_std,
                };
                visit(i, k, element);
            }
        }
    }
}

impl TransitionLikelihood for EtaLikelihood {
    fn times(&self) -> Vec<usize> {
        self.steps.iter().map(|(_, step)| step.t).collect()
    }

    fn etas(&self) -> Option<&SampleEtas> {
        Some(&self.etas)
    }

    fn mean_of_elements(&self, sample: usize, j: usize, x: &[f32], next: &[f32], noise: &[f32]) -> f32 {
        let mut sum = 0.0;
        self.each(sample, j, x, next, noise, |_, _, element| sum += clamp(element.value));
        sum * (1.0 / x.len() as f32)
    }

    fn mean_and_gradient(
        &self,
        sample: usize,
        j: usize,
        x: &[f32],
        next: &[f32],
        noise: &[f32],
        horizon_len: usize,
        gradient: &mut [f32],
        d_eta: &mut [f32],
    ) -> f32 {
        let (share, h) = (1.0 / horizon_len as f32, horizon_len);
        gradient.fill(0.0);
        d_eta.fill(0.0);
        let mut sum = 0.0;
        self.each(sample, j, &x[..h], &next[..h], &noise[..h], |i, k, element| {
            sum += clamp(element.value);
            if inside(element.value) {
                gradient[i] = share * element.d_noise;
                d_eta[k] += share * element.d_eta;
            }
        });
        if sum.is_nan() {
            // A NaN fails the test above and would hide in a zero gradient.
            gradient.fill(f32::NAN);
            d_eta.fill(f32::NAN);
        }
        sum * share
    }
}

/// The last K' of the executed steps.
fn finetuned_steps(denoising: &Denoising, noise: StepNoise) -> Vec<DenoisingStep> {
    denoising.steps(noise).into_iter().filter(|s| s.finetuned).collect()
}

/// ln σ + ½ ln 2π.
fn constant(std: f32) -> f32 {
    std.ln() + 0.5 * std::f32::consts::TAU.ln()
}

fn clamp(element: f32) -> f32 {
    element.clamp(ELEMENT_MIN, ELEMENT_MAX)
}

fn inside(element: f32) -> bool {
    (ELEMENT_MIN..=ELEMENT_MAX).contains(&element)
}
