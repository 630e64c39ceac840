//! Runs and motions: what is executed when, and what of it is not.

use super::bench::*;

#[test]
fn a_disarmed_controller_commands_nothing() {
    let mut bench = Bench::new(1);
    for _ in 0..50 {
        let outcome = bench.tick(None);
        assert!(outcome.target.is_none() && outcome.request.is_none());
    }
    assert_eq!(bench.controller.phase(), Phase::Disarmed);
}

#[test]
fn a_run_executes_its_actions_at_the_policys_period() {
    let mut bench = Bench::armed(1);
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 12 }));
    bench.until(3, |e| matches!(e, Event::RunStarted));
    let ticks = bench.until(200, |e| matches!(e, Event::RunEnded { actions: 12 }));
    // From where the way begins to where the arm has reached its end: 12 · 5.
    assert_eq!(ticks, 60);
    assert!((bench.tcp()[1] - y - 12.0 * 0.005).abs() < 1e-4, "{:?}", bench.tcp());
    assert_eq!(bench.controller.phase(), Phase::Stopping, "a run ends in a stop");
    // One request a chunk: at the start, and in the last period of each chunk but the last.
    assert_eq!(bench.requests.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn the_observation_of_a_chunk_is_one_period_old() {
    let mut bench = Bench::armed(1);
    bench.tick(Some(Order::Run { actions: 8 }));
    let y0 = bench.requests[0].1[1];
    bench.until(200, |e| matches!(e, Event::RunEnded { .. }));
    // Taken before the fourth action: three increments of 5 mm are commanded by then.
    assert!((bench.requests[1].1[1] - y0 - 0.015).abs() < 1e-5, "{:?}", bench.requests);
}

#[test]
fn without_a_delay_the_arm_holds_for_the_policy() {
    let mut bench = Bench::armed(0);
    bench.tick(Some(Order::Run { actions: 8 }));
    bench.until(100, |e| matches!(e, Event::RunEnded { actions: 8 }));
    let y0 = bench.requests[0].1[1];
    assert!((bench.requests[1].1[1] - y0 - 0.020).abs() < 1e-5, "all four actions are done: {:?}", bench.requests);
}

#[test]
fn an_action_beyond_the_caps_is_shortened_and_counted() {
    fn far(_: u64) -> Vec<f32> {
        vec![0.0, 0.08, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    }
    let mut bench = Bench::armed(1);
    bench.policy = Some(far);
    let y = bench.tcp()[1];
    bench.tick(Some(Order::Run { actions: 4 }));
    bench.until(200, |e| matches!(e, Event::RunEnded { .. }));
    assert!((bench.tcp()[1] - y - 0.05).abs() < 1e-4, "{:?}", bench.tcp());
    assert_eq!(bench.controller.counts().shortened, 1);
}

#[test]
fn a_missing_chunk_holds_the_position_and_then_faults() {
    let mut bench = Bench::armed(1);
    bench.policy = None;
    bench.tick(Some(Order::Run { actions: 8 }));
    let q = bench.arm.joint_positions_rad;
    let ticks = bench.until(200, |e| matches!(e, Event::Faulted(FaultCause::NoChunk(_))));
    assert!((60..90).contains(&ticks), "{ticks}");
    assert_eq!(bench.arm.joint_positions_rad, q);
}

#[test]
fn a_stale_chunk_is_never_executed() {
    let mut bench = Bench::armed(1);
    bench.policy = None;
    bench.chunk = ActionChunk::new(77, 2, &forward(77));
    let q = bench.arm.joint_positions_rad;
    bench.tick(Some(Order::Run { actions: 8 }));
    for _ in 0..20 {
        bench.tick(None);
    }
    assert_eq!(bench.arm.joint_positions_rad, q);
}

#[test]
fn a_policy_that_only_a_simulation_can_feed_is_refused() {
    let mut spec = spec(1);
    spec.observation = vec![ObservationField::Task(4)];
    let refused = Controller::new(settings(), &spec).expect_err("nobody can observe this on a robot");
    assert!(refused.to_string().contains("only a simulation"), "{refused}");
}

#[test]
fn a_motion_ends_where_it_was_sent_and_keeps_the_speed_limit() {
    let mut bench = Bench::armed(1);
    let mut goal = *bench.controller.commanded_pose();
    goal.translation.vector.z += 0.1;
    goal.translation.vector.y += 0.2;
    bench.tick(Some(Order::Move(Motion::waypoints(&[goal], 0.5).expect("one way-point"))));
    bench.until(2000, |e| matches!(e, Event::MotionEnded));
    let arm = Arm::new(tool_along_flange_z(0.105, -std::f64::consts::FRAC_PI_4));
    assert!((arm.tcp(&bench.arm.joint_positions_rad).translation.vector - goal.translation.vector).norm() < 1e-4);
    assert!(bench.largest_step_rad <= 1.5 * 0.007 + 1e-9, "{}", bench.largest_step_rad);
}
