//! From a rollout and the critic's values to advantages and returns (spec dppo.md §2.5b, c, h).

use serde::{Deserialize, Serialize};

use super::{Gae, RewardScaler, Rollout, TimeOut, explained_variance, generalized_advantages};
use crate::error::TrainError;

/// The critic's values of a rollout, under the weights that were in force while it was collected.
#[derive(Debug, Clone, Copy)]
pub struct RolloutValues<'a> {
    /// `[steps, envs]`.
    pub values: &'a [f64],
    /// Of the observations after the last step, `[envs]`.
    pub last: &'a [f64],
    /// Of [`Rollout::final_states`], in their order.
    pub finals: &'a [f64],
}

/// How rewards are scaled and advantages formed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvantageSettings {
    /// γ per chunk.
    pub gamma: f64,
    pub gae_lambda: f64,
    #[serde(default)]
    pub time_out: TimeOut,
    pub reward_scale_running: bool,
    pub reward_scale_const: f64,
}

impl Default for AdvantageSettings {
    /// Gym (spec dppo.md §6.1, §6.3).
    fn default() -> Self {
        Self {
            gamma: 0.99,
            gae_lambda: 0.95,
            time_out: TimeOut::Bootstrap,
            reward_scale_running: true,
            reward_scale_const: 1.0,
        }
    }
}

/// What the updates of one iteration aim at, one value a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    pub advantages: Vec<f32>,
    pub returns: Vec<f32>,
    pub old_values: Vec<f32>,
    /// Standard deviation that rewards were divided by; 1 without running scaling.
    pub reward_scale: f64,
    /// 1 − Var(R − V)/Var(R).
    pub explained_variance: f64,
}

/// Scales the rewards, updating the scaler first, and forms generalised advantages.
pub fn estimate(
    settings: &AdvantageSettings,
    scaler: &mut RewardScaler,
    rollout: &Rollout,
    v: RolloutValues,
) -> Result<Estimates, TrainError> {
    let n = rollout.samples();
    let mut final_values = vec![0.0; n];
    for ((sample, _), value) in rollout.final_states.iter().zip(v.finals) {
        final_values[*sample] = *value;
    }
    // b. Running reward scaling.
    let mut rewards = rollout.rewards.clone();
    let mut reward_scale = 1.0;
    if settings.reward_scale_running {
        scaler.scale(&mut rewards, &rollout.first[..n]);
        reward_scale = (scaler.variance + 1e-8).sqrt();
        if !reward_scale.is_finite() {
            // An infinite scale would make every reward from now on 0.
            let largest = (0..n).max_by(|&a, &b| rollout.rewards[a].abs().total_cmp(&rollout.rewards[b].abs()));
            let place = largest.map_or_else(String::new, |sample| rollout.place(sample));
            return Err(TrainError::Numerical { what: "the running variance of rewards, with the largest,", place });
        }
    }
    rewards.iter_mut().for_each(|r| *r *= settings.reward_scale_const);
    // c. Generalised advantages over chunk steps.
    let (advantages, returns) = generalized_advantages(&Gae {
        rewards: &rewards,
        values: v.values,
        terminated: &rollout.terminated,
        truncated: &rollout.truncated,
        final_values: &final_values,
        last_values: v.last,
        gamma: settings.gamma,
        gae_lambda: settings.gae_lambda,
        time_out: settings.time_out,
    });
    for (what, values) in [("the value", v.values), ("the advantage", &advantages), ("the return", &returns)] {
        // What is finite in double precision may not be in single precision.
        if let Some(sample) = values.iter().position(|&x| !(x as f32).is_finite()) {
            return Err(TrainError::Numerical { what, place: rollout.place(sample) });
        }
    }
    let single = |x: &[f64]| -> Vec<f32> { x.iter().map(|&v| v as f32).collect() };
    Ok(Estimates {
        advantages: single(&advantages),
        returns: single(&returns),
        old_values: single(v.values),
        reward_scale,
        explained_variance: explained_variance(v.values, &returns),
    })
}
