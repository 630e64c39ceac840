//! `tenon run`: episodes of a policy on a robot, or on the simulated one with all its processes.

mod delays;
mod fit;
pub mod gate;
pub(crate) mod program;
mod recording;
mod services;
pub(crate) mod session;
pub mod stage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tenon_core::config::RobotConfig;
use tenon_link::security::unix_now;
use tenon_link::{Endpoint, Role};
use tenon_policy::Bundle;
use tenon_policy::bundle::MANIFEST;

use crate::judge::{JudgedEpisode, TruthFile};
use crate::machine::Settings;
use crate::shadow::ShadowReport;
use crate::timing::TimingSummary;

pub use delays::{Delays, lead_s};
pub use fit::fit;
pub use recording::{ARM_DELAY, RecordReport, RecordTo};
pub use stage::{Lowered, Planned, Setup, Stage};

/// Where the commands go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Robot {
    /// The simulated robot: this command starts its server and the bridge, and stops them.
    Sim,
    /// A bridge that runs already (systemd unit `tenon-bridge`), in front of a Polymetis server.
    Panda,
    /// The same, but nothing is sent: the policy sees the arm, what it would command is computed and recorded, and whoever
    /// commands the arm notices nothing.
    Readonly,
}

/// What to run, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    pub setup: Setup,
    pub episodes: usize,
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
    /// How a candidate policy differed that was asked the same.
    #[serde(default)]
    pub shadow: Option<ShadowReport>,
}

/// Runs the episodes. `interrupted` is set by Ctrl-C: the arm is held and handed back, and what was done is reported.
pub fn run(options: &Options, interrupted: &Arc<AtomicBool>) -> Result<RunReport> {
    let Options { setup, episodes } = options;
    let planned = Planned::new(setup.clone())?;
    let mut stage = Stage::raise(planned, interrupted, |connect| Ok(connect(Duration::from_secs(5))?))?;
    let outcome = run_episodes(&mut stage, *episodes, setup.quiet);
    let (truth, task) = (stage.truth.clone(), stage.spec.task.clone());
    let lowered = stage.lower()?;
    let report = report(setup, task, &truth, lowered, outcome.err().map(|e| format!("{e:#}")))?;
    crate::report::write_json(&setup.out.join("run.json"), &report)?;
    Ok(report)
}

/// What a stage that was taken down has done. `fault`: why it was before its time.
pub(crate) fn report(
    setup: &Setup,
    task: String,
    truth: &Path,
    lowered: Lowered,
    fault: Option<String>,
) -> Result<RunReport> {
    let Lowered { session, timing, controller, record, shadow, bridge } = lowered;
    let late_chunks = session.late_chunks;
    let episodes = judge(session.windows, setup.robot, truth)?;
    let counts = controller.safety().counts;
    Ok(RunReport {
        robot: setup.robot,
        engine: setup.engine.to_string(),
        bundle: setup.bundle.display().to_string(),
        task,
        seed: setup.seed,
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
        shadow,
    })
}

/// Arms and runs the episodes. An error names the fault; the windows of finished episodes stay.
fn run_episodes(stage: &mut Stage, episodes: usize, quiet: bool) -> Result<()> {
    let Stage { session, spec, program, settings, .. } = stage;
    // Before the arm is armed: without the parts there is nothing to run.
    session.await_parts()?;
    session.arm()?;
    for index in 0..episodes {
        let took = session.episode(spec, program, &settings.safety.workspace)?;
        if !quiet {
            eprintln!("episode {:>2}/{episodes}: {:.2} s", index + 1, took.as_secs_f64());
        }
    }
    Ok(())
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

/// Where the bridge is. What would be refused when the link is opened is refused here, before anything is loaded or started.
fn link_endpoint(config: &mut RobotConfig, robot: Robot) -> Result<Endpoint> {
    // The simulated robot is here, wherever the real one is.
    if robot == Robot::Sim
        && !Endpoint::is_on_this_computer(&config.link.endpoint)
        && let Some(here) = Endpoint::loopback_of(&config.link.endpoint)
    {
        config.link.endpoint = here;
    }
    let endpoint = Endpoint::of_config(&config.link)?;
    // Who only listens proves no more than that.
    let role = if robot == Robot::Readonly { Role::Observer } else { Role::Controller };
    let of_certificate = endpoint.identity(role)?.and_then(|identity| identity.warning(unix_now()));
    for warning in endpoint.warning().iter().chain(&of_certificate) {
        eprintln!("warning: {warning}");
    }
    Ok(endpoint)
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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_robot_needs_no_certificates_and_a_real_one_elsewhere_does() {
        let text = include_str!("../../../configs/robot.toml").replace("tcp/127.0.0.1:7447", "tls/192.168.1.10:7448");
        let shipped: RobotConfig = tenon_core::config::parse("robot.toml", &text).expect("valid");
        let mut config = shipped.clone();
        let here = link_endpoint(&mut config, Robot::Sim).expect("on this computer");
        assert_eq!((here.address(), config.link.endpoint.as_str()), ("tcp/127.0.0.1:7448", "tcp/127.0.0.1:7448"));
        let refused = link_endpoint(&mut shipped.clone(), Robot::Panda).expect_err("robot.toml names no certificates");
        assert!(refused.to_string().contains("tenon secure"), "{refused}");
    }
}
