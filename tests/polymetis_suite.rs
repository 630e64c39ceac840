//! `tenon test polymetis` against the simulated server, and against servers that misbehave.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tenon_controller::checks::polymetis::{CHECKS, Group, Options, Report, Verdict, suite};
use tenon_polymetis::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use tenon_polymetis::proto::polymetis_controller_server_server::{
    PolymetisControllerServer, PolymetisControllerServerServer,
};
use tenon_polymetis::proto::{ControllerChunk, Empty, LogInterval, RobotClientMetadata, RobotState, TorqueCommand};
use tenon_sim::server::{ServerOptions, ServerScene, SimServer};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use crate::programs::{free_port, program, stderr};

/// Long enough for a machine that does other things, short enough to wait for calls that hang.
const PATIENCE: &str = "1.0";

fn options(server: SocketAddr, only: &[&str]) -> Options {
    Options {
        server: Some(server.to_string()),
        config: Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/robot.toml"),
        only: only.iter().map(|name| (*name).to_owned()).collect(),
        list: false,
        nudge: true,
        take_over: false,
        destructive: false,
        restart_command: None,
        robot_stop_command: None,
        robot_start_command: None,
        patience: PATIENCE.parse().expect("a number"),
        samples: None,
        quick: true,
        yes: false,
        json: false,
    }
}

fn tried(options: &Options) -> Report {
    suite(options, &AtomicBool::new(false), &mut |_| {}).expect("the suite begins")
}

fn verdict<'a>(report: &'a Report, name: &str) -> &'a Verdict {
    &report.checks.iter().find(|line| line.name == name).expect("it was asked for").verdict
}

/// The program `tenon-sim-server` with a script that restarts it, and a file that silences its robot client.
struct Restartable {
    folder: tempfile::TempDir,
    port: u16,
}

impl Restartable {
    fn start() -> Self {
        let restartable = Self { folder: tempfile::tempdir().expect("a temporary folder"), port: free_port() };
        let status = Command::new("sh").args(["-c", &restartable.restart()]).status().expect("sh");
        assert!(status.success());
        restartable
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server of many threads may hold its port for a moment after it was killed, so its start is repeated.
    fn restart(&self) -> String {
        let (server, pid, log) = (program("tenon-sim-server"), self.path("pid"), self.path("log"));
        let (server, pid, log) = (server.display(), pid.display(), log.display());
        let (port, silent) = (self.port, self.path("silent"));
        format!(
            "if [ -f {pid} ]; then kill -9 $(cat {pid}); fi; rm -f {log}; until grep -qs ready {log}; do \
             {server} --port {port} --scene none --silent-while {} >{log} 2>&1 & echo $! >{pid}; \
             until grep -qs -e ready -e 'in use' {log}; do sleep 0.01; done; done",
            silent.display()
        )
    }
}

impl Drop for Restartable {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

/// The specification's samples, where they are.
fn samples() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden/polymetis");
    if !folder.is_dir() {
        println!("skipped: check \"samples\": {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn the_simulated_server_passes_the_whole_suite() {
    let server = Restartable::start();
    let silent = server.path("silent");
    let mut command = Command::new(program("tenon"));
    command.args([
        "test",
        "polymetis",
        "--destructive",
        "--move",
        "--quick",
        "--json",
        "--patience",
        PATIENCE,
        "--config",
    ]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/robot.toml"));
    command.args(["--restart-command", &server.restart()]);
    command.args(["--robot-stop-command", &format!("touch {}", silent.display())]);
    command.args(["--robot-start-command", &format!("rm -f {}", silent.display())]);
    command.env("TENON_POLYMETIS", format!("127.0.0.1:{}", server.port));
    let samples = samples();
    if let Some(folder) = &samples {
        command.arg("--samples").arg(folder);
    }
    let output = command.output().expect("tenon starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?} {}", stderr(&output)));
    let checks = report["checks"].as_array().expect("checks");
    for check in checks {
        let skipped = check["name"] == "samples" && samples.is_none();
        assert!(check["verdict"] == "pass" || skipped, "{check}\n{}\n{}", stderr(&output), server.log());
    }
    assert_eq!(checks.len(), CHECKS.len());
    assert_eq!((&report["default_holds"], &report["stopped"]), (&true.into(), &serde_json::Value::Null), "{report}");
    assert!(output.status.success());
    assert!(stderr(&output).contains("emergency stop") && stderr(&output).contains("kills the server"));
    for figure in ["SetController", "UpdateController, 1024-byte chunks", "rate of the states", "GetRobotState"] {
        assert!(report["figures"].as_array().is_some_and(|all| all.iter().any(|f| f["name"] == figure)), "{figure}");
    }
}

#[test]
fn nothing_is_begun_while_somebody_else_commands_the_arm() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::None)).expect("a server");
    let mut options = options(server.local_address(), &["replaced"]);
    // This check's own controllers end with it; another program's would not.
    assert!(tried(&options).sound());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let metadata = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.local_address())).expect("an address");
        let mut client = PolymetisControllerServerClient::new(endpoint.connect().await.expect("a connection"));
        let metadata = client.get_robot_client_metadata(Empty {}).await.expect("metadata").into_inner();
        let chunk = ControllerChunk { torchscript_binary_chunk: metadata.default_controller.clone() };
        client.set_controller(tokio_stream::once(chunk)).await.expect("it runs");
        metadata
    });
    assert_eq!(metadata.dof, 7);
    let refused = suite(&options, &AtomicBool::new(false), &mut |_| panic!("nothing may be tried")).unwrap_err();
    assert!(refused.to_string().contains("--take-over"), "{refused}");
    options.take_over = true;
    assert!(tried(&options).sound());
}

#[test]
fn a_server_elsewhere_is_asked_about_and_a_silent_robot_is_named() {
    let mut options = options("192.0.2.1:50051".parse().expect("an address"), &["state"]);
    let refused = suite(&options, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(refused.to_string().contains("--yes"), "{refused}");
    let silent = ServerOptions { robot_paused: true, ..ServerOptions::local(ServerScene::None) };
    let server = SimServer::start(&silent).expect("a server");
    options.server = Some(server.local_address().to_string());
    let refused = suite(&options, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(refused.to_string().contains("robot client"), "{refused}");
    options.only = vec!["nan".to_owned()];
    let refused = suite(&options, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(refused.to_string().contains("--destructive"), "{refused}");
    assert!(CHECKS.iter().any(|check| check.name == "nan" && check.group == Group::Destructive));
}

/// What a server may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Takes what the controller refuses.
    TakesSix,
    /// Answers with the index of the step before.
    StartsEarly,
    /// Says OK where the controller never ran.
    NeverRan,
    /// Leaves a state out of the stream now and then.
    LosesStates,
    /// Leaves the last state of a log out.
    OpenEnd,
    /// Refuses with other words.
    OtherWords,
    /// Lets a refused upload through: the last sound one again.
    TakesGarbage,
    /// Refuses an update before any controller instead of dying.
    Survives,
    /// Says that it terminated the controller, and does not.
    Keeps,
}

/// A server in front of the simulated one.
struct Proxy {
    client: PolymetisControllerServerClient<Channel>,
    wrong: Arc<Mutex<Wrong>>,
    last_set: Mutex<Vec<ControllerChunk>>,
}

impl Proxy {
    fn is(&self, wrong: Wrong) -> bool {
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) == wrong
    }
}

async fn received(upload: Request<Streaming<ControllerChunk>>) -> Result<Vec<ControllerChunk>, Status> {
    upload.into_inner().collect::<Result<Vec<_>, _>>().await
}

type States = Pin<Box<dyn Stream<Item = Result<RobotState, Status>> + Send>>;

#[tonic::async_trait]
impl PolymetisControllerServer for Proxy {
    async fn set_controller(
        &self,
        upload: Request<Streaming<ControllerChunk>>,
    ) -> Result<Response<LogInterval>, Status> {
        let chunks = received(upload).await?;
        let mut client = self.client.clone();
        match client.set_controller(tokio_stream::iter(chunks.clone())).await {
            Ok(_) if self.is(Wrong::NeverRan) => Ok(Response::new(LogInterval { start: -1, end: -1 })),
            Ok(interval) => {
                *self.last_set.lock().unwrap_or_else(PoisonError::into_inner) = chunks;
                Ok(interval)
            }
            Err(_) if self.is(Wrong::TakesGarbage) => {
                let last = self.last_set.lock().unwrap_or_else(PoisonError::into_inner).clone();
                client.set_controller(tokio_stream::iter(last)).await
            }
            Err(status) => Err(status),
        }
    }

    async fn update_controller(
        &self,
        upload: Request<Streaming<ControllerChunk>>,
    ) -> Result<Response<LogInterval>, Status> {
        let chunks = received(upload).await?;
        if self.is(Wrong::Survives) {
            return Err(Status::cancelled("Tried to perform a controller update with no controller running."));
        }
        let answer = self.client.clone().update_controller(tokio_stream::iter(chunks)).await;
        match answer {
            Ok(response) if self.is(Wrong::StartsEarly) => {
                let LogInterval { start, end } = response.into_inner();
                Ok(Response::new(LogInterval { start: start - 1, end }))
            }
            Err(status) if self.is(Wrong::TakesSix) && status.message().starts_with("Failed to update") => {
                self.client.clone().get_episode_interval(Empty {}).await
            }
            Err(status) if self.is(Wrong::OtherWords) => Err(Status::new(status.code(), "no")),
            other => other,
        }
    }

    async fn terminate_controller(&self, request: Request<Empty>) -> Result<Response<LogInterval>, Status> {
        if self.is(Wrong::Keeps) {
            let mut interval = self.client.clone().get_episode_interval(request).await?.into_inner();
            interval.end = interval.start + 100;
            return Ok(Response::new(interval));
        }
        self.client.clone().terminate_controller(request).await
    }

    async fn get_robot_state(&self, request: Request<Empty>) -> Result<Response<RobotState>, Status> {
        self.client.clone().get_robot_state(request).await
    }

    type GetRobotStateStreamStream = States;

    async fn get_robot_state_stream(&self, request: Request<Empty>) -> Result<Response<States>, Status> {
        let states = self.client.clone().get_robot_state_stream(request).await?.into_inner();
        let loses = self.is(Wrong::LosesStates);
        let mut number = 0;
        let states = states.filter(move |_| {
            number += 1;
            !loses || number % 50 != 0
        });
        Ok(Response::new(Box::pin(states)))
    }

    type GetRobotStateLogStream = States;

    async fn get_robot_state_log(&self, request: Request<LogInterval>) -> Result<Response<States>, Status> {
        let mut interval = request.into_inner();
        if self.is(Wrong::OpenEnd) && interval.end > 0 {
            interval.end -= 1;
        }
        let states = self.client.clone().get_robot_state_log(interval).await?.into_inner();
        Ok(Response::new(Box::pin(states)))
    }

    async fn get_episode_interval(&self, request: Request<Empty>) -> Result<Response<LogInterval>, Status> {
        self.client.clone().get_episode_interval(request).await
    }

    async fn get_robot_client_metadata(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<RobotClientMetadata>, Status> {
        self.client.clone().get_robot_client_metadata(request).await
    }

    async fn init_robot_client(&self, _: Request<RobotClientMetadata>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the robot is behind the other server"))
    }

    async fn control_update(&self, _: Request<RobotState>) -> Result<Response<TorqueCommand>, Status> {
        Err(Status::unimplemented("the robot is behind the other server"))
    }
}

#[test]
fn a_server_that_misbehaves_is_found_out() {
    let behind = SimServer::start(&ServerOptions::local(ServerScene::None)).expect("a server");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wrong = Arc::new(Mutex::new(Wrong::Nothing));
    let address = runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{}", behind.local_address())).expect("an address");
        let client = PolymetisControllerServerClient::new(channel.connect().await.expect("a connection"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let proxy = Proxy { client, wrong: wrong.clone(), last_set: Mutex::default() };
        let service = PolymetisControllerServerServer::new(proxy);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        address
    });
    let with = |kind: Wrong| *wrong.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    let cases: &[(Wrong, &[&str])] = &[
        // The first, while the server behind has not been given a controller.
        (Wrong::Survives, &["update-before-set"]),
        (Wrong::TakesSix, &["update-6", "update-row", "update-unknown-key"]),
        (Wrong::StartsEarly, &["update-start"]),
        (Wrong::LosesStates, &["stream-is-log"]),
        (Wrong::OpenEnd, &["log-interval", "torques"]),
        (Wrong::OtherWords, &["update-truncated", "update-arguments"]),
        (Wrong::TakesGarbage, &["set-refused-leaves"]),
        (Wrong::NeverRan, &["set-pd"]),
        (Wrong::Keeps, &["terminate"]),
    ];
    let asked: Vec<&str> = cases.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let asked: Vec<&str> = asked.into_iter().filter(|name| *name != "update-before-set").collect();
    for (number, (kind, names)) in cases.iter().enumerate() {
        if number == 1 {
            with(Wrong::Nothing);
            let report = tried(&options(address, &asked));
            assert!(report.sound(), "{}", report.text());
        }
        with(*kind);
        let mut options = options(address, names);
        if *kind == Wrong::Survives {
            (options.destructive, options.restart_command) = (true, Some("true".to_owned()));
        }
        // What the one before left running.
        options.take_over = true;
        let report = tried(&options);
        for name in *names {
            let verdict = verdict(&report, name);
            assert!(
                matches!(verdict, Verdict::Fail { .. }) || report.stopped.is_some(),
                "{kind:?}: {name} {verdict:?}"
            );
        }
        assert!(!report.sound(), "{kind:?}: {}", report.text());
    }
}
