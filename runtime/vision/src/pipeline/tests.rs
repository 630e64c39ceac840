use super::*;
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, Convex, Motion, Scene, SceneBody, Solid, SyntheticCamera};
use crate::source::{
    CameraThreadSettings, Clock, Doorbell, Expected, FrameSource, Pace, Serial, SimulatedDevice, SimulatedSettings,
    SystemClock, spawn,
};
use crate::{Camera, GreyImage, Pose};
use std::sync::Arc;
use std::time::Instant;
use tenon_core::fusion::{Furniture, FusionConfig, GripperEvent, PartState, Refusal, T_robot_april_training};

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
            // The first camera is covered at first, in the changing light of a hand.
            match (i, next) {
                (0, 0..=14) => grey.pixels_mut().fill(20 + next as u8),
                _ => grey.pixels_mut().copy_from_slice(pictures[next % pictures.len()].pixels()),
            }
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
            threads.expect(&board, clock.now(), None);
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
    // What the others see is looked for in the covered one.
    assert!(counts[0].looked_for > 0 && counts[0].looked_for > counts[1].looked_for, "{counts:?}");
}

/// What tells a camera where a hidden part is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Feedback {
    None,
    /// The other two cameras, which see it all the time.
    Cameras,
    /// The gripper that carries it, hidden from all three cameras.
    Gripper,
}

/// The leg is carried at 0.25 m/s while a plate goes with it that hides it from the first camera, or from all, for `hidden`
/// frames. How many frames after the plate is gone the first camera sees a tag of the leg again: 0 is the first such frame.
fn seen_again_after(feedback: Feedback, hidden: usize) -> usize {
    let hides_from_all = feedback == Feedback::Gripper;
    const EXPOSURE_S: f64 = 0.004;
    const FROM: usize = 4;
    const LEG: usize = 4;
    let rig = Rig::built_in().unwrap();
    // Few rays: what is timed is frames, not corners.
    let effects = CameraEffects { supersampling: 2, ..Default::default() };
    let mut bench = Workbench::one_leg(&rig, 0.25).unwrap();
    bench.scene.bodies.push(SceneBody::bare(Solid::Convex(Convex::cuboid([0.11, 0.11, 0.003])), 0.3));
    let views = three_views();
    let cameras = views.map(|view| (placed(view), SIZE));
    // Slices as the threads have them on a quiet machine: the whole picture, every fourth frame.
    let look_for_expected = feedback != Feedback::None;
    let settings = PipelineSettings { look_for_expected, ..PipelineSettings::threaded() };
    let mut pipeline = VisionPipeline::new(&rig, board(), &cameras, &settings).unwrap();
    let mut lenses: Vec<_> =
        (0..3).map(|i| SyntheticCamera::new(lens(), SIZE.0, SIZE.1, effects, 90 + i).unwrap()).collect();
    let mut image = GreyImage::filled(SIZE.0, SIZE.1, 0);
    let ids: Vec<u32> =
        rig.parts.iter().find(|part| part.name == bench.names[LEG + 1]).unwrap().tags.iter().map(|t| t.id).collect();
    for frame in 0..FROM + hidden + 30 {
        let is_hidden = (FROM..FROM + hidden).contains(&frame);
        // Without feedback the other cameras change nothing.
        for camera in 0..if feedback == Feedback::None { 1 } else { 3 } {
            let at_s = frame as f64 * PERIOD.as_secs_f64() + camera as f64 * PERIOD.as_secs_f64() / 3.0;
            let leg = bench.T_april_body(LEG + 1, at_s);
            let mut motions = bench.motions(&views[camera], at_s - EXPOSURE_S / 2.0, EXPOSURE_S);
            let T_camera_leg = views[camera].inverse() * leg;
            let plate = if is_hidden && (camera == 0 || hides_from_all) {
                T_camera_leg.translation.vector * 0.88
            } else {
                nalgebra::Vector3::new(0.0, 0.0, -3.0)
            };
            motions.push(Motion::still(Pose::from_parts(plate.into(), nalgebra::UnitQuaternion::identity())));
            lenses[camera].shoot(&bench.scene, &motions, frame as u64, &mut image).unwrap();
            if frame == 0 {
                pipeline.search_whole(camera, image.view(), time(at_s)).unwrap();
            }
            // The fingers have the leg at its origin, and lose no time.
            let T_robot_tcp = T_robot_april_training() * leg;
            if feedback == Feedback::Gripper {
                pipeline.set_tool_pose(Some(tenon_core::time::Stamped { time: time(at_s), value: T_robot_tcp }));
            }
            pipeline.frame(camera, image.view(), time(at_s), time(at_s + 0.01)).unwrap();
            let sees = pipeline.last_view().tags.iter().any(|tag| ids.contains(&tag.id));
            if frame % 4 == 0 {
                pipeline.search_slice(camera, image.view(), time(at_s)).unwrap();
            }
            if feedback == Feedback::Gripper && (frame, camera) == (FROM - 1, 2) {
                let closed = GripperEvent::Closed { width_m: 0.0286 };
                let grasped = pipeline.board_mut().on_gripper_event(closed, time(at_s + 0.01), Some(&T_robot_tcp));
                assert_eq!(grasped, Some(LEG));
            }
            if camera == 0 {
                assert!(!(is_hidden && sees), "frame {frame}: the plate hides nothing");
                assert!(!(FROM - 2..FROM).contains(&frame) || sees, "frame {frame}: not seen before it was hidden");
                if frame >= FROM + hidden && sees {
                    return frame - FROM - hidden;
                }
            }
        }
        if feedback == Feedback::Gripper && frame >= FROM {
            let estimate =
                pipeline.board().estimate(LEG, time(frame as f64 * PERIOD.as_secs_f64()), pipeline.tool.as_ref());
            assert!(matches!(estimate.unwrap().unwrap().state, PartState::Held { .. }));
        }
    }
    panic!("never seen again")
}

#[test]
fn a_part_that_one_camera_has_lost_is_seen_again_where_the_others_or_the_gripper_have_it() {
    // It depends on the moment how long the slices take.
    let without = [11, 12, 13, 14].map(|hidden| seen_again_after(Feedback::None, hidden));
    let mean = |frames: &[usize]| frames.iter().sum::<usize>() as f64 / frames.len() as f64;
    for feedback in [Feedback::Cameras, Feedback::Gripper] {
        let with = [11, 14].map(|hidden| seen_again_after(feedback, hidden));
        println!("{feedback:?}: seen again after {with:?} frames, without {without:?}");
        // Within two frames of reappearing, and without within four.
        assert!(with.iter().all(|&frames| frames <= 1), "{feedback:?}: {with:?}");
        assert!(
            mean(&without) > mean(&with) + 0.75 && without.iter().any(|&frames| frames > 2),
            "{with:?} {without:?}"
        );
    }
}

#[test]
fn a_corrected_height_does_not_move_where_a_part_is_looked_for() {
    let heights = vec![tenon_core::fusion::HeightCorrection { part: "square_table_leg4".to_owned(), april_z_m: 0.02 }];
    let config = FusionConfig { heights, ..Default::default() };
    let mut board = PartBoard::new(Furniture::OneLeg, &config, &T_robot_april_training(), 3, time(0.0)).unwrap();
    let pose = Pose::translation(0.1, 0.2, -0.03);
    let measurement = PartMeasurement {
        T_april_part: pose,
        covariance: Matrix6::identity() * 1e-6,
        systematic: None,
        other: None,
        other_systematic: None,
        ambiguous: false,
        tags: 2,
        cameras: 2,
        exposed_at: time(0.0),
    };
    board.update(4, &measurement, time(0.0));
    let expected = ExpectedParts::of_board(&board, time(0.01), None);
    let part = expected.part(4).unwrap();
    assert!((part.T_april_part.translation.vector - pose.translation.vector).norm() < 1e-12, "{part:?}");
    assert!(expected.part(0).is_none() && part.at == time(0.01));
}

/// Name, policy and real-time priority of every thread of this process.
fn policies() -> Vec<(String, i64, i64)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let line = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
    let parsed = tasks.flatten().filter_map(line).map(|line| {
        let (before, after) = line.rsplit_once(')').unwrap();
        // proc(5): the first field after the name is number 3; 40 is rt_priority, 41 policy.
        let field = |number: usize| after.split_whitespace().nth(number - 3).unwrap().parse().unwrap();
        (before.split_once('(').unwrap().1.to_owned(), field(41), field(40))
    });
    parsed.collect()
}

#[test]
fn eyes_and_solver_run_in_real_time_where_the_system_permits_and_say_so_where_not() {
    let rig = Rig::built_in().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let start = |realtime_priority: i32| {
        let serial = Serial::new("SIM").unwrap();
        let simulated = SimulatedSettings::of_size("bench", serial, 320, 240, 30.0, Pace::RealTime);
        let device = SimulatedDevice::new(simulated, |_, _: &mut GreyImage| {}, vec![], Arc::clone(&clock)).unwrap();
        let opener = move || device.open().map(|camera| Box::new(camera) as Box<dyn FrameSource>);
        let expected = Expected { serial: Some(serial), size_px: Some([320, 240]) };
        let settings = CameraThreadSettings::of_rate(30.0, expected);
        let reader = spawn(opener, settings, Arc::clone(&clock), &Doorbell::default()).unwrap();
        let camera = PipelineCamera { placed: placed(three_views()[0]), size: (320, 240), reader };
        let settings = PipelineSettings { realtime_priority, ..PipelineSettings::threaded() };
        VisionThreads::start(&rig, &board(), vec![camera], &clock, &settings).unwrap()
    };
    // Whether the system permits it, asked for beside the threads.
    let permitted = std::thread::spawn(|| realtime::request(7)).join().unwrap();
    let threads = start(7);
    let of =
        |name: &str| policies().into_iter().filter(|(n, ..)| n == name).map(|(_, p, r)| (p, r)).collect::<Vec<_>>();
    match permitted {
        Ok(()) => {
            assert_eq!(threads.realtime(), Realtime::Granted { priority: 7 });
            let fifo = (i64::from(libc::SCHED_FIFO), 7);
            assert!(of("tenon-poses").contains(&fifo) && of("tenon-eye").contains(&fifo), "{:?}", policies());
        }
        Err(refused) => {
            assert_eq!(threads.realtime(), Realtime::Refused(refused));
            let text = refused.to_string();
            assert!(text.contains("priority 7 not granted") && text.contains("LimitRTPRIO"), "{text}");
            assert!(of("tenon-poses").iter().all(|&(policy, _)| policy == 0), "{:?}", policies());
        }
    }
    // Whoever starts them, the searching threads are ordinary ones.
    assert!(of("tenon-slices").iter().all(|&(policy, priority)| (policy, priority) == (0, 0)), "{:?}", policies());
    println!("{:?}: {:?}", threads.realtime(), policies());
    drop(threads);
    assert_eq!(start(0).realtime(), Realtime::NotAsked);
    let Realtime::Refused(refused) = start(1000).realtime() else { panic!("there is no priority 1000") };
    assert!(refused.to_string().contains("priorities are 1 to 99"), "{refused}");
}
