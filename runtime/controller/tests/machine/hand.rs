//! Policies that move a hand.

use super::bench::*;

#[test]
fn a_policy_that_observes_the_gripper_needs_one() {
    let mut spec = spec(1);
    spec.observation.push(ObservationField::GripperWidth);
    spec.normalizer.observation = Limits::symmetric(1.0, 5);
    let mut bench = Bench::of(spec).arm();
    bench.tick(Some(Order::Run { actions: 8 }));
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::NoGripper));
}

/// The Avoid policy with a hand that it closes from its 13th action on.
fn with_a_hand() -> Bench {
    fn close_late(id: u64) -> Vec<f32> {
        (0..4).flat_map(|i| [0.0, 0.005, if id * 4 + i >= 12 { 1.0 } else { -1.0 }]).collect()
    }
    let spec = {
        let mut spec = spec(1);
        spec.action.push(ActionField::Gripper);
        spec.normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 3));
        spec
    };
    assert!(matches!(Controller::new(settings(), &spec), Err(SettingsError::NoGripper)));
    let mut bench = Bench::of(self::spec(1));
    bench.controller =
        Controller::new(Settings { gripper: Some(ToggleSettings::default()), ..settings() }, &spec).unwrap();
    bench.policy = Some(close_late);
    bench.action_dim = 3;
    bench.arm.gripper = GripperPhase::Open;
    bench.arm()
}

#[test]
fn the_arm_stands_still_while_the_hand_closes_and_no_action_is_made_up_for() {
    let mut bench = with_a_hand();
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 20 }));
    let mut ticks = 0;
    let told = loop {
        let outcome = bench.tick(None);
        ticks += 1;
        if let Some(Request::Gripper { command, session: 9 }) = outcome.request {
            break command;
        }
        assert!(ticks < 100);
    };
    assert_eq!(told, GripperCommand::Close);
    // Action 13 begins when the arm is told 12: after 12 · 5 ticks.
    assert!((60..=62).contains(&ticks), "{ticks}");
    bench.arm.gripper = GripperPhase::Closing;
    for _ in 0..40 {
        let outcome = bench.tick(None);
        assert!(outcome.event.is_none() && outcome.gripper.is_none());
    }
    assert!(bench.controller.safety().is_at_rest());
    let held = bench.arm.joint_positions_rad;
    for _ in 0..60 {
        bench.tick(None);
    }
    assert_eq!(bench.arm.joint_positions_rad, held);
    bench.arm.gripper = GripperPhase::Holding;
    let outcome = bench.tick(None);
    assert!(matches!(outcome.gripper, Some(GripperEvent::Closed { .. })), "{outcome:?}");
    let left = bench.until(80, |e| matches!(e, Event::RunEnded { actions: 20 }));
    assert!((40..=42).contains(&left), "8 · 5 ticks are left: {left}");
    assert!((bench.tcp()[1] - y - 20.0 * 0.005).abs() < 1e-3, "{:?}", bench.tcp());
}

#[test]
fn a_hand_that_does_not_answer_or_is_not_done_is_a_fault_by_name() {
    let fault = |phase| {
        let mut bench = with_a_hand();
        bench.tick(Some(Order::Run { actions: 20 }));
        for _ in 0..100 {
            if let Some(Request::Gripper { .. }) = bench.tick(None).request {
                break;
            }
        }
        if phase == GripperPhase::TimedOut {
            bench.arm.gripper = GripperPhase::Closing;
            bench.tick(None);
        }
        bench.arm.gripper = phase;
        bench.until(300, |e| matches!(e, Event::Faulted(_)));
        let Phase::Fault(cause) = bench.controller.phase() else { panic!("no fault") };
        cause
    };
    assert_eq!(fault(GripperPhase::TimedOut), FaultCause::GripperTimedOut(GripperCommand::Close));
    assert_eq!(fault(GripperPhase::Absent), FaultCause::GripperAbsent);
    assert_eq!(fault(GripperPhase::Open), FaultCause::GripperUnheard(GripperCommand::Close));
}

#[test]
fn a_run_begins_with_an_open_hand() {
    let mut bench = with_a_hand();
    bench.arm.gripper = GripperPhase::Holding;
    let outcome = bench.tick(Some(Order::Run { actions: 8 }));
    assert_eq!(outcome.request, Some(Request::Gripper { session: 9, command: GripperCommand::Open }));
    assert!(matches!(outcome.gripper, Some(GripperEvent::Opening)));
    bench.arm.gripper = GripperPhase::Opening;
    for _ in 0..50 {
        assert_eq!(bench.tick(None).event, None, "nothing begins before the hand is open");
    }
    bench.arm.gripper = GripperPhase::Open;
    bench.until(3, |e| matches!(e, Event::RunStarted));
    bench.until(60, |e| matches!(e, Event::RunEnded { .. }));
}
