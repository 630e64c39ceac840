//! `vision/full`, `vision/track` and `vision/three_cameras`.

use super::three_cameras::{ThreeCameras, three_cameras};
use super::{EXPOSURE_S, HEIGHT, PERIOD, WIDTH, lens};
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, SyntheticCamera};
use crate::track::{SearchPriority, SliceSearch, SliceSettings, Tracker, TrackerSettings};
use crate::{Camera, Detector, DetectorSettings, GreyImage, Rig, VisionError};
use serde::Serialize;
use std::time::{Duration, Instant};
use tenon_core::time::MonotonicTime;

/// Speed of the leg that is carried through the pictures.
const SPEED_M_S: f64 = 0.25;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct BenchSettings {
    /// Different pictures of each camera; they are played to and fro.
    pub pictures: usize,
    /// Frames timed for `vision/full`, `vision/track` and the library.
    pub frames: usize,
    /// Frames of each of the three cameras, of which the first 30 only warm up; 0 leaves that part out.
    pub camera_frames: usize,
    pub detector: DetectorSettings,
    pub priority: SearchPriority,
}

impl Default for BenchSettings {
    /// The detector of perception.md section 4 with its recommended least decision margin.
    fn default() -> Self {
        Self {
            pictures: 30,
            frames: 120,
            camera_frames: 300,
            detector: DetectorSettings { min_decision_margin: 30.0, ..Default::default() },
            priority: SearchPriority::default(),
        }
    }
}

impl BenchSettings {
    /// Fewer frames: some ten seconds.
    pub fn quick() -> Self {
        Self { pictures: 10, frames: 30, camera_frames: 90, ..Self::default() }
    }
}

/// Times of one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    pub name: String,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Median of the processor time, which does not count waiting for a processor.
    pub busy_p50_ms: f64,
}

/// Processor time that the calling thread has used.
pub(super) fn processor_time() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

impl Timing {
    /// `times`: wall clock and processor time of each run; NaN in all numbers where there is none.
    pub(super) fn of(name: &str, times: &[(Duration, Duration)]) -> Self {
        let sorted = |pick: fn(&(Duration, Duration)) -> Duration| {
            let mut sorted: Vec<Duration> = times.iter().map(pick).collect();
            sorted.sort_unstable();
            sorted
        };
        let (wall, busy) = (sorted(|t| t.0), sorted(|t| t.1));
        let (p50_ms, p99_ms, max_ms) = (quantile_ms(&wall, 0.5), quantile_ms(&wall, 0.99), quantile_ms(&wall, 1.0));
        let busy_p50_ms = quantile_ms(&busy, 0.5);
        Self { name: name.to_owned(), count: times.len(), p50_ms, p99_ms, max_ms, busy_p50_ms }
    }
}

fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.max(1) - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Runs `work` and adds how long it took, on the clock and on the processor.
pub(super) fn timed<T>(times: &mut Vec<(Duration, Duration)>, work: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), processor_time());
    let result = work();
    times.push((start.elapsed(), processor_time().saturating_sub(before)));
    result
}

/// The table of `tenon bench vision`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VisionBench {
    pub width: usize,
    pub height: usize,
    pub processors: usize,
    /// Mean number of tags in the pictures of `vision/track`.
    pub tags_in_view: f64,
    /// `library`, `vision/full`, `vision/track`.
    pub timings: Vec<Timing>,
    /// Ratio of the medians of processor time: how many times faster than the library the whole search is.
    pub full_over_library: f64,
    /// The same for tracking against our own whole search, and against the library's.
    pub track_over_full: f64,
    pub track_over_library: f64,
    /// Tags that the library found and tracking did not, and the number the library found.
    pub missed: usize,
    pub found_by_library: usize,
    /// Mean share of a frame that tracking searched.
    pub searched_share: f64,
    /// Largest distance between corners of tracking and of the whole search, px.
    pub worst_corner_px: f64,
    pub three_cameras: Option<ThreeCameras>,
}

/// Pictures of one camera, one after another in time.
pub(super) fn pictures(view: usize, count: usize) -> Result<(Camera, Vec<GreyImage>), VisionError> {
    let rig = Rig::built_in()?;
    let bench = Workbench::one_leg(&rig, SPEED_M_S)?;
    let lens = lens()?;
    let mut camera = SyntheticCamera::new(lens, WIDTH, HEIGHT, CameraEffects::default(), 11 + view as u64)?;
    let T_april_camera = three_views()[view];
    let mut out = Vec::with_capacity(count);
    for frame in 0..count {
        let motions = bench.motions(&T_april_camera, frame as f64 * PERIOD.as_secs_f64(), EXPOSURE_S);
        let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
        camera.shoot(&bench.scene, &motions, frame as u64, &mut image)?;
        out.push(image);
    }
    Ok((lens, out))
}

/// To and fro, so that motion has no jump.
pub(super) fn picture_of(frame: usize, count: usize) -> usize {
    let period = (2 * count).saturating_sub(2).max(1);
    let place = frame % period;
    if place < count { place } else { period - place }
}

fn stamp(frame: usize) -> MonotonicTime {
    MonotonicTime::from_nanos(1_000_000_000) + PERIOD * frame as u32
}

/// Runs everything; takes some tens of seconds.
pub fn speed(settings: &BenchSettings) -> Result<VisionBench, VisionError> {
    let count = settings.pictures.max(2);
    let (_, images) = pictures(1, count)?;
    let tracker_settings = TrackerSettings { detector: settings.detector, ..Default::default() };
    let mut library = Detector::plain(settings.detector)?;
    let mut whole = Tracker::new(tracker_settings)?;
    let mut tracker = Tracker::new(tracker_settings)?;
    let mut slices = SliceSearch::new(&SliceSettings::default(), &settings.detector, WIDTH, HEIGHT)?;
    let mut plain = Vec::new();
    let mut times: [Vec<(Duration, Duration)>; 3] = std::array::from_fn(|_| Vec::with_capacity(settings.frames));
    let (mut tags, mut missed, mut found_by_library, mut searched) = (0, 0, 0, 0);
    let mut worst_corner_px = 0.0f64;
    tracker.search_whole(images[0].view(), stamp(0))?;
    // The three take turns on every picture, so that what else the machine does strikes all alike.
    for frame in 1..=settings.frames.max(1) {
        let image = images[picture_of(frame, count)].view();
        timed(&mut times[0], || library.detect_into(image, &mut plain))?;
        timed(&mut times[1], || whole.search_whole(image, stamp(frame)).map(|_| ()))?;
        timed(&mut times[2], || tracker.track(image, stamp(frame)).map(|_| ()))?;
        // Not timed here: it runs beside the tracking.
        tracker.offer(slices.next_slice(image)?, stamp(frame));
        let there = |id: u32| tracker.found().iter().find(|tag| tag.id == id);
        missed += plain.iter().filter(|tag| there(tag.id).is_none()).count();
        found_by_library += plain.len();
        tags += tracker.found().len();
        searched += tracker.last_frame().searched_px;
        for tag in whole.found() {
            let corners = there(tag.id).map(|other| tag.corners_px.iter().zip(other.corners_px));
            for (a, b) in corners.into_iter().flatten() {
                worst_corner_px = worst_corner_px.max((a[0] - b[0]).hypot(a[1] - b[1]));
            }
        }
    }
    let frames = times[0].len() as f64;
    let [library, full, track] = &times;
    let timings =
        vec![Timing::of("library", library), Timing::of("vision/full", full), Timing::of("vision/track", track)];
    let three_cameras = match settings.camera_frames {
        0 => None,
        frames => Some(three_cameras(settings, frames, count)?),
    };
    let ratio = |a: usize, b: usize| timings[a].busy_p50_ms / timings[b].busy_p50_ms;
    Ok(VisionBench {
        width: WIDTH,
        height: HEIGHT,
        processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
        tags_in_view: tags as f64 / frames,
        full_over_library: ratio(0, 1),
        track_over_full: ratio(1, 2),
        track_over_library: ratio(0, 2),
        timings,
        missed,
        found_by_library,
        searched_share: searched as f64 / frames / (WIDTH * HEIGHT) as f64,
        worst_corner_px,
        three_cameras,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_was_measured_and_tracking_is_much_faster_than_a_whole_search() {
        let settings = BenchSettings { pictures: 4, frames: 12, camera_frames: 45, ..Default::default() };
        let table = speed(&settings).unwrap();
        println!("{table:#?}");
        assert_eq!(table.timings.iter().map(|t| t.count).collect::<Vec<_>>(), [12, 12, 12]);
        for timing in &table.timings {
            assert!(0.0 < timing.p50_ms && timing.p50_ms <= timing.p99_ms && timing.p99_ms <= timing.max_ms);
        }
        // A busy machine blurs the figures; only gross mistakes are caught here.
        assert!(table.track_over_library > 6.0 && table.full_over_library > 1.3, "{table:?}");
        assert!(table.tags_in_view > 8.0 && table.missed * 20 <= table.found_by_library, "{table:?}");
        assert!(table.worst_corner_px < 0.05, "{}", table.worst_corner_px);
        let cameras = table.three_cameras.unwrap();
        assert!(cameras.frames + cameras.dropped == 3 * 15 && cameras.tags_per_frame > 6.0, "{cameras:?}");
        assert!(cameras.frames > 9 && cameras.parts_ready == 5, "{cameras:?}");
        assert!(cameras.frame_to_pose.count == cameras.frames && cameras.frame_to_pose.p50_ms > 0.0, "{cameras:?}");
    }

    #[test]
    fn pictures_are_played_to_and_fro_without_a_jump() {
        let order: Vec<usize> = (0..9).map(|frame| picture_of(frame, 4)).collect();
        assert_eq!(order, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
    }
}
