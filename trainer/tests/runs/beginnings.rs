//! What a run begins with: the moving average of the pre-trained policy, and its normaliser.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::Limits;
use tenon_train::checkpoint::{Checkpoint, RunInfo};
use tenon_train::dataset::Dataset;
use tenon_train::finetune::{FinetuneRun, Source};
use tenon_train::pretrain::Pretrainer;
use tenon_train::settings::pretrain_config;

use crate::small_hopper::{DIFFUSION, config_text};
use crate::{GAUSSIAN, config, iterate};

const PRETRAIN: &str = "[pretrain]
seed = 1
epochs = 3
batch_size = 20
learning_rate = 1e-3
min_learning_rate = 1e-4
warmup_epochs = 1
weight_decay = 1e-6
ema_decay = 0.9
ema_start_epoch = 1
ema_every_batches = 1

[finetune]
";

/// A configuration of both stages.
pub fn text(model: &str) -> String {
    config_text(model).replacen("[finetune]\n", PRETRAIN, 1)
}

/// Three epochs on random data.
pub fn pretrained(text: &str) -> Checkpoint {
    let config = config(text);
    let mut noise = SeededNoise::new(3, 0);
    let mut values = |n: usize| (0..n).map(|_| noise.rng().random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let frames = 60;
    let data = Dataset {
        states: values(11 * frames),
        actions: values(3 * frames),
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![20; 3],
        state_dim: 11,
        action_dim: 3,
        pictures: None,
    };
    let run = RunInfo {
        network: config.policy.model.network(),
        policy: config.policy_spec(config.task.normalizer(Limits::symmetric(5.0, 11), Limits::symmetric(1.0, 3)), 0),
        critic: None,
        config: text.to_string(),
        provenance: BTreeMap::from([("data_sha256".to_string(), "abc".to_string())]),
    };
    let mut trainer = Pretrainer::new(pretrain_config(&config).unwrap(), run, 1, 1).unwrap();
    trainer.run(&data, &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap();
    trainer.checkpoint()
}

pub fn begin(text: &str, from: &Checkpoint) -> Result<FinetuneRun, String> {
    FinetuneRun::new(&config(text), text.to_string(), Source::Pretrained(from), [], 1).map_err(|e| e.to_string())
}

#[test]
fn a_run_begins_with_the_pretrained_weights_and_normaliser() {
    // Pre-training may hold a deviation fixed that fine-tuning learns.
    let fixed = GAUSSIAN.replace("\"learned\", std = 0.3, min = 0.01, max = 0.6", "\"fixed\", std = 0.3");
    assert_ne!(fixed, GAUSSIAN);
    let name = "mlp_mean.layers.0.weight";
    for (before, model) in [(DIFFUSION, DIFFUSION), (&fixed, GAUSSIAN)] {
        let from = pretrained(&text(before));
        let mut run = begin(&text(model), &from).unwrap();
        let begun = run.checkpoint();
        let weights = begun.tensor(&format!("actor_ft.{name}")).unwrap();
        assert_eq!(weights, from.tensor(&format!("ema.{name}")).unwrap());
        assert_ne!(weights, from.tensor(&format!("network.{name}")).unwrap());
        assert_eq!(begun.header.run.policy.normalizer, from.header.run.policy.normalizer);
        assert_eq!(begun.header.run.provenance["pretrain.data_sha256"], "abc");
        // The first iteration evaluates, critic warm-up takes the second.
        (0..3).for_each(|_| drop(iterate(&mut run)));
        assert_ne!(run.checkpoint().tensor(&format!("actor_ft.{name}")), begun.tensor(&format!("actor_ft.{name}")));
    }
}

#[test]
fn a_checkpoint_of_another_policy_or_stage_is_refused() {
    let from = pretrained(&text(DIFFUSION));
    let refused = |text: &str, from: &Checkpoint| begin(text, from).unwrap_err();
    let wider = text(DIFFUSION).replace("mlp_dims = [32, 32, 32]", "mlp_dims = [48, 48, 48]");
    let error = refused(&wider, &from);
    assert!(error.contains("policy.model: ") && error.contains("not the one that was pre-trained"), "{error}");
    let error = refused(&text(GAUSSIAN), &from);
    assert!(error.contains("policy.model: "), "{error}");
    let longer = text(DIFFUSION).replace("prediction_horizon = 4", "prediction_horizon = 8");
    let error = refused(&longer, &from);
    assert!(error.contains("policy.prediction_horizon: 4 was pre-trained"), "{error}");
    let finetuned = begin(&text(DIFFUSION), &from).unwrap().checkpoint();
    let error = refused(&text(DIFFUSION), &finetuned);
    assert!(error.contains("from: ") && error.contains("pre-training"), "{error}");

    let text = config_text(DIFFUSION);
    let (head, tail) = text.split_once("[policy.limits]").unwrap();
    let text = format!("{head}{}", &tail[tail.find("[policy.model]").unwrap()..]);
    let error = FinetuneRun::new(&config(&text), text.clone(), Source::Scratch, [], 1).unwrap_err().to_string();
    assert!(error.contains("policy.limits: training from scratch has no data"), "{error}");
}
