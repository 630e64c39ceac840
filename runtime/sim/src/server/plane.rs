//! The controller server without clock, physics and network (spec `polymetis.md` §4).

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::time::MonotonicTime;
use tenon_polymetis::archive::{ArchiveError, TensorValue};
use tenon_polymetis::proto::RobotClientMetadata;
use tenon_polymetis::script::ScriptError;

use super::law::Law;
use super::log::{StateLog, StateRecord};

/// A robot client silent for longer is taken for gone.
pub const ROBOT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the robot client reports at one control step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// Without the torque that this step will compute.
    pub record: StateRecord,
    /// What the model in a controller would compute for this state, N·m.
    pub coriolis_nm: Joints,
    pub gravity_nm: Joints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Uninitialized,
    /// A controller was set and has not run yet.
    Ready,
    Running,
    /// The next step is the default controller's.
    Terminating,
    Terminated,
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaneError {
    #[error("Tried to perform a controller update with no controller running.")]
    NothingToUpdate,
    #[error("Tried to terminate controller with no controller running.")]
    NothingToTerminate,
    #[error("Failed to update controller: {0}")]
    Update(String),
    #[error("Failed to load new controller: {0}")]
    Load(String),
    #[error("Failed to load new controller params.")]
    LoadParameters,
    #[error("Failed to run controller forward function: {0}")]
    Forward(String),
    #[error("the robot client's default controller: {0}")]
    Default(String),
    /// The real server's process ends here with a SIGSEGV.
    #[error("the server died: {0}")]
    Died(&'static str),
    /// The archive's `forward` wants arguments; an uncaught exception in the real server.
    #[error("Unexpected error in RPC handling")]
    Uncaught,
    #[error("Robot context not valid when calling GetRobotClientMetadata!")]
    NoRobot,
    #[error("Cannot retrieve robot state from empty buffer!")]
    EmptyBuffer,
}

/// Log indices of the first and last step of a controller; −1 is "not set".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub start: i32,
    pub end: i32,
}

const UNSET: Interval = Interval { start: -1, end: -1 };

/// State machine, log, default and custom controller.
#[derive(Debug)]
pub struct ControlPlane {
    phase: Phase,
    interval: Interval,
    custom: Option<Law>,
    /// Whether any controller was ever set.
    was_set: bool,
    /// The robot client's own, which runs in every phase but RUNNING.
    default: Option<Law>,
    last: Reading,
    metadata: Option<RobotClientMetadata>,
    last_contact: Option<MonotonicTime>,
    log: StateLog,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlPlane {
    /// A server that no robot client has called yet.
    pub fn new() -> Self {
        Self {
            phase: Phase::Uninitialized,
            interval: UNSET,
            custom: None,
            was_set: false,
            default: None,
            last: Reading::default(),
            metadata: None,
            last_contact: None,
            log: StateLog::default(),
        }
    }

    /// A robot client registers: its default controller holds the arm; a custom controller is forgotten.
    ///
    /// # Errors
    /// [`PlaneError::Default`] for a default controller that does not load.
    pub fn init_robot(&mut self, now: MonotonicTime, metadata: RobotClientMetadata) -> Result<(), PlaneError> {
        self.default = Some(Law::load(&metadata.default_controller).map_err(PlaneError::Default)?);
        self.metadata = Some(metadata);
        self.phase = Phase::Uninitialized;
        self.interval = UNSET;
        self.custom = None;
        self.last_contact = Some(now);
        Ok(())
    }

    /// One control step: the torque (N·m, without gravity) that answers a state, which is recorded with it.
    ///
    /// # Errors
    /// [`PlaneError::Forward`] where the controller raises; it stays the running one. [`PlaneError::Died`] before any
    /// robot client registered.
    pub fn control_update(&mut self, now: MonotonicTime, reading: &Reading) -> Result<[f32; 7], PlaneError> {
        let Some(default) = &mut self.default else {
            return Err(PlaneError::Died("ControlUpdate before any InitRobotClient"));
        };
        if self.last_contact.is_none_or(|last| now.since(last) >= ROBOT_TIMEOUT) {
            self.phase = Phase::Terminating;
        }
        self.last_contact = Some(now);
        self.last = *reading;
        let index = i32::try_from(self.log.recorded()).unwrap_or(i32::MAX);
        match self.phase {
            Phase::Ready => {
                self.interval = Interval { start: index, end: -1 };
                self.phase = Phase::Running;
            }
            Phase::Terminating => {
                self.interval.end = index - 1;
                self.phase = Phase::Terminated;
                self.custom = None;
                default.reset().map_err(PlaneError::Forward)?;
            }
            Phase::Uninitialized | Phase::Running | Phase::Terminated => {}
        }
        let torque = match (&mut self.custom, self.phase) {
            (Some(law), Phase::Running) => {
                let torque = law.forward(reading).map_err(PlaneError::Forward)?;
                if law.is_terminated().map_err(PlaneError::Forward)? {
                    self.phase = Phase::Terminating;
                }
                torque
            }
            _ => default.forward(reading).map_err(PlaneError::Forward)?,
        };
        self.log.push(StateRecord { joint_torques_computed: torque, ..reading.record });
        Ok(torque)
    }

    /// Joint velocities that the running custom controller commands, rad/s, where its text has them.
    pub fn commanded_velocities_rad_s(&self) -> Option<[f64; 7]> {
        match (&self.custom, self.phase) {
            (Some(law), Phase::Running) => law.commanded_velocities_rad_s(),
            _ => None,
        }
    }

    /// The state of the last step, which an upload is tried with.
    pub fn last_reading(&self) -> Reading {
        self.last
    }

    /// Swaps the custom controller in; it runs from the next step. Await that with [`is_ready`](Self::is_ready).
    ///
    /// # Errors
    /// [`PlaneError::Died`] before any robot client registered.
    pub fn set_controller(&mut self, law: Law) -> Result<(), PlaneError> {
        if self.metadata.is_none() {
            return Err(PlaneError::Died("SetController before any InitRobotClient"));
        }
        self.custom = Some(law);
        self.was_set = true;
        self.interval = UNSET;
        self.phase = Phase::Ready;
        Ok(())
    }

    /// Whether a controller still waits for its first step.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Changes the running controller between two steps; returns the log index of the next one.
    ///
    /// # Errors
    /// [`PlaneError::Died`] before any SetController, [`PlaneError::NothingToUpdate`], [`PlaneError::Update`]; what the
    /// controller changed before it refused stays changed.
    pub fn update_controller(&mut self, parameters: &[(String, TensorValue)]) -> Result<Interval, PlaneError> {
        if !self.was_set {
            return Err(PlaneError::Died("UpdateController before any SetController"));
        }
        let (Phase::Running, Some(law)) = (self.phase, &mut self.custom) else {
            return Err(PlaneError::NothingToUpdate);
        };
        law.update(parameters).map_err(PlaneError::Update)?;
        Ok(Interval { start: i32::try_from(self.log.recorded()).unwrap_or(i32::MAX), end: -1 })
    }

    /// Asks the next step to hand over to the default controller. Await that with
    /// [`is_terminating`](Self::is_terminating).
    ///
    /// # Errors
    /// [`PlaneError::NothingToTerminate`]
    pub fn terminate(&mut self) -> Result<(), PlaneError> {
        if self.phase != Phase::Running {
            return Err(PlaneError::NothingToTerminate);
        }
        self.phase = Phase::Terminating;
        Ok(())
    }

    /// Whether the hand-over is still to come.
    pub fn is_terminating(&self) -> bool {
        self.phase == Phase::Terminating
    }

    /// Steps of the present or last custom controller.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// What the robot client said about itself, if it called within [`ROBOT_TIMEOUT`].
    ///
    /// # Errors
    /// [`PlaneError::NoRobot`]
    pub fn metadata(&self, now: MonotonicTime) -> Result<&RobotClientMetadata, PlaneError> {
        let alive = self.last_contact.is_some_and(|last| now.since(last) < ROBOT_TIMEOUT);
        self.metadata.as_ref().filter(|_| alive).ok_or(PlaneError::NoRobot)
    }

    /// The state recorded last, however old.
    ///
    /// # Errors
    /// [`PlaneError::EmptyBuffer`]
    pub fn state(&self) -> Result<&StateRecord, PlaneError> {
        self.log.last().ok_or(PlaneError::EmptyBuffer)
    }

    /// Log index of the next step.
    pub fn recorded(&self) -> usize {
        self.log.recorded()
    }

    /// The recorded step of this log index.
    pub fn recorded_state(&self, index: usize) -> Option<&StateRecord> {
        self.log.get(index)
    }
}

/// What the server says about an update that it cannot load.
pub fn parameter_error(error: &ScriptError) -> PlaneError {
    match error {
        ScriptError::Archive(ArchiveError::ForwardNeedsArguments { .. }) => PlaneError::Uncaught,
        // Loads, but the controller's update does not take a Dict[Any, Any].
        ScriptError::Archive(ArchiveError::UntaggedDict { .. }) => PlaneError::Update(error.to_string()),
        _ => PlaneError::LoadParameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_polymetis::archive::{JOINT_POS_DESIRED, default_controller, pd_controller};

    fn law() -> Law {
        Law::load(&pd_controller(&[0.0; 7], &[10.0; 7], &[0.0; 7]).unwrap()).unwrap()
    }

    fn ms(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    fn at(q: f32) -> Reading {
        let record = StateRecord { joint_positions: [q; 7], ..Default::default() };
        Reading { record, ..Default::default() }
    }

    fn registered() -> ControlPlane {
        let mut plane = ControlPlane::new();
        let default_controller = default_controller(&[40.0; 7], &[4.0; 7]).unwrap();
        plane.init_robot(ms(0), RobotClientMetadata { default_controller, ..Default::default() }).unwrap();
        plane
    }

    fn target(q: f32) -> Vec<(String, TensorValue)> {
        vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(&[q; 7]))]
    }

    #[test]
    fn a_controller_runs_from_the_next_step_until_it_is_terminated() {
        let mut plane = registered();
        assert_eq!(plane.state(), Err(PlaneError::EmptyBuffer));
        assert_eq!(
            plane.control_update(ms(1), &at(0.5)),
            Ok([0.0; 7]),
            "the default controller latches the first state"
        );
        assert_eq!(plane.control_update(ms(2), &at(0.75)), Ok([-10.0; 7]));
        assert!(matches!(plane.update_controller(&target(0.1)), Err(PlaneError::Died(_))));
        assert_eq!(plane.terminate(), Err(PlaneError::NothingToTerminate));
        plane.set_controller(law()).unwrap();
        assert!(plane.is_ready());
        assert_eq!(plane.interval(), UNSET);
        assert_eq!(plane.control_update(ms(3), &at(0.5)), Ok([-5.0; 7]));
        assert_eq!(plane.interval(), Interval { start: 2, end: -1 });
        assert_eq!(plane.update_controller(&target(1.0)), Ok(Interval { start: 3, end: -1 }));
        assert_eq!(plane.control_update(ms(4), &at(0.5)), Ok([5.0; 7]));
        plane.terminate().unwrap();
        assert!(plane.is_terminating());
        assert_eq!(plane.control_update(ms(5), &at(0.6)), Ok([0.0; 7]), "held where it was taken over");
        assert_eq!(plane.interval(), Interval { start: 2, end: 3 });
        assert_eq!(plane.update_controller(&target(0.1)), Err(PlaneError::NothingToUpdate));
        assert_eq!(plane.recorded_state(3).unwrap().joint_torques_computed, [5.0; 7]);
    }

    #[test]
    fn a_gap_of_a_second_drops_the_controller() {
        let mut plane = registered();
        plane.control_update(ms(1), &at(0.0)).unwrap();
        plane.set_controller(law()).unwrap();
        plane.control_update(ms(2), &at(0.0)).unwrap();
        assert!(plane.metadata(ms(1001)).is_ok());
        assert_eq!(plane.metadata(ms(1002)).unwrap_err(), PlaneError::NoRobot);
        assert!(plane.update_controller(&target(0.1)).is_ok(), "still RUNNING while the robot client is gone");
        plane.control_update(ms(1002), &at(0.0)).unwrap();
        assert_eq!(plane.interval(), Interval { start: 1, end: 1 });
        assert_eq!(plane.update_controller(&target(0.1)), Err(PlaneError::NothingToUpdate));
    }

    #[test]
    fn a_controller_that_meets_a_gap_before_its_first_step_never_ran() {
        let mut plane = registered();
        plane.control_update(ms(1), &at(0.0)).unwrap();
        plane.set_controller(law()).unwrap();
        plane.control_update(ms(3000), &at(0.0)).unwrap();
        assert!(!plane.is_ready());
        assert_eq!(plane.interval(), Interval { start: -1, end: 0 });
    }

    #[test]
    fn a_refused_update_leaves_the_target() {
        let mut plane = registered();
        plane.set_controller(law()).unwrap();
        plane.control_update(ms(1), &at(0.0)).unwrap();
        let bad = vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(&[1.0; 6]))];
        assert!(matches!(plane.update_controller(&bad), Err(PlaneError::Update(_))));
        assert_eq!(plane.control_update(ms(2), &at(0.0)), Ok([0.0; 7]));
    }
}
