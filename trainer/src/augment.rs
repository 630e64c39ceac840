//! Random shift of pictures (spec dppo.md §3.4).

use rand::Rng;

/// Replicated pixels on each side, and so the largest shift in each direction.
pub const PADDING: usize = 4;

/// Pads a picture `[channels, height, width]` by replicating its border `padding` times on each side and cuts the window
/// of the old size at `shift` = (x, y), each 0 to 2 · padding. `(padding, padding)` gives the picture itself.
pub fn shift<T: Copy>(
    picture: &[T],
    [height, width]: [usize; 2],
    padding: usize,
    (x, y): (usize, usize),
    out: &mut [T],
) {
    let place = |k: usize, shift: usize, n: usize| (k + shift).saturating_sub(padding).min(n - 1);
    for (picture, out) in picture.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let source = &picture[place(row, y, height) * width..][..width];
            for (column, out) in out.iter_mut().enumerate() {
                *out = source[place(column, x, width)];
            }
        }
    }
}

/// Shifts every picture of `images [n, channels, px, px]` by an amount of its own, all channels alike.
pub fn random_shift(images: &mut [u8], channels: usize, px: usize, rng: &mut impl Rng) {
    let mut shifted = vec![0; channels * px * px];
    for picture in images.chunks_exact_mut(channels * px * px) {
        let by = (rng.random_range(0..=2 * PADDING), rng.random_range(0..=2 * PADDING));
        shift(picture, [px, px], PADDING, by, &mut shifted);
        picture.copy_from_slice(&shifted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_middle_shift_changes_nothing_and_others_replicate_the_border() {
        let picture: Vec<u8> = (0..16).collect();
        let mut out = vec![0; 16];
        shift(&picture, [4, 4], 4, (4, 4), &mut out);
        assert_eq!(out, picture);
        shift(&picture, [4, 4], 4, (0, 4), &mut out);
        assert_eq!(out[..4], [0; 4], "four columns to the right of the border there is only border");
        shift(&picture, [4, 4], 4, (5, 5), &mut out);
        assert_eq!(out, [5, 6, 7, 7, 9, 10, 11, 11, 13, 14, 15, 15, 13, 14, 15, 15]);
    }

    #[test]
    fn pictures_are_shifted_by_amounts_of_their_own() {
        let picture: Vec<u8> = (0..100).collect();
        let mut images = picture.repeat(20);
        random_shift(&mut images, 1, 10, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
        let distinct: std::collections::BTreeSet<&[u8]> = images.chunks_exact(100).collect();
        assert!(distinct.len() > 10, "{} of 20", distinct.len());
    }
}
