//! Arming: the controller is uploaded with the measured joints as its target.

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::config::BridgeController;
use tenon_core::message::BridgeFault;
use tenon_polymetis::archive::{hybrid_controller, pd_controller};
use tenon_polymetis::client::ClientError;
use tenon_polymetis::status::ServerError;
use tenon_polymetis::waypoints::{Gains, StepClock, WaypointSettings, waypoint_controller};

use super::{Mode, Stream, Supervisor};
use crate::clock::monotonic_time;
use crate::gate::TargetGate;
use crate::playout::{Playout, seconds};
use crate::robot::robot_state;
use crate::sources::Health;

/// Between waypoints of a plan. A cubic across a step of the acceleration in its middle passes it by a quarter; the law has more room.
const WAYPOINT_SPACING_S: f64 = 0.008;
/// Two states taken this far apart show whether the robot moves on; its client reports at 240 Hz or faster.
const MOVING_CHECK: Duration = Duration::from_millis(20);

impl Supervisor {
    /// Uploads the controller with the measured joints as its target.
    pub(super) async fn arm(&mut self, session: u64) {
        tracing::info!("session {session:#x} arms the robot");
        match self.upload().await {
            Ok(mode) => {
                self.mode = mode;
                self.orphan = None;
                self.acknowledged = 0;
                self.statistics.count(|c| c.armed += 1);
                // The upload takes its time; the commander's silence meanwhile is our doing.
                self.lease.hear(session, monotonic_time());
            }
            Err(ArmFailure { cause, what }) => {
                tracing::error!("arming failed: {what}");
                self.statistics.count(|c| c.faults += 1);
                self.lease.end();
                self.mode = Mode::Fault { cause, session };
            }
        }
        self.publish();
    }

    async fn upload(&mut self) -> Result<Mode, ArmFailure> {
        // A controller that begins at the measured joints begins at rest.
        self.await_rest().await;
        let metadata = self.client.metadata().await.map_err(ArmFailure::asking)?;
        self.watchdog.progress(monotonic_time());
        if metadata.dof != 7 {
            return Err(ArmFailure::refuse(format!("the robot has {} joints, this bridge drives 7", metadata.dof)));
        }
        let first = self.client.robot_state().await.map_err(ArmFailure::asking)?;
        tokio::time::sleep(MOVING_CHECK).await;
        let state = self.client.robot_state().await.map_err(ArmFailure::asking)?;
        if first.timestamp == state.timestamp {
            return Err(ArmFailure {
                cause: BridgeFault::RobotGone,
                what: "the robot's states stand still".to_owned(),
            });
        }
        let state = robot_state(&state, 0).map_err(|e| ArmFailure::refuse(e.to_string()))?;
        self.watchdog.progress(monotonic_time());
        let held_rad = state.joint_positions_rad;
        let rate_hz = u32::try_from(metadata.hz).unwrap_or(0);
        if rate_hz == 0 {
            return Err(ArmFailure::refuse(format!("the robot client says {} Hz", metadata.hz)));
        }
        let (archive, settings) = self.controller(&held_rad, &metadata.urdf_file, rate_hz)?;
        let Health { losses, restarts, .. } = *self.health.borrow();
        let since = monotonic_time();
        let mut result = self.client.set_controller(&archive).await;
        if let Err(ClientError::Server { error: ServerError::Unavailable(_), .. }) = result {
            // The client refuses to reconnect once after it lost a server on which it had set a controller. For an
            // update that is right; this is the upload after which updates are safe again.
            result = self.client.set_controller(&archive).await;
        }
        let ours = result.map_err(|error| ArmFailure {
            cause: match &error {
                ClientError::Server { error: ServerError::Unavailable(_), .. } => BridgeFault::ServerGone,
                // It hangs where the robot died just now.
                ClientError::Server { error: ServerError::DeadlineExceeded, .. } => BridgeFault::RobotGone,
                _ => BridgeFault::ControllerRefused,
            },
            what: error.to_string(),
        })?;
        let now = monotonic_time();
        self.watchdog.progress(now);
        tracing::info!("our controller runs since step {ours}, {} ms after it was sent", now.since(since).as_millis());
        let options = &self.options;
        let gate = TargetGate::new(options.bounds, held_rad, now);
        let stream = settings.map_or(Stream::Targets, |settings| {
            let mut steps = StepClock::new(i64::from(ours), rate_hz);
            steps.observe(seconds(since), seconds(now), i64::from(ours));
            let spacing = (WAYPOINT_SPACING_S * f64::from(rate_hz)).round().max(1.0) as u32;
            Stream::Plans {
                playout: Playout::new(options.bounds, options.lead_s, spacing),
                steps,
                settings,
                apart_since: None,
            }
        });
        // The probe's clock is ours: what it asked after this moment sees our controller.
        Ok(Mode::Armed { ours, since: now, losses, restarts, gate: Box::new(gate), stream: Box::new(stream) })
    }

    /// The archive to upload, and the settings of Tenon's law if it is that.
    fn controller(
        &self,
        held_rad: &Joints,
        urdf: &str,
        rate_hz: u32,
    ) -> Result<(Vec<u8>, Option<WaypointSettings>), ArmFailure> {
        let gains = self.options.gains();
        let (q_desired, Gains { kq, kqd, kx, kxd }) = (held_rad.map(|q| q as f32), &gains);
        let settings = match self.options.controller {
            BridgeController::Waypoints => Some(self.options.waypoint_settings(rate_hz, self.lease.epoch())),
            BridgeController::Stock => None,
        };
        let archive = match &settings {
            Some(settings) => waypoint_controller(settings, &gains, urdf),
            None if !gains.uses_model() => pd_controller(&q_desired, kq, kqd),
            None => hybrid_controller(&q_desired, kq, kqd, kx, kxd, urdf),
        };
        let archive = archive.map_err(|e| ArmFailure::refuse(e.to_string()))?;
        Ok((archive, settings))
    }
}

/// Why arming failed.
struct ArmFailure {
    cause: BridgeFault,
    what: String,
}

impl ArmFailure {
    fn refuse(what: String) -> Self {
        Self { cause: BridgeFault::ControllerRefused, what }
    }

    /// A question before the upload was not answered.
    fn asking(error: ClientError) -> Self {
        let cause = match error.server_error() {
            Some(ServerError::Unavailable(_) | ServerError::DeadlineExceeded) => BridgeFault::ServerGone,
            _ => BridgeFault::RobotGone,
        };
        Self { cause, what: error.to_string() }
    }
}
