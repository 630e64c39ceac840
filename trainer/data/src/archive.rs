//! ZIP archives: `.npz` and `.zarr.zip`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::DataError;

/// A small archive cannot unpack into a large one: deflate packs at most 1032 to 1.
const LARGEST_GROWTH: u64 = 1100;

/// An open archive.
pub struct Archive {
    zip: zip::ZipArchive<BufReader<File>>,
    length: u64,
}

impl Archive {
    /// Opens one and reads its list of entries.
    ///
    /// # Errors
    /// Where it is none, or cut off.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let fail = |e: &dyn std::fmt::Display| {
            DataError::file(path, format!("not a whole ZIP archive: {e}; it is truncated or damaged, fetch it again"))
        };
        let file = File::open(path).map_err(|e| DataError::file(path, e))?;
        let length = file.metadata().map_err(|e| DataError::file(path, e))?.len();
        let zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| fail(&e))?;
        Ok(Self { zip, length })
    }

    /// Names of the entries.
    pub fn names(&self) -> Vec<String> {
        self.zip.file_names().map(String::from).collect()
    }

    /// Whether there is an entry.
    pub fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(name).is_some()
    }

    /// The content of an entry; its checksum is compared. `None`: there is none.
    ///
    /// # Errors
    /// A sentence, where it is damaged.
    pub fn entry(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let mut entry = match self.zip.by_name(name) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let size = entry.size();
        if size > self.length.saturating_mul(LARGEST_GROWTH) {
            return Err(format!("says it unpacks to {size} bytes, which it cannot: the archive is damaged"));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size as usize).map_err(|_| format!("no memory for {size} bytes"))?;
        // One more than it may have, so that a longer one is noticed.
        entry.by_ref().take(size + 1).read_to_end(&mut bytes).map_err(|e| format!("{e}: the archive is damaged"))?;
        if bytes.len() as u64 != size {
            return Err(format!("has {} bytes, its directory says {size}: the archive is damaged", bytes.len()));
        }
        Ok(Some(bytes))
    }
}
