//! What the flight recorder kept of a run: what was commanded, and whether every bit of it can be computed again.

use std::path::Path;

use anyhow::{Context, Result};
use tenon_core::arm::{Arm, Joints};
use tenon_core::config::RobotConfig;
use tenon_core::safety::{JointMotion, SafetyLimits};
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

/// Follows what is commanded from arming to arming, and judges it.
///
/// The rule (`core::safety`): an arm that begins outside its reserved range, or its box, may stay there or come back, never go farther
/// out than where it was measured at its arming. It knows no more of the stage than that, and the reserve is all that a beginning may
/// use up: beyond the model's own range nothing is commanded, however often the arm is armed.
pub struct Watch {
    limits: SafetyLimits,
    arm: Arm,
    /// Where what is commanded began, rad; none before the first arming that was seen, and then only the reserved range counts.
    began_rad: Option<Joints>,
    commanded: Option<[JointMotion; 7]>,
    /// An arming ends what the jerk is counted from.
    anew: bool,
}

fn rests(motion: &[JointMotion; 7]) -> bool {
    motion.iter().all(|joint| joint.velocity_rad_s == 0.0 && joint.acceleration_rad_s2 == 0.0)
}

impl Watch {
    pub fn new(limits: SafetyLimits, arm: Arm) -> Self {
        Self { limits, arm, began_rad: None, commanded: None, anew: true }
    }

    /// The arm is armed in this tick. `measured_rad`: as the controller saw it in this tick; `motion`: the first command.
    ///
    /// Returns what is wrong with it, in words.
    pub fn armed(&mut self, measured_rad: Option<&Joints>, motion: Option<&[JointMotion; 7]>) -> Option<String> {
        self.anew = true;
        let motion = motion?;
        let positions_rad = motion.map(|joint| joint.position_rad);
        // What was commanded may stay in force, a stop under way included. Then nothing begins.
        let stays = self.began_rad.is_some()
            && self.commanded.is_some_and(|before| !rests(&before) || before == *motion)
            && measured_rad != Some(&positions_rad);
        if stays {
            return None;
        }
        let Some(measured_rad) = measured_rad else {
            self.began_rad = None;
            return Some("an arming without a robot state".to_owned());
        };
        self.began_rad = Some(*measured_rad);
        if let Some(i) = (0..7).find(|&i| {
            let apart_rad = (positions_rad[i] - measured_rad[i]).abs();
            apart_rad.is_nan() || apart_rad > ROUNDING
        }) {
            let (to, at) = (positions_rad[i], measured_rad[i]);
            return Some(format!("an arming with joint {} to {to:.6} rad, which is measured at {at:.6}", i + 1));
        }
        (!rests(motion)).then(|| "an arming that already moves".to_owned())
    }

    /// One command, `passed_s` after the last one.
    ///
    /// Returns what of it is beyond a limit, in words.
    pub fn command(&mut self, motion: &[JointMotion; 7], passed_s: f64) -> Option<String> {
        let before = self.commanded.filter(|_| !self.anew);
        let joint =
            (0..7).find_map(|i| self.joint_beyond(i, &motion[i], before.as_ref().map(|before| (before[i], passed_s))));
        let positions_rad = motion.map(|joint| joint.position_rad);
        let point = self.arm.tcp(&positions_rad).translation.vector;
        let began_m = self.began_rad.map_or(0.0, |began_rad| self.outside_m(&began_rad));
        let outside_m = self.outside_m(&positions_rad);
        let outside = (outside_m.is_nan() || outside_m > began_m + ROUNDING_M)
            .then(|| format!("a tool point of {:.4?} m, outside the box", point.as_slice()));
        self.pass(motion);
        joint.or(outside)
    }

    /// One command that is not judged.
    pub fn pass(&mut self, motion: &[JointMotion; 7]) {
        (self.commanded, self.anew) = (Some(*motion), false);
    }

    /// How far the tool point is outside the box on the worst axis, m; 0 inside.
    fn outside_m(&self, q: &Joints) -> f64 {
        let p = self.arm.tcp(q).translation.vector;
        if p.iter().any(|value| value.is_nan()) {
            return f64::NAN;
        }
        let (low, high) = (self.limits.workspace.min_m, self.limits.workspace.max_m);
        (0..3).map(|axis| (low[axis] - p[axis]).max(p[axis] - high[axis])).fold(0.0, f64::max)
    }

    /// Whether joint `i` is commanded beyond a limit, in words. `before`: its last command, and how long ago, s.
    fn joint_beyond(&self, i: usize, motion: &JointMotion, before: Option<(JointMotion, f64)>) -> Option<String> {
        let (name, bounds) = (i + 1, self.limits.bounds(i));
        let over = |value: f64, limit: f64| value.is_nan() || value.abs() > limit * (1.0 + ROUNDING);
        let q = motion.position_rad;
        let (mut low, mut high) = (bounds.lower_rad, bounds.upper_rad);
        if let Some(began_rad) = self.began_rad {
            let began = began_rad[i].clamp(self.limits.joints.lower_rad[i], self.limits.joints.upper_rad[i]);
            (low, high) = (low.min(began), high.max(began));
        }
        if !(low - ROUNDING..=high + ROUNDING).contains(&q) {
            let (by, began) = ((low - q).max(q - high), self.began_rad.map_or(f64::NAN, |began_rad| began_rad[i]));
            return Some(format!(
                "joint {name} to {q:.6} rad, {by:.1e} outside {low:.6} to {high:.6} (it began at {began:.6})"
            ));
        }
        if over(motion.velocity_rad_s, bounds.velocity_rad_s) {
            let (value, limit) = (motion.velocity_rad_s, bounds.velocity_rad_s);
            return Some(format!("joint {name} at {value:.4} rad/s, limit {limit:.4}"));
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
}

/// Judges what was commanded from `from` on.
///
/// # Errors
/// The record cannot be opened.
pub fn commanded(folder: &Path, config: &RobotConfig, from: MonotonicTime) -> Result<Commanded> {
    let mut reader = RunReader::open(folder).with_context(|| format!("the record {}", folder.display()))?;
    let mut found = Commanded::default();
    let mut watch = Watch::new(config.safety_limits(), config.arm());
    let mut last_due: Option<MonotonicTime> = None;
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
        let event = words.event.as_deref().unwrap_or_default();
        // Where the arm began is known from its arming, which may be older than what is judged.
        let armed = (event == "Armed")
            .then(|| {
                watch.armed(tick.state.map(|state| state.value.joint_positions_rad).as_ref(), tick.target.as_ref())
            })
            .flatten();
        if tick.now < from {
            if let Some(motion) = &tick.target {
                watch.pass(motion);
                last_due = Some(tick.due);
            }
            continue;
        }
        if event.starts_with("Faulted") && found.fault.is_none() {
            found.fault = Some((tick.now, event.to_owned()));
        }
        let Some(motion) = tick.target else { continue };
        if let (Some((at, _)), None) = (&found.fault, found.stop_s)
            && motion.iter().all(|joint| joint.velocity_rad_s.abs() < REST_RAD_S)
        {
            found.stop_s = Some(tick.now.seconds_since(*at));
        }
        let passed_s = last_due.map_or(0.0, |last| tick.due.seconds_since(last));
        last_due = Some(tick.due);
        let beyond = watch.command(&motion, passed_s);
        let what = armed.or(beyond);
        if found.wrong.is_empty() {
            found.wrong.extend(what.map(|what| format!("tick {} commands {what}", tick.tick)));
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::config;
    use tenon_core::safety::{SafetyStage, Wanted, WorkspaceBox};

    const PERIOD_S: f64 = 0.007;
    const JOINT: usize = 3;

    fn limits_and_arm() -> (SafetyLimits, Arm) {
        let config: RobotConfig =
            config::parse("robot.toml", include_str!("../../../../../configs/robot.toml")).unwrap();
        // Only joint ranges are of interest here.
        let workspace = WorkspaceBox { min_m: [-2.0; 3], max_m: [2.0; 3] };
        let mut limits = SafetyLimits { workspace, abort_tcp_step_m: 9.0, ..config.safety_limits() };
        (limits.collision.clearance_m, limits.collision.table_z_m) = (-1.0, -9.0);
        (limits, config.arm())
    }

    /// Joint 4 `outside_rad` beyond the end of its reserved range.
    fn place(limits: &SafetyLimits, outside_rad: f64) -> Joints {
        let mut q = [0.0, -0.3, 0.0, 0.0, 0.0, 2.4, 0.8];
        q[JOINT] = limits.bounds(JOINT).lower_rad - outside_rad;
        q
    }

    /// What a watch says of the stage that is asked to go out, in and out again; `creep_rad`: what each command is moved out by.
    fn judged(outside_rad: f64, knows: bool, creep_rad: f64) -> Option<String> {
        let (limits, arm) = limits_and_arm();
        let began = place(&limits, outside_rad);
        let mut stage = SafetyStage::new(arm, limits, PERIOD_S, began);
        let mut watch = Watch::new(limits, arm);
        let mut wrong = if knows { watch.armed(Some(&began), Some(stage.motion())) } else { None };
        for k in 0..1200 {
            let mut wanted = stage.commanded_rad();
            wanted[JOINT] += if (k / 300) % 2 == 0 { -0.05 } else { 0.05 };
            stage.check(&Wanted::still(wanted), PERIOD_S);
            let mut motion = *stage.motion();
            motion[JOINT].position_rad -= creep_rad * f64::from(k);
            wrong = wrong.or(watch.command(&motion, PERIOD_S));
        }
        wrong
    }

    #[test]
    fn an_arm_that_began_a_hair_outside_may_stay_and_come_back() {
        for outside_rad in [0.0, 1e-9, 1e-6, 1e-4, 5e-3, 0.04] {
            assert_eq!(judged(outside_rad, true, 0.0), None, "{outside_rad}");
        }
        // The same motion is wrong for an arm of which no such beginning is known.
        assert!(judged(1e-4, false, 0.0).is_some_and(|words| words.contains("joint 4 to -2.9201")));
    }

    #[test]
    fn a_stage_that_creeps_out_is_found_out() {
        for outside_rad in [0.0, 1e-4, 5e-3] {
            let words = judged(outside_rad, true, 1e-8).unwrap_or_default();
            assert!(words.contains("joint 4 to -2.92"), "{outside_rad}: {words:?}");
        }
    }

    #[test]
    fn armings_that_creep_end_at_the_models_own_range() {
        let (limits, arm) = limits_and_arm();
        let mut watch = Watch::new(limits, arm);
        let mut found = None;
        let mut outside_rad = 0.0;
        while found.is_none() && outside_rad < 0.2 {
            // The arm swings out by that much before each arming.
            outside_rad += 0.004;
            let began = place(&limits, outside_rad);
            let motion = began.map(JointMotion::at_rest);
            found = watch.armed(Some(&began), Some(&motion)).or(watch.command(&motion, PERIOD_S));
        }
        assert!(found.is_some_and(|words| words.contains("joint 4 to -2.97")), "{outside_rad}");
        assert!(outside_rad > limits.joint_reserve_rad && outside_rad < limits.joint_reserve_rad + 0.005);
    }

    #[test]
    fn an_arming_begins_where_the_arm_is_measured_or_leaves_in_force_what_is_commanded() {
        let (limits, arm) = limits_and_arm();
        let (measured, elsewhere) = (place(&limits, 1e-3), place(&limits, -0.02).map(JointMotion::at_rest));
        let mut watch = Watch::new(limits, arm);
        let words = watch.armed(Some(&measured), Some(&elsewhere)).unwrap_or_default();
        assert!(words.contains("which is measured at -2.921"), "{words}");
        // A command that stays in force takes no new beginning from where the arm has swung to.
        let mut watch = Watch::new(limits, arm);
        let began = elsewhere.map(|joint| joint.position_rad);
        assert_eq!(watch.armed(Some(&began), Some(&elsewhere)), None);
        assert_eq!(watch.command(&elsewhere, PERIOD_S), None);
        assert_eq!(watch.armed(Some(&measured), Some(&elsewhere)), None);
        let out = measured.map(JointMotion::at_rest);
        assert!(watch.command(&out, PERIOD_S).is_some_and(|words| words.contains("joint 4")));
    }
}
