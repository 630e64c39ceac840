use super::*;
use tenon_core::arm::RobotModel;
use tenon_core::message::GripperPhase;

const REST: Joints = [0.0, -0.6, 0.1, -2.2, 0.0, 1.6, 0.7];

fn judge() -> StillJudge {
    StillJudge::new(StillSettings::new(RobotModel::Fer.limits(), Duration::from_millis(250)))
}

fn at_ms(ms: i64) -> MonotonicTime {
    MonotonicTime::from_nanos(ms * 1_000_000)
}

/// The robot's clock runs beside ours, far off.
fn state(ms: i64, change: impl FnOnce(&mut RobotState)) -> Option<Stamped<RobotState>> {
    let mut value = RobotState {
        sequence: ms as u64,
        robot_time: RobotTime::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000),
        joint_positions_rad: REST,
        joint_velocities_rad_s: [1e-3; 7],
        joint_torques_external_nm: [0.0; 7],
        gripper_width_m: f64::NAN,
        gripper: GripperPhase::Absent,
        error_code: 0,
    };
    change(&mut value);
    Some(Stamped { time: at_ms(ms), value })
}

fn rest(_: &mut RobotState) {}

/// Judges a state every 20 ms from `from` to `to`, and gives the last decision.
fn watch(judge: &mut StillJudge, from: i64, to: i64, change: impl Fn(i64, &mut RobotState)) -> Stillness {
    let mut last = Stillness::Refused(Refusal::NoState);
    for ms in (from..=to).step_by(20) {
        last = judge.judge(at_ms(ms), state(ms, |s| change(ms, s)));
    }
    last
}

#[test]
fn an_arm_is_still_once_it_rests_for_half_a_second() {
    let mut judge = judge();
    assert_eq!(watch(&mut judge, 0, 300, |_, _| {}), Stillness::Settling { left: Duration::from_millis(200) });
    assert!(matches!(watch(&mut judge, 320, 480, |_, _| {}), Stillness::Settling { .. }));
    let Stillness::Still(found) = judge.judge(at_ms(500), state(500, rest)) else { panic!("not still") };
    assert_eq!(found.joint_positions_rad, REST);
    judge.forget();
    assert!(matches!(judge.judge(at_ms(520), state(520, rest)), Stillness::Settling { .. }));
}

#[test]
fn motion_begins_the_wait_anew_and_names_the_fastest_joint() {
    let mut judge = judge();
    watch(&mut judge, 0, 480, |_, _| {});
    let moving = judge.judge(at_ms(500), state(500, |s| s.joint_velocities_rad_s[3] = -0.02));
    assert_eq!(moving, Stillness::Moving { joint: 3, velocity_rad_s: 0.02 });
    assert!(matches!(watch(&mut judge, 520, 1000, |_, _| {}), Stillness::Settling { .. }));
    assert!(matches!(judge.judge(at_ms(1020), state(1020, rest)), Stillness::Still(_)));
}

#[test]
fn an_arm_that_sinks_slowly_never_is_still() {
    let mut judge = judge();
    // 2 mrad/s: below the limit of speed, but 1 mrad in the half second.
    for ms in (0..5000).step_by(20) {
        let sinking = state(ms, |s| s.joint_positions_rad[1] += 2e-6 * ms as f64);
        assert!(!matches!(judge.judge(at_ms(ms), sinking), Stillness::Still(_)), "{ms}");
    }
}

#[test]
fn old_states_are_refused_by_their_age() {
    let mut judge = judge();
    assert_eq!(judge.judge(at_ms(0), None), Stillness::Refused(Refusal::NoState));
    watch(&mut judge, 0, 600, |_, _| {});
    let said = judge.judge(at_ms(1000), state(600, rest));
    let age = Duration::from_millis(400);
    assert_eq!(said, Stillness::Refused(Refusal::Stale { age, clock_stands: false }));
    // The wait begins anew with the next state.
    assert!(matches!(judge.judge(at_ms(1020), state(1020, rest)), Stillness::Settling { .. }));
}

#[test]
fn a_state_that_is_repeated_is_as_old_as_the_first_of_its_kind() {
    let mut judge = judge();
    watch(&mut judge, 0, 600, |_, _| {});
    let stood = |s: &mut RobotState| s.robot_time = RobotTime::from_nanos(1_700_000_000_600_000_000);
    let said = watch(&mut judge, 620, 900, |_, s| stood(s));
    let Stillness::Refused(Refusal::Stale { age, clock_stands: true }) = said else { panic!("{said:?}") };
    assert_eq!(age, Duration::from_millis(300));
    assert!(Refusal::Stale { age, clock_stands: true }.to_string().contains("own clock has stood still"));
}

#[test]
fn a_gap_between_two_states_is_no_stillness() {
    let mut judge = judge();
    watch(&mut judge, 0, 400, |_, _| {});
    // Fresh when it is judged, but what happened in the second before it nobody knows.
    assert!(matches!(judge.judge(at_ms(1400), state(1400, rest)), Stillness::Settling { .. }));
}

#[test]
fn numbers_that_cannot_be_are_refused_with_their_joint() {
    let refused = |change: fn(&mut RobotState)| {
        let mut judge = judge();
        watch(&mut judge, 0, 600, |_, _| {});
        match judge.judge(at_ms(620), state(620, change)) {
            Stillness::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(|s| s.joint_positions_rad[4] = f64::NAN).contains("joint 5 is not a number"));
    assert!(refused(|s| s.joint_velocities_rad_s[0] = f64::INFINITY).contains("joint 1 is not a number"));
    assert!(refused(|s| s.error_code = 1).contains("error_code 1"));
    let said = refused(|s| s.joint_positions_rad[3] = 0.4);
    assert!(said.contains("joint 4 stands at 0.400 rad") && said.contains("`model` in robot.toml"), "{said}");
}
