//! `vision/full`, `vision/track` and `vision/three_cameras`.

use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, SyntheticCamera};
use crate::track::{BackgroundSearch, Exchange, SearchPriority, SliceSearch, SliceSettings, Tracker, TrackerSettings};
use crate::{Camera, Detector, DetectorSettings, GreyImage, Rig, VisionError, body_pose};
use serde::Serialize;
use std::time::{Duration, Instant};
use tenon_core::time::MonotonicTime;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const FOCAL_PX: f64 = 915.0;
const PERIOD: Duration = Duration::from_nanos(33_333_333);
const EXPOSURE_S: f64 = 0.004;
/// Speed of the leg that is carried through the pictures.
const SPEED_M_S: f64 = 0.25;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct BenchSettings {
    /// Different pictures of each camera; they are played to and fro.
    pub pictures: usize,
    /// Frames timed for `vision/full`, `vision/track` and the library.
    pub frames: usize,
    /// Frames of each of the three cameras; 0 leaves that part out.
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

/// Times of one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    pub name: String,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Processor time that the calling thread has used.
fn processor_time() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

impl Timing {
    /// `times` may not be empty; they are sorted.
    fn of(name: &str, times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let ms = |share: f64| {
            let index = (share * times.len() as f64).ceil() as usize;
            times[index.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
        };
        Self { name: name.to_owned(), count: times.len(), p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: ms(1.0) }
    }
}

/// Three cameras at 30 Hz, each on a thread of its own, with their slices searched on threads of low priority.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThreeCameras {
    /// From the moment a frame is there to the poses of all bodies in it.
    pub frame_to_pose: Timing,
    /// Frames that came before the last one's poses were done.
    pub dropped: usize,
    /// Processor time of tracking and poses, mean of a frame: does not count waiting for a processor.
    pub busy_ms_per_frame: f64,
    /// Slices searched in the background a second and camera.
    pub slices_per_s: f64,
    /// Mean number of tags in a frame.
    pub tags_per_frame: f64,
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
    /// Ratio of medians: how many times faster than the library the whole search is.
    pub full_over_library: f64,
    /// The same for tracking against our own whole search.
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
fn pictures(view: usize, count: usize) -> Result<(Camera, Vec<GreyImage>), VisionError> {
    let rig = Rig::built_in()?;
    let bench = Workbench::one_leg(&rig, SPEED_M_S)?;
    let lens = Camera::pinhole(FOCAL_PX, FOCAL_PX, WIDTH as f64 / 2.0, HEIGHT as f64 / 2.0)?;
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
fn picture_of(frame: usize, count: usize) -> usize {
    let period = (2 * count).saturating_sub(2).max(1);
    let place = frame % period;
    if place < count { place } else { period - place }
}

fn stamp(frame: usize) -> MonotonicTime {
    MonotonicTime::from_nanos(1_000_000_000) + PERIOD * frame as u32
}

/// Runs everything; takes some tens of seconds.
///
/// # Panics
/// When a camera's thread does.
pub fn speed(settings: &BenchSettings) -> Result<VisionBench, VisionError> {
    let count = settings.pictures.max(2);
    let (_, images) = pictures(1, count)?;
    let tracker_settings = TrackerSettings { detector: settings.detector, ..Default::default() };
    let mut library = Detector::new(settings.detector)?;
    let mut whole = Tracker::new(tracker_settings)?;
    let mut tracker = Tracker::new(tracker_settings)?;
    let mut slices = SliceSearch::new(&SliceSettings::default(), &settings.detector, WIDTH, HEIGHT)?;
    let mut plain = Vec::new();
    let mut times: [Vec<Duration>; 3] = std::array::from_fn(|_| Vec::with_capacity(settings.frames));
    let (mut tags, mut missed, mut found_by_library, mut searched) = (0, 0, 0, 0);
    let mut worst_corner_px = 0.0f64;
    tracker.search_whole(images[0].view(), stamp(0))?;
    // The three take turns on every picture, so that what else the machine does strikes all alike.
    for frame in 1..=settings.frames.max(1) {
        let image = images[picture_of(frame, count)].view();
        let start = Instant::now();
        library.detect_into(image, &mut plain)?;
        times[0].push(start.elapsed());
        let start = Instant::now();
        whole.search_whole(image, stamp(frame))?;
        times[1].push(start.elapsed());
        let start = Instant::now();
        tracker.track(image, stamp(frame))?;
        times[2].push(start.elapsed());
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
    let [library, full, track] = &mut times;
    let timings =
        vec![Timing::of("library", library), Timing::of("vision/full", full), Timing::of("vision/track", track)];
    let three_cameras = match settings.camera_frames {
        0 => None,
        frames => Some(three_cameras(settings, frames, count)?),
    };
    Ok(VisionBench {
        width: WIDTH,
        height: HEIGHT,
        processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
        tags_in_view: tags as f64 / frames,
        full_over_library: timings[0].p50_ms / timings[1].p50_ms,
        track_over_full: timings[1].p50_ms / timings[2].p50_ms,
        track_over_library: timings[0].p50_ms / timings[2].p50_ms,
        timings,
        missed,
        found_by_library,
        searched_share: searched as f64 / frames / (WIDTH * HEIGHT) as f64,
        worst_corner_px,
        three_cameras,
    })
}

/// What one camera's thread saw.
struct CameraRun {
    times: Vec<Duration>,
    dropped: usize,
    busy: Duration,
    slices: u64,
    tags: usize,
}

fn three_cameras(settings: &BenchSettings, frames: usize, count: usize) -> Result<ThreeCameras, VisionError> {
    let sets = (0..3).map(|view| pictures(view, count)).collect::<Result<Vec<_>, _>>()?;
    // The cameras' clocks are not synchronised: a third of a period apart.
    let begin = Instant::now() + Duration::from_millis(50);
    let runs = std::thread::scope(|scope| {
        let threads: Vec<_> = sets
            .iter()
            .enumerate()
            .map(|(view, (lens, images))| {
                let first = begin + PERIOD * view as u32 / 3;
                scope.spawn(move || one_camera(settings, frames, lens, images, first))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("a camera's thread does not panic"));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let mut times: Vec<Duration> = runs.iter().flat_map(|run| run.times.iter().copied()).collect();
    let seen = times.len().max(1) as f64;
    let slices = runs.iter().map(|run| run.slices).sum::<u64>() as f64;
    Ok(ThreeCameras {
        frame_to_pose: Timing::of("vision/three_cameras", &mut times),
        dropped: runs.iter().map(|run| run.dropped).sum(),
        busy_ms_per_frame: runs.iter().map(|run| run.busy.as_secs_f64()).sum::<f64>() * 1e3 / seen,
        slices_per_s: slices / (frames as f64 * PERIOD.as_secs_f64()) / 3.0,
        tags_per_frame: runs.iter().map(|run| run.tags).sum::<usize>() as f64 / seen,
    })
}

/// One camera from its first frame: poses of all bodies of each frame, then the hand-over of a slice.
fn one_camera(
    settings: &BenchSettings,
    frames: usize,
    lens: &Camera,
    images: &[GreyImage],
    first: Instant,
) -> Result<CameraRun, VisionError> {
    let rig = Rig::built_in()?;
    let mut tracker = Tracker::new(TrackerSettings { detector: settings.detector, ..Default::default() })?;
    let slices = SliceSettings::default();
    let size = (WIDTH, HEIGHT);
    let mut search = BackgroundSearch::start("tag-slices", &slices, &settings.detector, size, settings.priority)?;
    let parts = rig.parts.iter().filter(|part| part.furniture.iter().any(|name| name == "one_leg"));
    let bodies: Vec<_> = parts.map(|part| (part.name.as_str(), part.tags.as_slice())).collect();
    let mut run = CameraRun { times: Vec::with_capacity(frames), dropped: 0, busy: Duration::ZERO, slices: 0, tags: 0 };
    let mut frame = 0;
    // As at the start of a run: the first picture is searched whole, before the clock starts.
    tracker.search_whole(images[0].view(), stamp(0))?;
    while frame < frames {
        let there = first + PERIOD * frame as u32;
        let now = Instant::now();
        if now < there {
            std::thread::sleep(there - now);
        }
        let image = images[picture_of(frame, images.len())].view();
        let before = processor_time();
        tracker.track(image, stamp(frame))?;
        let board = body_pose(crate::rig::BASE_BOARD, lens, &rig.base_tags, tracker.found());
        std::hint::black_box(board.is_ok());
        for (name, tags) in &bodies {
            // A body none of whose tags is seen has no pose in this frame.
            std::hint::black_box(body_pose(name, lens, tags, tracker.found()).is_ok());
        }
        run.times.push(there.elapsed());
        run.busy += processor_time() - before;
        run.tags += tracker.found().len();
        if search.exchange(image, stamp(frame), &mut tracker)? == Exchange::Ended {
            return Err(VisionError::DetectorCreate);
        }
        // The newest frame wins: those that came meanwhile are dropped.
        let next = (there.elapsed().as_nanos() / PERIOD.as_nanos()) as usize;
        run.dropped += next.saturating_sub(1).min(frames - frame - 1);
        frame += next.max(1);
    }
    run.slices = search.searched_slices();
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_was_measured_and_tracking_is_much_faster_than_a_whole_search() {
        let settings = BenchSettings { pictures: 4, frames: 12, camera_frames: 12, ..Default::default() };
        let table = speed(&settings).unwrap();
        println!("{table:#?}");
        assert_eq!(table.timings.iter().map(|t| t.count).collect::<Vec<_>>(), [12, 12, 12]);
        for timing in &table.timings {
            assert!(0.0 < timing.p50_ms && timing.p50_ms <= timing.p99_ms && timing.p99_ms <= timing.max_ms);
        }
        // A busy machine blurs the figures; only gross mistakes are caught here.
        assert!(table.track_over_full > 3.0 && table.full_over_library > 0.6, "{table:?}");
        assert!(table.tags_in_view > 8.0 && table.missed * 20 <= table.found_by_library, "{table:?}");
        assert!(table.worst_corner_px < 0.05, "{}", table.worst_corner_px);
        let cameras = table.three_cameras.unwrap();
        assert!(cameras.frame_to_pose.count + cameras.dropped >= 36 && cameras.tags_per_frame > 6.0, "{cameras:?}");
    }

    #[test]
    fn pictures_are_played_to_and_fro_without_a_jump() {
        let order: Vec<usize> = (0..9).map(|frame| picture_of(frame, 4)).collect();
        assert_eq!(order, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
    }
}
