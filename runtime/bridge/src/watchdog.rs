//! The service manager's watchdog, fed by the command task's progress and by nothing else.

use std::time::Duration;

use tenon_core::time::MonotonicTime;

/// Feeds the watchdog of a service of Type=notify; does nothing elsewhere.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    fed: Option<MonotonicTime>,
}

impl Watchdog {
    /// As the environment says (WATCHDOG_USEC).
    pub fn from_environment() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 4), fed: None }
    }

    /// The caller got on. Cheap enough to be called every time.
    pub fn progress(&mut self, now: MonotonicTime) {
        let Some(every) = self.every else { return };
        if self.fed.is_none_or(|fed| now.since(fed) >= every) {
            self.fed = Some(now);
            // A service manager that does not listen will act by itself.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}
