//! What was measured, for people and as lines of JSON.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};
use tenon_policy::bench::BenchLine;

use super::Condition;
use super::peer::PeerSegment;
use super::segment::Segment;
use super::statistics::{Durations, Quantile, median};
use crate::syscalls::Seen;

/// The aims of this bench.
pub const MOST_OVER_PEER: f64 = 1.3;
pub const WORK_P99_US: f64 = 30.0;
/// Period of the ticks, ns.
const PERIOD_NS: u64 = 1_000_000;

/// One of a segment's durations.
type Pick = fn(&Segment) -> &Durations;

/// All segments of one condition. `peers` is empty where there is no peer, else as long as `segments`.
pub struct Measured {
    pub condition: Condition,
    pub segments: Vec<Segment>,
    pub peers: Vec<PeerSegment>,
}

/// A ratio of all samples together, and the median of the ratios of the pairs of segments.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OverPeer {
    pub of_all: f64,
    pub median_of_segments: f64,
}

impl Measured {
    fn joined(&self, pick: Pick) -> Durations {
        let mut all = Durations::default();
        self.segments.iter().for_each(|segment| all.join(pick(segment)));
        all
    }

    fn peer(&self) -> Option<Durations> {
        let mut all = Durations::default();
        self.peers.iter().for_each(|segment| all.join(&segment.wake_up));
        (!self.peers.is_empty()).then_some(all)
    }

    /// How much later than the peer a thread wakes up at a quantile. Both in whole microseconds, as the peer counts.
    pub fn over_peer(&self, q: f64) -> Option<OverPeer> {
        let peer = self.peer()?;
        let ratio = |ours: &Durations, peer: &Durations| ours.whole_us().us(q).max(1.0) / peer.us(q).max(1.0);
        let pairs: Vec<f64> =
            self.segments.iter().zip(&self.peers).map(|(ours, peer)| ratio(&ours.wake_up, &peer.wake_up)).collect();
        Some(OverPeer { of_all: ratio(&self.joined(|s| &s.wake_up), &peer), median_of_segments: median(&pairs) })
    }

    pub fn allocations(&self) -> Option<u64> {
        self.segments.iter().map(|segment| segment.allocations).sum()
    }

    /// What was called though it may not be, of all segments; an error where it could not be seen.
    pub fn syscalls(&self) -> Result<Vec<Seen>, String> {
        let mut all: Vec<Seen> = Vec::new();
        for segment in &self.segments {
            for seen in segment.syscalls.clone()? {
                match all.iter_mut().find(|other| other.call == seen.call) {
                    Some(other) => other.count += seen.count,
                    None => all.push(seen),
                }
            }
        }
        Ok(all)
    }

    /// Whether the control thread kept to what it promises, as far as somebody looked.
    pub fn promises_kept(&self) -> bool {
        self.allocations().is_none_or(|n| n == 0) && self.syscalls().map_or(true, |seen| seen.is_empty())
    }

    fn late_per_million(&self) -> f64 {
        self.joined(|s| &s.wake_up).per_million_from(PERIOD_NS)
    }

    fn page_faults(&self) -> u64 {
        self.segments.iter().map(|segment| segment.page_faults).sum()
    }

    fn dropped(&self) -> u64 {
        self.segments.iter().map(|segment| segment.dropped_records).sum()
    }

    fn median_of(&self, pick: Pick, q: f64) -> f64 {
        median(&self.segments.iter().map(|segment| pick(segment).us(q)).collect::<Vec<_>>())
    }

    fn peer_median(&self, q: f64) -> f64 {
        median(&self.peers.iter().map(|segment| segment.wake_up.us(q)).collect::<Vec<_>>())
    }

    /// As text for a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (wake_up, peer) = (self.joined(|s| &s.wake_up), self.peer());
        let n = self.segments.len();
        let _ = writeln!(
            text,
            "\ntick/{}   {} ticks in {n} segments; µs; [the interval that holds the true quantile 95 times of 100]",
            self.condition,
            wake_up.len()
        );
        let heading = "";
        let _ = writeln!(
            text,
            "  {heading:<24} {:>8} {:>8} {:>8} {:<18} {:>8} {:<18} {:>8} {:>10}",
            "p50", "p99", "p99.9", "", "p99.99", "", "max", "late/1e6"
        );
        text += &row("wake-up", &wake_up, true);
        if let Some(peer) = &peer {
            text += &row("wake-up of cyclictest", peer, true);
        }
        text += &row("tick work", &self.joined(|s| &s.work), false);
        text += &row("whole tick", &self.joined(|s| &s.all), false);
        let _ = write!(
            text,
            "  medians of the segments: wake-up p99 {:.1}, p99.9 {:.1}",
            self.median_of(|s| &s.wake_up, 0.99),
            self.median_of(|s| &s.wake_up, 0.999)
        );
        if peer.is_some() {
            let _ =
                write!(text, "; cyclictest p99 {:.1}, p99.9 {:.1}", self.peer_median(0.99), self.peer_median(0.999));
        }
        let _ = writeln!(
            text,
            "; tick work p50 {:.1}, p99 {:.1}, p99.9 {:.1}",
            self.median_of(|s| &s.work, 0.5),
            self.median_of(|s| &s.work, 0.99),
            self.median_of(|s| &s.work, 0.999)
        );
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
            if let Some(over) = self.over_peer(q) {
                let _ = writeln!(
                    text,
                    "  wake-up over cyclictest's, {name}: {:.2} of all, {:.2} in the median of the pairs of segments",
                    over.of_all, over.median_of_segments
                );
            }
        }
        let ticks: u64 = self.segments.iter().map(|segment| segment.watched_ticks).sum();
        let _ = match self.allocations() {
            Some(n) => writeln!(text, "  allocations on the control thread in {ticks} ticks after arming: {n}"),
            None => writeln!(text, "  allocations: not counted by this program"),
        };
        let _ = match self.syscalls() {
            Ok(seen) => writeln!(
                text,
                "  system calls of the control thread beyond the clock, the wait and the waking of a thread: {}",
                list(&seen)
            ),
            Err(why) => writeln!(text, "  system calls: nobody looked, {why}"),
        };
        let _ = writeln!(text, "  page faults of the control thread: {}", self.page_faults());
        if self.dropped() > 0 {
            let _ = writeln!(text, "  records that the flight recorder dropped: {}", self.dropped());
        }
        for (aim, found, met) in self.aims() {
            let _ = writeln!(text, "  aim: {aim}: {} ({found})", if met { "met" } else { "NOT met" });
        }
        text
    }

    /// What is aimed at, what was found, and whether that is enough.
    fn aims(&self) -> Vec<(String, String, bool)> {
        let mut aims = Vec::new();
        if let Some(over) = self.over_peer(0.999) {
            let (all, segments) = (over.of_all, over.median_of_segments);
            aims.push((
                format!("wake-up p99.9 at most {MOST_OVER_PEER} × cyclictest's"),
                format!("{all:.2} of all, {segments:.2} in the median of the pairs"),
                all <= MOST_OVER_PEER,
            ));
        }
        let p99 = self.joined(|s| &s.work).us(0.99);
        aims.push((format!("tick work p99 below {WORK_P99_US} µs"), format!("{p99:.1} µs"), p99 < WORK_P99_US));
        if let Some(n) = self.allocations() {
            aims.push(("no allocation after arming".to_owned(), n.to_string(), n == 0));
        }
        if let Ok(seen) = self.syscalls() {
            aims.push(("no other system call after arming".to_owned(), list(&seen), seen.is_empty()));
        }
        aims
    }

    /// Lines in the form that all benchmarks share, with what only this one has besides; times in µs. `ratio` is of medians, above 1 ours
    /// is earlier; `over_peer_p99_9` is the other way round, as the aim has it.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let (wake_up, peer) = (self.joined(|s| &s.wake_up), self.peer());
        let mut line = line(&format!("tick/{}", self.condition), &wake_up, peer.as_ref())?;
        line["late_per_million"] = json!(self.late_per_million());
        line["segments"] = json!(self.segments.len());
        line["p99_9_median_of_segments"] = json!(self.median_of(|s| &s.wake_up, 0.999));
        line["peer_late_per_million"] = json!(peer.as_ref().map(|peer| peer.per_million_from(PERIOD_NS)));
        line["over_peer_p99"] = json!(self.over_peer(0.99));
        line["over_peer_p99_9"] = json!(self.over_peer(0.999));
        line["allocations"] = json!(self.allocations());
        line["ticks_after_arming"] = json!(self.segments.iter().map(|segment| segment.watched_ticks).sum::<u64>());
        line["system_calls"] = match self.syscalls() {
            Ok(seen) => json!(seen),
            Err(why) => json!({ "not_seen": why }),
        };
        line["page_faults"] = json!(self.page_faults());
        line["dropped_records"] = json!(self.dropped());
        line["granted"] = json!(self.segments.first().map(|segment| &segment.granted));
        let mut lines = vec![line];
        let parts: [(&str, Pick); 2] = [("work", |s| &s.work), ("whole", |s| &s.all)];
        for (name, pick) in parts {
            let mut line = self::line(&format!("tick/{}/{name}", self.condition), &self.joined(pick), None)?;
            line["p99_median_of_segments"] = json!(self.median_of(pick, 0.99));
            lines.push(line);
        }
        Ok(lines)
    }
}

fn list(seen: &[Seen]) -> String {
    if seen.is_empty() {
        return "none".to_owned();
    }
    seen.iter().map(|seen| format!("{} × {}", seen.count, seen.call)).collect::<Vec<_>>().join(", ")
}

fn line(name: &str, ours: &Durations, peer: Option<&Durations>) -> Result<Value> {
    let line = BenchLine {
        bench: name.to_owned(),
        unit: "us",
        n: usize::try_from(ours.len())?,
        p50: ours.us(0.5),
        p99: ours.us(0.99),
        max: ours.max_us(),
        peer: peer.map(|_| "cyclictest".to_owned()),
        peer_p50: peer.map(|peer| peer.us(0.5)),
        ratio: peer.map(|peer| peer.us(0.5) / ours.whole_us().us(0.5).max(1.0)),
    };
    let mut line = serde_json::to_value(line)?;
    for (of, durations) in [("", Some(ours)), ("peer_", peer)] {
        let Some(durations) = durations else { continue };
        line[format!("{of}p99_9")] = json!(durations.quantile(0.999));
        line[format!("{of}p99_99")] = json!(durations.quantile(0.9999));
    }
    if let Some(peer) = peer {
        line["peer_n"] = json!(peer.len());
        line["peer_p99"] = json!(peer.us(0.99));
        line["peer_max"] = json!(peer.max_us());
    }
    Ok(line)
}

/// `late`: whether delays of a period and more are counted.
fn row(name: &str, durations: &Durations, late: bool) -> String {
    let interval = |q: &Quantile| match (q.low_us, q.high_us) {
        (Some(low), Some(high)) => format!("[{low:.1}, {high:.1}]"),
        (Some(low), None) => format!("[{low:.1}, too few]"),
        _ => "[too few]".to_owned(),
    };
    let (p99_9, p99_99) = (durations.quantile(0.999), durations.quantile(0.9999));
    let late = if late { format!("{:.0}", durations.per_million_from(PERIOD_NS)) } else { String::new() };
    format!(
        "  {name:<24} {:>8.1} {:>8.1} {:>8.1} {:<18} {:>8.1} {:<18} {:>8.1} {late:>10}\n",
        durations.us(0.5),
        durations.us(0.99),
        p99_9.us,
        interval(&p99_9),
        p99_99.us,
        interval(&p99_99),
        durations.max_us(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::Granted;

    fn segment(scale: u64, syscalls: Result<Vec<Seen>, String>) -> Segment {
        let durations = |base: u64| Durations::of((0..1000).map(|i| base * scale + i));
        Segment {
            wake_up: durations(10_000),
            work: durations(12_000),
            all: durations(20_000),
            granted: Granted::default(),
            allocations: Some(scale - 1),
            syscalls,
            page_faults: 0,
            watched_ticks: 1000,
            recorded_ticks: 1000,
            dropped_records: 0,
        }
    }

    fn peer(us: u64) -> PeerSegment {
        let mut wake_up = Durations::default();
        wake_up.add(us * 1000, 1000);
        PeerSegment { wake_up }
    }

    fn measured(segments: Vec<Segment>, peers: Vec<PeerSegment>) -> Measured {
        Measured { condition: Condition::Idle, segments, peers }
    }

    #[test]
    fn ratios_are_of_whole_microseconds_and_of_pairs() {
        let ours = vec![segment(1, Ok(Vec::new())), segment(2, Ok(Vec::new())), segment(1, Ok(Vec::new()))];
        let measured = measured(ours, vec![peer(10), peer(10), peer(20)]);
        let over = measured.over_peer(0.5).unwrap();
        // The pairs are 10/10, 20/10 and 10/20; of all it is 10/10.
        assert_eq!(over, OverPeer { of_all: 1.0, median_of_segments: 1.0 });
        assert_eq!(measured.over_peer(0.999).unwrap().of_all, 1.0);
        assert!(!measured.promises_kept(), "one segment has allocated");
        assert!(measured.text().contains("NOT met"));
    }

    #[test]
    fn every_line_has_the_shared_form_and_calls_are_named() {
        let seen = vec![Seen { call: "mmap".to_owned(), count: 2 }];
        let kept = measured(vec![segment(1, Ok(Vec::new()))], vec![peer(9)]);
        assert!(kept.promises_kept());
        let broken = measured(vec![segment(1, Ok(seen.clone())), segment(1, Ok(seen))], Vec::new());
        assert!(!broken.promises_kept());
        assert!(broken.text().contains("4 × mmap"), "{}", broken.text());
        let lines = kept.lines().unwrap();
        let names: Vec<&str> = lines.iter().map(|line| line["bench"].as_str().unwrap()).collect();
        assert_eq!(names, ["tick/idle", "tick/idle/work", "tick/idle/whole"]);
        for line in &lines {
            for key in ["unit", "n", "p50", "p99", "max", "peer", "peer_p50", "ratio", "p99_9", "p99_99"] {
                assert!(line.get(key).is_some(), "{key} is missing in {line}");
            }
        }
        assert_eq!(lines[0]["ratio"].as_f64(), Some(0.9));
        assert_eq!(lines[0]["system_calls"], json!([]));
        let text = kept.text();
        assert!(text.contains("aim: no allocation after arming: met (0)") && text.contains("too few"), "{text}");
        // Nobody looked: that is said, and is no promise broken.
        let blind = measured(vec![segment(1, Err("no seccomp".to_owned()))], Vec::new());
        assert!(blind.promises_kept() && blind.text().contains("nobody looked, no seccomp"));
    }
}
