use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::clock::{ManualClock, Pace};
use super::super::y4m::tests::sample;
use super::*;

/// A program that is being written must not be open in a child that another test starts at the same moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

const TIMEOUT: Duration = Duration::from_millis(200);

fn settings(pace: Pace) -> FileSettings {
    FileSettings { name: "clip".to_owned(), serial: None, rate_hz: None, intrinsics: None, pace, keep_colour: true }
}

fn open(path: &Path, ffmpeg: &Path) -> Result<Video, SourceError> {
    Video::open(path, settings(Pace::AsFastAsPossible), ffmpeg, Arc::new(ManualClock::default()))
}

/// A folder with a video that is not Y4M, and a program `ffmpeg` that runs `script`.
fn fake_decoder(script: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (video, program) = (folder.path().join("clip.mp4"), folder.path().join("ffmpeg"));
    std::fs::write(&video, "not y4m").unwrap();
    std::fs::write(folder.path().join("frames"), sample(40, 32, "420jpeg", 5)).unwrap();
    std::fs::write(&program, format!("#!/bin/sh\ncd '{}'\n{script}\n", folder.path().display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder, video, program)
}

fn play(video: &mut Video) -> (u64, SourceError) {
    let mut frame = Frame::of_size(1, 1);
    for frames in 0.. {
        match video.next_frame(&mut frame, TIMEOUT) {
            Ok(()) => assert_eq!((frame.sequence, frame.grey.pixels()[0]), (frames, frames as u8 + 1)),
            Err(SourceError::TimedOut { .. }) => panic!("a file does not wait"),
            Err(error) => return (frames, error),
        }
    }
    unreachable!()
}

#[test]
fn a_y4m_file_plays_at_its_rate_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.y4m");
    std::fs::write(&path, sample(40, 32, "420jpeg", 4)).unwrap();
    let clock = ManualClock::at(MonotonicTime::from_nanos(500));
    let mut video =
        Video::open(&path, settings(Pace::RealTime), Path::new("no-such-program"), Arc::new(clock.clone())).unwrap();
    assert_eq!((video.description().width, video.description().nominal_rate_hz), (40, 30.0));
    let mut frame = Frame::of_size(1, 1);
    for k in 0..4 {
        video.next_frame(&mut frame, TIMEOUT).unwrap();
        assert_eq!(frame.stamps.exposed_at.as_nanos(), 500 + (k as f64 / 30.0 * 1e9).round() as i64);
        assert_eq!(frame.colour.pixels().len(), 40 * 32 * 3);
    }
    assert!(matches!(video.next_frame(&mut frame, TIMEOUT), Err(SourceError::Ended { frames: 4, .. })));
}

#[test]
fn without_a_decoder_the_error_says_what_to_install() {
    let _alone = alone();
    let (_folder, video, _) = fake_decoder("");
    let error = open(&video, Path::new("/nowhere/ffmpeg")).err().unwrap().to_string();
    assert!(error.contains("clip.mp4") && error.contains("/nowhere/ffmpeg is not installed"), "{error}");
}

#[test]
fn what_a_decoder_writes_comes_through_and_its_arguments_name_the_file() {
    let _alone = alone();
    let (folder, video, program) = fake_decoder("echo \"$@\" > arguments; cat frames");
    let (frames, error) = play(&mut open(&video, &program).unwrap());
    assert!(frames == 5 && matches!(error, SourceError::Ended { .. }), "{frames} {error}");
    let arguments = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
    assert!(arguments.contains(&format!("-i file:{}", video.display())), "{arguments}");
}

#[test]
fn a_decoder_that_fails_is_quoted_at_the_start_and_in_the_middle() {
    let _alone = alone();
    let (_folder, video, program) = fake_decoder("echo 'no such codec' >&2; exit 3");
    let error = open(&video, &program).err().unwrap().to_string();
    assert!(error.contains("no such codec"), "{error}");
    let (_folder, video, program) = fake_decoder("head -c 5000 frames; echo 'the disk is full' >&2; exit 1");
    let (frames, error) = play(&mut open(&video, &program).unwrap());
    assert!(frames == 2 && error.to_string().contains("the disk is full"), "{frames} {error}");
}

#[test]
fn a_decoder_that_stands_still_times_out_and_ends_with_the_source() {
    let _alone = alone();
    let (folder, video, program) = fake_decoder("echo $$ > pid; head -c 3000 frames; exec sleep 60");
    let mut source = open(&video, &program).unwrap();
    let mut frame = Frame::of_size(1, 1);
    source.next_frame(&mut frame, TIMEOUT).unwrap();
    let began = Instant::now();
    assert!(matches!(source.next_frame(&mut frame, TIMEOUT), Err(SourceError::TimedOut { .. })));
    assert!(began.elapsed() >= TIMEOUT && began.elapsed() < Duration::from_secs(20));
    drop(source);
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the decoder is gone");
}

#[test]
fn a_real_decoder_if_there_is_one_decodes_what_we_wrote() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (y4m, avi) = (folder.path().join("a.y4m"), folder.path().join("a.avi"));
    std::fs::write(&y4m, sample(64, 48, "420jpeg", 5)).unwrap();
    let encoded =
        Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(&y4m).args(["-c:v", "ffv1"]).arg(&avi).status();
    match encoded {
        Ok(status) if status.success() => {
            let (frames, error) = play(&mut open(&avi, Path::new("ffmpeg")).unwrap());
            assert!(frames == 5 && matches!(error, SourceError::Ended { .. }), "{frames} {error}");
        }
        other => eprintln!("no ffmpeg program with ffv1 here ({other:?}): only the stand-in was tested"),
    }
}
