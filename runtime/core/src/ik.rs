//! Differential inverse kinematics: a target pose becomes one joint step (spec robot_control.md §5.1).

use nalgebra::{SMatrix, SVector, Vector3, Vector6};

use crate::arm::{Arm, Jacobian, JointLimits, Joints};
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
    /// A joint would have left its range; it stays at its end, and the others make up for it where they can.
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

/// Bounds of a joint step, or of joint velocities, each joint's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub low: Joints,
    pub high: Joints,
}

/// A solution within its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounded {
    pub joints: Joints,
    /// Part of the task that is carried out: below 1 where the joints that are left cannot make up for those at their bounds.
    pub share: f64,
    /// A joint at its bound.
    pub limited: Option<usize>,
}

/// The flange Jacobian at some joints, factorised once for every task there.
#[derive(Debug, Clone)]
pub struct Linearised {
    flange: Pose,
    J: Jacobian,
    /// (J Jᵀ + λ² I)⁻¹
    inverse: SMatrix<f64, 6, 6>,
    lambda: f64,
}

impl Linearised {
    /// # Errors
    /// The smallest singular value, where the arm is singular and no damping was asked for.
    pub fn new(arm: &Arm, q: &Joints, damping: Damping) -> Result<Self, f64> {
        let (flange, J) = arm.flange_jacobian(q);
        // J⁺ = J' (J J')⁻¹ : a 6×6 symmetric problem instead of a 6×7 decomposition.
        let JJt: SMatrix<f64, 6, 6> = J * J.transpose();
        // Nothing is damped or refused above this singular value.
        let regular = match damping {
            Damping::None => SINGULAR_BELOW,
            Damping::NearSingular { sigma_start, .. } => sigma_start.max(SINGULAR_BELOW),
        };
        // ‖(J J')⁻¹‖ of Frobenius is at least 1/σ² of the smallest σ. So most arms are known to be far from singular without their
        // eigenvalues, which take longer than all the rest of the solution.
        if let Some(inverse) = JJt.cholesky().map(|factor| factor.inverse())
            && inverse.norm() < 1.0 / (regular * regular)
        {
            return Ok(Self { flange, J, inverse, lambda: 0.0 });
        }
        // J J' = U Σ² U'.
        let eigen = JJt.symmetric_eigen();
        let smallest = eigen.eigenvalues.min().max(0.0).sqrt();
        let lambda = match damping {
            Damping::None if smallest.is_nan() || smallest < SINGULAR_BELOW => return Err(smallest),
            Damping::None => 0.0,
            Damping::NearSingular { sigma_start, lambda_max } => {
                lambda_max * (1.0 - smallest / sigma_start).clamp(0.0, 1.0)
            }
        };
        let least = SINGULAR_BELOW * SINGULAR_BELOW;
        let inverse = eigen.eigenvalues.map(|value| 1.0 / (value.max(least) + lambda * lambda));
        let U = eigen.eigenvectors;
        let inverse = U * SMatrix::<f64, 6, 6>::from_diagonal(&inverse) * U.transpose();
        Ok(Self { flange, J, inverse, lambda })
    }

    /// The task of bringing the tool to `T_base_tcp`, as a displacement of the flange: the authors' formulation, with the same
    /// solution as one in the tool's own Jacobian.
    pub fn error_to(&self, arm: &Arm, T_base_tcp: &Pose) -> Vector6<f64> {
        pose_error(&self.flange, &arm.flange_of_tcp(T_base_tcp))
    }

    /// Velocity of the flange of a tool that moves with `linear_m_s`, `angular_rad_s` (base axes) at `T_base_tcp`.
    pub fn flange_twist(
        &self,
        arm: &Arm,
        T_base_tcp: &Pose,
        linear_m_s: &Vector3<f64>,
        angular_rad_s: &Vector3<f64>,
    ) -> Vector6<f64> {
        let lever = arm.flange_of_tcp(T_base_tcp).translation.vector - T_base_tcp.translation.vector;
        let v = linear_m_s + angular_rad_s.cross(&lever);
        Vector6::new(v.x, v.y, v.z, angular_rad_s.x, angular_rad_s.y, angular_rad_s.z)
    }

    /// J⁺ `task`: least squares of least norm, damped where asked for.
    pub fn solve(&self, task: &Vector6<f64>) -> SVector<f64, 7> {
        self.J.transpose() * (self.inverse * task)
    }

    /// The part of `joints` that does not move the flange: (I − J⁺ J) `joints`.
    pub fn null_space(&self, joints: &Joints) -> SVector<f64, 7> {
        let joints = SVector::<f64, 7>::from(*joints);
        joints - self.solve(&(self.J * joints))
    }

    /// `task` within bounds, with `beside` (of the null space) as long as it fits.
    ///
    /// A joint that would pass its bound is set to it, and the others make up for it where they can (saturation in the null
    /// space, Flacco et al. 2012); where they cannot, the task is carried out in part, in its own direction.
    pub fn solve_within(&self, task: &Vector6<f64>, beside: &SVector<f64, 7>, bounds: &Bounds) -> Bounded {
        let inside = |i: usize, x: f64| x >= bounds.low[i] - ROUNDING && x <= bounds.high[i] + ROUNDING;
        let plain = self.solve(task);
        let both = plain + beside;
        if (0..7).all(|i| inside(i, both[i])) {
            return Bounded { joints: both.into(), share: 1.0, limited: None };
        }
        if (0..7).all(|i| inside(i, plain[i])) {
            return Bounded { joints: plain.into(), share: 1.0, limited: None };
        }
        let over = |dq: &SVector<f64, 7>, i: usize| (bounds.low[i] - dq[i]).max(dq[i] - bounds.high[i]);
        let worst = |dq: &SVector<f64, 7>| (0..7).max_by(|&a, &b| over(dq, a).total_cmp(&over(dq, b))).unwrap_or(0);
        let first = worst(&plain);
        // One joint can be spared: six are left for six tasks.
        let mut set = SVector::<f64, 7>::zeros();
        set[first] = plain[first].clamp(bounds.low[first].min(bounds.high[first]), bounds.high[first]);
        let mut free = self.J;
        free.column_mut(first).fill(0.0);
        let damp = self.lambda.max(SINGULAR_BELOW).powi(2);
        let JJt = free * free.transpose() + SMatrix::<f64, 6, 6>::identity() * damp;
        if let Some(factor) = JJt.cholesky() {
            let rest = task - self.J * set;
            let dq = set + free.transpose() * factor.solve(&rest);
            let left = (self.J * dq - task).norm();
            if (0..7).all(|i| inside(i, dq[i])) && left <= MADE_UP * task.norm() && dq.norm() <= DETOUR * plain.norm() {
                return Bounded { joints: dq.into(), share: 1.0, limited: Some(first) };
            }
        }
        let share_of = |i: usize| {
            let bound = if plain[i] > 0.0 { bounds.high[i].max(0.0) } else { bounds.low[i].min(0.0) };
            if inside(i, plain[i]) { 1.0 } else { (bound / plain[i]).clamp(0.0, 1.0) }
        };
        let share = (0..7).map(share_of).fold(1.0, f64::min);
        Bounded { joints: (plain * share).into(), share, limited: Some(first) }
    }
}

/// Bounds may be passed by the last bits of a solution.
const ROUNDING: f64 = 1e-12;
/// A joint at its bound counts as made up for when so much of the task is left over.
const MADE_UP: f64 = 0.02;
/// Unless that takes so much longer a way: the six that are left may be singular.
const DETOUR: f64 = 3.0;

/// One Newton step from `q` toward the tool pose `T_base_tcp`: q + J⁺ [p* − p; rotvec(R* Rᵀ)].
///
/// `limits`: the range that the result is kept in, with `reserve_rad` on both sides; a joint that stands outside may stay there
/// or come back.
pub fn differential_ik(
    arm: &Arm,
    q: &Joints,
    T_base_tcp: &Pose,
    damping: Damping,
    limits: &JointLimits,
    reserve_rad: f64,
) -> IkOutcome {
    let stay = |smallest_singular_value| IkOutcome::Singular { joint_positions_rad: *q, smallest_singular_value };
    let linearised = match Linearised::new(arm, q, damping) {
        Ok(linearised) => linearised,
        Err(smallest) => return stay(smallest),
    };
    let task = linearised.error_to(arm, T_base_tcp);
    if !task.iter().all(|v| v.is_finite()) {
        return stay(f64::NAN);
    }
    let bounds = Bounds {
        low: std::array::from_fn(|i| (limits.lower_rad[i] + reserve_rad - q[i]).min(0.0)),
        high: std::array::from_fn(|i| (limits.upper_rad[i] - reserve_rad - q[i]).max(0.0)),
    };
    let step = linearised.solve_within(&task, &SVector::zeros(), &bounds);
    let joint_positions_rad = std::array::from_fn(|i| q[i] + step.joints[i]);
    match step.limited {
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

    /// A joint that is held by a bound is made up for by the others; where that is not possible the way is shortened, not bent.
    #[test]
    fn bounds_are_kept_and_the_direction_too() {
        let arm = Arm::new(T_flange_hand_tcp());
        let at = Linearised::new(&arm, &RESET, Damping::None).unwrap();
        let task = Vector6::new(0.02, 0.01, -0.01, 0.0, 0.0, 0.05);
        let free = at.solve(&task);
        let mut bounds = Bounds { low: [-1.0; 7], high: [1.0; 7] };
        let whole = at.solve_within(&task, &SVector::zeros(), &bounds);
        assert_eq!((whole.joints, whole.share, whole.limited), (free.into(), 1.0, None));
        // Joint 3 is held: six are left.
        (bounds.low[2], bounds.high[2]) = (0.0, 0.0);
        let held = at.solve_within(&task, &SVector::zeros(), &bounds);
        assert_eq!((held.joints[2], held.share, held.limited), (0.0, 1.0, Some(2)));
        let done = at.J * SVector::<f64, 7>::from(held.joints);
        assert!((done - task).norm() < 0.02 * task.norm(), "{done}");
        // Joint 6 as well: less of the way, but the same.
        (bounds.low[5], bounds.high[5]) = (-0.3 * free[5].abs(), 0.3 * free[5].abs());
        let less = at.solve_within(&task, &SVector::zeros(), &bounds);
        assert!((0..7).all(|i| less.joints[i] >= bounds.low[i] - 1e-9 && less.joints[i] <= bounds.high[i] + 1e-9));
        let done = at.J * SVector::<f64, 7>::from(less.joints);
        assert!((done - task * less.share).norm() < 1e-9 && less.share < 0.5, "{}", less.share);
    }

    /// Far from and near to singular arms are solved in different ways, which have to agree where both are possible.
    #[test]
    fn both_ways_of_solving_agree() {
        let arm = Arm::new(T_flange_hand_tcp());
        let task = Vector6::new(0.02, 0.01, -0.01, 0.03, 0.0, 0.05);
        for (elbow, tolerance) in [(-2.2, 1e-12), (-0.5, 1e-11), (-0.2, 1e-10)] {
            let q = [0.1, 0.2, -0.1, elbow, 0.2, 1.9, 0.3];
            let quick = Linearised::new(&arm, &q, Damping::None).unwrap();
            // No arm is this far from singular, so its eigenvalues are asked for; nothing is damped.
            let slow = Linearised::new(&arm, &q, Damping::NearSingular { sigma_start: 1e9, lambda_max: 0.0 }).unwrap();
            assert_ne!(quick.inverse, slow.inverse, "two ways");
            assert!((quick.solve(&task) - slow.solve(&task)).norm() < tolerance, "{elbow}");
            assert_eq!((quick.lambda, slow.lambda), (0.0, 0.0));
        }
        // Damping begins where it is asked to, whichever way finds that out.
        let q = [0.1, 0.2, -0.1, -2.2, 0.2, 1.9, 0.3];
        let (_, J) = arm.flange_jacobian(&q);
        let smallest = (J * J.transpose()).symmetric_eigen().eigenvalues.min().sqrt();
        let damped = |sigma_start| {
            Linearised::new(&arm, &q, Damping::NearSingular { sigma_start, lambda_max: 0.05 }).unwrap().lambda
        };
        assert!(damped(smallest * 0.99) == 0.0 && damped(smallest * 1.01) > 0.0, "{smallest}");
    }

    #[test]
    fn the_null_space_does_not_move_the_flange_and_the_flange_moves_with_its_tool() {
        let arm = Arm::new(T_flange_hand_tcp());
        let at = Linearised::new(&arm, &RESET, Damping::None).unwrap();
        let beside = at.null_space(&[0.1, -0.1, 0.2, 0.0, 0.1, 0.0, -0.2]);
        assert!(beside.norm() > 0.01 && (at.J * beside).norm() < 1e-9, "{beside} {}", at.J * beside);
        let (tcp, J) = arm.tcp_jacobian(&RESET);
        let dq = SVector::<f64, 7>::from([0.3, 0.1, -0.2, 0.4, 0.5, -0.1, 0.2]);
        let twist = J * dq;
        let (v, w) = (twist.fixed_rows::<3>(0).into_owned(), twist.fixed_rows::<3>(3).into_owned());
        assert!((at.flange_twist(&arm, &tcp, &v, &w) - at.J * dq).norm() < 1e-12);
    }
}
