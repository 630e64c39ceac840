//! From the formats that cameras send to grey and RGB. Only copies and integer arithmetic into memory that is there.
//!
//! Grey is the luma as sent. UVC cameras send the limited range (black 16, white 235), so it has 0.86 of the contrast of
//! grey made from RGB; tag corners do not depend on that.

use super::error::SourceError;
use super::frame::{Colour, ColourFormat};
use crate::GreyImage;

/// A format that a driver may deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Eight bits of grey.
    Grey,
    /// Packed 4:2:2, Y0 U Y1 V: the colour stream of RealSense D4xx.
    Yuyv,
    /// A luma plane, then interleaved U V at half the resolution.
    Nv12,
    /// One JPEG a frame.
    Mjpeg,
}

impl PixelFormat {
    pub const ALL: [Self; 4] = [Self::Grey, Self::Yuyv, Self::Nv12, Self::Mjpeg];

    /// The four characters that V4L2 names it by, little-endian.
    pub const fn fourcc(self) -> u32 {
        u32::from_le_bytes(match self {
            Self::Grey => *b"GREY",
            Self::Yuyv => *b"YUYV",
            Self::Nv12 => *b"NV12",
            Self::Mjpeg => *b"MJPG",
        })
    }

    /// Least bytes a row may have, or `None` for compressed frames.
    pub const fn row_bytes(self, width: usize) -> Option<usize> {
        match self {
            Self::Grey | Self::Nv12 => Some(width),
            Self::Yuyv => Some(width * 2),
            Self::Mjpeg => None,
        }
    }
}

/// A frame as the driver hands it out.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame<'a> {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    /// From one row to the next; of no meaning for MJPEG.
    pub stride_bytes: usize,
    pub bytes: &'a [u8],
}

/// Fills grey and, if `keep_colour` and there is any, colour. `place` is for messages.
///
/// Allocates only when a buffer grows, except for MJPEG, whose decoder has memory of its own for each frame.
pub fn unpack(
    raw: &RawFrame<'_>,
    keep_colour: bool,
    grey: &mut GreyImage,
    colour: &mut Colour,
    place: &str,
) -> Result<(), SourceError> {
    let RawFrame { format, width, height, stride_bytes: stride, bytes } = *raw;
    grey.resize(width, height);
    if format == PixelFormat::Mjpeg {
        return unpack_jpeg(bytes, keep_colour, grey, colour, place);
    }
    let row_bytes = format.row_bytes(width).unwrap_or(0);
    let rows = if format == PixelFormat::Nv12 { height + height.div_ceil(2) } else { height };
    let odd = width % 2 == 1 && matches!(format, PixelFormat::Yuyv | PixelFormat::Nv12);
    // The last row need not have its padding.
    let needed = stride.checked_mul(rows.saturating_sub(1)).and_then(|n| n.checked_add(row_bytes));
    if width == 0 || rows == 0 || odd || stride < row_bytes || needed.is_none_or(|needed| bytes.len() < needed) {
        let message = format!("{} bytes are no {format:?} frame of {width}x{height} px, {stride} a row", bytes.len());
        return Err(SourceError::damaged(place, message));
    }
    let row = |y: usize| &bytes[y * stride..][..row_bytes];
    for (y, out) in grey.pixels_mut().chunks_exact_mut(width).enumerate() {
        match format {
            PixelFormat::Yuyv => {
                for (luma, pair) in out.iter_mut().zip(row(y).chunks_exact(2)) {
                    *luma = pair[0];
                }
            }
            _ => out.copy_from_slice(row(y)),
        }
    }
    match format {
        PixelFormat::Yuyv if keep_colour => {
            let out = colour.prepare(ColourFormat::Yuyv, width, height);
            for (y, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                out.copy_from_slice(row(y));
            }
        }
        PixelFormat::Nv12 if keep_colour => {
            let out = colour.prepare(ColourFormat::Rgb8, width, height);
            for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
                let (luma, chroma) = (row(y), row(height + y / 2));
                for (x, out) in out.chunks_exact_mut(3).enumerate() {
                    out.copy_from_slice(&rgb_of_yuv(luma[x], chroma[x / 2 * 2], chroma[x / 2 * 2 + 1]));
                }
            }
        }
        _ => colour.clear(),
    }
    Ok(())
}

fn unpack_jpeg(
    bytes: &[u8],
    keep_colour: bool,
    grey: &mut GreyImage,
    colour: &mut Colour,
    place: &str,
) -> Result<(), SourceError> {
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;

    let (width, height) = (grey.width(), grey.height());
    let damaged = |reason: String| SourceError::damaged(place, format!("a JPEG frame is damaged ({reason})"));
    // Drivers pad frames; but a JPEG without an end was cut, and the decoder would fill up with grey.
    if bytes.windows(2).rposition(|pair| pair == [0xFF, 0xD9]).is_none() {
        return Err(damaged("no end marker".to_owned()));
    }
    let wanted = if keep_colour { ColorSpace::RGB } else { ColorSpace::Luma };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width)
        .set_max_height(height)
        .jpeg_set_out_colorspace(wanted);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| damaged(error.to_string()))?;
    let found = decoder.dimensions().unwrap_or_default();
    if found != (width, height) {
        return Err(damaged(format!("{}x{} px instead of {width}x{height}", found.0, found.1)));
    }
    // Grey JPEGs stay grey whatever was asked for, so the decoder's own answer decides.
    let is_colour = decoder.output_buffer_size() == Some(width * height * 3);
    if is_colour {
        let rgb = colour.prepare(ColourFormat::Rgb8, width, height);
        decoder.decode_into(rgb).map_err(|error| damaged(error.to_string()))?;
        rgb8_to_grey(rgb, grey.pixels_mut());
    } else {
        colour.clear();
        decoder.decode_into(grey.pixels_mut()).map_err(|error| damaged(error.to_string()))?;
    }
    Ok(())
}

/// Luma with the BT.601 weights, as in [`GreyImage::from_rgb8`], into memory that is there.
pub fn rgb8_to_grey(rgb: &[u8], grey: &mut [u8]) {
    for (out, p) in grey.iter_mut().zip(rgb.chunks_exact(3)) {
        let luma = u32::from(p[0]) * 4899 + u32::from(p[1]) * 9617 + u32::from(p[2]) * 1868;
        *out = ((luma + (1 << 13)) >> 14) as u8;
    }
}

/// `rgb`: one and a half times as long as `yuyv`.
pub fn yuyv_to_rgb8(yuyv: &[u8], rgb: &mut [u8]) {
    for (out, p) in rgb.chunks_exact_mut(6).zip(yuyv.chunks_exact(4)) {
        out[..3].copy_from_slice(&rgb_of_yuv(p[0], p[1], p[3]));
        out[3..].copy_from_slice(&rgb_of_yuv(p[2], p[1], p[3]));
    }
}

/// ITU-R BT.601, limited range, in 8-bit fractions.
pub fn rgb_of_yuv(y: u8, u: u8, v: u8) -> [u8; 3] {
    let (y, u, v) = (298 * (i32::from(y) - 16), i32::from(u) - 128, i32::from(v) - 128);
    let level = |value: i32| ((value + 128) >> 8).clamp(0, 255) as u8;
    [level(y + 409 * v), level(y - 100 * u - 208 * v), level(y + 516 * u)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(raw: RawFrame<'_>, keep_colour: bool) -> Result<(GreyImage, Colour), SourceError> {
        let (mut grey, mut colour) = (GreyImage::filled(1, 1, 0), Colour::default());
        unpack(&raw, keep_colour, &mut grey, &mut colour, "test")?;
        Ok((grey, colour))
    }

    #[test]
    fn yuyv_rows_with_padding_give_luma_and_colour_without_it() {
        let bytes = [10, 1, 20, 2, 99, 99, 30, 3, 40, 4];
        let raw = RawFrame { format: PixelFormat::Yuyv, width: 2, height: 2, stride_bytes: 6, bytes: &bytes };
        let (grey, colour) = unpacked(raw, true).unwrap();
        assert_eq!(grey.pixels(), [10, 20, 30, 40]);
        assert_eq!(colour.pixels(), [10, 1, 20, 2, 30, 3, 40, 4]);
        assert_eq!(unpacked(raw, false).unwrap().1.format(), None);
    }

    #[test]
    fn grey_and_nv12_give_their_luma_plane() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 128, 128, 128, 128];
        let raw = RawFrame { format: PixelFormat::Grey, width: 4, height: 2, stride_bytes: 4, bytes: &bytes };
        assert_eq!(unpacked(raw, true).unwrap().0.pixels(), &bytes[..8]);
        let raw = RawFrame { format: PixelFormat::Nv12, ..raw };
        let (grey, colour) = unpacked(raw, true).unwrap();
        assert_eq!(grey.pixels(), &bytes[..8]);
        assert_eq!(colour.format(), Some(ColourFormat::Rgb8));
        assert!(colour.pixels().chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]), "grey chroma gives grey");
    }

    #[test]
    fn what_is_too_short_for_its_size_is_an_error() {
        for format in PixelFormat::ALL {
            for len in 0..32 {
                let bytes = vec![7; len];
                let raw = RawFrame { format, width: 4, height: 4, stride_bytes: 8, bytes: &bytes };
                let enough = format == PixelFormat::Grey && len >= 28;
                assert_eq!(unpacked(raw, true).is_ok(), enough, "{format:?} {len}");
            }
        }
        let raw = RawFrame { format: PixelFormat::Yuyv, width: 3, height: 1, stride_bytes: 6, bytes: &[0; 6] };
        assert!(unpacked(raw, true).is_err(), "an odd width has no pairs");
        let raw = RawFrame { stride_bytes: usize::MAX, width: 2, height: 9, ..raw };
        assert!(unpacked(raw, true).is_err());
    }

    #[test]
    fn primaries_of_bt601_come_out_within_two_levels() {
        // Y'CbCr of 8-bit limited-range BT.601 for white, black, red, green, blue.
        let table = [
            ([235, 128, 128], [255, 255, 255]),
            ([16, 128, 128], [0, 0, 0]),
            ([81, 90, 240], [255, 0, 0]),
            ([145, 54, 34], [0, 255, 0]),
            ([41, 240, 110], [0, 0, 255]),
        ];
        for ([y, u, v], rgb) in table {
            let found = rgb_of_yuv(y, u, v);
            assert!(
                found.iter().zip(rgb).all(|(&a, b): (&u8, i32)| (i32::from(a) - b).abs() <= 2),
                "{found:?} {rgb:?}"
            );
        }
    }

    fn jpeg() -> Vec<u8> {
        let picture = image::RgbImage::from_fn(48, 32, |x, y| image::Rgb([x as u8 * 5, y as u8 * 7, 90]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::DynamicImage::ImageRgb8(picture).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_jpeg_frame_gives_the_same_grey_with_and_without_colour() {
        let mut bytes = jpeg();
        bytes.extend([0; 16]);
        let raw = RawFrame { format: PixelFormat::Mjpeg, width: 48, height: 32, stride_bytes: 0, bytes: &bytes };
        let (with, colour) = unpacked(raw, true).unwrap();
        let (without, _) = unpacked(raw, false).unwrap();
        assert_eq!(colour.format(), Some(ColourFormat::Rgb8));
        let worst = with.pixels().iter().zip(without.pixels()).map(|(&a, &b)| a.abs_diff(b)).max().unwrap();
        assert!(worst <= 2, "{worst}");
        assert!(with.pixels()[47].abs_diff(with.pixels()[0]) > 40, "the ramp is there");
        assert!(unpacked(RawFrame { width: 64, ..raw }, true).is_err(), "another size");
    }

    #[test]
    fn damaged_jpeg_frames_never_panic_and_cut_ones_are_errors() {
        let bytes = jpeg();
        let raw = RawFrame { format: PixelFormat::Mjpeg, width: 48, height: 32, stride_bytes: 0, bytes: &bytes };
        for cut in 0..bytes.len() - 1 {
            assert!(unpacked(RawFrame { bytes: &bytes[..cut], ..raw }, cut % 2 == 0).is_err(), "{cut}");
        }
        for place in 0..bytes.len() {
            for bit in [0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[place] ^= bit;
                let _ = unpacked(RawFrame { bytes: &damaged, ..raw }, true);
            }
        }
    }
}
