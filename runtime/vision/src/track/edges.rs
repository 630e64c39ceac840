//! Corners to a fraction of a pixel, independent of where the search began.
//!
//! The C library refines edges on whole pixels. Where an edge runs exactly along the pixel grid, rounding decides which
//! pixels it reads, and the same print found in two windows may differ by 1/16 px. Here each edge is the weighted line
//! through the centres of gradient along its normals, on interpolated levels, repeated until the lines rest where they are:
//! a function of the picture alone.

use crate::{GreyView, TagDetection};

/// Rounds at most; the last moves corners by less than a hundredth of a pixel.
const ROUNDS: usize = 4;
/// What moves corners by less than this is the last round, px: a fiftieth of the corners' noise.
const RESTS_PX: f64 = 5e-4;
/// Farther than this from the library's corner the result is not believed, px.
const MAX_SHIFT_PX: f64 = 1.5;
/// Places along an edge at which the gradient is looked for.
const MIN_PLACES: usize = 12;
const MAX_PLACES: usize = 32;
/// Distance of the levels read along a normal, px.
const STEP_PX: f64 = 0.5;
/// Levels to each side of the edge at most.
const MAX_STEPS: usize = 5;

/// A line: a point on it and its unit normal.
type Line = ([f64; 2], [f64; 2]);

/// Moves the corners of `tag` onto the edges of its border in `frame` and its centre to where the diagonals then meet.
/// `cells`: of the border along an edge. Leaves the tag as it is, and says so, where the edges cannot be found.
pub(super) fn refine(frame: &GreyView<'_>, tag: &mut TagDetection, cells: usize) -> bool {
    let mut corners = tag.corners_px;
    for _ in 0..ROUNDS {
        let mut lines: [Line; 4] = [([0.0; 2], [0.0; 2]); 4];
        for edge in 0..4 {
            match fit_edge(frame, corners[edge], corners[(edge + 1) % 4], cells) {
                Some(line) => lines[edge] = line,
                None => return false,
            }
        }
        let mut moved = 0.0f64;
        for corner in 0..4 {
            let Some(pixel) = meet(&lines[(corner + 3) % 4], &lines[corner]) else { return false };
            let (dx, dy) = (pixel[0] - corners[corner][0], pixel[1] - corners[corner][1]);
            moved = moved.max(dx.abs()).max(dy.abs());
            corners[corner] = pixel;
        }
        if moved < RESTS_PX {
            break;
        }
    }
    let shift = |i: usize| (corners[i][0] - tag.corners_px[i][0]).hypot(corners[i][1] - tag.corners_px[i][1]);
    if !(0..4).all(|i| shift(i) < MAX_SHIFT_PX) {
        return false;
    }
    let through = |a: [f64; 2], b: [f64; 2]| -> Line { (a, [b[1] - a[1], a[0] - b[0]]) };
    let Some(centre) = meet(&through(corners[0], corners[2]), &through(corners[1], corners[3])) else {
        return false;
    };
    (tag.corners_px, tag.centre_px) = (corners, centre);
    true
}

/// The edge's line near the one from `a` to `b`; the outside lies a quarter turn clockwise on the screen (corners run
/// counter-clockwise).
fn fit_edge(frame: &GreyView<'_>, a: [f64; 2], b: [f64; 2], cells: usize) -> Option<Line> {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let length = dx.hypot(dy);
    if length.is_nan() || length < 6.0 {
        return None;
    }
    let along = [dx / length, dy / length];
    let outward = [-along[1], along[0]];
    // The next edges, of the first data cell and of the white margin, are a cell away.
    let reach = (0.6 * length / cells as f64).clamp(1.0, 2.0);
    let steps = ((reach / STEP_PX) as usize).min(MAX_STEPS - 1);
    let places = (length as usize).clamp(MIN_PLACES, MAX_PLACES);
    // Near the corners the other edge spoils the gradient.
    let ends = (0.06 * length).max(1.5);
    let count = 2 * steps + 3;
    let at_place = |place: usize| ends + (length - 2.0 * ends) * (place as f64 + 0.5) / places as f64;
    let at_level = |k: usize| (k as f64 - (steps + 1) as f64) * STEP_PX;
    let pixel = |u: f64, offset: f64| {
        (a[0] + u * along[0] + offset * outward[0] - 0.5, a[1] + u * along[1] + offset * outward[1] - 0.5)
    };
    // All that is read lies between the outermost four.
    let (right, bottom) = ((frame.width() - 1) as f64, (frame.height() - 1) as f64);
    let inside = |u: f64, offset: f64| {
        let (x, y) = pixel(u, offset);
        x >= 0.0 && y >= 0.0 && x < right && y < bottom
    };
    let corners = [at_place(0), at_place(places - 1)].map(|u| inside(u, at_level(0)) && inside(u, at_level(count - 1)));
    if corners != [true; 2] {
        return None;
    }
    // Weighted straight line through (u, offset): sums of w, w u, w u², w o, w u o; once for each sign of contrast.
    let mut sums = [[0.0f64; 5]; 2];
    for place in 0..places {
        let u = at_place(place);
        let mut levels = [0.0; 2 * MAX_STEPS + 1];
        for (k, level) in levels.iter_mut().take(count).enumerate() {
            let (x, y) = pixel(u, at_level(k));
            *level = level_at(frame, x, y);
        }
        let mut moments = [[0.0; 2]; 2];
        for k in 1..count - 1 {
            let slope = levels[k + 1] - levels[k - 1];
            let offset = at_level(k);
            let weight = slope * slope;
            let side = &mut moments[usize::from(slope < 0.0)];
            side[0] += weight;
            side[1] += weight * offset;
        }
        for (sums, [weight, first]) in sums.iter_mut().zip(moments) {
            if weight > 0.0 {
                let centre = first / weight;
                let terms = [1.0, u, u * u, centre, u * centre];
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
            }
        }
    }
    // Dark inside for most families, bright inside for those with a reversed border: the stronger one is the edge.
    let [w, wu, wuu, wo, wuo] = if sums[0][0] >= sums[1][0] { sums[0] } else { sums[1] };
    let determinant = w * wuu - wu * wu;
    if determinant.is_nan() || determinant <= 1e-9 * w * w {
        return None;
    }
    let slope = (w * wuo - wu * wo) / determinant;
    let offset = (wo - slope * wu) / w;
    let point = [a[0] + offset * outward[0], a[1] + offset * outward[1]];
    let direction = [along[0] + slope * outward[0], along[1] + slope * outward[1]];
    let norm = direction[0].hypot(direction[1]);
    Some((point, [-direction[1] / norm, direction[0] / norm]))
}

/// Bilinear grey level at a place, which lies `x` and `y` from the centre of the first pixel, between centres of others.
fn level_at(frame: &GreyView<'_>, x: f64, y: f64) -> f64 {
    let (column, row) = (x as i32, y as i32);
    let (fx, fy) = (x - f64::from(column), y - f64::from(row));
    let at = row as usize * frame.stride() + column as usize;
    let upper = &frame.pixels()[at..at + 2];
    let lower = &frame.pixels()[at + frame.stride()..at + frame.stride() + 2];
    let [a, b] = [upper[0], upper[1]].map(f64::from);
    let [c, d] = [lower[0], lower[1]].map(f64::from);
    let (upper, lower) = (a + (b - a) * fx, c + (d - c) * fx);
    upper + (lower - upper) * fy
}

/// Where two lines cross; `None` when they are almost parallel.
fn meet((p, n): &Line, (q, m): &Line) -> Option<[f64; 2]> {
    let determinant = n[0] * m[1] - n[1] * m[0];
    let scale = n[0].hypot(n[1]) * m[0].hypot(m[1]);
    if determinant.is_nan() || determinant.abs() <= 1e-3 * scale {
        return None;
    }
    let (a, b) = (n[0] * p[0] + n[1] * p[1], m[0] * q[0] + m[1] * q[1]);
    Some([(a * m[1] - b * n[1]) / determinant, (n[0] * b - m[0] * a) / determinant])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{CameraEffects, Motion, Scene, SceneBody, SyntheticCamera};
    use crate::{Camera, Detector, DetectorSettings, Family, GreyImage, Pose, TagOnBody};
    use nalgebra::{Translation3, UnitQuaternion};

    #[test]
    fn refined_corners_do_not_depend_on_the_start_and_lie_nearer_to_the_truth_than_the_librarys() {
        let lens = Camera::pinhole(915.0, 915.0, 320.0, 240.0).unwrap();
        let mut camera = SyntheticCamera::new(lens, 640, 480, CameraEffects::default(), 3).unwrap();
        let mut detector = Detector::new(DetectorSettings::default()).unwrap();
        let mut image = GreyImage::filled(640, 480, 0);
        let (mut library, mut refined, mut count, mut spread) = (0.0, 0.0, 0.0, 0.0f64);
        for k in 0..12 {
            let size_m = if k % 2 == 0 { 0.0195 } else { 0.048 };
            let tag = TagOnBody { id: 6, size_m, T_body_tag: Pose::identity() };
            let scene = Scene { bodies: vec![SceneBody::with_tags(&[tag], Family::Tag36h11, 0.4).unwrap()] };
            let angle = f64::from(k);
            let turn = UnitQuaternion::from_euler_angles(0.8 * angle.sin(), 0.6 * (2.0 * angle).cos(), angle);
            let place = Translation3::new(0.01 * angle - 0.05, 0.003 * angle, 0.45 + 0.02 * angle);
            let motion = Motion::still(Pose::from_parts(place, turn));
            let truth = camera.shoot(&scene, &[motion], k as u64, &mut image).unwrap()[0].corners_px;
            let found = detector.detect(image.view()).unwrap();
            let Some(found) = found.first() else { continue };
            let mut first = *found;
            assert!(refine(&image.view(), &mut first, 8));
            for (dx, dy) in [(0.25, -0.2), (-0.3, 0.1)] {
                let mut other = *found;
                for (i, corner) in other.corners_px.iter_mut().enumerate() {
                    corner[0] += if i % 2 == 0 { dx } else { -dx };
                    corner[1] += dy;
                }
                assert!(refine(&image.view(), &mut other, 8));
                for (a, b) in first.corners_px.iter().flatten().zip(other.corners_px.iter().flatten()) {
                    spread = spread.max((a - b).abs());
                }
            }
            for (i, truth) in truth.iter().enumerate() {
                for axis in 0..2 {
                    library += (found.corners_px[i][axis] - truth[axis]).powi(2);
                    refined += (first.corners_px[i][axis] - truth[axis]).powi(2);
                    count += 1.0;
                }
            }
        }
        let (library, refined) = (f64::sqrt(library / count), f64::sqrt(refined / count));
        println!("rms error: library {library:.4} px, refined {refined:.4} px; starts differ by {spread:.4} px");
        assert!(count >= 80.0 && refined < library && refined < 0.15 && spread < 0.03, "{library} {refined} {spread}");
    }
}
