//! Recording a tick allocates nothing and takes next to no time; what was recorded becomes the same inputs again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use tenon_controller::machine::{InferRequest, Inputs, MAX_OBSERVATION, Order, Outcome, Phase};
use tenon_controller::motion::Motion;
use tenon_controller::record::{ControlTap, RunRecorder, difference, inputs, read_order};
use tenon_core::action::ActionChunk;
use tenon_core::arm::{Arm, tool_along_flange_z};
use tenon_core::fusion::{PartsBlock, PartsView};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, Request, RobotState};
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};
use tenon_recorder::{Item, Limits, Record, RunReader, Settings};

struct Counting;

thread_local! {
    /// Of this thread alone: the writing thread may allocate.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TICKS: u32 = 2000;

#[test]
fn a_recorded_tick_allocates_nothing_and_becomes_the_same_inputs_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = Settings {
        folder: folder.path().to_owned(),
        metadata: [("task".to_owned(), "test".to_owned())].into(),
        arm: Arm::new(tool_along_flange_z(0.1, 0.0)),
        wall_offset_ns: 0,
        limits: Limits { free_bytes: 0, ..Limits::default() },
        trouble: Box::new(|text| panic!("{text}")),
    };
    let (recorder, tap) = RunRecorder::start(settings).expect("a fresh folder");
    let mut control = ControlTap::new(tap.clone());
    let chunk = ActionChunk::new(5, 2, &[0.25; 16]).expect("whole rows");
    let mut policy = tenon_controller::record::ChunkTap::new(tap);
    let noise = tenon_core::noise::SeededNoise::new(7, 0).state();
    policy.chunk(MonotonicTime::from_nanos(1), Duration::from_millis(1), noise, 20, &chunk);

    let at = |n: u32| MonotonicTime::from_nanos(1_000_000_000) + Duration::from_millis(7) * n;
    let block = PartsBlock { oldest_age: Duration::ZERO, least_confidence: 1.0 };
    let mut observation = [0.0; MAX_OBSERVATION];
    observation[..4].copy_from_slice(&[0.1, 0.2, 0.3, f32::MIN_POSITIVE]);
    let outcome = Outcome {
        target: Some([JointMotion { position_rad: 0.1, velocity_rad_s: 0.2, acceleration_rad_s2: -0.0 }; 7]),
        request: Some(Request::Heartbeat { session: 3 }),
        infer: Some(InferRequest { id: 9, len: 4, observation, ..InferRequest::default() }),
        gripper: None,
        event: None,
    };
    let mut took = Duration::ZERO;
    let mut longest = Duration::ZERO;
    let mut allocations = 0;
    for n in 0..TICKS {
        let state = RobotState {
            sequence: u64::from(n),
            robot_time: RobotTime::from_nanos(0),
            joint_positions_rad: [0.1; 7],
            joint_velocities_rad_s: [0.0; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: GripperPhase::Absent,
            error_code: 0,
        };
        let status = BridgeStatus {
            sequence: u64::from(n),
            state: BridgeState::Running,
            fault: BridgeFault::None,
            session: 3,
            epoch: 1,
            acknowledged: u64::from(n),
            update_us: 900,
            robot_hz: 1000,
        };
        let view = PartsView::recorded(at(n), Ok(block), &[0.5; 28]).expect("four parts");
        let inputs = Inputs {
            due: at(n),
            state: Some(Stamped { time: at(n), value: state }),
            status: Some(Stamped { time: at(n), value: status }),
            chunk: Some(&chunk),
            parts: Some(&view),
            order: (n == 7).then_some(Order::Move(Motion::Joints { goal_rad: [0.1; 7], max_speed_rad_s: 0.8 })),
            late_ticks: 1,
        };
        let before = ALLOCATIONS.with(Cell::get);
        let begun = Instant::now();
        let (wake_up, work) = (Duration::from_micros(50), Duration::from_micros(20));
        control.tick(at(n), &inputs, wake_up, work, &outcome, Phase::Running);
        let tick = begun.elapsed();
        allocations += ALLOCATIONS.with(Cell::get) - before;
        took += tick;
        longest = longest.max(tick);
        // The pace of a fast run: the caches are cold again each time.
        std::thread::sleep(Duration::from_micros(200));
    }
    println!("a tick's record takes {:.2} µs, at most {longest:?}", took.as_secs_f64() * 1e6 / f64::from(TICKS));
    assert_eq!(allocations, 0);
    // A busy machine takes longer; what would be a lock or a call of the system takes longer still.
    assert!(took / TICKS < Duration::from_micros(50), "{took:?} for {TICKS} ticks");
    let recorded = recorder.finish();
    assert_eq!((recorded.ticks, recorded.dropped), (u64::from(TICKS), 0));

    let mut reader = RunReader::open(folder.path()).expect("a record");
    let (mut ticks, mut orders, mut parts) = (0, 0, None);
    while let Some(item) = reader.next_item().expect("it is whole") {
        match item {
            Item::Record(Record::Parts(view)) => parts = Some(view.0),
            Item::Record(Record::Order { tick, bytes, .. }) => {
                assert_eq!(tick, 7);
                assert!(matches!(read_order(&bytes), Some(Order::Move(Motion::Joints { .. }))));
                orders += 1;
            }
            Item::Record(Record::Tick(record, words)) => {
                let again = inputs(&record, None, Some(&chunk), parts.as_ref());
                assert_eq!((record.tick, again.due, again.late_ticks), (ticks, at(ticks as u32), 1));
                assert_eq!((record.chunk, record.ordered), (Some(5), ticks == 7));
                assert_eq!(again.state.map(|state| state.value.sequence), Some(ticks));
                assert_eq!(difference(&record, &words, &outcome, Phase::Running), None);
                let found = difference(&record, &words, &outcome, Phase::Holding).expect("another phase");
                assert_eq!((found.field.as_str(), found.recomputed.as_str()), ("phase", "\"Holding\""));
                ticks += 1;
            }
            _ => {}
        }
    }
    assert_eq!((ticks, orders), (u64::from(TICKS), 1));
}
