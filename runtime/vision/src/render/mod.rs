//! A synthetic camera: pictures of tags at known poses, with the truth known exactly.
//!
//! - [`render`] draws clean tags on a flat background: enough to test a detector.
//! - [`SyntheticCamera`] takes photographs of a [`Scene`]: solid bodies that carry tags and hide what lies behind them,
//!   moving during the exposure, through a lens (distortion, defocus, vignetting) onto a sensor (exposure, shot and read
//!   noise, tone curve). Each photograph comes with the truth of every tag ([`TagTruth`]) and depends on the seed only.
//!
//! Every pixel is the mean of `supersampling`² rays (box filter), traced through the full camera model, so rendered corners
//! lie where [`Camera::project`] puts them.

mod paint;
pub mod scene;
mod sensor;
mod studio;
pub mod workbench;

pub use scene::{Convex, Motion, Scene, SceneBody, Solid};
pub use sensor::{Backdrop, CameraEffects};
pub use studio::{SyntheticCamera, TagTruth};

use crate::pose::corners_in_tag;
use crate::{Camera, Family, GreyImage, Pose, VisionError};
use nalgebra::Point3;

/// A printed tag in front of the camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrintedTag {
    pub family: Family,
    pub id: u32,
    /// Edge of the black border, m.
    pub size_m: f64,
    pub T_camera_tag: Pose,
}

/// Grey levels and sampling of a rendered picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RenderSettings {
    pub background: u8,
    pub black: u8,
    pub white: u8,
    /// Rays per pixel and axis.
    pub supersampling: usize,
}

impl Default for RenderSettings {
    fn default() -> Self {
        Self { background: 110, black: 25, white: 225, supersampling: 4 }
    }
}

/// Draws `tags` (nearer ones over farther ones) into a picture of `width` × `height` px. Tags seen from behind, or with a
/// corner behind the camera, are left out.
pub fn render(
    camera: &Camera,
    width: usize,
    height: usize,
    tags: &[PrintedTag],
    settings: &RenderSettings,
) -> Result<GreyImage, VisionError> {
    let n = settings.supersampling.max(1);
    let mut image = GreyImage::filled(width, height, settings.background);
    let mut order: Vec<&PrintedTag> = tags.iter().collect();
    let depth = |tag: &PrintedTag| tag.T_camera_tag.translation.vector.norm();
    order.sort_by(|a, b| depth(b).total_cmp(&depth(a)));
    for tag in order {
        let cells = tag.family.bitmap(tag.id)?;
        let cells_a_side = cells.width() as f64;
        let cell_m = tag.size_m / tag.family.cells_within_border() as f64;
        let Some(area) = covered_pixels(camera, tag, cell_m * cells_a_side, width, height) else {
            continue;
        };
        let T_tag_camera = tag.T_camera_tag.inverse();
        let eye = T_tag_camera.translation.vector;
        for y in area.top..area.bottom {
            for x in area.left..area.right {
                let (mut sum, mut hits) = (0usize, 0usize);
                for sample in 0..n * n {
                    let u = x as f64 + ((sample % n) as f64 + 0.5) / n as f64;
                    let v = y as f64 + ((sample / n) as f64 + 0.5) / n as f64;
                    let Some([nx, ny]) = camera.normalise([u, v]) else { continue };
                    let ray = T_tag_camera.rotation * nalgebra::Vector3::new(nx, ny, 1.0);
                    let along = -eye.z / ray.z;
                    if along.is_nan() || along <= 0.0 {
                        continue;
                    }
                    let place = eye + ray * along;
                    let column = (place.x / cell_m + cells_a_side / 2.0).floor();
                    let row = (place.y / cell_m + cells_a_side / 2.0).floor();
                    let on_tag = |c: f64| (0.0..cells_a_side).contains(&c);
                    if on_tag(column) && on_tag(row) {
                        let white = cells.pixels()[row as usize * cells.width() + column as usize] > 127;
                        sum += if white { settings.white } else { settings.black } as usize;
                        hits += 1;
                    }
                }
                if hits > 0 {
                    let pixel = &mut image.pixels_mut()[y * width + x];
                    sum += *pixel as usize * (n * n - hits);
                    *pixel = ((sum + n * n / 2) / (n * n)) as u8;
                }
            }
        }
    }
    Ok(image)
}

struct Area {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

/// Pixels that the print (with its margin, `print_m` wide) may touch.
fn covered_pixels(camera: &Camera, tag: &PrintedTag, print_m: f64, width: usize, height: usize) -> Option<Area> {
    let normal = tag.T_camera_tag.rotation * nalgebra::Vector3::z();
    if normal.dot(&tag.T_camera_tag.translation.vector) <= 0.0 {
        return None;
    }
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for corner in corners_in_tag(print_m) {
        let corner: Point3<f64> = tag.T_camera_tag * corner;
        let pixel = camera.project(&corner)?;
        for axis in 0..2 {
            low[axis] = low[axis].min(pixel[axis]);
            high[axis] = high[axis].max(pixel[axis]);
        }
    }
    // Distortion bends edges outward by less than this on any usable lens.
    let slack = 2.0 + 0.02 * (high[0] - low[0]).max(high[1] - low[1]);
    let clamp = |value: f64, limit: usize| value.clamp(0.0, limit as f64) as usize;
    Some(Area {
        left: clamp(low[0] - slack, width),
        right: clamp(high[0] + slack + 1.0, width),
        top: clamp(low[1] - slack, height),
        bottom: clamp(high[1] + slack + 1.0, height),
    })
}
