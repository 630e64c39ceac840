//! Finds a board in a grey picture.

use super::homography::{apply, homography};
use super::marker::{FoundMarker, MarkerDetector};
use super::saddle::{MAX_RADIUS_PX, refine_exactly};
use super::{Board, BoardError, MarkerPlace, checkerboard};
use nalgebra::Point3;
use tenon_vision::refine::Correspondence;
use tenon_vision::{GreyImage, GreyView};

/// A board in one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardView {
    /// Points of the board (board frame, m) and where they were seen, px; in the order of [`Board::points`], those not seen
    /// left out.
    pub points: Vec<Correspondence>,
    /// Index of each of `points` in [`Board::points`].
    pub indices: Vec<usize>,
    /// Size of the picture, px.
    pub width: usize,
    pub height: usize,
}

/// Finds one kind of board. One detector serves one thread.
#[derive(Debug)]
pub struct BoardDetector {
    board: Board,
    points: Vec<Point3<f64>>,
    places: Vec<MarkerPlace>,
    markers: Option<MarkerDetector>,
    found: Vec<FoundMarker>,
}

/// Fewest points that a view is worth keeping for: fewer hardly say more than the board's own pose.
const MIN_POINTS: usize = 6;

impl BoardDetector {
    pub fn new(board: &Board) -> Result<Self, BoardError> {
        board.check()?;
        let places = board.markers()?;
        let markers = match board {
            Board::Checkerboard(_) => None,
            Board::AprilGrid(_) => Some(MarkerDetector::new(&places, 1)?),
            Board::Charuco(b) => Some(MarkerDetector::new(&places, b.dictionary.correctable_bits())?),
        };
        Ok(Self { board: board.clone(), points: board.points()?, places, markers, found: Vec::new() })
    }

    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The board in `image`. A checkerboard must be seen whole; the others may be covered in part.
    ///
    /// # Errors
    /// [`BoardError::NotFound`] with what was seen instead.
    pub fn detect(&mut self, image: GreyView<'_>) -> Result<BoardView, BoardError> {
        tenon_vision::image::check_size(image.width(), image.height())?;
        let seen: Vec<Option<[f64; 2]>> = match &self.board {
            Board::Checkerboard(board) => checkerboard::find(&image, board)?.into_iter().map(Some).collect(),
            Board::AprilGrid(board) => {
                let corner_squares = board.corner_squares;
                // The nearest other edges: the next tag's across the gap, and the inner edge of the border.
                let cells = 6.0 + 2.0 * f64::from(board.border_cells);
                let clear_m = board.tag_m * board.spacing_ratio.min(f64::from(board.border_cells) / cells);
                self.find_markers(&image, corner_squares)?;
                self.tag_corners(&image, corner_squares, clear_m)
            }
            Board::Charuco(board) => {
                let clear_m = (0.5 * (board.square_m - board.marker_m)).min(0.4 * board.square_m);
                let square_m = board.square_m;
                self.find_markers(&image, false)?;
                self.chess_corners(&image, square_m, clear_m)
            }
        };
        let mut view =
            BoardView { points: Vec::new(), indices: Vec::new(), width: image.width(), height: image.height() };
        for (index, (point_m, pixel)) in self.points.iter().zip(&seen).enumerate() {
            if let Some(pixel) = *pixel {
                view.points.push(Correspondence { point_m: *point_m, pixel });
                view.indices.push(index);
            }
        }
        if view.points.len() < MIN_POINTS {
            let reason = format!("only {} of its {} points were seen", view.points.len(), self.points.len());
            return Err(self.not_found(reason));
        }
        Ok(view)
    }

    fn not_found(&self, reason: String) -> BoardError {
        BoardError::NotFound { board: self.board.kind(), reason }
    }

    /// Fills `found` with the markers that lie as they do on the board.
    fn find_markers(&mut self, image: &GreyView<'_>, touching: bool) -> Result<(), BoardError> {
        let Some(detector) = &mut self.markers else { return Ok(()) };
        if touching {
            // Squares that touch a tag's corners join it to its neighbours after blur; black shrunk by a pixel lies apart.
            detector.detect_into(eroded(image).view(), &mut self.found)?;
            for marker in &mut self.found {
                marker.corners_px = grown(&marker.corners_px, 1.0);
            }
        } else {
            detector.detect_into(*image, &mut self.found)?;
        }
        let decoded = self.found.len();
        keep_consistent(&self.places, &mut self.found);
        if self.found.len() < 2 {
            let reason = match decoded {
                0 => "no marker of it was seen; check its description, the light and the distance".to_owned(),
                1 => "only one of its markers was seen; two are needed to trust it".to_owned(),
                _ => format!(
                    "{decoded} markers with its ids were seen, but they do not lie as on this board; check its description"
                ),
            };
            return Err(self.not_found(reason));
        }
        Ok(())
    }

    /// Corners of the tags; with squares in the gaps they are saddles and refined as such.
    fn tag_corners(&self, image: &GreyView<'_>, corner_squares: bool, clear_m: f64) -> Vec<Option<[f64; 2]>> {
        let mut seen = vec![None; self.points.len()];
        for marker in &self.found {
            let place = &self.places[marker.index];
            if !corner_squares && !border_is_whole(image, marker, place) {
                continue;
            }
            let clear_px = clear_m / place.size_m * shortest_edge(&marker.corners_px);
            for (corner, pixel) in marker.corners_px.iter().enumerate() {
                seen[4 * marker.index + corner] =
                    if corner_squares { saddle_near(image, *pixel, 0.9 * clear_px) } else { Some(*pixel) };
            }
        }
        seen
    }

    /// Inner corners of a ChArUco board, each predicted from the markers around it.
    fn chess_corners(&self, image: &GreyView<'_>, square_m: f64, clear_m: f64) -> Vec<Option<[f64; 2]>> {
        let around = |point: &Point3<f64>| {
            let at = *point;
            self.found.iter().filter(move |marker| {
                let place = &self.places[marker.index];
                let centre = place.upper_left_m.map(|v| v + 0.5 * place.size_m);
                // Markers of the four squares that meet here.
                (centre[0] - at.x).abs() < 0.8 * square_m && (centre[1] - at.y).abs() < 0.8 * square_m
            })
        };
        self.points
            .iter()
            .map(|point| {
                let pairs = || {
                    around(point)
                        .flat_map(|marker| self.places[marker.index].corners_m().into_iter().zip(marker.corners_px))
                };
                let H = homography(pairs())?;
                let predicted = apply(&H, [point.x, point.y])?;
                let shortest =
                    around(point).map(|marker| shortest_edge(&marker.corners_px) / self.places[marker.index].size_m);
                let px_per_m = shortest.fold(f64::INFINITY, f64::min);
                // The nearest corner of a marker lies a diagonal away.
                saddle_near(image, predicted, 0.95 * std::f64::consts::SQRT_2 * clear_m * px_per_m)
            })
            .collect()
    }
}

/// The saddle near a predicted place, `clear_px` away from any other edge.
fn saddle_near(image: &GreyView<'_>, predicted: [f64; 2], clear_px: f64) -> Option<[f64; 2]> {
    let radius = clear_px.min(MAX_RADIUS_PX);
    refine_exactly(image, predicted, radius, radius.max(2.0))
}

fn shortest_edge(corners: &[[f64; 2]; 4]) -> f64 {
    let length = |i: usize| {
        let (a, b) = (corners[i], corners[(i + 1) % 4]);
        (a[0] - b[0]).hypot(a[1] - b[1])
    };
    (0..4).map(length).fold(f64::INFINITY, f64::min)
}

/// White lies outside and black inside all along the border. Where something covers a part of it, the tag may still be read,
/// but its corners are guesses.
fn border_is_whole(image: &GreyView<'_>, marker: &FoundMarker, place: &MarkerPlace) -> bool {
    const SAMPLES: usize = 12;
    let unit = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let Some(H) = homography(unit.into_iter().zip(marker.corners_px)) else { return false };
    let half_cell = 0.5 / (place.bits.cells + 2 * place.border_cells) as f64;
    let level = |at: [f64; 2]| {
        let [u, v] = apply(&H, at)?;
        let inside = u >= 0.0 && v >= 0.0 && u < image.width() as f64 && v < image.height() as f64;
        inside.then(|| i32::from(image.row(v as usize)[u as usize]))
    };
    let mut contrasts = [0i32; 4 * SAMPLES];
    for (i, contrast) in contrasts.iter_mut().enumerate() {
        let along = ((i % SAMPLES) as f64 + 0.5) / SAMPLES as f64;
        let at = |across: f64| match i / SAMPLES {
            0 => [along, across],
            1 => [1.0 - across, along],
            2 => [along, 1.0 - across],
            _ => [across, along],
        };
        let (Some(outside), Some(inside)) = (level(at(-half_cell)), level(at(half_cell))) else { return false };
        *contrast = outside - inside;
    }
    let mut sorted = contrasts;
    sorted.sort_unstable();
    let usual = sorted[2 * SAMPLES];
    contrasts.iter().all(|contrast| *contrast * 2 > usual)
}

/// Each edge moved outward by `by_px`.
fn grown(corners: &[[f64; 2]; 4], by_px: f64) -> [[f64; 2]; 4] {
    std::array::from_fn(|i| {
        let at = corners[i];
        let away = |other: [f64; 2]| {
            let (dx, dy) = (at[0] - other[0], at[1] - other[1]);
            let length = dx.hypot(dy).max(1e-9);
            [dx / length, dy / length]
        };
        let (a, b) = (away(corners[(i + 1) % 4]), away(corners[(i + 3) % 4]));
        // Two edges at an angle φ moved by d meet d / sin φ further out along each.
        let sine = (a[0] * b[1] - a[1] * b[0]).abs().max(0.3);
        [at[0] + (a[0] + b[0]) * by_px / sine, at[1] + (a[1] + b[1]) * by_px / sine]
    })
}

/// The brightest of each pixel's neighbourhood of 3 × 3: black areas lose their outermost pixel.
fn eroded(image: &GreyView<'_>) -> GreyImage {
    let (w, h) = (image.width(), image.height());
    let mut out = GreyImage::filled(w, h, 0);
    let mut column_max = vec![0u8; w];
    for y in 0..h {
        for row in y.saturating_sub(1)..(y + 2).min(h) {
            let levels = image.row(row);
            for (most, level) in column_max.iter_mut().zip(levels) {
                *most = if row + 1 == y || (y == 0 && row == 0) { *level } else { (*most).max(*level) };
            }
        }
        let target = &mut out.pixels_mut()[y * w..][..w];
        for x in 0..w {
            let near = &column_max[x.saturating_sub(1)..(x + 2).min(w)];
            target[x] = near.iter().copied().max().unwrap_or(0);
        }
    }
    out
}

/// Drops markers that do not lie where the others say, worst first: a code read wrongly, or a print that is not the board's.
fn keep_consistent(places: &[MarkerPlace], found: &mut Vec<FoundMarker>) {
    const NEIGHBOURS: usize = 4;
    let centre_m = |marker: &FoundMarker| {
        let place = &places[marker.index];
        place.upper_left_m.map(|v| v + 0.5 * place.size_m)
    };
    while found.len() >= 2 {
        let mut worst = (0.0, 0);
        for (i, marker) in found.iter().enumerate() {
            let here = centre_m(marker);
            let mut others: Vec<(f64, &FoundMarker)> = found
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .map(|(_, other)| {
                    let there = centre_m(other);
                    ((there[0] - here[0]).hypot(there[1] - here[1]), other)
                })
                .collect();
            others.sort_by(|a, b| a.0.total_cmp(&b.0));
            others.truncate(NEIGHBOURS);
            let pairs =
                others.iter().flat_map(|(_, other)| places[other.index].corners_m().into_iter().zip(other.corners_px));
            let predicted = homography(pairs).and_then(|H| {
                let corners = places[marker.index].corners_m();
                let mut off = 0f64;
                for (corner, seen) in corners.into_iter().zip(marker.corners_px) {
                    let [u, v] = apply(&H, corner)?;
                    off = off.max((u - seen[0]).hypot(v - seen[1]));
                }
                Some(off / shortest_edge(&marker.corners_px).max(1e-9))
            });
            let off = predicted.unwrap_or(f64::INFINITY);
            if off > worst.0 {
                worst = (off, i);
            }
        }
        // Lens distortion and a prediction from one neighbour alone stay well below half an edge.
        if worst.0 < 0.5 {
            return;
        }
        found.remove(worst.1);
    }
}
