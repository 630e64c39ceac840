//! The steps on photographs of a synthetic camera: rendered boards and parts with blur, noise and clutter, truth known.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nalgebra::{Translation3, UnitQuaternion, Vector3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tenon_calibrate::boards::Board;
use tenon_calibrate::boards::render::render_board;
use tenon_calibrate::extrinsics::{Problem, SolveSettings, View, calibrate};
use tenon_vision::render::workbench::{Workbench, looking_at, three_views};
use tenon_vision::render::{CameraEffects, Motion, RenderSettings, Scene, SceneBody, SyntheticCamera};
use tenon_vision::{Camera, Detector, DetectorSettings, GreyImage, Pose, Rig};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

fn camera() -> Camera {
    Camera::pinhole(912.0, 910.0, 642.0, 357.0).unwrap()
}

fn difference(a: &Pose, b: &Pose) -> (f64, f64) {
    ((a.translation.vector - b.translation.vector).norm(), a.rotation.angle_to(&b.rotation))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Twenty cameras at random places, each with a few photographs of the board.
#[test]
fn rendered_boards_give_the_camera_within_a_millimetre() {
    let rig = Rig::built_in().unwrap();
    let scene = Scene { bodies: vec![SceneBody::base_board(&rig).unwrap()] };
    let mut detector = Detector::new(DetectorSettings::default()).unwrap();
    let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
    let (mut metres, mut degrees, mut noise) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let around = rng.random_range(0.0..std::f64::consts::TAU);
        let (distance, height) = (rng.random_range(0.4..0.55), rng.random_range(0.4..0.55));
        let eye = [distance * around.cos(), distance * around.sin(), -height];
        let T_april_camera = looking_at(eye, [rng.random_range(-0.05..0.05), rng.random_range(-0.05..0.05), 0.0]);
        let mut photographer = SyntheticCamera::new(camera(), WIDTH, HEIGHT, CameraEffects::default(), seed).unwrap();
        let views = (0..6).map(|photograph| {
            let motions = [Motion::still(T_april_camera.inverse())];
            photographer.shoot(&scene, &motions, photograph, &mut image).unwrap();
            let detections = detector.detect(image.view()).unwrap();
            View { name: format!("{photograph}"), camera: 0, T_base_hand: None, detections }
        });
        let problem = Problem {
            cameras: vec![("front".into(), camera())],
            board: rig.base_tags.clone(),
            hand: vec![],
            views: views.collect(),
        };
        let solution = calibrate(&problem, &SolveSettings::default()).unwrap();
        assert!(solution.misplaced.is_empty() && solution.bad_views.is_empty());
        let (m, rad) = difference(&solution.cameras[0].T_base_camera, &T_april_camera);
        metres.push(m);
        degrees.push(rad.to_degrees());
        noise.push(solution.sigma_px);
    }
    let (m, deg) = (median(metres), median(degrees));
    println!("20 rendered rigs, 6 photographs: {:.3} mm, {deg:.4} deg, corner noise {:.3} px", 1e3 * m, median(noise));
    assert!(m < 1e-3 && deg < 0.1, "{m} m, {deg} deg");
}

/// A session in a folder of its own.
struct Session {
    folder: tempfile::TempDir,
}

impl Session {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenon-calibrate"));
        command.args(args).env("TENON_STATE", self.path("state")).current_dir(self.folder.path());
        command.output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Photographs of the bench by one camera as PNG files.
fn photographs(folder: &Path, T_april_camera: &Pose, count: u64, seed: u64) {
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, 0.0).unwrap();
    let mut photographer = SyntheticCamera::new(camera(), WIDTH, HEIGHT, CameraEffects::default(), seed).unwrap();
    let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
    std::fs::create_dir_all(folder).unwrap();
    for k in 0..count {
        photographer.shoot(&bench.scene, &bench.motions(T_april_camera, 0.0, 0.004), k, &mut image).unwrap();
        let picture = image::GrayImage::from_raw(WIDTH as u32, HEIGHT as u32, image.pixels().to_vec()).unwrap();
        picture.save(folder.join(format!("{k:04}.png"))).unwrap();
    }
}

#[test]
fn a_board_is_printed_and_a_camera_calibrated_and_exchanged() {
    let session = Session::new();
    let board = session.json(&["board", "--board", "april_grid", "--paper", "a3", "--out", "board.pdf", "--json"]);
    assert!(std::fs::read(session.path("board.pdf")).unwrap().starts_with(b"%PDF-"), "{board}");
    let output = session.run(&["board", "--board", "april_grid", "--out", "board.pdf"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("exists"), "{}", said(&output));

    // The description that was written with it is what pictures are read with.
    let text = std::fs::read_to_string(session.path("board.toml")).unwrap();
    let described = Board::parse(&text, "board.toml").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    std::fs::create_dir_all(session.path("views")).unwrap();
    let [width_m, height_m] = described.size_m();
    for k in 0..9 {
        // Tilted both ways, near and far, over the picture.
        let tilt = UnitQuaternion::from_euler_angles(rng.random_range(-0.6..0.6), rng.random_range(-0.6..0.6), 0.0);
        let away = rng.random_range(0.45..0.7);
        let middle = Vector3::new(rng.random_range(-0.08..0.08), rng.random_range(-0.05..0.05), away);
        let corner = middle - tilt * Vector3::new(width_m / 2.0, height_m / 2.0, 0.0);
        let T_camera_board = Pose::from_parts(Translation3::from(corner), tilt);
        let settings = RenderSettings { supersampling: 3, ..Default::default() };
        let image = render_board(&described, &camera(), &T_camera_board, WIDTH, HEIGHT, &settings).unwrap();
        let picture = image::GrayImage::from_raw(WIDTH as u32, HEIGHT as u32, image.pixels().to_vec()).unwrap();
        picture.save(session.path("views").join(format!("{k}.png"))).unwrap();
    }
    let from = [
        "--from-images",
        "front=views",
        "--serial",
        "front=111",
        "--board",
        "board.toml",
        "--rig",
        "bench",
        "--yes",
        "--json",
    ];
    let report = session.json(&[&["intrinsics"][..], &from].concat());
    assert_eq!(report["passed"], true, "{report}");
    let focal = report["parameters"][0]["value"].as_f64().unwrap();
    assert!((focal - 912.0).abs() < 3.0, "{report}");
    let shown = session.json(&["show", "--rig", "bench", "--json"]);
    assert_eq!(shown["calibration"]["camera"][0]["intrinsics"]["source"], "calibrated");

    // Out to ROS and OpenCV and in again under another serial number.
    for format in ["ros", "opencv"] {
        let file = format!("{format}.yaml");
        let output = session.run(&[
            "export-intrinsics",
            "--rig",
            "bench",
            "--serial",
            "111",
            "--format",
            format,
            "--out",
            &file,
        ]);
        assert!(output.status.success(), "{}", said(&output));
        let camera = format!("again_{format}:222{format}");
        let output = session.run(&["import-intrinsics", "--rig", "bench", "--camera", &camera, "--yes", &file]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let shown = session.json(&["show", "--rig", "bench", "--json"]);
    let cameras = shown["calibration"]["camera"].as_array().unwrap();
    assert_eq!(cameras.len(), 3);
    assert!(cameras.iter().all(|c| c["intrinsics"]["focal_px"][0].as_f64() == Some(focal)), "{shown}");
    assert_eq!(cameras[1]["intrinsics"]["source"], "imported");
    let contradicting =
        ["--from-images", "front:111=views", "--serial", "front=222", "--board", "board.toml", "--rig", "bench"];
    let output = session.run(&[&["intrinsics"][..], &contradicting].concat());
    assert!(output.status.code() == Some(2) && said(&output).contains("--serial says 222"), "{}", said(&output));
    // Pictures without a board.
    photographs(&session.path("bench"), &three_views()[0], 2, 1);
    let output =
        session.run(&["intrinsics", "--from-images", "front:111=bench", "--board", "board.toml", "--rig", "bench"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_rig_is_placed_checked_and_measured_from_pictures_alone() {
    let session = Session::new();
    let [front, left, _] = three_views();
    photographs(&session.path("front"), &front, 8, 1);
    photographs(&session.path("left"), &left, 8, 2);
    // A serial number beside its folder, the other in a flag of its own.
    let cameras = ["--from-images", "front=front", "--serial", "front=111", "--from-images", "left:222=left"];
    let with = |command: &[&'static str], more: &[&'static str]| [command, &cameras, more].concat();

    // Before anything: what is missing is said.
    for command in ["check", "place", "proof", "noise"] {
        let part: &[&str] = if command == "noise" { &["--part", "square_table_top"] } else { &[] };
        let output = session.run(&[&[command, "--rig", "bench", "--from-images", "front=front"], part].concat());
        let missing = said(&output).contains("add --serial front=SERIAL");
        assert!(output.status.code() == Some(2) && missing, "{command}: {}", said(&output));
    }
    let output = session.run(&with(&["check", "--rig", "bench"], &[]));
    assert!(output.status.code() == Some(2) && said(&output).contains("has no calibration yet"), "{}", said(&output));
    let output = session.run(&with(&["place", "--rig", "bench"], &["--yes"]));
    assert!(output.status.code() == Some(2) && said(&output).contains("--assume-focal-px"), "{}", said(&output));

    let report = session.json(&with(&["place", "--rig", "bench"], &["--assume-focal-px", "911", "--yes", "--json"]));
    assert_ne!(report["grade"], "fail", "{report}");
    for (index, truth) in [front, left].iter().enumerate() {
        let place = &report["cameras"][index]["place"];
        let position: Vec<f64> = serde_json::from_value(place["position_m"].clone()).unwrap();
        let away = (Vector3::from_column_slice(&position) - truth.translation.vector).norm();
        // 911 px and the picture's middle are not quite the camera's.
        assert!(away < 0.012, "{index}: {away} m");
    }
    // A second result is a second version.
    session.json(&with(&["place", "--rig", "bench"], &["--assume-focal-px", "911", "--yes", "--json"]));
    let shown = session.json(&["show", "--rig", "bench", "--json"]);
    assert_eq!(shown["versions"].as_array().unwrap().len(), 2);
    assert_eq!(shown["calibration"]["camera"][1]["serial"], "222");

    // In place; then the left camera is pushed by 8 mm.
    let found = session.json(&with(&["check", "--rig", "bench"], &["--json"]));
    assert_eq!(found["passed"], true, "{found}");
    let pushed = Pose::from_parts(Translation3::new(0.0, 0.008, 0.0), UnitQuaternion::identity()) * left;
    photographs(&session.path("left"), &pushed, 8, 3);
    let output = session.run(&with(&["check", "--rig", "bench"], &[]));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL left (222): 8.") || text.contains("FAIL left (222): 7."), "{text}");
    assert!(text.contains("ok   front (111)"), "{text}");

    // Forty photographs of parts that nobody touches.
    photographs(&session.path("front"), &front, 40, 4);
    photographs(&session.path("left"), &left, 40, 5);
    let parts = ["--part", "square_table_top", "--part", "square_table_leg1", "--yes", "--json"];
    let noise = session.json(&with(&["noise", "--rig", "bench"], &parts));
    for record in noise["parts"].as_array().unwrap() {
        let std: Vec<f64> = serde_json::from_value(record["position_std_m"].clone()).unwrap();
        assert!(std.iter().all(|s| (1e-6..2e-3).contains(s)), "{record}");
        assert!(record["samples"].as_u64().unwrap() >= 30, "{record}");
    }
    let output = session.run(&with(&["noise", "--rig", "bench"], &["--part", "table"]));
    assert!(
        output.status.code() == Some(2) && said(&output).contains("known are square_table_top"),
        "{}",
        said(&output)
    );
    let shown = session.json(&["show", "--rig", "bench", "--json"]);
    assert_eq!(shown["calibration"]["noise"].as_array().unwrap().len(), 2);
    assert_eq!(shown["versions"].as_array().unwrap().len(), 3);
}
