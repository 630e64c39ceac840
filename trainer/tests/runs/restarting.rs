//! A run that goes on from any of its checkpoints is the run that was never stopped.

use tenon_core::config::TaskConfig;
use tenon_core::spec::Prediction;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::finetune::{FinetuneRun, Goal, IterationRecord};

use crate::small_hopper::{CHUNK_STEPS, DIFFUSION, ENVIRONMENTS, EVALUATE_EVERY, ITERATIONS, config_text};
use crate::{GAUSSIAN, begin, config, iterate};

/// Configurations of every kind that fine-tuning knows.
fn kinds() -> [(&'static str, String); 7] {
    let ddpm = config_text(DIFFUSION);
    let with = |changes: &[(&str, &str)]| {
        changes.iter().fold(ddpm.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    };
    let ddim = [("denoising_steps = 4", "denoising_steps = 8"), ("\"ddpm\"", "\"ddim\", steps = 4")];
    let eta = "[finetune.diffusion]\neta = { module = { base = 0.5, min = 0.1, max = 1.0, mlp_dims = [8] }, \
               learning_rate = 1e-3, update_interval = 3 }\n";
    let annealing = "[finetune.diffusion]\nannealing = { every_iterations = 3, decrement = 1 }\n";
    [
        ("DDPM", ddpm.clone()),
        ("DDPM of clean chunks", config_text(&format!("{DIFFUSION}\nprediction = \"sample\""))),
        (
            "DDPM, K' falls, summed minibatches",
            with(&[
                ("[finetune.diffusion]\n", annealing),
                ("batch_size = 9\n", "batch_size = 9\ngrad_accumulate = 2\n"),
            ]),
        ),
        ("DDIM", with(&ddim)),
        ("DDIM, learned η", with(&[ddim[0], ddim[1], ("[finetune.diffusion]\n", eta)])),
        ("Gaussian", config_text(GAUSSIAN)),
        ("mixture", config_text(&format!("{GAUSSIAN}\nmodes = 2"))),
    ]
}

/// A record as it is written, without what differs from run to run.
pub fn without_times(record: &IterationRecord) -> serde_json::Value {
    let mut value = serde_json::to_value(record).unwrap();
    value.as_object_mut().unwrap().retain(|key, _| !key.contains("second"));
    value
}

/// Through a file and back.
pub fn stored(checkpoint: &Checkpoint) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    checkpoint.write(&path).unwrap();
    Checkpoint::read(&path).unwrap()
}

/// A run to its end: checkpoints 0 to the last, records.
pub fn whole_run(text: &str, threads: usize) -> (Vec<Checkpoint>, Vec<IterationRecord>) {
    let mut run = begin(text, threads);
    let (mut checkpoints, mut records) = (vec![run.checkpoint()], Vec::new());
    for _ in 0..ITERATIONS {
        records.push(iterate(&mut run));
        checkpoints.push(run.checkpoint());
    }
    (checkpoints, records)
}

#[test]
fn a_run_resumed_after_any_iteration_ends_with_the_same_bits_on_one_and_two_threads() {
    for (name, text) in kinds() {
        let config: TaskConfig = config(&text);
        if let Some(model) = config.policy.diffusion() {
            assert_eq!(model.prediction == Prediction::Sample, name.contains("clean"), "{name}");
        }
        let (checkpoints, records) = whole_run(&text, 1);
        let last = checkpoints.last().unwrap();
        assert!(checkpoints.windows(2).all(|pair| pair[0] != pair[1]));
        for (done, checkpoint) in checkpoints.iter().enumerate() {
            for threads in [1, 2] {
                let mut run = FinetuneRun::resume(&config, &stored(checkpoint), threads).unwrap();
                assert_eq!(run.iterations_done(), done as u64);
                assert!(run.checkpoint() == *checkpoint, "{name}: stored and restored, {done} is another");
                for record in &records[done..] {
                    assert_eq!(without_times(&iterate(&mut run)), without_times(record), "{name}, from {done}");
                }
                assert!(run.checkpoint() == *last, "{name}: from {done} on {threads} threads the end is another");
            }
        }
        let (two, _) = whole_run(&text, 2);
        assert!(two == checkpoints, "{name}: two threads give other bits");
    }
}

#[test]
fn evaluations_follow_the_plan_and_count_no_steps() {
    let most = (ENVIRONMENTS * CHUNK_STEPS * 4) as u64;
    for model in [DIFFUSION, GAUSSIAN] {
        let (checkpoints, records) = whole_run(&config_text(model), 1);
        let mut steps = 0;
        for (i, record) in records.iter().enumerate() {
            assert_eq!((record.iteration, record.undone, record.faults), (i as u64 + 1, 0, 0));
            let evaluates = (i as u64).is_multiple_of(EVALUATE_EVERY);
            assert_eq!((record.evaluation.is_some(), record.training.is_none()), (evaluates, evaluates), "{i}");
            if evaluates {
                assert_eq!(record.environment_steps, steps, "iteration {i} only evaluates");
                let learnt = |prefix: &str| {
                    let of =
                        |c: &Checkpoint| c.tensor(&format!("{prefix}mlp_mean.layers.0.weight")).unwrap().1.to_vec();
                    (of(&checkpoints[i]), of(&checkpoints[i + 1]))
                };
                let (before, after) = learnt("actor_ft.");
                assert_eq!(before, after, "an evaluation teaches nothing");
            } else {
                let made = record.environment_steps - steps;
                assert!(made > most / 2 && made <= most, "{made} of {most}");
            }
            steps = record.environment_steps;
        }
        // Random policies fall: what was compared above has episodes that end, and that run on into the next iteration.
        let finished: usize = records.iter().filter_map(|r| r.training.as_ref()).map(|t| t.episodes).sum();
        let lengths = records.iter().filter_map(|r| r.training.as_ref()?.mean_episode_steps);
        assert!(finished >= 8 && lengths.clone().all(|steps| steps < 100.0), "{finished}: {records:?}");
    }
}

#[test]
fn a_judgement_that_is_due_is_due_again_after_a_resume() {
    let text = config_text(GAUSSIAN);
    let (mut run, mut judged) = (begin(&text, 1), Vec::new());
    for _ in 0..ITERATIONS {
        let record = iterate(&mut run);
        // Any episode that ends has more.
        run.plan_judgement(Goal::Return(-1e9), &record);
        if run.judges_now() {
            judged.push(record.iteration);
        }
        let resumed = FinetuneRun::resume(&config(&text), &stored(&run.checkpoint()), 1).unwrap();
        assert_eq!(resumed.judges_now(), run.judges_now());
        run = resumed;
    }
    // Evaluations have no episodes of training; three iterations lie between two judgements at least.
    assert_eq!(judged, [3, 6]);
    let record = iterate(&mut run);
    run.plan_judgement(Goal::Return(1e9), &record);
    assert!(!run.judges_now());
}
