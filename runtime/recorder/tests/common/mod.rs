//! Ticks to record.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tenon_core::arm::{Arm, tool_along_flange_z};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperPhase, Request, RobotState};
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, RobotTime, Stamped};
use tenon_recorder::{Ending, Happening, Item, Level, Limits, Record, RunReader, Settings, TickRecord, Words};

/// One tick at 143 Hz.
pub const PERIOD: Duration = Duration::from_millis(7);

#[derive(Debug, Clone, Copy)]
pub struct Happened(pub Option<&'static str>);

impl Happening for Happened {
    fn words(&self) -> Words {
        Words { phase: "Running".to_owned(), event: self.0.map(str::to_owned), gripper: None }
    }

    fn said(&self) -> Option<(Level, String)> {
        self.0.map(|text| (Level::Error, text.to_owned()))
    }

    fn fault(&self) -> Option<String> {
        self.0.map(str::to_owned)
    }
}

/// The `n`-th tick of a run that begins at `start`.
pub fn tick(n: u64, start: MonotonicTime) -> TickRecord {
    let now = start + PERIOD * n as u32;
    let q = [0.1, 0.2, -0.3, -1.5, 0.5, 1.75, 0.25 + n as f64 * 1e-4];
    TickRecord {
        tick: n,
        due: now,
        now: now + Duration::from_micros(60),
        wake_up: Duration::from_micros(60),
        took: Duration::from_micros(25),
        late_ticks: 0,
        state: Some(Stamped {
            time: now,
            value: RobotState {
                sequence: n,
                robot_time: RobotTime::from_nanos(now.as_nanos()),
                joint_positions_rad: q,
                joint_velocities_rad_s: [0.014; 7],
                joint_torques_external_nm: [0.5; 7],
                gripper_width_m: f64::NAN,
                gripper: GripperPhase::Absent,
                error_code: 0,
            },
        }),
        status: Some(Stamped {
            time: start + PERIOD * (n / 7 * 7) as u32,
            value: BridgeStatus {
                sequence: n / 7,
                state: BridgeState::Running,
                fault: BridgeFault::None,
                session: 7,
                epoch: 1,
                acknowledged: n,
                update_us: 900,
                robot_hz: 1000,
            },
        }),
        chunk: Some(n / 20),
        parts: None,
        ordered: false,
        target: Some(q.map(|position_rad| JointMotion {
            position_rad,
            velocity_rad_s: 0.014,
            acceleration_rad_s2: 0.0,
        })),
        request: Some(Request::Heartbeat { session: 7 }),
        infer: None,
    }
}

pub fn settings(folder: &Path, limits: Limits) -> Settings {
    Settings {
        folder: folder.to_owned(),
        metadata: BTreeMap::from([
            ("task".to_owned(), "test".to_owned()),
            ("wall_offset_ns".to_owned(), "1000000000000000000".to_owned()),
        ]),
        arm: Arm::new(tool_along_flange_z(0.1, 0.0)),
        wall_offset_ns: 1_000_000_000_000_000_000,
        limits,
        trouble: Box::new(|text| eprintln!("trouble: {text}")),
    }
}

/// Limits that no disk of a test machine reaches.
pub fn limits() -> Limits {
    Limits { free_bytes: 0, ..Limits::default() }
}

/// All that was recorded.
pub struct Read {
    pub ticks: Vec<(TickRecord, Words)>,
    pub chunks: usize,
    pub events: Vec<String>,
    pub ending: Ending,
    pub metadata: BTreeMap<String, String>,
}

pub fn read(path: &Path) -> Read {
    let mut reader = RunReader::open(path).expect("a record");
    let (mut ticks, mut chunks, mut events) = (Vec::new(), 0, Vec::new());
    while let Some(item) = reader.next_item().expect("what is there is whole") {
        match item {
            Item::Record(Record::Tick(tick, words)) => ticks.push((*tick, words)),
            Item::Record(Record::Chunk(_)) => chunks += 1,
            Item::Record(_) => {}
            Item::Event { text, .. } => events.push(text),
        }
    }
    let ending = reader.ending().expect("an end").clone();
    Read { ticks, chunks, events, ending, metadata: reader.metadata().clone() }
}
