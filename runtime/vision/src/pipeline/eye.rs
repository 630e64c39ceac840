//! One camera's share: its tags followed from frame to frame.

use super::PipelineSettings;
use super::expect::{ExpectedParts, Lookout};
use crate::track::{BackgroundSearch, Exchange, SearchPriority, SliceSearch, SliceSettings, Tracker, TrackerSettings};
use crate::{DetectorSettings, GreyView, TagDetection, VisionError};
use tenon_core::time::MonotonicTime;

/// What a camera saw in one frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Middle of the exposure.
    pub exposed_at: MonotonicTime,
    /// Ordered by id, then from top to bottom.
    pub tags: Vec<TagDetection>,
    /// Of the centre of each tag, px/s; zero for one seen for the first time.
    pub velocities_px_s: Vec<[f64; 2]>,
}

impl View {
    pub fn with_room_for(tags: usize) -> Self {
        // A tracker reports at most twice as many tags as it follows.
        let (tags, velocities_px_s) = (Vec::with_capacity(2 * tags), Vec::with_capacity(2 * tags));
        Self { exposed_at: MonotonicTime::default(), tags, velocities_px_s }
    }

    /// Takes the content of `other` in the memory that is there.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.exposed_at = other.exposed_at;
        self.tags.clone_from(&other.tags);
        self.velocities_px_s.clone_from(&other.velocities_px_s);
    }
}

/// Follows the tags in one camera's frames and searches for new ones in slices.
#[derive(Debug)]
pub struct Eye {
    tracker: Tracker,
    search: Search,
    lookout: Option<Lookout>,
}

#[derive(Debug)]
enum Search {
    OwnThread(SliceSearch),
    Background { search: BackgroundSearch, restart: Restart },
}

/// What a searching thread is started with.
#[derive(Debug, Clone, Copy)]
struct Restart {
    slices: SliceSettings,
    detector: DetectorSettings,
    size: (usize, usize),
    priority: SearchPriority,
}

impl Restart {
    fn start(&self) -> Result<BackgroundSearch, VisionError> {
        BackgroundSearch::start("tenon-slices", &self.slices, &self.detector, self.size, self.priority)
    }
}

impl Eye {
    /// Searches slices on the caller's thread. `size`: width and height of the frames, px.
    pub fn new(tracker: &TrackerSettings, slices: &SliceSettings, size: (usize, usize)) -> Result<Self, VisionError> {
        let search = SliceSearch::new(slices, &tracker.detector, size.0, size.1)?;
        Ok(Self { tracker: Tracker::new(*tracker)?, search: Search::OwnThread(search), lookout: None })
    }

    /// Searches slices on a thread of its own.
    pub fn with_search_thread(
        tracker: &TrackerSettings,
        slices: &SliceSettings,
        size: (usize, usize),
        priority: SearchPriority,
    ) -> Result<Self, VisionError> {
        let restart = Restart { slices: *slices, detector: tracker.detector, size, priority };
        let search = Search::Background { search: restart.start()?, restart };
        Ok(Self { tracker: Tracker::new(*tracker)?, search, lookout: None })
    }

    /// Follows the tags of parts, and looks for them where [`Self::expect`] says that the parts are.
    pub(super) fn for_parts(mut self, lookout: Lookout, settings: &PipelineSettings) -> Self {
        if !settings.follow_all_tags {
            self.tracker.follow_only(&lookout.ids());
        }
        self.lookout = settings.look_for_expected.then_some(lookout);
        self
    }

    /// Before [`Self::see`] of a frame: where the parts should be at `exposed_at`, from two sources, as far as they know.
    /// `last`: what the frame before it showed.
    pub(super) fn expect(&mut self, last: &View, expected: [&ExpectedParts; 2], exposed_at: MonotonicTime) {
        if let Some(lookout) = &mut self.lookout {
            lookout.look(&mut self.tracker, last, expected, exposed_at);
        }
    }

    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Finds the followed tags in `frame` and writes them into `view`.
    pub fn see(&mut self, frame: GreyView<'_>, exposed_at: MonotonicTime, view: &mut View) -> Result<(), VisionError> {
        view.exposed_at = exposed_at;
        view.tags.clear();
        view.velocities_px_s.clear();
        view.tags.extend_from_slice(self.tracker.track(frame, exposed_at)?);
        view.velocities_px_s.extend(view.tags.iter().map(|tag| self.tracker.velocity_px_s(tag)));
        Ok(())
    }

    /// Searches the next slice of `frame`, or hands it over, after [`Self::see`]: what is found is looked for in the next
    /// frame.
    pub fn search_slice(&mut self, frame: GreyView<'_>, exposed_at: MonotonicTime) -> Result<(), VisionError> {
        match &mut self.search {
            Search::OwnThread(search) => {
                if let Some(pixel) = self.tracker.take_lost_place() {
                    search.hurry_to(pixel);
                }
                self.tracker.offer(search.next_slice(frame)?, exposed_at);
            }
            Search::Background { search, restart } => {
                if search.exchange(frame, exposed_at, &mut self.tracker)? == Exchange::Ended {
                    *search = restart.start()?;
                }
            }
        }
        Ok(())
    }

    /// Searches all of `frame` now and follows what is in it.
    pub fn search_whole(&mut self, frame: GreyView<'_>, exposed_at: MonotonicTime) -> Result<(), VisionError> {
        self.tracker.search_whole(frame, exposed_at).map(|_| ())
    }

    /// Slices searched on a thread of its own so far.
    pub fn searched_slices(&self) -> u64 {
        match &self.search {
            Search::OwnThread(_) => 0,
            Search::Background { search, .. } => search.searched_slices(),
        }
    }
}
