//! From views, or a list of image files, to intrinsics.

use super::coverage::Coverage;
use super::leave_out::held_out_errors_px;
use super::model::{Free, MatrixN, N, PARAMETERS, Parameters, camera_of};
use super::next_view::{self, NextView};
use super::solve::{Block, Solution, huber_weight, solve, with_kept};
use super::start::{is_mirrored, start};
use super::{CameraInfo, IntrinsicsError};
use crate::boards::{Board, BoardDetector, BoardView};
use nalgebra::SMatrix;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tenon_vision::{Camera, Pose, StillImage};

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

/// A view that was left out, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DroppedView {
    pub name: String,
    pub reason: DropReason,
    /// Error under a camera calibrated without it, and the median of the other views', px.
    pub held_out_px: f64,
    pub typical_px: f64,
}

/// Why a view was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Its error is far above the others': points exchanged, board moved or blurred.
    DoesNotFit,
    /// It shows the board from behind: the picture is mirrored, or rows or columns of points are in the wrong order. (A
    /// mirrored board fits a camera as well as a real one, so its error alone would not tell.)
    Mirrored,
}

/// One view of the solution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewReport {
    pub name: String,
    pub points: usize,
    /// Root mean square distance between seen and projected points, px.
    pub rms_px: f64,
    pub held_out_px: f64,
    /// Points further off than five standard deviations.
    pub outliers: usize,
    pub distance_m: f64,
    /// Between the board's normal and the optical axis.
    pub tilt_deg: f64,
}

/// An image without a usable board.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SkippedImage {
    pub name: String,
    pub reason: String,
}

/// A calibrated camera with everything that says how far to trust it.
#[derive(Debug, Clone)]
pub struct Intrinsics {
    pub camera: Camera,
    pub width: usize,
    pub height: usize,
    /// In the order of [`PARAMETERS`].
    pub parameters: Parameters,
    /// Covariance of the parameters; rows and columns of those kept at zero are zero.
    pub covariance: SMatrix<f64, N, N>,
    /// Root mean square distance between seen and projected points over all views, px.
    pub rms_px: f64,
    /// Standard deviation of one coordinate of a corner, px.
    pub sigma_px: f64,
    pub views: Vec<ViewReport>,
    /// Poses of the board in the order of `views`.
    pub T_camera_board: Vec<Pose>,
    pub dropped: Vec<DroppedView>,
    pub skipped: Vec<SkippedImage>,
    pub coverage: Coverage,
    /// The view that would sharpen the result most.
    pub next_view: Option<NextView>,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
}

/// What is written to a rig's folder and printed as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct IntrinsicsReport {
    pub width_px: usize,
    pub height_px: usize,
    pub parameters: Vec<ParameterReport>,
    pub rms_px: f64,
    pub sigma_px: f64,
    pub views: Vec<ViewReport>,
    pub dropped: Vec<DroppedView>,
    pub skipped: Vec<SkippedImage>,
    pub coverage: Coverage,
    pub next_view: Option<NextView>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterReport {
    pub name: &'static str,
    pub value: f64,
    /// `None`: it was not estimated.
    pub std: Option<f64>,
}

impl Intrinsics {
    /// Standard deviations in the order of [`PARAMETERS`]; zero for those that were not estimated.
    pub fn std(&self) -> Parameters {
        std::array::from_fn(|i| self.covariance[(i, i)].sqrt())
    }

    pub fn info(&self, name: &str) -> CameraInfo {
        CameraInfo { name: name.to_owned(), width: self.width, height: self.height, camera: self.camera }
    }

    pub fn report(&self) -> IntrinsicsReport {
        let parameters = (0..N)
            .map(|i| ParameterReport {
                name: PARAMETERS[i],
                value: self.parameters[i],
                std: (self.covariance[(i, i)] > 0.0).then(|| self.covariance[(i, i)].sqrt()),
            })
            .collect();
        IntrinsicsReport {
            width_px: self.width,
            height_px: self.height,
            parameters,
            rms_px: self.rms_px,
            sigma_px: self.sigma_px,
            views: self.views.clone(),
            dropped: self.dropped.clone(),
            skipped: self.skipped.clone(),
            coverage: self.coverage.clone(),
            next_view: self.next_view.clone(),
            notes: self.notes.clone(),
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
    finish(board, views, &kept, &solution, &held_out, dropped, options)
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

fn finish(
    board: &Board,
    all: &[View],
    kept: &[&View],
    solution: &Solution,
    held_out: &[f64],
    dropped: Vec<DroppedView>,
    options: &Options,
) -> Result<Intrinsics, IntrinsicsError> {
    let mask = options.free.mask();
    let (width, height) = (kept[0].view.width, kept[0].view.height);
    let (covariance, sigma_px) = observable(kept, solution, options)?;
    let parameters = solution.parameters;
    let std: Parameters = std::array::from_fn(|i| covariance[(i, i)].sqrt());
    let camera = camera_of(&parameters)?;
    let errors = solution.errors_px(kept).ok_or(IntrinsicsError::NoSolution)?;
    let rms = |errors: &[f64]| (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    let mut reports = Vec::with_capacity(kept.len());
    let mut rest = &errors[..];
    for ((view, pose), held_out) in kept.iter().zip(&solution.poses).zip(held_out) {
        let (mine, others) = rest.split_at(view.view.points.len());
        rest = others;
        reports.push(ViewReport {
            name: view.name.clone(),
            points: mine.len(),
            rms_px: rms(mine),
            held_out_px: *held_out,
            outliers: mine.iter().filter(|e| **e > 5.0 * sigma_px).count(),
            distance_m: pose.translation.vector.norm(),
            tilt_deg: tilt_deg(pose),
        });
    }
    let coverage_views: Vec<View> = kept.iter().map(|view| (*view).clone()).collect();
    let coverage = Coverage::new(&coverage_views, Some(&camera));
    let next_view = next_view::suggest(board, kept, solution, &mask, sigma_px);
    let notes = notes(&parameters, &std, all.len(), kept.len(), &coverage, board);
    Ok(Intrinsics {
        camera,
        width,
        height,
        parameters,
        covariance,
        rms_px: rms(&errors),
        sigma_px,
        views: reports,
        T_camera_board: solution.poses.clone(),
        dropped,
        skipped: Vec::new(),
        coverage,
        next_view,
        notes,
    })
}

fn notes(
    parameters: &Parameters,
    std: &Parameters,
    all: usize,
    kept: usize,
    coverage: &Coverage,
    board: &Board,
) -> Vec<String> {
    let mut notes = vec![format!(
        "a wrong size in the board's description ({}) cannot be seen here: it changes no intrinsic number, but every \
         distance measured with this board; measure the print",
        board.caption()
    )];
    if kept < 10 {
        notes.push(format!("{kept} views are few; 10 to 20 from all sides make the standard deviations trustworthy"));
    }
    if kept < all {
        notes.push(format!("{} of {all} views were left out because they do not fit the others", all - kept));
    }
    for i in 4..N {
        if std[i] > 0.0 && parameters[i].abs() < 2.0 * std[i] {
            notes.push(format!(
                "{} = {:.2e} is within two standard deviations ({:.1e}) of zero: it may as well be kept at zero",
                PARAMETERS[i], parameters[i], std[i]
            ));
        }
    }
    if let Some(missing) = coverage.advice() {
        notes.push(missing);
    }
    notes
}

/// Angle between the board's normal and the optical axis.
pub(super) fn tilt_deg(T_camera_board: &Pose) -> f64 {
    (T_camera_board.rotation * nalgebra::Vector3::z()).z.clamp(-1.0, 1.0).acos().to_degrees()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
