//! Restarting the server under test and silencing its robot client, by commands of the shell that the user gives.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::rig::{Rig, client_of};
use super::verdict::{Outcome, skip};

/// How long a restarted server or robot client may take to be there.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);
/// Commands of the shell that restart the server and silence its robot client.
#[derive(Debug, Clone, Default)]
pub struct ShellCommands {
    pub restart: Option<String>,
    pub robot_stop: Option<String>,
    pub robot_start: Option<String>,
}

impl Rig {
    /// Runs a command of the shell to its end; what it starts in the background goes on.
    pub fn shell(&self, what: &str, command: &Option<String>) -> Outcome {
        let Some(command) = command else { return skip(format!("needs --{what}-command")) };
        let child = Command::new("sh")
            .args(["-c", command])
            .env("TENON_POLYMETIS", &self.address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.or_else(|e| skip(format!("--{what}-command: cannot start sh: {e}")))?;
        let end = Instant::now() + RESTART_PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return skip(format!("--{what}-command ended with {status}")),
                Err(e) => return skip(format!("--{what}-command: {e}")),
                Ok(None) if Instant::now() >= end => {
                    // It fails only if it has ended meanwhile.
                    let _ = child.kill();
                    let _ = child.wait();
                    return skip(format!("--{what}-command did not end within {RESTART_PATIENCE:?}"));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Restarts the server and connects anew. Without `with_robot` nobody waits for the robot client.
    pub fn restart(&mut self, with_robot: bool) -> Outcome {
        (self.ours, self.unanswered) = (None, false);
        self.dirty = true;
        self.shell("restart", &self.commands.restart)?;
        self.reconnect()?;
        if with_robot {
            self.await_robot()?;
            self.dirty = false;
            self.home = self.measured()?;
        }
        Ok(())
    }

    /// A new connection, as soon as somebody answers.
    fn reconnect(&mut self) -> Outcome {
        let end = Instant::now() + RESTART_PATIENCE;
        loop {
            let client = {
                let _in_runtime = self.runtime.enter();
                client_of(&self.address)
            };
            self.client = client.or_else(|e| skip(e.to_string()))?;
            match self.episode() {
                Ok(_) => return Ok(()),
                Err(refusal) if Instant::now() >= end => {
                    return skip(format!("the server does not answer after its restart: {refusal}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until the robot client calls and its states move.
    pub fn await_robot(&self) -> Outcome {
        let end = Instant::now() + RESTART_PATIENCE;
        let mut last = None;
        loop {
            let moving = self.get_metadata().and_then(|_| self.state());
            match moving {
                Ok(state) if last.is_some() && state.timestamp != last => return Ok(()),
                Ok(state) => last = state.timestamp,
                Err(refusal) if Instant::now() >= end => {
                    return skip(format!("the robot client does not come back: {refusal}"));
                }
                Err(_) => {}
            }
            if Instant::now() >= end {
                return skip("the robot's states stand still");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Silences the robot client and waits until the server has noticed.
    pub fn silence_robot(&mut self) -> Outcome {
        if self.commands.robot_start.is_none() {
            return skip("needs --robot-stop-command and --robot-start-command");
        }
        self.shell("robot-stop", &self.commands.robot_stop)?;
        self.dirty = true;
        let end = Instant::now() + RESTART_PATIENCE;
        while self.get_metadata().is_ok() {
            if Instant::now() >= end {
                return skip("--robot-stop-command does not stop the robot client");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Lets the robot client call again.
    pub fn wake_robot(&mut self) -> Outcome {
        self.shell("robot-start", &self.commands.robot_start)?;
        self.await_robot()?;
        self.dirty = false;
        Ok(())
    }
}
