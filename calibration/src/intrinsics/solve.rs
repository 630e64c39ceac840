//! The joint solution: parameters and board poses together, Levenberg–Marquardt on pixels, Huber's loss.
//!
//! Minimises Σ ρ(|π(θ, T_i p_ij) − u_ij|) with ρ quadratic up to δ and linear beyond. The normal equations
//!
//! ```text
//! | A   B_1 B_2 … |   A   = Σ_i A_i   (9 × 9, parameters)
//! | B_1ᵀ C_1      |   B_i             (9 × 6)
//! | B_2ᵀ     C_2  |   C_i             (6 × 6, twist [v; ω] of T_camera_board, T ← exp(ξ) T)
//! ```
//!
//! are reduced to the parameters by the Schur complement S = A − Σ B_i C_i⁻¹ B_iᵀ; σ² S⁻¹ is the parameters' covariance.

use super::View;
use super::model::{MatrixN, N, Parameters, VectorN, camera_of, project};
use nalgebra::{Matrix2x6, Matrix6, SMatrix, Vector2, Vector6};
use tenon_core::geometry::exp_se3;
use tenon_vision::refine::Correspondence;
use tenon_vision::{Camera, Pose};

type Matrix9x6 = SMatrix<f64, N, 6>;

/// Contribution of one view to the normal equations; masked parameters have empty rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    A: MatrixN,
    B: Matrix9x6,
    C: Matrix6<f64>,
    by_parameters: VectorN,
    by_pose: Vector6<f64>,
}

/// A block without its pose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduced {
    /// A − B C⁻¹ Bᵀ.
    pub information: MatrixN,
    /// Gradient of the parameters after the pose has followed.
    pub gradient: VectorN,
}

impl Block {
    /// `delta_px`: Huber's threshold. `None` when a point lies behind the camera.
    pub fn new(camera: &Camera, pose: &Pose, seen: &[Correspondence], mask: &[bool; N], delta_px: f64) -> Option<Self> {
        let mut block = Self {
            A: MatrixN::zeros(),
            B: Matrix9x6::zeros(),
            C: Matrix6::zeros(),
            by_parameters: VectorN::zeros(),
            by_pose: Vector6::zeros(),
        };
        for c in seen {
            let point = pose * c.point_m;
            let (pixel, by_point, mut J) = project(camera, &point)?;
            for (i, free) in mask.iter().enumerate() {
                if !free {
                    J.column_mut(i).fill(0.0);
                }
            }
            let mut by_twist = Matrix2x6::zeros();
            by_twist.fixed_columns_mut::<3>(0).copy_from(&by_point);
            by_twist.fixed_columns_mut::<3>(3).copy_from(&(-by_point * point.coords.cross_matrix()));
            let residual = Vector2::new(pixel[0] - c.pixel[0], pixel[1] - c.pixel[1]);
            let weight = huber_weight(residual.norm(), delta_px);
            block.A += J.transpose() * J * weight;
            block.B += J.transpose() * by_twist * weight;
            block.C += by_twist.transpose() * by_twist * weight;
            block.by_parameters += J.transpose() * residual * weight;
            block.by_pose += by_twist.transpose() * residual * weight;
        }
        Some(block)
    }

    /// Eliminates the pose. `None` when the view does not fix it.
    pub fn reduced(&self) -> Option<Reduced> {
        let inverse = self.C.cholesky()?;
        let follow = inverse.solve(&self.B.transpose());
        Some(Reduced {
            information: self.A - self.B * follow,
            gradient: self.by_parameters - follow.transpose() * self.by_pose,
        })
    }
}

/// Adds 1 on the diagonal of parameters that are kept, so that a matrix of the free ones can be inverted.
pub(super) fn with_kept(mut S: MatrixN, mask: &[bool; N]) -> MatrixN {
    for (i, free) in mask.iter().enumerate() {
        if !free {
            S[(i, i)] = 1.0;
        }
    }
    S
}

pub(super) fn huber_weight(error_px: f64, delta_px: f64) -> f64 {
    if error_px <= delta_px { 1.0 } else { delta_px / error_px }
}

/// ρ: half the square up to δ, then the tangent.
fn huber(error_px: f64, delta_px: f64) -> f64 {
    if error_px <= delta_px { 0.5 * error_px * error_px } else { delta_px * (error_px - 0.5 * delta_px) }
}

/// A solution of all parameters and poses.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub parameters: Parameters,
    pub poses: Vec<Pose>,
    /// Huber's threshold in force, px.
    pub delta_px: f64,
    pub iterations: usize,
}

const MAX_ITERATIONS: usize = 100;
/// δ over the standard deviation of a coordinate: one point in a hundred of plain noise is beyond.
const DELTA_SIGMAS: f64 = 3.0;
/// Below this δ nothing is noise any more (exact data), px.
const MIN_DELTA_PX: f64 = 1e-4;

impl Solution {
    /// `views` in the order of `poses`.
    pub fn errors_px(&self, views: &[&View]) -> Option<Vec<f64>> {
        let camera = camera_of(&self.parameters).ok()?;
        let mut errors = Vec::new();
        for (view, pose) in views.iter().zip(&self.poses) {
            for c in &view.view.points {
                let [u, v] = camera.project(&(pose * c.point_m))?;
                errors.push((u - c.pixel[0]).hypot(v - c.pixel[1]));
            }
        }
        Some(errors)
    }

    /// Standard deviation of a pixel coordinate from the median distance (1.1774 σ for plain noise).
    pub fn robust_sigma_px(&self, views: &[&View]) -> Option<f64> {
        let mut errors = self.errors_px(views)?;
        errors.sort_by(f64::total_cmp);
        let median = *errors.get(errors.len() / 2)?;
        median.is_finite().then_some(median / 1.1774)
    }
}

/// Solves from a start, the loss's threshold following the noise. `None` when the problem is singular or not finite.
pub(super) fn solve(views: &[&View], parameters: Parameters, poses: Vec<Pose>, mask: &[bool; N]) -> Option<Solution> {
    let mut solution = Solution { parameters, poses, delta_px: 0.0, iterations: 0 };
    for _ in 0..8 {
        let delta_px = (DELTA_SIGMAS * solution.robust_sigma_px(views)?).max(MIN_DELTA_PX);
        let settled = (delta_px - solution.delta_px).abs() < 0.02 * delta_px;
        if settled {
            break;
        }
        solution.delta_px = delta_px;
        minimise(views, &mut solution, mask)?;
    }
    Some(solution)
}

/// Levenberg–Marquardt at a fixed threshold.
pub(super) fn minimise(views: &[&View], solution: &mut Solution, mask: &[bool; N]) -> Option<()> {
    let delta_px = solution.delta_px;
    let mut cost = total_cost(views, &solution.parameters, &solution.poses, delta_px)?;
    let mut damping = 1e-4;
    let mut steps = vec![Vector6::zeros(); views.len()];
    let mut candidates = solution.poses.clone();
    while solution.iterations < MAX_ITERATIONS {
        solution.iterations += 1;
        let camera = camera_of(&solution.parameters).ok()?;
        let blocks: Vec<Block> = views
            .iter()
            .zip(&solution.poses)
            .map(|(view, pose)| Block::new(&camera, pose, &view.view.points, mask, delta_px))
            .collect::<Option<_>>()?;
        loop {
            let parameter_step = damped_step(&blocks, mask, damping, &mut steps);
            let candidate: Option<(Parameters, f64)> = parameter_step.and_then(|step| {
                let parameters: Parameters = std::array::from_fn(|i| solution.parameters[i] + step[i]);
                for ((candidate, pose), twist) in candidates.iter_mut().zip(&solution.poses).zip(&steps) {
                    *candidate = exp_se3(twist) * pose;
                }
                let lower = total_cost(views, &parameters, &candidates, delta_px)?;
                Some((parameters, lower))
            });
            match candidate {
                Some((parameters, lower)) if lower <= cost => {
                    let gain = cost - lower;
                    solution.parameters = parameters;
                    solution.poses.copy_from_slice(&candidates);
                    cost = lower;
                    damping = (damping * 0.1).max(1e-12);
                    // Far below what the noise leaves open: parameters move by less than a thousandth of their deviation.
                    if gain <= 1e-11 * cost || cost < 1e-18 {
                        for pose in &mut solution.poses {
                            pose.rotation.renormalize();
                        }
                        return Some(());
                    }
                    break;
                }
                _ => {
                    damping *= 10.0;
                    if damping > 1e10 {
                        return Some(());
                    }
                }
            }
        }
    }
    Some(())
}

fn total_cost(views: &[&View], parameters: &Parameters, poses: &[Pose], delta_px: f64) -> Option<f64> {
    let camera = camera_of(parameters).ok()?;
    let mut cost = 0.0;
    for (view, pose) in views.iter().zip(poses) {
        for c in &view.view.points {
            let [u, v] = camera.project(&(pose * c.point_m))?;
            cost += huber((u - c.pixel[0]).hypot(v - c.pixel[1]), delta_px);
        }
    }
    // A NaN must not look like a good fit to a comparison.
    cost.is_finite().then_some(cost)
}

/// Step of the parameters, and into `steps` of every pose, with Marquardt's scaling.
fn damped_step(blocks: &[Block], mask: &[bool; N], damping: f64, steps: &mut [Vector6<f64>]) -> Option<VectorN> {
    let mut S = MatrixN::zeros();
    let mut right = VectorN::zeros();
    let damped = |block: &Block| {
        let mut C = block.C;
        for i in 0..6 {
            C[(i, i)] += damping * block.C[(i, i)].max(1e-9);
        }
        C.cholesky()
    };
    let mut diagonal = VectorN::zeros();
    for block in blocks {
        let follow = damped(block)?.solve(&block.B.transpose());
        S += block.A - block.B * follow;
        right += block.by_parameters - follow.transpose() * block.by_pose;
        diagonal += block.A.diagonal();
    }
    for i in 0..N {
        S[(i, i)] += damping * diagonal[i];
    }
    let step: VectorN = -with_kept(S, mask).cholesky()?.solve(&right);
    for (block, twist) in blocks.iter().zip(steps) {
        *twist = -damped(block)?.solve(&(block.by_pose + block.B.transpose() * step));
    }
    Some(step)
}
