//! Pose of a part from all of its tags in all cameras, solved together on pixels.
//!
//! Minimises Σ ρ(s_k) over `T_april_part`, where s_k is the squared distance of the four corners of tag sighting k in units
//! of its own standard deviation and ρ is Huber's loss of √s_k, so that one wrong corner pulls no harder than a doubtful one.
//! Sightings that still lie far out afterwards are left out, while they are the minority, and the rest is solved again.
//!
//! The standard deviation of a corner has three parts: the detector's noise, how exactly the tag sits on the part, and how
//! exactly the camera's place is known, all seen from the tag's distance.

use crate::pose::{AMBIGUITY_RATIO, SAME_MINIMUM_RAD, corners_in_tag, tag_pose};
use crate::refine::{Correspondence, minimise};
use crate::{Camera, Pose, TagDetection, TagOnBody, VisionError};
use nalgebra::{Matrix2x3, Matrix2x6, Matrix3, Matrix6, Translation3, UnitQuaternion, Vector2, Vector3, Vector6};
use tenon_core::geometry::skew;

/// A calibrated camera at its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacedCamera {
    pub camera: Camera,
    /// The camera's pose in the frame of the base board.
    pub T_april_camera: Pose,
    /// Standard deviation of its position on each axis, m.
    pub position_sigma_m: f64,
    /// Standard deviation of its orientation about each axis, rad.
    pub rotation_sigma_rad: f64,
}

/// How sightings are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartSettings {
    /// Standard deviation of a corner's pixel coordinate as detected, px.
    pub corner_sigma_px: f64,
    /// Standard deviation of a tag's place on its part, m: 0.3 mm for prints that were glued with care.
    pub placement_sigma_m: f64,
    /// Sightings whose four corners lie farther out than this, as √(s / 8), are left out.
    pub outlier_sigmas: f64,
}

impl Default for PartSettings {
    fn default() -> Self {
        Self { corner_sigma_px: 0.15, placement_sigma_m: 3e-4, outlier_sigmas: 4.0 }
    }
}

/// What became of one tag in one camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Used,
    /// Far from what the other sightings say.
    Outlier,
    /// Its id was seen more than once by this camera: one of the prints is somebody else's.
    Duplicate,
    /// No pose could have given these corners.
    Degenerate,
}

/// One tag of the part in one camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sighting {
    pub camera: usize,
    pub id: u32,
    pub verdict: Verdict,
    /// Standard deviation that its corners were given, px.
    pub sigma_px: f64,
    /// Distance of its corners from the solution, px; infinite where there is none.
    pub rms_px: f64,
    corners: [Correspondence; 4],
}

/// Another pose that explains the corners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OtherPose {
    pub T_april_part: Pose,
    pub covariance: Matrix6<f64>,
    /// How much worse it fits, in units of variance: the log-likelihood ratio is half of it.
    pub chi_squared_more: f64,
}

/// Pose of a part in the frame of the base board.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartPose {
    pub T_april_part: Pose,
    /// Of the displacement of the part's origin and its rotation `[v; ω]` in axes of the april frame (m², m·rad, rad²).
    pub covariance: Matrix6<f64>,
    /// The best fit with another orientation, where there is one.
    pub other: Option<OtherPose>,
    /// The other one fits nearly as well: nobody can tell from these sightings alone.
    pub ambiguous: bool,
    /// Root mean square distance of the used corners, px.
    pub rms_px: f64,
    /// Distinct tags and cameras used.
    pub tags: usize,
    pub cameras: usize,
}

/// Two fits whose χ² differ by less than this leave the orientation open: odds of less than a thousand to one.
const AMBIGUOUS_CHI_SQUARED: f64 = 13.8;
/// Starts that are refined in search of another minimum.
const STARTS_TRIED: usize = 3;
/// Residual values of one sighting.
const VALUES: f64 = 8.0;
/// Huber's threshold on √s: 99 % of sightings without error lie below (χ² with 8 degrees of freedom).
const HUBER: f64 = 4.48;

/// Solves part poses. Its buffers grow to the largest problem and then stay.
#[derive(Debug, Default)]
pub struct PartSolver {
    settings: PartSettings,
    sightings: Vec<Sighting>,
    starts: Vec<(Pose, f64)>,
}

impl PartSolver {
    pub fn new(settings: PartSettings) -> Self {
        Self { settings, sightings: Vec::with_capacity(64), starts: Vec::with_capacity(128) }
    }

    /// The sightings of the last solution, and what became of them.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// The pose of part `name` with `tags`. `views`: what each of `cameras` detected, in the same order; a camera without a
    /// picture has an empty list. `previous`: the part's last pose, a further start; it decides nothing.
    ///
    /// # Errors
    /// [`VisionError::NoTagOfBody`] when no camera saw a usable tag, [`VisionError::NoBodyPose`] when nothing fits.
    pub fn solve<'a>(
        &mut self,
        name: &str,
        tags: &[TagOnBody],
        cameras: &[PlacedCamera],
        views: impl IntoIterator<Item = &'a [TagDetection]>,
        previous: Option<&Pose>,
    ) -> Result<PartPose, VisionError> {
        self.collect(tags, cameras, views);
        if self.starts.is_empty() {
            let wanted: Vec<String> = tags.iter().map(|tag| tag.id.to_string()).collect();
            return Err(VisionError::NoTagOfBody { body: name.to_owned(), wanted: wanted.join(", ") });
        }
        self.starts.extend(previous.map(|pose| (*pose, f64::INFINITY)));
        let used = self.sightings.iter().filter(|s| s.verdict == Verdict::Used).count();
        let nothing =
            || VisionError::NoBodyPose { body: name.to_owned(), tags: used, reason: "no start fits all cameras" };
        let mut best = self.best_fit(cameras).ok_or_else(nothing)?;
        // One at a time: what pulls hardest makes others look wrong too.
        while self.leave_farthest_out(cameras, &best.pose, used) {
            best = self.best_fit(cameras).ok_or_else(nothing)?;
        }
        let other = self.other_fit(cameras, &best);
        Ok(self.describe(cameras, &best, other))
    }

    /// Sightings with their standard deviations, and every pose that one of them alone allows.
    fn collect<'a>(
        &mut self,
        tags: &[TagOnBody],
        cameras: &[PlacedCamera],
        views: impl IntoIterator<Item = &'a [TagDetection]>,
    ) {
        self.sightings.clear();
        self.starts.clear();
        for ((camera, placed), view) in cameras.iter().enumerate().zip(views) {
            for detection in view {
                let Some(tag) = tags.iter().find(|tag| tag.id == detection.id) else { continue };
                let (points, pixels) = (corners_in_tag(tag.size_m), detection.corners_px);
                let corners =
                    std::array::from_fn(|i| Correspondence { point_m: tag.T_body_tag * points[i], pixel: pixels[i] });
                let mut sighting = Sighting {
                    camera,
                    id: tag.id,
                    verdict: Verdict::Used,
                    sigma_px: self.settings.corner_sigma_px,
                    rms_px: f64::INFINITY,
                    corners,
                };
                if view.iter().filter(|other| other.id == tag.id).count() > 1 {
                    sighting.verdict = Verdict::Duplicate;
                } else if let Ok(alone) = tag_pose(&placed.camera, detection, tag.size_m) {
                    let T_camera_tag = alone.best.T_camera_body;
                    sighting.sigma_px = self.settings.sigma_px(placed, T_camera_tag.translation.vector.norm());
                    for hypothesis in [alone.best, alone.other] {
                        let T_april_part = placed.T_april_camera * hypothesis.T_camera_body * tag.T_body_tag.inverse();
                        self.starts.push((T_april_part, f64::INFINITY));
                    }
                } else {
                    sighting.verdict = Verdict::Degenerate;
                }
                self.sightings.push(sighting);
            }
        }
    }

    /// Orders the starts by their cost and refines the best.
    fn best_fit(&mut self, cameras: &[PlacedCamera]) -> Option<Fit> {
        for i in 0..self.starts.len() {
            let pose = self.starts[i].0;
            self.starts[i].1 = self.cost(cameras, &pose).unwrap_or(f64::INFINITY);
        }
        self.starts.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
        let fits = self.starts.iter().filter(|start| start.1.is_finite()).take(STARTS_TRIED);
        fits.filter_map(|start| self.refine(cameras, &start.0)).min_by(|a, b| a.cost.total_cmp(&b.cost))
    }

    /// The best fit of another orientation than `best`.
    fn other_fit(&self, cameras: &[PlacedCamera], best: &Fit) -> Option<Fit> {
        let differs = |pose: &Pose| pose.rotation.angle_to(&best.pose.rotation) >= SAME_MINIMUM_RAD;
        let starts = self.starts.iter().filter(|start| start.1.is_finite() && differs(&start.0));
        let fits = starts.take(STARTS_TRIED).filter_map(|start| self.refine(cameras, &start.0));
        fits.filter(|fit| differs(&fit.pose)).min_by(|a, b| a.cost.total_cmp(&b.cost))
    }

    /// Marks the sighting that lies farthest from `pose`, if it is too far and most of `all` stay. Says whether there was one.
    fn leave_farthest_out(&mut self, cameras: &[PlacedCamera], pose: &Pose, all: usize) -> bool {
        let limit = VALUES * self.settings.outlier_sigmas.powi(2);
        let distance = |s: &Sighting| s.squared(&cameras[s.camera], pose).unwrap_or(f64::INFINITY);
        let used = self.sightings.iter().filter(|s| s.verdict == Verdict::Used).count();
        let candidates = self.sightings.iter().enumerate().filter(|(_, s)| s.verdict == Verdict::Used);
        let farthest = candidates.map(|(i, s)| (i, distance(s))).max_by(|a, b| a.1.total_cmp(&b.1));
        match farthest {
            Some((i, squared)) if squared > limit && 2 * (used - 1) > all => {
                self.sightings[i].verdict = Verdict::Outlier;
                true
            }
            _ => false,
        }
    }

    fn describe(&mut self, cameras: &[PlacedCamera], best: &Fit, other: Option<Fit>) -> PartPose {
        let (mut squared_px, mut corners) = (0.0, 0);
        let (mut tags, mut seen_by) = (0, 0);
        for i in 0..self.sightings.len() {
            let sighting = self.sightings[i];
            let placed = &cameras[sighting.camera];
            let squared = sighting.squared(placed, &best.pose).map(|s| s * sighting.sigma_px.powi(2));
            self.sightings[i].rms_px = squared.map_or(f64::INFINITY, |s| (s / 4.0).sqrt());
            if sighting.verdict != Verdict::Used {
                continue;
            }
            squared_px += squared.unwrap_or(0.0);
            corners += 4;
            let before = || self.sightings[..i].iter().filter(|s| s.verdict == Verdict::Used);
            tags += usize::from(before().all(|s| s.id != sighting.id));
            seen_by += usize::from(before().all(|s| s.camera != sighting.camera));
        }
        // A fit that is worse than the corners' noise explains says that something else is wrong too: the covariance grows.
        let freedom = 2.0 * corners as f64 - 6.0;
        let inflation = if freedom > 0.0 { (best.cost / freedom).max(1.0) } else { 1.0 };
        let covariance = |fit: &Fit| {
            fit.normal_matrix.cholesky().map_or_else(|| Matrix6::identity() * 1e6, |c| c.inverse() * inflation)
        };
        let other = other.map(|fit| OtherPose {
            T_april_part: fit.pose,
            covariance: covariance(&fit),
            chi_squared_more: (fit.cost - best.cost) / inflation,
        });
        let ambiguous = other.is_some_and(|o| {
            let ratio = ((best.cost + o.chi_squared_more * inflation) / best.cost).sqrt();
            o.chi_squared_more < AMBIGUOUS_CHI_SQUARED || ratio < AMBIGUITY_RATIO && seen_by == 1 && tags == 1
        });
        PartPose {
            T_april_part: best.pose,
            covariance: covariance(best),
            other,
            ambiguous,
            rms_px: (squared_px / corners.max(1) as f64).sqrt(),
            tags,
            cameras: seen_by,
        }
    }

    fn used(&self) -> impl Iterator<Item = &Sighting> {
        self.sightings.iter().filter(|s| s.verdict == Verdict::Used)
    }

    fn cost(&self, cameras: &[PlacedCamera], pose: &Pose) -> Option<f64> {
        let mut sum = 0.0;
        for sighting in self.used() {
            sum += huber(sighting.squared(&cameras[sighting.camera], pose)?).0;
        }
        sum.is_finite().then_some(sum)
    }

    fn refine(&self, cameras: &[PlacedCamera], start: &Pose) -> Option<Fit> {
        minimise(start, |pose| self.cost(cameras, pose), |pose| self.normal_equations(cameras, pose), turn_about_origin)
            .map(|m| Fit { pose: m.pose, cost: m.cost, normal_matrix: m.normal_matrix })
    }

    /// Gauss–Newton of the robust cost: each sighting's rows weighted by ρ'(s).
    fn normal_equations(&self, cameras: &[PlacedCamera], pose: &Pose) -> Option<(Matrix6<f64>, Vector6<f64>)> {
        let mut normal = Matrix6::zeros();
        let mut gradient = Vector6::zeros();
        for sighting in self.used() {
            let placed = &cameras[sighting.camera];
            let T_camera_april = placed.T_april_camera.inverse();
            let R_camera_april = T_camera_april.rotation.to_rotation_matrix();
            let (mut own_normal, mut own_gradient, mut squared) = (Matrix6::zeros(), Vector6::zeros(), 0.0);
            for corner in &sighting.corners {
                let arm: Vector3<f64> = pose.rotation * corner.point_m.coords;
                let point = T_camera_april * (pose.translation * nalgebra::Point3::from(arm));
                let (pixel, by_point) = placed.camera.project_with_jacobian(&point)?;
                let by_displacement: Matrix2x3<f64> = by_point * R_camera_april.matrix();
                let mut by_step = Matrix2x6::zeros();
                by_step.fixed_columns_mut::<3>(0).copy_from(&by_displacement);
                by_step.fixed_columns_mut::<3>(3).copy_from(&(by_displacement * -skew(&arm)));
                let residual = Vector2::new(pixel[0] - corner.pixel[0], pixel[1] - corner.pixel[1]);
                own_normal += by_step.transpose() * by_step;
                own_gradient += by_step.transpose() * residual;
                squared += residual.norm_squared();
            }
            let variance = sighting.sigma_px.powi(2);
            let weight = huber(squared / variance).1 / variance;
            normal += own_normal * weight;
            gradient += own_gradient * weight;
        }
        Some((normal, gradient))
    }
}

/// A minimum of the robust cost.
#[derive(Debug, Clone, Copy)]
struct Fit {
    pose: Pose,
    cost: f64,
    normal_matrix: Matrix6<f64>,
}

impl PartSettings {
    /// Standard deviation of a pixel coordinate of a tag at some distance from the camera.
    fn sigma_px(&self, placed: &PlacedCamera, distance_m: f64) -> f64 {
        let [fx, fy] = placed.camera.focal_px();
        let focal = 0.5 * (fx + fy);
        let at_distance = self.placement_sigma_m.hypot(placed.position_sigma_m) * focal / distance_m;
        self.corner_sigma_px.hypot(at_distance).hypot(placed.rotation_sigma_rad * focal)
    }
}

impl Sighting {
    /// Squared distance of the corners from where `pose` puts them, in units of their variance.
    fn squared(&self, placed: &PlacedCamera, pose: &Pose) -> Option<f64> {
        let T_camera_part = placed.T_april_camera.inverse() * pose;
        let mut sum = 0.0;
        for corner in &self.corners {
            let [u, v] = placed.camera.project(&(T_camera_part * corner.point_m))?;
            sum += (u - corner.pixel[0]).powi(2) + (v - corner.pixel[1]).powi(2);
        }
        let squared = sum / self.sigma_px.powi(2);
        squared.is_finite().then_some(squared)
    }
}

/// Huber's loss of √s in units of s, and its derivative by s.
fn huber(s: f64) -> (f64, f64) {
    if s <= HUBER * HUBER {
        return (s, 1.0);
    }
    let root = s.sqrt();
    (HUBER * (2.0 * root - HUBER), HUBER / root)
}

/// Displaces the origin and turns about it, both in axes of the outer frame.
fn turn_about_origin(pose: &Pose, step: &Vector6<f64>) -> Pose {
    let (v, w) = (step.fixed_rows::<3>(0).into_owned(), step.fixed_rows::<3>(3).into_owned());
    Pose::from_parts(
        Translation3::from(pose.translation.vector + v),
        UnitQuaternion::from_scaled_axis(w) * pose.rotation,
    )
}

/// Covariance of a point fixed to the part, `arm` from its origin in axes of the april frame (m²).
pub fn position_covariance(covariance: &Matrix6<f64>, arm: &Vector3<f64>) -> Matrix3<f64> {
    let mut by_step = nalgebra::Matrix3x6::zeros();
    by_step.fixed_columns_mut::<3>(0).copy_from(&Matrix3::identity());
    by_step.fixed_columns_mut::<3>(3).copy_from(&-skew(arm));
    by_step * covariance * by_step.transpose()
}
