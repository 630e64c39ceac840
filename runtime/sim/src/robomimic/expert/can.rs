//! Can: grip the can round its middle from above, carry it over the walls and let it down into its compartment.

use nalgebra::{Isometry3, Translation3, Unit, UnitQuaternion, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::errand::{Destination, Errand};
use super::hand::pose_of;

/// Where the can goes, metres: the near corner of its compartment, for the far one is out of reach.
const PLACE_M: [f64; 2] = [0.155, 0.345];
/// The arm's base, metres.
const BASE_M: [f64; 2] = [-0.5, -0.1];

/// How this one does it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Can {
    clearance_m: f64,
    /// How far above the can's middle it is gripped, metres.
    grip_height_m: f64,
    /// Off that place, metres.
    off_m: [f64; 2],
    /// How far the hand leans out to reach further, radians.
    lean_rad: f64,
    release_height_m: f64,
    grip_yaw: f64,
}

impl Can {
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self {
            clearance_m: rng.random_range(0.12..0.18),
            grip_height_m: rng.random_range(0.005..0.022),
            off_m: std::array::from_fn(|_| rng.random_range(-0.012..0.02)),
            lean_rad: rng.random_range(0.1..0.3),
            release_height_m: rng.random_range(0.875..0.91),
            grip_yaw: rng.random_range(-std::f64::consts::PI..std::f64::consts::PI),
        }
    }
}

impl Errand for Can {
    fn thing(&self, observation: &[f64]) -> Isometry3<f64> {
        pose_of(&observation[9..16])
    }

    fn handle(&self, thing: &Isometry3<f64>) -> Vector3<f64> {
        thing.translation.vector + Vector3::new(0.0, 0.0, self.grip_height_m)
    }

    /// It is round: most grip it as the hand comes, some at any angle.
    fn grip_yaws(&self, _thing: &Isometry3<f64>, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let near = std::f64::consts::FRAC_PI_2 + rng.random_range(-0.4..0.4);
        if rng.random_bool(0.7) { vec![near, near + std::f64::consts::PI] } else { vec![self.grip_yaw] }
    }

    fn empty_opening_m(&self) -> f64 {
        0.035
    }

    fn clearance_m(&self) -> f64 {
        self.clearance_m
    }

    fn destination(&self, thing: &Isometry3<f64>, _turned: f64) -> Option<Destination> {
        let [x, y] = std::array::from_fn(|axis| PLACE_M[axis] + self.off_m[axis]);
        let outward = Vector3::new(x - BASE_M[0], y - BASE_M[1], 0.0);
        let axis = Unit::new_normalize((-Vector3::z()).cross(&outward));
        let rotation = UnitQuaternion::from_axis_angle(&axis, self.lean_rad) * thing.rotation;
        let at = |z: f64| Isometry3::from_parts(Translation3::new(x, y, z), rotation);
        Some(Destination {
            above: at(0.985 + 0.5 * (self.clearance_m - 0.12)),
            release: at(self.release_height_m),
            within_m: 0.035,
            within_rad: 0.5,
        })
    }

    fn is_placed(&self, thing: &Isometry3<f64>) -> bool {
        let [x, y, z] = thing.translation.vector.into();
        (0.1..0.295).contains(&x) && (0.28..0.525).contains(&y) && (0.8..0.9).contains(&z)
    }
}
