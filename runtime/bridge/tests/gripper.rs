//! The bridge against the simulated arm and the simulated hand: what becomes of commands, and of those that nothing
//! becomes of.

mod rig;

use std::time::{Duration, Instant};

use rig::{Controller, OtherClient, PATIENCE, Rig, rig, rig_with, robot_config};
use tenon_bridge::BridgeOptions;
use tenon_core::config::GripperConfig;
use tenon_core::message::{BridgeState, GripperCommand, GripperPhase, Request, RobotState};
use tenon_link::{MemoryLink, RobotLink};
use tenon_sim::server::{GripperOptions, SimGripper};

/// Width of the part that is grasped, m.
const PART_M: f64 = 0.03;
const OBSERVED_MAX_M: f64 = 0.065;
const TIMEOUT: Duration = Duration::from_secs(2);

fn config(hand: &SimGripper) -> GripperConfig {
    GripperConfig {
        server: hand.local_address().to_string(),
        open_width_m: 0.08,
        open_speed_m_s: 0.1,
        close_speed_m_s: 0.1,
        close_force_n: 9.0,
        timeout_s: TIMEOUT.as_secs_f64(),
        observed_max_m: OBSERVED_MAX_M,
        toggle_threshold: 0.25,
        toggle_min_actions: 10,
    }
}

fn hand(object_m: f64) -> SimGripper {
    SimGripper::start(&GripperOptions { object_m, ..GripperOptions::local() }).unwrap()
}

/// An armed arm whose hand reports that it is open.
fn armed_rig(hand: &SimGripper) -> Rig {
    let mut rig = rig_with(|options| options.gripper = Some(config(hand)));
    rig.controller.arm();
    until_phase(&mut rig.controller, GripperPhase::Open);
    rig
}

fn until_phase(c: &mut Controller<MemoryLink>, phase: GripperPhase) -> RobotState {
    c.until(&format!("{phase:?}"), |c| c.link.latest_state().map(|s| s.value).filter(|s| s.gripper == phase))
}

fn ask(c: &mut Controller<MemoryLink>, command: GripperCommand) {
    let session = c.session;
    c.link.send_request(Request::Gripper { session, command }).unwrap();
}

/// The phases from a command to its end.
fn course(c: &mut Controller<MemoryLink>, command: GripperCommand, end: GripperPhase) -> Vec<GripperPhase> {
    ask(c, command);
    let mut seen = Vec::new();
    c.until(&format!("{end:?}"), |c| {
        let phase = c.link.latest_state()?.value.gripper;
        if seen.last() != Some(&phase) {
            seen.push(phase);
        }
        (phase == end).then_some(())
    });
    // The state that was there when it was asked.
    seen.retain(|phase| *phase == GripperPhase::Opening || *phase == GripperPhase::Closing || *phase == end);
    seen
}

#[test]
fn a_hand_closes_on_an_object_and_opens_again() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    let open = until_phase(c, GripperPhase::Open);
    assert_eq!(open.gripper_width_m, OBSERVED_MAX_M, "an open hand is as wide as policies saw it");
    assert_eq!(course(c, GripperCommand::Close, GripperPhase::Holding), [GripperPhase::Closing, GripperPhase::Holding]);
    let holding = until_phase(c, GripperPhase::Holding);
    assert!((holding.gripper_width_m - PART_M).abs() < 1e-6, "{holding:?}");
    assert_eq!(course(c, GripperCommand::Open, GripperPhase::Open), [GripperPhase::Opening, GripperPhase::Open]);
    assert_eq!(until_phase(c, GripperPhase::Open).gripper_width_m, OBSERVED_MAX_M);
    let counts = rig.bridge.summary().counts;
    assert_eq!((counts.gripper_commands, counts.gripper_ignored, counts.gripper_time_outs), (2, 0, 0));
}

#[test]
fn a_hand_that_closes_on_nothing_is_empty() {
    let hand = hand(0.0);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    course(c, GripperCommand::Close, GripperPhase::Empty);
    assert_eq!(until_phase(c, GripperPhase::Empty).gripper_width_m, 0.0);
}

#[test]
fn a_part_that_is_taken_out_of_the_hand_is_no_longer_held() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    course(c, GripperCommand::Close, GripperPhase::Holding);
    hand.put_object(0.0);
    until_phase(c, GripperPhase::Empty);
    c.until("closed fingers", |c| (c.link.latest_state()?.value.gripper_width_m == 0.0).then_some(()));
    assert_eq!(until_phase(c, GripperPhase::Empty).gripper_width_m, 0.0);
    course(c, GripperCommand::Open, GripperPhase::Open);
}

#[test]
fn a_repeated_command_moves_the_hand_once() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    c.until("Holding", |c| {
        ask(c, GripperCommand::Close);
        (c.link.latest_state()?.value.gripper == GripperPhase::Holding).then_some(())
    });
    for _ in 0..20 {
        ask(c, GripperCommand::Close);
        c.for_a_while(Duration::from_millis(5));
    }
    c.for_a_while(Duration::from_millis(200));
    assert_eq!((hand.motions(), rig.bridge.summary().counts.gripper_commands), (1, 1));
    assert_eq!(until_phase(c, GripperPhase::Holding).gripper, GripperPhase::Holding);
}

#[test]
fn a_hand_that_hangs_times_out_while_the_arm_goes_on_and_its_late_end_is_noted() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    let held = c.state().joint_positions_rad;
    c.hold(held);
    c.until("updates", |_| (rig.bridge.summary().counts.updates > 3).then_some(()));
    hand.hang(true);
    let (before, begin) = (rig.bridge.summary().counts, Instant::now());
    course(c, GripperCommand::Close, GripperPhase::TimedOut);
    let (after, taken) = (rig.bridge.summary().counts, begin.elapsed());
    println!("timed out after {taken:?}; {} updates, {:?}", after.updates - before.updates, rig.bridge.summary());
    assert!(taken >= TIMEOUT && taken < TIMEOUT + Duration::from_secs(2), "{taken:?}");
    // Targets come every 5 ms; a quarter of them is enough on a machine that compiles something else meanwhile.
    let due = taken.as_millis() as u64 / 5;
    assert!(after.updates - before.updates > due / 4, "{} updates of {due}", after.updates - before.updates);
    // A first try to arm may have met a server that was only starting.
    assert_eq!((after.updates_failed, after.faults - before.faults, after.gripper_time_outs), (0, 0, 1));
    assert_eq!(c.until_state(BridgeState::Running).session, 1);
    assert!(hand.width_m() > 0.07, "it never got on");
    hand.hang(false);
    assert!((until_phase(c, GripperPhase::Holding).gripper_width_m - PART_M).abs() < 1e-6);
    assert_eq!(rig.bridge.summary().counts.gripper_time_outs, 1);
}

#[test]
fn a_hand_that_froze_is_absent_and_gets_no_command() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let c = &mut rig.controller;
    let (before, begin) = (rig.bridge.summary().counts, Instant::now());
    hand.freeze(true);
    let state = until_phase(c, GripperPhase::Absent);
    println!("absent after {:?}", begin.elapsed());
    assert!(state.gripper_width_m.is_nan(), "{state:?}");
    ask(c, GripperCommand::Close);
    c.until("ignored command", |_| (rig.bridge.summary().counts.gripper_ignored == 1).then_some(()));
    hand.freeze(false);
    // What was asked of a hand that was not there does not happen when it comes back.
    until_phase(c, GripperPhase::Open);
    c.for_a_while(Duration::from_millis(200));
    assert_eq!((hand.motions(), until_phase(c, GripperPhase::Open).gripper_width_m), (0, OBSERVED_MAX_M));
    let after = rig.bridge.summary().counts;
    assert!(after.states_published > before.states_published && after.faults == before.faults, "{after:?}");
}

#[test]
fn a_gripper_server_that_goes_away_is_an_absent_hand_until_it_is_back() {
    let first = hand(0.0);
    let mut rig = armed_rig(&first);
    let c = &mut rig.controller;
    let address = first.local_address();
    drop(first);
    assert!(until_phase(c, GripperPhase::Absent).gripper_width_m.is_nan());
    let options = GripperOptions { address, ..GripperOptions::local() };
    let _second = c.until("free port", |_| SimGripper::start(&options).ok());
    until_phase(c, GripperPhase::Open);
    assert_eq!(c.until_state(BridgeState::Running).session, 1);
}

#[test]
fn only_the_session_that_commands_the_arm_moves_the_hand() {
    let hand = hand(PART_M);
    let mut rig = rig_with(|options| options.gripper = Some(config(&hand)));
    let c = &mut rig.controller;
    until_phase(c, GripperPhase::Open);
    let ignored = |rig: &rig::Rig| rig.bridge.summary().counts.gripper_ignored;
    ask(c, GripperCommand::Close);
    let end = Instant::now() + PATIENCE;
    while ignored(&rig) < 1 && Instant::now() < end {
        rig.controller.send();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ignored(&rig), 1, "not armed");
    let c = &mut rig.controller;
    c.arm();
    c.link.send_request(Request::Gripper { session: 2, command: GripperCommand::Close }).unwrap();
    c.until("ignored command", |_| (rig.bridge.summary().counts.gripper_ignored == 2).then_some(()));
    c.release();
    c.until_state(BridgeState::Idle);
    ask(c, GripperCommand::Close);
    c.until("ignored command", |_| (rig.bridge.summary().counts.gripper_ignored == 3).then_some(()));
    c.for_a_while(Duration::from_millis(200));
    assert_eq!((hand.motions(), rig.bridge.summary().counts.gripper_commands), (0, 0));
    c.arm();
    course(c, GripperCommand::Close, GripperPhase::Holding);
}

#[test]
fn a_fault_and_a_release_leave_the_part_in_the_hand() {
    let hand = hand(PART_M);
    let mut rig = armed_rig(&hand);
    let mut other = OtherClient::new(rig.address);
    let c = &mut rig.controller;
    course(c, GripperCommand::Close, GripperPhase::Holding);
    other.terminate();
    c.until_fault();
    ask(c, GripperCommand::Open);
    c.until("ignored command", |_| (rig.bridge.summary().counts.gripper_ignored == 1).then_some(()));
    c.arm();
    c.release();
    c.until_state(BridgeState::Idle);
    c.for_a_while(Duration::from_millis(200));
    assert_eq!(until_phase(c, GripperPhase::Holding).gripper, GripperPhase::Holding);
    rig.bridge.stop();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(hand.motions(), 1);
    assert!((hand.width_m() - PART_M).abs() < 1e-6, "{} m", hand.width_m());
}

#[test]
fn an_arm_without_a_gripper_has_no_width_and_takes_no_command() {
    let mut rig = rig();
    let c = &mut rig.controller;
    c.arm();
    let state = c.state();
    assert!(state.gripper_width_m.is_nan() && state.gripper == GripperPhase::Absent, "{state:?}");
    ask(c, GripperCommand::Open);
    c.until("ignored command", |_| (rig.bridge.summary().counts.gripper_ignored == 1).then_some(()));
    assert_eq!(c.until_state(BridgeState::Running).session, 1);
    assert_eq!(BridgeOptions::new(&robot_config()).unwrap().gripper, None, "the shipped configuration has none");
}
