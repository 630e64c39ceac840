//! From views to camera places with intervals, and to a list of what is wrong.

use nalgebra::{DMatrix, Matrix6, SMatrix};
use serde::Serialize;
use tenon_core::geometry::skew;
use tenon_vision::Pose;

use super::board::{Misplaced, misplaced};
use super::bundle::refine;
use super::hand_eye::{HandEye, Method};
use super::problem::{Body, Layout, Problem, TagSighting, Unknowns};
use super::start::{start_on_board, start_with_arm};

/// Views that are asked whether the board's tags are where the layout says.
const JUDGES: usize = 15;
/// Half the width of a 95 % interval, standard deviations.
const NORMAL_95: f64 = 1.959_964;

/// What is asked of the views.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolveSettings {
    /// Poses of the arm that a camera must have seen the gripper's tags in.
    pub min_stations: usize,
    /// Largest deviation of the print's size from what was given, as a part of it.
    pub max_size_error: f64,
    /// Tags whose corners lie farther out than this many standard deviations are left out.
    pub outlier_sigmas: f64,
    /// Noise that is assumed until the residuals are known, px.
    pub first_sigma_px: f64,
}

impl Default for SolveSettings {
    fn default() -> Self {
        Self { min_stations: 6, max_size_error: 0.01, outlier_sigmas: 5.0, first_sigma_px: 0.5 }
    }
}

/// Why there is no solution.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExtrinsicsError {
    #[error("there are no views: take pictures of the base board first")]
    NoViews,
    #[error("camera {camera} saw no usable tag of the base board{}: {advice}", if *.hand { " or in the gripper" } else { "" })]
    SawNothing { camera: String, hand: bool, advice: &'static str },
    #[error(transparent)]
    TooFew(TooFew),
    #[error("view {view}: camera {camera} does not exist, there are {cameras}")]
    NoSuchCamera { view: String, camera: usize, cameras: usize },
    #[error(
        "the poses do not determine camera {camera}: let the arm turn the tag about at least two axes by 20 degrees and more"
    )]
    NotObservable { camera: String },
    #[error("no pose fits the views together: is one tag layout (sizes, ids) another rig's?")]
    NoFit,
}

/// Too few poses of the arm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no camera saw the gripper's tags in {wanted} poses of the arm (the most was {most}): add poses")]
pub struct TooFew {
    pub most: usize,
    pub wanted: usize,
}

/// Where a camera stands.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraPlace {
    pub name: String,
    /// In the robot's base, or in the base board where no arm pose is known ([`Solution::base_is_robot`]).
    pub T_base_camera: Pose,
    /// Of the displacement of its origin and its rotation, in axes of the base (m², m·rad, rad²).
    pub covariance: Matrix6<f64>,
    /// Answers of the closed forms, where the arm moved: how far apart they lie says how good the poses are.
    pub closed_forms: Vec<(Method, HandEye)>,
}

/// True size of prints over the size that was given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scale {
    pub value: f64,
    pub sigma: f64,
}

/// How well a view fits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewResidual {
    pub name: String,
    pub camera: usize,
    /// Tags used and left out.
    pub used: usize,
    pub left_out: Vec<u32>,
    /// Of all its tags, px.
    pub rms_px: f64,
}

/// A view that contradicts the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BadView {
    pub name: String,
    pub rms_px: f64,
    pub reason: String,
}

/// The calibration.
#[derive(Debug, Clone)]
pub struct Solution {
    pub cameras: Vec<CameraPlace>,
    /// The base is the robot's: the arm's poses were used.
    pub base_is_robot: bool,
    pub T_base_board: Pose,
    /// Of the board in the robot's base; `None` where the board is the base.
    pub board_covariance: Option<Matrix6<f64>>,
    pub T_hand_tag: Option<Pose>,
    /// Where the arm's motion makes it observable.
    pub hand_scale: Option<Scale>,
    pub board_scale: Option<Scale>,
    /// Standard deviation of a pixel coordinate, from the residuals, px.
    pub sigma_px: f64,
    pub rms_px: f64,
    pub views: Vec<ViewResidual>,
    pub bad_views: Vec<BadView>,
    /// Tags of the board that are not where its layout says.
    pub misplaced: Vec<Misplaced>,
    layout: Layout,
    unknowns: Unknowns,
    normal_matrix: DMatrix<f64>,
}

impl CameraPlace {
    /// Standard deviations `[x, y, z]` in m and about x, y, z in rad.
    pub fn sigmas(&self) -> [f64; 6] {
        std::array::from_fn(|i| self.covariance[(i, i)].max(0.0).sqrt())
    }

    /// Half widths of the 95 % intervals, m and rad.
    pub fn half_widths_95(&self) -> [f64; 6] {
        self.sigmas().map(|sigma| NORMAL_95 * sigma)
    }
}

impl Scale {
    /// The print is surely not as large as given.
    pub fn is_off_by_more_than(&self, part: f64) -> bool {
        (self.value - 1.0).abs() > part && (self.value - 1.0).abs() - NORMAL_95 * self.sigma > 0.0
    }
}

impl Solution {
    /// Tags of the wrong size, as sentences; empty where all sizes are right or nothing tells.
    pub fn wrong_sizes(&self, settings: &SolveSettings) -> Vec<String> {
        let check = |name: &str, scale: Option<Scale>| {
            scale.filter(|s| s.is_off_by_more_than(settings.max_size_error)).map(|s| {
                format!(
                    "{name} is {:.2} ± {:.2} times as large as given: measure the black border and give that size, or print it again \
                     at 100 %",
                    s.value,
                    NORMAL_95 * s.sigma
                )
            })
        };
        let checks = [check("the tag in the gripper", self.hand_scale), check("the base board", self.board_scale)];
        checks.into_iter().flatten().collect()
    }

    /// A camera in the frame of the base board, with its covariance there (both poses are uncertain, and not independently).
    pub fn in_board(&self, camera: usize) -> (Pose, Matrix6<f64>) {
        let place = &self.cameras[camera];
        let Some(board) = self.layout.board else {
            // The board is the base; or, never seen, it stands where the robot does.
            return (place.T_base_camera, place.covariance);
        };
        let covariance = self.covariance();
        let R_board_base = *self.T_base_board.rotation.inverse().to_rotation_matrix().matrix();
        let arm = place.T_base_camera.translation.vector - self.T_base_board.translation.vector;
        // Position R_bᵀ (t_c − t_b) and rotation R_bᵀ R_c: both ends move them.
        let mut by_steps: SMatrix<f64, 6, 12> = SMatrix::zeros();
        by_steps.fixed_view_mut::<3, 3>(0, 0).copy_from(&R_board_base);
        by_steps.fixed_view_mut::<3, 3>(3, 3).copy_from(&R_board_base);
        by_steps.fixed_view_mut::<3, 3>(0, 6).copy_from(&-R_board_base);
        by_steps.fixed_view_mut::<3, 3>(0, 9).copy_from(&(R_board_base * skew(&arm)));
        by_steps.fixed_view_mut::<3, 3>(3, 9).copy_from(&-R_board_base);
        let index = |i: usize| if i < 6 { 6 * camera + i } else { board + i - 6 };
        let joint: SMatrix<f64, 12, 12> = SMatrix::from_fn(|r, c| covariance[(index(r), index(c))]);
        (self.T_base_board.inverse() * place.T_base_camera, by_steps * joint * by_steps.transpose())
    }

    /// Of all unknowns.
    fn covariance(&self) -> DMatrix<f64> {
        let inverse = self.normal_matrix.clone().cholesky().expect("checked when it was solved").inverse();
        inverse * (self.sigma_px * self.sigma_px)
    }

    pub(super) fn normal_matrix(&self) -> DMatrix<f64> {
        self.normal_matrix.clone()
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn unknowns(&self) -> &Unknowns {
        &self.unknowns
    }
}

/// Finds all cameras, and says what does not fit.
///
/// # Errors
/// [`ExtrinsicsError`], where the views cannot determine every camera.
pub fn calibrate(problem: &Problem, settings: &SolveSettings) -> Result<Solution, ExtrinsicsError> {
    if problem.views.is_empty() {
        return Err(ExtrinsicsError::NoViews);
    }
    if let Some(view) = problem.views.iter().find(|view| view.camera >= problem.cameras.len()) {
        let (view, camera, cameras) = (view.name.clone(), view.camera, problem.cameras.len());
        return Err(ExtrinsicsError::NoSuchCamera { view, camera, cameras });
    }
    let misplaced = misplaced_tags(problem);
    let problem = &without(problem, &misplaced);
    let sightings = problem.sightings();
    let hand = sightings.iter().any(|s| s.body == Body::Hand);
    for (camera, (name, _)) in problem.cameras.iter().enumerate() {
        if !sightings.iter().any(|s| s.camera == camera) {
            let advice = "is it the right camera, in focus, and the tag family right?";
            return Err(ExtrinsicsError::SawNothing { camera: name.clone(), hand, advice });
        }
    }
    let start = if hand { start_with_arm(problem, settings)? } else { start_on_board(problem)? };
    let board = hand && sightings.iter().any(|s| s.body == Body::Board);
    // The arm's motion is metric, so it shows the size of the gripper's tag. The board does not move: its size shows only
    // where two cameras, placed by the arm, see it from two sides.
    let sees = |camera: usize, body| sightings.iter().any(|s| s.camera == camera && s.body == body);
    let sees_both = |&camera: &usize| sees(camera, Body::Board) && sees(camera, Body::Hand);
    let board_from_two_sides = (0..problem.cameras.len()).filter(sees_both).count() > 1;
    let layout = Layout::new(problem.cameras.len(), hand, board, [hand, board_from_two_sides]);

    let mut used = vec![true; sightings.len()];
    let fit = |used: &[bool], start: &Unknowns, sigma_px: f64| {
        refine(&problem.cameras, &layout, &sightings, used, start, sigma_px).ok_or(ExtrinsicsError::NoFit)
    };
    // Twice: with the noise that was assumed, then with the noise that the residuals show.
    let mut refined = fit(&used, &start.unknowns, settings.first_sigma_px)?;
    for _ in 0..3 {
        let sigma_px = robust_sigma(&refined.rms_px).max(1e-9);
        let limit_px = settings.outlier_sigmas * sigma_px * 2.0_f64.sqrt();
        let keep: Vec<bool> = refined.rms_px.iter().map(|rms| *rms <= limit_px).collect();
        let unchanged = keep == used;
        used = keep;
        refined = fit(&used, &refined.at, sigma_px)?;
        if unchanged {
            break;
        }
    }
    describe(problem, &sightings, &used, layout, refined, start.closed_forms, misplaced)
}

/// √2 times the standard deviation of a coordinate is the usual distance of a corner: the median over tags, which outliers do
/// not move. (Of χ² with 8 degrees of freedom the median is 7.344.)
fn robust_sigma(rms_px: &[f64]) -> f64 {
    let mut sorted = rms_px.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    (4.0 * median * median / 7.344).sqrt()
}

fn describe(
    problem: &Problem,
    sightings: &[TagSighting],
    used: &[bool],
    layout: Layout,
    refined: super::bundle::Refined,
    mut closed_forms: Vec<Vec<(Method, HandEye)>>,
    misplaced: Vec<Misplaced>,
) -> Result<Solution, ExtrinsicsError> {
    let count = used.iter().filter(|used| **used).count();
    let squared: f64 = refined.rms_px.iter().zip(used).filter(|(_, used)| **used).map(|(r, _)| 4.0 * r * r).sum();
    let freedom = (8 * count) as f64 - layout.len as f64;
    if freedom <= 0.0 {
        return Err(ExtrinsicsError::NoFit);
    }
    let sigma_px = (squared / freedom).sqrt();
    let unobservable = |c: usize| ExtrinsicsError::NotObservable { camera: problem.cameras[c].0.clone() };
    let inverse = refined.normal_matrix.clone().cholesky().ok_or_else(|| unobservable(0))?.inverse();
    let covariance = inverse * (sigma_px * sigma_px);
    let block = |i: usize| -> Matrix6<f64> { SMatrix::from_fn(|r, c| covariance[(i + r, i + c)]) };
    let scale =
        |i: Option<usize>, value: f64| i.map(|i| Scale { value, sigma: value * covariance[(i, i)].max(0.0).sqrt() });
    let cameras = problem.cameras.iter().enumerate().map(|(c, (name, _))| CameraPlace {
        name: name.clone(),
        T_base_camera: refined.at.T_base_camera[c],
        covariance: block(6 * c),
        closed_forms: std::mem::take(&mut closed_forms[c]),
    });
    let cameras: Vec<CameraPlace> = cameras.collect();
    if let Some(c) = cameras.iter().position(|camera| camera.covariance.iter().any(|v| !v.is_finite())) {
        return Err(unobservable(c));
    }
    let views = view_residuals(problem, sightings, used, &refined.rms_px);
    let bad_views = views.iter().filter_map(|view| bad_view(view, problem)).collect();
    Ok(Solution {
        cameras,
        base_is_robot: layout.hand.is_some(),
        T_base_board: refined.at.T_base_board,
        board_covariance: layout.board.map(block),
        T_hand_tag: layout.hand.map(|_| refined.at.T_hand_tag),
        hand_scale: scale(layout.hand_scale, refined.at.hand_scale),
        board_scale: scale(layout.board_scale, refined.at.board_scale),
        sigma_px,
        rms_px: (squared / (4 * count) as f64).sqrt(),
        views,
        bad_views,
        misplaced,
        layout,
        unknowns: refined.at,
        normal_matrix: refined.normal_matrix,
    })
}

fn view_residuals(problem: &Problem, sightings: &[TagSighting], used: &[bool], rms_px: &[f64]) -> Vec<ViewResidual> {
    let of_view = |index: usize| {
        let own: Vec<usize> = (0..sightings.len()).filter(|&i| sightings[i].view == index).collect();
        let mean = own.iter().map(|&i| rms_px[i].powi(2)).sum::<f64>() / own.len().max(1) as f64;
        ViewResidual {
            name: problem.views[index].name.clone(),
            camera: problem.views[index].camera,
            used: own.iter().filter(|&&i| used[i]).count(),
            left_out: own.iter().filter(|&&i| !used[i]).map(|&i| sightings[i].id).collect(),
            rms_px: mean.sqrt(),
        }
    };
    (0..problem.views.len()).map(of_view).filter(|view| view.used + view.left_out.len() > 0).collect()
}

/// A view whose tags were mostly left out.
fn bad_view(view: &ViewResidual, problem: &Problem) -> Option<BadView> {
    if view.left_out.len() <= view.used {
        return None;
    }
    let arm = problem.hand.iter().any(|tag| view.left_out.contains(&tag.id));
    let cause = if arm {
        "the arm was still moving, or its pose belongs to another picture"
    } else {
        "the camera or the board moved"
    };
    let reason = format!(
        "{} of its {} tags lie {:.1} px away from where all other views put them: {cause}",
        view.left_out.len(),
        view.left_out.len() + view.used,
        view.rms_px
    );
    Some(BadView { name: view.name.clone(), rms_px: view.rms_px, reason })
}

/// What most views with enough tags say about the board.
fn misplaced_tags(problem: &Problem) -> Vec<Misplaced> {
    let mut votes: std::collections::BTreeMap<Misplaced, usize> = std::collections::BTreeMap::new();
    let mut judges = 0;
    let mut views = problem.views.iter();
    while judges < JUDGES
        && let Some(view) = views.next()
    {
        let camera = &problem.cameras[view.camera].1;
        if problem.board.iter().filter(|tag| view.detections.iter().any(|d| d.id == tag.id)).count() < 3 {
            continue;
        }
        judges += 1;
        for what in misplaced(camera, &problem.board, &view.detections) {
            *votes.entry(what).or_default() += 1;
        }
    }
    votes.into_iter().filter(|(_, n)| 2 * n > judges).map(|(what, _)| what).collect()
}

/// Without the tags that nobody knows the place of. Swapped and turned ones are left out too: the user is to mend the board.
fn without(problem: &Problem, misplaced: &[Misplaced]) -> Problem {
    let wrong = |id: u32| {
        misplaced.iter().any(|what| match *what {
            Misplaced::Swapped { first, second } => id == first || id == second,
            Misplaced::Turned { id: turned, .. } | Misplaced::Elsewhere { id: turned } => id == turned,
        })
    };
    let mut problem = problem.clone();
    problem.board.retain(|tag| !wrong(tag.id));
    problem
}
