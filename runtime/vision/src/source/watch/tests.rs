use super::super::clock::nanos;
use super::super::frame::DeviceTime;
use super::*;

const RATE_HZ: f64 = 50.0;
const PERIOD: Duration = Duration::from_millis(20);
const DELAY: Duration = Duration::from_millis(10);

fn description() -> SourceDescription {
    SourceDescription {
        name: "front".to_owned(),
        serial: Some(Serial::new("A").unwrap()),
        width: 64,
        height: 48,
        nominal_rate_hz: RATE_HZ,
        intrinsics: None,
    }
}

/// Drives a watch with a clock of its own.
struct Bench {
    watch: Watch,
    now: MonotonicTime,
    sequence: u64,
    content: u64,
    device_error: Duration,
    size_px: [usize; 2],
}

impl Bench {
    fn new() -> Self {
        let mut watch = Watch::new(WatchConfig::of_rate(RATE_HZ), Expected::default()).unwrap();
        let now = MonotonicTime::from_nanos(1_000_000_000);
        watch.opened(&description(), ControlValues::fixed_exposure(60, Some(16)), now);
        let mut bench = Self { watch, now, sequence: 0, content: 0, device_error: Duration::ZERO, size_px: [64, 48] };
        bench.good(100);
        assert!(bench.watch.faults().is_empty(), "{:?}", bench.watch.faults());
        bench
    }

    /// A frame exposed `age` before it arrives, which is now.
    fn frame(&mut self, age: Duration) {
        let exposed_at = MonotonicTime::from_nanos(self.now.as_nanos() - nanos(age));
        let device = DeviceTime::from_nanos((exposed_at + self.device_error).as_nanos());
        let stamps = FrameStamps { exposed_at, device: Some(device), arrived: self.now };
        let (sequence, size_px, fingerprint) = (self.sequence, self.size_px, self.content);
        self.watch.frame(&FrameFacts { sequence, stamps, size_px, fingerprint }, self.now);
        self.sequence += 1;
        self.content += 1;
        self.now = self.now + PERIOD;
    }

    fn good(&mut self, frames: usize) {
        for _ in 0..frames {
            self.frame(DELAY);
        }
    }

    fn kinds(&self) -> Vec<FaultKind> {
        self.watch.faults().iter().map(|fault| fault.kind).collect()
    }
}

#[test]
fn a_healthy_camera_has_no_fault_and_its_rate_is_measured() {
    let mut bench = Bench::new();
    for _ in 0..2000 {
        bench.good(1);
        assert!(bench.watch.faults().is_empty());
        assert!((bench.watch.counters().rate_hz - RATE_HZ).abs() < 0.5, "{}", bench.watch.counters().rate_hz);
    }
    assert_eq!(bench.watch.counters().dropped, 0);
}

#[test]
fn one_late_or_missing_frame_is_no_fault() {
    let mut bench = Bench::new();
    for round in 0..20 {
        bench.now = bench.now + Duration::from_millis(60);
        bench.watch.time(bench.now);
        bench.frame(Duration::from_millis(70));
        bench.good(60);
        bench.sequence += 1;
        bench.good(60);
        assert!(bench.watch.faults().is_empty(), "round {round}: {:?}", bench.watch.faults());
    }
    assert_eq!(bench.watch.counters().dropped, 20);
}

#[test]
fn silence_is_a_stale_frame_with_its_age_and_ends_after_a_run_of_good_ones() {
    let mut bench = Bench::new();
    let last_arrived = MonotonicTime::from_nanos(bench.now.as_nanos() - nanos(PERIOD));
    for _ in 0..10 {
        bench.now = bench.now + PERIOD;
        bench.watch.time(bench.now);
    }
    let fault = *bench.watch.faults().worst().unwrap();
    // 20 ms to the frame that was due, ten periods, 10 ms of delay.
    let (age, limit) = (Duration::from_millis(230), Duration::from_millis(100));
    assert_eq!(fault.kind, FaultKind::Stale { age, limit });
    assert_eq!(fault.since, last_arrived);
    bench.good(9);
    assert!(matches!(bench.kinds()[0], FaultKind::Stale { .. }), "nine good frames are not enough");
    bench.good(100);
    assert!(bench.watch.faults().is_empty());
}

#[test]
fn frames_that_are_always_too_old_are_as_stale_as_none() {
    let mut bench = Bench::new();
    bench.now = bench.now + Duration::from_millis(140);
    bench.frame(Duration::from_millis(150));
    assert!(bench.watch.faults().is_empty());
    bench.frame(Duration::from_millis(150));
    assert!(matches!(bench.kinds()[0], FaultKind::Stale { .. }));
}

#[test]
fn before_the_first_frame_the_age_counts_from_the_opening() {
    let mut watch = Watch::new(WatchConfig::of_rate(RATE_HZ), Expected::default()).unwrap();
    let opened = MonotonicTime::from_nanos(5_000_000_000);
    watch.time(opened);
    assert!(watch.faults().is_empty(), "nothing is open");
    watch.opened(&description(), ControlValues::default(), opened);
    watch.time(opened + Duration::from_millis(90));
    assert!(watch.faults().is_empty());
    watch.time(opened + Duration::from_millis(110));
    assert_eq!(watch.faults().worst().unwrap().since, opened);
}

#[test]
fn half_the_rate_is_slow_and_the_whole_one_ends_it() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.good(1);
        bench.now = bench.now + PERIOD;
    }
    let [FaultKind::Slow { rate_hz, least_hz }] = bench.kinds()[..] else { panic!("{:?}", bench.kinds()) };
    assert!((rate_hz - 25.0).abs() < 1.0 && least_hz == 42.5, "{rate_hz} {least_hz}");
    bench.good(100);
    assert!(bench.watch.faults().is_empty());
}

#[test]
fn gaps_in_the_sequence_are_counted_and_many_are_a_fault() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.good(4);
        bench.sequence += 1;
        bench.now = bench.now + PERIOD;
    }
    let dropping = bench.kinds().into_iter().find_map(|kind| match kind {
        FaultKind::Dropping { dropped, of } => Some(f64::from(dropped) / f64::from(of)),
        _ => None,
    });
    assert!((0.17..0.23).contains(&dropping.unwrap()), "{dropping:?}");
    assert!(bench.watch.faults().spoiling().is_none(), "the frames that came are good");
    assert_eq!(bench.watch.counters().dropped, 19);
    bench.good(100);
    assert!(bench.watch.faults().is_empty());
    bench.sequence = 0;
    bench.good(100);
    assert!(bench.watch.faults().is_empty(), "a count that begins anew is no drop");
}

#[test]
fn the_same_picture_with_new_stamps_is_frozen_and_with_the_old_stamp_is_not() {
    let mut bench = Bench::new();
    let began = MonotonicTime::from_nanos(bench.now.as_nanos() - nanos(PERIOD));
    for repeats in 1..=8 {
        bench.content -= 1;
        bench.frame(DELAY);
        let frozen = bench.kinds().contains(&FaultKind::Frozen { frames: repeats + 1 });
        assert_eq!(frozen, repeats + 1 >= 6, "{repeats}");
    }
    assert_eq!(bench.watch.faults().worst().unwrap().since, began);
    bench.good(100);
    assert!(bench.watch.faults().is_empty());
    for _ in 0..8 {
        let facts = bench.watch.last.unwrap();
        bench.watch.frame(&facts, bench.now);
        assert!(!bench.kinds().iter().any(|kind| matches!(kind, FaultKind::Frozen { .. })));
    }
}

#[test]
fn a_step_of_the_device_clock_is_named_with_its_size_and_ends() {
    for (error_ms, found_s) in [(2_000, 2.0), (500, -1.5)] {
        let mut bench = Bench::new();
        bench.device_error = Duration::from_millis(2_000 - error_ms);
        bench.good(100);
        bench.watch.faults = CameraFaults::default();
        bench.device_error = if found_s > 0.0 { Duration::from_millis(2_000) } else { Duration::ZERO };
        bench.good(1);
        let [FaultKind::ClockStepped { step_s }] = bench.kinds()[..] else { panic!("{:?}", bench.kinds()) };
        assert!((step_s - found_s).abs() < 1e-6, "{step_s}");
        bench.good(9);
        assert_eq!(bench.kinds().len(), 1);
        bench.good(1);
        assert!(bench.watch.faults().is_empty());
    }
}

#[test]
fn another_serial_number_or_size_stands_until_the_right_one_is_back() {
    let mut bench = Bench::new();
    let (a, b) = (Serial::new("A").unwrap(), Serial::new("B").unwrap());
    bench.watch.disconnected(bench.now);
    bench.watch.open_failed(bench.now);
    assert_eq!(bench.kinds(), [FaultKind::Disconnected { failed_opens: 1 }]);
    bench.watch.opened(&SourceDescription { serial: Some(b), ..description() }, ControlValues::default(), bench.now);
    bench.good(200);
    assert_eq!(bench.kinds(), [FaultKind::SerialChanged { expected: a, found: Some(b) }]);
    bench.watch.opened(&description(), ControlValues::default(), bench.now);
    bench.good(1);
    assert!(bench.watch.faults().is_empty());
    bench.size_px = [32, 24];
    bench.good(1);
    let kind = FaultKind::ResolutionChanged { expected_px: [64, 48], found_px: [32, 24] };
    assert_eq!(bench.kinds(), [kind]);
    bench.size_px = [64, 48];
    bench.good(1);
    assert!(bench.watch.faults().is_empty());
}

#[test]
fn what_the_calibration_holds_for_is_expected_from_the_first_opening_on() {
    let serial = Serial::new("CALIBRATED").unwrap();
    let expected = Expected { serial: Some(serial), size_px: Some([1280, 720]) };
    let mut watch = Watch::new(WatchConfig::of_rate(RATE_HZ), expected).unwrap();
    watch.opened(&description(), ControlValues::default(), MonotonicTime::default());
    assert_eq!(watch.faults().len(), 2);
}

#[test]
fn a_control_that_leaves_its_locked_value_twice_has_drifted() {
    let mut bench = Bench::new();
    let with = |exposure: Option<i64>| {
        let mut found = ControlValues::fixed_exposure(60, Some(16));
        found.set(Control::Exposure, exposure);
        found
    };
    bench.watch.controls(&with(Some(156)), bench.now);
    bench.watch.controls(&with(Some(60)), bench.now);
    bench.watch.controls(&with(Some(156)), bench.now);
    assert!(bench.watch.faults().is_empty());
    bench.watch.controls(&with(Some(156)), bench.now);
    let kind = FaultKind::ControlDrifted { control: Control::Exposure, locked: 60, found: Some(156) };
    assert_eq!(bench.kinds(), [kind]);
    bench.watch.controls(&with(Some(60)), bench.now);
    assert!(bench.watch.faults().is_empty());
    bench.watch.controls(&with(None), bench.now);
    bench.watch.controls(&with(None), bench.now);
    assert_eq!(bench.watch.faults().len(), 1, "what cannot be read is not where it was locked");
}

#[test]
fn any_sampled_pixel_changes_the_fingerprint() {
    let mut frame = Frame::of_size(130, 9);
    let before = FrameFacts::of(&frame).fingerprint;
    for (x, y) in [(0, 0), (7, 0), (64, 4), (71, 8), (129, 8)] {
        frame.grey.pixels_mut()[y * 130 + x] ^= 1;
        assert_ne!(FrameFacts::of(&frame).fingerprint, before, "({x}, {y})");
        frame.grey.pixels_mut()[y * 130 + x] ^= 1;
    }
    assert_eq!(FrameFacts::of(&frame).fingerprint, before);
}

#[test]
fn limits_that_mean_nothing_are_refused_by_name() {
    let message = |change: fn(&mut WatchConfig)| {
        let mut config = WatchConfig::of_rate(30.0);
        change(&mut config);
        Watch::new(config, Expected::default()).err().unwrap().to_string()
    };
    assert!(message(|c| c.max_frame_age_s = f64::NAN).contains("max_frame_age_s"));
    assert!(message(|c| c.clear_frames = 0).contains("clear_frames"));
    assert!(message(|c| c.frozen_frames = 1).contains("frozen_frames"));
    assert!(message(|c| c.max_dropped_fraction = 1.5).contains("max_dropped_fraction"));
    assert!(WatchConfig::of_rate(f64::NAN).check().is_err());
    let text = toml::to_string(&WatchConfig::of_rate(30.0)).unwrap();
    assert_eq!(toml::from_str::<WatchConfig>(&text).unwrap(), WatchConfig::of_rate(30.0));
    assert!(toml::from_str::<WatchConfig>(&(text + "max_age_s = 1.0\n")).is_err());
}
