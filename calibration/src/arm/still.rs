//! Does the arm stand still, and is what the link says of it good enough to be believed? A function of time and states alone.

use std::time::Duration;

use tenon_core::arm::{JointLimits, Joints};
use tenon_core::message::RobotState;
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};

/// When an arm counts as still.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StillSettings {
    /// A state older than this says nothing about now (`control.max_state_age_s` of robot.toml).
    pub max_age: Duration,
    /// No joint is faster than this. 0.01 rad/s at the shoulder is 8 mm/s at the hand; an arm that is held at rest shows less than
    /// a third of it as noise.
    pub max_joint_velocity_rad_s: f64,
    /// No joint is farther than this from where it was when stillness began: a hand that is lowered slowly is below any limit of
    /// speed. 0.0005 rad at the shoulder are 0.4 mm at the hand.
    pub max_drift_rad: f64,
    /// For that long: longer than a camera delays its pictures, so that those taken now show the arm at rest.
    pub still_for: Duration,
    /// Joints beyond these belong to another robot than robot.toml says.
    pub limits: JointLimits,
}

impl StillSettings {
    pub fn new(limits: JointLimits, max_age: Duration) -> Self {
        Self {
            max_age,
            max_joint_velocity_rad_s: 0.01,
            max_drift_rad: 5e-4,
            still_for: Duration::from_millis(500),
            limits,
        }
    }
}

/// What the states so far say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stillness {
    /// Long enough, up to this state.
    Still(RobotState),
    /// At rest, but not for long enough yet.
    Settling { left: Duration },
    /// The fastest joint, from 0.
    Moving { joint: usize, velocity_rad_s: f64 },
    /// The state must not be used.
    Refused(Refusal),
}

/// Why a state must not be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refusal {
    /// None has arrived.
    NoState,
    /// The newest was taken too long ago. `clock_stands`: messages arrive, but the robot's own clock does not go on.
    Stale { age: Duration, clock_stands: bool },
    /// A position or a velocity of this joint, from 0, is no number.
    NotFinite { joint: usize },
    /// The robot reports an error.
    RobotError { code: i32 },
    /// A joint where this robot has none.
    OutOfLimits { joint: usize, position_rad: f64, limits_rad: [f64; 2] },
}

/// Measured joints may lie beyond a limit by as much as this, rad: an arm that rests against its stop.
const LIMIT_SLACK_RAD: f64 = 0.02;

/// Watches states and decides.
#[derive(Debug, Clone)]
pub struct StillJudge {
    settings: StillSettings,
    /// Since when, and where.
    since: Option<(MonotonicTime, Joints)>,
    /// The newest state: its robot time, and when the first message with that time arrived.
    newest: Option<(RobotTime, MonotonicTime)>,
}

impl StillJudge {
    pub fn new(settings: StillSettings) -> Self {
        Self { settings, since: None, newest: None }
    }

    /// Stillness begins anew: what was before does not count.
    pub fn forget(&mut self) {
        self.since = None;
    }

    /// Judges the newest state at `now`. To be asked more often than `max_age`, because a gap between two states ends stillness.
    pub fn judge(&mut self, now: MonotonicTime, newest: Option<Stamped<RobotState>>) -> Stillness {
        let Some(state) = newest else { return self.refuse(Refusal::NoState) };
        // A bridge that repeats an old state must not pass for a robot that answers.
        let (before, news) = match self.newest {
            Some((time, arrived)) if time == state.value.robot_time => (Some(arrived), arrived),
            known => (known.map(|(_, arrived)| arrived), state.time),
        };
        self.newest = Some((state.value.robot_time, news));
        let age = now.since(news);
        if age > self.settings.max_age {
            let clock_stands = state.age(now) <= self.settings.max_age;
            return self.refuse(Refusal::Stale { age, clock_stands });
        }
        if before.is_some_and(|before| news.since(before) > self.settings.max_age) {
            // Nobody knows what happened in between.
            self.since = None;
        }
        if let Some(refusal) = self.fault(&state.value) {
            return self.refuse(refusal);
        }
        let joints = &state.value.joint_positions_rad;
        let (joint, velocity_rad_s) = fastest(&state.value.joint_velocities_rad_s);
        if velocity_rad_s > self.settings.max_joint_velocity_rad_s {
            self.since = None;
            return Stillness::Moving { joint, velocity_rad_s };
        }
        let drifted = |(_, from): &(MonotonicTime, Joints)| {
            from.iter().zip(joints).any(|(from, now)| (from - now).abs() > self.settings.max_drift_rad)
        };
        let (since, from) = self.since.filter(|since| !drifted(since)).unwrap_or((news, *joints));
        self.since = Some((since, from));
        let lasted = news.since(since);
        if lasted >= self.settings.still_for {
            Stillness::Still(state.value)
        } else {
            Stillness::Settling { left: self.settings.still_for - lasted }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Stillness {
        self.since = None;
        Stillness::Refused(refusal)
    }

    fn fault(&self, state: &RobotState) -> Option<Refusal> {
        if state.error_code != 0 {
            return Some(Refusal::RobotError { code: state.error_code });
        }
        let (positions, velocities) = (&state.joint_positions_rad, &state.joint_velocities_rad_s);
        if let Some(joint) = (0..7).find(|&i| !(positions[i].is_finite() && velocities[i].is_finite())) {
            return Some(Refusal::NotFinite { joint });
        }
        let limits = &self.settings.limits;
        (0..7).find_map(|joint| {
            let (q, limits_rad) = (positions[joint], [limits.lower_rad[joint], limits.upper_rad[joint]]);
            let beyond = q < limits_rad[0] - LIMIT_SLACK_RAD || q > limits_rad[1] + LIMIT_SLACK_RAD;
            beyond.then_some(Refusal::OutOfLimits { joint, position_rad: q, limits_rad })
        })
    }
}

fn fastest(velocities_rad_s: &Joints) -> (usize, f64) {
    let speeds = velocities_rad_s.iter().map(|v| v.abs()).enumerate();
    speeds.max_by(|a, b| a.1.total_cmp(&b.1)).expect("an arm has seven joints")
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoState => f.write_str("no state of the robot has arrived"),
            Self::Stale { age, clock_stands: false } => {
                write!(f, "the newest state of the robot arrived {:.1} s ago", age.as_secs_f64())
            }
            Self::Stale { age, clock_stands: true } => write!(
                f,
                "states arrive, but the robot's own clock has stood still for {:.1} s: its client has stopped",
                age.as_secs_f64()
            ),
            Self::NotFinite { joint } => {
                write!(f, "position or velocity of joint {} is not a number: restart the robot's client", joint + 1)
            }
            Self::RobotError { code } => write!(
                f,
                "the robot reports an error (error_code {code}): release its stop and brakes, let it recover, and try again"
            ),
            Self::OutOfLimits { joint, position_rad, limits_rad: [low, high] } => write!(
                f,
                "joint {} stands at {position_rad:.3} rad, this robot's go from {low:.3} to {high:.3}: correct `model` in robot.toml",
                joint + 1
            ),
        }
    }
}

#[cfg(test)]
#[path = "still_tests.rs"]
mod tests;
