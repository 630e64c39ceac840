//! The last stage before any command, whoever made it (spec robot_control.md §4 \[ADV\], data/limits.toml).
//!
//! It compares with the last *commanded* motion, never with the measured one. Each commanded motion keeps to the limits of position,
//! velocity, acceleration and jerk, and has a stop in hand that does so too, stays in the workspace and touches nothing
//! ([`Stop`]). Whatever would leave no such stop is not commanded: the stop is, one period of it. So a wrong value, a stale input or a
//! policy that asks for too much all end the same way, at rest within the limits.

mod brake;
mod collision;
mod follow;
#[cfg(test)]
mod tests;

use nalgebra::Vector3;
use thiserror::Error;

use crate::arm::{Arm, FRAMES, JointLimits, Joints};
use crate::geometry::Pose;

use collision::{Nearness, SLACK_M, collision_at};

pub use brake::{JointBounds, JointMotion, Stop};
pub use collision::{Body, Collision, CollisionLimits, collision};
pub use follow::{FollowGains, Step, follow};

/// Axis-aligned box for the tool point in the robot base frame, m.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkspaceBox {
    pub min_m: [f64; 3],
    pub max_m: [f64; 3],
}

impl WorkspaceBox {
    /// Smaller by `by_m` on every side.
    fn shrunk(&self, by_m: f64) -> Self {
        Self { min_m: self.min_m.map(|x| x + by_m), max_m: self.max_m.map(|x| x - by_m) }
    }

    /// How far `p` is outside, m; 0 inside.
    fn outside_m(&self, p: &Vector3<f64>) -> f64 {
        self.outside(p).map_or(0.0, |(_, by)| by)
    }

    /// The axis on which `p` is farthest outside, and by how much, m; `None` inside.
    fn outside(&self, p: &Vector3<f64>) -> Option<(usize, f64)> {
        let by = |axis: usize| (self.min_m[axis] - p[axis]).max(p[axis] - self.max_m[axis]);
        let worst =
            (0..3).map(|axis| (axis, by(axis))).fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
        (worst.1 > 0.0).then_some(worst)
    }
}

/// What a command may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SafetyLimits {
    /// Of the robot's model.
    pub joints: JointLimits,
    /// Kept free at both ends of every joint's range.
    pub joint_reserve_rad: f64,
    /// Fastest commanded joint speed.
    pub max_joint_velocity_rad_s: f64,
    /// Parts of the model's accelerations and jerks that commands use, 0 to 1.
    pub acceleration_fraction: f64,
    pub jerk_fraction: f64,
    /// A wanted tool point further than this from the one wanted before (the commanded one where nothing was) is refused, not
    /// shortened.
    pub abort_tcp_step_m: f64,
    pub workspace: WorkspaceBox,
    pub collision: CollisionLimits,
}

impl SafetyLimits {
    /// Bounds of joint `i`.
    ///
    /// Where the velocity limit falls toward the ends of the range, v ≤ √(2 d x) − o at distance x (FR3), half of that deceleration and
    /// o²/d more reserve keep every stop below it: √(A x') + o ≤ √(2 d (x' + o²/d)) for A = d/2, whatever x'.
    pub fn bounds(&self, i: usize) -> JointBounds {
        let mut bounds = JointBounds::of(&self.joints, i, self.joint_reserve_rad);
        bounds.velocity_rad_s = bounds.velocity_rad_s.min(self.max_joint_velocity_rad_s);
        bounds.acceleration_rad_s2 *= self.acceleration_fraction;
        bounds.jerk_rad_s3 *= self.jerk_fraction;
        if let Some(ends) = &self.joints.slower_at_ends {
            let (o, d) = (ends.offset_rad_s[i], ends.deceleration_rad_s2[i]);
            bounds.acceleration_rad_s2 = bounds.acceleration_rad_s2.min(d / 2.0);
            let zone = (o * o / d - self.joint_reserve_rad).max(0.0);
            (bounds.lower_rad, bounds.upper_rad) = (bounds.lower_rad + zone, bounds.upper_rad - zone);
        }
        bounds
    }

    /// Longest time to rest from full speed: v/A + A/J of the slowest joint.
    pub fn longest_stop_s(&self) -> f64 {
        let stop = |i| {
            let b = self.bounds(i);
            b.velocity_rad_s / b.acceleration_rad_s2 + b.acceleration_rad_s2 / b.jerk_rad_s3
        };
        (0..7).map(stop).fold(0.0, f64::max)
    }
}

/// Why a command was refused. `Copy`: the tick speaks in these, another thread turns them into text.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum Refusal {
    #[error("joint {} is not finite", joint + 1)]
    NotFinite { joint: usize },
    #[error("the tool point would jump {distance_m:.3} m, more than {limit_m:.3} m")]
    Jump { distance_m: f64, limit_m: f64 },
    #[error("the tool point would leave the workspace at {axis} = {value_m:.3} m (limits {min_m:.3} to {max_m:.3})")]
    Workspace { axis: char, value_m: f64, min_m: f64, max_m: f64 },
    #[error("{0}")]
    Collision(Collision),
}

/// Kept free at the ends of every range: a stop that is planned anew in each period ends some nanoradians beside the last plan's.
const SPARE_RAD: f64 = 1e-7;

/// What is wanted of the arm at the next command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    pub position_rad: Joints,
    /// Of the wanted positions; zero for a target that stands still.
    pub velocity_rad_s: Joints,
    /// Of the wanted velocities; zero where it is not known. What is known ahead is not followed late.
    pub acceleration_rad_s2: Joints,
}

impl Wanted {
    pub fn still(position_rad: Joints) -> Self {
        Self::moving(position_rad, [0.0; 7])
    }

    /// Without knowing how the velocity changes.
    pub fn moving(position_rad: Joints, velocity_rad_s: Joints) -> Self {
        Self { position_rad, velocity_rad_s, acceleration_rad_s2: [0.0; 7] }
    }
}

/// The verdict on one command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Passed(Joints),
    /// Held back by a limit of a joint.
    Limited(Joints),
    /// The stop is commanded instead, one period of it.
    Refused(Joints, Refusal),
}

impl Verdict {
    /// What is to be commanded.
    pub fn joints(&self) -> &Joints {
        match self {
            Self::Passed(q) | Self::Limited(q) | Self::Refused(q, _) => q,
        }
    }
}

/// Counts of what the stage did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SafetyCounts {
    pub passed: u64,
    pub limited: u64,
    pub refused: u64,
    /// Periods of a stop that was commanded because nothing was wanted.
    pub braked: u64,
}

/// A stop is looked at no further apart than this, s: on its way from one look to the next the arm bends by less than [`BEND_M`]
/// (a/8 · t²; with all joints braking at full reach the tool point has been seen to bend by 2.3 mm in 20 ms).
const LOOK_S: f64 = 0.016;
const MOST_LOOKS: usize = 32;
/// Kept free of by the stop's way, beyond the limits; what is nearer than this already may stay as near, and is looked at twice as often.
const BEND_M: f64 = 3e-3;
/// Kept free of by what is commanded itself: what a stop that begins near a limit bends beyond where it began, between two looks.
const SPARE_M: f64 = 0.5e-3;

/// Steps that one command makes up for at most.
const MOST_STEPS: f64 = 8.0;

/// Holds the last commanded motion.
#[derive(Debug, Clone, Copy)]
pub struct SafetyStage {
    limits: SafetyLimits,
    arm: Arm,
    /// What motions are planned within.
    bounds: [JointBounds; 7],
    /// What no commanded position is beyond, rad. A plan that is made anew in each period ends some nanoradians beside the last one,
    /// and an arm that began at an end has no room for that.
    ends_rad: [(f64, f64); 7],
    gains: FollowGains,
    period_s: f64,
    /// Where the arm began: what was beyond a limit there is so by no more ever after.
    began_rad: Joints,
    motion: [JointMotion; 7],
    /// Tool point that was wanted last; none since nothing was.
    wanted_m: Option<Vector3<f64>>,
    pub counts: SafetyCounts,
}

impl SafetyStage {
    /// Starts at rest at the joints in force now (measured at arming). `period_s`: of the commands.
    pub fn new(arm: Arm, limits: SafetyLimits, period_s: f64, commanded_rad: Joints) -> Self {
        let mut bounds: [JointBounds; 7] = std::array::from_fn(|i| limits.bounds(i));
        let ends_rad = std::array::from_fn(|i| {
            (bounds[i].lower_rad.min(commanded_rad[i]), bounds[i].upper_rad.max(commanded_rad[i]))
        });
        for (bounds, q) in bounds.iter_mut().zip(commanded_rad) {
            // An arm that starts outside the reserve may stay there or come back, not go further; see `follow_in`.
            let (low, high) = (bounds.lower_rad + SPARE_RAD, bounds.upper_rad - SPARE_RAD);
            (bounds.lower_rad, bounds.upper_rad) = (low.min(q), high.max(q));
        }
        let motion = commanded_rad.map(JointMotion::at_rest);
        let counts = SafetyCounts::default();
        let gains = FollowGains::of_period(period_s);
        Self {
            limits,
            arm,
            bounds,
            ends_rad,
            gains,
            period_s,
            began_rad: commanded_rad,
            motion,
            wanted_m: None,
            counts,
        }
    }

    /// The joints commanded last.
    pub fn commanded_rad(&self) -> Joints {
        self.motion.map(|m| m.position_rad)
    }

    /// The motion commanded last.
    pub fn motion(&self) -> &[JointMotion; 7] {
        &self.motion
    }

    /// Velocities commanded last, rad/s.
    pub fn velocity_rad_s(&self) -> Joints {
        self.motion.map(|m| m.velocity_rad_s)
    }

    pub fn is_at_rest(&self) -> bool {
        self.motion.iter().all(|m| m.velocity_rad_s == 0.0 && m.acceleration_rad_s2 == 0.0)
    }

    /// The tool point commanded last.
    pub fn commanded_pose(&self) -> Pose {
        self.arm.tcp(&self.commanded_rad())
    }

    /// Time until the arm is at rest if nothing more is wanted.
    pub fn time_to_rest_s(&self) -> f64 {
        self.stops(&self.motion).iter().map(Stop::duration_s).fold(0.0, f64::max)
    }

    /// Where the stop in hand would be `t_s` from the last command: the braking tail of what is commanded.
    pub fn tail(&self, t_s: f64) -> [JointMotion; 7] {
        self.stops(&self.motion).map(|stop| stop.at(t_s))
    }

    fn stops(&self, motion: &[JointMotion; 7]) -> [Stop; 7] {
        std::array::from_fn(|i| Stop::of(&motion[i], &self.bounds[i]))
    }

    /// Nothing is wanted: the next period of the stop in hand. At rest it stays where it is.
    pub fn brake(&mut self, dt_s: f64) -> Joints {
        if !self.is_at_rest() {
            self.counts.braked += 1;
        }
        self.wanted_m = None;
        self.take_stop(dt_s)
    }

    fn take_stop(&mut self, dt_s: f64) -> Joints {
        if dt_s.is_finite() && dt_s > 0.0 {
            self.command(self.stops(&self.motion).map(|stop| stop.at(dt_s)));
        }
        self.commanded_rad()
    }

    fn command(&mut self, motion: [JointMotion; 7]) {
        self.motion = motion;
        for (motion, (low, high)) in self.motion.iter_mut().zip(self.ends_rad) {
            motion.position_rad = motion.position_rad.clamp(low, high);
        }
        self.follow_in();
    }

    /// Where a joint began beyond an end of its range, that end follows it in: what was left there is not entered again. The stop in
    /// hand keeps its room.
    fn follow_in(&mut self) {
        for (i, bounds) in self.bounds.iter_mut().enumerate() {
            let own = self.limits.bounds(i);
            let (low, high) = (own.lower_rad + SPARE_RAD, own.upper_rad - SPARE_RAD);
            if bounds.lower_rad >= low && bounds.upper_rad <= high {
                continue;
            }
            let (lowest, highest) = Stop::of(&self.motion[i], bounds).extent_rad();
            bounds.lower_rad = bounds.lower_rad.max(low.min(lowest - SPARE_RAD));
            bounds.upper_rad = bounds.upper_rad.min(high.max(highest + SPARE_RAD));
            let ends = &mut self.ends_rad[i];
            ends.0 = ends.0.max(own.lower_rad.min(lowest - 2.0 * SPARE_RAD));
            ends.1 = ends.1.min(own.upper_rad.max(highest + 2.0 * SPARE_RAD));
        }
    }

    /// Judges what is wanted `dt_s` after the last command. Never gives a value that is not finite.
    ///
    /// After skipped periods their steps are made up for, each with the wanted joints of its own instant: one long step would be
    /// answered, and looked at, too coarsely.
    pub fn check(&mut self, wanted: &Wanted, dt_s: f64) -> Verdict {
        // Time that runs backwards moves nothing.
        let dt_s = if dt_s.is_finite() { dt_s.max(0.0) } else { 0.0 };
        let steps = (dt_s / self.period_s).round().clamp(1.0, MOST_STEPS) as usize;
        let step_s = dt_s / steps as f64;
        let mut limited = false;
        let wanted_m = match self.wanted_point(wanted) {
            Ok(point) => point,
            Err(refusal) => return self.stop_for(refusal, dt_s),
        };
        for left in (0..steps).rev() {
            let before_s = left as f64 * step_s;
            let position_rad = std::array::from_fn(|i| wanted.position_rad[i] - wanted.velocity_rad_s[i] * before_s);
            match self.judge(&Wanted { position_rad, ..*wanted }, step_s) {
                Ok((motion, held_back)) => {
                    self.command(motion);
                    limited |= held_back;
                }
                Err(refusal) => return self.stop_for(refusal, step_s * (left + 1) as f64),
            }
        }
        self.wanted_m = Some(wanted_m);
        let joints = self.commanded_rad();
        if limited {
            self.counts.limited += 1;
            Verdict::Limited(joints)
        } else {
            self.counts.passed += 1;
            Verdict::Passed(joints)
        }
    }

    fn stop_for(&mut self, refusal: Refusal, dt_s: f64) -> Verdict {
        self.counts.refused += 1;
        Verdict::Refused(self.take_stop(dt_s), refusal)
    }

    /// The tool point that is wanted, or what is wrong with it, wherever the arm is.
    fn wanted_point(&self, wanted: &Wanted) -> Result<Vector3<f64>, Refusal> {
        let all = [&wanted.position_rad, &wanted.velocity_rad_s, &wanted.acceleration_rad_s2];
        if let Some(joint) = (0..7).find(|&i| all.iter().any(|values| !values[i].is_finite())) {
            return Err(Refusal::NotFinite { joint });
        }
        // What is wanted may lead what is commanded by the lag of the arm; from one command to the next it has no reason to jump.
        let from = self.wanted_m.unwrap_or_else(|| self.arm.tcp_position(&self.commanded_rad()));
        let wanted_m = self.arm.tcp_position(&wanted.position_rad);
        let distance_m = (wanted_m - from).norm();
        let limit_m = self.limits.abort_tcp_step_m;
        if distance_m > limit_m || !distance_m.is_finite() {
            return Err(Refusal::Jump { distance_m, limit_m });
        }
        Ok(wanted_m)
    }

    /// One step toward what is wanted, and whether a joint was held back.
    fn judge(&self, wanted: &Wanted, dt_s: f64) -> Result<([JointMotion; 7], bool), Refusal> {
        let now = self.commanded_rad();
        let p_now = self.arm.tcp_position(&now);
        let mut motion = self.motion;
        let mut limited = false;
        if dt_s > 0.0 {
            for i in 0..7 {
                let goal = JointMotion {
                    position_rad: wanted.position_rad[i],
                    velocity_rad_s: wanted.velocity_rad_s[i],
                    acceleration_rad_s2: wanted.acceleration_rad_s2[i],
                };
                let step = follow(&self.motion[i], &goal, dt_s, &self.gains, &self.bounds[i]);
                motion[i] = step.motion;
                limited |= step.limited;
            }
        }
        let stops = self.stops(&motion);
        let longest_s = stops.iter().map(Stop::duration_s).fold(0.0, f64::max);
        let near = self.limits.workspace.shrunk(BEND_M).outside(&p_now).is_some();
        let look_s = if near { LOOK_S / 2.0 } else { LOOK_S };
        // An arm that stands still looks once.
        let looks = ((longest_s / look_s).ceil() as usize).min(MOST_LOOKS);
        let CollisionLimits { clearance_m, table_z_m } = self.limits.collision;
        // From one command to the next rounding is forgiven, and a thousand forgiven steps in one direction would be a way: where the
        // arm began is compared with too.
        let box_m = &self.limits.workspace;
        let began_outside_m = box_m.outside_m(&self.arm.tcp_position(&self.began_rad));
        for look in 0..=looks {
            let free_m = if look == 0 { SPARE_M } else { BEND_M };
            let t_s = if look == 0 { 0.0 } else { longest_s * look as f64 / looks as f64 };
            let q: Joints = std::array::from_fn(|i| stops[i].at(t_s).position_rad);
            let frames = self.arm.frames(&q);
            let p = self.arm.tool_point(&frames[FRAMES - 1]);
            let inner = box_m.shrunk(free_m);
            if let Some((axis, by)) = inner.outside(&p)
                // Moving back toward the box from outside is allowed.
                && (by > inner.outside_m(&p_now) + SLACK_M || box_m.outside_m(&p) > began_outside_m + 0.5 * SLACK_M)
            {
                let WorkspaceBox { min_m, max_m } = self.limits.workspace;
                let axis_name = ['x', 'y', 'z'][axis];
                return Err(Refusal::Workspace {
                    axis: axis_name,
                    value_m: p[axis],
                    min_m: min_m[axis],
                    max_m: max_m[axis],
                });
            }
            let as_now = Nearness { clearance_m: clearance_m + free_m, before: &now, slack_m: SLACK_M };
            let as_began = Nearness { clearance_m, before: &self.began_rad, slack_m: 0.5 * SLACK_M };
            if let Some(found) = collision_at(&self.arm, &frames, table_z_m, &[as_now, as_began]) {
                return Err(Refusal::Collision(found));
            }
        }
        Ok((motion, limited))
    }
}
