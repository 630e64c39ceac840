//! A source whose delay was measured: the stamps of its frames made true.

use std::time::Duration;

use tenon_core::time::MonotonicTime;

use super::{ControlValues, Frame, FrameSource, SourceDescription, SourceError};

/// Frames from which the delay that the source itself believes in is taken.
const FRAMES: usize = 15;
/// A correction beyond this is no correction: the delay was measured on another camera, or at another rate.
const MOST_S: f64 = 0.2;

/// A source that stamps the middle of a frame's exposure too early or too late, by a constant: what a driver does not know of its
/// camera (readout, compression, its own queue) and the latency measurement has found.
///
/// The stamps keep their own spacing, which is steadier than the arrivals; only their offset is moved, so that the median of the first
/// frames is as old at its arrival as was measured. Until then a frame is as old at its arrival as was measured.
pub struct Delayed<S> {
    source: S,
    /// From the middle of the exposure to the frame in the program's hands, measured (`LatencyRecord::camera`).
    delay: Duration,
    said_s: Vec<f64>,
    /// What the source's stamps are late by, s, once it is known.
    late_s: Option<f64>,
}

impl<S: FrameSource> Delayed<S> {
    pub fn new(source: S, delay: Duration) -> Self {
        Self { source, delay, said_s: Vec::with_capacity(FRAMES), late_s: None }
    }

    fn correct(&mut self, frame: &mut Frame) -> Result<(), SourceError> {
        let stamps = &mut frame.stamps;
        if let Some(late_s) = self.late_s {
            let moved = moved_by(stamps.exposed_at, -late_s);
            // Nothing is seen before it has happened.
            stamps.exposed_at = moved.min(stamps.arrived);
            return Ok(());
        }
        self.said_s.push(stamps.arrived.seconds_since(stamps.exposed_at));
        stamps.exposed_at = moved_by(stamps.arrived, -self.delay.as_secs_f64());
        if self.said_s.len() < FRAMES {
            return Ok(());
        }
        self.said_s.sort_by(f64::total_cmp);
        let said_s = self.said_s[FRAMES / 2];
        let late_s = self.delay.as_secs_f64() - said_s;
        if late_s.abs() > MOST_S {
            return Err(SourceError::Delay {
                name: self.source.description().name.clone(),
                measured_s: self.delay.as_secs_f64(),
                said_s,
            });
        }
        self.late_s = Some(late_s);
        Ok(())
    }
}

fn moved_by(time: MonotonicTime, by_s: f64) -> MonotonicTime {
    MonotonicTime::from_nanos(time.as_nanos() + (1e9 * by_s).round() as i64)
}

impl<S: FrameSource> FrameSource for Delayed<S> {
    fn description(&self) -> &SourceDescription {
        self.source.description()
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        self.source.next_frame(into, timeout)?;
        self.correct(into)
    }

    fn locked(&self) -> ControlValues {
        self.source.locked()
    }

    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        self.source.controls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Serial;

    /// Frames every 33 ms whose stamps are 12 ms too late, in hand 47 ms after the exposure, some later.
    struct Late {
        description: SourceDescription,
        n: i64,
        stamped_after_ms: i64,
    }

    const PERIOD_MS: i64 = 33;

    impl FrameSource for Late {
        fn description(&self) -> &SourceDescription {
            &self.description
        }

        fn next_frame(&mut self, into: &mut Frame, _: Duration) -> Result<(), SourceError> {
            self.n += 1;
            let at = |ms: i64| MonotonicTime::from_nanos(1_000_000 * ms);
            let jitter_ms = if self.n % 5 == 0 { 9 } else { 0 };
            into.stamps.exposed_at = at(self.n * PERIOD_MS + self.stamped_after_ms);
            into.stamps.arrived = at(self.n * PERIOD_MS + 47 + jitter_ms);
            Ok(())
        }
    }

    fn late(stamped_after_ms: i64) -> Delayed<Late> {
        let description = SourceDescription {
            name: "front".into(),
            serial: Some(Serial::new("1").unwrap()),
            width: 8,
            height: 8,
            nominal_rate_hz: 30.0,
            intrinsics: None,
        };
        Delayed::new(Late { description, n: 0, stamped_after_ms }, Duration::from_millis(47))
    }

    #[test]
    fn stamps_become_true_and_keep_their_spacing() {
        let mut source = late(12);
        let mut frame = Frame::of_size(8, 8);
        for n in 1..60 {
            source.next_frame(&mut frame, Duration::ZERO).unwrap();
            let off_ms = frame.stamps.exposed_at.as_nanos() as f64 * 1e-6 - (n * PERIOD_MS) as f64;
            // The first frames bear the jitter of their arrival, the others none.
            let room_ms = if n <= FRAMES as i64 { 9.0 } else { 0.0 };
            assert!((-1e-6..=room_ms + 1e-6).contains(&off_ms), "frame {n}: {off_ms} ms");
        }
    }

    #[test]
    fn a_delay_of_another_camera_is_refused_by_name() {
        let mut source = late(-400);
        let mut frame = Frame::of_size(8, 8);
        let error = (0..FRAMES).find_map(|_| source.next_frame(&mut frame, Duration::ZERO).err()).unwrap().to_string();
        assert!(error.contains("front") && error.contains("47") && error.contains("latency"), "{error}");
    }
}
