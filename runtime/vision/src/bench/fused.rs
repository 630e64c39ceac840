//! How exact the fused pose of a part at rest is: rendered frames of three cameras through the whole pipeline.

use super::accuracy::FLIP_RAD;
use super::{EXPOSURE_S, HEIGHT, PERIOD, WIDTH, lens};
use crate::pipeline::{PipelineSettings, VisionPipeline};
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, SyntheticCamera};
use crate::{GreyImage, PlacedCamera, Pose, Rig, VisionError};
use nalgebra::{Translation3, UnitQuaternion, Vector3};
use serde::Serialize;
use tenon_core::fusion::{Furniture, FusionConfig, PartBoard, T_robot_april_training};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::time::MonotonicTime;

/// Cameras stand this much differently in each arrangement, so that the tags fall on other pixels.
const ARRANGED_SIGMA_M: f64 = 0.01;
const ARRANGED_SIGMA_RAD: f64 = 0.02;

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
    pub effects: CameraEffects,
    pub pipeline: PipelineSettings,
    pub seed: u64,
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
    one_tag: usize,
    one_tag_flips: usize,
    missing: usize,
}

impl Errors {
    fn add(&mut self, other: &Self) {
        self.position_m.extend_from_slice(&other.position_m);
        self.rotation_rad.extend_from_slice(&other.rotation_rad);
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
    let cameras = stands.map(|stand| {
        let T_april_camera = moved(random, &stand, position_sigma_m, rotation_sigma_rad);
        (PlacedCamera { camera: lens, T_april_camera, position_sigma_m, rotation_sigma_rad }, (WIDTH, HEIGHT))
    });
    let begin = MonotonicTime::from_nanos(1_000_000_000);
    let board =
        PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &T_robot_april_training(), cameras.len(), begin)
            .map_err(|error| VisionError::Layout { origin: "one_leg".to_owned(), message: error.to_string() })?;
    let index = |name: &str| board.furniture().index_of(name);
    let indices: Vec<Option<usize>> = bench.names[1..].iter().map(|name| index(name)).collect();
    let mut pipeline = VisionPipeline::new(rig, board, &cameras, &settings.pipeline)?;
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
            }
        }
    }
    Ok(())
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
    }
}
