//! What lens and sensor do to the light: defocus, vignetting, exposure, noise, tone curve; and the backdrop.
//!
//! Light is linear, 1 is the sensor's full scale.

use rand::Rng;
use tenon_core::noise::{NoiseSource, SeededNoise};

/// What lies behind all bodies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backdrop {
    /// One reflectance everywhere.
    Flat(f32),
    /// A cluttered bench: soft blotches, a fine grain, and `patches` turned rectangles and bars of other reflectances.
    Clutter { mean: f32, contrast: f32, patches: usize },
}

/// Optics, sensor and sampling of a [`super::SyntheticCamera`]. The default is a webcam-like colour camera in a lit room;
/// [`CameraEffects::clean`] is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraEffects {
    /// Rays per pixel and axis; bodies in motion take each ray at another moment of the exposure.
    pub supersampling: usize,
    pub backdrop: Backdrop,
    /// Reflectance of the print's black and white.
    pub black: f32,
    pub white: f32,
    /// Standard deviation of the lens's point spread, px.
    pub defocus_sigma_px: f64,
    /// Share of the light lost at the picture's corners; the loss grows with the square of the distance from its centre.
    pub vignetting: f64,
    /// Factor on all light: exposure time times gain.
    pub exposure: f64,
    /// Electrons at full scale: the shot noise of light L has standard deviation √(L / electrons). Infinite: none.
    pub full_well_electrons: f64,
    /// Standard deviation of the noise that does not depend on light, as a share of full scale.
    pub read_noise: f64,
    /// Exponent of the tone curve, level = 255 · L^(1/gamma); 1 is a linear camera.
    pub gamma: f64,
}

impl CameraEffects {
    pub fn clean() -> Self {
        Self {
            defocus_sigma_px: 0.0,
            vignetting: 0.0,
            full_well_electrons: f64::INFINITY,
            read_noise: 0.0,
            backdrop: Backdrop::Flat(0.43),
            ..Self::default()
        }
    }
}

impl Default for CameraEffects {
    fn default() -> Self {
        Self {
            supersampling: 4,
            backdrop: Backdrop::Clutter { mean: 0.35, contrast: 0.5, patches: 90 },
            black: 0.08,
            white: 0.80,
            defocus_sigma_px: 0.6,
            vignetting: 0.25,
            exposure: 1.0,
            full_well_electrons: 9000.0,
            read_noise: 0.004,
            gamma: 1.0,
        }
    }
}

/// The backdrop's light, row-major.
pub(super) fn paint_backdrop(backdrop: Backdrop, width: usize, height: usize, seed: u64) -> Vec<f32> {
    let (mean, contrast, patches) = match backdrop {
        Backdrop::Flat(level) => return vec![level; width * height],
        Backdrop::Clutter { mean, contrast, patches } => (mean, contrast, patches),
    };
    let mut random = SeededNoise::new(seed, BACKDROP_STREAM);
    let mut light = vec![mean; width * height];
    for _ in 0..patches {
        let rng = random.rng();
        let (cx, cy) = (rng.random_range(0.0..width as f32), rng.random_range(0.0..height as f32));
        // Bars and plates of all sizes, up to a third of the picture.
        let scale = 0.33 * width as f32 * rng.random_range(0.0f32..1.0).powi(2);
        let (half_x, half_y) =
            (2.0 + scale * rng.random_range(0.05f32..0.5), 2.0 + scale * rng.random_range(0.05f32..0.5));
        let (sin, cos) = rng.random_range(0.0f32..std::f32::consts::PI).sin_cos();
        let level = (mean * (1.0 + contrast * rng.random_range(-1.0f32..1.0))).clamp(0.02, 0.9);
        let reach = half_x.hypot(half_y);
        let rows = (cy - reach).max(0.0) as usize..((cy + reach).max(0.0) as usize).min(height);
        for y in rows {
            for x in (cx - reach).max(0.0) as usize..((cx + reach).max(0.0) as usize).min(width) {
                let (dx, dy) = (x as f32 + 0.5 - cx, y as f32 + 0.5 - cy);
                if (dx * cos + dy * sin).abs() < half_x && (dy * cos - dx * sin).abs() < half_y {
                    light[y * width + x] = level;
                }
            }
        }
    }
    for (cell_px, strength) in [(97.0f32, 0.20f32), (31.0, 0.10), (3.7, 0.05)] {
        let columns = (width as f32 / cell_px) as usize + 2;
        let rows = (height as f32 / cell_px) as usize + 2;
        let mut lattice = vec![0.0; columns * rows];
        random.fill_standard_normal(&mut lattice);
        for y in 0..height {
            let (row, fy) = ((y as f32 / cell_px) as usize, (y as f32 / cell_px).fract());
            for x in 0..width {
                let (column, fx) = ((x as f32 / cell_px) as usize, (x as f32 / cell_px).fract());
                let at = |i: usize, j: usize| lattice[(row + j) * columns + column + i];
                let upper = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
                let lower = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
                let wave = upper * (1.0 - fy) + lower * fy;
                light[y * width + x] *= (1.0 + contrast * strength * wave).max(0.1);
            }
        }
    }
    light
}

/// Random streams of one seed: one for the backdrop, then one for each photograph.
pub(super) const BACKDROP_STREAM: u64 = 0;

/// Light to grey levels, with buffers of its own.
#[derive(Debug, Clone)]
pub(super) struct Sensor {
    width: usize,
    effects: CameraEffects,
    /// Exposure and vignetting of each pixel.
    gain: Vec<f32>,
    /// Point spread, odd number of taps, sum 1; empty without defocus.
    taps: Vec<f32>,
    rows: Vec<f32>,
    padded: Vec<f32>,
    normal: Vec<f32>,
    /// Level by the square root of light, [`TONES`] + 1 entries: even steps there are about even steps to the eye.
    tones: Vec<f32>,
}

const TONES: usize = 1024;

impl Sensor {
    pub(super) fn new(effects: CameraEffects, width: usize, height: usize) -> Self {
        let centre = (width as f64 / 2.0, height as f64 / 2.0);
        let corner = centre.0.hypot(centre.1);
        let mut gain = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let r = (x as f64 + 0.5 - centre.0).hypot(y as f64 + 0.5 - centre.1) / corner;
                gain.push((effects.exposure * (1.0 - effects.vignetting * r * r)) as f32);
            }
        }
        let sigma = effects.defocus_sigma_px;
        let mut taps = Vec::new();
        if sigma > 0.0 {
            let radius = (3.0 * sigma).ceil() as i32;
            taps.extend((-radius..=radius).map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp() as f32));
            let sum: f32 = taps.iter().sum();
            taps.iter_mut().for_each(|tap| *tap /= sum);
        }
        let level = |i: usize| 255.0 * (i as f64 / TONES as f64).powi(2).powf(1.0 / effects.gamma);
        Self {
            width,
            effects,
            gain,
            padded: vec![0.0; width + taps.len()],
            taps,
            rows: vec![0.0; width * height],
            normal: vec![0.0; width],
            tones: (0..=TONES).map(|i| level(i) as f32).collect(),
        }
    }

    /// Blurs `light` in place; beyond its border the picture goes on as its last pixels.
    pub(super) fn defocus(&mut self, light: &mut [f32]) {
        if self.taps.is_empty() {
            return;
        }
        let (width, height, radius) = (self.width, light.len() / self.width, self.taps.len() / 2);
        for (row, out) in light.chunks_exact(width).zip(self.rows.chunks_exact_mut(width)) {
            self.padded[..radius].fill(row[0]);
            self.padded[radius..radius + width].copy_from_slice(row);
            self.padded[radius + width..].fill(row[width - 1]);
            out.fill(0.0);
            for (k, &tap) in self.taps.iter().enumerate() {
                for (sum, &value) in out.iter_mut().zip(&self.padded[k..k + width]) {
                    *sum += tap * value;
                }
            }
        }
        for (y, out) in light.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            for (k, &tap) in self.taps.iter().enumerate() {
                let from = (y + k).saturating_sub(radius).min(height - 1);
                for (sum, &value) in out.iter_mut().zip(&self.rows[from * width..][..width]) {
                    *sum += tap * value;
                }
            }
        }
    }

    /// Exposes `light` and reads it out as grey levels.
    pub(super) fn expose(&mut self, light: &[f32], noise: &mut SeededNoise, levels: &mut [u8]) {
        let per_electron = (1.0 / self.effects.full_well_electrons) as f32;
        let read_variance = (self.effects.read_noise * self.effects.read_noise) as f32;
        let noisy = per_electron > 0.0 || read_variance > 0.0;
        let rows = light.chunks_exact(self.width).zip(self.gain.chunks_exact(self.width));
        for ((light, gain), levels) in rows.zip(levels.chunks_exact_mut(self.width)) {
            if noisy {
                noise.fill_standard_normal(&mut self.normal);
            }
            for x in 0..light.len() {
                let signal = light[x] * gain[x];
                let sigma = (signal * per_electron + read_variance).sqrt();
                let signal = (signal + sigma * self.normal[x]).clamp(0.0, 1.0);
                let place = signal.sqrt() * TONES as f32;
                let index = (place as usize).min(TONES - 1);
                let (low, high) = (self.tones[index], self.tones[index + 1]);
                levels[x] = (low + (high - low) * (place - index as f32) + 0.5) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tone_curve_and_noise_have_the_stated_size() {
        let (width, height) = (256, 64);
        let light = vec![0.4; width * height];
        let mut levels = vec![0; width * height];
        let clean = CameraEffects { gamma: 2.2, ..CameraEffects::clean() };
        Sensor::new(clean, width, height).expose(&light, &mut SeededNoise::new(1, 1), &mut levels);
        let wanted = 255.0 * 0.4f64.powf(1.0 / 2.2);
        assert!(levels.iter().all(|&level| (f64::from(level) - wanted).abs() <= 1.0), "{} {wanted}", levels[0]);

        let noisy = CameraEffects { full_well_electrons: 4000.0, read_noise: 0.005, ..CameraEffects::clean() };
        Sensor::new(noisy, width, height).expose(&light, &mut SeededNoise::new(1, 1), &mut levels);
        let n = levels.len() as f64;
        let mean = levels.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = levels.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let wanted = 255.0 * (0.4 / 4000.0 + 0.005f64.powi(2)).sqrt();
        assert!((variance.sqrt() / wanted - 1.0).abs() < 0.05, "{} {wanted}", variance.sqrt());
        assert!((mean - 0.4 * 255.0).abs() < 0.2, "{mean}");
    }

    #[test]
    fn defocus_keeps_the_light_and_spreads_it_by_its_sigma() {
        let (width, height) = (64, 48);
        let mut light = vec![0.0; width * height];
        light[24 * width + 32] = 1.0;
        let effects = CameraEffects { defocus_sigma_px: 1.3, ..CameraEffects::clean() };
        Sensor::new(effects, width, height).defocus(&mut light);
        let (mut sum, mut second) = (0.0, 0.0);
        for (i, &value) in light.iter().enumerate() {
            sum += f64::from(value);
            second += f64::from(value) * ((i % width) as f64 - 32.0).powi(2);
        }
        assert!((sum - 1.0).abs() < 1e-5 && (second.sqrt() - 1.3).abs() < 0.03, "{sum} {}", second.sqrt());
    }

    #[test]
    fn the_corners_lose_the_stated_share_of_light() {
        let (width, height) = (200, 100);
        let mut levels = vec![0; width * height];
        let effects = CameraEffects { vignetting: 0.5, ..CameraEffects::clean() };
        let mut sensor = Sensor::new(effects, width, height);
        sensor.expose(&vec![0.8; width * height], &mut SeededNoise::new(1, 1), &mut levels);
        assert!(levels[50 * width + 100].abs_diff(204) <= 1 && levels[0].abs_diff(102) <= 2, "{}", levels[0]);
    }
}
