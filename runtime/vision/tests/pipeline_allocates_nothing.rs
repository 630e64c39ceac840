//! From a frame to the poses on the board nothing is allocated on our side once the buffers have grown (the C library has its
//! own memory).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use tenon_core::fusion::{Furniture, FusionConfig, PartBoard, T_robot_april_training};
use tenon_core::time::MonotonicTime;
use tenon_vision::pipeline::{PipelineSettings, VisionPipeline};
use tenon_vision::render::workbench::{Workbench, three_views};
use tenon_vision::render::{CameraEffects, SyntheticCamera};
use tenon_vision::{Camera, GreyImage, PlacedCamera, Rig};

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
fn a_frame_becomes_poses_on_the_board_without_an_allocation_after_warm_up() {
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, 0.25).unwrap();
    let lens = Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap();
    let begin = MonotonicTime::from_nanos(1_000_000_000);
    let period = Duration::from_millis(33);
    let pictures: Vec<Vec<GreyImage>> = three_views()
        .iter()
        .map(|view| {
            let mut camera = SyntheticCamera::new(lens, 1280, 720, CameraEffects::default(), 5).unwrap();
            let frames = (0..6).map(|frame| {
                let mut image = GreyImage::filled(1280, 720, 0);
                let motions = bench.motions(view, f64::from(frame) / 30.0, 0.004);
                camera.shoot(&bench.scene, &motions, frame as u64, &mut image).unwrap();
                image
            });
            frames.collect()
        })
        .collect();
    let cameras = three_views().map(|T_april_camera| {
        let placed = PlacedCamera { camera: lens, T_april_camera, position_sigma_m: 5e-4, rotation_sigma_rad: 1e-3 };
        (placed, (1280, 720))
    });
    let robot_board = T_robot_april_training();
    let board = PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &robot_board, 3, begin).unwrap();
    let mut pipeline = VisionPipeline::new(&rig, board, &cameras, &PipelineSettings::default()).unwrap();
    let mut played = |rounds: std::ops::Range<u32>| {
        let mut updates = 0;
        for round in rounds {
            for (camera, frames) in pictures.iter().enumerate() {
                let place = (round % 10) as usize;
                let image = frames[if place < 6 { place } else { 10 - place }].view();
                let exposed_at = begin + period * round + period / 3 * camera as u32;
                updates += pipeline.frame(camera, image, exposed_at, exposed_at + period / 2).unwrap().len();
                pipeline.search_slice(camera, image, exposed_at).unwrap();
            }
        }
        updates
    };
    let warm_up = played(0..20);
    let before = ALLOCATIONS.with(Cell::get);
    let updates = played(20..40);
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert!(warm_up > 100 && updates > 150, "{warm_up} {updates}");
}
