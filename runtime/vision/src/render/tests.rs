use super::*;
use crate::render::{Backdrop, Convex, SceneBody, Solid};
use crate::{Detector, DetectorSettings, Family, Rig, TagOnBody};
use nalgebra::{Translation3, UnitQuaternion};

fn pinhole() -> Camera {
    Camera::pinhole(915.0, 915.0, 320.0, 240.0).unwrap()
}

fn one_tag(id: u32, size_m: f64) -> SceneBody {
    let tag = TagOnBody { id, size_m, T_body_tag: Pose::identity() };
    SceneBody::with_tags(&[tag], Family::Tag36h11, 0.4).unwrap()
}

fn at(x: f64, y: f64, z: f64) -> Pose {
    Pose::from_parts(Translation3::new(x, y, z), UnitQuaternion::identity())
}

fn photograph(
    camera: &mut SyntheticCamera,
    scene: &Scene,
    motions: &[Motion],
    number: u64,
) -> (GreyImage, Vec<TagTruth>) {
    let mut image = GreyImage::filled(640, 480, 0);
    let truth = camera.shoot(scene, motions, number, &mut image).unwrap().to_vec();
    (image, truth)
}

/// Distance of the worst corner of `id` from its truth, px.
fn worst_corner_px(image: &GreyImage, truth: &[TagTruth], id: u32) -> Option<f64> {
    let mut detector = Detector::new(DetectorSettings::default()).unwrap();
    let found = detector.detect(image.view()).unwrap().into_iter().find(|tag| tag.id == id)?;
    let truth = truth.iter().find(|tag| tag.id == id)?;
    let distances = found.corners_px.iter().zip(truth.corners_px).map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1]));
    Some(distances.fold(0.0, f64::max))
}

#[test]
fn one_seed_and_number_give_one_photograph_and_another_number_gives_other_noise_only() {
    let scene = Scene { bodies: vec![one_tag(6, 0.03)] };
    let motions = [Motion::still(at(0.0, 0.01, 0.5))];
    let mut camera = SyntheticCamera::new(pinhole(), 640, 480, CameraEffects::default(), 7).unwrap();
    let first = photograph(&mut camera, &scene, &motions, 3).0;
    let other = photograph(&mut camera, &scene, &motions, 4).0;
    let mut again = SyntheticCamera::new(pinhole(), 640, 480, CameraEffects::default(), 7).unwrap();
    assert!(first == photograph(&mut again, &scene, &motions, 3).0);
    let differences = first.pixels().iter().zip(other.pixels()).map(|(a, b)| a.abs_diff(*b));
    assert!(first != other && differences.max().unwrap() < 40);
}

#[test]
fn noise_defocus_and_distortion_leave_corners_where_the_truth_says() {
    let distortion = crate::Distortion { k1: 0.1, k2: -0.2, p1: 0.0008, p2: -0.0006, k3: 0.05 };
    for lens in [pinhole(), pinhole().with_distortion(distortion).unwrap()] {
        let mut camera = SyntheticCamera::new(lens, 640, 480, CameraEffects::default(), 1).unwrap();
        let scene = Scene { bodies: vec![one_tag(6, 0.048), one_tag(9, 0.048)] };
        let turned = at(-0.06, 0.05, 0.5) * UnitQuaternion::from_euler_angles(0.5, 0.3, 0.7);
        let motions = [Motion::still(at(0.07, -0.03, 0.5)), Motion::still(turned)];
        let (image, truth) = photograph(&mut camera, &scene, &motions, 1);
        for id in [6, 9] {
            let worst = worst_corner_px(&image, &truth, id).expect("the tag is large and sharp");
            assert!(worst < 0.35, "tag {id}: {worst} px");
        }
        assert!(truth.iter().all(|tag| tag.visible_fraction == 1.0), "{truth:?}");
        assert!((truth[0].tilt_rad - (0.07f64.hypot(0.03) / 0.5).atan()).abs() < 1e-9, "{}", truth[0].tilt_rad);
    }
}

#[test]
fn motion_over_the_exposure_smears_the_edge_by_its_length_around_the_true_place() {
    let effects = CameraEffects { supersampling: 6, ..CameraEffects::clean() };
    let mut camera = SyntheticCamera::new(pinhole(), 640, 480, effects, 1).unwrap();
    let scene = Scene { bodies: vec![one_tag(6, 0.048)] };
    let (open, close) = (at(0.0, 0.0, 0.5), at(0.004, 0.0, 0.5));
    let moved = Motion { T_camera_body_open: open, T_camera_body_close: close };
    let (image, truth) = photograph(&mut camera, &scene, &[moved], 1);
    // 4 mm at 0.5 m are 7.3 px. Row through the border's left edge: count levels between its black and white.
    let left = truth[0].corners_px[0][0].min(truth[0].corners_px[3][0]);
    let row = &image.pixels()[240 * 640..][..640];
    let around = &row[(left - 9.0) as usize..(left + 5.0) as usize];
    let (low, high) = (*around.iter().min().unwrap(), *around.iter().max().unwrap());
    let smeared = around.iter().filter(|&&level| level > low + 12 && level < high - 12).count();
    assert!((5..=8).contains(&smeared), "{smeared} {around:?}");
    let worst = worst_corner_px(&image, &truth, 6).unwrap();
    assert!(worst < 1.5, "{worst}");
    let (still, _) = photograph(&mut camera, &scene, &[Motion::still(open)], 1);
    let row = &still.pixels()[240 * 640..][..640];
    let around = &row[(left - 9.0) as usize..(left + 5.0) as usize];
    let sharp = around.iter().filter(|&&level| level > low + 12 && level < high - 12).count();
    assert!(sharp <= 1, "{around:?}");
}

#[test]
fn a_body_hides_its_far_side_and_what_stands_behind_it() {
    let rig = Rig::built_in().unwrap();
    let leg = rig.parts.iter().find(|part| part.name == "square_table_leg1").unwrap();
    let body = SceneBody::part(&rig, leg).unwrap();
    let hand = SceneBody::bare(Solid::Convex(Convex::cuboid([0.03, 0.1, 0.01])), 0.5);
    let ball = SceneBody::bare(Solid::Ball { radius_m: 0.01 }, 0.5);
    let scene = Scene { bodies: vec![body, one_tag(100, 0.03), hand, ball] };
    let leg_pose = at(-0.06, 0.0, 0.5);
    let motions = [
        Motion::still(leg_pose),
        Motion::still(at(0.06, 0.0, 0.5)),
        // Covers the left half of tag 100's print, which is 37.5 mm wide: from its left end to its middle.
        Motion::still(at(0.06 * 0.8 - 0.015, 0.0, 0.4)),
        Motion::still(at(0.3, 0.0, 0.4)),
    ];
    let effects = CameraEffects { backdrop: Backdrop::Flat(0.3), ..CameraEffects::default() };
    let mut camera = SyntheticCamera::new(pinhole(), 640, 480, effects, 1).unwrap();
    let (image, truth) = photograph(&mut camera, &scene, &motions, 1);
    let fraction = |id: u32| truth.iter().find(|tag| tag.id == id).unwrap().visible_fraction;
    assert_eq!([8, 10].map(fraction), [1.0, 0.0]);
    assert!((fraction(100) - 0.5).abs() < 0.07, "{}", fraction(100));
    assert!(worst_corner_px(&image, &truth, 8).unwrap() < 0.4);
    assert_eq!(worst_corner_px(&image, &truth, 100), None);
    // Half out of the picture.
    let motions = [motions[0], Motion::still(at(-0.175, 0.0, 0.5)), motions[3], motions[3]];
    let (_, truth) = photograph(&mut camera, &scene, &motions, 1);
    let half = truth.iter().find(|tag| tag.id == 100).unwrap().visible_fraction;
    assert!((half - 0.5).abs() < 0.07, "{half}");
}

#[test]
fn impossible_settings_and_pictures_of_another_size_are_refused() {
    for bad in [
        CameraEffects { supersampling: 0, ..CameraEffects::default() },
        CameraEffects { gamma: 0.0, ..CameraEffects::default() },
        CameraEffects { full_well_electrons: f64::NAN, ..CameraEffects::default() },
        CameraEffects { vignetting: 1.5, ..CameraEffects::default() },
    ] {
        assert!(
            matches!(SyntheticCamera::new(pinhole(), 640, 480, bad, 1), Err(VisionError::Camera { .. })),
            "{bad:?}"
        );
    }
    let mut camera = SyntheticCamera::new(pinhole(), 640, 480, CameraEffects::default(), 1).unwrap();
    let mut small = GreyImage::filled(320, 240, 0);
    assert!(camera.shoot(&Scene::default(), &[], 0, &mut small).is_err());
}
