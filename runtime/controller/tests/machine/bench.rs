//! A controller on a perfect arm, with a manual clock.

pub use std::time::Duration;

pub use tenon_controller::machine::{
    Controller, Event, FaultCause, Inputs, Order, Outcome, Phase, Settings, SettingsError,
};
pub use tenon_controller::motion::Motion;
pub use tenon_controller::perfect_arm::PerfectArm;
pub use tenon_core::action::ActionChunk;
pub use tenon_core::arm::{Arm, RobotModel, tool_along_flange_z};
pub use tenon_core::avoid;
pub use tenon_core::config::{TaskConfig, Values};
pub use tenon_core::fusion::{FrozenPart, Furniture, FusionConfig, GripperEvent, PartBoard, T_robot_april_training};
pub use tenon_core::gripper::ToggleSettings;
pub use tenon_core::ik::Damping;
pub use tenon_core::message::{BridgeFault, BridgeState, GripperCommand, GripperPhase, Request};
pub use tenon_core::normalizer::{Limits, Normalizer};
pub use tenon_core::safety::{CollisionLimits, Refusal, SafetyLimits, WorkspaceBox};
pub use tenon_core::spec::{ActionField, ObservationField, PolicySpec};
pub use tenon_core::time::MonotonicTime;
pub use tenon_core::timeline::{Anchor, HandOver};

/// The shipped Avoid task, its observation `delay` periods old.
pub fn spec(delay: usize) -> PolicySpec {
    let task =
        TaskConfig::parse("avoid_m1.toml", include_str!("../../../../configs/tasks/avoid_m1.toml"), Values::Latest)
            .expect("the shipped file");
    let normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 2));
    PolicySpec { observation_delay_steps: delay, ..task.policy_spec(normalizer, task.policy.finetuned_steps()) }
}

/// What the rig of these tests allows.
pub fn settings() -> Settings {
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
pub struct Bench {
    pub controller: Controller,
    pub now: MonotonicTime,
    pub arm: PerfectArm,
    pub state_age: Duration,
    pub chunk: Option<ActionChunk>,
    pub parts: Option<PartBoard>,
    /// Answers requests for chunks; `None` leaves the controller waiting.
    pub policy: Option<fn(u64) -> Vec<f32>>,
    pub action_dim: usize,
    pub requests: Vec<(u64, Vec<f32>)>,
    pub largest_step_rad: f64,
}

pub fn forward(_: u64) -> Vec<f32> {
    [0.0, 0.005].repeat(4)
}

impl Bench {
    pub fn new(delay: usize) -> Self {
        Self::of(spec(delay))
    }

    pub fn of(spec: PolicySpec) -> Self {
        Self {
            controller: Controller::new(settings(), &spec).expect("the policy fits"),
            parts: None,
            now: MonotonicTime::from_nanos(1_000_000_000),
            arm: PerfectArm::at(avoid::START_JOINTS_RAD),
            state_age: Duration::ZERO,
            chunk: None,
            policy: Some(forward),
            action_dim: 2,
            requests: Vec::new(),
            largest_step_rad: 0.0,
        }
    }

    pub fn tick(&mut self, order: Option<Order>) -> Outcome {
        self.tick_late(order, 0)
    }

    pub fn tick_late(&mut self, order: Option<Order>, late_ticks: usize) -> Outcome {
        self.now = self.now + self.controller.tick_period();
        let time = MonotonicTime::from_nanos(self.now.as_nanos() - self.state_age.as_nanos() as i64);
        let now = self.now;
        let view = self.parts.as_mut().map(|board| board.view(now, None));
        let inputs = Inputs {
            due: self.now,
            state: Some(self.arm.state(time)),
            status: Some(self.arm.status(now)),
            chunk: self.chunk.as_ref(),
            parts: view.as_ref(),
            order,
            late_ticks,
        };
        let outcome = self.controller.tick(self.now, &inputs);
        let before = self.arm.joint_positions_rad;
        self.arm.follow(&outcome);
        for (now, before) in self.arm.joint_positions_rad.iter().zip(before) {
            assert!(now.is_finite());
            self.largest_step_rad = self.largest_step_rad.max((now - before).abs());
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
    pub fn until(&mut self, limit: usize, wanted: impl Fn(Event) -> bool) -> usize {
        for i in 0..limit {
            if self.tick(None).event.is_some_and(&wanted) {
                return i + 1;
            }
        }
        panic!("not within {limit} ticks; the controller is {:?}", self.controller.phase());
    }

    pub fn armed(delay: usize) -> Self {
        Self::new(delay).arm()
    }

    pub fn arm(self) -> Self {
        let mut bench = self;
        bench.tick(Some(Order::Arm { session: 9 }));
        bench.until(5, |e| matches!(e, Event::Armed));
        bench
    }

    pub fn tcp(&self) -> [f64; 3] {
        let p = self.controller.commanded_pose().translation.vector;
        [p.x, p.y, p.z]
    }
}
