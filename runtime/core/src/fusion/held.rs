//! Parts in the gripper (spec perception.md §6.4): what the fingers hold moves with the tool point.

use std::time::Duration;

use nalgebra::{Matrix3, Matrix6};

use super::measurement::{Missing, Why};
use crate::geometry::Pose;
use crate::time::{MonotonicTime, Stamped};

/// What the gripper did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GripperEvent {
    /// A close command has finished with the fingers this far apart. Also to be sent when a closed gripper's width falls.
    Closed { width_m: f64 },
    /// The fingers are told to open.
    Opening,
}

/// What a gripper event meant to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GripperOutcome {
    /// The part follows the tool point from now on.
    Grasped,
    /// It no longer does.
    Released,
    /// Neither; the next measurement still replaces the state.
    Unchanged,
}

/// A part between the fingers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grip {
    pub T_tcp_part: Pose,
    /// Twist `[v; ω]` about the part's origin in the tool point's axes; none where the filter knows no uncertainty.
    covariance_in_tcp: Option<Matrix6<f64>>,
    /// Of the newest measurement before the grasp.
    pub exposed_at: MonotonicTime,
    pub latency: Duration,
    pub tags: u8,
    pub cameras: u8,
}

impl Grip {
    /// Takes hold of a part at `T_april_part` with the tool point at `T_april_tcp`.
    pub fn new(
        T_april_tcp: &Pose,
        T_april_part: &Pose,
        covariance: Option<&Matrix6<f64>>,
        exposed_at: MonotonicTime,
        latency: Duration,
        [tags, cameras]: [u8; 2],
    ) -> Self {
        let R_tcp_april = T_april_tcp.rotation.inverse().to_rotation_matrix();
        Self {
            T_tcp_part: T_april_tcp.inverse() * T_april_part,
            covariance_in_tcp: covariance.map(|c| turned(c, R_tcp_april.matrix())),
            exposed_at,
            latency,
            tags,
            cameras,
        }
    }

    pub fn T_april_part(&self, T_april_tcp: &Pose) -> Pose {
        T_april_tcp * self.T_tcp_part
    }

    /// In april axes.
    pub fn covariance(&self, T_april_tcp: &Pose) -> Option<Matrix6<f64>> {
        let R = T_april_tcp.rotation.to_rotation_matrix();
        self.covariance_in_tcp.map(|c| turned(&c, R.matrix()))
    }

    /// The tool point's pose if there is one that is not older than `oldest`, and its age.
    pub fn usable_tool_pose<'a>(
        &self,
        now: MonotonicTime,
        T_april_tcp: Option<&'a Stamped<Pose>>,
        oldest: Duration,
    ) -> Result<(&'a Pose, Duration), Missing> {
        match T_april_tcp {
            Some(stamped) if stamped.age(now) <= oldest => Ok((&stamped.value, stamped.age(now))),
            stamped => {
                Err(Missing { since: stamped.map_or(self.exposed_at, |stamped| stamped.time), why: Why::NoToolPose })
            }
        }
    }
}

/// A covariance of twists seen from axes turned by `R`.
fn turned(covariance: &Matrix6<f64>, R: &Matrix3<f64>) -> Matrix6<f64> {
    let mut both = Matrix6::zeros();
    both.fixed_view_mut::<3, 3>(0, 0).copy_from(R);
    both.fixed_view_mut::<3, 3>(3, 3).copy_from(R);
    both * covariance * both.transpose()
}
