//! Which calls a thread makes of the operating system, proved by the kernel itself.
//!
//! A seccomp filter on that thread lets through what a control thread may do once the arm is armed: read the clock, wait for a
//! deadline, wake a thread that was handed something. Of every other call the kernel tells a supervising thread first, which counts
//! it and lets it go on: so a violation is named, and the thread goes on as it would have without the filter (only slower).
//! A filter stays until its thread ends; what the thread does after [`Watched::end`] is not counted.
//!
//! Needs Linux 5.9 and seccomp; where there is none, [`Watched::begin`] says so.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use serde::{Deserialize, Serialize};

/// Numbers of calls that are counted one by one; others share a count.
const NUMBERS: usize = 512;
/// Operations of futex, likewise.
const OPERATIONS: usize = 16;

/// A kind of call that was made though it may not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub call: String,
    pub count: u64,
}

struct Tally {
    /// The kernel's end; −1 until the filter is on.
    listener: AtomicI32,
    counting: AtomicBool,
    closing: AtomicBool,
    calls: [AtomicU64; NUMBERS],
    futex: [AtomicU64; OPERATIONS],
    others: AtomicU64,
}

/// The supervising end.
pub struct SyscallWatch {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

/// The watched thread's end.
pub struct Watched {
    tally: Arc<Tally>,
    supervisor: Thread,
}

impl SyscallWatch {
    /// Starts the supervising thread.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start() -> io::Result<(Self, Watched)> {
        let tally = Arc::new(Tally {
            listener: AtomicI32::new(-1),
            counting: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            calls: [const { AtomicU64::new(0) }; NUMBERS],
            futex: [const { AtomicU64::new(0) }; OPERATIONS],
            others: AtomicU64::new(0),
        });
        let shared = Arc::clone(&tally);
        let thread = std::thread::Builder::new().name("tenon-syscalls".into()).spawn(move || supervise(&shared))?;
        let supervisor = thread.thread().clone();
        Ok((Self { tally: Arc::clone(&tally), thread: Some(thread) }, Watched { tally, supervisor }))
    }

    /// What was called between [`Watched::begin`] and [`Watched::end`] though it may not be; empty where nothing was.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen: Vec<Seen> = Vec::new();
        let mut add = |call: String, count: u64| {
            if count > 0 {
                seen.push(Seen { call, count });
            }
        };
        for (number, count) in self.tally.calls.iter().enumerate() {
            add(name(number as i64), count.load(Ordering::Acquire));
        }
        for (operation, count) in self.tally.futex.iter().enumerate() {
            add(format!("futex, {}", futex_name(operation)), count.load(Ordering::Acquire));
        }
        add("calls of unknown numbers".to_owned(), self.tally.others.load(Ordering::Acquire));
        seen
    }

    /// Ends the supervising thread. Before the watched thread has ended, that thread's calls would fail.
    pub fn finish(mut self) -> Vec<Seen> {
        self.close();
        self.seen()
    }

    fn close(&mut self) {
        self.tally.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for SyscallWatch {
    fn drop(&mut self) {
        self.close();
    }
}

impl Watched {
    /// Puts the filter on the calling thread, for good, and begins to count.
    ///
    /// # Errors
    /// The kernel has no seccomp, or does not grant the filter.
    pub fn begin(&mut self) -> io::Result<()> {
        // SAFETY: no pointers are involved; the thread gives up gaining rights by exec, which it never does.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut program = filter();
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: `program` points to as many instructions as it says, and the kernel copies them.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &program,
            )
        };
        if listener < 0 {
            return Err(io::Error::last_os_error());
        }
        self.tally.listener.store(listener as i32, Ordering::Release);
        self.supervisor.unpark();
        self.tally.counting.store(true, Ordering::Release);
        Ok(())
    }

    /// What follows is not counted.
    pub fn end(&mut self) {
        self.tally.counting.store(false, Ordering::Release);
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where the filter finds what it looks at (`struct seccomp_data`): number, architecture, low half of the second argument.
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const SECOND_ARGUMENT: u32 = 24;

/// Bits of a futex operation that say how, not what.
const FUTEX_HOW: u32 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;

fn filter() -> Vec<sock_filter> {
    let op = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |at: u32| op(BPF_LD | BPF_W | BPF_ABS, at);
    // Where equal, over `then` instructions, else over `otherwise`.
    let equal = |k: u32, then: u8, otherwise: u8| sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: then,
        jf: otherwise,
        k,
    };
    let number = |call: libc::c_long| call as u32;
    vec![
        load(ARCHITECTURE_AT),
        equal(ARCHITECTURE, 0, 8),
        load(NUMBER),
        equal(number(libc::SYS_clock_gettime), 7, 0),
        equal(number(libc::SYS_clock_nanosleep), 6, 0),
        // The thread's own end.
        equal(number(libc::SYS_exit), 5, 0),
        equal(number(libc::SYS_futex), 0, 3),
        load(SECOND_ARGUMENT),
        op(BPF_ALU | BPF_AND | BPF_K, !FUTEX_HOW),
        equal(libc::FUTEX_WAKE as u32, 1, 0),
        op(BPF_RET | BPF_K, libc::SECCOMP_RET_USER_NOTIF),
        op(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Takes the kernel's word until the watched thread has ended. The watched thread waits meanwhile, perhaps inside the allocator:
/// so nothing here allocates or waits for a lock.
fn supervise(tally: &Tally) {
    let listener = loop {
        let listener = tally.listener.load(Ordering::Acquire);
        if listener >= 0 {
            // SAFETY: the kernel has made this descriptor for the filter, and nobody else has it.
            break unsafe { OwnedFd::from_raw_fd(listener) };
        }
        if tally.closing.load(Ordering::Acquire) {
            return;
        }
        std::thread::park();
    };
    loop {
        let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one valid entry.
        let ready = unsafe { libc::poll(&mut poll, 1, 100) };
        if ready > 0 && poll.revents & libc::POLLIN != 0 {
            take_one(tally, &listener);
        } else if poll.revents & libc::POLLHUP != 0 || tally.closing.load(Ordering::Acquire) {
            return;
        }
    }
}

fn take_one(tally: &Tally, listener: &OwnedFd) {
    // SAFETY: the kernel wants zeros, which are valid in all fields.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number says the size of `call`.
    if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut call) } != 0 {
        // The thread has been interrupted or has ended: there is nothing to answer.
        return;
    }
    if tally.counting.load(Ordering::Acquire) {
        let number = call.data.nr;
        let count = if call.data.arch != ARCHITECTURE {
            &tally.others
        } else if i64::from(number) == libc::SYS_futex {
            let operation = call.data.args[1] as u32 & !FUTEX_HOW;
            tally.futex.get(operation as usize).unwrap_or(&tally.others)
        } else {
            usize::try_from(number).ok().and_then(|n| tally.calls.get(n)).unwrap_or(&tally.others)
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
    let mut answer = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the request's number says the size of `answer`. It fails only if the thread has gone.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer) };
}

/// Names of what a thread is likely to do.
fn name(number: i64) -> String {
    let names = [
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_close, "close"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_mremap, "mremap"),
        (libc::SYS_mprotect, "mprotect"),
        (libc::SYS_madvise, "madvise"),
        (libc::SYS_brk, "brk"),
        (libc::SYS_mlockall, "mlockall"),
        (libc::SYS_sched_yield, "sched_yield"),
        (libc::SYS_sched_setscheduler, "sched_setscheduler"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_clock_settime, "clock_settime"),
        (libc::SYS_restart_syscall, "restart_syscall"),
        (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
        (libc::SYS_rt_sigaction, "rt_sigaction"),
        (libc::SYS_rt_sigreturn, "rt_sigreturn"),
        (libc::SYS_sigaltstack, "sigaltstack"),
        (libc::SYS_tgkill, "tgkill"),
        (libc::SYS_getpid, "getpid"),
        (libc::SYS_getppid, "getppid"),
        (libc::SYS_gettid, "gettid"),
        (libc::SYS_getrandom, "getrandom"),
        (libc::SYS_clone, "clone"),
        (libc::SYS_clone3, "clone3"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_exit_group, "exit_group"),
    ];
    let found = names.iter().find(|(n, _)| *n == number);
    found.map_or_else(|| format!("system call {number}"), |(_, name)| (*name).to_owned())
}

fn futex_name(operation: usize) -> String {
    match operation as i32 {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => "to wait for another thread".to_owned(),
        libc::FUTEX_LOCK_PI => "to lock".to_owned(),
        other => format!("operation {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    /// What `act` does on a thread of its own, after the filter is on; nothing where a container grants none.
    fn seen_of(act: impl FnOnce() + Send + 'static) -> Option<Vec<Seen>> {
        let (watch, mut watched) = SyscallWatch::start().unwrap();
        let thread = std::thread::spawn(move || {
            if let Err(e) = watched.begin() {
                println!("skipped: the kernel grants no seccomp filter with a listener ({e})");
                return None;
            }
            act();
            watched.end();
            // None of these is counted, and all of them work.
            std::thread::yield_now();
            Some(vec![7_u8; 8 << 20][100])
        });
        let filtered = thread.join().unwrap();
        let seen = watch.finish();
        filtered.map(|value| {
            assert_eq!(value, 7);
            seen
        })
    }

    fn of(call: &str, count: u64) -> Seen {
        Seen { call: call.to_owned(), count }
    }

    #[test]
    fn the_clock_the_wait_and_the_waking_of_a_thread_are_let_through() {
        let (send, receive) = mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            // Parked until it is woken, again and again, until the sender is dropped.
            while !matches!(receive.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
                std::thread::park();
            }
        });
        let woken = sleeper.thread().clone();
        let seen = seen_of(move || {
            for _ in 0..20 {
                clock::sleep_until(clock::now() + Duration::from_micros(200));
                woken.unpark();
            }
        });
        drop(send);
        sleeper.thread().unpark();
        sleeper.join().unwrap();
        assert_eq!(seen.unwrap_or_default(), []);
    }

    #[test]
    fn whatever_else_a_thread_does_is_named_and_counted() {
        let Some(yielded) = seen_of(|| (0..3).for_each(|_| std::thread::yield_now())) else { return };
        assert_eq!(yielded, [of("sched_yield", 3)]);
        let asked = seen_of(|| assert!(std::os::unix::process::parent_id() > 0));
        assert_eq!(asked.unwrap(), [of("getppid", 1)]);
        let large = seen_of(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(64 << 20))));
        assert_eq!(large.unwrap(), [of("mmap", 1), of("munmap", 1)]);
        let parked = seen_of(|| std::thread::park_timeout(Duration::from_millis(1)));
        assert_eq!(parked.unwrap(), [of("futex, to wait for another thread", 1)]);
    }

    #[test]
    fn a_lock_that_another_thread_holds_is_named() {
        let lock = Arc::new((std::sync::Mutex::new(()), Barrier::new(2)));
        let held = Arc::clone(&lock);
        let holder = std::thread::spawn(move || {
            let guard = held.0.lock().unwrap();
            held.1.wait();
            std::thread::sleep(Duration::from_millis(200));
            drop(guard);
        });
        lock.1.wait();
        let seen = seen_of(move || drop(lock.0.lock().unwrap()));
        holder.join().unwrap();
        assert!(seen.is_none_or(|seen| seen.iter().any(|seen| seen.call.starts_with("futex, to wait"))));
    }

    #[test]
    fn an_unknown_number_is_named_by_it() {
        assert_eq!((name(libc::SYS_mmap), name(499)), ("mmap".to_owned(), "system call 499".to_owned()));
    }
}
