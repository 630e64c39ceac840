//! The steps of a calibration, each from pictures in a folder to an entry of the rig's file. No questions are asked here; the
//! wizard asks and calls these.

pub mod arm_poses;
pub mod check;
pub mod intrinsics;
pub mod latency;
pub mod limits;
pub mod noise;
pub mod outlook;
pub mod overlay;
pub mod pictures;
pub mod place;
pub mod proof;
pub mod touch_off;

mod error;

pub use error::StepError;
pub use limits::Limits;

/// How a number stands to its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    Pass,
    Warn,
    Fail,
}

/// A number with its limits, in words.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Finding {
    pub grade: Grade,
    /// One sentence with the number, its limit and, unless it passes, what to do.
    pub text: String,
}

impl Finding {
    /// Grades `value` by two limits: up to `pass` it passes, up to `warn` it is warned of.
    pub fn of(value: f64, pass: f64, warn: f64, text: impl FnOnce(Grade) -> String) -> Self {
        // A NaN is below nothing.
        let grade = if value <= pass {
            Grade::Pass
        } else if value <= warn {
            Grade::Warn
        } else {
            Grade::Fail
        };
        Self { grade, text: text(grade) }
    }
}

/// The worst grade of all findings.
pub fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Pass)
}
