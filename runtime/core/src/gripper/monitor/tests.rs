use proptest::prelude::*;

use super::*;
use GripperCommand::{Close, Open};

const SETTINGS: MonitorSettings =
    MonitorSettings { open_width_m: 0.08, observed_max_m: 0.065, timeout: Duration::from_secs(2) };

fn ms(ms: i64) -> MonotonicTime {
    MonotonicTime::from_nanos(ms * 1_000_000)
}

/// A hand whose states are asked for every 33 ms.
struct Bench {
    monitor: GripperMonitor,
    now_ms: i64,
    reading: GripperReading,
}

impl Bench {
    fn new(width_m: f64) -> Self {
        let reading = GripperReading { width_m, is_moving: false, is_grasped: false, stamp: RobotTime::from_nanos(1) };
        let mut bench = Self { monitor: GripperMonitor::new(SETTINGS), now_ms: 0, reading };
        bench.run(2);
        bench
    }

    fn now(&self) -> MonotonicTime {
        ms(self.now_ms)
    }

    /// That many new states.
    fn run(&mut self, states: usize) -> GripperPhase {
        for _ in 0..states {
            self.now_ms += 33;
            self.reading.stamp = RobotTime::from_nanos(self.now_ms);
            self.monitor.observe(self.now(), Some(self.reading));
        }
        self.monitor.phase()
    }

    fn set(&mut self, width_m: f64, is_moving: bool, is_grasped: bool) -> &mut Self {
        self.reading = GripperReading { width_m, is_moving, is_grasped, ..self.reading };
        self
    }

    fn command(&mut self, command: GripperCommand) -> Admission {
        self.monitor.command(self.now(), command)
    }
}

#[test]
fn a_hand_that_opens_is_open_where_the_authors_say_so() {
    let mut hand = Bench::new(0.0);
    assert_eq!(hand.monitor.phase(), GripperPhase::Empty);
    assert_eq!(hand.command(Open), Admission::Send);
    assert_eq!(hand.monitor.phase(), GripperPhase::Opening);
    assert_eq!(hand.set(0.076, true, false).run(5), GripperPhase::Opening, "it still moves");
    assert_eq!(hand.set(0.0749, false, false).run(1), GripperPhase::Opening);
    assert_eq!(hand.set(0.0751, false, false).run(1), GripperPhase::Open);
    assert_eq!(hand.set(0.0798, false, false).run(1), GripperPhase::Open);
}

#[test]
fn a_hand_that_closes_holds_something_or_nothing() {
    for (width_m, grasped, phase) in [
        (0.031, true, GripperPhase::Holding),
        (0.0, false, GripperPhase::Empty),
        // With a tolerance of 0.2 m an empty close counts as grasped.
        (0.0, true, GripperPhase::Empty),
        (0.079, true, GripperPhase::Holding),
    ] {
        let mut hand = Bench::new(0.08);
        assert_eq!(hand.monitor.phase(), GripperPhase::Open);
        assert_eq!(hand.command(Close), Admission::Send);
        assert_eq!(hand.set(0.05, true, false).run(10), GripperPhase::Closing);
        assert_eq!(hand.set(width_m, false, grasped).run(1), phase, "{width_m} m");
        assert_eq!(hand.run(100), phase);
    }
}

#[test]
fn a_state_from_before_the_motion_is_not_its_end() {
    let mut hand = Bench::new(0.08);
    hand.set(0.03, false, true).run(1);
    hand.command(Open);
    // The hand was told, but the states are older; then somebody changes his mind at once.
    assert_eq!(hand.command(Close), Admission::Send);
    assert_eq!(hand.run(2), GripperPhase::Closing, "grasped, but before the command");
    assert_eq!(hand.run(1), GripperPhase::Holding);
}

#[test]
fn a_repeated_command_changes_nothing() {
    let mut hand = Bench::new(0.08);
    assert_eq!(hand.command(Open), Admission::Repeated, "already open");
    assert_eq!(hand.command(Close), Admission::Send);
    hand.set(0.05, true, false).run(30);
    assert_eq!(hand.command(Close), Admission::Repeated, "under way");
    hand.set(0.05, true, false).run(32);
    assert_eq!(hand.monitor.phase(), GripperPhase::TimedOut, "its time runs from the first one");
    assert_eq!(hand.command(Close), Admission::Send, "a new try");
    assert_eq!(hand.set(0.03, false, true).run(3), GripperPhase::Holding);
    assert_eq!(hand.command(Close), Admission::Repeated, "already closed");
    assert_eq!(hand.command(Open), Admission::Send);
}

#[test]
fn a_command_that_takes_too_long_times_out_once_and_its_late_end_is_noted() {
    for (command, width_m, grasped, phase) in [
        (Close, 0.03, true, GripperPhase::Holding),
        (Close, 0.0, true, GripperPhase::Empty),
        (Open, 0.0798, false, GripperPhase::Open),
    ] {
        let mut hand = Bench::new(if command == Close { 0.08 } else { 0.0 });
        let begin = hand.now();
        hand.command(command);
        hand.set(0.04, true, false);
        while hand.run(1).is_moving() {}
        let taken = hand.now().since(begin);
        assert_eq!(hand.monitor.phase(), GripperPhase::TimedOut);
        assert!(taken > SETTINGS.timeout && taken <= SETTINGS.timeout + Duration::from_millis(33), "{taken:?}");
        assert_eq!(hand.run(1000), GripperPhase::TimedOut);
        assert_eq!(hand.set(0.04, false, false).run(1), GripperPhase::TimedOut, "it gave up half way");
        assert_eq!(hand.set(width_m, false, grasped).run(1), phase);
        assert_eq!(hand.monitor.time_outs(), 1);
    }
}

#[test]
fn a_stamp_that_stands_still_and_a_server_that_is_silent_are_an_absent_hand() {
    let mut fresh = GripperMonitor::new(SETTINGS);
    let reading = Bench::new(0.05).reading;
    assert_eq!(fresh.observe(ms(0), Some(reading)), GripperPhase::Absent, "that state may be a year old");
    assert!(fresh.width_m().is_nan());
    assert_eq!(fresh.command(ms(1), Open), Admission::NoHand);

    for answer in [true, false] {
        let mut hand = Bench::new(0.05);
        assert_eq!(hand.monitor.width_m(), 0.05);
        let reading = answer.then_some(hand.reading);
        let last = hand.now_ms;
        assert_ne!(hand.monitor.observe(ms(last + 499), reading), GripperPhase::Absent);
        assert_eq!(hand.monitor.observe(ms(last + 500), reading), GripperPhase::Absent);
        assert!(hand.monitor.width_m().is_nan());
        hand.now_ms = last + 600;
        assert_eq!(hand.run(1), GripperPhase::TimedOut, "half open, and nobody said why");
        assert_eq!(hand.command(Open), Admission::Send);
    }
}

#[test]
fn a_command_under_way_outlives_a_silence() {
    let mut hand = Bench::new(0.08);
    hand.command(Close);
    hand.set(0.05, true, false).run(3);
    hand.now_ms += 700;
    assert_eq!(hand.monitor.observe(hand.now(), None), GripperPhase::Absent);
    assert_eq!(hand.run(1), GripperPhase::Closing);
    assert_eq!(hand.set(0.03, false, true).run(1), GripperPhase::Holding);
}

#[test]
fn a_part_that_slips_out_is_no_longer_held() {
    let mut hand = Bench::new(0.08);
    hand.command(Close);
    assert_eq!(hand.set(0.03, false, true).run(3), GripperPhase::Holding);
    assert_eq!(hand.set(0.02, false, false).run(1), GripperPhase::Empty, "the fingers still close");
    assert_eq!(hand.set(0.0, false, false).run(1), GripperPhase::Empty);
    // Somebody else's motion is judged at its end.
    assert_eq!(hand.set(0.05, true, false).run(5), GripperPhase::Empty);
    assert_eq!(hand.set(0.08, false, false).run(1), GripperPhase::Open);
}

#[test]
fn the_reported_width_is_clamped_and_the_judged_one_is_not() {
    let mut hand = Bench::new(0.0798);
    assert_eq!((hand.monitor.phase(), hand.monitor.width_m()), (GripperPhase::Open, 0.065));
    hand.set(-0.0003, false, false).run(1);
    assert_eq!((hand.monitor.phase(), hand.monitor.width_m()), (GripperPhase::Empty, 0.0));
}

/// A state or a command of a random course.
#[derive(Debug, Clone)]
enum Step {
    State { width_m: f64, is_moving: bool, is_grasped: bool },
    Silence,
    Command(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = (0.0..0.09_f64, any::<bool>(), any::<bool>());
    let state = state.prop_map(|(width_m, is_moving, is_grasped)| Step::State { width_m, is_moving, is_grasped });
    let step = prop_oneof![6 => state, 2 => Just(Step::Silence), 1 => any::<bool>().prop_map(Step::Command)];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn nobody_waits_longer_than_the_timeout_and_a_width_is_never_out_of_range(steps in steps()) {
        let mut hand = Bench::new(0.08);
        let mut issued = hand.now();
        for step in steps {
            match step {
                Step::State { width_m, is_moving, is_grasped } => {
                    hand.set(width_m, is_moving, is_grasped).run(1);
                }
                Step::Silence => {
                    hand.now_ms += 120;
                    hand.monitor.observe(hand.now(), None);
                }
                Step::Command(close) => {
                    let before = hand.monitor.phase();
                    match hand.command(if close { Close } else { Open }) {
                        Admission::Send => issued = hand.now(),
                        Admission::Repeated | Admission::NoHand => prop_assert_eq!(hand.monitor.phase(), before),
                    }
                }
            }
            let (phase, width_m) = (hand.monitor.phase(), hand.monitor.width_m());
            prop_assert!(!phase.is_moving() || hand.now().since(issued) <= SETTINGS.timeout);
            prop_assert_eq!(width_m.is_nan(), phase == GripperPhase::Absent);
            prop_assert!(width_m.is_nan() || (0.0..=0.065).contains(&width_m));
        }
    }
}
