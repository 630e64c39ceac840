//! `tenon replay`: what a record shows, and whether everything in it can be computed again to the bit.
//!
//! The controller is made again from the recorded configuration and policy, fed with each recorded tick, and what comes out is
//! compared with what came out then. The policy's chunks are sampled again from their recorded observations and noise, on the
//! recorded engine. What that rests on: `Controller::tick` reads no clock and has no threads, the noise is one seeded stream whose
//! position stands in each chunk's record, and both engines run on one thread. Another processor may round its networks otherwise.

mod report;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tenon_core::config::RobotConfig;
use tenon_core::noise::{NoiseState, SeededNoise};
use tenon_core::time::MonotonicTime;
use tenon_policy::bundle::{Manifest, sha256};
use tenon_policy::{Bundle, Engine, OnnxDenoiser};
use tenon_recorder::{ChunkRecord, Ending, Item, Observation, PartsRecord, Record, RunReader, TickRecord, Words};

use crate::inference::ChunkSampler;
use crate::machine::{Controller, Order, Settings};
use crate::record::{self, Difference};
use crate::run;
use crate::timing::Stage;

pub use report::{EventLine, Failure, Report, Targets, Verification};

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder of a recorded run, or one of its files.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Compute every tick and every chunk again and compare all bits; exit code 1 where one differs.
    #[arg(long)]
    pub verify: bool,
    /// The policy bundle, where it is no longer where the run had it.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon replay`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let report = examine(options)?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("a report is plain data")?);
    } else {
        print!("{}", report::text(&report));
    }
    let failed = report.verification.as_ref().is_some_and(|verification| verification.failure.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads a record and, where asked for, computes it again.
pub fn examine(options: &Options) -> Result<Report> {
    let mut reader = open(&options.run)?;
    let mut excerpt = None;
    if options.verify && reader.metadata().contains_key("excerpt_of") {
        // The ticks before it are needed to know what the controller was about.
        let run = options.run.parent().filter(|folder| RunReader::open(folder).is_ok());
        let Some(run) = run else {
            bail!("{} is an excerpt, and its run is not beside it: verify the run", options.run.display());
        };
        excerpt = Some(excerpt_of(reader)?);
        reader = open(run)?;
    }
    let mut replay = Replay::new(reader.metadata().clone(), options, excerpt)?;
    let damage = loop {
        match reader.next_item() {
            Ok(Some(item)) => replay.take(item)?,
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    let ending = match (&damage, reader.ending()) {
        (Some(damage), _) => format!("damaged: {damage}"),
        (None, Some(Ending::Finished)) => "ended in order".to_owned(),
        (None, Some(Ending::Stopped { why })) => format!("the recorder stopped before the run: {why}"),
        (None, Some(Ending::Cut { bytes, .. })) => {
            format!("cut off at byte {bytes}: the process was killed; what is missing is younger than a second")
        }
        (None, None) => "it has no end".to_owned(),
    };
    Ok(replay.report(&options.run, ending, damage))
}

fn open(path: &Path) -> Result<RunReader> {
    RunReader::open(path).with_context(|| format!("opening the record {}", path.display()))
}

/// Bytes of every tick of an excerpt.
fn excerpt_of(mut reader: RunReader) -> Result<HashMap<u64, Vec<u8>>> {
    let mut ticks = HashMap::new();
    while let Some(item) = reader.next_item()? {
        if let Item::Record(Record::Tick(tick, words)) = item {
            ticks.insert(tick.tick, bytes(&tick, &words));
        }
    }
    Ok(ticks)
}

fn bytes(tick: &TickRecord, words: &Words) -> Vec<u8> {
    let mut bytes = Vec::new();
    tenon_recorder::record::encode_tick(tick, words, &mut bytes);
    bytes
}

/// What was recorded beside the ticks, as far as they may still refer to it.
#[derive(Default)]
struct Memory {
    orders: HashMap<u64, Vec<u8>>,
    chunks: BTreeMap<u64, ChunkRecord>,
    parts: BTreeMap<MonotonicTime, PartsRecord>,
    observations: BTreeMap<u64, Observation>,
}

impl Memory {
    /// Later ticks refer to what this one saw, or to what is newer.
    fn forget(&mut self, tick: &TickRecord) {
        if let Some(at) = tick.parts {
            self.parts = self.parts.split_off(&at);
        }
        if let Some(id) = tick.chunk {
            self.chunks = self.chunks.split_off(&id);
            // Its chunk was sampled from it before it was seen.
            self.observations = self.observations.split_off(&(id + 1));
        }
    }
}

struct Replay {
    about: BTreeMap<String, String>,
    verify: bool,
    /// `None` once it could not follow the record any further.
    controller: Option<Controller>,
    sampler: Option<Sampler>,
    excerpt: Option<HashMap<u64, Vec<u8>>>,
    memory: Memory,
    verification: Verification,
    targets: Option<Targets>,
    // What is counted.
    first: Option<MonotonicTime>,
    last: MonotonicTime,
    next_tick: u64,
    ticks: u64,
    missing: u64,
    begun: u64,
    ended: u64,
    faults: u64,
    states: u64,
    statuses: u64,
    commands: u64,
    chunks: u64,
    last_state: Option<MonotonicTime>,
    last_status: Option<MonotonicTime>,
    wake_up: Stage,
    tick: Stage,
    state_age: Stage,
    infer: Stage,
    bridge_update: Stage,
    events: Vec<(MonotonicTime, u64, String)>,
}

/// The policy, made again.
struct Sampler {
    sampler: ChunkSampler<OnnxDenoiser>,
    /// Index of the next chunk in the record, and where its noise must begin.
    next: (u64, NoiseState),
}

impl Replay {
    fn new(about: BTreeMap<String, String>, options: &Options, excerpt: Option<HashMap<u64, Vec<u8>>>) -> Result<Self> {
        // An excerpt begins in the middle of a run: what the controller was about is not in it.
        let controller = match about.contains_key("excerpt_of") {
            true => None,
            false if options.verify => Some(controller(&about)?),
            // What another release recorded can still be looked at.
            false => controller(&about).ok(),
        };
        let sampler = options.verify.then(|| Sampler::new(&about, options.bundle.as_deref())).transpose()?;
        Ok(Self {
            about,
            verify: options.verify,
            controller,
            sampler,
            excerpt,
            memory: Memory::default(),
            verification: Verification { ticks: 0, chunks: 0, failure: None },
            targets: None,
            first: None,
            last: MonotonicTime::default(),
            next_tick: 0,
            ticks: 0,
            missing: 0,
            begun: 0,
            ended: 0,
            faults: 0,
            states: 0,
            statuses: 0,
            commands: 0,
            chunks: 0,
            last_state: None,
            last_status: None,
            wake_up: Stage::new(),
            tick: Stage::new(),
            state_age: Stage::new(),
            infer: Stage::new(),
            bridge_update: Stage::new(),
            events: Vec::new(),
        })
    }

    fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Event { at, level, text } => self.events.push((at, level, text)),
            Item::Record(Record::Order { tick, bytes, .. }) => {
                self.memory.orders.insert(tick, bytes);
            }
            Item::Record(Record::Parts(parts)) => {
                self.memory.parts.insert(parts.0.at, *parts);
            }
            Item::Record(Record::Chunk(chunk)) => {
                self.chunks += 1;
                self.infer.record(chunk.took);
                let id = chunk.chunk.request;
                self.memory.chunks.insert(id, *chunk);
                self.sample(id)?;
            }
            Item::Record(Record::Tick(tick, words)) => self.tick(&tick, &words)?,
        }
        Ok(())
    }

    fn tick(&mut self, r: &TickRecord, words: &Words) -> Result<()> {
        if self.first.is_none() {
            self.first = Some(r.now);
            if self.controller.is_none() {
                self.next_tick = r.tick;
            }
        }
        self.last = r.now;
        self.ticks += 1;
        self.count(r, words);
        if r.tick != self.next_tick {
            let missing = r.tick.saturating_sub(self.next_tick);
            self.missing += missing;
            if self.controller.take().is_some() {
                let text = format!("{missing} ticks are missing before this one: nothing behind them can be computed");
                self.fail(Some(r), Failure { tick: None, at_s: None, text, difference: None });
            }
        }
        self.next_tick = r.tick + 1;
        if let Some(excerpt) = &mut self.excerpt
            && let Some(kept) = excerpt.remove(&r.tick)
            && kept != bytes(r, words)
        {
            let text = "what was kept apart is not what the run has".to_owned();
            self.fail(Some(r), Failure { tick: None, at_s: None, text, difference: None });
        }
        if let Some(observation) = r.infer {
            self.memory.observations.insert(observation.id, observation);
            self.sample(observation.id)?;
        }
        self.compute(r, words);
        self.memory.forget(r);
        Ok(())
    }

    /// Computes a tick again.
    fn compute(&mut self, r: &TickRecord, words: &Words) {
        let Some(controller) = &mut self.controller else { return };
        let memory = &mut self.memory;
        let order = r.ordered.then(|| memory.orders.remove(&r.tick).and_then(|bytes| record::read_order(&bytes)));
        let chunk = r.chunk.map(|id| memory.chunks.get(&id).map(|record| &record.chunk));
        let parts = r.parts.map(|at| memory.parts.get(&at).map(|record| &record.0));
        let missing = match (order, chunk, parts) {
            (Some(None), ..) => Some("the order that it was given"),
            (_, Some(None), _) => Some("the chunk that it saw"),
            (.., Some(None)) => Some("the look at the parts that it saw"),
            _ => None,
        };
        if let Some(missing) = missing {
            self.controller = None;
            let text = format!("{missing} is missing in the record: nothing from here on can be computed");
            return self.fail(Some(r), Failure { tick: None, at_s: None, text, difference: None });
        }
        let order: Option<Order> = order.flatten();
        let inputs = record::inputs(r, order, chunk.flatten(), parts.flatten());
        let outcome = controller.tick(r.now, &inputs);
        match record::difference(r, words, &outcome, controller.phase()) {
            None => {
                self.verification.ticks += 1;
                let counts = controller.safety().counts;
                let (passed, limited, refused, braked) = (counts.passed, counts.limited, counts.refused, counts.braked);
                self.targets = Some(Targets { passed, limited, refused, braked });
            }
            Some(difference) => {
                // What follows follows from it.
                self.controller = None;
                let text = format!("the {} is not the same", difference.field);
                self.fail(Some(r), Failure { tick: None, at_s: None, text, difference: Some(difference) });
            }
        }
    }

    /// Samples a chunk again as soon as both it and its observation are there.
    fn sample(&mut self, id: u64) -> Result<()> {
        let Some(sampler) = &mut self.sampler else { return Ok(()) };
        let (Some(chunk), Some(observation)) = (self.memory.chunks.get(&id), self.memory.observations.get(&id)) else {
            return Ok(());
        };
        let difference = sampler.compare(chunk, observation)?;
        match difference {
            None => self.verification.chunks += 1,
            Some(difference) => {
                let here = this_machine();
                let there = self.about.get("machine");
                let other = match there.filter(|there| **there != here) {
                    Some(there) => format!(" (recorded on {there}, this is {here})"),
                    None => String::new(),
                };
                let text = format!("chunk {id}, {} is not the same{other}", difference.field);
                let at_s = self.first.map(|first| chunk.started.seconds_since(first));
                self.fail(None, Failure { tick: None, at_s, text, difference: Some(difference) });
            }
        }
        Ok(())
    }

    /// Keeps the first failure.
    fn fail(&mut self, tick: Option<&TickRecord>, mut failure: Failure) {
        if let Some(tick) = tick {
            failure.tick = Some(tick.tick);
            failure.at_s = self.first.map(|first| tick.now.seconds_since(first));
        }
        if self.verify && self.verification.failure.is_none() {
            self.verification.failure = Some(failure);
        }
    }

    fn count(&mut self, r: &TickRecord, words: &Words) {
        self.wake_up.record(r.wake_up);
        self.tick.record(r.took);
        if let Some(state) = r.state {
            self.state_age.record(state.age(r.now));
            self.states += u64::from(self.last_state.replace(state.time) != Some(state.time));
        }
        if let Some(status) = r.status
            && self.last_status.replace(status.time) != Some(status.time)
        {
            self.statuses += 1;
            if status.value.update_us > 0 {
                self.bridge_update.record(Duration::from_micros(u64::from(status.value.update_us)));
            }
        }
        self.commands += u64::from(r.target.is_some());
        match words.event.as_deref() {
            Some("RunStarted") => self.begun += 1,
            Some(event) if event.starts_with("RunEnded") => self.ended += 1,
            Some(event) if event.starts_with("Faulted") => self.faults += 1,
            _ => {}
        }
    }

    fn report(mut self, run: &Path, ending: String, damage: Option<String>) -> Report {
        let duration_s = self.first.map_or(0.0, |first| self.last.seconds_since(first));
        if let Some(damage) = damage {
            self.fail(None, Failure { tick: None, at_s: None, text: damage, difference: None });
        }
        if self.ticks == 0 {
            let text = "there is no tick in it".to_owned();
            self.fail(None, Failure { tick: None, at_s: None, text, difference: None });
        }
        if let Some(left) = self.excerpt.as_ref().filter(|left| !left.is_empty()) {
            let text = format!("{} ticks that were kept apart are not in the run", left.len());
            self.fail(None, Failure { tick: None, at_s: None, text, difference: None });
        }
        let first = self.first.unwrap_or_default();
        let events = event_lines(self.events, first);
        let rate = |count: u64| if duration_s > 0.0 { count as f64 / duration_s } else { 0.0 };
        let rates = [
            ("ticks", self.ticks),
            ("states", self.states),
            ("statuses", self.statuses),
            ("targets", self.commands),
            ("chunks", self.chunks),
        ];
        let latencies = [
            ("wake_up", &self.wake_up),
            ("tick", &self.tick),
            ("arm_state_age", &self.state_age),
            ("infer", &self.infer),
            ("bridge_update", &self.bridge_update),
        ];
        let whole = ["policy_json", "robot_toml"];
        Report {
            schema: "tenon.replay/1",
            run: run.display().to_string(),
            about: self.about.into_iter().filter(|(key, _)| !whole.contains(&key.as_str())).collect(),
            duration_s,
            ticks: self.ticks,
            missing_ticks: self.missing,
            ending,
            episodes_begun: self.begun,
            episodes_ended: self.ended,
            faults: self.faults,
            rates_hz: rates.into_iter().map(|(name, count)| (name, rate(count))).collect(),
            latencies: latencies.into_iter().map(|(name, stage)| (name, stage.summary())).collect(),
            targets: self.targets,
            events,
            verification: self.verify.then_some(self.verification),
        }
    }
}

/// In the order of time, which is not quite that of the file.
fn event_lines(mut events: Vec<(MonotonicTime, u64, String)>, first: MonotonicTime) -> Vec<EventLine> {
    events.sort_by_key(|(at, ..)| *at);
    let mut lines: Vec<EventLine> = Vec::new();
    for (at, level, text) in events {
        match lines.last_mut().filter(|last| last.text == text) {
            Some(last) => last.count += 1,
            None => lines.push(EventLine { at_s: at.seconds_since(first), level, text, count: 1 }),
        }
    }
    lines
}

impl Sampler {
    fn new(about: &BTreeMap<String, String>, bundle: Option<&Path>) -> Result<Self> {
        let folder = match bundle {
            Some(folder) => folder.to_owned(),
            None => PathBuf::from(recorded(about, "bundle")?),
        };
        let opened = Bundle::open(&folder).with_context(|| {
            format!("opening the policy bundle {} (name it with --bundle where it has moved)", folder.display())
        })?;
        let (found, wanted) = (run::manifest_text(&opened)?, recorded(about, "bundle_sha256")?);
        if sha256(found.as_bytes()) != wanted {
            bail!(
                "{} is not the bundle of this run (its manifest has another SHA-256 than {wanted})",
                folder.display()
            );
        }
        let engine: Engine = recorded(about, "engine")?.parse()?;
        let seed: u64 = recorded(about, "seed")?.parse().context("the record's seed")?;
        let denoiser = opened.denoiser(engine).with_context(|| format!("loading the networks with {engine}"))?;
        let sampler = ChunkSampler::new(opened.spec().clone(), opened.denoising(), denoiser, seed);
        Ok(Self { next: (0, SeededNoise::new(seed, 0).state()), sampler })
    }

    fn compare(&mut self, record: &ChunkRecord, observation: &Observation) -> Result<Option<Difference>> {
        let (index, noise) = self.next;
        // Behind a chunk that was not recorded the noise goes on where the next record says.
        if record.index == index && record.noise != noise {
            return Ok(Some(Difference {
                field: "noise before it".to_owned(),
                recorded: format!("{:?}", record.noise),
                recomputed: format!("{noise:?}"),
            }));
        }
        let Some(request) = record::infer_request(observation) else {
            bail!("the observation of chunk {} has {} values", observation.id, observation.len);
        };
        self.sampler.set_noise(record.noise);
        let chunk = self
            .sampler
            .sample(&request, record.denoising_steps as usize)
            .with_context(|| format!("sampling chunk {} again", request.id))?;
        self.next = (record.index + 1, self.sampler.noise());
        Ok(record::chunk_difference(&record.chunk, &chunk))
    }
}

fn recorded<'a>(about: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str> {
    about.get(key).map(String::as_str).with_context(|| format!("the record does not say its {key}"))
}

/// The controller as the run made it.
fn controller(about: &BTreeMap<String, String>) -> Result<Controller> {
    let config: RobotConfig = tenon_core::config::parse("robot.toml of the record", recorded(about, "robot_toml")?)
        .context("this release reads configurations otherwise: replay it with the release that made it")?;
    let manifest: Manifest = serde_json::from_str(recorded(about, "policy_json")?)
        .context("this release reads bundles otherwise: replay it with the release that made it")?;
    let arm_delay_s = about.get(run::ARM_DELAY).map(|s| s.parse()).transpose().context("the record's arm_delay_s")?;
    let settings = Settings { lead_s: run::lead_s(&config, arm_delay_s)?, ..run::settings(&config) };
    Ok(Controller::new(settings, &manifest.spec)?)
}

/// What decides how the engines round: the processor chooses their kernels.
pub fn this_machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!("{} {}", std::env::consts::ARCH, model.map_or("", |(_, name)| name.trim()))
}
