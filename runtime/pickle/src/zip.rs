//! ZIP files as PyTorch's archives need them: a writer of plain stored entries and a reader of stored and deflated ones
//! (spec `polymetis.md` §6.1–6.3).
//!
//! PyTorch writes ZIP64 end records too; below 4 GiB the plain ones beside them say the same, and [`Limits`] stays below.
//!
//! Layout terms: each entry is a *local header* followed by its data; the *central directory* at the
//! end repeats the headers with their offsets; the *end record* (EOCD) says where it is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::{FormatError, Limits};

const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";
const CENTRAL_SIGNATURE: &[u8; 4] = b"PK\x01\x02";
const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const LOCAL_HEADER_BYTES: usize = 30;
const CENTRAL_HEADER_BYTES: usize = 46;
const END_RECORD_BYTES: usize = 22;
/// Offset of the CRC inside a local header.
const LOCAL_CRC: usize = 14;
/// Offset of the CRC inside a central header.
const CENTRAL_CRC: usize = 16;
const VERSION_NEEDED: u16 = 20;
/// 1980-01-01, the earliest date the format can express: archives do not depend on the clock.
const DOS_DATE: u16 = 0x0021;
const FLAG_ENCRYPTED: u16 = 1;
const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// Writes stored entries with plain headers, in the order given.
#[derive(Debug)]
pub struct ZipWriter {
    limits: Limits,
    out: Vec<u8>,
    entries: Vec<Written>,
}

#[derive(Debug)]
struct Written {
    name: String,
    crc: u32,
    size: usize,
    header_offset: usize,
}

/// Where the parts of one written entry lie in the finished archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPlace {
    /// First byte of the data.
    pub data_offset: usize,
    /// Length of the data.
    pub data_bytes: usize,
    /// First byte of the CRC in the local header.
    pub local_crc_offset: usize,
    /// First byte of the CRC in the central directory.
    pub central_crc_offset: usize,
}

impl ZipWriter {
    /// An empty archive that stays within the limits, and below the 4 GiB of plain headers.
    pub fn new(limits: &Limits) -> Self {
        let archive_bytes = limits.archive_bytes.min(u32::MAX as usize);
        let entries = limits.entries.min(u16::MAX.into());
        Self { limits: Limits { archive_bytes, entries, ..*limits }, out: Vec::new(), entries: Vec::new() }
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] where the archive would pass its limits or the name is
    /// longer than the format allows.
    pub fn add(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let name_bytes = u16::try_from(name.len()).map_err(|_| FormatError::TooLarge {
            what: "name of a zip entry",
            size: name.len(),
            limit: u16::MAX.into(),
        })?;
        let directory: usize = self.entries.iter().map(|e| CENTRAL_HEADER_BYTES + e.name.len()).sum();
        let total = self.out.len()
            + LOCAL_HEADER_BYTES
            + data.len()
            + directory
            + CENTRAL_HEADER_BYTES
            + 2 * name.len()
            + END_RECORD_BYTES;
        check_limit("archive", total, self.limits.archive_bytes)?;
        check_limit("number of zip entries", self.entries.len() + 1, self.limits.entries)?;

        let crc = crc32fast::hash(data);
        let header_offset = self.out.len();
        self.out.extend_from_slice(LOCAL_SIGNATURE);
        self.common_header(crc, data.len(), name_bytes);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(data);
        self.entries.push(Written { name: name.to_owned(), crc, size: data.len(), header_offset });
        Ok(())
    }

    /// Writes the central directory; the places are in the order of the entries.
    pub fn finish(mut self) -> (Vec<u8>, Vec<EntryPlace>) {
        let directory_offset = self.out.len();
        let entries = std::mem::take(&mut self.entries);
        let mut places = Vec::with_capacity(entries.len());
        for entry in &entries {
            let central_offset = self.out.len();
            places.push(EntryPlace {
                data_offset: entry.header_offset + LOCAL_HEADER_BYTES + entry.name.len(),
                data_bytes: entry.size,
                local_crc_offset: entry.header_offset + LOCAL_CRC,
                central_crc_offset: central_offset + CENTRAL_CRC,
            });
            self.out.extend_from_slice(CENTRAL_SIGNATURE);
            self.out.extend_from_slice(&VERSION_NEEDED.to_le_bytes()); // version made by
            // `add` refused longer names and archives, so both casts keep the value.
            self.common_header(entry.crc, entry.size, entry.name.len() as u16);
            // comment length, disk, internal attributes, external attributes
            self.out.extend_from_slice(&[0; 10]);
            self.out.extend_from_slice(&(entry.header_offset as u32).to_le_bytes());
            self.out.extend_from_slice(entry.name.as_bytes());
        }
        let directory_bytes = (self.out.len() - directory_offset) as u32;
        let count = (entries.len() as u16).to_le_bytes();
        self.out.extend_from_slice(END_SIGNATURE);
        self.out.extend_from_slice(&[0; 4]); // disk numbers
        self.out.extend_from_slice(&count);
        self.out.extend_from_slice(&count);
        self.out.extend_from_slice(&directory_bytes.to_le_bytes());
        self.out.extend_from_slice(&(directory_offset as u32).to_le_bytes());
        self.out.extend_from_slice(&[0; 2]); // comment length
        (self.out, places)
    }

    /// The fields that local and central headers share, from "version needed" to "extra length".
    fn common_header(&mut self, crc: u32, size: usize, name_bytes: u16) {
        let size = (size as u32).to_le_bytes(); // below the limit, checked by `add`
        self.out.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
        self.out.extend_from_slice(&[0; 6]); // flags, method stored, time
        self.out.extend_from_slice(&DOS_DATE.to_le_bytes());
        self.out.extend_from_slice(&crc.to_le_bytes());
        self.out.extend_from_slice(&size);
        self.out.extend_from_slice(&size);
        self.out.extend_from_slice(&name_bytes.to_le_bytes());
        self.out.extend_from_slice(&[0; 2]); // extra length
    }
}

/// A ZIP file, opened: every entry unpacked and its CRC checked, all in one top folder.
#[derive(Debug)]
pub struct ZipArchive<'a> {
    top_folder: String,
    entries: Vec<(String, Cow<'a, [u8]>)>,
    /// Index into `entries` by name.
    index: HashMap<String, usize>,
}

impl<'a> ZipArchive<'a> {
    /// Opens an archive.
    ///
    /// The CRC is checked although the real loader does not: a wrong one means a faulty writer.
    ///
    /// # Errors
    /// Any [`FormatError`] of the ZIP layer.
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, FormatError> {
        check_limit("archive", bytes.len(), limits.archive_bytes)?;
        if !bytes.starts_with(LOCAL_SIGNATURE) {
            return Err(FormatError::NotAZip { reason: "it does not start with a local header" });
        }
        let end = find_end_record(bytes)?;
        let count = usize::from(u16_at(bytes, end + 10)?);
        let mut offset = u32_at(bytes, end + 16)? as usize;
        check_limit("number of zip entries", count, limits.entries)?;

        let mut unpacked_bytes = 0;
        let mut names = HashSet::new();
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let header = CentralHeader::read(bytes, offset)?;
            if !names.insert(header.name) {
                return Err(zip_error(offset, format!("a second entry {}", header.name)));
            }
            unpacked_bytes += header.unpacked_bytes;
            check_limit("unpacked archive", unpacked_bytes, limits.unpacked_bytes)?;
            entries.push((header.name, header.unpack(bytes)?));
            offset += header.length;
        }
        let Some((top_folder, _)) = entries.first().and_then(|(name, _)| name.split_once('/')) else {
            return Err(FormatError::NotAZip { reason: "its first entry is not in a folder" });
        };
        let top_folder = top_folder.to_owned();
        let entries: Vec<(String, Cow<'a, [u8]>)> = entries
            .into_iter()
            .map(|(name, data)| match name.split_once('/') {
                Some((top, rest)) if top == top_folder => Ok((rest.to_owned(), data)),
                _ => Err(FormatError::Entry {
                    entry: name.to_owned(),
                    reason: format!("is not inside the top folder {top_folder}"),
                }),
            })
            .collect::<Result<_, _>>()?;
        let index = entries.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        Ok(Self { top_folder, entries, index })
    }

    /// Name of the folder that holds everything.
    pub fn top_folder(&self) -> &str {
        &self.top_folder
    }

    /// Names inside the top folder, and contents, in directory order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(name, data)| (name.as_str(), data.as_ref()))
    }

    /// Content of the entry with this name inside the top folder.
    ///
    /// # Errors
    /// [`FormatError::MissingEntry`]
    pub fn entry(&self, name: &str) -> Result<&[u8], FormatError> {
        self.index
            .get(name)
            .map(|&i| self.entries[i].1.as_ref())
            .ok_or_else(|| FormatError::MissingEntry { entry: name.to_owned() })
    }
}

/// What the reader needs of a central directory header.
struct CentralHeader<'a> {
    name: &'a str,
    method: u16,
    crc: u32,
    packed_bytes: usize,
    unpacked_bytes: usize,
    local_offset: usize,
    length: usize,
}

impl<'a> CentralHeader<'a> {
    fn read(bytes: &'a [u8], offset: usize) -> Result<Self, FormatError> {
        if slice(bytes, offset, 4)? != CENTRAL_SIGNATURE {
            return Err(zip_error(offset, "no central directory header here"));
        }
        let flags = u16_at(bytes, offset + 8)?;
        let method = u16_at(bytes, offset + 10)?;
        let name_bytes = usize::from(u16_at(bytes, offset + 28)?);
        let extra_bytes = usize::from(u16_at(bytes, offset + 30)?);
        let comment_bytes = usize::from(u16_at(bytes, offset + 32)?);
        let name = slice(bytes, offset + CENTRAL_HEADER_BYTES, name_bytes)?;
        let name = std::str::from_utf8(name).map_err(|_| zip_error(offset, "the entry's name is not UTF-8"))?;
        if flags & FLAG_ENCRYPTED != 0 {
            return Err(zip_error(offset, format!("entry {name} is encrypted")));
        }
        if method != METHOD_STORED && method != METHOD_DEFLATED {
            return Err(zip_error(
                offset,
                format!("entry {name} has method {method}, known are 0 (stored) and 8 (deflated)"),
            ));
        }
        Ok(Self {
            name,
            method,
            crc: u32_at(bytes, offset + 16)?,
            packed_bytes: u32_at(bytes, offset + 20)? as usize,
            unpacked_bytes: u32_at(bytes, offset + 24)? as usize,
            local_offset: u32_at(bytes, offset + 42)? as usize,
            length: CENTRAL_HEADER_BYTES + name_bytes + extra_bytes + comment_bytes,
        })
    }

    fn unpack(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, FormatError> {
        if slice(bytes, self.local_offset, 4)? != LOCAL_SIGNATURE {
            return Err(zip_error(self.local_offset, format!("no local header of {}", self.name)));
        }
        // Name and extra field differ in length from the central ones (padding to 64 bytes).
        let name_bytes = usize::from(u16_at(bytes, self.local_offset + 26)?);
        let extra_bytes = usize::from(u16_at(bytes, self.local_offset + 28)?);
        let start = self.local_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes;
        let packed = slice(bytes, start, self.packed_bytes)?;
        let data = if self.method == METHOD_STORED {
            Cow::Borrowed(packed)
        } else {
            miniz_oxide::inflate::decompress_to_vec_with_limit(packed, self.unpacked_bytes)
                .map(Cow::Owned)
                .map_err(|e| self.error(format!("cannot be inflated: {:?}", e.status)))?
        };
        if data.len() != self.unpacked_bytes {
            return Err(self.error(format!("has {} bytes, the directory says {}", data.len(), self.unpacked_bytes)));
        }
        if crc32fast::hash(&data) != self.crc {
            return Err(self.error("CRC-32 does not match its content".into()));
        }
        Ok(data)
    }

    fn error(&self, reason: String) -> FormatError {
        FormatError::Entry { entry: self.name.to_owned(), reason }
    }
}

/// Finds the end record by its signature, from the end backwards: a few bytes after it are tolerated.
fn find_end_record(bytes: &[u8]) -> Result<usize, FormatError> {
    let missing = FormatError::NotAZip { reason: "no end record at its end" };
    let Some(last) = bytes.len().checked_sub(END_RECORD_BYTES) else {
        return Err(missing);
    };
    let first = last.saturating_sub(u16::MAX.into());
    (first..=last).rev().find(|&i| bytes[i..i + 4] == *END_SIGNATURE).ok_or(missing)
}

fn check_limit(what: &'static str, size: usize, limit: usize) -> Result<(), FormatError> {
    if size > limit {
        return Err(FormatError::TooLarge { what, size, limit });
    }
    Ok(())
}

fn zip_error(offset: usize, reason: impl Into<String>) -> FormatError {
    FormatError::Zip { offset, reason: reason.into() }
}

fn slice(bytes: &[u8], offset: usize, length: usize) -> Result<&[u8], FormatError> {
    offset
        .checked_add(length)
        .and_then(|end| bytes.get(offset..end))
        .ok_or_else(|| zip_error(offset, format!("{length} bytes expected, the archive ends before")))
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, FormatError> {
    let b = slice(bytes, offset, 2)?;
    Ok(u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, FormatError> {
    let b = slice(bytes, offset, 4)?;
    Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::for_file(1000)
    }

    fn two_entries() -> (Vec<u8>, Vec<EntryPlace>) {
        let mut zip = ZipWriter::new(&limits());
        zip.add("a/one", b"first").unwrap();
        zip.add("a/two", b"").unwrap();
        zip.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, places) = two_entries();
        let zip = ZipArchive::open(&bytes, &limits()).unwrap();
        assert_eq!(zip.top_folder(), "a");
        assert_eq!(zip.entry("one").unwrap(), b"first");
        assert_eq!(zip.entry("two").unwrap(), b"");
        let place = places[0];
        assert_eq!(&bytes[place.data_offset..place.data_offset + place.data_bytes], b"first");
        let crc = crc32fast::hash(b"first").to_le_bytes();
        assert_eq!(bytes[place.local_crc_offset..][..4], crc);
        assert_eq!(bytes[place.central_crc_offset..][..4], crc);
    }

    #[test]
    fn bytes_before_are_refused_and_a_few_after_tolerated() {
        let (bytes, _) = two_entries();
        let mut before = vec![0_u8];
        before.extend_from_slice(&bytes);
        assert!(matches!(ZipArchive::open(&before, &limits()), Err(FormatError::NotAZip { .. })));
        let mut after = bytes;
        after.extend_from_slice(b"\n\n");
        assert!(ZipArchive::open(&after, &limits()).is_ok());
    }

    #[test]
    fn changed_data_is_noticed() {
        let (mut bytes, places) = two_entries();
        bytes[places[0].data_offset] ^= 1;
        assert!(matches!(ZipArchive::open(&bytes, &limits()), Err(FormatError::Entry { .. })));
    }

    #[test]
    fn second_top_folder_and_second_name_are_refused() {
        let mut zip = ZipWriter::new(&limits());
        zip.add("a/one", b"1").unwrap();
        zip.add("b/two", b"2").unwrap();
        assert!(ZipArchive::open(&zip.finish().0, &limits()).is_err());
        let mut zip = ZipWriter::new(&limits());
        zip.add("a/one", b"1").unwrap();
        zip.add("a/one", b"2").unwrap();
        assert!(ZipArchive::open(&zip.finish().0, &limits()).is_err());
    }

    #[test]
    fn archive_that_unpacks_to_more_than_its_limit_is_refused() {
        let mut zip = ZipWriter::new(&limits());
        zip.add("a/zeros", &[0; 5000]).unwrap();
        let bytes = zip.finish().0;
        let small = Limits { unpacked_bytes: 4999, ..limits() };
        assert!(matches!(ZipArchive::open(&bytes, &small), Err(FormatError::TooLarge { size: 5000, .. })));
        let few = Limits { entries: 0, ..limits() };
        assert!(matches!(ZipArchive::open(&bytes, &few), Err(FormatError::TooLarge { .. })));
    }
}
