//! `tenon bench tick`: how punctual the control loop is, what a tick takes, and that it keeps its promises.
//!
//! The loop of `tenon run` runs at 1 kHz on the processor and at the priority of the configuration, in segments; in between, on the same
//! processor and at the same priority, cyclictest runs as long, which does nothing but wait. Once in an idle machine, once under
//! load. A filter of the kernel and a counting allocator watch the control thread meanwhile ([`crate::syscalls`], [`crate::allocations`]).

mod load;
mod peer;
mod plan;
mod report;
pub mod segment;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::processes::shipped;
use crate::realtime::{self, Asked};
use crate::run::load_config;
use load::Load;
use report::Measured;
use segment::{Scratch, SegmentSettings};

/// Of the recorded run, for each side in each condition.
const MINUTES: f64 = 10.0;
const QUICK_MINUTES: f64 = 1.0;
/// Shorter segments differ more, longer ones are seldom side by side with their peer.
const LONGEST_SEGMENT_S: f64 = 30.0;
const LEAST_SEGMENTS: f64 = 4.0;

#[derive(Debug, Clone, clap::Args)]
pub struct TickArgs {
    /// One minute for each side in each condition instead of ten.
    #[arg(long, conflicts_with = "minutes")]
    pub quick: bool,
    /// Minutes for each side in each condition [default: 10].
    #[arg(long, value_name = "N")]
    pub minutes: Option<f64>,
    /// Processor on which both sides run, counted from 0 [default: control.cpu of the configuration, else the last one].
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Only an idle machine, or only a loaded one.
    #[arg(long, value_name = "CONDITION")]
    pub only: Option<Condition>,
    /// Go on without cyclictest.
    #[arg(long)]
    pub no_peer: bool,
    /// Limits, priority and rates of the robot.
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// What else the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Condition {
    /// Nothing of ours.
    Idle,
    /// Threads at normal priority on all processors that multiply, copy, write and read.
    Loaded,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Loaded => "loaded",
        })
    }
}

/// Runs `tenon bench tick`. Fails where the control thread did not keep its promises; how late it was never fails.
pub fn tick(args: &TickArgs, interrupted: &AtomicBool) -> Result<ExitCode> {
    let config = load_config(&shipped(&args.config))?;
    let minutes = args.minutes.unwrap_or(if args.quick { QUICK_MINUTES } else { MINUTES });
    let (segments, seconds) = split(minutes)?;
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let asked = Asked {
        priority: config.control.realtime_priority,
        cpu: Some(args.cpu.or(config.control.cpu).unwrap_or(last)),
    };
    let conditions = args.only.map_or(vec![Condition::Idle, Condition::Loaded], |only| vec![only]);
    // Asked before anything is measured.
    let peer = if args.no_peer { None } else { Some(peer::version()?) };
    // A thread of its own, as the loop's: what is granted to this one would be inherited by the load.
    let granted = std::thread::spawn(move || realtime::request(&asked)).join();
    let Ok(granted) = granted else { bail!("asking for real-time scheduling failed; the message is above") };
    let beside = |seconds| peer::run(seconds, granted.cpu, granted.priority, granted.locked, interrupted);
    if peer.is_some() {
        // It refuses to run where it may not have SCHED_FIFO, whatever it is asked for.
        beside(1).context("trying cyclictest for a second (--no-peer goes on without it)")?;
    }
    let awake = realtime::keep_awake();

    if !args.json {
        println!("{}", realtime::machine());
        granted.statements().iter().for_each(|line| println!("{line}"));
        println!(
            "sleep states: {}",
            match &awake {
                Ok(_) => "shallow ones only (cpu_dma_latency is held at 0), on both sides".to_owned(),
                Err(e) => format!("as the machine has them (/dev/cpu_dma_latency: {e})"),
            }
        );
        println!("Tenon's other threads stay off that processor; the load is everywhere");
        println!("beside: {}", peer.as_deref().unwrap_or("nothing (--no-peer)"));
        let sides = if peer.is_some() { 2 } else { 1 };
        let whole_min = (segments * seconds * sides * conditions.len() as u64) as f64 / 60.0;
        println!("{segments} segments of {seconds} s a side and condition: {whole_min:.1} minutes in all");
    }
    let scratch = Scratch::new()?;
    let settings =
        SegmentSettings { config, asked, ticks: (seconds * 1000) as usize, folder: scratch.path().to_owned() };
    let mut kept = true;
    for condition in conditions {
        let load = match condition {
            Condition::Idle => None,
            Condition::Loaded => Some(Load::start(scratch.path())?),
        };
        let mut measured = Measured { condition, segments: Vec::new(), peers: Vec::new() };
        for number in 0..segments {
            eprintln!("tick/{condition}: segment {} of {segments}", number + 1);
            // Who comes first changes, so that what drifts falls on both.
            let ours_first = number % 2 == 0;
            if ours_first {
                measured.segments.push(segment::run(&settings, interrupted)?);
            }
            if peer.is_some() {
                measured.peers.push(beside(seconds)?);
            }
            if !ours_first {
                measured.segments.push(segment::run(&settings, interrupted)?);
            }
        }
        drop(load);
        kept &= measured.promises_kept();
        if args.json {
            for mut line in measured.lines()? {
                line["machine"] = realtime::machine().into();
                line["sleep_states_held"] = awake.is_ok().into();
                println!("{line}");
            }
        } else {
            print!("{}", measured.text());
        }
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Number of segments, and seconds of each.
fn split(minutes: f64) -> Result<(u64, u64)> {
    let whole_s = minutes * 60.0;
    if !(LEAST_SEGMENTS..=24.0 * 3600.0).contains(&whole_s) {
        bail!("--minutes {minutes}: from {:.2} to 1440", LEAST_SEGMENTS / 60.0);
    }
    let segments = (whole_s / LONGEST_SEGMENT_S).ceil().max(LEAST_SEGMENTS);
    Ok((segments as u64, (whole_s / segments).round().max(1.0) as u64))
}

/// A segment of `length` without a peer: what a test looks at.
///
/// # Errors
/// See [`segment::run`].
pub fn one_segment(config: tenon_core::config::RobotConfig, length: Duration) -> Result<segment::Segment> {
    let scratch = Scratch::new()?;
    let asked = Asked { priority: config.control.realtime_priority, cpu: config.control.cpu };
    let ticks = length.as_millis() as usize;
    segment::run(&SegmentSettings { config, asked, ticks, folder: scratch.path().to_owned() }, &AtomicBool::new(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_short_enough_to_stand_side_by_side() {
        assert_eq!(split(10.0).unwrap(), (20, 30));
        assert_eq!(split(1.0).unwrap(), (4, 15));
        assert_eq!(split(0.1).unwrap(), (4, 2));
        for wrong in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(split(wrong).unwrap_err().to_string().contains("--minutes"), "{wrong}");
        }
    }
}
