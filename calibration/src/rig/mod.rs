//! A rig's folder: what was measured, version by version. Nothing in it is ever overwritten.
//!
//! ```text
//! $TENON_STATE/rigs/<name>/
//!   0001-20260131T123456Z/   one finished calibration: calibration.toml, manifest.json (SHA-256 of every file), report.html,
//!   0002-…                   pictures/, results of the steps
//!   current -> 0002-…        the one in use
//!   draft/                   the one under way; its steps are written as they end, so it goes on where it was stopped
//! ```

mod draft;
mod error;
mod store;

pub use draft::{Draft, Ended, Step};
pub use error::StoreError;
pub use store::{RigFolder, Version, state_folder};
