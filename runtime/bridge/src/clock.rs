//! The workstation's monotonic clock.

use std::sync::Arc;

use tenon_core::time::MonotonicTime;
use tenon_link::Clock;

/// CLOCK_MONOTONIC.
pub fn monotonic_time() -> MonotonicTime {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec, and this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    MonotonicTime::from_nanos(now.tv_sec * 1_000_000_000 + now.tv_nsec)
}

/// The same for a link.
pub fn monotonic_clock() -> Clock {
    Arc::new(monotonic_time)
}
