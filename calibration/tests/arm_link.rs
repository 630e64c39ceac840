//! Poses of the arm from the link: in memory with a clock that plays a robot, and over zenoh as the program does it.

mod common;

use std::f64::consts::TAU;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PlayedClock, PlayedRobot, REST, SHIPPED, played_robot, robot, state};
use serde_json::Value;
use tenon_calibrate::arm::{ArmError, ArmPoseSource, Asked, LinkPoses, LinkSettings};
use tenon_calibrate::measure::latency::{LatencySettings, Sample, delay};
use tenon_calibrate::steps::{arm_poses, latency};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, RobotState};
use tenon_core::time::MonotonicTime;
use tenon_link::{BridgeInbox, BridgeSender, DEFAULT_ROBOT, Endpoint, RobotKeys, open_bridge_link};
use tenon_vision::source::{Clock, SystemClock};

struct Played {
    arm: LinkPoses,
    clock: Arc<PlayedClock>,
    sender: BridgeSender,
    inbox: BridgeInbox,
}

fn played(play: impl Fn(i64) -> Option<RobotState> + Send + Sync + 'static) -> Played {
    let PlayedRobot { states, clock, sender, inbox } = played_robot(play);
    let arm = LinkPoses::new(states, LinkSettings::new(&robot()), clock.clone());
    Played { arm, clock, sender, inbox }
}

fn at(ms: i64) -> RobotState {
    state(ms as u64, 1_000_000_000_000 + ms * 1_000_000)
}

/// What is said when the pose is asked for.
fn refused(play: impl Fn(i64) -> Option<RobotState> + Send + Sync + 'static) -> String {
    played(play).arm.wait().unwrap_err().to_string()
}

const ASKED: Asked<'static> = Asked { picture: "pose 0000", typed: None };

#[test]
fn the_tool_point_is_taken_once_the_arm_has_come_to_rest() {
    // It swings for two seconds, then stands.
    let mut played = played(|ms| {
        let mut state = at(ms);
        if ms < 2000 {
            let t = ms as f64 * 1e-3;
            state.joint_positions_rad[0] += 0.2 * (TAU * t).sin();
            state.joint_velocities_rad_s[0] = 0.2 * TAU * (TAU * t).cos();
        }
        Some(state)
    });
    let pose = played.arm.pose(&ASKED).unwrap().unwrap();
    let truth = robot().arm().tcp(&REST);
    assert!((pose.translation.vector - truth.translation.vector).norm() < 1e-12);
    assert!(pose.rotation.angle_to(&truth.rotation) < 1e-9);
    let took = played.clock.now().seconds_since(MonotonicTime::default());
    assert!((2.5..2.6).contains(&took), "half a second after it stopped, not {took} s");
    played.arm.confirm(&pose).unwrap();
    // What was read was only read.
    assert_eq!(played.inbox.counters().received, 0);
    assert!(played.inbox.next_request().is_none() && played.inbox.latest_target().is_none());
}

#[test]
fn an_arm_that_never_rests_is_said_with_its_joint_and_the_limit() {
    let said = refused(|ms| {
        let mut state = at(ms);
        state.joint_velocities_rad_s[2] = -0.05;
        Some(state)
    });
    for wanted in ["tcp/127.0.0.1:7447", "within 60 s", "joint 3", "0.050 rad/s", "at most 0.01", "let go of it"] {
        assert!(said.contains(wanted), "{wanted:?}: {said}");
    }
    let sinking = refused(|ms| {
        let mut state = at(ms);
        state.joint_positions_rad[1] += 3e-6 * ms as f64;
        Some(state)
    });
    assert!(sinking.contains("drifted for 60 s"), "{sinking}");
}

#[test]
fn a_robot_that_is_silent_is_said_with_what_the_bridge_knows() {
    let said = refused(|_| None);
    assert!(said.contains("no state of the robot has arrived") && said.contains("another program"), "{said}");
    let mut played = played(|ms| (ms < 300).then(|| at(ms)));
    let status = BridgeStatus {
        sequence: 1,
        state: BridgeState::NoRobot,
        fault: BridgeFault::None,
        session: 0,
        epoch: 1,
        acknowledged: 0,
        update_us: 0,
        robot_hz: 0,
    };
    played.sender.publish_status(&status).unwrap();
    let said = played.arm.wait().unwrap_err().to_string();
    assert!(said.contains("s ago") && said.contains("no robot client"), "{said}");
    let waited = played.clock.now().seconds_since(MonotonicTime::default());
    assert!((3.0..4.0).contains(&waited), "{waited} s");
}

#[test]
fn numbers_that_are_none_errors_of_the_robot_and_another_model_are_refused() {
    let said = refused(|ms| Some(RobotState { joint_positions_rad: [f64::NAN; 7], ..at(ms) }));
    assert!(said.contains("messages were refused") && said.contains("of joint 1 is not finite"), "{said}");
    let said = refused(|ms| Some(RobotState { error_code: 1, ..at(ms) }));
    assert!(said.contains("error_code 1") && said.contains("brakes"), "{said}");
    let said = refused(|ms| Some(RobotState { joint_positions_rad: [0.0; 7], ..at(ms) }));
    assert!(said.contains("joint 4") && said.contains("`model` in robot.toml"), "{said}");
}

#[test]
fn an_arm_that_moves_while_pictures_are_taken_is_refused_with_how_far() {
    let mut played = played(|ms| {
        let mut state = at(ms);
        state.joint_positions_rad[0] += if ms > 1000 { 0.01 } else { 0.0 };
        Some(state)
    });
    let pose = played.arm.pose(&ASKED).unwrap().unwrap();
    played.clock.sleep_until(MonotonicTime::from_nanos(900_000_000));
    played.arm.confirm(&pose).unwrap();
    played.clock.sleep_until(MonotonicTime::from_nanos(1_100_000_000));
    let Err(ArmError::MovedMeanwhile { moved_mm, turned_deg }) = played.arm.confirm(&pose) else { panic!() };
    // A hundredth of a radian about the column, half a metre away.
    assert!((3.0..8.0).contains(&moved_mm) && (turned_deg - 0.573).abs() < 0.01, "{moved_mm} mm, {turned_deg} degrees");
}

/// A robot behind a bridge on a port of this machine, which the program reads.
struct Robot {
    folder: tempfile::TempDir,
    inbox: BridgeInbox,
    ending: Arc<AtomicBool>,
    publisher: Option<std::thread::JoinHandle<()>>,
}

impl Robot {
    /// `play`: the state at a time of this machine's clock, s since the start.
    fn start(play: impl Fn(f64, RobotState) -> RobotState + Send + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp/{}", listener.local_addr().unwrap());
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let text = SHIPPED.replace("tcp/127.0.0.1:7447", &endpoint);
        assert_ne!(text, SHIPPED);
        std::fs::write(folder.path().join("robot.toml"), text).unwrap();
        let keys = RobotKeys::new(DEFAULT_ROBOT).unwrap();
        let endpoint = Endpoint::on_one_computer(&endpoint).unwrap();
        let (sender, inbox) = open_bridge_link(&endpoint, &keys, Arc::new(|| SystemClock.now()), || {}).unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let publisher = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut sequence = 0;
            while !ends.load(Ordering::Relaxed) {
                sequence += 1;
                // The robot's clock runs beside this machine's, an hour ahead.
                let robot_ns = SystemClock.now().as_nanos() + 3_600_000_000_000;
                sender.publish_state(&play(begin.elapsed().as_secs_f64(), state(sequence, robot_ns))).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { folder, inbox, ending, publisher: Some(publisher) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, "")
    }

    /// `input`: what is typed.
    fn run_with(&self, args: &[&str], input: &str) -> Output {
        let typed = self.path("input.txt");
        std::fs::write(&typed, input).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenon-calibrate"));
        command.args(args).env("TENON_STATE", self.path("state")).current_dir(self.folder.path());
        command.stdin(Stdio::from(std::fs::File::open(typed).unwrap())).output().unwrap()
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(publisher) = self.publisher.take() {
            publisher.join().unwrap();
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_program_notes_the_arms_pose_for_pictures() {
    let robot_here = Robot::start(|_, state| state);
    let pose = ["arm-pose", "--robot", "robot.toml", "--out", "poses.csv"];
    let output = robot_here.run(&[&pose[..], &["0001.png", "0002.png", "--json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let first: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!((first["schema"].as_str(), first["picture"].as_str()), (Some("tenon.arm_pose/1"), Some("0001.png")));
    let poses = arm_poses::read(&robot_here.path("poses.csv")).unwrap();
    let truth = robot().arm().tcp(&REST);
    assert_eq!(poses.keys().collect::<Vec<_>>(), ["0001.png", "0002.png"]);
    for pose in poses.values() {
        assert!((pose.translation.vector - truth.translation.vector).norm() < 1e-6);
        assert!(pose.rotation.angle_to(&truth.rotation) < 1e-6);
    }
    // A picture has one pose; those that are there stay.
    let output = robot_here.run(&[&pose[..], &["0002.png"]].concat());
    assert!(
        output.status.code() == Some(2) && said(&output).contains("0002.png has a pose already"),
        "{}",
        said(&output)
    );
    let output = robot_here.run(&["arm-pose", "--robot", "robot.toml"]);
    assert!(output.status.success() && said(&output).contains("hand in the robot's base: "), "{}", said(&output));
    assert_eq!(arm_poses::read(&robot_here.path("poses.csv")).unwrap().len(), 2);
    // One picture after the other, as their names come in.
    let output = robot_here.run_with(&pose, "0003.png\n\n0004.png\n");
    assert!(output.status.success() && said(&output).contains("0004.png: "), "{}", said(&output));
    assert_eq!(arm_poses::read(&robot_here.path("poses.csv")).unwrap().len(), 4);
    // The bridge heard nothing of it.
    assert_eq!(robot_here.inbox.counters().received, 0);
}

#[test]
fn the_program_says_what_is_wrong_with_the_robot_or_its_description() {
    let robot_here = Robot::start(|_, state| RobotState { error_code: 1, ..state });
    let output = robot_here.run(&["arm-pose", "--robot", "robot.toml"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("error_code 1"), "{}", said(&output));
    let output = robot_here.run(&["arm-pose"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("--robot FILE"), "{}", said(&output));
    let nobody = ["arm-pose", "--robot", "robot.toml", "--arm-link", "tcp/127.0.0.1:1"];
    let output = robot_here.run(&nobody);
    assert!(output.status.code() == Some(2) && said(&output).contains("start tenon-bridge"), "{}", said(&output));
    // The wizard opens the link before it asks anybody to hold the arm, and takes no pictures of yesterday.
    let wizard = ["wizard", "--rig", "bench", "--camera", "front=images:1:views", "--robot", "robot.toml"];
    let hand = ["--hand-tag", "100", "--hand-tag-size-m", "0.048"];
    let output = robot_here.run(&[&wizard[..], &hand, &["--arm-link=tcp/127.0.0.1:1"]].concat());
    assert!(output.status.code() == Some(2) && said(&output).contains("start tenon-bridge"), "{}", said(&output));
    let output = robot_here.run(&[&wizard[..], &hand, &["--arm-link"]].concat());
    assert!(output.status.code() == Some(2) && said(&output).contains("--arm-poses FILE"), "{}", said(&output));
    let output = robot_here.run(&[&wizard[..], &["--arm-link"]].concat());
    assert!(output.status.code() == Some(2) && said(&output).contains("--hand-tag"), "{}", said(&output));
}

#[test]
fn a_swing_is_recorded_on_the_clock_of_the_frames() {
    // To and fro about the column, as the workstation's own clock says.
    let angle = |t: f64| 0.2 * (2.1 * t).sin() + 0.08 * (5.3 * t + 0.7).sin();
    let begin = Arc::new(Mutex::new(Vec::<Sample>::new()));
    let truth = Arc::clone(&begin);
    let robot_here = Robot::start(move |t, mut state| {
        state.joint_positions_rad[0] = angle(t);
        let time_s = (state.robot_time.as_nanos() - 3_600_000_000_000) as f64 * 1e-9;
        truth.lock().unwrap().push(Sample { time_s, value: angle(t) });
        state
    });
    let swing = ["arm-swing", "--robot", "robot.toml", "--seconds", "6", "--out", "hand.csv", "--json"];
    let output = robot_here.run(&swing);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["samples"].as_u64().unwrap() > 300, "{report}");
    assert!((0.15..0.5).contains(&report["moved_m"].as_f64().unwrap()), "{report}");
    let hand =
        latency::parse(Path::new("hand.csv"), &std::fs::read_to_string(robot_here.path("hand.csv")).unwrap()).unwrap();
    // The record follows the joint without delay, up to the fastest message; its sign is anybody's.
    let joint = begin.lock().unwrap().clone();
    let found = [1.0, -1.0].iter().filter_map(|sign| {
        let turned: Vec<Sample> = hand.iter().map(|s| Sample { value: sign * s.value, ..*s }).collect();
        delay(&joint, &turned, &LatencySettings::default()).ok()
    });
    let best = found.max_by_key(|delay| delay.samples).expect("one of the two signs is the same motion");
    assert!(best.p50_s < 5e-3, "{best:?}");
    let output = robot_here.run(&swing);
    assert!(output.status.code() == Some(2) && said(&output).contains("exists already"), "{}", said(&output));
    assert_eq!(robot_here.inbox.counters().received, 0);
}
