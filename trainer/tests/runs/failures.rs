//! What is not finite: named, undone, and the run goes on or stops as configured.

use tenon_train::TrainError;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::finetune::FinetuneRun;
use tenon_train::network::Critic;

use crate::small_hopper::{DIFFUSION, ITERATIONS, config_text, lose_observation};
use crate::{GAUSSIAN, begin, config, iterate};

fn config_that(on_numerical_error: &str, model: &str) -> String {
    config_text(model).replacen(
        "[finetune]\n",
        &format!("[finetune]\non_numerical_error = \"{on_numerical_error}\"\n"),
        1,
    )
}

/// After so many iterations the next one trains and goes on with the episodes of the one before.
const DONE: u64 = 5;

/// A run's checkpoint after [`DONE`] iterations.
fn checkpoint(text: &str) -> Checkpoint {
    let mut run = begin(text, 1);
    (0..DONE).for_each(|_| drop(iterate(&mut run)));
    run.checkpoint()
}

#[test]
fn an_observation_that_is_lost_stops_the_run_with_its_place() {
    for model in [DIFFUSION, GAUSSIAN] {
        let text = config_that("stop", model);
        let mut damaged = checkpoint(&text);
        lose_observation(&mut damaged, 1);
        let mut run = FinetuneRun::resume(&config(&text), &damaged, 1).unwrap();
        let before = run.checkpoint();
        let error = run.iterate(&|| false, &mut |e| panic!("undone: {e}")).unwrap_err();
        assert!(matches!(error, TrainError::Numerical { .. }));
        let error = error.to_string();
        assert!(error.contains("the observation is not finite at chunk step 0, environment 1"), "{error}");
        // What learns, its schedules, and the count of steps stand as before.
        let after = run.checkpoint();
        assert_eq!((run.iterations_done(), &after.header.counters), (DONE, &before.header.counters));
        assert_eq!(after.header.streams["minibatches"], before.header.streams["minibatches"]);
        for name in ["actor_ft.mlp_mean.layers.0.weight", "adam_v.critic.Q1.layers.0.weight"] {
            assert!(before.tensor(name).is_some() && after.tensor(name) == before.tensor(name), "{name}");
        }
    }
}

#[test]
fn a_run_that_goes_on_repeats_the_iteration_and_counts_what_was_undone() {
    for model in [DIFFUSION, GAUSSIAN] {
        let text = config_that("continue", model);
        let mut damaged = checkpoint(&text);
        lose_observation(&mut damaged, 1);
        let steps = damaged.counter("environment_steps").unwrap();
        let finish = |threads: usize| {
            let mut run = FinetuneRun::resume(&config(&text), &damaged, threads).unwrap();
            let mut said = Vec::new();
            let record = run.iterate(&|| false, &mut |e| said.push(e.to_string())).unwrap().unwrap();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("the observation is not finite at chunk step 0, environment 1"), "{said:?}");
            assert_eq!((record.iteration, record.undone), (DONE + 1, 1));
            // Of the iteration that came to nothing no step counts; the policy that saw NaN did something that no
            // environment executes.
            assert!((1..=72).contains(&(record.environment_steps - steps)), "{record:?}");
            assert_eq!(record.faults, 1);
            (DONE + 1..ITERATIONS).for_each(|_| drop(iterate(&mut run)));
            run.checkpoint()
        };
        let end = finish(1);
        assert_eq!(end.counter("undone").unwrap(), 1);
        assert!(end == finish(2), "two threads end with other bits");
        for name in ["actor_ft.mlp_mean.layers.0.weight", "critic.Q1.layers.0.weight"] {
            let (_, values) = end.tensor(name).unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{name}");
        }
    }
}

/// Weights heal by no new episode: the run names them and ends, whatever it was told.
#[test]
fn a_critic_that_is_broken_for_good_stops_even_a_run_that_goes_on() {
    for model in [DIFFUSION, GAUSSIAN] {
        for (weight, named) in [
            (f32::NAN, "the critic's weight is not finite"),
            (1e30, "the value is not finite at chunk step 0, environment 0"),
        ] {
            for (setting, times) in [("stop", 0), ("continue", 5)] {
                let text = config_that(setting, model);
                let mut damaged = checkpoint(&text);
                let critic = Critic::new(&config(&text).finetune().unwrap().critic, 11).unwrap();
                damaged.put_parameters("critic.", critic.table(), &vec![weight; critic.table().len()]);
                let mut run = FinetuneRun::resume(&config(&text), &damaged, 1).unwrap();
                let mut undone = 0;
                let error = run.iterate(&|| false, &mut |_| undone += 1).unwrap_err().to_string();
                assert!(error.contains(named), "{weight}: {error}");
                assert_eq!((undone, run.iterations_done()), (times, DONE), "{setting}: {error}");
                for name in ["actor_ft.mlp_mean.layers.0.weight", "adam_v.critic.Q1.layers.0.weight"] {
                    assert_eq!(run.checkpoint().tensor(name), damaged.tensor(name));
                }
            }
        }
    }
}
