//! The authors' gate on single tags (spec perception.md §6.1): an exponential moving average in the *camera* frame that
//! serves as reference only. Kept as published, for comparison.

use thiserror::Error;

use super::config::GateConfig;
use super::measurement::is_finite;
use crate::geometry::{Pose, interpolate};

/// Tags of the base board: dropped while the gate acts, so calibration needs an object of its own.
const BASE_TAGS: std::ops::RangeInclusive<u32> = 0..=3;

/// One tag in one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagSighting {
    pub id: u32,
    /// Index of the camera, from 0.
    pub camera: usize,
    pub T_camera_tag: Pose,
    /// Corrected bits.
    pub hamming: u32,
}

/// Why a tag is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GateRefusal {
    #[error("a value of the tag's pose is not finite")]
    NotFinite,
    #[error("the camera's index or the tag's id is beyond those the gate was made for")]
    Unknown,
    #[error("tags of the base board are dropped while the gate acts")]
    BaseTag,
    #[error("the tag has moved or turned too far from its reference")]
    Jump,
    #[error("too many of the tag's bits were wrong")]
    Hamming,
}

/// References of all tags in all cameras. One object for all cameras, since they share the count of calls.
#[derive(Debug, Clone)]
pub struct GateWithMovingAverage {
    config: GateConfig,
    calls: u64,
    ids: usize,
    /// `[camera, id]`.
    references: Vec<Option<Pose>>,
}

impl GateWithMovingAverage {
    /// For `cameras` cameras and tags with ids below `ids`.
    pub fn new(config: GateConfig, cameras: usize, ids: usize) -> Self {
        Self { config, calls: 0, ids, references: vec![None; cameras * ids] }
    }

    /// The detector was called on one picture of one camera; its sightings follow.
    pub fn begin_call(&mut self) {
        self.calls += 1;
    }

    /// Whether detections are held against their references yet.
    pub fn is_active(&self) -> bool {
        self.calls > self.config.calls_before_gating
    }

    /// Judges one sighting; what passes is used *raw*.
    ///
    /// The reference is compared as it stood before this sighting and then moves, whatever the verdict: after a jump by θ
    /// exactly the n frames with θ·0.75ⁿ⁻¹ above the limit are refused. The bits are looked at last, so a sighting with
    /// too many wrong ones still moves the reference.
    pub fn judge(&mut self, sighting: &TagSighting) -> Result<Pose, GateRefusal> {
        let new = sighting.T_camera_tag;
        if !is_finite(&new) {
            return Err(GateRefusal::NotFinite);
        }
        let active = self.is_active();
        let id = usize::try_from(sighting.id).unwrap_or(usize::MAX);
        let known = id < self.ids;
        let reference = known.then(|| self.references.get_mut(sighting.camera * self.ids + id)).flatten();
        let reference = reference.ok_or(GateRefusal::Unknown)?;
        let before = reference.replace(reference.map_or(new, |r| interpolate(&r, &new, self.config.alpha)));
        if active && BASE_TAGS.contains(&sighting.id) {
            return Err(GateRefusal::BaseTag);
        }
        if let (true, Some(before)) = (active, before) {
            let distance_m = (new.translation.vector - before.translation.vector).norm();
            let angle_rad = new.rotation.angle_to(&before.rotation);
            if angle_rad > self.config.max_jump_rad || distance_m > self.config.max_jump_m {
                return Err(GateRefusal::Jump);
            }
        }
        if sighting.hamming > self.config.max_hamming {
            return Err(GateRefusal::Hamming);
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    fn see(id: u32, x_m: f64, degrees: f64) -> TagSighting {
        let rotation = UnitQuaternion::from_scaled_axis(Vector3::z() * degrees.to_radians());
        let T_camera_tag = Pose::from_parts(Translation3::new(x_m, 0.0, 0.7), rotation);
        TagSighting { id, camera: 0, T_camera_tag, hamming: 0 }
    }

    /// A gate past its first calls.
    fn active() -> GateWithMovingAverage {
        let mut gate = GateWithMovingAverage::new(GateConfig::default(), 4, 587);
        (0..21).for_each(|_| gate.begin_call());
        gate
    }

    /// Frames refused after a jump.
    fn refused_frames(jump: &TagSighting) -> usize {
        let mut gate = active();
        gate.judge(&see(4, 0.0, 0.0)).unwrap();
        (0..100).take_while(|_| gate.judge(jump) == Err(GateRefusal::Jump)).count()
    }

    #[test]
    fn a_quarter_turn_reopens_after_six_frames_half_a_turn_after_eight_and_twenty_centimetres_after_five() {
        assert_eq!(refused_frames(&see(4, 0.0, 90.0)), 6);
        assert_eq!(refused_frames(&see(4, 0.0, 179.9)), 8);
        assert_eq!(refused_frames(&see(4, 0.2, 0.0)), 5);
        assert_eq!(refused_frames(&see(4, 0.0499, 19.9)), 0);
    }

    #[test]
    fn the_gate_acts_from_the_twenty_first_call_of_all_cameras_together() {
        let mut gate = GateWithMovingAverage::new(GateConfig::default(), 4, 587);
        for call in 1..=21 {
            gate.begin_call();
            // Every camera sees the tag jump by a metre at each round.
            let mut sighting = see(4, f64::from((call - 1) / 4), 0.0);
            sighting.camera = usize::try_from((call - 1) % 4).unwrap();
            let verdict = gate.judge(&sighting);
            assert_eq!(verdict.is_ok(), call <= 20, "call {call}");
        }
    }

    #[test]
    fn what_passes_is_raw() {
        let mut gate = active();
        gate.judge(&see(4, 0.0, 0.0)).unwrap();
        assert_eq!(gate.judge(&see(4, 0.04, 0.0)).unwrap().translation.x, 0.04);
        // The reference went to 0.01: 0.055 is 0.045 from it, and 0.0601 too far from either that or 0.01.
        assert!(gate.clone().judge(&see(4, 0.055, 0.0)).is_ok());
        assert_eq!(gate.judge(&see(4, 0.0601, 0.0)), Err(GateRefusal::Jump));
    }

    #[test]
    fn a_tag_not_seen_before_passes_and_cameras_are_kept_apart() {
        let mut gate = active();
        gate.judge(&see(4, 0.0, 0.0)).unwrap();
        assert!(gate.judge(&see(5, 9.0, 0.0)).is_ok());
        assert!(gate.judge(&TagSighting { camera: 1, ..see(4, 9.0, 0.0) }).is_ok());
    }

    #[test]
    fn base_tags_are_dropped_only_while_the_gate_acts() {
        let mut gate = GateWithMovingAverage::new(GateConfig::default(), 1, 587);
        gate.begin_call();
        assert!(gate.judge(&see(2, 0.0, 0.0)).is_ok());
        (0..20).for_each(|_| gate.begin_call());
        assert_eq!(gate.judge(&see(2, 0.0, 0.0)), Err(GateRefusal::BaseTag));
    }

    #[test]
    fn a_sighting_with_wrong_bits_is_dropped_but_moves_the_reference() {
        let mut gate = active();
        gate.judge(&see(4, 0.0, 0.0)).unwrap();
        assert_eq!(gate.judge(&TagSighting { hamming: 2, ..see(4, 0.04, 0.0) }), Err(GateRefusal::Hamming));
        // From the reference 0.01, not from 0.
        assert!(gate.judge(&see(4, 0.055, 0.0)).is_ok());
        assert!(gate.judge(&TagSighting { hamming: 1, ..see(4, 0.05, 0.0) }).is_ok());
    }

    #[test]
    fn nan_and_strangers_are_refused_and_change_nothing() {
        let mut gate = active();
        gate.judge(&see(4, 0.0, 0.0)).unwrap();
        assert_eq!(gate.judge(&see(4, f64::NAN, 0.0)), Err(GateRefusal::NotFinite));
        assert_eq!(gate.judge(&see(587, 0.0, 0.0)), Err(GateRefusal::Unknown));
        assert_eq!(gate.judge(&TagSighting { camera: 4, ..see(4, 0.0, 0.0) }), Err(GateRefusal::Unknown));
        assert!(gate.judge(&see(4, 0.0499, 0.0)).is_ok());
    }
}
