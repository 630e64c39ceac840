//! A part behind one of the filters kept for comparison, with the same ages, states and grip as [`super::PartFilter`].

use std::time::Duration;

use super::config::{AgeLimits, GripConfig, MajorityConfig, MovingAverageConfig};
use super::held::{Grip, GripperEvent, GripperOutcome};
use super::low_pass::MovingAverage;
use super::majority::MajorityFilter;
use super::measurement::{
    CameraPose, FusionCounts, Missing, Outcome, PartEstimate, PartMeasurement, PartState, Refusal, TimeCheck, Why,
    duration, renormalised,
};
use crate::geometry::Pose;
use crate::time::{MonotonicTime, Stamped};

#[derive(Debug, Clone)]
enum Kind {
    MovingAverage(MovingAverage),
    Majority(MajorityFilter),
}

/// The newest output.
#[derive(Debug, Clone, Copy)]
struct Last {
    T: Pose,
    at: MonotonicTime,
    latency: Duration,
    tags: u8,
    cameras: u8,
}

/// State of one part. Uncertainty is unknown to these filters, and so are gates: what is refused is refused for its time or
/// its numbers.
#[derive(Debug, Clone)]
pub struct ReferencePart {
    kind: Kind,
    ages: AgeLimits,
    grip_config: GripConfig,
    started_at: MonotonicTime,
    time: TimeCheck,
    last: Option<Last>,
    grip: Option<Grip>,
    counts: FusionCounts,
}

impl ReferencePart {
    pub fn moving_average(
        config: MovingAverageConfig,
        ages: AgeLimits,
        grip: GripConfig,
        started_at: MonotonicTime,
    ) -> Self {
        Self::new(Kind::MovingAverage(MovingAverage::new(config)), ages, grip, started_at)
    }

    /// `cameras`: how many there are.
    pub fn majority(
        config: MajorityConfig,
        cameras: usize,
        ages: AgeLimits,
        grip: GripConfig,
        started_at: MonotonicTime,
    ) -> Self {
        Self::new(Kind::Majority(MajorityFilter::new(config, cameras)), ages, grip, started_at)
    }

    fn new(kind: Kind, ages: AgeLimits, grip_config: GripConfig, started_at: MonotonicTime) -> Self {
        Self {
            kind,
            ages,
            grip_config,
            started_at,
            time: TimeCheck::default(),
            last: None,
            grip: None,
            counts: FusionCounts::default(),
        }
    }

    pub fn counts(&self) -> &FusionCounts {
        &self.counts
    }

    /// A pose of all cameras together, for the moving average.
    pub fn update(&mut self, m: &PartMeasurement, now: MonotonicTime) -> Outcome {
        let outcome = self.updated(m, now).unwrap_or_else(Outcome::Refused);
        self.counts.count(outcome)
    }

    /// The poses of one round of the cameras, for the majority filter. `exposed_at`: the oldest exposure among them.
    pub fn update_cameras(&mut self, seen: &[CameraPose], exposed_at: MonotonicTime, now: MonotonicTime) -> Outcome {
        let outcome = self.cameras_updated(seen, exposed_at, now).unwrap_or_else(Outcome::Refused);
        self.counts.count(outcome)
    }

    fn updated(&mut self, m: &PartMeasurement, now: MonotonicTime) -> Result<Outcome, Refusal> {
        let T = renormalised(&m.T_april_part).ok_or(Refusal::NotFinite)?;
        if !matches!(self.kind, Kind::MovingAverage(_)) {
            return Err(Refusal::WrongInput);
        }
        self.admit(m.exposed_at, now)?;
        let Kind::MovingAverage(filter) = &mut self.kind else { return Err(Refusal::WrongInput) };
        let T = filter.update(&T, m.exposed_at)?;
        Ok(self.accepted(Last {
            T,
            at: m.exposed_at,
            latency: now.since(m.exposed_at),
            tags: m.tags,
            cameras: m.cameras,
        }))
    }

    fn cameras_updated(
        &mut self,
        seen: &[CameraPose],
        exposed_at: MonotonicTime,
        now: MonotonicTime,
    ) -> Result<Outcome, Refusal> {
        if !matches!(self.kind, Kind::Majority(_)) || seen.is_empty() {
            return Err(Refusal::WrongInput);
        }
        self.admit(exposed_at, now)?;
        let Kind::Majority(filter) = &mut self.kind else { return Err(Refusal::WrongInput) };
        let T = filter.update(seen)?.ok_or(Refusal::WrongInput)?;
        let tags = seen.iter().fold(0u8, |sum, s| sum.saturating_add(s.tags));
        let cameras = u8::try_from(seen.len()).unwrap_or(u8::MAX);
        Ok(self.accepted(Last { T, at: exposed_at, latency: now.since(exposed_at), tags, cameras }))
    }

    fn admit(&mut self, exposed_at: MonotonicTime, now: MonotonicTime) -> Result<(), Refusal> {
        self.time.check(exposed_at, now, duration(self.ages.lost_after_s))?;
        if self.grip.is_some() {
            return Err(Refusal::Held);
        }
        if self.last.as_ref().is_some_and(|last| exposed_at < last.at) {
            // From before the fingers let go of the part.
            return Err(Refusal::OutOfOrder);
        }
        let lost = |last: &Last| exposed_at.seconds_since(last.at) > self.ages.lost_after_s;
        if self.last.as_ref().is_some_and(lost) {
            // An average with what was there before a long silence would be a pose where the part never was.
            if let Kind::MovingAverage(filter) = &mut self.kind {
                filter.clear();
            }
        }
        Ok(())
    }

    fn accepted(&mut self, last: Last) -> Outcome {
        let first = self.last.is_none();
        self.last = Some(last);
        if first { Outcome::Initialised } else { Outcome::Accepted }
    }

    /// Where the part stands at `now`.
    pub fn state(&self, now: MonotonicTime) -> PartState {
        match (&self.grip, &self.last) {
            (Some(grip), _) => PartState::Held { T_tcp_part: grip.T_tcp_part },
            (None, Some(last)) => self.ages.state_at(now.since(last.at)),
            (None, None) => PartState::Lost,
        }
    }

    /// As [`super::PartFilter::estimate`].
    pub fn estimate(&self, now: MonotonicTime, T_april_tcp: Option<&Stamped<Pose>>) -> Result<PartEstimate, Missing> {
        let state = self.state(now);
        let lost_after = duration(self.ages.lost_after_s);
        let left = |age: Duration| (1.0 - age.as_secs_f64() / self.ages.lost_after_s).clamp(0.0, 1.0);
        if let Some(grip) = &self.grip {
            let (T_april_tcp, age) = grip.usable_tool_pose(now, T_april_tcp, lost_after)?;
            return Ok(PartEstimate {
                T_april_part: grip.T_april_part(T_april_tcp),
                covariance: None,
                state,
                age,
                latency: grip.latency,
                confidence: left(age),
                tags: grip.tags,
                cameras: grip.cameras,
            });
        }
        let Some(last) = &self.last else { return Err(Missing { since: self.started_at, why: Why::NeverSeen }) };
        if state == PartState::Lost {
            return Err(Missing { since: last.at, why: Why::Lost });
        }
        let age = now.since(last.at);
        Ok(PartEstimate {
            T_april_part: last.T,
            covariance: None,
            state,
            age,
            latency: last.latency,
            confidence: left(age),
            tags: last.tags,
            cameras: last.cameras,
        })
    }

    /// As [`super::PartFilter::distance_to_tool_m`].
    pub fn distance_to_tool_m(&self, at: MonotonicTime, T_april_tcp: &Pose) -> Option<f64> {
        let stamped = Stamped { time: at, value: *T_april_tcp };
        let part = self.estimate(at, Some(&stamped)).ok()?.T_april_part;
        Some((part.translation.vector - T_april_tcp.translation.vector).norm())
    }

    /// As [`super::PartFilter::on_gripper_event`]; the majority filter knows no α to set.
    pub fn on_gripper_event(
        &mut self,
        event: GripperEvent,
        at: MonotonicTime,
        T_april_tcp: Option<&Pose>,
    ) -> GripperOutcome {
        if let Kind::MovingAverage(filter) = &mut self.kind {
            filter.replace_next();
        }
        match event {
            GripperEvent::Closed { width_m } if self.grip_config.follow && width_m > self.grip_config.min_width_m => {
                let (Some(T), Some(last), None) = (T_april_tcp, self.last, &self.grip) else {
                    return GripperOutcome::Unchanged;
                };
                let near = self.distance_to_tool_m(at, T).is_some_and(|d| d <= self.grip_config.max_distance_m);
                if !near {
                    return GripperOutcome::Unchanged;
                }
                self.grip = Some(Grip::new(T, &last.T, None, last.at, last.latency, [last.tags, last.cameras]));
                GripperOutcome::Grasped
            }
            GripperEvent::Closed { .. } | GripperEvent::Opening => {
                let Some(grip) = self.grip.take() else { return GripperOutcome::Unchanged };
                self.last = T_april_tcp.map(|T| Last {
                    T: grip.T_april_part(T),
                    at,
                    latency: grip.latency,
                    tags: grip.tags,
                    cameras: grip.cameras,
                });
                GripperOutcome::Released
            }
        }
    }
}
