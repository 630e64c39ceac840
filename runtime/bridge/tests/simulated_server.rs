//! The bridge against the simulated Polymetis server: what it does, and what it does when something goes wrong.

mod rig;

use std::time::Duration;

use rig::{Controller, OtherClient, rig, rig_with, start_server_at};
use tenon_bridge::monotonic_time;
use tenon_core::config::BridgeController;
use tenon_core::message::{BridgeFault, BridgeState, JointTarget, Request};
use tenon_link::{MemoryLink, MessageKind, RobotLink, codec};
use tenon_polymetis::archive::pd_controller;

fn until_joint(controller: &mut Controller<MemoryLink>, joint: usize, goal_rad: f64, tolerance_rad: f64) {
    controller.until(&format!("joint {joint} at {goal_rad}"), |c| {
        let q = c.link.latest_state()?.value.joint_positions_rad[joint];
        ((q - goal_rad).abs() < tolerance_rad).then_some(())
    });
}

/// Waits until the default controller has the arm; the controller of the test goes on meanwhile.
fn until_handed_over(controller: &mut Controller<MemoryLink>, other: &mut OtherClient) {
    controller.until("hand-over to the default controller", |_| (other.episode().end != -1).then_some(()));
}

#[test]
fn an_armed_robot_follows_its_targets_and_a_release_hands_it_back() {
    let mut rig = rig();
    let c = &mut rig.controller;
    let idle = c.until_state(BridgeState::Idle);
    assert_eq!((idle.session, idle.acknowledged), (0, 0));
    let running = c.arm();
    assert_eq!(running.session, 1);
    let goal = c.ramp(0, 0.3)[0];
    until_joint(c, 0, goal, 0.01);
    c.ramp(3, -0.2);
    let status = c.until("acknowledgement", |c| c.status().filter(|s| s.acknowledged > 0 && s.robot_hz > 0));
    assert_eq!(status.robot_hz, 1000);
    assert!(rig.bridge.summary().counts.updates > 0);
    c.release();
    assert_eq!(c.until_state(BridgeState::Idle).session, 0);
    let mut other = OtherClient::new(rig.address);
    until_handed_over(c, &mut other);
    let updates = rig.bridge.summary().counts.updates;
    c.ramp(0, -0.1);
    c.for_a_while(Duration::from_millis(100));
    let q = f64::from(other.positions()[0]);
    assert!((q - goal).abs() < 0.05, "the default controller holds: {q} instead of {goal}");
    assert_eq!(rig.bridge.summary().counts.updates, updates, "a released arm follows nobody");
}

#[test]
fn an_arm_that_is_released_in_motion_rests_by_its_plan_before_the_default_controller_has_it() {
    let mut rig = rig();
    let mut other = OtherClient::new(rig.address);
    let c = &mut rig.controller;
    c.arm();
    c.ramp_until(0, 1.2, |c| c.motion.unwrap()[0].velocity_rad_s > 1.3);
    c.release();
    c.silent = true;
    let released = other.fastest();
    assert!(released > 0.2, "it moves: {released} rad/s");
    assert_eq!(c.until_state(BridgeState::Idle).session, 0);
    until_handed_over(c, &mut other);
    let handed_over = other.fastest();
    assert!(handed_over < 0.15, "handed over at {handed_over} rad/s");
}

#[test]
fn the_stock_joint_law_is_uploaded_where_it_is_asked_for_and_all_cartesian_gains_are_zero() {
    let mut rig = rig_with(|options| {
        options.controller = BridgeController::Stock;
        options.cartesian_stiffness = [0.0; 6];
        options.cartesian_damping = [0.0; 6];
    });
    let c = &mut rig.controller;
    c.arm();
    let goal = c.ramp(6, 0.2)[6];
    until_joint(c, 6, goal, 0.02);
}

#[test]
fn a_second_session_is_refused_and_told_who_commands() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    let held = c.state().joint_positions_rad;
    c.hold(held);
    for _ in 0..5 {
        c.link.send_request(Request::Arm { session: 2 }).unwrap();
        c.send();
    }
    c.until("refusal", |_| (rig.bridge.summary().counts.arm_refused >= 1).then_some(()));
    let status = c.status().unwrap();
    assert_eq!((status.state, status.session), (BridgeState::Running, 1));
    let foreign = JointTarget::still(2, u64::MAX, monotonic_time(), [0.0; 7]);
    c.link.send_target(&foreign).unwrap();
    c.link.send_request(Request::Release { session: 2 }).unwrap();
    c.until("ignored target", |_| (rig.bridge.summary().counts.targets_ignored >= 1).then_some(()));
    assert_eq!(c.until_state(BridgeState::Running).session, 1);
}

#[test]
fn a_silent_commander_loses_the_arm_and_another_may_take_it() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    c.silent = true;
    assert_eq!(c.until_fault(), BridgeFault::HeartbeatLost);
    until_handed_over(c, &mut OtherClient::new(rig.address));
    assert_eq!(c.status().unwrap().session, 0);
    (c.silent, c.session) = (false, 2);
    assert_eq!(c.arm().session, 2);
}

#[test]
fn a_killed_server_ends_the_stream_and_a_restarted_one_gets_no_update() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    let held = c.state().joint_positions_rad;
    c.hold(held);
    c.until("updates", |_| (rig.bridge.summary().counts.updates > 3).then_some(()));
    rig.server.take().unwrap().kill();
    assert_eq!(c.until_fault(), BridgeFault::ServerGone);
    let before = rig.bridge.summary().counts;

    let server = start_server_at(rig.address);
    let mut other = OtherClient::new(rig.address);
    c.for_a_while(Duration::from_millis(300));
    let after = rig.bridge.summary().counts;
    assert_eq!((after.updates, after.updates_failed), (before.updates, before.updates_failed));
    assert_eq!((other.episode().start, other.episode().end), (-1, -1));
    assert_eq!(c.until_fault(), BridgeFault::ServerGone, "the fault stays until it is armed again");
    c.motion = None;
    c.arm();
    let goal = c.ramp(0, 0.1)[0];
    until_joint(c, 0, goal, 0.02);
    drop(server);
}

#[test]
fn a_server_restarted_at_once_is_noticed() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    // Only heartbeats: no update can be the one that notices.
    rig.server.take().unwrap().kill();
    let _server = start_server_at(rig.address);
    let fault = c.until_fault();
    // Which of the two depends on whether a call was under way when the connection broke.
    assert!(matches!(fault, BridgeFault::ServerGone | BridgeFault::ServerRestarted), "{fault:?}");
    assert_eq!(rig.bridge.summary().counts.updates, 0);
}

#[test]
fn a_controller_that_was_dropped_or_replaced_is_noticed() {
    let mut rig = rig();
    let mut other = OtherClient::new(rig.address);
    let c = &mut rig.controller;
    c.arm();
    other.terminate();
    assert_eq!(c.until_fault(), BridgeFault::ControllerDropped);
    c.arm();
    let q: [f32; 7] = other.positions().try_into().unwrap();
    let theirs = other.set(&pd_controller(&q, &[40.0; 7], &[4.0; 7]).unwrap());
    assert_eq!(c.until_fault(), BridgeFault::ControllerReplaced);
    c.for_a_while(Duration::from_millis(200));
    let episode = other.episode();
    assert_eq!((episode.start, episode.end), (theirs, -1), "the other client's controller is not ours to end");
}

#[test]
fn a_robot_that_stops_is_a_fault_when_armed_and_no_robot_when_idle() {
    let mut rig = rig();
    let server = rig.server.as_ref().unwrap();
    let c = &mut rig.controller;
    c.until_state(BridgeState::Idle);
    server.pause_robot(true);
    c.until_state(BridgeState::NoRobot);
    // Arming is refused, and nothing hangs: the server's own SetController never would return.
    c.link.send_request(Request::Arm { session: 1 }).unwrap();
    assert_eq!(c.until_fault(), BridgeFault::RobotGone);
    server.pause_robot(false);
    c.arm();
    server.pause_robot(true);
    assert_eq!(c.until_fault(), BridgeFault::RobotGone);
    server.pause_robot(false);
    // Whether the pause was shorter or longer than the server's second: in the end the default controller holds.
    until_handed_over(c, &mut OtherClient::new(rig.address));
    c.arm();
}

#[test]
fn unsound_targets_never_reach_the_server() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    let q = c.state().joint_positions_rad;
    let raw = |c: &mut Controller<MemoryLink>, change: &dyn Fn(&mut [u8])| {
        c.sequence += 1;
        let mut target = JointTarget::still(1, c.sequence, monotonic_time(), q);
        target.joint_positions_rad[0] = f64::NAN;
        let mut bytes = codec::encode_target(&target);
        change(&mut bytes);
        c.link.send_raw(MessageKind::Target, &bytes);
    };
    raw(c, &|_| {});
    raw(c, &|bytes| bytes[0] = 77);
    c.for_a_while(Duration::from_millis(100));
    assert_eq!(c.until_state(BridgeState::Running).session, 1, "unreadable messages are only counted");
    let counts = rig.bridge.summary().counts;
    assert_eq!((counts.updates, counts.messages_refused), (0, 2));
    // A readable one beyond the limits was not made by the safety stage: the stream ends.
    let mut beyond = q;
    beyond[3] = 0.5;
    c.hold(beyond);
    assert_eq!(c.until_fault(), BridgeFault::UpdateRefused);
    let counts = rig.bridge.summary().counts;
    assert_eq!((counts.updates, counts.targets_refused), (0, 1));
    until_handed_over(c, &mut OtherClient::new(rig.address));
}

#[test]
fn a_stopped_bridge_leaves_the_arm_to_the_default_controller() {
    let mut rig = rig();
    rig.controller.arm();
    let mut other = OtherClient::new(rig.address);
    assert_eq!(other.episode().end, -1);
    rig.bridge.stop();
    assert_ne!(other.episode().end, -1);
}

#[test]
fn a_bridge_without_a_server_says_so_and_finds_it_later() {
    let mut rig = rig();
    rig.server.take().unwrap().kill();
    rig.controller.until_state(BridgeState::NoServer);
    let _server = start_server_at(rig.address);
    rig.controller.until_state(BridgeState::Idle);
}

/// Where the arm stands and how fast it moves, every 2 ms until `end`.
fn watch(other: &mut OtherClient, time: Duration) -> Vec<(f64, f64)> {
    let begin = std::time::Instant::now();
    let mut seen = Vec::new();
    while begin.elapsed() < time {
        seen.push((begin.elapsed().as_secs_f64(), f64::from(other.positions()[0])));
        std::thread::sleep(Duration::from_millis(2));
    }
    seen
}

#[test]
fn a_commander_that_dies_in_full_motion_leaves_an_arm_that_comes_to_rest_by_its_plan() {
    let mut rig = rig();
    let mut other = OtherClient::new(rig.address);
    let c = &mut rig.controller;
    c.arm();
    // Into the motion, then silence: neither targets nor heartbeats.
    let goal = c.ramp_until(0, 0.8, |c| c.motion.unwrap()[0].velocity_rad_s > 0.9);
    c.silent = true;
    let seen = watch(&mut other, Duration::from_millis(600));
    let rest = seen.last().unwrap().1;
    assert!(rest < goal - 0.1, "it stopped on the way: {rest} of {goal}");
    // The lead, the stop from there (0.15 s), and what impedance takes to settle.
    let moving = seen.iter().filter(|(_, q)| (q - rest).abs() > 0.01).map(|(t, _)| *t).fold(0.0, f64::max);
    assert!(moving < 0.35, "still moving after {moving} s");
    let back = seen.iter().map(|(_, q)| q - rest).fold(0.0, f64::max);
    assert!(back < 0.02, "it overshot by {back}");
    assert_eq!(c.until_fault(), BridgeFault::HeartbeatLost);
}
