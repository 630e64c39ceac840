//! Synthetic pictures of boards, with the truth known exactly.

use super::{Board, BoardError, Pattern};
use nalgebra::Vector3;
use tenon_vision::render::RenderSettings;
use tenon_vision::{Camera, GreyImage, Pose};

/// Draws a board with its white margin before an even background. Every pixel is the mean of `supersampling`² rays through
/// the full camera model. A board seen from behind is left out.
pub fn render_board(
    board: &Board,
    camera: &Camera,
    T_camera_board: &Pose,
    width: usize,
    height: usize,
    settings: &RenderSettings,
) -> Result<GreyImage, BoardError> {
    let pattern = Pattern::new(board)?;
    let mut image = GreyImage::filled(width, height, settings.background);
    let normal = T_camera_board.rotation * Vector3::z();
    if normal.dot(&T_camera_board.translation.vector) <= 0.0 {
        return Ok(image);
    }
    let T_board_camera = T_camera_board.inverse();
    let eye = T_board_camera.translation.vector;
    let n = settings.supersampling.max(1);
    // Rays at the corners of pixels; between them the lens is as good as linear.
    let row_of_rays =
        |y: usize| -> Vec<Option<[f64; 2]>> { (0..=width).map(|x| camera.normalise([x as f64, y as f64])).collect() };
    let mut below = row_of_rays(0);
    for y in 0..height {
        let above = std::mem::replace(&mut below, row_of_rays(y + 1));
        for x in 0..width {
            let (Some(a), Some(b), Some(c), Some(d)) = (above[x], above[x + 1], below[x], below[x + 1]) else {
                continue;
            };
            let mut sum = 0usize;
            for sample in 0..n * n {
                let (i, j) = (sample % n, sample / n);
                // Each row of samples is shifted a little: an upright edge then has n² positions within a pixel, not n.
                let s = (i as f64 + (j as f64 + 0.5) / n as f64) / n as f64;
                let t = (j as f64 + (i as f64 + 0.5) / n as f64) / n as f64;
                let mix = |i: usize| (a[i] * (1.0 - s) + b[i] * s) * (1.0 - t) + (c[i] * (1.0 - s) + d[i] * s) * t;
                let ray = T_board_camera.rotation * Vector3::new(mix(0), mix(1), 1.0);
                let along = -eye.z / ray.z;
                let place = eye + ray * along;
                let colour = if along > 0.0 { pattern.is_black(place.x, place.y) } else { None };
                sum += usize::from(match colour {
                    None => settings.background,
                    Some(true) => settings.black,
                    Some(false) => settings.white,
                });
            }
            image.pixels_mut()[y * width + x] = ((sum + n * n / 2) / (n * n)) as u8;
        }
    }
    Ok(image)
}
