//! A bench without hardware: rendered pictures of a calibration board, the base board, parts, and a tag in a simulated gripper. Truth
//! is known, every picture depends only on camera, subject, index and, for a pose of the arm, on where the arm was sent; nothing is read
//! back from it: the wizard measures it as it would a real one.

use std::f64::consts::PI;

use nalgebra::{Translation3, UnitQuaternion, Vector3};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_vision::render::workbench::{Workbench, looking_at};
use tenon_vision::render::{
    CameraEffects, Motion as BodyMotion, PrintedTag, RenderSettings, Scene, SceneBody, SyntheticCamera, render,
};
use tenon_vision::{Camera, Distortion, Family, GreyImage, Pose, Rig, TagOnBody, VisionError};

use super::bench::{Bench, BenchCamera, Counts, Motion, Shot, Subject};
use super::turn::Arm;
use crate::boards::Board;
use crate::boards::render::render_board;
use crate::measure::latency::Sample;
use crate::rig::Step;
use crate::steps::StepError;
use crate::steps::latency::Delayed;

const WIDTH: usize = 800;
const HEIGHT: usize = 600;
const RATE_HZ: f64 = 30.0;
/// The tag in the gripper.
pub const HAND_TAG: u32 = 100;
pub const HAND_TAG_SIZE_M: f64 = 0.048;
/// Standard deviation of the noise on pictures of the calibration board, grey levels.
const NOISE_LEVELS: f32 = 1.5;
/// What the simulated hardware delays.
const CAMERA_S: [f64; 3] = [0.042, 0.047, 0.051];
const ARM_S: f64 = 0.035;
const GRIPPER_S: f64 = 0.12;
const LINK_S: f64 = 0.006;
const SWING_S: f64 = 7.0;

/// Where the table top lies while noise is measured: behind the base board. At its nominal place both cameras look down on its rims too
/// steeply, and the one tag that is still found there leaves two poses open.
const TABLE_TOP: &str = "square_table_top";
const TABLE_TOP_M: [f64; 3] = [0.0, -0.15, -0.015625];

struct SimCamera {
    optics: Camera,
    T_april_camera: Pose,
    photographer: SyntheticCamera,
}

/// The simulated rig.
pub struct SimulatedBench {
    names: Vec<BenchCamera>,
    cameras: Vec<SimCamera>,
    layout: Rig,
    board: Board,
    hand: SceneBody,
    bench: Workbench,
    T_robot_april: Pose,
    T_hand_tag: Pose,
    /// By this much the cameras were pushed before the proof's pictures are taken, m.
    push_m: f64,
    counts: Counts,
    /// Where the wizard sends the hand for the placing; without it the arm follows a list of its own.
    goal: Option<Pose>,
}

impl SimulatedBench {
    /// `names`: one to three cameras. `board`: the calibration board that is held before them. `push_m`: the cameras are moved by that
    /// much between placing and proof, to see a proof fail.
    pub fn new(names: &[String], board: Board, push_m: f64) -> Result<Self, StepError> {
        let layout = Rig::built_in()?;
        let middle = [0.0, 0.08, -0.05];
        let places = [
            looking_at([0.06, 0.44, -0.50], middle),
            looking_at([-0.38, 0.16, -0.52], middle),
            looking_at([0.40, 0.10, -0.50], middle),
        ];
        if names.is_empty() || names.len() > places.len() {
            let reason = format!("{} simulated cameras: 1 to {} there are", names.len(), places.len());
            return Err(StepError::Picture { what: "the simulated bench".into(), reason });
        }
        let effects = CameraEffects { supersampling: 2, ..CameraEffects::default() };
        let mut cameras = Vec::with_capacity(names.len());
        for (k, place) in places.iter().enumerate().take(names.len()) {
            let distortion = Distortion { k1: 0.05, k2: -0.09, p1: 3e-4, p2: -4e-4, k3: 0.0 };
            let focal = 718.0 + 3.0 * k as f64;
            let optics = Camera::pinhole(focal, focal - 1.3, 404.0 - k as f64, 297.0)?.with_distortion(distortion)?;
            let photographer = SyntheticCamera::new(optics, WIDTH, HEIGHT, effects, 40 + k as u64)?;
            cameras.push(SimCamera { optics, T_april_camera: *place, photographer });
        }
        let tags = [hand_tag()];
        let flat = UnitQuaternion::from_euler_angles(PI, 0.0, PI / 2.0);
        Ok(Self {
            names: (0..names.len())
                .map(|k| BenchCamera { name: names[k].clone(), serial: format!("SIM-{:04}", k + 1) })
                .collect(),
            cameras,
            hand: SceneBody::with_tags(&tags, Family::Tag36h11, 0.3)?,
            bench: Workbench::one_leg(&layout, 0.0)?,
            layout,
            board,
            T_robot_april: Pose::from_parts(Translation3::new(0.298, 0.012, -0.006), flat),
            T_hand_tag: Pose::from_parts(
                Translation3::new(0.004, -0.003, 0.06),
                UnitQuaternion::from_euler_angles(0.05, -0.03, 0.4),
            ),
            push_m,
            counts: Counts {
                board_views: 14,
                rest: 10,
                arm_poses: 10,
                most_arm_poses: 16,
                proof_poses: 10,
                swing: 210,
                parts: 32,
            },
            goal: None,
        })
    }

    /// Truth, for tests.
    pub fn T_april_camera(&self, camera: usize) -> Pose {
        self.cameras[camera].T_april_camera
    }

    pub fn T_robot_april(&self) -> Pose {
        self.T_robot_april
    }

    /// Where a part lies while noise is measured, in the frame of the base board.
    pub fn T_april_part(&self, name: &str) -> Option<Pose> {
        let index = self.bench.names.iter().position(|known| known == name)?;
        let mut pose = self.bench.T_april_body(index, 0.0);
        if name == TABLE_TOP {
            pose.translation = Translation3::from(Vector3::from(TABLE_TOP_M));
        }
        Some(pose)
    }

    pub fn camera_delay_s(camera: usize) -> f64 {
        CAMERA_S[camera]
    }

    /// Where the tag is at a pose: before all cameras, tilted in turn to every side.
    fn T_april_tag(&self, step: Step, index: usize) -> Pose {
        let proof = step == Step::Proof;
        let k = index as f64 + if proof { 0.5 } else { 0.0 };
        let angle = 2.4 * k;
        // Every other pose at the rim, so that few poses span the workspace.
        let radius = if index.is_multiple_of(2) { 0.14 } else { 0.02 + 0.10 * (0.37 * k).fract() };
        let place = Vector3::new(radius * angle.cos(), 0.09 + radius * angle.sin(), -0.10 - 0.05 * (0.61 * k).fract());
        // The tag's z points away from whoever looks at it: straight down here.
        let tilt = 0.30 + 0.25 * (0.73 * k).fract();
        let axis = Vector3::new((1.9 * k).cos(), (1.9 * k).sin(), 0.0);
        let turned = UnitQuaternion::from_scaled_axis(axis * tilt);
        let spin = UnitQuaternion::from_scaled_axis(Vector3::z() * (0.7 * k).sin());
        Pose::from_parts(Translation3::from(place), turned * spin)
    }

    /// The printed board before a camera: in all corners, near and far, tilted to every side.
    fn board_pose(&self, camera: usize, index: usize) -> Pose {
        const PLACES: [[f64; 2]; 9] = [
            [0.5, 0.5],
            [0.25, 0.3],
            [0.75, 0.3],
            [0.25, 0.7],
            [0.75, 0.7],
            [0.5, 0.25],
            [0.5, 0.75],
            [0.22, 0.5],
            [0.78, 0.5],
        ];
        const TILTS: [[f64; 2]; 5] = [[0.0, 0.6], [0.0, -0.6], [-0.6, 0.0], [0.6, 0.0], [0.12, -0.1]];
        let optics = &self.cameras[camera].optics;
        let size = self.board.size_m();
        let fill = [0.75, 0.5, 0.6][index % 3];
        let distance = optics.focal_px()[0] * size[0].max(size[1]) / (fill * HEIGHT as f64);
        let [u, v] = PLACES[index % PLACES.len()];
        let [x, y] = optics.normalise([u * WIDTH as f64, v * HEIGHT as f64]).unwrap_or_default();
        let tilt = TILTS[index % TILTS.len()];
        let rotation = UnitQuaternion::from_scaled_axis(Vector3::new(tilt[0], tilt[1], 0.0))
            * UnitQuaternion::from_scaled_axis(Vector3::z() * 0.2 * (index as f64).sin());
        let middle = Vector3::new(0.5 * size[0], 0.5 * size[1], 0.0);
        Pose::from_parts(Translation3::from(Vector3::new(x, y, 1.0) * distance - rotation * middle), rotation)
    }

    fn board_picture(&self, camera: usize, index: usize) -> Result<GreyImage, StepError> {
        let settings = RenderSettings { supersampling: 2, ..RenderSettings::default() };
        let pose = self.board_pose(camera, index);
        let optics = &self.cameras[camera].optics;
        let mut image = render_board(&self.board, optics, &pose, WIDTH, HEIGHT, &settings)
            .map_err(|e| StepError::Picture { what: "the simulated board".into(), reason: e.to_string() })?;
        let mut noise = SeededNoise::new(70 + camera as u64, index as u64);
        let mut levels = vec![0.0_f32; WIDTH * HEIGHT];
        noise.fill_standard_normal(&mut levels);
        for (pixel, level) in image.pixels_mut().iter_mut().zip(&levels) {
            *pixel = (f32::from(*pixel) + NOISE_LEVELS * level).round().clamp(0.0, 255.0) as u8;
        }
        Ok(image)
    }

    /// A photograph of the whole bench, or of base board and tag.
    fn photograph(
        &mut self,
        camera: usize,
        scene: &Scene,
        T_april_body: &[Pose],
        number: u64,
        pushed: bool,
    ) -> Result<GreyImage, VisionError> {
        let mut T_april_camera = self.cameras[camera].T_april_camera;
        if pushed {
            T_april_camera.translation.vector.x += self.push_m;
        }
        let T_camera_april = T_april_camera.inverse();
        let motions: Vec<BodyMotion> =
            T_april_body.iter().map(|pose| BodyMotion::still(T_camera_april * pose)).collect();
        let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
        self.cameras[camera].photographer.shoot(scene, &motions, number, &mut image)?;
        Ok(image)
    }

    /// Displacement of the swinging tag, m.
    fn swing_m(time_s: f64) -> f64 {
        0.05 * (2.1 * time_s).sin() + 0.02 * (5.3 * time_s + 0.7).sin()
    }
}

/// What the simulated gripper holds.
pub fn hand_tag() -> TagOnBody {
    TagOnBody { id: HAND_TAG, size_m: HAND_TAG_SIZE_M, T_body_tag: Pose::identity() }
}

/// A signal that is recorded with its response a delay later.
fn motion(what: Delayed, delay_s: f64, signal: impl Fn(f64) -> f64) -> Motion {
    let record = |rate_hz: f64, late_s: f64| -> Vec<Sample> {
        let sample = |i: usize| {
            let time_s = i as f64 / rate_hz;
            Sample { time_s, value: signal(time_s - late_s) }
        };
        (0..(rate_hz * SWING_S) as usize).map(sample).collect()
    };
    Motion { what, cause: record(200.0, 0.0), response: record(100.0, delay_s) }
}

impl Bench for SimulatedBench {
    fn cameras(&self) -> &[BenchCamera] {
        &self.names
    }

    fn arm(&self) -> Arm {
        Arm::Simulated
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn is_live(&self) -> bool {
        false
    }

    fn rate_hz(&self) -> f64 {
        RATE_HZ
    }

    fn shoot(&mut self, camera: usize, subject: Subject, index: usize) -> Result<Option<Shot>, StepError> {
        let time_s = index as f64 / RATE_HZ;
        let mut T_base_hand = None;
        let mut name = format!("{index:04}");
        let grey = match subject {
            // A person would go on until nothing is missing; this one has shown all it has.
            Subject::Board if index >= 3 * self.counts.board_views => return Ok(None),
            Subject::Board => self.board_picture(camera, index)?,
            Subject::Rest => {
                name = format!("rest {index:04}");
                let scene = Scene { bodies: vec![SceneBody::base_board(&self.layout)?] };
                self.photograph(camera, &scene, &[Pose::identity()], 1000 + index as u64, false)?
            }
            Subject::Pose(step) => {
                name = format!("pose {index:04}");
                let sent = self.goal.filter(|_| step == Step::Place);
                let T_april_tag = sent.map_or_else(
                    || self.T_april_tag(step, index),
                    |T_base_hand| self.T_robot_april.inverse() * T_base_hand * self.T_hand_tag,
                );
                T_base_hand = Some(self.T_robot_april * T_april_tag * self.T_hand_tag.inverse());
                let proof = step == Step::Proof;
                let scene = Scene { bodies: vec![SceneBody::base_board(&self.layout)?, self.hand.clone()] };
                let number = if proof { 3000 } else { 2000 } + index as u64;
                self.photograph(camera, &scene, &[Pose::identity(), T_april_tag], number, proof)?
            }
            Subject::Swing => {
                let rest = self.T_april_tag(Step::Latency, 0);
                let mut T_april_tag = rest;
                // Across the line of sight of all cameras.
                T_april_tag.translation.vector += Vector3::new(0.6, 0.8, 0.0) * Self::swing_m(time_s);
                let seen = &self.cameras[camera];
                let T_camera_tag = seen.T_april_camera.inverse() * T_april_tag;
                let tag = PrintedTag { family: Family::Tag36h11, id: HAND_TAG, size_m: HAND_TAG_SIZE_M, T_camera_tag };
                render(&seen.optics, WIDTH, HEIGHT, &[tag], &RenderSettings { supersampling: 2, ..Default::default() })?
            }
            Subject::Parts => {
                let scene = self.bench.scene.clone();
                let pose = |name: &String| self.T_april_part(name).unwrap_or_else(Pose::identity);
                let poses: Vec<Pose> = self.bench.names.iter().map(pose).collect();
                self.photograph(camera, &scene, &poses, 4000 + index as u64, false)?
            }
        };
        let arrived_s = time_s + if subject == Subject::Swing { CAMERA_S[camera] } else { 0.0 };
        Ok(Some(Shot { name, grey, arrived_s, T_base_hand }))
    }

    fn guide(&mut self, T_base_hand: Option<&Pose>) {
        self.goal = T_base_hand.copied();
    }

    fn begin_swing(&mut self) -> Result<bool, StepError> {
        Ok(true)
    }

    fn swing(&mut self) -> Result<Vec<Sample>, StepError> {
        let sample = |i: usize| {
            let time_s = i as f64 / 200.0;
            Sample { time_s, value: Self::swing_m(time_s) }
        };
        Ok((0..(200.0 * SWING_S) as usize).map(sample).collect())
    }

    fn motions(&mut self) -> Result<Vec<Motion>, StepError> {
        let joint = |t: f64| 0.2 * (1.7 * t).sin() + 0.08 * (4.1 * t + 0.7).sin();
        let width = |t: f64| 0.04 + 0.03 * (2.3 * t).sin() + 0.008 * (6.1 * t).sin();
        Ok(vec![
            motion(Delayed::Arm, ARM_S, joint),
            motion(Delayed::Gripper, GRIPPER_S, width),
            motion(Delayed::Link, LINK_S, joint),
        ])
    }
}
