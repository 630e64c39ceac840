//! Inertia and motion of an arm within a larger world.

use mujoco_rs::mujoco_c::mjtJoint;
use mujoco_rs::wrappers::mj_model::MjtObj;
use nalgebra::{SMatrix, SVector};

use super::{Model, Simulation};
use crate::error::SimError;

/// Hinge joints that carry one another, beginning at a body that does not move: where their values stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HingeChain<const N: usize> {
    joints: [usize; N],
    qpos: [usize; N],
    dofs: [usize; N],
    /// Place of M(row, column), column ≤ row, in the sparse inertia matrix.
    inertia: [[usize; N]; N],
}

impl Model {
    /// The chain of these joints, from the base outwards.
    ///
    /// # Errors
    /// [`SimError::UnknownName`] where a joint is missing or does not hang on the one before it.
    pub fn hinge_chain<const N: usize>(&self, names: &[String; N]) -> Result<HingeChain<N>, SimError> {
        let mut chain = HingeChain { joints: [0; N], qpos: [0; N], dofs: [0; N], inertia: [[0; N]; N] };
        for (index, name) in names.iter().enumerate() {
            let id = self.id(MjtObj::mjOBJ_JOINT, "joint", name)?;
            let dof = self.0.jnt_dofadr()[id] as usize;
            let parent = if index == 0 { -1 } else { chain.dofs[index - 1] as i32 };
            if self.0.jnt_type()[id] != mjtJoint::mjJNT_HINGE || self.0.dof_parentid()[dof] != parent {
                return Err(SimError::UnknownName { kind: "hinge joint in a chain", name: name.clone() });
            }
            chain.joints[index] = id;
            chain.qpos[index] = self.0.jnt_qposadr()[id] as usize;
            chain.dofs[index] = dof;
            // A row of the inertia matrix begins on its diagonal and goes on towards the base.
            // SAFETY: the array has one entry for each degree of freedom.
            let diagonal = unsafe { *self.0.ffi().dof_Madr.add(dof) } as usize;
            for column in 0..=index {
                chain.inertia[index][column] = diagonal + index - column;
            }
        }
        Ok(chain)
    }
}

impl<const N: usize> HingeChain<N> {
    /// Angles, radians.
    pub fn positions(&self, simulation: &Simulation) -> SVector<f64, N> {
        let qpos = simulation.qpos();
        SVector::from_fn(|index, _| qpos[self.qpos[index]])
    }

    /// Sets the angles, radians.
    pub fn set_positions(&self, simulation: &mut Simulation, positions: &SVector<f64, N>) {
        let qpos = simulation.qpos_mut();
        for index in 0..N {
            qpos[self.qpos[index]] = positions[index];
        }
    }

    /// Joint velocities, rad/s.
    pub fn velocities(&self, simulation: &Simulation) -> SVector<f64, N> {
        let qvel = simulation.qvel();
        SVector::from_fn(|index, _| qvel[self.dofs[index]])
    }

    /// Torques of gravity and of the motion itself, Nm; see [`Simulation::bias_force`].
    pub fn bias_torques(&self, simulation: &Simulation) -> SVector<f64, N> {
        let bias = simulation.bias_force();
        SVector::from_fn(|index, _| bias[self.dofs[index]])
    }

    /// The chain's block of the inertia matrix as the last first half of a step or forward pass left it, kg m².
    pub fn inertia(&self, simulation: &Simulation) -> SMatrix<f64, N, N> {
        let entries = simulation.sparse_inertia();
        SMatrix::from_fn(|row, column| entries[self.inertia[row.max(column)][row.min(column)]])
    }

    /// Jacobian of a point that the last joint carries, in the world frame, as of the last first half of a step or
    /// forward pass: a column for each joint, linear rows (aᵢ × (p − oᵢ)) before angular ones (aᵢ).
    pub fn jacobian(&self, simulation: &Simulation, point_m: &[f64; 3]) -> SMatrix<f64, 6, N> {
        let (axes, anchors) = (simulation.0.xaxis(), simulation.0.xanchor());
        let mut jacobian = SMatrix::<f64, 6, N>::zeros();
        for (column, &joint) in self.joints.iter().enumerate() {
            let [ax, ay, az] = axes[joint];
            let [rx, ry, rz]: [f64; 3] = std::array::from_fn(|axis| point_m[axis] - anchors[joint][axis]);
            let entries = [ay * rz - az * ry, az * rx - ax * rz, ax * ry - ay * rx, ax, ay, az];
            jacobian.set_column(column, &SVector::from(entries));
        }
        jacobian
    }
}

impl Simulation {
    fn sparse_inertia(&self) -> &[f64] {
        let len = self.0.model().ffi().nM as usize;
        // SAFETY: MuJoCo allocates that many entries with the world.
        unsafe { std::slice::from_raw_parts(self.0.ffi().qM, len) }
    }
}
