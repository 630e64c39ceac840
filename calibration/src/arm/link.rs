//! Poses of the arm from the robot itself.

use std::sync::Arc;
use std::time::Duration;

use tenon_core::arm::Arm;
use tenon_core::config::RobotConfig;
use tenon_vision::Pose;
use tenon_vision::source::Clock;

use super::ArmError;
use super::poses::{ArmPoseSource, Asked, Need};
use super::states::RobotStates;
use super::still::{Refusal, StillJudge, StillSettings, Stillness};
use super::swing::SwingRecorder;
use crate::measure::latency::Sample;

/// What makes a pose of it.
#[derive(Debug, Clone, Copy)]
pub struct LinkSettings {
    /// The arm with its tool: the poses are those of the tool point.
    pub arm: Arm,
    pub still: StillSettings,
    /// How long to wait for the arm to come to rest.
    pub patience: Duration,
    /// How long to wait for a first or a newer state.
    pub silence: Duration,
    /// What the arm may move while pictures are taken: half of what a corner's noise makes of a pose.
    pub max_moved_m: f64,
    pub max_turned_rad: f64,
}

impl LinkSettings {
    /// For the robot of `robot.toml`.
    pub fn new(robot: &RobotConfig) -> Self {
        let max_age = Duration::from_secs_f64(robot.control.max_state_age_s);
        Self {
            arm: robot.arm(),
            still: StillSettings::new(robot.model.limits(), max_age),
            patience: Duration::from_secs(60),
            silence: Duration::from_secs(3),
            max_moved_m: 5e-4,
            max_turned_rad: 1e-3,
        }
    }
}

/// How often the newest state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Poses of the tool point while the arm is still.
pub struct LinkPoses {
    states: RobotStates,
    settings: LinkSettings,
    judge: StillJudge,
    clock: Arc<dyn Clock>,
    swing: Option<SwingRecorder>,
}

impl LinkPoses {
    pub fn new(states: RobotStates, settings: LinkSettings, clock: Arc<dyn Clock>) -> Self {
        Self { states, settings, judge: StillJudge::new(settings.still), clock, swing: None }
    }

    fn refused(&self, refusal: Refusal) -> ArmError {
        let missing = matches!(refusal, Refusal::NoState | Refusal::Stale { .. });
        let bridge = if missing { self.states.bridge_says() } else { String::new() };
        ArmError::Refused { endpoint: self.states.endpoint().to_owned(), refusal, bridge }
    }

    /// Waits until the arm is still, and gives the pose of the tool point in the base.
    ///
    /// # Errors
    /// [`ArmError::Refused`] for a state that must not be used, [`ArmError::NotStill`], [`ArmError::Drifting`].
    pub fn wait(&mut self) -> Result<Pose, ArmError> {
        self.judge.forget();
        let begin = self.clock.now();
        let mut heard = begin;
        let mut moving = None;
        loop {
            let now = self.clock.now();
            match self.judge.judge(now, self.states.latest()) {
                Stillness::Still(state) => return Ok(self.settings.arm.tcp(&state.joint_positions_rad)),
                // The link may have been opened a moment ago, or have lost a message.
                Stillness::Refused(Refusal::NoState | Refusal::Stale { .. })
                    if now.since(heard) < self.settings.silence => {}
                Stillness::Refused(refusal) => return Err(self.refused(refusal)),
                Stillness::Moving { joint, velocity_rad_s } => {
                    heard = now;
                    moving = Some((joint, velocity_rad_s));
                }
                Stillness::Settling { .. } => heard = now,
            }
            let waited = now.since(begin);
            if waited >= self.settings.patience {
                return Err(self.restless(moving, waited));
            }
            self.clock.sleep_until(now + LOOK_EVERY);
        }
    }

    fn restless(&self, moving: Option<(usize, f64)>, waited: Duration) -> ArmError {
        let still = &self.settings.still;
        let (endpoint, waited_s) = (self.states.endpoint().to_owned(), waited.as_secs_f64());
        let still_for_s = still.still_for.as_secs_f64();
        match moving {
            Some((joint, velocity_rad_s)) => {
                let limit_rad_s = still.max_joint_velocity_rad_s;
                ArmError::NotStill { endpoint, waited_s, joint, velocity_rad_s, limit_rad_s, still_for_s }
            }
            None => ArmError::Drifting { endpoint, waited_s, limit_rad: still.max_drift_rad, still_for_s },
        }
    }
}

impl ArmPoseSource for LinkPoses {
    fn need(&self) -> Need {
        Need::Stillness
    }

    fn pose(&mut self, _: &Asked<'_>) -> Result<Option<Pose>, ArmError> {
        self.wait().map(Some)
    }

    fn confirm(&mut self, pose: &Pose) -> Result<(), ArmError> {
        let now = self.clock.now();
        let newest = self.states.latest();
        // The same checks of the state; how fast the arm is does not matter here, only how far it got.
        if let Stillness::Refused(refusal) = self.judge.judge(now, newest) {
            return Err(self.refused(refusal));
        }
        let Some(newest) = newest else { return Err(self.refused(Refusal::NoState)) };
        let there = self.settings.arm.tcp(&newest.value.joint_positions_rad);
        let moved_m = (there.translation.vector - pose.translation.vector).norm();
        let turned_rad = there.rotation.angle_to(&pose.rotation);
        if moved_m > self.settings.max_moved_m || turned_rad > self.settings.max_turned_rad {
            return Err(ArmError::MovedMeanwhile { moved_mm: 1e3 * moved_m, turned_deg: turned_rad.to_degrees() });
        }
        Ok(())
    }

    fn begin_swing(&mut self) -> Result<bool, ArmError> {
        let recorder = SwingRecorder::begin(self.states.clone(), self.settings.arm, Arc::clone(&self.clock))?;
        self.swing = Some(recorder);
        Ok(true)
    }

    fn end_swing(&mut self) -> Result<Vec<Sample>, ArmError> {
        self.swing.take().map_or_else(|| Ok(Vec::new()), |recorder| recorder.end()?.along_motion())
    }
}
