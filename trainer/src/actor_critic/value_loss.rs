//! The critic's loss and its gradient (spec dppo.md §2.5e, step 9).

use serde::{Deserialize, Serialize};

use crate::elementwise::add;
use crate::network::{Critic, CriticBatch, CriticRow, Observations};
use crate::surrogate::value_term;
use crate::workers::Workers;

/// How the value's error enters the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueLoss {
    /// Weight in the loss.
    pub vf_coef: f64,
    /// Clips the value's change, as PPO may; absent in all settings of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_vloss_coef: Option<f64>,
}

impl Default for ValueLoss {
    /// As in all settings of the paper.
    fn default() -> Self {
        Self { vf_coef: 0.5, clip_vloss_coef: None }
    }
}

/// What the critic aims at: one observation and one value of each slice a sample.
#[derive(Debug, Clone, Copy)]
pub struct ValueTargets<'a> {
    pub observations: Observations<'a>,
    pub returns: &'a [f32],
    pub old_values: &'a [f32],
    pub state_len: usize,
    /// 0 for networks that see no pictures.
    pub image_len: usize,
}

/// Some samples whose losses are averaged, each with how often it counts.
pub type WeightedSamples = Vec<(u32, f64)>;

/// Buffers for the critic's values and gradients, allocated once.
#[derive(Debug)]
pub struct CriticLoss {
    batch: CriticBatch,
    /// Over all minibatches of the last call of [`CriticLoss::gradient`].
    gradient: Vec<f32>,
}

impl CriticLoss {
    /// For minibatches of up to `rows` samples.
    pub fn new(critic: &Critic, workers: &Workers, rows: usize) -> Self {
        Self { batch: CriticBatch::new(critic, workers, rows), gradient: vec![0.0; critic.table().len()] }
    }

    /// Values of `out.len()` observations; a plain slice of states will do.
    pub fn values<'o>(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        observations: impl Into<Observations<'o>>,
        out: &mut [f32],
    ) {
        self.batch.values(workers, critic, parameters, observations.into(), out);
    }

    /// The loss ½ mean (V − R)² on each minibatch, and the gradient of vf_coef times their sum.
    pub fn gradient(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        loss: ValueLoss,
        targets: &ValueTargets,
        minibatches: &[WeightedSamples],
    ) -> (Vec<f64>, &[f32]) {
        self.gradient.fill(0.0);
        let mut losses = Vec::with_capacity(minibatches.len());
        for minibatch in minibatches {
            let m: f64 = minibatch.iter().map(|(_, weight)| weight).sum();
            let (sums, gradient) = self.batch.gradient(
                workers,
                critic,
                parameters,
                minibatch.len(),
                |i| targets.row(minibatch[i].0),
                |i, value, sum: &mut f64| {
                    let (sample, weight) = minibatch[i];
                    let (error, slope) = targets.term(loss, sample, value);
                    *sum += weight * error;
                    (loss.vf_coef * weight * slope / m) as f32
                },
            );
            add(&mut self.gradient, gradient);
            losses.push(sums.iter().sum::<f64>() / m);
        }
        (losses, &self.gradient)
    }

    /// The first of `samples` whose loss, or the square of its slope, is not finite.
    pub fn first_not_finite(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        loss: ValueLoss,
        targets: &ValueTargets,
        samples: impl Iterator<Item = u32>,
    ) -> Option<usize> {
        let samples: Vec<u32> = samples.collect();
        let mut values = vec![0.0; samples.len()];
        self.batch.evaluate(workers, critic, parameters, |i| targets.row(samples[i]), &mut values);
        let spoiled = |(sample, value)| {
            let (error, slope) = targets.term(loss, sample, value);
            !(error.is_finite() && ((slope * slope) as f32).is_finite())
        };
        samples.into_iter().zip(values).find(|&row| spoiled(row)).map(|(sample, _)| sample as usize)
    }

    /// What the last call of [`CriticLoss::gradient`] returned.
    pub fn last_gradient(&self) -> &[f32] {
        &self.gradient
    }
}

impl<'a> ValueTargets<'a> {
    /// What the critic sees of a sample.
    fn row(&self, sample: u32) -> CriticRow<'a> {
        CriticRow {
            state: self.observations.state(sample as usize, self.state_len),
            images: self.observations.image(sample as usize, self.image_len),
        }
    }

    /// 9. ½ (V − R)² of a sample and its slope.
    fn term(&self, loss: ValueLoss, sample: u32, value: f32) -> (f64, f64) {
        let (target, value) = (f64::from(self.returns[sample as usize]), f64::from(value));
        let old = loss.clip_vloss_coef.map_or(0.0, |_| f64::from(self.old_values[sample as usize]));
        value_term(value, target, old, loss.clip_vloss_coef)
    }
}
