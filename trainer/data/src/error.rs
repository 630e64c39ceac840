//! What can be wrong with a file of demonstrations.

use std::path::{Path, PathBuf};

/// Why demonstrations could not be read or written. Messages name the file, where in it, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that cannot be opened, read, written or understood.
    #[error("{path}: {detail}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// One field of one episode.
    #[error("{path}: episode {episode}, field `{field}`: {detail}")]
    Field {
        /// The file or folder.
        path: PathBuf,
        /// Name of the episode.
        episode: String,
        /// Name of the field.
        field: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// The content is of no format that is known.
    #[error("{path}: {found}; known are {known}; say which one it is with --from FORMAT")]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
        /// What it looks like.
        found: String,
        /// The formats.
        known: String,
    },
    /// What was asked for does not fit the demonstrations.
    #[error("{0}")]
    Request(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl DataError {
    /// About a whole file.
    pub fn file(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), detail: detail.to_string() }
    }

    /// About a field of an episode.
    pub fn field(path: &Path, episode: &str, field: &str, detail: impl std::fmt::Display) -> Self {
        let (episode, field) = (episode.to_owned(), field.to_owned());
        Self::Field { path: path.to_owned(), episode, field, detail: detail.to_string() }
    }
}
