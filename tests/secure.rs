//! `tenon secure` and what stands on it: its folder, rotation between real peers, and the programs' refusal to go
//! without.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenon_bridge::monotonic_time;
use tenon_calibrate::steps::Grade;
use tenon_controller::secure::{Options, Report, secure};
use tenon_core::config::{LinkConfig, LinkTlsConfig};
use tenon_core::message::{GripperPhase, JointTarget, RobotState};
use tenon_core::time::{MonotonicTime, RobotTime};
use tenon_link::security::unix_now;
use tenon_link::{Endpoint, LinkError, RobotKeys, RobotLink, Role, ZenohLink, open_bridge_link};

use crate::programs::{Rig, free_port, program};

const DAY_S: f64 = 86_400.0;

fn asked(folder: &Path) -> Options {
    Options::new(folder, &[], 365.0)
}

fn made(folder: &Path) -> Report {
    secure(&Options { names: vec!["127.0.0.1".into()], ..asked(folder) }, unix_now()).expect("a fresh folder")
}

fn checked(folder: &Path, now_s: f64) -> Report {
    secure(&Options { check: true, ..asked(folder) }, now_s).expect("checking refuses nothing")
}

fn said(report: &Report) -> String {
    report.checked.findings.iter().map(|line| format!("{}: {}\n", line.about, line.finding.text)).collect()
}

/// Every file below a folder, by its path in there.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let bytes = fs::read(&path).expect("a file");
                    found.push((path.strip_prefix(folder).expect("below").to_owned(), bytes));
                }
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for role in Role::ALL {
        let (from, to) = (from.join(role.name()), to.join(role.name()));
        fs::create_dir_all(&to).expect("writable");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            // Copies the mode as well.
            fs::copy(from.join(name), to.join(name)).expect("made before");
        }
    }
}

#[test]
fn certificates_are_private_and_nothing_is_overwritten() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("secure");
    let report =
        secure(&Options { names: vec!["192.168.1.10".into(), "nuc.local".into()], ..asked(&folder) }, unix_now());
    let report = report.expect("a fresh folder");
    assert_eq!(report.grade, Grade::Pass, "{}", said(&report));
    let bridge = &report.checked.certificates[0];
    assert_eq!((bridge.role, bridge.common_name.as_str()), ("bridge", "tenon-bridge"));
    assert_eq!(bridge.names, ["192.168.1.10", "nuc.local", "localhost", "127.0.0.1"]);
    assert!((364.9..365.1).contains(&bridge.days_left), "{}", bridge.days_left);
    // What is printed for robot.toml is what robot.toml takes.
    let shipped = include_str!("../configs/robot.toml");
    let lines = shipped.replace("[link]\nendpoint = \"tcp/127.0.0.1:7447\"\nheartbeat_timeout_s = 0.3\n", "");
    assert_ne!(lines, shipped);
    let printed =
        report.robot_toml.clone().expect("a bridge").replace("[link.tls]", "heartbeat_timeout_s = 0.3\n[link.tls]");
    let config: tenon_core::config::RobotConfig =
        tenon_core::config::parse("robot.toml", &(lines + &printed)).expect("valid");
    assert_eq!(config.link.endpoint, "tls/192.168.1.10:7447");
    let endpoint = Endpoint::of_config(&config.link).expect("protected");
    assert!(endpoint.identity(Role::Bridge).expect("fit").is_some());

    for (path, _) in files(&folder) {
        let metadata = fs::metadata(folder.join(&path)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{}", path.display());
    }
    for name in [".", "authority", "bridge", "controller", "observer"] {
        assert_eq!(fs::metadata(folder.join(name)).expect("there").permissions().mode() & 0o7777, 0o700, "{name}");
    }
    let before = files(&folder);
    let refused =
        secure(&Options { names: vec!["10.0.0.1".into()], ..asked(&folder) }, unix_now()).expect_err("it is in use");
    assert!(refused.to_string().contains("--rotate"), "{refused}");
    assert_eq!(files(&folder), before);

    let rotated =
        secure(&Options { rotate: true, days: 30.5, ..asked(&folder) }, unix_now()).expect("the authority is here");
    let previous = rotated.previous.clone().expect("something was replaced");
    assert_eq!(files(&previous), before, "what was replaced is kept");
    assert_eq!(rotated.checked.certificates[0].names, bridge.names);
    for (old, new) in report.checked.certificates.iter().zip(&rotated.checked.certificates) {
        assert_eq!((old.role, &old.issuer), (new.role, &new.issuer));
        assert_ne!(old.serial, new.serial);
        assert!((30.4..30.6).contains(&new.days_left), "{new:?}");
    }
    for role in Role::ALL {
        let key = |folder: &Path| fs::read(folder.join(role.name()).join("key.pem")).expect("there");
        assert_ne!(key(&folder), key(&previous), "{role}: the key is the same");
    }
    // A rotation that was interrupted leaves a trace that the next one stops at.
    fs::create_dir(folder.join(".new")).expect("writable");
    let refused = secure(&Options { rotate: true, ..asked(&folder) }, unix_now()).expect_err("another is at work");
    assert!(refused.to_string().contains("interrupted"), "{refused}");
}

#[test]
fn wrong_requests_are_refused_and_make_nothing() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("secure");
    for (names, days, wanted) in [
        (vec![], 365.0, "--bridge 192.168.1.10"),
        (vec!["tls/192.168.1.10"], 365.0, "without protocol"),
        (vec!["192.168.1.10:7447"], 365.0, "port"),
        (vec!["0.0.0.0"], 365.0, "by which others reach"),
        (vec!["a b"], 365.0, "must be an address"),
        (vec!["192.168.1.10"], f64::NAN, "--days"),
        (vec!["192.168.1.10"], 0.0, "--days"),
    ] {
        let names: Vec<String> = names.into_iter().map(String::from).collect();
        let refused = secure(&Options { names, days, ..asked(&folder) }, unix_now()).expect_err(wanted);
        assert!(format!("{refused:#}").contains(wanted), "{refused:#}");
    }
    for options in [
        Options { rotate: true, ..asked(&folder) },
        Options { rotate_ca: true, ..asked(&folder) },
        Options { end_overlap: true, ..asked(&folder) },
    ] {
        let refused = secure(&options, unix_now()).expect_err("there is no authority");
        assert!(format!("{refused:#}").contains("where the authority is"), "{refused:#}");
    }
    assert!(!folder.exists());
    let report = checked(&folder, unix_now());
    assert!(report.grade == Grade::Fail && said(&report).contains("holds no certificates"), "{}", said(&report));
}

#[test]
fn an_authority_that_has_ended_vouches_for_nobody() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("secure");
    made(&folder);
    let before = files(&folder);
    let later = unix_now() + 3650.5 * DAY_S;
    let refused = secure(&Options { rotate_ca: true, ..asked(&folder) }, later).expect_err("it has ended");
    assert!(refused.to_string().contains("--no-overlap"), "{refused}");
    assert_eq!(files(&folder), before);
    let new =
        secure(&Options { rotate_ca: true, no_overlap: true, ..asked(&folder) }, later).expect("nobody needs to vouch");
    assert_eq!(new.grade, Grade::Pass, "{}", said(&new));
}

#[test]
fn a_folder_that_depends_on_where_a_program_is_started_is_refused() {
    let text = include_str!("../configs/robot.toml")
        .replace("# [link.tls]\n# folder = \"/var/lib/tenon", "[link.tls]\nfolder = \"tenon");
    let refused =
        tenon_core::config::parse::<tenon_core::config::RobotConfig>("robot.toml", &text).expect_err("relative");
    let line = text.lines().position(|line| line.starts_with("folder = \"tenon")).expect("replaced") + 1;
    assert!(refused.to_string().starts_with(&format!("robot.toml:{line}: link.tls.folder")), "{refused}");
}

#[test]
fn a_check_finds_what_is_wrong() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("secure");
    made(&folder);
    let now = unix_now();
    assert_eq!(checked(&folder, now).grade, Grade::Pass);
    let soon = checked(&folder, now + 340.0 * DAY_S);
    assert!(soon.grade == Grade::Warn && said(&soon).contains("--rotate"), "{}", said(&soon));
    let late = checked(&folder, now + 366.0 * DAY_S);
    assert!(late.grade == Grade::Fail && said(&late).contains("ended on"), "{}", said(&late));
    assert!(late.checked.certificates.iter().all(|c| c.days_left < 0.0), "ended ones are listed all the same");

    let judge = |change: &dyn Fn(&Path), wanted: &str| {
        let copied = tempfile::tempdir().expect("a temporary folder");
        copy(&folder, copied.path());
        for role in Role::ALL {
            fs::set_permissions(copied.path().join(role.name()), fs::Permissions::from_mode(0o700)).expect("ours");
        }
        let fit = checked(copied.path(), now);
        assert_eq!(fit.grade, Grade::Pass, "a copy without the authority is fit: {}", said(&fit));
        change(copied.path());
        let report = checked(copied.path(), now);
        assert!(report.grade != Grade::Pass && said(&report).contains(wanted), "{wanted}: {}", said(&report));
    };
    let mode = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    judge(&|f| mode(f.join("bridge/key.pem"), 0o644), "chmod 600");
    judge(&|f| mode(f.join("observer"), 0o755), "chmod 700");
    let mixed = |f: &Path, name: &str| {
        fs::copy(f.join("observer").join(name), f.join("controller").join(name)).expect("there");
    };
    judge(&|f| mixed(f, "key.pem"), "does not belong to");
    judge(&|f| mixed(f, "cert.pem"), "\"tenon-observer\"");
    judge(&|f| fs::remove_file(f.join("controller/ca.pem")).expect("there"), "no certificate for the role");
    judge(&|f| fs::write(f.join("bridge/cert.pem"), "nonsense").expect("ours"), "holds no certificate");
    judge(&|f| fs::write(f.join("bridge/key.pem"), "nonsense").expect("ours"), "does not belong to");
    mode(folder.join("authority/key.pem"), 0o640);
    let open = checked(&folder, now);
    assert!(open.grade == Grade::Fail && said(&open).contains("--no-overlap"), "{}", said(&open));
}

#[test]
fn what_root_makes_belongs_to_the_user_of_the_services() {
    // SAFETY: has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root gives files away");
        return;
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::chown(place.path(), Some(4711), Some(4712)).expect("root may");
    let folder = place.path().join("secure");
    made(&folder);
    let owner = |path: &str| fs::metadata(folder.join(path)).map(|m| (m.uid(), m.gid())).expect("there");
    for path in [".", "bridge", "bridge/key.pem", "controller/cert.pem", "observer/ca.pem"] {
        assert_eq!(owner(path), (4711, 4712), "{path}");
    }
    assert_eq!((owner("authority"), owner("authority/key.pem")), ((0, 0), (0, 0)));
}

fn endpoint(port: u16, folder: &Path) -> Endpoint {
    Endpoint::of_config(&LinkConfig {
        endpoint: format!("tls/127.0.0.1:{port}"),
        heartbeat_timeout_s: 0.3,
        tls: Some(LinkTlsConfig { folder: folder.to_owned() }),
        anybody_on_the_network_may_move_the_arm: false,
    })
    .expect("protected")
}

fn state() -> RobotState {
    RobotState {
        sequence: 1,
        robot_time: RobotTime::from_nanos(0),
        joint_positions_rad: [0.0; 7],
        joint_velocities_rad_s: [0.0; 7],
        joint_torques_external_nm: [0.0; 7],
        gripper_width_m: f64::NAN,
        gripper: GripperPhase::Absent,
        error_code: 0,
    }
}

/// A state and a target cross a link between these two folders.
fn meet(bridge: &Path, controller: &Path) -> Result<(), LinkError> {
    let keys = RobotKeys::new("robot")?;
    let port = free_port();
    let clock = || Arc::new(monotonic_time) as tenon_link::Clock;
    let (sender, mut inbox) = open_bridge_link(&endpoint(port, bridge), &keys, clock(), || {})?;
    inbox.follow(1);
    let mut link = ZenohLink::connect(&endpoint(port, controller), &keys, clock(), Duration::from_millis(800))?;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        sender.publish_state(&state())?;
        link.send_target(&JointTarget::still(1, 1, MonotonicTime::from_nanos(0), [0.0; 7]))?;
        if link.latest_state().is_some() && inbox.latest_target().is_some() {
            return Ok(());
        }
        assert!(Instant::now() < until, "connected, and nothing crosses");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn computers_follow_a_new_authority_one_by_one() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| place.path().join(name);
    let folder = path("secure");
    made(&folder);
    copy(&folder, &path("first"));
    secure(&Options { rotate: true, ..asked(&folder) }, unix_now()).expect("the authority is here");
    copy(&folder, &path("rotated"));
    let overlap = secure(&Options { rotate_ca: true, ..asked(&folder) }, unix_now()).expect("the authority is here");
    copy(&folder, &path("overlap"));
    assert!(overlap.checked.certificates.iter().all(|c| c.authorities == 2));
    assert!(overlap.grade == Grade::Warn && said(&overlap).contains("--end-overlap"), "{}", said(&overlap));
    let refused =
        secure(&Options { rotate_ca: true, ..asked(&folder) }, unix_now()).expect_err("one overlap at a time");
    assert!(refused.to_string().contains("--end-overlap"), "{refused}");
    secure(&Options { rotate: true, ..asked(&folder) }, unix_now()).expect("also within an overlap");
    copy(&folder, &path("overlap_rotated"));
    let ended = secure(&Options { end_overlap: true, ..asked(&folder) }, unix_now()).expect("there is one");
    assert!(
        ended.grade == Grade::Pass && ended.checked.certificates.iter().all(|c| c.authorities == 1),
        "{}",
        said(&ended)
    );
    copy(&folder, &path("ended"));
    let stolen = secure(&Options { rotate_ca: true, no_overlap: true, ..asked(&folder) }, unix_now()).expect("always");
    assert!(
        stolen.grade == Grade::Pass && stolen.checked.certificates.iter().all(|c| c.authorities == 1),
        "{}",
        said(&stolen)
    );
    copy(&folder, &path("stolen"));

    for (bridge, controller) in [
        ("first", "first"),
        ("first", "rotated"),
        ("rotated", "first"),
        ("first", "overlap"),
        ("overlap", "first"),
        ("overlap", "overlap"),
        ("overlap_rotated", "first"),
        ("ended", "overlap"),
        ("overlap", "ended"),
        ("stolen", "stolen"),
    ] {
        meet(&path(bridge), &path(controller))
            .unwrap_or_else(|e| panic!("bridge {bridge}, controller {controller}: {e}"));
    }
    for (bridge, controller) in [("ended", "first"), ("first", "ended"), ("stolen", "ended"), ("ended", "stolen")] {
        let met = meet(&path(bridge), &path(controller));
        assert!(
            matches!(met, Err(LinkError::ConnectProtected { .. })),
            "bridge {bridge}, controller {controller}: {met:?}"
        );
    }
}

fn output(name: &str, args: &[&str], place: &Path) -> Output {
    let mut command = Command::new(program(name));
    command.args(args).env("TENON_STATE", place.join("state")).stdin(Stdio::null());
    command.output().expect("it starts")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_program_goes_beyond_this_computer_without_certificates() {
    let rig = Rig::new();
    let place = rig.folder.path();
    let text = fs::read_to_string(&rig.config).expect("written before");
    let line = text.lines().find(|line| line.starts_with("endpoint")).expect("a link").to_owned();
    let with = |name: &str, endpoint: &str, more: &str| {
        let path = place.join(name);
        fs::write(&path, text.replace(&line, &format!("endpoint = \"{endpoint}\"\n{more}"))).expect("writable");
        path.display().to_string()
    };
    // An address for documentation: nobody answers there.
    let open = with("open.toml", "tcp/192.0.2.1:7447", "");
    let naked = with("naked.toml", "tls/192.0.2.1:7447", "");
    let bundle = rig.bundle.display().to_string();
    for config in [&open, &naked] {
        for (name, args) in [
            ("tenon-bridge", vec!["--config", config]),
            ("tenon", vec!["top", "--once", "--config", config]),
            ("tenon", vec!["doctor", "--config", config]),
            ("tenon", vec!["run", "--yes", "--robot", "panda", "--bundle", &bundle, "--config", config, "--no-record"]),
            ("tenon-calibrate", vec!["arm-pose", "--robot", config]),
        ] {
            let output = output(name, &args, place);
            let text = told(&output);
            assert!(!output.status.success() && text.contains("tenon secure"), "{name} {args:?}: {text}");
        }
    }
    // On the command line as well.
    let here = rig.config.display().to_string();
    for (name, args) in [
        ("tenon-bridge", vec!["--config", &here, "--endpoint", "tcp/0.0.0.0:7447"]),
        ("tenon", vec!["top", "--once", "--config", &here, "--endpoint", "tcp/192.0.2.1:7447"]),
        ("tenon-calibrate", vec!["arm-pose", "--robot", &here, "--arm-link", "tcp/192.0.2.1:7447"]),
    ] {
        let output = output(name, &args, place);
        let text = told(&output);
        assert!(!output.status.success() && text.contains("plain TCP beyond this computer"), "{name} {args:?}: {text}");
    }
    // The owner's word is taken, and repeated at each start. Nothing can listen at that address here.
    let anybody = with("anybody.toml", "tcp/192.0.2.1:7447", "anybody_on_the_network_may_move_the_arm = true\n");
    let output = output("tenon-bridge", &["--config", &anybody, "--server", "192.0.2.2:50051"], place);
    let text = told(&output);
    assert!(text.contains("ANYBODY ON THE NETWORK MAY MOVE THE ARM") && text.contains("cannot listen"), "{text}");
    // What the certificates cannot protect is said, too.
    assert!(text.contains("192.0.2.2:50051 is on another computer"), "{text}");
}

#[test]
fn the_simulated_robot_runs_and_is_watched_over_tls() {
    let rig = Rig::new();
    let place = rig.folder.path();
    let folder = place.join("secure");
    made(&folder);
    let text = fs::read_to_string(&rig.config).expect("written before");
    let line = text.lines().find(|line| line.starts_with("endpoint")).expect("a link").to_owned();
    let tls = format!("{}\ntls = {{ folder = \"{}\" }}", line.replace("tcp/", "tls/"), folder.display());
    fs::write(&rig.config, text.replace(&line, &tls)).expect("writable");
    let mut child = rig.run(1).args(["--actions", "60"]).spawn().expect("it starts");
    let config = rig.config.display().to_string();
    let until = Instant::now() + Duration::from_secs(60);
    let watched = loop {
        let output = output("tenon", &["top", "--once", "--json", "--config", &config], place);
        if output.status.success() {
            break String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let early = child.try_wait().expect("a child").is_some() || Instant::now() > until;
        assert!(!early, "it ended before it was seen: {}", told(&output));
    };
    let watched: serde_json::Value = serde_json::from_str(&watched).expect("JSON");
    assert!(watched["endpoint"].as_str().is_some_and(|e| e.starts_with("tls/127.0.0.1:")), "{watched}");
    assert!(watched["states"]["received"].as_u64() > Some(20), "{watched}");
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success(), "{}", told(&output));
    let report = rig.report();
    assert!(report["targets_passed"].as_u64() > Some(100), "{report}");
    assert!(report["bridge"]["updates"].as_u64() > Some(100), "{report}");
}

/// The bridge's log names what it refused, once.
#[test]
fn the_bridge_says_whom_it_refused() {
    use std::io::{BufRead, BufReader, Read};

    let place = tempfile::tempdir().expect("a temporary folder");
    made(&place.path().join("secure"));
    made(&place.path().join("theirs"));
    let port = free_port();
    let text = include_str!("../configs/robot.toml").replace(
        "endpoint = \"tcp/127.0.0.1:7447\"",
        &format!(
            "endpoint = \"tls/127.0.0.1:{port}\"\ntls = {{ folder = \"{}\" }}",
            place.path().join("secure").display()
        ),
    );
    let config = place.path().join("robot.toml");
    fs::write(&config, text).expect("writable");
    let mut bridge = Command::new(program("tenon-bridge"))
        .args(["--server", "127.0.0.1:1", "--die-with-parent", "--config"])
        .arg(&config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut ready = String::new();
    let mut out = BufReader::new(bridge.stdout.take().expect("piped"));
    out.read_line(&mut ready).expect("readable");
    let refused = meet_bridge(port, &place.path().join("theirs"));
    bridge.kill().expect("ours");
    let mut log = String::new();
    bridge.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
    bridge.wait().expect("ours");
    assert!(ready.starts_with("ready: listening at tls/"), "{ready}{log}");
    assert!(matches!(refused, Err(LinkError::ConnectProtected { .. })), "{refused:?}");
    assert_eq!(log.matches("refused a connection to the link").count(), 1, "{log}");
    assert!(!log.contains("open file limit"), "{log}");
}

fn meet_bridge(port: u16, folder: &Path) -> Result<ZenohLink, LinkError> {
    let clock = Arc::new(monotonic_time) as tenon_link::Clock;
    ZenohLink::connect(&endpoint(port, folder), &RobotKeys::new("robot")?, clock, Duration::from_millis(800))
}
