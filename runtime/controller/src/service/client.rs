//! `tenon arm | start | hold | stop | status`: what a person says to the service.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tenon_core::message::{BridgeFault, BridgeState};

use super::protocol::{Answer, Ask, MAX_LINE, State, Status, socket_path};
use crate::run::Robot;

/// What everyone is told before the arm is taken.
pub const EMERGENCY_STOP: &str = "\
EMERGENCY STOP: the robot's own button (on the Franka the enabling switch, or the external stop at X4). A person holds it
as long as the arm is armed. Tenon is not a certified safety function: it limits what is commanded, it cannot stop a robot
that does not obey.";

/// Longer than the service takes for any answer.
const ANSWER: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The service's socket, instead of $TENON_STATE/control.sock.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the answer as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ArmOptions {
    #[command(flatten)]
    pub common: Options,
    /// Somebody holds the emergency stop, and nobody is asked whether.
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Args)]
pub struct StartOptions {
    #[command(flatten)]
    pub common: Options,
    /// Episodes, the way back to the start before each included; 0 = until somebody says hold.
    #[arg(long, default_value_t = 1)]
    pub episodes: u64,
}

/// `tenon arm`: says where the stop is, asks, and takes the arm.
pub fn arm(options: &ArmOptions) -> Result<ExitCode> {
    let path = path(&options.common)?;
    eprintln!("{EMERGENCY_STOP}");
    let Answer::Done { status, .. } = ask(&path, &Ask::Status)? else { bail!("the service does not say its status") };
    eprintln!("\nto be armed: {} for {} ({})", robot(status.robot), status.task, status.bundle);
    confirm(options.yes, "Does a person hold the emergency stop, and is nobody within the arm's reach?")?;
    tell(&options.common, &path, &Ask::Arm)
}

/// Asks on the terminal; where there is none, `--yes` is needed.
///
/// # Errors
/// Somebody said no, or nobody can be asked.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Nobody can be asked here: say --yes if so");
    }
    eprint!("{question} [yes/no] ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the answer")?;
    if line.trim() != "yes" {
        bail!("not armed: the answer was not \"yes\"");
    }
    Ok(())
}

/// `tenon start`
pub fn start(options: &StartOptions) -> Result<ExitCode> {
    tell(&options.common, &path(&options.common)?, &Ask::Start { episodes: options.episodes })
}

/// `tenon hold`
pub fn hold(options: &Options) -> Result<ExitCode> {
    tell(options, &path(options)?, &Ask::Hold)
}

/// `tenon stop`
pub fn stop(options: &Options) -> Result<ExitCode> {
    tell(options, &path(options)?, &Ask::Stop)
}

/// `tenon status`
pub fn status(options: &Options) -> Result<ExitCode> {
    let answer = ask(&path(options)?, &Ask::Status)?;
    let (Answer::Done { status, .. } | Answer::Refused { status, .. }) = &answer;
    if options.json {
        println!("{}", serde_json::to_string(status).context("a status is plain data")?);
    } else {
        print!("{}", text(status));
    }
    Ok(if status.state == State::Fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn path(options: &Options) -> Result<PathBuf> {
    options.socket.clone().map_or_else(socket_path, Ok)
}

fn tell(options: &Options, path: &Path, what: &Ask) -> Result<ExitCode> {
    let answer = ask(path, what)?;
    if options.json {
        println!("{}", serde_json::to_string(&answer).context("an answer is plain data")?);
    }
    Ok(match answer {
        Answer::Done { text, .. } => {
            if !options.json {
                println!("{text}");
            }
            ExitCode::SUCCESS
        }
        Answer::Refused { why, .. } => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    })
}

/// One question to the service at `path`.
///
/// # Errors
/// No service answers there.
pub fn ask(path: &Path, what: &Ask) -> Result<Answer> {
    let mut stream = UnixStream::connect(path).with_context(|| {
        format!(
            "no Tenon service at {} (`systemctl start tenon@BUNDLE` or `tenon serve` starts one; where it is refused, be of \
             group tenon)",
            path.display()
        )
    })?;
    let (wait, gone) = (Some(ANSWER), "the service has gone while it was asked");
    stream.set_read_timeout(wait).and_then(|()| stream.set_write_timeout(wait)).context("setting time-outs")?;
    let question = serde_json::to_string(what).context("a question is plain data")? + "\n";
    stream.write_all(question.as_bytes()).context(gone)?;
    let mut line = String::new();
    BufReader::new(stream.take(16 * MAX_LINE)).read_line(&mut line).context(gone)?;
    if line.is_empty() {
        bail!(gone);
    }
    serde_json::from_str(&line)
        .context("the service's answer is not understood: use the `tenon` of the same release, and restart the service")
}

fn robot(robot: Robot) -> &'static str {
    match robot {
        Robot::Sim => "the simulated arm",
        Robot::Panda => "the arm behind the bridge",
        Robot::Readonly => "nothing (read-only: what would be commanded is recorded, the arm does not follow)",
    }
}

/// For people.
fn text(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing into a string does not fail.
        let _ = writeln!(out, "{name:<9} {text}");
    };
    let state = match (status.state, &status.fault) {
        (State::WaitingForBridge, _) => "disarmed; the bridge does not answer".to_owned(),
        (State::Disarmed, _) => "disarmed".to_owned(),
        (State::Arming, _) => "arming".to_owned(),
        (State::Holding, _) => "ARMED, holding".to_owned(),
        (State::Moving, _) => "ARMED, moving to the start".to_owned(),
        (State::Running, _) => "ARMED, the policy runs".to_owned(),
        (State::Stopping, _) => "ARMED, stopping".to_owned(),
        (State::Fault, cause) => format!("FAULT: {}", cause.as_deref().unwrap_or("unknown")),
    };
    line("state", state);
    line("policy", format!("{} ({})", status.task, status.bundle));
    line("robot", robot(status.robot).to_owned());
    line("bridge", bridge(status));
    if let Some(age) = status.arm_state_age_ms {
        line("arm", format!("its state is {age:.0} ms old"));
    }
    let running = status.episode.map_or_else(String::new, |episode| format!(", number {episode} runs"));
    line("episodes", format!("{} ended{running}", status.episodes));
    if let Some(record) = &status.record {
        line("record", record.display().to_string());
    }
    if let Some(shadow) = &status.shadow {
        let (most, mean) = (shadow.most_m * 1e3, shadow.mean_m * 1e3);
        line(
            "candidate",
            format!("{}: {} chunks, apart by {mean:.1} mm, at most {most:.1} mm", shadow.candidate, shadow.chunks),
        );
    }
    for fault in &status.cameras {
        line("camera", fault.strip_prefix("camera ").unwrap_or(fault).to_owned());
    }
    for happening in &status.happenings {
        line("", format!("{:>7.1} s ago: {}", happening.seconds_ago, happening.text));
    }
    let next = match status.state {
        State::Disarmed => "tenon arm",
        State::Holding => "tenon start --episodes 1, tenon stop",
        State::Moving | State::Running => "tenon hold, tenon stop",
        State::Fault => "mend the cause, then tenon arm; or tenon stop",
        State::WaitingForBridge | State::Arming | State::Stopping => "",
    };
    if !next.is_empty() {
        line("next", next.to_owned());
    }
    out
}

fn bridge(status: &Status) -> String {
    let Some(bridge) = &status.bridge else { return "not heard yet".to_owned() };
    if bridge.age_ms > 500.0 {
        return format!("silent for {:.1} s", bridge.age_ms * 1e-3);
    }
    match (bridge.state, bridge.fault, &bridge.session) {
        (BridgeState::NoServer, ..) => "reaches no Polymetis server".to_owned(),
        (BridgeState::NoRobot, ..) => "no robot client behind the server".to_owned(),
        (BridgeState::Idle, ..) => "ready to be armed".to_owned(),
        (BridgeState::Running, _, _) if bridge.ours => "follows this service".to_owned(),
        (BridgeState::Running, _, Some(session)) => format!("leased to session {session}"),
        (BridgeState::Running, ..) => "follows nobody".to_owned(),
        (BridgeState::Fault, BridgeFault::None, _) => "in a fault".to_owned(),
        (BridgeState::Fault, fault, _) => format!("in a fault: {fault}"),
    }
}
