//! Reads what was recorded, from front to back, and copes with a file that has no end because its process was killed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use mcap::McapError;
use mcap::records::Record as McapRecord;
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};
use tenon_core::time::MonotonicTime;

use crate::error::RecorderError;
use crate::record::{self, Record};
use crate::segment::{END_METADATA, RUN_METADATA};
use crate::topics::{EVENTS_TOPIC, REPLAY_TOPIC};

/// Largest part of a file that is taken into memory at once; a chunk of a quarter of a second has 70 kB.
const LARGEST_BYTES: usize = 64 << 20;

/// Something that was recorded.
#[derive(Debug)]
pub enum Item {
    Record(Record),
    /// A message for people.
    Event {
        at: MonotonicTime,
        level: u64,
        text: String,
    },
}

/// How a record ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Finished,
    /// The recorder stopped before the run did.
    Stopped { why: String },
    /// In the middle of a file: its process was killed. What is missing is younger than a second.
    Cut { path: PathBuf, bytes: u64 },
}

/// The records of a run, in order.
pub struct RunReader {
    metadata: BTreeMap<String, String>,
    wall_offset_ns: i64,
    waiting: VecDeque<PathBuf>,
    current: Option<SegmentReader>,
    ending: Option<Ending>,
    end: BTreeMap<String, String>,
}

impl RunReader {
    /// Opens a run's folder, or one file of it.
    ///
    /// # Errors
    /// [`RecorderError::NoRecord`], [`RecorderError::Io`], [`RecorderError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, RecorderError> {
        let files = if path.is_dir() { segments(path)? } else { vec![path.to_owned()] };
        let mut reader = Self {
            metadata: BTreeMap::new(),
            wall_offset_ns: 0,
            waiting: files.into(),
            current: None,
            ending: None,
            end: BTreeMap::new(),
        };
        reader.read(true)?;
        if reader.metadata.is_empty() {
            return Err(RecorderError::NoRecord { path: path.to_owned() });
        }
        Ok(reader)
    }

    /// What the run says of itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// How the record ends; `None` before its end was reached.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// What was written at the end of a record that was ended in order.
    pub fn end(&self) -> &BTreeMap<String, String> {
        &self.end
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// [`RecorderError::Damaged`], [`RecorderError::Record`], [`RecorderError::Io`]: nothing behind it is read.
    pub fn next_item(&mut self) -> Result<Option<Item>, RecorderError> {
        self.read(false)
    }

    /// `begin`: no further than what the run says of itself.
    fn read(&mut self, begin: bool) -> Result<Option<Item>, RecorderError> {
        loop {
            if self.current.is_none() {
                let Some(path) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(SegmentReader::open(&path)?);
            }
            let Some(segment) = &mut self.current else { return Ok(None) };
            match segment.next(self.wall_offset_ns)? {
                Found::Item(item) => return Ok(Some(item)),
                Found::Run(metadata) => {
                    let offset = metadata.get("wall_offset_ns").and_then(|text| text.parse().ok());
                    self.wall_offset_ns = offset.unwrap_or(self.wall_offset_ns);
                    if self.metadata.is_empty() {
                        self.metadata = metadata;
                    }
                    if begin {
                        return Ok(None);
                    }
                }
                Found::End(metadata) => self.end = metadata,
                Found::Finished => {
                    let stopped = self.end.get("stopped").cloned();
                    self.ending = Some(stopped.map_or(Ending::Finished, |why| Ending::Stopped { why }));
                    self.current = None;
                }
                Found::Cut => {
                    self.ending = Some(Ending::Cut { path: segment.path.clone(), bytes: segment.bytes });
                    self.current = None;
                }
            }
        }
    }
}

/// The files of a run in order.
fn segments(folder: &Path) -> Result<Vec<PathBuf>, RecorderError> {
    let io = |source| RecorderError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if name.starts_with("run-") && name.ends_with(".mcap") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(RecorderError::NoRecord { path: folder.to_owned() }) } else { Ok(files) }
}

enum Found {
    Item(Item),
    Run(BTreeMap<String, String>),
    End(BTreeMap<String, String>),
    Finished,
    Cut,
}

struct SegmentReader {
    path: PathBuf,
    file: BufReader<fs::File>,
    reader: LinearReader,
    topics: HashMap<u16, String>,
    bytes: u64,
    ended: bool,
}

impl SegmentReader {
    fn open(path: &Path) -> Result<Self, RecorderError> {
        let file = fs::File::open(path).map_err(|source| RecorderError::Io { path: path.to_owned(), source })?;
        // A chunk is only used if its checksum is right: one that was cut off is left out whole.
        let options = LinearReaderOptions::default()
            .with_skip_end_magic(true)
            .with_prevalidate_chunk_crcs(true)
            .with_record_length_limit(LARGEST_BYTES);
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            reader: LinearReader::new_with_options(options),
            topics: HashMap::new(),
            bytes: 0,
            ended: false,
        })
    }

    fn next(&mut self, wall_offset_ns: i64) -> Result<Found, RecorderError> {
        loop {
            let Some(event) = self.reader.next_event() else {
                return Ok(if self.ended { Found::Finished } else { Found::Cut });
            };
            let (opcode, data) = match event {
                Ok(LinearReadEvent::ReadRequest(need)) => {
                    let read = self.file.read(self.reader.insert(need));
                    let read = read.map_err(|source| RecorderError::Io { path: self.path.clone(), source })?;
                    self.bytes += read as u64;
                    self.reader.notify_read(read);
                    continue;
                }
                Ok(LinearReadEvent::Record { opcode, data }) => (opcode, data),
                // A file system that lost power may leave zeros where a record would begin; 0 is no kind of record.
                Err(McapError::UnexpectedEof) => return Ok(Found::Cut),
                Err(error) => return Err(damaged(&self.path, self.bytes, error)),
            };
            if opcode == 0 {
                return Ok(Found::Cut);
            }
            let parsed = mcap::parse_record(opcode, data).map_err(|error| damaged(&self.path, self.bytes, error))?;
            match parsed {
                McapRecord::Metadata(metadata) if metadata.name == RUN_METADATA => {
                    return Ok(Found::Run(metadata.metadata));
                }
                McapRecord::Metadata(metadata) if metadata.name == END_METADATA => {
                    return Ok(Found::End(metadata.metadata));
                }
                McapRecord::Channel(channel) => {
                    self.topics.insert(channel.id, channel.topic);
                }
                McapRecord::Message { header, data } => match self.topics.get(&header.channel_id).map(String::as_str) {
                    Some(REPLAY_TOPIC) => {
                        let wrong = |source| RecorderError::Record { path: self.path.clone(), source };
                        return Ok(Found::Item(Item::Record(record::decode(&data).map_err(wrong)?)));
                    }
                    Some(EVENTS_TOPIC) => {
                        let value: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
                        let level = value["level"].as_u64().unwrap_or_default();
                        let text = value["message"].as_str().unwrap_or_default().to_owned();
                        let at = i64::try_from(header.log_time).unwrap_or(i64::MAX).saturating_sub(wall_offset_ns);
                        return Ok(Found::Item(Item::Event { at: MonotonicTime::from_nanos(at), level, text }));
                    }
                    _ => {}
                },
                // Behind it stand copies and indexes.
                McapRecord::DataEnd(_) => self.ended = true,
                McapRecord::Footer(_) => return Ok(Found::Finished),
                _ => {}
            }
        }
    }
}

fn damaged(path: &Path, bytes: u64, error: McapError) -> RecorderError {
    RecorderError::Damaged { path: path.to_owned(), offset: bytes, why: error.to_string() }
}
