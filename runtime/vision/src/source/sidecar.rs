//! `frames.jsonl`: one line about the camera, then one line a frame.
//!
//! ```text
//! {"format":"tenon-frames","version":1,"name":"front","serial":"0365…","width":1280,"height":720,"rate_hz":30.0,
//!  "pixels":"grey_png","intrinsics":{"fx":915.0,"fy":915.0,"cx":640.0,"cy":360.0,"distortion":null}}   (one line)
//! {"file":"000000.png","sequence":17,"exposed_ns":123,"arrived_ns":456,"device_ns":789}
//! ```
//!
//! Recordings have the first line; a folder of pictures may have a sidecar without it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenon_core::time::MonotonicTime;

use super::error::SourceError;
use super::frame::{DeviceTime, FrameStamps, Serial, SourceDescription, check_frame_size, check_rate};
use crate::{Camera, Distortion};

pub(super) const FILE_NAME: &str = "frames.jsonl";
const FORMAT: &str = "tenon-frames";
const VERSION: u32 = 1;
/// Longest line and largest file that are read, bytes.
const MAX_LINE_BYTES: u64 = 16 << 10;
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Stamps beyond this (73 years) are damage, and sums of two of them stay numbers.
const MAX_STAMP_NANOS: i64 = 1 << 61;

/// How the pixels of a recording are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingPixels {
    /// One PNG a frame.
    GreyPng,
    ColourPng,
    /// All frames in `frames.raw`, eight bits of grey, row-major: quickest to write.
    GreyRaw,
    /// All frames in `frames.raw`, interleaved RGB8.
    ColourRaw,
}

impl RecordingPixels {
    /// Bytes a pixel in `frames.raw`; `None` for PNG.
    pub fn raw_bytes_per_pixel(self) -> Option<usize> {
        match self {
            Self::GreyPng | Self::ColourPng => None,
            Self::GreyRaw => Some(1),
            Self::ColourRaw => Some(3),
        }
    }

    pub fn is_colour(self) -> bool {
        matches!(self, Self::ColourPng | Self::ColourRaw)
    }
}

/// The first line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub description: SourceDescription,
    pub pixels: RecordingPixels,
}

/// The line of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// A name in the folder; `None` for raw pixels.
    pub file: Option<String>,
    pub sequence: u64,
    pub stamps: FrameStamps,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    format: String,
    version: u32,
    name: String,
    serial: Option<String>,
    width: usize,
    height: usize,
    rate_hz: f64,
    pixels: RecordingPixels,
    intrinsics: Option<RawIntrinsics>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIntrinsics {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
    /// k1, k2, p1, p2, k3.
    distortion: Option<[f64; 5]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    sequence: u64,
    exposed_ns: i64,
    arrived_ns: i64,
    device_ns: Option<i64>,
}

impl Header {
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        let description = &self.description;
        let intrinsics = description.intrinsics.map(|camera| {
            let ([fx, fy], [cx, cy]) = (camera.focal_px(), camera.principal_px());
            let distortion = camera.distortion().map(|d| [d.k1, d.k2, d.p1, d.p2, d.k3]);
            RawIntrinsics { fx, fy, cx, cy, distortion }
        });
        serde_json::to_string(&RawHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: description.name.clone(),
            serial: description.serial.map(|serial| serial.to_string()),
            width: description.width,
            height: description.height,
            rate_hz: description.nominal_rate_hz,
            pixels: self.pixels,
            intrinsics,
        })
    }

    fn parse(raw: RawHeader, place: &str) -> Result<Self, SourceError> {
        let damaged = |message: String| SourceError::damaged(place, message);
        if raw.version != VERSION {
            return Err(damaged(format!("version {} is not {VERSION}, the one this program reads", raw.version)));
        }
        check_frame_size(place, raw.width, raw.height)?;
        check_rate(raw.rate_hz).map_err(|error| damaged(error.to_string()))?;
        let serial = raw.serial.as_deref().map(Serial::new).transpose().map_err(|error| damaged(error.to_string()))?;
        let intrinsics = raw.intrinsics.map(camera_of).transpose().map_err(|error| damaged(error.to_string()))?;
        let description = SourceDescription {
            name: raw.name,
            serial,
            width: raw.width,
            height: raw.height,
            nominal_rate_hz: raw.rate_hz,
            intrinsics,
        };
        Ok(Self { description, pixels: raw.pixels })
    }
}

fn camera_of(raw: RawIntrinsics) -> Result<Camera, crate::VisionError> {
    let camera = Camera::pinhole(raw.fx, raw.fy, raw.cx, raw.cy)?;
    match raw.distortion {
        None => Ok(camera),
        Some([k1, k2, p1, p2, k3]) => camera.with_distortion(Distortion { k1, k2, p1, p2, k3 }),
    }
}

impl Entry {
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&RawEntry {
            file: self.file.clone(),
            sequence: self.sequence,
            exposed_ns: self.stamps.exposed_at.as_nanos(),
            arrived_ns: self.stamps.arrived.as_nanos(),
            device_ns: self.stamps.device.map(DeviceTime::as_nanos),
        })
    }

    /// `last`: the entry before, after which this one must come.
    fn parse(raw: RawEntry, last: Option<&Self>, place: &str) -> Result<Self, SourceError> {
        let damaged = |message: String| SourceError::damaged(place, message);
        for (key, nanos) in [
            ("exposed_ns", raw.exposed_ns),
            ("arrived_ns", raw.arrived_ns),
            ("device_ns", raw.device_ns.unwrap_or_default()),
        ] {
            if !(-MAX_STAMP_NANOS..=MAX_STAMP_NANOS).contains(&nanos) {
                return Err(damaged(format!("{key} = {nanos} is no time of a frame")));
            }
        }
        if let Some(file) = &raw.file {
            // A name that leads out of the folder would read somebody else's file.
            if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']) {
                return Err(damaged(format!("file {file:?} is not the name of a file in this folder")));
            }
        }
        if let Some(last) = last
            && (raw.sequence <= last.sequence || raw.arrived_ns < last.stamps.arrived.as_nanos())
        {
            return Err(damaged("sequence and arrived_ns must grow from line to line".to_owned()));
        }
        let stamps = FrameStamps {
            exposed_at: MonotonicTime::from_nanos(raw.exposed_ns),
            arrived: MonotonicTime::from_nanos(raw.arrived_ns),
            device: raw.device_ns.map(DeviceTime::from_nanos),
        };
        Ok(Self { file: raw.file, sequence: raw.sequence, stamps })
    }
}

/// Reads a whole sidecar. `place` is its path in messages.
pub(super) fn read(text: impl Read, place: &str) -> Result<(Option<Header>, Vec<Entry>), SourceError> {
    let mut reader = BufReader::new(text.take(MAX_FILE_BYTES));
    let (mut header, mut entries) = (None, Vec::new());
    let mut line = Vec::new();
    for number in 1.. {
        let place = format!("{place}:{number}");
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        match read {
            Err(error) => return Err(SourceError::damaged(place, error.to_string())),
            Ok(0) => break,
            Ok(_) if line.last() != Some(&b'\n') => {
                // Every line is written whole, so one without an end was cut.
                return Err(SourceError::damaged(place, "the line has no end: the file is cut short"));
            }
            Ok(_) => {}
        }
        let damaged = |error: serde_json::Error| SourceError::damaged(&place, error.to_string());
        if number == 1 && line.windows(FORMAT.len()).any(|window| window == FORMAT.as_bytes()) {
            header = Some(Header::parse(serde_json::from_slice(&line).map_err(damaged)?, &place)?);
            continue;
        }
        let raw: RawEntry = serde_json::from_slice(&line).map_err(damaged)?;
        entries.push(Entry::parse(raw, entries.last(), &place)?);
    }
    Ok((header, entries))
}

/// Reads the sidecar of a folder; `None` if there is none.
pub(super) fn read_folder(folder: &Path) -> Result<Option<(Option<Header>, Vec<Entry>)>, SourceError> {
    let path = folder.join(FILE_NAME);
    match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SourceError::file(&path, "read", error)),
        Ok(file) => read(file, &path.display().to_string()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Header, Vec<Entry>, String) {
        let camera = Camera::pinhole(915.5, 914.25, 642.0, 348.5).unwrap();
        let distortion = Distortion { k1: 0.1, k2: -0.2, p1: 0.001, p2: 0.0, k3: 0.05 };
        let description = SourceDescription {
            name: "front".to_owned(),
            serial: Some(Serial::new("036522070660").unwrap()),
            width: 1280,
            height: 720,
            nominal_rate_hz: 30.0,
            intrinsics: Some(camera.with_distortion(distortion).unwrap()),
        };
        let header = Header { description, pixels: RecordingPixels::GreyPng };
        let entries: Vec<Entry> = (0..3)
            .map(|i| Entry {
                file: Some(format!("{i:06}.png")),
                sequence: 7 + i,
                stamps: FrameStamps {
                    exposed_at: MonotonicTime::from_nanos(i as i64 * 33),
                    arrived: MonotonicTime::from_nanos(i as i64 * 33 + 12),
                    device: (i != 1).then_some(DeviceTime::from_nanos(-5)),
                },
            })
            .collect();
        let mut text = header.to_line().unwrap() + "\n";
        for entry in &entries {
            text += &(entry.to_line().unwrap() + "\n");
        }
        (header, entries, text)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (header, entries, text) = sample();
        assert_eq!(read(text.as_bytes(), "x").unwrap(), (Some(header), entries.clone()));
        let without: String = text.split_inclusive('\n').skip(1).collect();
        assert_eq!(read(without.as_bytes(), "x").unwrap(), (None, entries));
    }

    #[test]
    fn a_cut_within_a_line_is_an_error_and_one_between_lines_loses_only_frames() {
        let (_, entries, text) = sample();
        for cut in 0..text.len() {
            let result = read(&text.as_bytes()[..cut], "x");
            if cut == 0 || text.as_bytes()[cut - 1] == b'\n' {
                assert!(result.unwrap().1.len() < entries.len());
            } else {
                assert!(result.is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let (_, _, text) = sample();
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone().into_bytes();
                damaged[place] ^= 1 << bit;
                let _ = read(&damaged[..], "x");
            }
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        let entry = |file: &str, sequence: u64, arrived: &str| {
            format!(
                r#"{{"file":"{file}","sequence":{sequence},"exposed_ns":1,"arrived_ns":{arrived},"device_ns":null}}"#
            )
        };
        let message =
            |lines: &[String]| read((lines.join("\n") + "\n").as_bytes(), "a/frames.jsonl").unwrap_err().to_string();
        assert!(message(&[entry("../secret", 1, "2")]).starts_with("a/frames.jsonl:1: file \"../secret\""));
        assert!(message(&[entry("a", 2, "2"), entry("b", 2, "3")]).starts_with("a/frames.jsonl:2: sequence"));
        assert!(message(&[entry("a", 2, "9000000000000000000")]).contains("arrived_ns"));
        assert!(message(&[entry("a", 2, "2").replace("sequence", "sequenze")]).contains("sequenze"));
        assert!(message(&["x".repeat(20_000)]).contains(":1: the line has no end"));
        let (_, _, text) = sample();
        let of_header = |from: &str, to: &str| message(&[text.lines().next().unwrap().replacen(from, to, 1)]);
        assert!(of_header("\"version\":1", "\"version\":2").contains("version 2"));
        assert!(of_header("1280", "0").contains("0x720"));
        assert!(of_header("915.5", "-1.0").contains("fx"));
    }
}
