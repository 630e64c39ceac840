//! Square: put a square nut onto its peg.
//!
//! Start of section 3.3, object vector of 3.5, success of 3.6. The scene's round nut is parked far away.

use rand::Rng;

use super::arm::Arm;
use super::observation::{Fields, is_let_go, put_object};
use super::reset::{PARKED_M, put_free_body, yaw_wxyz};
use crate::error::SimError;
use crate::mujoco::{BodyId, Model, Simulation};

/// Bounds of the nut's centre at the start in x and y, metres.
const START_M: [[f64; 2]; 2] = [[-0.115, -0.11], [0.11, 0.225]];
/// It drops from 6 cm above the table.
const START_HEIGHT_M: f64 = 0.89;
/// The peg's axis in x and y, metres.
const PEG_M: [f64; 2] = [0.23, 0.1];
/// The nut's centre is on the peg within this of the axis in x and y, and below this height, metres.
const ON_PEG_M: f64 = 0.03;
const ON_PEG_HEIGHT_M: f64 = 0.87;

/// The nuts in a scene.
#[derive(Debug, Clone)]
pub(super) struct Square {
    nut: BodyId,
    joint: usize,
    parked: usize,
}

impl Square {
    pub fn find(model: &Model) -> Result<Self, SimError> {
        Ok(Self {
            nut: model.body("SquareNut_main")?,
            joint: model.free_joint("SquareNut_joint0")?,
            parked: model.free_joint("RoundNut_joint0")?,
        })
    }

    pub fn place(&self, simulation: &mut Simulation, rng: &mut impl Rng) {
        let [x, y] = START_M.map(|[low, high]| rng.random_range(low..=high));
        let yaw = yaw_wxyz(rng.random_range(0.0..std::f64::consts::TAU));
        put_free_body(simulation, self.joint, [x, y, START_HEIGHT_M], yaw);
        put_free_body(simulation, self.parked, PARKED_M, [1.0, 0.0, 0.0, 0.0]);
    }

    pub fn observe(&self, fields: &mut Fields, simulation: &Simulation, arm: &Arm) {
        put_object(fields, simulation, arm, self.nut);
    }

    pub fn succeeded(&self, simulation: &Simulation, arm: &Arm) -> bool {
        let position = simulation.body_pose(self.nut).position_m;
        let [x, y, z] = position;
        (x - PEG_M[0]).abs() < ON_PEG_M
            && (y - PEG_M[1]).abs() < ON_PEG_M
            && z < ON_PEG_HEIGHT_M
            && is_let_go(simulation, arm, &position)
    }
}
