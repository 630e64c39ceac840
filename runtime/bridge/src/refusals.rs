//! What zenoh says of connections that it refused, for the bridge's log.
//!
//! zenoh advises to allow more open files whatever was wrong, and says so ten times a second while somebody tries. Here
//! it is the reason alone, at most once in [`QUIET`].

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The part of zenoh that accepts connections with certificates.
pub const TARGET: &str = "zenoh_link_tls";
const QUIET: Duration = Duration::from_secs(10);

/// Writes refused connections to standard error.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Tally>);

#[derive(Debug, Default)]
struct Tally {
    said: Option<Instant>,
    /// Since then.
    unsaid: u64,
}

impl Tally {
    /// A line to write, if it is time for one.
    fn note(&mut self, now: Instant, reason: &str) -> Option<String> {
        if self.said.is_some_and(|said| now.duration_since(said) < QUIET) {
            self.unsaid += 1;
            return None;
        }
        let before = std::mem::take(&mut self.unsaid);
        self.said = Some(now);
        let more = if before > 0 { format!(" ({before} more since the last line)") } else { String::new() };
        Some(format!("refused a connection to the link: {reason}{more}"))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Refusals {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let reason = message.0.split(". Hint:").next().unwrap_or_default();
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now(), reason);
        if let Some(line) = line {
            // Not through tracing, whose event this is called from.
            eprintln!("{line}");
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_who_tries_all_the_time_makes_one_line_in_ten_seconds() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        let mut lines = Vec::new();
        for i in 0..250 {
            lines.extend(tally.note(begin + Duration::from_millis(100 * i), "no certificate"));
        }
        assert_eq!(
            lines,
            [
                "refused a connection to the link: no certificate",
                "refused a connection to the link: no certificate (99 more since the last line)",
                "refused a connection to the link: no certificate (99 more since the last line)",
            ]
        );
    }
}
