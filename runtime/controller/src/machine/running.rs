//! Running the policy: when it is asked, how its chunks become a way, and the joints that follow it.
//!
//! Two instants matter in a tick. *Now* is when the arm is where it was told to be a lead ago: grid instants pass, observations
//! are taken. *Wanted* is a lead later, when what is commanded now will be played (`Settings::lead_s`): there the way is
//! read. So a device's delay costs nothing as long as the way is known that far ahead.

use std::time::Duration;

use nalgebra::{SVector, Vector6};
use tenon_core::action::{ActionChunk, ToolTarget, decode_action};
use tenon_core::arm::Joints;
use tenon_core::geometry::{Pose, interpolate};
use tenon_core::ik::{Bounds, Linearised};
use tenon_core::message::RobotState;
use tenon_core::observation::{RobotView, write_observation};
use tenon_core::safety::{Refusal, Verdict, Wanted};
use tenon_core::time::MonotonicTime;
use tenon_core::timeline::{HandOver, Knot, MAX_KNOTS, Timeline, WayPoint};

use super::gripping::Grip;
use super::parts::Unobserved;
use super::{ChunkGuide, Controller, Event, FaultCause, InferRequest, Inputs, MAX_OBSERVATION, Outcome, State};

const CHUNK_TIMEOUT: Duration = Duration::from_millis(500);
/// Grid instants that a lead can span.
const MOST_PENDING: usize = 8;
/// Velocities that the solve may ask for are what the joints can reach within this time, s.
const REACH_S: f64 = 0.05;

/// A run of the policy. Grid instant 0 is where the arm stands, k where it is after k actions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Actions to execute in all.
    actions: i64,
    start: MonotonicTime,
    /// Request that is on its way, and the grid instant that its first action is for.
    awaited: Option<(u64, i64)>,
    /// Grid instant of the newest observation.
    observed: i64,
    /// Grid instant that the arm has reached last.
    reached: i64,
    /// Passed by what is wanted, but not by now: when, which, and the pose.
    pending: [(f64, i64, Pose); MOST_PENDING],
    pending_len: usize,
    /// The way has begun and has not ended.
    under_way: bool,
    started: bool,
    /// The action that begins now is not known yet.
    unbegun: bool,
    waiting_since: Option<MonotonicTime>,
    /// Since when a part that the next chunk must observe is missing.
    pub(super) missing_since: Option<MonotonicTime>,
    /// The hand is being opened or closed; nothing is executed meanwhile.
    pub(super) grip: Option<Grip>,
    /// Where the null space is drawn to.
    posture_rad: Joints,
}

impl Run {
    /// A run of `actions` actions, begun at `start`, its first chunk asked for by request `awaited`.
    pub(super) fn new(actions: usize, start: MonotonicTime, awaited: u64, posture_rad: Joints) -> Self {
        Self {
            actions: i64::try_from(actions).unwrap_or(i64::MAX),
            start,
            awaited: Some((awaited, 1)),
            observed: 0,
            reached: 0,
            pending: [(0.0, 0, Pose::identity()); MOST_PENDING],
            pending_len: 0,
            under_way: false,
            started: false,
            unbegun: false,
            waiting_since: None,
            missing_since: None,
            grip: None,
            posture_rad,
        }
    }

    fn remember(&mut self, index: i64, knot: &Knot) {
        // Where a lead spans more instants than can be kept, the oldest counts as reached early.
        if self.pending_len == MOST_PENDING {
            self.pending.copy_within(1.., 0);
            self.pending_len -= 1;
        }
        self.pending[self.pending_len] = (knot.time_s, index, knot.point.pose);
        self.pending_len += 1;
    }

    fn reach(&mut self, now_s: f64) -> Option<(i64, Pose)> {
        let (_, index, pose) =
            *self.pending[..self.pending_len].first().filter(|(at, ..)| *at <= now_s + ROUNDING_S)?;
        self.pending.copy_within(1..self.pending_len, 0);
        self.pending_len -= 1;
        Some((index, pose))
    }
}

/// Sums of periods differ in their last bits from multiples of them.
const ROUNDING_S: f64 = 1e-7;

impl Controller {
    pub(super) fn running(&mut self, mut run: Run, now: MonotonicTime, dt_s: f64, inputs: &Inputs, out: &mut Outcome) {
        let Some(state) = inputs.state else { return };
        let now_s = inputs.due.seconds_since(run.start);
        let wanted_s = now_s + self.settings.lead_s;
        if run.grip.is_some() {
            if self.wait_for_gripper(&mut run, &state.value, now, dt_s, out) {
                return;
            }
            // Nothing is made up for: what lies ahead moves by as long as the hand took.
            self.timeline.resume(self.commanded_way_point(), wanted_s);
            run.waiting_since = None;
        }
        let mut begun = false;
        if let Some((awaited, first)) = run.awaited
            && let Some(chunk) = inputs.chunk.filter(|chunk| chunk.request == awaited)
        {
            run.awaited = None;
            run.waiting_since = None;
            if let Err(cause) = self.take_chunk(&mut run, chunk, first, wanted_s) {
                return self.fault(cause, out);
            }
            if !run.started {
                run.started = true;
                out.event = Some(Event::RunStarted);
                begun = true;
            }
        }
        while let Some((index, knot)) = self.timeline.pass(wanted_s + ROUNDING_S) {
            run.remember(index, &knot);
            begun = true;
        }
        // Behind the end the action that begins is one that is still to come.
        begun |= std::mem::take(&mut run.unbegun);
        if begun {
            match self.timeline.ahead().first().copied() {
                Some(next) if self.begin_action(&mut run, &next, &state.value, now, out) => {
                    self.brake(dt_s, out);
                    self.state = State::Running(run);
                    return;
                }
                Some(_) => {}
                None => run.unbegun = true,
            }
        }
        while let Some((index, pose)) = run.reach(now_s) {
            run.reached = index;
            self.commanded_pose = pose;
        }
        if run.reached >= run.actions {
            self.state = State::Holding;
            out.event = Some(Event::RunEnded { actions: usize::try_from(run.reached).unwrap_or(0) });
            return self.brake(dt_s, out);
        }
        let missing = match self.ask(&mut run, now_s, &state.value, now, inputs, out) {
            Err(Unobserved::Fault(cause)) => return self.fault(cause, out),
            Err(missing) => Some(missing),
            Ok(()) => None,
        };
        let way = self.timeline.at(wanted_s).filter(|_| run.under_way);
        let way = match way {
            Some(way) => way,
            // All actions have been told; the last pose is kept until the arm has reached it.
            None if self.timeline.end() > run.actions => {
                WayPoint::at_rest(self.timeline.pose_before(self.timeline.end()))
            }
            None => {
                run.under_way = false;
                return match missing {
                    Some(missing) => self.wait_for_parts(&mut run, missing, now, dt_s, out),
                    None => self.wait_for_chunk(&mut run, now, dt_s, out),
                };
            }
        };
        let told = self.timeline.ahead().first().map_or((0, 0), |knot| (knot.chunk, knot.step));
        let wanted = match self.joints_along(&state.value, &way, &run.posture_rad) {
            Ok(wanted) => wanted,
            Err(cause) => return self.fault(cause, out),
        };
        let verdict = self.safety.check(&wanted, dt_s);
        out.target = Some(*self.safety.motion());
        if let Verdict::Refused(_, refusal) = verdict {
            let (chunk, step) = told;
            return self.fault(FaultCause::Refused { chunk, step, refusal }, out);
        }
        self.state = State::Running(run);
    }

    /// Makes a chunk part of the way.
    fn take_chunk(&mut self, run: &mut Run, chunk: &ActionChunk, first: i64, wanted_s: f64) -> Result<(), FaultCause> {
        let mode = self.settings.hand_over;
        if !run.under_way {
            // Nothing is being executed: the way begins, or goes on, where the arm is commanded to be and as it moves there.
            self.timeline.resume(self.commanded_way_point(), wanted_s);
            run.under_way = true;
        }
        let said = if mode.is_sequential() { self.action_horizon } else { chunk.steps };
        let wanted = usize::try_from(run.actions - first + 1).unwrap_or(0);
        let count = said.min(wanted).min(MAX_KNOTS);
        let mut targets = [ToolTarget { T_base_tcp: Pose::identity(), gripper: None }; MAX_KNOTS];
        let mut before = self.timeline.pose_before(first);
        for (step, target) in targets.iter_mut().enumerate().take(count) {
            let bad = FaultCause::BadAction { chunk: chunk.request, step };
            let mut decoded = chunk.action(step).and_then(|a| decode_action(&self.action, &before, a)).ok_or(bad)?;
            // The whole action is judged before any part of it is commanded.
            let distance_m = (decoded.T_base_tcp.translation.vector - before.translation.vector).norm();
            let limit_m = self.settings.safety.abort_tcp_step_m;
            if distance_m > limit_m {
                let refusal = Refusal::Jump { distance_m, limit_m };
                return Err(FaultCause::Refused { chunk: chunk.request, step, refusal });
            }
            let turn_rad = before.rotation.angle_to(&decoded.T_base_tcp.rotation);
            let share = (self.settings.max_tcp_step_m / distance_m).min(self.settings.max_tcp_turn_rad / turn_rad);
            if share < 1.0 {
                decoded.T_base_tcp = interpolate(&before, &decoded.T_base_tcp, share);
                self.counts.shortened += 1;
            }
            before = decoded.T_base_tcp;
            *target = decoded;
        }
        let merged = self.timeline.merge(mode, chunk.request, first, count, |i| targets[i]);
        self.counts.late_actions += merged.late as u64;
        self.previous = Some((*chunk, first));
        Ok(())
    }

    /// Where the tool point is commanded to be, and how it moves there.
    fn commanded_way_point(&self) -> WayPoint {
        let (pose, J) = self.settings.arm.tcp_jacobian(&self.safety.commanded_rad());
        let twist = J * SVector::<f64, 7>::from(self.safety.velocity_rad_s());
        WayPoint::moving(pose, twist.fixed_rows::<3>(0).into_owned(), twist.fixed_rows::<3>(3).into_owned())
    }

    /// Observes and asks for the next chunk, where it is time to.
    fn ask(
        &mut self,
        run: &mut Run,
        now_s: f64,
        state: &RobotState,
        now: MonotonicTime,
        inputs: &Inputs,
        out: &mut Outcome,
    ) -> Result<(), Unobserved> {
        let delay = self.delay as i64;
        let last = self.timeline.end() - 1;
        if run.awaited.is_some() {
            return Ok(());
        }
        let observed = match self.settings.hand_over {
            HandOver::Sequential if last >= run.actions => return Ok(()),
            HandOver::Sequential => {
                // The observation is `delay` periods old when the chunk's first action begins. Where a lead is longer than that, the
                // way ends before, for what is commanded: no later than then.
                let at = last - delay;
                let period_s = self.period_s();
                let early_s = (self.settings.lead_s - delay as f64 * period_s).max(0.0);
                let due_s = if at <= run.reached { now_s } else { self.grid_time_s(run, at) - early_s };
                if now_s + ROUNDING_S < due_s {
                    return Ok(());
                }
                at
            }
            receding => {
                if run.reached < run.observed + receding.executed(self.action_horizon) as i64 {
                    return Ok(());
                }
                run.reached
            }
        };
        let first = observed + delay + 1;
        if first > run.actions {
            return Ok(());
        }
        let mut request = self.observe(self.next_request, state, now, inputs)?;
        request.budget_s = (self.timeline.end_s() - self.settings.lead_s - now_s) as f32;
        if let (HandOver::Inpaint { .. }, Some((previous, begun))) = (self.settings.hand_over, &self.previous) {
            // What will have been executed when the chunk is here: up to the action under way then.
            let executing = self.timeline.end() - self.timeline.len() as i64 + 1;
            request.guide = ChunkGuide::new(previous, first - begun, executing - first + 1);
        }
        run.awaited = Some((self.next_request, first));
        run.observed = observed;
        run.missing_since = None;
        self.next_request += 1;
        out.infer = Some(request);
        Ok(())
    }

    /// When the arm reaches a grid instant: those that the way has passed already stand in the run.
    fn grid_time_s(&self, run: &Run, index: i64) -> f64 {
        let pending = run.pending[..run.pending_len].iter().find(|(_, i, _)| *i == index);
        pending.map_or_else(|| self.timeline.time_of(index), |(at, ..)| *at)
    }

    fn wait_for_chunk(&mut self, run: &mut Run, now: MonotonicTime, dt_s: f64, out: &mut Outcome) {
        self.brake(dt_s, out);
        let since = match run.waiting_since {
            Some(since) => since,
            None => {
                if let (true, Some((chunk, _))) = (run.started, run.awaited) {
                    out.event = Some(Event::ChunkLate { chunk });
                }
                *run.waiting_since.insert(now)
            }
        };
        let waited = now.since(since);
        if waited > CHUNK_TIMEOUT {
            return self.fault(FaultCause::NoChunk(waited.as_millis() as u64), out);
        }
        self.state = State::Running(*run);
    }

    pub(super) fn observe(
        &self,
        id: u64,
        state: &RobotState,
        now: MonotonicTime,
        inputs: &Inputs,
    ) -> Result<InferRequest, Unobserved> {
        let parts = self.parts(now, inputs)?;
        let (T_base_tcp, J) = self.settings.arm.tcp_jacobian(&state.joint_positions_rad);
        let view = RobotView {
            T_base_tcp,
            tcp_twist: J * SVector::<f64, 7>::from(state.joint_velocities_rad_s),
            gripper_width_m: self.gripper_width_m(state)?,
            T_base_commanded: self.commanded_pose,
            parts,
        };
        let mut observation = [0.0; MAX_OBSERVATION];
        let filled = write_observation(&self.observation, &view, &mut observation[..self.observation_dim]);
        if filled.is_err() {
            // `new` refuses fields of the simulation; what is left is a board of another furniture.
            return Err(Unobserved::Fault(FaultCause::OtherParts { found: parts.len() }));
        }
        Ok(InferRequest { id, len: self.observation_dim, observation, ..InferRequest::default() })
    }

    /// The joints for a moving tool pose.
    ///
    /// The paper's law starts from the *measured* joints, so a steady-state error is not integrated. Stock joint impedance
    /// damps absolute velocity and follows a moving target Kd/Kp late (spec polymetis.md §5); `lag_compensation_s` leads by that:
    /// Kp (q* + Kd/Kp · q̇* − q) − Kd q̇ = Kp (q* − q) + Kd (q̇* − q̇) is the same law with the velocity term it lacks.
    fn joints_along(&self, state: &RobotState, way: &WayPoint, posture_rad: &Joints) -> Result<Wanted, FaultCause> {
        let (q, arm) = (&state.joint_positions_rad, &self.settings.arm);
        let at = Linearised::new(arm, q, self.settings.damping).map_err(FaultCause::Singular)?;
        let error = at.error_to(arm, &way.pose);
        if !error.iter().all(|x| x.is_finite()) {
            return Err(FaultCause::Singular(f64::NAN));
        }
        let twist: Vector6<f64> = at.flange_twist(arm, &way.pose, &way.linear_m_s, &way.angular_rad_s);
        let mut beside = SVector::<f64, 7>::zeros();
        if self.settings.posture_rate_hz > 0.0 {
            beside = at.null_space(&std::array::from_fn(|i| (posture_rad[i] - q[i]) * self.settings.posture_rate_hz));
        }
        // A joint that stands outside its range may stay there or come back.
        let range = Bounds {
            low: std::array::from_fn(|i| (self.bounds[i].lower_rad - q[i]).min(0.0)),
            high: std::array::from_fn(|i| (self.bounds[i].upper_rad - q[i]).max(0.0)),
        };
        let step = at.solve_within(&error, &(beside * self.settings.lead_s), &range);
        let (moving, bounds) = (self.safety.velocity_rad_s(), &self.bounds);
        let reach = |i: usize| bounds[i].acceleration_rad_s2 * REACH_S;
        let speeds = Bounds {
            low: std::array::from_fn(|i| (moving[i] - reach(i)).max(-bounds[i].velocity_rad_s).min(0.0)),
            high: std::array::from_fn(|i| (moving[i] + reach(i)).min(bounds[i].velocity_rad_s).max(0.0)),
        };
        let velocity_rad_s = at.solve_within(&twist, &beside, &speeds).joints;
        // Without what the Jacobian's own change adds: the follower closes that like any other error.
        let change: Vector6<f64> = at.flange_twist(arm, &way.pose, &way.linear_m_s2, &way.angular_rad_s2);
        let acceleration_rad_s2 = at.solve(&change).into();
        let lag = &self.settings.lag_compensation_s;
        let position_rad = std::array::from_fn(|i| q[i] + step.joints[i] + velocity_rad_s[i] * lag[i]);
        Ok(Wanted { position_rad, velocity_rad_s, acceleration_rad_s2 })
    }

    fn period_s(&self) -> f64 {
        self.tick_period_s * self.settings.targets_per_action as f64
    }

    /// The way of a run that begins now, where the arm is commanded to be.
    pub(super) fn begin_way(&mut self) {
        self.timeline = Timeline::new(self.commanded_pose, 0.0, self.period_s(), self.settings.anchor);
        self.previous = None;
    }
}
