//! Patching the update archive is fit for a real-time thread: it allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tenon_polymetis::archive::ParameterArchive;

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
