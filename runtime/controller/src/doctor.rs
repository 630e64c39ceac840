//! `tenon doctor`: everything that a run would refuse for, asked without moving anything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tenon_calibrate::steps::{Finding, Grade, Limits};
use tenon_calibrate::wizard::CameraChoice;
use tenon_core::calendar::rfc3339;
use tenon_core::config::RobotConfig;
use tenon_core::message::{BridgeFault, BridgeState};
use tenon_link::security::unix_now;
use tenon_link::{Endpoint, RobotLink, Role, SecurityError};
use tenon_policy::Bundle;
use tenon_vision::Rig;
use tenon_vision::source::{Clock, SystemClock};

use crate::processes::shipped;
use crate::realtime::{self, Asked};
use crate::run::{Delays, fit, lead_s, load_config};
use crate::seeing::{self, cameras, drift, fitness};

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The robot's configuration.
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    /// A policy bundle: whether it fits the robot and what it observes.
    #[arg(long)]
    pub bundle: Option<PathBuf>,
    /// Rig whose calibration is looked at, instead of the one in the configuration.
    #[arg(long, value_name = "NAME")]
    pub rig: Option<String>,
    /// Where a camera's pictures come from (v4l2:SERIAL or recorded:DIR), once for each; without it every calibrated camera
    /// by its serial number.
    #[arg(long = "camera", value_name = "NAME=SOURCE")]
    pub cameras: Vec<CameraChoice>,
    /// How long to wait for the bridge.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub wait_s: f64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// A finding and what it is about.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub about: &'static str,
    #[serde(flatten)]
    pub finding: Finding,
}

/// What the doctor says, the worst grade of all lines first.
#[derive(Debug, Clone, Serialize)]
struct Report<'a> {
    schema: &'static str,
    grade: Grade,
    findings: &'a [Line],
}

/// Asks, prints, and says by the exit code whether a run would start.
pub fn run(options: &Options) -> Result<ExitCode> {
    let config_file = shipped(&options.config);
    let config = load_config(&config_file)?;
    let mut lines = Vec::new();
    // What is asked for one after the other; each goes on where another has failed.
    let mut ask = |about: &'static str, answer: Result<Vec<Finding>>| {
        let findings = answer.unwrap_or_else(|error| vec![Finding { grade: Grade::Fail, text: format!("{error:#}") }]);
        lines.extend(findings.into_iter().map(|finding| Line { about, finding }));
    };
    ask("bundle", bundle(options, &config));
    ask("machine", Ok(machine(&config)));
    match &config.cameras {
        None => ask(
            "cameras",
            Ok(vec![Finding {
                grade: Grade::Warn,
                text: format!(
                    "{} has no [cameras] table: policies that observe parts cannot run",
                    config_file.display()
                ),
            }]),
        ),
        Some(of_config) => match seeing::calibration(of_config, options.rig.as_deref()) {
            Err(error) => ask("calibration", Err(error)),
            Ok(version) => {
                ask("calibration", Ok(fitness::judge(&version, of_config, fitness::today())));
                let clock: Arc<dyn Clock> = Arc::new(SystemClock);
                match cameras::open(of_config, &version.calibration, &options.cameras, &clock) {
                    Err(error) => ask("cameras", Err(error)),
                    Ok(mut opened) => {
                        let limits = Limits::load(Some(&config_file))?.drift();
                        let layout = Rig::built_in()?;
                        ask("drift", drift::check(&version.calibration, &mut opened, &layout, &limits));
                        // After the check, so that a rate has been seen.
                        ask("cameras", Ok(watched(&mut opened, &clock)));
                    }
                }
            }
        },
    }
    ask("link", link(&config));
    ask("robot", bridge(&config, Duration::from_secs_f64(options.wait_s.clamp(0.1, 60.0))));

    let grade = lines.iter().map(|line| line.finding.grade).max().unwrap_or(Grade::Pass);
    if options.json {
        let report = Report { schema: "tenon.doctor/1", grade, findings: &lines };
        println!("{}", serde_json::to_string(&report).context("the report is plain data")?);
    } else {
        for Line { about, finding } in &lines {
            let mark = match finding.grade {
                Grade::Pass => "ok  ",
                Grade::Warn => "warn",
                Grade::Fail => "FAIL",
            };
            println!("{mark} {about:<12} {}", finding.text);
        }
        println!("{}", if grade == Grade::Fail { "not fit for a run" } else { "fit for a run" });
    }
    Ok(if grade == Grade::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn finding(grade: Grade, text: impl Into<String>) -> Finding {
    Finding { grade, text: text.into() }
}

fn bundle(options: &Options, config: &RobotConfig) -> Result<Vec<Finding>> {
    let Some(folder) = &options.bundle else { return Ok(Vec::new()) };
    let bundle = Bundle::open(folder).with_context(|| format!("the policy bundle {}", folder.display()))?;
    let spec = bundle.spec();
    // A calibration that cannot be read is another line's finding.
    let version =
        config.cameras.as_ref().and_then(|of_config| seeing::calibration(of_config, options.rig.as_deref()).ok());
    let arm_delay_s = version.and_then(|version| Delays::of(&version.calibration).arm_s);
    fit(&bundle, config, lead_s(config, arm_delay_s)?)?;
    let mut text = format!("{}: {}, {} Hz", folder.display(), spec.task, (1.0 / spec.period_s).round());
    if let Some(furniture) = seeing::furniture_of(spec)? {
        text += &format!(", observes {}", furniture.part_names().join(", "));
    }
    Ok(vec![finding(Grade::Pass, text)])
}

/// Whether this machine keeps time.
fn machine(config: &RobotConfig) -> Vec<Finding> {
    let priority = config.control.realtime_priority;
    if priority == 0 {
        return vec![finding(Grade::Warn, "control.realtime_priority = 0: ticks wait behind ordinary programs")];
    }
    let asked = Asked { priority, cpu: config.control.cpu };
    let Ok(granted) = std::thread::spawn(move || realtime::request(&asked)).join() else {
        return vec![finding(Grade::Warn, "whether real-time scheduling is granted could not be found out")];
    };
    if !granted.refused.is_empty() {
        return granted.refused.into_iter().map(|note| finding(Grade::Warn, note)).collect();
    }
    let pinned = granted.cpu.map_or(String::new(), |cpu| format!(", processor {cpu}"));
    let awake = match realtime::keep_awake() {
        Ok(_) => "processors are kept from deep sleep".to_owned(),
        Err(e) => format!("processors sleep as deep as they like between ticks (/dev/cpu_dma_latency: {e})"),
    };
    vec![finding(Grade::Pass, format!("SCHED_FIFO priority {priority} and locked memory{pinned} are granted; {awake}"))]
}

fn watched(opened: &mut [cameras::OpenCamera], clock: &Arc<dyn Clock>) -> Vec<Finding> {
    let of = |camera: &mut cameras::OpenCamera| {
        let status = camera.reader.status(clock.now());
        let lines = status.faults.lines(&camera.name, clock.now());
        if lines.is_empty() {
            let (width, height) = camera.size;
            return finding(
                Grade::Pass,
                format!("camera {} ({}): {width}x{height}, frames arrive", camera.name, camera.serial),
            );
        }
        let grade = if status.faults.spoiling().is_some() { Grade::Fail } else { Grade::Warn };
        finding(grade, lines.join("; "))
    };
    opened.iter_mut().map(of).collect()
}

/// What protects the way to the bridge.
fn link(config: &RobotConfig) -> Result<Vec<Finding>> {
    let endpoint = Endpoint::of_config(&config.link)?;
    if let Some(warning) = endpoint.warning() {
        return Ok(vec![finding(Grade::Warn, warning)]);
    }
    if !endpoint.is_protected() {
        return Ok(vec![finding(Grade::Pass, format!("{endpoint} does not leave this computer"))]);
    }
    let of = |role| {
        // A computer that only watches has no controller's certificate, and needs none.
        Ok::<_, SecurityError>(match (role, endpoint.identity(role)) {
            (Role::Controller, Err(SecurityError::Missing { .. })) => finding(
                Grade::Warn,
                "no controller's certificate here: this computer can watch, `tenon run` is refused",
            ),
            (_, Err(error)) => return Err(error),
            (_, Ok(None)) => finding(Grade::Pass, "no certificate is needed"),
            (_, Ok(Some(identity))) => match identity.warning(unix_now()) {
                Some(warning) => finding(Grade::Warn, warning),
                None => finding(
                    Grade::Pass,
                    format!("{role}'s certificate is valid until {}", rfc3339(identity.valid_until_s)),
                ),
            },
        })
    };
    Ok(vec![of(Role::Observer)?, of(Role::Controller)?])
}

/// Listens to the bridge; asks it for nothing.
fn bridge(config: &RobotConfig, wait: Duration) -> Result<Vec<Finding>> {
    let keys = tenon_link::RobotKeys::new(tenon_link::DEFAULT_ROBOT)?;
    let endpoint = Endpoint::of_config(&config.link)?;
    let mut link = tenon_link::ZenohLink::listen(&endpoint, &keys, Arc::new(crate::clock::now), wait)
        .with_context(|| format!("no bridge at {endpoint}: start tenon-bridge beside the Polymetis server"))?;
    let until = Instant::now() + wait;
    let (mut status, mut state) = (None, None);
    while Instant::now() < until && (status.is_none() || state.is_none()) {
        status = link.latest_status();
        state = link.latest_state();
        std::thread::sleep(Duration::from_millis(5));
    }
    let Some(status) = status else {
        return Ok(vec![finding(Grade::Fail, format!("the bridge at {endpoint} says nothing: restart it"))]);
    };
    let mut findings = vec![match (status.value.state, status.value.fault) {
        (BridgeState::NoServer, _) => finding(Grade::Fail, "the bridge reaches no Polymetis server: start it"),
        (BridgeState::NoRobot, _) => finding(
            Grade::Fail,
            "the Polymetis server has no robot client: unlock the joints, activate FCI, start the client",
        ),
        (BridgeState::Idle, _) => finding(Grade::Pass, "the bridge is ready to be armed"),
        (BridgeState::Running, _) => finding(
            Grade::Warn,
            format!("the arm is leased to session {:016x}: another program runs it", status.value.session),
        ),
        (BridgeState::Fault, BridgeFault::None) => finding(Grade::Warn, "the bridge is in a fault; arming clears it"),
        (BridgeState::Fault, fault) => finding(Grade::Warn, format!("the bridge stopped: {fault}; arming clears it")),
    }];
    if status.value.state != BridgeState::NoServer {
        let now = crate::clock::now();
        let limit = config.control.max_state_age_s;
        findings.push(match state.map(|state| (state.age(now).as_secs_f64(), state.value)) {
            None => finding(Grade::Fail, "no robot state arrives"),
            Some((age, _)) if age > limit => {
                finding(Grade::Fail, format!("the robot state is {age:.2} s old (limit {limit} s)"))
            }
            Some((_, state)) if state.error_code != 0 => {
                finding(Grade::Fail, format!("the robot reports error {}: clear it at the robot", state.error_code))
            }
            Some((_, state)) if !state.joint_positions_rad.iter().all(|q| q.is_finite()) => {
                finding(Grade::Fail, "the robot state is not finite")
            }
            Some((age, _)) => finding(Grade::Pass, format!("the robot state is {:.0} ms old", 1e3 * age)),
        });
    }
    Ok(findings)
}
