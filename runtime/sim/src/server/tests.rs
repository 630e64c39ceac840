//! The running server as a client sees it.

use std::time::{Duration, Instant};

use tenon_polymetis::archive::{JOINT_POS_DESIRED, TensorValue, hybrid_controller, pd_controller, write_parameters};
use tenon_polymetis::chunks;
use tenon_polymetis::proto::gripper_server_client::GripperServerClient;
use tenon_polymetis::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use tenon_polymetis::proto::{self, Empty, GripperCommand, LogInterval};
use tonic::Code;
use tonic::transport::Channel;

use super::{GripperOptions, ServerError, ServerOptions, ServerScene, SimGripper, SimServer};

const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const KQ: [f32; 7] = [150.0, 120.0, 160.0, 100.0, 110.0, 100.0, 40.0];
pub(super) const KQD: [f32; 7] = [20.0, 20.0, 20.0, 20.0, 12.0, 12.0, 8.0];

pub(super) type Client = PolymetisControllerServerClient<Channel>;

pub(super) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("nothing hangs") })
}

async fn channel(server: &SimServer) -> Channel {
    channel_to(server.local_address()).await
}

async fn channel_to(address: std::net::SocketAddr) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub(super) async fn client(server: &SimServer) -> Client {
    let mut client = Client::new(channel(server).await);
    // The first state is recorded a millisecond after the start.
    while let Err(status) = client.get_robot_state(Empty {}).await {
        assert_eq!(status.code(), Code::FailedPrecondition);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client
}

pub(super) fn upload(archive: &[u8]) -> tokio_stream::Iter<std::vec::IntoIter<proto::ControllerChunk>> {
    tokio_stream::iter(chunks(archive).collect::<Vec<_>>())
}

pub(super) fn target(q: &[f32]) -> Vec<u8> {
    write_parameters(&[(JOINT_POS_DESIRED, &TensorValue::f32_vector(q))]).unwrap()
}

pub(super) async fn positions(client: &mut Client) -> [f32; 7] {
    client.get_robot_state(Empty {}).await.unwrap().into_inner().joint_positions.try_into().unwrap()
}

pub(super) async fn cancelled<T: std::fmt::Debug>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> String {
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    status.message().to_owned()
}

#[test]
fn a_controller_is_set_updated_and_terminated() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::Avoid)).unwrap();
    run(async {
        let mut c = client(&server).await;
        let metadata = c.get_robot_client_metadata(Empty {}).await.unwrap().into_inner();
        assert_eq!((metadata.hz, metadata.dof, metadata.default_kq.len()), (1000, 7, 7));
        assert!(metadata.urdf_file.contains("panda_link8"));
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!((interval.start, interval.end), (-1, -1));

        let q = positions(&mut c).await;
        let archive = hybrid_controller(
            &q,
            &KQ,
            &KQD,
            &[750.0, 750.0, 750.0, 15.0, 15.0, 15.0],
            &[37.0, 37.0, 37.0, 2.0, 2.0, 2.0],
            "<robot/>",
        )
        .unwrap();
        let set = c.set_controller(upload(&archive)).await.unwrap().into_inner();
        assert!(set.start > 0 && set.end == -1, "{set:?}");
        let mut goal = q;
        // About the vertical, so that the rod stays as far above the table.
        goal[0] += 0.1;
        let update = c.update_controller(upload(&target(&goal))).await.unwrap().into_inner();
        assert!(update.start > set.start && update.end == -1);
        loop {
            let q = positions(&mut c).await;
            if (0..7).all(|i| (q[i] - goal[i]).abs() < 0.005) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ended = c.terminate_controller(Empty {}).await.unwrap().into_inner();
        assert!(ended.start == set.start && ended.end > update.start, "{ended:?}");
        assert_eq!(c.get_episode_interval(Empty {}).await.unwrap().into_inner(), ended);

        let mut log =
            c.get_robot_state_log(LogInterval { start: ended.start, end: ended.end }).await.unwrap().into_inner();
        let mut count = 0;
        while log.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, ended.end - ended.start + 1);
        let mut stream = c.get_robot_state_stream(Empty {}).await.unwrap().into_inner();
        for _ in 0..30 {
            assert_eq!(stream.message().await.unwrap().unwrap().joint_positions.len(), 7);
        }
    });
    assert!(server.statistics().steps > 0);
}

#[test]
fn refusals_have_the_codes_and_texts_of_the_real_server() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap();
    run(async {
        let mut c = client(&server).await;
        let text = cancelled(c.terminate_controller(Empty {})).await;
        assert_eq!(text, "Tried to terminate controller with no controller running.");
        assert!(cancelled(c.set_controller(upload(b"no zip"))).await.starts_with("Failed to load new controller: "));
        assert!(cancelled(c.set_controller(upload(&target(&[0.0; 7])))).await.starts_with("Failed to load"));
        let q = positions(&mut c).await;
        let set = c.set_controller(upload(&pd_controller(&q, &KQ, &KQD).unwrap())).await.unwrap().into_inner();
        assert_eq!(cancelled(c.update_controller(upload(b""))).await, "Failed to load new controller params.");
        let half = target(&q);
        let text = cancelled(c.update_controller(upload(&half[..half.len() / 2]))).await;
        assert_eq!(text, "Failed to load new controller params.");
        assert!(
            cancelled(c.update_controller(upload(&target(&[0.0; 6]))))
                .await
                .starts_with("Failed to update controller: ")
        );
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!((interval.start, interval.end), (set.start, -1), "the controller runs on");
        let status = c.control_update(proto::RobotState::default()).await.unwrap_err();
        assert!(status.message().contains("its own simulated arm"));
        c.terminate_controller(Empty {}).await.unwrap();
        let nothing = "Tried to perform a controller update with no controller running.";
        assert_eq!(cancelled(c.update_controller(upload(&target(&[0.0; 7])))).await, nothing);
    });
}

#[test]
fn a_robot_that_stops_for_a_second_loses_its_controller() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let set = c.set_controller(upload(&pd_controller(&q, &KQ, &KQD).unwrap())).await.unwrap().into_inner();
        server.pause_robot(true);
        while c.get_robot_client_metadata(Empty {}).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(c.update_controller(upload(&target(&q))).await.is_ok(), "still RUNNING");
        server.pause_robot(false);
        loop {
            let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
            if interval.end != -1 {
                assert_eq!(interval.start, set.start);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn the_gripper_is_a_mailbox_without_hardware() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap();
    run(async {
        let mut gripper = GripperServerClient::new(channel(&server).await);
        let status = gripper.get_robot_client_metadata(Empty {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Internal, "Failed to serialize response!"));
        assert_eq!(gripper.get_state(Empty {}).await.unwrap().into_inner(), proto::GripperState::default());
        let command = GripperCommand { width: 0.04, speed: 0.1, ..Default::default() };
        gripper.goto(command).await.unwrap();
        let fetched = gripper.control_update(proto::GripperState { width: 0.02, ..Default::default() }).await.unwrap();
        assert_eq!(fetched.into_inner(), command);
        assert_eq!(gripper.get_state(Empty {}).await.unwrap().into_inner().width, 0.02);
    });
}

#[test]
fn a_hand_registers_after_its_homing_carries_out_what_is_stored_and_repeats_its_last_state_when_frozen() {
    let (begin, homing) = (Instant::now(), Duration::from_millis(500));
    let server = SimGripper::start(&GripperOptions { object_m: 0.03, homing, ..GripperOptions::local() }).unwrap();
    run(async {
        let mut gripper = GripperServerClient::new(channel_to(server.local_address()).await);
        while let Err(status) = gripper.get_robot_client_metadata(Empty {}).await {
            assert_eq!((status.code(), status.message()), (Code::Internal, "Failed to serialize response!"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(begin.elapsed() >= homing, "{:?}", begin.elapsed());
        let metadata = gripper.get_robot_client_metadata(Empty {}).await.unwrap().into_inner();
        assert_eq!((metadata.hz, metadata.max_width), (30, 0.08));
        let timestamp = Some(prost_types::Timestamp { seconds: 1, nanos: 1 });
        let grasp = GripperCommand { timestamp, speed: 0.1, force: 9.0, grasp: true, ..Default::default() };
        gripper.goto(GripperCommand { epsilon_inner: -1.0, epsilon_outer: -1.0, ..grasp }).await.unwrap();
        let state = loop {
            let state = gripper.get_state(Empty {}).await.unwrap().into_inner();
            if state.is_grasped {
                break state;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((state.width, state.is_moving, server.motions()), (0.03, false, 1));
        server.freeze(true);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let last = gripper.get_state(Empty {}).await.unwrap().into_inner();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(gripper.get_state(Empty {}).await.unwrap().into_inner(), last);
    });
}

#[test]
fn a_port_in_use_is_said() {
    let server = SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap();
    let options = ServerOptions { address: server.local_address(), ..ServerOptions::local(ServerScene::None) };
    let error = SimServer::start(&options).unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }) && error.to_string().contains("--port"), "{error}");
}

#[test]
fn the_truth_file_is_whole_when_the_server_ends() {
    let path = std::env::temp_dir().join(format!("tenon-truth-{}.jsonl", std::process::id()));
    let options = ServerOptions { truth: Some(path.clone()), ..ServerOptions::local(ServerScene::Avoid) };
    let server = SimServer::start(&options).unwrap();
    let end = Instant::now() + PATIENCE;
    while server.statistics().steps < 60 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(5));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 12 && text.ends_with('\n'), "{} lines", lines.len());
    let times: Vec<i64> = lines.iter().map(|line| line["t_ns"].as_i64().unwrap()).collect();
    assert!(times.is_sorted());
    let start = tenon_core::avoid::START_TCP_M;
    for line in &lines {
        assert_eq!(line["contact"], false);
        for axis in 0..3 {
            assert!((line["tcp"][axis].as_f64().unwrap() - start[axis]).abs() < 2e-3, "{line}");
        }
    }
}
