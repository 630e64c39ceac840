//! What came out: a calibrated camera, how each view fits it, and what a reader must know beside the numbers.

use nalgebra::SMatrix;
use serde::Serialize;
use tenon_vision::{Camera, Pose};

use super::coverage::Coverage;
use super::model::{MatrixN, N, PARAMETERS, Parameters, camera_of};
use super::next_view::{self, NextView};
use super::run::View;
use super::solve::Solution;
use super::{CameraInfo, IntrinsicsError};
use crate::boards::Board;

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

/// Puts the result together. `observed`: the parameters' covariance and the standard deviation of a coordinate.
pub(super) fn finish(
    board: &Board,
    all: &[View],
    kept: &[&View],
    solution: &Solution,
    held_out: &[f64],
    dropped: Vec<DroppedView>,
    mask: &[bool; N],
    observed: (MatrixN, f64),
) -> Result<Intrinsics, IntrinsicsError> {
    let (width, height) = (kept[0].view.width, kept[0].view.height);
    let (covariance, sigma_px) = observed;
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
    let next_view = next_view::suggest(board, kept, solution, mask, sigma_px);
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
