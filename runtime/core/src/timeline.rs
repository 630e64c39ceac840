//! From action chunks to the way of the tool point: every action has the instant at which its pose shall be reached.
//!
//! Actions lie on the policy's grid: action k of a chunk whose observation was taken at grid instant g is for g + delay + 1 + k
//! (`delay`: [`PolicySpec::observation_delay_steps`](crate::spec::PolicySpec)). Between two poses the way is a cubic in position and
//! in rotation, so that its velocity has no step; a [`Knot`]'s velocity is fixed when its successor is known and never changed
//! afterwards. What the arm is moving toward right now is never replaced either: a new chunk takes over behind the next knot, so a
//! hand-over has neither a step in position nor one in velocity.
//!
//! When the way has ended and the next chunk comes late, the grid is laid anew from that instant ([`Anchor::Reanchor`]): nothing is
//! made up for. The authors' loop kept its absolute schedule and executed what it had missed as fast as it could; that is
//! [`Anchor::CatchUp`], for reproduction only (spec robot_control.md §2, "catch-up bursts").

use nalgebra::{Translation3, UnitQuaternion, Vector3};
use serde::{Deserialize, Serialize};

use crate::action::ToolTarget;
use crate::geometry::{Pose, interpolate};

/// Most actions that lie ahead of the arm.
pub const MAX_KNOTS: usize = 64;

/// How a new chunk takes over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode", deny_unknown_fields)]
pub enum HandOver {
    /// The paper's: a chunk is executed to its end, then the next. Nothing is replaced.
    Sequential,
    /// The next chunk is inferred while this one executes; over `periods` actions its poses fade in.
    Blend { executed: usize, periods: usize },
    /// Each pose is the mean of what all chunks said about its instant; the n-th weighs exp(−decay · n) (Zhao et al. 2023).
    Ensemble { executed: usize, decay: f64 },
    /// The next chunk is sampled so that it begins as this one goes on (`guided`: see
    /// [`GuideMask`](crate::diffusion::GuideMask)), and replaces it.
    Inpaint { executed: usize },
}

impl HandOver {
    /// Actions between two observations; a sequential policy executes whole chunks.
    pub fn executed(&self, action_horizon: usize) -> usize {
        match *self {
            Self::Sequential => action_horizon,
            Self::Blend { executed, .. } | Self::Ensemble { executed, .. } | Self::Inpaint { executed } => executed,
        }
    }

    pub fn is_sequential(&self) -> bool {
        *self == Self::Sequential
    }
}

/// What happens to the grid after something blocked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// It begins anew.
    #[default]
    Reanchor,
    /// The authors': missed actions follow each other four times as fast until the old schedule is met.
    CatchUp,
}

/// Sums of periods differ in their last bits.
const ROUNDING_S: f64 = 1e-9;
/// The authors' loop needs 25 ms of its 100 ms for one action.
const CATCH_UP: f64 = 0.25;

/// Where the tool point shall be, and how it moves there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WayPoint {
    pub pose: Pose,
    /// m/s, base axes.
    pub linear_m_s: Vector3<f64>,
    /// rad/s, base axes.
    pub angular_rad_s: Vector3<f64>,
    /// How these change, m/s² and rad/s².
    pub linear_m_s2: Vector3<f64>,
    pub angular_rad_s2: Vector3<f64>,
}

impl WayPoint {
    pub fn at_rest(pose: Pose) -> Self {
        Self::moving(pose, Vector3::zeros(), Vector3::zeros())
    }

    /// Evenly.
    pub fn moving(pose: Pose, linear_m_s: Vector3<f64>, angular_rad_s: Vector3<f64>) -> Self {
        let none = Vector3::zeros();
        Self { pose, linear_m_s, angular_rad_s, linear_m_s2: none, angular_rad_s2: none }
    }
}

/// One action on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knot {
    /// When its pose shall be reached, s.
    pub time_s: f64,
    pub point: WayPoint,
    /// −1 open … +1 close.
    pub gripper: Option<f64>,
    /// Request and step of the chunk that said it, the newest where several did.
    pub chunk: u64,
    pub step: usize,
    /// Sum of the weights of the chunks that said something about it.
    weight: f64,
    said: u32,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Actions that came too late to be executed.
    pub late: usize,
    /// Actions that changed or prolonged the way.
    pub taken: usize,
}

/// The way ahead.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    period_s: f64,
    anchor: Anchor,
    /// Where the present piece begins, and when.
    from: WayPoint,
    from_s: f64,
    /// Grid index of the first knot ahead.
    first: i64,
    knots: [Knot; MAX_KNOTS],
    len: usize,
    /// Pose of the last knot that was passed: what relative actions start from where none lies ahead.
    passed: Pose,
    /// Time of grid instant 0 on the old schedule.
    scheduled_s: f64,
}

impl Timeline {
    /// Begins at grid instant 0 at `time_s`, at rest at `pose`.
    pub fn new(pose: Pose, time_s: f64, period_s: f64, anchor: Anchor) -> Self {
        let point = WayPoint::at_rest(pose);
        let knot = Knot { time_s, point, gripper: None, chunk: 0, step: 0, weight: 0.0, said: 0 };
        Self {
            period_s,
            anchor,
            from: point,
            from_s: time_s,
            first: 1,
            knots: [knot; MAX_KNOTS],
            len: 0,
            passed: pose,
            scheduled_s: time_s,
        }
    }

    /// Actions ahead.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Grid index behind the last knot.
    pub fn end(&self) -> i64 {
        self.first + self.len as i64
    }

    /// The knots ahead, the next one first.
    pub fn ahead(&self) -> &[Knot] {
        &self.knots[..self.len]
    }

    /// When the way ends, s.
    pub fn end_s(&self) -> f64 {
        self.ahead().last().map_or(self.from_s, |knot| knot.time_s)
    }

    /// Time of a grid instant; extrapolated behind the end.
    pub fn time_of(&self, index: i64) -> f64 {
        match usize::try_from(index - self.first).ok().and_then(|i| self.ahead().get(i)) {
            Some(knot) => knot.time_s,
            None => self.end_s() + (index - (self.end() - 1)) as f64 * self.period_s,
        }
    }

    /// Pose that an action for grid instant `index` is relative to: that of the instant before.
    pub fn pose_before(&self, index: i64) -> Pose {
        let last = self.ahead().last().map_or(self.passed, |knot| knot.point.pose);
        match usize::try_from(index - 1 - self.first) {
            Ok(i) => self.ahead().get(i).map_or(last, |knot| knot.point.pose),
            Err(_) => self.passed,
        }
    }

    /// Takes over a chunk's actions: `targets(i)` is the one for grid instant `first + i`, of `count`.
    ///
    /// What lies in the past is dropped, and so is the action that the arm is moving toward already, unless the way has ended.
    pub fn merge(
        &mut self,
        mode: HandOver,
        chunk: u64,
        first: i64,
        count: usize,
        targets: impl Fn(usize) -> ToolTarget,
    ) -> Merged {
        let mut merged = Merged::default();
        let replaced_from = self.first + i64::from(self.len > 0);
        let overlap_end = self.end();
        if !mode.is_sequential() && !matches!(mode, HandOver::Ensemble { .. }) {
            // What the older chunk said beyond the newer one's end is not part of the way any more.
            let kept = usize::try_from(first + count as i64 - self.first).unwrap_or(0).max(1);
            self.len = self.len.min(kept);
        }
        let mut faded = 0;
        for i in 0..count {
            let index = first + i as i64;
            if index < replaced_from || (mode.is_sequential() && index < overlap_end) {
                merged.late += 1;
                continue;
            }
            let Ok(at) = usize::try_from(index - self.first) else { continue };
            if at > self.len || at >= MAX_KNOTS {
                break;
            }
            merged.taken += 1;
            let target = targets(i);
            if at == self.len {
                let time_s = self.next_time_s();
                self.knots[at] = Knot {
                    time_s,
                    point: WayPoint::at_rest(target.T_base_tcp),
                    gripper: target.gripper,
                    chunk,
                    step: i,
                    weight: 1.0,
                    said: 1,
                };
                self.len += 1;
                continue;
            }
            let knot = &mut self.knots[at];
            let share = match mode {
                HandOver::Blend { periods, .. } => {
                    faded += 1;
                    (faded as f64 / (periods + 1) as f64).min(1.0)
                }
                HandOver::Ensemble { decay, .. } => {
                    let weight = (-decay * f64::from(knot.said)).exp();
                    knot.weight += weight;
                    knot.said += 1;
                    weight / knot.weight
                }
                HandOver::Inpaint { .. } | HandOver::Sequential => 1.0,
            };
            knot.point.pose = interpolate(&knot.point.pose, &target.T_base_tcp, share);
            // A gripper opens or closes; it does not fade. The newest chunk has seen more.
            knot.gripper = target.gripper;
            (knot.chunk, knot.step) = (chunk, i);
        }
        self.fix_velocities(replaced_from);
        merged
    }

    /// When the next knot behind the end is due.
    fn next_time_s(&self) -> f64 {
        let after_last = self.end_s() + self.period_s;
        match self.anchor {
            Anchor::Reanchor => after_last,
            Anchor::CatchUp => (self.scheduled_s + self.end() as f64 * self.period_s)
                .clamp(self.end_s() + CATCH_UP * self.period_s, after_last),
        }
    }

    /// Velocities of the knots from grid instant `from` on; those before it are being executed and stay.
    fn fix_velocities(&mut self, from: i64) {
        let begin = usize::try_from(from - self.first).unwrap_or(0);
        for i in begin..self.len {
            let before = if i == 0 { (self.from_s, self.from.pose) } else { at(&self.knots[i - 1]) };
            let here = at(&self.knots[i]);
            let (linear, angular) = slope(&before, &here);
            let (linear, angular) = match self.knots.get(i + 1).filter(|_| i + 1 < self.len) {
                Some(next) => {
                    let (l, a) = slope(&here, &at(next));
                    ((linear + l) * 0.5, (angular + a) * 0.5)
                }
                // The end of a chunk: the way is taken to go on as it comes in. Where nothing comes, the arm brakes.
                None => (linear, angular),
            };
            (self.knots[i].point.linear_m_s, self.knots[i].point.angular_rad_s) = (linear, angular);
        }
    }

    /// The way at `time_s`; `None` behind its end.
    pub fn at(&self, time_s: f64) -> Option<WayPoint> {
        let next = self.ahead().partition_point(|knot| knot.time_s < time_s - ROUNDING_S);
        let knot = self.ahead().get(next)?;
        let (from, from_s) = match next.checked_sub(1).map(|i| &self.knots[i]) {
            Some(before) => (before.point, before.time_s),
            None => (self.from, self.from_s),
        };
        Some(between(&from, from_s, &knot.point, knot.time_s, time_s))
    }

    /// The next knot whose instant has come by `time_s`, and its grid index; it lies behind then.
    pub fn pass(&mut self, time_s: f64) -> Option<(i64, Knot)> {
        let knot = *self.ahead().first().filter(|knot| knot.time_s <= time_s)?;
        let index = self.first;
        self.knots.copy_within(1..self.len, 0);
        self.len -= 1;
        self.first += 1;
        (self.from, self.from_s, self.passed) = (knot.point, knot.time_s, knot.point.pose);
        Some((index, knot))
    }

    /// Something blocked until `time_s`: the way goes on from where the arm is commanded to be, and what lies ahead moves.
    pub fn resume(&mut self, from: WayPoint, time_s: f64) {
        (self.from, self.from_s) = (from, time_s);
        let mut last_s = time_s;
        for i in 0..self.len {
            let scheduled_s = self.scheduled_s + (self.first + i as i64) as f64 * self.period_s;
            let after_last = last_s + self.period_s;
            last_s = match self.anchor {
                Anchor::Reanchor => after_last,
                Anchor::CatchUp => scheduled_s.clamp(last_s + CATCH_UP * self.period_s, after_last),
            };
            self.knots[i].time_s = last_s;
        }
        self.fix_velocities(self.first);
    }
}

fn at(knot: &Knot) -> (f64, Pose) {
    (knot.time_s, knot.point.pose)
}

/// Mean velocities between two poses.
fn slope(a: &(f64, Pose), b: &(f64, Pose)) -> (Vector3<f64>, Vector3<f64>) {
    let per_s = b.0 - a.0;
    let linear = (b.1.translation.vector - a.1.translation.vector) / per_s;
    (linear, (b.1.rotation * a.1.rotation.inverse()).scaled_axis() / per_s)
}

/// The cubic from one point to another, in position, and in the rotation vector from the first one's orientation.
fn between(a: &WayPoint, a_s: f64, b: &WayPoint, b_s: f64, time_s: f64) -> WayPoint {
    let per_s = b_s - a_s;
    let x = ((time_s - a_s) / per_s).clamp(0.0, 1.0);
    let cubic = |d: &Vector3<f64>, v0: &Vector3<f64>, v1: &Vector3<f64>| {
        let (m0, m1) = (v0 * per_s, v1 * per_s);
        let (c2, c3) = (d * 3.0 - m0 * 2.0 - m1, m0 + m1 - d * 2.0);
        (
            (m0 + (c2 + c3 * x) * x) * x,
            (m0 + (c2 * 2.0 + c3 * (3.0 * x)) * x) / per_s,
            (c2 * 2.0 + c3 * (6.0 * x)) / (per_s * per_s),
        )
    };
    let d = b.pose.translation.vector - a.pose.translation.vector;
    let (p, linear_m_s, linear_m_s2) = cubic(&d, &a.linear_m_s, &b.linear_m_s);
    // For the few degrees of one action the derivative of the rotation vector is the angular velocity to second order.
    let turn = (b.pose.rotation * a.pose.rotation.inverse()).scaled_axis();
    let (w, angular_rad_s, angular_rad_s2) = cubic(&turn, &a.angular_rad_s, &b.angular_rad_s);
    let pose = Pose::from_parts(
        Translation3::from(a.pose.translation.vector + p),
        UnitQuaternion::from_scaled_axis(w) * a.pose.rotation,
    );
    WayPoint { pose, linear_m_s, angular_rad_s, linear_m_s2, angular_rad_s2 }
}

#[cfg(test)]
mod tests;
