//! Nothing in the path from measurement to block allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use super::*;
use crate::time::Stamped;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
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

/// 300 frames of three tracked parts and one held, with jumps, ambiguous pictures and events.
fn run(board: &mut PartBoard, update: impl Fn(&mut PartBoard, usize, &PartMeasurement)) {
    let (mut rng, R, mut out) = (rng(1), covariance(0.001, 1.0), [0.0; 28]);
    for n in 0..300 {
        let truth = if n < 150 { part() } else { moved(&part(), &Vector6::repeat(0.1)) };
        for index in 0..3 {
            let mut m = measurement(noisy(&mut rng, &truth, &R), R, frame(n));
            m.ambiguous = n % 7 == 3;
            m.other = Some((moved(&truth, &Vector6::new(0.0, 0.0, 0.0, 0.9, 0.0, 0.0)), R));
            m.systematic = (index > 0).then(|| random_systematic(&mut rng, 3, 0.0003, 0.1));
            m.other_systematic = m.systematic;
            update(board, index, &m);
        }
        let T_robot_tcp = T_robot_april_training() * truth;
        match n {
            200 => drop(board.on_gripper_event(GripperEvent::Closed { width_m: 0.03 }, frame(n), Some(&T_robot_tcp))),
            250 => drop(board.on_gripper_event(GripperEvent::Opening, frame(n), Some(&T_robot_tcp))),
            _ => {}
        }
        let tool = Stamped { time: frame(n), value: T_robot_tcp };
        let ready = board.write(frame(n), Some(&tool), &mut out).is_ok();
        assert!(ready || n < 3, "frame {n}");
    }
}

#[test]
fn from_measurement_to_block_nothing_allocates() {
    for (name, filter) in [
        ("part_filter", FusionMode::default()),
        ("part_filter with velocity", FusionMode::PartFilter(constant_velocity())),
        ("moving_average", FusionMode::MovingAverage(MovingAverageConfig::default())),
        ("majority", FusionMode::Majority(MajorityConfig::default())),
    ] {
        let by_camera = matches!(filter, FusionMode::Majority(_));
        let config = FusionConfig { filter, ..Default::default() };
        let mut board = PartBoard::new(Furniture::RoundTable, &config, &T_robot_april_training(), 2, frame(0)).unwrap();
        let (before, started) = (ALLOCATIONS.with(Cell::get), Instant::now());
        run(&mut board, |board, index, m| {
            if by_camera {
                let camera = |camera| CameraPose { camera, T_april_part: m.T_april_part, tags: 1 };
                board.update_cameras(index, &[camera(0), camera(1)], m.exposed_at, m.exposed_at);
            } else {
                board.update(index, m, m.exposed_at);
            }
        });
        let (allocated, took) = (ALLOCATIONS.with(Cell::get) - before, started.elapsed());
        println!("{name}: {:.1} µs a frame of three parts", took.as_secs_f64() * 1e6 / 300.0);
        assert_eq!(allocated, 0, "{name}");
    }
    let mut gate = GateWithMovingAverage::new(GateConfig::default(), 2, 587);
    let before = ALLOCATIONS.with(Cell::get);
    for n in 0..100 {
        gate.begin_call();
        let sighting = TagSighting { id: 4 + n % 30, camera: 1, T_camera_tag: part(), hamming: 0 };
        assert!(gate.judge(&sighting).is_ok());
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
