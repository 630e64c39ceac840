use super::*;
use crate::render::{CameraEffects, Motion, Scene, SceneBody, SyntheticCamera};
use crate::{Camera, Pose, TagOnBody};
use nalgebra::{Translation3, UnitQuaternion};

#[test]
fn bitmap_has_margin_border_and_refuses_unknown_ids() {
    let tag = Family::Tag36h11.bitmap(6).unwrap();
    assert_eq!((tag.width(), tag.height()), (10, 10));
    let at = |x: usize, y: usize| tag.pixels()[y * 10 + x];
    assert!((0..10).all(|i| at(i, 0) == 255 && at(9, i) == 255 && at(i, 9) == 255 && at(0, i) == 255));
    assert!((1..9).all(|i| at(i, 1) == 0 && at(8, i) == 0 && at(i, 8) == 0 && at(1, i) == 0));
    assert!(matches!(Family::Tag36h11.bitmap(587), Err(VisionError::UnknownTagId { last: 586, .. })));
}

#[test]
fn sizes_and_settings_the_library_would_abort_on_are_refused() {
    let mut detector = Detector::new(DetectorSettings::default()).unwrap();
    let tiny = GreyImage::filled(8, 8, 0);
    assert!(matches!(detector.detect(tiny.view()), Err(VisionError::ImageSize { .. })));
    let wide = GreyImage::filled(40_000, 40, 0);
    assert!(matches!(detector.detect(wide.view()), Err(VisionError::ImageSize { .. })));
    for bad in [
        DetectorSettings { quad_decimate: 2.5, ..Default::default() },
        DetectorSettings { quad_sigma: f32::NAN, ..Default::default() },
        DetectorSettings { max_hamming: 3, ..Default::default() },
        DetectorSettings { threads: 0, ..Default::default() },
    ] {
        assert!(matches!(Detector::new(bad), Err(VisionError::DetectorSetting { .. })), "{bad:?}");
    }
}

#[test]
fn only_a_decision_margin_raises_the_least_contrast() {
    assert_eq!(DetectorSettings::default().least_contrast(), 5);
    let strict = DetectorSettings { min_decision_margin: 30.0, ..Default::default() };
    assert_eq!(strict.least_contrast(), 20);
    assert_eq!(DetectorSettings { decode_sharpening: 0.5, ..strict }.least_contrast(), 12);
    assert_eq!(DetectorSettings { quad_decimate: 2.0, ..strict }.least_contrast(), 20);
    assert_eq!(DetectorSettings { quad_decimate: 1.5, ..strict }.least_contrast(), 5);
    assert_eq!(DetectorSettings { quad_sigma: 0.8, ..strict }.least_contrast(), 5);
    assert_eq!(DetectorSettings { min_decision_margin: 1e9, ..strict }.least_contrast(), 128);
}

/// One tag in each cell of a grid, of three sizes, in light from full to so faint that the margin drops them.
#[test]
fn what_the_least_contrast_spares_would_not_have_passed_the_margin() {
    let lens = Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap();
    let mut image = GreyImage::filled(1280, 720, 0);
    for decimate in [1.0, 2.0] {
        let settings = DetectorSettings { min_decision_margin: 30.0, quad_decimate: decimate, ..Default::default() };
        let mut plain = Detector::plain(settings).unwrap();
        let mut spared = Detector::new(settings).unwrap();
        let mut unfiltered = Detector::new(DetectorSettings { quad_decimate: decimate, ..Default::default() }).unwrap();
        let (mut same, mut more, mut fewer, mut dropped, mut faint) = (0, 0, 0, 0, 0);
        let mut worst_px = 0.0f64;
        for (round, exposure) in [1.0, 0.6, 0.4, 0.3, 0.25, 0.22, 0.2, 0.18, 0.16].into_iter().enumerate() {
            let effects = CameraEffects { exposure, ..CameraEffects::default() };
            let mut camera = SyntheticCamera::new(lens, 1280, 720, effects, 40 + round as u64).unwrap();
            let (mut bodies, mut motions) = (Vec::new(), Vec::new());
            for cell in 0..20u32 {
                let size_m = [0.0195, 0.03, 0.048][(cell as usize + round) % 3];
                let tag = TagOnBody { id: cell, size_m, T_body_tag: Pose::identity() };
                bodies.push(SceneBody::with_tags(&[tag], Family::Tag36h11, 0.4).unwrap());
                let (column, row) = (f64::from(cell % 5), f64::from(cell / 5));
                let angle = f64::from(cell) + 0.7 * round as f64;
                let turn = UnitQuaternion::from_euler_angles(0.9 * angle.sin(), 0.7 * angle.cos(), angle);
                let depth_m = 0.5 + 0.1 * (2.3 * angle).sin();
                let (x, y) = (256.0 * column + 128.0 - 640.0, 180.0 * row + 90.0 - 360.0);
                let place = Translation3::new(x / 915.0 * depth_m, y / 915.0 * depth_m, depth_m);
                motions.push(Motion::still(Pose::from_parts(place, turn)));
            }
            camera.shoot(&Scene { bodies }, &motions, round as u64, &mut image).unwrap();
            let wanted = plain.detect(image.view()).unwrap();
            let found = spared.detect(image.view()).unwrap();
            dropped += unfiltered.detect(image.view()).unwrap().len() - wanted.len();
            faint += wanted.iter().filter(|tag| tag.decision_margin < 40.0).count();
            let twin = |tag: &TagDetection, list: &[TagDetection]| list.iter().find(|t| t.id == tag.id).copied();
            for tag in &wanted {
                let Some(other) = twin(tag, &found) else {
                    fewer += 1;
                    println!(
                        "decimate {decimate}, exposure {exposure}: tag {} of margin {}",
                        tag.id, tag.decision_margin
                    );
                    continue;
                };
                same += 1;
                for (a, b) in tag.corners_px.iter().flatten().zip(other.corners_px.iter().flatten()) {
                    worst_px = worst_px.max((a - b).abs());
                }
            }
            more += found.iter().filter(|tag| twin(tag, &wanted).is_none()).count();
        }
        println!(
            "decimate {decimate}: {same} the same (worst corner {worst_px:.1e} px), {fewer} fewer, {more} more; {faint} \
             within 10 of the margin, {dropped} below it"
        );
        assert_eq!((fewer, more), (0, 0));
        assert!(worst_px < 1e-6, "{worst_px}");
        assert!(same >= 90 && faint > 10 && dropped > 10, "{same} {faint} {dropped}");
    }
}

#[test]
fn an_empty_picture_has_no_tags_whatever_its_size() {
    let mut detector = Detector::new(DetectorSettings::default()).unwrap();
    for (w, h) in [(32, 32), (33, 61), (640, 32), (35, 640)] {
        let image = GreyImage::filled(w, h, 120);
        assert!(detector.detect(image.view()).unwrap().is_empty());
    }
}
