//! The service as a person at the arm meets it: disarmed until told otherwise, obedient at once, and never armed by itself.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tenon_controller::processes::Service;

use crate::programs::{Rig, finish, program, signal, stderr};

const PATIENCE: Duration = Duration::from_secs(20);

/// A rig whose server, bridge and service are processes of their own, as on a robot.
struct Bench {
    rig: Rig,
    server: Option<Service>,
    bridge: Option<Service>,
    service: Option<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

impl Bench {
    fn new() -> Self {
        Self { rig: Rig::new(), server: None, bridge: None, service: None }
    }

    fn setting(&self, key: &str) -> String {
        let text = std::fs::read_to_string(&self.rig.config).expect("the rig's file");
        let line = text.lines().find(|line| line.starts_with(key)).expect("the key is there");
        line.split('"').nth(1).expect("a string").to_owned()
    }

    fn start_server(&mut self) {
        let server = self.setting("server = ");
        let port = server.rsplit_once(':').expect("host:port").1;
        let mut command = Command::new(program("tenon-sim-server"));
        command.args(["--address", "127.0.0.1", "--port", port, "--scene", "avoid", "--json", "--die-with-parent"]);
        self.server = Some(Service::start("tenon-sim-server", command, PATIENCE).expect("the server starts"));
    }

    fn start_bridge(&mut self) {
        let mut command = Command::new(program("tenon-bridge"));
        command.arg("--config").arg(&self.rig.config).args(["--json", "--die-with-parent"]);
        self.bridge = Some(Service::start("tenon-bridge", command, PATIENCE).expect("the bridge starts"));
    }

    fn serve(&self, robot: &str) -> Command {
        let mut command = self.command(&["serve", "--robot", robot, "--bundle"]);
        command.arg(&self.rig.bundle).arg("--config").arg(&self.rig.config);
        command.arg("--out").arg(self.rig.folder.path().join("service"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start_service(&mut self, robot: &str) {
        self.service = Some(self.serve(robot).spawn().expect("tenon starts"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("tenon"));
        command.args(arguments).env("TENON_STATE", self.rig.folder.path()).stdin(Stdio::null());
        command
    }

    fn tell(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("tenon starts")
    }

    fn tell_well(&self, arguments: &[&str]) -> String {
        let output = self.tell(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn tell_in_vain(&self, arguments: &[&str], why: &str) {
        let output = self.tell(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
    }

    fn status(&self) -> Option<serde_json::Value> {
        let output = self.tell(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    fn state(&self) -> String {
        self.status().map_or_else(String::new, |status| status["state"].as_str().expect("a word").to_owned())
    }

    fn wait_for(&self, state: &str) -> serde_json::Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| status["state"] == state) {
                return status.clone();
            }
            assert!(Instant::now() < until, "it is never {state}: {status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn socket(&self) -> PathBuf {
        self.rig.folder.path().join("control.sock")
    }
}

#[test]
fn it_waits_disarmed_obeys_and_never_arms_by_itself() {
    let mut bench = Bench::new();
    bench.tell_in_vain(&["status"], "no Tenon service");
    bench.start_service("panda");
    // Before there is anything to arm.
    bench.wait_for("waiting_for_bridge");
    bench.tell_in_vain(&["arm", "--yes"], "the bridge does not answer");
    // One service at a time.
    let second = bench.serve("panda").output().expect("tenon starts");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another Tenon service"), "{}", stderr(&second));
    bench.start_server();
    bench.start_bridge();
    bench.wait_for("disarmed");

    // Nobody says that a person holds the stop: nothing is armed.
    let unasked = bench.tell(&["arm"]);
    assert!(!unasked.status.success() && stderr(&unasked).starts_with("EMERGENCY STOP"), "{}", stderr(&unasked));
    bench.tell_in_vain(&["start"], "tenon arm");
    assert_eq!(bench.state(), "disarmed");
    bench.tell_well(&["arm", "--yes"]);
    assert_eq!(bench.state(), "holding");
    bench.tell_in_vain(&["arm", "--yes"], "armed already");

    bench.tell_well(&["start", "--episodes", "0"]);
    bench.wait_for("running");
    bench.tell_in_vain(&["start"], "tenon hold");
    // Another program at the same arm is told who has it.
    let other = bench
        .command(&["run", "--yes", "--robot", "panda", "--no-record", "--bundle"])
        .arg(&bench.rig.bundle)
        .arg("--config")
        .arg(&bench.rig.config)
        .arg("--out")
        .arg(bench.rig.folder.path().join("other"))
        .output()
        .expect("tenon starts");
    let session = bench.status().expect("a status")["bridge"]["session"].as_str().expect("a lease").to_owned();
    assert!(stderr(&other).contains(&session), "{session}: {}", stderr(&other));
    assert_eq!(bench.state(), "running");

    bench.tell_well(&["hold"]);
    assert_eq!(bench.state(), "holding");
    bench.tell_well(&["start"]);
    bench.tell_well(&["stop"]);
    assert_eq!(bench.state(), "disarmed");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.state(), "disarmed", "what the sequencer had in mind does not come after a stop");

    // A bridge that dies is a fault by name; the new one is not armed until a person says so.
    bench.tell_well(&["arm", "--yes"]);
    bench.tell_well(&["start", "--episodes", "0"]);
    bench.wait_for("running");
    drop(bench.bridge.take());
    let fault = bench.wait_for("fault");
    assert!(fault["fault"].as_str().is_some_and(|fault| fault.contains("bridge")), "{fault}");
    bench.start_bridge();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(bench.state(), "fault");
    bench.tell_in_vain(&["start"], "tenon arm");
    bench.tell_well(&["arm", "--yes"]);
    bench.tell_well(&["start"]);
    bench.wait_for("running");

    let service = bench.service.take().expect("it runs");
    signal(service.id(), libc::SIGTERM);
    let (code, said, took) = finish(service, Duration::from_secs(10));
    assert_eq!(code, Some(130), "{said}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!bench.socket().exists(), "the socket is gone with it");
    let episodes = std::fs::read_to_string(bench.rig.folder.path().join("service/episodes.jsonl")).expect("a log");
    assert!(episodes.contains("held by hand") && episodes.contains("stopped by hand"), "{episodes}");
}

#[test]
fn a_killed_service_leaves_an_arm_at_rest_and_the_next_one_is_disarmed() {
    let mut bench = Bench::new();
    bench.start_server();
    bench.start_bridge();
    bench.start_service("panda");
    bench.wait_for("disarmed");
    bench.tell_well(&["arm", "--yes"]);
    bench.tell_well(&["start", "--episodes", "0"]);
    bench.wait_for("running");
    let mut service = bench.service.take().expect("it runs");
    signal(service.id(), libc::SIGKILL);
    service.wait().expect("it is dead");
    assert!(bench.socket().exists(), "nobody removed it");
    bench.tell_in_vain(&["status"], "no Tenon service");
    bench.start_service("panda");
    bench.wait_for("disarmed");
    // The bridge gives the dead one's lease up by itself; until then it says whose it is.
    let until = Instant::now() + PATIENCE;
    while !bench.tell(&["arm", "--yes"]).status.success() {
        assert!(Instant::now() < until, "the arm is never free");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(bench.state(), "holding");
}

#[test]
fn a_read_only_service_beside_a_driving_one_sends_nothing_and_a_candidate_is_compared() {
    let mut bench = Bench::new();
    bench.start_server();
    bench.start_bridge();
    let out = bench.rig.folder.path().join("driving");
    let driving = bench
        .command(&["run", "--yes", "--robot", "panda", "--episodes", "2", "--bundle"])
        .arg(&bench.rig.bundle)
        .arg("--config")
        .arg(&bench.rig.config)
        .arg("--out")
        .arg(&out)
        .arg("--shadow")
        .arg(&bench.rig.bundle)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tenon starts");
    bench.start_service("readonly");
    bench.wait_for("disarmed");
    // Whose arm it is does not matter: nothing is asked of the bridge.
    bench.tell_well(&["arm", "--yes"]);
    bench.tell_well(&["start"]);
    let status = bench.wait_for("running");
    assert_eq!(status["robot"], "readonly");
    let (code, said, _) = finish(driving, Duration::from_secs(90));
    assert_eq!(code, Some(0), "nobody disturbed it: {said}");
    bench.wait_for("holding");
    bench.tell_well(&["stop"]);
    let service = bench.service.take().expect("it runs");
    signal(service.id(), libc::SIGTERM);
    finish(service, Duration::from_secs(10));

    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("run.json")).expect("a report")).expect("JSON");
    let shadow = &report["shadow"];
    let chunks = shadow["chunks"].as_u64().expect("a count");
    assert!(chunks + shadow["missed"].as_u64().expect("a count") == 50 && chunks > 0, "{shadow}");
    assert_eq!(shadow["most_m"], 0.0, "the same policy with the same noise: {shadow}");
    let lines = std::fs::read_to_string(out.join("shadow.jsonl")).expect("its log");
    assert_eq!(lines.lines().count() as u64, chunks);

    // What the read-only one would have commanded is in its record, and computes again to the bit.
    let read_only: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.rig.folder.path().join("service/run.json")).expect("a report"))
            .expect("JSON");
    assert!(read_only["targets_passed"].as_u64().is_some_and(|n| n > 300), "{read_only}");
    let record = read_only["record"]["folder"].as_str().expect("it was recorded");
    let replayed = bench.tell_well(&["replay", record, "--verify"]);
    assert!(replayed.contains("are the same to the bit"), "{replayed}");
    // The bridge heard requests and targets of the driving run alone.
    let said = bench.bridge.take().and_then(Service::stop).expect("the bridge's statistics");
    let statistics: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let counts = ["armed", "arm_refused", "targets_ignored"].map(|key| &statistics[key]);
    assert_eq!(counts, [1, 0, 0], "{statistics}");
}
