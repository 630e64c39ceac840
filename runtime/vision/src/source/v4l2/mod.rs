//! Cameras of the kernel (V4L2): USB cameras such as the colour and infrared streams of RealSense D4xx.
//!
//! Thin over the system calls. The serial number is that of the USB descriptor; RealSense prints another one on the label
//! (`rs-enumerate-devices` lists both, this one as "Asic Serial Number").

mod abi;
mod driver;
mod sysfs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenon_core::time::MonotonicTime;

pub(super) use driver::wait_readable;
use driver::{Driver, Kernel};
use sysfs::Candidate;

use super::FrameSource;
use super::clock::{Clock, ClockMap, ClockMapSettings, nanos, timed_out};
use super::controls::{Control, ControlValues};
use super::convert::{PixelFormat, RawFrame, unpack};
use super::error::SourceError;
use super::frame::{DeviceTime, Frame, FrameStamps, Serial, SourceDescription, check_frame_size, check_rate};

/// Which camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraChoice {
    /// The serial number of its USB descriptor; of its video devices the first one that offers the format.
    Serial(Serial),
    /// `/dev/video4`, or a link to it such as those in `/dev/v4l/by-id`.
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct V4l2Settings {
    /// For people: "front".
    pub name: String,
    pub width: usize,
    pub height: usize,
    pub rate_hz: f64,
    pub format: PixelFormat,
    pub keep_colour: bool,
    /// Set when the camera is opened, read back, and locked from then on.
    pub controls: ControlValues,
    /// From the middle of the exposure to the stamp, as the latency measurement found it. Without it the kernel's flag
    /// decides: half the exposure before a stamp of its end, half the exposure after one of its start.
    pub stamp_delay: Option<Duration>,
    /// Frames thrown away after the start, and the least time that takes each, so that the exposure settles.
    pub discard_frames: u32,
    pub discard_pause: Duration,
}

impl V4l2Settings {
    /// The colour stream of a RealSense D4xx as the benchmark runs it, 1280x720 at 30 Hz, with a fixed exposure; 10 frames
    /// of 40 ms are thrown away (perception.md §3).
    pub fn realsense_colour(name: &str, exposure_100us: i64) -> Self {
        Self {
            name: name.to_owned(),
            width: 1280,
            height: 720,
            rate_hz: 30.0,
            format: PixelFormat::Yuyv,
            keep_colour: false,
            controls: ControlValues::fixed_exposure(exposure_100us, None),
            stamp_delay: None,
            discard_frames: 10,
            discard_pause: Duration::from_millis(40),
        }
    }
}

/// Buffers asked of the driver: one being filled, one being read, two against a late reader.
const BUFFERS: u32 = 4;
/// How long the first frames may take together.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const EXPOSURE_UNIT: Duration = Duration::from_micros(100);

/// An open camera that streams.
pub struct V4l2Camera(Camera<Kernel>);

impl V4l2Camera {
    pub fn open(choice: &CameraChoice, settings: &V4l2Settings, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let class = Path::new(sysfs::CLASS);
        let candidates = match choice {
            CameraChoice::Path(path) => vec![by_path(class, path)?],
            CameraChoice::Serial(serial) => by_serial(class, *serial)?,
        };
        let mut refusals = Vec::new();
        for candidate in &candidates {
            let device = candidate.node.display().to_string();
            let opened = Kernel::open(&candidate.node)
                .map_err(|error| SourceError::NoCamera { wanted: device.clone(), reason: open_advice(&error) });
            match opened.and_then(|kernel| Camera::start(kernel, device, candidate.serial, settings, clock.clone())) {
                Ok(camera) => return Ok(Self(camera)),
                // The other video devices of a camera (depth, metadata) refuse; the colour one is still to come.
                Err(error @ (SourceError::Format { .. } | SourceError::NoCamera { .. })) if candidates.len() > 1 => {
                    refusals.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let wanted = match choice {
            CameraChoice::Serial(serial) => format!("with serial number {serial}"),
            CameraChoice::Path(path) => path.display().to_string(),
        };
        Err(SourceError::NoCamera { wanted, reason: refusals.join("; ") })
    }
}

impl FrameSource for V4l2Camera {
    fn description(&self) -> &SourceDescription {
        self.0.description()
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        self.0.next_frame(into, timeout)
    }

    fn locked(&self) -> ControlValues {
        self.0.locked()
    }

    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        self.0.controls()
    }
}

fn by_path(class: &Path, path: &Path) -> Result<Candidate, SourceError> {
    let no_camera = |reason: String| SourceError::NoCamera { wanted: path.display().to_string(), reason };
    let node = std::fs::canonicalize(path).map_err(|error| no_camera(open_advice(&error)))?;
    let name = node.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(Candidate { node, ..sysfs::candidate(class, name) })
}

fn by_serial(class: &Path, serial: Serial) -> Result<Vec<Candidate>, SourceError> {
    let all = sysfs::candidates(class);
    let (wanted, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.serial == Some(serial));
    if !wanted.is_empty() {
        return Ok(wanted);
    }
    let listed = |c: &Candidate| {
        let serial = c.serial.map_or("without one".to_owned(), |serial| serial.to_string());
        format!("{} {serial} {}", c.node.display(), c.product)
    };
    let found: Vec<String> = others.iter().map(listed).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join("; ") };
    let reason = format!("it is not plugged in; video devices here: {found}");
    Err(SourceError::NoCamera { wanted: format!("with serial number {serial}"), reason })
}

fn open_advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => format!("{error}: add your user to the group video and log in again"),
        Some(libc::EBUSY) => format!("{error}: another program holds it; end that one"),
        Some(libc::ENOENT) => format!("{error}: plug the camera in, or choose it by serial number"),
        _ => error.to_string(),
    }
}

/// A capture device that streams into mapped buffers.
struct Camera<D: Driver> {
    driver: D,
    device: String,
    description: SourceDescription,
    format: PixelFormat,
    keep_colour: bool,
    stride_bytes: usize,
    locked: ControlValues,
    exposure: Duration,
    stamp_delay: Option<Duration>,
    map: ClockMap,
    sequence: SequenceCounter,
    clock: Arc<dyn Clock>,
}

impl<D: Driver> Camera<D> {
    fn start(
        mut driver: D,
        device: String,
        serial: Option<Serial>,
        settings: &V4l2Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        check_frame_size(&device, settings.width, settings.height)?;
        check_rate(settings.rate_hz)?;
        let layout = negotiate(&mut driver, &device, settings)?;
        let locked = set_controls(&mut driver, &device, &settings.controls)?;
        let description = SourceDescription {
            name: settings.name.clone(),
            serial,
            width: settings.width,
            height: settings.height,
            nominal_rate_hz: settings.rate_hz,
            intrinsics: None,
        };
        let least_delay = settings.stamp_delay.unwrap_or_default();
        let mut camera = Self {
            driver,
            device,
            description,
            format: settings.format,
            keep_colour: settings.keep_colour,
            stride_bytes: layout.bytesperline as usize,
            locked,
            exposure: Duration::ZERO,
            stamp_delay: settings.stamp_delay,
            map: ClockMap::new(ClockMapSettings { least_delay, ..ClockMapSettings::default() }),
            sequence: SequenceCounter::default(),
            clock,
        };
        camera.read_exposure();
        let buffers = camera.driver.map_buffers(BUFFERS);
        let buffers = buffers.map_err(|error| failed(&camera.device, "VIDIOC_REQBUFS", &error))?;
        for index in 0..buffers {
            camera.driver.queue(index).map_err(|error| failed(&camera.device, "VIDIOC_QBUF", &error))?;
        }
        camera.driver.stream(true).map_err(|error| failed(&camera.device, "VIDIOC_STREAMON", &error))?;
        camera.discard(settings.discard_frames, settings.discard_pause)?;
        check_controls(&mut camera.driver, &camera.device, &locked)?;
        camera.read_exposure();
        Ok(camera)
    }

    /// Throws the first frames away.
    fn discard(&mut self, frames: u32, pause: Duration) -> Result<(), SourceError> {
        let began = self.clock.now();
        let mut thrown = 0;
        while thrown < frames || self.clock.now().since(began) < pause * frames {
            let waited = self.clock.now().since(began);
            if waited > START_TIMEOUT {
                let reason = format!(
                    "it gave {thrown} frames in {} s: use a USB 3 port and cable, reset the camera, or take a lower rate",
                    waited.as_secs()
                );
                return Err(SourceError::NoCamera { wanted: self.device.clone(), reason });
            }
            if let Some(buffer) = self.take(Duration::from_millis(100))? {
                thrown += 1;
                self.give_back(buffer.index)?;
            }
        }
        Ok(())
    }

    /// The next filled buffer, or `None` after `timeout`.
    fn take(&mut self, timeout: Duration) -> Result<Option<abi::Buffer>, SourceError> {
        let until = self.clock.now() + timeout;
        loop {
            let left = until.since(self.clock.now());
            if !self.driver.wait(left).map_err(|error| self.lost(&error))? {
                return Ok(None);
            }
            match self.driver.dequeue() {
                Ok(buffer) => return Ok(Some(buffer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.lost(&error)),
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    fn give_back(&mut self, index: u32) -> Result<(), SourceError> {
        self.driver.queue(index).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &io::Error) -> SourceError {
        SourceError::Disconnected { source_name: self.description.name.clone(), reason: error.to_string() }
    }

    /// How long the camera exposes, as far as it says; kept where it does not.
    fn read_exposure(&mut self) {
        if let Ok(value) = self.driver.control(control_id(Control::Exposure)) {
            self.exposure = EXPOSURE_UNIT * u32::try_from(value).unwrap_or(0);
        }
    }

    fn stamps(&mut self, buffer: &abi::Buffer, arrived: MonotonicTime) -> FrameStamps {
        let stamp =
            buffer.seconds.saturating_mul(1_000_000_000).saturating_add(buffer.microseconds.saturating_mul(1_000));
        let device = DeviceTime::from_nanos(stamp);
        let half_exposure = nanos(self.exposure / 2);
        let from_start = buffer.flags & abi::BUF_FLAG_TSTAMP_SRC_MASK == abi::BUF_FLAG_TSTAMP_SRC_SOE;
        let monotonic = buffer.flags & abi::BUF_FLAG_TIMESTAMP_MASK == abi::BUF_FLAG_TIMESTAMP_MONOTONIC;
        let to_middle = match self.stamp_delay {
            Some(delay) => -nanos(delay),
            None if from_start => half_exposure,
            None => -half_exposure,
        };
        let middle = if monotonic {
            stamp.saturating_add(to_middle)
        } else {
            // Its own clock. The map takes the measured delay off itself; without one the stamp's place in the exposure is
            // all that is known.
            let mapped = self.map.observe(device, arrived).time.as_nanos();
            if self.stamp_delay.is_some() { mapped } else { mapped.saturating_add(to_middle) }
        };
        let exposed_at = MonotonicTime::from_nanos(middle).min(arrived);
        FrameStamps { exposed_at, device: Some(device), arrived }
    }
}

impl<D: Driver> FrameSource for Camera<D> {
    fn description(&self) -> &SourceDescription {
        &self.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        let until = self.clock.now() + timeout;
        loop {
            let left = until.since(self.clock.now());
            let Some(buffer) = self.take(left)? else {
                return Err(timed_out(&self.description.name, timeout));
            };
            let arrived = self.clock.now();
            let sequence = self.sequence.extend(buffer.sequence);
            if buffer.flags & abi::BUF_FLAG_ERROR != 0 {
                // Damaged on the bus. It shows as a gap in the sequence.
                self.give_back(buffer.index)?;
                continue;
            }
            into.sequence = sequence;
            into.stamps = self.stamps(&buffer, arrived);
            let bytes = self.driver.bytes(buffer.index);
            let raw = RawFrame {
                format: self.format,
                width: self.description.width,
                height: self.description.height,
                stride_bytes: self.stride_bytes,
                bytes: &bytes[..bytes.len().min(buffer.bytesused as usize)],
            };
            let unpacked = unpack(&raw, self.keep_colour, &mut into.grey, &mut into.colour, &self.device);
            // The buffer goes back whatever was in it.
            self.give_back(buffer.index)?;
            return unpacked;
        }
    }

    fn locked(&self) -> ControlValues {
        self.locked
    }

    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        self.read_exposure();
        let mut found = ControlValues::default();
        for (control, _) in self.locked.iter() {
            // One that cannot be read is missing in the answer, and the watch says so.
            found.set(control, self.driver.control(control_id(control)).ok().map(i64::from));
        }
        Ok(found)
    }
}

impl<D: Driver> Drop for Camera<D> {
    fn drop(&mut self) {
        // A device that is unplugged has stopped by itself.
        let _ = self.driver.stream(false);
    }
}

fn failed(device: &str, request: &'static str, error: &io::Error) -> SourceError {
    SourceError::Driver { device: device.to_owned(), request, reason: open_advice(error) }
}

/// Sets format and rate, and accepts nothing else than what was asked for.
fn negotiate<D: Driver>(
    driver: &mut D,
    device: &str,
    settings: &V4l2Settings,
) -> Result<abi::PixelLayout, SourceError> {
    let no_camera = |reason: String| SourceError::NoCamera { wanted: device.to_owned(), reason };
    let capability = driver.capability().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL) => no_camera("it is no video device".to_owned()),
        _ => failed(device, "VIDIOC_QUERYCAP", &error),
    })?;
    let of_device = capability.capabilities & abi::CAP_DEVICE_CAPS != 0;
    let abilities = if of_device { capability.device_caps } else { capability.capabilities };
    let needed = abi::CAP_VIDEO_CAPTURE | abi::CAP_STREAMING;
    if abilities & needed != needed {
        return Err(no_camera("it does not capture video (a metadata or output device of a camera)".to_owned()));
    }
    let wanted = abi::PixelLayout {
        width: settings.width as u32,
        height: settings.height as u32,
        pixelformat: settings.format.fourcc(),
        field: abi::FIELD_NONE,
        ..abi::PixelLayout::default()
    };
    let offered = |driver: &mut D, found: String| {
        let formats = (0..64).map_while(|index| driver.format(index).ok());
        let names: Vec<String> = formats.map(|format| fourcc_text(format.pixelformat)).collect();
        SourceError::Format {
            device: device.to_owned(),
            wanted: format!(
                "{} {}x{} at {} Hz",
                fourcc_text(wanted.pixelformat),
                wanted.width,
                wanted.height,
                settings.rate_hz
            ),
            offered: format!("{found} (formats: {})", names.join(", ")),
        }
    };
    let layout = match driver.set_format(wanted) {
        Ok(layout) => layout,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(offered(driver, "nothing like it".into()));
        }
        Err(error) => return Err(failed(device, "VIDIOC_S_FMT", &error)),
    };
    let same = |l: &abi::PixelLayout| (l.width, l.height, l.pixelformat);
    if same(&layout) != same(&wanted) {
        let text = format!("{} {}x{}", fourcc_text(layout.pixelformat), layout.width, layout.height);
        return Err(offered(driver, text));
    }
    // In thousandths, which holds 29.97 and 30 alike.
    let period = driver.set_period(1000, (settings.rate_hz * 1000.0).round() as u32);
    let period = period.map_err(|error| failed(device, "VIDIOC_S_PARM", &error))?;
    if let Some((numerator, denominator)) = period {
        let rate_hz = f64::from(denominator) / f64::from(numerator.max(1));
        if (rate_hz / settings.rate_hz - 1.0).abs() > 0.01 {
            return Err(offered(driver, format!("{rate_hz:.2} Hz at this size")));
        }
    }
    Ok(layout)
}

fn fourcc_text(fourcc: u32) -> String {
    fourcc.to_le_bytes().map(|b| if b.is_ascii_graphic() { b as char } else { ' ' }).iter().collect()
}

const fn control_id(control: Control) -> u32 {
    match control {
        Control::AutoExposure => 0x009A_0901,
        Control::Exposure => 0x009A_0902,
        Control::AutoExposurePriority => 0x009A_0903,
        Control::Focus => 0x009A_090A,
        Control::AutoFocus => 0x009A_090C,
        Control::AutoWhiteBalance => 0x0098_090C,
        Control::Gain => 0x0098_0913,
        Control::PowerLine => 0x0098_0918,
        Control::WhiteBalance => 0x0098_091A,
    }
}

/// Sets the wanted controls and reads them back.
fn set_controls<D: Driver>(driver: &mut D, device: &str, wanted: &ControlValues) -> Result<ControlValues, SourceError> {
    for (control, value) in wanted.iter() {
        let refuse =
            |reason: String| SourceError::Control { device: device.to_owned(), control, wanted: value, reason };
        let range = driver.control_range(control_id(control));
        let range = range.ok().filter(|range| range.flags & abi::CTRL_FLAG_DISABLED == 0);
        let range = range.ok_or_else(|| refuse("the camera has no such control; leave it out".to_owned()))?;
        let in_range = i32::try_from(value).ok().filter(|value| (range.minimum..=range.maximum).contains(value));
        let value = in_range.ok_or_else(|| {
            refuse(format!("it goes from {} to {} in steps of {}", range.minimum, range.maximum, range.step))
        })?;
        driver.set_control(control_id(control), value).map_err(|error| refuse(error.to_string()))?;
    }
    check_controls(driver, device, wanted)?;
    Ok(*wanted)
}

fn check_controls<D: Driver>(driver: &mut D, device: &str, wanted: &ControlValues) -> Result<(), SourceError> {
    for (control, wanted) in wanted.iter() {
        let found = driver.control(control_id(control)).map_err(|error| failed(device, "VIDIOC_G_CTRL", &error))?;
        if i64::from(found) != wanted {
            let (device, found) = (device.to_owned(), i64::from(found));
            return Err(SourceError::ControlNotKept { device, control, wanted, found });
        }
    }
    Ok(())
}

/// The driver counts in 32 bits, which wrap after 4.5 years at 30 Hz but begin anywhere.
#[derive(Debug, Clone, Copy, Default)]
struct SequenceCounter {
    last: Option<(u32, u64)>,
}

impl SequenceCounter {
    fn extend(&mut self, sequence: u32) -> u64 {
        let long = match self.last {
            None => u64::from(sequence),
            // A count that runs back has begun anew; the watch takes the leap for what it is.
            Some((last, long)) => long + u64::from(sequence.wrapping_sub(last)),
        };
        self.last = Some((sequence, long));
        long
    }
}

#[cfg(test)]
mod tests;
