//! `tenon-train finetune`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_core::config::{FinetuneConfig, TaskConfig};
use tenon_sim::render::Quality;
use tenon_train::TrainError;
use tenon_train::checkpoint::{Checkpoint, Stage};
use tenon_train::finetune::{Evaluations, FinetuneRun, Goal, IterationRecord, Judgement, NoisePair, Source};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::run_dir::{CHECKPOINT_FILE, CONFIG_FILE, RunDir, commit, sha256_of, write_json, write_text};
use tenon_train::watch::{Card, Watcher};

use super::{
    Checkpointing, Common, DeviceArg, Ending, NOISE_SHA256, config_of, config_text, newest, noise_sha256, pictures,
    read_noise,
};

/// What counts the steps of this stage.
const COUNTER: &str = "iteration";
const JUDGEMENT_FILE: &str = "evaluation.json";
/// Key of the provenance.
const PRETRAINED_SHA256: &str = "pretrained_sha256";
const BEFORE_FILE: &str = "evaluation_before.json";

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train finetune --config configs/tasks/avoid_m1.toml --from runs/pretrain --out runs/finetune\n\n\
    Writes config.toml, metrics.jsonl, TensorBoard events, report.html, numbered checkpoints (`last` and \
    checkpoint.safetensors lead to the newest) and evaluation.json (before and after, each under evaluation noise \
    and under training noise). Ends early once both noises reach finetune.stop_at_success, or training noise reaches \
    finetune.stop_at_return.\n\
    [randomisation] of the configuration puts noise onto what rollouts see and execute; evaluations have it only where \
    it says so. The table of a rig's file is read when the run begins and kept in its config.toml.\n\
    --scratch trains a policy from fresh weights; the configuration then gives policy.limits.\n\
    An unfinished run of the same settings in the folder is continued. With more --iterations a finished one is \
    extended, with fewer (but no fewer than were done) an unfinished one ends sooner; both where its learning rate is \
    constant or actor_cycle_iterations is given, so that nothing that was done would have been done otherwise. --fresh \
    begins anew.\n\
    Exit code 3: all iterations are done and the goal (success of 95 %, or finetune.stop_at_return) was missed.")]
pub struct FinetuneArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Folder of the pre-training run.
    #[arg(long, value_name = "DIR", required_unless_present = "scratch")]
    pub(super) from: Option<PathBuf>,
    /// Train from fresh weights, without pre-training.
    #[arg(long, conflicts_with = "from")]
    pub(super) scratch: bool,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Most iterations [default: finetune.iterations of the configuration].
    #[arg(long, value_name = "N")]
    pub(super) iterations: Option<usize>,
    /// Seed [default: finetune.seed of the configuration].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Quality of the pictures that simulations show to a policy that sees them, exact or fast [default: what it saw in
    /// pre-training, else exact].
    #[arg(long, value_name = "QUALITY")]
    pub(super) pictures: Option<Quality>,
    /// Begin anew whatever the folder holds.
    #[arg(long)]
    pub(super) fresh: bool,
    #[command(flatten)]
    pub(super) device: DeviceArg,
    #[command(flatten)]
    pub(super) checkpointing: Checkpointing,
}

pub fn run(args: FinetuneArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = args.common.read()?;
    let Some(judgement) = train(&args, config.clone(), interrupt)? else { return Ok(Ending::Interrupted) };
    args.common.output.print(&judgement, &describe_run(&args, &config, &judgement))?;
    Ok(ending_of(&judgement))
}

/// Fine-tunes as a step of another command, which gives the result: here it is only noted.
pub(super) fn run_quietly(args: &FinetuneArgs, config: TaskConfig, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let Some(judgement) = train(args, config.clone(), interrupt)? else { return Ok(Ending::Interrupted) };
    eprintln!("{}", describe_run(args, &config, &judgement));
    Ok(ending_of(&judgement))
}

fn ending_of(judgement: &Judgement) -> Ending {
    if judgement.reached { Ending::Done } else { Ending::GoalMissed }
}

/// The run, or what an earlier one came to. `None`: interrupted.
fn train(args: &FinetuneArgs, mut config: TaskConfig, interrupt: &Interrupt) -> anyhow::Result<Option<Judgement>> {
    config.finetune()?;
    if let Some(finetune) = &mut config.finetune {
        finetune.iterations = args.iterations.unwrap_or(finetune.iterations);
        finetune.seed = args.seed.unwrap_or(finetune.seed);
        ensure!(finetune.iterations >= 1, "--iterations 0: give at least 1");
    }
    read_noise(&mut config)?;
    pictures(&config, args.pictures)?;
    let (config, finetune) = (&config, config.finetune()?);
    let compute = args.device.compute(&args.common.output)?;
    let pretrained = args.from.as_deref().map(|folder| Pretrained::read(folder, config)).transpose()?;
    let folder = RunDir::hold(&args.out, args.checkpointing.keep(finetune.iterations))?;

    let before_sha256 = pretrained.as_ref().map(|p| p.sha256.as_str());
    let (mut run, continued) = match previous(&args.out, args.fresh, config, before_sha256)? {
        Some(mut checkpoint) => {
            // By value: another release may write the same settings in other words, and that is no reason to forget.
            if config_of(&checkpoint)?.finetune != config.finetune {
                // Another number of iterations: what the run came to counts no more.
                remove(&args.out.join(JUDGEMENT_FILE))?;
                checkpoint.header.run.config = config_text(config)?;
                write_text(&args.out.join(CONFIG_FILE), &checkpoint.header.run.config)?;
            }
            (FinetuneRun::resume(config, &checkpoint, compute)?, true)
        }
        None => {
            folder.begin_anew()?;
            for file in [JUDGEMENT_FILE, BEFORE_FILE] {
                remove(&args.out.join(file))?;
            }
            let text = config_text(config)?;
            write_text(&args.out.join(CONFIG_FILE), &text)?;
            let mut provenance = vec![("commit", commit()), ("seed", finetune.seed.to_string())];
            provenance.extend(noise_sha256(config).map(|sha256| (NOISE_SHA256, sha256)));
            if let Some(p) = &pretrained {
                provenance.push(("pretrained", p.path.display().to_string()));
                provenance.push((PRETRAINED_SHA256, p.sha256.clone()));
            }
            let seen = pictures(config, args.pictures)?;
            let provenance = provenance.into_iter().map(|(key, value)| (key.to_string(), value)).chain(seen);
            let source = pretrained.as_ref().map_or(Source::Scratch, |p| Source::Pretrained(&p.checkpoint));
            let run = FinetuneRun::new(config, text, source, provenance, compute)?;
            // From here on a killed run can go on.
            folder.save(0, &run.checkpoint())?;
            (run, false)
        }
    };
    let goal = run.goal(config);
    if continued && let Some(judgement) = read_json(&args.out.join(JUDGEMENT_FILE))? {
        return Ok(Some(judgement));
    }
    let stop = || interrupt.is_requested();
    let total = finetune.iterations;
    let provenance = &run.run_info().provenance;
    let card = Card::new("finetune", config.task.as_str(), finetune.seed, (COUNTER, total as u64), provenance);
    let mut watcher = Watcher::open(&folder, card, run.iterations_done())?;
    let begun = Instant::now();
    let before_path = args.out.join(BEFORE_FILE);
    let before = match read_json::<Evaluations>(&before_path)? {
        Some(known) => known.before,
        None => {
            let Some(pair) = judge(&run, config, "before fine-tuning", &stop)? else { return Ok(None) };
            write_json(&before_path, &Evaluations { before: pair.clone() })?;
            pair
        }
    };

    note(&mut watcher, config, "before", &before)?;
    let mut progress = Progress::continuing(COUNTER, total, run.iterations_done() as usize);
    if continued {
        progress.note(&format!("continuing after iteration {} of {total}", run.iterations_done()));
    }
    let mut after = None;
    // What ends the run before its last iteration.
    let early = finetune.stop_at_return.map(Goal::Return).or(finetune.stop_at_success.map(Goal::SuccessRate));
    while run.iterations_done() < total as u64 {
        if let Some(early) = early.filter(|_| run.judges_now()) {
            progress.note(&format!("judging after iteration {}", run.iterations_done()));
            let Some(pair) = judge(&run, config, "judging", &stop)? else { return Ok(None) };
            if early.is_reached(&pair) {
                after = Some(pair);
                break;
            }
        }
        let mut undone = |e: &TrainError| progress.note(&format!("undone and begun again: {e}"));
        let Some(record) = run.iterate(&stop, &mut undone)? else { return Ok(None) };
        if let Some(early) = early {
            run.plan_judgement(early, &record);
        }
        watcher.record(&record)?;
        folder.save(record.iteration, &run.checkpoint())?;
        progress.show(record.iteration as usize, &describe(&record));
    }
    drop(progress);
    let after = match after {
        Some(pair) => pair,
        None => {
            let Some(pair) = judge(&run, config, "after fine-tuning", &stop)? else { return Ok(None) };
            pair
        }
    };
    let judgement = Judgement {
        reached: goal.is_none_or(|goal| goal.is_reached(&after)),
        before,
        after,
        goal,
        iterations: run.iterations_done(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    note(&mut watcher, config, "after", &judgement.after)?;
    if let Some(goal) = goal {
        watcher.result(&format!("goal: {goal}"), if judgement.reached { "reached" } else { "missed" })?;
    }
    // A run with a judgement is not opened again, so the watcher ends first.
    watcher.finish()?;
    write_json(&args.out.join(JUDGEMENT_FILE), &judgement)?;
    Ok(Some(judgement))
}

fn judge(
    run: &FinetuneRun,
    config: &TaskConfig,
    when: &str,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<NoisePair>> {
    let episodes = config.evaluate.episodes;
    let mut progress: Option<(String, Progress)> = None;
    let pair = run.judge(config, stop, &mut |name, done, so_far| {
        if progress.as_ref().is_none_or(|(shown, _)| shown != name) {
            progress = Some((name.to_string(), Progress::new(format!("{when}, {name}: episode"), episodes)));
        }
        if let Some((_, progress)) = &mut progress {
            progress.show(done, &so_far.describe(config.task));
        }
    })?;
    Ok(pair)
}

/// Shows a judgement beside the curves.
fn note(watcher: &mut Watcher, config: &TaskConfig, when: &str, pair: &NoisePair) -> anyhow::Result<()> {
    for (noise, e) in [("evaluation", &pair.evaluation_noise), ("training", &pair.training_noise)] {
        watcher.result(&format!("{when}, {noise} noise"), &e.describe(config.task))?;
    }
    Ok(())
}

fn describe(r: &IterationRecord) -> String {
    let seconds = |update: Option<f64>| {
        let update = update.map_or_else(String::new, |s| format!("+{s:.1}"));
        let pictures = r.seconds_pictures.map_or_else(String::new, |s| format!(" (pictures {s:.1} of all threads)"));
        format!("{:.1}+{:.1}{update} s{pictures}", r.seconds_sampling, r.seconds_environment)
    };
    let outcome = |success: Option<f64>, mean_return: Option<f64>| {
        let success = success.map(|s| format!("success {:.0} %", 100.0 * s));
        let mean_return = mean_return.map(|m| format!("return {m:.0}"));
        let parts: Vec<String> = success.into_iter().chain(mean_return).collect();
        if parts.is_empty() { "no episode ended".to_string() } else { parts.join(", ") }
    };
    if let Some(e) = &r.evaluation {
        let outcome = outcome(e.evaluation_success_rate, e.evaluation_return);
        return format!("evaluation: {outcome}, {} episodes, {}", e.evaluation_episodes, seconds(None));
    }
    let Some(t) = &r.training else { return seconds(None) };
    format!(
        "{}, KL {:.4}, clipped {:.0} %, explained {:.2}, {}",
        outcome(t.success_rate, t.mean_return),
        t.approx_kl,
        100.0 * t.clip_fraction,
        t.explained_variance,
        seconds(Some(t.seconds_update))
    )
}

fn describe_run(args: &FinetuneArgs, config: &TaskConfig, judgement: &Judgement) -> String {
    let (before, after) = (&judgement.before, &judgement.after);
    let mut text = String::new();
    for (name, before, after) in [
        ("evaluation noise", &before.evaluation_noise, &after.evaluation_noise),
        ("training noise", &before.training_noise, &after.training_noise),
    ] {
        let (before, after) = (before.describe(config.task), after.describe(config.task));
        text += &format!("{name}:\n  before {before}\n  after  {after}\n");
    }
    text += &format!("{} iterations, {:.0} s", judgement.iterations, judgement.seconds);
    if let Some(goal) = judgement.goal {
        let reached = if judgement.reached { "reached" } else { "MISSED: try more --iterations or another --seed" };
        text += &format!("; goal of {goal} {reached}");
    }
    text + &format!("; written to {}", args.out.display())
}

/// The pre-trained policy that a run begins with.
struct Pretrained {
    path: PathBuf,
    sha256: String,
    checkpoint: Checkpoint,
}

impl Pretrained {
    fn read(folder: &Path, config: &TaskConfig) -> anyhow::Result<Self> {
        let path = folder.join(CHECKPOINT_FILE);
        let checkpoint =
            Checkpoint::read(&path).context("run `tenon-train pretrain` first, or name its folder with --from")?;
        let task = config_of(&checkpoint)?.task;
        ensure!(task == config.task, "{} was pre-trained for {task}, not {}", path.display(), config.task);
        Ok(Self { sha256: sha256_of(&path)?, path, checkpoint })
    }
}

/// Whether these are the settings of a longer or shorter run whose beginning are the `done` iterations.
fn begins_alike(config: &TaskConfig, before: &TaskConfig, done: u64) -> bool {
    let (Some(now), Some(before)) = (&config.finetune, &before.finetune) else { return false };
    // A cycle that is not given is as long as the run.
    let same_rates = now.actor_cycle_iterations.is_some() || now.actor_learning_rate == now.actor_min_learning_rate;
    let as_long = FinetuneConfig { iterations: before.iterations, ..now.clone() };
    same_rates && now.iterations as u64 >= done && as_long == *before
}

/// The checkpoint to continue from: that of the same settings and pre-trained policy, but for the number of iterations.
fn previous(
    folder: &Path,
    fresh: bool,
    config: &TaskConfig,
    sha256: Option<&str>,
) -> anyhow::Result<Option<Checkpoint>> {
    let Some(checkpoint) = newest(folder, fresh)? else { return Ok(None) };
    let before = config_of(&checkpoint)?;
    let done = checkpoint.header.counters.get("iteration").copied().unwrap_or(0);
    let what = if checkpoint.header.stage != Stage::Finetune {
        "a pre-training run"
    } else if before.task != config.task
        || before.policy != config.policy
        || (before.finetune != config.finetune && !begins_alike(config, &before, done))
        || before.evaluate != config.evaluate
        || before.compat != config.compat
        || before.randomisation != config.randomisation
    {
        "a run of other settings"
    } else if checkpoint.header.run.provenance.get(PRETRAINED_SHA256).map(String::as_str) != sha256 {
        "a run from another pre-trained policy"
    } else {
        return Ok(Some(checkpoint));
    };
    bail!("{} holds {what}: choose another --out, or --fresh to begin anew", folder.display())
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

#[cfg(test)]
mod tests {
    use tenon_core::config::Values;

    use super::*;

    #[test]
    fn a_run_may_become_longer_or_shorter_but_not_shorter_than_it_is() {
        let text = include_str!("../../../configs/tasks/can.toml");
        let config = |edit: &dyn Fn(&mut FinetuneConfig)| {
            let mut config = TaskConfig::parse("can.toml", text, Values::Latest).unwrap();
            edit(config.finetune.as_mut().unwrap());
            config
        };
        let before = config(&|c| c.iterations = 20);
        let of = |iterations: usize| config(&|c| c.iterations = iterations);
        assert!(begins_alike(&of(30), &before, 20) && begins_alike(&of(12), &before, 12));
        assert!(!begins_alike(&of(11), &before, 12));
        // Another setting, or a rate that falls more quickly: another run from its beginning.
        assert!(!begins_alike(&config(&|c| (c.iterations, c.seed) = (12, 1)), &before, 5));
        let falling = |iterations| config(&|c| (c.iterations, c.actor_min_learning_rate) = (iterations, 1e-6));
        assert!(!begins_alike(&falling(12), &falling(20), 5));
    }
}
