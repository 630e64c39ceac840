//! What is written, when, and what becomes of it when something goes wrong.

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Happened, PERIOD, limits, read, settings, tick};
use tenon_core::action::ActionChunk;
use tenon_core::noise::NoiseState;
use tenon_core::time::MonotonicTime;
use tenon_recorder::{ChunkRecord, Ending, Item, Limits, Record, Recorder, RecorderError, RunReader};

const START: MonotonicTime = MonotonicTime::from_nanos(5_000_000_000);

fn chunk(index: u64) -> ChunkRecord {
    ChunkRecord {
        index,
        started: START + PERIOD * (20 * index) as u32,
        took: Duration::from_millis(1),
        noise: NoiseState { seed: 7, stream: 0, word_pos_hi: 0, word_pos_lo: 16 * index },
        denoising_steps: 20,
        chunk: ActionChunk::new(index, 2, &[0.25; 16]).unwrap(),
    }
}

fn files(folder: &Path, begins: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(begins))
        .collect();
    found.sort();
    found
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_pushed_is_read_again_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (recorder, tap) = Recorder::start(settings(&run, limits())).unwrap();
    for n in 0..3000 {
        if n % 20 == 0 {
            tap.chunk(&chunk(n / 20));
        }
        tap.tick(&tick(n, START), Happened(None));
    }
    let recorded = recorder.finish();
    assert_eq!((recorded.ticks, recorded.dropped, &recorded.trouble), (3000, 0, &None));
    let read = read(&run);
    assert_eq!(read.ending, Ending::Finished);
    assert_eq!(read.metadata["task"], "test");
    assert_eq!((read.ticks.len(), read.chunks), (3000, 150));
    for (n, (record, words)) in read.ticks.iter().enumerate() {
        // NaN is where there is no gripper.
        assert_eq!(format!("{record:?}"), format!("{:?}", tick(n as u64, START)));
        assert_eq!(words.phase, "Running");
    }
    let minute = recorded.bytes as f64 / 3000.0 / 7e-3 * 60.0 / 1e6;
    println!("{minute:.1} MB a minute");
    assert!(minute < 20.0, "{minute} MB a minute");
    assert!(matches!(Recorder::<Happened>::start(settings(&run, limits())), Err(RecorderError::Taken { .. })));
}

#[test]
fn a_full_queue_drops_and_counts_and_the_gap_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, tap) = Recorder::start(settings(folder.path(), limits())).unwrap();
    // Faster than any thread writes.
    for n in 0..200_000 {
        tap.tick(&tick(n, START), Happened(None));
    }
    let recorded = recorder.finish();
    assert!(recorded.dropped > 0, "{recorded:?}");
    assert_eq!(recorded.ticks + recorded.dropped, 200_000);
    let read = read(folder.path());
    assert_eq!(read.ticks.len() as u64, recorded.ticks);
    assert!(read.events.iter().any(|text| text.contains("were dropped")), "{:?}", read.events);
}

#[test]
fn what_led_to_a_fault_is_kept_apart_at_once_and_then_with_what_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, tap) = Recorder::start(settings(folder.path(), limits())).unwrap();
    let push = |from: u64, to: u64| {
        for n in from..to {
            if n % 20 == 0 {
                tap.chunk(&chunk(n / 20));
            }
            tap.tick(&tick(n, START), Happened((n == 7000).then_some("stale_state")));
            // A minute of the run in a second or two: the queue is not to fill.
            if n % 500 == 0 {
                std::thread::sleep(Duration::from_millis(60));
            }
        }
    };
    push(0, 7001);
    let file = wait_for("the fault's file", || {
        files(folder.path(), "fault-").into_iter().find(|path| path.extension().is_some_and(|e| e == "mcap"))
    });
    assert!(file.to_string_lossy().contains("stale_state"), "{file:?}");
    // Nothing more is pushed: whatever is killed now, the file is whole.
    let first = read(&file);
    assert_eq!(first.ending, Ending::Finished);
    assert_eq!((first.metadata["fault"].as_str(), first.metadata["task"].as_str()), ("stale_state", "test"));
    let (begin, end) = (first.ticks[0].0.now, first.ticks.last().unwrap().0);
    assert_eq!(end.tick, 7000);
    assert!((29.9..=30.0).contains(&end.now.seconds_since(begin)), "{}", end.now.seconds_since(begin));
    assert!(first.ticks.windows(2).all(|pair| pair[1].0.tick == pair[0].0.tick + 1));
    assert!(first.chunks >= 214, "{} chunks of 30 s", first.chunks);
    assert_eq!(first.events, ["stale_state"]);
    push(7001, 7600);
    let recorded = recorder.finish();
    assert_eq!(recorded.fault_files, std::slice::from_ref(&file));
    let second = read(&file);
    let end = second.ticks.last().unwrap().0;
    assert!(end.tick >= 7000 + 285, "two seconds behind the fault: {}", end.tick);
    assert_eq!(second.ticks[0].0.tick, first.ticks[0].0.tick);
    assert_eq!(read(folder.path()).ticks.len(), 7600);
    assert!(files(folder.path(), "fault-").len() == 1);
}

#[test]
fn a_long_record_goes_on_in_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let of_tests = Limits { segment_bytes: 200_000, flush: Duration::from_millis(1), ..limits() };
    let (recorder, tap) = Recorder::start(settings(folder.path(), of_tests)).unwrap();
    for n in 0..2000 {
        tap.tick(&tick(n, START), Happened(None));
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
    }
    recorder.finish();
    assert!(files(folder.path(), "run-").len() > 3);
    let all = read(folder.path());
    assert_eq!((all.ticks.len(), all.ending), (2000, Ending::Finished));
    // Each explains itself.
    let last = files(folder.path(), "run-").pop().unwrap();
    assert_eq!(RunReader::open(&last).unwrap().metadata()["task"], "test");
}

#[test]
fn a_full_disk_ends_the_record_by_name_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let of_tests = Limits { run_bytes: 300_000, ..limits() };
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let mut settings_ = settings(folder.path(), of_tests);
    settings_.trouble = Box::new(move |text| heard.lock().unwrap().push(text.to_owned()));
    let (recorder, tap) = Recorder::start(settings_).unwrap();
    for n in 0..3000 {
        tap.tick(&tick(n, START), Happened((n == 2990).then_some("late")));
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let recorded = recorder.finish();
    assert!(recorded.trouble.as_ref().is_some_and(|text| text.contains("it ends here")), "{recorded:?}");
    assert_eq!(said.lock().unwrap().len(), 1, "{said:?}");
    assert_eq!(recorded.dropped, 0, "what comes is still taken");
    // What led to a fault comes out of memory, and has all of it.
    let fault = read(&recorded.fault_files[0]);
    assert_eq!(fault.ticks.last().map(|(record, _)| record.tick), Some(2999));
    let run = read(folder.path());
    assert!(matches!(run.ending, Ending::Stopped { .. }), "{:?}", run.ending);
    assert!(run.ticks.len() < 2900);
    assert!(run.events.iter().any(|text| text.contains("it ends here")));

    let none_left = Limits { free_bytes: u64::MAX, ..Limits::default() };
    let other = folder.path().join("other");
    let error = Recorder::<Happened>::start(settings(&other, none_left)).err().expect("no disk is that large");
    assert!(error.to_string().contains("disk full"), "{error}");
}

#[test]
fn a_damaged_chunk_is_named_and_nothing_of_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, tap) = Recorder::start(settings(folder.path(), limits())).unwrap();
    for n in 0..100 {
        tap.tick(&tick(n, START), Happened(None));
    }
    recorder.finish();
    let file = folder.path().join("run-000.mcap");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let mut reader = RunReader::open(folder.path()).unwrap();
    let error = loop {
        match reader.next_item() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not seen"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, RecorderError::Damaged { .. }), "{error}");
}

#[test]
fn a_record_that_is_cut_off_or_damaged_anywhere_gives_its_beginning_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, tap) = Recorder::start(settings(folder.path(), limits())).unwrap();
    for n in 0..60 {
        tap.tick(&tick(n, START), Happened(None));
        if n % 20 == 19 {
            std::thread::sleep(Duration::from_millis(350));
        }
    }
    recorder.finish();
    let whole = std::fs::read(folder.path().join("run-000.mcap")).unwrap();
    let other = folder.path().join("other.mcap");
    // How many ticks come out, all of them those of the beginning, and whether an end was found.
    let count = |bytes: &[u8]| {
        std::fs::write(&other, bytes).unwrap();
        let mut reader = RunReader::open(&other).ok()?;
        let mut ticks = 0;
        loop {
            match reader.next_item() {
                Ok(Some(Item::Record(Record::Tick(record, _)))) => {
                    assert_eq!(record.tick, ticks);
                    ticks += 1;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Some((ticks, reader.ending() == Some(&Ending::Finished))),
                Err(_) => return Some((ticks, false)),
            }
        }
    };
    assert_eq!(count(&whole), Some((60, true)));
    let mut before = 0;
    for length in (0..whole.len()).step_by(251) {
        let (ticks, _) = count(&whole[..length]).unwrap_or((0, false));
        assert!(ticks >= before && ticks <= 60, "{length} of {}", whole.len());
        before = ticks;
    }
    assert_eq!(before, 60, "only the index is behind the last chunk");
    for at in (0..whole.len()).step_by(397) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        count(&bytes);
    }
}
