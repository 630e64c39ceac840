//! The whole controller in a world that lies to it: late, doubled, wrong and missing chunks, states that are old, frozen or no numbers,
//! a bridge that goes and comes, time that stands still or jumps, orders at any moment. What it commands is judged as the stage's is.

use std::time::Duration;

use nalgebra::Vector3;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tenon_core::action::ActionChunk;
use tenon_core::arm::Joints;
use tenon_core::config::RobotConfig;
use tenon_core::geometry::{Pose, rotation_to_6d};
use tenon_core::gripper::ToggleSettings;
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, Request, RobotState};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::safety::JointMotion;
use tenon_core::spec::{ActionField, ObservationField, PolicySpec, SPEC_VERSION};
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};
use tenon_core::timeline::{Anchor, HandOver};

use super::judge::{Judge, place};
use super::report::Report;
use crate::machine::{Controller, Event, FaultCause, InferRequest, Inputs, Order, Outcome, Phase, Settings};
use crate::motion::Motion;

/// Actions of a chunk.
const HORIZON: usize = 8;
/// A stop begins and ends with a tick.
const ROUNDING_PERIODS: f64 = 2.0;
const BAD: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e6, -3.0];

/// A controller, and the world around it.
pub struct Trial {
    random: ChaCha8Rng,
    settings: Settings,
    spec: PolicySpec,
    controller: Controller,
    period: Duration,
    now: MonotonicTime,
    due: MonotonicTime,
    last_due: Option<MonotonicTime>,
    arm: Arm,
    bridge: Bridge,
    policy: Policy,
    watch: Watch,
    report: Report,
}

/// The arm as the controller sees it.
struct Arm {
    q: Joints,
    dq: Joints,
    /// How much of the way to the command it goes in a period.
    follows: f64,
    gripper: GripperPhase,
    seen: Option<Stamped<RobotState>>,
    sequence: u64,
    /// Ticks in which nothing new is seen.
    silent: u32,
}

struct Bridge {
    state: BridgeState,
    fault: BridgeFault,
    session: u64,
    seen: Option<Stamped<BridgeStatus>>,
    silent: u32,
    /// A lease that will be granted in so many ticks.
    granting: Option<(u64, u32)>,
}

struct Policy {
    /// What is on its way: when it arrives, and what.
    coming: Vec<(MonotonicTime, ActionChunk)>,
    there: Option<ActionChunk>,
    /// Size of an action, m.
    step_m: f64,
    heading: Vector3<f64>,
}

/// What was commanded, and since when it stops.
struct Watch {
    judge: Option<Judge>,
    before: Option<[JointMotion; 7]>,
    stopping_s: f64,
}

fn rests(motion: &[JointMotion; 7]) -> bool {
    motion.iter().all(|m| m.velocity_rad_s == 0.0 && m.acceleration_rad_s2 == 0.0)
}

fn spec(planar: bool, period_s: f64) -> PolicySpec {
    let (observation, action) = if planar {
        let increment = ActionField::PlanarIncrement { z_m: 0.2, quat_wxyz: [0.0, 1.0, 0.0, 0.0] };
        (vec![ObservationField::CommandedPosition2, ObservationField::TcpPosition2], vec![increment])
    } else {
        let action = vec![ActionField::TcpPosition, ActionField::TcpRotation6d, ActionField::Gripper];
        let observation = vec![
            ObservationField::TcpPosition,
            ObservationField::TcpRotation6d,
            ObservationField::TcpLinearVelocity,
            ObservationField::TcpAngularVelocity,
            ObservationField::GripperWidth,
        ];
        (observation, action)
    };
    let dim = |n: usize| Limits::symmetric(1.0, n);
    let normalizer = Normalizer::new(
        dim(observation.iter().map(|f| f.dim()).sum()),
        dim(action.iter().map(|f: &ActionField| f.dim()).sum()),
    );
    PolicySpec {
        spec_version: SPEC_VERSION,
        task: "any".to_owned(),
        observation,
        action,
        observation_horizon: 1,
        prediction_horizon: HORIZON,
        action_horizon: HORIZON / 2,
        period_s,
        observation_delay_steps: usize::from(planar),
        denoising: None,
        normalizer,
        pictures: None,
    }
}

impl Trial {
    pub fn new(config: &RobotConfig, seed: u64, episode: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x0063_6f6e_7472_6f6c);
        random.set_stream(episode);
        let r = &mut random;
        let planar = r.random_bool(0.5);
        let period_s = if planar { 0.035 } else { 0.1 };
        let spec = spec(planar, period_s);
        let hand_over = [
            HandOver::Sequential,
            HandOver::Blend { executed: 4, periods: 3 },
            HandOver::Ensemble { executed: 2, decay: 0.01 },
            HandOver::Inpaint { executed: 4 },
        ];
        let settings = Settings {
            targets_per_action: *[1, 5, 14, 35].choose(r).unwrap_or(&5),
            hand_over: *hand_over.choose(r).unwrap_or(&HandOver::Sequential),
            anchor: if r.random_bool(0.7) { Anchor::Reanchor } else { Anchor::CatchUp },
            posture_rate_hz: if r.random_bool(0.7) { 0.0 } else { 2.0 },
            gripper: Some(ToggleSettings::default()),
            max_late_ticks: 5,
            ..crate::run::settings(config)
        };
        let controller = match Controller::new(settings, &spec) {
            Ok(controller) => controller,
            Err(error) => unreachable!("four of eight actions leave room for every mode: {error}"),
        };
        let anywhere = r.random_bool(0.05);
        let q = place(&settings.arm, &settings.safety, anywhere, |low, high| r.random_range(low..high));
        let start = MonotonicTime::from_nanos(1_000_000_000);
        let follows = *[1.0, 0.5, 0.1].choose(r).unwrap_or(&1.0);
        Self {
            period: controller.tick_period(),
            arm: Arm { q, dq: [0.0; 7], follows, gripper: GripperPhase::Open, seen: None, sequence: 0, silent: 0 },
            bridge: Bridge {
                state: BridgeState::Idle,
                fault: BridgeFault::None,
                session: 0,
                seen: None,
                silent: 0,
                granting: None,
            },
            policy: Policy { coming: Vec::new(), there: None, step_m: 0.01, heading: Vector3::x() },
            watch: Watch { judge: None, before: None, stopping_s: 0.0 },
            report: Report::default(),
            random,
            settings,
            spec,
            controller,
            now: start,
            due: start,
            last_due: None,
        }
    }

    #[cfg(test)]
    pub fn with_limits(mut self, widen: impl Fn(&mut tenon_core::safety::SafetyLimits)) -> Self {
        let mut settings = self.settings;
        widen(&mut settings.safety);
        self.controller = Controller::new(settings, &self.spec).expect("only limits differ");
        self
    }

    pub fn run(mut self, ticks: u64) -> Report {
        for _ in 0..ticks {
            self.tick();
        }
        self.report
    }

    fn tick(&mut self) {
        self.time();
        self.world();
        let order = self.order();
        let late_ticks = if self.random.random_bool(0.0005) { self.random.random_range(0..8) } else { 0 };
        let inputs = Inputs {
            due: self.due,
            state: self.arm.seen,
            status: self.bridge.seen,
            chunk: self.policy.there.as_ref(),
            parts: None,
            order,
            late_ticks,
        };
        let outcome = self.controller.tick(self.now, &inputs);
        // What the controller counts on: no more than the ticks that may be late (its own rule, which the bridge knows too).
        let most_s = self.period.as_secs_f64() * (1 + self.settings.max_late_ticks) as f64;
        let since = self.last_due.map_or(self.period.as_secs_f64(), |last| self.due.seconds_since(last));
        self.last_due = Some(self.due);
        self.report.ticks += 1;
        self.judge(&outcome, since.clamp(0.0, most_s));
        self.obey(&outcome);
    }

    fn time(&mut self) {
        let (period, r) = (self.period, &mut self.random);
        self.due = self.due + period;
        self.now = self.due + Duration::from_micros(r.random_range(0..200));
        if r.random_bool(0.003) {
            self.report.odd_times += 1;
            let back = |by: Duration| MonotonicTime::from_nanos(self.due.as_nanos() - by.as_nanos() as i64);
            match r.random_range(0..6) {
                0 => self.due = back(period),
                1 => self.due = back(period * 5),
                2 => self.due = self.due + period * r.random_range(1..9),
                3 => self.due = self.due + period.mul_f64(r.random_range(0.0..1.0)),
                4 => self.now = self.due + Duration::from_secs_f64(r.random_range(0.0..3.0)),
                _ => self.now = back(Duration::from_secs_f64(r.random_range(0.0..3.0))),
            }
        }
    }

    /// What is there to be seen before the tick.
    fn world(&mut self) {
        let (r, now) = (&mut self.random, self.now);
        let arm = &mut self.arm;
        if let Some(commanded) = &self.watch.before {
            for i in 0..7 {
                let step = (commanded[i].position_rad - arm.q[i]) * arm.follows;
                arm.q[i] += step;
                arm.dq[i] = step / self.period.as_secs_f64();
            }
        }
        if r.random_bool(0.0003) {
            // Somebody pushes the arm.
            arm.q[r.random_range(0..7)] += r.random_range(-0.3..0.3);
        }
        if r.random_bool(0.001) {
            arm.silent = r.random_range(1..100);
        }
        if r.random_bool(0.01) {
            let phases = [GripperPhase::Open, GripperPhase::Open, GripperPhase::Holding, GripperPhase::Empty];
            arm.gripper = *phases.choose(r).unwrap_or(&GripperPhase::Open);
        }
        arm.silent = arm.silent.saturating_sub(1);
        if arm.silent == 0 {
            arm.sequence += 1;
            let mut state = RobotState {
                sequence: arm.sequence,
                robot_time: RobotTime::default(),
                joint_positions_rad: arm.q,
                joint_velocities_rad_s: arm.dq,
                joint_torques_external_nm: [0.0; 7],
                gripper_width_m: 0.04,
                gripper: arm.gripper,
                error_code: 0,
            };
            if r.random_bool(0.0003) {
                self.report.not_finite += 1;
                let bad = f64::from(*BAD.choose(r).unwrap_or(&f32::NAN));
                match r.random_range(0..4) {
                    0 => state.joint_positions_rad[r.random_range(0..7)] = bad,
                    1 => state.joint_velocities_rad_s[r.random_range(0..7)] = bad,
                    2 => state.gripper_width_m = bad,
                    _ => state.error_code = 1,
                }
            }
            arm.seen = Some(Stamped { time: now, value: state });
        }
        let bridge = &mut self.bridge;
        if let Some((session, ticks)) = &mut bridge.granting {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                (bridge.state, bridge.fault, bridge.session) = (BridgeState::Running, BridgeFault::None, *session);
                bridge.granting = None;
            }
        }
        if r.random_bool(0.01) && bridge.session == 99 {
            (bridge.state, bridge.session) = (BridgeState::Idle, 0);
        }
        if r.random_bool(0.0003) {
            let states = [BridgeState::NoServer, BridgeState::NoRobot, BridgeState::Fault, BridgeState::Running];
            bridge.state = *states.choose(r).unwrap_or(&BridgeState::Fault);
            bridge.fault = BridgeFault::ControllerDropped;
            if r.random_bool(0.3) {
                bridge.session = 99;
            }
        }
        if r.random_bool(0.0005) {
            bridge.silent = r.random_range(1..150);
        }
        bridge.silent = bridge.silent.saturating_sub(1);
        if bridge.silent == 0 {
            let value = BridgeStatus {
                sequence: 0,
                state: bridge.state,
                fault: bridge.fault,
                session: bridge.session,
                epoch: 1,
                acknowledged: 0,
                update_us: 0,
                robot_hz: 1000,
            };
            bridge.seen = Some(Stamped { time: now, value });
        }
        let Policy { coming, there, .. } = &mut self.policy;
        coming.retain(|(at, chunk)| {
            if *at > now {
                return true;
            }
            *there = Some(*chunk);
            false
        });
    }

    fn order(&mut self) -> Option<Order> {
        let phase = self.controller.phase();
        let r = &mut self.random;
        let kind = match phase {
            Phase::Disarmed | Phase::Fault(_) if r.random_bool(0.03) => 0,
            Phase::Holding if r.random_bool(0.05) => *[1, 2, 2].choose(r).unwrap_or(&2),
            _ if r.random_bool(0.001) => r.random_range(0..5),
            _ => return None,
        };
        Some(match kind {
            0 => Order::Arm { session: if r.random_bool(0.02) { 0 } else { r.random_range(1..1000) } },
            1 => Order::Move(self.motion()),
            2 => {
                self.policy.step_m = 10f64.powf(r.random_range(-4.0..-1.2));
                Order::Run { actions: r.random_range(0..200) }
            }
            3 => Order::Hold,
            _ => Order::Disarm,
        })
    }

    fn motion(&mut self) -> Motion {
        let (r, q) = (&mut self.random, self.arm.q);
        let speed = 10f64.powf(r.random_range(-1.5..0.8));
        let speed = if r.random_bool(0.02) { f64::INFINITY } else { speed };
        if r.random_bool(0.5) {
            let mut goal_rad: Joints = std::array::from_fn(|i| q[i] + r.random_range(-0.5..0.5));
            if r.random_bool(0.02) {
                goal_rad[r.random_range(0..7)] = f64::NAN;
            }
            return Motion::Joints { goal_rad, max_speed_rad_s: speed };
        }
        let mut poses = [*self.controller.commanded_pose(); 3];
        for pose in &mut poses {
            for axis in 0..3 {
                pose.translation.vector[axis] += r.random_range(-0.15..0.15);
            }
        }
        Motion::waypoints(&poses, speed).unwrap_or(Motion::Joints { goal_rad: q, max_speed_rad_s: speed })
    }

    /// What the outcome asks of the world.
    fn obey(&mut self, outcome: &Outcome) {
        if let Some(Event::Faulted(FaultCause::BeyondRange { .. })) = outcome.event {
            // It says what to do: a person guides the arm back.
            let (r, settings) = (&mut self.random, &self.settings);
            self.arm.q = place(&settings.arm, &settings.safety, false, |low, high| r.random_range(low..high));
        }
        match outcome.request {
            Some(Request::Arm { session }) if self.bridge.granting.is_none() && self.random.random_bool(0.9) => {
                self.bridge.granting = Some((session, self.random.random_range(1..10)));
            }
            Some(Request::Release { .. }) => {
                // Messages keep their order: what was asked for before it is over too.
                (self.bridge.state, self.bridge.session, self.bridge.granting) = (BridgeState::Idle, 0, None);
            }
            Some(Request::Gripper { .. }) if self.random.random_bool(0.8) => {
                let done = [
                    GripperPhase::Opening,
                    GripperPhase::Closing,
                    GripperPhase::Open,
                    GripperPhase::Open,
                    GripperPhase::Holding,
                    GripperPhase::TimedOut,
                ];
                self.arm.gripper = *done.choose(&mut self.random).unwrap_or(&GripperPhase::Open);
            }
            _ => {}
        }
        if let Some(request) = &outcome.infer {
            self.answer(request);
        }
    }

    /// The policy's answer: mostly in time, mostly sound.
    fn answer(&mut self, request: &InferRequest) {
        let period_s = self.spec.period_s;
        let Self { random: r, policy, report, now, .. } = self;
        let after_s = match r.random_range(0..100) {
            0..85 => r.random_range(0.0..0.5 * period_s),
            85..97 => {
                report.late_chunks += 1;
                r.random_range(0.5 * period_s..6.0 * period_s)
            }
            97..99 => {
                report.late_chunks += 1;
                0.7
            }
            _ => return,
        };
        let at = *now + Duration::from_secs_f64(after_s);
        let width = self.spec.action_dim();
        let mut values = Vec::with_capacity(HORIZON * width);
        if r.random_bool(0.3) {
            policy.heading =
                Vector3::new(r.random_range(-1.0..1.0), r.random_range(-1.0..1.0), r.random_range(-1.0..1.0));
        }
        let mut pose: Pose = *self.controller.commanded_pose();
        for _ in 0..HORIZON {
            let step = policy.heading * policy.step_m;
            if width == 2 {
                values.extend([step.x as f32, step.y as f32]);
                continue;
            }
            pose.translation.vector += step;
            values.extend(pose.translation.vector.iter().map(|&v| v as f32));
            values.extend(rotation_to_6d(&pose.rotation).map(|v| (v + r.random_range(-0.02..0.02)) as f32));
            values.push(if r.random_bool(0.02) { 1.0 } else { -1.0 });
        }
        if r.random_bool(0.02) {
            report.not_finite += 1;
            let which = r.random_range(0..values.len());
            values[which] = *BAD.choose(r).unwrap_or(&f32::NAN);
        }
        let (id, width) = match r.random_range(0..200) {
            0 => (request.id.wrapping_add(1), width),
            1 => (request.id.wrapping_sub(1), width),
            2 => (request.id, 1),
            _ => (request.id, width),
        };
        let Some(chunk) = ActionChunk::new(id, width, &values) else { return };
        report.chunks += 1;
        policy.coming.push((at, chunk));
        if r.random_bool(0.1) {
            report.doubled_chunks += 1;
            policy.coming.push((at + Duration::from_secs_f64(r.random_range(0.0..10.0 * period_s)), chunk));
        }
    }

    fn judge(&mut self, outcome: &Outcome, dt_s: f64) {
        let Self { watch, report, controller, settings, .. } = self;
        if let Some(Event::Faulted(cause)) = outcome.event {
            let debug = format!("{cause:?}");
            let name = debug.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
            *report.faults.entry(name).or_default() += 1;
        }
        let phase = controller.phase();
        report.running += u64::from(matches!(phase, Phase::Running | Phase::Moving));
        let leased = controller.session() != 0;
        match (&outcome.target, &watch.before) {
            // A new beginning, from rest. Where what was commanded stays in force, a stop under way included, nothing begins anew.
            (Some(now), before)
                if outcome.event == Some(Event::Armed)
                    && before.is_none_or(|before| rests(&before) && before != *now) =>
            {
                if !rests(now) {
                    report.violate(|| "armed, and already moving".to_owned());
                }
                watch.judge = Some(Judge::new(settings.arm, settings.safety, now.map(|m| m.position_rad)));
            }
            (Some(now), Some(before)) => match &watch.judge {
                Some(judge) => judge.motion(report, before, now, dt_s),
                None => report.violate(|| "a command without arming".to_owned()),
            },
            (Some(_), None) => report.violate(|| "a command without arming".to_owned()),
            // Who has lost the lease to another commands nothing any more.
            (None, Some(before)) if !rests(before) && (leased || outcome.event == Some(Event::Disarmed)) => {
                report.violate(|| {
                    format!("controller: an arm that moves is left without a command ({phase:?}, leased: {leased})")
                });
            }
            (None, _) => {}
        }
        watch.before = outcome.target.or(watch.before.filter(|_| leased));
        // Who stops is at rest in time.
        match (&watch.before, phase) {
            (Some(now), Phase::Stopping | Phase::Fault(_) | Phase::Arming) if !rests(now) => {
                let period_s = self.period.as_secs_f64();
                // What was made up for in the tick that decided to stop was still the motion.
                watch.stopping_s += if watch.stopping_s == 0.0 { dt_s.min(period_s) } else { dt_s };
                if watch.stopping_s > settings.safety.longest_stop_s() + ROUNDING_PERIODS * period_s {
                    report.violate(|| format!("{:.3} s, and not at rest", watch.stopping_s));
                    watch.stopping_s = 0.0;
                }
            }
            _ => {
                if watch.stopping_s > 0.0 {
                    report.stops += 1;
                    report.longest_stop_s = report.longest_stop_s.max(watch.stopping_s);
                }
                watch.stopping_s = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::limits::tests::config;

    /// The judge of the controller is not blind either.
    #[test]
    fn a_controller_with_wider_limits_is_found_out() {
        let judged = |widen: &dyn Fn(&mut tenon_core::safety::SafetyLimits)| {
            let mut report = Report::default();
            for episode in 0..8 {
                report.add(Trial::new(&config(), 3, episode).with_limits(widen).run(10_000));
            }
            report
        };
        let kept = judged(&|_| {});
        assert_eq!(kept.violated, 0, "{}", kept.text());
        let faster = judged(&|limits| limits.max_joint_velocity_rad_s = 2.0);
        assert!(faster.violations.iter().any(|text| text.contains("velocity")), "{}", faster.text());
        let wider = judged(&|limits| limits.workspace.max_m = [0.95, 0.9, 0.9]);
        assert!(wider.violations.iter().any(|text| text.contains("outside the box")), "{}", wider.text());
    }
}
