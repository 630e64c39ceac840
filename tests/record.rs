//! The flight recorder as a user meets it: a run on the simulated robot, its record computed again, damaged, cut off by SIGKILL;
//! `tenon top` beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tenon_core::action::ActionChunk;
use tenon_core::arm::{Arm, tool_along_flange_z};
use tenon_recorder::record::ORDER_BYTES;
use tenon_recorder::{
    Happening, Item, Level, Limits, OrderRecord, Record, Recorder, RunReader, Settings, TickRecord, Words,
};

use crate::programs::{Rig, child_of, finish, program, signal, stderr, wait_until_it_moves};

fn replay(run: &Path, arguments: &[&str]) -> (Output, serde_json::Value) {
    let output = Command::new(program("tenon")).arg("replay").arg(run).args(arguments).arg("--json").output();
    let output = output.expect("tenon starts");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

/// A tick's words, as they were recorded. They are leaked: a test is short.
#[derive(Clone, Copy)]
struct Again {
    phase: &'static str,
    event: Option<&'static str>,
}

impl Happening for Again {
    fn words(&self) -> Words {
        Words { phase: self.phase.to_owned(), event: self.event.map(str::to_owned), gripper: None }
    }

    fn said(&self) -> Option<(Level, String)> {
        None
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Writes a record again, in order and with right checksums, with what `change` makes of each item; `None` leaves it out.
fn rewrite(run: &Path, to: &Path, mut change: impl FnMut(Record) -> Option<Record>) {
    let mut reader = RunReader::open(run).expect("a record");
    let settings = Settings {
        folder: to.to_owned(),
        metadata: reader.metadata().clone(),
        arm: Arm::new(tool_along_flange_z(0.1, 0.0)),
        wall_offset_ns: 0,
        limits: Limits { free_bytes: 0, ..Limits::default() },
        trouble: Box::new(|text| panic!("{text}")),
    };
    let (recorder, tap) = Recorder::start(settings).expect("a fresh folder");
    let mut count = 0;
    while let Some(item) = reader.next_item().expect("it is whole") {
        let Item::Record(record) = item else { continue };
        match change(record) {
            Some(Record::Tick(tick, words)) => {
                let again = Again { phase: leak(words.phase), event: words.event.map(leak) };
                tap.tick(&tick, again);
            }
            Some(Record::Chunk(chunk)) => tap.chunk(&chunk),
            Some(Record::Parts(parts)) => tap.parts(&parts),
            Some(Record::Order { tick, name, bytes }) => {
                let mut all = [0; ORDER_BYTES];
                all[..bytes.len()].copy_from_slice(&bytes);
                tap.order(&OrderRecord { tick, name: leak(name), len: bytes.len(), bytes: all });
            }
            None => {}
        }
        count += 1;
        if count % 100 == 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
    }
    assert_eq!(recorder.finish().dropped, 0);
}

/// The text of the failure that `tenon replay --verify` finds.
fn failure(run: &Path) -> String {
    let (output, report) = replay(run, &["--verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let failure = &report["verification"]["failure"];
    let difference = &failure["difference"];
    println!("{}: {} ({} {})", run.display(), failure["text"], difference["recorded"], difference["recomputed"]);
    failure["text"].as_str().expect("a text").to_owned()
}

fn flip(value: f64) -> f64 {
    f64::from_bits(value.to_bits() ^ 1)
}

#[test]
fn a_recorded_run_is_computed_again_to_the_bit_and_one_bit_shows() {
    let rig = Rig::new();
    let run = rig.folder.path().join("record");
    let output = rig.run(1).arg("--record").arg(&run).output().expect("tenon starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let of_run = rig.report();
    assert_eq!(of_run["record"]["dropped"], 0);
    assert_eq!(of_run["record"]["folder"].as_str(), run.to_str());

    let (output, report) = replay(&run, &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stderr(&output), report);
    let ticks = report["ticks"].as_u64().expect("a count");
    assert_eq!((&report["verification"]["ticks"], &report["missing_ticks"]), (&ticks.into(), &0.into()));
    assert_eq!(report["verification"]["chunks"], 25, "a chunk every four of 100 actions");
    assert_eq!((&report["episodes_begun"], &report["episodes_ended"]), (&1.into(), &1.into()));
    assert_eq!(report["ending"], "ended in order");
    assert_eq!(report["targets"]["limited"], of_run["targets_limited"]);
    assert_eq!(report["about"]["task"], "avoid_m1");
    assert_eq!(of_run["record"]["ticks"], ticks);
    let megabytes = of_run["record"]["bytes"].as_f64().expect("bytes") / 1e6;
    let minutes = report["duration_s"].as_f64().expect("a time") / 60.0;
    println!("{ticks} ticks, {megabytes:.2} MB, {:.1} MB a minute", megabytes / minutes);

    // A second run does not write over it.
    let again = rig.run(1).arg("--record").arg(&run).output().expect("tenon starts");
    assert!(!again.status.success() && stderr(&again).contains("holds a record already"), "{}", stderr(&again));

    // Writing it again changes nothing; one bit anywhere does.
    let place = |name: &str| rig.folder.path().join(name);
    rewrite(&run, &place("same"), Some);
    let (output, report) = replay(&place("same"), &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stderr(&output), report["verification"]);

    let in_tick = |name: &str, at: u64, change: fn(&mut TickRecord)| {
        rewrite(&run, &place(name), |record| {
            Some(match record {
                Record::Tick(mut tick, words) if tick.tick == at => {
                    change(&mut tick);
                    Record::Tick(tick, words)
                }
                other => other,
            })
        });
        failure(&place(name))
    };
    let middle = ticks - 200;
    let text = in_tick("target", middle, |tick| {
        let target = tick.target.as_mut().expect("the arm is commanded");
        target[2].velocity_rad_s = flip(target[2].velocity_rad_s);
    });
    assert_eq!(text, "the target, joint 3, velocity_rad_s is not the same");
    // While the policy moves the arm, its measured joints decide.
    let text = in_tick("state", middle, |tick| {
        let state = tick.state.as_mut().expect("a state");
        state.value.joint_positions_rad[0] += 1e-9;
    });
    assert!(text.contains("is not the same"), "{text}");
    rewrite(&run, &place("gap"), |record| {
        (!matches!(&record, Record::Tick(tick, _) if tick.tick == middle)).then_some(record)
    });
    assert!(failure(&place("gap")).contains("1 ticks are missing"));
    rewrite(&run, &place("event"), |record| {
        Some(match record {
            Record::Tick(tick, Words { phase, event: Some(event), gripper }) if event == "MotionEnded" => {
                Record::Tick(tick, Words { phase, event: Some("Armed".to_owned()), gripper })
            }
            other => other,
        })
    });
    assert_eq!(failure(&place("event")), "the event is not the same");
    rewrite(&run, &place("chunk"), |record| {
        Some(match record {
            Record::Chunk(mut chunk) if chunk.index == 10 => {
                let mut values: Vec<f32> =
                    (0..chunk.chunk.steps).filter_map(|i| chunk.chunk.action(i)).flatten().copied().collect();
                values[3] = f32::from_bits(values[3].to_bits() ^ 1);
                let (request, dim) = (chunk.chunk.request, chunk.chunk.action_dim);
                chunk.chunk = ActionChunk::new(request, dim, &values).expect("as many as before");
                Record::Chunk(chunk)
            }
            other => other,
        })
    });
    assert!(failure(&place("chunk")).contains("action 1, value 1 is not the same"));
}

#[test]
fn a_killed_run_is_verified_up_to_its_last_second_and_top_only_listens() {
    let rig = Rig::new();
    let mut child = rig.run(20).spawn().expect("tenon starts");
    wait_until_it_moves(&rig, &mut child);
    let top = Command::new(program("tenon"))
        .args(["top", "--once", "--json", "--config"])
        .arg(&rig.config)
        .output()
        .expect("tenon starts");
    assert!(top.status.success(), "{}", stderr(&top));
    let seen: serde_json::Value = serde_json::from_slice(&top.stdout).expect("JSON");
    println!("{seen}");
    assert!(seen["states"]["rate_hz"].as_f64().is_some_and(|hz| hz > 20.0), "{seen}");
    assert_eq!(seen["bridge"]["state"], "running");
    assert!(seen["bridge"]["targets_hz"].as_f64().is_some_and(|hz| hz > 10.0), "{seen}");
    assert_eq!(seen["arm"]["joints"].as_array().map(Vec::len), Some(7));
    std::thread::sleep(Duration::from_secs(3));
    assert!(child.try_wait().expect("a child").is_none(), "nobody disturbed it");
    signal(child.id(), libc::SIGKILL);
    let _ = child.wait();

    // Where a run is kept without being told.
    let runs: Vec<PathBuf> = std::fs::read_dir(rig.folder.path().join("runs"))
        .expect("$TENON_STATE/runs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let (output, report) = replay(&runs[0], &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stderr(&output), report["verification"]);
    assert!(report["ending"].as_str().is_some_and(|text| text.contains("killed")), "{}", report["ending"]);
    assert!(report["verification"]["ticks"].as_u64().is_some_and(|ticks| ticks > 400), "{report}");
    // For people.
    let text = Command::new(program("tenon")).arg("replay").arg(&runs[0]).output().expect("tenon starts");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("an episode begins") && text.contains("wake_up"), "{text}");
}

#[test]
fn what_led_to_a_fault_is_kept_apart_and_is_what_the_run_has() {
    let rig = Rig::new();
    let mut child = rig.run(20).spawn().expect("tenon starts");
    wait_until_it_moves(&rig, &mut child);
    signal(child_of(child.id(), "tenon-bridge"), libc::SIGKILL);
    let (code, text, _) = finish(child, Duration::from_secs(15));
    assert_eq!(code, Some(1), "{text}");
    let report = rig.report();
    let faults = report["record"]["faults"].as_array().expect("a list").clone();
    assert_eq!(faults.len(), 1, "{report}");
    let fault = PathBuf::from(faults[0].as_str().expect("a path"));
    assert!(fault.to_string_lossy().contains("bridge_silent"), "{fault:?}");
    let (output, of_fault) = replay(&fault, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((&of_fault["about"]["fault"], &of_fault["faults"]), (&"bridge_silent".into(), &1.into()));
    let (output, of_run) = replay(&fault, &["--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stderr(&output), of_run["verification"]);
    // Away from its run it says so.
    let lonely = rig.folder.path().join("lonely.mcap");
    std::fs::copy(&fault, &lonely).expect("the folder is writable");
    let (output, _) = replay(&lonely, &["--verify"]);
    assert!(!output.status.success() && stderr(&output).contains("excerpt"), "{}", stderr(&output));
}
