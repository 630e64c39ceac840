//! Errors that do not change from frame to frame, and so do not average out.
//!
//! A camera that stands a little elsewhere than its calibration says shifts every pose that it takes part in, and always
//! in the same way. A measurement is z = T + B u + w (in the sense of the twists of this module): w is new in each, with
//! covariance R; u ~ N(0, I) is the same in all measurements of all parts, six numbers for each source (a camera's place
//! in units of its uncertainty); B says how this measurement shifts with them, which depends on the tags and cameras
//! behind it.
//!
//! The filter does not estimate u, it *considers* it (Schmidt 1966; Jazwinski, "Stochastic Processes and Filtering
//! Theory", §8.4): beside its covariance it carries X = E[δ uᵀ], what its own error has in common with u. While B stays the
//! same, what is shared cancels in an innovation and motion is noticed as finely as the noise allows; where other tags or
//! cameras come in, exactly the difference of the two shifts is allowed for. What several sources agree on is not given up
//! for what one of them says alone, and the pose's covariance contains what no number of frames can take away.

use nalgebra::{Matrix6, SMatrix};

/// Most sources of errors: cameras.
pub const MAX_SOURCES: usize = 8;

const UNKNOWNS: usize = 6 * MAX_SOURCES;

/// By what u shifts a pose.
pub(super) type ByUnknowns = SMatrix<f64, 6, UNKNOWNS>;
/// What the error of a pose and a twist has in common with u.
pub(super) type WithUnknowns = SMatrix<f64, 12, UNKNOWNS>;

/// The part of a measurement's error that it shares with other measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SystematicError {
    B: ByUnknowns,
}

impl Default for SystematicError {
    fn default() -> Self {
        Self { B: ByUnknowns::zeros() }
    }
}

impl SystematicError {
    /// Error `[v; ω]` of the pose (m, rad; about the part's origin in april axes) by each of the six unknowns of `source`,
    /// which are independent and of variance 1, for instance G L where the pose shifts by G with a camera's displacement
    /// of covariance L Lᵀ.
    ///
    /// # Panics
    /// When `source` is not below [`MAX_SOURCES`].
    pub fn set(&mut self, source: usize, by_unknowns: &Matrix6<f64>) {
        assert!(source < MAX_SOURCES, "at most {MAX_SOURCES} sources of systematic errors, not number {source}");
        self.B.fixed_columns_mut::<6>(6 * source).copy_from(by_unknowns);
    }

    /// Covariance of the systematic error alone, `[v; ω]` about the part's origin in april axes: m², m·rad, rad².
    pub fn covariance(&self) -> Matrix6<f64> {
        self.B * self.B.transpose()
    }

    pub(super) fn matrix(&self) -> &ByUnknowns {
        &self.B
    }

    /// Whether its covariance is, which every value of it enters.
    pub(super) fn is_finite(&self) -> bool {
        self.covariance().iter().all(|v| v.is_finite())
    }

    /// With a covariance that is `factor` times this one's.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        Self { B: self.B * factor.sqrt() }
    }

    /// Covariance of the difference of two measurements' systematic errors.
    pub(super) fn difference(a: Option<&Self>, b: Option<&Self>) -> Matrix6<f64> {
        match (a, b) {
            (Some(a), Some(b)) => {
                let B = a.B - b.B;
                B * B.transpose()
            }
            (Some(one), None) | (None, Some(one)) => one.covariance(),
            (None, None) => Matrix6::zeros(),
        }
    }
}
