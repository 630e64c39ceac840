//! AprilTag 3 detection through the C library (Wang and Olson 2016; settings of perception.md section 4).
//!
//! The library is called with borrowed pixels and its results are copied into a caller's buffer, so that a stream of
//! frames needs no allocation on this side.
//!
//! In a real picture sensor noise alone passes the library's own limit for contrast (5 grey levels within 12 × 12 px), and
//! most of a search goes into fitting quadrilaterals to noise. Where detections below a decision margin are dropped anyway,
//! that margin gives a limit that noise does not pass ([`DetectorSettings::least_contrast`]); the library then spares what
//! is flatter.

use crate::image::check_size;
use crate::{GreyImage, GreyView, VisionError};
use apriltag_sys as sys;
use std::ptr::NonNull;

/// A detected tag. Pixels as in the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagDetection {
    pub id: u32,
    /// Bit errors corrected while decoding.
    pub hamming: u32,
    /// Mean contrast between data bits and the decision threshold, grey levels; below about 30 a decode is doubtful.
    pub decision_margin: f32,
    /// Where the tag's diagonals meet, px.
    pub centre_px: [f64; 2],
    /// Outer corners of the black border, px, in the library's order: seen upright as printed, lower left, lower right,
    /// upper right, upper left. [`crate::pose::corners_in_tag`] gives the same corners in the tag frame.
    pub corners_px: [[f64; 2]; 4],
}

impl TagDetection {
    /// Length of the shortest edge, px.
    pub fn shortest_edge_px(&self) -> f64 {
        let c = &self.corners_px;
        (0..4).map(|i| (c[i][0] - c[(i + 1) % 4][0]).hypot(c[i][1] - c[(i + 1) % 4][1])).fold(f64::INFINITY, f64::min)
    }

    fn is_finite(&self) -> bool {
        let corners_finite = self.corners_px.iter().flatten().all(|v| v.is_finite());
        corners_finite && self.centre_px.iter().all(|v| v.is_finite())
    }
}

/// Tag families this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Family {
    /// What FurnitureBench prints: 587 tags, 10 cells a side with the white margin, 8 within the black border.
    #[serde(rename = "tag36h11")]
    Tag36h11,
    #[serde(rename = "tag25h9")]
    Tag25h9,
    #[serde(rename = "tagStandard41h12")]
    TagStandard41h12,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag36h11 => "tag36h11",
            Self::Tag25h9 => "tag25h9",
            Self::TagStandard41h12 => "tagStandard41h12",
        }
    }

    /// Cells along the edge that a tag's size is measured on (the outer edge of the border).
    pub fn cells_within_border(self) -> usize {
        match self {
            Self::Tag36h11 => 8,
            Self::Tag25h9 => 7,
            Self::TagStandard41h12 => 5,
        }
    }

    /// The tag's cells as printed: one pixel a cell, 0 black and 255 white, row 0 on top, white margin included.
    pub fn bitmap(self, id: u32) -> Result<GreyImage, VisionError> {
        let family = FamilyHandle::new(self)?;
        // SAFETY: the handle holds a valid family.
        let count = unsafe { (*family.ptr.as_ptr()).ncodes };
        if id >= count {
            let (family, last) = (self.name(), count.saturating_sub(1));
            return Err(VisionError::UnknownTagId { id, family, last });
        }
        // SAFETY: family valid, id below ncodes (the library asserts it); the image is the library's, freed below.
        unsafe {
            let raw = sys::apriltag_to_image(family.ptr.as_ptr(), id as i32);
            if raw.is_null() {
                return Err(VisionError::DetectorCreate);
            }
            let (width, height) = ((*raw).width as usize, (*raw).height as usize);
            let stride = (*raw).stride as usize;
            let mut out = GreyImage::filled(width, height, 0);
            for y in 0..height {
                let row = std::slice::from_raw_parts((*raw).buf.add(y * stride), width);
                out.pixels_mut()[y * width..][..width].copy_from_slice(row);
            }
            sys::image_u8_destroy(raw);
            Ok(out)
        }
    }
}

/// Settings of the detector; [`Default`] is perception.md section 4, column \[FB\].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorSettings {
    pub family: Family,
    /// Threads of the library's own pool.
    pub threads: usize,
    /// Search for quads on a picture this many times smaller: 1, 1.5 or a whole number.
    pub quad_decimate: f32,
    /// Gaussian blur before the search, px; negative sharpens.
    pub quad_sigma: f32,
    /// Snap edges to nearby gradients.
    pub refine_edges: bool,
    /// Sharpening before bits are read; helps small tags.
    pub decode_sharpening: f64,
    /// Largest number of corrected bit errors, at most 2 (the library's table for 3 takes more than a gigabyte).
    pub max_hamming: u32,
    /// Detections below this decision margin are dropped.
    pub min_decision_margin: f32,
    /// Detections with an edge shorter than this are dropped, px.
    pub min_edge_px: f64,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            family: Family::Tag36h11,
            threads: 1,
            quad_decimate: 1.0,
            quad_sigma: 0.0,
            refine_edges: true,
            decode_sharpening: 0.25,
            max_hamming: 1,
            min_decision_margin: 0.0,
            min_edge_px: 0.0,
        }
    }
}

/// The library's own limit: where the grey levels within 12 × 12 px differ by less, it looks for no edges.
const LIBRARY_LEAST_CONTRAST: u8 = 5;

impl DetectorSettings {
    /// Differences of grey levels below which the search for edges may be spared: no tag with less contrast reaches
    /// `min_decision_margin`.
    ///
    /// A bit's margin is half the contrast of white and black, raised by sharpening at most 1 + 8 s times (s:
    /// `decode_sharpening`, for a bit whose four neighbours are all of the other colour; at the mean of all bits, which is
    /// what counts, it is far less). A blur or a sharpening before the search would change the contrast it sees: then, and
    /// without a margin, it is the library's own 5.
    pub fn least_contrast(&self) -> u8 {
        let sharpened = 1.0 + 8.0 * self.decode_sharpening;
        let contrast = 2.0 * f64::from(self.min_decision_margin) / sharpened;
        // Decimation by a whole number takes pixels as they are; by 1.5 it blurs a little.
        let applies = self.quad_sigma == 0.0 && self.quad_decimate.fract() == 0.0;
        let contrast = if applies { contrast } else { 0.0 };
        contrast.clamp(f64::from(LIBRARY_LEAST_CONTRAST), 128.0) as u8
    }

    fn check(&self) -> Result<(), VisionError> {
        let sigma = self.quad_sigma as f64;
        let decimate = self.quad_decimate as f64;
        let decimate_ok = decimate == 1.5 || (decimate.fract() == 0.0 && (1.0..=8.0).contains(&decimate));
        let margin = self.min_decision_margin as f64;
        let checks = [
            ("threads", self.threads as f64, (1..=64).contains(&self.threads), "must be 1 to 64"),
            ("quad_decimate", decimate, decimate_ok, "must be 1.5 or a whole number from 1 to 8"),
            ("quad_sigma", sigma, sigma.abs() <= 10.0, "must lie within -10 and 10 px"),
            (
                "decode_sharpening",
                self.decode_sharpening,
                (0.0..=10.0).contains(&self.decode_sharpening),
                "must lie within 0 and 10",
            ),
            ("max_hamming", self.max_hamming as f64, self.max_hamming <= 2, "must be 0 to 2"),
            ("min_decision_margin", margin, margin.is_finite(), "must be finite"),
            ("min_edge_px", self.min_edge_px, self.min_edge_px.is_finite(), "must be finite"),
        ];
        match checks.into_iter().find(|check| !check.2) {
            None => Ok(()),
            Some((name, value, _, requirement)) => Err(VisionError::DetectorSetting { name, value, requirement }),
        }
    }
}

/// What the last search went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchStats {
    /// Quadrilaterals tried as tags.
    pub quads: usize,
    /// Decoded tags dropped by `max_hamming`, `min_decision_margin` or `min_edge_px`.
    pub dropped: usize,
}

/// Finds tags in grey pictures. One detector serves one thread.
#[derive(Debug)]
pub struct Detector {
    // Fields drop in this order: the C detector lets go of the family's decoding table before the family is freed.
    raw: RawDetector,
    _family: FamilyHandle,
    settings: DetectorSettings,
    stats: SearchStats,
    /// Copy of the picture where the library would blur it in place.
    scratch: Vec<u8>,
}

// SAFETY: the C detector owns all it points to and has no thread affinity; `&mut self` keeps calls apart.
unsafe impl Send for Detector {}

impl Detector {
    pub fn new(settings: DetectorSettings) -> Result<Self, VisionError> {
        Self::with_least_contrast(settings, settings.least_contrast())
    }

    /// The library used plainly: nothing is spared because of the decision margin. It finds the same and takes longer; this
    /// is what measurements compare with.
    pub fn plain(settings: DetectorSettings) -> Result<Self, VisionError> {
        Self::with_least_contrast(settings, LIBRARY_LEAST_CONTRAST)
    }

    fn with_least_contrast(settings: DetectorSettings, least_contrast: u8) -> Result<Self, VisionError> {
        settings.check()?;
        let family = FamilyHandle::new(settings.family)?;
        let raw = RawDetector::new()?;
        // SAFETY: both handles are valid; the family outlives the detector (field order).
        unsafe {
            let detector = raw.0.as_ptr();
            sys::apriltag_detector_add_family_bits(detector, family.ptr.as_ptr(), settings.max_hamming as i32);
            (*detector).nthreads = settings.threads as i32;
            (*detector).quad_decimate = settings.quad_decimate;
            (*detector).quad_sigma = settings.quad_sigma;
            (*detector).refine_edges = settings.refine_edges as i32;
            (*detector).decode_sharpening = settings.decode_sharpening;
            (*detector).qtp.min_white_black_diff = i32::from(least_contrast);
            (*detector).debug = 0;
        }
        Ok(Self { raw, _family: family, settings, stats: SearchStats::default(), scratch: Vec::new() })
    }

    pub fn settings(&self) -> &DetectorSettings {
        &self.settings
    }

    pub fn last_search(&self) -> SearchStats {
        self.stats
    }

    /// All tags in `image`, ordered by id, then from top to bottom. An id may occur more than once.
    pub fn detect(&mut self, image: GreyView<'_>) -> Result<Vec<TagDetection>, VisionError> {
        let mut found = Vec::new();
        self.detect_into(image, &mut found)?;
        Ok(found)
    }

    /// As [`Self::detect`], into a buffer that is cleared first and can be reused.
    pub fn detect_into(&mut self, image: GreyView<'_>, found: &mut Vec<TagDetection>) -> Result<(), VisionError> {
        found.clear();
        self.stats = SearchStats::default();
        check_size(image.width(), image.height())?;
        let decimate = self.settings.quad_decimate as usize;
        check_size_after_decimation(&image, decimate)?;
        if image.stride().saturating_mul(image.height()) > i32::MAX as usize {
            return Err(VisionError::PixelBuffer {
                width: image.width(),
                height: image.height(),
                stride: image.stride(),
                len: image.pixels().len(),
            });
        }

        // The library blurs its input in place unless it has decimated it into a copy of its own.
        let blurs_input = self.settings.quad_sigma != 0.0 && self.settings.quad_decimate <= 1.0;
        let pixels = if blurs_input {
            self.scratch.clear();
            self.scratch.extend_from_slice(image.pixels());
            self.scratch.as_mut_ptr()
        } else {
            image.pixels().as_ptr().cast_mut()
        };
        let mut raw_image = sys::image_u8_t {
            width: image.width() as i32,
            height: image.height() as i32,
            stride: image.stride() as i32,
            buf: pixels,
        };
        // SAFETY: the view guarantees stride * height readable bytes, sizes are checked above, and the library only reads
        // them (or blurs the scratch copy). It returns a new array of pointers to detections, which we free as a whole.
        unsafe {
            let detector = self.raw.0.as_ptr();
            let list = sys::apriltag_detector_detect(detector, &mut raw_image);
            if list.is_null() {
                return Err(VisionError::DetectorCreate);
            }
            self.stats.quads = (*detector).nquads as usize;
            let entries = (*list).data.cast::<*const sys::apriltag_detection_t>();
            for i in 0..(*list).size as usize {
                let raw = &**entries.add(i);
                let tag = TagDetection {
                    id: raw.id as u32,
                    hamming: raw.hamming as u32,
                    decision_margin: raw.decision_margin,
                    centre_px: raw.c,
                    corners_px: raw.p,
                };
                if self.accepts(&tag) {
                    found.push(tag);
                } else {
                    self.stats.dropped += 1;
                }
            }
            sys::apriltag_detections_destroy(list);
        }
        // Threads of the library's pool may deliver equal ids in any order; ours does not depend on that.
        found.sort_unstable_by(|a, b| {
            let by_id = a.id.cmp(&b.id);
            let by_row = a.centre_px[1].total_cmp(&b.centre_px[1]);
            by_id.then(by_row).then(a.centre_px[0].total_cmp(&b.centre_px[0]))
        });
        Ok(())
    }

    fn accepts(&self, tag: &TagDetection) -> bool {
        let settings = &self.settings;
        tag.is_finite()
            && tag.hamming <= settings.max_hamming
            && tag.decision_margin >= settings.min_decision_margin
            && tag.shortest_edge_px() >= settings.min_edge_px
    }
}

/// The quad search itself needs a few tiles of four pixels.
fn check_size_after_decimation(image: &GreyView<'_>, decimate: usize) -> Result<(), VisionError> {
    let shortest = image.width().min(image.height()) / decimate.max(1);
    if shortest >= 16 {
        return Ok(());
    }
    Err(VisionError::DetectorSetting {
        name: "quad_decimate",
        value: decimate as f64,
        requirement: "leaves less than 16 px of the picture's shorter side; use 1",
    })
}

#[derive(Debug)]
struct RawDetector(NonNull<sys::apriltag_detector_t>);

impl RawDetector {
    fn new() -> Result<Self, VisionError> {
        // SAFETY: no preconditions.
        let raw = unsafe { sys::apriltag_detector_create() };
        NonNull::new(raw).map(Self).ok_or(VisionError::DetectorCreate)
    }
}

impl Drop for RawDetector {
    fn drop(&mut self) {
        // SAFETY: created by apriltag_detector_create, destroyed once.
        unsafe { sys::apriltag_detector_destroy(self.0.as_ptr()) }
    }
}

#[derive(Debug)]
struct FamilyHandle {
    ptr: NonNull<sys::apriltag_family_t>,
    kind: Family,
}

impl FamilyHandle {
    fn new(kind: Family) -> Result<Self, VisionError> {
        // SAFETY: no preconditions.
        let raw = unsafe {
            match kind {
                Family::Tag36h11 => sys::tag36h11_create(),
                Family::Tag25h9 => sys::tag25h9_create(),
                Family::TagStandard41h12 => sys::tagStandard41h12_create(),
            }
        };
        let ptr = NonNull::new(raw).ok_or(VisionError::DetectorCreate)?;
        Ok(Self { ptr, kind })
    }
}

impl Drop for FamilyHandle {
    fn drop(&mut self) {
        // SAFETY: created by the matching function, destroyed once, after the detector that used it.
        unsafe {
            match self.kind {
                Family::Tag36h11 => sys::tag36h11_destroy(self.ptr.as_ptr()),
                Family::Tag25h9 => sys::tag25h9_destroy(self.ptr.as_ptr()),
                Family::TagStandard41h12 => sys::tagStandard41h12_destroy(self.ptr.as_ptr()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
