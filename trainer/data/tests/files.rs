//! Files that the original libraries wrote (data/make.py), whole and damaged.

use std::path::{Path, PathBuf};

use tenon_data::npz::Choice;
use tenon_data::{
    Array, Bounds, Data, DataError, Defect, Demonstrations, Format, Found, Kind, Notes, Output, Steps, default_states,
    detect, read, verify, write,
};

#[path = "files/damage.rs"]
mod damage;
#[path = "files/round_trip.rs"]
mod round_trip;

const LENGTHS: [usize; 3] = [5, 3, 4];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn found_as(path: &Path, format: Format, pictures: bool) -> Result<Found, DataError> {
    read(path, format, &mut Steps::new(pictures, &mut |_, _| true))
}

fn found(name: &str, format: Format) -> Found {
    let path = data(name);
    assert_eq!(detect(&path).unwrap(), format);
    found_as(&path, format, true).unwrap()
}

fn defects(name: &str, found: &Found) -> Vec<Defect> {
    verify(&data(name), found, Bounds::default())
}

/// The formula of make.py.
fn value(episode: usize, frame: usize, column: usize) -> f64 {
    episode as f64 + 0.25 * frame as f64 - 0.125 * column as f64
}

fn assert_formula(array: &Array, episode: usize, frames: usize, width: usize, scale: f64) {
    assert_eq!(array.shape(), [frames, width]);
    for t in 0..frames {
        for c in 0..width {
            let (a, b) = (array.value(t * width + c), scale * value(episode, t, c));
            assert!((a - b).abs() < 1e-6, "episode {episode}, frame {t}, value {c}: {a} and {b}");
        }
    }
}

#[test]
fn robomimic_is_read_with_every_filter_and_sorted_by_number() {
    let found = found("robomimic.hdf5", Format::Robomimic);
    assert_eq!(found.defects, []);
    let d = &found.demonstrations;
    assert_eq!((d.environment.as_deref(), d.rate_hz), (Some("Lift"), Some(20.0)));
    let names: Vec<&str> = d.episodes.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["demo_1", "demo_2", "demo_10"]);
    for (k, (episode, n)) in d.episodes.iter().zip(LENGTHS).enumerate() {
        assert_formula(&episode.fields["actions"], k, n, 7, 0.1);
        assert_formula(&episode.fields["states"], k, n, 9, 1.0);
        for (key, width) in [("robot0_eef_pos", 3), ("robot0_eef_quat", 4), ("robot0_gripper_qpos", 2), ("object", 5)] {
            assert_formula(&episode.fields[&format!("obs/{key}")], k, n, width, 1.0);
        }
        assert_formula(&episode.fields["next_obs/object"], k, n, 5, 1.0);
        let picture = &episode.fields["obs/agentview_image"];
        assert!(picture.is_picture() && picture.shape() == [n, 4, 4, 3]);
        assert!((0..picture.data().len()).all(|i| picture.value(i) == ((i + k) % 251) as f64));
        let flags: Vec<bool> = (0..n).map(|t| t % 2 == 0).collect();
        assert_eq!(episode.fields["flags"].data(), &Data::Bool(flags));
        assert_eq!(episode.success, Some(k != 1));
        assert_eq!(episode.attributes["model_file"].as_str().unwrap().len(), 500 + 17);
    }
    // What is recorded at another rate is no field, and no defect.
    assert!(d.left_out.iter().any(|l| l.field == "device" && l.reason.contains("rate of its own")), "{:?}", d.left_out);
    assert_eq!(d.attributes["mask"]["train"], serde_json::json!(["demo_1", "demo_10"]));
    // 3 to 9 are not there, which is all that is wrong.
    let defects = defects("robomimic.hdf5", &found);
    assert_eq!(defects.iter().map(|d| d.kind).collect::<Vec<_>>(), [Kind::Missing], "{defects:?}");
    assert!(default_states(&d.episodes[0]) == ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]);
}

#[test]
fn pictures_are_left_out_where_nobody_asks_and_that_is_said() {
    let found = found_as(&data("robomimic.hdf5"), Format::Robomimic, false).unwrap();
    assert!(!found.demonstrations.episodes[0].fields.contains_key("obs/agentview_image"));
    assert!(found.demonstrations.left_out.iter().any(|l| l.field == "obs/agentview_image"));
    let found = found_as(&data("furniture"), Format::Furniture, false).unwrap();
    assert_eq!(
        found.demonstrations.left_out.iter().map(|l| l.field.as_str()).collect::<Vec<_>>(),
        ["obs/color_image1"]
    );
    assert!(!found.demonstrations.episodes[0].fields.contains_key("obs/color_image1"));
}

#[test]
fn a_layout_of_hdf5_that_is_not_read_is_refused_by_name() {
    let path = data("robomimic_latest.hdf5");
    let said = match detect(&path).and_then(|f| found_as(&path, f, true)) {
        Err(e) => e.to_string(),
        Ok(found) => found.defects.iter().map(|d| d.to_string()).collect::<Vec<_>>().join("\n"),
    };
    assert!(said.contains("libver='latest'") && said.contains("h5repack"), "{said}");
}

#[test]
fn d4rl_is_cut_at_its_flags_and_what_does_not_end_is_left_out() {
    let found = found("d4rl.hdf5", Format::D4rl);
    assert_eq!(defects("d4rl.hdf5", &found), []);
    let d = &found.demonstrations;
    assert_eq!(d.episodes.len(), 3);
    for (k, (episode, n)) in d.episodes.iter().zip(LENGTHS).enumerate() {
        assert_formula(&episode.fields["obs/state"], k, n, 11, 1.0);
        assert_formula(&episode.fields["actions"], k, n, 3, 0.1);
        let last = |field: &str| episode.fields[field].value(n - 1) != 0.0;
        assert_eq!((last("terminated"), last("truncated")), (k != 1, k == 1));
    }
    assert!(d.left_out.iter().any(|l| l.reason.contains("last 2 frames")), "{:?}", d.left_out);
    assert!(d.left_out.iter().any(|l| l.field == "infos"), "{:?}", d.left_out);
}

fn check_zarr(found: &Found) {
    let d = &found.demonstrations;
    assert_eq!(found.defects, []);
    assert_eq!(d.episodes.iter().map(|e| e.frames()).collect::<Vec<_>>(), [100, 80, 120]);
    let expected = |i: usize, c: usize| f64::from((0.01 * (i / 3) as f64 - c as f64) as f32);
    let starts = [0, 100, 180];
    for (episode, start) in d.episodes.iter().zip(starts) {
        let names: Vec<&String> = episode.fields.keys().filter(|n| *n != "obs/img").collect();
        assert_eq!(names.len(), 15, "{names:?}");
        for name in names {
            let array = &episode.fields[name];
            for i in 0..array.data().len() {
                let (a, b) = (array.value(i), expected(start + i / 2, i % 2));
                assert!((a - b).abs() < 1e-6, "{name}, value {i}: {a} and {b}");
            }
        }
        assert_eq!(episode.fields["obs/img"].shape()[1..], [2, 2, 3]);
    }
    assert!(d.left_out.iter().any(|l| l.field == "filtered" && l.reason.contains("delta")), "{:?}", d.left_out);
}

#[test]
fn zarr_is_read_with_every_codec_from_an_archive_and_from_a_folder() {
    check_zarr(&found("store.zarr.zip", Format::Zarr));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut archive = tenon_data::archive::Archive::open(&data("store.zarr.zip")).unwrap();
    for name in archive.names() {
        let path = root.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, archive.entry(&name).unwrap().unwrap()).unwrap();
    }
    assert_eq!(detect(&root).unwrap(), Format::Zarr);
    check_zarr(&found_as(&root, Format::Zarr, true).unwrap());
    // Without a chunk: told, and so is one that is cut off.
    std::fs::remove_file(root.join("data/action/1.0")).unwrap();
    let raw = root.join("data/raw/0.0");
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::write(&raw, &bytes[..bytes.len() - 1]).unwrap();
    let found = found_as(&root, Format::Zarr, true).unwrap();
    let kinds: Vec<(Option<&str>, Kind)> = found.defects.iter().map(|d| (d.field.as_deref(), d.kind)).collect();
    assert_eq!(kinds, [(Some("action"), Kind::Count), (Some("raw"), Kind::Unreadable)], "{:?}", found.defects);
}

#[test]
fn an_episode_of_avoid_gives_observations_and_increments() {
    let found = found("avoid.pkl", Format::Avoid);
    assert_eq!(found.defects, []);
    let episode = &found.demonstrations.episodes[0];
    assert_eq!(episode.frames(), 5);
    let (state, actions) = (&episode.fields["obs/state"], &episode.fields["actions"]);
    for t in 0..5 {
        let xy = [value(0, t, 0) / 10.0, value(0, t, 1) / 10.0];
        for (c, expected) in [xy[0], xy[1], xy[0], xy[1]].into_iter().enumerate() {
            assert!((state.value(4 * t + c) - expected).abs() < 1e-12);
        }
        assert!((actions.value(2 * t) - 0.025).abs() < 1e-12 && (actions.value(2 * t + 1) - 0.025).abs() < 1e-12);
    }
    assert_eq!(episode.fields["obs/j_pos"].shape(), [5, 7]);
    assert!((episode.fields["time_s"].value(4) - 0.14).abs() < 1e-12);
}

#[test]
fn episodes_of_furniture_give_absolute_actions() {
    let found = found("furniture", Format::Furniture);
    assert_eq!(found.defects, []);
    let d = &found.demonstrations;
    assert_eq!((d.environment.as_deref(), d.episodes.len()), (Some("one_leg"), 2));
    assert_eq!(d.episodes.iter().map(|e| e.success).collect::<Vec<_>>(), [Some(true), Some(false)]);
    for (k, episode) in d.episodes.iter().enumerate() {
        let n = LENGTHS[k];
        assert_eq!(episode.frames(), n);
        let (actions, state) = (&episode.fields["actions"], &episode.fields["obs/robot_state"]);
        assert_eq!((actions.width(), state.width(), episode.fields["action/delta"].width()), (10, 16, 8));
        for t in 0..n {
            // A step of 0.1 m is limited to 0.025 m; the turns about z add up.
            assert!((actions.value(10 * t) - (value(k, t, 0) + 0.025)).abs() < 1e-6);
            let angle: f64 = 0.2 * t as f64 + 0.05;
            assert!((actions.value(10 * t + 3) - angle.cos()).abs() < 1e-6);
            assert!((actions.value(10 * t + 4) + angle.sin()).abs() < 1e-6);
            assert_eq!(actions.value(10 * t + 9), if t % 2 == 1 { 1.0 } else { -1.0 });
            assert!((state.value(16 * t + 15) - 0.065).abs() < 1e-6);
        }
        assert_eq!(default_states(episode), ["robot_state", "parts_poses"]);
        assert_eq!(episode.fields["rewards"].value(n - 1), 1.0);
    }
}

#[test]
fn a_pickle_that_would_execute_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil.pkl");
    // os.system("true")
    std::fs::write(&path, b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    let error = detect(&path).unwrap_err().to_string();
    assert!(
        error.contains("evil.pkl") && error.contains("os.system") && error.contains("nothing was executed"),
        "{error}"
    );
    let found = found_as(folder.path(), Format::Furniture, true).unwrap();
    assert_eq!(found.defects[0].kind, Kind::Unreadable);
}

#[test]
fn lerobot_is_read() {
    let found = found("lerobot", Format::Lerobot);
    assert_eq!(defects("lerobot", &found), []);
    let d = &found.demonstrations;
    assert_eq!(d.rate_hz, Some(10.0));
    for (k, (episode, n)) in d.episodes.iter().zip(LENGTHS).enumerate() {
        assert_formula(&episode.fields["obs/state"], k, n, 4, 1.0);
        assert_formula(&episode.fields["actions"], k, n, 2, 1.0);
        assert!((0..n).all(|t| episode.fields["rewards"].value(t) == t as f64));
        assert!((0..n).all(|t| (episode.fields["time_s"].value(t) - 0.1 * t as f64).abs() < 1e-6));
        assert_eq!(episode.success, Some(k != 1));
        assert_eq!(episode.attributes["task"], if k == 1 { "push" } else { "pull" });
    }
    assert_eq!(d.episodes.len(), 3);
}

#[test]
fn what_is_no_data_is_refused_with_what_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.hdf5");
    for (content, said) in [
        (&b""[..], "an empty file"),
        (b"hello, world", "begins with"),
        (b"\xfd7zXZ\0\0\0", "unxz"),
        (b"\x89HDF\r\n\x1a\n", "bytes are needed"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = detect(&path).unwrap_err().to_string();
        assert!(error.contains("x.hdf5") && error.contains(said), "{error}");
    }
    assert!(detect(folder.path()).unwrap_err().to_string().contains("meta/info.json"));
    assert!(detect(Path::new("/nowhere")).is_err());
}

fn output(format: Format, demonstrations: &Demonstrations, from: Format) -> Output {
    let states = demonstrations.episodes.first().map(default_states).unwrap_or_default();
    let choice = Choice { states, pictures: vec![], zero_range: from.zero_range(), skip_unrewarded: false };
    Output { format, choice, task: None }
}

fn written(path: &Path, demonstrations: Demonstrations, format: Format, from: Format) -> Notes {
    let output = output(format, &demonstrations, from);
    let mut notes = Notes::default();
    write(path, demonstrations, &output, &mut Steps::new(true, &mut |_, _| true), &mut notes).unwrap();
    notes
}
