//! `tenon run`: episodes of a policy on a robot, or on the simulated one with all its processes.

pub(crate) mod program;
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use program::Program;
use serde::{Deserialize, Serialize};
use tenon_calibrate::rig::state_folder;
use tenon_calibrate::steps::{Finding, Grade};
use tenon_calibrate::wizard::CameraChoice;
use tenon_core::calendar::rfc3339;
use tenon_core::config::RobotConfig;
use tenon_policy::bundle::{MANIFEST, sha256};
use tenon_policy::{Bundle, Engine};
use tenon_recorder::{Limits, Recorded, Settings as RecorderSettings, Tap};

use crate::judge::{JudgedEpisode, TruthFile};
use crate::machine::{Controller, Settings};
use crate::processes::{Service, shipped, sibling};
use crate::record::{ChunkTap, ControlTap, Happened, RunRecorder};
use crate::timing::TimingSummary;
use crate::{control_loop, inference, replay, seeing};

/// Where the commands go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Robot {
    /// The simulated robot: this command starts its server and the bridge, and stops them.
    Sim,
    /// A bridge that runs already (systemd unit `tenon-bridge`), in front of a Polymetis server.
    Panda,
}

/// Where the flight recorder writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordTo {
    /// A folder of its own, named by time and session, in `$TENON_STATE/runs`.
    State,
    Folder(PathBuf),
    Nowhere,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub robot: Robot,
    pub bundle: PathBuf,
    pub config: PathBuf,
    pub engine: Engine,
    pub episodes: usize,
    pub seed: u64,
    /// Ends each episode after that many actions, where the task's own number is larger.
    pub actions: Option<usize>,
    /// Rig whose calibration is used instead of the configured one.
    pub rig: Option<String>,
    /// Where pictures come from instead of the calibrated cameras by their serial numbers.
    pub cameras: Vec<CameraChoice>,
    pub out: PathBuf,
    pub record: RecordTo,
    /// No progress on standard error.
    pub quiet: bool,
}

/// One deployed episode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Episode {
    pub index: usize,
    /// CLOCK_MONOTONIC, ns: first action, and end of the last.
    pub started_ns: i64,
    pub ended_ns: i64,
    /// The episode ran to its end; a fault or Ctrl-C did not cut it short.
    pub complete: bool,
    /// What the policy saw at each chunk, in physical units.
    pub observations: Vec<Vec<f32>>,
    /// Present where the simulator's own state was there to judge.
    #[serde(flatten)]
    pub judged: Option<JudgedEpisode>,
}

/// `run.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    pub robot: Robot,
    pub engine: String,
    pub bundle: String,
    pub task: String,
    pub seed: u64,
    pub episodes: Vec<Episode>,
    pub successes: usize,
    pub timing: TimingSummary,
    pub targets_passed: u64,
    pub targets_limited: u64,
    pub targets_refused: u64,
    pub late_chunks: u64,
    /// Last line of the bridge's own statistics, where this command started it.
    pub bridge: Option<serde_json::Value>,
    /// Why the run ended before its last episode.
    pub fault: Option<String>,
    /// What the flight recorder has; absent where none ran.
    #[serde(default)]
    pub record: Option<RecordReport>,
}

/// A run's record, for `tenon replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordReport {
    pub folder: PathBuf,
    pub ticks: u64,
    /// Records that were lost because the recorder did not keep up.
    pub dropped: u64,
    pub bytes: u64,
    /// What led to each fault.
    pub faults: Vec<PathBuf>,
    /// Why the record ends before the run.
    pub trouble: Option<String>,
}

impl RecordReport {
    fn of(folder: PathBuf, recorded: Recorded) -> Self {
        let Recorded { ticks, dropped, bytes, fault_files, trouble } = recorded;
        Self { folder, ticks, dropped, bytes, faults: fault_files, trouble }
    }
}

/// Runs the episodes. `interrupted` is set by Ctrl-C: the arm is held and handed back, and what was done is reported.
pub fn run(options: &Options, interrupted: &Arc<AtomicBool>) -> Result<RunReport> {
    let config_file = shipped(&options.config);
    let (config_text, config) = read_config(&config_file)?;
    let bundle = Bundle::open(&options.bundle)
        .with_context(|| format!("opening the policy bundle {}", options.bundle.display()))?;
    let spec = bundle.spec().clone();
    let settings = settings(&config);
    let controller = Controller::new(settings, &spec)
        .with_context(|| format!("the policy {} cannot run on this controller", options.bundle.display()))?;
    let furniture = seeing::furniture_of(&spec)?;
    let mut program = Program::of(&spec).with_context(|| {
        format!("task {} has no start that `tenon run` knows: it runs the Avoid and furniture tasks", spec.task)
    })?;
    if options.robot == Robot::Sim && furniture.is_some() {
        bail!("the simulated robot has no furniture: run {} with --robot panda, before a bridge", spec.task);
    }
    program.actions = program.actions.min(options.actions.unwrap_or(usize::MAX));
    let denoiser =
        bundle.denoiser(options.engine).with_context(|| format!("loading the networks with {}", options.engine))?;
    let sampler = inference::ChunkSampler::new(spec.clone(), bundle.denoising(), denoiser, options.seed);

    std::fs::create_dir_all(&options.out).with_context(|| format!("creating {}", options.out.display()))?;
    let truth = options.out.join("truth.jsonl");
    // First of all that moves or waits: a camera that has moved ends the run before an arm is asked for.
    let (seeing, seeing_ends) = match furniture {
        Some(furniture) => {
            let say = |finding: &Finding| {
                if !options.quiet {
                    eprintln!("{}: {}", if finding.grade == Grade::Warn { "warning" } else { "ok" }, finding.text);
                }
            };
            let opened = seeing::open(&config, furniture, options.rig.as_deref(), &options.cameras, &config_file, say)?;
            (Some(opened.0), Some(opened.1))
        }
        None => (None, None),
    };
    let ready_within = config.cameras.as_ref().map_or(0.0, |cameras| cameras.ready_within_s);
    let seeing = seeing.map(|seeing| (seeing, Duration::from_secs_f64(ready_within)));
    let services = match options.robot {
        Robot::Sim => Some(Services::start(&config_file, &config, &truth)?),
        Robot::Panda => None,
    };
    crate::processes::prefer();
    let link = tenon_link::ZenohLink::connect(
        &config.link.endpoint,
        &tenon_link::RobotKeys::new(tenon_link::DEFAULT_ROBOT)?,
        Arc::new(crate::clock::now),
        Duration::from_secs(5),
    )
    .with_context(|| format!("connecting to the bridge at {}", config.link.endpoint))?;

    let (handles, mut ends) = control_loop::handles();
    let session_id = session::session_id();
    let about = About { options, config_file: &config_file, config_text: &config_text, bundle: &bundle, session_id };
    let recorder = about.start_recorder(&config)?;
    let chunk_tap = recorder.as_ref().map(|(_, _, tap)| ChunkTap::new(tap.clone()));
    if let Some((_, _, tap)) = &recorder {
        ends.record_to(ControlTap::new(tap.clone()));
    }
    let inference = inference::spawn(sampler, chunk_tap).context("starting the policy's thread")?;
    let policy_errors = inference.errors.clone();
    let priority = config.control.realtime_priority;
    let quiet = options.quiet;
    let control = std::thread::Builder::new()
        .name("tenon-control".into())
        .spawn(move || {
            if let Err(note) = crate::clock::make_realtime(priority)
                && !quiet
            {
                eprintln!("note: {note}");
            }
            control_loop::run(controller, link, inference, seeing_ends, ends, settings.arm)
        })
        .context("starting the control thread")?;

    let mut session = session::Session::new(
        handles,
        policy_errors,
        interrupted.clone(),
        seeing,
        options.quiet,
        options.robot == Robot::Sim,
        session_id,
    );
    let outcome = session.episodes(&spec, &program, &settings.safety.workspace, options.episodes);
    session.finish();
    let late_chunks = session.late_chunks;
    let fault = outcome.err().map(|e| format!("{e:#}"));
    let windows = session.windows;
    let Ok((timing, controller)) = control.join() else { bail!("the control thread panicked; its message is above") };

    let record = recorder.map(|(folder, recorder, _)| RecordReport::of(folder, recorder.finish()));
    if let (Some(record), false) = (&record, options.quiet) {
        let megabytes = record.bytes as f64 / 1e6;
        eprintln!("record: {} ({} ticks, {megabytes:.1} MB)", record.folder.display(), record.ticks);
        for fault in &record.faults {
            eprintln!("what led to the fault: {}", fault.display());
        }
    }

    let bridge = services.and_then(Services::stop);
    let episodes = judge(windows, options.robot, &truth)?;
    let counts = controller.safety().counts;
    let report = RunReport {
        robot: options.robot,
        engine: options.engine.to_string(),
        bundle: options.bundle.display().to_string(),
        task: spec.task.clone(),
        seed: options.seed,
        successes: episodes.iter().filter(|e| e.judged.as_ref().is_some_and(|j| j.success)).count(),
        episodes,
        timing: timing.summary(),
        targets_passed: counts.passed,
        targets_limited: counts.limited,
        targets_refused: counts.refused,
        late_chunks,
        bridge,
        fault,
        record,
    };
    crate::report::write_json(&options.out.join("run.json"), &report)?;
    Ok(report)
}

/// What a controller is made with, from the robot's configuration.
pub fn settings(config: &RobotConfig) -> Settings {
    Settings {
        arm: config.arm(),
        damping: config.damping(),
        safety: config.safety_limits(),
        targets_per_action: config.control.targets_per_action,
        hand_over: config.control.hand_over,
        anchor: config.control.anchor,
        lead_s: config.lead_s(),
        max_tcp_step_m: config.safety.max_tcp_step_m,
        max_tcp_turn_rad: config.safety.max_tcp_turn_deg.to_radians(),
        posture_rate_hz: config.control.posture_rate_hz,
        gripper: config.gripper.as_ref().map(|gripper| gripper.toggle()),
        lag_compensation_s: config.control.lag_compensation_s,
        max_state_age: Duration::from_secs_f64(config.control.max_state_age_s),
        max_late_ticks: config.control.max_late_ticks,
        max_missing: Duration::from_secs_f64(config.cameras.as_ref().map_or(0.0, |cameras| cameras.max_missing_s)),
    }
}

/// Reads and checks `robot.toml`.
pub fn load_config(path: &Path) -> Result<RobotConfig> {
    read_config(path).map(|(_, config)| config)
}

/// `robot.toml` as it is written and as it is understood.
fn read_config(path: &Path) -> Result<(String, RobotConfig)> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("reading {}: the robot's configuration (the project has configs/robot.toml)", path.display())
    })?;
    let config = tenon_core::config::parse(&path.display().to_string(), &text)?;
    Ok((text, config))
}

/// The manifest of a bundle as it is written; it holds the policy's definition and the hashes of its networks.
pub fn manifest_text(bundle: &Bundle) -> Result<String> {
    let path = bundle.folder().join(MANIFEST);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// What explains a record.
struct About<'a> {
    options: &'a Options,
    config_file: &'a Path,
    config_text: &'a str,
    bundle: &'a Bundle,
    session_id: u64,
}

impl About<'_> {
    /// Begins the record; `None` where none is wanted.
    fn start_recorder(&self, config: &RobotConfig) -> Result<Option<(PathBuf, RunRecorder, Tap<Happened>)>> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let folder = match &self.options.record {
            RecordTo::Nowhere => return Ok(None),
            RecordTo::Folder(folder) => folder.clone(),
            RecordTo::State => {
                let date = rfc3339(since_1970.as_secs_f64()).replace(['-', ':'], "");
                let state = state_folder().context("where to keep the run's record (--record DIR names a folder)")?;
                state.join("runs").join(format!("{date}-{:016x}", self.session_id))
            }
        };
        let wall_offset_ns =
            i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX).saturating_sub(crate::clock::now().as_nanos());
        let settings = RecorderSettings {
            folder: folder.clone(),
            metadata: self.metadata(rfc3339(since_1970.as_secs_f64()), wall_offset_ns)?,
            arm: config.arm(),
            wall_offset_ns,
            limits: Limits::default(),
            // Whatever becomes of the record, the arm's control goes on.
            trouble: Box::new(|text| eprintln!("warning: flight recorder: {text}")),
        };
        let (recorder, tap) = RunRecorder::start(settings)
            .context("beginning the run's record (--record DIR names another folder, --no-record does without)")?;
        Ok(Some((folder, recorder, tap)))
    }

    fn metadata(&self, started: String, wall_offset_ns: i64) -> Result<BTreeMap<String, String>> {
        let policy_json = manifest_text(self.bundle)?;
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        let robot = match self.options.robot {
            Robot::Sim => "sim",
            Robot::Panda => "panda",
        };
        let pairs = [
            ("tenon_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("record_version", tenon_recorder::record::RECORD_VERSION.to_string()),
            ("started", started),
            ("wall_offset_ns", wall_offset_ns.to_string()),
            ("session", format!("{:016x}", self.session_id)),
            ("robot", robot.to_owned()),
            ("machine", replay::this_machine()),
            ("engine", self.options.engine.to_string()),
            ("seed", self.options.seed.to_string()),
            ("task", self.bundle.spec().task.clone()),
            ("bundle", whole(self.bundle.folder())),
            ("bundle_sha256", sha256(policy_json.as_bytes())),
            ("policy_json", policy_json),
            ("config", whole(self.config_file)),
            ("robot_toml", self.config_text.to_owned()),
        ];
        Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }
}

fn judge(windows: Vec<session::Window>, robot: Robot, truth: &std::path::Path) -> Result<Vec<Episode>> {
    let truth = match robot {
        Robot::Sim if !windows.is_empty() => Some(TruthFile::read(truth)?),
        _ => None,
    };
    let episodes = windows.into_iter().enumerate().map(|(index, w)| Episode {
        index,
        started_ns: w.start.as_nanos(),
        ended_ns: w.end.as_nanos(),
        complete: w.complete,
        observations: w.observations,
        judged: truth.as_ref().map(|t| t.judge(w.start, w.end)),
    });
    Ok(episodes.collect())
}

/// The simulated robot's processes; dropped in this order: the bridge lets go before the server ends.
struct Services {
    bridge: Service,
    server: Service,
}

impl Services {
    fn start(config_file: &std::path::Path, config: &RobotConfig, truth: &std::path::Path) -> Result<Self> {
        let Some((address, port)) = config.bridge.server.rsplit_once(':') else {
            bail!("{}: bridge.server = \"{}\" is no host:port", config_file.display(), config.bridge.server);
        };
        // A truth file of an earlier run would be judged with this one's.
        if truth.exists() {
            std::fs::remove_file(truth).with_context(|| format!("removing the old {}", truth.display()))?;
        }
        let mut server = Command::new(sibling("tenon-sim-server")?);
        server
            .args(["--address", address, "--port", port, "--scene", "avoid", "--json", "--die-with-parent", "--truth"])
            .arg(truth);
        if let Some(gripper) = &config.gripper {
            let port = gripper.server.rsplit_once(':').map_or("", |(_, port)| port);
            server.args(["--gripper", "--gripper-port", port]);
        }
        let server = Service::start("tenon-sim-server", server, Duration::from_secs(20))?;
        let mut bridge = Command::new(sibling("tenon-bridge")?);
        bridge.arg("--config").arg(config_file).args(["--json", "--die-with-parent"]);
        let bridge = Service::start("tenon-bridge", bridge, Duration::from_secs(20))?;
        Ok(Self { bridge, server })
    }

    /// Stops both and returns the bridge's statistics line.
    fn stop(self) -> Option<serde_json::Value> {
        let statistics = self.bridge.stop();
        drop(self.server.stop());
        statistics.and_then(|line| serde_json::from_str(&line).ok())
    }
}
