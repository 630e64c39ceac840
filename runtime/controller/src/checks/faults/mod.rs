//! `tenon test faults`: parts are killed, stopped, restarted, cut off and confused at random moments of a fast motion.
//!
//! The real programs run: service, bridge and the simulated Polymetis server, with the time-outs of robot.toml. Each run arms, starts,
//! does one thing, and is judged from outside: by what the simulator saw, by what is said, by the flight record, and by arming again.
//! Where cameras fail, a policy that observes parts runs before recordings of a rendered bench.

mod bench;
mod cameras;
mod inject;
mod judge;
mod kinds;
mod machine;
mod namespace;
mod policy;
mod process;
mod proxy;
mod record;
mod report;
mod trial;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tenon_core::config::RobotConfig;
use tenon_core::spec::PolicySpec;
use tenon_policy::Bundle;

use crate::processes::shipped;
use bench::{Bench, Place};
use cameras::Rig;
use inject::SmallDisk;
use kinds::{Expected, Kind, Times};
use namespace::Namespace;
use policy::Round;
use report::{Report, Row};
use trial::{Outcome, Ran};

/// Runs after which the service is a new one, because its whole record is computed again after each.
const RUNS_OF_A_SERVICE: usize = 10;
/// How often a run is done again that this machine disturbed.
const TRIES: usize = 8;
/// When, after the policy has begun, s.
const MOMENTS_S: std::ops::Range<f64> = 0.2..2.4;
/// What the recorder leaves free, and not as much again as the filler takes.
const DISK: u64 = (1 << 30) + (192 << 20);
/// The disk is in memory; filled, it must not take all of it.
const MEMORY_LEFT: u64 = 2 << 30;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Runs, one kind after the other.
    #[arg(long, default_value_t = Kind::ALL.len())]
    runs: usize,
    /// Only this kind (see --list); may be given several times.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    only: Vec<Kind>,
    /// Show the kinds, and what must come of each.
    #[arg(long)]
    list: bool,
    /// Of the moments and of what else is drawn. A kind's draws do not depend on the other kinds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An Avoid policy [default: one that goes round and round at up to 0.44 m/s]. Where cameras fail, one that
    /// observes parts runs.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The robot whose limits and time-outs are to be kept; end points are replaced by free ones.
    #[arg(long, default_value = "configs/robot.toml")]
    config: PathBuf,
    /// A folder in which these runs make one for their files; it is removed where nothing was wrong [default: that of temporary files].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Remove nothing.
    #[arg(long)]
    keep: bool,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    let named = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    named.ok_or_else(|| format!("no kind is named {text}: `tenon test faults --list` shows them"))
}

/// `tenon test faults`
///
/// # Errors
/// The runs cannot be done, or somebody pressed Ctrl-C.
pub fn run(options: &Options, interrupted: &AtomicBool) -> Result<ExitCode> {
    let file = shipped(&options.config);
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("reading {}: the robot's configuration (the project has configs/robot.toml)", file.display())
    })?;
    let config: RobotConfig = tenon_core::config::parse(&file.display().to_string(), &text)?;
    // A folder of its own, because it is removed.
    let folder = options.out.clone().unwrap_or_else(std::env::temp_dir);
    let folder = folder.join(format!("tenon-faults-{}", std::process::id()));
    let (avoid, seeing) = (Round::of_avoid()?, Round::of_one_leg(&config.arm())?);
    let times =
        |spec: &PolicySpec| Times::of(&config, spec.period_s / config.control.targets_per_action as f64, &seeing.spec);
    if options.list {
        print!("{}", list(&times(&avoid.spec)));
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
    let bundle = match &options.bundle {
        Some(bundle) => bundle.canonicalize().with_context(|| format!("the policy bundle {}", bundle.display()))?,
        None => policy::write(&avoid, &folder)?,
    };
    let opened = Bundle::open(&bundle)?;
    let times = times(opened.spec());
    let mut runs = Runs {
        options,
        text,
        bundle,
        opened,
        times,
        folder,
        main: None,
        rig: None,
        benches: 0,
        since_new: 0,
        disturbed: Vec::new(),
    };
    let report = runs.all(interrupted).with_context(|| format!("files of the runs: {}", runs.folder.display()))?;
    let folder = runs.folder.clone();
    // The processes end first.
    drop(runs);
    if report.kept.is_none() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report is plain data")?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(times: &Times) -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let must = match (kind.expected(), kind.bound(times)) {
            (Expected::Stop, Some((bound_s, of))) => {
                let ends =
                    kind.ends_within_s(times).map_or_else(String::new, |s| format!("; the run ends within {s:.3} s"));
                format!("at rest within {bound_s:.3} s ({of}), named{ends}")
            }
            (Expected::Hold, Some((bound_s, of))) => {
                format!("at rest within {bound_s:.3} s ({of}), named, and goes on by itself")
            }
            (Expected::Either, Some((bound_s, of))) => {
                format!("goes on, or named and at rest within {bound_s:.3} s ({of})")
            }
            _ => "goes on".to_owned(),
        };
        out += &format!("{:<22} {}\n{:<22}   {must}\n", kind.name(), kind.about(), "");
    }
    out
}

struct Runs<'a> {
    options: &'a Options,
    /// robot.toml
    text: String,
    bundle: PathBuf,
    opened: Bundle,
    times: Times,
    folder: PathBuf,
    /// The bench that lives from run to run.
    main: Option<Bench>,
    /// Made when it is first needed.
    rig: Option<Rig>,
    benches: usize,
    /// Runs that the service has seen.
    since_new: usize,
    disturbed: Vec<String>,
}

impl Runs<'_> {
    fn all(&mut self, interrupted: &AtomicBool) -> Result<Report> {
        let begin = Instant::now();
        let wanted: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| self.options.only.is_empty() || self.options.only.contains(kind))
            .collect();
        let (mut kinds, mut skipped) = (Vec::new(), Vec::new());
        let mut possible = Possible::default();
        for kind in wanted {
            match possible.ask(kind, &self.folder) {
                Ok(()) => kinds.push(kind),
                Err(error) => skipped.push((kind.name(), format!("{error:#}"))),
            }
        }
        if !self.options.json {
            for (kind, why) in &skipped {
                eprintln!("skipped: {kind}: {why}");
            }
        }
        if kinds.is_empty() {
            bail!("nothing is left to be tried on this machine");
        }
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut occurred: HashMap<&str, u64> = HashMap::new();
        for run in 0..self.options.runs {
            let kind = kinds[run % kinds.len()];
            let occurrence = occurred.entry(kind.name()).or_default();
            let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
            let index = Kind::ALL.iter().position(|other| *other == kind).unwrap_or(0) as u64;
            random.set_stream((index << 32) | *occurrence);
            *occurrence += 1;
            let mut outcome = self.one(kind, &mut random, interrupted)?;
            outcome.run = run + 1;
            eprintln!("{}", line(&outcome, self.options.runs));
            outcomes.push(outcome);
        }
        let violated = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).count() as u64;
        let kept = (violated > 0 || self.options.keep).then(|| self.folder.clone());
        Ok(Report {
            schema: "tenon.faults/1",
            seed: self.options.seed,
            times: self.times,
            kinds: kinds.iter().filter_map(|kind| Row::of(*kind, &self.times, &outcomes)).collect(),
            skipped,
            runs: outcomes,
            violated,
            disturbed: self.disturbed.clone(),
            seconds: begin.elapsed().as_secs_f64(),
            kept,
        })
    }

    fn one(&mut self, kind: Kind, random: &mut ChaCha8Rng, interrupted: &AtomicBool) -> Result<Outcome> {
        let moment_s = random.random_range(MOMENTS_S);
        if kind.in_process() {
            let config: RobotConfig = tenon_core::config::parse("robot.toml", &self.text)?;
            return trial::run_in_process(kind, &config, &self.opened, &self.times, moment_s, random);
        }
        let mut last = String::new();
        for k in 0..TRIES {
            if interrupted.load(Ordering::Acquire) {
                bail!("interrupted");
            }
            // Each try draws the same.
            match self.attempt(kind, moment_s, &mut random.clone()) {
                Ok(Ran::Done(outcome)) => return Ok(*outcome),
                Ok(Ran::Disturbed(why)) => {
                    eprintln!("  {} is done once more: {why}", kind.name());
                    self.disturbed.push(format!("{}: {why}", kind.name()));
                    last = why;
                    // What else runs on this machine ends at some time.
                    std::thread::sleep(Duration::from_secs(1 << k.min(3)));
                }
                Err(error) => {
                    if interrupted.load(Ordering::Acquire) {
                        bail!("interrupted");
                    }
                    // What state its parts are in nobody knows.
                    self.main = None;
                    let violations = vec![format!("{error:#}")];
                    return Ok(Outcome { kind: kind.name(), moment_s, violations, ..Outcome::default() });
                }
            }
        }
        let violations = vec![format!("{TRIES} times something else disturbed it: {last}")];
        Ok(Outcome { kind: kind.name(), moment_s, violations, ..Outcome::default() })
    }

    fn attempt(&mut self, kind: Kind, moment_s: f64, random: &mut ChaCha8Rng) -> Result<Ran> {
        let times = self.times;
        match kind {
            Kind::NetworkDown | Kind::NetworkLate => {
                // A bench of its own, gone before its network is.
                let namespace = Namespace::new()?;
                let (name, address) = (namespace.name().to_owned(), namespace.address().to_owned());
                let mut bench = self.new_bench(Place::Namespace { name, address }, false)?;
                trial::run(kind, &mut bench, &times, moment_s, random)
            }
            Kind::DiskFull | Kind::DiskReserve => {
                let mut bench = self.main(false)?;
                let disk = SmallDisk::mount(&bench.folder().join("disk"), DISK)?;
                bench.service = None;
                bench.write_to(Some(disk.folders()));
                let ran = trial::run(kind, &mut bench, &times, moment_s, random);
                bench.service = None;
                bench.write_to(None);
                self.keep(bench, &ran);
                ran
            }
            _ => {
                let mut bench = self.main(kind.is_of_cameras())?;
                let ran = trial::run(kind, &mut bench, &times, moment_s, random);
                self.keep(bench, &ran);
                ran
            }
        }
    }

    fn keep(&mut self, bench: Bench, ran: &Result<Ran>) {
        // After an error it is made anew.
        self.main = ran.is_ok().then_some(bench);
    }

    /// `sees`: with cameras. Of the two benches there is one at a time.
    fn main(&mut self, sees: bool) -> Result<Bench> {
        self.since_new += 1;
        let mut bench = match self.main.take().filter(|bench| bench.rig().is_some() == sees) {
            Some(bench) => bench,
            None => self.new_bench(Place::Here, sees)?,
        };
        if self.since_new > RUNS_OF_A_SERVICE {
            self.since_new = 0;
            bench.service = None;
        }
        Ok(bench)
    }

    fn new_bench(&mut self, place: Place, sees: bool) -> Result<Bench> {
        self.benches += 1;
        let folder = self.folder.join(format!("bench-{}", self.benches));
        let rig = if sees { Some(self.rig()?) } else { None };
        Bench::new(&folder, &self.text, &self.bundle, rig, place)
    }

    fn rig(&mut self) -> Result<Rig> {
        if let Some(rig) = &self.rig {
            return Ok(rig.clone());
        }
        let config: RobotConfig = tenon_core::config::parse("robot.toml", &self.text)?;
        let rig = Rig::new(&self.folder.join("cameras"), &config)?;
        Ok(self.rig.insert(rig).clone())
    }
}

/// What this machine lets us do; asked once.
#[derive(Default)]
struct Possible {
    disk: Option<Result<(), String>>,
    network: Option<Result<(), String>>,
    netem: Option<Result<(), String>>,
}

impl Possible {
    fn ask(&mut self, kind: Kind, folder: &Path) -> Result<()> {
        let text = |result: Result<()>| result.map_err(|error| format!("{error:#}"));
        let answer = match kind {
            Kind::DiskFull if available_memory()? < DISK + MEMORY_LEFT => {
                bail!("a full disk in memory takes {} MB, and 2 GB more should be left", DISK >> 20)
            }
            Kind::DiskFull | Kind::DiskReserve => {
                self.disk.get_or_insert_with(|| text(SmallDisk::mount(&folder.join("disk"), DISK).map(drop)))
            }
            Kind::NetworkDown => self.network.get_or_insert_with(|| text(Namespace::new().map(drop))),
            Kind::NetworkLate => self.netem.get_or_insert_with(|| {
                text(Namespace::new().and_then(|namespace| {
                    let tried = namespace::try_delay();
                    drop(namespace);
                    tried
                }))
            }),
            _ => return Ok(()),
        };
        answer.clone().map_err(|why| anyhow::anyhow!("{why}"))
    }
}

/// What programs may still take, bytes.
fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Ok(kilobytes.context("/proc/meminfo has no MemAvailable")? << 10)
}

/// A run in a line.
fn line(outcome: &Outcome, runs: usize) -> String {
    let what = match (outcome.went_on, outcome.rest_s, outcome.bound_s) {
        (false, Some(rest_s), Some(bound_s)) => format!("at rest after {rest_s:.3} of {bound_s:.3} s"),
        (false, ..) => "stopped".to_owned(),
        (true, Some(rest_s), Some(bound_s)) => format!("held after {rest_s:.3} of {bound_s:.3} s, and went on"),
        (true, ..) => "went on".to_owned(),
    };
    let speed = outcome.speed_m_s.map_or_else(String::new, |speed| format!(" from {speed:.2} m/s"));
    let detail = if outcome.detail.is_empty() { String::new() } else { format!(" {}", outcome.detail) };
    let verdict = match outcome.violations.first() {
        None => "ok".to_owned(),
        Some(violation) => format!("VIOLATED: {violation}"),
    };
    let named = outcome.named.as_ref().map_or_else(String::new, |named| format!(", \"{named}\""));
    format!(
        "run {:>3}/{runs} {:<22} at {:.2} s{detail}: {what}{speed}{named}: {verdict}",
        outcome.run, outcome.kind, outcome.moment_s
    )
}
