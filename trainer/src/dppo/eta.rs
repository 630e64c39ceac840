//! η of DDIM that differs from state to state, or from action to action, and may be learned (spec dppo.md §1.6).
//!
//! η sets σ(η) of each step, and with it the step's mean and standard deviation. A single constant η needs nothing of
//! this: it never trains, and its steps are those of `tenon_core::diffusion`.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tenon_core::diffusion::{DdimSchedule, NoiseSchedule};
use tenon_core::network::EtaSpec;
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::spec::{Denoising, Sampler};

use super::Samples;
use crate::actor_critic::{WeightedSamples, at_least_one, not_negative};
use crate::elementwise::add;
use crate::error::TrainError;
use crate::network::plan::{Plan, PlanBuilder};
use crate::network::{Mode, ParameterTable, Workspace};
use crate::optimizer::LrSchedule;

/// tanh is ±1 to the last bit of f32 from here on: stands for the ∞ of a base at an end of its range.
pub(crate) const LARGEST_LOGIT: f32 = 20.0;
/// Gain of the Xavier-normal weights that a state's η begins with.
const GAIN: f64 = 1e-2;
/// Widest hidden layer: a damaged description must not fill the memory.
const WIDEST: usize = 1 << 16;

/// η while training; DDPM takes no notice of it, evaluation has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtaSettings {
    pub module: EtaSpec,
    /// Absent: η stays as it begins. A single constant (neither `per_action` nor `mlp_dims`) stays in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<EtaLearning>,
}

/// How η is learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtaLearning {
    /// Stepped with the actor's.
    pub lr: LrSchedule,
    #[serde(default)]
    pub weight_decay: f64,
    /// η moves with every so many minibatches of an epoch (`eta_update_interval`), beginning with the first.
    #[serde(default = "one")]
    pub update_interval: usize,
}

fn one() -> usize {
    1
}

impl Default for EtaSettings {
    /// The fixed η = 1 of all settings of the paper.
    fn default() -> Self {
        let module = EtaSpec { base: 1.0, min: 0.1, max: 1.0, per_action: false, mlp_dims: None };
        Self { module, learning: None }
    }
}

impl EtaSettings {
    /// The one η of all states and actions, where there is no more to it.
    pub fn constant(&self) -> Option<f64> {
        let EtaSpec { base, per_action, mlp_dims, .. } = &self.module;
        (!per_action && mlp_dims.is_none()).then_some(*base)
    }

    /// Refuses values that no run can use.
    pub fn check(&self) -> Result<(), TrainError> {
        let EtaSpec { base, min, max, mlp_dims, .. } = &self.module;
        if !(0.0 <= *min && min <= base && base <= max && max.is_finite()) {
            let detail = format!("base {base} must lie between min {min} and max {max}, none of them negative");
            return Err(TrainError::Config { key: "eta.module", detail });
        }
        if mlp_dims.as_ref().is_some_and(|dims| dims.is_empty() || dims.iter().any(|&w| w == 0 || w > WIDEST)) {
            let detail = format!("{mlp_dims:?}: give widths of 1 to {WIDEST}");
            return Err(TrainError::Config { key: "eta.module.mlp_dims", detail });
        }
        let Some(learning) = &self.learning else { return Ok(()) };
        learning.lr.check("eta.learning.lr")?;
        not_negative(&[("eta.learning.weight_decay", learning.weight_decay)])?;
        at_least_one(&[("eta.learning.update_interval", learning.update_interval)])
    }
}

/// η of each state: the module and its weights.
#[derive(Debug, Clone)]
pub struct EtaModule {
    plan: Plan,
    len: usize,
    /// In the layout of [`EtaModule::table`].
    pub parameters: Vec<f32>,
}

impl EtaModule {
    /// A module that begins at its base. `state_len` = To · Do, `action_dim` = Da.
    pub fn new(spec: &EtaSpec, state_len: usize, action_dim: usize, noise: &mut SeededNoise) -> Self {
        let mut builder = PlanBuilder::default();
        let state = builder.state(state_len);
        let eta = spec.build(&mut builder, &state, action_dim);
        let plan = builder.finish(&[eta]);
        let mut parameters = vec![0.0; plan.table().len()];
        for (name, shape, range) in plan.table().iter() {
            match (name, shape) {
                // w = atanh(2 (base − min)/(max − min) − 1)
                ("eta_logit", _) => {
                    let place = 2.0 * (spec.base - spec.min) / (spec.max - spec.min) - 1.0;
                    let logit = if place.is_nan() { LARGEST_LOGIT } else { place.atanh() as f32 };
                    parameters[range].fill(logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT));
                }
                (_, [outputs, inputs]) => {
                    let std = (GAIN * (2.0 / (inputs + outputs) as f64).sqrt()) as f32;
                    noise.fill_standard_normal(&mut parameters[range.clone()]);
                    parameters[range].iter_mut().for_each(|w| *w *= std);
                }
                // Biases begin at zero.
                _ => {}
            }
        }
        Self { len: plan.output_len(0), plan, parameters }
    }

    /// Names and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        self.plan.table()
    }

    /// Values of η for a state: 1, or Da.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A module gives at least one η.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// η of `count` states, `[count, len]`.
    pub fn values<'a>(&self, count: usize, state: impl Fn(usize) -> &'a [f32]) -> Vec<f32> {
        let prepared = self.plan.prepare(&self.parameters, &[]);
        if let Some(shared) = self.plan.shared_output(&prepared, 0) {
            return shared.repeat(count);
        }
        let mut values = Vec::with_capacity(count * self.len);
        self.blocks(count, Mode::Inference, state, |ws| {
            self.plan.forward_states(&self.parameters, &prepared, ws);
            values.extend_from_slice(self.plan.output(ws, 0));
        });
        values
    }

    /// The gradient of a loss with respect to the parameters, from `d` = ∂loss/∂η of `count` states, `[count, len]`.
    pub fn gradient<'a>(&self, count: usize, state: impl Fn(usize) -> &'a [f32], d: &[f32]) -> Vec<f32> {
        let mut prepared = self.plan.prepare(&self.parameters, &[]);
        let mut gradient = self.plan.gradient(0);
        if self.plan.shared_output(&prepared, 0).is_some() {
            d.chunks_exact(self.len).for_each(|d| self.plan.add_shared_output_gradient(&mut gradient, 0, d));
        } else {
            let mut rest = d;
            self.blocks(count, Mode::Training, state, |ws| {
                self.plan.forward_states(&self.parameters, &prepared, ws);
                let (_, to) = self.plan.output_and_gradient(ws, 0);
                let (from, behind) = rest.split_at(to.len());
                to.copy_from_slice(from);
                rest = behind;
                self.plan.backward(&self.parameters, &prepared, ws, &mut gradient);
            });
        }
        self.plan.finish_gradient(&self.parameters, &mut prepared, &mut gradient);
        gradient.parameters
    }

    fn blocks<'a>(
        &self,
        count: usize,
        mode: Mode,
        state: impl Fn(usize) -> &'a [f32],
        mut work: impl FnMut(&mut Workspace),
    ) {
        let block = self.plan.block_rows().min(count.max(1));
        let mut ws = self.plan.workspace(block, mode);
        for start in (0..count).step_by(block) {
            let n = block.min(count - start);
            self.plan.set_states(&mut ws, n, |i, to| to.copy_from_slice(state(start + i)));
            work(&mut ws);
        }
    }
}

/// The executed steps of DDIM as functions of η.
#[derive(Debug, Clone)]
pub struct EtaSteps {
    ddim: DdimSchedule,
    min_std: f64,
}

/// A step at some η, and how it changes with it.
///
/// With μ = mean_from_x0 · x̂_0 + mean_from_x · x: ∂μ/∂η = d_mean_from_x0 · x̂_0 + d_mean_from_x · x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EtaStep {
    pub mean_from_x0: f32,
    pub mean_from_x: f32,
    /// max(σ(η), floor).
    pub std: f32,
    pub d_mean_from_x0: f32,
    pub d_mean_from_x: f32,
    pub d_std: f32,
}

impl EtaSteps {
    /// Of a policy that samples by DDIM; none of DDPM, which has no η. `min_std`: floor of the standard deviation.
    pub fn new(denoising: &Denoising, min_std: f64) -> Option<Self> {
        let Sampler::Ddim { steps } = denoising.sampler else { return None };
        Some(Self { ddim: NoiseSchedule::cosine(denoising.denoising_steps).ddim(steps), min_std })
    }

    /// Step `i` in order of execution.
    pub fn at(&self, i: usize, eta: f32) -> EtaStep {
        let (ddim, eta) = (&self.ddim, f64::from(eta));
        let (a, a_prev) = (ddim.alphas[i], ddim.alphas_prev[i]);
        let (step, sigma, direction) = (ddim.step(i, eta), ddim.sigma(i, eta), ddim.direction(i, eta));
        // σ = η σ₁ above its own floor.
        let unit = ((1.0 - a_prev) / (1.0 - a) * (1.0 - a / a_prev)).max(0.0).sqrt();
        let d_sigma = if eta * unit > 1e-10 { unit } else { 0.0 };
        // d √(1 − a_prev − σ²) = −σ dσ / √…; flat where the root is of nothing.
        let d_direction = if direction > 0.0 { -sigma * d_sigma / direction } else { 0.0 };
        EtaStep {
            mean_from_x0: step.mean_from_x0,
            mean_from_x: step.mean_from_x,
            std: sigma.max(self.min_std) as f32,
            d_mean_from_x0: (-d_direction * (a / (1.0 - a)).sqrt()) as f32,
            d_mean_from_x: (d_direction / (1.0 - a).sqrt()) as f32,
            d_std: if sigma > self.min_std { d_sigma as f32 } else { 0.0 },
        }
    }

    /// Steps executed.
    pub fn count(&self) -> usize {
        self.ddim.t.len()
    }
}

/// η of the samples of some minibatches. A sample's *slot* is its place among them.
#[derive(Debug, Clone)]
pub struct SampleEtas {
    len: usize,
    /// `[slots, len]`.
    values: Vec<f32>,
    samples: Vec<u32>,
    slot_of_sample: Vec<u32>,
}

impl SampleEtas {
    /// Of no sample yet.
    pub fn new(module: &EtaModule) -> Self {
        Self { len: module.len(), values: Vec::new(), samples: Vec::new(), slot_of_sample: Vec::new() }
    }

    /// Values of η of a sample.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Takes η of these samples (distinct) under the module's present weights.
    pub fn set_samples(&mut self, module: &EtaModule, samples: &Samples, distinct: impl Iterator<Item = u32>) {
        self.samples.clear();
        self.samples.extend(distinct);
        self.slot_of_sample.resize(samples.observations.states.len() / samples.state_len, 0);
        for (slot, &sample) in self.samples.iter().enumerate() {
            self.slot_of_sample[sample as usize] = slot as u32;
        }
        self.values = module.values(self.samples.len(), |slot| samples.state(self.samples[slot] as usize));
    }

    /// η of a sample.
    pub fn of(&self, sample: usize) -> &[f32] {
        &self.values[self.place(sample)]
    }

    fn place(&self, sample: usize) -> Range<usize> {
        let slot = self.slot_of_sample[sample] as usize;
        slot * self.len..(slot + 1) * self.len
    }

    /// Mean η of a minibatch's rows.
    pub fn mean(&self, minibatch: &WeightedSamples) -> f64 {
        let of = |sample: u32| self.of(sample as usize).iter().map(|&eta| f64::from(eta)).sum::<f64>();
        let sum: f64 = minibatch.iter().map(|&(sample, weight)| weight * of(sample)).sum();
        sum / (total(minibatch) * self.len as f64)
    }

    /// A gradient of zeros, `[slots, len]`.
    pub fn zeros(&self) -> Vec<f32> {
        vec![0.0; self.values.len()]
    }

    /// Adds rows' gradients `[rows, len]` to those of their `samples`, and takes as many of these.
    pub fn add_rows(&self, rows: &[f32], samples: &mut impl Iterator<Item = usize>, gradient: &mut [f32]) {
        for (d, sample) in rows.chunks_exact(self.len).zip(samples) {
            add(&mut gradient[self.place(sample)], d);
        }
    }

    /// Adds the gradient of −ent_coef · mean η of a minibatch's rows.
    pub fn add_entropy_gradient(&self, ent_coef: f64, minibatch: &WeightedSamples, gradient: &mut [f32]) {
        let m = total(minibatch) * self.len as f64;
        for &(sample, weight) in minibatch {
            let share = (-ent_coef * weight / m) as f32;
            gradient[self.place(sample as usize)].iter_mut().for_each(|d| *d += share);
        }
    }

    /// From the gradient by η to that by the module's parameters.
    pub fn parameter_gradient(&self, module: &EtaModule, samples: &Samples, gradient: &[f32]) -> Vec<f32> {
        module.gradient(self.samples.len(), |slot| samples.state(self.samples[slot] as usize), gradient)
    }
}

fn total(minibatch: &WeightedSamples) -> f64 {
    minibatch.iter().map(|(_, weight)| weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(per_action: bool, mlp_dims: Option<Vec<usize>>) -> EtaSpec {
        EtaSpec { base: 0.6, min: 0.1, max: 1.0, per_action, mlp_dims }
    }

    #[test]
    fn every_module_begins_at_its_base() {
        let states = [0.3f32, -0.9, 0.8, 0.1];
        let state = |i: usize| &states[2 * i..2 * i + 2];
        for (spec, len) in [(spec(true, None), 3), (spec(false, Some(vec![16, 8])), 1), (spec(true, Some(vec![16])), 3)]
        {
            let values = EtaModule::new(&spec, 2, 3, &mut SeededNoise::new(1, 0)).values(2, state);
            assert_eq!(values.len(), 2 * len);
            assert!(values.iter().all(|eta| (eta - 0.6).abs() < 1e-3), "{spec:?}: {values:?}");
        }
    }

    #[test]
    fn a_base_at_the_end_of_its_range_is_no_nan() {
        for (min, base, max) in [(0.1, 1.0, 1.0), (0.1, 0.1, 1.0), (0.5, 0.5, 0.5)] {
            let spec = EtaSpec { base, min, max, per_action: true, mlp_dims: None };
            let module = EtaModule::new(&spec, 1, 2, &mut SeededNoise::new(1, 0));
            assert!(module.parameters.iter().all(|w| w.is_finite()));
            assert!(module.values(1, |_| &[0.0]).iter().all(|eta| (eta - base as f32).abs() < 1e-7));
            assert_eq!(module.gradient(1, |_| &[0.0], &[1.0, -2.0]), [0.0; 2]);
        }
    }

    #[test]
    fn steps_change_with_eta_as_their_derivatives_say() {
        let denoising = Denoising {
            denoising_steps: 100,
            finetuned_steps: 5,
            sampler: Sampler::Ddim { steps: 5 },
            denoised_clip: 1.0,
            noise_clip: 3.0,
            final_action_clip: None,
            prediction: Default::default(),
            step_counts: Vec::new(),
        };
        let steps = EtaSteps::new(&denoising, 0.1).expect("it is DDIM");
        for i in 0..steps.count() {
            for eta in [0.3f32, 0.7, 1.0] {
                let (here, h) = (steps.at(i, eta), 1e-3);
                let (low, high) = (steps.at(i, eta - h), steps.at(i, eta + h));
                for (d, low, high) in [
                    (here.d_mean_from_x0, low.mean_from_x0, high.mean_from_x0),
                    (here.d_mean_from_x, low.mean_from_x, high.mean_from_x),
                    (here.d_std, low.std, high.std),
                ] {
                    let slope = (high - low) / (2.0 * h);
                    assert!((d - slope).abs() <= 0.02 * slope.abs() + 2e-3, "step {i}, η = {eta}: {d}, not {slope}");
                }
            }
        }
    }
}
