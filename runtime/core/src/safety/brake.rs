//! The quickest stop of one joint under limits of acceleration and jerk, and what it passes on its way.
//!
//! Every commanded motion keeps such a stop inside its limits in hand. It is what happens when nothing newer arrives.

use crate::arm::JointLimits;

/// Where a joint is commanded, and how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JointMotion {
    pub position_rad: f64,
    pub velocity_rad_s: f64,
    pub acceleration_rad_s2: f64,
}

impl JointMotion {
    pub fn at_rest(position_rad: f64) -> Self {
        Self { position_rad, ..Self::default() }
    }

    /// After `t_s` of constant jerk.
    pub fn after(&self, t_s: f64, jerk_rad_s3: f64) -> Self {
        let (a, j, t) = (self.acceleration_rad_s2, jerk_rad_s3, t_s);
        Self {
            position_rad: self.position_rad + t * (self.velocity_rad_s + t * (a / 2.0 + t * j / 6.0)),
            velocity_rad_s: self.velocity_rad_s + t * (a + t * j / 2.0),
            acceleration_rad_s2: a + t * j,
        }
    }

    pub fn is_finite(&self) -> bool {
        self.position_rad.is_finite() && self.velocity_rad_s.is_finite() && self.acceleration_rad_s2.is_finite()
    }

    fn mirrored(&self) -> Self {
        Self {
            position_rad: -self.position_rad,
            velocity_rad_s: -self.velocity_rad_s,
            acceleration_rad_s2: -self.acceleration_rad_s2,
        }
    }
}

/// What one joint may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointBounds {
    pub lower_rad: f64,
    pub upper_rad: f64,
    pub velocity_rad_s: f64,
    pub acceleration_rad_s2: f64,
    pub jerk_rad_s3: f64,
}

impl JointBounds {
    /// Of joint `i`, with `reserve_rad` kept free at both ends.
    pub fn of(limits: &JointLimits, i: usize, reserve_rad: f64) -> Self {
        Self {
            lower_rad: limits.lower_rad[i] + reserve_rad,
            upper_rad: limits.upper_rad[i] - reserve_rad,
            velocity_rad_s: limits.velocity_rad_s[i],
            acceleration_rad_s2: limits.acceleration_rad_s2[i],
            jerk_rad_s3: limits.jerk_rad_s3[i],
        }
    }
}

/// The stop: three phases of constant jerk (−J, 0, +J, or mirrored).
///
/// With v_z the velocity that would be left if the acceleration were taken back to zero now, v_z = v + a|a| / 2J, the stop
/// pulls against the sign of v_z: to the acceleration −A_p in the first phase, holds it in the second, takes it back in the third.
/// The velocities add up to −v: A_p² = J v + a²/2 where that stays below A (no second phase), else A_p = A.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// In coordinates in which v_z is not negative.
    start: JointMotion,
    mirrored: bool,
    phases_s: [f64; 3],
    jerk_rad_s3: f64,
}

impl Stop {
    /// The quickest stop of `motion`. An acceleration beyond the limit is not raised further.
    pub fn of(motion: &JointMotion, bounds: &JointBounds) -> Self {
        let J = bounds.jerk_rad_s3;
        let (v, a) = (motion.velocity_rad_s, motion.acceleration_rad_s2);
        let mirrored = v + a * a.abs() / (2.0 * J) < 0.0;
        let start = if mirrored { motion.mirrored() } else { *motion };
        let (v, a) = (start.velocity_rad_s, start.acceleration_rad_s2);
        // Rounding may put it a hair below what the first phase begins with.
        let unheld = (J * v + a * a / 2.0).max(0.0).sqrt().max(-a);
        let A = bounds.acceleration_rad_s2.max(-a);
        let (peak, hold_s) =
            if unheld <= A { (unheld, 0.0) } else { (A, ((v + (a * a - 2.0 * A * A) / (2.0 * J)) / A).max(0.0)) };
        Self { start, mirrored, phases_s: [((a + peak) / J).max(0.0), hold_s, peak / J], jerk_rad_s3: J }
    }

    pub fn duration_s(&self) -> f64 {
        self.phases_s.iter().sum()
    }

    /// The motion `t_s` after its start; at rest from its end on.
    pub fn at(&self, t_s: f64) -> JointMotion {
        let mut motion = self.start;
        let mut left_s = t_s.max(0.0);
        for (duration_s, sign) in self.phases_s.iter().zip([-1.0, 0.0, 1.0]) {
            if left_s <= 0.0 {
                break;
            }
            let t = left_s.min(*duration_s);
            motion = motion.after(t, sign * self.jerk_rad_s3);
            left_s -= t;
        }
        if t_s >= self.duration_s() {
            // What rounding has left of both must not move on.
            (motion.velocity_rad_s, motion.acceleration_rad_s2) = (0.0, 0.0);
        }
        if self.mirrored { motion.mirrored() } else { motion }
    }

    /// Lowest and highest position from its start to its end.
    pub fn extent_rad(&self) -> (f64, f64) {
        let (start, end) = (self.start.position_rad, self.at_unmirrored_end());
        let (mut low, mut high) = (start.min(end), start.max(end));
        let (v, a) = (self.start.velocity_rad_s, self.start.acceleration_rad_s2);
        if v < 0.0 && a > 0.0 {
            // It still moves the other way: the velocity passes zero in the first phase.
            let root = (a * a + 2.0 * self.jerk_rad_s3 * v).max(0.0).sqrt();
            let turn = self.start.after((a - root) / self.jerk_rad_s3, -self.jerk_rad_s3).position_rad;
            (low, high) = (low.min(turn), high.max(turn));
        }
        if self.mirrored { (-high, -low) } else { (low, high) }
    }

    /// Largest speed from its start to its end.
    pub fn peak_speed_rad_s(&self) -> f64 {
        let (v, a) = (self.start.velocity_rad_s, self.start.acceleration_rad_s2);
        let later = if a > 0.0 { v + a * a / (2.0 * self.jerk_rad_s3) } else { v };
        v.abs().max(later.abs())
    }

    fn at_unmirrored_end(&self) -> f64 {
        let end = self.at(self.duration_s()).position_rad;
        if self.mirrored { -end } else { end }
    }

    /// Whether the stop keeps to the bounds all the way.
    pub fn is_within(&self, bounds: &JointBounds) -> bool {
        let (low, high) = self.extent_rad();
        low >= bounds.lower_rad - POSITION_ROUNDING
            && high <= bounds.upper_rad + POSITION_ROUNDING
            && self.peak_speed_rad_s() <= bounds.velocity_rad_s * (1.0 + ROUNDING)
            && self.start.acceleration_rad_s2.abs() <= bounds.acceleration_rad_s2 * (1.0 + ROUNDING)
    }
}

/// What sums of a few floating point numbers may be off by: a state on a limit must not be refused for its last bit.
pub(super) const ROUNDING: f64 = 1e-9;
const POSITION_ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: JointBounds = JointBounds {
        lower_rad: -2.0,
        upper_rad: 2.0,
        velocity_rad_s: 1.5,
        acceleration_rad_s2: 6.0,
        jerk_rad_s3: 750.0,
    };

    fn motion(q: f64, v: f64, a: f64) -> JointMotion {
        JointMotion { position_rad: q, velocity_rad_s: v, acceleration_rad_s2: a }
    }

    #[test]
    fn from_full_speed_the_stop_takes_v_over_a_plus_a_over_j() {
        let stop = Stop::of(&motion(0.0, 1.5, 0.0), &BOUNDS);
        let wanted = 1.5 / 6.0 + 6.0 / 750.0;
        assert!((stop.duration_s() - wanted).abs() < 1e-12);
        // Half the speed on average.
        assert!((stop.at(1.0).position_rad - 0.75 * wanted).abs() < 1e-12);
        assert_eq!(stop.at(1.0).velocity_rad_s, 0.0);
    }

    proptest! {
        /// The phases in small steps: at rest at the end, never beyond the limits, and the extent is that of the steps.
        #[test]
        fn a_stop_ends_at_rest_within_its_limits(q in -1.0..1.0f64, v in -1.5..1.5f64, a in -6.0..6.0f64) {
            let start = motion(q, v, a);
            let stop = Stop::of(&start, &BOUNDS);
            let (mut low, mut high, mut speed) = (q, q, v.abs());
            let n = 4000;
            let mut last = start;
            for i in 1..=n {
                let dt = stop.duration_s() / n as f64;
                let now = stop.at(dt * i as f64);
                prop_assert!(now.acceleration_rad_s2.abs() <= 6.0 * (1.0 + 1e-9));
                prop_assert!((now.acceleration_rad_s2 - last.acceleration_rad_s2).abs() <= 750.0 * dt * (1.0 + 1e-6) + 1e-9);
                low = low.min(now.position_rad);
                high = high.max(now.position_rad);
                speed = speed.max(now.velocity_rad_s.abs());
                last = now;
            }
            let before = stop.at(stop.duration_s() * (1.0 - 1e-12));
            prop_assert!(before.velocity_rad_s.abs() < 1e-6 && before.acceleration_rad_s2.abs() < 1e-3, "{before:?}");
            let (l, h) = stop.extent_rad();
            prop_assert!(l <= low + 1e-12 && low - l < 1e-5, "{l} {low}");
            prop_assert!(h >= high - 1e-12 && h - high < 1e-5, "{h} {high}");
            prop_assert!(stop.peak_speed_rad_s() >= speed - 1e-12 && stop.peak_speed_rad_s() - speed < 1e-3);
        }

        /// The rest of a stop is the stop of what it has reached: braking again changes nothing.
        #[test]
        fn the_rest_of_a_stop_is_a_stop(v in -1.5..1.5f64, a in -6.0..6.0f64, part in 0.0..1.0f64) {
            let stop = Stop::of(&motion(0.0, v, a), &BOUNDS);
            let t = part * stop.duration_s();
            let rest = Stop::of(&stop.at(t), &BOUNDS);
            prop_assert!((rest.duration_s() + t - stop.duration_s()).abs() < 1e-6);
            prop_assert!((rest.at(9.0).position_rad - stop.at(9.0).position_rad).abs() < 1e-9);
        }
    }
}
