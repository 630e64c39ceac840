//! Pictures in files: one, or a folder of them in name order, with or without stamps in a sidecar.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenon_core::time::MonotonicTime;

use super::clock::{Clock, Timeline, timed_out};
use super::error::SourceError;
use super::frame::{ColourFormat, Frame, FrameStamps, SourceDescription, check_frame_size, check_rate};
use super::{FileSettings, FrameSource, sidecar};
use crate::StillImage;

/// A picture, or the PNG and JPEG files of a folder, as frames.
///
/// With a `frames.jsonl` its lines say which files, in which order and with which stamps. Without one the names are
/// sorted byte by byte and the frames are `1 / rate_hz` apart, the first one when the source was opened.
pub struct StillFiles {
    description: SourceDescription,
    keep_colour: bool,
    timeline: Timeline,
    pictures: Vec<Picture>,
    next: usize,
}

struct Picture {
    path: PathBuf,
    sequence: u64,
    stamps: FrameStamps,
}

impl StillFiles {
    pub fn open(path: &Path, settings: FileSettings, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let listed = if path.is_dir() { sidecar::read_folder(path)? } else { None };
        let (header, entries) = listed.unwrap_or_default();
        let rate_hz = settings.rate_hz.or(header.as_ref().map(|header| header.description.nominal_rate_hz));
        let rate_hz = rate_hz.ok_or_else(|| SourceError::Setting {
            name: "rate_hz",
            value: "none".to_owned(),
            requirement: "pictures in files need a rate",
        })?;
        check_rate(rate_hz)?;
        let pictures = if entries.is_empty() {
            let began = clock.now();
            let stamped = |(k, path): (usize, PathBuf)| {
                let time = began + Duration::from_secs_f64(k as f64 / rate_hz);
                Picture { path, sequence: k as u64, stamps: stamps_at(time) }
            };
            picture_paths(path)?.into_iter().enumerate().map(stamped).collect()
        } else {
            let mut pictures = Vec::with_capacity(entries.len());
            for entry in entries {
                let Some(file) = entry.file else {
                    let place = path.join(sidecar::FILE_NAME);
                    let message = "a line without a file: open this folder as a recording";
                    return Err(SourceError::damaged(place.display(), message));
                };
                pictures.push(Picture { path: path.join(file), sequence: entry.sequence, stamps: entry.stamps });
            }
            pictures
        };
        let Some(first) = pictures.first() else {
            return Err(SourceError::file(path, "open", "there is no PNG or JPEG file in this folder"));
        };
        let (width, height) = image::ImageReader::open(&first.path)
            .and_then(image::ImageReader::with_guessed_format)
            .map_err(|error| SourceError::file(&first.path, "read", error))?
            .into_dimensions()
            .map_err(|error| SourceError::file(&first.path, "read", error))?;
        let (width, height) = (width as usize, height as usize);
        check_frame_size(&first.path.display().to_string(), width, height)?;
        let of_header = header.map(|header| header.description);
        let description = SourceDescription {
            name: settings.name,
            serial: settings.serial.or(of_header.as_ref().and_then(|d| d.serial)),
            width,
            height,
            nominal_rate_hz: rate_hz,
            intrinsics: settings.intrinsics.or(of_header.and_then(|d| d.intrinsics)),
        };
        let timeline = Timeline::new(settings.pace, clock);
        Ok(Self { description, keep_colour: settings.keep_colour, timeline, pictures, next: 0 })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }
}

/// A still has one time.
pub(super) fn stamps_at(time: MonotonicTime) -> FrameStamps {
    FrameStamps { exposed_at: time, arrived: time, device: None }
}

fn picture_paths(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fail = |error: std::io::Error| SourceError::file(path, "list", error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if matches!(extension.as_str(), "png" | "jpg" | "jpeg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Decodes a file into a frame.
pub(super) fn load(path: &Path, keep_colour: bool, into: &mut Frame) -> Result<(), SourceError> {
    // Its message names the path.
    let still = StillImage::load(path).map_err(|error| SourceError::damaged("picture", error.to_string()))?;
    into.grey.resize(still.grey.width(), still.grey.height());
    into.grey.pixels_mut().copy_from_slice(still.grey.pixels());
    if keep_colour {
        let out = into.colour.prepare(ColourFormat::Rgb8, still.grey.width(), still.grey.height());
        out.copy_from_slice(still.rgb.as_raw());
    } else {
        into.colour.clear();
    }
    Ok(())
}

impl FrameSource for StillFiles {
    fn description(&self) -> &SourceDescription {
        &self.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        let name = &self.description.name;
        let Some(picture) = self.pictures.get(self.next) else {
            return Err(SourceError::Ended { source_name: name.clone(), frames: self.pictures.len() as u64 });
        };
        into.stamps = self.timeline.wait_for(&picture.stamps, timeout).ok_or_else(|| timed_out(name, timeout))?;
        into.sequence = picture.sequence;
        // A picture that cannot be read is one lost frame; the next may be whole.
        self.next += 1;
        load(&picture.path, self.keep_colour, into)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::{ManualClock, Pace};
    use super::super::frame::Serial;
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn settings(rate_hz: Option<f64>) -> FileSettings {
        let serial = Some(Serial::new("0365").unwrap());
        let (pace, keep_colour) = (Pace::RealTime, true);
        FileSettings { name: "stills".to_owned(), serial, rate_hz, intrinsics: None, pace, keep_colour }
    }

    /// Pictures of 40x32 px whose red is their number in the list.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            image::RgbImage::from_pixel(40, 32, image::Rgb([i as u8 * 50, 0, 0]))
                .save(folder.path().join(name))
                .unwrap();
        }
        folder
    }

    fn play(source: &mut StillFiles) -> Vec<(u64, u8, i64)> {
        let mut frame = Frame::of_size(1, 1);
        let mut seen = Vec::new();
        loop {
            match source.next_frame(&mut frame, TIMEOUT) {
                Ok(()) => seen.push((frame.sequence, frame.colour.pixels()[0], frame.stamps.exposed_at.as_nanos())),
                Err(SourceError::Ended { .. }) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_folder_plays_in_name_order_at_its_rate() {
        let folder = folder(&["c.png", "a.png", "b.png"]);
        std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
        let clock = ManualClock::at(MonotonicTime::from_nanos(1_000));
        let mut source = StillFiles::open(folder.path(), settings(Some(20.0)), Arc::new(clock.clone())).unwrap();
        assert_eq!(source.description().serial, Some(Serial::new("0365").unwrap()));
        assert_eq!((source.description().width, source.len()), (40, 3));
        assert_eq!(play(&mut source), [(0, 50, 1_000), (1, 100, 50_001_000), (2, 0, 100_001_000)]);
        assert_eq!(clock.now().as_nanos(), 100_001_000);
    }

    #[test]
    fn a_sidecar_gives_order_and_stamps_and_a_late_frame_times_out_first() {
        let folder = folder(&["a.png", "b.png"]);
        let line = |file: &str, sequence: u64, exposed: i64| {
            let arrived = exposed + 7;
            format!(
                "{{\"file\":\"{file}\",\"sequence\":{sequence},\"exposed_ns\":{exposed},\"arrived_ns\":{arrived},\"device_ns\":null}}\n"
            )
        };
        std::fs::write(folder.path().join("frames.jsonl"), line("b.png", 4, 10) + &line("a.png", 9, 250_000_010))
            .unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let mut source = StillFiles::open(folder.path(), settings(Some(30.0)), clock).unwrap();
        let mut frame = Frame::of_size(1, 1);
        source.next_frame(&mut frame, TIMEOUT).unwrap();
        assert_eq!((frame.sequence, frame.colour.pixels()[0], frame.stamps.exposed_at.as_nanos()), (4, 50, -7));
        for _ in 0..2 {
            let error = source.next_frame(&mut frame, TIMEOUT).unwrap_err();
            assert_eq!(error.to_string(), "stills: no frame within 100 ms");
        }
        source.next_frame(&mut frame, TIMEOUT).unwrap();
        assert_eq!((frame.sequence, frame.stamps.arrived.as_nanos()), (9, 250_000_000));
    }

    #[test]
    fn a_damaged_picture_is_one_lost_frame() {
        let folder = folder(&["a.png", "b.png", "c.png"]);
        std::fs::write(folder.path().join("b.png"), "no picture").unwrap();
        let mut source =
            StillFiles::open(folder.path(), settings(Some(1e3)), Arc::new(ManualClock::default())).unwrap();
        let mut frame = Frame::of_size(1, 1);
        source.next_frame(&mut frame, TIMEOUT).unwrap();
        let error = source.next_frame(&mut frame, TIMEOUT).unwrap_err();
        assert!(!error.needs_reopening() && error.to_string().contains("b.png"), "{error}");
        source.next_frame(&mut frame, TIMEOUT).unwrap();
        assert_eq!(frame.sequence, 2);
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let empty = tempfile::tempdir().unwrap();
        let message = |path: &Path, rate| {
            let clock = Arc::new(ManualClock::default());
            StillFiles::open(path, settings(rate), clock).err().unwrap().to_string()
        };
        assert!(message(empty.path(), Some(30.0)).contains("no PNG or JPEG"));
        assert!(message(empty.path(), None).contains("need a rate"));
        assert!(message(&empty.path().join("no.png"), Some(30.0)).contains("no.png"));
    }
}
