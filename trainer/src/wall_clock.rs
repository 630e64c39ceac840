//! The time of day, for people and for TensorBoard; nothing that is computed depends on it.

use std::time::{SystemTime, UNIX_EPOCH};

pub use tenon_core::calendar::rfc3339;

/// Seconds since 1970-01-01 UTC, to the millisecond.
pub fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    (now * 1e3).round() / 1e3
}

/// A length of time in the unit that suits it: `42 s`, `12 min`, `3.5 h`, `9 days`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "unknown".into(),
        s if s < 10.0 => format!("{:.1} s", s.max(0.0)),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_unit_that_suits_them() {
        let lengths = [0.04, 119.0, 600.0, 9000.0, 1e6].map(duration);
        assert_eq!(lengths, ["0.0 s", "119 s", "10 min", "2.5 h", "12 days"]);
    }
}
