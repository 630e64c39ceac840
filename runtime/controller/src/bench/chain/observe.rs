//! Part *observe*: from an observation to the first command that comes of it, in a whole run of the real controller on the simulated
//! robot. Taken from the run's own record, so any run can be judged by the same numbers.
//!
//! ```text
//! wake-up of the tick that observes ─► request ─► policy's thread wakes ─► inference ─► chunk ─► next tick reads it ─► command handed over
//!        └──────── ours ─────────────────────────┘                └ the policy's ┘      └ waits for its deadline ┘└──── ours ────┘
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use tenon_core::config::RobotConfig;
use tenon_core::time::MonotonicTime;
use tenon_policy::Engine;
use tenon_recorder::{Item, Record, RunReader};

use super::{ChainArgs, Line};
use crate::run::{self, Options, RecordTo, Robot, Setup};

pub fn measure(args: &ChainArgs, _: &RobotConfig) -> Result<Vec<Line>> {
    if let Some(record) = &args.record {
        return of_record(record);
    }
    let Some(bundle) = &args.bundle else {
        bail!("--bundle DIR names the policy that is run for it (or --record RUN a run that was recorded)");
    };
    let folder = std::env::temp_dir().join(format!("tenon-chain-{}", std::process::id()));
    let setup = Setup {
        robot: Robot::Sim,
        bundle: bundle.clone(),
        config: args.config.clone(),
        engine: Engine::Tract,
        seed: 7,
        actions: None,
        rig: None,
        cameras: Vec::new(),
        shadow: None,
        out: folder.join("out"),
        record: RecordTo::Folder(folder.join("record")),
        quiet: true,
    };
    let options = Options { setup, episodes: if args.quick { 2 } else { 10 } };
    if !args.json {
        eprintln!("{} episodes on the simulated robot", options.episodes);
    }
    let report = run::run(&options, &Arc::new(AtomicBool::new(false)));
    let lines = report.and_then(|report| match report.fault {
        Some(fault) => bail!("the run ended early: {fault}"),
        None => of_record(&folder.join("record")),
    });
    // What is left of it is in the temporary folder, where the system clears up.
    let _ = std::fs::remove_dir_all(&folder);
    lines
}

/// What is known of a chunk that was asked for.
#[derive(Default)]
struct Asked {
    /// Wake-up of the tick that observed.
    observed: Option<MonotonicTime>,
    /// When that tick had done its work.
    handed_over: Option<MonotonicTime>,
    /// When the policy's thread began, and when the chunk was there.
    began: Option<MonotonicTime>,
    ended: Option<MonotonicTime>,
    /// The tick that read it first: its wake-up, and when its command was ready.
    read: Option<(MonotonicTime, MonotonicTime)>,
}

#[derive(Default)]
struct Times {
    /// From the observation to the command, without the policy and the wait for the tick.
    ours: Vec<f64>,
    /// With the wait: everything but the inference.
    beside_inference: Vec<f64>,
    whole: Vec<f64>,
}

fn of_record(record: &Path) -> Result<Vec<Line>> {
    let mut reader = RunReader::open(record).with_context(|| format!("reading the record {}", record.display()))?;
    let mut asked: HashMap<u64, Asked> = HashMap::new();
    let mut last_read = None;
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Record(Record::Tick(tick, _)) => {
                let woke = tick.due + tick.wake_up;
                let done = tick.now + tick.took;
                if let Some(observation) = &tick.infer {
                    let asked = asked.entry(observation.id).or_default();
                    (asked.observed, asked.handed_over) = (Some(woke), Some(done));
                }
                if let Some(id) = tick.chunk.filter(|&id| last_read != Some(id)) {
                    last_read = Some(id);
                    asked.entry(id).or_default().read = Some((woke, done));
                }
            }
            Item::Record(Record::Chunk(chunk)) => {
                let asked = asked.entry(chunk.chunk.request).or_default();
                (asked.began, asked.ended) = (Some(chunk.started), Some(chunk.started + chunk.took));
            }
            Item::Record(Record::Order { .. } | Record::Parts(_)) | Item::Event { .. } => {}
        }
    }
    let mut times = Times::default();
    for asked in asked.values() {
        let Asked {
            observed: Some(observed),
            handed_over: Some(handed),
            began: Some(began),
            ended: Some(ended),
            read: Some((woke, done)),
        } = asked
        else {
            continue;
        };
        let ms = |from: MonotonicTime, to: MonotonicTime| to.seconds_since(from) * 1e3;
        times.whole.push(ms(*observed, *done));
        times.beside_inference.push(ms(*observed, *began) + ms(*ended, *done));
        // A thread that was quick may have begun before the tick that asked had ended.
        times.ours.push(ms(*observed, (*began).max(*handed)) + ms(*woke, *done));
    }
    Ok(vec![
        Line::of("chain/observe/ours", &mut times.ours, None)?,
        Line::of("chain/observe/with_wait", &mut times.beside_inference, None)?,
        Line::of("chain/observe/whole", &mut times.whole, None)?,
    ])
}
