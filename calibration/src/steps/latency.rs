//! Delays: records of a motion from files, the motion of a tag before a camera, and their entries in the rig's file.
//!
//! A record is a CSV file of `time_s,value`, all records of one measurement on one clock (CLOCK_MONOTONIC on the workstation).
//! The *cause* is what made the motion or knows it without delay, the *response* what comes later:
//!
//! | delay | cause | response |
//! |---|---|---|
//! | camera | place of the hand along its motion | the tag's place in the picture, at the time the frame was in hand |
//! | arm | a joint's target | that joint's angle |
//! | gripper | commanded width | width |
//! | link | a joint's angle at the robot's own time | the same at its arrival |

use std::path::Path;

use nalgebra::{Matrix2, Vector2};
use tenon_core::config::rig::{CameraDelay, Delay, LatencyRecord};
use tenon_vision::TagDetection;
use tenon_vision::source::{Frame, FrameSource, SourceError};
use tenon_vision::{Detector, VisionError};

use super::StepError;
use crate::measure::latency::{LatencyError, LatencySettings, Sample, delay};

/// Whose delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delayed {
    /// A camera by its serial number.
    Camera(String),
    Arm,
    Gripper,
    Link,
}

impl std::fmt::Display for Delayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Camera(serial) => write!(f, "camera {serial}"),
            Self::Arm => f.write_str("arm"),
            Self::Gripper => f.write_str("gripper"),
            Self::Link => f.write_str("link"),
        }
    }
}

/// Reads a record.
pub fn read(path: &Path) -> Result<Vec<Sample>, StepError> {
    let text =
        std::fs::read_to_string(path).map_err(|e| StepError::Read { path: path.to_owned(), reason: e.to_string() })?;
    parse(path, &text)
}

/// Parses its text. `path` names it in messages.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Sample>, StepError> {
    let mut samples = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("time_s") {
            continue;
        }
        let numbers = line.split_once(',').and_then(|(time_s, value)| {
            Some(Sample { time_s: time_s.trim().parse().ok()?, value: value.trim().parse().ok()? })
        });
        let sample = numbers.filter(|s| s.time_s.is_finite() && s.value.is_finite()).ok_or_else(|| {
            StepError::Line { path: path.to_owned(), line: i + 1, reason: format!("{line:?} is not time_s,value") }
        })?;
        samples.push(sample);
    }
    Ok(samples)
}

/// A record as text, for [`parse`].
pub fn to_csv(samples: &[Sample]) -> String {
    let lines = samples.iter().map(|s| format!("{:.9},{:.9}\n", s.time_s, s.value));
    std::iter::once("time_s,value\n".to_owned()).chain(lines).collect()
}

/// The delay of one thing. A camera's response may run the other way than its cause (left in the picture is not +x of the arm).
pub fn measure(
    what: &Delayed,
    cause: &[Sample],
    response: &[Sample],
    settings: &LatencySettings,
) -> Result<Delay, LatencyError> {
    let as_it_is = delay(cause, response, settings);
    if !matches!(what, Delayed::Camera(_)) {
        return as_it_is;
    }
    let turned: Vec<Sample> = response.iter().map(|s| Sample { value: -s.value, ..*s }).collect();
    match (as_it_is, delay(cause, &turned, settings)) {
        // A motion back and forth may resemble itself upside down in a stretch or two, but not in most.
        (Ok(a), Ok(b)) => Ok(if b.samples > a.samples { b } else { a }),
        (Ok(a), Err(_)) => Ok(a),
        (Err(_), Ok(b)) => Ok(b),
        (Err(error), Err(_)) => Err(error),
    }
}

/// Where a tag was in the pictures: times of arrival, s, and the tag's middle, px.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TagTrack {
    pub frames: usize,
    pub seen: Vec<(f64, [f64; 2])>,
}

/// A tag that is seen in fewer frames than this part was out of view.
const SEEN: f64 = 0.8;

impl TagTrack {
    /// Adds a frame that was in hand at `arrived_s`.
    pub fn add(&mut self, arrived_s: f64, detections: &[TagDetection], tag: u32) {
        self.frames += 1;
        let mut of_tag = detections.iter().filter(|d| d.id == tag);
        // An id that is there twice is nobody's.
        if let (Some(found), None) = (of_tag.next(), of_tag.next()) {
            self.seen.push((arrived_s, found.centre_px));
        }
    }

    /// Its place along the direction in which it moved most, px. `what` names it in messages.
    pub fn along_motion(&self, what: &str) -> Result<Vec<Sample>, StepError> {
        if (self.seen.len() as f64) < SEEN * self.frames as f64 || self.seen.is_empty() {
            return Err(StepError::LostTag { what: what.to_owned(), seen: self.seen.len(), frames: self.frames });
        }
        let points = || self.seen.iter().map(|(_, pixel)| Vector2::from(*pixel));
        let mean = points().sum::<Vector2<f64>>() / self.seen.len() as f64;
        let spread: Matrix2<f64> = points().map(|p| (p - mean) * (p - mean).transpose()).sum();
        let eigen = spread.symmetric_eigen();
        let axis = eigen.eigenvectors.column(eigen.eigenvalues.imax()).into_owned();
        let times = self.seen.iter().map(|(time_s, _)| *time_s);
        Ok(times.zip(points()).map(|(time_s, p)| Sample { time_s, value: axis.dot(&(p - mean)) }).collect())
    }
}

/// The track of a tag through all frames of a source, a recorded run for instance, by the frames' time of arrival.
///
/// # Errors
/// What the source says before it has ended; pictures that cannot be searched.
pub fn track(source: &mut dyn FrameSource, detector: &mut Detector, tag: u32) -> Result<TagTrack, StepError> {
    let (width, height) = (source.description().width, source.description().height);
    let mut frame = Frame::of_size(width, height);
    let mut found = Vec::new();
    let mut track = TagTrack::default();
    loop {
        match source.next_frame(&mut frame, std::time::Duration::from_secs(5)) {
            Ok(()) => {}
            Err(SourceError::Ended { .. }) => return Ok(track),
            Err(error) => return Err(error.into()),
        }
        detector.detect_into(frame.grey.view(), &mut found).map_err(|error: VisionError| StepError::Vision(error))?;
        track.add(frame.stamps.arrived.as_nanos() as f64 * 1e-9, &found, tag);
    }
}

/// Enters a delay in place of an earlier one.
pub fn put(record: &mut Option<LatencyRecord>, what: &Delayed, delay: Delay, date: &str) {
    let empty = || LatencyRecord { camera: Vec::new(), arm: None, gripper: None, link: None, date: String::new() };
    let record = record.get_or_insert_with(empty);
    match what {
        Delayed::Camera(serial) => {
            record.camera.retain(|known| known.serial != *serial);
            record.camera.push(CameraDelay { serial: serial.clone(), delay });
        }
        Delayed::Arm => record.arm = Some(delay),
        Delayed::Gripper => record.gripper = Some(delay),
        Delayed::Link => record.link = Some(delay),
    }
    record.date = date.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swing(t: f64) -> f64 {
        0.1 * (1.7 * t).sin() + 0.04 * (4.1 * t + 0.7).sin()
    }

    #[test]
    fn a_tag_that_moves_slantwise_through_the_picture_gives_the_cameras_delay() {
        let cause: Vec<Sample> =
            (0..1600).map(|i| f64::from(i) / 200.0).map(|t| Sample { time_s: t, value: swing(t) }).collect();
        let mut track = TagTrack::default();
        for i in 0..240 {
            let taken = f64::from(i) / 30.0;
            // Up and to the left in the picture where the arm goes along +x.
            let centre_px = [640.0 - 1500.0 * swing(taken), 360.0 - 700.0 * swing(taken)];
            let tag = TagDetection { id: 40, hamming: 0, decision_margin: 90.0, centre_px, corners_px: [centre_px; 4] };
            track.add(taken + 0.047, &[tag], 40);
        }
        let response = track.along_motion("front").unwrap();
        let found = measure(&Delayed::Camera("1".into()), &cause, &response, &LatencySettings::default()).unwrap();
        assert!((found.p50_s - 0.047).abs() < 1.5e-3, "{found:?}");
        // Of an arm that goes the other way nobody knows what it follows.
        let turned: Vec<Sample> = cause.iter().map(|s| Sample { value: -s.value, ..*s }).collect();
        assert!(measure(&Delayed::Arm, &cause, &turned, &LatencySettings::default()).is_err());
    }

    #[test]
    fn a_tag_out_of_view_is_said() {
        let mut track = TagTrack::default();
        (0..10).for_each(|i| track.add(f64::from(i), &[], 40));
        assert!(track.along_motion("front").unwrap_err().to_string().contains("front: the tag was seen in 0 of 10"));
    }

    #[test]
    fn records_are_read_as_they_were_written_and_mistakes_name_their_line() {
        let samples = [Sample { time_s: 1.5, value: -0.25 }, Sample { time_s: 1.6, value: 0.5 }];
        assert_eq!(parse(Path::new("a.csv"), &to_csv(&samples)).unwrap(), samples);
        for wrong in ["1.0", "1.0,x", "NaN,1", "1,2,3"] {
            let said = parse(Path::new("a.csv"), &format!("time_s,value\n{wrong}\n")).unwrap_err().to_string();
            assert!(said.starts_with("a.csv:2:") && said.contains("time_s,value"), "{said}");
        }
    }

    #[test]
    fn a_delay_takes_the_place_of_the_earlier_one_of_the_same_thing() {
        let delay = |p50_s| Delay { samples: 9, mean_s: p50_s, std_s: 0.0, p50_s, p95_s: p50_s, max_s: p50_s };
        let mut record = None;
        let camera = |serial: &str| Delayed::Camera(serial.into());
        put(&mut record, &camera("1"), delay(0.1), "a");
        put(&mut record, &camera("2"), delay(0.2), "a");
        put(&mut record, &camera("1"), delay(0.3), "b");
        put(&mut record, &Delayed::Link, delay(0.01), "b");
        let record = record.unwrap();
        assert_eq!(record.camera.iter().map(|c| c.delay.p50_s).collect::<Vec<_>>(), [0.2, 0.3]);
        assert_eq!((record.link, record.arm, record.date.as_str()), (Some(delay(0.01)), None, "b"));
    }
}
