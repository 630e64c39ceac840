//! The Robomimic tasks by name, with the configurations that are shipped.

use tenon_core::config::{TaskConfig, Values};
use tenon_core::normalizer::Limits;
use tenon_core::task::TaskName;
use tenon_sim::robomimic::{RobomimicTask, scene_path};
use tenon_train::environments::{BatchSettings, TaskBatch};

#[test]
fn every_task_steps_in_a_batch_and_goes_on_where_it_was_saved() {
    for task in [TaskName::Lift, TaskName::Can, TaskName::Square, TaskName::Transport] {
        let file = format!("{}/../configs/tasks/{task}.toml", env!("CARGO_MANIFEST_DIR"));
        let config = TaskConfig::parse(&file, &std::fs::read_to_string(&file).unwrap(), Values::Latest).unwrap();
        assert_eq!(config.task, task);
        assert!(config.pretrain.is_some() && config.finetune.is_some());
        if let Err(error) = scene_path(RobomimicTask::Lift) {
            println!("skipped: {error}");
            continue;
        }
        let limits = |dim| Limits { min: vec![-1.0; dim], max: vec![1.0; dim] };
        let normalizer = task.normalizer(limits(task.observation_dim()), limits(task.action_dim()));
        let spec = config.policy_spec(normalizer, 10);
        let batch = |threads| {
            let settings = BatchSettings { environments: 2, threads, seed: 7, auto_reset: true };
            TaskBatch::new(task, &spec, settings).unwrap()
        };
        let chunks: Vec<f32> = (0..2 * spec.chunk_len()).map(|i| (i as f32).sin()).collect();
        let mut whole = batch(1);
        whole.reset();
        whole.step(&chunks).unwrap();
        let saved = whole.save_state();
        let mut other = batch(2);
        other.reset();
        other.restore_state(&saved).unwrap();
        assert_eq!(whole.states(), other.states(), "{task}");
        for _ in 0..2 {
            whole.step(&chunks).unwrap();
            other.step(&chunks).unwrap();
        }
        assert_eq!(whole.states(), other.states(), "{task}");
        assert!(whole.outcomes().iter().all(|outcome| outcome.steps == spec.action_horizon && !outcome.ended()));
        assert_eq!(whole.save_state(), other.save_state(), "{task}");
    }
}
