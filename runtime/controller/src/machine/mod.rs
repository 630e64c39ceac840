//! The controller's state machine: a function from time and inputs to a decision.
//!
//! [`Controller::tick`] never blocks, allocates, logs or reads a clock. It decides; [`crate::control_loop`] acts. The policy's
//! actions have instants on its grid ([`tenon_core::timeline`]); `targets_per_action` ticks lie between two of them, each with a
//! motion of the joints on the way there.
//!
//! States: Disarmed → Arming → Holding ⇄ Moving / Running; any → Fault. Nothing re-arms by itself. Whatever ends a motion, an order, a
//! fault, a missing chunk or part, ends it by the stop that the safety stage has in hand: Stopping, until the arm rests.

mod gripping;
mod interface;
mod parts;
mod running;

use std::time::Duration;

use tenon_core::action::ActionChunk;
use tenon_core::arm::Joints;
use tenon_core::geometry::Pose;
use tenon_core::gripper::GripperToggle;
use tenon_core::ik::{IkOutcome, differential_ik};
use tenon_core::message::{BridgeFault, BridgeState, Request};
use tenon_core::safety::{JointBounds, SafetyStage, Verdict, Wanted};
use tenon_core::spec::{ActionField, ObservationField, PolicySpec};
use tenon_core::time::MonotonicTime;
use tenon_core::timeline::Timeline;

pub use interface::{
    ActionCounts, ChunkGuide, Event, FaultCause, InferRequest, Inputs, MAX_OBSERVATION, Order, Outcome, Phase,
    Settings, SettingsError,
};
use parts::Unobserved;
use running::Run;

use crate::motion::{Progress, Setpoint};

/// Most periods that an observation may be old.
const MAX_DELAY: usize = 4;

#[derive(Debug, Clone, Copy)]
enum State {
    Disarmed,
    Arming {
        session: u64,
        since: MonotonicTime,
        /// The bridge has to let the arm go first.
        anew: bool,
    },
    Holding,
    Moving(Progress),
    Running(Run),
    Fault(FaultCause),
}

/// Decides what the arm does. See the module's text.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    observation: Vec<ObservationField>,
    action: Vec<ActionField>,
    observation_dim: usize,
    action_horizon: usize,
    delay: usize,
    tick_period_s: f64,
    safety: SafetyStage,
    /// What the safety stage keeps each joint to.
    bounds: [JointBounds; 7],
    /// Where the tool point is led while the policy runs.
    timeline: Timeline,
    /// The newest chunk, and the grid instant of its first action.
    previous: Option<(ActionChunk, i64)>,
    counts: ActionCounts,
    /// When the policy turns the hand over; none where there is no hand.
    toggle: Option<GripperToggle>,
    state: State,
    session: u64,
    /// Asked to be disarmed while moving: at rest it is.
    disarm_at_rest: bool,
    /// Joints that a motion wanted in the tick before.
    last_wanted: Option<Joints>,
    /// Pose commanded last: where interpolation starts and what the policy observes as commanded.
    commanded_pose: Pose,
    next_request: u64,
    /// What the last tick's command was for.
    last_due: Option<MonotonicTime>,
}

/// A motion has ended when every joint is commanded as near to its goal as this.
const SETTLED_RAD: f64 = 1e-4;
/// An arm that stands farther from what it was commanded did not follow; no spring bends as far.
const LEFT_BEHIND_RAD: f64 = 0.05;
const ARMING_TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

impl Controller {
    /// Checks that the policy can run on a robot.
    pub fn new(settings: Settings, spec: &PolicySpec) -> Result<Self, SettingsError> {
        for field in &spec.observation {
            if let ObservationField::Task(_) = field {
                return Err(SettingsError::SimulationOnly(*field));
            }
        }
        for field in &spec.action {
            if let ActionField::Task(_) = field {
                return Err(SettingsError::SimulationOnlyAction(*field));
            }
        }
        if spec.action.contains(&ActionField::Gripper) && settings.gripper.is_none() {
            return Err(SettingsError::NoGripper);
        }
        for (what, value, limit) in [
            ("observation dimension", spec.observation_dim(), MAX_OBSERVATION),
            ("observation delay", spec.observation_delay_steps, MAX_DELAY.min(spec.action_horizon - 1)),
            ("observation horizon", spec.observation_horizon, 1),
            ("chunk length", spec.chunk_len(), tenon_core::action::MAX_CHUNK_VALUES),
        ] {
            if value > limit {
                return Err(SettingsError::TooLarge { what, value, limit });
            }
        }
        if !settings.hand_over.is_sequential() {
            let (executed, delay) =
                (settings.hand_over.executed(spec.action_horizon), settings.inference_periods(spec.period_s));
            if executed == 0 {
                return Err(SettingsError::NothingExecuted);
            }
            if executed + delay > spec.prediction_horizon {
                let prediction_horizon = spec.prediction_horizon;
                return Err(SettingsError::Horizon { executed, delay, prediction_horizon });
            }
        }
        Ok(Self {
            settings,
            observation: spec.observation.clone(),
            action: spec.action.clone(),
            observation_dim: spec.observation_dim(),
            action_horizon: spec.action_horizon,
            delay: spec.observation_delay_steps,
            tick_period_s: spec.period_s / settings.targets_per_action as f64,
            safety: SafetyStage::new(
                settings.arm,
                settings.safety,
                spec.period_s / settings.targets_per_action as f64,
                [0.0; 7],
            ),
            bounds: std::array::from_fn(|i| settings.safety.bounds(i)),
            timeline: Timeline::new(Pose::identity(), 0.0, spec.period_s, settings.anchor),
            previous: None,
            counts: ActionCounts::default(),
            toggle: settings.gripper.map(GripperToggle::new),
            disarm_at_rest: false,
            last_wanted: None,
            state: State::Disarmed,
            session: 0,
            commanded_pose: Pose::identity(),
            next_request: 0,
            last_due: None,
        })
    }

    /// Time between two ticks.
    pub fn tick_period(&self) -> Duration {
        Duration::from_secs_f64(self.tick_period_s)
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Disarmed => Phase::Disarmed,
            State::Arming { .. } => Phase::Arming,
            State::Holding if !self.safety.is_at_rest() => Phase::Stopping,
            State::Holding => Phase::Holding,
            State::Moving(_) => Phase::Moving,
            State::Running(_) => Phase::Running,
            State::Fault(cause) => Phase::Fault(cause),
        }
    }

    /// The lease under which targets are sent; 0 for none.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Counts of the safety stage.
    pub fn safety(&self) -> &SafetyStage {
        &self.safety
    }

    /// What was done to the policy's actions.
    pub fn counts(&self) -> ActionCounts {
        self.counts
    }

    /// Pose of the tool point commanded last.
    pub fn commanded_pose(&self) -> &Pose {
        &self.commanded_pose
    }

    /// Advances the controller by one tick. Never blocks, allocates or logs.
    pub fn tick(&mut self, now: MonotonicTime, inputs: &Inputs) -> Outcome {
        // Counted between the instants that commands are for: lateness of a tick does not change the way. After a pause the
        // safety stage grants no more than the ticks that may be late; the arm has come to rest by then.
        let dt_s = self.last_due.map_or(self.tick_period_s, |t| inputs.due.seconds_since(t));
        let back = self.last_due.map_or(Duration::ZERO, |last| last.since(inputs.due));
        let dt_s = dt_s.clamp(0.0, self.tick_period_s * (1 + self.settings.max_late_ticks) as f64);
        self.last_due = Some(inputs.due);
        let mut out = Outcome::default();
        if let Some(order) = inputs.order {
            self.obey(order, now, inputs, &mut out);
        }
        let follows = matches!(self.state, State::Holding | State::Moving(_) | State::Running(_));
        if !back.is_zero() && follows {
            // Ages, and where the arm is on its way, mean nothing any more. A monotonic clock does not do this.
            self.fault(
                FaultCause::ClockRanBack { back_ms: u64::try_from(back.as_millis()).unwrap_or(u64::MAX) },
                &mut out,
            );
        }
        if let Some(cause) = self.check_inputs(now, inputs) {
            self.fault(cause, &mut out);
        }
        match self.state {
            State::Disarmed => {}
            // Only once the stop's last period has been commanded.
            State::Fault(_) | State::Holding if self.disarm_at_rest && self.safety.is_at_rest() => {
                self.disarm(&mut out)
            }
            State::Fault(_) => {}
            State::Arming { session, since, anew } => self.arming(now, session, since, anew, dt_s, inputs, &mut out),
            State::Holding => self.brake(dt_s, &mut out),
            State::Moving(progress) => self.moving(progress, dt_s, &mut out),
            State::Running(run) => self.running(run, now, dt_s, inputs, &mut out),
        }
        // What moves when a fault or a new arming comes is braked, in this tick already; what rests is left to the lease's heartbeat.
        if out.target.is_none() && self.session != 0 && !self.safety.is_at_rest() {
            self.brake(dt_s, &mut out);
        }
        if out.request.is_none() && out.target.is_none() && self.session != 0 {
            // Targets are a sign of life too, but a faulted controller sends none and still owns the lease.
            out.request = Some(Request::Heartbeat { session: self.session });
        }
        out
    }

    fn obey(&mut self, order: Order, now: MonotonicTime, inputs: &Inputs, out: &mut Outcome) {
        match (order, &self.state) {
            // 0 means "no lease": nothing that it commanded would be anybody's to stop.
            (Order::Arm { session }, State::Disarmed | State::Fault(_)) if session != 0 || self.session != 0 => {
                // After a fault the lease is still ours: re-arm under it, or the bridge would see a second commander.
                let session = if self.session == 0 {
                    // Whatever was under way belongs to a lease that is gone.
                    self.command_from(self.safety.commanded_rad());
                    session
                } else {
                    self.session
                };
                // An arm that was left behind (its robot client was silent for a moment) is not where our commands are, and the bridge
                // would refuse them: it has to let go, and begin where the arm is.
                let anew = self.session != 0 && self.safety.is_at_rest() && self.is_left_behind(inputs);
                self.session = session;
                self.disarm_at_rest = false;
                self.state = State::Arming { session, since: now, anew };
                out.request = Some(if anew { Request::Release { session } } else { Request::Arm { session } });
            }
            (Order::Move(motion), State::Holding) if self.safety.is_at_rest() => {
                self.last_wanted = None;
                self.state =
                    State::Moving(Progress::new(motion, self.safety.commanded_pose(), self.safety.commanded_rad()));
            }
            (Order::Run { actions }, State::Holding) => {
                let Some(state) = inputs.state else {
                    out.event = Some(Event::OrderIgnored);
                    return;
                };
                // An episode starts with the commanded position where the tool point is measured.
                let measured = self.settings.arm.tcp(&state.value.joint_positions_rad);
                self.commanded_pose.translation = measured.translation;
                let id = self.next_request;
                match self.observe(id, &state.value, now, inputs) {
                    Ok(request) => {
                        self.next_request += 1;
                        self.begin_way();
                        let posture_rad = state.value.joint_positions_rad;
                        let mut run = Run::new(actions, inputs.due, id, posture_rad);
                        self.begin_gripping(&mut run, &state.value, now, out);
                        self.state = State::Running(run);
                        out.infer = Some(request);
                    }
                    Err(Unobserved::Missing(part)) => out.event = Some(Event::RunRefused(part)),
                    Err(Unobserved::Fault(cause)) => self.fault(cause, out),
                }
            }
            (Order::Hold, State::Moving(_) | State::Running(_)) => self.state = State::Holding,
            (Order::Disarm, State::Holding | State::Moving(_) | State::Running(_) | State::Arming { .. })
                if !self.safety.is_at_rest() =>
            {
                self.disarm_at_rest = true;
                self.state = State::Holding;
            }
            // Given back in the middle of a stop, the arm would be held where it happens to be.
            (Order::Disarm, State::Fault(_)) if self.session != 0 && !self.safety.is_at_rest() => {
                self.disarm_at_rest = true;
            }
            (Order::Disarm, _) => self.disarm(out),
            _ => out.event = Some(Event::OrderIgnored),
        }
    }

    /// Everything that must hold in every state in which the arm follows us.
    fn check_inputs(&self, now: MonotonicTime, inputs: &Inputs) -> Option<FaultCause> {
        if !matches!(self.state, State::Holding | State::Moving(_) | State::Running(_)) {
            return None;
        }
        if inputs.late_ticks > self.settings.max_late_ticks {
            return Some(FaultCause::Late(inputs.late_ticks));
        }
        let Some(status) = inputs.status else { return Some(FaultCause::BridgeSilent) };
        if status.age(now) > STATUS_TIMEOUT {
            return Some(FaultCause::BridgeSilent);
        }
        match status.value.state {
            BridgeState::Running if status.value.session != self.session => {
                return Some(FaultCause::LeasedToAnother(status.value.session));
            }
            BridgeState::Running => {}
            state if status.value.fault == BridgeFault::None => return Some(FaultCause::BridgeLetGo(state)),
            _ => return Some(FaultCause::Bridge(status.value.fault)),
        }
        let limit = self.settings.max_state_age;
        let age = inputs.state.map_or(Duration::MAX, |s| s.age(now));
        let (Some(state), true) = (inputs.state, age <= limit) else {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            return Some(FaultCause::StaleState { age_ms, limit_ms: limit.as_millis() as u64 });
        };
        if state.value.error_code != 0 {
            return Some(FaultCause::RobotError(state.value.error_code));
        }
        let q = &state.value.joint_positions_rad;
        (!q.iter().chain(&state.value.joint_velocities_rad_s).all(|v| v.is_finite()))
            .then_some(FaultCause::NonFiniteState)
    }

    fn disarm(&mut self, out: &mut Outcome) {
        if self.session != 0 {
            out.request = Some(Request::Release { session: self.session });
        }
        self.session = 0;
        self.disarm_at_rest = false;
        self.state = State::Disarmed;
        out.target = None;
        out.event = Some(Event::Disarmed);
    }

    /// Nothing is wanted: the next period of the stop in hand is commanded.
    fn brake(&mut self, dt_s: f64, out: &mut Outcome) {
        self.safety.brake(dt_s);
        out.target = Some(*self.safety.motion());
    }

    /// Whatever is commanded in this tick and after it is a stop.
    fn fault(&mut self, cause: FaultCause, out: &mut Outcome) {
        self.state = State::Fault(cause);
        out.event = Some(Event::Faulted(cause));
    }

    /// From now on what is commanded begins at `q`, at rest.
    fn command_from(&mut self, q: Joints) {
        let counts = self.safety.counts;
        self.safety = SafetyStage::new(self.settings.arm, self.settings.safety, self.tick_period_s, q);
        self.safety.counts = counts;
    }

    /// Whether the arm is measured away from where it was commanded last.
    fn is_left_behind(&self, inputs: &Inputs) -> bool {
        let Some(state) = inputs.state else { return false };
        let commanded = self.safety.commanded_rad();
        (0..7).any(|i| (state.value.joint_positions_rad[i] - commanded[i]).abs() > LEFT_BEHIND_RAD)
    }

    /// A joint beyond its model's range. Each arming begins where the arm is, its reserve used or not; without an end to that, an arm
    /// that is armed at the far end of one swing after the other would walk out of its range.
    fn beyond_range(&self, q: &Joints) -> Option<FaultCause> {
        let limits = &self.settings.safety.joints;
        let joint = (0..7).find(|&i| q[i] < limits.lower_rad[i] || q[i] > limits.upper_rad[i])?;
        let (lower_rad, upper_rad) = (limits.lower_rad[joint], limits.upper_rad[joint]);
        Some(FaultCause::BeyondRange { joint, position_rad: q[joint], lower_rad, upper_rad })
    }

    fn arming(
        &mut self,
        now: MonotonicTime,
        session: u64,
        since: MonotonicTime,
        anew: bool,
        dt_s: f64,
        inputs: &Inputs,
        out: &mut Outcome,
    ) {
        let status = inputs.status.filter(|s| s.age(now) <= STATUS_TIMEOUT).map(|s| s.value);
        let mut wish = Request::Arm { session };
        match status {
            Some(s) if anew && s.session == session => wish = Request::Release { session },
            Some(_) if anew => {
                self.state = State::Arming { session, since, anew: false };
                out.request = Some(wish);
                return;
            }
            Some(s) if s.state == BridgeState::Running && s.session == session => {
                if let Some(state) = inputs.state.filter(|s| s.age(now) <= self.settings.max_state_age) {
                    let q = state.value.joint_positions_rad;
                    if !q.iter().all(|v| v.is_finite()) {
                        return self.fault(FaultCause::NonFiniteState, out);
                    }
                    if now == since || !self.safety.is_at_rest() {
                        // Re-armed while the bridge never stopped following us: what we commanded last is still in force, a stop
                        // included, and starting from the measured joints would be a step.
                        self.state = State::Holding;
                        self.brake(dt_s, out);
                        out.event = Some(Event::Armed);
                        return;
                    }
                    if let Some(cause) = self.beyond_range(&q) {
                        // Not ours any more: under a lease in force the next arming would go on from what was commanded before.
                        out.request = Some(Request::Release { session });
                        self.session = 0;
                        return self.fault(cause, out);
                    }
                    self.command_from(q);
                    self.commanded_pose = self.settings.arm.tcp(&q);
                    self.state = State::Holding;
                    out.target = Some(*self.safety.motion());
                    out.event = Some(Event::Armed);
                    return;
                }
            }
            Some(s) if s.session != 0 && s.session != session => {
                self.session = 0;
                return self.fault(FaultCause::LeasedToAnother(s.session), out);
            }
            _ => {}
        }
        if now.since(since) > ARMING_TIMEOUT {
            return self.fault(FaultCause::ArmingTimedOut(status.map(|s| s.state)), out);
        }
        // The request may be lost before the peers have found each other; the bridge takes repeats as the same one.
        if out.request.is_none() && now.since(since).as_millis() % 200 < (self.tick_period_s * 1e3) as u128 + 1 {
            out.request = Some(wish);
        }
    }

    fn moving(&mut self, mut progress: Progress, dt_s: f64, out: &mut Outcome) {
        let (setpoint, done) = progress.advance(self.tick_period_s);
        let (wanted, pose) = match setpoint {
            Setpoint::Joints(q) => (q, self.settings.arm.tcp(&q)),
            // A motion follows its own commanded joints: nothing observes it, and nothing drifts.
            Setpoint::Pose(pose) => match self.inverse_kinematics(&self.safety.commanded_rad(), &pose) {
                Ok(q) => (q, pose),
                Err(cause) => return self.fault(cause, out),
            },
        };
        let before = self.last_wanted.replace(wanted).unwrap_or(wanted);
        let velocity_rad_s = std::array::from_fn(|i| (wanted[i] - before[i]) / self.tick_period_s);
        let verdict = self.safety.check(&Wanted::moving(wanted, velocity_rad_s), dt_s);
        out.target = Some(*self.safety.motion());
        if let Verdict::Refused(_, refusal) = verdict {
            return self.fault(FaultCause::MotionRefused(refusal), out);
        }
        self.commanded_pose = pose;
        // The command follows what is wanted a few periods late.
        let left_rad = (0..7).map(|i| (wanted[i] - verdict.joints()[i]).abs()).fold(0.0, f64::max);
        if done && left_rad < SETTLED_RAD {
            self.state = State::Holding;
            out.event = Some(Event::MotionEnded);
        } else {
            self.state = State::Moving(progress);
        }
    }

    fn inverse_kinematics(&self, q: &Joints, pose: &Pose) -> Result<Joints, FaultCause> {
        let limits = &self.settings.safety.joints;
        match differential_ik(&self.settings.arm, q, pose, self.settings.damping, limits, 0.0) {
            IkOutcome::Reached { joint_positions_rad } | IkOutcome::Limited { joint_positions_rad, .. } => {
                Ok(joint_positions_rad)
            }
            IkOutcome::Singular { smallest_singular_value, .. } => Err(FaultCause::Singular(smallest_singular_value)),
        }
    }
}
