//! What the runs found, as a table and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::kinds::{Kind, Times};
use super::trial::Outcome;

/// What all runs found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub seed: u64,
    /// What bounds are made of.
    pub times: Times,
    pub kinds: Vec<Row>,
    /// Kinds that this machine cannot do, and why.
    pub skipped: Vec<(&'static str, String)>,
    pub runs: Vec<Outcome>,
    pub violated: u64,
    /// Runs that were done once more because this machine stood still by itself, and what was said.
    pub disturbed: Vec<String>,
    pub seconds: f64,
    /// Where the files of runs with violations are.
    pub kept: Option<std::path::PathBuf>,
}

/// All runs of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub kind: &'static str,
    pub runs: usize,
    pub went_on: usize,
    pub bound_s: Option<f64>,
    pub bound_of: Option<&'static str>,
    pub rest_p50_s: Option<f64>,
    pub rest_max_s: Option<f64>,
    /// Until the arm itself is still, on its springs.
    pub still_max_s: Option<f64>,
    pub swing_max_m: Option<f64>,
    /// Of the tool point, when the fault came.
    pub speed_p50_m_s: Option<f64>,
    pub speed_max_m_s: Option<f64>,
    pub named: usize,
    pub intact: usize,
    pub rearmed: usize,
    pub violated: usize,
}

fn sorted(values: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
    let mut values: Vec<f64> = values.flatten().collect();
    values.sort_by(f64::total_cmp);
    values
}

impl Row {
    pub fn of(kind: Kind, times: &Times, outcomes: &[Outcome]) -> Option<Self> {
        let mine: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.kind == kind.name()).collect();
        if mine.is_empty() {
            return None;
        }
        let rests = sorted(mine.iter().map(|outcome| outcome.rest_s));
        let speeds = sorted(mine.iter().map(|outcome| outcome.speed_m_s));
        let middle = |values: &[f64]| values.get(values.len() / 2).copied();
        let count = |of: fn(&Outcome) -> bool| mine.iter().filter(|outcome| of(outcome)).count();
        Some(Self {
            kind: kind.name(),
            runs: mine.len(),
            went_on: count(|outcome| outcome.went_on),
            bound_s: kind.bound(times).map(|(bound_s, _)| bound_s),
            bound_of: kind.bound(times).map(|(_, of)| of),
            rest_p50_s: middle(&rests),
            rest_max_s: rests.last().copied(),
            still_max_s: sorted(mine.iter().map(|outcome| outcome.still_s)).last().copied(),
            swing_max_m: sorted(mine.iter().map(|outcome| outcome.swing_m)).last().copied(),
            speed_p50_m_s: middle(&speeds),
            speed_max_m_s: speeds.last().copied(),
            // A kind that nobody has to notice counts as named.
            named: count(|outcome| outcome.named.is_some() || outcome.went_on && outcome.violations.is_empty()),
            intact: count(|outcome| outcome.intact),
            rearmed: count(|outcome| outcome.rearmed),
            violated: count(|outcome| !outcome.violations.is_empty()),
        })
    }
}

impl Report {
    /// As text for a person.
    pub fn text(&self) -> String {
        let Times { period_s, lead_s, heartbeat_s, state_age_s, stop_s, seen } = self.times;
        let mut out = format!(
            "bounds: a period is {:.1} ms, the lead {:.0} ms, a stop at most {:.0} ms, state age {:.0} ms, heartbeat {:.0} ms;\n\
             cameras: a picture {:.0} ms, frozen after {:.0} ms, pose age {:.0} ms, a chunk {:.0} ms, the arm waits {:.1} s for parts\n\
             rest: of what the law in the server commands; still: the arm itself, on the springs of that law; swing: its tool\n\
             point behind the bound, from where it rests; on: runs in which the arm went on\n\n",
            period_s * 1e3,
            lead_s * 1e3,
            stop_s * 1e3,
            state_age_s * 1e3,
            heartbeat_s * 1e3,
            seen.frame_s * 1e3,
            seen.frozen_s * 1e3,
            seen.pose_age_s * 1e3,
            seen.chunk_s * 1e3,
            seen.missing_s
        );
        let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |s| format!("{s:.3}"));
        // Writing into a string does not fail.
        let _ = writeln!(
            out,
            "{:<22} {:>4} {:>5} {:>8} {:>8} {:>7} {:>9} {:>9} {:>13} {:>6} {:>6} {:>8}  bound is",
            "kind",
            "runs",
            "on",
            "rest p50",
            "rest max",
            "bound",
            "still max",
            "swing max",
            "tool m/s",
            "named",
            "whole",
            "re-armed"
        );
        for row in &self.kinds {
            let of = |count: usize| format!("{count}/{}", row.runs);
            let speeds = match (row.speed_p50_m_s, row.speed_max_m_s) {
                (Some(p50), Some(max)) => format!("{p50:.2} .. {max:.2}"),
                _ => "-".to_owned(),
            };
            let _ = writeln!(
                out,
                "{:<22} {:>4} {:>5} {:>8} {:>8} {:>7} {:>9} {:>9} {:>13} {:>6} {:>6} {:>8}  {}{}",
                row.kind,
                row.runs,
                row.went_on,
                seconds(row.rest_p50_s),
                seconds(row.rest_max_s),
                seconds(row.bound_s),
                seconds(row.still_max_s),
                row.swing_max_m.map_or_else(|| "-".to_owned(), |m| format!("{:.0}", m * 1e3)),
                speeds,
                of(row.named),
                of(row.intact),
                of(row.rearmed),
                row.bound_of.unwrap_or("it goes on"),
                if row.violated > 0 { format!("   VIOLATED in {}", row.violated) } else { String::new() },
            );
        }
        out.push('\n');
        for (kind, why) in &self.skipped {
            let _ = writeln!(out, "skipped: {kind}: {why}");
        }
        for outcome in self.runs.iter().filter(|outcome| !outcome.violations.is_empty()) {
            for violation in &outcome.violations {
                let _ = writeln!(
                    out,
                    "VIOLATED: run {} ({}, {:.2} s into the policy): {violation}",
                    outcome.run, outcome.kind, outcome.moment_s
                );
            }
        }
        let _ = writeln!(
            out,
            "{} runs in {:.0} s, seed {}, {} done once more because this machine stood still; {} ticks computed again to the bit",
            self.runs.len(),
            self.seconds,
            self.seed,
            self.disturbed.len(),
            self.runs.iter().map(|outcome| outcome.verified_ticks).sum::<u64>()
        );
        out += &match self.violated {
            0 => "every arm came to rest in time, or went on, within its limits; causes were named, records whole\n"
                .to_owned(),
            n => format!("{n} runs were not as they should be\n"),
        };
        if let Some(kept) = &self.kept {
            let _ = writeln!(out, "their files: {}", kept.display());
        }
        out
    }
}
