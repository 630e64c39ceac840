//! The actor's loss on minibatches and its gradient (spec dppo.md §2.5e with one row a sample, §4).

use super::{GaussianPolicy, Likelihood, PpoLossConfig};
use crate::actor_critic::ValueTargets;
use crate::network::{CriticRow, GaussianBatch, GaussianNetwork, Observations};
use crate::rollout::normalize;
use crate::surrogate::PolicyTerm;
use crate::workers::Workers;

/// What the updates of one iteration draw from. Per-sample arrays have one value a sample.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    pub observations: Observations<'a>,
    /// `[samples, chunk_len]`.
    pub chunks: &'a [f32],
    pub advantages: &'a [f32],
    pub returns: &'a [f32],
    pub old_values: &'a [f32],
    /// Clamped log-probabilities before the first update.
    pub old_log_probs: &'a [f32],
    pub state_len: usize,
    /// 0 for networks that see no pictures.
    pub image_len: usize,
    pub chunk_len: usize,
}

impl<'a> Samples<'a> {
    /// What was seen before the chunk.
    pub fn row(&self, sample: usize) -> CriticRow<'a> {
        CriticRow {
            state: self.observations.state(sample, self.state_len),
            images: self.observations.image(sample, self.image_len),
        }
    }

    /// What the critic aims at.
    pub fn value_targets(&self) -> ValueTargets<'a> {
        let Self { observations, returns, old_values, state_len, image_len, .. } = *self;
        ValueTargets { observations, returns, old_values, state_len, image_len }
    }

    /// The chunk.
    pub fn chunk(&self, sample: usize) -> &'a [f32] {
        &self.chunks[sample * self.chunk_len..][..self.chunk_len]
    }
}

/// Some samples whose losses are averaged.
#[derive(Debug, Clone, Copy)]
pub struct Minibatch<'a> {
    pub samples: &'a [u32],
    /// Chunks of the frozen policy from the same observations, `[samples, chunk_len]`: for the behaviour-cloning loss.
    pub teacher: Option<&'a [f32]>,
}

/// Terms of the actor's loss, means over the minibatch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ActorTerms {
    pub policy_loss: f64,
    /// mean((ρ − 1) − ln ρ).
    pub approx_kl: f64,
    /// Fraction of samples with |ρ − 1| > ε.
    pub clip_fraction: f64,
    pub ratio_mean: f64,
    pub entropy: f64,
    /// Mean deviation.
    pub std: f64,
    /// −mean log-probability of the teacher's chunks; 0 where the loss has no such term.
    pub bc_loss: f64,
}

impl ActorTerms {
    /// Whether the loss is finite, and the ratio in both directions.
    pub fn are_finite(&self) -> bool {
        [self.policy_loss, self.approx_kl, self.entropy, self.bc_loss].iter().all(|term| term.is_finite())
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.policy_loss += other.policy_loss;
        self.approx_kl += other.approx_kl;
        self.clip_fraction += other.clip_fraction;
        self.ratio_mean += other.ratio_mean;
        self.entropy += other.entropy;
        self.std += other.std;
        self.bc_loss += other.bc_loss;
    }

    pub(super) fn divide(&mut self, by: f64) {
        let Self { policy_loss, approx_kl, clip_fraction, ratio_mean, entropy, std, bc_loss } = self;
        for sum in [policy_loss, approx_kl, clip_fraction, ratio_mean, entropy, std, bc_loss] {
            *sum /= by;
        }
    }
}

/// Buffers for losses and gradients, allocated once.
#[derive(Debug)]
pub struct PpoLoss {
    actor: GaussianBatch,
}

impl PpoLoss {
    /// For minibatches of up to `rows` samples.
    pub fn new(network: &GaussianNetwork, workers: &Workers, rows: usize) -> Self {
        Self { actor: GaussianBatch::new(network, workers, rows) }
    }

    /// Log-probabilities of all samples under `parameters`, not clamped.
    pub fn log_probs(
        &mut self,
        workers: &Workers,
        network: &GaussianNetwork,
        parameters: &[f32],
        likelihood: Likelihood,
        samples: &Samples,
        out: &mut [f32],
    ) {
        let prepared = network.prepare(parameters);
        self.actor.evaluate(
            workers,
            network,
            parameters,
            &prepared,
            |i| samples.row(i),
            out,
            1,
            |i, row, out| {
                out[0] = likelihood.log_prob(row, samples.chunk(i)) as f32;
            },
        );
    }

    /// The first sample of some minibatches whose terms of the policy loss are not finite.
    pub fn first_not_finite(
        &mut self,
        workers: &Workers,
        policy: &GaussianPolicy,
        config: &PpoLossConfig,
        samples: &Samples,
        minibatches: &[Minibatch],
    ) -> Option<usize> {
        let (network, parameters) = (&policy.network, policy.finetuned.as_slice());
        let prepared = network.prepare(parameters);
        let likelihood = Likelihood { mixture: config.mixture_density() };
        minibatches.iter().find_map(|minibatch| {
            let rows = minibatch.samples;
            let (mut log_probs, of) = (vec![0.0; rows.len()], |i: usize| rows[i] as usize);
            self.actor.evaluate(
                workers,
                network,
                parameters,
                &prepared,
                |i| samples.row(of(i)),
                &mut log_probs,
                1,
                |i, row, out| out[0] = Likelihood::clamp(likelihood.log_prob(row, samples.chunk(of(i)))).0,
            );
            let advantages = minibatch_advantages(config, samples, rows);
            let finite = |i: &usize| {
                let old = samples.old_log_probs[of(*i)];
                PolicyTerm::new(log_probs[*i], old, advantages[*i], config.clip_ploss_coef as f32).is_finite()
            };
            (0..rows.len()).find(|i| !finite(i)).map(of)
        })
    }

    /// The actor's loss on each minibatch, and the gradient of their sum, in the layout of the parameters.
    pub fn actor(
        &mut self,
        workers: &Workers,
        policy: &GaussianPolicy,
        config: &PpoLossConfig,
        samples: &Samples,
        minibatches: &[Minibatch],
    ) -> (Vec<ActorTerms>, &[f32]) {
        let (network, parameters) = (&policy.network, policy.finetuned.as_slice());
        let mut prepared = network.prepare(parameters);
        let likelihood = Likelihood { mixture: config.mixture_density() };
        let epsilon = config.clip_ploss_coef as f32;
        self.actor.begin();
        let mut all_terms = Vec::with_capacity(minibatches.len());
        for minibatch in minibatches {
            let rows = minibatch.samples;
            let (m, of) = (rows.len() as f64, |i: usize| rows[i] as usize);
            let advantages = minibatch_advantages(config, samples, rows);
            let sums = self.actor.accumulate(
                workers,
                network,
                parameters,
                &prepared,
                rows.len(),
                |i| samples.row(of(i)),
                |i, row, mut gradient, sums: &mut ActorTerms| {
                    // 1. New log-probability, clamped.
                    let log_prob = likelihood.log_prob_and_gradient(row, samples.chunk(of(i)), &mut gradient);
                    let (new, inside) = Likelihood::clamp(log_prob);
                    // 6.–8. max(−A ρ, −A clamp(ρ, 1 ± ε)).
                    let term = PolicyTerm::new(new, samples.old_log_probs[of(i)], advantages[i], epsilon);
                    gradient.scale(if inside { (f64::from(term.slope) / m) as f32 } else { 0.0 });
                    // − ent_coef · entropy
                    if config.ent_coef > 0.0 {
                        likelihood.add_entropy_gradient(row, -config.ent_coef / m, &mut gradient);
                    }
                    sums.add(&ActorTerms {
                        policy_loss: f64::from(term.loss),
                        approx_kl: f64::from(term.kl),
                        clip_fraction: f64::from(u8::from(term.clipped)),
                        ratio_mean: f64::from(term.ratio),
                        entropy: likelihood.entropy(row),
                        std: Likelihood::mean_std(row),
                        bc_loss: 0.0,
                    });
                },
            );
            let mut terms = ActorTerms::default();
            sums.iter().for_each(|shard| terms.add(shard));

            // 2. Behaviour cloning: −mean log p of the frozen policy's chunks under the current one.
            if let (Some(coefficient), Some(teacher)) = (config.bc_loss_coeff, minibatch.teacher) {
                let sums = self.actor.accumulate(
                    workers,
                    network,
                    parameters,
                    &prepared,
                    rows.len(),
                    |i| samples.row(of(i)),
                    |i, row, mut gradient, sum: &mut f64| {
                        let chunk = &teacher[i * samples.chunk_len..][..samples.chunk_len];
                        let log_prob = likelihood.log_prob_and_gradient(row, chunk, &mut gradient);
                        let (log_prob, inside) = Likelihood::clamp(log_prob);
                        gradient.scale(if inside { -(coefficient / m) as f32 } else { 0.0 });
                        *sum += f64::from(log_prob);
                    },
                );
                terms.bc_loss = -sums.iter().sum::<f64>();
            }
            terms.divide(m);
            all_terms.push(terms);
        }
        (all_terms, self.actor.finish(network, parameters, &mut prepared))
    }
}

/// 3. Advantages, normalised.
fn minibatch_advantages(config: &PpoLossConfig, samples: &Samples, rows: &[u32]) -> Vec<f32> {
    let mut advantages: Vec<f32> = rows.iter().map(|&r| samples.advantages[r as usize]).collect();
    if config.norm_adv {
        normalize(&mut advantages);
    }
    advantages
}
