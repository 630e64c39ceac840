//! The rig's cameras, opened: each on its own thread, with what its calibration holds for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nalgebra::Matrix6;
use tenon_calibrate::steps::place::camera_of;
use tenon_calibrate::wizard::CameraChoice;
use tenon_calibrate::wizard::sources::Kind;
use tenon_core::config::rig::{CameraRecord, RigCalibration};
use tenon_core::config::{CameraWatchConfig, CamerasConfig};
use tenon_vision::PlacedCamera;
use tenon_vision::pipeline::PipelineCamera;
use tenon_vision::source::{
    CameraChoice as Device, CameraReader, CameraThreadSettings, Clock, Delayed, Doorbell, Expected, FrameSource, Pace,
    RecordedRun, Serial, SourceError, V4l2Camera, V4l2Settings, WatchConfig, spawn,
};

/// How long a camera may take to its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// A camera that gives frames.
pub struct OpenCamera {
    pub name: String,
    pub serial: String,
    pub placed: PlacedCamera,
    /// Of its place, as the calibration found it.
    pub place_covariance: Matrix6<f64>,
    /// Width and height, px.
    pub size: (usize, usize),
    pub reader: CameraReader,
}

impl OpenCamera {
    pub fn into_pipeline(self) -> PipelineCamera {
        PipelineCamera { placed: self.placed, size: self.size, reader: self.reader }
    }
}

/// Opens `choices`, or without any every camera that has a place, by its serial number, and waits for a frame of each.
///
/// # Errors
/// A camera that the calibration does not know, cannot be opened, or is another one than was calibrated.
pub fn open(
    config: &CamerasConfig,
    calibration: &RigCalibration,
    choices: &[CameraChoice],
    clock: &Arc<dyn Clock>,
) -> Result<Vec<OpenCamera>> {
    let mut opened = Vec::new();
    if choices.is_empty() {
        for record in calibration.camera.iter().filter(|record| record.place.is_some()) {
            let kind = Kind::V4l2 { serial: record.serial.clone() };
            opened.push(open_one(config, calibration, record, kind, clock)?);
        }
    } else {
        for choice in choices {
            let record = calibration.camera.iter().find(|record| record.name == choice.name).with_context(|| {
                let known: Vec<&str> = calibration.camera.iter().map(|record| record.name.as_str()).collect();
                format!(
                    "camera {}: the calibration of rig {} knows {}",
                    choice.name,
                    calibration.rig,
                    if known.is_empty() { "no camera".to_owned() } else { known.join(", ") }
                )
            })?;
            opened.push(open_one(config, calibration, record, choice.kind.clone(), clock)?);
        }
    }
    for camera in &mut opened {
        await_frame(camera, clock)?;
    }
    Ok(opened)
}

fn open_one(
    config: &CamerasConfig,
    calibration: &RigCalibration,
    record: &CameraRecord,
    kind: Kind,
    clock: &Arc<dyn Clock>,
) -> Result<OpenCamera> {
    let name = record.name.clone();
    let of = || format!("camera {name}");
    let place = record.place.as_ref().with_context(|| {
        format!("camera {name} has no place in the base board's frame: run `tenon-calibrate place`")
    })?;
    let covariance = place.covariance();
    let sigma = |at: usize| (covariance.fixed_view::<3, 3>(at, at).trace() / 3.0).max(0.0).sqrt();
    let placed = PlacedCamera {
        camera: camera_of(&record.intrinsics).with_context(of)?,
        T_april_camera: place.T_april_camera(),
        position_sigma_m: sigma(0),
        rotation_sigma_rad: sigma(3),
    };
    let serial = Serial::new(&record.serial).with_context(of)?;
    let [width, height] = record.resolution_px.map(|n| n as usize);
    let expected = Expected { serial: Some(serial), size_px: Some([width, height]) };
    let mut settings = CameraThreadSettings::of_rate(config.rate_hz, expected);
    apply(&config.watch, &mut settings.watch);
    let opener =
        with_delay(opener(config, &name, kind, (width, height), clock)?, delay_of(calibration, &record.serial));
    let reader = spawn(opener, settings, Arc::clone(clock), &Doorbell::default()).with_context(of)?;
    Ok(OpenCamera {
        serial: record.serial.clone(),
        placed,
        place_covariance: covariance,
        size: (width, height),
        reader,
        name,
    })
}

/// What a file says in place of the limits that follow from the rate.
fn apply(config: &CameraWatchConfig, watch: &mut WatchConfig) {
    watch.max_frame_age_s = config.max_frame_age_s.unwrap_or(watch.max_frame_age_s);
    watch.least_rate_fraction = config.least_rate_fraction.unwrap_or(watch.least_rate_fraction);
    watch.max_dropped_fraction = config.max_dropped_fraction.unwrap_or(watch.max_dropped_fraction);
    watch.frozen_frames = config.frozen_frames.unwrap_or(watch.frozen_frames);
}

type BoxedOpener = Box<dyn FnMut() -> Result<Box<dyn FrameSource>, SourceError> + Send>;

fn opener(
    config: &CamerasConfig,
    name: &str,
    kind: Kind,
    (width, height): (usize, usize),
    clock: &Arc<dyn Clock>,
) -> Result<BoxedOpener> {
    let clock = Arc::clone(clock);
    Ok(match kind {
        Kind::V4l2 { serial } => {
            let settings = V4l2Settings {
                width,
                height,
                rate_hz: config.rate_hz,
                ..V4l2Settings::realsense_colour(name, i64::from(config.exposure_100us))
            };
            let device = Device::Serial(Serial::new(&serial)?);
            Box::new(move || {
                V4l2Camera::open(&device, &settings, Arc::clone(&clock)).map(|camera| Box::new(camera) as _)
            })
        }
        Kind::Recorded { folder } => Box::new(move || {
            RecordedRun::open(&folder, Pace::RealTime, false, Arc::clone(&clock)).map(|run| Box::new(run) as _)
        }),
        Kind::Images { .. } | Kind::Simulated => {
            bail!("camera {name}: a run sees through v4l2:SERIAL or recorded:DIR; pictures have no times")
        }
    })
}

/// From the middle of a frame's exposure to the frame in hand, where it was measured.
fn delay_of(calibration: &RigCalibration, serial: &str) -> Option<Duration> {
    let known = calibration.latency.as_ref()?.camera.iter().find(|camera| camera.serial == serial)?;
    Duration::try_from_secs_f64(known.delay.p50_s).ok()
}

/// The same sources, their stamps corrected by a measured delay.
fn with_delay(mut open: BoxedOpener, delay: Option<Duration>) -> BoxedOpener {
    match delay {
        None => open,
        Some(delay) => Box::new(move || open().map(|source| Box::new(Delayed::new(source, delay)) as _)),
    }
}

fn await_frame(camera: &mut OpenCamera, clock: &Arc<dyn Clock>) -> Result<()> {
    let until = Instant::now() + FIRST_FRAME;
    loop {
        let fresh = camera.reader.wait(Duration::from_millis(50)).is_some();
        let status = camera.reader.status(clock.now());
        if fresh && status.faults.spoiling().is_none() {
            return Ok(());
        }
        let over = Instant::now() > until || status.ended;
        // The reason of a failed opening says more than the age of a frame that never came.
        if let Some(error) = camera.reader.next_error().filter(|_| over) {
            return Err(error).with_context(|| format!("camera {}", camera.name));
        }
        if over {
            let faults = status.faults.lines(&camera.name, clock.now());
            bail!("camera {} gives no frame that can be used: {}", camera.name, faults.join("; "));
        }
    }
}
