//! Cosine noise schedule, DDPM and DDIM steps, and the sampling loop over [`Denoiser`] (spec dppo.md §1).
//!
//! A DDPM and a DDIM step have one shape. Both predict x̂_0 from the noisy chunk and the predicted noise, clamp it, and
//! move to a mean that is linear in x̂_0 and x:
//!
//! ```text
//! x̂_0 = clamp(x0_from_x · x − x0_from_noise · ε̂, ±denoised_clip)
//! x'  = mean_from_x0 · x̂_0 + mean_from_x · x + std · clamp(z, ±noise_clip)
//! ```
//!
//! For DDIM the "re-derived" noise ε̂' = (x − √a x̂_0)/√(1−a) is itself linear in x and x̂_0 and is folded into the two
//! mean coefficients. The schedule is formed in f64; networks and chunks are f32.

use crate::noise::NoiseSource;

/// β, α, ᾱ and the derived arrays of the cosine schedule (s = 0.008), indexed by t = 0..K−1, t = 0 the cleanest.
#[derive(Debug, Clone)]
pub struct NoiseSchedule {
    pub betas: Vec<f64>,
    pub alphas: Vec<f64>,
    pub alphas_cumprod: Vec<f64>,
    /// ᾱ_{t−1}, with ᾱ_{−1} = 1.
    pub alphas_cumprod_prev: Vec<f64>,
    /// Posterior variance β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t).
    pub posterior_variance: Vec<f64>,
    /// ln(max(posterior variance, 1e-20)).
    pub log_variance_clipped: Vec<f64>,
    /// Weight of x̂_0 in the posterior mean (c1).
    pub mean_from_x0: Vec<f64>,
    /// Weight of x_t in the posterior mean (c2).
    pub mean_from_x: Vec<f64>,
}

/// Arrays of a DDIM sub-schedule in *sampling order*: index 0 is the first step executed (the largest t).
#[derive(Debug, Clone)]
pub struct DdimSchedule {
    /// The time step that the network receives.
    pub t: Vec<usize>,
    pub alphas: Vec<f64>,
    pub alphas_prev: Vec<f64>,
}

/// The standard deviation of each step (table of spec dppo.md §1.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepNoise {
    /// Deployment and evaluation. DDPM: 0 at t = 0, else max(σ_t, 1e-3). DDIM: 0 with η = 0.
    Evaluation,
    /// Rollouts of fine-tuning. max(σ, `min_std`) at *every* step, t = 0 included; DDIM with the given η.
    Exploration { min_std: f64, eta: f64 },
    /// σ itself with no floor (DDPM), or η = `eta` (DDIM): for tests and log-likelihood tables that floor later.
    Bare { eta: f64 },
}

/// Coefficients of one executed denoising step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenoisingStep {
    /// What the network's time embedding receives.
    pub t: usize,
    /// Whether the fine-tuned network makes this step (else the frozen one).
    pub finetuned: bool,
    pub x0_from_x: f32,
    pub x0_from_noise: f32,
    pub mean_from_x0: f32,
    pub mean_from_x: f32,
    pub std: f32,
}

impl NoiseSchedule {
    /// The cosine schedule of Nichol & Dhariwal with K = `denoising_steps` (spec dppo.md §1.1).
    pub fn cosine(denoising_steps: usize) -> Self {
        let k = denoising_steps;
        let f = |i: usize| {
            let s = 0.008;
            (((i as f64 / k as f64) + s) / (1.0 + s) * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        let raw: Vec<f64> = (0..=k).map(|i| f(i) / f(0)).collect();
        let betas: Vec<f64> = (0..k).map(|t| (1.0 - raw[t + 1] / raw[t]).clamp(0.0, 0.999)).collect();
        let alphas: Vec<f64> = betas.iter().map(|b| 1.0 - b).collect();
        let mut alphas_cumprod = Vec::with_capacity(k);
        let mut product = 1.0;
        for a in &alphas {
            product *= a;
            alphas_cumprod.push(product);
        }
        let alphas_cumprod_prev: Vec<f64> =
            std::iter::once(1.0).chain(alphas_cumprod.iter().copied()).take(k).collect();
        let posterior_variance: Vec<f64> =
            (0..k).map(|t| betas[t] * (1.0 - alphas_cumprod_prev[t]) / (1.0 - alphas_cumprod[t])).collect();
        let log_variance_clipped = posterior_variance.iter().map(|v| v.max(1e-20).ln()).collect();
        let mean_from_x0 =
            (0..k).map(|t| betas[t] * alphas_cumprod_prev[t].sqrt() / (1.0 - alphas_cumprod[t])).collect();
        let mean_from_x =
            (0..k).map(|t| (1.0 - alphas_cumprod_prev[t]) * alphas[t].sqrt() / (1.0 - alphas_cumprod[t])).collect();
        Self {
            betas,
            alphas,
            alphas_cumprod,
            alphas_cumprod_prev,
            posterior_variance,
            log_variance_clipped,
            mean_from_x0,
            mean_from_x,
        }
    }

    /// K.
    pub fn denoising_steps(&self) -> usize {
        self.betas.len()
    }

    /// √ᾱ_t and √(1 − ᾱ_t): the forward process x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε.
    pub fn forward_coefficients(&self, t: usize) -> (f32, f32) {
        let a = self.alphas_cumprod[t];
        (a.sqrt() as f32, (1.0 - a).sqrt() as f32)
    }

    /// All K DDPM steps, noisiest first (spec dppo.md §1.2).
    pub fn ddpm_steps(&self, noise: StepNoise) -> Vec<DenoisingStep> {
        (0..self.denoising_steps())
            .rev()
            .map(|t| {
                let a = self.alphas_cumprod[t];
                let sigma = (0.5 * self.log_variance_clipped[t]).exp();
                let std = match noise {
                    StepNoise::Evaluation if t == 0 => 0.0,
                    StepNoise::Evaluation => sigma.max(1e-3),
                    StepNoise::Exploration { min_std, .. } => sigma.max(min_std),
                    StepNoise::Bare { .. } => sigma,
                };
                DenoisingStep {
                    t,
                    finetuned: false,
                    x0_from_x: (1.0 / a).sqrt() as f32,
                    x0_from_noise: (1.0 / a - 1.0).sqrt() as f32,
                    mean_from_x0: self.mean_from_x0[t] as f32,
                    mean_from_x: self.mean_from_x[t] as f32,
                    std: std as f32,
                }
            })
            .collect()
    }

    /// The "leading" uniform sub-schedule of `steps` of the K steps (spec dppo.md §1.5).
    ///
    /// Panics if `steps` is 0 or exceeds K: [`crate::spec::PolicySpec::check`] refuses such a policy first.
    pub fn ddim(&self, steps: usize) -> DdimSchedule {
        assert!(steps >= 1 && steps <= self.denoising_steps(), "{steps} DDIM steps of {}", self.denoising_steps());
        let ratio = self.denoising_steps() / steps;
        let t: Vec<usize> = (0..steps).rev().map(|j| j * ratio).collect();
        let alphas = t.iter().map(|&t| self.alphas_cumprod[t]).collect();
        let alphas_prev =
            (0..steps).rev().map(|j| if j == 0 { 1.0 } else { self.alphas_cumprod[(j - 1) * ratio] }).collect();
        DdimSchedule { t, alphas, alphas_prev }
    }

    /// The DDIM steps in execution order.
    pub fn ddim_steps(&self, steps: usize, noise: StepNoise) -> Vec<DenoisingStep> {
        let ddim = self.ddim(steps);
        let eta = match noise {
            StepNoise::Evaluation => 0.0,
            StepNoise::Exploration { eta, .. } | StepNoise::Bare { eta } => eta,
        };
        (0..steps)
            .map(|i| {
                let mut step = ddim.step(i, eta);
                match noise {
                    StepNoise::Evaluation => step.std = 0.0,
                    StepNoise::Exploration { min_std, .. } => step.std = ddim.sigma(i, eta).max(min_std) as f32,
                    StepNoise::Bare { .. } => {}
                }
                step
            })
            .collect()
    }
}

impl DdimSchedule {
    /// σ_i = max(η √((1−a_prev)/(1−a) · (1 − a/a_prev)), 1e-10).
    pub fn sigma(&self, i: usize, eta: f64) -> f64 {
        let (a, a_prev) = (self.alphas[i], self.alphas_prev[i]);
        (eta * ((1.0 - a_prev) / (1.0 - a) * (1.0 - a / a_prev)).max(0.0).sqrt()).max(1e-10)
    }

    /// √max(0, 1 − a_prev − σ²): the weight of the noise direction.
    pub fn direction(&self, i: usize, eta: f64) -> f64 {
        (1.0 - self.alphas_prev[i] - self.sigma(i, eta).powi(2)).max(0.0).sqrt()
    }

    /// Step i with η = `eta`, its standard deviation σ without a floor.
    pub fn step(&self, i: usize, eta: f64) -> DenoisingStep {
        let (a, a_prev) = (self.alphas[i], self.alphas_prev[i]);
        let direction = self.direction(i, eta);
        DenoisingStep {
            t: self.t[i],
            finetuned: false,
            x0_from_x: (1.0 / a).sqrt() as f32,
            x0_from_noise: ((1.0 - a) / a).sqrt() as f32,
            mean_from_x0: (a_prev.sqrt() - direction * (a / (1.0 - a)).sqrt()) as f32,
            mean_from_x: (direction / (1.0 - a).sqrt()) as f32,
            std: self.sigma(i, eta) as f32,
        }
    }
}

impl DenoisingStep {
    /// Mean of the next state, in place.
    ///
    /// `x`: noisy chunk, normalised, any length. `noise`: predicted ε̂, same length.
    pub fn mean(&self, x: &mut [f32], noise: &[f32], denoised_clip: f32) {
        debug_assert_eq!(x.len(), noise.len());
        for (x, &e) in x.iter_mut().zip(noise) {
            let x0 = (self.x0_from_x * *x - self.x0_from_noise * e).clamp(-denoised_clip, denoised_clip);
            *x = self.mean_from_x0 * x0 + self.mean_from_x * *x;
        }
    }

    /// As [`mean`](Self::mean), with x̂_0 drawn toward what is given.
    fn guided_mean(&self, x: &mut [f32], noise: &[f32], denoised_clip: f32, guide: &Guide) {
        let width = x.len() / guide.weights.len().max(1);
        for (i, (x, &e)) in x.iter_mut().zip(noise).enumerate() {
            let x0 = (self.x0_from_x * *x - self.x0_from_noise * e).clamp(-denoised_clip, denoised_clip);
            let x0 = x0 + guide.weights[i / width] * (guide.chunk[i] - x0);
            *x = self.mean_from_x0 * x0 + self.mean_from_x * *x;
        }
    }
}

/// Part of a chunk that is given beforehand: what the arm will have executed of the chunk before, and what it had planned.
///
/// In every step of the chain the predicted clean chunk is drawn toward it by the mask's weight, and the noise is re-derived from
/// the result, so the network makes the rest of the chunk fit (inpainting with a soft mask: Janner et al. 2022 §3.3; the mask of
/// Black, Galliker, Levine 2025, "Real-time execution of action chunking flow policies", Eq. 5).
#[derive(Debug, Clone, Copy)]
pub struct Guide<'a> {
    /// `[prediction_horizon, action_dim]`, normalised; what has no weight is not looked at, but must be finite.
    pub chunk: &'a [f32],
    /// One for each step of the chunk, 0 to 1.
    pub weights: &'a [f32],
}

/// Writes the mask of a chunk of which the first `frozen` steps will have been executed when it is there, and the first `overlap`
/// were planned before: 1 for the frozen ones, falling to 0 over the rest of the overlap.
pub fn guide_mask(frozen: usize, overlap: usize, weights: &mut [f32]) {
    let fading = (overlap.saturating_sub(frozen) + 1) as f32;
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = if i < frozen {
            1.0
        } else if i < overlap {
            let c = (overlap - i) as f32 / fading;
            c * (c.exp() - 1.0) / (std::f32::consts::E - 1.0)
        } else {
            0.0
        };
    }
}

/// A noise-predicting network (or the pair of frozen and fine-tuned networks) for one observation at a time.
pub trait Denoiser {
    type Error;

    /// Computes once a chunk whatever depends neither on the noisy chunk nor on the step.
    ///
    /// `state`: normalised observations, row-major `[observation_horizon, observation_dim]`, newest last.
    fn condition(&mut self, state: &[f32]) -> Result<(), Self::Error>;

    /// Predicts the noise ε̂ in `x` at the step's time.
    ///
    /// `x`, `noise`: row-major `[prediction_horizon, action_dim]`, normalised.
    fn predict_noise(&mut self, step: &DenoisingStep, x: &[f32], noise: &mut [f32]) -> Result<(), Self::Error>;
}

/// Clamps of the sampling loop; see [`crate::spec::Denoising`].
#[derive(Debug, Clone, Copy)]
pub struct Clips {
    pub denoised: f32,
    pub noise: f32,
    pub final_action: Option<f32>,
}

/// Buffers of [`sample`], allocated once.
#[derive(Debug, Clone)]
pub struct SampleScratch {
    noise: Vec<f32>,
    draw: Vec<f32>,
}

impl SampleScratch {
    /// For chunks of `chunk_len` = Tp · Da values.
    pub fn new(chunk_len: usize) -> Self {
        Self { noise: vec![0.0; chunk_len], draw: vec![0.0; chunk_len] }
    }
}

/// Samples one chunk: draws x_K ~ N(0, I) into `x` and walks `steps` down to x_0. [`Denoiser::condition`] comes first.
///
/// `x`: receives the chunk, row-major `[prediction_horizon, action_dim]`, normalised. Steps whose `std` is 0 draw no
/// noise. Nothing is allocated here.
pub fn sample<D: Denoiser + ?Sized>(
    denoiser: &mut D,
    steps: &[DenoisingStep],
    clips: Clips,
    source: &mut dyn NoiseSource,
    scratch: &mut SampleScratch,
    x: &mut [f32],
) -> Result<(), D::Error> {
    source.fill_standard_normal(x);
    walk(denoiser, steps, clips, source, scratch, None, x)
}

/// As [`sample`], with a part of the chunk given.
pub fn sample_guided<D: Denoiser + ?Sized>(
    denoiser: &mut D,
    steps: &[DenoisingStep],
    clips: Clips,
    source: &mut dyn NoiseSource,
    scratch: &mut SampleScratch,
    guide: &Guide,
    x: &mut [f32],
) -> Result<(), D::Error> {
    source.fill_standard_normal(x);
    walk(denoiser, steps, clips, source, scratch, Some(guide), x)
}

/// As [`sample`], from an initial noise that the caller put into `x`.
pub fn denoise<D: Denoiser + ?Sized>(
    denoiser: &mut D,
    steps: &[DenoisingStep],
    clips: Clips,
    source: &mut dyn NoiseSource,
    scratch: &mut SampleScratch,
    x: &mut [f32],
) -> Result<(), D::Error> {
    walk(denoiser, steps, clips, source, scratch, None, x)
}

fn walk<D: Denoiser + ?Sized>(
    denoiser: &mut D,
    steps: &[DenoisingStep],
    clips: Clips,
    source: &mut dyn NoiseSource,
    scratch: &mut SampleScratch,
    guide: Option<&Guide>,
    x: &mut [f32],
) -> Result<(), D::Error> {
    for step in steps {
        denoiser.predict_noise(step, x, &mut scratch.noise)?;
        match guide {
            Some(guide) => step.guided_mean(x, &scratch.noise, clips.denoised, guide),
            None => step.mean(x, &scratch.noise, clips.denoised),
        }
        if step.std > 0.0 {
            source.fill_standard_normal(&mut scratch.draw);
            for (x, z) in x.iter_mut().zip(&scratch.draw) {
                *x += step.std * z.clamp(-clips.noise, clips.noise);
            }
        }
    }
    if let Some(clip) = clips.final_action {
        for x in x {
            *x = x.clamp(-clip, clip);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of spec dppo.md §1.9 (six significant digits there).
    #[test]
    fn schedule_matches_the_published_table() {
        let s = NoiseSchedule::cosine(20);
        for (t, beta, alpha_bar, sigma, c1, c2) in [
            (1, 0.020075, 0.972093, 0.0758257, 0.716466, 0.283514),
            (10, 0.156997, 0.416312, 0.368976, 0.189019, 0.796193),
            (19, 0.999, 6.05957e-06, 0.99647, 0.0777663, 0.0314311),
        ] {
            for (ours, table) in [
                (s.betas[t], beta),
                (s.alphas_cumprod[t], alpha_bar),
                (s.posterior_variance[t].sqrt(), sigma),
                (s.mean_from_x0[t], c1),
                (s.mean_from_x[t], c2),
            ] {
                assert!((ours - table).abs() <= 2e-5 * table, "t = {t}: {ours} is not {table}");
            }
        }
    }

    #[test]
    fn ddim_steps_are_80_60_40_20_0() {
        let s = NoiseSchedule::cosine(100).ddim(5);
        assert_eq!(s.t, [80, 60, 40, 20, 0]);
        assert!((s.sigma(0, 1.0) - 0.737755).abs() < 1e-6);
        assert!((s.direction(2, 1.0) - 0.154298).abs() < 1e-6);
        assert_eq!(s.direction(4, 1.0), 0.0);
    }

    #[test]
    fn evaluation_draws_no_noise_at_the_last_step_and_exploration_does() {
        let s = NoiseSchedule::cosine(20);
        assert_eq!(s.ddpm_steps(StepNoise::Evaluation).last().map(|s| s.std), Some(0.0));
        let explore = StepNoise::Exploration { min_std: 0.1, eta: 1.0 };
        assert!(s.ddpm_steps(explore).iter().all(|s| s.std >= 0.1));
        assert!(s.ddim_steps(5, StepNoise::Evaluation).iter().all(|s| s.std == 0.0));
    }

    /// A denoiser whose clean chunk is a constant: what is frozen comes out as given, what is free as the network says.
    struct Constant(f32);

    impl Denoiser for Constant {
        type Error = std::convert::Infallible;

        fn condition(&mut self, _: &[f32]) -> Result<(), Self::Error> {
            Ok(())
        }

        fn predict_noise(&mut self, step: &DenoisingStep, x: &[f32], noise: &mut [f32]) -> Result<(), Self::Error> {
            for (e, x) in noise.iter_mut().zip(x) {
                *e = (step.x0_from_x * x - self.0) / step.x0_from_noise;
            }
            Ok(())
        }
    }

    #[test]
    fn a_guided_chunk_begins_as_given_and_ends_as_the_network_says() {
        let mut weights = [0.0; 6];
        guide_mask(2, 4, &mut weights);
        assert_eq!((weights[0], weights[1], weights[4], weights[5]), (1.0, 1.0, 0.0, 0.0));
        assert!(weights[2] < 0.7 && weights[2] > weights[3] && weights[3] > 0.05, "{weights:?}");
        let given = [-0.5; 12];
        let schedule = NoiseSchedule::cosine(20);
        for steps in [schedule.ddpm_steps(StepNoise::Evaluation), schedule.ddim_steps(5, StepNoise::Evaluation)] {
            let mut x = [0.0; 12];
            let clips = Clips { denoised: 1.0, noise: 3.0, final_action: None };
            let guide = Guide { chunk: &given, weights: &weights };
            let mut noise = crate::noise::SeededNoise::new(1, 0);
            let mut scratch = SampleScratch::new(12);
            let Ok(()) = sample_guided(&mut Constant(0.5), &steps, clips, &mut noise, &mut scratch, &guide, &mut x);
            for (i, x) in x.iter().enumerate() {
                let wanted = 0.5 - weights[i / 2];
                assert!((x - wanted).abs() < 1e-4, "{i}: {x} {wanted}");
            }
        }
    }
}
