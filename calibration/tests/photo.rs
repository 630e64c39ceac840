//! `tenon-calibrate photo` as a user runs it: the program, its output, its pictures and its exit codes.

use nalgebra::{Translation3, UnitQuaternion, Vector3};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tenon_vision::render::{PrintedTag, RenderSettings, render};
use tenon_vision::{Camera, Family, GreyImage, Pose, Rig};

fn program(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tenon-calibrate")).current_dir(folder).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let list: Vec<f64> = serde_json::from_value(value.clone()).unwrap();
    list.try_into().unwrap()
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    (Vector3::from(a) - Vector3::from(b)).norm()
}

fn save(image: &GreyImage, path: &Path) {
    let grey = image::GrayImage::from_raw(image.width() as u32, image.height() as u32, image.pixels().to_vec());
    grey.unwrap().save(path).unwrap();
}

/// Where the synthetic camera stands, and a table top 4 cm beside its nominal place.
fn scene() -> (Camera, Pose, Pose) {
    let camera = Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap();
    let rotation = UnitQuaternion::from_euler_angles(1.27, 0.01, -0.01);
    let T_april_camera = Pose::from_parts(Translation3::new(0.03, 0.79, -0.28), rotation);
    let upright = UnitQuaternion::from_euler_angles(-std::f64::consts::FRAC_PI_2, 0.0, -0.2);
    let T_april_top = Pose::from_parts(Translation3::new(0.04, 0.24, -0.015625), upright);
    (camera, T_april_camera, T_april_top)
}

/// The base board and the table top, rendered; `extra` is printed beside them as well.
fn rendered_scene(extra: Option<PrintedTag>) -> GreyImage {
    let (camera, T_april_camera, T_april_top) = scene();
    let rig = Rig::built_in().unwrap();
    let T_camera_april = T_april_camera.inverse();
    let top = rig.parts.iter().find(|part| part.name == "square_table_top").unwrap();
    let on_board = rig.base_tags.iter().map(|tag| (tag, T_camera_april));
    let on_top = top.tags.iter().map(|tag| (tag, T_camera_april * T_april_top));
    let mut tags: Vec<PrintedTag> = on_board
        .chain(on_top)
        .map(|(tag, T_camera_body)| PrintedTag {
            family: Family::Tag36h11,
            id: tag.id,
            size_m: tag.size_m,
            T_camera_tag: T_camera_body * tag.T_body_tag,
        })
        .collect();
    tags.extend(extra);
    render(&camera, 1280, 720, &tags, &RenderSettings::default()).unwrap()
}

#[test]
fn a_rendered_board_gives_camera_and_part_in_both_frames_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    save(&rendered_scene(None), &folder.path().join("scene.png"));
    let output = program(folder.path(), &["photo", "scene.png", "--json", "--frame-variant", "benchmark"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    let (_, T_april_camera, T_april_top) = scene();

    let camera = numbers(&report["board"]["camera_in_april"]["position_m"]);
    assert!(distance(camera, T_april_camera.translation.vector.into()) < 0.006, "{camera:?}");
    assert!(report["board"]["residual_rms_px"].as_f64().unwrap() < 0.3);
    assert_eq!(report["board"]["tags"].as_array().unwrap().len(), 4);

    let part = &report["parts"][0];
    assert_eq!(part["name"], "square_table_top");
    let in_april = numbers(&part["in_april"]["position_m"]);
    assert!(distance(in_april, T_april_top.translation.vector.into()) < 0.006, "{in_april:?}");
    // Benchmark variant: april y is robot x, april x robot y, z turned over, board 15 mm below the robot's base.
    let [x, y, z] = in_april;
    assert_eq!(report["frame_variant"], "benchmark");
    assert!(distance(numbers(&part["in_robot"]["position_m"]), [0.3015 + y, x, -0.015 - z]) < 1e-9);

    for tag in report["tags"].as_array().unwrap() {
        let hypotheses = tag["pose"]["hypotheses"].as_array().unwrap();
        assert_eq!(hypotheses.len(), 2);
        let errors = [0, 1].map(|i: usize| hypotheses[i]["reprojection_rms_px"].as_f64().unwrap());
        assert!(errors[0] <= errors[1]);
    }
    let picture = image::open(folder.path().join("scene_tags.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (1280, 720));
}

#[test]
fn text_names_frames_assumptions_and_both_hypotheses() {
    let folder = tempfile::tempdir().unwrap();
    save(&rendered_scene(None), &folder.path().join("scene.png"));
    let output = program(folder.path(), &["photo", "scene.png", "--no-picture"]);
    let text = stdout(&output);
    for wanted in [
        "ASSUMED: focal length 915 px",
        "pose A in camera",
        "pose B in camera",
        "robot base, variant training",
        "part square_table_top",
        "residual",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    let given = ["photo", "scene.png", "--no-picture", "--focal-px", "915,915", "--principal", "640,360"];
    let text = stdout(&program(folder.path(), &given));
    assert!(!text.contains("ASSUMED: focal") && !text.contains("ASSUMED: principal"), "{text}");
}

#[test]
fn pictures_are_never_overwritten_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    save(&rendered_scene(None), &folder.path().join("scene.png"));
    let first = folder.path().join("scene_tags.png");
    std::fs::write(&first, b"mine").unwrap();
    let output = program(folder.path(), &["photo", "scene.png"]);
    assert!(stdout(&output).contains("scene_tags_2.png"));
    assert_eq!(std::fs::read(&first).unwrap(), b"mine");
    assert!(folder.path().join("scene_tags_2.png").is_file());
    let output = program(folder.path(), &["photo", "scene.png", "--overwrite", "--zoom", "2"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(image::open(&first).unwrap().width(), 2560);
    let output = program(folder.path(), &["photo", "scene.png", "--out", "made/for/it"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(folder.path().join("made/for/it/scene_tags.png").is_file());
    // Nothing half-written is left lying about.
    let left = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".tenon-")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn an_id_seen_twice_refuses_the_board_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_, T_april_camera, _) = scene();
    let beside = Pose::translation(0.15, 0.1, 0.0);
    let extra =
        PrintedTag { family: Family::Tag36h11, id: 2, size_m: 0.048, T_camera_tag: T_april_camera.inverse() * beside };
    save(&rendered_scene(Some(extra)), &folder.path().join("twice.png"));
    let output = program(folder.path(), &["photo", "twice.png", "--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(report["board"]["camera_in_april"].is_null());
    assert!(report["board"]["error"].as_str().unwrap().contains("tag id 2 of the base board was seen 2 times"));
    let output = program(folder.path(), &["photo", "twice.png", "--no-picture", "--need-board"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("NO CAMERA POSE: tag id 2"), "{}", stdout(&output));
}

#[test]
fn a_picture_without_tags_says_what_was_tried_and_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    save(&GreyImage::filled(320, 240, 20), &folder.path().join("dark.png"));
    let output = program(folder.path(), &["photo", "dark.png"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("NO TAGS FOUND. Tried:") && text.contains("tag36h11"), "{text}");
    assert!(text.contains("What to change:") && text.contains("almost black"), "{text}");
    assert!(!folder.path().join("dark_tags.png").exists());

    // A mirrored picture is recognised as one.
    save(&rendered_scene(None).mirrored(), &folder.path().join("mirrored.png"));
    let output = program(folder.path(), &["photo", "mirrored.png", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let advice = json(&output)["no_tags"]["advice"].to_string();
    assert!(advice.contains("mirroring off"), "{advice}");
}

#[test]
fn bad_files_and_options_are_clear_errors_and_do_not_stop_the_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    save(&rendered_scene(None), &at("good.png"));
    let whole = std::fs::read(at("good.png")).unwrap();
    std::fs::write(at("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("text.png"), "this is no picture").unwrap();
    std::fs::write(at("empty.png"), "").unwrap();
    save(&GreyImage::filled(6, 6, 90), &at("tiny.png"));
    save(&GreyImage::filled(20_000, 40, 90), &at("huge.png"));
    for (name, wanted) in [
        ("missing.png", "No such file"),
        ("cut.png", "cut short"),
        ("text.png", "not a picture"),
        ("empty.png", "empty"),
        ("tiny.png", "6x6 px"),
        ("huge.png", "20000x40 px"),
        (".", "folder"),
    ] {
        let output = program(folder.path(), &["photo", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let message = stderr(&output);
        assert!(message.contains(name) && message.contains(wanted), "{name}: {message}");
    }
    let output = program(folder.path(), &["photo", "--no-picture", "--json", "cut.png", "good.png"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["error"].is_string() && lines[1]["board"]["camera_in_april"].is_object());

    for (args, wanted) in [
        (vec!["--focal-px", "1,2,3"], "--focal-px"),
        (vec!["--focal-px=-3"], "fx = -3"),
        (vec!["--focal-px", "nan"], "fx = NaN"),
        (vec!["--principal", "640"], "CX,CY"),
        (vec!["--distortion", "0.1,0.2"], "K1,K2,P1,P2,K3"),
        (vec!["--decimate", "0.5"], "quad_decimate"),
        (vec!["--threads", "0"], "threads"),
        (vec!["--tags", "no.toml"], "no.toml"),
        (vec!["--frame-variant", "mine"], "authors_hardware"),
    ] {
        let output = program(folder.path(), &[vec!["photo", "good.png"], args.clone()].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(wanted), "{args:?}: {}", stderr(&output));
    }
    // A folder that cannot be made is an error of its own.
    let output = program(folder.path(), &["photo", "good.png", "--out", "text.png/inside"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
}

fn photos() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/photos");
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    println!("skipped: {} is not here", folder.display());
    None
}

#[test]
fn photographs_of_the_rig_give_the_camera_and_the_table_top() {
    let Some(photos) = photos() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, wanted) in [
        ("rig_one_leg.png", [0.037, 0.790, -0.274]),
        ("rig_lamp.png", [0.007, 0.748, -0.259]),
        ("rig_round_table.png", [0.022, 0.750, -0.245]),
        ("rig_obstacle.png", [0.038, 0.775, -0.273]),
        ("rig_setup_front.png", [0.031, 0.776, -0.274]),
    ] {
        let path = photos.join(name);
        let output = program(folder.path(), &["photo", "--json", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report = json(&output);
        let camera = numbers(&report["board"]["camera_in_april"]["position_m"]);
        assert!(distance(camera, wanted) < 0.003, "{name}: {camera:?}");
        if name != "rig_one_leg.png" {
            continue;
        }
        let tag = report["tags"].as_array().unwrap().iter().find(|tag| tag["id"] == 6).unwrap();
        let best = &tag["pose"]["hypotheses"][0];
        let part = &report["parts"][0];
        assert_eq!((&part["name"], &part["furniture"][1]), (&"square_table_top".into(), &"one_leg".into()));
        assert_eq!(report["frame_variant"], "training");
        // The top lies on the table (nominal height -0.015625 m) near its nominal place, tag 6 on the edge facing us.
        let [x, y, z] = numbers(&part["in_april"]["position_m"]);
        assert!(x.abs() < 0.05 && (y - 0.24).abs() < 0.05 && (z + 0.015625).abs() < 0.006, "({x}, {y}, {z})");
        let [tag_x, tag_y, tag_z] = numbers(&best["in_april"]["position_m"]);
        assert!((tag_y - y - 0.08125).abs() < 0.003 && (tag_z - z).abs() < 0.006, "({tag_x}, {tag_y}, {tag_z})");
        let in_robot = numbers(&best["in_robot"]["position_m"]);
        assert!(distance(in_robot, [0.3015 + tag_y, tag_x, -tag_z]) < 1e-9, "{in_robot:?}");
    }
    for name in ["field_1.jpg", "field_2.jpg"] {
        let path = photos.join(name);
        let output = program(folder.path(), &["photo", "--json", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0));
        assert!(json(&output)["board"]["error"].as_str().unwrap().contains("tag id 0"));
    }
}
