//! The link over zenoh, in one process and over a local port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, JointTarget, Request, RobotState};
use tenon_core::time::{MonotonicTime, RobotTime};
use tenon_link::{Clock, Heard, LinkError, LinkObserver, RobotKeys, RobotLink, ZenohLink, open_bridge_link};

const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || MonotonicTime::from_nanos(start.elapsed().as_nanos() as i64))
}

fn keys() -> RobotKeys {
    RobotKeys::new("robot").unwrap()
}

/// A port that was free a moment ago.
fn endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp/{}", listener.local_addr().unwrap())
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn state(sequence: u64) -> RobotState {
    RobotState {
        sequence,
        robot_time: RobotTime::from_nanos(5),
        joint_positions_rad: [0.1; 7],
        joint_velocities_rad_s: [0.0; 7],
        joint_torques_external_nm: [0.0; 7],
        gripper_width_m: 0.08,
        gripper: GripperPhase::Absent,
        error_code: 0,
    }
}

fn status(sequence: u64) -> BridgeStatus {
    BridgeStatus {
        sequence,
        state: BridgeState::Idle,
        fault: BridgeFault::None,
        session: 0,
        epoch: 1,
        acknowledged: 0,
        update_us: 0,
        robot_hz: 1000,
    }
}

fn target(sequence: u64) -> JointTarget {
    JointTarget::still(1, sequence, MonotonicTime::from_nanos(0), [0.1; 7])
}

#[test]
fn messages_travel_both_ways_and_to_every_controller() {
    let endpoint = endpoint();
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    inbox.follow(1);
    let connect = || ZenohLink::connect(&endpoint, &keys(), clock(), Duration::from_secs(5)).unwrap();
    let (mut first, mut second) = (connect(), connect());
    let mut sequence = 0;
    wait_for("state and status at both controllers", || {
        sequence += 1;
        sender.publish_state(&state(sequence)).unwrap();
        sender.publish_status(&status(sequence)).unwrap();
        (first.latest_state().is_some() && second.latest_status().is_some()).then_some(())
    });
    wait_for("target", || {
        sequence += 1;
        first.send_target(&target(sequence)).unwrap();
        inbox.latest_target()
    });
    first.send_target(&target(10_000)).unwrap();
    wait_for("newest target", || inbox.latest_target().filter(|t| t.value.sequence == 10_000));
    second.send_request(Request::Arm { session: 8 }).unwrap();
    assert_eq!(wait_for("request", || inbox.next_request()).value, Request::Arm { session: 8 });
    // What is handed over just before the link is closed still arrives.
    second.send_request(Request::Release { session: 8 }).unwrap();
    drop(second);
    assert_eq!(wait_for("last request", || inbox.next_request()).value, Request::Release { session: 8 });
    assert_eq!(inbox.counters().refused, 0);
}

#[test]
fn a_bridge_that_comes_back_is_found_again() {
    let endpoint = endpoint();
    let bridge = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    let mut link = ZenohLink::connect(&endpoint, &keys(), clock(), Duration::from_secs(5)).unwrap();
    drop(bridge);
    let (_sender, mut inbox) = wait_for("free port", || open_bridge_link(&endpoint, &keys(), clock(), || {}).ok());
    inbox.follow(1);
    let mut sequence = 0;
    wait_for("target at the new bridge", || {
        sequence += 1;
        link.send_target(&target(sequence)).unwrap();
        inbox.latest_target()
    });
}

#[test]
fn a_port_in_use_is_said_with_its_mend() {
    let endpoint = endpoint();
    let _bridge = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    let error = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap_err();
    assert_eq!(error, LinkError::PortInUse { endpoint: endpoint.clone() });
    assert!(error.to_string().contains(&endpoint), "{error}");
}

#[test]
fn a_missing_bridge_is_said_with_its_endpoint() {
    let endpoint = endpoint();
    let begin = Instant::now();
    let error = ZenohLink::connect(&endpoint, &keys(), clock(), Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, LinkError::Connect { endpoint: e, .. } if *e == endpoint), "{error}");
    assert!(error.to_string().contains("start tenon-bridge"), "{error}");
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn an_observer_hears_every_message_and_the_bridge_hears_nothing_of_it() {
    let endpoint = endpoint();
    let (sender, mut inbox) = open_bridge_link(&endpoint, &keys(), clock(), || {}).unwrap();
    let mut observer = LinkObserver::connect(&endpoint, &keys(), clock(), Duration::from_secs(5)).unwrap();
    wait_for("the first message", || {
        sender.publish_state(&state(0)).unwrap();
        observer.next_message()
    });
    for sequence in 1..=200 {
        sender.publish_state(&state(sequence)).unwrap();
        sender.publish_status(&status(sequence)).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    let (mut states, mut statuses) = (Vec::new(), Vec::new());
    wait_for("all messages", || {
        while let Some(heard) = observer.next_message() {
            match heard.value {
                Heard::State(state) if state.sequence > 0 => states.push(state.sequence),
                Heard::State(_) => {}
                Heard::Status(status) => statuses.push(status.sequence),
            }
        }
        (states.last() == Some(&200) && statuses.last() == Some(&200)).then_some(())
    });
    assert!(states.is_sorted() && statuses.is_sorted());
    let counters = observer.counters();
    assert_eq!((counters.sent, counters.refused), (0, 0), "{counters:?}");
    let of_bridge = inbox.counters();
    assert_eq!((of_bridge.received, of_bridge.refused), (0, 0), "{of_bridge:?}");
    assert!(inbox.next_request().is_none() && inbox.latest_target().is_none());
}
