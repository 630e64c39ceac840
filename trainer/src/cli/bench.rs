//! `tenon-train bench`.

use clap::Args;
use serde::Serialize;
use tenon_train::bench::{Timing, sample_lift, update_hopper};
use tenon_train::interrupt::Interrupt;

use super::{Ending, Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train bench --threads 2 --json\n\n\
    One object a line: time on the clock, and processor time of all threads (names that end in /cpu), which stays\n\
    comparable on a busy machine. The network sizes are those of Hopper (update) and Lift (sampling).")]
pub struct BenchArgs {
    /// Rows of a minibatch.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    rows: usize,
    /// Environments that sample together.
    #[arg(long, value_name = "N", default_value_t = 50)]
    environments: usize,
    /// Repetitions.
    #[arg(long, value_name = "N", default_value_t = 20)]
    repetitions: usize,
    #[command(flatten)]
    output: Output,
}

/// One line, in the language of all benches of the project.
#[derive(Debug, Serialize)]
struct Line {
    bench: String,
    unit: &'static str,
    n: usize,
    p50: f64,
    p99: f64,
    max: f64,
    /// There is none for the trainer.
    peer: Option<String>,
    peer_p50: Option<f64>,
    ratio: Option<f64>,
}

pub fn run(args: BenchArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    anyhow::ensure!(
        args.rows >= 1 && args.environments >= 1 && args.repetitions >= 1,
        "--rows, --environments and --repetitions must be at least 1"
    );
    let threads = args.output.threads();
    let update = update_hopper(threads, args.rows, args.repetitions)?;
    print(&args, &format!("train/update_hopper/threads{threads}"), "us/row", args.rows, &update)?;
    if interrupt.is_requested() {
        return Ok(Ending::Interrupted);
    }
    let sample = sample_lift(threads, args.environments, args.repetitions)?;
    let name = format!("train/sample_lift/environments{}/threads{threads}", args.environments);
    print(&args, &name, "us/chunk", args.environments, &sample)?;
    Ok(Ending::Done)
}

fn print(args: &BenchArgs, name: &str, unit: &'static str, parts: usize, timings: &[Timing]) -> anyhow::Result<()> {
    let clock: Vec<f64> = timings.iter().map(|t| t.wall.as_secs_f64()).collect();
    let cpu: Vec<f64> = timings.iter().map(|t| t.cpu.as_secs_f64()).collect();
    for (bench, seconds) in [(name.to_string(), clock), (format!("{name}/cpu"), cpu)] {
        let mut values: Vec<f64> = seconds.iter().map(|s| s * 1e6 / parts as f64).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
        let text = format!("{bench}: p50 {p50:.2}, p99 {p99:.2}, max {max:.2} {unit} (n = {})", values.len());
        let line = Line { bench, unit, n: values.len(), p50, p99, max, peer: None, peer_p50: None, ratio: None };
        args.output.print(&line, &text)?;
    }
    Ok(())
}
