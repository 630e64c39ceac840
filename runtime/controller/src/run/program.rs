//! What a task does between episodes.

use tenon_core::arm::Joints;
use tenon_core::avoid;
use tenon_core::geometry::{Pose, pose_from_wxyz};
use tenon_core::spec::PolicySpec;

use crate::motion::Motion;

/// How a task's episodes begin and how long they are.
pub struct Program {
    pub actions: usize,
    /// From the pose that the last episode left to the start; the joints come last, so that the elbow does not wander.
    pub start_joints_rad: Joints,
    return_height_m: f64,
    start: Pose,
}

impl Program {
    /// `None` for a task that this release cannot place at its start by itself.
    pub fn of(spec: &PolicySpec) -> Option<Self> {
        spec.task.starts_with("avoid").then(|| Self {
            actions: avoid::EPISODE_STEPS,
            start_joints_rad: avoid::START_JOINTS_RAD,
            // The rod reaches 0.12 m below the tool point and the tallest cylinder ends at 0.1 m.
            return_height_m: 0.26,
            start: pose_from_wxyz(avoid::START_COMMAND_M, avoid::COMMANDED_QUAT_WXYZ),
        })
    }

    /// Up, over the obstacles, and down to the start; then the joints.
    pub fn return_motions(&self, from: &Pose) -> [Option<Motion>; 2] {
        let joints = Motion::Joints { goal_rad: self.start_joints_rad, max_speed_rad_s: 0.8 };
        let distance = (from.translation.vector - self.start.translation.vector).norm();
        if distance < 0.03 {
            return [None, Some(joints)];
        }
        let mut lifted = *from;
        lifted.translation.vector.z = self.return_height_m;
        lifted.rotation = self.start.rotation;
        let mut above = self.start;
        above.translation.vector.z = self.return_height_m;
        [Motion::waypoints(&[lifted, above, self.start], 0.6), Some(joints)]
    }
}
