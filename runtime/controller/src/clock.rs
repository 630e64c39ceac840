//! The monotonic clock of this machine.

use std::time::Duration;

use tenon_core::time::MonotonicTime;

/// CLOCK_MONOTONIC now; the same clock in every process of this machine.
pub fn now() -> MonotonicTime {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to; the clock id is a constant that Linux always has.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    debug_assert_eq!(rc, 0, "CLOCK_MONOTONIC exists on every Linux");
    MonotonicTime::from_nanos(t.tv_sec * 1_000_000_000 + t.tv_nsec)
}

/// Sleeps until a moment on the monotonic clock.
pub fn sleep_until(deadline: MonotonicTime) {
    let nanos = deadline.as_nanos().max(0);
    let t = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    // SAFETY: `t` is a valid timespec; no remainder is asked for, an absolute sleep is simply repeated.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &t, std::ptr::null_mut()) }
        == libc::EINTR
    {}
}

/// Time since `earlier`.
pub fn elapsed(earlier: MonotonicTime) -> Duration {
    now().since(earlier)
}
