//! Calibrations of simulated cameras, whose truth is known.

use super::super::leave_out::{held_out_rms_px, without_each};
use super::super::model::Parameters;
use super::super::solve::minimise;
use super::super::start::start;
use super::*;
use crate::boards::{Charuco, Checkerboard, Dictionary};
use nalgebra::{Translation3, UnitQuaternion, Vector3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tenon_vision::Pose;
use tenon_vision::refine::Correspondence;

const SIZE: [usize; 2] = [1280, 720];
const TRUTH: Parameters = [915.0, 912.0, 645.5, 352.0, 0.09, -0.18, 0.0012, -0.0008, 0.06];

fn board() -> Board {
    Board::Checkerboard(Checkerboard { inner_columns: 9, inner_rows: 6, square_m: 0.025 })
}

/// A board somewhere in the picture, tilted by up to `tilt_deg`.
fn view(truth: &Parameters, tilt_deg: f64, sigma_px: f64, random: &mut ChaCha8Rng, name: &str) -> View {
    let camera = camera_of(truth).unwrap();
    let points = board().points().unwrap();
    let noise = Normal::new(0.0, sigma_px).unwrap();
    loop {
        let mut angle = |most: f64| random.random_range(-1.0..=1.0) * most.to_radians();
        let turn = UnitQuaternion::from_scaled_axis(Vector3::new(angle(tilt_deg), angle(tilt_deg), 0.0))
            * UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.0, angle(15.0)));
        let distance = random.random_range(0.25..0.55);
        let (x, y) = (random.random_range(-0.5..0.5) * distance, random.random_range(-0.25..0.25) * distance);
        let [w, h] = board().size_m();
        let middle = turn * Vector3::new(0.5 * w, 0.5 * h, 0.0);
        let pose = Pose::from_parts(Translation3::from(Vector3::new(x, y, distance) - middle), turn);
        let seen: Option<Vec<Correspondence>> = points
            .iter()
            .map(|point| {
                let [u, v] = camera.project(&(pose * point))?;
                let inside = (5.0..SIZE[0] as f64 - 5.0).contains(&u) && (5.0..SIZE[1] as f64 - 5.0).contains(&v);
                let pixel = [u + noise.sample(random), v + noise.sample(random)];
                inside.then_some(Correspondence { point_m: *point, pixel })
            })
            .collect();
        if let Some(points) = seen {
            let indices = (0..points.len()).collect();
            let view = BoardView { points, indices, width: SIZE[0], height: SIZE[1] };
            return View { name: name.to_owned(), view };
        }
    }
}

fn views(count: usize, tilt_deg: f64, sigma_px: f64, seed: u64) -> Vec<View> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|i| view(&TRUTH, tilt_deg, sigma_px, &mut random, &format!("view_{i:02}.png"))).collect()
}

fn all_free() -> Options {
    Options { free: Free::ALL, ..Default::default() }
}

#[test]
fn exact_corners_give_the_exact_camera() {
    let found = calibrate(&board(), &views(12, 40.0, 0.0, 1), &all_free()).unwrap();
    for i in 0..N {
        let scale = TRUTH[i].abs().max(1e-3);
        assert!((found.parameters[i] - TRUTH[i]).abs() < 1e-6 * scale, "{} {}", PARAMETERS[i], found.parameters[i]);
    }
    assert!(found.rms_px < 1e-6 && found.dropped.is_empty());
}

#[test]
fn kept_coefficients_stay_zero_and_have_no_deviation() {
    let options = Options { free: Free { k1: true, k2: true, tangential: false, k3: false }, ..Default::default() };
    let found = calibrate(&board(), &views(10, 40.0, 0.2, 2), &options).unwrap();
    assert_eq!(found.parameters[6..], [0.0; 3]);
    assert_eq!(found.std()[6..], [0.0; 3]);
    assert!(found.std()[..6].iter().all(|std| *std > 0.0));
    let report = serde_json::to_value(found.report()).unwrap();
    assert_eq!(report["parameters"][8]["std"], serde_json::Value::Null);
}

#[test]
fn reported_intervals_contain_the_truth_as_often_as_they_say_in_1000_calibrations() {
    const RUNS: u64 = 1000;
    let (mut inside, mut sum, mut squares) = ([0u32; N], [0.0; N], [0.0; N]);
    let mut sigma = 0.0;
    for run in 0..RUNS {
        let found = calibrate(&board(), &views(12, 40.0, 0.2, 1000 + run), &all_free()).unwrap();
        assert!(found.dropped.len() <= 1, "{:?}", found.dropped);
        for (i, std) in found.std().into_iter().enumerate() {
            let z = (found.parameters[i] - TRUTH[i]) / std;
            inside[i] += u32::from(z.abs() < 1.96);
            sum[i] += z;
            squares[i] += z * z;
        }
        sigma += found.sigma_px / RUNS as f64;
    }
    println!("mean sigma {sigma:.4} px (true 0.2)");
    for i in 0..N {
        let (mean, variance) = (sum[i] / RUNS as f64, squares[i] / RUNS as f64);
        let percent = f64::from(inside[i]) / RUNS as f64 * 100.0;
        println!("{}: {percent:.1} % within the 95 % interval, mean {mean:+.3}, variance {variance:.3}", PARAMETERS[i]);
        assert!((93.0..=97.0).contains(&percent), "{}", PARAMETERS[i]);
        assert!((0.88..1.12).contains(&variance) && mean.abs() < 0.13, "{}", PARAMETERS[i]);
    }
    assert!((sigma - 0.2).abs() < 0.004);
}

#[test]
fn wild_corners_move_the_result_by_no_more_than_its_deviation() {
    let mut wild = views(15, 40.0, 0.2, 5);
    for (i, view) in wild.iter_mut().enumerate() {
        view.view.points[(7 * i) % 54].pixel[0] += 15.0;
    }
    let found = calibrate(&board(), &wild, &all_free()).unwrap();
    assert!(found.dropped.is_empty(), "{:?}", found.dropped);
    let std = found.std();
    for i in 0..N {
        assert!((found.parameters[i] - TRUTH[i]).abs() < 4.0 * std[i], "{}", PARAMETERS[i]);
    }
    assert!(found.sigma_px < 0.26, "{}", found.sigma_px);
    assert!(found.views.iter().all(|view| view.outliers >= 1));
}

#[test]
fn a_view_with_exchanged_points_and_a_shaken_one_are_named_and_left_out() {
    let mut some = views(14, 40.0, 0.2, 6);
    // Each row one corner on, as if a detector had lost its place.
    let pixels: Vec<[f64; 2]> = some[4].view.points.iter().map(|c| c.pixel).collect();
    for (i, c) in some[4].view.points.iter_mut().enumerate() {
        c.pixel = pixels[i / 9 * 9 + (i + 1) % 9];
    }
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for c in &mut some[9].view.points {
        c.pixel[0] += random.random_range(-3.0..3.0);
    }
    let found = calibrate(&board(), &some, &all_free()).unwrap();
    let mut names: Vec<&str> = found.dropped.iter().map(|view| view.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["view_04.png", "view_09.png"]);
    assert!(found.dropped.iter().all(|view| view.held_out_px > 2.5 * view.typical_px));
    let std = found.std();
    assert!((0..N).all(|i| (found.parameters[i] - TRUTH[i]).abs() < 4.0 * std[i]));
    assert!(found.notes.iter().any(|note| note.contains("2 of 14 views")));
}

/// Rows of points in the wrong order.
fn mirror(view: &mut View) {
    let pixels: Vec<[f64; 2]> = view.view.points.iter().map(|c| c.pixel).collect();
    for (i, c) in view.view.points.iter_mut().enumerate() {
        c.pixel = pixels[(5 - i / 9) * 9 + i % 9];
    }
}

#[test]
fn a_mirrored_view_is_named_and_mirrored_pictures_are_an_error() {
    let mut some = views(10, 40.0, 0.2, 20);
    mirror(&mut some[3]);
    let found = calibrate(&board(), &some, &all_free()).unwrap();
    assert_eq!(found.dropped.len(), 1);
    assert_eq!((found.dropped[0].name.as_str(), found.dropped[0].reason), ("view_03.png", DropReason::Mirrored));
    some.iter_mut().enumerate().filter(|(i, _)| *i != 3).for_each(|(_, view)| mirror(view));
    let message = calibrate(&board(), &some, &all_free()).unwrap_err().to_string();
    assert!(message.contains("10 of 10 views") && message.contains("mirror"), "{message}");
}

#[test]
fn too_many_bad_views_are_an_error_that_names_them() {
    let mut some = views(9, 40.0, 0.05, 7);
    let mut random = ChaCha8Rng::seed_from_u64(10);
    for (i, view) in some.iter_mut().take(4).enumerate() {
        for c in &mut view.view.points {
            c.pixel[0] += random.random_range(-2.0..2.0) * (i + 1) as f64;
        }
    }
    let error = calibrate(&board(), &some, &all_free()).unwrap_err();
    assert!(matches!(error, IntrinsicsError::TooManyBadViews { .. }), "{error}");
    assert!(error.to_string().contains("view_03.png"), "{error}");
}

#[test]
fn leaving_out_by_one_newton_step_equals_calibrating_again() {
    let mut some = views(8, 40.0, 0.3, 8);
    some[5].view.points[10].pixel[1] += 2.0;
    let views: Vec<&View> = some.iter().collect();
    let mask = Free::default().mask();
    let begin = start(&views).unwrap();
    let solution = solve(&views, begin.parameters, begin.poses, &mask).unwrap();
    let quick = without_each(&views, &solution, &mask).unwrap();
    let quick_px = held_out_errors_px(&views, &solution, &mask, 100.0);
    for left_out in 0..views.len() {
        let mut others = views.clone();
        others.remove(left_out);
        let mut slow = solution.clone();
        slow.poses.remove(left_out);
        slow.iterations = 0;
        minimise(&others, &mut slow, &mask).unwrap();
        let (covariance, _) = covariance(&others, &slow, &mask).unwrap();
        let moved =
            (0..N).map(|i| (slow.parameters[i] - solution.parameters[i]).abs() / covariance[(i, i)].sqrt().max(1e-12));
        assert!(moved.fold(0.0, f64::max) > 0.05, "leaving a view out must show");
        for i in (0..N).filter(|i| mask[*i]) {
            let off = (quick[left_out].unwrap()[i] - slow.parameters[i]) / covariance[(i, i)].sqrt();
            assert!(off.abs() < 0.1, "view {left_out} {} off by {off} deviations", PARAMETERS[i]);
        }
        let camera = camera_of(&slow.parameters).unwrap();
        let pose = &solution.poses[left_out];
        let slow_px = held_out_rms_px(&camera, pose, &views[left_out].view.points, 100.0);
        assert!((slow_px - quick_px[left_out]).abs() < 0.01 * slow_px, "{slow_px} {}", quick_px[left_out]);
    }
}

#[test]
fn frontal_views_alone_are_refused_because_the_focal_length_is_open() {
    for (tilt_deg, sigma_px) in [(0.0, 0.2), (2.0, 0.2), (0.0, 0.0)] {
        let error = calibrate(&board(), &views(12, tilt_deg, sigma_px, 11), &Options::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("30 to 45 degrees"), "{message}");
    }
}

#[test]
fn too_few_views_and_mixed_sizes_say_so() {
    let message = calibrate(&board(), &views(4, 40.0, 0.2, 12), &Options::default()).unwrap_err().to_string();
    assert!(message.contains("4 views") && message.contains("at least 5"), "{message}");
    let mut mixed = views(8, 40.0, 0.2, 12);
    mixed[3].view.width = 640;
    let message = calibrate(&board(), &mixed, &Options::default()).unwrap_err().to_string();
    assert!(message.contains("view_03.png") && message.contains("640x720"), "{message}");
    let mut broken = views(8, 40.0, 0.2, 12);
    broken[2].view.points[5].pixel[0] = f64::NAN;
    assert!(calibrate(&board(), &broken, &Options::default()).unwrap_err().to_string().contains("view_02.png"));
    let options = Options { min_views: 1, ..Default::default() };
    assert!(matches!(calibrate(&board(), &broken, &options), Err(IntrinsicsError::Option { .. })));
}

#[test]
fn the_size_of_the_board_changes_no_intrinsic_number() {
    let mut some = views(10, 40.0, 0.2, 13);
    let right = calibrate(&board(), &some, &Options::default()).unwrap();
    for c in some.iter_mut().flat_map(|view| &mut view.view.points) {
        c.point_m *= 1.07;
    }
    let wrong = calibrate(&board(), &some, &Options::default()).unwrap();
    for i in 0..N {
        assert!(
            (right.parameters[i] - wrong.parameters[i]).abs() < 1e-3 * right.std()[i].max(1e-9),
            "{}",
            PARAMETERS[i]
        );
    }
    assert!((wrong.views[0].distance_m / right.views[0].distance_m - 1.07).abs() < 1e-4);
    assert!(right.notes[0].contains("wrong size") && right.notes[0].contains("25.00 mm"));
}

#[test]
fn the_suggested_view_sharpens_the_result_as_promised() {
    // Little tilt so far: a tilted view is what is missing.
    let mut some = views(10, 12.0, 0.2, 14);
    let options = Options { max_focal_std_ratio: 1.0, ..Default::default() };
    let before = calibrate(&board(), &some, &options).unwrap();
    let next = before.next_view.clone().unwrap();
    assert!(next.tilt_deg > 30.0 && next.gain_bits > 1.0 && next.std_ratio[0] < 0.7, "{next:?}");
    // The view that it describes, with the noise of the others.
    let camera = camera_of(&TRUTH).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(15);
    let noise = Normal::new(0.0, 0.2).unwrap();
    let [x, y] = camera.normalise(next.centre_px).unwrap();
    let words: [(&str, [f64; 3]); 4] = [
        ("left side away", [0.0, 1.0, 0.0]),
        ("right side away", [0.0, -1.0, 0.0]),
        ("top away", [-1.0, 0.0, 0.0]),
        ("bottom away", [1.0, 0.0, 0.0]),
    ];
    let axis = words.iter().find(|(word, _)| next.advice.contains(word)).unwrap().1;
    let turn = UnitQuaternion::from_scaled_axis(Vector3::from(axis) * next.tilt_deg.to_radians());
    let [w, h] = board().size_m();
    let centre = Vector3::new(x, y, 1.0).normalize() * next.distance_m - turn * Vector3::new(0.5 * w, 0.5 * h, 0.0);
    let pose = Pose::from_parts(Translation3::from(centre), turn);
    let points: Vec<Correspondence> = board()
        .points()
        .unwrap()
        .iter()
        .map(|point| {
            let [u, v] = camera.project(&(pose * point)).unwrap();
            Correspondence { point_m: *point, pixel: [u + noise.sample(&mut random), v + noise.sample(&mut random)] }
        })
        .collect();
    let indices = (0..points.len()).collect();
    some.push(View { name: "next".to_owned(), view: BoardView { points, indices, width: SIZE[0], height: SIZE[1] } });
    let after = calibrate(&board(), &some, &options).unwrap();
    let ratio = after.std()[0] / before.std()[0];
    println!("{}: promised {:.3}, got {ratio:.3}", next.advice, next.std_ratio[0]);
    assert!((ratio / next.std_ratio[0] - 1.0).abs() < 0.25, "{ratio} {}", next.std_ratio[0]);
}

#[test]
fn coverage_counts_cells_sides_and_distances_and_asks_for_what_is_missing() {
    let frontal = views(3, 3.0, 0.0, 16);
    let coverage = Coverage::new(&frontal, None);
    assert_eq!((coverage.views, coverage.tilts.frontal), (3, 3));
    assert!(coverage.advice().unwrap().contains("tilt the board"));
    let many = views(60, 45.0, 0.0, 17);
    let coverage = Coverage::new(&many, Some(&camera_of(&TRUTH).unwrap()));
    let tilts = coverage.tilts;
    let all = tilts.frontal + tilts.left_away + tilts.right_away + tilts.top_away + tilts.bottom_away;
    assert_eq!(all, 60);
    assert!(tilts.left_away > 3 && tilts.right_away > 3 && tilts.top_away > 3 && tilts.bottom_away > 3, "{tilts:?}");
    assert_eq!(coverage.points_in_cells.iter().flatten().sum::<usize>(), 60 * 54);
    assert_eq!(coverage.distances.iter().sum::<usize>(), 60);
    // A guessed lens sees the same sides in most views.
    let guessed = Coverage::new(&many, None).tilts;
    assert!(guessed.left_away.abs_diff(tilts.left_away) <= 3 && guessed.top_away.abs_diff(tilts.top_away) <= 3);
}

#[test]
fn a_side_is_called_away_when_its_points_are_farther() {
    let mut random = ChaCha8Rng::seed_from_u64(18);
    let camera = camera_of(&TRUTH).unwrap();
    for _ in 0..40 {
        let one = view(&TRUTH, 40.0, 0.0, &mut random, "one");
        let pose = super::super::start::rough_pose(&one.view, Some(&camera)).unwrap();
        let [w, h] = board().size_m();
        let depth = |x: f64, y: f64| (pose * nalgebra::Point3::new(x, y, 0.0)).z;
        let (across, down) = (depth(w, 0.0) - depth(0.0, 0.0), (depth(0.0, h) - depth(0.0, 0.0)) * w / h);
        // Boards turned in the picture mix the sides; only clear cases count.
        if across.abs() < 2.0 * down.abs() && down.abs() < 2.0 * across.abs() || tilt_deg(&pose) < 20.0 {
            continue;
        }
        let tilts = Coverage::new(&[one], Some(&camera)).tilts;
        let wanted = if across.abs() > down.abs() {
            if across < 0.0 { tilts.left_away } else { tilts.right_away }
        } else if down < 0.0 {
            tilts.top_away
        } else {
            tilts.bottom_away
        };
        assert_eq!(wanted, 1, "{tilts:?} {across} {down}");
    }
}

#[test]
fn image_files_become_intrinsics_within_their_deviations() {
    use crate::boards::render::render_board;
    let board = Board::Charuco(Charuco {
        columns: 8,
        rows: 6,
        square_m: 0.03,
        marker_m: 0.0225,
        dictionary: Dictionary::Aruco5x5Of100,
        first_id: 0,
        legacy_layout: false,
    });
    let truth: Parameters = [460.0, 458.0, 322.3, 238.1, -0.08, 0.03, 0.0008, -0.0005, 0.0];
    let camera = camera_of(&truth).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let noise = Normal::new(0.0, 1.5).unwrap();
    let mut files = Vec::new();
    for i in 0..12 {
        let mut angle = || random.random_range(-0.65..0.65);
        let turn = UnitQuaternion::from_scaled_axis(Vector3::new(angle(), angle(), 0.3 * angle()));
        let at = Vector3::new(0.15 * angle(), 0.1 * angle(), 0.28 + 0.06 * angle());
        let middle = turn * Vector3::new(0.12, 0.09, 0.0);
        let pose = Pose::from_parts(Translation3::from(at - middle), turn);
        let grey = render_board(&board, &camera, &pose, 640, 480, &Default::default()).unwrap();
        let picture = image::GrayImage::from_fn(640, 480, |x, y| {
            let level = f64::from(grey.pixels()[y as usize * 640 + x as usize]) + noise.sample(&mut random);
            image::Luma([level.round().clamp(0.0, 255.0) as u8])
        });
        let path = folder.path().join(format!("{i:02}.png"));
        picture.save(&path).unwrap();
        files.push(path);
    }
    let empty = folder.path().join("empty.png");
    image::GrayImage::from_pixel(640, 480, image::Luma([90])).save(&empty).unwrap();
    files.push(empty);
    files.push(folder.path().join("missing.png"));
    let (mut looked_at, mut covered) = (0, 0);
    let found = calibrate_images(&board, &files, &Options::default(), &mut |progress| match progress {
        Progress::Image { total, .. } => {
            assert_eq!(total, 14);
            looked_at += 1;
        }
        Progress::Coverage(coverage) => covered = coverage.views,
        _ => {}
    })
    .unwrap();
    assert_eq!((looked_at, covered), (14, 12));
    assert_eq!(found.skipped.len(), 2);
    assert!(found.skipped[1].reason.contains("missing.png"));
    let std = found.std();
    println!("sigma {:.3} px, rms {:.3} px", found.sigma_px, found.rms_px);
    for i in 0..8 {
        let z = (found.parameters[i] - truth[i]) / std[i];
        println!("{} {:.5} ± {:.5}, true {}, {z:+.2} deviations", PARAMETERS[i], found.parameters[i], std[i], truth[i]);
        assert!(z.abs() < 4.0, "{}", PARAMETERS[i]);
    }
    assert!(found.sigma_px < 0.1, "{}", found.sigma_px);
}
