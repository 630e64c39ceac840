//! Colour of a board at any place.

use super::{Board, BoardError, Charuco, MarkerPlace};

/// Colour of a board at any place, for drawing it. Written apart from [`Board::artwork`], so that tests hold one to the
/// other.
#[derive(Debug, Clone)]
pub struct Pattern {
    board: Board,
    markers: Vec<MarkerPlace>,
    size_m: [f64; 2],
    margin_m: f64,
}

impl Pattern {
    pub fn new(board: &Board) -> Result<Self, BoardError> {
        board.check()?;
        let (size_m, margin_m) = (board.size_m(), board.margin_m());
        Ok(Self { board: board.clone(), markers: board.markers()?, size_m, margin_m })
    }

    /// Whether the place (board frame, m) is black; `None` beyond the margin.
    pub fn is_black(&self, x_m: f64, y_m: f64) -> Option<bool> {
        let [width_m, height_m] = self.size_m;
        let on_paper = |at: f64, size: f64| (-self.margin_m..size + self.margin_m).contains(&at);
        if !(on_paper(x_m, width_m) && on_paper(y_m, height_m)) {
            return None;
        }
        if !((0.0..width_m).contains(&x_m) && (0.0..height_m).contains(&y_m)) {
            return Some(false);
        }
        let square = |side_m: f64| ((x_m / side_m).floor() as u32, (y_m / side_m).floor() as u32);
        Some(match &self.board {
            Board::Checkerboard(b) => {
                let (column, row) = square(b.square_m);
                (column + row).is_multiple_of(2)
            }
            Board::Charuco(b) => {
                let (column, row) = square(b.square_m);
                if b.is_black_square(column, row) {
                    true
                } else {
                    // Of two squares in a row one is white; odd rows may begin with either.
                    let before = black_squares_before(b, column, row);
                    let marker = self.markers.get((row * b.columns + column - before) as usize);
                    marker.and_then(|marker| marker.is_black(x_m, y_m)).unwrap_or(false)
                }
            }
            Board::AprilGrid(b) => {
                let gap_m = b.tag_m * b.spacing_ratio;
                let step_m = b.tag_m + gap_m;
                let start_m = if b.corner_squares { gap_m } else { 0.0 };
                let in_gap = |at: f64| (at - start_m).rem_euclid(step_m) >= b.tag_m;
                if in_gap(x_m) || in_gap(y_m) {
                    b.corner_squares && in_gap(x_m) && in_gap(y_m)
                } else {
                    let step = |at: f64| ((at - start_m) / step_m).floor() as u32;
                    let (column, row) = (step(x_m), step(y_m));
                    let index = (b.rows - 1).saturating_sub(row) * b.columns + column;
                    self.markers.get(index as usize).and_then(|marker| marker.is_black(x_m, y_m)).unwrap_or(false)
                }
            }
        })
    }
}

/// Black squares before this one, row by row.
fn black_squares_before(board: &Charuco, column: u32, row: u32) -> u32 {
    let starts_black = |row: u32| board.is_black_square(0, row);
    let in_row = |row: u32, columns: u32| if starts_black(row) { columns.div_ceil(2) } else { columns / 2 };
    (0..row).map(|r| in_row(r, board.columns)).sum::<u32>() + in_row(row, column)
}
