//! The controller server without clock, physics and network (spec `polymetis.md` §4).

use std::time::Duration;

use tenon_core::arm::Joints;
use tenon_core::time::MonotonicTime;
use tenon_polymetis::archive::{ArchiveError, TensorValue};
use tenon_polymetis::proto::RobotClientMetadata;

use super::law::{HoldLaw, Law, LawInput};
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
    default: HoldLaw,
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
            default: HoldLaw::new([0.0; 7], [0.0; 7]),
            metadata: None,
            last_contact: None,
            log: StateLog::default(),
        }
    }

    /// A robot client registers: its default gains hold the arm; a custom controller is forgotten.
    pub fn init_robot(&mut self, now: MonotonicTime, metadata: RobotClientMetadata) {
        let gains = |values: &[f32]| values.try_into().unwrap_or([0.0; 7]);
        self.default = HoldLaw::new(gains(&metadata.default_kq), gains(&metadata.default_kqd));
        self.metadata = Some(metadata);
        self.phase = Phase::Uninitialized;
        self.interval = UNSET;
        self.custom = None;
        self.last_contact = Some(now);
    }

    /// One control step: records the state and returns the torque (N·m, without gravity) that answers it.
    pub fn control_update(&mut self, now: MonotonicTime, reading: &Reading) -> [f32; 7] {
        if self.last_contact.is_none_or(|last| now.since(last) >= ROBOT_TIMEOUT) {
            self.phase = Phase::Terminating;
        }
        self.last_contact = Some(now);
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
                self.default.reset();
            }
            Phase::Uninitialized | Phase::Running | Phase::Terminated => {}
        }
        let (q, dq) = (reading.record.joint_positions, reading.record.joint_velocities);
        let torque = match (&self.custom, self.phase) {
            (Some(law), Phase::Running) => law.torque(&LawInput { q, dq, coriolis_nm: reading.coriolis_nm }),
            _ => self.default.torque(&q, &dq),
        };
        self.log.push(StateRecord { joint_torques_computed: torque, ..reading.record });
        torque
    }

    /// Swaps the custom controller in; it runs from the next step. Await that with [`is_ready`](Self::is_ready).
    pub fn set_controller(&mut self, law: Law) {
        self.custom = Some(law);
        self.interval = UNSET;
        self.phase = Phase::Ready;
    }

    /// Whether a controller still waits for its first step.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Changes the running controller between two steps; returns the log index of the next one.
    ///
    /// The real server dies (SIGSEGV) of an update before any SetController. This one answers as if a controller had
    /// ended, which is what a client has to expect anyway: it must not send that update.
    ///
    /// # Errors
    /// [`PlaneError::NothingToUpdate`], [`PlaneError::Update`].
    pub fn update_controller(&mut self, parameters: &[(String, TensorValue)]) -> Result<Interval, PlaneError> {
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
pub fn parameter_error(error: &ArchiveError) -> PlaneError {
    match error {
        ArchiveError::ForwardNeedsArguments { .. } => PlaneError::Uncaught,
        // Loads, but the controller's update does not take a Dict[Any, Any].
        ArchiveError::UntaggedDict { .. } => PlaneError::Update(error.to_string()),
        _ => PlaneError::LoadParameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_polymetis::archive::{JOINT_POS_DESIRED, pd_controller};

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
        let metadata =
            RobotClientMetadata { default_kq: vec![40.0; 7], default_kqd: vec![4.0; 7], ..Default::default() };
        plane.init_robot(ms(0), metadata);
        plane
    }

    fn target(q: f32) -> Vec<(String, TensorValue)> {
        vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(&[q; 7]))]
    }

    #[test]
    fn a_controller_runs_from_the_next_step_until_it_is_terminated() {
        let mut plane = registered();
        assert_eq!(plane.state(), Err(PlaneError::EmptyBuffer));
        assert_eq!(plane.control_update(ms(1), &at(0.5)), [0.0; 7], "the default controller latches the first state");
        assert_eq!(plane.control_update(ms(2), &at(0.75)), [-10.0; 7]);
        assert_eq!(plane.update_controller(&target(0.1)), Err(PlaneError::NothingToUpdate));
        assert_eq!(plane.terminate(), Err(PlaneError::NothingToTerminate));
        plane.set_controller(law());
        assert!(plane.is_ready());
        assert_eq!(plane.interval(), UNSET);
        assert_eq!(plane.control_update(ms(3), &at(0.5)), [-5.0; 7]);
        assert_eq!(plane.interval(), Interval { start: 2, end: -1 });
        assert_eq!(plane.update_controller(&target(1.0)), Ok(Interval { start: 3, end: -1 }));
        assert_eq!(plane.control_update(ms(4), &at(0.5)), [5.0; 7]);
        plane.terminate().unwrap();
        assert!(plane.is_terminating());
        assert_eq!(plane.control_update(ms(5), &at(0.6)), [0.0; 7], "held where it was taken over");
        assert_eq!(plane.interval(), Interval { start: 2, end: 3 });
        assert_eq!(plane.update_controller(&target(0.1)), Err(PlaneError::NothingToUpdate));
        assert_eq!(plane.recorded_state(3).unwrap().joint_torques_computed, [5.0; 7]);
    }

    #[test]
    fn a_gap_of_a_second_drops_the_controller() {
        let mut plane = registered();
        plane.control_update(ms(1), &at(0.0));
        plane.set_controller(law());
        plane.control_update(ms(2), &at(0.0));
        assert!(plane.metadata(ms(1001)).is_ok());
        assert_eq!(plane.metadata(ms(1002)).unwrap_err(), PlaneError::NoRobot);
        assert!(plane.update_controller(&target(0.1)).is_ok(), "still RUNNING while the robot client is gone");
        plane.control_update(ms(1002), &at(0.0));
        assert_eq!(plane.interval(), Interval { start: 1, end: 1 });
        assert_eq!(plane.update_controller(&target(0.1)), Err(PlaneError::NothingToUpdate));
    }

    #[test]
    fn a_controller_that_meets_a_gap_before_its_first_step_never_ran() {
        let mut plane = registered();
        plane.control_update(ms(1), &at(0.0));
        plane.set_controller(law());
        plane.control_update(ms(3000), &at(0.0));
        assert!(!plane.is_ready());
        assert_eq!(plane.interval(), Interval { start: -1, end: 0 });
    }

    #[test]
    fn a_refused_update_leaves_the_target() {
        let mut plane = registered();
        plane.set_controller(law());
        plane.control_update(ms(1), &at(0.0));
        let bad = vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(&[1.0; 6]))];
        assert!(matches!(plane.update_controller(&bad), Err(PlaneError::Update(_))));
        assert_eq!(plane.control_update(ms(2), &at(0.0)), [0.0; 7]);
    }
}
