//! Windows of a picture that may be searched instead of the whole with the same result.
//!
//! What the C library finds at a tag depends on the picture's frame in these ways only, and a window respects them all:
//!
//! - The threshold of a pixel comes from the 3 × 3 squares around it, of 4 × 4 px counted from the picture's corner: windows
//!   begin at a multiple of that, and end at one or with the picture.
//! - The squares at a window's rim lack neighbours, so that a tag must keep two squares away from it.
//! - Edges are refined on pixels up to 3 px (and the decimation) away, and bits are judged by the white margin half a cell
//!   outside the border: a sixteenth of an edge for 8 cells, more on the diagonal.
//! - A blur before the search reaches as far as its kernel.
//!
//! All coordinates enter as doubles and are only ever subtracted, so an offset by whole pixels changes rounding alone.

use crate::image::MIN_SIDE_PX;
use crate::{DetectorSettings, GreyView};

/// A part of a picture, px; right and bottom are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub left: usize,
    pub top: usize,
    pub right: usize,
    pub bottom: usize,
}

impl Window {
    pub fn width(&self) -> usize {
        self.right - self.left
    }

    pub fn height(&self) -> usize {
        self.bottom - self.top
    }

    pub fn area_px(&self) -> usize {
        self.width() * self.height()
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// Copies this part of `frame` into `pixels`, row after row.
    pub(super) fn cut(&self, frame: &GreyView<'_>, pixels: &mut Vec<u8>) {
        pixels.clear();
        for y in self.top..self.bottom {
            pixels.extend_from_slice(&frame.row(y)[self.left..self.right]);
        }
    }
}

/// Searching a window costs about as much as this many pixels even when it is empty.
const CALL_PX: usize = 600;

/// Joins windows in place where one search of the hull costs no more than two. The order is not kept.
pub(super) fn merge(windows: &mut Vec<Window>) {
    let mut i = 0;
    while i < windows.len() {
        let a = windows[i];
        let partner = (i + 1..windows.len()).find(|&j| {
            let b = windows[j];
            a.union(&b).area_px() <= a.area_px() + b.area_px() + CALL_PX
        });
        match partner {
            Some(j) => {
                windows[i] = a.union(&windows[j]);
                windows.swap_remove(j);
                // The larger window may now take in one that was passed over.
                i = 0;
            }
            None => i += 1,
        }
    }
}

/// How windows must lie in frames of one size for one detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowGrid {
    width: usize,
    height: usize,
    /// Windows begin and end at multiples of this, px.
    step_px: usize,
    /// Shortest side of a window, px.
    min_side_px: usize,
    /// What the search needs around a tag however small, px.
    clearance_px: f64,
}

impl WindowGrid {
    pub fn new(settings: &DetectorSettings, width: usize, height: usize) -> Self {
        let decimate = f64::from(settings.quad_decimate);
        // Squares of 4 px after decimation; 1.5 turns each 6 px into 4.
        let step_px = (4.0 * decimate).ceil() as usize;
        let blur_px = 2.0 * f64::from(settings.quad_sigma.abs()) * decimate;
        let min_side_px = MIN_SIDE_PX.max((16.0 * decimate) as usize + step_px).next_multiple_of(step_px);
        let clearance_px = 2.0 * step_px as f64 + blur_px.ceil() + decimate - 1.0;
        Self { width, height, step_px, min_side_px, clearance_px }
    }

    pub fn frame_size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Room that a tag needs around its border's bounding box, px.
    pub fn clearance_px(&self, corners_px: &[[f64; 2]; 4]) -> f64 {
        let [low, high] = bounds(corners_px);
        self.clearance_px.max(2.0 + 0.1 * (high[0] - low[0]).max(high[1] - low[1]))
    }

    /// The window in which the tag may move by `margin_px` and is still found as in the whole frame; `None` when that lies
    /// outside the frame.
    pub fn around(&self, corners_px: &[[f64; 2]; 4], margin_px: f64) -> Option<Window> {
        let [low, high] = bounds(corners_px);
        let room = self.clearance_px(corners_px) + margin_px;
        let (left, right) = self.span(low[0] - room, high[0] + room, self.width)?;
        let (top, bottom) = self.span(low[1] - room, high[1] + room, self.height)?;
        Some(Window { left, top, right, bottom })
    }

    /// One axis of a window; never shorter than [`Self::min_side_px`] where the frame allows.
    fn span(&self, low: f64, high: f64, limit: usize) -> Option<(usize, usize)> {
        if !(low.is_finite() && high.is_finite()) || high <= 0.0 || low >= limit as f64 {
            return None;
        }
        let step = self.step_px;
        let mut from = low.max(0.0) as usize / step * step;
        let mut to = (high.ceil() as usize).next_multiple_of(step).min(limit);
        if to - from < self.min_side_px {
            to = (from + self.min_side_px).min(limit);
            from = from.min(limit.saturating_sub(self.min_side_px) / step * step);
        }
        Some((from, to))
    }

    /// Whether a tag found in `window` is found in the whole frame just the same.
    pub fn is_clear_of_rim(&self, window: &Window, corners_px: &[[f64; 2]; 4]) -> bool {
        let [low, high] = bounds(corners_px);
        let room = self.clearance_px(corners_px);
        (window.left == 0 || low[0] - room >= window.left as f64)
            && (window.top == 0 || low[1] - room >= window.top as f64)
            && (window.right == self.width || high[0] + room <= window.right as f64)
            && (window.bottom == self.height || high[1] + room <= window.bottom as f64)
    }

    /// Splits the frame into about equal windows, `columns` × `rows`, each with `overlap_px` in common with the next.
    pub(super) fn tiles(&self, columns: usize, rows: usize, overlap_px: usize) -> impl Iterator<Item = Window> {
        let step = self.step_px;
        let along = move |index: usize, count: usize, limit: usize| {
            let stride = (limit.saturating_sub(overlap_px)).div_ceil(count).next_multiple_of(step);
            let from = (index * stride).min(limit.saturating_sub(1) / step * step);
            let to = if index + 1 == count { limit } else { (from + stride + overlap_px).next_multiple_of(step) };
            (from, to.min(limit))
        };
        let (width, height) = (self.width, self.height);
        (0..rows * columns).map(move |i| {
            let (left, right) = along(i % columns, columns, width);
            let (top, bottom) = along(i / columns, rows, height);
            Window { left, top, right, bottom }
        })
    }
}

/// Smallest and largest coordinates.
pub(super) fn bounds(corners_px: &[[f64; 2]; 4]) -> [[f64; 2]; 2] {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for corner in corners_px {
        for axis in 0..2 {
            low[axis] = low[axis].min(corner[axis]);
            high[axis] = high[axis].max(corner[axis]);
        }
    }
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f64, y: f64, edge: f64) -> [[f64; 2]; 4] {
        [[x, y + edge], [x + edge, y + edge], [x + edge, y], [x, y]]
    }

    #[test]
    fn windows_lie_on_the_grid_within_the_frame_and_leave_the_tag_its_room() {
        for decimate in [1.0, 1.5, 2.0] {
            let settings = DetectorSettings { quad_decimate: decimate, ..Default::default() };
            let grid = WindowGrid::new(&settings, 1278, 718);
            let step = (4.0 * decimate) as usize;
            for (x, y) in [(3.0, 5.0), (640.3, 200.9), (1250.0, 690.0), (-10.0, 300.0)] {
                let tag = square(x, y, 24.0);
                let window = grid.around(&tag, 6.0).unwrap();
                assert!(window.left.is_multiple_of(step) && window.top.is_multiple_of(step), "{window:?}");
                assert!(window.right <= 1278 && window.bottom <= 718, "{window:?}");
                assert!(window.width() >= 32 && window.height() >= 32, "{window:?}");
                for (dx, dy) in [(6.0, 6.0), (-6.0, -6.0), (0.0, 0.0)] {
                    assert!(grid.is_clear_of_rim(&window, &square(x + dx, y + dy, 24.0)), "{window:?} {x} {y}");
                }
            }
            assert!(grid.around(&square(1300.0, 300.0, 10.0), 4.0).is_none());
            assert!(grid.around(&square(f64::NAN, 300.0, 10.0), 4.0).is_none());
        }
    }

    #[test]
    fn near_windows_join_and_far_ones_do_not() {
        let window = |left, top| Window { left, top, right: left + 64, bottom: top + 64 };
        let mut windows = vec![window(0, 0), window(600, 400), window(32, 0), window(64, 4)];
        merge(&mut windows);
        windows.sort_by_key(|w| w.left);
        let joined = Window { left: 0, top: 0, right: 128, bottom: 68 };
        assert_eq!(windows, vec![joined, window(600, 400)]);
    }

    #[test]
    fn every_tag_smaller_than_the_overlap_lies_whole_in_some_tile() {
        let grid = WindowGrid::new(&DetectorSettings::default(), 1280, 720);
        let tiles: Vec<Window> = grid.tiles(3, 2, 128).collect();
        assert_eq!(tiles.len(), 6);
        for y in (0..620).step_by(3) {
            for x in (0..1180).step_by(3) {
                let tag = square(x as f64, y as f64, 100.0);
                assert!(tiles.iter().any(|tile| grid.is_clear_of_rim(tile, &tag)), "{x} {y}");
            }
        }
    }
}
