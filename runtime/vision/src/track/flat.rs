//! Sparing the C library the parts of a picture that cannot hold a tag.
//!
//! In a real picture sensor noise alone passes the library's own limit for contrast (5 grey levels among 12 × 12 px), and
//! most of a search goes into fitting quadrilaterals to noise. Where detections below a decision margin are dropped anyway,
//! that margin gives a limit that noise does not pass: a bit's margin is half the contrast, raised by sharpening at most
//! 1 + 8 s times (s: `decode_sharpening`, for a bit whose four neighbours are all of the other colour). Squares of 4 × 4 px
//! with less contrast in all of the 5 × 5 squares around them are made even: no pixel that takes part in a tag's edge, or
//! in the threshold of one, changes.

use crate::DetectorSettings;

/// Side of the library's threshold squares, px.
const SQUARE_PX: usize = 4;

/// Least contrast of a tag that `settings` accept, grey levels; `None` where the method does not apply.
pub(super) fn least_contrast(settings: &DetectorSettings) -> Option<u8> {
    let sharpened = 1.0 + 8.0 * settings.decode_sharpening;
    let contrast = 2.0 * f64::from(settings.min_decision_margin) / sharpened;
    // The library's squares lie elsewhere on decimated pictures, and a blur reaches beyond them.
    let applies = settings.quad_decimate == 1.0 && settings.quad_sigma == 0.0 && contrast > 6.0;
    applies.then_some(contrast.min(128.0) as u8)
}

/// Evens out flat areas in place, with buffers that are kept.
#[derive(Debug, Default)]
pub(super) struct Flattener {
    low: Vec<u8>,
    high: Vec<u8>,
    /// Middle of each square.
    middle: Vec<u8>,
    row: Vec<u8>,
    flat: Vec<u8>,
}

impl Flattener {
    /// Takes the memory for pictures of up to this size.
    pub(super) fn reserve(&mut self, width: usize, height: usize) {
        let squares = (width / SQUARE_PX) * (height / SQUARE_PX);
        for buffer in [&mut self.low, &mut self.high, &mut self.middle, &mut self.flat] {
            buffer.reserve(squares);
        }
        self.row.reserve(2 * width);
    }

    /// `pixels`: row-major, `width` × `height`.
    pub(super) fn flatten(&mut self, pixels: &mut [u8], width: usize, height: usize, least_contrast: u8) {
        let (columns, rows) = (width / SQUARE_PX, height / SQUARE_PX);
        for buffer in [&mut self.low, &mut self.high, &mut self.middle, &mut self.flat] {
            buffer.resize(columns * rows, 0);
        }
        self.row.resize(2 * width, 0);
        for square_row in 0..rows {
            let (low, high) = self.row.split_at_mut(width);
            let first = square_row * SQUARE_PX * width;
            low.copy_from_slice(&pixels[first..first + width]);
            high.copy_from_slice(low);
            for dy in 1..SQUARE_PX {
                let line = &pixels[first + dy * width..][..width];
                for ((low, high), &value) in low.iter_mut().zip(high.iter_mut()).zip(line) {
                    *low = (*low).min(value);
                    *high = (*high).max(value);
                }
            }
            let squares = low.chunks_exact(SQUARE_PX).zip(high.chunks_exact(SQUARE_PX));
            for (column, (low, high)) in squares.enumerate() {
                let least = low[0].min(low[1]).min(low[2]).min(low[3]);
                let most = high[0].max(high[1]).max(high[2]).max(high[3]);
                let i = square_row * columns + column;
                (self.low[i], self.high[i]) = (least, most);
                // In steps of four: neighbours that differ by noise become equal, or differ by less than the library's
                // limit of five.
                self.middle[i] = ((u16::from(least) + u16::from(most)) / 2) as u8 & !3;
            }
        }
        let (columns_rows, scratch) = ((columns, rows), &mut self.row);
        spread(&mut self.low, columns_rows, scratch, u8::min);
        spread(&mut self.high, columns_rows, scratch, u8::max);
        for ((flat, low), high) in self.flat.iter_mut().zip(&self.low).zip(&self.high) {
            *flat = u8::from(high - low < least_contrast);
        }
        spread(&mut self.flat, columns_rows, scratch, u8::min);
        for square_row in 0..rows {
            for column in 0..columns {
                let i = square_row * columns + column;
                if self.flat[i] == 1 {
                    for dy in 0..SQUARE_PX {
                        let at = (square_row * SQUARE_PX + dy) * width + column * SQUARE_PX;
                        pixels[at..at + SQUARE_PX].fill(self.middle[i]);
                    }
                }
            }
        }
    }
}

/// Replaces each value by the extreme of the 3 × 3 around it. `scratch` holds at least two rows.
fn spread(values: &mut [u8], (columns, rows): (usize, usize), scratch: &mut [u8], extreme: fn(u8, u8) -> u8) {
    if columns == 0 || rows == 0 {
        return;
    }
    for row in values.chunks_exact_mut(columns) {
        let mut before = row[0];
        for x in 0..columns {
            let here = row[x];
            let after = if x + 1 < columns { row[x + 1] } else { here };
            row[x] = extreme(extreme(before, here), after);
            before = here;
        }
    }
    let (above, here) = scratch.split_at_mut(columns);
    let here = &mut here[..columns];
    above.copy_from_slice(&values[..columns]);
    for y in 0..rows {
        here.copy_from_slice(&values[y * columns..][..columns]);
        for x in 0..columns {
            let below = if y + 1 < rows { values[(y + 1) * columns + x] } else { here[x] };
            values[y * columns + x] = extreme(extreme(above[x], here[x]), below);
        }
        above.copy_from_slice(here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faint_noise_becomes_even_and_the_surroundings_of_an_edge_stay() {
        let (width, height) = (64, 48);
        let noisy = |x: usize, y: usize| 100 + ((x * 7 + y * 13) % 6) as u8;
        let mut pixels: Vec<u8> = (0..width * height).map(|i| noisy(i % width, i / width)).collect();
        pixels[24 * width + 40] = 160;
        let before = pixels.clone();
        Flattener::default().flatten(&mut pixels, width, height, 20);
        for y in 0..height {
            for x in 0..width {
                let near = x.abs_diff(42) < 10 && y.abs_diff(26) < 10;
                let value = pixels[y * width + x];
                assert!(
                    if near { value == before[y * width + x] } else { value == 100 || (32..52).contains(&x) },
                    "{x} {y}"
                );
            }
        }
        assert!(pixels[..8].iter().all(|&value| value == 100), "{:?}", &pixels[..8]);
    }

    #[test]
    fn only_a_decision_margin_sets_a_limit() {
        assert_eq!(least_contrast(&DetectorSettings::default()), None);
        let strict = DetectorSettings { min_decision_margin: 30.0, ..Default::default() };
        assert_eq!(least_contrast(&strict), Some(20));
        assert_eq!(least_contrast(&DetectorSettings { quad_decimate: 2.0, ..strict }), None);
    }
}
