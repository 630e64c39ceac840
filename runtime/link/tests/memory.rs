//! The link in memory: the contract that both links keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::time::MonotonicTime;
use tenon_link::{DecodeError, LinkError, MessageKind, RobotLink, codec, memory_link};

fn state(sequence: u64) -> RobotState {
    RobotState { sequence, gripper_width_m: 0.08, ..RobotState::at_rest([0.1; 7]) }
}

fn target(sequence: u64) -> JointTarget {
    JointTarget::still(1, sequence, MonotonicTime::from_nanos(0), [0.1; 7])
}

#[test]
fn the_latest_value_wins_and_is_stamped_at_its_arrival() {
    let time = Arc::new(AtomicI64::new(0));
    let wakes = Arc::new(AtomicU64::new(0));
    let (clock_time, wake_count) = (Arc::clone(&time), Arc::clone(&wakes));
    let (mut link, sender, mut inbox) = memory_link(
        Arc::new(move || MonotonicTime::from_nanos(clock_time.load(Ordering::Relaxed))),
        move || {
            wake_count.fetch_add(1, Ordering::Relaxed);
        },
        |_| true,
    );
    inbox.follow(1);
    assert!(link.latest_state().is_none() && link.latest_status().is_none() && inbox.latest_target().is_none());
    for sequence in 1..=3 {
        time.store(10 * sequence as i64, Ordering::Relaxed);
        sender.publish_state(&state(sequence)).unwrap();
        link.send_target(&target(sequence)).unwrap();
        link.send_request(Request::Heartbeat { session: sequence }).unwrap();
    }
    let newest = link.latest_state().unwrap();
    assert_eq!((newest.value.sequence, newest.time.as_nanos()), (3, 30));
    assert_eq!(link.latest_state(), Some(newest), "it stays until a newer one comes");
    assert_eq!(inbox.latest_target().unwrap().value.sequence, 3);
    for session in 1..=3 {
        assert_eq!(inbox.next_request().unwrap().value, Request::Heartbeat { session }, "requests queue in order");
    }
    assert!(inbox.next_request().is_none());
    assert_eq!(wakes.load(Ordering::Relaxed), 6);
    let status = BridgeStatus {
        sequence: 1,
        state: BridgeState::Running,
        fault: BridgeFault::None,
        session: 1,
        epoch: 1,
        acknowledged: 3,
        update_us: 900,
        robot_hz: 1000,
    };
    sender.publish_status(&status).unwrap();
    assert_eq!(link.latest_status().unwrap().value, status);
    assert_eq!(link.counters().received, 4);
    assert_eq!(inbox.counters().received, 6);
}

#[test]
fn dropped_messages_do_not_arrive() {
    let (mut link, sender, mut inbox) = memory_link(
        Arc::new(MonotonicTime::default),
        || {},
        |kind| matches!(kind, MessageKind::Request | MessageKind::Status),
    );
    link.send_target(&target(1)).unwrap();
    link.send_request(Request::Arm { session: 1 }).unwrap();
    sender.publish_state(&state(1)).unwrap();
    assert!(inbox.latest_target().is_none() && link.latest_state().is_none());
    assert_eq!(inbox.next_request().unwrap().value, Request::Arm { session: 1 });
}

#[test]
fn a_nan_target_is_refused_at_both_ends() {
    let (mut link, _sender, mut inbox) = memory_link(Arc::new(MonotonicTime::default), || {}, |_| true);
    inbox.follow(1);
    let mut nan = target(1);
    nan.joint_positions_rad[2] = f64::NAN;
    assert_eq!(link.send_target(&nan), Err(LinkError::NotFinite { joint: 2 }));
    link.send_raw(MessageKind::Target, &codec::encode_target(&nan));
    assert!(inbox.latest_target().is_none());
    let counters = inbox.counters();
    assert_eq!(counters.refused, 1);
    assert_eq!(counters.last_refusal, Some(DecodeError::NotFinite { field: "target", joint: 2 }));
}

#[test]
fn a_peer_of_another_version_is_named() {
    let (mut link, _sender, mut inbox) = memory_link(Arc::new(MonotonicTime::default), || {}, |_| true);
    inbox.follow(1);
    let mut bytes = codec::encode_target(&target(1));
    bytes[0] = 9;
    link.send_raw(MessageKind::Target, &bytes);
    assert!(inbox.latest_target().is_none());
    assert_eq!(inbox.counters().last_refusal, Some(DecodeError::Version { found: 9 }));
}

#[test]
fn a_stranger_never_displaces_the_commander() {
    let (mut link, _sender, mut inbox) = memory_link(Arc::new(MonotonicTime::default), || {}, |_| true);
    link.send_target(&target(1)).unwrap();
    assert!(inbox.latest_target().is_none(), "nobody commands yet");
    inbox.follow(1);
    link.send_target(&target(2)).unwrap();
    link.send_target(&JointTarget { session: 2, ..target(3) }).unwrap();
    assert_eq!(inbox.latest_target().unwrap().value.sequence, 2);
    assert_eq!(inbox.counters().foreign, 2);
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let (mut link, _sender, mut inbox) = memory_link(Arc::new(MonotonicTime::default), || {}, |_| true);
    for session in 0..1000 {
        link.send_request(Request::Heartbeat { session }).unwrap();
    }
    let kept = std::iter::from_fn(|| inbox.next_request()).count();
    assert!(kept <= 64, "{kept}");
    assert_eq!(inbox.counters().dropped, 1000 - kept as u64);
}
