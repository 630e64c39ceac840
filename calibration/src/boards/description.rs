//! What is printed on a board: typed, checked, with its geometry.

use super::dictionary::april_tag_36h11;
use super::{BoardError, Dictionary, MarkerBits};
use nalgebra::Point3;
use serde::{Deserialize, Serialize};

/// A calibration board. In TOML one table whose name is the kind:
///
/// ```toml
/// [checkerboard]
/// inner_columns = 9
/// inner_rows = 6
/// square_m = 0.025
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Board {
    Checkerboard(Checkerboard),
    AprilGrid(AprilGrid),
    Charuco(Charuco),
}

/// Black and white squares. It must be seen whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkerboard {
    /// Inner corners, where four squares meet: one less than squares.
    pub inner_columns: u32,
    pub inner_rows: u32,
    pub square_m: f64,
}

/// A grid of AprilTags of family 36h11, Kalibr's layout: ids grow to the right, then *upwards* from the lower left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AprilGrid {
    pub columns: u32,
    pub rows: u32,
    /// Edge of a tag, measured on the outside of its black border.
    pub tag_m: f64,
    /// Gap between tags over `tag_m` (Kalibr's `tagSpacing`).
    pub spacing_ratio: f64,
    /// Id of the lower left tag.
    pub first_id: u32,
    /// Width of the black border in cells: 2 as Kalibr prints, 1 as the AprilTag library prints.
    pub border_cells: u32,
    /// Small black squares in the gaps touch the tags' corners (Kalibr prints them): corners are then found more exactly.
    pub corner_squares: bool,
}

/// A checkerboard with a marker in each white square, OpenCV's layout: ids grow row by row from the upper left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charuco {
    /// Squares, black and white.
    pub columns: u32,
    pub rows: u32,
    pub square_m: f64,
    /// Edge of a marker, measured on the outside of its black border.
    pub marker_m: f64,
    pub dictionary: Dictionary,
    pub first_id: u32,
    /// Layout of OpenCV before 4.6: with an even number of rows the upper left square is white.
    pub legacy_layout: bool,
}

/// Where a marker is printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarkerPlace {
    pub id: u32,
    pub bits: MarkerBits,
    /// Upper left corner of the black border in the board frame, m.
    pub upper_left_m: [f64; 2],
    pub size_m: f64,
    pub border_cells: usize,
}

impl MarkerPlace {
    /// Corners of the black border in the board frame: upper left, upper right, lower right, lower left.
    pub fn corners_m(&self) -> [[f64; 2]; 4] {
        let ([x, y], s) = (self.upper_left_m, self.size_m);
        [[x, y], [x + s, y], [x + s, y + s], [x, y + s]]
    }

    fn cell_m(&self) -> f64 {
        self.size_m / (self.bits.cells + 2 * self.border_cells) as f64
    }

    /// `None` outside the black border.
    pub(super) fn is_black(&self, x_m: f64, y_m: f64) -> Option<bool> {
        let all = self.bits.cells + 2 * self.border_cells;
        let cell = |at: f64, start: f64| {
            let cell = ((at - start) / self.cell_m()).floor();
            (0.0..all as f64).contains(&cell).then_some(cell as usize)
        };
        let (column, row) = (cell(x_m, self.upper_left_m[0])?, cell(y_m, self.upper_left_m[1])?);
        let inside = |cell: usize| (self.border_cells..all - self.border_cells).contains(&cell);
        let coded = inside(column) && inside(row);
        Some(!(coded && self.bits.is_white(column - self.border_cells, row - self.border_cells)))
    }
}

/// A filled rectangle of the print in the board frame, m. Later ones cover earlier ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paint {
    pub x_m: f64,
    pub y_m: f64,
    pub width_m: f64,
    pub height_m: f64,
    pub black: bool,
}

/// Most squares or tags along a side.
const MAX_ALONG: u32 = 100;

impl Board {
    /// Reads and checks a description. `origin` names the text in errors (a path).
    pub fn parse(text: &str, origin: &str) -> Result<Self, BoardError> {
        let board: Self = toml::from_str(text)
            .map_err(|error| BoardError::Syntax { origin: origin.to_owned(), message: error.to_string() })?;
        board.check().map_err(|error| BoardError::Syntax { origin: origin.to_owned(), message: error.to_string() })?;
        Ok(board)
    }

    /// The description as TOML, for [`Self::parse`].
    pub fn to_toml(&self) -> Result<String, BoardError> {
        toml::to_string(self)
            .map_err(|error| BoardError::Syntax { origin: self.kind().to_owned(), message: error.to_string() })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Checkerboard(_) => "checkerboard",
            Self::AprilGrid(_) => "april_grid",
            Self::Charuco(_) => "charuco",
        }
    }

    /// Everything a print needs to be one.
    pub fn check(&self) -> Result<(), BoardError> {
        let fail = |field, value, requirement: String| {
            Err(BoardError::Field { board: self.kind(), field, value, requirement })
        };
        let (counts, lengths): (Vec<(&'static str, u32, u32)>, Vec<(&'static str, f64)>) = match self {
            Self::Checkerboard(b) => (
                vec![("inner_columns", b.inner_columns, 3), ("inner_rows", b.inner_rows, 3)],
                vec![("square_m", b.square_m)],
            ),
            Self::AprilGrid(b) => (vec![("columns", b.columns, 1), ("rows", b.rows, 1)], vec![("tag_m", b.tag_m)]),
            Self::Charuco(b) => (
                vec![("columns", b.columns, 3), ("rows", b.rows, 3)],
                vec![("square_m", b.square_m), ("marker_m", b.marker_m)],
            ),
        };
        for (field, count, least) in counts {
            if !(least..=MAX_ALONG).contains(&count) {
                return fail(field, count.into(), format!("must be {least} to {MAX_ALONG}"));
            }
        }
        for (field, length_m) in lengths {
            if !(1e-4..=10.0).contains(&length_m) {
                return fail(field, length_m, "must be a length in metres from 0.0001 to 10".to_owned());
            }
        }
        match self {
            Self::Checkerboard(_) => {}
            Self::AprilGrid(b) => {
                if b.columns * b.rows < 2 {
                    return fail("columns", b.columns.into(), "a grid needs at least two tags".to_owned());
                }
                if !(0.05..=1.0).contains(&b.spacing_ratio) {
                    return fail("spacing_ratio", b.spacing_ratio, "must be 0.05 to 1".to_owned());
                }
                if !(1..=2).contains(&b.border_cells) {
                    return fail(
                        "border_cells",
                        b.border_cells.into(),
                        "must be 1 (AprilTag) or 2 (Kalibr)".to_owned(),
                    );
                }
            }
            Self::Charuco(b) => {
                let ratio = b.marker_m / b.square_m;
                if !(0.4..=0.9).contains(&ratio) {
                    let requirement = format!("must be 0.4 to 0.9 of square_m = {}", b.square_m);
                    return fail("marker_m", b.marker_m, requirement);
                }
            }
        }
        self.markers().map(|_| ())
    }

    /// Width and height of the pattern without its margin, m.
    pub fn size_m(&self) -> [f64; 2] {
        match self {
            Self::Checkerboard(b) => {
                [f64::from(b.inner_columns + 1) * b.square_m, f64::from(b.inner_rows + 1) * b.square_m]
            }
            Self::AprilGrid(b) => {
                let gaps = if b.corner_squares { 1.0 } else { -1.0 };
                let side = |tags: u32| f64::from(tags) * b.tag_m + (f64::from(tags) + gaps) * b.tag_m * b.spacing_ratio;
                [side(b.columns), side(b.rows)]
            }
            Self::Charuco(b) => [f64::from(b.columns) * b.square_m, f64::from(b.rows) * b.square_m],
        }
    }

    /// The white margin that belongs to the board, m: the detector needs it.
    pub fn margin_m(&self) -> f64 {
        match self {
            Self::Checkerboard(b) => 0.5 * b.square_m,
            Self::AprilGrid(b) => 0.3 * b.tag_m,
            Self::Charuco(b) => 0.3 * b.square_m,
        }
    }

    /// The points that a detector may find, in a fixed order: inner corners row by row from the upper left, or for an
    /// AprilGrid four a tag (upper left, upper right, lower right, lower left) in the order of ids. Board frame, m.
    pub fn points(&self) -> Result<Vec<Point3<f64>>, BoardError> {
        let inner = |columns: u32, rows: u32, square_m: f64| {
            let at = move |row, column| Point3::new(f64::from(column) * square_m, f64::from(row) * square_m, 0.0);
            (1..=rows).flat_map(move |row| (1..=columns).map(move |column| at(row, column))).collect()
        };
        Ok(match self {
            Self::Checkerboard(b) => inner(b.inner_columns, b.inner_rows, b.square_m),
            Self::Charuco(b) => inner(b.columns - 1, b.rows - 1, b.square_m),
            Self::AprilGrid(_) => {
                let corners = self.markers()?.into_iter().flat_map(|marker| marker.corners_m());
                corners.map(|[x, y]| Point3::new(x, y, 0.0)).collect()
            }
        })
    }

    /// Every marker, in the order of ids; none on a checkerboard.
    pub fn markers(&self) -> Result<Vec<MarkerPlace>, BoardError> {
        match self {
            Self::Checkerboard(_) => Ok(Vec::new()),
            Self::AprilGrid(b) => {
                let gap_m = b.tag_m * b.spacing_ratio;
                let start_m = if b.corner_squares { gap_m } else { 0.0 };
                let mut markers = Vec::with_capacity((b.columns * b.rows) as usize);
                for index in 0..b.columns * b.rows {
                    let (column, row_from_below) = (index % b.columns, index / b.columns);
                    let row = b.rows - 1 - row_from_below;
                    let id = b.first_id.saturating_add(index);
                    markers.push(MarkerPlace {
                        id,
                        bits: april_tag_36h11(id)?,
                        upper_left_m: [column, row].map(|step| start_m + f64::from(step) * (b.tag_m + gap_m)),
                        size_m: b.tag_m,
                        border_cells: b.border_cells as usize,
                    });
                }
                Ok(markers)
            }
            Self::Charuco(b) => {
                let white: Vec<(u32, u32)> = (0..b.rows)
                    .flat_map(|row| (0..b.columns).map(move |column| (column, row)))
                    .filter(|&(column, row)| !b.is_black_square(column, row))
                    .collect();
                let codes = b.dictionary.markers(b.first_id, white.len() as u32)?;
                let inset_m = 0.5 * (b.square_m - b.marker_m);
                Ok(white
                    .into_iter()
                    .zip(codes)
                    .zip(b.first_id..)
                    .map(|(((column, row), bits), id)| MarkerPlace {
                        id,
                        bits,
                        upper_left_m: [column, row].map(|step| f64::from(step) * b.square_m + inset_m),
                        size_m: b.marker_m,
                        border_cells: 1,
                    })
                    .collect())
            }
        }
    }

    /// The print as rectangles on white paper.
    pub fn artwork(&self) -> Result<Vec<Paint>, BoardError> {
        let mut paints = Vec::new();
        let square =
            |x_m: f64, y_m: f64, side_m: f64| Paint { x_m, y_m, width_m: side_m, height_m: side_m, black: true };
        match self {
            Self::Checkerboard(b) => {
                for (column, row) in black_squares(b.inner_columns + 1, b.inner_rows + 1, |c, r| (c + r) % 2 == 0) {
                    paints.push(square(f64::from(column) * b.square_m, f64::from(row) * b.square_m, b.square_m));
                }
            }
            Self::Charuco(b) => {
                for (column, row) in black_squares(b.columns, b.rows, |c, r| b.is_black_square(c, r)) {
                    paints.push(square(f64::from(column) * b.square_m, f64::from(row) * b.square_m, b.square_m));
                }
            }
            Self::AprilGrid(b) if b.corner_squares => {
                let gap_m = b.tag_m * b.spacing_ratio;
                let step_m = b.tag_m + gap_m;
                for (column, row) in black_squares(b.columns + 1, b.rows + 1, |_, _| true) {
                    paints.push(square(f64::from(column) * step_m, f64::from(row) * step_m, gap_m));
                }
            }
            Self::AprilGrid(_) => {}
        }
        for marker in self.markers()? {
            let ([x_m, y_m], cell_m) = (marker.upper_left_m, marker.cell_m());
            paints.push(square(x_m, y_m, marker.size_m));
            for row in 0..marker.bits.cells {
                let mut column = 0;
                while column < marker.bits.cells {
                    let run = (column..marker.bits.cells).take_while(|c| marker.bits.is_white(*c, row)).count();
                    if run > 0 {
                        paints.push(Paint {
                            x_m: x_m + (column + marker.border_cells) as f64 * cell_m,
                            y_m: y_m + (row + marker.border_cells) as f64 * cell_m,
                            width_m: run as f64 * cell_m,
                            height_m: cell_m,
                            black: false,
                        });
                    }
                    column += run.max(1);
                }
            }
        }
        Ok(paints)
    }

    /// What a person needs to check a print, in one line.
    pub fn caption(&self) -> String {
        let mm = |m: f64| format!("{:.2} mm", m * 1000.0);
        match self {
            Self::Checkerboard(b) => format!(
                "Checkerboard, {} x {} inner corners ({} x {} squares), square {}",
                b.inner_columns,
                b.inner_rows,
                b.inner_columns + 1,
                b.inner_rows + 1,
                mm(b.square_m)
            ),
            Self::AprilGrid(b) => format!(
                "AprilGrid, {} x {} tags 36h11, ids {} to {} from the lower left, tag {} measured on the outside of the \
                 black border ({} cells wide), spacing {} (ratio {})",
                b.columns,
                b.rows,
                b.first_id,
                b.first_id + b.columns * b.rows - 1,
                mm(b.tag_m),
                b.border_cells,
                mm(b.tag_m * b.spacing_ratio),
                b.spacing_ratio
            ),
            Self::Charuco(b) => format!(
                "ChArUco, {} x {} squares, square {}, marker {} measured on the outside of the black border, {}, first id \
                 {}{}",
                b.columns,
                b.rows,
                mm(b.square_m),
                mm(b.marker_m),
                b.dictionary.name(),
                b.first_id,
                if b.legacy_layout { ", legacy layout" } else { "" }
            ),
        }
    }
}

impl Charuco {
    pub(super) fn is_black_square(&self, column: u32, row: u32) -> bool {
        let shift = u32::from(self.legacy_layout && self.rows.is_multiple_of(2));
        (column + row + shift).is_multiple_of(2)
    }
}

fn black_squares(columns: u32, rows: u32, is_black: impl Fn(u32, u32) -> bool) -> Vec<(u32, u32)> {
    let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
    all.filter(|&(column, row)| is_black(column, row)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Pattern;
    use super::*;

    pub fn samples() -> Vec<Board> {
        let charuco = |columns, rows, dictionary, legacy_layout| {
            Board::Charuco(Charuco {
                columns,
                rows,
                square_m: 0.03,
                marker_m: 0.0225,
                dictionary,
                first_id: 0,
                legacy_layout,
            })
        };
        let grid = |border_cells, corner_squares| {
            Board::AprilGrid(AprilGrid {
                columns: 4,
                rows: 3,
                tag_m: 0.04,
                spacing_ratio: 0.3,
                first_id: 5,
                border_cells,
                corner_squares,
            })
        };
        vec![
            Board::Checkerboard(Checkerboard { inner_columns: 7, inner_rows: 4, square_m: 0.025 }),
            Board::Checkerboard(Checkerboard { inner_columns: 5, inner_rows: 5, square_m: 0.03 }),
            grid(2, true),
            grid(1, false),
            charuco(6, 5, Dictionary::Aruco4x4Of50, false),
            charuco(6, 4, Dictionary::Aruco5x5Of100, true),
            charuco(5, 6, Dictionary::Aruco6x6Of250, false),
            charuco(7, 5, Dictionary::AprilTag36h11, false),
        ]
    }

    #[test]
    fn a_description_survives_toml_and_typing_errors_name_line_and_field() {
        for board in samples() {
            let text = board.to_toml().unwrap();
            assert_eq!(Board::parse(&text, "board.toml").unwrap(), board, "{text}");
        }
        let wrong = "[checkerboard]\ninner_columns = 9\ninner_rows = 6\nsquare_mm = 25\n";
        let message = Board::parse(wrong, "board.toml").unwrap_err().to_string();
        assert!(
            message.contains("board.toml") && message.contains("line 4") && message.contains("square_mm"),
            "{message}"
        );
    }

    #[test]
    fn impossible_boards_are_refused_with_the_field_that_is_wrong() {
        let refusal = |text: &str| Board::parse(text, "b").unwrap_err().to_string();
        assert!(refusal("[checkerboard]\ninner_columns=9\ninner_rows=2\nsquare_m=0.02").contains("inner_rows = 2"));
        assert!(refusal("[checkerboard]\ninner_columns=9\ninner_rows=6\nsquare_m=25.0").contains("square_m = 25"));
        let charuco = |marker: &str, dictionary: &str| {
            format!(
                "[charuco]\ncolumns=12\nrows=9\nsquare_m=0.03\nmarker_m={marker}\ndictionary=\"{dictionary}\"\nfirst_id=0\n\
                 legacy_layout=false"
            )
        };
        assert!(refusal(&charuco("0.03", "DICT_4X4_100")).contains("marker_m = 0.03"));
        assert!(refusal(&charuco("0.02", "DICT_4X4_50")).contains("marker 53 is not in dictionary DICT_4X4_50"));
        assert!(refusal(&charuco("nan", "DICT_4X4_100")).contains("marker_m"));
    }

    #[test]
    fn artwork_and_pattern_agree_everywhere() {
        for board in samples() {
            let (paints, pattern) = (board.artwork().unwrap(), Pattern::new(&board).unwrap());
            let [width_m, height_m] = board.size_m();
            let (mut black, mut white) = (0, 0);
            for i in 0..211 {
                for j in 0..157 {
                    let (x, y) = (width_m * (f64::from(i) + 0.37) / 211.0, height_m * (f64::from(j) + 0.41) / 157.0);
                    let inside = |p: &&Paint| {
                        (p.x_m..p.x_m + p.width_m).contains(&x) && (p.y_m..p.y_m + p.height_m).contains(&y)
                    };
                    let painted = paints.iter().rev().find(inside).is_some_and(|paint| paint.black);
                    assert_eq!(pattern.is_black(x, y), Some(painted), "{} at {x} {y}", board.kind());
                    if painted { black += 1 } else { white += 1 }
                }
            }
            assert!(black > 5000 && white > 5000, "{} {black} {white}", board.kind());
            assert_eq!(pattern.is_black(-2.0 * board.margin_m(), 0.0), None);
        }
    }

    #[test]
    fn charuco_markers_lie_where_opencv_puts_them() {
        // CharucoBoard((5, 4), 0.04, 0.03): getObjPoints(), ids from 0; legacy layout with setLegacyPattern(true).
        let mut board = Charuco {
            columns: 5,
            rows: 4,
            square_m: 0.04,
            marker_m: 0.03,
            dictionary: Dictionary::Aruco4x4Of50,
            first_id: 0,
            legacy_layout: false,
        };
        let markers = Board::Charuco(board.clone()).markers().unwrap();
        let near = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]) < 1e-12;
        assert!(near(markers[0].upper_left_m, [0.045, 0.005]) && near(markers[1].upper_left_m, [0.125, 0.005]));
        board.legacy_layout = true;
        let markers = Board::Charuco(board).markers().unwrap();
        assert!(near(markers[0].upper_left_m, [0.005, 0.005]));
    }
}
