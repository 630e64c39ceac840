//! Following tags from frame to frame: windows around where they should be are searched instead of the whole picture.
//!
//! ```text
//! frame ──► Tracker::track ── windows around predictions ──► detections of this frame
//!   │            ▲ offer(finds)
//!   └──► SliceSearch::next_slice (same thread) or BackgroundSearch::exchange (a thread of low priority)
//! ```
//!
//! A window is placed so that the C library finds in it what it finds in the whole frame ([`window`]), and corners are then
//! put onto the edges of the frame itself (`edges`), so that where a tag was searched leaves no trace. Detections are those
//! of this frame only, never predictions. A tag is followed from its first find: the slices' finds are hints that the
//! tracker confirms in the frame at hand. One that is not seen in its window is looked for in a growing window for a few
//! frames and then left to the slices. Prints of one id at two places are two tracks, and reported.

mod background;
mod edges;
mod slices;
pub mod window;

pub use background::{BackgroundSearch, Exchange, SearchPriority};
pub use slices::{SliceSearch, SliceSettings};
pub use window::{Window, WindowGrid};

use crate::pose::corners_in_tag;
use crate::{Camera, Detector, DetectorSettings, GreyView, Pose, TagDetection, TagOnBody, VisionError};
use nalgebra::Vector3;
use tenon_core::time::MonotonicTime;

/// How tags are followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackerSettings {
    pub detector: DetectorSettings,
    /// How far a tag may be from its prediction, px.
    pub margin_px: f64,
    /// The same for each pixel that the prediction moved it from frame to frame: acceleration grows with speed.
    pub margin_per_motion: f64,
    /// How far a tag that was found only once may have moved, px.
    pub first_margin_px: f64,
    /// Frames in which a tag that is no longer seen is still looked for, in a window that grows with each.
    pub lost_frames: u32,
    /// At most so many tags are followed; further finds wait until one is lost.
    pub max_tracks: usize,
    /// Replace the library's corners by those of `track::edges` (interpolated edges), in whole searches as in windows.
    pub refine_corners: bool,
}

impl Default for TrackerSettings {
    fn default() -> Self {
        Self {
            detector: DetectorSettings::default(),
            margin_px: 4.0,
            margin_per_motion: 0.5,
            first_margin_px: 24.0,
            lost_frames: 5,
            max_tracks: 64,
            refine_corners: true,
        }
    }
}

/// What the last call of [`Tracker::track`] went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackStats {
    /// Tags followed after the call, those that were not seen included.
    pub tracks: usize,
    pub windows: usize,
    /// Pixels of all windows.
    pub searched_px: usize,
    /// Tags found near a window's rim and searched again in one of their own.
    pub searched_again: usize,
    /// Tags given up in this frame.
    pub lost: usize,
    /// Places at which tags were looked for besides those of the tags that are followed ([`Tracker::look_for`]).
    pub looked_for: usize,
}

/// A tag that is followed.
#[derive(Debug, Clone, Copy)]
struct Track {
    id: u32,
    corners_px: [[f64; 2]; 4],
    /// Of each corner.
    velocity_px_s: [[f64; 2]; 4],
    seen_at: MonotonicTime,
    /// 0: a hint that no frame has confirmed.
    sightings: u32,
    /// Frames since it was last seen.
    misses: u32,
    /// Expected corners in the next frame, from elsewhere.
    expected_px: Option<[[f64; 2]; 4]>,
    /// Expected corners in this frame.
    predicted_px: [[f64; 2]; 4],
    /// Radius of the search around them, px.
    reach_px: f64,
    matched: bool,
}

/// Hints are dropped when so many frames do not confirm them.
const HINT_FRAMES: u32 = 2;
/// Motion is carried on for no longer than this, s.
const MAX_PREDICTION_S: f64 = 0.2;
/// What was found by a search that took long may have moved on meanwhile, at most this fast, px/s (a hand at 0.3 m/s, half a
/// metre away, seen with 915 px).
const HINT_SPEED_PX_S: f64 = 550.0;
/// Windows searched again at most in a frame.
const MAX_SEARCHES_AGAIN: usize = 8;
/// Places to look at besides the followed tags', at most in a frame.
const MAX_LOOKS: usize = 64;
/// Tags seen more edge-on than this are not expected to be found (cosine to the line of sight).
const MIN_FACING: f64 = 0.15;

/// Follows the tags in one camera's frames.
#[derive(Debug)]
pub struct Tracker {
    settings: TrackerSettings,
    detector: Detector,
    grid: Option<WindowGrid>,
    tracks: Vec<Track>,
    /// Expected corners of tags that are not followed, and how far to look around them, px; for the next frame.
    looks: Vec<([[f64; 2]; 4], f64)>,
    windows: Vec<Window>,
    cutout: Vec<u8>,
    /// Finds of one window.
    in_window: Vec<TagDetection>,
    /// Finds to be searched again in windows of their own.
    near_rim: Vec<TagDetection>,
    found: Vec<TagDetection>,
    duplicates: Vec<u32>,
    /// Ids that are followed; all of them where empty.
    wanted: Vec<u32>,
    lost_place_px: Option<[f64; 2]>,
    stats: TrackStats,
}

impl Tracker {
    pub fn new(settings: TrackerSettings) -> Result<Self, VisionError> {
        for (name, value) in [
            ("margin_px", settings.margin_px),
            ("margin_per_motion", settings.margin_per_motion),
            ("first_margin_px", settings.first_margin_px),
        ] {
            if !(0.0..=1000.0).contains(&value) {
                return Err(VisionError::DetectorSetting { name, value, requirement: "must lie within 0 and 1000" });
            }
        }
        let max = settings.max_tracks;
        if !(1..=1024).contains(&max) {
            let (name, value) = ("max_tracks", max as f64);
            return Err(VisionError::DetectorSetting { name, value, requirement: "must be 1 to 1024" });
        }
        Ok(Self {
            settings,
            detector: Detector::new(settings.detector)?,
            grid: None,
            tracks: Vec::with_capacity(max),
            looks: Vec::with_capacity(MAX_LOOKS),
            windows: Vec::with_capacity(max + MAX_LOOKS),
            cutout: Vec::new(),
            in_window: Vec::with_capacity(max),
            near_rim: Vec::with_capacity(max),
            found: Vec::with_capacity(2 * max),
            duplicates: Vec::with_capacity(max),
            wanted: Vec::new(),
            lost_place_px: None,
            stats: TrackStats::default(),
        })
    }

    /// Follows and reports tags of these ids only: nobody pays for windows around others. An empty list stands for all.
    pub fn follow_only(&mut self, ids: &[u32]) {
        self.wanted = ids.to_vec();
        self.tracks.retain(|track| ids.is_empty() || ids.contains(&track.id));
    }

    fn is_wanted(&self, id: u32) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&id)
    }

    pub fn settings(&self) -> &TrackerSettings {
        &self.settings
    }

    pub fn last_frame(&self) -> TrackStats {
        self.stats
    }

    /// Ids that the last frame showed at more than one place, in rising order.
    pub fn duplicate_ids(&self) -> &[u32] {
        &self.duplicates
    }

    /// Detections of the last frame, ordered by id, then from top to bottom.
    pub fn found(&self) -> &[TagDetection] {
        &self.found
    }

    /// Velocity of the centre of a tag of the last frame, px/s; zero for one that was seen for the first time.
    pub fn velocity_px_s(&self, tag: &TagDetection) -> [f64; 2] {
        let track = self.tracks.iter().find(|track| track.id == tag.id && track.corners_px == tag.corners_px);
        track.map_or([0.0; 2], |track| centre(&track.velocity_px_s))
    }

    /// Forgets all tags.
    pub fn reset(&mut self) {
        self.tracks.clear();
        self.looks.clear();
        self.lost_place_px = None;
    }

    /// Takes in tags that a search found in an earlier (or the coming) frame, exposed at `seen_at`. Those that are followed
    /// already change nothing; others are looked for in the next frame.
    pub fn offer(&mut self, finds: &[TagDetection], seen_at: MonotonicTime) {
        for find in finds {
            if !self.is_wanted(find.id) {
                continue;
            }
            let known = self.tracks.iter().any(|track| {
                // Where the track was when the search saw its tag, give or take what it moved in between.
                let age_s = track.seen_at.seconds_since(seen_at);
                let speed = largest(&track.velocity_px_s);
                let gate = longest_edge_px(&find.corners_px) + 1.5 * speed * age_s.abs() + self.settings.margin_px;
                track.id == find.id && distance(centre(&track.corners_px), centre(&find.corners_px)) < gate
            });
            if !known {
                self.follow(find.id, &find.corners_px, seen_at, 0);
            }
        }
    }

    /// Tells where tag `id` should be in the next frame. A tag that is followed is searched there instead of where its own
    /// motion would carry it; another is looked for.
    pub fn expect(&mut self, id: u32, corners_px: [[f64; 2]; 4], at: MonotonicTime) {
        let gate = 2.0 * longest_edge_px(&corners_px);
        let nearest = self
            .tracks
            .iter_mut()
            .filter(|track| track.id == id)
            .map(|track| (distance(centre(&track.corners_px), centre(&corners_px)), track))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((away, track)) if away < gate + largest(&track.velocity_px_s) * MAX_PREDICTION_S => {
                track.expected_px = Some(corners_px);
            }
            _ => self.follow(id, &corners_px, at, 0),
        }
    }

    /// Looks in the next frame once for a tag whose corners should be at `corners_px`, up to `reach_px` from there: for tags
    /// that are not followed. What is found is followed, what is not leaves no trace.
    pub fn look_for(&mut self, corners_px: &[[f64; 2]; 4], reach_px: f64) {
        if self.looks.len() < MAX_LOOKS {
            self.looks.push((*corners_px, reach_px));
        }
    }

    /// [`Self::expect`] for those tags of a body that face the camera, from the body's predicted pose at time `at`.
    pub fn expect_body(&mut self, camera: &Camera, T_camera_body: &Pose, tags: &[TagOnBody], at: MonotonicTime) {
        for tag in tags {
            let T_camera_tag = T_camera_body * tag.T_body_tag;
            let place = T_camera_tag.translation.vector;
            let facing = (T_camera_tag.rotation * Vector3::z()).dot(&place) / place.norm();
            if facing.is_nan() || facing < MIN_FACING {
                continue;
            }
            let corners = corners_in_tag(tag.size_m).map(|corner| camera.project(&(T_camera_tag * corner)));
            if let [Some(a), Some(b), Some(c), Some(d)] = corners {
                self.expect(tag.id, [a, b, c, d], at);
            }
        }
    }

    /// Where a tag was last seen that was given up since the last call: the place to search first.
    pub fn take_lost_place(&mut self) -> Option<[f64; 2]> {
        self.lost_place_px.take()
    }

    /// Searches all of `frame` and follows what is in it.
    pub fn search_whole(
        &mut self,
        frame: GreyView<'_>,
        exposed_at: MonotonicTime,
    ) -> Result<&[TagDetection], VisionError> {
        self.begin(&frame, exposed_at);
        self.looks.clear();
        let (width, height) = (frame.width(), frame.height());
        let whole = Window { left: 0, top: 0, right: width, bottom: height };
        self.detector.detect_into(frame, &mut self.found)?;
        let wanted = &self.wanted;
        self.found.retain(|tag| wanted.is_empty() || wanted.contains(&tag.id));
        self.stats.windows = 1;
        self.stats.searched_px = whole.area_px();
        self.refine(&frame);
        self.settle(exposed_at);
        Ok(&self.found)
    }

    /// Finds the followed tags in `frame`, exposed at `exposed_at`.
    pub fn track(&mut self, frame: GreyView<'_>, exposed_at: MonotonicTime) -> Result<&[TagDetection], VisionError> {
        let grid = self.begin(&frame, exposed_at);
        for track in &self.tracks {
            self.windows.extend(grid.around(&track.predicted_px, track.reach_px));
        }
        self.stats.looked_for = self.looks.len();
        for (corners_px, reach_px) in self.looks.drain(..) {
            self.windows.extend(grid.around(&corners_px, reach_px));
        }
        window::merge(&mut self.windows);
        self.near_rim.clear();
        for i in 0..self.windows.len() {
            let window = self.windows[i];
            self.search(&frame, &window)?;
            for k in 0..self.in_window.len() {
                let find = self.in_window[k];
                if grid.is_clear_of_rim(&window, &find.corners_px) {
                    add_unless_there(&mut self.found, find);
                } else if self.near_rim.len() < self.near_rim.capacity() {
                    self.near_rim.push(find);
                }
            }
        }
        for i in 0..self.near_rim.len() {
            let rough = self.near_rim[i];
            let there = self.found.iter().any(|tag| is_same_print(tag, &rough));
            let Some(window) = grid.around(&rough.corners_px, 1.0) else { continue };
            if there || self.stats.searched_again == MAX_SEARCHES_AGAIN {
                continue;
            }
            self.stats.searched_again += 1;
            self.search(&frame, &window)?;
            for k in 0..self.in_window.len() {
                let find = self.in_window[k];
                if is_same_print(&find, &rough) && grid.is_clear_of_rim(&window, &find.corners_px) {
                    add_unless_there(&mut self.found, find);
                }
            }
        }
        self.refine(&frame);
        self.settle(exposed_at);
        Ok(&self.found)
    }

    fn refine(&mut self, frame: &GreyView<'_>) {
        let cells = self.settings.detector.family.cells_within_border();
        if self.settings.refine_corners {
            for tag in &mut self.found {
                edges::refine(frame, tag, cells);
            }
        }
    }

    /// Predicts all tracks and clears what belongs to the last frame.
    fn begin(&mut self, frame: &GreyView<'_>, exposed_at: MonotonicTime) -> WindowGrid {
        let size = (frame.width(), frame.height());
        let grid = match self.grid {
            Some(grid) if grid.frame_size() == size => grid,
            earlier => {
                // Another resolution: no place means what it meant.
                if earlier.is_some() {
                    self.tracks.clear();
                    self.looks.clear();
                }
                self.cutout.reserve(size.0 * size.1);
                WindowGrid::new(&self.settings.detector, size.0, size.1)
            }
        };
        self.grid = Some(grid);
        self.stats = TrackStats::default();
        self.windows.clear();
        self.found.clear();
        self.duplicates.clear();
        for track in &mut self.tracks {
            track.predict(exposed_at, &self.settings);
        }
        grid
    }

    /// Detects in one window, into `in_window`, in pixels of the frame.
    fn search(&mut self, frame: &GreyView<'_>, window: &Window) -> Result<(), VisionError> {
        window.cut(frame, &mut self.cutout);
        let view = GreyView::new(window.width(), window.height(), window.width(), &self.cutout)?;
        self.detector.detect_into(view, &mut self.in_window)?;
        let wanted = &self.wanted;
        self.in_window.retain(|tag| wanted.is_empty() || wanted.contains(&tag.id));
        let corner = [window.left as f64, window.top as f64];
        for tag in &mut self.in_window {
            for pixel in tag.corners_px.iter_mut().chain([&mut tag.centre_px]) {
                pixel[0] += corner[0];
                pixel[1] += corner[1];
            }
        }
        self.stats.windows += 1;
        self.stats.searched_px += window.area_px();
        Ok(())
    }

    /// Gives the finds to the tracks, follows new ones and drops those that are lost.
    fn settle(&mut self, exposed_at: MonotonicTime) {
        self.found.sort_unstable_by(|a, b| {
            let by_row = a.centre_px[1].total_cmp(&b.centre_px[1]);
            a.id.cmp(&b.id).then(by_row).then(a.centre_px[0].total_cmp(&b.centre_px[0]))
        });
        for i in 0..self.found.len() {
            let find = self.found[i];
            let nearest = self
                .tracks
                .iter_mut()
                .filter(|track| track.id == find.id && !track.matched)
                .map(|track| (distance(centre(&track.predicted_px), centre(&find.corners_px)), track))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            match nearest {
                Some((away, track)) if away < track.reach_px + longest_edge_px(&find.corners_px) => {
                    track.see(&find.corners_px, exposed_at);
                }
                _ => self.follow(find.id, &find.corners_px, exposed_at, 1),
            }
        }
        for i in 1..self.found.len() {
            let id = self.found[i].id;
            if id == self.found[i - 1].id && self.duplicates.last() != Some(&id) {
                self.duplicates.push(id);
            }
        }
        let (mut lost, mut place) = (0, self.lost_place_px);
        self.tracks.retain_mut(|track| {
            if track.matched {
                return true;
            }
            track.misses += 1;
            let patience = if track.sightings == 0 { HINT_FRAMES } else { self.settings.lost_frames };
            let given_up = track.misses > patience;
            if given_up && track.sightings > 0 {
                lost += 1;
                place = Some(centre(&track.corners_px));
            }
            !given_up
        });
        self.lost_place_px = place;
        self.stats.lost = lost;
        self.stats.tracks = self.tracks.len();
    }

    fn follow(&mut self, id: u32, corners_px: &[[f64; 2]; 4], seen_at: MonotonicTime, sightings: u32) {
        if self.tracks.len() == self.settings.max_tracks {
            return;
        }
        self.tracks.push(Track {
            id,
            corners_px: *corners_px,
            velocity_px_s: [[0.0; 2]; 4],
            seen_at,
            sightings,
            misses: 0,
            expected_px: None,
            predicted_px: *corners_px,
            reach_px: 0.0,
            matched: true,
        });
    }
}

impl Track {
    fn predict(&mut self, at: MonotonicTime, settings: &TrackerSettings) {
        self.matched = false;
        let expected = self.expected_px.take();
        let ahead_s = at.seconds_since(self.seen_at).clamp(-MAX_PREDICTION_S, MAX_PREDICTION_S);
        let carried = |i: usize, axis: usize| self.corners_px[i][axis] + self.velocity_px_s[i][axis] * ahead_s;
        let carried = std::array::from_fn(|i| std::array::from_fn(|axis| carried(i, axis)));
        self.predicted_px = expected.unwrap_or(carried);
        let motion_px = distance(centre(&self.predicted_px), centre(&self.corners_px));
        // A motion is known from the second sighting on.
        let known = self.sightings >= 2 || expected.is_some();
        let margin_px = if known { settings.margin_px } else { settings.first_margin_px };
        // Unseen, it may have gone anywhere that its speed allows.
        let growth = 1.0 + f64::from(self.misses);
        let hint_px = if self.sightings == 0 && expected.is_none() { HINT_SPEED_PX_S * ahead_s.abs() } else { 0.0 };
        self.reach_px = (margin_px + settings.margin_per_motion * motion_px) * growth + hint_px;
    }

    fn see(&mut self, corners_px: &[[f64; 2]; 4], at: MonotonicTime) {
        let elapsed_s = at.seconds_since(self.seen_at);
        self.velocity_px_s = match self.sightings {
            // The first sighting confirms a hint, whose corners may be those of a coarse search.
            0 => [[0.0; 2]; 4],
            _ if elapsed_s > 1e-4 => {
                let speed = |i: usize, axis: usize| (corners_px[i][axis] - self.corners_px[i][axis]) / elapsed_s;
                std::array::from_fn(|i| std::array::from_fn(|axis| speed(i, axis)))
            }
            _ => self.velocity_px_s,
        };
        self.corners_px = *corners_px;
        self.seen_at = at;
        self.sightings = self.sightings.saturating_add(1);
        self.misses = 0;
        self.matched = true;
    }
}

/// Adds a find unless an overlapping window has brought it already, or the room is used up.
fn add_unless_there(found: &mut Vec<TagDetection>, find: TagDetection) {
    if found.len() < found.capacity() && !found.iter().any(|tag| is_same_print(tag, &find)) {
        found.push(find);
    }
}

/// Two prints cannot be nearer than one and a quarter of their edge.
fn is_same_print(a: &TagDetection, b: &TagDetection) -> bool {
    a.id == b.id && distance(a.centre_px, b.centre_px) < 0.5 * a.shortest_edge_px()
}

fn centre(corners_px: &[[f64; 2]; 4]) -> [f64; 2] {
    std::array::from_fn(|axis| corners_px.iter().map(|corner| corner[axis]).sum::<f64>() / 4.0)
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

fn longest_edge_px(corners_px: &[[f64; 2]; 4]) -> f64 {
    (0..4).map(|i| distance(corners_px[i], corners_px[(i + 1) % 4])).fold(0.0, f64::max)
}

fn largest(velocity_px_s: &[[f64; 2]; 4]) -> f64 {
    velocity_px_s.iter().map(|v| v[0].hypot(v[1])).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests;
