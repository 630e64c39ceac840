//! The arm against itself and against the table, as capsules around its links.
//!
//! The capsules are the coarse collision model that Franka publishes with its robot description (radius, axis and place of each
//! link's body, Apache-2.0). Neighbouring links and those that can never meet are not compared: what is left is the forearm,
//! the wrist and the hand against the base, link 1 and link 2.

use nalgebra::Vector3;
use thiserror::Error;

use crate::arm::{Arm, FRAMES, Frame, Joints};

/// What is kept free around the capsules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CollisionLimits {
    /// Least distance between two bodies, m.
    pub clearance_m: f64,
    /// Height of the table's top in the robot's base, m. Forearm, wrist and hand stay above it.
    pub table_z_m: f64,
}

/// Two bodies that would come too near to each other.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum Collision {
    #[error("{a} would come within {distance_m:.3} m of {b} (limit {limit_m:.3} m)")]
    Bodies { a: Body, b: Body, distance_m: f64, limit_m: f64 },
    #[error("{a} would come within {distance_m:.3} m of the table (limit {limit_m:.3} m)")]
    Table { a: Body, distance_m: f64, limit_m: f64 },
}

/// A body of the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Base,
    Link(u8),
    Hand,
}

impl std::fmt::Display for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base => f.write_str("the base"),
            Self::Link(i) => write!(f, "link {i}"),
            Self::Hand => f.write_str("the hand"),
        }
    }
}

struct Capsule {
    body: Body,
    /// 0 the base, 1 to 7 the links, 8 the flange, as in [`Arm::frames`].
    frame: usize,
    from_m: [f64; 3],
    to_m: [f64; 3],
    radius_m: f64,
    /// All of it is within this of the middle of its axis.
    reach_m: f64,
}

const fn capsule(body: Body, frame: usize, from_m: [f64; 3], to_m: [f64; 3], radius_m: f64) -> Capsule {
    // Not shorter than half the axis, and a little for rounding.
    let half_m = ((to_m[0] - from_m[0]).abs() + (to_m[1] - from_m[1]).abs() + (to_m[2] - from_m[2]).abs()) / 2.0;
    Capsule { body, frame, from_m, to_m, radius_m, reach_m: half_m + radius_m + 1e-6 }
}

/// What does not come near itself.
const LOWER: [Capsule; 3] = [
    capsule(Body::Base, 0, [-0.075, 0.0, 0.06], [-0.0, 0.0, 0.06], 0.09),
    capsule(Body::Link(1), 1, [0.0, 0.0, -0.333], [0.0, 0.0, -0.05], 0.06),
    capsule(Body::Link(2), 2, [0.0, 0.0, -0.06], [0.0, 0.0, 0.06], 0.06),
];

/// What can come near the lower part and the table. The hand's body lies along the flange's y, turned by −45°.
const UPPER: [Capsule; 6] = [
    capsule(Body::Link(4), 4, [0.0, 0.0, -0.06], [0.0, 0.0, 0.06], 0.06),
    capsule(Body::Link(5), 5, [0.0, 0.0, -0.31], [0.0, 0.0, -0.21], 0.06),
    capsule(Body::Link(5), 5, [0.0, 0.08, -0.2], [0.0, 0.08, -0.06], 0.025),
    capsule(Body::Link(6), 6, [0.0, 0.0, -0.07], [0.0, 0.0, 0.01], 0.05),
    capsule(Body::Link(7), 7, [0.0, 0.0, -0.06], [0.0, 0.0, 0.08], 0.04),
    capsule(Body::Hand, 8, [-0.0354, -0.0354, 0.04], [0.0354, 0.0354, 0.04], 0.04),
];

/// The bodies that would be nearer than allowed with the joints at `q`, if any. Pairs that already were at `before` and do not
/// come nearer are allowed, so that an arm that starts too near can move away.
pub fn collision(arm: &Arm, q: &Joints, before: &Joints, limits: &CollisionLimits) -> Option<Collision> {
    let rule = Nearness { clearance_m: limits.clearance_m, before, slack_m: SLACK_M };
    collision_at(arm, &arm.frames(q), limits.table_z_m, &[rule])
}

/// Distances that are equal are computed equal to this, m.
pub(super) const SLACK_M: f64 = 1e-9;

/// Nearer than `clearance_m` is only what was as near, but for the slack, with the joints at `before`.
pub(super) struct Nearness<'a> {
    pub clearance_m: f64,
    pub before: &'a Joints,
    pub slack_m: f64,
}

/// The same for every rule, where the frames of the joints are known. The first rule has the largest clearance.
pub(super) fn collision_at<const RULES: usize>(
    arm: &Arm,
    frames: &[Frame; FRAMES],
    table_z_m: f64,
    rules: &[Nearness; RULES],
) -> Option<Collision> {
    let now = Placed::of(frames);
    let mut earlier = [const { None }; RULES];
    // The clearance that is broken. Most pairs are far, and where the arm was is then not computed.
    let mut broken = |distance_m: f64, then: &dyn Fn(&Placed) -> f64| {
        rules.iter().zip(&mut earlier).find_map(|(rule, earlier)| {
            (distance_m < rule.clearance_m && {
                let before = earlier.get_or_insert_with(|| Placed::of(&arm.frames(rule.before)));
                distance_m < then(before) - rule.slack_m
            })
            .then_some(rule.clearance_m)
        })
    };
    for (i, upper) in UPPER.iter().enumerate() {
        // The elbow is on the robot's side of the table's edge or not: only what reaches out is held above it.
        let distance_m = now.height(i) - table_z_m;
        if let Some(limit_m) = broken(distance_m, &|placed| placed.height(i) - table_z_m) {
            return Some(Collision::Table { a: upper.body, distance_m, limit_m });
        }
        if upper.body == Body::Link(4) {
            continue;
        }
        for (j, lower) in LOWER.iter().enumerate() {
            if now.is_far(i, j, rules[0].clearance_m) {
                continue;
            }
            let distance_m = now.distance(i, j);
            if let Some(limit_m) = broken(distance_m, &|placed| placed.distance(i, j)) {
                return Some(Collision::Bodies { a: upper.body, b: lower.body, distance_m, limit_m });
            }
        }
    }
    None
}

/// The segments of all capsules in the base.
struct Placed {
    lower: [[Vector3<f64>; 2]; LOWER.len()],
    upper: [[Vector3<f64>; 2]; UPPER.len()],
}

impl Placed {
    fn of(frames: &[Frame; FRAMES]) -> Self {
        let place = |c: &Capsule| {
            let frame = &frames[c.frame];
            [frame.point(&Vector3::from(c.from_m)), frame.point(&Vector3::from(c.to_m))]
        };
        Self { lower: std::array::from_fn(|i| place(&LOWER[i])), upper: std::array::from_fn(|i| place(&UPPER[i])) }
    }

    /// Farther apart than `clearance_m` already as the balls around both. Most pairs are, and need no closer look.
    fn is_far(&self, upper: usize, lower: usize, clearance_m: f64) -> bool {
        let ([a, b], [c, d]) = (&self.upper[upper], &self.lower[lower]);
        let between_m = ((a + b) - (c + d)) * 0.5;
        let reach_m = UPPER[upper].reach_m + LOWER[lower].reach_m + clearance_m;
        between_m.norm_squared() > reach_m * reach_m
    }

    fn height(&self, upper: usize) -> f64 {
        let [a, b] = self.upper[upper];
        a.z.min(b.z) - UPPER[upper].radius_m
    }

    fn distance(&self, upper: usize, lower: usize) -> f64 {
        segment_distance(&self.upper[upper], &self.lower[lower]) - UPPER[upper].radius_m - LOWER[lower].radius_m
    }
}

/// Distance of two segments (Ericson, Real-Time Collision Detection, section 5.1.9).
fn segment_distance([p1, q1]: &[Vector3<f64>; 2], [p2, q2]: &[Vector3<f64>; 2]) -> f64 {
    let (d1, d2, r): (Vector3<f64>, Vector3<f64>, Vector3<f64>) = (q1 - p1, q2 - p2, p1 - p2);
    let (a, e, f) = (d1.norm_squared(), d2.norm_squared(), d2.dot(&r));
    let (b, c) = (d1.dot(&d2), d1.dot(&r));
    let denominator = a * e - b * b;
    let mut s = if denominator > 1e-12 { ((b * f - c * e) / denominator).clamp(0.0, 1.0) } else { 0.0 };
    let t = (b * s + f) / e;
    let t = if t < 0.0 {
        s = (-c / a).clamp(0.0, 1.0);
        0.0
    } else if t > 1.0 {
        s = ((b - c) / a).clamp(0.0, 1.0);
        1.0
    } else {
        t
    };
    ((p1 + d1 * s) - (p2 + d2 * t)).norm()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::T_flange_hand_tcp;
    use proptest::prelude::*;
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};

    const LIMITS: CollisionLimits = CollisionLimits { clearance_m: 0.02, table_z_m: 0.0 };
    const RESET: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];

    fn arm() -> Arm {
        Arm::new(T_flange_hand_tcp())
    }

    #[test]
    fn usual_poses_are_free() {
        let ready = [0.0, -FRAC_PI_4, 0.0, -3.0 * FRAC_PI_4, 0.0, FRAC_PI_2, FRAC_PI_4];
        for q in [RESET, ready, [0.0, 0.6, 0.0, -1.9, 0.0, 2.5, 0.8]] {
            assert_eq!(collision(&arm(), &q, &q.map(|v| v + 0.01), &LIMITS), None);
        }
    }

    #[test]
    fn a_folded_arm_and_a_low_one_are_named() {
        // The hand folded back onto the base.
        let folded = [0.0, -1.6, 0.0, -2.97, 0.0, 0.6, 0.0];
        let found = collision(&arm(), &folded, &RESET, &LIMITS).expect("it touches itself");
        assert!(matches!(found, Collision::Bodies { .. }), "{found}");
        let low = [0.0, 1.5, 0.0, -0.6, 0.0, 2.0, 0.8];
        let found = collision(&arm(), &low, &RESET, &LIMITS).expect("it is in the table");
        assert!(matches!(found, Collision::Table { .. }), "{found}");
        // Away from there is allowed.
        assert_eq!(collision(&arm(), &[0.0, 1.45, 0.0, -0.6, 0.0, 2.0, 0.8], &low, &LIMITS), None);
    }

    proptest! {
        /// Leaving a pair out because the balls around it are far apart hides nothing.
        #[test]
        fn bodies_that_are_left_out_are_far_apart(q in proptest::array::uniform7(-3.0..3.0f64), clearance_m in 0.0..0.3f64) {
            let placed = Placed::of(&arm().frames(&q));
            for i in 0..UPPER.len() {
                for j in 0..LOWER.len() {
                    prop_assert!(!placed.is_far(i, j, clearance_m) || placed.distance(i, j) > clearance_m);
                }
            }
        }

        #[test]
        fn segments_are_as_far_apart_as_their_nearest_points(v in proptest::array::uniform12(-1.0..1.0f64)) {
            let point = |i: usize| Vector3::new(v[3 * i], v[3 * i + 1], v[3 * i + 2]);
            let (a, b) = ([point(0), point(1)], [point(2), point(3)]);
            let found = segment_distance(&a, &b);
            let on = |s: &[Vector3<f64>; 2], t: f64| s[0] + (s[1] - s[0]) * t;
            let mut least = f64::INFINITY;
            for i in 0..=60 {
                for j in 0..=60 {
                    least = least.min((on(&a, i as f64 / 60.0) - on(&b, j as f64 / 60.0)).norm());
                }
            }
            prop_assert!(found <= least + 1e-9 && least - found < 0.06, "{found} {least}");
        }
    }
}
