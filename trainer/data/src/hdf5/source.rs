//! The bytes of a file, read where they are wanted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Hdf5Error;

/// A file of known length. Nothing beyond its end is read, and nothing longer than it is asked for.
#[derive(Debug)]
pub struct Source {
    file: File,
    length: u64,
}

impl Source {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    /// Length of the file, bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// `count` bytes from `offset` on.
    pub fn at(&self, offset: u64, count: usize) -> Result<Vec<u8>, Hdf5Error> {
        let mut bytes = Vec::new();
        self.into(offset, count, &mut bytes)?;
        Ok(bytes)
    }

    fn into(&self, offset: u64, count: usize, bytes: &mut Vec<u8>) -> Result<(), Hdf5Error> {
        if offset.checked_add(count as u64).is_none_or(|end| end > self.length) {
            let reason = format!(
                "{count} bytes are needed here, the file ends at byte {}: it is truncated or damaged",
                self.length
            );
            return Err(Hdf5Error::at(offset, reason));
        }
        bytes.resize(count, 0);
        self.file.read_exact_at(bytes, offset).map_err(|e| Hdf5Error::at(offset, e.to_string()))
    }
}

/// Reads little-endian numbers one after the other out of bytes that began at `start` in the file.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    start: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], start: u64) -> Self {
        Self { bytes, position: 0, start }
    }

    /// Where in the file the next byte is.
    pub fn offset(&self) -> u64 {
        self.start + self.position as u64
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Hdf5Error> {
        if count > self.left() {
            let reason = format!("{count} bytes are needed here, {} are left: this record is damaged", self.left());
            return Err(Hdf5Error::at(self.offset(), reason));
        }
        let bytes = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(bytes)
    }

    /// Skips to the next multiple of 8, counted from where these bytes begin.
    pub fn align(&mut self) -> Result<(), Hdf5Error> {
        self.take((8 - self.position % 8) % 8).map(drop)
    }

    pub fn u8(&mut self) -> Result<u8, Hdf5Error> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Hdf5Error> {
        Ok(self.unsigned(2)? as u16)
    }

    pub fn u32(&mut self) -> Result<u32, Hdf5Error> {
        Ok(self.unsigned(4)? as u32)
    }

    pub fn u64(&mut self) -> Result<u64, Hdf5Error> {
        self.unsigned(8)
    }

    /// An unsigned number of up to 8 bytes.
    pub fn unsigned(&mut self, bytes: usize) -> Result<u64, Hdf5Error> {
        let mut full = [0; 8];
        let taken = self.take(bytes)?;
        if taken.len() > full.len() {
            return Err(self.error(format!("a number of {bytes} bytes")));
        }
        full[..taken.len()].copy_from_slice(taken);
        Ok(u64::from_le_bytes(full))
    }

    /// Expects these bytes.
    pub fn signature(&mut self, expected: &[u8], what: &str) -> Result<(), Hdf5Error> {
        let offset = self.offset();
        if self.take(expected.len())? != expected {
            return Err(Hdf5Error::at(offset, format!("no {what} where one should be: the file is damaged")));
        }
        Ok(())
    }

    pub fn error(&self, reason: impl Into<String>) -> Hdf5Error {
        Hdf5Error::at(self.offset(), reason)
    }
}
