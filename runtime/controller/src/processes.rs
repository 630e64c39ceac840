//! Child processes of the front door: found beside our own binary, ended with us.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Path of another Tenon binary: beside this one, which is how they are built and installed.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the path of this program")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!("{} is missing beside {}: build or install all binaries (`make build`)", name, own.display());
    }
    Ok(path)
}

/// A file that ships with Tenon: as named, or else where `make install` puts it beside the programs.
pub fn shipped(path: &std::path::Path) -> PathBuf {
    if path.exists() || path.is_absolute() {
        return path.to_path_buf();
    }
    let installed = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.join("share/tenon").join(path)))
        .filter(|p| p.exists());
    installed.unwrap_or_else(|| path.to_path_buf())
}

/// Puts this thread, and those it will start, ahead of ordinary work where that is permitted. What carries states and
/// targets must not wait a quarter of a second behind a compiler; where it is refused, staleness checks still hold the arm.
pub fn prefer() {
    // SAFETY: no pointers are involved; a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// A child that is stopped (SIGTERM, then SIGKILL) when dropped.
pub struct Service {
    name: String,
    child: Child,
    /// Lines of its standard output after the ready line.
    lines: mpsc::Receiver<String>,
}

impl Service {
    /// Starts `command` in its own process group and waits for its ready line (`"ready":true`).
    pub fn start(name: &str, mut command: Command, timeout: Duration) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        // SAFETY: setpriority is async-signal-safe and takes no pointers.
        unsafe {
            command.pre_exec(|| {
                prefer();
                Ok(())
            })
        };
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("standard output was piped")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut service = Self { name: name.to_string(), child, lines };
        let until = Instant::now() + timeout;
        loop {
            match service.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("\"ready\":true") => return Ok(service),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = service.child.wait().with_context(|| format!("waiting for {name}"))?;
                    bail!("{name} ended before it was ready ({status}); its message is above");
                }
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("{name} was not ready within {timeout:?}"),
            }
        }
    }

    /// Whether the process still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, waits, and returns its last line of output.
    pub fn stop(mut self) -> Option<String> {
        self.terminate();
        self.lines.try_iter().last()
    }

    fn terminate(&mut self) {
        if !self.running() {
            return;
        }
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child has not been waited for, so its pid is not reused.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if !self.running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} did not end within 2 s; killing it", self.name);
        // Both fail only if it has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.terminate();
    }
}
