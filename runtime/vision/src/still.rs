//! Still pictures from files (PNG and JPEG).

use crate::image::check_size;
use crate::{GreyImage, VisionError};
use image::{ImageReader, RgbImage};
use std::io::Cursor;
use std::path::Path;

/// Largest file that is read into memory, bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// A decoded picture, in colour for drawing and in grey for detection.
#[derive(Debug, Clone, PartialEq)]
pub struct StillImage {
    pub rgb: RgbImage,
    pub grey: GreyImage,
}

impl StillImage {
    /// Reads a PNG or JPEG file; the content decides which, not the name. EXIF rotation is not applied: intrinsics belong
    /// to the sensor's own rows and columns.
    pub fn load(path: &Path) -> Result<Self, VisionError> {
        let fail = |reason: String| VisionError::ReadImage { path: path.to_owned(), reason };
        let metadata = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
        if metadata.is_dir() {
            return Err(fail("it is a folder; name a picture in it".to_owned()));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(fail(format!("{} bytes is too large for a picture", metadata.len())));
        }
        if metadata.len() == 0 {
            return Err(fail("the file is empty".to_owned()));
        }
        let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        Self::decode(&bytes).map_err(|error| match error {
            DecodeError::Size(error) => fail(error.to_string()),
            DecodeError::Content(reason) => fail(reason),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let content = |error: image::ImageError| DecodeError::Content(format!("damaged or cut short ({error})"));
        let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let header = reader().map_err(|error| DecodeError::Content(error.to_string()))?;
        let Some(format) = header.format() else {
            let reason = "it is not a picture this program knows (PNG or JPEG)".to_owned();
            return Err(DecodeError::Content(reason));
        };
        if !matches!(format, image::ImageFormat::Png | image::ImageFormat::Jpeg) {
            let reason = format!("its format {format:?} is not supported; convert it to PNG or JPEG");
            return Err(DecodeError::Content(reason));
        }
        // The size is checked before anything is allocated for it.
        let (width, height) = header.into_dimensions().map_err(content)?;
        check_size(width as usize, height as usize).map_err(DecodeError::Size)?;
        if format == image::ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
            // The decoder fills what is missing with grey, and a half picture must not pass for a whole one.
            return Err(DecodeError::Content("the JPEG is cut short (no end marker)".to_owned()));
        }
        let rgb =
            reader().map_err(|error| DecodeError::Content(error.to_string()))?.decode().map_err(content)?.into_rgb8();
        let grey = GreyImage::from_rgb8(width as usize, height as usize, rgb.as_raw())
            .map_err(|error| DecodeError::Content(error.to_string()))?;
        Ok(Self { rgb, grey })
    }
}

enum DecodeError {
    Size(VisionError),
    Content(String),
}

/// An end-of-image marker must follow the last start of a scan. (A thumbnail inside has both before that; compressed data
/// contain neither, since 0xFF is escaped there.)
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xFF, marker]);
    match (last(0xDA), last(0xD9)) {
        (Some(scan), Some(end)) => end > scan,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat};

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture = RgbImage::from_fn(120, 80, |x, y| image::Rgb([x as u8, (y * 3) as u8, (x * y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(picture).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn load(bytes: &[u8]) -> Result<StillImage, VisionError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        StillImage::load(file.path())
    }

    #[test]
    fn whole_files_load_and_any_cut_is_an_error() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let bytes = encoded(format);
            assert_eq!(load(&bytes).unwrap().rgb.dimensions(), (120, 80));
            for cut in (0..bytes.len() - 1).step_by(41) {
                assert!(StillImage::decode(&bytes[..cut]).is_err(), "{format:?} cut to {cut} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let bytes = encoded(format);
            for place in (0..bytes.len()).step_by(17) {
                let mut damaged = bytes.clone();
                damaged[place] ^= 0x5A;
                let _ = StillImage::decode(&damaged);
            }
        }
    }

    #[test]
    fn other_things_than_pictures_are_named() {
        let message = |bytes: &[u8]| load(bytes).unwrap_err().to_string();
        assert!(message(b"hello, this is text").contains("not a picture"));
        assert!(message(b"").contains("empty"));
        assert!(message(b"GIF89a\x01\x00\x01\x00").contains("not supported"));
        let folder = tempfile::tempdir().unwrap();
        assert!(StillImage::load(folder.path()).unwrap_err().to_string().contains("folder"));
        let missing = StillImage::load(&folder.path().join("no.png")).unwrap_err().to_string();
        assert!(missing.contains("no.png"), "{missing}");
    }

    #[test]
    fn a_header_that_claims_a_giant_picture_is_refused_before_memory_is_taken() {
        let mut bytes = encoded(ImageFormat::Png);
        bytes[16..24].copy_from_slice(&[0, 2, 0, 0, 0, 2, 0, 0]);
        // The header's checksum is wrong now too; either way nothing is decoded.
        assert!(load(&bytes).is_err());
    }
}
