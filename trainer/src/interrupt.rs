//! Ctrl-C and SIGTERM: steps are asked to stop; what does not within a second is ended, between two file writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::run_dir::writing;

/// Time that a step has to end by itself. The whole program has ended within 2 s.
const GRACE: Duration = Duration::from_millis(1200);
/// Exit code of a program that a signal ended: 128 + SIGINT.
pub const INTERRUPTED_EXIT_CODE: i32 = 130;

/// Whether the user wants the program to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals of this process; once a process.
    pub fn install() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let flag = interrupt.clone();
        ctrlc::set_handler(move || {
            flag.request();
            std::thread::sleep(GRACE);
            // Long computations (one whole update) are not worth waiting for: files are only ever renamed into
            // place, and this lock is free only where none is being written.
            let _writing = writing();
            std::process::exit(INTERRUPTED_EXIT_CODE);
        })?;
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
