//! Leave-one-out: how well each view is explained by a camera that was calibrated without it.
//!
//! Calibrating again for every view is slow; one Newton step away from the joint solution does. Taking view i out leaves the
//! reduced normal matrix S − S_i and, since all reduced gradients add to zero at the solution, the gradient −g_i: the
//! parameters move by (S − S_i)⁻¹ g_i. Then the view's own pose is fitted to that camera and its error measured.

use super::View;
use super::model::{MatrixN, N, Parameters, camera_of};
use super::solve::{Block, Solution, with_kept};
use tenon_vision::refine::{Correspondence, refine_pose};
use tenon_vision::{Camera, Pose};

/// Root mean square error of a view under a camera that has not seen it, px, with its pose fitted from `start`; distances
/// beyond `clip_px` count as that, so that one wrong corner does not condemn a view. Infinite when no pose fits.
pub fn held_out_rms_px(camera: &Camera, start: &Pose, seen: &[Correspondence], clip_px: f64) -> f64 {
    let Some(refined) = refine_pose(camera, start, seen) else { return f64::INFINITY };
    let mut sum = 0.0;
    for c in seen {
        let Some([u, v]) = camera.project(&(refined.T_camera_body * c.point_m)) else { return f64::INFINITY };
        sum += (u - c.pixel[0]).hypot(v - c.pixel[1]).min(clip_px).powi(2);
    }
    (sum / seen.len() as f64).sqrt()
}

/// Parameters without each view. `None` where the others do not fix them.
pub(super) fn without_each(views: &[&View], solution: &Solution, mask: &[bool; N]) -> Option<Vec<Option<Parameters>>> {
    let camera = camera_of(&solution.parameters).ok()?;
    let mut S = MatrixN::zeros();
    let mut reduced = Vec::with_capacity(views.len());
    for (view, pose) in views.iter().zip(&solution.poses) {
        let one = Block::new(&camera, pose, &view.view.points, mask, solution.delta_px)?.reduced()?;
        S += one.information;
        reduced.push(one);
    }
    Some(
        reduced
            .iter()
            .map(|one| {
                let step = with_kept(S - one.information, mask).cholesky()?.solve(&one.gradient);
                Some(std::array::from_fn(|i| solution.parameters[i] + step[i]))
            })
            .collect(),
    )
}

/// Held-out error of each view, px.
pub(super) fn held_out_errors_px(views: &[&View], solution: &Solution, mask: &[bool; N], clip_px: f64) -> Vec<f64> {
    let Some(parameters) = without_each(views, solution, mask) else { return vec![f64::INFINITY; views.len()] };
    parameters
        .iter()
        .zip(views)
        .zip(&solution.poses)
        .map(|((parameters, view), pose)| {
            let camera = parameters.and_then(|parameters| camera_of(&parameters).ok());
            camera.map_or(f64::INFINITY, |camera| held_out_rms_px(&camera, pose, &view.view.points, clip_px))
        })
        .collect()
}
