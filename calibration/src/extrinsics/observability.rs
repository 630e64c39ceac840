//! Which pose of the arm to add next: the one after which the least certain camera would be the most certain.
//!
//! The information of a view that has not been taken is known from its geometry alone: the derivatives of its corners at the
//! present solution. A candidate is judged by the largest standard deviation of any camera's position that would remain.

use nalgebra::{DMatrix, SMatrix};
use tenon_vision::pose::corners_in_tag;
use tenon_vision::{Camera, Pose, TagOnBody};

use super::problem::{Body, TagSighting, Unknowns};
use super::solve::Solution;

/// A tag seen under a flatter angle than this is not counted on, cosine.
const LEAST_FACING: f64 = 0.35;
/// Corners nearer to the picture's edge than this are not counted on, px.
const EDGE_PX: f64 = 15.0;

/// A pose of the arm, judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextPose {
    /// Index among the candidates.
    pub candidate: usize,
    /// Cameras that would see the gripper's tags.
    pub seen_by: usize,
    /// Largest standard deviation of a camera's position along any axis: now, and with this pose, m.
    pub now_sigma_m: f64,
    pub then_sigma_m: f64,
}

/// The best of `candidates` (poses `T_base_hand`). `sizes_px`: width and height of each camera's pictures. `None` where no camera
/// would see the tags in any of them.
pub fn next_pose(
    solution: &Solution,
    cameras: &[(String, Camera)],
    hand: &[TagOnBody],
    sizes_px: &[[usize; 2]],
    candidates: &[Pose],
) -> Option<NextPose> {
    let information = solution.normal_matrix() / solution.sigma_px.powi(2);
    let now_sigma_m = worst_camera_m(&information, solution.cameras.len())?;
    let mut best: Option<NextPose> = None;
    for (candidate, T_base_hand) in candidates.iter().enumerate() {
        let mut with = information.clone();
        let mut seen_by = 0;
        for camera in 0..cameras.len() {
            let seen = add_view(&mut with, solution, cameras, hand, sizes_px[camera], camera, T_base_hand);
            seen_by += usize::from(seen > 0);
        }
        if seen_by == 0 {
            continue;
        }
        let Some(then_sigma_m) = worst_camera_m(&with, cameras.len()) else { continue };
        if best.is_none_or(|b| then_sigma_m < b.then_sigma_m) {
            best = Some(NextPose { candidate, seen_by, now_sigma_m, then_sigma_m });
        }
    }
    best
}

/// Turns that candidates take from poses that were taken, rad.
const TURN_RAD: f64 = 0.45;
/// How far beyond the places that were taken candidates lie, m.
const BEYOND_M: f64 = 0.08;

/// Poses of the hand about those that were taken: places on a grid over them and a little beyond, with each taken orientation
/// as it was and turned about each axis. Nobody says that the arm reaches them all.
pub fn candidates_about(taken: &[Pose]) -> Vec<Pose> {
    let Some(first) = taken.first() else { return Vec::new() };
    let (mut low, mut high) = (first.translation.vector, first.translation.vector);
    for pose in taken {
        low = low.inf(&pose.translation.vector);
        high = high.sup(&pose.translation.vector);
    }
    let at = |i: usize, axis: usize| low[axis] - BEYOND_M + (high[axis] - low[axis] + 2.0 * BEYOND_M) * i as f64 / 2.0;
    let turns = (0..3).flat_map(|axis| [-TURN_RAD, TURN_RAD].map(|angle| nalgebra::Vector3::ith(axis, angle)));
    let turns: Vec<nalgebra::Vector3<f64>> = std::iter::once(nalgebra::Vector3::zeros()).chain(turns).collect();
    let mut candidates = Vec::new();
    // A few orientations are enough: the grid multiplies them.
    for pose in taken.iter().step_by(taken.len().div_ceil(4)) {
        for turn in &turns {
            let rotation = pose.rotation * nalgebra::UnitQuaternion::from_scaled_axis(*turn);
            for place in 0..27 {
                let place = nalgebra::Translation3::new(at(place % 3, 0), at(place / 3 % 3, 1), at(place / 9, 2));
                candidates.push(Pose::from_parts(place, rotation));
            }
        }
    }
    candidates
}

/// Adds what a camera would learn, and says from how many tags.
fn add_view(
    information: &mut DMatrix<f64>,
    solution: &Solution,
    cameras: &[(String, Camera)],
    hand: &[TagOnBody],
    size_px: [usize; 2],
    camera: usize,
    T_base_hand: &Pose,
) -> usize {
    let at: &Unknowns = solution.unknowns();
    let layout = solution.layout();
    let mut seen = 0;
    for tag in hand {
        let T_camera_tag = at.T_base_camera[camera].inverse() * T_base_hand * at.T_hand_tag * tag.T_body_tag;
        let towards = T_camera_tag.translation.vector;
        let facing = (T_camera_tag.rotation * nalgebra::Vector3::z()).dot(&towards.normalize());
        let inside = corners_in_tag(tag.size_m).iter().all(|corner| {
            let pixel = cameras[camera].1.project(&(T_camera_tag * corner));
            pixel.is_some_and(|p| (0..2).all(|i| p[i] > EDGE_PX && p[i] < size_px[i] as f64 - EDGE_PX))
        });
        if facing < LEAST_FACING || !inside {
            continue;
        }
        let sighting = TagSighting {
            view: 0,
            camera,
            id: tag.id,
            body: Body::Hand,
            points_m: corners_in_tag(tag.size_m).map(|corner| tag.T_body_tag * corner),
            pixels: [[0.0; 2]; 4],
            T_base_hand: *T_base_hand,
        };
        let Some(linear) = sighting.linearise(cameras, at) else { continue };
        seen += 1;
        let mut J: DMatrix<f64> = DMatrix::zeros(8, layout.len);
        J.view_mut((0, 6 * camera), (8, 6)).copy_from(&linear.by_camera);
        if let Some(i) = layout.hand {
            J.view_mut((0, i), (8, 6)).copy_from(&linear.by_body);
        }
        if let Some(i) = layout.hand_scale {
            J.view_mut((0, i), (8, 1)).copy_from(&linear.by_scale);
        }
        *information += J.transpose() * J / solution.sigma_px.powi(2);
    }
    seen
}

/// Largest standard deviation of any camera's position along any axis.
fn worst_camera_m(information: &DMatrix<f64>, cameras: usize) -> Option<f64> {
    let covariance = information.clone().cholesky()?.inverse();
    let worst = |c: usize| {
        let block: SMatrix<f64, 3, 3> = covariance.fixed_view::<3, 3>(6 * c, 6 * c).into_owned();
        block.symmetric_eigenvalues().max().max(0.0).sqrt()
    };
    Some((0..cameras).map(worst).fold(0.0, f64::max))
}
