//! `watch`: films of a policy, of random actions, and what is said where nothing can be drawn.

use std::io::BufReader;
use std::path::Path;

use crate::{command, json, refuse, run, small_config, succeed};

/// Frames of an animation, and the time of each, milliseconds.
fn frames(path: &Path) -> (u32, u16) {
    let file = BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let count = reader.info().animation_control().unwrap().num_frames;
    let mut frame = vec![0; reader.output_buffer_size().unwrap()];
    let mut moved = 0;
    for i in 0..count {
        reader.next_frame(&mut frame).unwrap();
        // Frames hold what changed, at least one pixel.
        let control = reader.info().frame_control().unwrap();
        moved += u32::from(i > 0 && control.width * control.height > 1);
    }
    assert!(moved > 0, "something moves");
    (count, reader.info().frame_control().unwrap().delay_num)
}

/// Whether this machine can draw; says so where not.
pub fn can_draw(folder: &Path) -> bool {
    let what = ["watch", "--task", "avoid_m1", "--random", "--episodes", "1"];
    let arguments = [&what[..], &["--size", "16x16", "--quality", "fast", "--no-mp4", "--out", "probe"]].concat();
    let output = run(folder, &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("libosmesa6") {
        eprintln!("skipped: {said}");
        return false;
    }
    assert!(output.status.success(), "{said}");
    true
}

#[test]
fn random_actions_are_filmed_at_the_tasks_pace_and_listed_on_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !can_draw(folder) {
        return;
    }
    let arguments = [
        "watch",
        "--task",
        "avoid_m1",
        "--random",
        "--episodes",
        "2",
        "--size",
        "64x48",
        "--out",
        "films",
        "--no-mp4",
        "--json",
    ];
    let report = json(&succeed(folder, &arguments));
    assert_eq!(report["task"], "avoid_m1");
    let episodes = report["episodes"].as_array().unwrap();
    assert_eq!(episodes.len(), 2);
    for episode in episodes {
        // The start and the state after each of the 100 control steps.
        assert_eq!(episode["frames"], 101);
        assert_eq!(episode["control_steps"], 100);
        let file = folder.join("films").join(episode["png"].as_str().unwrap());
        assert_eq!(frames(&file), (101, 35));
    }
    let page = std::fs::read_to_string(folder.join("films/index.html")).unwrap();
    assert!(page.contains("episode-000.png") && page.contains("episode-001.png"), "{page}");
    let files = std::fs::read_dir(folder.join("films")).unwrap().count();
    assert_eq!(files, 3, "nothing is left beside the films");
}

#[test]
fn a_film_shows_the_episodes_that_an_evaluation_judges() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !can_draw(folder) {
        return;
    }
    let config = small_config(folder);
    let config = config.to_str().unwrap();
    succeed(folder, &["demos", "avoid", "--config", config, "--out", "demos"]);
    succeed(folder, &["pretrain", "--config", config, "--data", "demos", "--out", "run"]);
    let judged = json(&succeed(folder, &["eval", "run", "--episodes", "2", "--json"]));
    let filmed = json(&succeed(
        folder,
        &["watch", "--checkpoint", "run", "--episodes", "2", "--size", "32x32", "--out", "films", "--json"],
    ));
    let sum: f64 = filmed["episodes"].as_array().unwrap().iter().map(|e| e["episode_return"].as_f64().unwrap()).sum();
    assert!((sum / 2.0 - judged["mean_return"].as_f64().unwrap()).abs() < 1e-12, "{filmed} {judged}");
    assert_eq!(filmed["seed"], 1000, "that of the configuration");
}

#[test]
fn an_encoder_that_is_there_gets_every_frame_and_one_that_fails_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !can_draw(folder) {
        return;
    }
    let stand_in = |name: &str, script: &str| {
        let path = folder.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    // Takes the frames as they come and writes them to the file that is named last.
    let whole = stand_in("whole", "#!/bin/sh\n[ \"$1\" = -version ] && exit 0\nfor last; do :; done\ncat >\"$last\"\n");
    let broken = stand_in(
        "broken",
        "#!/bin/sh\n[ \"$1\" = -version ] && exit 0\ncat >/dev/null\necho no such codec >&2\nexit 3\n",
    );
    let arguments = ["watch", "--task", "avoid_m1", "--random", "--episodes", "1", "--size", "32x16", "--out", "films"];
    let output = command(folder, &arguments).env("TENON_FFMPEG", whole).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let film = std::fs::metadata(folder.join("films/episode-000.mp4")).unwrap().len();
    assert_eq!(film, 101 * 32 * 16 * 3);
    assert!(std::fs::read_to_string(folder.join("films/index.html")).unwrap().contains("episode-000.mp4"));
    let output = command(folder, &arguments).env("TENON_FFMPEG", broken).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no such codec") && said.contains("--no-mp4"), "{said}");
}

#[test]
fn a_machine_without_opengl_is_told_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["watch", "--task", "avoid_m1", "--random", "--out", "films"])
        .env("TENON_EGL_LIBRARY", "libnowhere-egl.so")
        .env("TENON_OSMESA_LIBRARY", "libnowhere-osmesa.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in
        ["libnowhere-egl.so", "libnowhere-osmesa.so", "libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libosmesa6"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn bad_requests_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lamp = refuse(folder, &["watch", "--task", "lamp_low", "--random", "--out", "films"]);
    assert!(lamp.contains("lamp_low"), "{lamp}");
    let missing = refuse(folder, &["watch", "--checkpoint", "nowhere", "--out", "films"]);
    assert!(missing.contains("nowhere"), "{missing}");
    if can_draw(folder) {
        let camera = refuse(folder, &["watch", "--task", "hopper", "--random", "--camera", "side", "--out", "films"]);
        assert!(camera.contains("side") && camera.contains("track"), "{camera}");
    }
    for wrong in [
        &["watch", "--out", "films"][..],
        &["watch", "--task", "hopper", "--out", "films"],
        &["watch", "--random", "--out", "films"],
    ] {
        assert_eq!(run(folder, wrong).status.code(), Some(2), "{wrong:?}");
    }
}
