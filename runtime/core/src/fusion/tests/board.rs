//! The block that the policy sees.

use super::*;
use crate::time::Stamped;
use std::time::Duration;

const TOP: usize = 0;
const LEG4: usize = 4;

fn config() -> FusionConfig {
    let leg = |n: usize, x_m: f64| FrozenPart {
        part: format!("square_table_leg{n}"),
        position_m: [x_m, 0.07, -0.015],
        quat_xyzw: [0.0, -0.5f64.sqrt(), 0.0, 0.5f64.sqrt()],
    };
    FusionConfig { frozen: vec![leg(1, -0.2), leg(2, -0.12), leg(3, 0.12)], ..Default::default() }
}

fn board(config: &FusionConfig, T_robot_board: &Pose) -> PartBoard {
    PartBoard::new(Furniture::OneLeg, config, T_robot_board, 3, frame(0)).unwrap()
}

fn see(board: &mut PartBoard, index: usize, T: Pose, at: MonotonicTime) -> Outcome {
    board.update(index, &measurement(T, covariance(0.001, 1.0), at), at)
}

/// Row of a part in the block.
fn row(out: &[f32], index: usize) -> [f64; 7] {
    std::array::from_fn(|i| f64::from(out[index * 7 + i]))
}

fn assert_row(out: &[f32], index: usize, want: [f64; 7]) {
    for (got, want) in row(out, index).into_iter().zip(want) {
        assert!((got - want).abs() < 1e-5, "part {index}: {:?}, wanted {want:?}", row(out, index));
    }
}

#[test]
fn the_block_has_the_parts_in_the_policys_order_and_the_bar_last() {
    let mut board = board(&config(), &T_robot_april_training());
    assert_eq!(board.dim(), 42);
    see(&mut board, TOP, pose([0.0, 0.24, -0.015], [0.0, 0.0, 40.0]), frame(1));
    see(&mut board, LEG4, pose([0.2, 0.07, -0.015], [-90.0, 0.0, 0.0]), frame(1));
    let mut out = [0.0; 42];
    let block = board.write(frame(2), None, &mut out).unwrap();
    let (s, c) = (20f64.to_radians().sin(), 20f64.to_radians().cos());
    let h = 0.5f64.sqrt();
    assert_row(&out, TOP, [0.0, 0.24, -0.015, 0.0, 0.0, s, c]);
    assert_row(&out, 1, [-0.2, 0.07, -0.015, 0.0, -h, 0.0, h]);
    assert_row(&out, 3, [0.12, 0.07, -0.015, 0.0, -h, 0.0, h]);
    assert_row(&out, LEG4, [0.2, 0.07, -0.015, -h, 0.0, 0.0, h]);
    assert_row(&out, 5, [0.0, 0.38, -0.015, -1.0, 0.0, 0.0, 0.0]);
    assert_eq!(block.oldest_age, Duration::from_nanos(FRAME_NS as u64));
    assert!(block.least_confidence > 0.5 && block.least_confidence < 1.0);
}

#[test]
fn a_missing_part_is_named_and_nothing_is_written() {
    let mut board = board(&config(), &T_robot_april_training());
    see(&mut board, TOP, part(), frame(1));
    let mut out = [7.5; 42];
    let error = board.write(frame(2), None, &mut out).unwrap_err();
    assert_eq!(error, NotReady { part: "square_table_leg4", since: frame(0), why: Why::NeverSeen });
    assert_eq!(error.to_string(), "square_table_leg4 is not ready: it was never seen");
    assert_eq!(out, [7.5; 42]);
    see(&mut board, LEG4, part(), frame(3));
    assert!(board.write(frame(3), None, &mut out).is_ok());
    // The top was seen at frame 1 only.
    let error = board.write(frame(17), None, &mut out).unwrap_err();
    assert_eq!(error, NotReady { part: "square_table_top", since: frame(1), why: Why::Lost });
}

#[test]
fn a_pose_older_than_the_policy_may_use_is_not_ready_though_it_still_coasts() {
    let mut board = board(&FusionConfig { max_age_s: 0.25, ..config() }, &T_robot_april_training());
    see(&mut board, TOP, part(), millis(0));
    see(&mut board, LEG4, part(), millis(100));
    let mut out = [0.0; 42];
    assert!(board.write(millis(250), None, &mut out).is_ok());
    let error = board.write(millis(260), None, &mut out).unwrap_err();
    assert_eq!(error, NotReady { part: "square_table_top", since: millis(0), why: Why::TooOld });
}

#[test]
fn the_boards_correction_moves_what_is_measured_and_not_what_is_frozen() {
    // The authors' bench: 11.5 mm nearer, 20 mm to the left, 10 mm higher than in training.
    let mut bench = T_robot_april_training();
    bench.translation.vector = Vector3::new(0.29, 0.02, 0.01);
    let T = pose([0.05, 0.2, -0.02], [0.0, 0.0, 30.0]);
    // april x = robot y, april y = robot x, april z = −robot z.
    let want = [[0.05 + 0.02, 0.2 - 0.0115, -0.02 - 0.01], [0.05, 0.2, -0.02]];
    for (correction, want) in [BoardCorrection::Recalibrated, BoardCorrection::RawApril].into_iter().zip(want) {
        let mut board = board(&FusionConfig { board: correction, ..config() }, &bench);
        see(&mut board, TOP, T, frame(1));
        see(&mut board, LEG4, T, frame(1));
        let mut out = [0.0; 42];
        board.write(frame(1), None, &mut out).unwrap();
        let (s, c) = (15f64.to_radians().sin(), 15f64.to_radians().cos());
        assert_row(&out, TOP, [want[0], want[1], want[2], 0.0, 0.0, s, c]);
        assert_row(&out, 1, [-0.2, 0.07, -0.015, 0.0, -0.5f64.sqrt(), 0.0, 0.5f64.sqrt()]);
    }
}

#[test]
fn a_turned_board_turns_the_parts() {
    let yaw = pose([0.3015, 0.0, 0.0], [0.0, 0.0, 10.0]);
    let turned = Pose::from_parts(yaw.translation, yaw.rotation * T_robot_april_training().rotation);
    let mut board = board(&config(), &turned);
    let T = pose([0.05, 0.2, -0.02], [0.0, 0.0, 0.0]);
    see(&mut board, TOP, T, frame(1));
    see(&mut board, LEG4, T, frame(1));
    let mut out = [0.0; 42];
    board.write(frame(1), None, &mut out).unwrap();
    // The part in the robot's base is where the physical board puts it, and where the policy takes it to be.
    let [x, y, z, qx, qy, qz, qw] = row(&out, TOP);
    let rotation = UnitQuaternion::from_quaternion(nalgebra::Quaternion::new(qw, qx, qy, qz));
    let shown = T_robot_april_training() * Pose::from_parts(Translation3::new(x, y, z), rotation);
    assert!(pose_error(&shown, &(turned * T)).norm() < 1e-6);
}

#[test]
fn a_held_leg_has_its_height_corrected_once() {
    let heights = vec![HeightCorrection { part: "square_table_leg4".to_owned(), april_z_m: 0.0028 }];
    let T_robot_board = T_robot_april_training();
    let mut board = board(&FusionConfig { heights, ..config() }, &T_robot_board);
    let leg = pose([0.2, 0.07, -0.015], [0.0, 0.0, 0.0]);
    see(&mut board, TOP, part(), frame(1));
    see(&mut board, LEG4, leg, frame(1));
    let mut out = [0.0; 42];
    board.write(frame(1), None, &mut out).unwrap();
    assert!((row(&out, LEG4)[2] + 0.0122).abs() < 1e-6);
    // Gripped, carried up by 10 cm without turning: still 2.8 mm, not 5.6.
    let T_robot_tcp = T_robot_board * pose([0.2, 0.07, -0.02], [0.0, 0.0, 0.0]);
    let grasped = board.on_gripper_event(GripperEvent::Closed { width_m: 0.0286 }, frame(2), Some(&T_robot_tcp));
    assert_eq!(grasped, Some(LEG4));
    let up = Stamped { time: frame(3), value: T_robot_board * pose([0.2, 0.07, -0.12], [0.0, 0.0, 0.0]) };
    board.write(frame(3), Some(&up), &mut out).unwrap();
    assert!((row(&out, LEG4)[2] + 0.1122).abs() < 1e-6, "{:?}", row(&out, LEG4));
    // Without the tool's pose it is not ready.
    let error = board.write(frame(3), None, &mut out).unwrap_err();
    assert_eq!((error.part, error.why), ("square_table_leg4", Why::NoToolPose));
    // Opening releases it, and only it.
    assert_eq!(board.on_gripper_event(GripperEvent::Opening, frame(4), Some(&up.value)), Some(LEG4));
    board.write(frame(4), None, &mut out).unwrap();
    assert!((row(&out, LEG4)[2] + 0.1122).abs() < 1e-6);
}

#[test]
fn of_two_parts_near_the_fingers_the_nearer_one_is_held() {
    let T_robot_board = T_robot_april_training();
    let mut board = board(&config(), &T_robot_board);
    see(&mut board, TOP, pose([0.1, 0.1, 0.0], [0.0; 3]), frame(1));
    see(&mut board, LEG4, pose([0.1, 0.15, 0.0], [0.0; 3]), frame(1));
    let T_robot_tcp = T_robot_board * pose([0.1, 0.14, 0.0], [0.0; 3]);
    let event = GripperEvent::Closed { width_m: 0.0286 };
    assert_eq!(board.on_gripper_event(event, frame(2), Some(&T_robot_tcp)), Some(LEG4));
    assert_eq!(board.on_gripper_event(event, frame(3), Some(&T_robot_tcp)), None);
    let held = |board: &PartBoard, index| {
        let stamped = Stamped { time: frame(3), value: T_robot_tcp };
        matches!(board.estimate(index, frame(3), Some(&stamped)).unwrap().unwrap().state, PartState::Held { .. })
    };
    assert!(held(&board, LEG4) && !held(&board, TOP));
}

#[test]
fn near_the_seam_hysteresis_keeps_the_numbers_together() {
    // The square top's nominal rotation has w = 0.
    let nominal = UnitQuaternion::from_quaternion(nalgebra::Quaternion::new(0.0, 0.0, -0.5f64.sqrt(), 0.5f64.sqrt()));
    let jumps = |rule: SignRule| {
        let mut board = board(&FusionConfig { quaternion_sign: rule, ..config() }, &T_robot_april_training());
        let (mut rng, R, mut jumps, mut last) = (rng(21), covariance(0.001, 1.0), 0, None::<f64>);
        let truth = Pose::from_parts(Translation3::new(0.0, 0.24, -0.0156), nominal);
        for n in 0..600 {
            board.update(TOP, &measurement(noisy(&mut rng, &truth, &R), R, frame(n)), frame(n));
            see(&mut board, LEG4, part(), frame(n));
            let mut out = [0.0; 42];
            board.write(frame(n), None, &mut out).unwrap();
            let [.., qy, _, qw] = row(&out, TOP);
            assert!(qw >= if rule == SignRule::WNonNegative { 0.0 } else { -0.02 });
            jumps += usize::from(last.is_some_and(|last| (last - qy).abs() > 1.0));
            last = Some(qy);
        }
        jumps
    };
    let (plain, steady) = (jumps(SignRule::WNonNegative), jumps(SignRule::Hysteresis { min_abs_w: 0.02 }));
    println!("{plain} changes of sign in 600 frames, {steady} with hysteresis");
    assert!(plain > 0 && steady == 0);
}

#[test]
fn a_leg_is_turned_to_the_branch_of_its_reference() {
    let symmetry = vec![SymmetryReference {
        part: "square_table_leg4".to_owned(),
        quat_xyzw: [0.0, 0.0, 0.0, 1.0],
        margin_rad: 0.1,
    }];
    let mut with = board(&FusionConfig { symmetry, ..config() }, &T_robot_april_training());
    let mut without = board(&config(), &T_robot_april_training());
    let T = pose([0.2, 0.07, -0.015], [0.0, 100.0, 0.0]);
    for (board, half_deg) in [(&mut with, 5f64), (&mut without, 50.0)] {
        see(board, TOP, part(), frame(1));
        see(board, LEG4, T, frame(1));
        let mut out = [0.0; 42];
        board.write(frame(1), None, &mut out).unwrap();
        let (s, c) = (half_deg.to_radians().sin(), half_deg.to_radians().cos());
        assert_row(&out, LEG4, [0.2, 0.07, -0.015, 0.0, s, 0.0, c]);
    }
}

#[test]
fn the_filters_of_the_benchmark_fill_the_same_block() {
    let majority = FusionConfig { filter: FusionMode::Majority(MajorityConfig::default()), ..config() };
    let mut by_majority = board(&majority, &T_robot_april_training());
    let average = FusionConfig { filter: FusionMode::MovingAverage(MovingAverageConfig::default()), ..config() };
    let mut by_average = board(&average, &T_robot_april_training());
    let (a, b) = (pose([0.1, 0.2, 0.0], [0.0; 3]), pose([0.12, 0.2, 0.0], [0.0; 3]));
    let cameras = [0, 2].map(|camera| CameraPose { camera, T_april_part: if camera == 0 { a } else { b }, tags: 2 });
    for index in [TOP, LEG4] {
        assert_eq!(by_majority.update_cameras(index, &cameras, frame(1), frame(1)), Outcome::Initialised);
        see(&mut by_average, index, a, frame(0));
        see(&mut by_average, index, b, frame(1));
    }
    let mut out = [0.0; 42];
    let block = by_majority.write(frame(1), None, &mut out).unwrap();
    assert_row(&out, TOP, [0.11, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(block.least_confidence, 1.0);
    let estimate = by_majority.estimate(TOP, frame(1), None).unwrap().unwrap();
    assert_eq!((estimate.tags, estimate.cameras, estimate.covariance), (4, 2, None));
    by_average.write(frame(1), None, &mut out).unwrap();
    assert_row(&out, TOP, [0.105, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0]);
    // Each takes its own kind of input, and neither answers with zeros once the part is gone.
    assert_eq!(see(&mut by_majority, TOP, a, frame(2)), Outcome::Refused(Refusal::WrongInput));
    let outcome = by_average.update_cameras(TOP, &cameras, frame(2), frame(2));
    assert_eq!(outcome, Outcome::Refused(Refusal::WrongInput));
    for board in [&mut by_majority, &mut by_average] {
        let error = board.write(frame(17), None, &mut out).unwrap_err();
        assert_eq!(error, NotReady { part: "square_table_top", since: frame(1), why: Why::Lost });
    }
}

#[test]
fn a_board_of_the_wrong_parts_cannot_be_made() {
    let T = T_robot_april_training();
    let make = |config: &FusionConfig, T: &Pose| PartBoard::new(Furniture::Lamp, config, T, 3, frame(0)).err();
    let message = make(&config(), &T).unwrap().to_string();
    assert!(
        message.contains("frozen") && message.contains("square_table_leg1") && message.contains("lamp_bulb"),
        "{message}"
    );
    let height = HeightCorrection { part: "lamp_base".to_owned(), april_z_m: 0.001 };
    let twice = FusionConfig { heights: vec![height.clone(), height], ..Default::default() };
    assert!(matches!(make(&twice, &T), Some(BoardError::ListedTwice { table: "heights", .. })));
    let reference =
        |part: &str| SymmetryReference { part: part.to_owned(), quat_xyzw: [0.0, 0.0, 0.0, 1.0], margin_rad: 0.1 };
    let hood = FusionConfig { symmetry: vec![reference("lamp_hood")], ..Default::default() };
    assert!(matches!(make(&hood, &T), Some(BoardError::NoSymmetry { .. })));
    let bulb = FusionConfig { symmetry: vec![reference("lamp_bulb")], ..Default::default() };
    assert_eq!(make(&bulb, &T), None);
    assert_eq!(make(&bulb, &pose([f64::NAN, 0.0, 0.0], [0.0; 3])), Some(BoardError::BoardPose));
}

#[test]
fn frozen_parts_and_strangers_take_no_measurements() {
    let mut board = board(&config(), &T_robot_april_training());
    for index in [1, 5, 6, usize::MAX] {
        assert_eq!(see(&mut board, index, part(), frame(1)), Outcome::Refused(Refusal::NotTracked));
        assert_eq!(board.counts(index), None);
        assert_eq!(board.estimate(index, frame(1), None), Ok(None));
    }
}

#[test]
fn parts_out_of_the_fingers_reach_go_on_being_smoothed() {
    let T_robot_board = T_robot_april_training();
    let mut board = board(&config(), &T_robot_board);
    let (near, far) = (pose([0.15, 0.1, 0.0], [0.0; 3]), pose([-0.15, 0.1, 0.0], [0.0; 3]));
    for n in 0..300 {
        see(&mut board, TOP, far, frame(n));
        see(&mut board, LEG4, near, frame(n));
    }
    board.on_gripper_event(GripperEvent::Opening, frame(300), Some(&(T_robot_board * near)));
    let shift = Vector6::new(0.001, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (index, T, moves_mm) in [(TOP, far, 0.0..0.2), (LEG4, near, 0.99..1.01)] {
        see(&mut board, index, moved(&T, &shift), frame(300));
        let estimate = board.estimate(index, frame(300), None).unwrap().unwrap();
        let mm = errors(&estimate, &T).0;
        assert!(moves_mm.contains(&mm), "part {index} moved by {mm} mm");
    }
}
