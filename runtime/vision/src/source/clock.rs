//! The workstation's clock, real or set by hand, and the mapping from a camera's clock to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tenon_core::time::MonotonicTime;

use super::error::SourceError;
use super::frame::{DeviceTime, FrameStamps};

/// Tells the time and sleeps. A source has it from outside, so tests run without waiting.
pub trait Clock: Send + Sync {
    fn now(&self) -> MonotonicTime;

    /// Returns at `deadline` or later.
    fn sleep_until(&self, deadline: MonotonicTime);
}

/// CLOCK_MONOTONIC, the same in every process of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> MonotonicTime {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `t` is a valid timespec to write to; the clock id is a constant that Linux always has.
        let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
        debug_assert_eq!(rc, 0, "CLOCK_MONOTONIC exists on every Linux");
        MonotonicTime::from_nanos(t.tv_sec * 1_000_000_000 + t.tv_nsec)
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        // A sleep may end early on a signal's account in other runtimes; the loop makes the promise of the trait.
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left);
        }
    }
}

/// Stands until it is moved; a sleep moves it to the deadline at once.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn at(time: MonotonicTime) -> Self {
        Self(Arc::new(AtomicI64::new(time.as_nanos())))
    }

    pub fn advance(&self, by: Duration) {
        self.sleep_until(self.now() + by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> MonotonicTime {
        MonotonicTime::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        self.0.fetch_max(deadline.as_nanos(), Ordering::SeqCst);
    }
}

/// How fast a source without a camera gives its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As they were taken. Stamps are moved to the present.
    RealTime,
    /// As soon as they are asked for, with their own stamps.
    AsFastAsPossible,
}

/// Gives stamped frames at their pace.
pub(super) struct Timeline {
    pace: Pace,
    clock: Arc<dyn Clock>,
    /// Nanoseconds from the first frame's arrival then to its arrival now.
    shift_nanos: Option<i64>,
}

impl Timeline {
    pub fn new(pace: Pace, clock: Arc<dyn Clock>) -> Self {
        Self { pace, clock, shift_nanos: None }
    }

    /// Waits until a frame is due, at most `timeout`; `None` if that was too short, and the same frame is still to come.
    pub fn wait_for(&mut self, recorded: &FrameStamps, timeout: Duration) -> Option<FrameStamps> {
        if self.pace == Pace::AsFastAsPossible {
            return Some(*recorded);
        }
        let now = self.clock.now();
        let shift = *self.shift_nanos.get_or_insert(now.as_nanos().saturating_sub(recorded.arrived.as_nanos()));
        let moved = |t: MonotonicTime| MonotonicTime::from_nanos(t.as_nanos().saturating_add(shift));
        let (due, deadline) = (moved(recorded.arrived), now + timeout);
        if due > deadline {
            self.clock.sleep_until(deadline);
            return None;
        }
        self.clock.sleep_until(due);
        let exposed_at = moved(recorded.exposed_at);
        Some(FrameStamps { exposed_at, arrived: self.clock.now(), device: recorded.device })
    }

    /// Lets `time` pass without a frame: the next one arrives as the first did.
    pub fn pause(&mut self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time);
        self.shift_nanos = None;
    }
}

/// Settings of a [`ClockMap`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockMapSettings {
    /// The least delay of this long counts; short enough for the drift of a crystal (0.1 ms/s), long enough to hold an
    /// undelayed frame.
    pub window: Duration,
    /// A change of the delay beyond this is a step of the device's clock, not a late frame; above what a driver's queue
    /// can hold back.
    pub step_limit: Duration,
    /// That many frames in a row must agree before a longer delay is believed to be a step.
    pub confirm_frames: u32,
    /// From the stamp to the arrival of a frame that nothing held up, as the latency measurement found it. A minimum filter
    /// cannot see it: with zero, mapped times are late by it.
    pub least_delay: Duration,
}

impl Default for ClockMapSettings {
    fn default() -> Self {
        let (window, step_limit) = (Duration::from_secs(4), Duration::from_millis(200));
        Self { window, step_limit, confirm_frames: 5, least_delay: Duration::ZERO }
    }
}

/// A stamp of the device on our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedTime {
    /// Never later than the arrival.
    pub time: MonotonicTime,
    /// By how much the device's clock has stepped with this frame, nanoseconds.
    pub step_nanos: Option<i64>,
}

/// Maps a device's clock onto ours by a minimum filter: of all frames in a window the one that came fastest tells the
/// offset. (`tenon_core::time::ClockOffset` keeps the minimum for ever, which a drifting crystal makes wrong by 6 ms/min.)
#[derive(Debug, Clone)]
pub struct ClockMap {
    settings: ClockMapSettings,
    state: Option<MapState>,
}

#[derive(Debug, Clone, Copy)]
struct MapState {
    /// Least delay of the half window under way and of the one before, nanoseconds.
    least: [i64; 2],
    half_began: MonotonicTime,
    last_device: DeviceTime,
    frames: u32,
    /// Delay of the frames that came too late, while that may be a step.
    suspect: Option<(i64, u32)>,
}

impl ClockMap {
    pub fn new(settings: ClockMapSettings) -> Self {
        Self { settings, state: None }
    }

    /// Forgets everything, for a device opened anew.
    pub fn restart(&mut self) {
        self.state = None;
    }

    /// Takes note of a frame and converts its stamp.
    pub fn observe(&mut self, device: DeviceTime, arrived: MonotonicTime) -> MappedTime {
        let undelayed = MonotonicTime::from_nanos(arrived.as_nanos().saturating_sub(nanos(self.settings.least_delay)));
        let delay = undelayed.as_nanos().saturating_sub(device.as_nanos());
        let limit = nanos(self.settings.step_limit);
        let Some(state) = &mut self.state else {
            self.state = Some(MapState::anchored(device, arrived, delay, 1));
            return MappedTime { time: undelayed, step_nanos: None };
        };
        state.frames = state.frames.saturating_add(1);
        let least = state.least[0].min(state.least[1]);
        let beyond = delay.saturating_sub(least);
        // Before a few frames have come nobody knows which delay is usual.
        let settled = state.frames > self.settings.confirm_frames;
        let ran_back = device < state.last_device;
        state.last_device = device;
        let mut stepped = ran_back || (settled && beyond < -limit);
        if !stepped && settled && beyond > limit {
            let alike = state.suspect.filter(|&(suspect, _)| delay.saturating_sub(suspect).abs() <= limit);
            let count = alike.map_or(1, |(_, count)| count + 1);
            state.suspect = Some((delay, count));
            stepped = count >= self.settings.confirm_frames;
        } else {
            state.suspect = None;
        }
        if stepped {
            let frames = state.frames;
            *state = MapState::anchored(device, arrived, delay, frames);
            return MappedTime { time: undelayed, step_nanos: Some(beyond.saturating_neg()) };
        }
        if arrived.since(state.half_began) > self.settings.window / 2 {
            state.least = [delay, state.least[0]];
            state.half_began = arrived;
        }
        state.least[0] = state.least[0].min(delay);
        let least = state.least[0].min(state.least[1]);
        let time = MonotonicTime::from_nanos(device.as_nanos().saturating_add(least));
        MappedTime { time, step_nanos: None }
    }
}

impl MapState {
    fn anchored(device: DeviceTime, arrived: MonotonicTime, delay: i64, frames: u32) -> Self {
        Self { least: [delay; 2], half_began: arrived, last_device: device, frames, suspect: None }
    }
}

pub(super) fn nanos(d: Duration) -> i64 {
    i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
}

/// The error of a source whose frame was not due in time.
pub(super) fn timed_out(source_name: &str, waited: Duration) -> SourceError {
    SourceError::TimedOut { source_name: source_name.to_owned(), waited }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Frames at 30 Hz, `delay_ms` each; the device's clock began at 5 s.
    fn observe(map: &mut ClockMap, frame: i64, delay_ms: i64, clock_error_ms: i64) -> (i64, Option<i64>) {
        let taken = frame * 33 * MS;
        let device = DeviceTime::from_nanos(5_000 * MS + taken + clock_error_ms * MS);
        let mapped = map.observe(device, MonotonicTime::from_nanos(taken + delay_ms * MS));
        (mapped.time.as_nanos() - taken, mapped.step_nanos)
    }

    fn map() -> ClockMap {
        ClockMap::new(ClockMapSettings::default())
    }

    #[test]
    fn the_fastest_frame_of_the_window_sets_the_offset() {
        let mut map = map();
        let errors: Vec<i64> = (0..60).map(|frame| observe(&mut map, frame, 8 + frame * 7 % 11, 0).0).collect();
        assert_eq!(errors[0], 8 * MS);
        assert!(errors[20..].iter().all(|&e| e == 8 * MS), "{errors:?}");
    }

    #[test]
    fn a_mapped_stamp_is_never_later_than_its_arrival() {
        let mut map = map();
        for frame in 0..500 {
            let (delay, error) = (5 + frame * 13 % 40, if frame > 200 { 900 } else { 0 });
            assert!(observe(&mut map, frame, delay, error).0 <= delay * MS);
        }
    }

    #[test]
    fn a_drifting_crystal_is_followed() {
        let mut map = map();
        for frame in 0..30 * 600 {
            let taken = frame * 33 * MS;
            // The device runs slow by 100 millionths: ClockOffset would be 60 ms early at the end.
            let device = DeviceTime::from_nanos(taken - taken / 10_000);
            let mapped = map.observe(device, MonotonicTime::from_nanos(taken + 8 * MS));
            let error = mapped.time.as_nanos() - taken - 8 * MS;
            assert!(error.abs() <= MS / 2, "frame {frame}: {error} ns");
            assert_eq!(mapped.step_nanos, None);
        }
    }

    #[test]
    fn a_step_either_way_is_named_once_with_its_size_and_then_followed() {
        for (error_ms, named_at) in [(700, 100), (-700, 100)] {
            let mut map = map();
            let mut steps = Vec::new();
            for frame in 0..200 {
                let error = if frame >= 100 { error_ms } else { 0 };
                let (mapped, step) = observe(&mut map, frame, 8, error);
                steps.extend(step.map(|nanos| (frame, nanos / MS)));
                assert!(frame > 105 && mapped == 8 * MS || frame <= 105 && mapped <= 8 * MS);
            }
            assert_eq!(steps, [(named_at, error_ms)]);
        }
    }

    #[test]
    fn a_small_backward_lasting_step_needs_confirmation_and_late_frames_are_no_step() {
        let mut late = map();
        for frame in 0..200 {
            let delay = if frame % 50 == 40 { 600 } else { 8 };
            assert_eq!(observe(&mut late, frame, delay, 0).1, None, "one late frame at {frame}");
        }
        // A device whose clock stops for 300 ms never runs back, yet lags from then on.
        let mut stopped = map();
        let mut steps = Vec::new();
        for frame in 0..200 {
            let lag = (frame.clamp(100, 110) - 100) * 30;
            steps.extend(observe(&mut stopped, frame, 8, -lag).1.map(|nanos| (frame, nanos / MS)));
        }
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!((107..=114).contains(&steps[0].0) && (-300..=-210).contains(&steps[0].1), "{steps:?}");
    }

    #[test]
    fn a_manual_clock_sleeps_by_moving() {
        let clock = ManualClock::at(MonotonicTime::from_nanos(5));
        clock.sleep_until(MonotonicTime::from_nanos(9));
        clock.sleep_until(MonotonicTime::from_nanos(7));
        assert_eq!(clock.now().as_nanos(), 9);
        let before = SystemClock.now();
        SystemClock.sleep_until(before + Duration::from_millis(2));
        assert!(SystemClock.now().since(before) >= Duration::from_millis(2));
    }
}
