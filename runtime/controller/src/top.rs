//! `tenon top`: what goes over the link, on the terminal. It only listens: the arm and whoever commands it notice nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tenon_core::arm::Arm;
use tenon_core::config::RobotConfig;
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, RobotState};
use tenon_core::safety::SafetyLimits;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_link::{Endpoint, Heard, LinkCounters, LinkObserver, RobotKeys};

use crate::clock;
use crate::processes::shipped;
use crate::run::load_config;
use crate::timing::{Stage, Summary};

/// Rates and latencies are those of this long.
const WINDOW: Duration = Duration::from_secs(2);
/// The screen is drawn five times a second.
const PERIOD: Duration = Duration::from_millis(200);
/// How long `--once` looks before it speaks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The robot's configuration.
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    /// zenoh end point of the bridge, instead of the one in the configuration.
    #[arg(long, value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// Look for a second, print, and end; exit code 1 where no robot state arrives.
    #[arg(long)]
    pub once: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// What is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub endpoint: String,
    pub states: Stream,
    pub statuses: Stream,
    pub bridge: Option<Bridge>,
    pub arm: Option<ArmReport>,
    /// Messages that were refused, and why the last one was.
    pub refused: u64,
    pub last_refusal: Option<String>,
    /// Messages that came faster than they were looked at.
    pub dropped: u64,
}

/// Messages of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stream {
    pub received: u64,
    pub rate_hz: f64,
    pub age_ms: Option<f64>,
    /// Longest time between two of the last seconds.
    pub longest_gap_ms: f64,
    /// Numbers of the sequence that never came.
    pub missing: u64,
    /// The sequence began anew: the bridge was started again.
    pub restarts: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Bridge {
    pub state: BridgeState,
    pub fault: BridgeFault,
    /// The lease in force, as `tenon run` writes it; absent where there is none.
    pub session: Option<String>,
    pub epoch: u32,
    pub acknowledged: u64,
    /// Targets that the server acknowledged.
    pub targets_hz: f64,
    /// Duration of `UpdateController`.
    pub update: Summary,
    pub robot_hz: u32,
}

#[derive(Debug, Clone, Serialize)]
pub struct ArmReport {
    pub joints: Vec<Joint>,
    pub tool_m: [f64; 3],
    pub gripper: GripperPhase,
    pub gripper_width_m: Option<f64>,
    pub error_code: i32,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Joint {
    pub position_rad: f64,
    pub velocity_rad_s: f64,
    pub torque_external_nm: f64,
    /// Left to the nearer end of what commands may use.
    pub left_rad: f64,
}

/// Runs `tenon top` until Ctrl-C, or once.
pub fn run(options: &Options, interrupted: &Arc<AtomicBool>) -> Result<ExitCode> {
    let mut config = load_config(&shipped(&options.config))?;
    if let Some(endpoint) = &options.endpoint {
        config.link.endpoint.clone_from(endpoint);
    }
    let endpoint = Endpoint::of_config(&config.link)?;
    if let Some(warning) = endpoint.warning() {
        eprintln!("warning: {warning}");
    }
    let keys = RobotKeys::new(tenon_link::DEFAULT_ROBOT)?;
    let mut link = LinkObserver::connect(&endpoint, &keys, Arc::new(clock::now), Duration::from_secs(2))
        .with_context(|| format!("listening to the bridge at {endpoint}"))?;
    let mut watch = Watch::new(endpoint.address().to_owned(), &config, clock::now());
    if options.once {
        let until = clock::now() + LOOK;
        while clock::now() < until && !interrupted.load(Ordering::Acquire) {
            watch.listen(&mut link);
            std::thread::sleep(Duration::from_millis(5));
        }
        let report = watch.report(clock::now(), &link.counters());
        show(&report, options.json, false)?;
        return Ok(if report.arm.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let screen = (!options.json && std::io::stdout().is_terminal()).then(Screen::open).transpose()?;
    let mut next = clock::now() + PERIOD;
    while !interrupted.load(Ordering::Acquire) {
        watch.listen(&mut link);
        if clock::now() >= next {
            next = next + PERIOD;
            show(&watch.report(clock::now(), &link.counters()), options.json, screen.is_some())?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(report: &Report, json: bool, screen: bool) -> Result<()> {
    let text = match json {
        true => serde_json::to_string(report).context("a report is plain data")? + "\n",
        // From the top left corner; every line is cleared to its end, and what is below as well.
        false if screen => format!("\x1b[H{}\x1b[J", text(report).replace('\n', "\x1b[K\n")),
        false => text(report),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")
}

/// The terminal's other screen, without a cursor; what was there before comes back.
struct Screen;

impl Screen {
    fn open() -> Result<Self> {
        print!("\x1b[?1049h\x1b[?25l\x1b[2J");
        std::io::stdout().flush().context("writing to the terminal")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("\x1b[?25h\x1b[?1049l");
        // A terminal that is gone has no screen to give back.
        let _ = std::io::stdout().flush();
    }
}

/// Arrivals of one kind of message.
#[derive(Debug, Default)]
struct Arrivals {
    received: u64,
    recent: VecDeque<MonotonicTime>,
    sequence: Option<u64>,
    missing: u64,
    restarts: u64,
}

impl Arrivals {
    fn take(&mut self, at: MonotonicTime, sequence: u64) {
        self.received += 1;
        self.recent.push_back(at);
        match self.sequence {
            Some(last) if sequence > last => self.missing += sequence - last - 1,
            Some(_) => self.restarts += 1,
            None => {}
        }
        self.sequence = Some(sequence);
    }

    fn report(&mut self, now: MonotonicTime, since: MonotonicTime) -> Stream {
        let newest = self.recent.back().copied();
        let span_s = now.since(since).min(WINDOW).as_secs_f64();
        let recent = self.recent.iter().filter(|at| now.since(**at) <= WINDOW).count();
        let gaps = self.recent.iter().zip(self.recent.iter().skip(1)).map(|(a, b)| b.since(*a));
        let open = newest.map(|newest| now.since(newest));
        let longest = gaps.chain(open).max().unwrap_or_default();
        // The newest stays, whatever its age.
        while self.recent.len() > 1 && self.recent.front().is_some_and(|at| now.since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        Stream {
            received: self.received,
            rate_hz: if span_s > 0.0 { recent as f64 / span_s } else { 0.0 },
            age_ms: open.map(|age| age.as_secs_f64() * 1e3),
            longest_gap_ms: longest.as_secs_f64() * 1e3,
            missing: self.missing,
            restarts: self.restarts,
        }
    }
}

/// What has been heard.
struct Watch {
    endpoint: String,
    arm: Arm,
    limits: SafetyLimits,
    since: MonotonicTime,
    states: Arrivals,
    statuses: Arrivals,
    state: Option<RobotState>,
    recent: VecDeque<Stamped<BridgeStatus>>,
}

impl Watch {
    fn new(endpoint: String, config: &RobotConfig, now: MonotonicTime) -> Self {
        Self {
            endpoint,
            arm: config.arm(),
            limits: config.safety_limits(),
            since: now,
            states: Arrivals::default(),
            statuses: Arrivals::default(),
            state: None,
            recent: VecDeque::new(),
        }
    }

    fn listen(&mut self, link: &mut LinkObserver) {
        while let Some(heard) = link.next_message() {
            self.take(heard);
        }
    }

    fn take(&mut self, heard: Stamped<Heard>) {
        match heard.value {
            Heard::State(state) => {
                self.states.take(heard.time, state.sequence);
                self.state = Some(state);
            }
            Heard::Status(status) => {
                self.statuses.take(heard.time, status.sequence);
                self.recent.push_back(Stamped { time: heard.time, value: status });
            }
        }
    }

    fn report(&mut self, now: MonotonicTime, counters: &LinkCounters) -> Report {
        while self.recent.len() > 1 && self.recent.front().is_some_and(|status| status.age(now) > WINDOW) {
            self.recent.pop_front();
        }
        Report {
            schema: "tenon.top/1",
            endpoint: self.endpoint.clone(),
            states: self.states.report(now, self.since),
            statuses: self.statuses.report(now, self.since),
            bridge: self.bridge(),
            arm: self.state.map(|state| self.arm_report(&state)),
            refused: counters.refused,
            last_refusal: counters.last_refusal.map(|why| why.to_string()),
            dropped: counters.dropped,
        }
    }

    fn bridge(&self) -> Option<Bridge> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        let BridgeStatus { state, fault, session, epoch, acknowledged, robot_hz, .. } = last.value;
        let mut update = Stage::new();
        for pair in self.recent.iter().zip(self.recent.iter().skip(1)) {
            // One that was not made since the last status is not counted twice.
            if pair.1.value.acknowledged != pair.0.value.acknowledged {
                update.record(Duration::from_micros(u64::from(pair.1.value.update_us)));
            }
        }
        // Counted anew under each lease.
        let new = acknowledged.checked_sub(first.value.acknowledged).filter(|_| first.value.epoch == epoch);
        let span_s = last.time.since(first.time).as_secs_f64();
        let targets_hz = if span_s > 0.0 { new.unwrap_or(0) as f64 / span_s } else { 0.0 };
        let session = (session != 0).then(|| format!("{session:016x}"));
        Some(Bridge { state, fault, session, epoch, acknowledged, targets_hz, update: update.summary(), robot_hz })
    }

    fn arm_report(&self, state: &RobotState) -> ArmReport {
        let joint = |i: usize| {
            let (bounds, position_rad) = (self.limits.bounds(i), state.joint_positions_rad[i]);
            Joint {
                position_rad,
                velocity_rad_s: state.joint_velocities_rad_s[i],
                torque_external_nm: state.joint_torques_external_nm[i],
                left_rad: (position_rad - bounds.lower_rad).min(bounds.upper_rad - position_rad),
            }
        };
        let tool = self.arm.tcp(&state.joint_positions_rad).translation.vector;
        ArmReport {
            joints: (0..7).map(joint).collect(),
            tool_m: [tool.x, tool.y, tool.z],
            gripper: state.gripper,
            gripper_width_m: state.gripper_width_m.is_finite().then_some(state.gripper_width_m),
            error_code: state.error_code,
        }
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("bridge at {}", report.endpoint));
    line(format!("{:<9} {:>8} {:>9} {:>12} {:>9} {:>9}", "", "rate Hz", "age ms", "longest ms", "missing", "restarts"));
    for (name, s) in [("state", &report.states), ("status", &report.statuses)] {
        let age = s.age_ms.map_or_else(|| "never".to_owned(), |age| format!("{age:.1}"));
        let Stream { rate_hz, longest_gap_ms, missing, restarts, .. } = s;
        line(format!("{name:<9} {rate_hz:>8.1} {age:>9} {longest_gap_ms:>12.1} {missing:>9} {restarts:>9}"));
    }
    match &report.bridge {
        None => line("the bridge has said nothing yet".to_owned()),
        Some(b) => {
            let fault = match b.fault {
                BridgeFault::None => String::new(),
                fault => format!(", fault: {fault}"),
            };
            let lease = b.session.as_ref().map_or_else(|| "no lease".to_owned(), |s| format!("lease {s}"));
            line(format!("bridge    {:?}{fault}; {lease}, epoch {}; robot client {} Hz", b.state, b.epoch, b.robot_hz));
            let Summary { p50_us, p99_us, max_us, .. } = b.update;
            line(format!("targets   {:.1} Hz, number {} acknowledged", b.targets_hz, b.acknowledged));
            line(format!("update    p50 {p50_us:.0} us, p99 {p99_us:.0} us, max {max_us:.0} us"));
        }
    }
    match &report.arm {
        None => line("no robot state has arrived".to_owned()),
        Some(arm) => {
            line(format!("{:<9} {:>10} {:>10} {:>10} {:>10}", "joint", "rad", "rad/s", "ext. N m", "left rad"));
            for (i, j) in arm.joints.iter().enumerate() {
                line(format!(
                    "{:<9} {:>10.4} {:>10.4} {:>10.2} {:>10.3}",
                    i + 1,
                    j.position_rad,
                    j.velocity_rad_s,
                    j.torque_external_nm,
                    j.left_rad
                ));
            }
            let [x, y, z] = arm.tool_m;
            line(format!("tool      x {x:.4}, y {y:.4}, z {z:.4} m"));
            let width = arm.gripper_width_m.map_or_else(String::new, |m| format!(", {:.1} mm", 1e3 * m));
            let error = if arm.error_code == 0 { String::new() } else { format!("; ROBOT ERROR {}", arm.error_code) };
            line(format!("gripper   {:?}{width}{error}", arm.gripper));
        }
    }
    if let Some(why) = &report.last_refusal {
        line(format!("refused   {} messages, the last because of {why}", report.refused));
    }
    if report.dropped > 0 {
        line(format!("dropped   {} messages here: this terminal is too slow", report.dropped));
    }
    out
}

#[cfg(test)]
mod tests {
    use tenon_core::time::RobotTime;

    use super::*;

    fn state(sequence: u64) -> Heard {
        Heard::State(RobotState {
            sequence,
            robot_time: RobotTime::from_nanos(0),
            joint_positions_rad: [0.0, 0.0, 0.0, -1.5, 0.0, 1.5, 0.0],
            joint_velocities_rad_s: [0.1; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: GripperPhase::Absent,
            error_code: 0,
        })
    }

    fn status(sequence: u64, acknowledged: u64) -> Heard {
        Heard::Status(BridgeStatus {
            sequence,
            state: BridgeState::Running,
            fault: BridgeFault::None,
            session: 0xa,
            epoch: 1,
            acknowledged,
            update_us: 900,
            robot_hz: 1000,
        })
    }

    fn watch() -> Watch {
        let config = tenon_core::config::parse("configs/robot.toml", include_str!("../../../configs/robot.toml"));
        Watch::new("tcp/here".to_owned(), &config.expect("the shipped file"), MonotonicTime::from_nanos(0))
    }

    const fn ms(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn rates_ages_and_gaps_are_those_of_the_last_seconds() {
        let mut watch = watch();
        for i in 0..1000 {
            // 200 Hz, and one in a hundred is lost.
            if i % 100 != 50 {
                watch.take(Stamped { time: ms(5 * i), value: state(1 + i as u64) });
            }
            if i % 10 == 0 {
                watch.take(Stamped { time: ms(5 * i), value: status(i as u64 / 10, i as u64 * 7 / 10) });
            }
        }
        let report = watch.report(ms(5000), &LinkCounters::default());
        assert_eq!((report.states.missing, report.states.restarts, report.states.received), (10, 0, 990));
        assert!((report.states.rate_hz - 198.0).abs() < 1.0, "{:?}", report.states);
        assert_eq!(report.states.longest_gap_ms, 10.0);
        assert_eq!(report.states.age_ms, Some(5.0));
        assert!((report.statuses.rate_hz - 20.0).abs() < 1.0);
        let bridge = report.bridge.expect("it spoke");
        assert!((bridge.targets_hz - 140.0).abs() < 1.0, "{}", bridge.targets_hz);
        assert!((bridge.update.p50_us - 900.0).abs() < 2.0);
        // Ten seconds of silence.
        let report = watch.report(ms(15_000), &LinkCounters::default());
        assert_eq!((report.states.rate_hz, report.states.age_ms), (0.0, Some(10_005.0)));
        // The bridge was started again.
        watch.take(Stamped { time: ms(15_000), value: state(1) });
        let report = watch.report(ms(15_001), &LinkCounters::default());
        assert_eq!((report.states.missing, report.states.restarts), (10, 1));
        assert!(text(&report).contains("lease 000000000000000a, epoch 1"), "{}", text(&report));
    }

    #[test]
    fn what_was_never_heard_is_said() {
        let report = watch().report(ms(1000), &LinkCounters::default());
        let text = text(&report);
        assert!(text.contains("never") && text.contains("no robot state has arrived"), "{text}");
        assert_eq!(report.states.rate_hz, 0.0);
    }
}
