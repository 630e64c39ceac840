//! What the views so far have shown: the picture's area, the board's size in it, and its tilt.

use super::View;
use super::result::tilt_deg;
use super::start::rough_pose;
use serde::Serialize;
use tenon_vision::Camera;

/// Cells of the picture, columns and rows.
pub const CELLS: [usize; 2] = [5, 4];
/// Smallest and largest part of the picture's width or height that the board fills, in thirds of the usual range.
const NEAR_FILLS: f64 = 0.65;
const FAR_FILLS: f64 = 0.4;
/// A board tilted by less than this says little about the focal length, degrees.
const TILTED_DEG: f64 = 15.0;
/// A cell with fewer points counts as empty.
const MIN_POINTS_IN_CELL: usize = 4;

/// Sides that the board was tilted to, as the camera sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tilts {
    /// Views with the board nearly parallel to the picture.
    pub frontal: usize,
    /// Views with that side of the board farther away than the other.
    pub left_away: usize,
    pub right_away: usize,
    pub top_away: usize,
    pub bottom_away: usize,
}

/// Coverage of picture, distance and tilt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    pub views: usize,
    /// Points in each cell of the picture, row by row.
    pub points_in_cells: [[usize; CELLS[0]]; CELLS[1]],
    /// Part of the cells that hold points, 0 to 1.
    pub area: f64,
    /// Views by how much of the picture the board fills: far, middle, near.
    pub distances: [usize; 3],
    pub tilts: Tilts,
}

impl Coverage {
    /// Without a camera (before the first solution) tilts come from a guessed lens, good enough to count sides.
    pub fn new(views: &[View], camera: Option<&Camera>) -> Self {
        let mut coverage = Self {
            views: views.len(),
            points_in_cells: Default::default(),
            area: 0.0,
            distances: [0; 3],
            tilts: Tilts::default(),
        };
        for View { view, .. } in views {
            let size = [view.width as f64, view.height as f64];
            let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
            for c in &view.points {
                for axis in 0..2 {
                    low[axis] = low[axis].min(c.pixel[axis]);
                    high[axis] = high[axis].max(c.pixel[axis]);
                }
                let cell = |axis: usize| {
                    let at = c.pixel[axis] / size[axis] * CELLS[axis] as f64;
                    (at.max(0.0) as usize).min(CELLS[axis] - 1)
                };
                coverage.points_in_cells[cell(1)][cell(0)] += 1;
            }
            let fills = (0..2).map(|axis| (high[axis] - low[axis]) / size[axis]).fold(0.0, f64::max);
            coverage.distances[usize::from(fills > FAR_FILLS) + usize::from(fills > NEAR_FILLS)] += 1;
            if let Some(pose) = rough_pose(view, camera) {
                coverage.tilts.count(&pose);
            }
        }
        let filled = coverage.points_in_cells.iter().flatten().filter(|n| **n >= MIN_POINTS_IN_CELL).count();
        coverage.area = filled as f64 / (CELLS[0] * CELLS[1]) as f64;
        coverage
    }

    /// Nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.advice().is_none()
    }

    /// What to show the camera next, the most needed first.
    pub fn advice(&self) -> Option<String> {
        let Tilts { left_away, right_away, top_away, bottom_away, .. } = self.tilts;
        let sides = [
            (left_away, "left side away from"),
            (right_away, "right side away from"),
            (top_away, "top away from"),
            (bottom_away, "bottom away from"),
        ];
        if let Some((_, side)) = sides.iter().find(|(count, _)| *count == 0) {
            return Some(format!("tilt the board by 30 to 45 degrees, its {side} the camera"));
        }
        let empty = |&(row, column): &(usize, usize)| self.points_in_cells[row][column] < MIN_POINTS_IN_CELL;
        let cells = (0..CELLS[1]).flat_map(|row| (0..CELLS[0]).map(move |column| (row, column)));
        // Corners first: distortion is largest there.
        let from_centre = |&(row, column): &(usize, usize)| {
            let off = |at: usize, count: usize| (2.0 * at as f64 + 1.0 - count as f64).abs() / count as f64;
            -(off(row, CELLS[1]) + off(column, CELLS[0]))
        };
        let farthest = cells.filter(empty).min_by(|a, b| from_centre(a).total_cmp(&from_centre(b)));
        if let Some((row, column)) = farthest {
            return Some(format!("move the board to the {} of the picture", place(row, column)));
        }
        if self.distances[2] == 0 {
            return Some("move the board nearer until it nearly fills the picture".to_owned());
        }
        if self.distances[0] + self.distances[1] == 0 {
            return Some("move the board away until it fills about a third of the picture".to_owned());
        }
        None
    }
}

impl Tilts {
    fn count(&mut self, T_camera_board: &tenon_vision::Pose) {
        if tilt_deg(T_camera_board) < TILTED_DEG {
            self.frontal += 1;
            return;
        }
        // The normal points into the paper, away from a frontal camera; it leans towards the side that is nearer.
        let normal = T_camera_board.rotation * nalgebra::Vector3::z();
        let side = if normal.x.abs() > normal.y.abs() {
            if normal.x > 0.0 { &mut self.left_away } else { &mut self.right_away }
        } else if normal.y > 0.0 {
            &mut self.top_away
        } else {
            &mut self.bottom_away
        };
        *side += 1;
    }
}

/// Where a cell lies, in words.
pub(super) fn place(row: usize, column: usize) -> &'static str {
    let third = |at: usize, count: usize| {
        let middle = (2 * at + 1) as f64 / (2 * count) as f64;
        usize::from(middle > 0.34) + usize::from(middle > 0.66)
    };
    let words = [
        ["upper left corner", "upper edge", "upper right corner"],
        ["left edge", "middle", "right edge"],
        ["lower left corner", "lower edge", "lower right corner"],
    ];
    words[third(row, CELLS[1])][third(column, CELLS[0])]
}
