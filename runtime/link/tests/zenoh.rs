//! The link over zenoh, in one process and over a local port.

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, clock, endpoint, keys, state, status, target, wait_for};
use tenon_core::message::Request;
use tenon_link::{Heard, LinkError, LinkObserver, RobotLink, ZenohLink, open_bridge_link};

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
    assert_eq!(error, LinkError::PortInUse { endpoint: endpoint.to_string() });
    assert!(error.to_string().contains(endpoint.address()), "{error}");
}

#[test]
fn a_missing_bridge_is_said_with_its_endpoint() {
    let endpoint = endpoint();
    let begin = Instant::now();
    let error = ZenohLink::connect(&endpoint, &keys(), clock(), Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, LinkError::Connect { endpoint: e, .. } if e == endpoint.address()), "{error}");
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
