//! The gripper in a run: when the policy turns it over, the arm stands still until it has done so (spec robot_control.md §7).
//!
//! The authors' loop blocks inside the gripper call, for ever where a hand never answers, and afterwards makes up for the time by
//! rushing. Here no action is executed meanwhile and the schedule begins anew when the hand is done; a hand that is not done in its
//! time is a fault with that name.

use std::time::Duration;

use tenon_core::fusion::GripperEvent;
use tenon_core::message::{GripperCommand, GripperPhase, Request, RobotState};
use tenon_core::time::MonotonicTime;
use tenon_core::timeline::Knot;

use super::running::Run;
use super::{Controller, FaultCause, Outcome, State};

/// A command that shows no effect is sent again after this, and given up after the second.
const REPEAT: Duration = Duration::from_millis(500);
const UNHEARD: Duration = Duration::from_millis(1500);
/// Longer than any hand's own time-out: whoever does not report it does not watch the hand.
const LONGEST: Duration = Duration::from_secs(12);

/// A command that is being carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grip {
    command: GripperCommand,
    since: MonotonicTime,
    sent: MonotonicTime,
    /// The hand was seen to move, or to change to what is wanted.
    begun: bool,
    was: GripperPhase,
}

fn is_done(command: GripperCommand, phase: GripperPhase) -> bool {
    match command {
        GripperCommand::Open => phase == GripperPhase::Open,
        GripperCommand::Close => matches!(phase, GripperPhase::Holding | GripperPhase::Empty),
    }
}

impl Controller {
    /// A run begins with an open hand.
    pub(super) fn begin_gripping(&mut self, run: &mut Run, state: &RobotState, now: MonotonicTime, out: &mut Outcome) {
        let Some(toggle) = &mut self.toggle else { return };
        toggle.reset();
        if state.gripper != GripperPhase::Open {
            self.grip(run, GripperCommand::Open, state, now, out);
        }
    }

    /// The action of `knot` begins. Returns whether the hand is turned over for it.
    pub(super) fn begin_action(
        &mut self,
        run: &mut Run,
        knot: &Knot,
        state: &RobotState,
        now: MonotonicTime,
        out: &mut Outcome,
    ) -> bool {
        let decided = self.toggle.as_mut().zip(knot.gripper).and_then(|(toggle, value)| toggle.decide(value));
        decided.is_some_and(|command| {
            self.grip(run, command, state, now, out);
            true
        })
    }

    fn grip(
        &mut self,
        run: &mut Run,
        command: GripperCommand,
        state: &RobotState,
        now: MonotonicTime,
        out: &mut Outcome,
    ) {
        out.request = Some(Request::Gripper { session: self.session, command });
        if command == GripperCommand::Open {
            // A part is let go from now on, however long the fingers take.
            out.gripper = Some(GripperEvent::Opening);
        }
        run.grip = Some(Grip { command, since: now, sent: now, begun: false, was: state.gripper });
    }

    /// Holds the arm while the hand moves. Returns whether it still does.
    pub(super) fn wait_for_gripper(
        &mut self,
        run: &mut Run,
        state: &RobotState,
        now: MonotonicTime,
        dt_s: f64,
        out: &mut Outcome,
    ) -> bool {
        let Some(grip) = &mut run.grip else { return false };
        let phase = state.gripper;
        grip.begun |= phase.is_moving() || (phase != grip.was && phase != GripperPhase::Absent);
        if grip.begun && is_done(grip.command, phase) {
            if grip.command == GripperCommand::Close {
                out.gripper = Some(GripperEvent::Closed { width_m: state.gripper_width_m });
            }
            run.grip = None;
            return false;
        }
        let cause = match phase {
            GripperPhase::Absent => Some(FaultCause::GripperAbsent),
            GripperPhase::TimedOut if grip.begun => Some(FaultCause::GripperTimedOut(grip.command)),
            _ if !grip.begun && now.since(grip.since) > UNHEARD => Some(FaultCause::GripperUnheard(grip.command)),
            _ if now.since(grip.since) > LONGEST => Some(FaultCause::GripperTimedOut(grip.command)),
            _ => None,
        };
        if let Some(cause) = cause {
            self.fault(cause, out);
            return true;
        }
        if !grip.begun && now.since(grip.sent) > REPEAT {
            grip.sent = now;
            out.request = Some(Request::Gripper { session: self.session, command: grip.command });
        }
        self.brake(dt_s, out);
        self.state = State::Running(*run);
        true
    }
}
