//! `tenon test faults` as a user runs it: the programs of a simulated robot die in the middle of a motion, and nothing worse comes of it.

use std::path::Path;
use std::process::Command;

use crate::programs::{program, stderr};

/// The program, where the project's configuration is.
fn tenon(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("tenon"));
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}

#[test]
fn twenty_faults_leave_an_arm_at_rest_a_named_cause_and_whole_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = tenon(&["test", "faults", "--runs", "20", "--seed", "1", "--json", "--out"])
        .arg(folder.path())
        .output()
        .expect("tenon starts");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!((runs.len(), report["violated"].as_u64()), (20, Some(0)));
    // It moves at speed when the fault comes, and something was computed again.
    let fast = runs.iter().filter(|run| run["speed_m_s"].as_f64().is_some_and(|speed| speed > 0.1)).count();
    assert!(fast >= 18, "{report}");
    let verified: u64 = runs.iter().filter_map(|run| run["verified_ticks"].as_u64()).sum();
    assert!(verified > 5000, "{verified}");
    assert!(std::fs::read_dir(folder.path()).expect("the folder").next().is_none(), "it leaves nothing behind");
}

#[test]
fn cameras_that_fail_hold_the_arm_and_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = tenon(&["test", "faults", "--only", "cameras-gone", "--only", "cameras-hang-shortly", "--runs", "2"])
        .args(["--json", "--out"])
        .arg(folder.path())
        .output()
        .expect("tenon starts");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let [gone, hang] = &report["runs"].as_array().expect("runs")[..] else { panic!("two runs: {report}") };
    let named = |run: &serde_json::Value| run["named"].as_str().unwrap_or_default().to_owned();
    let wanted = "the policy cannot observe + camera left: disconnected + camera right: disconnected";
    assert_eq!((gone["kind"].as_str(), named(gone).as_str()), (Some("cameras-gone"), wanted));
    assert_eq!((&gone["went_on"], &gone["rearmed"]), (&false.into(), &true.into()));
    let wanted = "camera left: no frame for + camera right: no frame for";
    assert_eq!((hang["kind"].as_str(), named(hang).as_str()), (Some("cameras-hang-shortly"), wanted));
    assert_eq!(hang["went_on"], true);
    for run in [gone, hang] {
        assert!(run["rest_s"].as_f64() <= run["bound_s"].as_f64() && run["rest_s"].is_number(), "{report}");
        assert!(run["verified_ticks"].as_u64().is_some_and(|ticks| ticks > 500), "{report}");
    }
}

#[test]
fn an_unknown_kind_is_refused_and_the_list_shows_all() {
    let tenon = |arguments: &[&str]| tenon(arguments).output().expect("tenon starts");
    let refused = tenon(&["test", "faults", "--only", "earthquake"]);
    assert!(!refused.status.success() && stderr(&refused).contains("--list"), "{}", stderr(&refused));
    let listed = tenon(&["test", "faults", "--list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for kind in [
        "service-killed",
        "link-half-open-down",
        "clock-back",
        "disk-full",
        "garbage",
        "network-down",
        "cameras-frozen",
    ] {
        assert!(text.contains(kind), "{kind}: {text}");
    }
}
