//! Grey images: eight bits a pixel, row-major, with a stride.

use crate::VisionError;

/// Smallest side the detector accepts, px. Below it the C library would index tiles that do not exist, and a tag with its
/// white margin needs at least two pixels for each of its ten cells anyway.
pub const MIN_SIDE_PX: usize = 32;
/// Largest side the detector accepts, px; the C library aborts the process at 32 768.
pub const MAX_SIDE_PX: usize = 16_384;
/// Largest area, px. The detector needs about twenty bytes of memory for each pixel.
pub const MAX_AREA_PX: usize = 64_000_000;

/// Says whether an image of this size may be handed to the detector.
pub fn check_size(width: usize, height: usize) -> Result<(), VisionError> {
    let side_ok = |side: usize| (MIN_SIDE_PX..=MAX_SIDE_PX).contains(&side);
    if side_ok(width) && side_ok(height) && width * height <= MAX_AREA_PX {
        return Ok(());
    }
    Err(VisionError::ImageSize {
        width,
        height,
        min: MIN_SIDE_PX,
        max: MAX_SIDE_PX,
        max_area_mpx: MAX_AREA_PX / 1_000_000,
    })
}

/// A borrowed grey picture, for instance a camera driver's buffer.
#[derive(Debug, Clone, Copy)]
pub struct GreyView<'a> {
    width: usize,
    height: usize,
    stride: usize,
    pixels: &'a [u8],
}

impl<'a> GreyView<'a> {
    /// `pixels`: row-major, rows `stride` bytes apart; bytes beyond `width` in a row are ignored.
    pub fn new(width: usize, height: usize, stride: usize, pixels: &'a [u8]) -> Result<Self, VisionError> {
        let needed = stride.checked_mul(height);
        if width == 0 || height == 0 || stride < width || needed.is_none_or(|needed| pixels.len() < needed) {
            return Err(VisionError::PixelBuffer { width, height, stride, len: pixels.len() });
        }
        Ok(Self { width, height, stride, pixels })
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All rows, `stride * height` bytes at least.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// Row `y` without its padding.
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.pixels[y * self.stride..][..self.width]
    }

    /// Grey levels below which 1 %, 50 % and 99 % of the pixels lie: how dark and how flat the picture is.
    pub fn percentiles_1_50_99(&self) -> [u8; 3] {
        let mut histogram = [0usize; 256];
        for y in 0..self.height {
            for &value in self.row(y) {
                histogram[value as usize] += 1;
            }
        }
        let total = self.width * self.height;
        [1, 50, 99].map(|percent| {
            let mut seen = 0;
            let level = histogram.iter().position(|&count| {
                seen += count;
                seen * 100 >= total * percent
            });
            level.unwrap_or(255) as u8
        })
    }
}

/// An owned grey picture without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GreyImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl GreyImage {
    /// A picture of one grey level.
    pub fn filled(width: usize, height: usize, level: u8) -> Self {
        Self { width, height, pixels: vec![level; width * height] }
    }

    /// Luma of an interleaved RGB8 picture with the BT.601 weights, rounded (what OpenCV's RGB2GRAY gives, which the
    /// benchmark feeds to the same detector).
    pub fn from_rgb8(width: usize, height: usize, rgb: &[u8]) -> Result<Self, VisionError> {
        if rgb.len() != width * height * 3 {
            return Err(VisionError::PixelBuffer { width, height, stride: width * 3, len: rgb.len() });
        }
        let pixels = rgb
            .chunks_exact(3)
            .map(|p| {
                // 0.299, 0.587, 0.114 as 14-bit fractions.
                let luma = p[0] as u32 * 4899 + p[1] as u32 * 9617 + p[2] as u32 * 1868;
                ((luma + (1 << 13)) >> 14) as u8
            })
            .collect();
        Ok(Self { width, height, pixels })
    }

    pub fn view(&self) -> GreyView<'_> {
        GreyView { width: self.width, height: self.height, stride: self.width, pixels: &self.pixels }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Row-major, `width * height` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Row-major, `width * height` bytes.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Takes another size in the memory it has, where that suffices; the pixels are the caller's to fill.
    pub fn resize(&mut self, width: usize, height: usize) {
        self.pixels.resize(width * height, 0);
        (self.width, self.height) = (width, height);
    }

    /// The picture as seen in a mirror (left and right exchanged).
    pub fn mirrored(&self) -> Self {
        let mut out = self.clone();
        for row in out.pixels.chunks_exact_mut(self.width) {
            row.reverse();
        }
        out
    }

    /// Twice the size in both directions, bilinear.
    pub fn doubled(&self) -> Self {
        let (w, h) = (self.width, self.height);
        let mut out = Self::filled(2 * w, 2 * h, 0);
        // Each new sample lies a quarter of an old pixel off an old centre: weights 3/4 and 1/4 per axis.
        let neighbour =
            |i: usize, n: usize| if i.is_multiple_of(2) { (i / 2).saturating_sub(1) } else { (i / 2 + 1).min(n - 1) };
        for y in 0..2 * h {
            let (near_y, far_y) = (y / 2, neighbour(y, h));
            for x in 0..2 * w {
                let (near_x, far_x) = (x / 2, neighbour(x, w));
                let at = |x: usize, y: usize| self.pixels[y * w + x] as u32;
                let sum = 9 * at(near_x, near_y) + 3 * at(far_x, near_y) + 3 * at(near_x, far_y) + at(far_x, far_y);
                out.pixels[y * 2 * w + x] = ((sum + 8) / 16) as u8;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_its_buffer_does_not_hold_is_refused() {
        assert!(GreyView::new(4, 4, 4, &[0; 16]).is_ok());
        assert!(GreyView::new(4, 4, 3, &[0; 16]).is_err());
        assert!(GreyView::new(4, 4, 5, &[0; 16]).is_err());
        assert!(GreyView::new(0, 4, 4, &[0; 16]).is_err());
        assert!(GreyView::new(4, usize::MAX, 4, &[0; 16]).is_err());
    }

    #[test]
    fn grey_is_bt601_luma() {
        let image = GreyImage::from_rgb8(4, 1, &[255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255]).unwrap();
        assert_eq!(image.pixels(), &[255, 76, 150, 29]);
        assert!(GreyImage::from_rgb8(2, 2, &[0; 11]).is_err());
    }

    #[test]
    fn doubling_and_mirroring_keep_a_flat_picture_and_move_a_dot_to_its_place() {
        assert_eq!(GreyImage::filled(5, 3, 77).doubled(), GreyImage::filled(10, 6, 77));
        let mut dot = GreyImage::filled(4, 2, 0);
        dot.pixels_mut()[0] = 160;
        assert_eq!(dot.mirrored().pixels()[3], 160);
        // The corner dot keeps its full value in the outermost new pixel: its neighbours there are itself.
        assert_eq!(dot.doubled().pixels()[0], 160);
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let mut ramp = GreyImage::filled(100, 1, 0);
        for (i, p) in ramp.pixels_mut().iter_mut().enumerate() {
            *p = i as u8;
        }
        assert_eq!(ramp.view().percentiles_1_50_99(), [0, 49, 98]);
    }
}
