//! Part poses from several cameras, on corners that a camera model projects.

use nalgebra::{Matrix6, Translation3, UnitQuaternion, Vector3, Vector6};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tenon_vision::averaging::averaged_pose;
use tenon_vision::part_pose::{Verdict, position_covariance};
use tenon_vision::pose::corners_in_tag;
use tenon_vision::rig::Part;
use tenon_vision::{Camera, PartPose, PartSettings, PartSolver, PlacedCamera, Pose, Rig, TagDetection, VisionError};

const NOISE_PX: f64 = 0.2;

/// Three cameras around the table at 0.7 to 0.9 m from its middle.
fn cameras() -> Vec<PlacedCamera> {
    let middle = Vector3::new(0.0, 0.2, 0.0);
    [[0.05, 0.85, -0.5], [-0.6, 0.0, -0.45], [0.55, 0.1, -0.6]].map(|eye| looking_at(eye, middle)).to_vec()
}

/// The april frame's z points down into the table, so cameras have negative z.
fn looking_at(eye: [f64; 3], middle: Vector3<f64>) -> PlacedCamera {
    let eye = Vector3::from(eye);
    // Optical axis to the middle, image y downwards.
    let z = (middle - eye).normalize();
    let x = Vector3::z().cross(&z).normalize();
    let R = nalgebra::Matrix3::from_columns(&[x, z.cross(&x), z]);
    let rotation = UnitQuaternion::from_rotation_matrix(&nalgebra::Rotation3::from_matrix_unchecked(R));
    PlacedCamera {
        camera: Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap(),
        T_april_camera: Pose::from_parts(Translation3::from(eye), rotation),
        position_sigma_m: 0.0,
        rotation_sigma_rad: 0.0,
    }
}

fn part(name: &str) -> Part {
    Rig::built_in().unwrap().parts.into_iter().find(|part| part.name == name).unwrap()
}

/// What a camera sees of a part whose sides hide each other: tags that face it by more than 20 degrees of grazing.
fn view(placed: &PlacedCamera, part: &Part, T_april_part: &Pose) -> Vec<TagDetection> {
    let T_camera_part = placed.T_april_camera.inverse() * T_april_part;
    let seen = part.tags.iter().filter_map(|tag| {
        let T_camera_tag = T_camera_part * tag.T_body_tag;
        let facing = (T_camera_tag.rotation * Vector3::z()).dot(&T_camera_tag.translation.vector.normalize());
        let project = |p| placed.camera.project(&(T_camera_tag * p)).unwrap();
        let (corners_px, centre_px) = (corners_in_tag(tag.size_m).map(project), project(nalgebra::Point3::origin()));
        (facing > 0.34).then_some(TagDetection { id: tag.id, hamming: 0, decision_margin: 80.0, centre_px, corners_px })
    });
    seen.collect()
}

fn add_noise(view: &mut [TagDetection], sigma_px: f64, rng: &mut ChaCha8Rng) {
    let noise = Normal::new(0.0, sigma_px).unwrap();
    let values = view.iter_mut().flat_map(|tag| tag.corners_px.as_flattened_mut());
    values.for_each(|value| *value += noise.sample(rng));
}

fn exact() -> PartSettings {
    PartSettings { corner_sigma_px: NOISE_PX, placement_sigma_m: 0.0, ..Default::default() }
}

fn solve(solver: &mut PartSolver, part: &Part, views: &[Vec<TagDetection>]) -> Result<PartPose, VisionError> {
    solver.solve(&part.name, &part.tags, &cameras()[..views.len()], views.iter().map(Vec::as_slice), None)
}

/// Error `[v; ω]` in the sense of the covariance.
fn error(solved: &Pose, truth: &Pose) -> Vector6<f64> {
    let v = solved.translation.vector - truth.translation.vector;
    let w = (solved.rotation * truth.rotation.inverse()).scaled_axis();
    Vector6::new(v.x, v.y, v.z, w.x, w.y, w.z)
}

/// A leg that lies on the table, turned about its axis and about the vertical.
fn lying_leg(roll: f64, yaw: f64) -> Pose {
    let rotation = UnitQuaternion::from_euler_angles(0.0, 0.0, yaw + std::f64::consts::FRAC_PI_2)
        * UnitQuaternion::from_axis_angle(&Vector3::y_axis(), roll);
    Pose::from_parts(Translation3::new(0.12, 0.2, -0.015), rotation)
}

#[test]
fn exact_corners_give_the_exact_pose() {
    let mut solver = PartSolver::new(exact());
    let rig = Rig::built_in().unwrap();
    for part in &rig.parts {
        let truth =
            Pose::from_parts(Translation3::new(0.1, 0.25, -0.03), UnitQuaternion::from_euler_angles(0.4, 0.9, -2.1));
        let views: Vec<_> = cameras().iter().map(|placed| view(placed, part, &truth)).collect();
        assert!(views.iter().flatten().count() >= 3, "{}", part.name);
        let solved = solve(&mut solver, part, &views).unwrap();
        assert!(error(&solved.T_april_part, &truth).norm() < 1e-6, "{}: {solved:?}", part.name);
        assert!(solved.rms_px < 1e-4 && !solved.ambiguous, "{}", part.name);
        assert!(solver.sightings().iter().all(|s| s.verdict == Verdict::Used));
    }
}

#[test]
fn the_covariance_is_that_of_the_errors() {
    let part = part("square_table_leg4");
    let mut solver = PartSolver::new(exact());
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut normalised, mut worst_m, runs) = (0.0, 0.0_f64, 500);
    for run in 0..runs {
        let truth = lying_leg(0.01 * run as f64, 0.4);
        let mut views: Vec<_> = cameras().iter().map(|placed| view(placed, &part, &truth)).collect();
        views.iter_mut().for_each(|view| add_noise(view, NOISE_PX, &mut rng));
        let solved = solve(&mut solver, &part, &views).unwrap();
        let error = error(&solved.T_april_part, &truth);
        normalised += error.dot(&(solved.covariance.try_inverse().unwrap() * error));
        worst_m = worst_m.max(error.fixed_rows::<3>(0).norm());
        // The far end of the leg is less certain than its middle.
        let far = position_covariance(&solved.covariance, &(truth.rotation * Vector3::new(0.0, 0.04, 0.0)));
        assert!(far.trace() > position_covariance(&solved.covariance, &Vector3::zeros()).trace() * 0.9);
    }
    // χ² with 6 degrees of freedom, somewhat below where the fit happens to be bad and the covariance grows.
    let mean = normalised / runs as f64;
    assert!((4.5..6.5).contains(&mean), "mean normalised squared error {mean}");
    assert!(worst_m < 0.003, "{worst_m} m");
}

#[test]
fn one_tag_is_ambiguous_and_a_second_camera_decides() {
    let mut part = part("square_table_leg4");
    part.tags.truncate(1);
    let placed = cameras()[0];
    // Facing the camera, tilted by 20 degrees.
    let T_camera_tag =
        Pose::from_parts(Translation3::new(0.0, 0.0, 0.7), UnitQuaternion::from_euler_angles(0.33, 0.1, 0.3));
    let truth = placed.T_april_camera * T_camera_tag * part.tags[0].T_body_tag.inverse();
    // A step to the side of the first camera.
    let eye = placed.T_april_camera.translation.vector + placed.T_april_camera.rotation * Vector3::new(0.45, 0.0, 0.05);
    let beside = looking_at(eye.into(), truth.translation.vector);
    let mut solver = PartSolver::new(exact());
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (mut ambiguous, mut among, mut wrong_first, mut decided, runs) = (0, 0, 0, 0, 200);
    for _ in 0..runs {
        let mut views = [view(&placed, &part, &truth), view(&beside, &part, &truth)];
        views.iter_mut().for_each(|view| add_noise(view, NOISE_PX, &mut rng));
        let solved = solve(&mut solver, &part, &views[..1]).unwrap();
        ambiguous += usize::from(solved.ambiguous);
        let near = |pose: &Pose| error(pose, &truth).fixed_rows::<3>(3).norm() < 0.25;
        assert!(solved.other.is_none_or(|other| other.chi_squared_more >= 0.0));
        let other_is_near = solved.other.is_some_and(|other| near(&other.T_april_part));
        among += usize::from(near(&solved.T_april_part) || other_is_near);
        wrong_first += usize::from(!near(&solved.T_april_part));
        let both = views.iter().map(Vec::as_slice);
        let solved = solver.solve(&part.name, &part.tags, &[placed, beside], both, None).unwrap();
        decided += usize::from(!solved.ambiguous && near(&solved.T_april_part));
    }
    // Now and then the noise leaves one minimum, midway.
    assert!(ambiguous > runs * 8 / 10, "only {ambiguous} of {runs} were called ambiguous");
    assert!(among > runs * 8 / 10, "the truth was among the two only {among} times of {runs}");
    assert!(wrong_first > 10, "too easy to show anything: {wrong_first}");
    assert_eq!(decided, runs);
}

#[test]
fn a_wrong_tag_is_named_and_moves_nothing() {
    let part = part("square_table_top");
    let truth =
        Pose::from_parts(Translation3::new(0.0, 0.24, -0.03), UnitQuaternion::from_euler_angles(-0.9, 0.3, 2.6));
    let mut solver = PartSolver::new(exact());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for run in 0..50 {
        let mut views: Vec<_> = cameras().iter().map(|placed| view(placed, &part, &truth)).collect();
        views.iter_mut().for_each(|view| add_noise(view, NOISE_PX, &mut rng));
        let clean = solve(&mut solver, &part, &views).unwrap();
        let sightings = solver.sightings().len();
        assert!(sightings >= 3, "{sightings}");
        let (camera, _) = views.iter().enumerate().find(|(_, view)| !view.is_empty()).unwrap();
        let id = views[camera][0].id;
        views[camera][0].corners_px.iter_mut().for_each(|corner| corner[run % 2] += 12.0);
        let solved = solve(&mut solver, &part, &views).unwrap();
        let outliers: Vec<_> = solver.sightings().iter().filter(|s| s.verdict == Verdict::Outlier).collect();
        assert_eq!(outliers.len(), 1, "run {run}: {:?}", solver.sightings());
        assert_eq!((outliers[0].camera, outliers[0].id), (camera, id));
        assert!(outliers[0].rms_px > 5.0);
        let moved = error(&solved.T_april_part, &clean.T_april_part);
        assert!(moved.fixed_rows::<3>(0).norm() < 0.004 && moved.fixed_rows::<3>(3).norm() < 0.04, "{moved}");
    }
}

#[test]
fn an_id_seen_twice_is_left_out_in_that_camera_alone() {
    let part = part("square_table_leg4");
    let truth = lying_leg(0.3, 0.2);
    let mut views: Vec<_> = cameras().iter().map(|placed| view(placed, &part, &truth)).collect();
    let camera = views.iter().position(|view| !view.is_empty()).unwrap();
    let mut copy = views[camera][0];
    copy.corners_px.iter_mut().for_each(|corner| corner[0] += 90.0);
    views[camera].push(copy);
    let mut solver = PartSolver::new(exact());
    let solved = solve(&mut solver, &part, &views).unwrap();
    assert!(error(&solved.T_april_part, &truth).norm() < 1e-6);
    let doubled = solver.sightings().iter().filter(|s| s.verdict == Verdict::Duplicate);
    assert!(doubled.clone().count() == 2 && doubled.into_iter().all(|s| s.camera == camera && s.id == copy.id));
    // Where no other sighting is left there is no pose.
    let views = [vec![views[camera][0], copy]];
    assert!(matches!(solve(&mut solver, &part, &views[..1]), Err(VisionError::NoTagOfBody { .. })));
}

#[test]
fn uncertain_cameras_and_prints_make_the_pose_uncertain() {
    let part = part("square_table_leg4");
    let truth = lying_leg(0.5, 0.1);
    let views: Vec<_> = cameras().iter().map(|placed| view(placed, &part, &truth)).collect();
    let spread = |settings: PartSettings, position_sigma_m: f64, rotation_sigma_rad: f64| {
        let cameras: Vec<_> =
            cameras().into_iter().map(|c| PlacedCamera { position_sigma_m, rotation_sigma_rad, ..c }).collect();
        let views = views.iter().map(Vec::as_slice);
        let solved = PartSolver::new(settings).solve(&part.name, &part.tags, &cameras, views, None).unwrap();
        solved.covariance.fixed_view::<3, 3>(0, 0).trace().sqrt()
    };
    let plain = spread(exact(), 0.0, 0.0);
    assert!(spread(PartSettings { placement_sigma_m: 3e-4, ..exact() }, 0.0, 0.0) > 1.5 * plain);
    assert!(spread(exact(), 1e-3, 0.0) > 3.0 * plain);
    assert!(spread(exact(), 0.0, 2e-3) > 3.0 * plain);
}

#[test]
fn the_benchmarks_average_is_there_and_solving_together_is_better() {
    let part = part("square_table_leg4");
    let (mut solver, cameras) = (PartSolver::new(exact()), cameras());
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let (mut joint, mut averaged) = (Vec::new(), Vec::new());
    for run in 0..200 {
        let truth = lying_leg(0.1 + 0.03 * run as f64, 0.2);
        let mut views: Vec<_> = cameras.iter().map(|placed| view(placed, &part, &truth)).collect();
        if run == 0 {
            // Without noise both are exact.
            let pose = averaged_pose(&cameras, &part.tags, views.iter().map(Vec::as_slice)).unwrap();
            assert!(error(&pose, &truth).norm() < 1e-5, "{pose}");
        }
        views.iter_mut().for_each(|view| add_noise(view, NOISE_PX, &mut rng));
        let pose = averaged_pose(&cameras, &part.tags, views.iter().map(Vec::as_slice)).unwrap();
        averaged.push(error(&pose, &truth).fixed_rows::<3>(0).norm());
        let pose = solve(&mut solver, &part, &views).unwrap().T_april_part;
        joint.push(error(&pose, &truth).fixed_rows::<3>(0).norm());
    }
    let p95 = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        1e3 * values[values.len() * 95 / 100]
    };
    let (joint, averaged) = (p95(&mut joint), p95(&mut averaged));
    println!("95 % within {joint:.2} mm together, {averaged:.2} mm averaged");
    assert!(2.0 * joint < averaged, "{joint} {averaged}");
    assert_eq!(averaged_pose(&cameras, &part.tags, [&[][..], &[], &[]]), None);
}

#[test]
fn the_systematic_error_is_how_the_solution_shifts_with_the_cameras() {
    let part = part("square_table_leg4");
    let truth = lying_leg(0.5, 0.3);
    let cameras = cameras();
    let views: Vec<_> = cameras.iter().map(|placed| view(placed, &part, &truth)).collect();
    // One camera's place is uncertain in one direction only.
    for camera in 0..cameras.len() {
        for axis in 0..6 {
            let sigma = 1e-4;
            let mut covariances = [Some(Matrix6::zeros()); 3];
            covariances[camera].as_mut().unwrap()[(axis, axis)] = sigma * sigma;
            let mut solver = PartSolver::new(exact()).with_place_covariances(&covariances).unwrap();
            let mut with_camera_at = |by: f64| {
                let mut moved = cameras.clone();
                let mut twist = Vector6::zeros();
                twist[axis] = by;
                let (v, w) = (twist.fixed_rows::<3>(0), twist.fixed_rows::<3>(3).into_owned());
                let T = &mut moved[camera].T_april_camera;
                T.translation.vector += v;
                T.rotation = UnitQuaternion::from_scaled_axis(w) * T.rotation;
                solver.try_solve(&part.tags, &moved, views.iter().map(Vec::as_slice), None).unwrap()
            };
            let told = with_camera_at(0.0).systematic.unwrap().covariance();
            let shift = error(&with_camera_at(sigma).T_april_part, &with_camera_at(-sigma).T_april_part) / 2.0;
            let shown = shift * shift.transpose();
            assert!(
                (told - shown).norm() < 0.02 * shown.norm() + 1e-16,
                "camera {camera}, axis {axis}: {told} {shown}"
            );
        }
    }
}

#[test]
fn what_stays_is_not_in_the_covariance_of_what_is_new_and_nothing_changes_where_it_is_unknown() {
    let part = part("square_table_leg4");
    let truth = lying_leg(0.5, 0.3);
    let views: Vec<_> = cameras().iter().map(|placed| view(placed, &part, &truth)).collect();
    let solve = |covariances: &[Option<Matrix6<f64>>]| {
        let mut solver = PartSolver::new(exact()).with_place_covariances(covariances).unwrap();
        solver.try_solve(&part.tags, &cameras(), views.iter().map(Vec::as_slice), None).unwrap()
    };
    let (unknown, known) = (solve(&[]), solve(&[Some(Matrix6::identity() * 1e-6); 3]));
    assert_eq!((unknown.systematic, solve(&[None; 3])), (None, unknown));
    // The corners' noise is what it was; weights that differ a little make the most of it.
    let ratio = known.covariance.trace() / unknown.covariance.trace();
    assert!((0.99..1.3).contains(&ratio), "{ratio}");
    let systematic = known.systematic.unwrap().covariance();
    assert!(systematic.trace() > 3.0 * known.covariance.trace());
    assert!((known.whole_covariance() - systematic - known.covariance).norm() < 1e-15);
    // One camera known, the others not: only that one shifts the pose.
    let one = solve(&[None, Some(Matrix6::identity() * 1e-6), None]).systematic.unwrap().covariance();
    assert!(one.trace() > 0.0 && one.trace() < systematic.trace());
    let broken = |covariance| PartSolver::new(exact()).with_place_covariances(&[Some(covariance)]).is_err();
    assert!(broken(Matrix6::identity() * f64::NAN) && broken(-Matrix6::identity()));
    assert!(PartSolver::new(exact()).with_place_covariances(&[Some(Matrix6::identity()); 9]).is_err());
}
