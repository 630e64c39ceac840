//! `tenon test`: what this release promises, tried on the machine that it is to run on.

pub mod faults;
pub mod ik;
pub mod limits;
pub mod polymetis;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::processes::shipped;
use crate::run::load_config;

/// What can be tried.
#[derive(Subcommand)]
pub enum Test {
    /// Commands as nobody should send them go through the safety stage; none may leave it beyond a limit.
    #[command(
        after_help = "Example:\n  tenon test limits --commands 1e8\n\nExit code: 0 every limit was kept; 1 one was not."
    )]
    Limits(CountArgs),
    /// Inverse kinematics against a reference solution, near singularities and ends of ranges too.
    #[command(after_help = "Example:\n  tenon test ik --count 1e6")]
    Ik(CountArgs),
    /// A Polymetis controller server against its specification; on a real arm nothing moves beyond holding.
    #[command(
        after_help = "Examples:\n  TENON_POLYMETIS=127.0.0.1:50051 tenon test polymetis\n  tenon test polymetis --server 172.16.0.1:50051 --json\n  tenon test polymetis --destructive --restart-command 'systemctl restart polymetis'\n\nExit code: 0 nothing failed and the default controller holds the arm; 1 something failed; 2 not begun."
    )]
    Polymetis(polymetis::Options),
    /// The programs of a simulated robot are killed, stopped, restarted, cut off and confused in the middle of a fast motion.
    #[command(
        after_help = "Example:\n  tenon test faults --runs 200\n  tenon test faults --only bridge-killed --runs 5 --json\n\nExit code: 0 every arm came to rest in time within its limits, the cause was named, nothing was corrupted, and it could be armed\nagain; 1 one was not. Kinds that need a mount or a network namespace want root and are skipped by name without."
    )]
    Faults(faults::Options),
}

#[derive(Args)]
pub struct CountArgs {
    /// How many, 1e8 and the like included.
    #[arg(long, visible_alias = "commands", default_value = "1e6", value_parser = count)]
    count: u64,
    /// The robot whose limits are to be kept.
    #[arg(long, default_value = "configs/robot.toml")]
    config: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; the result does not depend on them [default: all].
    #[arg(long)]
    threads: Option<usize>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn count(text: &str) -> Result<u64, String> {
    let value: f64 = text.replace('_', "").parse().map_err(|_| format!("{text} is no number"))?;
    if (1.0..=1e12).contains(&value) { Ok(value as u64) } else { Err(format!("{text} is not within 1 to 1e12")) }
}

/// Runs a test and prints what it found.
pub fn run(test: &Test, interrupted: &AtomicBool) -> Result<ExitCode> {
    match test {
        Test::Faults(options) => faults::run(options, interrupted),
        Test::Limits(args) => {
            let config = load_config(&shipped(&args.config))?;
            let threads =
                args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
            let told = AtomicU64::new(0);
            let progress = |done: u64| {
                let percent = done * 100 / args.count;
                if !args.json && told.fetch_max(percent, Ordering::Relaxed) < percent && percent.is_multiple_of(5) {
                    eprintln!("{percent:>3} %");
                }
            };
            let report = limits::run(&config, args.count, args.seed, threads, progress);
            print(&report, report.text(), report.violated, args.json)
        }
        Test::Ik(args) => {
            let config = load_config(&shipped(&args.config))?;
            let report = ik::run(&config, args.count, args.seed);
            print(&report, report.text(), report.violated, args.json)
        }
        Test::Polymetis(options) => polymetis::run(options, interrupted),
    }
}

fn print(report: &impl Serialize, text: String, violated: u64, json: bool) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(report).context("the report is plain data")?);
    } else {
        print!("{text}");
    }
    Ok(if violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
