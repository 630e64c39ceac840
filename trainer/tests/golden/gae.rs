//! Advantages and reward scaling, computed in f64.

use tenon_train::dppo::{Gae, RewardScaler, TimeOut, generalized_advantages};

use crate::load::{Case, case, compare_f64};

const TOLERANCE: f64 = 1e-10;

fn check_advantages(c: &Case, r: &str, rewards: &[f64], suffix: &str) {
    let settings = &c.config[r];
    let number = |key: &str| settings[key].as_f64().expect("a number");
    let rewards: Vec<f64> = rewards.iter().map(|x| x * number("reward_scale_const")).collect();
    let (values, last_values) = (c.f64(&format!("{r}.values")), c.f64(&format!("{r}.last_values")));
    let (terminated, truncated) = (c.bools(&format!("{r}.terminated")), c.bools(&format!("{r}.truncated")));
    let (advantages, returns) = generalized_advantages(&Gae {
        rewards: &rewards,
        values: &values,
        terminated: &terminated,
        truncated: &truncated,
        final_values: &vec![f64::NAN; values.len()],
        last_values: &last_values,
        gamma: number("gamma"),
        gae_lambda: number("lambda"),
        // The golden recursion is the reference's.
        time_out: TimeOut::Leaky,
    });
    for (name, ours) in [("advantages", advantages), ("returns", returns)] {
        let name = format!("{r}.{name}{suffix}");
        compare_f64(&name, &ours, &c.f64(&name), TOLERANCE);
    }
}

#[test]
fn golden_gae_and_reward_scaling() {
    let Some(c) = case("gae") else { return };
    for r in c.config.as_object().expect("one entry a rollout").keys() {
        check_advantages(&c, r, &c.f64(&format!("{r}.rewards")), "");
        check_advantages(&c, r, &c.f64(&format!("{r}.scaled1")), "_scaled");

        let envs = c.shape(&format!("{r}.last_values"))[0];
        let mut scaler = RewardScaler::new(envs);
        for (call, rewards, first) in [(1, "rewards", "first"), (2, "rewards2", "first2")] {
            let mut scaled = c.f64(&format!("{r}.{rewards}"));
            let first = c.bools(&format!("{r}.{first}"));
            let n = scaled.len();
            scaler.scale(&mut scaled, &first[..n]);
            let name = format!("{r}.scaled{call}");
            compare_f64(&name, &scaled, &c.f64(&name), TOLERANCE);
            for (name, ours) in [("mean", scaler.mean), ("var", scaler.variance), ("count", scaler.count)] {
                let name = format!("{r}.{name}{call}");
                compare_f64(&name, &[ours], &[c.scalar(&name)], TOLERANCE);
            }
        }
        compare_f64("ret_state2", &scaler.discounted, &c.f64(&format!("{r}.ret_state2")), TOLERANCE);
    }
}
