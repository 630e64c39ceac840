//! Can: carry a can from one bin into its compartment of another.
//!
//! Start of section 3.3, object vector of 3.5, success of 3.6. The scene holds a milk carton, a loaf and a box of cereals,
//! too; they are parked far away. The reference first places them in the bin and the can beside them, and parks them
//! then, so where the can starts is not quite uniform: what the others leave free is likelier.

use rand::Rng;

use super::arm::Arm;
use super::observation::{Fields, is_let_go, put_object};
use super::reset::{PARKED_M, put_free_body, yaw_wxyz};
use crate::error::SimError;
use crate::mujoco::{BodyId, Model, SceneFile, Simulation};

/// Centre and half size of the bin's floor in x and y, less a margin of 5 cm on each side, metres.
const BIN_CENTRE_M: [f64; 2] = [0.1, -0.25];
const BIN_HALF_M: [f64; 2] = [0.39 / 2.0 - 0.05, 0.49 / 2.0 - 0.05];
/// Height of the can's centre at the start, metres.
const START_HEIGHT_M: f64 = 0.86;
/// Names and radii (metres) of the things in the order in which the reference places them; the can is the last.
const THINGS: [(&str, f64); 4] = [("Milk", 0.025), ("Bread", 0.03), ("Cereal", 0.04), ("Can", 0.025)];
/// The reference gives up after so many draws of one place.
const MOST_DRAWS: usize = 5000;
/// The can is in its compartment strictly between these, metres.
const COMPARTMENT_M: [[f64; 2]; 3] = [[0.1, 0.1 + 0.39 / 2.0], [0.28, 0.28 + 0.49 / 2.0], [0.8, 0.8 + 0.1]];
/// Where pictures show the four targets: the middles of the compartments, metres.
const TARGETS_M: [(&str, [f64; 3]); 4] = [
    ("VisualMilk_main", [0.0025, 0.1575, 0.885]),
    ("VisualBread_main", [0.1975, 0.1575, 0.845]),
    ("VisualCereal_main", [0.0025, 0.4025, 0.9]),
    ("VisualCan_main", [0.1975, 0.4025, 0.86]),
];

/// The can in a scene, and what is parked.
#[derive(Debug, Clone)]
pub(super) struct Can {
    can: BodyId,
    joints: [usize; 4],
}

/// Puts what is only seen of the targets into their compartments.
pub(super) fn place_targets(scene: &mut SceneFile) -> Result<(), SimError> {
    TARGETS_M.iter().try_for_each(|(body, position_m)| scene.move_body(body, *position_m))
}

impl Can {
    pub fn find(model: &Model) -> Result<Self, SimError> {
        let mut joints = [0; 4];
        for (joint, (name, _)) in joints.iter_mut().zip(THINGS) {
            *joint = model.free_joint(&format!("{name}_joint0"))?;
        }
        Ok(Self { can: model.body("Can_main")?, joints })
    }

    pub fn place(&self, simulation: &mut Simulation, rng: &mut impl Rng) {
        let places = draw_places_m(rng);
        for joint in &self.joints[..3] {
            put_free_body(simulation, *joint, PARKED_M, [1.0, 0.0, 0.0, 0.0]);
        }
        let [x, y] = places[3];
        let yaw = yaw_wxyz(rng.random_range(0.0..std::f64::consts::TAU));
        put_free_body(simulation, self.joints[3], [x, y, START_HEIGHT_M], yaw);
    }

    pub fn observe(&self, fields: &mut Fields, simulation: &Simulation, arm: &Arm) {
        put_object(fields, simulation, arm, self.can);
    }

    pub fn succeeded(&self, simulation: &Simulation, arm: &Arm) -> bool {
        let position = simulation.body_pose(self.can).position_m;
        position.iter().zip(COMPARTMENT_M).all(|(value, [low, high])| low < *value && *value < high)
            && is_let_go(simulation, arm, &position)
    }
}

/// Places of all four in x and y: uniform within the bin, none touching one placed before it.
fn draw_places_m(rng: &mut impl Rng) -> [[f64; 2]; 4] {
    let mut places = [[0.0; 2]; 4];
    for (thing, (_, radius)) in THINGS.iter().enumerate() {
        for _ in 0..MOST_DRAWS {
            places[thing] = std::array::from_fn(|axis| {
                let half = BIN_HALF_M[axis] - radius;
                BIN_CENTRE_M[axis] + rng.random_range(-half..=half)
            });
            let [x, y] = places[thing];
            let free =
                (0..thing).all(|other| (x - places[other][0]).hypot(y - places[other][1]) > radius + THINGS[other].1);
            if free {
                break;
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_placed_on_something_or_out_of_the_bin() {
        let mut noise = tenon_core::noise::SeededNoise::new(1, 0);
        for _ in 0..200 {
            let places = draw_places_m(noise.rng());
            for (i, [x, y]) in places.into_iter().enumerate() {
                assert!((x - 0.1).abs() <= 0.145 - THINGS[i].1 && (y + 0.25).abs() <= 0.195 - THINGS[i].1);
                for j in 0..i {
                    assert!((x - places[j][0]).hypot(y - places[j][1]) > THINGS[i].1 + THINGS[j].1);
                }
            }
        }
    }
}
