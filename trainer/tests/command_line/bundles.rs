//! Bundles: what `bundle` shows, which pictures a policy is shown, and films of a bundle in fewer denoising steps.

use std::path::Path;

use tenon_core::normalizer::Limits;
use tenon_core::task::TaskName;
use tenon_train::dataset::{Dataset, Pictures, write_normalization};

use crate::{command, json, refuse, run, small_config, succeed, watching};

const CONFIG: &str = "lift_pixels.toml";
const TASK: TaskName = TaskName::LiftPixels;
const FRAMES: usize = 12;

/// The paper's policy for Lift from pixels with networks that train in a second, and an episode to train on.
fn small_policy_that_sees(folder: &Path) {
    let file = format!("{}/../configs/paper/lift_pixels/vit_mlp.pretrain.toml", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(file).unwrap();
    for (from, to) in [
        ("mlp_dims = [512, 512, 512]", "mlp_dims = [16, 16, 16]"),
        ("embed_dim = 128", "embed_dim = 8"),
        ("heads = 4", "heads = 2"),
        ("dim = 128 }", "dim = 8 }"),
        ("epochs = 2000", "epochs = 2"),
        ("batch_size = 256", "batch_size = 8"),
        ("warmup_epochs = 100", "warmup_epochs = 1"),
        ("ema_start_epoch = 20", "ema_start_epoch = 1"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let (text, _) = text.split_once("\n[paper").unwrap();
    std::fs::write(folder.join(CONFIG), text).unwrap();
    let [state_dim, action_dim] = [TASK.observation_dim(), TASK.action_dim()];
    let numbers = |len: usize| (0..len).map(|i| (i as f32).sin()).collect();
    let data = Dataset {
        states: numbers(FRAMES * state_dim),
        actions: numbers(FRAMES * action_dim),
        rewards: vec![0.0; FRAMES],
        terminals: vec![false; FRAMES],
        lengths: vec![FRAMES],
        state_dim,
        action_dim,
        pictures: Some(Pictures {
            channels: 3,
            px: 96,
            bytes: (0..FRAMES * 3 * 96 * 96).map(|i| (i * 7 % 251) as u8).collect(),
        }),
    };
    std::fs::create_dir(folder.join("demos")).unwrap();
    data.write(&folder.join("demos/train.npz")).unwrap();
    let limits = [Limits::symmetric(0.75, state_dim), Limits::symmetric(0.5, action_dim)];
    write_normalization(&folder.join("demos/normalization.npz"), &limits[0], &limits[1]).unwrap();
}

/// What a command says where the scenes of Robomimic are not found: which pictures it would have shown, then that.
fn said_before_the_simulation(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments).env("TENON_ROBOMIMIC", "/nowhere").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("make assets-robomimic"), "{arguments:?}: {said}");
    said
}

#[test]
fn the_quality_of_pictures_travels_with_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_policy_that_sees(folder);
    let pretrain = ["pretrain", "--config", CONFIG, "--data", "demos", "--out", "run", "--pictures", "fast"];
    succeed(folder, &pretrain);
    succeed(folder, &["export", "--checkpoint", "run/checkpoint.safetensors", "--out", "seeing"]);

    let manifest = json(&succeed(folder, &["bundle", "seeing", "--json"]));
    assert_eq!(manifest["spec"]["pictures"], json(r#"{"quality": "fast", "cameras": ["robot0_eye_in_hand"]}"#));
    let text = succeed(folder, &["bundle", "seeing"]);
    assert!(text.contains("96×96 pixels of robot0_eye_in_hand, fast"), "{text}");
    assert_eq!(text.matches("[-0.75, 0.75]").count(), TASK.observation_dim(), "{text}");
    assert_eq!(text.matches("[-0.5, 0.5]").count(), TASK.action_dim(), "{text}");

    let evaluate = |more: &[&str]| {
        let arguments = ["evaluate", "--bundle", "seeing", "--config", CONFIG, "--episodes", "1"];
        said_before_the_simulation(folder, &[&arguments[..], more].concat())
    };
    let watch = |more: &[&str]| {
        let arguments = ["watch", "--bundle", "seeing", "--out", "films", "--size", "16x16"];
        said_before_the_simulation(folder, &[&arguments[..], more].concat())
    };
    for said in [evaluate(&[]), watch(&[]), evaluate(&["--pictures", "fast"])] {
        assert!(said.contains("pictures: fast, as seeing saw them in training"), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
    for said in [evaluate(&["--pictures", "exact"]), watch(&["--pictures", "exact"])] {
        assert!(said.contains("warning: seeing saw fast pictures in training and is shown exact ones"), "{said}");
    }

    // A bundle of an earlier release says nothing: taken for exact.
    let path = folder.join("seeing/policy.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut old = manifest;
    old["spec"].as_object_mut().unwrap().remove("pictures");
    std::fs::write(&path, old.to_string()).unwrap();
    let said = evaluate(&[]);
    assert!(said.contains("pictures: exact; seeing does not record"), "{said}");
    assert!(succeed(folder, &["bundle", "seeing"]).contains("is not recorded: taken for exact"));

    std::fs::write(&path, text.replace("\"fast\"", "\"medium\"")).unwrap();
    let error = refuse(folder, &["bundle", "seeing"]);
    assert!(error.contains("policy.json") && error.contains("medium") && error.contains("`exact`"), "{error}");
}

#[test]
fn a_bundle_is_filmed_as_it_is_judged_in_fewer_steps_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    succeed(folder, &["demos", "avoid", "--config", "task.toml", "--out", "demos"]);
    succeed(folder, &["pretrain", "--config", "task.toml", "--data", "demos", "--out", "run"]);
    let export = ["export", "--checkpoint", "run/checkpoint.safetensors", "--out", "quick", "--step-counts", "2"];
    succeed(folder, &export);
    let text = succeed(folder, &["bundle", "quick"]);
    for part in ["avoid_m1", "pictures     none", "commanded x, y, m: [", "increment x, y, m: [", "in 2 steps", "seed "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let pictures = ["evaluate", "--bundle", "quick", "--config", "task.toml", "--pictures", "fast"];
    let error = refuse(folder, &pictures);
    assert!(error.contains("avoid_m1 see no pictures"), "{error}");
    let film =
        ["watch", "--bundle", "quick", "--episodes", "2", "--size", "32x32", "--no-mp4", "--json", "--out", "films"];
    let error = refuse(folder, &[&film[..], &["--denoising-steps", "4"]].concat());
    assert!(error.contains("--denoising-steps 4") && error.contains("[2, "), "{error}");
    let alone = run(folder, &["watch", "--checkpoint", "run", "--denoising-steps", "2", "--out", "films"]);
    assert_eq!(alone.status.code(), Some(2), "only a bundle says in how many steps");
    if !watching::can_draw(folder) {
        return;
    }
    let mean_return = |more: &[&str]| {
        let report = json(&succeed(folder, &[&film[..], more].concat()));
        let episodes = report["episodes"].as_array().unwrap();
        episodes.iter().map(|e| e["episode_return"].as_f64().unwrap()).sum::<f64>() / 2.0
    };
    let judged = |more: &[&str]| {
        let arguments = ["evaluate", "--bundle", "quick", "--config", "task.toml", "--episodes", "2", "--json"];
        json(&succeed(folder, &[&arguments[..], more].concat()))["mean_return"].as_f64().unwrap()
    };
    let fewer = ["--denoising-steps", "2"];
    assert!((mean_return(&[]) - judged(&[])).abs() < 1e-12);
    assert!((mean_return(&fewer) - judged(&fewer)).abs() < 1e-12);
    assert_ne!(judged(&[]), judged(&fewer));
}
