use super::super::clock::{ManualClock, SystemClock};
use super::super::fault::FaultKind;
use super::super::frame::{DeviceTime, FrameStamps, Serial};
use super::super::thread::{Backoff, CameraStatus, CameraThreadSettings, Doorbell, spawn};
use super::super::watch::Expected;
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

/// Frames of a recording that is played, and the errors between them.
struct Player {
    run: RecordedRun,
    folder: std::path::PathBuf,
    played: Frame,
}

impl Player {
    fn new(folder: &Path, playback: Playback) -> Self {
        playback.write(folder).unwrap();
        Self { run: open(folder, Pace::RealTime).unwrap(), folder: folder.to_owned(), played: Frame::of_size(1, 1) }
    }

    fn direct(&self, camera: Condition, clock_ms: i64) {
        Playback { camera, repeat: true, clock_ms }.write(&self.folder).unwrap();
    }

    fn next(&mut self) -> Result<&Frame, SourceError> {
        self.run.next_frame(&mut self.played, TIMEOUT).map(|()| &self.played)
    }
}

const REPEATED: Playback = Playback { camera: Condition::Works, repeat: true, clock_ms: 0 };

#[test]
fn a_repeated_recording_goes_on_evenly_over_its_end() {
    let root = tempfile::tempdir().unwrap();
    for (i, pixels) in ALL.into_iter().enumerate() {
        let folder = root.path().join(format!("run{i}"));
        record(&folder, pixels, 3);
        let mut player = Player::new(&folder, REPEATED);
        // The recording has 33 ms and three numbers from frame to frame, its nominal rate is 30 Hz.
        let lap = 66_000_000 + 33_333_333;
        for k in 0..7 {
            let played = player.next().unwrap();
            let (lap, k) = (lap * (k / 3), k % 3);
            assert_eq!(played.stamps.arrived.as_nanos(), 70_000_000 + lap + k * 33_000_000, "{pixels:?} {k}");
            assert_eq!(played.stamps.exposed_at.as_nanos(), 61_000_000 + lap + k * 33_000_000);
            assert_eq!(played.grey, frame(k as u64).grey);
        }
        assert_eq!(player.played.sequence, 14, "6 of the last frame, 7 a lap");
    }
}

#[test]
fn a_playback_is_heeded_in_real_time_only() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 2);
    Playback { camera: Condition::Unplugged, ..REPEATED }.write(&folder).unwrap();
    let error = open(&folder, Pace::RealTime).err().unwrap();
    assert!(matches!(error, SourceError::NoCamera { .. }) && error.to_string().contains("play.json"), "{error}");
    let mut run = open(&folder, Pace::AsFastAsPossible).unwrap();
    let mut played = Frame::of_size(1, 1);
    for _ in 0..2 {
        run.next_frame(&mut played, TIMEOUT).unwrap();
    }
    assert!(matches!(run.next_frame(&mut played, TIMEOUT), Err(SourceError::Ended { frames: 2, .. })));
}

#[test]
fn a_camera_freezes_hangs_is_unplugged_and_ends_as_it_is_told_to() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 4);
    let mut player = Player::new(&folder, REPEATED);
    player.next().unwrap();
    let shown = player.next().unwrap().clone();
    player.direct(Condition::Frozen, 0);
    for k in 1..=5 {
        let frozen = player.next().unwrap();
        assert_eq!(frozen.grey, shown.grey);
        assert!(frozen.stamps.exposed_at > shown.stamps.exposed_at && frozen.sequence > shown.sequence, "{k}");
    }
    player.direct(Condition::Works, 0);
    assert_ne!(player.next().unwrap().grey, shown.grey);

    let (before, number) = (player.played.stamps.arrived, player.played.sequence);
    player.direct(Condition::Hangs, 0);
    for _ in 0..3 {
        assert!(matches!(player.next(), Err(SourceError::TimedOut { waited: TIMEOUT, .. })));
    }
    player.direct(Condition::Works, 0);
    let after = player.next().unwrap();
    assert_eq!(after.stamps.arrived.since(before), 3 * TIMEOUT, "nothing is made up for");
    assert!(after.sequence <= number + 4, "what was not taken is not counted");

    player.direct(Condition::Unplugged, 0);
    let error = player.next().err().unwrap();
    assert!(matches!(error, SourceError::Disconnected { .. }) && error.needs_reopening(), "{error}");
    assert!(open(&folder, Pace::RealTime).is_err());
    player.direct(Condition::Ended, 0);
    assert!(matches!(player.next(), Err(SourceError::Ended { .. })));
}

#[test]
fn a_clock_that_jumps_is_found_out_as_that_of_a_live_camera_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 4);
    for jump_ms in [60_000, -60_000, 700, -700] {
        let mut player = Player::new(&folder, REPEATED);
        let mut last = DeviceTime::from_nanos(0);
        for _ in 0..20 {
            last = player.next().unwrap().stamps.device.unwrap();
        }
        player.direct(Condition::Works, jump_ms);
        let jumped = player.next().unwrap().stamps;
        let step = jumped.device.unwrap().as_nanos() - last.as_nanos() - jump_ms * 1_000_000;
        assert!((33_000_000..34_000_000).contains(&step), "{step}");
        // The exposure stays where it was.
        assert_eq!(jumped.arrived.since(jumped.exposed_at), Duration::from_millis(9), "{jump_ms}");
    }
    // Without a playback the stamps are the recording's.
    let mut player = Player::new(&folder, REPEATED);
    std::fs::remove_file(folder.join("play.json")).unwrap();
    let played = player.next().unwrap().stamps;
    assert_eq!(played.arrived.since(played.exposed_at), Duration::from_millis(9));
}

#[test]
fn the_watch_names_what_a_recording_is_told_to_do_and_forgets_it_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    record(&folder, RecordingPixels::GreyRaw, 8);
    let player = Player::new(&folder, REPEATED);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(4) };
    let settings = CameraThreadSettings { backoff, ..CameraThreadSettings::of_rate(30.0, Expected::default()) };
    let (opened, of_thread) = (folder.clone(), Arc::clone(&clock));
    let opener =
        move || RecordedRun::open(&opened, Pace::RealTime, false, Arc::clone(&of_thread)).map(|run| Box::new(run) as _);
    let mut reader = spawn(opener, settings, Arc::clone(&clock), &Doorbell::default()).unwrap();
    let mut until = |what: &str, wanted: &dyn Fn(&CameraStatus) -> bool| {
        let began = std::time::Instant::now();
        loop {
            let status = reader.status(clock.now());
            if wanted(&status) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let sound = |status: &CameraStatus| status.faults.spoiling().is_none() && status.newest.is_some();
    let has = |index: usize| move |status: &CameraStatus| status.faults.iter().any(|fault| fault.kind.index() == index);
    until("it works", &sound);
    let serial = description().serial;
    let stale = FaultKind::Stale { age: TIMEOUT, limit: TIMEOUT };
    for (condition, clock_ms, kind) in [
        (Condition::Unplugged, 0, FaultKind::Disconnected { failed_opens: 0 }),
        (Condition::Frozen, 0, FaultKind::Frozen { frames: 0 }),
        (Condition::Hangs, 0, stale),
        (Condition::Works, 5000, FaultKind::ClockStepped { step_s: 0.0 }),
    ] {
        player.direct(condition, clock_ms);
        until("it is named", &has(kind.index()));
        player.direct(Condition::Works, clock_ms);
        until("it works again", &|status| sound(status) && status.serial == serial);
    }
    player.direct(Condition::Ended, 5000);
    until("it ends", &|status| status.ended);
}
