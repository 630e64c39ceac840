//! Lift: raise a cube from the table.
//!
//! Start of section 3.3, object vector of 3.5, success of 3.6. The cube's half sizes are drawn when the scene is built.

use rand::Rng;

use super::arm::Arm;
use super::observation::{Fields, difference};
use super::reset::{put_free_body, yaw_wxyz};
use crate::error::SimError;
use crate::mujoco::{BodyId, Model, SceneFile, Simulation};

/// Bounds of each of the cube's half sizes, metres.
const HALF_SIZES_M: [f64; 2] = [0.020, 0.022];
/// The geom of the cube that is seen.
pub(super) const VISIBLE_CUBE: &str = "cube_g0_vis";
/// Those of the reference data, which the scene's file has.
pub(super) const REFERENCE_HALF_SIZES_M: [f64; 3] = [0.020360539377753537, 0.02003895048297525, 0.02092643705299669];
/// The cube's centre starts within this of the table's, metres.
const START_M: f64 = 0.03;
/// Table top, and a centimetre of air under the cube, metres.
const START_HEIGHT_M: f64 = 0.8 + 0.01;
/// The cube is lifted above this, metres.
const LIFTED_M: f64 = 0.84;

/// The cube in a scene.
#[derive(Debug, Clone)]
pub(super) struct Lift {
    cube: BodyId,
    joint: usize,
    half_height_m: f64,
}

/// Draws the half sizes of a scene's cube.
pub(super) fn draw_half_sizes_m(rng: &mut impl Rng) -> [f64; 3] {
    std::array::from_fn(|_| rng.random_range(HALF_SIZES_M[0]..=HALF_SIZES_M[1]))
}

/// Gives the cube a size before the scene is compiled.
pub(super) fn set_half_sizes(scene: &mut SceneFile, half_sizes_m: &[f64; 3]) -> Result<(), SimError> {
    for geom in ["cube_g0", VISIBLE_CUBE] {
        if scene.has_geom(geom) {
            scene.set_geom_size(geom, half_sizes_m)?;
        }
    }
    Ok(())
}

impl Lift {
    pub fn find(model: &Model, half_sizes_m: &[f64; 3]) -> Result<Self, SimError> {
        let [.., half_height_m] = *half_sizes_m;
        Ok(Self { cube: model.body("cube_main")?, joint: model.free_joint("cube_joint0")?, half_height_m })
    }

    pub fn place(&self, simulation: &mut Simulation, rng: &mut impl Rng) {
        let [x, y] = std::array::from_fn(|_| rng.random_range(-START_M..=START_M));
        let yaw = yaw_wxyz(rng.random_range(0.0..std::f64::consts::TAU));
        put_free_body(simulation, self.joint, [x, y, START_HEIGHT_M + self.half_height_m], yaw);
    }

    /// Cube position 3, orientation xyzw 4, grip site − cube 3.
    pub fn observe(&self, fields: &mut Fields, simulation: &Simulation, arm: &Arm) {
        let cube = simulation.body_pose(self.cube).position_m;
        let [w, x, y, z] = simulation.body_quat_wxyz(self.cube);
        fields.put(&cube);
        fields.put(&[x, y, z, w]);
        fields.put(&difference(&simulation.site_pose(arm.grip_site).position_m, &cube));
    }

    pub fn succeeded(&self, simulation: &Simulation) -> bool {
        simulation.body_pose(self.cube).position_m[2] > LIFTED_M
    }
}
