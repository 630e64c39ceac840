//! Following tags allocates nothing on our side once its buffers have grown (the C library has its own memory).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use tenon_core::time::MonotonicTime;
use tenon_vision::render::workbench::{Workbench, three_views};
use tenon_vision::render::{CameraEffects, SyntheticCamera};
use tenon_vision::track::{BackgroundSearch, SearchPriority, SliceSettings, Tracker, TrackerSettings};
use tenon_vision::{Camera, DetectorSettings, GreyImage, Rig};

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

#[test]
fn a_tracked_frame_and_the_hand_over_of_a_slice_allocate_nothing_after_warm_up() {
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, 0.25).unwrap();
    let lens = Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap();
    let mut camera = SyntheticCamera::new(lens, 1280, 720, CameraEffects::default(), 5).unwrap();
    let images: Vec<GreyImage> = (0..8)
        .map(|frame| {
            let mut image = GreyImage::filled(1280, 720, 0);
            let motions = bench.motions(&three_views()[1], f64::from(frame) / 30.0, 0.004);
            camera.shoot(&bench.scene, &motions, frame as u64, &mut image).unwrap();
            image
        })
        .collect();
    let detector = DetectorSettings { min_decision_margin: 30.0, ..Default::default() };
    let mut tracker = Tracker::new(TrackerSettings { detector, ..Default::default() }).unwrap();
    let slices = SliceSettings::default();
    let mut search =
        BackgroundSearch::start("slices", &slices, &detector, (1280, 720), SearchPriority::Nice(5)).unwrap();
    let mut tracked = |rounds: std::ops::Range<usize>| {
        let mut tags = 0;
        for frame in rounds {
            let time = MonotonicTime::from_nanos(1_000_000_000) + Duration::from_millis(33) * frame as u32;
            let image = images[frame % images.len()].view();
            if frame.is_multiple_of(16) {
                tracker.search_whole(image, time).unwrap();
            }
            tags += tracker.track(image, time).unwrap().len();
            search.exchange(image, time, &mut tracker).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        tags
    };
    let warm_up = tracked(0..32);
    let before = ALLOCATIONS.with(Cell::get);
    let tags = tracked(32..64);
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert!(warm_up > 200 && tags > 200, "{warm_up} {tags}");
}
