//! DPPO from pictures: summed minibatches, random shifts, and what is missing is named.

use rand::Rng;
use tenon_core::network::{Activation, NetworkSpec};
use tenon_core::noise::SeededNoise;
use tenon_train::actor_critic::ActorCriticSettings;
use tenon_train::dppo::{FinetuneConfig, Policy, Updater};
use tenon_train::network::NoiseNetwork;
use tenon_train::seeds::Stream;

use crate::bandit::{Bandit, finetune_config, fresh_policy};
use crate::fixtures::*;

fn config() -> FinetuneConfig {
    config_with(|_| ())
}

/// The same with a change.
fn config_with(change: impl FnOnce(&mut ActorCriticSettings)) -> FinetuneConfig {
    let mut config = finetune_config();
    config.actor_critic = ActorCriticSettings {
        update_epochs: 2,
        batch_size: 200,
        grad_accumulate: 2,
        augment: true,
        n_critic_warmup_itr: 0,
        ..config.actor_critic
    };
    change(&mut config.actor_critic);
    config
}

fn bandit(config: FinetuneConfig, threads: usize) -> Bandit {
    let spec = NetworkSpec::VitMlp {
        time_dim: 16,
        mlp_dims: vec![16; 3],
        activation: Activation::Mish,
        residual: true,
        vision: vision(1, PIXELS),
    };
    let network = NoiseNetwork::new(&spec, STATE, HORIZON, 1).unwrap();
    let parameters = network.table().initialise(&mut Stream::ActorWeights.of(5));
    Bandit::with(Policy::from_pretrained(network, parameters, denoising()), config, threads)
}

#[test]
fn an_update_from_pictures_repeats_on_two_threads_and_resumes() {
    let mut config = config();
    config.loss.bc_loss_coeff = Some(0.1);
    let (mut one, mut two) = (bandit(config.clone(), 1), bandit(config.clone(), 2));
    let before = one.updater.policy.finetuned.clone();
    for _ in 0..2 {
        let mut rollout = one.collect();
        mottle(&mut rollout);
        let pictures = rollout.images.clone();
        let stats = one.updater.update(&one.workers, &rollout).unwrap();
        assert!(stats.actor_gradient_norm > 0.0 && stats.critic_gradient_norm > 0.0, "{stats:?}");
        assert_eq!(two.updater.update(&two.workers, &rollout).unwrap(), stats);
        assert_eq!(rollout.images, pictures);
        for bandit in [&mut one, &mut two] {
            bandit.updater.end_iteration();
        }
        assert!(one.checkpoint() == two.checkpoint());
        // The stream of shifts goes on where it was.
        two = bandit(config.clone(), 2);
        two.updater.restore(&one.checkpoint()).unwrap();
    }
    assert!(one.updater.policy.finetuned != before);
}

#[test]
fn only_pictures_before_chunks_are_shifted() {
    // A picture of one colour does not change when it is shifted; those behind the last step would.
    let mut shifted = bandit(config(), 1);
    let mut plain = bandit(config_with(|c| c.augment = false), 1);
    let mut rollout = shifted.collect();
    let mut noise = SeededNoise::new(4, 0);
    rollout.images.as_mut().unwrap().last.iter_mut().for_each(|pixel| *pixel = noise.rng().random());
    rollout.terminated.fill(false);
    let stats = shifted.updater.update(&shifted.workers, &rollout).unwrap();
    assert_eq!(plain.updater.update(&plain.workers, &rollout).unwrap(), stats);
    mottle(&mut rollout);
    let stats = shifted.updater.update(&shifted.workers, &rollout).unwrap();
    assert_ne!(plain.updater.update(&plain.workers, &rollout).unwrap(), stats);
}

#[test]
fn summed_minibatches_make_one_step_of_each_optimiser() {
    // 400 samples · 5 steps in minibatches of 200: ten an epoch.
    let steps = |grad_accumulate: usize| {
        let mut bandit = bandit(config_with(|c| (c.grad_accumulate, c.update_epochs) = (grad_accumulate, 1)), 1);
        let (_, stats) = bandit.iterate();
        let checkpoint = bandit.checkpoint();
        let of = |name: &str| checkpoint.counter(&format!("adam_steps.{name}")).unwrap();
        (stats.minibatches, of("actor_ft"), of("critic"))
    };
    assert_eq!(steps(1), (10, 10, 10));
    assert_eq!(steps(5), (10, 2, 2));
    // What is left at the end of an epoch steps too.
    assert_eq!(steps(4), (10, 3, 3));
}

#[test]
fn one_step_from_two_halves_is_the_step_from_the_sum_of_their_gradients() {
    // Advantages as they are, so that the halves' losses are each half of twice the whole's: same direction, and AdamW
    // takes no notice of the length.
    let rows = World::ENVS * World::STEPS * 5;
    let new = |batch_size: usize, grad_accumulate: usize| {
        let mut config = config_with(|c| (c.augment, c.update_epochs) = (false, 1));
        config.loss.norm_adv = false;
        (config.actor_critic.batch_size, config.actor_critic.grad_accumulate) = (batch_size, grad_accumulate);
        bandit(config, 1)
    };
    let (mut halves, mut whole) = (new(rows / 2, 2), new(rows, 1));
    let rollout = whole.collect();
    let (sum, one) =
        [&mut halves, &mut whole].map(|bandit| bandit.updater.update(&bandit.workers, &rollout).unwrap()).into();
    assert_eq!((sum.minibatches, one.minibatches), (2, 1));
    assert!((sum.actor_gradient_norm / one.actor_gradient_norm - 2.0).abs() < 1e-3, "{sum:?} {one:?}");
    assert!((sum.critic_gradient_norm / one.critic_gradient_norm - 2.0).abs() < 1e-3, "{sum:?} {one:?}");
}

#[test]
fn whole_samples_learn_in_repeatable_minibatches_of_their_own() {
    let with = |whole_samples: bool, threads: usize| bandit(config_with(|c| c.whole_samples = whole_samples), threads);
    let (mut rows, mut whole, mut on_two) = (with(false, 1), with(true, 1), with(true, 2));
    let mut rollout = rows.collect();
    mottle(&mut rollout);
    let [of_rows, of_whole, again] =
        [&mut rows, &mut whole, &mut on_two].map(|bandit| bandit.updater.update(&bandit.workers, &rollout).unwrap());
    assert_eq!(of_whole, again);
    // 2000 rows in minibatches of 200, twice: the same work in other portions.
    assert_eq!((of_whole.minibatches, of_rows.minibatches), (20, 20));
    assert_ne!(of_whole, of_rows);
    assert!(of_whole.actor_gradient_norm > 0.0 && of_whole.critic_gradient_norm > 0.0, "{of_whole:?}");
}

#[test]
fn an_early_stop_waits_for_the_optimisers_and_for_the_end_of_warm_up() {
    let mut config = config();
    config.actor_critic.target_kl = 1e-12;
    let (_, stats) = bandit(config.clone(), 1).iterate();
    assert!(stats.stopped_early && stats.minibatches % 2 == 0 && stats.minibatches < 20, "{stats:?}");
    config.actor_critic.n_critic_warmup_itr = 1;
    let (_, stats) = bandit(config, 1).iterate();
    assert!(!stats.stopped_early && stats.minibatches == 20, "{stats:?}");
}

#[test]
fn pictures_that_are_missing_or_too_few_are_named_and_change_nothing() {
    let mut bandit = bandit(config(), 1);
    let good = bandit.collect();
    let before = bytes(&bandit.checkpoint());
    let mut rollout = good.clone();
    rollout.images.as_mut().unwrap().last.pop();
    let error = bandit.updater.update(&bandit.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("after the last step"), "{error}");
    rollout.images = None;
    let error = bandit.updater.update(&bandit.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("the rollout has none"), "{error}");
    assert!(bytes(&bandit.checkpoint()) == before);
    bandit.updater.update(&bandit.workers, &good).unwrap();
    // Nothing to shift, and a critic that would see more than the policy.
    let new = |config, critic| {
        Updater::new(config, fresh_policy(denoising()), critic, HORIZON, World::ENVS, 1, &bandit.workers).unwrap_err()
    };
    let error = new(config(), critic(0)).to_string();
    assert!(error.contains("augment"), "{error}");
    let error = new(config_with(|c| c.augment = false), critic(3 * PIXELS * PIXELS)).to_string();
    assert!(error.contains("the critic sees pictures"), "{error}");
    // η would never fall on a minibatch that ends a step.
    let mut never = config();
    never.eta.learning = Some(tenon_train::dppo::EtaLearning {
        lr: tenon_train::optimizer::LrSchedule::constant(1e-3),
        weight_decay: 0.0,
        update_interval: 4,
    });
    assert!(never.check().unwrap_err().to_string().contains("common divisor"));
}
