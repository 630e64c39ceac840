//! `tenon-train bench`.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use tenon_train::bench::{BENCHES, Bench, Parts, Sizes, Timing};
use tenon_train::interrupt::Interrupt;

use super::bench_peer::Peer;
use super::{DeviceArg, Ending};

const QUICK_REPETITIONS: usize = 3;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    tenon-train bench env --task hopper --quick\n  \
    tenon-train bench --only sample_lift --repetitions 20 --json\n\n\
    `make bench-trainer` runs it beside a PyTorch version of the same work, repetitions in turn.\n\n\
    Times are processor time of all threads, which stays comparable on a busy machine; names that end in /wall are\n\
    time on the clock. GFLOP/s (names that end in /gflops) count what the plain mathematics needs, for both alike.\n\
    A ratio above 1: ours is faster. On a card (--device cuda) compare the times on the clock: the processor waits."
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<BenchCommand>,
    /// Run only this bench; may be given several times [default: all].
    #[arg(long, value_name = "NAME", value_parser = BENCHES.map(|b| b.name))]
    only: Vec<String>,
    /// Repetitions [default: a number for each bench].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: Option<u32>,
    /// Rows of a minibatch of the update.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..10_000_000))]
    rows: u32,
    /// Environments that sample together.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    environments: u32,
    /// Threads, of the peer too.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    #[command(flatten)]
    device: DeviceArg,
    /// At most 3 repetitions, and a twentieth of an iteration, its times multiplied: shows that it runs, and roughly how fast.
    #[arg(long)]
    quick: bool,
    /// Program (and its arguments) that repeats the same benches on request, see trainer/peer/peer.py.
    #[arg(long, value_name = "PROGRAM", num_args = 1..)]
    peer: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// How fast the tasks' environments step, beside the physics alone.
    Env(super::bench_env::EnvArgs),
}

/// One line, in the language of all benches of the project.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub bench: String,
    pub unit: &'static str,
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// What it is compared with.
    pub peer: Option<String>,
    pub peer_p50: Option<f64>,
    /// How many times faster ours is by the medians.
    pub ratio: Option<f64>,
}

pub fn run(args: BenchArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    if let Some(BenchCommand::Env(args)) = args.what {
        return super::bench_env::run(args, interrupt);
    }
    let threads = usize::from(args.threads);
    let (rows, environments) = (args.rows as usize, args.environments as usize);
    let sizes = Sizes { threads, device: args.device.device, rows, environments, quick: args.quick };
    let mut peer = match args.peer.split_first() {
        Some((program, arguments)) => Some(Peer::start(program, arguments)?),
        None => None,
    };
    if !args.json {
        println!("processor time of all threads ({threads} used); p99 and max of ours; ratio > 1: ours is faster");
        println!(
            "{:<40} {:>10} {:>10} {:>10} {:<10} {:>8}  {:>10} {:>8} {:>6}",
            "bench", "p50", "p99", "max", "unit", "GFLOP/s", "peer p50", "GFLOP/s", "ratio"
        );
    }
    for bench in BENCHES.iter().filter(|b| args.only.is_empty() || args.only.iter().any(|name| name == b.name)) {
        let usual = if args.quick { bench.repetitions.min(QUICK_REPETITIONS) } else { bench.repetitions };
        let repetitions = args.repetitions.map_or(usual, |n| n as usize);
        let Some(measured) = measure(bench, &sizes, repetitions, peer.as_mut(), interrupt)? else {
            return Ok(Ending::Interrupted);
        };
        measured.print(bench, &sizes, args.json)?;
    }
    if let Some(peer) = &peer
        && !args.json
    {
        println!("peer: {}", peer.name());
    }
    Ok(Ending::Done)
}

/// The repetitions of one bench, ours and the peer's.
struct Measured {
    flops: f64,
    ours: Vec<Parts>,
    theirs: Vec<Vec<(String, Timing)>>,
    peer: Option<String>,
}

/// Repeats ours and the peer's in turn, so that both meet the same load of the machine. None: interrupted.
fn measure(
    bench: &Bench,
    sizes: &Sizes,
    repetitions: usize,
    mut peer: Option<&mut Peer>,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Measured>> {
    let mut case = (bench.build)(sizes).with_context(|| format!("preparing {}", bench.name))?;
    if bench.warm_up {
        (case.work)().with_context(|| format!("warming up {}", bench.name))?;
    }
    // The peer prepares and warms up at its first request, which is none of the repetitions.
    if let Some(peer) = &mut peer {
        peer.repeat(bench.name, sizes, 0)?;
    }
    let mut measured = Measured { flops: case.flops, ours: Vec::new(), theirs: Vec::new(), peer: None };
    for _ in 0..repetitions {
        if interrupt.is_requested() {
            return Ok(None);
        }
        measured.ours.push((case.work)().with_context(|| format!("running {}", bench.name))?);
        if let Some(peer) = &mut peer {
            measured.theirs.extend(peer.repeat(bench.name, sizes, 1)?);
        }
    }
    measured.peer = peer.map(|p| p.name().to_string());
    Ok(Some(measured))
}

impl Measured {
    fn print(&self, bench: &Bench, sizes: &Sizes, json: bool) -> anyhow::Result<()> {
        let units = (bench.units_in_second)(sizes);
        let cpu = |t: &Timing| t.cpu;
        let wall = |t: &Timing| t.wall;
        let name = format!("trainer/{}", bench.name);
        self.print_times(name.clone(), bench.unit, units, None, cpu, json)?;
        self.print_times(format!("{name}/wall"), bench.unit, units, None, wall, json)?;
        let parts: Vec<&str> = self.ours.first().map_or(vec![], |parts| parts.iter().map(|(part, _)| *part).collect());
        if parts.len() > 1 {
            for part in parts {
                self.print_times(format!("{name}/{part}"), bench.unit, units, Some(part), cpu, json)?;
            }
        }
        if json {
            let rates = |seconds: Vec<f64>| sorted(seconds.iter().map(|s| self.flops / s / 1e9).collect());
            let ours = rates(seconds(&self.ours, None, cpu));
            let theirs = rates(seconds(&self.theirs, None, cpu));
            let line = self.line(format!("{name}/gflops"), "GFLOP/s", &ours, &theirs, |ours, peer| ours / peer);
            println!("{}", serde_json::to_string(&line)?);
        }
        Ok(())
    }

    /// Prints the times of one part, or of all together.
    fn print_times(
        &self,
        bench: String,
        unit: &'static str,
        units_in_second: f64,
        part: Option<&str>,
        of: impl Fn(&Timing) -> Duration + Copy,
        json: bool,
    ) -> anyhow::Result<()> {
        let scaled = |seconds: Vec<f64>| sorted(seconds.iter().map(|s| s * units_in_second).collect());
        let ours = scaled(seconds(&self.ours, part, of));
        let theirs = scaled(seconds(&self.theirs, part, of));
        let line = self.line(bench, unit, &ours, &theirs, |ours, peer| peer / ours);
        if json {
            println!("{}", serde_json::to_string(&line)?);
            return Ok(());
        }
        // The operations are those of all parts together.
        let rate = |p50: f64| match part {
            None => format!("{:.1}", self.flops * units_in_second / p50 / 1e9),
            Some(_) => String::new(),
        };
        let mut text = format!(
            "{:<40} {:>10.3} {:>10.3} {:>10.3} {:<10} {:>8}",
            line.bench,
            line.p50,
            line.p99,
            line.max,
            unit,
            rate(line.p50)
        );
        if let (Some(peer), Some(ratio)) = (line.peer_p50, line.ratio) {
            text.push_str(&format!("  {peer:>10.3} {:>8} {ratio:>6.2}", rate(peer)));
        }
        println!("{text}");
        Ok(())
    }

    fn line(
        &self,
        bench: String,
        unit: &'static str,
        ours: &[f64],
        theirs: &[f64],
        ratio: impl Fn(f64, f64) -> f64,
    ) -> Line {
        let p50 = median(ours).unwrap_or(f64::NAN);
        let p99 = ours[((ours.len() - 1) as f64 * 0.99).round() as usize];
        let peer_p50 = median(theirs);
        Line {
            bench,
            unit,
            n: ours.len(),
            p50,
            p99,
            max: ours[ours.len() - 1],
            peer: self.peer.clone().filter(|_| peer_p50.is_some()),
            peer_p50,
            ratio: peer_p50.map(|peer| ratio(p50, peer)),
        }
    }
}

/// Seconds of each repetition: of one part, or of all together.
fn seconds<N: AsRef<str>>(
    repetitions: &[Vec<(N, Timing)>],
    part: Option<&str>,
    of: impl Fn(&Timing) -> Duration,
) -> Vec<f64> {
    let wanted = |name: &N| part.is_none_or(|part| part == name.as_ref());
    let total = |parts: &Vec<(N, Timing)>| -> f64 {
        parts.iter().filter(|(name, _)| wanted(name)).map(|(_, timing)| of(timing).as_secs_f64()).sum()
    };
    repetitions.iter().map(total).collect()
}

pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values; None of none.
pub(super) fn median(sorted: &[f64]) -> Option<f64> {
    let (lower, upper) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((lower + upper) / 2.0)
}
