//! What the policy observes beside the arm: whether it is there, and what happens while it is not.

use std::time::Duration;

use tenon_core::fusion::NotReady;
use tenon_core::message::RobotState;
use tenon_core::spec::ObservationField;
use tenon_core::time::MonotonicTime;

use super::running::Run;
use super::{Controller, Event, FaultCause, Inputs, Outcome, State};

/// Why the policy cannot observe.
pub(super) enum Unobserved {
    /// A part has no pose now; it may be seen again.
    Missing(NotReady),
    /// Something that does not pass by itself.
    Fault(FaultCause),
}

impl Controller {
    fn observes_parts(&self) -> bool {
        self.observation.iter().any(|field| matches!(field, ObservationField::PartPoses(_)))
    }

    /// The gripper's opening; zero for a policy that does not observe it.
    pub(super) fn gripper_width_m(&self, state: &RobotState) -> Result<f64, Unobserved> {
        if !self.observation.contains(&ObservationField::GripperWidth) {
            return Ok(0.0);
        }
        let width_m = state.gripper_width_m;
        if width_m.is_finite() { Ok(width_m) } else { Err(Unobserved::Fault(FaultCause::NoGripper)) }
    }

    /// Numbers of the parts now; none for a policy that observes no parts.
    pub(super) fn parts<'a>(&self, now: MonotonicTime, inputs: &Inputs<'a>) -> Result<&'a [f32], Unobserved> {
        if !self.observes_parts() {
            return Ok(&[]);
        }
        // The board is looked at every few milliseconds: an old look comes from a thread that has stopped. How old the poses
        // themselves may be is the board's business.
        let limit = self.settings.max_state_age;
        let age = inputs.parts.map_or(Duration::MAX, |view| now.since(view.at));
        match inputs.parts {
            Some(view) if age <= limit => view.numbers().map_err(Unobserved::Missing),
            _ => Err(Unobserved::Fault(FaultCause::PartsStale {
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                limit_ms: limit.as_millis() as u64,
            })),
        }
    }

    /// Holds the arm until the part is seen again, at most as long as configured.
    pub(super) fn wait_for_parts(
        &mut self,
        run: &mut Run,
        missing: Unobserved,
        now: MonotonicTime,
        dt_s: f64,
        out: &mut Outcome,
    ) {
        let part = match missing {
            Unobserved::Missing(part) => part,
            Unobserved::Fault(cause) => return self.fault(cause, out),
        };
        self.brake(dt_s, out);
        let since = *run.missing_since.get_or_insert_with(|| {
            out.event = Some(Event::PartAwaited(part));
            now
        });
        if now.since(since) > self.settings.max_missing {
            return self.fault(FaultCause::PartMissing(part), out);
        }
        self.state = State::Running(*run);
    }
}
