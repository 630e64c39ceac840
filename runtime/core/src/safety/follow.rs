//! One joint follows a moving target inside its limits, with a stop in hand at every step.

use super::brake::{JointBounds, JointMotion, ROUNDING, Stop};

/// How quickly errors are closed, as rates of a cascade (position, velocity, acceleration), 1/s.
///
/// Each is a third of the next, which leaves no overshoot; the quickest is what a command period allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FollowGains {
    position_hz: f64,
    velocity_hz: f64,
    acceleration_hz: f64,
}

impl FollowGains {
    /// For commands every `period_s`.
    pub fn of_period(period_s: f64) -> Self {
        let acceleration_hz = 0.7 / period_s;
        Self { position_hz: acceleration_hz / 9.0, velocity_hz: acceleration_hz / 3.0, acceleration_hz }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub motion: JointMotion,
    /// It was too fast, or too near to an end of its range: a limit held it back. What jerk and acceleration take time for is no
    /// limit of where it goes.
    pub limited: bool,
}

/// The next motion of a joint, `dt_s` after `now`, toward a target that will be at `goal` then, moves with its velocity and changes that
/// by its acceleration.
///
/// If the stop of `now` is within the bounds, so is the result's: where the wanted jerk would leave none, less of it is taken, at the
/// worst the stop itself.
pub fn follow(now: &JointMotion, goal: &JointMotion, dt_s: f64, gains: &FollowGains, bounds: &JointBounds) -> Step {
    let brake = Stop::of(now, bounds).at(dt_s);
    let JointMotion { position_rad, velocity_rad_s, acceleration_rad_s2 } = *goal;
    if !goal.is_finite() || dt_s <= 0.0 {
        return Step { motion: if dt_s > 0.0 { brake } else { *now }, limited: true };
    }
    let (A, J) = (bounds.acceleration_rad_s2, bounds.jerk_rad_s3);
    // Where the joint would be if nothing were done, so that the error is that of the same instant.
    let coasting = now.after(dt_s, 0.0);
    let error = position_rad - coasting.position_rad;
    // Farther away than this the approach is that of a stop at half the acceleration: √(2·(A/2)·e).
    let linear = gains.position_hz * error;
    let approach = linear.abs().min((A * error.abs()).sqrt()) * error.signum();
    let V = bounds.velocity_rad_s;
    let too_fast = velocity_rad_s.abs() > V;
    let wanted_v = (velocity_rad_s + approach).clamp(-V, V);
    let wanted_a = (acceleration_rad_s2 + gains.velocity_hz * (wanted_v - coasting.velocity_rad_s)).clamp(-A, A);
    let wanted_j = gains.acceleration_hz * (wanted_a - now.acceleration_rad_s2);
    // The acceleration must not pass its limit within the step.
    let low_j = (-J).max((-A - now.acceleration_rad_s2) / dt_s);
    let high_j = J.min((A - now.acceleration_rad_s2) / dt_s);
    let jerk = wanted_j.clamp(low_j.min(high_j), high_j.max(low_j));
    let is_kept = |j: f64| {
        let next = now.after(dt_s, j);
        // Between the two the velocity is largest where the acceleration passes zero.
        let between = if j != 0.0 && now.acceleration_rad_s2 * next.acceleration_rad_s2 < 0.0 {
            now.after(-now.acceleration_rad_s2 / j, j).velocity_rad_s.abs()
        } else {
            0.0
        };
        (between <= bounds.velocity_rad_s * (1.0 + ROUNDING) && Stop::of(&next, bounds).is_within(bounds))
            .then_some(next)
    };
    if let Some(motion) = is_kept(jerk) {
        return Step { motion, limited: too_fast };
    }
    // Between the wanted jerk, which leaves no stop, and one toward the stop, which does where one step of it is enough.
    let toward_stop = ((brake.acceleration_rad_s2 - now.acceleration_rad_s2) / dt_s).clamp(-J, J);
    let (mut bad, mut good, mut motion) = (jerk, toward_stop, None);
    if is_kept(good).is_some() {
        for _ in 0..12 {
            let middle = 0.5 * (bad + good);
            match is_kept(middle) {
                Some(next) => (good, motion) = (middle, Some(next)),
                None => bad = middle,
            }
        }
        motion = motion.or_else(|| is_kept(good));
    }
    Step { motion: motion.unwrap_or(brake), limited: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DT_S: f64 = 0.007;
    const BOUNDS: JointBounds = JointBounds {
        lower_rad: -2.0,
        upper_rad: 2.0,
        velocity_rad_s: 1.5,
        acceleration_rad_s2: 6.0,
        jerk_rad_s3: 750.0,
    };

    fn toward(position_rad: f64, velocity_rad_s: f64) -> JointMotion {
        JointMotion { position_rad, velocity_rad_s, acceleration_rad_s2: 0.0 }
    }

    #[test]
    fn a_smooth_way_is_followed_without_lag_where_its_acceleration_is_known() {
        let gains = FollowGains::of_period(DT_S);
        let way = |t: f64, known: f64| JointMotion {
            position_rad: 0.2 * (1.0 - (4.0 * t).cos()),
            velocity_rad_s: 0.8 * (4.0 * t).sin(),
            acceleration_rad_s2: known * 3.2 * (4.0 * t).cos(),
        };
        let worst = |known: f64| {
            let mut motion = JointMotion::at_rest(0.0);
            let mut worst = 0.0_f64;
            for k in 1..600 {
                let goal = way(f64::from(k) * DT_S, known);
                motion = follow(&motion, &goal, DT_S, &gains, &BOUNDS).motion;
                worst = worst.max(if k > 100 { (motion.position_rad - goal.position_rad).abs() } else { 0.0 });
            }
            worst
        };
        let (with, without) = (worst(1.0), worst(0.0));
        assert!(with < 2e-3 && with < 0.3 * without, "{with} {without}");
    }

    #[test]
    fn a_far_target_is_reached_without_overshoot() {
        let gains = FollowGains::of_period(DT_S);
        for goal in [1.9, 0.3, 0.01, -1.2] {
            let mut motion = JointMotion::at_rest(0.0);
            let mut furthest: f64 = 0.0;
            for _ in 0..500 {
                motion = follow(&motion, &JointMotion::at_rest(goal), DT_S, &gains, &BOUNDS).motion;
                furthest = furthest.max(motion.position_rad / goal);
            }
            assert!((motion.position_rad - goal).abs() < 1e-6, "{goal}: {motion:?}");
            assert!(furthest < 1.0 + 5e-3, "{goal}: overshoot {furthest}");
        }
    }

    #[test]
    fn a_smooth_target_is_followed_closely() {
        let gains = FollowGains::of_period(DT_S);
        let mut motion = JointMotion::at_rest(0.0);
        let mut worst: f64 = 0.0;
        for i in 1..1000 {
            let t = i as f64 * DT_S;
            let (q, v) = (0.2 * (1.0 - (2.0 * t).cos()), 0.4 * (2.0 * t).sin());
            let step = follow(&motion, &toward(q, v), DT_S, &gains, &BOUNDS);
            motion = step.motion;
            worst = worst.max((motion.position_rad - q).abs());
        }
        // The acceleration (0.8 rad/s²) over both rates of the cascade.
        assert!(worst < 3e-3, "{worst}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// Whatever is wanted, and however unevenly time passes: the commanded positions keep every limit, and a stop is in hand.
        #[test]
        fn no_target_breaks_a_limit(
            start in -2.0..2.0f64,
            steps in proptest::collection::vec((-4.0..4.0f64, -6.0..6.0f64, 0.0..1.0f64, 0u8..20), 50..200),
        ) {
            let gains = FollowGains::of_period(DT_S);
            let mut motion = JointMotion::at_rest(start);
            let mut last_v: Option<f64> = None;
            let mut last_a: Option<f64> = None;
            for (q, v, part, kind) in steps {
                let dt = if part < 0.8 { DT_S } else { DT_S * part };
                let q = match kind { 0 => f64::NAN, 1 => f64::INFINITY, 2 => 1e300, _ => q };
                let next = follow(&motion, &toward(q, v), dt, &gains, &BOUNDS).motion;
                prop_assert!(next.is_finite());
                prop_assert!(next.position_rad.abs() <= 2.0 + 1e-8, "{next:?}");
                let mean_v = (next.position_rad - motion.position_rad) / dt;
                prop_assert!(mean_v.abs() <= 1.5 + 1e-7, "{mean_v}");
                prop_assert!(next.velocity_rad_s.abs() <= 1.5 + 1e-7);
                prop_assert!(next.acceleration_rad_s2.abs() <= 6.0 + 1e-6, "{next:?}");
                prop_assert!((next.acceleration_rad_s2 - motion.acceleration_rad_s2).abs() <= 750.0 * dt + 1e-6);
                // What somebody sees who has only the positions.
                if let Some(v) = last_v && dt == DT_S {
                    let a = (mean_v - v) / dt;
                    prop_assert!(a.abs() <= 6.0 + 1e-4, "{a}");
                    last_a = Some(a);
                }
                let _ = last_a;
                last_v = (dt == DT_S).then_some(mean_v);
                let stop = Stop::of(&next, &BOUNDS);
                prop_assert!(stop.is_within(&JointBounds { lower_rad: -2.0 - 1e-8, upper_rad: 2.0 + 1e-8, velocity_rad_s: 1.5 + 1e-7, acceleration_rad_s2: 6.0 + 1e-6, ..BOUNDS }), "{next:?}");
                motion = next;
            }
        }
    }
}
