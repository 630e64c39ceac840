//! Watches one camera: age, rate, drops, frozen pictures, clock steps, serial number, resolution, locked controls.
//!
//! Pure: what happened and the time come in, [`CameraFaults`] come out. One late or missing frame is no fault; a fault
//! ends only after a run of good frames, or on the far side of a band around its limit.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenon_core::time::MonotonicTime;

use super::clock::{ClockMap, ClockMapSettings};
use super::controls::{Control, ControlValues};
use super::error::SourceError;
use super::fault::{CameraFaults, FaultKind};
use super::frame::{Frame, FrameStamps, Serial, SourceDescription};
use crate::GreyView;

/// Limits of a [`Watch`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchConfig {
    /// From the middle of the exposure of the newest frame to now.
    pub max_frame_age_s: f64,
    /// Rate and drops are those of this long.
    pub rate_window_s: f64,
    /// Of the nominal rate, 0 to 1.
    pub least_rate_fraction: f64,
    /// Of the frames in the window, 0 to 1. A single drop is no fault whatever the fraction.
    pub max_dropped_fraction: f64,
    /// That many equal pictures in a row are a frozen one; 0 switches this off, for rendered scenes without noise.
    pub frozen_frames: u32,
    /// A change of the device's clock against ours beyond this is a step.
    pub clock_step_s: f64,
    /// A lasting delay is believed to be a step of the clock after that many frames.
    pub confirm_frames: u32,
    /// That many good frames in a row end a fault.
    pub clear_frames: u32,
    /// Of the locked value; what switches must be equal.
    pub control_tolerance_fraction: f64,
}

impl WatchConfig {
    /// Limits to begin with for a camera of this rate: five periods of age, 85 % of the rate, 5 % of drops.
    pub fn of_rate(nominal_rate_hz: f64) -> Self {
        Self {
            max_frame_age_s: 5.0 / nominal_rate_hz,
            rate_window_s: (60.0 / nominal_rate_hz).max(1.0),
            least_rate_fraction: 0.85,
            max_dropped_fraction: 0.05,
            frozen_frames: 6,
            clock_step_s: (6.0 / nominal_rate_hz).max(0.1),
            confirm_frames: 5,
            clear_frames: 10,
            control_tolerance_fraction: 0.01,
        }
    }

    pub fn check(&self) -> Result<(), SourceError> {
        let positive = "must be a positive number";
        let fraction = "must be between 0 and 1";
        let at_least_one = "must be at least 1";
        let is_positive = |v: f64| v.is_finite() && v > 0.0 && v < 1e6;
        let is_fraction = |v: f64| (0.0..=1.0).contains(&v);
        let checks = [
            ("max_frame_age_s", self.max_frame_age_s, is_positive(self.max_frame_age_s), positive),
            ("rate_window_s", self.rate_window_s, is_positive(self.rate_window_s), positive),
            ("least_rate_fraction", self.least_rate_fraction, is_fraction(self.least_rate_fraction), fraction),
            ("max_dropped_fraction", self.max_dropped_fraction, is_fraction(self.max_dropped_fraction), fraction),
            ("clock_step_s", self.clock_step_s, is_positive(self.clock_step_s), positive),
            ("confirm_frames", f64::from(self.confirm_frames), self.confirm_frames > 0, at_least_one),
            ("clear_frames", f64::from(self.clear_frames), self.clear_frames > 0, at_least_one),
            (
                "control_tolerance_fraction",
                self.control_tolerance_fraction,
                is_fraction(self.control_tolerance_fraction),
                fraction,
            ),
            (
                "frozen_frames",
                f64::from(self.frozen_frames),
                self.frozen_frames != 1,
                "must be 0 (off) or at least 2: one picture is equal to itself",
            ),
        ];
        for (name, value, ok, requirement) in checks {
            if !ok {
                return Err(SourceError::Setting { name, value: value.to_string(), requirement });
            }
        }
        Ok(())
    }
}

/// What the calibration of a camera holds for. What is `None` is taken from the camera when it is first opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    pub serial: Option<Serial>,
    pub size_px: Option<[usize; 2]>,
}

/// What the watch wants to know of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFacts {
    pub sequence: u64,
    pub stamps: FrameStamps,
    pub size_px: [usize; 2],
    /// Equal for equal pictures, different for pictures with any noise.
    pub fingerprint: u64,
}

impl FrameFacts {
    pub fn of(frame: &Frame) -> Self {
        Self {
            sequence: frame.sequence,
            stamps: frame.stamps,
            size_px: [frame.grey.width(), frame.grey.height()],
            fingerprint: fingerprint(frame.grey.view()),
        }
    }
}

/// Hash of a subsample: eight pixels of every 64 in every fourth row, which at 1280x720 is 29 kB and takes microseconds.
/// The noise of a sensor changes some of these in every frame.
fn fingerprint(grey: GreyView<'_>) -> u64 {
    // Multiplication by an odd number and rotation are bijective, so a change in one word cannot be lost.
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = (grey.width() as u64) << 32 | grey.height() as u64;
    for y in (0..grey.height()).step_by(4) {
        for piece in grey.row(y).chunks(64) {
            let mut word = [0; 8];
            let len = piece.len().min(8);
            word[..len].copy_from_slice(&piece[..len]);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD).rotate_left(29);
        }
    }
    hash
}

/// Sums since the watch began.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WatchCounters {
    pub frames: u64,
    pub dropped: u64,
    /// How often the source was opened.
    pub opened: u64,
    /// Over the window; 0 until two frames have come.
    pub rate_hz: f64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Watch {
    config: WatchConfig,
    expected: Expected,
    nominal_rate_hz: f64,
    clock: ClockMap,
    locked: ControlValues,
    /// The source is open since then.
    opened_at: Option<MonotonicTime>,
    failed_opens: u32,
    last: Option<FrameFacts>,
    /// Arrival of each frame of the window, and how many were missing before it.
    window: VecDeque<(MonotonicTime, u32)>,
    /// First arrival and number of the equal pictures under way.
    same: (MonotonicTime, u32),
    drifted: [u32; Control::ALL.len()],
    /// Good frames in a row, by fault.
    good: [u32; FaultKind::COUNT],
    faults: CameraFaults,
    counters: WatchCounters,
}

/// A control has drifted when that many readings in a row say so.
const DRIFT_READINGS: u32 = 2;

// Places of the faults that end after a run of good frames (`FaultKind::index`).
const STALE: usize = 4;
const CLOCK: usize = 5;
const FROZEN: usize = 6;
const CONTROL: usize = 7;

impl Watch {
    pub fn new(config: WatchConfig, expected: Expected) -> Result<Self, SourceError> {
        config.check()?;
        let clock = ClockMap::new(ClockMapSettings {
            step_limit: Duration::from_secs_f64(config.clock_step_s),
            confirm_frames: config.confirm_frames,
            ..ClockMapSettings::default()
        });
        Ok(Self {
            config,
            expected,
            nominal_rate_hz: 0.0,
            clock,
            locked: ControlValues::default(),
            opened_at: None,
            failed_opens: 0,
            last: None,
            window: VecDeque::new(),
            same: (MonotonicTime::default(), 0),
            drifted: [0; Control::ALL.len()],
            good: [0; FaultKind::COUNT],
            faults: CameraFaults::default(),
            counters: WatchCounters::default(),
        })
    }

    pub fn faults(&self) -> &CameraFaults {
        &self.faults
    }

    pub fn counters(&self) -> &WatchCounters {
        &self.counters
    }

    /// The stamps of the newest frame.
    pub fn newest(&self) -> Option<FrameStamps> {
        self.last.map(|last| last.stamps)
    }

    /// The source is open. `locked`: the values it has set its controls to.
    pub fn opened(&mut self, description: &SourceDescription, locked: ControlValues, now: MonotonicTime) {
        let found = description.serial;
        match self.expected.serial {
            None => self.expected.serial = found,
            Some(expected) if found == Some(expected) => self.clear(&FaultKind::SerialChanged { expected, found }),
            Some(expected) => self.faults.raise(FaultKind::SerialChanged { expected, found }, now),
        }
        self.judge_size([description.width, description.height], now);
        self.nominal_rate_hz = description.nominal_rate_hz;
        self.locked = locked;
        self.opened_at = Some(now);
        self.failed_opens = 0;
        self.counters.opened += 1;
        // Another clock, another count: nothing of before can be compared.
        self.clock.restart();
        self.last = None;
        self.window.clear();
        let wanted = (self.nominal_rate_hz * self.config.rate_window_s * 2.0).ceil() as usize + 2;
        self.window.reserve(wanted.min(100_000));
        self.same.1 = 0;
        // Whoever opens a source has just set its controls and read them back.
        self.drifted = [0; Control::ALL.len()];
        self.faults.clear(CONTROL);
    }

    /// The source could not be opened.
    pub fn open_failed(&mut self, now: MonotonicTime) {
        self.failed_opens = self.failed_opens.saturating_add(1);
        self.faults.raise(FaultKind::Disconnected { failed_opens: self.failed_opens }, now);
        self.time(now);
    }

    /// The source was open and is gone.
    pub fn disconnected(&mut self, now: MonotonicTime) {
        self.failed_opens = 0;
        // A source that is not open has no rate; its age goes on.
        self.opened_at = None;
        self.faults.raise(FaultKind::Disconnected { failed_opens: 0 }, now);
        self.time(now);
    }

    /// A frame has come.
    pub fn frame(&mut self, facts: &FrameFacts, now: MonotonicTime) {
        self.counters.frames += 1;
        self.clear(&FaultKind::Disconnected { failed_opens: 0 });
        self.judge_size(facts.size_px, now);
        self.judge_content(facts);
        self.judge_clock(facts);
        self.judge_age(facts, now);
        let missing = self.last.map_or(0, |last| missing_between(last.sequence, facts.sequence));
        self.counters.dropped += u64::from(missing);
        if self.window.len() == self.window.capacity() {
            self.window.pop_front();
        }
        self.window.push_back((facts.stamps.arrived, missing));
        self.last = Some(*facts);
        self.judge_window(now);
    }

    /// Nothing has come; time has passed.
    pub fn time(&mut self, now: MonotonicTime) {
        let (reference, begun) = match (&self.last, self.opened_at) {
            (Some(last), _) => (last.stamps.exposed_at, last.stamps.arrived),
            (None, Some(opened)) => (opened, opened),
            (None, None) => return,
        };
        let (age, limit) = (now.since(reference), Duration::from_secs_f64(self.config.max_frame_age_s));
        if age > limit {
            self.good[STALE] = 0;
            self.faults.raise(FaultKind::Stale { age, limit }, begun);
        }
        self.judge_window(now);
    }

    /// What the camera's controls stand at.
    pub fn controls(&mut self, found: &ControlValues, now: MonotonicTime) {
        let mut worst = None;
        for (control, locked) in self.locked.iter() {
            let tolerance = locked.unsigned_abs() as f64 * self.config.control_tolerance_fraction;
            let kept = found.get(control).is_some_and(|value| value.abs_diff(locked) as f64 <= tolerance);
            let run = &mut self.drifted[control as usize];
            *run = if kept { 0 } else { run.saturating_add(1) };
            if *run >= DRIFT_READINGS && worst.is_none() {
                worst = Some(FaultKind::ControlDrifted { control, locked, found: found.get(control) });
            }
        }
        match worst {
            Some(kind) => self.faults.raise(kind, now),
            None if self.drifted.iter().all(|&run| run == 0) => self.faults.clear(CONTROL),
            None => {}
        }
    }

    fn clear(&mut self, kind: &FaultKind) {
        self.faults.clear(kind.index());
    }

    /// Counts a good frame and ends the fault after enough of them.
    fn good_frame(&mut self, index: usize) {
        self.good[index] = self.good[index].saturating_add(1);
        if self.good[index] >= self.config.clear_frames {
            self.faults.clear(index);
        }
    }

    fn judge_size(&mut self, found_px: [usize; 2], now: MonotonicTime) {
        let expected_px = *self.expected.size_px.get_or_insert(found_px);
        let kind = FaultKind::ResolutionChanged { expected_px, found_px };
        if found_px == expected_px { self.clear(&kind) } else { self.faults.raise(kind, now) }
    }

    fn judge_content(&mut self, facts: &FrameFacts) {
        let Some(last) = self.last else {
            self.same = (facts.stamps.arrived, 1);
            return;
        };
        if facts.fingerprint != last.fingerprint {
            self.same = (facts.stamps.arrived, 1);
            self.good_frame(FROZEN);
            return;
        }
        // The same frame handed out twice is no news at all; its age says so.
        let stamp = |stamps: &FrameStamps| (stamps.device, stamps.exposed_at);
        if stamp(&facts.stamps) == stamp(&last.stamps) || self.config.frozen_frames == 0 {
            return;
        }
        self.same.1 = self.same.1.saturating_add(1);
        self.good[FROZEN] = 0;
        if self.same.1 >= self.config.frozen_frames {
            self.faults.raise(FaultKind::Frozen { frames: self.same.1 }, self.same.0);
        }
    }

    fn judge_clock(&mut self, facts: &FrameFacts) {
        let Some(device) = facts.stamps.device else { return };
        match self.clock.observe(device, facts.stamps.arrived).step_nanos {
            Some(nanos) => {
                self.good[CLOCK] = 0;
                self.faults.raise(FaultKind::ClockStepped { step_s: nanos as f64 * 1e-9 }, facts.stamps.arrived);
            }
            None => self.good_frame(CLOCK),
        }
    }

    /// The age of a frame at its arrival. One that is too old is no fault, but two in a row are as stale as none.
    fn judge_age(&mut self, facts: &FrameFacts, now: MonotonicTime) {
        let age = now.since(facts.stamps.exposed_at);
        if age.as_secs_f64() <= self.config.max_frame_age_s {
            return self.good_frame(STALE);
        }
        self.good[STALE] = 0;
        let Some(last) = self.last else { return };
        let last_age = last.stamps.arrived.since(last.stamps.exposed_at);
        if last_age.as_secs_f64() > self.config.max_frame_age_s {
            let limit = Duration::from_secs_f64(self.config.max_frame_age_s);
            self.faults.raise(FaultKind::Stale { age, limit }, facts.stamps.exposed_at);
        }
    }

    /// Rate and drops over the window.
    fn judge_window(&mut self, now: MonotonicTime) {
        let length = Duration::from_secs_f64(self.config.rate_window_s);
        while self.window.front().is_some_and(|(arrived, _)| now.since(*arrived) > length) {
            self.window.pop_front();
        }
        let frames = self.window.len();
        let dropped = self.window.iter().map(|&(_, missing)| missing).fold(0, u32::saturating_add);
        let of = dropped.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
        let fraction = f64::from(dropped) / f64::from(of.max(1));
        let kind = FaultKind::Dropping { dropped, of };
        if fraction > self.config.max_dropped_fraction && dropped >= 2 {
            self.faults.raise(kind, now);
        } else if fraction <= self.config.max_dropped_fraction / 2.0 || dropped == 0 {
            self.clear(&kind);
        }
        self.counters.rate_hz = 0.0;
        if let (Some(&(first, _)), Some(&(last, _))) = (self.window.front(), self.window.back())
            && frames >= 2
        {
            // Until the next frame is due the last one ends the window; later the wait counts too.
            let period = Duration::from_secs_f64(1.0 / self.nominal_rate_hz.max(1e-3));
            let waited = now.since(last).saturating_sub(period);
            self.counters.rate_hz = (frames - 1) as f64 / (last.since(first) + waited).as_secs_f64().max(1e-9);
        }
        // A window that is not yet full says nothing about the rate.
        if self.opened_at.is_none_or(|opened| now.since(opened) <= length) {
            return;
        }
        let least_hz = self.nominal_rate_hz * self.config.least_rate_fraction;
        let kind = FaultKind::Slow { rate_hz: self.counters.rate_hz, least_hz };
        if self.counters.rate_hz < least_hz {
            self.faults.raise(kind, now);
        } else if self.counters.rate_hz >= least_hz * 1.03 || self.counters.rate_hz >= self.nominal_rate_hz {
            self.clear(&kind);
        }
    }
}

/// Frames missing between two sequence numbers; a count that begins anew or leaps absurdly tells of a restart, not drops.
fn missing_between(last: u64, next: u64) -> u32 {
    const ABSURD: u64 = 100_000;
    match next.checked_sub(last) {
        Some(step @ 1..ABSURD) => (step - 1) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
