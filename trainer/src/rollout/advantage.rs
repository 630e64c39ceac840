//! Generalised advantages over chunk steps (spec dppo.md §2.5c).

pub use tenon_core::config::TimeOut;

/// Inputs of [`generalized_advantages`]; arrays are `[steps, envs]` unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Gae<'a> {
    pub rewards: &'a [f64],
    pub values: &'a [f64],
    pub terminated: &'a [bool],
    pub truncated: &'a [bool],
    /// V of the observation in which an episode ran out of time; read only where `truncated` and not `terminated`.
    pub final_values: &'a [f64],
    /// V of the observation after the last step, `[envs]`.
    pub last_values: &'a [f64],
    pub gamma: f64,
    pub gae_lambda: f64,
    pub time_out: TimeOut,
}

/// Advantages and returns, `[steps, envs]` (Schulman et al. 2016, eq. 16; spec dppo.md §2.5c).
pub fn generalized_advantages(g: &Gae) -> (Vec<f64>, Vec<f64>) {
    let envs = g.last_values.len();
    let mut advantages = vec![0.0; g.rewards.len()];
    let mut next_values = g.last_values.to_vec();
    let mut next_advantages = vec![0.0; envs];
    for t in (0..g.rewards.len() / envs).rev() {
        for e in 0..envs {
            let i = t * envs + e;
            let (next_value, trace) = match (g.terminated[i], g.truncated[i], g.time_out) {
                (true, _, _) | (false, true, TimeOut::Terminal) => (0.0, 0.0),
                (false, true, TimeOut::Bootstrap) => (g.final_values[i], 0.0),
                (false, true, TimeOut::Leaky) | (false, false, _) => (next_values[e], 1.0),
            };
            // δ_t = r_t + γ V_{t+1} − V_t
            let delta = g.rewards[i] + g.gamma * next_value - g.values[i];
            // A_t = δ_t + γ λ A_{t+1}
            advantages[i] = delta + g.gamma * g.gae_lambda * trace * next_advantages[e];
            next_values[e] = g.values[i];
            next_advantages[e] = advantages[i];
        }
    }
    let returns = advantages.iter().zip(g.values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Subtracts the mean and divides by the standard deviation, with the unbiased divisor of `torch.std`.
///
/// Fewer than two advantages stay as they are.
pub fn normalize(advantages: &mut [f32]) {
    if advantages.len() < 2 {
        return;
    }
    let n = advantages.len() as f64;
    let mean = advantages.iter().map(|&a| f64::from(a)).sum::<f64>() / n;
    let squares = advantages.iter().map(|&a| (f64::from(a) - mean).powi(2)).sum::<f64>();
    let std = (squares / (n - 1.0)).sqrt();
    for a in advantages {
        *a = ((f64::from(*a) - mean) / (std + 1e-8)) as f32;
    }
}

/// 1 − Var(R − V)/Var(R): how much of the returns the old values foretold. NaN where all returns are equal.
pub fn explained_variance(values: &[f64], returns: &[f64]) -> f64 {
    let variance = |x: &mut dyn Iterator<Item = f64>| {
        let x: Vec<f64> = x.collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64
    };
    let residual = variance(&mut returns.iter().zip(values).map(|(r, v)| r - v));
    1.0 - residual / variance(&mut returns.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_steps(time_out: TimeOut) -> (Vec<f64>, Vec<f64>) {
        generalized_advantages(&Gae {
            rewards: &[1.0, 2.0],
            values: &[10.0, 20.0],
            terminated: &[false, false],
            truncated: &[true, false],
            final_values: &[5.0, f64::NAN],
            last_values: &[30.0],
            gamma: 0.5,
            gae_lambda: 0.5,
            time_out,
        })
    }

    /// Worked by hand. The second step is the same in all: A = 2 + ½·30 − 20 = −3.
    #[test]
    fn each_time_out_treatment_gives_the_value_worked_by_hand() {
        // δ = 1 + ½·5 − 10 = −6.5, trace cut.
        assert_eq!(two_steps(TimeOut::Bootstrap).0, [-6.5, -3.0]);
        // δ = 1 − 10.
        assert_eq!(two_steps(TimeOut::Terminal).0, [-9.0, -3.0]);
        // δ = 1 + ½·20 − 10 = 1, plus ¼·(−3).
        assert_eq!(two_steps(TimeOut::Leaky).0, [0.25, -3.0]);
    }

    #[test]
    fn a_terminal_state_is_never_bootstrapped() {
        let mut g = Gae {
            rewards: &[1.0],
            values: &[2.0],
            terminated: &[true],
            truncated: &[true],
            final_values: &[f64::NAN],
            last_values: &[f64::NAN],
            gamma: 0.9,
            gae_lambda: 0.95,
            time_out: TimeOut::Bootstrap,
        };
        for time_out in [TimeOut::Bootstrap, TimeOut::Terminal, TimeOut::Leaky] {
            g.time_out = time_out;
            assert_eq!(generalized_advantages(&g).0, [-1.0]);
        }
    }
}
