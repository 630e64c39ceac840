//! Transport: two arms on two tables. One takes the lid off a bin and the hammer out of it, hands it to the other, and that
//! one puts it into a bin of its own, after the rubbish in there has gone into a third.
//!
//! Start of section 3.3, object vector of 3.5, success of 3.6. The half size of the hammer's head is drawn when the scene
//! is built.

use std::f64::consts::PI;

use rand::Rng;

use super::arm::Arm;
use super::observation::{Fields, difference, quat_of_pose};
use super::reset::{put_free_body, yaw_wxyz};
use crate::error::SimError;
use crate::mujoco::{BodyId, GeomId, Model, SceneFile, Simulation};

/// Bounds of the half size of the hammer's head, metres.
const HEAD_HALF_SIZE_M: [f64; 2] = [0.015, 0.018];
/// That of the reference data, which the scene's file has.
pub(super) const REFERENCE_HEAD_HALF_SIZE_M: f64 = 0.01626061081376318;
/// Half length of the hammer's handle, metres.
const HANDLE_HALF_LENGTH_M: f64 = 0.1;
/// Centres of start, target and rubbish bin in x and y, metres; each is drawn within the tolerance.
const BINS_M: [[f64; 2]; 3] = [[0.2, -0.45], [-0.2, 0.45], [0.2, 0.45]];
const BIN_TOLERANCE_M: f64 = 0.005;
/// Heights at the start, metres.
const BIN_HEIGHT_M: f64 = 0.876;
const LID_HEIGHT_M: f64 = 0.971;
const PAYLOAD_HEIGHT_M: f64 = 0.826;
const TRASH_HEIGHT_M: f64 = 0.831;
/// Bounds of the angle that the hammer's orientation follows from, radians.
const PAYLOAD_ANGLE_RAD: [f64; 2] = [PI / 2.0 - PI / 6.0, PI / 2.0 + PI / 6.0];
/// Bound of the rubbish's yaw, radians.
const TRASH_YAW_RAD: f64 = 0.3 * PI;
/// Collision geoms of the hammer.
const PAYLOAD_GEOMS: [&str; 5] = ["payload_handle", "payload_head", "payload_neck", "payload_face", "payload_claw"];

/// The things in a scene.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    payload: BodyId,
    payload_geoms: [GeomId; 5],
    payload_joint: usize,
    trash: BodyId,
    trash_geom: GeomId,
    trash_joint: usize,
    /// Start, target, rubbish.
    bin_joints: [usize; 3],
    lid_joint: usize,
    lid_handle: GeomId,
    target_base: GeomId,
    trash_base: GeomId,
}

/// Draws the half size of a scene's hammer head.
pub(super) fn draw_head_half_size_m(rng: &mut impl Rng) -> f64 {
    rng.random_range(HEAD_HALF_SIZE_M[0]..=HEAD_HALF_SIZE_M[1])
}

/// Gives the hammer's head a size before the scene is compiled: box, neck and face on one side, a claw on the other, all
/// in proportion.
pub(super) fn set_head_half_size(scene: &mut SceneFile, h: f64) -> Result<(), SimError> {
    let z = HANDLE_HALF_LENGTH_M + h;
    let parts: [(&str, &[f64], f64); 4] = [
        ("payload_head", &[2.0 * h, h, h], 0.0),
        ("payload_neck", &[0.8 * h, 0.2 * h], 2.2 * h),
        ("payload_face", &[h, 0.4 * h], 2.8 * h),
        ("payload_claw", &[0.7072 * h, 0.95 * h, 0.7072 * h], -2.0 * h),
    ];
    for (name, half_sizes_m, x) in parts {
        for geom in [name.to_owned(), format!("{name}_vis")] {
            if scene.has_geom(&geom) {
                scene.set_geom_size(&geom, half_sizes_m)?;
                scene.set_geom_position(&geom, [x, 0.0, z])?;
            }
        }
    }
    Ok(())
}

impl Transport {
    pub fn find(model: &Model) -> Result<Self, SimError> {
        let mut payload_geoms = [model.geom(PAYLOAD_GEOMS[0])?; 5];
        for (geom, name) in payload_geoms.iter_mut().zip(PAYLOAD_GEOMS) {
            *geom = model.geom(name)?;
        }
        let mut bin_joints = [0; 3];
        for (joint, bin) in bin_joints.iter_mut().zip(["start", "target", "trash"]) {
            *joint = model.free_joint(&format!("transport_{bin}_bin_joint0"))?;
        }
        Ok(Self {
            payload: model.body("payload_root")?,
            payload_geoms,
            payload_joint: model.free_joint("payload_joint0")?,
            trash: model.body("trash_main")?,
            trash_geom: model.geom("trash_g0")?,
            trash_joint: model.free_joint("trash_joint0")?,
            bin_joints,
            lid_joint: model.free_joint("transport_start_bin_lid_joint0")?,
            lid_handle: model.geom("transport_start_bin_lid_handle")?,
            target_base: model.geom("transport_target_bin_base")?,
            trash_base: model.geom("transport_trash_bin_base")?,
        })
    }

    pub fn place(&self, simulation: &mut Simulation, rng: &mut impl Rng) {
        let straight = [1.0, 0.0, 0.0, 0.0];
        let bins = BINS_M.map(|centre| centre.map(|c| c + rng.random_range(-BIN_TOLERANCE_M..=BIN_TOLERANCE_M)));
        for (joint, [x, y]) in self.bin_joints.into_iter().zip(bins) {
            put_free_body(simulation, joint, [x, y, BIN_HEIGHT_M], straight);
        }
        let [[start_x, start_y], [target_x, target_y], _] = bins;
        put_free_body(simulation, self.lid_joint, [start_x, start_y, LID_HEIGHT_M], straight);
        let angle = rng.random_range(PAYLOAD_ANGLE_RAD[0]..=PAYLOAD_ANGLE_RAD[1]);
        let orientation = payload_wxyz(angle, rng.random());
        put_free_body(simulation, self.payload_joint, [start_x, start_y, PAYLOAD_HEIGHT_M], orientation);
        let yaw = yaw_wxyz(rng.random_range(-TRASH_YAW_RAD..=TRASH_YAW_RAD));
        put_free_body(simulation, self.trash_joint, [target_x, target_y, TRASH_HEIGHT_M], yaw);
    }

    /// Payload, rubbish and lid handle with orientations (7 each), target and rubbish bin (3 each), payload and handle
    /// from grip site 0, payload and rubbish from grip site 1 (3 each), and the two flags of success.
    pub fn observe(&self, fields: &mut Fields, simulation: &Simulation, arms: [&Arm; 2]) {
        let payload = simulation.body_pose(self.payload);
        let trash = simulation.body_pose(self.trash);
        let handle = simulation.geom_pose(self.lid_handle);
        for pose in [&payload, &trash, &handle] {
            fields.put(&pose.position_m);
            fields.put(&quat_of_pose(pose));
        }
        for base in [self.target_base, self.trash_base] {
            fields.put(&simulation.geom_pose(base).position_m);
        }
        for (arm, things) in arms.into_iter().zip([[&payload, &handle], [&payload, &trash]]) {
            let grip = simulation.site_pose(arm.grip_site).position_m;
            for thing in things {
                fields.put(&difference(&thing.position_m, &grip));
            }
        }
        fields.put(&self.done(simulation).map(|done| f64::from(u8::from(done))));
    }

    /// Whether the payload touches the bottom of the target bin, and the rubbish that of the rubbish bin.
    fn done(&self, simulation: &Simulation) -> [bool; 2] {
        [
            simulation.in_contact(&self.payload_geoms, &[self.target_base]),
            simulation.in_contact(&[self.trash_geom], &[self.trash_base]),
        ]
    }

    pub fn succeeded(&self, simulation: &Simulation) -> bool {
        self.done(simulation) == [true; 2]
    }
}

/// The hammer's orientation: the reference mixes two orders of quaternions, and this is what comes out.
fn payload_wxyz(angle_rad: f64, flipped: bool) -> [f64; 4] {
    let (s, c) = (0.5 * angle_rad).sin_cos();
    let (minus, plus) = (0.5 * (s - c), 0.5 * (c + s));
    if flipped { [minus, -minus, -plus, plus] } else { [minus, minus, -plus, -plus] }
}
