//! One picture of a camera, when it was taken, and by whom.

use std::fmt;

use tenon_core::time::MonotonicTime;

use super::error::SourceError;
use crate::{Camera, GreyImage};

/// Nanoseconds of a camera's own clock. Comparable only with stamps of the same camera since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceTime(i64);

impl DeviceTime {
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

/// When a frame was taken and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameStamps {
    /// Middle of the exposure. This is the time of a pose, never the arrival.
    pub exposed_at: MonotonicTime,
    /// What the device stamped, unchanged; `None` if it has no clock.
    pub device: Option<DeviceTime>,
    /// When this process had the frame.
    pub arrived: MonotonicTime,
}

/// How the colour of a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourFormat {
    /// Interleaved, three bytes a pixel.
    Rgb8,
    /// Interleaved Y0 U Y1 V, two bytes a pixel, BT.601 limited range (what UVC cameras send).
    Yuyv,
}

/// The colour of a frame, for drawing and recording; the memory is kept from frame to frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Colour {
    format: Option<ColourFormat>,
    pixels: Vec<u8>,
}

impl Colour {
    /// `None` while the source gives grey only.
    pub fn format(&self) -> Option<ColourFormat> {
        self.format
    }

    /// Row-major without padding, in [`Self::format`]; empty without one.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Takes the format and room for `width * height` pixels, to be filled by the caller.
    pub fn prepare(&mut self, format: ColourFormat, width: usize, height: usize) -> &mut [u8] {
        let bytes = match format {
            ColourFormat::Rgb8 => 3,
            ColourFormat::Yuyv => 2,
        };
        self.format = Some(format);
        self.pixels.resize(width * height * bytes, 0);
        &mut self.pixels
    }

    /// Back to grey only.
    pub fn clear(&mut self) {
        self.format = None;
        self.pixels.clear();
    }

    /// The colour as interleaved RGB8 into `rgb`, which is resized; false without colour.
    pub fn to_rgb8(&self, rgb: &mut Vec<u8>) -> bool {
        match self.format {
            None => return false,
            Some(ColourFormat::Rgb8) => {
                rgb.clear();
                rgb.extend_from_slice(&self.pixels);
            }
            Some(ColourFormat::Yuyv) => {
                rgb.resize(self.pixels.len() / 2 * 3, 0);
                super::convert::yuyv_to_rgb8(&self.pixels, rgb);
            }
        }
        true
    }
}

/// One picture. Its buffers are reused: a source fills what it is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub grey: GreyImage,
    pub colour: Colour,
    pub stamps: FrameStamps,
    /// Counts what the device took, so a gap is a drop.
    pub sequence: u64,
}

impl Frame {
    /// Black, to be filled; with the right size the first frame does not allocate either.
    pub fn of_size(width: usize, height: usize) -> Self {
        Self {
            grey: GreyImage::filled(width, height, 0),
            colour: Colour::default(),
            stamps: FrameStamps::default(),
            sequence: 0,
        }
    }
}

/// A serial number, up to 63 bytes of printable ASCII. `Copy`, because faults carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Serial {
    pub const MAX_LEN: usize = 63;

    pub fn new(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= Self::MAX_LEN;
        if !fits || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            let requirement = "a serial number has 1 to 63 printable ASCII characters";
            return Err(SourceError::Setting { name: "serial", value: text.chars().take(80).collect(), requirement });
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({:?})", self.as_str())
    }
}

/// What a source is, fixed while it is open.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceDescription {
    /// For people: "front", a file's name.
    pub name: String,
    /// The device's, or for files the one given with them; `None` where nobody knows it.
    pub serial: Option<Serial>,
    pub width: usize,
    pub height: usize,
    pub nominal_rate_hz: f64,
    /// Known only where the source brings them (a recording does).
    pub intrinsics: Option<Camera>,
}

/// Checks a size before memory is taken for it: sides from 1 px to the detector's largest.
pub(super) fn check_frame_size(place: &str, width: usize, height: usize) -> Result<(), SourceError> {
    use crate::image::{MAX_AREA_PX, MAX_SIDE_PX};
    let side_ok = |side: usize| (1..=MAX_SIDE_PX).contains(&side);
    if side_ok(width) && side_ok(height) && width * height <= MAX_AREA_PX {
        return Ok(());
    }
    let limits = format!("sides must be 1 to {MAX_SIDE_PX} px and the area at most {MAX_AREA_PX} px");
    Err(SourceError::damaged(place, format!("a size of {width}x{height} px is refused: {limits}")))
}

/// Checks a rate given by a user or a file.
pub(super) fn check_rate(rate_hz: f64) -> Result<(), SourceError> {
    if rate_hz.is_finite() && (0.001..=10_000.0).contains(&rate_hz) {
        return Ok(());
    }
    let requirement = "a frame rate must be between 0.001 and 10000 Hz";
    Err(SourceError::Setting { name: "rate_hz", value: rate_hz.to_string(), requirement })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_keeps_its_text_and_refuses_what_no_label_carries() {
        assert_eq!(Serial::new(" 036522070660\n").unwrap().as_str(), "036522070660");
        for bad in ["", "  ", "a\nb", "ä", &"9".repeat(64)] {
            assert!(Serial::new(bad).is_err(), "{bad:?}");
        }
        assert_ne!(Serial::new("1").unwrap(), Serial::new("10").unwrap());
    }

    #[test]
    fn colour_keeps_its_memory_and_knows_its_format() {
        let mut colour = Colour::default();
        let mut rgb = Vec::new();
        assert!(!colour.to_rgb8(&mut rgb));
        colour.prepare(ColourFormat::Yuyv, 2, 1).copy_from_slice(&[235, 128, 16, 128]);
        assert!(colour.to_rgb8(&mut rgb));
        assert_eq!(rgb, [255, 255, 255, 0, 0, 0]);
        colour.prepare(ColourFormat::Rgb8, 1, 1).copy_from_slice(&[1, 2, 3]);
        assert!(colour.to_rgb8(&mut rgb));
        assert_eq!(rgb, [1, 2, 3]);
        colour.clear();
        assert_eq!(colour.format(), None);
    }

    #[test]
    fn absurd_sizes_and_rates_are_refused() {
        assert!(check_frame_size("x", 1280, 720).is_ok());
        for (width, height) in [(0, 1), (1, 0), (20_000, 1), (16_000, 16_000), (usize::MAX, usize::MAX)] {
            assert!(check_frame_size("x", width, height).is_err());
        }
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check_rate(rate).is_err());
        }
    }
}
