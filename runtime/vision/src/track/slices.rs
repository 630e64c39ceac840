//! Searching the whole picture in slices, so that no single search takes long.
//!
//! A round goes over overlapping tiles at full resolution and then, where there is more than one, over the whole picture at
//! half resolution, which finds the tags that are too large to lie in the tiles' overlap. Each slice is cut from the newest
//! frame, so that a tag that appears is found within one round. What a slice finds is only a hint to the
//! [`super::Tracker`], which looks for itself.

use super::window::{Window, WindowGrid};
use crate::{Detector, DetectorSettings, GreyView, TagDetection, VisionError};

/// How the picture is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceSettings {
    pub columns: usize,
    pub rows: usize,
    /// Common to neighbouring tiles, px: tags with their clearance up to this size are whole in one tile.
    pub overlap_px: usize,
    /// A slice is handed to the searching thread every so many frames ([`super::BackgroundSearch`]).
    pub every_frames: u32,
}

impl Default for SliceSettings {
    /// For the caller's own thread: six tiles and the half picture, so that none takes long. At 30 frames a second and one
    /// slice a frame, a round takes a quarter of a second.
    fn default() -> Self {
        Self { columns: 3, rows: 2, overlap_px: 128, every_frames: 1 }
    }
}

impl SliceSettings {
    /// For a thread of low priority: the whole picture at once, every fourth frame. The system takes the processor away
    /// from it wherever it stands, so that small slices spare nobody; one large slice is half the work of a round of small
    /// ones (no overlap, no half picture) and waits for one hand-over instead of seven.
    pub fn background() -> Self {
        Self { columns: 1, rows: 1, overlap_px: 0, every_frames: 4 }
    }
}

/// Pixels of one slice, on their way to a search.
#[derive(Debug, Default)]
pub(super) struct Cutout {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    /// Frame pixel = corner + scale · cutout pixel.
    corner: [f64; 2],
    scale: f64,
}

impl Cutout {
    pub(super) fn reserve(&mut self, pixels: usize) {
        self.pixels.reserve(pixels);
    }
}

/// Which slice comes next.
#[derive(Debug, Clone)]
pub(super) struct SlicePlan {
    grid: WindowGrid,
    tiles: Vec<Window>,
    /// Index into the tiles; one past them is the half picture, where there are several.
    next: usize,
    /// Tile to search out of turn.
    urgent: Option<usize>,
}

impl SlicePlan {
    pub(super) fn new(
        settings: &SliceSettings,
        detector: &DetectorSettings,
        width: usize,
        height: usize,
    ) -> Result<Self, VisionError> {
        crate::image::check_size(width, height)?;
        for (name, value, side) in [("slice columns", settings.columns, width), ("slice rows", settings.rows, height)] {
            let requirement = "must be at least 1 and leave tiles of 64 px and more than the overlap";
            if value == 0 || side / value < 64 || settings.overlap_px * 2 > side {
                return Err(VisionError::DetectorSetting { name, value: value as f64, requirement });
            }
        }
        if settings.every_frames == 0 {
            let (name, value) = ("slice every_frames", 0.0);
            return Err(VisionError::DetectorSetting { name, value, requirement: "must be at least 1" });
        }
        let grid = WindowGrid::new(detector, width, height);
        let tiles = grid.tiles(settings.columns, settings.rows, settings.overlap_px).collect();
        Ok(Self { grid, tiles, next: 0, urgent: None })
    }

    pub(super) fn slices(&self) -> usize {
        // One tile is the whole picture: nothing is too large for it.
        self.tiles.len() + usize::from(self.tiles.len() > 1)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// Puts the tile around `pixel` before all others, once.
    pub(super) fn hurry_to(&mut self, pixel: [f64; 2]) {
        let centre_distance = |tile: &Window| {
            let x = (tile.left + tile.right) as f64 / 2.0 - pixel[0];
            let y = (tile.top + tile.bottom) as f64 / 2.0 - pixel[1];
            (x / tile.width() as f64).abs().max((y / tile.height() as f64).abs())
        };
        let nearest = (0..self.tiles.len())
            .min_by(|&a, &b| centre_distance(&self.tiles[a]).total_cmp(&centre_distance(&self.tiles[b])));
        self.urgent = nearest;
    }

    /// Copies the next slice out of `frame`.
    pub(super) fn cut_next(&mut self, frame: &GreyView<'_>, cutout: &mut Cutout) -> Result<(), VisionError> {
        if (frame.width(), frame.height()) != self.grid.frame_size() {
            let (width, height) = (frame.width(), frame.height());
            return Err(VisionError::PixelBuffer { width, height, stride: frame.stride(), len: frame.pixels().len() });
        }
        let index = self.urgent.take().unwrap_or_else(|| {
            let index = self.next;
            self.next = (self.next + 1) % self.slices();
            index
        });
        match self.tiles.get(index) {
            Some(tile) => {
                tile.cut(frame, &mut cutout.pixels);
                (cutout.width, cutout.height) = (tile.width(), tile.height());
                cutout.corner = [tile.left as f64, tile.top as f64];
                cutout.scale = 1.0;
            }
            None => halve(frame, cutout),
        }
        Ok(())
    }
}

/// Mean of every 2 × 2 px.
fn halve(frame: &GreyView<'_>, cutout: &mut Cutout) {
    (cutout.width, cutout.height) = (frame.width() / 2, frame.height() / 2);
    cutout.corner = [0.0; 2];
    cutout.scale = 2.0;
    cutout.pixels.clear();
    for y in 0..cutout.height {
        let (upper, lower) = (frame.row(2 * y), frame.row(2 * y + 1));
        let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        let mean = pairs.map(|(a, b)| ((a[0] as u16 + a[1] as u16 + b[0] as u16 + b[1] as u16 + 2) / 4) as u8);
        cutout.pixels.extend(mean);
    }
}

/// Searches cutouts.
#[derive(Debug)]
pub(super) struct SliceSearcher {
    detector: Detector,
}

impl SliceSearcher {
    /// The slices' own detector: as `settings`, but with one thread and without decimation (the half picture is that).
    pub(super) fn new(settings: &DetectorSettings) -> Result<Self, VisionError> {
        let settings = DetectorSettings { threads: 1, quad_decimate: 1.0, ..*settings };
        Ok(Self { detector: Detector::new(settings)? })
    }

    /// What is in `cutout`, in pixels of the frame it was cut from.
    pub(super) fn search(&mut self, cutout: &Cutout, found: &mut Vec<TagDetection>) -> Result<(), VisionError> {
        found.clear();
        if cutout.width < crate::image::MIN_SIDE_PX || cutout.height < crate::image::MIN_SIDE_PX {
            return Ok(());
        }
        let view = GreyView::new(cutout.width, cutout.height, cutout.width, &cutout.pixels)?;
        self.detector.detect_into(view, found)?;
        for tag in found {
            for pixel in tag.corners_px.iter_mut().chain([&mut tag.centre_px]) {
                for axis in 0..2 {
                    pixel[axis] = cutout.corner[axis] + cutout.scale * pixel[axis];
                }
            }
        }
        Ok(())
    }
}

/// The search in slices on the caller's own thread.
#[derive(Debug)]
pub struct SliceSearch {
    plan: SlicePlan,
    searcher: SliceSearcher,
    cutout: Cutout,
    found: Vec<TagDetection>,
}

impl SliceSearch {
    /// For frames of `width` × `height` px.
    pub fn new(
        settings: &SliceSettings,
        detector: &DetectorSettings,
        width: usize,
        height: usize,
    ) -> Result<Self, VisionError> {
        Ok(Self {
            plan: SlicePlan::new(settings, detector, width, height)?,
            searcher: SliceSearcher::new(detector)?,
            cutout: Cutout::default(),
            found: Vec::new(),
        })
    }

    /// Slices of a round.
    pub fn slices(&self) -> usize {
        self.plan.slices()
    }

    /// Puts the slice around `pixel` before all others, once.
    pub fn hurry_to(&mut self, pixel: [f64; 2]) {
        self.plan.hurry_to(pixel);
    }

    /// Searches the next slice of `frame`. Hand the result to [`super::Tracker::offer`].
    pub fn next_slice(&mut self, frame: GreyView<'_>) -> Result<&[TagDetection], VisionError> {
        self.plan.cut_next(&frame, &mut self.cutout)?;
        self.searcher.search(&self.cutout, &mut self.found)?;
        Ok(&self.found)
    }
}
