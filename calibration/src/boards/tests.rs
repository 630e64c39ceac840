//! Boards drawn with the truth known, and found again.

use super::description::tests::samples;
use super::render::render_board;
use super::*;
use nalgebra::{Translation3, UnitQuaternion, Vector3};
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use tenon_vision::render::RenderSettings;
use tenon_vision::{Camera, Distortion, GreyImage, Pose};

const SIZE: [usize; 2] = [1280, 720];

fn camera() -> Camera {
    let distortion = Distortion { k1: -0.12, k2: 0.06, p1: 0.001, p2: -0.0008, k3: 0.0 };
    Camera::pinhole(915.0, 912.0, 642.0, 348.0).unwrap().with_distortion(distortion).unwrap()
}

/// The board's middle in the picture's, turned by these angles about the camera's x, y and z axes.
fn pose(board: &Board, distance_m: f64, turns_deg: [f64; 3], shift_m: [f64; 2]) -> Pose {
    let [x, y, z] = turns_deg.map(f64::to_radians);
    let rotation = UnitQuaternion::from_scaled_axis(Vector3::new(x, y, 0.0))
        * UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.0, z));
    let [w, h] = board.size_m();
    let middle = rotation * Vector3::new(0.5 * w, 0.5 * h, 0.0);
    Pose::from_parts(Translation3::from(Vector3::new(shift_m[0], shift_m[1], distance_m) - middle), rotation)
}

fn picture(board: &Board, T_camera_board: &Pose, sigma_grey: f64, seed: u64) -> GreyImage {
    let settings = RenderSettings { supersampling: 3, ..Default::default() };
    let mut image = render_board(board, &camera(), T_camera_board, SIZE[0], SIZE[1], &settings).unwrap();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let noise = Normal::new(0.0, sigma_grey).unwrap();
    for pixel in image.pixels_mut() {
        *pixel = (f64::from(*pixel) + noise.sample(&mut random)).round().clamp(0.0, 255.0) as u8;
    }
    image
}

/// Distances between where points are and where they were seen, px.
fn errors_px(view: &BoardView, T_camera_board: &Pose) -> Vec<f64> {
    let off = |c: &tenon_vision::refine::Correspondence| {
        let [u, v] = camera().project(&(T_camera_board * c.point_m)).unwrap();
        (u - c.pixel[0]).hypot(v - c.pixel[1])
    };
    view.points.iter().map(off).collect()
}

#[test]
fn every_kind_of_board_is_found_whole_and_to_a_fraction_of_a_pixel_in_noise() {
    for board in samples() {
        let total = board.points().unwrap().len();
        let mut detector = BoardDetector::new(&board).unwrap();
        let mut errors = Vec::new();
        let mut took = std::time::Duration::ZERO;
        for (seed, turns_deg) in
            [[0.0, 0.0, 0.0], [35.0, 0.0, 5.0], [0.0, -40.0, -10.0], [-25.0, 25.0, 30.0]].iter().enumerate()
        {
            let [w, h] = board.size_m();
            let distance_m = 915.0 * w.max(1.6 * h) / 650.0;
            let truth = pose(&board, distance_m, *turns_deg, [0.0, 0.0]);
            let image = picture(&board, &truth, 2.0, seed as u64);
            let begin = std::time::Instant::now();
            let view = detector.detect(image.view()).unwrap_or_else(|error| panic!("{turns_deg:?} {error}"));
            took += begin.elapsed();
            assert!(view.points.len() * 100 >= total * 95, "{}: {} of {total}", board.caption(), view.points.len());
            errors.extend(errors_px(&view, &truth));
        }
        errors.sort_by(f64::total_cmp);
        let rms = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        let last = errors[errors.len() - 1];
        let (count, ms) = (errors.len(), took.as_secs_f64() * 250.0);
        println!("rms {rms:.3} px, worst {last:.3} px of {count} points, {ms:.0} ms a picture: {}", board.caption());
        // Plain tags keep the tag detector's own corners.
        let plain_tags = matches!(&board, Board::AprilGrid(grid) if !grid.corner_squares);
        let (most_rms, most) = if plain_tags { (0.25, 1.0) } else { (0.06, 0.25) };
        assert!(rms < most_rms && last < most, "{} {rms} {last}", board.caption());
    }
}

#[test]
fn dim_noisy_and_blurred_boards_are_still_found_to_a_fraction_of_a_pixel() {
    for board in samples() {
        let [w, h] = board.size_m();
        let truth = pose(&board, 915.0 * w.max(1.6 * h) / 700.0, [20.0, -25.0, 5.0], [0.0, 0.0]);
        let sharp = picture(&board, &truth, 0.0, 8);
        // Means over 5 x 5 pixels, a third of the contrast, three grey levels of noise.
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let noise = Normal::new(0.0, 3.0).unwrap();
        let mut dim = GreyImage::filled(SIZE[0], SIZE[1], 60);
        for y in 2..SIZE[1] - 2 {
            for x in 2..SIZE[0] - 2 {
                let sum: u32 =
                    (0..25).map(|i| u32::from(sharp.pixels()[(y + i / 5 - 2) * SIZE[0] + x + i % 5 - 2])).sum();
                let level = 20.0 + f64::from(sum) / 25.0 / 3.0 + noise.sample(&mut random);
                dim.pixels_mut()[y * SIZE[0] + x] = level.round() as u8;
            }
        }
        let total = board.points().unwrap().len();
        let view = BoardDetector::new(&board).unwrap().detect(dim.view()).unwrap();
        let errors = errors_px(&view, &truth);
        let rms = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        println!("dim and blurred: rms {rms:.3} px, {} of {total} points: {}", errors.len(), board.caption());
        // Of tags that touch squares blur loses some.
        let touching = matches!(&board, Board::AprilGrid(grid) if grid.corner_squares);
        let least = if touching { 0.6 } else { 0.9 };
        assert!(errors.len() as f64 >= least * total as f64, "{} of {total}: {}", errors.len(), board.caption());
        let plain_tags = matches!(&board, Board::AprilGrid(grid) if !grid.corner_squares);
        assert!(rms < if plain_tags { 0.8 } else { 0.35 }, "{rms} {}", board.caption());
    }
}

#[test]
fn marker_boards_are_found_where_a_part_is_covered_or_outside() {
    for board in samples().into_iter().filter(|board| !matches!(board, Board::Checkerboard(_))) {
        let [w, h] = board.size_m();
        let distance_m = 915.0 * w.max(1.6 * h) / 900.0;
        let truth = pose(&board, distance_m, [20.0, 15.0, 0.0], [0.35 * w, 0.0]);
        let mut image = picture(&board, &truth, 2.0, 7);
        for y in 230..420 {
            image.pixels_mut()[y * SIZE[0] + 700..][..200].fill(90);
        }
        let view = BoardDetector::new(&board).unwrap().detect(image.view()).unwrap();
        let total = board.points().unwrap().len();
        assert!(view.points.len() < total && view.points.len() >= 6, "{} of {total}", view.points.len());
        let worst = errors_px(&view, &truth).into_iter().fold(0.0, f64::max);
        assert!(worst < 1.0, "{} {worst}", board.caption());
        let points = board.points().unwrap();
        assert!(view.indices.iter().zip(&view.points).all(|(index, seen)| points[*index] == seen.point_m));
    }
}

#[test]
fn a_covered_checkerboard_and_a_wrong_description_say_what_was_seen() {
    let board = Board::Checkerboard(Checkerboard { inner_columns: 7, inner_rows: 4, square_m: 0.025 });
    let truth = pose(&board, 0.3, [0.0, 10.0, 0.0], [0.0, 0.0]);
    let mut image = picture(&board, &truth, 1.0, 3);
    let detector = |columns, rows| {
        BoardDetector::new(&Board::Checkerboard(Checkerboard {
            inner_columns: columns,
            inner_rows: rows,
            square_m: 0.025,
        }))
        .unwrap()
    };
    let error = detector(8, 5).detect(image.view()).unwrap_err().to_string();
    assert!(error.contains("7 x 4") && error.contains("8 x 5"), "{error}");
    assert!(detector(7, 4).detect(image.view()).is_ok());
    for y in 0..SIZE[1] {
        image.pixels_mut()[y * SIZE[0]..][..500].fill(200);
    }
    assert!(matches!(detector(7, 4).detect(image.view()), Err(BoardError::NotFound { .. })));
    let blank = GreyImage::filled(640, 480, 128);
    for board in samples() {
        let result = BoardDetector::new(&board).unwrap().detect(blank.view());
        assert!(matches!(result, Err(BoardError::NotFound { .. })));
    }
}

#[test]
fn another_board_with_the_same_markers_is_refused() {
    let layout = |columns, rows, square_m: f64| {
        Board::Charuco(Charuco {
            columns,
            rows,
            square_m,
            marker_m: 0.75 * square_m,
            dictionary: Dictionary::Aruco5x5Of100,
            first_id: 0,
            legacy_layout: false,
        })
    };
    let (shown, described) = (layout(6, 5, 0.03), layout(5, 7, 0.03));
    let truth = pose(&shown, 0.35, [10.0, 20.0, 0.0], [0.0, 0.0]);
    let image = picture(&shown, &truth, 1.0, 4);
    let seen = BoardDetector::new(&described).unwrap().detect(image.view());
    // The first row may agree; whatever is accepted must not claim points that lie elsewhere.
    if let Ok(view) = &seen {
        assert!(view.points.len() < 10, "{}", view.points.len());
    }
}

#[test]
fn a_turned_checkerboard_is_named_so_that_its_rows_run_right_and_its_corner_square_is_black() {
    // 7 x 4 inner corners: half a turn changes the colour of the upper left square, so it is recognised.
    let board = Board::Checkerboard(Checkerboard { inner_columns: 7, inner_rows: 4, square_m: 0.025 });
    let truth = pose(&board, 0.3, [5.0, 10.0, 180.0], [0.0, 0.0]);
    let view = BoardDetector::new(&board).unwrap().detect(picture(&board, &truth, 1.0, 5).view()).unwrap();
    assert!(errors_px(&view, &truth).into_iter().all(|e| e < 0.3));
    // 6 x 6: four namings fit, the one nearest to upright is taken; 5 x 5: two, since its corner squares differ.
    for (side, most_deg) in [(6, 45.0), (5, 90.0)] {
        let board = Board::Checkerboard(Checkerboard { inner_columns: side, inner_rows: side, square_m: 0.025 });
        for turn_deg in [20.0, 110.0, 200.0, 290.0] {
            let truth = pose(&board, 0.4, [5.0, 10.0, turn_deg], [0.0, 0.0]);
            let view = BoardDetector::new(&board).unwrap().detect(picture(&board, &truth, 1.0, 6).view()).unwrap();
            let side = side as usize;
            let [right, down] = [side - 1, side * (side - 1)]
                .map(|far| [0, 1].map(|axis| view.points[far].pixel[axis] - view.points[0].pixel[axis]));
            assert!(right[1].atan2(right[0]).to_degrees().abs() < most_deg, "{turn_deg} {right:?}");
            assert!(right[0] * down[1] - right[1] * down[0] > 0.0, "mirrored at {turn_deg}");
        }
    }
}
