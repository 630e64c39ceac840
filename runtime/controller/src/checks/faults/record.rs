//! What the flight recorder kept of a run: what was commanded, and whether every bit of it can be computed again.

use std::path::Path;

use anyhow::{Context, Result};
use tenon_core::config::RobotConfig;
use tenon_core::safety::{JointBounds, JointMotion};
use tenon_core::time::MonotonicTime;
use tenon_recorder::{Item, Record, RunReader};

use crate::replay;

/// Sums of floating point numbers may be off by this part of a limit.
const ROUNDING: f64 = 1e-6;
/// The same for distances, m.
const ROUNDING_M: f64 = 1e-6;
/// Slower is at rest: the last period of a stop ends a little above zero, rad/s.
const REST_RAD_S: f64 = 1e-6;

/// What a record shows of a window of time.
#[derive(Debug, Clone, Default)]
pub struct Commanded {
    /// What was commanded beyond a limit, and what is damaged, in words.
    pub wrong: Vec<String>,
    /// The first fault of the window, as the controller writes it, and when.
    pub fault: Option<(MonotonicTime, String)>,
    /// From the fault to a command at rest, s.
    pub stop_s: Option<f64>,
    /// The last tick that is in it.
    pub last: Option<MonotonicTime>,
    /// Ticks that were computed again and are the same to the bit.
    pub verified: u64,
}

struct Last {
    due: MonotonicTime,
    motion: [JointMotion; 7],
}

/// Judges what was commanded from `from` on.
///
/// # Errors
/// The record cannot be opened.
pub fn commanded(folder: &Path, config: &RobotConfig, from: MonotonicTime) -> Result<Commanded> {
    let mut reader = RunReader::open(folder).with_context(|| format!("the record {}", folder.display()))?;
    let (limits, arm) = (config.safety_limits(), config.arm());
    let mut found = Commanded::default();
    let mut before: Option<Last> = None;
    loop {
        let item = match reader.next_item() {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(error) => {
                found.wrong.push(format!("the record is damaged: {error}"));
                break;
            }
        };
        let Item::Record(Record::Tick(tick, words)) = item else { continue };
        found.last = Some(tick.now);
        if tick.now < from {
            continue;
        }
        let event = words.event.as_deref().unwrap_or_default();
        if event.starts_with("Faulted") && found.fault.is_none() {
            found.fault = Some((tick.now, event.to_owned()));
        }
        if event == "Armed" {
            // It begins anew where the arm is measured.
            before = None;
        }
        let Some(motion) = tick.target else { continue };
        if let (Some((at, _)), None) = (&found.fault, found.stop_s)
            && motion.iter().all(|joint| joint.velocity_rad_s.abs() < REST_RAD_S)
        {
            found.stop_s = Some(tick.now.seconds_since(*at));
        }
        if found.wrong.is_empty() {
            let passed_s = before.as_ref().map(|last| tick.due.seconds_since(last.due));
            let beyond = (0..7).find_map(|i| {
                let jerk_of = before.as_ref().zip(passed_s).map(|(last, passed_s)| (last.motion[i], passed_s));
                beyond(i, &motion[i], jerk_of, &limits.bounds(i))
            });
            let point = arm.tcp(&motion.map(|joint| joint.position_rad)).translation.vector;
            let outside = (0..3).find(|&axis| {
                let (low, high) = (limits.workspace.min_m[axis], limits.workspace.max_m[axis]);
                !(low - ROUNDING_M..=high + ROUNDING_M).contains(&point[axis])
            });
            let outside = outside.map(|_| format!("a tool point of {:.4?} m, outside the box", point.as_slice()));
            let what = beyond.or(outside);
            found.wrong.extend(what.map(|what| format!("tick {} commands {what}", tick.tick)));
        }
        before = Some(Last { due: tick.due, motion });
    }
    Ok(found)
}

/// Whether joint `i` is commanded beyond a limit, in words.
pub fn beyond(
    i: usize,
    motion: &JointMotion,
    before: Option<(JointMotion, f64)>,
    bounds: &JointBounds,
) -> Option<String> {
    let name = i + 1;
    let over = |value: f64, limit: f64| value.is_nan() || value.abs() > limit * (1.0 + ROUNDING);
    let q = motion.position_rad;
    if !(bounds.lower_rad - ROUNDING..=bounds.upper_rad + ROUNDING).contains(&q) {
        return Some(format!("joint {name} to {q:.4} rad, outside {:.4} to {:.4}", bounds.lower_rad, bounds.upper_rad));
    }
    if over(motion.velocity_rad_s, bounds.velocity_rad_s) {
        return Some(format!("joint {name} at {:.4} rad/s, limit {:.4}", motion.velocity_rad_s, bounds.velocity_rad_s));
    }
    if over(motion.acceleration_rad_s2, bounds.acceleration_rad_s2) {
        let (value, limit) = (motion.acceleration_rad_s2, bounds.acceleration_rad_s2);
        return Some(format!("joint {name} by {value:.4} rad/s², limit {limit:.4}"));
    }
    let (last, passed_s) = before?;
    let change = motion.acceleration_rad_s2 - last.acceleration_rad_s2;
    // The due instants are whole nanoseconds.
    let most = bounds.jerk_rad_s3 * (passed_s.max(0.0) + 2e-9);
    over(change, most).then(|| {
        format!("joint {name} with a jerk of {:.1} rad/s³, limit {:.1}", change / passed_s, bounds.jerk_rad_s3)
    })
}

/// Computes a whole record again. `wrong` gets what is not the same.
///
/// # Errors
/// The record or its policy cannot be opened.
pub fn verify(folder: &Path, found: &mut Commanded) -> Result<()> {
    let options = replay::Options { run: folder.to_owned(), verify: true, bundle: None, json: false };
    let report = replay::examine(&options).with_context(|| format!("the record {}", folder.display()))?;
    let Some(verification) = report.verification else {
        found.wrong.push("the record was not verified".to_owned());
        return Ok(());
    };
    found.verified = verification.ticks;
    if let Some(failure) = verification.failure {
        let tick = failure.tick.map_or_else(String::new, |tick| format!(" at tick {tick}"));
        found.wrong.push(format!("the record does not verify{tick}: {}", failure.text));
    }
    Ok(())
}
