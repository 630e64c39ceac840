//! The bench of the benchmark's one_leg task before cameras that stand around it: a scene for tests and measurements.

use super::scene::{Motion, Scene, SceneBody};
use crate::{Pose, Rig, VisionError};
use nalgebra::{Matrix3, Rotation3, Translation3, UnitQuaternion, Vector3};
use std::f64::consts::{FRAC_PI_2, PI};

/// Base board, table top and four legs at their nominal places (perception.md section 8.1). The last leg is carried round in
/// the air while it turns, the others rest.
#[derive(Debug, Clone)]
pub struct Workbench {
    pub scene: Scene,
    /// Name of each body: `board` and the parts' own.
    pub names: Vec<String>,
    T_april_body: Vec<Pose>,
    /// Speed of the carried leg on its circle.
    pub speed_m_s: f64,
}

/// Radius of the circle that the carried leg goes round.
const CIRCLE_M: f64 = 0.06;

impl Workbench {
    pub fn one_leg(rig: &Rig, speed_m_s: f64) -> Result<Self, VisionError> {
        let mut names = vec!["board".to_owned()];
        let mut bodies = vec![SceneBody::base_board(rig)?];
        let mut T_april_body = vec![Pose::identity()];
        for part in rig.parts.iter().filter(|part| part.furniture.iter().any(|name| name == "one_leg")) {
            let (position_m, euler) = match part.index {
                0 => ([0.0, 0.24, -0.015625], [-FRAC_PI_2, 0.0, PI]),
                1 => ([-0.20, 0.07, -0.015], [0.0, -FRAC_PI_2, 0.0]),
                2 => ([-0.12, 0.07, -0.015], [0.0, -FRAC_PI_2, 0.0]),
                3 => ([0.12, 0.07, -0.015], [0.0, -FRAC_PI_2, 0.0]),
                _ => ([0.20, 0.07, -0.015], [0.0, -FRAC_PI_2, 0.0]),
            };
            names.push(part.name.clone());
            bodies.push(SceneBody::part(rig, part)?);
            let rotation = UnitQuaternion::from_euler_angles(euler[0], euler[1], euler[2]);
            T_april_body.push(Pose::from_parts(Translation3::from(Vector3::from(position_m)), rotation));
        }
        Ok(Self { scene: Scene { bodies }, names, T_april_body, speed_m_s })
    }

    /// Pose of body `index` at a time.
    pub fn T_april_body(&self, index: usize, time_s: f64) -> Pose {
        let rest = self.T_april_body[index];
        if index + 1 < self.T_april_body.len() {
            return rest;
        }
        let angle = self.speed_m_s / CIRCLE_M * time_s;
        let carried = Translation3::new(0.12 + CIRCLE_M * angle.cos(), 0.16 + CIRCLE_M * angle.sin(), -0.08);
        let turn = UnitQuaternion::from_euler_angles(0.3 * (0.7 * angle).sin(), 0.0, 0.4 * (0.5 * angle).sin());
        Pose::from_parts(carried, turn * rest.rotation)
    }

    /// What a camera at `T_april_camera` sees during an exposure that begins at `time_s`.
    pub fn motions(&self, T_april_camera: &Pose, time_s: f64, exposure_s: f64) -> Vec<Motion> {
        let T_camera_april = T_april_camera.inverse();
        (0..self.T_april_body.len())
            .map(|i| {
                let at = |time_s: f64| T_camera_april * self.T_april_body(i, time_s);
                Motion { T_camera_body_open: at(time_s), T_camera_body_close: at(time_s + exposure_s) }
            })
            .collect()
    }
}

/// Pose of a camera at `eye_m` that looks at `target_m` with its picture upright (april frame: z points down).
pub fn looking_at(eye_m: [f64; 3], target_m: [f64; 3]) -> Pose {
    let (eye, target) = (Vector3::from(eye_m), Vector3::from(target_m));
    let forward = (target - eye).normalize();
    let right = Vector3::z().cross(&forward).try_normalize(1e-9).unwrap_or_else(Vector3::x);
    let down = forward.cross(&right);
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[right, down, forward]));
    Pose::from_parts(Translation3::from(eye), UnitQuaternion::from_rotation_matrix(&rotation))
}

/// Three cameras around the bench, 0.6 to 0.8 m from its middle.
pub fn three_views() -> [Pose; 3] {
    let middle = [0.0, 0.14, -0.02];
    [
        looking_at([0.03, 0.62, -0.46], middle),
        looking_at([-0.42, -0.10, -0.50], middle),
        looking_at([0.45, -0.06, -0.48], middle),
    ]
}
