//! `vision/three_cameras`: simulated cameras, their threads, tracking, solving and the board, as on a rig.

use super::speed::{BenchSettings, Timing, picture_of, pictures};
use super::{HEIGHT, PERIOD, WIDTH};
use crate::pipeline::{PipelineCamera, PipelineSettings, VisionThreads};
use crate::render::workbench::three_views;
use crate::source::{
    CameraThreadSettings, Clock, Doorbell, Expected, FrameSource, Pace, Serial, SimulatedDevice, SimulatedSettings,
    SourceError, SystemClock, spawn,
};
use crate::track::TrackerSettings;
use crate::{GreyImage, PlacedCamera, Rig, VisionError};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tenon_core::fusion::{Furniture, FusionConfig, PartBoard, T_robot_april_training};
use tenon_core::time::MonotonicTime;

/// Frames of each camera until its tags are found and all memory is taken.
const WARM_UP_FRAMES: u64 = 30;

/// Three cameras at 30 Hz, a third of a period apart, each with a thread that takes its frames, one that tracks and one of
/// low priority that searches slices; one thread solves the parts, and the calling one keeps the board.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThreeCameras {
    /// From the arrival of a frame to the fused poses of all parts in it on the board; its processor time is that of tracking
    /// and solving.
    pub frame_to_pose: Timing,
    /// Frames of all cameras, after the warm-up, that became poses, and that did not.
    pub frames: usize,
    pub dropped: usize,
    /// Processor time of all threads together, mean of a frame: the simulated cameras (which copy their pictures), the watch
    /// over them, tracking, slices, solving and the board. Times 90 frames a second it is what the processors must give.
    pub processor_ms_per_frame: f64,
    pub tracking_ms_per_frame: f64,
    pub solving_ms_per_frame: f64,
    /// Slices searched in the background a second and camera.
    pub slices_per_s: f64,
    /// Mean number of tags in a frame.
    pub tags_per_frame: f64,
    /// Parts of five that had a pose at the end.
    pub parts_ready: usize,
}

/// Processor time of all threads of this process.
fn processor_time_of_all() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// Plays `count` pictures of each view for `frames` frames.
pub(super) fn three_cameras(
    settings: &BenchSettings,
    frames: usize,
    count: usize,
) -> Result<ThreeCameras, VisionError> {
    let rig = Rig::built_in()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sets = (0..3).map(|view| pictures(view, count)).collect::<Result<Vec<_>, _>>()?;
    let tracker = TrackerSettings { detector: settings.detector, ..Default::default() };
    let pipeline = PipelineSettings { tracker, priority: settings.priority, ..PipelineSettings::threaded() };
    let mut board =
        PartBoard::new(Furniture::OneLeg, &FusionConfig::default(), &T_robot_april_training(), sets.len(), clock.now())
            .map_err(|error| refused(&error.to_string()))?;
    let mut cameras = Vec::new();
    // The cameras' clocks are not synchronised.
    let first = clock.now() + Duration::from_millis(20);
    for (view, (lens, images)) in sets.into_iter().enumerate() {
        clock.sleep_until(first + PERIOD * view as u32 / 3);
        let placed = PlacedCamera {
            camera: lens,
            T_april_camera: three_views()[view],
            position_sigma_m: 0.0,
            rotation_sigma_rad: 0.0,
        };
        cameras.push(camera(view, images, frames, placed, &clock).map_err(|error| refused(&error.to_string()))?);
    }
    let before = processor_time_of_all();
    let mut threads = VisionThreads::start(&rig, &board, cameras, &clock, &pipeline)?;
    let mut times = Vec::with_capacity(3 * frames);
    let (mut seen, mut tags, mut tracking, mut solving) = (0usize, 0, Duration::ZERO, Duration::ZERO);
    loop {
        let Some(frame) = threads.wait(Duration::from_millis(20)) else {
            if threads.have_ended() {
                break;
            }
            continue;
        };
        frame.update(&mut board, clock.now());
        let until_pose = clock.now().since(frame.stamps.arrived);
        seen += 1;
        if frame.sequence >= WARM_UP_FRAMES {
            times.push((until_pose, frame.tracking + frame.solving));
            tags += frame.tags;
            tracking += frame.tracking;
            solving += frame.solving;
        }
    }
    let used = processor_time_of_all().saturating_sub(before);
    let now = clock.now();
    let parts_ready = (0..5).filter(|&part| board.estimate(part, now, None).is_ok()).count();
    let slices: u64 = (0..3).map(|camera| threads.counts(camera).slices).sum();
    if let Some(error) = threads.next_error() {
        return Err(error);
    }
    let counted = times.len().max(1) as f64;
    let ms = |total: Duration| total.as_secs_f64() * 1e3 / counted;
    Ok(ThreeCameras {
        frame_to_pose: Timing::of("vision/three_cameras", &times),
        frames: times.len(),
        dropped: (3 * frames.saturating_sub(WARM_UP_FRAMES as usize)).saturating_sub(times.len()),
        processor_ms_per_frame: used.as_secs_f64() * 1e3 / seen.max(1) as f64,
        tracking_ms_per_frame: ms(tracking),
        solving_ms_per_frame: ms(solving),
        slices_per_s: slices as f64 / (frames as f64 * PERIOD.as_secs_f64()) / 3.0,
        tags_per_frame: tags as f64 / counted,
        parts_ready,
    })
}

/// A simulated camera that plays `images` to and fro, and its thread.
fn camera(
    view: usize,
    images: Vec<GreyImage>,
    frames: usize,
    placed: PlacedCamera,
    clock: &Arc<dyn Clock>,
) -> Result<PipelineCamera, SourceError> {
    let serial = Serial::new(&format!("SIMULATED{view}"))?;
    let simulated = SimulatedSettings {
        frames: Some(frames as u64),
        ..SimulatedSettings::of_size("bench", serial, WIDTH, HEIGHT, 1.0 / PERIOD.as_secs_f64(), Pace::RealTime)
    };
    let mut begun: Option<MonotonicTime> = None;
    let scene = move |at: MonotonicTime, grey: &mut GreyImage| {
        let since = at.since(*begun.get_or_insert(at));
        let frame = (since.as_secs_f64() / PERIOD.as_secs_f64()).round() as usize;
        grey.pixels_mut().copy_from_slice(images[picture_of(frame, images.len())].pixels());
    };
    let device = SimulatedDevice::new(simulated, scene, Vec::new(), Arc::clone(clock))?;
    let opener = move || device.open().map(|camera| Box::new(camera) as Box<dyn FrameSource>);
    let expected = Expected { serial: Some(serial), size_px: Some([WIDTH, HEIGHT]) };
    let settings = CameraThreadSettings::of_rate(1.0 / PERIOD.as_secs_f64(), expected);
    let reader = spawn(opener, settings, Arc::clone(clock), &Doorbell::default())?;
    Ok(PipelineCamera { placed, size: (WIDTH, HEIGHT), reader })
}

fn refused(message: &str) -> VisionError {
    VisionError::Layout { origin: "vision/three_cameras".to_owned(), message: message.to_owned() }
}
