//! What can be wrong with a file.

/// Why a file could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Something is larger than the limits allow.
    #[error("{what} has size {size}, the limit is {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size, in bytes or counted things.
        size: usize,
        /// The largest accepted size.
        limit: usize,
    },
    /// The bytes are not a complete ZIP file.
    #[error("not a zip archive: {reason}; the whole file is needed, from its first byte to its last")]
    NotAZip {
        /// What was looked for.
        reason: &'static str,
    },
    /// A ZIP record is broken or uses a feature that these archives do not need.
    #[error("zip record at byte {offset}: {reason}")]
    Zip {
        /// Offset of the record in the archive.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry that the loader needs is absent.
    #[error("archive has no entry {entry}")]
    MissingEntry {
        /// Name inside the top folder.
        entry: String,
    },
    /// An entry is there but its content is not usable.
    #[error("entry {entry}: {reason}")]
    Entry {
        /// Name of the entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pickle is broken or uses an opcode outside the known set.
    #[error("pickle, byte {offset}: {reason}")]
    Pickle {
        /// Offset of the opcode in the pickle.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// The pickle names something that may not be constructed or called.
    #[error("pickle, byte {offset}: global {name} is not on the list of what may be built; nothing was executed")]
    Global {
        /// Offset of the opcode in the pickle.
        offset: usize,
        /// Module and name, control characters escaped.
        name: String,
    },
    /// A storage entry holds fewer bytes than its tensor needs; PyTorch would read past its end.
    #[error("entry {entry} has {have_bytes} bytes, its tensor needs {need_bytes}")]
    ShortStorage {
        /// The `data/<n>` entry.
        entry: String,
        /// Bytes present.
        have_bytes: usize,
        /// Bytes that the pickle announces.
        need_bytes: usize,
    },
    /// A tensor's data does not match its shape.
    #[error("tensor of shape {shape:?} needs {expected} values, got {got}")]
    Shape {
        /// The requested shape.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The file has the layout that PyTorch wrote before version 1.6.
    #[error(
        "written in PyTorch's format of before version 1.6, which is not read; \
        save it again there: torch.save(torch.load(FILE, map_location=\"cpu\"), NEW_FILE)"
    )]
    LegacyTorch,
    /// The file is of another kind than expected.
    #[error("{found}; {wanted}")]
    Kind {
        /// What the file seems to be.
        found: &'static str,
        /// What is read, and how to get there.
        wanted: &'static str,
    },
}
