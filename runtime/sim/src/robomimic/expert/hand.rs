//! A hand that is led somewhere, unsteadily.

use nalgebra::{Isometry3, Matrix3, Rotation3, Translation3, UnitQuaternion, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::super::ARM_ACTION_DIM;

/// Action for each metre of way left, and for each radian.
const TRANSLATION_GAIN: f64 = 16.0;
const ROTATION_GAIN: f64 = 2.0;
/// Largest share of a full action that a rotation takes: 0.9 rad/s.
const ROTATION_SHARE: f64 = 0.4;
/// Share of its unsteadiness that a hand keeps from step to step.
const UNSTEADINESS_KEPT: f64 = 0.85;

/// How somebody works during an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manner {
    /// Largest translation as a share of a full action.
    pub speed: f64,
    /// Standard deviation of the unsteadiness, as a share of a full action.
    pub unsteadiness: f64,
    /// Probability of a pause where one motion ends and another begins.
    pub pause_chance: f64,
    /// Standard deviation of where things are gripped, metres.
    pub grip_error_m: f64,
}

impl Manner {
    /// Better and worse operators, drawn evenly.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self {
            speed: rng.random_range(0.55..1.0),
            unsteadiness: rng.random_range(0.02..0.15),
            pause_chance: rng.random_range(0.0..0.35),
            grip_error_m: rng.random_range(0.0..0.005),
        }
    }
}

/// An arm's nine observed values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grip {
    /// Position of the grip site, orientation of the hand.
    pub pose: Isometry3<f64>,
    /// Distance of the fingers, metres.
    pub opening_m: f64,
}

impl Grip {
    pub fn of(values: &[f64]) -> Self {
        Self { pose: pose_of(&values[..7]), opening_m: values[7] - values[8] }
    }

    /// Angle of the fingers' axis about the vertical, radians.
    pub fn yaw(&self) -> f64 {
        let axis = self.pose.rotation * Vector3::y();
        axis.y.atan2(axis.x)
    }
}

/// A pose from position and quaternion xyzw.
pub(super) fn pose_of(values: &[f64]) -> Isometry3<f64> {
    let [x, y, z, qx, qy, qz, qw] = std::array::from_fn(|index| values[index]);
    let rotation = UnitQuaternion::new_normalize(nalgebra::Quaternion::new(qw, qx, qy, qz));
    Isometry3::from_parts(Translation3::new(x, y, z), rotation)
}

/// A hand whose fingers open along `fingers` and which points along `approach`.
pub(super) fn pointing(approach: Vector3<f64>, fingers: Vector3<f64>) -> UnitQuaternion<f64> {
    let z = approach.normalize();
    let y = (fingers - z * z.dot(&fingers)).normalize();
    let axes = Matrix3::from_columns(&[y.cross(&z), y, z]);
    UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(axes))
}

/// A hand that points down, its fingers' axis turned by `yaw`.
pub(super) fn pointing_down(yaw: f64) -> UnitQuaternion<f64> {
    pointing(-Vector3::z(), Vector3::new(yaw.cos(), yaw.sin(), 0.0))
}

/// An angle within ±π.
pub(super) fn wrapped(angle: f64) -> f64 {
    use std::f64::consts::{PI, TAU};
    (angle + PI).rem_euclid(TAU) - PI
}

/// Angle about the vertical of a thing's x axis.
pub(super) fn yaw_of(pose: &Isometry3<f64>) -> f64 {
    let axis = pose.rotation * Vector3::x();
    axis.y.atan2(axis.x)
}

/// One hand under way.
#[derive(Debug, Clone)]
pub(super) struct Hand {
    pub manner: Manner,
    wobble: [f64; 6],
    pause: usize,
}

impl Hand {
    pub fn new(manner: Manner) -> Self {
        Self { manner, wobble: [0.0; 6], pause: 0 }
    }

    /// A motion begins; perhaps not at once.
    pub fn begin_motion(&mut self, rng: &mut ChaCha8Rng) {
        if rng.random_bool(self.manner.pause_chance) {
            self.pause = rng.random_range(2..12);
        }
    }

    /// Whether it pauses now.
    pub fn pauses(&self) -> bool {
        self.pause > 0
    }

    /// Leads the hand a step nearer to `goal`. `haste`: share of the manner's speed.
    pub fn lead(
        &mut self,
        grip: &Grip,
        goal: &Isometry3<f64>,
        haste: f64,
        closed: bool,
        rng: &mut ChaCha8Rng,
    ) -> [f64; ARM_ACTION_DIM] {
        let way = goal.translation.vector - grip.pose.translation.vector;
        let turn = (goal.rotation * grip.pose.rotation.inverse()).scaled_axis();
        let mut translation = limited(way * TRANSLATION_GAIN, self.manner.speed * haste);
        let mut rotation = limited(turn * ROTATION_GAIN, ROTATION_SHARE * haste.max(0.5));
        if self.pause > 0 {
            self.pause -= 1;
            translation.fill(0.0);
            rotation *= 0.1;
        }
        // Unsteady on the way, less so close to things.
        let moving = (0.25 + translation.norm()).min(1.0);
        let fresh = (1.0 - UNSTEADINESS_KEPT * UNSTEADINESS_KEPT).sqrt();
        for (axis, wobble) in self.wobble.iter_mut().enumerate() {
            let normal: f64 = StandardNormal.sample(rng);
            let share = if axis < 3 { 1.0 } else { 0.3 };
            *wobble = UNSTEADINESS_KEPT * *wobble + fresh * share * self.manner.unsteadiness * normal;
        }
        let mut action = [0.0; ARM_ACTION_DIM];
        for axis in 0..3 {
            action[axis] = translation[axis] + moving * self.wobble[axis];
            action[3 + axis] = rotation[axis] + moving * self.wobble[3 + axis];
        }
        action[6] = if closed { 1.0 } else { -1.0 };
        action
    }
}

/// Whether a hand is where it was led to.
pub(super) fn arrived(grip: &Grip, goal: &Isometry3<f64>, within_m: f64, within_rad: f64) -> bool {
    (goal.translation.vector - grip.pose.translation.vector).norm() < within_m
        && goal.rotation.angle_to(&grip.pose.rotation) < within_rad
}

fn limited(vector: Vector3<f64>, most: f64) -> Vector3<f64> {
    let norm = vector.norm();
    if norm > most { vector * (most / norm) } else { vector }
}
