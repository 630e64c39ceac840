//! A process of the bench: started with a log of its own, signalled, waited for, ended with us.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::processes::prefer;

/// How long a process may take to end when it is told to.
const ENDING: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, everything it says going into the file `log`.
    ///
    /// # Errors
    /// As starting a process.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let again = file.try_clone().with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0);
        // SAFETY: setpriority and prctl are async-signal-safe and take no pointers.
        unsafe {
            command.pre_exec(|| {
                prefer();
                // The runs are driven by one thread that lives as long as the program.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            })
        };
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until it has said `what`.
    ///
    /// # Errors
    /// It has ended before, or does not say it in time.
    pub fn wait_for(&mut self, what: &str, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while !self.said().contains(what) {
            if let Some(status) = self.ended() {
                bail!("{} ended before it was ready ({status}): {}", self.name, self.said().trim());
            }
            if Instant::now() > until {
                bail!("{} was not ready within {limit:?}: {}", self.name, self.said().trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is not there.
    pub fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        if let Some(status) = self.ended() {
            bail!("{} has ended by itself ({status}): {}", self.name, self.said().trim());
        }
        let pid = libc::pid_t::try_from(self.child.id()).context("a process number")?;
        // SAFETY: the child has not been waited for, so its number is not another's.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("signalling {}", self.name));
        }
        Ok(())
    }

    /// Kills it, and waits until it is dead.
    ///
    /// # Errors
    /// It is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not, or crashed.
    pub fn wait(&mut self) -> Result<()> {
        let until = Instant::now() + ENDING;
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                if let Some(signal) = status.signal() {
                    bail!("{} was ended by signal {signal}: {}", self.name, self.said().trim());
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("{} does not end within {ENDING:?}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // Each fails only if it has ended meanwhile.
        let _ = self.signal(libc::SIGCONT);
        let _ = self.signal(libc::SIGTERM);
        if self.wait().is_err() && self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
