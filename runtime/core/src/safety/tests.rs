use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::arm::{RobotModel, T_flange_hand_tcp};
use crate::noise::SeededNoise;

const RESET: Joints = [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317];
const DT_S: f64 = 0.01;

fn limits(model: RobotModel) -> SafetyLimits {
    SafetyLimits {
        joints: model.limits(),
        joint_reserve_rad: 0.05,
        max_joint_velocity_rad_s: 1.5,
        acceleration_fraction: 0.8,
        jerk_fraction: 0.2,
        abort_tcp_step_m: 0.11,
        workspace: WorkspaceBox { min_m: [0.3, -0.4, 0.02], max_m: [0.8, 0.4, 0.5] },
        collision: CollisionLimits { clearance_m: 0.02, table_z_m: 0.0 },
    }
}

fn stage() -> SafetyStage {
    SafetyStage::new(Arm::new(T_flange_hand_tcp()), limits(RobotModel::Fer), DT_S, RESET)
}

fn off(i: usize, by: f64) -> Wanted {
    let mut q = RESET;
    q[i] += by;
    Wanted::still(q)
}

#[test]
fn a_nan_is_refused_and_the_arm_stays() {
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut s = stage();
        assert!(
            matches!(s.check(&off(3, wrong), DT_S), Verdict::Refused(q, Refusal::NotFinite { joint: 3 }) if q == RESET)
        );
        let moving = Wanted::moving(RESET, [0.0, 0.0, wrong, 0.0, 0.0, 0.0, 0.0]);
        assert!(matches!(s.check(&moving, DT_S), Verdict::Refused(q, Refusal::NotFinite { joint: 2 }) if q == RESET));
    }
}

#[test]
fn a_moving_arm_comes_to_rest_when_what_is_wanted_is_wrong() {
    let mut s = stage();
    for _ in 0..30 {
        s.check(&off(6, 0.4), DT_S);
    }
    assert!(s.velocity_rad_s()[6] > 0.5, "it moves: {:?}", s.velocity_rad_s());
    let (rest_s, stop) = (s.time_to_rest_s(), s.tail(9.0).map(|m| m.position_rad));
    let mut wrong = off(6, 0.4);
    wrong.position_rad[0] = f64::NAN;
    let periods = (rest_s / DT_S).ceil() as usize;
    for _ in 0..periods {
        assert!(matches!(s.check(&wrong, DT_S), Verdict::Refused(..)));
    }
    assert!(s.is_at_rest());
    for (q, end) in s.commanded_rad().iter().zip(stop) {
        assert!((q - end).abs() < 1e-9, "the stop in hand is what was executed");
    }
}

#[test]
fn from_full_speed_the_fer_rests_within_a_third_of_a_second() {
    let limits = limits(RobotModel::Fer);
    assert!(limits.longest_stop_s() <= 0.35, "{}", limits.longest_stop_s());
}

#[test]
fn a_jump_is_refused_and_the_box_is_not_left() {
    let mut s = stage();
    assert!(matches!(s.check(&off(0, 0.5), DT_S), Verdict::Refused(q, Refusal::Jump { .. }) if q == RESET));
    let mut refused = None;
    for _ in 0..3000 {
        let mut wanted = s.commanded_rad();
        wanted[0] += 0.1;
        if let Verdict::Refused(_, refusal) = s.check(&Wanted::still(wanted), DT_S) {
            refused = Some(refusal);
        }
        assert!(s.commanded_pose().translation.y <= 0.4 + 1e-6);
    }
    assert!(matches!(refused, Some(Refusal::Workspace { axis: 'y', .. })), "{refused:?}");
    assert!(s.commanded_pose().translation.y > 0.35, "it went as far as it may: {}", s.commanded_pose().translation.y);
    // And back is allowed.
    let back = Wanted::still(s.commanded_rad().map(|q| q - 0.02));
    assert!(!matches!(s.check(&back, DT_S), Verdict::Refused(..)));
}

#[test]
fn the_table_and_the_arm_itself_are_not_touched() {
    let mut s = SafetyStage::new(
        Arm::new(T_flange_hand_tcp()),
        SafetyLimits { workspace: WorkspaceBox { min_m: [-1.0; 3], max_m: [1.0; 3] }, ..limits(RobotModel::Fer) },
        DT_S,
        RESET,
    );
    let mut refused = None;
    for _ in 0..3000 {
        let mut wanted = s.commanded_rad();
        wanted[1] += 0.05;
        if let Verdict::Refused(_, refusal) = s.check(&Wanted::still(wanted), DT_S) {
            refused = Some(refusal);
        }
    }
    assert!(matches!(refused, Some(Refusal::Collision(Collision::Table { .. }))), "{refused:?}");
}

/// Steps that each are forgiven as rounding do not add up to a way into the table.
#[test]
fn an_arm_that_began_too_near_does_not_creep_nearer() {
    let arm = Arm::new(T_flange_hand_tcp());
    let height = |q: &Joints| arm.frames(q)[FRAMES - 1].point(&Vector3::zeros()).z;
    // Too near is wherever the hand is, if the clearance is more than that.
    let collision = CollisionLimits { clearance_m: 0.6, table_z_m: 0.0 };
    let workspace = WorkspaceBox { min_m: [-1.0; 3], max_m: [1.0; 3] };
    for lower in [true, false] {
        let limits = SafetyLimits { collision, workspace, ..limits(RobotModel::Fer) };
        let mut s = SafetyStage::new(arm, limits, DT_S, RESET);
        let mut wanted = RESET;
        for _ in 0..20_000 {
            wanted[1] += if lower { 1e-9 } else { -1e-9 };
            s.check(&Wanted::still(wanted), DT_S);
        }
        let by_m = height(&s.commanded_rad()) - height(&RESET);
        assert!(if lower { by_m > -2e-9 } else { by_m > 5e-6 }, "lower: {lower}, {by_m:.1e} m");
    }
}

/// A wrist that began beyond its end, `side` of it: pushed in, brought to rest, pushed out again.
fn in_and_out(side: f64, beyond_rad: f64) -> [f64; 3] {
    let limits = limits(RobotModel::Fer);
    let bounds = limits.bounds(6);
    let end = if side > 0.0 { bounds.upper_rad } else { bounds.lower_rad };
    let mut joints = RESET;
    joints[6] = end + side * beyond_rad;
    let mut s = SafetyStage::new(Arm::new(T_flange_hand_tcp()), limits, DT_S, joints);
    let push = |s: &mut SafetyStage, by: f64, periods: usize| {
        let mut farthest = f64::NEG_INFINITY;
        for _ in 0..periods {
            let mut wanted = s.commanded_rad();
            wanted[6] += side * by;
            s.check(&Wanted::still(wanted), DT_S);
            farthest = farthest.max(side * (s.commanded_rad()[6] - end));
        }
        while !s.is_at_rest() {
            s.brake(DT_S);
            farthest = farthest.max(side * (s.commanded_rad()[6] - end));
        }
        farthest
    };
    let out = push(&mut s, 0.05, 100);
    push(&mut s, -1e-3, 5);
    let left = side * (s.commanded_rad()[6] - end);
    [out, left, push(&mut s, 0.05, 300)]
}

#[test]
fn what_an_arm_that_began_outside_has_left_it_does_not_enter_again() {
    for side in [-1.0, 1.0] {
        for beyond_rad in [1e-4, 5e-3, 0.04] {
            let [out, left, again] = in_and_out(side, beyond_rad);
            assert!(out <= beyond_rad + 1e-12, "it began {beyond_rad} outside and went to {out}");
            assert!(left < beyond_rad, "it can come in: {left}");
            assert!(again <= left.max(0.0) + 1e-6, "it had come in to {left} and went out to {again} again");
        }
    }
}

#[test]
fn an_fr3_is_slower_near_the_ends_of_its_range() {
    let of = limits(RobotModel::Fr3);
    let ends = of.joints.slower_at_ends.expect("an FR3 has them");
    for i in 0..7 {
        let bounds = of.bounds(i);
        let (o, d, upper) = (ends.offset_rad_s[i], ends.deceleration_rad_s2[i], of.joints.upper_rad[i]);
        // As fast as a stop before the end allows, at any distance from it.
        for step in 1..2000 {
            let x = step as f64 * 1e-3;
            let (mut v, mut best) = (0.0, 0.0);
            while v <= bounds.velocity_rad_s {
                let at = JointMotion { position_rad: upper - x, velocity_rad_s: v, acceleration_rad_s2: 0.0 };
                if Stop::of(&at, &bounds).is_within(&bounds) {
                    best = v;
                }
                v += 0.01;
            }
            let allowed = (-o + (2.0 * d * x).max(0.0).sqrt()).max(0.0).min(of.joints.velocity_rad_s[i]);
            assert!(best <= allowed + 1e-9, "joint {}: {best} at {x} from the end, allowed {allowed}", i + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is wanted, however time passes: positions, their differences and the tool point keep their limits, and a stop that does
    /// so too is in hand.
    #[test]
    fn nothing_breaks_a_limit(seed in any::<u64>()) {
        let mut s = stage();
        let mut noise = SeededNoise::new(seed, 0);
        let mut last: [Option<Joints>; 3] = [None; 3];
        for _ in 0..300 {
            let now = s.commanded_rad();
            let mut uniform = |by: f64| (noise.rng().random::<f64>() * 2.0 - 1.0) * by;
            let mut position_rad = now.map(|q| q + uniform(0.15));
            let velocity_rad_s = [0.0; 7].map(|_: f64| uniform(3.0));
            let kind = (uniform(10.0).abs() * 10.0) as usize;
            match kind {
                0 => position_rad[1] = f64::NAN,
                1 => position_rad[2] = f64::INFINITY,
                2 => position_rad[3] = 1e300,
                3 => position_rad = [0.0; 7],
                _ => {}
            }
            let dt = match kind { 4 => -1.0, 5 => 0.0, 6 => f64::NAN, _ => DT_S };
            if kind < 20 { s.check(&Wanted::moving(position_rad, velocity_rad_s), dt); } else if kind < 25 { s.brake(dt); } else { s.check(&Wanted::still(position_rad), dt); }
            let q = s.commanded_rad();
            for i in 0..7 {
                let b = s.limits.bounds(i);
                prop_assert!(q[i].is_finite() && q[i] >= b.lower_rad - 1e-8 && q[i] <= b.upper_rad + 1e-8);
                if dt == DT_S && let [Some(q1), Some(q2), Some(q3)] = last {
                    let v = |a: &Joints, b: &Joints| (a[i] - b[i]) / DT_S;
                    let (v1, v2, v3) = (v(&q, &q1), v(&q1, &q2), v(&q2, &q3));
                    prop_assert!(v1.abs() <= 1.5 + 1e-6, "{v1}");
                    let (a1, a2) = ((v1 - v2) / DT_S, (v2 - v3) / DT_S);
                    prop_assert!(a1.abs() <= b.acceleration_rad_s2 + 1e-4, "{a1}");
                    prop_assert!(((a1 - a2) / DT_S).abs() <= b.jerk_rad_s3 + 1e-1);
                }
            }
            last = if dt == DT_S { [Some(q), last[0], last[1]] } else { [None; 3] };
            let tail = s.tail(1.0).map(|m| m.position_rad);
            for joints in [q, tail] {
                let p = s.arm.tcp(&joints).translation.vector;
                prop_assert!(s.limits.workspace.outside(&p).is_none_or(|(_, by)| by < 1e-4), "{p}");
            }
        }
    }
}

#[test]
fn skipped_periods_are_made_up_for() {
    let way = |t: f64| {
        let mut wanted = off(6, 0.2 * (1.0 - (3.0 * t).cos()));
        wanted.velocity_rad_s[6] = 0.6 * (3.0 * t).sin();
        wanted
    };
    let (mut every, mut some) = (stage(), stage());
    let mut last = 0;
    for k in 1..100 {
        every.check(&way(k as f64 * DT_S), DT_S);
        // Two of three are missed, and once five in a row.
        if k % 3 == 0 && !(40..45).contains(&k) {
            some.check(&way(k as f64 * DT_S), (k - last) as f64 * DT_S);
            last = k;
        }
    }
    assert_eq!(last, 99);
    let (a, b) = (every.motion()[6], some.motion()[6]);
    assert!((a.position_rad - b.position_rad).abs() < 3e-3, "{a:?} {b:?}");
    assert!((a.velocity_rad_s - b.velocity_rad_s).abs() < 0.02, "{a:?} {b:?}");
}
