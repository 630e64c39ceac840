//! `tenon test polymetis`: does a controller server behave as Tenon takes it to?
//!
//! The same checks run against the real Polymetis server and against `tenon-sim-server`. Each is one sentence of the protocol's
//! specification (`polymetis.md`); what that leaves open (durations, chunking) is measured and not judged.
//!
//! **Safe by default.** On a real arm nothing moves beyond holding:
//!
//! - the arm is looked at first: no error, at rest, nobody else's controller running;
//! - every controller that is uploaded begins at the measured joints, with the robot client's own gains or those that Tenon is
//!   configured with, and every target is the measured joints (with `--move`, for an instant, joint 7 by 0.5 mrad);
//! - nothing is sent that the server would take and that is no target: no NaN, no vector of one value. What it has to refuse is;
//! - updates go out only where the server has just said that our own controller runs, or that it has ended; sets and terminates only
//!   to a live robot client;
//! - after every check the arm is looked at again, and a joint more than 0.03 rad from where it stood ends the suite;
//! - it ends with TerminateController, and the default controller holds.
//!
//! `--destructive` adds what kills the server or silences its robot client.

mod archives;
mod catalogue;
mod controllers;
mod destructive;
mod measured;
mod reading;
mod restart;
mod rig;
mod tenon_law;
mod updates;
mod verdict;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tenon_bridge::BridgeOptions;

pub use catalogue::{CHECKS, Check, Group};
pub use verdict::{Figure, Line, Report, Verdict};

use crate::processes::shipped;
use crate::run::load_config;
use restart::ShellCommands;
use rig::{Refusal, Rig, farthest};
use verdict::Stop;

/// Environment variable with the default of `--server`.
pub const SERVER_VARIABLE: &str = "TENON_POLYMETIS";
/// With `--move` joint 7 is sent this far, rad.
const NUDGE_RAD: f32 = 0.0005;
/// An arm at rest: joints over the time that it is looked at.
const AT_REST_RAD: f32 = 0.002;
const LOOK: Duration = Duration::from_millis(300);
/// An arm that has moved this far since the beginning ends the suite, rad. Each law begins where the last one left the arm, so it
/// creeps a little.
const STRAYED_RAD: f32 = 0.03;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Polymetis controller server [default: $TENON_POLYMETIS, else bridge.server of the configuration].
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// The robot's configuration: gains and limits of Tenon's own law.
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    /// Only this check (a name from --list); once for each.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// List the checks and end.
    #[arg(long)]
    pub list: bool,
    /// Send joint 7 by 0.5 mrad and back, four times at most: shows from which step an update counts.
    #[arg(long = "move")]
    pub nudge: bool,
    /// Terminate a controller that runs already, whoever it belongs to.
    #[arg(long)]
    pub take_over: bool,
    /// Also what kills the server, silences the robot client or makes it throw. Not with a person near the arm.
    #[arg(long, requires = "restart_command")]
    pub destructive: bool,
    /// Shell command that restarts the server (and the robot client, unless that waits for it) and returns.
    #[arg(long, value_name = "CMD", requires = "destructive")]
    pub restart_command: Option<String>,
    /// Shell command that makes the robot client silent.
    #[arg(long, value_name = "CMD", requires = "destructive")]
    pub robot_stop_command: Option<String>,
    /// Shell command that lets the robot client call again.
    #[arg(long, value_name = "CMD", requires = "destructive")]
    pub robot_start_command: Option<String>,
    /// Silence after which a call is said to hang (s).
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub patience: f64,
    /// Folder of sample archives (.pt) to be uploaded too, with the measured joints in place of theirs.
    #[arg(long, value_name = "DIR")]
    pub samples: Option<PathBuf>,
    /// Fewer repetitions of what is measured.
    #[arg(long)]
    pub quick: bool,
    /// Ask nothing.
    #[arg(long)]
    pub yes: bool,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon test polymetis`.
pub fn run(options: &Options, interrupted: &AtomicBool) -> Result<ExitCode> {
    if options.list {
        list(options.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match suite(options, interrupted, &mut |line| {
        if !options.json {
            println!("{line}");
        }
    }) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report is plain data")?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(json: bool) -> Result<()> {
    for check in CHECKS {
        let Check { name, spec, what, .. } = check;
        let group = check.group.name();
        if json {
            let line = serde_json::json!({ "name": name, "spec": spec, "group": group, "what": what });
            println!("{line}");
        } else {
            println!("{group:<12} {name:<24} {spec:<12} {what}");
        }
    }
    Ok(())
}

/// Looks at the arm, runs the checks, and hands the arm to the default controller. `tell` gets each check as it ends.
///
/// # Errors
/// Where nothing may be begun: no server, no robot client, an arm with an error or in motion, somebody else's controller, a "no".
pub fn suite(options: &Options, interrupted: &AtomicBool, tell: &mut dyn FnMut(&Line)) -> Result<Report> {
    let chosen = choose(options)?;
    anyhow::ensure!((0.1..=60.0).contains(&options.patience), "--patience {}: must be 0.1 to 60 s", options.patience);
    let config = load_config(&shipped(&options.config))?;
    let bridge = BridgeOptions::new(&config)?;
    let from_environment = std::env::var(SERVER_VARIABLE).ok().filter(|server| !server.is_empty());
    let server = options.server.clone().or(from_environment).unwrap_or_else(|| bridge.server.clone());
    let mut rig = Rig::new(&server, Duration::from_secs_f64(options.patience), bridge)?;
    rig.samples = options.samples.clone();
    rig.nudge_rad = if options.nudge { NUDGE_RAD } else { 0.0 };
    rig.haste = if options.quick { 4 } else { 1 };
    rig.commands = ShellCommands {
        restart: options.restart_command.clone(),
        robot_stop: options.robot_stop_command.clone(),
        robot_start: options.robot_start_command.clone(),
    };

    warn_of_the_arm(&server, options)?;
    look_before(&mut rig, options)?;
    let mut report = Report {
        schema: "tenon.polymetis/1",
        server,
        polymetis_version: rig.metadata.polymetis_version.clone(),
        hz: rig.metadata.hz,
        destructive: options.destructive,
        passed: 0,
        failed: 0,
        skipped: 0,
        stopped: None,
        default_holds: None,
        checks: Vec::new(),
        figures: Vec::new(),
    };
    for check in chosen {
        if report.stopped.is_none() && interrupted.load(Ordering::Acquire) {
            report.stopped = Some("interrupted".to_owned());
        }
        let line = match &report.stopped {
            Some(_) => Line {
                name: check.name,
                spec: check.spec,
                verdict: Verdict::Skipped { why: "not begun: the suite was stopped".to_owned() },
                took_ms: 0,
            },
            None => {
                let (line, stopped) = one(&mut rig, check);
                report.stopped = stopped;
                line
            }
        };
        tell(&line);
        report.add(line);
    }
    report.default_holds = hand_back(&mut rig);
    if let Ok(far) = rig.strayed_rad() {
        rig.figures.push(Figure::single("farthest joint from the beginning", "mrad", f64::from(far) * 1e3));
    }
    measured::add_calls(&mut rig);
    report.figures = std::mem::take(&mut rig.figures);
    Ok(report)
}

/// The checks that were asked for, in the order of the catalogue.
fn choose(options: &Options) -> Result<Vec<&'static Check>> {
    for name in &options.only {
        let Some(check) = CHECKS.iter().find(|check| check.name == name) else {
            bail!("--only {name}: there is no such check; `tenon test polymetis --list` names them");
        };
        if check.group == Group::Destructive && !options.destructive {
            bail!("--only {name}: {}; that needs --destructive and --restart-command", check.what);
        }
    }
    let wanted = |check: &&Check| {
        (options.only.is_empty() || options.only.iter().any(|name| name == check.name))
            && (options.destructive || check.group != Group::Destructive)
    };
    Ok(CHECKS.iter().filter(wanted).collect())
}

/// Says where the emergency stop is and asks, unless the server is this machine's own.
fn warn_of_the_arm(server: &str, options: &Options) -> Result<()> {
    let moves = match (options.destructive, options.nudge) {
        (true, _) => {
            "controllers are killed, calls made to hang, the arm let go and stopped by its own reflexes: clear its reach"
        }
        (false, true) => "the arm is held where it stands; joint 7 is sent by 0.5 mrad and back",
        (false, false) => "the arm is held where it stands, by one controller after the other",
    };
    eprintln!(
        "{server}: {moves}.\nThe emergency stop is the robot's own button, beside the arm; a person holds it for as long as this \
         runs."
    );
    let host = server.trim_start_matches("http://").rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if own || options.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked (standard input is no terminal): say --yes when a person holds the emergency stop");
    }
    eprint!("Does somebody hold it? Type yes: ");
    std::io::stderr().flush().context("writing to standard error")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    if answer.trim() == "yes" { Ok(()) } else { bail!("not begun") }
}

/// The state of things before anything is sent: a live robot without an error, at rest, and nobody's.
fn look_before(rig: &mut Rig, options: &Options) -> Result<()> {
    rig.metadata = rig.get_metadata().map_err(|refusal| {
        anyhow::anyhow!(
            "{}: {refusal}: start the server and its robot client (unlock the joints, activate FCI), then try again",
            rig.address
        )
    })?;
    anyhow::ensure!(rig.metadata.dof == 7, "the robot has {} joints; the suite is for arms of 7", rig.metadata.dof);
    let home = looked_at(rig)?;
    let episode = rig.episode().map_err(|refusal| anyhow::anyhow!("GetEpisodeInterval: {refusal}"))?;
    if episode.start != -1 && episode.end == -1 {
        anyhow::ensure!(
            options.take_over,
            "a controller runs since step {} (somebody commands the arm): end that program, or say --take-over",
            episode.start
        );
        rig.ours = Some(episode.start);
        rig.terminate().map_err(|stop| anyhow::anyhow!("taking over: {}", words(&stop)))?;
        looked_at(rig)?;
    }
    rig.home = home;
    Ok(())
}

/// The joints of an arm that is at rest and has no error.
fn looked_at(rig: &Rig) -> Result<[f32; 7]> {
    // A robot client that has just registered sends its first state a moment later.
    let begin = Instant::now();
    let recorded = || !matches!(rig.state(), Err(Refusal::Status { code: tonic::Code::FailedPrecondition, .. }));
    while !recorded() && begin.elapsed() < rig.patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    let measured = || -> Result<[f32; 7]> {
        let state = rig.state().map_err(|refusal| anyhow::anyhow!("GetRobotState: {refusal}"))?;
        anyhow::ensure!(state.error_code == 0, "the robot reports error {}: clear it at the robot", state.error_code);
        rig::joints(&state).map_err(|stop| anyhow::anyhow!("GetRobotState: {}", words(&stop)))
    };
    let before = measured()?;
    std::thread::sleep(LOOK);
    let after = measured()?;
    let moved = farthest(&before, &after);
    anyhow::ensure!(moved < AT_REST_RAD, "the arm moves ({moved:.4} rad in {LOOK:?}): let it come to rest first");
    Ok(after)
}

fn words(stop: &Stop) -> String {
    match stop {
        Stop::Fail { expected, came } => format!("expected {expected}, came {came}"),
        Stop::Skip(why) => why.clone(),
    }
}

/// One check, and the arm handed back and looked at after it. The second value ends the suite.
fn one(rig: &mut Rig, check: &Check) -> (Line, Option<String>) {
    let begin = Instant::now();
    if check.group == Group::Destructive {
        eprintln!("{}: {}", check.name, check.what);
    }
    let outcome = (check.run)(rig);
    let stopped = after(rig, check).err();
    let verdict = match outcome {
        Ok(()) => Verdict::Pass,
        Err(Stop::Fail { expected, came }) => Verdict::Fail { expected, came },
        Err(Stop::Skip(why)) => Verdict::Skipped { why },
    };
    let took_ms = begin.elapsed().as_millis() as u64;
    (Line { name: check.name, spec: check.spec, verdict, took_ms }, stopped)
}

/// Makes the server fit for the next check: restarted where it died, nothing running, the arm where it was.
fn after(rig: &mut Rig, check: &Check) -> Result<(), String> {
    if rig.dirty {
        if rig.commands.robot_start.is_some() {
            rig.shell("robot-start", &rig.commands.robot_start).map_err(|stop| words(&stop))?;
        }
        rig.restart(true).map_err(|stop| format!("the server could not be restarted: {}", words(&stop)))?;
    }
    if rig.unanswered {
        return Err(format!("after {}: SetController was not answered: all further calls may hang", check.name));
    }
    rig.require_robot().map_err(|stop| format!("after {}: {}", check.name, words(&stop)))?;
    rig.release()
        .map_err(|stop| format!("after {}: the controller could not be ended: {}", check.name, words(&stop)))?;
    let state =
        rig.state().map_err(|refusal| format!("after {}: the server does not answer: {refusal}", check.name))?;
    if state.error_code != 0 {
        return Err(format!("after {}: the robot reports error {}", check.name, state.error_code));
    }
    match rig.strayed_rad() {
        Err(stop) => Err(format!("after {}: {}", check.name, words(&stop))),
        Ok(far) if far > STRAYED_RAD => Err(format!(
            "after {}: a joint is {far:.4} rad from where it was in the beginning: the arm is not held",
            check.name
        )),
        Ok(_) => Ok(()),
    }
}

/// Ends whatever of ours may run and sees the arm at rest under the default controller; `None` where that cannot be asked.
fn hand_back(rig: &mut Rig) -> Option<bool> {
    rig.require_robot().ok()?;
    let released = rig.release().is_ok();
    let episode = rig.episode().ok()?;
    let ended = episode.start == -1 || episode.end != -1;
    Some(released && ended && looked_at(rig).is_ok())
}
