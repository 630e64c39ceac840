//! The parts that observations of all tasks are made of (section 3.5).
//!
//! Everything but the fingers is read from what the last first half of a physics step derived, 2 ms old, as in the
//! reference (section 3.4, point 1). The reference sends relative poses and some quaternions through single precision;
//! here they are exact, and agree to 1e-6.

use nalgebra::{Matrix3, Vector3};

use super::arm::Arm;
use crate::mujoco::{BodyId, Simulation, WorldPose};

/// Fills a vector from the front.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a mut [f64],
}

impl<'a> Fields<'a> {
    pub fn new(values: &'a mut [f64]) -> Self {
        Self { rest: values }
    }

    /// Writes the next values.
    pub fn put(&mut self, values: &[f64]) {
        let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(values.len());
        now.copy_from_slice(values);
        self.rest = rest;
    }

    /// What is not written yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// An arm's nine values: grip site, hand orientation as MuJoCo has it, fingers.
pub(crate) fn put_arm(fields: &mut Fields, simulation: &Simulation, arm: &Arm) {
    fields.put(&simulation.site_pose(arm.grip_site).position_m);
    fields.put(&xyzw(simulation.body_quat_wxyz(arm.hand)));
    fields.put(&arm.fingers_m(simulation));
}

/// An object's 14 values: its pose in the world, and in the hand's frame: origin at the grip site, axes of the hand.
pub(crate) fn put_object(fields: &mut Fields, simulation: &Simulation, arm: &Arm, object: BodyId) {
    let pose = simulation.body_pose(object);
    fields.put(&pose.position_m);
    fields.put(&xyzw(simulation.body_quat_wxyz(object)));
    let hand = Matrix3::from_row_slice(&simulation.body_pose(arm.hand).rotation);
    let grip = Vector3::from(simulation.site_pose(arm.grip_site).position_m);
    let position = hand.tr_mul(&(Vector3::from(pose.position_m) - grip));
    fields.put(position.as_slice());
    fields.put(&quat_xyzw(&hand.tr_mul(&Matrix3::from_row_slice(&pose.rotation))));
}

/// a − b.
pub(crate) fn difference(a: &[f64; 3], b: &[f64; 3]) -> [f64; 3] {
    std::array::from_fn(|axis| a[axis] - b[axis])
}

/// Reorders a quaternion.
fn xyzw([w, x, y, z]: [f64; 4]) -> [f64; 4] {
    [x, y, z, w]
}

/// Quaternion of a pose, w ≥ 0.
pub(crate) fn quat_of_pose(pose: &WorldPose) -> [f64; 4] {
    quat_xyzw(&Matrix3::from_row_slice(&pose.rotation))
}

/// Quaternion of a rotation matrix, xyzw, w ≥ 0; from whichever of its parts is largest.
pub(crate) fn quat_xyzw(rotation: &Matrix3<f64>) -> [f64; 4] {
    let m = |row: usize, column: usize| rotation[(row, column)];
    let trace = rotation.trace();
    // 4 q_i² − 1 for w, x, y, z.
    let sizes = [trace, 2.0 * m(0, 0) - trace, 2.0 * m(1, 1) - trace, 2.0 * m(2, 2) - trace];
    let largest = (0..4).fold(0, |best, i| if sizes[i] > sizes[best] { i } else { best });
    let twice = (1.0 + sizes[largest]).sqrt();
    let quarter = 0.5 / twice;
    let (a, b, c) = (m(2, 1) - m(1, 2), m(0, 2) - m(2, 0), m(1, 0) - m(0, 1));
    let (xy, xz, yz) = (m(0, 1) + m(1, 0), m(0, 2) + m(2, 0), m(1, 2) + m(2, 1));
    let [x, y, z, w] = match largest {
        0 => [a * quarter, b * quarter, c * quarter, 0.5 * twice],
        1 => [0.5 * twice, xy * quarter, xz * quarter, a * quarter],
        2 => [xy * quarter, 0.5 * twice, yz * quarter, b * quarter],
        _ => [xz * quarter, yz * quarter, 0.5 * twice, c * quarter],
    };
    if w < 0.0 { [-x, -y, -z, -w] } else { [x, y, z, w] }
}

/// Whether the grip site is clear of an object for the sparse predicates: 1 − tanh(10 d) < 0.6 (section 3.6).
pub(crate) fn is_let_go(simulation: &Simulation, arm: &Arm, object_m: &[f64; 3]) -> bool {
    let distance = Vector3::from(difference(&simulation.site_pose(arm.grip_site).position_m, object_m)).norm();
    1.0 - (10.0 * distance).tanh() < 0.6
}

#[cfg(test)]
mod tests {
    use nalgebra::{Quaternion, UnitQuaternion};

    use super::*;

    #[test]
    fn quaternions_survive_the_way_over_the_matrix() {
        let mut noise = tenon_core::noise::SeededNoise::new(0, 0);
        for i in 0..1000 {
            let mut q = [0f32; 4];
            tenon_core::noise::NoiseSource::fill_standard_normal(&mut noise, &mut q);
            // Half turns, too, where w is zero.
            let w = if i % 5 == 0 { 0.0 } else { f64::from(q[3].abs()) };
            let q = UnitQuaternion::new_normalize(Quaternion::new(w, q[0].into(), q[1].into(), q[2].into()));
            let [x, y, z, w] = quat_xyzw(q.to_rotation_matrix().matrix());
            let found = UnitQuaternion::from_quaternion(Quaternion::new(w, x, y, z));
            assert!(w >= 0.0 && found.angle_to(&q) < 1e-7, "{q} {found}");
        }
    }
}
