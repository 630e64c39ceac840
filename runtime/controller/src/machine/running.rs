//! Running the policy: when a chunk is asked for, which action is under way, and the joints that follow it.

use std::time::Duration;

use nalgebra::{SVector, Vector3};
use tenon_core::action::{ActionChunk, decode_action};
use tenon_core::arm::Joints;
use tenon_core::geometry::{Pose, interpolate};
use tenon_core::message::RobotState;
use tenon_core::observation::{RobotView, write_observation};
use tenon_core::safety::{Refusal, Verdict, Wanted};
use tenon_core::time::MonotonicTime;

use super::parts::Unobserved;
use super::{Controller, Event, FaultCause, InferRequest, Inputs, MAX_OBSERVATION, Outcome, State};

const CHUNK_TIMEOUT: Duration = Duration::from_millis(500);

/// A run of the policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
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
    /// Since when a part that the next chunk must observe is missing.
    pub(super) missing_since: Option<MonotonicTime>,
    from: Pose,
    to: Pose,
    /// Velocity of the commanded tool point, smoothed over one period, m/s: what the target leads by.
    velocity_m_s: Vector3<f64>,
    started: bool,
}

impl Run {
    /// A run of `actions` actions from the commanded pose, its first chunk asked for by request `awaited`.
    pub(super) fn new(actions: usize, awaited: u64, commanded: Pose) -> Self {
        Self {
            actions,
            step: 0,
            sub_tick: 0,
            chunk: None,
            awaited,
            requested: true,
            waiting_since: None,
            missing_since: None,
            from: commanded,
            to: commanded,
            velocity_m_s: Vector3::zeros(),
            started: false,
        }
    }
}

impl Controller {
    pub(super) fn running(&mut self, mut run: Run, now: MonotonicTime, dt_s: f64, inputs: &Inputs, out: &mut Outcome) {
        let Some(state) = inputs.state else { return };
        if run.sub_tick == 0 && !self.begin_action(&mut run, now, dt_s, inputs, &state.value, out) {
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
        let verdict = self.safety.check(&wanted, dt_s);
        out.target = Some(*self.safety.motion());
        if let Verdict::Refused(_, refusal) = verdict {
            return self.fault(FaultCause::Refused { chunk, step, refusal }, out);
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
        dt_s: f64,
        inputs: &Inputs,
        state: &RobotState,
        out: &mut Outcome,
    ) -> bool {
        let in_chunk = run.step % self.action_horizon;
        if in_chunk == 0 {
            if !run.requested
                && let Err(missing) = self.request_chunk(run, state, now, inputs, out)
            {
                self.wait_for_parts(run, missing, now, dt_s, out);
                return false;
            }
            let Some(chunk) = inputs.chunk.filter(|c| c.request == run.awaited) else {
                self.wait_for_chunk(run, now, dt_s, out);
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
            // A part that is missing now may be seen again when the chunk is due.
            let _ = self.request_chunk(run, state, now, inputs, out);
        }
        run.from = self.commanded_pose;
        run.to = target.T_base_tcp;
        if !run.started {
            run.started = true;
            out.event = Some(Event::RunStarted);
        }
        true
    }

    fn request_chunk(
        &mut self,
        run: &mut Run,
        state: &RobotState,
        now: MonotonicTime,
        inputs: &Inputs,
        out: &mut Outcome,
    ) -> Result<(), Unobserved> {
        out.infer = Some(self.observe(self.next_request, state, now, inputs)?);
        run.awaited = self.next_request;
        run.requested = true;
        run.missing_since = None;
        self.next_request += 1;
        Ok(())
    }

    fn wait_for_chunk(&mut self, run: &mut Run, now: MonotonicTime, dt_s: f64, out: &mut Outcome) {
        self.brake(dt_s, out);
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
        Ok(InferRequest { id, len: self.observation_dim, observation })
    }

    /// The joints for a moving tool pose, leading by the lag of the impedance law.
    ///
    /// The paper's law starts from the *measured* joints, so a steady-state error is not integrated. Joint impedance
    /// damps absolute velocity, so a moving target is followed Kd/Kp late (spec polymetis.md §5):
    /// Kp (q* + Kd/Kp · q̇* − q) − Kd q̇ = Kp (q* − q) + Kd (q̇* − q̇) is the same law with the velocity term it lacks.
    fn feed_forward(&self, q: &Joints, pose: &Pose, velocity_m_s: &Vector3<f64>) -> Result<Wanted, FaultCause> {
        /// Long enough to be exact in f64, short enough to stay linear.
        const AHEAD_S: f64 = 0.01;
        let now = self.inverse_kinematics(q, pose)?;
        let mut ahead = *pose;
        ahead.translation.vector += velocity_m_s * AHEAD_S;
        let then = self.inverse_kinematics(q, &ahead)?;
        let lag = &self.settings.lag_compensation_s;
        let velocity_rad_s: Joints = std::array::from_fn(|i| (then[i] - now[i]) / AHEAD_S);
        Ok(Wanted { position_rad: std::array::from_fn(|i| now[i] + velocity_rad_s[i] * lag[i]), velocity_rad_s })
    }
}
