//! The hand's way while it swings, from the link: what caused the motion that the cameras see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nalgebra::{Matrix3, Vector3};
use tenon_core::arm::Arm;
use tenon_core::message::RobotState;
use tenon_core::time::{ClockOffset, MonotonicTime, RobotTime, Stamped};
use tenon_vision::source::Clock;

use super::ArmError;
use super::states::RobotStates;
use crate::measure::latency::Sample;

/// Where the hand was, on the workstation's clock.
///
/// A state counts for when the robot measured it, not for when it arrived: the robot's stamp, brought to our clock by the fastest
/// message. What is left is the delay of that one message, some tenths of a millisecond on a wire.
#[derive(Debug, Clone, Default)]
pub struct HandTrack {
    offset: ClockOffset,
    /// When the robot measured it, when it arrived, and where the hand was.
    places: Vec<(RobotTime, MonotonicTime, Vector3<f64>)>,
}

/// A hand that moved less than this did not swing, m (largest distance along its main direction).
const LEAST_SWING_M: f64 = 0.03;

impl HandTrack {
    /// Takes note of a state; one that was noted before, or that cannot be used, changes nothing.
    pub fn add(&mut self, arm: &Arm, state: &Stamped<RobotState>) {
        let time = state.value.robot_time;
        let finite = state.value.joint_positions_rad.iter().all(|q| q.is_finite());
        if !finite || self.places.last().is_some_and(|(newest, ..)| time <= *newest) {
            return;
        }
        self.offset.observe(time, state.time);
        self.places.push((time, state.time, arm.tcp(&state.value.joint_positions_rad).translation.vector));
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Its place along the direction in which it moved most, m; times in s of the workstation's monotonic clock.
    ///
    /// # Errors
    /// [`ArmError::NoSwing`] where it hardly moved.
    pub fn along_motion(&self) -> Result<Vec<Sample>, ArmError> {
        let mean = self.places.iter().map(|(.., p)| p).sum::<Vector3<f64>>() / self.places.len().max(1) as f64;
        let spread: Matrix3<f64> = self.places.iter().map(|(.., p)| (p - mean) * (p - mean).transpose()).sum();
        let eigen = spread.symmetric_eigen();
        let axis = eigen.eigenvectors.column(eigen.eigenvalues.imax()).into_owned();
        // Once more: the least delay of all messages is known only now.
        let mut offset = self.offset;
        let sample = |(time, arrived, place): &(RobotTime, MonotonicTime, Vector3<f64>)| Sample {
            time_s: offset.observe(*time, *arrived).as_nanos() as f64 * 1e-9,
            value: axis.dot(&(place - mean)),
        };
        let samples: Vec<Sample> = self.places.iter().map(sample).collect();
        let values = || samples.iter().map(|s| s.value);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let moved_m = (high - low).max(0.0);
        if moved_m < LEAST_SWING_M {
            let seconds = samples.last().map_or(0.0, |last| last.time_s - samples[0].time_s);
            return Err(ArmError::NoSwing { moved_mm: 1e3 * moved_m, seconds, wanted_mm: 1e3 * LEAST_SWING_M });
        }
        Ok(samples)
    }
}

/// Looks at the newest state more often than they come (200 a second).
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Records in a thread of its own, while the cameras are read.
pub struct SwingRecorder {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<HandTrack>>,
}

impl SwingRecorder {
    /// Begins.
    ///
    /// # Errors
    /// [`ArmError::Recorder`] where there is no thread to be had.
    pub fn begin(states: RobotStates, arm: Arm, clock: Arc<dyn Clock>) -> Result<Self, ArmError> {
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let record = move || {
            let mut track = HandTrack::default();
            while !ends.load(Ordering::Acquire) {
                if let Some(state) = states.latest() {
                    track.add(&arm, &state);
                }
                clock.sleep_until(clock.now() + LOOK_EVERY);
            }
            track
        };
        let thread = std::thread::Builder::new()
            .name("tenon-swing".to_owned())
            .spawn(record)
            .map_err(|e| ArmError::Recorder { reason: e.to_string() })?;
        Ok(Self { ending, thread: Some(thread) })
    }

    /// Ends, and gives what was recorded.
    ///
    /// # Errors
    /// [`ArmError::Recorder`] where the thread broke off.
    pub fn end(mut self) -> Result<HandTrack, ArmError> {
        self.ending.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is taken here only, and this consumes the recorder");
        thread.join().map_err(|_| ArmError::Recorder { reason: "its thread broke off".to_owned() })
    }
}

impl Drop for SwingRecorder {
    fn drop(&mut self) {
        // A recording that nobody ends must not read the link for ever.
        self.ending.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::arm::T_flange_hand_tcp;
    use tenon_core::message::GripperPhase;

    fn state(measured_ms: i64, delay_ms: i64, joint: f64) -> Stamped<RobotState> {
        let value = RobotState {
            sequence: measured_ms as u64,
            robot_time: RobotTime::from_nanos(5_000_000_000_000 + measured_ms * 1_000_000),
            joint_positions_rad: [joint, -0.6, 0.0, -2.2, 0.0, 1.6, 0.7],
            joint_velocities_rad_s: [0.0; 7],
            joint_torques_external_nm: [0.0; 7],
            gripper_width_m: f64::NAN,
            gripper: GripperPhase::Absent,
            error_code: 0,
        };
        Stamped { time: MonotonicTime::from_nanos((measured_ms + delay_ms) * 1_000_000), value }
    }

    #[test]
    fn samples_stand_at_the_time_of_measurement_whatever_the_network_did() {
        let arm = Arm::new(T_flange_hand_tcp());
        let mut track = HandTrack::default();
        for k in 0..400 {
            let swing = 0.3 * (0.005 * f64::from(k) * 3.0).sin();
            // The fastest message takes 2 ms, others up to 20 more; every state is seen twice.
            let seen = state(5 * i64::from(k), 2 + i64::from(k * 7 % 21), swing);
            track.add(&arm, &seen);
            track.add(&arm, &seen);
        }
        assert_eq!(track.len(), 400);
        let samples = track.along_motion().unwrap();
        for (k, sample) in samples.iter().enumerate() {
            assert!((sample.time_s - (0.002 + 0.005 * k as f64)).abs() < 1e-9, "{k}: {sample:?}");
        }
        // The hand is half a metre from the axis of the first joint.
        let largest = samples.iter().map(|s| s.value.abs()).fold(0.0, f64::max);
        assert!((0.1..0.3).contains(&largest), "{largest}");
    }

    #[test]
    fn a_hand_at_rest_is_no_swing() {
        let arm = Arm::new(T_flange_hand_tcp());
        let mut track = HandTrack::default();
        (0..100).for_each(|k| track.add(&arm, &state(5 * k, 2, 0.001 * (k % 2) as f64)));
        let said = track.along_motion().unwrap_err().to_string();
        assert!(said.contains("30 mm are wanted"), "{said}");
        assert!(HandTrack::default().along_motion().is_err());
    }
}
