//! TensorBoard's event files: TFRecord framing around `tensorflow.Event` messages.
//!
//! A record on the disk is: length (u64), masked CRC-32C of the length, payload, masked CRC-32C of the payload, all
//! little-endian. Of the messages only the handful of fields that scalars need are declared here; field numbers are
//! those of TensorFlow's `event.proto` and `summary.proto`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::history::{History, Row};
use crate::error::TrainError;
use crate::run_dir::{new_file_in, writing};

/// What TensorBoard recognises an event file by.
const PREFIX: &str = "events.out.tfevents.";
const FILE_VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970 UTC.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`: a reader that has seen this step or later ones forgets them.
const SESSION_START: i32 = 1;

/// Appends to the event file of a run.
///
/// The metrics list is the only truth: opening writes the whole history of the run into a new file, renames it into
/// place and removes the event files of earlier sessions. So no step stands there twice, whatever interrupted the
/// last session, and a TensorBoard that is watching goes on to the new file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts the event file of this session with the history so far. `now`: seconds since 1970 UTC.
    pub fn create(folder: &Path, history: &History, now: f64) -> Result<Self, TrainError> {
        let _writing = writing();
        let earlier = event_files(folder)?;
        let session = earlier.iter().filter_map(|path| session_of(path)).max().map_or(0, |last| last + 1);
        let path = folder.join(format!("{PREFIX}{:010}.tenon.{session:04}", now as u64));
        let fail = |e: &dyn std::fmt::Display| TrainError::file(&path, format!("cannot be written: {e}"));
        let mut bytes = Vec::new();
        let event = |step| Event { wall_time: now, step, ..Event::default() };
        frame(&Event { file_version: Some(FILE_VERSION.into()), ..event(0) }, &mut bytes);
        frame(&Event { session_log: Some(SessionLog { status: SESSION_START }), ..event(0) }, &mut bytes);
        for i in 0..history.steps.len() {
            frame(&event_of(&history.row(i), now), &mut bytes);
        }
        let mut file = new_file_in(folder).map_err(|e| fail(&e))?;
        file.write_all(&bytes).map_err(|e| fail(&e))?;
        file.persist(&path).map_err(|e| fail(&e.error))?;
        for old in earlier.iter().filter(|old| **old != path) {
            std::fs::remove_file(old).map_err(|e| TrainError::file(old, format!("cannot be removed: {e}")))?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| fail(&e))?;
        Ok(Self { path, file })
    }

    /// Appends a record in one write.
    pub fn append(&mut self, row: &Row) -> Result<(), TrainError> {
        let mut bytes = Vec::new();
        let now = row.unix_seconds;
        frame(&event_of(row, now), &mut bytes);
        let _writing = writing();
        self.file.write_all(&bytes).map_err(|e| TrainError::file(&self.path, format!("cannot grow: {e}")))
    }
}

/// `unknown_time` stands for a record that does not say when it was written.
fn event_of(row: &Row, unknown_time: f64) -> Event {
    let values = row.values.iter();
    let value = values.map(|(tag, v)| SummaryValue { tag: tag.clone(), simple_value: Some(*v as f32) }).collect();
    Event {
        wall_time: if row.unix_seconds.is_nan() { unknown_time } else { row.unix_seconds },
        step: i64::try_from(row.step).unwrap_or(i64::MAX),
        summary: Some(Summary { value }),
        ..Event::default()
    }
}

fn event_files(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let fail = |e| TrainError::file(folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn session_of(path: &Path) -> Option<u32> {
    path.extension()?.to_str()?.parse().ok()
}

fn frame(event: &Event, into: &mut Vec<u8>) {
    let payload = event.encode_to_vec();
    let length = (payload.len() as u64).to_le_bytes();
    into.extend(length);
    into.extend(masked_crc32c(&length).to_le_bytes());
    into.extend(&payload);
    into.extend(masked_crc32c(&payload).to_le_bytes());
}

/// CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays a good one (TFRecord).
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0u32, |crc, &byte| TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event of the only event file, framing and checksums checked.
    fn read(folder: &Path) -> Vec<Event> {
        let files = event_files(folder).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = std::fs::read(&files[0]).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, more) = rest.split_at(8);
            let (length_crc, more) = more.split_at(4);
            let (payload, more) = more.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (payload_crc, more) = more.split_at(4);
            assert_eq!(length_crc, masked_crc32c(length).to_le_bytes());
            assert_eq!(payload_crc, masked_crc32c(payload).to_le_bytes());
            events.push(Event::decode(payload).unwrap());
            rest = more;
        }
        events
    }

    fn row(step: u64, loss: f64) -> Row {
        Row { step, unix_seconds: 100.0 + step as f64, values: vec![("loss".into(), loss), ("clip/00".into(), 0.25)] }
    }

    fn history(rows: impl IntoIterator<Item = Row>) -> History {
        let mut history = History::new("epoch");
        rows.into_iter().for_each(|row| history.push(row).unwrap());
        history
    }

    /// RFC 3720, B.4, and the check value of the CRC catalogue.
    #[test]
    fn known_checksums() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// The bytes that TensorBoard's own `RecordWriter` and protobuf classes (2.21) produce for these two events.
    #[test]
    fn the_bytes_are_those_of_tensorboards_own_writer() {
        let mut bytes = Vec::new();
        frame(&Event { wall_time: 1.5, file_version: Some(FILE_VERSION.into()), ..Event::default() }, &mut bytes);
        frame(&event_of(&Row { step: 7, unix_seconds: 2.5, values: vec![("a/00".into(), 0.5)] }, 0.0), &mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, KNOWN_FILE);
    }

    const KNOWN_FILE: &str = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c1a00000000000000129bd82d09000000000000044010072a0d0a0b0a04612f3030150000003f6956db2d";

    #[test]
    fn what_is_appended_can_be_read_and_opening_again_leaves_no_step_twice() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut writer = EventWriter::create(folder, &history([]), 100.0).unwrap();
        for step in 1..=4 {
            writer.append(&row(step, 1.0 / step as f64)).unwrap();
        }
        // The program is killed in the middle of a write, and the last checkpoint is that of step 2.
        writer.file.write_all(&[1, 2, 3]).unwrap();
        let mut writer = EventWriter::create(folder, &history([row(1, 1.0), row(2, 0.5)]), 100.0).unwrap();
        writer.append(&row(3, 1.0 / 3.0)).unwrap();
        let events = read(folder);
        assert_eq!(events[0].file_version.as_deref(), Some(FILE_VERSION));
        assert_eq!(events[1].session_log, Some(SessionLog { status: SESSION_START }));
        assert_eq!(events[2..].iter().map(|e| e.step).collect::<Vec<_>>(), [1, 2, 3]);
        let last = events[4].summary.as_ref().unwrap();
        assert_eq!(events[4].wall_time, 103.0);
        assert_eq!(last.value[0], SummaryValue { tag: "loss".into(), simple_value: Some(1.0 / 3.0) });
        assert_eq!(last.value[1].tag, "clip/00");
    }
}
