//! What `tenon test limits` generated, and what it found.

use std::collections::BTreeMap;

use serde::Serialize;

/// Violations that are told in words.
const MOST_TOLD: usize = 10;

/// What was generated, and what was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Into the stage by itself.
    pub commands: u64,
    /// Of the whole controller.
    pub ticks: u64,
    /// Ticks in which the policy or a motion led.
    pub running: u64,
    pub chunks: u64,
    pub late_chunks: u64,
    pub doubled_chunks: u64,
    /// The controller's faults by name.
    pub faults: BTreeMap<String, u64>,
    pub passed: u64,
    pub limited: u64,
    pub refused: u64,
    pub braked: u64,
    pub not_finite: u64,
    pub odd_times: u64,
    pub stops: u64,
    /// Largest part of each limit that was used; at most 1 where it holds.
    pub position: f64,
    pub velocity: f64,
    pub acceleration: f64,
    pub jerk: f64,
    /// Farthest that the tool point was commanded outside the box (or outside where it began), m.
    pub outside_m: f64,
    /// Nearest that bodies came to each other or to the table, below the clearance, m.
    pub too_near_m: f64,
    pub longest_stop_s: f64,
    /// The first violations, in words.
    pub violations: Vec<String>,
    pub violated: u64,
    pub seconds: f64,
}

impl Report {
    pub fn add(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.commands, other.commands),
            (&mut self.ticks, other.ticks),
            (&mut self.running, other.running),
            (&mut self.chunks, other.chunks),
            (&mut self.late_chunks, other.late_chunks),
            (&mut self.doubled_chunks, other.doubled_chunks),
            (&mut self.passed, other.passed),
            (&mut self.limited, other.limited),
            (&mut self.refused, other.refused),
            (&mut self.braked, other.braked),
            (&mut self.not_finite, other.not_finite),
            (&mut self.odd_times, other.odd_times),
            (&mut self.stops, other.stops),
            (&mut self.violated, other.violated),
        ] {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.position, other.position),
            (&mut self.velocity, other.velocity),
            (&mut self.acceleration, other.acceleration),
            (&mut self.jerk, other.jerk),
            (&mut self.outside_m, other.outside_m),
            (&mut self.too_near_m, other.too_near_m),
            (&mut self.longest_stop_s, other.longest_stop_s),
        ] {
            *mine = mine.max(theirs);
        }
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.violations.extend(other.violations);
        self.violations.truncate(MOST_TOLD);
    }

    pub fn violate(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < MOST_TOLD {
            self.violations.push(what());
        }
    }

    /// As text for a person.
    pub fn text(&self) -> String {
        let percent = |part: f64| part * 100.0;
        let mut text = format!(
            "{} commands to the stage, {} ticks of the controller in {:.0} s\n\
             stage: {} passed, {} limited, {} refused, {} braked; {} with values that are no numbers, {} with odd times\n\
             largest part of a limit: position {:.2} %, velocity {:.2} %, acceleration {:.2} %, jerk {:.2} %\n\
             tool point outside the box by at most {:.3} mm; bodies nearer than allowed by at most {:.3} mm\n\
             {} stops, the longest {:.3} s\n",
            self.commands,
            self.ticks,
            self.seconds,
            self.passed,
            self.limited,
            self.refused,
            self.braked,
            self.not_finite,
            self.odd_times,
            percent(self.position),
            percent(self.velocity),
            percent(self.acceleration),
            percent(self.jerk),
            self.outside_m * 1e3,
            self.too_near_m * 1e3,
            self.stops,
            self.longest_stop_s,
        );
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        text.push_str(&format!(
            "controller: {} ticks under way, {} chunks ({} late, {} doubled); faults: {}\n",
            self.running,
            self.chunks,
            self.late_chunks,
            self.doubled_chunks,
            faults.join(", ")
        ));
        for violation in &self.violations {
            text.push_str(&format!("VIOLATED: {violation}\n"));
        }
        text.push_str(&match self.violated {
            0 => "every limit was kept\n".to_owned(),
            n => format!("{n} limits were not kept\n"),
        });
        text
    }
}
