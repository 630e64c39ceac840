//! Clock and scheduling of the 1 kHz thread.

use std::time::Duration;

use tenon_core::time::MonotonicTime;

/// CLOCK_MONOTONIC, nanoseconds: the clock that processes of one machine share.
pub fn monotonic_nanos() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec, and this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// The same as a time of the core.
pub fn monotonic_time() -> MonotonicTime {
    MonotonicTime::from_nanos(monotonic_nanos())
}

/// Sleeps until a time of CLOCK_MONOTONIC; a signal may end it early.
pub fn sleep_until(deadline: MonotonicTime) {
    let nanos = deadline.as_nanos();
    let until = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    // SAFETY: `until` is a valid timespec; a null remainder is allowed with an absolute time.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut()) };
}

/// Asks for SCHED_FIFO for the calling thread. Returns whether it was granted.
pub fn ask_for_fifo(priority: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread and `parameters` a valid sched_param.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) == 0 }
}

/// Wall clock as seconds since 1970 and nanoseconds, as the robot client stamps its states.
pub fn wall_clock() -> (i64, i32) {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (since_epoch.as_secs() as i64, since_epoch.subsec_nanos() as i32)
}
