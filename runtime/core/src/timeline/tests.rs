use super::*;

const PERIOD_S: f64 = 0.1;

fn pose(x: f64, turn: f64) -> Pose {
    Pose::from_parts(Translation3::new(x, 0.2, 0.3), UnitQuaternion::from_scaled_axis(Vector3::new(0.0, turn, 0.0)))
}

fn target(x: f64) -> ToolTarget {
    ToolTarget { T_base_tcp: pose(x, x), gripper: Some(-1.0) }
}

/// A smooth way with a corner or two.
fn wave(k: i64) -> f64 {
    0.3 + 0.05 * (0.7 * k as f64).sin()
}

fn timeline(anchor: Anchor) -> Timeline {
    Timeline::new(pose(wave(0), wave(0)), 0.0, PERIOD_S, anchor)
}

/// Largest step of position and velocity between looks `dt` apart.
fn largest_steps(timeline: &Timeline, from_s: f64, to_s: f64, mut last: WayPoint, dt: f64) -> (f64, f64, WayPoint) {
    let (mut p, mut v) = (0.0_f64, 0.0_f64);
    let n = ((to_s - from_s) / dt).round() as usize;
    for k in 0..=n {
        let now = timeline.at(from_s + k as f64 * dt).expect("the way goes on");
        p = p.max((now.pose.translation.vector - last.pose.translation.vector).norm());
        v = v.max((now.linear_m_s - last.linear_m_s).norm());
        last = now;
    }
    (p, v, last)
}

#[test]
fn every_action_is_reached_at_its_instant_and_the_velocity_has_no_step() {
    let mut way = timeline(Anchor::Reanchor);
    assert_eq!(way.merge(HandOver::Sequential, 1, 1, 8, |i| target(wave(1 + i as i64))), Merged { late: 0, taken: 8 });
    for k in 1..=8 {
        let point = way.at(k as f64 * PERIOD_S).unwrap();
        assert!((point.pose.translation.x - wave(k)).abs() < 1e-12);
        assert!(point.pose.rotation.angle_to(&pose(0.0, wave(k)).rotation) < 1e-9);
    }
    assert_eq!(way.at(0.81), None, "behind the end there is no way");
    let start = WayPoint::at_rest(pose(wave(0), wave(0)));
    let (p, v, _) = largest_steps(&way, 0.0, 0.8, start, 1e-4);
    assert!(p < 1e-4 && v < 3e-3, "{p} {v}");
    // The velocity is that of the positions, in rotation too.
    for t in [0.05, 0.333, 0.71] {
        let (a, b) = (way.at(t - 1e-5).unwrap(), way.at(t + 1e-5).unwrap());
        let point = way.at(t).unwrap();
        let linear = (b.pose.translation.vector - a.pose.translation.vector) / 2e-5;
        let angular = (b.pose.rotation * a.pose.rotation.inverse()).scaled_axis() / 2e-5;
        assert!((linear - point.linear_m_s).norm() < 1e-6);
        let change = (b.linear_m_s - a.linear_m_s) / 2e-5;
        assert!((change - point.linear_m_s2).norm() < 1e-3);
        assert!((angular - point.angular_rad_s).norm() < 1e-4);
    }
}

#[test]
fn the_next_chunk_of_a_sequence_goes_on_without_a_step() {
    let mut way = timeline(Anchor::Reanchor);
    way.merge(HandOver::Sequential, 1, 1, 4, |i| target(wave(1 + i as i64)));
    let (_, _, last) = largest_steps(&way, 0.0, 0.38, WayPoint::at_rest(pose(wave(0), wave(0))), 1e-3);
    while way.pass(0.38).is_some() {}
    // It turns back sharply.
    way.merge(HandOver::Sequential, 2, 5, 4, |i| target(wave(4) - 0.02 * (i + 1) as f64));
    let (p, v, _) = largest_steps(&way, 0.381, 0.8, last, 1e-3);
    assert!(p < 1e-3 && v < 0.03, "{p} {v}");
}

#[test]
fn late_actions_are_dropped_and_the_pose_on_the_way_is_kept() {
    let mut way = timeline(Anchor::Reanchor);
    let mode = HandOver::Inpaint { executed: 4 };
    way.merge(mode, 1, 1, 8, |i| target(wave(1 + i as i64)));
    while way.pass(0.45).is_some() {}
    let before = way.at(0.45).unwrap();
    // Observed at instant 2; 3 and 4 are past, 5 is being moved to.
    let merged = way.merge(mode, 2, 3, 8, |i| target(wave(3 + i as i64) + 0.01));
    assert_eq!(merged, Merged { late: 3, taken: 5 });
    assert_eq!((way.at(0.45), way.end()), (Some(before), 11));
    assert_eq!(way.at(0.5).unwrap().pose.translation.x, wave(5));
    assert!((way.at(0.6).unwrap().pose.translation.x - wave(6) - 0.01).abs() < 1e-12);
    let (p, v, _) = largest_steps(&way, 0.45, 1.0, before, 1e-3);
    assert!(p < 1e-3 && v < 0.02, "{p} {v}");
    assert_eq!((way.ahead()[1].chunk, way.ahead()[1].step), (2, 3));
}

#[test]
fn a_blend_fades_in_and_an_ensemble_is_the_weighted_mean() {
    let both = |mode| {
        let mut way = timeline(Anchor::Reanchor);
        way.merge(mode, 1, 1, 8, |_| target(0.3));
        while way.pass(0.15).is_some() {}
        way.merge(mode, 2, 3, 8, |_| target(0.4));
        way
    };
    let x = |way: &Timeline| -> Vec<f64> { way.ahead().iter().map(|k| k.point.pose.translation.x).collect() };
    let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
    // Instant 2 is being moved to; 3 to 8 overlap, 9 and 10 are new.
    let blend = x(&both(HandOver::Blend { executed: 2, periods: 3 }));
    assert!(close(&blend, &[0.3, 0.325, 0.35, 0.375, 0.4, 0.4, 0.4, 0.4, 0.4]), "{blend:?}");
    let decay = 0.5;
    let ensemble = both(HandOver::Ensemble { executed: 2, decay });
    let w = (-decay).exp();
    let mean = (0.3 + 0.4 * w) / (1.0 + w);
    assert!(close(&x(&ensemble), &[0.3, mean, mean, mean, mean, mean, mean, 0.4, 0.4]), "{:?}", x(&ensemble));
    // A third one weighs exp(−2·decay).
    let mut third = ensemble;
    third.merge(HandOver::Ensemble { executed: 2, decay }, 3, 5, 4, |_| target(0.5));
    let mean = (0.3 + 0.4 * w + 0.5 * w * w) / (1.0 + w + w * w);
    assert!((x(&third)[3] - mean).abs() < 1e-9);
    assert_eq!(third.len(), 9, "an older chunk's longer view stays");
}

#[test]
fn after_a_block_the_grid_is_laid_anew_or_caught_up_with_by_name() {
    let run = |anchor| {
        let mut way = timeline(anchor);
        way.merge(HandOver::Sequential, 1, 1, 4, |i| target(wave(1 + i as i64)));
        while way.pass(1.0).is_some() {}
        assert!(way.is_empty());
        // 0.6 s late.
        let here = WayPoint::at_rest(pose(wave(4) + 0.004, wave(4)));
        way.resume(here, 1.0);
        way.merge(HandOver::Sequential, 2, 5, 12, |i| target(wave(5 + i as i64)));
        let begun = way.at(1.0).unwrap();
        assert_eq!((begun.pose, begun.linear_m_s), (here.pose, here.linear_m_s));
        way.ahead().iter().map(|knot| knot.time_s).collect::<Vec<_>>()
    };
    let anew = run(Anchor::Reanchor);
    assert!(anew.windows(2).all(|w| (w[1] - w[0] - PERIOD_S).abs() < 1e-9) && (anew[0] - 1.1).abs() < 1e-9);
    let burst = run(Anchor::CatchUp);
    assert!((burst[0] - 1.025).abs() < 1e-9 && (burst[4] - burst[3] - 0.025).abs() < 1e-9, "{burst:?}");
    assert!((burst[11] - 1.6).abs() < 1e-9, "the old schedule is met: {burst:?}");
}

#[test]
fn a_gripper_that_blocks_moves_what_lies_ahead() {
    let mut way = timeline(Anchor::Reanchor);
    way.merge(HandOver::Sequential, 1, 1, 6, |i| target(wave(1 + i as i64)));
    while way.pass(0.25).is_some() {}
    way.resume(WayPoint::at_rest(pose(wave(2), wave(2))), 2.0);
    assert_eq!(way.len(), 4);
    assert!((way.time_of(3) - 2.1).abs() < 1e-9 && (way.time_of(6) - 2.4).abs() < 1e-9);
    assert!((way.time_of(8) - 2.6).abs() < 1e-9, "and the grid behind it");
}

#[test]
fn relative_actions_start_from_the_instant_before_theirs() {
    let mut way = timeline(Anchor::Reanchor);
    assert_eq!(way.pose_before(1), pose(wave(0), wave(0)));
    way.merge(HandOver::Sequential, 1, 1, 4, |i| target(wave(1 + i as i64)));
    assert_eq!(way.pose_before(5).translation.x, wave(4));
    assert_eq!(way.pose_before(3).translation.x, wave(2));
    while way.pass(0.25).is_some() {}
    assert_eq!(way.pose_before(3).translation.x, wave(2));
    assert_eq!(way.pose_before(1).translation.x, wave(2), "what is past has been passed");
}
