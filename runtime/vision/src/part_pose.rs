//! Pose of a part from all of its tags in all cameras, solved together on pixels.
//!
//! Minimises Σ ρ(s_k) over `T_april_part`, where s_k is the squared distance of the four corners of tag sighting k in units
//! of its own standard deviation and ρ is Huber's loss of √s_k, so that one wrong corner pulls no harder than a doubtful one.
//! Sightings that still lie far out afterwards are left out, while they are the minority, and the rest is solved again.
//!
//! The standard deviation of a corner has three parts: the detector's noise, how exactly the tag sits on the part, and how
//! exactly the camera's place is known, all seen from the tag's distance.
//!
//! A camera's place is wrong by the same in every frame. Where its covariance is known
//! ([`PartSolver::with_place_covariances`]), it weighs the sightings but stays out of the covariance of what is new in every
//! frame; how the solution shifts with it is told apart. By the implicit function theorem on the normal equations
//! Jᵀ W r = 0 a displacement c of a camera shifts the solution by dx = −H⁻¹ Σ Jᵀ W (∂r/∂c) dc, with H = Σ Jᵀ W J, the sums
//! over that camera's sightings and over all.

mod terms;

use crate::pose::{AMBIGUITY_RATIO, SAME_MINIMUM_RAD, corners_in_tag, tag_pose};
use crate::refine::{Correspondence, minimise};
use crate::{Camera, Pose, TagDetection, TagOnBody, VisionError};
use nalgebra::{Cholesky, Matrix3, Matrix6, SymmetricEigen, Translation3, UnitQuaternion, Vector3, Vector6};
use tenon_core::fusion::{MAX_SOURCES, SystematicError};
use tenon_core::geometry::skew;
use terms::{VALUES, huber, place_variance_px};

/// A calibrated camera at its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacedCamera {
    pub camera: Camera,
    /// The camera's pose in the frame of the base board.
    pub T_april_camera: Pose,
    /// Standard deviation of its position on each axis, m. Not used where the covariance of its place is known.
    pub position_sigma_m: f64,
    /// Standard deviation of its orientation about each axis, rad. As above.
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
    /// Part of the variance that is new in every frame.
    white: f64,
    corners: [Correspondence; 4],
}

/// Another pose that explains the corners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OtherPose {
    pub T_april_part: Pose,
    pub covariance: Matrix6<f64>,
    pub systematic: Option<SystematicError>,
    /// How much worse it fits, in units of variance: the log-likelihood ratio is half of it.
    pub chi_squared_more: f64,
}

/// Pose of a part in the frame of the base board.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartPose {
    pub T_april_part: Pose,
    /// Of the displacement of the part's origin and its rotation `[v; ω]` in axes of the april frame (m², m·rad, rad²);
    /// without what is in `systematic`.
    pub covariance: Matrix6<f64>,
    /// How the pose shifts with the errors of the cameras' places: source k is camera k. None where no camera's covariance
    /// is known; then their standard deviations are in `covariance`.
    pub systematic: Option<SystematicError>,
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

impl PartPose {
    /// Covariance of one solution's whole error, systematic errors included.
    pub fn whole_covariance(&self) -> Matrix6<f64> {
        self.covariance + self.systematic.map_or_else(Matrix6::zeros, |systematic| systematic.covariance())
    }
}

/// Why there is no pose. Made of numbers only, so that a frame without one costs no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolved {
    /// No camera saw a usable tag.
    NoUsableTag,
    /// Nothing fits the `tags` sightings.
    NoFit { tags: usize },
}

impl Unsolved {
    /// With the name of the part and the ids that were looked for.
    pub fn explain(self, name: &str, tags: &[TagOnBody]) -> VisionError {
        let body = name.to_owned();
        match self {
            Self::NoUsableTag => {
                let wanted: Vec<String> = tags.iter().map(|tag| tag.id.to_string()).collect();
                VisionError::NoTagOfBody { body, wanted: wanted.join(", ") }
            }
            Self::NoFit { tags } => VisionError::NoBodyPose { body, tags, reason: "no start fits all cameras" },
        }
    }
}

/// Solves part poses. Its buffers grow to the largest problem and then stay.
#[derive(Debug, Default)]
pub struct PartSolver {
    settings: PartSettings,
    /// L with L Lᵀ the covariance of a camera's place; none where unknown.
    places: [Option<Matrix6<f64>>; MAX_SOURCES],
    sightings: Vec<Sighting>,
    starts: Vec<(Pose, f64)>,
}

impl PartSolver {
    pub fn new(settings: PartSettings) -> Self {
        let places = [None; MAX_SOURCES];
        Self { settings, places, sightings: Vec::with_capacity(64), starts: Vec::with_capacity(128) }
    }

    /// With the covariances of the cameras' places, in the order of the cameras: of the displacement of a camera's origin and
    /// a rotation about it `[v; ω]`, in axes of the april frame (m², m·rad, rad²), as `config::rig::PlaceRecord` holds them.
    /// The errors of different cameras count as independent.
    ///
    /// # Errors
    /// [`VisionError::Camera`] for a covariance that is not finite, symmetric and positive, or for more than
    /// [`MAX_SOURCES`] cameras.
    pub fn with_place_covariances(mut self, covariances: &[Option<Matrix6<f64>>]) -> Result<Self, VisionError> {
        self.places = [None; MAX_SOURCES];
        for (camera, covariance) in covariances.iter().enumerate() {
            let fail =
                |value: f64, requirement| VisionError::Camera { name: "covariance of its place", value, requirement };
            let Some(covariance) = covariance else { continue };
            let place = self.places.get_mut(camera);
            let place = place.ok_or_else(|| fail(camera as f64, "is known for too many cameras; 8 at most"))?;
            let norm = covariance.norm();
            if !norm.is_finite() || (covariance - covariance.transpose()).norm() > 1e-6 * norm {
                return Err(fail(norm, "must be finite and symmetric"));
            }
            // A place may be exact in some direction: no Cholesky factor, but a square root of what is symmetric.
            let eigen = SymmetricEigen::new((covariance + covariance.transpose()) * 0.5);
            let least = eigen.eigenvalues.min();
            if least < -1e-9 * norm {
                return Err(fail(least, "must not have a negative eigenvalue"));
            }
            let roots = Matrix6::from_diagonal(&eigen.eigenvalues.map(|value| value.max(0.0).sqrt()));
            *place = Some(eigen.eigenvectors * roots);
        }
        Ok(self)
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
        self.try_solve(tags, cameras, views, previous).map_err(|unsolved| unsolved.explain(name, tags))
    }

    /// [`Self::solve`] for every frame: nothing is allocated once the buffers have grown, whether there is a pose or not.
    pub fn try_solve<'a>(
        &mut self,
        tags: &[TagOnBody],
        cameras: &[PlacedCamera],
        views: impl IntoIterator<Item = &'a [TagDetection]>,
        previous: Option<&Pose>,
    ) -> Result<PartPose, Unsolved> {
        self.collect(tags, cameras, views);
        if self.starts.is_empty() {
            return Err(Unsolved::NoUsableTag);
        }
        self.starts.extend(previous.map(|pose| (*pose, f64::INFINITY)));
        let used = self.sightings.iter().filter(|s| s.verdict == Verdict::Used).count();
        let nothing = || Unsolved::NoFit { tags: used };
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
                    white: 1.0,
                    corners,
                };
                if view.iter().filter(|other| other.id == tag.id).count() > 1 {
                    sighting.verdict = Verdict::Duplicate;
                } else if let Ok(alone) = tag_pose(&placed.camera, detection, tag.size_m) {
                    let T_camera_tag = alone.best.T_camera_body;
                    let distance_m = T_camera_tag.translation.vector.norm();
                    sighting.sigma_px =
                        match self.place(camera).and_then(|L| place_variance_px(placed, L, &T_camera_tag, &points)) {
                            None => self.settings.sigma_px(placed, distance_m),
                            Some(variance) => {
                                let exact = PlacedCamera { position_sigma_m: 0.0, rotation_sigma_rad: 0.0, ..*placed };
                                let white = self.settings.sigma_px(&exact, distance_m).powi(2);
                                sighting.white = white / (white + variance);
                                (white + variance).sqrt()
                            }
                        };
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
        let misfit = self.misfit(cameras, best);
        let inflation = if freedom > 0.0 { (misfit / freedom).max(1.0) } else { 1.0 };
        let other = other.map(|fit| {
            let (covariance, systematic) = self.uncertainty(cameras, &fit, inflation);
            let chi_squared_more = (self.misfit(cameras, &fit) - misfit) / inflation;
            OtherPose { T_april_part: fit.pose, covariance, systematic, chi_squared_more }
        });
        let (covariance, systematic) = self.uncertainty(cameras, best, inflation);
        let ambiguous = other.is_some_and(|o| {
            let ratio = ((misfit + o.chi_squared_more * inflation) / misfit).sqrt();
            o.chi_squared_more < AMBIGUOUS_CHI_SQUARED || ratio < AMBIGUITY_RATIO && seen_by == 1 && tags == 1
        });
        PartPose {
            T_april_part: best.pose,
            covariance,
            systematic,
            other,
            ambiguous,
            rms_px: (squared_px / corners.max(1) as f64).sqrt(),
            tags,
            cameras: seen_by,
        }
    }

    fn place(&self, camera: usize) -> Option<&Matrix6<f64>> {
        self.places.get(camera).and_then(Option::as_ref)
    }

    /// Sum of squared residuals in units of their covariance, where a known uncertainty of a camera's place moves all that the
    /// camera sees together: Σ r² / σ² − gᵀ (I + A)⁻¹ g for each such camera, with A = Lᵀ Cᵀ C L / σ², g = Lᵀ Cᵀ r / σ²,
    /// C = ∂r/∂c and σ what is new in every frame. Without any, the robust cost.
    fn misfit(&self, cameras: &[PlacedCamera], fit: &Fit) -> f64 {
        if self.used().all(|s| self.place(s.camera).is_none()) {
            return fit.cost;
        }
        let mut sum = 0.0;
        for (camera, placed) in cameras.iter().enumerate() {
            let (mut A, mut g) = (Matrix6::zeros(), Vector6::zeros());
            for sighting in self.used().filter(|s| s.camera == camera) {
                let Some(terms) = sighting.terms(placed, &fit.pose) else { return fit.cost };
                let per_variance = 1.0 / (sighting.sigma_px.powi(2) * sighting.white);
                sum += terms.squared_px * per_variance;
                if let Some(L) = self.place(camera) {
                    let (normal, gradient) = terms.at_camera(placed, &fit.pose);
                    A += L.transpose() * normal * L * per_variance;
                    g += L.transpose() * gradient * per_variance;
                }
            }
            let explained = Cholesky::new(Matrix6::identity() + A).map_or(0.0, |S| g.dot(&S.solve(&g)));
            sum -= explained;
        }
        sum
    }

    /// Covariance of what is new in every frame, made larger by `inflation`, and how the pose shifts with what stays.
    fn uncertainty(
        &self,
        cameras: &[PlacedCamera],
        fit: &Fit,
        inflation: f64,
    ) -> (Matrix6<f64>, Option<SystematicError>) {
        let Some(H) = Cholesky::new(fit.normal_matrix) else { return (Matrix6::identity() * 1e6, None) };
        let inverse = H.inverse();
        if self.used().all(|s| self.place(s.camera).is_none()) {
            return (inverse * inflation, None);
        }
        // Σ Jᵀ W R W J, with R that part of W⁻¹ which is white; and Σ Jᵀ W ∂r/∂c of each camera.
        let mut white = Matrix6::zeros();
        let mut by_place = [Matrix6::zeros(); MAX_SOURCES];
        for sighting in self.used() {
            let placed = &cameras[sighting.camera];
            let Some(terms) = sighting.terms(placed, &fit.pose) else { return (inverse * inflation, None) };
            white += terms.normal * (terms.weight * sighting.white);
            if let Some(sum) = by_place.get_mut(sighting.camera) {
                *sum += terms.by_place(placed, &fit.pose) * terms.weight;
            }
        }
        let mut systematic = SystematicError::default();
        for (camera, (L, by_place)) in self.places.iter().zip(&by_place).enumerate() {
            if let Some(L) = L {
                systematic.set(camera, &(inverse * by_place * -L));
            }
        }
        (inverse * white * inverse * inflation, Some(systematic))
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
            let terms = sighting.terms(&cameras[sighting.camera], pose)?;
            normal += terms.normal * terms.weight;
            gradient += terms.gradient * terms.weight;
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
