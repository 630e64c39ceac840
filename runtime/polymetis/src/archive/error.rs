//! What can be wrong with an archive.

use tenon_pickle::FormatError;

/// Why an archive could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The ZIP file, a pickle or a tensor in it is broken, too large, or names what no archive needs.
    #[error(transparent)]
    Format(#[from] FormatError),
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
    /// A setting of a controller is none that an arm could obey.
    #[error("{name}: {what}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What is wrong with it.
        what: String,
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
}
