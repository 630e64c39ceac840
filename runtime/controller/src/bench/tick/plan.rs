//! What the control loop is kept busy with: a plan that moves every joint briskly, and an arm that does what it is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nalgebra::{Translation3, UnitQuaternion, Vector3};
use tenon_core::action::ActionChunk;
use tenon_core::arm::Joints;
use tenon_core::config::RobotConfig;
use tenon_core::geometry::{Pose, rotation_to_6d};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, JointTarget, Request, RobotState};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::safety::WorkspaceBox;
use tenon_core::spec::{ActionField, ObservationField, PolicySpec, SPEC_VERSION};
use tenon_core::time::RobotTime;
use tenon_link::{BridgeInbox, BridgeSender};

use crate::clock;

/// Where the arm begins: elbow up, the tool above the middle of the table.
pub const START_RAD: Joints = [0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8];
/// Time between two actions, horizons: those of the furniture tasks.
const ACTION: Duration = Duration::from_millis(100);
const PREDICTED: usize = 16;
const EXECUTED: usize = 8;

/// The policy whose place the plan takes: it observes and commands whole poses of the tool.
pub fn spec() -> PolicySpec {
    use ObservationField::{TcpAngularVelocity, TcpLinearVelocity, TcpPosition, TcpRotation6d};
    let observation = vec![TcpPosition, TcpRotation6d, TcpLinearVelocity, TcpAngularVelocity];
    let action = vec![ActionField::TcpPosition, ActionField::TcpRotation6d];
    PolicySpec {
        spec_version: SPEC_VERSION,
        task: "bench tick".to_owned(),
        observation,
        action,
        observation_horizon: 1,
        prediction_horizon: PREDICTED,
        action_horizon: EXECUTED,
        period_s: ACTION.as_secs_f64(),
        observation_delay_steps: 0,
        denoising: None,
        normalizer: Normalizer::new(Limits::symmetric(2.0, 15), Limits::symmetric(2.0, 9)),
        pictures: None,
    }
}

/// Targets in an action, for ticks of 1 ms.
pub const TARGETS_PER_ACTION: usize = ACTION.as_millis() as usize;

/// A closed way of the tool through space, with turns of the wrist; from rest.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    start: Pose,
}

impl Plan {
    /// About where the arm of `config` begins.
    ///
    /// # Errors
    /// The way would leave the workspace.
    pub fn new(config: &RobotConfig) -> Result<Self> {
        let plan = Self { start: config.arm().tcp(&START_RAD) };
        let WorkspaceBox { min_m, max_m } = config.safety_limits().workspace;
        for step in 0..80 {
            let p = plan.pose(f64::from(step) * 0.05).translation.vector;
            if let Some(axis) = (0..3).find(|&axis| p[axis] < min_m[axis] + 0.02 || p[axis] > max_m[axis] - 0.02) {
                bail!(
                    "the bench moves the tool around ({:.2}, {:.2}, {:.2}) m in the base, and safety.workspace_min_m and safety.workspace_max_m do not allow {} = {:.2} with 2 cm to spare: \
                     give it a wider box in a copy of the configuration (--config), nothing of a robot moves",
                    plan.start.translation.x,
                    plan.start.translation.y,
                    plan.start.translation.z,
                    ['x', 'y', 'z'][axis],
                    p[axis]
                );
            }
        }
        Ok(plan)
    }

    /// The pose for an instant of the run, s.
    fn pose(&self, time_s: f64) -> Pose {
        // Begins at rest and is at full speed after a second.
        let angle = 2.0 * (time_s - 0.5 * (1.0 - (-2.0 * time_s).exp()));
        let (sin, cos, twice) = (angle.sin(), angle.cos(), (2.0 * angle).sin());
        let p = self.start.translation.vector + Vector3::new(0.08 * sin, 0.12 * (1.0 - cos), 0.05 * twice);
        let turn = UnitQuaternion::from_scaled_axis(Vector3::new(0.3 * sin, 0.2 * twice, 0.3 * sin));
        Pose::from_parts(Translation3::from(p), turn * self.start.rotation)
    }

    /// The chunk for the `request`-th request of a run, counted from 0.
    pub fn chunk(&self, request: u64) -> Option<ActionChunk> {
        let mut values = Vec::with_capacity(PREDICTED * 9);
        for step in 1..=PREDICTED as u64 {
            let action = request * EXECUTED as u64 + step;
            let pose = self.pose(action as f64 * ACTION.as_secs_f64());
            values.extend(pose.translation.vector.iter().map(|x| *x as f32));
            values.extend(rotation_to_6d(&pose.rotation).map(|x| x as f32));
        }
        ActionChunk::new(request, 9, &values)
    }
}

/// The other end of the link: takes the lease it is asked for, and is where it was told to be a lead ago.
pub struct Arm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Arm {
    pub fn start(sender: BridgeSender, inbox: BridgeInbox, config: &RobotConfig) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut answering = Answering {
            sender,
            inbox,
            session: 0,
            sequence: 0,
            lead: Duration::from_secs_f64(config.lead_s()),
            period: Duration::from_secs_f64(1.0 / config.bridge.state_rate_hz),
            told: VecDeque::new(),
            at: JointTarget::still(0, 0, clock::now(), START_RAD),
        };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("bench-arm".into()).spawn(move || answering.run(&stopping));
        Ok(Self { stop, thread: Some(thread.context("starting the thread of the bench's arm")?) })
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Answering {
    sender: BridgeSender,
    inbox: BridgeInbox,
    session: u64,
    sequence: u64,
    lead: Duration,
    period: Duration,
    told: VecDeque<JointTarget>,
    at: JointTarget,
}

impl Answering {
    fn run(&mut self, stop: &AtomicBool) {
        let mut next = clock::now();
        while !stop.load(Ordering::Acquire) {
            next = next + self.period;
            clock::sleep_until(next);
            while let Some(request) = self.inbox.next_request() {
                self.session = match request.value {
                    Request::Arm { session } => session,
                    Request::Release { .. } => 0,
                    Request::Heartbeat { .. } | Request::Gripper { .. } => self.session,
                };
                self.inbox.follow(self.session);
            }
            self.follow();
            self.sequence += 1;
            // What the transport does not take is seen as silence at the other end.
            let _ = self.sender.publish_state(&self.state());
            // Every tenth: 20 Hz at the usual 200 Hz.
            if self.sequence % 10 == 1 {
                let _ = self.sender.publish_status(&self.status());
            }
        }
    }

    fn follow(&mut self) {
        if let Some(target) = self.inbox.latest_target()
            && self.told.back().is_none_or(|last| last.sequence != target.value.sequence)
        {
            self.told.push_back(target.value);
        }
        let now = clock::now();
        while self.told.front().is_some_and(|target| target.due + self.lead <= now) {
            self.at = self.told.pop_front().unwrap_or(self.at);
        }
    }

    fn state(&self) -> RobotState {
        RobotState {
            sequence: self.sequence,
            robot_time: RobotTime::from_nanos(clock::now().as_nanos()),
            joint_positions_rad: self.at.joint_positions_rad,
            joint_velocities_rad_s: self.at.joint_velocities_rad_s,
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: GripperPhase::Absent,
            error_code: 0,
        }
    }

    fn status(&self) -> BridgeStatus {
        BridgeStatus {
            sequence: self.sequence,
            state: if self.session == 0 { BridgeState::Idle } else { BridgeState::Running },
            fault: BridgeFault::None,
            session: self.session,
            epoch: 1,
            acknowledged: self.at.sequence,
            update_us: 0,
            robot_hz: 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> RobotConfig {
        tenon_core::config::parse("robot.toml", include_str!("../../../../../configs/robot.toml")).unwrap()
    }

    #[test]
    fn the_plan_begins_at_rest_where_the_arm_is_and_asks_for_no_more_than_an_action_may() {
        let config = shipped();
        let plan = Plan::new(&config).unwrap();
        assert!(spec().check().is_ok());
        let mut last = config.arm().tcp(&START_RAD);
        assert!((plan.pose(0.0).translation.vector - last.translation.vector).norm() < 1e-12);
        let mut longest_m: f64 = 0.0;
        for step in 1..100 {
            let pose = plan.pose(f64::from(step) * ACTION.as_secs_f64());
            let moved_m = (pose.translation.vector - last.translation.vector).norm();
            let turned = last.rotation.angle_to(&pose.rotation);
            assert!(moved_m < config.safety.max_tcp_step_m && turned < config.safety.max_tcp_turn_deg.to_radians());
            assert!(step > 1 || moved_m < 3e-3, "{moved_m}");
            longest_m = longest_m.max(moved_m);
            last = pose;
        }
        assert!(longest_m > 0.02, "{longest_m}");
        let (first, second) = (plan.chunk(0).unwrap(), plan.chunk(1).unwrap());
        assert_eq!((first.steps, first.action(EXECUTED)), (PREDICTED, second.action(0)));
    }

    #[test]
    fn a_box_that_is_too_small_is_named() {
        let mut config = shipped();
        config.safety.workspace_max_m[1] = 0.15;
        let error = Plan::new(&config).unwrap_err().to_string();
        assert!(error.contains("y = ") && error.contains("workspace_max_m"), "{error}");
    }
}
