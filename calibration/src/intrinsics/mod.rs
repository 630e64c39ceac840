//! Intrinsics of a camera from pictures of a board: step one of a calibration.
//!
//! ```text
//! images ── boards::BoardDetector ──► View (named BoardView) ──► calibrate ──► Intrinsics ──► exchange (OpenCV, ROS files)
//!                                          │                        │
//!                                          └──► coverage::Coverage  └──► next_view::suggest
//! ```
//!
//! Zhang's method (2000): a homography a view, closed-form focal lengths, then all parameters and all board poses together
//! on pixels. Every number comes with its standard deviation; views that do not fit the others are named and left out.
//!
//! Parameters are ordered fx, fy, cx, cy, k1, k2, p1, p2, k3 throughout ([`PARAMETERS`]); the pixel convention is that of
//! `tenon-vision`, half a pixel more than OpenCV's principal point. What cannot be learnt here: the size of the board. A
//! wrong square size changes no intrinsic number, only the distances of the poses.

pub mod coverage;
mod error;
pub mod exchange;
mod leave_out;
mod model;
pub mod next_view;
mod result;
mod run;
mod solve;
mod start;
mod yaml;

pub use coverage::Coverage;
pub use error::IntrinsicsError;
pub use exchange::CameraInfo;
pub use leave_out::held_out_rms_px;
pub use model::{Free, PARAMETERS, Parameters};
pub use next_view::NextView;
pub use result::{DropReason, DroppedView, Intrinsics, IntrinsicsReport, ParameterReport, SkippedImage, ViewReport};
pub use run::{Options, Progress, View, calibrate, calibrate_images};
