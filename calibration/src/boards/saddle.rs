//! Corners where two black and two white sectors meet: candidates in a picture, a check, and their exact place.
//!
//! The place is found in two steps. First where the grey gradients of a round neighbourhood agree (Förstner and Gülch
//! 1987): every edge through the corner has its gradient at right angles to the line to the corner, so Σ w g gᵀ (p − c)
//! = 0 gives c. On sharp pictures that is off by up to a tenth of a pixel, since products of gradients alias. So
//! second, the picture itself is fitted: two straight edges that cross, I = A + B tanh(d₁/s) tanh(d₂/s) with d the
//! distances to the edges, by least squares over centre, two angles, A, B and the blur s, each pixel the mean of the
//! model over its area.

use nalgebra::{SMatrix, SVector};
use tenon_vision::{GreyImage, GreyView};

/// Least difference between white and black around a corner, grey levels.
const MIN_CONTRAST: f32 = 16.0;
/// Smallest neighbourhood that is worth a fit, px.
pub(super) const MIN_RADIUS_PX: f64 = 2.0;
/// Larger neighbourhoods average no more noise away than lens distortion puts in, px.
pub(super) const MAX_RADIUS_PX: f64 = 12.0;

/// What lies around a corner. Angles in radians from the picture's x axis towards its y axis (clockwise on a screen).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sectors {
    /// Directions of the two edges; `edges[0] < edges[1] < edges[0] + π`.
    pub edges: [f64; 2],
    /// The sector from `edges[0]` to `edges[1]` is dark (so is the one opposite).
    pub first_is_dark: bool,
}

const RING: usize = 48;

/// Looks at a ring around a place; `None` unless it shows two dark and two bright sectors, opposite ones alike.
pub(super) fn sectors(image: &GreyView<'_>, at: [f64; 2], radius_px: f64) -> Option<Sectors> {
    let mut levels = [0f32; RING];
    for (i, level) in levels.iter_mut().enumerate() {
        let angle = i as f64 * std::f64::consts::TAU / RING as f64;
        *level = bilinear(image, at[0] + radius_px * angle.cos(), at[1] + radius_px * angle.sin())?;
    }
    // Noise must not make an edge look like several.
    let smooth: [f32; RING] =
        std::array::from_fn(|i| 0.25 * levels[(i + RING - 1) % RING] + 0.5 * levels[i] + 0.25 * levels[(i + 1) % RING]);
    let (low, high) = smooth.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if high - low < MIN_CONTRAST {
        return None;
    }
    let middle = 0.5 * (low + high);
    let mut crossings = [0f64; 4];
    let mut count = 0;
    let mut first_is_dark = false;
    for i in 0..RING {
        let (a, b) = (smooth[i] - middle, smooth[(i + 1) % RING] - middle);
        if (a < 0.0) == (b < 0.0) {
            continue;
        }
        if count == 4 {
            return None;
        }
        if count == 0 {
            first_is_dark = b < 0.0;
        }
        crossings[count] = (i as f64 + f64::from(a / (a - b))) * std::f64::consts::TAU / RING as f64;
        count += 1;
    }
    if count != 4 {
        return None;
    }
    let [a, b, c, d] = crossings;
    let pi = std::f64::consts::PI;
    let edges = [0.5 * (a + c - pi), 0.5 * (b + d - pi)];
    let straight = (c - a - pi).abs() < 0.45 && (d - b - pi).abs() < 0.45;
    let width = edges[1] - edges[0];
    (straight && width > 0.3 && width < pi - 0.3).then_some(Sectors { edges, first_is_dark })
}

/// Grey level between pixel centres; `None` outside the picture.
fn bilinear(image: &GreyView<'_>, u: f64, v: f64) -> Option<f32> {
    let (x, y) = (u - 0.5, v - 0.5);
    if !(x >= 0.0 && y >= 0.0) || x >= (image.width() - 1) as f64 || y >= (image.height() - 1) as f64 {
        return None;
    }
    let (column, row) = (x as usize, y as usize);
    let (fx, fy) = ((x - column as f64) as f32, (y - row as f64) as f32);
    let (upper, lower) = (image.row(row), image.row(row + 1));
    let mix = |r: &[u8]| f32::from(r[column]) * (1.0 - fx) + f32::from(r[column + 1]) * fx;
    Some(mix(upper) * (1.0 - fy) + mix(lower) * fy)
}

/// Exact place of the corner near `start`, from a neighbourhood of `radius_px`; `None` when there is none within
/// `max_shift_px`, when it leaves the picture, or when what is there is not a corner.
pub(super) fn refine(image: &GreyView<'_>, start: [f64; 2], radius_px: f64, max_shift_px: f64) -> Option<[f64; 2]> {
    if radius_px < MIN_RADIUS_PX {
        return None;
    }
    let radius_px = radius_px.min(MAX_RADIUS_PX);
    let mut at = start;
    for _ in 0..25 {
        let next = step(image, at, radius_px)?;
        if (next[0] - start[0]).hypot(next[1] - start[1]) > max_shift_px {
            return None;
        }
        let moved = (next[0] - at[0]).hypot(next[1] - at[1]);
        at = next;
        if moved < 1e-3 {
            break;
        }
    }
    Some(at)
}

/// As [`refine`], then the fit; also `None` where the ring does not show a corner.
pub(super) fn refine_exactly(
    image: &GreyView<'_>,
    start: [f64; 2],
    radius_px: f64,
    max_shift_px: f64,
) -> Option<[f64; 2]> {
    let at = refine(image, start, radius_px, max_shift_px)?;
    let radius_px = radius_px.min(MAX_RADIUS_PX);
    let seen = sectors(image, at, (0.7 * radius_px).max(1.8))?;
    // What does not fit (an edge that is not straight, a very small neighbourhood) keeps its first place.
    Some(fitted(image, at, &seen, radius_px).unwrap_or(at))
}

/// Unknowns of the fit: x, y, angle 1, angle 2, A, B, ln s.
const UNKNOWNS: usize = 7;
type Unknowns = SVector<f64, UNKNOWNS>;

fn fitted(image: &GreyView<'_>, at: [f64; 2], seen: &Sectors, radius_px: f64) -> Option<[f64; 2]> {
    const MIN_FIT_RADIUS_PX: f64 = 2.5;
    const MAX_FIT_SHIFT_PX: f64 = 0.7;
    // A sharper model would see nothing between its samples of a pixel; a blurrier corner is none.
    const MIN_BLUR_PX: f64 = 0.3;
    const MAX_BLUR_PX: f64 = 12.0;
    if radius_px < MIN_FIT_RADIUS_PX || !leaves_room(image, at, radius_px) {
        return None;
    }
    let (mut low, mut high) = (255u8, 0u8);
    for_each_pixel(at, radius_px, |x, y, _| {
        let level = image.row(y)[x];
        (low, high) = (low.min(level), high.max(level));
    });
    let half = 0.5 * (f64::from(high) - f64::from(low));
    let sign = if seen.first_is_dark { 1.0 } else { -1.0 };
    let blur_px = 0.7f64;
    let mut unknowns =
        Unknowns::from([0.0, 0.0, seen.edges[0], seen.edges[1], f64::from(low) + half, sign * half, blur_px.ln()]);
    let (mut cost, mut normal, mut right) = fit_equations(image, at, radius_px, &unknowns);
    let mut damping = 1e-3;
    for _ in 0..30 {
        let mut damped = normal;
        for i in 0..UNKNOWNS {
            damped[(i, i)] += damping * normal[(i, i)].max(1e-9);
        }
        let step: Unknowns = -damped.cholesky()?.solve(&right);
        let mut candidate = unknowns + step;
        candidate[6] = candidate[6].clamp(MIN_BLUR_PX.ln(), MAX_BLUR_PX.ln());
        let (lower, candidate_normal, candidate_right) = fit_equations(image, at, radius_px, &candidate);
        if lower.is_nan() || lower > cost {
            damping *= 10.0;
            if damping > 1e6 {
                break;
            }
            continue;
        }
        let done = step[0].hypot(step[1]) < 1e-4 || cost - lower < 1e-9 * cost;
        (unknowns, cost, normal, right) = (candidate, lower, candidate_normal, candidate_right);
        damping = (damping * 0.1).max(1e-9);
        if done {
            break;
        }
    }
    let near = unknowns[0].hypot(unknowns[1]) <= MAX_FIT_SHIFT_PX;
    near.then(|| [at[0] + unknowns[0], at[1] + unknowns[1]])
}

/// Cost, JᵀJ and Jᵀr of the fit, weighted by nearness to `at`.
fn fit_equations(
    image: &GreyView<'_>,
    at: [f64; 2],
    radius_px: f64,
    unknowns: &Unknowns,
) -> (f64, SMatrix<f64, UNKNOWNS, UNKNOWNS>, Unknowns) {
    let (mut cost, mut normal, mut right) = (0.0, SMatrix::zeros(), Unknowns::zeros());
    let [x0, y0, angle1, angle2, A, B, ln_s] = [0, 1, 2, 3, 4, 5, 6].map(|i| unknowns[i]);
    let ((sin1, cos1), (sin2, cos2), inv_s) = (angle1.sin_cos(), angle2.sin_cos(), (-ln_s).exp());
    // Far from an edge its side is all that matters.
    let side = |d: f64| if d.abs() > 9.0 { d.signum() } else { d.tanh() };
    for_each_pixel(at, radius_px, |x, y, weight| {
        let (mut model, mut J) = (0.0, Unknowns::zeros());
        // A pixel is the mean of its area: without that, sharp edges draw the centre towards the pixels' own.
        for [quarter_x, quarter_y] in [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]] {
            let (dx, dy) = (x as f64 + quarter_x - at[0] - x0, y as f64 + quarter_y - at[1] - y0);
            let (d1, d2) = ((dx * sin1 - dy * cos1) * inv_s, (dx * sin2 - dy * cos2) * inv_s);
            let (t1, t2) = (side(d1), side(d2));
            model += 0.25 * (A + B * t1 * t2);
            // Slopes of each edge times the other.
            let (s1, s2) = (0.25 * B * (1.0 - t1 * t1) * t2, 0.25 * B * (1.0 - t2 * t2) * t1);
            J += Unknowns::from([
                -(s1 * sin1 + s2 * sin2) * inv_s,
                (s1 * cos1 + s2 * cos2) * inv_s,
                s1 * (dx * cos1 + dy * sin1) * inv_s,
                s2 * (dx * cos2 + dy * sin2) * inv_s,
                0.25,
                0.25 * t1 * t2,
                -(s1 * d1 + s2 * d2),
            ]);
        }
        let residual = model - f64::from(image.row(y)[x]);
        cost += weight * residual * residual;
        normal += J * J.transpose() * weight;
        right += J * (weight * residual);
    });
    (cost, normal, right)
}

/// The neighbourhood and one pixel around it lie in the picture.
fn leaves_room(image: &GreyView<'_>, at: [f64; 2], radius_px: f64) -> bool {
    let inside = |centre: f64, side: usize| centre - radius_px >= 1.5 && centre + radius_px <= side as f64 - 1.5;
    inside(at[0], image.width()) && inside(at[1], image.height())
}

/// Calls with column, row and weight (1 in the middle, 0 on the rim) of every pixel within `radius_px`.
fn for_each_pixel(at: [f64; 2], radius_px: f64, mut visit: impl FnMut(usize, usize, f64)) {
    let first = |centre: f64| (centre - radius_px - 0.5).ceil() as usize;
    let last = |centre: f64| (centre + radius_px - 0.5).floor() as usize;
    for y in first(at[1])..=last(at[1]) {
        for x in first(at[0])..=last(at[0]) {
            let (dx, dy) = (x as f64 + 0.5 - at[0], y as f64 + 0.5 - at[1]);
            let nearness = 1.0 - (dx * dx + dy * dy) / (radius_px * radius_px);
            if nearness > 0.0 {
                visit(x, y, nearness * nearness);
            }
        }
    }
}

/// One weighted least-squares solution around `at`.
fn step(image: &GreyView<'_>, at: [f64; 2], radius_px: f64) -> Option<[f64; 2]> {
    if !leaves_room(image, at, radius_px) {
        return None;
    }
    // Sums of w gx², w gx gy, w gy² and of the right-hand side, relative to `at`.
    let (mut xx, mut xy, mut yy, mut rx, mut ry) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for_each_pixel(at, radius_px, |x, y, weight| {
        let (above, here, below) = (image.row(y - 1), image.row(y), image.row(y + 1));
        let (px, py) = (x as f64 + 0.5 - at[0], y as f64 + 0.5 - at[1]);
        let level = |row: &[u8], column: usize| f64::from(row[column]);
        // Scharr's weights: the direction of a gradient hardly depends on the pixel grid.
        let gx = 3.0 * (level(above, x + 1) - level(above, x - 1) + level(below, x + 1) - level(below, x - 1))
            + 10.0 * (level(here, x + 1) - level(here, x - 1));
        let gy = 3.0 * (level(below, x - 1) - level(above, x - 1) + level(below, x + 1) - level(above, x + 1))
            + 10.0 * (level(below, x) - level(above, x));
        let (wxx, wxy, wyy) = (weight * gx * gx, weight * gx * gy, weight * gy * gy);
        xx += wxx;
        xy += wxy;
        yy += wyy;
        rx += wxx * px + wxy * py;
        ry += wxy * px + wyy * py;
    });
    let determinant = xx * yy - xy * xy;
    let trace = xx + yy;
    // One edge alone fixes no point.
    if determinant.is_nan() || determinant <= 0.01 * trace * trace || trace <= 0.0 {
        return None;
    }
    Some([at[0] + (yy * rx - xy * ry) / determinant, at[1] + (xx * ry - xy * rx) / determinant])
}

/// Places that look like such corners, best first, at most `limit`. For corners whose squares are wider than about 10 px.
pub(super) fn candidates(image: &GreyView<'_>, limit: usize) -> Vec<[f64; 2]> {
    let (w, h) = (image.width(), image.height());
    if w < 16 || h < 16 {
        return Vec::new();
    }
    let blurred = blurred(image);
    // Hessian determinant with its sign turned: positive at saddles.
    let mut response = vec![0f32; w * h];
    let mut largest = 0f32;
    for y in 1..h - 1 {
        for x in 1..w - 1 {
            let at = |dx: usize, dy: usize| blurred[(y + dy - 1) * w + x + dx - 1];
            let centre = at(1, 1);
            let xx = at(0, 1) - 2.0 * centre + at(2, 1);
            let yy = at(1, 0) - 2.0 * centre + at(1, 2);
            let xy = 0.25 * (at(2, 2) - at(0, 2) - at(2, 0) + at(0, 0));
            let value = (xy * xy - xx * yy).max(0.0);
            response[y * w + x] = value;
            largest = largest.max(value);
        }
    }
    const REACH: usize = 3;
    let threshold = (0.01 * largest).max(4.0);
    let mut found: Vec<(f32, [f64; 2])> = Vec::new();
    for y in REACH..h - REACH {
        for x in REACH..w - REACH {
            let value = response[y * w + x];
            if value < threshold {
                continue;
            }
            let beats = |ox: usize, oy: usize| {
                let other = response[oy * w + ox];
                // Of equal neighbours the later one wins.
                other < value || (other == value && (oy, ox) <= (y, x))
            };
            if (y - REACH..=y + REACH).all(|oy| (x - REACH..=x + REACH).all(|ox| beats(ox, oy))) {
                found.push((value, [x as f64 + 0.5, y as f64 + 0.5]));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.truncate(limit);
    found.into_iter().map(|(_, at)| at).collect()
}

/// Binomial blur of five taps, both ways.
fn blurred(image: &GreyView<'_>) -> Vec<f32> {
    let (w, h) = (image.width(), image.height());
    let mix = |a: f32, b: f32, c: f32, d: f32, e: f32| (a + e + 4.0 * (b + d) + 6.0 * c) / 16.0;
    let mut across = vec![0f32; w * h];
    for y in 0..h {
        let row = image.row(y);
        for x in 0..w {
            let at = |offset: isize| f32::from(row[x.saturating_add_signed(offset).min(w - 1)]);
            across[y * w + x] = mix(at(-2), at(-1), at(0), at(1), at(2));
        }
    }
    let mut out = vec![0f32; w * h];
    for y in 0..h {
        let line = |offset: isize| y.saturating_add_signed(offset).min(h - 1) * w;
        let lines = [line(-2), line(-1), line(0), line(1), line(2)];
        for x in 0..w {
            let [a, b, c, d, e] = lines.map(|start| across[start + x]);
            out[y * w + x] = mix(a, b, c, d, e);
        }
    }
    out
}

/// A picture `factor` times smaller, each pixel the mean of a square; rows and columns that fill no square are cut.
pub(super) fn shrunk(image: &GreyView<'_>, factor: usize) -> GreyImage {
    let (w, h) = (image.width() / factor, image.height() / factor);
    let mut out = GreyImage::filled(w, h, 0);
    let area = (factor * factor) as u32;
    for y in 0..h {
        for x in 0..w {
            let sum: u32 = (y * factor..(y + 1) * factor)
                .map(|row| image.row(row)[x * factor..(x + 1) * factor].iter().map(|v| u32::from(*v)).sum::<u32>())
                .sum();
            out.pixels_mut()[y * w + x] = ((sum + area / 2) / area) as u8;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A corner at `at` whose edges point along `angles`, antialiased with 8 × 8 samples a pixel.
    fn corner(at: [f64; 2], angles: [f64; 2]) -> GreyImage {
        let mut image = GreyImage::filled(48, 48, 0);
        let side = |dx: f64, dy: f64, angle: f64| dx * angle.sin() - dy * angle.cos() > 0.0;
        for y in 0..48 {
            for x in 0..48 {
                let mut dark = 0;
                for sample in 0..64 {
                    // Sixty-four different places along each axis.
                    let (i, j) = (f64::from(sample % 8), f64::from(sample / 8));
                    let dx = x as f64 + (i + (j + 0.5) / 8.0) / 8.0 - at[0];
                    let dy = y as f64 + (j + (i + 0.5) / 8.0) / 8.0 - at[1];
                    dark += i32::from(side(dx, dy, angles[0]) != side(dx, dy, angles[1]));
                }
                image.pixels_mut()[y * 48 + x] = (220 - 190 * dark / 64) as u8;
            }
        }
        image
    }

    #[test]
    fn a_sharp_corner_is_found_to_four_hundredths_of_a_pixel_whatever_its_place_and_angles() {
        let mut worst = 0f64;
        for step in 0..12 {
            let t = f64::from(step);
            let at = [24.0 + 0.083 * t, 23.5 + 0.061 * t];
            for angles in [[0.0, 1.57], [0.3, 1.9], [0.7, 1.5], [-0.4, 2.1]] {
                let image = corner(at, angles);
                let start = [at[0] + 0.9, at[1] - 0.7];
                let found = refine_exactly(&image.view(), start, 6.0, 2.0).unwrap();
                worst = worst.max((found[0] - at[0]).hypot(found[1] - at[1]));
                let seen = sectors(&image.view(), found, 4.0).unwrap();
                let pi = std::f64::consts::PI;
                let off = |edge: f64, angle: f64| {
                    let off = (edge - angle).rem_euclid(pi);
                    off.min(pi - off)
                };
                assert!(angles.iter().all(|a| seen.edges.iter().any(|e| off(*e, *a) < 0.08)), "{seen:?} {angles:?}");
                assert!(candidates(&image.view(), 10).iter().any(|c| (c[0] - at[0]).hypot(c[1] - at[1]) < 1.5));
            }
        }
        println!("worst corner error {worst:.4} px");
        assert!(worst < 0.04, "{worst}");
    }

    #[test]
    fn edges_flat_ground_and_borders_give_no_corner() {
        let mut edge = GreyImage::filled(40, 40, 30);
        for (i, p) in edge.pixels_mut().iter_mut().enumerate() {
            if i % 40 > 19 {
                *p = 220;
            }
        }
        assert!(refine(&edge.view(), [20.0, 20.0], 5.0, 3.0).is_none());
        assert!(sectors(&edge.view(), [20.0, 20.0], 5.0).is_none());
        let flat = GreyImage::filled(40, 40, 128);
        assert!(refine(&flat.view(), [20.0, 20.0], 5.0, 3.0).is_none());
        assert!(candidates(&flat.view(), 10).is_empty());
        let real = corner([24.0, 24.0], [0.1, 1.6]);
        assert!(refine(&real.view(), [3.0, 24.0], 5.0, 3.0).is_none());
        assert!(refine(&real.view(), [f64::NAN, 24.0], 5.0, 3.0).is_none());
    }
}
