//! The trainer's error type.

use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong in the trainer. Messages name the file, array or tensor and what to do about it.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error("{path}: {detail}")]
    File { path: PathBuf, detail: String },
    #[error("{path}: array `{array}`: {detail}")]
    Array { path: PathBuf, array: &'static str, detail: String },
    #[error(
        "{path}: array `{array}`, episode {episode}, frame {frame}: value {column} is {value}; remove or repair this episode"
    )]
    NotFinite { path: PathBuf, array: &'static str, episode: usize, frame: usize, column: usize, value: f32 },
    #[error("parameter `{name}`: {detail}")]
    Parameter { name: String, detail: String },
    #[error("checkpoint {path}: {detail}")]
    Checkpoint { path: PathBuf, detail: String },
    #[error("network: {0}")]
    Network(String),
    #[error("{key}: {detail}")]
    Config { key: &'static str, detail: String },
    #[error("{what} is not finite at {place}; everything that learns was left as it was before")]
    Numerical { what: &'static str, place: String },
    #[error(transparent)]
    MissingStage(#[from] tenon_core::config::MissingStage),
    #[error("starting {threads} worker threads: {detail}")]
    Workers { threads: usize, detail: String },
    #[error("device {device}: {detail}")]
    Device { device: String, detail: String },
}

impl TrainError {
    /// A file that cannot be opened, read or written.
    pub fn file(path: impl Into<PathBuf>, detail: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), detail: detail.to_string() }
    }
}
