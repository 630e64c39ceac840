//! From the minibatches of an update to what it did.

use super::{ActorTerms, UpdateStats};

/// Running sums of an update.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    sums: UpdateStats,
    eta: f64,
    steps: usize,
}

impl Sums {
    /// Of nothing yet; K' = `steps`.
    pub fn new(steps: usize) -> Self {
        let sums = UpdateStats { clip_fraction_of_step: vec![0.0; steps], ..Default::default() };
        Self { sums, eta: 0.0, steps: 0 }
    }

    /// Of the last minibatch in which the actor moved.
    pub fn approx_kl(&self) -> f64 {
        self.sums.approx_kl
    }

    pub fn add_actor(&mut self, minibatches: &[ActorTerms], gradient_norm: f64) {
        let sums = &mut self.sums;
        for terms in minibatches {
            sums.policy_loss += terms.policy_loss;
            sums.bc_loss += terms.bc_loss;
            sums.approx_kl = terms.approx_kl;
            sums.clip_fraction += terms.clip_fraction;
            for (sum, f) in sums.clip_fraction_of_step.iter_mut().zip(&terms.clip_fraction_of_step) {
                // A small minibatch may hold no row of a step.
                *sum += if f.is_finite() { *f } else { 0.0 };
            }
            sums.ratio_mean += terms.ratio_mean;
        }
        sums.actor_gradient_norm += gradient_norm;
    }

    /// `means`: of η, one a minibatch.
    pub fn add_eta(&mut self, means: &[f64], gradient_norm: f64) {
        self.eta += means.iter().sum::<f64>();
        self.sums.eta_gradient_norm += gradient_norm;
    }

    /// A step of the optimisers ends.
    pub fn add_critic(&mut self, losses: &[f64], gradient_norm: f64) {
        self.sums.value_loss += losses.iter().sum::<f64>();
        self.sums.critic_gradient_norm += gradient_norm;
        self.sums.minibatches += losses.len();
        self.steps += 1;
    }

    /// Sums → means.
    pub fn means(self) -> UpdateStats {
        let Self { sums: mut s, eta, steps } = self;
        let (n, steps) = (s.minibatches.max(1) as f64, steps.max(1) as f64);
        for sum in [&mut s.policy_loss, &mut s.value_loss, &mut s.bc_loss, &mut s.clip_fraction, &mut s.ratio_mean] {
            *sum /= n;
        }
        s.eta = Some(eta / n);
        s.clip_fraction_of_step.iter_mut().for_each(|f| *f /= n);
        for sum in [&mut s.actor_gradient_norm, &mut s.critic_gradient_norm, &mut s.eta_gradient_norm] {
            *sum /= steps;
        }
        s
    }
}
