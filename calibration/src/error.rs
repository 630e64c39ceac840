use std::path::PathBuf;
use tenon_vision::VisionError;

/// What can go wrong in calibration, beyond what the pictures themselves report.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error(transparent)]
    Vision(#[from] VisionError),

    #[error("{option} {got}: must be {wanted}")]
    Option { option: &'static str, got: String, wanted: &'static str },

    #[error("cannot write {}: {source}", path.display())]
    WritePicture { path: PathBuf, source: std::io::Error },

    #[error("cannot write the report: {0}")]
    WriteReport(#[from] std::io::Error),

    #[error("cannot encode {what}: {reason}")]
    Encode { what: &'static str, reason: String },
}
