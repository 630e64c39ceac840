//! Pinhole camera with optional Brown–Conrady distortion (the model of OpenCV and ROS `plumb_bob`).
//!
//! Camera frame: x right, y down, z forward. A point (X, Y, Z) has normalised coordinates (x, y) = (X/Z, Y/Z);
//! distortion maps them to (x', y') and the pixel is (fx x' + cx, fy y' + cy), in this crate's pixel convention.

use crate::VisionError;
use nalgebra::{Matrix2, Matrix2x3, Point3, Vector2};

/// Brown–Conrady coefficients, OpenCV's order: k1, k2, p1, p2, k3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distortion {
    pub k1: f64,
    pub k2: f64,
    pub p1: f64,
    pub p2: f64,
    pub k3: f64,
}

/// Intrinsics of one camera at one resolution. Checked on construction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Camera {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
    distortion: Option<Distortion>,
}

impl Camera {
    /// Focal lengths and principal point in pixels, without distortion.
    pub fn pinhole(fx: f64, fy: f64, cx: f64, cy: f64) -> Result<Self, VisionError> {
        for (name, value) in [("fx", fx), ("fy", fy)] {
            if !(value.is_finite() && value > 0.0) {
                let requirement = "a focal length must be a positive number of pixels";
                return Err(VisionError::Camera { name, value, requirement });
            }
        }
        for (name, value) in [("cx", cx), ("cy", cy)] {
            if !value.is_finite() {
                let requirement = "the principal point must be finite";
                return Err(VisionError::Camera { name, value, requirement });
            }
        }
        let distortion = None;
        Ok(Self { fx, fy, cx, cy, distortion })
    }

    /// The same camera with distortion.
    pub fn with_distortion(mut self, distortion: Distortion) -> Result<Self, VisionError> {
        let Distortion { k1, k2, p1, p2, k3 } = distortion;
        for (name, value) in [("k1", k1), ("k2", k2), ("p1", p1), ("p2", p2), ("k3", k3)] {
            if !value.is_finite() {
                let requirement = "distortion coefficients must be finite";
                return Err(VisionError::Camera { name, value, requirement });
            }
        }
        self.distortion = Some(distortion);
        Ok(self)
    }

    /// Focal lengths (fx, fy), px.
    pub fn focal_px(&self) -> [f64; 2] {
        [self.fx, self.fy]
    }

    /// Principal point (cx, cy), px.
    pub fn principal_px(&self) -> [f64; 2] {
        [self.cx, self.cy]
    }

    pub fn distortion(&self) -> Option<Distortion> {
        self.distortion
    }

    /// Pixel of a point in the camera frame; `None` when it does not lie in front of the camera.
    pub fn project(&self, point: &Point3<f64>) -> Option<[f64; 2]> {
        if point.z.is_nan() || point.z <= MIN_DEPTH_M {
            return None;
        }
        let distorted = match self.distortion {
            None => Vector2::new(point.x / point.z, point.y / point.z),
            Some(d) => d.apply(point.x / point.z, point.y / point.z),
        };
        Some([self.fx * distorted.x + self.cx, self.fy * distorted.y + self.cy])
    }

    /// Pixel of a point in the camera frame and its derivative by the point, px/m.
    pub fn project_with_jacobian(&self, point: &Point3<f64>) -> Option<([f64; 2], Matrix2x3<f64>)> {
        let pixel = self.project(point)?;
        let (x, y, inv_z) = (point.x / point.z, point.y / point.z, 1.0 / point.z);
        let by_point = Matrix2x3::new(inv_z, 0.0, -x * inv_z, 0.0, inv_z, -y * inv_z);
        let by_normalised = self.distortion.map_or_else(Matrix2::identity, |d| d.jacobian(x, y));
        let focal = Matrix2::new(self.fx, 0.0, 0.0, self.fy);
        Some((pixel, focal * by_normalised * by_point))
    }

    /// Undistorted normalised coordinates of a pixel; `None` where the distortion polynomial cannot be inverted (far
    /// outside the picture it was fitted on).
    pub fn normalise(&self, pixel: [f64; 2]) -> Option<[f64; 2]> {
        let target = Vector2::new((pixel[0] - self.cx) / self.fx, (pixel[1] - self.cy) / self.fy);
        match self.distortion {
            None => Some([target.x, target.y]),
            Some(distortion) => distortion.invert(target),
        }
    }

    /// Where the pixel would lie without distortion, px.
    pub fn undistort(&self, pixel: [f64; 2]) -> Option<[f64; 2]> {
        let [x, y] = self.normalise(pixel)?;
        Some([self.fx * x + self.cx, self.fy * y + self.cy])
    }
}

/// Points nearer than this count as behind the camera.
const MIN_DEPTH_M: f64 = 1e-6;

impl Distortion {
    fn radial(&self, r2: f64) -> f64 {
        1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
    }

    fn apply(&self, x: f64, y: f64) -> Vector2<f64> {
        let Self { p1, p2, .. } = *self;
        let r2 = x * x + y * y;
        let radial = self.radial(r2);
        Vector2::new(
            x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
            y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
        )
    }

    /// Derivative of [`Self::apply`] by (x, y).
    fn jacobian(&self, x: f64, y: f64) -> Matrix2<f64> {
        let Self { k1, k2, k3, p1, p2 } = *self;
        let r2 = x * x + y * y;
        let radial = self.radial(r2);
        let slope = k1 + r2 * (2.0 * k2 + 3.0 * r2 * k3);
        let mixed = 2.0 * (x * y * slope + p1 * x + p2 * y);
        Matrix2::new(
            radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x,
            mixed,
            mixed,
            radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x,
        )
    }

    /// Newton's method from the distorted point.
    fn invert(&self, target: Vector2<f64>) -> Option<[f64; 2]> {
        let mut guess = target;
        for _ in 0..30 {
            let jacobian = self.jacobian(guess.x, guess.y);
            // Beyond the fold of the polynomial the solution belongs to another ray.
            let determinant = jacobian.determinant();
            if determinant.is_nan() || determinant <= 1e-6 {
                return None;
            }
            let error = self.apply(guess.x, guess.y) - target;
            if error.norm() < 1e-12 {
                return Some([guess.x, guess.y]);
            }
            guess -= jacobian.try_inverse()? * error;
        }
        let error = self.apply(guess.x, guess.y) - target;
        (error.norm() < 1e-9).then_some([guess.x, guess.y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distorted() -> Camera {
        let distortion = Distortion { k1: 0.12, k2: -0.25, p1: 0.0011, p2: -0.0007, k3: 0.08 };
        let camera = Camera::pinhole(915.0, 912.0, 642.0, 348.0).unwrap();
        camera.with_distortion(distortion).unwrap()
    }

    #[test]
    fn normalising_inverts_projection_over_the_whole_picture() {
        let camera = distorted();
        for u in (0..=1280).step_by(80) {
            for v in (0..=720).step_by(80) {
                let pixel = [u as f64, v as f64];
                let [x, y] = camera.normalise(pixel).unwrap();
                let back = camera.project(&Point3::new(2.0 * x, 2.0 * y, 2.0)).unwrap();
                assert!((back[0] - pixel[0]).hypot(back[1] - pixel[1]) < 1e-7, "{pixel:?} {back:?}");
            }
        }
    }

    #[test]
    fn jacobian_equals_central_differences() {
        for camera in [distorted(), Camera::pinhole(915.0, 915.0, 640.0, 360.0).unwrap()] {
            let point = Point3::new(0.21, -0.13, 0.7);
            let (_, jacobian) = camera.project_with_jacobian(&point).unwrap();
            for axis in 0..3 {
                let h = 1e-6;
                let (mut plus, mut minus) = (point, point);
                plus[axis] += h;
                minus[axis] -= h;
                let (plus, minus) = (camera.project(&plus).unwrap(), camera.project(&minus).unwrap());
                for row in 0..2 {
                    let slope = (plus[row] - minus[row]) / (2.0 * h);
                    assert!((slope - jacobian[(row, axis)]).abs() < 1e-4, "{slope} {}", jacobian[(row, axis)]);
                }
            }
        }
    }

    #[test]
    fn what_is_behind_the_camera_or_not_a_number_has_no_pixel() {
        let camera = Camera::pinhole(900.0, 900.0, 640.0, 360.0).unwrap();
        assert!(camera.project(&Point3::new(0.0, 0.0, -1.0)).is_none());
        assert!(camera.project(&Point3::new(0.0, 0.0, f64::NAN)).is_none());
        assert!(Camera::pinhole(f64::NAN, 900.0, 0.0, 0.0).is_err());
        assert!(Camera::pinhole(900.0, 0.0, 0.0, 0.0).is_err());
        assert!(Camera::pinhole(900.0, 900.0, f64::INFINITY, 0.0).is_err());
    }
}
