//! From what a hand reports to what it does.
//!
//! ```text
//!            command                  at rest, reached
//!   Resting ─────────► Moving ───────────────────────────► Resting
//!                        │ timeout                           ▲
//!                        └──────► Late ──────────────────────┘  late, but noted
//! ```
//!
//! Whichever of them it is, a hand that falls silent is [`GripperPhase::Absent`] until it reports again.

use std::time::Duration;

use crate::message::{GripperCommand, GripperPhase};
use crate::time::{MonotonicTime, RobotTime, Stamped};

/// A hand without a new state for longer is taken for gone: it reports at 30 Hz or faster.
pub const SILENT_AFTER: Duration = Duration::from_millis(500);
/// Fingers at this opening or less hold nothing, m. An empty close reads 0.0, and counts as grasped where any width does.
pub const EMPTY_WIDTH_M: f64 = 0.002;
/// Fully open reads less than it was told, 0.0798 instead of 0.08; the authors wait for 0.075.
const OPEN_FRACTION: f64 = 0.075 / 0.08;
/// New states after a command of which the last one shows its motion: the first may have been stored before the command,
/// the second one's answer brings it to the hand.
const STATES_UNTIL_MOTION: u32 = 3;

/// What the monitor has to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MonitorSettings {
    /// Opening that an open hand was told, m.
    pub open_width_m: f64,
    /// Reported openings are clamped to this, m.
    pub observed_max_m: f64,
    /// A command may take this long.
    pub timeout: Duration,
}

/// A state of the hand; its width is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GripperReading {
    /// Opening between the fingers, m.
    pub width_m: f64,
    pub is_moving: bool,
    pub is_grasped: bool,
    /// Clock of the hand's client; only whether it moves counts.
    pub stamp: RobotTime,
}

/// What is to be done with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It goes to the hand.
    Send,
    /// It is being carried out already, or was.
    Repeated,
    /// No hand reports. A server would store it, and a hand that starts an hour later carry it out.
    NoHand,
}

/// A command on its way.
#[derive(Debug, Clone, Copy)]
struct Motion {
    command: GripperCommand,
    issued: MonotonicTime,
    /// New states since then.
    states: u32,
}

#[derive(Debug, Clone, Copy)]
enum Task {
    /// Nothing is asked of the hand; `after` was carried out last.
    Resting {
        after: Option<GripperCommand>,
    },
    Moving(Motion),
    Late(Motion),
}

/// State machine over readings and commands.
#[derive(Debug, Clone, Copy)]
pub struct GripperMonitor {
    settings: MonitorSettings,
    task: Task,
    /// The newest state, and when its stamp was seen first.
    newest: Option<Stamped<GripperReading>>,
    /// A first stamp may be years old; a second, different one shows a live hand.
    moved: bool,
    phase: GripperPhase,
    time_outs: u64,
}

impl GripperMonitor {
    /// Nothing is known of the hand yet.
    pub fn new(settings: MonitorSettings) -> Self {
        let task = Task::Resting { after: None };
        Self { settings, task, newest: None, moved: false, phase: GripperPhase::Absent, time_outs: 0 }
    }

    pub fn phase(&self) -> GripperPhase {
        self.phase
    }

    /// Opening as a policy may see it, m, clamped to what its demonstrations had; NaN where the phase is
    /// [`Absent`](GripperPhase::Absent).
    pub fn width_m(&self) -> f64 {
        match &self.newest {
            Some(newest) if self.phase != GripperPhase::Absent => {
                newest.value.width_m.clamp(0.0, self.settings.observed_max_m)
            }
            _ => f64::NAN,
        }
    }

    /// Commands that were not carried out in time.
    pub fn time_outs(&self) -> u64 {
        self.time_outs
    }

    /// Somebody wants `command`. Where it is to be sent, the time-out runs from `now`.
    pub fn command(&mut self, now: MonotonicTime, command: GripperCommand) -> Admission {
        use GripperCommand::{Close, Open};
        match (self.phase, command) {
            (GripperPhase::Absent, _) => Admission::NoHand,
            (GripperPhase::Open | GripperPhase::Opening, Open)
            | (GripperPhase::Closing | GripperPhase::Holding | GripperPhase::Empty, Close) => Admission::Repeated,
            _ => {
                self.task = Task::Moving(Motion { command, issued: now, states: 0 });
                self.phase = under_way(command);
                Admission::Send
            }
        }
    }

    /// The hand was asked for its state; `reading` is none where there was no usable answer.
    pub fn observe(&mut self, now: MonotonicTime, reading: Option<GripperReading>) -> GripperPhase {
        let stamp = self.newest.map(|newest| newest.value.stamp);
        if let Some(value) = reading.filter(|reading| Some(reading.stamp) != stamp) {
            self.moved = stamp.is_some();
            self.newest = Some(Stamped { time: now, value });
            if let Task::Moving(motion) | Task::Late(motion) = &mut self.task {
                motion.states = motion.states.saturating_add(1);
            }
        }
        self.advance(now);
        self.phase = match &self.newest {
            Some(newest) if self.moved && newest.age(now) < SILENT_AFTER => self.judge(&newest.value),
            _ => GripperPhase::Absent,
        };
        self.phase
    }

    fn advance(&mut self, now: MonotonicTime) {
        let (Task::Moving(motion) | Task::Late(motion)) = self.task else { return };
        let Motion { command, issued, states } = motion;
        let done = self.newest.is_some_and(|Stamped { value, .. }| {
            states >= STATES_UNTIL_MOTION && !value.is_moving && self.reached(command, &value).is_some()
        });
        if done {
            self.task = Task::Resting { after: Some(command) };
        } else if matches!(self.task, Task::Moving(_)) && now.since(issued) > self.settings.timeout {
            self.task = Task::Late(motion);
            self.time_outs += 1;
        }
    }

    fn judge(&self, reading: &GripperReading) -> GripperPhase {
        match self.task {
            Task::Moving(motion) => under_way(motion.command),
            Task::Late(_) => GripperPhase::TimedOut,
            // Somebody else's motion, or the second run of a command that came twice: judged when it is over.
            Task::Resting { .. } if reading.is_moving && self.phase != GripperPhase::Absent => self.phase,
            Task::Resting { after } => self.at_rest(after, reading),
        }
    }

    /// What `command` has come to, if it has.
    fn reached(&self, command: GripperCommand, reading: &GripperReading) -> Option<GripperPhase> {
        match command {
            GripperCommand::Open => {
                (reading.width_m >= OPEN_FRACTION * self.settings.open_width_m).then_some(GripperPhase::Open)
            }
            GripperCommand::Close if reading.width_m <= EMPTY_WIDTH_M => Some(GripperPhase::Empty),
            GripperCommand::Close => reading.is_grasped.then_some(GripperPhase::Holding),
        }
    }

    /// The phase of a hand that is asked nothing. What was commanded last is looked at first: a wide part between the
    /// fingers is no open hand.
    fn at_rest(&self, after: Option<GripperCommand>, reading: &GripperReading) -> GripperPhase {
        let (first, second, neither) = match after {
            // The part has slipped out; a hand that grasped goes on closing by itself.
            Some(GripperCommand::Close) => (GripperCommand::Close, GripperCommand::Open, GripperPhase::Empty),
            // Half open: only a new command tells where the fingers are to be.
            _ => (GripperCommand::Open, GripperCommand::Close, GripperPhase::TimedOut),
        };
        self.reached(first, reading).or_else(|| self.reached(second, reading)).unwrap_or(neither)
    }
}

fn under_way(command: GripperCommand) -> GripperPhase {
    match command {
        GripperCommand::Open => GripperPhase::Opening,
        GripperCommand::Close => GripperPhase::Closing,
    }
}

#[cfg(test)]
mod tests;
