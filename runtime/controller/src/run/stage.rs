//! Everything that stands behind a run: the policy, the cameras, the link, the threads, the recorder.
//!
//! [`Stage::raise`] makes them in the order in which they may refuse: nothing asks for the arm before the bundle, the calibration and the
//! cameras have been judged. [`Stage::lower`] takes them down again and says what was done.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tenon_calibrate::steps::{Finding, Grade};
use tenon_calibrate::wizard::CameraChoice;
use tenon_core::config::RobotConfig;
use tenon_core::spec::PolicySpec;
use tenon_link::{Endpoint, LinkError, ReadOnlyLink, RobotKeys, RobotLink, ZenohLink};
use tenon_policy::{Bundle, Engine};

use super::delays::{Delays, lead_s};
use super::fit::{Fit, fit};
use super::program::Program;
use super::recording::{About, RecordReport, RecordTo};
use super::services::Services;
use super::session::{self, Session, session_id};
use super::{Robot, link_endpoint, read_config};
use crate::machine::{Controller, Settings};
use crate::processes::shipped;
use crate::realtime::Asked;
use crate::record::{ChunkTap, ControlTap, RunRecorder};
use crate::shadow::{Shadow, ShadowReport};
use crate::timing::Timing;
use crate::{control_loop, inference, seeing};

/// What is to be run, and on what.
#[derive(Debug, Clone)]
pub struct Setup {
    pub robot: Robot,
    pub bundle: PathBuf,
    pub config: PathBuf,
    pub engine: Engine,
    pub seed: u64,
    /// Ends each episode after that many actions, where the task's own number is larger.
    pub actions: Option<usize>,
    /// Rig whose calibration is used instead of the configured one.
    pub rig: Option<String>,
    /// Where pictures come from instead of the calibrated cameras by their serial numbers.
    pub cameras: Vec<CameraChoice>,
    /// A candidate that is asked what the policy is asked; only its differences are logged.
    pub shadow: Option<PathBuf>,
    pub out: PathBuf,
    pub record: RecordTo,
    /// No progress on standard error.
    pub quiet: bool,
}

/// What was asked for, read and found to fit together. Nothing has been opened yet.
pub struct Planned {
    setup: Setup,
    config_file: PathBuf,
    config_text: String,
    pub config: RobotConfig,
    endpoint: Endpoint,
    bundle: Bundle,
    pub spec: PolicySpec,
    pub program: Program,
    delays: Delays,
    settings: Settings,
    controller: Controller,
}

/// What runs.
pub struct Stage {
    pub spec: PolicySpec,
    pub program: Program,
    pub settings: Settings,
    pub session: Session,
    /// Of the simulated robot.
    pub truth: PathBuf,
    pub session_id: u64,
    /// Folder of the record.
    pub record_folder: Option<PathBuf>,
    control: JoinHandle<(Timing, Controller)>,
    recorder: Option<RunRecorder>,
    shadow: Option<Shadow>,
    services: Option<Services>,
    /// Held as long as the stage stands.
    _awake: std::io::Result<std::fs::File>,
    quiet: bool,
}

/// What a stage says when it is taken down.
pub struct Lowered {
    pub session: Session,
    pub timing: Timing,
    pub controller: Controller,
    pub record: Option<RecordReport>,
    pub shadow: Option<ShadowReport>,
    /// Last line of the bridge's own statistics, where this program started it.
    pub bridge: Option<serde_json::Value>,
}

impl Planned {
    /// # Errors
    /// What does not fit together.
    pub fn new(setup: Setup) -> Result<Self> {
        let config_file = shipped(&setup.config);
        let (config_text, mut config) = read_config(&config_file)?;
        let endpoint = link_endpoint(&mut config, setup.robot)?;
        // Before anything is started: threads and processes inherit it.
        if let Some(cpu) = config.control.cpu
            && let Err(e) = crate::realtime::keep_off(cpu)
        {
            eprintln!(
                "note: other threads may run on processor {cpu} too, which control.cpu gives to the control thread ({e})"
            );
        }
        let bundle = Bundle::open(&setup.bundle)
            .with_context(|| format!("opening the policy bundle {}", setup.bundle.display()))?;
        let spec = bundle.spec().clone();
        let delays = delays_of(&setup, &config);
        let Fit { settings, controller, mut program } = fit(&bundle, &config, lead_s(&config, delays.arm_s)?)?;
        if setup.robot == Robot::Sim && seeing::furniture_of(&spec)?.is_some() {
            bail!("the simulated robot has no furniture: run {} with --robot panda, before a bridge", spec.task);
        }
        program.actions = program.actions.min(setup.actions.unwrap_or(usize::MAX));
        Ok(Self {
            setup,
            config_file,
            config_text,
            config,
            endpoint,
            bundle,
            spec,
            program,
            delays,
            settings,
            controller,
        })
    }
}

/// What the rig's calibration knows of delays; nothing of the simulated robot, which is no rig. A calibration that cannot be read is refused
/// where one is needed (`seeing::open`); elsewhere it is said that nothing is compensated.
fn delays_of(setup: &Setup, config: &RobotConfig) -> Delays {
    let cameras = config.cameras.as_ref().filter(|_| setup.robot != Robot::Sim);
    let Some(cameras) = cameras else { return Delays::default() };
    match seeing::calibration(cameras, setup.rig.as_deref()) {
        Ok(version) => Delays::of(&version.calibration),
        Err(error) => {
            eprintln!("warning: no measured delay is compensated: {error:#}");
            Delays::default()
        }
    }
}

/// How the link to the bridge is made: a function from "try for this long" to a link.
pub type Connect<'a> = dyn FnMut(Duration) -> Result<Box<dyn RobotLink>, LinkError> + 'a;

/// One try after the other until the bridge answers. `go_on`: an error ends the wait. `waiting`: told once.
///
/// # Errors
/// That of `go_on`, or a link that can never be made.
pub fn connect_patiently(
    connect: &mut Connect,
    mut go_on: impl FnMut() -> Result<()>,
    mut waiting: impl FnMut(&LinkError),
) -> Result<Box<dyn RobotLink>> {
    let mut told = false;
    loop {
        go_on()?;
        match connect(Duration::from_millis(500)) {
            Ok(link) => return Ok(link),
            Err(error @ (LinkError::Connect { .. } | LinkError::ConnectProtected { .. })) => {
                if !told {
                    waiting(&error);
                }
                told = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Stage {
    /// Opens cameras, link and recorder and starts the threads; the arm is not asked for. `link`: given the way to make the link,
    /// makes it, once or patiently.
    ///
    /// # Errors
    /// What is missing or refuses, and what to do about it.
    pub fn raise(
        planned: Planned,
        interrupted: &Arc<AtomicBool>,
        link: impl FnOnce(&mut Connect) -> Result<Box<dyn RobotLink>>,
    ) -> Result<Self> {
        let Planned {
            setup,
            config_file,
            config_text,
            config,
            endpoint,
            bundle,
            spec,
            program,
            delays,
            settings,
            controller,
        } = planned;
        let denoiser =
            bundle.denoiser(setup.engine).with_context(|| format!("loading the networks with {}", setup.engine))?;
        let sampler = inference::ChunkSampler::new(spec.clone(), bundle.denoising(), denoiser, setup.seed);
        std::fs::create_dir_all(&setup.out).with_context(|| format!("creating {}", setup.out.display()))?;
        let truth = setup.out.join("truth.jsonl");
        let (shadow, shadowing) = match &setup.shadow {
            Some(candidate) => {
                let (shadow, ends) = Shadow::start(candidate, &spec, setup.engine, &setup.out.join("shadow.jsonl"))
                    .with_context(|| format!("the candidate {}", candidate.display()))?;
                (Some(shadow), Some(ends))
            }
            None => (None, None),
        };
        // First of all that moves or waits: a camera that has moved ends the run before an arm is asked for.
        let (seeing, seeing_ends) = match seeing::furniture_of(&spec)? {
            Some(furniture) => {
                let say = |finding: &Finding| {
                    if !setup.quiet {
                        eprintln!("{}: {}", if finding.grade == Grade::Warn { "warning" } else { "ok" }, finding.text);
                    }
                };
                let opened = seeing::open(&config, furniture, setup.rig.as_deref(), &setup.cameras, &config_file, say)?;
                (Some(opened.0), Some(opened.1))
            }
            None => (None, None),
        };
        let ready_within = config.cameras.as_ref().map_or(0.0, |cameras| cameras.ready_within_s);
        let seeing = seeing.map(|seeing| (seeing, Duration::from_secs_f64(ready_within)));
        let services = match setup.robot {
            Robot::Sim => Some(Services::start(&config_file, &config, &truth)?),
            Robot::Panda | Robot::Readonly => None,
        };
        crate::processes::prefer();
        let link = link(&mut connector(&endpoint, setup.robot)?)
            .with_context(|| format!("connecting to the bridge at {endpoint}"))?;

        let (orders, handles, mut ends) = control_loop::handles();
        let session_id = session_id();
        let about = About {
            setup: &setup,
            config_file: &config_file,
            config_text: &config_text,
            arm_delay_s: delays.arm_s,
            bundle: &bundle,
            session_id,
        };
        let (record_folder, recorder, tap) = match about.start_recorder(&config)? {
            Some((folder, recorder, tap)) => (Some(folder), Some(recorder), Some(tap)),
            None => (None, None, None),
        };
        if let Some(tap) = &tap {
            ends.record_to(ControlTap::new(tap.clone()));
        }
        let inference =
            inference::spawn(sampler, tap.map(ChunkTap::new), shadowing).context("starting the policy's thread")?;
        let policy_errors = inference.errors.clone();
        let asked = Asked { priority: config.control.realtime_priority, cpu: config.control.cpu };
        // As long as the run lasts. Usually only root may; `tenon doctor` says so.
        let awake = crate::realtime::keep_awake();
        let control = std::thread::Builder::new()
            .name("tenon-control".into())
            .spawn(move || {
                for note in crate::realtime::request(&asked).refused {
                    eprintln!("note: {note}");
                }
                control_loop::run(controller, link, inference, seeing_ends, ends, settings.arm, delays.link)
            })
            .context("starting the control thread")?;
        let session = Session::new(
            session::Ends {
                handles,
                policy_errors,
                interrupted: interrupted.clone(),
                seeing,
                quiet: setup.quiet,
                rearm: setup.robot == Robot::Sim,
                session: session_id,
                readonly: setup.robot == Robot::Readonly,
            },
            orders,
        );
        Ok(Self {
            spec,
            program,
            settings,
            session,
            truth,
            session_id,
            record_folder,
            control,
            recorder,
            shadow,
            services,
            _awake: awake,
            quiet: setup.quiet,
        })
    }

    /// Holds, hands the arm back, ends the threads, and says what was done.
    ///
    /// # Errors
    /// The control thread panicked.
    pub fn lower(mut self) -> Result<Lowered> {
        self.session.finish();
        let joined = self.control.join();
        let (timing, controller) = joined.map_err(|_| anyhow!("the control thread panicked; its message is above"))?;
        let record = match (self.record_folder, self.recorder) {
            (Some(folder), Some(recorder)) => Some(RecordReport::of(folder, recorder.finish())),
            _ => None,
        };
        if let (Some(record), false) = (&record, self.quiet) {
            let megabytes = record.bytes as f64 / 1e6;
            eprintln!("record: {} ({} ticks, {megabytes:.1} MB)", record.folder.display(), record.ticks);
            for fault in &record.faults {
                eprintln!("what led to the fault: {}", fault.display());
            }
        }
        let shadow = self.shadow.map(Shadow::finish);
        let bridge = self.services.and_then(Services::stop);
        Ok(Lowered { session: self.session, timing, controller, record, shadow, bridge })
    }

    /// For who wants to know how the candidate does, where one runs along.
    pub fn shadow_watch(&self) -> Option<Box<dyn Fn() -> ShadowReport>> {
        self.shadow.as_ref().map(|shadow| Box::new(shadow.watch()) as Box<dyn Fn() -> ShadowReport>)
    }
}

/// How this robot is reached.
fn connector(
    endpoint: &Endpoint,
    robot: Robot,
) -> Result<impl FnMut(Duration) -> Result<Box<dyn RobotLink>, LinkError>> {
    let keys = RobotKeys::new(tenon_link::DEFAULT_ROBOT)?;
    let endpoint = endpoint.clone();
    Ok(move |wait| -> Result<Box<dyn RobotLink>, LinkError> {
        let clock = Arc::new(crate::clock::now);
        Ok(match robot {
            // Nothing can be sent over an observer's session: it has no publisher.
            Robot::Readonly => Box::new(ReadOnlyLink::connect(&endpoint, &keys, clock, wait)?),
            Robot::Sim | Robot::Panda => Box::new(ZenohLink::connect(&endpoint, &keys, clock, wait)?),
        })
    })
}
