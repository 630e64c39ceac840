//! Lift: grip the cube across two of its faces and raise it.

use std::f64::consts::FRAC_PI_2;

use nalgebra::{Isometry3, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::errand::{Destination, Errand};
use super::hand::{pose_of, yaw_of};

/// How this one does it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lift {
    clearance_m: f64,
    /// How deep the cube is gripped below its middle, metres.
    depth_m: f64,
}

impl Lift {
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self { clearance_m: rng.random_range(0.06..0.13), depth_m: rng.random_range(-0.008..0.004) }
    }
}

impl Errand for Lift {
    fn thing(&self, observation: &[f64]) -> Isometry3<f64> {
        pose_of(&observation[9..16])
    }

    fn handle(&self, thing: &Isometry3<f64>) -> Vector3<f64> {
        thing.translation.vector - Vector3::new(0.0, 0.0, self.depth_m)
    }

    fn grip_yaws(&self, thing: &Isometry3<f64>, _rng: &mut ChaCha8Rng) -> Vec<f64> {
        (0..4).map(|quarter| yaw_of(thing) + FRAC_PI_2 * f64::from(quarter)).collect()
    }

    fn empty_opening_m(&self) -> f64 {
        0.03
    }

    fn clearance_m(&self) -> f64 {
        self.clearance_m
    }

    fn destination(&self, _thing: &Isometry3<f64>, _turned: f64) -> Option<Destination> {
        None
    }

    fn is_placed(&self, thing: &Isometry3<f64>) -> bool {
        thing.translation.z > 0.84
    }
}
