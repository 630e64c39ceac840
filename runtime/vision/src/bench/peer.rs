//! Pictures with their truth and with what we found in them, for a comparison with another detector outside this program.

use super::speed::{BenchSettings, Timing, timed};
use super::{EXPOSURE_S, HEIGHT, PERIOD, WIDTH, lens};
use crate::render::workbench::{Workbench, three_views};
use crate::render::{CameraEffects, SyntheticCamera};
use crate::track::{Tracker, TrackerSettings};
use crate::{Detector, DetectorSettings, GreyImage, Rig, TagDetection, VisionError};
use serde::Serialize;
use tenon_core::time::MonotonicTime;

/// Searches of each picture that are timed.
const REPEATS: usize = 3;

/// A tag that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerTag {
    pub id: u32,
    pub hamming: u32,
    pub decision_margin: f32,
    /// As in [`TagDetection::corners_px`].
    pub corners_px: [[f64; 2]; 4],
}

/// A tag that is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerTruth {
    pub id: u32,
    pub corners_px: [[f64; 2]; 4],
    pub visible_fraction: f64,
    pub tilt_deg: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerPicture {
    #[serde(skip)]
    pub image: GreyImage,
    pub truth: Vec<PeerTruth>,
    /// Of our whole search with the least decision margin, with refined corners.
    pub found: Vec<PeerTag>,
    /// Of the C library in this program, used plainly and without a decision margin (which other versions reckon differently:
    /// after sharpening here, before it there).
    pub library: Vec<PeerTag>,
}

/// All pictures, the settings to search them with, and how long that took here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerPictures {
    pub family: &'static str,
    pub decode_sharpening: f64,
    pub max_hamming: u32,
    pub min_decision_margin: f32,
    pub full: Timing,
    pub library: Timing,
    pub pictures: Vec<PeerPicture>,
}

/// `count` pictures of the bench of the one_leg task, one leg carried, from three sides in turn.
pub fn peer_pictures(settings: &BenchSettings, count: usize) -> Result<PeerPictures, VisionError> {
    let rig = Rig::built_in()?;
    let bench = Workbench::one_leg(&rig, 0.25)?;
    let lens = lens()?;
    let detector = settings.detector;
    let mut full = Tracker::new(TrackerSettings { detector, ..Default::default() })?;
    let mut library = Detector::plain(DetectorSettings { min_decision_margin: 0.0, ..detector })?;
    let views = three_views();
    let cameras = (0..3).map(|i| SyntheticCamera::new(lens, WIDTH, HEIGHT, CameraEffects::default(), 21 + i));
    let mut cameras = cameras.collect::<Result<Vec<_>, _>>()?;
    let (mut full_times, mut library_times) = (Vec::new(), Vec::new());
    let mut pictures = Vec::with_capacity(count);
    let mut plain = Vec::new();
    for number in 0..count {
        let mut image = GreyImage::filled(WIDTH, HEIGHT, 0);
        let motions = bench.motions(&views[number % 3], 2.0 * number as f64 * PERIOD.as_secs_f64(), EXPOSURE_S);
        let truth = cameras[number % 3].shoot(&bench.scene, &motions, number as u64, &mut image)?;
        let truth = truth.iter().map(|tag| PeerTruth {
            id: tag.id,
            corners_px: tag.corners_px,
            visible_fraction: tag.visible_fraction,
            tilt_deg: tag.tilt_rad.to_degrees(),
        });
        let truth = truth.collect();
        let at = MonotonicTime::from_nanos(1_000_000_000) + PERIOD * number as u32;
        for _ in 0..REPEATS {
            timed(&mut full_times, || full.search_whole(image.view(), at).map(|_| ()))?;
            timed(&mut library_times, || library.detect_into(image.view(), &mut plain))?;
        }
        let (found, library) = (tags(full.found()), tags(&plain));
        pictures.push(PeerPicture { image, truth, found, library });
    }
    Ok(PeerPictures {
        family: detector.family.name(),
        decode_sharpening: detector.decode_sharpening,
        max_hamming: detector.max_hamming,
        min_decision_margin: detector.min_decision_margin,
        full: Timing::of("vision/full", &full_times),
        library: Timing::of("library", &library_times),
        pictures,
    })
}

fn tags(found: &[TagDetection]) -> Vec<PeerTag> {
    let tag = |tag: &TagDetection| PeerTag {
        id: tag.id,
        hamming: tag.hamming,
        decision_margin: tag.decision_margin,
        corners_px: tag.corners_px,
    };
    found.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_with_their_truth_and_what_was_found_in_them() {
        let out = peer_pictures(&BenchSettings::default(), 3).unwrap();
        assert_eq!((out.pictures.len(), out.full.count, out.library.count), (3, 9, 9));
        for picture in &out.pictures {
            // Four tags of the board and four on each of five parts.
            assert!(picture.truth.len() == 24 && picture.found.len() >= 8 && picture.library.len() >= 8);
            for tag in &picture.found {
                let truth = picture.truth.iter().find(|truth| truth.id == tag.id).unwrap();
                let (a, b) = (truth.corners_px[0], tag.corners_px[0]);
                assert!((a[0] - b[0]).hypot(a[1] - b[1]) < 1.0, "{tag:?} {truth:?}");
            }
        }
    }
}
