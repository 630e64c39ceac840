//! The parameters of the camera, and how a pixel depends on them.

use nalgebra::{Matrix2x3, Point3, SMatrix};
use serde::{Deserialize, Serialize};
use tenon_vision::{Camera, Distortion, VisionError};

/// Names in the order used throughout.
pub const PARAMETERS: [&str; N] = ["fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3"];

/// Number of parameters.
pub const N: usize = 9;

/// Values in the order of [`PARAMETERS`]: px for the first four, then pure numbers.
pub type Parameters = [f64; N];

pub(super) type MatrixN = SMatrix<f64, N, N>;
pub(super) type VectorN = SMatrix<f64, N, 1>;
pub(super) type Matrix2xN = SMatrix<f64, 2, N>;

/// Distortion coefficients that are estimated; the others stay zero. Focal lengths and principal point always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Free {
    pub k1: bool,
    pub k2: bool,
    /// p1 and p2.
    pub tangential: bool,
    pub k3: bool,
}

impl Default for Free {
    /// k3 stays zero: on lenses of ordinary width it is lost in the noise and makes k1 and k2 uncertain.
    fn default() -> Self {
        Self { k1: true, k2: true, tangential: true, k3: false }
    }
}

impl Free {
    pub const ALL: Self = Self { k1: true, k2: true, tangential: true, k3: true };
    pub const NONE: Self = Self { k1: false, k2: false, tangential: false, k3: false };

    /// Whether each parameter is estimated.
    pub fn mask(&self) -> [bool; N] {
        let Self { k1, k2, tangential, k3 } = *self;
        [true, true, true, true, k1, k2, tangential, tangential, k3]
    }
}

pub(super) fn camera_of(p: &Parameters) -> Result<Camera, VisionError> {
    let camera = Camera::pinhole(p[0], p[1], p[2], p[3])?;
    if p[4..].iter().all(|v| *v == 0.0) {
        return Ok(camera);
    }
    camera.with_distortion(Distortion { k1: p[4], k2: p[5], p1: p[6], p2: p[7], k3: p[8] })
}

#[cfg(test)]
pub(super) fn parameters_of(camera: &Camera) -> Parameters {
    let ([fx, fy], [cx, cy]) = (camera.focal_px(), camera.principal_px());
    let (k1, k2, p1, p2, k3) =
        camera.distortion().map_or((0.0, 0.0, 0.0, 0.0, 0.0), |d| (d.k1, d.k2, d.p1, d.p2, d.k3));
    [fx, fy, cx, cy, k1, k2, p1, p2, k3]
}

/// Pixel of a point in the camera frame, its derivative by the point (px/m), and by the parameters.
pub(super) fn project(camera: &Camera, point: &Point3<f64>) -> Option<([f64; 2], Matrix2x3<f64>, Matrix2xN)> {
    let (pixel, by_point) = camera.project_with_jacobian(point)?;
    let ([fx, fy], [cx, cy]) = (camera.focal_px(), camera.principal_px());
    let (x, y) = (point.x / point.z, point.y / point.z);
    let r2 = x * x + y * y;
    let (r4, r6) = (r2 * r2, r2 * r2 * r2);
    let u = [(pixel[0] - cx) / fx, 0.0, 1.0, 0.0, x * r2, x * r4, 2.0 * x * y, r2 + 2.0 * x * x, x * r6];
    let v = [0.0, (pixel[1] - cy) / fy, 0.0, 1.0, y * r2, y * r4, r2 + 2.0 * y * y, 2.0 * x * y, y * r6];
    let mut by_parameters = Matrix2xN::zeros();
    for i in 0..N {
        let distortion = i >= 4;
        by_parameters[(0, i)] = if distortion { fx * u[i] } else { u[i] };
        by_parameters[(1, i)] = if distortion { fy * v[i] } else { v[i] };
    }
    Some((pixel, by_point, by_parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_by_every_parameter_equal_central_differences() {
        let at: Parameters = [915.0, 905.0, 642.0, 348.0, 0.12, -0.25, 0.0011, -0.0007, 0.08];
        let point = Point3::new(0.31, -0.19, 0.8);
        let (_, _, jacobian) = project(&camera_of(&at).unwrap(), &point).unwrap();
        for i in 0..N {
            let h = 1e-6 * at[i].abs().max(0.1);
            let shifted = |by: f64| {
                let mut p = at;
                p[i] += by;
                camera_of(&p).unwrap().project(&point).unwrap()
            };
            let (plus, minus) = (shifted(h), shifted(-h));
            for row in 0..2 {
                let slope = (plus[row] - minus[row]) / (2.0 * h);
                assert!((slope - jacobian[(row, i)]).abs() < 1e-5 * slope.abs().max(1.0), "{} {slope}", PARAMETERS[i]);
            }
        }
    }

    #[test]
    fn parameters_and_camera_are_one_thing() {
        let at: Parameters = [915.0, 905.0, 642.0, 348.0, 0.12, -0.25, 0.0011, -0.0007, 0.08];
        assert_eq!(parameters_of(&camera_of(&at).unwrap()), at);
        let plain: Parameters = [915.0, 905.0, 642.0, 348.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert!(camera_of(&plain).unwrap().distortion().is_none());
    }
}
