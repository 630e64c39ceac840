//! Whole files: `torch.save` archives, and pickles that stand alone.

use crate::machine::{self, Dialect, NoStorages, Storages};
use crate::zip::ZipArchive;
use crate::{FormatError, Limits, Value};

/// First bytes of every ZIP archive with an entry.
const ZIP_START: &[u8] = b"PK\x03\x04";
/// Opcode PROTO, with which pickles of protocol 2 and later begin.
const PICKLE_START: u8 = 0x80;
/// The pickled magic number with which PyTorch's older format begins (protocol 2, LONG1 of 10 bytes).
const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Tensors lie in entries `data/<key>`.
impl Storages for ZipArchive<'_> {
    fn storage(&self, key: &str) -> Result<&[u8], FormatError> {
        self.entry(&format!("data/{key}"))
    }
}

/// Reads a checkpoint or a pickle, whichever the bytes are.
///
/// # Errors
/// As [`read_torch`] and [`read_pickle`]; [`FormatError::Kind`] where the bytes are neither.
pub fn read_file(bytes: &[u8]) -> Result<Value, FormatError> {
    if bytes.starts_with(ZIP_START) { read_torch(bytes) } else { read_pickle(bytes) }
}

/// Reads what `torch.save` wrote (PyTorch 1.6 and later). Tensors come with their own element type, in C order,
/// wherever the device was on which they lay.
///
/// # Errors
/// [`FormatError::LegacyTorch`] for the older format, [`FormatError::Kind`] for a TorchScript module, and any other
/// [`FormatError`] for damaged files and for what is not on the list.
pub fn read_torch(bytes: &[u8]) -> Result<Value, FormatError> {
    refuse_legacy(bytes)?;
    let limits = Limits::for_file(bytes.len());
    let zip = ZipArchive::open(bytes, &limits)?;
    if zip.entry("constants.pkl").is_ok() {
        return Err(FormatError::Kind {
            found: "this is a TorchScript module",
            wanted: "save the weights instead: torch.save(module.state_dict(), FILE)",
        });
    }
    match zip.entry("byteorder") {
        // Before 2.1 PyTorch did not say; it only ran on little-endian machines to speak of.
        Err(_) | Ok(b"little") => {}
        Ok(_) => {
            return Err(FormatError::Entry {
                entry: "byteorder".into(),
                reason: "must be little; save the file again on a little-endian machine".into(),
            });
        }
    }
    Ok(machine::read(zip.entry("data.pkl")?, &zip, Dialect::Data, &limits)?.0)
}

/// Reads a pickle of protocol 2 to 5: plain values and NumPy arrays.
///
/// # Errors
/// [`FormatError::LegacyTorch`] for PyTorch's older format, [`FormatError::Kind`] for anything that is no pickle of
/// these protocols, and any other [`FormatError`] for damaged files and for what is not on the list.
pub fn read_pickle(bytes: &[u8]) -> Result<Value, FormatError> {
    refuse_legacy(bytes)?;
    if bytes.first() != Some(&PICKLE_START) {
        return Err(FormatError::Kind {
            found: if bytes.is_empty() { "the file is empty" } else { "this is neither a zip archive nor a pickle" },
            wanted: "read are files of torch.save and pickles of protocol 2 to 5",
        });
    }
    let limits = Limits::for_file(bytes.len());
    if bytes.len() > limits.archive_bytes {
        return Err(FormatError::TooLarge { what: "pickle", size: bytes.len(), limit: limits.archive_bytes });
    }
    Ok(machine::read(bytes, &NoStorages, Dialect::Data, &limits)?.0)
}

fn refuse_legacy(bytes: &[u8]) -> Result<(), FormatError> {
    let is_legacy = bytes.first() == Some(&PICKLE_START) && bytes.get(2..).is_some_and(|b| b.starts_with(LEGACY_MAGIC));
    if is_legacy { Err(FormatError::LegacyTorch) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_told_apart() {
        assert!(matches!(read_file(b""), Err(FormatError::Kind { .. })));
        assert!(matches!(read_file(b"\x89HDF\r\n"), Err(FormatError::Kind { .. })));
        assert!(matches!(read_file(b"Plain text"), Err(FormatError::Kind { .. })));
        let legacy = [b"\x80\x02", LEGACY_MAGIC, b".\x80\x02M\xe9\x03."].concat();
        assert_eq!(read_file(&legacy), Err(FormatError::LegacyTorch));
        assert_eq!(read_file(ZIP_START), Err(FormatError::NotAZip { reason: "no end record at its end" }));
    }
}
