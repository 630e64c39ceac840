//! The command line, as a user meets it: whole small runs, resuming, bad input, Ctrl-C.

mod bundles;
mod data;
mod randomising;
mod restarting;
#[path = "../small_hopper/mod.rs"]
mod small_hopper;
mod watching;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A task that trains in seconds: small networks, few environments, few steps.
fn small_config(folder: &Path) -> PathBuf {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tasks/avoid_m1.toml");
    let mut text = std::fs::read_to_string(config).unwrap();
    for (key, value) in [
        ("network", r#"{ kind = "diffusion_mlp", time_dim = 8, mlp_dims = [32, 32, 32], activation = "relu" }"#),
        ("critic", r#"{ head = { dims = [16, 16, 16], activation = "mish" } }"#),
        ("per_mode", "1"),
        ("epochs", "6"),
        ("warmup_epochs", "1"),
        ("ema_start_epoch", "2"),
        ("environments", "4"),
        ("iterations", "3"),
        ("update_epochs", "2"),
        ("batch_size", "50"),
    ] {
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.split_once('=') {
                Some((found, _)) if found.trim() == key => format!("{key} = {value}"),
                _ => line.to_string(),
            })
            .collect();
        text = lines.join("\n");
    }
    let (head, tail) = text.split_once("[evaluate]").unwrap();
    let (_, deploy) = tail.split_once("[deploy]").unwrap();
    let text = format!("{head}[evaluate]\nseed = 1000\nepisodes = 4\n\n[deploy]{deploy}\n");
    let path = folder.join("task.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenon-train"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs and expects an error; returns what it said.
fn refuse(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Times and what is by the second differ from run to run; everything else must not.
fn without_seconds(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let mut value = json(line);
            value.as_object_mut().unwrap().retain(|key, _| !key.contains("second"));
            value
        })
        .collect()
}

const DEMOS: [&str; 6] = ["demos", "avoid", "--config", "task.toml", "--out", "demos"];
const PRETRAIN: [&str; 7] = ["pretrain", "--config", "task.toml", "--data", "demos", "--out", "pretrain"];
const FINETUNE: [&str; 7] = ["finetune", "--config", "task.toml", "--from", "pretrain", "--out", "finetune"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().chain(more).copied().collect()
}

#[test]
fn a_small_run_goes_through_all_steps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    let summary = json(&succeed(folder, &with(&DEMOS, &["--json"])));
    assert_eq!(summary["episodes"], 24);
    assert_eq!(summary["selected_episodes"], 2);
    let summary = json(&succeed(folder, &with(&PRETRAIN, &["--json", "--threads", "1"])));
    assert_eq!(summary["epochs"], 6);
    assert_eq!(without_seconds(&folder.join("pretrain/metrics.jsonl")).len(), 6);

    // The last weights of pre-training, which the reference judges, are others than their moving average.
    let task = std::fs::read_to_string(folder.join("task.toml")).unwrap();
    std::fs::write(folder.join("raw.toml"), task + "\n[compat]\nraw_weights_in_evaluation = true\n").unwrap();
    let judged = |task| succeed(folder, &["evaluate", "--checkpoint", "pretrain/last", "--config", task, "--json"]);
    assert_ne!(judged("task.toml"), judged("raw.toml"));

    // So small a policy misses the goal, and says so by its exit code; every file is there all the same.
    let output = run(folder, &with(&FINETUNE, &["--json"]));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let judgement = json(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!((&judgement["iterations"], &judgement["reached"]), (&3.into(), &false.into()));
    for (when, noise) in [("before", "evaluation_noise"), ("after", "training_noise")] {
        let evaluation = &judgement[when][noise];
        assert_eq!(evaluation["episodes"], 4);
        assert_eq!(evaluation["paths_xy_m"].as_array().unwrap().len(), 4);
    }
    let file = std::fs::read_to_string(folder.join("finetune/evaluation.json")).unwrap();
    assert_eq!(json(&file), judgement);

    let checkpoint = "finetune/checkpoint.safetensors";
    let report = json(&succeed(folder, &["export", "--checkpoint", checkpoint, "--out", "bundle", "--json"]));
    assert!(report["parity"]["within_1e5"].as_u64().unwrap() >= 990, "{report}");
    assert!(report["files"].as_object().unwrap().len() == 5, "two graphs of two networks and the manifest: {report}");
    let error = refuse(folder, &["export", "--checkpoint", checkpoint, "--out", "bundle"]);
    assert!(error.contains("--replace"), "{error}");
    succeed(folder, &["export", "--checkpoint", checkpoint, "--out", "bundle", "--replace"]);

    // The bundle drives the arm as the checkpoint does.
    let judged = |source: [&str; 2]| {
        let arguments = ["evaluate", "--config", "task.toml", "--episodes", "4", "--json"];
        json(&succeed(folder, &with(&arguments, &source)))
    };
    let (ours, exported) = (judged(["--checkpoint", checkpoint]), judged(["--bundle", "bundle"]));
    assert_eq!(ours["path_success"], exported["path_success"]);

    // The same policy in fewer steps, where the bundle says that it may be.
    succeed(folder, &["export", "--checkpoint", checkpoint, "--out", "quick", "--step-counts", "2,3"]);
    let fewer = ["evaluate", "--config", "task.toml", "--episodes", "4", "--bundle"];
    succeed(folder, &with(&fewer, &["quick", "--denoising-steps", "2"]));
    let error = refuse(folder, &with(&fewer, &["quick", "--denoising-steps", "4"]));
    assert!(error.contains("[2, 3, "), "{error}");
    let error = refuse(folder, &["export", "--checkpoint", checkpoint, "--out", "other", "--step-counts", "3,2"]);
    assert!(error.contains("ascending"), "{error}");

    // Finished runs are not repeated.
    let before = std::fs::metadata(folder.join(checkpoint)).unwrap().modified().unwrap();
    assert_eq!(run(folder, &FINETUNE).status.code(), Some(3));
    succeed(folder, &PRETRAIN);
    assert_eq!(std::fs::metadata(folder.join(checkpoint)).unwrap().modified().unwrap(), before);
}

#[test]
fn a_folder_of_another_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    succeed(folder, &DEMOS);
    succeed(folder, &PRETRAIN);
    let error = refuse(folder, &with(&PRETRAIN, &["--seed", "7"]));
    assert!(error.contains("other settings") && error.contains("--fresh"), "{error}");
    succeed(folder, &with(&PRETRAIN, &["--seed", "7", "--fresh"]));
}

#[test]
fn bad_input_is_answered_with_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = small_config(folder);
    let error = refuse(folder, &PRETRAIN);
    assert!(error.contains("train.npz") && error.contains("demos avoid"), "{error}");
    let error = refuse(folder, &["demos", "avoid", "--config", "no.toml", "--out", "demos"]);
    assert!(error.contains("no.toml"), "{error}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("weight_decay", "weigth_decay")).unwrap();
    let error = refuse(folder, &DEMOS);
    assert!(error.contains("task.toml:") && error.contains("`weight_decay`"), "{error}");
    std::fs::write(&path, &text).unwrap();
    let error = refuse(folder, &["export", "--checkpoint", "task.toml", "--out", "bundle"]);
    assert!(error.contains("task.toml") && !folder.join("bundle").exists(), "{error}");

    // A truncated checkpoint, and weights that are not numbers.
    succeed(folder, &DEMOS);
    succeed(folder, &PRETRAIN);
    let checkpoint = folder.join("pretrain/checkpoint.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let error = refuse(folder, &FINETUNE);
    assert!(error.contains("checkpoint.safetensors"), "{error}");
    let mut broken = bytes.clone();
    let end = broken.len();
    broken[end / 2..].fill(0xff);
    std::fs::write(&checkpoint, &broken).unwrap();
    refuse(folder, &["export", "--checkpoint", "pretrain/checkpoint.safetensors", "--out", "bundle"]);
    assert!(!folder.join("bundle").exists(), "a bundle that fails is not written");
}

/// Ctrl-C in the middle of demonstrations, pre-training and fine-tuning.
#[test]
fn an_interrupt_ends_every_step_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = small_config(folder);
    succeed(folder, &DEMOS);
    let text = std::fs::read_to_string(&path).unwrap();
    let long = text.replace("epochs = 6\n", "epochs = 100000\n").replace("iterations = 3\n", "iterations = 100000\n");
    for (step, arguments) in [
        ("demos", with(&DEMOS, &["--per-mode", "1000"])),
        ("pretrain", PRETRAIN.to_vec()),
        ("finetune", FINETUNE.to_vec()),
    ] {
        if step == "finetune" {
            std::fs::write(&path, &text).unwrap();
            succeed(folder, &with(&PRETRAIN, &["--fresh"]));
        }
        std::fs::write(&path, &long).unwrap();
        let mut child = command(folder, &arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(child.try_wait().unwrap().is_none(), "{step} ended by itself");
        let interrupted = Instant::now();
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert!(interrupted.elapsed() < Duration::from_secs(2), "{step}: {:?}", interrupted.elapsed());
        assert_eq!(status.code(), Some(130), "{step}");
        for entry in std::fs::read_dir(folder.join(step)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".tmp"), "{step} left {name}");
        }
    }
    tenon_train::checkpoint::Checkpoint::read(&folder.join("pretrain/checkpoint.safetensors")).unwrap();
}

/// A peer that needs a second of processor time and two on the clock for whatever it is asked to repeat once.
fn slow_peer(folder: &Path) {
    let script = r#"while read -r request; do
        case "$request" in
            *'"repetitions":0'*) echo '{"peer": "slow", "repetitions": []}' ;;
            *) echo '{"peer": "slow", "repetitions": [{"sampling": {"wall": 2.0, "cpu": 1.0}}]}' ;;
        esac
    done"#;
    std::fs::write(folder.join("peer.sh"), script).unwrap();
}

const SMALL_BENCH: [&str; 7] = ["bench", "--only", "sample_lift", "--environments", "2", "--repetitions", "3"];

#[test]
fn a_bench_compares_its_medians_with_the_peers() {
    let folder = tempfile::tempdir().unwrap();
    slow_peer(folder.path());
    let text = succeed(folder.path(), &with(&SMALL_BENCH, &["--json", "--peer", "sh", "peer.sh"]));
    let lines: Vec<serde_json::Value> = text.lines().map(json).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["bench"].as_str().unwrap()).collect();
    assert_eq!(names, ["trainer/sample_lift", "trainer/sample_lift/wall", "trainer/sample_lift/gflops"]);
    for (line, peer_p50) in lines.iter().zip([1e3, 2e3]) {
        assert_eq!((&line["n"], &line["peer"], &line["unit"]), (&3.into(), &"slow".into(), &"ms/call".into()));
        assert_eq!(line["peer_p50"], peer_p50);
        let ratio = peer_p50 / line["p50"].as_f64().unwrap();
        assert!((line["ratio"].as_f64().unwrap() / ratio - 1.0).abs() < 1e-12, "{line}");
        assert!(line["p50"].as_f64() <= line["p99"].as_f64() && line["p99"].as_f64() <= line["max"].as_f64(), "{line}");
    }
}

#[test]
fn a_bench_without_a_peer_compares_with_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeed(folder.path(), &with(&SMALL_BENCH, &["--json"]));
    for line in text.lines().map(json) {
        assert!(line["peer"].is_null() && line["peer_p50"].is_null() && line["ratio"].is_null(), "{line}");
    }
}

#[test]
fn a_peer_that_fails_is_named_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    for (script, said) in [
        (r#"read -r request; echo '{"error": "no torch here"}'"#, "no torch here"),
        ("exit 1", "has ended"),
        ("read -r request; echo nonsense", "nonsense"),
        (
            r#"read -r request; echo '{"peer": "x", "repetitions": [{"a": {"wall": -1.0, "cpu": 1.0}}]}'"#,
            "0 repetitions",
        ),
    ] {
        std::fs::write(folder.path().join("peer.sh"), script).unwrap();
        let told = refuse(folder.path(), &with(&SMALL_BENCH, &["--peer", "sh", "peer.sh"]));
        assert!(told.contains(said) && told.contains("sh"), "{script}: {told}");
    }
    let told = refuse(folder.path(), &with(&SMALL_BENCH, &["--peer", "no-such-program"]));
    assert!(told.contains("no-such-program"), "{told}");
}

/// A peer of `bench env` that needs a second for 1000 steps, whatever it is asked, and looks whether what it needs is there.
#[test]
fn environments_are_compared_with_their_physics_and_with_peers() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"while read -r request; do
        trace=$(echo "$request" | sed 's/.*"trace":"\([^"]*\)".*/\1/')
        [ -s "$trace/model.mjb" ] && [ -s "$trace/controls.f64" ] && [ -s "$trace/trace.json" ] || exit 1
        case "$request" in
            *rollout*) echo '{"name": "rollout", "steps": 1000, "wall": 2.0, "cpu": 1.0}' ;;
            *) echo '{"name": "python", "steps": 1000, "wall": 1.0, "cpu": 1.0}' ;;
        esac
    done"#;
    std::fs::write(folder.path().join("peer.sh"), script).unwrap();
    let arguments =
        ["bench", "env", "--task", "hopper", "--threads", "1", "--threads", "2", "--repetitions", "2", "--json"];
    let text = succeed(folder.path(), &with(&arguments, &["--peer", "sh", "peer.sh"]));
    let lines: Vec<serde_json::Value> = text.lines().map(json).collect();
    let told: Vec<[&str; 2]> =
        lines.iter().map(|line| ["bench", "peer"].map(|key| line[key].as_str().unwrap())).collect();
    let expected = [
        ["env/hopper/1", "physics alone"],
        ["env/hopper/1", "rollout"],
        ["env/hopper/1", "python"],
        ["env/hopper/2", "physics alone"],
        ["env/hopper/2", "rollout"],
        ["env/hopper/gain/2", "physics alone"],
        ["env/hopper/gain/2", "rollout"],
    ];
    assert_eq!(told, expected);
    // Its physics steps are four to a control step; its threads gain nothing.
    assert_eq!((&lines[1]["peer_p50"], &lines[2]["peer_p50"]), (&250.0.into(), &1000.0.into()));
    assert_eq!(lines[6]["peer_p50"], 1.0);
    assert!(lines.iter().all(|line| line["n"] == 2 && line["p50"].as_f64() > Some(0.0)), "{text}");
    let misspelt = run(folder.path(), &["bench", "env", "--task", "hoper"]);
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains("half_cheetah"));
}

/// The runs of a small training, as `list`, `plot`, `compare` and `eval` show them.
#[test]
fn runs_are_listed_plotted_compared_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    let error = refuse(folder, &["list"]);
    assert!(error.contains("runs: there is no such folder"), "{error}");
    assert!(succeed(folder, &["list", "."]).contains("no runs below"));
    succeed(folder, &DEMOS);
    let pretrain = |seed: &'static str, out: &'static str| {
        let arguments = ["pretrain", "--config", "task.toml", "--data", "demos", "--out", out, "--seed", seed];
        succeed(folder, &with(&arguments, &["--keep-last", "1", "--keep-every", "4"]));
    };
    pretrain("1", "runs/one");
    pretrain("2", "runs/deeper/two");

    // The folder of a run.
    let run_dir = folder.join("runs/one");
    let mut checkpoints: Vec<String> = std::fs::read_dir(run_dir.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    checkpoints.sort();
    assert_eq!(checkpoints, ["000004.safetensors", "000006.safetensors"]);
    assert_eq!(std::fs::read_link(run_dir.join("last")).unwrap(), Path::new("checkpoints/000006.safetensors"));
    assert_eq!(
        tenon_train::checkpoint::Checkpoint::read(&run_dir.join("last")).unwrap(),
        tenon_train::checkpoint::Checkpoint::read(&run_dir.join("checkpoint.safetensors")).unwrap()
    );
    let events = std::fs::read_dir(&run_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(events.filter(|name| name.starts_with("events.out.tfevents.")).count(), 1);
    let page = std::fs::read_to_string(run_dir.join("report.html")).unwrap();
    assert!(page.contains("pretrain of avoid_m1, seed 1") && page.contains("finished"), "{page}");

    let table = succeed(folder, &["list"]);
    assert!(table.contains("runs/deeper/two") && table.contains("epoch 6 of 6 (100 %)"), "{table}");
    let runs = json(&succeed(folder, &["list", "runs", "--json"]));
    assert_eq!(
        (&runs[1]["run"], &runs[1]["state"], &runs[1]["seed"]),
        (&"runs/one".into(), &"finished".into(), &1.into())
    );
    assert!(runs[1]["last"]["loss"].is_f64());

    assert!(succeed(folder, &["plot", "runs/one", "--metric", "loss"]).contains("epoch 6"));
    succeed(folder, &["plot", "runs/one", "--metric", "loss", "--out", "loss.svg"]);
    assert!(std::fs::read_to_string(folder.join("loss.svg")).unwrap().ends_with("</svg>\n"));
    let plotted = json(&succeed(folder, &["plot", "runs/one", "--json"]));
    assert_eq!(plotted["out"], "runs/one/report.html");
    assert_eq!(plotted["series"][0]["values"].as_array().unwrap().len(), 6);

    let arguments = ["compare", "runs/one", "runs/deeper/two", "--out", "both.html"];
    let text = succeed(folder, &arguments);
    assert!(text.contains("pretrain.seed") && text.contains("written to both.html"), "{text}");
    let comparison = json(&succeed(folder, &with(&arguments, &["--json"])));
    assert_eq!(comparison["differences"], serde_json::json!([{"key": "pretrain.seed", "values": ["1", "2"]}]));
    assert!(comparison["metrics"][0]["values"][1]["last_tenth"].is_f64());
    let page = std::fs::read_to_string(folder.join("both.html")).unwrap();
    assert!(page.contains("all, smoothed") && page.contains("runs/deeper/two"));
    let picture = ["compare", "runs/one", "runs/deeper/two", "--metric", "loss", "--out", "both.svg"];
    succeed(folder, &picture);
    let svg = std::fs::read_to_string(folder.join("both.svg")).unwrap();
    assert!(svg.contains("seed 1") && svg.contains("seed 2") && svg.ends_with("</svg>\n"), "{svg}");
    // Of the same task and seed: called by their folders.
    assert!(Command::new("cp").args(["-r", "runs/one", "runs/twin"]).current_dir(folder).status().unwrap().success());
    succeed(folder, &["compare", "runs/one", "runs/twin", "--metric", "loss", "--out", "twins.svg"]);
    let svg = std::fs::read_to_string(folder.join("twins.svg")).unwrap();
    assert!(svg.contains(">one<") && svg.contains(">twin<") && !svg.contains("seed 1"), "{svg}");
    for (metric, wanted) in [(&["--metric", "los"][..], "`los`"), (&[], "--metric")] {
        let error = refuse(folder, &with(&with(&picture[..3], metric), &["--out", "none.svg"]));
        assert!(error.contains(wanted) && !folder.join("none.svg").exists(), "{error}");
    }

    let judged = json(&succeed(folder, &["eval", "runs/one", "--episodes", "2", "--json"]));
    let arguments = ["evaluate", "--checkpoint", "runs/one/last", "--config", "task.toml", "--episodes", "2", "--json"];
    assert_eq!(judged, json(&succeed(folder, &arguments)));
    // The kernels of a card, on the processor.
    let emulated = json(&succeed(folder, &with(&arguments, &["--device", "emulated"])));
    assert_eq!(emulated["episodes"], judged["episodes"]);
    let error = refuse(folder, &with(&arguments, &["--device", "cuda:7"]));
    assert!(error.contains("device cuda:7: "), "{error}");
    assert_eq!(run(folder, &with(&arguments, &["--device", "gpu"])).status.code(), Some(2));
}

/// Two policies, trained for two iterations, so far from D4RL's returns that this has to be said.
#[test]
fn gym_policies_are_trained_and_share_the_recorded_steps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let gaussian = "method = \"gaussian\"\ntrunk = { kind = \"mlp\", dims = [16, 16, 16], activation = \"tanh\" }\n\
                    std = { kind = \"learned\", std = 0.3, min = 0.01, max = 0.6 }";
    let text = small_hopper::config_text(gaussian)
        .replace("horizon = 4", "horizon = 1")
        .replace("iterations = 8\n", "iterations = 2\nstop_at_return = 1e6\n")
        .replace("evaluate_every = 3", "evaluate_every = 0");
    std::fs::write(folder.join("gym.toml"), text + "\n[demos]\nseed = 5\nframes = 400\npolicies = 2\n").unwrap();
    let arguments = ["demos", "gym", "--config", "gym.toml", "--out", "demos", "--json"];
    let missed = run(folder, &arguments);
    assert_eq!(missed.status.code(), Some(3), "{}", String::from_utf8_lossy(&missed.stderr));
    assert!(!folder.join("demos/train.npz").exists(), "a policy that missed its return is not recorded");

    let record = |more: &[&'static str]| {
        let output = run(folder, &with(&with(&arguments, &["--any-return"]), more));
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        json(std::str::from_utf8(&output.stdout).unwrap())
    };
    let two = record(&[]);
    assert_eq!((&two["policies"], &two["seed"]), (&2.into(), &5.into()));
    let seeds = ["policy_1", "policy_2"].map(|name| {
        let config = std::fs::read_to_string(folder.join("demos").join(name).join("config.toml")).unwrap();
        config.lines().find(|line| line.starts_with("seed = 4")).unwrap().to_string()
    });
    assert_eq!(seeds, ["seed = 42", "seed = 43"]);
    let dataset = tenon_train::dataset::Dataset::open(&folder.join("demos/train.npz")).unwrap();
    let frames = dataset.lengths.iter().sum::<usize>();
    assert_eq!(
        (two["frames"].as_u64(), two["episodes"].as_u64()),
        (Some(frames as u64), Some(dataset.lengths.len() as u64))
    );
    // Whole episodes: no more than one beyond what was asked for.
    assert!(frames >= 400 && frames - dataset.lengths.last().unwrap() < 400, "{:?}", dataset.lengths);
    let again = record(&[]);
    assert_eq!(again["sha256"], two["sha256"], "the policies are there: the same recording");
    let one = record(&["--policies", "1"]);
    assert_eq!(one["policies"], 1);
    // The first policy's own steps come first, whoever shares them.
    let alone = tenon_train::dataset::Dataset::open(&folder.join("demos/train.npz")).unwrap();
    assert_eq!(alone.lengths[0], dataset.lengths[0]);
    assert_ne!(alone.lengths.last(), dataset.lengths.last());
    let error = refuse(folder, &with(&arguments, &["--policies", "0"]));
    assert!(error.contains("--policies 0"), "{error}");
}

#[test]
fn what_is_no_run_or_damaged_is_answered_with_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    succeed(folder, &DEMOS);
    succeed(folder, &PRETRAIN);
    for command in [&["plot"][..], &["eval"], &["compare", "pretrain"]] {
        let error = refuse(folder, &with(command, &["nowhere"]));
        assert!(error.contains("nowhere: there is no such folder"), "{error}");
        let error = refuse(folder, &with(command, &["demos"]));
        assert!(error.contains("demos: ") && error.contains("--out"), "{error}");
    }
    let error = refuse(folder, &["plot", "pretrain", "--metric", "los"]);
    assert!(error.contains("`los`") && error.contains("loss, gradient_norm"), "{error}");
    for out in ["all.svg", "all.png"] {
        let error = refuse(folder, &["plot", "pretrain", "--out", out]);
        assert!(error.contains(out) && !folder.join(out).exists(), "{error}");
    }

    let metrics = folder.join("pretrain/metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, text.replacen("\"loss\":", "\"loss\":x", 2)).unwrap();
    for command in [&["plot", "pretrain"][..], &["compare", "pretrain", "pretrain"], &["list", "."]] {
        let error = refuse(folder, command);
        assert!(error.contains("metrics.jsonl: line 1: "), "{error}");
    }
    std::fs::write(&metrics, text).unwrap();
    std::fs::write(folder.join("pretrain/training.json"), "{").unwrap();
    let error = refuse(folder, &["plot", "pretrain"]);
    assert!(error.contains("training.json") && error.contains("continue"), "{error}");
    // What the advice says helps.
    succeed(folder, &PRETRAIN);
    succeed(folder, &["plot", "pretrain"]);
}
