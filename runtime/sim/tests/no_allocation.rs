//! A control step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tenon_core::avoid::OBSERVATION_DIM;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::Environment;

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness has threads of its own, which allocate when they like.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn stepping_and_resetting_allocate_nothing() {
    let mut env = AvoidEnv::new(&AvoidScene::new().unwrap());
    let mut observation = [0.0; OBSERVATION_DIM];
    // Straight at the first obstacle, so that contacts are part of it.
    let actions = [-0.001, 0.01].repeat(4);
    let before = ALLOCATIONS.get();
    env.reset(0, &mut observation);
    for _ in 0..10 {
        env.step_chunk(&actions, &mut observation);
    }
    let after = ALLOCATIONS.get();
    assert!(env.rod_touched());
    assert_eq!(after - before, 0);
}
