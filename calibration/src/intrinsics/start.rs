//! Closed-form start (Zhang, "A flexible new technique for camera calibration", PAMI 2000, section 3.1).
//!
//! With the principal point taken to be the picture's middle, each homography H = K [r1 r2 t] gives two linear equations in
//! (1/fx², 1/fy²): h1ᵀ ω h2 = 0 and h1ᵀ ω h1 = h2ᵀ ω h2, ω = K⁻ᵀ K⁻¹. The full five-parameter form is far more sensitive to
//! lens distortion; the joint solution moves the principal point later.

use super::model::Parameters;
use super::{IntrinsicsError, View};
use crate::boards::BoardView;
use crate::boards::homography::homography;
use nalgebra::{Matrix2, Matrix3, Rotation3, Translation3, UnitQuaternion, Vector2, Vector3};
use tenon_vision::refine::refine_pose;
use tenon_vision::{Camera, Pose};

/// Focal lengths and poses good enough for the joint solution to converge from.
pub(super) struct Start {
    pub parameters: Parameters,
    pub poses: Vec<Pose>,
}

/// Starts from every plausible focal length and keeps the one that explains the views best, so that a few views with
/// exchanged points cannot spoil it.
pub(super) fn start(views: &[&View]) -> Result<Start, IntrinsicsError> {
    let (width, height) = (views[0].view.width as f64, views[0].view.height as f64);
    let centre = [0.5 * width, 0.5 * height];
    let homographies: Vec<Matrix3<f64>> = views
        .iter()
        .map(|view| {
            // From the picture's middle, in units of its width: well-conditioned.
            let pairs = view.view.points.iter().map(|c| {
                ([c.point_m.x, c.point_m.y], [(c.pixel[0] - centre[0]) / width, (c.pixel[1] - centre[1]) / width])
            });
            homography(pairs).ok_or_else(|| IntrinsicsError::View {
                name: view.name.clone(),
                reason: "its points lie on a line or in one spot",
            })
        })
        .collect::<Result<_, _>>()?;
    let plausible = |f: f64| (0.1..20.0).contains(&f);
    let mut focals: Vec<[f64; 2]> = Vec::new();
    focals.extend(closed_form(&homographies).filter(|f| plausible(f[0]) && plausible(f[1])));
    // One focal length a view, and of those the median.
    let mut alone: Vec<f64> = homographies.iter().filter_map(square_pixels).filter(|f| plausible(*f)).collect();
    alone.sort_by(f64::total_cmp);
    if !alone.is_empty() {
        focals.push([alone[alone.len() / 2]; 2]);
    }
    // Lenses from wide to long, for views that say nothing by themselves.
    focals.extend([[0.5; 2], [0.9; 2], [1.8; 2]]);

    let mut best: Option<(f64, Start)> = None;
    for [fx, fy] in focals {
        let parameters = [fx * width, fy * width, centre[0], centre[1], 0.0, 0.0, 0.0, 0.0, 0.0];
        let camera = Camera::pinhole(parameters[0], parameters[1], centre[0], centre[1])?;
        let mut poses = Vec::with_capacity(views.len());
        let mut errors = Vec::with_capacity(views.len());
        for (view, H) in views.iter().zip(&homographies) {
            let Some(pose) = pose_from_homography(H, fx, fy) else { continue };
            let Some(refined) = refine_pose(&camera, &pose, &view.view.points) else { continue };
            poses.push(refined.T_camera_body);
            errors.push(refined.rms_px);
        }
        if poses.len() < views.len() {
            continue;
        }
        // The median view: bad ones do not count.
        errors.sort_by(f64::total_cmp);
        let typical = errors[errors.len() / 2];
        if best.as_ref().is_none_or(|(old, _)| typical < *old) {
            best = Some((typical, Start { parameters, poses }));
        }
    }
    best.map(|(_, start)| start).ok_or(IntrinsicsError::NoSolution)
}

/// Least squares over all views for (1/fx², 1/fy²); the image has its origin in the principal point.
fn closed_form(homographies: &[Matrix3<f64>]) -> Option<[f64; 2]> {
    let mut normal = Matrix2::zeros();
    let mut right = Vector2::zeros();
    for H in homographies {
        for (row, value) in equations(H) {
            normal += row * row.transpose();
            right += row * value;
        }
    }
    let solution = normal.try_inverse()? * right;
    let focal = [1.0 / solution.x.sqrt(), 1.0 / solution.y.sqrt()];
    focal.iter().all(|f| f.is_finite()).then_some(focal)
}

/// The focal length that one view alone gives for square pixels.
fn square_pixels(H: &Matrix3<f64>) -> Option<f64> {
    let (mut normal, mut right) = (0.0, 0.0);
    for (row, value) in equations(H) {
        let sum = row.x + row.y;
        normal += sum * sum;
        right += sum * value;
    }
    let focal = (normal / right).sqrt();
    focal.is_finite().then_some(focal)
}

/// Rows (a, b) and values c of a/fx² + b/fy² = c.
fn equations(H: &Matrix3<f64>) -> [(Vector2<f64>, f64); 2] {
    // The scale of H is free; equal columns make the two equations comparable.
    let H = H / H.fixed_view::<2, 2>(0, 0).norm().max(1e-300);
    let (a, b) = (H.column(0), H.column(1));
    [
        (Vector2::new(a[0] * b[0], a[1] * b[1]), -a[2] * b[2]),
        (Vector2::new(a[0] * a[0] - b[0] * b[0], a[1] * a[1] - b[1] * b[1]), b[2] * b[2] - a[2] * a[2]),
    ]
}

/// Pose of the board from its homography to the centred picture, focal lengths in the same units.
fn pose_from_homography(H: &Matrix3<f64>, fx: f64, fy: f64) -> Option<Pose> {
    let M = Matrix3::from_diagonal(&Vector3::new(1.0 / fx, 1.0 / fy, 1.0)) * H;
    let scale = 2.0 / (M.column(0).norm() + M.column(1).norm());
    // The board is in front of the camera.
    let M = M * if M[(2, 2)] < 0.0 { -scale } else { scale };
    let (r1, r2) = (M.column(0).into_owned(), M.column(1).into_owned());
    let svd = Matrix3::from_columns(&[r1, r2, r1.cross(&r2)]).svd(true, true);
    let R = svd.u? * svd.v_t?;
    if !R.iter().all(|v| v.is_finite()) || R.determinant() < 0.0 {
        return None;
    }
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(R));
    Some(Pose::from_parts(Translation3::from(M.column(2).into_owned()), rotation))
}

/// The board's points run round the wrong way, as in a mirror or from behind.
pub(super) fn is_mirrored(view: &BoardView) -> bool {
    let pairs = view.points.iter().map(|c| ([c.point_m.x, c.point_m.y], c.pixel));
    // The determinant's sign is the orientation of the plane in the picture, once the board lies in front of the camera:
    // the third row must be positive on its points.
    let Some(H) = homography(pairs) else { return false };
    let depth: f64 = view.points.iter().map(|c| H[(2, 0)] * c.point_m.x + H[(2, 1)] * c.point_m.y + H[(2, 2)]).sum();
    H.determinant() * depth.signum() < 0.0
}

/// Pose of the board in one view: with the camera where there is one, else through a lens of ordinary width.
pub(super) fn rough_pose(view: &BoardView, camera: Option<&Camera>) -> Option<Pose> {
    let guess;
    let camera = match camera {
        Some(camera) => camera,
        None => {
            let (width, height) = (view.width as f64, view.height as f64);
            guess = Camera::pinhole(0.9 * width, 0.9 * width, 0.5 * width, 0.5 * height).ok()?;
            &guess
        }
    };
    let normalised: Vec<([f64; 2], [f64; 2])> =
        view.points.iter().filter_map(|c| Some(([c.point_m.x, c.point_m.y], camera.normalise(c.pixel)?))).collect();
    let pose = pose_from_homography(&homography(normalised.into_iter())?, 1.0, 1.0)?;
    Some(refine_pose(camera, &pose, &view.points)?.T_camera_body)
}
