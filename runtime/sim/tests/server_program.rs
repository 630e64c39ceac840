//! The program `tenon-sim-server`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tenon-sim-server");

struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn ready(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert_eq!(ready["ready"], true);
        ready
    }

    fn port(&mut self) -> u64 {
        self.ready()["port"].as_u64().unwrap()
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_where_it_serves_and_ends_at_sigterm() {
    let mut server = Program::start(Command::new(PROGRAM).args(["--port", "0", "--scene", "none", "--json"]));
    let port = server.port();
    assert_ne!(port, 0);

    let second = Command::new(PROGRAM).args(["--port", &port.to_string(), "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(text.contains("port in use") && text.contains(&port.to_string()), "{text}");

    let pid = i32::try_from(server.child.id()).unwrap();
    let begin = Instant::now();
    // SAFETY: the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    let rest = server.rest();
    assert!(server.child.wait().unwrap().success());
    // A second on a machine that does nothing else.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(rest.contains("\"ended\":\"signal\"") && rest.contains("\"late_steps\""), "{rest}");
}

#[test]
fn a_gripper_has_a_port_of_its_own() {
    let arguments = ["--port", "0", "--scene", "none", "--json", "--gripper", "--gripper-port", "0"];
    let ready = Program::start(Command::new(PROGRAM).args(arguments)).ready();
    let (arm, gripper) = (ready["port"].as_u64().unwrap(), ready["gripper_port"].as_u64().unwrap());
    assert!(arm != 0 && gripper != 0 && arm != gripper, "{ready}");
    let plain = Program::start(Command::new(PROGRAM).args(&arguments[..5])).ready();
    assert!(plain.get("gripper_port").is_none(), "{plain}");
}

#[test]
fn it_ends_with_the_process_that_started_it() {
    let script = format!("{PROGRAM} --port 0 --scene none --json --die-with-parent & wait");
    let mut shell = Program::start(Command::new("sh").args(["-c", &script]));
    shell.port();
    shell.child.kill().unwrap();
    // Its end of the pipe closes when the server has ended.
    assert!(shell.rest().contains("\"ended\":\"parent ended\""));
}

#[test]
fn wrong_options_are_named() {
    let bad = Command::new(PROGRAM).args(["--scene", "kitchen"]).output().unwrap();
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(!bad.status.success() && text.contains("avoid") && text.contains("none"), "{text}");
    let bad = Command::new(PROGRAM).args(["--update-delay", "15,5.6"]).output().unwrap();
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(!bad.status.success() && text.contains("--update-delay") && text.contains("percentile"), "{text}");
    let bad = Command::new(PROGRAM).args(["--object-width", "0.03"]).output().unwrap();
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("--gripper"));
    let bad = Command::new(PROGRAM).args(["--gripper", "--object-width", "0.3"]).output().unwrap();
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("--object-width"));
    let bad = Command::new(PROGRAM).args(["--start-spread", "7"]).output().unwrap();
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("--start-spread"));
}
