//! What goes into a filter and what comes out.

use std::time::Duration;

use nalgebra::{Matrix6, UnitQuaternion};
use thiserror::Error;

use super::config::AgeLimits;
use super::systematic::SystematicError;
use crate::geometry::Pose;
use crate::time::MonotonicTime;

/// Pose of one part at one instant, from all of its tags in all cameras.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartMeasurement {
    pub T_april_part: Pose,
    /// Covariance of the twist `[v; ω]` about the part's origin in april axes: m², m·rad, rad². Of what is new in every
    /// measurement (white); what stays is `systematic`.
    pub covariance: Matrix6<f64>,
    /// The error that does not change from frame to frame, where it is known: then it is considered, and the estimate's
    /// covariance contains it.
    pub systematic: Option<SystematicError>,
    /// The other minimum where the tags leave two, with its own covariance.
    pub other: Option<(Pose, Matrix6<f64>)>,
    /// Of the other minimum.
    pub other_systematic: Option<SystematicError>,
    /// Both minima fit about equally well.
    pub ambiguous: bool,
    pub tags: u8,
    pub cameras: u8,
    /// Middle of the exposure.
    pub exposed_at: MonotonicTime,
}

/// Pose of one part as one camera alone sees it: input of the benchmark's filters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraPose {
    /// Index of the camera, from 0.
    pub camera: usize,
    pub T_april_part: Pose,
    pub tags: u8,
}

impl AgeLimits {
    /// State of a part that is in nobody's grip, by the age of its last measurement.
    pub(super) fn state_at(&self, age: Duration) -> PartState {
        match age.as_secs_f64() {
            age_s if age_s <= self.coasting_after_s => PartState::Tracking,
            age_s if age_s <= self.lost_after_s => PartState::Coasting,
            _ => PartState::Lost,
        }
    }
}

/// Where a part stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PartState {
    /// Seen just now.
    Tracking,
    /// In the gripper: its pose follows the tool point.
    Held { T_tcp_part: Pose },
    /// Not seen for a moment; the pose is a prediction.
    Coasting,
    /// No pose. Consumers that need the part hold the arm.
    Lost,
}

/// Pose of a part now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartEstimate {
    pub T_april_part: Pose,
    /// Covariance of the twist `[v; ω]` about the part's origin in april axes, predicted to now, systematic errors
    /// included as far as the measurements tell them; none from the filters of the benchmark, which know no uncertainty.
    pub covariance: Option<Matrix6<f64>>,
    /// Never [`PartState::Lost`]: a lost part has no estimate.
    pub state: PartState,
    /// From the exposure of the newest measurement used to now; of a held part from the tool point's pose to now.
    pub age: Duration,
    /// From the exposure of the newest measurement used to its arrival at the filter.
    pub latency: Duration,
    /// 0 to 1: probability that position and rotation are within the configured tolerances under `covariance` (a lower
    /// bound: every axis counts like the worst one), times what is left of the time until the part is lost. Without
    /// a covariance the second factor alone.
    pub confidence: f64,
    /// Tags and cameras of the newest measurement used.
    pub tags: u8,
    pub cameras: u8,
}

/// What a filter did with a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The first pose of a part that had none.
    Initialised,
    Accepted,
    /// Accepted, with the minimum that vision had placed second.
    AcceptedOtherMinimum,
    /// The part was taken to be elsewhere; enough measurements agreed that it is here.
    Reacquired,
    Refused(Refusal),
}

/// Why a measurement was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("a value of the measurement is not finite")]
    NotFinite,
    #[error("the covariance of the measurement is not positive definite")]
    Covariance,
    #[error("a measurement of this exposure was there already")]
    Duplicate,
    #[error("the measurement was exposed before one that was there already")]
    OutOfOrder,
    #[error("the measurement was exposed later than now: check the clock of the camera")]
    FromTheFuture,
    #[error("the measurement is older than a part may be without being lost")]
    TooOld,
    #[error("the clock ran back: now is before the last call's now")]
    ClockReversed,
    #[error("the measurement is improbable where the part was at rest; a second one that agrees with it will be used")]
    Gate,
    #[error("the measurement jumps further than the gate allows; used once enough of them agree")]
    Jump,
    #[error("both minima fit alike and there is no pose yet to tell them apart: another view is needed")]
    AmbiguousStart,
    #[error("the part is in the gripper")]
    Held,
    #[error("the part has a fixed pose, or the furniture has no part of this index")]
    NotTracked,
    #[error("this filter takes the other kind of measurement (one pose of all cameras, or one pose a camera)")]
    WrongInput,
    #[error("a camera's index is not below the number of cameras the filter was made for")]
    UnknownCamera,
}

/// Counts of what became of the measurements of one part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FusionCounts {
    pub initialised: u64,
    pub accepted: u64,
    /// Of the accepted ones: how many with the second minimum.
    pub other_minimum: u64,
    pub reacquired: u64,
    /// Times that the part was found to move.
    pub motions: u64,
    pub not_finite: u64,
    pub covariance: u64,
    pub duplicate: u64,
    pub out_of_order: u64,
    pub from_the_future: u64,
    pub too_old: u64,
    pub clock_reversed: u64,
    pub gate: u64,
    pub jump: u64,
    pub ambiguous_start: u64,
    pub held: u64,
    pub other_refusals: u64,
}

impl FusionCounts {
    pub(super) fn count(&mut self, outcome: Outcome) -> Outcome {
        let counter = match outcome {
            Outcome::Initialised => &mut self.initialised,
            Outcome::Accepted => &mut self.accepted,
            Outcome::AcceptedOtherMinimum => {
                self.other_minimum += 1;
                &mut self.accepted
            }
            Outcome::Reacquired => &mut self.reacquired,
            Outcome::Refused(refusal) => match refusal {
                Refusal::NotFinite => &mut self.not_finite,
                Refusal::Covariance => &mut self.covariance,
                Refusal::Duplicate => &mut self.duplicate,
                Refusal::OutOfOrder => &mut self.out_of_order,
                Refusal::FromTheFuture => &mut self.from_the_future,
                Refusal::TooOld => &mut self.too_old,
                Refusal::ClockReversed => &mut self.clock_reversed,
                Refusal::Gate => &mut self.gate,
                Refusal::Jump => &mut self.jump,
                Refusal::AmbiguousStart => &mut self.ambiguous_start,
                Refusal::Held => &mut self.held,
                Refusal::NotTracked | Refusal::WrongInput | Refusal::UnknownCamera => &mut self.other_refusals,
            },
        };
        *counter += 1;
        outcome
    }
}

/// A part without a pose: since when, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Exposure of the last measurement used; of a part never seen the start of the watch.
    pub since: MonotonicTime,
    pub why: Why,
}

/// Why a part has no pose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Why {
    #[error("it was never seen")]
    NeverSeen,
    #[error("it was seen only where its tags leave two orientations; turn it, or let a second camera see it")]
    OnlyAmbiguous,
    #[error("it was not seen for too long")]
    Lost,
    #[error("its pose is older than the policy may use")]
    TooOld,
    #[error("it is in the gripper, but the pose of the tool point is missing or too old")]
    NoToolPose,
    #[error("its pose is not finite")]
    NotFinite,
}

/// The checks that every filter makes of times: refuses what is not newer, not past, or too old.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeCheck {
    newest_now: Option<MonotonicTime>,
    newest_exposed: Option<MonotonicTime>,
}

impl TimeCheck {
    /// Takes note of both times if they are in order. A measurement later refused for what it shows has still been seen.
    pub fn check(&mut self, exposed_at: MonotonicTime, now: MonotonicTime, oldest: Duration) -> Result<(), Refusal> {
        if self.newest_now.is_some_and(|newest| now < newest) {
            return Err(Refusal::ClockReversed);
        }
        self.newest_now = Some(now);
        if exposed_at > now {
            return Err(Refusal::FromTheFuture);
        }
        match self.newest_exposed {
            Some(newest) if exposed_at == newest => return Err(Refusal::Duplicate),
            Some(newest) if exposed_at < newest => return Err(Refusal::OutOfOrder),
            _ => {}
        }
        if now.since(exposed_at) > oldest {
            return Err(Refusal::TooOld);
        }
        self.newest_exposed = Some(exposed_at);
        Ok(())
    }
}

pub(super) fn is_finite(T: &Pose) -> bool {
    T.translation.vector.iter().chain(T.rotation.coords.iter()).all(|v| v.is_finite())
}

/// The same pose with a quaternion of length one; none if it has no length.
pub(super) fn renormalised(T: &Pose) -> Option<Pose> {
    let rotation = UnitQuaternion::try_new(*T.rotation.quaternion(), 0.5)?;
    is_finite(T).then(|| Pose::from_parts(T.translation, rotation))
}

/// Seconds of a checked configuration as a duration. What is no time at all counts as none, so that everything is too old.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 { Duration::MAX } else { Duration::ZERO })
}
