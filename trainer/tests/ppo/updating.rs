//! Updates: PPO learns, repeats bit for bit, resumes, refuses what is broken.

use tenon_core::network::{Activation, CriticSpec};
use tenon_train::TrainError;
use tenon_train::actor_critic::{ActorCriticSettings, UpdateStats};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::network::{Critic, GaussianNetwork};
use tenon_train::optimizer::LrSchedule;
use tenon_train::ppo::{GaussianSampler, PpoConfig, PpoLossConfig, PpoUpdater, SamplingMode};
use tenon_train::rollout::Rollout;
use tenon_train::workers::Workers;

use crate::common::*;

fn ppo_config() -> PpoConfig {
    PpoConfig {
        loss: PpoLossConfig { clip_ploss_coef: 0.1, ..PpoLossConfig::default() },
        actor_critic: ActorCriticSettings {
            update_epochs: 5,
            batch_size: 100,
            n_critic_warmup_itr: 1,
            actor_lr: LrSchedule::constant(1e-3),
            ..ActorCriticSettings::default()
        },
    }
}

/// The bandit and who learns on it.
struct Bandit {
    updater: PpoUpdater,
    sampler: GaussianSampler,
    workers: Workers,
    world: World,
}

impl Bandit {
    fn new(config: PpoConfig, network: GaussianNetwork, threads: usize) -> Self {
        let (policy, workers) = (fresh(network), Workers::new(threads).unwrap());
        let critic = critic(policy.network.image_len());
        Self {
            sampler: GaussianSampler::new(&policy, &workers, World::ENVS),
            updater: PpoUpdater::new(config, policy, critic, World::ENVS, World::SEED, &workers).unwrap(),
            workers,
            world: World::new(),
        }
    }

    fn collect(&mut self) -> Rollout {
        let Self { updater, sampler, workers, world } = self;
        let (policy, mode) = (&updater.policy, updater.exploration());
        world.rollout(policy.network.image_len(), HORIZON, |seen, noise, chunks| {
            sampler.sample(workers, policy, mode, seen, noise, chunks);
        })
    }

    fn iterate(&mut self) -> (f64, UpdateStats) {
        let rollout = self.collect();
        let stats = self.updater.update(&self.workers, &rollout).unwrap();
        self.updater.end_iteration();
        (mean_reward(&rollout), stats)
    }

    fn checkpoint(&self) -> Checkpoint {
        stored(|c| self.updater.store(c))
    }
}

#[test]
fn ppo_raises_the_reward_of_a_bandit() {
    for (name, network) in [
        ("fixed", network(mlp(32), FIXED, 0)),
        ("learned", network(mlp(32), LEARNED, 0)),
        ("per state", network(mlp(32), PER_STATE, 0)),
        ("mixture", network(mlp(32), LEARNED, 3)),
        ("transformer", network(transformer(), LEARNED, 0)),
    ] {
        let mut config = ppo_config();
        if name == "transformer" {
            config.actor_critic.actor_lr = LrSchedule::constant(3e-4);
        }
        let mut bandit = Bandit::new(config, network, 1);
        let mut rewards = Vec::new();
        for _ in 0..60 {
            let (reward, stats) = bandit.iterate();
            rewards.push(reward);
            assert!(stats.approx_kl.is_finite() && stats.explained_variance.is_finite(), "{stats:?}");
        }
        let (before, after) = (rewards[0], rewards[55..].iter().sum::<f64>() / 5.0);
        println!("{name}: mean squared error from {before} to {after}");
        assert!(after > 0.4 * before, "{name}: from {before} to {after}: {rewards:?}");
    }
}

#[test]
fn ppo_learns_from_pictures_with_summed_minibatches() {
    let mut config = ppo_config();
    config.actor_critic.grad_accumulate = 2;
    config.loss.bc_loss_coeff = Some(0.001);
    let network = network(vit_mlp(vision(1, PIXELS)), LEARNED, 0);
    let (mut one, mut two) = (Bandit::new(config.clone(), network.clone(), 1), Bandit::new(config, network, 2));
    let mut rewards = Vec::new();
    for iteration in 0..30 {
        let (reward, stats) = one.iterate();
        rewards.push(reward);
        if iteration < 3 {
            assert_eq!(two.iterate(), (reward, stats));
        }
    }
    let (before, after) = (rewards[0], rewards[25..].iter().sum::<f64>() / 5.0);
    println!("pictures: mean squared error from {before} to {after}");
    assert!(after > 0.4 * before, "from {before} to {after}: {rewards:?}");

    // Pictures that are missing, or too few, are named.
    let mut rollout = one.collect();
    rollout.images.as_mut().unwrap().last.pop();
    let error = one.updater.update(&one.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("after the last step"), "{error}");
    rollout.images = None;
    let error = one.updater.update(&one.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("the rollout has none"), "{error}");
}

#[test]
fn shifted_pictures_repeat_resume_and_leave_the_rollout_alone() {
    let mut config = ppo_config();
    let c = &mut config.actor_critic;
    (c.augment, c.update_epochs, c.n_critic_warmup_itr) = (true, 2, 0);
    let new = |augment, threads| {
        let mut config = config.clone();
        config.actor_critic.augment = augment;
        Bandit::new(config, network(vit_mlp(vision(1, PIXELS)), LEARNED, 0), threads)
    };
    let (mut one, mut two, mut unshifted) = (new(true, 1), new(true, 2), new(false, 1));
    for _ in 0..2 {
        let mut rollout = one.collect();
        mottle(&mut rollout);
        let before = rollout.images.clone();
        let stats = one.updater.update(&one.workers, &rollout).unwrap();
        assert_eq!(two.updater.update(&two.workers, &rollout).unwrap(), stats);
        assert_ne!(unshifted.updater.update(&unshifted.workers, &rollout).unwrap(), stats);
        assert_eq!(rollout.images, before);
        for bandit in [&mut one, &mut two] {
            bandit.updater.end_iteration();
        }
        assert!(one.checkpoint() == two.checkpoint());
        // The stream of shifts goes on where it was.
        two = new(true, 2);
        two.updater.restore(&one.checkpoint()).unwrap();
    }
    let error = PpoUpdater::new(config, fresh(network(mlp(16), FIXED, 0)), critic(0), 4, 1, &one.workers).unwrap_err();
    assert!(error.to_string().contains("augment"), "{error}");
}

#[test]
fn critic_warm_up_leaves_the_actor_alone_and_the_ratio_starts_at_one() {
    let mut config = ppo_config();
    config.actor_critic.update_epochs = 1;
    config.actor_critic.batch_size = 400;
    let mut bandit = Bandit::new(config, network(mlp(16), LEARNED, 0), 1);
    let before = (bandit.updater.policy.finetuned.clone(), bandit.updater.actor_critic.critic_parameters().to_vec());
    let (_, stats) = bandit.iterate();
    assert_eq!(bandit.updater.policy.finetuned, before.0);
    assert_ne!(bandit.updater.actor_critic.critic_parameters(), before.1);
    assert_eq!((stats.minibatches, stats.approx_kl), (1, 0.0));
    let (_, stats) = bandit.iterate();
    assert_ne!(bandit.updater.policy.finetuned, before.0);
    assert_eq!(bandit.updater.policy.frozen, before.0);
    assert!((stats.ratio_mean - 1.0).abs() < 1e-6 && stats.clip_fraction == 0.0, "{stats:?}");
    assert!((stats.std.unwrap() - 0.1).abs() < 1e-6, "{stats:?}");
}

#[test]
fn ppo_gives_the_same_bits_on_one_and_two_threads() {
    for network in [network(mlp(16), LEARNED, 0), network(mlp(16), PER_STATE, 0), network(transformer(), LEARNED, 3)] {
        let mut config = ppo_config();
        config.loss.bc_loss_coeff = Some(0.1);
        config.loss.ent_coef = 0.01;
        config.actor_critic.update_epochs = 1;
        config.actor_critic.batch_size = 200;
        let (mut one, mut two) = (Bandit::new(config.clone(), network.clone(), 1), Bandit::new(config, network, 2));
        for _ in 0..3 {
            assert_eq!(one.iterate(), two.iterate());
        }
        assert!(one.checkpoint() == two.checkpoint());
    }
}

#[test]
fn a_restored_updater_continues_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut config = ppo_config();
    config.loss.bc_loss_coeff = Some(0.1);
    config.actor_critic.update_epochs = 2;
    let mut bandit = Bandit::new(config.clone(), network(mlp(16), LEARNED, 0), 1);
    bandit.iterate();
    bandit.iterate();
    bandit.checkpoint().write(&path).unwrap();
    let rollout = bandit.collect();
    let stats = bandit.updater.update(&bandit.workers, &rollout).unwrap();

    let mut resumed = Bandit::new(config, network(mlp(16), LEARNED, 0), 2);
    resumed.updater.restore(&Checkpoint::read(&path).unwrap()).unwrap();
    assert_eq!(resumed.updater.iteration(), 2);
    assert_eq!(resumed.updater.update(&resumed.workers, &rollout).unwrap(), stats);
    assert!(bandit.checkpoint() == resumed.checkpoint());
}

#[test]
fn behaviour_cloning_holds_the_policy_near_what_it_was() {
    let drift = |bc_loss_coeff: Option<f64>| {
        let mut config = ppo_config();
        config.loss.bc_loss_coeff = bc_loss_coeff;
        config.actor_critic.n_critic_warmup_itr = 0;
        let mut bandit = Bandit::new(config, network(mlp(16), FIXED, 0), 1);
        for _ in 0..10 {
            bandit.iterate();
        }
        let batch = Batch::new(&bandit.updater.policy.network, 50, 2);
        let now = sample(&bandit.updater.policy, EVALUATE, &batch, 1);
        let then = sample(&bandit.updater.policy, SamplingMode { base_policy: true, ..EVALUATE }, &batch, 1);
        now.iter().zip(&then).map(|(a, b)| (a - b).abs()).sum::<f32>()
    };
    let (free, held) = (drift(None), drift(Some(5.0)));
    assert!(held < 0.3 * free, "moved by {held} with, by {free} without");
}

#[test]
fn summed_minibatches_make_one_step_of_each_optimiser() {
    let mut config = ppo_config();
    config.actor_critic.update_epochs = 1;
    config.actor_critic.n_critic_warmup_itr = 0;
    let steps = |config: &PpoConfig| {
        let mut bandit = Bandit::new(config.clone(), network(mlp(16), FIXED, 0), 1);
        let (_, stats) = bandit.iterate();
        let checkpoint = bandit.checkpoint();
        let of = |name: &str| checkpoint.counter(&format!("adam_steps.{name}")).unwrap();
        (stats.minibatches, of("actor_ft"), of("critic"))
    };
    assert_eq!(steps(&config), (4, 4, 4));
    config.actor_critic.grad_accumulate = 2;
    assert_eq!(steps(&config), (4, 2, 2));
    // What is left at the end of an epoch steps too.
    config.actor_critic.grad_accumulate = 3;
    assert_eq!(steps(&config), (4, 2, 2));
}

#[test]
fn an_early_stop_leaves_all_epochs() {
    let mut config = ppo_config();
    config.actor_critic.n_critic_warmup_itr = 0;
    config.actor_critic.target_kl = 1e-12;
    let (_, stats) = Bandit::new(config, network(mlp(16), LEARNED, 0), 1).iterate();
    assert!(stats.stopped_early && stats.minibatches < 20, "{stats:?}");
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let mut config = ppo_config();
    config.loss.bc_loss_coeff = Some(0.1);
    (config.loss.norm_adv, config.actor_critic.grad_accumulate) = (false, 2);
    config.actor_critic.advantages.reward_scale_running = false;
    let mut bandit = Bandit::new(config, network(mlp(16), LEARNED, 0), 1);
    bandit.iterate();
    bandit.iterate();
    let refuses = |bandit: &mut Bandit, rollout: &Rollout, words: &[&str]| {
        let before = bytes(&bandit.checkpoint());
        let error = bandit.updater.update(&bandit.workers, rollout).unwrap_err();
        assert!(matches!(error, TrainError::Numerical { .. }), "{error}");
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(bytes(&bandit.checkpoint()) == before, "{error}");
    };
    let good = bandit.collect();
    let (sample, place) = (3 * World::ENVS + 7, "chunk step 3, environment 7");
    let mut rollout = good.clone();
    rollout.rewards[sample] = f64::NAN;
    refuses(&mut bandit, &rollout, &["the reward", place]);
    let mut rollout = good.clone();
    rollout.states[STATE * sample] = f32::NAN;
    refuses(&mut bandit, &rollout, &["the observation", place]);
    // Gradients that overflow, of the critic and then of the actor, after minibatches that were sound.
    let mut rollout = good.clone();
    rollout.rewards[sample] = 1e38;
    refuses(&mut bandit, &rollout, &["the critic's gradient", place]);
    bandit.updater.config.actor_critic.value_loss.vf_coef = 0.0;
    refuses(&mut bandit, &rollout, &["gradient", place]);
    bandit.updater.config.actor_critic.value_loss.vf_coef = 0.5;

    // A weight is named itself, not what it spoils.
    let (range, _) = bandit.updater.policy.network.table().find("logvar").unwrap();
    let weights = bandit.updater.policy.finetuned[range.clone()].to_vec();
    bandit.updater.policy.finetuned[range.clone()].fill(f32::NAN);
    refuses(&mut bandit, &good, &["the actor's weight", "parameter `logvar`"]);
    bandit.updater.policy.finetuned[range].copy_from_slice(&weights);
    bandit.updater.update(&bandit.workers, &good).unwrap();
}

#[test]
fn settings_that_no_run_can_use_are_refused() {
    let refused = |change: fn(&mut PpoConfig)| {
        let mut config = ppo_config();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(refused(|c| c.loss.clip_ploss_coef = 0.0).contains("clip_ploss_coef"));
    assert!(refused(|c| c.actor_critic.advantages.gamma = 1.5).contains("gamma"));
    assert!(refused(|c| c.actor_critic.grad_accumulate = 0).contains("grad_accumulate"));
    assert!(refused(|c| c.loss.ent_coef = f64::NAN).contains("ent_coef"));
    let policy = fresh(network(mlp(16), FIXED, 0));
    let critic = Critic::new(&CriticSpec::state(&[8; 3], Activation::Mish), STATE + 1).unwrap();
    let error = PpoUpdater::new(ppo_config(), policy, critic, 4, 1, &Workers::new(1).unwrap()).unwrap_err();
    assert!(error.to_string().contains("critic"), "{error}");
}
