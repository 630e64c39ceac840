//! One MCAP file that is being written, without compression and without seeking: what was flushed stays readable whatever
//! happens to the process.

use std::collections::BTreeMap;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use mcap::records::{MessageHeader, Metadata};
use mcap::{McapError, WriteOptions};

use crate::error::RecorderError;

/// Name of the metadata that says what run it is.
pub(crate) const RUN_METADATA: &str = "tenon.run";
/// Name of the metadata at the end of a record that was ended in order.
pub(crate) const END_METADATA: &str = "tenon.end";

/// A topic of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channel(u16);

/// Schema of a topic; an empty name for none.
pub(crate) struct Schema {
    pub name: &'static str,
    /// JSON schema.
    pub text: &'static str,
}

/// What the file is written through: it counts, because nothing here seeks.
struct Sink {
    out: Box<dyn Write + Send>,
    at: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => Ok(self.at),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "a record is written from front to back")),
        }
    }
}

pub(crate) struct Segment {
    path: PathBuf,
    writer: mcap::Writer<Sink>,
    /// For the disk's caches; none in tests.
    file: Option<fs::File>,
    sequence: u32,
    bytes: u64,
}

/// A reader takes a chunk into memory whole.
const LARGEST_CHUNK: u64 = 1 << 20;

/// Counted with each message: record head, message head.
const MESSAGE_OVERHEAD: u64 = 31;

impl Segment {
    /// Makes the file and puts the metadata at its beginning, on the disk.
    pub fn create(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self, RecorderError> {
        let io = |source| RecorderError::Io { path: path.to_owned(), source };
        let file = fs::File::create_new(path).map_err(io)?;
        let second = file.try_clone().map_err(io)?;
        let mut segment = Self::over(path, Box::new(BufWriter::new(file)), metadata)?;
        segment.file = Some(second);
        Ok(segment)
    }

    /// Into any sink. `path` names it in errors.
    pub fn over(
        path: &Path,
        out: Box<dyn Write + Send>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, RecorderError> {
        // A chunk ends where it is flushed, long before it is as large as this; in memory until then.
        let options = WriteOptions::new()
            .compression(None)
            .chunk_size(Some(LARGEST_CHUNK))
            .disable_seeking(true)
            .library(concat!("tenon-recorder ", env!("CARGO_PKG_VERSION")));
        let writer = options.create(Sink { out, at: 0 }).map_err(|source| of_mcap(path, source))?;
        let mut segment = Self { path: path.to_owned(), writer, file: None, sequence: 0, bytes: 0 };
        segment.metadata(RUN_METADATA, metadata)?;
        Ok(segment)
    }

    /// About how large the file is, what is not flushed included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Another handle of the file, to make its data safe from a loss of power.
    pub fn file(&self) -> Option<fs::File> {
        self.file.as_ref()?.try_clone().ok()
    }

    pub fn metadata(&mut self, name: &str, metadata: &BTreeMap<String, String>) -> Result<(), RecorderError> {
        self.bytes += metadata.iter().map(|(key, value)| (key.len() + value.len() + 8) as u64).sum::<u64>();
        let record = Metadata { name: name.to_owned(), metadata: metadata.clone() };
        let written = self.writer.write_metadata(&record);
        self.check(written)
    }

    pub fn channel(&mut self, topic: &str, encoding: &str, schema: &Schema) -> Result<Channel, RecorderError> {
        let id = match schema.name {
            "" => Ok(0),
            name => self.writer.add_schema(name, "jsonschema", schema.text.as_bytes()),
        };
        let id = id.and_then(|schema| self.writer.add_channel(schema, topic, encoding, &BTreeMap::new()));
        self.check(id).map(Channel)
    }

    /// `time_ns`: since 1970.
    pub fn message(&mut self, Channel(channel_id): Channel, time_ns: u64, data: &[u8]) -> Result<(), RecorderError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.bytes += data.len() as u64 + MESSAGE_OVERHEAD;
        let header = MessageHeader { channel_id, sequence: self.sequence, log_time: time_ns, publish_time: time_ns };
        let written = self.writer.write_to_known_channel(&header, data);
        self.check(written)
    }

    /// Ends the chunk and hands it to the operating system: from here on the death of this process does not touch it.
    pub fn flush(&mut self) -> Result<(), RecorderError> {
        let flushed = self.writer.flush();
        self.check(flushed)
    }

    /// Writes the index and the end of the file, and hands it back: whoever has the time makes it safe from a loss of power.
    pub fn finish(mut self, end: &BTreeMap<String, String>) -> Result<Option<fs::File>, RecorderError> {
        if !end.is_empty() {
            self.metadata(END_METADATA, end)?;
        }
        let finished = self.writer.finish().map(|_| ());
        self.check(finished)?;
        let io = |source| RecorderError::Io { path: self.path.clone(), source };
        self.writer.into_inner().flush().map_err(io)?;
        Ok(self.file)
    }

    /// Leaves the file as it is after an error.
    pub fn abandon(self) {
        drop(self.writer.into_inner());
    }

    fn check<T>(&self, result: Result<T, McapError>) -> Result<T, RecorderError> {
        result.map_err(|source| of_mcap(&self.path, source))
    }
}

/// What the operating system says is not hidden behind what the format makes of it.
fn of_mcap(path: &Path, source: McapError) -> RecorderError {
    let path = path.to_owned();
    match source {
        McapError::Io(source) => RecorderError::Io { path, source },
        source => RecorderError::Mcap { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fills_at_any_moment_is_an_error_and_no_panic() {
        let run = BTreeMap::from([("task".to_owned(), "test".to_owned())]);
        let write = |room: usize| -> Result<(), RecorderError> {
            let mut segment = Segment::over(Path::new("small"), Box::new(Small(room)), &run)?;
            let channel = segment.channel("/a", "json", &Schema { name: "A", text: "{}" })?;
            for n in 0..20 {
                if let Err(error) = segment.message(channel, n, &[7; 40]).and_then(|()| segment.flush()) {
                    segment.abandon();
                    return Err(error);
                }
            }
            segment.finish(&run).map(|_| ())
        };
        for room in (0..5000).step_by(7) {
            let error = write(room).expect_err("more is written than there is room");
            let full =
                matches!(&error, RecorderError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
            assert!(full, "{room}: {error}");
        }
        write(1 << 20).expect("room enough");
    }
}
