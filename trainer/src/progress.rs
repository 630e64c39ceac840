//! Progress on standard error: one line that is rewritten on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two plain lines; a terminal is rewritten more often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows how far something got.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: usize,
    /// Done before this program began.
    before: usize,
    terminal: bool,
    begun: Instant,
    shown: Option<Instant>,
    open_line: bool,
}

impl Progress {
    /// `what` is being done `total` times.
    pub fn new(what: impl std::fmt::Display, total: usize) -> Self {
        Self::continuing(what, total, 0)
    }

    /// As [`Progress::new`], `before` of them having been done by an earlier session.
    pub fn continuing(what: impl std::fmt::Display, total: usize, before: usize) -> Self {
        Self {
            what: what.to_string(),
            total,
            before,
            terminal: std::io::stderr().is_terminal(),
            begun: Instant::now(),
            shown: None,
            open_line: false,
        }
    }

    /// `done` of the total is done; `text` says more. Not every call is shown, the last one always is.
    pub fn show(&mut self, done: usize, text: &str) {
        let interval = if self.terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if done < self.total && self.shown.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        self.shown = Some(Instant::now());
        self.print(done, text);
    }

    fn print(&mut self, done: usize, text: &str) {
        let mut line = self.line(done, text);
        if let Some(width) = self.terminal.then(terminal_width).flatten() {
            // A line that wraps cannot be rewritten.
            line = line.chars().take(width.saturating_sub(1)).collect();
        }
        let mut out = std::io::stderr().lock();
        // Nobody is helped by a program that ends because its progress cannot be shown.
        let _ = if self.terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
        self.open_line = self.terminal;
    }

    fn line(&self, done: usize, text: &str) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let now = done.saturating_sub(self.before);
        let left = if now > 0 && done < self.total {
            format!(", about {:.0} s left", seconds * (self.total - done) as f64 / now as f64)
        } else {
            String::new()
        };
        format!("{} {done}/{} ({seconds:.0} s{left}) {text}", self.what, self.total)
    }

    /// Says something that stays, above the progress line.
    pub fn note(&mut self, text: &str) {
        let mut out = std::io::stderr().lock();
        let _ = if self.open_line { write!(out, "\r\x1b[K{text}\n") } else { writeln!(out, "{text}") };
        self.open_line = false;
    }
}

/// Columns of the terminal that standard error is, where it says.
fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a valid winsize that outlives the call, which writes nothing else.
    let answered = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    (answered && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.open_line {
            let _ = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_how_far_and_how_long() {
        let line = Progress::new("epoch", 60).line(60, "loss 0.1");
        assert_eq!(line, "epoch 60/60 (0 s) loss 0.1");
    }

    #[test]
    fn what_an_earlier_session_did_says_nothing_about_the_time_left() {
        let mut progress = Progress::continuing("epoch", 100, 50);
        assert_eq!(progress.line(50, ""), "epoch 50/100 (0 s) ");
        progress.begun -= Duration::from_secs(10);
        assert_eq!(progress.line(60, ""), "epoch 60/100 (10 s, about 40 s left) ");
    }
}
