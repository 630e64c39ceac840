//! K' and the sampling noise may change from iteration to iteration.

use tenon_core::diffusion::StepNoise;
use tenon_core::spec::{Denoising, Sampler};
use tenon_train::dppo::{EtaLearning, EtaSettings, FinetuneConfig, StdSchedule, StdScheduleShape};
use tenon_train::optimizer::LrSchedule;

use crate::bandit::{Bandit, finetune_config, fresh_policy};
use crate::fixtures::*;

/// 5 steps are fine-tuned in the first two iterations, 3 in the next two, then 1.
fn config() -> FinetuneConfig {
    let mut config = FinetuneConfig {
        ft_denoising_steps_d: 2,
        ft_denoising_steps_t: 2,
        min_sampling_std_schedule: Some(StdSchedule { end: 0.02, iterations: 4, shape: StdScheduleShape::Linear }),
        ..finetune_config()
    };
    config.actor_critic.update_epochs = 1;
    config
}

#[test]
fn finetuned_steps_fall_and_the_frozen_copy_follows() {
    let mut bandit = Bandit::new(config(), 1);
    let mut seen = Vec::new();
    for iteration in 1..=6 {
        let frozen = bandit.updater.policy.frozen.clone();
        let (_, stats) = bandit.iterate();
        let policy = &bandit.updater.policy;
        seen.push(stats.clip_fraction_of_step.len());
        match iteration {
            2 | 4 => assert!(policy.frozen == policy.finetuned, "iteration {iteration}"),
            _ => assert!(policy.frozen == frozen, "iteration {iteration}"),
        }
    }
    assert_eq!(seen, [5, 5, 3, 3, 1, 1]);
    let stored = bandit.checkpoint().header.run.policy;
    assert_eq!(stored.denoising.map(|d| d.finetuned_steps), Some(1), "evaluation finds the present K'");
}

#[test]
fn the_sampling_noise_follows_its_schedule() {
    let mut bandit = Bandit::new(config(), 1);
    for expected in [0.1, 0.08, 0.06, 0.04, 0.02, 0.02] {
        let StepNoise::Exploration { min_std, .. } = bandit.updater.exploration().noise else { unreachable!() };
        assert!((min_std - expected).abs() < 1e-12, "{min_std}, not {expected}");
        bandit.updater.end_iteration();
    }
}

#[test]
fn an_annealed_run_resumes_bit_for_bit_and_refuses_chains_of_before() {
    let ddim = Denoising { sampler: Sampler::Ddim { steps: 5 }, ..denoising() };
    let mut module = EtaSettings::default().module;
    (module.base, module.per_action) = (0.7, true);
    let learning = EtaLearning { lr: LrSchedule::constant(1e-2), weight_decay: 0.0, update_interval: 1 };
    for (name, denoising, eta) in [
        ("DDPM", denoising(), EtaSettings::default()),
        ("DDIM with a learned η", ddim, EtaSettings { module, learning: Some(learning) }),
    ] {
        let new = |threads| {
            Bandit::with(fresh_policy(denoising.clone()), FinetuneConfig { eta: eta.clone(), ..config() }, threads)
        };
        let (mut whole, mut first) = (new(1), None);
        // Stopped after each of five iterations: within a stage, and right where one ends.
        for done in 0..5 {
            let mut resumed = new(2);
            resumed.updater.restore(&whole.checkpoint()).unwrap();
            let rollout = whole.collect();
            for bandit in [&mut whole, &mut resumed] {
                bandit.updater.update(&bandit.workers, &rollout).unwrap();
                bandit.updater.end_iteration();
            }
            assert!(whole.checkpoint() == resumed.checkpoint(), "{name}, stopped after {done}");
            first.get_or_insert(rollout);
        }
        let old = first.unwrap();
        let error = whole.updater.update(&whole.workers, &old).unwrap_err().to_string();
        assert!(error.contains("chains"), "{error}");
    }
}
