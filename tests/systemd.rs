//! The units, as `make install-units` fills them in, judged by `systemd-analyze`. Stand-ins take the programs' place, so
//! nothing has to be built for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 2] = ["tenon-bridge.service", "tenon@.service"];
/// `systemd-analyze` rates from 0 (locked down) to 10; its own "OK" ends at 4.
const MAX_EXPOSURE: f64 = 2.5;

/// A prefix holding the units and a stand-in for each program they start.
fn installed_units() -> tempfile::TempDir {
    let prefix = tempfile::tempdir().unwrap();
    let bin = prefix.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["tenon", "tenon-bridge"] {
        symlink("/bin/true", bin.join(program)).unwrap();
    }
    let output = Command::new("make")
        .args(["--silent", "--no-print-directory", "install-units", "DESTDIR=", "CPUS=0"])
        .arg(format!("PREFIX={}", prefix.path().display()))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert!(output.status.success(), "make install-units: {}", String::from_utf8_lossy(&output.stderr));
    prefix
}

fn unit_path(prefix: &Path, unit: &str) -> PathBuf {
    prefix.join("lib/systemd/system").join(unit)
}

/// Runs `systemd-analyze`; returns whether it was content, and all it said.
fn systemd_analyze(arguments: &[&str], units: &[PathBuf]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).args(units).output().unwrap_or_else(|error| {
        panic!(
            "systemd-analyze does not start ({error}): 'scripts/setup.sh tests' installs it (Debian package systemd)"
        )
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn units_hold_no_unfilled_words() {
    let prefix = installed_units();
    for unit in UNITS {
        let text = fs::read_to_string(unit_path(prefix.path(), unit)).unwrap();
        let unfilled: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#') && line.matches('@').count() > 1).collect();
        assert!(unfilled.is_empty(), "{unit}: {unfilled:?}");
    }
}

#[test]
fn units_pass_systemd_analyze_verify() {
    let prefix = installed_units();
    let (content, said) = systemd_analyze(&["verify", "--man=no"], &UNITS.map(|unit| unit_path(prefix.path(), unit)));
    // An unknown key is only a warning to systemd, with exit status 0; units of the machine itself are not ours to judge.
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("tenon")).collect();
    assert!(content && complaints.is_empty(), "{said}");
}

#[test]
fn units_are_barely_exposed() {
    let prefix = installed_units();
    for unit in UNITS {
        let arguments = ["security", "--offline=yes", "--no-pager"];
        let (content, said) = systemd_analyze(&arguments, &[unit_path(prefix.path(), unit)]);
        assert!(content, "{unit}: {said}");
        // "→ Overall exposure level for tenon@i.service: 1.9 OK"
        let exposure: f64 = said
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for")?.1.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("{unit}: no exposure level in\n{said}"));
        println!("{unit}: exposure {exposure}");
        assert!(exposure <= MAX_EXPOSURE, "{unit}: exposure {exposure} is above {MAX_EXPOSURE}\n{said}");
    }
}

/// What the hardening must leave alone: the loop's real-time priority, the watchdog, a stop that has time to hold the arm.
#[test]
fn units_keep_what_the_control_loop_needs() {
    let prefix = installed_units();
    for (unit, watchdog) in UNITS.into_iter().zip(["WatchdogSec=2", "WatchdogSec=1"]) {
        let text = fs::read_to_string(unit_path(prefix.path(), unit)).unwrap();
        for line in [
            "Type=notify",
            "NotifyAccess=main",
            "RestrictRealtime=no",
            "KillSignal=SIGTERM",
            "TimeoutStopSec=5",
            watchdog,
        ] {
            assert!(text.lines().any(|found| found == line), "{unit}: {line} is missing");
        }
        let priority = text.lines().find_map(|line| line.strip_prefix("LimitRTPRIO=")?.parse().ok());
        let robot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/robot.toml");
        let wanted = fs::read_to_string(robot).unwrap().parse::<toml::Table>().unwrap()["control"]["realtime_priority"]
            .as_integer();
        assert!(priority >= wanted, "{unit}: LimitRTPRIO {priority:?} is below robot.toml's {wanted:?}");
    }
}

/// The link's keys lie in the state folder: the services' user reads them, and neither service can change them or make others.
#[test]
fn units_read_the_keys_of_the_link_and_nothing_more() {
    let prefix = installed_units();
    for unit in UNITS {
        let text = fs::read_to_string(unit_path(prefix.path(), unit)).unwrap();
        for line in [
            "User=tenon",
            "StateDirectoryMode=2770",
            "ReadOnlyPaths=-%S/tenon/secure",
            "InaccessiblePaths=-%S/tenon/secure/authority",
        ] {
            assert!(text.lines().any(|found| found == line), "{unit}: {line} is missing");
        }
    }
}

/// A boot or a crash brings the controller up again, and never armed: only `tenon run` arms by itself, so no unit may start that.
#[test]
fn both_units_come_back_and_neither_arms() {
    let prefix = installed_units();
    let [bridge, controller] = UNITS.map(|unit| fs::read_to_string(unit_path(prefix.path(), unit)).unwrap());
    for unit in [&bridge, &controller] {
        assert!(unit.lines().any(|line| line == "Restart=on-failure"));
        assert!(unit.contains("\n[Install]\nWantedBy=multi-user.target"));
    }
    let started = controller.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert!(started.contains("/tenon serve --robot panda "), "{started}");
}
