//! The benchmark's filter of one part (spec perception.md §6.2): a queue of raw poses for each camera, then an unweighted
//! mean over the cameras. Kept as published, for comparison.

use super::average::average_poses;
use super::config::MajorityConfig;
use super::measurement::{CameraPose, Refusal, is_finite};
use super::ring::Ring;
use crate::geometry::Pose;

/// Largest queue.
pub(super) const MAX_QUEUE: usize = 16;

/// Most cameras.
pub(super) const MAX_CAMERAS: usize = 8;

/// State of one part.
#[derive(Debug, Clone)]
pub struct MajorityFilter {
    config: MajorityConfig,
    /// The last raw poses of each camera.
    queues: Vec<Ring<Pose, MAX_QUEUE>>,
}

impl MajorityFilter {
    /// `cameras`: how many there are, at most 8; more are refused when they are seen.
    pub fn new(config: MajorityConfig, cameras: usize) -> Self {
        Self { config, queues: vec![Ring::new(config.queue_length); cameras.min(MAX_CAMERAS)] }
    }

    /// Filters what one camera sees, then averages the cameras. `Ok(None)` if none sees the part.
    pub fn update(&mut self, seen: &[CameraPose]) -> Result<Option<Pose>, Refusal> {
        if seen.len() > self.queues.len() || seen.iter().any(|s| s.camera >= self.queues.len()) {
            return Err(Refusal::UnknownCamera);
        }
        if seen.iter().any(|s| !is_finite(&s.T_april_part)) {
            return Err(Refusal::NotFinite);
        }
        let mut passed = [Pose::identity(); MAX_CAMERAS];
        for (out, s) in passed.iter_mut().zip(seen) {
            *out = self.filter(s.camera, s.T_april_part);
        }
        let passed = &passed[..seen.len()];
        // Two cameras half a turn apart have no mean; the first one is as good as the other.
        Ok(average_poses(passed).or_else(|| passed.first().copied()))
    }

    /// One camera's queue: the new pose if no more than half of the queue disagrees, else the newest that does.
    fn filter(&mut self, camera: usize, new: Pose) -> Pose {
        let config = self.config;
        let queue = &mut self.queues[camera];
        let dissimilar = queue.newest_first().filter(|old| config.dissimilar(old, &new)).count();
        let passed = if dissimilar <= queue.len() / 2 {
            new
        } else {
            *queue.newest_first().find(|old| config.dissimilar(old, &new)).unwrap_or(&new)
        };
        queue.push(new);
        passed
    }

    /// Forgets everything: the environment was reset.
    pub fn clear(&mut self) {
        self.queues.iter_mut().for_each(Ring::clear);
    }
}

impl MajorityConfig {
    /// Any column of the rotation matrices below the cosine, or any coordinate further apart than the distance.
    fn dissimilar(&self, a: &Pose, b: &Pose) -> bool {
        let (Ra, Rb) = (a.rotation.to_rotation_matrix(), b.rotation.to_rotation_matrix());
        let turned = (0..3).any(|c| Ra.matrix().column(c).dot(&Rb.matrix().column(c)) < self.min_column_cosine);
        turned || (a.translation.vector - b.translation.vector).amax() > self.max_axis_distance_m
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    fn at(x_m: f64, degrees: f64) -> Pose {
        Pose::from_parts(
            Translation3::new(x_m, 0.0, 0.0),
            UnitQuaternion::from_scaled_axis(Vector3::z() * degrees.to_radians()),
        )
    }

    fn one_camera(filter: &mut MajorityFilter, T: Pose) -> Pose {
        filter.update(&[CameraPose { camera: 0, T_april_part: T, tags: 1 }]).unwrap().unwrap()
    }

    #[test]
    fn a_real_jump_is_adopted_after_three_frames() {
        let mut filter = MajorityFilter::new(MajorityConfig::default(), 1);
        for _ in 0..5 {
            one_camera(&mut filter, at(0.0, 0.0));
        }
        let out: Vec<f64> = (0..5).map(|_| one_camera(&mut filter, at(0.2, 0.0)).translation.x).collect();
        assert_eq!(out, [0.0, 0.0, 0.0, 0.2, 0.2]);
    }

    #[test]
    fn the_newest_dissimilar_pose_stands_in_for_an_outlier() {
        let mut filter = MajorityFilter::new(MajorityConfig::default(), 1);
        for x_m in [0.0, 0.001, 0.002] {
            assert_eq!(one_camera(&mut filter, at(x_m, 0.0)).translation.x, x_m);
        }
        assert_eq!(one_camera(&mut filter, at(0.3, 0.0)).translation.x, 0.002);
        // One outlier in a queue of four is no majority.
        assert_eq!(one_camera(&mut filter, at(0.003, 0.0)).translation.x, 0.003);
    }

    #[test]
    fn the_second_pose_passes_only_if_it_is_similar_to_the_first() {
        let mut filter = MajorityFilter::new(MajorityConfig::default(), 1);
        one_camera(&mut filter, at(0.0, 0.0));
        assert_eq!(one_camera(&mut filter, at(0.2, 0.0)).translation.x, 0.0);
        // Half of a queue of two disagrees: that is allowed.
        assert_eq!(one_camera(&mut filter, at(0.2, 0.0)).translation.x, 0.2);
    }

    #[test]
    fn the_bounds_are_fifty_three_degrees_and_five_centimetres_an_axis() {
        let config = MajorityConfig::default();
        assert!(!config.dissimilar(&at(0.0, 0.0), &at(0.0, 53.0)));
        assert!(config.dissimilar(&at(0.0, 0.0), &at(0.0, 53.2)));
        assert!(!config.dissimilar(&at(0.0, 0.0), &at(0.0499, 0.0)));
        assert!(config.dissimilar(&at(0.0, 0.0), &at(-0.0501, 0.0)));
    }

    #[test]
    fn cameras_are_filtered_apart_and_averaged_alike() {
        let mut filter = MajorityFilter::new(MajorityConfig::default(), 2);
        let see = |a: Pose, b: Pose| {
            [CameraPose { camera: 0, T_april_part: a, tags: 3 }, CameraPose { camera: 1, T_april_part: b, tags: 1 }]
        };
        let mean = filter.update(&see(at(0.0, 10.0), at(0.01, 30.0))).unwrap().unwrap();
        assert!((mean.translation.x - 0.005).abs() < 1e-12 && (mean.rotation.angle().to_degrees() - 20.0).abs() < 1e-6);
        // The second camera jumps away: its queue holds it back, the first goes on.
        let mean = filter.update(&see(at(0.02, 10.0), at(0.9, 30.0))).unwrap().unwrap();
        assert!((mean.translation.x - 0.015).abs() < 1e-12);
        assert_eq!(filter.update(&[]), Ok(None));
        let stranger = [CameraPose { camera: 2, T_april_part: at(0.0, 0.0), tags: 1 }];
        assert_eq!(filter.update(&stranger), Err(Refusal::UnknownCamera));
        let broken = [CameraPose { camera: 0, T_april_part: at(f64::NAN, 0.0), tags: 1 }];
        assert_eq!(filter.update(&broken), Err(Refusal::NotFinite));
    }

    #[test]
    fn a_cleared_filter_passes_anything_once() {
        let mut filter = MajorityFilter::new(MajorityConfig::default(), 1);
        for _ in 0..5 {
            one_camera(&mut filter, at(0.0, 0.0));
        }
        filter.clear();
        assert_eq!(one_camera(&mut filter, at(0.5, 0.0)).translation.x, 0.5);
    }
}
