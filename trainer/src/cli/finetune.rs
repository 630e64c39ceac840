//! `tenon-train finetune`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_core::config::TaskConfig;
use tenon_train::checkpoint::{Checkpoint, Stage};
use tenon_train::finetune::{Evaluations, FinetuneRun, IterationRecord, Judgement, NoisePair};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::run_dir::{CHECKPOINT_FILE, CONFIG_FILE, RunDir, commit, sha256_of, write_json, write_text};
use tenon_train::watch::{Card, Watcher};

use super::{Checkpointing, Common, Ending, config_of, config_text, newest, read_config};

/// Success rate that fine-tuning has to reach under both noises.
const GOAL: f64 = 0.95;
/// Judging costs as much as several iterations: at least so many lie between two.
const ITERATIONS_BETWEEN_JUDGEMENTS: u64 = 3;

/// What counts the steps of this stage.
const COUNTER: &str = "iteration";
const JUDGEMENT_FILE: &str = "evaluation.json";
const BEFORE_FILE: &str = "evaluation_before.json";

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train finetune --config configs/tasks/avoid_m1.toml --from runs/pretrain --out runs/finetune\n\n\
    Writes config.toml, metrics.jsonl, TensorBoard events, report.html, numbered checkpoints (`last` and \
    checkpoint.safetensors lead to the newest) and evaluation.json (before and after, each under evaluation noise \
    and under training noise). Ends early once both noises reach finetune.stop_at_success.\n\
    An unfinished run of the same settings in the folder is continued; --fresh begins anew.\n\
    Exit code 3: all iterations are done and the goal of 95 % was missed.")]
pub struct FinetuneArgs {
    #[command(flatten)]
    common: Common,
    /// Folder of the pre-training run.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Most iterations [default: finetune.iterations of the configuration].
    #[arg(long, value_name = "N")]
    iterations: Option<usize>,
    /// Seed [default: finetune.seed of the configuration].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Begin anew whatever the folder holds.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    checkpointing: Checkpointing,
}

pub fn run(args: FinetuneArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut config = read_config(&args.common.config)?;
    config.finetune.iterations = args.iterations.unwrap_or(config.finetune.iterations);
    config.finetune.seed = args.seed.unwrap_or(config.finetune.seed);
    ensure!(config.finetune.iterations >= 1, "--iterations 0: give at least 1");
    let threads = args.common.output.threads();
    let source = args.from.join(CHECKPOINT_FILE);
    let pretrained =
        Checkpoint::read(&source).context("run `tenon-train pretrain` first, or name its folder with --from")?;
    let before_sha256 = sha256_of(&source)?;
    let task = &config_of(&pretrained)?.task;
    ensure!(
        *task == config.task,
        "{} was pre-trained for {}, not {}",
        source.display(),
        task.as_str(),
        config.task.as_str()
    );
    let folder = RunDir::hold(&args.out, args.checkpointing.keep(config.finetune.iterations))?;

    let (mut run, continued) = match previous(&args.out, args.fresh, &config, &before_sha256)? {
        Some(checkpoint) => (FinetuneRun::resume(&config, &checkpoint, threads)?, true),
        None => {
            folder.begin_anew()?;
            for file in [JUDGEMENT_FILE, BEFORE_FILE] {
                remove(&args.out.join(file))?;
            }
            write_text(&args.out.join(CONFIG_FILE), &config_text(&config)?)?;
            let provenance = [
                ("commit", commit()),
                ("seed", config.finetune.seed.to_string()),
                ("pretrained", source.display().to_string()),
                ("pretrained_sha256", before_sha256),
            ];
            let provenance = provenance.map(|(key, value)| (key.to_string(), value));
            let mut pretrained = pretrained;
            let before_config = std::mem::replace(&mut pretrained.header.run.config, config_text(&config)?);
            pretrained.header.run.provenance.insert("config".into(), before_config);
            (FinetuneRun::new(&config, &pretrained, provenance, threads)?, false)
        }
    };
    if continued && let Some(judgement) = finished(&args.out)? {
        return report(&args, &judgement);
    }
    let stop = || interrupt.is_requested();
    let total = config.finetune.iterations;
    let provenance = &run.run_info().provenance;
    let card = Card::new("finetune", config.task.as_str(), config.finetune.seed, (COUNTER, total as u64), provenance);
    let mut watcher = Watcher::open(&folder, card, run.iterations_done())?;
    let begun = Instant::now();
    let before_path = args.out.join(BEFORE_FILE);
    let before = match read_json::<Evaluations>(&before_path)? {
        Some(known) => known.before,
        None => {
            let Some(pair) = judge(&run, &config, "before fine-tuning", &stop)? else { return Ok(Ending::Interrupted) };
            write_json(&before_path, &Evaluations { before: pair.clone() })?;
            pair
        }
    };

    note(&mut watcher, "before", &before)?;
    let mut progress = Progress::continuing(COUNTER, total, run.iterations_done() as usize);
    if continued {
        progress.note(&format!("continuing after iteration {} of {total}", run.iterations_done()));
    }
    let mut after = None;
    let mut judged_at = 0;
    while run.iterations_done() < total as u64 {
        let Some(record) = run.iterate(&stop)? else { return Ok(Ending::Interrupted) };
        watcher.record(&record)?;
        folder.save(record.iteration, &run.checkpoint())?;
        progress.show(record.iteration as usize, &describe(&record));
        let promising = config.finetune.stop_at_success.is_some_and(|goal| record.success_rate >= goal);
        let due = record.iteration >= judged_at + ITERATIONS_BETWEEN_JUDGEMENTS;
        if promising && due && record.iteration < total as u64 {
            judged_at = record.iteration;
            progress.note(&format!("judging after iteration {}", record.iteration));
            let Some(pair) = judge(&run, &config, "judging", &stop)? else { return Ok(Ending::Interrupted) };
            if config.finetune.stop_at_success.is_some_and(|goal| pair.reaches(goal)) {
                after = Some(pair);
                break;
            }
        }
    }
    drop(progress);
    let after = match after {
        Some(pair) => pair,
        None => {
            let Some(pair) = judge(&run, &config, "after fine-tuning", &stop)? else { return Ok(Ending::Interrupted) };
            pair
        }
    };
    let judgement = Judgement {
        reached: after.reaches(GOAL),
        before,
        after,
        goal: GOAL,
        iterations: run.iterations_done(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    note(&mut watcher, "after", &judgement.after)?;
    let reached = if judgement.reached { "reached" } else { "missed" };
    watcher.result(&format!("goal of {:.0} %", 100.0 * GOAL), reached)?;
    // A run with a judgement is not opened again, so the watcher ends first.
    watcher.finish()?;
    write_json(&args.out.join(JUDGEMENT_FILE), &judgement)?;
    report(&args, &judgement)
}

fn judge(
    run: &FinetuneRun,
    config: &TaskConfig,
    when: &str,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<NoisePair>> {
    let episodes = config.evaluate.episodes;
    let mut progress: Option<(String, Progress)> = None;
    let pair = run.judge(config, stop, &mut |name, done, successes| {
        if progress.as_ref().is_none_or(|(shown, _)| shown != name) {
            progress = Some((name.to_string(), Progress::new(format!("{when}, {name}: episode"), episodes)));
        }
        if let Some((_, progress)) = &mut progress {
            progress.show(done, &format!("{successes} succeeded"));
        }
    })?;
    Ok(pair)
}

/// Shows a judgement beside the curves.
fn note(watcher: &mut Watcher, when: &str, pair: &NoisePair) -> anyhow::Result<()> {
    for (noise, e) in [("evaluation", &pair.evaluation_noise), ("training", &pair.training_noise)] {
        let [low, high] = e.wilson_95.map(|rate| 100.0 * rate);
        let text = format!(
            "{:.1} % ({} of {} episodes; 95 % interval {low:.1} to {high:.1} %), mean return {:.1}",
            100.0 * e.success_rate,
            e.successes,
            e.episodes,
            e.mean_reward
        );
        watcher.result(&format!("success {when}, {noise} noise"), &text)?;
    }
    Ok(())
}

fn describe(r: &IterationRecord) -> String {
    format!(
        "success {:.0} %, reward {:.0}, KL {:.4}, clipped {:.0} %, explained {:.2}, {:.1}+{:.1}+{:.1} s",
        100.0 * r.success_rate,
        r.mean_reward,
        r.approx_kl,
        100.0 * r.clip_fraction,
        r.explained_variance,
        r.seconds_sampling,
        r.seconds_environment,
        r.seconds_update
    )
}

fn report(args: &FinetuneArgs, judgement: &Judgement) -> anyhow::Result<Ending> {
    let line = |name: &str, before: &tenon_train::evaluate::Evaluation, after: &tenon_train::evaluate::Evaluation| {
        format!(
            "{name}: success {:.1} % before, {:.1} % after ({} and {} of {} episodes)",
            100.0 * before.success_rate,
            100.0 * after.success_rate,
            before.successes,
            after.successes,
            after.episodes
        )
    };
    let (before, after) = (&judgement.before, &judgement.after);
    let text = format!(
        "{}\n{}\n{} iterations, {:.0} s; goal of {:.0} % {}; written to {}",
        line("evaluation noise", &before.evaluation_noise, &after.evaluation_noise),
        line("training noise", &before.training_noise, &after.training_noise),
        judgement.iterations,
        judgement.seconds,
        100.0 * judgement.goal,
        if judgement.reached { "reached" } else { "MISSED: try more --iterations or another --seed" },
        args.out.display()
    );
    args.common.output.print(judgement, &text)?;
    Ok(if judgement.reached { Ending::Done } else { Ending::GoalMissed })
}

/// The checkpoint to continue from: that of the same settings and pre-trained policy.
fn previous(folder: &Path, fresh: bool, config: &TaskConfig, sha256: &str) -> anyhow::Result<Option<Checkpoint>> {
    let Some(checkpoint) = newest(folder, fresh)? else { return Ok(None) };
    let before = config_of(&checkpoint)?;
    let what = if checkpoint.header.stage != Stage::Finetune {
        "a pre-training run"
    } else if before.task != config.task
        || before.policy != config.policy
        || before.finetune != config.finetune
        || before.evaluate != config.evaluate
    {
        "a run of other settings"
    } else if checkpoint.header.run.provenance.get("pretrained_sha256").map(String::as_str) != Some(sha256) {
        "a run from another pre-trained policy"
    } else {
        return Ok(Some(checkpoint));
    };
    bail!("{} holds {what}: choose another --out, or --fresh to begin anew", folder.display())
}

fn finished(folder: &Path) -> anyhow::Result<Option<Judgement>> {
    read_json(&folder.join(JUDGEMENT_FILE))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(
            serde_json::from_str(&text).with_context(|| format!("{}; use --fresh to begin anew", path.display()))?,
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
