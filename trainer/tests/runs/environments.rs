//! Hopper in batches: saved and restored, episodes by number, evaluations.

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_core::spec::PolicySpec;
use tenon_core::task::TaskName;
use tenon_sim::batch::ChunkOutcome;
use tenon_train::environments::{BatchSettings, TaskBatch};
use tenon_train::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use tenon_train::sampling::{ChunkMode, PretrainedWeights, TrainedPolicy};
use tenon_train::workers::Workers;

use crate::small_hopper::{DIFFUSION, config_text};
use crate::{GAUSSIAN, begin};

fn spec() -> PolicySpec {
    begin(&config_text(GAUSSIAN), 1).run_info().policy.clone()
}

fn batch(environments: usize, threads: usize, auto_reset: bool) -> TaskBatch {
    TaskBatch::new(TaskName::Hopper, &spec(), BatchSettings { environments, threads, seed: 7, auto_reset }).unwrap()
}

/// Chunks for environments `first`, `first + 1`, …; those of an environment are the same in any batch.
fn chunks(first: usize, environments: usize, step: u64) -> Vec<f32> {
    let one = |environment: usize| {
        let mut noise = SeededNoise::new(step, environment as u64);
        (0..12).map(|_| noise.rng().random_range(-1.0..1.0)).collect::<Vec<f32>>()
    };
    (first..first + environments).flat_map(one).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Everything that a chunk step lets a trainer see.
fn step(batch: &mut TaskBatch, first: usize, number: u64) -> (Vec<u32>, Vec<Vec<u32>>, Vec<ChunkOutcome>) {
    let n = batch.len();
    batch.step(&chunks(first, n, number)).unwrap();
    let finals = (0..n).map(|i| bits(batch.final_state(i))).collect();
    (bits(batch.states()), finals, batch.outcomes().to_vec())
}

#[test]
fn a_restored_batch_steps_on_bit_for_bit() {
    for auto_reset in [true, false] {
        let mut whole = batch(4, 1, auto_reset);
        whole.reset();
        (0..4).for_each(|number| drop(step(&mut whole, 0, number)));
        let saved = whole.save_state();
        let mut restored = batch(4, 2, auto_reset);
        restored.reset();
        step(&mut restored, 0, 99);
        restored.restore_state(&saved).unwrap();
        assert_eq!(bits(restored.states()), bits(whole.states()));
        let mut ended = [0; 4];
        for number in 4..40 {
            let (ours, theirs) = (step(&mut restored, 0, number), step(&mut whole, 0, number));
            assert_eq!(ours, theirs, "step {number}, auto-reset {auto_reset}");
            ended.iter_mut().zip(&ours.2).for_each(|(n, outcome)| *n += usize::from(outcome.ended()));
        }
        // Steps random actions fall soon, so many episodes lie behind what was compared.
        assert!(ended.iter().all(|&n| n >= 2), "{ended:?}");
        assert_eq!(restored.save_state(), whole.save_state());

        let mut other = batch(3, 1, auto_reset);
        let error = other.restore_state(&saved).unwrap_err().to_string();
        assert!(error.contains("4 environments") && error.contains("here 3"), "{error}");
        let error = restored.restore_state(&saved[..saved.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("simulation"), "{error}");
    }
}

#[test]
fn an_episode_is_the_same_in_a_batch_of_any_size() {
    let mut all = batch(4, 2, false);
    all.begin_episodes(0);
    let state_len = all.states().len() / 4;
    let mut parts = [(0, batch(1, 1, false)), (1, batch(3, 1, false))];
    for (first, part) in &mut parts {
        // What happened in a batch before leaves no trace.
        part.begin_episodes(17);
        step(part, 0, 5);
        part.begin_episodes(*first);
    }
    let starts = |batch: &TaskBatch| bits(batch.states());
    assert_eq!(starts(&all), parts.iter().flat_map(|(_, part)| starts(part)).collect::<Vec<_>>());
    assert_ne!(starts(&all)[..state_len], starts(&all)[state_len..2 * state_len], "episodes differ");
    for number in 0..30 {
        let (states, finals, outcomes) = step(&mut all, 0, number);
        for (first, part) in &mut parts {
            let (n, first) = (part.len(), *first);
            let (part_states, part_finals, part_outcomes) = step(part, first, number);
            assert_eq!(part_states, states[first * state_len..(first + n) * state_len]);
            assert_eq!(part_finals, finals[first..first + n]);
            assert_eq!(part_outcomes, outcomes[first..first + n]);
        }
    }
    assert!(all.outcomes().iter().all(ChunkOutcome::ended), "random actions fall");
}

#[test]
fn an_evaluation_is_the_same_for_any_number_of_environments_and_threads() {
    for model in [DIFFUSION, GAUSSIAN] {
        let run = begin(&config_text(model), 1);
        let policy = TrainedPolicy::of(&run.checkpoint(), PretrainedWeights::Finetuning, 3.0).unwrap();
        let judged = |environments: usize, threads: usize, seed: u64| -> Evaluation {
            let workers = Workers::new(threads).unwrap();
            let options = EvaluationOptions {
                task: TaskName::Hopper,
                episodes: 60,
                seed,
                environments,
                threads,
                randomisation: None,
                pictures: None,
            };
            let mode = ChunkMode::evaluation(policy.as_ref());
            let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, environments);
            evaluate(&mut source, &run.run_info().policy, options, &|| false, &mut |_, _| {}).unwrap().unwrap()
        };
        let one = judged(1, 1, 3);
        assert_eq!((one.episodes, one.successes), (60, 0));
        assert!(one.return_range[0] < one.return_range[1] && one.mean_steps > 4.0, "{one:?}");
        for (environments, threads) in [(3, 1), (3, 2), (50, 1), (50, 2), (60, 3), (1, 2)] {
            assert_eq!(
                judged(environments, threads, 3),
                one,
                "{environments} environments, {threads} threads: {model}"
            );
        }
        assert_ne!(judged(3, 1, 4), one, "another seed");
    }
}
