//! Faults, orders and leases: however a motion ends, it ends at rest.

use super::bench::*;

#[test]
fn a_nan_action_and_a_jump_fault_before_anything_of_them_is_commanded() {
    fn nan(_: u64) -> Vec<f32> {
        vec![0.0, 0.005, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn jump(_: u64) -> Vec<f32> {
        vec![0.0, 0.005, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    for policy in [nan as fn(u64) -> Vec<f32>, jump] {
        let mut bench = Bench::armed(1);
        bench.policy = Some(policy);
        let y = bench.tcp()[1];
        bench.tick(Some(Order::Run { actions: 8 }));
        bench.until(50, |e| matches!(e, Event::Faulted(_)));
        let Phase::Fault(cause) = bench.controller.phase() else { panic!("no fault") };
        assert!(
            matches!(
                cause,
                FaultCause::BadAction { step: 1, .. }
                    | FaultCause::Refused { step: 1, refusal: Refusal::Jump { .. }, .. }
            ),
            "{cause}"
        );
        assert!((bench.tcp()[1] - y).abs() < 1e-6, "nothing of a chunk is done that has a bad action in it");
        // The stop takes at most as long as from full speed.
        let held = bench.arm.joint_positions_rad;
        let mut stop_ticks = 0;
        while bench.tick(None).target.is_some() {
            stop_ticks += 1;
            assert!(stop_ticks <= 50, "0.35 s of 7 ms");
        }
        assert!(
            bench.arm.joint_positions_rad.iter().zip(held).all(|(a, b)| (a - b).abs() < 0.03),
            "{:?} {held:?}",
            bench.arm.joint_positions_rad
        );
        let held = bench.arm.joint_positions_rad;
        for _ in 0..20 {
            let outcome = bench.tick(None);
            assert!(outcome.target.is_none());
            // It keeps the lease, so that nobody else takes the arm while a person looks at the fault.
            assert!(matches!(outcome.request, Some(Request::Heartbeat { session: 9 })));
        }
        assert_eq!(bench.arm.joint_positions_rad, held);
    }
}

#[test]
fn a_fault_is_left_only_by_an_order() {
    let mut bench = Bench::armed(1);
    bench.arm.bridge.state = BridgeState::Fault;
    bench.arm.bridge.fault = BridgeFault::ControllerDropped;
    bench.tick(None);
    bench.arm.bridge.state = BridgeState::Running;
    bench.arm.bridge.fault = BridgeFault::None;
    for _ in 0..300 {
        bench.tick(None);
    }
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Bridge(BridgeFault::ControllerDropped)));
    assert_eq!(bench.tick(Some(Order::Run { actions: 4 })).event, Some(Event::OrderIgnored));
    // Re-armed under the lease that it never gave back, from what is still commanded, wherever the arm has sagged to on its springs.
    let commanded = bench.controller.safety().commanded_rad();
    bench.arm.joint_positions_rad[1] += 0.04;
    let outcome = bench.tick(Some(Order::Arm { session: 10 }));
    let held = outcome.target.map(|motion| motion.map(|m| m.position_rad));
    assert_eq!((outcome.event, held), (Some(Event::Armed), Some(commanded)));
    assert_eq!(bench.controller.session(), 9);
}

#[test]
fn old_states_late_ticks_and_a_foreign_lease_are_faults() {
    let mut bench = Bench::armed(1);
    bench.state_age = Duration::from_millis(150);
    bench.tick(None);
    assert!(matches!(bench.controller.phase(), Phase::Fault(FaultCause::StaleState { age_ms: 150, limit_ms: 100 })));

    let mut bench = Bench::armed(1);
    bench.tick_late(None, 5);
    assert_eq!(bench.controller.phase(), Phase::Holding);
    bench.tick_late(None, 6);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Late(6)));

    let mut bench = Bench::armed(1);
    bench.arm.bridge.session = 5;
    bench.tick(None);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::LeasedToAnother(5)));
}

#[test]
fn arming_an_arm_that_another_run_holds_names_the_holder() {
    let mut bench = Bench::new(1);
    bench.controller.tick(
        bench.now,
        &Inputs {
            due: bench.now,
            state: None,
            status: None,
            chunk: None,
            parts: None,
            order: Some(Order::Arm { session: 9 }),
            late_ticks: 0,
        },
    );
    bench.arm.bridge.state = BridgeState::Running;
    bench.arm.bridge.session = 0xABCD;
    bench.tick(None);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::LeasedToAnother(0xABCD)));
    assert!(bench.tick(None).request.is_none(), "it is not our lease to keep alive");
}

#[test]
fn hold_stops_a_run_and_disarm_gives_the_lease_back() {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 100 }));
    for _ in 0..30 {
        bench.tick(None);
    }
    bench.tick(Some(Order::Hold));
    assert_eq!(bench.controller.phase(), Phase::Stopping);
    for _ in 0..50 {
        assert!(bench.tick(None).target.is_some(), "the stop is sent, and then the held joints");
    }
    assert_eq!(bench.controller.phase(), Phase::Holding);
    let q = bench.arm.joint_positions_rad;
    for _ in 0..30 {
        bench.tick(None);
    }
    assert_eq!(bench.arm.joint_positions_rad, q);
    let outcome = bench.tick(Some(Order::Disarm));
    assert_eq!(outcome.request, Some(Request::Release { session: 9 }));
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn disarming_a_moving_arm_stops_it_first_also_after_a_fault() {
    for faulted in [false, true] {
        let mut bench = Bench::armed(1);
        bench.tick(Some(Order::Run { actions: 100 }));
        for _ in 0..30 {
            bench.tick(None);
        }
        if faulted {
            bench.tick_late(None, 6);
            assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Late(6)));
        }
        let mut order = Some(Order::Disarm);
        let released = (0..60).find(|_| {
            let before = bench.arm.joint_positions_rad;
            let outcome = bench.tick(order.take());
            let released = outcome.request == Some(Request::Release { session: 9 });
            assert!(!released || before == bench.arm.joint_positions_rad, "it rests when it is given back");
            assert!(released || outcome.target.is_some(), "until then the stop is sent");
            released
        });
        assert!(released.is_some_and(|tick| tick > 3), "a moving arm does not stop at once: {released:?}");
        assert_eq!(bench.controller.phase(), Phase::Disarmed);
    }
}

/// Runs for a while, so that the arm moves.
fn under_way() -> Bench {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 100 }));
    bench.until(3, |e| matches!(e, Event::RunStarted));
    for _ in 0..20 {
        bench.tick(None);
    }
    bench
}

/// Ticks until the commands rest; from tick to tick they go on as a stop does. Returns how many it took.
fn come_to_rest(bench: &mut Bench, mut last: Outcome) -> usize {
    for ticks in 1..100 {
        let now = bench.tick(None);
        let (Some(before), Some(motion)) = (last.target, now.target) else {
            panic!("a moving arm is left without a command: {:?}", bench.controller.phase());
        };
        let dt_s = bench.controller.tick_period().as_secs_f64();
        for (b, m) in before.iter().zip(&motion) {
            let said = 0.5 * (b.velocity_rad_s + m.velocity_rad_s) * dt_s;
            assert!((m.position_rad - b.position_rad - said).abs() < 1e-3, "{b:?} {m:?}");
        }
        if motion.iter().all(|m| m.velocity_rad_s == 0.0 && m.acceleration_rad_s2 == 0.0) {
            return ticks;
        }
        last = now;
    }
    panic!("the arm does not come to rest");
}

#[test]
fn the_tick_in_which_a_fault_comes_commands_the_stop_already() {
    let mut bench = under_way();
    bench.policy = Some(|_| vec![f32::NAN; 8]);
    let before = bench.controller.safety().velocity_rad_s();
    let faulted = loop {
        let outcome = bench.tick(None);
        if let Some(Event::Faulted(_)) = outcome.event {
            break outcome;
        }
    };
    assert!(before.iter().any(|v| *v != 0.0) && faulted.target.is_some());
    assert!(come_to_rest(&mut bench, faulted) > 1);
}

#[test]
fn an_arming_in_the_middle_of_a_stop_lets_it_go_on() {
    for silent in [false, true] {
        let mut bench = under_way();
        let faulted = bench.tick_late(None, 9);
        assert!(matches!(faulted.event, Some(Event::Faulted(FaultCause::Late(9)))), "{faulted:?}");
        if silent {
            // The bridge says for a while that it is not running, so that nothing is granted at once.
            bench.arm.bridge.state = BridgeState::Idle;
        }
        let armed = bench.tick(Some(Order::Arm { session: 12 }));
        assert!(armed.target.is_some(), "silent: {silent}");
        bench.arm.bridge.state = BridgeState::Running;
        assert!(come_to_rest(&mut bench, armed) > 1);
        assert_eq!(bench.controller.phase(), Phase::Holding);
        assert_eq!(bench.controller.session(), 9, "the lease was never given back");
    }
}

#[test]
fn a_disarmed_arm_has_been_commanded_to_the_end_of_its_stop() {
    let mut bench = under_way();
    let disarming = bench.tick(Some(Order::Disarm));
    come_to_rest(&mut bench, disarming);
    assert!(matches!(bench.tick(None).event, Some(Event::Disarmed)));
}

#[test]
fn a_clock_that_runs_back_is_a_fault_by_name_and_the_arm_comes_to_rest() {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 40 }));
    for _ in 0..30 {
        bench.tick(None);
    }
    assert_eq!(bench.controller.phase(), Phase::Running);
    bench.now = MonotonicTime::from_nanos(bench.now.as_nanos() - 500_000_000);
    bench.tick(None);
    let Phase::Fault(cause @ FaultCause::ClockRanBack { .. }) = bench.controller.phase() else {
        panic!("{:?}", bench.controller.phase())
    };
    assert_eq!(cause.to_string(), "the clock ran back by 493 ms");
    for _ in 0..60 {
        bench.tick(None);
    }
    assert!(bench.controller.safety().is_at_rest());
    // Disarmed, a clock may be set: nothing follows it.
    let mut bench = Bench::new(1);
    bench.tick(None);
    bench.now = MonotonicTime::from_nanos(0);
    bench.tick(None);
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn a_bridge_that_lets_go_without_a_fault_is_named() {
    for (state, words) in [
        (BridgeState::Idle, "the bridge let the arm go: it ends, or another one has begun"),
        (BridgeState::NoServer, "the bridge let the arm go: it reaches no Polymetis server"),
    ] {
        let mut bench = Bench::armed(1);
        (bench.arm.bridge.state, bench.arm.bridge.session) = (state, 0);
        bench.tick(None);
        let Phase::Fault(cause) = bench.controller.phase() else { panic!("{:?}", bench.controller.phase()) };
        assert_eq!(cause.to_string(), words);
    }
}

#[test]
fn an_arm_that_was_left_behind_is_released_and_taken_anew_where_it_stands() {
    for left_behind_rad in [0.0, 0.3] {
        let mut bench = Bench::armed(1);
        bench.tick(Some(Order::Run { actions: 40 }));
        for _ in 0..30 {
            bench.tick(None);
        }
        // Its state grows old, and the controller brakes; the bridge keeps the lease.
        bench.state_age = Duration::from_millis(150);
        for _ in 0..60 {
            bench.tick(None);
        }
        assert!(matches!(bench.controller.phase(), Phase::Fault(FaultCause::StaleState { .. })));
        bench.state_age = Duration::ZERO;
        bench.arm.joint_positions_rad[0] += left_behind_rad;
        let stands = bench.arm.joint_positions_rad;
        let asked = bench.tick(Some(Order::Arm { session: 9 })).request;
        if left_behind_rad == 0.0 {
            assert_eq!(bench.controller.phase(), Phase::Holding, "what was commanded is in force");
            continue;
        }
        assert_eq!(asked, Some(Request::Release { session: 9 }));
        for _ in 0..3 {
            let outcome = bench.tick(None);
            assert!(outcome.target.is_none() && bench.controller.phase() == Phase::Arming, "nothing is commanded yet");
        }
        (bench.arm.bridge.state, bench.arm.bridge.session) = (BridgeState::Idle, 0);
        bench.until(40, |e| matches!(e, Event::Armed));
        assert_eq!(bench.controller.phase(), Phase::Holding);
        assert!((0..7).all(|i| (bench.controller.safety().commanded_rad()[i] - stands[i]).abs() < 1e-12));
    }
}

#[test]
fn there_is_no_arming_without_a_lease() {
    let mut bench = Bench::new(1);
    (bench.arm.bridge.state, bench.arm.bridge.session) = (BridgeState::Running, 0);
    let outcome = bench.tick(Some(Order::Arm { session: 0 }));
    assert_eq!((outcome.event, outcome.request), (Some(Event::OrderIgnored), None));
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn an_arm_beyond_its_range_is_not_armed_and_is_given_back() {
    let mut bench = Bench::new(1);
    let good = bench.arm.joint_positions_rad;
    // As where a swing, or a hand, has left it.
    bench.arm.joint_positions_rad[3] = -3.2;
    for session in [9, 10] {
        // Ordering it again does not help.
        bench.tick(Some(Order::Arm { session }));
        let refused = bench.tick(None);
        assert!(matches!(refused.event, Some(Event::Faulted(FaultCause::BeyondRange { joint: 3, .. }))), "{refused:?}");
        assert_eq!((refused.request, refused.target), (Some(Request::Release { session }), None));
        assert_eq!(bench.controller.session(), 0);
        (bench.arm.bridge.state, bench.arm.bridge.session) = (BridgeState::Idle, 0);
    }
    let Phase::Fault(cause) = bench.controller.phase() else { panic!("{:?}", bench.controller.phase()) };
    assert!(cause.to_string().starts_with("joint 4 is at -3.200 rad, beyond the range"), "{cause}");
    // Moving the arm does.
    bench.arm.joint_positions_rad = good;
    bench.tick(Some(Order::Arm { session: 11 }));
    bench.until(40, |e| matches!(e, Event::Armed));
    assert!((0..7).all(|i| (bench.controller.safety().commanded_rad()[i] - good[i]).abs() < 1e-12));
}
