//! Finds a whole checkerboard: corner candidates, joined to a grid by the directions and colours of their sectors.
//!
//! From a corner the next one lies along one of its edges, and between two neighbours the sector on the same side has the
//! same colour. So the grid grows from any corner without knowing its size, and stops where the board does.

use super::saddle::{MIN_RADIUS_PX, Sectors, candidates, refine, refine_exactly, sectors, shrunk};
use super::{BoardError, Checkerboard};
use std::f64::consts::{PI, TAU};
use tenon_vision::GreyView;

/// Radius of the ring that corners are checked with, px of the level searched.
const RING_RADIUS_PX: f64 = 4.0;
/// The search starts on a picture not wider than this; small corners are found on the next finer one.
const COARSE_WIDTH_PX: usize = 720;
/// Most candidates looked at on one level.
const MAX_CANDIDATES: usize = 1500;

const BOARD: &str = "checkerboard";

/// Inner corners row by row, px, in the order of [`super::Board::points`].
///
/// A board that looks the same after a turn can be named in several ways; of those that put a black square into the upper
/// left corner (any, where none does), the one whose rows run most nearly to the right in the picture is taken.
pub(super) fn find(image: &GreyView<'_>, board: &Checkerboard) -> Result<Vec<[f64; 2]>, BoardError> {
    let mut factor = 1;
    while image.width() / factor > COARSE_WIDTH_PX {
        factor *= 2;
    }
    let mut best_failure: Option<(usize, String)> = None;
    loop {
        match find_on_level(image, factor, board) {
            Ok(corners) => return Ok(corners),
            Err(failure) => {
                if best_failure.as_ref().is_none_or(|best| failure.0 > best.0) {
                    best_failure = Some(failure);
                }
            }
        }
        if factor == 1 {
            let reason = best_failure.map_or_else(String::new, |(_, reason)| reason);
            return Err(BoardError::NotFound { board: BOARD, reason });
        }
        factor /= 2;
    }
}

/// A corner candidate that passed the ring check, in pixels of its level.
#[derive(Debug, Clone, Copy)]
struct Corner {
    at: [f64; 2],
    sectors: Sectors,
}

impl Corner {
    /// Direction `k` (0 to 3, clockwise on the screen) of the edges.
    fn direction(&self, k: usize) -> f64 {
        self.sectors.edges[k % 2] + if k.is_multiple_of(4) || k % 4 == 1 { 0.0 } else { PI }
    }

    /// Colour of the sector from direction `k` to direction `k + 1`.
    fn is_dark(&self, k: usize) -> bool {
        self.sectors.first_is_dark == k.is_multiple_of(2)
    }

    /// The direction nearest to `angle`, and how far off it is.
    fn nearest_direction(&self, angle: f64) -> (usize, f64) {
        (0..4)
            .map(|k| (k, angle_between(self.direction(k), angle)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((0, PI))
    }
}

fn angle_between(a: f64, b: f64) -> f64 {
    let off = (a - b).rem_euclid(TAU);
    off.min(TAU - off)
}

/// The error's number says how much of a board was seen, to choose the most telling level.
fn find_on_level(image: &GreyView<'_>, factor: usize, board: &Checkerboard) -> Result<Vec<[f64; 2]>, (usize, String)> {
    let small;
    let level = if factor == 1 {
        *image
    } else {
        small = shrunk(image, factor);
        small.view()
    };
    let corners: Vec<Corner> = candidates(&level, MAX_CANDIDATES)
        .into_iter()
        .filter_map(|at| {
            let at = refine(&level, at, RING_RADIUS_PX, 2.0)?;
            Some(Corner { at, sectors: sectors(&level, at, RING_RADIUS_PX)? })
        })
        .collect();
    let (wide, high) = (board.inner_columns as usize, board.inner_rows as usize);
    if corners.len() < wide * high / 2 {
        let reason = format!(
            "only {} corners between black and white squares seen, the board has {}; show it whole, sharp and evenly lit",
            corners.len(),
            wide * high
        );
        return Err((corners.len(), reason));
    }
    let grid = largest_grid(&corners);
    let seen = grid.filled;
    let fits = (grid.wide, grid.high) == (wide, high) || (grid.wide, grid.high) == (high, wide);
    if !fits {
        let reason = format!(
            "a grid of {} x {} inner corners was seen, the board has {wide} x {high}; show it whole and uncovered, or \
             correct its description",
            grid.wide.max(grid.high),
            grid.wide.min(grid.high)
        );
        return Err((seen, reason));
    }
    let grid = filled_up(&level, &corners, grid).ok_or_else(|| {
        let reason = format!("{} of {} inner corners are hidden or blurred", wide * high - seen, wide * high);
        (seen, reason)
    })?;
    let ordered = in_board_order(&corners, &grid, wide, high);
    let blurred = |index: usize| {
        (seen, format!("inner corner {} of row {} is blurred or cut off", index % wide + 1, index / wide + 1))
    };
    // Exact places on the picture itself, from neighbourhoods that no other corner reaches.
    let full: Vec<[f64; 2]> = ordered.iter().map(|at| at.map(|v| v * factor as f64)).collect();
    (0..full.len())
        .map(|index| {
            let spacing = nearest_neighbour(&full, index, wide, high);
            let radius = (0.42 * spacing).max(MIN_RADIUS_PX);
            refine_exactly(image, full[index], radius, (0.3 * spacing).max(1.5)).ok_or_else(|| blurred(index))
        })
        .collect()
}

/// Cells of a grid, row-major; each an index into the corners, or the place of one that was filled in.
#[derive(Debug, Clone)]
struct Grid {
    wide: usize,
    high: usize,
    filled: usize,
    cells: Vec<Option<Cell>>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    at: [f64; 2],
    /// Corner and which of its directions runs along the grid's rows; `None` for a cell that was filled in.
    corner: Option<(usize, usize)>,
}

impl Grid {
    fn at(&self, column: isize, row: isize) -> Option<Cell> {
        let inside = (0..self.wide as isize).contains(&column) && (0..self.high as isize).contains(&row);
        inside.then(|| self.cells[row as usize * self.wide + column as usize])?
    }
}

/// Steps along the grid for directions 0 to 3 of a corner whose direction 0 runs along the rows.
const STEPS: [(i32, i32); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

fn largest_grid(corners: &[Corner]) -> Grid {
    let next: Vec<[Option<(usize, usize)>; 4]> =
        (0..corners.len()).map(|i| std::array::from_fn(|k| neighbour(corners, i, k))).collect();
    let mut taken = vec![false; corners.len()];
    let mut best = Grid { wide: 0, high: 0, filled: 0, cells: Vec::new() };
    for seed in 0..corners.len() {
        if taken[seed] {
            continue;
        }
        let grid = grown(corners, &next, seed, &mut taken);
        if grid.filled > best.filled {
            best = grid;
        }
    }
    best
}

/// Grows a grid from `seed`, breadth first; a cell keeps the first corner that reaches it.
fn grown(corners: &[Corner], next: &[[Option<(usize, usize)>; 4]], seed: usize, taken: &mut [bool]) -> Grid {
    // Corner, its place in the grid, and the direction of it that runs along the rows.
    let mut placed = vec![(seed, (0i32, 0i32), 0usize)];
    let mut occupied = std::collections::HashSet::from([(0, 0)]);
    taken[seed] = true;
    let mut done = 0;
    while done < placed.len() {
        let (corner, place, turn) = placed[done];
        done += 1;
        for k in 0..4 {
            let Some((other, arrives)) = next[corner][k] else { continue };
            let back = next[other][(arrives + 2) % 4].is_some_and(|(from, _)| from == corner);
            let along = (k + 4 - turn) % 4;
            let there = (place.0 + STEPS[along].0, place.1 + STEPS[along].1);
            if !back || taken[other] || occupied.contains(&there) {
                continue;
            }
            taken[other] = true;
            occupied.insert(there);
            placed.push((other, there, (arrives + 4 - along) % 4));
        }
    }
    let low = |axis: fn(&(i32, i32)) -> i32| placed.iter().map(|p| axis(&p.1)).min().unwrap_or(0);
    let top = |axis: fn(&(i32, i32)) -> i32| placed.iter().map(|p| axis(&p.1)).max().unwrap_or(0);
    let (left, upper) = (low(|p| p.0), low(|p| p.1));
    let (wide, high) = ((top(|p| p.0) - left + 1) as usize, (top(|p| p.1) - upper + 1) as usize);
    let mut cells = vec![None; wide * high];
    for (corner, place, turn) in &placed {
        let index = (place.1 - upper) as usize * wide + (place.0 - left) as usize;
        cells[index] = Some(Cell { at: corners[*corner].at, corner: Some((*corner, *turn)) });
    }
    Grid { wide, high, filled: placed.len(), cells }
}

/// The next corner along direction `k` of corner `from`, and the direction of that one in which it is reached.
fn neighbour(corners: &[Corner], from: usize, k: usize) -> Option<(usize, usize)> {
    let here = &corners[from];
    let heading = here.direction(k);
    let mut best: Option<(f64, usize, usize)> = None;
    for (index, there) in corners.iter().enumerate() {
        let (dx, dy) = (there.at[0] - here.at[0], there.at[1] - here.at[1]);
        let distance = dx.hypot(dy);
        if index == from || distance < 2.0 * MIN_RADIUS_PX {
            continue;
        }
        let off = angle_between(dy.atan2(dx), heading);
        let cost = distance * (1.0 + 4.0 * off);
        if off > 0.3 || best.is_some_and(|best| best.0 <= cost) {
            continue;
        }
        let (arrives, turned) = there.nearest_direction(heading);
        // The square to the right lies between directions k and k + 1 here, and between the right and the back there.
        if turned < 0.4 && here.is_dark(k) == there.is_dark(arrives + 1) {
            best = Some((cost, index, arrives));
        }
    }
    best.map(|(_, index, arrives)| (index, arrives))
}

/// Looks for the missing cells where their neighbours say; `None` when one is not there.
fn filled_up(level: &GreyView<'_>, corners: &[Corner], mut grid: Grid) -> Option<Grid> {
    debug_assert!(!corners.is_empty());
    let missing = grid.wide * grid.high - grid.filled;
    if missing * 5 > grid.wide * grid.high {
        return None;
    }
    for _ in 0..missing {
        let (index, at, spacing) = (0..grid.cells.len()).find_map(|index| {
            if grid.cells[index].is_some() {
                return None;
            }
            let (column, row) = ((index % grid.wide) as isize, (index / grid.wide) as isize);
            let guesses: Vec<([f64; 2], f64)> = STEPS
                .iter()
                .filter_map(|&(dx, dy)| {
                    let near = grid.at(column + dx as isize, row + dy as isize)?.at;
                    let far = grid.at(column + 2 * dx as isize, row + 2 * dy as isize)?.at;
                    let spacing = (near[0] - far[0]).hypot(near[1] - far[1]);
                    Some(([2.0 * near[0] - far[0], 2.0 * near[1] - far[1]], spacing))
                })
                .collect();
            let count = guesses.len() as f64;
            let sum = guesses.iter().fold([0.0; 3], |s, (at, spacing)| [s[0] + at[0], s[1] + at[1], s[2] + spacing]);
            (count > 0.0).then(|| (index, [sum[0] / count, sum[1] / count], sum[2] / count))
        })?;
        let found = refine(level, at, RING_RADIUS_PX, 0.3 * spacing)?;
        grid.cells[index] = Some(Cell { at: found, corner: None });
        grid.filled += 1;
    }
    Some(grid)
}

/// Corners row by row in the one naming that [`find`] describes.
fn in_board_order(corners: &[Corner], grid: &Grid, wide: usize, high: usize) -> Vec<[f64; 2]> {
    let mut best: Option<((bool, f64), Vec<[f64; 2]>)> = None;
    for turn in 0..4 {
        let turned_size = if turn % 2 == 0 { (grid.wide, grid.high) } else { (grid.high, grid.wide) };
        if turned_size != (wide, high) {
            continue;
        }
        // Cell of the grid that becomes (column, row) after `turn` quarter turns.
        let source = |column: usize, row: usize| match turn {
            0 => (column, row),
            1 => (grid.wide - 1 - row, column),
            2 => (grid.wide - 1 - column, grid.high - 1 - row),
            _ => (row, grid.high - 1 - column),
        };
        let cell = |column: usize, row: usize| {
            let (x, y) = source(column, row);
            grid.cells[y * grid.wide + x]
        };
        let places: Vec<[f64; 2]> =
            (0..wide * high).filter_map(|index| cell(index % wide, index / wide)).map(|cell| cell.at).collect();
        if places.len() != wide * high {
            continue;
        }
        // The square before corner (0, 0) has the colour of every square an even number of steps away.
        let black_first = (0..wide * high).find_map(|index| {
            let (column, row) = (index % wide, index / wide);
            let (corner, along_rows) = cell(column, row)?.corner?;
            // Up and left of a corner: between the directions back along the row and back along the column.
            let before = (along_rows + turn + 2) % 4;
            let dark = corners[corner].is_dark(before);
            Some(dark == (column + row).is_multiple_of(2))
        });
        let mean = |from: usize, to: usize, axis: usize| {
            (0..high).map(|row| places[row * wide + to][axis] - places[row * wide + from][axis]).sum::<f64>()
        };
        let (dx, dy) = (mean(0, wide - 1, 0), mean(0, wide - 1, 1));
        let score = (black_first.unwrap_or(false), dx / dx.hypot(dy));
        let better = best
            .as_ref()
            .is_none_or(|(old, _)| score.0.cmp(&old.0).then(score.1.total_cmp(&old.1)) == std::cmp::Ordering::Greater);
        if better {
            best = Some((score, places));
        }
    }
    best.map(|(_, places)| places).unwrap_or_default()
}

/// Distance to the nearest neighbour in the grid, px.
fn nearest_neighbour(places: &[[f64; 2]], index: usize, wide: usize, high: usize) -> f64 {
    let (column, row) = ((index % wide) as isize, (index / wide) as isize);
    let at = places[index];
    STEPS
        .iter()
        .map(|&(dx, dy)| (column + dx as isize, row + dy as isize))
        .filter(|(c, r)| (0..wide as isize).contains(c) && (0..high as isize).contains(r))
        .map(|(c, r)| {
            let other = places[r as usize * wide + c as usize];
            (at[0] - other[0]).hypot(at[1] - other[1])
        })
        .fold(f64::INFINITY, f64::min)
}
