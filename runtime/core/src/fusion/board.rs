//! All parts of a task, and the block of the observation that shows them to the policy (spec robot_control.md §3.2).

use std::time::Duration;

use nalgebra::{Quaternion, Translation3, UnitQuaternion, Vector3};
use thiserror::Error;

use super::config::{BoardCorrection, FusionConfig, FusionMode};
use super::furniture::{
    FRONT_BAR, FRONT_BAR_POSITION_M, FRONT_BAR_QUAT_XYZW, Furniture, MAX_PARTS, PART_NUMBERS, T_robot_april_training,
};
use super::held::{GripperEvent, GripperOutcome};
use super::majority::MAX_CAMERAS;
use super::measurement::{
    CameraPose, FusionCounts, Missing, Outcome, PartEstimate, PartMeasurement, PartState, Refusal, Why, duration,
    is_finite,
};
use super::part_filter::PartFilter;
use super::quaternion::QuaternionSign;
use super::reference::ReferencePart;
use super::symmetry::{Branch, Symmetry};
use crate::geometry::Pose;
use crate::time::{MonotonicTime, Stamped};

/// A part whose origin is further than this from the tool point is not touched by fingers that close or open: half the
/// diagonal of a table top and the length of a leg.
const REACH_M: f64 = 0.2;

/// Why a board cannot be made from a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BoardError {
    #[error("fusion.{table}: {furniture:?} has no part `{part}` (its parts are {known})")]
    UnknownPart { table: &'static str, part: String, furniture: Furniture, known: String },
    #[error("fusion.{table}: `{part}` is listed twice")]
    ListedTwice { table: &'static str, part: String },
    #[error("fusion.symmetry: `{part}` has no symmetry: remove the entry")]
    NoSymmetry { part: String },
    #[error("the pose of the board in the robot's base is not finite: calibrate it")]
    BoardPose,
}

/// A part that the policy needs has no pose: hold the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{part} is not ready: {why}")]
pub struct NotReady {
    pub part: &'static str,
    /// Exposure of the last measurement used; of a part never seen the start of the watch.
    pub since: MonotonicTime,
    pub why: Why,
}

/// What a written block is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartsBlock {
    /// Largest age of a part that is tracked; zero if all are frozen.
    pub oldest_age: Duration,
    /// Smallest confidence of a part that is tracked; one if all are frozen.
    pub least_confidence: f64,
}

#[derive(Debug)]
enum Source {
    /// The seven numbers as they are written.
    Frozen([f32; PART_NUMBERS]),
    Filter(Box<PartFilter>),
    Reference(Box<ReferencePart>),
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    source: Source,
    /// Added to measured z in the april frame.
    height_m: f64,
    /// Reference and margin of the branch of a symmetric part.
    symmetry: Option<(UnitQuaternion<f64>, f64)>,
    written: Written,
}

/// What was chosen when the part was last written.
#[derive(Debug, Clone, Copy)]
struct Written {
    branch: Option<Branch>,
    sign: QuaternionSign,
}

/// The parts of one furniture. Measurements come in april coordinates of the *physical* board, poses of the tool point in
/// the robot's base; the block goes out in the april frame of the *training* layout.
#[derive(Debug)]
pub struct PartBoard {
    furniture: Furniture,
    parts: Vec<Entry>,
    max_age: Duration,
    min_grip_width_m: f64,
    max_grip_distance_m: f64,
    follow: bool,
    T_board_robot: Pose,
    /// From physical april coordinates to those of training.
    T_train_board: Pose,
}

impl PartBoard {
    /// `T_robot_board`: pose of the physical board in the robot's base, from calibration. `cameras`: how many there are.
    /// `started_at`: since when a part never seen counts as missing.
    ///
    /// The correction is `inv(T_robot_april_train) · T_robot_board` (spec perception.md §1), the identity for a board
    /// placed as in training.
    pub fn new(
        furniture: Furniture,
        config: &FusionConfig,
        T_robot_board: &Pose,
        cameras: usize,
        started_at: MonotonicTime,
    ) -> Result<Self, BoardError> {
        if !is_finite(T_robot_board) {
            return Err(BoardError::BoardPose);
        }
        let frozen = config.frozen.iter().map(|f| f.part.as_str());
        let symmetric = config.symmetry.iter().map(|s| s.part.as_str());
        let heights = config.heights.iter().map(|h| h.part.as_str());
        check_names("frozen", furniture, frozen)?;
        check_names("symmetry", furniture, symmetric)?;
        check_names("heights", furniture, heights)?;
        let mut parts = Vec::with_capacity(MAX_PARTS);
        for (index, &name) in furniture.part_names().iter().enumerate() {
            let frozen = config.frozen.iter().find(|f| f.part == name);
            let source = match (frozen, &config.filter) {
                (Some(frozen), _) => Source::Frozen(numbers(frozen.position_m.into(), unit(frozen.quat_xyzw))),
                (None, _) if name == FRONT_BAR => {
                    Source::Frozen(numbers(FRONT_BAR_POSITION_M.into(), FRONT_BAR_QUAT_XYZW))
                }
                (None, filter) => source_of(filter, config, cameras, started_at),
            };
            let symmetry = match config.symmetry.iter().find(|s| s.part == name) {
                Some(_) if furniture.symmetry(index) == Symmetry::None => {
                    return Err(BoardError::NoSymmetry { part: name.to_owned() });
                }
                reference => reference.map(|s| {
                    let [x, y, z, w] = s.quat_xyzw;
                    (UnitQuaternion::from_quaternion(Quaternion::new(w, x, y, z)), s.margin_rad)
                }),
            };
            let height_m = config.heights.iter().find(|h| h.part == name).map_or(0.0, |h| h.april_z_m);
            let written = Written { branch: None, sign: QuaternionSign::new(config.quaternion_sign) };
            parts.push(Entry { name, source, height_m, symmetry, written });
        }
        let T_train_board = match config.board {
            BoardCorrection::RawApril => Pose::identity(),
            BoardCorrection::Recalibrated => T_robot_april_training().inverse() * T_robot_board,
        };
        Ok(Self {
            furniture,
            parts,
            max_age: duration(config.max_age_s),
            min_grip_width_m: config.grip.min_width_m,
            max_grip_distance_m: config.grip.max_distance_m,
            follow: config.grip.follow,
            T_board_robot: T_robot_board.inverse(),
            T_train_board,
        })
    }

    pub fn furniture(&self) -> Furniture {
        self.furniture
    }

    /// Length of the block.
    pub fn dim(&self) -> usize {
        self.parts.len() * PART_NUMBERS
    }

    /// What became of the measurements of a part; none of a frozen part.
    pub fn counts(&self, part: usize) -> Option<&FusionCounts> {
        match &self.parts.get(part)?.source {
            Source::Frozen(_) => None,
            Source::Filter(filter) => Some(filter.counts()),
            Source::Reference(reference) => Some(reference.counts()),
        }
    }

    /// Takes in a measurement of the part with this index (modes `part_filter` and `moving_average`).
    pub fn update(&mut self, part: usize, measurement: &PartMeasurement, now: MonotonicTime) -> Outcome {
        let Some(entry) = self.parts.get_mut(part) else { return Outcome::Refused(Refusal::NotTracked) };
        let mut m = *measurement;
        m.T_april_part.translation.z += entry.height_m;
        if let Some((T, _)) = &mut m.other {
            T.translation.z += entry.height_m;
        }
        match &mut entry.source {
            Source::Frozen(_) => Outcome::Refused(Refusal::NotTracked),
            Source::Filter(filter) => filter.update(&m, now),
            Source::Reference(reference) => reference.update(&m, now),
        }
    }

    /// Takes in what each camera sees of the part with this index (modes `majority` and `gate_with_moving_average`; of the
    /// latter the gate itself stands before, where tags are single).
    ///
    /// `seen`: at most 8 cameras. `exposed_at`: the oldest exposure among them.
    pub fn update_cameras(
        &mut self,
        part: usize,
        seen: &[CameraPose],
        exposed_at: MonotonicTime,
        now: MonotonicTime,
    ) -> Outcome {
        let mut corrected = [CameraPose { camera: 0, T_april_part: Pose::identity(), tags: 0 }; MAX_CAMERAS];
        let Some(entry) = self.parts.get_mut(part) else { return Outcome::Refused(Refusal::NotTracked) };
        if seen.len() > corrected.len() {
            return Outcome::Refused(Refusal::UnknownCamera);
        }
        for (out, s) in corrected.iter_mut().zip(seen) {
            *out = *s;
            out.T_april_part.translation.z += entry.height_m;
        }
        match &mut entry.source {
            Source::Reference(reference) => reference.update_cameras(&corrected[..seen.len()], exposed_at, now),
            Source::Frozen(_) => Outcome::Refused(Refusal::NotTracked),
            Source::Filter(_) => Outcome::Refused(Refusal::WrongInput),
        }
    }

    /// The gripper has closed or is told to open at `at`, with the tool point at `T_robot_tcp`.
    ///
    /// Of several parts near closed fingers the one whose origin is nearest to the tool point is taken to be held. Parts out
    /// of reach (0.2 m) go on being smoothed: nothing has touched them. Returns the index of the part that was grasped or
    /// released.
    pub fn on_gripper_event(
        &mut self,
        event: GripperEvent,
        at: MonotonicTime,
        T_robot_tcp: Option<&Pose>,
    ) -> Option<usize> {
        let T_april_tcp = T_robot_tcp.filter(|T| is_finite(T)).map(|T| self.T_board_robot * T);
        let held = self.parts.iter().position(|e| e.is_held(at));
        let closes_on_something =
            self.follow && matches!(event, GripperEvent::Closed { width_m } if width_m > self.min_grip_width_m);
        let concerned = match (held, &T_april_tcp) {
            (Some(held), _) => Some(held),
            (None, Some(T)) if closes_on_something => self.nearest(at, T),
            _ => None,
        };
        let mut changed = None;
        for (index, entry) in self.parts.iter_mut().enumerate() {
            let distance_m = T_april_tcp.as_ref().and_then(|T| entry.distance_to_tool_m(at, T));
            if concerned != Some(index) && distance_m.is_some_and(|d| d > REACH_M) {
                continue;
            }
            // To the other parts the fingers closed on nothing of theirs.
            let event = match event {
                GripperEvent::Closed { .. } if concerned != Some(index) => GripperEvent::Closed { width_m: 0.0 },
                event => event,
            };
            let outcome = match &mut entry.source {
                Source::Frozen(_) => GripperOutcome::Unchanged,
                Source::Filter(filter) => filter.on_gripper_event(event, at, T_april_tcp.as_ref()),
                Source::Reference(reference) => reference.on_gripper_event(event, at, T_april_tcp.as_ref()),
            };
            if outcome != GripperOutcome::Unchanged {
                changed = Some(index);
            }
        }
        changed
    }

    fn nearest(&self, at: MonotonicTime, T_april_tcp: &Pose) -> Option<usize> {
        let mut nearest = None;
        for (index, entry) in self.parts.iter().enumerate() {
            let distance_m = entry.distance_to_tool_m(at, T_april_tcp);
            let Some(distance_m) = distance_m.filter(|d| *d <= self.max_grip_distance_m) else { continue };
            if nearest.is_none_or(|(_, least)| distance_m < least) {
                nearest = Some((index, distance_m));
            }
        }
        nearest.map(|(index, _)| index)
    }

    /// Pose of a part on the physical board; `Ok(None)` for a frozen part or an index beyond the parts.
    pub fn estimate(
        &self,
        part: usize,
        now: MonotonicTime,
        T_robot_tcp: Option<&Stamped<Pose>>,
    ) -> Result<Option<PartEstimate>, NotReady> {
        let Some(entry) = self.parts.get(part) else { return Ok(None) };
        let T_april_tcp = self.tool_on_board(T_robot_tcp);
        entry.estimate(now, T_april_tcp.as_ref(), self.max_age)
    }

    /// What is added to the measured height of a part, along april z; the pose of [`Self::estimate`] contains it. Zero for an
    /// index beyond the parts.
    pub fn height_m(&self, part: usize) -> f64 {
        self.parts.get(part).map_or(0.0, |entry| entry.height_m)
    }

    fn tool_on_board(&self, T_robot_tcp: Option<&Stamped<Pose>>) -> Option<Stamped<Pose>> {
        T_robot_tcp
            .filter(|s| is_finite(&s.value))
            .map(|s| Stamped { time: s.time, value: self.T_board_robot * s.value })
    }

    /// Writes `[part0(7), part1(7), …, bar(7)]`: position in m and quaternion x, y, z, w, april frame of the training layout.
    ///
    /// All parts or nothing: on an error `out` is as it was. Every number written is finite.
    ///
    /// `T_robot_tcp`: pose of the tool point in the robot's base, needed while a part is held. `out`: [`Self::dim`] values.
    ///
    /// # Errors
    /// The first part that has no pose, or one older than `max_age_s`.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn write(
        &mut self,
        now: MonotonicTime,
        T_robot_tcp: Option<&Stamped<Pose>>,
        out: &mut [f32],
    ) -> Result<PartsBlock, NotReady> {
        assert_eq!(out.len(), self.dim(), "the block of {:?} has {} values", self.furniture, self.dim());
        let T_april_tcp = self.tool_on_board(T_robot_tcp);
        let mut block = PartsBlock { oldest_age: Duration::ZERO, least_confidence: 1.0 };
        let mut rows = [([0.0f32; PART_NUMBERS], None); MAX_PARTS];
        for (entry, row) in self.parts.iter().zip(&mut rows) {
            if let Source::Frozen(numbers) = &entry.source {
                row.0 = *numbers;
            } else if let Some(estimate) = entry.estimate(now, T_april_tcp.as_ref(), self.max_age)? {
                let (numbers, written) = entry.row(&(self.T_train_board * estimate.T_april_part));
                if !numbers.iter().all(|v| v.is_finite()) {
                    return Err(NotReady { part: entry.name, since: now, why: Why::NotFinite });
                }
                *row = (numbers, Some(written));
                block.oldest_age = block.oldest_age.max(estimate.age);
                block.least_confidence = block.least_confidence.min(estimate.confidence);
            }
        }
        for ((entry, (numbers, written)), out) in
            self.parts.iter_mut().zip(&rows).zip(out.chunks_exact_mut(PART_NUMBERS))
        {
            out.copy_from_slice(numbers);
            entry.written = written.unwrap_or(entry.written);
        }
        Ok(block)
    }
}

impl Entry {
    fn distance_to_tool_m(&self, at: MonotonicTime, T_april_tcp: &Pose) -> Option<f64> {
        match &self.source {
            Source::Frozen(_) => None,
            Source::Filter(filter) => filter.distance_to_tool_m(at, T_april_tcp),
            Source::Reference(reference) => reference.distance_to_tool_m(at, T_april_tcp),
        }
    }

    fn is_held(&self, now: MonotonicTime) -> bool {
        let state = match &self.source {
            Source::Frozen(_) => return false,
            Source::Filter(filter) => filter.state(now),
            Source::Reference(reference) => reference.state(now),
        };
        matches!(state, PartState::Held { .. })
    }

    fn estimate(
        &self,
        now: MonotonicTime,
        T_april_tcp: Option<&Stamped<Pose>>,
        max_age: Duration,
    ) -> Result<Option<PartEstimate>, NotReady> {
        let estimate = match &self.source {
            Source::Frozen(_) => return Ok(None),
            Source::Filter(filter) => filter.estimate(now, T_april_tcp),
            Source::Reference(reference) => reference.estimate(now, T_april_tcp),
        };
        let not_ready = |Missing { since, why }| NotReady { part: self.name, since, why };
        let estimate = estimate.map_err(not_ready)?;
        if estimate.age > max_age {
            let age_ns = i64::try_from(estimate.age.as_nanos()).unwrap_or(i64::MAX);
            let since = MonotonicTime::from_nanos(now.as_nanos().saturating_sub(age_ns));
            return Err(not_ready(Missing { since, why: Why::TooOld }));
        }
        Ok(Some(estimate))
    }

    fn row(&self, T_train_part: &Pose) -> ([f32; PART_NUMBERS], Written) {
        let branch = self.symmetry.map(|(reference, margin_rad)| {
            Branch::nearest(&T_train_part.rotation, &reference, self.written.branch, margin_rad)
        });
        let rotation = branch.map_or(T_train_part.rotation, |branch| branch.of(&T_train_part.rotation));
        let (quat, sign) = self.written.sign.next(&rotation);
        (numbers(T_train_part.translation.vector, quat), Written { branch, sign })
    }
}

fn source_of(filter: &FusionMode, config: &FusionConfig, cameras: usize, started_at: MonotonicTime) -> Source {
    let (ages, grip) = (config.ages, config.grip);
    match filter {
        FusionMode::PartFilter(c) => Source::Filter(Box::new(PartFilter::new(*c, ages, grip, started_at))),
        FusionMode::MovingAverage(c) => {
            Source::Reference(Box::new(ReferencePart::moving_average(*c, ages, grip, started_at)))
        }
        FusionMode::Majority(c) => {
            Source::Reference(Box::new(ReferencePart::majority(*c, cameras, ages, grip, started_at)))
        }
        FusionMode::GateWithMovingAverage(c) => {
            Source::Reference(Box::new(ReferencePart::majority(c.majority, cameras, ages, grip, started_at)))
        }
    }
}

fn check_names<'a>(
    table: &'static str,
    furniture: Furniture,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), BoardError> {
    for name in names.clone() {
        if furniture.index_of(name).is_none() {
            let known = furniture.part_names().join(", ");
            return Err(BoardError::UnknownPart { table, part: name.to_owned(), furniture, known });
        }
        if names.clone().filter(|other| *other == name).count() > 1 {
            return Err(BoardError::ListedTwice { table, part: name.to_owned() });
        }
    }
    Ok(())
}

/// Scaled to length one, sign kept.
fn unit(quat_xyzw: [f64; 4]) -> [f64; 4] {
    let length = quat_xyzw.iter().map(|v| v * v).sum::<f64>().sqrt();
    quat_xyzw.map(|v| v / length)
}

fn numbers(position_m: Vector3<f64>, quat_xyzw: [f64; 4]) -> [f32; PART_NUMBERS] {
    let p = Translation3::from(position_m);
    let [x, y, z, w] = quat_xyzw;
    [p.x, p.y, p.z, x, y, z, w].map(|v| v as f32)
}
