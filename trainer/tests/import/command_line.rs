//! `tenon-train import` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

use crate::cases::cases;
use crate::{MISH, RELU, config_text, data, edited};

fn command(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tenon-train")).current_dir(folder).args(arguments).output().unwrap()
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refuse(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A folder with a configuration and copies of the files.
fn folder(network: &str, files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("task.toml"), config_text(network, "[16, 16, 16]")).unwrap();
    for file in files {
        std::fs::copy(data(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn imported_policy_is_finetuned_exported_and_judged() {
    let folder = folder(RELU, &["pretrained.pt", "limits_p2.pkl"]);
    let folder = folder.path();
    let arguments = [
        "import",
        "pretrained.pt",
        "--config",
        "task.toml",
        "--normalization",
        "limits_p2.pkl",
        "--out",
        "pretrain",
        "--json",
    ];
    let summary = json(&succeed(folder, &arguments));
    assert_eq!(
        (&summary["kind"], &summary["epoch"], &summary["weights"]),
        (&"pretrained".into(), &3000.into(), &"ema".into())
    );
    assert_eq!(summary["parts"][1], serde_json::json!({ "name": "ema", "tensors": 12, "parameters": 4376 }));
    assert_eq!(
        json(&std::fs::read_to_string(folder.join("pretrain/summary.json")).unwrap().replace('\n', "")),
        summary
    );
    let error = refuse(folder, &arguments);
    assert!(error.contains("--replace"), "{error}");

    let out = command(folder, &["finetune", "--config", "task.toml", "--from", "pretrain", "--out", "finetune"]);
    assert_eq!(out.status.code(), Some(3), "random weights miss the goal: {}", String::from_utf8_lossy(&out.stderr));
    let checkpoint = "pretrain/checkpoint.safetensors";
    let report = json(&succeed(folder, &["export", "--checkpoint", checkpoint, "--out", "bundle", "--json"]));
    assert!(report["parity"]["within_1e5"].as_u64().unwrap() >= 990, "{report}");
    succeed(folder, &["evaluate", "--config", "task.toml", "--episodes", "4", "--checkpoint", checkpoint]);
}

#[test]
fn bounds_of_a_deviation_that_are_not_the_configurations_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = &cases(&data("architectures.toml"))["gaussian_mlp_learned_std"];
    std::fs::write(folder.join("task.toml"), toml::to_string(config).unwrap()).unwrap();
    let file = data("architectures/gaussian_mlp_learned_std.pt");
    let arguments = ["import", file.to_str().unwrap(), "--config", "task.toml", "--no-normalization", "--out", "out"];
    let text = succeed(folder, &arguments);
    assert!(
        text.contains("deviations of 0.01 to 1, as the file has them; the configuration says 0.01 to 0.2"),
        "{text}"
    );
    let summary = json(&succeed(folder, &[&arguments[..], &["--replace", "--json"]].concat()));
    let bounds = serde_json::json!({ "file": [0.01, 1.0], "configuration": [0.01, 0.2] });
    assert_eq!((&summary["kind"], &summary["std_bounds"]), (&"finetuned".into(), &bounds));
}

#[test]
fn contents_are_listed_without_a_configuration() {
    let folder = folder(MISH, &["finetuned.pt", "limits_p5.pkl"]);
    let listing = json(&succeed(folder.path(), &["import", "finetuned.pt", "--list", "--json"]));
    assert_eq!((&listing["kind"], &listing["iteration"]), (&"finetuned".into(), &51.into()));
    assert_eq!(listing["numbers"], serde_json::json!({ "itr": 51 }));
    let last = listing["tensors"].as_array().unwrap().last().unwrap();
    assert_eq!(*last, serde_json::json!({ "name": "model.eta.eta_logit", "type": "float32", "shape": [1] }));
    let text = succeed(folder.path(), &["import", "limits_p5.pkl", "--dry-run"]);
    assert!(text.contains("action_max  float32   [2]") && text.contains("count = 7"), "{text}");
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 3, "nothing was written");
}

#[test]
fn files_that_are_not_taken_are_answered_with_what_and_where() {
    let folder = folder(RELU, &["pretrained.pt", "hostile.pt", "hostile.pkl", "legacy.pt", "limits_p4.pkl"]);
    let folder = folder.path();
    let run = |file, normalization, weights: &[&'static str]| {
        let arguments = ["import", file, "--config", "task.toml", "--out", "out", "--normalization", normalization];
        refuse(folder, &[&arguments[..], weights].concat())
    };
    let error = run("hostile.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("hostile.pt: pickle, byte 32: global posix.system"), "{error}");
    let error = run("pretrained.pt", "hostile.pkl", &[]);
    assert!(error.contains("hostile.pkl: pickle, byte 40: global posix.system"), "{error}");
    assert!(!folder.join("pickle_was_executed").exists());
    let error = run("legacy.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("before version 1.6") && error.contains("torch.save("), "{error}");
    let error = run("missing.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("missing.pt"), "{error}");
    let error = run("task.toml", "limits_p4.pkl", &[]);
    assert!(error.contains("task.toml: this is neither"), "{error}");

    // Larger than any checkpoint, and not a byte of it on the disk.
    std::fs::File::create(folder.join("huge.pt")).unwrap().set_len(3 << 30).unwrap();
    let error = run("huge.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("huge.pt: has more than"), "{error}");
    let whole = std::fs::read(folder.join("pretrained.pt")).unwrap();
    std::fs::write(folder.join("short.pt"), &whole[..whole.len() / 2]).unwrap();
    let error = run("short.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("short.pt: not a zip archive: no end record"), "{error}");
    let error = run("pretrained.pt", "pretrained.pt", &["--raw"]);
    assert!(error.contains("pretrained.pt: holds no limits"), "{error}");
    let error = refuse(folder, &["import", "pretrained.pt", "--config", "task.toml", "--out", "out"]);
    assert!(error.contains("--normalization") && error.contains("--no-normalization"), "{error}");
    assert!(!folder.join("out").exists(), "nothing is written before everything fits");

    // Weights that are no numbers.
    let nan = edited(&whole, "data/12", |content| content[40..44].copy_from_slice(&f32::NAN.to_le_bytes()));
    std::fs::write(folder.join("nan.pt"), nan).unwrap();
    let error = run("nan.pt", "limits_p4.pkl", &[]);
    assert!(error.contains("ema.network.time_embedding.1.weight: value 10 is NaN"), "{error}");
}
