//! What runs in a real-time thread allocates nothing: patching an update archive, Tenon's law, a step of an uploaded text.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::bench::{FormulaModel, Q, Random, gains, plan_along, random_state, settings};
use tenon_polymetis::archive::{ParameterArchive, hybrid_controller};
use tenon_polymetis::script::ScriptedController;
use tenon_polymetis::waypoints::{Measured, PLAN, WaypointLaw, waypoint_controller};

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
fn patch_allocates_nothing() {
    let mut archive = ParameterArchive::joint_pos_desired();
    let before = ALLOCATIONS.with(Cell::get);
    for i in 0..1000 {
        std::hint::black_box(archive.patch(&[i as f32; 7]));
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

#[test]
fn tenons_law_allocates_nothing() {
    let mut law = WaypointLaw::new(&settings(), &gains(false));
    let measured = Measured { positions_rad: Q.map(|q| q as f32), velocities_rad_s: [0.0; 7] };
    law.step(&measured, None);
    let plans: Vec<_> = (1..100).map(|k| plan_along(&Q, 0.0, k, 20 * (k - 1), 20, 12)).collect();
    let before = ALLOCATIONS.with(Cell::get);
    for plan in &plans {
        law.update(plan).unwrap();
        for _ in 0..20 {
            std::hint::black_box(law.step(&measured, None));
        }
    }
    // The dead-man and the brakes, too.
    for _ in 0..500 {
        std::hint::black_box(law.step(&measured, None));
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

#[test]
fn a_step_of_an_uploaded_text_allocates_nothing() {
    let rest = Q.map(|q| q as f32);
    let hybrid = hybrid_controller(&rest, &[40.0; 7], &[4.0; 7], &[750.0; 6], &[37.0; 6], "<robot/>").unwrap();
    let waypoints = waypoint_controller(&settings(), &gains(true), "<robot/>").unwrap();
    for archive in [hybrid, waypoints] {
        let mut controller = ScriptedController::load(&archive).unwrap();
        let state = random_state(&mut Random(1));
        for _ in 0..3 {
            controller.forward(&state, &mut FormulaModel).unwrap();
        }
        let plan = plan_along(&state.joint_positions.map(f64::from), 0.0, 1, 0, 20, 12).to_tensor();
        if controller.update(&[(PLAN.to_owned(), plan)]).is_ok() {
            // The first piece, the next one, and braking have buffers of their own.
            for _ in 0..300 {
                controller.forward(&state, &mut FormulaModel).unwrap();
            }
        }
        let before = ALLOCATIONS.with(Cell::get);
        for _ in 0..1000 {
            std::hint::black_box(controller.forward(&state, &mut FormulaModel).unwrap());
            std::hint::black_box(controller.is_terminated().unwrap());
        }
        assert_eq!(ALLOCATIONS.with(Cell::get), before);
    }
}
