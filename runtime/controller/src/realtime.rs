//! What a control thread asks of the operating system before it begins: its priority, locked memory, a processor of its own.
//!
//! Nothing of it is needed to run, and everything of it may be refused; what was refused is said with what to do about it.

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Of SCHED_FIFO, 1 to 99; 0 asks for nothing, not even for locked memory.
    pub priority: i32,
    /// The processor to stay on, counted from 0.
    pub cpu: Option<usize>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Of SCHED_FIFO; absent where the thread runs with normal priority.
    pub priority: Option<i32>,
    /// No page of the process is ever taken away, so none has to be fetched back.
    pub locked: bool,
    /// The processor that the thread stays on.
    pub cpu: Option<usize>,
    /// What was asked for and refused, and what to do about it.
    pub refused: Vec<String>,
}

impl Granted {
    /// A line for each fact.
    pub fn statements(&self) -> Vec<String> {
        let mut lines = vec![
            self.priority.map_or("SCHED_FIFO: no, normal priority".to_owned(), |p| format!("SCHED_FIFO: priority {p}")),
            format!("memory: {}", if self.locked { "locked" } else { "not locked" }),
            self.cpu.map_or("processor: not pinned".to_owned(), |cpu| format!("processor: pinned to {cpu}")),
        ];
        lines.extend(self.refused.iter().map(|note| format!("note: {note}")));
        lines
    }
}

/// Asks for the calling thread (the memory is the process's), and leaves signals to the others: a handler that ran here would be work
/// that no period has room for.
pub fn request(asked: &Asked) -> Granted {
    let mut granted = Granted::default();
    block_signals();
    if let Some(cpu) = asked.cpu {
        match pin(cpu) {
            Ok(()) => granted.cpu = Some(cpu),
            Err(e) => granted.refused.push(format!(
                "processor {cpu} not granted ({e}): is there one, and does the CPU set of this service have it? Running on wherever there is room"
            )),
        }
    }
    let priority = asked.priority;
    if priority == 0 {
        return granted;
    }
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is a valid sched_param; 0 is the calling thread.
    match result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) }) {
        Ok(()) => granted.priority = Some(priority),
        Err(e) => granted.refused.push(format!(
            "SCHED_FIFO priority {priority} not granted ({e}): allow it with LimitRTPRIO or CAP_SYS_NICE; running on with normal priority"
        )),
    }
    // SAFETY: no pointers are involved.
    match result(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }) {
        Ok(()) => granted.locked = true,
        Err(e) => {
            granted.refused.push(format!("memory not locked ({e}): raise LimitMEMLOCK; page faults may delay ticks"));
        }
    }
    granted
}

/// All but those that a thread raises by its own mistakes.
fn block_signals() {
    // SAFETY: the set is initialised by `sigfillset`, and the signals are valid; none of the calls can fail with these.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        for own in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT]
        {
            libc::sigdelset(&mut set, own);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Page faults of the calling thread so far, served from memory or from a disk.
pub fn page_faults() -> u64 {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    usage.ru_minflt.unsigned_abs() + usage.ru_majflt.unsigned_abs()
}

fn pin(cpu: usize) -> std::io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a cpu_set_t of zeros is the empty set, and `cpu` is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    stay_on(&set)
}

/// Keeps the calling thread, and whatever it starts from now on, off a processor: what the control thread has for itself it does not
/// share with the threads that serve it.
///
/// # Errors
/// There is no other processor, or the system does not grant it.
pub fn keep_off(cpu: usize) -> std::io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Ok(());
    }
    // SAFETY: a cpu_set_t of zeros is the empty set; it is valid for its size, and `cpu` is below that.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        result(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set))?;
        libc::CPU_CLR(cpu, &mut set);
        set
    };
    stay_on(&set)
}

fn stay_on(set: &libc::cpu_set_t) -> std::io::Result<()> {
    // SAFETY: `set` is valid for its size; 0 is the calling thread.
    result(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) })
}

fn result(code: libc::c_int) -> std::io::Result<()> {
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Keeps the processors out of sleep states that take time to leave, while the file is open (the kernel's `cpu_dma_latency`).
///
/// # Errors
/// Usually only root may open it.
pub fn keep_awake() -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
    file.write_all(&0_i32.to_ne_bytes())?;
    Ok(file)
}

/// Kernel and processors in a line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let (release, version) = (read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/version"));
    let real_time = version.contains("PREEMPT_RT") || read("/sys/kernel/realtime") == "1";
    let kind = if real_time { "PREEMPT_RT" } else { "no PREEMPT_RT" };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    format!("Linux {release} ({kind}), {processors} processors, {}", model.trim_start_matches([' ', '\t', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what is granted stays with it.
    fn ask(asked: Asked) -> Granted {
        std::thread::spawn(move || request(&asked)).join().unwrap()
    }

    #[test]
    fn a_processor_that_is_not_there_is_named_and_the_thread_runs_on() {
        let granted = ask(Asked { priority: 0, cpu: Some(1000) });
        assert_eq!((granted.cpu, granted.priority), (None, None));
        assert!(granted.refused[0].contains("processor 1000 not granted"), "{granted:?}");
        assert!(granted.statements().contains(&"processor: not pinned".to_owned()));
        assert!(ask(Asked { priority: 0, cpu: Some(100_000) }).cpu.is_none());
    }

    #[test]
    fn a_priority_that_does_not_exist_is_refused_with_what_to_do() {
        let granted = ask(Asked { priority: 1000, cpu: None });
        assert_eq!(granted.priority, None);
        assert!(granted.refused.iter().any(|note| note.contains("LimitRTPRIO")), "{granted:?}");
    }

    /// Also that a thread may have the processor that whoever started it stays off.
    #[test]
    fn threads_stay_off_the_processor_of_the_control_thread_and_it_has_it() {
        std::thread::spawn(|| {
            let before = std::thread::available_parallelism().map_or(1, usize::from);
            if before < 2 || keep_off(0).is_err() {
                println!("skipped: there is only one processor");
                return;
            }
            assert!(pin_is(&[0]) || std::thread::available_parallelism().unwrap().get() < before);
            let asked = Asked { priority: 0, cpu: Some(0) };
            let granted = std::thread::spawn(move || (request(&asked), pin_is(&[0]))).join().unwrap();
            assert!(granted.0.cpu.is_none() || granted.1, "{granted:?}");
        })
        .join()
        .unwrap();
    }

    /// Whether the calling thread runs on these and no others.
    fn pin_is(cpus: &[usize]) -> bool {
        // SAFETY: as in `keep_off`.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0
                && (0..libc::CPU_SETSIZE as usize).all(|cpu| libc::CPU_ISSET(cpu, &set) == cpus.contains(&cpu))
        }
    }

    #[test]
    fn signals_go_to_other_threads() {
        let blocked = std::thread::spawn(|| {
            request(&Asked { priority: 0, cpu: None });
            // SAFETY: an all-zero set is valid; the call fills it, and the others read it.
            unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
                [libc::SIGINT, libc::SIGTERM, libc::SIGALRM, libc::SIGSEGV]
                    .map(|signal| libc::sigismember(&set, signal))
            }
        });
        assert_eq!(blocked.join().unwrap(), [1, 1, 1, 0]);
    }

    #[test]
    fn page_faults_are_counted() {
        let before = page_faults();
        let pages = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(page_faults() > before, "{}", pages.len());
    }

    #[test]
    fn the_first_processor_can_be_had() {
        // In a container the first one may belong to others: then the refusal is named.
        let granted = ask(Asked { priority: 0, cpu: Some(0) });
        assert!(granted.cpu == Some(0) || granted.refused.len() == 1, "{granted:?}");
    }
}
