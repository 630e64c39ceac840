//! `tenon-train bench env`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tenon_core::task::{TaskFamily, TaskName};
use tenon_sim::batch::Environment;
use tenon_sim::mujoco::{Model, Simulation};
use tenon_sim::render::{POLICY_PICTURE_SIDE, Quality};
use tenon_sim::speed::{Cost, Physics, Rows, Stepping, Trace};
use tenon_train::environments::{TaskEnv, environments, look_of};
use tenon_train::interrupt::Interrupt;

use super::Ending;
use super::bench::{Line, median, sorted};
use super::bench_peer::Peer;

/// What is measured where nobody says.
const TASKS: [TaskName; 8] = [
    TaskName::Hopper,
    TaskName::Walker2d,
    TaskName::HalfCheetah,
    TaskName::Lift,
    TaskName::Can,
    TaskName::Square,
    TaskName::Transport,
    TaskName::LiftPixels,
];
const UNIT: &str = "control steps/core-s";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train bench env --task lift --task hopper --threads 1 --json\n  \
    tenon-train bench env --quick --peer .deps/venv-environments/bin/python trainer/peer/environments.py\n\n\
    Everyone steps the same rows: the first control steps of episodes, from the same seeds with the same random actions, resets not\n\
    timed. `physics` repeats only the physics steps, with the same inputs; the peer adds mujoco.rollout and the task's Python\n\
    environment. Of tasks that are seen through cameras, ours draw a picture of 96×96 after each control step, `exact` or `fast`, and so\n\
    does the task's Python environment. Repetitions alternate. Control steps for each second of processor time; p99 is the slow tail; a ratio above 1: ours is\n\
    faster. `make bench-env` sets the peer up.")]
pub struct EnvArgs {
    /// Task; may be given several times [default: all whose models are here].
    #[arg(long = "task", value_name = "NAME", value_parser = parse_task)]
    tasks: Vec<TaskName>,
    /// Threads; may be given several times.
    #[arg(long, value_name = "N", default_values_t = [1, 2], value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Vec<u16>,
    /// Repetitions.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// At most 3 repetitions.
    #[arg(long)]
    quick: bool,
    /// Python and trainer/peer/environments.py.
    #[arg(long, value_name = "PROGRAM", num_args = 1..)]
    peer: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

fn parse_task(name: &str) -> Result<TaskName, String> {
    TaskName::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = TaskName::ALL.iter().map(|task| task.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Few enough control steps, with actions so small, that no body falls, and enough of them that it stands on the ground.
fn rows(task: TaskName) -> Rows {
    match task.family() {
        TaskFamily::Gym => Rows { count: 40, steps: 12, chunk_steps: 4, action_bound: 0.3, seed: 0 },
        // The Python environments draw after each control step.
        _ if task.cameras() > 0 => Rows { count: 10, steps: 8, chunk_steps: 1, action_bound: 0.5, seed: 0 },
        // So many that the last of them does not decide how well two threads share them.
        _ => Rows { count: 20, steps: 8, chunk_steps: 4, action_bound: 0.5, seed: 0 },
    }
}

#[derive(Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Request<'a> {
    Rollout { trace: &'a Path, threads: usize },
    Python { task: &'a str, trace: &'a Path, frame: Option<u32> },
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    steps: usize,
    wall: f64,
    cpu: f64,
}

pub fn run(args: EnvArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut peer = match args.peer.split_first() {
        Some((program, arguments)) => Some(Peer::start(program, arguments)?),
        None => None,
    };
    let repetitions = if args.quick { args.repetitions.min(3) } else { args.repetitions } as usize;
    let tasks = if args.tasks.is_empty() { &TASKS[..] } else { &args.tasks };
    if !args.json {
        println!(
            "{:<24} {:>10} {:>10} {:>10}  {:<26} {:>10} {:>6}",
            "bench", "p50", "p99", "max", "peer", "p50", "ratio"
        );
    }
    for &task in tasks {
        let first = match environments(task, 1) {
            Ok(mut first) => first.remove(0),
            // Asked for by name it is an error; among all it is one of those that were never fetched.
            Err(error) if args.tasks.is_empty() => {
                eprintln!("{task} is left out: {error}");
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("preparing {task}")),
        };
        let Some(measured) = Measured::of(task, first, &args.threads, repetitions, peer.as_mut(), interrupt)? else {
            return Ok(Ending::Interrupted);
        };
        for line in measured.lines() {
            match args.json {
                true => println!("{}", serde_json::to_string(&line)?),
                false => print(&line),
            }
        }
    }
    Ok(Ending::Done)
}

fn print(line: &Line) {
    let peer = match (&line.peer, line.peer_p50, line.ratio) {
        (Some(peer), Some(p50), Some(ratio)) => format!("  {peer:<26} {p50:>10.1} {ratio:>6.2}"),
        _ => String::new(),
    };
    println!("{:<24} {:>10.1} {:>10.1} {:>10.1}{peer}", line.bench, line.p50, line.p99, line.max);
}

/// The costs of each repetition.
struct Series {
    name: String,
    threads: usize,
    costs: Vec<Cost>,
}

struct Measured {
    task: TaskName,
    /// One for each number of threads and quality of pictures; the quality is the name, "" where nothing is drawn.
    ours: Vec<Series>,
    peers: Vec<Series>,
}

/// What is repeated in turn.
struct Runner {
    threads: usize,
    /// Our environments by the quality of their pictures.
    stepping: Vec<(String, Stepping<TaskEnv>)>,
    /// None where pictures belong to the work, which have no physics beside them.
    physics: Option<Physics>,
}

impl Runner {
    fn new(task: TaskName, trace: &Trace, model: &Model, threads: usize) -> anyhow::Result<Self> {
        let rows = rows(task);
        let stepping = || -> anyhow::Result<_> { Ok(Stepping::new(environments(task, rows.count)?, rows, threads)?) };
        if task.cameras() == 0 {
            let worlds = (0..threads).map(|_| Simulation::new(model)).collect();
            return Ok(Self {
                threads,
                stepping: vec![(String::new(), stepping()?)],
                physics: Some(Physics::new(trace.clone(), worlds)?),
            });
        }
        let seen = |quality: Quality| -> anyhow::Result<_> {
            let look = look_of(task, quality).with_context(|| format!("{task} has no cameras"))?;
            Ok((quality.to_string(), stepping()?.seen_by(look)?))
        };
        Ok(Self { threads, stepping: vec![seen(Quality::Exact)?, seen(Quality::Fast)?], physics: None })
    }
}

/// The folder of the trace that the peer reads; it goes with this.
struct TraceFolder(PathBuf);

impl Drop for TraceFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Measured {
    /// None: interrupted.
    fn of(
        task: TaskName,
        mut first: TaskEnv,
        threads: &[u16],
        repetitions: usize,
        mut peer: Option<&mut Peer>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<Self>> {
        let rows = rows(task);
        let trace = Trace::record(&mut first, rows).with_context(|| format!("the physics of {task}"))?;
        let model: Model = first.world().context("an environment that was recorded has a world")?.model().clone();
        let folder = TraceFolder(std::env::temp_dir().join(format!("tenon-bench-env-{}-{task}", std::process::id())));
        if peer.is_some() {
            std::fs::create_dir_all(&folder.0)
                .and_then(|()| trace.write(&model, &folder.0))
                .with_context(|| format!("writing the trace for the peer into {}", folder.0.display()))?;
        }
        let mut runners = Vec::new();
        for &threads in threads {
            runners.push(Runner::new(task, &trace, &model, usize::from(threads))?);
        }
        let mut measured = Self { task, ours: Vec::new(), peers: Vec::new() };
        // The first one warms up.
        for repetition in 0..=repetitions {
            for Runner { threads, stepping, physics } in &mut runners {
                let mut found = Vec::new();
                for (quality, stepping) in stepping {
                    if interrupt.is_requested() {
                        return Ok(None);
                    }
                    let cost = stepping.run()?;
                    if repetition > 0 {
                        add(&mut measured.ours, quality, *threads, cost);
                    }
                }
                if let Some(physics) = physics {
                    found.push(("physics alone".to_owned(), physics.run()?));
                }
                if let Some(peer) = peer.as_deref_mut() {
                    let (trace_folder, frame) = (&folder.0, (task.cameras() > 0).then_some(POLICY_PICTURE_SIDE));
                    if physics.is_some() {
                        let rollout = Request::Rollout { trace: trace_folder, threads: *threads };
                        let (name, mut cost) = ask(peer, &rollout)?;
                        cost.steps /= trace.frame_skip();
                        found.push((name, cost));
                    }
                    // One environment in Python has one thread.
                    if *threads == 1 {
                        let name = task.as_str().trim_end_matches("_pixels");
                        found.push(ask(peer, &Request::Python { task: name, trace: trace_folder, frame })?);
                    }
                }
                if repetition > 0 {
                    found.into_iter().for_each(|(name, cost)| add(&mut measured.peers, &name, *threads, cost));
                }
            }
            if let (0, Some((_, seen))) = (repetition, runners.first().and_then(|runner| runner.stepping.first()))
                && let Some(backend) = seen.backend()
            {
                eprintln!("{task}: drawn by {backend}");
            }
        }
        Ok(Some(measured))
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let name = |series: &Series, gain: &str| match &series.name[..] {
            "" => format!("env/{}/{gain}{}", self.task, series.threads),
            quality => format!("env/{}/{gain}{}/{quality}", self.task, series.threads),
        };
        for ours in &self.ours {
            let rates = ours.rates(Cost::per_core);
            let mut peers = self.peers.iter().filter(|peer| peer.threads == ours.threads).peekable();
            if peers.peek().is_none() {
                lines.push(line(&name(ours, ""), UNIT, &rates, None));
            }
            for peer in peers {
                lines.push(line(&name(ours, ""), UNIT, &rates, Some((&peer.name, &peer.rates(Cost::per_core)))));
            }
        }
        // How much more threads do in a second on the clock, ours and each peer's.
        for many in self.ours.iter().filter(|series| series.threads > 1) {
            let alone = |all: &'_ [Series], name: &str| all.iter().position(|s| s.threads == 1 && s.name == name);
            let Some(one) = alone(&self.ours, &many.name) else { continue };
            let gain = many.gain(&self.ours[one]);
            let mut lonely = true;
            for peer in self.peers.iter().filter(|peer| peer.threads == many.threads) {
                let Some(one) = alone(&self.peers, &peer.name) else { continue };
                let theirs = peer.gain(&self.peers[one]);
                lines.push(line(&name(many, "gain/"), "times", &gain, Some((&peer.name, &theirs))));
                lonely = false;
            }
            if lonely {
                lines.push(line(&name(many, "gain/"), "times", &gain, None));
            }
        }
        lines
    }
}

impl Series {
    fn rates(&self, of: impl Fn(&Cost) -> f64) -> Vec<f64> {
        self.costs.iter().map(of).collect()
    }

    /// Steps a second over those of `one` thread, repetition by repetition.
    fn gain(&self, one: &Self) -> Vec<f64> {
        self.costs.iter().zip(&one.costs).map(|(many, one)| many.per_second() / one.per_second()).collect()
    }
}

fn add(all: &mut Vec<Series>, name: &str, threads: usize, cost: Cost) {
    match all.iter_mut().find(|series| series.name == name && series.threads == threads) {
        Some(series) => series.costs.push(cost),
        None => all.push(Series { name: name.to_owned(), threads, costs: vec![cost] }),
    }
}

fn ask(peer: &mut Peer, request: &Request) -> anyhow::Result<(String, Cost)> {
    let Answer { name, steps, wall, cpu } = peer.ask(request)?;
    if !(wall > 0.0 && cpu > 0.0 && steps > 0) {
        bail!("the peer's {steps} steps took {wall} s ({cpu} s of the processor): must be times");
    }
    Ok((name, Cost { steps, wall_s: wall, processor_s: cpu }))
}

/// More is better, for a peer too.
fn line(bench: &str, unit: &'static str, ours: &[f64], peer: Option<(&str, &[f64])>) -> Line {
    let ours = sorted(ours.to_vec());
    let p50 = median(&ours).unwrap_or(f64::NAN);
    let peer_p50 = peer.and_then(|(_, theirs)| median(&sorted(theirs.to_vec())));
    Line {
        bench: bench.to_owned(),
        unit,
        n: ours.len(),
        p50,
        p99: ours[ours.len() / 100],
        max: ours[ours.len() - 1],
        peer: peer.map(|(name, _)| name.to_owned()),
        peer_p50,
        ratio: peer_p50.map(|theirs| p50 / theirs),
    }
}
