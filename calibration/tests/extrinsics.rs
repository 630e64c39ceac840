//! Camera places on simulated rigs: corners that the camera model projects, with noise, against the truth.

use nalgebra::{Matrix3, Point3, Rotation3, Translation3, UnitQuaternion, Vector3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tenon_calibrate::extrinsics::board::Misplaced;
use tenon_calibrate::extrinsics::observability::{candidates_about, next_pose};
use tenon_calibrate::extrinsics::{ExtrinsicsError, Problem, Solution, SolveSettings, View, calibrate};
use tenon_vision::pose::corners_in_tag;
use tenon_vision::{Camera, Pose, Rig, TagDetection, TagOnBody};

const NOISE_PX: f64 = 0.2;
const SIZE_PX: [usize; 2] = [1280, 720];

/// A rig with one camera and a tag in the gripper.
struct Truth {
    camera: Camera,
    T_base_camera: Pose,
    T_base_board: Pose,
    T_hand_tag: Pose,
}

fn looking_at(eye: Vector3<f64>, middle: Vector3<f64>) -> Pose {
    let z = (middle - eye).normalize();
    let x = z.cross(&Vector3::z()).normalize();
    let R = Matrix3::from_columns(&[x, z.cross(&x), z]);
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(R));
    Pose::from_parts(Translation3::from(eye), rotation)
}

fn uniform(rng: &mut ChaCha8Rng, limits: [(f64, f64); 3]) -> Vector3<f64> {
    Vector3::from(limits.map(|(low, high)| rng.random_range(low..high)))
}

fn turn(rng: &mut ChaCha8Rng, sigma: f64) -> UnitQuaternion<f64> {
    let normal = Normal::new(0.0, sigma).unwrap();
    UnitQuaternion::from_scaled_axis(Vector3::from_fn(|_, _| normal.sample(rng)))
}

fn rig(rng: &mut ChaCha8Rng) -> Truth {
    let eye = uniform(rng, [(1.0, 1.2), (-0.4, 0.4), (0.4, 0.7)]);
    // Board on the table: z down, x to the robot's left (perception.md section 1).
    let flat = UnitQuaternion::from_euler_angles(std::f64::consts::PI, 0.0, std::f64::consts::FRAC_PI_2);
    Truth {
        camera: Camera::pinhole(915.0, 913.0, 641.0, 357.0).unwrap(),
        T_base_camera: looking_at(eye, Vector3::new(0.45, 0.0, 0.05)),
        T_base_board: Pose::from_parts(Translation3::new(0.31, 0.01, -0.005), turn(rng, 0.01) * flat),
        T_hand_tag: Pose::from_parts(Translation3::new(0.01, 0.0, 0.05), turn(rng, 0.2)),
    }
}

fn hand_tag() -> Vec<TagOnBody> {
    vec![TagOnBody { id: 100, size_m: 0.048, T_body_tag: Pose::identity() }]
}

/// The tags of a body as the camera sees them, where all corners lie in the picture.
fn seen(truth: &Truth, T_base_body: &Pose, tags: &[TagOnBody], scale: f64, rng: &mut ChaCha8Rng) -> Vec<TagDetection> {
    let noise = Normal::new(0.0, NOISE_PX).unwrap();
    let T_camera_body = truth.T_base_camera.inverse() * T_base_body;
    let detection = |tag: &TagOnBody| {
        let T_camera_tag = T_camera_body * tag.T_body_tag;
        let project = |point: Point3<f64>| truth.camera.project(&(T_camera_tag * point)).unwrap();
        let mut corners_px = corners_in_tag(tag.size_m * scale).map(project);
        corners_px.as_flattened_mut().iter_mut().for_each(|v| *v += noise.sample(rng));
        TagDetection { id: tag.id, hamming: 0, decision_margin: 90.0, centre_px: project(Point3::origin()), corners_px }
    };
    let inside =
        |d: &TagDetection| d.corners_px.iter().all(|p| (0..2).all(|i| (5.0..SIZE_PX[i] as f64 - 5.0).contains(&p[i])));
    tags.iter().map(detection).filter(inside).collect()
}

/// A pose of the hand in which its tag faces the camera, tilted by up to about 40 degrees.
fn arm_pose(truth: &Truth, rng: &mut ChaCha8Rng) -> Pose {
    let place = uniform(rng, [(0.35, 0.6), (-0.2, 0.2), (0.05, 0.35)]);
    let towards = (place - truth.T_base_camera.translation.vector).normalize();
    // Tag z along the line of sight, some way off it, and turned in its plane.
    let facing = UnitQuaternion::rotation_between(&Vector3::z(), &towards).unwrap();
    let spin = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), rng.random_range(-1.0..1.0));
    let axis = rng.random_range(0.0..std::f64::consts::TAU);
    let tilt = Vector3::new(axis.cos(), axis.sin(), 0.0) * rng.random_range(0.1..0.7);
    let T_base_tag =
        Pose::from_parts(Translation3::from(place), facing * UnitQuaternion::from_scaled_axis(tilt) * spin);
    T_base_tag * truth.T_hand_tag.inverse()
}

fn board_tags() -> Vec<TagOnBody> {
    Rig::built_in().unwrap().base_tags
}

fn problem(truth: &Truth, views: Vec<View>) -> Problem {
    Problem { cameras: vec![("front".into(), truth.camera)], board: board_tags(), hand: hand_tag(), views }
}

/// `n` poses of the arm, each with the board in view. `scale`: true size of the gripper's tag over the believed one.
fn arm_views(truth: &Truth, n: usize, scale: f64, rng: &mut ChaCha8Rng) -> Vec<View> {
    let view = |k: usize| {
        let T_base_hand = arm_pose(truth, rng);
        let mut detections = seen(truth, &(T_base_hand * truth.T_hand_tag), &hand_tag(), scale, rng);
        detections.extend(seen(truth, &truth.T_base_board, &board_tags(), 1.0, rng));
        View { name: format!("pose {k}"), camera: 0, T_base_hand: Some(T_base_hand), detections }
    };
    (0..n).map(view).collect()
}

fn board_views(truth: &Truth, n: usize, rng: &mut ChaCha8Rng) -> Vec<View> {
    let view = |k| View {
        name: format!("frame {k}"),
        camera: 0,
        T_base_hand: None,
        detections: seen(truth, &truth.T_base_board, &board_tags(), 1.0, rng),
    };
    (0..n).map(view).collect()
}

/// Error `[m; rad]` in the sense of the covariance.
fn error(found: &Pose, truth: &Pose) -> [f64; 6] {
    let v = found.translation.vector - truth.translation.vector;
    let w = (found.rotation * truth.rotation.inverse()).scaled_axis();
    [v.x, v.y, v.z, w.x, w.y, w.z]
}

fn norms(error: &[f64; 6]) -> (f64, f64) {
    (Vector3::from_column_slice(&error[..3]).norm(), Vector3::from_column_slice(&error[3..]).norm())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Medians over many rigs, and how often each axis's interval holds the truth.
fn over_many_rigs(name: &str, rigs: usize, solve: impl Fn(&mut ChaCha8Rng) -> (Solution, Pose)) {
    let (mut metres, mut degrees, mut inside) = (Vec::new(), Vec::new(), [0usize; 6]);
    for seed in 0..rigs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let (solution, truth) = solve(&mut rng);
        assert!(solution.bad_views.is_empty() && solution.misplaced.is_empty(), "{name} {seed}: {solution:?}");
        let place = &solution.cameras[0];
        let error = error(&place.T_base_camera, &truth);
        let (m, rad) = norms(&error);
        metres.push(m);
        degrees.push(rad.to_degrees());
        for ((count, error), half) in inside.iter_mut().zip(error).zip(place.half_widths_95()) {
            *count += usize::from(error.abs() <= half);
        }
    }
    let (m, deg) = (median(metres), median(degrees));
    let parts = inside.map(|n| 100.0 * n as f64 / rigs as f64);
    println!(
        "{name}: {rigs} rigs, median {:.3} mm, {deg:.4} deg, truth inside the 95 % interval: {parts:.1?} %",
        1e3 * m
    );
    assert!(m < 1e-3 && deg < 0.1, "{name}: {m} m, {deg} deg");
    // Four standard deviations of a share of `rigs`, on top of nothing.
    let slack = 4.0 * (0.95_f64 * 0.05 / rigs as f64).sqrt() * 100.0;
    assert!(parts.iter().all(|p| (p - 95.0).abs() < slack.min(2.0_f64.max(slack))), "{name}: {parts:?}");
}

#[test]
fn the_board_over_many_frames_gives_the_camera_with_honest_intervals() {
    over_many_rigs("board, 30 frames", 1000, |rng| {
        let truth = rig(rng);
        let solution = calibrate(&problem(&truth, board_views(&truth, 30, rng)), &SolveSettings::default()).unwrap();
        assert!(!solution.base_is_robot && solution.hand_scale.is_none());
        (solution, truth.T_base_board.inverse() * truth.T_base_camera)
    });
}

#[test]
fn the_arm_gives_the_camera_with_honest_intervals() {
    over_many_rigs("tag in the gripper, 20 poses", 1000, |rng| {
        let truth = rig(rng);
        let solution = calibrate(&problem(&truth, arm_views(&truth, 20, 1.0, rng)), &SolveSettings::default()).unwrap();
        assert!(solution.base_is_robot && solution.wrong_sizes(&SolveSettings::default()).is_empty());
        assert_eq!(solution.cameras[0].closed_forms.len(), 3);
        (solution, truth.T_base_camera)
    });
}

#[test]
fn a_camera_placed_by_the_arm_is_as_certain_in_the_board_as_it_says() {
    let (rigs, mut normalised) = (200, 0.0);
    for seed in 0..rigs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let truth = rig(&mut rng);
        let solution =
            calibrate(&problem(&truth, arm_views(&truth, 12, 1.0, &mut rng)), &SolveSettings::default()).unwrap();
        let (T_board_camera, covariance) = solution.in_board(0);
        let error =
            nalgebra::Vector6::from(error(&T_board_camera, &(truth.T_base_board.inverse() * truth.T_base_camera)));
        normalised += error.dot(&(covariance.try_inverse().unwrap() * error)) / rigs as f64;
    }
    // χ² with 6 degrees of freedom over 200 rigs: 6 ± 0.25.
    assert!((5.2..6.8).contains(&normalised), "mean normalised squared error {normalised}");
}

#[test]
fn the_noise_of_the_corners_is_found_out() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let truth = rig(&mut rng);
    let solution =
        calibrate(&problem(&truth, arm_views(&truth, 25, 1.0, &mut rng)), &SolveSettings::default()).unwrap();
    assert!((solution.sigma_px - NOISE_PX).abs() < 0.02, "{}", solution.sigma_px);
}

#[test]
fn a_print_of_the_wrong_size_is_refused_with_its_size() {
    for scale in [0.96, 0.985, 1.015, 1.05] {
        let mut rng = ChaCha8Rng::seed_from_u64((1000.0 * scale) as u64);
        let truth = rig(&mut rng);
        let solution =
            calibrate(&problem(&truth, arm_views(&truth, 25, scale, &mut rng)), &SolveSettings::default()).unwrap();
        let found = solution.hand_scale.unwrap();
        assert!((found.value - scale).abs() < 3.0 * found.sigma && found.sigma < 0.002, "{scale}: {found:?}");
        let said = solution.wrong_sizes(&SolveSettings::default());
        assert!(said.len() == 1 && said[0].contains("in the gripper") && said[0].contains("measure"), "{said:?}");
        // The camera is right all the same.
        assert!(norms(&error(&solution.cameras[0].T_base_camera, &truth.T_base_camera)).0 < 4e-3);
    }
    // 0.4 % is a good print.
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let truth = rig(&mut rng);
    let solution =
        calibrate(&problem(&truth, arm_views(&truth, 25, 1.004, &mut rng)), &SolveSettings::default()).unwrap();
    assert!(solution.wrong_sizes(&SolveSettings::default()).is_empty(), "{:?}", solution.hand_scale);
}

#[test]
fn a_view_with_another_arm_pose_is_named_and_left_out() {
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
        let truth = rig(&mut rng);
        let mut views = arm_views(&truth, 16, 1.0, &mut rng);
        // No board in these, so that only the arm's pose speaks.
        views.iter_mut().for_each(|view| view.detections.retain(|d| d.id == 100));
        views.retain(|view| !view.detections.is_empty());
        views[5].T_base_hand.as_mut().unwrap().translation.vector.x += 0.03;
        let wrong = views[5].name.clone();
        let solution = calibrate(&problem(&truth, views), &SolveSettings::default()).unwrap();
        let bad: Vec<&str> = solution.bad_views.iter().map(|bad| bad.name.as_str()).collect();
        assert_eq!(bad, [wrong.as_str()], "seed {seed}");
        assert!(solution.bad_views[0].reason.contains("arm"), "{}", solution.bad_views[0].reason);
        assert!(norms(&error(&solution.cameras[0].T_base_camera, &truth.T_base_camera)).0 < 8e-3);
    }
}

#[test]
fn swapped_turned_and_moved_tags_of_the_board_are_named() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let truth = rig(&mut rng);
    let honest = board_tags();
    let cases: [(&str, Box<dyn Fn(&mut Vec<TagOnBody>)>, Misplaced); 3] = [
        (
            "swapped",
            Box::new(|tags| {
                let (a, b) = (tags[1].T_body_tag, tags[2].T_body_tag);
                (tags[1].T_body_tag, tags[2].T_body_tag) = (b, a);
            }),
            Misplaced::Swapped { first: 1, second: 2 },
        ),
        (
            "turned",
            Box::new(|tags| {
                let quarter = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), std::f64::consts::FRAC_PI_2);
                tags[3].T_body_tag.rotation *= quarter;
            }),
            Misplaced::Turned { id: 3, quarters: 1 },
        ),
        ("moved", Box::new(|tags| tags[0].T_body_tag.translation.vector.x -= 0.02), Misplaced::Elsewhere { id: 0 }),
    ];
    for (name, change, wanted) in cases {
        let mut tags = honest.clone();
        change(&mut tags);
        let view = |k: usize| View {
            name: format!("frame {k}"),
            camera: 0,
            T_base_hand: None,
            detections: seen(&truth, &truth.T_base_board, &tags, 1.0, &mut ChaCha8Rng::seed_from_u64(k as u64)),
        };
        let solution = calibrate(&problem(&truth, (0..12).map(view).collect()), &SolveSettings::default()).unwrap();
        assert_eq!(solution.misplaced, [wanted], "{name}");
        let away =
            norms(&error(&solution.cameras[0].T_base_camera, &(truth.T_base_board.inverse() * truth.T_base_camera)));
        assert!(away.0 < 0.01, "{name}: {away:?}");
    }
}

#[test]
fn a_camera_that_saw_the_board_alone_is_placed_through_another() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let truth = rig(&mut rng);
    let side = Truth {
        T_base_camera: looking_at(Vector3::new(0.2, 0.9, 0.6), Vector3::new(0.4, 0.0, 0.0)),
        camera: truth.camera,
        T_base_board: truth.T_base_board,
        T_hand_tag: truth.T_hand_tag,
    };
    let mut views = arm_views(&truth, 20, 1.0, &mut rng);
    views.extend(board_views(&side, 20, &mut rng).into_iter().map(|view| View { camera: 1, ..view }));
    let mut problem = problem(&truth, views);
    problem.cameras.push(("side".into(), side.camera));
    let solution = calibrate(&problem, &SolveSettings::default()).unwrap();
    let place = &solution.cameras[1];
    let (m, rad) = norms(&error(&place.T_base_camera, &side.T_base_camera));
    assert!(m < 6e-3 && rad < 8e-3, "{m} m, {rad} rad");
    assert!(place.closed_forms.is_empty() && place.sigmas()[0] > 0.0);
}

#[test]
fn the_pose_to_add_next_is_worth_more_than_a_random_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let truth = rig(&mut rng);
    let views = arm_views(&truth, 8, 1.0, &mut rng);
    let with = |extra: Option<Pose>, seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut views = views.clone();
        if let Some(T_base_hand) = extra {
            let detections = seen(&truth, &(T_base_hand * truth.T_hand_tag), &hand_tag(), 1.0, &mut rng);
            views.push(View { name: "extra".into(), camera: 0, T_base_hand: Some(T_base_hand), detections });
        }
        calibrate(&problem(&truth, views), &SolveSettings::default()).unwrap()
    };
    // In units of the noise, which each solution estimates for itself.
    let worst = |s: &Solution| s.cameras[0].sigmas()[..3].iter().fold(0.0_f64, |m, v| m.max(*v)) / s.sigma_px;
    let before = with(None, 0);
    let candidates: Vec<Pose> = (0..40).map(|_| arm_pose(&truth, &mut rng)).collect();
    let cameras = [("front".to_owned(), truth.camera)];
    let next = next_pose(&before, &cameras, &hand_tag(), &[SIZE_PX], &candidates).unwrap();
    assert!(next.seen_by == 1 && next.then_sigma_m < next.now_sigma_m, "{next:?}");
    let chosen = worst(&with(Some(candidates[next.candidate]), 1));
    let others = candidates.iter().map(|c| worst(&with(Some(*c), 1))).collect();
    assert!(chosen < worst(&before) && chosen < median(others), "{chosen}");
    // Poses about those that were taken hold one that helps, too.
    let taken: Vec<Pose> = views.iter().filter_map(|view| view.T_base_hand).collect();
    let about = candidates_about(&taken);
    let found = next_pose(&before, &cameras, &hand_tag(), &[SIZE_PX], &about).unwrap();
    assert!(
        found.then_sigma_m < found.now_sigma_m && worst(&with(Some(about[found.candidate]), 1)) < worst(&before),
        "{found:?}"
    );
    assert!(about.len() > 100 && candidates_about(&[]).is_empty());
    // A tag that no camera sees is no suggestion.
    let away = Pose::from_parts(Translation3::new(-1.0, 0.0, 0.5), UnitQuaternion::identity());
    assert_eq!(next_pose(&before, &cameras, &hand_tag(), &[SIZE_PX], &[away]), None);
}

#[test]
fn what_cannot_be_solved_says_what_is_missing() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let truth = rig(&mut rng);
    let settings = SolveSettings::default();
    assert_eq!(calibrate(&problem(&truth, vec![]), &settings).unwrap_err(), ExtrinsicsError::NoViews);
    let mut few = arm_views(&truth, 3, 1.0, &mut rng);
    few.iter_mut().for_each(|view| view.detections.retain(|d| d.id == 100));
    let said = calibrate(&problem(&truth, few), &settings).unwrap_err().to_string();
    assert!(said.contains("in 6 poses") && said.contains("the most was 3"), "{said}");
    let empty = View { name: "frame 0".into(), camera: 0, T_base_hand: None, detections: vec![] };
    let said = calibrate(&problem(&truth, vec![empty]), &settings).unwrap_err().to_string();
    assert!(said.contains("front saw no usable tag"), "{said}");
    // The arm moves without turning.
    let views = (0..10).map(|k| {
        let mut T_base_hand = arm_pose(&truth, &mut ChaCha8Rng::seed_from_u64(3));
        T_base_hand.translation.vector += Vector3::new(0.0, 0.01 * k as f64, 0.005 * k as f64);
        let detections = seen(&truth, &(T_base_hand * truth.T_hand_tag), &hand_tag(), 1.0, &mut rng);
        View { name: format!("pose {k}"), camera: 0, T_base_hand: Some(T_base_hand), detections }
    });
    let said = calibrate(&problem(&truth, views.collect()), &settings).unwrap_err().to_string();
    assert!(said.contains("at least two axes"), "{said}");
}
