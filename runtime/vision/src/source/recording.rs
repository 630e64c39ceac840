//! Recorded runs: a folder with the frames of one camera, their stamps, its serial number and its intrinsics.
//!
//! It is written beside its place, as `NAME.partial`, and renamed when it is complete, so a folder under its own name
//! always is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use super::clock::{Clock, ClockMap, ClockMapSettings, Pace, Timeline, nanos, timed_out};
use super::convert::rgb8_to_grey;
use super::error::SourceError;
use super::frame::{ColourFormat, DeviceTime, Frame, FrameStamps, SourceDescription};
pub use super::sidecar::RecordingPixels;
use super::sidecar::{Entry, FILE_NAME, Header};
use super::{FrameSource, sidecar, still_files};
use playback::Following;
pub use playback::{Condition, Playback};
use tenon_core::time::MonotonicTime;

mod playback;

const RAW_NAME: &str = "frames.raw";

/// Writes a recording.
pub struct Recorder {
    folder: PathBuf,
    partial: PathBuf,
    header: Header,
    lines: BufWriter<File>,
    raw: Option<BufWriter<File>>,
    rgb: Vec<u8>,
    last_sequence: Option<u64>,
    frames: u64,
}

impl Recorder {
    /// `folder` must not exist: nothing is overwritten.
    pub fn create(
        folder: &Path,
        description: &SourceDescription,
        pixels: RecordingPixels,
    ) -> Result<Self, SourceError> {
        let Some(name) = folder.file_name() else {
            return Err(SourceError::file(folder, "record into", "a folder needs a name"));
        };
        if folder.exists() {
            return Err(SourceError::file(folder, "record into", "it exists; choose another name"));
        }
        let mut partial = OsString::from(name);
        partial.push(".partial");
        let partial = folder.with_file_name(partial);
        if let Some(parent) = partial.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| SourceError::file(parent, "create", error))?;
        }
        std::fs::create_dir(&partial).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                SourceError::file(&partial, "create", "a recording was interrupted here; move or remove it")
            }
            _ => SourceError::file(&partial, "create", error),
        })?;
        let create = |name: &str| {
            let path = partial.join(name);
            File::create(&path).map(BufWriter::new).map_err(|error| SourceError::file(&path, "create", error))
        };
        let header = Header { description: description.clone(), pixels };
        let raw = pixels.raw_bytes_per_pixel().map(|_| create(RAW_NAME)).transpose()?;
        let mut recorder = Self {
            lines: create(FILE_NAME)?,
            folder: folder.to_owned(),
            partial,
            header,
            raw,
            rgb: Vec::new(),
            last_sequence: None,
            frames: 0,
        };
        let line = recorder.header.to_line();
        recorder.write_line(line)?;
        Ok(recorder)
    }

    /// Where the recording will be once it is finished.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Adds a frame. Its sequence must be above the last one's and its size the description's.
    pub fn record(&mut self, frame: &Frame) -> Result<(), SourceError> {
        let place = self.partial.display();
        let SourceDescription { width, height, .. } = self.header.description;
        let found = [frame.grey.width(), frame.grey.height()];
        if found != [width, height] {
            let message = format!("a frame of {}x{} px in a recording of {width}x{height} px", found[0], found[1]);
            return Err(SourceError::damaged(place, message));
        }
        if self.last_sequence.is_some_and(|last| frame.sequence <= last) {
            let message = format!("frame {} comes after a later one: finish this recording first", frame.sequence);
            return Err(SourceError::damaged(place, message));
        }
        let pixels = if self.header.pixels.is_colour() {
            if !frame.colour.to_rgb8(&mut self.rgb) {
                let message =
                    "a frame without colour in a recording with it: record grey, or let the source keep colour";
                return Err(SourceError::damaged(place, message));
            }
            &self.rgb[..]
        } else {
            frame.grey.pixels()
        };
        let mut file = None;
        match &mut self.raw {
            Some(raw) => {
                raw.write_all(pixels)
                    .map_err(|error| SourceError::file(&self.partial.join(RAW_NAME), "write", error))?;
            }
            None => {
                let name = format!("{:06}.png", self.frames);
                let path = self.partial.join(&name);
                write_png(&path, pixels, width, height).map_err(|error| SourceError::file(&path, "write", error))?;
                file = Some(name);
            }
        }
        let line = Entry { file, sequence: frame.sequence, stamps: frame.stamps }.to_line();
        self.write_line(line)?;
        self.last_sequence = Some(frame.sequence);
        self.frames += 1;
        Ok(())
    }

    /// Completes the recording and gives it its name.
    pub fn finish(mut self) -> Result<PathBuf, SourceError> {
        let flush = |writer: &mut BufWriter<File>| writer.flush().and_then(|()| writer.get_ref().sync_all());
        let lines = flush(&mut self.lines);
        lines.map_err(|error| SourceError::file(&self.partial.join(FILE_NAME), "write", error))?;
        if let Some(raw) = &mut self.raw {
            flush(raw).map_err(|error| SourceError::file(&self.partial.join(RAW_NAME), "write", error))?;
        }
        if self.folder.exists() {
            let reason = format!("it has come into being meanwhile; the recording is in {}", self.partial.display());
            return Err(SourceError::file(&self.folder, "record into", reason));
        }
        std::fs::rename(&self.partial, &self.folder)
            .map_err(|error| SourceError::file(&self.folder, "rename the recording to", error))?;
        Ok(self.folder)
    }

    fn write_line(&mut self, line: Result<String, serde_json::Error>) -> Result<(), SourceError> {
        let written = line.map_err(std::io::Error::from).and_then(|line| writeln!(self.lines, "{line}"));
        written.map_err(|error| SourceError::file(&self.partial.join(FILE_NAME), "write", error))
    }
}

fn write_png(path: &Path, pixels: &[u8], width: usize, height: usize) -> image::ImageResult<()> {
    let grey = pixels.len() == width * height;
    let colour = if grey { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    let mut file = BufWriter::new(File::create(path)?);
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Sub).write_image(
        pixels,
        width as u32,
        height as u32,
        colour,
    )?;
    file.flush()?;
    Ok(())
}

/// Plays a recording.
///
/// In real time its stamps are moved so that the first frame arrives now, and a [`Playback`] in its folder is heeded; as fast as possible
/// they stay as recorded.
pub struct RecordedRun {
    folder: PathBuf,
    header: Header,
    entries: Vec<Entry>,
    raw: Option<File>,
    rgb: Vec<u8>,
    keep_colour: bool,
    timeline: Timeline,
    /// In real time.
    playback: Option<Following>,
    /// From the camera's clock to ours, where a playback may set that.
    map: ClockMap,
    next: usize,
    /// The picture that was given last.
    shown: usize,
    /// How often the end has been reached.
    laps: u64,
}

impl RecordedRun {
    pub fn open(folder: &Path, pace: Pace, keep_colour: bool, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let none = |reason: &str| SourceError::file(folder, "play", reason);
        let Some((header, entries)) = sidecar::read_folder(folder)? else {
            return Err(none("there is no frames.jsonl in it, so it is no recording; open it as pictures"));
        };
        let Some(header) = header else {
            return Err(none("its frames.jsonl does not name the camera, so it is no recording; open it as pictures"));
        };
        let mut playback = (pace == Pace::RealTime).then(|| Following::new(folder));
        let said = playback.as_mut().map(Following::look).transpose()?.flatten();
        if said.is_some_and(|said| said.camera == Condition::Unplugged) {
            let wanted = header.description.name.clone();
            return Err(SourceError::NoCamera {
                wanted,
                reason: "its recording's play.json has it unplugged".to_owned(),
            });
        }
        let raw = match header.pixels.raw_bytes_per_pixel() {
            None => None,
            Some(bytes) => Some(open_raw(&folder.join(RAW_NAME), &header.description, bytes, entries.len())?),
        };
        let least_delay = entries.first().map_or(Duration::ZERO, |e| e.stamps.arrived.since(e.stamps.exposed_at));
        Ok(Self {
            folder: folder.to_owned(),
            header,
            entries,
            raw,
            rgb: Vec::new(),
            keep_colour,
            timeline: Timeline::new(pace, clock),
            playback,
            map: ClockMap::new(ClockMapSettings { least_delay, ..ClockMapSettings::default() }),
            next: 0,
            shown: 0,
            laps: 0,
        })
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that comes next, in the lap that is under way; `None` at the end.
    fn upcoming(&mut self, repeat: bool) -> Option<Entry> {
        let [.., last] = &self.entries[..] else { return None };
        if self.next == self.entries.len() && repeat {
            (self.next, self.laps) = (0, self.laps.saturating_add(1));
        }
        let first = &self.entries[0];
        let mut entry = self.entries.get(self.next)?.clone();
        // From the last frame to the first of the next lap it is one frame, too.
        let frame = Duration::from_secs_f64(1.0 / self.header.description.nominal_rate_hz);
        let lap = last.stamps.arrived.since(first.stamps.arrived) + frame;
        let passed = i64::try_from(self.laps).unwrap_or(i64::MAX).saturating_mul(nanos(lap));
        entry.sequence = entry.sequence.saturating_add(self.laps.saturating_mul(last.sequence - first.sequence + 1));
        entry.stamps = later(&entry.stamps, passed);
        Some(entry)
    }

    fn ended(&self) -> SourceError {
        let frames = self.laps.saturating_mul(self.entries.len() as u64).saturating_add(self.next as u64);
        SourceError::Ended { source_name: self.header.description.name.clone(), frames }
    }

    /// Reads the picture of entry `index`.
    fn load(&mut self, index: usize, into: &mut Frame) -> Result<(), SourceError> {
        let SourceDescription { width, height, .. } = self.header.description;
        let Some(raw) = &mut self.raw else {
            let place = self.folder.join(FILE_NAME).display().to_string();
            let file = self.entries.get(index).and_then(|entry| entry.file.as_ref());
            let file = file.ok_or_else(|| SourceError::damaged(&place, "a line without a file"))?;
            still_files::load(&self.folder.join(file), self.keep_colour, into)?;
            if [into.grey.width(), into.grey.height()] != [width, height] {
                return Err(SourceError::damaged(place, format!("{file} is not of {width}x{height} px")));
            }
            return Ok(());
        };
        let folder = &self.folder;
        let fail = |error: std::io::Error| SourceError::file(&folder.join(RAW_NAME), "read", error);
        let colour = self.header.pixels.is_colour();
        let frame_bytes = width * height * if colour { 3 } else { 1 };
        raw.seek(SeekFrom::Start(index as u64 * frame_bytes as u64)).map_err(fail)?;
        into.grey.resize(width, height);
        into.colour.clear();
        if !colour {
            return raw.read_exact(into.grey.pixels_mut()).map_err(fail);
        }
        let rgb = if self.keep_colour {
            into.colour.prepare(ColourFormat::Rgb8, width, height)
        } else {
            self.rgb.resize(frame_bytes, 0);
            &mut self.rgb[..]
        };
        raw.read_exact(rgb).map_err(fail)?;
        rgb8_to_grey(rgb, into.grey.pixels_mut());
        Ok(())
    }
}

fn later(stamps: &FrameStamps, by_nanos: i64) -> FrameStamps {
    let moved = |time: MonotonicTime| MonotonicTime::from_nanos(time.as_nanos().saturating_add(by_nanos));
    FrameStamps {
        exposed_at: moved(stamps.exposed_at),
        device: stamps.device.map(|device| DeviceTime::from_nanos(device.as_nanos().saturating_add(by_nanos))),
        arrived: moved(stamps.arrived),
    }
}

/// Opens the raw frames and holds their length against their number.
fn open_raw(
    path: &Path,
    description: &SourceDescription,
    bytes_per_pixel: usize,
    frames: usize,
) -> Result<File, SourceError> {
    let fail = |error: std::io::Error| SourceError::file(path, "read", error);
    let file = File::open(path).map_err(fail)?;
    let found = file.metadata().map_err(fail)?.len();
    let frame_bytes = (description.width * description.height * bytes_per_pixel) as u64;
    if Some(found) != frame_bytes.checked_mul(frames as u64) {
        let message =
            format!("{found} bytes instead of {frames} frames of {frame_bytes}: the file is cut or not its own");
        return Err(SourceError::damaged(path.display(), message));
    }
    Ok(file)
}

impl FrameSource for RecordedRun {
    fn description(&self) -> &SourceDescription {
        &self.header.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        let said = self.playback.as_mut().map(Following::look).transpose()?.flatten();
        let playback = said.unwrap_or_default();
        let name = &self.header.description.name;
        match playback.camera {
            Condition::Works | Condition::Frozen => {}
            Condition::Unplugged => {
                let reason = "its recording's play.json has it unplugged".to_owned();
                return Err(SourceError::Disconnected { source_name: name.clone(), reason });
            }
            Condition::Hangs => {
                self.timeline.pause(timeout);
                return Err(timed_out(name, timeout));
            }
            Condition::Ended => return Err(self.ended()),
        }
        let Some(entry) = self.upcoming(playback.repeat) else { return Err(self.ended()) };
        let waited = self.timeline.wait_for(&entry.stamps, timeout);
        into.stamps = waited.ok_or_else(|| timed_out(&self.header.description.name, timeout))?;
        into.sequence = entry.sequence;
        if let (true, Some(device)) = (said.is_some(), into.stamps.device) {
            let device = device.as_nanos().saturating_add(playback.clock_ms.saturating_mul(1_000_000));
            let device = DeviceTime::from_nanos(device);
            into.stamps.device = Some(device);
            into.stamps.exposed_at = self.map.observe(device, into.stamps.arrived).time;
        }
        if playback.camera == Condition::Works {
            self.shown = self.next;
        }
        self.next += 1;
        self.load(self.shown, into)
    }
}

#[cfg(test)]
mod tests;
