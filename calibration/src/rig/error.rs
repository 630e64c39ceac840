use std::path::{Path, PathBuf};

use tenon_core::config::ConfigError;

/// What can go wrong with a rig's folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },

    #[error(transparent)]
    Config(#[from] ConfigError),

    #[error("the rig's name {name:?} must be 1 to 64 letters, digits, `-` and `_`")]
    Name { name: String },

    #[error("rig {rig} has no calibration yet in {}: run `tenon-calibrate wizard --rig {rig}`", folder.display())]
    NoCalibration { rig: String, folder: PathBuf },

    #[error(
        "{}: {file} is not what was written (SHA-256 {found}, the manifest says {wanted}): a calibration is not edited by hand; \
         calibrate again or take an earlier version", folder.display()
    )]
    Changed { folder: PathBuf, file: String, found: String, wanted: String },

    #[error("{}: {reason}; take an earlier version by moving the link `current`", path.display())]
    Manifest { path: PathBuf, reason: String },

    #[error("rig {rig}: this session's draft has become a version already; begin a new session")]
    NoDraft { rig: String },

    #[error("{}: another calibration of this rig is under way (process {process})", folder.display())]
    UnderWay { folder: PathBuf, process: u32 },

    #[error(
        "no folder for the calibration: set TENON_STATE, e.g. to ~/.local/state/tenon (neither it nor XDG_STATE_HOME nor HOME is set)"
    )]
    NoStateFolder,
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
