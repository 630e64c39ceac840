//! One run: arm, start, a fault at a random moment, and what came of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tenon_core::message::BridgeFault;
use tenon_core::time::MonotonicTime;

use super::bench::Bench;
use super::cameras;
use super::inject::{Injected, inject};
use super::judge::{Of, Rest, swing_limit_m};
use super::kinds::{Expected, From, Kind, LATE, Times, Where};
use super::record::{self, Commanded};
use crate::clock;
use crate::service::protocol::{State, Status};

/// Longest way to the start of an episode.
const TO_THE_START: Duration = Duration::from_secs(20);
/// What is looked at behind the bound: an arm that moves again has not come to rest.
const LOOKED_AT_S: f64 = 0.4;
/// How long the arm may swing before somebody arms again. Polymetis' default law, which may have it by then, damps the first joint with
/// 4 N·m·s/rad: a swing takes 2 I/D = 0.7 to 1 s for each factor of e, and from the speed limit to rest are five of them.
const SWINGS: Duration = Duration::from_secs(6);
/// How long an arm that waits is looked at behind the bound, s.
const HELD_S: f64 = 0.1;
/// What is said where the machine itself stood still.
const STALLED: [&str; 3] = [LATE, "no robot state for", "the server refused an update"];
/// How long a file may be on its way to its name.
const BEING_WRITTEN: Duration = Duration::from_secs(3);
/// A killed process loses at most this of its record.
const LOST_S: f64 = 1.0;

/// What a run found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub run: usize,
    pub kind: &'static str,
    /// When, after the policy had begun, s.
    pub moment_s: f64,
    /// What else was drawn.
    pub detail: String,
    /// Tool point and fastest joint when the fault came.
    pub speed_m_s: Option<f64>,
    pub speed_rad_s: Option<f64>,
    /// Until what the arm is commanded was at rest, s; absent where it went on.
    pub rest_s: Option<f64>,
    /// Until the arm itself was still, on the springs of its law, s.
    pub still_s: Option<f64>,
    /// How far the tool point swung behind the bound, m.
    pub swing_m: Option<f64>,
    pub bound_s: Option<f64>,
    pub went_on: bool,
    /// The words that named the cause.
    pub named: Option<String>,
    pub intact: bool,
    /// Ticks of the record that were computed again to the bit.
    pub verified_ticks: u64,
    pub rearmed: bool,
    /// Empty where all is as it should be.
    pub violations: Vec<String>,
}

/// A run that says something, or one that this machine disturbed.
#[derive(Debug)]
pub enum Ran {
    Done(Box<Outcome>),
    Disturbed(String),
}

/// Bytes of a log that were there when the fault came.
struct Log {
    path: PathBuf,
    before: usize,
}

impl Log {
    fn of(process: &Option<super::process::Process>) -> Option<Self> {
        let process = process.as_ref()?;
        Some(Self { path: process.log().to_owned(), before: process.said().len() })
    }

    fn said(&self, from: usize) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

/// One run of a kind that is done to processes. Everything is up and the arm holds afterwards.
///
/// # Errors
/// The bench failed in a way that is no part of the fault: what it says is a violation, and the bench has to be made anew.
pub fn run(kind: Kind, bench: &mut Bench, times: &Times, moment_s: f64, random: &mut ChaCha8Rng) -> Result<Ran> {
    let began = clock::now();
    bench.forget_truth(began);
    bench.bring_up().context("before the fault")?;
    bench.arm().context("before the fault")?;
    bench.start().context("before the fault")?;
    let runs = |status: &Status| matches!(status.state, State::Running | State::Fault);
    let status = bench.wait_for("the policy runs", TO_THE_START, runs).context("before the fault")?;
    if status.state != State::Running {
        return Ok(Ran::Disturbed(status.fault.unwrap_or_default()));
    }
    std::thread::sleep(Duration::from_secs_f64(moment_s));
    let status = bench.status().context("before the fault")?;
    if status.state != State::Running {
        return Ok(Ran::Disturbed(status.fault.unwrap_or_else(|| format!("it is {:?}", status.state))));
    }
    let record = bench.record.clone();
    let logs = [Log::of(&bench.bridge), Log::of(&bench.service)];
    let injected = inject(kind, bench, times, random).context("doing it")?;
    let bound = kind.bound(times);
    // Until it must be at rest, and a while longer.
    let from = if kind.counts_from() == From::Healed { injected.healed_at } else { injected.at };
    let looked_until = from + Duration::from_secs_f64(bound.map_or(0.0, |(bound_s, _)| bound_s) + LOOKED_AT_S);
    clock::sleep_until(looked_until);
    bench.bring_up().context("after the fault")?;
    // Longer than a status and a heartbeat take: who would arm by itself has done so.
    std::thread::sleep(Duration::from_secs_f64(times.heartbeat_s + 0.1));
    let status = bench.status().context("after the fault")?;
    let stopped = matches!(status.state, State::Fault | State::Disarmed | State::WaitingForBridge);
    if stopped {
        bench.wait_until_still(injected.healed_at + SWINGS)?;
    }
    let late = |status: &Status| status.fault.as_ref().is_some_and(|fault| fault.contains(LATE));
    let says_late = kind.names().iter().any(|(_, words)| words.contains(&LATE));
    if !says_late && (late(&status) || injected.status.as_ref().is_some_and(late)) {
        return Ok(Ran::Disturbed(status.fault.unwrap_or_default()));
    }

    let stalled = |status: &Status| {
        let fault = status.fault.as_deref().unwrap_or_default();
        STALLED.iter().any(|stalled| fault.contains(stalled))
    };
    if kind.is_of_cameras() && (stalled(&status) || injected.status.as_ref().is_some_and(stalled)) {
        // Nothing was done to the robot's state, nor to the time.
        return Ok(Ran::Disturbed(status.fault.unwrap_or_else(|| "something stood still".to_owned())));
    }

    let mut outcome = Outcome { kind: kind.name(), moment_s, detail: injected.detail.clone(), ..Outcome::default() };
    outcome.went_on = !stopped;
    match kind.expected() {
        Expected::Stop if !stopped => {
            outcome.violations.push(format!("the arm should have been given up, but it is {:?}", status.state));
        }
        Expected::GoOn | Expected::Hold if stopped => {
            let fault = status.fault.as_deref().unwrap_or("it was disarmed");
            outcome.violations.push(format!("the arm should have gone on, but: {fault}"));
        }
        _ => {}
    }
    // A part that is there again arms nothing; what goes on has to move.
    let rearm_at = clock::now();
    let goes_on = if stopped { start_again(bench) } else { go_on(bench, injected.healed_at) };
    if let Err(error) = goes_on {
        // What a machine that stands still for a quarter of a second makes of any motion says nothing about this fault.
        let status = bench.status().context("after the fault")?;
        if stalled(&status) {
            return Ok(Ran::Disturbed(format!("{error:#}")));
        }
        return Err(error);
    }
    outcome.rearmed = true;

    let commanded = judge_record(bench, &record, began, &injected, times, &mut outcome);
    judge_motion(kind, bench, times, began, rearm_at, &injected, &commanded, stopped, &mut outcome)?;
    if stopped || kind.expected() == Expected::GoOn {
        judge_names(kind, &injected, &status, &logs, &mut outcome);
    }
    if kind.is_of_cameras() {
        judge_cameras(kind, times, &injected, &commanded, &mut outcome);
    }
    judge_files(bench, &mut outcome)?;
    outcome.intact &= outcome.violations.iter().all(|violation| !violation.contains(FILE));
    Ok(Ran::Done(Box::new(outcome)))
}

/// Arms and starts; the arm has to move, and holds then.
fn start_again(bench: &mut Bench) -> Result<()> {
    bench.arm().context("arming again")?;
    let started = clock::now();
    bench.start().context("starting again")?;
    go_on(bench, started)
}

/// The arm has to move after `from`, and holds then.
fn go_on(bench: &mut Bench, from: MonotonicTime) -> Result<()> {
    bench.wait_until_it_moves(from, Duration::from_secs(6)).context("moving again")?;
    let status = bench.status().context("moving again")?;
    if let Some(fault) = status.fault {
        bail!("moving again: {fault}");
    }
    bench.hold().context("holding")
}

/// What violations about files begin with.
const FILE: &str = "file: ";

fn judge_record(
    bench: &Bench,
    record: &Path,
    began: MonotonicTime,
    injected: &Injected,
    times: &Times,
    outcome: &mut Outcome,
) -> Commanded {
    let judged = record::commanded(record, &bench.config, began).and_then(|mut commanded| {
        record::verify(record, &mut commanded)?;
        Ok(commanded)
    });
    let commanded = match judged {
        Ok(commanded) => commanded,
        Err(error) => {
            outcome.violations.push(format!("{FILE}{error:#}"));
            return Commanded::default();
        }
    };
    outcome.verified_ticks = commanded.verified;
    outcome.intact = commanded.wrong.is_empty();
    outcome.violations.extend(commanded.wrong.iter().cloned());
    let lost_s = commanded.last.map_or(f64::INFINITY, |last| injected.at.seconds_since(last));
    if lost_s > LOST_S {
        outcome.violations.push(format!("{FILE}the record ends {lost_s:.2} s before the fault"));
    }
    if let Some(stop_s) = commanded.stop_s {
        let most_s = times.stop_s + 2.0 * times.period_s;
        if stop_s > most_s {
            outcome.violations.push(format!("the commanded stop took {stop_s:.3} s, more than {most_s:.3}"));
        }
    }
    commanded
}

fn judge_motion(
    kind: Kind,
    bench: &mut Bench,
    times: &Times,
    began: MonotonicTime,
    rearm_at: MonotonicTime,
    injected: &Injected,
    commanded: &Commanded,
    stopped: bool,
    outcome: &mut Outcome,
) -> Result<()> {
    let config = bench.config.clone();
    let truth = bench.truth()?;
    (outcome.speed_m_s, outcome.speed_rad_s) = truth.speeds(injected.at).unzip();
    outcome.violations.extend(truth.beyond(&config, began, clock::now()));
    let holds = kind.expected() == Expected::Hold;
    let Some((bound_s, of)) = kind.bound(times).filter(|_| stopped || holds) else { return Ok(()) };
    // What goes on by itself rests only for a while.
    let rearm_at = if holds { injected.at + Duration::from_secs_f64(bound_s + HELD_S) } else { rearm_at };
    outcome.bound_s = Some(bound_s);
    let named_at = commanded.fault.as_ref().map_or(injected.at, |(at, _)| *at);
    let from = match kind.counts_from() {
        From::Fault => injected.at,
        From::Healed => injected.healed_at,
        From::Named | From::Command => named_at,
    };
    let rest = match kind.counts_from() {
        From::Command => commanded.stop_s.map_or(Rest::Never, Rest::After),
        _ => truth.rest(Of::Command, from, rearm_at),
    };
    match rest {
        Rest::After(rest_s) => {
            outcome.rest_s = Some(rest_s);
            if rest_s > bound_s {
                outcome.violations.push(format!("at rest after {rest_s:.3} s, more than {bound_s:.3} ({of})"));
            }
        }
        Rest::Never => outcome.violations.push("what is commanded did not come to rest".to_owned()),
        Rest::Unseen => outcome.violations.push("the simulator wrote nothing while the arm had to rest".to_owned()),
    }
    if kind.counts_from() == From::Command || holds {
        return Ok(());
    }
    // A server that drops a controller of its own accord is not Tenon's doing.
    if kind.counts_from() != From::Healed {
        outcome.violations.extend(truth.taken_away(injected.at, rearm_at));
        let swing_m = truth.swing_m(from + Duration::from_secs_f64(bound_s), rearm_at);
        outcome.swing_m = Some(swing_m);
        let most_m = swing_limit_m(&config, outcome.speed_m_s.unwrap_or(0.0));
        if swing_m > most_m {
            let text =
                format!("behind the bound the tool point is {swing_m:.3} m from where it rests, more than {most_m:.3}");
            outcome.violations.push(text);
        }
    }
    match truth.rest(Of::Arm, from, rearm_at) {
        Rest::After(still_s) => outcome.still_s = Some(still_s),
        Rest::Never => outcome.violations.push(format!("the arm is not still {SWINGS:?} after the fault")),
        Rest::Unseen => {}
    }
    Ok(())
}

fn judge_cameras(kind: Kind, times: &Times, injected: &Injected, commanded: &Commanded, outcome: &mut Outcome) {
    let (named, wrong) = injected.struck.names(kind);
    outcome.violations.extend(wrong);
    let words = [outcome.named.take(), named].into_iter().flatten().filter(|words| !words.is_empty());
    outcome.named = Some(words.collect::<Vec<_>>().join(" + ")).filter(|words| !words.is_empty());
    let fault = commanded.fault.as_ref().map(|(at, cause)| (at.seconds_since(injected.at), cause.as_str()));
    outcome.violations.extend(cameras::judge_end(kind, times, fault));
}

/// Everything that `tenon status` shows of causes.
fn words(status: &Status) -> String {
    let mut words = status.fault.clone().unwrap_or_default();
    if let Some(bridge) = &status.bridge {
        if bridge.fault != BridgeFault::None {
            words += &format!("; bridge: {}", bridge.fault);
        }
        if bridge.age_ms > 500.0 {
            words += &format!("; bridge: silent for {:.1} s", bridge.age_ms * 1e-3);
        }
    }
    words
}

fn judge_names(kind: Kind, injected: &Injected, after: &Status, logs: &[Option<Log>; 2], outcome: &mut Outcome) {
    let status = [injected.status.as_ref(), Some(after)].into_iter().flatten().map(words);
    let status = status.collect::<Vec<_>>().join("; ");
    let log =
        |log: &Option<Log>, from: fn(&Log) -> usize| log.as_ref().map_or_else(String::new, |log| log.said(from(log)));
    let (named, missing) = find_names(kind, |place| match place {
        Where::Status => status.clone(),
        Where::BridgeLog => log(&logs[0], |log| log.before),
        // What it says of its disk it says when it begins.
        Where::ServiceLog => log(&logs[1], |_| 0),
    });
    outcome.named = missing.is_empty().then(|| named.join(" + "));
    outcome.violations.extend(missing);
}

/// The words that were said, and what should have been said instead of what was.
fn find_names(kind: Kind, said: impl Fn(Where) -> String) -> (Vec<&'static str>, Vec<String>) {
    let (mut named, mut missing) = (Vec::new(), Vec::new());
    for (place, wanted) in kind.names() {
        let said = said(*place);
        match wanted.iter().find(|word| said.contains(**word)) {
            Some(word) => named.push(*word),
            None => {
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                missing.push(format!("not named: {place:?} says none of {wanted:?}, but {last:?}"));
            }
        }
    }
    (named, missing)
}

/// Nothing half written is left behind.
fn judge_files(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let episodes = bench.folders().out.join("episodes.jsonl");
    match std::fs::read_to_string(&episodes) {
        Ok(text) => {
            let broken = text.lines().find(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
            if let Some(line) = broken {
                outcome.violations.push(format!("{FILE}episodes.jsonl has the line {line:?}"));
            } else if !text.is_empty() && !text.ends_with('\n') {
                outcome.violations.push(format!("{FILE}the last line of episodes.jsonl has no end"));
            }
        }
        // Where no episode has ended yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", episodes.display())),
    }
    // What is being written now will be renamed in a moment.
    let until = Instant::now() + BEING_WRITTEN;
    loop {
        let mut left = Vec::new();
        for folder in [bench.folder(), &bench.folders().out, &bench.folders().records] {
            find_temporary(folder, &mut left)?;
        }
        match left.first() {
            None => return Ok(()),
            Some(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Some(path) => {
                outcome.violations.push(format!("{FILE}{} was left behind", path.display()));
                return Ok(());
            }
        }
    }
}

fn find_temporary(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.is_dir() {
            find_temporary(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            found.push(path);
        }
    }
    Ok(())
}

/// One run of a kind that is done in this process.
///
/// # Errors
/// The policy does not run.
pub fn run_in_process(
    kind: Kind,
    config: &tenon_core::config::RobotConfig,
    bundle: &tenon_policy::Bundle,
    times: &Times,
    moment_s: f64,
    random: &mut ChaCha8Rng,
) -> Result<Outcome> {
    let found = super::machine::run(kind, config, bundle, moment_s, random)?;
    let mut outcome = Outcome {
        kind: kind.name(),
        moment_s,
        detail: found.detail,
        speed_m_s: Some(found.speed_m_s),
        speed_rad_s: Some(found.speed_rad_s),
        rest_s: found.rest_s,
        went_on: found.fault.is_none(),
        intact: true,
        rearmed: found.rearmed,
        violations: found.wrong,
        ..Outcome::default()
    };
    if let Some((bound_s, of)) = kind.bound(times) {
        outcome.bound_s = Some(bound_s);
        match found.rest_s {
            Some(rest_s) if rest_s > bound_s => {
                outcome.violations.push(format!("at rest after {rest_s:.3} s, more than {bound_s:.3} ({of})"));
            }
            Some(_) => {}
            None => outcome.violations.push("the arm did not come to rest".to_owned()),
        }
    }
    let said = found.fault.unwrap_or_default();
    match kind.names().iter().flat_map(|(_, wanted)| *wanted).find(|word| said.contains(**word)) {
        Some(word) => outcome.named = Some((*word).to_owned()),
        None => outcome.violations.push(format!("not named: the controller says {said:?}")),
    }
    if !found.rearmed {
        outcome.violations.push("it does not arm and run again".to_owned());
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cause_of_its_own_kind_names_a_fault() {
        let find = |kind, words: &'static str| {
            find_names(kind, |place| if place == Where::Status { words.to_owned() } else { String::new() })
        };
        let (named, missing) = find(Kind::WireCut, "bridge: the Polymetis server went away");
        assert_eq!((named, missing.len()), (vec!["the Polymetis server went away"], 0));
        let (named, missing) = find(Kind::WireCut, "7 ticks late in a row");
        assert!(named.is_empty() && missing[0].contains("7 ticks late in a row"), "{missing:?}");
        // Both have to be said, each in its place.
        assert_eq!(find(Kind::BridgeKilled, "no robot state for 251 ms (limit 250 ms)").1.len(), 1);
        let words = "no heartbeat from the controller";
        assert_eq!(find(Kind::ServiceKilled, words).1.len(), 1, "a dead service has no status");
    }
}
