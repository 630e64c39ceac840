//! How often a thread calls the allocator. `tenon` runs with it, so that `tenon bench tick` measures the program that runs robots.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Without a destructor and without initialisation, so that counting never allocates.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, and a count for each thread. For `#[global_allocator]`.
pub struct CountingAllocator;

fn count() {
    // A thread that is being taken down has no count any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Calls of the calling thread so far: memory asked for, changed and given back.
pub fn of_this_thread() -> u64 {
    CALLS.with(Cell::get)
}

/// Whether this program counts at all.
pub fn are_counted() -> bool {
    let before = of_this_thread();
    drop(std::hint::black_box(Box::new(0_u8)));
    of_this_thread() != before
}
