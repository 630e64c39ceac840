//! The controller's state machine: a function from time and inputs to a decision.
//!
//! [`Controller::tick`] never blocks, allocates, logs or reads a clock. It decides; [`crate::control_loop`] acts. Within
//! one policy period there are `targets_per_action` ticks: the first takes the observation and the next action, all of
//! them send a joint target on the way from the last commanded pose to the new one.
//!
//! States: Disarmed → Arming → Holding ⇄ Moving / Running; any → Fault. Nothing re-arms by itself.

use std::time::Duration;

use nalgebra::{SVector, Vector3};
use tenon_core::action::{ActionChunk, decode_action};
use tenon_core::arm::{Arm, Joints};
use tenon_core::geometry::{Pose, interpolate};
use tenon_core::ik::{Damping, IkOutcome, differential_ik};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, Request, RobotState};
use tenon_core::observation::{RobotView, write_observation};
use tenon_core::safety::{Refusal, SafetyLimits, SafetyStage, Verdict};
use tenon_core::spec::{ActionField, ObservationField, PolicySpec};
use tenon_core::time::{MonotonicTime, Stamped};
use thiserror::Error;

use crate::motion::{Motion, Progress, Setpoint};

/// Most values of one observation.
pub const MAX_OBSERVATION: usize = 64;
/// Most periods that an observation may be old.
const MAX_DELAY: usize = 4;

/// What the tick sees.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub state: Option<Stamped<RobotState>>,
    pub status: Option<Stamped<BridgeStatus>>,
    /// The newest chunk that the policy has made.
    pub chunk: Option<&'a ActionChunk>,
    /// A command of the operator or the episode sequencer, each given once.
    pub order: Option<Order>,
    /// Ticks that were skipped in a row before this one because the loop was late.
    pub late_ticks: usize,
}

/// What can be asked of the controller.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Arm {
        session: u64,
    },
    Move(Motion),
    /// Run the policy for that many actions, then hold.
    Run {
        actions: usize,
    },
    /// Stop where the arm is commanded now, and hold.
    Hold,
    Disarm,
}

/// A request to the policy: sample a chunk from this observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferRequest {
    pub id: u64,
    pub len: usize,
    /// Observation in physical units.
    pub observation: [f32; MAX_OBSERVATION],
}

/// Why the controller is in `Fault`.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FaultCause {
    #[error("no robot state for {age_ms} ms (limit {limit_ms} ms)")]
    StaleState { age_ms: u64, limit_ms: u64 },
    #[error("the robot reports error code {0}")]
    RobotError(i32),
    #[error("robot state is not finite")]
    NonFiniteState,
    #[error("action {step} of chunk {chunk} is not finite or no pose")]
    BadAction { chunk: u64, step: usize },
    #[error("chunk {chunk}, action {step} refused: {refusal}")]
    Refused { chunk: u64, step: usize, refusal: Refusal },
    #[error("motion refused: {0}")]
    MotionRefused(Refusal),
    #[error("the arm is singular here (smallest singular value {0:.4})")]
    Singular(f64),
    #[error("no chunk from the policy for {0} ms")]
    NoChunk(u64),
    #[error("{0} ticks late in a row")]
    Late(usize),
    #[error("bridge: {0}")]
    Bridge(BridgeFault),
    #[error("the bridge is silent")]
    BridgeSilent,
    #[error("the arm is leased to session {0:016x}, another `tenon run`")]
    LeasedToAnother(u64),
    #[error("arming timed out (bridge: {0:?})")]
    ArmingTimedOut(Option<BridgeState>),
}

/// Public view of the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    Disarmed,
    Arming,
    Holding,
    Moving,
    Running,
    Fault(FaultCause),
}

/// What happened in a tick, for the log and the sequencer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Armed,
    MotionEnded,
    /// A run began: its first action is executed in this tick.
    RunStarted,
    /// The observation of action `step` was taken (not yet the action executed).
    RunEnded {
        actions: usize,
    },
    /// The arm waits for a chunk.
    ChunkLate {
        chunk: u64,
    },
    Faulted(FaultCause),
    /// An order that does not fit the state was ignored.
    OrderIgnored,
    Disarmed,
}

/// The decision of a tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub target: Option<Joints>,
    pub request: Option<Request>,
    pub infer: Option<InferRequest>,
    pub event: Option<Event>,
}

/// Settings of a controller; physical facts from `robot.toml`, everything of the policy from its `PolicySpec`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub arm: Arm,
    pub damping: Damping,
    pub safety: SafetyLimits,
    pub targets_per_action: usize,
    /// Lag of each joint's impedance law behind a moving target, s; the target leads by it. 0 = the paper's law.
    pub lag_compensation_s: Joints,
    pub max_state_age: Duration,
    pub max_late_ticks: usize,
}

/// What is wrong with a policy for this controller.
#[derive(Debug, Error, PartialEq)]
pub enum SettingsError {
    #[error("the policy observes {0:?}, which only a simulation can provide")]
    SimulationOnly(ObservationField),
    #[error("the policy acts through {0:?}, which only a simulation understands")]
    SimulationOnlyAction(ActionField),
    #[error("{what} = {value} exceeds {limit}")]
    TooLarge { what: &'static str, value: usize, limit: usize },
}

#[derive(Debug, Clone, Copy)]
enum State {
    Disarmed,
    Arming { session: u64, since: MonotonicTime },
    Holding,
    Moving(Progress),
    Running(Run),
    Fault(FaultCause),
}

/// A run of the policy.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Actions to execute in all, and executed so far.
    actions: usize,
    step: usize,
    /// Tick within the period, 0..targets_per_action.
    sub_tick: usize,
    chunk: Option<ActionChunk>,
    /// Request that the next chunk must answer, and since when the arm waits for it.
    awaited: u64,
    requested: bool,
    waiting_since: Option<MonotonicTime>,
    from: Pose,
    to: Pose,
    /// Velocity of the commanded tool point, smoothed over one period, m/s: what the target leads by.
    velocity_m_s: Vector3<f64>,
    started: bool,
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
    state: State,
    session: u64,
    /// Pose commanded last: where interpolation starts and what the policy observes as commanded.
    commanded_pose: Pose,
    next_request: u64,
    /// When the bridge last proved that it lives.
    last_tick: Option<MonotonicTime>,
}

const ARMING_TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
const CHUNK_TIMEOUT: Duration = Duration::from_millis(500);

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
        Ok(Self {
            settings,
            observation: spec.observation.clone(),
            action: spec.action.clone(),
            observation_dim: spec.observation_dim(),
            action_horizon: spec.action_horizon,
            delay: spec.observation_delay_steps,
            tick_period_s: spec.period_s / settings.targets_per_action as f64,
            safety: SafetyStage::new(settings.arm, settings.safety, [0.0; 7]),
            state: State::Disarmed,
            session: 0,
            commanded_pose: Pose::identity(),
            next_request: 0,
            last_tick: None,
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

    /// Pose of the tool point commanded last.
    pub fn commanded_pose(&self) -> &Pose {
        &self.commanded_pose
    }

    /// Advances the controller by one tick. Never blocks, allocates or logs.
    pub fn tick(&mut self, now: MonotonicTime, inputs: &Inputs) -> Outcome {
        let dt_s = self.last_tick.map_or(self.tick_period_s, |t| now.seconds_since(t));
        // The safety stage must not grant a longer step after a pause: at most one period's worth.
        let dt_s = dt_s.clamp(0.0, self.tick_period_s);
        self.last_tick = Some(now);
        let mut out = Outcome::default();
        if let Some(order) = inputs.order {
            self.obey(order, now, inputs, &mut out);
        }
        if let Some(cause) = self.check_inputs(now, inputs) {
            self.fault(cause, &mut out);
        }
        match self.state {
            State::Disarmed | State::Fault(_) => {}
            State::Arming { session, since } => self.arming(now, session, since, inputs, &mut out),
            State::Holding => out.target = Some(*self.safety.commanded_rad()),
            State::Moving(progress) => self.moving(progress, dt_s, &mut out),
            State::Running(run) => self.running(run, now, dt_s, inputs, &mut out),
        }
        if out.request.is_none() && out.target.is_none() && self.session != 0 {
            // Targets are a sign of life too, but a faulted controller sends none and still owns the lease.
            out.request = Some(Request::Heartbeat { session: self.session });
        }
        out
    }

    fn obey(&mut self, order: Order, now: MonotonicTime, inputs: &Inputs, out: &mut Outcome) {
        match (order, &self.state) {
            (Order::Arm { session }, State::Disarmed | State::Fault(_)) => {
                // After a fault the lease is still ours: re-arm under it, or the bridge would see a second commander.
                let session = if self.session == 0 { session } else { self.session };
                self.session = session;
                self.state = State::Arming { session, since: now };
                out.request = Some(Request::Arm { session });
            }
            (Order::Move(motion), State::Holding) => {
                self.state = State::Moving(Progress::new(motion, self.commanded_pose, *self.safety.commanded_rad()));
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
                self.next_request += 1;
                self.state = State::Running(Run {
                    actions,
                    step: 0,
                    sub_tick: 0,
                    chunk: None,
                    awaited: id,
                    requested: true,
                    waiting_since: None,
                    from: self.commanded_pose,
                    to: self.commanded_pose,
                    velocity_m_s: Vector3::zeros(),
                    started: false,
                });
                out.infer = Some(self.observe(id, &state.value));
            }
            (Order::Hold, State::Moving(_) | State::Running(_)) => self.state = State::Holding,
            (Order::Disarm, _) => {
                if self.session != 0 {
                    out.request = Some(Request::Release { session: self.session });
                }
                self.session = 0;
                self.state = State::Disarmed;
                out.event = Some(Event::Disarmed);
            }
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

    fn fault(&mut self, cause: FaultCause, out: &mut Outcome) {
        self.state = State::Fault(cause);
        out.target = None;
        out.event = Some(Event::Faulted(cause));
    }

    fn arming(&mut self, now: MonotonicTime, session: u64, since: MonotonicTime, inputs: &Inputs, out: &mut Outcome) {
        let status = inputs.status.filter(|s| s.age(now) <= STATUS_TIMEOUT).map(|s| s.value);
        match status {
            Some(s) if s.state == BridgeState::Running && s.session == session => {
                if let Some(state) = inputs.state.filter(|s| s.age(now) <= self.settings.max_state_age) {
                    let q = state.value.joint_positions_rad;
                    if !q.iter().all(|v| v.is_finite()) {
                        return self.fault(FaultCause::NonFiniteState, out);
                    }
                    if now == since && self.session == session {
                        // Re-armed while the bridge never stopped following us: what we commanded last is still in force, and
                        // starting from the measured joints would be a step.
                        self.state = State::Holding;
                        out.target = Some(*self.safety.commanded_rad());
                        out.event = Some(Event::Armed);
                        return;
                    }
                    let counts = self.safety.counts;
                    self.safety = SafetyStage::new(self.settings.arm, self.settings.safety, q);
                    self.safety.counts = counts;
                    self.commanded_pose = self.settings.arm.tcp(&q);
                    self.state = State::Holding;
                    out.target = Some(q);
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
            out.request = Some(Request::Arm { session });
        }
    }

    fn moving(&mut self, mut progress: Progress, dt_s: f64, out: &mut Outcome) {
        let (setpoint, done) = progress.advance(self.tick_period_s);
        let (wanted, pose) = match setpoint {
            Setpoint::Joints(q) => (q, self.settings.arm.tcp(&q)),
            // A motion follows its own commanded joints: nothing observes it, and nothing drifts.
            Setpoint::Pose(pose) => match self.inverse_kinematics(&self.safety.commanded_rad().clone(), &pose) {
                Ok(q) => (q, pose),
                Err(cause) => return self.fault(cause, out),
            },
        };
        match self.safety.check(&wanted, dt_s) {
            Verdict::Passed(q) | Verdict::Limited(q) => out.target = Some(q),
            Verdict::Refused(refusal) => return self.fault(FaultCause::MotionRefused(refusal), out),
        }
        self.commanded_pose = pose;
        if done {
            self.state = State::Holding;
            out.event = Some(Event::MotionEnded);
        } else {
            self.state = State::Moving(progress);
        }
    }

    fn running(&mut self, mut run: Run, now: MonotonicTime, dt_s: f64, inputs: &Inputs, out: &mut Outcome) {
        let Some(state) = inputs.state else { return };
        if run.sub_tick == 0 && !self.begin_action(&mut run, now, inputs, &state.value, out) {
            return;
        }
        let n = self.settings.targets_per_action;
        let pose = interpolate(&run.from, &run.to, (run.sub_tick + 1) as f64 / n as f64);
        let period_s = self.tick_period_s * n as f64;
        let velocity = (run.to.translation.vector - run.from.translation.vector) / period_s;
        run.velocity_m_s += (velocity - run.velocity_m_s) * (2.0 / n as f64).min(1.0);
        let chunk = run.chunk.map_or(0, |c| c.request);
        let step = (run.step) % self.action_horizon;
        let wanted = match self.feed_forward(&state.value.joint_positions_rad, &pose, &run.velocity_m_s) {
            Ok(q) => q,
            Err(cause) => return self.fault(cause, out),
        };
        match self.safety.check(&wanted, dt_s) {
            Verdict::Passed(q) | Verdict::Limited(q) => out.target = Some(q),
            Verdict::Refused(refusal) => return self.fault(FaultCause::Refused { chunk, step, refusal }, out),
        }
        run.sub_tick += 1;
        if run.sub_tick == n {
            run.sub_tick = 0;
            run.step += 1;
            self.commanded_pose = run.to;
            if run.step == run.actions {
                self.state = State::Holding;
                out.event = Some(Event::RunEnded { actions: run.step });
                return;
            }
        }
        self.state = State::Running(run);
    }

    /// First tick of a period: observe, ask for the next chunk in time, take the next action. `false` = the arm holds.
    fn begin_action(
        &mut self,
        run: &mut Run,
        now: MonotonicTime,
        inputs: &Inputs,
        state: &RobotState,
        out: &mut Outcome,
    ) -> bool {
        let in_chunk = run.step % self.action_horizon;
        if in_chunk == 0 {
            if !run.requested {
                self.request_chunk(run, state, out);
            }
            let Some(chunk) = inputs.chunk.filter(|c| c.request == run.awaited) else {
                self.wait_for_chunk(run, now, out);
                return false;
            };
            run.chunk = Some(*chunk);
            run.requested = false;
            run.waiting_since = None;
        }
        let Some(chunk) = run.chunk else { return false };
        let target = chunk.action(in_chunk).and_then(|a| decode_action(&self.action, &self.commanded_pose, a));
        let Some(target) = target else {
            self.fault(FaultCause::BadAction { chunk: chunk.request, step: in_chunk }, out);
            return false;
        };
        // The whole action is judged before any part of it is commanded.
        let distance_m = (target.T_base_tcp.translation.vector - self.commanded_pose.translation.vector).norm();
        let limit_m = self.settings.safety.abort_tcp_step_m;
        if distance_m > limit_m {
            let refusal = Refusal::Jump { distance_m, limit_m };
            self.fault(FaultCause::Refused { chunk: chunk.request, step: in_chunk, refusal }, out);
            return false;
        }
        // The next chunk is computed from the observation that is `delay` periods old when it begins, taken before
        // this period's action.
        let begins = run.step + self.delay;
        if self.delay > 0 && begins.is_multiple_of(self.action_horizon) && begins < run.actions {
            self.request_chunk(run, state, out);
        }
        run.from = self.commanded_pose;
        run.to = target.T_base_tcp;
        if !run.started {
            run.started = true;
            out.event = Some(Event::RunStarted);
        }
        true
    }

    fn request_chunk(&mut self, run: &mut Run, state: &RobotState, out: &mut Outcome) {
        run.awaited = self.next_request;
        run.requested = true;
        self.next_request += 1;
        out.infer = Some(self.observe(run.awaited, state));
    }

    fn wait_for_chunk(&mut self, run: &mut Run, now: MonotonicTime, out: &mut Outcome) {
        out.target = Some(*self.safety.commanded_rad());
        let since = *run.waiting_since.get_or_insert(now);
        let waited = now.since(since);
        if waited > CHUNK_TIMEOUT {
            return self.fault(FaultCause::NoChunk(waited.as_millis() as u64), out);
        }
        if run.started {
            out.event = Some(Event::ChunkLate { chunk: run.awaited });
        }
        self.state = State::Running(*run);
    }

    fn observe(&self, id: u64, state: &RobotState) -> InferRequest {
        let (T_base_tcp, J) = self.settings.arm.tcp_jacobian(&state.joint_positions_rad);
        let view = RobotView {
            T_base_tcp,
            tcp_twist: J * SVector::<f64, 7>::from(state.joint_velocities_rad_s),
            gripper_width_m: state.gripper_width_m,
            T_base_commanded: self.commanded_pose,
        };
        let mut observation = [0.0; MAX_OBSERVATION];
        let filled = write_observation(&self.observation, &view, &mut observation[..self.observation_dim]);
        debug_assert!(filled.is_ok(), "`new` refuses fields that only a simulation can fill");
        InferRequest { id, len: self.observation_dim, observation }
    }

    /// The joints for a moving tool pose, leading by the lag of the impedance law.
    ///
    /// The paper's law starts from the *measured* joints, so a steady-state error is not integrated. Joint impedance
    /// damps absolute velocity, so a moving target is followed Kd/Kp late (spec polymetis.md §5):
    /// Kp (q* + Kd/Kp · q̇* − q) − Kd q̇ = Kp (q* − q) + Kd (q̇* − q̇) is the same law with the velocity term it lacks.
    fn feed_forward(&self, q: &Joints, pose: &Pose, velocity_m_s: &Vector3<f64>) -> Result<Joints, FaultCause> {
        /// Long enough to be exact in f64, short enough to stay linear.
        const AHEAD_S: f64 = 0.01;
        let now = self.inverse_kinematics(q, pose)?;
        let mut ahead = *pose;
        ahead.translation.vector += velocity_m_s * AHEAD_S;
        let then = self.inverse_kinematics(q, &ahead)?;
        let lag = &self.settings.lag_compensation_s;
        Ok(std::array::from_fn(|i| now[i] + (then[i] - now[i]) / AHEAD_S * lag[i]))
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
