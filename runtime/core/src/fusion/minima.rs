//! Which of two minima to believe where there is no state yet, and when raw poses agree.
//!
//! An ambiguous measurement alone starts nothing: a wrong start would be confirmed by every later measurement. It starts
//! the filter only when two views agree: the true pose is common to both, while the false ones are mirrored about their own
//! lines of sight, so exactly one of the four pairs of minima agrees and the other three differ clearly. Two pictures of one
//! view agree in both minima and decide nothing. Two minima that are as close as two raw poses that agree are no ambiguity
//! worth waiting for; the start then covers both.

use std::time::Duration;

use nalgebra::Matrix6;

use super::config::PartFilterConfig;
use super::kalman::innovation;
use super::systematic::SystematicError;
use crate::geometry::{Pose, pose_error};
use crate::time::MonotonicTime;

/// One explanation of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Minimum {
    pub T: Pose,
    pub R: Matrix6<f64>,
    pub systematic: Option<SystematicError>,
    pub is_other: bool,
}

/// A measurement that has passed the checks of its numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub best: Minimum,
    pub other: Option<Minimum>,
    pub ambiguous: bool,
    pub exposed_at: MonotonicTime,
    pub latency: Duration,
    pub tags: u8,
    pub cameras: u8,
}

/// When poses agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreement {
    distance_m: f64,
    rotation_rad: f64,
    max_squared_mahalanobis: f64,
    /// What is older tells nothing about now.
    horizon_s: f64,
}

impl Agreement {
    pub fn new(config: &PartFilterConfig, horizon_s: f64) -> Self {
        Self {
            distance_m: config.reacquire_distance_m,
            rotation_rad: config.reacquire_rotation_rad,
            max_squared_mahalanobis: config.max_squared_mahalanobis,
            horizon_s,
        }
    }

    /// The minimum to start from; none where it takes another view.
    ///
    /// `unresolved`: earlier ambiguous measurements, newest first.
    pub fn start<'a>(&self, seen: &Seen, unresolved: impl Iterator<Item = &'a Seen>) -> Option<Minimum> {
        match seen.other {
            _ if !seen.ambiguous => Some(seen.best),
            Some(other) if self.agree(&seen.best.T, &other.T) => {
                // Both lie within one standard deviation of the better one.
                let between = pose_error(&seen.best.T, &other.T);
                Some(Minimum { R: seen.best.R + between * between.transpose(), ..seen.best })
            }
            _ => self.resolved_by_another_view(seen, unresolved),
        }
    }

    /// The minimum that a recent view from elsewhere confirms.
    fn resolved_by_another_view<'a>(&self, seen: &Seen, unresolved: impl Iterator<Item = &'a Seen>) -> Option<Minimum> {
        let minima = |s: &Seen| [Some(s.best), s.other];
        let recent = |old: &&Seen| seen.exposed_at.seconds_since(old.exposed_at) <= self.horizon_s;
        unresolved.filter(recent).find_map(|old| {
            let (mut agreeing, mut found) = (0, None);
            for a in minima(seen).into_iter().flatten() {
                for b in minima(old).into_iter().flatten() {
                    if self.agree(&a.T, &b.T) {
                        agreeing += 1;
                        found = Some(a);
                    } else if !self.differ_clearly(&a, &b) {
                        return None;
                    }
                }
            }
            // One minimum each that agrees is no proof: the other ones must be there to disagree.
            found.filter(|_| agreeing == 1 && seen.other.is_some() && old.other.is_some())
        })
    }

    fn agree(&self, a: &Pose, b: &Pose) -> bool {
        let e = pose_error(a, b);
        e.fixed_rows::<3>(0).norm() <= self.distance_m && e.fixed_rows::<3>(3).norm() <= self.rotation_rad
    }

    /// Twice as far apart as what agrees, and not by noise.
    fn differ_clearly(&self, a: &Minimum, b: &Minimum) -> bool {
        a.T.rotation.angle_to(&b.T.rotation) > 2.0 * self.rotation_rad
            && innovation(
                &a.T,
                &b.T,
                &(a.R + b.R + SystematicError::difference(a.systematic.as_ref(), b.systematic.as_ref())),
            )
            .is_some_and(|i| i.squared_distance() > self.max_squared_mahalanobis)
    }

    /// Whether raw poses are recent, newer than `used_at`, and agree in pairs.
    pub fn all_agree<'a>(
        &self,
        raw: impl Iterator<Item = &'a (Minimum, MonotonicTime)> + Clone,
        used_at: MonotonicTime,
        newest_at: MonotonicTime,
    ) -> bool {
        let counts = |at: MonotonicTime| at > used_at && newest_at.seconds_since(at) <= self.horizon_s;
        let mut rest = raw;
        while let Some((a, at)) = rest.next() {
            if !counts(*at) || !rest.clone().all(|(b, _)| self.agree(&a.T, &b.T)) {
                return false;
            }
        }
        true
    }
}
