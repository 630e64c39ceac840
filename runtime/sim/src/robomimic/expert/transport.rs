//! Transport: one arm takes the lid off and fetches the hammer, the other clears the target bin meanwhile; they meet above
//! the gap between their tables, the second takes the hammer over and lets it down into the bin.
//!
//! Both hands point almost straight down where they meet, side by side along the handle, for the hammer's handle is about
//! as long as two hands are thick.

use nalgebra::{Isometry3, Point3, Translation3, UnitQuaternion, Vector3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::super::ARM_ACTION_DIM;
use super::hand::{Grip, Hand, Manner, arrived, pointing, pointing_down, pose_of, wrapped, yaw_of};

/// Control steps that closing and opening the fingers is given.
const GRIP_STEPS: usize = 12;
/// A motion that takes longer is begun anew, or given up.
const MOST_STEPS: usize = 110;
/// Which way the arms' tables lie from the gap: arm 0 reaches towards +y, arm 1 towards −y.
const FORWARD: [f64; 2] = [1.0, -1.0];

/// What is seen.
struct Seen {
    grips: [Grip; 2],
    hammer: Isometry3<f64>,
    trash: Isometry3<f64>,
    handle: Isometry3<f64>,
    target_bin: Vector3<f64>,
    trash_bin: Vector3<f64>,
    hammer_is_in: bool,
    trash_is_in: bool,
}

impl Seen {
    fn of(observation: &[f64]) -> Self {
        let position = |at: usize| Vector3::from_column_slice(&observation[at..at + 3]);
        Self {
            grips: [Grip::of(&observation[..9]), Grip::of(&observation[9..18])],
            hammer: pose_of(&observation[18..25]),
            trash: pose_of(&observation[25..32]),
            handle: pose_of(&observation[32..39]),
            target_bin: position(39),
            trash_bin: position(42),
            hammer_is_in: observation[57] > 0.5,
            trash_is_in: observation[58] > 0.5,
        }
    }

    /// Direction of the hammer's handle, towards its head.
    fn along(&self) -> Vector3<f64> {
        self.hammer.rotation * Vector3::z()
    }
}

/// What an arm is about, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    // Arm 0.
    LidApproach,
    LidDescend,
    LidClose,
    LidRaise,
    LidAside,
    LidLower,
    LidOpen,
    LidLeave,
    HammerApproach,
    HammerDescend,
    HammerClose,
    HammerRaise,
    Offer,
    LetGo,
    Withdraw,
    // Arm 1.
    TrashApproach,
    TrashDescend,
    TrashClose,
    TrashRaise,
    TrashCarry,
    TrashLower,
    TrashOpen,
    TrashLeave,
    Ready,
    TakeApproach,
    TakeDescend,
    TakeClose,
    Taken,
    Bring,
    Lower,
    Open,
    Leave,
}

/// What a phase wants.
struct Order {
    goal: Isometry3<f64>,
    within_m: f64,
    within_rad: f64,
    haste: f64,
    closed: bool,
    next: Phase,
    /// Steps that have to pass whatever is reached.
    least_steps: usize,
    /// Whether the next phase may begin, as far as others have a say in it.
    may_go_on: bool,
    /// Where to begin anew when something has gone wrong.
    again: Option<Phase>,
}

#[derive(Debug)]
struct Side {
    index: usize,
    hand: Hand,
    phase: Phase,
    steps: usize,
    start_yaw: f64,
    anchor: Isometry3<f64>,
    /// The hand's yaw of this attempt.
    yaw: f64,
    /// Off where things are gripped, metres.
    offset_m: Vector3<f64>,
}

/// Both arms.
#[derive(Debug)]
pub(super) struct Transport {
    sides: [Side; 2],
    /// Where the lid is put down, in x and y, metres.
    lid_place_m: [f64; 2],
    /// Where the hammer is handed over, metres, and how much the hands lean towards it, radians.
    meeting_m: Vector3<f64>,
    lean_rad: f64,
    /// Distance of each grip from the middle of the handle, metres.
    apart_m: f64,
    travel_height_m: f64,
    /// Where things fall in their bins, off the middle, metres.
    drop_off_m: [f64; 2],
}

impl Transport {
    pub fn new(manner: Manner, observation: &[f64], rng: &mut ChaCha8Rng) -> Self {
        let seen = Seen::of(observation);
        // The way is long for 800 steps: nobody dawdles here.
        let manner = Manner { speed: 0.65 + 0.35 * manner.speed, pause_chance: 0.6 * manner.pause_chance, ..manner };
        // Two hands of one person are alike, but not the same.
        let other = Manner { speed: (manner.speed * rng.random_range(0.85..1.15)).min(1.0), ..manner };
        let side = |index: usize, manner, phase| Side {
            index,
            hand: Hand::new(manner),
            phase,
            steps: 0,
            start_yaw: seen.grips[index].yaw(),
            anchor: seen.grips[index].pose,
            yaw: seen.grips[index].yaw(),
            offset_m: Vector3::zeros(),
        };
        let mut sides = [side(0, manner, Phase::LidApproach), side(1, other, Phase::TrashApproach)];
        for side in &mut sides {
            side.enter(side.phase, &seen, rng);
        }
        Self {
            sides,
            lid_place_m: [rng.random_range(-0.22..-0.14), rng.random_range(-0.48..-0.42)],
            meeting_m: Vector3::new(rng.random_range(-0.06..0.06), 0.0, rng.random_range(1.04..1.1)),
            lean_rad: rng.random_range(0.12..0.22),
            apart_m: rng.random_range(0.05..0.06),
            travel_height_m: rng.random_range(1.06..1.12),
            drop_off_m: std::array::from_fn(|_| rng.random_range(-0.02..0.02)),
        }
    }

    /// The phases of both arms.
    pub fn status(&self) -> String {
        format!("{:?}, {:?}", self.sides[0].phase, self.sides[1].phase)
    }

    pub fn act(&mut self, observation: &[f64], rng: &mut ChaCha8Rng, action: &mut [f64]) {
        let seen = Seen::of(observation);
        for (index, action) in action.chunks_exact_mut(ARM_ACTION_DIM).enumerate() {
            let order = self.order(index, &seen);
            let others = self.sides[1 - index].phase;
            let side = &mut self.sides[index];
            let grip = &seen.grips[index];
            if !side.hand.pauses() {
                side.steps += 1;
            }
            let reached = arrived(grip, &order.goal, order.within_m, order.within_rad);
            let late = side.steps > MOST_STEPS && order.least_steps == 0;
            let waits = !order.may_go_on;
            action.copy_from_slice(&side.hand.lead(grip, &order.goal, order.haste, order.closed, rng));
            if let Some(again) = order.again {
                side.enter(again, &seen, rng);
            } else if side.steps >= order.least_steps && !waits && (reached || late || order.least_steps > 0) {
                side.enter(order.next, &seen, rng);
            } else if side.phase == Phase::Offer && others == Phase::Taken {
                side.enter(Phase::LetGo, &seen, rng);
            }
        }
    }

    /// The hand that arm `index` gives or takes the hammer with.
    fn meeting_rotation(&self, index: usize, yaw: f64) -> UnitQuaternion<f64> {
        let (sin, cos) = self.lean_rad.sin_cos();
        let fingers = Vector3::new(if yaw.cos() < 0.0 { -1.0 } else { 1.0 }, 0.0, 0.0);
        pointing(Vector3::new(0.0, FORWARD[index] * sin, -cos), fingers)
    }

    /// Where arm `index` holds the hammer: each the end that is nearer to it.
    fn hammer_grip(&self, index: usize, seen: &Seen) -> Vector3<f64> {
        let towards = if seen.along().y >= 0.0 { 1.0 } else { -1.0 };
        (seen.hammer * Point3::new(0.0, 0.0, -FORWARD[index] * towards * self.apart_m)).coords
    }

    fn order(&self, index: usize, seen: &Seen) -> Order {
        let side = &self.sides[index];
        let other = self.sides[1 - index].phase;
        let grip = &seen.grips[index];
        let down = pointing_down(side.yaw);
        let at = |position: Vector3<f64>, rotation| Isometry3::from_parts(Translation3::from(position), rotation);
        let up = |metres: f64| Vector3::new(0.0, 0.0, metres);
        let to = |goal, next| Order {
            goal,
            within_m: 0.02,
            within_rad: 0.15,
            haste: 1.0,
            closed: false,
            next,
            least_steps: 0,
            may_go_on: true,
            again: None,
        };
        let hold = |closed, next| Order { closed, haste: 0.3, least_steps: GRIP_STEPS, ..to(side.anchor, next) };
        // Above something that is carried, its place is reached by the thing and not by the hand.
        let carried = |thing: &Isometry3<f64>, place: Vector3<f64>| {
            let offset = grip.pose.translation.vector - thing.translation.vector;
            place + offset
        };
        let empty = grip.opening_m < 0.008;
        let travel = self.travel_height_m;
        let [off_x, off_y] = self.drop_off_m;
        let lid = seen.handle.translation.vector + side.offset_m;
        let hammer = self.hammer_grip(index, seen) + side.offset_m;
        let trash = seen.trash.translation.vector + side.offset_m;
        match side.phase {
            Phase::LidApproach => to(at(lid + up(0.08), down), Phase::LidDescend),
            Phase::LidDescend => Order { within_m: 0.009, haste: 0.6, ..to(at(lid, down), Phase::LidClose) },
            Phase::LidClose => hold(true, Phase::LidRaise),
            Phase::LidRaise => {
                let goal = at(Vector3::new(side.anchor.translation.x, side.anchor.translation.y, travel), down);
                let again = empty.then_some(Phase::LidApproach);
                Order { closed: true, haste: 0.8, again, ..to(goal, Phase::LidAside) }
            }
            Phase::LidAside => {
                let [x, y] = self.lid_place_m;
                let again = empty.then_some(Phase::LidApproach);
                Order { closed: true, again, ..to(at(Vector3::new(x, y, travel), down), Phase::LidLower) }
            }
            Phase::LidLower => {
                let [x, y] = self.lid_place_m;
                let goal = at(Vector3::new(x, y, 0.83), down);
                Order { closed: true, haste: 0.6, within_m: 0.03, ..to(goal, Phase::LidOpen) }
            }
            Phase::LidOpen => hold(false, Phase::LidLeave),
            Phase::LidLeave => to(at(side.anchor.translation.vector + up(0.15), down), Phase::HammerApproach),
            Phase::HammerApproach => {
                let goal = at(Vector3::new(hammer.x, hammer.y, 1.02), down);
                Order { within_m: 0.012, ..to(goal, Phase::HammerDescend) }
            }
            Phase::HammerDescend => Order {
                within_m: 0.009,
                haste: 0.6,
                again: (side.steps > MOST_STEPS).then_some(Phase::HammerApproach),
                ..to(at(hammer, down), Phase::HammerClose)
            },
            Phase::HammerClose => hold(true, Phase::HammerRaise),
            Phase::HammerRaise => {
                let goal = at(Vector3::new(side.anchor.translation.x, side.anchor.translation.y, travel), down);
                let again = empty.then_some(Phase::HammerApproach);
                Order { closed: true, haste: 0.8, again, ..to(goal, Phase::Offer) }
            }
            Phase::Offer => {
                let position = self.meeting_m + Vector3::new(0.0, -self.apart_m, 0.0);
                let goal = at(position, self.meeting_rotation(index, side.yaw));
                let again = (empty && other != Phase::Taken).then_some(Phase::HammerApproach);
                Order { closed: true, may_go_on: other == Phase::Taken, again, ..to(goal, Phase::LetGo) }
            }
            Phase::LetGo => hold(false, Phase::Withdraw),
            Phase::Withdraw => {
                // Straight up before anything else.
                let height = side.anchor.translation.z + 0.1;
                let goal = at(Vector3::new(0.1, -0.35, height), pointing_down(side.start_yaw));
                let high = grip.pose.translation.z > side.anchor.translation.z + 0.06;
                let straight = at(side.anchor.translation.vector + up(0.1), side.anchor.rotation);
                let lost = other == Phase::Ready && seen.hammer.translation.z < 0.87 && !seen.hammer_is_in;
                let again = (lost && seen.hammer.translation.y < -0.1).then_some(Phase::HammerApproach);
                Order { may_go_on: false, again, ..to(if high { goal } else { straight }, Phase::Withdraw) }
            }
            Phase::TrashApproach => {
                let goal = at(Vector3::new(trash.x, trash.y, 1.02), down);
                Order { within_m: 0.012, ..to(goal, Phase::TrashDescend) }
            }
            Phase::TrashDescend => Order {
                within_m: 0.008,
                haste: 0.6,
                again: (side.steps > MOST_STEPS).then_some(Phase::TrashApproach),
                ..to(at(trash + up(0.004), down), Phase::TrashClose)
            },
            Phase::TrashClose => hold(true, Phase::TrashRaise),
            Phase::TrashRaise => {
                let goal = at(Vector3::new(side.anchor.translation.x, side.anchor.translation.y, travel), down);
                let again = (grip.opening_m < 0.03).then_some(Phase::TrashApproach);
                Order { closed: true, haste: 0.8, again, ..to(goal, Phase::TrashCarry) }
            }
            Phase::TrashCarry => {
                let place = Vector3::new(seen.trash_bin.x + off_x, seen.trash_bin.y + off_y, travel - 0.02);
                let again = (grip.opening_m < 0.03).then_some(Phase::TrashApproach);
                Order { closed: true, again, ..to(at(carried(&seen.trash, place), down), Phase::TrashLower) }
            }
            Phase::TrashLower => {
                let place = Vector3::new(seen.trash_bin.x + off_x, seen.trash_bin.y + off_y, seen.trash_bin.z + 0.09);
                let goal = at(carried(&seen.trash, place), down);
                Order { closed: true, haste: 0.6, within_m: 0.025, ..to(goal, Phase::TrashOpen) }
            }
            Phase::TrashOpen => hold(false, Phase::TrashLeave),
            Phase::TrashLeave => to(at(side.anchor.translation.vector + up(0.14), down), Phase::Ready),
            Phase::Ready => {
                let goal = at(Vector3::new(self.meeting_m.x, 0.28, 1.16), pointing_down(side.yaw));
                let missed = !seen.trash_is_in && side.steps > 10 && seen.trash.translation.z > 0.79;
                let again = missed.then_some(Phase::TrashApproach);
                // The hammer is offered: its holder stands still where they meet.
                let meeting = self.meeting_m - seen.grips[0].pose.translation.vector;
                let offered = other == Phase::Offer && meeting.norm() < self.apart_m + 0.035;
                Order { may_go_on: offered, again, ..to(goal, Phase::TakeApproach) }
            }
            Phase::TakeApproach => {
                let rotation = self.meeting_rotation(index, side.yaw);
                let back = rotation * Vector3::z() * -0.1;
                Order { haste: 0.8, within_m: 0.012, ..to(at(hammer + back, rotation), Phase::TakeDescend) }
            }
            Phase::TakeDescend => {
                let goal = at(hammer, self.meeting_rotation(index, side.yaw));
                let again = (side.steps > MOST_STEPS || other != Phase::Offer).then_some(Phase::Ready);
                Order { within_m: 0.009, haste: 0.5, again, ..to(goal, Phase::TakeClose) }
            }
            Phase::TakeClose => hold(true, Phase::Taken),
            // Holds still while the other lets go and leaves.
            Phase::Taken => {
                let again = empty.then_some(Phase::Ready);
                let apart = seen.grips[0].pose.translation.vector - grip.pose.translation.vector;
                let alone = other == Phase::Withdraw && apart.norm() > 0.15;
                let order = hold(true, Phase::Bring);
                Order { may_go_on: alone, again, ..order }
            }
            Phase::Bring => {
                let place = Vector3::new(seen.target_bin.x + off_x, seen.target_bin.y, travel + 0.02);
                let goal = at(carried(&seen.hammer, place), down);
                let again = empty.then_some(Phase::Ready);
                Order { closed: true, within_m: 0.03, within_rad: 0.25, again, ..to(goal, Phase::Lower) }
            }
            Phase::Lower => {
                let place = Vector3::new(seen.target_bin.x + off_x, seen.target_bin.y, seen.target_bin.z + 0.13);
                let goal = at(carried(&seen.hammer, place), down);
                Order { closed: true, haste: 0.6, within_m: 0.03, within_rad: 0.3, ..to(goal, Phase::Open) }
            }
            Phase::Open => hold(false, Phase::Leave),
            Phase::Leave => {
                let goal = at(side.anchor.translation.vector + up(0.15), down);
                Order { may_go_on: false, ..to(goal, Phase::Leave) }
            }
        }
    }
}

impl Side {
    fn enter(&mut self, phase: Phase, seen: &Seen, rng: &mut ChaCha8Rng) {
        (self.phase, self.steps, self.anchor) = (phase, 0, seen.grips[self.index].pose);
        self.hand.begin_motion(rng);
        let across = match phase {
            // Across the thin side of the lid's handle, across the hammer's, across two faces of the rubbish.
            Phase::LidApproach => vec![yaw_of(&seen.handle)],
            Phase::HammerApproach => {
                let along = seen.along();
                vec![along.y.atan2(along.x) + std::f64::consts::FRAC_PI_2]
            }
            Phase::TrashApproach => {
                vec![yaw_of(&seen.trash), yaw_of(&seen.trash) + std::f64::consts::FRAC_PI_2]
            }
            Phase::Ready => vec![0.0],
            _ => return,
        };
        let error = self.hand.manner.grip_error_m;
        let normal = |rng: &mut ChaCha8Rng| -> f64 { StandardNormal.sample(rng) };
        self.offset_m = Vector3::new(error * normal(rng), error * normal(rng), 0.5 * error * normal(rng).abs());
        let turns = across.into_iter().flat_map(|yaw| [yaw, yaw + std::f64::consts::PI]);
        let nearest = turns.map(|yaw| wrapped(yaw - self.start_yaw)).min_by(|a, b| a.abs().total_cmp(&b.abs()));
        self.yaw = self.start_yaw + nearest.unwrap_or(0.0);
    }
}
