//! What a check says, and the report made of all of them.

use std::fmt::Write as _;

use serde::Serialize;
use tonic::Code;

use super::rig::Refusal;

/// Why a check ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The server did something else than the specification says.
    Fail { expected: String, came: String },
    /// The question cannot be asked here.
    Skip(String),
}

/// What a check returns.
pub type Outcome<T = ()> = Result<T, Stop>;

/// A failure in words.
pub fn fail<T>(expected: impl Into<String>, came: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fail { expected: expected.into(), came: came.into() })
}

/// A skip in words.
pub fn skip<T>(why: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skip(why.into()))
}

/// Fails unless `holds`.
pub fn require(holds: bool, expected: impl Into<String>, came: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { fail(expected, came()) }
}

/// The value of a call that has to succeed.
pub fn succeeded<T>(call: &str, answer: Result<T, Refusal>) -> Outcome<T> {
    answer.or_else(|refusal| fail(format!("{call}: OK"), refusal.to_string()))
}

/// A call has to be refused with this code, and with this piece of text where the specification knows it.
pub fn refused<T: std::fmt::Debug>(call: &str, answer: Result<T, Refusal>, code: Code, text: &str) -> Outcome {
    let expected = || format!("{call}: {code:?} \"{text}\"");
    match answer {
        Ok(value) => fail(expected(), format!("OK, {value:?}")),
        Err(Refusal::Status { code: found, text: words }) if found == code && words.contains(text) => Ok(()),
        Err(refusal) => fail(expected(), refusal.to_string()),
    }
}

/// A call must not be answered, as long as the robot client is silent.
pub fn hangs<T: std::fmt::Debug>(call: &str, answer: Result<T, Refusal>) -> Outcome {
    match answer {
        Err(Refusal::NoAnswer { .. }) => Ok(()),
        Ok(value) => fail(format!("{call}: no answer"), format!("OK, {value:?}")),
        Err(refusal) => fail(format!("{call}: no answer"), refusal.to_string()),
    }
}

/// The server has to be gone after this call.
pub fn dies<T: std::fmt::Debug>(call: &str, answer: Result<T, Refusal>) -> Outcome {
    let expected = || format!("{call}: the server's process dies, the connection breaks");
    match answer {
        Err(Refusal::Gone { .. }) => Ok(()),
        Ok(value) => fail(expected(), format!("OK, {value:?}")),
        Err(refusal) => fail(expected(), refusal.to_string()),
    }
}

/// The outcome of a check in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail { expected: String, came: String },
    Skipped { why: String },
}

/// A check that was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: &'static str,
    /// Section of the specification of the protocol.
    pub spec: &'static str,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub took_ms: u64,
}

/// Something measured on the way; nothing is judged by it.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub n: usize,
    /// The value itself where n = 1.
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Figure {
    /// A single value.
    pub fn single(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, n: 1, p50: value, p99: value, max: value }
    }

    /// Of many values; `None` without any.
    pub fn of(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len() as f64 * share).ceil() as usize).max(1) - 1).copied();
        Some(Self { name: name.into(), unit, n: sorted.len(), p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

/// What was asked of a server and what came.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub server: String,
    /// What the robot client says of itself.
    pub polymetis_version: String,
    pub hz: i32,
    pub destructive: bool,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Why the suite ended before its end, where it did.
    pub stopped: Option<String>,
    /// Whether the arm was seen at rest under the default controller at the end; absent if that could not be asked.
    pub default_holds: Option<bool>,
    pub checks: Vec<Line>,
    pub figures: Vec<Figure>,
}

impl Report {
    /// Whether nothing failed and the arm was left as it should be.
    pub fn sound(&self) -> bool {
        self.failed == 0 && self.stopped.is_none() && self.default_holds == Some(true)
    }

    /// Takes a check in.
    pub fn add(&mut self, line: Line) {
        match line.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail { .. } => self.failed += 1,
            Verdict::Skipped { .. } => self.skipped += 1,
        }
        self.checks.push(line);
    }

    /// The summary behind the lines of the checks: figures, failures once more, counts.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        if !self.figures.is_empty() {
            let _ = writeln!(text, "\n{:<48} {:>6} {:>10} {:>10} {:>10}", "measured", "n", "p50", "p99", "max");
        }
        for Figure { name, unit, n, p50, p99, max } in &self.figures {
            let label = format!("{name}, {unit}");
            let _ = match n {
                1 => writeln!(text, "{label:<48} {n:>6} {p50:>10.2}"),
                _ => writeln!(text, "{label:<48} {n:>6} {p50:>10.2} {p99:>10.2} {max:>10.2}"),
            };
        }
        let failures = self.checks.iter().filter(|line| matches!(line.verdict, Verdict::Fail { .. }));
        for line in failures {
            let _ = write!(text, "\n{line}");
        }
        if self.failed > 0 {
            text.push('\n');
        }
        if let Some(why) = &self.stopped {
            let _ = writeln!(text, "\nSTOPPED: {why}");
        }
        let holds = match self.default_holds {
            Some(true) => "the default controller holds the arm",
            Some(false) => "THE ARM IS NOT HELD as it should be: look at it",
            None => "whether the default controller holds the arm could not be asked: LOOK AT THE ARM",
        };
        let _ = writeln!(
            text,
            "\n{} of {}: {} passed, {} failed, {} skipped; {holds}",
            self.server, self.polymetis_version, self.passed, self.failed, self.skipped
        );
        text
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, spec, took_ms, .. } = self;
        match &self.verdict {
            Verdict::Pass => write!(f, "ok   {name:<26} {spec:<12} {took_ms:>6} ms"),
            Verdict::Fail { expected, came } => {
                write!(f, "FAIL {name:<26} {spec:<12} {took_ms:>6} ms\n     expected {expected}\n     came     {came}")
            }
            Verdict::Skipped { why } => write!(f, "skip {name:<26} {spec:<12} {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let figure = Figure::of("x", "ms", &values).unwrap();
        assert_eq!((figure.n, figure.p50, figure.p99, figure.max), (200, 100.0, 198.0, 200.0));
        assert_eq!(Figure::of("x", "ms", &[3.0]).unwrap().p99, 3.0);
        assert!(Figure::of("x", "ms", &[]).is_none());
    }

    #[test]
    fn a_refusal_is_judged_by_code_and_text() {
        let status = |code, text: &str| Err::<(), _>(Refusal::Status { code, text: text.to_owned() });
        assert!(refused("a", status(Code::Cancelled, "Failed: x"), Code::Cancelled, "Failed").is_ok());
        assert!(refused("a", status(Code::Unknown, "Failed: x"), Code::Cancelled, "Failed").is_err());
        assert!(refused("a", status(Code::Cancelled, "other"), Code::Cancelled, "Failed").is_err());
        assert!(refused("a", Ok(()), Code::Cancelled, "Failed").is_err());
        let gone = || Err::<(), _>(Refusal::Gone { text: String::new() });
        assert!(dies("a", gone()).is_ok() && hangs("a", gone()).is_err());
    }
}
