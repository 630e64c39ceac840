//! The programs as a user meets them: the simulated robot in real time, killed peers, Ctrl-C, wrong input.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tenon_core::config::{TaskConfig, Values};
use tenon_core::network::{Activation, NetworkSpec};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::PolicySpec;
use tenon_policy::bundle::Provenance;
use tenon_policy::graph::{Dims, random_parameters};
use tenon_policy::{BundleContent, BundleWriter};

/// A program beside this test's own folder: `target/release/<name>`.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let path = own.parent().and_then(Path::parent).expect("target/release/deps").join(name);
    assert!(path.is_file(), "{} is not built: `make test` builds the programs first", path.display());
    path
}

/// An Avoid policy with random weights and actions up to `largest_action_m`: with 0.5 mm it moves the arm a little, anywhere.
fn bundle(folder: &Path, largest_action_m: f32) -> PathBuf {
    let task = TaskConfig::parse("avoid_m1.toml", include_str!("../configs/tasks/avoid_m1.toml"), Values::Latest)
        .expect("the shipped file");
    let normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(largest_action_m, 2));
    let spec = task.policy_spec(normalizer, task.policy.finetuned_steps());
    random_bundle(folder, &spec)
}

/// A bundle of this policy with random weights.
pub fn random_bundle(folder: &Path, spec: &PolicySpec) -> PathBuf {
    let network = NetworkSpec::diffusion_mlp(16, &[32; 3], &[], Activation::ReLU);
    let parameters = random_parameters(&network, &Dims::of(spec), 1);
    let unknown = || "unknown".to_string();
    let provenance = Provenance::new(1, unknown(), unknown(), unknown(), unknown(), unknown());
    let content = BundleContent {
        spec,
        network: &network,
        base: Some(&parameters),
        finetuned: Some(&parameters),
        provenance: &provenance,
    };
    let path = folder.join("bundle");
    BundleWriter::create(&path, false, &content).expect("the bundle is valid").commit().expect("a fresh place")
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A rig of its own for each test: configuration with free ports, bundle, folder.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub config: PathBuf,
    pub bundle: PathBuf,
}

impl Rig {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = include_str!("../configs/robot.toml")
            .replace("tcp/127.0.0.1:7447", &format!("tcp/127.0.0.1:{}", free_port()))
            .replace("127.0.0.1:50051", &format!("127.0.0.1:{}", free_port()))
            // CI's two cores are busy with other tests; what is tested here is what happens, not how fast.
            .replace("max_state_age_s = 0.25", "max_state_age_s = 2.0")
            .replace("max_late_ticks = 5 ", "max_late_ticks = 500 ")
            .replace("heartbeat_timeout_s = 0.3", "heartbeat_timeout_s = 2.0");
        let config = folder.path().join("robot.toml");
        std::fs::write(&config, text).expect("the folder is writable");
        let bundle = bundle(folder.path(), 0.0005);
        Self { folder, config, bundle }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("deploy")
    }

    pub fn run(&self, episodes: usize) -> Command {
        let mut command = Command::new(program("tenon"));
        command.args(["run", "--robot", "sim", "--episodes", &episodes.to_string(), "--bundle"]);
        command.arg(&self.bundle).arg("--config").arg(&self.config).arg("--out").arg(self.out());
        // Its flight recorder writes below it.
        command.env("TENON_STATE", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn report(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.out().join("run.json")).expect("run.json was written");
        serde_json::from_str(&text).expect("run.json is JSON")
    }
}

/// Waits for the first episode's first second: the arm moves then.
pub fn wait_until_it_moves(rig: &Rig, child: &mut Child) {
    let truth = rig.out().join("truth.jsonl");
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if std::fs::metadata(&truth).is_ok_and(|m| m.len() > 80_000) {
            return;
        }
        assert!(child.try_wait().expect("a child").is_none(), "it ended before it moved");
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no motion within a minute");
}

pub fn signal(pid: u32, number: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    // SAFETY: the process is a child (or grandchild) of this test that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0, "signalling {pid}");
}

pub fn finish(mut child: Child, limit: Duration) -> (Option<i32>, String, Duration) {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait().expect("a child") {
            let took = begun.elapsed();
            let mut text = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
            return (status.code(), text, took);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    panic!("it did not end within {limit:?}");
}

/// A child of `parent` by program name, from /proc.
pub fn child_of(parent: u32, name: &str) -> u32 {
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let is =
            |key: &str, value: &str| status.lines().any(|l| l.strip_prefix(key).is_some_and(|v| v.trim() == value));
        // The kernel cuts names at 15 characters.
        if is("PPid:", &parent.to_string()) && is("Name:", &name[..name.len().min(15)]) {
            return pid;
        }
    }
    panic!("{name} does not run under {parent}");
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_episode_runs_on_the_simulated_robot_and_is_judged() {
    let rig = Rig::new();
    let output = rig.run(1).output().expect("tenon starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let report = rig.report();
    let episode = &report["episodes"][0];
    assert_eq!(episode["complete"], true);
    assert_eq!(episode["success"], false, "random weights do not reach the goal");
    assert_eq!(episode["observations"].as_array().map(Vec::len), Some(25), "a chunk every four of 100 actions");
    assert!(episode["path_xy_m"].as_array().is_some_and(|p| p.len() >= 95));
    for stage in ["observe", "infer", "ik", "publish", "bridge_update", "arm_state_age"] {
        assert!(report["timing"][stage]["n"].as_u64().is_some_and(|n| n > 0), "{stage} was not measured");
    }
}

#[test]
fn an_action_beyond_the_limits_stops_the_episode_and_nothing_of_it_is_commanded() {
    let mut rig = Rig::new();
    std::fs::remove_dir_all(&rig.bundle).expect("the small bundle is there");
    rig.bundle = bundle(rig.folder.path(), 5.0);
    let output = rig.run(2).output().expect("tenon starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("would jump"), "{}", stderr(&output));
    let report = rig.report();
    let episodes = report["episodes"].as_array().expect("episodes");
    assert_eq!(episodes.len(), 2, "the simulated arm is armed again");
    for episode in episodes {
        assert_eq!((&episode["complete"], &episode["success"]), (&false.into(), &false.into()));
        let path = episode["path_xy_m"].as_array().expect("a path");
        let xy = |i: usize| [path[i][0].as_f64().expect("x"), path[i][1].as_f64().expect("y")];
        for i in 1..path.len() {
            let (a, b) = (xy(i - 1), xy(i));
            assert!((a[0] - b[0]).hypot(a[1] - b[1]) < 0.01, "the arm holds: {a:?} {b:?}");
        }
    }
}

#[test]
fn ctrl_c_ends_a_run_within_two_seconds_with_its_record_whole() {
    let rig = Rig::new();
    let mut child = rig.run(20).spawn().expect("tenon starts");
    wait_until_it_moves(&rig, &mut child);
    signal(child.id(), libc::SIGINT);
    let (code, text, took) = finish(child, Duration::from_secs(10));
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("the arm holds"), "{text}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(rig.report()["fault"].as_str().is_some_and(|f| f.contains("interrupted")));
}

#[test]
fn a_killed_bridge_and_a_killed_server_are_named() {
    for (peer, cause) in [("tenon-bridge", "bridge is silent"), ("tenon-sim-server", "Polymetis server")] {
        let rig = Rig::new();
        let mut child = rig.run(20).spawn().expect("tenon starts");
        wait_until_it_moves(&rig, &mut child);
        signal(child_of(child.id(), peer), libc::SIGKILL);
        let (code, text, _) = finish(child, Duration::from_secs(15));
        assert_eq!(code, Some(1), "{peer}: {text}");
        assert!(text.contains(cause), "{peer}: {text}");
        assert!(rig.report()["fault"].as_str().is_some_and(|f| f.contains(cause)), "{peer}");
    }
}

#[test]
fn a_second_run_on_the_same_robot_is_refused_and_the_first_goes_on() {
    let rig = Rig::new();
    let mut first = rig.run(1).spawn().expect("tenon starts");
    wait_until_it_moves(&rig, &mut first);
    let other = tempfile::tempdir().expect("a temporary folder");
    // Through the same bridge: the lease decides.
    let leased = Command::new(program("tenon"))
        .args(["run", "--yes", "--robot", "panda", "--episodes", "1", "--bundle"])
        .arg(&rig.bundle)
        .arg("--config")
        .arg(&rig.config)
        .arg("--out")
        .arg(other.path().join("a"))
        .arg("--no-record")
        .output()
        .expect("tenon starts");
    assert_eq!(leased.status.code(), Some(1));
    assert!(stderr(&leased).contains("another `tenon run`"), "{}", stderr(&leased));
    // With its own simulated robot: the port is taken.
    let ports = Command::new(program("tenon"))
        .args(["run", "--robot", "sim", "--episodes", "1", "--bundle"])
        .arg(&rig.bundle)
        .arg("--config")
        .arg(&rig.config)
        .arg("--out")
        .arg(other.path().join("b"))
        .arg("--no-record")
        .output()
        .expect("tenon starts");
    assert_eq!(ports.status.code(), Some(1));
    assert!(stderr(&ports).contains("in use"), "{}", stderr(&ports));
    let (code, text, _) = finish(first, Duration::from_secs(60));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn wrong_input_says_what_where_and_what_to_do() {
    let rig = Rig::new();
    let tenon = |args: &[&str]| {
        let output = Command::new(program("tenon")).args(args).output().expect("tenon starts");
        assert!(!output.status.success(), "{args:?} must fail");
        stderr(&output)
    };
    let (bundle, config) = (rig.bundle.display().to_string(), rig.config.display().to_string());
    let text = tenon(&["run", "--robot", "sim", "--bundle", "no-such-bundle", "--config", &config]);
    assert!(text.contains("no-such-bundle"), "{text}");
    let text = tenon(&["run", "--robot", "sim", "--bundle", &bundle, "--config", &config, "--engine", "tracr"]);
    assert!(text.contains("tracr") && text.contains("tract"), "{text}");

    let typo = rig.folder.path().join("typo.toml");
    let shipped = std::fs::read_to_string(&rig.config).expect("the rig's file");
    std::fs::write(&typo, shipped.replace("endpoint =", "endpont =")).expect("the folder is writable");
    let line = shipped.lines().position(|l| l.starts_with("endpoint")).expect("the key is there") + 1;
    let text = tenon(&["run", "--robot", "sim", "--bundle", &bundle, "--config", &typo.display().to_string()]);
    assert!(text.contains(&format!("typo.toml:{line}:")) && text.contains("did you mean `endpoint`"), "{text}");

    let network = std::fs::read_dir(&rig.bundle)
        .expect("the bundle is a folder")
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "onnx"))
        .expect("a bundle has networks");
    let mut bytes = std::fs::read(&network).expect("a file");
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&network, bytes).expect("the folder is writable");
    let text = tenon(&["run", "--robot", "sim", "--bundle", &bundle, "--config", &config]);
    let name = network.file_name().expect("a file has a name").to_string_lossy().into_owned();
    assert!(text.contains(&name), "{text}");
}
