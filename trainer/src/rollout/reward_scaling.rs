//! Running reward scaling (spec dppo.md §2.5b).

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;

/// Divides rewards by the running standard deviation of their discounted sums and clips the quotient to ±10.
///
/// γ is 0.99 whatever the environment's. The statistics are updated before they are applied; all in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardScaler {
    /// Discounted sum of each environment, carried from one iteration to the next.
    pub discounted: Vec<f64>,
    pub mean: f64,
    pub variance: f64,
    pub count: f64,
}

impl RewardScaler {
    const GAMMA: f64 = 0.99;
    const CLIP: f64 = 10.0;

    /// For `envs` environments, before any reward.
    pub fn new(envs: usize) -> Self {
        Self { discounted: vec![0.0; envs], mean: 0.0, variance: 1.0, count: 1e-4 }
    }

    /// Scales `rewards: [steps, envs]` in place. `first[t, e]`: whether step t is the first of an episode.
    pub fn scale(&mut self, rewards: &mut [f64], first: &[bool]) {
        let envs = self.discounted.len();
        // ret_t = r_t + (1 − first_t) γ ret_{t−1}
        let mut returns = Vec::with_capacity(rewards.len());
        for (row, first) in rewards.chunks_exact(envs).zip(first.chunks_exact(envs)) {
            for ((sum, &reward), &first) in self.discounted.iter_mut().zip(row).zip(first) {
                *sum = reward + if first { 0.0 } else { Self::GAMMA * *sum };
                returns.push(*sum);
            }
        }
        self.merge(&returns);
        let scale = (self.variance + 1e-8).sqrt();
        for reward in rewards {
            *reward = (*reward / scale).clamp(-Self::CLIP, Self::CLIP);
        }
    }

    /// Takes over another scaler's state without allocating.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { discounted, mean, variance, count } = other;
        self.discounted.clone_from(discounted);
        (self.mean, self.variance, self.count) = (*mean, *variance, *count);
    }

    /// Adds its state to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        checkpoint.put_f64("reward_scaler.discounted", &self.discounted);
        checkpoint.put_f64("reward_scaler.statistics", &[self.mean, self.variance, self.count]);
    }

    /// Restores what [`RewardScaler::store`] stored into a scaler of as many environments.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let discounted = checkpoint.f64("reward_scaler.discounted")?.to_vec();
        let statistics = checkpoint.f64("reward_scaler.statistics")?;
        let (&[mean, variance, count], true) = (statistics, discounted.len() == self.discounted.len()) else {
            let detail = format!("made for {} environments", discounted.len());
            return Err(TrainError::Parameter { name: "reward_scaler".into(), detail });
        };
        *self = Self { discounted, mean, variance, count };
        Ok(())
    }

    /// Parallel merge of mean and variance; the result divides by the total count minus one.
    fn merge(&mut self, values: &[f64]) {
        if values.is_empty() {
            return;
        }
        let m = values.len() as f64;
        let mean = values.iter().sum::<f64>() / m;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / m;
        let (n, delta) = (self.count, mean - self.mean);
        let total = n + m;
        let squares = self.variance * n + variance * m + delta * delta * n * m / total;
        self.mean += delta * m / total;
        self.variance = squares / (total - 1.0);
        self.count = total;
    }
}
