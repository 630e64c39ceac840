//! How exact a single tag is, by size, distance and tilt.
//!
//! Rendered pictures give the noise of the corners and the errors of the poses that follow from them. The bound is Cramér
//! and Rao's for independent corner coordinates of that noise: σ² (JᵀJ)⁻¹ at the true pose. It is a bound of first order, so
//! that a nearly frontal tag, whose tilt hardly moves its corners, may stay below it.

use super::{HEIGHT, WIDTH, lens};
use crate::pose::{Hypothesis, SAME_MINIMUM_RAD, corners_in_tag};
use crate::refine::{Correspondence, covariance, refine_pose};
use crate::render::{CameraEffects, Motion, Scene, SceneBody, SyntheticCamera};
use crate::track::{SliceSearch, SliceSettings, Tracker, TrackerSettings};
use crate::{
    Camera, Detector, DetectorSettings, Family, GreyImage, Pose, TagDetection, TagOnBody, VisionError, tag_pose,
};
use nalgebra::{Matrix3, SMatrix, Translation3, Unit, UnitQuaternion, Vector3};
use rand::Rng;
use serde::Serialize;
use std::f64::consts::TAU;
use tenon_core::geometry::skew;
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::time::MonotonicTime;

/// Tags of one picture stand in the cells of this grid.
const COLUMNS: usize = 4;
const ROWS: usize = 3;
/// A wrong orientation that is off by less than this does no harm, rad (10 degrees).
pub(super) const FLIP_RAD: f64 = 0.175;

/// What the table covers.
#[derive(Debug, Clone)]
pub struct AccuracySettings {
    pub sizes_m: Vec<f64>,
    pub distances_m: Vec<f64>,
    pub tilts_deg: Vec<f64>,
    /// Pictures a cell, of twelve tags each.
    pub pictures: usize,
    /// Noisy corner sets a cell, for flips.
    pub flip_trials: usize,
    pub effects: CameraEffects,
    pub detector: DetectorSettings,
    /// Corners of the C library, or refined ([`TrackerSettings::refine_corners`]).
    pub refine_corners: bool,
    pub seed: u64,
}

impl Default for AccuracySettings {
    /// The table: 0.3 to 1.2 m, 0 to 60 degrees.
    fn default() -> Self {
        Self {
            sizes_m: vec![0.0195, 0.048],
            distances_m: vec![0.3, 0.5, 0.7, 0.9, 1.2],
            tilts_deg: vec![0.0, 20.0, 40.0, 60.0],
            pictures: 10,
            flip_trials: 5000,
            effects: CameraEffects::default(),
            detector: DetectorSettings::default(),
            refine_corners: true,
            seed: 1,
        }
    }
}

/// One size, distance and tilt. Errors are of the pose nearer to the truth among the tag's two; that the other was preferred
/// counts as a flip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccuracyCell {
    pub size_m: f64,
    pub distance_m: f64,
    pub tilt_deg: f64,
    /// Median length of the shortest edge, px.
    pub edge_px: f64,
    pub rendered: usize,
    /// Shares of the rendered tags found by one call of the C library, and by slices and windows.
    pub library_recall: f64,
    pub recall: f64,
    /// Root mean square error of a corner coordinate, px; of the C library's corners, and of those used.
    pub library_corner_px: f64,
    pub corner_px: f64,
    /// Root mean square errors, and their ratio to the bound; NaN where nothing was found.
    pub position_mm: f64,
    pub position_over_bound: f64,
    pub rotation_deg: f64,
    pub rotation_over_bound: f64,
    /// Observations of 100 000 whose preferred pose is turned over (more than 10 degrees off while the other is nearer), at
    /// the measured corner noise; and those of them that were not called ambiguous.
    pub flips_per_100k: f64,
    pub unflagged_flips_per_100k: f64,
}

/// Measures all cells.
pub fn accuracy(settings: &AccuracySettings) -> Result<Vec<AccuracyCell>, VisionError> {
    let lens = lens()?;
    let mut studio = Studio {
        camera: SyntheticCamera::new(lens, WIDTH, HEIGHT, settings.effects, settings.seed)?,
        image: GreyImage::filled(WIDTH, HEIGHT, 0),
        library: Detector::plain(settings.detector)?,
        slices: SliceSearch::new(&SliceSettings::default(), &settings.detector, WIDTH, HEIGHT)?,
        random: SeededNoise::new(settings.seed, 1 << 40),
        photographs: 0,
    };
    let mut cells = Vec::new();
    for &size_m in &settings.sizes_m {
        for &distance_m in &settings.distances_m {
            for &tilt_deg in &settings.tilts_deg {
                cells.push(studio.cell(settings, &lens, size_m, distance_m, tilt_deg)?);
            }
        }
    }
    Ok(cells)
}

struct Studio {
    camera: SyntheticCamera,
    image: GreyImage,
    library: Detector,
    slices: SliceSearch,
    random: SeededNoise,
    photographs: u64,
}

/// Sums over the tags of a cell.
#[derive(Default)]
struct Sums {
    edges_px: Vec<f64>,
    library_found: usize,
    found: usize,
    library_squared: f64,
    squared: f64,
    /// Squared errors of position and rotation, and the traces of their bounds for σ = 1 px.
    position: [f64; 2],
    rotation: [f64; 2],
    solved: usize,
}

impl Studio {
    fn cell(
        &mut self,
        settings: &AccuracySettings,
        lens: &Camera,
        size_m: f64,
        distance_m: f64,
        tilt_deg: f64,
    ) -> Result<AccuracyCell, VisionError> {
        let place = |id: u32| TagOnBody { id, size_m, T_body_tag: Pose::identity() };
        let count = COLUMNS * ROWS;
        let bodies = (0..count as u32).map(|id| SceneBody::with_tags(&[place(id)], Family::Tag36h11, 0.4));
        let scene = Scene { bodies: bodies.collect::<Result<Vec<_>, _>>()? };
        let mut sums = Sums::default();
        let mut plain = Vec::new();
        for _ in 0..settings.pictures {
            let motions: Vec<Motion> =
                (0..count).map(|i| Motion::still(self.place(lens, i, distance_m, tilt_deg))).collect();
            self.photographs += 1;
            self.camera.shoot(&scene, &motions, self.photographs, &mut self.image)?;
            self.library.detect_into(self.image.view(), &mut plain)?;
            let now = MonotonicTime::from_nanos(1_000_000_000);
            let refine_corners = settings.refine_corners;
            let mut tracker =
                Tracker::new(TrackerSettings { detector: settings.detector, refine_corners, ..Default::default() })?;
            for _ in 0..self.slices.slices() {
                tracker.offer(self.slices.next_slice(self.image.view())?, now);
            }
            let found = tracker.track(self.image.view(), now)?;
            for truth in self.camera.truth() {
                let perfect = TagDetection {
                    id: truth.id,
                    hamming: 0,
                    decision_margin: 0.0,
                    centre_px: [0.0; 2],
                    corners_px: truth.corners_px,
                };
                sums.edges_px.push(perfect.shortest_edge_px());
                if let Some(tag) = nearest_to(&perfect, &plain) {
                    sums.library_found += 1;
                    sums.library_squared += squared_distance(&tag.corners_px, &truth.corners_px);
                }
                if let Some(tag) = nearest_to(&perfect, found) {
                    sums.found += 1;
                    sums.squared += squared_distance(&tag.corners_px, &truth.corners_px);
                    sums.judge(lens, tag, &perfect, size_m, &truth.T_camera_tag);
                }
            }
        }
        let rendered = settings.pictures * count;
        let corner_px = (sums.squared / (8 * sums.found) as f64).sqrt();
        let [flips, unflagged] = self.flips(settings, lens, size_m, distance_m, tilt_deg, corner_px);
        sums.edges_px.sort_unstable_by(f64::total_cmp);
        let root = |squared: f64| (squared / sums.solved as f64).sqrt();
        Ok(AccuracyCell {
            size_m,
            distance_m,
            tilt_deg,
            edge_px: sums.edges_px.get(sums.edges_px.len() / 2).copied().unwrap_or(f64::NAN),
            rendered,
            library_recall: sums.library_found as f64 / rendered as f64,
            recall: sums.found as f64 / rendered as f64,
            library_corner_px: (sums.library_squared / (8 * sums.library_found) as f64).sqrt(),
            corner_px,
            position_mm: 1e3 * root(sums.position[0]),
            position_over_bound: (sums.position[0] / sums.position[1]).sqrt() / corner_px,
            rotation_deg: root(sums.rotation[0]).to_degrees(),
            rotation_over_bound: (sums.rotation[0] / sums.rotation[1]).sqrt() / corner_px,
            flips_per_100k: flips,
            unflagged_flips_per_100k: unflagged,
        })
    }

    /// A pose in cell `index` of the picture's grid: anywhere near its middle, tilted about any axis, turned at will.
    fn place(&mut self, lens: &Camera, index: usize, distance_m: f64, tilt_deg: f64) -> Pose {
        let rng = self.random.rng();
        let cell = [WIDTH as f64 / COLUMNS as f64, HEIGHT as f64 / ROWS as f64];
        let mut middle = |i: usize, side: f64| (i as f64 + 0.5) * side + rng.random_range(-12.0..12.0);
        let (u, v) = (middle(index % COLUMNS, cell[0]), middle(index / COLUMNS, cell[1]));
        let [fx, fy] = lens.focal_px();
        let [cx, cy] = lens.principal_px();
        let sight = Vector3::new((u - cx) / fx, (v - cy) / fy, 1.0).normalize();
        let around = rng.random_range(0.0..TAU);
        let axis = Unit::new_normalize(Vector3::new(around.cos(), around.sin(), 0.0));
        let tilt = UnitQuaternion::from_axis_angle(&axis, tilt_deg.to_radians());
        let spin = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), rng.random_range(0.0..TAU));
        let facing = UnitQuaternion::rotation_between(&Vector3::z(), &sight).unwrap_or_default();
        Pose::from_parts(Translation3::from(sight * distance_m), facing * tilt * spin)
    }

    /// Flips of 100 000 observations with corner noise `sigma_px`: all, and those not called ambiguous.
    fn flips(
        &mut self,
        settings: &AccuracySettings,
        lens: &Camera,
        size_m: f64,
        distance_m: f64,
        tilt_deg: f64,
        sigma_px: f64,
    ) -> [f64; 2] {
        let mut flips = [0usize; 2];
        let mut noise = [0.0f32; 8];
        for trial in 0..settings.flip_trials {
            let truth = self.place(lens, trial % (COLUMNS * ROWS), distance_m, tilt_deg);
            let corners = corners_in_tag(size_m).map(|corner| lens.project(&(truth * corner)));
            let [Some(a), Some(b), Some(c), Some(d)] = corners else { continue };
            let mut corners_px = [a, b, c, d];
            self.random.fill_standard_normal(&mut noise);
            for (value, draw) in corners_px.iter_mut().flatten().zip(noise) {
                *value += sigma_px * f64::from(draw);
            }
            let tag = TagDetection { id: 0, hamming: 0, decision_margin: 0.0, centre_px: [0.0; 2], corners_px };
            let Ok(pose) = tag_pose(lens, &tag, size_m) else { continue };
            let [best, other] = [pose.best, pose.other].map(|h| h.T_camera_body.rotation.angle_to(&truth.rotation));
            if best > FLIP_RAD && other < best {
                flips[0] += 1;
                flips[1] += usize::from(!pose.ambiguous);
            }
        }
        flips.map(|count| count as f64 * 1e5 / settings.flip_trials.max(1) as f64)
    }
}

impl Sums {
    fn judge(&mut self, lens: &Camera, tag: &TagDetection, perfect: &TagDetection, size_m: f64, truth: &Pose) {
        let points = corners_in_tag(size_m);
        let seen: [Correspondence; 4] =
            std::array::from_fn(|i| Correspondence { point_m: points[i], pixel: perfect.corners_px[i] });
        let bound = refine_pose(lens, truth, &seen).and_then(|at| covariance(&at.normal_matrix, 1.0));
        let (Ok(pose), Some(bound)) = (tag_pose(lens, tag, size_m), bound) else { return };
        let off = |h: &Hypothesis| h.T_camera_body.rotation.angle_to(&truth.rotation);
        let differ = pose.best.T_camera_body.rotation.angle_to(&pose.other.T_camera_body.rotation) > SAME_MINIMUM_RAD;
        let nearest = if differ && off(&pose.other) < off(&pose.best) { pose.other } else { pose.best };
        let error = nearest.T_camera_body.translation.vector - truth.translation.vector;
        // The covariance is of a twist about the camera; at the tag, v becomes v + ω × p.
        let mut at_tag = SMatrix::<f64, 3, 6>::zeros();
        at_tag.fixed_columns_mut::<3>(0).copy_from(&Matrix3::identity());
        at_tag.fixed_columns_mut::<3>(3).copy_from(&-skew(&truth.translation.vector));
        self.position[0] += error.norm_squared();
        self.position[1] += (at_tag * bound * at_tag.transpose()).trace();
        self.rotation[0] += off(&nearest).powi(2);
        self.rotation[1] += bound.fixed_view::<3, 3>(3, 3).trace();
        self.solved += 1;
    }
}

fn nearest_to<'a>(wanted: &TagDetection, found: &'a [TagDetection]) -> Option<&'a TagDetection> {
    let near = |tag: &&TagDetection| {
        let worst = tag.corners_px.iter().zip(wanted.corners_px).map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1]));
        tag.id == wanted.id && worst.fold(0.0, f64::max) < 3.0
    };
    found.iter().find(near)
}

/// Sum over the eight coordinates, px².
fn squared_distance(a: &[[f64; 2]; 4], b: &[[f64; 2]; 4]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_follow_the_corner_noise_and_nothing_is_found_less_often_than_by_the_library() {
        let settings = AccuracySettings {
            distances_m: vec![0.4, 0.8],
            tilts_deg: vec![0.0, 45.0],
            pictures: 3,
            flip_trials: 2000,
            ..Default::default()
        };
        let table = accuracy(&settings).unwrap();
        assert_eq!(table.len(), 8);
        for cell in &table {
            println!("{cell:?}");
            assert!(cell.recall >= cell.library_recall, "{cell:?}");
            assert!(cell.edge_px < 20.0 || cell.recall > 0.95, "{cell:?}");
            assert!(cell.corner_px > 0.005 && cell.corner_px < 0.25, "{cell:?}");
            assert!(cell.position_over_bound > 0.2 && cell.position_over_bound < 2.0, "{cell:?}");
            assert!(cell.rotation_over_bound < 2.0, "{cell:?}");
            assert!(cell.unflagged_flips_per_100k <= cell.flips_per_100k, "{cell:?}");
            // Strong perspective and a strong tilt leave no doubt.
            if cell.size_m > 0.04 && cell.distance_m < 0.5 && cell.tilt_deg > 30.0 {
                assert_eq!(cell.flips_per_100k, 0.0, "{cell:?}");
            }
        }
    }
}
