//! Robot state → the policy's observation vector, the same function for simulator and robot.

use nalgebra::Vector6;

use crate::geometry::{Pose, rotation_to_6d};
use crate::spec::ObservationField;

/// What the observation is made from; everything in the robot base frame.
#[derive(Debug, Clone, Copy)]
pub struct RobotView<'a> {
    /// Measured pose of the tool point.
    pub T_base_tcp: Pose,
    /// Twist of the tool point `[v; ω]`, m/s and rad/s, base axes.
    pub tcp_twist: Vector6<f64>,
    /// Opening between the fingers, m.
    pub gripper_width_m: f64,
    /// The last commanded pose of the tool point.
    pub T_base_commanded: Pose,
    /// The parts as [`crate::fusion::PartBoard`] writes them; empty where the policy observes none.
    pub parts: &'a [f32],
}

/// Writes the observation in physical units; normalisation is [`crate::normalizer`]'s.
///
/// `out`: sum of the fields' dims. Returns the first field that cannot be filled, as an error: one that only a simulation knows,
/// or parts of another number than `view.parts` has.
pub fn write_observation(
    fields: &[ObservationField],
    view: &RobotView<'_>,
    out: &mut [f32],
) -> Result<(), ObservationField> {
    let mut at = 0;
    let mut put = |values: &[f64]| {
        for &v in values {
            out[at] = v as f32;
            at += 1;
        }
    };
    let p = view.T_base_tcp.translation.vector;
    for &field in fields {
        match field {
            ObservationField::CommandedPosition2 => {
                let c = view.T_base_commanded.translation.vector;
                put(&[c.x, c.y]);
            }
            ObservationField::TcpPosition2 => put(&[p.x, p.y]),
            ObservationField::TcpPosition => put(&[p.x, p.y, p.z]),
            ObservationField::TcpRotation6d => put(&rotation_to_6d(&view.T_base_tcp.rotation)),
            ObservationField::TcpLinearVelocity => put(&view.tcp_twist.as_slice()[..3]),
            ObservationField::TcpAngularVelocity => put(&view.tcp_twist.as_slice()[3..]),
            ObservationField::GripperWidth => put(&[view.gripper_width_m]),
            ObservationField::PartPoses(_) if view.parts.len() == field.dim() => {
                for &v in view.parts {
                    put(&[f64::from(v)]);
                }
            }
            ObservationField::PartPoses(_) | ObservationField::Task(_) => return Err(field),
        }
    }
    Ok(())
}
