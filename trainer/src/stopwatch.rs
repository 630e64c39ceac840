//! Time on the clock and of the processor.

use std::time::{Duration, Instant};

/// What some work took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Time on the clock.
    pub wall: Duration,
    /// Processor time of all threads: what stays comparable on a busy machine.
    pub cpu: Duration,
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Runs `work` and says what it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Timing) {
    let (wall, cpu) = (Instant::now(), cpu_time());
    let result = work();
    (result, Timing { wall: wall.elapsed(), cpu: cpu_time().saturating_sub(cpu) })
}

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; the clock exists on every Linux.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    if status == 0 { Duration::new(t.tv_sec as u64, t.tv_nsec as u32) } else { Duration::ZERO }
}
