//! Real-time priority for the threads that track and solve, where the system permits it.

use std::fmt;
use std::io;

/// What became of the request for real-time priority ([`super::PipelineSettings::realtime_priority`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realtime {
    NotAsked,
    /// All threads that track and solve run under SCHED_FIFO with this priority.
    Granted {
        priority: i32,
    },
    /// They run on with normal priority.
    Refused(RealtimeRefused),
}

/// Why there is no real-time priority. Its text says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealtimeRefused {
    pub priority: i32,
    /// What the system said, as `errno`.
    pub errno: i32,
}

impl fmt::Display for RealtimeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, errno } = self;
        write!(f, "SCHED_FIFO priority {priority} not granted to the threads that track and solve (")?;
        write!(f, "{}): ", io::Error::from_raw_os_error(*errno))?;
        if *errno == libc::EINVAL {
            write!(f, "priorities are 1 to 99; ")?;
        } else {
            write!(f, "allow it with LimitRTPRIO or CAP_SYS_NICE; ")?;
        }
        write!(f, "they run on with normal priority")
    }
}

impl std::error::Error for RealtimeRefused {}

/// Asks for SCHED_FIFO for the calling thread; 0 asks for nothing. Threads that it starts do not inherit the priority.
pub(super) fn request(priority: i32) -> Result<(), RealtimeRefused> {
    if priority == 0 {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread, the pointer is valid for the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameters) } == 0 {
        return Ok(());
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM);
    Err(RealtimeRefused { priority, errno })
}

impl Realtime {
    /// From what each thread got.
    pub(super) fn of(priority: i32, threads: impl IntoIterator<Item = Result<(), RealtimeRefused>>) -> Self {
        if priority == 0 {
            return Self::NotAsked;
        }
        threads.into_iter().find_map(Result::err).map_or(Self::Granted { priority }, Self::Refused)
    }
}
