//! Pose of a single tag, with both local minima.
//!
//! Four corners of a planar square fit two poses: the true one and one tilted the other way, which projects almost the
//! same when the tag is small or seen nearly frontally. Both are computed in closed form from the homography (IPPE:
//! Collins and Bartoli, "Infinitesimal plane-based pose estimation", IJCV 2014, sections 4 and 5), then each is refined on
//! pixels ([`crate::refine`]). Which one is true cannot be told from one tag when their errors are alike: the result says so.

use crate::refine::{Correspondence, refine_pose, reprojection_rms_px};
use crate::{Camera, Pose, TagDetection, VisionError};
use nalgebra::{Matrix2, Matrix3, Matrix6, Point3, Rotation3, SMatrix, SVector, Translation3, UnitQuaternion, Vector3};

/// Ratio of the two reprojection errors below which the orientation counts as ambiguous (perception.md section 4).
pub const AMBIGUITY_RATIO: f64 = 2.0;
/// Two poses whose orientations differ by less than this are one minimum, rad.
pub const SAME_MINIMUM_RAD: f64 = 0.02;

/// One explanation of a tag's corners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hypothesis {
    pub T_camera_body: Pose,
    /// Root mean square distance between seen and projected corners, px.
    pub rms_px: f64,
    /// `false`: refinement led away to the other hypothesis (perspective is strong enough to leave one minimum); this is
    /// the closed-form pose before refinement.
    pub is_minimum: bool,
    /// See [`crate::refine::Refined::normal_matrix`].
    pub normal_matrix: Matrix6<f64>,
}

/// Pose of one tag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagPose {
    pub id: u32,
    pub size_m: f64,
    /// The explanation with the smaller reprojection error; its body is the tag.
    pub best: Hypothesis,
    pub other: Hypothesis,
    /// `other.rms_px / best.rms_px`, infinite for a perfect fit.
    pub ratio: f64,
    /// The ratio is below [`AMBIGUITY_RATIO`] and the two orientations differ.
    pub ambiguous: bool,
}

/// Corners of the black border in the tag frame (x right, y down, z into the tag), m, in the order of
/// [`TagDetection::corners_px`].
pub fn corners_in_tag(size_m: f64) -> [Point3<f64>; 4] {
    let h = size_m / 2.0;
    [Point3::new(-h, h, 0.0), Point3::new(h, h, 0.0), Point3::new(h, -h, 0.0), Point3::new(-h, -h, 0.0)]
}

/// Both poses of a tag whose black border is `size_m` wide, from its four corners.
pub fn tag_pose(camera: &Camera, detection: &TagDetection, size_m: f64) -> Result<TagPose, VisionError> {
    let id = detection.id;
    let degenerate = |reason| VisionError::Degenerate { id, reason };
    if !(size_m.is_finite() && size_m > 0.0) {
        return Err(degenerate("its size must be a positive number of metres"));
    }
    if !detection.corners_px.iter().flatten().all(|v| v.is_finite()) {
        return Err(degenerate("a corner is not a number"));
    }
    let mut corners = [[0.0; 2]; 4];
    for (out, pixel) in corners.iter_mut().zip(detection.corners_px) {
        *out = camera
            .normalise(pixel)
            .ok_or_else(|| degenerate("a corner lies where the distortion model cannot be inverted"))?;
    }
    if !is_convex_and_seen_from_the_front(&corners) {
        return Err(degenerate("its corners do not form a convex quadrilateral seen from the front"));
    }
    let starts = ippe_square(&corners, size_m).ok_or_else(|| degenerate("its corners are almost on one line"))?;

    let points = corners_in_tag(size_m);
    let seen: [Correspondence; 4] =
        std::array::from_fn(|i| Correspondence { point_m: points[i], pixel: detection.corners_px[i] });
    let mut hypotheses = starts.map(|start| hypothesis_from(camera, &start, &seen));
    hypotheses.sort_by(|a, b| rms_or_infinite(a).total_cmp(&rms_or_infinite(b)));
    let [best, other] = hypotheses;
    let best = best.ok_or_else(|| degenerate("no pose in front of the camera fits its corners"))?;
    let mut other = other.unwrap_or(best);
    if orientation_between(&best, &other) < SAME_MINIMUM_RAD {
        // Both starts ended in one minimum. Show the start that was further away, as it was.
        let far = starts
            .iter()
            .max_by(|a, b| {
                let away = |pose: &Pose| pose.rotation.angle_to(&best.T_camera_body.rotation);
                away(a).total_cmp(&away(b))
            })
            .expect("there are two starts");
        if let Some(rms_px) = reprojection_rms_px(camera, far, &seen) {
            other = Hypothesis { T_camera_body: *far, rms_px, is_minimum: false, normal_matrix: best.normal_matrix };
        }
    }
    let (ratio, ambiguous) = ambiguity(&best, &other);
    Ok(TagPose { id, size_m, best, other, ratio, ambiguous })
}

/// Ratio of the errors of two hypotheses, and whether it leaves the orientation open.
pub(crate) fn ambiguity(best: &Hypothesis, other: &Hypothesis) -> (f64, bool) {
    let ratio = other.rms_px / best.rms_px;
    // 0/0: two perfect fits.
    let ratio = if ratio.is_nan() { 1.0 } else { ratio };
    let differ = orientation_between(best, other) >= SAME_MINIMUM_RAD;
    (ratio, differ && ratio < AMBIGUITY_RATIO)
}

pub(crate) fn orientation_between(a: &Hypothesis, b: &Hypothesis) -> f64 {
    a.T_camera_body.rotation.angle_to(&b.T_camera_body.rotation)
}

fn rms_or_infinite(hypothesis: &Option<Hypothesis>) -> f64 {
    hypothesis.map_or(f64::INFINITY, |h| h.rms_px)
}

fn hypothesis_from(camera: &Camera, start: &Pose, seen: &[Correspondence]) -> Option<Hypothesis> {
    let refined = refine_pose(camera, start, seen)?;
    Some(Hypothesis {
        T_camera_body: refined.T_camera_body,
        rms_px: refined.rms_px,
        is_minimum: true,
        normal_matrix: refined.normal_matrix,
    })
}

/// The library's corner order runs counter-clockwise on the screen; every turn must agree.
fn is_convex_and_seen_from_the_front(corners: &[[f64; 2]; 4]) -> bool {
    (0..4).all(|i| {
        let (a, b, c) = (corners[i], corners[(i + 1) % 4], corners[(i + 2) % 4]);
        let turn = (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]);
        turn < 0.0
    })
}

/// The two poses `T_camera_tag` of a square from its corners in normalised coordinates (order of [`corners_in_tag`]).
fn ippe_square(corners: &[[f64; 2]; 4], size_m: f64) -> Option<[Pose; 2]> {
    let points = corners_in_tag(size_m);
    let H = homography(&points, corners)?;
    // First-order behaviour of the plane-to-image map at the tag's centre: value (p, q) and Jacobian J.
    let (p, q) = (H[(0, 2)], H[(1, 2)]);
    let J = Matrix2::new(
        H[(0, 0)] - H[(2, 0)] * p,
        H[(0, 1)] - H[(2, 1)] * p,
        H[(1, 0)] - H[(2, 0)] * q,
        H[(1, 1)] - H[(2, 1)] * q,
    );
    // Rv turns the optical axis onto the ray through the centre; beside that ray both poses are mirror images.
    let ray = Vector3::new(p, q, 1.0);
    let Rv = Rotation3::rotation_between(&Vector3::z(), &ray)?;
    let r = Rv.matrix();
    let B = Matrix2::new(
        r[(0, 0)] - p * r[(2, 0)],
        r[(0, 1)] - p * r[(2, 1)],
        r[(1, 0)] - q * r[(2, 0)],
        r[(1, 1)] - q * r[(2, 1)],
    );
    let A = B.try_inverse()? * J;
    // Largest singular value of A: the tag's scale over its depth.
    let gram = A * A.transpose();
    let half_trace = 0.5 * gram.trace();
    let gamma = (half_trace + (half_trace * half_trace - gram.determinant()).max(0.0).sqrt()).sqrt();
    if !(gamma.is_finite() && gamma > 0.0) {
        return None;
    }
    let R22 = A / gamma;
    // Third row (b0, b1) that makes the two columns orthonormal, up to its sign: the two poses.
    let rest = Matrix2::identity() - R22.transpose() * R22;
    let b0 = rest[(0, 0)].max(0.0).sqrt();
    let b1 = rest[(1, 1)].max(0.0).sqrt() * if rest[(0, 1)] < 0.0 { -1.0 } else { 1.0 };
    let pose = |sign: f64| {
        let c0 = Vector3::new(R22[(0, 0)], R22[(1, 0)], sign * b0);
        let c1 = Vector3::new(R22[(0, 1)], R22[(1, 1)], sign * b1);
        let tilted = Matrix3::from_columns(&[c0, c1, c0.cross(&c1)]);
        let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(r * tilted));
        let translation = translation_for(&rotation, &points, corners)?;
        (translation.z > 0.0).then(|| Pose::from_parts(Translation3::from(translation), rotation))
    };
    match (pose(1.0), pose(-1.0)) {
        (Some(a), Some(b)) => Some([a, b]),
        (Some(a), None) | (None, Some(a)) => Some([a, a]),
        (None, None) => None,
    }
}

/// Homography from the tag's plane to normalised coordinates with H33 = 1 (the tag's centre is in front of the camera).
fn homography(points: &[Point3<f64>; 4], image: &[[f64; 2]; 4]) -> Option<Matrix3<f64>> {
    let mut system = SMatrix::<f64, 8, 8>::zeros();
    let mut right = SVector::<f64, 8>::zeros();
    for i in 0..4 {
        let (x, y) = (points[i].x, points[i].y);
        let [u, v] = image[i];
        for (row, coefficients, value) in [
            (2 * i, [x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y], u),
            (2 * i + 1, [0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y], v),
        ] {
            for (column, coefficient) in coefficients.into_iter().enumerate() {
                system[(row, column)] = coefficient;
            }
            right[row] = value;
        }
    }
    let h = system.lu().solve(&right)?;
    let H = Matrix3::new(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], 1.0);
    H.iter().all(|v| v.is_finite()).then_some(H)
}

/// Translation that brings the rotated corners nearest to their rays (linear least squares on normalised coordinates).
fn translation_for(
    rotation: &UnitQuaternion<f64>,
    points: &[Point3<f64>; 4],
    image: &[[f64; 2]; 4],
) -> Option<Vector3<f64>> {
    let mut normal = Matrix3::zeros();
    let mut right = Vector3::zeros();
    for (point, [u, v]) in points.iter().zip(image) {
        let p = rotation * point;
        for (row, value) in [(Vector3::new(1.0, 0.0, -u), u * p.z - p.x), (Vector3::new(0.0, 1.0, -v), v * p.z - p.y)] {
            normal += row * row.transpose();
            right += row * value;
        }
    }
    Some(normal.cholesky()?.solve(&right))
}
