//! Fine-tuning by DPPO: it learns, repeats bit for bit, resumes, refuses what is broken.

use tenon_core::spec::Denoising;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dppo::TimeOut;
use tenon_train::rollout::AdvantageSettings;

use crate::bandit::{Bandit, finetune_config, fresh_policy};
use crate::fixtures::denoising;

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
    let before = (bandit.updater.policy.finetuned.clone(), bandit.updater.actor_critic.critic_parameters().to_vec());
    let (_, stats) = bandit.iterate();
    assert_eq!(bandit.updater.policy.finetuned, before.0);
    assert_ne!(bandit.updater.actor_critic.critic_parameters(), before.1);
    assert_eq!(stats.minibatches, 16);
    bandit.iterate();
    assert_ne!(bandit.updater.policy.finetuned, before.0);
    assert_eq!(bandit.updater.policy.frozen, before.0);
}

#[test]
fn fine_tuning_gives_the_same_bits_on_one_and_two_threads() {
    let mut config = finetune_config();
    config.loss.bc_loss_coeff = Some(0.1);
    config.actor_critic.update_epochs = 1;
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
    config.actor_critic.n_critic_warmup_itr = 0;
    config.actor_critic.target_kl = 1e-12;
    let (_, stats) = Bandit::new(config, 1).iterate();
    assert!(stats.stopped_early && stats.minibatches < 16, "{stats:?}");
}

#[test]
fn time_outs_have_names_in_configurations_and_bootstrap_where_none_is_given() {
    let advantages = finetune_config().actor_critic.advantages;
    for (name, time_out) in
        [("bootstrap", TimeOut::Bootstrap), ("terminal", TimeOut::Terminal), ("leaky", TimeOut::Leaky)]
    {
        let mut table = toml::Table::try_from(advantages).unwrap();
        table.insert("time_out".into(), name.into());
        assert_eq!(table.try_into::<AdvantageSettings>().unwrap().time_out, time_out);
    }
    let mut table = toml::Table::try_from(advantages).unwrap();
    table.remove("time_out").unwrap();
    assert_eq!(table.clone().try_into::<AdvantageSettings>().unwrap().time_out, TimeOut::Bootstrap);
    table.insert("time_out".into(), "Leaky".into());
    assert!(table.try_into::<AdvantageSettings>().is_err());
}

#[test]
fn one_finetuned_step_has_a_clip_range_and_trains() {
    let one = Denoising { finetuned_steps: 1, ..denoising() };
    let mut config = finetune_config();
    (config.actor_critic.n_critic_warmup_itr, config.loss.clip_ploss_coef_base) = (0, 0.001);
    let (_, stats) = Bandit::with(fresh_policy(one), config, 1).iterate();
    assert!(stats.policy_loss.is_finite() && stats.actor_gradient_norm > 0.0, "{stats:?}");
}
