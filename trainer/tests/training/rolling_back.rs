//! What is not finite is named, and the learner stands as if the update had never begun.

use tenon_train::TrainError;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dppo::{FinetuneConfig, Rollout};

use crate::bandit::{Bandit, finetune_config};
use crate::fixtures::{HORIZON, STATE, World, bytes};

fn config() -> FinetuneConfig {
    let mut config = finetune_config();
    config.loss.bc_loss_coeff = Some(0.1);
    config.actor_critic.update_epochs = 2;
    config
}

/// A learner that has moved, so that nothing is zero.
fn moved(config: FinetuneConfig) -> Bandit {
    let mut bandit = Bandit::new(config, 1);
    bandit.iterate();
    bandit.iterate();
    bandit
}

/// Refuses `rollout`, naming all of `words`; a whole checkpoint is the same before and after.
fn refuses(bandit: &mut Bandit, rollout: &Rollout, words: &[&str]) {
    let before = bytes(&bandit.checkpoint());
    let error = bandit.updater.update(&bandit.workers, rollout).unwrap_err();
    assert!(matches!(error, TrainError::Numerical { .. }), "{error}");
    let error = error.to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    assert!(bytes(&bandit.checkpoint()) == before, "{error}");
}

#[test]
fn a_spoiled_rollout_is_named_and_the_next_one_continues_as_if_it_had_never_been() {
    let (mut bandit, mut other) = (moved(config()), moved(config()));
    let rollout = bandit.collect();
    let sample = 3 * World::ENVS + 7;
    type Spoil = fn(&mut Rollout, usize);
    let spoilers: [(&str, Spoil); 4] = [
        ("the reward", |r, i| r.rewards[i] = f64::NAN),
        ("the observation", |r, i| r.states[STATE * i + 1] = f32::INFINITY),
        ("the sampled chain", |r, i| r.chains[6 * HORIZON * i] = f32::NAN),
        // Finite, but not its square: the scaler has moved when it is found.
        ("the running variance of rewards", |r, i| r.rewards[i] = 1e300),
    ];
    for (what, spoil) in spoilers {
        let mut spoiled = rollout.clone();
        spoil(&mut spoiled, sample);
        refuses(&mut bandit, &spoiled, &[what, "chunk step 3, environment 7"]);
    }
    let mut spoiled = rollout.clone();
    spoiled.last_states[STATE * 4] = f32::NAN;
    refuses(&mut bandit, &spoiled, &["after the last step", "environment 4"]);

    other.collect();
    let stats = bandit.updater.update(&bandit.workers, &rollout).unwrap();
    assert_eq!(other.updater.update(&other.workers, &rollout).unwrap(), stats);
    assert!(bytes(&bandit.checkpoint()) == bytes(&other.checkpoint()));
}

#[test]
fn an_overflow_late_in_an_update_undoes_the_minibatches_before_it() {
    // One advantage so large that its gradient overflows, in a minibatch that comes after others.
    let mut c = config();
    (c.loss.norm_adv, c.actor_critic.value_loss.vf_coef) = (false, 0.0);
    c.actor_critic.advantages.reward_scale_running = false;
    let mut bandit = moved(c);
    let mut rollout = bandit.collect();
    rollout.rewards[5 * World::ENVS + 11] = 1e38;
    refuses(&mut bandit, &rollout, &["environment 11"]);
    // The critic's error is as large.
    bandit.updater.config.actor_critic.value_loss.vf_coef = 1.0;
    refuses(&mut bandit, &rollout, &["chunk step 5, environment 11"]);
    rollout.rewards[5 * World::ENVS + 11] = 0.0;
    bandit.updater.update(&bandit.workers, &rollout).unwrap();
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut bandit = moved(config());
    let rollout = bandit.collect();
    let (name, range) = {
        let table = bandit.updater.policy.network.table();
        let (name, _, range) = table.iter().nth(3).unwrap();
        (name.to_owned(), range)
    };
    bandit.updater.policy.finetuned[range.start + 1] = f32::NAN;
    refuses(&mut bandit, &rollout, &["the actor's weight", &format!("parameter `{name}`")]);

    // The same for the critic, whose weights come from a checkpoint.
    let mut bandit = moved(config());
    let mut checkpoint: Checkpoint = bandit.checkpoint();
    let mut weights = bandit.updater.actor_critic.critic_parameters().to_vec();
    weights[0] = f32::INFINITY;
    checkpoint.put_parameters("critic.", bandit.updater.actor_critic.critic().table(), &weights);
    bandit.updater.restore(&checkpoint).unwrap();
    refuses(&mut bandit, &rollout, &["the critic's weight", "parameter `Q1.layers.0.weight`"]);
}

#[test]
fn an_infinite_learning_rate_leaves_the_weights_alone() {
    let mut bandit = moved(config());
    let rollout = bandit.collect();
    bandit.updater.config.actor_critic.actor_lr.min_lr = f64::INFINITY;
    bandit.updater.config.actor_critic.actor_lr.max_lr = f64::INFINITY;
    refuses(&mut bandit, &rollout, &["the actor's weight"]);
}
