//! From a frame to the poses on the board nothing is allocated on our side once the buffers have grown (the C library has its
//! own memory).

use nalgebra::Matrix6;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use tenon_core::fusion::{Furniture, FusionConfig, PartBoard, T_robot_april_training};
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_vision::pipeline::{PipelineSettings, PoseSolver, View, VisionPipeline};
use tenon_vision::render::workbench::{Workbench, three_views};
use tenon_vision::render::{CameraEffects, SyntheticCamera};
use tenon_vision::{Camera, GreyImage, PlacedCamera, Rig, TagDetection};

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
    // With what the cameras' places are worth, and a tool point that holds nothing: all of the path is gone through.
    let pipeline = VisionPipeline::new(&rig, board, &cameras, &PipelineSettings::default()).unwrap();
    let mut pipeline = pipeline.with_place_covariances(&[Some(Matrix6::identity() * 1e-7); 3]).unwrap();
    pipeline.set_tool_pose(Some(Stamped { time: begin, value: robot_board }));
    let mut looked_for = 0;
    let mut played = |rounds: std::ops::Range<u32>| {
        let mut updates = 0;
        for round in rounds {
            for (camera, frames) in pictures.iter().enumerate() {
                let place = (round % 10) as usize;
                let image = frames[if place < 6 { place } else { 10 - place }].view();
                let exposed_at = begin + period * round + period / 3 * camera as u32;
                updates += pipeline.frame(camera, image, exposed_at, exposed_at + period / 2).unwrap().len();
                looked_for += pipeline.eye(camera).tracker().last_frame().looked_for;
                pipeline.search_slice(camera, image, exposed_at).unwrap();
            }
        }
        updates
    };
    let warm_up = played(0..20);
    let before = ALLOCATIONS.with(Cell::get);
    let updates = played(20..40);
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert!(warm_up > 100 && updates > 150 && looked_for > 10, "{warm_up} {updates} {looked_for}");
}

#[test]
fn a_part_whose_only_tags_no_pose_could_have_given_costs_no_memory_either() {
    let rig = Rig::built_in().unwrap();
    let begin = MonotonicTime::from_nanos(1_000_000_000);
    let robot_board = T_robot_april_training();
    let board = PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &robot_board, 1, begin).unwrap();
    let camera = Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap();
    let T_april_camera = three_views()[0];
    let placed = PlacedCamera { camera, T_april_camera, position_sigma_m: 0.0, rotation_sigma_rad: 0.0 };
    let mut solver = PoseSolver::new(&rig, &board, vec![placed], &PipelineSettings::default());
    let tag = |id: u32, corners_px: [[f64; 2]; 4]| TagDetection {
        id,
        hamming: 0,
        decision_margin: 80.0,
        centre_px: corners_px[0],
        corners_px,
    };
    // On one line; mirrored; not a number; and one print seen twice.
    let line = [[100.0, 100.0], [120.0, 110.0], [140.0, 120.0], [160.0, 130.0]];
    let mirrored = [[100.0, 100.0], [130.0, 100.0], [130.0, 130.0], [100.0, 130.0]];
    let broken = [[f64::NAN, 0.0]; 4];
    let view = |at: MonotonicTime| View {
        exposed_at: at,
        tags: vec![
            tag(4, line),
            tag(8, mirrored),
            tag(12, broken),
            tag(16, mirrored),
            tag(20, line),
            tag(20, mirrored),
        ],
        velocities_px_s: vec![[0.0; 2]; 6],
    };
    let views: Vec<View> = (0..20).map(|k| view(begin + Duration::from_millis(33 * k))).collect();
    let mut solved = solver.take(0, &views[0]).len();
    let before = ALLOCATIONS.with(Cell::get);
    for view in &views[1..] {
        solved += solver.take(0, view).len();
    }
    assert_eq!((ALLOCATIONS.with(Cell::get), solved), (before, 0));
}
