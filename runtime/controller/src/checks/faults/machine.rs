//! What the operating system does not do to CLOCK_MONOTONIC, done to a controller with a clock of its own.
//!
//! The same [`Controller`] that runs in the service, the policy of the runs, an arm that is wherever it was commanded last.

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tenon_core::avoid;
use tenon_core::config::RobotConfig;
use tenon_core::message::RobotState;
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_policy::{Bundle, Engine, OnnxDenoiser};

use super::kinds::Kind;
use super::record::Watch;
use crate::inference::ChunkSampler;
use crate::machine::{Controller, Event, Inputs, Order, Outcome, Phase};
use crate::perfect_arm::PerfectArm;
use crate::run::settings;

const SESSION: u64 = 9;
/// Slower is at rest, rad/s.
const REST_RAD_S: f64 = 1e-6;
/// Ticks after the fault that are looked at: 3 s.
const LOOKED_AT: usize = 430;

/// What a run found.
#[derive(Debug, Clone)]
pub struct Found {
    pub speed_m_s: f64,
    pub speed_rad_s: f64,
    pub rest_s: Option<f64>,
    /// The controller's own word for it.
    pub fault: Option<String>,
    pub wrong: Vec<String>,
    pub rearmed: bool,
    pub detail: String,
}

struct Rig {
    config: RobotConfig,
    controller: Controller,
    sampler: ChunkSampler<OnnxDenoiser>,
    chunk: Option<tenon_core::action::ActionChunk>,
    now: MonotonicTime,
    /// The robot's state as it arrived last.
    state: Stamped<RobotState>,
    frozen: bool,
    arm: PerfectArm,
    /// What was commanded last.
    motion: [JointMotion; 7],
    watch: Watch,
    late_ticks: usize,
    wrong: Vec<String>,
    pending: Option<crate::machine::InferRequest>,
}

impl Rig {
    fn new(config: &RobotConfig, bundle: &Bundle, seed: u64) -> Result<Self> {
        let spec = bundle.spec().clone();
        let controller = Controller::new(settings(config), &spec).context("the policy on this controller")?;
        let sampler = ChunkSampler::new(spec, bundle.denoising(), bundle.denoiser(Engine::Tract)?, seed);
        let now = MonotonicTime::from_nanos(1_000_000_000_000);
        let mut arm = PerfectArm::at(avoid::START_JOINTS_RAD);
        let state = arm.state(now);
        Ok(Self {
            config: config.clone(),
            controller,
            sampler,
            chunk: None,
            now,
            state,
            frozen: false,
            motion: arm.joint_positions_rad.map(JointMotion::at_rest),
            arm,
            watch: Watch::new(config.safety_limits(), config.arm()),
            late_ticks: 0,
            wrong: Vec::new(),
            pending: None,
        })
    }

    fn tick(&mut self, order: Option<Order>) -> Result<Outcome> {
        self.now = self.now + self.controller.tick_period();
        if !self.frozen {
            self.state = self.arm.state(self.now);
        }
        // A chunk is there a tick after it was asked for.
        if let Some(request) = self.pending.take() {
            let steps = self.sampler.affordable_steps(&request);
            self.chunk = Some(self.sampler.sample(&request, steps).map_err(|error| anyhow::anyhow!("{error}"))?);
        }
        let inputs = Inputs {
            due: self.now,
            state: Some(self.state),
            status: Some(self.arm.status(self.now)),
            chunk: self.chunk.as_ref(),
            parts: None,
            order,
            late_ticks: std::mem::take(&mut self.late_ticks),
        };
        let outcome = self.controller.tick(self.now, &inputs);
        self.arm.follow(&outcome);
        self.pending = outcome.infer;
        if matches!(outcome.event, Some(Event::Armed)) {
            let measured_rad = self.state.value.joint_positions_rad;
            self.wrong.extend(self.watch.armed(Some(&measured_rad), outcome.target.as_ref()));
        }
        if let Some(motion) = outcome.target {
            let period_s = self.controller.tick_period().as_secs_f64();
            self.wrong.extend(self.watch.command(&motion, period_s));
            self.wrong.truncate(3);
            self.motion = motion;
        }
        Ok(outcome)
    }

    fn until(&mut self, what: &str, order: Option<Order>, wanted: impl Fn(&Event) -> bool) -> Result<()> {
        let mut order = order;
        for _ in 0..1000 {
            if self.tick(order.take())?.event.as_ref().is_some_and(&wanted) {
                return Ok(());
            }
        }
        bail!("{what}: the controller is {:?}", self.controller.phase());
    }

    fn speed_rad_s(&self) -> f64 {
        self.motion.iter().fold(0.0, |fastest: f64, joint| fastest.max(joint.velocity_rad_s.abs()))
    }

    fn speed_m_s(&self) -> f64 {
        let arm = self.config.arm();
        let at = |s: f64| {
            arm.tcp(&self.motion.map(|joint| joint.position_rad + s * joint.velocity_rad_s)).translation.vector
        };
        (at(1e-4) - at(-1e-4)).norm() / 2e-4
    }

    fn step_clock(&mut self, step_s: f64) {
        self.now = MonotonicTime::from_nanos(self.now.as_nanos() + (step_s * 1e9) as i64);
        // What the control loop counts when it wakes up behind its deadline.
        let late = step_s / self.controller.tick_period().as_secs_f64();
        self.late_ticks = if late > 0.0 { late as usize } else { 0 };
    }
}

/// Runs the policy until `moment_s`, does `kind`, and looks at what is commanded.
///
/// # Errors
/// The policy cannot run, or the arm cannot be armed before the fault.
pub fn run(kind: Kind, config: &RobotConfig, bundle: &Bundle, moment_s: f64, random: &mut ChaCha8Rng) -> Result<Found> {
    let mut rig = Rig::new(config, bundle, random.random())?;
    rig.until("arming", Some(Order::Arm { session: SESSION }), |event| matches!(event, Event::Armed))?;
    rig.until("the start", Some(Order::Run { actions: 100 }), |event| matches!(event, Event::RunStarted))?;
    let period_s = rig.controller.tick_period().as_secs_f64();
    for _ in 0..(moment_s / period_s) as usize {
        rig.tick(None)?;
    }
    if rig.controller.phase() != Phase::Running {
        bail!("the policy does not run until the fault: the controller is {:?}", rig.controller.phase());
    }
    let (speed_m_s, speed_rad_s) = (rig.speed_m_s(), rig.speed_rad_s());
    let step_s = 10f64.powf(random.random_range(-0.3..1.78));
    let detail = match kind {
        Kind::ClockForward | Kind::ClockBack => {
            let step_s = if kind == Kind::ClockForward { step_s } else { -step_s };
            rig.step_clock(step_s);
            format!("by {step_s:+.2} s")
        }
        Kind::StateFrozen => {
            rig.frozen = true;
            String::new()
        }
        _ => bail!("{} is done to processes", kind.name()),
    };
    let (mut rest_s, mut fault) = (None, None);
    for k in 0..LOOKED_AT {
        let outcome = rig.tick(None)?;
        if let Some(Event::Faulted(cause)) = outcome.event {
            fault = fault.or(Some(cause.to_string()));
        }
        // For good: a later motion takes it back.
        if rig.speed_rad_s() >= REST_RAD_S {
            rest_s = None;
        } else if rest_s.is_none() {
            rest_s = Some((k + 1) as f64 * period_s);
        }
    }
    let armed_by_itself = fault.is_some() && !matches!(rig.controller.phase(), Phase::Fault(_));
    rig.frozen = false;
    let mut wrong = std::mem::take(&mut rig.wrong);
    if armed_by_itself {
        wrong.push(format!("it has armed by itself: {:?}", rig.controller.phase()));
    }
    let rearmed = fault.is_none()
        || rig.until("arming again", Some(Order::Arm { session: SESSION + 1 }), |e| matches!(e, Event::Armed)).is_ok()
            && rig
                .until("starting again", Some(Order::Run { actions: 20 }), |e| matches!(e, Event::RunStarted))
                .is_ok()
            && rig.until("running again", None, |e| matches!(e, Event::RunEnded { .. })).is_ok();
    wrong.append(&mut rig.wrong);
    Ok(Found { speed_m_s, speed_rad_s, rest_s, fault, wrong, rearmed, detail })
}
