//! Differential inverse kinematics: a target pose becomes one joint step (spec robot_control.md §5.1).

use nalgebra::{SMatrix, SVector, Vector6};

use crate::arm::{Arm, JointLimits, Joints};
use crate::geometry::{Pose, pose_error};

/// How the least-squares problem is damped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Damping {
    /// Minimum-norm least squares, the paper's choice.
    None,
    /// λ rises linearly from 0 at `sigma_start` to `lambda_max` at a smallest singular value of 0.
    NearSingular { sigma_start: f64, lambda_max: f64 },
}

/// What became of a target pose. `joint_positions_rad` is always finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum IkOutcome {
    /// The full first-order step.
    Reached { joint_positions_rad: Joints },
    /// A joint would have left its range; the step was clipped there.
    Limited { joint_positions_rad: Joints, joint: usize },
    /// The Jacobian is (nearly) singular and no damping was asked for, or the target is not finite: the joints stay.
    Singular { joint_positions_rad: Joints, smallest_singular_value: f64 },
}

impl IkOutcome {
    pub fn joint_positions_rad(&self) -> Joints {
        match *self {
            Self::Reached { joint_positions_rad }
            | Self::Limited { joint_positions_rad, .. }
            | Self::Singular { joint_positions_rad, .. } => joint_positions_rad,
        }
    }
}

/// Below this smallest singular value the undamped solution is refused: a 1 cm error would ask for 10 rad.
pub const SINGULAR_BELOW: f64 = 1e-3;

/// One Newton step from `q` toward the tool pose `T_base_tcp`: q + J⁺ [p* − p; rotvec(R* Rᵀ)].
///
/// The flange Jacobian is used, as the authors do: the target is first moved to the flange, where both formulations
/// have the same solution. `limits`: the range that the result is clipped to, with `reserve_rad` on both sides.
pub fn differential_ik(
    arm: &Arm,
    q: &Joints,
    T_base_tcp: &Pose,
    damping: Damping,
    limits: &JointLimits,
    reserve_rad: f64,
) -> IkOutcome {
    let target = arm.flange_of_tcp(T_base_tcp);
    let (flange, J) = arm.flange_jacobian(q);
    let e: Vector6<f64> = pose_error(&flange, &target);
    if !e.iter().all(|v| v.is_finite()) {
        return IkOutcome::Singular { joint_positions_rad: *q, smallest_singular_value: f64::NAN };
    }
    // J J' = U Σ² U', so J⁺ = J' U Σ⁻² U' : a 6×6 symmetric problem instead of a 6×7 decomposition.
    let JJt: SMatrix<f64, 6, 6> = J * J.transpose();
    let eigen = JJt.symmetric_eigen();
    let smallest = eigen.eigenvalues.min().max(0.0).sqrt();
    let lambda = match damping {
        Damping::None if smallest < SINGULAR_BELOW => {
            return IkOutcome::Singular { joint_positions_rad: *q, smallest_singular_value: smallest };
        }
        Damping::None => 0.0,
        Damping::NearSingular { sigma_start, lambda_max } => {
            lambda_max * (1.0 - smallest / sigma_start).clamp(0.0, 1.0)
        }
    };
    let mut y = eigen.eigenvectors.transpose() * e;
    for i in 0..6 {
        y[i] /= eigen.eigenvalues[i].max(SINGULAR_BELOW * SINGULAR_BELOW) + lambda * lambda;
    }
    let dq: SVector<f64, 7> = J.transpose() * (eigen.eigenvectors * y);
    let mut joint_positions_rad = *q;
    let mut limited = None;
    for i in 0..7 {
        let wanted = q[i] + dq[i];
        let inside = wanted.clamp(limits.lower_rad[i] + reserve_rad, limits.upper_rad[i] - reserve_rad);
        if inside != wanted {
            limited = Some(i);
        }
        joint_positions_rad[i] = inside;
    }
    match limited {
        Some(joint) => IkOutcome::Limited { joint_positions_rad, joint },
        None => IkOutcome::Reached { joint_positions_rad },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::{RobotModel, T_flange_hand_tcp};
    use nalgebra::Translation3;

    const RESET: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];

    #[test]
    fn repeated_steps_reach_a_nearby_pose() {
        let arm = Arm::new(T_flange_hand_tcp());
        let limits = RobotModel::Fer.limits();
        let target = Translation3::new(0.03, -0.02, 0.01) * arm.tcp(&RESET);
        let mut q = RESET;
        for _ in 0..5 {
            q = match differential_ik(&arm, &q, &target, Damping::None, &limits, 0.05) {
                IkOutcome::Reached { joint_positions_rad } => joint_positions_rad,
                other => panic!("{other:?}"),
            };
        }
        assert!(pose_error(&arm.tcp(&q), &target).norm() < 1e-10);
    }

    #[test]
    fn a_nan_target_leaves_the_joints_alone() {
        let arm = Arm::new(T_flange_hand_tcp());
        let target = Translation3::new(f64::NAN, 0.0, 0.0) * arm.tcp(&RESET);
        let outcome = differential_ik(&arm, &RESET, &target, Damping::None, &RobotModel::Fer.limits(), 0.05);
        assert!(matches!(outcome, IkOutcome::Singular { joint_positions_rad, .. } if joint_positions_rad == RESET));
    }

    #[test]
    fn a_stretched_arm_is_singular_without_damping_and_calm_with_it() {
        let arm = Arm::new(T_flange_hand_tcp());
        // Wrist singularity: joint 6 at 0 lines up axes 5 and 7 far enough for a tiny singular value.
        let q = [0.0, 0.0, 0.0, -0.07, 0.0, 0.0, 0.0];
        let target = Translation3::new(0.01, 0.01, 0.0) * arm.tcp(&q);
        let limits = RobotModel::Fer.limits();
        let (_, J) = arm.flange_jacobian(&q);
        let smallest = (J * J.transpose()).symmetric_eigen().eigenvalues.min().max(0.0).sqrt();
        assert!(smallest < 0.05, "{smallest}");
        let damped = differential_ik(
            &arm,
            &q,
            &target,
            Damping::NearSingular { sigma_start: 0.05, lambda_max: 0.05 },
            &limits,
            0.0,
        );
        for (a, b) in damped.joint_positions_rad().iter().zip(q) {
            assert!((a - b).abs() < 0.5, "{damped:?}");
        }
    }
}
