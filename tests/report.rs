//! The report reads what the trainer writes.

use std::path::Path;

use serde_json::{Value, json, to_value};
use tenon_controller::report::{Options, make};
use tenon_controller::run::{Robot, RunReport};
use tenon_controller::timing::TimingSummary;
use tenon_train::evaluate::{Evaluation, wilson_95};
use tenon_train::finetune::{Goal, IterationRecord, Judgement, NoisePair, TrainingRecord};

fn write(folder: &Path, name: &str, value: Value) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

fn evaluation(successes: usize) -> NoisePair {
    let one = Evaluation {
        episodes: 200,
        successes,
        success_rate: successes as f64 / 200.0,
        wilson_95: wilson_95(successes, 200),
        mean_return: 20.0,
        return_std: 1.0,
        return_range: [15.0, 25.0],
        mean_steps: 100.0,
        contacts: 3,
        paths_xy_m: vec![vec![[0.5, 0.0], [0.5, 0.1]]],
        path_success: vec![true],
    };
    NoisePair { evaluation_noise: one.clone(), training_noise: one }
}

fn iteration(number: u64) -> IterationRecord {
    IterationRecord {
        iteration: number,
        environment_steps: 5000 * number,
        training: Some(TrainingRecord {
            episodes: 50,
            success_rate: Some(0.25),
            mean_return: Some(17.0),
            mean_best_reward: Some(1.0),
            mean_episode_steps: Some(100.0),
            approx_kl: 0.01,
            clip_fraction: 0.125,
            clip_fraction_per_step: vec![0.1, 0.2],
            explained_variance: 0.5,
            eta: Some(1.0),
            policy_std: None,
            policy_loss: 0.1,
            value_loss: 0.1,
            bc_loss: 0.0,
            actor_learning_rate: 1e-4,
            critic_learning_rate: 1e-3,
            gradient_norm_actor: 0.1,
            gradient_norm_critic: 0.1,
            minibatches: 4,
            stopped_early: false,
            seconds_update: 1.0,
        }),
        evaluation: None,
        faults: 0,
        undone: 0,
        seconds_sampling: 1.0,
        seconds_environment: 1.0,
        seconds_pictures: None,
        environment_steps_per_second: 1.0,
    }
}

#[test]
fn what_the_trainer_writes_is_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();
    let demos = json!({
        "source": "scripted", "episodes": 960, "steps": 90_000, "selected_episodes": 80, "selected_steps": 7_000,
        "rejected_collisions": 10, "seconds": 1.0, "sha256": "abc"
    });
    write(work, "demos/summary.json", demos);
    let pretrain = json!({ "epochs": 400, "final_loss": 0.1, "seconds": 1.0, "parameters": 1000 });
    write(work, "pretrain/summary.json", pretrain);
    let records: String = (1..=3).map(|i| serde_json::to_string(&iteration(i)).unwrap() + "\n").collect();
    std::fs::create_dir_all(work.join("finetune")).unwrap();
    std::fs::write(work.join("finetune/metrics.jsonl"), records).unwrap();
    let mut judgement = Judgement {
        before: evaluation(100),
        after: evaluation(194),
        goal: Some(Goal::SuccessRate(0.95)),
        reached: true,
        iterations: 3,
        seconds: 12.0,
    };
    write(work, "finetune/evaluation.json", to_value(&judgement).unwrap());
    write(work, "bundle/policy.json", json!({ "provenance": { "seed": 42 } }));
    let run = RunReport {
        robot: Robot::Sim,
        engine: "tract".into(),
        bundle: "bundle".into(),
        task: "avoid_m1".into(),
        seed: 7,
        episodes: Vec::new(),
        successes: 0,
        timing: TimingSummary::default(),
        targets_passed: 0,
        targets_limited: 0,
        targets_refused: 0,
        late_chunks: 0,
        bridge: None,
        fault: None,
        record: None,
        shadow: None,
    };
    write(work, "deploy/run.json", to_value(&run).unwrap());

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tasks/avoid_m1.toml");
    let out = work.join("report");
    let page = || {
        let verdict = make(&Options::in_work(work, &config, &out), None, false).unwrap();
        (verdict, std::fs::read_to_string(out.join("index.html")).unwrap())
    };
    let (verdict, text) = page();
    let met: Vec<(&str, bool)> = verdict.checks.iter().map(|c| (c.measured.as_str(), c.met)).collect();
    assert_eq!(met, [("50.0 %", true), ("97.0 %", true), ("50.0 %", true), ("97.0 %", true), ("0", false)]);
    // The last iteration, and settings of all stages that are not the paper's.
    for part in ["mean return 17.0", "<td>pretrain.batch_size</td>", "<td>finetune.batch_size</td>"] {
        assert!(text.contains(part), "{part}");
    }
    for part in ["finetune.environments", "finetune.diffusion.gamma_denoising", "policy.model.finetuned_steps"] {
        assert!(!text.contains(part), "{part} is as in the paper");
    }
    // A goal of success has its line in the learning curve.
    let lines = |text: &str| text.matches("class=\"finish\"").count();
    for goal in [None, Some(Goal::Return(100.0))] {
        judgement.goal = goal;
        write(work, "finetune/evaluation.json", to_value(&judgement).unwrap());
        assert_eq!(lines(&page().1) + 1, lines(&text), "{goal:?}");
    }
}
