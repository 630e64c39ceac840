//! The state machine with a manual clock and a perfect arm: what ends where, and that nothing bad is ever commanded.

use std::time::Duration;

use tenon_controller::machine::{
    Controller, Event, FaultCause, Inputs, Order, Outcome, Phase, Settings, SettingsError,
};
use tenon_controller::motion::Motion;
use tenon_core::action::ActionChunk;
use tenon_core::arm::{Arm, Joints, RobotModel, tool_along_flange_z};
use tenon_core::avoid;
use tenon_core::config::{TaskConfig, Values};
use tenon_core::fusion::{FrozenPart, Furniture, FusionConfig, GripperEvent, PartBoard, T_robot_april_training};
use tenon_core::gripper::ToggleSettings;
use tenon_core::ik::Damping;
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperCommand, GripperPhase, Request, RobotState};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::safety::{CollisionLimits, Refusal, SafetyLimits, WorkspaceBox};
use tenon_core::spec::{ActionField, ObservationField, PolicySpec};
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};
use tenon_core::timeline::{Anchor, HandOver};

/// The shipped Avoid task, its observation `delay` periods old.
fn spec(delay: usize) -> PolicySpec {
    let task = TaskConfig::parse("avoid_m1.toml", include_str!("../../../configs/tasks/avoid_m1.toml"), Values::Latest)
        .expect("the shipped file");
    let normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 2));
    PolicySpec { observation_delay_steps: delay, ..task.policy_spec(normalizer, task.policy.finetuned_steps()) }
}

/// What the rig of these tests allows.
fn settings() -> Settings {
    Settings {
        arm: Arm::new(tool_along_flange_z(0.105, -std::f64::consts::FRAC_PI_4)),
        damping: Damping::None,
        safety: SafetyLimits {
            joints: RobotModel::Fer.limits(),
            joint_reserve_rad: 0.05,
            max_joint_velocity_rad_s: 1.5,
            acceleration_fraction: 0.8,
            jerk_fraction: 0.2,
            abort_tcp_step_m: 0.11,
            workspace: WorkspaceBox { min_m: [0.15, -0.4, 0.05], max_m: [0.85, 0.6, 0.6] },
            collision: CollisionLimits { clearance_m: 0.01, table_z_m: 0.0 },
        },
        targets_per_action: 5,
        hand_over: HandOver::Sequential,
        anchor: Anchor::Reanchor,
        lead_s: 0.0,
        max_tcp_step_m: 0.05,
        max_tcp_turn_rad: 0.44,
        posture_rate_hz: 0.0,
        gripper: None,
        lag_compensation_s: [0.0; 7],
        max_state_age: Duration::from_millis(100),
        max_late_ticks: 5,
        max_missing: Duration::from_secs(1),
    }
}

/// A controller, an arm that is wherever it was commanded last, a bridge that always agrees, and a policy that moves
/// along +y by 5 mm an action.
struct Bench {
    controller: Controller,
    now: MonotonicTime,
    q: Joints,
    gripper: GripperPhase,
    state_age: Duration,
    bridge: BridgeStatus,
    chunk: Option<ActionChunk>,
    parts: Option<PartBoard>,
    /// Answers requests for chunks; `None` leaves the controller waiting.
    policy: Option<fn(u64) -> Vec<f32>>,
    action_dim: usize,
    requests: Vec<(u64, Vec<f32>)>,
    largest_step_rad: f64,
}

fn forward(_: u64) -> Vec<f32> {
    [0.0, 0.005].repeat(4)
}

impl Bench {
    fn new(delay: usize) -> Self {
        Self::of(spec(delay))
    }

    fn of(spec: PolicySpec) -> Self {
        Self {
            controller: Controller::new(settings(), &spec).expect("the policy fits"),
            parts: None,
            now: MonotonicTime::from_nanos(1_000_000_000),
            q: avoid::START_JOINTS_RAD,
            gripper: GripperPhase::Absent,
            state_age: Duration::ZERO,
            bridge: BridgeStatus {
                sequence: 1,
                state: BridgeState::Idle,
                fault: BridgeFault::None,
                session: 0,
                epoch: 1,
                acknowledged: 0,
                update_us: 0,
                robot_hz: 1000,
            },
            chunk: None,
            policy: Some(forward),
            action_dim: 2,
            requests: Vec::new(),
            largest_step_rad: 0.0,
        }
    }

    fn tick(&mut self, order: Option<Order>) -> Outcome {
        self.tick_late(order, 0)
    }

    fn tick_late(&mut self, order: Option<Order>, late_ticks: usize) -> Outcome {
        self.now = self.now + self.controller.tick_period();
        let time = MonotonicTime::from_nanos(self.now.as_nanos() - self.state_age.as_nanos() as i64);
        let state = RobotState {
            sequence: 1,
            robot_time: RobotTime::from_nanos(0),
            joint_positions_rad: self.q,
            joint_velocities_rad_s: [0.0; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: self.gripper,
            error_code: 0,
        };
        let now = self.now;
        let view = self.parts.as_mut().map(|board| board.view(now, None));
        let inputs = Inputs {
            due: self.now,
            state: Some(Stamped { time, value: state }),
            status: Some(Stamped { time: self.now, value: self.bridge }),
            chunk: self.chunk.as_ref(),
            parts: view.as_ref(),
            order,
            late_ticks,
        };
        let outcome = self.controller.tick(self.now, &inputs);
        if let Some(Request::Arm { session }) = outcome.request {
            self.bridge.state = BridgeState::Running;
            self.bridge.session = session;
        }
        if let Some(motion) = outcome.target {
            let target = motion.map(|m| m.position_rad);
            for i in 0..7 {
                assert!(target[i].is_finite());
                self.largest_step_rad = self.largest_step_rad.max((target[i] - self.q[i]).abs());
            }
            self.q = target;
        }
        if let Some(request) = outcome.infer {
            self.requests.push((request.id, request.observation[..request.len].to_vec()));
            if let Some(policy) = self.policy {
                self.chunk = ActionChunk::new(request.id, self.action_dim, &policy(request.id));
            }
        }
        outcome
    }

    /// Ticks until the event or panics after `limit` ticks.
    fn until(&mut self, limit: usize, wanted: impl Fn(Event) -> bool) -> usize {
        for i in 0..limit {
            if self.tick(None).event.is_some_and(&wanted) {
                return i + 1;
            }
        }
        panic!("not within {limit} ticks; the controller is {:?}", self.controller.phase());
    }

    fn armed(delay: usize) -> Self {
        Self::new(delay).arm()
    }

    fn arm(self) -> Self {
        let mut bench = self;
        bench.tick(Some(Order::Arm { session: 9 }));
        bench.until(5, |e| matches!(e, Event::Armed));
        bench
    }

    fn tcp(&self) -> [f64; 3] {
        let p = self.controller.commanded_pose().translation.vector;
        [p.x, p.y, p.z]
    }
}

#[test]
fn a_disarmed_controller_commands_nothing() {
    let mut bench = Bench::new(1);
    for _ in 0..50 {
        let outcome = bench.tick(None);
        assert!(outcome.target.is_none() && outcome.request.is_none());
    }
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn a_run_executes_its_actions_at_the_policys_period() {
    let mut bench = Bench::armed(1);
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 12 }));
    bench.until(3, |e| matches!(e, Event::RunStarted));
    let ticks = bench.until(200, |e| matches!(e, Event::RunEnded { actions: 12 }));
    // From where the way begins to where the arm has reached its end: 12 · 5.
    assert_eq!(ticks, 60);
    assert!((bench.tcp()[1] - y - 12.0 * 0.005).abs() < 1e-4, "{:?}", bench.tcp());
    assert_eq!(bench.controller.phase(), Phase::Stopping, "a run ends in a stop");
    // One request a chunk: at the start, and in the last period of each chunk but the last.
    assert_eq!(bench.requests.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn the_observation_of_a_chunk_is_one_period_old() {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 8 }));
    let y0 = bench.requests[0].1[1];
    bench.until(200, |e| matches!(e, Event::RunEnded { .. }));
    // Taken before the fourth action: three increments of 5 mm are commanded by then.
    assert!((bench.requests[1].1[1] - y0 - 0.015).abs() < 1e-5, "{:?}", bench.requests);
}

#[test]
fn without_a_delay_the_arm_holds_for_the_policy() {
    let mut bench = Bench::armed(0);
    bench.tick(Some(Order::Run { actions: 8 }));
    bench.until(100, |e| matches!(e, Event::RunEnded { actions: 8 }));
    let y0 = bench.requests[0].1[1];
    assert!((bench.requests[1].1[1] - y0 - 0.020).abs() < 1e-5, "all four actions are done: {:?}", bench.requests);
}

/// Along +y by 5 mm an action, from where the arm is, whatever its request was.
fn long(_: u64) -> Vec<f32> {
    [0.0, 0.005].repeat(16)
}

/// The Avoid policy with a horizon of 16, of which 4 are executed.
fn long_spec() -> PolicySpec {
    PolicySpec { prediction_horizon: 16, ..spec(1) }
}

fn handing_over(hand_over: HandOver, lead_s: f64) -> Bench {
    let settings = Settings { hand_over, lead_s, ..settings() };
    let mut bench = Bench::of(long_spec());
    bench.controller = Controller::new(settings, &long_spec()).unwrap();
    bench.policy = Some(long);
    bench.arm()
}

#[test]
fn every_mode_goes_on_evenly_from_chunk_to_chunk_and_ends_after_its_actions() {
    let modes = [
        HandOver::Sequential,
        HandOver::Blend { executed: 4, periods: 3 },
        HandOver::Ensemble { executed: 1, decay: 0.1 },
        HandOver::Inpaint { executed: 4 },
    ];
    for mode in modes {
        for lead_s in [0.0, 0.02] {
            let mut bench = handing_over(mode, lead_s);
            let y = bench.tcp()[1];
            bench.tick(Some(Order::Run { actions: 24 }));
            bench.until(3, |e| matches!(e, Event::RunStarted));
            let mut slowest = f64::INFINITY;
            let (mut ticks, mut last) = (0, bench.q);
            loop {
                let outcome = bench.tick(None);
                ticks += 1;
                assert!(
                    !matches!(outcome.event, Some(Event::ChunkLate { .. } | Event::Faulted(_))),
                    "{mode:?} {lead_s}"
                );
                if matches!(outcome.event, Some(Event::RunEnded { actions: 24 })) {
                    break;
                }
                let step: f64 = (0..7).map(|i| (bench.q[i] - last[i]).powi(2)).sum::<f64>().sqrt();
                if (20..100).contains(&ticks) {
                    slowest = slowest.min(step);
                }
                last = bench.q;
            }
            // The lead is on the way to the first action; then 24 · 5 ticks.
            assert!((120..=123).contains(&ticks), "{mode:?} {lead_s}: {ticks}");
            assert!((bench.tcp()[1] - y - 24.0 * 0.005).abs() < 1e-3, "{mode:?} {lead_s}: {:?}", bench.tcp());
            // 5 mm in 35 ms are 0.14 m/s; a joint or two of a metre's reach turn by 1.4 mrad in a tick. It never falters.
            assert!(slowest > 5e-4, "{mode:?} {lead_s}: {slowest}");
        }
    }
}

#[test]
fn the_next_chunk_is_asked_for_while_this_one_is_executed_and_guided_by_it() {
    let mut bench = handing_over(HandOver::Inpaint { executed: 4 }, 0.0);
    let mut guides = Vec::new();
    let mut order = Some(Order::Run { actions: 24 });
    for _ in 0..120 {
        if let Some(request) = bench.tick(order.take()).infer {
            guides.push((request.id, request.guide.frozen, request.guide.overlap, request.budget_s));
        }
    }
    // Observed at 0, 4, 8, …; the chunk of 4 begins with action 6 (a period's delay and one), the one before has said 6 to 16.
    assert_eq!(guides[0].2, 0);
    let (id, frozen, overlap, budget_s) = guides[1];
    assert_eq!((id, overlap), (1, 11));
    // At 4 the arm moves to 5; when the chunk comes, it moves to 6 at the latest.
    assert_eq!(frozen, 1);
    assert!((budget_s - 12.0 * 0.035).abs() < 1e-4, "{budget_s}");
    assert!(guides.len() >= 5, "{guides:?}");
}

#[test]
fn a_horizon_that_is_too_short_for_a_mode_is_named() {
    let settings = Settings { hand_over: HandOver::Inpaint { executed: 4 }, ..settings() };
    let error = Controller::new(settings, &spec(1)).unwrap_err().to_string();
    assert!(error.contains("needs a prediction horizon of 5, the policy has 4"), "{error}");
    // A lead of two periods takes two more.
    let settings = Settings { hand_over: HandOver::Inpaint { executed: 14 }, lead_s: 0.08, ..settings };
    let error = Controller::new(settings, &long_spec()).unwrap_err().to_string();
    assert!(error.contains("horizon of 17, the policy has 16"), "{error}");
}

#[test]
fn a_late_chunk_moves_the_schedule_and_is_not_made_up_for() {
    let ended = |anchor| {
        let mut bench = Bench::of(spec(1));
        bench.controller = Controller::new(Settings { anchor, ..settings() }, &spec(1)).unwrap();
        let mut bench = bench.arm();
        bench.tick(Some(Order::Run { actions: 20 }));
        bench.until(3, |e| matches!(e, Event::RunStarted));
        // The second chunk takes 30 ticks longer than there are.
        bench.policy = None;
        let late = bench.until(40, |e| matches!(e, Event::ChunkLate { chunk: 1 }));
        for _ in 0..30 {
            bench.tick(None);
        }
        bench.policy = Some(forward);
        bench.chunk = ActionChunk::new(1, 2, &forward(1));
        late + 30 + bench.until(200, |e| matches!(e, Event::RunEnded { actions: 20 }))
    };
    let (anew, burst) = (ended(Anchor::Reanchor), ended(Anchor::CatchUp));
    assert!((130..=132).contains(&anew), "20 · 5 and what the chunk was late: {anew}");
    assert!(burst < 112, "the authors make up for it: {burst}");
}

#[test]
fn an_action_beyond_the_caps_is_shortened_and_counted() {
    fn far(_: u64) -> Vec<f32> {
        vec![0.0, 0.08, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    let mut bench = Bench::armed(1);
    bench.policy = Some(far);
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 4 }));
    bench.until(200, |e| matches!(e, Event::RunEnded { .. }));
    assert!((bench.tcp()[1] - y - 0.05).abs() < 1e-4, "{:?}", bench.tcp());
    assert_eq!(bench.controller.counts().shortened, 1);
}

#[test]
fn a_missing_chunk_holds_the_position_and_then_faults() {
    let mut bench = Bench::armed(1);
    bench.policy = None;
    bench.tick(Some(Order::Run { actions: 8 }));
    let q = bench.q;
    let ticks = bench.until(200, |e| matches!(e, Event::Faulted(FaultCause::NoChunk(_))));
    assert!((60..90).contains(&ticks), "{ticks}");
    assert_eq!(bench.q, q);
}

#[test]
fn a_stale_chunk_is_never_executed() {
    let mut bench = Bench::armed(1);
    bench.policy = None;
    bench.chunk = ActionChunk::new(77, 2, &forward(77));
    let q = bench.q;
    bench.tick(Some(Order::Run { actions: 8 }));
    for _ in 0..20 {
        bench.tick(None);
    }
    assert_eq!(bench.q, q);
}

#[test]
fn a_nan_action_and_a_jump_fault_before_anything_of_them_is_commanded() {
    fn nan(_: u64) -> Vec<f32> {
        vec![0.0, 0.005, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    fn jump(_: u64) -> Vec<f32> {
        vec![0.0, 0.005, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    for policy in [nan as fn(u64) -> Vec<f32>, jump] {
        let mut bench = Bench::armed(1);
        bench.policy = Some(policy);
        let y = bench.tcp()[1];
        bench.tick(Some(Order::Run { actions: 8 }));
        bench.until(50, |e| matches!(e, Event::Faulted(_)));
        let Phase::Fault(cause) = bench.controller.phase() else { panic!("no fault") };
        assert!(
            matches!(
                cause,
                FaultCause::BadAction { step: 1, .. }
                    | FaultCause::Refused { step: 1, refusal: Refusal::Jump { .. }, .. }
            ),
            "{cause}"
        );
        assert!((bench.tcp()[1] - y).abs() < 1e-6, "nothing of a chunk is done that has a bad action in it");
        // The stop takes at most as long as from full speed.
        let held = bench.q;
        let mut stop_ticks = 0;
        while bench.tick(None).target.is_some() {
            stop_ticks += 1;
            assert!(stop_ticks <= 50, "0.35 s of 7 ms");
        }
        assert!(bench.q.iter().zip(held).all(|(a, b)| (a - b).abs() < 0.03), "{:?} {held:?}", bench.q);
        let held = bench.q;
        for _ in 0..20 {
            let outcome = bench.tick(None);
            assert!(outcome.target.is_none());
            // It keeps the lease, so that nobody else takes the arm while a person looks at the fault.
            assert!(matches!(outcome.request, Some(Request::Heartbeat { session: 9 })));
        }
        assert_eq!(bench.q, held);
    }
}

#[test]
fn a_fault_is_left_only_by_an_order() {
    let mut bench = Bench::armed(1);
    bench.bridge.state = BridgeState::Fault;
    bench.bridge.fault = BridgeFault::ControllerDropped;
    bench.tick(None);
    bench.bridge.state = BridgeState::Running;
    bench.bridge.fault = BridgeFault::None;
    for _ in 0..300 {
        bench.tick(None);
    }
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Bridge(BridgeFault::ControllerDropped)));
    assert_eq!(bench.tick(Some(Order::Run { actions: 4 })).event, Some(Event::OrderIgnored));
    // Re-armed under the lease that it never gave back, from what is still commanded, wherever the arm has sagged to.
    let commanded = bench.controller.safety().commanded_rad();
    bench.q[1] += 0.2;
    let outcome = bench.tick(Some(Order::Arm { session: 10 }));
    let held = outcome.target.map(|motion| motion.map(|m| m.position_rad));
    assert_eq!((outcome.event, held), (Some(Event::Armed), Some(commanded)));
    assert_eq!(bench.controller.session(), 9);
}

#[test]
fn old_states_late_ticks_and_a_foreign_lease_are_faults() {
    let mut bench = Bench::armed(1);
    bench.state_age = Duration::from_millis(150);
    bench.tick(None);
    assert!(matches!(bench.controller.phase(), Phase::Fault(FaultCause::StaleState { age_ms: 150, limit_ms: 100 })));

    let mut bench = Bench::armed(1);
    bench.tick_late(None, 5);
    assert_eq!(bench.controller.phase(), Phase::Holding);
    bench.tick_late(None, 6);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Late(6)));

    let mut bench = Bench::armed(1);
    bench.bridge.session = 5;
    bench.tick(None);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::LeasedToAnother(5)));
}

#[test]
fn arming_an_arm_that_another_run_holds_names_the_holder() {
    let mut bench = Bench::new(1);
    bench.controller.tick(
        bench.now,
        &Inputs {
            due: bench.now,
            state: None,
            status: None,
            chunk: None,
            parts: None,
            order: Some(Order::Arm { session: 9 }),
            late_ticks: 0,
        },
    );
    bench.bridge.state = BridgeState::Running;
    bench.bridge.session = 0xABCD;
    bench.tick(None);
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::LeasedToAnother(0xABCD)));
    assert!(bench.tick(None).request.is_none(), "it is not our lease to keep alive");
}

#[test]
fn a_motion_ends_where_it_was_sent_and_keeps_the_speed_limit() {
    let mut bench = Bench::armed(1);
    let mut goal = *bench.controller.commanded_pose();
    goal.translation.vector.z += 0.1;
    goal.translation.vector.y += 0.2;
    bench.tick(Some(Order::Move(Motion::waypoints(&[goal], 0.5).expect("one way-point"))));
    bench.until(2000, |e| matches!(e, Event::MotionEnded));
    let arm = Arm::new(tool_along_flange_z(0.105, -std::f64::consts::FRAC_PI_4));
    assert!((arm.tcp(&bench.q).translation.vector - goal.translation.vector).norm() < 1e-4);
    assert!(bench.largest_step_rad <= 1.5 * 0.007 + 1e-9, "{}", bench.largest_step_rad);
}

#[test]
fn hold_stops_a_run_and_disarm_gives_the_lease_back() {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 100 }));
    for _ in 0..30 {
        bench.tick(None);
    }
    bench.tick(Some(Order::Hold));
    assert_eq!(bench.controller.phase(), Phase::Stopping);
    for _ in 0..50 {
        assert!(bench.tick(None).target.is_some(), "the stop is sent, and then the held joints");
    }
    assert_eq!(bench.controller.phase(), Phase::Holding);
    let q = bench.q;
    for _ in 0..30 {
        bench.tick(None);
    }
    assert_eq!(bench.q, q);
    let outcome = bench.tick(Some(Order::Disarm));
    assert_eq!(outcome.request, Some(Request::Release { session: 9 }));
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn a_policy_that_only_a_simulation_can_feed_is_refused() {
    let mut spec = spec(1);
    spec.observation = vec![ObservationField::Task(4)];
    let refused = Controller::new(settings(), &spec).expect_err("nobody can observe this on a robot");
    assert!(refused.to_string().contains("only a simulation"), "{refused}");
}

/// Avoid's policy, but it also observes the lamp.
fn spec_with_parts() -> PolicySpec {
    let mut spec = spec(1);
    spec.observation.push(ObservationField::PartPoses(4));
    spec.normalizer.observation = Limits::symmetric(1.0, 4 + 28);
    spec
}

/// A board on which every part has a place that needs no camera, but those named.
fn board(missing: &[&str]) -> PartBoard {
    let furniture = Furniture::Lamp;
    let frozen = furniture.part_names().iter().filter(|name| !missing.contains(name)).map(|name| FrozenPart {
        part: (*name).to_owned(),
        position_m: [0.1, 0.2, -0.03],
        quat_xyzw: [0.0, 0.0, 0.0, 1.0],
    });
    let config = FusionConfig { frozen: frozen.collect(), ..FusionConfig::default() };
    let start = MonotonicTime::from_nanos(1_000_000_000);
    PartBoard::new(furniture, &config, &T_robot_april_training(), 1, start).expect("the lamp's parts")
}

#[test]
fn the_parts_stand_behind_the_arm_in_the_observation() {
    let mut bench = Bench::of(spec_with_parts()).arm();
    bench.parts = Some(board(&[]));
    bench.tick(Some(Order::Run { actions: 8 }));
    let observation = &bench.requests[0].1;
    assert_eq!(observation.len(), 32);
    for part in observation[4..].chunks(7) {
        assert_eq!(part, [0.1, 0.2, -0.03, 0.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn a_run_does_not_begin_without_a_part_and_the_arm_stays_armed() {
    let mut bench = Bench::of(spec_with_parts()).arm();
    bench.parts = Some(board(&["lamp_bulb"]));
    let q = bench.q;
    let event = bench.tick(Some(Order::Run { actions: 8 })).event;
    assert!(matches!(event, Some(Event::RunRefused(part)) if part.part == "lamp_bulb"), "{event:?}");
    assert_eq!((bench.controller.phase(), bench.q), (Phase::Holding, q));
    assert!(bench.requests.is_empty());
    // Without anybody who looks it is a fault.
    bench.parts = None;
    bench.tick(Some(Order::Run { actions: 8 }));
    assert!(matches!(bench.controller.phase(), Phase::Fault(FaultCause::PartsStale { .. })));
}

#[test]
fn a_part_that_goes_missing_is_awaited_and_then_named() {
    for comes_back in [true, false] {
        let mut bench = Bench::of(spec_with_parts()).arm();
        bench.parts = Some(board(&[]));
        bench.tick(Some(Order::Run { actions: 12 }));
        bench.until(3, |e| matches!(e, Event::RunStarted));
        bench.parts = Some(board(&["lamp_hood"]));
        bench.until(60, |e| matches!(e, Event::PartAwaited(part) if part.part == "lamp_hood"));
        // The chunk under way was finished first.
        let q = bench.q;
        for _ in 0..70 {
            bench.tick(None);
        }
        assert!(bench.q.iter().zip(q).all(|(a, b)| (a - b).abs() < 0.01), "the arm comes to rest");
        if comes_back {
            bench.parts = Some(board(&[]));
            bench.until(200, |e| matches!(e, Event::RunEnded { actions: 12 }));
        } else {
            // max_missing: one second of 7 ms.
            bench.until(80, |e| matches!(e, Event::Faulted(FaultCause::PartMissing(part)) if part.part == "lamp_hood"));
        }
    }
}

#[test]
fn a_policy_that_observes_the_gripper_needs_one() {
    let mut spec = spec(1);
    spec.observation.push(ObservationField::GripperWidth);
    spec.normalizer.observation = Limits::symmetric(1.0, 5);
    let mut bench = Bench::of(spec).arm();
    bench.tick(Some(Order::Run { actions: 8 }));
    assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::NoGripper));
}

#[test]
fn disarming_a_moving_arm_stops_it_first_also_after_a_fault() {
    for faulted in [false, true] {
        let mut bench = Bench::armed(1);
        bench.tick(Some(Order::Run { actions: 100 }));
        for _ in 0..30 {
            bench.tick(None);
        }
        if faulted {
            bench.tick_late(None, 6);
            assert_eq!(bench.controller.phase(), Phase::Fault(FaultCause::Late(6)));
        }
        let mut order = Some(Order::Disarm);
        let released = (0..60).find(|_| {
            let before = bench.q;
            let outcome = bench.tick(order.take());
            let released = outcome.request == Some(Request::Release { session: 9 });
            assert!(!released || before == bench.q, "it rests when it is given back");
            assert!(released || outcome.target.is_some(), "until then the stop is sent");
            released
        });
        assert!(released.is_some_and(|tick| tick > 3), "a moving arm does not stop at once: {released:?}");
        assert_eq!(bench.controller.phase(), Phase::Disarmed);
    }
}

/// The Avoid policy with a hand that it closes from its 13th action on.
fn with_a_hand() -> Bench {
    fn close_late(id: u64) -> Vec<f32> {
        (0..4).flat_map(|i| [0.0, 0.005, if id * 4 + i >= 12 { 1.0 } else { -1.0 }]).collect()
    }
    let spec = {
        let mut spec = spec(1);
        spec.action.push(ActionField::Gripper);
        spec.normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 3));
        spec
    };
    assert!(matches!(Controller::new(settings(), &spec), Err(SettingsError::NoGripper)));
    let mut bench = Bench::of(self::spec(1));
    bench.controller =
        Controller::new(Settings { gripper: Some(ToggleSettings::default()), ..settings() }, &spec).unwrap();
    bench.policy = Some(close_late);
    bench.action_dim = 3;
    bench.gripper = GripperPhase::Open;
    bench.arm()
}

#[test]
fn the_arm_stands_still_while_the_hand_closes_and_no_action_is_made_up_for() {
    let mut bench = with_a_hand();
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 20 }));
    let mut ticks = 0;
    let told = loop {
        let outcome = bench.tick(None);
        ticks += 1;
        if let Some(Request::Gripper { command, session: 9 }) = outcome.request {
            break command;
        }
        assert!(ticks < 100);
    };
    assert_eq!(told, GripperCommand::Close);
    // Action 13 begins when the arm is told 12: after 12 · 5 ticks.
    assert!((60..=62).contains(&ticks), "{ticks}");
    bench.gripper = GripperPhase::Closing;
    for _ in 0..40 {
        let outcome = bench.tick(None);
        assert!(outcome.event.is_none() && outcome.gripper.is_none());
    }
    assert!(bench.controller.safety().is_at_rest());
    let held = bench.q;
    for _ in 0..60 {
        bench.tick(None);
    }
    assert_eq!(bench.q, held);
    bench.gripper = GripperPhase::Holding;
    let outcome = bench.tick(None);
    assert!(matches!(outcome.gripper, Some(GripperEvent::Closed { .. })), "{outcome:?}");
    let left = bench.until(80, |e| matches!(e, Event::RunEnded { actions: 20 }));
    assert!((40..=42).contains(&left), "8 · 5 ticks are left: {left}");
    assert!((bench.tcp()[1] - y - 20.0 * 0.005).abs() < 1e-3, "{:?}", bench.tcp());
}

#[test]
fn a_hand_that_does_not_answer_or_is_not_done_is_a_fault_by_name() {
    let fault = |phase| {
        let mut bench = with_a_hand();
        bench.tick(Some(Order::Run { actions: 20 }));
        for _ in 0..100 {
            if let Some(Request::Gripper { .. }) = bench.tick(None).request {
                break;
            }
        }
        if phase == GripperPhase::TimedOut {
            bench.gripper = GripperPhase::Closing;
            bench.tick(None);
        }
        bench.gripper = phase;
        bench.until(300, |e| matches!(e, Event::Faulted(_)));
        let Phase::Fault(cause) = bench.controller.phase() else { panic!("no fault") };
        cause
    };
    assert_eq!(fault(GripperPhase::TimedOut), FaultCause::GripperTimedOut(GripperCommand::Close));
    assert_eq!(fault(GripperPhase::Absent), FaultCause::GripperAbsent);
    assert_eq!(fault(GripperPhase::Open), FaultCause::GripperUnheard(GripperCommand::Close));
}

#[test]
fn a_run_begins_with_an_open_hand() {
    let mut bench = with_a_hand();
    bench.gripper = GripperPhase::Holding;
    let outcome = bench.tick(Some(Order::Run { actions: 8 }));
    assert_eq!(outcome.request, Some(Request::Gripper { session: 9, command: GripperCommand::Open }));
    assert!(matches!(outcome.gripper, Some(GripperEvent::Opening)));
    bench.gripper = GripperPhase::Opening;
    for _ in 0..50 {
        assert_eq!(bench.tick(None).event, None, "nothing begins before the hand is open");
    }
    bench.gripper = GripperPhase::Open;
    bench.until(3, |e| matches!(e, Event::RunStarted));
    bench.until(60, |e| matches!(e, Event::RunEnded { .. }));
}
