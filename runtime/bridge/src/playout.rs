//! From targets to the plan that the arm is sent: what was commanded lately, and then the stop that is in hand.
//!
//! Targets arrive when the network and two schedulers let them. Each says for which instant it is, on its commander's clock; the
//! fastest that ever arrived tells how far that clock is from ours ([`DueClock`]). A target is played `lead` after that, which is
//! what lateness may be without anybody noticing. Behind the newest target the plan goes on with the quickest stop of its motion, so
//! when nothing newer arrives the arm comes to rest as the safety stage has looked at it, and without one more message.

use std::collections::VecDeque;

use tenon_core::message::JointTarget;
use tenon_core::safety::{JointBounds, JointMotion, Stop};
use tenon_core::time::MonotonicTime;
use tenon_polymetis::waypoints::{MAX_WAYPOINTS, Plan, StepClock, Waypoint};

/// Relative error of two quartz clocks: the fastest target of an hour ago says less than one of a second ago.
const DRIFT: f64 = 100e-6;
/// Targets further apart than this are not joined by a curve: something stood still between them.
const LONGEST_GAP_S: f64 = 0.05;
/// Waypoints at rest behind the stop.
const RESTING: i64 = 10;
/// Targets kept; at 1 kHz this is a lead of 100 ms and more.
const KEPT: usize = 128;

/// Tells the commander's clock from ours by the fastest message.
#[derive(Debug, Clone, Copy, Default)]
pub struct DueClock {
    /// Least difference seen (ours − theirs), s, and when it was last brought up to date.
    least: Option<(f64, f64)>,
}

impl DueClock {
    /// A message that is for `due` arrived at `arrived`.
    pub fn observe(&mut self, due: MonotonicTime, arrived: MonotonicTime) {
        let arrived_s = seconds(arrived);
        let difference = arrived_s - seconds(due);
        let least = self.least.map_or(difference, |(least, at)| {
            // It may have grown by what clocks drift, and not by more: one late message says nothing.
            (least + DRIFT * (arrived_s - at).max(0.0)).min(difference)
        });
        self.least = Some((least, arrived_s));
    }

    /// Theirs on our clock, s.
    pub fn ours(&self, theirs_s: f64) -> f64 {
        theirs_s + self.least.map_or(0.0, |(least, _)| least)
    }
}

/// Seconds of a monotonic clock.
pub fn seconds(time: MonotonicTime) -> f64 {
    time.as_nanos() as f64 * 1e-9
}

/// What the arm is told, as a curve in time.
#[derive(Debug, Clone)]
pub struct Playout {
    bounds: [JointBounds; 7],
    lead_s: f64,
    spacing_steps: u32,
    clock: DueClock,
    /// Instants that motions are for (s, the commander's clock), oldest first. All move when a faster message says more about that
    /// clock: what lies between them does not change.
    motions: VecDeque<(f64, [JointMotion; 7])>,
    sequence: i64,
}

impl Playout {
    /// Nothing is planned before the first target.
    pub fn new(bounds: [JointBounds; 7], lead_s: f64, spacing_steps: u32) -> Self {
        let motions = VecDeque::with_capacity(KEPT + 1);
        Self { bounds, lead_s, spacing_steps, clock: DueClock::default(), motions, sequence: 0 }
    }

    /// When a motion is played, s, our clock.
    fn played_s(&self, due_s: f64) -> f64 {
        self.clock.ours(due_s) + self.lead_s
    }

    /// Takes a target that has been found sound. Returns by how much it came later than the lead allows, s; negative is in time.
    pub fn push(&mut self, target: &JointTarget, arrived: MonotonicTime) -> f64 {
        self.clock.observe(target.due, arrived);
        let due_s = seconds(target.due);
        let motion = std::array::from_fn(|i| JointMotion {
            position_rad: target.joint_positions_rad[i],
            velocity_rad_s: target.joint_velocities_rad_s[i],
            acceleration_rad_s2: target.joint_accelerations_rad_s2[i],
        });
        // A commander whose clock ran back, or that stood still, begins anew.
        if self.motions.back().is_some_and(|(last, _)| !(0.0..=LONGEST_GAP_S).contains(&(due_s - last))) {
            self.motions.clear();
        }
        if self.motions.back().is_some_and(|(last, _)| *last == due_s) {
            self.motions.pop_back();
        }
        self.motions.push_back((due_s, motion));
        if self.motions.len() > KEPT {
            self.motions.pop_front();
        }
        seconds(arrived) - self.played_s(due_s)
    }

    /// Forgets all but the newest target.
    pub fn begin_anew(&mut self) {
        self.motions.drain(..self.motions.len().saturating_sub(1));
    }

    /// The motion that is for `due_s`: between two on the curve through both, after the newest on its stop. The first one stands for
    /// what was before it.
    fn at(&self, due_s: f64) -> Waypoint {
        let after = self.motions.partition_point(|(at, _)| *at <= due_s);
        let (positions_rad, velocities_rad_s) = match (self.motions.get(after.max(1) - 1), self.motions.get(after)) {
            (Some(before), Some(next)) => between(before, next, due_s.max(before.0)),
            (Some((at, motion)), None) => {
                let stop: [JointMotion; 7] =
                    std::array::from_fn(|i| Stop::of(&motion[i], &self.bounds[i]).at(due_s - at));
                (stop.map(|m| m.position_rad), stop.map(|m| m.velocity_rad_s))
            }
            (None, _) => ([0.0; 7], [0.0; 7]),
        };
        Waypoint { positions_rad, velocities_rad_s }
    }

    /// When the arm rests by the plan that it has, s, our clock; `None` without a target.
    pub fn rests_at_s(&self) -> Option<f64> {
        let (newest_s, motion) = self.motions.back()?;
        let stop_s = (0..7).map(|i| Stop::of(&motion[i], &self.bounds[i]).duration_s()).fold(0.0, f64::max);
        Some(self.played_s(newest_s + stop_s))
    }

    /// The plan from `now`, or from the oldest target, to rest. `None` without a target, or while the controller's step is unknown.
    pub fn plan(&mut self, session: u32, steps: &StepClock, now: MonotonicTime) -> Option<Plan> {
        let now_s = seconds(now);
        let (step, error) = steps.step_at(now_s)?;
        let (oldest_s, _) = self.motions.front()?;
        let (newest_s, motion) = self.motions.back()?;
        let (per_s, spacing) = (1.0 / steps.period_s(), i64::from(self.spacing_steps));
        let step_of = |due_s: f64| step + (self.played_s(due_s) - now_s) * per_s;
        // Waypoints lie on a grid of steps, so that two plans of one way share them. The first one may lie in the past.
        let present = (step - error).floor() as i64;
        let oldest = step_of(*oldest_s).ceil() as i64;
        let first_step = present.div_euclid(spacing).max((oldest + spacing - 1).div_euclid(spacing)).max(0) * spacing;
        let stop_s = (0..7).map(|i| Stop::of(&motion[i], &self.bounds[i]).duration_s()).fold(0.0, f64::max);
        let end = step_of(newest_s + stop_s).ceil() as i64;
        // Beyond the end it rests: the law brakes by itself behind the last waypoint, and an arm that was left behind by a stall of
        // this machine or the server's needs somewhere to join.
        let count =
            usize::try_from((end - first_step).max(0) / spacing + RESTING).unwrap_or(usize::MAX).min(MAX_WAYPOINTS);
        let origin_s = self.played_s(0.0);
        let due_of = |n: i64| now_s - origin_s + (n as f64 - step) * steps.period_s();
        let waypoints = (0..count as i64).map(|k| self.at(due_of(first_step + k * spacing))).collect();
        self.sequence += 1;
        Some(Plan { session, sequence: self.sequence, first_step, spacing_steps: self.spacing_steps, waypoints })
    }
}

/// The cubic through two motions, and its slope.
fn between(a: &(f64, [JointMotion; 7]), b: &(f64, [JointMotion; 7]), time_s: f64) -> ([f64; 7], [f64; 7]) {
    let per = b.0 - a.0;
    let x = (time_s - a.0) / per;
    let cubic = |i: usize| {
        let (q0, q1) = (a.1[i].position_rad, b.1[i].position_rad);
        let (m0, m1) = (a.1[i].velocity_rad_s * per, b.1[i].velocity_rad_s * per);
        let (c2, c3) = (3.0 * (q1 - q0) - 2.0 * m0 - m1, m0 + m1 - 2.0 * (q1 - q0));
        (q0 + x * (m0 + x * (c2 + x * c3)), (m0 + x * (2.0 * c2 + x * 3.0 * c3)) / per)
    };
    (std::array::from_fn(|i| cubic(i).0), std::array::from_fn(|i| cubic(i).1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: JointBounds = JointBounds {
        lower_rad: -2.0,
        upper_rad: 2.0,
        velocity_rad_s: 1.5,
        acceleration_rad_s2: 10.0,
        jerk_rad_s3: 3000.0,
    };
    const LEAD_S: f64 = 0.02;
    const PERIOD_MS: i64 = 7;
    /// The commander's clock is this much behind ours.
    const BEHIND_MS: f64 = 5000.0;

    fn at_ms(ms: f64) -> MonotonicTime {
        MonotonicTime::from_nanos((ms * 1e6).round() as i64)
    }

    /// Joint 0 to and fro.
    fn way(t_s: f64) -> JointMotion {
        let (size, rate) = (0.2, 3.0);
        JointMotion {
            position_rad: size * (1.0 - (rate * t_s).cos()),
            velocity_rad_s: size * rate * (rate * t_s).sin(),
            acceleration_rad_s2: size * rate * rate * (rate * t_s).cos(),
        }
    }

    fn target(sequence: u64, due_ms: f64) -> JointTarget {
        let motion = way(due_ms * 1e-3);
        let mut target = JointTarget::still(1, sequence, at_ms(due_ms), [0.0; 7]);
        target.joint_positions_rad[0] = motion.position_rad;
        target.joint_velocities_rad_s[0] = motion.velocity_rad_s;
        target.joint_accelerations_rad_s2[0] = motion.acceleration_rad_s2;
        target
    }

    fn playout() -> Playout {
        Playout::new([BOUNDS; 7], LEAD_S, 8)
    }

    /// Step 0 of the controller is at our time `BEHIND_MS`, and known to the step.
    fn steps() -> StepClock {
        let mut steps = StepClock::new(100, 1000);
        for k in 0..1000 {
            let asked = 5.0 + 1e-3 * f64::from(k) + 0.3e-3;
            steps.observe(asked, asked + 0.1e-3, 100 + 1 + i64::from(k));
        }
        steps
    }

    #[test]
    fn a_plan_follows_the_targets_a_lead_later_however_they_jitter_and_ends_at_rest() {
        let (mut playout, steps) = (playout(), steps());
        for k in 1..100 {
            let due_ms = (k * PERIOD_MS) as f64;
            // 0.1 to 13 ms on the way.
            let arrived = at_ms(BEHIND_MS + due_ms + 0.1 + f64::from((k * 37 % 14) as i32));
            let late_s = playout.push(&target(k as u64, due_ms), arrived);
            assert!(late_s < 0.0 || k < 30, "{k}: {late_s}");
            let plan = playout.plan(7, &steps, arrived).unwrap();
            assert_eq!((plan.sequence, plan.first_step % 8), (k, 0));
            if k < 30 {
                continue;
            }
            let newest = (due_ms + LEAD_S * 1e3) as i64;
            let mut checked = 0;
            for (n, w) in plan.waypoints.iter().enumerate() {
                let step = plan.first_step + n as i64 * 8;
                // Nothing but what has been commanded before: the targets, a lead later.
                if step <= newest {
                    let wanted = way((step as f64 - LEAD_S * 1e3) * 1e-3);
                    assert!((w.positions_rad[0] - wanted.position_rad).abs() < 1e-3, "{k} {n}");
                    assert!((w.velocities_rad_s[0] - wanted.velocity_rad_s).abs() < 2e-3, "{k} {n}");
                    checked += 1;
                }
            }
            assert!(checked >= 1);
            let last = plan.waypoints.last().unwrap();
            assert_eq!(last.velocities_rad_s, [0.0; 7], "the tail ends at rest");
            let stop = Stop::of(&way(due_ms * 1e-3), &BOUNDS);
            assert!((last.positions_rad[0] - stop.at(9.0).position_rad).abs() < 1e-9);
        }
    }

    #[test]
    fn the_arm_rests_a_lead_and_a_stop_behind_the_newest_target() {
        let mut playout = playout();
        assert_eq!(playout.rests_at_s(), None);
        playout.push(&target(1, 100.0), at_ms(BEHIND_MS + 100.0));
        let rests_at_s = playout.rests_at_s().unwrap();
        let stop_s = Stop::of(&way(0.1), &BOUNDS).duration_s();
        assert!(stop_s > 0.01 && (rests_at_s - (5.1 + LEAD_S + stop_s)).abs() < 1e-9, "{rests_at_s} {stop_s}");
    }

    #[test]
    fn nothing_is_planned_before_there_is_a_target_and_a_step() {
        let (mut playout, steps) = (playout(), steps());
        assert_eq!(playout.plan(7, &steps, at_ms(BEHIND_MS)), None);
        playout.push(&target(1, 100.0), at_ms(BEHIND_MS + 100.0));
        assert_eq!(playout.plan(7, &StepClock::new(0, 1000), at_ms(BEHIND_MS + 100.0)), None);
        assert_eq!(playout.plan(7, &steps, at_ms(BEHIND_MS + 100.0)).unwrap().sequence, 1);
    }

    #[test]
    fn after_a_pause_the_arm_is_not_led_along_a_curve_across_it() {
        let (mut playout, steps) = (playout(), steps());
        playout.push(&target(1, 100.0), at_ms(BEHIND_MS + 100.0));
        playout.push(&target(2, 400.0), at_ms(BEHIND_MS + 400.0));
        let plan = playout.plan(7, &steps, at_ms(BEHIND_MS + 400.0)).unwrap();
        assert!((420..428).contains(&plan.first_step), "{}", plan.first_step);
        let stop = Stop::of(&way(0.4), &BOUNDS);
        assert!((plan.waypoints.last().unwrap().positions_rad[0] - stop.at(9.0).position_rad).abs() < 1e-9);
    }

    #[test]
    fn begun_anew_only_the_newest_target_is_planned() {
        let (mut playout, steps) = (playout(), steps());
        for k in 1..6 {
            playout.push(&target(k, 100.0 + 7.0 * k as f64), at_ms(BEHIND_MS + 100.0 + 7.0 * k as f64));
        }
        playout.begin_anew();
        let plan = playout.plan(7, &steps, at_ms(BEHIND_MS + 135.0)).unwrap();
        assert!((155..163).contains(&plan.first_step), "{}", plan.first_step);
    }

    #[test]
    fn the_fastest_message_tells_the_clocks_apart_and_is_forgotten_slowly() {
        let mut clock = DueClock::default();
        let mut ours = |due_ms: f64, arrived_ms: f64| {
            clock.observe(at_ms(due_ms), at_ms(arrived_ms));
            clock.ours(due_ms * 1e-3)
        };
        assert!((ours(0.0, 5009.0) - 5.009).abs() < 1e-9);
        assert!((ours(7.0, 5008.0) - 5.008).abs() < 1e-9);
        // A late one is for when it would have come.
        assert!((ours(14.0, 5100.0) - 5.015).abs() < 2e-5);
        // A minute later our clock has gained 5 ms on theirs.
        let mut last = 0.0;
        for k in 0..60_i64 {
            let due_ms = (k * 1000) as f64;
            last = ours(due_ms, due_ms + 5001.0 + 0.09 * k as f64);
        }
        assert!((last - (59.0 + 5.001 + 59.0 * 0.09e-3)).abs() < 1e-3, "{last}");
    }

    #[test]
    fn a_faster_message_moves_the_whole_way_and_does_not_bend_it() {
        let (mut playout, steps) = (playout(), steps());
        for k in 1..20 {
            let due_ms = (k * PERIOD_MS) as f64;
            let delay_ms = if k < 19 { 9.0 } else { 0.5 };
            playout.push(&target(k as u64, due_ms), at_ms(BEHIND_MS + due_ms + delay_ms));
        }
        let plan = playout.plan(7, &steps, at_ms(BEHIND_MS + 133.5)).unwrap();
        for (n, w) in plan.waypoints.iter().enumerate() {
            let step = plan.first_step + n as i64 * 8;
            if step <= 153 {
                let wanted = way((step as f64 - 20.5) * 1e-3);
                assert!((w.velocities_rad_s[0] - wanted.velocity_rad_s).abs() < 2e-3, "{n}");
            }
        }
    }
}
