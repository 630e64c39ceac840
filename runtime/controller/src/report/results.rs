//! What the steps wrote, read and judged.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenon_core::config::{TaskConfig, Values};

use super::Options;
use crate::run::RunReport;
use crate::timing::{Summary, TimingSummary};

/// `summary.json` of the demonstrations.
#[derive(Debug, Deserialize)]
pub struct Demos {
    pub source: String,
    pub episodes: usize,
    pub steps: usize,
    pub selected_episodes: usize,
    pub selected_steps: usize,
    pub rejected_collisions: usize,
    pub seconds: f64,
    pub sha256: String,
}

/// `summary.json` of the pre-training.
#[derive(Debug, Deserialize)]
pub struct Pretrain {
    pub epochs: usize,
    pub final_loss: f64,
    pub seconds: f64,
    pub parameters: usize,
}

/// One line of the fine-tuning's metrics.
#[derive(Debug, Deserialize)]
pub struct Iteration {
    pub iteration: usize,
    pub environment_steps: u64,
    pub success_rate: f64,
    pub mean_return: f64,
    pub approx_kl: f64,
    pub clip_fraction: f64,
}

/// An evaluation under one kind of noise.
#[derive(Debug, Deserialize)]
pub struct Evaluation {
    pub episodes: usize,
    pub successes: usize,
    pub success_rate: f64,
    pub wilson_95: [f64; 2],
    pub mean_return: f64,
    pub paths_xy_m: Vec<Vec<[f64; 2]>>,
    pub path_success: Vec<bool>,
}

#[derive(Debug, Deserialize)]
pub struct BothNoises {
    pub evaluation_noise: Evaluation,
    pub training_noise: Evaluation,
}

/// What a fine-tuning should reach; none of this where it is something else than success.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Goal {
    pub success_rate: Option<f64>,
}

/// `evaluation.json` of the fine-tuning.
#[derive(Debug, Deserialize)]
pub struct Evaluations {
    pub before: BothNoises,
    pub after: BothNoises,
    pub goal: Option<Goal>,
    pub iterations: usize,
    pub seconds: f64,
}

/// Everything on the page.
pub struct Results {
    pub config: TaskConfig,
    pub demos: Demos,
    pub pretrain: Pretrain,
    pub iterations: Vec<Iteration>,
    pub evaluations: Evaluations,
    pub run: RunReport,
    pub provenance: serde_json::Value,
}

/// One thing that the demo must show.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub what: String,
    pub goal: String,
    pub measured: String,
    pub met: bool,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub checks: Vec<Check>,
}

impl Verdict {
    pub fn all_met(&self) -> bool {
        self.checks.iter().all(|c| c.met)
    }

    pub fn missed(&self) -> impl Iterator<Item = String> {
        self.checks.iter().filter(|c| !c.met).map(|c| format!("{}: {} (goal {})", c.what, c.measured, c.goal))
    }
}

impl Results {
    pub fn read(options: &Options) -> Result<Self> {
        let text = std::fs::read_to_string(&options.config)
            .with_context(|| format!("reading {}", options.config.display()))?;
        let config = TaskConfig::parse(&options.config.display().to_string(), &text, Values::Latest)?;
        let metrics = options.finetune.join("metrics.jsonl");
        let lines = std::fs::read_to_string(&metrics).with_context(|| format!("reading {}", metrics.display()))?;
        let iterations = lines
            .lines()
            .enumerate()
            .map(|(i, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", metrics.display(), i + 1)))
            .collect::<Result<_>>()?;
        let policy: serde_json::Value = read_json(&options.bundle.join("policy.json"))?;
        Ok(Self {
            config,
            demos: read_json(&options.demos.join("summary.json"))?,
            pretrain: read_json(&options.pretrain.join("summary.json"))?,
            iterations,
            evaluations: read_json(&options.finetune.join("evaluation.json"))?,
            run: read_json(&options.deploy.join("run.json"))?,
            provenance: policy.get("provenance").cloned().unwrap_or(serde_json::Value::Null),
        })
    }

    /// Judges the results against the goals.
    pub fn verdict(&self) -> Verdict {
        let e = &self.evaluations;
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        let mut checks = Vec::new();
        for (noise, before, after) in [
            ("evaluation noise", &e.before.evaluation_noise, &e.after.evaluation_noise),
            ("training noise", &e.before.training_noise, &e.after.training_noise),
        ] {
            checks.push(Check {
                what: format!("success after pre-training, {noise}, {} episodes", before.episodes),
                goal: "35 to 65 %".into(),
                measured: percent(before.success_rate),
                met: before.episodes >= 200 && (0.35..=0.65).contains(&before.success_rate),
            });
            checks.push(Check {
                what: format!("success after fine-tuning, {noise}, {} episodes", after.episodes),
                goal: "at least 95 %".into(),
                measured: percent(after.success_rate),
                met: after.episodes >= 200 && after.success_rate >= 0.95,
            });
        }
        let (episodes, successes) = (self.run.episodes.len(), self.run.successes);
        checks.push(Check {
            what: format!("deployed episodes that succeed, of {episodes}"),
            goal: "at least 16 of 20".into(),
            measured: successes.to_string(),
            met: episodes >= 20 && successes * 20 >= 16 * episodes,
        });
        Verdict { checks }
    }

    /// The summary on the terminal.
    pub fn print(&self, verdict: &Verdict) {
        println!("\n{}: what was shown", self.config.task.as_str());
        for check in &verdict.checks {
            let mark = if check.met { "ok  " } else { "MISS" };
            println!("  {mark} {}: {} (goal {})", check.what, check.measured, check.goal);
        }
        print!("{}", timing_table(&self.run.timing));
    }
}

/// The stages of the control path, p50, p99 and max in µs.
pub fn timing_table(timing: &TimingSummary) -> String {
    let mut text = latency_table(stages(timing));
    let _ = writeln!(
        text,
        "  late ticks: {} of {} ({:.0} per million)",
        timing.late_ticks, timing.ticks, timing.late_per_million
    );
    text
}

/// One line a stage.
pub fn latency_table(stages: impl IntoIterator<Item = (&'static str, Summary)>) -> String {
    let mut text = format!("  {:<16} {:>9} {:>10} {:>10} {:>10}\n", "stage", "n", "p50 us", "p99 us", "max us");
    for (name, s) in stages {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<16} {:>9} {:>10.1} {:>10.1} {:>10.1}", s.n, s.p50_us, s.p99_us, s.max_us);
    }
    text
}

/// Every stage with its name.
pub fn stages(t: &TimingSummary) -> [(&'static str, Summary); 7] {
    [
        ("arm state age", t.arm_state_age),
        ("observe", t.observe),
        ("infer", t.infer),
        ("IK and safety", t.ik),
        ("publish", t.publish),
        ("bridge update", t.bridge_update),
        ("wake-up delay", t.wake_up),
    ]
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what this release writes", path.display()))
}
