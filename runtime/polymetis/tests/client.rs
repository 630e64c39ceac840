//! The clients against small servers of our own, in this process.

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{KQ, KQD, REST, TARGETS};
use tenon_polymetis::archive::{ParameterArchive, TensorValue, pd_controller};
use tenon_polymetis::client::{ClientError, ControllerClient, Deadlines, GripperClient};
use tenon_polymetis::proto::gripper_server_server::{GripperServer, GripperServerServer};
use tenon_polymetis::proto::polymetis_controller_server_server::{
    PolymetisControllerServer, PolymetisControllerServerServer,
};
use tenon_polymetis::proto::{
    ControllerChunk, Empty, GripperCommand, GripperMetadata, GripperState, LogInterval, RobotClientMetadata,
    RobotState, TorqueCommand,
};
use tenon_polymetis::status::ServerError;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type States = tokio_stream::Empty<Result<RobotState, Status>>;

/// Which call it was, the sizes of its chunks, and all of its bytes.
type Upload = (&'static str, Vec<usize>, Vec<u8>);

/// What the test server saw, and how it answers SetController.
#[derive(Debug, Default)]
struct Seen {
    uploads: Mutex<Vec<Upload>>,
    commands: Mutex<Vec<GripperCommand>>,
    /// `None`: never answers.
    set_start: Option<i32>,
    has_timeout_header: Mutex<bool>,
}

impl Seen {
    fn answering(start: i32) -> Arc<Self> {
        Arc::new(Self { set_start: Some(start), ..Self::default() })
    }

    async fn receive(&self, rpc: &'static str, request: Request<Streaming<ControllerChunk>>) {
        *self.has_timeout_header.lock().unwrap() = request.metadata().contains_key("grpc-timeout");
        let mut stream = request.into_inner();
        let mut sizes = Vec::new();
        let mut bytes = Vec::new();
        while let Some(Ok(chunk)) = stream.next().await {
            sizes.push(chunk.torchscript_binary_chunk.len());
            bytes.extend(chunk.torchscript_binary_chunk);
        }
        self.uploads.lock().unwrap().push((rpc, sizes, bytes));
    }

    fn names(&self) -> Vec<&'static str> {
        self.uploads.lock().unwrap().iter().map(|(rpc, ..)| *rpc).collect()
    }
}

struct Robot(Arc<Seen>);

#[tonic::async_trait]
impl PolymetisControllerServer for Robot {
    type GetRobotStateStreamStream = States;
    type GetRobotStateLogStream = States;

    async fn set_controller(&self, request: Request<Streaming<ControllerChunk>>) -> Answer<LogInterval> {
        self.0.receive("set", request).await;
        match self.0.set_start {
            Some(start) => Ok(Response::new(LogInterval { start, end: -1 })),
            None => std::future::pending().await,
        }
    }

    async fn update_controller(&self, request: Request<Streaming<ControllerChunk>>) -> Answer<LogInterval> {
        self.0.receive("update", request).await;
        Ok(Response::new(LogInterval { start: 12, end: -1 }))
    }

    async fn terminate_controller(&self, _: Request<Empty>) -> Answer<LogInterval> {
        Ok(Response::new(LogInterval { start: 10, end: 20 }))
    }

    async fn get_robot_state(&self, _: Request<Empty>) -> Answer<RobotState> {
        Err(Status::failed_precondition("Cannot retrieve robot state from empty buffer!"))
    }

    async fn get_episode_interval(&self, _: Request<Empty>) -> Answer<LogInterval> {
        Ok(Response::new(LogInterval { start: 10, end: -1 }))
    }

    async fn get_robot_client_metadata(&self, _: Request<Empty>) -> Answer<RobotClientMetadata> {
        Err(Status::cancelled("Robot context not valid when calling GetRobotClientMetadata!"))
    }

    async fn get_robot_state_stream(&self, _: Request<Empty>) -> Answer<States> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn get_robot_state_log(&self, _: Request<LogInterval>) -> Answer<States> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn init_robot_client(&self, _: Request<RobotClientMetadata>) -> Answer<Empty> {
        Ok(Response::new(Empty {}))
    }

    async fn control_update(&self, _: Request<RobotState>) -> Answer<TorqueCommand> {
        Ok(Response::new(TorqueCommand::default()))
    }
}

struct Gripper(Arc<Seen>);

#[tonic::async_trait]
impl GripperServer for Gripper {
    async fn goto(&self, request: Request<GripperCommand>) -> Answer<Empty> {
        self.0.commands.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Empty {}))
    }

    async fn get_state(&self, _: Request<Empty>) -> Answer<GripperState> {
        Ok(Response::new(GripperState::default()))
    }

    async fn get_robot_client_metadata(&self, _: Request<Empty>) -> Answer<GripperMetadata> {
        Err(Status::internal("Failed to serialize response!"))
    }

    async fn init_robot_client(&self, _: Request<GripperMetadata>) -> Answer<Empty> {
        Ok(Response::new(Empty {}))
    }

    async fn control_update(&self, _: Request<GripperState>) -> Answer<GripperCommand> {
        Ok(Response::new(GripperCommand::default()))
    }
}

/// Deadlines that a busy machine does not miss.
fn patient() -> Deadlines {
    let long = Duration::from_secs(20);
    Deadlines { set: long, update: long, get: long, terminate: long, metadata: long }
}

/// Which of the two servers to run: each has a port of its own, as the real ones have.
#[derive(Clone, Copy)]
enum Which {
    Robot,
    Gripper,
}

/// A server with a runtime of its own, so that dropping it ends it as a killed process ends:
/// connections and all.
struct Running {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Running {
    fn start(seen: &Arc<Seen>, port: u16) -> Self {
        Self::start_one(Which::Robot, seen, port)
    }

    fn start_one(which: Which, seen: &Arc<Seen>, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (send_address, receive_address) = std::sync::mpsc::channel();
        let seen = seen.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            send_address.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpListenerStream::new(listener);
            match which {
                Which::Robot => {
                    Server::builder()
                        .serve_with_incoming(PolymetisControllerServerServer::new(Robot(seen)), incoming)
                        .await
                }
                Which::Gripper => {
                    Server::builder().serve_with_incoming(GripperServerServer::new(Gripper(seen)), incoming).await
                }
            }
            .unwrap();
        });
        let address = receive_address.recv().unwrap();
        Self { address, runtime: Some(runtime) }
    }

    fn client(&self) -> ControllerClient {
        ControllerClient::new(&self.address.to_string(), patient()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn controller() -> Vec<u8> {
    pd_controller(&REST, &KQ, &KQD).unwrap()
}

#[tokio::test]
async fn set_and_update_arrive_in_chunks_and_whole() {
    let seen = Seen::answering(10);
    let server = Running::start(&seen, 0);
    let mut client = server.client();
    assert_eq!(client.set_controller(&controller()).await, Ok(10));
    assert!(client.has_set_controller());
    assert_eq!(client.update_joint_targets(&TARGETS).await, Ok(12));
    let uploads = seen.uploads.lock().unwrap();
    assert_eq!(uploads[0], ("set", vec![1024, 703], controller()));
    let expected = ParameterArchive::joint_pos_desired().patch(&TARGETS).to_vec();
    assert_eq!(uploads[1], ("update", vec![910], expected));
    assert!(*seen.has_timeout_header.lock().unwrap());
}

#[tokio::test]
async fn start_of_minus_one_is_a_failure() {
    let seen = Seen::answering(-1);
    let server = Running::start(&seen, 0);
    let mut client = server.client();
    assert_eq!(client.set_controller(&controller()).await, Err(ClientError::NeverRan));
    assert_eq!(client.update_joint_targets(&TARGETS).await, Err(ClientError::NoControllerSet));
    assert_eq!(seen.names(), ["set"]);
}

#[tokio::test]
async fn bad_joint_targets_are_never_sent() {
    let seen = Seen::answering(10);
    let server = Running::start(&seen, 0);
    let mut client = server.client();
    client.set_controller(&controller()).await.unwrap();
    for count in [0, 1, 6, 8] {
        assert_eq!(client.update_joint_targets(&vec![0.0; count]).await, Err(ClientError::JointCount { got: count }));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut joints = TARGETS;
        joints[6] = bad;
        let error = client.update_joint_targets(&joints).await.unwrap_err();
        assert!(matches!(error, ClientError::NotFinite { index: 6, .. }), "{error}");
        let tensor = TensorValue::f32_vector(&joints);
        assert!(client.update_parameters(&[("joint_pos_desired", &tensor)]).await.is_err());
    }
    let tensor = TensorValue::f64_vector(&[1e300; 7]);
    let error = client.update_parameters(&[("joint_pos_desired", &tensor)]).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFinite { .. }), "infinite as float32: {error}");
    assert_eq!(seen.names(), ["set"]);
}

#[tokio::test]
async fn update_before_set_is_never_sent() {
    let seen = Seen::answering(10);
    let server = Running::start(&seen, 0);
    let mut client = server.client();
    assert_eq!(client.update_joint_targets(&TARGETS).await, Err(ClientError::NoControllerSet));
    client.set_controller(&controller()).await.unwrap();
    client.update_joint_targets(&TARGETS).await.unwrap();
    assert_eq!(client.terminate().await, Ok(LogInterval { start: 10, end: 20 }));
    assert_eq!(client.update_joint_targets(&TARGETS).await, Err(ClientError::NoControllerSet));
    assert_eq!(seen.names(), ["set", "update"]);
}

#[test]
fn default_deadlines_are_those_of_the_spec() {
    let ms = Duration::from_millis;
    let expected = Deadlines { set: ms(2000), update: ms(500), get: ms(500), terminate: ms(1000), metadata: ms(500) };
    assert_eq!(Deadlines::default(), expected);
}

#[tokio::test]
async fn server_that_hangs_meets_the_deadline() {
    let server = Running::start(&Arc::new(Seen::default()), 0);
    let deadlines = Deadlines { set: Duration::from_millis(100), ..patient() };
    let mut client = ControllerClient::new(&server.address.to_string(), deadlines).unwrap();
    let start = Instant::now();
    let error = client.set_controller(&controller()).await.unwrap_err();
    assert_eq!(error.server_error(), Some(&ServerError::DeadlineExceeded));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!client.has_set_controller());
}

#[tokio::test]
async fn restarted_server_gets_no_update_before_a_new_set() {
    let seen = Seen::answering(10);
    let server = Running::start(&seen, 0);
    let mut client = server.client();
    client.set_controller(&controller()).await.unwrap();
    client.update_joint_targets(&TARGETS).await.unwrap();

    let port = server.address.port();
    drop(server);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let seen = Seen::answering(10);
    let _server = Running::start(&seen, port);
    // A query reconnects by itself and does not open the way for updates.
    assert!(client.episode_interval().await.is_ok() || client.episode_interval().await.is_ok());
    let error = client.update_joint_targets(&TARGETS).await.unwrap_err();
    assert!(matches!(error.server_error(), Some(ServerError::Unavailable(_))), "{error}");
    assert_eq!(client.update_joint_targets(&TARGETS).await, Err(ClientError::NoControllerSet));
    assert_eq!(seen.names(), [""; 0]);

    client.set_controller(&controller()).await.unwrap();
    client.update_joint_targets(&TARGETS).await.unwrap();
    assert_eq!(seen.names(), ["set", "update"]);
}

#[tokio::test]
async fn absent_server_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut client = ControllerClient::new(&address, patient()).unwrap();
    let error = client.metadata().await.unwrap_err();
    assert!(matches!(error.server_error(), Some(ServerError::Unavailable(_))), "{error}");
}

#[tokio::test]
async fn answers_of_the_server_are_classified() {
    let server = Running::start(&Seen::answering(10), 0);
    let mut client = server.client();
    let error = client.metadata().await.unwrap_err();
    assert_eq!(error.server_error(), Some(&ServerError::NoRobotClient));
    let error = client.robot_state().await.unwrap_err();
    assert_eq!(error.server_error(), Some(&ServerError::EmptyBuffer));
}

#[tokio::test]
async fn address_must_be_host_and_port() {
    for address in ["", "localhost", ":50051", "http://", "host:port", "a b:1", "host:1/x"] {
        let error = ControllerClient::new(address, Deadlines::default()).unwrap_err();
        assert!(matches!(error, ClientError::Address { .. }), "{address}: {error}");
    }
    for address in ["localhost:50051", "http://127.0.0.1:50051", "[::1]:50051"] {
        assert!(ControllerClient::new(address, Deadlines::default()).is_ok(), "{address}");
    }
}

#[tokio::test]
async fn gripper_commands_are_fresh_and_accept_any_object() {
    let seen = Seen::answering(10);
    let server = Running::start_one(Which::Gripper, &seen, 0);
    let mut client = GripperClient::new(&server.address.to_string(), patient()).unwrap();
    client.goto(0.08, 0.1).await.unwrap();
    client.grasp(0.0, 0.1, 10.0).await.unwrap();
    assert!(matches!(client.goto(f32::NAN, 0.1).await, Err(ClientError::NotFinite { .. })));
    assert_eq!(client.state().await.unwrap().timestamp, None);
    let error = client.metadata().await.unwrap_err();
    assert_eq!(error.server_error(), Some(&ServerError::NoRobotClient));

    let commands = seen.commands.lock().unwrap();
    let [open, close] = commands.as_slice() else { panic!("{} commands", commands.len()) };
    assert!(!open.grasp && close.grasp);
    assert_eq!((close.width, close.speed, close.force), (0.0, 0.1, 10.0));
    for command in commands.iter() {
        assert_eq!((command.epsilon_inner, command.epsilon_outer), (-1.0, -1.0));
        assert_ne!(command.timestamp.unwrap().nanos, 0);
    }
    assert_ne!(open.timestamp.unwrap().nanos, close.timestamp.unwrap().nanos);
}
