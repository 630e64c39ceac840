//! `tenon demo`: every step as its own command, in order, with its time; then the checks of what they must show.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::processes::{shipped, sibling};
use crate::report;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The task's configuration.
    #[arg(long, default_value = "configs/tasks/avoid_m1.toml")]
    pub config: PathBuf,
    /// The robot's configuration.
    #[arg(long, default_value = "configs/robot.toml")]
    pub robot_config: PathBuf,
    /// Folder for everything the steps make.
    #[arg(long, default_value = "runs/demo")]
    pub work: PathBuf,
    /// Folder of the page.
    #[arg(long, default_value = "report")]
    pub report: PathBuf,
    /// The same steps with fewer iterations and episodes; results are shown, goals are not demanded.
    #[arg(long)]
    pub quick: bool,
    /// Convert these human demonstrations instead of scripting some.
    #[arg(long)]
    pub from: Option<PathBuf>,
    /// Inference engine of the deployment.
    #[arg(long, default_value = "tract")]
    pub engine: String,
}

/// Exit code of `tenon-train finetune` for "all written, goal missed".
const GOAL_MISSED: i32 = 3;

/// Runs the steps. The page is written even where a goal was missed; the exit code says so.
pub fn run(options: &Options, interrupted: &Arc<AtomicBool>) -> Result<ExitCode> {
    let begun = Instant::now();
    let work = &options.work;
    // A demo shows a whole run; what an earlier one left would be taken for results of this one.
    if work.exists() {
        let old = work.with_extension("previous");
        if old.exists() {
            std::fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
        }
        std::fs::rename(work, &old).with_context(|| format!("moving {} aside", work.display()))?;
        eprintln!("the previous run was moved to {}", old.display());
    }
    std::fs::create_dir_all(work).with_context(|| format!("creating {}", work.display()))?;
    let config = shipped(&options.config);
    let paths = report::Options::in_work(work, &config, &options.report);
    let checkpoint = paths.finetune.join("checkpoint.safetensors");

    let mut demos = train("demos", Some("avoid"), &config)?;
    demos.arg("--out").arg(&paths.demos);
    if let Some(from) = &options.from {
        demos.arg("--from").arg(from);
    }
    let mut pretrain = train("pretrain", None, &config)?;
    pretrain.arg("--data").arg(&paths.demos).arg("--out").arg(&paths.pretrain);
    let mut finetune = train("finetune", None, &config)?;
    finetune.arg("--from").arg(&paths.pretrain).arg("--out").arg(&paths.finetune);
    if options.quick {
        finetune.args(["--iterations", "4"]);
    }
    let mut export = Command::new(sibling("tenon-train")?);
    export.arg("export").arg("--checkpoint").arg(&checkpoint).arg("--out").arg(&paths.bundle);
    let episodes = if options.quick { "3" } else { "20" };
    let mut deploy = Command::new(std::env::current_exe().context("finding this program")?);
    deploy.args(["run", "--robot", "sim", "--engine", &options.engine, "--episodes", episodes, "--bundle"]);
    deploy.arg(&paths.bundle).arg("--config").arg(&options.robot_config).arg("--out").arg(&paths.deploy);
    let record = paths.deploy.join("record");
    if record.exists() {
        // Of an earlier demo in the same folder.
        std::fs::remove_dir_all(&record).with_context(|| format!("removing the old {}", record.display()))?;
    }
    deploy.arg("--record").arg(record);

    let steps = [
        ("demonstrations", demos, false),
        ("pre-training", pretrain, false),
        ("fine-tuning", finetune, true),
        ("export", export, false),
        ("deployment", deploy, false),
    ];
    let count = steps.len() + 1;
    let mut times = Vec::with_capacity(count);
    for (i, (name, command, may_miss_goal)) in steps.into_iter().enumerate() {
        eprintln!("\n[{}/{count}] {name}", i + 1);
        let took = step(name, command, may_miss_goal, interrupted)?;
        eprintln!("[{}/{count}] {name}: {:.1} s", i + 1, took.as_secs_f64());
        times.push((name.to_string(), took.as_secs_f64()));
    }
    eprintln!("\n[{count}/{count}] report");
    report::write_json(&work.join("times.json"), &times)?;
    let verdict = report::make(&paths, Some(&times), options.quick)?;
    eprintln!("whole demo: {:.0} s after the build", begun.elapsed().as_secs_f64());
    if verdict.all_met() || options.quick {
        return Ok(ExitCode::SUCCESS);
    }
    for missed in verdict.missed() {
        eprintln!("missed: {missed}");
    }
    Ok(ExitCode::FAILURE)
}

fn train(step: &str, task: Option<&str>, config: &Path) -> Result<Command> {
    let mut command = Command::new(sibling("tenon-train")?);
    command.arg(step).args(task).arg("--config").arg(config);
    Ok(command)
}

/// Runs one step. Ctrl-C reaches the child by itself (same terminal); we wait for its orderly end.
fn step(name: &str, mut command: Command, may_miss_goal: bool, interrupted: &AtomicBool) -> Result<Duration> {
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for {name}"))? {
            break status;
        }
        if interrupted.load(Ordering::Acquire) && !told {
            // A SIGTERM to us alone does not reach the child.
            told = true;
            if let Ok(pid) = libc::pid_t::try_from(child.id()) {
                // SAFETY: the child has not been waited for, so its pid is not reused.
                unsafe { libc::kill(pid, libc::SIGTERM) };
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if interrupted.load(Ordering::Acquire) {
        bail!("interrupted during {name}; what it had written is whole");
    }
    match status.code() {
        Some(0) => Ok(started.elapsed()),
        Some(GOAL_MISSED) if may_miss_goal => Ok(started.elapsed()),
        _ => bail!("{name} failed ({status}); its message is above. The command was: {command:?}"),
    }
}
