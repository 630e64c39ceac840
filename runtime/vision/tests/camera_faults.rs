//! Each thing that goes wrong with a simulated camera ends in its named fault, on a clock set by hand, and passes again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tenon_core::time::MonotonicTime;
use tenon_vision::GreyImage;
use tenon_vision::source::{
    CameraFaults, Clock, Control, ControlValues, Expected, FaultKind, Frame, FrameFacts, FrameSource, Injection,
    ManualClock, Pace, Serial, SimulatedDevice, SimulatedSettings, Watch, WatchConfig,
};

const RATE_HZ: f64 = 50.0;
const TIMEOUT: Duration = Duration::from_millis(50);

/// What a watch saw of a camera.
#[derive(Debug, PartialEq)]
struct Course {
    /// Kinds of the faults that stood at any time, by [`FaultKind::index`].
    seen: BTreeSet<usize>,
    /// The numbers of each fault when it was first seen.
    first: Vec<FaultKind>,
    /// What stands at the end.
    last: CameraFaults,
    /// Frame number of each frame that came.
    sequences: Vec<u64>,
}

/// 500 frames with a script of mishaps, as a camera's thread would take them.
fn course(script: Vec<(u64, Injection)>) -> Course {
    let clock = ManualClock::at(MonotonicTime::from_nanos(3_000_000_000));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let sized = SimulatedSettings::of_size("front", serial("SIM1"), 64, 48, RATE_HZ, Pace::RealTime);
    let settings = SimulatedSettings { locked: ControlValues::fixed_exposure(50, Some(16)), ..sized };
    let scene = |at: MonotonicTime, grey: &mut GreyImage| {
        grey.pixels_mut()[..8].copy_from_slice(&at.as_nanos().to_le_bytes());
    };
    let device = SimulatedDevice::new(settings, scene, script, shared).unwrap();
    let mut watch = Watch::new(WatchConfig::of_rate(RATE_HZ), Expected::default()).unwrap();
    let mut course =
        Course { seen: BTreeSet::new(), first: Vec::new(), last: CameraFaults::default(), sequences: Vec::new() };
    let mut frame = Frame::of_size(64, 48);
    let mut note = |watch: &Watch| {
        for fault in watch.faults().iter() {
            if course.seen.insert(fault.kind.index()) {
                course.first.push(fault.kind);
            }
        }
    };
    let mut sequences = Vec::new();
    while sequences.len() < 500 {
        let mut camera = match device.open() {
            Ok(camera) => camera,
            Err(_) => {
                watch.open_failed(clock.now());
                note(&watch);
                clock.advance(Duration::from_millis(200));
                continue;
            }
        };
        watch.opened(camera.description(), camera.locked(), clock.now());
        while sequences.len() < 500 {
            match camera.next_frame(&mut frame, TIMEOUT) {
                Ok(()) => {
                    sequences.push(frame.sequence);
                    watch.frame(&FrameFacts::of(&frame), clock.now());
                    if sequences.len() % 25 == 0 {
                        watch.controls(&camera.controls().unwrap(), clock.now());
                    }
                }
                Err(error) if error.needs_reopening() => {
                    watch.disconnected(clock.now());
                    note(&watch);
                    break;
                }
                Err(_) => watch.time(clock.now()),
            }
            note(&watch);
        }
    }
    course.last = *watch.faults();
    course.sequences = sequences;
    course
}

fn serial(text: &str) -> Serial {
    Serial::new(text).unwrap()
}

/// The fault that was seen first, which must have passed. What lets frames go missing may lower the rate too.
fn passing(script: Vec<(u64, Injection)>) -> FaultKind {
    let course = course(script);
    assert!(course.last.is_empty(), "{:?}", course.last);
    let (kind, others) = course.first.split_first().expect("a fault");
    assert!(others.iter().all(|kind| matches!(kind, FaultKind::Slow { .. })), "{:?}", course.first);
    *kind
}

#[test]
fn a_healthy_camera_has_no_fault_and_one_late_or_lost_frame_makes_none() {
    let late = Injection::Late { time: Duration::from_millis(60) };
    for script in [vec![], vec![(100, late)], vec![(100, Injection::Drop { frames: 1 })]] {
        let course = course(script);
        assert!(course.first.is_empty(), "{:?}", course.first);
    }
}

#[test]
fn a_stall_is_a_stale_frame() {
    let stall = Injection::Stall { time: Duration::from_millis(240) };
    let FaultKind::Stale { age, limit } = passing(vec![(100, stall)]) else { panic!("another fault") };
    assert_eq!(limit, Duration::from_millis(100));
    assert!(age > limit && age < Duration::from_millis(165), "named at the first look after the limit: {age:?}");
}

#[test]
fn repeated_drops_are_counted() {
    let script = (0..20).map(|k| (100 + 6 * k, Injection::Drop { frames: 1 })).collect();
    let FaultKind::Dropping { dropped, of } = passing(script) else { panic!("another fault") };
    assert!(f64::from(dropped) / f64::from(of) > 0.05, "{dropped} of {of}");
}

#[test]
fn a_camera_that_takes_fewer_frames_is_slow_without_drops() {
    let script = (0..80).map(|k| (100 + k, Injection::Stall { time: Duration::from_millis(10) })).collect();
    let FaultKind::Slow { rate_hz, least_hz } = passing(script) else { panic!("another fault") };
    assert!(rate_hz < least_hz && rate_hz > 40.0, "{rate_hz}");
}

#[test]
fn a_frozen_picture_is_named_after_six_equal_ones() {
    let kind = passing(vec![(100, Injection::Freeze { frames: 10 })]);
    assert_eq!(kind, FaultKind::Frozen { frames: 6 });
}

#[test]
fn a_step_of_the_device_clock_is_named_with_its_size() {
    for nanos in [1_000_000_000, -1_000_000_000, 150_000_000] {
        let FaultKind::ClockStepped { step_s } = passing(vec![(100, Injection::ClockStep { nanos })]) else {
            panic!("another fault")
        };
        assert!((step_s - nanos as f64 * 1e-9).abs() < 1e-3, "{step_s}");
    }
}

#[test]
fn another_resolution_and_another_camera_stand_until_they_are_put_right() {
    let resized = course(vec![(100, Injection::Resize { width: 32, height: 24 })]);
    let kind = FaultKind::ResolutionChanged { expected_px: [64, 48], found_px: [32, 24] };
    assert!(resized.first == [kind] && resized.last.worst().unwrap().kind == kind);
    let back = Injection::Resize { width: 64, height: 48 };
    assert_eq!(passing(vec![(100, Injection::Resize { width: 32, height: 24 }), (200, back)]), kind);

    let exchanged = course(vec![(100, Injection::Exchange { serial: serial("SIM2") })]);
    let kind = FaultKind::SerialChanged { expected: serial("SIM1"), found: Some(serial("SIM2")) };
    assert_eq!(exchanged.last.worst().unwrap().kind, kind);
    let put_right = vec![
        (100, Injection::Exchange { serial: serial("SIM2") }),
        (200, Injection::Exchange { serial: serial("SIM1") }),
    ];
    assert!(course(put_right).last.is_empty());
}

#[test]
fn a_disconnected_camera_comes_back_without_a_fault() {
    let course = course(vec![(100, Injection::Disconnect { failed_opens: 3 })]);
    assert_eq!(course.first[0], FaultKind::Disconnected { failed_opens: 0 });
    assert!(course.first[1..].iter().all(|kind| matches!(kind, FaultKind::Stale { .. })), "{:?}", course.first);
    assert!(course.last.is_empty(), "{:?}", course.last);
}

#[test]
fn an_exposure_that_moves_by_itself_has_drifted() {
    let drift = |value| Injection::Drift { control: Control::Exposure, value };
    let kind = passing(vec![(100, drift(156)), (300, drift(50))]);
    assert_eq!(kind, FaultKind::ControlDrifted { control: Control::Exposure, locked: 50, found: Some(156) });
}

#[test]
fn two_runs_of_one_script_are_identical() {
    let script = || {
        let stall = Injection::Stall { time: Duration::from_millis(300) };
        vec![(50, stall), (90, Injection::Disconnect { failed_opens: 2 }), (150, Injection::Drop { frames: 7 })]
    };
    assert_eq!(course(script()), course(script()));
}
