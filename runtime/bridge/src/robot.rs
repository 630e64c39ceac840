//! From the wire's robot state to a checked one.

use tenon_core::arm::Joints;
use tenon_core::message::{GripperPhase, RobotState};
use tenon_core::time::RobotTime;
use tenon_polymetis::proto;

/// Why a state of the server is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("{field} has {found} values; this bridge drives arms of 7 joints")]
    Count { field: &'static str, found: usize },
    #[error("{field} of joint {} is not finite", joint + 1)]
    NotFinite { field: &'static str, joint: usize },
    #[error("the state has no timestamp")]
    NoStamp,
}

/// Checks a state. `sequence` is the number it gets.
///
/// # Errors
/// [`StateError`]
pub fn robot_state(message: &proto::RobotState, sequence: u64) -> Result<RobotState, StateError> {
    let stamp = message.timestamp.as_ref().ok_or(StateError::NoStamp)?;
    let nanos = stamp.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.nanos));
    let external = &message.motor_torques_external;
    Ok(RobotState {
        sequence,
        robot_time: RobotTime::from_nanos(nanos),
        joint_positions_rad: joints("joint_positions", &message.joint_positions)?,
        joint_velocities_rad_s: joints("joint_velocities", &message.joint_velocities)?,
        // Simulations of others leave it out.
        joint_torques_external_nm: if external.is_empty() {
            [0.0; 7]
        } else {
            joints("motor_torques_external", external)?
        },
        gripper_width_m: f64::NAN,
        gripper: GripperPhase::Absent,
        error_code: message.error_code,
    })
}

fn joints(field: &'static str, values: &[f32]) -> Result<Joints, StateError> {
    let values: &[f32; 7] = values.try_into().map_err(|_| StateError::Count { field, found: values.len() })?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(joint) => Err(StateError::NotFinite { field, joint }),
        None => Ok(values.map(f64::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_needs_seven_finite_joints_and_a_stamp() {
        let whole = proto::RobotState {
            timestamp: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            joint_positions: vec![0.5; 7],
            joint_velocities: vec![0.0; 7],
            ..Default::default()
        };
        let state = robot_state(&whole, 3).unwrap();
        assert_eq!((state.sequence, state.robot_time.as_nanos()), (3, 2_000_000_005));
        assert!(state.gripper_width_m.is_nan());
        let mut short = whole.clone();
        short.joint_positions.pop();
        assert!(matches!(robot_state(&short, 3), Err(StateError::Count { found: 6, .. })));
        let mut nan = whole.clone();
        nan.joint_velocities[2] = f32::NAN;
        assert!(matches!(robot_state(&nan, 3), Err(StateError::NotFinite { joint: 2, .. })));
        assert_eq!(robot_state(&proto::RobotState::default(), 3), Err(StateError::NoStamp));
    }
}
