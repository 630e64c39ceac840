//! Motions that no policy makes: to the start of an episode and back. Minimum jerk from rest to rest.

use tenon_core::arm::Joints;
use tenon_core::geometry::{Pose, interpolate};

/// Most way-points of one motion; fixed, so that a motion is `Copy` and crosses threads without allocating.
pub const MAX_WAYPOINTS: usize = 8;

/// Where to go.
#[derive(Debug, Clone, Copy)]
pub enum Motion {
    /// Along straight lines of the tool point, coming to rest at each way-point.
    Waypoints { poses: [Pose; MAX_WAYPOINTS], count: usize, max_speed_m_s: f64 },
    /// To joint positions, all joints arriving together.
    Joints { goal_rad: Joints, max_speed_rad_s: f64 },
}

impl Motion {
    /// `None` for no way-point or more than [`MAX_WAYPOINTS`].
    pub fn waypoints(poses: &[Pose], max_speed_m_s: f64) -> Option<Self> {
        let (first, count) = (poses.first()?, poses.len());
        let mut all = [*first; MAX_WAYPOINTS];
        all.get_mut(..count)?.copy_from_slice(poses);
        Some(Self::Waypoints { poses: all, count, max_speed_m_s })
    }
}

/// What a motion wants at a moment.
#[derive(Debug, Clone, Copy)]
pub enum Setpoint {
    Pose(Pose),
    Joints(Joints),
}

/// A motion under way.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    motion: Motion,
    from_pose: Pose,
    from_joints: Joints,
    segment: usize,
    elapsed_s: f64,
}

impl Progress {
    /// Starts from what is commanded now.
    pub fn new(motion: Motion, from_pose: Pose, from_joints: Joints) -> Self {
        Self { motion, from_pose, from_joints, segment: 0, elapsed_s: 0.0 }
    }

    /// Advances by `dt_s`. The second value says whether the motion has ended.
    pub fn advance(&mut self, dt_s: f64) -> (Setpoint, bool) {
        self.elapsed_s += dt_s;
        match self.motion {
            Motion::Joints { goal_rad, max_speed_rad_s } => {
                let largest = (0..7).map(|i| (goal_rad[i] - self.from_joints[i]).abs()).fold(0.0, f64::max);
                let (s, done) = minimum_jerk(self.elapsed_s, duration_s(largest, max_speed_rad_s));
                let joints = std::array::from_fn(|i| self.from_joints[i] + (goal_rad[i] - self.from_joints[i]) * s);
                (Setpoint::Joints(joints), done)
            }
            Motion::Waypoints { poses, count, max_speed_m_s } => {
                let goal = poses[self.segment];
                let distance = (goal.translation.vector - self.from_pose.translation.vector).norm();
                // Half a metre of arm per radian makes rotations count like translations.
                let turn = 0.5 * goal.rotation.angle_to(&self.from_pose.rotation);
                let (s, done) = minimum_jerk(self.elapsed_s, duration_s(distance.max(turn), max_speed_m_s));
                let pose = interpolate(&self.from_pose, &goal, s);
                if done && self.segment + 1 < count {
                    self.from_pose = goal;
                    self.segment += 1;
                    self.elapsed_s = 0.0;
                    return (Setpoint::Pose(pose), false);
                }
                (Setpoint::Pose(pose), done)
            }
        }
    }
}

/// The quintic from rest to rest peaks at 1.875 times its mean speed.
fn duration_s(distance: f64, max_speed: f64) -> f64 {
    (1.875 * distance / max_speed).max(0.05)
}

fn minimum_jerk(t: f64, duration: f64) -> (f64, bool) {
    let u = (t / duration).clamp(0.0, 1.0);
    (u * u * u * (10.0 - 15.0 * u + 6.0 * u * u), u >= 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::geometry::pose_from_wxyz;

    #[test]
    fn a_path_visits_its_waypoints_below_its_speed() {
        let at = |x: f64, z: f64| pose_from_wxyz([x, 0.0, z], [0.0, 1.0, 0.0, 0.0]);
        let motion = Motion::waypoints(&[at(0.5, 0.3), at(0.2, 0.3)], 0.5).expect("two way-points fit");
        let mut progress = Progress::new(motion, at(0.5, 0.1), [0.0; 7]);
        let (mut last, mut visited) = (at(0.5, 0.1), false);
        for _ in 0..10_000 {
            let (Setpoint::Pose(pose), done) = progress.advance(0.005) else { panic!("a pose motion gives poses") };
            let speed = (pose.translation.vector - last.translation.vector).norm() / 0.005;
            assert!(speed <= 0.5 + 1e-9, "{speed}");
            visited |= (pose.translation.vector - at(0.5, 0.3).translation.vector).norm() < 1e-9;
            last = pose;
            if done {
                assert!(visited && (pose.translation.vector - at(0.2, 0.3).translation.vector).norm() < 1e-9);
                return;
            }
        }
        panic!("the motion never ended");
    }

    #[test]
    fn no_waypoint_is_no_motion() {
        assert!(Motion::waypoints(&[], 0.5).is_none());
        assert!(Motion::waypoints(&[Pose::identity(); MAX_WAYPOINTS + 1], 0.5).is_none());
    }
}
