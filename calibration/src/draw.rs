//! Draws what was measured onto the picture: outlines, corner order, ids, axes of the board and of the parts.

use crate::font::{GLYPH_SIZE, glyph, text_width};
use crate::photo::Measured;
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use nalgebra::Point3;
use tenon_vision::{Camera, Pose, TagDetection};

const OUTLINE: Rgb<u8> = Rgb([60, 230, 90]);
const AMBIGUOUS: Rgb<u8> = Rgb([255, 170, 30]);
pub(crate) const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
pub(crate) const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
const FIRST_CORNER: Rgb<u8> = Rgb([255, 60, 60]);
const AXES: [(&str, Rgb<u8>); 3] = [("X", Rgb([255, 50, 50])), ("Y", Rgb([40, 210, 60])), ("Z", Rgb([70, 120, 255]))];
/// Length of drawn axes, m (what the benchmark's overlay uses for the board).
pub(crate) const BOARD_AXIS_M: f64 = 0.05;
const PART_AXIS_M: f64 = 0.03;

/// The annotated picture, `zoom` times as large as the original so that small tags can be told apart.
pub fn annotate(picture: &RgbImage, measured: &Measured, zoom: u32) -> RgbImage {
    let zoom = zoom.max(1);
    let canvas = match zoom {
        1 => picture.clone(),
        _ => resize(picture, picture.width() * zoom, picture.height() * zoom, FilterType::Triangle),
    };
    let mut sketch = Sketch { scale: 1 + picture.width() as usize / 1600, zoom: zoom as f64, canvas };
    for (detection, tag) in measured.detections.iter().zip(&measured.report.tags) {
        let ambiguous = tag.pose.as_ref().is_some_and(|pose| pose.ambiguous);
        sketch.tag(detection, if ambiguous { AMBIGUOUS } else { OUTLINE });
    }
    if let Some(T_camera_april) = &measured.T_camera_april {
        sketch.axes(&measured.camera, T_camera_april, BOARD_AXIS_M, "");
    }
    for (name, T_camera_part) in &measured.parts {
        sketch.axes(&measured.camera, T_camera_part, PART_AXIS_M, name);
    }
    sketch.caption(measured);
    sketch.canvas
}

pub(crate) struct Sketch {
    pub canvas: RgbImage,
    /// Size of a font pixel, px of the canvas.
    pub scale: usize,
    /// Canvas pixels per picture pixel.
    pub zoom: f64,
}

impl Sketch {
    fn on_canvas(&self, pixel: [f64; 2]) -> [f64; 2] {
        pixel.map(|v| v * self.zoom)
    }

    fn caption(&mut self, measured: &Measured) {
        let report = &measured.report;
        let mut lines = vec![format!("{} tags {}", report.tags.len(), report.detector.family)];
        match (&report.board.camera_in_april, report.board.residual_rms_px) {
            (Some(camera), Some(rms)) => {
                let [x, y, z] = camera.position_m;
                lines.push(format!("camera in april: {x:.4}, {y:.4}, {z:.4} m"));
                lines.push(format!("residual {rms:.2} px"));
            }
            _ => lines.push("no camera pose".to_owned()),
        }
        if !report.camera.assumptions.is_empty() {
            lines.push(format!("f = {:.1} px (camera model partly assumed)", report.camera.focal_px[0]));
        }
        let scale = 2 * self.scale * self.zoom as usize;
        for (i, line) in lines.iter().enumerate() {
            let y = 8.0 + (i * (GLYPH_SIZE.1 + 3) * scale) as f64;
            draw_text(&mut self.canvas, [8.0, y], line, scale, WHITE, BLACK);
        }
    }

    fn tag(&mut self, tag: &TagDetection, colour: Rgb<u8>) {
        let size = self.scale as f64;
        let corners = tag.corners_px.map(|corner| self.on_canvas(corner));
        let centre = self.on_canvas(tag.centre_px);
        for i in 0..4 {
            draw_line(&mut self.canvas, corners[i], corners[(i + 1) % 4], 1.4 * size, colour);
        }
        for (i, corner) in corners.into_iter().enumerate() {
            let strip = if i == 0 { FIRST_CORNER } else { BLACK };
            draw_dot(&mut self.canvas, corner, 2.2 * size, if i == 0 { FIRST_CORNER } else { colour });
            // The corner's number stands outside, away from the centre.
            let outward = [corner[0] - centre[0], corner[1] - centre[1]];
            let length = outward[0].hypot(outward[1]).max(1.0);
            let at = [0, 1].map(|axis| corner[axis] + outward[axis] / length * 8.0 * size);
            draw_text_centred(&mut self.canvas, at, &i.to_string(), self.scale, WHITE, strip);
        }
        let roomy = tag.shortest_edge_px() * self.zoom > 40.0 * size;
        let id_scale = if roomy { 2 * self.scale } else { self.scale };
        draw_text_centred(&mut self.canvas, centre, &tag.id.to_string(), id_scale, WHITE, BLACK);
    }

    pub fn axes(&mut self, camera: &Camera, T_camera_body: &Pose, length_m: f64, name: &str) {
        let size = self.scale as f64;
        let project = |point: Point3<f64>| camera.project(&(T_camera_body * point));
        let Some(origin) = project(Point3::origin()) else { return };
        let origin = self.on_canvas(origin);
        for (axis, (letter, colour)) in AXES.into_iter().enumerate() {
            let mut tip = Point3::origin();
            tip[axis] = length_m;
            let Some(tip) = project(tip) else { continue };
            let tip = self.on_canvas(tip);
            draw_line(&mut self.canvas, origin, tip, 2.2 * size, colour);
            let reach = 1.0 + 7.0 * size / (tip[0] - origin[0]).hypot(tip[1] - origin[1]).max(1.0);
            let at = [0, 1].map(|i| origin[i] + (tip[i] - origin[i]) * reach);
            draw_text_centred(&mut self.canvas, at, letter, self.scale, WHITE, colour);
        }
        if !name.is_empty() {
            let above = [origin[0], origin[1] - 10.0 * size];
            draw_text_centred(&mut self.canvas, above, name, self.scale, WHITE, BLACK);
        }
    }
}

/// A line with soft edges.
fn draw_line(canvas: &mut RgbImage, a: [f64; 2], b: [f64; 2], width: f64, colour: Rgb<u8>) {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let squared = (dx * dx + dy * dy).max(1e-12);
    paint(canvas, [a, b], width, colour, |x, y| {
        let along = (((x - a[0]) * dx + (y - a[1]) * dy) / squared).clamp(0.0, 1.0);
        (x - a[0] - along * dx).hypot(y - a[1] - along * dy) - width / 2.0
    });
}

fn draw_dot(canvas: &mut RgbImage, centre: [f64; 2], radius: f64, colour: Rgb<u8>) {
    paint(canvas, [centre, centre], 2.0 * radius, colour, |x, y| (x - centre[0]).hypot(y - centre[1]) - radius);
}

/// Blends `colour` where the signed `distance` (px, at pixel centres) is below half a pixel.
fn paint(canvas: &mut RgbImage, span: [[f64; 2]; 2], width: f64, colour: Rgb<u8>, distance: impl Fn(f64, f64) -> f64) {
    let slack = width + 2.0;
    let range = |axis: usize, limit: u32| {
        let low = span[0][axis].min(span[1][axis]) - slack;
        let high = span[0][axis].max(span[1][axis]) + slack;
        low.clamp(0.0, limit as f64) as u32..high.clamp(0.0, limit as f64) as u32
    };
    for y in range(1, canvas.height()) {
        for x in range(0, canvas.width()) {
            let cover = (0.5 - distance(x as f64 + 0.5, y as f64 + 0.5)).clamp(0.0, 1.0);
            if cover > 0.0 {
                blend(canvas.get_pixel_mut(x, y), colour, cover);
            }
        }
    }
}

fn blend(pixel: &mut Rgb<u8>, colour: Rgb<u8>, cover: f64) {
    for channel in 0..3 {
        let mixed = pixel[channel] as f64 * (1.0 - cover) + colour[channel] as f64 * cover;
        pixel[channel] = mixed.round() as u8;
    }
}

fn draw_text_centred(
    canvas: &mut RgbImage,
    centre: [f64; 2],
    text: &str,
    scale: usize,
    colour: Rgb<u8>,
    strip: Rgb<u8>,
) {
    let width = text_width(text, scale) as f64;
    let height = (GLYPH_SIZE.1 * scale) as f64;
    draw_text(canvas, [centre[0] - width / 2.0, centre[1] - height / 2.0], text, scale, colour, strip);
}

/// Text with its upper left corner at `at`, on a strip so that it can be read on any picture.
pub(crate) fn draw_text(
    canvas: &mut RgbImage,
    at: [f64; 2],
    text: &str,
    scale: usize,
    colour: Rgb<u8>,
    strip: Rgb<u8>,
) {
    let (left, top) = (at[0].round() as i64, at[1].round() as i64);
    let (width, height) = (text_width(text, scale) as i64, (GLYPH_SIZE.1 * scale) as i64);
    let margin = scale as i64;
    for y in top - margin..top + height + margin {
        for x in left - margin..left + width + margin {
            if let Some(pixel) = pixel_at(canvas, x, y) {
                blend(pixel, strip, 0.6);
            }
        }
    }
    for (i, character) in text.chars().enumerate() {
        let x0 = left + (i * (GLYPH_SIZE.0 + 1) * scale) as i64;
        for (row, bits) in glyph(character).into_iter().enumerate() {
            for column in 0..GLYPH_SIZE.0 {
                if bits >> (GLYPH_SIZE.0 - 1 - column) & 1 == 0 {
                    continue;
                }
                for sub in 0..scale * scale {
                    let x = x0 + (column * scale + sub % scale) as i64;
                    let y = top + (row * scale + sub / scale) as i64;
                    if let Some(pixel) = pixel_at(canvas, x, y) {
                        *pixel = colour;
                    }
                }
            }
        }
    }
}

fn pixel_at(canvas: &mut RgbImage, x: i64, y: i64) -> Option<&mut Rgb<u8>> {
    let (x, y) = (u32::try_from(x).ok()?, u32::try_from(y).ok()?);
    canvas.get_pixel_mut_checked(x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_partly_or_wholly_outside_the_picture_is_clipped() {
        let mut canvas = RgbImage::new(40, 30);
        draw_line(&mut canvas, [-1e9, -5.0], [1e9, 40.0], 2.0, WHITE);
        draw_dot(&mut canvas, [f64::NAN, 3.0], 3.0, WHITE);
        draw_text_centred(&mut canvas, [39.0, -2.0], "id 12?", 2, WHITE, BLACK);
        draw_text(&mut canvas, [-1e12, 1e12], "far", 1, WHITE, BLACK);
        assert!(canvas.pixels().any(|pixel| *pixel == WHITE));
    }

    #[test]
    fn a_line_covers_its_pixels_and_nothing_beside_them() {
        let mut canvas = RgbImage::new(20, 20);
        draw_line(&mut canvas, [2.0, 10.0], [18.0, 10.0], 2.0, WHITE);
        assert_eq!((canvas[(10, 9)], canvas[(10, 10)]), (WHITE, WHITE));
        assert_eq!((canvas[(10, 7)], canvas[(10, 12)]), (BLACK, BLACK));
    }
}
