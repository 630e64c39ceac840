//! From views, or a list of image files, to intrinsics.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenon_vision::StillImage;

use super::IntrinsicsError;
use super::coverage::Coverage;
use super::leave_out::held_out_errors_px;
use super::model::{Free, MatrixN, N, PARAMETERS, camera_of};
use super::result::{DropReason, DroppedView, Intrinsics, SkippedImage, finish, tilt_deg};
use super::solve::{Block, Solution, huber_weight, solve, with_kept};
use super::start::{is_mirrored, start};
use crate::boards::{Board, BoardDetector, BoardView};

/// A board seen in one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// For messages: a file's name, or a number.
    pub name: String,
    pub view: BoardView,
}

/// What is estimated and what is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub free: Free,
    /// Fewest views, at least 3.
    pub min_views: usize,
    /// A view whose held-out error is more than this many times the median is left out.
    pub bad_view_ratio: f64,
    /// The focal length counts as unknown when its standard deviation is more than this part of it.
    pub max_focal_std_ratio: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { free: Free::default(), min_views: 5, bad_view_ratio: 2.5, max_focal_std_ratio: 0.02 }
    }
}

impl Options {
    fn check(&self) -> Result<(), IntrinsicsError> {
        let checks = [
            ("min_views", self.min_views as f64, self.min_views >= 3, "must be at least 3"),
            ("bad_view_ratio", self.bad_view_ratio, self.bad_view_ratio > 1.2, "must be more than 1.2"),
            (
                "max_focal_std_ratio",
                self.max_focal_std_ratio,
                self.max_focal_std_ratio > 0.0,
                "must be a positive part of the focal length",
            ),
        ];
        match checks.into_iter().find(|check| !check.2) {
            None => Ok(()),
            Some((option, value, _, requirement)) => Err(IntrinsicsError::Option { option, value, requirement }),
        }
    }
}

/// What happens during [`calibrate_images`].
#[derive(Debug)]
pub enum Progress<'a> {
    /// An image was looked at; the error says why it does not count.
    Image {
        index: usize,
        total: usize,
        name: &'a str,
        found: Result<&'a BoardView, String>,
    },
    /// What the views so far cover.
    Coverage(&'a Coverage),
    Solving {
        views: usize,
    },
    Dropped(&'a DroppedView),
}

/// Calibrates from image files; those without a usable board are listed in the result.
///
/// # Errors
/// As [`calibrate`]. An image that cannot be read, or has another size than the first one, is skipped with its reason.
pub fn calibrate_images(
    board: &Board,
    images: &[PathBuf],
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Intrinsics, IntrinsicsError> {
    options.check()?;
    let mut detector = BoardDetector::new(board)?;
    let mut views: Vec<View> = Vec::new();
    let mut skipped = Vec::new();
    for (index, path) in images.iter().enumerate() {
        let name = path.display().to_string();
        let found = StillImage::load(path).map_err(|error| error.to_string()).and_then(|image| {
            let view = detector.detect(image.grey.view()).map_err(|error| error.to_string())?;
            match views.first() {
                Some(first) if (first.view.width, first.view.height) != (view.width, view.height) => Err(format!(
                    "its size {}x{} px differs from {}x{} of {}: intrinsics hold for one resolution",
                    view.width, view.height, first.view.width, first.view.height, first.name
                )),
                _ => Ok(view),
            }
        });
        let total = images.len();
        progress(Progress::Image { index, total, name: &name, found: found.as_ref().map_err(Clone::clone) });
        match found {
            Ok(view) => {
                views.push(View { name, view });
                progress(Progress::Coverage(&Coverage::new(&views, None)));
            }
            Err(reason) => skipped.push(SkippedImage { name, reason }),
        }
    }
    progress(Progress::Solving { views: views.len() });
    let mut intrinsics = calibrate(board, &views, options)?;
    for dropped in &intrinsics.dropped {
        progress(Progress::Dropped(dropped));
    }
    intrinsics.skipped = skipped;
    Ok(intrinsics)
}

/// Calibrates from views of a board.
///
/// # Errors
/// Too few views, views of several resolutions, views that leave a parameter open, and when more than a third of the views
/// do not fit the others.
pub fn calibrate(board: &Board, views: &[View], options: &Options) -> Result<Intrinsics, IntrinsicsError> {
    options.check()?;
    check_views(views, options)?;
    let mask = options.free.mask();
    let mut kept: Vec<&View> = views.iter().collect();
    let mut dropped = without_mirrored(&mut kept)?;
    let begin = start(&kept)?;
    let unsolved = || IntrinsicsError::NoSolution;
    let mut solution = solve(&kept, begin.parameters, begin.poses, &mask).ok_or_else(unsolved)?;
    let first = (kept.clone(), solution.clone());
    let held_out = loop {
        let sigma = solution.robust_sigma_px(&kept).ok_or_else(unsolved)?;
        let errors = held_out_errors_px(&kept, &solution, &mask, (10.0 * sigma).max(1e-6));
        let Some((worst, typical_px)) = worst_view(&errors, options.bad_view_ratio) else { break errors };
        let name = kept.remove(worst).name.clone();
        solution.poses.remove(worst);
        dropped.push(DroppedView { name, reason: DropReason::DoesNotFit, held_out_px: errors[worst], typical_px });
        if kept.len() < 3 || dropped.len() * 3 > views.len() {
            // Views that leave the focal length open do not predict each other either: that is the cause then.
            observable(&first.0, &first.1, options)?;
            let names = names(&dropped);
            return Err(IntrinsicsError::TooManyBadViews { dropped: dropped.len(), views: views.len(), names });
        }
        // A bad view may have led the others astray: start again without it.
        let again = start(&kept)?;
        solution = solve(&kept, again.parameters, again.poses, &mask).ok_or_else(unsolved)?;
    };
    let observed = observable(&kept, &solution, options)?;
    finish(board, views, &kept, &solution, &held_out, dropped, &mask, observed)
}

fn names(dropped: &[DroppedView]) -> String {
    let names: Vec<&str> = dropped.iter().map(|view| view.name.as_str()).collect();
    names.join(", ")
}

/// Takes out the views that show the board from behind.
fn without_mirrored(kept: &mut Vec<&View>) -> Result<Vec<DroppedView>, IntrinsicsError> {
    let views = kept.len();
    let mut dropped = Vec::new();
    kept.retain(|view| {
        let mirrored = is_mirrored(&view.view);
        if mirrored {
            dropped.push(DroppedView {
                name: view.name.clone(),
                reason: DropReason::Mirrored,
                held_out_px: f64::INFINITY,
                typical_px: 0.0,
            });
        }
        !mirrored
    });
    if dropped.len() * 3 > views {
        return Err(IntrinsicsError::Mirrored { mirrored: dropped.len(), views, names: names(&dropped) });
    }
    Ok(dropped)
}

fn check_views(views: &[View], options: &Options) -> Result<(), IntrinsicsError> {
    if views.len() < options.min_views {
        return Err(IntrinsicsError::TooFewViews { views: views.len(), needed: options.min_views });
    }
    let (width, height) = (views[0].view.width, views[0].view.height);
    for View { name, view } in views {
        if (view.width, view.height) != (width, height) {
            return Err(IntrinsicsError::MixedSizes {
                name: name.clone(),
                width: view.width,
                height: view.height,
                expected_width: width,
                expected_height: height,
            });
        }
        let fail = |reason| Err(IntrinsicsError::View { name: name.clone(), reason });
        if view.points.len() < 6 {
            return fail("it has fewer than six points");
        }
        let finite = view.points.iter().all(|c| c.pixel.iter().chain(c.point_m.coords.iter()).all(|v| v.is_finite()));
        if !finite {
            return fail("a point is not a number");
        }
        if view.points.iter().any(|c| c.point_m.z != 0.0) {
            return fail("its points do not lie in the board's plane z = 0");
        }
    }
    Ok(())
}

/// The view that is far above the others, and their median.
fn worst_view(errors_px: &[f64], ratio: f64) -> Option<(usize, f64)> {
    let (worst, error) = errors_px.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let mut sorted = errors_px.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[(sorted.len() - 1) / 2];
    // From the better half only: up to half of the views may be bad.
    let spread = 1.4826 * (median - sorted[(sorted.len() - 1) / 4]);
    // Views of very different sharpness spread by themselves; exact data have an error of rounding only.
    (error > ratio * median && error > median + 5.0 * spread && error > 1e-6).then_some((worst, median))
}

/// Covariance of the parameters and the standard deviation of a coordinate.
///
/// With Huber's loss (Huber 1981, section 7.6): Cov = σ² (JᵀJ)⁻¹, σ² = [Σψ² / (n − p)] / mean(ψ')², over all points.
fn covariance(views: &[&View], solution: &Solution, mask: &[bool; N]) -> Option<(MatrixN, f64)> {
    let camera = camera_of(&solution.parameters).ok()?;
    let mut S = MatrixN::zeros();
    for (view, pose) in views.iter().zip(&solution.poses) {
        S += Block::new(&camera, pose, &view.view.points, mask, f64::INFINITY)?.reduced()?.information;
    }
    let errors = solution.errors_px(views)?;
    let (mut psi2, mut slope) = (0.0, 0.0);
    for error in &errors {
        let weight = huber_weight(*error, solution.delta_px);
        psi2 += (weight * error).powi(2);
        // Mean over the two directions: along the error ψ is flat beyond δ, across it the weight remains.
        slope += if weight < 1.0 { 0.5 * weight } else { 1.0 };
    }
    let unknowns = mask.iter().filter(|free| **free).count() + 6 * views.len();
    let freedom = (2 * errors.len()).checked_sub(unknowns).filter(|freedom| *freedom > 0)?;
    let slope = slope / errors.len() as f64;
    let sigma = (psi2 / freedom as f64).sqrt() / slope;
    // Scaled to a unit diagonal first: px and pure numbers differ by orders of magnitude.
    let scale: [f64; N] = std::array::from_fn(|i| if mask[i] { 1.0 / S[(i, i)].sqrt() } else { 1.0 });
    let scaled = MatrixN::from_fn(|i, j| S[(i, j)] * scale[i] * scale[j]);
    let inverse = with_kept(scaled, mask).cholesky()?.inverse();
    let covariance =
        MatrixN::from_fn(
            |i, j| {
                if mask[i] && mask[j] { inverse[(i, j)] * scale[i] * scale[j] * sigma * sigma } else { 0.0 }
            },
        );
    covariance.iter().all(|v| v.is_finite()).then_some((covariance, sigma))
}

/// Covariance of the parameters and standard deviation of a coordinate, if the views determine the camera.
fn observable(views: &[&View], solution: &Solution, options: &Options) -> Result<(MatrixN, f64), IntrinsicsError> {
    let max_tilt_deg = solution.poses.iter().map(tilt_deg).fold(0.0, f64::max);
    let lost = |std_percent| IntrinsicsError::FocalNotObservable { std_percent, max_tilt_deg };
    let (covariance, sigma_px) =
        covariance(views, solution, &options.free.mask()).ok_or_else(|| lost(f64::INFINITY))?;
    let std = |i: usize| covariance[(i, i)].sqrt();
    let (width, height) = (views[0].view.width, views[0].view.height);
    let focal_ratio = (0..2).map(|i| std(i) / solution.parameters[i]).fold(0.0, f64::max);
    let believable = (0.1..50.0).contains(&(solution.parameters[0] / width as f64));
    if focal_ratio > options.max_focal_std_ratio || !believable {
        return Err(lost(100.0 * focal_ratio));
    }
    for (axis, size) in [(2, width), (3, height)] {
        if std(axis) > 0.1 * size as f64 {
            return Err(IntrinsicsError::NotObservable { parameter: PARAMETERS[axis] });
        }
    }
    Ok((covariance, sigma_px))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
