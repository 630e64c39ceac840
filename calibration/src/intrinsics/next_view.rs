//! Which view to add next: of many imagined ones the one that shrinks the parameters' uncertainty most.
//!
//! A view adds its reduced normal matrix S_v to S. The gain is ½ log₂ det(S + S_v) / det(S) bits (D-optimal design); both
//! are computed with the present estimate, so no picture is needed.

use super::View;
use super::coverage::{CELLS, place};
use super::model::{MatrixN, N, PARAMETERS, camera_of};
use super::solve::{Block, Solution, with_kept};
use crate::boards::Board;
use nalgebra::{Translation3, UnitQuaternion, Vector3};
use serde::Serialize;
use tenon_vision::refine::Correspondence;
use tenon_vision::{Camera, Pose};

/// An imagined view and what it would bring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextView {
    /// For a person.
    pub advice: String,
    /// Where the board's middle should appear, px.
    pub centre_px: [f64; 2],
    pub distance_m: f64,
    pub tilt_deg: f64,
    /// Information about all parameters together.
    pub gain_bits: f64,
    /// Standard deviations after it, as a part of the present ones, in the order of [`PARAMETERS`]; one for those that are
    /// not estimated.
    pub std_ratio: [f64; N],
}

/// Sides that the board can be turned to: the words, and the axis in the camera frame that it is turned about.
const TURNS: [(&str, [f64; 3]); 4] = [
    ("its left side away from", [0.0, 1.0, 0.0]),
    ("its right side away from", [0.0, -1.0, 0.0]),
    ("its top away from", [-1.0, 0.0, 0.0]),
    ("its bottom away from", [1.0, 0.0, 0.0]),
];
const TILT_DEG: f64 = 40.0;

pub(super) fn suggest(
    board: &Board,
    views: &[&View],
    solution: &Solution,
    mask: &[bool; N],
    sigma_px: f64,
) -> Option<NextView> {
    let camera = camera_of(&solution.parameters).ok()?;
    let (width, height) = (views[0].view.width as f64, views[0].view.height as f64);
    let mut S = MatrixN::zeros();
    for (view, pose) in views.iter().zip(&solution.poses) {
        S += Block::new(&camera, pose, &view.view.points, mask, f64::INFINITY)?.reduced()?.information;
    }
    let present = with_kept(S, mask).cholesky()?;
    let present_inverse = present.inverse();
    let log_det = |l: &MatrixN| (0..N).map(|i| l[(i, i)].log2()).sum::<f64>();
    let present_bits = log_det(&present.l());
    let points = board.points().ok()?;
    let whole = matches!(board, Board::Checkerboard(_));
    let size = board.size_m();
    let focal = camera.focal_px()[0];
    let mut best: Option<NextView> = None;
    for fill in [0.4, 0.8] {
        // The board's diagonal fills this part of the picture's width.
        let distance = focal * size[0].hypot(size[1]) / (fill * width);
        for cell in 0..CELLS[0] * CELLS[1] {
            let (column, row) = (cell % CELLS[0], cell / CELLS[0]);
            let centre_px =
                [(column as f64 + 0.5) / CELLS[0] as f64 * width, (row as f64 + 0.5) / CELLS[1] as f64 * height];
            for turn in 0..=TURNS.len() {
                let tilt_deg = if turn == TURNS.len() { 0.0 } else { TILT_DEG };
                let rotation = TURNS.get(turn).map_or_else(UnitQuaternion::identity, |(_, axis)| {
                    UnitQuaternion::from_scaled_axis(Vector3::from(*axis) * tilt_deg.to_radians())
                });
                let Some(pose) = facing(&camera, centre_px, distance, &rotation, size) else { continue };
                let seen = visible(&camera, &pose, &points, width, height);
                if seen.len() < if whole { points.len() } else { points.len().div_ceil(3).max(6) } {
                    continue;
                }
                let block = Block::new(&camera, &pose, &seen, mask, f64::INFINITY).and_then(|block| block.reduced());
                let Some(sum) = block.and_then(|block| with_kept(S + block.information, mask).cholesky()) else {
                    continue;
                };
                let gain_bits = log_det(&sum.l()) - present_bits;
                if best.as_ref().is_some_and(|best| best.gain_bits >= gain_bits) {
                    continue;
                }
                let inverse = sum.inverse();
                let std_ratio = std::array::from_fn(|i| (inverse[(i, i)] / present_inverse[(i, i)]).sqrt());
                best = Some(NextView {
                    advice: String::new(),
                    centre_px,
                    distance_m: distance,
                    tilt_deg,
                    gain_bits,
                    std_ratio,
                });
                if let Some(best) = &mut best {
                    let tilt = TURNS.get(turn).map_or("facing the camera".to_owned(), |(side, _)| {
                        format!("tilted by {tilt_deg:.0} degrees, {side} the camera")
                    });
                    best.advice = format!(
                        "board at the {} of the picture, about {distance:.2} m away, {tilt}",
                        place(row, column)
                    );
                }
            }
        }
    }
    let mut best = best?;
    // The parameter that gains most, to say what the view is for.
    let free = (0..N).filter(|i| mask[*i]).min_by(|a, b| best.std_ratio[*a].total_cmp(&best.std_ratio[*b]))?;
    let std = (present_inverse[(free, free)]).sqrt() * sigma_px;
    best.advice.push_str(&format!(
        "; it would bring the standard deviation of {} from {std:.2e} to {:.2e}",
        PARAMETERS[free],
        std * best.std_ratio[free]
    ));
    Some(best)
}

/// Pose with the board's middle on a pixel's ray, turned away from facing the camera.
fn facing(
    camera: &Camera,
    centre_px: [f64; 2],
    distance: f64,
    rotation: &UnitQuaternion<f64>,
    size: [f64; 2],
) -> Option<Pose> {
    let [x, y] = camera.normalise(centre_px)?;
    let centre = Vector3::new(x, y, 1.0).normalize() * distance;
    let middle = Vector3::new(0.5 * size[0], 0.5 * size[1], 0.0);
    Some(Pose::from_parts(Translation3::from(centre - rotation * middle), *rotation))
}

fn visible(
    camera: &Camera,
    pose: &Pose,
    points: &[nalgebra::Point3<f64>],
    width: f64,
    height: f64,
) -> Vec<Correspondence> {
    let inside = |[u, v]: [f64; 2]| (0.0..width).contains(&u) && (0.0..height).contains(&v);
    points
        .iter()
        .filter_map(|point| {
            let pixel = camera.project(&(pose * point)).filter(|pixel| inside(*pixel))?;
            Some(Correspondence { point_m: *point, pixel })
        })
        .collect()
}
