//! What was observed on the real server (spec `polymetis.md` §4), the ugly parts included.

use std::time::{Duration, Instant};

use tenon_polymetis::archive::zip::{ZipArchive, ZipWriter};
use tenon_polymetis::archive::{
    JOINT_POS_DESIRED, LIMITS, TensorData, TensorValue, hybrid_controller, pd_controller, write_parameters,
};
use tenon_polymetis::proto::{Empty, LogInterval, RobotState};
use tenon_polymetis::waypoints::{Gains, Plan, StepClock, Waypoint, WaypointSettings, waypoint_controller};
use tonic::Code;

use super::tests::{KQ, KQD, cancelled, client, positions, run, target, upload};
use super::{ServerOptions, ServerScene, SimServer, panda_urdf};

const NOTHING_TO_UPDATE: &str = "Tried to perform a controller update with no controller running.";
const NOTHING_TO_TERMINATE: &str = "Tried to terminate controller with no controller running.";
/// Long enough to say that a call hangs.
const HANGS: Duration = Duration::from_millis(300);

fn server() -> SimServer {
    SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap()
}

/// An archive with a piece of its class text replaced.
fn with_text(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    let zip = ZipArchive::open(archive, &LIMITS).unwrap();
    let mut out = ZipWriter::new(&LIMITS);
    for (name, data) in zip.entries() {
        let mut data = data.to_vec();
        if name == "code/__torch__.py" {
            let text = String::from_utf8(data).unwrap();
            assert!(text.contains(from));
            data = text.replace(from, to).into_bytes();
        }
        out.add(&format!("{}/{name}", zip.top_folder()), &data).unwrap();
    }
    out.finish().0
}

fn parameters(name: &str, shape: &[usize], data: TensorData) -> Vec<u8> {
    write_parameters(&[(name, &TensorValue::new(shape.to_vec(), data).unwrap())]).unwrap()
}

fn seconds(state: &RobotState) -> f64 {
    let stamp = state.timestamp.unwrap();
    stamp.seconds as f64 + f64::from(stamp.nanos) * 1e-9
}

/// §4.3: a valid archive before any SetController since the server started.
#[test]
fn an_update_before_any_controller_kills_the_server() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        assert!(!server.has_ended());
        let status = c.update_controller(upload(&target(&[0.0; 7]))).await.unwrap_err();
        assert_ne!(status.code(), Code::Cancelled, "{status:?}");
        assert!(c.get_robot_state(Empty {}).await.is_err());
    });
    let end = Instant::now() + Duration::from_secs(10);
    while !server.has_ended() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// §4.2, §4.4: without a robot client the call keeps the mutex; its cancellation frees nothing, the robot does.
#[test]
fn a_set_without_a_robot_hangs_with_all_that_follow_until_the_robot_is_back() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let archive = pd_controller(&q, &KQ, &KQD).unwrap();
        server.pause_robot(true);
        // Metadata is the cheapest probe: refused after a second.
        loop {
            match c.get_robot_client_metadata(Empty {}).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(status) => {
                    let text = "Robot context not valid when calling GetRobotClientMetadata!";
                    assert_eq!((status.code(), status.message()), (Code::Cancelled, text));
                    break;
                }
            }
        }
        let waiting = tokio::spawn({
            let (mut c, archive) = (c.clone(), archive.clone());
            async move { c.set_controller(upload(&archive)).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..2 {
            let hung = tokio::time::timeout(HANGS, c.clone().update_controller(upload(&target(&q)))).await;
            assert!(hung.is_err(), "{hung:?}");
            assert!(tokio::time::timeout(HANGS, c.clone().terminate_controller(Empty {})).await.is_err());
            assert!(tokio::time::timeout(HANGS, c.clone().set_controller(upload(&archive))).await.is_err());
        }
        assert!(!waiting.is_finished());
        // These take no lock, and serve what is old.
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!((interval.start, interval.end), (-1, -1));
        let first = c.get_robot_state(Empty {}).await.unwrap().into_inner();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(c.get_robot_state(Empty {}).await.unwrap().into_inner(), first);
        server.pause_robot(false);
        let answer = waiting.await.unwrap().unwrap().into_inner();
        assert_eq!(answer.start, -1, "OK, and it never ran: {answer:?}");
        assert_eq!(cancelled(c.terminate_controller(Empty {})).await, NOTHING_TO_TERMINATE);
        assert_eq!(cancelled(c.update_controller(upload(&target(&q)))).await, NOTHING_TO_UPDATE);
    });
}

/// §4.2: errors in loading or warm-up reject the upload and leave the running controller alone.
#[test]
fn a_text_that_is_not_known_or_fails_is_refused_and_the_running_controller_stays() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let sound = pd_controller(&q, &KQ, &KQD).unwrap();
        let begin = Instant::now();
        let set = c.set_controller(upload(&sound)).await.unwrap().into_inner();
        assert!(begin.elapsed() >= Duration::from_millis(20), "at least one poll");
        let unknown = with_text(&sound, "torch.sub(e, d)", "torch.linalg_cross(e, d)");
        let text = cancelled(c.set_controller(upload(&unknown))).await;
        assert!(text.contains("__torch__ line 9: unknown operator torch.linalg_cross"), "{text}");
        let raising = with_text(&sound, "s[\"joint_velocities\"]", "s[\"joint_accelerations\"]");
        let text = cancelled(c.set_controller(upload(&raising))).await;
        assert!(text.contains("KeyError: joint_accelerations"), "{text}");
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!((interval.start, interval.end), (set.start, -1));
        assert!(c.update_controller(upload(&target(&q))).await.is_ok());
        // In one message, too, and at once in place of the other: no TERMINATING in between.
        let whole = tenon_polymetis::proto::ControllerChunk { torchscript_binary_chunk: sound };
        let again = c.set_controller(tokio_stream::iter([whole])).await.unwrap().into_inner();
        assert!(again.start > set.start && again.end == -1);
    });
}

/// §4.3, the table.
#[test]
fn every_kind_of_update_is_answered_as_observed() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let set = c.set_controller(upload(&pd_controller(&q, &KQ, &KQD).unwrap())).await.unwrap().into_inner();
        let doubles = TensorData::F64(q.map(f64::from).to_vec());
        let ok = c.update_controller(upload(&parameters(JOINT_POS_DESIRED, &[7], doubles))).await.unwrap().into_inner();
        assert!(ok.start > set.start && ok.end == -1);
        let prefix = "Failed to update controller: ";
        for archive in [
            parameters(JOINT_POS_DESIRED, &[6], TensorData::F32(vec![0.0; 6])),
            parameters(JOINT_POS_DESIRED, &[1, 7], TensorData::F32(vec![0.0; 7])),
            parameters("ee_pos_desired", &[7], TensorData::F32(vec![0.0; 7])),
        ] {
            let text = cancelled(c.update_controller(upload(&archive))).await;
            assert!(text.starts_with(prefix), "{text}");
        }
        let sound = target(&q);
        for archive in [&b"no zip"[..], &sound[..400], &[]] {
            let text = cancelled(c.update_controller(upload(archive))).await;
            assert_eq!(text, "Failed to load new controller params.");
        }
        let wanting = with_text(&sound, "self: __torch__.P", "self: __torch__.P, x: int");
        let status = c.update_controller(upload(&wanting)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unknown, "Unexpected error in RPC handling"));
        // One value goes to all joints; NaN to the torques. Nobody checks.
        c.update_controller(upload(&parameters(JOINT_POS_DESIRED, &[1], TensorData::F32(vec![f32::NAN]))))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let state = c.get_robot_state(Empty {}).await.unwrap().into_inner();
        assert!(state.joint_torques_computed.iter().all(|torque| torque.is_nan()), "{state:?}");
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!((interval.start, interval.end), (set.start, -1), "it runs through all of this");
        let begin = Instant::now();
        let ended = c.terminate_controller(Empty {}).await.unwrap().into_inner();
        assert!(begin.elapsed() >= Duration::from_millis(20) && ended.end > ok.start);
        assert_eq!(cancelled(c.terminate_controller(Empty {})).await, NOTHING_TO_TERMINATE);
        assert_eq!(cancelled(c.update_controller(upload(&target(&q)))).await, NOTHING_TO_UPDATE);
    });
}

/// §4.6, §8: `forward` raises, the hardware client's loop throws, and a second later the controller is gone.
#[test]
fn a_controller_that_raises_is_dropped_when_the_robot_client_has_recovered() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let fragile = with_text(
            &pd_controller(&q, &KQ, &KQD).unwrap(),
            "_0 = torch.copy_(self.qd, u[\"joint_pos_desired\"])",
            "self.qd = u[\"joint_pos_desired\"]",
        );
        let set = c.set_controller(upload(&fragile)).await.unwrap().into_inner();
        let six = parameters(JOINT_POS_DESIRED, &[6], TensorData::F32(vec![0.0; 6]));
        c.update_controller(upload(&six)).await.unwrap();
        let before = c.get_robot_state(Empty {}).await.unwrap().into_inner();
        let ended = loop {
            let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
            if interval.end != -1 {
                break interval;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(ended.start, set.start);
        let after = c.get_robot_state(Empty {}).await.unwrap().into_inner();
        assert!(seconds(&after) - seconds(&before) > 0.9, "a gap of a second");
        assert_eq!(cancelled(c.update_controller(upload(&target(&q)))).await, NOTHING_TO_UPDATE);
    });
}

/// §4.4: `is_terminated` is asked after each step; the next one is the default controller's.
#[test]
fn a_controller_may_end_itself() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let mut q = positions(&mut c).await;
        let ending = with_text(
            &pd_controller(&q, &KQ, &KQD).unwrap(),
            "return False",
            "return bool(torch.gt(torch.select(self.qd, 0, 6), 2.))",
        );
        let set = c.set_controller(upload(&ending)).await.unwrap().into_inner();
        q[6] = 2.5;
        let update = c.update_controller(upload(&target(&q))).await.unwrap().into_inner();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let interval = c.get_episode_interval(Empty {}).await.unwrap().into_inner();
        assert_eq!(
            (interval.start, interval.end),
            (set.start, update.start),
            "its last step is the first that ended it"
        );
        assert_eq!(cancelled(c.update_controller(upload(&target(&q)))).await, NOTHING_TO_UPDATE);
    });
}

/// §4.5: bursts of 20 ms, in order and without gaps; a far end is waited for until the client cancels.
#[test]
fn streams_come_in_bursts_and_a_log_with_a_far_end_does_not_end() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let mut stream = c.get_robot_state_stream(Empty {}).await.unwrap().into_inner();
        let (mut stamps, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
        while stamps.len() < 300 {
            let state = stream.message().await.unwrap().unwrap();
            if !stamps.is_empty() {
                longest = longest.max(last.elapsed());
            }
            last = Instant::now();
            stamps.push(seconds(&state));
        }
        assert!(stamps.is_sorted() && longest >= Duration::from_millis(15), "{longest:?}");
        let mut log = c.get_robot_state_log(LogInterval { start: 10, end: 19 }).await.unwrap().into_inner();
        let mut count = 0;
        while log.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 10, "both ends count");
        let mut log = c.get_robot_state_log(LogInterval { start: 0, end: i32::MAX }).await.unwrap().into_inner();
        let all = async { while log.message().await.unwrap().is_some() {} };
        assert!(tokio::time::timeout(HANGS, all).await.is_err());
    });
}

/// The text of Tenon's own controller over the network: late, lost and bunched updates, then none.
#[test]
fn tenons_controller_moves_smoothly_whatever_the_network_does() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let start = positions(&mut c).await.map(f64::from);
        let settings = WaypointSettings {
            lower_rad: tenon_core::arm::POLYMETIS_LOWER_RAD.map(|q| q + 0.05),
            upper_rad: tenon_core::arm::POLYMETIS_UPPER_RAD.map(|q| q - 0.05),
            velocity_rad_s: [1.5; 7],
            acceleration_rad_s2: [7.5; 7],
            braking_rad_s2: [5.0; 7],
            rate_hz: 1000,
            patience_steps: 200,
            longest_join_steps: 500,
            shortest_brake_steps: 20,
            session: 77,
        };
        // Soft: joint 2 stands near zero here, where joints 1 and 3 have no inertia against each other.
        let gains = Gains { kq: [60.0; 7], kqd: [6.0; 7], kx: [0.0; 6], kxd: [0.0; 6] };
        let archive = waypoint_controller(&settings, &gains, &panda_urdf()).unwrap();
        let set = c.set_controller(upload(&archive)).await.unwrap().into_inner();
        let mut clock = StepClock::new(i64::from(set.start), 1000);
        let epoch = Instant::now();
        // Joint 1 to and fro, joints 4 and 6 with it; at rest until step 300.
        let way = |step: i64| {
            let t = (step - 300).max(0) as f64 * 1e-3;
            let wave = |size: f64| (size * (1.0 - (2.0 * t).cos()), 2.0 * size * (2.0 * t).sin());
            let mut w = Waypoint { positions_rad: start, velocities_rad_s: [0.0; 7] };
            for (joint, size) in [(0, 0.15), (3, -0.08), (5, 0.1)] {
                let (q, v) = wave(size);
                w.positions_rad[joint] += q;
                w.velocities_rad_s[joint] = v;
            }
            w
        };
        let mut sequence = 0;
        let mut refused = 0;
        let (mut heard, mut longest_silence) = (0, 0);
        while epoch.elapsed() < Duration::from_secs(3) {
            sequence += 1;
            let asked = epoch.elapsed().as_secs_f64();
            let now = clock.step_at(asked).map_or(0, |(step, _)| step as i64).max(0);
            let first_step = now / 20 * 20;
            let plan = Plan {
                session: 77,
                sequence,
                first_step,
                spacing_steps: 20,
                waypoints: (0..12).map(|k| way(first_step + 20 * k)).collect(),
            };
            plan.check(&settings).unwrap();
            // Every fifth gets lost, the others are up to 60 ms late.
            tokio::time::sleep(Duration::from_millis((sequence * 37 % 61) as u64)).await;
            if sequence % 5 == 0 {
                continue;
            }
            let sent = epoch.elapsed().as_secs_f64();
            match c.update_controller(upload(&plan.to_archive().unwrap())).await {
                Ok(answer) => {
                    let index = i64::from(answer.into_inner().start);
                    longest_silence = longest_silence.max(index - i64::from(set.start) - heard);
                    heard = index - i64::from(set.start);
                    clock.observe(sent, epoch.elapsed().as_secs_f64(), index);
                }
                Err(status) => {
                    assert!(status.message().contains("plan: "), "{status:?}");
                    refused += 1;
                }
            }
        }
        // On a machine that is too busy to send for so long the dead-man acts, rightly.
        let in_time = longest_silence < 150;
        assert!(refused == 0 || !in_time, "{refused} refused");
        // Nobody sends any more: it comes to rest by itself.
        tokio::time::sleep(Duration::from_millis(900)).await;
        let state = c.get_robot_state(Empty {}).await.unwrap().into_inner();
        assert!(state.joint_velocities.iter().all(|v| v.abs() < 0.06), "{state:?}");
        let end = c.terminate_controller(Empty {}).await.unwrap().into_inner().end;
        let mut log = c.get_robot_state_log(LogInterval { start: set.start, end }).await.unwrap().into_inner();
        let mut states = Vec::new();
        while let Some(state) = log.message().await.unwrap() {
            states.push(state);
        }
        // Accelerations over 10 ms, as measured by the velocities; torques from step to step.
        let (mut acceleration, mut torque_step, mut late) = (0.0_f32, 0.0_f32, 0.0_f64);
        for k in 10..states.len() {
            for joint in [0, 3, 5] {
                let v = |at: usize| states[at].joint_velocities[joint];
                acceleration = acceleration.max((v(k) - v(k - 10)).abs() / 0.01);
                let tau = |at: usize| states[at].joint_torques_computed[joint];
                torque_step = torque_step.max((tau(k) - tau(k - 1)).abs());
                if (400..2800).contains(&k) {
                    let wanted = way(k as i64).positions_rad[joint];
                    late = late.max((wanted - f64::from(states[k].joint_positions[joint])).abs());
                }
            }
        }
        println!(
            "{sequence} plans: {acceleration:.2} rad/s², torque by {torque_step:.3} N·m a step, {late:.4} rad off"
        );
        assert!(acceleration < 6.0 && torque_step < 0.5, "{acceleration} {torque_step}");
        assert!(late < 0.03 || !in_time, "{late}");
    });
}

/// The stock hybrid law from its text, over the server: what `RobotInterface` starts (§5).
#[test]
fn the_stock_hybrid_controller_holds_the_arm() {
    let server = server();
    run(async {
        let mut c = client(&server).await;
        let q = positions(&mut c).await;
        let (kq, kqd) = ([40.0, 30.0, 50.0, 25.0, 35.0, 25.0, 10.0], [4.0, 6.0, 5.0, 5.0, 3.0, 2.0, 1.0]);
        let (kx, kxd) = ([750.0, 750.0, 750.0, 15.0, 15.0, 15.0], [37.0, 37.0, 37.0, 2.0, 2.0, 2.0]);
        let archive = hybrid_controller(&q, &kq, &kqd, &kx, &kxd, &panda_urdf()).unwrap();
        c.set_controller(upload(&archive)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = positions(&mut c).await;
        assert!((0..7).all(|i| (now[i] - q[i]).abs() < 1e-3), "{now:?}");
    });
}
