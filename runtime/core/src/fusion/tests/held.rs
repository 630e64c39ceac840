//! Parts in the gripper.

use super::*;
use crate::time::Stamped;
use std::time::Duration;

/// The tool point 2 cm beside the part's origin, seen in april.
fn tool() -> Pose {
    moved(&part(), &Vector6::new(0.0, 0.02, 0.0, 0.3, 0.0, 0.0))
}

fn seen() -> PartFilter {
    let mut filter = filter();
    let R = covariance(0.001, 1.0);
    for n in 0..60 {
        filter.update(&measurement(part(), R, frame(n)), frame(n));
    }
    filter
}

const LEG: GripperEvent = GripperEvent::Closed { width_m: 0.0286 };

#[test]
fn a_leg_between_the_fingers_moves_with_the_tool_point() {
    let mut filter = seen();
    assert_eq!(filter.on_gripper_event(LEG, frame(60), Some(&tool())), GripperOutcome::Grasped);
    assert!(matches!(filter.state(frame(60)), PartState::Held { .. }));
    let carried = pose([0.3, -0.1, -0.25], [10.0, 140.0, -20.0]);
    let now = frame(160);
    let stamped = Stamped { time: millis(5_300), value: carried };
    let estimate = filter.estimate(now, Some(&stamped)).unwrap();
    let want = carried * tool().inverse() * part();
    assert!(pose_error(&estimate.T_april_part, &want).norm() < 1e-9);
    assert_eq!(estimate.age, Duration::from_nanos(160 * FRAME_NS as u64 - 5_300_000_000));
    // The covariance turns with the hand.
    let fixed = filter.estimate(now, Some(&Stamped { time: now, value: tool() })).unwrap().covariance.unwrap();
    assert!((fixed.trace() - estimate.covariance.unwrap().trace()).abs() < 1e-12);
}

#[test]
fn measurements_of_a_held_part_are_not_used() {
    let mut filter = seen();
    filter.on_gripper_event(LEG, frame(60), Some(&tool()));
    let R = covariance(0.001, 1.0);
    let m = measurement(moved(&part(), &Vector6::repeat(0.002)), R, frame(61));
    assert_eq!(filter.update(&m, frame(61)), Outcome::Refused(Refusal::Held));
    let estimate = filter.estimate(frame(61), Some(&Stamped { time: frame(61), value: tool() })).unwrap();
    assert!(errors(&estimate, &part()).0 < 1e-6);
}

#[test]
fn narrow_fingers_far_fingers_unseen_parts_and_switched_off_following_hold_nothing() {
    let far = moved(&part(), &Vector6::new(0.2, 0.0, 0.0, 0.0, 0.0, 0.0));
    for (event, at, T) in [
        (GripperEvent::Closed { width_m: 0.0057 }, frame(60), Some(tool())),
        (GripperEvent::Closed { width_m: 0.02 }, frame(60), Some(tool())),
        (GripperEvent::Closed { width_m: f64::NAN }, frame(60), Some(tool())),
        (LEG, frame(60), Some(far)),
        (LEG, frame(60), None),
        // Lost by then.
        (LEG, frame(90), Some(tool())),
    ] {
        let mut filter = seen();
        assert_eq!(filter.on_gripper_event(event, at, T.as_ref()), GripperOutcome::Unchanged, "{event:?}");
        assert!(!matches!(filter.state(at), PartState::Held { .. }));
    }
    let grip = GripConfig { follow: false, ..Default::default() };
    let mut filter = PartFilter::new(PartFilterConfig::default(), AgeLimits::default(), grip, frame(0));
    filter.update(&measurement(part(), covariance(0.001, 1.0), frame(0)), frame(0));
    assert_eq!(filter.on_gripper_event(LEG, frame(1), Some(&tool())), GripperOutcome::Unchanged);
}

#[test]
fn a_held_part_needs_a_recent_tool_pose() {
    let mut filter = seen();
    filter.on_gripper_event(LEG, frame(60), Some(&tool()));
    let now = millis(10_000);
    assert_eq!(filter.estimate(now, None), Err(Missing { since: frame(59), why: Why::NoToolPose }));
    let old = Stamped { time: millis(9_400), value: tool() };
    assert_eq!(filter.estimate(now, Some(&old)), Err(Missing { since: millis(9_400), why: Why::NoToolPose }));
    assert!(filter.estimate(now, Some(&Stamped { time: millis(9_600), value: tool() })).is_ok());
}

#[test]
fn opened_fingers_leave_the_part_where_they_were_until_it_is_seen_there() {
    let mut filter = seen();
    filter.on_gripper_event(LEG, frame(60), Some(&tool()));
    let shift = Vector6::new(0.15, 0.1, 0.0, 0.0, 0.0, 0.0);
    let (opened_at, there) = (frame(200), moved(&part(), &shift));
    let outcome = filter.on_gripper_event(GripperEvent::Opening, opened_at, Some(&moved(&tool(), &shift)));
    assert_eq!(outcome, GripperOutcome::Released);
    let estimate = filter.estimate(frame(201), None).unwrap();
    assert!(errors(&estimate, &there).0 < 1e-6 && estimate.state == PartState::Tracking);
    assert!(estimate.covariance.unwrap()[(0, 0)].sqrt() > 0.01, "it may have fallen");
    let R = covariance(0.001, 1.0);
    // Exposed while it was still held: of no use.
    let outcome = filter.update(&measurement(there, R, frame(199)), frame(201));
    assert_eq!(outcome, Outcome::Refused(Refusal::OutOfOrder));
    let fallen = moved(&there, &Vector6::new(0.01, 0.0, 0.02, 0.2, 0.0, 0.0));
    assert_eq!(filter.update(&measurement(fallen, R, frame(201)), frame(202)), Outcome::Accepted);
    assert!(errors(&filter.estimate(frame(202), None).unwrap(), &fallen).0 < 1e-6);
    // Unseen, it is lost as any part is.
    let mut filter = seen();
    filter.on_gripper_event(LEG, frame(60), Some(&tool()));
    filter.on_gripper_event(GripperEvent::Opening, frame(100), Some(&tool()));
    assert_eq!(filter.estimate(frame(116), None), Err(Missing { since: frame(100), why: Why::Lost }));
}

#[test]
fn fingers_that_lose_the_part_release_it() {
    let mut filter = seen();
    filter.on_gripper_event(LEG, frame(60), Some(&tool()));
    assert_eq!(filter.on_gripper_event(LEG, frame(61), Some(&tool())), GripperOutcome::Unchanged);
    let slipped = GripperEvent::Closed { width_m: 0.001 };
    assert_eq!(filter.on_gripper_event(slipped, frame(62), Some(&tool())), GripperOutcome::Released);
}

#[test]
fn with_the_filters_of_the_benchmark_a_gripped_leg_moves_with_the_tool_point_too() {
    let (ages, grip) = (AgeLimits::default(), GripConfig::default());
    let R = covariance(0.001, 1.0);
    let mut leg = ReferencePart::moving_average(MovingAverageConfig::default(), ages, grip, frame(0));
    assert_eq!(leg.update(&measurement(part(), R, frame(0)), frame(0)), Outcome::Initialised);
    let narrow = GripperEvent::Closed { width_m: 0.0057 };
    assert_eq!(leg.on_gripper_event(narrow, frame(1), Some(&tool())), GripperOutcome::Unchanged);
    assert_eq!(leg.on_gripper_event(LEG, frame(1), Some(&tool())), GripperOutcome::Grasped);
    let shift = Vector6::new(0.15, 0.1, 0.0, 0.0, 0.0, 0.0);
    let carried = Stamped { time: frame(90), value: moved(&tool(), &shift) };
    let estimate = leg.estimate(frame(90), Some(&carried)).unwrap();
    assert!(errors(&estimate, &moved(&part(), &shift)).0 < 1e-6 && estimate.covariance.is_none());
    assert_eq!(leg.update(&measurement(part(), R, frame(90)), frame(90)), Outcome::Refused(Refusal::Held));
    assert_eq!(leg.estimate(frame(90), None), Err(Missing { since: frame(0), why: Why::NoToolPose }));
    let opened = leg.on_gripper_event(GripperEvent::Opening, frame(100), Some(&carried.value));
    assert_eq!(opened, GripperOutcome::Released);
    // Exposed while it was held, arrived after: of no use.
    assert_eq!(leg.update(&measurement(part(), R, frame(99)), frame(101)), Outcome::Refused(Refusal::OutOfOrder));
    // α = 1 after an event.
    let there = moved(&part(), &Vector6::new(0.16, 0.1, 0.0, 0.0, 0.0, 0.0));
    leg.update(&measurement(there, R, frame(101)), frame(101));
    assert!(errors(&leg.estimate(frame(101), None).unwrap(), &there).0 < 1e-9);
}
