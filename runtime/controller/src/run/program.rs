//! What a task does between episodes.

use tenon_core::arm::Joints;
use tenon_core::avoid;
use tenon_core::fusion::{Furniture, RESET_JOINTS_RAD};
use tenon_core::geometry::{Pose, pose_from_wxyz};
use tenon_core::safety::WorkspaceBox;
use tenon_core::spec::PolicySpec;
use tenon_core::task::{TaskFamily, TaskName};

use crate::motion::Motion;

/// How far a motion keeps from the sides of the workspace. An episode may leave the arm at one of them, where turning and
/// lifting on the spot would be refused for the last micrometre.
const MARGIN_M: f64 = 0.02;

/// How a task's episodes begin and how long they are.
pub struct Program {
    pub actions: usize,
    /// From the pose that the last episode left to the start; the joints come last, so that the elbow does not wander.
    pub start_joints_rad: Joints,
    way: Way,
}

/// How the arm comes back.
enum Way {
    /// Up, over the obstacles, and down to the start.
    Over { return_height_m: f64, start: Pose },
    /// Straight up out of the parts; the joints do the rest.
    Up { return_height_m: f64 },
}

impl Program {
    /// `None` for a task that this release cannot place at its start by itself.
    pub fn of(spec: &PolicySpec) -> Option<Self> {
        let task = TaskName::from_name(&spec.task)?;
        let actions = task.episode_steps();
        match task.family() {
            TaskFamily::Avoid => Some(Self {
                actions,
                start_joints_rad: avoid::START_JOINTS_RAD,
                // The rod reaches 0.12 m below the tool point and the tallest cylinder ends at 0.1 m.
                way: Way::Over {
                    return_height_m: 0.26,
                    start: pose_from_wxyz(avoid::START_COMMAND_M, avoid::COMMANDED_QUAT_WXYZ),
                },
            }),
            TaskFamily::Furniture => Furniture::of_task(task).map(|_| Self {
                actions,
                start_joints_rad: RESET_JOINTS_RAD,
                // A leg that stands in its hole ends at 0.12 m.
                way: Way::Up { return_height_m: 0.2 },
            }),
            TaskFamily::Gym | TaskFamily::Robomimic => None,
        }
    }

    /// Away from the sides of the workspace, up, and (over obstacles) down to the start; then the joints.
    pub fn return_motions(&self, from: &Pose, workspace: &WorkspaceBox) -> [Option<Motion>; 2] {
        let joints = Motion::Joints { goal_rad: self.start_joints_rad, max_speed_rad_s: 0.8 };
        let mut inside = *from;
        for axis in 0..2 {
            let (min_m, max_m) = (workspace.min_m[axis] + MARGIN_M, workspace.max_m[axis] - MARGIN_M);
            inside.translation.vector[axis] = inside.translation.vector[axis].max(min_m).min(max_m);
        }
        let mut lifted = inside;
        match &self.way {
            Way::Over { return_height_m, start } => {
                if (from.translation.vector - start.translation.vector).norm() < 0.03 {
                    return [None, Some(joints)];
                }
                lifted.translation.vector.z = *return_height_m;
                lifted.rotation = start.rotation;
                let mut above = *start;
                above.translation.vector.z = *return_height_m;
                let way = [inside, lifted, above, *start];
                // Where nothing is near, the first would be a stop on the spot.
                let way = if inside.translation == from.translation { &way[1..] } else { &way[..] };
                [Motion::waypoints(way, 0.6), Some(joints)]
            }
            Way::Up { return_height_m } => {
                let up_m = return_height_m.min(workspace.max_m[2] - MARGIN_M);
                if from.translation.vector.z >= up_m {
                    return [None, Some(joints)];
                }
                lifted.translation.vector.z = up_m;
                [Motion::waypoints(&[lifted], 0.3), Some(joints)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motion::{Progress, Setpoint};

    /// The tool point of a whole motion at 143 Hz.
    fn path(motion: Motion, from: Pose) -> Vec<[f64; 3]> {
        let mut progress = Progress::new(motion, from, avoid::START_JOINTS_RAD);
        let mut points = Vec::new();
        loop {
            let (setpoint, done) = progress.advance(0.007);
            let Setpoint::Pose(pose) = setpoint else { panic!("along the tool's way-points") };
            points.push([0, 1, 2].map(|axis| pose.translation.vector[axis]));
            if done {
                return points;
            }
        }
    }

    #[test]
    fn the_way_back_leaves_the_side_of_the_workspace_before_it_turns_and_lifts() {
        let program = Program {
            actions: 1,
            start_joints_rad: avoid::START_JOINTS_RAD,
            way: Way::Over {
                return_height_m: 0.26,
                start: pose_from_wxyz(avoid::START_COMMAND_M, avoid::COMMANDED_QUAT_WXYZ),
            },
        };
        let workspace = WorkspaceBox { min_m: [0.11, -0.4, 0.05], max_m: [0.85, 0.6, 0.6] };
        let z = avoid::START_COMMAND_M[2];
        for (x, y, sides) in [(0.5, 0.6, 1), (0.85, 0.6, 2), (0.11, 0.3, 1), (0.5, 0.3, 0), (0.5, 0.601, 1)] {
            let from = pose_from_wxyz([x, y, z], avoid::COMMANDED_QUAT_WXYZ);
            let [Some(way), Some(_)] = program.return_motions(&from, &workspace) else { panic!("two motions") };
            let points = path(way, from);
            // Until it is at the margin it only moves inwards, at one height.
            let margin =
                |p: &[f64; 3]| (p[0] - 0.11).min(0.85 - p[0]).min(p[1] + 0.4).min(0.6 - p[1]) >= MARGIN_M - 1e-9;
            let near = points.iter().take_while(|p| !margin(p)).count();
            assert_eq!(near > 0, sides > 0, "{x} {y}");
            assert!(points[..near].iter().all(|p| (p[2] - z).abs() < 1e-12), "{x} {y}");
            assert!(points[..near].windows(2).all(|w| (w[1][1] <= w[0][1]) || y < 0.5), "{x} {y}");
            assert!(points[near..].iter().all(margin), "{x} {y}: never near a side again");
            let end = points.last().unwrap();
            assert!((0..3).all(|axis| (end[axis] - avoid::START_COMMAND_M[axis]).abs() < 1e-9), "{end:?}");
        }
    }
}
