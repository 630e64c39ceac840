//! Noise on what rollouts see and execute: it is that of the table, it is off by default, and a run with it restarts exactly.

use std::fmt::Write;

use tenon_core::config::{TaskConfig, Values};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::randomisation::Randomisation;
use tenon_core::spec::PolicySpec;
use tenon_core::task::TaskName;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::environments::{BatchSettings, TaskBatch};
use tenon_train::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use tenon_train::finetune::FinetuneRun;
use tenon_train::randomisation::randomisation;
use tenon_train::sampling::{ChunkMode, PretrainedWeights, TrainedPolicy};
use tenon_train::workers::Workers;

use crate::restarting::{stored, whole_run, without_times};
use crate::small_hopper::{DIFFUSION, config_text};
use crate::{GAUSSIAN, begin, config, iterate};

/// Standard errors that a statistic may be off: 1 in 1.7 million of a normal distribution lies farther out.
const LEVEL: f64 = 5.0;
/// σ of each value of Hopper's observation (m, rad, m/s, rad/s).
const STDS: [f64; 11] = [0.01, 0.02, 0.0, 0.02, 0.05, 0.1, 0.1, 0.2, 0.3, 0.3, 0.3];

/// `[randomisation]` of Hopper with a share of bias.
fn hopper_noise(bias_share: f64, more: &str) -> String {
    format!(
        "[randomisation]\nbias_share = {bias_share:?}\n{more}\n[[randomisation.field]]\nname = \"task\"\nstd = {STDS:?}\n"
    )
}

fn noise_of(text: &str) -> Randomisation {
    randomisation(&config(text)).unwrap().unwrap()
}

fn tensors_and_streams(checkpoint: &Checkpoint) -> Checkpoint {
    let mut checkpoint = checkpoint.clone();
    checkpoint.header.run.config.clear();
    checkpoint
}

#[test]
fn a_run_without_noise_is_the_run_without_the_table_to_the_bit() {
    for model in [DIFFUSION, GAUSSIAN] {
        let (plain, records) = whole_run(&config_text(model), 1);
        let zero = "[randomisation]\nevaluation = true\nbias_share = 0.25\n[[randomisation.field]]\nname = \"task\"\nstd = [0.0]\n";
        let (zero, others) = whole_run(&(config_text(model) + zero), 1);
        for (a, b) in plain.iter().zip(&zero) {
            assert!(tensors_and_streams(a) == tensors_and_streams(b));
            assert!(a.header.streams.keys().all(|name| !name.contains("random")));
        }
        assert!(records.iter().zip(&others).all(|(a, b)| without_times(a) == without_times(b)));
        let (noisy, _) = whole_run(&(config_text(model) + &hopper_noise(0.5, "")), 1);
        assert!(tensors_and_streams(plain.last().unwrap()) != tensors_and_streams(noisy.last().unwrap()));
    }
}

#[test]
fn a_randomised_run_resumed_after_any_iteration_ends_with_the_same_bits_on_one_and_two_threads() {
    let observations = hopper_noise(0.5, "");
    let both = hopper_noise(0.3, "action_std = 0.03\nevaluation = true");
    let actions = "[randomisation]\naction_std = 0.1\n".to_string();
    // Training goes on with the episodes of an evaluation, which had no noise.
    let compat = "[compat]\nno_reset_after_evaluation = true\n".to_string() + &observations;
    for (model, noise) in [(DIFFUSION, &observations), (GAUSSIAN, &both), (DIFFUSION, &actions), (GAUSSIAN, &compat)] {
        let text = config_text(model) + noise;
        let config: TaskConfig = config(&text);
        let (checkpoints, records) = whole_run(&text, 1);
        let last = checkpoints.last().unwrap();
        for (done, checkpoint) in checkpoints.iter().enumerate() {
            for threads in [1, 2] {
                let mut run = FinetuneRun::resume(&config, &stored(checkpoint), threads).unwrap();
                assert!(run.checkpoint() == *checkpoint, "stored and restored, {done} is another: {noise}");
                for record in &records[done..] {
                    assert_eq!(without_times(&iterate(&mut run)), without_times(record), "from {done}: {noise}");
                }
                assert!(run.checkpoint() == *last, "from {done} on {threads} threads the end is another: {noise}");
            }
        }
        assert!(whole_run(&text, 2).0 == checkpoints, "two threads give other bits: {noise}");
    }
}

#[test]
fn a_checkpoint_of_a_run_with_other_noise_is_refused() {
    let plain = begin(&config_text(GAUSSIAN), 1).checkpoint();
    let noisy = config_text(GAUSSIAN) + &hopper_noise(0.5, "");
    let error = FinetuneRun::resume(&config(&noisy), &plain, 1).unwrap_err().to_string();
    assert!(error.contains("randomisation.0"), "{error}");
    let less = config_text(GAUSSIAN) + "[randomisation]\naction_std = 0.03\n";
    let error = FinetuneRun::resume(&config(&less), &begin(&noisy, 1).checkpoint(), 1).unwrap_err().to_string();
    assert!(error.contains("randomisation.biases") && error.contains("other noise"), "{error}");
}

fn spec() -> PolicySpec {
    begin(&config_text(GAUSSIAN), 1).run_info().policy.clone()
}

fn hopper(environments: usize, noise: Option<Randomisation>) -> TaskBatch {
    let settings = BatchSettings { environments, threads: 1, seed: 7, auto_reset: true };
    let batch = TaskBatch::new(TaskName::Hopper, &spec(), settings).unwrap();
    match noise {
        Some(noise) => batch.randomised(noise),
        None => batch,
    }
}

/// What was added to what the environments show, in physical units, `[environments][11]`.
fn added(batch: &TaskBatch, normalizer: &Normalizer) -> Vec<Vec<f64>> {
    let mut seen = batch.states().to_vec();
    normalizer.denormalize_observation(&mut seen);
    let pairs = seen.iter().zip(batch.observations()).map(|(seen, shown)| f64::from(*seen) - shown);
    pairs.collect::<Vec<f64>>().chunks_exact(11).map(<[f64]>::to_vec).collect()
}

fn std(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// The noise has mean zero, so a standard deviation about zero has a standard error of σ / √(2n).
fn assert_std(what: &str, values: &[f64], wanted: f64) {
    let (found, n) = (std(values), values.len() as f64);
    // What single precision leaves of a value of some metres.
    let allowed = LEVEL * wanted / (2.0 * n).sqrt() + 1e-6;
    assert!((found - wanted).abs() <= allowed, "{what}: σ {found}, not {wanted} ± {allowed}");
    let mean = values.iter().sum::<f64>() / n;
    assert!(mean.abs() <= LEVEL * wanted / n.sqrt() + 1e-6, "{what}: mean {mean} of σ {wanted}");
}

#[test]
fn what_rollouts_see_is_what_environments_show_and_the_noise_of_the_table() {
    const ENVIRONMENTS: usize = 400;
    let normalizer = spec().normalizer;
    // All bias: constant within an episode, new in the next one. All jitter: new every time.
    for share in [1.0, 0.0, 0.5] {
        let noise = noise_of(&(config_text(GAUSSIAN) + &hopper_noise(share, "")));
        let (mut batch, mut plain) = (hopper(ENVIRONMENTS, Some(noise)), hopper(ENVIRONMENTS, None));
        batch.reset();
        plain.reset();
        let mut before = added(&batch, &normalizer);
        let chunks = vec![0.3; ENVIRONMENTS * 12];
        let (mut same, mut ended) = (Vec::new(), 0);
        for _ in 0..10 {
            batch.step(&chunks).unwrap();
            plain.step(&chunks).unwrap();
            assert_eq!(batch.observations(), plain.observations(), "the simulation itself has no noise");
            let now = added(&batch, &normalizer);
            for (value, wanted) in STDS.into_iter().enumerate() {
                let column: Vec<f64> = now.iter().map(|row| row[value]).collect();
                assert_std(&format!("value {value}, share {share}"), &column, wanted);
            }
            for (i, outcome) in batch.outcomes().iter().enumerate() {
                ended += usize::from(outcome.ended());
                // The change of one value from chunk to chunk, in units of its σ.
                let change = (now[i][7] - before[i][7]) / STDS[7];
                if outcome.ended() {
                    assert!(change.abs() > 1e-4, "an episode that begins has a bias of its own");
                    let last = batch.final_state(i)[7] - plain.final_state(i)[7];
                    let last = f64::from(last) * 7.0 / STDS[7];
                    // The last observation belongs to the episode that ended.
                    if share == 1.0 {
                        assert!((last - before[i][7] / STDS[7]).abs() < 1e-4, "{last}");
                    }
                } else {
                    same.push(change);
                }
            }
            before = now;
        }
        assert!(ended > ENVIRONMENTS / 2, "{ended} episodes ended");
        // Both jitters are in the difference of two observations of an episode: 2 (1 − share) σ².
        let wanted = (2.0 * (1.0 - share)).sqrt();
        if share == 1.0 {
            assert!(same.iter().all(|change| change.abs() < 1e-4));
        } else {
            // Neighbouring differences share a jitter, so n counts half at the least.
            let allowed = LEVEL * wanted / (same.len() as f64).sqrt();
            assert!((std(&same) - wanted).abs() < allowed, "share {share}: {} of {wanted}", std(&same));
        }
    }
}

#[test]
fn executed_actions_have_the_noise_of_the_table_and_sampled_ones_have_none() {
    const ENVIRONMENTS: usize = 150;
    const STD: f64 = 0.03;
    let text = include_str!("../../../configs/tasks/avoid_m1.toml").to_string();
    let parse = |text: &str| TaskConfig::parse("task.toml", text, Values::Latest).unwrap();
    let avoid = parse(&text);
    let (observation, action) = (Limits::symmetric(1.0, 4), Limits::symmetric(0.005, 2));
    let spec = avoid.policy_spec(avoid.task.normalizer(observation, action), 10);
    let settings = BatchSettings { environments: ENVIRONMENTS, threads: 2, seed: 7, auto_reset: false };
    let batch = || TaskBatch::new(avoid.task, &spec, settings).unwrap();
    let noise = format!("{text}\n[randomisation]\naction_std = {STD}\n");
    let (mut noisy, mut plain) = (batch().randomised(randomisation(&parse(&noise)).unwrap().unwrap()), batch());
    noisy.reset();
    plain.reset();
    assert_eq!(noisy.states(), plain.states(), "observations have no noise");
    let chunks = vec![0.1; ENVIRONMENTS * spec.chunk_len()];
    noisy.step(&chunks).unwrap();
    plain.step(&chunks).unwrap();
    // The commanded position is the sum of the increments; an observation of Avoid is one action old, so of Ta − 1 of them.
    let steps = (spec.action_horizon - 1) as f64;
    for axis in 0..2 {
        let column =
            |batch: &TaskBatch| batch.observations().iter().skip(axis).step_by(4).copied().collect::<Vec<f64>>();
        let differences: Vec<f64> = column(&noisy).iter().zip(column(&plain)).map(|(a, b)| a - b).collect();
        assert_std(&format!("commanded position, axis {axis}"), &differences, STD * 0.005 * steps.sqrt());
    }
}

#[test]
fn evaluations_have_no_noise_unless_the_configuration_says_so_and_then_the_same_for_any_batch() {
    let run = begin(&config_text(DIFFUSION), 1);
    let policy = TrainedPolicy::of(&run.checkpoint(), PretrainedWeights::Finetuning, 3.0).unwrap();
    let noise = noise_of(&(config_text(DIFFUSION) + &hopper_noise(0.5, "action_std = 0.1")));
    let judged = |environments: usize, threads: usize, noise: Option<&Randomisation>| -> Evaluation {
        let workers = Workers::new(threads).unwrap();
        let (task, episodes, seed) = (TaskName::Hopper, 30, 3);
        let options =
            EvaluationOptions { task, episodes, seed, environments, threads, randomisation: noise, pictures: None };
        let mode = ChunkMode::evaluation(policy.as_ref());
        let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, environments);
        evaluate(&mut source, &run.run_info().policy, options, &|| false, &mut |_, _| {}).unwrap().unwrap()
    };
    let noisy = judged(1, 1, Some(&noise));
    for (environments, threads) in [(3, 2), (30, 1)] {
        assert_eq!(judged(environments, threads, Some(&noise)), noisy, "{environments} environments");
    }
    let plain = judged(3, 1, None);
    assert_ne!(plain, noisy);

    // Of a run: the policy of the checkpoint is that of `plain`, whatever its rollouts see.
    let pair = |noise: &str| {
        let text =
            config_text(DIFFUSION).replace("episodes = 5\n", "episodes = 30\n").replace("seed = 1000", "seed = 3");
        let text = text + noise;
        let run = begin(&text, 1);
        run.judge(&config(&text), &|| false, &mut |_, _, _| {}).unwrap().unwrap()
    };
    let off = hopper_noise(0.5, "action_std = 0.1");
    let on = hopper_noise(0.5, "action_std = 0.1\nevaluation = true");
    assert_eq!(pair(&off), pair(""));
    assert_eq!(pair(&off).evaluation_noise, plain);
    assert_eq!(pair(&on).evaluation_noise, noisy);

    // Iterations that evaluate follow the same key: the first one does.
    let first = |noise: &str| {
        let mut run = begin(&(config_text(GAUSSIAN) + noise), 1);
        let mut text = String::new();
        write!(text, "{}", without_times(&iterate(&mut run))).unwrap();
        text
    };
    assert_eq!(first(&off), first(""));
    assert_ne!(first(&on), first(""));
}
