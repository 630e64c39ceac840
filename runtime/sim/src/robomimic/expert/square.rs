//! Square: grip the nut by its handle, turn it square to the peg, and let it down over it.

use std::f64::consts::{FRAC_PI_2, PI};

use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::errand::{Destination, Errand, MOST_TURN_RAD};
use super::hand::{pose_of, wrapped, yaw_of};

/// The peg's axis, and the height of its top, metres.
const PEG_M: [f64; 2] = [0.23, 0.1];
const PEG_TOP_M: f64 = 0.95;
/// Middle of the handle in the nut's frame, metres.
const HANDLE_M: f64 = 0.054;

/// How this one does it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Square {
    clearance_m: f64,
    /// Where along the handle, off its middle, metres.
    along_m: f64,
    above_peg_m: f64,
    release_height_m: f64,
    /// How much turning counts beside ending near the start, when a side is chosen.
    laziness: f64,
}

impl Square {
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self {
            clearance_m: rng.random_range(0.17..0.23),
            along_m: rng.random_range(-0.006..0.01),
            above_peg_m: rng.random_range(0.03..0.05),
            release_height_m: rng.random_range(0.89..0.925),
            laziness: rng.random_range(0.2..1.0),
        }
    }
}

impl Errand for Square {
    fn thing(&self, observation: &[f64]) -> Isometry3<f64> {
        pose_of(&observation[9..16])
    }

    fn handle(&self, thing: &Isometry3<f64>) -> Vector3<f64> {
        (thing * nalgebra::Point3::new(HANDLE_M + self.along_m, 0.0, 0.0)).coords
    }

    fn grip_yaws(&self, thing: &Isometry3<f64>, _rng: &mut ChaCha8Rng) -> Vec<f64> {
        vec![yaw_of(thing) + FRAC_PI_2, yaw_of(thing) - FRAC_PI_2]
    }

    fn empty_opening_m(&self) -> f64 {
        0.02
    }

    fn clearance_m(&self) -> f64 {
        self.clearance_m
    }

    /// The nut fits in four ways. Those count that the hand can turn to, and that do not have the handle on the peg's far
    /// side, where the arm does not reach.
    fn destination(&self, thing: &Isometry3<f64>, turned: f64) -> Option<Destination> {
        let yaw = yaw_of(thing);
        let turn = [FRAC_PI_2, PI, -FRAC_PI_2]
            .into_iter()
            .flat_map(|wanted| [0.0, 2.0 * PI, -2.0 * PI].map(|round| wrapped(wanted - yaw) + round))
            .filter(|turn| (turned + turn).abs() <= MOST_TURN_RAD)
            .min_by(|a, b| {
                let cost = |turn: f64| self.laziness * turn.abs() + (turned + turn).abs();
                cost(*a).total_cmp(&cost(*b))
            })?;
        let rotation = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), yaw + turn);
        let at = |z: f64| Isometry3::from_parts(Translation3::new(PEG_M[0], PEG_M[1], z), rotation);
        Some(Destination {
            above: at(PEG_TOP_M + self.above_peg_m),
            release: at(self.release_height_m),
            within_m: 0.006,
            within_rad: 0.06,
        })
    }

    fn is_placed(&self, thing: &Isometry3<f64>) -> bool {
        let [x, y, z] = thing.translation.vector.into();
        (x - PEG_M[0]).abs() < 0.03 && (y - PEG_M[1]).abs() < 0.03 && z < 0.87
    }
}
