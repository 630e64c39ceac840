//! What can be wrong with an archive.

/// Why an archive could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Something is larger than this reader or writer accepts.
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
    #[error("not a zip archive: {reason}; send the whole file, from its first byte to its last")]
    NotAZip {
        /// What was looked for.
        reason: &'static str,
    },
    /// A ZIP record is broken or uses a feature that TorchScript archives do not need.
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
    #[error("data.pkl byte {offset}: {reason}")]
    Pickle {
        /// Offset of the opcode in `data.pkl`.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// The pickle names something that may not be constructed.
    #[error("data.pkl byte {offset}: global {name} is not one that TorchScript archives need")]
    Global {
        /// Offset of the opcode in `data.pkl`.
        offset: usize,
        /// Module and name.
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
    /// A value that would command the arm is NaN or infinite.
    #[error("{name}[{index}] = {value}: must be finite")]
    NotFinite {
        /// Name of the vector.
        name: &'static str,
        /// Index in it.
        index: usize,
        /// The value, as text.
        value: String,
    },
    /// A parameter name is empty or given twice.
    #[error("parameter name {name:?}: names must be non-empty and different")]
    ParameterName {
        /// The name.
        name: String,
    },
    /// The class text lacks something or does not agree with the pickle.
    #[error("class {class}: {reason}")]
    Class {
        /// Dotted class name.
        class: String,
        /// What is wrong.
        reason: String,
    },
    /// `forward` of an update archive wants arguments; the real server answers `UNKNOWN` to it.
    #[error("class {class}: forward of a parameter archive must take no argument besides self")]
    ForwardNeedsArguments {
        /// Dotted class name.
        class: String,
    },
    /// The parameter dict is not tagged `Dict[str, Tensor]`: `update` of a controller refuses it.
    #[error("attribute {attribute}: dict tagged {tag}, must be tagged Dict[str, Tensor] by restore_type_tag")]
    UntaggedDict {
        /// Attribute that holds the dict.
        attribute: String,
        /// The tag found, or "not at all".
        tag: String,
    },
    /// The archive is not a parameter archive.
    #[error("class {class} is not a parameter container: {reason}")]
    NotParameters {
        /// Dotted class name.
        class: String,
        /// Why not.
        reason: String,
    },
    /// The controller is none of those whose law is known here.
    #[error("class {class} is none of the known controller laws: {reason}")]
    UnknownLaw {
        /// Dotted class name.
        class: String,
        /// Why not.
        reason: String,
    },
}
