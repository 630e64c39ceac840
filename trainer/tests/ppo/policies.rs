//! What policies say: gradients, samples, deviations, how they begin.

use rand::Rng;
use tenon_core::network::{GaussianSpec, StdSpec};
use tenon_core::noise::SeededNoise;
use tenon_train::network::GaussianNetwork;
use tenon_train::optimizer::gradient_norm;
use tenon_train::ppo::{
    CloningLoss, GaussianPolicy, Likelihood, Minibatch, PpoCompat, PpoLoss, PpoLossConfig, Samples,
};
use tenon_train::workers::Workers;

use crate::cloning::cloner;
use crate::common::*;

fn loss_config(bc_loss_coeff: Option<f64>, compat: bool) -> PpoLossConfig {
    PpoLossConfig {
        clip_ploss_coef: 0.5,
        norm_adv: false,
        ent_coef: 0.05,
        bc_loss_coeff,
        compat: PpoCompat { joint_mixture_density: compat },
    }
}

/// PPO with entropy and behaviour cloning, and behaviour cloning alone, along the gradient itself.
#[test]
fn gradients_of_every_kind_are_the_slopes_of_their_losses() {
    let workers = Workers::new(1).unwrap();
    const ROWS: usize = 70;
    for (name, network) in every_network() {
        let mut policy = fresh(network);
        let batch = Batch::new(&policy.network, ROWS, 8);
        let chunks = sample(&policy, EXPLORE, &batch, 1);
        let mut noise = SeededNoise::new(9, 0);
        let mut numbers =
            |scale: f32| -> Vec<f32> { (0..ROWS).map(|_| noise.rng().random_range(-scale..scale)).collect() };
        let (advantages, returns, old_values) = (numbers(1.0), numbers(1.0), numbers(1.0));
        let mut loss = PpoLoss::new(&policy.network, &workers, ROWS);
        let mut samples = Samples {
            observations: batch.observations(),
            chunks: &chunks,
            advantages: &advantages,
            returns: &returns,
            old_values: &old_values,
            old_log_probs: &[],
            state_len: STATE,
            image_len: policy.network.image_len(),
            chunk_len: HORIZON,
        };
        let config = loss_config(Some(0.3), false);
        let likelihood = Likelihood { mixture: config.mixture_density() };
        let mut old = vec![0.0; ROWS];
        loss.log_probs(&workers, &policy.network, &policy.finetuned, likelihood, &samples, &mut old);
        samples.old_log_probs = &old;
        let teacher: Vec<f32> = chunks.iter().map(|x| 0.9 * x + 0.01).collect();
        let rows: Vec<u32> = (0..ROWS as u32).collect();
        // Two minibatches: their gradients are summed.
        let minibatches = [
            Minibatch { samples: &rows[..30], teacher: Some(&teacher[..30 * HORIZON]) },
            Minibatch { samples: &rows[30..], teacher: Some(&teacher[30 * HORIZON..]) },
        ];
        let mut cloning = CloningLoss::new(&policy.network, &workers, ROWS, 0.05);
        let start = policy.finetuned.clone();
        for what in ["PPO", "cloning"] {
            let mut at = |parameters: &[f32]| -> (f64, Vec<f32>) {
                policy.finetuned.copy_from_slice(parameters);
                if what == "PPO" {
                    let (terms, gradient) = loss.actor(&workers, &policy, &config, &samples, &minibatches);
                    let total = terms.iter().map(|t| t.policy_loss - 0.05 * t.entropy + 0.3 * t.bc_loss).sum();
                    (total, gradient.to_vec())
                } else {
                    let network = &policy.network;
                    let (terms, gradient) =
                        cloning.gradient(&workers, network, parameters, batch.observations(), &teacher);
                    (terms.loss, gradient.to_vec())
                }
            };
            let (_, gradient) = at(&start);
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let mut moved = |by: f64| {
                let step = (by / norm) as f32;
                let there: Vec<f32> = start.iter().zip(&gradient).map(|(p, g)| p + step * g).collect();
                at(&there).0
            };
            // A change of the loss that is well above rounding, and a step that is small where the loss is steep.
            let step = 5e-4 / norm.max(1.0);
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope / norm - 1.0).abs() < 0.02, "{name}, {what}: slope {slope}, gradient {norm}");
        }
    }
}

#[test]
fn samples_have_the_policys_mean_and_deviation_and_stay_within_the_clip() {
    const ROWS: usize = 20_000;
    for (name, std) in [("fixed", FIXED), ("learned", LEARNED), ("per state", PER_STATE)] {
        let policy = fresh(network(mlp(16), std, 0));
        // One state many times.
        let batch = Batch { states: [0.3, -0.7].repeat(ROWS), images: None };
        let deviations = deviations(&policy, &batch, 0);
        let means = sample(&policy, EVALUATE, &batch, 1);
        let chunks = sample(&policy, EXPLORE, &batch, 1);
        for k in 0..HORIZON {
            let (mean, std) = (f64::from(means[k]), f64::from(deviations[k]));
            let of = |chunks: &[f32]| -> (f64, f64, f64) {
                let d: Vec<f64> = chunks.chunks_exact(HORIZON).map(|c| f64::from(c[k]) - mean).collect();
                let average = d.iter().sum::<f64>() / ROWS as f64;
                let square = d.iter().map(|d| d * d).sum::<f64>() / ROWS as f64;
                (average, square.sqrt(), d.iter().fold(0.0, |m, d| m.max(d.abs())))
            };
            let (average, deviation, largest) = of(&chunks);
            assert!(average.abs() < 0.03 * std, "{name}: mean off by {average}");
            // Draws beyond three deviations are put there, which leaves 0.9975 σ.
            assert!((deviation / std - 0.9975).abs() < 0.015, "{name}: {deviation} of {std}");
            assert!(largest < 3.0 * std + 5e-4 && largest > 2.9 * std, "{name}: {largest} of {std}");
            let (_, deviation, _) = of(&means);
            assert!(deviation < 3e-4, "an evaluation's deviation is 1e-4, not {deviation}");
        }
    }
}

#[test]
fn a_mixture_draws_its_components_by_weight_and_is_not_clipped() {
    const ROWS: usize = 20_000;
    let mut policy = fresh(network(mlp(16), StdSpec::Fixed { std: 0.02 }, 2));
    // Constant outputs: means ±tanh(1), logits 0 and ln 3.
    let table = policy.network.table().clone();
    let mut set = |name: &str, values: &[f32]| {
        let (range, _) = table.find(name).unwrap();
        policy.finetuned[range].copy_from_slice(values);
    };
    set("mlp_mean.layers.2.weight", &[0.0; 4 * 16]);
    set("mlp_mean.layers.2.bias", &[1.0, 1.0, -1.0, -1.0]);
    set("mlp_weights.layers.2.weight", &[0.0; 2 * 16]);
    set("mlp_weights.layers.2.bias", &[0.0, 3f32.ln()]);
    let batch = Batch { states: [0.3, -0.7].repeat(ROWS), images: None };
    for (mode, std) in [(EXPLORE, 0.02), (EVALUATE, 1e-4)] {
        let chunks = sample(&policy, mode, &batch, 1);
        let second = chunks.chunks_exact(HORIZON).filter(|c| c[0] < 0.0).count() as f64 / ROWS as f64;
        assert!((second - 0.75).abs() < 0.01, "the second component was drawn in {second}");
        let distances: Vec<f64> = chunks.iter().map(|x| (f64::from(x.abs()) - f64::from(1f32.tanh())) / std).collect();
        let deviation = (distances.iter().map(|d| d * d).sum::<f64>() / distances.len() as f64).sqrt();
        assert!((deviation - 1.0).abs() < 0.02, "{deviation}");
        assert!(distances.iter().any(|d| d.abs() > 3.2), "a mixture has no clip");
        assert!(chunks.chunks_exact(HORIZON).all(|c| (c[0] < 0.0) == (c[1] < 0.0)), "one component a chunk");
    }
}

#[test]
fn deviations_are_fixed_learned_or_of_the_state() {
    let batch = Batch::new(&network(mlp(16), FIXED, 0), 2, 1);
    let of = |policy: &GaussianPolicy| [deviations(policy, &batch, 0), deviations(policy, &batch, 1)];
    let fixed = fresh(network(mlp(16), FIXED, 0));
    assert!(fixed.network.table().find("logvar").is_err(), "nothing to learn");
    assert_eq!(of(&fixed), [[0.1; 2], [0.1; 2]]);

    let mut learned = fresh(network(mlp(16), LEARNED, 0));
    let close = |stds: [Vec<f32>; 2], wanted: f32| {
        assert!(stds.iter().flatten().all(|s| (s / wanted - 1.0).abs() < 1e-5), "{stds:?}, not {wanted}");
    };
    close(of(&learned), 0.1);
    // Whatever the log-variance becomes, the bounds hold.
    let (range, shape) = learned.network.table().find("logvar").unwrap();
    assert_eq!(shape, [1]);
    for (log_variance, std) in [(5.0, 0.2), (-50.0, 0.01)] {
        learned.finetuned[range.clone()].fill(log_variance);
        close(of(&learned), std);
    }

    let [first, second] = of(&fresh(network(mlp(16), PER_STATE, 0)));
    assert_ne!(first, second);
    assert!(first.iter().chain(&second).all(|s| (0.05..=0.5).contains(s)));
}

#[test]
fn fine_tuning_takes_raw_weights_and_begins_a_log_variance_that_pre_training_had_not() {
    let fixed = spec(mlp(16), FIXED, 0);
    let cloner = cloner(1, &fixed, 1);
    let checkpoint = cloner.checkpoint();
    let learned = network(mlp(16), LEARNED, 0);
    let policy = GaussianPolicy::from_checkpoint(learned, &checkpoint, "network.", 3.0).unwrap();
    let table = policy.network.table().split(&policy.finetuned);
    for (name, values) in built(&fixed).table().split(cloner.parameters()) {
        assert_eq!(table[name], values, "{name}");
    }
    assert_eq!(table["logvar"].1, [(2.0 * 0.1f64.ln()) as f32]);
    assert_eq!(policy.frozen, policy.finetuned);
    // Anything else that lacks is an error.
    let other = GaussianPolicy::from_checkpoint(network(mlp(32), FIXED, 0), &checkpoint, "network.", 3.0);
    assert!(other.unwrap_err().to_string().contains("mlp_mean.layers.0.weight"));
}

#[test]
fn fresh_transformers_and_image_encoders_begin_as_the_spec_says() {
    let transformer = network(transformer(), LEARNED, 2);
    let values = transformer.initialise(&mut SeededNoise::new(1, 0));
    let spread = |name: &str, network: &GaussianNetwork, values: &[f32]| {
        let (range, _) = network.table().find(name).unwrap();
        let v = &values[range];
        (v.iter().map(|v| v * v).sum::<f32>() / v.len() as f32).sqrt()
    };
    for (name, std) in [
        ("transformer.pos_emb", 0.02),
        ("transformer.decoder.layers.0.self_attn.in_proj_weight", 0.02),
        ("transformer.decoder.layers.1.linear1.weight", 0.02),
        ("transformer.decoder.layers.0.multihead_attn.in_proj_bias", 0.0),
        ("transformer.head.bias", 0.0),
        ("transformer.ln_f.weight", 1.0),
        // Outside of what the reference initialises: uniform within ±1/√(2 · 16).
        ("modes_head.weight", 1.0 / 96f32.sqrt()),
    ] {
        let found = spread(name, &transformer, &values);
        assert!((found - std).abs() <= 0.3 * std, "{name}: {found}, not {std}");
    }
    let pictures = network(vit_mlp(vision(2, 32)), FIXED, 0);
    let values = pictures.initialise(&mut SeededNoise::new(1, 0));
    for (name, std) in [
        ("backbone.vit.pos_embed", 0.02),
        ("backbone.vit.net.0.mha.qkv_proj.weight", 0.02),
        ("backbone.vit.net.0.linear2.bias", 0.0),
        ("backbone.vit.net.0.layer_norm1.weight", 1.0),
        ("compress1.weight", 1.0),
        ("backbone.vit.patch_embed.embed.0.weight", 1.0 / (3.0 * 192f32).sqrt()),
    ] {
        let found = spread(name, &pictures, &values);
        assert!((found - std).abs() <= 0.3 * std, "{name}: {found}, not {std}");
    }
}

/// With σ = 0.1 and 28 values the joint log-density is about +20, beyond the clamp: the reference's mixture stands still.
#[test]
fn the_references_joint_density_of_a_mixture_has_no_gradient_where_the_corrected_one_has() {
    const ROWS: usize = 64;
    let workers = Workers::new(1).unwrap();
    let spec = GaussianSpec { trunk: mlp(16), std: FIXED, modes: 3, tanh_mean: true };
    let policy = fresh(GaussianNetwork::new(&spec, STATE, 4, 7).unwrap());
    let batch = Batch::new(&policy.network, ROWS, 8);
    let chunks = sample(&policy, EXPLORE, &batch, 1);
    let advantages: Vec<f32> = (0..ROWS).map(|i| (i as f32).sin()).collect();
    let rows: Vec<u32> = (0..ROWS as u32).collect();
    let norm = |joint: bool| {
        let config = PpoLossConfig { ent_coef: 0.0, ..loss_config(None, joint) };
        let likelihood = Likelihood { mixture: config.mixture_density() };
        let mut loss = PpoLoss::new(&policy.network, &workers, ROWS);
        let mut samples = Samples {
            observations: batch.observations(),
            chunks: &chunks,
            advantages: &advantages,
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            state_len: STATE,
            image_len: 0,
            chunk_len: 28,
        };
        let mut old = vec![0.0; ROWS];
        loss.log_probs(&workers, &policy.network, &policy.finetuned, likelihood, &samples, &mut old);
        assert_eq!(old.iter().all(|&p| p > 2.0), joint, "{old:?}");
        old.iter_mut().for_each(|p| *p = Likelihood::clamp(f64::from(*p)).0);
        samples.old_log_probs = &old;
        let minibatch = [Minibatch { samples: &rows, teacher: None }];
        gradient_norm(loss.actor(&workers, &policy, &config, &samples, &minibatch).1)
    };
    assert_eq!(norm(true), 0.0);
    assert!(norm(false) > 1e-3);
}
