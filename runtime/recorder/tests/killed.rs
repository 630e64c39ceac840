//! A process that is killed loses less than a second of its record.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Happened, PERIOD, limits, read, settings, tick};
use tenon_core::time::MonotonicTime;
use tenon_recorder::{Ending, Recorder};

/// Set in the process that is to be killed.
const VICTIM: &str = "TENON_RECORDER_VICTIM";
const START: MonotonicTime = MonotonicTime::from_nanos(1_000_000_000);

/// Records in real time and says after each tick that it has pushed it. No test: it does nothing unless it is started as the victim.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let (_recorder, tap) = Recorder::start(settings(&folder, limits())).unwrap();
    let begun = Instant::now();
    let mut out = std::io::stdout();
    for n in 0..20_000 {
        tap.tick(&tick(n, START), Happened((n == 300).then_some("late")));
        writeln!(out, "\npushed {n}").and_then(|()| out.flush()).unwrap();
        std::thread::sleep((PERIOD * n as u32).saturating_sub(begun.elapsed()));
    }
}

#[test]
fn a_killed_process_loses_less_than_a_second() {
    for lives in [400, 1500, 2777] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("pushed 0") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended before it recorded");
        }
        std::thread::sleep(Duration::from_millis(lives));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let numbers = rest.lines().filter_map(|line| line.strip_prefix("pushed ")?.trim().parse::<u64>().ok());
        let pushed = numbers.max().unwrap();

        let record = read(folder.path());
        assert!(matches!(record.ending, Ending::Cut { .. }), "{:?}", record.ending);
        assert!(
            record.ticks.iter().enumerate().all(|(n, (tick, _))| tick.tick == n as u64),
            "whole from its beginning"
        );
        let kept = record.ticks.len() as u64;
        let lost = PERIOD * (pushed + 1).saturating_sub(kept) as u32;
        println!("killed after {lives} ms: {} of {} ticks kept, {lost:?} lost", kept, pushed + 1);
        assert!(lost < Duration::from_secs(1), "{lost:?} lost");
        if lives > 2500 {
            // 0.6 s passed since the fault: what led to it is whole.
            let fault = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let fault: Vec<PathBuf> = fault.filter(|p| p.to_string_lossy().contains("fault-")).collect();
            assert_eq!(fault.len(), 1, "{fault:?}");
            let fault = read(&fault[0]);
            assert_eq!(fault.ending, Ending::Finished);
            assert!(fault.ticks.iter().any(|(tick, _)| tick.tick == 300));
        }
    }
}
