//! The filter of one part (spec perception.md §6.5): gates, the choice between two minima, re-acquisition, motion, states.
//!
//! **Rest and motion.** A part at rest is filtered with little process noise, so that its pose converges; one that moves
//! needs much. Motion is noticed in two ways: two measurements in a row that are improbable at rest but agree with each
//! other, or a mean of the whitened innovations that has left zero. It ends once that mean is back.
//!
//! **Systematic errors.** Where a measurement tells of errors that it shares with others ([`super::systematic`]), they count
//! for gates, for motion and for the choice of a minimum only as far as they differ from those already in the state, and
//! the estimate's covariance contains them.
//!
//! **Two minima.** With a state the likelier minimum under it is taken, whichever vision placed first, and ambiguous
//! measurements never count towards re-acquisition. Without a state see [`super::minima`].

use std::time::Duration;

use nalgebra::{Cholesky, Matrix6, Vector6};

use super::confidence::within_tolerances;
use super::config::{AgeLimits, GripConfig, PartFilterConfig};
use super::held::{Grip, GripperEvent, GripperOutcome};
use super::kalman::{Innovation, KalmanState, ProcessNoise};
use super::measurement::{
    FusionCounts, Missing, Outcome, PartEstimate, PartMeasurement, PartState, Refusal, TimeCheck, Why, duration,
    renormalised,
};
use super::minima::{Agreement, Minimum, Seen};
use super::ring::Ring;
use super::systematic::{ByUnknowns, SystematicError};
use crate::geometry::Pose;
use crate::time::{MonotonicTime, Stamped};

/// Most raw poses kept for re-acquisition.
pub(super) const MAX_RAW: usize = 16;

/// Motion ends below this squared length of the mean whitened innovation: twice its expectation at rest.
const REST_BELOW: f64 = 12.0;

/// Exponentially forgetting mean of the whitened innovations, and its variance where they are white. What they have in
/// common through systematic errors is no drift: how the mean shifts with those is kept beside it.
#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    mean: Vector6<f64>,
    variance: f64,
    by_unknowns: Option<ByUnknowns>,
}

impl Drift {
    fn add(&mut self, innovation: &Innovation, weight: f64) {
        let (whitened, by_unknowns) = innovation.persistent();
        self.mean = self.mean * (1.0 - weight) + whitened * weight;
        self.variance = self.variance * (1.0 - weight).powi(2) + weight * weight;
        if self.by_unknowns.is_some() || by_unknowns.is_some() {
            let mut mean = self.by_unknowns.map_or_else(ByUnknowns::zeros, |before| before * (1.0 - weight));
            if let Some(by_unknowns) = by_unknowns {
                mean += by_unknowns * weight;
            }
            self.by_unknowns = Some(mean);
        }
    }

    /// χ² with 6 degrees of freedom at rest.
    fn statistic(&self) -> f64 {
        match self.by_unknowns {
            _ if self.variance <= 0.0 => 0.0,
            None => self.mean.norm_squared() / self.variance,
            Some(Q) => {
                let covariance = Matrix6::identity() * self.variance + Q * Q.transpose();
                Cholesky::new(covariance).map_or(0.0, |S| self.mean.dot(&S.solve(&self.mean)))
            }
        }
    }
}

/// A part that has a pose.
#[derive(Debug, Clone, Copy)]
struct Track {
    state: KalmanState,
    /// The instant that `state` is for: exposure of the newest measurement used.
    at: MonotonicTime,
    latency: Duration,
    tags: u8,
    cameras: u8,
    /// Since when it moves; none at rest.
    moving_since: Option<MonotonicTime>,
    drift: Drift,
    /// The last measurement, where it was improbable.
    suspect: Option<(Minimum, MonotonicTime)>,
}

/// State of one part. Times must not run back; what does is refused and counted.
#[derive(Debug, Clone)]
pub struct PartFilter {
    config: PartFilterConfig,
    ages: AgeLimits,
    grip_config: GripConfig,
    rest: ProcessNoise,
    moving: ProcessNoise,
    agreement: Agreement,
    started_at: MonotonicTime,
    time: TimeCheck,
    track: Option<Track>,
    grip: Option<Grip>,
    /// The newest unambiguous poses, used or not, for re-acquisition.
    raw: Ring<(Minimum, MonotonicTime), MAX_RAW>,
    /// The newest ambiguous ones seen without a state, for the rule of two views.
    unresolved: Ring<Seen, MAX_RAW>,
    /// The first measurement exposed from this instant on replaces the pose (α = 1).
    replace_from: Option<MonotonicTime>,
    last_used_at: Option<MonotonicTime>,
    counts: FusionCounts,
}

impl PartFilter {
    /// `started_at`: since when a part never seen counts as missing.
    pub fn new(config: PartFilterConfig, ages: AgeLimits, grip: GripConfig, started_at: MonotonicTime) -> Self {
        let (rest, moving) = ProcessNoise::of(&config.motion);
        Self {
            config,
            ages,
            grip_config: grip,
            rest,
            moving,
            agreement: Agreement::new(&config, ages.lost_after_s),
            started_at,
            time: TimeCheck::default(),
            track: None,
            grip: None,
            raw: Ring::new(config.reacquire_count),
            unresolved: Ring::new(MAX_RAW),
            replace_from: None,
            last_used_at: None,
            counts: FusionCounts::default(),
        }
    }

    pub fn counts(&self) -> &FusionCounts {
        &self.counts
    }

    /// Takes a measurement in at `now`. A refused one changes no pose.
    pub fn update(&mut self, measurement: &PartMeasurement, now: MonotonicTime) -> Outcome {
        let outcome = match self.checked(measurement, now) {
            Ok(seen) => self.judge(&seen),
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.counts.count(outcome)
    }

    /// Checks numbers first, so that a broken measurement does not hold up a good one of the same instant.
    fn checked(&mut self, m: &PartMeasurement, now: MonotonicTime) -> Result<Seen, Refusal> {
        let scale = self.config.covariance_scale;
        let minimum = |T: &Pose, R: &Matrix6<f64>, systematic: &Option<SystematicError>, is_other| {
            let T = renormalised(T).ok_or(Refusal::NotFinite)?;
            if !R.iter().all(|v| v.is_finite()) || systematic.as_ref().is_some_and(|shared| !shared.is_finite()) {
                return Err(Refusal::NotFinite);
            }
            let R = (R + R.transpose()) * (0.5 * scale);
            let systematic = systematic.as_ref().map(|shared| shared.scaled(scale));
            Cholesky::new(R).map(|_| Minimum { T, R, systematic, is_other }).ok_or(Refusal::Covariance)
        };
        let best = minimum(&m.T_april_part, &m.covariance, &m.systematic, false)?;
        let other = m.other.as_ref().map(|(T, R)| minimum(T, R, &m.other_systematic, true)).transpose()?;
        self.time.check(m.exposed_at, now, duration(self.ages.lost_after_s))?;
        Ok(Seen {
            best,
            other,
            ambiguous: m.ambiguous,
            exposed_at: m.exposed_at,
            latency: now.since(m.exposed_at),
            tags: m.tags,
            cameras: m.cameras,
        })
    }

    fn judge(&mut self, seen: &Seen) -> Outcome {
        if self.grip.is_some() {
            return Outcome::Refused(Refusal::Held);
        }
        // What came before a long silence is no state any more.
        if self.track.is_some_and(|t| seen.exposed_at.seconds_since(t.at) > self.ages.lost_after_s) {
            self.track = None;
        }
        if !seen.ambiguous {
            self.raw.push((seen.best, seen.exposed_at));
        }
        let Some(track) = self.track else { return self.start(seen) };
        if seen.exposed_at < track.at {
            // From before the fingers let go of the part.
            return Outcome::Refused(Refusal::OutOfOrder);
        }
        match self.correct(&track, seen) {
            Ok((track, chosen)) => {
                self.set_track(track);
                if chosen.is_other { Outcome::AcceptedOtherMinimum } else { Outcome::Accepted }
            }
            Err(_) if !seen.ambiguous && self.raw_poses_agree(seen.exposed_at, track.at) => {
                self.set_track(self.new_track(seen, &seen.best));
                Outcome::Reacquired
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn set_track(&mut self, track: Track) {
        self.last_used_at = Some(track.at);
        self.track = Some(track);
    }

    fn new_track(&self, seen: &Seen, minimum: &Minimum) -> Track {
        Track {
            state: KalmanState::from_measurement(minimum, &self.moving),
            at: seen.exposed_at,
            latency: seen.latency,
            tags: seen.tags,
            cameras: seen.cameras,
            moving_since: None,
            drift: Drift::default(),
            suspect: None,
        }
    }

    /// The first pose of a part without a state.
    fn start(&mut self, seen: &Seen) -> Outcome {
        let Some(minimum) = self.agreement.start(seen, self.unresolved.newest_first()) else {
            self.unresolved.push(*seen);
            return Outcome::Refused(Refusal::AmbiguousStart);
        };
        self.unresolved.clear();
        self.replace_from = None;
        self.set_track(self.new_track(seen, &minimum));
        Outcome::Initialised
    }

    /// Whether enough of the last raw poses are there, recent, none of them used, and agree in pairs.
    fn raw_poses_agree(&self, newest_at: MonotonicTime, used_at: MonotonicTime) -> bool {
        self.raw.is_full() && self.agreement.all_agree(self.raw.newest_first(), used_at, newest_at)
    }

    fn noise_of(&self, track: &Track) -> &ProcessNoise {
        if track.moving_since.is_some() { &self.moving } else { &self.rest }
    }

    /// The track after the measurement, and the minimum used. On refusal only the suspicion is noted.
    fn correct(&mut self, track: &Track, seen: &Seen) -> Result<(Track, Minimum), Refusal> {
        let dt_s = seen.exposed_at.seconds_since(track.at);
        let predicted = track.state.predicted(dt_s, self.noise_of(track));
        let (minimum, seen_from) = self.choose(&predicted, track.at, seen)?;
        if seen_from.distance_m() > self.config.max_jump_m || seen_from.angle_rad() > self.config.max_jump_rad {
            return Err(Refusal::Jump);
        }
        let mut next = Track {
            at: seen.exposed_at,
            latency: seen.latency,
            tags: seen.tags,
            cameras: seen.cameras,
            suspect: None,
            ..*track
        };
        if self.replace_from.is_some_and(|from| seen.exposed_at >= from) {
            self.replace_from = None;
            next.state = KalmanState::from_measurement(&minimum, &self.moving);
            (next.drift, next.moving_since) = (Drift::default(), None);
            return Ok((next, minimum));
        }
        let passes = |i: &Innovation| i.squared_distance() <= self.config.max_squared_mahalanobis;
        if passes(&seen_from) {
            next.state = predicted.corrected(&minimum, &seen_from);
        } else {
            // Improbable: an outlier, or the part has begun to move. A second one that agrees decides.
            let moved = track.state.stirred(&self.moving, 0.0).predicted(dt_s, &self.moving);
            let seen_from_moved = moved.innovation(&minimum).filter(passes);
            match (track.suspect, seen_from_moved) {
                (Some((suspect, at)), Some(i)) if self.confirms(&minimum, &suspect, seen.exposed_at, at) => {
                    next.state = moved.corrected(&minimum, &i);
                    self.begin_motion(&mut next, seen.exposed_at);
                    return Ok((next, minimum));
                }
                _ => {
                    let suspect = Some((minimum, seen.exposed_at));
                    self.track = Some(Track { suspect, ..*track });
                    return Err(Refusal::Gate);
                }
            }
        }
        match track.moving_since {
            None => self.watch_for_motion(&predicted, &mut next, &minimum, &seen_from, dt_s),
            Some(since) => self.watch_for_rest(track, &mut next, &minimum, since, dt_s),
        }
        Ok((next, minimum))
    }

    /// The minimum to use and how it looks from the prediction.
    fn choose(
        &self,
        predicted: &KalmanState,
        used_at: MonotonicTime,
        seen: &Seen,
    ) -> Result<(Minimum, Innovation), Refusal> {
        let looks = |m: Minimum| predicted.innovation(&m).map(|i| (m, i));
        let best = looks(seen.best).ok_or(Refusal::Covariance)?;
        let Some(other) = seen.other.and_then(looks) else { return Ok(best) };
        let take_other = if seen.ambiguous {
            other.1.minus_two_log_likelihood() < best.1.minus_two_log_likelihood()
        } else {
            // Vision is sure, but noise can make it wrong: only where its choice is out of the question and the other
            // one fits.
            best.1.squared_distance() > self.config.max_squared_mahalanobis
                && other.1.squared_distance() <= self.config.max_squared_mahalanobis
                && !self.raw_poses_agree(seen.exposed_at, used_at)
        };
        Ok(if take_other { other } else { best })
    }

    /// Whether an improbable measurement agrees with the one before it, as far as a moving part can.
    fn confirms(&self, new: &Minimum, suspect: &Minimum, new_at: MonotonicTime, at: MonotonicTime) -> bool {
        let then = KalmanState::from_measurement(suspect, &self.moving);
        let now = then.predicted(new_at.seconds_since(at), &self.moving);
        now.innovation(new).is_some_and(|i| i.squared_distance() <= self.config.max_squared_mahalanobis)
    }

    fn begin_motion(&mut self, track: &mut Track, at: MonotonicTime) {
        if track.moving_since.is_none() {
            self.counts.motions += 1;
        }
        track.moving_since = Some(at);
        track.drift = Drift::default();
    }

    fn motion_weight(&self, dt_s: f64) -> f64 {
        1.0 - (-dt_s / self.config.motion_memory_s).exp()
    }

    /// Begins motion where the mean whitened innovation is improbable at rest.
    fn watch_for_motion(
        &mut self,
        predicted: &KalmanState,
        next: &mut Track,
        minimum: &Minimum,
        seen_from: &Innovation,
        dt_s: f64,
    ) {
        next.drift.add(seen_from, self.motion_weight(dt_s));
        if next.drift.statistic() > self.config.motion_threshold {
            // The state has lagged behind for about the memory of the mean: let it catch up at once.
            let lagging = predicted.stirred(&self.moving, self.config.motion_memory_s);
            if let Some(i) = lagging.innovation(minimum) {
                next.state = lagging.corrected(minimum, &i);
            }
            self.begin_motion(next, next.at);
        }
    }

    /// Ends motion where, judged as if the part were at rest, it is not improbable any more.
    fn watch_for_rest(&self, track: &Track, next: &mut Track, minimum: &Minimum, since: MonotonicTime, dt_s: f64) {
        if let Some(i) = track.state.predicted(dt_s, &self.rest).innovation(minimum) {
            next.drift.add(&i, self.motion_weight(dt_s));
        }
        let long_enough = next.at.seconds_since(since) >= 1.5 * self.config.motion_memory_s;
        if long_enough && next.drift.statistic() < REST_BELOW {
            (next.moving_since, next.drift) = (None, Drift::default());
        }
    }

    /// Where the part stands at `now`.
    pub fn state(&self, now: MonotonicTime) -> PartState {
        match (&self.grip, &self.track) {
            (Some(grip), _) => PartState::Held { T_tcp_part: grip.T_tcp_part },
            (None, Some(track)) => self.ages.state_at(now.since(track.at)),
            (None, None) => PartState::Lost,
        }
    }

    /// The part's pose at `now`. `T_april_tcp`: pose of the tool point on the physical board, needed while the part is held.
    ///
    /// # Errors
    /// Since when and why there is none.
    pub fn estimate(&self, now: MonotonicTime, T_april_tcp: Option<&Stamped<Pose>>) -> Result<PartEstimate, Missing> {
        let state = self.state(now);
        let lost_after = duration(self.ages.lost_after_s);
        if let Some(grip) = &self.grip {
            let (T_april_tcp, age) = grip.usable_tool_pose(now, T_april_tcp, lost_after)?;
            let covariance = grip.covariance(T_april_tcp).unwrap_or_else(Matrix6::identity);
            return Ok(PartEstimate {
                T_april_part: grip.T_april_part(T_april_tcp),
                covariance: Some(covariance),
                state,
                age,
                latency: grip.latency,
                confidence: self.confidence(&covariance, age),
                tags: grip.tags,
                cameras: grip.cameras,
            });
        }
        match &self.track {
            Some(track) if state != PartState::Lost => {
                let age = now.since(track.at);
                let predicted = track.state.predicted(age.as_secs_f64(), self.noise_of(track));
                let covariance = predicted.pose_covariance();
                Ok(PartEstimate {
                    T_april_part: predicted.T,
                    covariance: Some(covariance),
                    state,
                    age,
                    latency: track.latency,
                    confidence: self.confidence(&covariance, age),
                    tags: track.tags,
                    cameras: track.cameras,
                })
            }
            _ => Err(self.missing(now)),
        }
    }

    fn missing(&self, now: MonotonicTime) -> Missing {
        let ambiguous_lately = self
            .unresolved
            .newest_first()
            .next()
            .is_some_and(|seen| now.since(seen.exposed_at).as_secs_f64() <= self.ages.lost_after_s);
        let why = match self.last_used_at {
            _ if ambiguous_lately => Why::OnlyAmbiguous,
            None => Why::NeverSeen,
            Some(_) => Why::Lost,
        };
        Missing { since: self.last_used_at.unwrap_or(self.started_at), why }
    }

    fn confidence(&self, covariance: &Matrix6<f64>, age: Duration) -> f64 {
        let left = (1.0 - age.as_secs_f64() / self.ages.lost_after_s).clamp(0.0, 1.0);
        left * within_tolerances(covariance, self.config.confidence_distance_m, self.config.confidence_rotation_rad)
    }

    /// Distance from the tool point to the part's origin at `at`; none if it has no pose then.
    pub fn distance_to_tool_m(&self, at: MonotonicTime, T_april_tcp: &Pose) -> Option<f64> {
        let stamped = Stamped { time: at, value: *T_april_tcp };
        let part = self.estimate(at, Some(&stamped)).ok()?.T_april_part;
        Some((part.translation.vector - T_april_tcp.translation.vector).norm())
    }

    /// The gripper has closed or is told to open at `at`, with the tool point at `T_april_tcp` on the physical board.
    ///
    /// Closed on this part, it is held from now on; otherwise, and after an opening, the first measurement exposed from `at`
    /// on replaces the pose (α = 1), if it passes the gate on jumps.
    pub fn on_gripper_event(
        &mut self,
        event: GripperEvent,
        at: MonotonicTime,
        T_april_tcp: Option<&Pose>,
    ) -> GripperOutcome {
        self.replace_from = Some(at);
        match event {
            GripperEvent::Closed { width_m } if self.grip_config.follow && width_m > self.grip_config.min_width_m => {
                self.grasp(at, T_april_tcp)
            }
            GripperEvent::Closed { .. } | GripperEvent::Opening => self.release(at, T_april_tcp),
        }
    }

    fn grasp(&mut self, at: MonotonicTime, T_april_tcp: Option<&Pose>) -> GripperOutcome {
        if self.grip.is_some() {
            return GripperOutcome::Unchanged;
        }
        let (Some(T_april_tcp), Some(track)) = (T_april_tcp, self.track) else { return GripperOutcome::Unchanged };
        let near = self.distance_to_tool_m(at, T_april_tcp).is_some_and(|d| d <= self.grip_config.max_distance_m);
        let Ok(estimate) = self.estimate(at, None) else { return GripperOutcome::Unchanged };
        if !near {
            return GripperOutcome::Unchanged;
        }
        self.grip = Some(Grip::new(
            T_april_tcp,
            &estimate.T_april_part,
            estimate.covariance.as_ref(),
            track.at,
            track.latency,
            [track.tags, track.cameras],
        ));
        self.track = None;
        GripperOutcome::Grasped
    }

    /// The part stays where the fingers left it, with the uncertainty of a part that may have moved for a moment.
    fn release(&mut self, at: MonotonicTime, T_april_tcp: Option<&Pose>) -> GripperOutcome {
        let Some(grip) = self.grip.take() else { return GripperOutcome::Unchanged };
        self.raw.clear();
        if let Some(T_april_tcp) = T_april_tcp {
            let covariance = grip.covariance(T_april_tcp).unwrap_or_else(Matrix6::identity);
            let state = KalmanState::new(grip.T_april_part(T_april_tcp), &covariance, &self.moving);
            self.set_track(Track {
                state: state.stirred(&self.moving, self.config.motion_memory_s),
                at,
                latency: grip.latency,
                tags: grip.tags,
                cameras: grip.cameras,
                moving_since: None,
                drift: Drift::default(),
                suspect: None,
            });
        }
        GripperOutcome::Released
    }
}
