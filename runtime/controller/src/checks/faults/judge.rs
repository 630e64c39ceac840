//! What the simulator saw, and whether it may be: speeds, rest, limits. It knows nothing of how they are kept.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use tenon_core::config::RobotConfig;
use tenon_core::time::MonotonicTime;

/// A joint that is slower counts as at rest, rad/s.
const REST_RAD_S: f64 = 0.01;
/// A command that is slower is one at rest, rad/s.
const COMMANDED_REST_RAD_S: f64 = 1e-3;
/// A tool point that is slower counts as at rest, m/s.
const REST_M_S: f64 = 0.002;
/// The tool point's speed is taken over this, s.
const SPEED_OVER_S: f64 = 0.02;
/// A real arm is not quite where it is commanded: so far may its tool point be outside the box that commands keep, m.
pub const TRACKING_M: f64 = 0.01;
/// What the first joint of the FER turns about its axis in Avoid's pose, kg·m².
const INERTIA_KG_M2: f64 = 1.3;

/// How far from where it rests the tool point may be behind the bound, m, if it moved at `speed_m_s` when the stop came.
///
/// The command rests within a tenth of a second; an arm on springs goes on. Its whole kinetic energy in the spring of the softest of the
/// joints that carry it is an amplitude of v √(I/K), and a default controller may take it at the far end of a swing: twice that.
pub fn swing_limit_m(config: &RobotConfig, speed_m_s: f64) -> f64 {
    let stiffness = config.bridge.joint_stiffness_nm_rad[..4].iter().fold(f64::INFINITY, |least, k| least.min(*k));
    2.0 * speed_m_s * (INERTIA_KG_M2 / stiffness).sqrt()
}

/// A law that is taken away at a higher speed is no stop, rad/s.
const TAKEN_AWAY_RAD_S: f64 = 0.05;

/// One line of the simulator's truth file.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct TruthLine {
    /// CLOCK_MONOTONIC, ns.
    pub t_ns: i64,
    /// Tool point, base frame, m.
    pub tcp: [f64; 3],
    pub q: [f64; 7],
    pub dq: [f64; 7],
    /// What the law in the server commands; absent where the server's default controller holds the arm.
    pub law_dq: Option<[f64; 7]>,
}

fn fastest(speeds: &[f64; 7]) -> f64 {
    speeds.iter().fold(0.0, |fastest: f64, speed| fastest.max(speed.abs()))
}

/// Whose rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// What the law in the server commands.
    Command,
    /// The arm itself, on its springs.
    Arm,
}

/// What the simulator wrote, in order of time.
#[derive(Debug, Clone, Default)]
pub struct Truth(pub Vec<TruthLine>);

/// How an arm came to rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rest {
    /// After that long, s, and it stayed there.
    After(f64),
    /// It moves in the last line.
    Never,
    /// There are too few lines to say.
    Unseen,
}

impl Truth {
    /// Adds a file, from byte `offset` on; returns the offset of what it may have later. A line that a kill cut short is left out.
    ///
    /// # Errors
    /// The file cannot be read, or a whole line of it is not understood.
    pub fn read(&mut self, path: &Path, offset: u64) -> Result<u64> {
        use std::io::{Read, Seek, SeekFrom};
        let reading = || format!("reading {}", path.display());
        let mut file = std::fs::File::open(path).with_context(reading)?;
        file.seek(SeekFrom::Start(offset)).with_context(reading)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(reading)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            self.0.push(serde_json::from_str(line).with_context(reading)?);
        }
        Ok(offset + whole as u64)
    }

    /// Lines from `from` to `to`.
    fn window(&self, from: MonotonicTime, to: MonotonicTime) -> &[TruthLine] {
        let begin = self.0.partition_point(|line| line.t_ns < from.as_nanos());
        let end = self.0.partition_point(|line| line.t_ns <= to.as_nanos());
        &self.0[begin..end.max(begin)]
    }

    /// Speed of the tool point at line `i`, m/s, and whether it is known.
    fn tool_speed(&self, i: usize) -> Option<f64> {
        let now = &self.0[i];
        let before = self.0[..i].iter().rev().find(|line| (now.t_ns - line.t_ns) as f64 * 1e-9 >= SPEED_OVER_S)?;
        let way = (0..3).map(|axis| (now.tcp[axis] - before.tcp[axis]).powi(2)).sum::<f64>().sqrt();
        Some(way / ((now.t_ns - before.t_ns) as f64 * 1e-9))
    }

    /// Speed of the tool point (m/s) and of the fastest joint (rad/s) in the last line before `at`.
    pub fn speeds(&self, at: MonotonicTime) -> Option<(f64, f64)> {
        let i = self.0.partition_point(|line| line.t_ns <= at.as_nanos()).checked_sub(1)?;
        Some((self.tool_speed(i)?, fastest(&self.0[i].dq)))
    }

    /// The highest speed of the tool point from `from` to `to`, m/s.
    pub fn fastest_m_s(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let begin = self.0.partition_point(|line| line.t_ns < from.as_nanos());
        let end = self.0.partition_point(|line| line.t_ns <= to.as_nanos());
        (begin..end).filter_map(|i| self.tool_speed(i)).fold(0.0, f64::max)
    }

    /// How far the tool point is from its last place, at most, from `from` to `to`, m.
    pub fn swing_m(&self, from: MonotonicTime, to: MonotonicTime) -> f64 {
        let lines = self.window(from, to);
        let Some(last) = lines.last() else { return 0.0 };
        let away = |line: &TruthLine| (0..3).map(|axis| (line.tcp[axis] - last.tcp[axis]).powi(2)).sum::<f64>().sqrt();
        lines.iter().map(away).fold(0.0, f64::max)
    }

    /// Whether the arm is slower than half of what counts as rest, all the time from `from` to `to`: a swing that turns back is not.
    pub fn is_quite_still(&self, from: MonotonicTime, to: MonotonicTime) -> bool {
        let lines = self.window(from, to);
        lines.len() > 1 && lines.iter().all(|line| fastest(&line.dq) < 0.5 * REST_RAD_S)
    }

    /// The law that was taken away while it commanded motion, in words.
    pub fn taken_away(&self, from: MonotonicTime, to: MonotonicTime) -> Option<String> {
        let pair = self.window(from, to).windows(2).find(|pair| {
            pair[1].law_dq.is_none() && pair[0].law_dq.is_some_and(|speeds| fastest(&speeds) > TAKEN_AWAY_RAD_S)
        })?;
        let (at_s, speeds) = (MonotonicTime::from_nanos(pair[1].t_ns).seconds_since(from), pair[0].law_dq?);
        let speed = fastest(&speeds);
        Some(format!("{at_s:.3} s after the fault the law was taken away while it commanded {speed:.2} rad/s"))
    }

    /// When the arm, or what is commanded, came to rest for good between `from` and `to`, counted from `from`.
    pub fn rest(&self, of: Of, from: MonotonicTime, to: MonotonicTime) -> Rest {
        let begin = self.0.partition_point(|line| line.t_ns < from.as_nanos());
        let end = self.0.partition_point(|line| line.t_ns <= to.as_nanos());
        if end < begin + 2 {
            return Rest::Unseen;
        }
        let rests = |i: usize| match of {
            Of::Command => self.0[i].law_dq.is_none_or(|speeds| fastest(&speeds) < COMMANDED_REST_RAD_S),
            Of::Arm => fastest(&self.0[i].dq) < REST_RAD_S || self.tool_speed(i).is_some_and(|speed| speed < REST_M_S),
        };
        let seconds = |i: usize| MonotonicTime::from_nanos(self.0[i].t_ns).seconds_since(from);
        match (begin..end).rev().find(|&i| !rests(i)) {
            None => Rest::After(0.0),
            Some(last) if last + 1 == end => Rest::Never,
            Some(last) => Rest::After(seconds(last + 1)),
        }
    }

    /// What of the true motion from `from` to `to` is beyond what the profile allows, in words.
    pub fn beyond(&self, config: &RobotConfig, from: MonotonicTime, to: MonotonicTime) -> Vec<String> {
        let limits = config.safety_limits();
        // The first of each kind says it.
        let (mut range, mut speed, mut place) = (None, None, None);
        for line in self.window(from, to) {
            let at_s = MonotonicTime::from_nanos(line.t_ns).seconds_since(from);
            for joint in 0..7 {
                let (low, high) = (limits.joints.lower_rad[joint], limits.joints.upper_rad[joint]);
                if !(low..=high).contains(&line.q[joint]) && range.is_none() {
                    range = Some(format!(
                        "joint {} was at {:.4} rad, outside {low:.4} to {high:.4}, {at_s:.3} s into the run",
                        joint + 1,
                        line.q[joint]
                    ));
                }
                let fastest_rad_s = limits.joints.velocity_rad_s[joint];
                if (line.dq[joint].is_nan() || line.dq[joint].abs() > fastest_rad_s) && speed.is_none() {
                    speed = Some(format!(
                        "joint {} moved at {:.3} rad/s, more than {fastest_rad_s:.3}, {at_s:.3} s into the run",
                        joint + 1,
                        line.dq[joint]
                    ));
                }
            }
            let inside = (0..3).all(|axis| {
                let (low, high) =
                    (limits.workspace.min_m[axis] - TRACKING_M, limits.workspace.max_m[axis] + TRACKING_M);
                (low..=high).contains(&line.tcp[axis])
            });
            if !inside && place.is_none() {
                place = Some(format!(
                    "the tool point was at {:.3?} m, outside its box, {at_s:.3} s into the run",
                    line.tcp
                ));
            }
        }
        [range, speed, place].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_NS: i64 = 5_000_000;

    fn at(s: f64) -> MonotonicTime {
        MonotonicTime::from_nanos((s * 1e9).round() as i64)
    }

    fn config() -> RobotConfig {
        tenon_core::config::parse("robot.toml", include_str!("../../../../../configs/robot.toml")).unwrap()
    }

    /// Joint 1 turns at `speed_rad_s(t)`; the tool point half a metre away turns with it.
    fn moving(speed_rad_s: impl Fn(f64) -> f64) -> Truth {
        let mut angle: f64 = 0.0;
        let lines = (0..600).map(|i| {
            let t = i as f64 * STEP_NS as f64 * 1e-9;
            let speed = speed_rad_s(t);
            angle += speed * STEP_NS as f64 * 1e-9;
            let mut line = TruthLine {
                t_ns: i * STEP_NS,
                tcp: [0.5 * angle.cos(), 0.5 * angle.sin(), 0.12],
                q: [0.0, 0.4, 0.0, -2.0, 0.0, 2.4, 0.2],
                dq: [0.0; 7],
                law_dq: None,
            };
            (line.q[0], line.dq[0]) = (angle, speed);
            line.law_dq = Some(line.dq);
            line
        });
        Truth(lines.collect())
    }

    #[test]
    fn an_arm_that_brakes_rests_when_it_does_and_one_that_goes_on_never() {
        // At 0.4 rad/s until 1 s, then a stop of 0.3 s.
        let stops = moving(|t| (0.4 * (1.0 - (t - 1.0).max(0.0) / 0.3)).max(0.0));
        for of in [Of::Command, Of::Arm] {
            let Rest::After(after_s) = stops.rest(of, at(1.0), at(2.5)) else { panic!("it rests") };
            assert!((0.28..0.32).contains(&after_s), "{after_s}");
            assert_eq!(stops.rest(of, at(2.0), at(2.5)), Rest::After(0.0));
            assert_eq!(stops.rest(of, at(1.0), at(1.1)), Rest::Never, "not yet");
            assert_eq!(moving(|_| 0.4).rest(of, at(1.0), at(2.5)), Rest::Never);
            // A twitch after the stop is no rest.
            let twitches = moving(|t| if t < 1.0 || (1.8..1.85).contains(&t) { 0.4 } else { 0.0 });
            let Rest::After(after_s) = twitches.rest(of, at(1.0), at(2.5)) else { panic!("it rests") };
            assert!(after_s > 0.8, "{after_s}");
        }
        assert!(stops.is_quite_still(at(1.5), at(2.5)) && !stops.is_quite_still(at(1.2), at(2.5)));
        assert_eq!(Truth::default().rest(Of::Arm, at(1.0), at(2.5)), Rest::Unseen);
        let (tool, joint) = stops.speeds(at(0.9)).unwrap();
        assert!((tool - 0.2).abs() < 1e-3 && (joint - 0.4).abs() < 1e-9);
        assert!(stops.swing_m(at(1.5), at(2.5)) < 1e-9 && stops.swing_m(at(1.0), at(2.5)) > 0.02);
        assert!(stops.fastest_m_s(at(1.5), at(2.5)) < 1e-9 && stops.fastest_m_s(at(0.5), at(2.5)) > 0.19);
    }

    #[test]
    fn a_law_that_is_taken_away_from_a_moving_arm_is_no_stop() {
        let taken = |from_s: f64| {
            let mut truth = moving(|t| (0.4 * (1.0 - (t - 1.0).max(0.0) / 0.3)).max(0.0));
            for line in truth.0.iter_mut().filter(|line| line.t_ns >= at(from_s).as_nanos()) {
                line.law_dq = None;
            }
            truth
        };
        assert_eq!(taken(1.4).taken_away(at(0.9), at(2.5)), None);
        let early = taken(1.1);
        assert!(early.taken_away(at(0.9), at(2.5)).is_some_and(|words| words.contains("0.27 rad/s")));
        // Nobody commands it any more, and still the arm moves.
        let (command, arm) = (early.rest(Of::Command, at(0.9), at(1.2)), early.rest(Of::Arm, at(0.9), at(1.2)));
        assert!(matches!(command, Rest::After(after_s) if after_s < 0.21) && arm == Rest::Never, "{command:?} {arm:?}");
    }

    #[test]
    fn what_is_beyond_a_limit_is_named() {
        let config = config();
        let beyond = |change: fn(&mut TruthLine)| {
            let mut truth = moving(|_| 0.0);
            truth.0[300].tcp = [0.5, 0.0, 0.12];
            change(&mut truth.0[300]);
            truth.beyond(&config, at(0.0), at(3.0)).join("; ")
        };
        assert_eq!(beyond(|_| ()), "");
        assert!(beyond(|line| line.q[3] = 0.1).contains("joint 4 was at 0.1000 rad"));
        assert!(beyond(|line| line.dq[5] = -2.7).contains("joint 6 moved at -2.700 rad/s"));
        assert!(beyond(|line| line.dq[5] = f64::NAN).contains("joint 6"));
        assert!(beyond(|line| line.tcp[2] = 0.03).contains("outside its box"));
    }
}
