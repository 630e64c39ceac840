//! What looks unintended in the reference (spec dppo.md §10): mended by default, to be had by a key for comparison.

use tenon_core::network::{GaussianSpec, PolicyNetwork, StdSpec};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dppo::TimeOut;
use tenon_train::finetune::FinetuneRun;
use tenon_train::sampling::{PretrainedWeights, TrainedPolicy};
use tenon_train::settings::{dppo_config, ppo_config};

use crate::beginnings::{begin as begin_from, pretrained, text};
use crate::small_hopper::{DIFFUSION, config_text};
use crate::{GAUSSIAN, begin, config, iterate};

const NAME: &str = "mlp_mean.layers.0.weight";

/// The same configuration with the reference's behaviour.
fn with_key(key: &str, text: &str) -> String {
    format!("{text}\n[compat]\n{key} = true\n")
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn tensor(checkpoint: &Checkpoint, prefix: &str) -> Vec<f32> {
    checkpoint.tensor(&format!("{prefix}{NAME}")).unwrap().1.to_vec()
}

#[test]
fn training_goes_on_with_the_episodes_of_an_evaluation_only_by_its_key() {
    /// Control steps of the episodes under way.
    fn running(run: &FinetuneRun) -> f64 {
        run.checkpoint().f64("running_episodes").unwrap().chunks(3).map(|episode| episode[2]).sum()
    }
    for model in [DIFFUSION, GAUSSIAN] {
        // Steps of all episodes that the first training saw, less those that it made itself, and what an evaluation left.
        let carried = |text: &str| {
            let mut run = begin(text, 1);
            assert!(iterate(&mut run).evaluation.is_some());
            let left = running(&run);
            let record = iterate(&mut run);
            let training = record.training.unwrap();
            let finished = training.episodes as f64 * training.mean_episode_steps.unwrap_or(0.0);
            (finished + running(&run) - record.environment_steps as f64, left)
        };
        let text = config_text(model);
        let (mended, left) = carried(&text);
        assert!(mended.abs() < 1e-6 && left > 0.0, "{mended}, {left}");
        let (reference, left) = carried(&with_key("no_reset_after_evaluation", &text));
        assert!((reference - left).abs() < 1e-6, "{reference}, not {left}");
    }
}

#[test]
fn a_gaussian_begins_with_its_last_weights_only_by_its_key() {
    let key = "raw_weights_of_gaussians";
    for (model, reference) in [(GAUSSIAN, "network."), (DIFFUSION, "ema.")] {
        let (text, from) = (text(model), pretrained(&text(model)));
        let begun = |text: &str| tensor(&begin_from(text, &from).unwrap().checkpoint(), "actor_ft.");
        assert_eq!(begun(&text), tensor(&from, "ema."));
        assert_eq!(begun(&with_key(key, &text)), tensor(&from, reference));
        assert_ne!(tensor(&from, "ema."), tensor(&from, "network."));
    }
}

#[test]
fn an_evaluation_judges_the_last_weights_of_pretraining_only_by_its_key() {
    for model in [DIFFUSION, GAUSSIAN] {
        let (text, from) = (text(model), pretrained(&text(model)));
        let judged = |text: &str, checkpoint: &Checkpoint| {
            let weights = PretrainedWeights::of_evaluation(&config(text));
            let (table, parameters) = match TrainedPolicy::of(checkpoint, weights, 3.0).unwrap() {
                TrainedPolicy::Diffusion(policy) => (policy.network.table().clone(), policy.finetuned),
                TrainedPolicy::Gaussian(policy) => (policy.network.table().clone(), policy.finetuned),
            };
            let (range, _) = table.find(NAME).unwrap();
            parameters[range].to_vec()
        };
        let key = "raw_weights_in_evaluation";
        assert_eq!(judged(&text, &from), tensor(&from, "ema."));
        assert_eq!(judged(&with_key(key, &text), &from), tensor(&from, "network."));
        // What fine-tuning begins with is what is judged before it.
        let reference = if model == GAUSSIAN { "network." } else { "ema." };
        assert_eq!(judged(&with_key("raw_weights_of_gaussians", &text), &from), tensor(&from, reference));
        // A fine-tuned policy is judged as it is.
        let mut run = begin_from(&text, &from).unwrap();
        (0..3).for_each(|_| drop(iterate(&mut run)));
        let finetuned = run.checkpoint();
        assert_eq!(judged(&with_key(key, &text), &finetuned), tensor(&finetuned, "actor_ft."));
    }
}

#[test]
fn pretraining_overrules_the_bounds_of_a_deviation_only_by_its_key() {
    let key = "std_bounds_of_pretraining";
    let bounds = "std = 0.3, min = 0.01, max = 0.6";
    let wide = replaced(GAUSSIAN, bounds, "std = 0.5, min = 0.01, max = 0.6");
    let fixed = replaced(GAUSSIAN, &format!("\"learned\", {bounds}"), "\"fixed\", std = 0.5");
    let narrow = text(&replaced(GAUSSIAN, bounds, "std = 0.1, min = 0.02, max = 0.2"));
    let bounds_of = |run: &FinetuneRun| match run.run_info().network {
        PolicyNetwork::Gaussian(GaussianSpec { std: StdSpec::Learned { min, max, .. }, .. }) => [min, max],
        _ => panic!("a deviation that is not learned"),
    };
    let from = pretrained(&text(&wide));
    // The first iteration evaluates, critic warm-up takes the second; the third says how the actor deviates.
    let std = |text: &str| {
        let mut run = begin_from(text, &from).unwrap();
        (0..2).for_each(|_| drop(iterate(&mut run)));
        (bounds_of(&run), iterate(&mut run).training.unwrap().policy_std.unwrap())
    };
    let (bounds, mended) = std(&narrow);
    assert!(bounds == [0.02, 0.2] && (mended - 0.2).abs() < 1e-6, "{bounds:?}, {mended}");
    let (bounds, reference) = std(&with_key(key, &narrow));
    assert!(bounds == [0.01, 0.6] && reference > 0.45, "{bounds:?}, {reference}");
    // A fixed deviation has bounds in the reference all the same; training from scratch takes none over.
    let run = begin_from(&with_key(key, &narrow), &pretrained(&text(&fixed))).unwrap();
    assert_eq!(bounds_of(&run), [0.01, 1.0]);
    assert_eq!(bounds_of(&begin(&with_key(key, &narrow), 1)), [0.02, 0.2]);
}

#[test]
fn a_mixture_learns_from_its_joint_density_only_by_its_key() {
    let mended = config_text(&format!("{GAUSSIAN}\nmodes = 2"));
    let reference = with_key("joint_mixture_density", &mended);
    let (mut mended, mut reference) = (begin(&mended, 1), begin(&reference, 1));
    let mut same = || {
        iterate(&mut mended);
        iterate(&mut reference);
        tensor(&mended.checkpoint(), "actor_ft.") == tensor(&reference.checkpoint(), "actor_ft.")
    };
    // The density bears on nothing but the actor's steps, the first of which are in the third iteration.
    assert_eq!([same(), same(), same()], [true, true, false]);
}

#[test]
fn what_has_no_key_is_a_setting() {
    for model in [DIFFUSION, GAUSSIAN] {
        let text = config_text(model);
        let settings = |text: &str| {
            let config = config(text);
            if model == GAUSSIAN {
                ppo_config(&config).unwrap().actor_critic
            } else {
                dppo_config(&config).unwrap().actor_critic
            }
        };
        assert_eq!(settings(&text).advantages.time_out, TimeOut::Bootstrap);
        for (name, time_out) in [("leaky", TimeOut::Leaky), ("terminal", TimeOut::Terminal)] {
            let text = replaced(&text, "gamma = 0.99,", &format!("gamma = 0.99, time_out = \"{name}\","));
            assert_eq!(settings(&text).advantages.time_out, time_out);
        }

        // Rates of two U-Nets: the least one is above the other.
        let inverted = replaced(&text, "actor_min_learning_rate = 1e-4", "actor_min_learning_rate = 5e-3");
        let rates = settings(&inverted).actor_lr;
        assert_eq!([rates.rate(0), rates.rate(2)], [5e-3, 1e-3]);
        assert!(rates.rate(7) > rates.rate(5), "it rises as the cycle ends");

        // The reference's value loss weighs nothing where it is forgotten; here it cannot be.
        let moves = |text: &str| {
            let mut run = begin(text, 1);
            let critic = |run: &FinetuneRun| run.checkpoint().tensor("critic.Q1.layers.0.weight").unwrap().1.to_vec();
            iterate(&mut run);
            let before = critic(&run);
            iterate(&mut run);
            critic(&run) != before
        };
        assert!(moves(&text) && !moves(&replaced(&text, "vf_coef = 0.5", "vf_coef = 0.0")));
        let forgotten = replaced(&text, "vf_coef = 0.5\n", "");
        let error = tenon_core::config::TaskConfig::parse("task.toml", &forgotten, tenon_core::config::Values::Latest);
        assert!(error.unwrap_err().to_string().contains("vf_coef"));
    }
}
