//! The wizard on the simulated bench, from the first question to a published version, and the commands beside it.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use nalgebra::{Matrix6, Quaternion, UnitQuaternion, Vector3};
use serde_json::Value;
use tenon_calibrate::arm::{ArmPoseSource, Asked, LinkPoses, LinkSettings};
use tenon_calibrate::boards::{AprilGrid, Board};
use tenon_calibrate::measure::latency::Sample;
use tenon_calibrate::rig::{Ended, RigFolder, Step};
use tenon_calibrate::steps::{Limits, StepError};
use tenon_calibrate::wizard::bench::{Counts, Motion};
use tenon_calibrate::wizard::simulated::hand_tag;
use tenon_calibrate::wizard::{
    Answers, Arm, Bench, BenchCamera, Ending, Input, Question, Shot, SimulatedBench, Subject, Then, Wizard, Worker,
    WorkerSettings, talk,
};
use tenon_core::arm::Joints;
use tenon_core::config::rig::{CameraRecord, RigCalibration};
use tenon_core::geometry::pose_error;
use tenon_core::message::RobotState;
use tenon_vision::{Pose, Rig};

const DATE: &str = "2026-01-31T12:00:00Z";

fn board() -> Board {
    Board::AprilGrid(AprilGrid {
        columns: 5,
        rows: 5,
        tag_m: 0.038,
        spacing_ratio: 0.25,
        first_id: 0,
        border_cells: 1,
        corner_squares: true,
    })
}

fn bench(push_m: f64) -> SimulatedBench {
    SimulatedBench::new(&["front".into(), "side".into()], board(), push_m).unwrap()
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        layout: Rig::built_in().unwrap(),
        board: board(),
        hand: vec![hand_tag()],
        limits: Limits::shipped().unwrap(),
        assume_focal_px: None,
        program: "test".into(),
        now: || DATE.into(),
    }
}

/// One session of the wizard; what it said, and how it ended. `script`: lines of answers, or Enter to everything.
fn session(state: &Path, push_m: f64, script: Option<&str>) -> (Ending, String) {
    let mut bench = bench(push_m);
    let folder = RigFolder::new(state, "demo").unwrap();
    let mut worker = Worker::new(&mut bench, folder, settings()).unwrap();
    let mut wizard = Wizard::new(worker.plan().unwrap());
    let mut said = Vec::new();
    let mut lines = script.unwrap_or_default().as_bytes();
    let mut answers = if script.is_some() { Answers::Lines(&mut lines) } else { Answers::Yes };
    let ending = talk(&mut wizard, &mut worker, &mut answers, &mut said).unwrap();
    (ending, String::from_utf8(said).unwrap())
}

/// A session that nobody interrupted, run once for all tests.
fn whole() -> &'static (tempfile::TempDir, Ending, String) {
    static WHOLE: OnceLock<(tempfile::TempDir, Ending, String)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let state = tempfile::tempdir().unwrap();
        let (ending, said) = session(state.path(), 0.0, None);
        (state, ending, said)
    })
}

fn current(state: &Path) -> (PathBuf, RigCalibration) {
    let version = RigFolder::new(state, "demo").unwrap().current().unwrap();
    (version.path, version.calibration)
}

/// What is measured is near the truth that the bench was built with.
fn assert_true(found: &RigCalibration) {
    let truth = bench(0.0);
    for (index, camera) in found.camera.iter().enumerate() {
        let place = camera.place.as_ref().unwrap().T_april_camera();
        let truth = truth.T_april_camera(index);
        let off_m = (place.translation.vector - truth.translation.vector).norm();
        let off_deg = place.rotation.angle_to(&truth.rotation).to_degrees();
        assert!(off_m < 2e-3 && off_deg < 0.2, "{}: {off_m} m, {off_deg} degrees", camera.name);
        let delay = found.latency.as_ref().unwrap().camera[index].delay.p50_s;
        assert!((delay - SimulatedBench::camera_delay_s(index)).abs() < 2e-3, "{}: {delay} s", camera.name);
    }
    let board = found.board.as_ref().unwrap().T_robot_april();
    let off_m = (board.translation.vector - truth.T_robot_april().translation.vector).norm();
    assert!(off_m < 2e-3, "board {off_m} m");
    assert!(found.proof.as_ref().unwrap().passed);
    // Every part of the task, the table top with its four far rims too.
    for part in ["square_table_top", "square_table_leg1", "square_table_leg4"] {
        let record = found.noise.iter().find(|record| record.part == part);
        let mean = record.unwrap_or_else(|| panic!("{part} was not measured")).mean;
        let truth = truth.T_april_part(part).unwrap();
        let off_m = (Vector3::new(mean[0], mean[1], mean[2]) - truth.translation.vector).norm();
        let rotation = UnitQuaternion::from_quaternion(Quaternion::new(mean[6], mean[3], mean[4], mean[5]));
        let off_deg = rotation.angle_to(&truth.rotation).to_degrees();
        assert!(off_m < 4e-3 && off_deg < 3.0, "{part}: {off_m} m, {off_deg} degrees");
    }
}

#[test]
fn a_newcomer_presses_enter_and_has_a_calibration_with_a_report() {
    let (state, ending, said) = whole();
    println!("{said}");
    assert_eq!(*ending, Ending::InUse, "{said}");
    for wanted in [
        "Five steps",
        "front view 1:",
        "next: ",
        "tilts",
        "the one that helps most: move the hand",
        "poses are enough",
        "5 of 5: noise at rest",
        "times the reported covariance",
        "report.html",
    ] {
        assert!(said.contains(wanted), "{wanted:?} was not said:\n{said}");
    }
    let (folder, found) = current(state.path());
    assert_true(&found);
    let report = std::fs::read_to_string(folder.join("report.html")).unwrap();
    for wanted in
        ["Proof passed", "SIM-0001", "data:image/png;base64,", "<circle", "points seen in each part", "SHA-256"]
    {
        assert!(report.contains(wanted), "{wanted:?} is not in the report");
    }
    // Nothing is loaded from elsewhere.
    for foreign in ["http://", "https://", "<script", "src=\"/", "@import", "url("] {
        assert!(!report.contains(foreign), "{foreign:?} is in the report");
    }
    let noise: Value = serde_json::from_slice(&std::fs::read(folder.join("noise.json")).unwrap()).unwrap();
    assert!(noise["parts"][0]["covariance_ratio"].as_f64().unwrap() > 0.0, "{noise}");
    // The manifest holds the report and the pictures.
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    assert!(manifest.contains("report.html") && manifest.contains("pictures/front-proof.png"), "{manifest}");
}

#[test]
fn a_session_that_is_interrupted_after_every_step_ends_with_the_same_calibration() {
    let parts = tempfile::tempdir().unwrap();
    for step in Step::ALL {
        // The step, then the end of the input where the next question stands.
        let (ending, said) = session(parts.path(), 0.0, Some("\n"));
        assert_eq!(ending, Ending::Paused, "{said}");
        let draft = RigFolder::new(parts.path(), "demo").unwrap().draft("test", DATE).unwrap();
        assert!(draft.steps().contains_key(&step) && draft.steps().len() == 1 + step as usize, "{step:?}: {said}");
    }
    let (ending, said) = session(parts.path(), 0.0, Some("what?\n\ny\n"));
    assert_eq!(ending, Ending::InUse, "{said}");
    assert!(said.contains("An earlier session was interrupted"), "{said}");
    let (state, ..) = whole();
    let ((_, whole), (_, parts)) = (current(state.path()), current(parts.path()));
    assert_eq!(whole, parts);
}

#[test]
fn cameras_that_were_pushed_before_the_proof_are_not_taken_into_use() {
    let state = tempfile::tempdir().unwrap();
    let (ending, said) = session(state.path(), 0.012, Some("\n\n\nnonsense\nkeep\nskip no time\nskip no time\n"));
    assert_eq!(ending, Ending::Kept, "{said}");
    for wanted in
        ["FAIL 95 % of the views", "that is not understood", "`back`", "The proof failed", "left out: latency"]
    {
        assert!(said.contains(wanted), "{wanted:?} was not said:\n{said}");
    }
    let folder = RigFolder::new(state.path(), "demo").unwrap();
    assert!(folder.current().unwrap_err().to_string().contains("no calibration yet"));
    let version = folder.open(&folder.versions().unwrap()[0]).unwrap();
    assert!(!version.calibration.proof.unwrap().passed);
    let report = std::fs::read_to_string(version.path.join("report.html")).unwrap();
    assert!(report.contains("Proof failed") && report.contains("left out: no time"));
}

/// The program in a folder of its own.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenon-calibrate"));
        command.args(args).env("TENON_STATE", self.folder.path().join("state")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn touched_points_and_records_become_versions() {
    let program = Program { folder: tempfile::tempdir().unwrap() };
    program.write(
        "touched.csv",
        "0,0.2715,-0.030,0.0\n1,0.2715,0.030,0.0002\n2,0.3315,-0.030,0\n3,0.3315,0.030,-0.0001\n",
    );
    let output = program.run(&["touch-off", "--rig", "bench", "touched.csv", "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    program.write(
        "touched.csv",
        "0,0.2715,-0.030,0.0\n1,0.2715,0.030,0.0002\n2,0.3315,-0.030,0\n3,0.3315,0.050,-0.0001\n",
    );
    let output = program.run(&["touch-off", "--rig", "bench", "touched.csv", "--yes"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("FAIL touched points"), "{}", said(&output));

    let swing = |t: f64| 0.1 * (1.7 * t).sin() + 0.04 * (4.1 * t + 0.7).sin();
    let record = |late_s: f64| -> String {
        (0..1000).map(|i| f64::from(i) * 0.01).map(|t| format!("{t},{}\n", swing(t - late_s))).collect()
    };
    program.write("cause.csv", &record(0.0));
    program.write("response.csv", &record(0.083));
    let arm = ["latency", "--rig", "bench", "--arm", "cause.csv,response.csv", "--yes", "--json"];
    let output = program.run(&arm);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let p50 = report["latency"]["arm"]["p50_s"].as_f64().unwrap();
    assert!((p50 - 0.083).abs() < 1.5e-3, "{report}");
    let output = program.run(&["latency", "--rig", "bench", "--arm", "cause.csv"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("CAUSE,RESPONSE"), "{}", said(&output));

    // Both are in the version in use, which has a report.
    let shown: Value = serde_json::from_slice(&program.run(&["show", "--rig", "bench", "--json"]).stdout).unwrap();
    assert_eq!(shown["calibration"]["board"]["method"], "touch_off");
    assert!(shown["calibration"]["latency"]["arm"]["samples"].as_u64().unwrap() > 3);
    let version = shown["version"].as_str().unwrap();
    let report = program.folder.path().join("state/rigs/bench").join(version).join("report.html");
    assert!(std::fs::read_to_string(report).unwrap().contains("TouchOff"));
}

#[test]
fn a_wizard_without_cameras_says_what_to_give() {
    let program = Program { folder: tempfile::tempdir().unwrap() };
    let output = program.run(&["wizard", "--rig", "bench"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("--simulated"), "{}", said(&output));
    let output = program.run(&["wizard", "--rig", "bench", "--camera", "front=usb:1"]);
    assert!(said(&output).contains("NAME=v4l2:SERIAL"), "{}", said(&output));
}

/// The simulated rig with an arm that a person guides, and that says over a link where it stands.
struct LinkedBench {
    inner: SimulatedBench,
    arm: LinkPoses,
    /// Where the person's hands hold the arm.
    joints: Arc<Mutex<Joints>>,
    goal: Option<Pose>,
    followed: usize,
}

/// This robot stands farther back than the bench's own, so that the arm reaches all poses of the list: the bench's base in this one.
fn T_base_bench() -> Pose {
    Pose::translation(0.2, 0.0, 0.0)
}

/// Joints that bring the tool point there: damped Gauss-Newton from a few bent arms.
fn joints_of(T_base_hand: &Pose) -> Joints {
    let (arm, limits) = (common::robot().arm(), common::robot().model.limits());
    for wrist in [0.7, -0.8, 2.2, -2.2] {
        let mut q: Joints = [0.0, -0.5, 0.0, -2.3, 0.0, 1.9, wrist];
        for _ in 0..200 {
            let (now, J) = arm.tcp_jacobian(&q);
            let error = pose_error(&now, T_base_hand);
            let step = J.transpose() * (J * J.transpose() + Matrix6::identity() * 1e-6).try_inverse().unwrap() * error;
            (0..7).for_each(|i| q[i] += step[i].clamp(-0.2, 0.2));
        }
        let there = pose_error(&arm.tcp(&q), T_base_hand).norm() < 1e-8;
        if there && (0..7).all(|i| (limits.lower_rad[i]..limits.upper_rad[i]).contains(&q[i])) {
            return q;
        }
    }
    panic!("the arm does not reach {T_base_hand}");
}

impl Bench for LinkedBench {
    fn cameras(&self) -> &[BenchCamera] {
        self.inner.cameras()
    }

    fn arm(&self) -> Arm {
        Arm::Linked
    }

    fn counts(&self) -> Counts {
        self.inner.counts()
    }

    fn is_live(&self) -> bool {
        false
    }

    fn rate_hz(&self) -> f64 {
        self.inner.rate_hz()
    }

    fn shoot(&mut self, camera: usize, subject: Subject, index: usize) -> Result<Option<Shot>, StepError> {
        // What the picture itself would know is withheld: the link alone says where the hand is.
        Ok(self.inner.shoot(camera, subject, index)?.map(|shot| Shot { T_base_hand: None, ..shot }))
    }

    fn guide(&mut self, T_base_hand: Option<&Pose>) {
        self.goal = T_base_hand.copied();
    }

    fn arm_pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, StepError> {
        let index: usize = asked.picture.strip_prefix("arm ").unwrap().parse().unwrap();
        self.followed += usize::from(self.goal.is_some());
        let there = self.goal.unwrap_or_else(|| {
            self.inner.guide(None);
            let shot = self.inner.shoot(0, Subject::Pose(Step::Place), index).unwrap().unwrap();
            T_base_bench() * shot.T_base_hand.unwrap()
        });
        *self.joints.lock().unwrap() = joints_of(&there);
        let pose = self.arm.pose(asked)?;
        self.inner.guide(pose.map(|pose| T_base_bench().inverse() * pose).as_ref());
        Ok(pose)
    }

    fn confirm_arm(&mut self, T_base_hand: &Pose) -> Result<(), StepError> {
        Ok(self.arm.confirm(T_base_hand)?)
    }

    fn begin_swing(&mut self) -> Result<bool, StepError> {
        Ok(false)
    }

    fn swing(&mut self) -> Result<Vec<Sample>, StepError> {
        Ok(Vec::new())
    }

    fn motions(&mut self) -> Result<Vec<Motion>, StepError> {
        Ok(Vec::new())
    }
}

#[test]
fn an_arm_on_the_link_places_the_cameras_and_is_never_commanded() {
    let joints = Arc::new(Mutex::new(common::REST));
    let held = Arc::clone(&joints);
    let common::PlayedRobot { states, clock, mut inbox, .. } = common::played_robot(move |ms| {
        let joint_positions_rad = *held.lock().unwrap();
        Some(RobotState { joint_positions_rad, ..common::state(ms as u64, ms * 1_000_000) })
    });
    let arm = LinkPoses::new(states, LinkSettings::new(&common::robot()), clock);
    let mut bench = LinkedBench { inner: bench(0.0), arm, joints, goal: None, followed: 0 };
    // With the intrinsics of the whole session.
    let (state, ..) = whole();
    let known = current(state.path()).1;
    let state = tempfile::tempdir().unwrap();
    let folder = RigFolder::new(state.path(), "demo").unwrap();
    let mut draft = folder.draft("test", DATE).unwrap();
    draft
        .change(|calibration| {
            calibration.camera =
                known.camera.into_iter().map(|camera| CameraRecord { place: None, ..camera }).collect();
        })
        .unwrap();
    draft.end_step(Step::Intrinsics, Ended::Done { date: DATE.into() }).unwrap();
    drop(draft);
    let mut worker = Worker::new(&mut bench, folder, settings()).unwrap();
    let mut wizard = Wizard::new(worker.plan().unwrap());
    let mut turn = wizard.step(Input::Begin);
    let mut said = Vec::new();
    while turn.then != Then::Ask(Question::GoOn(Step::Proof)) {
        said.extend(turn.say);
        turn = match turn.then {
            Then::Do(task) => wizard.step(Input::Report(worker.work(&task))),
            Then::Ask(Question::AfterFailure(_)) | Then::End(_) => panic!("{said:#?}"),
            Then::Ask(_) => wizard.step(Input::Answer("")),
        };
    }
    drop(worker);
    let said = said.join("\n");
    println!("{said}");
    assert!(said.contains("the robot itself says where it"), "{said}");
    let truth = &bench.inner;
    let draft = RigFolder::new(state.path(), "demo").unwrap().draft("test", DATE).unwrap();
    let found = draft.calibration();
    for (index, camera) in found.camera.iter().enumerate() {
        let place = camera.place.as_ref().unwrap().T_april_camera();
        let off_m = (place.translation.vector - truth.T_april_camera(index).translation.vector).norm();
        assert!(off_m < 2e-3, "{}: {off_m} m", camera.name);
    }
    let board = found.board.as_ref().unwrap().T_robot_april();
    let off_m = (board.translation.vector - (T_base_bench() * truth.T_robot_april()).translation.vector).norm();
    assert!(off_m < 2e-3, "board {off_m} m");
    assert!(bench.followed > 0, "no suggestion was followed:\n{said}");
    assert_eq!(inbox.counters().received, 0);
    assert!(inbox.next_request().is_none() && inbox.latest_target().is_none());
}
