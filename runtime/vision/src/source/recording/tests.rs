use super::super::clock::ManualClock;
use super::super::frame::{DeviceTime, FrameStamps, Serial};
use super::*;
use crate::Camera;
use tenon_core::time::MonotonicTime;

const TIMEOUT: Duration = Duration::from_millis(500);
const ALL: [RecordingPixels; 4] =
    [RecordingPixels::GreyPng, RecordingPixels::ColourPng, RecordingPixels::GreyRaw, RecordingPixels::ColourRaw];

fn description() -> SourceDescription {
    SourceDescription {
        name: "front".to_owned(),
        serial: Some(Serial::new("036522070660").unwrap()),
        width: 40,
        height: 32,
        nominal_rate_hz: 30.0,
        intrinsics: Some(Camera::pinhole(30.0, 31.0, 20.0, 16.0).unwrap()),
    }
}

fn frame(k: u64) -> Frame {
    let mut frame = Frame::of_size(40, 32);
    let rgb = frame.colour.prepare(ColourFormat::Rgb8, 40, 32);
    for (i, value) in rgb.iter_mut().enumerate() {
        *value = (i as u64 * 7 + k * 13) as u8;
    }
    rgb8_to_grey(frame.colour.pixels(), frame.grey.pixels_mut());
    let exposed = 1_000_000 + k as i64 * 33_000_000;
    frame.stamps = FrameStamps {
        exposed_at: MonotonicTime::from_nanos(exposed),
        device: Some(DeviceTime::from_nanos(exposed + 5)),
        arrived: MonotonicTime::from_nanos(exposed + 9_000_000),
    };
    frame.sequence = 3 * k;
    frame
}

fn record(folder: &Path, pixels: RecordingPixels, frames: u64) {
    let mut recorder = Recorder::create(folder, &description(), pixels).unwrap();
    for k in 0..frames {
        recorder.record(&frame(k)).unwrap();
    }
    assert!(!folder.exists(), "not before it is complete");
    assert_eq!(recorder.finish().unwrap(), folder);
}

fn open(folder: &Path, pace: Pace) -> Result<RecordedRun, SourceError> {
    RecordedRun::open(folder, pace, true, Arc::new(ManualClock::at(MonotonicTime::from_nanos(70_000_000))))
}

#[test]
fn what_was_recorded_is_played_again_exactly() {
    let root = tempfile::tempdir().unwrap();
    for (i, pixels) in ALL.into_iter().enumerate() {
        let folder = root.path().join(format!("deep/run{i}"));
        record(&folder, pixels, 3);
        let mut run = open(&folder, Pace::AsFastAsPossible).unwrap();
        assert_eq!((run.description(), run.len()), (&description(), 3));
        let mut played = Frame::of_size(1, 1);
        for k in 0..3 {
            run.next_frame(&mut played, TIMEOUT).unwrap();
            let recorded = frame(k);
            assert_eq!(played.grey, recorded.grey, "{pixels:?}");
            assert_eq!((played.stamps, played.sequence), (recorded.stamps, recorded.sequence));
            if pixels.is_colour() {
                assert_eq!(played.colour, recorded.colour, "{pixels:?}");
            }
        }
        assert!(matches!(run.next_frame(&mut played, TIMEOUT), Err(SourceError::Ended { frames: 3, .. })));
    }
    assert_eq!(std::fs::read_dir(root.path().join("deep")).unwrap().count(), ALL.len(), "nothing partial is left");
}

#[test]
fn in_real_time_the_stamps_are_moved_to_now() {
    let root = tempfile::tempdir().unwrap();
    record(&root.path().join("run"), RecordingPixels::GreyRaw, 3);
    let mut run = open(&root.path().join("run"), Pace::RealTime).unwrap();
    let mut played = Frame::of_size(1, 1);
    for k in 0..3 {
        run.next_frame(&mut played, TIMEOUT).unwrap();
        assert_eq!(played.stamps.arrived.as_nanos(), 70_000_000 + k * 33_000_000);
        assert_eq!(played.stamps.exposed_at.as_nanos(), 61_000_000 + k * 33_000_000);
    }
}

#[test]
fn nothing_is_overwritten_and_an_interrupted_recording_is_told() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 1);
    let message =
        |folder: &Path| Recorder::create(folder, &description(), RecordingPixels::GreyRaw).err().unwrap().to_string();
    assert!(message(&folder).contains("it exists"));
    drop(Recorder::create(&root.path().join("cut"), &description(), RecordingPixels::GreyRaw).unwrap());
    assert!(message(&root.path().join("cut")).contains("interrupted"));
    assert!(open(&root.path().join("cut"), Pace::RealTime).is_err());
}

#[test]
fn frames_that_do_not_belong_to_the_recording_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(&root.path().join("a"), &description(), RecordingPixels::ColourPng).unwrap();
    recorder.record(&frame(2)).unwrap();
    assert!(recorder.record(&frame(2)).unwrap_err().to_string().contains("after a later one"));
    assert!(recorder.record(&Frame::of_size(16, 16)).unwrap_err().to_string().contains("16x16"));
    let mut grey = frame(3);
    grey.colour.clear();
    assert!(recorder.record(&grey).unwrap_err().to_string().contains("without colour"));
    recorder.record(&frame(4)).unwrap();
    assert_eq!(recorder.frames(), 2);
}

#[test]
fn damaged_recordings_are_errors_that_name_the_file() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 2);
    let raw = folder.join("frames.raw");
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::write(&raw, &bytes[1..]).unwrap();
    let message = |folder: &Path| open(folder, Pace::AsFastAsPossible).err().unwrap().to_string();
    assert!(message(&folder).contains("frames.raw") && message(&folder).contains("2559 bytes"), "{}", message(&folder));
    std::fs::remove_file(&raw).unwrap();
    assert!(message(&folder).contains("frames.raw"));
    let lines = std::fs::read_to_string(folder.join("frames.jsonl")).unwrap();
    std::fs::write(folder.join("frames.jsonl"), lines.split_once('\n').unwrap().1).unwrap();
    assert!(message(&folder).contains("does not name the camera"));
    std::fs::remove_file(folder.join("frames.jsonl")).unwrap();
    assert!(message(&folder).contains("no recording"));

    let folder = root.path().join("pictures");
    record(&folder, RecordingPixels::GreyPng, 2);
    std::fs::copy(folder.join("000001.png"), folder.join("000000.png")).unwrap();
    image::GrayImage::new(50, 50).save(folder.join("000001.png")).unwrap();
    let mut run = open(&folder, Pace::AsFastAsPossible).unwrap();
    let mut played = Frame::of_size(1, 1);
    run.next_frame(&mut played, TIMEOUT).unwrap();
    let error = run.next_frame(&mut played, TIMEOUT).unwrap_err().to_string();
    assert!(error.contains("000001.png is not of 40x32"), "{error}");
}
