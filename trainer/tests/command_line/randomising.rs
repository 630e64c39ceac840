//! The noise at rest of a rig in a run: read once, kept with the run, and refused where it does not fit.

use std::path::Path;

use rand::Rng;
use tenon_core::config::rig::{NoiseRecord, RigCalibration};
use tenon_core::config::{TaskConfig, Values};
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::Limits;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dataset::{Dataset, write_normalization};

use crate::{FINETUNE, refuse, run, small_config, succeed, with, without_seconds};

const PRETRAIN: [&str; 7] = ["pretrain", "--config", "lamp.toml", "--data", "lamp", "--out", "OUT"];
const RIG_FILE: &str = "rigs/bench/current/calibration.toml";

fn pretrain<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    with(&with(&PRETRAIN[..6], &[out]), more)
}

/// The paper's pre-training of the lamp with networks of a test's size, and random demonstrations.
fn lamp(folder: &Path, randomisation: &str) {
    let mut text = include_str!("../../../configs/paper/lamp_low/diffusion_mlp.pretrain.toml").to_string();
    for (key, value) in [
        ("denoising_steps", "8"),
        ("time_dim", "8"),
        ("mlp_dims", "[16, 16, 16]"),
        ("cond_mlp_dims", "[16, 8]"),
        ("epochs", "6"),
        ("warmup_epochs", "1"),
        ("ema_start_epoch", "2"),
        ("batch_size", "16"),
    ] {
        let line = |line: &str| match line.split_once('=') {
            Some((found, _)) if found.trim() == key => format!("{key} = {value}"),
            _ => line.to_string(),
        };
        text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    }
    std::fs::write(folder.join("lamp.toml"), format!("{text}\n\n{randomisation}")).unwrap();

    let mut noise = SeededNoise::new(8, 0);
    let mut values = |n: usize| (0..n).map(|_| noise.rng().random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let frames = 60;
    let data = Dataset {
        states: values(44 * frames),
        actions: values(10 * frames),
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![20; 3],
        state_dim: 44,
        action_dim: 10,
        pictures: None,
    };
    std::fs::create_dir_all(folder.join("lamp")).unwrap();
    data.write(&folder.join("lamp/train.npz")).unwrap();
    let limits = [Limits::symmetric(1.0, 44), Limits::symmetric(1.0, 10)];
    write_normalization(&folder.join("lamp/normalization.npz"), &limits[0], &limits[1]).unwrap();
}

/// A rig's file, as `tenon-calibrate noise` leaves it.
fn rig(folder: &Path, parts: &[&str]) {
    let mut rig = RigCalibration::empty("bench", "0.1.0", "2026-01-31T12:34:56Z".into());
    let record = |part: &&str| NoiseRecord {
        part: (*part).to_owned(),
        samples: 300,
        duration_s: 10.0,
        mean: [0.0; 7],
        min: [0.0; 7],
        max: [0.0; 7],
        std: [0.0; 7],
        position_std_m: [4e-4, 5e-4, 1.25e-3],
        rotation_std_rad: [3e-3, 4e-3, 5e-3],
        date: "2026-01-31T12:34:56Z".into(),
    };
    rig.noise = parts.iter().map(record).collect();
    let file = folder.join(RIG_FILE);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, toml::to_string_pretty(&rig).unwrap()).unwrap();
}

fn last(folder: &Path, run: &str) -> Checkpoint {
    Checkpoint::read(&folder.join(run).join("last")).unwrap()
}

/// Goes back to an earlier checkpoint of a run.
fn go_back(folder: &Path, run: &str, to: u64) {
    let link = folder.join(run).join("last");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(format!("checkpoints/{to:06}.safetensors"), link).unwrap();
}

#[test]
fn a_run_keeps_the_numbers_that_it_was_begun_with() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let noise = format!("[randomisation]\nnoise = \"{RIG_FILE}\"\n");
    rig(folder, &["lamp_base", "lamp_hood"]);
    lamp(folder, "");
    let keep = ["--keep-every", "1", "--threads", "1"];
    succeed(folder, &pretrain("plain", &keep));
    lamp(folder, &noise);
    let output = run(folder, &pretrain("noisy", &keep));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("noise of lamp_base, lamp_hood from {RIG_FILE}")), "{said}");
    assert!(said.contains("exact: lamp_bulb, fixture_front_bar"), "{said}");

    // The run's own configuration has the table, and so has the checkpoint that a bundle is made from.
    let text = std::fs::read_to_string(folder.join("noisy/config.toml")).unwrap();
    let config = TaskConfig::parse("config.toml", &text, Values::Latest).unwrap();
    let randomisation = config.randomisation.unwrap();
    assert_eq!((randomisation.part.len(), &randomisation.noise), (2, &None));
    assert_eq!(randomisation.part[1].position_std_m, [4e-4, 5e-4, 1.25e-3]);
    let origin = randomisation.origin.unwrap();
    let sha256 = tenon_train::run_dir::sha256_of(&folder.join(RIG_FILE)).unwrap();
    assert_eq!((origin.noise.as_str(), origin.sha256.as_ref()), (RIG_FILE, Some(&sha256)));
    assert_eq!((origin.rig.as_deref(), origin.written.as_deref()), (Some("bench"), Some("2026-01-31T12:34:56Z")));
    let whole = last(folder, "noisy");
    assert_eq!(whole.header.run.config, text);
    assert_eq!(whole.header.run.provenance["noise_sha256"], sha256);
    assert!(!last(folder, "plain").header.run.provenance.contains_key("noise_sha256"));
    let records = without_seconds(&folder.join("noisy/metrics.jsonl"));
    assert_ne!(records, without_seconds(&folder.join("plain/metrics.jsonl")));

    // The rig moves on; the run does not.
    std::fs::remove_file(folder.join(RIG_FILE)).unwrap();
    go_back(folder, "noisy", 2);
    succeed(folder, &["resume", "noisy", "--threads", "2"]);
    assert!(last(folder, "noisy") == whole);
    assert_eq!(without_seconds(&folder.join("noisy/metrics.jsonl")), records);
    let error = refuse(folder, &pretrain("noisy", &[]));
    assert!(error.contains(RIG_FILE) && error.contains("No such file"), "{error}");
    rig(folder, &["lamp_base"]);
    let error = refuse(folder, &pretrain("noisy", &[]));
    assert!(error.contains("a run of other settings"), "{error}");
    rig(folder, &["lamp_base", "lamp_hood"]);
    succeed(folder, &pretrain("noisy", &[]));
}

#[test]
fn a_table_that_does_not_fit_is_refused_before_a_run_begins() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let noise = format!("[randomisation]\nnoise = \"{RIG_FILE}\"\n");
    lamp(folder, &noise);
    let refused = |parts: &[&str]| {
        let error = refuse(folder, &pretrain("out", &[]));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&[RIG_FILE, "randomisation.noise"]);
    rig(folder, &[]);
    refused(&[RIG_FILE, "rig `bench` has no [[noise]]", "tenon-calibrate noise"]);
    // Another furniture's part beside ours is no mistake, alone it is.
    rig(folder, &["square_table_top"]);
    refused(&[RIG_FILE, "no part `square_table_top`", "lamp_base, lamp_bulb, lamp_hood"]);
    std::fs::write(folder.join(RIG_FILE), "version = 1\nrigg = \"bench\"\n").unwrap();
    refused(&[RIG_FILE, "line 2", "`rigg`", "did you mean `rig`"]);
    assert!(!folder.join("out").exists());

    lamp(folder, "[randomisation]\nnoise = \"default\"\naction_std = 0.03\n");
    succeed(folder, &pretrain("out", &[]));
    let text = std::fs::read_to_string(folder.join("out/config.toml")).unwrap();
    let config = TaskConfig::parse("config.toml", &text, Values::Latest).unwrap();
    assert_eq!(config.randomisation.unwrap().part.len(), 3);
}

/// Avoid shows no parts; its fields have noise of their own.
#[test]
fn fine_tuning_with_noise_restarts_exactly_and_evaluates_as_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let task = small_config(folder);
    let text = std::fs::read_to_string(&task).unwrap();
    let noise = "[randomisation]\naction_std = 0.03\n[[randomisation.field]]\nname = \"tcp_position2\"\nstd = [0.02]\n";
    succeed(folder, &crate::DEMOS);
    succeed(folder, &crate::PRETRAIN);
    let finetune = |out: &'static str| with(&FINETUNE[..6], &[out, "--keep-every", "1", "--threads", "1"]);
    assert_eq!(run(folder, &finetune("plain")).status.code(), Some(3));
    std::fs::write(&task, format!("{text}\n{noise}")).unwrap();
    assert_eq!(run(folder, &finetune("noisy")).status.code(), Some(3));
    let records = without_seconds(&folder.join("noisy/metrics.jsonl"));
    assert_ne!(records, without_seconds(&folder.join("plain/metrics.jsonl")));
    let whole = last(folder, "noisy");
    for to in [1, 2] {
        go_back(folder, "noisy", to);
        std::fs::remove_file(folder.join("noisy/evaluation.json")).unwrap();
        let output = run(folder, &["resume", "noisy", "--threads", "2"]);
        assert_eq!(output.status.code(), Some(3), "from {to}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(last(folder, "noisy") == whole, "from {to}");
        assert_eq!(without_seconds(&folder.join("noisy/metrics.jsonl")), records, "from {to}");
    }

    let evaluate = || succeed(folder, &["evaluate", "--checkpoint", "plain/last", "--config", "task.toml", "--json"]);
    let off = evaluate();
    std::fs::write(&task, &text).unwrap();
    assert_eq!(evaluate(), off, "evaluations have no noise unless told so");
    std::fs::write(&task, format!("{text}\n{noise}").replace("action_std", "evaluation = true\naction_std")).unwrap();
    assert_ne!(evaluate(), off);
    let error = refuse(folder, &finetune("noisy"));
    assert!(error.contains("a run of other settings"), "{error}");
}
