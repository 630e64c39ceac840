//! The program itself, over zenoh.

mod rig;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rig::{Controller, OtherClient, PATIENCE, start_server};
use tenon_core::message::BridgeState;
use tenon_link::{Endpoint, RobotKeys, ZenohLink};

struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(server: &str, endpoint: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenon-bridge"));
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/robot.toml");
    command.args(["--config", config, "--server", server, "--endpoint", endpoint, "--json", "--die-with-parent"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(server: &str, endpoint: &str) -> Program {
    let mut child = command(server, endpoint).stderr(Stdio::inherit()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    Program { child, out }
}

fn json_line(program: &mut Program) -> serde_json::Value {
    let mut line = String::new();
    program.out.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
}

fn terminate(program: &Program) {
    let pid = i32::try_from(program.child.id()).unwrap();
    // SAFETY: the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

fn free_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp/{}", listener.local_addr().unwrap())
}

#[test]
fn the_program_drives_the_arm_over_zenoh_and_hands_it_back_at_sigterm() {
    let server = start_server();
    let endpoint = free_endpoint();
    let mut bridge = start(&server.local_address().to_string(), &endpoint);
    assert_eq!(json_line(&mut bridge)["ready"], true);

    let keys = RobotKeys::new("robot").unwrap();
    let link = ZenohLink::connect(
        &Endpoint::on_one_computer(&endpoint).unwrap(),
        &keys,
        tenon_bridge::monotonic_clock(),
        PATIENCE,
    )
    .unwrap();
    let mut controller = Controller::new(link, 7);
    controller.until_state(BridgeState::Idle);
    controller.arm();
    let goal = controller.ramp(0, 0.2)[0];
    controller.until("arm at its target", |c| {
        let q = tenon_link::RobotLink::latest_state(&mut c.link)?.value.joint_positions_rad[0];
        ((q - goal).abs() < 0.02).then_some(())
    });

    let mut other = OtherClient::new(server.local_address());
    assert_eq!(other.episode().end, -1);
    terminate(&bridge);
    let begin = Instant::now();
    let statistics = json_line(&mut bridge);
    assert!(bridge.child.wait().unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    println!("{statistics}");
    assert!(statistics["updates"].as_u64().unwrap() > 0, "{statistics}");
    assert!(statistics["update_us"]["p99"].as_u64().unwrap() > 0, "{statistics}");
    assert_ne!(other.episode().end, -1, "the default controller holds the arm");
}

#[test]
fn a_port_in_use_and_a_wrong_configuration_end_it_with_a_clear_line() {
    let endpoint = free_endpoint();
    let mut first = start("127.0.0.1:1", &endpoint);
    json_line(&mut first);
    let second = command("127.0.0.1:1", &endpoint).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(text.contains("port in use") && text.contains(&endpoint), "{text}");

    let bad = command("nowhere", &free_endpoint()).output().unwrap();
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(!bad.status.success() && text.contains("host:port"), "{text}");

    terminate(&first);
    let mut rest = String::new();
    first.out.read_to_string(&mut rest).unwrap();
    assert!(first.child.wait().unwrap().success());
    assert!(rest.contains("\"ended\":\"signal\""), "{rest}");
}
