//! Policies that observe parts.

use super::bench::*;

/// Avoid's policy, but it also observes the lamp.
fn spec_with_parts() -> PolicySpec {
    let mut spec = spec(1);
    spec.observation.push(ObservationField::PartPoses(4));
    spec.normalizer.observation = Limits::symmetric(1.0, 4 + 28);
    spec
}

/// A board on which every part has a place that needs no camera, but those named.
fn board(missing: &[&str]) -> PartBoard {
    let furniture = Furniture::Lamp;
    let frozen = furniture.part_names().iter().filter(|name| !missing.contains(name)).map(|name| FrozenPart {
        part: (*name).to_owned(),
        position_m: [0.1, 0.2, -0.03],
        quat_xyzw: [0.0, 0.0, 0.0, 1.0],
    });
    let config = FusionConfig { frozen: frozen.collect(), ..FusionConfig::default() };
    let start = MonotonicTime::from_nanos(1_000_000_000);
    PartBoard::new(furniture, &config, &T_robot_april_training(), 1, start).expect("the lamp's parts")
}

#[test]
fn the_parts_stand_behind_the_arm_in_the_observation() {
    let mut bench = Bench::of(spec_with_parts()).arm();
    bench.parts = Some(board(&[]));
    bench.tick(Some(Order::Run { actions: 8 }));
    let observation = &bench.requests[0].1;
    assert_eq!(observation.len(), 32);
    for part in observation[4..].chunks(7) {
        assert_eq!(part, [0.1, 0.2, -0.03, 0.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn a_run_does_not_begin_without_a_part_and_the_arm_stays_armed() {
    let mut bench = Bench::of(spec_with_parts()).arm();
    bench.parts = Some(board(&["lamp_bulb"]));
    let q = bench.arm.joint_positions_rad;
    let event = bench.tick(Some(Order::Run { actions: 8 })).event;
    assert!(matches!(event, Some(Event::RunRefused(part)) if part.part == "lamp_bulb"), "{event:?}");
    assert_eq!((bench.controller.phase(), bench.arm.joint_positions_rad), (Phase::Holding, q));
    assert!(bench.requests.is_empty());
    // Without anybody who looks it is a fault.
    bench.parts = None;
    bench.tick(Some(Order::Run { actions: 8 }));
    assert!(matches!(bench.controller.phase(), Phase::Fault(FaultCause::PartsStale { .. })));
}

#[test]
fn a_part_that_goes_missing_is_awaited_and_then_named() {
    for comes_back in [true, false] {
        let mut bench = Bench::of(spec_with_parts()).arm();
        bench.parts = Some(board(&[]));
        bench.tick(Some(Order::Run { actions: 12 }));
        bench.until(3, |e| matches!(e, Event::RunStarted));
        bench.parts = Some(board(&["lamp_hood"]));
        bench.until(60, |e| matches!(e, Event::PartAwaited(part) if part.part == "lamp_hood"));
        // The chunk under way was finished first.
        let q = bench.arm.joint_positions_rad;
        for _ in 0..70 {
            bench.tick(None);
        }
        assert!(
            bench.arm.joint_positions_rad.iter().zip(q).all(|(a, b)| (a - b).abs() < 0.01),
            "the arm comes to rest"
        );
        if comes_back {
            bench.parts = Some(board(&[]));
            bench.until(200, |e| matches!(e, Event::RunEnded { actions: 12 }));
        } else {
            // max_missing: one second of 7 ms.
            bench.until(80, |e| matches!(e, Event::Faulted(FaultCause::PartMissing(part)) if part.part == "lamp_hood"));
        }
    }
}
