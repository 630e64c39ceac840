//! What `tenon replay` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::record::Difference;
use crate::report::latency_table;
use crate::timing::Summary;

/// What a record shows.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub run: String,
    /// What the run says of itself, without the files that are whole in it.
    pub about: BTreeMap<String, String>,
    pub duration_s: f64,
    pub ticks: u64,
    pub missing_ticks: u64,
    pub ending: String,
    pub episodes_begun: u64,
    pub episodes_ended: u64,
    pub faults: u64,
    pub rates_hz: BTreeMap<&'static str, f64>,
    pub latencies: BTreeMap<&'static str, Summary>,
    /// What the safety stage did, where the ticks could be computed again.
    pub targets: Option<Targets>,
    pub events: Vec<EventLine>,
    pub verification: Option<Verification>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Targets {
    pub passed: u64,
    pub limited: u64,
    pub refused: u64,
    pub braked: u64,
}

/// Something that happened; `count` times in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventLine {
    pub at_s: f64,
    pub level: u64,
    pub text: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    pub ticks: u64,
    pub chunks: u64,
    /// Why not everything could be compared, or what differs.
    pub failure: Option<Failure>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub tick: Option<u64>,
    pub at_s: Option<f64>,
    pub text: String,
    pub difference: Option<Difference>,
}

/// For people.
pub(super) fn text(report: &Report) -> String {
    /// Lines of events that are shown; `--json` has all.
    const SHOWN: usize = 60;
    let about = |key: &str| report.about.get(key).map_or("?", String::as_str);
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line("run", report.run.clone());
    if let Some(fault) = report.about.get("fault") {
        line("excerpt", format!("of {}, what led to the fault {fault}", about("excerpt_of")));
    }
    let versions = format!("tenon {}, {} on {}", about("tenon_version"), about("task"), about("robot"));
    line("about", format!("{versions}, {}, seed {}, session {}", about("engine"), about("seed"), about("session")));
    line("bundle", about("bundle").to_owned());
    let missing = match report.missing_ticks {
        0 => String::new(),
        count => format!(" ({count} missing)"),
    };
    line("recorded", format!("{}, {:.1} s, {} ticks{missing}", about("started"), report.duration_s, report.ticks));
    line("end", report.ending.clone());
    line("episodes", format!("{} begun, {} ended", report.episodes_begun, report.episodes_ended));
    if let Some(Targets { passed, limited, refused, braked }) = report.targets {
        line("targets", format!("{passed} passed, {limited} limited, {refused} refused, {braked} braking"));
    }
    let rates: Vec<String> = report.rates_hz.iter().map(|(name, hz)| format!("{name} {hz:.1}/s")).collect();
    line("rates", rates.join(", "));
    out += &latency_table(report.latencies.iter().map(|(name, summary)| (*name, *summary)));
    for event in report.events.iter().take(SHOWN) {
        let mark = ["", "", "", "warning: ", "error: "].get(event.level as usize).copied().unwrap_or_default();
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        let _ = writeln!(out, "{:>9.3} s  {mark}{}{times}", event.at_s, event.text);
    }
    if report.events.len() > SHOWN {
        let _ = writeln!(out, "… and {} more events (--json has all)", report.events.len() - SHOWN);
    }
    if let Some(verification) = &report.verification {
        let Verification { ticks, chunks, failure } = verification;
        let _ = match failure {
            None => writeln!(out, "verified: {ticks} ticks and {chunks} chunks are the same to the bit"),
            Some(failure) => {
                let tick = failure.tick.map(|tick| format!("tick {tick}")).unwrap_or_default();
                let at = failure.at_s.map(|at_s| format!(" at {at_s:.3} s: ")).unwrap_or_default();
                let values = failure.difference.as_ref().map_or_else(String::new, |d| {
                    format!("\n  recorded   {}\n  recomputed {}", d.recorded, d.recomputed)
                });
                writeln!(
                    out,
                    "NOT verified: {tick}{at}{}{values}\n{ticks} ticks and {chunks} chunks are the same to the bit",
                    failure.text
                )
            }
        };
    }
    out
}
