//! The synthetic camera itself.

use super::paint::{Hit, Surface, surfaces};
use super::scene::{Motion, Scene};
use super::sensor::{CameraEffects, Sensor, paint_backdrop};
use crate::image::check_size;
use crate::pose::corners_in_tag;
use crate::{Camera, GreyImage, Pose, VisionError};
use nalgebra::{Point3, Vector3};
use tenon_core::noise::SeededNoise;

/// Side of the squares that share a list of surfaces, px.
const BLOCK_PX: usize = 16;
/// Points per axis at which a tag's visibility is judged.
const VISIBILITY_GRID: usize = 16;
/// What lies at least this far before a tag hides it, m.
const HIDES_M: f64 = 1e-3;

/// What is true of a tag in a photograph, at the middle of the exposure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TagTruth {
    pub id: u32,
    /// Index of its body in the scene.
    pub body: usize,
    pub size_m: f64,
    pub T_camera_tag: Pose,
    /// Corners of the black border in the order of [`crate::TagDetection::corners_px`], px.
    pub corners_px: [[f64; 2]; 4],
    /// Share of the print, white margin included, that faces the camera, lies within the picture and is not hidden.
    pub visible_fraction: f64,
    /// Angle between the tag's normal and the line of sight, rad.
    pub tilt_rad: f64,
}

/// A camera of 1280 × 720 px or any other size that photographs scenes. Rays, backdrop and vignetting are worked out once.
#[derive(Debug, Clone)]
pub struct SyntheticCamera {
    camera: Camera,
    width: usize,
    height: usize,
    effects: CameraEffects,
    seed: u64,
    backdrop: Vec<f32>,
    sensor: Sensor,
    /// Normalised coordinates of every pixel's corners, row-major, `(width + 1) * (height + 1)`.
    rays: Vec<[f64; 2]>,
    light: Vec<f32>,
    surfaces: Vec<Surface>,
    /// For each block of the picture, the surfaces that may touch it.
    blocks: Vec<Vec<u32>>,
    /// Sub-pixel places (u, v) of a pixel's rays and the moment each belongs to.
    samples: Vec<(f64, f64, usize)>,
    /// Fraction of the exposure of each moment.
    moments: Vec<f64>,
    truth: Vec<TagTruth>,
}

impl SyntheticCamera {
    /// # Errors
    /// [`VisionError::ImageSize`] for a size no detector takes, [`VisionError::Camera`] when the distortion model cannot be
    /// inverted over the whole picture or a setting is out of range.
    pub fn new(
        camera: Camera,
        width: usize,
        height: usize,
        effects: CameraEffects,
        seed: u64,
    ) -> Result<Self, VisionError> {
        check_size(width, height)?;
        for (name, value, ok) in [
            ("supersampling", effects.supersampling as f64, (1..=16).contains(&effects.supersampling)),
            ("defocus_sigma_px", effects.defocus_sigma_px, (0.0..=20.0).contains(&effects.defocus_sigma_px)),
            ("gamma", effects.gamma, (0.2..=5.0).contains(&effects.gamma)),
            ("exposure", effects.exposure, (0.0..=1000.0).contains(&effects.exposure)),
            ("vignetting", effects.vignetting, (0.0..=1.0).contains(&effects.vignetting)),
            ("read_noise", effects.read_noise, (0.0..=1.0).contains(&effects.read_noise)),
            ("full_well_electrons", effects.full_well_electrons, effects.full_well_electrons > 0.0),
        ] {
            if !ok {
                let requirement = "is out of the range the synthetic camera can do";
                return Err(VisionError::Camera { name, value, requirement });
            }
        }
        let mut rays = Vec::with_capacity((width + 1) * (height + 1));
        for y in 0..=height {
            for x in 0..=width {
                let ray = camera.normalise([x as f64, y as f64]).ok_or(VisionError::Camera {
                    name: "distortion",
                    value: x as f64,
                    requirement: "must be invertible over the whole picture (it is not at this column)",
                })?;
                rays.push(ray);
            }
        }
        let n = effects.supersampling;
        // The rays of a pixel are spread over the exposure by a stride that is coprime to their number, so that neither
        // the rows nor the columns of a pixel see one moment only.
        let total = n * n;
        let stride = (total * 5 / 8..).find(|s| gcd(*s, total) == 1).expect("total + 1 is coprime to total");
        let place = |i: usize| (i as f64 + 0.5) / n as f64;
        let samples = (0..total).map(|s| (place(s % n), place(s / n), s * stride % total)).collect();
        Ok(Self {
            camera,
            width,
            height,
            effects,
            seed,
            backdrop: paint_backdrop(effects.backdrop, width, height, seed),
            sensor: Sensor::new(effects, width, height),
            rays,
            light: vec![0.0; width * height],
            surfaces: Vec::new(),
            blocks: vec![Vec::new(); width.div_ceil(BLOCK_PX) * height.div_ceil(BLOCK_PX)],
            samples,
            moments: (0..total).map(|i| (i as f64 + 0.5) / total as f64).collect(),
            truth: Vec::new(),
        })
    }

    pub fn camera(&self) -> &Camera {
        &self.camera
    }

    /// Photographs `scene` with its bodies at `motions` (one each, in order) into `image`, and gives the truth of every tag,
    /// hidden ones included. `photograph` numbers the noise: the same number gives the same noise.
    ///
    /// # Errors
    /// [`VisionError::PixelBuffer`] when `image` has another size than the camera.
    ///
    /// # Panics
    /// When `motions` are not as many as the scene's bodies.
    pub fn shoot(
        &mut self,
        scene: &Scene,
        motions: &[Motion],
        photograph: u64,
        image: &mut GreyImage,
    ) -> Result<&[TagTruth], VisionError> {
        assert_eq!(scene.bodies.len(), motions.len(), "one motion for each body");
        if (image.width(), image.height()) != (self.width, self.height) {
            let (width, height) = (self.width, self.height);
            return Err(VisionError::PixelBuffer { width, height, stride: width, len: image.pixels().len() });
        }
        let tones = (self.effects.black, self.effects.white);
        let size = (self.width, self.height);
        surfaces(&self.camera, size, scene, motions, &self.moments, tones, &mut self.surfaces);
        self.light.copy_from_slice(&self.backdrop);
        self.sort_into_blocks();
        self.trace(scene);
        self.sensor.defocus(&mut self.light);
        let mut noise = SeededNoise::new(self.seed, 1 + photograph);
        self.sensor.expose(&self.light, &mut noise, image.pixels_mut());
        self.judge(scene, motions);
        Ok(&self.truth)
    }

    /// Truth of the last photograph.
    pub fn truth(&self) -> &[TagTruth] {
        &self.truth
    }

    fn sort_into_blocks(&mut self) {
        let columns = self.width.div_ceil(BLOCK_PX);
        self.blocks.iter_mut().for_each(Vec::clear);
        for (index, surface) in self.surfaces.iter().enumerate() {
            let [left, top, right, bottom] = surface.area;
            for by in top / BLOCK_PX..bottom.div_ceil(BLOCK_PX) {
                for bx in left / BLOCK_PX..right.div_ceil(BLOCK_PX) {
                    self.blocks[by * columns + bx].push(index as u32);
                }
            }
        }
    }

    fn trace(&mut self, scene: &Scene) {
        let columns = self.width.div_ceil(BLOCK_PX);
        let n = self.effects.supersampling;
        let corners = [0, n - 1, n * n - n, n * n - 1];
        let mut light = std::mem::take(&mut self.light);
        for (block, list) in self.blocks.iter().enumerate() {
            if list.is_empty() {
                continue;
            }
            let still = list.iter().all(|&i| self.surfaces[i as usize].is_still());
            let (left, top) = (block % columns * BLOCK_PX, block / columns * BLOCK_PX);
            for y in top..(top + BLOCK_PX).min(self.height) {
                for x in left..(left + BLOCK_PX).min(self.width) {
                    let pixel = &mut light[y * self.width + x];
                    let backdrop = *pixel;
                    let ray = |sample: usize| {
                        let (u, v, moment) = self.samples[sample];
                        (self.direction(x, y, u, v), moment)
                    };
                    // A patch is convex, so a pixel whose outermost rays hit one patch sees only that (but for things
                    // thinner than a pixel).
                    if still {
                        let hits = corners.map(|sample| self.nearest(scene, list, (x, y), &ray(sample).0, 0));
                        match hits {
                            [None, None, None, None] => continue,
                            [Some(a), Some(b), Some(c), Some(d)]
                                if a.patch == b.patch && a.patch == c.patch && a.patch == d.patch =>
                            {
                                *pixel = a.light;
                                continue;
                            }
                            _ => {}
                        }
                    }
                    let mut sum = 0.0;
                    for sample in 0..n * n {
                        let (direction, moment) = ray(sample);
                        let hit = self.nearest(scene, list, (x, y), &direction, moment);
                        sum += hit.map_or(backdrop, |hit| hit.light);
                    }
                    *pixel = sum / (n * n) as f32;
                }
            }
        }
        self.light = light;
    }

    /// Ray through the place (u, v), 0 to 1, of pixel (x, y). Between a pixel's corners rays are linear to 1e-7 px.
    fn direction(&self, x: usize, y: usize, u: f64, v: f64) -> Vector3<f64> {
        let row = self.width + 1;
        let at = |i: usize, j: usize| self.rays[(y + j) * row + x + i];
        let (a, b, c, d) = (at(0, 0), at(1, 0), at(0, 1), at(1, 1));
        let mix = |axis: usize| {
            let upper = a[axis] + (b[axis] - a[axis]) * u;
            let lower = c[axis] + (d[axis] - c[axis]) * u;
            upper + (lower - upper) * v
        };
        Vector3::new(mix(0), mix(1), 1.0)
    }

    /// What the ray through pixel (x, y) meets first among the surfaces of `list`.
    fn nearest(
        &self,
        scene: &Scene,
        list: &[u32],
        (x, y): (usize, usize),
        direction: &Vector3<f64>,
        moment: usize,
    ) -> Option<Hit> {
        let mut nearest: Option<Hit> = None;
        for &index in list {
            let surface = &self.surfaces[index as usize];
            let [left, top, right, bottom] = surface.area;
            if x < left || x >= right || y < top || y >= bottom {
                continue;
            }
            let hit = surface.hit(scene, index as usize, direction, moment);
            if let Some(hit) = hit
                && nearest.is_none_or(|earlier| hit.depth_m < earlier.depth_m)
            {
                nearest = Some(hit);
            }
        }
        nearest
    }

    fn judge(&mut self, scene: &Scene, motions: &[Motion]) {
        let mut truth = std::mem::take(&mut self.truth);
        truth.clear();
        let middle = self.moments.len() / 2;
        for (body_index, (body, motion)) in scene.bodies.iter().zip(motions).enumerate() {
            let T_camera_body = motion.at(0.5);
            for print in &body.prints {
                let T_camera_tag = T_camera_body * print.tag.T_body_tag;
                let corners = corners_in_tag(print.tag.size_m).map(|c| self.camera.project(&(T_camera_tag * c)));
                let [Some(c0), Some(c1), Some(c2), Some(c3)] = corners else { continue };
                let sight = T_camera_tag.translation.vector.normalize();
                let cos_tilt = (T_camera_tag.rotation * Vector3::z()).dot(&sight);
                let visible_fraction = match cos_tilt > 0.0 {
                    true => {
                        self.visible_fraction(scene, &T_camera_tag, print.cells_a_side as f64 * print.cell_m, middle)
                    }
                    false => 0.0,
                };
                truth.push(TagTruth {
                    id: print.tag.id,
                    body: body_index,
                    size_m: print.tag.size_m,
                    T_camera_tag,
                    corners_px: [c0, c1, c2, c3],
                    visible_fraction,
                    tilt_rad: cos_tilt.clamp(-1.0, 1.0).acos(),
                });
            }
        }
        self.truth = truth;
    }

    fn visible_fraction(&self, scene: &Scene, T_camera_tag: &Pose, print_m: f64, moment: usize) -> f64 {
        let place = |i: usize| ((i as f64 + 0.5) / VISIBILITY_GRID as f64 - 0.5) * print_m;
        let columns = self.width.div_ceil(BLOCK_PX);
        let mut visible = 0;
        for i in 0..VISIBILITY_GRID * VISIBILITY_GRID {
            let point = T_camera_tag * Point3::new(place(i % VISIBILITY_GRID), place(i / VISIBILITY_GRID), 0.0);
            let Some([u, v]) = self.camera.project(&point) else { continue };
            let inside = (0.0..self.width as f64).contains(&u) && (0.0..self.height as f64).contains(&v);
            if !inside {
                continue;
            }
            let direction = point.coords / point.z;
            let block = v as usize / BLOCK_PX * columns + u as usize / BLOCK_PX;
            let hidden = self.blocks[block].iter().any(|&index| {
                let surface = &self.surfaces[index as usize];
                let hit = surface.hit(scene, index as usize, &direction, moment);
                surface.is_solid() && hit.is_some_and(|hit| hit.depth_m < point.z - HIDES_M)
            });
            visible += usize::from(!hidden);
        }
        visible as f64 / (VISIBILITY_GRID * VISIBILITY_GRID) as f64
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
