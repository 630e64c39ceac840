//! A control step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use tenon_core::avoid::OBSERVATION_DIM;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::Environment;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

/// The only test of this binary: another one's allocations would be counted too.
#[test]
fn stepping_and_resetting_allocate_nothing() {
    let mut env = AvoidEnv::new(&AvoidScene::new().unwrap());
    let mut observation = [0.0; OBSERVATION_DIM];
    // Straight at the first obstacle, so that contacts are part of it.
    let actions = [-0.001, 0.01].repeat(4);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    env.reset(0, &mut observation);
    for _ in 0..10 {
        env.step_chunk(&actions, &mut observation);
    }
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(env.rod_touched());
    assert_eq!(after - before, 0);
}
