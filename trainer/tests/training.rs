//! Whole runs on small problems: they learn, they repeat bit for bit, they resume, they refuse what is broken.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::diffusion::StepNoise;
use tenon_core::network::{Activation, CriticSpec, NetworkSpec, PolicyNetwork};
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_core::spec::{ActionField, Denoising, ObservationField, PolicySpec, Prediction, SPEC_VERSION, Sampler};
use tenon_train::TrainError;
use tenon_train::checkpoint::{CHECKPOINT_VERSION, Checkpoint, RunInfo, Stage};
use tenon_train::dataset::Dataset;
use tenon_train::dppo::{
    ChainMode, ChainSampler, FinetuneConfig, LossConfig, Policy, Rollout, TimeOut, UpdateStats, Updater,
};
use tenon_train::network::{Critic, NoiseNetwork};
use tenon_train::optimizer::LrSchedule;
use tenon_train::pretrain::{PretrainConfig, Pretrainer};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

const HORIZON: usize = 2;

fn run_info(width: usize, cond: &[usize]) -> RunInfo {
    let limits = |n| Limits { min: vec![-1.0; n], max: vec![1.0; n] };
    RunInfo {
        network: PolicyNetwork::Diffusion(NetworkSpec::diffusion_mlp(16, &[width; 3], cond, Activation::Mish)),
        policy: PolicySpec {
            spec_version: SPEC_VERSION,
            task: "toy".into(),
            observation: vec![ObservationField::Task(2)],
            action: vec![ActionField::Task(1)],
            observation_horizon: 1,
            prediction_horizon: HORIZON,
            action_horizon: HORIZON,
            period_s: 0.1,
            observation_delay_steps: 0,
            denoising: Some(Denoising {
                denoising_steps: 10,
                finetuned_steps: 5,
                sampler: Sampler::Ddpm,
                denoised_clip: 1.0,
                noise_clip: 3.0,
                final_action_clip: None,
                prediction: Prediction::Noise,
            }),
            normalizer: Normalizer {
                observation: limits(2),
                action: limits(1),
                zero_range: ZeroRange::AddEpsilon,
                observation_clip: None,
            },
        },
        critic: None,
        config: String::new(),
        provenance: BTreeMap::new(),
    }
}

/// A diffusion policy of a run.
fn diffusion(run: &RunInfo, parameters: Vec<f32>) -> Policy {
    let PolicyNetwork::Diffusion(network) = &run.network else { panic!("no diffusion policy") };
    let network = NoiseNetwork::new(network, 2, HORIZON, 1).unwrap();
    Policy::from_pretrained(network, parameters, run.policy.diffusion().unwrap().clone())
}

/// States in [−1, 1]², actions 0.5 · s₀ − 0.3 · s₁.
fn dataset() -> Dataset {
    let mut noise = SeededNoise::new(11, 0);
    let (episodes, length) = (40, 20);
    let frames = episodes * length;
    let states: Vec<f32> = (0..2 * frames).map(|_| noise.rng().random_range(-1.0..1.0)).collect();
    // The second action of a chunk answers to the state of its own frame, so let states be constant in an episode.
    let states: Vec<f32> = (0..frames).flat_map(|f| states[f / length * 2..][..2].to_vec()).collect();
    Dataset {
        actions: states.chunks_exact(2).map(|s| 0.5 * s[0] - 0.3 * s[1]).collect(),
        states,
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![length; episodes],
        state_dim: 2,
        action_dim: 1,
    }
}

fn pretrain_config(epochs: u64) -> PretrainConfig {
    PretrainConfig {
        epochs,
        batch_size: 200,
        lr: LrSchedule { max_lr: 3e-3, min_lr: 1e-3, warmup_steps: 2, first_cycle_steps: 60 },
        weight_decay: 1e-6,
        ema_decay: 0.9,
        update_ema_freq: 2,
        epoch_start_ema: 3,
        max_episodes: None,
        prediction: Prediction::Noise,
        ent_coef: 0.0,
    }
}

fn pretrain(epochs: u64, threads: usize) -> Pretrainer {
    let mut p = Pretrainer::new(pretrain_config(epochs), run_info(64, &[16, 8]), 5, threads).unwrap();
    p.run(&dataset(), &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap();
    p
}

#[test]
fn pretrained_policy_imitates_the_demonstrations() {
    let (data, mut losses) = (dataset(), Vec::new());
    let mut p = Pretrainer::new(pretrain_config(60), run_info(64, &[]), 5, 1).unwrap();
    p.run(&data, &mut |_, report| {
        losses.push(report.loss);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");

    let policy = diffusion(&run_info(64, &[]), p.ema().to_vec());
    let workers = Workers::new(1).unwrap();
    let n = 100;
    let mut sampler = ChainSampler::new(&policy, &workers, n);
    let mut noise: Vec<_> = (0..n as u32).map(|i| Stream::Evaluation(i).of(1)).collect();
    let states: Vec<f32> = (0..n).flat_map(|i| data.state(8 * i).to_vec()).collect();
    let mut chains = vec![0.0; n * 6 * HORIZON];
    let mode = ChainMode { noise: StepNoise::Evaluation, base_policy: false };
    sampler.sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
    let error: f32 = chains
        .chunks_exact(6 * HORIZON)
        .zip(states.chunks_exact(2))
        .map(|(chain, s)| (chain[5 * HORIZON] - (0.5 * s[0] - 0.3 * s[1])).abs())
        .sum::<f32>()
        / n as f32;
    assert!(error < 0.1, "mean error of the action is {error}");
}

#[test]
fn pretraining_gives_the_same_bits_on_one_and_two_threads() {
    let (one, two) = (pretrain(4, 1), pretrain(4, 2));
    assert_eq!(one.parameters(), two.parameters());
    assert_eq!(one.ema(), two.ema());
}

#[test]
fn resumed_pretraining_equals_an_uninterrupted_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let whole = pretrain(7, 1).checkpoint();
    for stop in [1, 4] {
        let mut first = Pretrainer::new(pretrain_config(7), run_info(64, &[16, 8]), 5, 1).unwrap();
        first
            .run(&dataset(), &mut |p, report| {
                if report.epoch == stop {
                    p.checkpoint().write(&path)?;
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        let mut second = Pretrainer::resume(pretrain_config(7), &Checkpoint::read(&path).unwrap(), 2).unwrap();
        second.run(&dataset(), &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap();
        assert!(second.checkpoint() == whole, "stopped after epoch {stop}");
    }
}

#[test]
fn a_data_set_of_another_width_is_refused() {
    let mut p = Pretrainer::new(pretrain_config(1), run_info(64, &[]), 5, 1).unwrap();
    let mut data = dataset();
    data.state_dim = 1;
    assert!(p.run_epoch(&data).unwrap_err().to_string().contains("the policy 2"));
    let mut data = dataset();
    data.lengths = vec![1; data.frames()];
    assert!(p.run_epoch(&data).unwrap_err().to_string().contains("no episode is as long"));
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_weights_change() {
    let mut p = Pretrainer::new(pretrain_config(1), run_info(64, &[]), 5, 1).unwrap();
    let before = p.parameters().to_vec();
    let mut data = dataset();
    data.actions.fill(f32::NAN);
    assert!(matches!(p.run_epoch(&data), Err(TrainError::Numerical { .. })));
    assert_eq!(p.parameters(), before);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let checkpoint = pretrain(1, 1).checkpoint();
    checkpoint.write(&path).unwrap();
    assert!(Checkpoint::read(&path).unwrap() == checkpoint);
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let error = Checkpoint::read(&path).unwrap_err().to_string();
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }
    let version = format!("\\\"version\\\":{CHECKPOINT_VERSION}");
    let at = bytes.windows(version.len()).position(|w| w == version.as_bytes()).unwrap();
    assert!(at < 200, "the header begins with its version");
    let mut newer = bytes.clone();
    newer[at + version.len() - 1] = b'9';
    std::fs::write(&path, &newer).unwrap();
    let error = Checkpoint::read(&path).unwrap_err().to_string();
    assert!(error.contains("version 9"), "{error}");
    let error = checkpoint.write(&folder.path().join("missing/x.safetensors")).unwrap_err().to_string();
    assert!(error.contains("missing/x.safetensors"), "{error}");
}

fn finetune_config() -> FinetuneConfig {
    FinetuneConfig {
        loss: LossConfig {
            gamma_denoising: 0.99,
            clip_ploss_coef: 0.05,
            clip_ploss_coef_base: 0.01,
            clip_ploss_coef_rate: 3.0,
            norm_adv: true,
            clip_advantage_lower_quantile: 0.0,
            clip_advantage_upper_quantile: 1.0,
            clip_vloss_coef: None,
            vf_coef: 0.5,
            bc_loss_coeff: None,
            min_logprob_denoising_std: 0.1,
        },
        min_sampling_denoising_std: 0.1,
        eta: 1.0,
        gamma: 0.99,
        gae_lambda: 0.95,
        time_out: TimeOut::Bootstrap,
        reward_scale_running: true,
        reward_scale_const: 1.0,
        update_epochs: 4,
        batch_size: 500,
        target_kl: 1.0,
        n_critic_warmup_itr: 1,
        max_grad_norm: None,
        actor_lr: LrSchedule::constant(1e-3),
        actor_weight_decay: 0.0,
        critic_lr: LrSchedule::constant(1e-3),
        critic_weight_decay: 0.0,
    }
}

/// A bandit: random states, the first action should be s₀, whatever the demonstrations did.
struct Bandit {
    updater: Updater,
    sampler: ChainSampler,
    workers: Workers,
    noise: Vec<SeededNoise>,
    environments: SeededNoise,
}

impl Bandit {
    const ENVS: usize = 50;
    const STEPS: usize = 8;

    fn new(config: FinetuneConfig, threads: usize) -> Self {
        let p = Pretrainer::new(pretrain_config(1), run_info(32, &[]), 5, 1).unwrap();
        let policy = diffusion(&run_info(32, &[]), p.parameters().to_vec());
        let critic = Critic::new(&CriticSpec::state(&[32; 3], Activation::Mish), 2).unwrap();
        let workers = Workers::new(threads).unwrap();
        Self {
            sampler: ChainSampler::new(&policy, &workers, Self::ENVS),
            updater: Updater::new(config, policy, critic, HORIZON, Self::ENVS, 9, &workers).unwrap(),
            workers,
            noise: (0..Self::ENVS as u32).map(|e| Stream::Policy(e).of(9)).collect(),
            environments: Stream::Environment(0).of(9),
        }
    }

    fn collect(&mut self) -> Rollout {
        let chain_len = 6 * HORIZON;
        let mut r = Rollout::new(Self::STEPS, Self::ENVS, 2, chain_len);
        for s in &mut r.states {
            *s = self.environments.rng().random_range(-1.0..1.0);
        }
        for t in 0..Self::STEPS {
            let rows = t * Self::ENVS..(t + 1) * Self::ENVS;
            self.sampler.sample(
                &self.workers,
                &self.updater.policy,
                self.updater.exploration(),
                &r.states[2 * rows.start..2 * rows.end],
                &mut self.noise,
                &mut r.chains[chain_len * rows.start..chain_len * rows.end],
            );
        }
        for (i, reward) in r.rewards.iter_mut().enumerate() {
            let action = r.chains[(i + 1) * chain_len - HORIZON];
            *reward = -f64::from(action - r.states[2 * i]).powi(2);
        }
        // Every step is an episode of its own.
        r.terminated.fill(true);
        r.first.fill(true);
        r
    }

    fn iterate(&mut self) -> (f64, UpdateStats) {
        let rollout = self.collect();
        let stats = self.updater.update(&self.workers, &rollout).unwrap();
        self.updater.end_iteration();
        (rollout.rewards.iter().sum::<f64>() / rollout.rewards.len() as f64, stats)
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut c = Checkpoint::new(Stage::Finetune, run_info(32, &[]));
        self.updater.store(&mut c);
        c
    }
}

#[test]
fn fine_tuning_raises_the_reward() {
    let mut bandit = Bandit::new(finetune_config(), 1);
    let mut rewards = Vec::new();
    for _ in 0..40 {
        let (reward, stats) = bandit.iterate();
        rewards.push(reward);
        assert!(stats.approx_kl.abs() < 1.0 && stats.explained_variance.is_finite(), "{stats:?}");
    }
    let (before, after) = (rewards[0], rewards[35..].iter().sum::<f64>() / 5.0);
    assert!(after > 0.3 * before, "mean squared error went from {before} to {after}: {rewards:?}");
}

#[test]
fn critic_warm_up_leaves_the_actor_alone() {
    let mut bandit = Bandit::new(finetune_config(), 1);
    let before = (bandit.updater.policy.finetuned.clone(), bandit.updater.critic_parameters.clone());
    let (_, stats) = bandit.iterate();
    assert_eq!(bandit.updater.policy.finetuned, before.0);
    assert_ne!(bandit.updater.critic_parameters, before.1);
    assert_eq!(stats.minibatches, 16);
    bandit.iterate();
    assert_ne!(bandit.updater.policy.finetuned, before.0);
    assert_eq!(bandit.updater.policy.frozen, before.0);
}

#[test]
fn fine_tuning_gives_the_same_bits_on_one_and_two_threads() {
    let mut config = finetune_config();
    config.loss.bc_loss_coeff = Some(0.1);
    config.update_epochs = 1;
    let (mut one, mut two) = (Bandit::new(config.clone(), 1), Bandit::new(config, 2));
    for _ in 0..3 {
        assert_eq!(one.iterate(), two.iterate());
    }
    assert!(one.checkpoint() == two.checkpoint());
}

#[test]
fn a_restored_updater_continues_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut bandit = Bandit::new(finetune_config(), 1);
    bandit.iterate();
    bandit.iterate();
    bandit.checkpoint().write(&path).unwrap();
    let rollout = bandit.collect();
    bandit.updater.update(&bandit.workers, &rollout).unwrap();

    let mut resumed = Bandit::new(finetune_config(), 2);
    resumed.updater.restore(&Checkpoint::read(&path).unwrap()).unwrap();
    assert_eq!(resumed.updater.iteration(), 2);
    resumed.updater.update(&resumed.workers, &rollout).unwrap();
    assert!(bandit.checkpoint() == resumed.checkpoint());
}

#[test]
fn an_early_stop_leaves_all_epochs() {
    let mut config = finetune_config();
    config.n_critic_warmup_itr = 0;
    config.target_kl = 1e-12;
    let (_, stats) = Bandit::new(config, 1).iterate();
    assert!(stats.stopped_early && stats.minibatches < 16, "{stats:?}");
}

#[test]
fn a_reward_that_is_not_finite_is_named_and_changes_nothing() {
    let mut bandit = Bandit::new(finetune_config(), 1);
    let mut rollout = bandit.collect();
    rollout.rewards[3 * Bandit::ENVS + 7] = f64::NAN;
    let before = bandit.checkpoint();
    let error = bandit.updater.update(&bandit.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("the reward is not finite at chunk step 3, environment 7"), "{error}");
    assert!(bandit.checkpoint() == before);
}
