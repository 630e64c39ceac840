//! The monotonic clock of this machine, and real-time scheduling of a thread.

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

/// Whether this thread got what was asked for; the text says what to do about it.
pub fn make_realtime(priority: i32) -> Result<(), String> {
    if priority == 0 {
        return Ok(());
    }
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is a valid sched_param; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } != 0 {
        let e = std::io::Error::last_os_error();
        return Err(format!(
            "SCHED_FIFO priority {priority} not granted ({e}): allow it with LimitRTPRIO or CAP_SYS_NICE; running on with normal priority"
        ));
    }
    // SAFETY: no pointers are involved.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        let e = std::io::Error::last_os_error();
        return Err(format!("memory not locked ({e}): raise LimitMEMLOCK; page faults may delay ticks"));
    }
    Ok(())
}

/// Time since `earlier`.
pub fn elapsed(earlier: MonotonicTime) -> Duration {
    now().since(earlier)
}
