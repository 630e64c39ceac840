//! Runs that are killed, that find no room on the disk, or whose files are damaged.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tenon_train::checkpoint::Checkpoint;

use crate::small_hopper::{CHUNK_STEPS, DIFFUSION, ENVIRONMENTS, EVALUATE_EVERY, config_text, lose_observation};
use crate::{DEMOS, FINETUNE, PRETRAIN, command, refuse, run, small_config, succeed, with, without_seconds};

fn lines(metrics: &Path) -> usize {
    std::fs::read_to_string(metrics).unwrap_or_default().lines().count()
}

/// Starts a command and kills it without warning once `reached` and a little time has passed. Says whether it was still
/// running then.
fn kill_when(folder: &Path, arguments: &[&str], reached: impl Fn() -> bool, pause: Duration) -> bool {
    let mut child = command(folder, arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no progress");
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(pause);
    let running = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    child.wait().unwrap();
    running
}

/// The same once the metrics have so many lines.
fn kill_after(folder: &Path, arguments: &[&str], metrics: &Path, count: usize, pause: Duration) -> bool {
    kill_when(folder, arguments, || lines(metrics) >= count, pause)
}

fn checkpoint_of(folder: &Path, run: &str) -> Checkpoint {
    Checkpoint::read(&folder.join(run).join("checkpoint.safetensors")).unwrap()
}

/// Kills without warning at several points, resumes, and compares with runs that nobody disturbed.
#[test]
fn killed_runs_continue_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_config(folder);
    succeed(folder, &DEMOS);
    // Long enough that the points lie within it: epochs take milliseconds.
    let pretrain = |out: &'static str| with(&PRETRAIN[..6], &[out, "--epochs", "400", "--keep-every", "5"]);
    succeed(folder, &pretrain("pretrain"));
    let metrics = folder.join("killed_pretrain/metrics.jsonl");
    assert!(kill_after(folder, &pretrain("killed_pretrain"), &metrics, 7, Duration::ZERO), "too late to kill");
    for (lines, pause_us) in [(40, 137), (130, 900)] {
        // On a busy machine a later point may come too late; what is compared below holds either way.
        kill_after(folder, &["resume", "killed_pretrain"], &metrics, lines, Duration::from_micros(pause_us));
    }
    succeed(folder, &["resume", "killed_pretrain"]);
    assert_eq!(without_seconds(&metrics), without_seconds(&folder.join("pretrain/metrics.jsonl")));
    assert!(checkpoint_of(folder, "pretrain") == checkpoint_of(folder, "killed_pretrain"), "the weights differ");

    run(folder, &FINETUNE);
    let out = |name: &'static str| with(&FINETUNE[..6], &[name, "--threads", "1"]);
    let metrics = folder.join("killed/metrics.jsonl");
    // With the second line the first checkpoint is there.
    assert!(kill_after(folder, &out("killed"), &metrics, 2, Duration::ZERO), "too late to kill");
    kill_after(folder, &["resume", "killed", "--threads", "2"], &metrics, 3, Duration::ZERO);
    assert_eq!(run(folder, &["resume", "killed"]).status.code(), Some(3));
    assert_eq!(without_seconds(&metrics), without_seconds(&folder.join("finetune/metrics.jsonl")));
    assert!(checkpoint_of(folder, "finetune") == checkpoint_of(folder, "killed"), "the weights differ");

    let error = refuse(folder, &["resume", "no_such_run"]);
    assert!(error.contains("no_such_run"), "{error}");
    std::fs::rename(folder.join("pretrain"), folder.join("moved")).unwrap();
    let error = refuse(folder, &["resume", "killed"]);
    assert!(error.contains("pretrain") && error.contains("--source"), "{error}");
    assert_eq!(run(folder, &["resume", "killed", "--source", "moved"]).status.code(), Some(3));
}

/// Hopper from scratch with checkpoints of some 300 kB; `more` is added to `[finetune]`.
fn hopper_config(folder: &Path, iterations: usize, more: &str) {
    let text = config_text(DIFFUSION)
        .replace("mlp_dims = [32, 32, 32]", "mlp_dims = [64, 64, 64]")
        .replace("iterations = 8\n", &format!("iterations = {iterations}\n{more}"))
        // Judging takes long enough for a kill to find it.
        .replace("episodes = 5\n", "episodes = 150\n");
    std::fs::write(folder.join("hopper.toml"), text).unwrap();
}

const SCRATCH: [&str; 6] = ["finetune", "--config", "hopper.toml", "--scratch", "--out", "OUT"];

fn scratch<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    with(&with(&SCRATCH[..5], &[out]), more)
}

/// Same checkpoint and same records, but for times.
fn assert_same_run(folder: &Path, killed: &str, whole: &str) {
    let records = |run: &str| without_seconds(&folder.join(run).join("metrics.jsonl"));
    let (killed_records, whole_records) = (records(killed), records(whole));
    assert_eq!(killed_records.len(), whole_records.len());
    for (killed, whole) in killed_records.iter().zip(&whole_records) {
        assert_eq!(killed, whole);
    }
    assert!(checkpoint_of(folder, killed) == checkpoint_of(folder, whole), "the end of {killed} is another");
}

#[test]
fn hopper_runs_killed_at_any_moment_continue_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    hopper_config(folder, 60, "");
    succeed(folder, &scratch("whole", &["--threads", "1"]));
    assert_eq!(lines(&folder.join("whole/metrics.jsonl")), 60);

    // As soon as there is a checkpoint at all: the policy is being judged, no iteration has begun.
    let (last, metrics) = (folder.join("killed/last"), folder.join("killed/metrics.jsonl"));
    let arguments = scratch("killed", &["--threads", "2"]);
    assert!(kill_when(folder, &arguments, || last.exists(), Duration::ZERO), "too late to kill");
    assert_eq!(lines(&metrics), 0);
    assert_eq!(Checkpoint::read(&last).unwrap().counter("iteration").unwrap(), 0);
    // Around the end of the first iteration, between two and in the midst of evaluations and updates. On a busy machine a
    // moment may come too late; what is compared below holds either way.
    let mut killed = 0;
    for (threads, count, pause_us) in [("1", 1, 0), ("2", 4, 300), ("1", 9, 1100), ("2", 22, 2300), ("1", 41, 3700)] {
        let arguments = ["resume", "killed", "--threads", threads];
        killed += usize::from(kill_after(folder, &arguments, &metrics, count, Duration::from_micros(pause_us)));
    }
    assert!(killed >= 2, "only {killed} kills came in time");
    succeed(folder, &["resume", "killed"]);
    assert_same_run(folder, "killed", "whole");
    let episodes: u64 = without_seconds(&metrics).iter().filter_map(|record| record["episodes"].as_u64()).sum();
    assert!(episodes > (20 * ENVIRONMENTS * CHUNK_STEPS / 18) as u64, "{episodes}: many episodes end in such a run");
}

#[test]
fn a_finished_run_is_extended_to_the_run_that_was_longer_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    hopper_config(folder, 7, "actor_cycle_iterations = 20\n");
    succeed(folder, &scratch("short", &[]));
    succeed(folder, &scratch("long", &["--iterations", "10"]));
    let judgement = |run: &str| {
        let text = std::fs::read_to_string(folder.join(run).join("evaluation.json")).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    assert_ne!(judgement("short"), judgement("long"));
    succeed(folder, &scratch("short", &["--iterations", "10"]));
    assert_same_run(folder, "short", "long");
    assert_eq!(judgement("short"), judgement("long"));
    // It is a run like any other now, and a shorter one is none of its beginnings.
    succeed(folder, &["resume", "short"]);
    let error = refuse(folder, &scratch("short", &["--iterations", "9"]));
    assert!(error.contains("other settings"), "{error}");

    // Where the rates would have fallen more slowly, it would have been another run from the start.
    hopper_config(folder, 3, "");
    succeed(folder, &scratch("falling", &[]));
    let error = refuse(folder, &scratch("falling", &["--iterations", "5"]));
    assert!(error.contains("other settings"), "{error}");
}

/// Once training noise reaches the return, the policy is judged, which ends the run; a kill meanwhile changes nothing.
#[test]
fn a_run_killed_while_it_judges_ends_after_the_same_iteration() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    hopper_config(folder, 40, "stop_at_return = 1.0\n");
    succeed(folder, &scratch("whole", &[]));
    let whole = checkpoint_of(folder, "whole").counter("iteration").unwrap();
    // The first that judgements may follow; the one before evaluates only, the one before that is too early.
    assert_eq!(whole, 3);
    let metrics = folder.join("killed/metrics.jsonl");
    let last = folder.join("killed/checkpoints/000003.safetensors");
    assert!(kill_when(folder, &scratch("killed", &[]), || last.exists(), Duration::from_millis(2)), "too late to kill");
    assert_eq!(lines(&metrics), 3);
    assert!(!folder.join("killed/evaluation.json").exists());
    succeed(folder, &["resume", "killed"]);
    assert_same_run(folder, "killed", "whole");
    let judged = |run: &str| {
        let text = std::fs::read_to_string(folder.join(run).join("evaluation.json")).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    assert_eq!(judged("killed"), judged("whole"));
}

/// A run that was killed after some iterations, and the same to its end.
fn killed_and_whole(folder: &Path) -> PathBuf {
    hopper_config(folder, 40, "");
    succeed(folder, &scratch("whole", &[]));
    let metrics = folder.join("killed/metrics.jsonl");
    // Iterations are so short that another may be over before the kill.
    let arguments = scratch("killed", &["--keep-last", "50"]);
    assert!(kill_after(folder, &arguments, &metrics, 6, Duration::ZERO), "too late to kill");
    std::fs::canonicalize(folder.join("killed/last")).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_is_an_error_and_the_last_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let last = killed_and_whole(folder);
    let before = (std::fs::read(&last).unwrap(), names(&folder.join("killed/checkpoints")));
    // No file may grow as large as a checkpoint: as on a full disk, writing one fails half-way.
    let room = before.0.len() as u64 * 9 / 10;
    let largest = |run: &str| {
        let files = std::fs::read_dir(folder.join(run)).unwrap().map(|entry| entry.unwrap().path());
        let sizes = files.filter_map(|f| std::fs::symlink_metadata(&f).ok()).filter(|m| m.is_file()).map(|m| m.len());
        sizes.max().unwrap()
    };
    assert!(largest("whole") < room, "nothing but a checkpoint meets the limit");
    let mut resume = command(folder, &["resume", "killed"]);
    limit_files(&mut resume, room);
    let output = resume.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for part in ["killed/checkpoints/0000", "cannot be written", "File too large"] {
        assert!(error.contains(part), "{error}");
    }
    // The last good one is what `last` leads to, and nothing half-written lies beside it.
    assert_eq!(std::fs::canonicalize(folder.join("killed/last")).unwrap(), last);
    assert!((std::fs::read(&last).unwrap(), names(&folder.join("killed/checkpoints"))) == before);
    succeed(folder, &["resume", "killed"]);
    assert_same_run(folder, "killed", "whole");
}

/// Lets the command write no file beyond `bytes`; what does is told so, instead of being ended by the signal.
#[allow(unsafe_code)]
fn limit_files(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: between fork and exec only two system calls are made, both allowed there.
    unsafe {
        command.pre_exec(move || {
            if libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR
                || libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    hopper_config(folder, 4, "");
    // Whoever may write everywhere finds no folder below a file either.
    std::fs::write(folder.join("file"), "").unwrap();
    let error = refuse(folder, &scratch("file/run", &[]));
    assert!(error.contains("file/run: the folder cannot be made") && error.contains("--out"), "{error}");
    std::fs::create_dir(folder.join("run")).unwrap();
    std::fs::write(folder.join("run/checkpoints"), "").unwrap();
    let error = refuse(folder, &scratch("run", &[]));
    assert!(error.contains("run/checkpoints"), "{error}");
    std::fs::remove_file(folder.join("run/checkpoints")).unwrap();
    succeed(folder, &scratch("run", &[]));
}

#[test]
fn a_truncated_checkpoint_is_named_with_what_to_do_which_helps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let last = killed_and_whole(folder);
    let bytes = std::fs::read(&last).unwrap();
    for keep in [0, 5, 1000, bytes.len() - 1] {
        std::fs::write(&last, &bytes[..keep]).unwrap();
        for arguments in [vec!["resume", "killed"], scratch("killed", &[])] {
            let error = refuse(folder, &arguments);
            for part in ["killed/last", "not a whole safetensors file", "point the link `last` to an earlier file"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
    // The advice.
    let earlier = names(&folder.join("killed/checkpoints"));
    let earlier = Path::new("checkpoints").join(&earlier[earlier.len() - 3]);
    std::fs::remove_file(folder.join("killed/last")).unwrap();
    std::os::unix::fs::symlink(earlier, folder.join("killed/last")).unwrap();
    succeed(folder, &["resume", "killed"]);
    assert_same_run(folder, "killed", "whole");
}

#[test]
fn a_run_stops_at_what_is_not_finite_and_its_last_checkpoint_stands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    killed_and_whole(folder);
    // After it comes an iteration that trains and goes on with the episodes under way.
    let number = 2 * EVALUATE_EVERY - 1;
    let path = folder.join(format!("killed/checkpoints/{number:06}.safetensors"));
    let sound = Checkpoint::read(&path).unwrap();
    let mut damaged = sound.clone();
    lose_observation(&mut damaged, 1);
    damaged.write(&path).unwrap();
    let last = folder.join("killed/last");
    std::fs::remove_file(&last).unwrap();
    std::os::unix::fs::symlink(format!("checkpoints/{number:06}.safetensors"), &last).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = refuse(folder, &["resume", "killed"]);
    assert!(error.contains("the observation is not finite at chunk step 0, environment 1"), "{error}");
    assert_eq!(std::fs::canonicalize(&last).unwrap(), std::fs::canonicalize(&path).unwrap());
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(lines(&folder.join("killed/metrics.jsonl")) as u64, number);
    sound.write(&path).unwrap();
    succeed(folder, &["resume", "killed"]);
    assert_same_run(folder, "killed", "whole");
}
