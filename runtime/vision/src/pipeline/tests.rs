use super::*;
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, Motion, Scene, SceneBody, SyntheticCamera};
use crate::source::{
    CameraThreadSettings, Clock, Doorbell, Expected, FrameSource, Pace, Serial, SimulatedDevice, SimulatedSettings,
    SystemClock, spawn,
};
use crate::{Camera, GreyImage, Pose};
use std::sync::Arc;
use std::time::Instant;
use tenon_core::fusion::{Furniture, FusionConfig, Refusal, T_robot_april_training};

const PERIOD: Duration = Duration::from_nanos(33_333_333);
const SIZE: (usize, usize) = (1280, 720);

fn lens() -> Camera {
    Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap()
}

fn placed(T_april_camera: Pose) -> PlacedCamera {
    PlacedCamera { camera: lens(), T_april_camera, position_sigma_m: 0.0, rotation_sigma_rad: 0.0 }
}

fn time(seconds: f64) -> MonotonicTime {
    MonotonicTime::from_nanos(1_000_000_000) + Duration::from_secs_f64(seconds)
}

fn board() -> PartBoard {
    let board = T_robot_april_training();
    PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &board, 3, time(0.0)).unwrap()
}

/// Three cameras, each `stagger_s` after the one before it, and what the pipeline makes of them.
fn film(
    speed_m_s: f64,
    stagger_s: f64,
    frames: usize,
    settings: &PipelineSettings,
    mut judge: impl FnMut(&Workbench, usize, f64, &PartUpdate),
) -> VisionPipeline {
    const EXPOSURE_S: f64 = 0.004;
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, speed_m_s).unwrap();
    let views = three_views();
    let cameras = views.map(|view| (placed(view), SIZE));
    let mut pipeline = VisionPipeline::new(&rig, board(), &cameras, settings).unwrap();
    let mut lenses: Vec<_> = (0..3)
        .map(|i| SyntheticCamera::new(lens(), SIZE.0, SIZE.1, CameraEffects::default(), 70 + i).unwrap())
        .collect();
    let mut image = GreyImage::filled(SIZE.0, SIZE.1, 0);
    for frame in 0..frames {
        for camera in 0..3 {
            let at_s = frame as f64 * PERIOD.as_secs_f64() + camera as f64 * stagger_s;
            let motions = bench.motions(&views[camera], at_s - EXPOSURE_S / 2.0, EXPOSURE_S);
            lenses[camera].shoot(&bench.scene, &motions, frame as u64, &mut image).unwrap();
            if frame == 0 {
                pipeline.search_whole(camera, image.view(), time(at_s)).unwrap();
            }
            for update in pipeline.frame(camera, image.view(), time(at_s), time(at_s + 0.01)).unwrap() {
                judge(&bench, frame, at_s, update);
            }
            pipeline.search_slice(camera, image.view(), time(at_s)).unwrap();
        }
    }
    pipeline
}

#[test]
fn a_moving_part_is_measured_where_it_was_at_the_newest_exposure() {
    let worst = |rest_speed_px_s: f64| {
        let settings = PipelineSettings { rest_speed_px_s, ..Default::default() };
        let mut errors = Vec::new();
        film(0.25, PERIOD.as_secs_f64() / 3.0, 12, &settings, |bench, frame, at_s, update| {
            // The carried leg is the last body; the first frames know no velocity yet.
            if update.part == 4 && frame >= 3 {
                let truth = bench.T_april_body(5, at_s);
                let measured = update.measurement.T_april_part;
                assert!((update.measurement.exposed_at.seconds_since(time(at_s))).abs() < 1e-5);
                errors.push((measured.translation.vector - truth.translation.vector).norm());
            }
        });
        assert!(errors.len() >= 20, "{}", errors.len());
        errors.sort_unstable_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    let (carried, left) = (worst(20.0), worst(f64::INFINITY));
    println!("median error of a leg at 0.25 m/s: {:.2} mm carried, {:.2} mm not", 1e3 * carried, 1e3 * left);
    assert!(carried < 1.5e-3 && carried < 0.7 * left, "{carried} {left}");
}

#[test]
fn cameras_that_expose_at_one_instant_all_count() {
    let mut refused = 0;
    let mut accepted = 0;
    let pipeline = film(0.0, 0.0, 3, &PipelineSettings::default(), |_, _, _, update| match update.outcome {
        Outcome::Refused(Refusal::Duplicate | Refusal::OutOfOrder) => refused += 1,
        // The first camera alone cannot tell the two minima of a single tag apart.
        Outcome::Refused(Refusal::AmbiguousStart) => {}
        Outcome::Refused(other) => panic!("{other}"),
        _ => accepted += 1,
    });
    assert!(refused == 0 && accepted >= 30, "{refused} {accepted}");
    for part in 0..5 {
        let estimate = pipeline.board().estimate(part, time(0.1), None).unwrap().unwrap();
        assert!(estimate.tags >= 1 && estimate.age < Duration::from_millis(60), "{part}: {estimate:?}");
    }
}

#[test]
fn a_measurement_weighs_less_for_every_camera_whose_view_is_used_again() {
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, 0.0).unwrap();
    let views = three_views();
    let cameras: Vec<_> = views.iter().map(|view| placed(*view)).collect();
    let settings = PipelineSettings::default();
    let mut solver = PoseSolver::new(&rig, &board(), cameras.clone(), &settings);
    let mut image = GreyImage::filled(SIZE.0, SIZE.1, 0);
    let mut seen = Vec::new();
    for (i, view) in views.iter().enumerate() {
        let mut camera = SyntheticCamera::new(lens(), SIZE.0, SIZE.1, CameraEffects::default(), i as u64).unwrap();
        camera.shoot(&bench.scene, &bench.motions(view, 0.0, 0.004), 0, &mut image).unwrap();
        let mut eye = Eye::new(&settings.tracker, &settings.slices, SIZE).unwrap();
        eye.search_whole(image.view(), time(0.0)).unwrap();
        let mut view = View::default();
        eye.see(image.view(), time(0.0), &mut view).unwrap();
        seen.push(view);
    }
    for (i, view) in seen.iter().enumerate() {
        solver.take(i, view);
    }
    let mut plain = crate::PartSolver::new(settings.parts);
    let top = &rig.parts[0];
    let lists = seen.iter().map(|view| view.tags.as_slice());
    let alone = plain.solve(&top.name, &top.tags, &cameras, lists, None).unwrap();
    let solved = solver.take(0, &seen[0]).iter().find(|solved| solved.part == 0).unwrap().measurement;
    assert!(alone.cameras >= 2 && usize::from(solved.cameras) == alone.cameras);
    let ratio = solved.covariance.trace() / alone.covariance.trace();
    assert!((ratio - alone.cameras as f64).abs() < 0.05, "{ratio}");
    // What is too old says nothing any more: the second camera alone.
    let late = View { exposed_at: time(0.2), ..seen[1].clone() };
    assert!(solver.take(1, &late).iter().all(|solved| solved.measurement.cameras == 1));
}

/// A tag that comes and goes before an eye with a searching thread, paced as a camera would be.
#[test]
fn a_tag_that_appears_is_found_within_fifteen_frames_by_the_searching_thread() {
    let settings = PipelineSettings::threaded();
    let mut camera = SyntheticCamera::new(lens(), SIZE.0, SIZE.1, CameraEffects::default(), 9).unwrap();
    let tag = |id, size_m| {
        let tag = crate::TagOnBody { id, size_m, T_body_tag: Pose::identity() };
        Scene { bodies: vec![SceneBody::with_tags(&[tag], crate::Family::Tag36h11, 0.4).unwrap()] }
    };
    let at = |x: f64, y: f64, z: f64| {
        let turn = nalgebra::UnitQuaternion::from_euler_angles(0.3, 0.2, 0.5);
        Motion::still(Pose::from_parts(nalgebra::Translation3::new(x, y, z), turn))
    };
    let mut shoot = |scene: &Scene, motions: &[Motion], number: u64| {
        let mut image = GreyImage::filled(SIZE.0, SIZE.1, 0);
        camera.shoot(scene, motions, number, &mut image).unwrap();
        image
    };
    let empty = shoot(&Scene::default(), &[], 0);
    let places =
        [(0.0, 0.0, 0.6, 0.0195), (-0.13, 0.02, 0.7, 0.0195), (0.38, 0.2, 0.6, 0.0195), (0.02, 0.0, 0.2, 0.048)];
    let shown: Vec<GreyImage> = places
        .iter()
        .enumerate()
        .map(|(k, &(x, y, z, size_m))| shoot(&tag(30 + k as u32, size_m), &[at(x, y, z)], 1 + k as u64))
        .collect();
    let mut eye = Eye::with_search_thread(&settings.tracker, &settings.slices, SIZE, settings.priority).unwrap();
    let mut view = View::default();
    let start = Instant::now();
    let mut waits = Vec::new();
    let mut frame = 0u32;
    for round in 0..12usize {
        let image = &shown[round % shown.len()];
        // Seen from another frame of the search's own rhythm each time.
        let hidden = 11 + (round as u32 * 3) % 5;
        let mut waited = None;
        for k in 0..hidden + 24 {
            let due = start + PERIOD * frame;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let picture = if k < hidden { &empty } else { image };
            let now = time(frame as f64 * PERIOD.as_secs_f64());
            eye.see(picture.view(), now, &mut view).unwrap();
            if k >= hidden && !view.tags.is_empty() && waited.is_none() {
                waited = Some(k - hidden);
            }
            eye.search_slice(picture.view(), now).unwrap();
            frame += 1;
        }
        waits.push(waited.unwrap_or_else(|| panic!("round {round}: not found in 24 frames; before: {waits:?}")));
    }
    println!("frames from a tag's first to its first find: {waits:?}, {} slices", eye.searched_slices());
    assert!(waits.iter().all(|&wait| wait <= 15), "{waits:?}");
}

#[test]
fn three_paced_cameras_on_threads_give_the_board_its_poses_and_end_with_their_sources() {
    let rig = Rig::built_in().unwrap();
    let bench = Workbench::one_leg(&rig, 0.0).unwrap();
    let shoot = |i: usize, view: &Pose| -> Vec<GreyImage> {
        let mut camera = SyntheticCamera::new(lens(), SIZE.0, SIZE.1, CameraEffects::default(), i as u64).unwrap();
        let pictures = (0..3).map(|number| {
            let mut image = GreyImage::filled(SIZE.0, SIZE.1, 0);
            camera.shoot(&bench.scene, &bench.motions(view, 0.0, 0.004), number, &mut image).unwrap();
            image
        });
        pictures.collect()
    };
    let films: Vec<_> = three_views().iter().enumerate().map(|(i, view)| (*view, shoot(i, view))).collect();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let frames = 45;
    let mut cameras = Vec::new();
    for (i, (view, pictures)) in films.into_iter().enumerate() {
        let mut next = 0;
        let scene = move |_: MonotonicTime, grey: &mut GreyImage| {
            grey.pixels_mut().copy_from_slice(pictures[next % pictures.len()].pixels());
            next += 1;
        };
        let serial = Serial::new(&format!("SIM{i}")).unwrap();
        let simulated = SimulatedSettings {
            frames: Some(frames),
            ..SimulatedSettings::of_size("bench", serial, SIZE.0, SIZE.1, 30.0, Pace::RealTime)
        };
        let device = SimulatedDevice::new(simulated, scene, vec![], Arc::clone(&clock)).unwrap();
        let expected = Expected { serial: Some(serial), size_px: Some([SIZE.0, SIZE.1]) };
        let opener = move || device.open().map(|camera| Box::new(camera) as Box<dyn FrameSource>);
        let of_rate = CameraThreadSettings::of_rate(30.0, expected);
        let reader = spawn(opener, of_rate, Arc::clone(&clock), &Doorbell::default()).unwrap();
        cameras.push(PipelineCamera { placed: placed(view), size: SIZE, reader });
    }
    let robot_board = T_robot_april_training();
    let mut board = PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &robot_board, 3, clock.now()).unwrap();
    let mut threads = VisionThreads::start(&rig, &board, cameras, &clock, &PipelineSettings::threaded()).unwrap();
    let mut solved = [0u64; 3];
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut ready = false;
    while !threads.have_ended() || !ready {
        if let Some(frame) = threads.wait(Duration::from_millis(20)) {
            frame.update(&mut board, clock.now());
            solved[frame.camera] += 1;
            ready |= (0..5).all(|part| board.estimate(part, clock.now(), None).is_ok());
        } else if threads.have_ended() {
            break;
        }
        assert!(Instant::now() < give_up);
    }
    let counts: Vec<EyeCounts> = (0..3).map(|camera| threads.counts(camera)).collect();
    println!("{solved:?} frames solved of {frames}, {:?}", counts.iter().map(|c| c.slices).collect::<Vec<_>>());
    assert!(threads.next_error().is_none() && counts.iter().all(|count| count.failed == 0), "{counts:?}");
    assert!(ready && solved.iter().all(|&n| n > 10 && n <= frames), "{solved:?} {counts:?}");
    assert!(counts.iter().all(|count| count.status.ended && count.slices > 0), "{counts:?}");
}
