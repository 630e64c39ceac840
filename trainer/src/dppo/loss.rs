//! The actor's loss on one minibatch and its gradient, in the order of spec dppo.md §2.5e.

use super::{Likelihood, LossConfig, Policy, shape_advantages};
use crate::actor_critic::{ValueTargets, WeightedSamples};
use crate::network::{NoiseBatch, NoiseNetwork, NoiseRow, Observations};
use crate::surrogate::PolicyTerm;
use crate::workers::Workers;

/// What the updates of one iteration draw their rows from. Per-sample arrays have one value a sample.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    pub observations: Observations<'a>,
    /// `[samples, K'+1, chunk_len]`.
    pub chains: &'a [f32],
    pub advantages: &'a [f32],
    pub returns: &'a [f32],
    pub old_values: &'a [f32],
    /// Log-probability of each row before the first update: clamped, mean over the executed chunk. `[samples, K']`.
    pub old_log_probs: &'a [f32],
    /// K'.
    pub steps: usize,
    pub state_len: usize,
    /// 0 for networks that see no pictures.
    pub image_len: usize,
    pub chunk_len: usize,
}

impl<'a> Samples<'a> {
    /// Sample and denoising step j of a row.
    pub fn of_row(&self, row: u32) -> (usize, usize) {
        (row as usize / self.steps, row as usize % self.steps)
    }

    /// State of a sample.
    pub fn state(&self, sample: usize) -> &'a [f32] {
        self.observations.state(sample, self.state_len)
    }

    /// Pictures of a sample.
    pub fn images(&self, sample: usize) -> Option<&'a [u8]> {
        self.observations.image(sample, self.image_len)
    }

    /// chain[j] and chain[j+1] of a row.
    pub fn transition(&self, row: u32) -> (&'a [f32], &'a [f32]) {
        let (sample, j) = self.of_row(row);
        let start = (sample * (self.steps + 1) + j) * self.chunk_len;
        self.chains[start..start + 2 * self.chunk_len].split_at(self.chunk_len)
    }

    /// What the critic aims at.
    pub fn value_targets(&self) -> ValueTargets<'a> {
        let Self { observations, returns, old_values, state_len, image_len, .. } = *self;
        ValueTargets { observations, returns, old_values, state_len, image_len }
    }

    /// The distinct samples of sorted `rows`, weighted by their rows: V depends on the state only.
    pub fn distinct(&self, rows: &[u32]) -> WeightedSamples {
        debug_assert!(rows.is_sorted());
        rows.chunk_by(|a, b| self.of_row(*a).0 == self.of_row(*b).0)
            .map(|run| (self.of_row(run[0]).0 as u32, run.len() as f64))
            .collect()
    }

    fn noise_row(&self, row: u32) -> NoiseRow<'a> {
        let (sample, j) = self.of_row(row);
        NoiseRow {
            slot: j as u32,
            chunk: self.transition(row).0,
            state: self.state(sample),
            images: self.images(sample),
        }
    }
}

/// Terms of the actor's loss.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActorTerms {
    pub policy_loss: f64,
    /// mean((ρ − 1) − ln ρ).
    pub approx_kl: f64,
    /// Fraction of rows with |ρ − 1| > ε_j.
    pub clip_fraction: f64,
    /// The same for each denoising step j; NaN where the minibatch has no row of it.
    pub clip_fraction_of_step: Vec<f64>,
    pub ratio_mean: f64,
    /// 0 where the loss has no such term.
    pub bc_loss: f64,
}

impl ActorTerms {
    /// Whether the loss is finite, and the ratio in both directions.
    pub fn are_finite(&self) -> bool {
        [self.policy_loss, self.approx_kl, self.bc_loss].iter().all(|term| term.is_finite())
    }
}

/// Chains of the frozen policy from a minibatch's states, for the behaviour-cloning loss.
#[derive(Debug, Clone, Copy)]
pub struct TeacherChains<'a> {
    /// Row → state, as in the minibatch.
    pub rows: &'a [u32],
    /// `[rows, K'+1, chunk_len]`.
    pub chains: &'a [f32],
}

/// Buffers for losses and gradients, allocated once.
#[derive(Debug)]
pub struct LossBuffers {
    actor: NoiseBatch,
}

#[derive(Default)]
struct RowSums {
    policy_loss: f64,
    approx_kl: f64,
    ratio: f64,
    clipped_of_step: Vec<u32>,
    rows_of_step: Vec<u32>,
}

impl LossBuffers {
    /// For minibatches of up to `rows` rows and K' = `steps`.
    pub fn new(network: &NoiseNetwork, workers: &Workers, rows: usize, steps: usize) -> Self {
        Self { actor: NoiseBatch::new(network, workers, rows, steps) }
    }

    /// Element-wise log-probabilities of all rows of `samples` under `parameters`, `[samples, K', chunk_len]`.
    pub fn log_prob_elements(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        likelihood: &Likelihood,
        samples: &Samples,
        out: &mut [f32],
    ) {
        let prepared = network.prepare(parameters, &likelihood.times());
        let load = |i: usize| samples.noise_row(i as u32);
        self.actor.evaluate(workers, network, parameters, &prepared, load, out, samples.chunk_len, |i, noise, out| {
            let (x, next) = samples.transition(i as u32);
            likelihood.elements(samples.of_row(i as u32).1, x, next, noise, out);
        });
    }

    /// What [`Samples::old_log_probs`] keeps of them: clamped, mean over the first `horizon_len` = Ta · Da elements.
    pub fn mean_log_probs(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        likelihood: &Likelihood,
        samples: &Samples,
        horizon_len: usize,
        out: &mut [f32],
    ) {
        let prepared = network.prepare(parameters, &likelihood.times());
        let load = |i: usize| samples.noise_row(i as u32);
        self.actor.evaluate(workers, network, parameters, &prepared, load, out, 1, |i, noise, out| {
            let (x, next) = samples.transition(i as u32);
            let (j, h) = (samples.of_row(i as u32).1, horizon_len);
            out[0] = likelihood.mean_of_elements(j, &x[..h], &next[..h], &noise[..h]);
        });
    }

    /// The first of a minibatch's rows whose terms of the policy loss are not finite.
    pub fn first_not_finite(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &Likelihood,
        config: &LossConfig,
        samples: &Samples,
        rows: &[u32],
        horizon_len: usize,
    ) -> Option<u32> {
        let (network, parameters, h) = (&policy.network, policy.finetuned.as_slice(), horizon_len);
        let prepared = network.prepare(parameters, &likelihood.times());
        let mut log_probs = vec![0.0; rows.len()];
        let load = |i: usize| samples.noise_row(rows[i]);
        self.actor.evaluate(workers, network, parameters, &prepared, load, &mut log_probs, 1, |i, noise, out| {
            let (x, next) = samples.transition(rows[i]);
            out[0] = likelihood.mean_of_elements(samples.of_row(rows[i]).1, &x[..h], &next[..h], &noise[..h]);
        });
        let advantages = minibatch_advantages(config, samples, rows);
        let clip = clip_ranges(config, samples.steps);
        let i = (0..rows.len()).find(|&i| {
            let (old, epsilon) = (samples.old_log_probs[rows[i] as usize], clip[samples.of_row(rows[i]).1]);
            !PolicyTerm::new(log_probs[i], old, advantages[i], epsilon).is_finite()
        })?;
        Some(rows[i])
    }

    /// The actor's loss on a minibatch and its gradient, in the layout of the parameters.
    ///
    /// `horizon_len` = Ta · Da, the executed part of the chunk. `teacher`: where the configuration has a
    /// behaviour-cloning term.
    pub fn actor(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &Likelihood,
        config: &LossConfig,
        samples: &Samples,
        rows: &[u32],
        horizon_len: usize,
        teacher: Option<TeacherChains>,
    ) -> (ActorTerms, &[f32]) {
        let (network, parameters) = (&policy.network, policy.finetuned.as_slice());
        let mut prepared = network.prepare(parameters, &likelihood.times());
        let (steps, m) = (samples.steps, rows.len() as f32);

        let advantages = minibatch_advantages(config, samples, rows);
        let clip = clip_ranges(config, steps);

        self.actor.begin();
        let sums = self.actor.accumulate(
            workers,
            network,
            parameters,
            &prepared,
            rows.len(),
            |i| samples.noise_row(rows[i]),
            |i, noise, gradient, sums: &mut RowSums| {
                let (_, j) = samples.of_row(rows[i]);
                let (x, next) = samples.transition(rows[i]);
                // 1. New log-probability: elements clamped to [−5, 2], executed steps, mean.
                let new = likelihood.mean_and_gradient(j, x, next, noise, horizon_len, gradient);
                // 6. ρ = exp(new − old).
                // 8. max(−A ρ, −A clamp(ρ, 1 ± ε_j)); outside the range the clipped branch has no slope.
                let term = PolicyTerm::new(new, samples.old_log_probs[rows[i] as usize], advantages[i], clip[j]);
                // A NaN must reach the gradient: 0 · NaN is NaN.
                let scale = term.slope / m;
                gradient.iter_mut().for_each(|g| *g *= scale);
                // 10. approx_kl = mean((ρ − 1) − ln ρ), clip fraction.
                sums.clipped_of_step.resize(steps, 0);
                sums.rows_of_step.resize(steps, 0);
                sums.policy_loss += f64::from(term.loss);
                sums.approx_kl += f64::from(term.kl);
                sums.ratio += f64::from(term.ratio);
                sums.clipped_of_step[j] += u32::from(term.clipped);
                sums.rows_of_step[j] += 1;
            },
        );
        let mut terms = merge(sums, rows.len(), steps);

        // 2. Behaviour cloning: −mean log p of the frozen policy's chains under the current one.
        if let (Some(coefficient), Some(teacher)) = (config.bc_loss_coeff, teacher) {
            let bc_samples = Samples { chains: teacher.chains, ..*samples };
            let bc_rows = rows.len() * steps;
            let sums = self.actor.accumulate(
                workers,
                network,
                parameters,
                &prepared,
                bc_rows,
                |i| {
                    let sample = samples.of_row(teacher.rows[i / steps]).0;
                    NoiseRow {
                        slot: (i % steps) as u32,
                        chunk: bc_samples.transition(i as u32).0,
                        state: samples.state(sample),
                        images: samples.images(sample),
                    }
                },
                |i, noise, gradient, sum: &mut f64| {
                    let (x, next) = bc_samples.transition(i as u32);
                    let mean = likelihood.mean_and_gradient(i % steps, x, next, noise, noise.len(), gradient);
                    let scale = -(coefficient / bc_rows as f64) as f32;
                    gradient.iter_mut().for_each(|g| *g *= scale);
                    *sum += f64::from(mean);
                },
            );
            terms.bc_loss = -sums.iter().sum::<f64>() / bc_rows as f64;
        }
        (terms, self.actor.finish(network, parameters, &mut prepared))
    }
}

/// 3.–5. Advantages: normalised, clipped to quantiles, discounted by γ_d^(K'−1−j).
fn minibatch_advantages(config: &LossConfig, samples: &Samples, rows: &[u32]) -> Vec<f32> {
    let mut advantages: Vec<f32> = rows.iter().map(|&r| samples.advantages[samples.of_row(r).0]).collect();
    shape_advantages(config, &mut advantages, samples.steps, |i| samples.of_row(rows[i]).1);
    advantages
}

/// 7. ε_j = ε_base + (ε − ε_base)(e^{c u} − 1)/(e^c − 1), u = j/(K'−1); with K' = 1 it is ε.
fn clip_ranges(config: &LossConfig, steps: usize) -> Vec<f32> {
    let (base, top, c) = (config.clip_ploss_coef_base, config.clip_ploss_coef, config.clip_ploss_coef_rate);
    (0..steps)
        .map(|j| {
            if steps == 1 {
                return top as f32;
            }
            let u = j as f64 / (steps - 1) as f64;
            (base + (top - base) * ((c * u).exp() - 1.0) / (c.exp() - 1.0)) as f32
        })
        .collect()
}

fn merge(shards: Vec<RowSums>, rows: usize, steps: usize) -> ActorTerms {
    let n = rows as f64;
    let of_step = |j: usize, of: fn(&RowSums) -> &[u32]| -> f64 {
        shards.iter().map(|s| f64::from(of(s).get(j).copied().unwrap_or(0))).sum()
    };
    let clipped: Vec<f64> = (0..steps).map(|j| of_step(j, |s| &s.clipped_of_step)).collect();
    ActorTerms {
        policy_loss: shards.iter().map(|s| s.policy_loss).sum::<f64>() / n,
        approx_kl: shards.iter().map(|s| s.approx_kl).sum::<f64>() / n,
        clip_fraction: clipped.iter().sum::<f64>() / n,
        clip_fraction_of_step: clipped.iter().enumerate().map(|(j, c)| c / of_step(j, |s| &s.rows_of_step)).collect(),
        ratio_mean: shards.iter().map(|s| s.ratio).sum::<f64>() / n,
        bc_loss: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(base: f64, top: f64) -> LossConfig {
        LossConfig {
            gamma_denoising: 0.99,
            clip_ploss_coef: top,
            clip_ploss_coef_base: base,
            clip_ploss_coef_rate: 3.0,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            clip_vloss_coef: None,
            vf_coef: 0.5,
            bc_loss_coeff: None,
            min_logprob_denoising_std: 0.1,
        }
    }

    /// Values of spec dppo.md §1.9.
    #[test]
    fn clip_ranges_grow_as_the_spec_says() {
        let table = [0.001, 0.001527, 0.002642, 0.005002, 0.01];
        for (ours, table) in clip_ranges(&config(0.001, 0.01), 5).iter().zip(table) {
            assert!((ours - table).abs() < 1e-6, "{ours} is not {table}");
        }
        assert_eq!(clip_ranges(&config(0.001, 0.01), 1), [0.01]);
    }
}
