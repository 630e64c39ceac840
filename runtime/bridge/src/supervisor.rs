//! The command task: decides, and is the only one that changes anything on the server.
//!
//! ```text
//!              Arm, robot alive, SetController ok
//!   Unarmed ───────────────────────────────────────► Armed { session, ours }
//!      ▲ ▲                                             │ │
//!      │ └──────────── Release: TerminateController ───┘ │ server gone or restarted, robot gone, controller
//!      │                                                 │ dropped or replaced, target or update refused,
//!      │ Release                                         ▼ commander silent
//!      └──────────────────────────────────────────── Fault { cause }   ── Arm ──► Armed
//! ```
//!
//! A fault ends the lease. Where our controller may still run (the server was only out of reach, or refused an
//! update), it is terminated as soon as the robot is seen alive, so that the default controller holds the arm. But not before the arm
//! rests by the plan that it has: the default controller would hold a moving arm at once, with a blow and on soft springs.

mod arming;

use std::time::Duration;

use tenon_core::message::{BridgeFault, BridgeState, GripperCommand, JointTarget, Request};
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_link::BridgeInbox;
use tenon_polymetis::client::{ClientError, ControllerClient};
use tenon_polymetis::status::ServerError;
use tenon_polymetis::waypoints::{Refusal, StepClock, WaypointSettings};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::clock::monotonic_time;
use crate::config::BridgeOptions;
use crate::gate::TargetGate;
use crate::gripper::GripperOrders;
use crate::lease::{Claim, Lease};
use crate::playout::{Playout, seconds};
use crate::robot::robot_state;
use crate::sources::{Health, Probe, Standing};
use crate::statistics::{Answered, Statistics, micros};
use crate::watch::judge_episode;
use crate::watchdog::Watchdog;

/// The task runs at least this often.
const TICK: Duration = Duration::from_millis(10);
/// A round later than this says more about this machine than about the commander: silence is judged in the next one.
const LATE_ROUND: Duration = Duration::from_millis(50);
/// An arm that could not join its plans for so long was left behind for good: a fault.
const LONGEST_APART: Duration = Duration::from_millis(250);
/// An arm that is slower does not notice another law, rad/s.
const SLOW_RAD_S: f64 = 0.05;
/// An arm that is faster for longer is moved by something else than the springs of our law.
const LONGEST_SWING: Duration = Duration::from_secs(1);

/// What is commanded.
enum Mode {
    Unarmed,
    Armed {
        /// Log index of our controller's first step: its only identity.
        ours: i32,
        /// When SetController was called: what was asked before says nothing about it.
        since: MonotonicTime,
        /// Losses and restarts of the server counted when it was armed.
        losses: u64,
        restarts: u64,
        gate: Box<TargetGate>,
        stream: Box<Stream>,
    },
    /// `session` held the lease until then.
    Fault {
        cause: BridgeFault,
        session: u64,
    },
}

/// What the uploaded controller is sent.
enum Stream {
    /// Polymetis' own law: the newest target.
    Targets,
    /// Tenon's law: the way from now to rest.
    Plans {
        playout: Playout,
        steps: StepClock,
        settings: WaypointSettings,
        /// Since when the law could not join what it was sent; it brakes meanwhile.
        apart_since: Option<MonotonicTime>,
    },
}

/// Owner of the controller on the server.
pub struct Supervisor {
    client: ControllerClient,
    options: BridgeOptions,
    inbox: BridgeInbox,
    health: watch::Receiver<Health>,
    probe: watch::Receiver<Option<Probe>>,
    standing: watch::Sender<Standing>,
    /// None where there is no gripper.
    gripper: Option<GripperOrders>,
    statistics: Statistics,
    lease: Lease,
    mode: Mode,
    /// First step of a controller of ours that may still run though we gave it up.
    orphan: Option<i32>,
    /// When the arm rests by the plan that the server has.
    rests_at: MonotonicTime,
    acknowledged: u64,
    update_us: u32,
    messages_refused: u64,
    watchdog: Watchdog,
    round: MonotonicTime,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Supervisor").field("standing", &*self.standing.borrow()).finish_non_exhaustive()
    }
}

impl Supervisor {
    pub(crate) fn new(
        client: ControllerClient,
        options: &BridgeOptions,
        inbox: BridgeInbox,
        health: watch::Receiver<Health>,
        probe: watch::Receiver<Option<Probe>>,
        standing: watch::Sender<Standing>,
        gripper: Option<GripperOrders>,
        statistics: Statistics,
    ) -> Self {
        Self {
            client,
            options: options.clone(),
            inbox,
            health,
            probe,
            standing,
            gripper,
            statistics,
            lease: Lease::new(options.heartbeat_timeout),
            mode: Mode::Unarmed,
            orphan: None,
            rests_at: monotonic_time(),
            acknowledged: 0,
            update_us: 0,
            messages_refused: 0,
            watchdog: Watchdog::from_environment(),
            round: monotonic_time(),
        }
    }

    /// Runs until `stop`; an armed robot is then handed to the default controller.
    pub(crate) async fn run(mut self, wake: &Notify, stop: &Notify) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = stop.notified() => break,
                _ = wake.notified() => {}
                _ = ticks.tick() => {}
            }
            self.round().await;
        }
        if matches!(self.mode, Mode::Armed { .. }) {
            tracing::info!("stopping: the default controller takes the arm");
            self.await_rest().await;
            self.release().await;
        } else if self.orphan.is_some() {
            self.await_rest().await;
            self.hold_orphan().await;
        }
        self.publish();
    }

    async fn round(&mut self) {
        let now = monotonic_time();
        let on_time = now.since(self.round) < LATE_ROUND;
        self.round = now;
        self.watchdog.progress(now);
        while let Some(request) = self.inbox.next_request() {
            self.obey(request).await;
        }
        self.inbox.follow(self.lease.session());
        let newest = self.inbox.latest_target();
        if let Some(target) = &newest {
            self.lease.hear(target.value.session, target.time);
        }
        self.count_messages();
        if let Some(cause) = self.trouble(on_time) {
            self.fault(cause).await;
        } else if let Some(target) = newest {
            self.follow(&target).await;
        }
        self.hold_orphan().await;
        self.publish();
    }

    async fn obey(&mut self, request: Stamped<Request>) {
        match request.value {
            Request::Heartbeat { session } => {
                self.lease.hear(session, request.time);
            }
            Request::Arm { session } => match self.lease.claim(session, request.time) {
                Claim::Granted => self.arm(session).await,
                Claim::AlreadyHeld => {}
                Claim::HeldBy(holder) => {
                    self.statistics.count(|c| c.arm_refused += 1);
                    tracing::warn!("session {session:#x} asked for the arm, which session {holder:#x} commands");
                }
                Claim::NoSession => tracing::warn!("a request to arm without a session was ignored"),
            },
            Request::Gripper { session, command } => self.move_gripper(session, request.time, command),
            Request::Release { session } => match self.mode {
                Mode::Armed { .. } if self.lease.session() == session => {
                    tracing::info!("session {session:#x} releases the arm");
                    self.statistics.count(|c| c.released += 1);
                    self.release().await;
                }
                Mode::Fault { session: last, .. } if last == session => self.mode = Mode::Unarmed,
                _ => {}
            },
        }
    }

    /// Passes a command on, if it is the commander's and the arm is his.
    fn move_gripper(&mut self, session: u64, at: MonotonicTime, command: GripperCommand) {
        let commands = self.lease.hear(session, at) && matches!(self.mode, Mode::Armed { .. });
        match &self.gripper {
            // A slot: whether the hand has a motion to end first is its task's business.
            Some(orders) if commands => _ = orders.send_replace(Some(command)),
            _ => self.statistics.count(|c| c.gripper_ignored += 1),
        }
    }

    /// What has gone wrong since it was armed.
    fn trouble(&self, on_time: bool) -> Option<BridgeFault> {
        let Mode::Armed { ours, since, losses, restarts, .. } = &self.mode else { return None };
        let health = *self.health.borrow();
        if health.restarts != *restarts {
            return Some(BridgeFault::ServerRestarted);
        }
        if !health.server || health.losses != *losses {
            return Some(BridgeFault::ServerGone);
        }
        if let Some(probe) = *self.probe.borrow()
            && probe.asked > *since
            && let Some(cause) = judge_episode(*ours, probe.start, probe.end)
        {
            return Some(cause);
        }
        if !health.robot {
            return Some(BridgeFault::RobotGone);
        }
        (on_time && self.lease.is_silent(monotonic_time())).then_some(BridgeFault::HeartbeatLost)
    }

    async fn fault(&mut self, cause: BridgeFault) {
        let session = self.lease.session();
        tracing::error!("{cause}: the stream of session {session:#x} ends; the arm has to be armed again");
        self.statistics.count(|c| c.faults += 1);
        if let Mode::Armed { ours, .. } = self.mode {
            self.orphan = Some(ours);
        }
        self.lease.end();
        self.mode = Mode::Fault { cause, session };
        // Said before the calls that follow, which may take a second.
        self.publish();
    }

    /// Sends what the newest target means, if it is new and sound.
    async fn follow(&mut self, target: &Stamped<JointTarget>) {
        let Mode::Armed { gate, stream, .. } = &mut self.mode else { return };
        match gate.admit(&target.value, target.time) {
            None => return,
            Some(Ok(())) => {}
            Some(Err(refusal)) => return self.refuse(target, &refusal).await,
        }
        let mut sent = None;
        let result = match &mut **stream {
            Stream::Targets => {
                let joints = target.value.joint_positions_rad.map(|q| q as f32);
                let begin = monotonic_time();
                self.client.update_joint_targets(&joints).await.map(|_| begin)
            }
            Stream::Plans { playout, steps, settings, apart_since } => {
                let late_s = playout.push(&target.value, target.time);
                let Some(mut plan) = playout.plan(settings.session, steps, monotonic_time()) else { return };
                if plan.check(settings).is_err() {
                    // Targets were lost between two that are kept, and the curve through both is none that was commanded. From the
                    // newest on it is; the law joins that gently, or brakes.
                    playout.begin_anew();
                    let Some(anew) = playout.plan(settings.session, steps, monotonic_time()) else { return };
                    if let Err(error) = anew.check(settings) {
                        return self.refuse(target, &error).await;
                    }
                    plan = anew;
                }
                self.statistics.count(|c| c.targets_late += u64::from(late_s > 0.0));
                let begin = monotonic_time();
                // Also where the answer is lost: the server may have taken it.
                if let Some(rests_at_s) = playout.rests_at_s() {
                    let longest = self.options.longest_stop_s + LONGEST_APART.as_secs_f64();
                    let wait = Duration::from_secs_f64((rests_at_s - seconds(begin)).clamp(0.0, longest));
                    self.rests_at = self.rests_at.max(begin + wait);
                }
                let result = self.client.update_plan(&plan).await;
                match &result {
                    Ok(index) => {
                        steps.observe(seconds(begin), seconds(monotonic_time()), i64::from(*index));
                        *apart_since = None;
                    }
                    Err(error) if Refusal::in_text(&error.to_string()) == Some(Refusal::CannotJoin) => {
                        // Something stood still for longer than the lead, so the arm has begun to brake. A plan of the next
                        // targets may be joined; what is too far away never is.
                        self.statistics.count(|c| c.plans_apart += 1);
                        let since = *apart_since.get_or_insert(begin);
                        if begin.since(since) < LONGEST_APART {
                            return;
                        }
                    }
                    Err(_) => {}
                }
                sent = Some(plan);
                result.map(|_| begin)
            }
        };
        let end = monotonic_time();
        match result {
            Ok(begin) => {
                self.acknowledged = target.value.sequence;
                self.update_us = u32::try_from(micros(end.since(begin))).unwrap_or(u32::MAX);
                self.statistics.updated(end.since(begin), end.since(target.time));
                let (sequence, update) = (target.value.sequence, end.since(begin));
                self.statistics.tell(|| Answered { sequence, update, at: end, plan: sent });
            }
            Err(error) => {
                tracing::error!("{error}");
                self.statistics.count(|c| c.updates_failed += 1);
                let cause = match &error {
                    ClientError::Server { error: ServerError::NoControllerRunning, .. } => {
                        BridgeFault::ControllerDropped
                    }
                    ClientError::Server {
                        error: ServerError::Unavailable(_) | ServerError::DeadlineExceeded, ..
                    }
                    | ClientError::NoControllerSet => BridgeFault::ServerGone,
                    _ => BridgeFault::UpdateRefused,
                };
                self.fault(cause).await;
            }
        }
    }

    async fn refuse(&mut self, target: &Stamped<JointTarget>, why: &(dyn std::error::Error + Send + Sync)) {
        tracing::error!("target {} refused: {why}", target.value.sequence);
        self.statistics.count(|c| c.targets_refused += 1);
        self.fault(BridgeFault::UpdateRefused).await;
    }

    /// Hands the arm to the default controller and ends the lease.
    async fn release(&mut self) {
        if let Mode::Armed { ours, .. } = self.mode {
            self.orphan = Some(ours);
        }
        self.lease.end();
        self.mode = Mode::Unarmed;
        self.publish();
        self.hold_orphan().await;
    }

    /// Whether the arm rests: by its plan, and on the springs of our law, which swing a while longer.
    async fn rests(&mut self) -> bool {
        let now = monotonic_time();
        if now < self.rests_at || now >= self.rests_at + LONGEST_SWING {
            return now >= self.rests_at;
        }
        let state = self.client.robot_state().await.ok().and_then(|state| robot_state(&state, 0).ok());
        // Nothing is gained by waiting for a robot that does not say how it moves.
        state.is_none_or(|state| state.joint_velocities_rad_s.iter().all(|speed| speed.abs() < SLOW_RAD_S))
    }

    /// Waits until the arm rests: a lead, a stop and a swing at most.
    async fn await_rest(&mut self) {
        while !self.rests().await {
            self.watchdog.progress(monotonic_time());
            tokio::time::sleep(TICK).await;
        }
    }

    /// Terminates a controller of ours that may still run, once the arm rests. Not before the robot is seen alive:
    /// TerminateController would hang, and take the server's mutex with it.
    async fn hold_orphan(&mut self) {
        let Some(ours) = self.orphan else { return };
        let health = *self.health.borrow();
        if !health.server || !health.robot || !self.rests().await {
            return;
        }
        let alive = self.client.metadata().await.is_ok();
        self.watchdog.progress(monotonic_time());
        let Ok(interval) = self.client.episode_interval().await else { return };
        if interval.start != ours || interval.end != -1 {
            self.orphan = None;
            return;
        }
        if !alive {
            return;
        }
        match self.client.terminate().await {
            Ok(_) => tracing::info!("the default controller holds the arm"),
            // A second try at a server that hangs would only wait again.
            Err(error) => tracing::error!("{error}"),
        }
        self.watchdog.progress(monotonic_time());
        self.orphan = None;
    }

    /// Takes note of what the link refused; a peer of another version is worth a line.
    fn count_messages(&mut self) {
        let counters = self.inbox.counters();
        if counters.refused != self.messages_refused
            && let Some(refusal) = counters.last_refusal
        {
            tracing::warn!("message refused: {refusal} ({} so far)", counters.refused);
        }
        self.messages_refused = counters.refused;
        self.statistics.count(|c| (c.targets_ignored, c.messages_refused) = (counters.foreign, counters.refused));
    }

    fn publish(&self) {
        let health = *self.health.borrow();
        let (state, fault) = match &self.mode {
            Mode::Fault { cause, .. } => (BridgeState::Fault, *cause),
            Mode::Armed { .. } => (BridgeState::Running, BridgeFault::None),
            Mode::Unarmed if !health.server => (BridgeState::NoServer, BridgeFault::None),
            Mode::Unarmed if !health.robot => (BridgeState::NoRobot, BridgeFault::None),
            Mode::Unarmed => (BridgeState::Idle, BridgeFault::None),
        };
        let robot_hz = self.probe.borrow().map_or(0, |probe| probe.robot_hz);
        let (session, epoch) = (self.lease.session(), self.lease.epoch());
        let (acknowledged, update_us) = (self.acknowledged, self.update_us);
        let now = Standing { state, fault, session, epoch, acknowledged, update_us, robot_hz };
        self.standing.send_if_modified(|standing| {
            let urgent = (standing.state, standing.fault, standing.session) != (state, fault, session);
            *standing = now;
            urgent
        });
    }
}
