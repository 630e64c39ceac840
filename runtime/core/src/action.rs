//! Flat action → target pose of the tool point and gripper command; the chunk that carries actions between threads.

use nalgebra::{Translation3, UnitQuaternion, Vector3};

use crate::geometry::{Pose, pose_from_wxyz, rotation_from_6d};
use crate::spec::ActionField;

/// Most values (Tp · Da) that a chunk on the robot may have: One-leg has 160, Transport 112.
pub const MAX_CHUNK_VALUES: usize = 512;

/// A sampled action chunk in physical units. `Copy`, so that it crosses threads without allocating.
#[derive(Debug, Clone, Copy)]
pub struct ActionChunk {
    /// Which request it answers.
    pub request: u64,
    /// Tp.
    pub steps: usize,
    /// Da.
    pub action_dim: usize,
    values: [f32; MAX_CHUNK_VALUES],
}

impl ActionChunk {
    /// `values`: row-major `[steps, action_dim]`. `None` if they exceed [`MAX_CHUNK_VALUES`] or are no whole rows.
    pub fn new(request: u64, action_dim: usize, values: &[f32]) -> Option<Self> {
        if action_dim == 0 || values.len() > MAX_CHUNK_VALUES || !values.len().is_multiple_of(action_dim) {
            return None;
        }
        let mut chunk = Self { request, steps: values.len() / action_dim, action_dim, values: [0.0; MAX_CHUNK_VALUES] };
        chunk.values[..values.len()].copy_from_slice(values);
        Some(chunk)
    }

    /// The action of step `i`, or `None` past the chunk's end.
    pub fn action(&self, i: usize) -> Option<&[f32]> {
        (i < self.steps).then(|| &self.values[i * self.action_dim..(i + 1) * self.action_dim])
    }
}

/// What one action asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolTarget {
    pub T_base_tcp: Pose,
    /// −1 open … +1 close; `None` where the action has no gripper.
    pub gripper: Option<f64>,
}

/// Decodes one action against the pose commanded last. `None` if a value is not finite or the rotation rows are
/// parallel: such an action must never be commanded. Also `None` for fields that only a simulation understands.
pub fn decode_action(fields: &[ActionField], commanded: &Pose, action: &[f32]) -> Option<ToolTarget> {
    if !action.iter().all(|v| v.is_finite()) {
        return None;
    }
    let mut target = ToolTarget { T_base_tcp: *commanded, gripper: None };
    let mut rest = action;
    for field in fields {
        let (head, tail) = rest.split_at_checked(field.dim())?;
        rest = tail;
        let value = |i: usize| f64::from(head[i]);
        match field {
            ActionField::PlanarIncrement { z_m, quat_wxyz } => {
                let p = commanded.translation.vector + Vector3::new(value(0), value(1), 0.0);
                target.T_base_tcp = pose_from_wxyz([p.x, p.y, *z_m], *quat_wxyz);
            }
            ActionField::TcpPosition => {
                target.T_base_tcp.translation = Translation3::new(value(0), value(1), value(2));
            }
            ActionField::TcpRotation6d => {
                let rows: [f64; 6] = std::array::from_fn(value);
                target.T_base_tcp.rotation = rotation_from_6d(&rows)?;
            }
            ActionField::Gripper => target.gripper = Some(value(0)),
            ActionField::Task(_) => return None,
        }
    }
    // Interpolation takes the short way; both signs of a quaternion are the same rotation.
    if target.T_base_tcp.rotation.coords.dot(&commanded.rotation.coords) < 0.0 {
        target.T_base_tcp.rotation = UnitQuaternion::new_unchecked(-target.T_base_tcp.rotation.into_inner());
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVOID: [ActionField; 1] = [ActionField::PlanarIncrement { z_m: 0.12, quat_wxyz: [0.0, 1.0, 0.0, 0.0] }];

    #[test]
    fn a_planar_increment_moves_the_commanded_position() {
        let commanded = pose_from_wxyz([0.5, -0.2, 0.12], [0.0, 1.0, 0.0, 0.0]);
        let target = decode_action(&AVOID, &commanded, &[0.01, -0.005]).expect("a finite action decodes");
        let p = target.T_base_tcp.translation.vector;
        assert!((p - Vector3::new(0.51, -0.205, 0.12)).norm() < 1e-8);
    }

    #[test]
    fn nan_and_short_actions_are_refused() {
        let commanded = Pose::identity();
        assert!(decode_action(&AVOID, &commanded, &[f32::NAN, 0.0]).is_none());
        assert!(decode_action(&AVOID, &commanded, &[0.0]).is_none());
        assert!(ActionChunk::new(0, 2, &[0.0; 3]).is_none());
    }

    #[test]
    fn a_chunk_ends() {
        let chunk = ActionChunk::new(1, 2, &[1.0, 2.0, 3.0, 4.0]).expect("two whole rows");
        assert_eq!(chunk.action(1), Some(&[3.0, 4.0][..]));
        assert_eq!(chunk.action(2), None);
    }
}
