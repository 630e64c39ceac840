//! Bytes of the records: golden constants, round trips, and arbitrary bytes that must never panic.

mod common;

use std::time::Duration;

use tenon_core::action::ActionChunk;
use tenon_core::fusion::{NotReady, PartsBlock, PartsView, Why};
use tenon_core::noise::NoiseState;
use tenon_core::safety::JointMotion;
use tenon_core::time::MonotonicTime;
use tenon_recorder::record::{
    Given, OBSERVATION_VALUES, ORDER_BYTES, decode, encode_chunk, encode_order, encode_parts, encode_tick,
};
use tenon_recorder::{ChunkRecord, Observation, OrderRecord, PartsRecord, Record, TickRecord, Words};

/// Written by hand from the tables in `record`, so that a change of layout shows here and not in an old record.
const GOLDEN_TICK: &str = "0201\
    b407\
    0300000000000000\
    00ca9a3b00000000\
    e1ca9a3b00000000\
    e1000000\
    05000000\
    02000000\
    0700486f6c64696e67\
    0900000000000000\
    000000000000e03f000000000000e03f000000000000e03f000000000000e03f000000000000e03f000000000000e03f000000000000e03f\
    000000000000f0bf000000000000f0bf000000000000f0bf000000000000f0bf000000000000f0bf000000000000f0bf000000000000f0bf\
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    0b00000000000000020000000040000080bf0000803e\
    050041726d6564\
    0100020001000000003f\
    07004f70656e696e67";
const GOLDEN_CHUNK: &str = "0202\
    0700000000000000\
    0200000000000000\
    00ca9a3b00000000\
    e803000000000000\
    0100000000000000000000000000000003000000000000000400000000000000\
    05000000\
    02000100\
    0000803f000000c0";
const GOLDEN_ORDER: &str = "0203\
    0300000000000000\
    0400686f6c64\
    010005";
const GOLDEN_PARTS: &str = "0204\
    00ca9a3b00000000\
    00\
    0500000000000000\
    02\
    09006c616d705f62617365\
    0000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const SECOND: MonotonicTime = MonotonicTime::from_nanos(1_000_000_000);

fn golden_tick() -> (TickRecord, Words) {
    let mut values = [0.0; OBSERVATION_VALUES];
    values[..2].copy_from_slice(&[2.0, -1.0]);
    let mut given = Given { frozen: 1, overlap: 2, len: 1, ..Given::NOTHING };
    given.values[0] = 0.5;
    let record = TickRecord {
        tick: 3,
        due: SECOND,
        now: SECOND + Duration::from_nanos(225),
        wake_up: Duration::from_nanos(225),
        took: Duration::from_nanos(5),
        late_ticks: 2,
        state: None,
        status: None,
        chunk: Some(9),
        parts: None,
        ordered: true,
        target: Some([JointMotion { position_rad: 0.5, velocity_rad_s: -1.0, acceleration_rad_s2: 0.0 }; 7]),
        request: None,
        infer: Some(Observation { id: 11, len: 2, values, budget_s: 0.25, given }),
    };
    let words =
        Words { phase: "Holding".to_owned(), event: Some("Armed".to_owned()), gripper: Some("Opening".to_owned()) };
    (record, words)
}

fn golden_chunk() -> ChunkRecord {
    ChunkRecord {
        index: 2,
        started: SECOND,
        took: Duration::from_micros(1),
        noise: NoiseState { seed: 1, stream: 0, word_pos_hi: 3, word_pos_lo: 4 },
        denoising_steps: 5,
        chunk: ActionChunk::new(7, 1, &[1.0, -2.0]).unwrap(),
    }
}

fn golden_order() -> OrderRecord {
    let mut bytes = [0; ORDER_BYTES];
    bytes[0] = 5;
    OrderRecord { tick: 3, name: "hold", len: 1, bytes }
}

fn golden_parts() -> PartsRecord {
    let missing = NotReady { part: "lamp_base", since: MonotonicTime::from_nanos(5), why: Why::Lost };
    PartsRecord(PartsView::recorded(SECOND, Err(missing), &[]).unwrap())
}

/// One of each kind.
fn samples() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(); 6];
    let (tick, words) = golden_tick();
    encode_tick(&tick, &words, &mut all[0]);
    encode_chunk(&golden_chunk(), &mut all[1]);
    encode_order(&golden_order(), &mut all[2]);
    encode_parts(&golden_parts(), &mut all[3]);
    encode_tick(&common::tick(5, SECOND), &Words::default(), &mut all[4]);
    let block = PartsBlock { oldest_age: Duration::from_millis(12), least_confidence: 0.75 };
    let view = PartsView::recorded(SECOND, Ok(block), &[1.0, f32::NAN, -0.0]).unwrap();
    encode_parts(&PartsRecord(view), &mut all[5]);
    all
}

#[test]
fn every_record_has_the_bytes_of_its_table() {
    let samples = samples();
    for (bytes, golden) in samples.iter().zip([GOLDEN_TICK, GOLDEN_CHUNK, GOLDEN_ORDER, GOLDEN_PARTS]) {
        assert_eq!(hex(bytes), golden);
    }
}

#[test]
fn what_is_read_has_the_bytes_that_were_read() {
    for bytes in samples() {
        let mut again = Vec::new();
        match decode(&bytes).unwrap() {
            Record::Tick(tick, words) => encode_tick(&tick, &words, &mut again),
            Record::Chunk(chunk) => encode_chunk(&chunk, &mut again),
            Record::Order { tick, name, bytes } => {
                assert_eq!((tick, name.as_str(), &bytes[..]), (3, "hold", &[5][..]));
                continue;
            }
            Record::Parts(parts) => encode_parts(&parts, &mut again),
        }
        assert_eq!(hex(&again), hex(&bytes));
    }
    let Record::Tick(tick, words) = decode(&samples()[0]).unwrap() else { panic!("a tick") };
    assert_eq!((*tick, words), golden_tick());
}

#[test]
fn damaged_bytes_are_refused_or_read_and_never_panic() {
    for bytes in samples() {
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode(&longer).is_err());
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut other = bytes.clone();
                other[at] ^= flip;
                // Some are other values, the rest is refused.
                let _ = decode(&other);
            }
        }
        let mut version = bytes;
        version[0] = 9;
        assert!(decode(&version).unwrap_err().to_string().contains("version 9"));
    }
}
