//! The overlay picture that FurnitureBench users know (spec perception.md §7.2): the reference photograph blended with what the
//! camera sees now, the camera's error against the reference in text, and the board's axes.

use image::{Rgb, RgbImage};
use nalgebra::UnitQuaternion;
use serde::{Deserialize, Serialize};
use tenon_core::geometry::pose_from_wxyz;
use tenon_vision::{Camera, Pose};

use super::StepError;
use crate::draw::{BLACK, BOARD_AXIS_M, Sketch, draw_text};
use crate::font::GLYPH_SIZE;

const CAMERAS: &str = include_str!("../../../configs/vision/cameras.toml");
/// Parts of the reference and of the present picture.
const REFERENCE: f64 = 0.3;
const PRESENT: f64 = 0.5;
/// A camera is back in its place within these.
const PLACE_M: f64 = 0.004;
const PLACE_DEG: f64 = 1.0;
/// The board must fit the picture this well before its pose means anything.
const FIT_PX: f64 = 0.5;
const GREEN: Rgb<u8> = Rgb([60, 230, 90]);
const RED: Rgb<u8> = Rgb([255, 70, 60]);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cameras {
    front_camera: Vec<FrontCamera>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontCamera {
    set: String,
    furniture: String,
    position_m: [f64; 3],
    quat_xyzw: [f64; 4],
}

/// Where the benchmark's front camera stood for a furniture: `T_april_camera`. A name alone is of set `main`; `mixed/lamp` of the
/// other one.
pub fn published_front_camera(furniture: &str) -> Result<Pose, StepError> {
    let cameras: Cameras = toml::from_str(CAMERAS).map_err(|e| StepError::Picture {
        what: "built-in configs/vision/cameras.toml".into(),
        reason: e.to_string(),
    })?;
    let (set, name) = furniture.split_once('/').unwrap_or(("main", furniture));
    let found = cameras.front_camera.iter().find(|camera| camera.set == set && camera.furniture == name);
    let found = found.ok_or_else(|| {
        let known = cameras.front_camera.iter().map(|camera| match camera.set.as_str() {
            "main" => camera.furniture.clone(),
            other => format!("{other}/{}", camera.furniture),
        });
        StepError::NoReference { furniture: furniture.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
    })?;
    let [x, y, z, w] = found.quat_xyzw;
    Ok(pose_from_wxyz(found.position_m, [w, x, y, z]))
}

/// One line of text with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorLine {
    pub text: String,
    pub within: bool,
}

/// The camera now, as the board in the picture says.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub camera: Camera,
    pub T_april_camera: Pose,
    pub rms_px: f64,
}

/// Nine lines: position error along x, y, z and its length, roll, pitch, yaw and the whole angle, and how well the board fits. Errors
/// are now minus wanted, in the april frame.
pub fn error_lines(wanted: &Pose, now: &Now) -> Vec<ErrorLine> {
    let off = now.T_april_camera.translation.vector - wanted.translation.vector;
    let mut lines = Vec::with_capacity(9);
    for (name, error) in [("x", off.x), ("y", off.y), ("z", off.z), ("distance", off.norm())] {
        lines.push(ErrorLine { text: format!("{name} {error:+.3} m"), within: error.abs() <= PLACE_M });
    }
    let (a, b) = (angles_deg(&now.T_april_camera.rotation), angles_deg(&wanted.rotation));
    let whole = now.T_april_camera.rotation.angle_to(&wanted.rotation).to_degrees();
    let wrapped = |i: usize| (a[i] - b[i] + 180.0).rem_euclid(360.0) - 180.0;
    for (name, error) in [("roll", wrapped(0)), ("pitch", wrapped(1)), ("yaw", wrapped(2)), ("angle", whole)] {
        lines.push(ErrorLine { text: format!("{name} {error:+.2} deg"), within: error.abs() <= PLACE_DEG });
    }
    lines.push(ErrorLine { text: format!("board fits {:.2} px", now.rms_px), within: now.rms_px <= FIT_PX });
    lines
}

/// Roll, pitch and yaw of a rotation, R = Rz(yaw)·Ry(pitch)·Rx(roll).
fn angles_deg(rotation: &UnitQuaternion<f64>) -> [f64; 3] {
    let R = rotation.to_rotation_matrix();
    let roll = R[(2, 1)].atan2(R[(2, 2)]);
    let pitch = (-R[(2, 0)]).atan2(R[(2, 1)].hypot(R[(2, 2)]));
    let yaw = R[(1, 0)].atan2(R[(0, 0)]);
    [roll, pitch, yaw].map(f64::to_degrees)
}

/// The picture. Without a board in `present` (`now` is `None`) it is the blend alone.
///
/// # Errors
/// [`StepError::Picture`] where the two pictures differ in size.
pub fn overlay(
    reference: Option<&RgbImage>,
    present: &RgbImage,
    wanted: &Pose,
    now: Option<&Now>,
) -> Result<(RgbImage, Vec<ErrorLine>), StepError> {
    let canvas = match reference {
        Some(reference) => blended(reference, present)?,
        None => present.clone(),
    };
    let Some(now) = now else { return Ok((canvas, Vec::new())) };
    let mut sketch = Sketch { scale: 1 + canvas.width() as usize / 1600, zoom: 1.0, canvas };
    sketch.axes(&now.camera, &now.T_april_camera.inverse(), BOARD_AXIS_M, "");
    let lines = error_lines(wanted, now);
    let scale = 2 * sketch.scale;
    for (i, line) in lines.iter().enumerate() {
        let at = [8.0, 8.0 + (i * (GLYPH_SIZE.1 + 3) * scale) as f64];
        draw_text(&mut sketch.canvas, at, &line.text, scale, if line.within { GREEN } else { RED }, BLACK);
    }
    Ok((sketch.canvas, lines))
}

fn blended(reference: &RgbImage, present: &RgbImage) -> Result<RgbImage, StepError> {
    if reference.dimensions() != present.dimensions() {
        let ((a, b), (c, d)) = (reference.dimensions(), present.dimensions());
        let reason = format!("it is {a}x{b} px, the camera's picture {c}x{d}: take one of the same camera setting");
        return Err(StepError::Picture { what: "the reference picture".into(), reason });
    }
    let mut canvas = present.clone();
    for (pixel, old) in canvas.pixels_mut().zip(reference.pixels()) {
        for channel in 0..3 {
            let mixed = PRESENT * f64::from(pixel[channel]) + REFERENCE * f64::from(old[channel]);
            pixel[channel] = mixed.round().min(255.0) as u8;
        }
    }
    Ok(canvas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, Vector3};

    fn now(T_april_camera: Pose) -> Now {
        Now { camera: Camera::pinhole(915.0, 915.0, 320.0, 240.0).unwrap(), T_april_camera, rms_px: 0.2 }
    }

    #[test]
    fn published_poses_are_rigid_and_unknown_furniture_lists_the_known() {
        for furniture in ["one_leg", "lamp", "round_table", "mixed/lamp"] {
            let pose = published_front_camera(furniture).unwrap();
            // Before the board, 0.7 to 0.9 m away, looking down at it.
            assert!((0.7..0.95).contains(&pose.translation.vector.norm()), "{furniture}");
            assert!((pose.rotation * Vector3::z()).y < -0.9, "{furniture}");
        }
        let said = published_front_camera("sofa").unwrap_err().to_string();
        assert!(said.contains("one_leg") && said.contains("mixed/lamp"), "{said}");
    }

    #[test]
    fn errors_have_sign_and_colour_by_their_limits() {
        let wanted = published_front_camera("one_leg").unwrap();
        let turn = UnitQuaternion::from_euler_angles(0.0, 0.0, 2.0_f64.to_radians());
        let moved = Pose::from_parts(
            Translation3::from(wanted.translation.vector + Vector3::new(0.003, -0.005, 0.0)),
            turn * wanted.rotation,
        );
        let lines = error_lines(&wanted, &now(moved));
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts[..4], ["x +0.003 m", "y -0.005 m", "z +0.000 m", "distance +0.006 m"]);
        assert_eq!(texts[6..8], ["yaw +2.00 deg", "angle +2.00 deg"]);
        let within: Vec<bool> = lines.iter().map(|line| line.within).collect();
        assert_eq!(within, [true, false, true, false, true, true, false, false, true]);
    }

    #[test]
    fn pictures_are_blended_three_to_five_and_must_be_alike() {
        let reference = RgbImage::from_pixel(640, 480, Rgb([100, 200, 0]));
        let present = RgbImage::from_pixel(640, 480, Rgb([100, 0, 200]));
        let wanted = published_front_camera("one_leg").unwrap();
        let (picture, lines) = overlay(Some(&reference), &present, &wanted, None).unwrap();
        assert_eq!((picture[(600, 400)], lines.len()), (Rgb([80, 60, 100]), 0));
        let (picture, lines) = overlay(Some(&reference), &present, &wanted, Some(&now(wanted))).unwrap();
        assert_eq!(lines.len(), 9);
        assert!(picture.pixels().any(|p| *p == GREEN) && !picture.pixels().any(|p| *p == RED));
        let small = RgbImage::new(320, 240);
        let said = overlay(Some(&small), &present, &wanted, None).unwrap_err().to_string();
        assert!(said.contains("320x240"), "{said}");
    }
}
