//! The actor's loss on minibatches and its gradient, in the order of spec dppo.md §2.5e.

use super::eta::SampleEtas;
use super::{Likelihood, LossConfig, Policy, TransitionLikelihood, shape_advantages};
use crate::actor_critic::{ValueTargets, WeightedSamples};
use crate::network::{NoiseBatch, NoiseNetwork, NoiseRow, Observations, Prepared};
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

/// Some rows whose losses are averaged.
#[derive(Debug, Clone, Copy)]
pub struct Minibatch<'a> {
    /// Sorted.
    pub rows: &'a [u32],
    /// Chains of the frozen policy from the rows' observations, `[rows, K'+1, chunk_len]`: for the behaviour-cloning loss.
    pub teacher: Option<&'a [f32]>,
}

/// Losses of some minibatches and the gradient of their sum.
#[derive(Debug)]
pub struct ActorGradient<'a> {
    /// Of each minibatch.
    pub terms: Vec<ActorTerms>,
    /// In the layout of the network's parameters.
    pub parameters: &'a [f32],
    /// With respect to η, laid out like the likelihood's `SampleEtas`; empty where samples have none of their own.
    pub etas: Vec<f32>,
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
    /// Gradients by η, row after row.
    etas: Vec<f32>,
}

#[derive(Default)]
struct CloningSums {
    log_prob: f64,
    etas: Vec<f32>,
}

/// Makes room for one more row and returns it.
fn next_row(rows: &mut Vec<f32>, len: usize) -> &mut [f32] {
    let start = rows.len();
    rows.resize(start + len, 0.0);
    &mut rows[start..]
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
        likelihood: &impl TransitionLikelihood,
        samples: &Samples,
        horizon_len: usize,
        out: &mut [f32],
    ) {
        let prepared = network.prepare(parameters, &likelihood.times());
        let load = |i: usize| samples.noise_row(i as u32);
        self.actor.evaluate(workers, network, parameters, &prepared, load, out, 1, |i, noise, out| {
            let (x, next) = samples.transition(i as u32);
            let ((sample, j), h) = (samples.of_row(i as u32), horizon_len);
            out[0] = likelihood.mean_of_elements(sample, j, &x[..h], &next[..h], &noise[..h]);
        });
    }

    /// The first of a minibatch's rows whose terms of the policy loss are not finite.
    pub fn first_not_finite(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &impl TransitionLikelihood,
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
            let (sample, j) = samples.of_row(rows[i]);
            out[0] = likelihood.mean_of_elements(sample, j, &x[..h], &next[..h], &noise[..h]);
        });
        let advantages = minibatch_advantages(config, samples, rows);
        let clip = clip_ranges(config, samples.steps);
        let i = (0..rows.len()).find(|&i| {
            let (old, epsilon) = (samples.old_log_probs[rows[i] as usize], clip[samples.of_row(rows[i]).1]);
            !PolicyTerm::new(log_probs[i], old, advantages[i], epsilon).is_finite()
        })?;
        Some(rows[i])
    }

    /// The actor's loss on each minibatch, and the gradient of their sum.
    ///
    /// `horizon_len` = Ta · Da, the executed part of the chunk.
    pub fn actor(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &impl TransitionLikelihood,
        config: &LossConfig,
        samples: &Samples,
        minibatches: &[Minibatch],
        horizon_len: usize,
    ) -> ActorGradient<'_> {
        let (network, parameters) = (&policy.network, policy.finetuned.as_slice());
        let mut prepared = network.prepare(parameters, &likelihood.times());
        let mut etas = likelihood.etas().map_or(Vec::new(), SampleEtas::zeros);
        self.actor.begin();
        let mut all_terms = Vec::with_capacity(minibatches.len());
        for minibatch in minibatches {
            let rows = minibatch.rows;
            let mut terms =
                self.policy_loss(workers, policy, likelihood, config, samples, rows, horizon_len, &prepared, &mut etas);
            if let (Some(coefficient), Some(chains)) = (config.bc_loss_coeff, minibatch.teacher) {
                let teacher = Samples { chains, ..*samples };
                terms.bc_loss = self.cloning_loss(
                    workers,
                    policy,
                    likelihood,
                    coefficient,
                    samples,
                    rows,
                    &teacher,
                    &prepared,
                    &mut etas,
                );
            }
            all_terms.push(terms);
        }
        ActorGradient { terms: all_terms, parameters: self.actor.finish(network, parameters, &mut prepared), etas }
    }

    /// PPO's part of a minibatch: adds its gradients.
    fn policy_loss(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &impl TransitionLikelihood,
        config: &LossConfig,
        samples: &Samples,
        rows: &[u32],
        horizon_len: usize,
        prepared: &Prepared,
        etas: &mut [f32],
    ) -> ActorTerms {
        let (steps, m, eta_len) = (samples.steps, rows.len() as f32, likelihood.etas().map_or(0, SampleEtas::len));
        let advantages = minibatch_advantages(config, samples, rows);
        let clip = clip_ranges(config, steps);
        let sums = self.actor.accumulate(
            workers,
            &policy.network,
            &policy.finetuned,
            prepared,
            rows.len(),
            |i| samples.noise_row(rows[i]),
            |i, noise, gradient, sums: &mut RowSums| {
                let (sample, j) = samples.of_row(rows[i]);
                let (x, next) = samples.transition(rows[i]);
                let d_eta = next_row(&mut sums.etas, eta_len);
                // 1. New log-probability: elements clamped to [−5, 2], executed steps, mean.
                let new = likelihood.mean_and_gradient(sample, j, x, next, noise, horizon_len, gradient, d_eta);
                // 6. ρ = exp(new − old).
                // 8. max(−A ρ, −A clamp(ρ, 1 ± ε_j)); outside the range the clipped branch has no slope.
                let term = PolicyTerm::new(new, samples.old_log_probs[rows[i] as usize], advantages[i], clip[j]);
                // A NaN must reach the gradient: 0 · NaN is NaN.
                let scale = term.slope / m;
                gradient.iter_mut().chain(d_eta).for_each(|g| *g *= scale);
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
        if let Some(all) = likelihood.etas() {
            // Shards hold neighbouring rows, in order.
            let mut rows = rows.iter().map(|&row| samples.of_row(row).0);
            sums.iter().for_each(|shard| all.add_rows(&shard.etas, &mut rows, etas));
        }
        merge(sums, rows.len(), steps)
    }

    /// 2. Behaviour cloning: −mean log p of the frozen policy's chains under the current one; adds its gradients.
    fn cloning_loss(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        likelihood: &impl TransitionLikelihood,
        coefficient: f64,
        samples: &Samples,
        rows: &[u32],
        teacher: &Samples,
        prepared: &Prepared,
        etas: &mut [f32],
    ) -> f64 {
        let (steps, eta_len) = (samples.steps, likelihood.etas().map_or(0, SampleEtas::len));
        let bc_rows = rows.len() * steps;
        let sample_of = |i: usize| samples.of_row(rows[i / steps]).0;
        let scale = -(coefficient / bc_rows as f64) as f32;
        let sums = self.actor.accumulate(
            workers,
            &policy.network,
            &policy.finetuned,
            prepared,
            bc_rows,
            |i| NoiseRow {
                slot: (i % steps) as u32,
                chunk: teacher.transition(i as u32).0,
                state: samples.state(sample_of(i)),
                images: samples.images(sample_of(i)),
            },
            |i, noise, gradient, sums: &mut CloningSums| {
                let (x, next) = teacher.transition(i as u32);
                let d_eta = next_row(&mut sums.etas, eta_len);
                let (sample, j, len) = (sample_of(i), i % steps, noise.len());
                let mean = likelihood.mean_and_gradient(sample, j, x, next, noise, len, gradient, d_eta);
                gradient.iter_mut().chain(d_eta).for_each(|g| *g *= scale);
                sums.log_prob += f64::from(mean);
            },
        );
        if let Some(all) = likelihood.etas() {
            let mut rows = (0..bc_rows).map(sample_of);
            sums.iter().for_each(|shard| all.add_rows(&shard.etas, &mut rows, etas));
        }
        -sums.iter().map(|shard| shard.log_prob).sum::<f64>() / bc_rows as f64
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
        LossConfig { clip_ploss_coef: top, clip_ploss_coef_base: base, ..LossConfig::default() }
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
