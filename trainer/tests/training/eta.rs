//! η of DDIM: constant, of each action, of each state; learned, stored, and no NaN.

use tenon_core::diffusion::StepNoise;
use tenon_core::network::{EtaSpec, PolicyNetwork};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::spec::{Denoising, Sampler};
use tenon_train::dppo::{
    ActorGradient, ChainMode, ChainSampler, EtaLearning, EtaLikelihood, EtaModule, EtaSettings, FinetuneConfig,
    LossBuffers, LossConfig, Minibatch, Policy, Samples, Updater,
};
use tenon_train::network::NoiseNetwork;
use tenon_train::optimizer::LrSchedule;
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

use crate::bandit::{Bandit, finetune_config};
use crate::fixtures::*;

fn ddim() -> Denoising {
    Denoising { sampler: Sampler::Ddim { steps: 5 }, finetuned_steps: 4, ..denoising() }
}

fn spec(per_action: bool, mlp_dims: Option<Vec<usize>>) -> EtaSpec {
    EtaSpec { base: 0.7, min: 0.1, max: 1.0, per_action, mlp_dims }
}

fn learned(module: EtaSpec, update_interval: usize) -> FinetuneConfig {
    let lr = LrSchedule::constant(1e-2);
    let learning = Some(EtaLearning { lr, weight_decay: 1e-4, update_interval });
    let mut config = FinetuneConfig { eta: EtaSettings { module, learning }, ..finetune_config() };
    config.actor_critic.update_epochs = 2;
    config
}

/// A policy of chunks `[2, action_dim]`.
fn policy(action_dim: usize) -> Policy {
    let PolicyNetwork::Diffusion(spec) = diffusion(16, &[]) else { unreachable!() };
    let network = NoiseNetwork::new(&spec, STATE, HORIZON, action_dim).unwrap();
    let parameters = network.table().initialise(&mut Stream::ActorWeights.of(5));
    Policy::from_pretrained(network, parameters, ddim())
}

fn bandit(config: FinetuneConfig, threads: usize) -> Bandit {
    Bandit::with(policy(1), config, threads)
}

const ROWS: usize = 60;

fn states(seed: u64) -> Vec<f32> {
    let mut states = vec![0.0; ROWS * STATE];
    SeededNoise::new(seed, 0).fill_standard_normal(&mut states);
    states
}

fn chains(policy: &Policy, noise: StepNoise, states: &[f32], threads: usize) -> Vec<f32> {
    let workers = Workers::new(threads).unwrap();
    let mut chains = vec![0.0; ROWS * (policy.finetuned_steps() + 1) * policy.network.chunk_len()];
    ChainSampler::new(policy, &workers, ROWS).sample(
        &workers,
        policy,
        ChainMode { noise, base_policy: false },
        states,
        &mut streams(ROWS, 3),
        &mut chains,
    );
    chains
}

#[test]
fn a_module_that_says_one_samples_like_the_constant_one_and_evaluation_has_no_eta() {
    let (states, mut policy) = (states(1), policy(3));
    let explore = StepNoise::Exploration { min_std: 0.1, eta: 1.0 };
    let constant = chains(&policy, explore, &states, 1);
    let evaluated = chains(&policy, StepNoise::Evaluation, &states, 1);
    let one = EtaSpec { base: 1.0, min: 1.0, max: 1.0, per_action: true, mlp_dims: None };
    policy.eta = Some(EtaModule::new(&one, STATE, 3, &mut Stream::EtaWeights.of(1)));
    assert!(chains(&policy, explore, &states, 1) == constant);
    assert!(chains(&policy, explore, &states, 2) == constant);
    // Half of it is another matter, but not in evaluation.
    let half = EtaSpec { base: 0.5, min: 0.1, max: 1.0, per_action: false, mlp_dims: Some(vec![8]) };
    policy.eta = Some(EtaModule::new(&half, STATE, 3, &mut Stream::EtaWeights.of(1)));
    assert!(chains(&policy, explore, &states, 1) != constant);
    assert!(chains(&policy, StepNoise::Evaluation, &states, 1) == evaluated);
}

#[test]
fn gradients_by_the_weights_of_eta_and_actor_are_the_slopes_of_the_loss() {
    const DIM: usize = 3;
    const HORIZON_LEN: usize = DIM;
    let (workers, coefficient, ent_coef) = (Workers::new(1).unwrap(), 0.4, 0.3);
    let config = LossConfig {
        clip_ploss_coef: 0.5,
        clip_ploss_coef_base: 0.5,
        bc_loss_coeff: Some(coefficient),
        // Above σ of some steps, below that of others.
        min_logprob_denoising_std: 0.15,
        ent_coef,
        ..LossConfig::default()
    };
    for (name, spec) in [
        ("action", spec(true, None)),
        ("state", spec(false, Some(vec![8]))),
        ("state and action", spec(true, Some(vec![8]))),
    ] {
        let mut policy = policy(DIM);
        let mut module = EtaModule::new(&spec, STATE, DIM, &mut Stream::EtaWeights.of(2));
        // Larger weights: η differs from state to state.
        if spec.mlp_dims.is_some() {
            module.parameters.iter_mut().for_each(|w| *w *= 40.0);
        }
        policy.eta = Some(module.clone());
        let states = states(6);
        let sampled = chains(&policy, StepNoise::Exploration { min_std: 0.1, eta: 1.0 }, &states, 1);
        let teacher: Vec<f32> = sampled.iter().map(|x| 0.9 * x + 0.01).collect();
        let advantages: Vec<f32> = (0..ROWS).map(|i| (i as f32).sin()).collect();
        let mut samples = Samples {
            observations: (&states).into(),
            chains: &sampled,
            advantages: &advantages,
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            steps: policy.finetuned_steps(),
            state_len: STATE,
            image_len: 0,
            chunk_len: HORIZON * DIM,
        };
        let mut likelihood = EtaLikelihood::new(&policy.denoising, config.min_logprob_denoising_std, &module).unwrap();
        likelihood.set_samples(&module, &samples, 0..ROWS as u32);
        let mut buffers = LossBuffers::new(&policy.network, &workers, ROWS, samples.steps);
        let mut old = vec![0.0; ROWS * samples.steps];
        let (network, h) = (policy.network.clone(), HORIZON_LEN);
        buffers.mean_log_probs(&workers, &network, &policy.finetuned, &likelihood, &samples, h, &mut old);
        // Away from ρ = 1, where the loss has a kink.
        old.iter_mut().enumerate().for_each(|(i, p)| *p += 0.1 * (1.7 * i as f32).cos());
        samples.old_log_probs = &old;

        // Two minibatches, of neighbouring rows of some samples: their losses are summed.
        let rows: Vec<u32> = (0..(ROWS * samples.steps) as u32).filter(|row| row % 7 != 3).collect();
        let parts = [&rows[..90], &rows[90..]];
        let chain_len = sampled.len() / ROWS;
        let teachers = parts.map(|rows| -> Vec<f32> {
            let of = |&row: &u32| &teacher[samples.of_row(row).0 * chain_len..][..chain_len];
            rows.iter().flat_map(|row| of(row).iter().copied()).collect()
        });
        let minibatches: Vec<Minibatch> =
            parts.iter().zip(&teachers).map(|(rows, teacher)| Minibatch { rows, teacher: Some(teacher) }).collect();
        let weighted = parts.map(|rows| samples.distinct(rows));
        let seen = |weighted: &[Vec<(u32, f64)>]| {
            let mut seen: Vec<u32> = weighted.iter().flatten().map(|(sample, _)| *sample).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };

        let start = [policy.finetuned.clone(), policy.eta.as_ref().unwrap().parameters.clone()];
        let mut at = |actor: &[f32], eta: &[f32]| -> (f64, Vec<f32>, Vec<f32>) {
            policy.finetuned.copy_from_slice(actor);
            module.parameters.copy_from_slice(eta);
            likelihood.set_samples(&module, &samples, seen(&weighted).into_iter());
            let ActorGradient { terms, parameters, mut etas } =
                buffers.actor(&workers, &policy, &likelihood, &config, &samples, &minibatches, HORIZON_LEN);
            let all = likelihood.sample_etas();
            let mut loss: f64 = terms.iter().map(|t| t.policy_loss + coefficient * t.bc_loss).sum();
            for minibatch in &weighted {
                loss -= ent_coef * all.mean(minibatch);
                all.add_entropy_gradient(ent_coef, minibatch, &mut etas);
            }
            (loss, parameters.to_vec(), all.parameter_gradient(&module, &samples, &etas))
        };
        let (_, d_actor, d_eta) = at(&start[0], &start[1]);
        for (which, gradient) in [d_actor, d_eta].into_iter().enumerate() {
            // Along the gradient itself, and along directions of ±1 that mix its entries.
            let norm = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
            assert!(norm > 1e-3, "{name}: gradient {which} is {norm}");
            let mixed =
                |seed: usize| move |i: usize| if (i * 2654435761 + seed * 40503) >> 7 & 1 == 0 { 1.0 } else { -1.0 };
            for direction in 0..4usize {
                let along: Vec<f64> = (0..gradient.len())
                    .map(|i| {
                        if direction == 0 {
                            f64::from(gradient[i]) / norm
                        } else {
                            mixed(direction)(i) / (gradient.len() as f64).sqrt()
                        }
                    })
                    .collect();
                let expected: f64 = along.iter().zip(&gradient).map(|(a, g)| a * f64::from(*g)).sum();
                let mut moved = |by: f64| {
                    let mut now = start.clone();
                    now[which].iter_mut().zip(&along).for_each(|(w, a)| *w += (by * a) as f32);
                    at(&now[0], &now[1]).0
                };
                let step = 4e-3;
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                println!("{name}, {which}, {direction}: {expected} and {slope}");
                assert!(
                    (slope - expected).abs() < 0.02 * norm + 1e-4,
                    "{name}: gradient {which} along {direction}: {expected}, not {slope}"
                );
            }
        }
    }
}

fn weights(bandit: &Bandit) -> &[f32] {
    &bandit.updater.policy.eta.as_ref().unwrap().parameters
}

#[test]
fn eta_learns_after_the_warm_up_repeats_and_resumes_bit_for_bit() {
    for (name, module) in [
        ("action", spec(true, None)),
        ("state", spec(false, Some(vec![8]))),
        ("state and action", spec(true, Some(vec![8]))),
    ] {
        let mut config = learned(module, 1);
        config.loss.bc_loss_coeff = Some(0.1);
        config.loss.ent_coef = 0.01;
        let (mut one, mut two) = (bandit(config.clone(), 1), bandit(config.clone(), 2));
        let before = weights(&one).to_vec();
        assert_eq!(one.iterate(), two.iterate());
        assert_eq!(weights(&one), before, "{name}: the critic warms up");
        let (reward, stats) = one.iterate();
        assert!(weights(&one) != before, "{name}");
        assert!(stats.eta > Some(0.1) && stats.eta < Some(1.0), "{name}: {stats:?}");
        assert!(stats.eta_gradient_norm > 0.0 && stats.eta_lr == 1e-2, "{name}: {stats:?}");
        assert_eq!(two.iterate(), (reward, stats));
        assert!(one.checkpoint() == two.checkpoint(), "{name}");

        let mut resumed = bandit(config, 1);
        resumed.updater.restore(&one.checkpoint()).unwrap();
        let rollout = one.collect();
        let stats = one.updater.update(&one.workers, &rollout).unwrap();
        assert_eq!(resumed.updater.update(&resumed.workers, &rollout).unwrap(), stats);
        assert!(one.checkpoint() == resumed.checkpoint(), "{name}");
    }
}

#[test]
fn eta_moves_with_every_so_many_minibatches_of_an_epoch() {
    // 400 samples · 4 steps in minibatches of 500: three an epoch, two epochs.
    for (interval, steps) in [(1, 6), (2, 4), (3, 2), (100, 2)] {
        let mut config = learned(spec(true, None), interval);
        config.actor_critic.n_critic_warmup_itr = 0;
        let mut bandit = bandit(config, 1);
        let (_, stats) = bandit.iterate();
        assert_eq!(stats.minibatches, 6);
        assert_eq!(bandit.checkpoint().counter("adam_steps.eta").unwrap(), steps, "every {interval}");
    }
}

#[test]
fn an_entropy_term_raises_eta_and_a_constant_one_never_moves() {
    let mean = |ent_coef: f64, module: EtaSpec| {
        let mut config = learned(module, 1);
        (config.loss.ent_coef, config.actor_critic.n_critic_warmup_itr) = (ent_coef, 0);
        let mut bandit = bandit(config, 1);
        bandit.iterate();
        bandit.iterate().1.eta.unwrap()
    };
    let (free, raised) = (mean(0.0, spec(true, None)), mean(10.0, spec(true, None)));
    assert!(raised > free && raised > 0.7, "{raised} with, {free} without");
    assert_eq!(mean(10.0, spec(false, None)), 0.7);
}

#[test]
fn a_base_at_the_end_of_the_range_trains_without_a_nan() {
    for mlp_dims in [None, Some(vec![8])] {
        let module = EtaSpec { base: 1.0, min: 0.1, max: 1.0, per_action: true, mlp_dims };
        let mut config = learned(module, 1);
        config.actor_critic.n_critic_warmup_itr = 0;
        let mut bandit = bandit(config, 1);
        for _ in 0..3 {
            let (_, stats) = bandit.iterate();
            assert!(stats.eta > Some(0.9) && stats.eta <= Some(1.0), "{stats:?}");
        }
        assert!(weights(&bandit).iter().all(|w| w.is_finite()));
    }
}

#[test]
fn a_failed_update_leaves_eta_as_it_was() {
    let mut config = learned(spec(false, Some(vec![8])), 1);
    (config.actor_critic.n_critic_warmup_itr, config.loss.norm_adv) = (0, false);
    (config.actor_critic.advantages.reward_scale_running, config.actor_critic.value_loss.vf_coef) = (false, 0.0);
    let mut bandit = bandit(config, 1);
    bandit.iterate();
    let (before, mut rollout) = (bytes(&bandit.checkpoint()), bandit.collect());
    let good = rollout.clone();
    rollout.rewards[123] = 1e38;
    bandit.updater.update(&bandit.workers, &rollout).unwrap_err();
    assert!(bytes(&bandit.checkpoint()) == before);
    let first = bandit.updater.policy.eta.as_mut().unwrap();
    first.parameters[3] = f32::NAN;
    let error = bandit.updater.update(&bandit.workers, &good).unwrap_err().to_string();
    assert!(error.contains("the weight of η") && error.contains("mlp_res"), "{error}");
}

#[test]
fn settings_that_no_run_can_use_are_refused() {
    let refused = |change: fn(&mut FinetuneConfig)| {
        let mut config = learned(spec(true, None), 1);
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(refused(|c| c.eta.module.base = 1.5).contains("eta.module"));
    assert!(refused(|c| c.eta.module.min = f64::NAN).contains("eta.module"));
    assert!(refused(|c| c.eta.module.mlp_dims = Some(vec![])).contains("mlp_dims"));
    assert!(refused(|c| c.eta.learning.as_mut().unwrap().update_interval = 0).contains("update_interval"));
    assert!(refused(|c| c.loss.ent_coef = -1.0).contains("ent_coef"));
    // DDPM has no η that could differ.
    let mut policy = policy(1);
    policy.denoising.sampler = Sampler::Ddpm;
    let config = learned(spec(true, None), 1);
    let workers = Workers::new(1).unwrap();
    let error = Updater::new(config, policy, critic(0), HORIZON, World::ENVS, 1, &workers).unwrap_err();
    assert!(error.to_string().contains("DDPM has no η"), "{error}");
    // Without a word about it η is the constant 1, and settings come back as they were written.
    let settings = EtaSettings::default();
    assert_eq!(settings.constant(), Some(1.0));
    let config = learned(spec(true, Some(vec![4])), 3);
    let mut table = toml::Table::try_from(&config).unwrap();
    assert_eq!(table.clone().try_into::<FinetuneConfig>().unwrap(), config);
    table.remove("eta").unwrap();
    assert_eq!(table.try_into::<FinetuneConfig>().unwrap().eta, settings);
}
