//! How exact the fused pose of a part at rest is: rendered frames of three cameras through the whole pipeline.

use super::accuracy::FLIP_RAD;
use super::{EXPOSURE_S, HEIGHT, PERIOD, WIDTH, lens};
use crate::pipeline::{PipelineSettings, VisionPipeline};
use crate::pose::corners_in_tag;
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, SyntheticCamera};
use crate::{Camera, GreyImage, PlacedCamera, Pose, Rig, VisionError};
use nalgebra::{Cholesky, Matrix2x6, Matrix3, Matrix6, Translation3, UnitQuaternion, Vector3, Vector6};
use serde::Serialize;
use tenon_core::fusion::{Furniture, FusionConfig, PartBoard, T_robot_april_training};
use tenon_core::geometry::{pose_error, skew};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::time::MonotonicTime;

/// Cameras stand this much differently in each arrangement, so that the tags fall on other pixels.
const ARRANGED_SIGMA_M: f64 = 0.01;
const ARRANGED_SIGMA_RAD: f64 = 0.02;
/// χ² with 6 degrees of freedom is below this in 95 %.
const INSIDE_95: f64 = 12.592;

/// What is filmed.
#[derive(Debug, Clone, Copy)]
pub struct FusedSettings {
    /// Arrangements of the three cameras about `render::workbench::three_views`.
    pub arrangements: usize,
    /// Frames of each camera in each arrangement, and how many of them come before the first pose that counts.
    pub frames: usize,
    pub warm_up_frames: usize,
    /// Standard deviations, on each axis, by which the cameras stand elsewhere than the calibration says (it says how exact it
    /// is); zero: the calibration is the truth.
    pub camera_position_sigma_m: f64,
    pub camera_rotation_sigma_rad: f64,
    /// Instead of those two: cameras as a calibration from the base board leaves them. Errors are drawn from the covariance
    /// that corners of equal noise on the board's four tags give at each camera's place, scaled so that the median error of
    /// its position is this, m. The pipeline is told the covariance.
    pub calibrated_position_median_m: Option<f64>,
    pub effects: CameraEffects,
    pub pipeline: PipelineSettings,
    pub seed: u64,
}

/// Median length of a vector of three independent standard normal values.
const MEDIAN_LENGTH: f64 = 1.5382;
/// What a calibration from the board leaves: median errors of a camera's position and rotation over 1000 rigs, corners with
/// 0.2 px of noise, 30 frames (docs/results.md, "Seeing").
const CALIBRATED_MEDIAN_M: f64 = 0.48e-3;
const CALIBRATED_MEDIAN_RAD: f64 = 0.028 * std::f64::consts::PI / 180.0;

impl FusedSettings {
    /// With cameras whose errors have these medians, independent on all axes.
    fn with_camera_errors(self, median_m: f64, median_rad: f64) -> Self {
        Self {
            camera_position_sigma_m: median_m / MEDIAN_LENGTH,
            camera_rotation_sigma_rad: median_rad / MEDIAN_LENGTH,
            ..self
        }
    }

    /// With cameras as Tenon's own calibration from the board leaves them, [`Self::calibrated_position_median_m`].
    pub fn with_calibrated_cameras(self) -> Self {
        Self { calibrated_position_median_m: Some(CALIBRATED_MEDIAN_M), ..self }
    }
}

/// The tables of fused part poses, each with its title: with exact cameras, with such as a calibration is held to, and with
/// such as Tenon's own calibration leaves.
pub fn fused_tables(settings: &FusedSettings) -> Result<Vec<(&'static str, Vec<FusedAccuracy>)>, VisionError> {
    let root3 = 3f64.sqrt();
    let held_to = FusedSettings {
        camera_position_sigma_m: 1e-3 / root3,
        camera_rotation_sigma_rad: 0.1f64.to_radians() / root3,
        ..*settings
    };
    let tables = [
        ("fused part pose", *settings),
        ("the same with cameras off by 1 mm and 0.1 degrees", held_to),
        (
            "the same with cameras off by 0.48 mm and 0.028 degrees (medians of Tenon's calibration), independently on every axis",
            settings.with_camera_errors(CALIBRATED_MEDIAN_M, CALIBRATED_MEDIAN_RAD),
        ),
        (
            "the same with cameras as Tenon's calibration from the board leaves them: 0.48 mm (median), position and rotation \
             correlated as the board's corners tie them",
            settings.with_calibrated_cameras(),
        ),
    ];
    tables.into_iter().map(|(title, settings)| Ok((title, fused_accuracy(&settings)?))).collect()
}

impl Default for FusedSettings {
    /// 16 arrangements of 10 frames of 3 cameras: 480 pictures.
    fn default() -> Self {
        Self {
            arrangements: 16,
            frames: 10,
            warm_up_frames: 4,
            camera_position_sigma_m: 0.0,
            camera_rotation_sigma_rad: 0.0,
            calibrated_position_median_m: None,
            effects: CameraEffects::default(),
            pipeline: PipelineSettings::default(),
            seed: 3,
        }
    }
}

/// Errors of the pose on the board, of one part or of all, where at least two of its tags are seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FusedAccuracy {
    pub part: String,
    pub poses: usize,
    pub position_p50_mm: f64,
    pub position_p99_mm: f64,
    pub rotation_p50_deg: f64,
    pub rotation_p99_deg: f64,
    /// Share of the truths inside the ellipsoid that the reported covariance says holds 95 %, position and rotation together.
    pub inside_95: f64,
    /// Poses more than ten degrees off.
    pub flips: usize,
    /// Poses from one tag only, which the numbers above leave out, and those of them more than ten degrees off.
    pub one_tag: usize,
    pub one_tag_flips: usize,
    /// Times that the part had no pose.
    pub missing: usize,
}

/// Errors of one part.
#[derive(Debug, Clone, Default)]
struct Errors {
    position_m: Vec<f64>,
    rotation_rad: Vec<f64>,
    inside_95: usize,
    one_tag: usize,
    one_tag_flips: usize,
    missing: usize,
}

impl Errors {
    fn add(&mut self, other: &Self) {
        self.position_m.extend_from_slice(&other.position_m);
        self.rotation_rad.extend_from_slice(&other.rotation_rad);
        self.inside_95 += other.inside_95;
        self.one_tag += other.one_tag;
        self.one_tag_flips += other.one_tag_flips;
        self.missing += other.missing;
    }

    fn table(&self, part: &str) -> FusedAccuracy {
        let quantile = |values: &[f64], share: f64| {
            let mut sorted = values.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            let index = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(index.max(1) - 1).copied().unwrap_or(f64::NAN)
        };
        FusedAccuracy {
            part: part.to_owned(),
            poses: self.position_m.len(),
            position_p50_mm: 1e3 * quantile(&self.position_m, 0.5),
            position_p99_mm: 1e3 * quantile(&self.position_m, 0.99),
            rotation_p50_deg: quantile(&self.rotation_rad, 0.5).to_degrees(),
            rotation_p99_deg: quantile(&self.rotation_rad, 0.99).to_degrees(),
            inside_95: self.inside_95 as f64 / self.position_m.len() as f64,
            flips: self.rotation_rad.iter().filter(|&&rad| rad > FLIP_RAD).count(),
            one_tag: self.one_tag,
            one_tag_flips: self.one_tag_flips,
            missing: self.missing,
        }
    }
}

/// Films the bench of the one_leg task at rest and compares the poses on the board with the truth after every frame. One entry
/// a part, then one named `all`.
pub fn fused_accuracy(settings: &FusedSettings) -> Result<Vec<FusedAccuracy>, VisionError> {
    let rig = Rig::built_in()?;
    let bench = Workbench::one_leg(&rig, 0.0)?;
    let mut random = SeededNoise::new(settings.seed, 1 << 41);
    let mut errors = vec![Errors::default(); bench.names.len() - 1];
    for arrangement in 0..settings.arrangements {
        film(settings, arrangement, &rig, &bench, &mut random, &mut errors)?;
    }
    let mut all = Errors::default();
    errors.iter().for_each(|part| all.add(part));
    // The first body is the base board.
    let parts = bench.names[1..].iter().zip(&errors).map(|(name, errors)| errors.table(name));
    Ok(parts.chain([all.table("all")]).collect())
}

fn film(
    settings: &FusedSettings,
    arrangement: usize,
    rig: &Rig,
    bench: &Workbench,
    random: &mut SeededNoise,
    errors: &mut [Errors],
) -> Result<(), VisionError> {
    let lens = lens()?;
    let stands = three_views().map(|view| moved(random, &view, ARRANGED_SIGMA_M, ARRANGED_SIGMA_RAD));
    let (position_sigma_m, rotation_sigma_rad) = (settings.camera_position_sigma_m, settings.camera_rotation_sigma_rad);
    let placed = stands.map(|stand| match settings.calibrated_position_median_m {
        Some(median_m) => {
            let covariance = calibrated_from_board(rig, &lens, &stand, median_m);
            let T_april_camera = drawn(random, &stand, &covariance);
            (
                PlacedCamera { camera: lens, T_april_camera, position_sigma_m: 0.0, rotation_sigma_rad: 0.0 },
                Some(covariance),
            )
        }
        None => {
            let T_april_camera = moved(random, &stand, position_sigma_m, rotation_sigma_rad);
            let (p, r) = (position_sigma_m.powi(2), rotation_sigma_rad.powi(2));
            let covariance = Matrix6::from_diagonal(&Vector6::new(p, p, p, r, r, r));
            let known = (p > 0.0 || r > 0.0).then_some(covariance);
            (PlacedCamera { camera: lens, T_april_camera, position_sigma_m, rotation_sigma_rad }, known)
        }
    });
    let cameras = placed.map(|(camera, _)| (camera, (WIDTH, HEIGHT)));
    let begin = MonotonicTime::from_nanos(1_000_000_000);
    let board =
        PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &T_robot_april_training(), cameras.len(), begin)
            .map_err(|error| VisionError::Layout { origin: "one_leg".to_owned(), message: error.to_string() })?;
    let index = |name: &str| board.furniture().index_of(name);
    let indices: Vec<Option<usize>> = bench.names[1..].iter().map(|name| index(name)).collect();
    let pipeline = VisionPipeline::new(rig, board, &cameras, &settings.pipeline)?;
    let mut pipeline = pipeline.with_place_covariances(&placed.map(|(_, covariance)| covariance))?;
    let seed = settings.seed + 3 * arrangement as u64;
    let shooters = (0..3).map(|i| SyntheticCamera::new(lens, WIDTH, HEIGHT, settings.effects, seed + i));
    let mut shooters = shooters.collect::<Result<Vec<_>, _>>()?;
    let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
    for frame in 0..settings.frames {
        for (camera, shooter) in shooters.iter_mut().enumerate() {
            let motions = bench.motions(&stands[camera], 0.0, EXPOSURE_S);
            shooter.shoot(&bench.scene, &motions, frame as u64, &mut image)?;
            let exposed_at = begin + PERIOD * (3 * frame + camera) as u32 / 3;
            if frame == 0 {
                pipeline.search_whole(camera, image.view(), exposed_at)?;
            }
            let now = exposed_at + PERIOD / 4;
            pipeline.frame(camera, image.view(), exposed_at, now)?;
            pipeline.search_slice(camera, image.view(), exposed_at)?;
            if frame < settings.warm_up_frames {
                continue;
            }
            for (body, index) in indices.iter().enumerate() {
                let Some(index) = *index else { continue };
                let Ok(Some(estimate)) = pipeline.board().estimate(index, now, None) else {
                    errors[body].missing += 1;
                    continue;
                };
                let truth = bench.T_april_body(body + 1, 0.0);
                let rotation_rad = estimate.T_april_part.rotation.angle_to(&truth.rotation);
                if estimate.tags < 2 {
                    errors[body].one_tag += 1;
                    errors[body].one_tag_flips += usize::from(rotation_rad > FLIP_RAD);
                    continue;
                }
                let off = estimate.T_april_part.translation.vector - truth.translation.vector;
                errors[body].position_m.push(off.norm());
                errors[body].rotation_rad.push(rotation_rad);
                let error = pose_error(&estimate.T_april_part, &truth);
                let inside = estimate
                    .covariance
                    .and_then(Cholesky::new)
                    .is_some_and(|P| error.dot(&P.solve(&error)) < INSIDE_95);
                errors[body].inside_95 += usize::from(inside);
            }
        }
    }
    Ok(())
}

/// Covariance of a camera's place (`[v; ω]`, axes of the april frame) from the corners of the base board, with noise such that
/// the median error of its position is `median_m`: σ² (Σ Cᵀ C)⁻¹.
fn calibrated_from_board(rig: &Rig, lens: &Camera, T_april_camera: &Pose, median_m: f64) -> Matrix6<f64> {
    let mut information = Matrix6::zeros();
    for tag in &rig.base_tags {
        for corner in corners_in_tag(tag.size_m) {
            let in_april = tag.T_body_tag * corner;
            let Some((_, by_point)) = lens.project_with_jacobian(&(T_april_camera.inverse() * in_april)) else {
                continue;
            };
            let by_displacement = by_point * T_april_camera.rotation.inverse().to_rotation_matrix().matrix();
            let arm = in_april.coords - T_april_camera.translation.vector;
            let mut by_place = Matrix2x6::zeros();
            by_place.fixed_columns_mut::<3>(0).copy_from(&-by_displacement);
            by_place.fixed_columns_mut::<3>(3).copy_from(&(by_displacement * skew(&arm)));
            information += by_place.transpose() * by_place;
        }
    }
    let for_one_px = information.try_inverse().unwrap_or_else(Matrix6::zeros);
    let for_one_px = (for_one_px + for_one_px.transpose()) * 0.5;
    let median_for_one_px = median_length(&for_one_px.fixed_view::<3, 3>(0, 0).into_owned());
    for_one_px * (median_m / median_for_one_px).powi(2)
}

/// Median length of a vector with normal coordinates of this covariance: from as many draws as give it within a percent.
fn median_length(covariance: &Matrix3<f64>) -> f64 {
    let root = covariance.symmetric_eigen().eigenvalues.map(|value| value.max(0.0).sqrt());
    let mut random = SeededNoise::new(9, 0);
    let mut draws = [0.0f32; 3];
    let mut lengths: Vec<f64> = (0..20_000)
        .map(|_| {
            random.fill_standard_normal(&mut draws);
            Vector3::from(draws.map(f64::from)).component_mul(&root).norm()
        })
        .collect();
    lengths.sort_unstable_by(f64::total_cmp);
    lengths[lengths.len() / 2]
}

/// A pose elsewhere, by an error of this covariance.
fn drawn(random: &mut SeededNoise, pose: &Pose, covariance: &Matrix6<f64>) -> Pose {
    let mut draws = [0.0f32; 6];
    random.fill_standard_normal(&mut draws);
    let eigen = covariance.symmetric_eigen();
    let by = eigen.eigenvalues.map(|value| value.max(0.0).sqrt()).component_mul(&Vector6::from(draws.map(f64::from)));
    let by = eigen.eigenvectors * by;
    let (v, turn) =
        (by.fixed_rows::<3>(0).into_owned(), UnitQuaternion::from_scaled_axis(by.fixed_rows::<3>(3).into_owned()));
    Pose::from_parts(Translation3::from(pose.translation.vector + v), turn * pose.rotation)
}

/// A pose elsewhere, by so much on each axis.
fn moved(random: &mut SeededNoise, pose: &Pose, position_sigma_m: f64, rotation_sigma_rad: f64) -> Pose {
    let mut draws = [0.0f32; 6];
    random.fill_standard_normal(&mut draws);
    let [x, y, z, a, b, c] = draws.map(f64::from);
    let by = Vector3::new(x, y, z) * position_sigma_m;
    let turn = UnitQuaternion::from_scaled_axis(Vector3::new(a, b, c) * rotation_sigma_rad);
    Pose::from_parts(Translation3::from(pose.translation.vector + by), pose.rotation * turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_at_rest_are_known_within_two_millimetres_and_one_degree_and_never_turned_over() {
        let settings = FusedSettings { arrangements: 3, frames: 7, ..Default::default() };
        let table = fused_accuracy(&settings).unwrap();
        for row in &table {
            println!("{row:?}");
        }
        assert_eq!(table.len(), 6);
        let all = table.last().unwrap();
        // Three frames of three cameras of five parts in three arrangements.
        assert_eq!(all.poses + all.one_tag + all.missing, 135);
        assert!(all.poses >= 100 && all.missing <= 9, "{all:?}");
        assert!(all.position_p99_mm <= 2.0 && all.rotation_p99_deg <= 1.0 && all.flips == 0, "{all:?}");
        assert!(all.inside_95 > 0.93, "{all:?}");
    }

    #[test]
    fn with_cameras_as_calibrated_parts_are_known_as_well_as_their_covariance_says() {
        let settings = FusedSettings { arrangements: 4, frames: 6, ..Default::default() };
        let independent = settings.with_camera_errors(CALIBRATED_MEDIAN_M, CALIBRATED_MEDIAN_RAD);
        let [independent, tied] = [independent, settings.with_calibrated_cameras()].map(|settings| {
            let table = fused_accuracy(&settings).unwrap();
            println!("{}", FusedAccuracy::HEADING);
            table.iter().for_each(|row| println!("{row}"));
            table.last().unwrap().clone()
        });
        // An arrangement draws one error of each camera, which its poses share.
        for all in [&independent, &tied] {
            assert!(all.poses >= 100 && all.flips == 0 && all.inside_95 > 0.8, "{all:?}");
            assert!(all.position_p50_mm > 0.03 && all.position_p99_mm < 2.0 && all.rotation_p99_deg < 1.5, "{all:?}");
        }
        // Where position and rotation hang together the parts beside the board lie where they are.
        assert!(tied.position_p50_mm < 0.6 * independent.position_p50_mm, "{independent:?} {tied:?}");
    }

    #[test]
    fn a_calibration_from_the_board_is_off_by_what_it_is_said_to_be() {
        let (rig, lens) = (Rig::built_in().unwrap(), lens().unwrap());
        let mut random = SeededNoise::new(4, 0);
        let (mut mm, mut deg) = (Vec::new(), Vec::new());
        for view in three_views() {
            let covariance = calibrated_from_board(&rig, &lens, &view, 0.48e-3);
            for _ in 0..2000 {
                let pose = drawn(&mut random, &view, &covariance);
                mm.push(1e3 * (pose.translation.vector - view.translation.vector).norm());
                deg.push(pose.rotation.angle_to(&view.rotation).to_degrees());
            }
        }
        mm.sort_unstable_by(f64::total_cmp);
        deg.sort_unstable_by(f64::total_cmp);
        let (mm, deg) = (mm[mm.len() / 2], deg[deg.len() / 2]);
        println!("median error of a camera: {mm:.3} mm, {deg:.4} degrees");
        assert!((mm - 0.48).abs() < 0.02 && (0.02..0.045).contains(&deg), "{mm} {deg}");
    }
}
