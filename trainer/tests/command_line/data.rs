//! `tenon-train data`: looking, checking, mending and converting, and what pre-training makes of it.

use super::*;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dataset::read_normalization;

/// A file that another library wrote (trainer/data/tests/data/make.py).
fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tests/data").join(name);
    assert!(path.exists(), "{}", path.display());
    path.display().to_string()
}

#[test]
fn info_says_what_is_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let robomimic = file("robomimic.hdf5");
    let info = json(&succeed(folder.path(), &["data", "info", &robomimic, "--json"]));
    assert_eq!((&info["format"], &info["episodes"], &info["frames"]), (&"robomimic".into(), &3.into(), &12.into()));
    assert_eq!((&info["environment"], &info["rate_hz"]), (&"Lift".into(), &20.0.into()));
    assert_eq!(info["frames_per_episode"], serde_json::json!([3.0, 4.0, 5.0]));
    assert_eq!(info["succeeded"], serde_json::json!([2, 3]));
    let actions = info["fields"].as_array().unwrap().iter().find(|f| f["field"] == "actions").unwrap();
    assert_eq!((&actions["shape"], actions["max"].as_array().unwrap().len()), (&serde_json::json!([7]), 7));
    assert!((actions["max"][0].as_f64().unwrap() - 0.275).abs() < 1e-12, "{actions}");
    let text = succeed(folder.path(), &["data", "info", &robomimic]);
    assert!(text.contains("obs/robot0_eef_pos") && text.contains("not read: `obs/agentview_image`"), "{text}");
}

#[test]
fn what_was_converted_trains_with_the_limits_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let converted = json(&succeed(folder.path(), &["data", "convert", &file("lerobot"), "demos", "--json"]));
    assert_eq!((&converted["from"], &converted["to"]), (&"lerobot".into(), &"npz".into()));
    assert_eq!(converted["states"], serde_json::json!(["state"]));
    let config = small_config(folder.path());
    let config = config.to_str().unwrap();
    succeed(folder.path(), &["pretrain", "--config", config, "--data", "demos", "--out", "run", "--json"]);
    let limits = read_normalization(&folder.path().join("demos/normalization.npz")).unwrap();
    let checkpoint = Checkpoint::read(&folder.path().join("run/checkpoint.safetensors")).unwrap();
    let normalizer = &checkpoint.header.run.policy.normalizer;
    assert_eq!((&normalizer.observation, &normalizer.action), (&limits.0, &limits.1));
    // value(2, 3, 0) of make.py is the largest.
    assert_eq!((limits.0.max[0], limits.1.max[0]), (2.75, 2.75));
    // The same data again, as they are stored.
    let again = refuse(folder.path(), &["data", "convert", "demos", "demos", "--to", "npz"]);
    assert!(again.contains("is there already"), "{again}");
    assert!(succeed(folder.path(), &["data", "verify", "demos"]).contains("nothing is wrong"));
}

#[test]
fn bad_episodes_are_named_not_converted_and_left_out_by_repair() {
    let folder = tempfile::tempdir().unwrap();
    // Actions of demo_10 reach beyond a bound of 0.2, the others do not.
    let robomimic = file("robomimic.hdf5");
    let before = std::fs::read(&robomimic).unwrap();
    let output = run(folder.path(), &["data", "verify", &robomimic, "--action-limit", "0.2", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let verified = json(std::str::from_utf8(&output.stdout).unwrap());
    let defects = verified["defects"].as_array().unwrap();
    let beyond: Vec<_> = defects.iter().filter(|d| d["kind"] == "out_of_range").collect();
    assert_eq!(beyond.len(), 1, "{defects:?}");
    assert_eq!(
        (&beyond[0]["episode"], &beyond[0]["frame"], &beyond[0]["field"]),
        (&"demo_10".into(), &1.into(), &"actions".into())
    );

    let repair = ["data", "repair", &robomimic, "mended.hdf5", "--action-limit", "0.2", "--json"];
    let repaired = json(&succeed(folder.path(), &repair));
    assert_eq!((&repaired["episodes"], &repaired["changes"][0]["episode"]), (&2.into(), &"demo_10".into()));
    assert!(succeed(folder.path(), &["data", "verify", "mended.hdf5"]).contains("nothing is wrong"));
    let cut =
        ["data", "repair", &robomimic, "cut.hdf5", "--action-limit", "0.2", "--cut", "--min-frames", "1", "--json"];
    let cut = json(&succeed(folder.path(), &cut));
    assert_eq!((&cut["episodes"], &cut["changes"][0]["kept"]), (&3.into(), &1.into()));
    assert_eq!(std::fs::read(&robomimic).unwrap(), before, "the original is touched");

    // Cut off in the middle of its values, it is refused, and says what to do.
    std::fs::write(folder.path().join("short.hdf5"), &before[..before.len() - 1000]).unwrap();
    let error = refuse(folder.path(), &["data", "convert", "short.hdf5", "out"]);
    assert!(error.contains("short.hdf5") && error.contains("truncated"), "{error}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn pictures_of_npz_stay_where_it_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let convert = ["data", "convert", &file("robomimic.hdf5"), "demos", "--images", "agentview_image"];
    succeed(folder.path(), &convert);
    succeed(folder.path(), &["data", "repair", "demos", "again"]);
    let files = ["demos", "again"].map(|d| std::fs::read(folder.path().join(d).join("train.npz")).unwrap());
    assert!(files[0] == files[1], "the copy of whole data is the same, pictures included");
    let images = tenon_train::dataset::Dataset::open(&folder.path().join("again/train.npz")).unwrap().pictures.unwrap();
    assert_eq!((images.channels, images.px, images.bytes.len()), (3, 4, 12 * 48));
}

#[test]
fn an_episode_is_drawn_on_the_terminal_and_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let robomimic = file("robomimic.hdf5");
    let text = succeed(folder.path(), &["data", "view", &robomimic, "--field", "object", "--episode", "demo_2"]);
    assert!(text.contains("object[4]") && text.contains("frame 2"), "{text}");
    succeed(folder.path(), &["data", "view", &robomimic, "--out", "page.html"]);
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("demo_1") && page.matches("<svg").count() == 10, "{}", page.len());
    let error = refuse(folder.path(), &["data", "view", &robomimic, "--episode", "demo_3"]);
    assert!(error.contains("demo_3") && error.contains("demo_2"), "{error}");
}

#[test]
fn wrong_requests_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| refuse(folder.path(), &[&["data"], arguments].concat());
    assert!(refused(&["info", "nothing.hdf5"]).contains("nothing.hdf5"));
    let lift = file("robomimic.hdf5");
    assert!(refused(&["convert", &lift, "x.zarr"]).contains("--to npz"));
    assert!(refused(&["convert", &lift, "x", "--to", "zarr"]).contains("is read, not written"));
    assert!(refused(&["convert", &lift, "x", "--obs", "eef"]).contains("robot0_eef_pos"));
    assert!(refused(&["convert", &file("d4rl.hdf5"), "x", "--to", "lerobot"]).contains("--rate"));
    let inside = folder.path().join("set");
    std::fs::create_dir(&inside).unwrap();
    std::fs::copy(file("avoid.pkl"), inside.join("a.pkl")).unwrap();
    assert!(refused(&["convert", "set", "set/out"]).contains("never touched"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}
