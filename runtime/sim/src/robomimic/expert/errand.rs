//! Taking hold of a thing and bringing it somewhere, by one arm.

use nalgebra::{Isometry3, Translation3, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::super::ARM_ACTION_DIM;
use super::hand::{Grip, Hand, Manner, arrived, pointing_down, wrapped};

/// Furthest that a hand turns about the vertical from where it starts, radians: the last joint goes no further.
pub(super) const MOST_TURN_RAD: f64 = 1.8;
/// Control steps that closing and opening the fingers is given.
const GRIP_STEPS: usize = 11;
/// A motion that takes longer is given up.
const MOST_STEPS: usize = 90;
/// A thing further than this from where it is held is lost, metres.
const LOST_M: f64 = 0.035;

/// What differs between the tasks of one arm.
pub(super) trait Errand {
    /// Pose of the thing in an observation.
    fn thing(&self, observation: &[f64]) -> Isometry3<f64>;

    /// Where on the thing it is held.
    fn handle(&self, thing: &Isometry3<f64>) -> Vector3<f64>;

    /// Angles of the fingers' axis at which the thing can be held.
    fn grip_yaws(&self, thing: &Isometry3<f64>, rng: &mut ChaCha8Rng) -> Vec<f64>;

    /// Finger distance below which nothing is between them, metres.
    fn empty_opening_m(&self) -> f64;

    /// How high above where it is held a hand comes from and goes to, metres.
    fn clearance_m(&self) -> f64;

    /// Where the thing is brought; `None` where lifting is all. `turned`: how far the hand is turned from its start.
    fn destination(&self, thing: &Isometry3<f64>, turned: f64) -> Option<Destination>;

    /// Whether the thing is where it belongs.
    fn is_placed(&self, thing: &Isometry3<f64>) -> bool;
}

/// Poses that a thing goes through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    /// Above its place.
    pub above: Isometry3<f64>,
    /// Where it is let go.
    pub release: Isometry3<f64>,
    /// How exactly it has to be above its place, metres and radians.
    pub within_m: f64,
    pub within_rad: f64,
}

/// What the arm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Approach,
    Descend,
    Close,
    Raise,
    Carry,
    Lower,
    Open,
    Retreat,
}

/// An arm on an errand.
#[derive(Debug)]
pub(super) struct PickAndPlace<E> {
    errand: E,
    hand: Hand,
    phase: Phase,
    /// Control steps in this phase.
    steps: usize,
    start_yaw: f64,
    /// Of this attempt: where the thing is gripped, off its handle (metres), and the fingers' angle.
    grip_offset_m: Vector3<f64>,
    grip_yaw: Option<f64>,
    /// How far off the straight way the approach and the carrying swing, metres.
    swing_m: Vector3<f64>,
    /// Where the hand was when a phase without a goal of its own began.
    anchor: Isometry3<f64>,
    /// Where the thing goes, decided when it has been raised.
    destination: Option<Destination>,
    /// The hand in the thing's frame, once it is held.
    held: Option<Isometry3<f64>>,
}

impl<E: Errand> PickAndPlace<E> {
    pub fn new(errand: E, manner: Manner, observation: &[f64]) -> Self {
        let grip = Grip::of(observation);
        Self {
            errand,
            hand: Hand::new(manner),
            phase: Phase::Approach,
            steps: 0,
            start_yaw: grip.yaw(),
            grip_offset_m: Vector3::zeros(),
            grip_yaw: None,
            swing_m: Vector3::zeros(),
            anchor: grip.pose,
            destination: None,
            held: None,
        }
    }

    /// The phase.
    pub fn status(&self) -> String {
        format!("{:?}", self.phase)
    }

    fn enter(&mut self, phase: Phase, grip: &Grip, rng: &mut ChaCha8Rng) {
        (self.phase, self.steps, self.anchor) = (phase, 0, grip.pose);
        self.hand.begin_motion(rng);
        if phase == Phase::Approach {
            (self.grip_yaw, self.held, self.destination) = (None, None, None);
        }
    }

    /// Decides how the thing is gripped this time.
    fn decide_grip(&mut self, thing: &Isometry3<f64>, rng: &mut ChaCha8Rng) -> f64 {
        let normal = |rng: &mut ChaCha8Rng| -> f64 { StandardNormal.sample(rng) };
        let error = self.hand.manner.grip_error_m;
        self.grip_offset_m = Vector3::new(error * normal(rng), error * normal(rng), error * normal(rng).abs());
        self.swing_m = Vector3::new(0.03 * normal(rng), 0.03 * normal(rng), 0.02 * normal(rng).abs());
        let mut yaws: Vec<f64> = self
            .errand
            .grip_yaws(thing, rng)
            .into_iter()
            .map(|yaw| self.start_yaw + wrapped(yaw - self.start_yaw))
            .filter(|yaw| (yaw - self.start_yaw).abs() <= MOST_TURN_RAD)
            .collect();
        yaws.sort_by(|a, b| (a - self.start_yaw).abs().total_cmp(&(b - self.start_yaw).abs()));
        // Mostly the nearest, now and then another.
        let choice = if yaws.len() > 1 && rng.random_bool(0.15) { 1 } else { 0 };
        yaws.get(choice).copied().unwrap_or(self.start_yaw)
    }

    /// The action for what is observed now.
    pub fn act(&mut self, observation: &[f64], rng: &mut ChaCha8Rng) -> [f64; ARM_ACTION_DIM] {
        let grip = Grip::of(observation);
        let thing = self.errand.thing(observation);
        if !self.hand.pauses() {
            self.steps += 1;
        }
        let yaw = match self.grip_yaw {
            Some(yaw) => yaw,
            None => {
                let yaw = self.decide_grip(&thing, rng);
                self.grip_yaw = Some(yaw);
                yaw
            }
        };
        let handle = self.errand.handle(&thing) + self.grip_offset_m;
        let at = |position: Vector3<f64>| Isometry3::from_parts(Translation3::from(position), pointing_down(yaw));
        let up = Vector3::new(0.0, 0.0, self.errand.clearance_m());
        let late = self.steps > MOST_STEPS;
        match self.phase {
            Phase::Approach => {
                // The swing fades as the hand comes near.
                let far = ((handle + up - grip.pose.translation.vector).xy().norm() / 0.1).min(1.0);
                let goal = at(handle + up + self.swing_m * far);
                if arrived(&grip, &goal, 0.015, 0.12) || late {
                    self.enter(Phase::Descend, &grip, rng);
                }
                self.hand.lead(&grip, &goal, 1.0, false, rng)
            }
            Phase::Descend => {
                let goal = at(handle);
                if arrived(&grip, &goal, 0.008, 0.12) {
                    self.enter(Phase::Close, &grip, rng);
                } else if late {
                    self.enter(Phase::Approach, &grip, rng);
                }
                self.hand.lead(&grip, &goal, 0.75, false, rng)
            }
            Phase::Close => {
                if self.steps > GRIP_STEPS {
                    self.held = Some(thing.inv_mul(&grip.pose));
                    self.enter(Phase::Raise, &grip, rng);
                }
                self.hand.lead(&grip, &self.anchor, 0.3, true, rng)
            }
            Phase::Raise => {
                let mut goal = self.anchor;
                goal.translation.vector += up;
                goal.rotation = pointing_down(yaw);
                if self.is_lost(&grip, &thing) || late {
                    self.enter(Phase::Approach, &grip, rng);
                } else if arrived(&grip, &goal, 0.02, 0.2) {
                    self.destination = self.errand.destination(&thing, wrapped(grip.yaw() - self.start_yaw));
                    if self.destination.is_some() {
                        self.held = Some(thing.inv_mul(&grip.pose));
                        self.enter(Phase::Carry, &grip, rng);
                    }
                }
                self.hand.lead(&grip, &goal, 0.8, true, rng)
            }
            Phase::Carry | Phase::Lower => self.bring(&grip, &thing, rng),
            Phase::Open => {
                if self.steps > GRIP_STEPS / 2 {
                    self.enter(Phase::Retreat, &grip, rng);
                }
                self.hand.lead(&grip, &self.anchor, 0.3, false, rng)
            }
            Phase::Retreat => {
                let mut goal = self.anchor;
                goal.translation.vector += 1.2 * up;
                let away = arrived(&grip, &goal, 0.03, 0.5) || late;
                if away && !self.errand.is_placed(&thing) {
                    self.enter(Phase::Approach, &grip, rng);
                }
                self.hand.lead(&grip, &goal, 0.8, false, rng)
            }
        }
    }

    /// Carries the thing to above its place, then lowers it; the hand goes where the thing needs it to be.
    fn bring(&mut self, grip: &Grip, thing: &Isometry3<f64>, rng: &mut ChaCha8Rng) -> [f64; ARM_ACTION_DIM] {
        let (Some(destination), Some(held)) = (self.destination, self.held) else {
            self.enter(Phase::Approach, grip, rng);
            return self.hand.lead(grip, &grip.pose, 0.0, false, rng);
        };
        if self.is_lost(grip, thing) || self.steps > 2 * MOST_STEPS {
            self.enter(Phase::Approach, grip, rng);
            return self.hand.lead(grip, &grip.pose, 0.0, false, rng);
        }
        // What is in the fingers gives a little, so the thing itself is led and not the grip of before.
        let now = thing.inv_mul(&grip.pose);
        let as_held = Isometry3::from_parts(now.translation, now.rotation.slerp(&held.rotation, 0.5));
        if self.phase == Phase::Carry {
            let way = (destination.above.translation.vector - thing.translation.vector).xy().norm();
            let mut goal = destination.above * as_held;
            goal.translation.vector += self.swing_m * (way / 0.15).min(1.0);
            let exact = arrived(
                &Grip { pose: *thing, opening_m: 0.0 },
                &destination.above,
                destination.within_m,
                destination.within_rad,
            );
            if exact {
                self.enter(Phase::Lower, grip, rng);
            }
            return self.hand.lead(grip, &goal, 1.0, true, rng);
        }
        // Still above its place and off it: once more, before it is jammed.
        let off = (destination.release.translation.vector - thing.translation.vector).xy().norm();
        let middle = 0.5 * (destination.above.translation.z + destination.release.translation.z) + 0.01;
        if off > 1.6 * destination.within_m && thing.translation.z > middle {
            self.enter(Phase::Carry, grip, rng);
        }
        let goal = destination.release * as_held;
        let low = thing.translation.z < destination.release.translation.z + 0.008;
        if low || self.steps > MOST_STEPS / 2 {
            self.enter(Phase::Open, grip, rng);
        }
        self.hand.lead(grip, &goal, 0.5, true, rng)
    }

    /// Whether the thing is no longer between the fingers.
    fn is_lost(&self, grip: &Grip, thing: &Isometry3<f64>) -> bool {
        let moved = self.held.is_some_and(|held| {
            (thing.inv_mul(&grip.pose).translation.vector - held.translation.vector).norm() > LOST_M
        });
        moved || grip.opening_m < self.errand.empty_opening_m()
    }
}
