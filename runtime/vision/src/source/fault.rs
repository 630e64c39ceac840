//! What may be wrong with a camera, as values with numbers and with a message that says what to do.

use std::fmt;
use std::time::Duration;

use tenon_core::time::MonotonicTime;

use super::controls::Control;
use super::frame::Serial;

/// One thing that is wrong, and since when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraFault {
    pub kind: FaultKind,
    /// When it began, which is earlier than when it was certain.
    pub since: MonotonicTime,
}

/// What is wrong, in numbers of the latest observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// The camera's thread is no more.
    Stopped,
    /// The source is gone or cannot be opened; it is tried again.
    Disconnected {
        failed_opens: u32,
    },
    /// Not the camera that was calibrated.
    SerialChanged {
        expected: Serial,
        found: Option<Serial>,
    },
    /// Not the resolution that was calibrated.
    ResolutionChanged {
        expected_px: [usize; 2],
        found_px: [usize; 2],
    },
    /// The newest frame is too old.
    Stale {
        age: Duration,
        limit: Duration,
    },
    /// The camera's clock has jumped; stamps before and after do not belong together.
    ClockStepped {
        step_s: f64,
    },
    /// New stamps with the same content.
    Frozen {
        frames: u32,
    },
    /// A control is not where it was locked.
    ControlDrifted {
        control: Control,
        locked: i64,
        found: Option<i64>,
    },
    /// Frames are missing between those that came.
    Dropping {
        dropped: u32,
        of: u32,
    },
    Slow {
        rate_hz: f64,
        least_hz: f64,
    },
}

impl FaultKind {
    /// Number of kinds, the faults that may stand at once.
    pub const COUNT: usize = 10;

    /// Place of the kind in order of severity, 0 the worst.
    pub const fn index(&self) -> usize {
        match self {
            Self::Stopped => 0,
            Self::Disconnected { .. } => 1,
            Self::SerialChanged { .. } => 2,
            Self::ResolutionChanged { .. } => 3,
            Self::Stale { .. } => 4,
            Self::ClockStepped { .. } => 5,
            Self::Frozen { .. } => 6,
            Self::ControlDrifted { .. } => 7,
            Self::Dropping { .. } => 8,
            Self::Slow { .. } => 9,
        }
    }

    /// Poses from frames under this fault are wrong or old; otherwise they are only fewer.
    pub const fn spoils_poses(&self) -> bool {
        self.index() <= 7
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Stopped => f.write_str("its thread has ended: see the log for a panic, then restart the program"),
            Self::Disconnected { failed_opens: 0 } => {
                f.write_str("disconnected: check the cable and the power of the hub; it is opened again by itself")
            }
            Self::Disconnected { failed_opens } => write!(
                f,
                "disconnected, {failed_opens} tries to open it have failed: check the cable, the power of the hub and \
                 that no other program holds it"
            ),
            Self::SerialChanged { expected, found } => {
                match found {
                    Some(found) => write!(f, "serial number {found} instead of {expected}")?,
                    None => write!(f, "no serial number instead of {expected}")?,
                }
                f.write_str(": put the calibrated camera back or calibrate this one")
            }
            Self::ResolutionChanged { expected_px: [w, h], found_px: [found_w, found_h] } => write!(
                f,
                "pictures of {found_w}x{found_h} px instead of {w}x{h}: the calibration holds for one resolution; set \
                 that or calibrate anew"
            ),
            Self::Stale { age, limit } => write!(
                f,
                "no frame for {} ms (limit {} ms): check the cable, and give each camera or two a USB controller of \
                 their own",
                age.as_millis(),
                limit.as_millis()
            ),
            Self::ClockStepped { step_s } => write!(
                f,
                "its clock stepped by {step_s:+.3} s: frames are used again once it runs evenly; if this comes back, \
                 reset the camera and update its firmware"
            ),
            Self::Frozen { frames } => write!(
                f,
                "the same picture {frames} times with new stamps: unplug the camera and plug it in again (a rendered \
                 scene without noise needs frozen_frames = 0)"
            ),
            Self::ControlDrifted { control, locked, found } => {
                match found {
                    Some(found) => write!(f, "{control} reads {found} and was locked at {locked}")?,
                    None => write!(f, "{control} can no longer be read and was locked at {locked}")?,
                }
                f.write_str(": stop the other program that changes it, then open the camera anew")
            }
            Self::Dropping { dropped, of } => write!(
                f,
                "{dropped} of the last {of} frames were dropped: use fewer streams on a USB controller, or a lower rate"
            ),
            Self::Slow { rate_hz, least_hz } => write!(
                f,
                "{rate_hz:.1} frames a second (at least {least_hz:.1} wanted): switch auto-exposure priority off, \
                 shorten the exposure, use fewer streams on a USB controller"
            ),
        }
    }
}

/// The faults that stand at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CameraFaults([Option<CameraFault>; FaultKind::COUNT]);

impl CameraFaults {
    /// The worst first.
    pub fn iter(&self) -> impl Iterator<Item = &CameraFault> {
        self.0.iter().flatten()
    }

    pub fn worst(&self) -> Option<&CameraFault> {
        self.iter().next()
    }

    /// The worst of those under which poses are wrong or old.
    pub fn spoiling(&self) -> Option<&CameraFault> {
        self.iter().find(|fault| fault.kind.spoils_poses())
    }

    pub fn is_empty(&self) -> bool {
        self.worst().is_none()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Adds a fault, or brings the numbers of the one that stands up to date and keeps its beginning.
    pub fn raise(&mut self, kind: FaultKind, since: MonotonicTime) {
        let place = &mut self.0[kind.index()];
        let since = place.map_or(since, |standing| standing.since);
        *place = Some(CameraFault { kind, since });
    }

    pub(super) fn clear(&mut self, index: usize) {
        self.0[index] = None;
    }

    /// One line a fault: `camera front: …, for 1.2 s`.
    pub fn lines(&self, camera: &str, now: MonotonicTime) -> Vec<String> {
        self.iter().map(|fault| fault.line(camera, now)).collect()
    }
}

impl CameraFault {
    pub fn line(&self, camera: &str, now: MonotonicTime) -> String {
        format!("camera {camera}, for {:.1} s: {}", now.since(self.since).as_secs_f64(), self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> [FaultKind; FaultKind::COUNT] {
        let serial = Serial::new("036522070660").unwrap();
        [
            FaultKind::Stopped,
            FaultKind::Disconnected { failed_opens: 3 },
            FaultKind::SerialChanged { expected: serial, found: None },
            FaultKind::ResolutionChanged { expected_px: [1280, 720], found_px: [640, 480] },
            FaultKind::Stale { age: Duration::from_millis(412), limit: Duration::from_millis(150) },
            FaultKind::ClockStepped { step_s: -0.7 },
            FaultKind::Frozen { frames: 12 },
            FaultKind::ControlDrifted { control: Control::Exposure, locked: 60, found: Some(156) },
            FaultKind::Dropping { dropped: 9, of: 60 },
            FaultKind::Slow { rate_hz: 14.97, least_hz: 25.5 },
        ]
    }

    #[test]
    fn every_kind_has_its_place_and_says_numbers_and_what_to_do() {
        for (i, kind) in one_of_each().into_iter().enumerate() {
            assert_eq!(kind.index(), i);
            let text = kind.to_string();
            let (what, remedy) = text.split_once(": ").unwrap();
            assert!(remedy.len() > 10, "{text}");
            assert!(i == 0 || what.bytes().any(|b| b.is_ascii_digit()), "{text}");
        }
    }

    #[test]
    fn a_standing_fault_keeps_its_beginning_and_takes_new_numbers() {
        let mut faults = CameraFaults::default();
        let at = |s: i64| MonotonicTime::from_nanos(s * 1_000_000_000);
        faults.raise(FaultKind::Frozen { frames: 6 }, at(1));
        faults.raise(FaultKind::Slow { rate_hz: 3.0, least_hz: 25.0 }, at(2));
        faults.raise(FaultKind::Frozen { frames: 9 }, at(3));
        assert_eq!(faults.worst(), Some(&CameraFault { kind: FaultKind::Frozen { frames: 9 }, since: at(1) }));
        assert_eq!(faults.len(), 2);
        assert!(faults.lines("front", at(4))[0].starts_with("camera front, for 3.0 s: the same picture 9 times"));
        faults.clear(FaultKind::Frozen { frames: 0 }.index());
        assert!(faults.spoiling().is_none() && !faults.is_empty(), "a slow camera gives right poses");
    }
}
