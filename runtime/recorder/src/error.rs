//! What can go wrong with a record.

use std::path::PathBuf;

use thiserror::Error;

use crate::record::RecordError;

#[derive(Debug, Error)]
pub enum RecorderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Mcap { path: PathBuf, source: mcap::McapError },
    #[error("{path} holds a record already: name another folder, or remove it")]
    Taken { path: PathBuf },
    #[error("{path} is no record of a run: the folder that `tenon run` names, or one of its .mcap files")]
    NoRecord { path: PathBuf },
    #[error("{path}, byte {offset}: {why}")]
    Damaged { path: PathBuf, offset: u64, why: String },
    #[error("{path}: {source}")]
    Record { path: PathBuf, source: RecordError },
}
