//! Finds square markers of any code through the AprilTag library: quads are its own, the codes are ours.
//!
//! The library turns a code by a quarter by rotating its bits by a quarter of their number, so cells must be listed in that
//! order: one cell of each orbit under quarter turns, then the same cells turned clockwise, and so on; a centre cell last.

use super::{BoardError, MarkerPlace};
use apriltag_sys as sys;
use std::ptr::NonNull;
use tenon_vision::GreyView;

/// A decoded marker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FoundMarker {
    /// Index into the places given to [`MarkerDetector::new`].
    pub index: usize,
    /// As printed: upper left, upper right, lower right, lower left, px.
    pub corners_px: [[f64; 2]; 4],
}

/// Detector of the markers of one board. Fields drop in this order: the C detector lets go of the family's decoding table
/// before the family is freed.
#[derive(Debug)]
pub(super) struct MarkerDetector {
    raw: RawDetector,
    _family: Box<OwnedFamily>,
}

// SAFETY: the C detector and the family own all they point to and have no thread affinity; `&mut self` keeps calls apart.
unsafe impl Send for MarkerDetector {}

impl MarkerDetector {
    /// `places`: markers of one dictionary and one border width. `correctable_bits`: 0 to 2.
    pub fn new(places: &[MarkerPlace], correctable_bits: i32) -> Result<Self, BoardError> {
        let first = places.first().ok_or(BoardError::DetectorCreate)?;
        let mut family = OwnedFamily::new(first.bits.cells, first.border_cells, places);
        // SAFETY: no preconditions.
        let raw = NonNull::new(unsafe { sys::apriltag_detector_create() }).map(RawDetector);
        let raw = raw.ok_or(BoardError::DetectorCreate)?;
        // SAFETY: both are valid, and the family's box outlives the detector (field order) and never moves.
        unsafe {
            let detector = raw.0.as_ptr();
            sys::apriltag_detector_add_family_bits(detector, &mut family.raw, correctable_bits.clamp(0, 2));
            (*detector).nthreads = 1;
            (*detector).quad_decimate = 1.0;
            (*detector).quad_sigma = 0.0;
            (*detector).refine_edges = 1;
            (*detector).debug = 0;
        }
        Ok(Self { raw, _family: family })
    }

    /// All markers in the picture, into a buffer that is cleared first; those seen twice are left out, since nobody knows
    /// which one is the board's.
    pub fn detect_into(&mut self, image: GreyView<'_>, found: &mut Vec<FoundMarker>) -> Result<(), BoardError> {
        found.clear();
        tenon_vision::image::check_size(image.width(), image.height())?;
        let too_long = image.stride().saturating_mul(image.height()) > i32::MAX as usize;
        if too_long {
            let (width, height, stride) = (image.width(), image.height(), image.stride());
            let len = image.pixels().len();
            return Err(tenon_vision::VisionError::PixelBuffer { width, height, stride, len }.into());
        }
        let mut raw_image = sys::image_u8_t {
            width: image.width() as i32,
            height: image.height() as i32,
            stride: image.stride() as i32,
            buf: image.pixels().as_ptr().cast_mut(),
        };
        // SAFETY: the view guarantees stride * height readable bytes, sizes are checked above, and without blur and
        // decimation the library only reads them. The list it returns holds pointers to detections; we free it whole.
        unsafe {
            let list = sys::apriltag_detector_detect(self.raw.0.as_ptr(), &mut raw_image);
            if list.is_null() {
                return Err(BoardError::DetectorCreate);
            }
            let entries = (*list).data.cast::<*const sys::apriltag_detection_t>();
            for i in 0..(*list).size as usize {
                let raw = &**entries.add(i);
                // The library's order is lower left, lower right, upper right, upper left.
                let p = raw.p;
                let corners_px = [p[3], p[2], p[1], p[0]];
                if corners_px.iter().flatten().all(|v| v.is_finite()) {
                    found.push(FoundMarker { index: raw.id as usize, corners_px });
                }
            }
            sys::apriltag_detections_destroy(list);
        }
        found.sort_unstable_by(|a, b| a.index.cmp(&b.index).then(a.corners_px[0][1].total_cmp(&b.corners_px[0][1])));
        let mut kept = 0;
        let mut start = 0;
        while start < found.len() {
            let end = start + found[start..].iter().take_while(|m| m.index == found[start].index).count();
            if end == start + 1 {
                found[kept] = found[start];
                kept += 1;
            }
            start = end;
        }
        found.truncate(kept);
        Ok(())
    }
}

#[derive(Debug)]
struct RawDetector(NonNull<sys::apriltag_detector_t>);

impl Drop for RawDetector {
    fn drop(&mut self) {
        // SAFETY: created by apriltag_detector_create, destroyed once. It frees the decoding tables of its families, not
        // the families.
        unsafe { sys::apriltag_detector_destroy(self.0.as_ptr()) }
    }
}

/// A family in our own memory.
#[derive(Debug)]
struct OwnedFamily {
    raw: sys::apriltag_family_t,
    _codes: Vec<u64>,
    _bit_x: Vec<u32>,
    _bit_y: Vec<u32>,
}

impl OwnedFamily {
    fn new(cells: usize, border_cells: usize, places: &[MarkerPlace]) -> Box<Self> {
        let order = cell_order(cells);
        let mut codes: Vec<u64> = places
            .iter()
            .map(|place| {
                let bit = |&(column, row): &(usize, usize)| u64::from(place.bits.is_white(column, row));
                order.iter().fold(0, |code, cell| code << 1 | bit(cell))
            })
            .collect();
        let mut bit_x: Vec<u32> = order.iter().map(|(column, _)| (column + border_cells) as u32).collect();
        let mut bit_y: Vec<u32> = order.iter().map(|(_, row)| (row + border_cells) as u32).collect();
        let width = (cells + 2 * border_cells) as i32;
        let raw = sys::apriltag_family_t {
            ncodes: codes.len() as u32,
            codes: codes.as_mut_ptr(),
            width_at_border: width,
            total_width: width + 2,
            reversed_border: false,
            nbits: order.len() as u32,
            bit_x: bit_x.as_mut_ptr(),
            bit_y: bit_y.as_mut_ptr(),
            h: 1,
            name: std::ptr::null_mut(),
            impl_: std::ptr::null_mut(),
        };
        Box::new(Self { raw, _codes: codes, _bit_x: bit_x, _bit_y: bit_y })
    }
}

/// Cells (column, row) in the order that makes a quarter turn a rotation of bits.
fn cell_order(cells: usize) -> Vec<(usize, usize)> {
    let quarter: Vec<(usize, usize)> =
        (0..cells / 2).flat_map(|ring| (ring..cells - 1 - ring).map(move |column| (column, ring))).collect();
    let mut order = Vec::with_capacity(cells * cells);
    let mut turned = quarter;
    for _ in 0..4 {
        order.extend_from_slice(&turned);
        for cell in &mut turned {
            *cell = (cells - 1 - cell.1, cell.0);
        }
    }
    if !cells.is_multiple_of(2) {
        order.push((cells / 2, cells / 2));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_cells_visits_each_once() {
        for cells in 4..=6 {
            let mut order = cell_order(cells);
            order.sort_unstable();
            order.dedup();
            assert_eq!(order.len(), cells * cells);
        }
    }
}
