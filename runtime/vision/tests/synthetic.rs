//! Poses against exact truth: analytic corners for the solvers, rendered pictures for the detector.

use nalgebra::{Point3, Translation3, UnitQuaternion, Vector3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tenon_vision::pose::corners_in_tag;
use tenon_vision::refine::covariance;
use tenon_vision::render::{PrintedTag, RenderSettings, render};
use tenon_vision::{
    Camera, Detector, DetectorSettings, Distortion, Family, Pose, Rig, TagDetection, VisionError, body_pose, tag_pose,
};

fn pinhole() -> Camera {
    Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap()
}

fn distorted() -> Camera {
    let distortion = Distortion { k1: 0.10, k2: -0.20, p1: 0.0008, p2: -0.0006, k3: 0.05 };
    Camera::pinhole(912.0, 909.0, 643.0, 352.0).unwrap().with_distortion(distortion).unwrap()
}

/// A tag seen from the front, tilted by `tilt` about an axis in its plane at `around`, then turned by `spin`.
fn tag_at(position: [f64; 3], tilt: f64, around: f64, spin: f64) -> Pose {
    let axis = nalgebra::Unit::new_normalize(Vector3::new(around.cos(), around.sin(), 0.0));
    let rotation = UnitQuaternion::from_axis_angle(&axis, tilt) * UnitQuaternion::from_euler_angles(0.0, 0.0, spin);
    Pose::from_parts(Translation3::from(Vector3::from(position)), rotation)
}

/// What a perfect detector would report.
fn seen(camera: &Camera, id: u32, size_m: f64, T_camera_tag: &Pose) -> TagDetection {
    let corners_px = corners_in_tag(size_m).map(|corner| camera.project(&(T_camera_tag * corner)).unwrap());
    TagDetection {
        id,
        hamming: 0,
        decision_margin: 100.0,
        centre_px: camera.project(&Point3::from(T_camera_tag.translation.vector)).unwrap(),
        corners_px,
    }
}

fn with_noise(tag: &TagDetection, sigma_px: f64, rng: &mut ChaCha8Rng) -> TagDetection {
    let normal = Normal::new(0.0, sigma_px).unwrap();
    let mut noisy = *tag;
    for value in noisy.corners_px.iter_mut().flatten() {
        *value += normal.sample(rng);
    }
    noisy
}

fn difference(a: &Pose, b: &Pose) -> (f64, f64) {
    let metres = (a.translation.vector - b.translation.vector).norm();
    (metres, a.rotation.angle_to(&b.rotation))
}

#[test]
fn perfect_corners_give_the_true_pose_with_and_without_distortion() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for camera in [pinhole(), distorted()] {
        for _ in 0..500 {
            let z = rng.random_range(0.3..1.2);
            let position = [rng.random_range(-0.5..0.5) * z, rng.random_range(-0.3..0.3) * z, z];
            let around = rng.random_range(0.0..std::f64::consts::TAU);
            let truth = tag_at(position, rng.random_range(0.0..1.3), around, rng.random_range(-3.1..3.1));
            // A tag at the picture's edge can be tilted past edge-on for its own line of sight.
            let facing = (truth.rotation * Vector3::z()).dot(&truth.translation.vector.normalize());
            if facing < 0.15 {
                continue;
            }
            let pose = tag_pose(&camera, &seen(&camera, 6, 0.0195, &truth), 0.0195).unwrap();
            let (metres, radians) = difference(&pose.best.T_camera_body, &truth);
            assert!(metres < 1e-7 && radians < 1e-5, "{truth}: {metres} m, {radians} rad");
            assert!(pose.best.rms_px < 1e-7 && pose.best.rms_px <= pose.other.rms_px);
        }
    }
}

#[test]
fn both_minima_are_found_and_a_small_frontal_tag_is_called_ambiguous() {
    let camera = pinhole();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (mut ambiguous, mut true_among_two) = (0, 0);
    for _ in 0..200 {
        let around = rng.random_range(0.0..std::f64::consts::TAU);
        let truth = tag_at([0.05, -0.03, 0.9], 0.35, around, rng.random_range(-3.1..3.1));
        let tag = with_noise(&seen(&camera, 6, 0.0195, &truth), 0.2, &mut rng);
        let pose = tag_pose(&camera, &tag, 0.0195).unwrap();
        ambiguous += usize::from(pose.ambiguous);
        let nearest = [pose.best, pose.other].map(|h| difference(&h.T_camera_body, &truth).1);
        true_among_two += usize::from(nearest[0].min(nearest[1]) < 0.3);
        if pose.other.is_minimum {
            // A minimum: small turns about any axis make the fit worse.
            assert!(pose.other.rms_px >= pose.best.rms_px);
        }
    }
    assert!(ambiguous > 120, "only {ambiguous} of 200 were called ambiguous");
    assert!(true_among_two > 190, "the true pose was among the two only {true_among_two} times of 200");

    // Large, near and oblique: one explanation only.
    for around in [0.0, 0.8, 2.1, 4.4] {
        let truth = tag_at([0.02, 0.05, 0.35], 0.8, around, 0.3);
        let tag = with_noise(&seen(&camera, 0, 0.048, &truth), 0.1, &mut rng);
        let pose = tag_pose(&camera, &tag, 0.048).unwrap();
        assert!(!pose.ambiguous && pose.ratio > 2.0, "ratio {}", pose.ratio);
        assert!(difference(&pose.best.T_camera_body, &truth).1 < 0.05);
    }
}

#[test]
fn reported_covariance_matches_the_scatter_of_the_solutions() {
    let camera = pinhole();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let truth = tag_at([0.1, 0.05, 0.6], 0.9, 0.7, 0.2);
    let tag = seen(&camera, 0, 0.048, &truth);
    let mut squared = 0.0;
    let mut predicted = 0.0;
    let runs = 600;
    for _ in 0..runs {
        let pose = tag_pose(&camera, &with_noise(&tag, 0.2, &mut rng), 0.048).unwrap();
        squared += (pose.best.T_camera_body.translation.vector - truth.translation.vector).norm_squared();
        // The covariance is of a twist about the camera; move it to the tag's own position.
        let c = covariance(&pose.best.normal_matrix, 0.2).unwrap();
        let cross = truth.translation.vector.cross_matrix();
        let mut to_point = nalgebra::SMatrix::<f64, 3, 6>::zeros();
        to_point.fixed_columns_mut::<3>(0).copy_from(&nalgebra::Matrix3::identity());
        to_point.fixed_columns_mut::<3>(3).copy_from(&-cross);
        predicted += (to_point * c * to_point.transpose()).trace();
    }
    let ratio = squared / predicted;
    assert!((0.8..1.25).contains(&ratio), "scatter over prediction: {ratio}");
}

fn board_view(camera: &Camera, T_april_camera: &Pose) -> Vec<TagDetection> {
    let rig = Rig::built_in().unwrap();
    let T_camera_april = T_april_camera.inverse();
    let place = |tag: &tenon_vision::TagOnBody| seen(camera, tag.id, tag.size_m, &(T_camera_april * tag.T_body_tag));
    rig.base_tags.iter().map(place).collect()
}

/// About where the benchmark's front camera stands (perception.md section 3, `cameras.toml`).
fn front_camera() -> Pose {
    let rotation = UnitQuaternion::from_euler_angles(1.27, 0.01, -0.01);
    Pose::from_parts(Translation3::new(0.03, 0.79, -0.28), rotation)
}

#[test]
fn the_board_gives_the_camera_and_noise_moves_it_little() {
    let rig = Rig::built_in().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for camera in [pinhole(), distorted()] {
        let view = board_view(&camera, &front_camera());
        let solved = body_pose("the base board", &camera, &rig.base_tags, &view).unwrap();
        let (metres, radians) = difference(&solved.T_body_camera(), &front_camera());
        assert!(metres < 1e-7 && radians < 1e-7, "{metres} {radians}");
        assert!(solved.best.rms_px < 1e-7 && solved.tags.len() == 4 && !solved.ambiguous);

        let mut worst = 0.0f64;
        for _ in 0..100 {
            let noisy: Vec<_> = view.iter().map(|tag| with_noise(tag, 0.2, &mut rng)).collect();
            let solved = body_pose("the base board", &camera, &rig.base_tags, &noisy).unwrap();
            worst = worst.max(difference(&solved.T_body_camera(), &front_camera()).0);
            assert!(solved.best.rms_px < 0.6);
        }
        assert!(worst < 0.025, "{worst} m");
    }
}

#[test]
fn an_id_seen_twice_refuses_the_board_and_is_named() {
    let camera = pinhole();
    let rig = Rig::built_in().unwrap();
    let mut view = board_view(&camera, &front_camera());
    let mut copy = view[2];
    for corner in &mut copy.corners_px {
        corner[0] += 200.0;
    }
    view.push(copy);
    let error = body_pose("the base board", &camera, &rig.base_tags, &view).unwrap_err();
    assert!(matches!(&error, VisionError::DuplicateTag { id: 2, count: 2, .. }), "{error}");
    assert!(error.to_string().contains("tag id 2 of the base board"), "{error}");
    // Duplicates of somebody else's tag do not matter to the board.
    view.pop();
    let stranger = TagDetection { id: 90, ..view[0] };
    view.extend([stranger, stranger]);
    assert!(body_pose("the base board", &camera, &rig.base_tags, &view).is_ok());
    let error = body_pose("the base board", &camera, &rig.base_tags, &[stranger]).unwrap_err();
    assert!(error.to_string().contains("0, 1, 2, 3"), "{error}");
}

#[test]
fn a_part_with_tags_on_several_sides_is_solved_jointly() {
    let camera = pinhole();
    let rig = Rig::built_in().unwrap();
    let leg = rig.parts.iter().find(|part| part.name == "square_table_leg4").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut worst = (0.0f64, 0.0f64);
    for _ in 0..200 {
        // Standing, turned so that two sides are seen at 45 degrees each.
        let rotation = UnitQuaternion::from_euler_angles(0.2, std::f64::consts::FRAC_PI_4, 0.0);
        let truth = Pose::from_parts(Translation3::new(0.05, 0.02, 0.6), rotation);
        let visible = leg.tags.iter().filter_map(|tag| {
            let T_camera_tag = truth * tag.T_body_tag;
            let facing = (T_camera_tag.rotation * Vector3::z()).dot(&T_camera_tag.translation.vector.normalize());
            (facing > 0.3).then(|| seen(&camera, tag.id, tag.size_m, &T_camera_tag))
        });
        let noisy: Vec<_> = visible.map(|tag| with_noise(&tag, 0.2, &mut rng)).collect();
        assert_eq!(noisy.len(), 2);
        let solved = body_pose(&leg.name, &camera, &leg.tags, &noisy).unwrap();
        assert!(!solved.ambiguous, "ratio {}", solved.ratio);
        let (metres, radians) = difference(&solved.best.T_camera_body, &truth);
        worst = (worst.0.max(metres), worst.1.max(radians));
    }
    assert!(worst.0 < 0.02 && worst.1 < 0.12, "{worst:?}");
}

#[test]
fn rendered_tags_are_found_where_they_were_drawn() {
    for camera in [pinhole(), distorted()] {
        let rig = Rig::built_in().unwrap();
        let T_camera_april = front_camera().inverse();
        let mut tags: Vec<PrintedTag> = rig
            .base_tags
            .iter()
            .map(|tag| PrintedTag {
                family: Family::Tag36h11,
                id: tag.id,
                size_m: tag.size_m,
                T_camera_tag: T_camera_april * tag.T_body_tag,
            })
            .collect();
        // Turned by a quarter each: the corner order must turn with the print.
        for (k, id) in [6, 8, 163, 300].into_iter().enumerate() {
            let x = -0.18 + 0.12 * k as f64;
            tags.push(PrintedTag {
                family: Family::Tag36h11,
                id,
                size_m: 0.03,
                T_camera_tag: tag_at([x, -0.12, 0.55], 0.4, k as f64, k as f64 * std::f64::consts::FRAC_PI_2),
            });
        }
        let image = render(&camera, 1280, 720, &tags, &RenderSettings::default()).unwrap();
        let mut detector = Detector::new(DetectorSettings::default()).unwrap();
        let found = detector.detect(image.view()).unwrap();
        assert_eq!(found.len(), tags.len());
        let mut worst = 0.0f64;
        for tag in &tags {
            let truth = seen(&camera, tag.id, tag.size_m, &tag.T_camera_tag);
            let detection = found.iter().find(|d| d.id == tag.id).unwrap();
            for (a, b) in detection.corners_px.iter().zip(truth.corners_px) {
                worst = worst.max((a[0] - b[0]).hypot(a[1] - b[1]));
            }
        }
        println!("worst corner {worst:.3} px");
        assert!(worst < 0.25, "{worst}");
        let solved = body_pose("the base board", &camera, &rig.base_tags, &found).unwrap();
        let (metres, radians) = difference(&solved.T_body_camera(), &front_camera());
        println!("camera off by {:.2} mm, {:.3} deg", metres * 1e3, radians.to_degrees());
        assert!(metres < 0.006 && radians < 0.01, "{metres} m {radians} rad");
    }
}

#[test]
fn noise_pictures_do_not_harm_the_detector() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut detector =
        Detector::new(DetectorSettings { min_decision_margin: 30.0, threads: 2, ..Default::default() }).unwrap();
    for (w, h) in [(32, 32), (47, 200), (320, 33), (320, 240)] {
        for block in [1, 2, 5, 8, 13] {
            // Random blocks make many quadrilaterals, up to and over the border.
            let mut image = tenon_vision::GreyImage::filled(w, h, 0);
            let levels: Vec<u8> = (0..w * h).map(|_| rng.random_range(0..=255)).collect();
            for (i, pixel) in image.pixels_mut().iter_mut().enumerate() {
                *pixel = levels[(i / w / block) * w + (i % w) / block];
            }
            let found = detector.detect(image.view()).unwrap();
            assert!(found.iter().all(|tag| tag.hamming <= 1 && tag.id < 587), "{found:?}");
        }
    }
}

#[test]
fn impossible_corners_are_errors() {
    let camera = pinhole();
    let good = seen(&camera, 6, 0.0195, &tag_at([0.0, 0.0, 0.5], 0.3, 0.0, 0.0));
    let mut mirrored = good;
    mirrored.corners_px.reverse();
    let mut line = good;
    line.corners_px = [[10.0, 10.0], [20.0, 10.0], [30.0, 10.0], [40.0, 10.0]];
    let mut nan = good;
    nan.corners_px[1][0] = f64::NAN;
    let mut point = good;
    point.corners_px = [[5.0, 5.0]; 4];
    for bad in [mirrored, line, nan, point] {
        assert!(matches!(tag_pose(&camera, &bad, 0.0195), Err(VisionError::Degenerate { id: 6, .. })));
    }
    assert!(tag_pose(&camera, &good, f64::NAN).is_err());
}
